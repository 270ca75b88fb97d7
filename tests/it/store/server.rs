//! The database as a server: connections that end, locks of others, poolers, several who migrate.

use super::{Bench, TTL, copy, numbered};
use crate::support::cluster::Cluster;
use crate::support::database::Database;
use crate::support::pgbouncer::PgBouncer;
use crate::support::proxy::Proxy;
use crate::support::{PATIENCE, unix_seconds};
use freightliner::clock::Clock;
use freightliner::job::{JobId, NewJob, Report, State};
use freightliner::store::{Claim, ClaimRequest, Confirmed, Error, Held, Outcome, Settled, Store, Work};
use sqlx::{AssertSqlSafe, Connection, Executor};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use uuid::Uuid;

/// A second claim of the same attempt, as a caller has it that asks again.
fn again(claim: &Claim) -> Claim {
    Claim { job: claim.job.clone(), dest_key: claim.dest_key.clone() }
}

fn completed() -> Outcome {
    Outcome::Completed(Report::default())
}

fn request(worker: Uuid, room: usize) -> ClaimRequest {
    ClaimRequest { worker, room, queue: None, only: None, lease_ttl: TTL, registry_limits: Arc::default() }
}

async fn open(url: &str) -> Result<Store, Error> {
    Store::open(&url.parse().unwrap(), Clock::System).await
}

/// A bench behind a proxy; None, said loudly, without PostgreSQL.
async fn behind_proxy() -> Option<(Bench, Proxy, Store)> {
    let database = Database::postgres()?;
    let Database::Postgres { own } = &database else { unreachable!("asked for a server") };
    let proxy = Proxy::start(own.cluster.socket().to_owned()).await;
    let url = format!("postgres://postgres@{}/{}?sslmode=disable", proxy.address, own.name);
    let store = open(&url).await.unwrap();
    Some((Bench::on(database).await, proxy, store))
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_claims_nothing_more() {
    let Some(database) = Database::postgres() else { return };
    let bench = Bench::on(database).await;
    bench.enqueue(numbered(1)).await;
    bench
        .sql("INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (999, 'future', '', 0)")
        .await
        .unwrap();
    let Err(Error::Unusable(message)) = open(&bench.database.url()).await else { panic!("it was opened") };
    assert!(message.contains("999") && message.contains("newer") && message.contains("upgrade"), "{message}");
    let error = bench.store.claim(request(bench.worker, 1)).await.unwrap_err();
    assert!(matches!(&error, Error::Outdated(message) if message.contains("999")), "{error:?}");
}

#[tokio::test]
async fn another_programs_tables_are_refused() {
    let Some(database) = Database::postgres() else { return };
    let mut other = sqlx::PgConnection::connect(&database.url()).await.unwrap();
    other.execute("CREATE TABLE jobs (name TEXT)").await.unwrap();
    let Err(Error::Unusable(message)) = open(&database.url()).await else { panic!("it was opened") };
    assert!(message.contains("another program") && message.contains("`jobs`"), "{message}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_without_a_password() {
    let Err(error) = open("postgres://me:secret@127.0.0.1:1/jobs").await else { panic!("it was opened") };
    let message = error.to_string();
    assert!(message.contains("127.0.0.1:1") && message.contains("***") && !message.contains("secret"), "{message}");
}

#[tokio::test]
async fn several_may_migrate_at_once() {
    let Some(database) = Database::postgres() else { return };
    let url = database.url();
    let (one, two, three) = tokio::join!(open(&url), open(&url), open(&url));
    let (one, two, three) = (one.unwrap(), two.unwrap(), three.unwrap());
    one.enqueue(vec![numbered(1)], "test").await.unwrap();
    two.enqueue(vec![numbered(2)], "test").await.unwrap();
    assert_eq!(three.stats().await.unwrap().pending, 2);
    for store in [one, two, three] {
        store.close().await;
    }
}

#[tokio::test]
async fn a_schema_of_its_own_is_found_by_the_search_path_and_its_rules_by_nobodys() {
    let Some(database) = Database::postgres() else { return };
    let mut other = sqlx::PgConnection::connect(&database.url()).await.unwrap();
    other.execute("CREATE SCHEMA ours").await.unwrap();
    let store = open(&format!("{}&options[search_path]=ours", database.url())).await.unwrap();
    // A client with another search_path runs the same rules.
    other.execute("INSERT INTO ours.jobs (source, destination) VALUES ('alpine', 'b.example/x:1')").await.unwrap();
    other.execute("UPDATE ours.jobs SET state = 'completed'").await.unwrap_err();
    other.execute("UPDATE ours.jobs SET priority = 5").await.unwrap();
    assert_eq!(store.intake().await.unwrap().accepted, 1);
    assert_eq!(store.claim(request(Uuid::now_v7(), 1)).await.unwrap().len(), 1);
    assert!(store.check().await.unwrap().is_empty());
    assert_eq!(store.events(1).await.unwrap().len(), 3);
}

#[tokio::test]
async fn rows_that_somebody_else_has_locked_stop_nobody_else() {
    let Some(database) = Database::postgres() else { return };
    let bench = Bench::on(database).await;
    for number in 1..=4 {
        bench.enqueue(numbered(number)).await;
    }
    let (held, free) = (bench.claim_one().await, bench.claim_one().await);
    let mut other = bench.foreign_session().await;
    other.execute("BEGIN; SELECT * FROM jobs WHERE id IN (1, 3) FOR UPDATE").await.unwrap();
    assert_eq!(bench.claim(9).await.iter().map(|claim| claim.job.id).collect::<Vec<_>>(), [4], "3 is passed over");
    assert!(bench.claim(9).await.is_empty());
    // One renewal waits for the lock, the other one does not wait for it.
    let locked = bench.store.renew(held.fence(), TTL, Work::default());
    let unlocked = bench.store.renew(free.fence(), TTL, Work::default());
    let (locked, unlocked) = tokio::join!(locked, unlocked);
    assert_eq!(unlocked.unwrap(), Held::Yes);
    assert!(matches!(locked, Err(Error::Backend { busy: true, .. })), "{locked:?}");
    let done = completed();
    let settled = bench.store.settle(held, &done, Work::default(), &[]);
    tokio::pin!(settled);
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut settled).await.is_err());
    other.execute("COMMIT").await.unwrap();
    assert_eq!(settled.await.unwrap(), Settled::Now(State::Completed));
    assert_eq!(bench.claim_one().await.job.id, 3);
}

#[tokio::test]
async fn a_job_that_somebody_starts_by_hand_holds_a_claim_up_for_a_few_seconds_at_a_time() {
    let Some(database) = Database::postgres() else { return };
    let bench = Bench::on(database).await;
    let (by_hand, urgent) = (copy("a.example/x:1", "b.example/x:1"), copy("a.example/x:2", "b.example/x:1"));
    for job in [by_hand, NewJob { priority: 5, ..urgent }, numbered(3)] {
        bench.enqueue(job).await;
    }
    let mut other = bench.foreign_session().await;
    let start = "BEGIN; UPDATE jobs SET state = 'running', attempt = 1, lease_epoch = 1, worker = 'me', \
        lease_until = 4000000000000, started_at = 1 WHERE id = 1";
    other.execute(start).await.unwrap();
    let start = tokio::time::Instant::now();
    let error = bench.store.claim(request(bench.worker, 9)).await.unwrap_err();
    assert!(matches!(&error, Error::Backend { busy: true, message } if message.contains("locked")), "{error:?}");
    // The lock is waited for once: a worker has cancels and signals to look at.
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    other.execute("ROLLBACK").await.unwrap();
    assert_eq!(bench.claim(9).await.iter().map(|claim| claim.job.id).collect::<Vec<_>>(), [2, 3]);
}

#[tokio::test]
async fn who_passed_over_a_locked_row_hears_at_once_that_it_is_free() {
    let Some(database) = Database::postgres() else { return };
    let bench = Bench::on(database).await;
    bench.enqueue(numbered(1)).await;
    let listens = "SELECT COUNT(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND state = 'idle' \
        AND datname = current_database()";
    while bench.number(listens).await == 0 {
        bench.store.changed(Duration::from_millis(50)).await.unwrap();
    }
    let mut waited = Duration::ZERO;
    for _ in 0..4 {
        let mut other = bench.foreign_session().await;
        other.execute("BEGIN; SELECT * FROM jobs FOR UPDATE").await.unwrap();
        assert!(bench.claim(1).await.is_empty());
        // Whatever is left over from before.
        while tokio::time::timeout(Duration::from_millis(200), bench.store.changed(PATIENCE)).await.is_ok() {}
        let start = tokio::time::Instant::now();
        // Nobody is notified of that.
        let (changed, rolled_back) = tokio::join!(bench.store.changed(PATIENCE), other.execute("ROLLBACK"));
        changed.unwrap();
        rolled_back.unwrap();
        waited += start.elapsed();
    }
    // Without a word from the claim it would be looked once in a second.
    assert!(waited < Duration::from_secs(2), "{waited:?}");
    assert_eq!(bench.claim_one().await.job.id, 1);
}

#[tokio::test]
async fn what_a_claim_that_was_left_behind_waits_for_does_not_hold_the_enqueue_up() {
    let Some(database) = Database::postgres() else { return };
    let bench = Bench::on(database).await;
    let claimed = async |number: usize, patience: Duration| {
        let standing = bench.store.stand(request(bench.worker, 9));
        let enqueue = bench.store.enqueue(vec![numbered(number)], "test");
        tokio::time::timeout(patience, enqueue).await.expect("soon").unwrap();
        standing.withdraw().await.unwrap().map(|stood| stood.claims.len())
    };
    assert_eq!(claimed(1, PATIENCE).await, Some(1));
    // Somebody else has his turn to claim.
    let mut other = bench.foreign_session().await;
    let turn = "BEGIN; SELECT pg_advisory_xact_lock(hashtext('freightliner claims'), hashtext(current_schema()))";
    other.execute(turn).await.unwrap();
    assert_eq!(claimed(2, PATIENCE).await, Some(0));
    other.execute("ROLLBACK").await.unwrap();
    // Somebody has started a job by hand, to the target of another one, and does not come to an end.
    let (by_hand, equal) = (copy("a.example/x:1", "b.example/x:1"), copy("a.example/x:2", "b.example/x:1"));
    let id = bench.enqueue(by_hand).await;
    bench.enqueue(NewJob { priority: 5, ..equal }).await;
    let start = format!(
        "BEGIN; UPDATE jobs SET state = 'running', attempt = 1, lease_epoch = 1, worker = 'me', \
         lease_until = 4000000000000, started_at = 1 WHERE id = {id}"
    );
    other.execute(AssertSqlSafe(start)).await.unwrap();
    // A claim of its own would wait for three seconds.
    assert_eq!(claimed(3, Duration::from_secs(2)).await, Some(0));
    other.execute("ROLLBACK").await.unwrap();
    // Many jobs are no matter for one claim.
    let standing = bench.store.stand(request(bench.worker, 9));
    bench.store.enqueue((100..200).map(numbered).collect(), "test").await.unwrap();
    assert!(standing.withdraw().await.unwrap().is_none());
    // Nor is a schema that it does not know, and the jobs are there.
    let newer = "INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (999, 'future', '', 0)";
    bench.sql(newer).await.unwrap();
    assert_eq!(claimed(4, PATIENCE).await, Some(0));
    assert_eq!(bench.number("SELECT COUNT(*) FROM jobs WHERE state = 'pending'").await, 105);
}

#[tokio::test]
async fn an_end_that_is_asked_for_again_has_the_same_answer() {
    let Some(database) = Database::postgres() else { return };
    let bench = Bench::on(database).await;
    let id = bench.enqueue(numbered(1)).await;
    let claim = bench.claim_one().await;
    let second = again(&claim);
    bench.complete(claim).await;
    let settled = bench.store.settle(second, &completed(), Work::default(), &[]).await.unwrap();
    assert_eq!(settled, Settled::Now(State::Completed));
    assert_eq!(bench.store.events(id).await.unwrap().len(), 3, "enqueued, claimed, completed");
}

#[tokio::test]
async fn an_answer_that_is_lost_is_asked_for_again_where_that_is_harmless() {
    let Some((bench, proxy, store)) = behind_proxy().await else { return };
    let worker = Uuid::now_v7();
    let lost = |work: &str| assert!(proxy.has_lost(), "{work}: the answer was lost");
    // So that the sessions are there and know their statements.
    assert!(store.claim(request(worker, 5)).await.unwrap().is_empty());
    store.enqueue(vec![numbered(1)], "test").await.unwrap();

    proxy.lose_next_answer();
    let error = store.claim(request(worker, 5)).await.unwrap_err();
    lost("claim");
    assert!(error.is_transient(), "{error}");
    // The job may run under our name by now: then the next claim finds it.
    let claim = store.claim(request(worker, 5)).await.unwrap().remove(0);
    assert_eq!((claim.job.id, claim.job.attempt, claim.job.lease_epoch), (1, 1, 1));
    assert_eq!(store.leases().await.unwrap()[0].beat, 1, "its lease holds from now on");
    assert!(store.claim(request(worker, 5)).await.unwrap().is_empty(), "it is found once");

    proxy.lose_next_answer();
    assert_eq!(store.renew(claim.fence(), TTL, Work::default()).await.unwrap(), Held::Yes);
    lost("renew");
    proxy.lose_next_answer();
    assert_eq!(store.confirm(&claim, TTL, Work::default()).await.unwrap(), Confirmed::Yes);
    lost("confirm");
    proxy.lose_next_answer();
    let settled = store.settle(claim, &completed(), Work::default(), &[]).await.unwrap();
    lost("settle");
    assert_eq!(settled, Settled::Now(State::Completed));
    assert_eq!(bench.number("SELECT COUNT(*) FROM job_events WHERE to_state = 'completed'").await, 1);

    // Not so where it would happen twice: the caller is told what is not known. With a key it may ask again.
    let keyed = NewJob { idempotency_key: Some("k".to_owned()), ..numbered(2) };
    store.enqueue(vec![keyed.clone()], "test").await.unwrap();
    proxy.lose_next_answer();
    let outcome = store.enqueue(vec![numbered(3)], "test").await;
    lost("enqueue");
    match outcome {
        Err(Error::Backend { message, .. }) => assert!(message.contains("not known"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert!(!store.enqueue(vec![keyed], "test").await.unwrap()[0].created);
    // So it is with a claim behind it: the job may run under our name, and the next claim finds it.
    while !store.claim(request(worker, 5)).await.unwrap().is_empty() {}
    let standing = store.stand(request(worker, 5));
    store.enqueue(vec![numbered(5)], "test").await.unwrap();
    assert_eq!(standing.withdraw().await.unwrap().unwrap().claims.len(), 1);
    let standing = store.stand(request(worker, 5));
    proxy.lose_next_answer();
    assert!(store.enqueue(vec![numbered(4)], "test").await.is_err());
    lost("enqueue with a claim behind it");
    assert!(standing.withdraw().await.unwrap().is_none_or(|stood| stood.claims.is_empty()));
    let claims = store.claim(request(worker, 5)).await.unwrap();
    assert_eq!(claims.iter().map(|claim| claim.job.source.as_str()).collect::<Vec<_>>(), ["a.example/app:4"]);
    assert!(bench.store.check().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up_and_found_again() {
    let Some((bench, proxy, store)) = behind_proxy().await else { return };
    bench.enqueue(numbered(1)).await;
    let claim = store.claim(request(Uuid::now_v7(), 1)).await.unwrap().remove(0);
    proxy.die();
    let renewed = tokio::time::timeout(PATIENCE, store.renew(claim.fence(), TTL, Work::default()));
    let error = renewed.await.expect("it is not waited for ever").unwrap_err();
    assert!(error.is_transient(), "{error}");
    proxy.recover();
    assert_eq!(store.renew(claim.fence(), TTL, Work::default()).await.unwrap(), Held::Yes);
}

/// Enqueues, claims, renews and settles until told to stop, and tolerates only errors that pass. Returns the ids of jobs that
/// were acknowledged.
async fn work(store: Store, number: usize, stop: Arc<AtomicBool>) -> Vec<JobId> {
    let worker = Uuid::now_v7();
    let mut acknowledged = Vec::new();
    let mut round = 0;
    let mut stood = Vec::new();
    loop {
        round += 1;
        let stopping = stop.load(Ordering::SeqCst);
        if !stopping {
            let job = copy("a.example/x:1", &format!("b.example/x{number}:{round}"));
            // Every second round a claim waits for it.
            let standing = (round % 2 == 0).then(|| store.stand(request(worker, 3)));
            match store.enqueue(vec![job], "test").await {
                Ok(enqueued) => acknowledged.push(enqueued[0].id),
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
            if let Some(standing) = standing {
                stood.extend(standing.withdraw().await.unwrap().map_or(Vec::new(), |stood| stood.claims));
            }
        }
        let claims = match store.claim(request(worker, 3)).await {
            Ok(claims) => claims,
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                continue;
            }
        };
        if stopping && claims.is_empty() && stood.is_empty() {
            return acknowledged;
        }
        for claim in stood.drain(..).chain(claims) {
            if let Err(error) = store.renew(claim.fence(), TTL, Work::default()).await {
                assert!(error.is_transient(), "{error}");
            }
            let mut claim = Some(claim);
            while let Some(held) = claim.take() {
                if let Err(unsettled) = store.settle(held, &completed(), Work::default(), &[]).await {
                    assert!(unsettled.error.is_transient(), "{}", unsettled.error);
                    claim = Some(unsettled.claim);
                }
            }
        }
    }
}

/// Runs several at work while `disturb` does its worst; then everything that was acknowledged is done, exactly once.
async fn nothing_is_lost(database: Database, disturb: impl AsyncFnOnce(&Bench)) {
    let bench = Bench::on(database).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut at_work = JoinSet::new();
    for number in 0..4 {
        let store = open(&bench.database.url()).await.unwrap();
        at_work.spawn(work(store, number, stop.clone()));
    }
    disturb(&bench).await;
    stop.store(true, Ordering::SeqCst);
    let acknowledged: Vec<JobId> = at_work.join_all().await.into_iter().flatten().collect();
    assert!(acknowledged.len() > 10, "{} jobs are too few to say anything", acknowledged.len());
    for id in acknowledged {
        assert_eq!(bench.state(id).await, State::Completed, "job {id}");
    }
    assert_eq!(bench.number("SELECT COUNT(*) FROM jobs WHERE state <> 'completed'").await, 0);
    assert_eq!(bench.store.check().await.unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_are_terminated_at_random_lose_nothing() {
    let Some(database) = Database::postgres() else { return };
    nothing_is_lost(database, async |bench| {
        let mut killer = bench.foreign_session().await;
        for _ in 0..40 {
            let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY random() LIMIT 2";
            killer.execute(kill).await.unwrap();
            let seen = "SELECT pg_sleep(0.02 + random() * 0.05)";
            killer.execute(seen).await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_and_comes_back_loses_nothing() {
    let Some(cluster) = Cluster::own() else { return };
    nothing_is_lost(Database::on(cluster.clone()), async |bench| {
        for _ in 0..2 {
            bench.foreign_session().await.execute("SELECT pg_sleep(1)").await.unwrap();
            let cluster = cluster.clone();
            tokio::task::spawn_blocking(move || cluster.crash_and_restart()).await.unwrap();
        }
        bench.foreign_session().await.execute("SELECT pg_sleep(1)").await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn rows_of_others_are_heard_of_and_without_listening_they_are_seen() {
    let Some(database) = Database::postgres() else { return };
    let bench = Bench::on(database).await;
    let store = &bench.store;
    let noticed = async || {
        // Whatever is left over from before.
        while tokio::time::timeout(Duration::from_millis(300), store.changed(PATIENCE)).await.is_ok() {}
        let insert = bench.sql("INSERT INTO jobs (source, destination) VALUES ('a', 'b')");
        let start = tokio::time::Instant::now();
        let (changed, inserted) = tokio::join!(store.changed(PATIENCE), insert);
        changed.unwrap();
        inserted.unwrap();
        start.elapsed()
    };
    assert!(noticed().await < PATIENCE / 2);
    // The listener's session ends: what polls beneath it notices, until it listens again.
    bench.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'").await.unwrap();
    assert!(noticed().await < PATIENCE / 2);
}

#[tokio::test]
async fn a_transaction_pooler_may_stand_between() {
    let Some(database) = Database::postgres() else { return };
    let Database::Postgres { own } = &database else { unreachable!("asked for a server") };
    let Some(bouncer) = PgBouncer::start(own) else { return };
    let store = open(&bouncer.url()).await.unwrap();
    let mut callers = JoinSet::new();
    for number in 0..60 {
        let store = store.clone();
        callers.spawn(async move { store.enqueue(vec![numbered(number)], "test").await.unwrap()[0].id });
    }
    assert_eq!(callers.join_all().await.len(), 60);
    store.changed(PATIENCE).await.unwrap();
    let mut shell =
        database.shell("INSERT INTO jobs (source, destination) VALUES ('alpine', 'b.example/bare:1')").unwrap();
    let insert = tokio::task::spawn_blocking(move || shell.output().unwrap());
    let (changed, inserted) = tokio::join!(store.changed(PATIENCE), insert);
    changed.unwrap();
    assert!(inserted.unwrap().status.success());
    assert_eq!(store.intake().await.unwrap().accepted, 1);
    let claims = store.claim(request(Uuid::now_v7(), 100)).await.unwrap();
    assert_eq!(claims.len(), 61);
    let mut ends = JoinSet::new();
    for claim in claims {
        let store = store.clone();
        ends.spawn(async move {
            assert_eq!(store.renew(claim.fence(), TTL, Work::default()).await.unwrap(), Held::Yes);
            store.settle(claim, &completed(), Work::default(), &[]).await.unwrap()
        });
    }
    assert!(ends.join_all().await.iter().all(|settled| *settled == Settled::Now(State::Completed)));
    // An error inside leaves no transaction behind.
    let broken = NewJob { priority: i64::from(i32::MAX) + 1, ..numbered(99) };
    assert!(matches!(store.enqueue(vec![broken], "test").await, Err(Error::Invalid(_))));
    for _ in 0..4 {
        assert_eq!(store.query("SELECT COUNT(*) FROM jobs", 5, PATIENCE).await.unwrap().rows[0][0], 61);
    }
    assert!(store.check().await.unwrap().is_empty());
    assert!(store.info().await.unwrap().url.contains("pooler=transaction"));
    store.close().await;
}

/// How long it takes in all until four rows of somebody else's are noticed, one after the other.
async fn noticing(bench: &Bench, store: &Store) -> Duration {
    let mut waited = Duration::ZERO;
    for _ in 0..4 {
        // Whatever is left over from before.
        while tokio::time::timeout(Duration::from_millis(300), store.changed(PATIENCE)).await.is_ok() {}
        let start = tokio::time::Instant::now();
        let insert = bench.sql("INSERT INTO jobs (source, destination) VALUES ('a', 'b')");
        let (changed, inserted) = tokio::join!(store.changed(PATIENCE), insert);
        changed.unwrap();
        inserted.unwrap();
        waited += start.elapsed();
    }
    waited
}

#[tokio::test]
async fn past_a_pooler_it_can_be_listened() {
    let (Some(database), Some(other)) = (Database::postgres(), Database::postgres()) else { return };
    let (Database::Postgres { own }, Database::Postgres { own: elsewhere }) = (&database, &other) else {
        unreachable!("asked for a server")
    };
    let Some(bouncer) = PgBouncer::start(own) else { return };
    let listening = |database: &str| {
        format!("SELECT COUNT(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = '{database}'")
    };
    let (here, there) = (listening(&own.name), listening(&elsewhere.name));
    let through = |url: &str| {
        let encoded: String = url::form_urlencoded::byte_serialize(url.as_bytes()).collect();
        format!("{}&listen={encoded}", bouncer.url())
    };
    let (right, wrong) = (through(&database.url()), through(&other.url()));
    let bench = Bench::on(database).await;

    let store = open(&right).await.unwrap();
    while bench.number(&here).await == 0 {
        store.changed(Duration::from_millis(50)).await.unwrap();
    }
    // Without a word from the server it would be looked once in a second.
    let waited = noticing(&bench, &store).await;
    assert!(waited < Duration::from_secs(2), "{waited:?}");
    store.close().await;

    // In another database it would wait for a word that never comes: it is not listened there, but looked often.
    let store = open(&wrong).await.unwrap();
    let waited = noticing(&bench, &store).await;
    assert!(waited < Duration::from_secs(2), "{waited:?}");
    assert_eq!(bench.number(&there).await, 0);
    store.close().await;
}

#[tokio::test]
async fn many_rows_that_cannot_run_do_not_slow_the_others() {
    let Some(database) = Database::postgres() else { return };
    let bench = Bench::on(database).await;
    // Behind a paused queue, behind a busy target, for later.
    let fill = "INSERT INTO jobs (source, destination, queue, priority, source_key, dest_key, dest_registry, options_key, \
        change_seq, run_at) SELECT 's', 'd', CASE n % 3 WHEN 0 THEN 'paused' ELSE 'default' END, 1, 's', \
        CASE n % 3 WHEN 1 THEN 'b.example/busy:1' ELSE 'b.example/x:' || n END, 'b.example', '{}', 1, \
        CASE n % 3 WHEN 2 THEN 4000000000000 ELSE 0 END FROM generate_series(1, 9000) AS n";
    bench.sql("INSERT INTO queues (name, paused_at) VALUES ('paused', 1)").await.unwrap();
    bench.sql(fill).await.unwrap();
    bench.sql("UPDATE jobs SET state = 'scheduled' WHERE run_at = 4000000000000 AND state = 'pending'").await.unwrap();
    assert_eq!(bench.claim_one().await.dest_key, "b.example/busy:1");
    let wanted = bench.enqueue(NewJob { priority: 500, ..copy("a.example/x:1", "c.example/wanted:1") }).await;
    assert_eq!(bench.claim_one().await.job.id, wanted);
    assert!(bench.claim(5).await.is_empty());
}

#[tokio::test]
async fn the_views_say_times_and_numbers_as_on_sqlite() {
    let mut tables = Vec::new();
    for database in Database::all() {
        let store = open(&database.url()).await.unwrap();
        store.enqueue(vec![numbered(1)], "test").await.unwrap();
        let claim = store.claim(request(Uuid::now_v7(), 1)).await.unwrap().remove(0);
        let report = Report { digest: "sha256:aa".to_owned(), bytes_copied: 5, ..Report::default() };
        store.settle(claim, &Outcome::Completed(report), Work::default(), &[]).await.unwrap();
        let mut views = Vec::new();
        for view in [
            "audit_jobs",
            "audit_events",
            "audit_attempts",
            "audit_transfers",
            "queue_depth",
            "stuck_jobs",
            "audit_prunes",
            "audit_queues",
        ] {
            let table = store.query(&format!("SELECT * FROM {view}"), 10, PATIENCE).await.unwrap();
            let kinds: Vec<Vec<String>> = table.rows.iter().map(|row| row.iter().map(kind).collect()).collect();
            views.push((view, table.columns, kinds));
        }
        tables.push(views);
        store.close().await;
    }
    if let [sqlite, postgres] = &tables[..] {
        assert_eq!(sqlite, postgres);
    }
}

/// What kind of value it is; texts other than times are themselves.
fn kind(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) if text.len() == 24 && text.ends_with('Z') && text.starts_with("20") => {
            let year = 1970 + unix_seconds() / 31_556_952;
            assert!(text.starts_with(&year.to_string()) || text.starts_with(&(year - 1).to_string()), "{text}");
            "a time".to_owned()
        }
        serde_json::Value::String(text) if text.starts_with('{') => "JSON".to_owned(),
        serde_json::Value::String(text) if text.len() == 36 => "a worker".to_owned(),
        serde_json::Value::Number(number) if number.is_f64() => "seconds".to_owned(),
        other => other.to_string(),
    }
}

/// Plain SQL with a key that somebody else is just giving to another job waits for him, and then does nothing.
#[tokio::test]
async fn a_key_whose_job_is_being_removed_stays_known() {
    let Some(database) = Database::postgres() else { return };
    let bench = Bench::on(database).await;
    let keyed = NewJob { idempotency_key: Some("k".to_owned()), ..numbered(1) };
    let id = bench.enqueue(keyed.clone()).await;
    let claim = bench.claim_one().await;
    bench.complete(claim).await;
    let (mut first, mut second) = (bench.foreign_session().await, bench.foreign_session().await);
    let insert = "INSERT INTO jobs (source, destination, idempotency_key) \
        VALUES ('a.example/x:1', 'b.example/x:1', 'k') ON CONFLICT DO NOTHING";
    // While the removal may still be taken back the insert waits.
    for (end, jobs) in [("ROLLBACK", 1), ("COMMIT", 0)] {
        let remove = format!("BEGIN; SELECT prune_jobs(ARRAY[{id}]::BIGINT[], NULL, 'test', 'test')");
        first.execute(AssertSqlSafe(remove)).await.unwrap();
        let finish = async {
            while bench.number("SELECT COUNT(*) FROM pg_locks WHERE NOT granted").await == 0 {
                tokio::task::yield_now().await;
            }
            first.execute(end).await.unwrap();
        };
        let (inserted, ()) = tokio::join!(second.execute(insert), finish);
        assert_eq!(inserted.unwrap().rows_affected(), 0, "{end}");
        assert_eq!(bench.number("SELECT COUNT(*) FROM jobs").await, jobs, "{end}");
    }
    assert_eq!(bench.number("SELECT job_id FROM idempotency_keys WHERE key = 'k'").await, id);
    let known = bench.store.enqueue(vec![keyed], "test").await.unwrap();
    assert_eq!((known[0].id, known[0].created), (id, false));
}

#[tokio::test]
async fn a_key_that_becomes_known_meanwhile_is_no_error_for_plain_sql() {
    let Some(database) = Database::postgres() else { return };
    let bench = Bench::on(database).await;
    let waiting = bench.enqueue(numbered(1)).await;
    let url = bench.database.url();
    let mut first = sqlx::PgConnection::connect(&url).await.unwrap();
    let mut second = sqlx::PgConnection::connect(&url).await.unwrap();
    let key =
        AssertSqlSafe(format!("INSERT INTO idempotency_keys (key, job_id, created_at) VALUES ('k', {waiting}, 1)"));
    sqlx::raw_sql("BEGIN").execute(&mut first).await.unwrap();
    sqlx::raw_sql(key).execute(&mut first).await.unwrap();
    let insert = sqlx::raw_sql(
        "INSERT INTO jobs (source, destination, idempotency_key) VALUES ('a.example/x:2', 'b.example/x:2', 'k') \
         ON CONFLICT DO NOTHING",
    )
    .execute(&mut second);
    let commit = async {
        // The insert waits by now.
        let blocked = "SELECT COUNT(*) FROM pg_locks WHERE NOT granted";
        while bench.number(blocked).await == 0 {
            tokio::task::yield_now().await;
        }
        sqlx::raw_sql("COMMIT").execute(&mut first).await.unwrap();
    };
    let (inserted, ()) = tokio::join!(insert, commit);
    assert_eq!(inserted.unwrap().rows_affected(), 0);
    assert_eq!(bench.number("SELECT COUNT(*) FROM jobs").await, 1);
    assert_eq!(bench.number("SELECT job_id FROM idempotency_keys WHERE key = 'k'").await, waiting);
}

#[tokio::test]
async fn rows_that_are_gone_are_vacuumed_when_they_are_many() {
    let Some(database) = Database::postgres() else { return };
    let bench = Bench::on(database).await;
    bench.sql("ALTER TABLE jobs SET (autovacuum_enabled = off)").await.unwrap();
    bench
        .sql(
            "INSERT INTO jobs (source, destination) SELECT 'alpine', 'b.example/alpine:' || n FROM generate_series(1, 26000) AS n",
        )
        .await
        .unwrap();
    assert!(!bench.store.tend().await.unwrap(), "nothing is gone");
    for priority in [1, 2] {
        bench.sql(&format!("UPDATE jobs SET priority = {priority}")).await.unwrap();
    }
    // The server counts them a moment later.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !bench.store.tend().await.unwrap() {
        assert!(tokio::time::Instant::now() < deadline, "it was not tended");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let dead = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relid = 'jobs'::REGCLASS AND last_vacuum IS NOT NULL";
    assert!(bench.number(dead).await < 1_000);
    assert!(!bench.store.tend().await.unwrap(), "once is enough");
}

/// Plans are made with what the server knows of the table, which may be nothing, or of a time long ago.
#[tokio::test]
async fn equal_jobs_are_looked_up_by_their_index_whatever_the_server_knows_of_the_table() {
    let Some(database) = Database::postgres() else { return };
    let bench = Bench::on(database).await;
    bench.sql("ALTER TABLE jobs SET (autovacuum_enabled = off)").await.unwrap();
    let read = |index: &str| {
        format!(
            "SELECT SUM(idx_tup_read) FROM pg_stat_user_indexes WHERE relid = 'jobs'::REGCLASS AND indexrelname {index} \
                AND indexrelname NOT IN ('jobs_pkey', 'jobs_idempotency_key')"
        )
    };
    let looked = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'jobs_equal'";
    for (round, known) in ["SELECT 1", "VACUUM jobs", "ANALYZE jobs", "SELECT 1"].into_iter().enumerate() {
        bench.sql(known).await.unwrap();
        let first = round * 4_000;
        // Others wait meanwhile: for now, and for a retry.
        for state in ["pending", "scheduled"] {
            bench
                .sql(&format!(
                    "INSERT INTO jobs (source, destination, options, state, queue, run_at, created_at, source_key, dest_key, \
                        dest_registry, options_key, change_seq, change_actor, change_reason) \
                    SELECT 's', '{state}/{round}/' || n, '{{}}', '{state}', 'default', \
                        now_ms() + CASE '{state}' WHEN 'pending' THEN 0 ELSE 3600000 END, now_ms(), 's', \
                        '{state}/{round}/' || n, 'mirror.example.com', '{{}}', 1, 'me', 'enqueued' \
                    FROM generate_series(1, 2000) AS n"
                ))
                .await
                .unwrap();
        }
        let (before, others) = (bench.number(looked).await, bench.number(&read("<> 'jobs_equal'")).await);
        let jobs = (first..first + 1_000).map(numbered).collect();
        assert!(bench.store.enqueue(jobs, "test").await.unwrap().iter().all(|one| one.created));
        // By the loop, one after the other: one of them is there already.
        let jobs = (first + 999..first + 1_100).map(numbered).collect();
        let made = bench.store.enqueue(jobs, "test").await.unwrap().iter().filter(|one| one.created).count();
        assert_eq!(made, 100);
        // A session tells what it counted at the end of a transaction, at most once in a second.
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while bench.number(looked).await < before + 1_100 {
            assert!(tokio::time::Instant::now() < deadline, "equal jobs are not looked up by their index");
            bench.store.enqueue(vec![numbered(first)], "test").await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let passed = bench.number(&read("<> 'jobs_equal'")).await - others;
        assert!(passed < 2_000, "round {round}: {passed} rows were passed by other indexes");
    }
}
