//! Signals that ask for the stop: what runs is finished or given back, and nothing is left.

use super::{REPOSITORY, Scene, assert_clean, enqueue};
use crate::support::binary::Running;
use crate::support::fake::{Fault, Matcher};
use crate::support::{PATIENCE, eventually};
use std::time::Duration;

fn wait_for(running: &Running, text: &str) {
    eventually(text, || running.stderr().contains(text).then_some(()));
}

#[test]
fn what_does_not_end_within_the_grace_is_given_back_uncharged() {
    for (grace, least) in [("0s", Duration::ZERO), ("1s", Duration::from_millis(950))] {
        let scene = Scene::new();
        let layout = scene.binary.home().join("layout");
        let id = scene.enqueue_to(&format!("oci:{}:v1", layout.display()), &[]);
        scene.hold_layer("layer");
        let mut worker = scene.binary.spawn(&["work", "--shutdown-grace", grace]);
        scene.source.wait_reached("layer");
        let start = tokio::time::Instant::now();
        worker.sigterm();
        let output = worker.wait(PATIENCE).success();
        assert!(output.text().contains("1 released"), "{output}");
        assert!(start.elapsed() >= least, "it had its grace: {output}");
        let job = scene.job(id);
        assert_eq!((&job["state"], &job["attempt"], &job["crash_count"]), (&"pending".into(), &0.into(), &0.into()));
        assert_eq!(scene.outcomes(id), ["released"]);
        assert!(!layout.join(".freightliner-tmp").exists());
        assert_clean(&scene.binary);
        scene.drain().success();
        assert_eq!(scene.outcomes(id), ["released", "completed"]);
        assert_eq!(scene.image.layout_differences(&layout, "v1"), Vec::<String>::new());
    }
}

#[test]
fn a_copy_that_ends_within_the_grace_is_finished_and_nothing_new_is_begun() {
    let scene = Scene::new();
    let id = scene.enqueue();
    scene.hold_layer("layer");
    let mut worker = scene.binary.spawn(&["work", "--shutdown-grace", "10m"]);
    scene.source.wait_reached("layer");
    worker.sigterm();
    wait_for(&worker, "stopping");
    let other = enqueue(&scene.binary, &["enqueue", &scene.from(), &scene.destination.reference("other/app", "v1")]);
    assert_eq!(scene.state(id), "running");
    assert!(worker.is_running());
    scene.source.release("layer");
    let output = worker.wait(PATIENCE).success();
    assert!(output.text().starts_with("1 completed"), "{output}");
    scene.assert_completed(id, &["completed"]);
    assert_eq!(scene.state(other), "pending");
    assert_eq!(scene.outcomes(other), Vec::<String>::new());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let scene = Scene::new();
    let id = scene.enqueue();
    scene.hold_layer("layer");
    let mut worker = scene.binary.spawn(&["work", "--shutdown-grace", "10m"]);
    scene.source.wait_reached("layer");
    worker.sigterm();
    wait_for(&worker, "stopping");
    worker.sigterm();
    let output = worker.wait(PATIENCE).expect_code(143);
    assert!(output.errors().contains("second signal"), "{output}");
    scene.drain().success();
    scene.assert_completed(id, &["expired", "completed"]);
}

#[test]
fn an_idle_worker_ends_well_by_either_signal() {
    let scene = Scene::new();
    for signal in [Running::sigterm, Running::sigint] {
        let mut worker = scene.binary.spawn(&["work"]);
        wait_for(&worker, "working");
        signal(&mut worker);
        worker.wait(PATIENCE).success();
        assert_clean(&scene.binary);
    }
}

#[test]
fn an_interrupted_replicate_says_what_becomes_of_the_job() {
    for (signal, code) in [(Running::sigint as fn(&mut Running), 130), (Running::sigterm, 143)] {
        let scene = Scene::new();
        scene.hold_layer("layer");
        let mut replicate = scene.binary.spawn(&["replicate", &scene.from(), &scene.to()]);
        scene.source.wait_reached("layer");
        signal(&mut replicate);
        let output = replicate.wait(PATIENCE).expect_code(code);
        let said = output.errors();
        assert!(said.contains("job 1 stays queued") && said.contains("freightliner jobs cancel 1"), "{output}");
        assert_eq!(output.text(), "");
        let job = scene.job(1);
        assert_eq!((&job["state"], &job["attempt"]), (&"pending".into(), &0.into()));
        assert_eq!(scene.outcomes(1), ["released"]);
        assert_eq!(scene.destination.digest_of(REPOSITORY, "v1"), None);
        assert_clean(&scene.binary);
        scene.binary.run(&["jobs", "cancel", "1"]).success();
        assert_eq!(scene.state(1), "cancelled");
    }
}

#[test]
fn a_replicate_that_waits_for_another_worker_can_be_interrupted_too() {
    let scene = Scene::new();
    let id = scene.enqueue();
    scene.hold_layer("layer");
    let mut worker = scene.binary.spawn(&["work"]);
    scene.source.wait_reached("layer");
    // The same target: this job has to wait for the first one.
    let mut replicate = scene.binary.spawn(&["replicate", "--force", &scene.from(), &scene.to()]);
    eventually("the second job", || (scene.binary.run(&["jobs", "show", "2"]).code() == Some(0)).then_some(()));
    eventually("the second worker", || {
        let rows = scene.binary.run(&["sql", "SELECT count(*) AS n FROM workers", "-o", "json"]).success().json();
        (rows[0]["n"] == 2).then_some(())
    });
    assert_eq!(scene.state(2), "pending", "one job a target");
    replicate.sigint();
    let output = replicate.wait(PATIENCE).expect_code(130);
    assert!(output.errors().contains("job 2 stays queued"), "{output}");
    scene.source.release("layer");
    scene.binary.run(&["jobs", "wait", &id.to_string(), "2"]).success();
    worker.sigterm();
    worker.wait(PATIENCE).success();
    assert_eq!((scene.outcomes(id), scene.outcomes(2)), (vec!["completed".to_owned()], vec!["completed".to_owned()]));
}

#[test]
fn a_registry_that_does_not_answer_does_not_hold_up_the_stop() {
    let scene = Scene::new();
    let id = scene.enqueue();
    scene.source.fault(Matcher::new("*", "/manifests/v1").always(), Fault::HoldUntil("silence".to_owned()));
    let mut worker = scene.binary.spawn(&["work", "--shutdown-grace", "0s"]);
    scene.source.wait_reached("silence");
    worker.sigterm();
    worker.wait(PATIENCE).success();
    assert_eq!((scene.state(id).as_str(), scene.outcomes(id)), ("pending", vec!["released".to_owned()]));
    assert_clean(&scene.binary);
}

#[test]
fn a_second_signal_ends_a_replicate_at_once_whoever_has_the_database() {
    let scene = Scene::new();
    scene.hold_layer("layer");
    let mut replicate = scene.binary.spawn(&["replicate", &scene.from(), &scene.to()]);
    scene.source.wait_reached("layer");
    let Some(lock) = super::WriteLock::take(&scene.binary) else { return };
    replicate.sigint();
    replicate.sigterm();
    // Both are 130 or 143; the lock is still held, so nothing can have been written.
    let output = replicate.wait(PATIENCE);
    assert!(matches!(output.code(), Some(130 | 143)), "{output}");
    assert!(output.errors().contains("second signal"), "{output}");
    assert_eq!(scene.state(1), "running");
    lock.release();
    scene.drain().success();
    scene.assert_completed(1, &["expired", "completed"]);
}

#[test]
fn a_replicate_goes_on_after_it_slept_longer_than_its_lease() {
    let scene = Scene::with(
        crate::support::binary::Binary::new()
            .env("FREIGHTLINER_WORKER_LEASE_TTL_SECS", "3")
            .env("FREIGHTLINER_WORKER_LEASE_RENEWAL_SECS", "1")
            .env("FREIGHTLINER_WORKER_LEASE_MARGIN_SECS", "1"),
    );
    scene.hold_layer("layer");
    let mut replicate = scene.binary.spawn(&["replicate", &scene.from(), &scene.to()]);
    scene.source.wait_reached("layer");
    replicate.sigstop();
    let query = "SELECT count(*) AS n FROM jobs WHERE lease_until < (julianday('now') - 2440587.5) * 86400000";
    eventually("the end of the lease", || {
        let rows = scene.binary.run(&["sql", query, "-o", "json"]).success().json();
        (rows[0]["n"] == 1).then_some(())
    });
    replicate.sigcont();
    scene.source.release("layer");
    replicate.wait(PATIENCE).success();
    scene.assert_completed(1, &["released", "completed"]);
}
