//! What registries do differently, as a table: each profile against a fake that behaves like the registry it is of. What the
//! table says is needed is shown by what happens without it.
//!
//! The ceilings and what is left of an allowance are told in numbers beside the code (`registry::pacing`); here only that a
//! copy keeps to them.

use super::{assert_failure, assert_whole, binary, error_of};
use crate::support::binary::{Binary, Output};
use crate::support::content::Content;
use crate::support::eventually;
use crate::support::fake::{Auth, Fake, Fault, IMMUTABLE_AT_ECR, IMMUTABLE_AT_HARBOR, Matcher, Options, Quirks};
use crate::support::image::{self, Image, ImageBuilder, media};
use freightliner::clock::Clock;
use freightliner::registry::profile::NAMES;
use serde_json::Value;
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// More than one chunk of every registry, and more than ACR takes in one request.
const LAYER: u64 = 34 * MIB;

/// A source that is like any other, a destination that is like one of the table, and what is said of it in the configuration.
struct Scene {
    source: Fake,
    destination: Fake,
    binary: Binary,
    folder: tempfile::TempDir,
}

impl Scene {
    /// The destination behaves like the registry of this profile, and nobody has said that it does.
    fn unsaid(options: Options) -> Self {
        let source = Fake::start_with(Options { referrers: true, ..Options::default() });
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.toml"), "").unwrap();
        Self { source, destination: Fake::start_with(options), binary: binary(), folder }
    }

    /// It behaves like the registry of this profile, and the configuration names that.
    fn of(profile: &str) -> Self {
        Self::with(profile, Options::like(profile))
    }

    /// The same with other habits.
    fn with(profile: &str, options: Options) -> Self {
        Self::unsaid(options).said(&format!("profile = \"{profile}\""))
    }

    /// The configuration says this of the destination.
    fn said(self, lines: &str) -> Self {
        let section = format!("[registries.\"{}\"]\n{lines}\n", self.destination.authority());
        std::fs::write(self.folder.path().join("config.toml"), section).unwrap();
        self
    }

    fn run(&self, words: &[&str]) -> Output {
        let file = self.folder.path().join("config.toml");
        self.binary.run(&[&["--config", file.to_str().unwrap(), "-o", "json"], words].concat())
    }

    /// Copies `a:v1` of the source to this repository.
    fn try_copy(&self, to: &str, more: &[&str]) -> Output {
        let (from, to) = (self.source.reference("a", "v1"), self.destination.reference(to, "v1"));
        self.run(&[&["replicate", &from, &to, "--max-attempts", "1"], more].concat())
    }

    fn copy(&self, to: &str, image: &Image, more: &[&str]) -> Value {
        self.source.put_image("a", "v1", image);
        let job = self.try_copy(to, more).success().json();
        assert_whole(&self.destination, to, "v1", image);
        job
    }

    /// A copy that fails for good: the job.
    fn refused(&self, to: &str, image: &Image, more: &[&str]) -> Value {
        self.source.put_image("a", "v1", image);
        let output = self.try_copy(to, more).expect_code(1);
        assert!(!error_of(&output)["message"].as_str().unwrap().is_empty(), "{output}");
        output.json()
    }

    fn sent(&self) -> (usize, usize) {
        (self.destination.count("PATCH", "/blobs/uploads/"), self.destination.count("PUT", "/blobs/uploads/"))
    }
}

fn message(job: &Value) -> &str {
    job["failure"]["message"].as_str().unwrap()
}

fn small(seed: u64) -> Image {
    ImageBuilder::oci(seed).layer(2_000).build()
}

fn large(seed: u64) -> Image {
    ImageBuilder::oci(seed).raw_layer(media::OCI_LAYER, Content::seeded(seed, LAYER)).build()
}

/// Requests that the fake did not like, but for questions whose answer is that there is nothing.
fn disliked(fake: &Fake) -> Vec<String> {
    let asks = |method: &str, path: &str| {
        method == "HEAD" || path.contains("/manifests/sha256-") || path.contains("/referrers/")
    };
    let refused = fake.requests().into_iter().filter(|request| request.status.is_none_or(|status| status >= 400));
    let refused = refused.filter(|request| request.status != Some(404) || !asks(&request.method, &request.path));
    refused.map(|request| format!("{} {} {:?}", request.method, request.path, request.status)).collect()
}

/// How many PATCH requests a layer of 34 MiB takes before its last bytes go up with the PUT.
const CHUNKS: [(&str, usize); 11] = [
    ("acr", 8),
    ("distribution", 1),
    ("docker-hub", 1),
    ("ecr", 3),
    ("ecr-public", 3),
    ("gar", 0),
    ("generic", 1),
    ("ghcr", 0),
    ("harbor", 1),
    ("quay", 1),
    ("zot", 1),
];

#[test]
fn every_registry_of_the_table_gets_an_image_and_its_signature_without_a_wrong_request() {
    assert_eq!(CHUNKS.map(|(name, _)| name), NAMES);
    for (name, chunks) in CHUNKS {
        let scene = Scene::of(name);
        let whole = image::index(vec![large(1), small(2)]);
        let signature = image::artifact(3, Some(&whole));
        for blob in signature.all_blobs() {
            scene.source.put_blob("a", blob.content.clone());
        }
        scene.source.put_manifest("a", &signature.digest, &signature.media_type, signature.manifest.clone());
        let job = scene.copy("b", &whole, &[]);
        assert_whole(&scene.destination, "b", &signature.digest, &signature);
        assert_eq!(disliked(&scene.destination), Vec::<String>::new(), "{name}");
        // Four blobs of the images, and two of the signature.
        assert_eq!(scene.sent(), (chunks, 4 + 2), "{name}: {job:#}");
        for patch in scene.destination.requests().iter().filter(|request| request.method == "PATCH") {
            assert!(patch.header("content-range").is_some_and(|range| !range.contains(' ')), "{name}: {patch:?}");
        }
        // A second time nothing is sent, and nothing is written.
        scene.destination.clear_requests();
        let again = scene.try_copy("b", &[]).success().json();
        assert_eq!(again["report"]["already_present"], true, "{name}: {again:#}");
        let methods = ["POST", "PATCH", "PUT", "DELETE"].map(|method| scene.destination.count(method, "/"));
        assert_eq!(methods, [0; 4], "{name}");
    }
}

/// The fakes are what they are said to be: who does not know of it fails, with the registry's own words.
#[test]
fn without_its_profile_a_registry_refuses() {
    for (name, words) in [
        ("ghcr", "DIGEST_INVALID"),
        ("gar", "chunked uploads are not supported"),
        ("ecr", "SIZE_INVALID"),
        ("acr", "single_put_limit_bytes"),
    ] {
        let scene = Scene::with("generic", Options::like(name));
        let job = scene.refused("b", &large(1), &["--no-referrers"]);
        assert!(message(&job).contains(words), "{name}: {job:#}");
        assert_eq!(scene.destination.tags("b"), Vec::<String>::new());
    }
    // Harbor's and zot's storage is like any other, and Quay's and Docker Hub's differ in what they mount.
    let scene = Scene::with("generic", Options::like("ecr-public"));
    let job =
        scene.refused("b", &ImageBuilder::oci(1).layers(2, 100).without_media_type().build(), &["--no-referrers"]);
    assert!(message(&job).contains("which some registries want"), "{job:#}");
}

/// Its answers to a PATCH say nothing of what it has, so what was cut begins anew, and in the end all of it is right.
#[test]
fn ecr_does_not_go_on_with_an_upload() {
    let scene = Scene::of("ecr");
    scene.source.put_image("a", "v1", &large(1));
    scene.destination.fault(Matcher::new("PATCH", "/blobs/uploads/").after(2), Fault::CutUploadAfter(MIB));
    let job = scene.try_copy("b", &["--no-referrers"]).success().json();
    scene.destination.assert_holds("b", "v1", &large(1));
    assert_eq!((&job["attempt"], &job["report"]["blobs_resumed"]), (&1.into(), &0.into()), "{job:#}");
    assert_eq!(scene.destination.count("GET", "/blobs/uploads/"), 0, "its answer is not to be relied on");
    assert_eq!(scene.sent().0, 3 + 3);
}

#[test]
fn a_blob_that_would_need_too_many_parts_goes_up_in_one() {
    let parts = |lines: &str| {
        let scene = Scene::unsaid(Options::like("generic")).said(lines);
        scene.copy("b", &large(1), &["--no-referrers"]);
        let patches = scene.destination.requests().into_iter().filter(|request| request.method == "PATCH");
        patches.map(|request| request.body_bytes).collect::<Vec<u64>>()
    };
    // ECR takes no larger ones.
    assert_eq!(parts("profile = \"ecr\"\nmax_parts = 3"), Vec::<u64>::new());
    assert_eq!(parts("profile = \"ecr\"\nmax_parts = 4"), [10 * MIB; 3]);
    let third = LAYER.div_ceil(3);
    assert_eq!(parts(&format!("chunk_bytes = {}\nmax_parts = 3", 4 * MIB)), [third; 2]);
    assert_eq!(parts("profile = \"ecr\"\nchunked = false"), Vec::<u64>::new());
}

/// What a registry does not take in one request is refused before it is sent, where it cannot be divided.
#[test]
fn a_blob_that_is_too_large_for_the_registry_is_not_sent() {
    let scene = Scene::of("acr").said("profile = \"acr\"\nchunked = false");
    let job = scene.refused("b", &large(1), &["--no-referrers"]);
    assert_failure(&job, "refused", "transfer", 1);
    for words in ["20000000", "single_put_limit_bytes", &scene.destination.authority(), &large(1).layers()[0].digest] {
        assert!(message(&job).contains(words), "{words}: {job:#}");
    }
    let bytes: u64 = scene.destination.requests().iter().map(|request| request.body_bytes).sum();
    assert!(bytes < MIB, "{bytes}");
    assert_eq!(scene.destination.tags("b"), Vec::<String>::new());
    // What is below it goes up in one, and what can be divided, in pieces that are below it too.
    let fits = ImageBuilder::oci(1).raw_layer(media::OCI_LAYER, Content::seeded(1, 19_000_000)).build();
    scene.copy("c", &fits, &["--no-referrers"]);
    let quirks = Quirks { body_limit: Some(6 * MIB), ..Quirks::default() };
    let limited =
        Scene::unsaid(Options { quirks, ..Options::default() }).said(&format!("single_put_limit_bytes = {}", 6 * MIB));
    limited.copy("b", &large(1), &["--no-referrers"]);
    assert_eq!((limited.sent().0, disliked(&limited.destination)), (5, Vec::new()));
}

/// What a client that goes on after a reset is told there.
#[test]
fn a_dead_upload_at_acr_begins_anew() {
    let scene = Scene::of("acr");
    scene.source.put_image("a", "v1", &large(1));
    scene.destination.fault(Matcher::new("PATCH", "/blobs/uploads/").after(3), Fault::CutUploadAfter(MIB));
    let job = scene.try_copy("b", &["--no-referrers"]).success().json();
    assert_whole(&scene.destination, "b", "v1", &large(1));
    assert_eq!((&job["attempt"], &job["report"]["blobs_resumed"]), (&1.into(), &0.into()), "{job:#}");
    assert_eq!((scene.destination.count("GET", "/blobs/uploads/"), scene.sent().0), (1, 4 + 8));
}

/// The same cut at a registry that can go on.
#[test]
fn the_others_go_on_where_an_upload_was_cut() {
    for name in ["distribution", "docker-hub", "generic", "harbor", "quay", "zot"] {
        let scene = Scene::of(name);
        scene.source.put_image("a", "v1", &large(1));
        // The PUT with the rest behind the chunk; the configuration has gone up before.
        let layer = large(1).layers()[0].digest.clone();
        scene.destination.fault(Matcher::new("PUT", &layer), Fault::CutUploadAfter(MIB));
        let job = scene.try_copy("b", &["--no-referrers"]).success().json();
        assert_whole(&scene.destination, "b", "v1", &large(1));
        assert_eq!(job["report"]["blobs_resumed"], 1, "{name}: {job:#}");
        assert_eq!((scene.destination.count("GET", "/blobs/uploads/"), scene.sent().0), (1, 1), "{name}");
    }
}

/// An image that is there under its tag is one, however immutable the tag is; another is not written over it.
#[test]
fn immutable_tags_keep_what_they_name() {
    for (name, words) in [("ecr", &IMMUTABLE_AT_ECR), ("harbor", &IMMUTABLE_AT_HARBOR)] {
        let scene = Scene::of(name);
        scene.copy("b", &small(1), &[]);
        let again = scene.copy("b", &small(1), &["--force"]);
        assert_eq!(again["report"]["already_present"], false, "{again:#}");
        let job = scene.refused("b", &small(2), &[]);
        assert_failure(&job, "refused", "publish", 1);
        for part in [words.code, &small(1).digest, &small(2).digest, "copy to another tag"] {
            assert!(message(&job).contains(part), "{part}: {job:#}");
        }
        assert_eq!(scene.destination.digest_of("b", "v1"), Some(small(1).digest));
    }
}

/// Somebody else was faster with the same image.
#[test]
fn an_immutable_tag_that_another_has_written_meanwhile_is_no_error() {
    let scene = Scene::of("ecr");
    scene.source.put_image("a", "v1", &small(1));
    scene.destination.fault(Matcher::new("PUT", "/manifests/v1"), Fault::HoldUntil("tag".into()));
    let (from, to) = (scene.source.reference("a", "v1"), scene.destination.reference("b", "v1"));
    let file = scene.folder.path().join("config.toml");
    let mut running = scene.binary.spawn(&["--config", file.to_str().unwrap(), "replicate", &from, &to]);
    scene.destination.wait_reached("tag");
    scene.destination.put_image("b", "v1", &small(1));
    scene.destination.release("tag");
    running.wait(crate::support::PATIENCE).success();
}

#[test]
fn a_repository_that_has_to_be_made_first_is_named() {
    let quirks = Quirks { only_repository: Some("made".into()), ..Options::like("ecr").quirks };
    let scene = Scene::with("ecr", Options { quirks, ..Options::like("ecr") });
    scene.copy("made", &small(1), &[]);
    let job = scene.refused("forgotten", &small(1), &[]);
    assert_failure(&job, "absent", "transfer", 1);
    assert!(message(&job).contains("repository with name 'forgotten' does not exist"), "{job:#}");
}

/// Both without an error in between, and without a wish that cannot be granted.
#[test]
fn mounts_are_wished_for_only_where_they_are_granted() {
    let shared = |seed| ImageBuilder::oci(seed).layer_from(900, 1_500_000).layer_from(seed, 100).build();
    for (name, mounted) in [("docker-hub", [1, 0]), ("quay", [1, 1]), ("generic", [1, 1]), ("ecr", [1, 1])] {
        let scene = Scene::of(name);
        scene.copy("team/one", &shared(1), &["--no-referrers"]);
        for (to, seed, expected) in [("team/two", 2, mounted[0]), ("other/three", 3, mounted[1])] {
            let job = scene.copy(to, &shared(seed), &["--no-referrers"]);
            assert_eq!(job["report"]["blobs_mounted"], expected, "{name} {to}: {job:#}");
        }
        assert_eq!(disliked(&scene.destination), Vec::<String>::new(), "{name}");
        let wishes = scene.destination.requests().into_iter().filter(|request| request.path.contains("mount="));
        assert!(wishes.map(|wish| wish.path).all(|path| path.contains("&from=")), "{name}");
    }
    // Who does not know it is denied once for two repositories, and sends the blob.
    let unknown = Scene::with("generic", Options::like("docker-hub"));
    for (to, seed) in [("team/one", 1), ("other/three", 3)] {
        unknown.copy(to, &shared(seed), &["--no-referrers"]);
    }
    assert_eq!(disliked(&unknown.destination).len(), 1, "{:#?}", disliked(&unknown.destination));
    let none = Scene::of("generic").said("mount = \"no\"");
    none.copy("team/one", &shared(1), &["--no-referrers"]);
    assert_eq!(none.destination.count("POST", "mount="), 0);
}

/// Manifests go up unasked only where the registry is known to look at what they name.
#[test]
fn what_was_seen_is_believed_where_the_registry_checks_it() {
    for name in NAMES {
        let scene = Scene::of(name);
        scene.copy("b", &small(1), &["--no-referrers"]);
        scene.destination.clear_requests();
        scene.source.put_image("a", "v2", &small(1));
        let (from, to) = (scene.source.reference("a", "v2"), scene.destination.reference("b", "v2"));
        scene.run(&["replicate", "--no-referrers", &from, &to]).success();
        let expected = if ["distribution", "docker-hub"].contains(&name) { 0 } else { 2 };
        assert_eq!(scene.destination.count("POST", "/blobs/uploads/"), expected, "{name}");
        assert_eq!(scene.destination.count("PUT", "/manifests/"), 1, "{name}");
    }
}

/// Fetched manifests are counted there, HEAD is not, and neither are blobs.
#[test]
fn what_docker_hub_counts_is_spared() {
    let quirks = Quirks {
        headers: vec![("ratelimit-limit", "100;w=21600".into()), ("ratelimit-remaining", "2;w=21600".into())],
        ..Quirks::default()
    };
    let scene = Scene::with("docker-hub", Options { quirks, ..Options::default() });
    let (hub, other) = (&scene.destination, &scene.source);
    for (seed, tag) in [(1, "v1"), (2, "v2"), (3, "v3")] {
        hub.put_image("a", tag, &small(seed));
        scene.run(&["enqueue", "--no-referrers", &hub.reference("a", tag), &other.reference("b", tag)]).success();
    }
    // This one is there already, which HEAD tells.
    other.put_image("b", "v3", &small(3));
    let file = scene.folder.path().join("config.toml");
    let mut worker = scene.binary.spawn(&["--config", file.to_str().unwrap(), "work", "--concurrency", "1"]);
    let state = |id: &str| scene.run(&["jobs", "show", id]).success().json();
    eventually("the last to be done", || (state("3")["state"] == "completed").then_some(()));
    let (first, second) = (state("1"), state("2"));
    // The answer to the first says how little is left; what a copy needs beside the manifest is free.
    assert_eq!((&first["state"], hub.count("GET", "/blobs/")), (&"completed".into(), 2), "{first:#}");
    assert_eq!((hub.count("GET", "/manifests/"), hub.count("HEAD", "/manifests/")), (1, 1), "{:#?}", hub.requests());
    // The second gives its place up until there is more, and nothing was asked.
    assert_eq!((&second["state"], &second["attempt"]), (&"scheduled".into(), &1.into()), "{second:#}");
    assert!(message(&second).contains("asked for a pause") && message(&second).contains("manifest_read"), "{second:#}");
    worker.sigterm();
    worker.wait(crate::support::PATIENCE).success();
}

/// All requests are counted together at one, and what is written is not counted at the other.
#[test]
fn whose_requests_are_counted_is_known() {
    let used_up = vec![("x-ratelimit-remaining", "0".to_owned()), ("x-ratelimit-reset", "3600".to_owned())];
    let scene = |profile: &str| {
        let quirks = Quirks { headers: used_up.clone(), ..Quirks::default() };
        Scene::with(profile, Options { quirks, ..Options::default() })
    };
    let ghcr = scene("ghcr");
    let job = ghcr.refused("b", &small(1), &["--no-referrers"]);
    assert!(message(&job).contains("asked for a pause"), "{job:#}");
    assert_eq!(ghcr.destination.requests().len(), 1, "{:#?}", ghcr.destination.requests());
    scene("docker-hub").copy("b", &small(1), &["--no-referrers"]);
}

/// So many in a second, whatever the line would give.
#[test]
fn documented_ceilings_are_kept() {
    let index = |count: u64| image::index((1..=count).map(small).collect());
    let time = |scene: &Scene| {
        let begun = Clock::System.boot();
        scene.copy("b", &index(14), &["--no-referrers"]);
        Clock::System.boot().since(begun)
    };
    // Fifteen manifests at ten a second, of which two may come at once; at ECR Public the uploads begin as slowly.
    assert!(time(&Scene::of("ecr")) > Duration::from_millis(1_200));
    assert!(time(&Scene::of("ecr-public")) > Duration::from_millis(2_500));
    let slower = Scene::of("ecr").said("profile = \"ecr\"\nrequests_per_sec = { manifest_write = 5 }");
    assert!(time(&slower) > Duration::from_millis(2_500));
}

/// Who says what it is in passing is known from then on, without a word in the configuration.
#[test]
fn registries_are_recognised_while_they_are_used() {
    let acr = Scene::unsaid(Options::like("acr"));
    acr.copy("b", &large(1), &["--no-referrers"]);
    assert_eq!((acr.sent().0, disliked(&acr.destination)), (8, Vec::new()));
    // Its storage looks like Distribution, which would be believed to check what manifests name.
    for (options, posts) in [
        (Options { auth: Auth::bearer(), ..Options::like("harbor") }, 2),
        (Options::like("distribution"), 0),
        (Options { auth: Auth::bearer(), ..Options::like("distribution") }, 0),
    ] {
        let scene = Scene::unsaid(options);
        scene.copy("b", &small(1), &["--no-referrers"]);
        scene.destination.clear_requests();
        scene.source.put_image("a", "v2", &small(1));
        let (from, to) = (scene.source.reference("a", "v2"), scene.destination.reference("b", "v2"));
        scene.run(&["replicate", "--no-referrers", &from, &to]).success();
        assert_eq!(scene.destination.count("POST", "/blobs/uploads/"), posts, "{:#?}", scene.destination.requests());
    }
}

/// Both repositories in one process: a token for one of them is not shown for the other.
#[test]
fn a_registry_that_denies_tokens_of_other_scopes_sees_none() {
    let quirks = Quirks { denies_other_scopes: true, ..Quirks::default() };
    let scene = Scene::unsaid(Options { auth: Auth::bearer(), quirks, ..Options::default() });
    for (number, to) in ["b", "c", "d/e"].into_iter().enumerate() {
        let tag = format!("v{number}");
        scene.source.put_image("a", &tag, &small(number as u64));
        scene.run(&["enqueue", &scene.source.reference("a", &tag), &scene.destination.reference(to, "v1")]).success();
    }
    scene.run(&["work", "--drain", "--concurrency", "1"]).success();
    let denied = scene.destination.requests().into_iter().filter(|request| request.status == Some(403)).count();
    assert_eq!(denied, 0);
    for (number, to) in ["b", "c", "d/e"].into_iter().enumerate() {
        assert_whole(&scene.destination, to, "v1", &small(number as u64));
    }
}

/// Holds a referrer by its digest.
fn hold(fake: &Fake, repository: &str, referrer: &Image) {
    for blob in referrer.all_blobs() {
        fake.put_blob(repository, blob.content.clone());
    }
    fake.put_manifest(repository, &referrer.digest, &referrer.media_type, referrer.manifest.clone());
}

/// A 404 is what the specification wants of a registry without the API, and what some with it say of an image that they do
/// not have.
#[test]
fn a_registry_that_has_the_referrers_api_keeps_it() {
    let unknown = Fault::error(404, "MANIFEST_UNKNOWN", "manifest unknown");
    let cases = [("ecr", 0), ("acr", 0), ("harbor", 0), ("zot", 0)]
        .map(|(profile, lists)| (profile, lists, Fault::status(404)));
    // Of one that is not known to have it, the reason must say that.
    for (profile, lists_read, answer) in cases.into_iter().chain([("generic", 1, unknown)]) {
        let like = Options::like(if profile == "generic" { "zot" } else { profile });
        let quirks = Quirks { referrers_need_subject: true, ..like.quirks.clone() };
        let scene = Scene::with(profile, Options { quirks, ..like });
        let signature = image::artifact(3, Some(&small(1)));
        hold(&scene.source, "a", &signature);
        scene.copy("b", &small(1), &[]);
        assert_whole(&scene.destination, "b", &signature.digest, &signature);
        // The image was not there when it was asked what refers to it.
        let lists = scene.destination.count("GET", "/manifests/sha256-");
        assert_eq!((scene.destination.count("GET", "/referrers/"), lists), (1, lists_read), "{profile}");
        // The same registry as a source, in one process: what it said of one image is not held against the other.
        let later = image::artifact(4, Some(&small(2)));
        scene.destination.put_image("c", "v1", &small(1));
        scene.destination.put_image("c", "v2", &small(2));
        hold(&scene.destination, "c", &later);
        let first = format!("/referrers/{}", small(1).digest);
        scene.destination.fault(Matcher::new("GET", &first), answer);
        for tag in ["v1", "v2"] {
            scene
                .run(&["enqueue", &scene.destination.reference("c", tag), &scene.source.reference("d", tag)])
                .success();
        }
        scene.run(&["work", "--drain", "--concurrency", "1"]).success();
        assert!(scene.source.manifest("d", &later.digest).is_some(), "{profile}");
    }
}

/// Lists that come in pages at both ends.
#[test]
fn referrers_at_ecr_come_in_pages() {
    let scene = Scene::of("ecr");
    let signatures: Vec<Image> = (3..8).map(|seed| image::artifact(seed, Some(&small(1)))).collect();
    signatures.iter().for_each(|signature| hold(&scene.source, "a", signature));
    let job = scene.copy("b", &small(1), &[]);
    assert_eq!(job["report"]["referrers_pushed"], 5, "{job:#}");
    scene.destination.clear_requests();
    let again = scene.try_copy("b", &[]).success().json();
    assert_eq!(again["report"]["referrers_pushed"], 0, "{again:#}");
    assert_eq!(scene.destination.count("GET", "/referrers/"), 3, "two at a time");
}

/// Only the configuration says that a registry has no API; then nothing is asked of it.
#[test]
fn a_registry_that_is_said_to_have_no_referrers_api_is_not_asked() {
    let scene = Scene::unsaid(Options::default()).said("referrers_api = false");
    let signature = image::artifact(3, Some(&small(1)));
    hold(&scene.source, "a", &signature);
    scene.copy("b", &small(1), &[]);
    let list = small(1).digest.replace(':', "-");
    assert!(scene.destination.manifest("b", &list).is_some(), "the list is under its tag");
    assert_eq!(scene.destination.count("GET", "/referrers/"), 0);
    // And the way back.
    let (from, to) = (scene.destination.reference("b", "v1"), scene.source.reference("c", "v1"));
    let job = scene.run(&["replicate", &from, &to]).success().json();
    assert_eq!(job["report"]["referrers_pushed"], 1, "{job:#}");
    assert_eq!((scene.destination.count("GET", "/referrers/"), scene.destination.count("GET", "/tags/list")), (0, 1));
}
