//! What refers to an image goes with it: signatures, attestations, SBOMs, by the API, by lists under tags, by cosign's tags.

use super::{assert_failure, assert_whole, binary, error_of, fails, replicate, replicated, reported};
use crate::support::binary::Binary;
use crate::support::content::Algorithm;
use crate::support::fake::{Auth, Fake, Fault, Matcher, Options};
use crate::support::image::{self, Image, ImageBuilder, media};
use crate::support::registry::Registry;
use crate::support::skopeo::Skopeo;
use serde_json::{Value, json};
use std::path::Path;

const SBOM: &str = "application/vnd.example.sbom";
const THING: &str = "application/vnd.example.thing";

fn with_api() -> Fake {
    Fake::start_with(Options { referrers: true, ..Options::default() })
}

fn small(seed: u64) -> Image {
    ImageBuilder::oci(seed).layer(2_000).build()
}

/// The tag of the list of what refers to an image.
fn list_tag(image: &Image) -> String {
    image.digest.replace(':', "-")
}

/// The list as a registry without the API keeps it, made by hand.
fn list_of(referrers: &[&Image]) -> Image {
    let entries: Vec<Value> = referrers.iter().map(|referrer| listed(referrer)).collect();
    let index = json!({ "schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": entries });
    let mut list = Image::from_bytes(media::OCI_INDEX, Algorithm::Sha256, index.to_string());
    list.children = referrers.iter().map(|referrer| (*referrer).clone()).collect();
    list
}

/// What a list says of a referrer.
fn listed(referrer: &Image) -> Value {
    let manifest: Value = serde_json::from_slice(&referrer.manifest).unwrap();
    let mut entry = referrer.descriptor();
    entry["artifactType"] = manifest["artifactType"].clone();
    entry["annotations"] = manifest["annotations"].clone();
    entry
}

/// Holds a referrer at a fake by its digest.
fn hold(fake: &Fake, repository: &str, referrer: &Image) {
    for blob in referrer.all_blobs() {
        fake.put_blob(repository, blob.content.clone());
    }
    fake.put_manifest(repository, &referrer.digest, &referrer.media_type, referrer.manifest.clone());
}

/// The list under the tag at a fake, as its entries.
fn entries_at(fake: &Fake, repository: &str, subject: &Image) -> Option<Vec<Value>> {
    let (_, bytes) = fake.manifest(repository, &list_tag(subject))?;
    let list: Value = serde_json::from_slice(&bytes).unwrap();
    Some(list["manifests"].as_array().unwrap().clone())
}

/// Digests in a list at a registry without the API, sorted.
fn digests_at(registry: &Registry, repository: &str, subject: &Image) -> Vec<String> {
    let target = format!("/v2/{repository}/manifests/{}", list_tag(subject));
    let answer = registry.client().send("GET", &target, &[("Accept", media::OCI_INDEX)], None);
    if answer.status == 404 {
        return Vec::new();
    }
    let list = answer.expect(200).json();
    sorted(list["manifests"].as_array().unwrap().iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()))
}

fn sorted(digests: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut digests: Vec<String> = digests.into_iter().collect();
    digests.sort();
    digests
}

/// Two fakes with the API, and an image with a signature and its signature in turn at the source.
struct Scene {
    source: Fake,
    destination: Fake,
    image: Image,
    signature: Image,
    from: String,
    to: String,
}

impl Scene {
    fn new() -> Self {
        Self::between(with_api(), with_api())
    }

    fn between(source: Fake, destination: Fake) -> Self {
        let image = small(1);
        let signature = image::artifact(2, Some(&image));
        source.put_image("a", "v1", &image);
        hold(&source, "a", &signature);
        let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
        Self { source, destination, image, signature, from, to }
    }

    fn copy(&self, binary: &Binary, more: &[&str]) -> Value {
        replicated(binary, &self.from, &self.to, more)
    }
}

#[test]
fn referrers_and_theirs_are_copied_before_the_tag() {
    let scene = Scene::new();
    let second = image::artifact(3, Some(&scene.signature));
    hold(&scene.source, "a", &second);
    let job = scene.copy(&binary(), &[]);
    assert_eq!((reported(&job, "referrers_pushed"), reported(&job, "manifests_pushed")), (2, 3), "{job:#}");
    assert_whole(&scene.destination, "b", "v1", &scene.image);
    for referrer in [&scene.signature, &second] {
        assert_whole(&scene.destination, "b", &referrer.digest, referrer);
    }
    let puts: Vec<String> = scene
        .destination
        .requests()
        .into_iter()
        .filter(|request| request.method == "PUT" && request.path.contains("/manifests/"))
        .map(|request| request.path)
        .collect();
    assert_eq!(puts.last().map(String::as_str), Some("/v2/b/manifests/v1"), "{puts:#?}");
    assert_eq!(scene.destination.tags("b"), ["v1"], "the registry keeps the list itself");
    let shown = binary().run(&["replicate", &scene.from, &scene.destination.reference("c", "v1")]).success();
    assert!(shown.text().contains("2 pushed"), "{shown}");
}

#[test]
fn without_referrers_nothing_is_asked_about_them() {
    let scene = Scene::new();
    let job = scene.copy(&binary(), &["--no-referrers"]);
    assert_eq!(reported(&job, "referrers_pushed"), 0);
    assert!(scene.destination.manifest("b", &scene.signature.digest).is_none());
    for fake in [&scene.source, &scene.destination] {
        assert_eq!(fake.count("*", "/referrers/") + fake.count("*", "/tags/list") + fake.count("*", "/sha256-"), 0);
    }
}

#[test]
fn a_new_signature_of_an_image_that_is_there_is_noticed() {
    let (scene, binary) = (Scene::new(), binary());
    scene.copy(&binary, &[]);
    let newer = image::artifact_of(SBOM, 7, Some(&scene.image));
    hold(&scene.source, "a", &newer);
    scene.source.clear_requests();
    scene.destination.clear_requests();
    let preview = binary.run(&["-o", "json", "replicate", "--dry-run", &scene.from, &scene.to]).success().json();
    assert_eq!((&preview["already_present"], &preview["referrers"]), (&true.into(), &1.into()), "{preview:#}");
    assert!(scene.destination.manifest("b", &newer.digest).is_none());
    let job = scene.copy(&binary, &[]);
    assert_eq!((&job["report"]["already_present"], reported(&job, "referrers_pushed")), (&true.into(), 1), "{job:#}");
    assert_whole(&scene.destination, "b", &newer.digest, &newer);
    assert_eq!(scene.destination.count("PUT", "/manifests/v1"), 0);
    assert_eq!(scene.source.count("GET", &format!("/manifests/{}", scene.signature.digest)), 0, "that one was there");
    let again = scene.copy(&binary, &[]);
    assert_eq!(reported(&again, "referrers_pushed"), 0, "{again:#}");
}

/// Beside the two HEADs of a copy that has nothing to do.
#[test]
fn what_it_costs_to_see_that_there_is_nothing_new() {
    let binary = binary();
    for (api, cold, warm) in [(true, 2 + 2, 2 + 1), (false, 2 + 2, 2)] {
        let registry = || Fake::start_with(Options { referrers: api, ..Options::default() });
        let (source, destination) = (registry(), registry());
        for number in 0..3 {
            let image = small(number + 1);
            source.put_image("a", &format!("v{number}"), &image);
            destination.put_image("b", &format!("v{number}"), &image);
        }
        // One process: what it learns with the first image is known with the others.
        for number in 0..3 {
            let tag = format!("v{number}");
            binary.run(&["enqueue", &source.reference("a", &tag), &destination.reference("b", &tag)]).success();
        }
        binary.run(&["work", "--drain", "--concurrency", "1"]).success();
        let jobs = binary.run(&["jobs", "list", "--limit", "3", "-o", "json"]).success().json();
        let mut requests: Vec<u64> = jobs.as_array().unwrap().iter().map(|job| reported(job, "requests")).collect();
        requests.sort_unstable();
        assert_eq!(requests, [warm, warm, cold], "{api}");
        assert_eq!(source.count("GET", "/tags/list"), 1);
        assert_eq!(source.count("GET", "/referrers/"), if api { 3 } else { 1 });
        assert_eq!(destination.requests().len(), 3, "{:#?}", destination.requests());
    }
}

/// The same between registries of no API, seen in their logs.
#[test]
fn real_registries_are_asked_two_things_more_at_first_contact() {
    let (Some(source), Some(destination)) = (Registry::start(), Registry::start()) else { return };
    let image = small(1);
    source.seed("a", "v1", &image);
    destination.seed("b", "v1", &image);
    let job = replicated(&binary(), &source.reference("a", "v1"), &destination.reference("b", "v1"), &[]);
    assert_eq!((reported(&job, "requests"), &job["report"]["already_present"]), (4, &true.into()), "{job:#}");
    let seen = sorted(source.requests().into_iter().map(|request| format!("{} {}", request.method, request.path)));
    let expected = [
        format!("GET /v2/a/referrers/{}", image.digest),
        "GET /v2/a/tags/list?n=1000".to_owned(),
        "HEAD /v2/a/manifests/v1".to_owned(),
    ];
    assert_eq!(seen, expected);
    assert_eq!(destination.requests().len(), 1);
}

#[test]
fn a_cold_copy_costs_one_or_two_requests_more() {
    for (api, more) in [(true, 2), (false, 2)] {
        let registry = || Fake::start_with(Options { referrers: api, ..Options::default() });
        let (source, destination) = (registry(), registry());
        let image = ImageBuilder::oci(1).layers(3, 1_000).build();
        source.put_image("a", "v1", &image);
        let from = source.reference("a", "v1");
        let bare = replicated(&binary(), &from, &destination.reference("b", "v1"), &["--no-referrers"]);
        let with = replicated(&binary(), &from, &destination.reference("c", "v1"), &[]);
        assert_eq!(reported(&with, "requests"), reported(&bare, "requests") + more, "{api}");
    }
}

#[test]
fn signatures_that_are_there_cost_two_lists_more() {
    let (scene, binary) = (Scene::new(), binary());
    scene.copy(&binary, &[]);
    scene.source.clear_requests();
    scene.destination.clear_requests();
    scene.copy(&binary, &[]);
    let paths =
        |fake: &Fake| sorted(fake.requests().into_iter().map(|request| format!("{} {}", request.method, request.path)));
    let referrers = |repository: &str, of: &Image| format!("GET /v2/{repository}/referrers/{}", of.digest);
    let expected = [
        "HEAD /v2/a/manifests/v1".to_owned(),
        referrers("a", &scene.image),
        "GET /v2/a/tags/list?n=1000".to_owned(),
        referrers("a", &scene.signature),
    ];
    assert_eq!(paths(&scene.source), sorted(expected));
    assert_eq!(paths(&scene.destination), [referrers("b", &scene.image), "HEAD /v2/b/manifests/v1".to_owned()]);
}

#[test]
fn lists_under_tags_are_kept_where_there_is_no_api() {
    let (Some(source), Some(destination)) = (Registry::start(), Registry::start()) else { return };
    let binary = binary();
    let whole = image::index(vec![small(1), small(2)]);
    let signature = image::artifact(3, Some(&whole));
    let sbom = image::artifact_of(SBOM, 4, Some(&whole));
    let second = image::artifact(5, Some(&signature));
    let of_child = image::artifact(6, Some(&whole.children[0]));
    whole.push(&source.client(), "some/thing", "v1");
    for (subject, referrers) in
        [(&whole, vec![&signature, &sbom]), (&signature, vec![&second]), (&whole.children[0], vec![&of_child])]
    {
        list_of(&referrers).push(&source.client(), "some/thing", &list_tag(subject));
    }
    let (from, to) = (source.reference("some/thing", "v1"), destination.reference("b", "v1"));
    let job = replicated(&binary, &from, &to, &[]);
    assert_eq!(reported(&job, "referrers_pushed"), 3, "{job:#}");
    whole.assert_at(&destination.client(), "b", "v1");
    for referrer in [&signature, &sbom, &second] {
        referrer.assert_at(&destination.client(), "b", &referrer.digest);
    }
    assert_eq!(digests_at(&destination, "b", &whole), sorted([signature.digest.clone(), sbom.digest.clone()]));
    assert_eq!(digests_at(&destination, "b", &signature), [second.digest.as_str()]);
    assert_eq!(digests_at(&destination, "b", &whole.children[0]), Vec::<String>::new());
    // What the list says of them is what they say of themselves.
    let target = format!("/v2/b/manifests/{}", list_tag(&whole));
    let list = destination.client().send("GET", &target, &[("Accept", media::OCI_INDEX)], None).expect(200).json();
    let told = list["manifests"].as_array().unwrap().iter().find(|entry| entry["digest"] == sbom.digest.as_str());
    assert_eq!(told, Some(&listed(&sbom)));
    // Those of the children too, and the rest is there.
    let all = replicated(&binary, &from, &to, &["--referrers=all"]);
    assert_eq!((&all["report"]["already_present"], reported(&all, "referrers_pushed")), (&true.into(), 1), "{all:#}");
    assert_eq!(digests_at(&destination, "b", &whole.children[0]), [of_child.digest.as_str()]);
    let puts = destination.count("PUT", "/manifests/");
    let again = replicated(&binary, &from, &to, &["--referrers=all"]);
    assert_eq!((reported(&again, "referrers_pushed"), destination.count("PUT", "/manifests/")), (0, puts), "{again:#}");
    // A copy with everything at once, to another place; within one registry the blobs are mounted.
    let cold = replicated(&binary, &from, &source.reference("other", "v1"), &["--referrers=all"]);
    assert_eq!((reported(&cold, "referrers_pushed"), reported(&cold, "blobs_copied")), (4, 0), "{cold:#}");
    assert_eq!(digests_at(&source, "other", &whole.children[0]), [of_child.digest.as_str()]);
}

#[test]
fn between_a_registry_with_the_api_and_one_without() {
    let (with, without) = (with_api(), Fake::start());
    let scene = Scene::between(with, without);
    scene.copy(&binary(), &[]);
    assert_eq!(entries_at(&scene.destination, "b", &scene.image), Some(vec![listed(&scene.signature)]));
    // And back: the list under the tag is read, and needs no tag there.
    let back = with_api();
    let job = replicated(&binary(), &scene.to, &back.reference("c", "v1"), &[]);
    assert_eq!(reported(&job, "referrers_pushed"), 1, "{job:#}");
    assert_whole(&back, "c", &scene.signature.digest, &scene.signature);
    assert_eq!(back.tags("c"), ["v1"]);
}

#[test]
fn many_referrers_come_in_pages() {
    let api = || Fake::start_with(Options { referrers: true, referrers_page: 2, ..Options::default() });
    let scene = Scene::between(api(), api());
    let more: Vec<Image> = (10..17).map(|seed| image::artifact(seed, Some(&scene.image))).collect();
    more.iter().for_each(|referrer| hold(&scene.source, "a", referrer));
    let job = scene.copy(&binary(), &[]);
    assert_eq!(reported(&job, "referrers_pushed"), 8, "{job:#}");
    for referrer in &more {
        assert_whole(&scene.destination, "b", &referrer.digest, referrer);
    }
}

#[test]
fn only_the_types_that_are_asked_for() {
    for filter in [true, false] {
        let api = || Fake::start_with(Options { referrers: true, referrers_filter: filter, ..Options::default() });
        let (scene, binary) = (Scene::between(api(), api()), binary());
        let sbom = image::artifact_of(SBOM, 7, Some(&scene.image));
        hold(&scene.source, "a", &sbom);
        let job = scene.copy(&binary, &["--artifact-type", SBOM]);
        assert_eq!(reported(&job, "referrers_pushed"), 1, "{job:#}");
        assert_whole(&scene.destination, "b", &sbom.digest, &sbom);
        assert!(scene.destination.manifest("b", &scene.signature.digest).is_none());
        assert_eq!(scene.source.count("GET", &format!("artifactType={}", SBOM.replace('/', "%2F"))), 2);
        let both = scene.copy(&binary, &["--artifact-type", SBOM, "--artifact-type", THING]);
        assert_eq!(reported(&both, "referrers_pushed"), 1, "{both:#}");
    }
    binary().run(&["enqueue", "a", "b.example/a", "--artifact-type", "sbom"]).expect_code(2);
}

/// What cosign pushes: an image manifest without a subject, named after what it signs.
fn cosign(seed: u64) -> Image {
    ImageBuilder::oci(seed)
        .raw_layer("application/vnd.dev.cosign.simplesigning.v1+json", format!("{{\"seed\":{seed}}}").into_bytes())
        .build()
}

#[test]
fn tags_of_cosign_are_followed() {
    let (Some(source), Some(destination)) = (Registry::start(), Registry::start()) else { return };
    let binary = binary();
    let whole = image::index(vec![small(1), small(2)]);
    whole.push(&source.client(), "a", "v1");
    let (signature, attestation, of_child) = (cosign(11), cosign(12), cosign(13));
    let tag = |image: &Image, ending: &str| format!("{}.{ending}", list_tag(image));
    signature.push(&source.client(), "a", &tag(&whole, "sig"));
    attestation.push(&source.client(), "a", &tag(&whole, "att"));
    of_child.push(&source.client(), "a", &tag(&whole.children[1], "sig"));
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    let job = replicated(&binary, &from, &to, &[]);
    assert_eq!(reported(&job, "referrers_pushed"), 2, "{job:#}");
    signature.assert_at(&destination.client(), "b", &tag(&whole, "sig"));
    attestation.assert_at(&destination.client(), "b", &tag(&whole, "att"));
    let target = |ending: &str| format!("/v2/b/manifests/{}", tag(&whole.children[1], ending));
    destination.client().head(&target("sig")).expect(404);
    replicated(&binary, &from, &to, &["--referrers=all"]);
    of_child.assert_at(&destination.client(), "b", &tag(&whole.children[1], "sig"));
    // Signed once more: cosign moves its tag.
    let moved = cosign(14);
    moved.push(&source.client(), "a", &tag(&whole, "sig"));
    let kept = fails(&binary, &from, &to, &["--no-clobber"]);
    assert_failure(&kept, "refused", "survey", 1);
    signature.assert_at(&destination.client(), "b", &tag(&whole, "sig"));
    let (heads, puts) = (destination.count("HEAD", ".att"), destination.count("PUT", "/manifests/"));
    let job = replicated(&binary, &from, &to, &[]);
    assert_eq!((&job["report"]["already_present"], reported(&job, "referrers_pushed")), (&true.into(), 1), "{job:#}");
    moved.assert_at(&destination.client(), "b", &tag(&whole, "sig"));
    assert_eq!((destination.count("HEAD", ".att"), destination.count("PUT", "/manifests/")), (heads + 1, puts + 1));
    assert_eq!(source.count("GET", "/tags/list"), 4, "one for each run");
}

#[test]
fn cosigns_tags_are_asked_for_where_tags_are_not_listed() {
    let (source, destination) = (with_api(), with_api());
    let (image, signature) = (small(1), cosign(2));
    source.put_image("a", "v1", &image);
    source.put_image("a", &format!("{}.sig", list_tag(&image)), &signature);
    source.fault(Matcher::new("GET", "/tags/list").always(), Fault::error(403, "DENIED", "no lists"));
    let job = replicated(&binary(), &source.reference("a", "v1"), &destination.reference("b", "v1"), &[]);
    assert_eq!(reported(&job, "referrers_pushed"), 1, "{job:#}");
    assert_whole(&destination, "b", &format!("{}.sig", list_tag(&image)), &signature);
    let typed = ["--artifact-type", "application/vnd.dev.cosign.simplesigning.v1+json"];
    for (to, options, pushed) in [("c", &typed[..], 1), ("d", &["--artifact-type", SBOM], 0)] {
        let job = replicated(&binary(), &source.reference("a", "v1"), &destination.reference(to, "v1"), options);
        assert_eq!(reported(&job, "referrers_pushed"), pushed, "{job:#}");
    }
}

/// Registries say in many ways that they have no API; none of them keeps an image from being copied.
#[test]
fn no_api_is_no_error() {
    let html = Fault::Status {
        code: 200,
        headers: vec![("content-type".to_owned(), "text/html".to_owned())],
        body: "<html>not here</html>".to_owned(),
    };
    let answers = [
        Fault::status(404),
        Fault::error(404, "NAME_UNKNOWN", "no such thing"),
        Fault::error(405, "UNSUPPORTED", "no"),
        Fault::status(400),
        Fault::status(501),
        html,
    ];
    for answer in answers {
        let scene = Scene::between(Fake::start(), Fake::start());
        let list = list_of(&[&scene.signature]);
        scene.source.put_manifest("a", &list_tag(&scene.image), media::OCI_INDEX, list.manifest.clone());
        scene.source.fault(Matcher::new("GET", "/referrers/").always(), answer.clone());
        scene.destination.fault(Matcher::new("GET", "/referrers/").always(), answer.clone());
        let job = scene.copy(&binary(), &[]);
        assert_eq!(reported(&job, "referrers_pushed"), 1, "{answer:?}: {job:#}");
        assert_eq!(entries_at(&scene.destination, "b", &scene.image), Some(vec![listed(&scene.signature)]));
    }
}

/// What cannot be told is not taken for nothing: the copy fails before anything is sent, and says how to do without.
#[test]
fn a_list_that_is_broken_or_denied_is_an_error_with_a_way_out() {
    let page = |body: String, link: Option<&str>| {
        let mut headers = vec![("content-type".to_owned(), media::OCI_INDEX.to_owned())];
        headers.extend(link.map(|link| ("link".to_owned(), link.to_owned())));
        Fault::Status { code: 200, headers, body }
    };
    let bad_entry = json!({ "manifests": [{ "mediaType": "a/b", "digest": "sha256:00", "size": 2 }] }).to_string();
    for (answer, class) in [
        (page("garbage".to_owned(), None), "refused"),
        (page(bad_entry, None), "refused"),
        (page(json!({ "manifests": [] }).to_string(), Some("<http://evil.example/x>; rel=next")), "refused"),
        (Fault::error(403, "DENIED", "not yours"), "denied"),
        (Fault::EndlessBody { mebibytes: 9 }, "refused"),
    ] {
        let scene = Scene::new();
        scene.source.fault(Matcher::new("GET", "/referrers/").always(), answer.clone());
        let job = fails(&binary(), &scene.from, &scene.to, &[]);
        assert_failure(&job, class, "resolve", 1);
        let message = job["failure"]["message"].as_str().unwrap();
        assert!(message.contains("referrers") && message.contains("--no-referrers"), "{answer:?}: {message}");
        assert_eq!(scene.destination.count("POST", "/") + scene.destination.count("PUT", "/"), 0);
        scene.copy(&binary(), &["--no-referrers"]);
        assert_whole(&scene.destination, "b", "v1", &scene.image);
    }
    // A registry that is down for a moment is asked again.
    let scene = Scene::new();
    scene.source.fault(Matcher::new("GET", "/referrers/").times(2), Fault::status(503));
    assert_eq!(reported(&scene.copy(&binary(), &[]), "referrers_pushed"), 1);
}

#[test]
fn lists_that_go_in_circles_end() {
    let scene = Scene::new();
    let entry = listed(&scene.signature);
    let body = json!({ "schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": [entry, entry] }).to_string();
    let turn = |next: &str| Fault::Status {
        code: 200,
        headers: vec![
            ("content-type".to_owned(), media::OCI_INDEX.to_owned()),
            ("link".to_owned(), format!("<?page={next}>; rel=\"next\"")),
        ],
        body: body.clone(),
    };
    scene.source.fault(Matcher::new("GET", "page=one").always(), turn("two"));
    scene.source.fault(Matcher::new("GET", "/referrers/").always(), turn("one"));
    let job = fails(&binary(), &scene.from, &scene.to, &[]);
    assert_failure(&job, "refused", "resolve", 1);
    assert!(scene.source.count("GET", "/referrers/") <= 100);
    // Everything refers to everything: each once.
    let scene = Scene::new();
    let all =
        json!({ "schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": [entry, scene.image.descriptor()] });
    let headers = vec![("content-type".to_owned(), media::OCI_INDEX.to_owned())];
    scene.source.fault(
        Matcher::new("GET", "/referrers/").always(),
        Fault::Status { code: 200, headers, body: all.to_string() },
    );
    assert_eq!(reported(&scene.copy(&binary(), &[]), "referrers_pushed"), 1);
}

#[test]
fn chains_without_an_end_are_refused() {
    let scene = Scene::new();
    let mut last = scene.signature.clone();
    for seed in 20..30 {
        last = image::artifact(seed, Some(&last));
        hold(&scene.source, "a", &last);
    }
    let job = fails(&binary(), &scene.from, &scene.to, &[]);
    assert_failure(&job, "refused", "resolve", 1);
    assert!(job["failure"]["message"].as_str().unwrap().contains("8 deep"), "{job:#}");
}

/// A signature that is copied by its own name, and an attestation that is listed in an index, refer to something too.
#[test]
fn whatever_refers_to_something_is_put_on_its_list() {
    let (Some(source), Some(destination)) = (Registry::start(), Registry::start()) else { return };
    let (image, binary) = (small(1), binary());
    let (signature, attestation) = (image::artifact(2, Some(&image)), image::artifact(3, Some(&image)));
    let whole = image::index(vec![image.clone(), attestation.clone()]);
    signature.push(&source.client(), "a", "signature");
    whole.push(&source.client(), "a", "v1");
    for options in [&["--no-referrers"][..], &[]] {
        let to = destination.reference("b", "signature");
        let job = replicated(&binary, &source.reference("a", "signature"), &to, options);
        assert_eq!(digests_at(&destination, "b", &image), [signature.digest.as_str()], "{job:#}");
    }
    let job = replicated(&binary, &source.reference("a", "v1"), &destination.reference("b", "v1"), &[]);
    assert_eq!((reported(&job, "referrers_pushed"), reported(&job, "manifests_pushed")), (0, 3), "{job:#}");
    assert_eq!(digests_at(&destination, "b", &image), sorted([signature.digest.clone(), attestation.digest.clone()]));
    whole.assert_at(&destination.client(), "b", "v1");
    // A registry that keeps the list itself gets none.
    let keeps = with_api();
    replicated(&binary, &source.reference("a", "v1"), &keeps.reference("b", "v1"), &[]);
    assert_eq!(keeps.tags("b"), ["v1"]);
}

/// What a list names and is gone, or is about something else, is passed over; wrong content is not.
#[test]
fn lying_lists() {
    let lie = |entries: &[Value]| Fault::Status {
        code: 200,
        headers: vec![("content-type".to_owned(), media::OCI_INDEX.to_owned())],
        body: json!({ "schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": entries }).to_string(),
    };
    let scene = Scene::new();
    let (gone, of_another) = (image::artifact(8, Some(&scene.image)), image::artifact(9, Some(&small(9))));
    hold(&scene.source, "a", &of_another);
    let list = lie(&[listed(&gone), listed(&of_another), listed(&scene.signature)]);
    scene.source.fault(Matcher::new("GET", &format!("/referrers/{}", scene.image.digest)).always(), list);
    let job = scene.copy(&binary(), &[]);
    assert_eq!(reported(&job, "referrers_pushed"), 1, "{job:#}");
    assert!(scene.destination.manifest("b", &of_another.digest).is_none());
    // In the wrong list and in its own: its own counts.
    let scene = Scene::new();
    let second = image::artifact(9, Some(&scene.signature));
    hold(&scene.source, "a", &second);
    let list = lie(&[listed(&second), listed(&scene.signature)]);
    scene.source.fault(Matcher::new("GET", &format!("/referrers/{}", scene.image.digest)).always(), list);
    assert_eq!(reported(&scene.copy(&binary(), &[]), "referrers_pushed"), 2);
    assert_whole(&scene.destination, "b", &second.digest, &second);
    let scene = Scene::new();
    let mut wrong = listed(&scene.signature);
    wrong["size"] = json!(3);
    scene.source.fault(Matcher::new("GET", "/referrers/").times(1), lie(&[wrong]));
    let job = fails(&binary(), &scene.from, &scene.to, &[]);
    assert_failure(&job, "corrupt", "resolve", 1);
    assert_eq!(scene.destination.tags("b"), Vec::<String>::new());
}

#[test]
fn a_list_that_others_change_meanwhile_keeps_what_they_wrote() {
    let scene = Scene::between(with_api(), Fake::start_with(Options { etags: true, ..Options::default() }));
    let (theirs, before) = (image::artifact(31, Some(&scene.image)), image::artifact(32, Some(&scene.image)));
    for referrer in [&theirs, &before] {
        hold(&scene.destination, "b", referrer);
    }
    let put = |referrers: &[&Image]| {
        let list = list_of(referrers);
        scene.destination.put_manifest("b", &list_tag(&scene.image), media::OCI_INDEX, list.manifest);
    };
    put(&[&before]);
    scene.destination.fault(Matcher::new("PUT", "/manifests/sha256-"), Fault::HoldUntil("list".into()));
    let binary = binary();
    let running = binary.spawn(&["replicate", &scene.from, &scene.to]);
    scene.destination.wait_reached("list");
    put(&[&before, &theirs]);
    scene.destination.release("list");
    running.finish().success();
    let entries = entries_at(&scene.destination, "b", &scene.image).unwrap();
    assert_eq!(entries, [listed(&before), listed(&theirs), listed(&scene.signature)]);
    assert_eq!(scene.destination.requests().iter().filter(|request| request.status == Some(412)).count(), 1);
}

#[test]
fn a_list_that_outlived_what_it_names_is_mended_and_what_is_no_list_is_left_alone() {
    if let Some(real) = Registry::start() {
        let (source, image) = (with_api(), small(1));
        let signature = image::artifact(2, Some(&image));
        source.put_image("a", "v1", &image);
        hold(&source, "a", &signature);
        let mut list = list_of(&[&image::artifact(31, Some(&image))]);
        list.children.clear();
        real.seed("b", &list_tag(&image), &list);
        replicated(&binary(), &source.reference("a", "v1"), &real.reference("b", "v1"), &[]);
        assert_eq!(digests_at(&real, "b", &image), [signature.digest.as_str()]);
    }
    let scene = Scene::between(with_api(), Fake::start());
    let collected = image::artifact(31, Some(&scene.image));
    let list = list_of(&[&collected]);
    scene.destination.put_manifest("b", &list_tag(&scene.image), media::OCI_INDEX, list.manifest);
    scene.copy(&binary(), &[]);
    assert_eq!(entries_at(&scene.destination, "b", &scene.image), Some(vec![listed(&scene.signature)]));
    let other = small(77);
    scene.destination.put_image("c", &list_tag(&scene.image), &other);
    let job = fails(&binary(), &scene.from, &scene.destination.reference("c", "v1"), &[]);
    assert_failure(&job, "refused", "publish", 1);
    assert_eq!(scene.destination.digest_of("c", &list_tag(&scene.image)), Some(other.digest));
    assert_eq!(scene.destination.digest_of("c", "v1"), None);
}

#[test]
fn two_copies_at_once_lose_nothing_of_a_list() {
    let (source, destination) = (with_api(), Fake::start());
    let (image, binary) = (small(1), binary());
    let mut all = Vec::new();
    for (number, repository) in ["a", "c", "d", "e"].into_iter().enumerate() {
        let referrer = image::artifact(40 + number as u64, Some(&image));
        source.put_image(repository, "v1", &image);
        hold(&source, repository, &referrer);
        all.push(referrer.digest);
        binary
            .run(&["enqueue", &source.reference(repository, "v1"), &destination.reference("b", repository)])
            .success();
    }
    binary.run(&["work", "--drain", "--concurrency", "4"]).success();
    let entries = entries_at(&destination, "b", &image).unwrap();
    let digests = entries.iter().map(|entry| entry["digest"].as_str().unwrap().to_owned());
    assert_eq!(sorted(digests), sorted(all));
}

#[test]
fn a_registry_with_tokens_and_a_pinned_digest() {
    let bearer = || Fake::start_with(Options { referrers: true, auth: Auth::bearer(), ..Options::default() });
    let scene = Scene::between(bearer(), bearer());
    let pinned = format!("{}/a@{}", scene.source.authority(), scene.image.digest);
    let job = replicated(&binary(), &pinned, &scene.to, &[]);
    assert_eq!(reported(&job, "referrers_pushed"), 1, "{job:#}");
    assert_whole(&scene.destination, "b", &scene.signature.digest, &scene.signature);
    assert_eq!((scene.source.token_requests().len(), scene.destination.token_requests().len()), (1, 1));
    // To a digest, and within one repository, where there is nothing to bring.
    let to = format!("{}/c@{}", scene.destination.authority(), scene.image.digest);
    assert_eq!(reported(&replicated(&binary(), &pinned, &to, &[]), "referrers_pushed"), 1);
    scene.source.clear_requests();
    let same = replicated(&binary(), &scene.from, &scene.source.reference("a", "v2"), &[]);
    assert_eq!((reported(&same, "referrers_pushed"), scene.source.count("GET", "/referrers/")), (0, 0), "{same:#}");
    assert_eq!(scene.source.count("*", "/tags/list"), 0);
}

#[test]
fn a_smaller_index_has_no_signature_and_its_images_may_have() {
    let (source, destination) = (with_api(), with_api());
    let arm = ImageBuilder::oci(2).platform("linux", "arm64", None).layer(100).build();
    let whole = image::index(vec![small(1), arm]);
    let (signature, of_child) = (image::artifact(3, Some(&whole)), image::artifact(4, Some(&whole.children[0])));
    source.put_image("a", "v1", &whole);
    for referrer in [&signature, &of_child, &image::artifact(5, Some(&whole.children[1]))] {
        hold(&source, "a", referrer);
    }
    let smaller = ["--platform", "linux/amd64", "--platform-mode", "rewrite"];
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    for pushed in [1, 0] {
        let job = replicated(&binary(), &from, &to, &[&smaller[..], &["--referrers=all"]].concat());
        assert_eq!(reported(&job, "referrers_pushed"), pushed, "{job:#}");
    }
    assert_whole(&destination, "b", &of_child.digest, &of_child);
    assert!(destination.manifest("b", &signature.digest).is_none());
}

fn layout(folder: &Path, tag: &str) -> String {
    format!("oci:{}:{tag}", folder.display())
}

fn names_in(folder: &Path) -> Vec<String> {
    let index: Value = serde_json::from_slice(&std::fs::read(folder.join("index.json")).unwrap()).unwrap();
    let entries = index["manifests"].as_array().unwrap().iter();
    let name = |entry: &Value| entry["annotations"]["org.opencontainers.image.ref.name"].as_str().map(str::to_owned);
    sorted(entries.filter_map(name))
}

/// The digest that index.json has under a name.
fn digest_in(folder: &Path, name: &str) -> String {
    let index: Value = serde_json::from_slice(&std::fs::read(folder.join("index.json")).unwrap()).unwrap();
    let mut entries = index["manifests"].as_array().unwrap().iter();
    let found = entries.find(|entry| entry["annotations"]["org.opencontainers.image.ref.name"] == name);
    found.unwrap()["digest"].as_str().unwrap().to_owned()
}

#[test]
fn through_a_layout_and_back() {
    let (scene, binary, folder) = (Scene::new(), binary(), tempfile::tempdir().unwrap());
    let (second, tagged) = (image::artifact(3, Some(&scene.signature)), cosign(4));
    hold(&scene.source, "a", &second);
    scene.source.put_image("a", &format!("{}.sig", list_tag(&scene.image)), &tagged);
    let between = layout(folder.path(), "v1");
    let job = replicated(&binary, &scene.from, &between, &[]);
    assert_eq!(reported(&job, "referrers_pushed"), 3, "{job:#}");
    let list = list_tag(&scene.image);
    let expected = [list.clone(), format!("{list}.sig"), list_tag(&scene.signature), "v1".to_owned()];
    assert_eq!(names_in(folder.path()), sorted(expected));
    let index = std::fs::read(folder.path().join("index.json")).unwrap();
    let again = replicated(&binary, &scene.from, &between, &[]);
    assert_eq!((&again["report"]["already_present"], reported(&again, "referrers_pushed")), (&true.into(), 0));
    assert_eq!(std::fs::read(folder.path().join("index.json")).unwrap(), index);
    for (fake, place) in [(with_api(), "c"), (Fake::start(), "d")] {
        let job = replicated(&binary, &between, &fake.reference(place, "v1"), &[]);
        assert_eq!(reported(&job, "referrers_pushed"), 3, "{job:#}");
        for referrer in [&scene.signature, &second] {
            assert_whole(&fake, place, &referrer.digest, referrer);
        }
        assert_whole(&fake, place, &format!("{list}.sig"), &tagged);
        assert_whole(&fake, place, "v1", &scene.image);
    }
    // Its image is still the only one that can be meant.
    let unnamed = format!("oci:{}", folder.path().display());
    let job = replicated(&binary, &unnamed, &scene.destination.reference("e", "v1"), &[]);
    assert_eq!(job["report"]["digest"], scene.image.digest.as_str());
    let other = tempfile::tempdir().unwrap();
    let job = replicated(&binary, &between, &layout(other.path(), "x"), &[]);
    assert_eq!((reported(&job, "referrers_pushed"), reported(&job, "requests")), (3, 0), "{job:#}");
}

#[test]
fn skopeo_reads_a_layout_with_signatures() {
    let Some(skopeo) = Skopeo::find() else { return };
    let (scene, folder) = (Scene::new(), tempfile::tempdir().unwrap());
    let ours = layout(folder.path(), "v1");
    replicated(&binary(), &scene.from, &ours, &[]);
    assert_eq!(skopeo.raw(&ours), scene.image.manifest);
    assert_eq!(skopeo.raw(&layout(folder.path(), &list_tag(&scene.image))), {
        let digest = digest_in(folder.path(), &list_tag(&scene.image));
        std::fs::read(folder.path().join("blobs").join(digest.replace(':', "/"))).unwrap()
    });
}

/// Other tools write referrers as entries of their own, without a name.
#[test]
fn a_layout_of_others_is_read() {
    let (destination, binary, folder) = (with_api(), binary(), tempfile::tempdir().unwrap());
    let image = small(1);
    let (first, second) = (image::artifact(2, Some(&image)), image::artifact_of(SBOM, 3, Some(&image)));
    for (tag, image) in [("v1", &image), ("unnamed", &first), ("sbom", &second)] {
        image.write_layout(folder.path(), tag);
    }
    let path = folder.path().join("index.json");
    let mut index: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    index["manifests"][1].as_object_mut().unwrap().remove("annotations");
    std::fs::write(&path, index.to_string()).unwrap();
    let from = layout(folder.path(), "v1");
    let job = replicated(&binary, &from, &destination.reference("b", "v1"), &[]);
    assert_eq!(reported(&job, "referrers_pushed"), 2, "{job:#}");
    let job = replicated(&binary, &from, &destination.reference("c", "v1"), &["--artifact-type", SBOM]);
    assert_eq!(reported(&job, "referrers_pushed"), 1, "{job:#}");
    assert_whole(&destination, "c", &second.digest, &second);
}

#[test]
fn a_referrer_that_the_destination_does_not_take_says_so() {
    let scene = Scene::new();
    let refuses = Fault::error(400, "MANIFEST_INVALID", "no artifacts here");
    scene.destination.fault(Matcher::new("PUT", &scene.signature.digest).always(), refuses);
    let output = replicate(&binary(), &scene.from, &scene.to, &[]).expect_code(1);
    let message = error_of(&output)["message"].as_str().unwrap().to_owned();
    assert!(message.contains("no artifacts here") && message.contains("--no-referrers"), "{message}");
    assert_eq!(scene.destination.tags("b"), Vec::<String>::new(), "no tag without its signature");
}
