//! Images made by hand: every shape of manifest a registry can hold, with all bytes known.
//!
//! Manifests are printed with uncommon white space and a trailing newline, so that a program that reads one and writes
//! it again, instead of passing its bytes on, changes the digest and is caught.

mod builder;
mod layout;
mod push;

pub use builder::{ImageBuilder, artifact, artifact_of, docker_list, index, index_with};

use super::content::{Algorithm, Content};
use bytes::Bytes;
use serde_json::{Value, json};

/// Media types, spelled out once.
pub mod media {
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    pub const OCI_FOREIGN_LAYER: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    pub const DOCKER_FOREIGN_LAYER: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
}

/// A blob and what a descriptor says of it.
#[derive(Debug, Clone)]
pub struct Blob {
    pub media_type: String,
    pub digest: String,
    pub content: Content,
}

impl Blob {
    pub fn new(media_type: &str, algorithm: Algorithm, content: impl Into<Content>) -> Self {
        let content = content.into();
        Self { media_type: media_type.to_owned(), digest: content.digest(algorithm), content }
    }

    /// The descriptor of this blob.
    pub fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest, "size": self.content.len() })
    }
}

/// A manifest or index with everything below it.
#[derive(Debug, Clone)]
pub struct Image {
    pub media_type: String,
    pub digest: String,
    pub manifest: Bytes,
    /// What the manifest names and a registry must hold: config first, foreign layers left out.
    pub blobs: Vec<Blob>,
    /// What an index names, in its order.
    pub children: Vec<Image>,
    /// The platform an index says this image is for.
    pub platform: Option<Value>,
}

impl Image {
    /// From a JSON value, printed in the rig's peculiar way.
    fn from_json(media_type: &str, algorithm: Algorithm, value: &Value) -> Self {
        let mut manifest = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b" \t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut manifest, formatter);
        serde::Serialize::serialize(value, &mut serializer).expect("JSON of a value");
        manifest.push(b'\n');
        Self::from_bytes(media_type, algorithm, manifest)
    }

    /// A manifest of exactly these bytes, which need not be JSON; without blobs and children.
    pub fn from_bytes(media_type: &str, algorithm: Algorithm, manifest: impl Into<Bytes>) -> Self {
        let manifest = manifest.into();
        Self {
            media_type: media_type.to_owned(),
            digest: algorithm.digest(&manifest),
            manifest,
            blobs: Vec::new(),
            children: Vec::new(),
            platform: None,
        }
    }

    /// What an index says of this image.
    pub fn descriptor(&self) -> Value {
        let mut value = json!({ "mediaType": self.media_type, "digest": self.digest, "size": self.manifest.len() });
        if let Some(platform) = &self.platform {
            value["platform"] = platform.clone();
        }
        value
    }

    /// This image and all below it, children before parents, each digest once.
    pub fn manifests(&self) -> Vec<&Image> {
        let mut found: Vec<&Image> = Vec::new();
        for image in self.children.iter().flat_map(Image::manifests).chain([self]) {
            if !found.iter().any(|known| known.digest == image.digest) {
                found.push(image);
            }
        }
        found
    }

    /// Every blob of this image and of all below it, each digest once.
    pub fn all_blobs(&self) -> Vec<&Blob> {
        let mut found: Vec<&Blob> = Vec::new();
        for blob in self.manifests().into_iter().flat_map(|image| &image.blobs) {
            if !found.iter().any(|known| known.digest == blob.digest) {
                found.push(blob);
            }
        }
        found
    }

    /// The blobs that are layers, not the config.
    pub fn layers(&self) -> &[Blob] {
        self.blobs.get(1..).unwrap_or_default()
    }
}
