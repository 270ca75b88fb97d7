//! OCI image layouts as source and as destination; skopeo reads ours and we read skopeo's.

use super::shapes::shapes;
use super::{assert_failure, binary, fails, replicated, reported};
use crate::support::eventually;
use crate::support::fake::{Fake, Fault, Matcher};
use crate::support::image::ImageBuilder;
use crate::support::registry::Registry;
use crate::support::skopeo::Skopeo;
use std::path::{Path, PathBuf};

/// `oci:FOLDER:TAG`
fn layout(folder: &Path, tag: &str) -> String {
    format!("oci:{}:{tag}", folder.display())
}

/// Everything in a folder, relative to it, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(folder).expect("below it").to_owned());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn every_kind_of_image_goes_through_a_layout_and_back() {
    let (Some(source), Some(destination)) = (Registry::start(), Registry::start()) else {
        return;
    };
    let (binary, folder) = (binary(), tempfile::tempdir().unwrap());
    for (name, image) in shapes() {
        source.seed("app", name, &image);
        let between = layout(folder.path(), name);
        let job = replicated(&binary, &source.reference("app", name), &between, &[]);
        assert_eq!(job["report"]["digest"], image.digest.as_str());
        assert_eq!(image.layout_differences(folder.path(), name), Vec::<String>::new(), "{name}");
        replicated(&binary, &between, &destination.reference("app", name), &[]);
        image.assert_at(&destination.client(), "app", name);
    }
    // Later images did not disturb earlier ones.
    for (name, image) in shapes() {
        assert_eq!(image.layout_differences(folder.path(), name), Vec::<String>::new(), "{name}");
    }
    let stray = files(folder.path()).into_iter().filter(|path| !path.starts_with("blobs"));
    assert_eq!(stray.collect::<Vec<_>>(), [PathBuf::from("index.json"), PathBuf::from("oci-layout")]);
}

#[test]
fn skopeo_reads_a_layout_of_ours() {
    let Some(skopeo) = Skopeo::find() else { return };
    let (source, binary, folder) = (Fake::start(), binary(), tempfile::tempdir().unwrap());
    for (name, image) in shapes() {
        source.put_image("app", name, &image);
        // Older skopeos find only OCI media types by name, but every one when it is the only image of a layout.
        let alone = tempfile::tempdir().unwrap();
        let is_docker = image.media_type.contains("docker");
        let (ours, as_read) = if is_docker {
            (layout(alone.path(), name), format!("oci:{}", alone.path().display()))
        } else {
            (layout(folder.path(), name), layout(folder.path(), name))
        };
        replicated(&binary, &source.reference("app", name), &ours, &[]);
        assert_eq!(skopeo.raw(&as_read), image.manifest, "{name}");
        if ["oci", "docker", "index", "list", "without-media-type"].contains(&name) {
            let other = tempfile::tempdir().unwrap();
            skopeo.copy(&as_read, &format!("dir:{}", other.path().display()), &[]).success();
        }
    }
}

#[test]
fn we_read_a_layout_of_skopeos() {
    let (Some(registry), Some(skopeo)) = (Registry::start(), Skopeo::find()) else {
        return;
    };
    let (binary, folder) = (binary(), tempfile::tempdir().unwrap());
    for (name, image) in shapes() {
        if !["oci", "docker", "index", "list", "artifact"].contains(&name) {
            continue;
        }
        registry.seed("app", name, &image);
        let theirs = layout(folder.path(), name);
        let copied = skopeo.copy(&format!("docker://{}", registry.reference("app", name)), &theirs, &[]);
        // An OCI layout is no place for Docker's media types, says skopeo: it may refuse to keep the digest.
        if copied.code() != Some(0) && ["docker", "list"].contains(&name) {
            continue;
        }
        copied.success();
        replicated(&binary, &theirs, &registry.reference("ours", name), &[]);
        image.assert_at(&registry.client(), "ours", name);
    }
    assert!(registry.count("PUT", "/v2/ours/manifests/") >= 3);
}

#[test]
fn a_layout_is_copied_into_another_and_a_second_time_costs_nothing() {
    let (binary, one, other) = (binary(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let image = ImageBuilder::oci(1).layers(3, 10_000).build();
    image.write_layout(one.path(), "v1");
    let (from, to) = (layout(one.path(), "v1"), layout(other.path(), "v2"));
    let job = replicated(&binary, &from, &to, &[]);
    assert_eq!(image.layout_differences(other.path(), "v2"), Vec::<String>::new());
    assert_eq!((reported(&job, "requests"), reported(&job, "blobs_copied")), (0, 4));
    let again = replicated(&binary, &from, &to, &[]);
    assert_eq!(again["report"]["already_present"], true);
    // A moved tag, with a layer in common.
    let newer = ImageBuilder::oci(2).layer_from(1_000, 10_000).build();
    newer.write_layout(one.path(), "v3");
    let moved = replicated(&binary, &layout(one.path(), "v3"), &to, &[]);
    assert_eq!(newer.layout_differences(other.path(), "v2"), Vec::<String>::new());
    assert_eq!((reported(&moved, "blobs_present"), reported(&moved, "blobs_copied")), (1, 1), "{moved:#}");
}

#[test]
fn a_relative_folder_is_that_of_the_command() {
    let (source, destination, binary) = (Fake::start(), Fake::start(), binary());
    let image = ImageBuilder::oci(1).layer(1_000).build();
    source.put_image("a", "v1", &image);
    let job = replicated(&binary, &source.reference("a", "v1"), "oci:some/folder:v1", &[]);
    let folder = binary.home().parent().unwrap().join("some/folder");
    assert_eq!(image.layout_differences(&folder, "v1"), Vec::<String>::new());
    // The row must mean the same to a worker that was started elsewhere.
    assert!(job["destination"].as_str().unwrap().starts_with("oci:/"), "{job:#}");
    replicated(&binary, "oci:./some/folder:v1", &destination.reference("b", "v1"), &[]);
    destination.assert_holds("b", "v1", &image);
}

#[test]
fn a_killed_write_publishes_nothing_and_the_next_worker_ends_it() {
    let (source, binary, folder) = (Fake::start(), binary(), tempfile::tempdir().unwrap());
    let image = ImageBuilder::oci(1).layers(2, 2_000_000).build();
    source.put_image("a", "v1", &image);
    let last = &image.layers()[1].digest;
    source.fault(Matcher::new("GET", last), Fault::StallBodyAfter { bytes: 1_000_000, name: "middle".into() });
    let target = folder.path().join("layout");
    let running = binary.spawn(&["replicate", &source.reference("a", "v1"), &layout(&target, "v1")]);
    source.wait_reached("middle");
    running.kill9();
    let named = std::fs::read_to_string(target.join("index.json")).unwrap_or_default();
    assert!(!named.contains(&image.digest), "published too early: {named}");
    let blob = last.split_once(':').unwrap().1;
    assert!(!target.join("blobs/sha256").join(blob).exists(), "half a blob under its name");

    source.heal();
    binary.run(&["work", "--drain"]).success();
    assert_eq!(image.layout_differences(&target, "v1"), Vec::<String>::new());
    let stray = files(&target).into_iter().filter(|path| !path.starts_with("blobs"));
    assert_eq!(stray.collect::<Vec<_>>(), [PathBuf::from("index.json"), PathBuf::from("oci-layout")]);
    assert_eq!(files(&target.join("blobs")).len(), 4, "two layers, the config, the manifest");
    assert_eq!(binary.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn an_interrupted_write_leaves_nothing_half_done() {
    let (source, folder) = (Fake::start(), tempfile::tempdir().unwrap());
    let binary = binary().env("FREIGHTLINER_WORKER_SHUTDOWN_GRACE_SECS", "0");
    let image = ImageBuilder::oci(1).layer(2_000_000).build();
    source.put_image("a", "v1", &image);
    let layer = &image.layers()[0].digest;
    source.fault(Matcher::new("GET", layer), Fault::StallBodyAfter { bytes: 1_000_000, name: "middle".into() });
    let target = folder.path().join("layout");
    let mut running = binary.spawn(&["replicate", &source.reference("a", "v1"), &layout(&target, "v1")]);
    source.wait_reached("middle");
    running.sigint();
    running.finish().expect_code(130);
    let left = eventually("the temporary file to go", || {
        let left = files(&target);
        left.iter().all(|path| !path.starts_with(".freightliner-tmp")).then_some(left)
    });
    assert!(left.iter().all(|path| !path.ends_with(layer.split_once(':').unwrap().1)), "{left:?}");
    assert_eq!(binary.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn what_is_not_in_a_layout_is_absent() {
    let (destination, binary, folder) = (Fake::start(), binary(), tempfile::tempdir().unwrap());
    let image = ImageBuilder::oci(1).layer(1_000).build();
    image.write_layout(folder.path(), "v1");
    let to = destination.reference("b", "v1");
    assert_failure(&fails(&binary, &layout(folder.path(), "v2"), &to, &[]), "absent", "resolve", 1);
    let nowhere = folder.path().join("nowhere");
    assert_failure(&fails(&binary, &layout(&nowhere, "v1"), &to, &[]), "absent", "resolve", 1);
    // A source that is not there makes no layout either.
    let made = folder.path().join("made");
    let from = destination.reference("unknown", "v1");
    assert_failure(&fails(&binary, &from, &layout(&made, "v1"), &[]), "absent", "resolve", 1);
    assert!(!made.exists());
}

#[test]
fn a_damaged_layout_is_never_pushed() {
    let (destination, binary, folder) = (Fake::start(), binary(), tempfile::tempdir().unwrap());
    let image = ImageBuilder::oci(1).layer(100_000).build();
    image.write_layout(folder.path(), "v1");
    let blob = folder.path().join("blobs/sha256").join(image.layers()[0].digest.split_once(':').unwrap().1);
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[50_000] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    let job = fails(&binary, &layout(folder.path(), "v1"), &destination.reference("b", "v1"), &[]);
    assert_failure(&job, "corrupt", "transfer", 1);
    assert!(!destination.has_blob("b", &image.layers()[0].digest));
    super::assert_nothing_published(&destination, "b");
}
