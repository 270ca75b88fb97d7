//! No credential in anything that is written: both streams at the most talkative level, and the database.

use super::binary;
use crate::support::binary::{Binary, Output};
use crate::support::fake::{Auth, Fake, Fault, Matcher, Options};
use crate::support::image::ImageBuilder;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::json;

const USER: &str = "ann-the-user";
const PASSWORD: &str = "correct/horse+battery?staple&1";

/// Every form in which the secrets could show.
fn secrets() -> Vec<String> {
    let pair = format!("{USER}:{PASSWORD}");
    let encoded = url::form_urlencoded::byte_serialize(PASSWORD.as_bytes()).collect();
    vec![
        PASSWORD.to_owned(),
        encoded,
        STANDARD_NO_PAD.encode(&pair),
        URL_SAFE_NO_PAD.encode(&pair),
        STANDARD_NO_PAD.encode(PASSWORD),
        // Tokens of the fake, the uploads' Locations, and a signed URL.
        "fake-token-".to_owned(),
        "_state=".to_owned(),
        "X-Signature".to_owned(),
    ]
}

/// The secrets found in what a call wrote and in every file of the database and the state folder.
fn found(binary: &Binary, output: &Output) -> Vec<String> {
    let mut places = vec![("stdout".to_owned(), output.stdout.clone()), ("stderr".to_owned(), output.stderr.clone())];
    let folder = binary.database().file().parent().unwrap().to_owned();
    for folder in [folder, binary.state()] {
        for entry in std::fs::read_dir(folder).unwrap().flatten().filter(|entry| entry.path().is_file()) {
            places.push((entry.path().display().to_string(), std::fs::read(entry.path()).unwrap()));
        }
    }
    let holds = |bytes: &[u8], secret: &str| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
    let mut found = Vec::new();
    for (place, bytes) in &places {
        found.extend(
            secrets().iter().filter(|secret| holds(bytes, secret)).map(|secret| format!("{secret} in {place}")),
        );
    }
    found
}

fn logged_in(fakes: &[&Fake]) -> Binary {
    let binary = binary();
    let auth = STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let auths: serde_json::Map<_, _> = fakes.iter().map(|fake| (fake.authority(), json!({ "auth": auth }))).collect();
    binary.docker_config(&json!({ "auths": auths }));
    binary
}

fn check(source: Auth, destination: Auth) {
    let start = |auth| Fake::start_with(Options { auth, ..Options::default() });
    let (source, destination, storage) = (start(source), start(destination), Fake::start());
    let image = ImageBuilder::oci(1).layers(2, 700_000).build();
    source.put_image("a", "v1", &image);
    let layer = &image.layers()[0].digest;
    storage.put_blob("a", image.layers()[0].content.clone());
    let signed = format!("{}/v2/a/blobs/{layer}?X-Signature=s3cr3t", storage.base_url());
    let location = vec![("location".to_owned(), signed)];
    source.fault(Matcher::new("GET", layer), Fault::Status { code: 307, headers: location, body: String::new() });
    destination.fault(Matcher::new("PUT", "/blobs/uploads/"), Fault::status(500));
    destination.fault(Matcher::new("PUT", "/blobs/uploads/"), Fault::CutUploadAfter(1000));
    destination.fault(Matcher::new("PUT", "/manifests/"), Fault::error(503, "UNAVAILABLE", "later"));
    let binary = logged_in(&[&source, &destination]);
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    let output = binary.run(&["--log-level", "trace", "replicate", &from, &to]).success();
    assert!(output.errors().contains("/v2/a/manifests/v1"), "nothing was logged: {output}");
    destination.assert_holds("b", "v1", &image);
    assert_eq!(found(&binary, &output), Vec::<String>::new());

    // A failure writes a message into the row.
    destination.fault(Matcher::new("*", "/v2/c/").always(), Fault::error(403, "DENIED", "no"));
    let to = destination.reference("c", "v1");
    let output = binary.run(&["--log-level", "trace", "--log-format", "json", "replicate", &from, &to]).expect_code(1);
    assert_eq!(found(&binary, &output), Vec::<String>::new());
    let output = binary.run(&["--log-level", "trace", "inspect", &from]).success();
    assert_eq!(found(&binary, &output), Vec::<String>::new());
}

#[test]
fn basic_credentials_are_written_nowhere() {
    check(Auth::basic(USER, PASSWORD), Auth::basic(USER, PASSWORD));
}

#[test]
fn tokens_and_what_they_are_got_for_are_written_nowhere() {
    check(Auth::bearer_for(USER, PASSWORD), Auth::bearer_for(USER, PASSWORD));
}

#[test]
fn refused_credentials_are_written_nowhere() {
    let source = Fake::start_with(Options { auth: Auth::bearer_for("other", "other"), ..Options::default() });
    let destination = Fake::start();
    let binary = logged_in(&[&source]);
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    let output = binary.run(&["--log-level", "trace", "replicate", &from, &to]).expect_code(1);
    assert_eq!(found(&binary, &output), Vec::<String>::new());
    let output = binary.run(&["--log-level", "trace", "doctor", &source.authority()]);
    assert_eq!(found(&binary, &output), Vec::<String>::new());
}

/// The search itself finds what is there.
#[test]
fn the_search_for_secrets_finds_them() {
    let binary = binary();
    let mut output = binary.run(&["db", "migrate"]).success();
    assert_eq!(found(&binary, &output), Vec::<String>::new());
    output.stderr = format!("x Basic {} y", STANDARD.encode(format!("{USER}:{PASSWORD}"))).into_bytes();
    std::fs::write(binary.state().join("x"), "a fake-token-1 b").unwrap();
    let found = found(&binary, &output).join(", ");
    assert!(found.contains("in stderr") && found.contains("fake-token-"), "{found}");
}
