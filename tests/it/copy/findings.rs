//! What a review of the engine found: strange answers, and the requests, tries and bytes that they may cost.

use super::{assert_failure, assert_nothing_published, assert_whole, binary, fails, replicated, reported};
use crate::support::fake::{Auth, Fake, Fault, Matcher, Options};
use crate::support::image::{self, Image, ImageBuilder, media};
use serde_json::{Value, json};

/// Large enough to be asked for by HEAD.
const LARGE: usize = 1_200_000;

fn small() -> Image {
    ImageBuilder::oci(1).layers(2, 3_000).build()
}

/// The whole-request budget of a cold copy.
fn assert_within_budget(job: &Value, layers: u64) {
    let requests = reported(job, "requests");
    assert!(requests <= 4 * layers + 10, "{requests} requests for {layers} layers: {job:#}");
}

#[test]
fn large_layers_and_tokens_on_both_sides_are_within_the_budget() {
    for layers in [1, 5] {
        let bearer = || Fake::start_with(Options { auth: Auth::bearer(), ..Options::default() });
        let (source, destination) = (bearer(), bearer());
        let image = ImageBuilder::oci(layers as u64).layers(layers, LARGE).build();
        source.put_image("a", "v1", &image);
        let job =
            replicated(&binary(), &source.reference("a", "v1"), &destination.reference("b", "v1"), &["--no-referrers"]);
        assert_whole(&destination, "b", "v1", &image);
        assert_within_budget(&job, layers as u64);
        let asked = destination.token_requests();
        assert_eq!(asked.len(), 1, "{asked:#?}");
        assert_eq!(asked[0].scopes, ["repository:b:pull,push"]);
    }
}

#[test]
fn a_preview_asks_for_no_right_to_push() {
    let destination = Fake::start_with(Options { auth: Auth::bearer(), ..Options::default() });
    let source = Fake::start();
    source.put_image("a", "v1", &small());
    binary()
        .run(&["replicate", "--dry-run", &source.reference("a", "v1"), &destination.reference("b", "v1")])
        .success();
    let asked = destination.token_requests();
    assert!(!asked.is_empty() && asked.iter().all(|asked| asked.scopes == ["repository:b:pull"]), "{asked:#?}");
}

#[test]
fn a_destination_that_may_not_be_looked_at_is_written_to() {
    let (source, destination, image) = (Fake::start(), Fake::start(), small());
    source.put_image("a", "v1", &image);
    destination.fault(Matcher::new("HEAD", "/v2/b/manifests/").always(), Fault::error(401, "UNAUTHORIZED", "no pull"));
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    // What must not be clobbered must be seen.
    let job = fails(&binary(), &from, &to, &["--no-clobber"]);
    assert_failure(&job, "denied", "survey", 1);
    assert_nothing_published(&destination, "b");
    replicated(&binary(), &from, &to, &[]);
    assert_whole(&destination, "b", "v1", &image);
}

#[test]
fn large_layers_behind_redirects_are_within_the_budget() {
    let (source, storage, destination) = (Fake::start(), Fake::start(), Fake::start());
    let image = ImageBuilder::oci(1).layers(8, LARGE).build();
    source.put_image("a", "v1", &image);
    storage.put_image("a", "v1", &image);
    source.fault(Matcher::new("GET", "/blobs/").always(), Fault::RedirectTo(storage.base_url()));
    let job =
        replicated(&binary(), &source.reference("a", "v1"), &destination.reference("b", "v1"), &["--no-referrers"]);
    assert_whole(&destination, "b", "v1", &image);
    assert_within_budget(&job, 8);
    assert_eq!(destination.count("HEAD", "/blobs/"), 1, "one answer that it is not there is enough");
}

/// A registry that does not tell by its mounts what it has.
#[test]
fn layers_that_are_there_are_found_by_asking() {
    let source = Fake::start();
    let destination = Fake::start_with(Options { mounts: false, ..Options::default() });
    let image = ImageBuilder::oci(1).layers(6, LARGE).build();
    source.put_image("a", "v1", &image);
    for layer in image.layers() {
        destination.put_blob("b", layer.content.clone());
    }
    let job = replicated(&binary(), &source.reference("a", "v1"), &destination.reference("b", "v1"), &[]);
    assert_eq!((reported(&job, "blobs_present"), reported(&job, "blobs_copied")), (6, 1), "{job:#}");
}

#[test]
fn a_refused_mount_is_not_wished_for_again() {
    let registry = Fake::start();
    let image = ImageBuilder::oci(1).layers(12, 2_000).build();
    registry.put_image("a", "v1", &image);
    registry.fault(Matcher::new("POST", "mount=").always(), Fault::error(400, "UNSUPPORTED", "no mounts here"));
    let job =
        replicated(&binary(), &registry.reference("a", "v1"), &registry.reference("b", "v1"), &["--no-referrers"]);
    assert_whole(&registry, "b", "v1", &image);
    assert_within_budget(&job, 12);
    // However many run at a time: the first one asks for all.
    let (other, own) = (registry.count("POST", "&from=a"), registry.count("POST", "&from=b"));
    assert_eq!((other, own), (1, 1));
}

/// What Distribution 2.8 answers when layers with URLs are not allowed.
fn three_errors() -> Fault {
    let unknown = json!({ "code": "UNKNOWN", "message": "unknown error", "detail": {} });
    let missing = json!({ "code": "MANIFEST_BLOB_UNKNOWN", "message": "blob unknown to registry" });
    let body = json!({ "errors": [unknown, unknown, missing] }).to_string();
    Fault::Status { code: 500, headers: Vec::new(), body }
}

#[test]
fn a_500_that_says_why_is_final() {
    let (source, destination) = (Fake::start(), Fake::start());
    source.put_image("a", "v1", &small());
    destination.fault(Matcher::new("PUT", "/manifests/").always(), three_errors());
    let job = fails(&binary(), &source.reference("a", "v1"), &destination.reference("b", "v1"), &[]);
    assert_failure(&job, "refused", "publish", 1);
    let message = job["failure"]["message"].as_str().unwrap();
    assert!(message.contains("UNKNOWN: unknown error; MANIFEST_BLOB_UNKNOWN: blob unknown"), "{message}");
    assert_eq!(destination.count("PUT", "/manifests/"), 1);
}

#[test]
fn a_500_about_a_layer_with_urls_is_final() {
    let (source, destination) = (Fake::start(), Fake::start());
    let layer = image::Blob::new(
        "application/vnd.oci.image.layer.v1.tar",
        crate::support::content::Algorithm::Sha256,
        vec![7; 900],
    );
    let mut descriptor = layer.descriptor();
    descriptor["urls"] = json!(["https://example.com/layer"]);
    let config =
        image::Blob::new("application/vnd.oci.image.config.v1+json", crate::support::content::Algorithm::Sha256, "{}");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "config": config.descriptor(), "layers": [descriptor],
    });
    source.put_blob("a", layer.content.clone());
    source.put_blob("a", config.content.clone());
    source.put_manifest("a", "v1", media::OCI_MANIFEST, manifest.to_string());
    destination.fault(Matcher::new("PUT", "/manifests/").always(), Fault::error(500, "UNKNOWN", "unknown error"));
    let job = fails(&binary(), &source.reference("a", "v1"), &destination.reference("b", "v1"), &[]);
    assert_failure(&job, "refused", "publish", 1);
    assert!(job["failure"]["message"].as_str().unwrap().contains("allow their URLs"), "{job:#}");
}

#[test]
fn a_500_about_another_schema_version_is_final() {
    let (source, destination) = (Fake::start(), Fake::start());
    let config = source.put_blob("a", "{}");
    let config = json!({ "mediaType": media::OCI_CONFIG, "digest": config, "size": 2 });
    let manifest = json!({ "schemaVersion": 1, "mediaType": media::OCI_MANIFEST, "config": config, "layers": [] });
    source.put_manifest("a", "v1", media::OCI_MANIFEST, manifest.to_string());
    destination.fault(Matcher::new("PUT", "/manifests/").always(), Fault::error(500, "UNKNOWN", "unknown error"));
    let job = fails(&binary(), &source.reference("a", "v1"), &destination.reference("b", "v1"), &[]);
    assert_failure(&job, "refused", "publish", 1);
    assert!(job["failure"]["message"].as_str().unwrap().contains("schema version 2"), "{job:#}");
}

#[test]
fn a_source_that_knows_no_head_is_read() {
    for (status, code) in [(404, "MANIFEST_UNKNOWN"), (400, "UNSUPPORTED"), (403, "DENIED"), (501, "")] {
        let (source, destination, binary, image) = (Fake::start(), Fake::start(), binary(), small());
        source.put_image("a", "v1", &image);
        let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
        replicated(&binary, &from, &to, &[]);
        source.fault(Matcher::new("HEAD", "/manifests/").always(), Fault::error(status, code, "no HEAD"));
        let job = replicated(&binary, &from, &to, &[]);
        assert_eq!(job["report"]["already_present"], true, "{status}: {job:#}");
    }
}

#[test]
fn a_body_without_a_length_that_ends_early_is_read_again() {
    let (source, destination, image) = (Fake::start(), Fake::start(), small());
    source.put_image("a", "v1", &image);
    let layer = &image.layers()[0];
    // Nothing at all, and no Content-Length: only the end says that it is the end.
    source.fault(Matcher::new("GET", &layer.digest).times(2), Fault::EndlessBody { mebibytes: 0 });
    replicated(&binary(), &source.reference("a", "v1"), &destination.reference("b", "v1"), &[]);
    assert_whole(&destination, "b", "v1", &image);
    let other = Fake::start();
    source.fault(Matcher::new("GET", &layer.digest).always(), Fault::EndlessBody { mebibytes: 0 });
    let job = fails(&binary(), &source.reference("a", "v1"), &other.reference("b", "v1"), &["--max-attempts", "1"]);
    assert_eq!(job["failure"]["class"], "retryable", "{job:#}");
    assert_nothing_published(&other, "b");
}

#[test]
fn tries_do_not_multiply() {
    let (source, destination) = (Fake::start(), Fake::start());
    let image = ImageBuilder::oci(1).layers(1, 3_000).build();
    source.put_image("a", "v1", &image);
    let layer = &image.layers()[0];
    source.fault(Matcher::new("GET", &layer.digest).always(), Fault::status(503));
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    fails(&binary(), &from, &to, &["--max-attempts", "1"]);
    assert_eq!(source.count("GET", &layer.digest), 4);
    source.heal();
    destination.fault(Matcher::new("POST", &layer.digest).always(), Fault::status(503));
    fails(&binary(), &from, &to, &["--max-attempts", "1", "--force"]);
    assert_eq!(destination.count("POST", &format!("mount={}", layer.digest)), 4 + 1, "and once in the first copy");
}

#[test]
fn a_manifest_of_a_layout_that_holds_something_else_is_written_again() {
    let (source, folder, binary) = (Fake::start(), tempfile::tempdir().unwrap(), binary());
    let image = ImageBuilder::oci(1).layers(2, 3_000).build();
    source.put_image("a", "v1", &image);
    let to = format!("oci:{}:v1", folder.path().display());
    let file = |digest: &str| folder.path().join("blobs").join(digest.replace(':', "/"));
    replicated(&binary, &source.reference("a", "v1"), &to, &[]);
    // The same sizes, other bytes.
    let damage = |digest: &str| {
        let mut bytes = std::fs::read(file(digest)).unwrap();
        bytes[0] ^= 1;
        std::fs::write(file(digest), bytes).unwrap();
    };
    let layer = &image.layers()[0].digest;
    damage(&image.digest);
    damage(layer);
    let job = replicated(&binary, &source.reference("a", "v1"), &to, &["--force"]);
    assert_eq!((reported(&job, "blobs_copied"), reported(&job, "blobs_present")), (1, 2), "{job:#}");
    assert_eq!(image.layout_differences(folder.path(), "v1"), Vec::<String>::new());
}

#[test]
fn a_strange_entry_of_a_layout_is_in_nobodys_way() {
    let (source, folder, binary) = (Fake::start(), tempfile::tempdir().unwrap(), binary());
    let image = small();
    source.put_image("a", "v1", &image);
    let to = format!("oci:{}:v1", folder.path().display());
    replicated(&binary, &source.reference("a", "v1"), &to, &[]);
    let index = folder.path().join("index.json");
    let strange = r#"{"mediaType":"x/y","digest":"blake3:0011","size":1.0}"#;
    let text = std::fs::read_to_string(&index).unwrap().replace("[{", &format!("[{strange},{{"));
    std::fs::write(&index, text).unwrap();
    let (again, more) = (to.clone(), to.replace(":v1", ":v2"));
    let job = replicated(&binary, &source.reference("a", "v1"), &again, &[]);
    assert_eq!(job["report"]["already_present"], true, "{job:#}");
    replicated(&binary, &source.reference("a", "v1"), &more, &[]);
    let back = Fake::start();
    replicated(&binary, &more, &back.reference("b", "v2"), &[]);
    assert_whole(&back, "b", "v2", &image);
    assert!(std::fs::read_to_string(&index).unwrap().contains(strange));
}

#[test]
fn a_redirected_upload_is_not_final() {
    let (source, destination, image) = (Fake::start(), Fake::start(), small());
    source.put_image("a", "v1", &image);
    let elsewhere = Fault::Status {
        code: 307,
        headers: vec![("location".to_owned(), "/elsewhere".to_owned())],
        body: String::new(),
    };
    destination.fault(Matcher::new("PUT", "/blobs/uploads/"), elsewhere);
    replicated(&binary(), &source.reference("a", "v1"), &destination.reference("b", "v1"), &[]);
    assert_whole(&destination, "b", "v1", &image);
}

#[test]
fn what_leads_elsewhere_is_logged_without_its_path() {
    let (source, storage, destination, image) = (Fake::start(), Fake::start(), Fake::start(), small());
    source.put_image("a", "v1", &image);
    storage.put_image("a", "v1", &image);
    source.fault(Matcher::new("GET", "/blobs/").always(), Fault::RedirectTo(storage.base_url()));
    let warning = vec![("warning".to_owned(), "299 - \"moving out soon\"".to_owned())];
    let moved = Fault::Status { code: 404, headers: warning, body: String::new() };
    destination.fault(Matcher::new("HEAD", "/v2/b/manifests/"), moved);
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    let output = binary().run(&["--log-level", "debug", "replicate", &from, &to]).success();
    let log = output.errors();
    assert!(log.contains("/v2/b/blobs/uploads/"), "our own paths are logged: {log}");
    assert!(!log.contains("/v2/b/blobs/uploads/upload-"), "the path of a Location: {log}");
    let to_storage: Vec<&str> = log.lines().filter(|line| line.contains(&storage.authority())).collect();
    assert!(!to_storage.is_empty() && to_storage.iter().all(|line| !line.contains("/v2/a/blobs")), "{to_storage:#?}");
    assert_eq!(log.matches("moving out soon").count(), 1, "{log}");
}

#[test]
fn a_manifest_whose_content_the_registry_misses_for_a_moment_is_put_again() {
    for code in ["DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN"] {
        let (source, destination, image) = (Fake::start(), Fake::start(), small());
        source.put_image("a", "v1", &image);
        destination.fault(Matcher::new("PUT", "/manifests/"), Fault::error(400, code, "a link was being written"));
        let job = replicated(&binary(), &source.reference("a", "v1"), &destination.reference("b", "v1"), &[]);
        assert_eq!(job["attempt"], 1, "{job:#}");
        assert_whole(&destination, "b", "v1", &image);
        assert_eq!(destination.count("PUT", "/manifests/"), 2);
    }
}

#[test]
fn tags_of_one_repository_share_the_upload_of_their_blobs() {
    let (source, destination, image) = (Fake::start(), Fake::start(), ImageBuilder::oci(1).layers(2, LARGE).build());
    source.put_image("a", "v1", &image);
    let binary = binary();
    for tag in 0..6 {
        binary
            .run(&["enqueue", &source.reference("a", "v1"), &destination.reference("b", &format!("t{tag}"))])
            .success();
    }
    binary.run(&["work", "--drain", "--concurrency", "6"]).success();
    // Two layers and a config.
    assert_eq!(destination.count("PUT", "/blobs/uploads/"), 3);
    for tag in 0..6 {
        assert_whole(&destination, "b", &format!("t{tag}"), &image);
    }
}

#[test]
fn a_ca_file_without_a_certificate_is_found_before_anything_is_asked_for() {
    let binary = binary();
    let file = binary.home().join("junk.pem");
    std::fs::write(&file, "junk").unwrap();
    let output = binary.run(&["--ca-file", file.to_str().unwrap(), "replicate", "a.example/x:1", "b.example/x:1"]);
    let output = output.expect_code(2);
    assert!(output.errors().contains("junk.pem") && output.errors().contains("--ca-file"), "{output}");
    assert_eq!(binary.run(&["jobs", "list", "-o", "json"]).success().json(), json!([]));
}

#[test]
fn what_a_registry_echoes_of_the_password_is_nowhere() {
    let (source, destination, image) = (Fake::start(), Fake::start(), small());
    source.put_image("a", "v1", &image);
    let echoed = "Basic cm9ib3Q6dmVyeS1zZWNyZXQtNDI0Mg==";
    destination.fault(
        Matcher::new("POST", "/blobs/uploads/").always(),
        Fault::error(403, "DENIED", &format!("you sent {echoed} again")),
    );
    let binary = binary();
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    let output = binary.run(&["--log-level", "trace", "replicate", &from, &to]).expect_code(1);
    let job = binary.run(&["jobs", "show", "1", "-o", "json"]).success();
    let secret = echoed.trim_start_matches("Basic ");
    for said in [output.text(), output.errors(), job.text()] {
        assert!(!said.contains(secret), "{said}");
    }
    assert!(output.errors().contains("[hidden]"), "{output}");
}
