//! What the destination has of a tree.
//!
//! A layout is simply looked at. A registry is not asked blob by blob before a copy: the POST that opens an upload answers
//! the same question, so a survey would cost a request a blob for nothing. A preview may not open uploads, so it asks by HEAD.

use super::destination::{Destination, Place};
use super::plan::Inventory;
use super::resolve::Tree;
use super::tasks::side_by_side;
use super::{Error, Limits};
use std::collections::BTreeSet;

/// What is known to be there before a transfer. No request to a registry: what is unknown counts as missing. With `check`,
/// what a layout has counts only when its content is right.
pub(super) async fn survey(destination: &Destination, tree: &Tree, check: bool) -> Result<Inventory, Error> {
    let mut present = BTreeSet::new();
    if matches!(destination.place, Place::Layout { .. }) {
        for blob in &tree.blobs {
            if destination.has_blob(blob).await? && (!check || destination.is_intact(blob).await?) {
                present.insert(blob.digest.clone());
            }
        }
    }
    Ok(Inventory { present })
}

/// What is there, each blob asked for. Changes nothing.
pub(super) async fn survey_each(destination: &Destination, tree: &Tree, limits: &Limits) -> Result<Inventory, Error> {
    let questions = tree.blobs.clone().into_iter().map(|blob| {
        let destination = destination.clone();
        async move { Ok(destination.has_blob(&blob).await?.then_some(blob.digest)) }
    });
    let answers = side_by_side(questions, limits.blobs_at_once).await?;
    Ok(Inventory { present: answers.into_iter().flatten().collect() })
}
