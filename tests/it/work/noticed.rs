//! Rows that come by plain SQL while a worker runs.

use super::{REPOSITORY, Scene, assert_clean};
use crate::support::{PATIENCE, eventually, within};
use std::time::Duration;

#[test]
fn a_bare_insert_is_noticed() {
    let scene = Scene::new();
    let mut worker = scene.binary.spawn(&["work"]);
    eventually("the worker", || worker.stderr().contains("working").then_some(()));
    let insert = format!("INSERT INTO jobs (source, destination) VALUES ('{}', '{}')", scene.from(), scene.to());
    if scene.binary.sql(&insert).is_none() {
        return;
    }
    scene.binary.run(&["jobs", "wait", "1", "--timeout", "60s"]).success();
    let query = "SELECT (SELECT min(at) FROM job_events WHERE to_state = 'running') - (SELECT min(at) FROM job_events)";
    let waited: i64 = scene.binary.sql(query).unwrap()[0].parse().unwrap();
    assert!((0..2_000).contains(&waited), "claimed after {waited} ms");
    let actor = "SELECT actor FROM job_events ORDER BY seq LIMIT 1";
    assert_eq!(scene.binary.sql(actor).unwrap(), ["sql"]);
    worker.sigterm();
    worker.wait(PATIENCE).success();
    scene.assert_completed(1, &["completed"]);
}

#[test]
fn a_bare_insert_is_noticed_after_somebody_emptied_the_log() {
    let scene = Scene::new();
    let mut worker = scene.binary.spawn(&["work"]);
    eventually("the worker", || worker.stderr().contains("working").then_some(()));
    let insert = format!("INSERT INTO jobs (source, destination) VALUES ('{}', '{}')", scene.from(), scene.to());
    for id in ["1", "2"] {
        let Some(emptied) = scene.binary.sql("PRAGMA wal_checkpoint(TRUNCATE)") else { return };
        assert!(emptied[0].starts_with("0|"), "nobody was in the way: {emptied:?}");
        scene.binary.sql(&insert).unwrap();
        scene.binary.run(&["jobs", "wait", id, "--timeout", "60s"]).success();
    }
    worker.sigterm();
    worker.wait(PATIENCE).success();
    scene.assert_completed(2, &["completed"]);
}

#[test]
fn a_worker_with_nothing_to_do_rests() {
    let scene = Scene::new();
    let paused = "INSERT INTO queues (name, paused_at) VALUES ('paused', 1)";
    if scene.binary.run(&["db", "migrate"]).success().code().is_none() || scene.binary.sql(paused).is_none() {
        return;
    }
    // What it must not take is no reason to look again and again.
    scene.enqueue_with(&["--queue", "paused"]);
    let mut worker = scene.binary.spawn(&["work"]);
    eventually("the worker", || worker.stderr().contains("working").then_some(()));
    // A loop without a pause takes a whole core; 1 % is what a quiet machine shows.
    let (window, before) = (Duration::from_secs(3), worker.cpu_time());
    let _: Option<()> = within(window, || None);
    let used = worker.cpu_time() - before;
    assert!(used < window / 10, "{used:?} of {window:?}");
    worker.sigterm();
    worker.wait(PATIENCE).success();
    assert_eq!(scene.state(1), "pending");
}

#[test]
fn a_row_that_does_not_parse_fails_and_stops_nobody() {
    let scene = Scene::new();
    let worker = scene.binary.spawn(&["work"]);
    eventually("the worker", || worker.stderr().contains("working").then_some(()));
    let insert = format!(
        "INSERT INTO jobs (source, destination) VALUES ('UPPER/Case:1', 'b.example/x:1'), ('a.example/x:1', 'oci:relative'), ('{}', '{}')",
        scene.from(),
        scene.to()
    );
    if scene.binary.sql(&insert).is_none() {
        return;
    }
    scene.binary.run(&["jobs", "wait", "1", "2", "3", "--timeout", "60s"]).expect_code(1);
    for (id, words) in [(1, ["source", "UPPER"]), (2, ["destination", "absolute"])] {
        let job = scene.job(id);
        assert_eq!((&job["state"], &job["failure"]["stage"]), (&"failed".into(), &"intake".into()), "{job:#}");
        let message = job["failure"]["message"].as_str().unwrap();
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
        assert_eq!(scene.outcomes(id), Vec::<String>::new(), "it was never attempted");
    }
    assert_eq!(scene.state(3), "completed");
    assert!(scene.destination.digest_of(REPOSITORY, "v1").is_some());
}

#[test]
fn a_row_for_later_runs_when_its_time_has_come() {
    let scene = Scene::new();
    let insert = format!(
        "INSERT INTO jobs (source, destination, run_at) VALUES ('{}', '{}',
            CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER) + 1500)",
        scene.from(),
        scene.to()
    );
    if scene.binary.run(&["db", "migrate"]).success().code().is_none() || scene.binary.sql(&insert).is_none() {
        return;
    }
    assert_eq!(scene.binary.sql("SELECT state FROM jobs").unwrap(), ["scheduled"]);
    let mut worker = scene.binary.spawn(&["work"]);
    scene.binary.run(&["jobs", "wait", "1", "--timeout", "60s"]).success();
    let early = "SELECT (SELECT min(at) FROM job_events WHERE to_state = 'running') - run_at FROM jobs";
    let late: i64 = scene.binary.sql(early).unwrap()[0].parse().unwrap();
    assert!((0..5_000).contains(&late), "claimed {late} ms after its time");
    worker.sigterm();
    worker.wait(PATIENCE).success();
    assert_clean(&scene.binary);
}
