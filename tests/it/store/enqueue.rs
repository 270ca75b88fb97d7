//! Into the queue: idempotency keys, equal jobs, times, bare rows.

use super::{Bench, copy, later, numbered};
use freightliner::job::{CopyOptions, NewJob, State};
use freightliner::store::{Error, JobFilter, Selection};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::time::Duration;

#[tokio::test]
async fn an_equal_job_that_waits_stands_for_a_new_one() {
    let bench = Bench::new().await;
    let first = bench.enqueue(copy("alpine:3.20", "b.example/alpine:3.20")).await;
    // Another spelling of the same.
    let mut equal = copy("docker.io/library/alpine:3.20", "b.example/alpine:3.20");
    equal.priority = 10;
    let again = bench.store.enqueue(vec![equal], "test").await.unwrap()[0];
    assert_eq!((again.id, again.created), (first, false));
    assert_eq!(bench.job(first).await.priority, 10, "the better priority is taken");
    let mut worse = copy("alpine:3.20", "b.example/alpine:3.20");
    worse.priority = 500;
    bench.store.enqueue(vec![worse], "test").await.unwrap();
    assert_eq!(bench.job(first).await.priority, 10);
    // Other options, another queue, another target: other jobs.
    let forced = CopyOptions { force: true, ..CopyOptions::default() };
    bench.enqueue(NewJob::parse("alpine:3.20", "b.example/alpine:3.20", forced, Path::new("/")).unwrap()).await;
    bench.enqueue(NewJob { queue: "slow".to_owned(), ..copy("alpine:3.20", "b.example/alpine:3.20") }).await;
    bench.enqueue(copy("alpine:3.20", "b.example/alpine:3")).await;
}

#[tokio::test]
async fn a_running_job_and_one_for_later_never_stand_for_a_new_one() {
    let bench = Bench::new().await;
    let first = bench.enqueue(numbered(1)).await;
    let claim = bench.claim_one().await;
    let second = bench.enqueue(numbered(1)).await;
    assert_ne!(first, second);
    bench.complete(claim).await;
    let tomorrow = NewJob { run_at: Some(later(&bench.clock, 86_400)), ..numbered(2) };
    let third = bench.enqueue(tomorrow).await;
    assert_eq!(bench.state(third).await, State::Scheduled);
    let fourth = bench.enqueue(numbered(2)).await;
    assert_ne!(third, fourth);
}

#[tokio::test]
async fn a_job_that_waits_for_a_retry_takes_the_earlier_time() {
    let bench = Bench::new().await;
    let first = bench.enqueue(numbered(1)).await;
    let claim = bench.claim_one().await;
    super::attempts::fail(&bench, claim, Some(Duration::from_secs(600))).await;
    assert_eq!(bench.state(first).await, State::Scheduled);
    let again = bench.store.enqueue(vec![numbered(1)], "test").await.unwrap()[0];
    assert_eq!((again.id, again.created), (first, false));
    let job = bench.job(first).await;
    assert_eq!(job.state, State::Pending);
    assert!(job.run_at <= bench.clock.now());
}

#[tokio::test]
async fn a_key_names_one_job_for_ever() {
    let bench = Bench::new().await;
    let keyed = |job: NewJob| NewJob { idempotency_key: Some("nightly".to_owned()), joins_equal: false, ..job };
    let first = bench.enqueue(keyed(numbered(1))).await;
    let again = bench.store.enqueue(vec![keyed(numbered(1))], "test").await.unwrap()[0];
    assert_eq!((again.id, again.created), (first, false));
    let claim = bench.claim_one().await;
    bench.complete(claim).await;
    let after = bench.store.enqueue(vec![keyed(numbered(1))], "test").await.unwrap()[0];
    assert_eq!((after.id, after.created), (first, false), "also when it is finished");
    let error = bench.store.enqueue(vec![keyed(numbered(2))], "test").await.unwrap_err();
    let Error::KeyConflict(message) = error else { panic!("{error:?}") };
    assert!(message.contains("source, destination") && message.contains(&format!("job {first}")), "{message}");
}

#[tokio::test]
async fn enqueueing_is_all_or_nothing() {
    let bench = Bench::new().await;
    bench.enqueue(NewJob { idempotency_key: Some("k".to_owned()), ..numbered(1) }).await;
    let conflict = NewJob { idempotency_key: Some("k".to_owned()), ..numbered(3) };
    bench.store.enqueue(vec![numbered(2), conflict], "test").await.unwrap_err();
    assert_eq!(bench.number("SELECT COUNT(*) FROM jobs").await, 1);
}

#[tokio::test]
async fn an_interrupted_load_goes_on_and_a_finished_one_is_a_new_request() {
    let bench = Bench::new().await;
    assert_eq!(bench.store.load_number("hash").await.unwrap(), 1);
    assert_eq!(bench.store.load_number("hash").await.unwrap(), 1);
    bench.store.load_finished("hash", 1).await.unwrap();
    bench.store.load_finished("hash", 1).await.unwrap();
    assert_eq!(bench.store.load_number("hash").await.unwrap(), 2);
    assert_eq!(bench.store.load_number("other").await.unwrap(), 1);
}

#[tokio::test]
async fn a_bare_insert_is_a_job() {
    let bench = Bench::new().await;
    bench.sql("INSERT INTO jobs (source, destination) VALUES ('alpine:3.20', 'b.example/alpine:3.20')").await.unwrap();
    assert!(bench.claim(1).await.is_empty(), "nobody has parsed it yet");
    let waiting = bench.store.waiting().await.unwrap();
    assert!(waiting.intake && !waiting.pending && !waiting.due);
    let intake = bench.store.intake().await.unwrap();
    assert_eq!((intake.accepted, intake.rejected.len()), (1, 0));
    let claim = bench.claim_one().await;
    assert_eq!(claim.dest_key, "b.example/alpine:3.20");
    assert_eq!(claim.job.source, "alpine:3.20");
    let events = bench.store.events(claim.job.id).await.unwrap();
    assert_eq!(events[0].actor, "sql");
    assert_eq!((events[0].from_state.as_deref(), events[0].to_state.as_str()), (None, "pending"));
    bench.complete(claim).await;
}

#[tokio::test]
async fn a_bare_row_that_does_not_parse_fails_with_the_reason() {
    let bench = Bench::new().await;
    bench.sql("INSERT INTO jobs (source, destination) VALUES ('alpine', 'b.example/UPPER/x:1')").await.unwrap();
    bench
        .sql("INSERT INTO jobs (source, destination, options) VALUES ('alpine', 'b.example/x:1', '{\"referrers\":\"some\"}')")
        .await
        .unwrap();
    bench.sql("INSERT INTO jobs (source, destination) VALUES ('oci:rel/dir:x', 'b.example/x:1')").await.unwrap();
    let intake = bench.store.intake().await.unwrap();
    assert_eq!((intake.accepted, intake.rejected.len()), (0, 3));
    for (id, word) in [(1, "UPPER"), (2, "unknown variant `some`"), (3, "absolute")] {
        let job = bench.job(id).await;
        assert_eq!(job.state, State::Failed);
        let failure = job.failure.unwrap();
        assert_eq!((failure.stage.as_str(), failure.class.as_str()), ("intake", "rejected"));
        assert!(failure.message.contains(word), "{}", failure.message);
        assert!(job.finished_at.is_some());
    }
}

#[tokio::test]
async fn a_time_to_come_is_waited_for() {
    let bench = Bench::new().await;
    let at = later(&bench.clock, 3600).0;
    bench
        .sql(&format!("INSERT INTO jobs (source, destination, run_at) VALUES ('a.example/x:1', 'b.example/x:1', {at})"))
        .await
        .unwrap();
    assert_eq!(bench.state(1).await, State::Scheduled);
    assert_eq!(bench.store.events(1).await.unwrap().len(), 1, "one creation event");
    assert_eq!(bench.store.waiting().await.unwrap().next_run_at.map(|time| time.0), Some(at));
    assert_eq!(bench.store.due().await.unwrap(), 0);
    assert!(!bench.store.busy(None).await.unwrap(), "asked for later: nothing to drain");
    bench.hand.advance(Duration::from_secs(3600));
    assert!(bench.store.waiting().await.unwrap().due);
    assert_eq!(bench.store.due().await.unwrap(), 1);
    assert_eq!(bench.state(1).await, State::Pending);
    assert!(bench.store.busy(None).await.unwrap());
}

#[tokio::test]
async fn lists_filter_and_page() {
    let bench = Bench::new().await;
    for number in 0..10 {
        bench.enqueue(numbered(number)).await;
    }
    let page = bench.store.jobs(&JobFilter::default(), None, 4).await.unwrap();
    assert_eq!(page.iter().map(|job| job.id).collect::<Vec<_>>(), [10, 9, 8, 7]);
    let page = bench.store.jobs(&JobFilter::default(), Some(7), 4).await.unwrap();
    assert_eq!(page.iter().map(|job| job.id).collect::<Vec<_>>(), [6, 5, 4, 3]);
    let filter = JobFilter { destination: Some("b.example/*:5".to_owned()), ..JobFilter::default() };
    assert_eq!(bench.store.jobs(&filter, None, 50).await.unwrap().len(), 1);
    let filter = JobFilter { source: Some("example/app:3".to_owned()), ..JobFilter::default() };
    assert_eq!(bench.store.jobs(&filter, None, 50).await.unwrap()[0].id, 4);
    bench.store.cancel(&Selection::Ids(vec![2]), "test").await.unwrap();
    let filter = JobFilter { state: Some(State::Cancelled), ..JobFilter::default() };
    assert_eq!(bench.store.jobs(&filter, None, 50).await.unwrap()[0].id, 2);
    let filter = JobFilter { since: Some(later(&bench.clock, 1)), ..JobFilter::default() };
    assert!(bench.store.jobs(&filter, None, 50).await.unwrap().is_empty());
    let stats = bench.store.stats().await.unwrap();
    assert_eq!((stats.pending, stats.cancelled), (9, 1));
}

#[tokio::test]
async fn many_callers_share_commits_and_all_are_told_the_truth() {
    let bench = Bench::new().await;
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..200 {
        let store = bench.store.clone();
        callers.spawn(async move { store.enqueue(vec![numbered(number)], "test").await.unwrap()[0] });
    }
    let mut ids: Vec<_> = callers.join_all().await.into_iter().map(|enqueued| enqueued.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=200).collect::<Vec<_>>());
    assert_eq!(bench.number("SELECT COUNT(*) FROM jobs").await, 200);
}

#[tokio::test]
async fn a_row_that_cannot_be_read_stops_nobody() {
    let bench = Bench::new().await;
    for insert in [
        // Bytes that are no UTF-8 (PostgreSQL has none); JSON that the databases take and others do not; a kind that
        // belongs to a batch.
        bench.either(
            "INSERT INTO jobs (source, destination) VALUES (CAST(x'61ff' AS TEXT), 'b.example/x:1')",
            "INSERT INTO jobs (source, destination) VALUES (E'a\\u0001', 'b.example/x:1')",
        ),
        "INSERT INTO jobs (source, destination, options) VALUES ('alpine', 'b.example/x:2', '{\"x\":1e999}')",
        "INSERT INTO jobs (source, destination, kind) VALUES ('alpine', 'b.example/x:3', 'expand')",
        "INSERT INTO jobs (source, destination) VALUES ('alpine', 'b.example/x:4')",
    ] {
        bench.sql(insert).await.unwrap();
    }
    let intake = bench.store.intake().await.unwrap();
    assert_eq!((intake.accepted, intake.rejected.len()), (1, 3));
    assert!(bench.job(3).await.failure.unwrap().message.contains("belongs to a batch"));
    let all = bench.store.jobs(&JobFilter::default(), None, 10).await.unwrap();
    assert_eq!(all.len(), 4, "and a list shows them");
    assert_eq!(bench.claim_one().await.job.id, 4);
}

#[tokio::test]
async fn texts_are_bounded() {
    let bench = Bench::new().await;
    for (column, length) in [("source", 5000), ("destination", 5000)] {
        let other = if column == "source" { "destination" } else { "source" };
        let insert = format!("INSERT INTO jobs ({column}, {other}) VALUES ('{}', 'x')", "a".repeat(length));
        assert!(bench.sql(&insert).await.unwrap_err().contains(column));
    }
}

/// A key of so many bytes that cannot be made smaller.
fn key(bytes: usize) -> String {
    let digests = (0..).map(|n: u32| hex::encode(Sha256::digest(n.to_be_bytes())));
    digests.take(bytes / 64 + 1).collect::<String>()[..bytes].to_owned()
}

#[tokio::test]
async fn a_key_is_as_long_as_the_database_takes() {
    let bench = Bench::new().await;
    let most = if bench.database.is_postgres() { 2600 } else { 4096 };
    let keyed = |bytes| NewJob { idempotency_key: Some(key(bytes)), ..numbered(bytes) };
    let id = bench.enqueue(keyed(most)).await;
    let again = bench.store.enqueue(vec![keyed(most)], "test").await.unwrap()[0];
    assert_eq!((again.id, again.created), (id, false));
    let together = vec![numbered(1), keyed(most + 1)];
    let error = bench.store.enqueue(together, "test").await.unwrap_err();
    assert!(matches!(&error, Error::Invalid(_)), "{error:?}");
    let said = bench.either("idempotency_key", "2600 at most: use a shorter one");
    assert!(error.to_string().contains(said), "{error}");
    // Plain SQL is told so by the database.
    let longer = key(most + 400);
    let insert = format!("INSERT INTO jobs (source, destination, idempotency_key) VALUES ('a', 'b', '{longer}')");
    let error = bench.sql(&insert).await.unwrap_err();
    assert!(error.contains("idempotency_key"), "{error}");
    assert_eq!(bench.number("SELECT COUNT(*) FROM jobs").await, 1, "nothing of that call");
}
