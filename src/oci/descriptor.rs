//! Descriptors: what a manifest says of a piece of content.
//!
//! Read in two steps, first the JSON shape and then the values, so that an error can say which entry is wrong
//! (`layers[3].digest`) rather than a byte position.

use super::manifest::{DOCKER_LIST, DOCKER_MANIFEST, OCI_ARTIFACT, OCI_INDEX, OCI_MANIFEST, SCHEMA1, SCHEMA1_SIGNED};
use super::{Digest, Platform};
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// Most entries in one list of a manifest. The largest images known have a few hundred layers and the largest indexes a
/// few thousand entries; without a bound, a small document could cost much memory.
pub const LIST_LIMIT_ENTRIES: usize = 10_000;

/// Most download URLs of one descriptor; those in use have one or two.
pub const URLS_LIMIT_ENTRIES: usize = 100;

/// Largest size of content: what fits into the signed 64-bit integers of databases and other clients, bytes.
pub const SIZE_LIMIT_BYTES: u64 = i64::MAX as u64;

/// Layers that may not be distributed. The rest of the type tells the compression.
const FOREIGN_PREFIXES: [&str; 2] =
    ["application/vnd.docker.image.rootfs.foreign.diff.tar", "application/vnd.oci.image.layer.nondistributable.v1.tar"];

/// What a manifest says of a piece of content (image spec, descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Media type as written; empty when the document leaves it out.
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Size of the content, bytes. At most `i64::MAX`, also when all of one manifest are added up.
    pub size: u64,
    /// Where else the content may be downloaded from (foreign layers). Never trusted with credentials.
    pub urls: Vec<String>,
    /// For entries of an index: what the image runs on.
    pub platform: Option<Platform>,
    /// For artifacts: what kind.
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// A layer that may not be distributed (foreign / nondistributable media types): kept by reference.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        FOREIGN_PREFIXES.iter().any(|prefix| {
            self.media_type.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '+']))
        })
    }

    /// The media type is one of those known to be manifests or indexes (also of the old schema 1, which is refused when
    /// it is read).
    #[must_use]
    pub fn is_manifest(&self) -> bool {
        let known = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, OCI_ARTIFACT, SCHEMA1, SCHEMA1_SIGNED];
        known.contains(&self.media_type.as_str())
    }
}

/// The JSON object. Unknown fields are ignored; null is the same as absent.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireDescriptor {
    media_type: Option<String>,
    digest: Option<String>,
    size: Option<serde_json::Number>,
    urls: Option<BoundedList<String, URLS_LIMIT_ENTRIES>>,
    platform: Option<Platform>,
    artifact_type: Option<String>,
}

impl WireDescriptor {
    /// The descriptor, or what is wrong with it; `field` says where it stands.
    pub(super) fn check(self, field: &str) -> Result<Descriptor, String> {
        let digest = self.digest.ok_or_else(|| format!("{field} has no digest"))?;
        let digest = digest.parse().map_err(|cause| format!("{field}: {cause}"))?;
        let size = self.size.ok_or_else(|| format!("{field} has no size"))?;
        let size = size
            .as_u64()
            .filter(|&size| size <= SIZE_LIMIT_BYTES)
            .ok_or_else(|| format!("{field} has the size {size}, which is not a number of bytes"))?;
        Ok(Descriptor {
            media_type: self.media_type.unwrap_or_default(),
            digest,
            size,
            urls: self.urls.map(|urls| urls.0).unwrap_or_default(),
            platform: self.platform,
            artifact_type: self.artifact_type,
        })
    }
}

/// A JSON array that is refused at its first entry too many, before that is read.
pub(crate) struct BoundedList<T, const LIMIT: usize>(pub(crate) Vec<T>);

impl<'de, T: Deserialize<'de>, const LIMIT: usize> Deserialize<'de> for BoundedList<T, LIMIT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T, const LIMIT: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const LIMIT: usize> Visitor<'de> for Entries<T, LIMIT> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {LIMIT} entries")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(entry) = entries.next_element()? {
                    if list.len() == LIMIT {
                        return Err(serde::de::Error::custom(format!("a list has more than {LIMIT} entries")));
                    }
                    list.push(entry);
                }
                Ok(list)
            }
        }

        deserializer.deserialize_seq(Entries::<T, LIMIT>(PhantomData)).map(Self)
    }
}
