//! What cannot be copied fails at once, in its class and with a message; what may pass is scheduled again.

use super::{assert_failure, assert_nothing_published, binary, error_of, fails, replicate};
use crate::support::binary::Binary;
use crate::support::eventually;
use crate::support::fake::{Fake, Fault, Matcher};
use crate::support::image::{self, ImageBuilder, media};
use crate::support::registry::Registry;

/// An address where nobody listens, kept from others while the socket lives.
fn nobody() -> (tokio::net::TcpSocket, String) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    (socket, address)
}

#[test]
fn an_unknown_tag_is_absent_at_once() {
    let (Some(source), destination) = (Registry::start(), Fake::start()) else {
        return;
    };
    source.seed("a", "v1", &ImageBuilder::oci(1).layer(100).build());
    for reference in [source.reference("a", "v2"), source.reference("unknown", "v1")] {
        let job = fails(&binary(), &reference, &destination.reference("b", "v1"), &[]);
        assert_failure(&job, "absent", "resolve", 1);
        assert!(job["failure"]["message"].as_str().unwrap().contains(&reference), "{job:#}");
    }
    assert_nothing_published(&destination, "b");
}

#[test]
fn a_blob_that_is_gone_is_absent() {
    let (source, destination) = (Fake::start(), Fake::start());
    let image = ImageBuilder::oci(1).layers(2, 1_000).build();
    source.put_image("a", "v1", &image);
    source.lose_blob("a", &image.layers()[1].digest);
    let job = fails(&binary(), &source.reference("a", "v1"), &destination.reference("b", "v1"), &[]);
    assert_failure(&job, "absent", "transfer", 1);
    assert!(job["failure"]["message"].as_str().unwrap().contains(&image.layers()[1].digest), "{job:#}");
    assert_nothing_published(&destination, "b");
    // The upload that was begun for it was called off; those of its neighbours may stay behind.
    assert!(destination.count("DELETE", "/blobs/uploads/") >= 1, "{:#?}", destination.requests());
}

#[test]
fn a_denied_repository_is_denied_at_once() {
    let (source, destination) = (Fake::start(), Fake::start());
    source.put_image("a", "v1", &ImageBuilder::oci(1).layer(100).build());
    source.fault(Matcher::new("*", "/v2/secret/").always(), Fault::error(403, "DENIED", "access to it is denied"));
    let to = destination.reference("b", "v1");
    let job = fails(&binary(), &source.reference("secret", "v1"), &to, &[]);
    assert_failure(&job, "denied", "resolve", 1);
    assert!(job["failure"]["message"].as_str().unwrap().contains("access to it is denied"), "{job:#}");
    destination.fault(Matcher::new("POST", "/v2/b/").always(), Fault::error(403, "DENIED", "read only for you"));
    let job = fails(&binary(), &source.reference("a", "v1"), &to, &[]);
    assert_failure(&job, "denied", "transfer", 1);
    assert!(job["failure"]["message"].as_str().unwrap().contains("read only for you"), "{job:#}");
    assert!(destination.count("POST", "/") <= 4, "denied again and again");
}

#[test]
fn a_registry_that_is_not_there_is_tried_again_and_given_up() {
    let (fake, (_kept, nobody)) = (Fake::start(), nobody());
    fake.put_image("a", "v1", &ImageBuilder::oci(1).layer(100).build());
    let binary = binary().env("FREIGHTLINER_REGISTRY_TRIES", "1");
    let gone = format!("{nobody}/b:v1");
    let job = fails(&binary, &fake.reference("a", "v1"), &gone, &["--max-attempts", "2"]);
    assert_failure(&job, "retryable", "survey", 2);
    let message = job["failure"]["message"].as_str().unwrap();
    assert!(message.contains(&nobody) && message.contains("refused"), "{message}");
    let job = fails(&binary, &gone, &fake.reference("c", "v1"), &["--max-attempts", "2"]);
    assert_failure(&job, "retryable", "resolve", 2);
    let id = job["id"].to_string();
    let events = binary.run(&["-o", "json", "jobs", "events", &id]).success().json();
    let states = events.as_array().unwrap().iter().filter_map(|event| event["to_state"].as_str()).collect::<Vec<_>>();
    assert_eq!(states, ["pending", "running", "scheduled", "pending", "running", "failed"], "{events:#}");
}

/// Who watches a copy is told why it takes longer, before it ends.
#[test]
fn a_failed_attempt_is_told_to_whoever_waits() {
    let (fake, image) = (Fake::start(), ImageBuilder::oci(1).layer(100).build());
    let destination = Fake::start();
    fake.put_image("a", "v1", &image);
    destination.fault(Matcher::new("PUT", "/manifests/v1"), Fault::error(500, "UNKNOWN", "the disk is on fire"));
    // With the usual pause: a job that waits for an instant only is seen at its next attempt.
    let binary = Binary::new().env("FREIGHTLINER_REGISTRY_TRIES", "1").env("FREIGHTLINER_RETRY_BASE_MS", "2000");
    let (from, to) = (fake.reference("a", "v1"), destination.reference("b", "v1"));
    let output = binary.run(&["replicate", &from, &to]).success();
    assert!(output.errors().contains("the disk is on fire"), "{output}");
    assert!(output.text().contains("copied"), "{output}");
    destination.assert_holds("b", "v1", &image);
}

#[test]
fn a_waiting_job_shows_why_it_waits_and_ends_when_the_registry_is_back() {
    let mut registry = match Registry::start() {
        Some(registry) => registry,
        None => return,
    };
    let (fake, image) = (Fake::start(), ImageBuilder::oci(1).layer(100).build());
    fake.put_image("a", "v1", &image);
    let to = registry.reference("b", "v1");
    // The port is known, so that the registry can come back there.
    registry.restart();
    registry.stop();
    let binary = Binary::new()
        .env("FREIGHTLINER_REGISTRY_TRIES", "1")
        .env("FREIGHTLINER_RETRY_BASE_MS", "300")
        .env("FREIGHTLINER_RETRY_CAP_SECS", "1");
    let from = fake.reference("a", "v1");
    let words = ["-o", "json", "enqueue", &from, &to, "--max-attempts", "200"];
    let id = binary.run(&words).success().json()["id"].to_string();
    let mut worker = binary.spawn(&["work"]);
    let waiting = eventually("the job to wait for its next attempt", || {
        let job = binary.run(&["-o", "json", "jobs", "show", &id]).success().json();
        (job["state"] == "scheduled").then_some(job)
    });
    assert_eq!(waiting["failure"]["class"], "retryable", "{waiting:#}");
    assert!(waiting["failure"]["message"].as_str().unwrap().contains(registry.authority()), "{waiting:#}");
    assert!(waiting["attempt"].as_u64().unwrap() >= 1 && waiting["finished_at"].is_null(), "{waiting:#}");
    let shown = binary.run(&["jobs", "show", &id]).success().text();
    assert!(shown.contains("refused"), "{shown}");

    registry.restart();
    binary.run(&["jobs", "wait", &id, "--timeout", "60s"]).success();
    image.assert_at(&registry.client(), "b", "v1");
    worker.sigterm();
    worker.finish().success();
}

#[test]
fn a_huge_manifest_is_refused_in_little_memory() {
    let (source, destination) = (Fake::start(), Fake::start());
    source.put_manifest("honest", "v1", media::OCI_MANIFEST, vec![b' '; 64 * 1024 * 1024]);
    source.put_image("endless", "v1", &ImageBuilder::oci(1).build());
    source.fault(Matcher::new("GET", "/v2/endless/manifests/"), Fault::EndlessBody { mebibytes: 64 });
    for repository in ["honest", "endless"] {
        let output = replicate(&binary(), &source.reference(repository, "v1"), &destination.reference("b", "v1"), &[]);
        let output = output.expect_code(1);
        assert_failure(&output.json(), "refused", "resolve", 1);
        assert!(error_of(&output)["message"].as_str().unwrap().contains("limit"), "{output}");
        assert!(output.peak_memory_kib < 64 * 1024, "{} KiB for {repository}", output.peak_memory_kib);
    }
    assert_nothing_published(&destination, "b");
}

#[test]
fn what_is_no_manifest_is_refused() {
    let (source, destination, binary) = (Fake::start(), Fake::start(), binary());
    let html = "<html>please log in</html>";
    source.put_manifest("a", "html", media::OCI_MANIFEST, html);
    source.fault(Matcher::new("*", "/manifests/html").always(), Fault::WrongContentType("text/html".into()));
    source.put_manifest("a", "cut", media::OCI_MANIFEST, r#"{"schemaVersion":2,"layers":["#);
    source.put_manifest("a", "list", media::OCI_MANIFEST, "[]");
    let bad = r#"{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"sha256:../../x","size":1},"layers":[]}"#;
    source.put_manifest("a", "digest", media::OCI_MANIFEST, bad);
    let schema1 = r#"{"schemaVersion":1,"name":"a","tag":"v1","fsLayers":[{"blobSum":"sha256:00"}]}"#;
    source.put_manifest("a", "schema1", media::OCI_MANIFEST, schema1);
    let signed = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    source.fault(Matcher::new("*", "/manifests/schema1").always(), Fault::WrongContentType(signed.into()));
    for tag in ["html", "cut", "list", "digest", "schema1"] {
        let job = fails(&binary, &source.reference("a", tag), &destination.reference("b", tag), &[]);
        assert_failure(&job, "refused", "resolve", 1);
    }
    assert_nothing_published(&destination, "b");
}

#[test]
fn an_index_that_is_nested_without_end_is_refused() {
    let (source, destination) = (Fake::start(), Fake::start());
    let deep = (0..20).fold(ImageBuilder::oci(1).build(), |inner, _| image::index(vec![inner]));
    source.put_image("a", "v1", &deep);
    let job = fails(&binary(), &source.reference("a", "v1"), &destination.reference("b", "v1"), &[]);
    assert_failure(&job, "refused", "resolve", 1);
    assert!(job["failure"]["message"].as_str().unwrap().contains("nested"), "{job:#}");
    assert_nothing_published(&destination, "b");
}

#[test]
fn an_index_without_one_of_its_images_is_absent() {
    let (source, destination) = (Fake::start(), Fake::start());
    let (here, gone) = (ImageBuilder::oci(1).layer(10).build(), ImageBuilder::oci(2).layer(10).build());
    source.put_image("a", "here", &here);
    let index = image::index(vec![here, gone.clone()]);
    source.put_manifest("a", "v1", media::OCI_INDEX, index.manifest.clone());
    let job = fails(&binary(), &source.reference("a", "v1"), &destination.reference("b", "v1"), &[]);
    assert_failure(&job, "absent", "resolve", 1);
    assert!(job["failure"]["message"].as_str().unwrap().contains(&gone.digest), "{job:#}");
    assert_eq!(destination.count("POST", "/"), 0, "nothing is sent of what cannot be whole");
}

#[test]
fn references_that_do_not_parse_are_usage_errors() {
    let binary = binary();
    for (source, destination, part) in [
        ("localhost:1/UPPER:x", "localhost:1/b:v1", "source"),
        ("localhost:1/a:v1", "localhost:1/b:-", "destination"),
        ("localhost:1/a@sha256:12", "localhost:1/b:v1", "source"),
        ("localhost:1/a:v1", "ftp://localhost:1/b", "destination"),
    ] {
        for command in ["replicate", "enqueue"] {
            let output = binary.run(&["-o", "json", command, source, destination]).expect_code(2);
            let message = error_of(&output)["message"].as_str().unwrap().to_owned();
            assert!(message.contains(part), "{message}");
        }
    }
    assert_eq!(binary.run(&["-o", "json", "jobs", "list"]).success().json(), serde_json::json!([]));
}
