//! Who may call, from where, and what is written down of it.

use super::{Served, key};
use crate::support::binary::Binary;
use crate::support::content::Content;
use crate::support::http::Client;
use crate::support::tls::Authority;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;

fn job(destination: &str) -> serde_json::Value {
    json!({"source": "127.0.0.1:9/a:1", "destination": destination, "queue": "held"})
}

fn with(key: &str, served: &Served, method: &str, path: &str, body: &serde_json::Value) -> u16 {
    let body = Content::Bytes(body.to_string().into_bytes().into());
    served.client.send(method, path, &[("X-API-Key", key)], Some(&body)).status
}

#[test]
fn each_role_may_do_its_part_and_all_of_it_is_on_record() {
    let binary = Binary::new();
    binary.run(&["queue", "pause", "held"]).success();
    let roles = ["read", "enqueue", "operate", "admin"];
    let keys = roles.map(|role| key(&binary, &[role, "--role", role]));
    let served = Served::start(&binary, &["--api-key-auth"]);
    for (key, expected) in keys.iter().zip([[200, 403, 403], [200, 202, 403], [200, 200, 200], [200, 200, 200]]) {
        let seen = [
            with(key, &served, "GET", "/api/v1/jobs", &json!({})),
            with(key, &served, "POST", "/api/v1/jobs", &job("127.0.0.1:9/b:1")),
            with(key, &served, "POST", "/api/v1/queues/x/pause", &json!({})),
        ];
        assert_eq!(seen, expected, "{key}");
    }
    if let Some(rows) =
        binary.sql("SELECT key_name || ' ' || method || ' ' || path || ' ' || outcome FROM audit_api ORDER BY seq")
    {
        assert_eq!(rows.len(), 8);
        assert_eq!(rows[0], "read POST /api/v1/jobs refused");
        assert_eq!(rows[2], "enqueue POST /api/v1/jobs allowed");
        let bare = binary
            .sql("SELECT COUNT(*) FROM api_calls WHERE address = '127.0.0.1' AND length(request_id) = 36")
            .unwrap();
        assert_eq!(bare, ["8"]);
    }
    served.end();
}

#[test]
fn wrong_expired_and_revoked_keys_are_refused_at_once() {
    let binary = Binary::new();
    let good = key(&binary, &["good", "--role", "read"]);
    let expired = key(&binary, &["old", "--role", "read", "--expires-in", "1ms"]);
    let served = Served::start(&binary, &["--api-key-auth"]);
    let status = |key: &str| served.client.send("GET", "/api/v1/jobs", &[("X-API-Key", key)], None);
    let bearer = |key: &str| served.client.clone().bearer(key).get("/api/v1/jobs").status;
    assert_eq!((status(&good).status, bearer(&good)), (200, 200));
    assert_eq!(served.get("/api/v1/jobs").expect(401).json()["error"], "Invalid API key");
    for wrong in [expired.as_str(), "", "x", &good[..good.len() - 1], &format!("{good}0"), "fl_000000000000_00"] {
        assert_eq!(status(wrong).status, 401, "{wrong}");
    }
    let flipped = format!("{}{}", &good[..good.len() - 1], if good.ends_with('0') { '1' } else { '0' });
    assert_eq!(status(&flipped).status, 401);
    binary.run(&["keys", "revoke", "good"]).success();
    assert_eq!(status(&good).expect(401).json()["error"], "Invalid API key");
    let listed = binary.run(&["keys", "list", "-o", "json"]).success();
    assert!(!listed.text().contains(&good) && listed.text().contains("revoked_at"), "{listed}");
    let log = served.end();
    assert!(!log.errors().contains(&good) && !log.errors().contains(&expired), "{log}");
}

#[test]
fn who_guesses_has_to_wait() {
    let binary = Binary::new();
    let good = key(&binary, &["good", "--role", "read"]);
    let served = Served::start(&binary, &["--api-key-auth"]);
    for _ in 0..10 {
        served.client.send("GET", "/api/v1/jobs", &[("X-API-Key", "guess")], None).expect(401);
    }
    let told = served.client.send("GET", "/api/v1/jobs", &[("X-API-Key", good.as_str())], None).expect(429);
    let wait: u64 = told.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=61).contains(&wait), "{wait}");
    served.get("/health").expect(200);
    served.end();
}

#[test]
fn a_key_is_limited_to_its_destinations() {
    let binary = Binary::new();
    binary.run(&["queue", "pause", "held"]).success();
    let key = key(&binary, &["team", "--role", "operate", "--destination", "127.0.0.1:9/team"]);
    let served = Served::start(&binary, &["--api-key-auth"]);
    for (destination, expected) in [
        ("127.0.0.1:9/team/app:1", 202),
        ("127.0.0.1:9/team:1", 202),
        ("127.0.0.1:9/teams:1", 403),
        ("h.example/team:1", 403),
    ] {
        assert_eq!(with(&key, &served, "POST", "/api/v1/jobs", &job(destination)), expected, "{destination}");
    }
    let both = json!([job("127.0.0.1:9/team/x:1"), job("127.0.0.1:9/other:1")]);
    assert_eq!(with(&key, &served, "POST", "/api/v1/jobs", &both), 403);
    let other = binary.run(&["enqueue", "127.0.0.1:9/a:1", "127.0.0.1:9/other:1", "--queue", "held"]).success();
    let path = format!("/api/v1/jobs/{}/cancel", other.text().trim());
    assert_eq!(with(&key, &served, "POST", &path, &json!({})), 403);
    assert_eq!(with(&key, &served, "POST", "/api/v1/jobs/1/cancel", &json!({})), 200);
    for path in ["/api/v1/queues/x/pause", "/api/v1/schedules"] {
        assert_eq!(with(&key, &served, "POST", path, &json!({"name": "x"})), 403, "{path}");
    }
    let layout = json!({"source": "oci:/etc", "destination": "127.0.0.1:9/team:1"});
    assert_eq!(with(&key, &served, "POST", "/api/v1/jobs", &layout), 403);
    assert_eq!(binary.run(&["jobs", "stats", "-o", "json"]).success().json()["pending"], 2);
    served.end();
}

#[test]
fn keys_that_protect_nothing_are_refused_at_the_start() {
    let binary = Binary::new();
    let file = binary.home().join("key");
    let path = file.to_str().unwrap();
    let serve = |arguments: &[&str]| binary.run(&[&["serve", "--port", "0", "--no-metrics-port"], arguments].concat());
    let output = serve(&["--api-key-auth"]).expect_code(2);
    assert!(output.errors().contains("there is none"), "{output}");
    std::fs::write(&file, "short").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(serve(&["--api-key-file", path]).expect_code(2).errors().contains("too short"));
    std::fs::write(&file, "").unwrap();
    assert!(serve(&["--api-key-file", path]).expect_code(2).errors().contains("too short"));
    std::fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(serve(&["--api-key-file", path]).expect_code(2).errors().contains("chmod 600"));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(serve(&["--api-key", "short"]).expect_code(2).errors().contains("too short"));
    assert!(serve(&["--api-key", ""]).expect_code(2).errors().contains("too short"));
    for host in ["0.0.0.0", "::", ""] {
        let output = serve(&["--host", host]).expect_code(2);
        assert!(output.errors().contains("--allow-anybody"), "{output}");
    }
    let served = Served::start(&binary, &["--api-key-file", path, "--host", "0.0.0.0"]);
    let port = served.address.rsplit_once(':').unwrap().1;
    let client = Client::new(format!("127.0.0.1:{port}"));
    client.get("/api/v1/jobs").expect(401);
    client.bearer("0123456789abcdef0123456789abcdef").get("/api/v1/jobs").expect(200);
    served.end();
}

#[test]
fn web_pages_call_only_from_where_they_may() {
    let binary = Binary::new();
    let key = key(&binary, &["page", "--role", "read"]);
    let origins = "https://app.example.com,*.corp.example";
    let served = Served::start(&binary, &["--api-key-auth", "--allowed-origins", origins]);
    let ask = |method: &str, headers: &[(&str, &str)]| served.client.send(method, "/api/v1/jobs", headers, None);
    let preflight = ask(
        "OPTIONS",
        &[
            ("Origin", "https://app.example.com"),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "x-api-key"),
        ],
    );
    assert_eq!(preflight.status, 200);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("https://app.example.com"));
    assert!(preflight.header("access-control-allow-headers").unwrap().contains("x-api-key"));
    let answer = ask("GET", &[("Origin", "https://a.corp.example"), ("X-API-Key", &key)]).expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.corp.example"));
    assert!(answer.header("vary").unwrap().to_lowercase().contains("origin"));
    for near in ["https://app.example.com.evil.example", "https://evilcorp.example", "null", "http://app.example.com"] {
        let answer = ask("GET", &[("Origin", near), ("X-API-Key", &key)]).expect(403);
        assert_eq!(answer.json()["error"], "Origin not allowed", "{near}");
        assert_eq!(answer.header("access-control-allow-origin"), None, "{near}");
    }
    ask("GET", &[("X-API-Key", &key)]).expect(200);
    served.end();
    let served = Served::start(&binary, &["--api-key-auth", "--allowed-origins", "*"]);
    let answer = served
        .client
        .send("GET", "/api/v1/jobs", &[("Origin", "https://x.example"), ("X-API-Key", &key)], None)
        .expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    served.end();
}

#[test]
fn a_renewed_certificate_is_picked_up() {
    let binary = Binary::new();
    let (first, second) = (Authority::new(), Authority::new());
    let (chain, key) = (binary.home().join("chain.pem"), binary.home().join("key.pem"));
    let install = |identity: &Authority| {
        std::fs::copy(identity.certificate(), &chain).unwrap();
        std::fs::copy(identity.key(), &key).unwrap();
    };
    install(&first);
    let (chain, key) = (chain.to_str().unwrap(), key.to_str().unwrap());
    let served = Served::start(&binary, &["--tls", "--tls-cert", chain, "--tls-key", key]);
    let port = served.address.rsplit_once(':').unwrap().1;
    let client = |identity: &Authority| Client::new(format!("localhost:{port}")).trusting(&identity.ca());
    let answer = client(&first).get("/live").expect(200);
    assert!(answer.header("strict-transport-security").is_some());
    assert!(client(&second).try_send("GET", "/live", &[], None).is_err(), "another authority");
    install(&second);
    crate::support::eventually("the new certificate", || client(&second).try_send("GET", "/live", &[], None).ok());
    assert!(client(&first).try_send("GET", "/live", &[], None).is_err(), "the old one is gone");
    served.end();
}

/// What others can read of a process.
fn seen(id: u32) -> String {
    let read = |name: &str| std::fs::read(format!("/proc/{id}/{name}")).unwrap();
    String::from_utf8_lossy(&[read("environ"), read("cmdline")].concat()).into_owned()
}

#[test]
fn keys_that_were_typed_or_in_a_variable_are_out_of_sight() {
    const KEY: &str = "0123456789abcdef-typed";
    let typed: [&[&str]; 3] = [&["--api-key", KEY], &[], &["--api-key=0123456789abcdef-typed"]];
    for (binary, arguments) in
        [Binary::new(), Binary::new().env("FREIGHTLINER_API_KEY", KEY), Binary::new()].into_iter().zip(typed)
    {
        let served = Served::start(&binary, arguments);
        served.get("/api/v1/jobs").expect(401);
        served.client.clone().bearer(KEY).get("/api/v1/jobs").expect(200);
        let seen = seen(served.running.id());
        assert!(seen.contains("serve") && !seen.contains(KEY), "{seen}");
        // Nor is anything left in what children would inherit.
        for entry in std::fs::read_dir(format!("/proc/{}/fd", served.running.id())).unwrap() {
            let path = entry.unwrap().path();
            let is_memory =
                std::fs::read_link(&path).is_ok_and(|target| target.to_string_lossy().starts_with("/memfd:"));
            assert!(!is_memory || std::fs::read(&path).unwrap().is_empty(), "{}", path.display());
        }
        let log = served.end();
        assert!(!log.errors().contains(KEY), "{log}");
    }
    let binary = Binary::new().env("FREIGHTLINER_HIDDEN_FD", "0");
    assert!(binary.run(&["version"]).expect_code(1).errors().contains("unset it"));
}
