//! Databases of every older schema, with data in them, become newest ones: nothing of it changes, and work goes on.
//!
//! The files of `migrations/` are older schemas as they were published. What follows one is written as programs of its time
//! wrote it; a new migration needs a list of rows here for the one that it follows.

use super::{Bench, TTL, later};
use crate::support::database::Database;
use freightliner::job::State;
use freightliner::store::{Confirmed, Retention, Selection, Work};
use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, raw_sql};
use std::path::Path;

/// Target, queue and last state of jobs 1 to 10 of the first schema; 9 is older than 10, which wrote their target.
const JOBS: [(&str, &str, &str); 10] = [
    ("t1", "default", "pending, not looked at"),
    ("t2", "default", "scheduled, not looked at"),
    ("t3", "default", "running"),
    ("t4", "default", "completed"),
    ("t5", "default", "failed"),
    ("t6", "default", "scheduled"),
    ("t7", "default", "cancelled"),
    ("t8", "held", "pending"),
    ("t9", "default", "scheduled"),
    ("t9", "default", "completed"),
];

fn first_rows() -> Vec<String> {
    let mut rows = vec!["INSERT INTO queues (name, paused_at) VALUES ('held', 1790000000000)".to_owned()];
    for (at, (target, queue, state)) in JOBS.iter().enumerate() {
        let id = at + 1;
        let (from, to) = (format!("a.example/x:{id}"), format!("b.example/x:{target}"));
        if state.contains("not looked at") {
            let run_at = if state.starts_with("scheduled") { "253402300000000" } else { "1790000000000" };
            rows.push(format!("INSERT INTO jobs (source, destination, run_at) VALUES ('{from}', '{to}', {run_at})"));
            continue;
        }
        rows.push(format!(
            "INSERT INTO jobs (source, destination, queue, source_key, dest_key, dest_registry, options_key, \
                idempotency_key, change_seq, change_actor, change_reason) \
             VALUES ('{from}', '{to}', '{queue}', '{from}', '{to}', 'b.example', '{{}}', 'key {id}', 1, 'cli:old', 'enqueued')"
        ));
        let ended = "worker = NULL, lease_until = NULL, change_seq = change_seq + 1, change_actor = 'freightliner'";
        let failed = "failure_stage = 'transfer', failure_class = 'retryable', failure_message = 'was down', \
            failure_at = 1790000001000";
        if !matches!(*state, "pending" | "cancelled") {
            rows.push(format!(
                "UPDATE jobs SET state = 'running', attempt = 1, lease_epoch = 1, worker = 'old', lease_until = 1790000030000, \
                    started_at = 1790000000000, change_seq = change_seq + 1, change_actor = 'freightliner', \
                    change_reason = 'claimed' WHERE id = {id}"
            ));
        }
        match *state {
            "completed" => rows.push(format!(
                "UPDATE jobs SET state = 'completed', finished_at = 1790000002000, bytes_moved = 7, change_reason = 'succeeded', \
                    report = '{{\"digest\":\"sha256:aa\",\"bytes_copied\":7}}', {ended} WHERE id = {id}"
            )),
            "failed" => rows.push(format!(
                "UPDATE jobs SET state = 'failed', finished_at = 1790000002000, change_reason = 'gave up', {failed}, {ended} \
                    WHERE id = {id}"
            )),
            "scheduled" => rows.push(format!(
                "UPDATE jobs SET state = 'scheduled', run_at = 1790000003000, change_reason = 'will retry', {failed}, {ended} \
                    WHERE id = {id}"
            )),
            "cancelled" => {
                rows.push(format!("UPDATE jobs SET cancel_requested_at = 1790000002000 WHERE id = {id}"));
            }
            _ => {}
        }
    }
    rows.push(
        "INSERT INTO transfers (job_id, generation, attempt, lease_epoch, at, registry, repository, digest, bytes, how) \
         VALUES (4, 1, 1, 1, 1790000002000, 'b.example', 'x', 'sha256:aa', 7, 'copied')"
            .to_owned(),
    );
    rows.push("INSERT INTO finished_loads VALUES ('hash', 1, 1790000002000)".to_owned());
    rows.push("INSERT INTO temp_files VALUES ('/gone/part', 'old', 3, 1, 1790000000000)".to_owned());
    rows
}

/// Job 11, which is pruned, and job 12, which is held.
fn second_rows() -> Vec<String> {
    [
        "INSERT INTO queues (name, max_running, change_seq, change_actor) VALUES ('slow', 2, 1, 'cli:old')",
        "INSERT INTO jobs (source, destination) VALUES ('a.example/x:11', 'b.example/x:t11')",
        "UPDATE jobs SET state = 'cancelled' WHERE id = 11",
        "INSERT INTO prunes (at, actor, reason) VALUES (1790000004000, 'cli:old', 'retention')",
        "INSERT INTO pruned_jobs (job_id, prune_id, state, finished_at) VALUES (11, 1, 'cancelled', 1790000004000)",
        "DELETE FROM job_events WHERE job_id = 11",
        "DELETE FROM jobs WHERE id = 11",
        "INSERT INTO jobs (source, destination) VALUES ('a.example/x:12', 'b.example/x:t12')",
        "UPDATE jobs SET paused_at = 1790000004000 WHERE id = 12",
        "INSERT INTO restores (at, actor, epochs, finished_at) VALUES (1, 'cli:old', 1, 1)",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Texts of the migrations, oldest first.
fn migrations(kind: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(kind);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read_to_string(file).unwrap().replace("@schema@", "public")).collect()
}

/// Runs statements as a foreign program does.
async fn run(database: &Database, statements: &[String]) {
    if database.is_postgres() {
        let mut session = PgConnection::connect(&database.url()).await.unwrap();
        for statement in statements {
            let done = raw_sql(AssertSqlSafe(statement.clone())).execute(&mut session).await;
            done.unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
    } else {
        let options = SqliteConnectOptions::new().filename(database.file()).create_if_missing(true);
        let mut session = options.connect().await.unwrap();
        for statement in statements {
            let done = raw_sql(AssertSqlSafe(statement.clone())).execute(&mut session).await;
            done.unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
    }
}

/// A database of an older schema, with all that was written until then.
async fn old(version: usize) -> Database {
    let database = Bench::fresh();
    let kind = if database.is_postgres() { "postgres" } else { "sqlite" };
    let integer = if database.is_postgres() { "BIGINT" } else { "INTEGER" };
    let mut all = vec![format!(
        "CREATE TABLE schema_migrations (version {integer} PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, \
            applied_at {integer} NOT NULL)"
    )];
    if !database.is_postgres() {
        all.push("PRAGMA application_id = 1179797332".to_owned());
    }
    for (step, text) in (1..=version).zip(migrations(kind)) {
        all.push(text);
        all.push(format!("INSERT INTO schema_migrations VALUES ({step}, 'old', 'old', 1790000000000)"));
        all.extend(match step {
            1 => first_rows(),
            2 => second_rows(),
            // The same statements; what they leave in the new table comes from its triggers.
            3..=10 => Vec::new(),
            other => panic!("say here what programs of schema {other} wrote"),
        });
    }
    run(&database, &all).await;
    database
}

/// The first column of what a foreign program reads.
async fn lines(database: &Database, look: &str) -> Vec<String> {
    let look = AssertSqlSafe(look.to_owned());
    if database.is_postgres() {
        let mut session = PgConnection::connect(&database.url()).await.unwrap();
        sqlx::query_scalar(look).fetch_all(&mut session).await.unwrap()
    } else {
        let mut session = SqliteConnection::connect(&database.url()).await.unwrap();
        sqlx::query_scalar(look).fetch_all(&mut session).await.unwrap()
    }
}

/// What is there, a line each, of all tables but the list of migrations.
async fn content(database: &Database) -> Vec<String> {
    let of = |table: &str, columns: &[&str]| {
        let columns: Vec<_> = columns.iter().map(|column| format!("COALESCE(CAST({column} AS TEXT), '-')")).collect();
        format!("SELECT '{table} ' || {} AS line FROM {table} ORDER BY 1", columns.join(" || ' ' || "))
    };
    let mut found = Vec::new();
    for query in [
        of("queues", &["name", "paused_at"]),
        of(
            "jobs",
            &[
                "id",
                "state",
                "source",
                "destination",
                "queue",
                "generation",
                "attempt",
                "lease_epoch",
                "worker",
                "run_at",
                "asked_seq",
                "dest_key",
                "finished_at",
                "report",
                "failure_message",
                "change_seq",
                "change_reason",
            ],
        ),
        of("job_events", &["seq", "job_id", "at", "from_state", "to_state", "actor", "reason", "detail"]),
        of("idempotency_keys", &["key", "job_id"]),
        of("finished_loads", &["content_hash", "number"]),
        of("temp_files", &["path", "worker"]),
        of("transfers", &["id", "job_id", "digest", "how"]),
    ] {
        found.extend(lines(database, &query).await);
    }
    found
}

#[tokio::test]
async fn every_older_schema_keeps_its_rows_and_work_goes_on() {
    let newest = migrations("sqlite").len();
    assert_eq!(newest, migrations("postgres").len(), "the same numbers for both databases");
    for version in 1..newest {
        let database = old(version).await;
        let before = content(&database).await;
        let bench = Bench::on(database).await;
        assert_eq!(content(&bench.database).await, before, "from {version}");
        assert_eq!(bench.number("SELECT MAX(version) FROM schema_migrations").await, i64::try_from(newest).unwrap());
        assert!(bench.store.check().await.unwrap().is_empty(), "from {version}");
        for (id, (.., state)) in (1..).zip(JOBS) {
            assert_eq!(bench.state(id).await.as_str(), state.split(',').next().unwrap(), "job {id} from {version}");
        }
        // Today's triggers and statements on yesterday's rows.
        let these = |ids: &[i64]| Selection::Ids(ids.to_vec());
        bench.store.retry(&these(&[4, 5, 7, 10]), "test").await.unwrap();
        bench.store.intake().await.unwrap();
        bench.store.due().await.unwrap();
        let claim = bench.claim_as(bench.worker, 1, None, Some(9)).await.remove(0);
        let confirmed = bench.store.confirm(&claim, TTL, Work::default()).await.unwrap();
        assert_eq!(confirmed, Confirmed::Superseded { by: 10 }, "from {version}");
        super::attempts::fail(&bench, claim, None).await;
        let claims = bench.claim(20).await;
        let mut ids: Vec<_> = claims.iter().map(|claim| claim.job.id).collect();
        ids.sort_unstable();
        assert_eq!(ids, [1, 4, 5, 6, 7, 10], "from {version}");
        for claim in claims {
            bench.complete(claim).await;
        }
        let soon = Some(later(&bench.clock, 1));
        let all = Retention { completed_before: soon, cancelled_before: soon, failed_before: soon, keys_before: None };
        assert_eq!(bench.store.prune(all, 100, "test").await.unwrap().jobs, 7, "from {version}");
        assert_eq!((bench.state(3).await, bench.state(8).await), (State::Running, State::Pending));
        assert!(bench.store.check().await.unwrap().is_empty(), "from {version}");
    }
}
