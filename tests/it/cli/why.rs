//! `jobs why`: each thing that can hold a job back is told, with what to do about it.

use super::error;
use crate::support::binary::Binary;
use crate::support::fake::{Fault, Matcher};
use crate::work::Scene;
use serde_json::{Value, json};

fn why(binary: &Binary, id: i64) -> Value {
    binary.run(&["jobs", "why", &id.to_string(), "-o", "json"]).success().json()
}

fn codes(answer: &Value) -> Vec<&str> {
    let reasons = answer["reasons"].as_array().unwrap();
    for reason in reasons {
        super::assert_names(reason, &["code", "message", "hint"]);
    }
    reasons.iter().map(|reason| reason["code"].as_str().unwrap()).collect()
}

#[track_caller]
fn check(binary: &Binary, id: i64, expected: &[&str]) {
    let answer = why(binary, id);
    assert_eq!(codes(&answer), expected, "{answer:#}");
}

/// A worker that lives as far as rows tell, with so many places.
fn worker_row(binary: &Binary, name: u32, queue: &str, places: u32) -> Option<Vec<String>> {
    binary.sql(&format!(
        "INSERT INTO workers (id, host, pid, machine_id, boot_id, state_dir, state_device, state_inode, version, \
         lease_ttl_ms, started_at, seen_at, queue, concurrency) VALUES ('00000000-0000-7000-8000-00000000000{name}', \
         'elsewhere', 1, 'm', 'b', '/s', 1, 1, '0', 3600000, unixepoch() * 1000, unixepoch() * 1000, {queue}, {places})"
    ))
}

/// Runs a job as far as rows tell, on worker 1.
fn run_row(binary: &Binary, id: i64) -> Option<Vec<String>> {
    binary.sql(&format!(
        "UPDATE jobs SET state = 'running', attempt = attempt + 1, lease_epoch = lease_epoch + 1, \
         worker = '00000000-0000-7000-8000-000000000001', lease_until = (unixepoch() + 3600) * 1000, \
         started_at = unixepoch() * 1000 WHERE id = {id}"
    ))
}

fn enqueue(binary: &Binary, tag: &str, more: &[&str]) -> i64 {
    let destination = format!("b.example/x:{tag}");
    crate::work::enqueue(binary, &[&["enqueue", "a.example/x:1", destination.as_str()], more].concat())
}

#[test]
fn a_job_that_waits_for_workers() {
    let binary = Binary::new();
    let first = enqueue(&binary, "1", &[]);
    check(&binary, first, &["no_worker"]);
    let text = binary.run(&["jobs", "why", "1"]).success().text();
    let told = "job 1 is pending: a.example/x:1 -> b.example/x:1\n- no worker is at work\n  \
        start one: freightliner work --queue default\n";
    assert_eq!(text, told);
    if worker_row(&binary, 1, "'other'", 8).is_none() {
        return;
    }
    let answer = why(&binary, first);
    assert_eq!(codes(&answer), ["no_worker"]);
    assert!(answer["reasons"][0]["message"].as_str().unwrap().contains("serves another"), "{answer:#}");
    worker_row(&binary, 2, "NULL", 1);
    check(&binary, first, &["ready"]);
    let second = enqueue(&binary, "2", &[]);
    check(&binary, second, &["ahead"]);
    binary.sql("UPDATE workers SET queue = NULL, concurrency = 1 WHERE host = 'elsewhere'");
    binary.sql("DELETE FROM workers WHERE id LIKE '%2'");
    run_row(&binary, first);
    check(&binary, second, &["no_place"]);
    check(&binary, first, &["running"]);
    binary.sql("INSERT INTO jobs (source, destination) VALUES ('a.example/x:1', 'b.example/x:3')");
    assert!(codes(&why(&binary, 3)).contains(&"not_parsed"), "{:#}", why(&binary, 3));
}

#[test]
fn a_job_that_is_held_back() {
    let binary = Binary::new();
    let id = enqueue(&binary, "1", &["--queue", "nightly"]);
    let later = enqueue(&binary, "2", &["--in", "1h"]);
    if worker_row(&binary, 1, "NULL", 8).is_none() {
        return;
    }
    check(&binary, later, &["future"]);
    binary.run(&["queue", "pause", "nightly"]).success();
    check(&binary, id, &["queue_paused"]);
    binary.run(&["jobs", "pause", &id.to_string()]).success();
    let answer = why(&binary, id);
    assert_eq!(codes(&answer), ["paused", "queue_paused"], "{answer:#}");
    assert_eq!(answer["reasons"][0]["hint"], "let it go on: freightliner jobs resume 1");
    assert_eq!(answer["reasons"][1]["hint"], "let it go on: freightliner queue resume nightly");
    binary.run(&["jobs", "resume", &id.to_string()]).success();
    binary.run(&["queue", "resume", "nightly"]).success();
    check(&binary, id, &["ready"]);
    binary.run(&["jobs", "cancel", &id.to_string()]).success();
    check(&binary, id, &["cancelled"]);
}

#[test]
fn limits_and_targets() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("freightliner.toml");
    std::fs::write(&config, "[registry]\nmax_running = { 'b.example' = 1 }\n").unwrap();
    let binary = Binary::new();
    let running = enqueue(&binary, "1", &[]);
    // Another source: an equal job would be the same one.
    let same = crate::work::enqueue(&binary, &["enqueue", "a.example/x:2", "b.example/x:1", "--priority", "5"]);
    let other = enqueue(&binary, "2", &["--priority", "1"]);
    if worker_row(&binary, 1, "NULL", 8).is_none() {
        return;
    }
    run_row(&binary, running);
    check(&binary, other, &["ready"]);
    let answer = why(&binary, same);
    assert_eq!(codes(&answer), ["same_destination", "ahead"], "{answer:#}");
    assert_eq!(answer["same_destination"], running);
    binary.run(&["queue", "limit", "default", "1"]).success();
    check(&binary, other, &["queue_limit"]);
    let binary = binary.env("FREIGHTLINER_CONFIG", config.display().to_string());
    let answer = why(&binary, other);
    assert_eq!(codes(&answer), ["queue_limit", "registry_limit"], "{answer:#}");
    for (name, value) in [
        ("id", json!(other)),
        ("state", json!("pending")),
        ("queue_max_running", json!(1)),
        ("queue_running", json!(1)),
        ("registry", json!("b.example")),
        ("registry_running", json!(1)),
        ("registry_max_running", json!(1)),
        ("places", json!(8)),
        ("places_taken", json!(1)),
    ] {
        assert_eq!(answer[name], value, "{name}: {answer:#}");
    }
}

#[test]
fn jobs_that_run_wait_again_or_are_done() {
    let scene = Scene::new();
    let done = scene.enqueue();
    scene.drain().success();
    check(&scene.binary, done, &["completed"]);
    let absent = scene.source.reference("team/app", "absent");
    let failed = crate::work::enqueue(&scene.binary, &["enqueue", &absent, &scene.to()]);
    scene.drain().expect_code(1);
    let answer = why(&scene.binary, failed);
    assert_eq!(codes(&answer), ["failed"]);
    assert!(answer["reasons"][0]["message"].as_str().unwrap().contains("absent"), "{answer:#}");

    scene.destination.fault(Matcher::new("PUT", "/v2/held/x/manifests/"), Fault::HoldUntil("held".into()));
    let running = scene.enqueue_to(&scene.destination.reference("held/x", "1"), &[]);
    let worker = scene.binary.spawn(&["work"]);
    scene.destination.wait_reached("held");
    let answer = why(&scene.binary, running);
    assert_eq!(codes(&answer), ["running"], "{answer:#}");
    let id = answer["job"]["worker"].as_str().unwrap().to_owned();
    assert!(answer["reasons"][0]["message"].as_str().unwrap().contains(&id), "{answer:#}");
    drop(worker);
    let output = scene.binary.run(&["jobs", "why", "77", "-o", "json"]).expect_code(1);
    assert_eq!(error(&output)["message"], "job 77 not found");
}

#[test]
fn a_job_that_waits_for_its_next_attempt() {
    let scene =
        Scene::with(Binary::new().env("FREIGHTLINER_RETRY_BASE_MS", "600000").env("FREIGHTLINER_REGISTRY_TRIES", "1"));
    // Nobody listens at port 9.
    let id = crate::work::enqueue(&scene.binary, &["enqueue", "127.0.0.1:9/x:1", &scene.to()]);
    let mut worker = scene.binary.spawn(&["work"]);
    crate::support::eventually("the first failure", || (scene.state(id) == "scheduled").then_some(()));
    let answer = why(&scene.binary, id);
    assert_eq!(codes(&answer), ["retry"], "{answer:#}");
    let message = answer["reasons"][0]["message"].as_str().unwrap();
    assert!(message.contains("attempt 2 of 8") && message.contains("127.0.0.1:9"), "{message}");
    worker.sigterm();
    worker.finish().success();
}
