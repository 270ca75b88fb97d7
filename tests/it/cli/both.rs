//! The operators' commands on each database: the same words and the same effects.

use crate::support::binary::Binary;
use crate::support::database::Database;
use crate::work::{Scene, enqueue};
use serde_json::{Value, json};

fn codes(binary: &Binary, id: i64) -> Vec<String> {
    let answer = binary.run(&["jobs", "why", &id.to_string(), "-o", "json"]).success().json();
    let reasons = answer["reasons"].as_array().unwrap();
    reasons.iter().map(|reason| reason["code"].as_str().unwrap().to_owned()).collect()
}

fn json_of(binary: &Binary, arguments: &[&str]) -> Value {
    binary.run(&[arguments, &["-o", "json"]].concat()).success().json()
}

/// Those whose store has all of these operations: PostgreSQL's answers "not implemented" to some so far.
fn databases() -> Vec<Database> {
    vec![Database::sqlite()]
}

#[test]
fn operators_have_the_same_commands_on_each_database() {
    for database in databases() {
        let server = database.url().starts_with("postgres");
        let scene = Scene::with(Binary::new().on(database));
        let binary = &scene.binary;
        let first = scene.enqueue_to(&scene.destination.reference("x", "1"), &["--queue", "nightly"]);
        let later = scene.enqueue_to(&scene.destination.reference("x", "2"), &["--in", "1h"]);
        let third = scene.enqueue_to(&scene.destination.reference("x", "3"), &["--priority", "7"]);

        assert_eq!(json_of(binary, &["queue", "pause", "nightly"])["changed"], true);
        assert_eq!(json_of(binary, &["queue", "pause", "nightly"])["changed"], false);
        assert_eq!(json_of(binary, &["queue", "limit", "default", "2"])["max_running"], 2);
        let queues = json_of(binary, &["queue", "list"]);
        assert_eq!(
            (&queues[0]["name"], &queues[0]["pending"], &queues[0]["scheduled"]),
            (&json!("default"), &json!(1), &json!(1))
        );
        assert_eq!((&queues[1]["paused"], &queues[0]["max_running"]), (&json!(true), &json!(2)));
        assert_eq!(codes(binary, first), ["queue_paused", "no_worker"]);
        assert_eq!(codes(binary, later), ["future"]);
        assert_eq!(codes(binary, third), ["no_worker"]);

        assert_eq!(json_of(binary, &["jobs", "pause", &third.to_string()]), json!({ "count": 1 }));
        assert!(scene.job(third)["paused_at"].is_string());
        assert_eq!(codes(binary, third), ["paused"]);
        let edit = ["jobs", "edit", &later.to_string(), "--now", "--priority", "9", "--max-attempts", "3"];
        assert_eq!(json_of(binary, &edit), json!({ "count": 1 }));
        assert_eq!(scene.job(later)["priority"], 9);
        scene.drain().success();
        let states = [first, later, third].map(|id| scene.state(id));
        assert_eq!(states, ["pending", "completed", "scheduled"]);
        assert_eq!(codes(binary, later), ["completed"]);
        let answer = json_of(binary, &["jobs", "edit", &later.to_string(), "--now"]);
        assert_eq!(answer["unchanged"][0]["reason"], "is completed");
        binary.run(&["jobs", "edit", "7777", "--now"]).expect_code(1);

        assert_eq!(json_of(binary, &["jobs", "resume", &third.to_string()]), json!({ "count": 1 }));
        json_of(binary, &["queue", "resume", "nightly"]);
        scene.drain().success();
        assert_eq!((scene.state(first).as_str(), scene.state(third).as_str()), ("completed", "completed"));
        assert_eq!(json_of(binary, &["jobs", "retry", "--state", "completed", "--destination", "*:3"])["count"], 1);
        assert_eq!(json_of(binary, &["jobs", "prune", "--older-than", "0s"])["jobs"], 2);
        assert_eq!(json_of(binary, &["jobs", "list"]).as_array().unwrap().len(), 1);
        assert_eq!(json_of(binary, &["workers", "list"]), json!([]));
        let id = enqueue(binary, &["enqueue", "a.example/x:1", "b.example/x:1"]);
        assert_eq!(json_of(binary, &["db", "restore", "--in-place"])["jobs"], 2);
        assert!(scene.job(id)["lease_epoch"].as_i64().unwrap() > 1_000);
        assert_eq!(json_of(binary, &["db", "check"])["ok"], true);
        if server {
            let output = binary.run(&["db", "backup", "copy.db"]).expect_code(2);
            assert!(output.errors().contains("pg_dump"), "{output}");
            let output = binary.run(&["db", "restore", "copy.db"]).expect_code(2);
            assert!(output.errors().contains("--in-place"), "{output}");
        }
    }
}
