//! Images straight into the storage folder of a real registry, for hundreds of MB without an upload.
//!
//! The files are those of Distribution's filesystem driver (`registry/storage/paths.go` of its source).

use super::image::Image;
use super::registry::Registry;
use std::io::Write as _;
use std::path::{Path, PathBuf};

impl Registry {
    /// Holds the image, with all below it, as this tag. No request is made.
    pub fn seed(&self, repository: &str, tag: &str, image: &Image) {
        let root = self.storage().join("docker/registry/v2");
        let repository = root.join("repositories").join(repository);
        for blob in image.all_blobs() {
            let path = data_path(&root, &blob.digest);
            if !path.exists() {
                let mut file = create(&path);
                for chunk in blob.content.chunks() {
                    file.write_all(&chunk).expect("write a blob");
                }
            }
            link(&repository.join("_layers"), &blob.digest);
        }
        for manifest in image.manifests() {
            create(&data_path(&root, &manifest.digest)).write_all(&manifest.manifest).expect("write a manifest");
            link(&repository.join("_manifests/revisions"), &manifest.digest);
        }
        let tag = repository.join("_manifests/tags").join(tag);
        link(&tag.join("index"), &image.digest);
        create(&tag.join("current/link")).write_all(image.digest.as_bytes()).expect("write a link");
    }
}

fn data_path(root: &Path, digest: &str) -> PathBuf {
    let (algorithm, encoded) = digest.split_once(':').expect("a digest");
    root.join("blobs").join(algorithm).join(&encoded[..2]).join(encoded).join("data")
}

fn link(folder: &Path, digest: &str) {
    let (algorithm, encoded) = digest.split_once(':').expect("a digest");
    let path = folder.join(algorithm).join(encoded).join("link");
    create(&path).write_all(digest.as_bytes()).expect("write a link");
}

fn create(path: &Path) -> std::fs::File {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("make a folder");
    std::fs::File::create(path).expect("make a file")
}
