//! The commands that look at registries: inspect, manifest, list-tags; and delete.

use super::{binary, error_of};
use crate::support::content::Algorithm;
use crate::support::fake::{Auth, Fake, Options};
use crate::support::image::{self, ImageBuilder, media};
use crate::support::registry::Registry;
use serde_json::{Value, json};

#[test]
fn an_image_is_described() {
    let Some(registry) = Registry::start() else {
        return;
    };
    let binary = binary();
    let image = ImageBuilder::docker(1).layers(2, 3_000).build();
    registry.seed("team/app", "v1", &image);
    let reference = registry.reference("team/app", "v1");
    let shown = binary.run(&["inspect", "-o", "json", &reference]).success().json();
    assert_eq!(shown["name"], format!("{}/team/app", registry.authority()));
    assert_eq!(
        (&shown["digest"], &shown["mediaType"]),
        (&image.digest.as_str().into(), &media::DOCKER_MANIFEST.into())
    );
    assert_eq!((&shown["os"], &shown["architecture"]), (&"linux".into(), &"amd64".into()));
    assert_eq!(shown["env"], json!(["SEED=1"]));
    let layers: Vec<&Value> = shown["layers"].as_array().unwrap().iter().map(|layer| &layer["digest"]).collect();
    let expected: Vec<Value> = image.layers().iter().map(|layer| layer.digest.as_str().into()).collect();
    assert_eq!(layers, expected.iter().collect::<Vec<_>>());
    let text = binary.run(&["inspect", &reference]).success().text();
    for part in [image.digest.as_str(), "linux/amd64", "SEED=1", "2 layers", &image.layers()[1].digest] {
        assert!(text.contains(part), "{part} in {text}");
    }
    for words in [&["inspect", "--raw", &reference][..], &["manifest", &reference]] {
        assert_eq!(binary.run(words).success().stdout, image.manifest, "{words:?}");
    }
    let digest = binary.run(&["manifest", "digest", &reference]).success().text();
    assert_eq!(digest.trim(), image.digest);
    let digest = binary.run(&["manifest", "digest", "--algorithm", "sha512", &reference]).success().text();
    assert_eq!(digest.trim(), Algorithm::Sha512.digest(&image.manifest));
    assert_eq!(binary.run(&["manifest", "inspect", &reference]).success().json()["schemaVersion"], 2);
}

#[test]
fn indexes_artifacts_and_layouts_are_described() {
    let (fake, binary, folder) = (Fake::start(), binary(), tempfile::tempdir().unwrap());
    let arm = ImageBuilder::oci(2).platform("linux", "arm64", Some("v8")).layer(10).build();
    let index = image::index(vec![ImageBuilder::oci(1).layer(10).build(), arm]);
    fake.put_image("a", "index", &index);
    fake.put_image("a", "artifact", &image::artifact(3, None));
    let shown = binary.run(&["inspect", "-o", "json", &fake.reference("a", "index")]).success().json();
    assert_eq!(shown["manifests"].as_array().unwrap().len(), 2, "{shown:#}");
    assert_eq!(shown["manifests"][1]["platform"], json!({ "os": "linux", "architecture": "arm64", "variant": "v8" }));
    let text = binary.run(&["inspect", &fake.reference("a", "index")]).success().text();
    assert!(text.contains("linux/arm64/v8"), "{text}");
    let artifact = binary.run(&["inspect", "-o", "json", &fake.reference("a", "artifact")]).success().json();
    assert_eq!((&artifact["layers"][0]["size"], &artifact["os"]), (&3_000.into(), &Value::Null), "{artifact:#}");
    index.write_layout(folder.path(), "v1");
    let reference = format!("oci:{}:v1", folder.path().display());
    assert_eq!(binary.run(&["inspect", "--raw", &reference]).success().stdout, index.manifest);
    let tags = binary.run(&["list-tags", &format!("oci:{}", folder.path().display())]).success().text();
    assert_eq!(tags, "v1\n");
}

#[test]
fn looking_at_nothing_fails() {
    let (fake, binary) = (Fake::start(), binary());
    fake.put_image("a", "v1", &ImageBuilder::oci(1).build());
    for command in ["inspect", "manifest"] {
        let output = binary.run(&["-o", "json", command, &fake.reference("a", "v2")]).expect_code(1);
        assert_eq!(error_of(&output)["code"], "absent");
        assert_eq!(output.text(), "");
    }
    let output = binary.run(&["-o", "json", "list-tags", &format!("{}/unknown", fake.authority())]).expect_code(1);
    assert_eq!(error_of(&output)["code"], "absent");
    binary.run(&["list-tags", "localhost:1/UPPER"]).expect_code(2);
}

#[test]
fn tags_come_from_all_pages() {
    let options = Options { page_limit: 3, auth: Auth::bearer(), ..Options::default() };
    let (fake, binary) = (Fake::start_with(options), binary());
    let image = ImageBuilder::oci(1).build();
    let names: Vec<String> = (0..11).map(|number| format!("v{number:02}")).collect();
    for name in &names {
        fake.put_image("a", name, &image);
    }
    let repository = format!("{}/a", fake.authority());
    let text = binary.run(&["list-tags", &repository]).success().text();
    assert_eq!(text.lines().collect::<Vec<_>>(), names);
    assert_eq!(
        fake.requests().iter().filter(|seen| seen.path.contains("/tags/") && seen.status == Some(200)).count(),
        4
    );
    let shown = binary.run(&["list-tags", "-o", "json", &repository]).success().json();
    assert_eq!((&shown["count"], &shown["tags"][10]["tag"]), (&11.into(), &"v10".into()), "{shown:#}");
    fake.clear_requests();
    let few = binary.run(&["list-tags", "--limit", "2", &repository]).success().text();
    assert_eq!(few, "v00\nv01\n");
    assert!(fake.count("GET", "/tags/") <= 2, "no page is asked for that nobody wants");
    let descending = binary.run(&["list-tags", "--limit", "2", "--sort", "alpha-desc", &repository]).success().text();
    assert_eq!(descending, "v10\nv09\n");
}

#[test]
fn tags_of_a_real_registry() {
    let Some(registry) = Registry::start() else {
        return;
    };
    let image = ImageBuilder::oci(1).build();
    let names: Vec<String> = (0..150).map(|number| format!("v{number:03}")).collect();
    for name in &names {
        registry.seed("a", name, &image);
    }
    let text = binary().run(&["list-tags", &format!("{}/a", registry.authority())]).success().text();
    // In whatever order this registry has them today.
    let mut listed: Vec<&str> = text.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, names);
}

#[test]
fn deleting_at_a_real_registry_takes_the_digest() {
    let Some(registry) = Registry::start() else {
        return;
    };
    let binary = binary();
    let (image, other) = (ImageBuilder::oci(1).layer(10).build(), ImageBuilder::oci(2).layer(10).build());
    for tag in ["v1", "same"] {
        registry.seed("a", tag, &image);
    }
    registry.seed("a", "other", &other);
    let reference = registry.reference("a", "v1");
    binary.run(&["delete", &reference]).expect_code(2);
    let planned = binary.run(&["delete", "--dry-run", "-o", "json", &reference]).success().json();
    assert_eq!((&planned["shared_with"], &planned["deleted_by"]), (&json!(["same"]), &Value::Null), "{planned:#}");
    image.assert_at(&registry.client(), "a", "v1");
    let done = binary.run(&["delete", "--force", "-o", "json", &reference]).success().json();
    assert_eq!((&done["digest"], &done["deleted_by"]), (&image.digest.as_str().into(), &"digest".into()), "{done:#}");
    registry.client().get("/v2/a/manifests/v1").expect(404);
    registry.client().get("/v2/a/manifests/same").expect(404);
    other.assert_at(&registry.client(), "a", "other");
    let gone = binary.run(&["delete", "--force", "-o", "json", &reference]).expect_code(1);
    assert_eq!(error_of(&gone)["code"], "absent");
}

#[test]
fn deleting_by_tag_where_that_is_possible() {
    let (fake, binary) = (Fake::start(), binary());
    let image = ImageBuilder::oci(1).layer(10).build();
    for tag in ["v1", "v2", "v3"] {
        fake.put_image("a", tag, &image);
    }
    let done = binary.run(&["delete", "--force", "-o", "json", &fake.reference("a", "v1")]).success().json();
    assert_eq!(done["deleted_by"], "tag", "{done:#}");
    assert_eq!(fake.tags("a"), ["v2", "v3"]);
    binary.run(&["delete", "--all", &format!("{}/a", fake.authority())]).expect_code(2);
    binary.run(&["delete", "--all", "--force", &format!("{}/a", fake.authority())]).success();
    assert_eq!(fake.tags("a"), Vec::<String>::new());
}

#[test]
fn a_registry_that_does_not_delete_says_so() {
    let (fake, binary) = (Fake::start_with(Options { deletes: false, ..Options::default() }), binary());
    fake.put_image("a", "v1", &ImageBuilder::oci(1).build());
    let output = binary.run(&["delete", "--force", "-o", "json", &fake.reference("a", "v1")]).expect_code(1);
    let error = error_of(&output);
    assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("does not delete")), "{output}");
    assert_eq!(fake.tags("a"), ["v1"]);
}
