//! What refers to a manifest, asked at one end of a copy.
//!
//! A registry is asked by its API, and by the tag of the list where it has none. A layout has that list too; other tools write
//! referrers into it as entries like any other, so its entries are looked through as well.

use super::list::list_tag;
use super::memory::{Memory, Tags};
use crate::job::{Class, Stage};
use crate::layout::{Entry, Layout};
use crate::oci::{Content, Descriptor, Digest, Manifest, Repository, Selector};
use crate::registry::{Listed, Session};
use crate::replicate::error::Cause;
use crate::replicate::{Error, Limits};
use bytes::Bytes;
use std::sync::Arc;

/// Where referrers are looked for. Cheap to clone.
#[derive(Clone)]
pub(in crate::replicate) enum End {
    /// A repository of a registry.
    Registry { session: Session, repository: Repository },
    /// A directory.
    Layout(Arc<Layout>),
}

/// What a tag names, as far as can be told without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Named {
    Nothing,
    /// It is there, and the registry does not tell its digest.
    Something,
    Digest(Digest),
}

impl End {
    /// What the tag names here. One HEAD at a registry.
    pub(super) async fn named(&self, tag: &str) -> Result<Named, Box<dyn Cause + Send>> {
        match self {
            Self::Registry { session, repository } => {
                let Ok(selector) = tag.parse().map(Selector::Tag) else { return Ok(Named::Nothing) };
                let head = session.head_manifest(repository, &selector).await;
                Ok(match head.map_err(|cause| Box::new(cause) as Box<_>)? {
                    None => Named::Nothing,
                    Some(head) => head.digest.map_or(Named::Something, Named::Digest),
                })
            }
            Self::Layout(layout) => {
                let entries = layout.entries_of(Some(tag)).await.map_err(|cause| Box::new(cause) as Box<_>)?;
                Ok(entries.into_iter().next().map_or(Named::Nothing, |entry| Named::Digest(entry.digest)))
            }
        }
    }
}

/// How an end is asked.
#[derive(Clone)]
pub(super) struct Question {
    pub end: End,
    /// For errors.
    pub stage: Stage,
    /// The one artifact type that is wanted, when it is one.
    pub only: Option<String>,
    /// It is the source: its repository is there, and its tags are listed anyway, which tells whether there is a list of
    /// referrers among them.
    pub is_source: bool,
    pub memory: Memory,
    pub limits: Arc<Limits>,
}

impl Question {
    /// What refers to `subject` here, each digest as often as it is listed. What is listed was not read yet: it may refer to
    /// something else, or not be there any more.
    ///
    /// # Errors
    /// Refused: the list is broken, or too long; or it could not be read.
    pub async fn referrers_of(&self, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        match &self.end {
            End::Registry { session, repository } => self.at_registry(session, repository, subject).await,
            End::Layout(layout) => self.in_layout(layout, subject).await,
        }
    }

    async fn at_registry(
        &self,
        session: &Session,
        repository: &Repository,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>, Error> {
        let host = repository.host();
        let told = session.profile(repository).referrers_api;
        let known = told.or_else(|| self.memory.has_api(host));
        if known != Some(false) {
            let limit = self.limits.manifests;
            let listed = session.list_referrers(repository, subject, self.only.as_deref(), limit).await;
            match listed.map_err(|cause| self.failed(subject, &cause))? {
                Listed::Referrers(listed) => {
                    self.memory.saw_api(host, true);
                    return Ok(listed);
                }
                // The registry has the API, and nothing to say. A source may still have a list from before it had the API,
                // which is seen among its tags at no cost.
                _ if told == Some(true) && !self.is_source => return Ok(Vec::new()),
                // What is about to be made.
                Listed::NoRepository if !self.is_source => {}
                Listed::NoImage => {}
                // One answer does not tell against many: a registry may keep some repositories elsewhere.
                Listed::NoApi | Listed::NoRepository if known.is_none() => self.memory.saw_api(host, false),
                Listed::NoApi | Listed::NoRepository => {}
            }
        }
        let tag = list_tag(subject);
        if self.is_source
            && let Tags::Listed(tags) = self.memory.tags(session, repository).await
            && !tags.contains(&tag)
        {
            return Ok(Vec::new());
        }
        let Ok(selector) = tag.parse().map(Selector::Tag) else { return Ok(Vec::new()) };
        let found = session.get_versioned(repository, &selector).await.map_err(|cause| self.failed(subject, &cause))?;
        found.map_or_else(
            || Ok(Vec::new()),
            |found| self.entries_of(subject, found.bytes, found.content_type.as_deref(), None),
        )
    }

    async fn in_layout(&self, layout: &Layout, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        let failed = |cause: crate::layout::Error| self.failed(subject, &cause);
        let tag = list_tag(subject);
        let mut found = Vec::new();
        for entry in layout.entries_of(None).await.map_err(failed)? {
            if entry.name.as_deref() == Some(tag.as_str()) {
                let bytes = layout.manifest(&entry.digest, self.limits.manifest_bytes).await.map_err(failed)?;
                found.extend(self.entries_of(subject, bytes, Some(&entry.media_type), Some(&entry.digest))?);
            } else if self.subject_of(layout, &entry).await.as_ref() == Some(subject) {
                found.push(descriptor(entry.media_type, entry.digest, entry.size));
            }
        }
        Ok(found)
    }

    /// The subject of an entry of a layout. One that cannot be read concerns nobody here.
    async fn subject_of(&self, layout: &Layout, entry: &Entry) -> Option<Digest> {
        if let Some(known) = self.memory.subject(&entry.digest) {
            return known;
        }
        let bytes = layout.manifest(&entry.digest, self.limits.manifest_bytes).await.ok()?;
        let manifest = Manifest::parse(bytes, Some(&entry.media_type), Some(&entry.digest)).ok()?;
        let subject = subject(&manifest).map(|subject| subject.digest.clone());
        self.memory.saw_subject(&entry.digest, subject.clone());
        subject
    }

    /// What a list under a tag says. A referrer itself may stand there instead: some tools push it so.
    fn entries_of(
        &self,
        of: &Digest,
        bytes: Bytes,
        media_type: Option<&str>,
        expected: Option<&Digest>,
    ) -> Result<Vec<Descriptor>, Error> {
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        match Manifest::parse(bytes, media_type, expected) {
            Ok(itself) if subject(&itself).is_some_and(|subject| subject.digest == *of) => {
                Ok(vec![descriptor(itself.media_type, itself.digest, size)])
            }
            Ok(Manifest { content: Content::Index { manifests, .. }, .. })
                if manifests.len() <= self.limits.manifests =>
            {
                Ok(manifests)
            }
            Ok(Manifest { content: Content::Index { .. }, .. }) => {
                Err(self.refused(of, &format!("there are more than {}", self.limits.manifests)))
            }
            Ok(_) => {
                tracing::warn!(tag = %list_tag(of), "the tag of a list of referrers names an image, which is left alone");
                Ok(Vec::new())
            }
            Err(cause) => Err(self.refused(of, &cause.to_string())),
        }
    }

    fn refused(&self, subject: &Digest, why: &str) -> Error {
        let message = format!("reading what refers to {subject}: the list {}: {why}", list_tag(subject));
        Error::new(self.stage, Class::Refused, message)
    }

    fn failed(&self, subject: &Digest, cause: &impl Cause) -> Error {
        Error::because(self.stage, format_args!("reading what refers to {subject}"), cause)
    }
}

/// The manifest that this one refers to.
pub(in crate::replicate) fn subject(manifest: &Manifest) -> Option<&Descriptor> {
    match &manifest.content {
        Content::Image { subject, .. } | Content::Index { subject, .. } => subject.as_ref(),
    }
}

fn descriptor(media_type: String, digest: Digest, size: u64) -> Descriptor {
    Descriptor { media_type, digest, size, urls: Vec::new(), platform: None, artifact_type: None }
}
