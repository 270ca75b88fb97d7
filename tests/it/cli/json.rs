//! Every name that programs may rely on, and the shapes behind the names.

use super::{assert_names, number};
use crate::support::fake::{Fault, Matcher};
use crate::work::{REPOSITORY, Scene};
use serde_json::{Value, json};

const JOB: [&str; 27] = [
    "id",
    "kind",
    "generation",
    "source",
    "destination",
    "options",
    "state",
    "queue",
    "priority",
    "attempt",
    "max_attempts",
    "crash_count",
    "lease_epoch",
    "run_at",
    "created_at",
    "started_at",
    "finished_at",
    "worker",
    "lease_until",
    "batch_id",
    "schedule_id",
    "idempotency_key",
    "progress",
    "failure",
    "report",
    "cancel_requested_at",
    "paused_at",
];
const REPORT: [&str; 11] = [
    "digest",
    "already_present",
    "referrers_pushed",
    "manifests_pushed",
    "blobs_copied",
    "blobs_mounted",
    "blobs_present",
    "blobs_resumed",
    "bytes_copied",
    "bytes_resumed",
    "requests",
];
const EVENT: [&str; 11] =
    ["seq", "job_id", "at", "from_state", "to_state", "lease_epoch", "attempt", "worker", "actor", "reason", "detail"];

fn is_time(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.len() >= 20 && text.ends_with('Z') && &text[10..11] == "T")
}

#[test]
fn a_completed_a_failed_a_running_and_a_waiting_job() {
    let scene = Scene::new();
    let completed = scene.enqueue();
    let absent = scene.source.reference(REPOSITORY, "absent");
    let failed = crate::work::enqueue(&scene.binary, &["enqueue", &absent, &scene.to()]);
    scene.drain().expect_code(1);
    scene.source.put_image("other", "v1", &scene.image);
    // Its blobs are known to be in another repository of the destination: it is held where the tag is written.
    scene.destination.fault(Matcher::new("PUT", "/v2/held/app/manifests/"), Fault::HoldUntil("tag".into()));
    let other = scene.source.reference("other", "v1");
    let running =
        crate::work::enqueue(&scene.binary, &["enqueue", &other, &scene.destination.reference("held/app", "v1")]);
    let worker = scene.binary.spawn(&["work"]);
    scene.destination.wait_reached("tag");
    let waiting = scene.enqueue_with(&["--in", "1h", "--idempotency-key", "k"]);

    let job = scene.job(completed);
    assert_names(&job, &JOB);
    assert_names(&job["report"], &REPORT);
    assert_names(&job["progress"], &["bytes_done", "bytes_total", "blobs_done", "blobs_total"]);
    assert_eq!((&job["kind"], &job["generation"], &job["failure"]), (&json!("copy"), &json!(1), &Value::Null));
    assert!(["run_at", "created_at", "started_at", "finished_at"].iter().all(|name| is_time(&job[name])), "{job:#}");
    assert_eq!((&job["report"]["manifests_pushed"], &job["report"]["blobs_copied"]), (&json!(1), &json!(3)));
    let bytes: u64 = scene.image.all_blobs().iter().map(|blob| blob.content.len()).sum();
    assert_eq!(job["report"]["bytes_copied"], bytes);
    assert_eq!((&job["progress"]["bytes_done"], &job["progress"]["bytes_total"]), (&json!(bytes), &json!(bytes)));

    let job = scene.job(failed);
    assert_names(&job, &JOB);
    assert_names(&job["failure"], &["stage", "class", "message", "at"]);
    assert!(is_time(&job["failure"]["at"]) && job["report"].is_null(), "{job:#}");

    let job = scene.job(running);
    assert_names(&job, &JOB);
    assert!(job["state"] == "running" && is_time(&job["lease_until"]) && job["worker"].is_string(), "{job:#}");
    assert!(job["finished_at"].is_null() && job["report"].is_null(), "{job:#}");

    let job = scene.job(waiting);
    assert_names(&job, &JOB);
    assert_eq!((&job["state"], &job["idempotency_key"]), (&json!("scheduled"), &json!("k")));
    assert!(
        ["started_at", "worker", "progress", "failure", "report"].iter().all(|name| job[name].is_null()),
        "{job:#}"
    );

    let list = scene.binary.run(&["jobs", "list", "-o", "json"]).success().json();
    let ids: Vec<i64> = list.as_array().unwrap().iter().map(|job| job["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, [waiting, running, failed, completed], "newest first");
    list.as_array().unwrap().iter().for_each(|job| assert_names(job, &JOB));

    let events = scene.binary.run(&["jobs", "events", &completed.to_string(), "-o", "json"]).success().json();
    let events = events.as_array().unwrap();
    events.iter().for_each(|event| assert_names(event, &EVENT));
    let steps: Vec<_> =
        events.iter().map(|event| (event["from_state"].as_str(), event["to_state"].as_str().unwrap())).collect();
    assert_eq!(steps, [(None, "pending"), (Some("pending"), "running"), (Some("running"), "completed")]);
    assert!(events.iter().all(|event| is_time(&event["at"]) && event["actor"].is_string()), "{events:#?}");

    let stats = scene.binary.run(&["jobs", "stats", "-o", "json"]).success().json();
    for (state, count) in
        [("scheduled", 1), ("pending", 0), ("running", 1), ("completed", 1), ("failed", 1), ("cancelled", 0)]
    {
        assert_eq!(stats[state], count, "{state}: {stats}");
    }
    assert!(stats["oldest_pending_age_ms"].is_null() && stats["completed_last_hour"] == 1, "{stats}");
    drop(worker);
}

#[test]
fn replicate_prints_the_finished_job() {
    let scene = Scene::new();
    let output = scene.binary.run(&["replicate", &scene.from(), &scene.to(), "-o", "json"]).success();
    assert_names(&output.json(), &JOB);
    assert_eq!(output.json(), scene.job(1));
    assert_eq!(output.errors(), "");
    // A failed one is printed too, and the error stands on stderr.
    let absent = scene.source.reference(REPOSITORY, "absent");
    let output = scene.binary.run(&["replicate", &absent, &scene.to(), "-o", "json"]).expect_code(1);
    assert_eq!(output.json()["state"], "failed");
    assert_eq!(super::error(&output)["code"], "absent");
}

#[test]
fn what_is_there_already_costs_two_requests() {
    let scene = Scene::new();
    scene.binary.run(&["replicate", &scene.from(), &scene.to()]).success();
    let again = ["replicate", "--no-referrers", &scene.from(), &scene.to(), "-o", "json"];
    let output = scene.binary.run(&again).success();
    let report = output.json()["report"].clone();
    assert_eq!((&report["already_present"], &report["requests"]), (&json!(true), &json!(2)), "{report:#}");
    assert_eq!(number(&scene.binary, "(SELECT count(*) FROM jobs)"), 2);
}

#[test]
fn rows_come_as_lines_when_asked() {
    let scene = Scene::new();
    for tag in ["a", "b", "c"] {
        scene.enqueue_to(&scene.destination.reference("x", tag), &[]);
    }
    let lines = scene.binary.run(&["jobs", "list", "-o", "jsonl"]).success().text();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    lines.iter().for_each(|job| assert_names(job, &JOB));
    let pages = |after: &str| {
        let arguments = ["jobs", "list", "--limit", "2", "-o", "json", "--after", after];
        let cut = if after.is_empty() { 6 } else { 8 };
        let page = scene.binary.run(&arguments[..cut]).success().json();
        page.as_array().unwrap().iter().map(|job| job["id"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((pages(""), pages("2")), (vec![3, 2], vec![1]));
    for (option, value, count) in [
        ("--state", "pending", 3),
        ("--state", "failed", 0),
        ("--destination", "*/x:b", 1),
        ("--source", "nothing-of-that-name", 0),
        ("--since", "1h", 3),
        ("--since", "2031-01-01T00:00:00Z", 0),
        ("--queue", "other", 0),
    ] {
        let list = scene.binary.run(&["jobs", "list", option, value, "-o", "json"]).success().json();
        assert_eq!(list.as_array().unwrap().len(), count, "{option} {value}");
    }
}

#[test]
fn a_job_that_is_not_there() {
    let scene = Scene::new();
    for command in ["show", "events", "wait"] {
        let output = scene.binary.run(&["jobs", command, "77"]).expect_code(1);
        assert_eq!(output.errors(), "error: job 77 not found\n");
        let output = scene.binary.run(&["jobs", command, "77", "-o", "json"]).expect_code(1);
        assert_eq!(super::error(&output)["code"], "not_found");
    }
}
