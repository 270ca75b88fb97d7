//! Carries a plan out: all blobs, then all manifests but the root, wave by wave.

use super::Error;
use super::blob::{ASK_FROM_BYTES, Way};
use super::hints::Believed;
use super::plan::{Blob, Plan, count};
use super::tasks::{in_lanes, side_by_side};
use crate::job::How;
use crate::oci::{Digest, Manifest};

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
        put_wave(way, wave, &mut believed).await?;
    }
    way.destination.hold_root(&plan.root, &way.temp).await?;
    way.note_profile(shown).await;
    Ok(Transferred { root: plan.root, manifests_pushed, believed })
}

/// Small blobs that move beside each large one: what they take is requests, not bytes.
const SMALL_PER_LARGE: usize = 4;

/// Brings blobs, so many at a time. Small ones do not wait behind large ones.
pub(super) async fn bring_all(way: &Way, blobs: Vec<Blob>) -> Result<(), Error> {
    let (large, small): (Vec<_>, Vec<_>) = blobs.into_iter().partition(|blob| blob.size >= ASK_FROM_BYTES);
    let bring = |blob: Blob, counted: bool| {
        let way = way.clone();
        async move {
            // Never closed; without a permit the blob would move all the same.
            let _permit = if counted { way.small.acquire().await.ok() } else { None };
            way.bring(&blob).await
        }
    };
    let at_once = way.limits.blobs_at_once;
    let large = large.into_iter().map(|blob| bring(blob, false)).collect::<Vec<_>>();
    let small = small.into_iter().map(|blob| bring(blob, true)).collect::<Vec<_>>();
    in_lanes([(large, at_once), (small, at_once.saturating_mul(SMALL_PER_LARGE))]).await.map(drop)
}

/// Puts manifests that do not name each other. Blobs that are believed to be there, and that the registry misses, are brought:
/// first those that it names, and then all.
async fn put_wave(way: &Way, wave: Vec<Manifest>, believed: &mut Option<Believed>) -> Result<(), Error> {
    let Some(some) = believed else { return put_all(way, wave).await };
    let mut refused = Vec::new();
    match put_each(way, wave.clone()).await {
        Ok(each) => refused.extend(each.into_iter().flatten()),
        // It does not say what it misses: that could be all of them.
        Err(error) if error.misses => return put_without(way, wave, believed).await,
        Err(error) => return Err(error),
    }
    let missing: Vec<Digest> = refused.iter().flat_map(|(_, error)| error.missing.clone()).collect();
    let (again, _): (Vec<Manifest>, Vec<Error>) = refused.into_iter().unzip();
    if again.is_empty() {
        return Ok(());
    }
    some.bring_named(&missing).await?;
    match put_all(way, again.clone()).await {
        Err(error) if error.misses => put_without(way, again, believed).await,
        put => put,
    }
}

/// Puts manifests after everything below them was brought, whatever was believed.
async fn put_without(way: &Way, wave: Vec<Manifest>, believed: &mut Option<Believed>) -> Result<(), Error> {
    if let Some(believed) = believed.take() {
        believed.bring_all().await?;
    }
    put_all(way, wave).await
}

/// Puts manifests, and gives those that were refused with the names of what the registry misses.
async fn put_each(way: &Way, manifests: Vec<Manifest>) -> Result<Vec<Option<(Manifest, Error)>>, Error> {
    let puts = manifests.into_iter().map(|manifest| {
        let way = way.clone();
        async move {
            match way.destination.put(&manifest, false, &way.temp).await {
                Ok(()) => Ok(None),
                Err(error) if error.misses && !error.missing.is_empty() => Ok(Some((manifest, error))),
                Err(error) => Err(error),
            }
        }
    });
    side_by_side(puts, way.limits.blobs_at_once).await
}

async fn put_all(way: &Way, manifests: Vec<Manifest>) -> Result<(), Error> {
    let puts = manifests.into_iter().map(|manifest| {
        let way = way.clone();
        async move { way.destination.put(&manifest, true, &way.temp).await }
    });
    side_by_side(puts, way.limits.blobs_at_once).await.map(drop)
}
