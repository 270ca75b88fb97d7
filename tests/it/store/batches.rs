//! Batches in the store: written down once, listed under the fence of the job that lists, each destination once.

use super::{Bench, copy};
use freightliner::clock::UnixMillis;
use freightliner::job::batch::{Batch, BatchId, BatchKind, BatchState, Listed, NewBatch};
use freightliner::job::{NewJob, Report, State};
use freightliner::store::{Claim, Fence, JobFilter, Outcome, Retention, Selection};

fn new(kind: BatchKind, rules: Option<&str>) -> NewBatch {
    NewBatch {
        id: BatchId::now_v7(),
        kind,
        name: None,
        source: "a.example/x".to_owned(),
        destination: "b.example/y".to_owned(),
        rules: rules.map(str::to_owned),
        queue: "slow".to_owned(),
        priority: 7,
        max_attempts: 3,
        run_at: None,
    }
}

async fn made(bench: &Bench) -> (BatchId, Claim) {
    let batch = new(BatchKind::Tree, Some("{\"rules\":[]}"));
    let id = batch.id;
    bench.store.batch_add(batch, "test").await.unwrap();
    let claim = bench.claim(1).await.pop().expect("the job that lists");
    (id, claim)
}

async fn look(bench: &Bench, id: BatchId) -> Batch {
    bench.store.batches(Some(id), None, 1).await.unwrap().pop().expect("the batch")
}

fn copies(numbers: std::ops::Range<u32>) -> Vec<NewJob> {
    numbers.map(|n| copy(&format!("a.example/x/r{n}:1"), &format!("b.example/y/r{n}:1"))).collect()
}

fn listed(repository: &str, failure: Option<(&str, &str)>) -> Listed {
    let failure = failure.map(|(class, message)| (class.to_owned(), message.to_owned()));
    Listed { rule: 0, repository: repository.to_owned(), tags: 5, kept: 2, failure }
}

#[tokio::test]
async fn a_batch_is_written_down_once_with_the_job_that_lists_it() {
    let bench = Bench::new().await;
    let batch = new(BatchKind::Tree, Some("{\"rules\":[]}"));
    let id = batch.id;
    let job = bench.store.batch_add(batch.clone(), "test").await.unwrap();
    assert_eq!(bench.store.batch_add(batch, "somebody").await.unwrap(), job);
    let found = look(&bench, id).await;
    assert_eq!((found.state, found.listing, found.expand_job), (BatchState::Pending, Some(State::Pending), Some(job)));
    assert_eq!((found.created_by.as_str(), found.jobs.total), ("test", 0));
    let row = bench.store.job(job).await.unwrap().unwrap();
    assert_eq!((row.queue.as_str(), row.priority, row.max_attempts), ("slow", 7, 3));
    assert_eq!(row.batch_id, Some(id.to_string()));
    assert_eq!(bench.store.batch_rules(id).await.unwrap().as_deref(), Some("{\"rules\":[]}"));
    assert_eq!(bench.store.batch_rules(BatchId::now_v7()).await.unwrap(), None);
    assert_eq!(bench.store.batches(Some(BatchId::now_v7()), None, 9).await.unwrap(), []);
    let later = NewBatch { run_at: Some(super::later(&bench.clock, 60)), ..new(BatchKind::Tags, None) };
    let job = bench.store.batch_add(later, "test").await.unwrap();
    assert_eq!(bench.store.job(job).await.unwrap().unwrap().state, State::Scheduled);
}

#[tokio::test]
async fn batches_are_listed_newest_first_page_by_page() {
    let bench = Bench::new().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        let batch = new(BatchKind::Tree, None);
        ids.push(batch.id);
        bench.store.batch_add(batch, "test").await.unwrap();
    }
    ids.sort();
    ids.reverse();
    let first = bench.store.batches(None, None, 3).await.unwrap();
    assert_eq!(first.iter().map(|batch| batch.id).collect::<Vec<_>>(), ids[..3]);
    let rest = bench.store.batches(None, Some(ids[2]), 9).await.unwrap();
    assert_eq!(rest.iter().map(|batch| batch.id).collect::<Vec<_>>(), ids[3..]);
}

#[tokio::test]
async fn copies_are_made_once_under_the_fence() {
    let bench = Bench::new().await;
    let (id, claim) = made(&bench).await;
    let fence = claim.fence();
    let taken = bench.store.batch_take(fence, id, copies(0..20), "test").await.unwrap().unwrap();
    assert_eq!((taken.made, taken.clashes.len()), (20, 0));
    let taken = bench.store.batch_take(fence, id, copies(10..30), "test").await.unwrap().unwrap();
    assert_eq!(taken.made, 10);
    let clash = vec![copy("a.example/other:1", "b.example/y/r3:1")];
    let taken = bench.store.batch_take(fence, id, clash, "test").await.unwrap().unwrap();
    assert_eq!(taken.made, 0);
    let (to, one, other) = &taken.clashes[0];
    assert_eq!(
        (to.as_str(), one.as_str(), other.as_str()),
        ("b.example/y/r3:1", "a.example/x/r3:1", "a.example/other:1")
    );
    let stale = Fence { epoch: fence.epoch - 1, ..fence };
    assert_eq!(bench.store.batch_take(stale, id, copies(50..51), "test").await.unwrap(), None);
    let found = look(&bench, id).await;
    assert_eq!((found.jobs.total, found.jobs.pending, found.state), (30, 30, BatchState::Running));
    let filter = JobFilter { batch: Some(id.to_string()), ..JobFilter::default() };
    let jobs = bench.store.jobs(&filter, None, 100).await.unwrap();
    assert_eq!(jobs.len(), 31);
    assert!(jobs.iter().all(|job| job.queue == "slow" && job.priority == 7 && job.max_attempts == 3));
    assert!(bench.store.check().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_batch_that_was_called_off_takes_no_more_until_it_goes_on() {
    let bench = Bench::new().await;
    let (id, claim) = made(&bench).await;
    assert!(bench.store.batch_stop(id, true).await.unwrap());
    assert!(!bench.store.batch_stop(id, true).await.unwrap());
    assert_eq!(bench.store.batch_take(claim.fence(), id, copies(0..1), "test").await.unwrap(), None);
    assert!(!bench.store.batch_listed(claim.fence(), id, listed("a.example/x", None)).await.unwrap());
    assert!(bench.store.batch_stop(id, false).await.unwrap());
    assert!(!bench.store.batch_stop(id, false).await.unwrap());
    assert!(!bench.store.batch_stop(BatchId::now_v7(), true).await.unwrap());
    assert!(bench.store.batch_take(claim.fence(), id, copies(0..1), "test").await.unwrap().is_some());
}

#[tokio::test]
async fn what_became_of_repositories_is_written_down_and_changes_when_they_are_listed_again() {
    let bench = Bench::new().await;
    let (id, claim) = made(&bench).await;
    let fence = claim.fence();
    let bad = listed("a.example/x/b", Some(("denied", "not yours")));
    assert!(bench.store.batch_listed(fence, id, bad.clone()).await.unwrap());
    assert!(bench.store.batch_listed(fence, id, listed("a.example/x/a", None)).await.unwrap());
    assert_eq!(bench.store.batch_repositories(id).await.unwrap(), [listed("a.example/x/a", None), bad]);
    let found = look(&bench, id).await;
    assert_eq!((found.repositories, found.repositories_failed), (2, 1));
    assert!(bench.store.batch_listed(fence, id, listed("a.example/x/b", None)).await.unwrap());
    assert_eq!(look(&bench, id).await.repositories_failed, 0);
    let stale = Fence { epoch: fence.epoch - 1, ..fence };
    assert!(!bench.store.batch_listed(stale, id, listed("a.example/x/c", None)).await.unwrap());
}

#[tokio::test]
async fn the_rules_of_a_mirror_are_said_once() {
    let bench = Bench::new().await;
    let batch = NewBatch { name: Some("nightly".to_owned()), ..new(BatchKind::Mirror, None) };
    let id = batch.id;
    bench.store.batch_add(batch, "test").await.unwrap();
    assert_eq!(bench.store.batch_rules(id).await.unwrap(), None);
    let claim = bench.claim(1).await.pop().unwrap();
    let fence = claim.fence();
    assert!(bench.store.batch_rules_say(fence, "{\"rules\":[]}".to_owned()).await.unwrap());
    assert!(bench.store.batch_rules_say(fence, "{\"rules\":[1]}".to_owned()).await.unwrap());
    assert_eq!(bench.store.batch_rules(id).await.unwrap().as_deref(), Some("{\"rules\":[]}"));
    let stale = Fence { epoch: fence.epoch - 1, ..fence };
    assert!(!bench.store.batch_rules_say(stale, "{}".to_owned()).await.unwrap());
    let refused = bench.sql(&format!("UPDATE batches SET rules = '{{}}' WHERE id = '{id}'")).await.unwrap_err();
    assert!(refused.contains("written once"), "{refused}");
    let refused = bench.sql(&format!("UPDATE batches SET source = 'z' WHERE id = '{id}'")).await.unwrap_err();
    assert!(refused.contains("never changes"), "{refused}");
}

#[tokio::test]
async fn jobs_of_a_batch_that_may_be_claimed_are_told_and_when_it_is_over() {
    let bench = Bench::new().await;
    let (id, claim) = made(&bench).await;
    bench.store.batch_take(claim.fence(), id, copies(0..3), "test").await.unwrap().unwrap();
    let other = copy("a.example/x/r1:1", "b.example/y/r1:1");
    bench.store.enqueue(vec![NewJob { joins_equal: false, ..other }], "test").await.unwrap();
    let waiting = bench.store.batch_waiting(id, 10).await.unwrap();
    assert_eq!(waiting.len(), 3);
    assert_eq!(bench.store.batch_waiting(id, 2).await.unwrap(), waiting[..2]);
    assert!(bench.store.batch_busy(id).await.unwrap());
    bench.store.queue_change("slow", freightliner::store::QueueChange::Pause, "test").await.unwrap();
    assert_eq!(bench.store.batch_waiting(id, 10).await.unwrap(), Vec::<i64>::new());
    // Somebody else writes one of the targets.
    let running = bench.claim(5).await;
    assert_eq!(running.len(), 1);
    bench.store.queue_change("slow", freightliner::store::QueueChange::Resume, "test").await.unwrap();
    assert_eq!(bench.store.batch_waiting(id, 10).await.unwrap().len(), 2);
    let filter = JobFilter { batch: Some(id.to_string()), state: Some(State::Pending), ..JobFilter::default() };
    assert_eq!(bench.store.cancel(&Selection::Filter(filter), "test").await.unwrap(), 3);
    assert!(bench.store.batch_busy(id).await.unwrap(), "it is still being listed");
    let done = Outcome::Completed(Report::default());
    bench.store.settle(claim, &done, freightliner::store::Work::default(), &[]).await.unwrap();
    assert!(!bench.store.batch_busy(id).await.unwrap());
    assert_eq!(look(&bench, id).await.state, BatchState::Cancelled);
    let views = bench.sql(&format!("UPDATE queues SET paused_at = NULL WHERE '{id}' IN (SELECT id FROM audit_batches WHERE state = 'cancelled')")).await;
    assert!(views.is_ok(), "{views:?}");
}

#[tokio::test]
async fn batches_and_times_of_schedules_go_when_their_jobs_are_gone() {
    let bench = Bench::new().await;
    let (id, claim) = made(&bench).await;
    bench.store.batch_listed(claim.fence(), id, listed("a.example/x/a", None)).await.unwrap();
    bench.complete(claim).await;
    let kept = new(BatchKind::Tags, None);
    bench.store.batch_add(kept.clone(), "test").await.unwrap();
    let schedule = "INSERT INTO schedules (name, timing, source, destination) VALUES ('s', '@hourly', 'a.example/x', 'b.example/x')";
    bench.sql(schedule).await.unwrap();
    let time = |at: i64, job: &str| {
        format!(
            "INSERT INTO schedule_occurrences (schedule_id, at, outcome, job_id, decided_at, actor) VALUES (1, {at}, 'fired', {job}, {at}, 'x')"
        )
    };
    let now = bench.clock.now().0;
    let still = bench.enqueue(copy("a.example/z:1", "b.example/z:1")).await;
    for statement in [time(1000, "77"), time(2000, &still.to_string()), time(now, "78")] {
        bench.sql(&statement).await.unwrap();
    }
    for at in [2000, now] {
        let refused = bench.sql(&format!("DELETE FROM schedule_occurrences WHERE at = {at}")).await.unwrap_err();
        assert!(refused.contains("never deleted by hand"), "{refused}");
    }
    let later = UnixMillis(now + 60_000);
    let retention = Retention { completed_before: Some(later), keys_before: Some(later), ..Retention::default() };
    bench.store.prune(retention, 100, "test").await.unwrap();
    bench.store.prune(Retention { keys_before: Some(UnixMillis(now - 1)), ..retention }, 100, "test").await.unwrap();
    let left = bench.store.batches(None, None, 9).await.unwrap();
    assert_eq!(left.iter().map(|batch| batch.id).collect::<Vec<_>>(), [kept.id]);
    assert_eq!(bench.number("SELECT COUNT(*) FROM batch_repositories").await, 0);
    assert!(bench.number("SELECT COUNT(*) FROM schedule_occurrences WHERE at = 1000").await == 0);
    assert_eq!(bench.number("SELECT COUNT(*) FROM schedule_occurrences WHERE at = 2000").await, 1);
}

#[tokio::test]
async fn a_copy_of_a_batch_stands_for_no_other_request() {
    let bench = Bench::new().await;
    let (id, claim) = made(&bench).await;
    bench.store.batch_take(claim.fence(), id, copies(0..1), "test").await.unwrap().unwrap();
    let wish = NewJob { queue: "slow".to_owned(), ..copies(0..1).remove(0) };
    let first = bench.store.enqueue(vec![wish.clone()], "test").await.unwrap()[0];
    assert!(first.created, "the batch may be called off");
    let again = bench.store.enqueue(vec![wish], "test").await.unwrap()[0];
    assert_eq!((again.id, again.created), (first.id, false));
}

#[tokio::test]
async fn a_hidden_batch_is_in_no_list() {
    let bench = Bench::new().await;
    let (id, claim) = made(&bench).await;
    let job = claim.job.id;
    bench.complete(claim).await;
    assert!(bench.store.batch_hide(id).await.unwrap());
    assert!(!bench.store.batch_hide(id).await.unwrap() && !bench.store.batch_hide(BatchId::now_v7()).await.unwrap());
    assert_eq!(bench.store.batches(Some(id), None, 1).await.unwrap(), []);
    assert_eq!(bench.state(job).await, State::Completed);
}
