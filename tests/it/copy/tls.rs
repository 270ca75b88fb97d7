//! TLS by an authority of one's own, without verification, and plain HTTP where that is allowed.

use super::{binary, fails, replicated};
use crate::support::fake::{Fake, Options};
use crate::support::image::{Image, ImageBuilder};
use crate::support::registry::Registry;
use crate::support::tls::Authority;

fn image() -> Image {
    ImageBuilder::oci(1).layers(2, 300_000).build()
}

#[test]
fn a_registry_of_our_own_authority_is_trusted_by_its_file() {
    let (Some(source), Some(destination)) = (Registry::with_tls(), Registry::with_tls()) else {
        return;
    };
    let (image, binary) = (image(), binary());
    source.seed("a", "v1", &image);
    let (one, other) = (source.ca().unwrap(), destination.ca().unwrap());
    let files = ["--ca-file", one.to_str().unwrap(), "--ca-file", other.to_str().unwrap()];
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    replicated(&binary, &from, &to, &files);
    image.assert_at(&destination.client(), "b", "v1");
    // By name as well as by address.
    let named = from.replace("127.0.0.1", "localhost");
    replicated(&binary, &named, &destination.reference("c", "v1"), &files);
    image.assert_at(&destination.client(), "c", "v1");
}

#[test]
fn an_unknown_authority_is_refused_and_the_message_says_what_to_do() {
    let (source, plain) = (Fake::start_tls(Options::default()), Fake::start());
    source.put_image("a", "v1", &image());
    let (from, to) = (source.reference("a", "v1"), plain.reference("b", "v1"));
    let stranger = Authority::new();
    let wrong = stranger.ca();
    let wrong = ["--ca-file", wrong.to_str().unwrap()];
    for more in [&[][..], &wrong[..]] {
        let job = fails(&binary(), &from, &to, more);
        super::assert_failure(&job, "refused", "resolve", 1);
        let message = job["failure"]["message"].as_str().unwrap();
        assert!(message.contains("certificate") && message.contains("CA file"), "{message}");
        assert!(message.contains("--src-tls-verify=false"), "{message}");
    }
    assert_eq!(source.requests().len(), 0, "not a word was said to it");
    super::assert_nothing_published(&plain, "b");
}

#[test]
fn verification_can_be_switched_off_for_each_side() {
    let (source, destination) = (Fake::start_tls(Options::default()), Fake::start_tls(Options::default()));
    let (image, binary) = (image(), binary());
    source.put_image("a", "v1", &image);
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    let ca = source.ca().unwrap();
    let ca = ["--ca-file", ca.to_str().unwrap()];
    // Only the other side.
    fails(&binary, &from, &to, &["--src-tls-verify=false"]);
    fails(&binary, &from, &to, &["--dest-tls-verify=false"]);
    assert_eq!(destination.count("PUT", "/"), 0);
    replicated(&binary, &from, &to, &[&ca[..], &["--dest-tls-verify=false"]].concat());
    super::assert_whole(&destination, "b", "v1", &image);
    let other = destination.reference("c", "v1");
    replicated(&binary, &from, &other, &["--src-tls-verify=false", "--dest-tls-verify=false"]);
    super::assert_whole(&destination, "c", "v1", &image);
}

#[test]
fn plain_http_is_found_on_loopback_without_being_asked_for() {
    let (source, destination, binary) = (Fake::start(), Fake::start(), binary());
    let image = image();
    source.put_image("a", "v1", &image);
    let from = source.reference("a", "v1").replace("127.0.0.1", "localhost");
    replicated(&binary, &from, &destination.reference("b", "v1"), &[]);
    super::assert_whole(&destination, "b", "v1", &image);
}

#[test]
fn inspection_follows_the_same_rules() {
    let (fake, image) = (Fake::start_tls(Options::default()), image());
    fake.put_image("a", "v1", &image);
    let reference = fake.reference("a", "v1");
    let binary = binary();
    let refused = binary.run(&["-o", "json", "manifest", &reference]).expect_code(1);
    assert_eq!(super::error_of(&refused)["code"], "refused");
    assert_eq!(binary.run(&["manifest", "--tls-verify=false", &reference]).success().stdout, image.manifest);
    let ca = fake.ca().unwrap();
    let trusted = binary.run(&["manifest", "--ca-file", ca.to_str().unwrap(), &reference]);
    assert_eq!(trusted.success().stdout, image.manifest);
}
