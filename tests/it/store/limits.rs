//! What holds claims back: limits of queues and registries, paused queues, busy targets, and how little they cost others.

use super::{Bench, TTL, copy, numbered};
use freightliner::job::{JobId, NewJob};
use freightliner::store::{Claim, ClaimRequest, Error, Held, QueueChange, QueueRow, Work};
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

fn ids(claims: &[Claim]) -> Vec<JobId> {
    claims.iter().map(|claim| claim.job.id).collect()
}

fn queued(queue: &str, number: usize) -> NewJob {
    NewJob { queue: queue.to_owned(), ..numbered(number) }
}

async fn change(bench: &Bench, queue: &str, change: QueueChange) -> bool {
    bench.store.queue_change(queue, change, "cli:me").await.unwrap()
}

fn request(room: usize, limits: &[(&str, u32)]) -> ClaimRequest {
    ClaimRequest {
        worker: Uuid::now_v7(),
        room,
        queue: None,
        only: None,
        lease_ttl: TTL,
        registry_limits: Arc::new(limits.iter().map(|(name, limit)| ((*name).to_owned(), *limit)).collect()),
    }
}

#[tokio::test]
async fn a_queue_runs_at_most_its_limit_and_others_as_many_as_they_have() {
    let bench = Bench::new().await;
    for number in 0..4 {
        bench.enqueue(queued("slow", number)).await;
    }
    bench.enqueue(queued("quick", 9)).await;
    assert!(change(&bench, "slow", QueueChange::Limit(Some(2))).await);
    let mut claims = bench.claim(10).await;
    assert_eq!(ids(&claims), [1, 2, 5]);
    assert!(bench.claim(10).await.is_empty(), "the limit counts what runs");
    assert!(bench.claim_as(bench.worker, 1, None, Some(3)).await.is_empty(), "also for a job that is named");
    bench.complete(claims.remove(0)).await;
    assert_eq!(ids(&bench.claim(10).await), [3]);
    assert!(change(&bench, "slow", QueueChange::Limit(None)).await);
    assert_eq!(ids(&bench.claim(10).await), [4], "lifted");
}

#[tokio::test]
async fn a_claim_that_is_sent_behind_an_end_finds_its_place_free() {
    let bench = Bench::new().await;
    for number in 0..40 {
        bench.enqueue(queued("slow", number)).await;
    }
    assert!(change(&bench, "slow", QueueChange::Limit(Some(1))).await);
    let mut claim = bench.claim(1).await.remove(0);
    for _ in 1..40 {
        let ((), claimed) = if bench.store.is_in_order() {
            // Both are under way; nobody waits for the first answer.
            tokio::join!(bench.complete(claim), bench.claim(1))
        } else {
            (bench.complete(claim).await, bench.claim(1).await)
        };
        claim = claimed.into_iter().next().expect("the limit lets one more run");
    }
}

#[tokio::test]
async fn what_runs_goes_on_when_a_limit_falls_or_the_queue_is_paused() {
    let bench = Bench::new().await;
    for number in 0..4 {
        bench.enqueue(queued("slow", number)).await;
    }
    let mut claims = bench.claim(3).await;
    assert!(change(&bench, "slow", QueueChange::Limit(Some(1))).await);
    assert!(change(&bench, "slow", QueueChange::Pause).await);
    for claim in &claims {
        assert_eq!(bench.store.renew(claim.fence(), TTL, Work::default()).await.unwrap(), Held::Yes);
    }
    assert!(change(&bench, "slow", QueueChange::Resume).await);
    bench.complete(claims.remove(0)).await;
    assert!(bench.claim(1).await.is_empty(), "two run, one may");
    for claim in claims {
        bench.complete(claim).await;
    }
    assert_eq!(ids(&bench.claim(4).await), [4]);
}

#[tokio::test]
async fn a_registry_is_written_by_so_many_jobs_on_all_workers_together() {
    let bench = Bench::new().await;
    for number in 0..4 {
        bench.enqueue(numbered(number)).await;
    }
    bench.enqueue(copy("a.example/x:1", "c.example/x:1")).await;
    let limits = [("b.example", 2), ("unused.example", 1)];
    let first = bench.store.claim(request(1, &limits)).await.unwrap();
    let second = bench.store.claim(request(9, &limits)).await.unwrap();
    assert_eq!((ids(&first), ids(&second)), (vec![1], vec![2, 5]));
    assert!(bench.store.claim(request(9, &limits)).await.unwrap().is_empty());
    for claim in first {
        bench.complete(claim).await;
    }
    assert_eq!(ids(&bench.store.claim(request(9, &limits)).await.unwrap()), [3]);
    assert_eq!(ids(&bench.store.claim(request(9, &[])).await.unwrap()), [4], "who has no limit has none");
}

#[tokio::test]
async fn limits_hold_when_many_ask_at_once() {
    let bench = Bench::new().await;
    for number in 0..60_usize {
        let queue = ["even", "odd"][number % 2];
        let registry = ["b.example", "c.example", "d.example"][number % 3];
        let job = copy(&format!("a.example/x:{number}"), &format!("{registry}/x:{number}"));
        bench.enqueue(NewJob { queue: queue.to_owned(), ..job }).await;
    }
    change(&bench, "even", QueueChange::Limit(Some(7))).await;
    let mut askers = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let store = bench.store.clone();
        askers.spawn(async move { store.claim(request(3, &[("b.example", 4), ("c.example", 5)])).await.unwrap() });
    }
    let claims: Vec<Claim> = askers.join_all().await.into_iter().flatten().collect();
    let mut by: BTreeMap<&str, usize> = BTreeMap::new();
    for claim in &claims {
        *by.entry(&claim.job.queue).or_default() += 1;
        *by.entry(claim.dest_key.split('/').next().unwrap()).or_default() += 1;
    }
    assert!(by["b.example"] <= 4 && by["c.example"] <= 5, "{by:?}");
    let again = bench.store.claim(request(99, &[("b.example", 4), ("c.example", 5)])).await.unwrap();
    assert!(again.is_empty(), "all that may run runs: {by:?}, and then {:?}", ids(&again));
    assert_eq!(by["even"], 7, "there are more, and no more may run: {by:?}");
    let even = |claim: &&Claim| claim.job.queue == "even" && claim.dest_key.starts_with("d.example");
    assert_eq!(by["d.example"], 10 + claims.iter().filter(even).count(), "the odd ones have no limit there");
}

#[tokio::test]
async fn the_best_of_many_pairs_of_queue_and_registry_come_first() {
    let bench = Bench::new().await;
    let mut jobs = Vec::new();
    for queue in 0..25_usize {
        for registry in 0..16_usize {
            let number = queue * 16 + registry;
            let destination = format!("r{registry}.example/x:{number}");
            // Neither the order of queues nor of registries is that of priorities.
            let priority = i64::try_from((number * 37) % 101).unwrap();
            let queue = format!("q{queue}");
            jobs.push(NewJob { queue, priority, ..copy(&format!("a.example/x:{number}"), &destination) });
        }
    }
    let mut best: Vec<(i64, JobId)> = jobs.iter().zip(1..).map(|(job, id)| (job.priority, id)).collect();
    best.sort_unstable();
    bench.store.enqueue(jobs, "test").await.unwrap();
    let best: Vec<JobId> = best.into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids(&bench.claim(30).await), best[..30]);
    assert_eq!(ids(&bench.claim(1000).await), best[30..]);
}

#[tokio::test]
async fn thousands_of_rows_that_may_not_run_hide_nothing() {
    let bench = Bench::new().await;
    let many = |of: &str| -> Vec<NewJob> {
        let job = |tag: usize| match of {
            // 1,500 sources for each of two targets.
            "busy" => copy(&format!("a.example/x:{tag}"), &format!("b.example/busy:{}", tag % 2)),
            _ => copy(&format!("a.example/x:{tag}"), &format!("b.example/{of}:{tag}")),
        };
        (0..3000).map(|tag| NewJob { queue: of.to_owned(), priority: 1, ..job(tag) }).collect()
    };
    for of in ["paused", "full", "busy"] {
        bench.store.enqueue(many(of), "test").await.unwrap();
    }
    let registry_full =
        (0..3000).map(|tag| NewJob { priority: 1, ..copy("a.example/x:1", &format!("c.example/x:{tag}")) });
    bench.store.enqueue(registry_full.collect(), "test").await.unwrap();
    change(&bench, "paused", QueueChange::Pause).await;
    change(&bench, "full", QueueChange::Limit(Some(1))).await;
    let ask = || bench.store.claim(request(4, &[("c.example", 1)]));
    let first = ask().await.unwrap();
    assert_eq!(first.len(), 4, "one of the full queue, one of the full registry, two targets: {:?}", ids(&first));
    assert!(ask().await.unwrap().is_empty());
    let free = NewJob { queue: "busy".to_owned(), ..numbered(1) };
    let free = [bench.enqueue(free).await, bench.enqueue(numbered(2)).await];
    assert_eq!(ids(&ask().await.unwrap()), free);
}

#[tokio::test]
async fn a_change_of_a_queue_is_recorded_and_one_that_changes_nothing_is_not() {
    let bench = Bench::new().await;
    assert!(!change(&bench, "slow", QueueChange::Resume).await, "it was never paused");
    assert!(!change(&bench, "slow", QueueChange::Limit(None)).await, "it never had a limit");
    assert!(change(&bench, "slow", QueueChange::Pause).await);
    assert!(!change(&bench, "slow", QueueChange::Pause).await);
    assert!(change(&bench, "slow", QueueChange::Limit(Some(3))).await);
    assert!(!change(&bench, "slow", QueueChange::Limit(Some(3))).await);
    assert!(change(&bench, "slow", QueueChange::Resume).await);
    assert!(!change(&bench, "slow", QueueChange::Resume).await);
    bench.sql("UPDATE queues SET max_running = 9 WHERE name = 'slow'").await.unwrap();
    bench.sql("UPDATE queues SET max_running = 9 WHERE name = 'slow'").await.unwrap();
    assert_eq!(bench.number("SELECT COUNT(*) FROM audit_queues").await, 4);
    assert_eq!(bench.number("SELECT COUNT(*) FROM audit_queues WHERE actor = 'cli:me'").await, 3);
    let last = "SELECT COUNT(*) FROM audit_queues WHERE actor = 'sql' AND max_running = 9 AND id = 4";
    assert_eq!(bench.number(last).await, 1);
    for statement in ["UPDATE queue_changes SET actor = 'nobody'", "DELETE FROM queue_changes"] {
        assert!(bench.sql(statement).await.unwrap_err().contains("history is never"), "{statement}");
    }
}

#[tokio::test]
async fn names_and_limits_that_cannot_be_are_refused() {
    let bench = Bench::new().await;
    let long = "q".repeat(129);
    for name in ["", "a\nb", long.as_str()] {
        let error = bench.store.queue_change(name, QueueChange::Pause, "cli:me").await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{name:?}: {error:?}");
    }
    for limit in [0, 1_000_001] {
        let error = bench.store.queue_change("slow", QueueChange::Limit(Some(limit)), "cli:me").await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{limit}: {error:?}");
    }
    for limit in [0, -1, 1_000_001] {
        bench.sql(&format!("INSERT INTO queues (name, max_running) VALUES ('slow', {limit})")).await.unwrap_err();
    }
    assert_eq!(bench.number("SELECT COUNT(*) FROM queues").await, 0);
}

#[tokio::test]
async fn queues_are_those_with_a_row_or_unfinished_jobs() {
    let bench = Bench::new().await;
    change(&bench, "empty", QueueChange::Limit(Some(5))).await;
    for number in 0..3 {
        bench.enqueue(queued("slow", number)).await;
    }
    let done = bench.enqueue(queued("done", 9)).await;
    let claim = bench.claim_as(bench.worker, 1, None, Some(done)).await.remove(0);
    bench.complete(claim).await;
    let _running = bench.claim_as(bench.worker, 1, Some("slow"), None).await;
    let tomorrow = NewJob { run_at: Some(super::later(&bench.clock, 86_400)), ..queued("slow", 5) };
    bench.enqueue(tomorrow).await;
    change(&bench, "slow", QueueChange::Pause).await;
    bench.hand.advance(std::time::Duration::from_secs(60));
    let row = |name: &str, limit, [scheduled, pending, running]: [u64; 3]| QueueRow {
        name: name.to_owned(),
        paused_at: None,
        max_running: limit,
        scheduled,
        pending,
        running,
        oldest_pending_age_ms: (pending > 0).then_some(60_000),
    };
    let mut queues = bench.store.queues().await.unwrap();
    assert!(queues[1].paused_at.take().is_some());
    assert_eq!(queues, [row("empty", Some(5), [0, 0, 0]), row("slow", None, [1, 2, 1])]);
    let depth =
        "SELECT COUNT(*) FROM queue_depth WHERE queue = 'slow' AND scheduled = 1 AND pending = 2 AND running = 1";
    assert_eq!(bench.number(depth).await, 1);
    assert_eq!(bench.number("SELECT max_running FROM queue_depth WHERE queue = 'empty'").await, 5);
}
