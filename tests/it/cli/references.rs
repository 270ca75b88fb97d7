//! References and options that make no sense: exit 2, one line, and which part is wrong.

use super::{error, number};
use crate::support::binary::Binary;

const GOOD: &str = "registry.example.com/team/app:1";

/// A bad reference, and a word that the message must have.
const BAD: [(&str, &str); 8] = [
    ("", "empty"),
    ("registry.example.com/Team/app:1", "repository"),
    ("registry.example.com/team/app:", "tag"),
    ("registry.example.com/team/app:in valid", "white space"),
    ("registry.example.com/team/app@sha256:abc", "digest"),
    ("registry.example.com/team/app@md5:d41d8cd98f00b204e9800998ecf8427e", "digest"),
    ("registry.example.com:99999/team/app:1", "port"),
    ("docker-archive:/tmp/x.tar", "docker-archive"),
];

#[test]
fn a_bad_reference_is_named_with_its_bad_part() {
    let binary = Binary::new();
    for (bad, word) in BAD {
        for (side, arguments) in [
            ("source", ["enqueue", bad, GOOD]),
            ("destination", ["enqueue", GOOD, bad]),
            ("source", ["replicate", bad, GOOD]),
        ] {
            let output = binary.run(&arguments).expect_code(2);
            let said = output.errors();
            assert!(said.starts_with("error: ") && said.contains(side), "{arguments:?}: {output}");
            assert!(said.to_lowercase().contains(word), "{word}: {output}");
            assert_eq!(output.text(), "");
        }
        for command in ["inspect", "manifest"] {
            let output = binary.run(&[command, bad]).expect_code(2);
            assert!(output.errors().to_lowercase().contains(word), "{word}: {output}");
        }
    }
    let output = binary.run(&["enqueue", BAD[1].0, GOOD, "-o", "json"]).expect_code(2);
    assert_eq!(error(&output)["code"], "invalid", "{output}");
    assert_eq!(number(&binary, "(SELECT count(*) FROM jobs)"), 0);
}

#[test]
fn short_names_mean_what_they_mean_to_docker() {
    let binary = Binary::new();
    for (source, key) in [
        ("alpine", "docker.io/library/alpine:latest"),
        ("docker://grafana/grafana:9", "docker.io/grafana/grafana:9"),
        ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
    ] {
        let output = binary.run(&["enqueue", GOOD, source, "-o", "json"]).success();
        let id = output.json()["id"].clone();
        let query = format!("SELECT destination, dest_key FROM jobs WHERE id = {id}");
        let row = binary.run(&["sql", &query, "-o", "json"]).success().json();
        assert_eq!(row[0]["destination"], source, "it stays as it was typed");
        assert!(row[0]["dest_key"].as_str().unwrap().ends_with(key), "{row}");
    }
}

#[test]
fn wrong_words_are_usage_errors() {
    let binary = Binary::new();
    for arguments in [
        vec![],
        vec!["enqueue", GOOD],
        vec!["enqueue", GOOD, GOOD, GOOD],
        vec!["enqueue", "--no-such-option", GOOD, GOOD],
        vec!["enqueue", GOOD, GOOD, "--at", "tomorrow"],
        vec!["enqueue", GOOD, GOOD, "--in", "5 parsecs"],
        vec!["enqueue", GOOD, GOOD, "--max-attempts", "0"],
        vec!["enqueue", GOOD, GOOD, "--priority", "high"],
        vec!["replicate", GOOD, GOOD, "--in", "1h"],
        vec!["jobs"],
        vec!["jobs", "show"],
        vec!["jobs", "show", "first"],
        vec!["jobs", "list", "--state", "done"],
        vec!["jobs", "cancel"],
        vec!["work", "--concurrency", "none"],
        vec!["sql"],
        vec!["--output", "yaml", "jobs", "list"],
        vec!["--database", "mysql://x", "jobs", "list"],
        vec!["--config", "/nowhere/freightliner.toml", "jobs", "list"],
        vec!["--log-level", "loud", "jobs", "list"],
        vec!["jbos", "list"],
    ] {
        let output = binary.run(&arguments).expect_code(2);
        assert_eq!(output.text(), "", "{arguments:?}");
        assert!(!output.errors().is_empty() && !output.errors().contains("panicked"), "{arguments:?}: {output}");
        if arguments.contains(&"yaml") {
            continue;
        }
        let with_json = [&arguments[..], &["-o", "json"]].concat();
        let output = binary.run(&with_json).expect_code(2);
        error(&output);
        assert_eq!(output.text(), "", "{arguments:?}");
    }
    let output = binary.run(&["jbos", "list", "-o", "json"]);
    assert!(error(&output)["hint"].as_str().unwrap().contains("jobs"), "{output}");
}

#[test]
fn a_wrong_configuration_names_its_place() {
    let binary = Binary::new();
    let file = binary.home().join("freightliner.toml");
    let path = file.to_str().unwrap();
    for (text, word) in [
        ("[worker]\nconcurrencey = 3\n", "concurrencey"),
        ("[worker]\nconcurrency = \"many\"\n", "concurrency"),
        ("[worker\n", "freightliner.toml"),
        ("[worker]\nconcurrency = 0\n", "concurrency"),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = binary.run(&["--config", path, "jobs", "list"]).expect_code(2);
        assert!(output.errors().contains(word), "{text}: {output}");
    }
    std::fs::write(&file, "[retry]\nmax_attempts = 3\n").unwrap();
    binary.run(&["--config", path, "enqueue", GOOD, GOOD.replace(":1", ":2").as_str()]).success();
    assert_eq!(number(&binary, "(SELECT max_attempts FROM jobs)"), 3);
    let binary = Binary::new().env("FREIGHTLINER_WORKER_CONCURRENCY", "lots");
    let output = binary.run(&["work", "--drain"]).expect_code(2);
    assert!(output.errors().contains("FREIGHTLINER_WORKER_CONCURRENCY"), "{output}");
}
