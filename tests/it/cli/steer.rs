//! `jobs wait`, `cancel`, `retry`: exit codes, counts, filters.

use super::{error, number};
use crate::support::eventually;
use crate::work::Scene;
use serde_json::json;

fn states(scene: &Scene) -> Vec<String> {
    let rows = scene.binary.run(&["sql", "SELECT state FROM jobs ORDER BY id", "-o", "json"]).success().json();
    rows.as_array().unwrap().iter().map(|row| row["state"].as_str().unwrap().to_owned()).collect()
}

fn three(scene: &Scene) -> [i64; 3] {
    ["a", "b", "c"].map(|tag| {
        let queue = if tag == "c" { "other" } else { "default" };
        scene.enqueue_to(&scene.destination.reference("x", tag), &["--queue", queue])
    })
}

#[test]
fn waiting_ends_by_the_results_or_by_the_clock() {
    let scene = Scene::new();
    three(&scene);
    let output = scene.binary.run(&["jobs", "wait", "1", "2", "--timeout", "200ms"]).expect_code(1);
    assert!(output.errors().contains("not finished in time: jobs 1, 2"), "{output}");
    let output = scene.binary.run(&["jobs", "wait", "1", "--timeout", "200ms", "-o", "json"]).expect_code(1);
    assert_eq!(error(&output)["code"], "timeout");
    assert_eq!(output.json(), json!([]));

    let mut waiting = scene.binary.spawn(&["jobs", "wait", "1", "2", "3"]);
    scene.binary.run(&["jobs", "cancel", "3"]).success();
    eventually("the first result", || waiting.stdout().contains("3 cancelled").then_some(()));
    assert!(waiting.is_running());
    scene.drain().success();
    let output = waiting.finish().expect_code(1);
    assert!(output.text().contains("1 completed") && output.text().contains("2 completed"), "{output}");
    assert!(output.errors().contains("not completed: job 3"), "{output}");
    scene.binary.run(&["jobs", "wait", "1", "2", "1"]).success();
    let list = scene.binary.run(&["jobs", "wait", "2", "1", "-o", "json"]).success().json();
    assert_eq!(list.as_array().unwrap().len(), 2);
}

#[test]
fn a_signal_ends_the_waiting() {
    let scene = Scene::new();
    three(&scene);
    let mut waiting = scene.binary.spawn(&["jobs", "wait", "1", "2"]);
    scene.binary.run(&["jobs", "cancel", "2"]).success();
    eventually("the first result", || waiting.stdout().contains("2 cancelled").then_some(()));
    waiting.sigterm();
    waiting.finish().expect_code(143);
}

#[test]
fn jobs_are_chosen_by_id_by_state_and_by_queue() {
    let scene = Scene::new();
    three(&scene);
    let cancel = |arguments: &[&str]| scene.binary.run(&[&["jobs", "cancel"], arguments].concat());
    assert_eq!(cancel(&["--state", "failed"]).success().text(), "0 jobs cancelled or asked to stop\n");
    let output = cancel(&["--state", "pending", "--queue", "other", "-o", "json"]).success();
    assert_eq!(output.json(), json!({ "count": 1 }));
    assert_eq!(states(&scene), ["pending", "pending", "cancelled"]);
    // One unknown id, and nothing is changed.
    cancel(&["1", "77"]).expect_code(1);
    assert_eq!(states(&scene), ["pending", "pending", "cancelled"]);
    cancel(&["1", "--state", "pending"]).expect_code(2);
    assert_eq!(cancel(&["1", "1", "3"]).success().text().split(' ').next(), Some("1"));
    assert_eq!(states(&scene), ["cancelled", "pending", "cancelled"]);

    let retry = |arguments: &[&str]| scene.binary.run(&[&["jobs", "retry"], arguments].concat());
    retry(&["77"]).expect_code(1);
    let output = retry(&["--state", "cancelled", "-o", "json"]).success();
    assert_eq!(output.json(), json!({ "count": 2 }));
    assert_eq!(states(&scene), ["pending", "pending", "pending"]);
    assert_eq!(number(&scene.binary, "(SELECT sum(generation) FROM jobs)"), 5);
    assert_eq!(number(&scene.binary, "(SELECT count(*) FROM job_events WHERE actor LIKE 'cli:%')"), 7);
    scene.drain().success();
    assert_eq!(states(&scene), ["completed", "completed", "completed"]);
}

#[test]
fn a_completed_job_that_is_retried_is_done_again() {
    let scene = Scene::new();
    let id = scene.enqueue();
    scene.drain().success();
    scene.destination.heal();
    scene.binary.run(&["jobs", "retry", &id.to_string()]).success();
    scene.drain().success();
    let job = scene.job(id);
    assert_eq!((&job["generation"], &job["report"]["already_present"]), (&json!(2), &json!(true)));
    assert_eq!(scene.outcomes(id), ["completed", "completed"]);
}
