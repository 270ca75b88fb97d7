//! Where an image goes: a registry or a layout directory, behind the same verbs.
//!
//! Everything but [`Destination::publish`] writes content by digest only, which is harmless to repeat. Opening and looking
//! changes nothing: a layout that does not exist is made by [`Destination::prepare`], when the source is known to be there.

use super::Error;
use super::plan::{Blob, Current};
use super::referrers::{End, Unlisted, subject};
use crate::job::{Class, How, Stage, Transfer};
use crate::layout::{Entry, Layout};
use crate::oci::{
    Algorithm, Content, Digest, ImageReference, LayoutReference, Manifest, Reference, Repository, Selector, Verifier,
};
use crate::registry::{self, Session};
use crate::tempfiles::TempFiles;
use std::sync::Arc;
use std::time::Duration;

/// The pauses after which a manifest is put again whose content the registry misses.
const MISSED_PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(500)];

/// The place an image is copied to. Cheap to clone.
#[derive(Clone)]
pub(super) struct Destination {
    name: Arc<str>,
    pub place: Place,
    /// What was put here and refers to something, while nobody has said so yet.
    pub unlisted: Unlisted,
}

#[derive(Clone)]
pub(super) enum Place {
    Registry {
        session: Session,
        reference: Reference,
    },
    Layout {
        reference: LayoutReference,
        /// None: not there yet.
        layout: Option<Arc<Layout>>,
    },
}

impl Destination {
    /// The place that `reference` names. Nothing is asked or changed, but that an existing layout is opened.
    pub async fn open(reference: &ImageReference, session: impl FnOnce() -> Session) -> Result<Self, Error> {
        let name: Arc<str> = reference.to_string().into();
        let place = match reference {
            ImageReference::Registry(reference) => Place::Registry { session: session(), reference: reference.clone() },
            ImageReference::Layout(reference) => {
                let layout = match Layout::open(&reference.dir).await {
                    Ok(layout) => Some(Arc::new(layout)),
                    // An empty directory, or a layout that somebody has not finished making, is refused as a source;
                    // whether it can become a layout is seen when it is prepared.
                    Err(cause) if matches!(cause.class(), Class::Absent | Class::Refused) => None,
                    Err(cause) => {
                        let doing = format_args!("opening the destination {name}");
                        return Err(Error::because(Stage::Survey, doing, &cause));
                    }
                };
                Place::Layout { reference: reference.clone(), layout }
            }
        };
        Ok(Self { name, place, unlisted: Unlisted::default() })
    }

    /// This destination, about to be written to: a registry is asked from the start for what writing needs.
    pub fn for_push(mut self) -> Self {
        if let Place::Registry { session, .. } = &mut self.place {
            *session = session.clone().for_push();
        }
        self
    }

    /// The canonical reference, for messages.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The repository, when it is a registry.
    pub fn repository(&self) -> Option<&Repository> {
        match &self.place {
            Place::Registry { reference, .. } => Some(&reference.repository),
            Place::Layout { .. } => None,
        }
    }

    /// Where its referrers are looked for; None: there is nothing yet.
    pub fn end(&self) -> Option<End> {
        match &self.place {
            Place::Registry { session, reference } => {
                Some(End::Registry { session: session.clone(), repository: reference.repository.clone() })
            }
            Place::Layout { layout, .. } => layout.clone().map(End::Layout),
        }
    }

    /// The digest that the reference demands.
    pub fn demanded(&self) -> Option<&Digest> {
        match &self.place {
            Place::Registry { reference, .. } => reference.digest.as_ref(),
            Place::Layout { reference, .. } => reference.digest.as_ref(),
        }
    }

    /// What the reference names now. One HEAD at a registry; one GET more when it does not tell the digest.
    pub async fn current(&self) -> Result<Current, Error> {
        let failed = |cause: &dyn super::error::Cause| self.failed(Stage::Survey, "looking at the destination", cause);
        match &self.place {
            Place::Registry { session, reference } => {
                let selector = target(reference);
                let head = session.head_manifest(&reference.repository, &selector).await;
                let digests = match head.map_err(|cause| failed(&cause))? {
                    None => return Ok(Current::unknown()),
                    Some(head) => match head.digest {
                        Some(digest) => vec![digest],
                        None => vec![self.rehashed(Algorithm::Sha256).await?],
                    },
                };
                Ok(Current { digests, named: true })
            }
            Place::Layout { layout: None, .. } => Ok(Current::unknown()),
            Place::Layout { reference, layout: Some(layout) } => {
                let entries = layout.entries_of(reference.name.as_deref()).await.map_err(|cause| failed(&cause))?;
                // Without a name there is nothing to overwrite: each image is an entry of its own.
                let named = reference.name.is_some();
                Ok(Current { digests: entries.into_iter().map(|entry| entry.digest).collect(), named })
            }
        }
    }

    /// The same content named by another algorithm, so that it can be compared: one GET. Layouts keep what they are given,
    /// nothing to translate there.
    pub async fn current_as(&self, current: Current, algorithm: Algorithm) -> Result<Current, Error> {
        match (&self.place, current.digests.as_slice()) {
            (Place::Registry { .. }, [digest]) if digest.algorithm() != algorithm => {
                Ok(Current { digests: vec![self.rehashed(algorithm).await?], ..current })
            }
            _ => Ok(current),
        }
    }

    async fn rehashed(&self, algorithm: Algorithm) -> Result<Digest, Error> {
        let Place::Registry { session, reference } = &self.place else {
            return Err(Error::new(Stage::Survey, Class::Refused, format!("{} is no registry", self.name)));
        };
        let fetched = session.get_manifest(&reference.repository, &target(reference)).await;
        let fetched = fetched.map_err(|cause| self.failed(Stage::Survey, "looking at the destination", &cause))?;
        Ok(Digest::of(algorithm, &fetched.bytes))
    }

    /// Makes a layout that is not there yet. A registry needs nothing.
    pub async fn prepare(&mut self) -> Result<(), Error> {
        if let Place::Layout { reference, layout: layout @ None } = &mut self.place {
            let made = Layout::open_or_create(&reference.dir).await;
            let doing = format_args!("opening the destination {}", self.name);
            *layout = Some(Arc::new(made.map_err(|cause| Error::because(Stage::Transfer, doing, &cause))?));
        }
        Ok(())
    }

    /// The blob is there, with this size as far as that is told. One HEAD at a registry.
    pub async fn has_blob(&self, blob: &Blob) -> Result<bool, Error> {
        let doing = "looking for blobs at";
        match &self.place {
            Place::Registry { session, reference } => {
                let size = session.head_blob(&reference.repository, &blob.digest).await;
                let size = size.map_err(|cause| self.failed(Stage::Survey, doing, &cause))?;
                Ok(size.is_some_and(|size| size.is_none_or(|size| size == blob.size)))
            }
            Place::Layout { layout: None, .. } => Ok(false),
            Place::Layout { layout: Some(layout), .. } => {
                let size = layout.has_blob(&blob.digest).await;
                let size = size.map_err(|cause| self.failed(Stage::Survey, doing, &cause))?;
                Ok(size == Some(blob.size))
            }
        }
    }

    /// The manifest is there under its digest. One HEAD at a registry.
    pub async fn has_manifest(&self, digest: &Digest) -> Result<bool, Error> {
        let failed = |cause: &dyn super::error::Cause| self.failed(Stage::Survey, "looking for manifests at", cause);
        match &self.place {
            Place::Registry { session, reference } => {
                let selector = Selector::Digest(digest.clone());
                let head = session.head_manifest(&reference.repository, &selector).await;
                Ok(head.map_err(|cause| failed(&cause))?.is_some())
            }
            Place::Layout { layout: None, .. } => Ok(false),
            Place::Layout { layout: Some(layout), .. } => {
                Ok(layout.has_blob(digest).await.map_err(|cause| failed(&cause))?.is_some())
            }
        }
    }

    /// The manifest is there under its digest; in a layout, with the right content.
    pub async fn holds(&self, manifest: &Manifest) -> Result<bool, Error> {
        let Place::Layout { layout: Some(layout), .. } = &self.place else {
            return self.has_manifest(&manifest.digest).await;
        };
        let failed = |cause| self.failed(Stage::Survey, "checking the manifests of", &cause);
        let size = u64::try_from(manifest.bytes.len()).unwrap_or(u64::MAX);
        // A file of that name and size may still hold something else, which nobody could pull.
        Ok(layout.has_blob(&manifest.digest).await.map_err(failed)? == Some(size)
            && layout.manifest(&manifest.digest, size).await.map_err(failed)? == manifest.bytes)
    }

    /// Whether it is a directory.
    pub fn is_layout(&self) -> bool {
        matches!(self.place, Place::Layout { .. })
    }

    /// The blob of a layout has the content that it should have, by reading all of it. Only for one that is there; a
    /// registry is believed.
    pub async fn is_intact(&self, blob: &Blob) -> Result<bool, Error> {
        let Place::Layout { layout: Some(layout), .. } = &self.place else { return Ok(true) };
        let failed = |cause| self.failed(Stage::Survey, "checking the blobs of", &cause);
        let mut file = layout.blob(&blob.digest).await.map_err(failed)?;
        let mut verifier = Verifier::new(blob.digest.clone(), Some(blob.size));
        while let Some(piece) = file.chunk().await.map_err(failed)? {
            if verifier.update(&piece).is_err() {
                return Ok(false);
            }
        }
        Ok(verifier.finish().is_ok())
    }

    /// Writes a manifest under its digest. At a registry everything it names must be there already.
    /// `patient`: what it names was brought just now, so that a registry which misses some of it is given a moment.
    pub async fn put(&self, manifest: &Manifest, patient: bool, temp: &TempFiles) -> Result<(), Error> {
        match &self.place {
            Place::Registry { session, reference } => {
                let selector = Selector::Digest(manifest.digest.clone());
                let put = put_again(manifest, patient, || put_at(session, reference, &selector, manifest)).await;
                self.note(manifest, put.map_err(|cause| self.not_put(Stage::Transfer, manifest, &cause))?)
            }
            Place::Layout { layout, .. } => {
                let doing = "writing a manifest to";
                let layout = self.opened(layout.as_ref())?;
                let failed = |cause| self.failed(Stage::Transfer, doing, &cause);
                if self.holds(manifest).await? {
                    return Ok(());
                }
                let mut writer = layout.write_blob(&manifest.digest, temp).await.map_err(failed)?;
                writer.write(manifest.bytes.clone()).await.map_err(failed)?;
                writer.commit().await.map_err(failed)
            }
        }
    }

    /// Writes the root where that does not publish it: in a layout it is a file like any other until an entry names it. A
    /// registry gets it once, when it is published.
    pub async fn hold_root(&self, root: &Manifest, temp: &TempFiles) -> Result<(), Error> {
        match self.place {
            Place::Registry { .. } => Ok(()),
            Place::Layout { .. } => self.put(root, true, temp).await,
        }
    }

    /// Makes the image known under the reference: one PUT of the root manifest, or the entry in the layout's index, whose
    /// manifest must be there already. A sparse root names images that are not there.
    /// `patient`: as for [`put`](Self::put).
    pub async fn publish(&self, root: &Manifest, sparse: bool, patient: bool, temp: &TempFiles) -> Result<(), Error> {
        match &self.place {
            Place::Registry { session, reference } => {
                let selector = target(reference);
                let put = put_again(root, patient, || put_at(session, reference, &selector, root)).await;
                match put {
                    Ok(is_listed) => self.note(root, is_listed),
                    Err(cause) if cause.is_about_immutable() => self.immutable(root, &cause).await,
                    Err(cause) => {
                        let error = self.not_put(Stage::Publish, root, &cause);
                        let is_sparse = sparse && (misses_content(&cause) || error.class == Class::Refused);
                        Err(if is_sparse { not_sparse(error) } else { error })
                    }
                }
            }
            Place::Layout { reference, layout } => {
                let entry = Entry {
                    digest: root.digest.clone(),
                    size: u64::try_from(root.bytes.len()).unwrap_or(u64::MAX),
                    media_type: root.media_type.clone(),
                    name: reference.name.clone(),
                };
                let published = self.opened(layout.as_ref())?.publish(&entry, temp).await;
                published.map_err(|cause| self.failed(Stage::Publish, "writing the index of", &cause))
            }
        }
    }

    /// The registry does not let what the reference names be replaced: that is fine where it names the root already, which
    /// `--force` puts again, or another process has put meanwhile.
    async fn immutable(&self, root: &Manifest, cause: &registry::Error) -> Result<(), Error> {
        let current = self.current_as(self.current().await?, root.digest.algorithm()).await?;
        let Some(named) = current.digests.first() else { return Err(self.not_put(Stage::Publish, root, cause)) };
        if *named == root.digest {
            return Ok(());
        }
        let message = format!(
            "{} names {named}, and the registry does not let it be replaced by {}: {cause}; copy to another tag, or delete that one there",
            self.name, root.digest
        );
        Err(Error::new(Stage::Publish, Class::Refused, message))
    }

    /// A manifest was put; whether the destination lists it, if it has to be listed.
    fn note(&self, manifest: &Manifest, is_listed: Option<bool>) -> Result<(), Error> {
        match is_listed {
            Some(true) => self.unlisted.saw_kept(),
            Some(false) => self.unlisted.note(manifest)?,
            None => {}
        }
        Ok(())
    }

    pub(super) fn not_put(&self, stage: Stage, manifest: &Manifest, cause: &registry::Error) -> Error {
        let mut error = self.failed(stage, "writing a manifest to", cause);
        // Distribution answers what it will never take with a 500 that says nothing else.
        let unexplained = cause.status() == Some(500) && cause.code() == Some("UNKNOWN");
        if matches!(&manifest.content, Content::Image { blobs, .. } if blobs.iter().any(|blob| !blob.urls.is_empty())) {
            error.message.push_str("; it has foreign layers: the registry must be set to allow their URLs");
            if unexplained {
                error.class = Class::Refused;
            }
        }
        if unexplained && !has_common_version(manifest) {
            error.message.push_str("; it is not of the schema version 2, which registries expect");
            error.class = Class::Refused;
        }
        if !misses_content(cause) {
            if error.class == Class::Refused && !names_its_media_type(manifest) {
                error
                    .message
                    .push_str("; it does not say its media type, which some registries want: a copy keeps every byte");
            }
            return error;
        }
        // It may have been cleaned up meanwhile: the next attempt brings it again.
        let missing = cause.missing().iter().filter(|digest| manifest.content.names(digest)).cloned().collect();
        Error { class: Class::RETRY, misses: true, missing, ..error }
    }

    /// The opened layout.
    pub fn opened<'a>(&self, layout: Option<&'a Arc<Layout>>) -> Result<&'a Arc<Layout>, Error> {
        layout.ok_or_else(|| {
            let message = format!("the destination {} was not opened", self.name);
            Error::new(Stage::Transfer, Class::RETRY, message)
        })
    }

    /// The record of a blob that is here now.
    pub fn record(&self, blob: &Blob, how: How) -> Transfer {
        let (registry, repository) = match &self.place {
            Place::Registry { reference, .. } => {
                (reference.repository.host().to_owned(), reference.repository.name().to_owned())
            }
            Place::Layout { reference, .. } => ("oci".to_owned(), reference.dir.display().to_string()),
        };
        Transfer { registry, repository, digest: blob.digest.to_string(), bytes: blob.size, resumed: 0, how }
    }

    pub(super) fn failed(&self, stage: Stage, doing: &str, cause: &dyn super::error::Cause) -> Error {
        Error::new(stage, cause.class(), format!("{doing} {}: {cause}", self.name))
    }
}

/// What to do where an index must not name what is not there.
fn not_sparse(error: Error) -> Error {
    let message = format!(
        "{}; the index names images for platforms that were not asked for and are not there, which not every registry takes: \
         use --platform-mode rewrite to make a smaller index, or copy all platforms",
        error.message
    );
    Error { class: Class::Refused, message, ..error }
}

/// The registry says that it does not have what the manifest names, or that the manifest is not what its digest says. It had
/// all of it a moment ago, and the digest was computed here: another upload to the same repository may be in the middle of
/// writing what this one reads.
pub(super) fn misses_content(cause: &registry::Error) -> bool {
    matches!(cause.code(), Some("MANIFEST_BLOB_UNKNOWN" | "BLOB_UNKNOWN" | "DIGEST_INVALID"))
}

/// Puts the manifest by `put`, and once more after a moment each when the registry misses what it has.
pub(super) async fn put_again<T, P>(
    manifest: &Manifest,
    patient: bool,
    put: impl Fn() -> P,
) -> Result<T, registry::Error>
where
    P: Future<Output = Result<T, registry::Error>>,
{
    let mut pauses = MISSED_PAUSES.iter();
    loop {
        match (put().await, pauses.next()) {
            (Err(cause), Some(pause)) if patient && misses_content(&cause) => {
                tracing::debug!(digest = %manifest.digest, error = %cause, "putting the manifest again");
                tokio::time::sleep(*pause).await;
            }
            (put, _) => return put,
        }
    }
}

/// Puts a manifest. For one that refers to another: whether the registry keeps a list of that.
async fn put_at(
    session: &Session,
    reference: &Reference,
    selector: &Selector,
    manifest: &Manifest,
) -> Result<Option<bool>, registry::Error> {
    let repository = &reference.repository;
    if subject(manifest).is_some() {
        return session.put_referrer(repository, selector, manifest).await.map(Some);
    }
    session.put_manifest(repository, selector, &manifest.media_type, manifest.bytes.clone()).await.map(|()| None)
}

/// Every manifest that registries take today says `"schemaVersion": 2`.
fn has_common_version(manifest: &Manifest) -> bool {
    said(manifest, "schemaVersion").is_some_and(|version| version.as_u64() == Some(2))
}

fn names_its_media_type(manifest: &Manifest) -> bool {
    said(manifest, "mediaType").is_some_and(|media_type| media_type.is_string())
}

/// What a manifest says of itself.
fn said(manifest: &Manifest, field: &str) -> Option<serde_json::Value> {
    serde_json::from_slice::<serde_json::Value>(&manifest.bytes).ok()?.get_mut(field).map(serde_json::Value::take)
}

/// What is written last: the tag, or the digest when the reference has no tag.
fn target(reference: &Reference) -> Selector {
    reference.tag.clone().map_or_else(|| reference.selector(), Selector::Tag)
}

/// The registry says that an upload is gone, or that what arrived is not what was sent: a new upload may do.
pub(super) fn upload_was_lost(cause: &registry::Error) -> bool {
    matches!(cause.code(), Some("BLOB_UPLOAD_UNKNOWN" | "BLOB_UPLOAD_INVALID" | "DIGEST_INVALID" | "SIZE_INVALID"))
}
