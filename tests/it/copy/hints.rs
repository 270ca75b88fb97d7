//! What was learned of a destination saves requests and bytes in the next process, and is forgotten when it is wrong.

use super::{assert_whole, binary, replicated, reported};
use crate::support::binary::Binary;
use crate::support::fake::{Fake, Fault, Matcher};
use crate::support::image::{self, Image, ImageBuilder};
use crate::support::registry::Registry;
use serde_json::{Value, json};

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

/// The repository does not have the blob any more, though the registry does.
fn lose_link(registry: &Registry, repository: &str, digest: &str) {
    let (algorithm, hex) = digest.split_once(':').unwrap();
    let layers = registry.storage().join("docker/registry/v2/repositories").join(repository).join("_layers");
    std::fs::remove_dir_all(layers.join(algorithm).join(hex)).unwrap();
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

/// An image of six blobs.
fn six(seed: u64) -> Image {
    ImageBuilder::oci(seed).layers(5, 300_000).build()
}

/// All that the manifest names was believed to be there, and is, but for one blob.
#[test]
fn only_what_the_registry_names_is_brought() {
    let (Some(source), Some(destination)) = (Registry::start(), Registry::start()) else { return };
    let (binary, image) = (binary(), six(1));
    source.seed("a", "v1", &image);
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    replicated(&binary, &from, &to, &["--no-referrers"]);
    lose_manifests(&destination, "b");
    lose_link(&destination, "b", &image.layers()[2].digest);
    let (seen, read) = (destination.requests().len(), source.requests().len());
    let job = replicated(&binary, &from, &to, &["--no-referrers"]);
    // Refused, the one blob, and not refused.
    assert_eq!(at(&destination, seen), ["HEAD", "PUT", "POST", "PUT", "PUT"], "{job:#}");
    assert_eq!(at(&source, read), ["GET", "GET"]);
    assert_eq!(reported(&job, "requests"), 7);
    let numbers = ["blobs_present", "blobs_copied", "manifests_pushed"].map(|name| reported(&job, name));
    assert_eq!((numbers, &job["attempt"]), ([5, 1, 1], &1.into()), "{job:#}");
    let progress = &job["progress"];
    assert_eq!((&progress["blobs_done"], &progress["bytes_done"]), (&6.into(), &progress["bytes_total"]), "{job:#}");
    image.assert_at(&destination.client(), "b", "v1");
    // The memory has healed: the next time nothing is refused.
    lose_manifests(&destination, "b");
    let seen = destination.requests().len();
    replicated(&binary, &from, &to, &["--no-referrers"]);
    assert_eq!(at(&destination, seen), ["HEAD", "PUT"]);
}

/// Each manifest below an index is put by itself, and each names what it misses.
#[test]
fn what_several_manifests_miss_is_brought_together() {
    let (Some(source), Some(destination)) = (Registry::start(), Registry::start()) else { return };
    let (binary, children) = (binary(), [six(1), six(2), six(3)]);
    let index = image::index(children.to_vec());
    source.seed("a", "v1", &index);
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    replicated(&binary, &from, &to, &["--no-referrers"]);
    lose_manifests(&destination, "b");
    for (child, layer) in [(0, 1), (0, 3), (2, 4)] {
        lose_link(&destination, "b", &children[child].layers()[layer].digest);
    }
    let seen = destination.requests().len();
    let job = replicated(&binary, &from, &to, &["--no-referrers"]);
    let count = |wanted: &str| at(&destination, seen).iter().filter(|method| *method == wanted).count();
    // Three children, two of them refused and put again, the root, and three blobs.
    assert_eq!((count("HEAD"), count("POST"), count("PUT")), (1, 3, 3 + 2 + 1 + 3), "{job:#}");
    let numbers = ["blobs_present", "blobs_copied", "manifests_pushed"].map(|name| reported(&job, name));
    assert_eq!((numbers, &job["attempt"]), ([15, 3, 4], &1.into()), "{job:#}");
    let progress = &job["progress"];
    assert_eq!((&progress["blobs_done"], &progress["bytes_done"]), (&18.into(), &progress["bytes_total"]), "{job:#}");
    index.assert_at(&destination.client(), "b", "v1");
}

/// A fake that is said to look at what manifests name, with all blobs of an image of six that a run has brought before, and no
/// manifest.
struct Believing {
    source: Fake,
    destination: Fake,
    image: Image,
    binary: Binary,
    config: String,
    _folder: tempfile::TempDir,
}

impl Believing {
    fn new() -> Self {
        let (source, destination, folder) = (Fake::start(), Fake::start(), tempfile::tempdir().unwrap());
        let (image, binary) = (six(1), binary());
        source.put_image("a", "v1", &image);
        source.put_image("a", "v2", &image);
        let file = folder.path().join("config.toml");
        let section = format!("[registries.\"{}\"]\nverifies_manifests = true\n", destination.authority());
        std::fs::write(&file, section).unwrap();
        let config = file.to_str().unwrap().to_owned();
        let scene = Self { source, destination, image, binary, config, _folder: folder };
        scene.copy("v1");
        scene.source.clear_requests();
        scene.destination.clear_requests();
        scene
    }

    /// Copies to a tag, in a process of its own.
    fn copy(&self, tag: &str) -> Value {
        let (from, to) = (self.source.reference("a", tag), self.destination.reference("b", tag));
        let arguments = ["--config", &self.config, "-o", "json", "replicate", "--no-referrers", &from, &to];
        let job = self.binary.run(&arguments).success().json();
        assert_whole(&self.destination, "b", tag, &self.image);
        assert_eq!(job["attempt"], 1, "{job:#}");
        job
    }

    /// The next PUT of a manifest is refused because of these blobs.
    fn refuse(&self, details: &[Value]) {
        let error = |detail| json!({ "code": "MANIFEST_BLOB_UNKNOWN", "message": "blob unknown", "detail": detail });
        let body = json!({ "errors": details.iter().map(error).collect::<Vec<_>>() }).to_string();
        let refusal = Fault::Status { code: 400, headers: Vec::new(), body };
        self.destination.fault(Matcher::new("PUT", "/manifests/"), refusal);
    }

    fn counted(&self) -> [usize; 4] {
        let count = |method, path| self.destination.count(method, path);
        [
            count("POST", "/uploads/"),
            count("PUT", "/uploads/"),
            count("PUT", "/manifests/"),
            self.source.count("GET", "/blobs/"),
        ]
    }
}

#[test]
fn a_registry_that_names_nothing_is_asked_for_all() {
    for detail in [json!(null), json!({ "blob": "lost" }), json!("sha256:00")] {
        let scene = Believing::new();
        scene.destination.lose_blob("b", &scene.image.layers()[0].digest);
        scene.refuse(&[detail]);
        let job = scene.copy("v2");
        assert_eq!(scene.counted(), [6, 1, 2, 1], "{job:#}");
    }
}

#[test]
fn a_second_refusal_ends_all_belief() {
    let scene = Believing::new();
    let layer = |number: usize| json!(scene.image.layers()[number].digest);
    scene.destination.lose_blob("b", &scene.image.layers()[0].digest);
    scene.destination.lose_blob("b", &scene.image.layers()[1].digest);
    // It names one of the two, and whatever that was worth, misses the other one then, for as long as it is waited for.
    scene.refuse(&[layer(0)]);
    for _ in 0..3 {
        scene.refuse(&[layer(1)]);
    }
    let job = scene.copy("v2");
    let [begun, sent, manifests, read] = scene.counted();
    assert_eq!([begun, sent, read], [1 + 6, 2, 2], "{job:#}");
    assert_eq!(manifests, 1 + 3 + 1);
}

/// What a registry says it misses is only a hint: nothing is read that the manifest does not name.
#[test]
fn what_the_manifest_does_not_name_is_not_brought() {
    let scene = Believing::new();
    let other = scene.source.put_blob("a", "nobody asked for this");
    scene.refuse(&[json!(other), json!({ "digest": scene.image.layers()[0].digest })]);
    let job = scene.copy("v2");
    // The blob that it named was there after all.
    assert_eq!(scene.counted(), [1, 0, 2, 0], "{job:#}");
    assert_eq!(reported(&job, "blobs_present"), 6);
    assert!(!scene.destination.has_blob("b", &other));
}

/// However often it refuses, the attempt ends.
#[test]
fn a_registry_that_refuses_for_ever_is_left_alone() {
    let scene = Believing::new();
    for detail in [json!(null), json!(scene.image.layers()[0].digest)] {
        scene.destination.clear_requests();
        let body = json!({ "errors": [{ "code": "MANIFEST_BLOB_UNKNOWN", "detail": detail }] }).to_string();
        let refusal = Fault::Status { code: 400, headers: Vec::new(), body };
        scene.destination.fault(Matcher::new("PUT", "/manifests/").always(), refusal);
        let (from, to) = (scene.source.reference("a", "v2"), scene.destination.reference("b", "v2"));
        let more = ["replicate", "--no-referrers", "--max-attempts", "1", &from, &to];
        scene.binary.run(&[&["--config", &scene.config], &more[..]].concat()).expect_code(1);
        // At once, patiently after what was named was brought, and patiently after all was.
        let puts = scene.destination.count("PUT", "/manifests/");
        assert_eq!(puts, if detail.is_null() { 1 + 3 } else { 1 + 3 + 3 });
        assert_eq!(scene.destination.tags("b"), ["v1"]);
        scene.destination.heal();
    }
}
