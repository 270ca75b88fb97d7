//! `schedule`: what is enqueued again and again.

use super::{assert_names, error};
use crate::support::binary::Binary;
use serde_json::Value;

const NIGHTLY: [&str; 10] = [
    "schedule",
    "add",
    "nightly",
    "--cron",
    "30 2 * * *",
    "--timezone",
    "Europe/Berlin",
    "--",
    "a.example/x:1",
    "b.example/x:1",
];
const SCHEDULE: [&str; 21] = [
    "id",
    "name",
    "state",
    "timing",
    "timezone",
    "jitter_ms",
    "missed",
    "overlap",
    "kind",
    "source",
    "destination",
    "options",
    "queue",
    "priority",
    "max_attempts",
    "created_at",
    "next_at",
    "last_at",
    "paused_at",
    "ended_at",
    "fault",
];

fn json(binary: &Binary, arguments: &[&str]) -> Value {
    binary.run(&[&["schedule"], arguments, &["-o", "json"]].concat()).success().json()
}

#[test]
fn a_schedule_is_added_listed_shown_and_removed() {
    let binary = Binary::new();
    let output = binary.run(&["schedule", "list"]).success();
    assert!(output.text().is_empty() && output.errors().contains("there is no schedule"), "{output}");
    assert_eq!(binary.run(&["schedule", "list", "-o", "json"]).success().text(), "[]\n");
    let output = binary.run(&NIGHTLY).success();
    assert_eq!(output.text(), "1\n");
    assert!(output.errors().contains("T02:30:00+0"), "{output}");
    let more = ["--missed", "catch-up=3", "--overlap", "cancel", "--jitter", "10m", "--paused", "-o", "json", "--"];
    let what = ["a.example/y:1", "b.example/y:1", "--priority", "7", "--queue", "slow", "--platform", "linux/amd64"];
    let added =
        binary.run(&[&["schedule", "add", "often", "--every", "15m"], &more[..], &what].concat()).success().json();
    assert_names(&added, &["id", "name", "next_at"]);
    let listed = json(&binary, &["list"]);
    let listed = listed.as_array().unwrap();
    listed.iter().for_each(|schedule| assert_names(schedule, &SCHEDULE));
    let [nightly, often] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!((&nightly["state"], &nightly["timezone"]), (&"active".into(), &"Europe/Berlin".into()));
    assert!(nightly["next_at"].as_str().is_some_and(|at| at.ends_with(":30:00Z")), "{nightly}");
    assert_eq!((&often["state"], &often["timing"]), (&"paused".into(), &"@every 15m".into()));
    assert_eq!(
        (&often["missed"], &often["overlap"], &often["jitter_ms"]),
        (&"catch-up=3".into(), &"cancel".into(), &600_000.into())
    );
    assert_eq!((&often["priority"], &often["queue"]), (&7.into(), &"slow".into()));
    assert_eq!(often["options"]["platforms"][0], "linux/amd64");
    let table = binary.run(&["schedule", "list"]).success().text();
    assert!(table.contains("30 2 * * *") && table.contains("often"), "{table}");
    let shown = json(&binary, &["show", "nightly"]);
    assert_names(&shown, &[&SCHEDULE[..], &["occurrences"]].concat());
    assert!(binary.run(&["schedule", "show", "nightly"]).success().text().contains("30 2 * * * (Europe/Berlin)"));
    assert_eq!(json(&binary, &["remove", "often"])["changed"], true);
    assert_eq!(json(&binary, &["list"]).as_array().unwrap().len(), 1);
    assert_eq!(error(&binary.run(&["schedule", "show", "often", "-o", "json"]).expect_code(1))["code"], "not_found");
}

#[test]
fn next_times_are_shown_in_both_clocks() {
    let binary = Binary::new();
    binary.run(&NIGHTLY).success();
    let next = json(&binary, &["next", "nightly", "-n", "3", "--after", "2027-03-27T00:00:00Z"]);
    let expected = serde_json::json!([
        {"at": "2027-03-27T01:30:00Z", "local": "2027-03-27T02:30:00+01:00"},
        {"at": "2027-03-28T01:00:00Z", "local": "2027-03-28T03:00:00+02:00"},
        {"at": "2027-03-29T00:30:00Z", "local": "2027-03-29T02:30:00+02:00"},
    ]);
    assert_eq!(next, expected);
    assert_eq!(json(&binary, &["next", "nightly"]).as_array().unwrap().len(), 10);
    let text =
        binary.run(&["schedule", "next", "nightly", "-n", "1", "--after", "2027-10-31T00:00:00Z"]).success().text();
    assert!(text.contains("2027-10-31T02:30:00+02:00") && text.contains("2027-10-31T00:30:00Z"), "{text}");
}

#[test]
fn a_schedule_is_run_by_hand_paused_and_resumed() {
    let binary = Binary::new();
    binary.run(&NIGHTLY).success();
    assert_eq!(json(&binary, &["pause", "nightly"])["changed"], true);
    assert_eq!(json(&binary, &["pause", "nightly"])["changed"], false);
    let run = json(&binary, &["run", "nightly"]);
    assert_eq!((&run["id"], &run["created"]), (&1.into(), &true.into()));
    let job = binary.run(&["jobs", "show", "1", "-o", "json"]).success().json();
    assert_eq!((&job["schedule_id"], &job["source"]), (&1.into(), &"a.example/x:1".into()));
    let shown = json(&binary, &["show", "nightly"]);
    assert_eq!(shown["state"], "paused");
    let past = &shown["occurrences"][0];
    assert_names(past, &["at", "outcome", "job_id", "decided_at", "detail"]);
    assert_eq!((&past["outcome"], &past["job_id"], &past["detail"]), (&"fired".into(), &1.into(), &"by hand".into()));
    let output = binary.run(&["schedule", "resume", "nightly"]).success();
    assert_eq!(output.text(), "schedule `nightly` goes on\n");
    assert_eq!(json(&binary, &["show", "nightly"])["state"], "active");
}

#[test]
fn what_makes_no_sense_is_refused_and_nothing_is_written() {
    let binary = Binary::new();
    let copy = ["--", "a.example/x:1", "b.example/x:1"];
    for (options, part, code) in [
        (&["--cron", "30 2 * *"][..], "write five cron fields", 2),
        (&["--cron", "0 0 30 2 *"], "never comes", 2),
        (&["--every", "10ms"], "use 1s or more", 2),
        (&["--once", "2001-01-01T00:00:00Z"], "is over", 2),
        (&["--cron", "@daily", "--timezone", "Berlin"], "use a name such as", 2),
        (&["--cron", "@daily", "--missed", "catch-up=0"], "use skip, once", 2),
        (&["--cron", "@daily", "--overlap", "wait"], "use skip, queue", 2),
        (&["--cron", "@daily", "--jitter", "25h"], "a day at most", 2),
    ] {
        let output = binary.run(&[&["schedule", "add", "x"], options, &copy].concat()).expect_code(code);
        assert!(output.errors().contains(part), "{options:?}: {output}");
    }
    for (what, part, code) in [
        (&["a.example/x:1"][..], "DESTINATION", 2),
        (&["A B", "b.example/x:1"], "white space", 2),
        (&["a.example/x:1", "b.example/x:1", "--at", "2030-01-01T00:00:00Z"], "makes no sense", 2),
        (&["a.example/x:1", "b.example/x:1", "--idempotency-key", "k"], "makes no sense", 2),
        (&["a.example/x:1", "b.example/x:1", "--dry-run"], "makes no sense", 2),
        (&["a.example/x:1", "b.example/x:1", "--nonsense"], "--nonsense", 2),
        (&["mirror"], "NAME", 2),
        (&["replicate-tree", "a", "b"], "names no registry", 2),
    ] {
        let output =
            binary.run(&[&["schedule", "add", "x", "--cron", "@daily", "--"], what].concat()).expect_code(code);
        assert!(output.errors().contains(part), "{what:?}: {output}");
    }
    let long = "n".repeat(129);
    binary.run(&[&["schedule", "add", &long, "--cron", "@daily"], &copy[..]].concat()).expect_code(2);
    assert_eq!(json(&binary, &["list"]), serde_json::json!([]));
    binary.run(&NIGHTLY).success();
    let output = binary.run(&NIGHTLY).expect_code(1);
    assert!(output.errors().contains("there is a schedule `nightly` already"), "{output}");
    for command in ["show", "next", "run", "pause", "resume", "remove"] {
        let output = binary.run(&["schedule", command, "nobody"]).expect_code(1);
        assert!(output.errors().contains("there is no schedule `nobody`"), "{output}");
    }
}
