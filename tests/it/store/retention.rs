//! What is removed, what is kept of it, backups, and databases that came out of one.

use super::{Bench, TTL, later, numbered};
use freightliner::clock::UnixMillis;
use freightliner::job::{How, JobId, NewJob, State, Transfer};
use freightliner::store::{
    Claim, Error, Fence, Held, Outcome, Prunable, Pruned, Restored, Retention, Selection, Settled, Work, WorkerRow,
};
use sqlx::Executor;
use std::time::Duration;

/// Everything that was finished before now.
fn all(bench: &Bench) -> Retention {
    let soon = Some(later(&bench.clock, 1));
    Retention { completed_before: soon, cancelled_before: soon, failed_before: soon, keys_before: None }
}

async fn settle(bench: &Bench, claim: Claim, outcome: &Outcome) {
    let transfer = Transfer {
        registry: "b.example".to_owned(),
        repository: "app".to_owned(),
        digest: "sha256:00".to_owned(),
        bytes: 42,
        resumed: 0,
        how: How::Copied,
    };
    bench.store.settle(claim, outcome, Work::default(), &[transfer]).await.unwrap();
}

fn completed() -> Outcome {
    Outcome::Completed(freightliner::job::Report::default())
}

fn gave_up(bench: &Bench) -> Outcome {
    use freightliner::job::{Class, Failure, Stage};
    let failure = Failure::new(Stage::Transfer, Class::Absent, "it is not there".to_owned(), bench.clock.now());
    Outcome::Failed { failure, retry_in: None }
}

/// Jobs 1 to 6: completed, failed, cancelled, pending, scheduled, running.
async fn one_of_each(bench: &Bench) -> Claim {
    for number in 1..=4 {
        bench.enqueue(numbered(number)).await;
    }
    bench.enqueue(NewJob { run_at: Some(later(&bench.clock, 86_400)), ..numbered(5) }).await;
    bench.enqueue(NewJob { priority: 1, ..numbered(6) }).await;
    let running = bench.claim_one().await;
    let mut claims = bench.claim(2).await;
    settle(bench, claims.remove(0), &completed()).await;
    settle(bench, claims.remove(0), &gave_up(bench)).await;
    bench.store.cancel(&Selection::Ids(vec![3]), "test").await.unwrap();
    running
}

async fn ids(bench: &Bench) -> Vec<JobId> {
    let jobs = bench.store.jobs(&freightliner::store::JobFilter::default(), None, 100).await.unwrap();
    jobs.iter().rev().map(|job| job.id).collect()
}

#[tokio::test]
async fn only_what_is_finished_and_old_enough_is_removed_and_each_kind_has_its_time() {
    let bench = Bench::new().await;
    let running = one_of_each(&bench).await;
    let now = bench.clock.now();
    let before = |finished, failed| Retention {
        completed_before: finished,
        cancelled_before: finished,
        failed_before: failed,
        keys_before: None,
    };
    let removed = |jobs| Pruned { jobs, keys: 0, more: false };
    let prune = |retention| bench.store.prune(retention, 100, "test");
    assert_eq!(prune(Retention::default()).await.unwrap(), removed(0), "all are kept");
    assert_eq!(prune(before(Some(now), Some(now))).await.unwrap(), removed(0), "none is older than now");
    bench.hand.advance(Duration::from_secs(1));
    let now = bench.clock.now();
    assert_eq!(prune(before(None, Some(now))).await.unwrap(), removed(1));
    assert_eq!(ids(&bench).await, [1, 3, 4, 5, 6]);
    assert_eq!(prune(before(Some(now), None)).await.unwrap(), removed(2));
    assert_eq!(ids(&bench).await, [4, 5, 6]);
    bench.hand.advance(Duration::from_secs(365 * 86_400));
    assert_eq!(prune(all(&bench)).await.unwrap(), removed(0), "what is not finished is never removed");
    assert_eq!(bench.store.renew(running.fence(), TTL, Work::default()).await.unwrap(), Held::Yes);
    bench.complete(running).await;
    assert!(bench.store.check().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_job_goes_with_its_history_and_the_record_stays() {
    let bench = Bench::new().await;
    let running = one_of_each(&bench).await;
    let pruned = bench.store.prune(all(&bench), 100, "cli:me").await.unwrap();
    assert_eq!((pruned.jobs, pruned.more), (3, false));
    for (count, query) in [
        (0, "job_events WHERE job_id <= 3"),
        (0, "transfers"),
        (3, "jobs"),
        (3, "audit_prunes WHERE actor = 'cli:me' AND reason = 'retention' AND finished_at IS NOT NULL"),
        (1, "audit_prunes WHERE job_id = 1 AND state = 'completed'"),
        (1, "audit_prunes WHERE job_id = 2 AND state = 'failed'"),
        (1, "audit_prunes WHERE job_id = 3 AND state = 'cancelled'"),
        (1, "prunes"),
    ] {
        assert_eq!(bench.number(&format!("SELECT COUNT(*) FROM {query}")).await, count, "{query}");
    }
    assert!(bench.store.job(1).await.unwrap().is_none() && bench.store.events(1).await.unwrap().is_empty());
    assert!(bench.store.check().await.unwrap().is_empty());
    assert_eq!(bench.enqueue(numbered(1)).await, 7, "ids are never used again");
    bench.complete(running).await;
}

#[tokio::test]
async fn a_batch_is_bounded_and_the_oldest_go_first() {
    let bench = Bench::new().await;
    for number in 1..=5 {
        bench.enqueue(numbered(number)).await;
    }
    let mut claims = bench.claim(5).await;
    // Job 5 first, job 1 last.
    while let Some(claim) = claims.pop() {
        settle(&bench, claim, &completed()).await;
        bench.hand.advance(Duration::from_secs(1));
    }
    let prune = || bench.store.prune(all(&bench), 2, "test");
    let first = prune().await.unwrap();
    assert_eq!((first.jobs, first.more), (2, true));
    assert_eq!(ids(&bench).await, [1, 2, 3]);
    assert_eq!(prune().await.unwrap().jobs, 2);
    let last = prune().await.unwrap();
    assert_eq!((last.jobs, last.more), (1, false));
}

#[tokio::test]
async fn keys_outlive_their_jobs_and_go_after_their_own_time() {
    let bench = Bench::new().await;
    let keyed = |number| NewJob { idempotency_key: Some("nightly".to_owned()), ..numbered(number) };
    let id = bench.enqueue(keyed(1)).await;
    let keep = bench.enqueue(NewJob { idempotency_key: Some("kept".to_owned()), ..numbered(2) }).await;
    let claim = bench.claim_as(bench.worker, 1, None, Some(id)).await.remove(0);
    settle(&bench, claim, &completed()).await;
    bench.store.prune(all(&bench), 100, "test").await.unwrap();
    let again = bench.store.enqueue(vec![keyed(1)], "test").await.unwrap()[0];
    assert_eq!((again.id, again.created), (id, false), "what the key asked for was done");
    let insert = "INSERT INTO jobs (source, destination, idempotency_key) VALUES ('a', 'b', 'nightly') \
        ON CONFLICT DO NOTHING";
    assert_eq!(bench.sql(insert).await.unwrap(), 0, "plain SQL is told the same");
    let keys = |before: UnixMillis| Retention { keys_before: Some(before), ..Retention::default() };
    bench.hand.advance(Duration::from_secs(60));
    let made = later(&bench.clock, 0);
    let early = UnixMillis(made.0 - 600_000);
    assert_eq!(bench.store.prune(keys(early), 100, "test").await.unwrap().keys, 0, "not old enough");
    let pruned = bench.store.prune(keys(made), 100, "test").await.unwrap();
    assert_eq!((pruned.keys, pruned.jobs), (1, 0), "a key whose job is there stays");
    let anew = bench.store.enqueue(vec![keyed(1)], "test").await.unwrap()[0];
    assert!(anew.created && anew.id > keep);
}

#[tokio::test]
async fn what_would_be_removed_is_what_is_removed() {
    let bench = Bench::new().await;
    bench.enqueue(NewJob { idempotency_key: Some("waits".to_owned()), ..numbered(90) }).await;
    bench.store.cancel(&Selection::Ids(vec![1]), "test").await.unwrap();
    let running = {
        let bench = &bench;
        for number in 1..=3 {
            bench.enqueue(NewJob { idempotency_key: Some(format!("k{number}")), ..numbered(number) }).await;
        }
        let mut claims = bench.claim(3).await;
        settle(bench, claims.remove(0), &completed()).await;
        settle(bench, claims.remove(0), &gave_up(bench)).await;
        claims.remove(0)
    };
    bench.hand.advance(Duration::from_secs(1));
    let now = Some(bench.clock.now());
    let of = |completed_before, cancelled_before, failed_before| Retention {
        completed_before,
        cancelled_before,
        failed_before,
        keys_before: now,
    };
    let prunable = async |retention| bench.store.prunable(retention).await.unwrap();
    assert_eq!(prunable(Retention::default()).await, Prunable::default());
    let none = prunable(of(None, None, None)).await;
    assert_eq!(none, Prunable::default(), "keys of jobs that stay are kept");
    let each = [(of(now, None, None), 1, 0, 0), (of(None, now, None), 0, 1, 0), (of(None, None, now), 0, 0, 1)];
    for (gone, (retention, completed, cancelled, failed)) in each.into_iter().enumerate() {
        let keys = 1;
        assert_eq!(prunable(retention).await, Prunable { completed, cancelled, failed, keys });
        let all = bench.number("SELECT (SELECT COUNT(*) FROM jobs) + (SELECT COUNT(*) FROM pruned_jobs)").await;
        assert_eq!(
            (all, bench.number("SELECT COUNT(*) FROM idempotency_keys").await + i64::try_from(gone).unwrap()),
            (4, 4)
        );
        let pruned = bench.store.prune(retention, 100, "test").await.unwrap();
        assert_eq!((pruned.jobs, pruned.keys), (1, 1));
        assert_eq!(prunable(retention).await, Prunable::default());
    }
    bench.complete(running).await;
}

#[tokio::test]
async fn a_job_that_is_retried_meanwhile_stays() {
    let bench = Bench::new().await;
    bench.enqueue(numbered(1)).await;
    bench.enqueue(numbered(2)).await;
    bench.store.cancel(&Selection::Ids(vec![1, 2]), "test").await.unwrap();
    bench.hand.advance(Duration::from_secs(1));
    let (lock, retry, finish) = (
        bench.either("BEGIN IMMEDIATE", "BEGIN; LOCK TABLE jobs IN EXCLUSIVE MODE"),
        "UPDATE jobs SET state = 'pending', generation = 2, finished_at = NULL, cancel_requested_at = NULL WHERE id = 1",
        "UPDATE jobs SET state = 'cancelled', finished_at = 4000000000000 WHERE id = 1",
    );
    let prune = bench.store.prune(all(&bench), 100, "test");
    tokio::pin!(prune);
    // It has found both, and waits until it may write.
    macro_rules! meanwhile {
        ($other:expr) => {{
            let mut other = $other;
            other.execute(lock).await.unwrap();
            assert!(tokio::time::timeout(Duration::from_millis(300), &mut prune).await.is_err());
            for statement in [retry, finish, "COMMIT"] {
                other.execute(statement).await.unwrap();
            }
        }};
    }
    if bench.database.is_postgres() {
        meanwhile!(bench.foreign_session().await);
    } else {
        meanwhile!(bench.foreign().await);
    }
    assert_eq!(prune.await.unwrap().jobs, 1);
    assert_eq!(ids(&bench).await, [1]);
    assert!(bench.store.check().await.unwrap().is_empty());
}

#[tokio::test]
async fn nobody_removes_history_in_another_way() {
    let bench = Bench::new().await;
    let running = one_of_each(&bench).await;
    bench.store.prune(Retention { failed_before: None, ..all(&bench) }, 100, "test").await.unwrap();
    for (statement, word) in [
        ("DELETE FROM jobs WHERE id = 2", "not deleted by hand"),
        ("DELETE FROM job_events WHERE job_id = 2", "never deleted by hand"),
        ("DELETE FROM transfers WHERE job_id = 2", "never deleted by hand"),
        ("DELETE FROM prunes", "never deleted by hand"),
        ("DELETE FROM pruned_jobs", "never deleted by hand"),
        ("UPDATE prunes SET actor = 'nobody'", "never changed"),
        ("UPDATE pruned_jobs SET state = 'failed'", "never changed"),
        ("INSERT INTO pruned_jobs (job_id, prune_id, state) VALUES (1, 1, 'completed')", "records are never replaced"),
        ("INSERT INTO pruned_jobs (job_id, prune_id, state) VALUES (2, 99, 'failed')", "no such prune"),
        ("INSERT INTO pruned_jobs (job_id, prune_id, state) VALUES (4, 1, 'pending')", "only finished jobs are pruned"),
        ("INSERT INTO pruned_jobs (job_id, prune_id, state) VALUES (6, 1, 'running')", "only finished jobs are pruned"),
        (
            "INSERT INTO pruned_jobs (job_id, prune_id, state) VALUES (2, 1, 'completed')",
            "only finished jobs are pruned",
        ),
        (
            "INSERT INTO pruned_jobs (job_id, prune_id, state) VALUES (4711, 1, 'failed')",
            "only finished jobs are pruned",
        ),
    ] {
        let error = bench.sql(statement).await.unwrap_err();
        assert!(error.contains(word), "{statement}: {error}");
    }
    // A job that is on record as pruned does not come to life between that and its removal.
    bench.sql("INSERT INTO pruned_jobs (job_id, prune_id, state) VALUES (2, 1, 'failed')").await.unwrap();
    let error = bench.sql("UPDATE jobs SET state = 'pending' WHERE id = 2").await.unwrap_err();
    assert!(error.contains("being pruned"), "{error}");
    bench.complete(running).await;
}

#[tokio::test]
async fn a_restored_database_gives_nothing_to_workers_of_the_lost_time() {
    let bench = Bench::new().await;
    let lost = one_of_each(&bench).await;
    let before: Vec<i64> = epochs(&bench).await;
    bench.store.worker_start(worker(&bench)).await.unwrap();
    let fence = Fence { job: 6, epoch: 1 };
    bench.store.temp_register("/t/a".to_owned(), bench.worker, fence).await.unwrap();
    let restored = bench.store.invalidate("cli:me").await.unwrap();
    assert_eq!(restored, Restored { jobs: 6, requeued: 1, workers: 1, temp_files: 1 });
    for (old, new) in before.iter().zip(epochs(&bench).await) {
        assert!(new > old + 1000, "far beyond what anybody can hold: {old} to {new}");
    }
    let job = bench.job(6).await;
    assert_eq!((job.state, job.attempt, job.worker), (State::Scheduled, 0, None));
    assert_eq!((bench.state(1).await, bench.state(4).await), (State::Completed, State::Pending));
    assert_eq!(bench.store.renew(lost.fence(), TTL, Work::default()).await.unwrap(), Held::Lost);
    let settled = bench.store.settle(lost, &completed(), Work::default(), &[]).await.unwrap();
    assert_eq!(settled, Settled::LeaseLost);
    assert!(bench.store.workers().await.unwrap().is_empty());
    assert!(bench.store.temp_workers().await.unwrap().is_empty());
    let recorded = "SELECT COUNT(*) FROM job_events WHERE reason = 'restored' AND actor = 'cli:me'";
    assert_eq!(bench.number(recorded).await, 6);
    assert_eq!(
        bench.number("SELECT COUNT(*) FROM restores WHERE actor = 'cli:me' AND finished_at IS NOT NULL").await,
        1
    );
    assert!(bench.store.check().await.unwrap().is_empty());
    bench.store.due().await.unwrap();
    let claim = bench.claim_as(bench.worker, 1, None, Some(6)).await.remove(0);
    bench.complete(claim).await;
}

async fn epochs(bench: &Bench) -> Vec<i64> {
    let mut epochs = Vec::new();
    for id in ids(bench).await {
        epochs.push(bench.job(id).await.lease_epoch);
    }
    epochs
}

fn worker(bench: &Bench) -> WorkerRow {
    WorkerRow {
        id: bench.worker.to_string(),
        host: "here".to_owned(),
        pid: 1,
        machine_id: "m".to_owned(),
        boot_id: "b".to_owned(),
        state_dir: "/state".to_owned(),
        state_device: 1,
        state_inode: 1,
        version: "0".to_owned(),
        lease_ttl_ms: 30_000,
        queue: None,
        concurrency: 3,
        started_at: bench.clock.now(),
        seen_at: bench.clock.now(),
    }
}

#[tokio::test]
async fn epochs_jump_in_a_restore_alone_and_restores_are_on_record() {
    let bench = Bench::new().await;
    bench.enqueue(numbered(1)).await;
    bench.store.invalidate("cli:me").await.unwrap();
    for (statement, word) in [
        ("UPDATE jobs SET lease_epoch = lease_epoch + 1000000", "rise by one"),
        ("UPDATE jobs SET lease_epoch = lease_epoch + 1", "with the state alone"),
        ("UPDATE restores SET actor = 'nobody'", "never changed"),
        ("UPDATE restores SET finished_at = NULL", "never changed"),
        ("DELETE FROM restores", "never deleted by hand"),
        ("INSERT INTO restores (at, actor, epochs) VALUES (1, 'x', 0)", "epochs"),
    ] {
        let error = bench.sql(statement).await.unwrap_err();
        assert!(error.contains(word), "{statement}: {error}");
    }
}

#[tokio::test]
async fn a_backup_is_a_database_of_its_own_and_overwrites_nothing() {
    let bench = Bench::new().await;
    let running = one_of_each(&bench).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("copy.db");
    if bench.database.url().starts_with("postgres") {
        let error = bench.store.backup(&file).await.unwrap_err();
        assert!(matches!(&error, Error::Invalid(message) if message.contains("pg_dump")), "{error:?}");
        return;
    }
    // Others work on it meanwhile.
    let (backup, enqueued) = tokio::join!(bench.store.backup(&file), bench.store.enqueue(vec![numbered(9)], "test"));
    backup.unwrap();
    assert!(enqueued.unwrap()[0].created);
    let error = bench.store.backup(&file).await.unwrap_err();
    assert!(matches!(&error, Error::Invalid(message) if message.contains("exists")), "{error:?}");
    let url = format!("sqlite:{}", file.display()).parse().unwrap();
    let copy = freightliner::store::Store::open(&url, bench.clock.clone()).await.unwrap();
    let stats = copy.stats().await.unwrap();
    assert_eq!((stats.completed, stats.failed, stats.cancelled, stats.running, stats.scheduled), (1, 1, 1, 1, 1));
    assert!(copy.check().await.unwrap().is_empty());
    // Who restores it is safe from the one who still works on the original.
    copy.invalidate("cli:me").await.unwrap();
    assert_eq!(copy.renew(running.fence(), TTL, Work::default()).await.unwrap(), Held::Lost);
    bench.complete(running).await;
}

#[tokio::test]
async fn a_backup_that_cannot_be_written_leaves_nothing() {
    let bench = Bench::new().await;
    bench.enqueue(numbered(1)).await;
    let folder = tempfile::tempdir().unwrap();
    let named = |name: &str| folder.path().join(name);
    let error = bench.store.backup(&named("absent/copy.db")).await.unwrap_err();
    if bench.database.url().starts_with("postgres") {
        assert!(matches!(error, Error::Invalid(_)), "{error:?}");
        return;
    }
    assert!(matches!(&error, Error::Backend { message, .. } if message.contains("No such file")), "{error:?}");
    // One that nobody waits for any more is given up.
    let given_up = tokio::time::timeout(std::time::Duration::ZERO, bench.store.backup(&named("copy.db"))).await;
    assert!(given_up.is_err());
    crate::support::eventually("the end of the copy", || {
        (named("copy.db").exists() || std::fs::read_dir(folder.path()).unwrap().next().is_none()).then_some(())
    });
    assert!(!named("absent").exists());
}

#[tokio::test]
async fn tending_a_small_database_does_nothing() {
    let bench = Bench::new().await;
    bench.enqueue(numbered(1)).await;
    assert!(!bench.store.tend().await.unwrap());
}
