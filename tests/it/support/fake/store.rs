//! What the fake holds, in memory.

use crate::support::content::{Algorithm, Content, Hasher, sha256};
use bytes::Bytes;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

#[derive(Default)]
pub struct Repository {
    pub blobs: HashMap<String, Content>,
    /// By digest: media type and bytes.
    pub manifests: BTreeMap<String, (String, Bytes)>,
    pub tags: BTreeMap<String, String>,
}

/// An upload that was begun.
pub struct Upload {
    pub repository: String,
    pub received: u64,
    /// None when uploads are discarded.
    pub data: Option<Vec<u8>>,
    pub sha256: Hasher,
    /// Only kept when it was asked for, or nothing had been received when the digest became known.
    pub sha512: Option<Hasher>,
    pub last_chunk: Option<u64>,
    /// PATCH requests so far.
    pub parts: u64,
}

impl Upload {
    pub fn new(repository: &str, keep: bool, algorithm: Option<&str>) -> Self {
        Self {
            repository: repository.to_owned(),
            received: 0,
            data: keep.then(Vec::new),
            sha256: Hasher::new(Algorithm::Sha256),
            sha512: (keep || algorithm == Some("sha512")).then(|| Hasher::new(Algorithm::Sha512)),
            last_chunk: None,
            parts: 0,
        }
    }

    /// Nothing was received.
    pub fn restart(&mut self) {
        *self = Self { parts: self.parts, ..Self::new(&self.repository, self.data.is_some(), None) };
    }

    pub fn append(&mut self, bytes: &[u8]) {
        self.received += bytes.len() as u64;
        self.sha256.update(bytes);
        if let Some(sha512) = &mut self.sha512 {
            sha512.update(bytes);
        }
        if let Some(data) = &mut self.data {
            data.extend_from_slice(bytes);
        }
    }

    /// Whether the bytes have this digest, and the content to hold.
    pub fn finish(self, digest: &str) -> Option<Content> {
        let hasher = match Algorithm::of(digest)? {
            Algorithm::Sha256 => self.sha256,
            Algorithm::Sha512 => self.sha512?,
        };
        let content = match self.data {
            Some(data) => Content::Bytes(data.into()),
            None => Content::Discarded { size: self.received },
        };
        (hasher.finish() == digest).then_some(content)
    }
}

#[derive(Default)]
pub struct State {
    pub repositories: BTreeMap<String, Repository>,
    pub uploads: HashMap<String, Upload>,
    pub uploads_begun: u64,
    /// Every tag that was set, oldest first.
    pub tag_history: Vec<TagSet>,
}

/// A tag that was set.
#[derive(Debug, Clone)]
pub struct TagSet {
    pub repository: String,
    pub tag: String,
    pub digest: String,
    /// Unix milliseconds.
    pub at_ms: i64,
}

impl State {
    pub fn repository(&mut self, name: &str) -> &mut Repository {
        self.repositories.entry(name.to_owned()).or_default()
    }

    pub fn put_blob(&mut self, repository: &str, digest: &str, content: Content) {
        self.repository(repository).blobs.insert(digest.to_owned(), content);
    }

    pub fn put_tag(&mut self, repository: &str, tag: &str, digest: &str) {
        self.repository(repository).tags.insert(tag.to_owned(), digest.to_owned());
        let (repository, tag, digest) = (repository.to_owned(), tag.to_owned(), digest.to_owned());
        self.tag_history.push(TagSet { repository, tag, digest, at_ms: crate::support::unix_millis() });
    }

    /// Holds a manifest under a digest given, or under its own and a tag; gives the digest.
    pub fn put_manifest(&mut self, repository: &str, reference: &str, media_type: &str, bytes: Bytes) -> String {
        let is_digest = reference.contains(':');
        let digest = if is_digest { reference.to_owned() } else { sha256(&bytes) };
        self.repository(repository).manifests.insert(digest.clone(), (media_type.to_owned(), bytes));
        if !is_digest {
            self.put_tag(repository, reference, &digest);
        }
        digest
    }

    /// Digest, media type and bytes of a manifest, by tag or digest.
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<(String, (String, Bytes))> {
        let repository = self.repositories.get(repository)?;
        let digest = if reference.contains(':') { reference } else { repository.tags.get(reference)?.as_str() };
        Some((digest.to_owned(), repository.manifests.get(digest)?.clone()))
    }

    /// What a manifest names and this repository does not hold. Foreign layers (with URLs) need not be held.
    pub fn missing(&self, repository: &str, manifest: &Value) -> Vec<String> {
        let empty = Repository::default();
        let held = self.repositories.get(repository).unwrap_or(&empty);
        let list = |field: &str| manifest[field].as_array().cloned().unwrap_or_default();
        let blobs = [list("layers"), list("blobs"), manifest.get("config").cloned().into_iter().collect()].concat();
        let blobs = blobs
            .iter()
            .filter(|descriptor| descriptor["urls"].as_array().is_none_or(Vec::is_empty))
            .filter_map(|descriptor| descriptor["digest"].as_str())
            .filter(|digest| !held.blobs.contains_key(*digest))
            .map(str::to_owned);
        let children = list("manifests");
        let children = children
            .iter()
            .filter_map(|descriptor| descriptor["digest"].as_str())
            .filter(|digest| !held.manifests.contains_key(*digest))
            .map(str::to_owned);
        blobs.chain(children).collect()
    }
}
