//! How many requests a copy of an image alone costs: as it reports them, and as both sides saw them. What its referrers cost
//! beside that is in `referrers`.

use super::{assert_whole, binary, replicated, reported};
use crate::support::fake::{Auth, Fake, Options};
use crate::support::image::{self, ImageBuilder};
use crate::support::registry::Registry;
use crate::support::token_server::{Account, TokenServer};
use serde_json::Value;

#[test]
fn a_no_op_between_real_registries_is_two_requests() {
    let (Some(source), Some(destination)) = (Registry::start(), Registry::start()) else {
        return;
    };
    let binary = binary();
    let image = image::index(vec![ImageBuilder::oci(1).layers(3, 1_000).build(), ImageBuilder::docker(2).build()]);
    source.seed("a", "v1", &image);
    destination.seed("b", "v1", &image);
    let job = replicated(&binary, &source.reference("a", "v1"), &destination.reference("b", "v1"), &["--no-referrers"]);
    assert_eq!((reported(&job, "requests"), &job["report"]["already_present"]), (2, &true.into()), "{job:#}");
    assert_eq!((reported(&job, "manifests_pushed"), reported(&job, "blobs_copied")), (0, 0));
    for (registry, path) in [(&source, "/v2/a/manifests/v1"), (&destination, "/v2/b/manifests/v1")] {
        let seen: Vec<(String, String)> =
            registry.requests().into_iter().map(|request| (request.method, request.path)).collect();
        assert_eq!(seen, [("HEAD".to_owned(), path.to_owned())]);
    }
    let shown = binary
        .run(&["replicate", "--no-referrers", &source.reference("a", "v1"), &destination.reference("b", "v1")])
        .success();
    assert!(shown.text().contains("already there"), "{shown}");
}

#[test]
fn a_no_op_between_fakes_is_two_requests() {
    let (source, destination, binary) = (Fake::start(), Fake::start(), binary());
    let image = ImageBuilder::oci(1).layers(3, 1_000).build();
    source.put_image("a", "v1", &image);
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    replicated(&binary, &from, &to, &["--no-referrers"]);
    source.clear_requests();
    destination.clear_requests();
    let job = replicated(&binary, &from, &to, &["--no-referrers"]);
    assert_eq!(reported(&job, "requests"), 2);
    assert_eq!((source.requests().len(), destination.requests().len()), (1, 1));
    assert_eq!((source.count("HEAD", "/manifests/"), destination.count("HEAD", "/manifests/")), (1, 1));
    // A digest in the source's reference needs no question there.
    let pinned = format!("{}/a@{}", source.authority(), image.digest);
    let job = replicated(&binary, &pinned, &to, &["--no-referrers"]);
    assert_eq!((reported(&job, "requests"), source.requests().len()), (1, 1));
}

/// At most 4N+10, and the report says what was seen.
fn assert_cheap(job: &Value, layers: usize, seen: usize) {
    assert!(seen <= 4 * layers + 10, "{seen} requests for {layers} layers");
    assert_eq!(reported(job, "requests"), seen as u64, "{job:#}");
}

#[test]
fn a_cold_copy_between_real_registries_is_cheap() {
    let (Some(source), Some(destination)) = (Registry::start(), Registry::start()) else {
        return;
    };
    let binary = binary();
    for layers in [0, 1, 5, 12] {
        let (from, to) = (format!("a{layers}"), format!("b{layers}"));
        let image = ImageBuilder::oci(layers as u64 + 1).layers(layers, 100_000).build();
        source.seed(&from, "v1", &image);
        let before = source.requests().len() + destination.requests().len();
        let job =
            replicated(&binary, &source.reference(&from, "v1"), &destination.reference(&to, "v1"), &["--no-referrers"]);
        let seen = source.requests().len() + destination.requests().len() - before;
        assert_cheap(&job, layers, seen);
        image.assert_at(&destination.client(), &to, "v1");
    }
}

#[test]
fn large_layers_are_no_dearer() {
    let (source, destination) = (Fake::start(), Fake::start());
    let image = ImageBuilder::oci(1).layers(4, 2_500_000).build();
    source.put_image("a", "v1", &image);
    let job =
        replicated(&binary(), &source.reference("a", "v1"), &destination.reference("b", "v1"), &["--no-referrers"]);
    assert_cheap(&job, 4, source.requests().len() + destination.requests().len());
}

#[test]
fn tokens_are_within_the_budget() {
    let tokens = TokenServer::start(vec![Account::anonymous().may("repository:*", "*")]);
    let (Some(source), Some(destination)) = (Registry::with_tokens(&tokens), Registry::with_tokens(&tokens)) else {
        return;
    };
    for layers in [1, 6] {
        let repository = format!("r{layers}");
        let image = ImageBuilder::oci(layers as u64).layers(layers, 50_000).build();
        source.seed(&repository, "v1", &image);
        let count = || source.requests().len() + destination.requests().len() + tokens.asked().len();
        let before = count();
        // A program of its own each time: nothing is known yet.
        let job = replicated(
            &binary(),
            &source.reference(&repository, "v1"),
            &destination.reference(&repository, "v1"),
            &["--no-referrers"],
        );
        assert_cheap(&job, layers, count() - before);
    }
}

#[test]
fn what_is_there_already_is_not_read_again() {
    let (Some(source), Some(destination)) = (Registry::start(), Registry::start()) else {
        return;
    };
    let base = ImageBuilder::oci(1).layer_from(7, 2_000_000).layer_from(8, 3_000).build();
    let app = ImageBuilder::oci(2).layer_from(7, 2_000_000).layer_from(8, 3_000).layer_from(9, 5_000).build();
    base.push(&destination.client(), "b", "base");
    source.seed("a", "v1", &app);
    let job =
        replicated(&binary(), &source.reference("a", "v1"), &destination.reference("b", "v1"), &["--no-referrers"]);
    app.assert_at(&destination.client(), "b", "v1");
    assert_eq!((reported(&job, "blobs_present"), reported(&job, "blobs_copied")), (2, 2), "{job:#}");
    let own = app.blobs[0].content.len() + app.blobs[3].content.len();
    assert_eq!(reported(&job, "bytes_copied"), own);
    for layer in &app.layers()[..2] {
        assert_eq!(source.count("GET", &layer.digest), 0, "was read for nothing");
    }
    assert_eq!(source.count("GET", "/blobs/"), 2);
}

#[test]
fn blobs_of_a_child_that_is_there_are_not_sent_again() {
    let (source, destination, binary) = (Fake::start(), Fake::start(), binary());
    let child = ImageBuilder::oci(1).layers(2, 1_000).build();
    let both = image::index(vec![child.clone(), ImageBuilder::oci(2).layer(1_000).build()]);
    destination.put_image("b", "child", &child);
    source.put_image("a", "v1", &both);
    let job = replicated(&binary, &source.reference("a", "v1"), &destination.reference("b", "v1"), &["--no-referrers"]);
    assert_whole(&destination, "b", "v1", &both);
    assert_eq!((reported(&job, "blobs_present"), reported(&job, "blobs_copied")), (3, 2), "{job:#}");
    let asked = child.blobs.iter().filter(|blob| source.count("GET", &blob.digest) > 0).count();
    assert_eq!(asked, 0, "was read for nothing");
}

#[test]
fn blobs_are_mounted_within_one_registry() {
    let Some(registry) = Registry::start() else {
        return;
    };
    let image = ImageBuilder::oci(1).layers(4, 500_000).build();
    registry.seed("team/a", "v1", &image);
    let job = replicated(
        &binary(),
        &registry.reference("team/a", "v1"),
        &registry.reference("team/b", "v1"),
        &["--no-referrers"],
    );
    image.assert_at(&registry.client(), "team/b", "v1");
    let numbers = ["blobs_mounted", "blobs_copied", "bytes_copied"].map(|name| reported(&job, name));
    assert_eq!(numbers, [5, 0, 0], "{job:#}");
    assert_eq!(registry.count("PUT", "/blobs/uploads/"), 0);
}

#[test]
fn mounts_work_with_tokens_for_both_repositories() {
    let fake = Fake::start_with(Options { auth: Auth::bearer(), ..Options::default() });
    let image = ImageBuilder::oci(1).layers(3, 1_000).build();
    fake.put_image("a", "v1", &image);
    let job = replicated(&binary(), &fake.reference("a", "v1"), &fake.reference("b", "v1"), &["--no-referrers"]);
    assert_whole(&fake, "b", "v1", &image);
    assert_eq!((reported(&job, "blobs_mounted"), reported(&job, "bytes_copied")), (4, 0), "{job:#}");
}

#[test]
fn a_registry_that_does_not_mount_gets_the_bytes() {
    let fake = Fake::start_with(Options { mounts: false, ..Options::default() });
    let image = ImageBuilder::oci(1).layers(3, 400_000).build();
    fake.put_image("a", "v1", &image);
    let job = replicated(&binary(), &fake.reference("a", "v1"), &fake.reference("b", "v1"), &["--no-referrers"]);
    assert_whole(&fake, "b", "v1", &image);
    assert_eq!((reported(&job, "blobs_mounted"), reported(&job, "blobs_copied")), (0, 4), "{job:#}");
}
