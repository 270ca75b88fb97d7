//! The job that lists: killed, refused by registries, and put in by hand.

use super::{Scene, batch, id, number};
use crate::support::binary::Binary;
use crate::support::database::Database;
use crate::support::fake::{Fault, Matcher, Options};
use crate::support::{PATIENCE, eventually};

fn answer(body: &str, headers: &[(&str, &str)]) -> Fault {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Fault::Status { code: 200, headers, body: body.to_owned() }
}

#[test]
fn copies_start_while_the_listing_goes_on() {
    let scene = Scene::new();
    for at in 0..20 {
        scene.fill(&format!("org/app{at:02}"), &["v1"]);
    }
    let held = Matcher::new("GET", "org/app19/tags").always();
    scene.source.fault(held, Fault::HoldUntil("last".into()));
    let (from, to) = (scene.at_source("org"), scene.at_destination("m"));
    let mut running = scene.binary.spawn(&["replicate-tree", &from, &to]);
    eventually("copies before the end of the listing", || (scene.copied().len() == 19).then_some(()));
    let shown = batch(&scene.binary);
    assert_eq!((&shown["state"], &shown["listing"]), (&"running".into(), &"running".into()));
    scene.source.release("last");
    running.wait(PATIENCE).success();
    assert_eq!(scene.copied().len(), 20);
}

#[test]
fn killed_in_the_middle_it_goes_on_without_doubles() {
    for database in std::iter::once(Database::sqlite()).chain(Database::postgres()) {
        let scene = Scene::with(Binary::new().on(database), Options::default());
        for at in 0..30 {
            scene.fill(&format!("org/app{at:02}"), &["v1", "v2"]);
        }
        let held = Matcher::new("GET", "org/app21/tags").always();
        scene.source.fault(held, Fault::HoldUntil("held".into()));
        scene.tree("org", "m", &["--detach"]).success();
        let worker = scene.binary.spawn(&["work"]);
        scene.source.wait_reached("held");
        eventually("some are listed", || {
            (number(&scene.binary, "SELECT count(*) FROM batch_repositories") >= 10).then_some(())
        });
        worker.kill9();
        scene.source.release("held");
        let listed = number(&scene.binary, "SELECT count(*) FROM batch_repositories");
        assert!(listed < 30, "{listed}");
        let id = id(&batch(&scene.binary));
        let mut worker = scene.binary.spawn(&["work"]);
        scene.binary.run(&["batch", "wait", &id, "--timeout", "60s"]).success();
        worker.sigterm();
        worker.wait(PATIENCE).success();
        assert_eq!(scene.copied().len(), 60);
        assert_eq!(number(&scene.binary, "SELECT count(*) FROM jobs WHERE kind = 'copy'"), 60);
        let tags = scene.destination.tag_history();
        assert_eq!(tags.len(), 60, "each tag was written once");
    }
}

#[test]
fn a_killed_command_leaves_its_batch_to_the_next_worker() {
    let scene = Scene::new();
    scene.fill("org/a", &["v1", "v2"]);
    scene.source.fault(Matcher::new("GET", "/tags/").always(), Fault::HoldUntil("held".into()));
    let (from, to) = (scene.at_source("org"), scene.at_destination("m"));
    let running = scene.binary.spawn(&["replicate-tree", &from, &to]);
    scene.source.wait_reached("held");
    running.kill9();
    scene.source.release("held");
    let id = id(&batch(&scene.binary));
    scene.binary.run(&["batch", "resume", &id]).success();
    assert_eq!(scene.copied(), ["m/a:v1", "m/a:v2"]);
}

#[test]
fn an_interrupted_command_gives_its_batch_back() {
    let binary = Binary::new().env("FREIGHTLINER_WORKER_SHUTDOWN_GRACE_SECS", "0");
    let scene = Scene::with(binary, Options::default());
    scene.fill("org/a", &["v1"]);
    scene.source.fault(Matcher::new("GET", "/tags/").always(), Fault::HoldUntil("held".into()));
    let (from, to) = (scene.at_source("org"), scene.at_destination("m"));
    let mut running = scene.binary.spawn(&["replicate-tree", &from, &to]);
    scene.source.wait_reached("held");
    running.sigint();
    let output = running.wait(PATIENCE).expect_code(130);
    assert!(output.errors().contains("stays queued"), "{output}");
    scene.source.release("held");
    scene.binary.run(&["work", "--drain"]).success();
    assert_eq!(scene.copied(), ["m/a:v1"]);
}

#[test]
fn a_catalog_that_runs_in_a_circle_is_given_up() {
    let scene = Scene::new();
    scene.fill("org/a", &["v1"]);
    let circle = answer(r#"{"repositories":["org/a"]}"#, &[("Link", "</v2/_catalog?n=1&last=x>; rel=\"next\"")]);
    scene.source.fault(Matcher::new("GET", "/_catalog").always(), circle);
    let output = scene.tree("org", "m", &[]).expect_code(1);
    assert!(output.text().contains("the same page again"), "{output}");
    assert!(scene.source.count("GET", "/_catalog") < 30);
}

#[test]
fn repositories_without_tags_are_no_failure() {
    let scene = Scene::new();
    scene.fill("org/a", &["v1"]);
    scene.fill("org/empty", &["v1"]);
    scene.fill("org/gone", &["v1"]);
    let null = answer(r#"{"name":"org/empty","tags":null}"#, &[]);
    scene.source.fault(Matcher::new("GET", "org/empty/tags").always(), null);
    scene.source.fault(Matcher::new("GET", "org/gone/tags").always(), Fault::error(404, "NAME_UNKNOWN", "gone"));
    scene.tree("org", "m", &[]).success();
    assert_eq!(scene.copied(), ["m/a:v1"]);
}

#[test]
fn passing_failures_are_tried_again_alone() {
    let scene = Scene::new();
    scene.fill("org/a", &["v1"]);
    scene.fill("org/b", &["v1"]);
    scene.source.fault(Matcher::new("GET", "org/b/tags").times(2), Fault::status(503));
    // What refers to an image may stand in tags: without, tags are listed for the batch alone.
    scene.tree("org", "m", &["--no-referrers"]).success();
    assert_eq!(scene.copied(), ["m/a:v1", "m/b:v1"]);
    assert_eq!((scene.source.count("GET", "org/a/tags"), scene.source.count("GET", "org/b/tags")), (1, 3));
}

#[test]
fn a_row_of_that_kind_by_hand_is_rejected() {
    let scene = Scene::new();
    scene.binary.run(&["db", "migrate"]).success();
    let insert = "INSERT INTO jobs (kind, source, destination) VALUES ('expand', 'a.example/x', 'b.example/x')";
    if scene.binary.sql(insert).is_none() {
        return;
    }
    scene.binary.run(&["work", "--drain"]).expect_code(1);
    let job = scene.binary.run(&["jobs", "show", "1", "-o", "json"]).success().json();
    assert_eq!(job["failure"]["class"], "rejected");
    assert!(job["failure"]["message"].as_str().unwrap().contains("replicate-tree"), "{job:#}");
}
