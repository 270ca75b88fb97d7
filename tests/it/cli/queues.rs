//! `queue` and `workers`: what waits where, what is held back, who works.

use super::{assert_names, error, number};
use crate::support::binary::Binary;
use crate::support::eventually;
use crate::work::Scene;
use serde_json::{Value, json};

const QUEUE: [&str; 8] =
    ["name", "paused", "paused_at", "max_running", "scheduled", "pending", "running", "oldest_pending_age_ms"];
const WORKER: [&str; 15] = [
    "id",
    "host",
    "pid",
    "machine_id",
    "boot_id",
    "state_dir",
    "state_device",
    "state_inode",
    "version",
    "lease_ttl_ms",
    "queue",
    "concurrency",
    "started_at",
    "seen_at",
    "running",
];

fn queue(binary: &Binary, arguments: &[&str]) -> Value {
    binary.run(&[&["queue"], arguments, &["-o", "json"]].concat()).success().json()
}

fn listed(binary: &Binary) -> Vec<Value> {
    queue(binary, &["list"]).as_array().unwrap().clone()
}

#[test]
fn queues_are_listed_with_what_waits_in_them() {
    let binary = Binary::new();
    let output = binary.run(&["queue", "list"]).success();
    assert!(output.text().is_empty() && output.errors().contains("no queue"), "{output}");
    assert_eq!(binary.run(&["queue", "list", "-o", "json"]).success().text(), "[]\n");
    for (tag, options) in [("1", &["--queue", "nightly"][..]), ("2", &[]), ("3", &["--in", "1h"]), ("4", &[])] {
        let destination = format!("b.example/x:{tag}");
        binary.run(&[&["enqueue", "a.example/x:1", destination.as_str()], options].concat()).success();
    }
    let queues = listed(&binary);
    queues.iter().for_each(|queue| assert_names(queue, &QUEUE));
    let names: Vec<_> = queues.iter().map(|queue| queue["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["default", "nightly"]);
    let default = &queues[0];
    assert_eq!((&default["pending"], &default["scheduled"], &default["running"]), (&json!(2), &json!(1), &json!(0)));
    assert_eq!((&default["paused"], &default["max_running"]), (&json!(false), &Value::Null));
    assert!(default["oldest_pending_age_ms"].is_u64() && default["paused_at"].is_null(), "{default}");
    binary.run(&["queue", "pause", "nightly"]).success();
    binary.run(&["queue", "limit", "default", "3"]).success();
    let text = binary.run(&["queue", "list"]).success().text();
    insta::with_settings!({ filters => vec![
        (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "[time]"), (r"(?m)[\d.]+m?s$", "[age]"),
    ] }, { insta::assert_snapshot!("queues", text); });
    let lines = binary.run(&["queue", "list", "-o", "jsonl"]).success().text();
    assert_eq!(lines.lines().count(), 2, "{lines}");
}

#[test]
fn a_paused_queue_rests_until_it_is_resumed() {
    let scene = Scene::new();
    let held = scene.enqueue_to(&scene.destination.reference("x", "held"), &["--queue", "nightly"]);
    let output = scene.binary.run(&["queue", "pause", "nightly"]).success();
    assert_eq!((output.text().as_str(), output.errors().as_str()), ("queue nightly is paused\n", ""));
    let again = scene.binary.run(&["queue", "pause", "nightly"]).success();
    assert_eq!(again.text(), "nothing changed: queue nightly is paused already\n");
    let other = scene.enqueue();
    scene.drain().success();
    assert_eq!((scene.state(held), scene.state(other)), ("pending".to_owned(), "completed".to_owned()));

    let worker = scene.binary.spawn(&["work"]);
    let answer = queue(&scene.binary, &["resume", "nightly"]);
    let expected = json!({
        "name": "nightly", "changed": true, "paused": false, "max_running": null, "running": answer["running"],
    });
    assert_eq!(answer, expected);
    eventually("the job", || (scene.state(held) == "completed").then_some(()));
    drop(worker);
    assert_eq!(queue(&scene.binary, &["resume", "nightly"])["changed"], false);
    let changes = "(SELECT count(*) FROM audit_queues WHERE queue = 'nightly' AND actor LIKE 'cli:%')";
    assert_eq!(number(&scene.binary, changes), 2, "each change is on record");
}

#[test]
fn a_queue_that_nobody_knows_can_be_paused_and_limited() {
    let binary = Binary::new();
    let output = binary.run(&["queue", "pause", "to come"]).success();
    assert_eq!(output.text(), "queue to come is paused\n");
    assert!(output.errors().contains("no job waits or runs in `to come` so far"), "{output}");
    let output = binary.run(&["queue", "limit", "to come", "none"]).success();
    assert_eq!(output.text(), "nothing changed: queue to come has no limit\n");
    assert_eq!(queue(&binary, &["limit", "to come", "1"])["max_running"], 1);
    assert_eq!(binary.run(&["queue", "limit", "to come", "none"]).success().text(), "queue to come has no limit\n");
    binary.run(&["enqueue", "a.example/x:1", "b.example/x:1", "--queue", "to come"]).success();
    binary.run(&["work", "--drain"]).success();
    assert_eq!(listed(&binary)[0]["pending"], 1, "it was paused before its first job came");
}

#[test]
fn a_limit_holds_for_all_workers_together() {
    let scene = Scene::new();
    scene.binary.run(&["queue", "limit", "default", "1"]).success();
    scene.hold_layer("held");
    let first = scene.enqueue_to(&scene.destination.reference("one/x", "1"), &[]);
    let workers = [scene.binary.spawn(&["work"]), scene.binary.spawn(&["work"])];
    scene.source.wait_reached("held");
    let second = scene.enqueue_to(&scene.destination.reference("two/x", "1"), &[]);
    // Whoever looked at it parsed it, and would have taken it in the same breath.
    eventually("a look at the second job", || {
        (number(&scene.binary, "(SELECT count(*) FROM jobs WHERE dest_key IS NULL)") == 0).then_some(())
    });
    assert_eq!((scene.state(first), scene.state(second)), ("running".to_owned(), "pending".to_owned()));
    assert_eq!(
        (&listed(&scene.binary)[0]["running"], &listed(&scene.binary)[0]["max_running"]),
        (&json!(1), &json!(1))
    );
    scene.binary.run(&["queue", "limit", "default", "none"]).success();
    // When the worker of the first has it too, it waits for the layer that the first brings to that registry.
    eventually("the second job", || (scene.state(second) != "pending").then_some(()));
    assert_eq!(scene.state(first), "running");
    drop(workers);
}

#[test]
fn names_and_limits_that_cannot_be() {
    let binary = Binary::new();
    for arguments in
        [&["pause", ""][..], &["limit", "x", "0"], &["limit", "x", "1000001"], &["limit", "x", "-1"], &["limit", "x"]]
    {
        let output = binary.run(&[&["queue"], arguments, &["-o", "json"]].concat()).expect_code(2);
        error(&output);
    }
    let long = "x".repeat(129);
    binary.run(&["queue", "pause", &long]).expect_code(2);
    assert_eq!(listed(&binary), Vec::<Value>::new());
}

#[test]
fn workers_are_listed_while_they_live() {
    let scene = Scene::new();
    let output = scene.binary.run(&["workers", "list"]).success();
    assert!(output.text().is_empty() && output.errors().contains("freightliner work"), "{output}");
    scene.hold_layer("held");
    scene.enqueue();
    let mut running = scene.binary.spawn(&["work", "--queue", "default", "--concurrency", "3"]);
    scene.source.wait_reached("held");
    let workers = scene.binary.run(&["workers", "list", "-o", "json"]).success().json();
    let worker = &workers.as_array().unwrap()[0];
    assert_names(worker, &WORKER);
    assert_eq!((&worker["pid"], &worker["queue"]), (&json!(running.id()), &json!("default")));
    assert_eq!((&worker["concurrency"], &worker["running"]), (&json!(3), &json!(1)));
    assert_eq!((&worker["lease_ttl_ms"], &worker["version"]), (&json!(30_000), &json!(env!("CARGO_PKG_VERSION"))));
    let text = scene.binary.run(&["workers", "list"]).success().text();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 2, "{text}");
    let header = ["ID", "HOST", "PID", "VERSION", "QUEUE", "PLACES", "RUNNING", "STARTED", "SEEN", "LEASE"];
    assert_eq!(lines[0], header);
    assert_eq!((lines[1][0], lines[1][4], lines[1][5]), (worker["id"].as_str().unwrap(), "default", "3"));
    running.sigterm();
    running.sigterm();
    running.finish();
}
