//! Carries a plan out: all blobs, then all manifests but the root, wave by wave.

use super::Error;
use super::blob::Way;
use super::hints::Believed;
use super::plan::{Blob, Plan, count};
use super::tasks::side_by_side;
use crate::job::How;
use crate::oci::Manifest;

/// What a transfer came to.
pub(super) struct Transferred {
    pub root: Manifest,
    pub manifests_pushed: u64,
    /// Blobs that nobody has looked for: the root's PUT tells whether they are there.
    pub believed: Option<Believed>,
}

/// Everything under the root is at the destination when this returns, or believed to be; no tag was written. `believing`: what
/// the ledger says of blobs may be relied on where the registry says when that is wrong.
///
/// # Errors
/// The first error that trying again did not help; what was under way beside it has ended.
pub(super) async fn transfer(way: &Way, plan: Plan, believing: bool) -> Result<Transferred, Error> {
    way.attempt.progress.expect(plan.bytes(), plan.blobs());
    for blob in &plan.present {
        way.record(blob, How::Present);
    }
    let (mut believed, missing) = way.believed(plan.missing, believing).await;
    let shown = way.profile_name();
    bring_all(way, missing).await?;
    let mut manifests_pushed = 0;
    for wave in plan.waves {
        manifests_pushed += count(wave.len());
        match put_all(way, wave.clone(), believed.is_none()).await {
            Err(error)
                if error.misses
                    && let Some(believed) = believed.take() =>
            {
                way.disbelieve(&believed).await?;
                put_all(way, wave, true).await?;
            }
            put => put?,
        }
    }
    way.destination.hold_root(&plan.root, &way.temp).await?;
    way.note_profile(shown).await;
    Ok(Transferred { root: plan.root, manifests_pushed, believed })
}

/// Brings blobs, so many at a time.
pub(super) async fn bring_all(way: &Way, blobs: Vec<Blob>) -> Result<(), Error> {
    let blobs = blobs.into_iter().map(|blob| {
        let way = way.clone();
        async move { way.bring(&blob).await }
    });
    side_by_side(blobs, way.limits.blobs_at_once).await.map(drop)
}

async fn put_all(way: &Way, manifests: Vec<Manifest>, patient: bool) -> Result<(), Error> {
    let puts = manifests.into_iter().map(|manifest| {
        let way = way.clone();
        async move { way.destination.put(&manifest, patient, &way.temp).await }
    });
    side_by_side(puts, way.limits.blobs_at_once).await.map(drop)
}
