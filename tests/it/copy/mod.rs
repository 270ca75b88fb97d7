//! Copying through the real binary, between real registries, fakes and layouts: what arrives, what is asked, what is said.
//!
//! Every test starts its own servers and its own program with its own database. What the program says is compared with
//! what the servers saw; neither alone is believed.

mod anonymous;
mod auth;
mod broken_sources;
mod chaos;
mod destinations;
mod findings;
mod hints;
mod layouts;
mod look;
mod memory;
mod options;
mod platforms;
mod proxies;
mod quirks;
mod ranges;
mod redirects;
mod referrers;
mod refusals;
mod requests;
mod resume;
mod secrets;
mod shapes;
mod tls;
mod upload_once;
mod verify;

use crate::support::binary::{Binary, Output};
use crate::support::fake::Fake;
use crate::support::image::Image;
use serde_json::Value;

/// The program, with pauses between attempts that a test can wait for.
pub fn binary() -> Binary {
    Binary::new().env("FREIGHTLINER_RETRY_BASE_MS", "20")
}

/// `replicate` with JSON.
pub fn replicate(binary: &Binary, source: &str, destination: &str, more: &[&str]) -> Output {
    binary.run(&[&["-o", "json", "replicate", source, destination], more].concat())
}

/// A copy that must succeed: the finished job.
pub fn replicated(binary: &Binary, source: &str, destination: &str, more: &[&str]) -> Value {
    let job = replicate(binary, source, destination, more).success().json();
    assert_eq!((&job["state"], &job["failure"]), (&"completed".into(), &Value::Null), "{job:#}");
    assert!(job["report"].is_object(), "{job:#}");
    job
}

/// A copy that must fail: exit code 1, one error on stderr with the failure's class as its code, and the failed job.
pub fn fails(binary: &Binary, source: &str, destination: &str, more: &[&str]) -> Value {
    let output = replicate(binary, source, destination, more).expect_code(1);
    let job = output.json();
    assert_eq!((&job["state"], &job["report"]), (&"failed".into(), &Value::Null), "{output}");
    let error = error_of(&output);
    assert_eq!(error["code"], job["failure"]["class"], "{output}");
    let message = job["failure"]["message"].as_str().unwrap_or_default();
    assert!(!message.is_empty() && !message.contains('\n'), "not one line: {output}");
    assert!(error["message"].as_str().is_some_and(|whole| whole.contains(message)), "{output}");
    job
}

/// The error object on stderr: its last line.
pub fn error_of(output: &Output) -> Value {
    let errors = output.errors();
    let last = errors.lines().last().unwrap_or_default();
    let value: Value = serde_json::from_str(last).unwrap_or_else(|error| panic!("no JSON error ({error}): {output}"));
    value["error"].clone()
}

/// Panics unless the job failed in this class, stage and attempt.
pub fn assert_failure(job: &Value, class: &str, stage: &str, attempt: u64) {
    let failure = &job["failure"];
    let seen = (failure["class"].as_str(), failure["stage"].as_str(), job["attempt"].as_u64());
    assert_eq!(seen, (Some(class), Some(stage), Some(attempt)), "{job:#}");
}

/// A number of the job's report.
pub fn reported(job: &Value, name: &str) -> u64 {
    job["report"][name].as_u64().unwrap_or_else(|| panic!("no number {name} in {job:#}"))
}

/// Panics unless the fake holds all of the image, the blobs' bytes included.
pub fn assert_whole(fake: &Fake, repository: &str, reference: &str, image: &Image) {
    fake.assert_holds(repository, reference, image);
    for blob in image.all_blobs() {
        let held = fake.blob(repository, &blob.digest).expect("just seen");
        assert_eq!(held.to_bytes(), blob.content.to_bytes(), "{}", blob.digest);
    }
    assert_eq!(fake.open_uploads(), 0, "an upload was left open");
}

/// Panics when this repository of the fake has a tag, or a manifest was ever put there.
pub fn assert_nothing_published(fake: &Fake, repository: &str) {
    assert_eq!(fake.tags(repository), Vec::<String>::new());
    assert_eq!(fake.count("PUT", &format!("/v2/{repository}/manifests/")), 0, "{:#?}", fake.requests());
}
