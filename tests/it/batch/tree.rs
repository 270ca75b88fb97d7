//! `replicate-tree`, `--tags` and `--all-tags`, and `batch` on what they made.

use super::{Scene, batch, id, number};
use crate::support::binary::Binary;
use crate::support::database::Database;
use crate::support::fake::{Fault, Matcher, Options};
use crate::support::{PATIENCE, eventually};
use serde_json::Value;

fn databases() -> Vec<Database> {
    std::iter::once(Database::sqlite()).chain(Database::postgres()).collect()
}

#[test]
fn a_tree_is_copied_below_its_new_prefix() {
    for database in databases() {
        let scene = Scene::with(Binary::new().on(database), Options { page_limit: 2, ..Options::default() });
        let images = scene.fill("org/app", &["v1", "v2", "latest"]);
        scene.fill("org/lib/a", &["v1"]);
        scene.fill("org", &["v1"]);
        scene.fill("organ/other", &["v1"]);
        let output = scene.tree("org", "mirror/x", &[]).success();
        assert_eq!(
            scene.copied(),
            ["mirror/x/app:latest", "mirror/x/app:v1", "mirror/x/app:v2", "mirror/x/lib/a:v1", "mirror/x:v1"]
        );
        scene.destination.assert_holds("mirror/x/app", "v1", &images[0]);
        assert!(output.text().contains("5 copies: 5 completed"), "{output}");
        let batch = batch(&scene.binary);
        assert_eq!((&batch["state"], &batch["kind"]), (&"completed".into(), &"tree".into()));
        assert_eq!((&batch["jobs"]["total"], &batch["repositories"]), (&5.into(), &3.into()));
        // Again: everything is there already.
        let output = scene.tree("org", "mirror/x", &[]).success();
        assert!(output.text().contains("(5 already there)"), "{output}");
        assert_eq!(number(&scene.binary, "SELECT count(*) FROM audit_batches WHERE state = 'completed'"), 2);
        assert_eq!(scene.binary.leftovers(), Vec::<std::path::PathBuf>::new());
    }
}

#[test]
fn patterns_choose_repositories_and_tags() {
    let scene = Scene::new();
    for name in ["org/app", "org/app-debug", "org/lib", "org/tool"] {
        scene.fill(name, &["v1.0", "v1.1-rc1", "v2.0", "latest"]);
    }
    let options = ["--include-repo", "app*,org/lib", "--exclude-repo", "*-debug", "--include-tag", "/^v[0-9]/"];
    scene.tree("org", "m", &[&options[..], &["--exclude-tag", "*rc*", "--workers", "2"]].concat()).success();
    assert_eq!(scene.copied(), ["m/app:v1.0", "m/app:v2.0", "m/lib:v1.0", "m/lib:v2.0"]);
}

#[test]
fn a_registry_without_a_catalog_takes_a_list() {
    let scene = Scene::new();
    scene.fill("org/a", &["v1"]);
    scene.fill("org/b", &["v1"]);
    scene.fill("org/c", &["v1"]);
    scene.source.fault(Matcher::new("GET", "/_catalog").always(), Fault::error(401, "UNAUTHORIZED", "no catalog"));
    let output = scene.tree("org", "m", &[]).expect_code(1);
    assert!(
        output.text().contains("could not be listed:") && output.errors().contains("could not be listed"),
        "{output}"
    );
    let list = scene.binary.home().join("repos.txt");
    std::fs::write(&list, format!("# ours\norg/a\n\nb\n{}/org/missing\n", scene.source.authority())).unwrap();
    let output = scene.tree("org", "m", &["--repos-from", list.to_str().unwrap()]).expect_code(1);
    assert_eq!(scene.copied(), ["m/a:v1", "m/b:v1"]);
    assert!(output.text().contains("org/missing (absent)"), "{output}");
}

#[test]
fn what_fails_does_not_stop_the_rest_and_is_tried_again_alone() {
    let scene = Scene::new();
    for at in 0..12 {
        scene.fill(&format!("org/app{at}"), &["v1", "v2"]);
    }
    scene.source.fault(Matcher::new("GET", "org/app7/tags").always(), Fault::error(403, "DENIED", "not yours"));
    scene
        .source
        .fault(Matcher::new("GET", "org/app3/manifests/v2").always(), Fault::error(404, "MANIFEST_UNKNOWN", "gone"));
    scene.source.fault(Matcher::new("HEAD", "org/app3/manifests/v2").always(), Fault::status(404));
    let output = scene.tree("org", "m", &["-o", "json", "--no-referrers"]).expect_code(1);
    let shown: Value = output.json();
    assert_eq!(
        (&shown["state"], &shown["jobs"]["completed"], &shown["jobs"]["failed"]),
        (&"failed".into(), &21.into(), &1.into())
    );
    assert_eq!(shown["failures"][0]["class"], "absent", "{shown:#}");
    assert!(shown["failures"][0]["source"].as_str().unwrap().ends_with("org/app3:v2"));
    let unlisted = &shown["failed_repositories"][0];
    assert!(
        unlisted["repository"].as_str().unwrap().ends_with("org/app7") && unlisted["class"] == "denied",
        "{shown:#}"
    );
    assert_eq!(scene.copied().len(), 21);
    let id = id(&shown);
    scene.binary.run(&["batch", "wait", &id]).expect_code(1);

    // When the causes are gone, only what is missing is done.
    scene.source.heal();
    scene.source.clear_requests();
    let output = scene.tree("org", "m", &["--resume", &id]).success();
    assert!(output.text().contains("24 copies: 24 completed"), "{output}");
    assert_eq!(scene.copied().len(), 24);
    let listed: Vec<String> = scene
        .source
        .requests()
        .into_iter()
        .map(|request| request.path)
        .filter(|path| path.contains("/tags/"))
        .collect();
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert!(!scene.source.requests().iter().any(|request| request.path.contains("app1/")), "app1 was done");
    scene.binary.run(&["batch", "wait", &id]).success();
}

#[test]
fn several_tags_of_a_repository_are_a_batch() {
    let scene = Scene::new();
    scene.fill("team/app", &["v1", "v2", "v3"]);
    let (from, to) = (scene.at_source("team/app"), scene.at_destination("x/app"));
    scene.binary.run(&["replicate", &from, &to, "--tags", "v1,v3", "--no-referrers"]).success();
    assert_eq!(scene.copied(), ["x/app:v1", "x/app:v3"]);
    // Named tags are not looked up.
    assert_eq!(scene.source.count("GET", "/tags/list"), 0);
    let output = scene.binary.run(&["enqueue", &from, &to, "--all-tags", "-o", "json"]).success().json();
    let waiting =
        scene.binary.run(&["batch", "show", output["batch_id"].as_str().unwrap(), "-o", "json"]).success().json();
    assert_eq!((&waiting["state"], &waiting["listing"]), (&"pending".into(), &"pending".into()));
    scene.binary.run(&["work", "--drain"]).success();
    assert_eq!(scene.copied(), ["x/app:v1", "x/app:v2", "x/app:v3"]);
    for wrong in [format!("{from}:v1"), "oci:/x".to_owned()] {
        scene.binary.run(&["replicate", &wrong, &to, "--all-tags"]);
    }
    let output = scene.binary.run(&["replicate", &format!("{from}:v1"), &to, "--all-tags"]).expect_code(2);
    assert!(output.errors().contains("repositories"), "{output}");
    scene.binary.run(&["replicate", &from, &to, "--tags", "not a tag"]).expect_code(2);
    scene.binary.run(&["replicate", &from, &to, "--tags", "v1", "--all-tags"]).expect_code(2);
}

#[test]
fn a_dry_run_changes_nothing_anywhere() {
    let scene = Scene::new();
    scene.fill("org/a", &["v1", "v2"]);
    let output = scene.tree("org", "m", &["--dry-run"]).success();
    assert_eq!(output.text().lines().count(), 2, "{output}");
    assert!(output.errors().contains("would copy 2 of 2 images"), "{output}");
    let rows = scene.tree("org", "m", &["--dry-run", "-o", "json"]).success().json();
    assert!(rows[0]["bytes"].as_u64().unwrap() > 2000 && rows[0]["already_present"] == false, "{rows:#}");
    assert_eq!(scene.copied(), Vec::<String>::new());
    let writes = |request: &crate::support::fake::LoggedRequest| !matches!(request.method.as_str(), "GET" | "HEAD");
    assert!(!scene.source.requests().iter().chain(&scene.destination.requests()).any(writes));
    let batches = scene.binary.run(&["batch", "list", "-o", "json"]).success().json();
    assert_eq!(batches, serde_json::json!([]));
}

#[test]
fn a_batch_is_cancelled_and_goes_on() {
    let scene = Scene::new();
    for at in 0..5 {
        scene.fill(&format!("org/app{at}"), &["v1"]);
    }
    let output = scene.tree("org", "m", &["--detach"]).success();
    let id = output.text().trim().to_owned();
    assert_eq!(scene.binary.run(&["batch", "cancel", &id]).success().text(), "1 job cancelled or asked to stop\n");
    let shown = scene.binary.run(&["batch", "show", &id, "-o", "json"]).success().json();
    assert_eq!(shown["state"], "cancelled");
    scene.binary.run(&["work", "--drain"]).success();
    assert_eq!(scene.copied(), Vec::<String>::new());
    scene.binary.run(&["checkpoint", "show", "--id", &id]).success();
    scene.binary.run(&["batch", "wait", &id]).expect_code(1);
    scene.binary.run(&["batch", "retry", &id]).success();
    scene.binary.run(&["work", "--drain"]).success();
    assert_eq!(scene.copied().len(), 5);
    scene.binary.run(&["batch", "wait", &id, "--timeout", "1s"]).success();
    let jobs = scene.binary.run(&["jobs", "list", "--batch", &id, "-o", "json"]).success().json();
    assert_eq!(jobs.as_array().unwrap().len(), 6);
    scene.binary.run(&["batch", "show", "00000000-0000-7000-8000-000000000000"]).expect_code(1);
    scene.binary.run(&["batch", "show", "x"]).expect_code(2);
}

#[test]
fn what_cannot_be_a_tree_is_refused() {
    let scene = Scene::new();
    for (from, to, word) in [
        ("alpine", "h.example/x", "names no registry"),
        ("h.example/x:1", "h.example/y", "no tag"),
        ("h.example/UPPER", "h.example/y", "UPPER"),
        ("h.example/x", "nowhere", "names no registry"),
    ] {
        let output = scene.binary.run(&["replicate-tree", from, to]).expect_code(2);
        assert!(output.errors().contains(word), "{from} {to}: {output}");
    }
    scene.binary.run(&["replicate-tree", "h.example/x", "h.example/y", "--include-tag", "/(/"]).expect_code(2);
    scene.binary.run(&["replicate-tree", "h.example/x", "h.example/y", "--tags", "a"]).expect_code(2);
    scene.binary.run(&["replicate-tree", "oci:/x", "h.example/y"]).expect_code(1);
}

#[test]
fn batches_are_exported_and_older_checkpoints_imported() {
    let scene = Scene::new();
    for name in ["org/a", "org/b", "org/c"] {
        scene.fill(name, &["v1", "v2"]);
    }
    scene.source.fault(Matcher::new("GET", "org/b/tags").always(), Fault::error(403, "DENIED", "no"));
    scene.tree("org", "m", &["--no-referrers"]).expect_code(1);
    let id = id(&batch(&scene.binary));
    let file = scene.binary.home().join("out.json");
    scene.binary.run(&["checkpoint", "export", "--id", &id, "-o", file.to_str().unwrap()]).success();
    let exported: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    for (key, wanted) in [
        ("status", Value::from("failed")),
        ("total_repositories", 3.into()),
        ("completed_repositories", 2.into()),
        ("failed_repositories", 1.into()),
        ("total_tags_copied", 4.into()),
        ("total_tags_skipped", 0.into()),
        ("total_errors", 1.into()),
    ] {
        assert_eq!(exported[key], wanted, "{key}: {exported:#}");
    }
    assert_eq!(exported["repositories"][0]["tags_copied"], 2);
    let printed = scene.binary.run(&["batch", "export", &id, "--file", "-", "-o", "json"]).success().json();
    assert_eq!(printed["id"], exported["id"]);
    scene.binary.run(&["checkpoint", "import", "-i", file.to_str().unwrap()]).expect_code(1);
    scene.binary.run(&["checkpoint", "delete", &id]).success();
    scene.binary.run(&["checkpoint", "show", &id]).expect_code(1);

    // A file of the older program: what is completed there is not copied again.
    scene.source.heal();
    scene.source.clear_requests();
    let older = serde_json::json!({
        "id": "6f9619ff-8b86-4d01-b42d-00cf4fc964ff",
        "source_registry": scene.source.authority(), "source_prefix": "org",
        "dest_registry": scene.destination.authority(), "dest_prefix": "n", "status": "interrupted",
        "repositories": {"org/a": {"status": "completed"}, "org/b": {"status": "failed"}},
        "completed_repositories": ["org/a"], "repo_tasks": [], "progress": 33.3,
    });
    std::fs::write(&file, older.to_string()).unwrap();
    let output = scene.binary.run(&["checkpoint", "import", "-i", file.to_str().unwrap()]).success();
    let id = output.text().trim().to_owned();
    assert_eq!(id, "6f9619ff-8b86-4d01-b42d-00cf4fc964ff");
    scene.binary.run(&["work", "--drain"]).success();
    assert!(!scene.copied().iter().any(|name| name.starts_with("n/")), "it waits until it is resumed");
    let (from, to) = (scene.at_source("org"), scene.at_destination("n"));
    scene.binary.run(&["replicate-tree", &from, &to, "--resume", &id, "--skip-completed", "--retry-failed"]).success();
    let copied: Vec<String> = scene.copied().into_iter().filter(|name| name.starts_with("n/")).collect();
    assert_eq!(copied, ["n/b:v1", "n/b:v2", "n/c:v1", "n/c:v2"]);
    for wrong in [
        "{",
        "{}",
        "{\"id\": \"../x\", \"source\": \"h.example/a\", \"destination\": \"g.example\"}",
        "{\"source\": \"ecr/a\", \"destination\": \"g.example\"}",
    ] {
        std::fs::write(&file, wrong).unwrap();
        scene.binary.run(&["checkpoint", "import", "-i", file.to_str().unwrap()]).expect_code(2);
    }
}

#[test]
fn a_paused_queue_is_told_and_waited_for() {
    let scene = Scene::new();
    scene.fill("org/a", &["v1"]);
    scene.binary.run(&["queue", "pause", "slow"]).success();
    let (from, to) = (scene.at_source("org"), scene.at_destination("m"));
    let mut running = scene.binary.spawn(&["replicate-tree", &from, &to, "--queue", "slow"]);
    eventually("it says so", || running.stderr().contains("queue `slow` is paused").then_some(()));
    scene.binary.run(&["queue", "resume", "slow"]).success();
    running.wait(PATIENCE).success();
    assert_eq!(scene.copied(), ["m/a:v1"]);
}
