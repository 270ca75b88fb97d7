//! Challenges, tokens, Basic, and what is never shown to whom.

use super::server::{Reply, Seen, Server};
use super::*;
use crate::clock::UnixMillis;
use crate::job::retry::Class;
use std::sync::Mutex;
use tokio::task::JoinSet;

/// A registry with its own token server: tokens are `t1`, `t2`, ... with the scopes behind; only the newest generation is
/// accepted, and only for what it was asked for.
#[derive(Default)]
struct Guard {
    issued: AtomicU64,
    oldest_good: AtomicU64,
    /// Realm, when it is not the registry itself.
    realm: Mutex<Option<String>>,
}

impl Guard {
    fn reply(&self, seen: &Seen) -> Reply {
        if let Some(query) = seen.path.strip_prefix("/token?") {
            let number = self.issued.fetch_add(1, Ordering::SeqCst) + 1;
            let scopes: Vec<String> = url::form_urlencoded::parse(query.as_bytes())
                .filter(|(key, _)| key == "scope")
                .map(|(_, value)| value.into_owned())
                .collect();
            let token = format!("t{number}|{}", scopes.join("|"));
            return Reply::new(200).body(format!(r#"{{"token":"{token}","expires_in":300}}"#));
        }
        let name = seen.path.split('/').nth(2).unwrap();
        let action = if seen.method == "GET" || seen.method == "HEAD" { "pull" } else { "push" };
        let good =
            seen.authorization.as_deref().and_then(|header| header.strip_prefix("Bearer t")).is_some_and(|token| {
                let (number, scopes) = token.split_once('|').unwrap();
                let fits = scopes
                    .split('|')
                    .any(|scope| scope.starts_with(&format!("repository:{name}:")) && scope.contains(action));
                number.parse::<u64>().unwrap() > self.oldest_good.load(Ordering::SeqCst) && fits
            });
        if good {
            return match seen.method.as_str() {
                "POST" => Reply::new(201),
                _ => Reply::new(200).body("{}"),
            };
        }
        let actions = if action == "push" { "pull,push" } else { "pull" };
        let host = seen.header("host").unwrap();
        let realm = self.realm.lock().unwrap().clone().unwrap_or_else(|| format!("http://{host}/token"));
        Reply::error(401, "UNAUTHORIZED").header(
            "www-authenticate",
            format!(r#"Bearer realm="{realm}",service="test",scope="repository:{name}:{actions}""#),
        )
    }

    fn revoke(&self) {
        self.oldest_good.store(self.issued.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

async fn guarded() -> (Arc<Guard>, Server) {
    let guard = Arc::new(Guard::default());
    let state = guard.clone();
    (guard, Server::start(move |seen| state.reply(seen)).await)
}

fn tokens(server: &Server) -> usize {
    server.lines().iter().filter(|line| line.contains("/token")).count()
}

#[tokio::test]
async fn the_first_401_teaches_and_later_requests_carry_a_token_from_the_start() {
    let (_, server) = guarded().await;
    let asking = Asking::new(settings());
    asking.session.head_manifest(&repository(&server, "a"), &tag()).await.unwrap().unwrap();
    assert_eq!(
        server.lines(),
        [
            "HEAD /v2/a/manifests/1.2",
            "GET /token?service=test&scope=repository%3Aa%3Apull&client_id=freightliner",
            "HEAD /v2/a/manifests/1.2",
        ]
    );
    asking.session.get_manifest(&repository(&server, "a"), &tag()).await.unwrap();
    assert_eq!(asking.count(), 4);
    // Another repository: the token is fetched up front, no 401 in between.
    asking.session.head_manifest(&repository(&server, "b"), &tag()).await.unwrap().unwrap();
    assert_eq!(asking.count(), 6);
    // Push, with pull for the other repository; that token serves no single repository's reads by itself.
    asking.session.start_upload(&repository(&server, "a"), &digest(), Some(&repository(&server, "b"))).await.unwrap();
    assert_eq!(asking.count(), 8);
    assert!(server.lines()[6].contains("scope=repository%3Aa%3Apull%2Cpush&scope=repository%3Ab%3Apull"));
}

#[tokio::test]
async fn a_wider_token_is_used_for_reading() {
    let (_, server) = guarded().await;
    let asking = Asking::new(settings());
    let repository = repository(&server, "a");
    asking.session.start_upload(&repository, &digest(), Some(&repository)).await.unwrap();
    asking.session.head_manifest(&repository, &tag()).await.unwrap().unwrap();
    assert_eq!((asking.count(), tokens(&server)), (4, 1));
}

#[tokio::test]
async fn many_at_once_fetch_one_token() {
    let (guard, server) = guarded().await;
    let asking = Asking::new(settings());
    for expected in 1..=2 {
        let mut all = JoinSet::new();
        for _ in 0..16 {
            let (session, repository) = (asking.session.clone(), repository(&server, "a"));
            all.spawn(async move { session.get_manifest(&repository, &tag()).await });
        }
        while let Some(outcome) = all.join_next().await {
            outcome.unwrap().unwrap();
        }
        assert_eq!(tokens(&server), expected);
        guard.revoke();
    }
}

#[tokio::test]
async fn a_token_that_is_refused_midway_is_replaced_once() {
    let (guard, server) = guarded().await;
    let asking = Asking::new(settings());
    asking.session.get_manifest(&repository(&server, "a"), &tag()).await.unwrap();
    guard.revoke();
    asking.session.get_manifest(&repository(&server, "a"), &tag()).await.unwrap();
    assert_eq!((asking.count(), tokens(&server)), (6, 2));
}

#[tokio::test]
async fn tokens_are_renewed_before_they_expire() {
    let (_, server) = guarded().await;
    let (clock, hand) = Clock::manual(UnixMillis(0));
    let asking = Asking::of(&client(settings(), clock), true);
    let repository = repository(&server, "a");
    asking.session.get_manifest(&repository, &tag()).await.unwrap();
    hand.advance(Duration::from_secs(289));
    asking.session.get_manifest(&repository, &tag()).await.unwrap();
    assert_eq!((asking.count(), tokens(&server)), (4, 1));
    hand.advance(Duration::from_secs(2));
    asking.session.get_manifest(&repository, &tag()).await.unwrap();
    assert_eq!((asking.count(), tokens(&server)), (6, 2));
}

#[tokio::test]
async fn sessions_share_tokens_unless_one_does_not_verify() {
    let (_, server) = guarded().await;
    let client = client(settings(), Clock::System);
    let repository = repository(&server, "a");
    for (verify, requests, fetched) in [(true, 3, 1), (true, 1, 1), (false, 3, 2), (false, 1, 2)] {
        let asking = Asking::of(&client, verify);
        asking.session.get_manifest(&repository, &tag()).await.unwrap();
        assert_eq!((asking.count(), tokens(&server)), (requests, fetched), "{verify}");
    }
}

#[tokio::test]
async fn user_and_password_go_to_the_token_server_only() {
    let (_, server) = guarded().await;
    let (_dir, file) = credential_file(&server, r#"{"auth": "bWU6aHVzaA=="}"#);
    let asking = Asking::new(Settings { credential_files: Some(vec![file]), ..settings() });
    asking.session.get_manifest(&repository(&server, "a"), &tag()).await.unwrap();
    let log = server.log();
    assert_eq!(log[1].authorization.as_deref(), Some("Basic bWU6aHVzaA=="));
    assert!(log[1].path.contains("account=me"));
    assert!(
        log.iter()
            .filter(|seen| !seen.path.starts_with("/token"))
            .all(|seen| { seen.authorization.as_deref().is_none_or(|header| header.starts_with("Bearer t1")) })
    );
}

#[tokio::test]
async fn an_identity_token_is_posted_and_fetched_where_post_is_unknown() {
    for post_known in [true, false] {
        let guard = Guard::default();
        let server = Server::start(move |seen| match (seen.method.as_str(), seen.path.as_str()) {
            ("POST", "/token") if post_known => Reply::new(200).body(r#"{"access_token":"t1|repository:a:pull"}"#),
            ("POST", "/token") => Reply::new(404),
            _ => guard.reply(seen),
        })
        .await;
        let (_dir, file) = credential_file(&server, r#"{"identitytoken": "hush/+"}"#);
        let asking = Asking::new(Settings { credential_files: Some(vec![file]), ..settings() });
        asking.session.get_manifest(&repository(&server, "a"), &tag()).await.unwrap();
        let log = server.log();
        let form = log[1].body.as_deref().map(|form| String::from_utf8_lossy(form).into_owned()).unwrap();
        assert_eq!(
            form,
            "grant_type=refresh_token&client_id=freightliner&service=test&scope=repository%3Aa%3Apull&refresh_token=hush%2F%2B"
        );
        assert_eq!(asking.count(), if post_known { 3 } else { 4 });
        if !post_known {
            assert!(log[2].authorization.as_deref().unwrap().starts_with("Basic "));
        }
    }
}

#[tokio::test]
async fn a_denying_token_server_is_a_denial_with_its_words() {
    let server = Server::start(|seen| {
        let host = seen.header("host").unwrap().to_owned();
        match seen.path.starts_with("/token") {
            true => Reply::new(401).body(r#"{"details":"incorrect username or password"}"#),
            false => Reply::new(401).header("www-authenticate", format!(r#"Bearer realm="http://{host}/token?x=1""#)),
        }
    })
    .await;
    let (_dir, file) = credential_file(&server, r#"{"username": "me", "password": "hush"}"#);
    let asking = Asking::new(Settings { credential_files: Some(vec![file.clone()]), ..settings() });
    let error = asking.session.get_manifest(&repository(&server, "a"), &tag()).await.unwrap_err();
    assert_eq!((error.class(), asking.count()), (Class::Denied, 2));
    let text = everything(&error);
    assert!(
        text.contains("incorrect username or password") && text.contains("\"me\"") || text.contains("me"),
        "{text}"
    );
    assert!(text.contains(file.to_str().unwrap()) && !text.contains("hush"), "{text}");
    assert!(server.lines()[1].starts_with("GET /token?x=1&scope="));
}

#[tokio::test]
async fn a_broken_token_server_is_tried_often_enough_once() {
    let server = Server::start(|seen| {
        let host = seen.header("host").unwrap().to_owned();
        match seen.path.starts_with("/token") {
            true => Reply::new(503),
            false => Reply::new(401).header("www-authenticate", format!(r#"bearer REALM="http://{host}/token""#)),
        }
    })
    .await;
    let asking = Asking::new(settings());
    let error = asking.session.get_manifest(&repository(&server, "a"), &tag()).await.unwrap_err();
    assert_eq!(error.class(), Class::Retry { after: None });
    assert_eq!(asking.count(), 5);
}

#[tokio::test]
async fn basic_is_sent_up_front_only_when_the_registry_is_known_to_want_it() {
    let server = Server::start(|seen| match seen.authorization.as_deref() {
        Some("Basic bWU6aHVzaA==") => Reply::new(200),
        _ => Reply::error(401, "UNAUTHORIZED").header("www-authenticate", "Basic realm=\"test\""),
    })
    .await;
    let repository = repository(&server, "a");
    let (_dir, file) = credential_file(&server, r#"{"auth": "bWU6aHVzaA=="}"#);
    let asking = Asking::new(Settings { credential_files: Some(vec![file]), ..settings() });
    asking.session.get_manifest(&repository, &tag()).await.unwrap();
    asking.session.get_manifest(&repository, &tag()).await.unwrap();
    let sent: Vec<bool> = server.log().iter().map(|seen| seen.authorization.is_some()).collect();
    assert_eq!(sent, [false, true, true]);

    let (_dir, file) = credential_file(&server, r#"{"username": "me", "password": "hush-hush"}"#);
    let asking = Asking::new(Settings { credential_files: Some(vec![file.clone()]), ..settings() });
    let error = asking.session.get_manifest(&repository, &tag()).await.unwrap_err();
    assert_eq!((error.class(), asking.count()), (Class::Denied, 2));
    let text = everything(&error);
    assert!(text.contains("user \"me\" from") && text.contains(file.to_str().unwrap()), "{text}");
    assert!(!text.contains("hush"), "{text}");

    let asking = Asking::new(settings());
    let error = asking.session.get_manifest(&repository, &tag()).await.unwrap_err();
    assert_eq!((error.class(), asking.count()), (Class::Denied, 1));
    assert!(error.to_string().contains("no credentials were found"), "{error}");
}

#[tokio::test]
async fn credentials_do_not_go_to_a_foreign_token_server_in_the_clear() {
    let (guard, server) = guarded().await;
    *guard.realm.lock().unwrap() = Some("http://auth.example.com/token".to_owned());
    let asking = Asking::new(settings());
    let error = asking.session.get_manifest(&repository(&server, "a"), &tag()).await.unwrap_err();
    assert_eq!((error.class(), asking.count()), (Class::Refused, 1));
    assert!(error.to_string().contains("plain HTTP"), "{error}");
}

#[tokio::test]
async fn a_token_server_is_no_metadata_service() {
    for realm in
        ["http://169.254.169.254/latest/api/token", "https://metadata.google.internal/token", "ftp://127.0.0.1/"]
    {
        let (guard, server) = guarded().await;
        *guard.realm.lock().unwrap() = Some(realm.to_owned());
        let asking = Asking::new(settings());
        let error = asking.session.get_manifest(&repository(&server, "a"), &tag()).await.unwrap_err();
        assert_eq!((error.class(), asking.count()), (Class::Refused, 1), "{realm}");
        assert!(error.to_string().contains("the token server that"), "{error}");
    }
}

#[tokio::test]
async fn an_identity_token_does_not_follow_a_redirect() {
    let thief = Server::start(|_| Reply::new(200).body(r#"{"token":"t"}"#)).await;
    let elsewhere = format!("http://{}/token", thief.host());
    let guard = Guard::default();
    let server = Server::start(move |seen| match (seen.method.as_str(), seen.path.as_str()) {
        ("POST", "/token") => Reply::new(307).header("location", &elsewhere),
        _ => guard.reply(seen),
    })
    .await;
    let (_dir, file) = credential_file(&server, r#"{"identitytoken": "hush"}"#);
    let asking = Asking::new(Settings { credential_files: Some(vec![file]), ..settings() });
    let error = asking.session.get_manifest(&repository(&server, "a"), &tag()).await.unwrap_err();
    assert_eq!(error.class(), Class::Refused, "{error}");
    assert!(thief.log().is_empty(), "{:?}", thief.lines());
}

#[tokio::test]
async fn who_will_push_looks_with_the_token_for_pushing() {
    let (_, server) = guarded().await;
    let asking = Asking::new(settings());
    let (session, repository) = (asking.session.clone().for_push(), repository(&server, "a"));
    session.head_manifest(&repository, &tag()).await.unwrap();
    session.head_blob(&repository, &digest()).await.unwrap();
    session.start_upload(&repository, &digest(), Some(&repository)).await.unwrap();
    // The 401, the token, and the three.
    assert_eq!((asking.count(), tokens(&server)), (5, 1));
    assert!(server.lines()[1].contains("scope=repository%3Aa%3Apull%2Cpush"), "{:?}", server.lines());
}
