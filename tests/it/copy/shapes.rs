//! Every kind of manifest arrives byte for byte, with everything below it.

use super::{assert_whole, binary, replicated, reported};
use crate::support::content::{Algorithm, Content};
use crate::support::fake::{Fake, Options};
use crate::support::image::{self, Image, ImageBuilder, media};
use crate::support::registry::Registry;
use crate::support::skopeo::Skopeo;
use serde_json::{Map, json};

/// One of everything a real registry takes.
pub fn shapes() -> Vec<(&'static str, Image)> {
    let oci = |seed| ImageBuilder::oci(seed).layers(2, 5_000).build();
    let arm = |seed| ImageBuilder::oci(seed).platform("linux", "arm64", Some("v8")).layer(4_000).build();
    let docker = |seed| ImageBuilder::docker(seed).layers(2, 3_000).build();
    let subject = oci(30);
    vec![
        ("oci", oci(1)),
        ("docker", docker(2)),
        ("index", image::index(vec![oci(3), arm(4)])),
        ("list", image::docker_list(vec![docker(5), docker(6)])),
        ("nested", image::index(vec![image::index(vec![oci(7), arm(8)]), docker(9)])),
        ("mixed", image::index(vec![oci(10), image::artifact(11, None)])),
        ("artifact", image::artifact(12, None)),
        ("artifact-of-another", image::artifact(13, Some(&subject))),
        ("without-media-type", ImageBuilder::oci(14).without_media_type().layer(100).build()),
        ("foreign", ImageBuilder::docker(15).layer(100).foreign_layer("http://127.0.0.1:9/layer").build()),
        ("oci-foreign", ImageBuilder::oci(16).layer(100).foreign_layer("https://example.com/layer").build()),
        ("without-layers", ImageBuilder::oci(17).build()),
        ("same-layer-twice", ImageBuilder::oci(18).layer_from(5, 1_000).layer_from(5, 1_000).build()),
        ("many-layers", ImageBuilder::oci(19).layers(20, 300).build()),
        ("large-manifest", ImageBuilder::oci(20).layer(10).padded_to(3_500_000).build()),
        ("large-layer", ImageBuilder::docker(21).layer(3_000_000).build()),
    ]
}

/// Shapes that only a fake takes: Distribution 2.8 knows no sha512 manifests, no empty blobs of unknown origin.
fn more_shapes() -> Vec<(&'static str, Image)> {
    let sha512 = |seed| ImageBuilder::oci(seed).sha512().layers(2, 2_000).build();
    let indexed = image::index_with(media::OCI_INDEX, Algorithm::Sha512, vec![sha512(41), sha512(42)], Map::new());
    let annotated = json!({ "annotations": { "org.example": "ü\u{1F980}\u{202e}" }, "x-unknown": [1, {"y": null}] });
    let annotated = annotated.as_object().expect("an object").clone();
    vec![
        ("sha512", sha512(40)),
        ("sha512-index", indexed),
        ("mixed-digests", image::index(vec![sha512(43), ImageBuilder::oci(44).layer(10).build()])),
        ("unknown-fields", image::index_with(media::OCI_INDEX, Algorithm::Sha256, vec![sha512(45)], annotated)),
        ("empty-layer", ImageBuilder::oci(46).raw_layer("application/vnd.example.empty", "").build()),
        ("odd-layer-type", ImageBuilder::oci(47).raw_layer("text/x-odd; a=b", "odd").build()),
    ]
}

/// What a report must say of a first copy of this image.
fn assert_report(job: &serde_json::Value, image: &Image) {
    assert_eq!(job["report"]["digest"], image.digest.as_str());
    assert_eq!(job["report"]["already_present"], false);
    let blobs = image.all_blobs();
    assert_eq!(reported(job, "blobs_copied"), blobs.len() as u64, "{job:#}");
    assert_eq!(reported(job, "bytes_copied"), blobs.iter().map(|blob| blob.content.len()).sum::<u64>());
    assert_eq!(reported(job, "manifests_pushed"), image.manifests().len() as u64);
    let progress = &job["progress"];
    assert_eq!(
        (&progress["bytes_done"], &progress["blobs_done"]),
        (&progress["bytes_total"], &progress["blobs_total"])
    );
}

#[test]
fn every_kind_of_manifest_arrives_at_a_real_registry() {
    let (Some(source), Some(destination)) = (Registry::start(), Registry::start()) else {
        return;
    };
    for (name, image) in shapes() {
        // One that remembers nothing of what the others share.
        let binary = binary();
        image.push(&source.client(), "some/thing", name);
        let to = format!("copied/{name}");
        let job = replicated(&binary, &source.reference("some/thing", name), &destination.reference(&to, "v1"), &[]);
        image.assert_at(&destination.client(), &to, "v1");
        assert_report(&job, &image);
        assert_eq!(binary.leftovers(), Vec::<std::path::PathBuf>::new(), "{name}");
    }
}

#[test]
fn every_kind_of_manifest_arrives_at_a_fake() {
    let (source, destination) = (Fake::start(), Fake::start());
    let all = shapes().into_iter().chain(more_shapes()).filter(|(name, _)| *name != "large-manifest");
    for (name, image) in all {
        let binary = binary();
        source.put_image("some/thing", name, &image);
        // A tag is not enough for the fake to know a sha512 digest by.
        let from = format!("{}/some/thing@{}", source.authority(), image.digest);
        let to = format!("copied/{name}");
        let job = replicated(&binary, &from, &destination.reference(&to, "v1"), &[]);
        assert_whole(&destination, &to, "v1", &image);
        assert_report(&job, &image);
    }
    assert_eq!(destination.count("DELETE", "/"), 0, "no upload was begun for nothing");
}

/// An index may list what is no manifest at all: it is copied as the blob that it is.
#[test]
fn a_blob_in_an_index_arrives_as_a_blob() {
    let source = Fake::start();
    let destination = Fake::start_with(Options { verify_manifests: false, ..Options::default() });
    let odd = Content::seeded(3, 2_000);
    let digest = source.put_blob("a", odd.clone());
    let entry = json!({ "mediaType": "application/vnd.example.data", "digest": digest, "size": odd.len() });
    let child = ImageBuilder::oci(1).layer(10).build();
    let entries = json!({ "manifests": [entry, child.descriptor()] }).as_object().expect("an object").clone();
    let image = image::index_with(media::OCI_INDEX, Algorithm::Sha256, vec![child], entries);
    source.put_image("a", "v1", &image);
    replicated(&binary(), &source.reference("a", "v1"), &destination.reference("b", "v1"), &[]);
    assert_whole(&destination, "b", "v1", &image);
    let held = destination.blob("b", &digest).expect("the odd blob");
    assert_eq!(held.to_bytes(), odd.to_bytes());
}

#[test]
fn an_image_with_sha512_is_known_again() {
    let (source, destination, binary) = (Fake::start(), Fake::start(), binary());
    let image = ImageBuilder::oci(1).sha512().layer(1_000).build();
    source.put_image("a", "v1", &image);
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    replicated(&binary, &from, &to, &[]);
    // The destination tells a sha256 digest for the same bytes.
    let again = replicated(&binary, &from, &to, &[]);
    assert_eq!(again["report"]["already_present"], true, "{again:#}");
    assert_eq!(destination.count("PUT", "/manifests/"), 1);
}

#[test]
fn skopeo_accepts_what_was_copied() {
    let (Some(source), Some(destination), Some(skopeo)) = (Registry::start(), Registry::start(), Skopeo::find()) else {
        return;
    };
    let binary = binary();
    for (name, image) in shapes() {
        source.seed("app", name, &image);
        replicated(&binary, &source.reference("app", name), &destination.reference("app", name), &[]);
        let copied = format!("docker://{}", destination.reference("app", name));
        assert_eq!(skopeo.raw(&copied), image.manifest, "{name}");
        // Nested indexes and foreign layers are beyond skopeo, whoever wrote them.
        if ["oci", "docker", "index", "list", "artifact", "without-media-type", "large-layer"].contains(&name) {
            let folder = tempfile::tempdir().expect("a temp folder");
            skopeo.copy(&copied, &format!("dir:{}", folder.path().display()), &[]).success();
        }
    }
    let inspected =
        skopeo.inspect(&format!("docker://{}", destination.reference("app", "index")), &[]).success().json();
    assert_eq!(inspected["Layers"].as_array().map(Vec::len), Some(2), "{inspected:#}");
}

#[test]
fn a_foreign_layer_is_kept_by_reference() {
    let (source, elsewhere, destination) = (Fake::start(), Fake::start(), Fake::start());
    let image = ImageBuilder::docker(1).layer(100).foreign_layer(&format!("{}/layer", elsewhere.base_url())).build();
    source.put_image("a", "v1", &image);
    let job = replicated(&binary(), &source.reference("a", "v1"), &destination.reference("b", "v1"), &[]);
    assert_whole(&destination, "b", "v1", &image);
    assert_eq!(reported(&job, "blobs_copied"), 2, "config and the one layer that is distributed");
    assert_eq!(elsewhere.requests().len(), 0, "its URL was not asked");
}
