//! The replication engine: resolve, survey, plan, transfer; publish. Knows registries and images; no jobs' rows, no SQL.
//!
//! One attempt reads top to bottom in [`Engine::stage`]: what the source has (`resolve`), what the destination has
//! (`survey`), what follows from the two (`plan`, pure), and doing it (`transfer`, `blob`); then the same for what refers to
//! the image (`referrers`). Each attempt is a reconciliation: content is named by its digest, so that the destination itself
//! is the checkpoint, and an attempt that died is continued by comparing again. What is remembered (`ledger`) only saves bytes
//! and requests: uploads that were cut, and blobs that were seen.
//!
//! Staging and publishing are two calls rather than one, because all of staging is harmless to repeat while moving a tag
//! is not: the caller makes sure in between that it may still write.
//!
//! What is copied is copied verbatim. The engine never serialises a manifest, never commits content whose digest it did
//! not compute itself, never keeps more than a few pieces of a blob in memory, and never writes a tag while it stages.
//! Every future may be dropped at any await: uploads then stay behind at the registry, and nothing else.

mod bandwidth;
mod blob;
mod content;
mod destination;
mod download;
mod error;
mod follow;
mod hints;
mod ledger;
mod mounting;
mod parts;
mod plan;
mod publish;
mod referrers;
mod resolve;
mod resume;
mod select;
mod send;
mod source;
mod survey;
mod tasks;
mod transfer;
mod turns;
mod verify;

pub use bandwidth::{Rates, Window};
pub use error::Error;
pub use ledger::{Ledger, Seen, UploadTurn, Uploaded};
pub use publish::{Published, Staged};

use crate::clock::Clock;
use crate::job::{Class, Parsed, ProgressCounter, Transfer};
use crate::oci::{Digest, Manifest};
use crate::registry::{Client, Session};
use crate::tempfiles::TempFiles;
use bandwidth::Bandwidths;
use blob::Way;
use destination::Destination;
use follow::subjects_of;
use mounting::{Asking, Mounting};
use parts::Places;
use plan::{Current, Verdict, judge, plan};
use publish::Root;
use referrers::Memory;
use select::{Picked, Selection, pick};
use source::Source;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock};
use tasks::side_by_side;
use tokio::sync::Semaphore;
use transfer::Transferred;
use turns::Turns;

/// Limits of the engine.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Blobs moved at a time within one job, and manifests read or put at a time (default 4: enough to fill most links,
    /// few enough that eight jobs do not trip a registry's limits). Of blobs below 1 MiB, whose time is that of their requests,
    /// four times as many beside them.
    pub blobs_at_once: usize,
    /// Blobs below 1 MiB moved at a time by all jobs together (default 24, at least 1): bounds memory and connections.
    pub small_blobs_of_all: usize,
    /// How deep indexes may be nested (default 8: two are in use).
    pub index_depth: usize,
    /// Manifests in one image tree, the root included (default 2000: ten times what the largest known indexes have).
    pub manifests: usize,
    /// Largest manifest, bytes (default 8 MiB: registries must take 4 MiB, some take more).
    pub manifest_bytes: u64,
    /// Tries of one blob within an attempt, the first included (default 3: what three tries do not mend is the job's
    /// own retry, with its longer pauses).
    pub blob_tries: u32,
    /// Smallest blob of which parts may be fetched by ranges side by side, where its source is slow, bytes (default 1 GiB:
    /// smaller ones are mostly over before a source has turned out to be slow).
    pub ranges_from_bytes: u64,
    /// Parts fetched at a time by all copies of this engine together (default 4; below 2: none). Each takes 2 MiB of memory.
    pub ranges_at_once: u32,
    /// Bytes of blobs a second, over all copies of this engine (default: no limit).
    pub bandwidth: Rates,
    /// The same for what goes to and from single registries, by host.
    pub registries: BTreeMap<String, Rates>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            blobs_at_once: 4,
            small_blobs_of_all: 24,
            index_depth: 8,
            manifests: 2000,
            manifest_bytes: 8 * 1024 * 1024,
            blob_tries: 3,
            ranges_from_bytes: 1024 * 1024 * 1024,
            ranges_at_once: 4,
            bandwidth: Rates::default(),
            registries: BTreeMap::new(),
        }
    }
}

/// What one attempt does: written by the engine, read by others (heartbeat, progress bars, settle).
#[derive(Debug, Default)]
pub struct Attempt {
    /// How far the blobs are.
    pub progress: ProgressCounter,
    /// Blobs that are at the destination, in the order they got there; each one once.
    pub transfers: Mutex<Vec<Transfer>>,
    /// HTTP requests sent, to both sides and for tokens.
    pub requests: Arc<AtomicU64>,
    /// What the destination named when it was looked at; empty when it named nothing.
    pub found: OnceLock<String>,
    /// The registry has refused a manifest because of what was only remembered: nothing is, any more.
    pub distrust: AtomicBool,
    /// Set just before the root is written under its reference: from then on it may have landed, whatever is heard.
    pub publishing: OnceLock<String>,
}

/// What a copy would do.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Preview {
    /// The digest that the source has.
    pub digest: String,
    /// The media type of its manifest.
    pub media_type: String,
    /// The destination has that digest already, and nothing would be done.
    pub already_present: bool,
    /// The digest that the destination names now.
    pub destination_digest: Option<String>,
    /// Manifests that would be written.
    pub manifests: u64,
    /// Blobs that the destination lacks.
    pub blobs: u64,
    /// Bytes of these blobs.
    pub bytes: u64,
    /// Referrers of it that the destination lacks.
    pub referrers: u64,
}

/// Copies images. Shared by all jobs of a process; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    client: Client,
    limits: Arc<Limits>,
    mounting: Mounting,
    turns: Turns,
    small: Arc<Semaphore>,
    bandwidths: Bandwidths,
    places: Places,
    memory: Memory,
}

impl Engine {
    /// An engine that works through `client`.
    #[must_use]
    pub fn new(client: Client, limits: Limits) -> Self {
        let bandwidths = Bandwidths::new(&limits.bandwidth, &limits.registries, &Clock::System);
        let (mounting, turns, memory) = (Mounting::default(), Turns::default(), Memory::default());
        let (small, places) = (Arc::new(Semaphore::new(limits.small_blobs_of_all.max(1))), Places::new(&limits));
        Self { client, limits: Arc::new(limits), mounting, turns, small, bandwidths, places, memory }
    }

    /// A session of the client behind it, for those who look at what registries have.
    #[must_use]
    pub fn session(&self, verify_tls: Option<bool>, requests: Arc<AtomicU64>) -> Session {
        self.client.session(verify_tls.unwrap_or(true), requests)
    }

    /// Resolve, survey, plan, transfer: everything that is harmless to repeat. When it returns, all content of the source
    /// is at the destination by digest, with what refers to it, and no tag was written; or the destination has the digest
    /// already, which between two registries costs two HEADs and what it takes to see that no referrer is new.
    ///
    /// # Errors
    /// The step that failed, and the class its door gave. Corrupt: the source gave content with a wrong digest twice, and
    /// none of it was committed. Refused at survey: the destination has or demands another digest and may not have this.
    pub async fn stage(
        &self,
        wanted: &Parsed,
        temp: &TempFiles,
        ledger: &Arc<dyn Ledger>,
        attempt: &Arc<Attempt>,
    ) -> Result<Staged, Error> {
        let selection = Selection::of(&wanted.options)?;
        let (source, destination) = self.ends(wanted, &attempt.requests).await?;
        let destination = destination.for_push();
        let current = match destination.current().await {
            // Some registries do not even let a repository be looked at that is not there yet: the first upload tells.
            Err(error) if error.class == Class::Denied && !wanted.options.no_clobber => Current::unknown(),
            current => current?,
        };
        if let Some(digest) = current.digests.first().filter(|_| current.named) {
            attempt.found.get_or_init(|| digest.to_string());
        }
        let mut way = self.way(wanted, source, destination, (attempt, temp, ledger));
        // The source is asked for its digest only when there is something to compare it with. What is copied in part, or is
        // made smaller, or is looked through, cannot be told by that.
        let mut root = None;
        if !current.digests.is_empty() && !wanted.options.force && !wanted.options.verify && selection.is_none() {
            let digest = match way.source.digest().await? {
                Some(digest) => digest,
                None => root.insert(way.source.root(&self.limits).await?).digest.clone(),
            };
            let current = way.destination.current_as(current.clone(), digest.algorithm()).await?;
            let demanded = way.destination.demanded();
            if judge(&digest, demanded, &current, &wanted.options, way.destination.name())? == Verdict::AlreadyPresent {
                let followed = self.follow(wanted, &way, vec![digest.clone()], root.as_ref(), None).await?;
                return Ok(Staged::nothing(digest).with(followed));
            }
        }
        let root = match root {
            Some(root) => root,
            None => way.source.root(&self.limits).await?,
        };
        let picked = pick(selection.as_ref(), &way.source, root, &self.limits).await?;
        // Again, because it may be the first time, or the tag may have moved since.
        let present = self.verdict(wanted, &way.destination, &current, &picked.root).await? == Verdict::AlreadyPresent;
        if present && !wanted.options.verify && self.has_all(&way.destination, picked.chosen.as_ref()).await? {
            let (subjects, chosen) = (subjects_of(&picked), picked.chosen.as_ref());
            let followed = self.follow(wanted, &way, subjects, Some(&picked.root), chosen).await?;
            return Ok(Staged::nothing(picked.root.digest).with(followed));
        }
        way.destination.prepare().await?;
        self.copy(wanted, &way, picked, present && wanted.options.verify).await
    }

    /// Brings an image and its referrers; with `verify`, what is missing of an image that the destination names.
    async fn copy(&self, wanted: &Parsed, way: &Way, picked: Picked, verify: bool) -> Result<Staged, Error> {
        let mut subjects = subjects_of(&picked);
        let Picked { root, chosen, sparse, rewritten_from } = picked;
        let tree = resolve::resolve(&way.source, root, chosen.as_ref(), &self.limits).await?;
        if self.wants_all(wanted, &way.source, &way.destination) {
            subjects.extend(tree.children.iter().map(|child| child.digest.clone()));
        }
        // Before anything is sent: what cannot be told is not found out after hours.
        let found = self.find(wanted, &way.source, &way.destination, subjects).await?;
        let mut healed = None;
        let inventory = if verify {
            let gaps = verify::look(&way.destination, &tree, false, &self.limits).await?;
            if gaps.missing == 0 {
                let followed = self.bring(wanted, way, found).await?;
                return Ok(Staged::nothing(tree.root.digest).with(followed).verified(0));
            }
            healed = Some(gaps.missing);
            gaps.inventory
        } else {
            survey::survey(&way.destination, &tree, wanted.options.force).await?
        };
        let transferred = transfer::transfer(way, plan(tree, &inventory), true).await?;
        let followed = self.bring(wanted, way, found).await?;
        let Transferred { root, manifests_pushed, believed } = transferred;
        let root = Root { manifest: root, sparse, rewritten_from, believed, mended: false };
        let staged = Staged::image(way.destination.clone(), root, way.temp.clone(), manifests_pushed).with(followed);
        Ok(match healed {
            Some(healed) => staged.verified(healed),
            None => staged,
        })
    }

    /// What all blobs of an attempt have in common.
    fn way(
        &self,
        wanted: &Parsed,
        source: Source,
        destination: Destination,
        (attempt, temp, ledger): (&Arc<Attempt>, &TempFiles, &Arc<dyn Ledger>),
    ) -> Way {
        let asking = Asking::new(source.repository().is_none());
        Way {
            source,
            destination,
            attempt: attempt.clone(),
            temp: temp.clone(),
            limits: self.limits.clone(),
            mounting: self.mounting.clone(),
            began: self.mounting.now(),
            small: self.small.clone(),
            turns: self.turns.clone(),
            bandwidth: self.bandwidths.of_copy([wanted.source.host(), wanted.destination.host()]),
            places: self.places.clone(),
            asking: Arc::new(asking),
            ledger: ledger.clone(),
            trusting: !wanted.options.force && !wanted.options.verify,
        }
    }

    /// Writes the root manifest under the destination's reference: one PUT, or the layout's index entry. Nothing when it
    /// was already present. Reads nothing again, but what the registry turns out not to have: it is brought then, and the
    /// caller makes sure once more that it may write.
    ///
    /// # Errors
    /// As [`stage`](Self::stage); the reference may or may not have moved when the connection broke.
    pub async fn publish(&self, staged: Staged, attempt: &Arc<Attempt>) -> Result<Published, Error> {
        publish::publish(staged, attempt).await
    }

    /// What the destination names now; None when it names nothing.
    ///
    /// # Errors
    /// It could not be asked.
    pub async fn published(&self, wanted: &Parsed) -> Result<Option<String>, Error> {
        let (_, destination) = self.ends(wanted, &Arc::default()).await?;
        Ok(destination.current().await?.digests.first().map(ToString::to_string))
    }

    /// What stage and publish would do. Changes nothing, also no upload is opened: blobs are asked for by HEAD. A blob that
    /// could be mounted counts as missing.
    ///
    /// # Errors
    /// As [`stage`](Self::stage).
    pub async fn preview(&self, wanted: &Parsed) -> Result<Preview, Error> {
        let selection = Selection::of(&wanted.options)?;
        let (source, destination) = self.ends(wanted, &Arc::default()).await?;
        let current = destination.current().await?;
        let root = source.root(&self.limits).await?;
        let picked = pick(selection.as_ref(), &source, root, &self.limits).await?;
        let referrers = self.count_referrers(wanted, &source, &destination, &picked).await?;
        let Picked { root, chosen, .. } = picked;
        let already_present = self.verdict(wanted, &destination, &current, &root).await? == Verdict::AlreadyPresent
            && self.has_all(&destination, chosen.as_ref()).await?;
        let same = current.digests.iter().find(|digest| **digest == root.digest);
        let destination_digest = same.or_else(|| current.digests.first().filter(|_| current.named));
        let mut preview = Preview {
            digest: root.digest.to_string(),
            media_type: root.media_type.clone(),
            already_present,
            destination_digest: destination_digest.map(ToString::to_string),
            manifests: 0,
            blobs: 0,
            bytes: 0,
            referrers,
        };
        if !already_present || wanted.options.verify {
            let tree = resolve::resolve(&source, root, chosen.as_ref(), &self.limits).await?;
            let inventory = if already_present {
                let gaps = verify::look(&destination, &tree, false, &self.limits).await?;
                preview.already_present = gaps.missing == 0;
                if preview.already_present {
                    return Ok(preview);
                }
                gaps.inventory
            } else {
                survey::survey_each(&destination, &tree, &self.limits).await?
            };
            let plan = plan(tree, &inventory);
            preview.manifests = plan.manifests();
            preview.blobs = plan::count(plan.missing.len());
            preview.bytes = plan.missing.iter().fold(0, |total, blob| total.saturating_add(blob.size));
        }
        Ok(preview)
    }

    async fn verdict(
        &self,
        wanted: &Parsed,
        destination: &Destination,
        current: &Current,
        root: &Manifest,
    ) -> Result<Verdict, Error> {
        let current = destination.current_as(current.clone(), root.digest.algorithm()).await?;
        judge(&root.digest, destination.demanded(), &current, &wanted.options, destination.name())
    }

    /// The destination has the chosen images of an index that it has. The index alone does not tell: it may have been copied for
    /// other platforms.
    async fn has_all(&self, destination: &Destination, chosen: Option<&BTreeSet<Digest>>) -> Result<bool, Error> {
        let questions = chosen.into_iter().flatten().cloned().map(|digest| {
            let destination = destination.clone();
            async move { destination.has_manifest(&digest).await }
        });
        Ok(side_by_side(questions, self.limits.blobs_at_once).await?.into_iter().all(|has| has))
    }

    /// Both ends of a copy, each with a session of its own.
    async fn ends(&self, wanted: &Parsed, requests: &Arc<AtomicU64>) -> Result<(Source, Destination), Error> {
        let session =
            |verify: Option<bool>| -> Session { self.client.session(verify.unwrap_or(true), requests.clone()) };
        let source = Source::open(&wanted.source, || session(wanted.options.src_tls_verify)).await?;
        let destination = Destination::open(&wanted.destination, || session(wanted.options.dest_tls_verify)).await?;
        Ok((source, destination))
    }
}
