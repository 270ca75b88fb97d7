//! What was learned of a destination saves requests and bytes in the next process, and is forgotten when it is wrong.

use super::{binary, replicated, reported};
use crate::support::image::{Image, ImageBuilder};
use crate::support::registry::Registry;

fn image(seed: u64) -> Image {
    ImageBuilder::oci(seed).layer_from(900, 1_500_000).layer_from(901, 40_000).layer_from(seed, 2_000).build()
}

fn registries() -> Option<(Registry, Registry)> {
    let both = (Registry::start()?, Registry::start()?);
    both.0.seed("a", "v1", &image(1));
    both.0.seed("a", "v2", &image(2));
    Some(both)
}

/// Everything that has to do with manifests of the repository is gone; its blobs stay.
fn lose_manifests(registry: &Registry, repository: &str) {
    let repositories = registry.storage().join("docker/registry/v2/repositories");
    std::fs::remove_dir_all(repositories.join(repository).join("_manifests")).unwrap();
}

/// Its memory of what it has goes too.
fn lose_blob(registry: &mut Registry, repository: &str, digest: &str) {
    let (algorithm, hex) = digest.split_once(':').unwrap();
    let storage = registry.storage().join("docker/registry/v2");
    let link = storage.join("repositories").join(repository).join("_layers").join(algorithm).join(hex);
    std::fs::remove_dir_all(link).unwrap();
    std::fs::remove_dir_all(storage.join("blobs").join(algorithm).join(&hex[..2]).join(hex)).unwrap();
    registry.restart();
}

fn at(registry: &Registry, seen: usize) -> Vec<String> {
    registry.requests().into_iter().skip(seen).map(|request| request.method).collect()
}

#[test]
fn a_manifest_whose_blobs_were_seen_goes_up_at_once() {
    let Some((source, destination)) = registries() else { return };
    let binary = binary();
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    replicated(&binary, &from, &to, &["--no-referrers"]);
    lose_manifests(&destination, "b");
    let (seen, read) = (destination.requests().len(), source.requests().len());
    let job = replicated(&binary, &from, &to, &["--no-referrers"]);
    assert_eq!(at(&destination, seen), ["HEAD", "PUT"], "{job:#}");
    assert_eq!(at(&source, read), ["GET"]);
    assert_eq!((reported(&job, "blobs_present"), reported(&job, "blobs_copied")), (4, 0), "{job:#}");
    image(1).assert_at(&destination.client(), "b", "v1");
}

#[test]
fn what_the_destination_has_lost_is_brought_by_the_same_run() {
    let Some((source, mut destination)) = registries() else { return };
    let binary = binary();
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    replicated(&binary, &from, &to, &["--no-referrers"]);
    let image = image(1);
    lose_manifests(&destination, "b");
    lose_blob(&mut destination, "b", &image.layers()[1].digest);
    let job = replicated(&binary, &from, &to, &["--no-referrers"]);
    assert_eq!((&job["attempt"], reported(&job, "blobs_copied")), (&1.into(), 1), "{job:#}");
    assert_eq!(reported(&job, "blobs_present"), 3, "{job:#}");
    image.assert_at(&destination.client(), "b", "v1");
    // And of all that was there nothing is left.
    std::fs::remove_dir_all(destination.storage().join("docker")).unwrap();
    destination.restart();
    let job = replicated(&binary, &from, &to, &["--no-referrers"]);
    assert_eq!((&job["attempt"], reported(&job, "blobs_copied")), (&1.into(), 4), "{job:#}");
    image.assert_at(&destination.client(), "b", "v1");
}

#[test]
fn what_another_process_brought_elsewhere_is_mounted() {
    let Some((source, destination)) = registries() else { return };
    let binary = binary();
    replicated(&binary, &source.reference("a", "v1"), &destination.reference("b", "v1"), &["--no-referrers"]);
    let read = source.requests().len();
    let job = replicated(&binary, &source.reference("a", "v2"), &destination.reference("c", "v2"), &["--no-referrers"]);
    assert_eq!((reported(&job, "blobs_mounted"), reported(&job, "blobs_copied")), (2, 2), "{job:#}");
    assert_eq!(at(&source, read).len(), 3, "the manifest, the new layer and its configuration");
    image(2).assert_at(&destination.client(), "c", "v2");
}
