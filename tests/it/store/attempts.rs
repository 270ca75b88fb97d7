//! Claims, leases and ends of attempts: the fence.

use super::{Bench, TTL, copy, numbered};
use freightliner::job::{Class, Failure, How, NewJob, Progress, Report, Stage, State, Transfer};
use freightliner::store::{Claim, Confirmed, Held, JobFilter, Outcome, Selection, Settled, Store, Work};
use std::time::Duration;
use uuid::Uuid;

pub async fn fail(bench: &Bench, claim: Claim, retry_in: Option<Duration>) {
    let failure = Failure::new(Stage::Transfer, Class::RETRY, "the network is down".to_owned(), bench.clock.now());
    bench.store.settle(claim, &Outcome::Failed { failure, retry_in }, Work::default(), &[]).await.unwrap();
}

#[tokio::test]
async fn a_claim_takes_the_best_and_raises_attempt_and_epoch() {
    let bench = Bench::new().await;
    bench.enqueue(numbered(1)).await;
    bench.enqueue(NewJob { priority: 5, ..numbered(2) }).await;
    bench.enqueue(numbered(3)).await;
    let claims = bench.claim(2).await;
    assert_eq!(claims.iter().map(|claim| claim.job.id).collect::<Vec<_>>(), [2, 1]);
    for claim in &claims {
        assert_eq!((claim.job.attempt, claim.job.lease_epoch), (1, 1));
        assert_eq!(claim.job.worker.as_deref(), Some(bench.worker.to_string().as_str()));
        assert_eq!(claim.job.lease_until, Some(bench.clock.now().plus(TTL)));
        assert_eq!(claim.job.state, State::Running);
    }
    let rest = bench.claim(5).await;
    assert_eq!(rest.len(), 1);
    for claim in claims.into_iter().chain(rest) {
        bench.complete(claim).await;
    }
}

#[tokio::test]
async fn two_workers_never_get_the_same_job() {
    let bench = Bench::new().await;
    for number in 0..100 {
        bench.enqueue(numbered(number)).await;
    }
    let mut workers = tokio::task::JoinSet::new();
    let second = Store::open(&bench.database.url().parse().unwrap(), bench.clock.clone()).await.unwrap();
    for worker in 0..8 {
        let store = if worker % 2 == 0 { bench.store.clone() } else { second.clone() };
        workers.spawn(async move {
            let request = freightliner::store::ClaimRequest {
                worker: Uuid::now_v7(),
                room: 7,
                queue: None,
                only: None,
                lease_ttl: TTL,
                registry_limits: std::sync::Arc::default(),
            };
            let mut mine = Vec::new();
            loop {
                let claims = store.claim(request.clone()).await.unwrap();
                if claims.is_empty() {
                    return mine;
                }
                mine.extend(claims.iter().map(|claim| claim.job.id));
                for claim in claims {
                    let outcome = Outcome::Completed(Report::default());
                    store.settle(claim, &outcome, Work::default(), &[]).await.unwrap();
                }
            }
        });
    }
    let mut all: Vec<_> = workers.join_all().await.into_iter().flatten().collect();
    all.sort_unstable();
    assert_eq!(all, (1..=100).collect::<Vec<_>>());
    assert!(bench.store.check().await.unwrap().is_empty());
}

#[tokio::test]
async fn one_target_has_one_running_job_and_others_are_not_held_up() {
    let bench = Bench::new().await;
    for tag in 0..5 {
        // Five sources for one target.
        bench.enqueue(copy(&format!("a.example/x:{tag}"), "b.example/x:1")).await;
    }
    bench.enqueue(numbered(9)).await;
    let claims = bench.claim(10).await;
    assert_eq!(claims.iter().map(|claim| claim.job.id).collect::<Vec<_>>(), [1, 6]);
    assert!(bench.claim(10).await.is_empty());
    let refused = bench
        .sql(&format!(
            "{} jobs SET state = 'running', attempt = 1, lease_epoch = 1, worker = '{}', lease_until = 1 WHERE id = 2",
            bench.either("UPDATE OR REPLACE", "UPDATE"),
            bench.worker
        ))
        .await
        .unwrap_err();
    assert!(refused.contains("another job for this destination is running"), "{refused}");
    for claim in claims {
        bench.complete(claim).await;
    }
    assert_eq!(bench.claim_one().await.job.id, 2);
}

#[tokio::test]
async fn a_paused_queue_gives_nothing_and_a_queue_can_be_chosen() {
    let bench = Bench::new().await;
    bench.enqueue(NewJob { queue: "slow".to_owned(), ..numbered(1) }).await;
    bench.enqueue(NewJob { queue: "quick".to_owned(), ..numbered(2) }).await;
    bench.sql("INSERT INTO queues (name, paused_at) VALUES ('slow', 1)").await.unwrap();
    assert!(bench.store.queue_paused("slow").await.unwrap());
    assert!(bench.claim_as(bench.worker, 5, Some("slow"), None).await.is_empty());
    assert!(!bench.store.busy(Some("slow")).await.unwrap(), "what is paused cannot be drained");
    let claims = bench.claim(5).await;
    assert_eq!(claims.iter().map(|claim| claim.job.id).collect::<Vec<_>>(), [2]);
    bench.sql("UPDATE queues SET paused_at = NULL").await.unwrap();
    assert_eq!(bench.claim_as(bench.worker, 5, Some("slow"), None).await.len(), 1);
}

#[tokio::test]
async fn one_job_can_be_claimed_by_its_id() {
    let bench = Bench::new().await;
    for number in 0..3 {
        bench.enqueue(numbered(number)).await;
    }
    let claims = bench.claim_as(bench.worker, 1, None, Some(2)).await;
    assert_eq!(claims[0].job.id, 2);
    assert!(bench.claim_as(bench.worker, 1, None, Some(2)).await.is_empty());
}

#[tokio::test]
async fn renewing_raises_the_beat_and_writes_progress() {
    let bench = Bench::new().await;
    let id = bench.enqueue(numbered(1)).await;
    let claim = bench.claim_one().await;
    bench.hand.advance(Duration::from_secs(10));
    let progress = Progress { bytes_done: 5, bytes_total: 10, blobs_done: 1, blobs_total: 2 };
    let work = Work { progress: Some(progress), bytes_moved: 7 };
    assert_eq!(bench.store.renew(claim.fence(), TTL, work).await.unwrap(), Held::Yes);
    let job = bench.job(id).await;
    assert_eq!(job.progress, Some(progress));
    assert_eq!(job.lease_until, Some(bench.clock.now().plus(TTL)));
    assert_eq!(bench.store.leases().await.unwrap()[0].beat, 1);
}

#[tokio::test]
async fn an_old_epoch_changes_nothing() {
    let bench = Bench::new().await;
    let id = bench.enqueue(numbered(1)).await;
    let late = bench.claim_one().await;
    let lease = bench.store.leases().await.unwrap().remove(0);
    assert_eq!(bench.store.reclaim(lease, 10, "it died".to_owned()).await.unwrap(), Some(State::Scheduled));
    bench.store.due().await.unwrap();
    let current = bench.claim_one().await;
    assert_eq!(current.job.lease_epoch, 3, "claim, reclaim, claim");
    let before = bench.store.events(id).await.unwrap().len();
    let work = Work { progress: None, bytes_moved: 99 };
    assert_eq!(bench.store.renew(late.fence(), TTL, work).await.unwrap(), Held::Lost);
    assert_eq!(bench.store.confirm(&late, TTL, work).await.unwrap(), Confirmed::Lost);
    let outcome = Outcome::Completed(Report { digest: "stale".to_owned(), ..Report::default() });
    let transfer = transfer("sha256:00");
    assert_eq!(bench.store.settle(late, &outcome, work, &[transfer]).await.unwrap(), Settled::LeaseLost);
    let job = bench.job(id).await;
    assert_eq!((job.state, job.report), (State::Running, None));
    assert_eq!(bench.store.events(id).await.unwrap().len(), before);
    assert_eq!(bench.number("SELECT COUNT(*) FROM transfers").await, 0);
    assert_eq!(bench.number("SELECT bytes_moved FROM jobs").await, 0);
    bench.complete(current).await;
    assert!(bench.store.check().await.unwrap().is_empty());
}

fn transfer(digest: &str) -> Transfer {
    Transfer {
        registry: "b.example".to_owned(),
        repository: "x".to_owned(),
        digest: digest.to_owned(),
        bytes: 42,
        resumed: 0,
        how: How::Copied,
    }
}

#[tokio::test]
async fn the_end_of_an_attempt_is_one_transaction_with_its_event_and_transfers() {
    let bench = Bench::new().await;
    let id = bench.enqueue(numbered(1)).await;
    let claim = bench.claim_one().await;
    let report = Report { digest: "sha256:aa".to_owned(), blobs_copied: 2, bytes_copied: 84, ..Report::default() };
    let work = Work { progress: None, bytes_moved: 84 };
    let transfers = [transfer("sha256:00"), transfer("sha256:01")];
    let settled = bench.store.settle(claim, &Outcome::Completed(report.clone()), work, &transfers).await.unwrap();
    assert_eq!(settled, Settled::Now(State::Completed));
    let job = bench.job(id).await;
    assert_eq!(job.report, Some(report));
    assert!(job.finished_at.is_some() && job.worker.is_none() && job.lease_until.is_none() && job.failure.is_none());
    let events = bench.store.events(id).await.unwrap();
    let last = events.last().unwrap();
    assert_eq!((last.from_state.as_deref(), last.to_state.as_str()), (Some("running"), "completed"));
    assert_eq!(last.worker.as_deref(), Some(bench.worker.to_string().as_str()));
    assert_eq!(bench.number("SELECT SUM(bytes) FROM audit_transfers WHERE how = 'copied'").await, 84);
    assert_eq!(bench.number("SELECT bytes FROM audit_attempts WHERE outcome = 'completed'").await, 84);
}

#[tokio::test]
async fn a_failed_attempt_waits_and_one_given_back_is_refunded() {
    let bench = Bench::new().await;
    let id = bench.enqueue(numbered(1)).await;
    let claim = bench.claim_one().await;
    let settled =
        bench.store.settle(claim, &Outcome::Released { reason: "shutdown" }, Work::default(), &[]).await.unwrap();
    assert_eq!(settled, Settled::Now(State::Pending));
    assert_eq!(bench.job(id).await.attempt, 0, "refunded");
    let claim = bench.claim_one().await;
    assert_eq!((claim.job.attempt, claim.job.lease_epoch), (1, 2), "the epoch is not");
    fail(&bench, claim, Some(Duration::from_secs(2))).await;
    let job = bench.job(id).await;
    assert_eq!((job.state, job.attempt), (State::Scheduled, 1));
    assert_eq!(job.failure.unwrap().class, "retryable");
    assert_eq!(job.run_at, bench.clock.now().plus(Duration::from_secs(2)));
    assert!(bench.store.busy(None).await.unwrap(), "a retry is waited for");
    bench.hand.advance(Duration::from_secs(3));
    bench.store.due().await.unwrap();
    let claim = bench.claim_one().await;
    fail(&bench, claim, None).await;
    let job = bench.job(id).await;
    assert_eq!((job.state, job.attempt), (State::Failed, 2));
    assert!(!bench.store.busy(None).await.unwrap());
}

#[tokio::test]
async fn a_cancel_ends_what_waits_and_asks_what_runs() {
    let bench = Bench::new().await;
    let running = bench.enqueue(NewJob { priority: 1, ..numbered(1) }).await;
    let claim = bench.claim_one().await;
    let waiting = bench.enqueue(numbered(2)).await;
    assert_eq!(bench.store.cancel(&Selection::Ids(vec![running, waiting]), "cli:me").await.unwrap(), 2);
    assert_eq!(bench.state(waiting).await, State::Cancelled);
    assert_eq!(bench.state(running).await, State::Running);
    assert_eq!(bench.store.cancel_asked(bench.worker).await.unwrap(), [claim.fence()]);
    assert!(bench.store.cancel_asked(Uuid::now_v7()).await.unwrap().is_empty());
    assert_eq!(bench.store.renew(claim.fence(), TTL, Work::default()).await.unwrap(), Held::CancelRequested);
    assert_eq!(bench.store.confirm(&claim, TTL, Work::default()).await.unwrap(), Confirmed::CancelRequested);
    // Whatever else the attempt would be: a cancel that was asked for wins over another attempt.
    fail(&bench, claim, Some(Duration::from_secs(5))).await;
    assert_eq!(bench.state(running).await, State::Cancelled);
    let events = bench.store.events(running).await.unwrap();
    assert!(events.iter().any(|event| event.reason.as_deref() == Some("cancel requested") && event.actor == "cli:me"));
    assert_eq!(bench.store.cancel(&Selection::Ids(vec![waiting]), "cli:me").await.unwrap(), 0, "finished already");
    let error = bench.store.cancel(&Selection::Ids(vec![99]), "cli:me").await.unwrap_err();
    assert!(error.to_string().contains("job 99 not found"));
}

#[tokio::test]
async fn an_operators_retry_is_a_new_generation() {
    let bench = Bench::new().await;
    let id = bench.enqueue(numbered(1)).await;
    let claim = bench.claim_one().await;
    fail(&bench, claim, None).await;
    let failed = JobFilter { state: Some(State::Failed), ..JobFilter::default() };
    assert_eq!(bench.store.retry(&Selection::Filter(failed), "cli:me").await.unwrap(), 1);
    let job = bench.job(id).await;
    assert_eq!((job.state, job.generation, job.attempt, job.lease_epoch), (State::Pending, 2, 0, 1));
    assert!(job.failure.is_none() && job.finished_at.is_none());
    let claim = bench.claim_one().await;
    assert_eq!(claim.job.lease_epoch, 2, "the epoch goes on rising");
    bench.complete(claim).await;
    assert!(bench.store.check().await.unwrap().is_empty());
    // The same by plain SQL.
    bench.sql("UPDATE jobs SET state = 'pending' WHERE id = 1").await.unwrap();
    let job = bench.job(id).await;
    assert_eq!((job.state, job.generation, job.attempt), (State::Pending, 3, 0));
    assert!(job.report.is_none() && job.finished_at.is_none());
}

#[tokio::test]
async fn a_tag_never_goes_back_to_an_older_job() {
    let bench = Bench::new().await;
    let older = bench.enqueue(copy("a.example/x:1", "b.example/x:latest")).await;
    let claim = bench.claim_one().await;
    fail(&bench, claim, Some(Duration::from_secs(60))).await;
    bench.hand.advance(Duration::from_secs(1));
    let newer = bench.enqueue(copy("a.example/x:2", "b.example/x:latest")).await;
    let claim = bench.claim_one().await;
    assert_eq!(claim.job.id, newer);
    assert_eq!(bench.store.confirm(&claim, TTL, Work::default()).await.unwrap(), Confirmed::Yes);
    bench.complete(claim).await;
    bench.hand.advance(Duration::from_secs(60));
    bench.store.due().await.unwrap();
    let claim = bench.claim_one().await;
    assert_eq!(claim.job.id, older);
    assert_eq!(bench.store.confirm(&claim, TTL, Work::default()).await.unwrap(), Confirmed::Superseded { by: newer });
    fail(&bench, claim, None).await;
    // Unless an operator wants just that.
    bench.store.retry(&Selection::Ids(vec![older]), "cli:me").await.unwrap();
    let claim = bench.claim_one().await;
    assert_eq!(bench.store.confirm(&claim, TTL, Work::default()).await.unwrap(), Confirmed::Yes);
    bench.complete(claim).await;
}

#[tokio::test]
async fn a_job_asked_for_at_a_later_time_is_newer_than_one_that_ran_meanwhile() {
    let bench = Bench::new().await;
    let tomorrow =
        NewJob { run_at: Some(super::later(&bench.clock, 3600)), ..copy("a.example/x:1", "b.example/x:latest") };
    let id = bench.enqueue(tomorrow).await;
    bench.enqueue(copy("a.example/x:2", "b.example/x:latest")).await;
    let claim = bench.claim_one().await;
    bench.complete(claim).await;
    bench.hand.advance(Duration::from_secs(3600));
    bench.store.due().await.unwrap();
    let claim = bench.claim_one().await;
    assert_eq!(claim.job.id, id);
    assert_eq!(bench.store.confirm(&claim, TTL, Work::default()).await.unwrap(), Confirmed::Yes);
    bench.complete(claim).await;
}

#[tokio::test]
async fn asking_again_for_what_waits_makes_it_the_newest_wish() {
    let bench = Bench::new().await;
    // A rollback: A waits, B is asked for and done, then A is asked for again.
    let first = bench.enqueue(NewJob { priority: 200, ..copy("a.example/x:A", "b.example/x:latest") }).await;
    bench.enqueue(copy("a.example/x:B", "b.example/x:latest")).await;
    let claim = bench.claim_one().await;
    bench.complete(claim).await;
    let again = NewJob { priority: 200, ..copy("a.example/x:A", "b.example/x:latest") };
    let again = bench.store.enqueue(vec![again], "test").await.unwrap()[0];
    assert_eq!((again.id, again.created), (first, false));
    let claim = bench.claim_one().await;
    assert_eq!(bench.store.confirm(&claim, TTL, Work::default()).await.unwrap(), Confirmed::Yes);
    bench.complete(claim).await;
}

#[tokio::test]
async fn no_clock_decides_which_wish_is_newer() {
    let bench = Bench::new().await;
    // Done while the clock was an hour fast.
    bench.hand.jump_wall(3_600_000);
    bench.enqueue(copy("a.example/x:1", "b.example/x:latest")).await;
    let claim = bench.claim_one().await;
    bench.complete(claim).await;
    bench.hand.jump_wall(-3_600_000);
    bench.sql("INSERT INTO jobs (source, destination) VALUES ('a.example/x:2', 'b.example/x:latest')").await.unwrap();
    bench.store.intake().await.unwrap();
    for _ in 0..2 {
        let claim = bench.claim_one().await;
        assert_eq!(bench.store.confirm(&claim, TTL, Work::default()).await.unwrap(), Confirmed::Yes);
        bench.complete(claim).await;
        bench.enqueue(copy("a.example/x:3", "b.example/x:latest")).await;
    }
}

#[tokio::test]
async fn many_rows_for_one_busy_target_do_not_hide_the_others() {
    let bench = Bench::new().await;
    let jobs = (0..1500).map(|tag| copy(&format!("a.example/x:{tag}"), "b.example/x:1")).collect();
    bench.store.enqueue(jobs, "test").await.unwrap();
    let other = bench.enqueue(numbered(9)).await;
    assert_eq!(bench.claim_one().await.job.id, 1);
    assert_eq!(bench.claim_one().await.job.id, other);
    assert!(bench.claim(5).await.is_empty());
}

#[tokio::test]
async fn failures_since_a_moment_are_counted_whoever_had_the_job() {
    let bench = Bench::new().await;
    bench.enqueue(numbered(1)).await;
    let claim = bench.claim_one().await;
    fail(&bench, claim, None).await;
    let since = bench.store.last_event().await.unwrap();
    assert_eq!(bench.store.failed_since(since, None).await.unwrap(), 0, "before that moment");
    bench.enqueue(NewJob { queue: "slow".to_owned(), ..numbered(2) }).await;
    let claim = bench.claim_as(Uuid::now_v7(), 1, None, None).await.remove(0);
    fail(&bench, claim, Some(Duration::ZERO)).await;
    assert_eq!(bench.store.failed_since(since, None).await.unwrap(), 0, "it will be tried again");
    bench.store.due().await.unwrap();
    let claim = bench.claim_one().await;
    fail(&bench, claim, None).await;
    assert_eq!(bench.store.failed_since(since, None).await.unwrap(), 1);
    assert_eq!(bench.store.failed_since(since, Some("slow")).await.unwrap(), 1);
    assert_eq!(bench.store.failed_since(since, Some("quick")).await.unwrap(), 0);
}
