//! Claims that are left behind for jobs to come.

use super::{Bench, TTL, later, numbered};
use freightliner::job::{JobId, NewJob, State};
use freightliner::store::{ClaimRequest, Error, QueueChange, Standing, Store};
use std::sync::Arc;
use tokio::task::JoinSet;
use uuid::Uuid;

fn request(worker: Uuid, room: usize, queue: Option<&str>) -> ClaimRequest {
    let queue = queue.map(str::to_owned);
    ClaimRequest { worker, room, queue, only: None, lease_ttl: TTL, registry_limits: Arc::default() }
}

/// The jobs that it has claimed. None when nobody has done it.
async fn ids(standing: Standing) -> Option<Vec<JobId>> {
    let stood = standing.withdraw().await.unwrap();
    stood.map(|stood| stood.claims.iter().map(|claim| claim.job.id).collect())
}

#[tokio::test]
async fn the_next_enqueue_does_the_claim_that_was_left_behind() {
    let bench = Bench::new().await;
    let before = bench.store.clone();
    let mut standing = bench.store.stand(request(bench.worker, 2, None));
    let id = before.enqueue(vec![numbered(1)], "test").await.unwrap()[0].id;
    // Claimed when the enqueue is acknowledged, not a commit later.
    assert_eq!(bench.state(id).await, State::Running);
    standing.filled().await;
    let stood = standing.withdraw().await.unwrap().expect("it was done");
    let [claim] = &stood.claims[..] else { panic!("{stood:?}") };
    assert_eq!((claim.job.id, claim.job.attempt, claim.job.lease_epoch), (id, 1, 1));
    assert_eq!(claim.job.worker, Some(bench.worker.to_string()));
    assert_eq!(claim.dest_key, "b.example/app:1");
    let events: Vec<String> =
        bench.store.events(id).await.unwrap().into_iter().filter_map(|event| event.reason).collect();
    assert_eq!(events, ["enqueued", "claimed"]);
    // Once: whoever wants more says so.
    let second = bench.enqueue(numbered(2)).await;
    assert_eq!(bench.state(second).await, State::Pending);
    assert!(bench.store.check().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_claim_that_was_left_behind_follows_all_rules_of_claims() {
    let bench = Bench::new().await;
    bench.store.queue_change("held", QueueChange::Pause, "test").await.unwrap();
    // The best first, whoever brought it, and not more than there is room for.
    let waits = bench.enqueue(numbered(1)).await;
    let urgent = NewJob { priority: 1, ..numbered(2) };
    let standing = bench.store.stand(request(bench.worker, 2, None));
    let both = vec![numbered(3), urgent];
    let both = bench.store.enqueue(both, "test").await.unwrap();
    assert_eq!(ids(standing).await, Some(vec![both[1].id, waits]));
    // Nothing that may not run, and the enqueue is none the worse for it.
    let standing = bench.store.stand(request(bench.worker, 2, Some("held")));
    let id = bench.enqueue(NewJob { queue: "held".to_owned(), ..numbered(4) }).await;
    assert_eq!((ids(standing).await, bench.state(id).await), (Some(vec![]), State::Pending));
    let standing = bench.store.stand(request(bench.worker, 2, Some("other")));
    let run_at = Some(later(&bench.clock, 60));
    let id = bench.enqueue(NewJob { run_at, queue: "other".to_owned(), ..numbered(5) }).await;
    assert_eq!((ids(standing).await, bench.state(id).await), (Some(vec![]), State::Scheduled));
}

#[tokio::test]
async fn a_claim_that_is_taken_back_or_dropped_takes_nothing() {
    let bench = Bench::new().await;
    let standing = bench.store.stand(request(bench.worker, 5, None));
    assert_eq!(ids(standing).await, None);
    drop(bench.store.stand(request(bench.worker, 5, None)));
    let (id, key) = (bench.enqueue(numbered(1)).await, Some("k".to_owned()));
    assert_eq!(bench.state(id).await, State::Pending);
    assert_eq!(bench.claim(9).await.len(), 1);
    // One that is refused is refused all the same.
    let keyed = NewJob { idempotency_key: key, ..numbered(2) };
    bench.enqueue(keyed.clone()).await;
    let standing = bench.store.stand(request(bench.worker, 5, None));
    let other = NewJob { idempotency_key: keyed.idempotency_key, ..numbered(3) };
    let refused = bench.store.enqueue(vec![other], "test").await;
    assert!(matches!(refused, Err(Error::KeyConflict(_))), "{refused:?}");
    // What waited may have been claimed behind it, or not.
    let claimed = ids(standing).await.map_or(0, |ids| ids.len());
    assert_eq!(claimed + bench.claim(9).await.len(), 1);
}

#[tokio::test]
async fn many_who_enqueue_and_many_claims_left_behind_give_each_job_once() {
    const EACH: usize = 25;
    let bench = Bench::new().await;
    let mut enqueuers = JoinSet::new();
    for caller in 0..8 {
        let store = bench.store.clone();
        enqueuers.spawn(async move {
            for number in 0..EACH {
                store.enqueue(vec![numbered(caller * EACH + number)], "test").await.unwrap();
            }
        });
    }
    let mut claimers = JoinSet::new();
    for _ in 0..4 {
        claimers.spawn(claim_until_told(bench.store.clone()));
    }
    enqueuers.join_all().await;
    // Those who still stand and wait.
    let mut all: Vec<JobId> = Vec::new();
    for number in 8 * EACH.. {
        bench.enqueue(numbered(number)).await;
        while let Some(ended) = claimers.try_join_next() {
            all.extend(ended.unwrap());
        }
        if claimers.is_empty() {
            break;
        }
    }
    all.extend(bench.claim(10_000).await.iter().map(|claim| claim.job.id));
    let claimed = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), claimed, "no job is claimed twice");
    assert_eq!(i64::try_from(claimed).unwrap(), bench.number("SELECT COUNT(*) FROM jobs").await);
    assert!(bench.store.check().await.unwrap().is_empty());
}

/// Leaves claims behind until enough came of them. Every second one is taken back in the middle.
async fn claim_until_told(store: Store) -> Vec<JobId> {
    let worker = Uuid::now_v7();
    let mut all = Vec::new();
    while all.len() < 20 {
        let mut standing = store.stand(request(worker, 3, None));
        if all.len() % 2 == 0 {
            standing.filled().await;
        } else {
            tokio::task::yield_now().await;
        }
        all.extend(ids(standing).await.unwrap_or_default());
    }
    all
}
