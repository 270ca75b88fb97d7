//! `jobs edit`, `pause`, `resume`: what is changed, what is not, and what is said about it.

use super::{error, number};
use crate::support::eventually;
use crate::work::Scene;
use serde_json::{Value, json};

/// Jobs 1 (pending), 2 (in an hour), 3 (pending, another queue), 4 (cancelled).
fn four() -> Scene {
    let scene = Scene::new();
    let to = |tag: &str| scene.destination.reference("x", tag);
    scene.enqueue_to(&to("1"), &[]);
    scene.enqueue_to(&to("2"), &["--in", "1h"]);
    scene.enqueue_to(&to("3"), &["--queue", "other"]);
    scene.enqueue_to(&to("4"), &[]);
    scene.binary.run(&["jobs", "cancel", "4"]).success();
    scene
}

fn states(scene: &Scene) -> Vec<String> {
    (1..=4).map(|id| scene.state(id)).collect()
}

fn jobs(scene: &Scene, arguments: &[&str]) -> Value {
    scene.binary.run(&[&["jobs"], arguments, &["-o", "json"]].concat()).success().json()
}

#[test]
fn an_edit_changes_what_it_names_and_nothing_else() {
    let scene = four();
    let before = scene.job(3);
    assert_eq!(jobs(&scene, &["edit", "1", "2", "--priority", "-7", "--max-attempts", "3"]), json!({ "count": 2 }));
    for id in [1, 2] {
        assert_eq!((&scene.job(id)["priority"], &scene.job(id)["max_attempts"]), (&json!(-7), &json!(3)));
    }
    assert_eq!(scene.job(3), before);
    assert_eq!(scene.binary.run(&["jobs", "edit", "1", "--queue", "third"]).success().text(), "1 job changed\n");
    assert_eq!(scene.job(1)["queue"], "third");
    // Each change has its event, and says who did it.
    let events = jobs(&scene, &["events", "1"]);
    let changed: Vec<_> = events.as_array().unwrap().iter().filter(|event| event["reason"] == "changed").collect();
    assert_eq!(changed.len(), 2, "{events:#}");
    assert!(changed.iter().all(|event| event["actor"].as_str().unwrap().starts_with("cli:")), "{events:#}");
    assert_eq!((&changed[0]["detail"]["priority"], &changed[1]["detail"]["queue"]), (&json!(-7), &json!("third")));
}

#[test]
fn a_time_can_be_put_off_and_brought_forward() {
    let scene = four();
    jobs(&scene, &["edit", "1", "--at", "2099-01-01T00:00:00Z"]);
    assert_eq!((scene.state(1).as_str(), &scene.job(1)["run_at"]), ("scheduled", &json!("2099-01-01T00:00:00.000Z")));
    jobs(&scene, &["edit", "3", "--in", "2h"]);
    assert_eq!(scene.state(3), "scheduled");
    let output = scene.binary.run(&["jobs", "edit", "1", "2", "--now"]).success();
    assert_eq!((output.text().as_str(), output.errors().as_str()), ("2 jobs changed\n", ""));
    scene.drain().success();
    assert_eq!(states(&scene), ["completed", "completed", "scheduled", "cancelled"]);
}

#[test]
fn jobs_are_chosen_by_state_and_by_queue() {
    let scene = four();
    assert_eq!(jobs(&scene, &["edit", "--state", "pending", "--priority", "1"])["count"], 2);
    assert_eq!(jobs(&scene, &["edit", "--in-queue", "other", "--priority", "2"])["count"], 1);
    let both = ["edit", "--state", "scheduled", "--in-queue", "default", "--queue", "other"];
    assert_eq!(jobs(&scene, &both)["count"], 1);
    let priorities: Vec<_> = (1..=4).map(|id| scene.job(id)["priority"].as_i64().unwrap()).collect();
    assert_eq!(priorities, [1, 100, 2, 100]);
    assert_eq!(scene.job(2)["queue"], "other");
    assert_eq!(jobs(&scene, &["edit", "--in-queue", "nobody", "--now"])["count"], 0);
    assert_eq!(jobs(&scene, &["pause", "--queue", "other"])["count"], 2);
    assert_eq!(jobs(&scene, &["resume", "--state", "scheduled"])["count"], 2);
}

#[test]
fn what_was_not_changed_is_told_with_its_reason() {
    let scene = four();
    scene.hold_layer("held");
    let worker = scene.binary.spawn(&["work", "--queue", "other"]);
    scene.source.wait_reached("held");
    for arguments in [&["edit", "1", "3", "4", "--priority", "5"][..], &["pause", "1", "3", "4"]] {
        let output = scene.binary.run(&[&["jobs"], arguments].concat()).success();
        assert!(output.text().starts_with("1 job "), "{output}");
        let notes: Vec<String> = output.errors().lines().map(str::to_owned).collect();
        assert_eq!(notes, ["job 3 was not changed: it is running", "job 4 was not changed: it is cancelled"]);
        scene.binary.run(&["jobs", "resume", "1"]);
    }
    let answer = jobs(&scene, &["edit", "1", "2", "--priority", "5"]);
    assert_eq!(answer, json!({ "count": 1, "unchanged": [{ "id": 1, "reason": "is so already" }] }));
    let answer = jobs(&scene, &["retry", "2", "3"]);
    assert_eq!(answer, json!({ "count": 1, "unchanged": [{ "id": 3, "reason": "is running" }] }));
    let answer = jobs(&scene, &["cancel", "4", "1"]);
    assert_eq!(answer, json!({ "count": 1, "unchanged": [{ "id": 4, "reason": "is cancelled" }] }));
    drop(worker);
}

#[test]
fn an_unknown_id_changes_nothing() {
    let scene = four();
    for arguments in [&["edit", "1", "77", "--priority", "5"][..], &["pause", "1", "77"], &["resume", "1", "77"]] {
        let output = scene.binary.run(&[&["jobs"], arguments, &["-o", "json"]].concat()).expect_code(1);
        let error = error(&output);
        assert_eq!((&error["code"], &error["message"]), (&json!("not_found"), &json!("job 77 not found")));
    }
    assert_eq!((scene.state(1).as_str(), &scene.job(1)["priority"]), ("pending", &json!(100)));
    for values in [["--max-attempts", "0"], ["--priority", "9999999999"], ["--queue", ""]] {
        scene.binary.run(&["jobs", "edit", "1", values[0], values[1]]).expect_code(2);
    }
    assert_eq!(number(&scene.binary, "(SELECT count(*) FROM job_events WHERE reason = 'changed')"), 0);
}

#[test]
fn a_paused_job_rests_until_it_is_resumed() {
    let scene = four();
    let output = scene.binary.run(&["jobs", "pause", "1", "2", "3"]).success();
    assert_eq!((output.text().as_str(), output.errors().as_str()), ("3 jobs paused\n", ""));
    let answer = jobs(&scene, &["pause", "1"]);
    assert_eq!(answer, json!({ "count": 0, "unchanged": [{ "id": 1, "reason": "is paused already" }] }));
    scene.drain().success();
    assert_eq!(states(&scene), ["scheduled", "scheduled", "scheduled", "cancelled"]);
    let paused = scene.job(1)["paused_at"].as_str().unwrap().to_owned();
    assert!(scene.binary.run(&["jobs", "list"]).success().text().contains(&format!("paused since {paused}")));
    assert!(scene.binary.run(&["jobs", "show", "1"]).success().text().contains(&paused));
    // A time that has come does not wake it.
    jobs(&scene, &["edit", "2", "--now"]);
    scene.drain().success();
    assert_eq!(scene.state(2), "scheduled");

    let mut worker = scene.binary.spawn(&["work"]);
    assert_eq!(scene.binary.run(&["jobs", "resume", "1", "2"]).success().text(), "2 jobs resumed\n");
    eventually("both jobs", || (scene.state(1) == "completed" && scene.state(2) == "completed").then_some(()));
    assert_eq!(scene.state(3), "scheduled");
    let answer = jobs(&scene, &["resume", "4"]);
    assert_eq!(answer, json!({ "count": 0, "unchanged": [{ "id": 4, "reason": "is cancelled" }] }));
    jobs(&scene, &["cancel", "3"]);
    assert_eq!(scene.state(3), "cancelled", "a paused job can be called off");
    worker.sigterm();
    worker.finish().success();
}

#[test]
fn patterns_and_classes_choose() {
    let scene = Scene::impatient();
    let absent = scene.source.reference("team/app", "absent");
    let to = |tag: &str| scene.destination.reference("team/app", tag);
    for (source, tag) in [(&absent, "1"), (&absent, "2"), (&scene.from(), "3")] {
        crate::work::enqueue(&scene.binary, &["enqueue", source, &to(tag)]);
    }
    scene.drain().expect_code(1);
    let other = crate::work::enqueue(&scene.binary, &["enqueue", "b.example/y:1", "b.example/z:1", "--in", "1h"]);

    let count = |arguments: &[&str]| jobs(&scene, arguments)["count"].as_i64().unwrap();
    assert_eq!(count(&["retry", "--state", "failed", "--failed-class", "denied"]), 0);
    assert_eq!(count(&["retry", "--state", "failed", "--failed-class", "absent", "--destination", "*:2"]), 1);
    assert_eq!((scene.state(1).as_str(), scene.state(2).as_str()), ("failed", "pending"));
    assert_eq!(count(&["pause", "--source", "b.example"]), 1);
    assert_eq!(count(&["edit", "--destination", "b.example/z", "--priority", "3"]), 1);
    assert_eq!(scene.job(other)["priority"], 3);
    assert_eq!(count(&["resume", "--state", "scheduled", "--source", "nothing"]), 0);
    assert_eq!(count(&["cancel", "--state", "pending", "--source", "team/app"]), 1);
    assert_eq!((scene.state(2).as_str(), scene.state(other).as_str()), ("cancelled", "scheduled"));
    // A pattern alone may mean finished jobs: those commands want a state.
    scene.binary.run(&["jobs", "retry", "--source", "team"]).expect_code(2);
    scene.binary.run(&["jobs", "cancel", "1", "--source", "team"]).expect_code(2);
    scene.binary.run(&["jobs", "retry", "1", "--failed-class", "absent"]).expect_code(2);
}
