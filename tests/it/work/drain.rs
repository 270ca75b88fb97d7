//! `work --drain`: what it waits for, what it does not wait for, and its exit code.

use super::{Scene, assert_clean, enqueue};
use crate::support::fake::{Fault, Matcher};

#[test]
fn an_empty_queue_is_done_at_once() {
    let scene = Scene::new();
    let output = scene.drain().success();
    assert_eq!(output.text(), "0 completed, 0 failed, 0 cancelled, 0 released, 0 retried\n");
    let worked = scene.binary.run(&["work", "--drain", "-o", "json"]).success().json();
    for name in ["completed", "failed", "cancelled", "released", "retried"] {
        assert_eq!(worked[name], 0);
    }
    assert_clean(&scene.binary);
}

#[test]
fn jobs_for_a_later_time_do_not_hold_it_up() {
    let scene = Scene::new();
    let (now, later) = (scene.enqueue(), scene.enqueue_with(&["--in", "1h"]));
    scene.drain().success();
    assert_eq!(scene.state(later), "scheduled");
    scene.assert_completed(now, &["completed"]);
}

#[test]
fn jobs_that_wait_for_a_retry_do() {
    let scene = Scene::impatient();
    let id = scene.enqueue();
    scene.source.fault(Matcher::new("*", "/manifests/v1").times(2), Fault::status(503));
    let output = scene.drain().success();
    assert!(output.text().contains("2 retried"), "{output}");
    scene.assert_completed(id, &["retry", "retry", "completed"]);
}

#[test]
fn a_job_that_failed_meanwhile_makes_it_exit_1() {
    let scene = Scene::new();
    let good = scene.enqueue();
    let bad = enqueue(&scene.binary, &["enqueue", &scene.source.reference("team/app", "absent"), &scene.to()]);
    let output = scene.drain().expect_code(1);
    assert!(output.text().starts_with("1 completed, 1 failed"), "{output}");
    assert!(output.errors().contains("jobs list --state failed"), "{output}");
    let job = scene.job(bad);
    assert_eq!(
        (&job["state"], &job["failure"]["class"], &job["attempt"]),
        (&"failed".into(), &"absent".into(), &1.into())
    );
    scene.assert_completed(good, &["completed"]);
    scene.drain().success();
}

#[test]
fn only_its_own_queue_counts() {
    let scene = Scene::new();
    let other = scene.enqueue_with(&["--queue", "slow"]);
    let mine = enqueue(
        &scene.binary,
        &["enqueue", &scene.from(), &scene.destination.reference("other/app", "v1"), "--queue", "fast"],
    );
    scene.binary.run(&["work", "--drain", "--queue", "fast"]).success();
    assert_eq!((scene.state(mine).as_str(), scene.state(other).as_str()), ("completed", "pending"));
    scene.drain().success();
    scene.assert_completed(other, &["completed"]);
}

#[test]
fn lower_priorities_run_first() {
    let scene = Scene::new();
    let to = |tag: &str| scene.destination.reference("order/app", tag);
    let ids: Vec<i64> = [("a", "200"), ("b", "5"), ("c", "100"), ("d", "-3")]
        .map(|(tag, priority)| scene.enqueue_to(&to(tag), &["--priority", priority]))
        .to_vec();
    scene.binary.run(&["work", "--drain", "--concurrency", "1"]).success();
    let query = "SELECT job_id FROM job_events WHERE to_state = 'running' ORDER BY seq";
    let rows = scene.binary.run(&["sql", query, "-o", "json"]).success().json();
    let order: Vec<i64> = rows.as_array().unwrap().iter().map(|row| row["job_id"].as_i64().unwrap()).collect();
    assert_eq!(order, [ids[3], ids[1], ids[2], ids[0]]);
}

#[test]
fn jobs_that_run_elsewhere_are_waited_for() {
    let scene = Scene::new();
    let id = scene.enqueue();
    scene.hold_layer("layer");
    let worker = scene.binary.spawn(&["work", "--drain"]);
    scene.source.wait_reached("layer");
    let mut waiting = scene.binary.spawn(&["work", "--drain"]);
    crate::support::eventually("the second worker", || waiting.stderr().contains("working").then_some(()));
    assert!(waiting.is_running());
    scene.source.release("layer");
    let other = waiting.finish().success();
    worker.finish().success();
    assert!(other.text().starts_with("0 completed"), "{other}");
    scene.assert_completed(id, &["completed"]);
}

#[test]
fn a_paused_queue_does_not_hold_it_up() {
    let scene = Scene::new();
    let id = scene.enqueue_with(&["--queue", "slow"]);
    if scene.binary.sql("INSERT INTO queues (name, paused_at) VALUES ('slow', 1)").is_none() {
        return;
    }
    scene.drain().success();
    assert_eq!(scene.state(id), "pending");
    scene.binary.sql("UPDATE queues SET paused_at = NULL");
    scene.drain().success();
    scene.assert_completed(id, &["completed"]);
}
