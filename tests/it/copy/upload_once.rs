//! What many images of one run share leaves the source once and is sent once; other repositories mount it.

use super::{assert_whole, binary};
use crate::support::binary::Binary;
use crate::support::fake::{Auth, Fake, Fault, Matcher, Options};
use crate::support::image::{Image, ImageBuilder};
use crate::support::registry::Registry;
use crate::support::{PATIENCE, eventually};

/// Images that share three layers, one of them large; each has a layer and a configuration of its own.
fn family(count: u64) -> Vec<Image> {
    let member = |number| {
        let shared =
            ImageBuilder::oci(number).layer_from(900, 1_500_000).layer_from(901, 40_000).layer_from(902, 3_000);
        shared.layer_from(number, 2_000).build()
    };
    (1..=count).map(member).collect()
}

fn enqueue(binary: &Binary, from: &str, to: &str) -> String {
    binary.run(&["enqueue", from, to, "-o", "json"]).success().json()["id"].to_string()
}

/// Copies a family of three from one fake to another in one run, each to a repository of its own.
fn family_at(destination: &Fake, concurrency: &str) {
    let (source, binary, images) = (Fake::start(), binary(), family(3));
    let places = |number: usize| (format!("a{number}"), format!("b{number}"));
    for (number, image) in images.iter().enumerate() {
        let (from, to) = places(number);
        source.put_image(&from, "v1", image);
        enqueue(&binary, &source.reference(&from, "v1"), &destination.reference(&to, "v1"));
    }
    binary.run(&["work", "--drain", "--concurrency", concurrency]).success();
    for (number, image) in images.iter().enumerate() {
        assert_whole(destination, &places(number).1, "v1", image);
    }
}

/// How many blobs got there in this way, all jobs together.
fn transfers(binary: &Binary, how: &str) -> Option<usize> {
    let query = format!("SELECT COUNT(*) FROM audit_transfers WHERE how = '{how}'");
    Some(binary.sql(&query)?[0].parse().unwrap())
}

#[test]
fn shared_layers_are_read_and_sent_once_and_mounted_elsewhere() {
    let (Some(source), Some(destination)) = (Registry::start(), Registry::start()) else {
        return;
    };
    let (binary, images) = (binary(), family(4));
    for (number, image) in images.iter().enumerate() {
        source.seed(&format!("a{number}"), "v1", image);
        enqueue(
            &binary,
            &source.reference(&format!("a{number}"), "v1"),
            &destination.reference(&format!("b{number}"), "v1"),
        );
    }
    binary.run(&["work", "--drain", "--concurrency", "4"]).success();
    for (number, image) in images.iter().enumerate() {
        image.assert_at(&destination.client(), &format!("b{number}"), "v1");
    }
    for layer in &images[0].layers()[..3] {
        assert_eq!(source.count("GET", &layer.digest), 1, "left the source more than once");
    }
    assert_eq!(destination.count("PUT", "/blobs/uploads/"), 3 + 4 * 2);
    let Some(mounted) = transfers(&binary, "mounted") else { return };
    assert_eq!((mounted, transfers(&binary, "copied")), (3 * 3, Some(3 + 4 * 2)));
}

#[test]
fn what_another_repository_gives_needs_a_token_for_both() {
    let destination = Fake::start_with(Options { auth: Auth::bearer(), ..Options::default() });
    family_at(&destination, "1");
    assert_eq!(destination.count("PUT", "/blobs/uploads/"), 3 + 3 * 2);
}

#[test]
fn a_registry_that_never_mounts_gets_the_bytes_for_each_repository() {
    let destination = Fake::start_with(Options { mounts: false, ..Options::default() });
    family_at(&destination, "3");
    assert_eq!(destination.count("PUT", "/blobs/uploads/"), 3 * 5);
}

#[test]
fn what_was_remembered_of_a_repository_is_only_a_hint() {
    let (source, destination, binary) = (Fake::start(), Fake::start(), binary());
    let images = family(2);
    source.put_image("a0", "v1", &images[0]);
    source.put_image("a1", "v1", &images[1]);
    let mut worker = binary.spawn(&["work", "--concurrency", "1"]);
    let follow = |number: usize| {
        let (from, to) =
            (source.reference(&format!("a{number}"), "v1"), destination.reference(&format!("b{number}"), "v1"));
        binary.run(&["jobs", "wait", &enqueue(&binary, &from, &to)]).success();
    };
    follow(0);
    for layer in &images[0].layers()[..2] {
        destination.lose_blob("b0", &layer.digest);
    }
    follow(1);
    assert_whole(&destination, "b1", "v1", &images[1]);
    worker.sigterm();
    worker.wait(PATIENCE).success();
}

/// What a registry is said to be decides how it is asked.
#[test]
fn a_registry_that_mounts_within_a_namespace_is_not_asked_for_more() {
    let (source, destination, folder) = (Fake::start(), Fake::start(), tempfile::tempdir().unwrap());
    let file = folder.path().join("config.toml");
    let of_host = format!("[registries.\"{}\"]\nprofile = \"docker-hub\"\n", destination.authority());
    std::fs::write(&file, of_host).unwrap();
    let (binary, images) = (binary(), family(3));
    for (number, place) in ["team/one", "team/two", "other/three"].into_iter().enumerate() {
        source.put_image("a", &format!("v{number}"), &images[number]);
        let (from, to) = (source.reference("a", &format!("v{number}")), destination.reference(place, "v1"));
        binary.run(&["--config", file.to_str().unwrap(), "replicate", "--no-referrers", &from, &to]).success();
        assert_whole(&destination, place, "v1", &images[number]);
    }
    let wishes = |to: &str, from: &str| {
        destination.count("POST", &format!("/v2/{to}/blobs/uploads/?mount=")) > 0
            && destination.requests().iter().any(|request| {
                request.path.starts_with(&format!("/v2/{to}/")) && request.path.ends_with(&format!("from={from}"))
            })
    };
    assert!(wishes("team/two", "team/one"), "within the namespace");
    assert!(!wishes("other/three", "team/one") && !wishes("other/three", "team/two"), "and never beyond it");
    assert_eq!(destination.count("PUT", "/blobs/uploads/"), 5 + 2 + 5);
}

/// What one copy has brought while another one was under way needs no request of the other's.
#[test]
fn a_blob_that_is_brought_meanwhile_is_not_asked_for() {
    let (source, destination, binary, images) = (Fake::start(), Fake::start(), binary(), family(2));
    source.fault(Matcher::new("GET", "/blobs/").always(), Fault::HoldUntil("both".into()));
    for (number, image) in images.iter().enumerate() {
        let tag = format!("v{number}");
        source.put_image("a", &tag, image);
        enqueue(&binary, &source.reference("a", &tag), &destination.reference("b", &tag));
    }
    let mut worker = binary.spawn(&["work", "--drain", "--concurrency", "2"]);
    eventually("both copies", || (source.count("GET", "/manifests/") == 2).then_some(()));
    source.release("both");
    worker.wait(PATIENCE).success();
    for (number, image) in images.iter().enumerate() {
        assert_whole(&destination, "b", &format!("v{number}"), image);
    }
    assert_eq!(destination.count("POST", "/blobs/uploads/"), 3 + 2 * 2, "one for each blob");
    assert_eq!(transfers(&binary, "present"), Some(3));
}
