//! Databases of other versions: older ones with data in them, newer ones, and one that becomes newer under a worker.

use super::{Scene, assert_clean};
use crate::support::binary::{Binary, Output};
use crate::support::database::Database;
use crate::support::{PATIENCE, eventually};
use sha2::{Digest as _, Sha256};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The first schema, as it was published.
const FIRST: &str = include_str!("../../../migrations/sqlite/0001_jobs.sql");
/// The newest schema that the program knows; a new migration needs a word here about what it must keep.
const NEWEST: &str = "11";
/// A look a second, and ample time for the end on a busy machine.
const SOON: Duration = Duration::from_secs(6);
/// The worker that held a job when the program was replaced by a newer one.
const WORKER: &str = "01890000-0000-7000-8000-000000000001";

/// Runs a script in the `sqlite3` shell; None (said loudly) without it.
fn script(binary: &Binary, script: &str) -> Option<()> {
    use std::io::Write as _;
    let mut shell = Command::new(crate::support::need("sqlite3")?)
        .args(["-batch", "-bail"])
        .arg(binary.database().file())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run sqlite3");
    shell.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("write to sqlite3");
    let output = Output::from(shell.wait_with_output().expect("wait for sqlite3"));
    assert!(output.status.success(), "{output}");
    Some(())
}

fn first_schema() -> String {
    let checksum = hex::encode(Sha256::digest(FIRST));
    format!(
        "PRAGMA journal_mode = WAL; PRAGMA application_id = 1179797332;
        CREATE TABLE schema_migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL,
            applied_at INTEGER NOT NULL) STRICT;
        {FIRST}
        INSERT INTO schema_migrations VALUES (1, 'jobs', '{checksum}', 1790000000000);"
    )
}

/// Jobs 1 to 8 in every state, with all that belongs to them, as the first version wrote them.
fn first_rows(scene: &Scene) -> String {
    let state = scene.binary.state();
    let facts = std::fs::metadata(&state).expect("the state folder");
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let (machine, boot) = (read("/etc/machine-id"), read("/proc/sys/kernel/random/boot_id"));
    let (from, registry) = (scene.from(), scene.destination.authority());
    let mut text = String::from("INSERT INTO queues (name, paused_at) VALUES ('held', 1790000000000);\n");
    for n in 1..=8 {
        let to = format!("{registry}/team/app:t{n}");
        text.push_str(&match n {
            1 => format!("INSERT INTO jobs (source, destination) VALUES ('{from}', '{to}');\n"),
            2 => format!("INSERT INTO jobs (source, destination, run_at) VALUES ('{from}', '{to}', 253402300000000);\n"),
            _ => format!(
                "INSERT INTO jobs (source, destination, queue, source_key, dest_key, dest_registry, options_key, \
                    idempotency_key, change_seq, change_actor, change_reason) \
                 VALUES ('{from}', '{to}', '{}', '{from}', '{to}', '{registry}', '{{}}', {}, 1, 'cli:old', 'enqueued');\n",
                if n == 8 { "held" } else { "default" },
                if n == 4 { "'key'" } else { "NULL" },
            ),
        });
    }
    for n in 3..=7 {
        text.push_str(&format!(
            "UPDATE jobs SET state = 'running', attempt = 1, lease_epoch = 1, worker = '{WORKER}', \
                lease_until = 1790000030000, started_at = 1790000000000, change_seq = change_seq + 1, \
                change_actor = 'freightliner', change_reason = 'claimed' WHERE id = {n};\n"
        ));
    }
    let report = serde_json::json!({
        "digest": "sha256:aa", "already_present": false, "manifests_pushed": 1, "blobs_copied": 1, "blobs_mounted": 0,
        "blobs_present": 0, "blobs_resumed": 0, "bytes_copied": 7, "bytes_resumed": 0, "requests": 9,
    });
    let ended = "worker = NULL, lease_until = NULL, change_seq = change_seq + 1, change_actor = 'freightliner'";
    let failed = "failure_stage = 'transfer', failure_class = 'retryable', failure_message = 'was down', failure_at = 1790000001000";
    text.push_str(&format!(
        "UPDATE jobs SET state = 'completed', finished_at = 1790000002000, bytes_moved = 7, change_reason = 'completed',
            report = '{report}', {ended} WHERE id = 4;
        INSERT INTO transfers (job_id, generation, attempt, lease_epoch, at, registry, repository, digest, bytes, how)
            VALUES (4, 1, 1, 1, 1790000002000, '{registry}', 'team/app', 'sha256:aa', 7, 'copied');
        UPDATE jobs SET state = 'failed', finished_at = 1790000002000, change_reason = 'failed', {failed}, {ended} WHERE id = 5;
        UPDATE jobs SET state = 'scheduled', run_at = 1790000003000, change_reason = 'retry', {failed}, {ended} WHERE id = 6;
        UPDATE jobs SET cancel_requested_at = 1790000002000 WHERE id = 7;
        INSERT INTO finished_loads VALUES ('hash', 1, 1790000002000);
        INSERT INTO workers VALUES ('{WORKER}', 'old', 4000000, '{machine}', '{boot}', '{}', {}, {}, '0.0.9', 3000,
            1790000000000, 1790000000000);
        INSERT INTO temp_files VALUES ('{}/tmp/{WORKER}/part', '{WORKER}', 3, 1, 1790000000000);\n",
        state.display(),
        facts.dev().cast_signed(),
        facts.ino().cast_signed(),
        state.display(),
    ));
    text
}

/// A scene whose database has the first schema and rows in every state. None (said loudly) without the shell.
fn old_scene() -> Option<Scene> {
    let scene = Scene::new();
    script(&scene.binary, &first_schema())?;
    script(&scene.binary, &first_rows(&scene))?;
    let state = scene.binary.state();
    for folder in ["workers", &format!("tmp/{WORKER}")] {
        std::fs::create_dir_all(state.join(folder)).unwrap();
    }
    std::fs::write(state.join(format!("workers/{WORKER}.lock")), "").unwrap();
    std::fs::write(state.join(format!("tmp/{WORKER}/part")), "half a layer").unwrap();
    Some(scene)
}

/// All columns of all rows that there are by now, a line each.
struct Content {
    selects: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Content {
    fn of(binary: &Binary) -> Self {
        let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name";
        let select = |table: String| {
            let columns =
                format!("SELECT group_concat('quote(' || name || ')', '||''|''||') FROM pragma_table_info('{table}')");
            format!("SELECT {} FROM {table} ORDER BY 1", binary.sql(&columns).unwrap()[0])
        };
        let selects: Vec<String> = binary.sql(tables).unwrap().into_iter().map(select).collect();
        let rows = selects.iter().map(|select| binary.sql(select).unwrap()).collect();
        Self { selects, rows }
    }

    /// The same columns of the same tables hold the same; only the list of migrations is longer.
    fn assert_kept(&self, binary: &Binary) {
        for (select, before) in self.selects.iter().zip(&self.rows) {
            let mut after = binary.sql(select).unwrap();
            if select.contains("FROM schema_migrations") {
                after.retain(|row| before.contains(row));
            }
            assert_eq!(&after, before, "{select}");
        }
    }
}

fn assert_newest(binary: &Binary) {
    let versions = binary.sql("SELECT group_concat(version, ' ') FROM schema_migrations").unwrap();
    assert_eq!(versions, ["1 2 3 4 5 6 7 8 9 10 11"]);
    let output = binary.run(&["db", "migrate", "-o", "json"]).success();
    assert_eq!(output.json()["schema_version"].to_string(), NEWEST);
    assert_eq!(binary.sql("PRAGMA foreign_key_check").unwrap(), Vec::<String>::new());
    binary.run(&["db", "check"]).success();
}

#[test]
fn an_old_database_keeps_its_jobs_and_all_of_them_can_go_on() {
    let Some(scene) = old_scene() else { return };
    let before = Content::of(&scene.binary);
    scene.binary.run(&["db", "migrate"]).success();
    before.assert_kept(&scene.binary);
    assert_newest(&scene.binary);

    // Today's triggers and statements on yesterday's rows.
    scene.drain().success();
    let states = |wanted: &[&str]| {
        let states: Vec<String> = (1..=8).map(|id| scene.state(id)).collect();
        assert_eq!(states, wanted);
    };
    states(&["completed", "scheduled", "completed", "completed", "failed", "completed", "cancelled", "pending"]);
    assert_eq!(scene.outcomes(3), ["expired", "completed"], "its worker was dead");
    assert_eq!(scene.outcomes(6), ["retry", "completed"]);
    assert_eq!(scene.job(4)["report"]["bytes_copied"], 7);
    let again = scene.binary.run(&[
        "enqueue",
        &scene.from(),
        &scene.destination.reference("team/app", "t4"),
        "--idempotency-key",
        "key",
        "-o",
        "json",
    ]);
    assert_eq!(again.success().json()["created"], false, "its key is known");
    scene.binary.run(&["jobs", "retry", "2", "4", "5", "7"]).success();
    scene.binary.sql("UPDATE queues SET paused_at = NULL").unwrap();
    scene.drain().success();
    states(&["completed"; 8]);
    for n in 1..=8 {
        scene.destination.assert_holds("team/app", &format!("t{n}"), &scene.image);
    }
    assert_clean(&scene.binary);
}

#[test]
fn many_processes_migrate_an_old_database_at_once() {
    for processes in [2, 8] {
        let Some(scene) = old_scene() else { return };
        let before = Content::of(&scene.binary);
        let started: Vec<_> = (0..processes).map(|_| scene.binary.spawn(&["db", "migrate"])).collect();
        for process in started {
            process.finish().success();
        }
        before.assert_kept(&scene.binary);
        assert_newest(&scene.binary);
    }
}

#[test]
fn a_schema_of_the_future_is_refused_and_left_alone() {
    let Some(scene) = old_scene() else { return };
    scene.binary.run(&["db", "migrate"]).success();
    scene
        .binary
        .sql("INSERT INTO schema_migrations VALUES (99, 'future', '', 0); PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
    let file = scene.binary.database().file();
    let before = std::fs::read(&file).unwrap();
    let (from, to) = (scene.from(), scene.to());
    let commands: [&[&str]; 14] = [
        &["enqueue", &from, &to],
        &["replicate", &from, &to],
        &["work", "--drain"],
        &["sweep"],
        &["jobs", "list"],
        &["jobs", "show", "1"],
        &["jobs", "events", "1"],
        &["jobs", "stats"],
        &["jobs", "cancel", "1"],
        &["jobs", "retry", "5"],
        &["db", "migrate"],
        &["db", "info"],
        &["db", "check"],
        &["sql", "SELECT 1"],
    ];
    for command in commands {
        let output = scene.binary.run(command).expect_code(1);
        let said = output.errors();
        assert!(said.contains("schema 99") && said.contains("newer freightliner"), "{command:?}: {output}");
        assert_eq!(said.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{command:?}: {output}");
        assert_eq!(output.text(), "", "{command:?}");
    }
    assert!(std::fs::read(&file).unwrap() == before, "the file was changed");
    let log = file.with_extension("db-wal");
    assert!(std::fs::metadata(log).map_or(0, |facts| facts.len()) == 0, "something was written");
    assert_eq!(scene.source.requests().len() + scene.destination.requests().len(), 0);
}

#[test]
fn a_database_that_becomes_newer_ends_its_worker_when_what_runs_is_done() {
    let scene = Scene::new();
    let id = scene.enqueue();
    scene.hold_layer("layer");
    let mut worker = scene.binary.spawn(&["work", "--concurrency", "4"]);
    scene.source.wait_reached("layer");
    let migrate = "INSERT INTO schema_migrations VALUES (99, 'future', '', 0)";
    if scene.binary.sql(migrate).is_none() {
        return;
    }
    let to = scene.destination.reference("next/app", "v1");
    let insert = format!("INSERT INTO jobs (source, destination) VALUES ('{}', '{to}')", scene.from());
    scene.binary.sql(&insert).unwrap();
    eventually("the worker's word", || worker.stderr().contains("schema 99").then_some(()));
    assert!(worker.is_running(), "it finishes what runs");
    scene.source.release("layer");
    let output = worker.wait(PATIENCE).expect_code(1);
    let error = output.errors().lines().find(|line| line.starts_with("error: ")).unwrap_or_default().to_owned();
    assert!(error.contains("schema 99") && error.contains("newer"), "{output}");
    let rows = scene.binary.sql("SELECT id, state, attempt, lease_epoch FROM jobs ORDER BY id").unwrap();
    assert_eq!(rows, [format!("{id}|completed|1|1"), "2|pending|0|0".to_owned()], "{output}");
    assert_eq!(scene.binary.sql("SELECT count(*) FROM workers").unwrap(), ["0"], "it left well: {output}");
}

#[test]
fn an_idle_worker_whose_database_becomes_newer_ends_too() {
    for database in Database::all() {
        let binary = Binary::new().on(database);
        let mut worker = binary.spawn(&["work"]);
        eventually("the worker", || worker.stderr().contains("working").then_some(()));
        // Nothing is pending, and nothing comes.
        if binary.sql("INSERT INTO schema_migrations VALUES (99, 'future', '', 0)").is_none() {
            continue;
        }
        let start = tokio::time::Instant::now();
        let output = worker.wait(PATIENCE).expect_code(1);
        assert!(output.errors().contains("schema 99"), "{output}");
        assert!(start.elapsed() < SOON, "after {:?}", start.elapsed());
        assert_eq!(binary.sql("SELECT count(*) FROM workers").unwrap(), ["0"], "it left well: {output}");
    }
}

#[test]
fn a_row_that_comes_with_a_newer_schema_is_left_to_the_newer_program() {
    let scene = Scene::new();
    let mut worker = scene.binary.spawn(&["work"]);
    eventually("the worker", || worker.stderr().contains("working").then_some(()));
    let both = "BEGIN; INSERT INTO schema_migrations VALUES (99, 'future', '', 0); \
        INSERT INTO jobs (source, destination) VALUES ('a.example/x', 'b.example/x'); COMMIT";
    if scene.binary.sql(both).is_none() {
        return;
    }
    let output = worker.wait(PATIENCE).expect_code(1);
    assert!(output.errors().contains("schema 99"), "{output}");
    assert_eq!(scene.binary.sql("SELECT state, dest_key FROM jobs").unwrap(), ["pending|"]);
}
