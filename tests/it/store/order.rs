//! The order of copies to one target when the newest result is taken back or removed while an older job waits.

use super::attempts::fail;
use super::{Bench, TTL, copy, later};
use freightliner::job::{JobId, NewJob};
use freightliner::store::{Claim, Confirmed, QueueChange, Retention, Selection, Work};
use std::time::Duration;

const TARGET: &str = "b.example/x:latest";

/// How the older job comes to be late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Late {
    /// It waits for its next attempt.
    Retry,
    Paused,
    /// Paused before anybody has looked at its references.
    PausedUnparsed,
    QueuePaused,
    /// A row by plain SQL that nobody has looked at yet.
    Unparsed,
    /// It runs, but has not asked yet whether it may write.
    Running,
}

const LATE: [Late; 6] =
    [Late::Retry, Late::Paused, Late::PausedUnparsed, Late::QueuePaused, Late::Unparsed, Late::Running];

/// How a result stops being `completed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaves {
    Retried,
    RetriedBySql,
    Pruned,
}

const LEAVES: [Leaves; 3] = [Leaves::Retried, Leaves::RetriedBySql, Leaves::Pruned];

fn these(ids: &[JobId]) -> Selection {
    Selection::Ids(ids.to_vec())
}

async fn only(bench: &Bench, id: JobId) -> Claim {
    bench.claim_as(bench.worker, 1, None, Some(id)).await.remove(0)
}

async fn confirm(bench: &Bench, claim: &Claim) -> Confirmed {
    bench.store.confirm(claim, TTL, Work::default()).await.unwrap()
}

async fn marks(bench: &Bench) -> i64 {
    bench.number("SELECT COUNT(*) FROM written_targets").await
}

async fn prune(bench: &Bench) -> u64 {
    let soon = Some(later(&bench.clock, 1));
    let all = Retention { completed_before: soon, cancelled_before: soon, failed_before: soon, keys_before: None };
    bench.store.prune(all, 100, "test").await.unwrap().jobs
}

/// Asks for the older copy.
async fn older(bench: &Bench, late: Late) -> JobId {
    if matches!(late, Late::Unparsed | Late::PausedUnparsed) {
        let insert = format!("INSERT INTO jobs (source, destination) VALUES ('a.example/x:1', '{TARGET}')");
        bench.sql(&insert).await.unwrap();
        let id = bench.number("SELECT MAX(id) FROM jobs").await;
        if late == Late::PausedUnparsed {
            bench.store.pause(&these(&[id]), "test").await.unwrap();
        }
        return id;
    }
    let queue = if late == Late::QueuePaused { "held" } else { "default" };
    let job = NewJob { queue: queue.to_owned(), priority: 200, ..copy("a.example/x:1", TARGET) };
    let id = bench.enqueue(job).await;
    match late {
        Late::Retry => {
            let claim = only(bench, id).await;
            fail(bench, claim, Some(Duration::from_secs(60))).await;
        }
        Late::Paused => drop(bench.store.pause(&these(&[id]), "test").await.unwrap()),
        Late::QueuePaused => drop(bench.store.queue_change("held", QueueChange::Pause, "test").await.unwrap()),
        _ => {}
    }
    id
}

/// What held the older copy back is over: it runs.
async fn at_last(bench: &Bench, id: JobId, late: Late) -> Claim {
    match late {
        Late::Paused | Late::PausedUnparsed => drop(bench.store.resume(&these(&[id]), "test").await.unwrap()),
        Late::QueuePaused => drop(bench.store.queue_change("held", QueueChange::Resume, "test").await.unwrap()),
        Late::Retry | Late::Unparsed | Late::Running => {}
    }
    bench.hand.advance(Duration::from_secs(60));
    bench.store.due().await.unwrap();
    bench.store.intake().await.unwrap();
    only(bench, id).await
}

/// Asks for a newer copy, and does it.
async fn newer(bench: &Bench, source: &str) -> JobId {
    let id = bench.enqueue(copy(source, TARGET)).await;
    let claim = only(bench, id).await;
    assert_eq!(confirm(bench, &claim).await, Confirmed::Yes);
    bench.complete(claim).await;
    id
}

async fn leave(bench: &Bench, id: JobId, leaves: Leaves) {
    match leaves {
        Leaves::Retried => assert_eq!(bench.store.retry(&these(&[id]), "test").await.unwrap(), 1),
        Leaves::RetriedBySql => {
            let update = format!("UPDATE jobs SET state = 'pending' WHERE id = {id}");
            assert_eq!(bench.sql(&update).await.unwrap(), 1);
        }
        Leaves::Pruned => assert_eq!(prune(bench).await, 1),
    }
}

#[tokio::test]
async fn a_result_that_is_taken_back_or_removed_stands_before_older_jobs() {
    for late in LATE {
        for leaves in LEAVES {
            let bench = Bench::new().await;
            let old = older(&bench, late).await;
            let new = newer(&bench, "a.example/x:2").await;
            let running = if late == Late::Running { Some(at_last(&bench, old, late).await) } else { None };
            leave(&bench, new, leaves).await;
            assert_eq!(marks(&bench).await, 1, "{late:?}, {leaves:?}");
            let claim = match running {
                Some(claim) => claim,
                None => at_last(&bench, old, late).await,
            };
            assert_eq!(confirm(&bench, &claim).await, Confirmed::Superseded { by: new }, "{late:?}, {leaves:?}");
            fail(&bench, claim, None).await;
            // An operator who insists gets what they ask for.
            bench.store.retry(&these(&[old]), "test").await.unwrap();
            let claim = only(&bench, old).await;
            assert_eq!(confirm(&bench, &claim).await, Confirmed::Yes, "{late:?}, {leaves:?}");
            bench.complete(claim).await;
            assert!(bench.store.check().await.unwrap().is_empty());
        }
    }
}

#[tokio::test]
async fn a_retried_job_and_all_later_ones_may_write_again() {
    let bench = Bench::new().await;
    older(&bench, Late::QueuePaused).await;
    let new = newer(&bench, "a.example/x:2").await;
    leave(&bench, new, Leaves::Retried).await;
    assert_eq!(marks(&bench).await, 1);
    let newest = newer(&bench, "a.example/x:3").await;
    // Again and again.
    for _ in 0..2 {
        let claim = only(&bench, new).await;
        assert_eq!(confirm(&bench, &claim).await, Confirmed::Yes);
        bench.complete(claim).await;
        leave(&bench, new, Leaves::RetriedBySql).await;
    }
    assert_eq!(bench.number("SELECT job_id FROM written_targets").await, new);
    leave(&bench, newest, Leaves::Retried).await;
    assert_eq!(
        bench.number("SELECT job_id FROM written_targets").await,
        new,
        "the last retry of it was asked for last"
    );
}

#[tokio::test]
async fn of_many_results_the_newest_counts_in_whatever_order_they_go() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let bench = Bench::new().await;
        let old = older(&bench, Late::Paused).await;
        let mut results = Vec::new();
        for number in 2..5 {
            results.push(newer(&bench, &format!("a.example/x:{number}")).await);
        }
        for which in order {
            leave(&bench, results[which], Leaves::RetriedBySql).await;
        }
        let claim = at_last(&bench, old, Late::Paused).await;
        assert_eq!(confirm(&bench, &claim).await, Confirmed::Superseded { by: results[2] }, "{order:?}");
    }
    // All at once.
    let bench = Bench::new().await;
    let old = older(&bench, Late::Paused).await;
    let mut new = 0;
    for number in 2..5 {
        new = newer(&bench, &format!("a.example/x:{number}")).await;
    }
    assert_eq!(prune(&bench).await, 3);
    let claim = at_last(&bench, old, Late::Paused).await;
    assert_eq!(confirm(&bench, &claim).await, Confirmed::Superseded { by: new });
}

#[tokio::test]
async fn nothing_is_kept_of_targets_that_nobody_waits_for() {
    let bench = Bench::new().await;
    // One that is for later will be newer, and another target is another matter.
    let tomorrow = NewJob { run_at: Some(later(&bench.clock, 86_400)), ..copy("a.example/x:9", TARGET) };
    bench.enqueue(tomorrow).await;
    bench.enqueue(copy("a.example/x:1", "b.example/y:1")).await;
    for leaves in LEAVES {
        let new = newer(&bench, "a.example/x:2").await;
        leave(&bench, new, leaves).await;
        assert_eq!(marks(&bench).await, 0, "{leaves:?}");
        if leaves != Leaves::Pruned {
            bench.store.cancel(&these(&[new]), "test").await.unwrap();
            assert_eq!(prune(&bench).await, 1);
        }
    }
    // Rows that were inserted later than the result was asked for, and have not been looked at, are newer.
    let new = newer(&bench, "a.example/x:2").await;
    bench.sql(&format!("INSERT INTO jobs (source, destination) VALUES ('a.example/x:3', '{TARGET}')")).await.unwrap();
    leave(&bench, new, Leaves::RetriedBySql).await;
    assert_eq!(marks(&bench).await, 0);
    bench.store.intake().await.unwrap();

    // What is kept goes when nobody waits any more, with the next prune.
    let bench = Bench::new().await;
    let old = older(&bench, Late::Paused).await;
    newer(&bench, "a.example/x:2").await;
    assert_eq!(prune(&bench).await, 1);
    assert_eq!(marks(&bench).await, 1);
    bench.enqueue(copy("a.example/x:1", "b.example/y:1")).await;
    let claim = bench.claim_one().await;
    bench.complete(claim).await;
    assert_eq!(prune(&bench).await, 1);
    assert_eq!(marks(&bench).await, 1, "somebody waits still");
    bench.store.cancel(&these(&[old]), "test").await.unwrap();
    assert_eq!(prune(&bench).await, 1);
    assert_eq!(marks(&bench).await, 0);
}

#[tokio::test]
async fn a_request_is_newer_than_all_that_retention_removed() {
    for retried in [false, true] {
        let bench = Bench::new().await;
        let old = older(&bench, if retried { Late::Retry } else { Late::QueuePaused }).await;
        newer(&bench, "a.example/x:2").await;
        // The newest events go with it.
        assert_eq!(prune(&bench).await, 1);
        if retried {
            bench.store.retry(&these(&[old]), "test").await.unwrap();
        } else {
            let again = NewJob { queue: "held".to_owned(), priority: 200, ..copy("a.example/x:1", TARGET) };
            let again = bench.store.enqueue(vec![again], "test").await.unwrap()[0];
            assert_eq!((again.id, again.created), (old, false));
            bench.store.queue_change("held", QueueChange::Resume, "test").await.unwrap();
        }
        let claim = only(&bench, old).await;
        assert_eq!(confirm(&bench, &claim).await, Confirmed::Yes);
    }
}

#[tokio::test]
async fn nobody_writes_the_order_by_hand() {
    let bench = Bench::new().await;
    let old = older(&bench, Late::Paused).await;
    let new = newer(&bench, "a.example/x:2").await;
    let insert = |verb: &str, job: JobId, seq: &str| {
        format!(
            "{verb} INTO written_targets (dest_key, dest_registry, asked_seq, job_id) \
            SELECT '{TARGET}', 'b.example', {seq}, {job}"
        )
    };
    for statement in [
        insert("INSERT", 4711, "4711"),
        insert("INSERT", new, "4711"),
        insert("INSERT", old, &format!("(SELECT asked_seq FROM jobs WHERE id = {old})")),
    ] {
        let error = bench.sql(&statement).await.unwrap_err();
        assert!(error.contains("recorded by the database alone"), "{statement}: {error}");
    }
    leave(&bench, new, Leaves::Retried).await;
    let update = "UPDATE written_targets SET";
    for statement in [
        format!("{update} asked_seq = asked_seq - 1"),
        format!("{update} asked_seq = asked_seq + 1"),
        format!("{update} job_id = {old}"),
        format!("{update} dest_key = 'b.example/y:1'"),
        bench.either(&insert("INSERT OR REPLACE", new, "1"), "TRUNCATE written_targets").to_owned(),
    ] {
        let error = bench.sql(&statement).await.unwrap_err();
        assert!(error.contains("recorded by the database alone"), "{statement}: {error}");
    }
    bench.sql("DELETE FROM written_targets").await.unwrap();
    assert_eq!(marks(&bench).await, 1, "somebody waits");
    let claim = at_last(&bench, old, Late::Paused).await;
    assert_eq!(confirm(&bench, &claim).await, Confirmed::Superseded { by: new });
    fail(&bench, claim, None).await;
    bench.sql("DELETE FROM written_targets").await.unwrap();
    assert_eq!(marks(&bench).await, 0, "nobody needs it");
}

/// Conflict clauses of a statement hold in its triggers too.
#[tokio::test]
async fn no_way_of_writing_an_update_gets_around_it() {
    for verb in ["UPDATE OR IGNORE", "UPDATE OR REPLACE", "UPDATE OR FAIL", "UPDATE OR ROLLBACK"] {
        let bench = Bench::new().await;
        if bench.database.is_postgres() {
            return;
        }
        let old = older(&bench, Late::Paused).await;
        let first = newer(&bench, "a.example/x:2").await;
        let second = newer(&bench, "a.example/x:3").await;
        for (id, kept) in [(second, second), (first, second)] {
            bench.sql(&format!("{verb} jobs SET state = 'pending' WHERE id = {id}")).await.unwrap();
            assert_eq!(bench.number("SELECT job_id FROM written_targets").await, kept, "{verb}");
        }
        let claim = only(&bench, second).await;
        bench.complete(claim).await;
        bench.sql(&format!("{verb} jobs SET state = 'pending' WHERE id = {second}")).await.unwrap();
        let claim = at_last(&bench, old, Late::Paused).await;
        assert_eq!(confirm(&bench, &claim).await, Confirmed::Superseded { by: second }, "{verb}");
    }
}
