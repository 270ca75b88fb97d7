//! `jobs prune`: only finished jobs that are old enough go, with their history, and with a record of it.

use super::{error, number};
use crate::support::binary::Binary;
use crate::work::Scene;
use serde_json::json;

/// Days ago, as SQL.
fn ago(days: u32) -> String {
    format!("(unixepoch() - {days} * 86400) * 1000")
}

/// Jobs 1 to 6: completed 40 days ago cannot be made by SQL, so cancelled 40 and 20 days ago, failed 100 and 50 days ago,
/// pending, scheduled. None without `sqlite3`.
fn aged() -> Option<Binary> {
    let binary = Binary::new();
    for tag in 1..=6 {
        let destination = format!("b.example/x:{tag}");
        let more: &[&str] = if tag == 6 { &["--in", "1h"] } else { &["--idempotency-key", &destination] };
        binary.run(&[&["enqueue", "a.example/x:1", destination.as_str()], more].concat()).success();
    }
    for (id, state, days) in [(1, "cancelled", 40), (2, "cancelled", 20), (3, "failed", 100), (4, "failed", 50)] {
        binary.sql(&format!("UPDATE jobs SET state = '{state}', finished_at = {} WHERE id = {id}", ago(days)))?;
    }
    Some(binary)
}

fn left(binary: &Binary) -> Vec<i64> {
    let list = binary.run(&["jobs", "list", "-o", "json"]).success().json();
    let mut ids: Vec<i64> = list.as_array().unwrap().iter().map(|job| job["id"].as_i64().unwrap()).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn the_retention_of_the_configuration_decides() {
    let Some(binary) = aged() else { return };
    let output = binary.run(&["jobs", "prune"]).success();
    assert!(output.text().starts_with("2 finished jobs removed\n"), "{output}");
    assert_eq!(left(&binary), [2, 4, 5, 6]);
    assert_eq!(number(&binary, "(SELECT count(*) FROM job_events WHERE job_id IN (1, 3))"), 0);
    let record = binary.run(&["sql", "SELECT job_id, state, actor FROM audit_prunes ORDER BY job_id", "-o", "json"]);
    let record = record.success().json();
    assert_eq!((&record[0]["job_id"], &record[0]["state"]), (&json!(1), &json!("cancelled")));
    assert_eq!((&record[1]["job_id"], &record[1]["state"]), (&json!(3), &json!("failed")));
    assert!(record[1]["actor"].as_str().unwrap().starts_with("cli:"), "{record}");
    assert_eq!(binary.run(&["jobs", "prune"]).success().text(), "0 finished jobs removed\n");
    binary.run(&["db", "check"]).success();
}

#[test]
fn an_age_and_states_can_be_named() {
    let Some(binary) = aged() else { return };
    let prune = |arguments: &[&str]| {
        let answer = binary.run(&[&["jobs", "prune"], arguments, &["-o", "json"]].concat()).success().json();
        answer["jobs"].as_i64().unwrap()
    };
    assert_eq!(prune(&["--state", "failed", "--older-than", "30d"]), 2);
    assert_eq!(left(&binary), [1, 2, 5, 6]);
    assert_eq!(prune(&["--older-than", "30d", "--state", "completed"]), 0);
    assert_eq!(prune(&["--older-than", "30d", "--state", "cancelled"]), 1);
    assert_eq!(left(&binary), [2, 5, 6]);
    assert_eq!(prune(&["--older-than", "0s"]), 1);
    assert_eq!(left(&binary), [5, 6], "what is not finished stays, whatever its age");
}

#[test]
fn a_dry_run_says_what_would_go_and_removes_nothing() {
    let Some(binary) = aged() else { return };
    let output = binary.run(&["jobs", "prune", "--dry-run"]).success();
    assert_eq!(output.text(), "2 finished jobs would be removed: 1 cancelled, 1 failed\n");
    let answer = binary.run(&["jobs", "prune", "--dry-run", "--older-than", "0s", "-o", "json"]).success().json();
    let wanted = json!({ "dry_run": true, "jobs": 4, "completed": 0, "cancelled": 2, "failed": 2, "keys": 0 });
    assert_eq!(answer, wanted);
    let none = binary.run(&["jobs", "prune", "--dry-run", "--state", "completed", "--older-than", "0s"]).success();
    assert_eq!(none.text(), "0 finished jobs would be removed\n");
    assert_eq!(left(&binary), [1, 2, 3, 4, 5, 6]);
    assert_eq!(number(&binary, "(SELECT count(*) FROM prunes)"), 0, "nothing is on record");
}

#[test]
fn a_key_outlives_its_job() {
    let Some(binary) = aged() else { return };
    binary.run(&["jobs", "prune", "--older-than", "0s"]).success();
    let again = ["enqueue", "a.example/x:1", "b.example/x:1", "--idempotency-key", "b.example/x:1", "-o", "json"];
    assert_eq!(binary.run(&again).success().json()["created"], false);
    assert_eq!(left(&binary), [5, 6]);
}

#[test]
fn more_than_a_batch_goes_in_one_call() {
    let binary = Binary::new();
    let lines: String = (0..1_234).map(|n| format!("a.example/x:{n} b.example/x:{n}\n")).collect();
    binary.run_with_input(&["enqueue", "--from-file", "-"], lines.as_bytes()).success();
    binary.run(&["jobs", "cancel", "--state", "pending"]).success();
    let answer = binary.run(&["jobs", "prune", "--older-than", "0s", "-o", "json"]).success().json();
    assert_eq!(answer["jobs"], 1_234);
    assert_eq!(number(&binary, "(SELECT count(*) FROM jobs)"), 0);
    assert_eq!(number(&binary, "(SELECT count(*) FROM audit_prunes)"), 1_234);
}

#[test]
fn a_completed_job_goes_with_all_that_belongs_to_it() {
    let scene = Scene::new();
    let id = scene.enqueue();
    scene.drain().success();
    let rows = "(SELECT count(*) FROM jobs) + (SELECT count(*) FROM job_events) + (SELECT count(*) FROM transfers)";
    assert!(number(&scene.binary, rows) >= 1 + 3 + 3);
    assert_eq!(scene.binary.run(&["jobs", "prune"]).success().text(), "0 finished jobs removed\n", "it is fresh");
    assert_eq!(scene.binary.run(&["jobs", "prune", "--older-than", "0s"]).success().text(), "1 finished job removed\n");
    assert_eq!(number(&scene.binary, rows), 0);
    scene.binary.run(&["jobs", "show", &id.to_string()]).expect_code(1);
    scene.binary.run(&["db", "check"]).success();
}

#[test]
fn what_is_kept_for_ever_stays_unless_an_age_is_given() {
    let Some(binary) = aged() else { return };
    let binary = binary.env("FREIGHTLINER_RETENTION_FINISHED_DAYS", "0").env("FREIGHTLINER_RETENTION_FAILED_DAYS", "0");
    let output = binary.run(&["jobs", "prune"]).success();
    assert!(
        output.text().starts_with("0 finished jobs removed") && output.errors().contains("--older-than"),
        "{output}"
    );
    assert_eq!(left(&binary), [1, 2, 3, 4, 5, 6]);
    binary.run(&["jobs", "prune", "--older-than", "45d"]).success();
    assert_eq!(left(&binary), [1, 2, 5, 6]);
}

#[test]
fn states_that_make_no_sense_are_refused() {
    let binary = Binary::new();
    for states in [&["--state", "running"][..], &["--state", "failed", "--state", "pending"], &["--state", "done"]] {
        let output = binary.run(&[&["jobs", "prune"], states, &["-o", "json"]].concat()).expect_code(2);
        error(&output);
    }
}
