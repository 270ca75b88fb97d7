//! Credential files and helpers.

use super::super::credentials::{Credential, Credentials, Found, KEPT};
use super::*;
use crate::clock::UnixMillis;
use crate::job::retry::Class;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::os::unix::fs::PermissionsExt;

struct Fixture {
    dir: tempfile::TempDir,
    clock: Clock,
    hand: Arc<crate::clock::ManualClock>,
}

impl Fixture {
    fn new() -> Self {
        let (clock, hand) = Clock::manual(UnixMillis(0));
        Self { dir: tempfile::tempdir().unwrap(), clock, hand }
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn helper(&self, name: &str, script: &str) {
        let path = self.write(&format!("docker-credential-{name}"), &format!("#!/bin/sh\n{script}\n"));
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn credentials(&self, files: Vec<PathBuf>) -> Credentials {
        let settings = Settings { credential_files: Some(files), ..Settings::default() };
        let mut credentials = Credentials::new(&settings, self.clock.clone());
        let mut search = self.dir.path().as_os_str().to_owned();
        search.push(":/usr/bin:/bin");
        credentials.helper_path = Some(search);
        credentials
    }
}

fn show(found: Result<Option<Arc<Found>>, Error>) -> String {
    match found.unwrap().map(|found| found.credential.clone()) {
        None => "none".to_owned(),
        Some(Credential::Basic { username, password }) => format!("{username}:{}", password.expose()),
        Some(Credential::Identity { username, token }) => format!("identity {username} {}", token.expose()),
        Some(Credential::Registry { token }) => format!("registry {}", token.expose()),
    }
}

fn basic(text: &str) -> String {
    STANDARD.encode(text)
}

#[tokio::test]
async fn every_kind_of_entry() {
    let fixture = Fixture::new();
    let file = fixture.write(
        "config.json",
        &format!(
            r#"{{"HttpHeaders": {{"x": "y"}}, "auths": {{
                "plain.example.com": {{"auth": "{}"}},
                "https://url.example.com/v2/": {{"username": "u", "password": "p:q"}},
                "old.example.com/v1/": {{"auth": "{}"}},
                "acr.example.com": {{"auth": "{}", "identitytoken": "refresh"}},
                "reg.example.com": {{"registrytoken": "bearer"}},
                "empty.example.com": {{}}, "null.example.com": null,
                "localhost:5000": {{"auth": "{}"}}
            }}}}"#,
            basic("me:secret"),
            basic("old:pw\0\0"),
            basic("00000000-0000-0000-0000-000000000000:"),
            basic("local:pw"),
        ),
    );
    let credentials = fixture.credentials(vec![fixture.dir.path().join("missing.json"), file]);
    for (host, expected) in [
        ("plain.example.com", "me:secret"),
        ("url.example.com", "u:p:q"),
        ("old.example.com", "old:pw"),
        ("acr.example.com", "identity 00000000-0000-0000-0000-000000000000 refresh"),
        ("reg.example.com", "registry bearer"),
        ("empty.example.com", "none"),
        ("null.example.com", "none"),
        ("localhost:5000", "local:pw"),
        ("localhost:5001", "none"),
        ("localhost", "none"),
    ] {
        assert_eq!(show(credentials.find(host, "a/b").await), expected, "{host}");
    }
}

#[tokio::test]
async fn the_longest_path_wins_and_the_first_file_that_knows() {
    let fixture = Fixture::new();
    let auth = |who: &str| format!(r#"{{"auth": "{}"}}"#, basic(&format!("{who}:x")));
    let one = fixture.write(
        "one.json",
        &format!(
            r#"{{"auths": {{"quay.io": {}, "quay.io/org": {}, "quay.io/org/app": {}}}}}"#,
            auth("host"),
            auth("org"),
            auth("app")
        ),
    );
    let two = fixture.write(
        "two.json",
        &format!(r#"{{"auths": {{"quay.io/org/app/deep": {}, "ghcr.io": {}}}}}"#, auth("no"), auth("two")),
    );
    let credentials = fixture.credentials(vec![one, two]);
    for (host, name, expected) in [
        ("quay.io", "org/app/deep", "app:x"),
        ("quay.io", "org/app", "app:x"),
        ("quay.io", "org/application", "org:x"),
        ("quay.io", "other", "host:x"),
        ("quay.io", "", "host:x"),
        ("ghcr.io", "org/app", "two:x"),
    ] {
        assert_eq!(show(credentials.find(host, name).await), expected, "{host}/{name}");
    }
}

#[tokio::test]
async fn docker_hub_has_many_names() {
    for key in ["docker.io", "index.docker.io", "https://index.docker.io/v1/", "registry-1.docker.io"] {
        let fixture = Fixture::new();
        let file = fixture.write("c.json", &format!(r#"{{"auths": {{"{key}": {{"auth": "{}"}}}}}}"#, basic("hub:x")));
        let credentials = fixture.credentials(vec![file]);
        assert_eq!(show(credentials.find("docker.io", "library/alpine").await), "hub:x", "{key}");
    }
}

#[tokio::test]
async fn helpers_and_stores_are_asked() {
    let fixture = Fixture::new();
    fixture.helper(
        "fake",
        r#"read server; [ "$1" = get ] || exit 9
        case $server in
          none.example.com) echo "credentials not found in native keychain"; exit 1;;
          token.example.com) echo '{"Username":"<token>","Secret":"refresh"}';;
          bad.example.com) echo "please log in again"; exit 3;;
          odd.example.com) echo "hush-hush";;
          *) echo "{\"ServerURL\":\"$server\",\"Username\":\"$server\",\"Secret\":\"pw\"}";;
        esac"#,
    );
    let file = fixture.write(
        "c.json",
        r#"{"credsStore": "fake", "auths": {"store.example.com": {}},
            "credHelpers": {"own.example.com": "fake", "gone.example.com": "missing", "evil.example.com": "../fake"}}"#,
    );
    let credentials = fixture.credentials(vec![file.clone()]);
    assert_eq!(show(credentials.find("own.example.com", "a").await), "own.example.com:pw");
    assert_eq!(show(credentials.find("store.example.com", "a").await), "store.example.com:pw");
    assert_eq!(show(credentials.find("docker.io", "a").await), "https://index.docker.io/v1/:pw");
    assert_eq!(show(credentials.find("token.example.com", "a").await), "identity <token> refresh");
    assert_eq!(show(credentials.find("none.example.com", "a").await), "none");
    for (host, word) in [
        ("bad.example.com", "please log in again"),
        ("odd.example.com", "not valid"),
        ("gone.example.com", "not installed"),
        ("evil.example.com", "not the name"),
    ] {
        let error = credentials.find(host, "a").await.unwrap_err();
        assert_eq!(error.class(), Class::Refused);
        let text = error.to_string();
        assert!(text.contains(word) && text.contains(file.to_str().unwrap()), "{text}");
        assert!(!text.contains("hush"), "{text}");
    }
    // Files are shared between machines: a general store that is not here is no reason to fail.
    let file = fixture.write("d.json", r#"{"credsStore": "missing"}"#);
    assert_eq!(show(fixture.credentials(vec![file]).find("ghcr.io", "a").await), "none");
}

#[tokio::test]
async fn malformed_files_are_named_and_not_quoted() {
    let fixture = Fixture::new();
    for content in [
        r#"{"auths": {"a.example.com": "hush-hush"}}"#,
        r#"{"auths": {"a.example.com": {"auth": "hush-hush!"}}}"#,
        r#"{"auths": {"a.example.com": {"auth": "aHVzaA=="}}}"#,
        "hush-hush",
    ] {
        let file = fixture.write("c.json", content);
        let error = fixture.credentials(vec![file.clone()]).find("a.example.com", "b").await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains(file.to_str().unwrap()), "{text}");
        assert!(!text.contains("hush") && !text.contains("aHVz"), "{text}");
    }
    let file = fixture.write("c.json", " ");
    assert_eq!(show(fixture.credentials(vec![file]).find("a.example.com", "b").await), "none");
}

#[tokio::test]
async fn a_new_login_is_noticed_within_a_minute_or_after_a_failure() {
    let fixture = Fixture::new();
    let write = |who: &str| {
        let auth = basic(&format!("{who}:x"));
        fixture.write("c.json", &format!(r#"{{"auths": {{"a.example.com": {{"auth": "{auth}"}}}}}}"#))
    };
    let credentials = fixture.credentials(vec![write("one")]);
    assert_eq!(show(credentials.find("a.example.com", "b").await), "one:x");
    write("two");
    assert_eq!(show(credentials.find("a.example.com", "b").await), "one:x");
    fixture.hand.advance(KEPT);
    assert_eq!(show(credentials.find("a.example.com", "b").await), "two:x");
    write("three");
    credentials.forget("a.example.com", "b");
    assert_eq!(show(credentials.find("a.example.com", "b").await), "three:x");
}

#[tokio::test]
async fn secrets_are_not_printed() {
    let fixture = Fixture::new();
    let file = fixture.write("c.json", r#"{"auths": {"a.example.com": {"username": "me", "password": "hush"}}}"#);
    let found = fixture.credentials(vec![file]).find("a.example.com", "b").await.unwrap().unwrap();
    assert!(!format!("{found:?}").contains("hush"), "{found:?}");
}
