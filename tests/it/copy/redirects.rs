//! What registries send besides plain answers: redirects, Locations of every form, missing headers.

use super::{assert_whole, binary, replicated};
use crate::support::fake::{Auth, Fake, Fault, LocationStyle, Matcher, Options};
use crate::support::image::{Image, ImageBuilder};

fn image() -> Image {
    ImageBuilder::oci(1).layers(3, 600_000).build()
}

#[test]
fn blobs_on_another_host_get_no_credentials() {
    for auth in [Auth::basic("ann", "one"), Auth::bearer_for("ann", "one")] {
        let source = Fake::start_with(Options { auth, ..Options::default() });
        let (storage, destination, binary) = (Fake::start(), Fake::start(), binary());
        let image = image();
        source.put_image("a", "v1", &image);
        storage.put_image("a", "v1", &image);
        source.fault(Matcher::new("GET", "/blobs/").always(), Fault::RedirectTo(storage.base_url()));
        binary.docker_login(&source.authority(), "ann", "one");
        replicated(&binary, &source.reference("a", "v1"), &destination.reference("b", "v1"), &[]);
        assert_whole(&destination, "b", "v1", &image);
        let asked = storage.requests();
        assert_eq!(asked.len(), 4, "{asked:#?}");
        for request in &asked {
            assert!(!request.authorized() && request.header("cookie").is_none(), "{request:#?}");
        }
        assert!(source.requests().iter().any(|request| request.authorized()));
    }
}

/// Also when the other host asks for them.
#[test]
fn a_storage_that_asks_for_credentials_gets_none() {
    let source = Fake::start_with(Options { auth: Auth::basic("ann", "one"), ..Options::default() });
    let thief = Fake::start_with(Options { auth: Auth::basic("ann", "one"), ..Options::default() });
    let (destination, binary, image) = (Fake::start(), binary(), image());
    source.put_image("a", "v1", &image);
    thief.put_image("a", "v1", &image);
    source.fault(Matcher::new("GET", "/blobs/").always(), Fault::RedirectTo(thief.base_url()));
    binary.docker_login(&source.authority(), "ann", "one");
    let job = super::fails(&binary, &source.reference("a", "v1"), &destination.reference("b", "v1"), &[]);
    assert_eq!(job["failure"]["class"], "denied", "{job:#}");
    assert!(thief.requests().iter().all(|request| !request.authorized()));
    super::assert_nothing_published(&destination, "b");
}

#[test]
fn a_circle_of_redirects_ends() {
    let (source, destination, image) = (Fake::start(), Fake::start(), image());
    source.put_image("a", "v1", &image);
    source.fault(Matcher::new("GET", "/blobs/").always(), Fault::RedirectTo(source.base_url()));
    let job = super::fails(&binary(), &source.reference("a", "v1"), &destination.reference("b", "v1"), &[]);
    assert_eq!((&job["failure"]["class"], &job["attempt"]), (&"refused".into(), &1.into()), "{job:#}");
    assert!(job["failure"]["message"].as_str().unwrap().contains("redirects"), "{job:#}");
}

#[test]
fn locations_of_every_form_are_followed() {
    for location in [LocationStyle::Absolute, LocationStyle::AbsolutePath, LocationStyle::Relative] {
        let (source, image) = (Fake::start(), image());
        let destination = Fake::start_with(Options { location, ..Options::default() });
        source.put_image("a", "v1", &image);
        replicated(&binary(), &source.reference("a", "v1"), &destination.reference("deep/er/b", "v1"), &[]);
        assert_whole(&destination, "deep/er/b", "v1", &image);
    }
}

/// The upload itself may live on another host, which must not see credentials.
#[test]
fn an_upload_on_another_host_gets_no_credentials() {
    let (source, storage, binary) = (Fake::start(), Fake::start(), binary());
    let destination = Fake::start_with(Options { auth: Auth::basic("ann", "one"), ..Options::default() });
    let image = image();
    source.put_image("a", "v1", &image);
    let elsewhere = Fault::ForeignLocation(storage.base_url());
    destination.fault(Matcher::new("POST", "/blobs/uploads/").always(), elsewhere);
    binary.docker_login(&destination.authority(), "ann", "one");
    // The fake's storage does not know the upload: the copy fails, and what it sent is what counts.
    let more = ["--max-attempts", "1"];
    super::fails(&binary, &source.reference("a", "v1"), &destination.reference("b", "v1"), &more);
    assert!(storage.count("PUT", "/blobs/uploads/") > 0, "{:#?}", storage.requests());
    assert!(storage.requests().iter().all(|request| !request.authorized()));
}

#[test]
fn digests_are_computed_where_no_header_tells_them() {
    let plain = || Fake::start_with(Options { digest_header: false, ..Options::default() });
    let (source, destination, binary, image) = (plain(), plain(), binary(), image());
    source.put_image("a", "v1", &image);
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    let job = replicated(&binary, &from, &to, &[]);
    assert_eq!(job["report"]["digest"], image.digest.as_str());
    assert_whole(&destination, "b", "v1", &image);
    destination.clear_requests();
    let again = replicated(&binary, &from, &to, &[]);
    assert_eq!(again["report"]["already_present"], true, "{again:#}");
    assert_eq!(destination.count("PUT", "/") + destination.count("POST", "/"), 0);
}

#[test]
fn a_content_type_that_says_nothing_is_no_hindrance() {
    let (source, destination, image) = (Fake::start(), Fake::start(), image());
    source.put_image("a", "v1", &image);
    let odd = Fault::WrongContentType("application/octet-stream".into());
    source.fault(Matcher::new("*", "/manifests/").always(), odd);
    replicated(&binary(), &source.reference("a", "v1"), &destination.reference("b", "v1"), &[]);
    assert_whole(&destination, "b", "v1", &image);
}
