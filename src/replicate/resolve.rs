//! What the source has: the tree of manifests under one root, and all blobs they name.
//!
//! Read level by level, each digest once, however often it is listed: indexes of indexes share children, and a recursive
//! walk would fetch them again at each place. A digest cannot be its own descendant, so there are no cycles to fear; depth,
//! number and total size are bounded all the same, because an index costs its author a line and us a request.

use super::plan::Blob;
use super::source::Source;
use super::tasks::side_by_side;
use super::{Error, Limits};
use crate::job::{Class, Stage};
use crate::oci::{Content, Descriptor, Digest, Manifest};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most bytes of all manifests of one image together: they are kept in memory until they are written. Twenty times what
/// the largest known indexes with all their children have.
const TREE_BYTES_LIMIT: usize = 32 * 1024 * 1024;

/// Everything that has to be at the destination before the root may be published, and the root.
#[derive(Debug)]
pub(super) struct Tree {
    /// The manifest that gets the tag.
    pub root: Manifest,
    /// All manifests under it, each once, in no order.
    pub children: Vec<Manifest>,
    /// All blobs that any of them names, each digest once, without foreign layers.
    pub blobs: Vec<Blob>,
}

/// Reads all that `root` names, of an index only the entries that are `chosen`, down to the blobs; at most
/// `limits.blobs_at_once` manifests at a time.
///
/// # Errors
/// As [`Source::child`]; Refused beyond a limit, or when one digest is listed with two sizes.
pub(super) async fn resolve(
    source: &Source,
    root: Manifest,
    chosen: Option<&BTreeSet<Digest>>,
    limits: &Arc<Limits>,
) -> Result<Tree, Error> {
    let mut sapling = Sapling::new(source.name(), limits, &root)?;
    if let Some(chosen) = chosen {
        sapling.next.retain(|entry| chosen.contains(&entry.digest));
    }
    loop {
        let level = sapling.next_level()?;
        if level.is_empty() {
            return Ok(sapling.grown(root));
        }
        // What is not known to be a manifest was not counted when it was listed: it is counted as it comes.
        let held = Arc::new(AtomicUsize::new(sapling.bytes));
        let readings = level.into_iter().map(|descriptor| {
            let (source, limits, held) = (source.clone(), limits.clone(), held.clone());
            async move {
                let child = source.child(&descriptor, &limits).await?;
                let more = child.as_ref().map_or(0, |manifest| manifest.bytes.len());
                if held.fetch_add(more, Ordering::Relaxed).saturating_add(more) > TREE_BYTES_LIMIT {
                    return Err(too_large(source.name()));
                }
                Ok((descriptor, child))
            }
        });
        for (descriptor, child) in side_by_side(readings, limits.blobs_at_once).await? {
            match child {
                Some(manifest) => sapling.add(manifest)?,
                None => sapling.add_blob(&descriptor)?,
            }
        }
    }
}

/// A tree that still grows. Pure: what was read is given to it.
struct Sapling<'a> {
    name: &'a str,
    limits: &'a Limits,
    children: Vec<Manifest>,
    blobs: BTreeMap<Digest, u64>,
    /// Sizes of all children that were ever listed.
    listed: BTreeMap<Digest, u64>,
    /// Listed by the manifests of the last level, not read yet.
    next: Vec<Descriptor>,
    /// Indexes above the next level.
    depth: usize,
    /// Of all manifests that were read.
    bytes: usize,
    /// Of all manifests that were read or listed, as their descriptors say: they are not read any more when it is too much.
    planned: u64,
}

impl<'a> Sapling<'a> {
    fn new(name: &'a str, limits: &'a Limits, root: &Manifest) -> Result<Self, Error> {
        let mut sapling = Self {
            name,
            limits,
            children: Vec::new(),
            blobs: BTreeMap::new(),
            listed: BTreeMap::new(),
            next: Vec::new(),
            depth: 0,
            bytes: 0,
            planned: u64::try_from(root.bytes.len()).unwrap_or(u64::MAX),
        };
        sapling.take_in(root)?;
        Ok(sapling)
    }

    /// What to read next; empty when all is there.
    fn next_level(&mut self) -> Result<Vec<Descriptor>, Error> {
        if self.next.is_empty() {
            return Ok(Vec::new());
        }
        self.depth += 1;
        if self.depth > self.limits.index_depth {
            return Err(self.refused(format!("indexes are nested more than {} deep", self.limits.index_depth)));
        }
        Ok(std::mem::take(&mut self.next))
    }

    fn add(&mut self, manifest: Manifest) -> Result<(), Error> {
        self.take_in(&manifest)?;
        self.children.push(manifest);
        Ok(())
    }

    fn take_in(&mut self, manifest: &Manifest) -> Result<(), Error> {
        self.bytes = self.bytes.saturating_add(manifest.bytes.len());
        if self.bytes > TREE_BYTES_LIMIT {
            return Err(too_large(self.name));
        }
        match &manifest.content {
            Content::Image { blobs, .. } => {
                // A foreign layer is fetched from where its URLs say, by whoever runs the image.
                let mut distributed = blobs.iter().filter(|blob| !blob.is_foreign() || blob.urls.is_empty());
                distributed.try_for_each(|blob| self.add_blob(blob))
            }
            Content::Index { manifests, .. } => manifests.iter().try_for_each(|child| self.list(child)),
        }
    }

    fn list(&mut self, child: &Descriptor) -> Result<(), Error> {
        match self.listed.insert(child.digest.clone(), child.size) {
            None => {
                if child.is_manifest() {
                    self.planned = self.planned.saturating_add(child.size);
                }
                if usize::try_from(self.planned).map_or(true, |planned| planned > TREE_BYTES_LIMIT) {
                    return Err(too_large(self.name));
                }
                self.next.push(child.clone());
            }
            Some(size) if size == child.size => {}
            Some(size) => return Err(self.two_sizes(&child.digest, size, child.size)),
        }
        // The root is one of them.
        if self.listed.len() >= self.limits.manifests {
            return Err(self.refused(format!("it has more than {} manifests", self.limits.manifests)));
        }
        Ok(())
    }

    fn add_blob(&mut self, blob: &Descriptor) -> Result<(), Error> {
        match self.blobs.insert(blob.digest.clone(), blob.size) {
            Some(size) if size != blob.size => Err(self.two_sizes(&blob.digest, size, blob.size)),
            _ => Ok(()),
        }
    }

    fn grown(self, root: Manifest) -> Tree {
        let blobs = self.blobs.into_iter().map(|(digest, size)| Blob { digest, size }).collect();
        Tree { root, children: self.children, blobs }
    }

    fn two_sizes(&self, digest: &Digest, one: u64, other: u64) -> Error {
        self.refused(format!("{digest} is listed with two sizes, {one} and {other} bytes"))
    }

    fn refused(&self, why: String) -> Error {
        not_copied(self.name, &why)
    }
}

fn too_large(name: &str) -> Error {
    not_copied(name, &format!("its manifests have more than {TREE_BYTES_LIMIT} bytes together"))
}

fn not_copied(name: &str, why: &str) -> Error {
    Error::new(Stage::Resolve, Class::Refused, format!("{name} cannot be copied: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Algorithm, manifest::OCI_INDEX, manifest::OCI_MANIFEST};
    use bytes::Bytes;

    fn descriptor(media_type: &str, content: &str, size: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest: Digest::of(Algorithm::Sha256, content.as_bytes()),
            size,
            urls: Vec::new(),
            platform: None,
            artifact_type: None,
        }
    }

    fn manifest(name: &str, content: Content) -> Manifest {
        let digest = Digest::of(Algorithm::Sha256, name.as_bytes());
        Manifest { bytes: Bytes::copy_from_slice(name.as_bytes()), digest, media_type: String::new(), content }
    }

    fn index(name: &str, children: &[(&str, u64)]) -> Manifest {
        let manifests = children.iter().map(|(child, size)| descriptor(OCI_INDEX, child, *size)).collect();
        manifest(name, Content::Index { manifests, subject: None })
    }

    fn image(name: &str, blobs: Vec<Descriptor>) -> Manifest {
        manifest(name, Content::Image { blobs, config: None, subject: None })
    }

    fn limits() -> Limits {
        Limits { index_depth: 2, manifests: 4, ..Limits::default() }
    }

    #[test]
    fn what_is_listed_twice_is_read_once() {
        let limits = limits();
        let root = index("root", &[("a", 1), ("b", 1), ("a", 1)]);
        let mut sapling = Sapling::new("x", &limits, &root).unwrap();
        let level = sapling.next_level().unwrap();
        assert_eq!(level.len(), 2);
        let layer = || descriptor("application/layer", "layer", 7);
        sapling.add(image("a", vec![layer(), layer()])).unwrap();
        sapling.add(index("b", &[("a", 1)])).unwrap();
        assert!(sapling.next_level().unwrap().is_empty(), "a was read already");
        let tree = sapling.grown(root);
        assert_eq!(tree.children.len(), 2);
        assert_eq!(tree.blobs, [Blob { digest: layer().digest, size: 7 }]);
    }

    #[test]
    fn depth_and_number_are_bounded() {
        let limits = limits();
        let mut sapling = Sapling::new("x", &limits, &index("root", &[("a", 1)])).unwrap();
        for (name, child) in [("a", "b"), ("b", "c")] {
            assert_eq!(sapling.next_level().unwrap().len(), 1);
            sapling.add(index(name, &[(child, 1)])).unwrap();
        }
        let error = sapling.next_level().unwrap_err();
        assert!(error.class == Class::Refused && error.message.contains("2 deep"), "{error}");

        assert!(Sapling::new("x", &limits, &index("root", &[("a", 1), ("b", 1), ("c", 1)])).is_ok());
        let many = index("root", &[("a", 1), ("b", 1), ("c", 1), ("d", 1)]);
        let error = Sapling::new("x", &limits, &many).err().unwrap();
        assert!(error.class == Class::Refused && error.message.contains("more than 4 manifests"), "{error}");
    }

    #[test]
    fn what_would_be_too_much_is_not_read() {
        let limits = Limits::default();
        let four = 4 * 1024 * 1024;
        let names: Vec<String> = (0..8).map(|number| number.to_string()).collect();
        let mut children: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), four)).collect();
        let error = Sapling::new("x", &limits, &index("root", &children)).err().unwrap();
        assert!(error.class == Class::Refused && error.message.contains("bytes together"), "{error}");
        // The root has some bytes too.
        children[7].1 -= 100;
        assert!(Sapling::new("x", &limits, &index("root", &children)).is_ok());
        children.extend([(names[0].as_str(), four); 5]);
        assert!(Sapling::new("x", &limits, &index("root", &children)).is_ok(), "the same again is read once");
        let blobs = (0..9).map(|number| descriptor("a/b", &number.to_string(), four)).collect();
        let root = manifest("root", Content::Index { manifests: blobs, subject: None });
        assert!(Sapling::new("x", &limits, &root).is_ok(), "blobs are not held");
    }

    #[test]
    fn one_digest_has_one_size() {
        let limits = limits();
        let blobs = vec![descriptor(OCI_MANIFEST, "layer", 7), descriptor(OCI_MANIFEST, "layer", 8)];
        let error = Sapling::new("x", &limits, &image("root", blobs)).err().unwrap();
        assert!(error.class == Class::Refused && error.message.contains("7 and 8 bytes"), "{error}");
        assert!(Sapling::new("x", &limits, &index("root", &[("a", 1), ("a", 2)])).is_err());
    }

    #[test]
    fn foreign_layers_stay_where_they_are() {
        let limits = limits();
        let blobs = |listed| {
            let root = image("root", listed);
            Sapling::new("x", &limits, &root).unwrap().grown(root.clone()).blobs
        };
        let foreign = || descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "windows", 9);
        let with_url = Descriptor { urls: vec!["https://example.com/layer".to_owned()], ..foreign() };
        assert!(blobs(vec![with_url.clone()]).is_empty());
        assert_eq!(blobs(vec![with_url, foreign()]).len(), 1, "without a URL nobody else has it");
    }
}
