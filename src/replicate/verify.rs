//! Looks whether a destination that names an image has all of it: registries lose blobs below manifests that are still there, by
//! a garbage collection gone wrong or a disk that was restored from an older day. A digest alone does not show that.

use super::destination::Destination;
use super::plan::{Inventory, count};
use super::resolve::Tree;
use super::tasks::side_by_side;
use super::{Error, Limits};
use crate::oci::Manifest;

/// What a destination has of a tree, and how much is missing.
pub(super) struct Gaps {
    /// The blobs that are there, in a layout with the right content.
    pub inventory: Inventory,
    /// Blobs and manifests that are not.
    pub missing: u64,
}

/// Asks for each blob and each manifest; a layout's are read. The root is looked at in a layout, and at a registry when its
/// tag does not vouch for it (`root`).
pub(super) async fn look(destination: &Destination, tree: &Tree, root: bool, limits: &Limits) -> Result<Gaps, Error> {
    let questions = tree.blobs.clone().into_iter().map(|blob| {
        let destination = destination.clone();
        async move {
            let is_there = destination.has_blob(&blob).await? && destination.is_intact(&blob).await?;
            Ok(is_there.then_some(blob.digest))
        }
    });
    let blobs = side_by_side(questions, limits.blobs_at_once).await?;
    let lost_blobs = blobs.iter().filter(|blob| blob.is_none()).count();
    let root = (root || destination.is_layout()).then_some(&tree.root);
    let manifests: Vec<Manifest> = tree.children.iter().chain(root).cloned().collect();
    let questions = manifests.into_iter().map(|manifest| {
        let destination = destination.clone();
        async move { destination.holds(&manifest).await }
    });
    let lost_manifests = side_by_side(questions, limits.blobs_at_once).await?.into_iter().filter(|held| !held).count();
    let inventory = Inventory { present: blobs.into_iter().flatten().collect() };
    Ok(Gaps { inventory, missing: count(lost_blobs + lost_manifests) })
}
