//! Images in an OCI image layout directory (image-spec, image-layout.md).

use super::Image;
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::{Path, PathBuf};

impl Image {
    /// Writes the image into the layout at `folder`, which is made if it is not there, and names it `tag`.
    pub fn write_layout(&self, folder: &Path, tag: &str) {
        std::fs::create_dir_all(folder).expect("make a layout folder");
        std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("write oci-layout");
        for blob in self.all_blobs() {
            let mut file = std::fs::File::create(blob_path(folder, &blob.digest)).expect("make a blob file");
            for chunk in blob.content.chunks() {
                file.write_all(&chunk).expect("write a blob");
            }
        }
        for image in self.manifests() {
            std::fs::write(blob_path(folder, &image.digest), &image.manifest).expect("write a manifest");
        }
        let index_path = folder.join("index.json");
        let mut index: Value = match std::fs::read(&index_path) {
            Ok(bytes) => serde_json::from_slice(&bytes).expect("index.json is JSON"),
            Err(_) => json!({ "schemaVersion": 2, "manifests": [] }),
        };
        let mut descriptor = self.descriptor();
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        index["manifests"].as_array_mut().expect("an array").push(descriptor);
        std::fs::write(index_path, index.to_string()).expect("write index.json");
    }

    /// What of this image is not in the layout exactly as it is here; empty when all is well.
    pub fn layout_differences(&self, folder: &Path, tag: &str) -> Vec<String> {
        let mut found = Vec::new();
        let index = std::fs::read(folder.join("index.json")).unwrap_or_default();
        let index: Value = serde_json::from_slice(&index).unwrap_or_default();
        let named: Vec<&Value> = index["manifests"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|entry| entry["annotations"]["org.opencontainers.image.ref.name"] == tag)
            .collect();
        match named[..] {
            [entry] if entry["digest"] == self.digest && entry["size"] == self.manifest.len() => {}
            _ => found.push(format!("index.json names {named:?} as {tag}")),
        }
        let manifests = self.manifests().into_iter().map(|image| (&image.digest, image.manifest.clone()));
        let blobs = self.all_blobs().into_iter().map(|blob| (&blob.digest, blob.content.to_bytes()));
        for (digest, bytes) in manifests.chain(blobs) {
            match std::fs::read(blob_path_of(folder, digest)) {
                Ok(held) if held == bytes => {}
                Ok(held) => found.push(format!("{digest}: {} other bytes", held.len())),
                Err(error) => found.push(format!("{digest}: {error}")),
            }
        }
        found
    }
}

fn blob_path_of(folder: &Path, digest: &str) -> PathBuf {
    let (algorithm, encoded) = digest.split_once(':').expect("a digest");
    folder.join("blobs").join(algorithm).join(encoded)
}

fn blob_path(folder: &Path, digest: &str) -> PathBuf {
    let path = blob_path_of(folder, digest);
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("make a blobs folder");
    path
}
