//! Wall clocks that jump, and wall clocks that differ: no lease is lost by them, and none is taken.

use super::{REPOSITORY, Scene, assert_clean, enqueue, short_leases};
use crate::support::binary::{Binary, Running};
use crate::support::fake::{Fault, Matcher};
use crate::support::wall_clock::WallClock;
use crate::support::{PATIENCE, eventually};

fn with_clock(binary: Binary, clock: &WallClock) -> Binary {
    clock.variables().into_iter().fold(binary, |binary, (name, value)| binary.env(name, value))
}

/// Works on the queue of the scene from a state folder of its own: locks prove nothing about it, leases decide.
fn elsewhere(scene: &Scene) -> Binary {
    short_leases().env("FREIGHTLINER_DATABASE_URL", scene.binary.database().url())
}

fn started(binary: &Binary) -> Running {
    let worker = binary.spawn(&["work", "--concurrency", "1"]);
    eventually("the worker", || worker.stderr().contains("working").then_some(()));
    worker
}

/// The wall clock as processes see it that start now, unix milliseconds.
fn now(binary: &Binary) -> i64 {
    let query = "SELECT CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER) AS now";
    binary.run(&["sql", query, "-o", "json"]).success().json()[0]["now"].as_i64().unwrap()
}

/// Waits until the lease was renewed so many times from now on; nobody else may have taken it.
fn renewed(scene: &Scene, id: i64, times: i64) {
    let look = || {
        let query = format!("SELECT lease_beat, lease_epoch, state FROM jobs WHERE id = {id}");
        let row = scene.binary.sql(&query).expect("the shell was there before").remove(0);
        let (beat, rest) = row.split_once('|').unwrap();
        assert_eq!(rest, "1|running", "the lease of job {id} was taken");
        beat.parse::<i64>().unwrap()
    };
    let first = look();
    eventually("renewals", || (look() >= first + times).then_some(()));
}

fn assert_nobody_reclaimed(workers: &[&Running]) {
    for worker in workers {
        let said = worker.stderr();
        assert!(!said.contains("reclaimed") && !said.contains("lease is lost"), "{said}");
    }
}

/// Of each job, each event begins where the one before it ended, and epochs never fall.
fn assert_unbroken_history(scene: &Scene, id: i64) {
    let events = scene.binary.run(&["jobs", "events", &id.to_string(), "-o", "json"]).success().json();
    let events = events.as_array().unwrap();
    for pair in events.windows(2) {
        assert_eq!(pair[0]["to_state"], pair[1]["from_state"], "{events:#?}");
        assert!(pair[0]["lease_epoch"].as_i64() <= pair[1]["lease_epoch"].as_i64(), "{events:#?}");
    }
}

#[test]
fn a_machine_whose_clock_jumps_loses_no_lease() {
    let Some(clock) = WallClock::new() else { return };
    let Some(_) = crate::support::need("sqlite3") else { return };
    let scene = Scene::with(with_clock(short_leases(), &clock));
    let id = scene.enqueue();
    scene.hold_layer("layer");
    let (beside, true_time) = (with_clock(elsewhere(&scene), &clock), now(&scene.binary));
    let workers = [started(&scene.binary), started(&beside)];
    scene.source.wait_reached("layer");
    // Each time long enough for the sweepers to have had a look.
    for (offset, least, most) in [("+2h", 7_100_000, 7_300_000), ("-2h", -7_300_000, -7_100_000)] {
        clock.set(offset);
        assert!((least..most).contains(&(now(&scene.binary) - true_time)), "the clock did not move");
        renewed(&scene, id, 3);
    }
    scene.source.release("layer");
    scene.binary.run(&["jobs", "wait", &id.to_string(), "--timeout", "60s"]).success();
    assert_nobody_reclaimed(&[&workers[0], &workers[1]]);
    for mut worker in workers {
        worker.sigterm();
        worker.wait(PATIENCE).success();
    }
    scene.assert_completed(id, &["completed"]);
    assert_unbroken_history(&scene, id);
}

#[test]
fn workers_whose_clocks_differ_leave_each_other_alone() {
    let (Some(slow), Some(fast)) = (WallClock::new(), WallClock::new()) else { return };
    let Some(_) = crate::support::need("sqlite3") else { return };
    slow.set("-30m");
    fast.set("+30m");
    let scene = Scene::with(with_clock(short_leases(), &slow));
    let beside = with_clock(elsewhere(&scene), &fast);
    let layer = &scene.image.layers()[0].digest;
    let stall = Fault::StallBodyAfter { bytes: 300_000, name: "layer".to_owned() };
    scene.source.fault(Matcher::new("GET", layer).times(2), stall);
    let jobs = [scene.enqueue(), scene.enqueue_to(&scene.destination.reference("other/app", "v1"), &[])];
    let workers = [started(&scene.binary), started(&beside)];
    eventually("a job for each", || {
        let query = "SELECT count(DISTINCT worker) FROM jobs WHERE state = 'running'";
        (scene.binary.sql(query)? == ["2"]).then_some(())
    });
    scene.source.wait_reached("layer");
    // Longer than a lease and its margin.
    renewed(&scene, jobs[0], 5);
    renewed(&scene, jobs[1], 1);
    scene.source.release("layer");
    for id in jobs {
        scene.binary.run(&["jobs", "wait", &id.to_string(), "--timeout", "60s"]).success();
        assert_eq!(scene.outcomes(id), ["completed"]);
        assert_unbroken_history(&scene, id);
    }
    assert_nobody_reclaimed(&[&workers[0], &workers[1]]);
    for mut worker in workers {
        worker.sigterm();
        worker.wait(PATIENCE).success();
    }
    scene.destination.assert_holds(REPOSITORY, "v1", &scene.image);
    scene.destination.assert_holds("other/app", "v1", &scene.image);
    assert_clean(&scene.binary);
}

#[test]
fn what_is_asked_for_later_follows_the_clock_and_what_waits_now_does_not() {
    let Some(clock) = WallClock::new() else { return };
    let scene = Scene::with(with_clock(Binary::new(), &clock));
    let later = scene.enqueue_with(&["--in", "1h"]);
    let worker = started(&scene.binary);
    clock.set("-2h");
    // This one was asked for before the clock went back, and is to run all the same: so the next one sees it pending.
    let again =
        |name: &str| enqueue(&scene.binary, &["enqueue", &scene.from(), &scene.destination.reference(name, "v1")]);
    let back = again("back/app");
    scene.binary.run(&["jobs", "wait", &back.to_string(), "--timeout", "60s"]).success();
    assert_eq!(scene.state(later), "scheduled");
    clock.set("+0");
    let forth = again("forth/app");
    scene.binary.run(&["jobs", "wait", &forth.to_string(), "--timeout", "60s"]).success();
    assert_eq!(scene.state(later), "scheduled");
    clock.set("+2h");
    scene.binary.run(&["jobs", "wait", &later.to_string(), "--timeout", "60s"]).success();
    assert_nobody_reclaimed(&[&worker]);
    for id in [later, back, forth] {
        assert_eq!(scene.outcomes(id), ["completed"]);
        assert_unbroken_history(&scene, id);
    }
}

#[test]
fn a_job_that_was_pending_when_the_clock_went_back_runs_at_once() {
    let Some(clock) = WallClock::new() else { return };
    let scene = Scene::with(with_clock(Binary::new(), &clock));
    let id = scene.enqueue();
    clock.set("-2h");
    scene.drain().success();
    scene.assert_completed(id, &["completed"]);
}
