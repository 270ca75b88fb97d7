//! Many callers at once: what they share, and what none of them suffers from another.

use super::{Bench, TTL, copy, later, numbered};
use crate::support::PATIENCE;
use freightliner::job::{JobId, NewJob, State};
use freightliner::store::{Claim, ClaimRequest, Error, Fence, Outcome, Settled, Work, WorkerRow};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::task::JoinSet;
use uuid::Uuid;

/// Callers that ask at the same time.
const CALLERS: usize = 64;

fn request(room: usize, queue: Option<&str>, only: Option<JobId>) -> ClaimRequest {
    let queue = queue.map(str::to_owned);
    ClaimRequest { worker: Uuid::now_v7(), room, queue, only, lease_ttl: TTL, registry_limits: Default::default() }
}

#[tokio::test]
async fn who_asks_at_once_gets_what_was_asked_for_and_nothing_twice() {
    let bench = Bench::new().await;
    for number in 0..40 {
        let queue = ["a", "b"][number % 2].to_owned();
        bench.enqueue(NewJob { queue, ..numbered(number) }).await;
    }
    let mut askers = JoinSet::new();
    for number in 0..12_i64 {
        let store = bench.store.clone();
        let ask = match number % 3 {
            0 => request(3, Some("a"), None),
            1 => request(2, Some("b"), None),
            // The last ones, which nobody else gets to.
            _ => request(1, None, Some(40 - number)),
        };
        askers.spawn(async move { (store.claim(ask.clone()).await.unwrap(), ask) });
    }
    let mut all = BTreeSet::new();
    for (claims, ask) in askers.join_all().await {
        assert_eq!(claims.len(), ask.room, "there are enough for all: {ask:?}");
        for Claim { job, .. } in claims {
            assert!(ask.queue.as_ref().is_none_or(|queue| *queue == job.queue), "{ask:?} got {job:?}");
            assert!(ask.only.is_none_or(|only| only == job.id), "{ask:?} got {job:?}");
            assert_eq!(job.worker, Some(ask.worker.to_string()));
            assert!(all.insert(job.id), "job {} was claimed twice", job.id);
        }
    }
    assert_eq!(all.len(), 24);
}

#[tokio::test]
async fn one_target_is_claimed_once_by_all_who_ask_at_once() {
    let bench = Bench::new().await;
    for number in 0..60 {
        bench.enqueue(copy(&format!("a.example/x:{number}"), &format!("b.example/x:{}", number % 3))).await;
    }
    let mut askers = JoinSet::new();
    for _ in 0..16 {
        let store = bench.store.clone();
        askers.spawn(async move { store.claim(request(5, None, None)).await.unwrap() });
    }
    let claims: Vec<Claim> = askers.join_all().await.into_iter().flatten().collect();
    let targets: BTreeSet<&str> = claims.iter().map(|claim| claim.dest_key.as_str()).collect();
    assert_eq!((claims.len(), targets.len()), (3, 3));
}

#[tokio::test]
async fn rows_by_plain_sql_are_taken_in_and_claimed_in_one_call() {
    let bench = Bench::new().await;
    bench.sql("INSERT INTO jobs (source, destination) VALUES ('alpine:3.20', 'b.example/alpine:3.20')").await.unwrap();
    bench.sql("INSERT INTO jobs (source, destination) VALUES ('alpine', 'b.example/UPPER:1')").await.unwrap();
    let (intake, claims) = bench.store.intake_and_claim(request(5, None, None)).await.unwrap();
    assert_eq!((intake.accepted, intake.rejected.len(), intake.rejected[0].0), (1, 1, 2));
    assert_eq!(claims.iter().map(|claim| claim.job.id).collect::<Vec<_>>(), [1]);
    assert_eq!(bench.state(2).await, State::Failed);
    let (intake, claims) = bench.store.intake_and_claim(request(5, None, None)).await.unwrap();
    assert_eq!((intake.accepted, intake.rejected.len(), claims.len()), (0, 0, 0));
}

#[tokio::test]
async fn who_asked_is_said_once_where_a_look_costs() {
    let bench = Bench::new().await;
    assert!(!bench.store.was_asked());
    bench.sql("INSERT INTO jobs (source, destination) VALUES ('alpine', 'b.example/alpine:1')").await.unwrap();
    assert!(!bench.store.was_asked(), "it is not known that it was here");
    bench.store.clone().enqueue(vec![numbered(1), numbered(2)], "test").await.unwrap();
    assert_eq!(bench.store.was_asked(), bench.database.is_postgres());
    assert!(!bench.store.was_asked());
}

#[tokio::test]
async fn rows_that_are_all_good_are_claimed_with_their_intake_once_each() {
    let bench = Bench::new().await;
    for number in 0..20 {
        let row = format!("INSERT INTO jobs (source, destination) VALUES ('alpine', 'b.example/alpine:{number}')");
        bench.sql(&row).await.unwrap();
    }
    let mut askers = JoinSet::new();
    for _ in 0..8 {
        let store = bench.store.clone();
        askers.spawn(async move { store.intake_and_claim(request(2, None, None)).await.unwrap().1 });
    }
    let claims: Vec<Claim> = askers.join_all().await.into_iter().flatten().collect();
    let ids: BTreeSet<JobId> = claims.iter().map(|claim| claim.job.id).collect();
    assert_eq!((claims.len(), ids.len()), (16, 16));
    assert_eq!(bench.claim(9).await.len(), 4);
    assert!(bench.store.check().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_row_that_only_the_database_refuses_does_not_hold_up_the_others() {
    let bench = Bench::new().await;
    let long: String =
        (0..60u32).map(|number| format!("/{}", hex::encode(Sha256::digest(number.to_le_bytes())))).collect();
    for destination in [format!("oci:{}", &long[..3_900]), "b.example/alpine:1".to_owned()] {
        let row = format!("INSERT INTO jobs (source, destination) VALUES ('alpine', '{destination}')");
        bench.sql(&row).await.unwrap();
    }
    let (mut rejected, mut ids) = (Vec::new(), Vec::new());
    let deadline = tokio::time::Instant::now() + PATIENCE;
    // A session that was refused something may hold its locks for a moment longer: then it is the next look's.
    while rejected.len() + ids.len() < 2 {
        assert!(tokio::time::Instant::now() < deadline, "{rejected:?} {ids:?}");
        let (intake, claims) = bench.store.intake_and_claim(request(5, None, None)).await.unwrap();
        rejected.extend(intake.rejected.into_iter().map(|(id, _)| id));
        ids.extend(claims.iter().map(|claim| claim.job.id));
    }
    if bench.database.is_postgres() {
        assert_eq!((rejected, ids), (vec![1], vec![2]));
        assert!(bench.job(1).await.failure.is_some_and(|failure| failure.message.contains("index")));
    } else {
        assert_eq!((rejected.len(), ids), (0, vec![1, 2]));
    }
}

#[tokio::test]
async fn nothing_is_claimed_from_a_newer_schema_and_what_runs_is_finished() {
    let bench = Bench::new().await;
    bench.enqueue(numbered(1)).await;
    bench.enqueue(numbered(2)).await;
    let claim = bench.claim_one().await;
    let newer = "INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (999, 'future', '', 0)";
    bench.sql(newer).await.unwrap();
    let error = bench.store.claim(request(1, None, None)).await.unwrap_err();
    let Error::Outdated(message) = error else { panic!("{error:?}") };
    assert!(message.contains("999") && message.contains("newer"), "{message}");
    let outcome = Outcome::Completed(freightliner::job::Report::default());
    let settled = bench.store.settle(claim, &outcome, Work::default(), &[]).await.unwrap();
    assert_eq!(settled, Settled::Now(State::Completed));
}

/// Callers of which some break a rule: those fail, and only those.
async fn callers(bench: &Bench, job: fn(usize) -> NewJob) -> Vec<Result<JobId, Error>> {
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        let store = bench.store.clone();
        callers.spawn(async move {
            let enqueued = store.enqueue(vec![job(number)], "test").await;
            (number, enqueued.map(|enqueued| enqueued[0].id))
        });
    }
    let mut answers = callers.join_all().await;
    answers.sort_by_key(|(number, _)| *number);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

#[tokio::test]
async fn a_call_that_breaks_a_rule_of_the_database_fails_alone() {
    let bench = Bench::new().await;
    let answers = callers(&bench, |number| {
        // Only the database knows that this is too long.
        let destination = if number % 9 == 4 { "x".repeat(4097) } else { numbered(number).destination };
        NewJob { destination, ..numbered(number) }
    })
    .await;
    for (number, answer) in answers.iter().enumerate() {
        match answer {
            Ok(id) => assert_eq!(bench.job(*id).await.source, numbered(number).source),
            Err(error) => assert!(number % 9 == 4 && matches!(error, Error::Invalid(_)), "{number}: {error:?}"),
        }
        assert_eq!(answer.is_err(), number % 9 == 4, "{number}");
    }
    assert_eq!(bench.number("SELECT COUNT(*) FROM jobs").await, 57);
    assert!(bench.store.check().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_call_with_a_known_key_and_other_content_fails_alone() {
    let bench = Bench::new().await;
    bench.enqueue(NewJob { idempotency_key: Some("nightly".to_owned()), ..numbered(1000) }).await;
    let answers = callers(&bench, |number| {
        let key = (number % 9 == 4).then(|| "nightly".to_owned());
        NewJob { idempotency_key: key, ..numbered(number) }
    })
    .await;
    for (number, answer) in answers.iter().enumerate() {
        let conflict = matches!(answer, Err(Error::KeyConflict(_)));
        assert_eq!((conflict, answer.is_err()), (number % 9 == 4, number % 9 == 4), "{number}: {answer:?}");
    }
    assert_eq!(bench.number("SELECT COUNT(*) FROM jobs").await, 58);
}

#[tokio::test]
async fn claims_and_ends_do_not_suffer_from_a_rare_operation_that_is_refused() {
    let bench = Bench::new().await;
    for number in 0..CALLERS {
        bench.enqueue(numbered(number)).await;
    }
    let fence = Fence { job: 1, epoch: 1 };
    bench.store.temp_register("/tmp/x".to_owned(), bench.worker, fence).await.unwrap();
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        let (store, worker) = (bench.store.clone(), bench.worker);
        callers.spawn(async move {
            if number % 4 == 0 {
                let again = store.temp_register("/tmp/x".to_owned(), worker, fence).await;
                assert!(matches!(again, Err(Error::Invalid(_))), "{again:?}");
                return 0;
            }
            let claim = store.claim(request(1, None, None)).await.unwrap().remove(0);
            let outcome = Outcome::Released { reason: "shutdown" };
            let settled = store.settle(claim, &outcome, Work::default(), &[]).await.unwrap();
            assert_eq!(settled, Settled::Now(State::Pending));
            1
        });
    }
    assert_eq!(callers.join_all().await.into_iter().sum::<usize>(), 48);
    assert!(bench.store.check().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_same_wish_within_a_call_is_one_job() {
    let bench = Bench::new().await;
    let keyed = |number| NewJob { idempotency_key: Some("k".to_owned()), ..numbered(number) };
    let alone = |number| NewJob { joins_equal: false, ..numbered(number) };
    let call = vec![numbered(1), numbered(1), numbered(2), keyed(3), keyed(3), alone(4), alone(4), numbered(4)];
    let enqueued = bench.store.enqueue(call, "test").await.unwrap();
    let facts: Vec<(JobId, bool)> = enqueued.iter().map(|enqueued| (enqueued.id, enqueued.created)).collect();
    let right = [(1, true), (1, false), (2, true), (3, true), (3, false), (4, true), (5, true), (4, false)];
    assert_eq!(facts, right);
    // A refusal late in the call undoes what came before it.
    let error = bench.store.enqueue(vec![numbered(6), numbered(6), keyed(7)], "test").await.unwrap_err();
    assert!(matches!(error, Error::KeyConflict(_)), "{error:?}");
    assert_eq!(bench.number("SELECT COUNT(*) FROM jobs").await, 5);
}

#[tokio::test]
async fn the_same_wish_of_many_callers_is_one_job() {
    let bench = Bench::new().await;
    let one = |answers: Vec<Result<JobId, Error>>| {
        let ids: BTreeSet<JobId> = answers.into_iter().map(Result::unwrap).collect();
        assert_eq!(ids.len(), 1, "{ids:?}");
    };
    one(callers(&bench, |_| numbered(1)).await);
    one(callers(&bench, |_| {
        let key = Some("nightly".to_owned());
        NewJob { idempotency_key: key, joins_equal: false, ..numbered(2) }
    })
    .await);
    assert_eq!(bench.number("SELECT COUNT(*) FROM jobs").await, 2);
    let apart = callers(&bench, |_| NewJob { joins_equal: false, ..numbered(3) }).await;
    assert_eq!(apart.into_iter().map(Result::unwrap).collect::<BTreeSet<_>>().len(), CALLERS);
}

#[tokio::test]
async fn the_same_wish_with_many_keys_is_one_job_that_all_the_keys_name() {
    let bench = Bench::new().await;
    let keyed = |number: usize| NewJob { idempotency_key: Some(format!("k{number}")), ..numbered(1) };
    let first: BTreeSet<JobId> = callers(&bench, keyed).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(first.len(), 1);
    let claim = bench.claim_one().await;
    bench.complete(claim).await;
    let again: BTreeSet<JobId> = callers(&bench, keyed).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(again, first, "it is finished, and the keys still name it");
}

#[tokio::test]
async fn what_is_due_becomes_pending_in_batches_until_nothing_is() {
    let bench = Bench::new().await;
    let at = Some(later(&bench.clock, 60));
    let jobs = (0..1200).map(|number| NewJob { run_at: at, ..numbered(number) }).collect();
    bench.store.enqueue(jobs, "test").await.unwrap();
    bench.enqueue(NewJob { run_at: Some(later(&bench.clock, 600)), ..numbered(5000) }).await;
    assert_eq!(bench.store.due().await.unwrap(), 0);
    bench.hand.advance(Duration::from_secs(60));
    let first = bench.store.due().await.unwrap();
    assert!((1..1200).contains(&first), "bounded: {first}");
    assert!(bench.store.waiting().await.unwrap().due, "the rest is seen");
    assert_eq!(first + bench.store.due().await.unwrap(), 1200);
    assert_eq!(bench.store.due().await.unwrap(), 0, "the last one's time has not come");
}

#[tokio::test]
async fn a_workers_row_stays_while_it_has_jobs() {
    let bench = Bench::new().await;
    let row = WorkerRow {
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
        queue: Some("slow".to_owned()),
        concurrency: 3,
        started_at: bench.clock.now(),
        seen_at: bench.clock.now(),
    };
    bench.store.worker_start(row.clone()).await.unwrap();
    bench.enqueue(numbered(1)).await;
    let claim = bench.claim_one().await;
    bench.hand.advance(Duration::from_secs(5));
    assert!(bench.store.worker_seen(bench.worker).await.unwrap());
    let seen = bench.store.workers().await.unwrap().remove(0);
    assert_eq!((seen.queue, seen.concurrency, seen.seen_at), (row.queue, 3, bench.clock.now()));
    assert!(!bench.store.worker_gone(&row.id).await.unwrap(), "it has a job");
    bench.complete(claim).await;
    assert!(bench.store.worker_gone(&row.id).await.unwrap());
    assert!(!bench.store.worker_gone(&row.id).await.unwrap());
    assert!(!bench.store.worker_seen(bench.worker).await.unwrap());
}

#[tokio::test]
async fn temporary_files_are_known_by_worker_until_they_are_forgotten() {
    let bench = Bench::new().await;
    let other = Uuid::now_v7();
    let fence = Fence { job: 1, epoch: 1 };
    for (path, worker) in [("/t/b", bench.worker), ("/t/a", bench.worker), ("/t/c", other)] {
        bench.store.temp_register(path.to_owned(), worker, fence).await.unwrap();
    }
    let mut mine = bench.store.temp_files_of(&bench.worker.to_string()).await.unwrap();
    mine.sort();
    assert_eq!(mine, ["/t/a", "/t/b"]);
    let workers: BTreeSet<String> = bench.store.temp_workers().await.unwrap().into_iter().collect();
    assert_eq!(workers, BTreeSet::from([bench.worker.to_string(), other.to_string()]));
    bench.store.temp_forget(vec!["/t/a".to_owned(), "/t/b".to_owned(), "/t/unknown".to_owned()]).await.unwrap();
    assert!(bench.store.temp_files_of(&bench.worker.to_string()).await.unwrap().is_empty());
    assert_eq!(bench.store.temp_files_of(&other.to_string()).await.unwrap(), ["/t/c"]);
}
