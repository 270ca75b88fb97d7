//! Credentials: passwords in files, from helpers, tokens that expire on the way, and what is said when they are wrong.

use super::{assert_failure, assert_whole, binary, fails, replicated, reported};
use crate::support::binary::Binary;
use crate::support::eventually;
use crate::support::fake::{Auth, Fake, Fault, Matcher, Options};
use crate::support::image::{Image, ImageBuilder};
use crate::support::registry::Registry;
use crate::support::token_server::{Account, TokenServer};
use base64::Engine as _;
use serde_json::json;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

/// `user:password` as it stands in a config.json and in a Basic header.
fn pair(user: &str, password: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))
}

fn small_image() -> Image {
    ImageBuilder::oci(1).layers(3, 20_000).build()
}

#[test]
fn passwords_of_the_docker_config() {
    let (Some(source), Some(destination)) = (Registry::with_user("ann", "one"), Registry::with_user("bob", "two"))
    else {
        return;
    };
    let image = small_image();
    image.push(&source.client().basic("ann", "one"), "a", "v1");
    let binary = binary();
    binary.docker_config(&json!({ "auths": {
        source.authority(): { "auth": pair("ann", "one") },
        format!("http://{}/v1/", destination.authority()): { "auth": pair("bob", "two") },
    }}));
    replicated(&binary, &source.reference("a", "v1"), &destination.reference("b", "v1"), &[]);
    image.assert_at(&destination.client().basic("bob", "two"), "b", "v1");
}

#[test]
fn other_places_of_a_config_are_read() {
    let fake = Fake::start_with(Options { auth: Auth::basic("ann", "one"), ..Options::default() });
    let image = small_image();
    fake.put_image("a", "v1", &image);
    let config = json!({ "auths": { fake.authority(): { "auth": pair("ann", "one") } } }).to_string();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), &config).unwrap();
    std::fs::write(folder.path().join("auth.json"), &config).unwrap();
    let from = fake.reference("a", "v1");
    let shown = folder.path().display();
    for (name, value) in [("DOCKER_CONFIG", format!("{shown}")), ("REGISTRY_AUTH_FILE", format!("{shown}/auth.json"))] {
        let manifest = Binary::new().env(name, value).run(&["manifest", &from]).success();
        assert_eq!(manifest.stdout, image.manifest, "{name}");
    }
    let refused = Binary::new().run(&["-o", "json", "manifest", &from]).expect_code(1);
    assert_eq!(super::error_of(&refused)["code"], "denied");
}

/// A program `docker-credential-rig` in a folder of its own that prints this.
fn helper(script: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("docker-credential-rig");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn with_helper(folder: &tempfile::TempDir) -> Binary {
    let path = std::env::var("PATH").unwrap();
    binary().env("PATH", format!("{}:{path}", folder.path().display()))
}

#[test]
fn a_credential_helper_is_asked_for_the_registry() {
    let Some(registry) = Registry::with_user("ann", "one") else {
        return;
    };
    let image = small_image();
    image.push(&registry.client().basic("ann", "one"), "a", "v1");
    let script = format!(
        r#"read -r server
case "$1 $server" in
    "get {authority}") printf '{{"ServerURL":"%s","Username":"ann","Secret":"one"}}' "$server" ;;
    *) echo "credentials not found in native keychain"; exit 1 ;;
esac"#,
        authority = registry.authority()
    );
    let folder = helper(&script);
    for config in [json!({ "credHelpers": { registry.authority(): "rig" } }), json!({ "credsStore": "rig" })] {
        let binary = with_helper(&folder);
        binary.docker_config(&config);
        let to = format!("copy-{}", config.to_string().len());
        replicated(&binary, &registry.reference("a", "v1"), &registry.reference(&to, "v1"), &[]);
        image.assert_at(&registry.client().basic("ann", "one"), &to, "v1");
    }
}

#[test]
fn a_failing_helper_is_named_and_its_secret_is_not() {
    let fake = Fake::start_with(Options { auth: Auth::basic("ann", "one"), ..Options::default() });
    fake.put_image("a", "v1", &small_image());
    // By their protocol, helpers say on standard output what is wrong.
    for (script, said) in [
        ("echo 'the keychain is locked'; exit 3", "the keychain is locked"),
        (r#"echo '{"Username":"ann","Secret":"out-secret'"#, "not valid"),
        (r#"echo '{"Username":"ann","Secret":"out-secret"}'; exit 1"#, "exit status"),
        ("echo out-secret", "not valid"),
    ] {
        let folder = helper(script);
        let binary = with_helper(&folder);
        binary.docker_config(&json!({ "credHelpers": { fake.authority(): "rig" } }));
        let output = binary.run(&["--log-level", "trace", "manifest", &fake.reference("a", "v1")]).expect_code(1);
        let errors = output.errors();
        assert!(errors.contains("docker-credential-rig") && errors.contains(said), "{output}");
        assert!(!errors.contains("out-secret"), "{output}");
    }
}

#[test]
fn a_wrong_password_is_denied_at_once() {
    let Some(registry) = Registry::with_user("ann", "one") else {
        return;
    };
    let image = small_image();
    image.push(&registry.client().basic("ann", "one"), "a", "v1");
    let open = Fake::start();
    let binary = binary();
    binary.docker_login(registry.authority(), "ann", "wrong-password");
    let job = fails(&binary, &registry.reference("a", "v1"), &open.reference("b", "v1"), &[]);
    assert_failure(&job, "denied", "resolve", 1);
    let message = job["failure"]["message"].as_str().unwrap();
    assert!(message.contains(registry.authority()) && message.contains("401"), "{message}");
    assert!(!message.contains("wrong-password"), "{message}");
    // The destination is looked at first: nothing is read for nothing.
    open.put_image("b", "v1", &image);
    let job = fails(&binary, &open.reference("b", "v1"), &registry.reference("c", "v1"), &[]);
    assert_eq!(job["failure"]["class"], "denied");
    assert_eq!(open.count("GET", "/blobs/"), 0);
}

#[test]
fn a_token_server_refuses_a_wrong_password() {
    let tokens = TokenServer::start(vec![Account::user("ann", "one").may("repository:*", "*")]);
    let Some(registry) = Registry::with_tokens(&tokens) else {
        return;
    };
    let (binary, open) = (binary(), Fake::start());
    binary.docker_login(registry.authority(), "ann", "wrong-password");
    let job = fails(&binary, &registry.reference("a", "v1"), &open.reference("b", "v1"), &[]);
    assert_failure(&job, "denied", "resolve", 1);
    assert!(tokens.asked().len() <= 2, "asked again and again: {:?}", tokens.asked());
}

#[test]
fn tokens_of_a_real_registry() {
    let tokens = TokenServer::start(vec![
        Account::user("ann", "one").may("repository:team/*", "pull,push").may("repository:public/*", "pull"),
    ]);
    let (Some(source), Some(destination)) = (Registry::with_tokens(&tokens), Registry::with_tokens(&tokens)) else {
        return;
    };
    let image = small_image();
    source.seed("public/app", "v1", &image);
    let binary = binary();
    binary.docker_config(&json!({ "auths": {
        source.authority(): { "auth": pair("ann", "one") },
        destination.authority(): { "username": "ann", "password": "one" },
    }}));
    let to = destination.reference("team/app", "v1");
    let job = replicated(&binary, &source.reference("public/app", "v1"), &to, &[]);
    let reader = destination.client().bearer(&tokens.mint(&["repository:team/app:pull"]));
    image.assert_at(&reader, "team/app", "v1");
    let asked = tokens.asked();
    assert!(asked.iter().all(|asked| asked.user.as_deref() == Some("ann") && asked.status == 200), "{asked:?}");
    assert!(asked.len() <= 4, "tokens are kept: {asked:?}");
    assert!(reported(&job, "requests") >= asked.len() as u64 + 10);

    // Where only reading is allowed, writing is denied, and the message says whose credentials were used.
    let to = destination.reference("public/app", "v1");
    let job = fails(&binary, &source.reference("public/app", "v1"), &to, &[]);
    assert_eq!(job["failure"]["class"], "denied", "{job:#}");
    assert!(job["failure"]["message"].as_str().unwrap().contains("ann"), "{job:#}");
}

/// The source stands still in the middle of a layer until the tokens of the destination have ended.
#[test]
fn a_token_ends_in_the_middle_of_a_slow_copy() {
    let tokens = TokenServer::start(vec![Account::user("ann", "one").may("repository:*", "pull,push")]);
    let Some(destination) = Registry::with_tokens(&tokens) else {
        return;
    };
    tokens.set_lifetime(Duration::from_secs(2));
    let (source, image) = (Fake::start(), ImageBuilder::oci(1).layers(3, 1_500_000).build());
    source.put_image("a", "v1", &image);
    let middle = Fault::StallBodyAfter { bytes: 700_000, name: "middle".into() };
    source.fault(Matcher::new("GET", &image.layers()[1].digest), middle);
    // The upload of this one is begun, its content not.
    source.fault(Matcher::new("GET", &image.layers()[2].digest), Fault::HoldUntil("middle".into()));
    let binary = binary();
    binary.docker_login(destination.authority(), "ann", "one");
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    let running = binary.spawn(&["-o", "json", "replicate", &from, &to]);
    source.wait_reached("middle");
    let own = destination.client().bearer(&tokens.mint(&["repository:b:pull"]));
    eventually("all tokens to end", || (own.get("/v2/b/tags/list").status == 401).then_some(()));
    source.release("middle");
    let job = running.finish().success().json();
    assert_eq!((&job["state"], &job["attempt"]), (&"completed".into(), &1.into()), "{job:#}");
    tokens.set_lifetime(Duration::from_secs(300));
    let reader = destination.client().bearer(&tokens.mint(&["repository:b:pull"]));
    image.assert_at(&reader, "b", "v1");
    // One at the beginning, and another one when that had ended.
    assert!(tokens.asked().len() >= 2, "{:?}", tokens.asked());
}

#[test]
fn an_upload_is_answered_401_and_sent_again() {
    let source = Fake::start();
    let destination = Fake::start_with(Options { auth: Auth::bearer_for("ann", "one"), ..Options::default() });
    let image = ImageBuilder::oci(1).layers(2, 600_000).build();
    source.put_image("a", "v1", &image);
    let large = &image.layers()[0].digest;
    source.fault(Matcher::new("GET", large), Fault::HoldUntil("begun".into()));
    let binary = binary();
    binary.docker_login(&destination.authority(), "ann", "one");
    let (from, to) = (source.reference("a", "v1"), destination.reference("b", "v1"));
    let running = binary.spawn(&["-o", "json", "replicate", &from, &to]);
    // The upload is open and its token looks good, but the registry has thrown its key away.
    source.wait_reached("begun");
    destination.revoke_tokens();
    source.release("begun");
    let job = running.finish().success().json();
    assert_eq!(job["attempt"], 1, "{job:#}");
    assert_whole(&destination, "b", "v1", &image);
    let refused = destination.requests().iter().filter(|seen| seen.status == Some(401) && seen.authorized()).count();
    assert!(refused >= 1, "{:#?}", destination.requests());
    let user = |request: &crate::support::fake::TokenRequest| request.user.as_deref() == Some("ann") && request.granted;
    assert!(destination.token_requests().iter().all(user), "{:?}", destination.token_requests());
}
