//! Carries a plan out: all blobs, then all manifests but the root, wave by wave.

use super::Error;
use super::blob::Way;
use super::plan::{Plan, count};
use super::tasks::side_by_side;
use crate::job::How;
use crate::oci::Manifest;

/// Everything under the root is at the destination when this returns; no tag was written. Returns the root, and how many
/// manifests were put.
///
/// # Errors
/// The first error that trying again did not help; what was under way beside it has ended.
pub(super) async fn transfer(way: &Way, plan: Plan) -> Result<(Manifest, u64), Error> {
    way.attempt.progress.expect(plan.bytes(), plan.blobs());
    for blob in &plan.present {
        way.record(blob, How::Present);
    }
    let blobs = plan.missing.into_iter().map(|blob| {
        let way = way.clone();
        async move { way.bring(&blob).await }
    });
    side_by_side(blobs, way.limits.blobs_at_once).await?;
    let mut manifests_pushed = 0;
    for wave in plan.waves {
        manifests_pushed += count(wave.len());
        let puts = wave.into_iter().map(|manifest| {
            let way = way.clone();
            async move { way.destination.put(&manifest, &way.temp).await }
        });
        side_by_side(puts, way.limits.blobs_at_once).await?;
    }
    way.destination.hold_root(&plan.root, &way.temp).await?;
    Ok((plan.root, manifests_pushed))
}
