//! Brings to the destination what refers to an image and is not there yet, by digest. Tags are left for publishing.

use super::compare::{Comparison, Mode};
use super::end::{Named, subject};
use super::list::Told;
use super::publish::Followed;
use super::{Found, Referrer, Wanted, way_out};
use crate::job::{Class, Stage};
use crate::oci::{Content, Manifest};
use crate::replicate::Error;
use crate::replicate::blob::Way;
use crate::replicate::plan::plan;
use crate::replicate::tasks::side_by_side;
use crate::replicate::{resolve, survey, transfer, verify};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most bytes of manifests that are held until their tags are written.
const HELD_BYTES_LIMIT: usize = 32 * 1024 * 1024;

/// What all referrers of one copy have in common. Cheap to clone.
#[derive(Clone)]
pub(in crate::replicate) struct Bringing {
    pub way: Way,
    pub wanted: Wanted,
    pub comparison: Comparison,
    /// Bytes of manifests that are held until their tags are written.
    pub held: Arc<AtomicUsize>,
}

/// A manifest at the destination, with everything below it.
struct Carried {
    manifest: Manifest,
    /// Manifests that were put below it.
    below: u64,
    /// What was missing below it, where that was looked for.
    healed: u64,
}

/// What became of one referrer or tag.
struct Brought {
    /// Manifests that were put.
    manifests: u64,
    healed: u64,
    /// What is still to be written under a tag.
    tag: Option<(String, Manifest)>,
}

impl Bringing {
    /// Brings what of `found` is not at the destination. When this returns, all of it is there by digest.
    ///
    /// # Errors
    /// The first error that trying again did not help.
    pub async fn bring(&self, found: Found) -> Result<Followed, Error> {
        let listed = self.comparison.listed(&found).await.map_err(way_out)?;
        let missing = found.levels.into_iter().flatten().filter_map(|referrer| {
            let is_listed = listed.contains(&referrer.descriptor.digest);
            (self.comparison.mode != Mode::Missing || !is_listed).then_some((referrer, is_listed))
        });
        let referrers = missing.map(|(referrer, is_listed)| {
            let bringing = self.clone();
            async move { bringing.referrer(referrer, is_listed).await }
        });
        let tags = found.tags.into_iter().map(|tag| {
            let bringing = self.clone();
            async move { bringing.tag(tag).await }
        });
        let at_once = self.way.limits.blobs_at_once;
        let mut brought = side_by_side(referrers, at_once).await.map_err(way_out)?;
        brought.extend(side_by_side(tags, at_once).await.map_err(way_out)?);
        if let (true, Some(repository)) = (self.way.destination.unlisted.is_kept(), self.way.destination.repository()) {
            self.comparison.memory.saw_api(repository.host(), true);
        }
        Ok(self.followed(brought.into_iter().flatten()))
    }

    fn followed(&self, brought: impl Iterator<Item = Brought>) -> Followed {
        let mut followed = Followed::new(&self.way, &self.comparison.memory);
        for Brought { manifests, healed, tag } in brought {
            followed.pushed += 1;
            followed.manifests += manifests;
            followed.healed += healed;
            followed.tags.extend(tag);
        }
        // In the same order each time.
        followed.tags.sort_by(|one, other| one.0.cmp(&other.0));
        followed
    }

    /// None: there was nothing to do, or nothing to bring.
    async fn referrer(&self, referrer: Referrer, is_listed: bool) -> Result<Option<Brought>, Error> {
        let Referrer { descriptor, subject: of } = referrer;
        let (source, digest) = (self.way.source.name().clone(), descriptor.digest.clone());
        let manifest = match self.way.source.child(&descriptor, &self.way.limits).await {
            Ok(Some(manifest)) => manifest,
            Err(Error { class: Class::Absent, .. }) | Ok(None) => {
                tracing::warn!(%source, %digest, "a referrer is listed and not there any more, passed over");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if subject(&manifest).is_none_or(|subject| subject.digest != of) {
            tracing::warn!(%source, %digest, subject = %of, "what is listed as a referrer refers to something else, passed over");
            return Ok(None);
        }
        if !self.takes(&manifest, false) {
            return Ok(None);
        }
        let Some(Carried { manifest, below, healed }) = self.carry(manifest, is_listed).await? else { return Ok(None) };
        let destination = &self.way.destination;
        if destination.is_layout() {
            destination.unlisted.note(&manifest)?;
        } else {
            destination.put(&manifest, true, &self.way.temp).await?;
        }
        Ok(Some(Brought { manifests: below + 1, healed, tag: None }))
    }

    /// What a tag of cosign names. None: there is nothing, or the destination has the same.
    async fn tag(&self, tag: String) -> Result<Option<Brought>, Error> {
        let (theirs, ours) = self.comparison.named(&tag).await?;
        let is_same = |digest: &Named| matches!(digest, Named::Digest(_)) && *digest == ours;
        if theirs == Named::Nothing || (is_same(&theirs) && self.comparison.mode == Mode::Missing) {
            return Ok(None);
        }
        let Some(manifest) = self.way.source.tagged(&tag, &self.way.limits).await? else { return Ok(None) };
        if !self.takes(&manifest, true) {
            return Ok(None);
        }
        let is_there = is_same(&Named::Digest(manifest.digest.clone()));
        if is_there && self.comparison.mode == Mode::Missing {
            return Ok(None);
        }
        if self.comparison.no_clobber && !is_there && ours != Named::Nothing {
            let destination = self.way.destination.name();
            let message = format!(
                "the tag {tag} beside {destination} names something else than at the source; --no-clobber forbids to replace it"
            );
            return Err(Error::new(Stage::Survey, Class::Refused, message));
        }
        let Some(Carried { manifest, below, healed }) = self.carry(manifest, is_there).await? else { return Ok(None) };
        let held = self.held.fetch_add(manifest.bytes.len(), Ordering::Relaxed).saturating_add(manifest.bytes.len());
        if held > HELD_BYTES_LIMIT {
            let message =
                format!("what cosign's tags name has more than {HELD_BYTES_LIMIT} bytes of manifests together");
            return Err(Error::new(Stage::Transfer, Class::Refused, message));
        }
        Ok(Some(Brought { manifests: below, healed, tag: Some((tag, manifest)) }))
    }

    /// Cosign says in the layers of what it tags what kind it is.
    fn takes(&self, manifest: &Manifest, by_layers: bool) -> bool {
        let told = Told::by(manifest);
        if self.wanted.takes(told.artifact_type().unwrap_or_default()) {
            return true;
        }
        let Content::Image { blobs, .. } = &manifest.content else { return false };
        by_layers && blobs.iter().any(|blob| self.wanted.takes(&blob.media_type))
    }

    /// Brings everything below `manifest`; in a layout also itself. None: all of it is there, as was looked up.
    async fn carry(&self, manifest: Manifest, is_there: bool) -> Result<Option<Carried>, Error> {
        let way = &self.way;
        let tree = resolve::resolve(&way.source, manifest, None, &way.limits).await?;
        let mut healed = 0;
        let inventory = if is_there && self.comparison.mode == Mode::Verify {
            let gaps = verify::look(&way.destination, &tree, true, &way.limits).await?;
            if gaps.missing == 0 {
                return Ok(None);
            }
            healed = gaps.missing;
            gaps.inventory
        } else {
            survey::survey(&way.destination, &tree, self.comparison.mode == Mode::Force).await?
        };
        let carried = transfer::transfer(way, plan(tree, &inventory), false).await?;
        Ok(Some(Carried { manifest: carried.root, below: carried.manifests_pushed, healed }))
    }
}
