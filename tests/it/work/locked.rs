//! Somebody else has the database's write lock for a while.

use super::{Scene, WriteLock};
use std::time::Duration;

/// How long the lock is held: the trouble itself, not a wait for something.
const HELD: Duration = Duration::from_secs(3);

#[test]
fn a_job_outlives_a_write_lock_of_three_seconds() {
    let scene = Scene::new();
    let id = scene.enqueue();
    scene.hold_layer("layer");
    let worker = scene.binary.spawn(&["work", "--drain"]);
    scene.source.wait_reached("layer");
    let Some(lock) = WriteLock::take(&scene.binary) else { return };
    scene.source.release("layer");
    std::thread::sleep(HELD);
    assert_eq!(scene.state(id), "running", "readers are not held up, and nothing was settled past the lock");
    lock.release();
    worker.finish().success();
    scene.assert_completed(id, &["completed"]);
}

#[test]
fn commands_wait_for_the_lock() {
    let scene = Scene::new();
    let first = scene.enqueue();
    let Some(lock) = WriteLock::take(&scene.binary) else { return };
    let mut enqueue = scene.binary.spawn(&["enqueue", &scene.from(), &scene.destination.reference("other/app", "v1")]);
    let mut drain = scene.binary.spawn(&["work", "--drain"]);
    std::thread::sleep(HELD);
    assert!(enqueue.is_running() && drain.is_running());
    lock.release();
    assert_eq!(enqueue.finish().success().text(), "2\n");
    drain.finish().success();
    scene.drain().success();
    scene.assert_completed(first, &["completed"]);
    assert_eq!(scene.state(2), "completed");
}
