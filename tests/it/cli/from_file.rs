//! `enqueue --from-file`: all lines are good, or nothing is inserted; repeating adds what is missing.

use super::{error, number};
use crate::support::binary::Binary;
use crate::support::eventually;
use serde_json::{Value, json};

fn lines(count: usize) -> String {
    (0..count).map(|n| format!("a.example/team/app:{n} b.example/team/app:{n}\n")).collect()
}

fn jobs(binary: &Binary) -> i64 {
    number(binary, "(SELECT count(*) FROM jobs)")
}

#[test]
fn ten_thousand_lines_with_a_bad_one_and_then_without() {
    let binary = Binary::new();
    let good = lines(10_000);
    let bad = good.replacen("a.example/team/app:6788 ", "a.example/Team/app:6788 ", 1);
    assert_ne!(good, bad);
    let output = binary.run_with_input(&["enqueue", "--from-file", "-"], bad.as_bytes()).expect_code(2);
    let said = output.errors();
    assert!(said.contains("line 6789") && said.contains("source") && said.contains("nothing was inserted"), "{output}");
    assert_eq!(output.text(), "");
    let output = binary.run_with_input(&["enqueue", "--from-file", "-", "-o", "json"], bad.as_bytes()).expect_code(2);
    let error = error(&output);
    assert_eq!((&error["code"], &error["lines"][0]["line"]), (&json!("invalid"), &json!(6789)));
    assert_eq!(jobs(&binary), 0);

    let output = binary.run_with_input(&["enqueue", "--from-file", "-"], good.as_bytes()).success();
    let ids: Vec<i64> =
        output.text().lines().map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect();
    assert_eq!(ids, (1..=10_000).collect::<Vec<_>>(), "one line a job, in order");
    assert_eq!(jobs(&binary), 10_000);
    assert_eq!(number(&binary, "(SELECT count(*) FROM jobs WHERE state = 'pending')"), 10_000);
}

#[test]
fn repeated_after_a_kill_it_adds_only_what_is_missing() {
    let binary = Binary::new();
    binary.run(&["db", "migrate"]).success();
    let file = binary.home().join("jobs");
    std::fs::write(&file, lines(10_000)).unwrap();
    let load = ["enqueue", "--from-file", file.to_str().unwrap(), "-o", "jsonl"];
    let mut running = binary.spawn(&load);
    // The first of its transactions is in.
    let some = || (!running.is_running() || jobs(&binary) > 0).then_some(());
    eventually("the first jobs", some);
    let killed = running.kill9();
    let before = jobs(&binary);
    assert!(before > 0 && before % 1_000 == 0, "whole transactions: {before}");
    // Had it ended before the signal, this would be a new request.
    assert_eq!(killed.code(), None, "it was killed while it loaded");
    let output = binary.run(&load).success();
    let created =
        output.text().lines().filter(|line| serde_json::from_str::<Value>(line).unwrap()["created"] == true).count();
    assert_eq!(output.text().lines().count(), 10_000);
    assert_eq!(i64::try_from(created).unwrap(), 10_000 - before);
    assert_eq!(jobs(&binary), 10_000);
    assert_eq!(number(&binary, "(SELECT count(DISTINCT destination) FROM jobs)"), 10_000);
    binary.run(&["db", "check"]).success();
}

#[test]
fn json_lines_override_what_the_command_line_says() {
    let binary = Binary::new();
    let text = format!(
        "# nightly\n\n{}\n{}\n{}\n",
        json!({ "source": "a.example/x:1", "destination": "b.example/x:1", "priority": 3, "idempotency_key": "k" }),
        json!({ "source": "a.example/x:2", "destination": "b.example/x:2", "options": { "force": false },
            "run_at": "2031-01-01T00:00:00Z" }),
        "a.example/x:3 b.example/x:3"
    );
    let arguments = ["enqueue", "--from-file", "-", "--force", "--priority", "70", "--queue", "q", "-o", "json"];
    let answer = binary.run_with_input(&arguments, text.as_bytes()).success().json();
    assert_eq!(
        answer,
        json!([{ "id": 1, "created": true }, { "id": 2, "created": true }, { "id": 3, "created": true }])
    );
    let show = |id: i64| binary.run(&["jobs", "show", &id.to_string(), "-o", "json"]).success().json();
    let (first, second, third) = (show(1), show(2), show(3));
    assert_eq!((&first["priority"], &first["idempotency_key"], &first["queue"]), (&json!(3), &json!("k"), &json!("q")));
    assert_eq!(first["options"], json!({ "force": true }));
    assert_eq!(
        (&second["state"], &second["options"], &second["priority"]),
        (&json!("scheduled"), &json!({}), &json!(70))
    );
    assert_eq!((&third["priority"], &third["options"]), (&json!(70), &json!({ "force": true })));
}

#[test]
fn every_bad_line_is_told_with_its_number() {
    let binary = Binary::new();
    let text = "a.example/x:1 b.example/x:1\nonly-one-word\n{\"source\": \"a\"}\n{not json\n\
        {\"source\":\"a\",\"destination\":\"b\",\"prio\":1}\na.example/x@sha256:12 b\n";
    let output = binary.run_with_input(&["enqueue", "--from-file", "-", "-o", "json"], text.as_bytes()).expect_code(2);
    let numbers: Vec<i64> =
        error(&output)["lines"].as_array().unwrap().iter().map(|line| line["line"].as_i64().unwrap()).collect();
    assert_eq!(numbers, [2, 3, 4, 5, 6]);
    assert_eq!(jobs(&binary), 0);
    let twice = "{\"source\":\"a\",\"destination\":\"b\",\"idempotency_key\":\"k\"}\n\
        {\"source\":\"c\",\"destination\":\"b\",\"idempotency_key\":\"k\"}\n";
    let output = binary.run_with_input(&["enqueue", "--from-file", "-"], twice.as_bytes()).expect_code(2);
    assert!(output.errors().contains("line 2") && output.errors().contains("line 1"), "{output}");
}

#[test]
fn a_key_that_is_taken_stops_the_load_and_says_how_far_it_came() {
    let binary = Binary::new();
    binary.run(&["enqueue", "a.example/x:1", "b.example/x:1", "--idempotency-key", "k"]).success();
    let text = "{\"source\":\"c.example/y\",\"destination\":\"d.example/y\",\"idempotency_key\":\"k\"}\n";
    let output = binary.run_with_input(&["enqueue", "--from-file", "-"], text.as_bytes()).expect_code(2);
    assert!(output.errors().contains('k') && output.errors().contains("0 of 1"), "{output}");
    assert_eq!(jobs(&binary), 1);
}

#[test]
fn files_that_are_not_there_or_ask_for_nothing() {
    let binary = Binary::new();
    let output = binary.run(&["enqueue", "--from-file", "/nowhere/jobs"]).expect_code(2);
    assert!(output.errors().contains("/nowhere/jobs"), "{output}");
    let output = binary.run_with_input(&["enqueue", "--from-file", "-", "-o", "json"], b"# nothing\n\n").success();
    assert_eq!(output.json(), json!([]));
}

#[test]
fn a_signal_ends_the_wait_for_input() {
    let binary = Binary::new();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_freightliner"))
        .args(["--database", &binary.database().url(), "--log-level", "trace", "enqueue", "--from-file", "-"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    // The kernel tells when its own handling of the signal is set up: SIGINT is the second bit of what is caught.
    eventually("the signal handler", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
        (u64::from_str_radix(&caught, 16).unwrap() & 2 != 0).then_some(())
    });
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = eventually("the end", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(130));
    assert!(!binary.database().file().exists(), "nothing was begun");
}
