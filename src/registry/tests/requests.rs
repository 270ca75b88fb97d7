//! Counting, retries, redirects, limits, errors, lists.

use super::server::{Reply, Server};
use super::*;
use crate::job::retry::Class;
use crate::registry::UploadStart;
use std::sync::Mutex;
use tokio::net::TcpListener;

/// Replies one after the other, the last one for ever.
fn script(replies: Vec<Reply>) -> impl Fn(&super::server::Seen) -> Reply + Send + Sync + 'static {
    let replies = Mutex::new(replies);
    move |_| {
        let mut replies = replies.lock().unwrap();
        if replies.len() > 1 { replies.remove(0) } else { replies[0].clone() }
    }
}

fn manifest_reply() -> Reply {
    Reply::new(200)
        .header("docker-content-digest", EMPTY)
        .header("content-type", "application/vnd.oci.image.manifest.v1+json; charset=utf-8")
        .body("{}")
}

#[tokio::test]
async fn a_head_says_what_the_registry_says_and_costs_one_request() {
    let server = Server::start(|_| manifest_reply()).await;
    let asking = Asking::new(settings());
    let head = asking.session.head_manifest(&repository(&server, "a/b"), &tag()).await.unwrap().unwrap();
    assert_eq!(head.digest, Some(digest()));
    assert_eq!(head.media_type.as_deref(), Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"));
    assert_eq!(head.size, Some(2));
    assert_eq!(server.lines(), ["HEAD /v2/a/b/manifests/1.2"]);
    assert_eq!(asking.count(), 1);
    let seen = &server.log()[0];
    assert!(seen.header("accept").unwrap().contains("application/vnd.docker.distribution.manifest.list.v2+json"));
    assert_eq!(seen.header("user-agent"), Some(concat!("freightliner/", env!("CARGO_PKG_VERSION"))));
    assert_eq!(seen.authorization, None);
}

#[tokio::test]
async fn absent_heads_are_none_and_unknown_heads_say_nothing() {
    let server = Server::start(|seen| match seen.path.as_str() {
        path if path.contains("odd") => Reply::new(405),
        path if path.contains("plain") => Reply::new(200),
        _ => Reply::new(404),
    })
    .await;
    let asking = Asking::new(settings());
    assert_eq!(asking.session.head_manifest(&repository(&server, "a"), &tag()).await.unwrap(), None);
    assert_eq!(asking.session.head_blob(&repository(&server, "a"), &digest()).await.unwrap(), None);
    let odd = asking.session.head_manifest(&repository(&server, "odd"), &tag()).await.unwrap().unwrap();
    assert_eq!((odd.digest, odd.size), (None, None));
    let plain = asking.session.head_manifest(&repository(&server, "plain"), &tag()).await.unwrap().unwrap();
    assert_eq!(plain.digest, None);
}

#[tokio::test]
async fn bodies_are_drained_so_that_one_connection_does() {
    let server = Server::start(|seen| match seen.method.as_str() {
        "GET" => Reply::error(404, "MANIFEST_UNKNOWN"),
        "DELETE" => Reply::new(202).body(vec![b'x'; 10_000]),
        "PUT" => Reply::new(201).header("location", "/x").body("stored"),
        _ => manifest_reply(),
    })
    .await;
    let asking = Asking::new(settings());
    let repository = repository(&server, "a");
    for _ in 0..3 {
        asking.session.head_manifest(&repository, &tag()).await.unwrap();
        let error = asking.session.get_manifest(&repository, &tag()).await.unwrap_err();
        assert_eq!((error.class(), error.status(), error.code()), (Class::Absent, Some(404), Some("MANIFEST_UNKNOWN")));
        asking.session.put_manifest(&repository, &tag(), "a/b", "{}".into()).await.unwrap();
        asking.session.delete_manifest(&repository, &tag()).await.unwrap();
    }
    assert_eq!(asking.count(), 12);
    assert_eq!(server.connections(), 1);
    let put = server.log().into_iter().find(|seen| seen.method == "PUT").unwrap();
    assert_eq!((put.body.as_deref(), put.header("content-type")), (Some(&b"{}"[..]), Some("a/b")));
}

#[tokio::test]
async fn what_passes_is_tried_again_and_every_try_counts() {
    let server = Server::start(script(vec![
        Reply::new(503).header("retry-after", "0"),
        Reply::error(429, "TOOMANYREQUESTS"),
        Reply { cut: true, ..manifest_reply() },
        manifest_reply(),
    ]))
    .await;
    let asking = Asking::new(settings());
    let manifest = asking.session.get_manifest(&repository(&server, "a"), &tag()).await.unwrap();
    assert_eq!(&manifest.bytes[..], b"{}");
    assert_eq!(asking.count(), 4);
}

#[tokio::test]
async fn patience_is_bounded() {
    let server = Server::start(|_| Reply::new(500).body("<html>oops</html>")).await;
    let asking = Asking::new(settings());
    let error = asking.session.get_manifest(&repository(&server, "a"), &tag()).await.unwrap_err();
    assert_eq!((error.class(), error.status()), (Class::Retry { after: None }, Some(500)));
    assert_eq!(asking.count(), 4);

    let server = Server::start(|_| Reply::error(429, "TOOMANYREQUESTS").header("retry-after", "3600")).await;
    let asking = Asking::new(settings());
    let error = asking.session.get_manifest(&repository(&server, "a"), &tag()).await.unwrap_err();
    assert_eq!(error.class(), Class::Retry { after: Some(Duration::from_secs(3600)) });
    assert_eq!(asking.count(), 1);
}

#[tokio::test]
async fn errors_name_what_and_why_on_one_line() {
    let server = Server::start(|_| {
        Reply::new(400).body(r#"{"errors":[{"code":"MANIFEST_INVALID","message":"bad\n\u001b[31mmanifest"}]}"#)
    })
    .await;
    let asking = Asking::new(settings());
    let error = asking.session.put_manifest(&repository(&server, "a/b"), &tag(), "x/y", "{}".into()).await.unwrap_err();
    assert_eq!(error.class(), Class::Refused);
    assert_eq!(
        error.to_string(),
        format!(
            "PUT manifest {}/a/b:1.2: the registry answered 400 Bad Request (MANIFEST_INVALID: bad [31mmanifest)",
            server.host()
        )
    );
}

#[tokio::test]
async fn a_manifest_over_the_limit_is_refused_by_length_and_while_reading() {
    for chunked in [false, true] {
        let server = Server::start(move |_| Reply { chunked, ..Reply::new(200).body(vec![b' '; 5_000]) }).await;
        let asking = Asking::new(Settings { manifest_limit: 4_999, ..settings() });
        let error = asking.session.get_manifest(&repository(&server, "a"), &tag()).await.unwrap_err();
        assert_eq!(error.class(), Class::Refused);
        let text = error.to_string();
        assert!(text.contains("4999") && (chunked || text.contains("5000")), "{text}");
        assert_eq!(asking.count(), 1);

        let asking = Asking::new(Settings { manifest_limit: 5_000, ..settings() });
        let manifest = asking.session.get_manifest(&repository(&server, "a"), &tag()).await.unwrap();
        assert_eq!(manifest.bytes.len(), 5_000);
    }
}

#[tokio::test]
async fn a_registry_that_stored_something_else_is_noticed() {
    let server = Server::start(|_| Reply::new(201).header("docker-content-digest", EMPTY)).await;
    let asking = Asking::new(settings());
    let put = |bytes: &'static str| {
        let (session, repository) = (asking.session.clone(), repository(&server, "a"));
        async move { session.put_manifest(&repository, &tag(), "x/y", bytes.into()).await }
    };
    assert_eq!(put("{}").await.unwrap_err().class(), Class::Corrupt);
    put("").await.unwrap();
}

#[tokio::test]
async fn blobs_come_in_pieces_and_say_when_they_break_off_or_stall() {
    let server = Server::start(|seen| {
        let reply = Reply::new(200).body("0123456789");
        if seen.path.contains("/cut/") {
            Reply { cut: true, ..reply }
        } else if seen.path.contains("/stall/") {
            Reply { stall: true, ..reply }
        } else {
            reply
        }
    })
    .await;
    let asking = Asking::new(Settings { idle_timeout: Duration::from_millis(100), ..settings() });
    for (name, whole) in [("good", true), ("cut", false), ("stall", false)] {
        let mut blob = asking.session.get_blob(&repository(&server, name), &digest()).await.unwrap();
        assert_eq!(blob.length(), Some(if whole { 10 } else { 1_010 }));
        let mut read = Vec::new();
        let outcome = loop {
            match blob.chunk().await {
                Ok(Some(bytes)) => read.extend_from_slice(&bytes),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        assert_eq!(read, b"0123456789", "{name}");
        match outcome {
            Ok(()) => assert!(whole, "{name}"),
            Err(error) => assert_eq!((error.class(), whole), (Class::Retry { after: None }, false), "{error}"),
        }
    }
    assert_eq!(asking.session.head_blob(&repository(&server, "good"), &digest()).await.unwrap(), Some(Some(10)));
}

#[tokio::test]
async fn silence_is_bounded() {
    let server = Server::start(|_| Reply { silent: true, ..Reply::default() }).await;
    let brief = Duration::from_millis(50);
    let asking = Asking::new(Settings { first_byte_timeout: brief, connect_timeout: brief, tries: 2, ..settings() });
    let error = asking.session.head_manifest(&repository(&server, "a"), &tag()).await.unwrap_err();
    assert_eq!(error.class(), Class::Retry { after: None });
    assert_eq!(asking.count(), 2);
}

#[tokio::test]
async fn nobody_there_is_a_retry() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    drop(listener);
    let asking = Asking::new(settings());
    let repository = Repository::parse(&format!("{host}/a")).unwrap();
    let error = asking.session.head_manifest(&repository, &tag()).await.unwrap_err();
    assert_eq!(error.class(), Class::Retry { after: None });
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn redirects_are_followed_without_credentials() {
    let storage = Server::start(|_| Reply::new(200).body("blob")).await;
    let elsewhere = format!("http://{}/signed?X-Secret=hush", storage.host());
    let server = Server::start(move |seen| match (seen.authorization.is_some(), seen.path.ends_with("/moved")) {
        (false, _) => Reply::new(401).header("www-authenticate", "Basic realm=\"x\""),
        (true, false) => Reply::new(307).header("location", "/moved"),
        (true, true) => Reply::new(302).header("location", &elsewhere),
    })
    .await;
    let (_dir, file) = credential_file(&server, r#"{"username": "me", "password": "hush"}"#);
    let asking = Asking::new(Settings { credential_files: Some(vec![file]), ..settings() });
    let mut blob = asking.session.get_blob(&repository(&server, "a"), &digest()).await.unwrap();
    assert_eq!(blob.chunk().await.unwrap().as_deref(), Some(&b"blob"[..]));
    assert_eq!(asking.count(), 4);
    let log = storage.log();
    assert_eq!(log.len(), 1);
    assert!(log[0].is("GET", "/signed?X-Secret=hush"));
    assert_eq!(log[0].authorization, None);
    assert!(server.log()[2].authorization.is_some(), "the same origin keeps them");
}

#[tokio::test]
async fn an_expired_redirect_is_asked_for_again_once() {
    let storage = Server::start(|seen| match seen.path.as_str() {
        "/old?hush" => Reply::new(403).body("expired"),
        _ => Reply::new(200).body("blob"),
    })
    .await;
    let host = storage.host();
    let fresh = script(vec![
        Reply::new(307).header("location", format!("http://{host}/old?hush")),
        Reply::new(307).header("location", format!("http://{host}/new?hush")),
    ]);
    let server = Server::start(fresh).await;
    let asking = Asking::new(settings());
    asking.session.get_blob(&repository(&server, "a"), &digest()).await.unwrap();
    assert_eq!(asking.count(), 4);

    let stale = format!("http://{host}/old?hush");
    let server = Server::start(move |_| Reply::new(307).header("location", &stale)).await;
    let asking = Asking::new(settings());
    let error = asking.session.get_blob(&repository(&server, "a"), &digest()).await.err().unwrap();
    assert_eq!(error.class(), Class::Denied);
    assert!(!everything(&error).contains("hush"), "{error:?}");
    assert_eq!(asking.count(), 4);
}

#[tokio::test]
async fn redirects_end_somewhere_allowed() {
    for (location, word) in [
        ("http://169.254.169.254/latest/meta-data?hush", "169.254.169.254"),
        ("/again?hush", "redirects"),
        ("ftp://example.com/hush", "ftp"),
    ] {
        let server = Server::start(move |_| Reply::new(307).header("location", location)).await;
        let asking = Asking::new(settings());
        let error = asking.session.get_blob(&repository(&server, "a"), &digest()).await.err().unwrap();
        assert_eq!(error.class(), Class::Refused);
        let text = everything(&error);
        assert!(text.contains(word) && !text.contains("hush"), "{text}");
    }
}

#[tokio::test]
async fn tags_come_page_by_page() {
    let server = Server::start(|seen| match seen.path.as_str() {
        "/v2/a/tags/list?n=1000" => Reply::new(200)
            .header("link", r#"</v2/a/tags/list?last=b&n=1000>; rel="next""#)
            .body(r#"{"name":"a","tags":["a","b"]}"#),
        "/v2/a/tags/list?last=b&n=1000" => Reply::new(200).body(r#"{"name":"a","tags":["c"]}"#),
        "/v2/none/tags/list?n=1000" => Reply::new(200).body(r#"{"name":"none","tags":null}"#),
        "/v2/loop/tags/list?n=1000" => {
            Reply::new(200).header("link", "</v2/loop/tags/list?n=1000>; rel=next").body(r#"{"tags":[]}"#)
        }
        "/v2/_catalog?n=1000" => Reply::error(400, "PAGINATION_NUMBER_INVALID"),
        "/v2/_catalog" => Reply::new(200).body(r#"{"repositories":["a","b/c"]}"#),
        _ => Reply::error(404, "NAME_UNKNOWN"),
    })
    .await;
    let session = Asking::new(settings()).session;
    let (tags, next) = session.list_tags(&repository(&server, "a"), None).await.unwrap();
    assert_eq!(tags, ["a", "b"]);
    let (tags, next) = session.list_tags(&repository(&server, "a"), next).await.unwrap();
    assert_eq!((tags, next), (vec!["c".to_owned()], None));
    assert_eq!(session.list_tags(&repository(&server, "none"), None).await.unwrap(), (vec![], None));
    assert_eq!(session.list_tags(&repository(&server, "loop"), None).await.unwrap_err().class(), Class::Refused);
    let absent = session.list_tags(&repository(&server, "b"), None).await.unwrap_err();
    assert_eq!((absent.class(), absent.code()), (Class::Absent, Some("NAME_UNKNOWN")));
    let (names, next) = session.list_repositories(&server.host(), None).await.unwrap();
    assert_eq!((names, next), (vec!["a".to_owned(), "b/c".to_owned()], None));
}

#[tokio::test]
async fn a_body_is_sent_nowhere_else() {
    let thief = Server::start(|_| Reply::new(201)).await;
    for status in [307, 308] {
        let elsewhere = format!("http://{}/v2/a/manifests/1.2?hush", thief.host());
        let server = Server::start(move |_| Reply::new(status).header("location", &elsewhere)).await;
        let asking = Asking::new(settings());
        let put = asking.session.put_manifest(&repository(&server, "a"), &tag(), "a/b", "{}".into()).await;
        let error = put.unwrap_err();
        assert_eq!((error.class(), asking.count()), (Class::Refused, 1));
        assert!(!everything(&error).contains("hush"), "{error:?}");
    }
    assert!(thief.log().is_empty());
    // Where the registry itself is, it may lead anywhere.
    let server = Server::start(|seen| match seen.path.as_str() {
        "/moved" => Reply::new(201),
        _ => Reply::new(307).header("location", "/moved"),
    })
    .await;
    let asking = Asking::new(settings());
    asking.session.put_manifest(&repository(&server, "a"), &tag(), "a/b", "{}".into()).await.unwrap();
    assert_eq!(server.log()[1].body.as_deref(), Some(&b"{}"[..]));
}

#[tokio::test]
async fn a_body_that_only_drips_is_given_up() {
    let server = Server::start(|seen| {
        let status = if seen.path.contains("/bad/") { 400 } else { 200 };
        Reply { drip: true, ..Reply::new(status) }
    })
    .await;
    let brief = Duration::from_millis(100);
    let asking = Asking::new(Settings { first_byte_timeout: brief, manifest_limit: 1024, tries: 1, ..settings() });
    let error = asking.session.get_manifest(&repository(&server, "a"), &tag()).await.unwrap_err();
    assert_eq!(error.class(), Class::Retry { after: None });
    assert!(error.to_string().contains("not complete"), "{error}");
    // Of an error's body, what there is by then.
    let error = asking.session.get_manifest(&repository(&server, "bad"), &tag()).await.unwrap_err();
    assert_eq!((error.class(), error.status()), (Class::Refused, Some(400)));
}

#[tokio::test]
async fn a_long_wish_holds_other_requests_of_its_kind_and_no_more() {
    let server = Server::start(|seen| match seen.path.as_str() {
        path if path.contains("/manifests/") => Reply::error(429, "TOOMANYREQUESTS").header("retry-after", "3600"),
        _ => Reply::new(200),
    })
    .await;
    let asking = Asking::new(settings());
    let error = asking.session.head_manifest(&repository(&server, "a"), &tag()).await.unwrap_err();
    assert_eq!(error.class(), Class::Retry { after: Some(Duration::from_secs(3600)) });
    // Nothing is sent to be told the same again; and the time to come back is known.
    let error = asking.session.get_manifest(&repository(&server, "b"), &tag()).await.unwrap_err();
    let Class::Retry { after: Some(after) } = error.class() else { panic!("{error}") };
    assert!(after > Duration::from_secs(3500) && after <= Duration::from_secs(3600), "{after:?}");
    assert_eq!(server.lines().len(), 1);
    asking.session.head_blob(&repository(&server, "a"), &digest()).await.unwrap();
    assert_eq!(server.lines().len(), 2);
}

#[tokio::test]
async fn an_upload_is_recognised_as_distribution_and_paced() {
    let server = Server::start(|seen| match seen.method.as_str() {
        "POST" => {
            Reply::new(202).header("location", "/v2/a/blobs/uploads/1?_state=x").header("docker-upload-uuid", "1")
        }
        _ => Reply::error(429, "TOOMANYREQUESTS").header("retry-after", "3600"),
    })
    .await;
    let asking = Asking::new(settings());
    let repository = repository(&server, "a");
    assert_eq!(asking.session.profile(&repository).name, "generic");
    let mut begin = Vec::new();
    for _ in 0..2 {
        begin.push(asking.session.start_upload(&repository, &digest(), None).await.unwrap());
    }
    assert_eq!(asking.session.profile(&repository).name, "distribution");
    for (index, start) in begin.into_iter().enumerate() {
        let UploadStart::Session(upload) = start else { panic!("nothing was there") };
        let body = Box::pin(futures_util::stream::iter([]));
        let error = asking.session.finish_upload(upload, &digest(), 0, body).await.unwrap_err();
        assert!(matches!(error.class(), Class::Retry { after: Some(_) }), "{index}: {error}");
    }
    assert_eq!(server.lines().iter().filter(|line| line.starts_with("PUT")).count(), 1);
}
