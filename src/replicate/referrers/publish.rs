//! The tags that belong to referrers: lists, where the destination keeps none itself, and those of cosign. Written just before
//! the tag of the image, by whoever has made sure that it may still write.

use super::end::End;
use super::list::{list_tag, merged};
use super::{Memory, way_out};
use crate::job::{Class, Stage};
use crate::layout::{Entry, Layout};
use crate::oci::manifest::OCI_INDEX;
use crate::oci::{Digest, Manifest, Repository, Selector};
use crate::registry::{Session, Versioned};
use crate::replicate::blob::Way;
use crate::replicate::destination::{Destination, misses_content, put_again};
use crate::replicate::{Error, Limits};
use crate::tempfiles::TempFiles;
use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How often a list is read and written again that others write meanwhile.
const TRIES: u32 = 8;
/// The pause before a list is read again; grows with each try.
const PAUSE: Duration = Duration::from_millis(50);

/// What became of the referrers, and which tags are still to be written.
pub(in crate::replicate) struct Followed {
    /// Referrers and tags that were not at the destination.
    pub pushed: u64,
    /// Manifests that were put, without the lists that name them.
    pub manifests: u64,
    /// What was missing below referrers that were there.
    pub healed: u64,
    /// What cosign's tags are to name.
    pub(super) tags: Vec<(String, Manifest)>,
    destination: Destination,
    temp: TempFiles,
    memory: Memory,
    limits: Arc<Limits>,
}

impl Followed {
    /// Nothing was brought yet.
    pub fn new(way: &Way, memory: &Memory) -> Self {
        Self {
            pushed: 0,
            manifests: 0,
            healed: 0,
            tags: Vec::new(),
            destination: way.destination.clone(),
            temp: way.temp.clone(),
            memory: memory.clone(),
            limits: way.limits.clone(),
        }
    }

    /// Whether publishing writes anything.
    pub fn writes(&self) -> bool {
        !self.tags.is_empty() || !self.destination.unlisted.is_empty()
    }

    /// Writes the tags that are due now. The root itself may be a referrer: it is noted when it is published.
    pub async fn publish(&mut self) -> Result<(), Error> {
        let Some(end) = self.destination.end() else { return Ok(()) };
        self.lists(&end).await.map_err(way_out)?;
        for (tag, manifest) in std::mem::take(&mut self.tags) {
            self.tag(&end, &tag, &manifest).await.map_err(way_out)?;
            self.manifests += 1;
        }
        Ok(())
    }

    async fn lists(&self, end: &End) -> Result<(), Error> {
        for (subject, mut entries) in self.destination.unlisted.take() {
            entries.sort_by(|one, other| one["digest"].as_str().cmp(&other["digest"].as_str()));
            let list = list_tag(&subject);
            match end {
                End::Registry { session, repository } => {
                    let _turn = self.memory.turn(format!("{repository}:{list}")).await;
                    self.list_at_registry(session, repository, &list, &entries).await?
                }
                End::Layout(layout) => self.list_in_layout(layout, &list, &entries).await?,
            }
        }
        Ok(())
    }

    async fn tag(&self, end: &End, tag: &str, manifest: &Manifest) -> Result<(), Error> {
        match end {
            End::Registry { session, repository } => self.tag_at_registry(session, repository, tag, manifest).await,
            End::Layout(layout) => {
                let entry = Entry {
                    digest: manifest.digest.clone(),
                    size: u64::try_from(manifest.bytes.len()).unwrap_or(u64::MAX),
                    media_type: manifest.media_type.clone(),
                    name: Some(tag.to_owned()),
                };
                let doing = "writing a signature's name to the index of";
                let published = layout.publish(&entry, &self.temp).await;
                published.map_err(|cause| self.destination.failed(Stage::Publish, doing, &cause))
            }
        }
    }

    async fn tag_at_registry(
        &self,
        session: &Session,
        repository: &Repository,
        tag: &str,
        manifest: &Manifest,
    ) -> Result<(), Error> {
        let tag = tag.parse().map(Selector::Tag);
        let tag = tag.map_err(|cause| self.refused(&cause.to_string()))?;
        let put = || session.put_manifest(repository, &tag, &manifest.media_type, manifest.bytes.clone());
        put_again(manifest, true, put).await.map_err(|cause| self.destination.not_put(Stage::Publish, manifest, &cause))
    }

    /// Reads the list, adds what is missing, and writes it; again when somebody else did meanwhile. Nothing is
    /// written when it says all that already.
    async fn list_at_registry(
        &self,
        session: &Session,
        repository: &Repository,
        list: &str,
        entries: &[Value],
    ) -> Result<(), Error> {
        let failed = |cause| {
            self.destination.failed(Stage::Publish, &format!("writing the list {list} of referrers to"), &cause)
        };
        let tag = list.parse().map(Selector::Tag).map_err(|cause| self.refused(&format!("{cause}")))?;
        let mut gone = BTreeSet::new();
        for tried in 1..=TRIES {
            let before = session.get_versioned(repository, &tag).await.map_err(failed)?;
            let current = before.as_ref().map(|before: &Versioned| before.bytes.as_ref());
            let after = self.after(list, current, entries, &gone).map_err(|why| self.refused(&why))?;
            let Some(after) = after else { return Ok(()) };
            match session.replace_index(repository, &tag, before.as_ref(), after.bytes.clone()).await {
                Ok(true) => return Ok(()),
                Ok(false) => tracing::debug!(%repository, list, "the list of referrers was changed meanwhile"),
                // A list outlives what it names: registries check it only when it is written.
                Err(cause) if misses_content(&cause) && tried < TRIES => {
                    gone.extend(self.gone(&after, entries).await?);
                }
                Err(cause) => return Err(failed(cause)),
            }
            tokio::time::sleep(PAUSE * tried).await;
        }
        let message =
            format!("writing the list {list} of referrers to {}: others changed it each time", self.destination.name());
        Err(Error::new(Stage::Publish, Class::RETRY, message))
    }

    async fn list_in_layout(&self, layout: &Layout, list: &str, entries: &[Value]) -> Result<(), Error> {
        let updated = layout.update(list, self.limits.manifest_bytes, &self.temp, |current| {
            self.after(list, current.as_deref(), entries, &BTreeSet::new())
        });
        let doing = "writing the list of referrers to";
        updated.await.map_err(|cause| self.destination.failed(Stage::Publish, doing, &cause))
    }

    /// The list as it should be; None: it is so.
    fn after(
        &self,
        list: &str,
        current: Option<&[u8]>,
        entries: &[Value],
        gone: &BTreeSet<Digest>,
    ) -> Result<Option<Manifest>, String> {
        let wrong = |why: String| format!("the tag {list} should hold a list of referrers and is left as it is: {why}");
        let Some(after) = merged(current, entries, gone).map_err(wrong)? else { return Ok(None) };
        let (length, limit) = (after.len(), self.limits.manifest_bytes);
        if u64::try_from(length).is_ok_and(|length| length > limit) {
            return Err(format!("the list {list} of referrers would grow over {limit} bytes"));
        }
        let parsed = Manifest::parse(Bytes::from(after), Some(OCI_INDEX), None);
        parsed.map(Some).map_err(|cause| wrong(cause.to_string()))
    }

    /// What the list names, the destination does not have, and was not just brought.
    async fn gone(&self, list: &Manifest, brought: &[Value]) -> Result<Vec<Digest>, Error> {
        let crate::oci::Content::Index { manifests, .. } = &list.content else { return Ok(Vec::new()) };
        let mut gone = Vec::new();
        for listed in manifests {
            let is_new = brought.iter().any(|entry| entry["digest"] == listed.digest.as_str());
            if !is_new && !self.destination.has_manifest(&listed.digest).await? {
                tracing::warn!(digest = %listed.digest, "a list of referrers names what is not there any more, taken out");
                gone.push(listed.digest.clone());
            }
        }
        Ok(gone)
    }

    fn refused(&self, why: &str) -> Error {
        Error::new(Stage::Publish, Class::Refused, format!("{}: {why}", self.destination.name()))
    }
}
