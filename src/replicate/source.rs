//! Where an image comes from: a registry or a layout directory, behind the same verbs.
//!
//! An enum rather than a trait, because the set is closed and the two differ in what they can be asked. Whatever is read
//! here is checked against the digest and size it was asked for, and read once more when it does not match: a broken
//! cache on the way is seen more often than a broken registry. Nothing here writes.

use super::content::{Broken, Checked};
use super::download::{BlobContent, Body, More};
use super::referrers::End;
use super::{Error, Limits};
use crate::job::{Class, Stage};
use crate::layout::{Entry, Layout};
use crate::oci::manifest::ManifestError;
use crate::oci::manifest::{DOCKER_LIST, DOCKER_MANIFEST, OCI_ARTIFACT, OCI_INDEX, OCI_MANIFEST};
use crate::oci::{Content, Descriptor, Digest, ImageReference, Manifest, Reference, Repository, Selector};
use crate::registry::{FetchedManifest, Session};
use bytes::Bytes;
use std::sync::Arc;

/// An image at its source. Cheap to clone.
#[derive(Clone)]
pub(super) struct Source {
    name: Arc<str>,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Registry { session: Session, reference: Reference },
    Layout { layout: Arc<Layout>, entry: Entry },
}

/// What a manifest must match beside its digest.
#[derive(Clone, Copy, Default)]
struct Said<'a> {
    media_type: Option<&'a str>,
    size: Option<u64>,
}

/// Why bytes are not the manifest that was asked for.
enum Wrong {
    /// Other bytes than they should be: worth a second reading.
    Bytes(String),
    /// The right bytes, but nothing that can be copied.
    Document(Bytes, ManifestError),
}

impl Source {
    /// The image that `reference` names; a layout is opened and its entry found, a registry is not asked yet.
    pub async fn open(reference: &ImageReference, session: impl FnOnce() -> Session) -> Result<Self, Error> {
        let name: Arc<str> = reference.to_string().into();
        let place = match reference {
            ImageReference::Registry(reference) => Place::Registry { session: session(), reference: reference.clone() },
            ImageReference::Layout(reference) => {
                let failed = |cause| Error::because(Stage::Resolve, format_args!("opening the source {name}"), &cause);
                let layout = Layout::open(&reference.dir).await.map_err(failed)?;
                let entry = layout.resolve(reference).await.map_err(failed)?.ok_or_else(|| absent(&name))?;
                Place::Layout { layout: Arc::new(layout), entry }
            }
        };
        Ok(Self { name, place })
    }

    /// The canonical reference, for messages.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The repository, when the source is a registry.
    pub fn repository(&self) -> Option<&Repository> {
        match &self.place {
            Place::Registry { reference, .. } => Some(&reference.repository),
            Place::Layout { .. } => None,
        }
    }

    /// Where its referrers are looked for.
    pub fn end(&self) -> End {
        match &self.place {
            Place::Registry { session, reference } => {
                End::Registry { session: session.clone(), repository: reference.repository.clone() }
            }
            Place::Layout { layout, .. } => End::Layout(layout.clone()),
        }
    }

    /// The manifest that another tag names beside the image; None: there is no such tag.
    ///
    /// # Errors
    /// As [`root`](Self::root).
    pub async fn tagged(&self, tag: &str, limits: &Limits) -> Result<Option<Manifest>, Error> {
        let entry;
        let (selector, said) = match &self.place {
            Place::Registry { .. } => match tag.parse() {
                Ok(tag) => (Selector::Tag(tag), Said::default()),
                Err(_) => return Ok(None),
            },
            Place::Layout { layout, .. } => {
                let entries = layout.entries_of(Some(tag)).await.map_err(|cause| unreadable(&cause))?;
                let Some(first) = entries.into_iter().next() else { return Ok(None) };
                entry = first;
                let said = Said { media_type: Some(&entry.media_type), size: Some(entry.size) };
                (Selector::Digest(entry.digest.clone()), said)
            }
        };
        match self.read(&selector, said, limits).await {
            Ok(read) => {
                read.map(Some).map_err(|(_, wrong)| self.not_copied(&format!("{tag} beside {}", self.name), &wrong))
            }
            Err(error) if error.class == Class::Absent => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The digest of the image: without a request when the reference or the layout says it, else by one HEAD. None when
    /// the registry does not tell it, or not by HEAD: some answer GET alone, and what GET says decides.
    ///
    /// # Errors
    /// What may pass.
    pub async fn digest(&self) -> Result<Option<Digest>, Error> {
        match &self.place {
            Place::Registry { reference: Reference { digest: Some(digest), .. }, .. } => Ok(Some(digest.clone())),
            Place::Registry { session, reference } => {
                match session.head_manifest(&reference.repository, &reference.selector()).await {
                    Ok(head) => Ok(head.and_then(|head| head.digest)),
                    Err(cause) if matches!(cause.class(), Class::Retry { .. }) => Err(unreadable(&cause)),
                    Err(cause) => {
                        tracing::debug!(source = %self.name, %cause, "HEAD was refused, trying GET");
                        Ok(None)
                    }
                }
            }
            Place::Layout { entry, .. } => Ok(Some(entry.digest.clone())),
        }
    }

    /// The manifest that the reference names.
    ///
    /// # Errors
    /// Absent, Corrupt when its bytes twice were not those of its digest, Refused when it cannot be copied.
    pub async fn root(&self, limits: &Limits) -> Result<Manifest, Error> {
        let (selector, said) = match &self.place {
            Place::Registry { reference, .. } => (reference.selector(), Said::default()),
            Place::Layout { entry, .. } => (
                Selector::Digest(entry.digest.clone()),
                Said { media_type: Some(&entry.media_type), size: Some(entry.size) },
            ),
        };
        let read = self.read(&selector, said, limits).await?;
        read.map_err(|(_, wrong)| self.not_copied(&self.name, &wrong))
    }

    /// The manifest that an entry of an index names. An entry of an unknown media type is a manifest when the source has it
    /// as one; None: it is to be copied as a blob.
    ///
    /// # Errors
    /// As [`root`](Self::root).
    pub async fn child(&self, descriptor: &Descriptor, limits: &Limits) -> Result<Option<Manifest>, Error> {
        let known = descriptor.is_manifest();
        let digest = &descriptor.digest;
        if descriptor.size > limits.manifest_bytes {
            if !known {
                return Ok(None);
            }
            let (size, limit) = (descriptor.size, limits.manifest_bytes);
            let message =
                format!("{}: its manifest {digest} has {size} bytes, more than the limit of {limit}", self.name);
            return Err(Error::new(Stage::Resolve, Class::Refused, message));
        }
        let said = Said { media_type: Some(&descriptor.media_type), size: Some(descriptor.size) };
        match self.read(&Selector::Digest(digest.clone()), said, limits).await {
            Ok(Ok(manifest)) => Ok(Some(manifest)),
            Ok(Err((bytes, ManifestError::Malformed(_)))) if !known => Ok(self.not_understood(descriptor, bytes)),
            Ok(Err((_, wrong))) => Err(self.not_copied(&format!("manifest {digest} of {}", self.name), &wrong)),
            Err(error) if !known => match error.class {
                Class::Absent | Class::Refused => Ok(None),
                // Distribution stumbles over content that is no manifest, with a 500.
                Class::Retry { .. } if self.has_blob(descriptor).await => Ok(None),
                _ => Err(error),
            },
            Err(error) if error.class == Class::Absent => {
                let message = format!("the index lists {digest}, but the source does not have it: {}", error.message);
                Err(Error { message, ..error })
            }
            Err(error) => Err(error),
        }
    }

    async fn has_blob(&self, descriptor: &Descriptor) -> bool {
        match &self.place {
            Place::Registry { session, reference } => {
                let size = session.head_blob(&reference.repository, &descriptor.digest).await;
                size.is_ok_and(|size| size.is_some())
            }
            Place::Layout { layout, .. } => layout.has_blob(&descriptor.digest).await.is_ok_and(|size| size.is_some()),
        }
    }

    /// A registry that gives content as a manifest wants it as one, understood or not; a layout does not tell.
    fn not_understood(&self, descriptor: &Descriptor, bytes: Bytes) -> Option<Manifest> {
        match &self.place {
            Place::Registry { .. } => Some(Manifest {
                bytes,
                digest: descriptor.digest.clone(),
                media_type: descriptor.media_type.clone(),
                content: Content::Image { blobs: Vec::new(), config: None, subject: None },
            }),
            Place::Layout { .. } => None,
        }
    }

    /// The whole of a config, checked. Only what is as small as a manifest is read into memory.
    ///
    /// # Errors
    /// What may pass; Refused beyond the limit; Corrupt: other bytes than its digest names.
    pub async fn config(&self, config: &Descriptor, limits: &Limits) -> Result<Vec<u8>, Error> {
        let (digest, size, limit) = (&config.digest, config.size, limits.manifest_bytes);
        if size > limit {
            let message =
                format!("{}: its config {digest} has {size} bytes, more than the limit of {limit}", self.name);
            return Err(Error::new(Stage::Resolve, Class::Refused, message));
        }
        let content = self.blob(digest, size).await.map_err(|(error, _)| Error { stage: Stage::Resolve, ..error })?;
        let (mut content, mut bytes) = (Checked::new(content, digest, size), Vec::new());
        loop {
            match content.piece().await {
                Ok(Some(piece)) => bytes.extend_from_slice(&piece),
                Ok(None) => return Ok(bytes),
                Err(Broken::Source(error)) => return Err(Error { stage: Stage::Resolve, ..error }),
                Err(Broken::Content(wrong)) => {
                    let message = format!("reading the config {digest} of {}: {wrong}", self.name);
                    return Err(Error::new(Stage::Resolve, Class::Corrupt, message));
                }
            }
        }
    }

    /// Starts to read a blob. The error comes with whether it was tried often enough already.
    pub async fn blob(&self, digest: &Digest, size: u64) -> Result<BlobContent, (Error, bool)> {
        let what = format!("reading a blob of {}", self.name);
        match &self.place {
            Place::Registry { session, reference } => match session.get_blob(&reference.repository, digest).await {
                Ok(body) => {
                    let (repository, digest) = (reference.repository.clone(), digest.clone());
                    let more = More { session: session.clone(), repository, digest, size };
                    Ok(BlobContent::new(what, Body::Registry(body), Some(more)))
                }
                Err(cause) => Err((Error::because(Stage::Transfer, &what, &cause), cause.is_exhausted())),
            },
            Place::Layout { layout, .. } => match layout.blob(digest).await {
                Ok(file) => Ok(BlobContent::new(what, Body::Layout(file), None)),
                Err(cause) => Err((Error::because(Stage::Transfer, &what, &cause), false)),
            },
        }
    }

    /// The same from byte `offset` on. None when the source gives no part of a blob, or cannot be asked for one.
    pub async fn blob_from(
        &self,
        digest: &Digest,
        size: u64,
        offset: u64,
    ) -> Result<Option<BlobContent>, (Error, bool)> {
        let Place::Registry { session, reference } = &self.place else { return Ok(None) };
        let what = format!("reading a blob of {}", self.name);
        match session.get_blob_from(&reference.repository, digest, offset, size).await {
            Ok(body) => Ok(body.map(|body| {
                let (repository, digest) = (reference.repository.clone(), digest.clone());
                let more = More { session: session.clone(), repository, digest, size };
                BlobContent::going_on(what, Body::Registry(body), more, offset)
            })),
            Err(cause) => Err((Error::because(Stage::Transfer, &what, &cause), cause.is_exhausted())),
        }
    }

    /// Reads a manifest, once more when the bytes are wrong. The inner error: right bytes that are no manifest.
    async fn read(
        &self,
        selector: &Selector,
        said: Said<'_>,
        limits: &Limits,
    ) -> Result<Result<Manifest, (Bytes, ManifestError)>, Error> {
        let mut again = true;
        loop {
            let fetched = self.fetch(selector, limits).await?;
            match check(fetched, selector, said) {
                Ok(manifest) => return Ok(Ok(manifest)),
                Err(Wrong::Document(bytes, wrong)) => return Ok(Err((bytes, wrong))),
                Err(Wrong::Bytes(why)) if again => {
                    again = false;
                    tracing::debug!(source = %self.name, %selector, why, "wrong manifest, reading it again");
                }
                Err(Wrong::Bytes(why)) => {
                    let message = format!("reading the manifest {selector} of {}: {why} (read twice)", self.name);
                    return Err(Error::new(Stage::Resolve, Class::Corrupt, message));
                }
            }
        }
    }

    async fn fetch(&self, selector: &Selector, limits: &Limits) -> Result<FetchedManifest, Error> {
        let fetched = match (&self.place, selector) {
            (Place::Registry { session, reference }, selector) => {
                session.get_manifest(&reference.repository, selector).await.map_err(|cause| unreadable(&cause))?
            }
            (Place::Layout { layout, entry }, selector) => {
                let digest = if let Selector::Digest(digest) = selector { digest } else { &entry.digest };
                let bytes = layout.manifest(digest, limits.manifest_bytes).await;
                let bytes = bytes.map_err(|cause| unreadable(&cause))?;
                FetchedManifest { bytes, content_type: None, digest: None }
            }
        };
        let length = fetched.bytes.len();
        if u64::try_from(length).is_ok_and(|length| length <= limits.manifest_bytes) {
            return Ok(fetched);
        }
        let limit = limits.manifest_bytes;
        let message =
            format!("{}: its manifest {selector} has {length} bytes, more than the limit of {limit}", self.name);
        Err(Error::new(Stage::Resolve, Class::Refused, message))
    }

    fn not_copied(&self, what: &str, wrong: &ManifestError) -> Error {
        Error::new(Stage::Resolve, Class::Refused, format!("{what} cannot be copied: {wrong}"))
    }
}

/// The door's message says which manifest it was.
fn unreadable(cause: &impl super::error::Cause) -> Error {
    Error::because(Stage::Resolve, "reading the source", cause)
}

fn absent(name: &str) -> Error {
    let message = format!(
        "the source {name} does not exist, or is hidden: check the name and, if it needs a login, the credentials"
    );
    Error::new(Stage::Resolve, Class::Absent, message)
}

/// The manifest in `fetched`, if it is the one that `selector` names and has the size it is said to have.
fn check(fetched: FetchedManifest, selector: &Selector, said: Said<'_>) -> Result<Manifest, Wrong> {
    let length = u64::try_from(fetched.bytes.len()).unwrap_or(u64::MAX);
    if let Some(size) = said.size
        && size != length
    {
        return Err(Wrong::Bytes(format!("it has {length} bytes, its descriptor says {size}")));
    }
    let expected = match selector {
        Selector::Digest(digest) => Some(digest),
        // A header that contradicts its own body is a fault of the answer, not of the image.
        Selector::Tag(_) => fetched.digest.as_ref(),
    };
    let media_type = trusted(fetched.content_type.as_deref(), said.media_type);
    Manifest::parse(fetched.bytes.clone(), media_type, expected).map_err(|wrong| match wrong {
        ManifestError::Digest(why) => Wrong::Bytes(why),
        other => Wrong::Document(fetched.bytes, other),
    })
}

/// The media type to go by when the body has none: the header, unless it says nothing about manifests and the descriptor
/// does.
fn trusted<'a>(header: Option<&'a str>, descriptor: Option<&'a str>) -> Option<&'a str> {
    let known = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, OCI_ARTIFACT];
    let essence = |media_type: &str| media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match (header, descriptor.filter(|descriptor| !descriptor.is_empty())) {
        (Some(header), Some(descriptor)) if !known.contains(&essence(header).as_str()) => Some(descriptor),
        (header, descriptor) => header.or(descriptor),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    const MANIFEST: &[u8] = br#"{"schemaVersion":2,"layers":[]}"#;

    fn fetched(content_type: Option<&str>, digest: Option<Digest>) -> FetchedManifest {
        FetchedManifest {
            bytes: Bytes::from_static(MANIFEST),
            content_type: content_type.map(ToOwned::to_owned),
            digest,
        }
    }

    fn tag() -> Selector {
        Selector::Tag("latest".parse().unwrap())
    }

    #[test]
    fn a_header_that_contradicts_the_body_is_worth_another_reading() {
        let right = Digest::of(Algorithm::Sha256, MANIFEST);
        let wrong = Digest::of(Algorithm::Sha256, b"other");
        let manifest = check(fetched(None, Some(right.clone())), &tag(), Said::default());
        assert_eq!(manifest.ok().map(|manifest| manifest.digest), Some(right.clone()));
        assert!(matches!(check(fetched(None, Some(wrong.clone())), &tag(), Said::default()), Err(Wrong::Bytes(_))));
        let by_digest = check(fetched(None, Some(wrong.clone())), &Selector::Digest(right), Said::default());
        assert!(by_digest.is_ok(), "asked by digest, only the bytes count");
        let by_digest = check(fetched(None, None), &Selector::Digest(wrong), Said::default());
        assert!(matches!(by_digest, Err(Wrong::Bytes(_))));
    }

    #[test]
    fn another_size_than_said_is_wrong() {
        let digest = Selector::Digest(Digest::of(Algorithm::Sha256, MANIFEST));
        let size = u64::try_from(MANIFEST.len()).unwrap();
        let said = |size| Said { media_type: None, size: Some(size) };
        assert!(check(fetched(None, None), &digest, said(size)).is_ok());
        assert!(matches!(check(fetched(None, None), &digest, said(size + 1)), Err(Wrong::Bytes(_))));
    }

    #[test]
    fn the_header_goes_before_the_descriptor_unless_it_says_nothing() {
        assert_eq!(trusted(Some(OCI_INDEX), Some(DOCKER_LIST)), Some(OCI_INDEX));
        assert_eq!(trusted(Some("application/json"), Some(OCI_INDEX)), Some(OCI_INDEX));
        assert_eq!(trusted(Some("application/json"), None), Some("application/json"));
        assert_eq!(trusted(Some("application/json"), Some("")), Some("application/json"));
        assert_eq!(trusted(None, Some(OCI_INDEX)), Some(OCI_INDEX));
        let with_parameters = format!("{DOCKER_MANIFEST}; charset=utf-8");
        assert_eq!(trusted(Some(&with_parameters), Some(OCI_MANIFEST)), Some(with_parameters.as_str()));
        assert_eq!(trusted(None, None), None);
    }
}
