//! Looking below a digest that is there already: what a destination has lost is found and brought.

use super::{assert_whole, binary, replicated, reported};
use crate::support::fake::{Fake, Options};
use crate::support::image::{self, Image, ImageBuilder};
use crate::support::registry::Registry;
use serde_json::Value;

fn whole() -> Image {
    image::index(vec![
        ImageBuilder::oci(1).layers(2, 3_000).build(),
        ImageBuilder::oci(2).platform("linux", "arm64", None).layer(1_500_000).build(),
    ])
}

/// Takes a blob from a repository of a real registry, and from its storage, as a disk of an older day does.
fn lose(registry: &Registry, repository: &str, digest: &str) {
    let (_, hex) = digest.split_once(':').unwrap();
    let root = registry.storage().join("docker/registry/v2");
    std::fs::remove_dir_all(root.join("repositories").join(repository).join("_layers/sha256").join(hex)).unwrap();
    std::fs::remove_dir_all(root.join("blobs/sha256").join(&hex[..2]).join(hex)).unwrap();
}

fn outcome(job: &Value) -> (bool, bool, u64) {
    let report = &job["report"];
    let is = |name: &str| report[name].as_bool().unwrap_or_default();
    (is("already_present"), is("verified"), report["healed"].as_u64().unwrap_or_default())
}

#[test]
fn lost_blobs_below_a_manifest_that_is_there_are_found() {
    let (Some(source), Some(mut destination)) = (Registry::start(), Registry::start()) else { return };
    let (image, binary) = (whole(), binary());
    image.push(&source.client(), "a", "v1");
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    replicated(&binary, &from, &to, &[]);
    for (options, expected) in [(["--verify"], (false, true, 2)), (["--force"], (false, false, 0))] {
        lose(&destination, "b", &image.children[0].layers()[1].digest);
        lose(&destination, "b", &image.children[1].layers()[0].digest);
        // What it remembers of blobs is in its memory.
        destination.restart();
        let trusting = replicated(&binary, &from, &to, &[]);
        assert_eq!(outcome(&trusting), (true, false, 0), "the digest is there");
        assert_eq!(image.differences(&destination.client(), "b", "v1").len(), 2);
        let job = replicated(&binary, &from, &to, &options);
        assert_eq!(outcome(&job), expected, "{job:#}");
        assert_eq!(reported(&job, "blobs_copied"), 2, "{job:#}");
        image.assert_at(&destination.client(), "b", "v1");
    }
    let shown = binary.run(&["replicate", "--verify", &from, &to]).success();
    assert!(shown.text().contains("already there") && shown.text().contains("everything below is there"), "{shown}");
}

#[test]
fn a_lost_manifest_below_an_index_is_found() {
    let (source, destination, binary, image) = (Fake::start(), Fake::start(), binary(), whole());
    source.put_image("a", "v1", &image);
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    replicated(&binary, &from, &to, &[]);
    let child = &image.children[1].digest;
    destination.client().send("DELETE", &format!("/v2/b/manifests/{child}"), &[], None).expect(202);
    destination.lose_blob("b", &image.children[0].blobs[0].digest);
    let preview = binary.run(&["-o", "json", "replicate", "--dry-run", "--verify", &from, &to]).success().json();
    assert_eq!((&preview["already_present"], &preview["blobs"]), (&false.into(), &1.into()), "{preview:#}");
    let job = replicated(&binary, &from, &to, &["--verify"]);
    assert_eq!((outcome(&job), reported(&job, "blobs_copied")), ((false, true, 2), 1), "{job:#}");
    assert_whole(&destination, "b", "v1", &image);
    // All is there: each blob and each manifest below was asked for once, nothing was written.
    destination.clear_requests();
    let job = replicated(&binary, &from, &to, &["--verify", "--no-referrers"]);
    assert_eq!(outcome(&job), (true, true, 0), "{job:#}");
    assert_eq!((destination.count("HEAD", "/blobs/"), destination.count("HEAD", "/manifests/")), (5, 1 + 2));
    assert_eq!(destination.requests().len(), 8);
    // A row can ask for it.
    destination.lose_blob("b", &image.children[0].blobs[1].digest);
    let line = serde_json::json!({ "source": from, "destination": to, "options": { "verify": true } });
    binary.run_with_input(&["enqueue", "--from-file", "-"], line.to_string().as_bytes()).success();
    binary.run(&["work", "--drain"]).success();
    assert_whole(&destination, "b", "v1", &image);
}

#[test]
fn an_index_that_was_copied_in_part_is_completed() {
    let (source, binary, image) = (Fake::start(), binary(), whole());
    let destination = Fake::start_with(Options { verify_manifests: false, ..Options::default() });
    source.put_image("a", "v1", &image);
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    replicated(&binary, &from, &to, &["--platform", "linux/amd64"]);
    assert_eq!(outcome(&replicated(&binary, &from, &to, &[])), (true, false, 0));
    let job = replicated(&binary, &from, &to, &["--verify"]);
    assert_eq!(outcome(&job), (false, true, 1 + 2), "{job:#}");
    assert_whole(&destination, "b", "v1", &image);
}

#[test]
fn the_referrers_are_looked_at_too() {
    let api = || Fake::start_with(Options { referrers: true, ..Options::default() });
    let (source, destination, binary) = (api(), api(), binary());
    let image = ImageBuilder::oci(1).layer(2_000).build();
    let signature = image::artifact(2, Some(&image));
    source.put_image("a", "v1", &image);
    source.put_image("a", "signature", &signature);
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    replicated(&binary, &from, &to, &[]);
    for options in [["--verify"], ["--force"]] {
        destination.lose_blob("b", &signature.blobs[1].digest);
        assert_eq!(reported(&replicated(&binary, &from, &to, &[]), "referrers_pushed"), 0);
        let job = replicated(&binary, &from, &to, &options);
        assert_eq!(reported(&job, "referrers_pushed"), 1, "{job:#}");
        assert_whole(&destination, "b", &signature.digest, &signature);
    }
    let job = replicated(&binary, &from, &to, &["--verify"]);
    assert_eq!((outcome(&job), reported(&job, "referrers_pushed")), ((true, true, 0), 0), "{job:#}");
}

#[test]
fn a_layout_is_read_again() {
    let (source, binary, folder, image) = (Fake::start(), binary(), tempfile::tempdir().unwrap(), whole());
    source.put_image("a", "v1", &image);
    let (from, to) = (source.reference("a", "v1"), format!("oci:{}:v1", folder.path().display()));
    replicated(&binary, &from, &to, &[]);
    let file = |digest: &str| folder.path().join("blobs").join(digest.replace(':', "/"));
    for damaged in [&image.children[1].layers()[0].digest, &image.children[0].digest, &image.digest] {
        let mut bytes = std::fs::read(file(damaged)).unwrap();
        bytes[100] ^= 1;
        std::fs::write(file(damaged), bytes).unwrap();
    }
    std::fs::remove_file(file(&image.children[0].blobs[0].digest)).unwrap();
    assert_eq!(outcome(&replicated(&binary, &from, &to, &[])), (true, false, 0));
    let job = replicated(&binary, &from, &to, &["--verify"]);
    assert_eq!(outcome(&job), (false, true, 4), "{job:#}");
    assert_eq!(image.layout_differences(folder.path(), "v1"), Vec::<String>::new());
    assert_eq!(outcome(&replicated(&binary, &from, &to, &["--verify"])), (true, true, 0));
}
