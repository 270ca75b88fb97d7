//! Workers that stand still for longer than their lease and then go on: none of their writes has effect, and the one write
//! that no fence covers, a tag that was already on its way, is found and told.

use super::{REPOSITORY, Scene, assert_clean, enqueue, short_leases};
use crate::support::binary::Running;
use crate::support::fake::{Fault, Matcher};
use crate::support::image::{Image, ImageBuilder};
use crate::support::{PATIENCE, eventually};
use serde_json::Value;

/// The end of a job's first lease was noticed and it was done again by somebody who waits for nothing else.
fn finished_by_another(scene: &Scene, id: i64) {
    scene.drain().success();
    assert_eq!(scene.outcomes(id), ["expired", "completed"]);
}

/// The worker is not only up: it does a new job, and ends well.
fn goes_on_working(scene: &Scene, worker: &mut Running) {
    let id = enqueue(&scene.binary, &["enqueue", &scene.from(), &scene.destination.reference("next/app", "v1")]);
    scene.binary.run(&["jobs", "wait", &id.to_string(), "--timeout", "60s"]).success();
    assert_eq!(scene.outcomes(id), ["completed"]);
    worker.sigterm();
    let output = worker.wait(PATIENCE).success();
    assert!(output.text().starts_with("1 completed"), "the attempt that lost its lease does not count: {output}");
    assert_clean(&scene.binary);
}

fn events(scene: &Scene, id: i64) -> Vec<Value> {
    let events = scene.binary.run(&["jobs", "events", &id.to_string(), "-o", "json"]).success().json();
    events.as_array().unwrap().clone()
}

/// The detail of an event, which may be JSON in a string.
fn detail(event: &Value) -> Value {
    event["detail"].as_str().map_or_else(|| event["detail"].clone(), |text| serde_json::from_str(text).unwrap())
}

#[test]
fn a_worker_that_stood_still_in_the_middle_of_a_layer_writes_nothing() {
    let scene = Scene::with(short_leases());
    let id = scene.enqueue();
    scene.hold_layer("layer");
    let mut stopped = scene.binary.spawn(&["work"]);
    scene.source.wait_reached("layer");
    stopped.sigstop();
    finished_by_another(&scene, id);
    let (job, history, requests) = (scene.job(id), events(&scene, id), scene.destination.requests().len());
    // The rest of the layer comes while it stands still, so that it could go on at once.
    scene.source.release("layer");
    stopped.sigcont();
    eventually("the end of the lost attempt", || stopped.stderr().contains("lease is lost").then_some(()));
    assert_eq!(scene.job(id), job, "no late write changed the row");
    assert_eq!(events(&scene, id), history, "or added to its history");
    assert_eq!(scene.destination.count("PUT", "/manifests/v1"), 1, "one of them published");
    assert!(scene.destination.requests().len() <= requests + 4, "the late one did not go on copying");
    goes_on_working(&scene, &mut stopped);
}

/// A worker whose tag is on its way to the registry, held before it is applied, stands still until another one has done the job
/// with other content.
struct Late {
    scene: Scene,
    id: i64,
    stopped: Running,
    newer: Image,
    worker: String,
}

fn late() -> Late {
    let scene = Scene::with(short_leases());
    let id = scene.enqueue();
    scene.destination.fault(Matcher::new("PUT", "/manifests/v1"), Fault::HoldUntil("tag".to_owned()));
    let mut stopped = scene.binary.spawn(&["work"]);
    scene.destination.wait_reached("tag");
    stopped.sigstop();
    let worker = scene.job(id)["worker"].as_str().unwrap().to_owned();
    let newer = ImageBuilder::oci(77).layer(5_000).build();
    scene.source.put_image(REPOSITORY, "v1", &newer);
    finished_by_another(&scene, id);
    assert_eq!(scene.destination.digest_of(REPOSITORY, "v1").as_ref(), Some(&newer.digest));
    Late { scene, id, stopped, newer, worker }
}

/// Waits for the event that tells of the late tag; nothing else about the job has changed.
fn assert_told(late: &Late, job: &Value, history: &[Value], found: &str) {
    let Late { scene, id, worker, .. } = late;
    let told = eventually("an event of the late publication", || {
        events(scene, *id).into_iter().find(|event| event["reason"] == "published late")
    });
    let detail = detail(&told);
    assert_eq!(detail["digest"], scene.image.digest.as_str(), "{told:#}");
    assert_eq!(detail["found"], found, "{told:#}");
    assert_eq!((&detail["worker"], &detail["lease_epoch"]), (&worker.as_str().into(), &1.into()), "{told:#}");
    assert_eq!((&told["from_state"], &told["to_state"]), (&"completed".into(), &"completed".into()));
    let after = events(scene, *id);
    assert_eq!(after.len(), history.len() + 1, "{after:#?}");
    assert_eq!(&after[..history.len()], history);
    assert_eq!(&scene.job(*id), job, "no late write changed the row");
    assert_eq!(scene.outcomes(*id), ["expired", "completed"]);
}

#[test]
fn a_tag_that_lands_late_is_found_and_told() {
    let mut late = late();
    let (job, history) = (late.scene.job(late.id), events(&late.scene, late.id));
    assert_eq!(job["report"]["digest"], late.newer.digest.as_str());
    // It was past its confirm and on its way: nothing can keep it from landing.
    late.scene.destination.release("tag");
    eventually("the late tag", || {
        (late.scene.destination.digest_of(REPOSITORY, "v1").as_ref() == Some(&late.scene.image.digest)).then_some(())
    });
    late.stopped.sigcont();
    assert_told(&late, &job, &history, &late.scene.image.digest);
    // The way out that the README names: have it done again.
    late.scene.binary.run(&["jobs", "retry", &late.id.to_string()]).success();
    late.scene.binary.run(&["jobs", "wait", &late.id.to_string(), "--timeout", "60s"]).success();
    assert_eq!(late.scene.destination.digest_of(REPOSITORY, "v1").as_ref(), Some(&late.newer.digest));
    late.stopped.sigterm();
    late.stopped.wait(PATIENCE).success();
    assert_clean(&late.scene.binary);
}

#[test]
fn a_tag_that_may_land_late_is_told_too() {
    let mut late = late();
    let (job, history) = (late.scene.job(late.id), events(&late.scene, late.id));
    late.stopped.sigcont();
    assert_told(&late, &job, &history, &late.newer.digest);
    goes_on_working(&late.scene, &mut late.stopped);
}
