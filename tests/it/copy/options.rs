//! What the options of a copy change: --no-clobber, --force, --dry-run; sources pinned by digest.

use super::{assert_failure, assert_whole, binary, error_of, fails, replicate, replicated, reported};
use crate::support::fake::Fake;
use crate::support::image::{self, Image, ImageBuilder};
use std::time::Duration;

struct Scene {
    source: Fake,
    destination: Fake,
    old: Image,
    new: Image,
    from: String,
    to: String,
}

/// The source has a newer image than the destination.
fn scene() -> Scene {
    let (source, destination) = (Fake::start(), Fake::start());
    let old = ImageBuilder::oci(1).layer_from(5, 10_000).build();
    let new = ImageBuilder::oci(2).layer_from(5, 10_000).layer(600_000).build();
    source.put_image("a", "v1", &new);
    destination.put_image("b", "v1", &old);
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    Scene { source, destination, old, new, from, to }
}

fn writes(fake: &Fake) -> usize {
    ["POST", "PUT", "PATCH", "DELETE"].iter().map(|method| fake.count(method, "/")).sum()
}

#[test]
fn a_tag_is_moved_unless_that_is_forbidden() {
    let scene = scene();
    let job = fails(&binary(), &scene.from, &scene.to, &["--no-clobber"]);
    assert_failure(&job, "refused", "survey", 1);
    let message = job["failure"]["message"].as_str().unwrap();
    assert!(message.contains(&scene.old.digest), "{message}");
    assert_eq!(writes(&scene.destination), 0);
    assert_eq!(scene.destination.digest_of("b", "v1").as_ref(), Some(&scene.old.digest));
    // Another tag is free; the same digest is no conflict.
    let free = scene.destination.reference("b", "v2");
    replicated(&binary(), &scene.from, &free, &["--no-clobber"]);
    let again = replicated(&binary(), &scene.from, &free, &["--no-clobber"]);
    assert_eq!(again["report"]["already_present"], true);
    // The default moves it, and leaves the old image where it was.
    replicated(&binary(), &scene.from, &scene.to, &[]);
    assert_whole(&scene.destination, "b", "v1", &scene.new);
    assert!(scene.destination.manifest("b", &scene.old.digest).is_some());
}

#[test]
fn force_goes_through_everything_and_heals() {
    let scene = scene();
    replicated(&binary(), &scene.from, &scene.to, &[]);
    let lost = &scene.new.layers()[1].digest;
    scene.destination.lose_blob("b", lost);
    let trusting = replicated(&binary(), &scene.from, &scene.to, &[]);
    assert_eq!(trusting["report"]["already_present"], true, "a no-op trusts the digest");
    assert!(!scene.destination.has_blob("b", lost));
    let job = replicated(&binary(), &scene.from, &scene.to, &["--force"]);
    assert_whole(&scene.destination, "b", "v1", &scene.new);
    assert_eq!((&job["report"]["already_present"], reported(&job, "blobs_copied")), (&false.into(), 1), "{job:#}");
    assert_eq!(reported(&job, "blobs_present"), 2, "{job:#}");
}

#[test]
fn a_dry_run_changes_nothing() {
    let scene = scene();
    let binary = binary();
    let output = replicate(&binary, &scene.from, &scene.to, &["--dry-run"]).success();
    let preview = output.json();
    assert_eq!((&preview["digest"], &preview["already_present"]), (&scene.new.digest.as_str().into(), &false.into()));
    assert_eq!(preview["destination_digest"], scene.old.digest.as_str());
    let missing = scene.new.blobs[0].content.len() + scene.new.blobs[2].content.len();
    let numbers = ["manifests", "blobs", "bytes"].map(|name| preview[name].as_u64());
    assert_eq!(numbers, [Some(1), Some(2), Some(missing)], "{preview:#}");
    let text = binary.run(&["replicate", &scene.from, &scene.to, "--dry-run"]).success().text();
    assert!(text.contains("would copy"), "{text}");
    let refused = replicate(&binary, &scene.from, &scene.to, &["--dry-run", "--no-clobber"]).expect_code(1);
    assert_eq!(error_of(&refused)["code"], "refused");
    assert_eq!((writes(&scene.destination), writes(&scene.source)), (0, 0));
    assert_eq!(scene.source.count("GET", "/blobs/"), 0, "nothing is read either");
    assert_eq!(scene.destination.digest_of("b", "v1").as_ref(), Some(&scene.old.digest));
    let jobs = binary.run(&["-o", "json", "jobs", "list"]).success().json();
    assert_eq!(jobs, serde_json::json!([]), "no job was made");

    let nowhere = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}/made:v1", nowhere.path().display());
    replicate(&binary, &scene.from, &layout, &["--dry-run"]).success();
    assert!(!nowhere.path().join("made").exists());
}

#[test]
fn a_source_can_be_pinned_to_a_digest() {
    let scene = scene();
    let index = image::index(vec![scene.new.clone(), ImageBuilder::oci(7).layer(10).build()]);
    scene.source.put_image("a", "moved", &index);
    // The tag beside a digest is for people: the digest counts, wherever the tag is now.
    let pinned = format!("{}/a:moved@{}", scene.source.authority(), scene.new.digest);
    let job = replicated(&binary(), &pinned, &scene.destination.reference("c", "v1"), &[]);
    assert_eq!(job["report"]["digest"], scene.new.digest.as_str());
    assert_whole(&scene.destination, "c", "v1", &scene.new);
    let unknown = format!("{}/a@{}", scene.source.authority(), scene.old.digest);
    let job = fails(&binary(), &unknown, &scene.destination.reference("d", "v1"), &[]);
    assert_failure(&job, "absent", "resolve", 1);
}

#[test]
fn the_report_for_people_says_what_was_done() {
    let scene = scene();
    let output = binary().run(&["replicate", &scene.from, &scene.to]).success();
    let text = output.text();
    for part in ["copied", &scene.new.digest, "2 copied", "1 already there"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(output.errors(), "", "no progress bar where there is no terminal");
}

#[test]
fn a_limit_of_bandwidth_is_kept_by_all_copies_together() {
    let (source, destination, binary) = (Fake::start(), Fake::start(), binary());
    // Small blobs, which are read whole, and large ones, to two places: 2.4 MB at 2 MB a second.
    for number in 0..2 {
        let image = ImageBuilder::oci(number).layer(1_000_000).layers(4, 50_000).build();
        source.put_image("a", &format!("v{number}"), &image);
        let (from, to) =
            (source.reference("a", &format!("v{number}")), destination.reference("b", &format!("v{number}")));
        binary.run(&["enqueue", &from, &to]).success();
    }
    let started = tokio::time::Instant::now();
    binary.run(&["work", "--drain", "--bandwidth", "2MB/s"]).success();
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    let output = binary.run(&["work", "--drain", "--bandwidth", "fast"]).expect_code(2);
    assert!(output.errors().contains("`fast` is no rate"), "{output}");
}
