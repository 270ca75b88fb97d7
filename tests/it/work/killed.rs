//! `kill -9`, at moments that a gate in a registry names, and what the next worker makes of it.

use super::{REPOSITORY, Scene, WriteLock, assert_clean};
use crate::support::eventually;
use crate::support::fake::{Fault, Matcher};
use crate::support::registry::Registry;
use crate::support::skopeo::Skopeo;
use std::time::Duration;

#[test]
fn in_the_middle_of_a_layer() {
    let scene = Scene::new();
    let id = scene.enqueue();
    scene.hold_layer("layer");
    let worker = scene.binary.spawn(&["work"]);
    scene.source.wait_reached("layer");
    worker.kill9();
    let job = scene.job(id);
    assert_eq!((&job["state"], &job["lease_epoch"]), (&"running".into(), &1.into()), "nobody has noticed yet");
    assert_eq!(scene.destination.digest_of(REPOSITORY, "v1"), None, "nothing is published half");
    scene.drain().success();
    scene.assert_completed(id, &["expired", "completed"]);
    let job = scene.job(id);
    assert_eq!(job["attempt"], 1, "the killed attempt is not charged");
    assert_eq!((&job["worker"], &job["lease_until"]), (&serde_json::Value::Null, &serde_json::Value::Null));
}

#[test]
fn again_and_again_at_every_step() {
    let scene = Scene::new();
    let id = scene.enqueue();
    let killed_at = |gate: &str| {
        let worker = scene.binary.spawn(&["work"]);
        scene.destination.wait_reached(gate);
        worker.kill9();
    };
    let hold = |method: &str, path: &str, gate: &str| {
        scene.destination.fault(Matcher::new(method, path), Fault::HoldUntil(gate.to_owned()));
    };

    hold("POST", "/blobs/uploads/", "first upload");
    killed_at("first upload");
    assert!(scene.image.all_blobs().iter().any(|blob| !scene.destination.has_blob(REPOSITORY, &blob.digest)));

    hold("PUT", "/manifests/v1", "tag");
    killed_at("tag");
    assert!(scene.image.all_blobs().iter().all(|blob| scene.destination.has_blob(REPOSITORY, &blob.digest)));
    assert_eq!(scene.destination.digest_of(REPOSITORY, "v1"), None);

    // The tag is written, but the end of the attempt cannot be: somebody has the database's lock.
    hold("PUT", "/manifests/v1", "tag again");
    let worker = scene.binary.spawn(&["work"]);
    scene.destination.wait_reached("tag again");
    let Some(lock) = WriteLock::take(&scene.binary) else { return };
    scene.destination.release("tag again");
    eventually("the tag", || scene.destination.digest_of(REPOSITORY, "v1"));
    worker.kill9();
    lock.release();
    assert_eq!(scene.state(id), "running");

    scene.destination.clear_requests();
    scene.drain().success();
    scene.assert_completed(id, &["expired", "expired", "expired", "completed"]);
    assert_eq!(scene.job(id)["report"]["already_present"], true);
    assert_eq!(scene.destination.count("PUT", "/"), 0, "what is there already is not written again");
}

#[test]
fn while_writing_into_a_layout() {
    let scene = Scene::new();
    let layout = scene.binary.home().join("layout");
    let reference = format!("oci:{}:v1", layout.display());
    let id = scene.enqueue_to(&reference, &[]);
    scene.hold_layer("layer");
    let worker = scene.binary.spawn(&["work"]);
    scene.source.wait_reached("layer");
    let temporary = layout.join(".freightliner-tmp");
    let registered = || {
        let rows = scene.binary.run(&["sql", "SELECT path FROM temp_files", "-o", "json"]).success().json();
        let paths = rows.as_array().unwrap().iter().map(|row| row["path"].as_str().unwrap().to_owned());
        let paths: Vec<_> = paths.filter(|path| std::path::Path::new(path).exists()).collect();
        (!paths.is_empty()).then_some(paths)
    };
    let registered = eventually("a registered temporary file that exists", registered);
    worker.kill9();
    assert!(registered.iter().all(|path| path.starts_with(&temporary.display().to_string())), "{registered:?}");
    assert!(!scene.image.layout_differences(&layout, "v1").is_empty(), "it is not finished yet");

    scene.drain().success();
    assert_eq!(scene.job(id)["state"], "completed");
    assert_eq!(scene.outcomes(id), ["expired", "completed"]);
    assert_eq!(scene.image.layout_differences(&layout, "v1"), Vec::<String>::new());
    assert!(!temporary.exists(), "the layout holds nothing of ours");
    assert_clean(&scene.binary);
    if let Some(skopeo) = Skopeo::find() {
        assert_eq!(skopeo.raw(&reference), scene.image.manifest);
    }
}

#[test]
fn while_making_a_layout() {
    const MARKER: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
    let scene = Scene::new();
    // All that the death of its maker, or a look while it is still being made, can find.
    for (number, (marker, index)) in
        [(None, None), (Some(""), None), (Some(MARKER), None), (Some(MARKER), Some(""))].into_iter().enumerate()
    {
        let layout = scene.binary.home().join(format!("layout{number}"));
        std::fs::create_dir(&layout).unwrap();
        for (name, content) in [("oci-layout", marker), ("index.json", index)] {
            if let Some(content) = content {
                std::fs::write(layout.join(name), content).unwrap();
            }
        }
        let to = format!("oci:{}:v1", layout.display());
        scene.binary.run(&["replicate", &scene.from(), &to]).success();
        assert_eq!(scene.image.layout_differences(&layout, "v1"), Vec::<String>::new());
    }
    // What is damaged otherwise is somebody's, and stays as it is.
    let layout = scene.binary.home().join("damaged");
    std::fs::create_dir(&layout).unwrap();
    std::fs::write(layout.join("oci-layout"), MARKER).unwrap();
    std::fs::write(layout.join("index.json"), "{\"manifests\":[").unwrap();
    let to = format!("oci:{}:v1", layout.display());
    let output = scene.binary.run(&["replicate", &scene.from(), &to]).expect_code(1);
    assert!(output.errors().contains("damaged"), "{output}");
    assert_eq!(std::fs::read_to_string(layout.join("index.json")).unwrap(), "{\"manifests\":[");
}

#[test]
fn a_replicate_that_was_killed_and_is_repeated_goes_on_with_its_job() {
    let scene = Scene::impatient();
    scene.hold_layer("layer");
    let replicate = scene.binary.spawn(&["replicate", &scene.from(), &scene.to()]);
    scene.source.wait_reached("layer");
    replicate.kill9();
    scene.source.release("layer");
    let output = scene.binary.run(&["replicate", &scene.from(), &scene.to()]).success();
    assert!(output.errors().contains("job 1 asks for the same already"), "{output}");
    scene.assert_completed(1, &["expired", "completed"]);
    let jobs = scene.binary.run(&["jobs", "list", "-o", "json"]).success().json();
    assert_eq!(jobs.as_array().unwrap().len(), 1, "{jobs:#}");
}

#[test]
fn a_replicate_that_was_killed_is_finished_by_a_worker() {
    let scene = Scene::new();
    scene.hold_layer("layer");
    let replicate = scene.binary.spawn(&["replicate", &scene.from(), &scene.to()]);
    scene.source.wait_reached("layer");
    replicate.kill9();
    scene.drain().success();
    scene.assert_completed(1, &["expired", "completed"]);
}

#[test]
fn a_living_worker_takes_over_from_a_dead_one() {
    let scene = Scene::with(crate::support::binary::Binary::new().env("FREIGHTLINER_WORKER_SWEEP_INTERVAL_SECS", "1"));
    let id = scene.enqueue();
    scene.hold_layer("layer");
    let dying = scene.binary.spawn(&["work"]);
    scene.source.wait_reached("layer");
    let mut living = scene.binary.spawn(&["work"]);
    eventually("the second worker", || living.stderr().contains("working").then_some(()));
    dying.kill9();
    scene.binary.run(&["jobs", "wait", &id.to_string(), "--timeout", "60s"]).success();
    living.sigterm();
    living.wait(crate::support::PATIENCE).success();
    scene.assert_completed(id, &["expired", "completed"]);
}

/// How often processes are killed at moments that nobody chose.
const ROUNDS: u64 = 8;
/// Jobs that are under way meanwhile.
const JOBS: usize = 10;

#[test]
fn at_moments_that_nobody_chose() {
    let scene = Scene::new();
    let Some(registry) = Registry::start() else { return };
    let layout = scene.binary.home().join("layout");
    // Bodies that take their time, so that there is something to interrupt.
    let slow = Fault::SlowBody { chunk: 64 * 1024, delay: Duration::from_millis(20) };
    scene.source.fault(Matcher::new("GET", "/blobs/").always(), slow);
    let targets: Vec<String> = (0..JOBS)
        .map(|n| match n % 3 {
            0 => format!("oci:{}:t{n}", layout.display()),
            1 => registry.reference(&format!("random/app{n}"), "t"),
            _ => scene.destination.reference(&format!("random/app{n}"), "t"),
        })
        .collect();
    let lines: String = targets.iter().map(|to| format!("{} {to}\n", scene.from())).collect();
    scene.binary.run_with_input(&["enqueue", "--from-file", "-"], lines.as_bytes()).success();
    for round in 0..ROUNDS {
        let workers = [scene.binary.spawn(&["work", "--concurrency", "2"]), scene.binary.spawn(&["work"])];
        // Not a wait for something: any moment will do, and each round has another one.
        std::thread::sleep(Duration::from_millis(60 + round * 97));
        workers.into_iter().for_each(|worker| drop(worker.kill9()));
    }
    scene.drain().success();
    let query = "SELECT count(*) AS n, sum(state = 'completed') AS done FROM jobs";
    let rows = scene.binary.run(&["sql", query, "-o", "json"]).success().json();
    assert_eq!((&rows[0]["n"], &rows[0]["done"]), (&JOBS.into(), &JOBS.into()));
    for n in 0..JOBS {
        match n % 3 {
            0 => assert_eq!(scene.image.layout_differences(&layout, &format!("t{n}")), Vec::<String>::new()),
            1 => scene.image.assert_at(&registry.client(), &format!("random/app{n}"), "t"),
            _ => scene.destination.assert_holds(&format!("random/app{n}"), "t", &scene.image),
        }
    }
    assert!(!layout.join(".freightliner-tmp").exists());
    assert_clean(&scene.binary);
}
