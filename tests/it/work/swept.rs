//! The `sweep` command on what dead workers left.

use super::{Scene, assert_clean};
use serde_json::Value;

fn sweep(scene: &Scene, options: &[&str]) -> Value {
    let swept = scene.binary.run(&[&["sweep", "-o", "json"], options].concat()).success().json();
    let mut names: Vec<_> = swept.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    let expected =
        ["duration_ms", "jobs_failed", "jobs_requeued", "temp_bytes_removed", "temp_files_removed", "workers_removed"];
    assert_eq!(names, expected);
    swept
}

#[test]
fn what_a_dead_worker_left_is_counted_and_removed() {
    let scene = Scene::new();
    let id = scene.enqueue();
    scene.hold_layer("layer");
    let worker = scene.binary.spawn(&["work"]);
    scene.source.wait_reached("layer");
    assert_eq!(sweep(&scene, &[])["workers_removed"], 0, "it lives");
    worker.kill9();
    let dry = sweep(&scene, &["--dry-run"]);
    assert_eq!((&dry["jobs_requeued"], &dry["workers_removed"]), (&1.into(), &1.into()));
    assert_eq!(scene.state(id), "running", "a dry run changes nothing");
    let swept = sweep(&scene, &[]);
    assert_eq!(
        (&swept["jobs_requeued"], &swept["jobs_failed"], &swept["workers_removed"]),
        (&1.into(), &0.into(), &1.into())
    );
    assert_ne!(scene.state(id), "running");
    assert_eq!(scene.outcomes(id), ["expired"]);
    assert_clean(&scene.binary);
    let again = sweep(&scene, &[]);
    assert_eq!((&again["jobs_requeued"], &again["workers_removed"]), (&0.into(), &0.into()));
    scene.drain().success();
    scene.assert_completed(id, &["expired", "completed"]);
}

#[test]
fn folders_of_unknown_workers_go_and_other_things_stay() {
    let scene = Scene::new();
    let temp = scene.binary.state().join("tmp");
    let dead = temp.join(uuid::Uuid::now_v7().to_string());
    let (left, notes) = (dead.join("layer"), temp.join("notes"));
    std::fs::create_dir_all(&dead).unwrap();
    std::fs::write(&left, "12345").unwrap();
    std::fs::write(&notes, "mine").unwrap();
    let outside = scene.binary.home().join("precious");
    std::fs::write(&outside, "precious").unwrap();
    std::os::unix::fs::symlink(&outside, dead.join("link")).unwrap();
    let dry = sweep(&scene, &["--dry-run"]);
    assert!(left.exists() && dry["temp_files_removed"].as_u64().unwrap() >= 1, "{dry}");
    let swept = sweep(&scene, &[]);
    assert_eq!(swept["temp_files_removed"], dry["temp_files_removed"]);
    assert!(swept["temp_bytes_removed"].as_u64().unwrap() >= 5, "{swept}");
    assert!(!dead.exists() && notes.exists(), "only what bears a worker's id is removed");
    assert_eq!(std::fs::read_to_string(outside).unwrap(), "precious", "links are not followed");
}

#[test]
fn text_says_the_same() {
    let scene = Scene::new();
    let output = scene.binary.run(&["sweep"]).success();
    for word in ["jobs requeued", "jobs failed", "temp files removed", "workers removed", "time"] {
        assert!(output.text().contains(word), "{output}");
    }
    assert_eq!(output.errors(), "");
}
