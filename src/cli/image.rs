//! Reading one image, wherever it is: its root manifest, and small blobs.

use super::Context;
use super::error::{Error, Result};
use crate::layout::Layout;
use crate::oci::{Descriptor, Digest, ImageReference, Manifest, Selector, Verifier};
use crate::registry::Session;
use bytes::{Bytes, BytesMut};

/// An image that can be read.
pub enum Image {
    /// In a registry.
    Registry {
        /// What to ask with.
        session: Session,
        /// What was asked for.
        reference: crate::oci::Reference,
    },
    /// In a layout directory.
    Layout {
        /// The directory.
        layout: Layout,
        /// What was asked for.
        reference: crate::oci::LayoutReference,
    },
}

impl Image {
    /// Opens what `text` names.
    ///
    /// # Errors
    /// The reference does not parse, or the layout is not there.
    pub async fn open(context: &Context, text: &str, verify_tls: Option<bool>) -> Result<Self> {
        match context.reference(text)? {
            ImageReference::Registry(reference) => {
                Ok(Self::Registry { session: context.session(verify_tls)?, reference })
            }
            ImageReference::Layout(reference) => {
                Ok(Self::Layout { layout: Layout::open(&reference.dir).await?, reference })
            }
        }
    }

    /// The root manifest: its bytes match the digest that was asked for, if one was.
    ///
    /// # Errors
    /// It is not there, may not be read, is too large, or is no manifest.
    pub async fn manifest(&self, limit: u64) -> Result<Manifest> {
        let (bytes, media_type, expected) = match self {
            Self::Registry { session, reference } => {
                let selector = reference.selector();
                let fetched = session.get_manifest(&reference.repository, &selector).await?;
                let expected = match selector {
                    Selector::Digest(digest) => Some(digest),
                    Selector::Tag(_) => None,
                };
                (fetched.bytes, fetched.content_type, expected)
            }
            Self::Layout { layout, reference } => {
                let entry = layout.resolve(reference).await?.ok_or_else(|| {
                    Error::failed("absent", format!("{} has no such image", ImageReference::Layout(reference.clone())))
                })?;
                let bytes = layout.manifest(&entry.digest, limit).await?;
                (bytes, Some(entry.media_type), Some(entry.digest))
            }
        };
        Manifest::parse(bytes, media_type.as_deref(), expected.as_ref())
            .map_err(|error| Error::failed("refused", format!("manifest of {}: {error}", self.name())))
    }

    /// The bytes of a blob that is no larger than `limit`, checked against its descriptor.
    ///
    /// # Errors
    /// It is larger, not there, or not what its descriptor says.
    pub async fn small_blob(&self, descriptor: &Descriptor, limit: u64) -> Result<Bytes> {
        let Descriptor { digest, size, .. } = descriptor;
        if *size > limit {
            return Err(Error::failed(
                "refused",
                format!("blob {digest} has {size} bytes, more than the {limit} that are read"),
            ));
        }
        let corrupt = |error: crate::oci::digest::ContentError| {
            Error::failed("corrupt", format!("blob {digest} of {}: {error}", self.name()))
        };
        let mut verifier = Verifier::new(digest.clone(), Some(*size));
        let mut content = BytesMut::new();
        let mut chunks = self.blob(digest).await?;
        while let Some(chunk) = chunks.next().await? {
            // Fails as soon as there are more bytes than the descriptor says, so memory is bounded by `limit`.
            verifier.update(&chunk).map_err(corrupt)?;
            content.extend_from_slice(&chunk);
        }
        verifier.finish().map_err(corrupt)?;
        Ok(content.freeze())
    }

    async fn blob(&self, digest: &Digest) -> Result<Chunks> {
        match self {
            Self::Registry { session, reference } => {
                Ok(Chunks::Registry(session.get_blob(&reference.repository, digest).await?))
            }
            Self::Layout { layout, .. } => Ok(Chunks::Layout(layout.blob(digest).await?)),
        }
    }

    /// The repository, or the directory.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Registry { reference, .. } => reference.repository.to_string(),
            Self::Layout { reference, .. } => format!("oci:{}", reference.dir.display()),
        }
    }

    /// The tag that was asked for.
    #[must_use]
    pub fn tag(&self) -> Option<String> {
        match self {
            Self::Registry { reference, .. } => reference.tag.as_ref().map(|tag| tag.as_str().to_owned()),
            Self::Layout { reference, .. } => reference.name.clone(),
        }
    }
}

enum Chunks {
    Registry(crate::registry::BlobBody),
    Layout(crate::layout::BlobFile),
}

impl Chunks {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        match self {
            Self::Registry(body) => Ok(body.chunk().await?),
            Self::Layout(file) => Ok(file.chunk().await?),
        }
    }
}
