//! What operators do to jobs, and what they are told: edit, pause, resume, cancel, retry, why, stats, audit views.

use super::{Bench, TTL, copy, later, numbered};
use freightliner::job::{Class, Failure, How, JobId, NewJob, Report, Stage, State, Transfer};
use freightliner::store::{
    Claim, Edit, Error, JobFilter, LatePublication, Outcome, Published, QueueChange, Remark, Selection, Why, Work,
    WorkerRow,
};
use std::time::Duration;

fn these(ids: &[JobId]) -> Selection {
    Selection::Ids(ids.to_vec())
}

async fn fail(bench: &Bench, claim: Claim, retry_in: Option<Duration>) {
    let failure = Failure::new(Stage::Transfer, Class::RETRY, "the network is down".to_owned(), bench.clock.now());
    bench.store.settle(claim, &Outcome::Failed { failure, retry_in }, Work::default(), &[]).await.unwrap();
}

/// Reasons and actors of a job's events.
async fn story(bench: &Bench, id: JobId) -> Vec<String> {
    let events = bench.store.events(id).await.unwrap();
    events.into_iter().map(|event| format!("{} by {}", event.reason.unwrap_or_default(), event.actor)).collect()
}

async fn why(bench: &Bench, id: JobId) -> Why {
    bench.store.why(id).await.unwrap().expect("the job is there")
}

#[tokio::test]
async fn an_edit_changes_what_waits_and_each_change_is_an_event() {
    let bench = Bench::new().await;
    for number in 1..=3 {
        bench.enqueue(numbered(number)).await;
    }
    let running = bench.claim_as(bench.worker, 1, None, Some(1)).await.remove(0);
    bench.store.cancel(&these(&[2]), "cli:me").await.unwrap();
    let edit = Edit { priority: Some(5), max_attempts: Some(2), queue: Some("slow".to_owned()), run_at: None };
    assert_eq!(bench.store.edit(&these(&[1, 2, 3]), &edit, "cli:me").await.unwrap(), 1, "one waits");
    let job = bench.job(3).await;
    assert_eq!((job.priority, job.max_attempts, job.queue.as_str()), (5, 2, "slow"));
    assert_eq!((bench.job(1).await.priority, bench.job(2).await.priority), (100, 100));
    assert_eq!(story(&bench, 3).await, ["enqueued by test", "changed by cli:me"]);
    let event = bench.store.events(3).await.unwrap().remove(1);
    let detail = event.detail.unwrap();
    assert_eq!(
        (&detail["priority"], &detail["queue"], &detail["max_attempts"]),
        (&5.into(), &"slow".into(), &2.into())
    );
    let unchanged = bench.number("SELECT change_seq FROM jobs WHERE id = 3").await;
    assert_eq!(bench.store.edit(&these(&[3]), &edit, "cli:me").await.unwrap(), 0, "it waits, and is so already");
    assert_eq!(story(&bench, 3).await.len(), 2, "nothing changed");
    assert_eq!(bench.number("SELECT change_seq FROM jobs WHERE id = 3").await, unchanged);
    bench.complete(running).await;
}

#[tokio::test]
async fn a_time_to_come_is_waited_for_and_one_that_has_passed_means_at_once() {
    let bench = Bench::new().await;
    let id = bench.enqueue(numbered(1)).await;
    let to = |run_at| Edit { run_at: Some(run_at), ..Edit::default() };
    let tomorrow = later(&bench.clock, 86_400);
    assert_eq!(bench.store.edit(&these(&[id]), &to(tomorrow), "cli:me").await.unwrap(), 1);
    assert_eq!((bench.state(id).await, bench.job(id).await.run_at), (State::Scheduled, tomorrow));
    assert!(bench.claim(1).await.is_empty());
    assert!(!bench.store.busy(None).await.unwrap(), "it was asked for at a later time");
    let passed = freightliner::clock::UnixMillis(1);
    assert_eq!(bench.store.edit(&these(&[id]), &to(passed), "cli:me").await.unwrap(), 1);
    assert_eq!(bench.store.due().await.unwrap(), 1);
    assert_eq!(bench.claim_one().await.job.id, id);
}

#[tokio::test]
async fn an_edit_that_cannot_be_changes_nothing() {
    let bench = Bench::new().await;
    let id = bench.enqueue(numbered(1)).await;
    for edit in [
        Edit::default(),
        Edit { priority: Some(1 << 40), ..Edit::default() },
        Edit { max_attempts: Some(0), ..Edit::default() },
        Edit { max_attempts: Some(1001), ..Edit::default() },
        Edit { queue: Some(String::new()), ..Edit::default() },
        // Only the database knows this one.
        Edit { priority: Some(1), run_at: Some(freightliner::clock::UnixMillis(-1)), ..Edit::default() },
    ] {
        let error = bench.store.edit(&these(&[id]), &edit, "cli:me").await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{edit:?}: {error:?}");
    }
    assert_eq!(bench.job(id).await.priority, 100);
    assert_eq!(story(&bench, id).await, ["enqueued by test"]);
}

#[tokio::test]
async fn an_id_that_does_not_exist_is_named_and_nothing_is_changed() {
    let bench = Bench::new().await;
    let id = bench.enqueue(numbered(1)).await;
    let both = these(&[id, 4711]);
    let edit = Edit { priority: Some(1), ..Edit::default() };
    let store = &bench.store;
    for (what, result) in [
        ("cancel", store.cancel(&both, "cli:me").await),
        ("retry", store.retry(&both, "cli:me").await),
        ("edit", store.edit(&both, &edit, "cli:me").await),
        ("pause", store.pause(&both, "cli:me").await),
        ("resume", store.resume(&both, "cli:me").await),
    ] {
        let error = result.unwrap_err();
        assert!(matches!(&error, Error::NotFound(message) if message.contains("4711")), "{what}: {error:?}");
    }
    assert_eq!(story(&bench, id).await, ["enqueued by test"]);
    assert!(bench.store.why(4711).await.unwrap().is_none());
    assert!(bench.store.job(4711).await.unwrap().is_none());
    assert!(bench.store.events(4711).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_paused_job_is_held_back_until_it_is_resumed() {
    let bench = Bench::new().await;
    for number in 1..=3 {
        bench.enqueue(numbered(number)).await;
    }
    let tomorrow = bench.enqueue(NewJob { run_at: Some(later(&bench.clock, 86_400)), ..numbered(4) }).await;
    let running = bench.claim_one().await;
    assert_eq!(bench.store.pause(&these(&[1, 2, tomorrow]), "cli:me").await.unwrap(), 2, "who runs does not count");
    assert_eq!(bench.store.pause(&these(&[2]), "cli:me").await.unwrap(), 0, "it is paused already");
    assert!(why(&bench, 2).await.paused_at.is_some() && why(&bench, 1).await.paused_at.is_none());
    bench.hand.advance(Duration::from_secs(2 * 86_400));
    assert_eq!(bench.store.due().await.unwrap(), 0, "whatever its time");
    let waiting = bench.store.waiting().await.unwrap();
    assert!(!waiting.due && waiting.next_run_at.is_none());
    let others = bench.claim(9).await;
    assert_eq!(others.iter().map(|claim| claim.job.id).collect::<Vec<_>>(), [3]);
    let equal = bench.store.enqueue(vec![numbered(2)], "test").await.unwrap()[0];
    assert!(equal.created, "a paused job stands for nobody");
    assert_eq!(bench.store.resume(&these(&[1, 2, 3, tomorrow]), "cli:me").await.unwrap(), 2);
    assert_eq!((bench.state(2).await, bench.state(tomorrow).await), (State::Pending, State::Pending));
    assert_eq!(story(&bench, 2).await, ["enqueued by test", "paused by cli:me", "resumed by cli:me"]);
    for claim in others.into_iter().chain([running]) {
        bench.complete(claim).await;
    }
}

#[tokio::test]
async fn a_job_that_is_resumed_before_its_time_waits_for_it() {
    let bench = Bench::new().await;
    let id = bench.enqueue(NewJob { run_at: Some(later(&bench.clock, 86_400)), ..numbered(1) }).await;
    bench.store.pause(&these(&[id]), "cli:me").await.unwrap();
    assert_eq!(bench.store.resume(&these(&[id]), "cli:me").await.unwrap(), 1);
    assert_eq!(bench.state(id).await, State::Scheduled);
    bench.hand.advance(Duration::from_secs(86_400));
    assert_eq!(bench.store.due().await.unwrap(), 1);
}

#[tokio::test]
async fn paused_jobs_can_be_retried_and_cancelled() {
    let bench = Bench::new().await;
    for number in 1..=2 {
        bench.enqueue(numbered(number)).await;
    }
    bench.store.pause(&these(&[1, 2]), "cli:me").await.unwrap();
    assert_eq!(bench.store.retry(&these(&[1]), "cli:me").await.unwrap(), 1);
    assert_eq!(bench.store.cancel(&these(&[2]), "cli:me").await.unwrap(), 1);
    let job = bench.job(1).await;
    assert_eq!((job.state, job.generation), (State::Pending, 1), "it had not ended");
    assert_eq!(bench.state(2).await, State::Cancelled);
    assert!(why(&bench, 1).await.paused_at.is_none() && why(&bench, 2).await.paused_at.is_none());
    assert_eq!(bench.claim_one().await.job.id, 1);
}

#[tokio::test]
async fn a_paused_job_that_plain_sql_cancelled_can_be_retried_by_plain_sql() {
    let bench = Bench::new().await;
    bench.enqueue(numbered(1)).await;
    for statement in [
        "UPDATE jobs SET paused_at = 5 WHERE id = 1",
        "UPDATE jobs SET state = 'cancelled' WHERE id = 1",
        "UPDATE jobs SET state = 'pending' WHERE id = 1",
        "UPDATE jobs SET paused_at = 5 WHERE id = 1",
        "UPDATE jobs SET cancel_requested_at = 6 WHERE id = 1",
        "UPDATE jobs SET state = 'pending' WHERE id = 1",
    ] {
        bench.sql(statement).await.unwrap();
    }
    let again = bench.job(1).await;
    assert_eq!((again.state, again.generation, again.paused_at), (State::Pending, 3, None));
    assert!(bench.store.check().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_database_keeps_pauses_whoever_writes() {
    let bench = Bench::new().await;
    for number in 1..=2 {
        bench.enqueue(numbered(number)).await;
    }
    let claim = bench.claim_one().await;
    bench.sql("UPDATE jobs SET paused_at = 5 WHERE id = 2").await.unwrap();
    assert_eq!(bench.state(2).await, State::Scheduled, "plain SQL pauses a job by setting paused_at");
    for (statement, word) in [
        ("UPDATE jobs SET state = 'pending' WHERE id = 2", "a paused job does not start"),
        ("UPDATE jobs SET paused_at = 5 WHERE id = 1", "only a job that waits can be paused"),
        ("INSERT INTO jobs (source, destination, paused_at) VALUES ('a', 'b', 5)", "a new job is not paused"),
    ] {
        let error = bench.sql(statement).await.unwrap_err();
        assert!(error.contains(word), "{statement}: {error}");
    }
    bench.sql("UPDATE jobs SET paused_at = NULL WHERE id = 2").await.unwrap();
    assert_eq!(bench.store.due().await.unwrap(), 1);
    let story = story(&bench, 2).await;
    assert_eq!(story, ["enqueued by test", "paused by sql", "paused by sql", "resumed by sql", "due by freightliner"]);
    bench.complete(claim).await;
    assert!(bench.store.check().await.unwrap().is_empty());
}

#[tokio::test]
async fn filters_mean_the_jobs_that_are_there_now() {
    let bench = Bench::new().await;
    let mut jobs = Vec::new();
    for number in 0..1201 {
        jobs.push(NewJob { queue: ["a", "b"][number % 2].to_owned(), ..numbered(number) });
    }
    bench.store.enqueue(jobs, "test").await.unwrap();
    let of = |queue: &str, state| {
        let queue = Some(queue.to_owned());
        Selection::Filter(JobFilter { queue, state, ..JobFilter::default() })
    };
    // More than one piece.
    assert_eq!(bench.store.cancel(&of("a", Some(State::Pending)), "cli:me").await.unwrap(), 601);
    assert_eq!(bench.store.cancel(&of("a", None), "cli:me").await.unwrap(), 0);
    assert_eq!(bench.store.retry(&of("a", Some(State::Cancelled)), "cli:me").await.unwrap(), 601);
    assert_eq!(bench.store.retry(&of("b", None), "cli:me").await.unwrap(), 0, "pending ones do not count");
    let stats = bench.store.stats().await.unwrap();
    assert_eq!((stats.pending, stats.cancelled), (1201, 0));
    assert!(bench.store.check().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_operators_retry_of_a_job_that_waits_makes_it_the_newest_wish() {
    let bench = Bench::new().await;
    let older = bench.enqueue(copy("a.example/x:1", "b.example/x:latest")).await;
    let claim = bench.claim_one().await;
    fail(&bench, claim, Some(Duration::from_secs(600))).await;
    bench.enqueue(copy("a.example/x:2", "b.example/x:latest")).await;
    let claim = bench.claim_one().await;
    bench.complete(claim).await;
    assert_eq!(bench.store.retry(&these(&[older]), "cli:me").await.unwrap(), 1);
    let claim = bench.claim_one().await;
    let confirmed = bench.store.confirm(&claim, TTL, Work::default()).await.unwrap();
    assert_eq!(confirmed, freightliner::store::Confirmed::Yes, "an operator asked for this one again");
    bench.complete(claim).await;
}

#[tokio::test]
async fn an_equal_request_is_on_record_and_older_than_what_comes_after() {
    let bench = Bench::new().await;
    let target = |source: &str| copy(source, "b.example/x:latest");
    let evening = bench.enqueue(NewJob { run_at: Some(later(&bench.clock, 3600)), ..target("a.example/x:1") }).await;
    let now = bench.enqueue(NewJob { priority: 1, ..target("a.example/x:2") }).await;
    let again = bench.store.enqueue(vec![NewJob { priority: 1, ..target("a.example/x:2") }], "cli:me").await.unwrap();
    assert_eq!(again[0].id, now);
    assert_eq!(story(&bench, now).await, ["enqueued by test", "an equal job was asked for by cli:me"]);
    // What was asked for at a later time is asked for when that comes: after the equal request.
    bench.hand.advance(Duration::from_secs(3600));
    bench.store.due().await.unwrap();
    let claim = bench.claim_one().await;
    assert_eq!(claim.job.id, now);
    bench.complete(claim).await;
    let claim = bench.claim_one().await;
    assert_eq!(claim.job.id, evening);
    let confirmed = bench.store.confirm(&claim, TTL, Work::default()).await.unwrap();
    assert_eq!(confirmed, freightliner::store::Confirmed::Yes);
    bench.complete(claim).await;
}

#[tokio::test]
async fn why_says_what_decides() {
    let bench = Bench::new().await;
    let blocker = bench.enqueue(NewJob { priority: 1, ..copy("a.example/x:1", "b.example/x:1") }).await;
    let claim = bench.claim_one().await;
    let same = bench.enqueue(NewJob { priority: 2, ..copy("a.example/x:2", "b.example/x:1") }).await;
    let behind = bench.enqueue(numbered(1)).await;
    let found = why(&bench, same).await;
    assert_eq!((found.same_destination, found.ahead, found.workers, found.places), (Some(blocker), 0, 0, 0));
    assert_eq!((found.registry.as_deref(), found.registry_running, found.queue_running), (Some("b.example"), 1, 1));
    assert_eq!(why(&bench, behind).await.ahead, 1);
    assert!(found.parsed && found.paused_at.is_none() && found.queue_paused_at.is_none());
    bench.store.queue_change("default", QueueChange::Limit(Some(1)), "cli:me").await.unwrap();
    bench.store.queue_change("default", QueueChange::Pause, "cli:me").await.unwrap();
    let found = why(&bench, behind).await;
    assert_eq!((found.queue_max_running, found.queue_running), (Some(1), 1));
    assert_eq!(found.queue_paused_at, Some(bench.clock.now()));
    bench.sql("INSERT INTO jobs (source, destination, queue) VALUES ('a', 'b.example/x', 'slow')").await.unwrap();
    let found = why(&bench, 4).await;
    assert!(!found.parsed && found.registry.is_none() && found.queue_max_running.is_none());
    assert_eq!((found.registry_running, found.queue_running, found.same_destination), (0, 0, None));
    bench.complete(claim).await;
}

#[tokio::test]
async fn why_counts_the_workers_that_serve_the_queue_and_live() {
    let bench = Bench::new().await;
    let id = bench.enqueue(NewJob { queue: "slow".to_owned(), ..numbered(1) }).await;
    let worker = |queue: Option<&str>, concurrency| WorkerRow {
        id: uuid::Uuid::now_v7().to_string(),
        host: "here".to_owned(),
        pid: 1,
        machine_id: "m".to_owned(),
        boot_id: "b".to_owned(),
        state_dir: "/state".to_owned(),
        state_device: 1,
        state_inode: 1,
        version: "0".to_owned(),
        lease_ttl_ms: 30_000,
        queue: queue.map(str::to_owned),
        concurrency,
        started_at: bench.clock.now(),
        seen_at: bench.clock.now(),
    };
    // A one-shot command that claims nothing for others has no places.
    for row in [worker(None, 4), worker(Some("slow"), 2), worker(Some("quick"), 8), worker(None, 0)] {
        bench.store.worker_start(row).await.unwrap();
    }
    let found = why(&bench, id).await;
    assert_eq!((found.workers, found.places), (2, 6));
    bench.hand.advance(Duration::from_secs(300));
    let found = why(&bench, id).await;
    assert_eq!((found.workers, found.places), (0, 0), "nobody has said lately that it lives");
}

#[tokio::test]
async fn a_late_tag_is_on_record_and_changes_nothing_else() {
    let bench = Bench::new().await;
    let id = bench.enqueue(numbered(1)).await;
    let claim = bench.claim_one().await;
    let late = LatePublication {
        digest: "sha256:aa".to_owned(),
        found: Some("sha256:bb".to_owned()),
        worker: "an-older-worker".to_owned(),
        lease_epoch: 1,
    };
    let remark = Remark::PublishedLate(late);
    bench.store.remark(id, remark.clone()).await.unwrap();
    bench.store.remark(4711, remark).await.unwrap();
    let event = bench.store.events(id).await.unwrap().pop().unwrap();
    assert_eq!((event.reason.as_deref(), event.worker.as_deref()), (Some("published late"), Some("an-older-worker")));
    assert_eq!((event.from_state.as_deref(), event.to_state.as_str()), (Some("running"), "running"));
    let detail = event.detail.unwrap();
    assert_eq!((&detail["digest"], &detail["found"]), (&"sha256:aa".into(), &"sha256:bb".into()));
    assert_eq!(bench.number("SELECT COUNT(*) FROM job_events").await, 3);
    bench.complete(claim).await;
    assert!(bench.store.check().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_newest_completed_job_says_what_a_target_must_name() {
    let bench = Bench::new().await;
    let target = "b.example/x:latest";
    assert_eq!(bench.store.published(target).await.unwrap(), None);
    for (source, digest) in [("a.example/x:1", "sha256:01"), ("a.example/x:2", "sha256:02")] {
        let id = bench.enqueue(copy(source, target)).await;
        let claim = bench.claim_one().await;
        let outcome = Outcome::Completed(Report { digest: digest.to_owned(), ..Report::default() });
        bench.store.settle(claim, &outcome, Work::default(), &[]).await.unwrap();
        let digest = digest.to_owned();
        assert_eq!(bench.store.published(target).await.unwrap(), Some(Published { job: id, digest }));
    }
    let claim = {
        bench.enqueue(copy("a.example/x:3", target)).await;
        bench.claim_one().await
    };
    fail(&bench, claim, None).await;
    assert_eq!(bench.store.published(target).await.unwrap().unwrap().job, 2, "a failed one wrote nothing");
}

#[tokio::test]
async fn stats_count_states_ages_and_the_last_hour() {
    let bench = Bench::new().await;
    for number in 0..5 {
        bench.enqueue(numbered(number)).await;
    }
    let mut claims = bench.claim(3).await;
    let report = Report { bytes_copied: 84, ..Report::default() };
    let outcome = Outcome::Completed(report);
    bench.store.settle(claims.remove(0), &outcome, Work::default(), &[]).await.unwrap();
    fail(&bench, claims.remove(0), None).await;
    bench.store.cancel(&these(&[4]), "cli:me").await.unwrap();
    bench.hand.advance(Duration::from_secs(90));
    let stats = bench.store.stats().await.unwrap();
    let counts = [stats.scheduled, stats.pending, stats.running, stats.completed, stats.failed, stats.cancelled];
    assert_eq!(counts, [0, 1, 1, 1, 1, 1]);
    assert_eq!(stats.oldest_pending_age_ms, Some(90_000));
    assert_eq!((stats.completed_last_hour, stats.failed_last_hour, stats.bytes_last_hour), (1, 1, 84));
    bench.hand.advance(Duration::from_secs(3600));
    let stats = bench.store.stats().await.unwrap();
    assert_eq!((stats.completed_last_hour, stats.failed_last_hour, stats.bytes_last_hour), (0, 0, 0));
    let filter = JobFilter { state: Some(State::Failed), ..JobFilter::default() };
    assert_eq!(bench.store.jobs(&filter, None, 9).await.unwrap().len(), 1);
    bench.complete(claims.remove(0)).await;
}

#[tokio::test]
async fn audit_views_tell_the_story() {
    let bench = Bench::new().await;
    let id = bench.enqueue(numbered(1)).await;
    let claim = bench.claim_one().await;
    fail(&bench, claim, Some(Duration::from_secs(1))).await;
    bench.hand.advance(Duration::from_secs(2));
    bench.store.due().await.unwrap();
    let claim = bench.claim_one().await;
    let transfer = |how| Transfer {
        registry: "b.example".to_owned(),
        repository: "app".to_owned(),
        digest: "sha256:00".to_owned(),
        bytes: 42,
        resumed: 0,
        how,
    };
    let report = Report { digest: "sha256:aa".to_owned(), bytes_copied: 42, blobs_copied: 1, ..Report::default() };
    let work = Work { progress: None, bytes_moved: 42 };
    let transfers = [transfer(How::Copied), transfer(How::Mounted)];
    bench.store.settle(claim, &Outcome::Completed(report), work, &transfers).await.unwrap();
    for (count, query) in [
        (1, "audit_jobs WHERE id = 1 AND state = 'completed' AND digest = 'sha256:aa'"),
        (1, "audit_jobs WHERE waited_seconds >= 0 AND ran_seconds >= 0 AND total_seconds >= ran_seconds"),
        (1, "audit_jobs WHERE finished_at LIKE '20__-__-__T__:__:__.___Z' AND started_at <= finished_at"),
        (6, "audit_events WHERE job_id = 1 AND source = 'a.example/app:1'"),
        (2, "audit_events WHERE reason = 'claimed' AND actor = 'freightliner' AND to_state = 'running'"),
        (1, "audit_attempts WHERE attempt = 1 AND outcome = 'retry' AND failure_class = 'retryable'"),
        (1, "audit_attempts WHERE attempt = 2 AND outcome = 'completed'"),
        (1, "audit_transfers WHERE how = 'mounted' AND attempt = 2 AND destination = 'b.example/app:1'"),
        (0, "stuck_jobs"),
    ] {
        assert_eq!(bench.number(&format!("SELECT COUNT(*) FROM {query}")).await, count, "{query}");
    }
    assert_eq!(bench.state(id).await, State::Completed);
}

#[tokio::test]
async fn what_is_stuck_is_shown() {
    let bench = Bench::new().await;
    for number in 1..=3 {
        bench.enqueue(numbered(number)).await;
    }
    let claim = bench.claim_one().await;
    bench.sql("UPDATE jobs SET lease_until = 1 WHERE id = 1").await.unwrap();
    bench.sql("UPDATE jobs SET run_at = 1 WHERE id = 2").await.unwrap();
    bench.sql("UPDATE jobs SET state = 'scheduled', run_at = 1 WHERE id = 3").await.unwrap();
    for (id, word) in [(1, "lease ran out"), (2, "waits for a worker"), (3, "nobody noticed")] {
        let stuck = format!("SELECT COUNT(*) FROM stuck_jobs WHERE id = {id} AND why LIKE '%{word}%' AND seconds > 60");
        assert_eq!(bench.number(&stuck).await, 1, "{word}");
    }
    bench.store.pause(&these(&[2, 3]), "cli:me").await.unwrap();
    assert_eq!(bench.number("SELECT COUNT(*) FROM stuck_jobs").await, 1, "who is paused is not stuck");
    bench.complete(claim).await;
}
