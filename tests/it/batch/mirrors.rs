//! Mirrors of the configuration file and files of rules: explained, run, and refused.

use super::{Scene, batch, number};
use crate::support::binary::Output;
use crate::support::fake::{Fault, Matcher};
use crate::support::image::ImageBuilder;
use crate::support::{PATIENCE, eventually};
use serde_json::Value;
use std::path::PathBuf;

fn write(scene: &Scene, name: &str, text: &str) -> PathBuf {
    let text = text.replace("SOURCE", &scene.source.authority()).replace("DESTINATION", &scene.destination.authority());
    let path = scene.binary.home().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn with_config(scene: &Scene, config: &str, arguments: &[&str]) -> Output {
    let path = write(scene, "freightliner.toml", config);
    scene.binary.run(&[&["--config", path.to_str().unwrap()], arguments].concat())
}

fn sync(scene: &Scene, yaml: &str, arguments: &[&str]) -> Output {
    let path = write(scene, "sync.yaml", yaml);
    scene.binary.run(&[&["sync", "--config", path.to_str().unwrap()], arguments].concat())
}

const NIGHTLY: &str = r#"
[mirrors.nightly]
source = "SOURCE/org"
repositories = ["app", "lib/*"]
exclude_repositories = ["lib/old"]
semver = ">=1"
exclude_tags = ["*.0"]
newest = 2
destination = "DESTINATION/m/{rest}:{tag}"
"#;

fn filled() -> Scene {
    let scene = Scene::new();
    for name in ["org/app", "org/lib/a", "org/lib/old", "org/tool"] {
        scene.fill(name, &["v0.9", "v1.0", "v1.1", "v1.2", "v1.10", "v2.0-rc1", "latest"]);
    }
    scene
}

#[test]
fn a_mirror_is_listed_explained_and_run() {
    let scene = filled();
    let output = with_config(&scene, NIGHTLY, &["mirror", "list"]).success();
    assert!(output.text().contains("nightly") && output.text().contains("/org"), "{output}");
    let rows = with_config(&scene, NIGHTLY, &["mirror", "explain", "nightly", "-o", "json"]).success().json();
    let find = |repository: &str, tag: Option<&str>| -> Value {
        let rows = rows.as_array().unwrap();
        let row = rows
            .iter()
            .find(|row| row["repository"].as_str().unwrap().ends_with(repository) && row["tag"].as_str() == tag);
        row.unwrap_or_else(|| panic!("{repository} {tag:?}: {rows:#?}")).clone()
    };
    assert_eq!(find("org/app", Some("v1.10"))["clause"], "newest 2: it is number 1");
    assert_eq!(find("org/app", Some("v1.1"))["clause"], "newest 2: it is number 3");
    assert_eq!(find("org/app", Some("v1.0"))["clause"], "exclude_tags: *.0");
    assert_eq!(find("org/app", Some("v0.9"))["clause"], "semver >=1: outside");
    assert_eq!(find("org/app", Some("latest"))["clause"], "semver >=1: it is no version");
    assert_eq!(find("org/app", Some("v2.0-rc1"))["clause"], "semver >=1: a pre-release");
    assert_eq!(find("org/lib/old", None)["clause"], "exclude_repositories: lib/old");
    assert_eq!(find("org/tool", None)["clause"], "repositories: none matches");
    let kept: Vec<String> = rows
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["kept"] == true)
        .map(|row| row["destinations"][0].as_str().unwrap().split_once('/').unwrap().1.to_owned())
        .collect();
    assert_eq!(scene.copied(), Vec::<String>::new(), "nothing was copied");
    let dry = with_config(&scene, NIGHTLY, &["mirror", "run", "nightly", "--dry-run"]).success();
    assert_eq!(dry.text().lines().count(), 4, "{dry}");
    with_config(&scene, NIGHTLY, &["mirror", "run", "nightly"]).success();
    let mut kept = kept;
    kept.sort();
    assert_eq!(scene.copied(), kept);
    assert_eq!(kept, ["m/app:v1.10", "m/app:v1.2", "m/lib/a:v1.10", "m/lib/a:v1.2"]);
    let batch = batch(&scene.binary);
    assert_eq!((&batch["kind"], &batch["name"]), (&"mirror".into(), &"nightly".into()));
    assert_eq!(number(&scene.binary, "SELECT count(*) FROM batches WHERE rules LIKE '%exclude%'"), 1);
    with_config(&scene, NIGHTLY, &["mirror", "run", "daily"]).expect_code(1);
}

#[test]
fn images_are_newest_by_when_they_were_made() {
    let scene = Scene::new();
    for (tag, created) in [
        ("a", "2026-03-01T00:00:00Z"),
        ("b", "2026-05-01T00:00:00Z"),
        ("c", "2026-04-01T00:00:00Z"),
        ("d", "1970-01-01T00:00:00Z"),
    ] {
        let image = ImageBuilder::oci(created.len() as u64 + u64::from(tag.as_bytes()[0]))
            .layers(1, 1000)
            .created(created)
            .build();
        scene.source.put_image("org/app", tag, &image);
    }
    let config = "[mirrors.new]\nsource = \"SOURCE/org\"\nnewest = 2\nnewest_by = \"created\"\ndestination = \"DESTINATION/{rest}\"\n";
    with_config(&scene, config, &["mirror", "run", "new"]).success();
    assert_eq!(scene.copied(), ["app:b", "app:c"]);
    let config =
        "[mirrors.young]\nsource = \"SOURCE/org\"\nyounger_than = \"1d\"\ndestination = \"DESTINATION/y/{rest}\"\n";
    let output = with_config(&scene, config, &["mirror", "explain", "young"]).success();
    assert!(output.text().contains("it does not say when it was made") && !output.text().contains("kept "), "{output}");
}

#[test]
fn several_destinations_get_the_same() {
    let scene = Scene::new();
    let images = scene.fill("org/app", &["v1", "v2"]);
    let config = "[mirrors.two]\nsource = \"SOURCE/org\"\ndestinations = [\"DESTINATION/a/{rest}\", \"DESTINATION/b/{name}:{tag}-b\"]\n";
    with_config(&scene, config, &["mirror", "run", "two"]).success();
    assert_eq!(scene.copied(), ["a/app:v1", "a/app:v2", "b/app:v1-b", "b/app:v2-b"]);
    scene.destination.assert_holds("b/app", "v1-b", &images[0]);
}

#[test]
fn two_sources_for_one_destination_are_refused_by_name() {
    let scene = Scene::new();
    scene.fill("a/x", &["v1"]);
    scene.fill("b/x", &["v1"]);
    scene.fill("b/y", &["v1"]);
    let config = "[mirrors.flat]\nsource = \"SOURCE\"\ndestination = \"DESTINATION/{name}\"\n";
    let output = with_config(&scene, config, &["mirror", "run", "flat"]).expect_code(1);
    assert!(output.text().contains("a/x and b/x would both go to"), "{output}");
    assert_eq!(scene.copied(), Vec::<String>::new());
    let config = "[mirrors.flat]\nsource = \"SOURCE\"\nrepositories = [\"a/x\", \"b/x\"]\ndestination = \"DESTINATION/{name}\"\n";
    let output = with_config(&scene, config, &["mirror", "list"]).expect_code(2);
    assert!(
        output.errors().contains("line 1, column") && output.errors().contains("a/x and b/x would both go to"),
        "{output}"
    );
}

const SYNC: &str =
    "source:\n  registry: SOURCE\n  insecure: true\ndestination:\n  registry: \"DESTINATION\"\nparallel: 2\nimages:\n";

#[test]
fn a_file_of_the_older_program_is_synced() {
    let scene = filled();
    let images = "- {repository: org/app, tags: [v1.0, v1.1], limit: 1, destination_repository: m/app, destination_prefix: p-, destination_suffix: -s}\n\
                  - {repository: org/lib/a, tag_regex: '^v1[.]1'}\n\
                  - {repository: org/tool, semver_constraint: '>=1.0, <2', limit: 2}\n\
                  - {repository: org/lib/old, latest_n: 1}\n";
    let output = sync(&scene, &format!("{SYNC}{images}"), &["--dry-run"]).success();
    assert!(output.text().contains("/org/app:v1.0 -> "), "{output}");
    assert_eq!(scene.copied(), Vec::<String>::new());
    let output = sync(&scene, &format!("{SYNC}{images}"), &["--explain"]).success();
    assert!(output.text().contains("dropped") && output.text().contains("limit 2"), "{output}");
    sync(&scene, &format!("{SYNC}{images}"), &[]).success();
    let copied = scene.copied();
    assert_eq!(copied.len(), 7, "{copied:?}");
    for name in
        ["m/app:p-v1.0-s", "m/app:p-v1.1-s", "org/lib/a:v1.1", "org/lib/a:v1.10", "org/tool:v1.10", "org/tool:v1.2"]
    {
        assert!(copied.iter().any(|copied| copied == name), "{name}: {copied:?}");
    }
    assert_eq!(batch(&scene.binary)["name"], "sync.yaml");
}

#[test]
fn what_fails_in_a_file_does_not_stop_the_rest() {
    let scene = Scene::new();
    scene.fill("org/a", &["v1"]);
    scene.fill("org/b", &["v1"]);
    scene.source.fault(Matcher::new("GET", "org/b/tags").always(), Fault::error(403, "DENIED", "no"));
    let images = "- {repository: org/b, all_tags: true}\n- {repository: org/a, all_tags: true}\n- {repository: org/a, tags: [v1, gone]}\n";
    let output = sync(&scene, &format!("{SYNC}{images}"), &[]).expect_code(1);
    assert_eq!(scene.copied(), ["org/a:v1"]);
    assert!(output.text().contains("org/b (denied)") && output.text().contains(":gone"), "{output}");
}

#[test]
fn existing_tags_are_passed_over_when_asked_for() {
    let scene = Scene::new();
    scene.fill("org/a", &["v1", "v2"]);
    let other = ImageBuilder::oci(99).layers(1, 500).build();
    scene.destination.put_image("org/a", "v1", &other);
    let file = format!("skip_existing: true\n{SYNC}- {{repository: org/a, all_tags: true}}\n");
    sync(&scene, &file, &[]).success();
    scene.destination.assert_holds("org/a", "v1", &other);
    assert_eq!(scene.copied(), ["org/a:v1", "org/a:v2"]);
}

#[test]
fn files_with_mistakes_are_refused_whole_with_all_places() {
    let scene = Scene::new();
    let images =
        "- {repository: org/a, tags: [a], latest_n: 2}\n- {repository: org/b, tag_regex: '('}\n- {tags: null}\n";
    let output = sync(&scene, &format!("{SYNC}{images}"), &[]).expect_code(2);
    let errors = output.errors();
    for place in ["line 8, column", "line 9, column", "line 10, column"] {
        assert!(errors.contains(place), "{place}: {output}");
    }
    let output = sync(&scene, &format!("{SYNC}{images}"), &["-o", "json"]).expect_code(2);
    let error: Value = serde_json::from_str(output.errors().lines().last().unwrap()).unwrap();
    assert!(error["error"]["lines"].as_array().unwrap().len() >= 4, "{error:#}");
    let output = sync(&scene, "source: [\n", &[]).expect_code(2);
    assert!(output.errors().contains("line "), "{output}");
    scene.binary.run(&["sync"]).expect_code(2);
    scene.binary.run(&["sync", "--config", "/nowhere.yaml"]).expect_code(2);
    assert!(sync(&scene, SYNC, &[]).success().errors().contains("No images to sync"));
    assert_eq!(scene.source.requests().len() + scene.destination.requests().len(), 0);
}

#[test]
fn mirrors_and_trees_are_scheduled() {
    let scene = filled();
    let often = ["--every", "1s", "--overlap", "skip", "--"];
    let add = ["schedule", "add", "lib", "--every", "1s", "--", "mirror", "nightly", "--queue", "slow"];
    with_config(&scene, NIGHTLY, &add).success();
    let (from, to) = (scene.at_source("org/tool"), scene.at_destination("t"));
    let tree = ["replicate-tree", &from, &to, "--include-tag", "v1.*", "--no-referrers"];
    scene.binary.run(&[&["schedule", "add", "tools"], &often[..], &tree].concat()).success();
    let listed = scene.binary.run(&["schedule", "list", "-o", "json"]).success().json();
    assert_eq!((&listed[0]["kind"], &listed[0]["source"]), (&"mirror".into(), &"nightly".into()));
    assert_eq!((&listed[1]["kind"], &listed[1]["options"]["include_tags"][0]), (&"tree".into(), &"v1.*".into()));
    let path = scene.binary.home().join("freightliner.toml");
    let mut worker = scene.binary.spawn(&["--config", path.to_str().unwrap(), "work"]);
    eventually("two runs of each", || {
        let done = "SELECT count(*) FROM audit_batches WHERE state = 'completed' AND schedule = ";
        let runs = ["'lib'", "'tools'"].map(|name| number(&scene.binary, &format!("{done}{name}")));
        runs.iter().all(|runs| *runs >= 2).then_some(())
    });
    worker.sigterm();
    worker.wait(PATIENCE).success();
    assert_eq!(
        scene.copied(),
        ["m/app:v1.10", "m/app:v1.2", "m/lib/a:v1.10", "m/lib/a:v1.2", "t:v1.0", "t:v1.1", "t:v1.10", "t:v1.2"]
    );
    assert_eq!(
        number(
            &scene.binary,
            "SELECT count(*) FROM batches WHERE kind = 'mirror' AND rules IS NULL AND id IN \
        (SELECT id FROM audit_batches WHERE state = 'completed')"
        ),
        0,
        "the rules stand with their runs"
    );
    assert!(number(&scene.binary, "SELECT count(*) FROM audit_schedules WHERE batch_id IS NOT NULL") >= 4);
    let by_hand = scene.binary.run(&["schedule", "run", "tools", "-o", "json"]).success().json();
    let job = scene.binary.run(&["jobs", "show", &by_hand["id"].to_string(), "-o", "json"]).success().json();
    assert!(job["kind"] == "expand" && job["batch_id"].is_string(), "{job:#}");
    for wrong in [
        &["mirror", "x", "--dry-run"][..],
        &["mirror"],
        &["replicate-tree", "nowhere", "h.example/x"],
        &["replicate-tree", "h.example/x", "h.example/y", "--resume", "00000000-0000-7000-8000-000000000000"],
    ] {
        scene.binary.run(&[&["schedule", "add", "wrong", "--every", "1h", "--"], wrong].concat()).expect_code(2);
    }
}

#[test]
fn a_worker_that_does_not_know_the_mirror_leaves_it_to_one_that_does() {
    let scene = filled();
    scene.binary.run(&["schedule", "add", "lib", "--every", "1h", "--", "mirror", "nightly"]).success();
    scene.binary.run(&["schedule", "run", "lib"]).success();
    let mut ignorant = scene.binary.spawn(&["work"]);
    eventually("it was tried", || {
        let tried = "SELECT count(*) FROM jobs WHERE failure_message LIKE '%there is no mirror `nightly`%'";
        (number(&scene.binary, tried) == 1).then_some(())
    });
    ignorant.sigterm();
    ignorant.wait(PATIENCE).success();
    let output = with_config(&scene, NIGHTLY, &["work", "--drain"]);
    output.success();
    assert_eq!(scene.copied().len(), 4);
}

#[test]
fn schedules_of_the_configuration_are_made_and_changed_when_somebody_works() {
    let scene = filled();
    let config = |every: &str| {
        format!(
            "{NIGHTLY}\n[schedules.lib]\nevery = \"{every}\"\nmirror = \"nightly\"\n\n[schedules.tool]\ncron = \"@yearly\"\ntree = true\n\
                 source = \"SOURCE/org/tool\"\ndestination = \"DESTINATION/t\"\n"
        )
    };
    with_config(&scene, &config("1h"), &["work", "--drain"]).success();
    let listed = |scene: &Scene| {
        let rows = scene.binary.run(&["schedule", "list", "-o", "json"]).success().json();
        rows.as_array()
            .unwrap()
            .iter()
            .map(|row| (row["id"].as_i64().unwrap(), row["timing"].as_str().unwrap().to_owned()))
            .collect::<Vec<_>>()
    };
    assert_eq!(listed(&scene), [(1, "@every 1h".to_owned()), (2, "@yearly".to_owned())]);
    with_config(&scene, &config("1h"), &["work", "--drain"]).success();
    assert_eq!(listed(&scene).len(), 2, "nothing changed");
    with_config(&scene, &config("2h"), &["work", "--drain"]).success();
    assert_eq!(listed(&scene), [(3, "@every 2h".to_owned()), (2, "@yearly".to_owned())]);
    let output = with_config(&scene, &config("never"), &["work", "--drain"]).expect_code(2);
    assert!(output.errors().contains("line ") && output.errors().contains("schedules.lib"), "{output}");
}

#[test]
fn rules_of_the_older_scheduler_are_imported_and_followed() {
    let scene = filled();
    let rules = "rules:\n- source_registry: SOURCE\n  source_repository: 'org/l*/a'\n  destination_registry: DESTINATION\n\
                 \x20 destination_repository: 'm-$1'\n  schedule: '@now'\n  include_tags: ['v1.1*']\n  force_overwrite: true\n";
    let path = write(&scene, "rules.yaml", rules);
    scene.binary.run(&["schedule", "import", path.to_str().unwrap()]).success();
    let output = scene.binary.run(&["schedule", "import", path.to_str().unwrap(), "-o", "json"]).success();
    assert_eq!(output.json(), serde_json::json!([]));
    scene.binary.run(&["work", "--drain"]).success();
    assert_eq!(scene.copied(), ["m-ib:v1.1", "m-ib:v1.10"]);
    assert_eq!(batch(&scene.binary)["kind"], "sync");
    let path = write(&scene, "rules.yaml", "rules:\n- {source_registry: x}\n");
    scene.binary.run(&["schedule", "import", path.to_str().unwrap()]).expect_code(2);
}
