//! The fake registry when it behaves: pulling, lists, inspection.

use crate::support::content::{Algorithm, sha256};
use crate::support::fake::{Fake, Fault, Matcher, Options};
use crate::support::image::{self, Image, ImageBuilder, media};
use serde_json::json;

#[test]
fn every_shape_of_image_survives_a_push_and_a_pull() {
    let fake = Fake::start();
    for (name, image) in shapes() {
        image.push(&fake.client(), "some/thing", name);
        image.assert_at(&fake.client(), "some/thing", name);
        fake.assert_holds("some/thing", name, &image);
        assert_eq!(fake.digest_of("some/thing", name), Some(sha256(&image.manifest)), "{name}");
    }
    assert_eq!(fake.open_uploads(), 0);
}

/// One of everything that has a canonical digest. Also used against the real registry.
pub fn shapes() -> Vec<(&'static str, Image)> {
    let oci = |seed| ImageBuilder::oci(seed).layers(2, 5_000).build();
    let arm = |seed| ImageBuilder::oci(seed).platform("linux", "arm64", Some("v8")).layer(4_000).build();
    let docker = |seed| ImageBuilder::docker(seed).layers(2, 3_000).build();
    let nested = image::index(vec![image::index(vec![oci(5), arm(6)]), docker(7)]);
    let annotations = json!({ "annotations": { "org.example": "ü\u{1F980}" } }).as_object().unwrap().clone();
    let annotated = image::index_with(media::OCI_INDEX, Algorithm::Sha256, vec![oci(13)], annotations);
    vec![
        ("annotated", annotated),
        ("oci", oci(1)),
        ("docker", docker(2)),
        ("index", image::index(vec![oci(3), arm(4)])),
        ("list", image::docker_list(vec![docker(8), docker(9)])),
        ("nested", nested),
        ("artifact", image::artifact(10, None)),
        ("without-media-type", ImageBuilder::oci(11).without_media_type().layer(100).build()),
        ("foreign", ImageBuilder::docker(12).layer(100).foreign_layer("http://127.0.0.1:9/layer").build()),
    ]
}

#[test]
fn what_was_put_past_http_is_served() {
    let fake = Fake::start();
    let image = ImageBuilder::oci(1).sha512().layer(1_000).build();
    fake.put_image("a/b", "v1", &image);
    image.assert_at(&fake.client(), "a/b", "v1");
    assert!(image.digest.starts_with("sha512:"));
    let head = fake.client().head("/v2/a/b/manifests/v1").expect(200);
    assert_eq!(head.header("docker-content-digest"), Some(image.digest.as_str()));
    assert_eq!(head.header("content-length"), Some(image.manifest.len().to_string().as_str()));
    assert_eq!(fake.tags("a/b"), ["v1"]);
    assert_eq!(fake.requests().last().unwrap().status, Some(200));
    assert!(fake.count("GET", "/blobs/") == 2 && fake.count("*", "/v2/") == 4, "{:#?}", fake.requests());
}

#[test]
fn the_check_of_an_image_notices_every_difference() {
    let fake = Fake::start();
    let image = image::index(vec![ImageBuilder::oci(1).layer(100).build()]);
    let blob = image.all_blobs()[1].digest.clone();
    fake.put_image("a", "v1", &image);
    fake.lose_blob("a", &blob);
    let found = image.differences(&fake.client(), "a", "v1");
    assert!(found.len() == 1 && found[0].contains(&blob), "{found:?}");
    fake.put_blob("a", image.all_blobs()[1].content.clone());
    fake.put_manifest("a", "v1", &image.media_type, "{}");
    let found = image.differences(&fake.client(), "a", "v1");
    assert!(found.len() == 1 && found[0].contains("2 other bytes"), "{found:?}");
}

#[test]
fn a_manifest_hides_from_an_accept_that_does_not_name_it() {
    let fake = Fake::start();
    fake.put_image("a", "v1", &ImageBuilder::oci(1).build());
    let get = |accept| fake.client().send("GET", "/v2/a/manifests/v1", &[("Accept", accept)], None).status;
    assert_eq!(get(media::DOCKER_MANIFEST), 404);
    assert_eq!(get("text/plain, application/vnd.oci.image.manifest.v1+json;q=0.5"), 200);
    assert_eq!(get("*/*"), 200);
}

#[test]
fn lists_come_in_pages() {
    let fake = Fake::start_with(Options { page_limit: 3, ..Options::default() });
    for number in 0..7 {
        fake.put_image("a", &format!("v{number}"), &ImageBuilder::oci(1).build());
        fake.put_image(&format!("r{number}"), "x", &ImageBuilder::oci(1).build());
    }
    let walk = |first: &str, field: &str| {
        let (mut target, mut names, mut pages) = (first.to_owned(), Vec::new(), 0);
        loop {
            let page = fake.client().get(&target).expect(200);
            names.extend(page.json()[field].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()));
            pages += 1;
            let Some(link) = page.header("link") else {
                return (names.join(" "), pages);
            };
            target = link.strip_prefix('<').unwrap().split('>').next().unwrap().to_owned();
        }
    };
    assert_eq!(walk("/v2/a/tags/list", "tags"), ("v0 v1 v2 v3 v4 v5 v6".to_owned(), 3));
    assert_eq!(walk("/v2/a/tags/list?n=2&last=v3", "tags"), ("v4 v5 v6".to_owned(), 2));
    assert_eq!(walk("/v2/_catalog", "repositories"), ("a r0 r1 r2 r3 r4 r5 r6".to_owned(), 3));
    fake.client().get("/v2/unknown/tags/list").expect(404);
}

#[test]
fn deletes_work_or_are_disabled() {
    let image = ImageBuilder::oci(1).build();
    let fake = Fake::start();
    fake.put_image("a", "v1", &image);
    fake.client().send("DELETE", &format!("/v2/a/manifests/{}", image.digest), &[], None).expect(202);
    fake.client().get("/v2/a/manifests/v1").expect(404);
    let fake = Fake::start_with(Options { deletes: false, ..Options::default() });
    fake.put_image("a", "v1", &image);
    fake.client().send("DELETE", "/v2/a/manifests/v1", &[], None).expect(405);
}

#[test]
fn referrers_are_listed_only_where_the_api_exists() {
    let subject = ImageBuilder::oci(1).build();
    let referrer = image::artifact(2, Some(&subject));
    let target = format!("/v2/a/referrers/{}", subject.digest);
    let fake = Fake::start();
    fake.client().get(&target).expect(404);

    let fake = Fake::start_with(Options { referrers: true, ..Options::default() });
    subject.push(&fake.client(), "a", "v1");
    referrer.push(&fake.client(), "a", &referrer.digest);
    let list = fake.client().get(&target).expect(200).json();
    assert_eq!(list["manifests"][0]["digest"], referrer.digest);
    assert_eq!(list["manifests"][0]["artifactType"], "application/vnd.example.thing");
    let none = fake.client().get(&format!("{target}?artifactType=other")).expect(200);
    assert_eq!(
        (none.json()["manifests"].clone(), none.header("oci-filters-applied")),
        (json!([]), Some("artifactType"))
    );
}

#[test]
fn a_virtual_blob_is_larger_than_what_is_held() {
    let fake = Fake::start();
    let size = 3 * 1024 * 1024 + 17;
    let digest = fake.put_virtual_blob("a", 9, size);
    let target = format!("/v2/a/blobs/{digest}");
    let whole = fake.client().get(&target).expect(200);
    assert_eq!((whole.body.len() as u64, sha256(&whole.body)), (size, digest));
    let part = fake.client().send("GET", &target, &[("Range", "bytes=1000000-")], None).expect(206);
    assert_eq!(part.body, whole.body[1_000_000..]);
    assert_eq!(part.header("content-range"), Some(format!("bytes 1000000-{}/{size}", size - 1).as_str()));
    fake.client().send("GET", &target, &[("Range", &format!("bytes={size}-"))], None).expect(416);
}

#[test]
fn the_fake_speaks_tls() {
    let fake = Fake::start_tls(Options::default());
    fake.client().get("/v2/").expect(200);
    assert!(fake.base_url().starts_with("https://"));
    let other = Fake::start_tls(Options::default());
    let stranger = crate::support::http::Client::new(fake.authority()).trusting(&other.ca().unwrap());
    assert!(stranger.try_send("GET", "/v2/", &[], None).is_err());
}

#[test]
fn dropping_the_fake_ends_requests_that_wait() {
    let fake = Fake::start();
    fake.fault(Matcher::new("GET", "/v2/"), Fault::HoldUntil("never".into()));
    let client = fake.client();
    let waiting = std::thread::spawn(move || client.try_send("GET", "/v2/", &[], None));
    fake.wait_reached("never");
    drop(fake);
    assert!(waiting.join().unwrap().is_err());
}
