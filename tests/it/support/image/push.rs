//! Images over plain HTTP: to a registry, and compared with what a registry holds.

use super::{Blob, Image};
use crate::support::content::{Algorithm, Content, Hasher};
use crate::support::http::Client;

/// Accepted when manifests are read back: everything.
const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, */*";

impl Blob {
    /// Uploads the blob in one PUT.
    pub fn push(&self, registry: &Client, repository: &str) {
        let started = registry.send("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], None).expect(202);
        let location = started.header("location").expect("a Location").to_owned();
        let separator = if location.contains('?') { '&' } else { '?' };
        let target = format!("{location}{separator}digest={}", self.digest);
        let headers = [("Content-Type", "application/octet-stream")];
        registry.send("PUT", &target, &headers, Some(&self.content)).expect(201);
    }
}

impl Image {
    /// Uploads all blobs, all manifests by digest, children first, then this one as `reference` (a tag or its digest).
    pub fn push(&self, registry: &Client, repository: &str, reference: &str) {
        for blob in self.all_blobs() {
            blob.push(registry, repository);
        }
        for image in self.manifests() {
            let name = if image.digest == self.digest { reference } else { &image.digest };
            image.push_manifest(registry, repository, name);
        }
    }

    /// Uploads this one manifest.
    pub fn push_manifest(&self, registry: &Client, repository: &str, reference: &str) {
        let target = format!("/v2/{repository}/manifests/{reference}");
        let body = Content::from(self.manifest.clone());
        registry.send("PUT", &target, &[("Content-Type", &self.media_type)], Some(&body)).expect(201);
    }

    /// What of this image is not at the registry exactly as it is here; empty when all is well.
    ///
    /// Compares the raw bytes and the Content-Type of every manifest, and size and digest of every blob.
    pub fn differences(&self, registry: &Client, repository: &str, reference: &str) -> Vec<String> {
        let mut found = Vec::new();
        for image in self.manifests() {
            let name = if image.digest == self.digest { reference } else { &image.digest };
            let target = format!("/v2/{repository}/manifests/{name}");
            let answer = registry.send("GET", &target, &[("Accept", ACCEPT)], None);
            if answer.status != 200 {
                found.push(format!("{target}: {} {}", answer.status, answer.text()));
            } else if answer.body != image.manifest {
                let digest = Algorithm::Sha256.digest(&answer.body);
                found.push(format!("{target}: {} other bytes, {digest}", answer.body.len()));
            } else if answer.header("content-type") != Some(&image.media_type) {
                found.push(format!("{target}: Content-Type {:?}", answer.header("content-type")));
            }
        }
        for blob in self.all_blobs() {
            let target = format!("/v2/{repository}/blobs/{}", blob.digest);
            let answer = registry.get(&target);
            let mut hasher = Hasher::new(Algorithm::of(&blob.digest).expect("a known algorithm"));
            hasher.update(&answer.body);
            if answer.status != 200 {
                found.push(format!("{target}: {}", answer.status));
            } else if hasher.finish() != blob.digest {
                found.push(format!("{target}: {} bytes with another digest", answer.body.len()));
            }
        }
        found
    }

    /// Panics unless the registry holds exactly this image.
    pub fn assert_at(&self, registry: &Client, repository: &str, reference: &str) {
        let found = self.differences(registry, repository, reference);
        assert!(found.is_empty(), "{repository}:{reference} differs:\n{}", found.join("\n"));
    }
}
