//! Disks that are full, too small a limit, or not to be written at all: said clearly, tried again, nothing lost.

use super::{Scene, assert_clean, enqueue};
use crate::support::binary::Binary;
use crate::support::database::Database;
use crate::support::disk::Disk;
use crate::support::eventually;
use crate::support::image::ImageBuilder;
use std::path::PathBuf;
use std::process::Command;

fn scene_with_a_large_layer() -> Scene {
    let mut scene = Scene::impatient();

    scene.image = ImageBuilder::oci(5).layer(3_000_000).build();
    scene.source.put_image(super::REPOSITORY, "v1", &scene.image);
    scene
}

#[test]
fn a_full_destination_is_tried_again_until_there_is_space() {
    let Some(disk) = Disk::of("1m") else { return };
    let scene = scene_with_a_large_layer();
    let layout = disk.path().join("layout");
    let id = scene.enqueue_to(&format!("oci:{}:v1", layout.display()), &["--max-attempts", "1000"]);
    let worker = scene.binary.spawn(&["work", "--drain"]);
    let failure = eventually("a failed attempt", || {
        let failure = scene.job(id)["failure"].clone();
        failure.is_object().then_some(failure)
    });
    assert_eq!(failure["class"], "retryable", "{failure:#}");
    let message = failure["message"].as_str().unwrap();
    assert!(message.contains("No space left") && message.contains(&layout.display().to_string()), "{message}");
    disk.change("size=64m");
    worker.finish().success();
    assert_eq!(scene.job(id)["state"], "completed");
    assert_eq!(scene.image.layout_differences(&layout, "v1"), Vec::<String>::new());
    assert!(!layout.join(".freightliner-tmp").exists());
    assert_clean(&scene.binary);
}

#[test]
fn a_limit_on_the_size_of_files_fails_the_job_and_not_the_program() {
    let Some(prlimit) = crate::support::need("prlimit") else { return };
    let scene = scene_with_a_large_layer();
    let limited = Binary::of(prlimit).env("FREIGHTLINER_RETRY_BASE_MS", "20");
    let layout = limited.home().join("layout");
    let freightliner = env!("CARGO_BIN_EXE_freightliner");
    let run = |limit: &str, arguments: &[&str]| limited.run(&[&[limit, freightliner], arguments].concat());
    let to = format!("oci:{}:v1", layout.display());
    let from = scene.from();
    let unlimited = |arguments: &[&str]| run("--fsize=unlimited", arguments);
    unlimited(&["enqueue", &from, &to, "--max-attempts", "2"]).success();
    let output = run("--fsize=2000000", &["work", "--drain"]).expect_code(1);
    assert!(output.text().contains("1 failed"), "{output}");
    let failure = unlimited(&["jobs", "show", "1", "-o", "json"]).success().json()["failure"].clone();
    assert!(failure["message"].as_str().unwrap().contains("File too large"), "{failure:#}");
    assert_eq!(limited.leftovers(), Vec::<PathBuf>::new());
    unlimited(&["jobs", "retry", "1"]).success();
    unlimited(&["work", "--drain"]).success();
    assert_eq!(scene.image.layout_differences(&layout, "v1"), Vec::<String>::new());
}

#[test]
fn a_limit_below_the_size_of_the_database_is_an_error_like_any_other() {
    let Some(prlimit) = crate::support::need("prlimit") else { return };
    let limited = Binary::of(prlimit);
    let freightliner = env!("CARGO_BIN_EXE_freightliner");
    let output = limited.run(&["--fsize=8192", freightliner, "enqueue", "a.example/x:1", "b.example/x:1"]);
    assert_eq!(output.code(), Some(1), "no signal ends it: {output}");
    assert!(output.errors().starts_with("error: ") && output.text().is_empty(), "{output}");
    limited.run(&["--fsize=unlimited", freightliner, "enqueue", "a.example/x:1", "b.example/x:1"]).success();
}

#[test]
fn a_full_disk_under_the_database_loses_nothing_that_was_acknowledged() {
    let Some(disk) = Disk::of("3m") else { return };
    let folder = tempfile::tempdir_in(disk.path()).unwrap();
    let binary = Binary::new().on(Database::Sqlite { folder });
    let add = |n: usize| binary.run(&["enqueue", &format!("a.example/x:{n}"), &format!("b.example/x:{n}")]);
    for n in 1..=5 {
        add(n).success();
    }
    let filler = disk.fill();
    let refused = add(6).expect_code(1);
    assert!(refused.errors().contains("space") || refused.errors().contains("is full"), "{refused}");
    assert_eq!(refused.text(), "", "no id is printed for what is not stored");
    std::fs::remove_file(filler).unwrap();

    // Now it becomes full in the middle of a load.
    let lines: String = (0..20_000).map(|n| format!("c.example/app:{n} d.example/app:{n}\n")).collect();
    let load = || binary.run_with_input(&["enqueue", "--from-file", "-", "-o", "jsonl"], lines.as_bytes());
    let stopped = load().expect_code(1);
    assert!(stopped.errors().contains("space"), "{stopped}");
    let acknowledged = stopped.text().lines().count();
    assert!(acknowledged < 20_000, "{acknowledged}");
    let count = || {
        let query = "SELECT count(*) AS n, (SELECT count(DISTINCT job_id) FROM job_events) AS told FROM jobs";
        let rows = binary.run(&["sql", query, "-o", "json"]).success().json();
        assert_eq!(rows[0]["n"], rows[0]["told"]);
        usize::try_from(rows[0]["n"].as_u64().unwrap()).unwrap()
    };
    disk.change("size=128m");
    assert!(count() >= 5 + acknowledged, "{} < {acknowledged}", count());
    load().success();
    assert_eq!(count(), 20_005, "the repeated load added what was missing");
    assert_eq!(enqueue(&binary, &["enqueue", "a.example/x:6", "b.example/x:6"]), 20_006);
    binary.run(&["db", "check"]).success();
}

#[test]
fn a_worker_waits_until_its_database_has_space_again() {
    let Some(disk) = Disk::of("8m") else { return };
    let folder = tempfile::tempdir_in(disk.path()).unwrap();
    let scene = Scene::with(Binary::new().on(Database::Sqlite { folder }));
    let id = scene.enqueue();
    scene.hold_layer("layer");
    let worker = scene.binary.spawn(&["work", "--drain"]);
    scene.source.wait_reached("layer");
    let filler = disk.fill();
    let Some(_) = crate::support::need("sqlite3") else { return };
    let grow = "CREATE TABLE IF NOT EXISTS ballast (b BLOB); INSERT INTO ballast VALUES (randomblob(4000))";
    eventually("a database without space", || {
        let mut shell = Command::new("sqlite3");
        let output = shell.arg("-bail").arg(scene.binary.database().file()).arg(grow).output().unwrap();
        (!output.status.success()).then_some(())
    });
    scene.source.release("layer");
    eventually("the worker's complaint", || worker.stderr().contains("could not be written").then_some(()));
    std::fs::remove_file(filler).unwrap();
    worker.finish().success();
    // The lease could not be confirmed, or not in time: then the attempt counts as failed and is repeated.
    let outcomes = scene.outcomes(id);
    let (last, before) = outcomes.split_last().unwrap();
    assert!(last == "completed" && before.iter().all(|outcome| outcome == "retry"), "{outcomes:?}");
    scene.assert_completed(id, &outcomes.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn a_state_folder_that_is_a_file_is_named() {
    let scene = Scene::new();
    scene.enqueue();
    let state = scene.binary.state();
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::write(&state, "").unwrap();
    for arguments in [vec!["work", "--drain"], vec!["health-check"], vec!["sweep"]] {
        let output = scene.binary.run(&arguments).expect_code(1);
        assert!(
            output.errors().starts_with("error: ") && output.errors().contains(&*state.to_string_lossy()),
            "{output}"
        );
    }
    assert_eq!(scene.state(1), "pending");
}

#[test]
fn a_state_folder_that_is_read_only_is_named() {
    let Some(disk) = Disk::of("1m") else { return };
    let state = disk.path().join("state");
    let scene = Scene::with(Binary::new().env("FREIGHTLINER_STATE_DIR", state.display().to_string()));
    scene.enqueue();
    std::fs::create_dir_all(&state).unwrap();
    disk.change("ro");
    for arguments in [vec!["work", "--drain"], vec!["health-check"], vec!["replicate", &scene.from(), &scene.to()]] {
        let output = scene.binary.run(&arguments).expect_code(1);
        let said = output.errors();
        assert!(said.contains("Read-only") && said.contains(&*state.to_string_lossy()), "{output}");
        assert!(said.lines().filter(|line| line.starts_with("error: ")).count() == 1, "{output}");
    }
    disk.change("rw");
    scene.drain().success();
    scene.assert_completed(1, &["completed"]);
}

#[test]
fn a_database_that_cannot_be_written_is_named() {
    let Some(disk) = Disk::of("3m") else { return };
    let folder = tempfile::tempdir_in(disk.path()).unwrap();
    let binary = Binary::new().on(Database::Sqlite { folder });
    binary.run(&["enqueue", "a.example/x:1", "b.example/x:1"]).success();
    disk.change("ro");
    let output = binary.run(&["enqueue", "a.example/x:2", "b.example/x:2"]).expect_code(1);
    let file = binary.database().file();
    assert!(output.errors().contains("database") && output.errors().starts_with("error: "), "{output}");
    assert!(output.errors().contains(&*file.to_string_lossy()), "{output}");
    disk.change("rw");
    binary.run(&["enqueue", "a.example/x:2", "b.example/x:2"]).success();
}
