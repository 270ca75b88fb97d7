//! The SQL contract: what the database itself refuses, whoever asks, and what it writes by itself.

use super::{Bench, numbered};
use freightliner::job::State;

/// Brings job 1 of a fresh database into a state.
async fn job_in(state: State) -> Bench {
    let bench = Bench::new().await;
    let id = bench.enqueue(numbered(1)).await;
    match state {
        State::Pending => {}
        State::Scheduled => {
            let at = super::later(&bench.clock, 3600).0;
            bench.sql(&format!("UPDATE jobs SET run_at = {at} WHERE id = 1")).await.unwrap();
        }
        State::Cancelled => {
            bench.sql("UPDATE jobs SET state = 'cancelled' WHERE id = 1").await.unwrap();
        }
        State::Running | State::Completed | State::Failed => {
            let claim = bench.claim_one().await;
            match state {
                State::Completed => bench.complete(claim).await,
                State::Failed => super::attempts::fail(&bench, claim, None).await,
                _ => {}
            }
        }
    }
    assert_eq!(bench.state(id).await, state);
    bench
}

/// A statement that does all a transition needs, so that only the edge itself can be wrong.
fn transition(to: State) -> String {
    let extra = match to {
        State::Running => ", attempt = attempt + 1, lease_epoch = lease_epoch + 1, worker = 'w', lease_until = 1",
        _ => ", worker = NULL, lease_until = NULL",
    };
    format!("UPDATE jobs SET state = '{to}'{extra} WHERE id = 1")
}

#[tokio::test]
async fn the_database_lets_through_exactly_the_edges_of_the_state_machine() {
    for from in State::ALL {
        for to in State::ALL.into_iter().filter(|to| *to != from) {
            let bench = job_in(from).await;
            let events = bench.store.events(1).await.unwrap().len();
            let result = bench.sql(&transition(to)).await;
            if from.may_become(to) {
                assert!(result.is_ok(), "{from} -> {to}: {result:?}");
                assert_eq!(bench.state(1).await, to);
                let all = bench.store.events(1).await.unwrap();
                assert_eq!(all.len(), events + 1, "{from} -> {to} writes one event");
                let last = all.last().unwrap();
                assert_eq!((last.from_state.as_deref(), last.to_state.as_str()), (Some(from.as_str()), to.as_str()));
                assert_eq!(last.actor, "sql");
                assert_eq!(bench.job(1).await.finished_at.is_some(), to.is_finished());
                assert!(bench.store.check().await.unwrap().is_empty());
            } else {
                let error = result.unwrap_err();
                assert!(error.contains(from.as_str()) && error.contains(to.as_str()), "{from} -> {to}: {error}");
                assert_eq!(bench.store.events(1).await.unwrap().len(), events);
            }
        }
    }
}

/// What only SQLite can be asked.
const ONLY_SQLITE: &[(&str, &str)] = &[
    ("INSERT OR REPLACE INTO jobs (id, source, destination) VALUES (1, 'a', 'b')", "never replaced"),
    ("REPLACE INTO jobs (source, destination, idempotency_key) VALUES ('a', 'b', 'k')", "never replaced"),
    ("UPDATE OR IGNORE job_events SET actor = 'nobody'", "never changed"),
    (
        "INSERT OR REPLACE INTO job_events (seq, job_id, at, to_state, generation, lease_epoch, attempt, actor) \
      VALUES (1, 1, 1, 'x', 1, 1, 1, 'x')",
        "never replaced",
    ),
];

/// What only PostgreSQL can be asked.
const ONLY_POSTGRES: &[(&str, &str)] = &[
    ("TRUNCATE jobs CASCADE", "not deleted by hand"),
    ("TRUNCATE job_events", "never deleted"),
    ("TRUNCATE transfers", "never deleted"),
    ("INSERT INTO jobs (id, source, destination) VALUES (1, 'a', 'b')", "duplicate key"),
    (
        "INSERT INTO jobs (id, source, destination) VALUES (1, 'a', 'b') ON CONFLICT (id) DO UPDATE SET source = 'x'",
        "never changes",
    ),
    ("MERGE INTO jobs USING (SELECT 1) AS x ON true WHEN MATCHED THEN DELETE", "not deleted"),
    (
        "INSERT INTO job_events (seq, job_id, at, to_state, generation, lease_epoch, attempt, actor) \
      VALUES (1, 1, 1, 'x', 1, 1, 1, 'x')",
        "duplicate key",
    ),
    (
        "INSERT INTO job_events (seq, job_id, at, to_state, generation, lease_epoch, attempt, actor) \
      VALUES (9223372036854775807, 1, 1, 'x', 1, 1, 1, 'x')",
        "given by the database",
    ),
];

#[tokio::test]
async fn what_breaks_a_rule_is_refused_with_the_reason() {
    let bench = job_in(State::Completed).await;
    bench.sql("INSERT INTO jobs (source, destination, idempotency_key) VALUES ('a', 'b', 'k')").await.unwrap();
    let mut refused = vec![
        ("DELETE FROM jobs WHERE id = 1", "not deleted"),
        ("UPDATE jobs SET source = 'x' WHERE id = 1", "never changes"),
        ("UPDATE jobs SET options = '{\"force\":true}' WHERE id = 1", "never changes"),
        ("UPDATE jobs SET idempotency_key = 'other' WHERE id = 2", "never changes"),
        ("UPDATE jobs SET id = 77 WHERE id = 1", "never changes"),
        ("UPDATE jobs SET dest_key = 'x' WHERE id = 1", "written once"),
        ("UPDATE jobs SET lease_epoch = 0 WHERE id = 1", "never fall"),
        ("UPDATE jobs SET lease_epoch = 9223372036854775807 WHERE id = 1", "rise by one"),
        ("UPDATE jobs SET change_seq = 9223372036854775807 WHERE id = 1", "rise by one"),
        ("UPDATE jobs SET lease_epoch = lease_epoch + 1 WHERE id = 1", "with the state alone"),
        ("UPDATE jobs SET report = NULL WHERE id = 1", "finished job never changes"),
        ("UPDATE jobs SET finished_at = 0 WHERE id = 1", "finished job never changes"),
        ("UPDATE jobs SET failure_class = 'x' WHERE id = 1", "finished job never changes"),
        ("UPDATE jobs SET attempt = 0 WHERE id = 1", "with the state alone"),
        ("UPDATE jobs SET generation = generation + 1 WHERE id = 1", "only then"),
        ("UPDATE jobs SET generation = generation + 1, attempt = 0 WHERE id = 2", "only then"),
        ("UPDATE jobs SET crash_count = 9 WHERE id = 1", "with the state alone"),
        ("INSERT INTO jobs (source, destination, dest_key) VALUES ('a', 'b', 'c')", "leave those columns out"),
        ("INSERT INTO jobs (source, destination, asked_seq) VALUES ('a', 'b', 9)", "leave those columns out"),
        (
            "INSERT INTO transfers (job_id, generation, attempt, lease_epoch, at, registry, repository, digest, bytes, how) \
          VALUES (4711, 1, 1, 1, 1, 'x', 'x', 'x', 1, 'copied')",
            "no such job",
        ),
        (
            "INSERT INTO workers (id, host, pid, machine_id, boot_id, state_dir, state_device, state_inode, version, \
          lease_ttl_ms, started_at, seen_at) VALUES ('../../victim', '', 1, '', '', '', 1, 1, '', 1, 1, 1)",
            "id",
        ),
        ("INSERT INTO jobs (source, destination, state) VALUES ('a', 'b', 'completed')", "pending or scheduled"),
        ("INSERT INTO jobs (source, destination, state) VALUES ('a', 'b', 'done')", "pending or scheduled"),
        ("INSERT INTO jobs (source, destination, lease_epoch) VALUES ('a', 'b', 9)", "leave those columns out"),
        ("INSERT INTO jobs (source, destination, options) VALUES ('a', 'b', 'nonsense')", "json"),
        ("INSERT INTO jobs (source, destination, options) VALUES ('a', 'b', '[]')", "json"),
        (
            "INSERT INTO jobs (source, destination, run_at) VALUES ('a', 'b', 'tomorrow')",
            bench.either("INTEGER", "bigint"),
        ),
        ("INSERT INTO jobs (source) VALUES ('a')", "destination"),
        ("INSERT INTO jobs (id, source, destination) VALUES (9223372036854775807, 'a', 'b')", "leave the id out"),
        ("INSERT INTO jobs (id, source, destination) VALUES (0, 'a', 'b')", "leave the id out"),
        ("INSERT INTO jobs (id, source, destination) VALUES (-7, 'a', 'b')", "leave the id out"),
        ("INSERT INTO jobs (source, destination, created_at) VALUES ('a', 'b', 5)", "leave it out"),
        ("UPDATE jobs SET state = 'sleeping' WHERE id = 1", "state"),
        ("UPDATE job_events SET actor = 'nobody'", "never changed"),
        ("DELETE FROM job_events", "never deleted"),
        (
            "INSERT INTO job_events (job_id, at, to_state, generation, lease_epoch, attempt, actor) \
          VALUES (4711, 1, 'x', 1, 1, 1, 'x')",
            "no such job",
        ),
    ];
    if bench.database.is_postgres() {
        refused.extend(ONLY_POSTGRES);
    } else {
        refused.extend(ONLY_SQLITE);
    }
    for (statement, word) in refused {
        let error = bench.sql(statement).await.unwrap_err();
        assert!(error.contains(word), "{statement}: {error}");
    }
    assert_eq!(bench.number("SELECT COUNT(*) FROM jobs").await, 2);
    let running = job_in(State::Running).await;
    for (statement, word) in [
        ("UPDATE jobs SET state = 'cancelled' WHERE id = 1", "cancel_requested_at"),
        ("UPDATE jobs SET worker = 'me' WHERE id = 1", "changes hands by a claim alone"),
        ("UPDATE jobs SET generation = 2, attempt = 0, lease_epoch = lease_epoch + 1 WHERE id = 1", "only then"),
    ] {
        let error = running.sql(statement).await.unwrap_err();
        assert!(error.contains(word), "{statement}: {error}");
    }
}

#[tokio::test]
async fn a_known_key_makes_an_insert_do_nothing() {
    let bench = Bench::new().await;
    let insert =
        "INSERT INTO jobs (source, destination, idempotency_key) VALUES ('a', 'b', 'nightly') ON CONFLICT DO NOTHING";
    assert_eq!(bench.sql(insert).await.unwrap(), 1);
    assert_eq!(bench.sql(insert).await.unwrap(), 0);
    assert_eq!(bench.number("SELECT COUNT(*) FROM jobs").await, 1);
    let plain = "INSERT INTO jobs (source, destination, idempotency_key) VALUES ('a', 'b', 'nightly')";
    let error = bench.sql(plain).await.unwrap_err();
    assert!(error.contains(bench.either("UNIQUE", "duplicate key value violates unique constraint")), "{error}");
}

#[tokio::test]
async fn plain_sql_can_cancel_postpone_and_reprioritise_and_it_is_on_record() {
    let bench = Bench::new().await;
    for number in 1..=3 {
        bench.enqueue(numbered(number)).await;
    }
    bench.sql("UPDATE jobs SET cancel_requested_at = 1 WHERE id = 1").await.unwrap();
    assert_eq!(bench.state(1).await, State::Cancelled);
    let at = super::later(&bench.clock, 3600).0;
    bench.sql(&format!("UPDATE jobs SET run_at = {at} WHERE id = 2")).await.unwrap();
    assert_eq!(bench.state(2).await, State::Scheduled);
    bench.sql("UPDATE jobs SET priority = 1 WHERE id = 3").await.unwrap();
    let events = bench.store.events(3).await.unwrap();
    let last = events.last().unwrap();
    assert_eq!((last.actor.as_str(), last.reason.as_deref()), ("sql", Some("changed")));
    assert_eq!(last.detail.as_ref().unwrap()["priority"], 1);
    assert!(bench.store.check().await.unwrap().is_empty());
    let claim = bench.claim_one().await;
    bench.sql("UPDATE jobs SET cancel_requested_at = 1 WHERE id = 3").await.unwrap();
    assert_eq!(bench.store.cancel_asked(bench.worker).await.unwrap(), [claim.fence()]);
}

#[tokio::test]
async fn somebody_elses_query_reads_and_never_writes() {
    let bench = Bench::new().await;
    bench.enqueue(numbered(1)).await;
    let query = |sql: &'static str| {
        let store = bench.store.clone();
        async move { store.query(sql, 2, std::time::Duration::from_secs(5)).await }
    };
    if !bench.database.is_postgres() {
        assert_eq!(query("SELECT CAST(x'61ff' AS TEXT)").await.unwrap().rows[0][0], "a\u{fffd}");
    }
    let all_kinds = bench.either(
        "SELECT id, source, NULL AS void, 1.5 AS real, x'00ff' AS bytes FROM jobs",
        "SELECT id, source, NULL AS void, 1.5 AS real, '\\x00ff'::BYTEA AS bytes FROM jobs",
    );
    let table = query(all_kinds).await.unwrap();
    assert_eq!(table.columns, ["id", "source", "void", "real", "bytes"]);
    assert_eq!(serde_json::json!(table.rows[0]), serde_json::json!([1, "a.example/app:1", null, 1.5, "00ff"]));
    assert!(query("VALUES (1), (2), (3)").await.unwrap().truncated);
    assert_eq!(query("SELECT id FROM jobs WHERE 1 = 0").await.unwrap().columns, ["id"]);
    for statement in ["DELETE FROM jobs", "WITH x AS (SELECT 1) DELETE FROM jobs", "ATTACH 'x' AS y", "SELECT nonsense"]
    {
        query(statement).await.unwrap_err();
    }
    let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT MAX(i) FROM n";
    let error = bench.store.query(endless, 2, std::time::Duration::from_millis(100)).await.unwrap_err();
    assert!(error.to_string().contains("longer"), "{error}");
    assert_eq!(bench.number("SELECT COUNT(*) FROM jobs").await, 1);
}

#[tokio::test]
async fn a_schema_that_becomes_newer_is_said_by_the_next_look() {
    let bench = Bench::new().await;
    assert!(!bench.store.waiting().await.unwrap().pending);
    bench
        .sql("INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (999, '', '', 0)")
        .await
        .unwrap();
    let error = bench.store.waiting().await.unwrap_err();
    assert!(matches!(&error, freightliner::store::Error::Outdated(message) if message.contains("999")), "{error:?}");
}
