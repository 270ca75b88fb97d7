//! What is copied: synthetic images, written straight into the storage of Distribution's file system driver.

use crate::Measured;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Other tools look at the beginning of a layer to tell whether it must be compressed.
const GZIP_MAGIC: [u8; 4] = [0x1f, 0x8b, 8, 0];
/// Bases that the repositories share, layers of each, and bytes of each layer.
const BASES: usize = 5;
const BASE_LAYERS: usize = 4;
const BASE_LAYER_BYTES: u64 = 2 * 1024 * 1024;
/// Bytes of the layer that an image has to itself.
const OWN_LAYER_BYTES: u64 = 128 * 1024;
const SMALL_BYTES: u64 = 4 * 1024;

/// A registry's storage, and what was written there.
#[derive(Clone, Default)]
pub struct Corpus {
    root: PathBuf,
    /// Repository and tag, and the digest that it names.
    pub tags: BTreeMap<(String, String), String>,
    manifests: BTreeSet<(String, String)>,
    blobs: BTreeMap<(String, String), u64>,
    /// Bytes of each blob, once.
    sizes: BTreeMap<String, u64>,
}

impl Corpus {
    /// Nothing yet, in the storage below `docker/registry/v2`.
    pub fn new(root: PathBuf) -> Self {
        Self { root, ..Self::default() }
    }

    /// One image with `layers` layers of so many bytes.
    ///
    /// # Errors
    /// The storage cannot be written.
    pub fn image_of(&mut self, repository: &str, layers: usize, layer_bytes: u64) -> Measured {
        let mut descriptors = Vec::new();
        for number in 0..layers {
            let blob = self.random(repository, &format!("{repository}/{number}"), layer_bytes)?;
            descriptors.push(descriptor(LAYER, &blob));
        }
        let image = self.image(repository, "amd64", "1", &descriptors)?;
        self.tag(repository, "1", &image);
        self.write_tag(repository, "1", &image.0)
    }

    /// `images` images in a tenth as many repositories that share bases; every tenth for two platforms, every fifth with
    /// a signature as a tag, every tenth with a referrer behind a fallback tag.
    ///
    /// # Errors
    /// The storage cannot be written.
    pub fn fleet(&mut self, images: usize) -> Measured {
        for number in 0..images {
            self.fleet_image(number, images / 10, "")?;
        }
        Ok(())
    }

    /// One image in twenty of a fleet gets another layer of its own, and what belongs to it anew. How many did.
    ///
    /// # Errors
    /// The storage cannot be written.
    pub fn change(&mut self, images: usize) -> Measured<usize> {
        // Not a divisor of the number of repositories: the images lie in different ones.
        let changed = (1..images).step_by(21).collect::<Vec<_>>();
        for number in &changed {
            self.fleet_image(*number, images / 10, "changed")?;
        }
        Ok(changed.len())
    }

    fn fleet_image(&mut self, number: usize, repositories: usize, salt: &str) -> Measured {
        let place = number % repositories.max(1);
        let (repository, tag) = (format!("team{}/app{place}", place % 4), format!("1.{number}"));
        let mut shared = Vec::new();
        for layer in 0..BASE_LAYERS {
            let seed = format!("base {} layer {layer}", place % BASES);
            shared.push(descriptor(LAYER, &self.random(&repository, &seed, BASE_LAYER_BYTES)?));
        }
        // In every repository some images are special, whatever the number of repositories.
        let turn = number / repositories.max(1);
        let platforms: &[&str] = if turn == 0 { &["amd64", "arm64"] } else { &["amd64"] };
        let mut children = Vec::new();
        for platform in platforms {
            let mut layers = shared.clone();
            let seed = format!("own {number} {platform} {salt}");
            layers.push(descriptor(LAYER, &self.random(&repository, &seed, OWN_LAYER_BYTES)?));
            children.push((platform, self.image(&repository, platform, &format!("{number} {salt}"), &layers)?));
        }
        let root = if let [(_, only)] = children.as_slice() {
            only.clone()
        } else {
            let entries: Vec<Value> = children
                .iter()
                .map(|(platform, child)| {
                    let mut entry = descriptor(IMAGE, child);
                    entry["platform"] = json!({"os": "linux", "architecture": platform});
                    entry
                })
                .collect();
            self.manifest(&repository, &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}))?
        };
        self.tag(&repository, &tag, &root);
        self.write_tag(&repository, &tag, &root.0)?;
        if turn == 1 || turn == 6 {
            self.sign(&repository, &root)?;
        }
        if turn == 2 {
            self.refer(&repository, &root)?;
        }
        Ok(())
    }

    /// A signature as cosign leaves it: an image under a tag made of the digest.
    fn sign(&mut self, repository: &str, image: &(String, u64)) -> Measured {
        let payload = self.random(repository, &format!("signature of {}", image.0), SMALL_BYTES)?;
        let layer = descriptor("application/vnd.dev.cosign.simplesigning.v1+json", &payload);
        let signature = self.image(repository, "", &image.0, &[layer])?;
        let tag = format!("{}.sig", image.0.replace(':', "-"));
        self.tag(repository, &tag, &signature);
        self.write_tag(repository, &tag, &signature.0)
    }

    /// A referrer, as clients leave it where the registry has no referrers API: in an index under a tag made of the digest.
    fn refer(&mut self, repository: &str, image: &(String, u64)) -> Measured {
        let empty = self.blob(repository, b"{}")?;
        let bill = self.random(repository, &format!("bill of {}", image.0), SMALL_BYTES)?;
        let referrer = self.manifest(
            repository,
            &json!({
                "schemaVersion": 2, "mediaType": IMAGE, "artifactType": "application/spdx+json",
                "config": descriptor("application/vnd.oci.empty.v1+json", &empty),
                "layers": [descriptor("application/spdx+json", &bill)],
                "subject": descriptor(IMAGE, image),
            }),
        )?;
        // Without its artifactType: older versions of other tools do not know it, and refuse to write what they cannot repeat.
        let entry = descriptor(IMAGE, &referrer);
        let index =
            self.manifest(repository, &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}))?;
        let tag = image.0.replace(':', "-");
        self.tag(repository, &tag, &index);
        self.write_tag(repository, &tag, &index.0)
    }

    fn image(&mut self, repository: &str, platform: &str, seed: &str, layers: &[Value]) -> Measured<(String, u64)> {
        let config = json!({
            "architecture": platform, "os": "linux", "author": seed, "rootfs": {
                "type": "layers",
                "diff_ids": layers.iter().map(|layer| layer["digest"].clone()).collect::<Vec<_>>(),
            },
        });
        let config = self.blob(repository, config.to_string().as_bytes())?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": IMAGE, "config": descriptor(CONFIG, &config), "layers": layers,
        });
        self.manifest(repository, &manifest)
    }

    fn manifest(&mut self, repository: &str, manifest: &Value) -> Measured<(String, u64)> {
        let blob = self.data(manifest.to_string().as_bytes())?;
        link(&self.repository(repository).join("_manifests/revisions"), &blob.0)?;
        self.manifests.insert((repository.to_owned(), blob.0.clone()));
        Ok(blob)
    }

    fn blob(&mut self, repository: &str, bytes: &[u8]) -> Measured<(String, u64)> {
        let blob = self.data(bytes)?;
        self.link_blob(repository, &blob)?;
        Ok(blob)
    }

    /// A layer that the seed decides; written once, however many repositories have it.
    fn random(&mut self, repository: &str, seed: &str, size: u64) -> Measured<(String, u64)> {
        std::fs::create_dir_all(&self.root)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.root)?;
        let digest = fill(file.as_file_mut(), seed, size)?;
        let path = self.path_of(&digest);
        if !path.exists() {
            create_parent(&path)?;
            file.persist(&path)?;
        }
        let blob = (digest, size);
        self.sizes.insert(blob.0.clone(), size);
        self.link_blob(repository, &blob)?;
        Ok(blob)
    }

    fn data(&mut self, bytes: &[u8]) -> Measured<(String, u64)> {
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
        let path = self.path_of(&digest);
        create_parent(&path)?;
        std::fs::write(path, bytes)?;
        let size = u64::try_from(bytes.len())?;
        Ok((digest, size))
    }

    fn link_blob(&mut self, repository: &str, blob: &(String, u64)) -> Measured {
        self.sizes.insert(blob.0.clone(), blob.1);
        self.blobs.insert((repository.to_owned(), blob.0.clone()), blob.1);
        link(&self.repository(repository).join("_layers"), &blob.0)
    }

    fn tag(&mut self, repository: &str, tag: &str, image: &(String, u64)) {
        self.tags.insert((repository.to_owned(), tag.to_owned()), image.0.clone());
    }

    fn write_tag(&self, repository: &str, tag: &str, digest: &str) -> Measured {
        let folder = self.repository(repository).join("_manifests/tags").join(tag);
        link(&folder.join("index"), digest)?;
        let current = folder.join("current/link");
        create_parent(&current)?;
        Ok(std::fs::write(current, digest)?)
    }

    fn repository(&self, repository: &str) -> PathBuf {
        self.root.join("repositories").join(repository)
    }

    fn path_of(&self, digest: &str) -> PathBuf {
        data_path(&self.root, digest)
    }

    /// The repositories.
    pub fn repositories(&self) -> BTreeSet<String> {
        self.tags.keys().map(|(repository, _)| repository.clone()).collect()
    }

    /// The only digest of a blob of at least this size.
    pub fn blob_of(&self, size: u64) -> Option<&str> {
        self.sizes.iter().find(|(_, bytes)| **bytes >= size).map(|(digest, _)| digest.as_str())
    }

    /// The fewest requests to an empty destination: a tag is looked at and put, any other manifest is put, a blob is opened and
    /// sent once, and mounted wherever else it belongs.
    pub fn floor(&self) -> usize {
        let roots: BTreeSet<_> = self.tags.iter().map(|((repository, _), digest)| (repository, digest)).collect();
        let children = self.manifests.iter().filter(|(repository, digest)| !roots.contains(&(repository, digest)));
        2 * self.tags.len() + children.count() + self.sizes.len() + self.blobs.len()
    }

    /// That another storage has all of it.
    ///
    /// # Errors
    /// What is missing there.
    pub fn check(&self, root: &Path) -> Measured {
        let is = |path: PathBuf, digest: &str| std::fs::read_to_string(path).is_ok_and(|text| text == digest);
        let of = |repository: &str| root.join("repositories").join(repository);
        for ((repository, tag), digest) in &self.tags {
            if !is(of(repository).join("_manifests/tags").join(tag).join("current/link"), digest) {
                return Err(format!("{repository}:{tag} is not {digest} at the destination").into());
            }
        }
        for (repository, digest) in &self.manifests {
            if !is(link_path(&of(repository).join("_manifests/revisions"), digest), digest) {
                return Err(format!("manifest {digest} of {repository} is missing at the destination").into());
            }
        }
        for ((repository, digest), size) in &self.blobs {
            let there = std::fs::metadata(data_path(root, digest)).is_ok_and(|data| data.len() == *size);
            if !there || !is(link_path(&of(repository).join("_layers"), digest), digest) {
                return Err(format!("blob {digest} of {repository} is missing at the destination").into());
            }
        }
        Ok(())
    }
}

fn descriptor(media_type: &str, blob: &(String, u64)) -> Value {
    json!({"mediaType": media_type, "digest": blob.0, "size": blob.1})
}

fn data_path(root: &Path, digest: &str) -> PathBuf {
    let hex = digest.trim_start_matches("sha256:");
    root.join("blobs/sha256").join(&hex[..2]).join(hex).join("data")
}

fn link_path(folder: &Path, digest: &str) -> PathBuf {
    folder.join("sha256").join(digest.trim_start_matches("sha256:")).join("link")
}

fn link(folder: &Path, digest: &str) -> Measured {
    let path = link_path(folder, digest);
    create_parent(&path)?;
    Ok(std::fs::write(path, digest)?)
}

fn create_parent(path: &Path) -> Measured {
    Ok(path.parent().map_or(Ok(()), std::fs::create_dir_all)?)
}

/// A number that the seed decides, and nobody guesses.
pub fn random(seed: &str) -> u64 {
    Sha256::digest(seed.as_bytes()).iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

/// Pseudo-random bytes (xorshift64*) that the seed decides, behind the first bytes of a gzip file; their digest.
fn fill(file: &mut File, seed: &str, size: u64) -> Measured<String> {
    let mut state = random(seed) | 1;
    let mut writer = BufWriter::with_capacity(1 << 20, file);
    let (mut hash, mut left) = (Sha256::new(), size);
    let mut piece = vec![0; 64 * 1024];
    while left > 0 {
        for word in piece.chunks_exact_mut(8) {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            word.copy_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
        }
        if left == size {
            piece[..GZIP_MAGIC.len()].copy_from_slice(&GZIP_MAGIC);
        }
        let count = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        hash.update(&piece[..count]);
        writer.write_all(&piece[..count])?;
        left -= u64::try_from(count)?;
    }
    writer.flush()?;
    Ok(format!("sha256:{}", hex::encode(hash.finalize())))
}
