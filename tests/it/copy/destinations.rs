//! Destinations that stumble, and destinations named by digest.

use super::{assert_failure, assert_nothing_published, assert_whole, binary, fails, replicated};
use crate::support::fake::{Fake, Fault, Matcher};
use crate::support::image::{self, Image, ImageBuilder};
use crate::support::registry::Registry;

struct Scene {
    destination: Fake,
    image: Image,
    from: String,
    to: String,
    /// Kept alive.
    _source: Fake,
}

fn scene() -> Scene {
    let (source, destination) = (Fake::start(), Fake::start());
    let image = ImageBuilder::oci(1).layer(2_000_000).layer(1_000).build();
    source.put_image("a", "v1", &image);
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    Scene { destination, image, from, to, _source: source }
}

/// The copy ends well in its first attempt although this happens.
fn survives(method: &str, path: &str, fault: Fault) {
    let scene = scene();
    scene.destination.fault(Matcher::new(method, path), fault.clone());
    let job = replicated(&binary(), &scene.from, &scene.to, &[]);
    assert_eq!(job["attempt"], 1, "{fault:?}: {job:#}");
    assert_whole(&scene.destination, "b", "v1", &scene.image);
}

#[test]
fn trouble_with_the_tag_passes() {
    survives("PUT", "/manifests/v1", Fault::status(500));
    survives("PUT", "/manifests/v1", Fault::error(503, "UNAVAILABLE", "later"));
    survives("PUT", "/manifests/v1", Fault::LoseAnswer);
    survives("PUT", "/manifests/v1", Fault::TooManyRequests { retry_after: Some("0".into()) });
}

#[test]
fn trouble_with_an_upload_passes() {
    survives("PUT", "/blobs/uploads/", Fault::status(500));
    survives("POST", "/blobs/uploads/", Fault::status(502));
    survives("POST", "/blobs/uploads/", Fault::TooManyRequests { retry_after: None });
}

/// The registry has lost the upload, or what arrived there was mangled: a new one is begun.
#[test]
fn an_upload_that_is_lost_is_begun_again() {
    for code in ["BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID", "DIGEST_INVALID", "SIZE_INVALID"] {
        let scene = scene();
        let status = if code == "BLOB_UPLOAD_UNKNOWN" { 404 } else { 400 };
        scene.destination.fault(Matcher::new("PUT", "/blobs/uploads/"), Fault::error(status, code, "lost"));
        let job = replicated(&binary(), &scene.from, &scene.to, &[]);
        assert_eq!(job["attempt"], 1, "{code}: {job:#}");
        scene.destination.assert_holds("b", "v1", &scene.image);
    }
}

/// One that stops reading in the middle and never says why.
#[test]
fn a_destination_that_stands_still_is_given_up_in_time() {
    let scene = scene();
    let still = Fault::HoldUploadAfter { bytes: 100_000, name: "never".into() };
    scene.destination.fault(Matcher::new("PUT", "/blobs/uploads/").times(1), still);
    let binary = binary()
        .env("FREIGHTLINER_REGISTRY_IDLE_TIMEOUT_SECS", "1")
        .env("FREIGHTLINER_REGISTRY_FIRST_BYTE_TIMEOUT_SECS", "1")
        .env("FREIGHTLINER_REGISTRY_CONNECT_TIMEOUT_SECS", "1");
    let job = replicated(&binary, &scene.from, &scene.to, &[]);
    scene.destination.assert_holds("b", "v1", &scene.image);
    assert_eq!(job["report"]["blobs_copied"], 3, "{job:#}");
}

#[test]
fn a_registry_that_takes_no_writes_is_refused_at_once() {
    let Some(mut registry) = Registry::start() else {
        return;
    };
    let scene = scene();
    registry.restart_read_only();
    let job = fails(&binary(), &scene.from, &registry.reference("b", "v1"), &[]);
    assert_failure(&job, "refused", "transfer", 1);
    assert!(job["failure"]["message"].as_str().unwrap().contains("405"), "{job:#}");
}

/// Whether what was cut off had been committed is the registry's secret: both must end well.
#[test]
fn an_upload_that_breaks_is_sent_again() {
    let scene = scene();
    scene.destination.fault(Matcher::new("PUT", "/blobs/uploads/").times(2), Fault::CutUploadAfter(500));
    let job = replicated(&binary(), &scene.from, &scene.to, &[]);
    assert_eq!(job["attempt"], 1, "{job:#}");
    scene.destination.assert_holds("b", "v1", &scene.image);
    survives("PUT", "/blobs/uploads/", Fault::LoseAnswer);
}

#[test]
fn a_destination_that_stays_broken_gets_another_attempt() {
    let scene = scene();
    let binary = binary().env("FREIGHTLINER_REGISTRY_TRIES", "1");
    scene.destination.fault(Matcher::new("PUT", "/manifests/v1"), Fault::status(500));
    let job = replicated(&binary, &scene.from, &scene.to, &[]);
    assert_eq!(job["attempt"], 2, "{job:#}");
    assert_whole(&scene.destination, "b", "v1", &scene.image);
    // The second attempt found the blobs there.
    assert_eq!(job["report"]["bytes_copied"], 0, "{job:#}");
    assert_eq!(job["report"]["blobs_present"], 3, "{job:#}");
}

#[test]
fn a_manifest_that_the_destination_does_not_want_is_refused() {
    let scene = scene();
    let no = Fault::error(400, "MANIFEST_INVALID", "not here");
    scene.destination.fault(Matcher::new("PUT", "/manifests/").always(), no);
    let job = fails(&binary(), &scene.from, &scene.to, &[]);
    assert_failure(&job, "refused", "publish", 1);
    assert!(job["failure"]["message"].as_str().unwrap().contains("not here"), "{job:#}");
    assert_eq!(scene.destination.count("PUT", "/manifests/"), 1);
}

/// Children before parents, the tag last: at no time a tag whose content is not there.
#[test]
fn the_tag_comes_last() {
    let (source, destination) = (Fake::start(), Fake::start());
    let inner = image::index(vec![ImageBuilder::oci(1).layer(300_000).build(), ImageBuilder::oci(2).layer(10).build()]);
    let image = image::index(vec![inner, ImageBuilder::oci(3).layer(10).build()]);
    source.put_image("a", "v1", &image);
    replicated(&binary(), &source.reference("a", "v1"), &destination.reference("b", "v1"), &[]);
    let writes: Vec<String> = destination
        .requests()
        .into_iter()
        .filter(|request| request.method == "PUT")
        .map(|request| request.path)
        .collect();
    assert_eq!(writes.last().map(String::as_str), Some("/v2/b/manifests/v1"), "{writes:#?}");
    assert_eq!(writes.iter().filter(|path| path.ends_with("/manifests/v1")).count(), 1);
    // That children come before parents is what the fake insists on.
    assert_eq!(destination.requests().iter().filter(|request| request.status == Some(400)).count(), 0);
}

#[test]
fn a_destination_can_be_a_digest() {
    let scene = scene();
    let by_digest = format!("{}/b@{}", scene.destination.authority(), scene.image.digest);
    let job = replicated(&binary(), &scene.from, &by_digest, &[]);
    assert_eq!(job["report"]["digest"], scene.image.digest.as_str());
    assert_eq!(scene.destination.tags("b"), Vec::<String>::new());
    assert_whole(&scene.destination, "b", &scene.image.digest, &scene.image);
    let again = replicated(&binary(), &scene.from, &by_digest, &[]);
    assert_eq!(again["report"]["already_present"], true);
}

#[test]
fn a_destination_with_another_digest_is_refused_before_anything_is_sent() {
    let scene = scene();
    let other = ImageBuilder::oci(9).build().digest;
    let by_digest = format!("{}/b@{other}", scene.destination.authority());
    let job = fails(&binary(), &scene.from, &by_digest, &[]);
    assert_eq!((&job["failure"]["class"], &job["attempt"]), (&"refused".into(), &1.into()), "{job:#}");
    let message = job["failure"]["message"].as_str().unwrap();
    assert!(message.contains(&other) && message.contains(&scene.image.digest), "{message}");
    assert_nothing_published(&scene.destination, "b");
    assert_eq!(scene.destination.count("POST", "/"), 0);
}
