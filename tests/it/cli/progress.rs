//! `--progress`: what programs can follow, and what people see without a terminal. And the summary of a run.

use super::assert_names;
use crate::support::binary::{Binary, Output};
use crate::support::fake::{Fake, Fault, Matcher};
use crate::support::image::ImageBuilder;
use serde_json::Value;

/// All of standard error, which must be one event a line.
fn events(output: &Output) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    output.errors().lines().map(parse).collect()
}

fn of<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == name).collect()
}

fn copy(source: &Fake, destination: &Fake, tag: &str) -> [String; 2] {
    [source.reference("team/app", tag), destination.reference("copy/app", tag)]
}

#[test]
fn events_tell_of_a_copy_from_its_begin_to_its_end() {
    let (source, destination, binary) = (Fake::start(), Fake::start(), Binary::new());
    source.put_image("team/app", "v1", &ImageBuilder::oci(1).layer(40_000_000).layer(1_000).build());
    let [from, to] = copy(&source, &destination, "v1");
    let output = binary.run(&["replicate", &from, &to, "--progress", "jsonl", "--bandwidth", "20MB/s"]).success();
    assert!(output.text().starts_with("copied "), "the result stays where it is: {output}");
    let events = events(&output);

    let (first, last) = (&events[0], &events[events.len() - 1]);
    assert_names(first, &["event", "at", "job", "attempt", "source", "destination"]);
    assert_eq!((&first["event"], &first["source"]), (&"started".into(), &from.as_str().into()));
    let counters = ["bytes_done", "bytes_total", "blobs_done", "blobs_total"];
    assert_names(last, &[&["event", "at", "job", "attempt", "state", "requests"], &counters[..]].concat());
    assert_eq!((&last["event"], &last["state"]), (&"finished".into(), &"completed".into()));
    assert_eq!((&last["blobs_done"], &last["bytes_done"]), (&3.into(), &last["bytes_total"]));

    let blobs = of(&events, "blob");
    assert_eq!(blobs.len(), 3, "{output}");
    assert_names(blobs[0], &["event", "at", "job", "digest", "bytes", "how", "registry", "repository"]);
    assert!(blobs.iter().all(|blob| blob["how"] == "copied" && blob["repository"] == "copy/app"), "{output}");

    let progress = of(&events, "progress");
    assert_names(progress[0], &[&["event", "at", "job", "rate", "large_blobs"], &counters[..]].concat());
    let large: Vec<_> = progress.iter().flat_map(|event| event["large_blobs"].as_array().unwrap()).collect();
    assert!(!large.is_empty(), "the large layer takes two seconds: {output}");
    assert_names(large[0], &["digest", "bytes_done", "bytes_total"]);
    assert!(large.iter().all(|blob| blob["bytes_total"].as_u64().unwrap() >= 40_000_000), "{output}");
}

#[test]
fn events_of_workers_tell_of_each_job() {
    let (source, destination, binary) = (Fake::start(), Fake::start(), Binary::new());
    source.put_image("team/app", "v1", &ImageBuilder::oci(1).layer(1_000).build());
    for tag in ["v1", "absent"] {
        let [from, to] = copy(&source, &destination, tag);
        binary.run(&["enqueue", &from, &to]).success();
    }
    let work = ["work", "--drain", "--progress", "jsonl", "--log-level", "error", "-o", "json"];
    let output = binary.run(&work).expect_code(1);
    let events: Vec<_> = events(&output).into_iter().filter(|value| value.get("error").is_none()).collect();
    for (job, state, blobs) in [(1, "completed", 2), (2, "failed", 0)] {
        let of_job: Vec<_> = events.iter().filter(|event| event["job"] == job).cloned().collect();
        assert_eq!(of(&of_job, "started").len(), 1, "{output}");
        assert_eq!(of(&of_job, "blob").len(), blobs, "{output}");
        let finished = of(&of_job, "finished");
        assert_eq!((finished.len(), &finished[0]["state"]), (1, &state.into()), "{output}");
    }
}

#[test]
fn what_a_waiting_copy_says_is_an_event_too() {
    let (source, destination, binary) = (Fake::start(), Fake::start(), Binary::new());
    let binary = binary.env("FREIGHTLINER_RETRY_BASE_MS", "10").env("FREIGHTLINER_REGISTRY_TRIES", "1");
    source.put_image("team/app", "v1", &ImageBuilder::oci(1).layer(1_000).build());
    source.fault(Matcher::new("*", "/manifests/v1").times(1), Fault::status(503));
    let [from, to] = copy(&source, &destination, "v1");
    let events = events(&binary.run(&["replicate", &from, &to, "--progress", "jsonl"]).success());
    let states: Vec<_> = of(&events, "finished").iter().map(|event| event["state"].clone()).collect();
    assert_eq!(states, ["scheduled", "completed"]);
    let notes = of(&events, "note");
    assert!(notes.iter().any(|note| note["message"].as_str().unwrap().contains("attempt 1 of")), "{notes:?}");
}

#[test]
fn nothing_is_shown_where_nothing_was_asked_for() {
    let (source, destination, binary) = (Fake::start(), Fake::start(), Binary::new());
    source.put_image("team/app", "v1", &ImageBuilder::oci(1).layer(1_000).build());
    let [from, to] = copy(&source, &destination, "v1");
    for how in [&["--progress", "none"][..], &["--no-progress"], &["--progress=bars"], &["--progress=plain"], &[]] {
        let output = binary.run(&[&["replicate", &from, &to], how].concat()).success();
        assert_eq!(output.errors(), "", "{how:?}");
    }
    binary.run(&["replicate", &from, &to, "--progress", "loud"]).expect_code(2);
    binary.run(&["replicate", &from, &to, "--progress", "plain", "--no-progress"]).expect_code(2);
}

#[test]
fn the_summary_of_a_run_says_what_was_done_and_saved() {
    let (source, destination, binary) = (Fake::start(), Fake::start(), Binary::new());
    let add = |tag: &str| {
        let [from, to] = copy(&source, &destination, tag);
        binary.run(&["enqueue", &from, &to]).success();
    };
    source.put_image("team/app", "v1", &ImageBuilder::oci(1).layer(2_000_000).build());
    add("v1");
    let output = binary.run(&["work", "--drain"]).success();
    let text = output.text();
    for part in
        ["images:   1 copied, 0 already there\n", "blobs:    2 copied\n", "bytes:    1.91 MiB sent, ", "requests: "]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains("saved"), "{text}");

    // The same layers under another tag, and what is there already.
    source.put_image("team/app", "v2", &ImageBuilder::oci(1).layer(2_000_000).layer(500).build());
    add("v1");
    add("v2");
    let run = binary.run(&["work", "--drain", "-o", "json"]).success().json();
    let names = ["completed", "failed", "cancelled", "released", "retried", "images_copied", "images_present"];
    let sums = ["blobs_copied", "blobs_mounted", "blobs_present", "blobs_resumed", "bytes_sent", "bytes_saved"];
    assert_names(&run, &[&names[..], &sums, &["requests", "duration_ms"]].concat());
    assert_eq!((&run["completed"], &run["images_copied"], &run["images_present"]), (&2.into(), &1.into(), &1.into()));
    assert_eq!((&run["blobs_present"], &run["blobs_copied"]), (&1.into(), &2.into()), "{run}");
    let (sent, saved) = (run["bytes_sent"].as_u64().unwrap(), run["bytes_saved"].as_u64().unwrap());
    assert!(saved >= 2_000_000 && sent < 10_000, "{run}");

    source.put_image("team/app", "v3", &ImageBuilder::oci(1).layer(2_000_000).layer(600).build());
    let [from, to] = copy(&source, &destination, "v3");
    let text = binary.run(&["replicate", &from, &to]).success().text();
    assert!(text.contains("saved:     1.91 MiB not sent: mounted or already there\n"), "{text}");
}
