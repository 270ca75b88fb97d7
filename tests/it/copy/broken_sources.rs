//! Sources that break off, lie or send the wrong bytes: what passes is tried again, what is wrong never arrives.

use super::{assert_failure, assert_nothing_published, assert_whole, binary, fails, replicated};
use crate::support::fake::{Fake, Fault, Matcher, Options, Ranges};
use crate::support::image::{Image, ImageBuilder};
use std::time::Duration;

struct Scene {
    source: Fake,
    destination: Fake,
    image: Image,
    from: String,
    to: String,
}

/// An image with a large and a small layer at the source, and an empty destination.
fn scene() -> Scene {
    let (source, destination) = (Fake::start(), Fake::start());
    let image = ImageBuilder::oci(1).layer(3_000_000).layer(2_000).build();
    source.put_image("a", "v1", &image);
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    Scene { source, destination, image, from, to }
}

impl Scene {
    fn large(&self) -> &str {
        &self.image.layers()[0].digest
    }

    fn small(&self) -> &str {
        &self.image.layers()[1].digest
    }

    /// The copy succeeds in its first attempt.
    fn recovers(&self) {
        let job = replicated(&binary(), &self.from, &self.to, &[]);
        assert_eq!(job["attempt"], 1, "{job:#}");
        assert_whole(&self.destination, "b", "v1", &self.image);
        let bytes: u64 = self.image.all_blobs().iter().map(|blob| blob.content.len()).sum();
        assert_eq!(job["report"]["bytes_copied"], bytes, "bytes of broken tries are not counted: {job:#}");
        assert_eq!(job["progress"]["bytes_done"], bytes, "{job:#}");
    }
}

#[test]
fn a_layer_that_breaks_off_is_read_again() {
    let scene = scene();
    scene.source.fault(Matcher::new("GET", scene.large()), Fault::CutBodyAfter(1_500_000));
    scene.source.fault(Matcher::new("GET", scene.small()), Fault::CutBodyAfter(500));
    scene.recovers();
}

/// Offsets of the GETs of the large layer, in their order; the first asks for all of it.
fn offsets(scene: &Scene) -> Vec<u64> {
    let requests = scene.source.requests();
    let reads = requests.iter().filter(|one| one.method == "GET" && one.path.contains(scene.large()));
    let offset = |range: Option<&str>| match range {
        Some(range) => range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap(),
        None => 0,
    };
    reads.map(|one| offset(one.header("range"))).collect()
}

#[test]
fn a_layer_that_breaks_off_goes_on_where_it_broke() {
    let scene = scene();
    // The second time hardly anything comes, which is no reason to begin anew either.
    for bytes in [1_500_000, 70_000, 1_200_000] {
        scene.source.fault(Matcher::new("GET", scene.large()), Fault::CutBodyAfter(bytes));
    }
    scene.recovers();
    let offsets = offsets(&scene);
    assert_eq!((offsets.len(), offsets[0]), (4, 0), "{offsets:?}");
    assert!(offsets.is_sorted() && offsets[1] > 0 && offsets[1] <= 1_500_000, "{offsets:?}");
    let uploads = ["POST", "PUT"].map(|method| scene.destination.count(method, "/blobs/uploads/"));
    assert_eq!(uploads, [3, 3], "the upload went on meanwhile");
    let sent: u64 = scene.destination.requests().iter().map(|request| request.body_bytes).sum();
    let bytes: u64 = scene.image.all_blobs().iter().map(|blob| blob.content.len()).sum();
    assert_eq!(sent, bytes + u64::try_from(scene.image.manifest.len()).unwrap(), "nothing was sent twice");
}

#[test]
fn a_source_that_gives_no_parts_is_read_from_the_start() {
    for ranges in [Ranges::Ignored, Ranges::Wrong] {
        let scene = Scene { source: Fake::start_with(Options { ranges, ..Options::default() }), ..scene() };
        scene.source.put_image("a", "v1", &scene.image);
        let scene = Scene { from: scene.source.reference("a", "v1"), ..scene };
        scene.source.fault(Matcher::new("GET", scene.large()), Fault::CutBodyAfter(1_500_000));
        scene.recovers();
        let offsets = offsets(&scene);
        assert_eq!((offsets.len(), offsets[0], offsets[2]), (3, 0, 0), "{ranges:?}: {offsets:?}");
    }
}

#[test]
fn a_part_that_is_not_what_it_says_is_never_committed() {
    let scene = Scene { source: Fake::start_with(Options { ranges: Ranges::Lied, ..Options::default() }), ..scene() };
    scene.source.put_image("a", "v1", &scene.image);
    let scene = Scene { from: scene.source.reference("a", "v1"), ..scene };
    scene.source.fault(Matcher::new("GET", scene.large()), Fault::CutBodyAfter(1_500_000));
    // Wrong content: read again, all of it, which is right.
    scene.recovers();
    let offsets = offsets(&scene);
    assert_eq!((offsets.len(), offsets[2]), (3, 0), "{offsets:?}");
}

#[test]
fn connections_that_are_dropped_are_made_again() {
    let scene = scene();
    scene.source.fault(Matcher::new("GET", "/manifests/"), Fault::DropConnection);
    scene.source.fault(Matcher::new("GET", scene.large()), Fault::DropConnection);
    scene.destination.fault(Matcher::new("POST", "/uploads/"), Fault::DropConnection);
    scene.recovers();
}

#[test]
fn a_busy_source_is_waited_for() {
    let scene = scene();
    let wait = Some("1".to_owned());
    scene.source.fault(Matcher::new("GET", "/manifests/v1"), Fault::TooManyRequests { retry_after: wait.clone() });
    scene.source.fault(Matcher::new("GET", scene.small()), Fault::TooManyRequests { retry_after: wait });
    scene.source.fault(Matcher::new("GET", scene.large()), Fault::status(503));
    let started = tokio::time::Instant::now();
    scene.recovers();
    assert!(started.elapsed() >= Duration::from_secs(2), "Retry-After was not honoured, twice one second");
}

#[test]
fn a_wrong_layer_is_read_once_more() {
    let scene = scene();
    scene.source.fault(Matcher::new("GET", scene.large()), Fault::WrongBytes);
    scene.source.fault(Matcher::new("GET", scene.small()), Fault::ExtraBytes(1));
    scene.recovers();
    assert_eq!((scene.source.count("GET", scene.large()), scene.source.count("GET", scene.small())), (2, 2));
}

/// Always wrong: failed as corrupt after exactly one more reading, and never committed at the destination.
fn never_committed(fault: Fault, digest: fn(&Scene) -> &str) {
    let scene = scene();
    let digest = digest(&scene).to_owned();
    scene.source.fault(Matcher::new("GET", &digest).always(), fault);
    let job = fails(&binary(), &scene.from, &scene.to, &[]);
    assert_failure(&job, "corrupt", "transfer", 1);
    assert!(job["failure"]["message"].as_str().unwrap().contains(&digest), "{job:#}");
    assert_eq!(scene.source.count("GET", &digest), 2, "read, and once more");
    assert!(!scene.destination.has_blob("b", &digest));
    assert_nothing_published(&scene.destination, "b");
    let refused =
        |request: &crate::support::fake::LoggedRequest| request.method == "PUT" && request.status == Some(400);
    assert!(!scene.destination.requests().iter().any(refused), "the destination had to find out by itself");
}

#[test]
fn a_layer_that_is_always_wrong_is_never_committed() {
    never_committed(Fault::WrongBytes, Scene::large);
    never_committed(Fault::WrongBytes, Scene::small);
}

#[test]
fn a_layer_that_is_always_too_long_is_never_committed() {
    never_committed(Fault::ExtraBytes(4_000), Scene::large);
    never_committed(Fault::ExtraBytes(1), Scene::small);
}

#[test]
fn a_source_that_never_ends_a_layer_well_is_tried_in_later_attempts() {
    let scene = scene();
    scene.source.fault(Matcher::new("GET", scene.large()).always(), Fault::CutBodyAfter(100_000));
    let job = fails(&binary(), &scene.from, &scene.to, &["--max-attempts", "2"]);
    assert_failure(&job, "retryable", "transfer", 2);
    assert_nothing_published(&scene.destination, "b");
    assert!(!scene.destination.has_blob("b", scene.large()));
}

#[test]
fn a_wrong_digest_header_is_not_believed() {
    // Once: read again.
    let once = scene();
    once.source.fault(Matcher::new("GET", "/manifests/v1"), Fault::WrongDigestHeader);
    once.recovers();
    // Always: it is not known what the tag means.
    let always = scene();
    always.source.fault(Matcher::new("*", "/manifests/v1").always(), Fault::WrongDigestHeader);
    let job = fails(&binary(), &always.from, &always.to, &[]);
    assert_failure(&job, "corrupt", "resolve", 1);
    assert_nothing_published(&always.destination, "b");
    // By digest only the bytes count.
    let pinned = format!("{}/a@{}", always.source.authority(), always.image.digest);
    always.source.fault(Matcher::new("*", "/manifests/sha256").always(), Fault::WrongDigestHeader);
    replicated(&binary(), &pinned, &always.to, &[]);
    assert_whole(&always.destination, "b", "v1", &always.image);
}

/// The digest is right, but not the size that the manifest says: whom to believe is nobody's guess.
#[test]
fn a_layer_of_another_size_than_said_is_never_committed() {
    for difference in [-1_i64, 1] {
        let (source, destination) = (Fake::start(), Fake::start());
        let layer = ImageBuilder::oci(1).layer(1_000_000).build().layers()[0].clone();
        let mut descriptor = layer.descriptor();
        descriptor["size"] = (i64::try_from(layer.content.len()).unwrap() + difference).into();
        let image = ImageBuilder::oci(2).field("layers", serde_json::json!([descriptor])).build();
        source.put_image("a", "v1", &image);
        source.put_blob("a", layer.content.clone());
        let job = fails(&binary(), &source.reference("a", "v1"), &destination.reference("b", "v1"), &[]);
        assert_failure(&job, "corrupt", "transfer", 1);
        assert!(!destination.has_blob("b", &layer.digest));
        assert_nothing_published(&destination, "b");
    }
}

#[test]
fn a_manifest_with_wrong_bytes_is_never_copied() {
    let scene = scene();
    let pinned = format!("{}/a@{}", scene.source.authority(), scene.image.digest);
    scene.source.fault(Matcher::new("GET", "/manifests/").always(), Fault::WrongBytes);
    for from in [&pinned, &scene.from] {
        let job = fails(&binary(), from, &scene.to, &[]);
        assert_failure(&job, "corrupt", "resolve", 1);
    }
    assert_eq!(scene.source.count("GET", "/manifests/"), 4, "each read twice");
    assert_eq!(scene.destination.count("PUT", "/") + scene.destination.count("POST", "/"), 0);
}

/// It sends no more and does not close either: the silence is bounded, in bodies and before answers.
#[test]
fn a_source_that_stands_still_is_asked_again() {
    let scene = scene();
    let still = Fault::StallBodyAfter { bytes: 1_000_000, name: "never".into() };
    scene.source.fault(Matcher::new("GET", scene.large()), still);
    scene.source.fault(Matcher::new("GET", "/manifests/v1"), Fault::HoldUntil("never".into()));
    let binary = binary()
        .env("FREIGHTLINER_REGISTRY_IDLE_TIMEOUT_SECS", "2")
        .env("FREIGHTLINER_REGISTRY_FIRST_BYTE_TIMEOUT_SECS", "1")
        .env("FREIGHTLINER_REGISTRY_CONNECT_TIMEOUT_SECS", "1");
    replicated(&binary, &scene.from, &scene.to, &[]);
    assert_whole(&scene.destination, "b", "v1", &scene.image);
    assert_eq!(scene.source.count("GET", scene.large()), 2);
}

#[test]
fn a_slow_source_is_no_broken_one() {
    let scene = scene();
    let slow = Fault::SlowBody { chunk: 500_000, delay: Duration::from_millis(50) };
    scene.source.fault(Matcher::new("GET", scene.large()), slow);
    scene.recovers();
}

/// A byte now and then is no silence, and would hold a place for ever.
#[test]
fn a_source_that_trickles_is_asked_again() {
    let scene = scene();
    let trickle = Fault::SlowBody { chunk: 1, delay: Duration::from_millis(50) };
    scene.source.fault(Matcher::new("GET", scene.large()), trickle);
    let binary = binary().env("FREIGHTLINER_REGISTRY_IDLE_TIMEOUT_SECS", "1");
    replicated(&binary, &scene.from, &scene.to, &[]);
    assert_whole(&scene.destination, "b", "v1", &scene.image);
    assert_eq!(scene.source.count("GET", scene.large()), 2);
}
