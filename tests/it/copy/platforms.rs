//! Choosing platforms: parts of an index, as it is or made smaller.

use super::{assert_failure, assert_nothing_published, assert_whole, binary, fails, replicated, reported};
use crate::support::fake::{Fake, Options};
use crate::support::image::{self, Image, ImageBuilder};
use crate::support::registry::Registry;
use crate::support::skopeo::Skopeo;
use serde_json::{Value, json};

const REWRITE: [&str; 2] = ["--platform-mode", "rewrite"];

fn amd(seed: u64) -> Image {
    ImageBuilder::oci(seed).layer(9_000).layer_from(77, 2_000).build()
}

fn arm(seed: u64) -> Image {
    ImageBuilder::oci(seed).platform("linux", "arm64", Some("v8")).layer(8_000).layer_from(77, 2_000).build()
}

/// A destination that takes an index whose images are not all there.
fn lenient() -> Fake {
    Fake::start_with(Options { verify_manifests: false, ..Options::default() })
}

fn entries(fake: &Fake, repository: &str, tag: &str) -> Vec<Value> {
    let (_, bytes) = fake.manifest(repository, tag).expect("the tag is there");
    let document: Value = serde_json::from_slice(&bytes).unwrap();
    document["manifests"].as_array().cloned().unwrap_or_default()
}

#[test]
fn a_smaller_index_is_made_at_a_real_registry() {
    let (Some(source), Some(destination)) = (Registry::start(), Registry::start()) else { return };
    let (child, binary) = (amd(1), binary());
    for (tag, whole) in [
        ("oci", image::index(vec![child.clone(), arm(2)])),
        ("list", image::docker_list(vec![ImageBuilder::docker(3).layer(10).build(), arm(2)])),
    ] {
        whole.push(&source.client(), "some/thing", tag);
        let (from, to) = (source.reference("some/thing", tag), destination.reference("part", tag));
        let options = [&["--platform", "linux/amd64"], &REWRITE[..]].concat();
        let job = replicated(&binary, &from, &to, &options);
        assert_eq!(job["report"]["rewritten_from"], whole.digest, "{job:#}");
        assert_ne!(job["report"]["digest"], whole.digest);
        assert_eq!(reported(&job, "manifests_pushed"), 2);
        // The same again each time, so that it is known again.
        let again = replicated(&binary, &from, &to, &options);
        assert_eq!(
            (&again["report"]["already_present"], &again["report"]["digest"]),
            (&true.into(), &job["report"]["digest"])
        );
        // Another program finds its image in it, and none for the other platform.
        if let Some(skopeo) = Skopeo::find() {
            let image = format!("docker://{to}");
            let inspect = |architecture: &str| {
                let architecture = format!("--override-arch={architecture}");
                skopeo.run(&["--override-os=linux", &architecture, "inspect", "--tls-verify=false", &image])
            };
            inspect("amd64").success();
            let none = inspect("arm64").expect_code(1);
            assert!(none.errors().contains("no image found"), "{none}");
        }
    }
    child.assert_at(&destination.client(), "part", &child.digest);
}

#[test]
fn an_index_with_gaps_is_refused_where_the_registry_looks_and_that_is_said() {
    let (Some(source), Some(destination)) = (Registry::start(), Registry::start()) else { return };
    let whole = image::index(vec![amd(1), arm(2)]);
    whole.push(&source.client(), "some/thing", "v1");
    let job = fails(
        &binary(),
        &source.reference("some/thing", "v1"),
        &destination.reference("part", "v1"),
        &["--platform", "linux/amd64"],
    );
    assert_failure(&job, "refused", "publish", 1);
    let message = job["failure"]["message"].as_str().unwrap();
    assert!(message.contains("--platform-mode rewrite"), "{message}");
}

#[test]
fn an_index_is_copied_as_it_is_with_the_chosen_images_alone() {
    let (source, destination, binary) = (Fake::start(), lenient(), binary());
    let (first, second) = (amd(1), arm(2));
    let whole = image::index(vec![first.clone(), second.clone()]);
    source.put_image("a", "v1", &whole);
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    let job = replicated(&binary, &from, &to, &["--platform", "linux/amd64"]);
    assert_eq!(job["report"]["digest"], whole.digest);
    assert_eq!(job["report"]["rewritten_from"], Value::Null);
    assert_eq!((reported(&job, "manifests_pushed"), reported(&job, "blobs_copied")), (2, 3));
    assert_eq!(destination.manifest("b", "v1").unwrap().1, whole.manifest);
    assert_whole(&destination, "b", &first.digest, &first);
    assert!(destination.manifest("b", &second.digest).is_none());
    assert_eq!(source.count("GET", &format!("/manifests/{}", second.digest)), 0, "what is not copied is not read");
    // Known again: the index, and the image in it.
    destination.clear_requests();
    let again = replicated(&binary, &from, &to, &["--platform", "linux/amd64"]);
    assert_eq!(again["report"]["already_present"], true);
    assert_eq!(destination.requests().len(), 2, "{:#?}", destination.requests());
    // The index is there, the image for another platform is not.
    let other = replicated(&binary, &from, &to, &["--platform", "linux/arm64/v8", "--platform", "linux/amd64"]);
    assert_eq!(other["report"]["already_present"], false);
    assert_whole(&destination, "b", "v1", &whole);
    // A layout takes it too.
    let folder = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}:x", folder.path().join("layout").display());
    for present in [false, true] {
        let job = replicated(&binary, &from, &layout, &["--platform", "linux/arm64"]);
        assert_eq!(
            (&job["report"]["digest"], &job["report"]["already_present"]),
            (&whole.digest.as_str().into(), &present.into())
        );
    }
}

#[test]
fn a_platform_that_is_not_there_is_an_error_that_lists_what_is() {
    let (source, destination) = (Fake::start(), lenient());
    source.put_image("a", "many", &image::index(vec![amd(1), arm(2)]));
    source.put_image("a", "one", &arm(3));
    source.put_image("a", "chart", &image::artifact(4, None));
    let to = destination.reference("b", "v1");
    for (tag, options, says) in [
        (
            "many",
            &["--platform", "linux/s390x"][..],
            "has no image for linux/s390x: it has linux/amd64, linux/arm64/v8",
        ),
        ("many", &["--platform", "linux/amd64", "--platform", "windows/amd64"], "no image for windows/amd64"),
        ("one", &["--platform", "linux/amd64"], "no image for linux/amd64: it is one image, for linux/arm64/v8"),
    ] {
        let job = fails(&binary(), &source.reference("a", tag), &to, options);
        assert_failure(&job, "absent", "resolve", 1);
        let message = job["failure"]["message"].as_str().unwrap();
        assert!(message.contains(says), "{message}");
    }
    assert_nothing_published(&destination, "b");
    // An image alone for the right platform, and what has no platform at all, go over whole.
    for tag in ["one", "chart"] {
        let job = replicated(&binary(), &source.reference("a", tag), &to, &["--platform", "linux/arm64"]);
        assert_eq!(job["report"]["digest"].as_str(), source.digest_of("a", tag).as_deref());
    }
}

#[test]
fn a_row_asks_for_platforms_and_a_dry_run_counts_them() {
    let (source, destination, binary) = (Fake::start(), lenient(), binary());
    let whole = image::index(vec![amd(1), arm(2)]);
    source.put_image("a", "v1", &whole);
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    let preview =
        binary.run(&["-o", "json", "replicate", &from, &to, "--dry-run", "--platform", "linux/arm64"]).success().json();
    assert_eq!((&preview["manifests"], &preview["blobs"]), (&2.into(), &3.into()), "{preview:#}");
    let line = json!({ "source": from, "destination": to,
        "options": { "platforms": ["linux/arm64"], "platform_mode": "rewrite" } });
    binary.run_with_input(&["enqueue", "--from-file", "-"], line.to_string().as_bytes()).success();
    binary.run(&["work", "--drain"]).success();
    assert_eq!(entries(&destination, "b", "v1").len(), 1);
    let shown = binary.run(&["jobs", "show", "1"]).success().text();
    assert!(shown.contains(&whole.digest), "{shown}");
    // A mode without platforms is a slip.
    binary.run(&["enqueue", &from, &to, "--platform-mode", "rewrite"]).expect_code(2);
    let wrong = binary.run(&["enqueue", &from, &to, "--platform", "linux"]).expect_code(2);
    assert!(wrong.errors().contains("OS/ARCH"), "{wrong}");
}
