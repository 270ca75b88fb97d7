//! What the fake takes and what it refuses.

use crate::support::content::{Algorithm, Content, sha256};
use crate::support::fake::{Fake, LocationStyle, Options, Quirks};
use crate::support::image::{self, Blob, Image, ImageBuilder, media};

#[test]
fn an_upload_in_chunks_follows_the_newest_location_only() {
    for style in [LocationStyle::Absolute, LocationStyle::AbsolutePath] {
        let fake = Fake::start_with(Options { location: style, ..Options::default() });
        let client = fake.client();
        let begun = client.send("POST", "/v2/a/blobs/uploads/", &[], None).expect(202);
        let first = begun.header("location").unwrap().to_owned();
        assert_eq!(first.starts_with("http://"), style == LocationStyle::Absolute);
        let chunk = |text: &'static str| Content::from(text);
        let sent = client.send("PATCH", &first, &[("Content-Range", "0-3")], Some(&chunk("abcd"))).expect(202);
        assert_eq!(sent.header("range"), Some("0-3"));
        let second = sent.header("location").unwrap().to_owned();
        // The old Location, a chunk that leaves a gap, and a Location without its query are refused.
        client.send("PATCH", &first, &[], Some(&chunk("efgh"))).expect(416);
        client.send("PATCH", &second, &[("Content-Range", "5-8")], Some(&chunk("efgh"))).expect(416);
        client.send("PATCH", second.split('?').next().unwrap(), &[], Some(&chunk("efgh"))).expect(400);
        let status = client.get(&first).expect(204);
        assert_eq!((status.header("range"), status.header("location")), (Some("0-3"), Some(second.as_str())));
        let digest = sha256(b"abcdefgh");
        client.send("PUT", &format!("{second}&digest={digest}"), &[], Some(&chunk("efgh"))).expect(201);
        assert_eq!(fake.blob("a", &digest).unwrap().to_bytes(), "abcdefgh");
        assert_eq!(fake.open_uploads(), 0);
    }
}

#[test]
fn a_wrong_digest_is_refused_and_ends_the_upload() {
    let fake = Fake::start();
    let client = fake.client();
    let begun = client.send("POST", "/v2/a/blobs/uploads/", &[], None).expect(202);
    let target = format!("{}&digest={}", begun.header("location").unwrap(), sha256(b"right"));
    let refused = client.send("PUT", &target, &[], Some(&"wrong".into())).expect(400);
    assert_eq!(refused.json()["errors"][0]["code"], "DIGEST_INVALID");
    client.send("PUT", &target, &[], Some(&"right".into())).expect(404);
    let cancelled = client.send("POST", "/v2/a/blobs/uploads/", &[], None).expect(202);
    client.send("DELETE", cancelled.header("location").unwrap(), &[], None).expect(204);
    assert_eq!(fake.open_uploads(), 0);
    let wrong = format!("/v2/a/manifests/{}", sha256(b"other"));
    client.send("PUT", &wrong, &[("Content-Type", media::OCI_INDEX)], Some(&"{}".into())).expect(400);
}

#[test]
fn blobs_are_mounted_from_where_they_are() {
    let fake = Fake::start();
    let digest = fake.put_blob("from", "some bytes");
    let mount = |to: &str, from: &str| {
        let target = format!("/v2/{to}/blobs/uploads/?mount={digest}&from={from}");
        fake.client().send("POST", &target, &[], None).status
    };
    assert_eq!(mount("to", "to"), 202);
    assert_eq!(mount("to", "from"), 201);
    assert!(fake.has_blob("to", &digest));
    assert_eq!(mount("to", "to"), 201);
}

#[test]
fn a_manifest_that_names_what_is_not_there_is_refused() {
    let fake = Fake::start();
    let image = ImageBuilder::oci(1).layer(10).build();
    image.blobs[0].push(&fake.client(), "a");
    let put = |image: &Image| {
        let target = format!("/v2/a/manifests/{}", image.digest);
        let headers = [("Content-Type", image.media_type.as_str())];
        fake.client().send("PUT", &target, &headers, Some(&image.manifest.clone().into()))
    };
    let refused = put(&image).expect(400).json();
    assert_eq!(refused["errors"][0]["code"], "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(refused["errors"][0]["detail"], image.blobs[1].digest);
    let index = image::index(vec![image.clone()]);
    put(&index).expect(400);
    image.blobs[1].push(&fake.client(), "a");
    put(&image).expect(201);
    put(&index).expect(201);
    let mismatched = [("Content-Type", media::DOCKER_LIST)];
    let target = "/v2/a/manifests/x";
    fake.client().send("PUT", target, &mismatched, Some(&index.manifest.clone().into())).expect(400);
}

#[test]
fn discarded_uploads_are_verified_but_not_held() {
    let fake = Fake::start_with(Options { discard_uploads: true, ..Options::default() });
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let blob = Blob::new("x/y", algorithm, Content::seeded(1, 2_000_000));
        blob.push(&fake.client(), "a");
        assert_eq!(
            fake.client().head(&format!("/v2/a/blobs/{}", blob.digest)).expect(200).header("content-length"),
            Some("2000000")
        );
        fake.client().get(&format!("/v2/a/blobs/{}", blob.digest)).expect(500);
    }
}

#[test]
fn the_fake_has_the_quirks_of_registries() {
    let status = |profile: &str, target: &str| {
        let fake = Fake::start_with(Options::like(profile));
        let digest = fake.put_blob("team/from", "some bytes");
        fake.client().send("POST", &target.replace("{}", &digest), &[], None).status
    };
    let (bare, other) = ("/v2/team/to/blobs/uploads/?mount={}", "/v2/other/to/blobs/uploads/?mount={}&from=team/from");
    assert_eq!((status("quay", bare), status("quay", other)), (400, 201));
    assert_eq!((status("docker-hub", bare), status("docker-hub", other)), (202, 403));
    assert_eq!((status("generic", bare), status("generic", other)), (202, 201));

    // What one PATCH brought is gone with the next, and the answers do not show it.
    let fake = Fake::start_with(Options::like("ghcr"));
    let client = fake.client();
    let mut location =
        client.send("POST", "/v2/a/blobs/uploads/", &[], None).expect(202).header("location").unwrap().to_owned();
    for (range, text) in [("0-3", "abcd"), ("4-7", "efgh")] {
        let sent = client.send("PATCH", &location, &[("Content-Range", range)], Some(&text.into())).expect(202);
        assert_eq!(sent.header("range"), Some(if range == "0-3" { "0-3" } else { "0-7" }));
        location = sent.header("location").unwrap().to_owned();
    }
    client.send("PUT", &format!("{location}&digest={}", sha256(b"efgh")), &[], None).expect(201);

    let quirks = Quirks { only_repository: Some("made".into()), body_limit: Some(3), ..Quirks::default() };
    let fake = Fake::start_with(Options { quirks, ..Options::default() });
    fake.client().send("POST", "/v2/a/blobs/uploads/", &[], None).expect(404);
    let begun = fake.client().send("POST", "/v2/made/blobs/uploads/", &[], None).expect(202);
    fake.client().send("PATCH", begun.header("location").unwrap(), &[], Some(&"abcd".into())).expect(413);
    fake.client().send("PATCH", begun.header("location").unwrap(), &[], Some(&"abc".into())).expect(202);
}
