//! Results on stdout, everything else on stderr; the texts that people know by heart.

use crate::support::binary::Binary;
use crate::work::Scene;
use std::process::{Command, Stdio};

#[test]
fn results_stand_on_stdout_and_nothing_else() {
    let scene = Scene::new();
    let output = scene.binary.run(&["replicate", &scene.from(), &scene.to(), "--log-level", "trace"]).success();
    assert!(!output.errors().is_empty(), "the log went somewhere");
    let first = format!("copied {} to {} (job 1)\n", scene.from(), scene.to());
    assert!(output.text().starts_with(&first), "{output}");
    assert!(output.text().contains(&scene.image.digest), "{output}");
    let quiet = scene.binary.run(&["replicate", &scene.from(), &scene.to()]).success();
    assert!(quiet.text().starts_with("already there: ") && quiet.errors().is_empty(), "{quiet}");
    for output in [&output, &quiet] {
        assert!(!output.text().contains('\u{1b}') && !output.errors().contains('\u{1b}'), "no colour in files");
    }
    let output = scene.binary.run(&["work", "--drain", "--log-format", "json", "--log-level", "debug"]).success();
    for line in output.errors().lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok_and(|line| line.is_object()), "{line}");
    }
}

#[test]
fn raw_manifests_are_byte_for_byte() {
    let scene = Scene::new();
    assert_eq!(scene.binary.run(&["manifest", &scene.from()]).success().stdout, scene.image.manifest);
    let tags = scene.binary.run(&["list-tags", &format!("{}/team/app", scene.source.authority())]).success();
    assert!(tags.text().contains("v1"), "{tags}");
    let inspected = scene.binary.run(&["inspect", &scene.from()]).success();
    assert!(inspected.text().contains(&scene.image.digest), "{inspected}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let binary = Binary::new();
    let lines: String = (0..5_000).map(|n| format!("a.example/x:{n} b.example/x:{n}\n")).collect();
    binary.run_with_input(&["enqueue", "--from-file", "-"], lines.as_bytes()).success();
    let mut child = Command::new(env!("CARGO_BIN_EXE_freightliner"))
        .args(["--database", &binary.database().url(), "jobs", "list", "--limit", "5000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = crate::support::binary::Output::from(child.wait_with_output().unwrap());
    assert_eq!((output.code(), output.errors().as_str()), (Some(0), ""));
}

#[test]
fn a_stdout_that_takes_nothing_is_an_error() {
    let binary = Binary::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_freightliner"))
        .args(["--database", &binary.database().url(), "db", "info"])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("standard output"));
}

#[test]
fn the_help_that_everybody_reads_first() {
    let binary = Binary::new();
    insta::with_settings!({ filters => vec![(r"(?m)[ ]+$", "")] }, {
        insta::assert_snapshot!("help", binary.run(&["--help"]).success().text());
    });
    for command in [
        "replicate",
        "work",
        "jobs",
        "queue",
        "workers",
        "sweep",
        "inspect",
        "list-tags",
        "manifest",
        "delete",
        "db",
        "sql",
        "doctor",
    ] {
        let output = binary.run(&[command, "--help"]).success();
        assert!(output.text().contains("Usage: ") && output.errors().is_empty(), "{output}");
        assert!(!output.text().contains("not implemented") && !output.text().contains("Not implemented"), "{output}");
    }
}

#[test]
fn one_job_for_people() {
    let scene = Scene::new();
    scene.enqueue();
    scene.drain().success();
    let shown = scene.binary.run(&["jobs", "show", "1"]).success().text();
    insta::with_settings!({ filters => vec![
        (r"127\.0\.0\.1:\d+", "[registry]"),
        (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "[time]"),
        (r"sha256:[0-9a-f]{64}", "[digest]"),
        (r"(?m)^took:(\s+).*$", "took:${1}[duration]"),
    ] }, {
        insta::assert_snapshot!("job", shown);
    });
}
