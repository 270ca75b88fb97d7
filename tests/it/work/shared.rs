//! Several processes on one queue: workers side by side, and people who steer what runs elsewhere.

use super::{REPOSITORY, Scene, assert_clean};
use crate::support::fake::{Fault, Matcher};
use crate::support::{PATIENCE, eventually};

#[test]
fn processes_that_make_the_database_at_the_same_time() {
    for _ in 0..4 {
        let binary = crate::support::binary::Binary::new();
        let started: Vec<_> =
            (0..4).map(|n| binary.spawn(&["enqueue", "a.example/x", &format!("b.example/x:{n}")])).collect();
        started.into_iter().for_each(|process| drop(process.finish().success()));
        let list = binary.run(&["jobs", "list", "-o", "json"]).success().json();
        assert_eq!(list.as_array().unwrap().len(), 4);
    }
}

#[test]
fn two_workers_and_one_job() {
    let scene = Scene::new();
    let mut workers = [scene.binary.spawn(&["work"]), scene.binary.spawn(&["work"])];
    for worker in &workers {
        eventually("the worker", || worker.stderr().contains("working").then_some(()));
    }
    scene.hold_layer("layer");
    let id = scene.enqueue();
    scene.source.wait_reached("layer");
    scene.source.release("layer");
    scene.binary.run(&["jobs", "wait", &id.to_string(), "--timeout", "60s"]).success();
    for worker in &mut workers {
        worker.sigterm();
        worker.wait(PATIENCE).success();
    }
    scene.assert_completed(id, &["completed"]);
    assert_eq!(scene.job(id)["lease_epoch"], 1, "it was claimed once");
    assert_eq!(scene.destination.count("PUT", "/manifests/v1"), 1, "and published once");
}

#[test]
fn many_jobs_are_shared_and_each_is_done_once() {
    const JOBS: usize = 24;
    let scene = Scene::new();
    let lines: String = (0..JOBS)
        .map(|n| format!("{} {}\n", scene.from(), scene.destination.reference("many/app", &format!("t{n}"))))
        .collect();
    scene.binary.run_with_input(&["enqueue", "--from-file", "-"], lines.as_bytes()).success();
    let workers: Vec<_> = (0..3).map(|_| scene.binary.spawn(&["work", "--drain", "--concurrency", "2"])).collect();
    let completed: u64 = workers
        .into_iter()
        .map(|worker| {
            let output = worker.finish().success();
            output.text().split(' ').next().unwrap().parse::<u64>().unwrap()
        })
        .sum();
    assert_eq!(completed, JOBS as u64);
    let query = "SELECT count(*) AS n, count(DISTINCT job_id) AS jobs FROM audit_attempts";
    let rows = scene.binary.run(&["sql", query, "-o", "json"]).success().json();
    assert_eq!((&rows[0]["n"], &rows[0]["jobs"]), (&JOBS.into(), &JOBS.into()));
    assert_eq!(scene.destination.tags("many/app").len(), JOBS);
    assert_clean(&scene.binary);
}

#[test]
fn a_running_job_is_cancelled_from_another_process() {
    let scene = Scene::new();
    let id = scene.enqueue();
    scene.hold_layer("layer");
    let mut worker = scene.binary.spawn(&["work"]);
    scene.source.wait_reached("layer");
    let output = scene.binary.run(&["jobs", "cancel", &id.to_string(), "-o", "json"]).success();
    assert_eq!(output.json()["count"], 1);
    scene.binary.run(&["jobs", "wait", &id.to_string(), "--timeout", "60s"]).expect_code(1);
    let job = scene.job(id);
    assert_eq!(job["state"], "cancelled");
    assert!(job["cancel_requested_at"].is_string() && job["finished_at"].is_string(), "{job:#}");
    assert_eq!(scene.outcomes(id), ["cancelled"]);
    assert_eq!(scene.destination.digest_of(REPOSITORY, "v1"), None);
    assert!(worker.is_running(), "its worker goes on");
    let events = scene.binary.run(&["jobs", "events", &id.to_string(), "-o", "json"]).success().json();
    let asked = events.as_array().unwrap().iter().find(|event| event["reason"] == "cancel requested");
    assert!(asked.unwrap()["actor"].as_str().unwrap().starts_with("cli:"), "{events:#}");
    worker.sigterm();
    worker.wait(PATIENCE).success();
    assert_clean(&scene.binary);
}

#[test]
fn a_running_job_is_cancelled_by_plain_sql() {
    let scene = Scene::new();
    let id = scene.enqueue();
    scene.hold_layer("layer");
    let worker = scene.binary.spawn(&["work", "--drain"]);
    scene.source.wait_reached("layer");
    let update = format!("UPDATE jobs SET cancel_requested_at = unixepoch() * 1000 WHERE id = {id}");
    if scene.binary.sql(&update).is_none() {
        return;
    }
    worker.finish().success();
    assert_eq!(scene.state(id), "cancelled");
    assert_clean(&scene.binary);
}

#[test]
fn a_followed_job_that_somebody_cancels_ends_the_replicate() {
    let scene = Scene::new();
    scene.hold_layer("layer");
    let mut replicate = scene.binary.spawn(&["replicate", &scene.from(), &scene.to()]);
    scene.source.wait_reached("layer");
    scene.binary.run(&["jobs", "cancel", "1"]).success();
    let output = replicate.wait(PATIENCE).expect_code(1);
    assert!(output.errors().contains("job 1 was cancelled"), "{output}");
    assert_eq!(scene.state(1), "cancelled");
    assert_clean(&scene.binary);
}

#[test]
fn a_waiting_job_is_cancelled_at_once() {
    let scene = Scene::new();
    let (now, later) = (scene.enqueue(), scene.enqueue_with(&["--in", "1h"]));
    let cancel = |ids: &[&str]| scene.binary.run(&[&["jobs", "cancel"], ids].concat());
    let (now, later) = (now.to_string(), later.to_string());
    cancel(&[&now, &later]).success();
    for id in [&now, &later] {
        assert_eq!(scene.state(id.parse().unwrap()), "cancelled");
    }
    let output = cancel(&["77"]).expect_code(1);
    assert!(output.errors().contains("77"), "{output}");
    scene.drain().success();
    assert_eq!(scene.source.requests().len(), 0, "nothing was done for them");
}

#[test]
fn an_attempt_that_lost_its_lease_changes_nothing() {
    let scene = Scene::with(
        crate::support::binary::Binary::new()
            .env("FREIGHTLINER_WORKER_LEASE_TTL_SECS", "3")
            .env("FREIGHTLINER_WORKER_LEASE_RENEWAL_SECS", "1")
            .env("FREIGHTLINER_WORKER_LEASE_MARGIN_SECS", "1")
            .env("FREIGHTLINER_WORKER_SWEEP_INTERVAL_SECS", "1"),
    );
    let id = scene.enqueue();
    scene.destination.fault(Matcher::new("POST", "/blobs/uploads/"), Fault::HoldUntil("upload".to_owned()));
    let mut stopped = scene.binary.spawn(&["work", "--drain"]);
    scene.destination.wait_reached("upload");
    stopped.sigstop();
    // It holds its lock, so only its silence tells that it is not working.
    scene.drain().success();
    assert_eq!(scene.outcomes(id), ["expired", "completed"]);
    stopped.sigcont();
    scene.destination.release("upload");
    let output = stopped.wait(PATIENCE);
    assert!(output.code() == Some(0), "{output}");
    scene.assert_completed(id, &["expired", "completed"]);
    assert_eq!(scene.destination.count("PUT", "/manifests/v1"), 1, "one of them published");
}
