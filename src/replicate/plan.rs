//! What there is to do, decided without any I/O: whether to copy at all, and what in which order.
//!
//! Decisions stand apart from doing, so that they can be tested with a thousand random trees and no registry. The order is
//! the one promise that a registry needs: blobs before the manifests that name them, children before their parents, the
//! root not at all, since publishing is another step.

use super::Error;
use super::resolve::Tree;
use crate::job::{Class, CopyOptions, Stage};
use crate::oci::{Content, Digest, Manifest};
use std::collections::{BTreeMap, BTreeSet};

/// A blob to be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blob {
    pub digest: Digest,
    /// Bytes, as its descriptor says.
    pub size: u64,
}

/// What the destination reference names now.
#[derive(Debug, Clone, Default)]
pub(super) struct Current {
    /// Empty: nothing. More than one only in a layout, for a reference without a name.
    pub digests: Vec<Digest>,
    /// The reference names one thing, which publishing replaces.
    pub named: bool,
}

impl Current {
    /// Nothing that is known of.
    pub fn unknown() -> Self {
        Self { digests: Vec::new(), named: true }
    }
}

/// What the destination is known to have.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    pub present: BTreeSet<Digest>,
}

/// What follows from source and destination as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The destination names this content already.
    AlreadyPresent,
    /// Transfer and publish.
    Copy,
}

/// Decides whether `digest`, which the source has, is to be copied over what the destination names now.
///
/// # Errors
/// Refused when the destination demands another digest, or when it has another one and must not be clobbered.
pub(super) fn judge(
    digest: &Digest,
    demanded: Option<&Digest>,
    current: &Current,
    options: &CopyOptions,
    destination: &str,
) -> Result<Verdict, Error> {
    let refused = |why: String| Err(Error::new(Stage::Survey, Class::Refused, why));
    if let Some(demanded) = demanded
        && demanded != digest
    {
        return refused(format!(
            "the destination {destination} demands the digest {demanded}, but the source has {digest}: a copy keeps its digest"
        ));
    }
    let same = current.digests.contains(digest);
    match current.digests.first() {
        Some(_) if same && !options.force => Ok(Verdict::AlreadyPresent),
        Some(other) if !same && current.named && options.no_clobber => refused(format!(
            "{destination} already has digest {other}, the source has {digest}; --no-clobber forbids to replace it"
        )),
        _ => Ok(Verdict::Copy),
    }
}

/// What to transfer, in order.
#[derive(Debug)]
pub(super) struct Plan {
    /// Blobs that need not move.
    pub present: Vec<Blob>,
    /// Blobs to bring, the largest first, so that none of them is left alone at the end.
    pub missing: Vec<Blob>,
    /// Manifests to put after all blobs; within a wave in any order, each wave after the one before it. Not the root.
    pub waves: Vec<Vec<Manifest>>,
    /// The manifest to publish when all of that is done.
    pub root: Manifest,
}

impl Plan {
    /// Bytes of all blobs.
    pub fn bytes(&self) -> u64 {
        self.present.iter().chain(&self.missing).fold(0, |total, blob| total.saturating_add(blob.size))
    }

    /// Number of all blobs.
    pub fn blobs(&self) -> u64 {
        count(self.present.len() + self.missing.len())
    }

    /// Number of all manifests, the root included.
    pub fn manifests(&self) -> u64 {
        count(1 + self.waves.iter().map(Vec::len).sum::<usize>())
    }
}

/// A length as a number to report.
pub(super) fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// What of `tree` has to be brought to a destination that has `inventory`, and in which order. Manifests are all put again:
/// asking first would cost as much, and a destination without the root is seldom one with its children.
pub(super) fn plan(tree: Tree, inventory: &Inventory) -> Plan {
    let (present, mut missing): (Vec<_>, Vec<_>) =
        tree.blobs.into_iter().partition(|blob| inventory.present.contains(&blob.digest));
    missing.sort_by(|one, other| other.size.cmp(&one.size).then_with(|| one.digest.cmp(&other.digest)));
    Plan { present, missing, waves: waves(tree.children), root: tree.root }
}

/// Sorts manifests so that each comes in a later wave than all its children.
fn waves(manifests: Vec<Manifest>) -> Vec<Vec<Manifest>> {
    let known: BTreeSet<Digest> = manifests.iter().map(|manifest| manifest.digest.clone()).collect();
    let mut parents: BTreeMap<Digest, Vec<Digest>> = BTreeMap::new();
    let mut unmet: BTreeMap<Digest, usize> = BTreeMap::new();
    for manifest in &manifests {
        let children: BTreeSet<&Digest> = match &manifest.content {
            Content::Index { manifests, .. } => manifests.iter().map(|child| &child.digest).collect(),
            Content::Image { .. } => BTreeSet::new(),
        };
        // An entry that turned out to be a blob is no manifest to wait for.
        let children: Vec<_> = children.into_iter().filter(|child| known.contains(*child)).collect();
        unmet.insert(manifest.digest.clone(), children.len());
        for child in children {
            parents.entry(child.clone()).or_default().push(manifest.digest.clone());
        }
    }
    let mut waiting: BTreeMap<Digest, Manifest> =
        manifests.into_iter().map(|manifest| (manifest.digest.clone(), manifest)).collect();
    let mut ready: Vec<Digest> =
        unmet.iter().filter(|(_, unmet)| **unmet == 0).map(|(digest, _)| digest.clone()).collect();
    let mut waves = Vec::new();
    while !ready.is_empty() {
        let mut freed = Vec::new();
        for parent in ready.iter().filter_map(|digest| parents.get(digest)).flatten() {
            if let Some(unmet) = unmet.get_mut(parent) {
                *unmet -= 1;
                if *unmet == 0 {
                    freed.push(parent.clone());
                }
            }
        }
        waves.push(ready.iter().filter_map(|digest| waiting.remove(digest)).collect());
        ready = freed;
    }
    waves
}

#[cfg(test)]
mod tests;
