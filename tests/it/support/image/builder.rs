//! How images are described: a builder for single images, functions for indexes and artifacts.

use super::{Blob, Image, media};
use crate::support::content::{Algorithm, Content, random_bytes};
use crate::support::layer;
use serde_json::{Map, Value, json};

/// A layer that is asked for.
enum LayerSpec {
    /// A real gzipped tar around so many bytes.
    Archive { seed: u64, size: usize },
    /// These bytes as they are.
    Raw { media_type: String, content: Content },
    /// Named with a URL only, never pushed.
    Foreign { url: String, content: Content },
}

/// An image of one platform. Equal calls build equal bytes.
pub struct ImageBuilder {
    docker: bool,
    seed: u64,
    algorithm: Algorithm,
    with_media_type: bool,
    layers: Vec<LayerSpec>,
    platform: Value,
    created: String,
    changes: Map<String, Value>,
}

impl ImageBuilder {
    /// An OCI image, linux/amd64, without layers yet. Images of different seeds share nothing.
    pub fn oci(seed: u64) -> Self {
        Self {
            docker: false,
            seed,
            algorithm: Algorithm::Sha256,
            with_media_type: true,
            layers: Vec::new(),
            platform: json!({ "architecture": "amd64", "os": "linux" }),
            created: "2024-01-01T00:00:00Z".to_owned(),
            changes: Map::new(),
        }
    }

    /// When its configuration says that it was made.
    pub fn created(mut self, time: &str) -> Self {
        time.clone_into(&mut self.created);
        self
    }

    /// A Docker image, manifest version 2, schema 2.
    pub fn docker(seed: u64) -> Self {
        Self { docker: true, ..Self::oci(seed) }
    }

    /// One more layer: a gzipped tar with a file of `size` bytes.
    pub fn layer(self, size: usize) -> Self {
        let seed = self.seed * 1_000 + self.layers.len() as u64;
        self.layer_from(seed, size)
    }

    /// `count` more layers of `size` bytes each.
    pub fn layers(self, count: usize, size: usize) -> Self {
        (0..count).fold(self, |builder, _| builder.layer(size))
    }

    /// A layer from a seed of its own: two images with the same seed and size share it.
    pub fn layer_from(mut self, seed: u64, size: usize) -> Self {
        self.layers.push(LayerSpec::Archive { seed, size });
        self
    }

    /// A layer of exactly these bytes; with `Content::seeded` it may be larger than memory. Not an archive.
    pub fn raw_layer(mut self, media_type: &str, content: impl Into<Content>) -> Self {
        self.layers.push(LayerSpec::Raw { media_type: media_type.to_owned(), content: content.into() });
        self
    }

    /// A non-distributable layer, to be had from `url` only.
    pub fn foreign_layer(mut self, url: &str) -> Self {
        let content = random_bytes(self.seed + 77, 500).into();
        self.layers.push(LayerSpec::Foreign { url: url.to_owned(), content });
        self
    }

    pub fn platform(mut self, os: &str, architecture: &str, variant: Option<&str>) -> Self {
        self.platform = json!({ "architecture": architecture, "os": os });
        if let Some(variant) = variant {
            self.platform["variant"] = variant.into();
        }
        self
    }

    /// All digests, that of the manifest included, are sha512.
    pub fn sha512(mut self) -> Self {
        self.algorithm = Algorithm::Sha512;
        self
    }

    /// Leaves the manifest's own `mediaType` out, as older OCI tools do.
    pub fn without_media_type(mut self) -> Self {
        self.with_media_type = false;
        self
    }

    /// Sets a top-level field of the manifest.
    pub fn field(mut self, name: &str, value: Value) -> Self {
        self.changes.insert(name.to_owned(), value);
        self
    }

    /// Makes the manifest at least so many bytes long, by an annotation.
    pub fn padded_to(self, bytes: usize) -> Self {
        self.field("annotations", json!({ "org.example.padding": "p".repeat(bytes) }))
    }

    pub fn build(self) -> Image {
        let (config_type, layer_type, foreign_type, media_type) = if self.docker {
            (media::DOCKER_CONFIG, media::DOCKER_LAYER, media::DOCKER_FOREIGN_LAYER, media::DOCKER_MANIFEST)
        } else {
            (media::OCI_CONFIG, media::OCI_LAYER, media::OCI_FOREIGN_LAYER, media::OCI_MANIFEST)
        };
        let mut diff_ids = Vec::new();
        let mut descriptors = Vec::new();
        let mut blobs = Vec::new();
        for layer in self.layers {
            let (blob, diff_id, url) = match layer {
                LayerSpec::Archive { seed, size } => {
                    let layer = layer::layer(seed, size);
                    (Blob::new(layer_type, self.algorithm, layer.blob), self.algorithm.digest(&layer.tar), None)
                }
                LayerSpec::Raw { media_type, content } => {
                    let blob = Blob::new(&media_type, self.algorithm, content);
                    (blob.clone(), blob.digest, None)
                }
                LayerSpec::Foreign { url, content } => {
                    let blob = Blob::new(foreign_type, self.algorithm, content);
                    (blob.clone(), blob.digest, Some(url))
                }
            };
            diff_ids.push(diff_id);
            let mut descriptor = blob.descriptor();
            match url {
                Some(url) => descriptor["urls"] = json!([url]),
                None => blobs.push(blob),
            }
            descriptors.push(descriptor);
        }

        let mut config = json!({
            "created": self.created,
            "config": { "Env": [format!("SEED={}", self.seed)], "Cmd": ["/bin/true"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": diff_ids.iter().map(|id| json!({ "created_by": format!("add {id}") })).collect::<Vec<_>>(),
        });
        merge(&mut config, self.platform.as_object().expect("an object").clone());
        let config = Blob::new(config_type, self.algorithm, config.to_string());

        let mut manifest = json!({ "schemaVersion": 2, "config": config.descriptor(), "layers": descriptors });
        if self.with_media_type {
            manifest["mediaType"] = media_type.into();
        }
        merge(&mut manifest, self.changes);
        let mut image = Image::from_json(media_type, self.algorithm, &manifest);
        image.blobs = [vec![config], blobs].concat();
        image.platform = Some(self.platform);
        image
    }
}

/// An OCI index over these images, which may be indexes themselves.
pub fn index(children: Vec<Image>) -> Image {
    index_with(media::OCI_INDEX, Algorithm::Sha256, children, Map::new())
}

/// A Docker manifest list over these images.
pub fn docker_list(children: Vec<Image>) -> Image {
    index_with(media::DOCKER_LIST, Algorithm::Sha256, children, Map::new())
}

/// An index of any kind, with more top-level fields (or the same ones changed).
pub fn index_with(media_type: &str, algorithm: Algorithm, children: Vec<Image>, changes: Map<String, Value>) -> Image {
    let descriptors: Vec<Value> = children.iter().map(Image::descriptor).collect();
    let mut value = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": descriptors });
    merge(&mut value, changes);
    let mut image = Image::from_json(media_type, algorithm, &value);
    image.children = children;
    image
}

/// An artifact: the empty config and one blob, all of types no registry knows.
pub fn artifact(seed: u64, subject: Option<&Image>) -> Image {
    artifact_of("application/vnd.example.thing", seed, subject)
}

/// The same of this artifact type.
pub fn artifact_of(artifact_type: &str, seed: u64, subject: Option<&Image>) -> Image {
    let config = Blob::new(media::OCI_EMPTY, Algorithm::Sha256, "{}");
    let payload = Blob::new("application/vnd.example.thing+cbor", Algorithm::Sha256, random_bytes(seed, 3_000));
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": media::OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": config.descriptor(),
        "layers": [payload.descriptor()],
        "annotations": { "org.example.seed": seed.to_string() },
    });
    if let Some(subject) = subject {
        manifest["subject"] =
            json!({ "mediaType": subject.media_type, "digest": subject.digest, "size": subject.manifest.len() });
    }
    let mut image = Image::from_json(media::OCI_MANIFEST, Algorithm::Sha256, &manifest);
    image.blobs = vec![config, payload];
    image
}

fn merge(value: &mut Value, fields: Map<String, Value>) {
    value.as_object_mut().expect("an object").extend(fields);
}
