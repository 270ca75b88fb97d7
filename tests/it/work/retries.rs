//! Attempts that fail: tried again, given up, overtaken.

use super::{REPOSITORY, Scene, assert_clean, job, outcomes};
use crate::support::binary::Binary;
use crate::support::fake::{Fault, Matcher};
use crate::support::image::ImageBuilder;
use crate::support::registry::Registry;
use crate::support::{PATIENCE, eventually};

#[test]
fn a_registry_that_comes_back_gets_its_image() {
    let Some(mut registry) = Registry::start() else { return };
    let scene =
        Scene::with(Binary::new().env("FREIGHTLINER_RETRY_BASE_MS", "200").env("FREIGHTLINER_RETRY_CAP_SECS", "1"));
    let to = registry.reference(REPOSITORY, "v1");
    registry.stop();
    let id = scene.enqueue_to(&to, &["--max-attempts", "1000"]);
    let mut worker = scene.binary.spawn(&["work"]);
    let failed = eventually("a failed attempt", || {
        let job = scene.job(id);
        job["failure"].is_object().then_some(job)
    });
    assert_eq!(failed["failure"]["class"], "retryable", "{failed:#}");
    let message = failed["failure"]["message"].as_str().unwrap();
    assert!(message.contains(registry.authority()), "it says which registry: {message}");
    registry.restart();
    scene.binary.run(&["jobs", "wait", &id.to_string(), "--timeout", "60s"]).success();
    worker.sigterm();
    worker.wait(PATIENCE).success();
    scene.image.assert_at(&registry.client(), REPOSITORY, "v1");
    let outcomes = scene.outcomes(id);
    let (last, before) = outcomes.split_last().unwrap();
    assert!(
        last == "completed" && !before.is_empty() && before.iter().all(|outcome| outcome == "retry"),
        "{outcomes:?}"
    );
    assert_clean(&scene.binary);
}

#[test]
fn attempts_are_counted_and_then_it_is_given_up() {
    let scene = Scene::impatient();
    let id = scene.enqueue_with(&["--max-attempts", "3"]);
    scene.source.fault(Matcher::new("*", "/manifests/v1").always(), Fault::status(503));
    scene.drain().expect_code(1);
    let job = scene.job(id);
    assert_eq!((&job["state"], &job["attempt"], &job["max_attempts"]), (&"failed".into(), &3.into(), &3.into()));
    assert!(job["failure"]["message"].as_str().unwrap().contains("503"), "{job:#}");
    assert_eq!(scene.outcomes(id), ["retry", "retry", "failed"]);
    // An operator may try again, with new attempts.
    scene.source.heal();
    scene.binary.run(&["jobs", "retry", &id.to_string()]).success();
    let job = scene.job(id);
    assert_eq!((&job["state"], &job["generation"], &job["attempt"]), (&"pending".into(), &2.into(), &0.into()));
    assert_eq!(job["failure"], serde_json::Value::Null);
    scene.drain().success();
    scene.assert_completed(id, &["retry", "retry", "failed", "completed"]);
}

#[test]
fn a_registrys_own_wish_for_a_pause_is_honoured() {
    let scene = Scene::impatient();
    let id = scene.enqueue();
    let fault = Fault::TooManyRequests { retry_after: Some("2".to_owned()) };
    scene.source.fault(Matcher::new("*", "/manifests/v1"), fault);
    scene.drain().success();
    scene.assert_completed(id, &["retry", "completed"]);
    let query = "SELECT (SELECT max(at) FROM job_events WHERE to_state = 'running') \
        - (SELECT min(at) FROM job_events WHERE from_state = 'running') AS ms";
    let pause = scene.binary.run(&["sql", query, "-o", "json"]).success().json()[0]["ms"].as_i64().unwrap();
    assert!(pause >= 1_900, "tried again after {pause} ms");
}

#[test]
fn a_late_retry_never_moves_a_tag_back() {
    let binary = Binary::new().env("FREIGHTLINER_RETRY_BASE_MS", "2000").env("FREIGHTLINER_REGISTRY_TRIES", "1");
    let scene = Scene::with(binary);
    let newer = ImageBuilder::oci(2).layer(1_000).build();
    scene.source.put_image(REPOSITORY, "v2", &newer);
    scene.source.fault(Matcher::new("*", "/manifests/v1"), Fault::status(503));
    let old = scene.enqueue();
    let new = super::enqueue(&scene.binary, &["enqueue", &scene.source.reference(REPOSITORY, "v2"), &scene.to()]);
    scene.drain().expect_code(1);
    assert_eq!(scene.state(new), "completed");
    let overtaken = scene.job(old);
    assert_eq!((&overtaken["state"], &overtaken["failure"]["class"]), (&"failed".into(), &"superseded".into()));
    assert!(overtaken["failure"]["message"].as_str().unwrap().contains(&format!("job {new}")), "{overtaken:#}");
    assert_eq!(scene.destination.digest_of(REPOSITORY, "v1"), Some(newer.digest.clone()));
    // An operator who insists gets what they ask for.
    scene.binary.run(&["jobs", "retry", &old.to_string()]).success();
    scene.drain().success();
    assert_eq!(scene.state(old), "completed");
    scene.destination.assert_holds(REPOSITORY, "v1", &scene.image);
}

#[test]
fn a_late_job_does_not_write_over_a_result_that_was_taken_back_or_removed() {
    for steer in [&["jobs", "retry", "2"][..], &["jobs", "prune", "--older-than", "0s"]] {
        let scene = Scene::new();
        let newer = ImageBuilder::oci(2).layer(1_000).build();
        scene.source.put_image(REPOSITORY, "v2", &newer);
        let old = scene.enqueue();
        scene.binary.run(&["jobs", "pause", &old.to_string()]).success();
        let new = super::enqueue(&scene.binary, &["enqueue", &scene.source.reference(REPOSITORY, "v2"), &scene.to()]);
        assert_eq!(new, 2);
        scene.drain().success();
        scene.binary.run(steer).success();
        // A retried job may not write first, or the row in `completed` would decide.
        scene.binary.run(&["jobs", "edit", &old.to_string(), "--priority", "1"]).success();
        scene.binary.run(&["jobs", "resume", &old.to_string()]).success();
        scene.binary.run(&["work", "--drain", "--concurrency", "1"]).expect_code(1);
        assert_eq!(scene.outcomes(old), ["failed"], "{steer:?}");
        let overtaken = scene.job(old);
        assert_eq!(overtaken["failure"]["class"], "superseded", "{steer:?}: {overtaken:#}");
        assert!(overtaken["failure"]["message"].as_str().unwrap().contains("job 2"), "{overtaken:#}");
        scene.destination.assert_holds(REPOSITORY, "v1", &newer);
        scene.binary.run(&["jobs", "retry", &old.to_string()]).success();
        scene.drain().success();
        scene.destination.assert_holds(REPOSITORY, "v1", &scene.image);
        assert_clean(&scene.binary);
    }
}

#[test]
fn replicate_follows_its_job_through_the_retries() {
    let scene = Scene::impatient();
    scene.source.fault(Matcher::new("*", "/manifests/v1").times(2), Fault::status(500));
    let output = scene.binary.run(&["replicate", &scene.from(), &scene.to(), "-o", "json"]).success();
    let done = output.json();
    assert_eq!((&done["state"], &done["attempt"]), (&"completed".into(), &3.into()));
    scene.assert_completed(1, &["retry", "retry", "completed"]);
    let output = scene.binary.run(&["replicate", &scene.source.reference(REPOSITORY, "absent"), &scene.to()]);
    let output = output.expect_code(1);
    assert!(output.errors().contains("absent") && output.errors().contains("jobs retry 2"), "{output}");
    assert_eq!(job(&scene.binary, 2)["failure"]["class"], "absent");
    assert_eq!(outcomes(&scene.binary, 2), ["failed"], "what is not there is not asked for again");
}

#[test]
fn an_operator_need_not_wait_for_the_pause() {
    let binary = Binary::new().env("FREIGHTLINER_RETRY_BASE_MS", "600000").env("FREIGHTLINER_REGISTRY_TRIES", "1");
    let scene = Scene::with(binary);
    let id = scene.enqueue();
    scene.source.fault(Matcher::new("*", "/manifests/v1"), Fault::status(503));
    let worker = scene.binary.spawn(&["work", "--drain"]);
    eventually("the failed attempt", || (scene.state(id) == "scheduled").then_some(()));
    scene.binary.run(&["jobs", "retry", &id.to_string()]).success();
    worker.finish().success();
    scene.assert_completed(id, &["retry", "completed"]);
    assert_eq!(scene.job(id)["generation"], 1, "it was not finished, so it is still the same request");
}
