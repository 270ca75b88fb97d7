//! The same processes on PostgreSQL: killed, stopped, cancelled, and with a server that goes away under them.

use super::{REPOSITORY, Scene};
use crate::support::binary::Binary;
use crate::support::cluster::Cluster;
use crate::support::database::Database;
use crate::support::{PATIENCE, eventually};

/// A scene on a server; None, said loudly, without PostgreSQL.
fn scene() -> Option<Scene> {
    Some(Scene::with(Binary::new().on(Database::postgres()?)))
}

#[test]
fn a_killed_workers_job_is_taken_over_at_once() {
    let Some(scene) = scene() else { return };
    let id = scene.enqueue();
    scene.hold_layer("layer");
    let worker = scene.binary.spawn(&["work"]);
    scene.source.wait_reached("layer");
    worker.kill9();
    assert_eq!(scene.destination.digest_of(REPOSITORY, "v1"), None, "nothing is published half");
    scene.drain().success();
    scene.assert_completed(id, &["expired", "completed"]);
}

#[test]
fn a_stopped_worker_gives_its_job_back() {
    let Some(scene) = scene() else { return };
    let id = scene.enqueue();
    scene.hold_layer("layer");
    let mut worker = scene.binary.spawn(&["work", "--shutdown-grace", "100ms"]);
    scene.source.wait_reached("layer");
    worker.sigterm();
    worker.wait(PATIENCE).success();
    assert_eq!(scene.state(id), "pending");
    scene.drain().success();
    scene.assert_completed(id, &["released", "completed"]);
}

#[test]
fn a_running_copy_is_cancelled() {
    let Some(scene) = scene() else { return };
    let id = scene.enqueue();
    scene.hold_layer("layer");
    let mut worker = scene.binary.spawn(&["work"]);
    scene.source.wait_reached("layer");
    scene.binary.run(&["jobs", "cancel", &id.to_string()]).success();
    eventually("the cancel", || (scene.state(id) == "cancelled").then_some(()));
    worker.sigterm();
    worker.wait(PATIENCE).success();
    assert_eq!(scene.outcomes(id), ["cancelled"]);
}

#[test]
fn a_bare_insert_by_psql_is_noticed() {
    let Some(scene) = scene() else { return };
    let mut worker = scene.binary.spawn(&["work"]);
    eventually("the worker", || worker.stderr().contains("working").then_some(()));
    let insert = format!("INSERT INTO jobs (source, destination) VALUES ('{}', '{}')", scene.from(), scene.to());
    if scene.binary.sql(&insert).is_none() {
        return;
    }
    scene.binary.run(&["jobs", "wait", "1", "--timeout", "60s"]).success();
    let query = "SELECT (SELECT min(at) FROM job_events WHERE to_state = 'running') - (SELECT min(at) FROM job_events)";
    let waited: i64 = scene.binary.sql(query).unwrap()[0].parse().unwrap();
    assert!((0..2_000).contains(&waited), "claimed after {waited} ms");
    worker.sigterm();
    worker.wait(PATIENCE).success();
    scene.assert_completed(1, &["completed"]);
}

#[test]
fn a_copy_goes_on_while_the_server_crashes_and_comes_back() {
    let Some(cluster) = Cluster::own() else { return };
    let scene = Scene::with(Binary::new().on(Database::on(cluster.clone())));
    let id = scene.enqueue();
    scene.hold_layer("layer");
    let mut worker = scene.binary.spawn(&["work"]);
    scene.source.wait_reached("layer");
    cluster.crash_and_restart();
    assert_eq!(scene.state(id), "running");
    scene.source.release("layer");
    scene.binary.run(&["jobs", "wait", &id.to_string(), "--timeout", "60s"]).success();
    // The worker is as good as before.
    let second = scene.enqueue_to(&scene.destination.reference(REPOSITORY, "v2"), &[]);
    scene.binary.run(&["jobs", "wait", &second.to_string(), "--timeout", "60s"]).success();
    worker.sigterm();
    worker.wait(PATIENCE).success();
    scene.assert_completed(id, &["completed"]);
}

#[test]
fn a_password_is_shown_nowhere() {
    let Some(database) = Database::postgres() else { return };
    let Database::Postgres { own } = &database else { unreachable!("asked for a server") };
    let socket = own.cluster.socket().to_str().unwrap().replace('/', "%2F");
    let url = format!("postgres:///{}?host={socket}&user=postgres&password=hunter2", own.name);
    let binary = Binary::new().env("FREIGHTLINER_DATABASE_URL", url);
    let output = binary.run(&["db", "info"]).success();
    assert!(output.text().contains("password=***") && !output.to_string().contains("hunter2"), "{output}");
    assert!(output.errors().contains("pgpass"), "{output}");
    let output = binary.run(&["--database", "postgres://me:hunter2@127.0.0.1:1/x", "jobs", "list"]).expect_code(1);
    assert!(output.errors().contains("127.0.0.1:1") && !output.to_string().contains("hunter2"), "{output}");
}
