//! Leases that nobody keeps, workers that died, files that they left.

use super::{Bench, TTL, numbered};
use freightliner::job::State;
use freightliner::store::{Fence, Held, Selection, Work};
use freightliner::sweep::{self, Settings, Sweeper};
use freightliner::worker::presence::{Place, Presence};
use std::path::Path;
use std::time::Duration;
use uuid::Uuid;

const SETTINGS: Settings =
    Settings { interval: Duration::from_secs(5), margin: Duration::from_secs(5), poison_limit: 3, retention: None };

async fn presence(bench: &Bench, state: &Path) -> Presence {
    Presence::start(
        &bench.store,
        state,
        &freightliner::worker::Settings { lease_ttl: TTL, ..Default::default() },
        4,
        &bench.clock,
    )
    .await
    .unwrap()
}

/// Ends a worker as a crash does: the lock is dropped, the row stays.
fn crash(presence: Presence) -> Uuid {
    presence.id
}

#[tokio::test]
async fn a_dead_workers_jobs_come_back_at_once_by_proof() {
    let bench = Bench::new().await;
    let state = tempfile::tempdir().unwrap();
    let id = bench.enqueue(numbered(1)).await;
    let worker = presence(&bench, state.path()).await;
    let claim = bench.claim_as(worker.id, 1, None, None).await.remove(0);
    let once = || sweep::once(&bench.store, state.path(), &bench.clock, 10, false);
    assert!(!once().await.unwrap().did_anything(), "it lives");
    let dead = crash(worker);
    let dry = sweep::once(&bench.store, state.path(), &bench.clock, 10, true).await.unwrap();
    assert_eq!((dry.jobs_requeued, dry.workers_removed), (1, 1));
    assert_eq!(bench.state(id).await, State::Running, "a dry run changes nothing");
    let swept = once().await.unwrap();
    assert_eq!((swept.jobs_requeued, swept.jobs_failed, swept.workers_removed), (1, 0, 1));
    let job = bench.job(id).await;
    assert_eq!((job.state, job.attempt, job.crash_count, job.lease_epoch), (State::Scheduled, 0, 1, 2));
    assert!(job.failure.unwrap().message.contains("died"));
    assert!(bench.store.workers().await.unwrap().is_empty());
    assert!(!Place::here(state.path(), true).unwrap().lock_file(&dead.to_string()).exists());
    assert_eq!(bench.store.renew(claim.fence(), TTL, Work::default()).await.unwrap(), Held::Lost);
    assert_eq!(bench.number("SELECT COUNT(*) FROM audit_attempts WHERE outcome = 'expired'").await, 1);
    assert!(!once().await.unwrap().did_anything(), "a second sweep finds nothing");
}

#[tokio::test]
async fn deaths_without_progress_are_counted_and_progress_forgives() {
    let bench = Bench::new().await;
    let state = tempfile::tempdir().unwrap();
    let id = bench.enqueue(numbered(1)).await;
    let die = |moved: u64| {
        let (bench, state) = (&bench, &state);
        async move {
            bench.hand.advance(Duration::from_secs(60));
            bench.store.due().await.unwrap();
            let worker = presence(bench, state.path()).await;
            let claim = bench.claim_as(worker.id, 1, None, None).await.remove(0);
            let work = Work { progress: None, bytes_moved: moved };
            bench.store.renew(claim.fence(), TTL, work).await.unwrap();
            crash(worker);
            sweep::once(&bench.store, state.path(), &bench.clock, 3, false).await.unwrap();
            let job = bench.job(1).await;
            (job.state, job.crash_count)
        }
    };
    assert_eq!(die(0).await, (State::Scheduled, 1));
    assert_eq!(die(0).await, (State::Scheduled, 2));
    assert_eq!(die(5).await, (State::Scheduled, 0), "progress forgives");
    assert_eq!(die(0).await, (State::Scheduled, 1));
    assert_eq!(die(0).await, (State::Scheduled, 2));
    assert_eq!(die(0).await, (State::Failed, 3));
    let job = bench.job(id).await;
    assert_eq!(job.failure.unwrap().class, "poison");
    assert!(bench.store.check().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_job_taken_back_after_some_progress_is_still_waited_for() {
    let bench = Bench::new().await;
    let state = tempfile::tempdir().unwrap();
    let id = bench.enqueue(numbered(1)).await;
    bench.hand.advance(Duration::from_millis(5));
    let worker = presence(&bench, state.path()).await;
    let claim = bench.claim_as(worker.id, 1, None, None).await.remove(0);
    let work = Work { progress: None, bytes_moved: 5 };
    bench.store.renew(claim.fence(), TTL, work).await.unwrap();
    crash(worker);
    sweep::once(&bench.store, state.path(), &bench.clock, 3, false).await.unwrap();
    let job = bench.job(id).await;
    assert_eq!((job.state, job.attempt, job.crash_count), (State::Scheduled, 0, 0), "nothing is charged");
    assert!(bench.store.busy(None).await.unwrap(), "it waits for its next attempt, not for a later time");
    let again = bench.store.enqueue(vec![numbered(1)], "test").await.unwrap();
    assert_eq!((again[0].id, again[0].created), (id, false), "it is the equal job that waits");
}

#[tokio::test]
async fn a_cancel_that_was_asked_for_is_done_by_the_sweeper() {
    let bench = Bench::new().await;
    let state = tempfile::tempdir().unwrap();
    let id = bench.enqueue(numbered(1)).await;
    let worker = presence(&bench, state.path()).await;
    let _claim = bench.claim_as(worker.id, 1, None, None).await.remove(0);
    bench.store.cancel(&Selection::Ids(vec![id]), "test").await.unwrap();
    crash(worker);
    sweep::once(&bench.store, state.path(), &bench.clock, 10, false).await.unwrap();
    assert_eq!(bench.state(id).await, State::Cancelled);
}

#[tokio::test]
async fn without_proof_the_lease_decides_and_wall_clocks_prove_nothing() {
    let bench = Bench::new().await;
    let (theirs, ours) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    bench.enqueue(numbered(1)).await;
    let worker = presence(&bench, theirs.path()).await;
    let claim = bench.claim_as(worker.id, 1, None, None).await.remove(0);
    // Another state folder: its lock says nothing here.
    let place = Place::here(ours.path(), true).unwrap();
    let mut sweeper = Sweeper::new(bench.store.clone(), place, bench.clock.clone(), SETTINGS, None);
    assert!(!sweeper.tick().await.unwrap().did_anything(), "first seen");
    bench.hand.jump_wall(86_400_000);
    assert!(!sweeper.tick().await.unwrap().did_anything(), "a jump of the wall clock is harmless");
    bench.hand.jump_wall(-2 * 86_400_000);
    assert!(!sweeper.tick().await.unwrap().did_anything());
    bench.hand.advance(TTL);
    assert_eq!(bench.store.renew(claim.fence(), TTL, Work::default()).await.unwrap(), Held::Yes);
    bench.hand.advance(Duration::from_secs(10));
    assert!(!sweeper.tick().await.unwrap().did_anything(), "its beat has moved");
    bench.hand.advance(TTL + Duration::from_secs(4));
    assert!(!sweeper.tick().await.unwrap().did_anything(), "the margin is not over");
    bench.hand.advance(Duration::from_secs(2));
    let swept = sweeper.tick().await.unwrap();
    assert_eq!(swept.jobs_requeued, 1);
    assert_eq!(bench.store.renew(claim.fence(), TTL, Work::default()).await.unwrap(), Held::Lost);
    drop(worker);
}

#[tokio::test]
async fn two_sweepers_reclaim_a_job_once() {
    let bench = Bench::new().await;
    let state = tempfile::tempdir().unwrap();
    bench.enqueue(numbered(1)).await;
    let worker = presence(&bench, state.path()).await;
    let _claim = bench.claim_as(worker.id, 1, None, None).await.remove(0);
    crash(worker);
    let once = || sweep::once(&bench.store, state.path(), &bench.clock, 10, false);
    let (first, second) = tokio::join!(once(), once());
    assert_eq!(first.unwrap().jobs_requeued + second.unwrap().jobs_requeued, 1);
    assert_eq!(bench.job(1).await.lease_epoch, 2);
}

#[tokio::test]
async fn files_of_dead_workers_go_and_those_of_living_ones_stay() {
    let bench = Bench::new().await;
    let state = tempfile::tempdir().unwrap();
    let layout = tempfile::tempdir().unwrap();
    let (living, dead) = (presence(&bench, state.path()).await, presence(&bench, state.path()).await);
    let stranger = Uuid::now_v7().to_string();
    let place = Place::here(state.path(), true).unwrap();
    let put = |path: &Path| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "12345").unwrap();
    };
    let kept = living.temp_folder().join("a");
    let left = dead.temp_folder().join("b");
    let inside = layout.path().join(".freightliner-tmp").join(dead.id.to_string()).join("c");
    let unknown = place.temp_folder(&stranger).join("d");
    let not_ours = place.temp_root().join("notes.txt");
    for path in [&kept, &left, &inside, &unknown, &not_ours] {
        put(path);
    }
    // A registered path that points out of our folders is not believed.
    let precious = layout.path().join("index.json");
    put(&precious);
    for path in [&left, &inside, &precious] {
        let fence = Fence { job: 1, epoch: 1 };
        bench.store.temp_register(path.display().to_string(), dead.id, fence).await.unwrap();
    }
    crash(dead);
    let swept = sweep::once(&bench.store, state.path(), &bench.clock, 10, false).await.unwrap();
    assert_eq!((swept.temp_files_removed, swept.temp_bytes_removed, swept.workers_removed), (3, 15, 1));
    assert!(kept.exists() && not_ours.exists() && precious.exists());
    assert!(!left.exists() && !inside.exists() && !unknown.exists());
    assert!(!layout.path().join(".freightliner-tmp").exists(), "the layout is left as it was");
    living.end(&bench.store).await;
}

#[tokio::test]
async fn a_worker_that_ends_cleanly_leaves_nothing() {
    let bench = Bench::new().await;
    let state = tempfile::tempdir().unwrap();
    let worker = presence(&bench, state.path()).await;
    assert_eq!(bench.store.workers().await.unwrap().len(), 1);
    worker.end(&bench.store).await;
    assert!(bench.store.workers().await.unwrap().is_empty());
    for folder in ["tmp", "workers"] {
        assert_eq!(std::fs::read_dir(state.path().join(folder)).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_worker_that_ends_with_a_job_unsettled_leaves_the_proof_of_its_end() {
    let bench = Bench::new().await;
    let state = tempfile::tempdir().unwrap();
    let id = bench.enqueue(numbered(1)).await;
    let worker = presence(&bench, state.path()).await;
    let _claim = bench.claim_as(worker.id, 1, None, None).await.remove(0);
    worker.end(&bench.store).await;
    let swept = sweep::once(&bench.store, state.path(), &bench.clock, 10, false).await.unwrap();
    assert_eq!((swept.jobs_requeued, swept.workers_removed), (1, 1), "at once, not when the lease runs out");
    assert_eq!(bench.state(id).await, State::Scheduled);
    assert_eq!(std::fs::read_dir(state.path().join("workers")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_reboot_is_proof_too() {
    let bench = Bench::new().await;
    let state = tempfile::tempdir().unwrap();
    let id = bench.enqueue(numbered(1)).await;
    let worker = presence(&bench, state.path()).await;
    let _claim = bench.claim_as(worker.id, 1, None, None).await.remove(0);
    let left = worker.temp_folder().join("a");
    std::fs::create_dir_all(left.parent().unwrap()).unwrap();
    std::fs::write(&left, "12345").unwrap();
    crash(worker);
    bench.sql("UPDATE workers SET boot_id = 'the one before', state_device = 99").await.unwrap();
    let swept = sweep::once(&bench.store, state.path(), &bench.clock, 10, false).await.unwrap();
    if !bench.store.is_local() {
        // A server may have workers on clones of this machine: there the lease decides.
        assert_eq!((swept.jobs_requeued, swept.workers_removed), (0, 0));
        return;
    }
    assert_eq!((swept.jobs_requeued, swept.temp_files_removed, swept.workers_removed), (1, 1, 1));
    assert_eq!(bench.state(id).await, State::Scheduled);
    assert!(!left.exists() && bench.store.workers().await.unwrap().is_empty());
}

#[tokio::test]
async fn workers_of_other_machines_are_forgotten_when_they_are_silent_and_come_back_when_they_live() {
    let bench = Bench::new().await;
    let (theirs, ours) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let worker = presence(&bench, theirs.path()).await;
    bench.sql("UPDATE workers SET machine_id = 'another'").await.unwrap();
    let place = Place::here(ours.path(), true).unwrap();
    let mut sweeper = Sweeper::new(bench.store.clone(), place, bench.clock.clone(), SETTINGS, None);
    sweeper.tick().await.unwrap();
    bench.hand.advance(Duration::from_secs(60));
    assert!(bench.store.worker_seen(worker.id).await.unwrap());
    sweeper.tick().await.unwrap();
    bench.hand.advance(Duration::from_secs(60));
    assert!(!sweeper.tick().await.unwrap().did_anything(), "it was seen meanwhile");
    bench.hand.advance(Duration::from_secs(10));
    assert_eq!(sweeper.tick().await.unwrap().workers_removed, 1);
    assert!(!bench.store.worker_seen(worker.id).await.unwrap());
    worker.seen(&bench.store, &bench.clock).await.unwrap();
    assert_eq!(bench.store.workers().await.unwrap().len(), 1);
    worker.end(&bench.store).await;
}

#[tokio::test]
async fn a_job_that_kills_its_workers_waits_between_tries_and_ends_as_poison() {
    let bench = Bench::new().await;
    let state = tempfile::tempdir().unwrap();
    let id = bench.enqueue(numbered(1)).await;
    let mut pauses = Vec::new();
    for _ in 0..30 {
        bench.hand.advance(Duration::from_secs(60));
        bench.store.due().await.unwrap();
        let worker = presence(&bench, state.path()).await;
        let claim = bench.claim_as(worker.id, 1, None, None).await.remove(0);
        bench.store.renew(claim.fence(), TTL, Work { progress: None, bytes_moved: 5 }).await.unwrap();
        crash(worker);
        // A limit of 3 fruitless deaths: 30 deaths of any kind.
        sweep::once(&bench.store, state.path(), &bench.clock, 3, false).await.unwrap();
        let job = bench.job(id).await;
        pauses.push(job.run_at.since(bench.clock.now()).as_secs());
    }
    assert_eq!(pauses[..8], [0, 0, 0, 1, 2, 4, 8, 10]);
    let job = bench.job(id).await;
    assert_eq!((job.state, job.failure.unwrap().class.as_str()), (State::Failed, "poison"));
}
