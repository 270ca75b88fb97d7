//! Manifests, indexes and descriptors: read, never written. The bytes are kept as they came.
//!
//! Reading is lenient, because registries hold what every tool of ten years wrote: unknown fields, null lists, missing
//! media types. It is strict in one point: a document must not be readable both as an image and as an index
//! (CVE-2021-41190), since two programs could then take the same digest for different content.
//!
//! What a document is, is judged by its `mediaType`, then by the Content-Type, then by its shape; where two of them
//! contradict each other it is refused. A digest names bytes, so that nothing here ever serialises a manifest again.

use super::descriptor::{BoundedList, LIST_LIMIT_ENTRIES, SIZE_LIMIT_BYTES, WireDescriptor};
use super::{Algorithm, Descriptor, Digest, quote};
use bytes::Bytes;
use serde::{Deserialize, Deserializer};

/// Media type of an OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of a Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Media type of a Docker image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Media type of the OCI artifact manifest (a draft that never became final, but is in use).
pub const OCI_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
/// Media type of a Docker image manifest, schema 1: recognised, never copied.
pub const SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
/// Media type of a signed Docker image manifest, schema 1: recognised, never copied.
pub const SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
/// An older misspelling of the same.
const SCHEMA1_SIGNED_OLD: &str = "application/vnd.docker.distribution.manifest.v1+prettyjson";

/// Content-Types of servers that do not know what they serve: no statement about a manifest, so that they contradict
/// nothing.
const GENERIC_CONTENT_TYPES: [&str; 4] =
    ["application/json", "application/octet-stream", "binary/octet-stream", "text/plain"];

/// Longest media type, bytes: two names of 127 and a '/' (RFC 6838, 4.2). It becomes a header, where it must be plain text.
const MEDIA_TYPE_LIMIT_BYTES: usize = 255;

/// A parsed manifest with the exact bytes it came from and the digest of those bytes.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The document exactly as it came.
    pub bytes: Bytes,
    /// The digest of `bytes`.
    pub digest: Digest,
    /// What to send as Content-Type when it is pushed. Never empty.
    pub media_type: String,
    /// What it names.
    pub content: Content,
}

/// What a manifest names.
#[derive(Debug, Clone)]
pub enum Content {
    /// Image or artifact manifest: `blobs` = config (if any) then layers (or `blobs` of an artifact manifest), as listed.
    Image {
        /// All content the manifest names, config first. Foreign layers included.
        blobs: Vec<Descriptor>,
        /// The config again, if there is one.
        config: Option<Descriptor>,
        /// The manifest that this one refers to, if it is a referrer.
        subject: Option<Descriptor>,
    },
    /// Index or manifest list.
    Index {
        /// The entries, as listed.
        manifests: Vec<Descriptor>,
        /// The manifest that this one refers to, if it is a referrer.
        subject: Option<Descriptor>,
    },
}

impl Content {
    /// Whether `digest` is of one of the blobs or manifests right below.
    #[must_use]
    pub fn names(&self, digest: &Digest) -> bool {
        let (Self::Image { blobs: below, .. } | Self::Index { manifests: below, .. }) = self;
        below.iter().any(|descriptor| descriptor.digest == *digest)
    }
}

/// Why bytes are not a manifest that can be copied. One line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, neither image nor index, both at once, or an entry is wrong.
    #[error("{0}")]
    Malformed(String),
    /// Docker schema 1, which cannot be copied verbatim to a registry of today.
    #[error("{0}")]
    Schema1(String),
    /// Body and Content-Type say different things.
    #[error("{0}")]
    MediaTypeMismatch(String),
    /// The bytes are not those that were asked for.
    #[error("{0}")]
    Digest(String),
}

/// The JSON object: only what is needed. Null lists are lists (Go writes empty ones so); a null object is absent.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireManifest {
    schema_version: Option<serde_json::Number>,
    media_type: Option<String>,
    #[serde(default, deserialize_with = "present")]
    config: Option<Option<WireDescriptor>>,
    #[serde(default, deserialize_with = "present")]
    layers: Option<Option<WireList>>,
    #[serde(default, deserialize_with = "present")]
    blobs: Option<Option<WireList>>,
    #[serde(default, deserialize_with = "present")]
    manifests: Option<Option<WireList>>,
    subject: Option<WireDescriptor>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

type WireList = BoundedList<WireDescriptor, LIST_LIMIT_ENTRIES>;

/// Keeps "absent" (None) apart from "null" (Some(None)).
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// The two shapes of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Image,
    Index,
}

impl Manifest {
    /// Parses `bytes`. `expected` is the digest that was asked for: its algorithm is used and the bytes must match it;
    /// without it sha256 is computed. `content_type` is the registry's header or the descriptor's media type (parameters
    /// ignored): used when the body has no `mediaType`; when both are there and differ the manifest is refused
    /// (`MediaTypeMismatch`), unless the header is one of those that say nothing, as `application/json`.
    ///
    /// # Errors
    /// `Digest` first, before anything of the document is believed; then see `ManifestError`.
    pub fn parse(bytes: Bytes, content_type: Option<&str>, expected: Option<&Digest>) -> Result<Self, ManifestError> {
        let digest = Digest::of(expected.map_or(Algorithm::Sha256, Digest::algorithm), &bytes);
        if let Some(expected) = expected
            && digest != *expected
        {
            return Err(ManifestError::Digest(format!("manifest has digest {digest}, expected {expected}")));
        }
        let header = content_type.map(essence).filter(|header| !header.is_empty());
        let wire: WireManifest = serde_json::from_slice(&bytes).map_err(|cause| not_json(header.as_deref(), &cause))?;
        let media_type = wire.media_type_against(header.as_deref())?;
        let shape = wire.shape(media_type.as_deref())?;
        let media_type = media_type.unwrap_or_else(|| wire.default_media_type(shape).to_owned());
        let content = wire.content(shape)?;
        Ok(Self { bytes, digest, media_type, content })
    }
}

/// A Content-Type without its parameters, in lower case.
fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn is_schema1(media_type: &str) -> bool {
    [SCHEMA1, SCHEMA1_SIGNED, SCHEMA1_SIGNED_OLD].contains(&media_type)
}

fn schema1() -> ManifestError {
    ManifestError::Schema1(
        "the manifest is of Docker's schema 1, which registries no longer accept and which cannot be copied \
         byte for byte; rebuild or convert the image"
            .to_owned(),
    )
}

fn not_json(header: Option<&str>, cause: &serde_json::Error) -> ManifestError {
    if header.is_some_and(is_schema1) {
        return schema1();
    }
    // The cause may quote a text of the document, as long as that text is.
    let cause = quote(&cause.to_string());
    ManifestError::Malformed(format!("the manifest is not a JSON document as it should be: {cause}"))
}

impl WireManifest {
    /// What the body and the header together say; None when neither says anything.
    fn media_type_against(&self, header: Option<&str>) -> Result<Option<String>, ManifestError> {
        let body = self.media_type.as_deref().filter(|body| !body.is_empty());
        if let Some(body) = body
            && (body.len() > MEDIA_TYPE_LIMIT_BYTES || !body.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            let body = quote(body);
            return Err(ManifestError::Malformed(format!("the manifest says mediaType {body}, which is none")));
        }
        let old = self.schema_version.as_ref().is_some_and(|version| version.as_u64() == Some(1));
        if body.or(header).is_some_and(is_schema1) || (old && self.manifests.is_none() && self.layers.is_none()) {
            return Err(schema1());
        }
        let header = header.filter(|header| !GENERIC_CONTENT_TYPES.contains(header));
        match (body, header) {
            (Some(body), Some(header)) if essence(body) != header => {
                let (body, header) = (quote(body), quote(header));
                Err(ManifestError::MediaTypeMismatch(format!(
                    "the manifest says mediaType {body}, but was given as {header}"
                )))
            }
            (Some(said), _) | (None, Some(said)) => Ok(Some(said.to_owned())),
            (None, None) => Ok(None),
        }
    }

    /// Image or index, by what the document holds; it must hold one kind only, and that of its media type if it is known.
    fn shape(&self, media_type: Option<&str>) -> Result<Shape, ManifestError> {
        let known = match media_type {
            Some(OCI_INDEX | DOCKER_LIST) => Some(Shape::Index),
            Some(OCI_MANIFEST | DOCKER_MANIFEST | OCI_ARTIFACT) => Some(Shape::Image),
            _ => None,
        };
        let given = |list: &Option<Option<WireList>>| matches!(list, Some(Some(_)));
        let image = given(&self.layers) || given(&self.blobs) || matches!(self.config, Some(Some(_)));
        let index = given(&self.manifests);
        let mentions_image = self.layers.is_some() || self.blobs.is_some() || self.config.is_some();
        let shape = match (image, index) {
            (true, true) => {
                return Err(ManifestError::Malformed(
                    "the manifest is ambiguous: it has 'manifests' as an index and 'layers', 'config' or 'blobs' as \
                     an image; such documents are refused because programs disagree about them"
                        .to_owned(),
                ));
            }
            (true, false) => Shape::Image,
            (false, true) => Shape::Index,
            // Only nulls: an empty list, as Go writes it. Which one, only the media type or the field itself can tell.
            (false, false) => match (known, mentions_image, self.manifests.is_some()) {
                (Some(Shape::Image) | None, true, false) => Shape::Image,
                (Some(Shape::Index) | None, false, true) => Shape::Index,
                (Some(known), true, true) => known,
                _ => return Err(self.neither()),
            },
        };
        match (known, media_type) {
            (Some(known), Some(media_type)) if known != shape => {
                let (is, what) = match shape {
                    Shape::Image => ("an image manifest", "layers"),
                    Shape::Index => ("an index", "manifests"),
                };
                Err(ManifestError::MediaTypeMismatch(format!(
                    "the manifest was given as {}, but by its '{what}' it is {is}",
                    quote(media_type)
                )))
            }
            _ => Ok(shape),
        }
    }

    fn neither(&self) -> ManifestError {
        if self.fs_layers.is_some() {
            return schema1();
        }
        ManifestError::Malformed(
            "the document is no manifest: it has neither 'manifests' nor 'layers', 'config' or 'blobs'".to_owned(),
        )
    }

    /// The media type to push it as when nobody said one.
    fn default_media_type(&self, shape: Shape) -> &'static str {
        match shape {
            Shape::Index => OCI_INDEX,
            Shape::Image if matches!(self.blobs, Some(Some(_))) => OCI_ARTIFACT,
            Shape::Image => OCI_MANIFEST,
        }
    }

    fn content(self, shape: Shape) -> Result<Content, ManifestError> {
        let subject = self.subject.map(|subject| subject.check("subject")).transpose();
        let subject = subject.map_err(ManifestError::Malformed)?;
        let content = match shape {
            Shape::Index => Content::Index { manifests: check_list(self.manifests, "manifests")?, subject },
            Shape::Image => {
                let config = self.config.flatten().map(|config| config.check("config")).transpose();
                let config = config.map_err(ManifestError::Malformed)?;
                let mut blobs: Vec<Descriptor> = config.iter().cloned().collect();
                blobs.extend(check_list(self.layers, "layers")?);
                blobs.extend(check_list(self.blobs, "blobs")?);
                Content::Image { blobs, config, subject }
            }
        };
        let listed = match &content {
            Content::Image { blobs, .. } => blobs,
            Content::Index { manifests, .. } => manifests,
        };
        // So that nobody who adds sizes up has to think of overflow.
        let total = listed.iter().try_fold(0_u64, |total, descriptor| total.checked_add(descriptor.size));
        if total.is_none_or(|total| total > SIZE_LIMIT_BYTES) {
            return Err(ManifestError::Malformed("the sizes in the manifest add up to more than can exist".to_owned()));
        }
        Ok(content)
    }
}

fn check_list(list: Option<Option<WireList>>, field: &str) -> Result<Vec<Descriptor>, ManifestError> {
    let entries = list.flatten().map(|list| list.0).unwrap_or_default();
    let checked = entries.into_iter().enumerate().map(|(position, entry)| entry.check(&format!("{field}[{position}]")));
    checked.collect::<Result<_, _>>().map_err(ManifestError::Malformed)
}

#[cfg(test)]
mod tests;
