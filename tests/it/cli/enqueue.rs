//! `enqueue` of single jobs: times, keys, equal jobs.

use super::{error, number};
use crate::support::binary::Binary;
use serde_json::{Value, json};

const FROM: &str = "a.example/team/app:1";
const TO: &str = "b.example/team/app:1";

fn add(binary: &Binary, options: &[&str]) -> Value {
    let output = binary.run(&[&["enqueue", FROM, TO, "-o", "json"], options].concat()).success();
    super::assert_names(&output.json(), &["created", "id"]);
    output.json()
}

fn show(binary: &Binary, id: i64) -> Value {
    binary.run(&["jobs", "show", &id.to_string(), "-o", "json"]).success().json()
}

#[test]
fn the_id_is_all_that_is_printed() {
    let binary = Binary::new();
    let output = binary.run(&["enqueue", FROM, TO]).success();
    assert_eq!((output.text().as_str(), output.errors().as_str()), ("1\n", ""));
}

#[test]
fn an_equal_job_that_waits_is_found_and_improved() {
    let binary = Binary::new();
    assert_eq!(add(&binary, &["--priority", "50"]), json!({ "id": 1, "created": true }));
    assert_eq!(add(&binary, &["--priority", "7"]), json!({ "id": 1, "created": false }));
    assert_eq!(show(&binary, 1)["priority"], 7, "the better priority counts");
    assert_eq!(add(&binary, &["--priority", "90"]), json!({ "id": 1, "created": false }));
    assert_eq!(show(&binary, 1)["priority"], 7);
    // The same reference in other words.
    let output = binary.run(&["enqueue", &format!("docker://{FROM}"), TO, "-o", "json"]).success();
    assert_eq!(output.json()["created"], false);
    for other in [vec!["--force"], vec!["--queue", "other"], vec!["--in", "1h"], vec!["--no-clobber"]] {
        assert_eq!(add(&binary, &other)["created"], true, "{other:?}");
    }
    binary.run(&["jobs", "cancel", "1"]).success();
    assert_eq!(add(&binary, &[])["created"], true, "a finished job is not waiting");
    // Plain SQL inserts what it says.
    if binary.sql(&format!("INSERT INTO jobs (source, destination) VALUES ('{FROM}', '{TO}')")).is_some() {
        assert_eq!(number(&binary, "(SELECT count(*) FROM jobs)"), 7);
    }
}

#[test]
fn a_key_stands_for_one_job() {
    let binary = Binary::new();
    assert_eq!(add(&binary, &["--idempotency-key", "nightly"]), json!({ "id": 1, "created": true }));
    assert_eq!(add(&binary, &["--idempotency-key", "nightly"]), json!({ "id": 1, "created": false }));
    assert_eq!(show(&binary, 1)["idempotency_key"], "nightly");
    binary.run(&["jobs", "cancel", "1"]).success();
    assert_eq!(
        add(&binary, &["--idempotency-key", "nightly"]),
        json!({ "id": 1, "created": false }),
        "also when finished"
    );
    let other = ["enqueue", FROM, "b.example/team/other:1", "--idempotency-key", "nightly"];
    let output = binary.run(&other).expect_code(2);
    assert!(output.errors().contains("nightly") && output.errors().contains("destination"), "{output}");
    let output = binary.run(&[&other[..], &["-o", "json"]].concat()).expect_code(2);
    assert_eq!(error(&output)["code"], "conflict");
    let output = binary.run(&["enqueue", FROM, TO, "--force", "--idempotency-key", "nightly"]).expect_code(2);
    assert!(output.errors().contains("options"), "{output}");
    assert_eq!(number(&binary, "(SELECT count(*) FROM jobs)"), 1);
}

#[test]
fn a_replicate_with_a_known_key_ends_by_its_result() {
    let binary = Binary::new();
    add(&binary, &["--idempotency-key", "k"]);
    binary.run(&["jobs", "cancel", "1"]).success();
    let output = binary.run(&["replicate", FROM, TO, "--idempotency-key", "k"]).expect_code(1);
    assert!(output.errors().contains("job 1 was cancelled"), "{output}");
}

#[test]
fn times_are_kept() {
    let binary = Binary::new();
    add(&binary, &["--at", "2031-03-30T01:30:00Z"]);
    let job = show(&binary, 1);
    assert_eq!(job["state"], "scheduled");
    assert!(job["run_at"].as_str().unwrap().starts_with("2031-03-30T01:30:00"), "{job:#}");
    add(&binary, &["--at", "2031-03-30T01:30:00+02:00"]);
    assert!(show(&binary, 2)["run_at"].as_str().unwrap().starts_with("2031-03-29T23:30:00"));
    add(&binary, &["--in", "1h30m"]);
    let in_ms = number(&binary, "(SELECT run_at - created_at FROM jobs WHERE id = 3)");
    assert!((5_399_000..=5_401_000).contains(&in_ms), "{in_ms}");
    add(&binary, &["--at", "2001-01-01T00:00:00Z"]);
    assert_eq!(show(&binary, 4)["state"], "pending", "a time that is over is now");
}

#[test]
fn options_reach_the_row() {
    let binary = Binary::new();
    let options = ["--no-clobber", "--force", "--src-tls-verify=false", "--max-attempts", "3", "--queue", "nightly"];
    add(&binary, &[&options[..], &["--priority", "-5"]].concat());
    let job = show(&binary, 1);
    assert_eq!(job["options"], json!({ "force": true, "no_clobber": true, "src_tls_verify": false }));
    assert_eq!((&job["max_attempts"], &job["queue"], &job["priority"]), (&json!(3), &json!("nightly"), &json!(-5)));
}

#[test]
fn detached_and_dry_runs_do_not_work() {
    let binary = Binary::new();
    let output = binary.run(&["replicate", FROM, TO, "--detach", "-o", "json"]).success();
    assert_eq!(output.json(), json!({ "id": 1, "created": true }));
    assert_eq!(show(&binary, 1)["state"], "pending");
    let fake = crate::support::fake::Fake::start();
    let image = crate::support::image::ImageBuilder::oci(1).layer(1_000).build();
    fake.put_image("a", "v1", &image);
    let (from, to) = (fake.reference("a", "v1"), fake.reference("b", "v1"));
    for command in ["replicate", "enqueue"] {
        let output = binary.run(&[command, &from, &to, "--dry-run", "-o", "json"]).success();
        assert_eq!(output.json()["digest"], image.digest.as_str(), "{output}");
    }
    assert_eq!(number(&binary, "(SELECT count(*) FROM jobs)"), 1);
    assert!(
        fake.digest_of("b", "v1").is_none()
            && fake.requests().iter().all(|seen| seen.method != "PUT" && seen.method != "POST")
    );
}
