//! A database whose disk fills up under a worker: what was acknowledged is there, the worker stays, says so once, and goes on by
//! itself.

use super::{REPOSITORY, Scene, Snapshot, assert_clean};
use crate::support::binary::{Binary, Running};
use crate::support::database::Database;
use crate::support::disk::Disk;
use crate::support::eventually;
use crate::support::fake::{Fault, Matcher};
use std::time::Duration;

/// How long the disk stays full: the trouble itself, not a wait for something.
const FULL: Duration = Duration::from_secs(4);
/// Lines of log that a full disk is worth in that time, whoever meets it first: far fewer than there are failures.
const LINES: usize = 8;

fn scene_on(disk: &Disk) -> Scene {
    let folder = tempfile::tempdir_in(disk.path()).unwrap();
    Scene::with(Binary::new().on(Database::Sqlite { folder }).env("FREIGHTLINER_WORKER_SWEEP_INTERVAL_SECS", "1"))
}

/// Warnings and errors so far.
fn complaints(worker: &Running) -> Vec<String> {
    let said = worker.stderr();
    said.lines().filter(|line| line.contains(" WARN ") || line.contains("ERROR ")).map(str::to_owned).collect()
}

#[test]
fn a_disk_that_fills_up_under_a_worker_loses_nothing_and_is_waited_out() {
    let Some(disk) = Disk::of("4m") else { return };
    let scene = scene_on(&disk);
    let add = |n: usize| {
        let to = scene.destination.reference("many/app", &format!("t{n}"));
        scene.binary.run(&["enqueue", &scene.from(), &to, "-o", "json"])
    };
    // Three copies are under way when it happens.
    scene.source.fault(
        Matcher::new("GET", &scene.image.layers()[0].digest).times(3),
        Fault::StallBodyAfter { bytes: 300_000, name: "layer".to_owned() },
    );
    let mut worker = scene.binary.spawn(&["work", "--concurrency", "3"]);
    let mut acknowledged: Vec<usize> = (0..3).collect();
    acknowledged.iter().for_each(|n| drop(add(*n).success()));
    scene.source.wait_reached("layer");
    let filler = disk.fill_but(200_000);
    let mut refused = 0;
    for n in 3.. {
        let output = add(n);
        if output.code() == Some(0) {
            acknowledged.push(n);
            continue;
        }
        assert!(output.expect_code(1).errors().contains("space"), "it says why");
        refused += 1;
        if refused == 3 {
            break;
        }
    }
    let health = scene.binary.run(&["health-check"]).expect_code(1);
    assert!(health.errors().contains("folder of the database") && health.errors().contains("No space"), "{health}");
    let before = complaints(&worker).len();
    scene.source.release("layer");
    std::thread::sleep(FULL);
    assert!(worker.is_running());
    let said = complaints(&worker);
    assert!(said.iter().any(|line| line.contains("space")), "{said:#?}");
    assert!(said.len() - before <= LINES, "{} lines: {said:#?}", said.len());
    std::fs::remove_file(filler).unwrap();

    disk.change("size=64m");
    scene.binary.run(&["health-check"]).success();
    let query = "SELECT count(*) AS n FROM jobs WHERE state <> 'completed'";
    eventually("all to be completed", || {
        let rows = scene.binary.run(&["sql", query, "-o", "json"]).success().json();
        (rows[0]["n"] == 0).then_some(())
    });
    assert!(acknowledged.len() > 3, "there was room for some");
    for n in &acknowledged {
        scene.destination.assert_holds("many/app", &format!("t{n}"), &scene.image);
    }
    worker.sigterm();
    worker.wait(crate::support::PATIENCE).success();
    assert_clean(&scene.binary);
}

#[test]
fn a_disk_that_a_long_log_has_filled_is_freed_by_the_worker_itself() {
    let Some(disk) = Disk::of("40m") else { return };
    let scene = scene_on(&disk);
    let id = scene.enqueue();
    scene.hold_layer("layer");
    let worker = scene.binary.spawn(&["work", "--drain"]);
    scene.source.wait_reached("layer");
    let made = "CREATE TABLE ballast (b BLOB);
        INSERT INTO ballast VALUES (zeroblob(6000000)), (zeroblob(100000)), (zeroblob(1))";
    if scene.binary.sql(made).is_none() {
        return;
    }
    let Some(snapshot) = Snapshot::take(&scene.binary) else { return };
    // The log grows, the database does not. What a refused transaction had written is room for smaller ones.
    let grow = |row: u32| {
        let update =
            format!("PRAGMA wal_autocheckpoint = 0; UPDATE ballast SET b = randomblob(length(b)) WHERE rowid = {row}");
        while scene.binary.try_sql(&update).is_ok() {}
    };
    grow(1);
    let filler = disk.fill();
    (2..=3).for_each(grow);
    scene.source.release("layer");
    eventually("the worker's complaint", || worker.stderr().contains("could not be written").then_some(()));
    snapshot.end();
    worker.finish().success();
    assert!(filler.exists(), "nobody made room but the worker");
    scene.destination.assert_holds(REPOSITORY, "v1", &scene.image);
    assert_eq!(scene.state(id), "completed");
    assert_clean(&scene.binary);
}

#[test]
fn a_state_folder_without_space_is_named_and_then_used() {
    // Lock files are empty: they need a place in the table of files only.
    let Some(disk) = Disk::of("1m,nr_inodes=4") else { return };
    let state = disk.path().join("state");
    let scene = Scene::with(Binary::new().env("FREIGHTLINER_STATE_DIR", state.display().to_string()));
    let id = scene.enqueue();
    for arguments in [vec!["work", "--drain"], vec!["replicate", &scene.from(), &scene.to()]] {
        let output = scene.binary.run(&arguments).expect_code(1);
        let said = output.errors();
        assert!(said.contains("No space left") && said.contains(&*state.to_string_lossy()), "{output}");
        assert_eq!(said.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{output}");
    }
    disk.change("nr_inodes=1000");
    scene.drain().success();
    scene.assert_completed(id, &["completed"]);
}
