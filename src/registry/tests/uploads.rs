//! Mounting, Locations, and the one PUT that is watched instead of repeated.

use super::super::{Upload, UploadBody, UploadStart};
use super::server::{Reply, Seen, Server};
use super::*;
use crate::job::retry::Class;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use std::error::Error as _;

fn body(pieces: &[&'static str]) -> UploadBody {
    Box::pin(stream::iter(pieces.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))).collect::<Vec<_>>()))
}

/// More than all buffers between here and the server hold.
fn endless() -> UploadBody {
    Box::pin(stream::repeat_with(|| Ok(Bytes::from(vec![0; 64 * 1024]))))
}

async fn begin(asking: &Asking, server: &Server) -> Upload {
    match asking.session.start_upload(&repository(server, "a"), &digest(), None).await.unwrap() {
        UploadStart::Session(upload) => upload,
        UploadStart::Present => panic!("the blob is not there"),
    }
}

/// Uploads begin at `location`, and end with `end`.
fn uploads(location: &'static str, end: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> impl Fn(&Seen) -> Reply {
    move |seen| match seen.method.as_str() {
        "POST" => Reply::new(202).header("location", location),
        _ => end(seen),
    }
}

#[tokio::test]
async fn a_blob_goes_up_in_one_put_with_its_length() {
    let server = Server::start(uploads("/up/1?_state=a%2Fb==&x", |_| Reply::new(201))).await;
    let asking = Asking::new(settings());
    let upload = begin(&asking, &server).await;
    asking.session.finish_upload(upload, &digest(), 10, body(&["0123", "", "456789"])).await.unwrap();
    let log = server.log();
    assert!(log[0].is("POST", "/v2/a/blobs/uploads/"));
    assert_eq!(log[0].header("content-length"), Some("0"));
    assert!(log[1].is("PUT", &format!("/up/1?_state=a%2Fb==&x&digest={EMPTY}")), "{}", log[1].path);
    assert_eq!(log[1].header("content-length"), Some("10"));
    assert_eq!(log[1].header("transfer-encoding"), None);
    assert_eq!(log[1].header("content-type"), Some("application/octet-stream"));
    assert_eq!(log[1].body.as_deref(), Some(&b"0123456789"[..]));
    assert_eq!((asking.count(), server.connections()), (2, 1));
}

#[tokio::test]
async fn the_empty_blob_goes_up_too() {
    let server = Server::start(uploads("1", |_| Reply::new(201))).await;
    let asking = Asking::new(settings());
    let upload = begin(&asking, &server).await;
    asking.session.finish_upload(upload, &digest(), 0, body(&[""])).await.unwrap();
    let put = &server.log()[1];
    assert!(put.is("PUT", &format!("/v2/a/blobs/uploads/1?digest={EMPTY}")), "{}", put.path);
    assert_eq!(put.header("content-length"), Some("0"));
    let upload = begin(&asking, &server).await;
    assert!(asking.session.finish_upload(upload, &digest(), 0, body(&["x"])).await.is_err());
}

#[tokio::test]
async fn a_mount_is_one_request() {
    let server = Server::start(|_| Reply::new(201).header("docker-content-digest", EMPTY)).await;
    let asking = Asking::new(settings());
    let (to, from) = (repository(&server, "a"), repository(&server, "b/c"));
    let started = asking.session.start_upload(&to, &digest(), Some(&from)).await.unwrap();
    assert!(matches!(started, UploadStart::Present));
    assert_eq!(server.lines(), [format!("POST /v2/a/blobs/uploads/?mount={EMPTY}&from=b/c")]);
    assert_eq!(asking.count(), 1);
}

#[tokio::test]
async fn a_mount_that_is_not_made_becomes_an_upload() {
    for (status, requests) in [(202, 1), (400, 2), (404, 2), (405, 2), (403, 2)] {
        let server = Server::start(move |seen| match seen.path.contains("mount=") {
            true => Reply::new(status).header("location", "/up?mounting"),
            false => Reply::new(202).header("location", "/up"),
        })
        .await;
        let asking = Asking::new(settings());
        let (to, from) = (repository(&server, "a"), repository(&server, "b"));
        let started = asking.session.start_upload(&to, &digest(), Some(&from)).await.unwrap();
        assert!(matches!(started, UploadStart::Session(_)), "{status}");
        assert_eq!(asking.count(), requests, "{status}");
    }
    // A repository on another host cannot be mounted from.
    let server = Server::start(|_| Reply::new(202).header("location", "/up")).await;
    let asking = Asking::new(settings());
    let other = Repository::parse("other.example.com/b").unwrap();
    asking.session.start_upload(&repository(&server, "a"), &digest(), Some(&other)).await.unwrap();
    assert_eq!(server.lines(), ["POST /v2/a/blobs/uploads/"]);
    // A denial that is not about the other repository is one.
    let server = Server::start(|_| Reply::error(403, "DENIED")).await;
    let asking = Asking::new(settings());
    let own = repository(&server, "a");
    let error = asking.session.start_upload(&own, &digest(), Some(&own)).await.unwrap_err();
    assert_eq!((error.class(), error.code(), asking.count()), (Class::Denied, Some("DENIED"), 1));
}

#[tokio::test]
async fn a_location_elsewhere_gets_no_credentials() {
    let storage = Server::start(|_| Reply::new(201)).await;
    let location = format!("http://me:pw@{}/bucket?X-Signature=hush", storage.host());
    let server = Server::start(move |seen| match seen.authorization {
        None => Reply::new(401).header("www-authenticate", "Basic realm=x"),
        Some(_) => Reply::new(202).header("location", &location),
    })
    .await;
    let (_dir, file) = credential_file(&server, r#"{"username": "me", "password": "hush"}"#);
    let asking = Asking::new(Settings { credential_files: Some(vec![file]), ..settings() });
    let upload = begin(&asking, &server).await;
    assert!(!format!("{upload:?}").contains("hush"));
    asking.session.finish_upload(upload, &digest(), 4, body(&["abcd"])).await.unwrap();
    let log = storage.log();
    assert!(log[0].is("PUT", &format!("/bucket?X-Signature=hush&digest={EMPTY}")));
    assert_eq!(log[0].authorization, None);
    assert_eq!(log[0].body.as_deref(), Some(&b"abcd"[..]));
}

#[tokio::test]
async fn a_location_must_be_there_and_allowed() {
    for location in ["http://169.254.169.254/?hush", "gopher://example.com/hush", ""] {
        let server = Server::start(move |_| {
            let reply = Reply::new(202);
            if location.is_empty() { reply } else { reply.header("location", location) }
        })
        .await;
        let asking = Asking::new(settings());
        let error = asking.session.start_upload(&repository(&server, "a"), &digest(), None).await.unwrap_err();
        assert_eq!(error.class(), Class::Refused);
        assert!(!everything(&error).contains("hush"), "{error}");
    }
}

#[tokio::test]
async fn a_401_at_the_put_forgets_the_token_and_asks_to_start_again() {
    let issued = AtomicU64::new(0);
    let server = Server::start(move |seen| {
        let host = seen.header("host").unwrap();
        match (seen.method.as_str(), seen.authorization.as_deref()) {
            ("GET", _) => {
                let number = issued.fetch_add(1, Ordering::SeqCst) + 1;
                Reply::new(200).body(format!(r#"{{"token":"t{number}"}}"#))
            }
            (_, None) => Reply::new(401).header("www-authenticate", format!(r#"Bearer realm="http://{host}/token""#)),
            ("POST", _) => Reply::new(202).header("location", "/up"),
            ("PUT", Some("Bearer t1")) => Reply { early: true, ..Reply::error(401, "UNAUTHORIZED") },
            _ => Reply::new(201),
        }
    })
    .await;
    let asking = Asking::new(settings());
    let upload = begin(&asking, &server).await;
    let error = asking.session.finish_upload(upload, &digest(), 4, body(&["abcd"])).await.unwrap_err();
    assert_eq!((error.class(), error.status()), (Class::Retry { after: Some(Duration::ZERO) }, Some(401)));
    let upload = begin(&asking, &server).await;
    asking.session.finish_upload(upload, &digest(), 4, body(&["abcd"])).await.unwrap();
    assert_eq!(server.log().last().unwrap().authorization.as_deref(), Some("Bearer t2"));
}

#[tokio::test]
async fn an_answer_before_the_end_ends_the_upload() {
    let server = Server::start(uploads("/up", |_| Reply { early: true, ..Reply::error(413, "TOO_LARGE") })).await;
    let asking = Asking::new(settings());
    let upload = begin(&asking, &server).await;
    let error = asking.session.finish_upload(upload, &digest(), 1 << 40, endless()).await.unwrap_err();
    // Either the answer was read, or the connection broke first; both end at once and say so.
    assert!(matches!(error.class(), Class::Refused | Class::Retry { .. }), "{error}");
    assert_eq!(asking.count(), 2);
}

#[tokio::test]
async fn what_is_wrong_only_with_uploads_starts_them_again() {
    for (status, code, class) in [
        (404, "BLOB_UPLOAD_UNKNOWN", Class::Retry { after: None }),
        (400, "DIGEST_INVALID", Class::Retry { after: None }),
        (416, "", Class::Retry { after: None }),
        (404, "NAME_UNKNOWN", Class::Absent),
        (403, "DENIED", Class::Denied),
        (400, "UNSUPPORTED", Class::Refused),
        (500, "", Class::Retry { after: None }),
        (202, "", Class::Retry { after: None }),
        (302, "", Class::Refused),
        (307, "", Class::Retry { after: None }),
        (308, "", Class::Retry { after: None }),
    ] {
        let server = Server::start(uploads("/up", move |_| Reply::error(status, code))).await;
        let asking = Asking::new(settings());
        let upload = begin(&asking, &server).await;
        let error = asking.session.finish_upload(upload, &digest(), 4, body(&["abcd"])).await.unwrap_err();
        assert_eq!(error.class(), class, "{status} {code}");
        assert_eq!(asking.count(), 2, "{status} {code}");
    }
}

#[tokio::test]
async fn a_failing_content_is_the_cause_and_never_arrives_whole() {
    let server = Server::start(uploads("/up", |_| Reply::new(201))).await;
    let asking = Asking::new(settings());
    let upload = begin(&asking, &server).await;
    let failing = body(&["01234", "56789"]).chain(stream::iter([Err("the digest is wrong".into())]));
    let error = asking.session.finish_upload(upload, &digest(), 10, Box::pin(failing)).await.unwrap_err();
    assert!(error.to_string().contains("the digest is wrong"), "{error}");
    assert_eq!(error.source().unwrap().to_string(), "the digest is wrong");
    assert!(server.log().iter().all(|seen| seen.method != "PUT" || seen.body.is_none()));
}

#[tokio::test]
async fn a_destination_that_stops_reading_is_noticed() {
    let server = Server::start(uploads("/up", |_| Reply { silent: true, ..Reply::default() })).await;
    let brief = Duration::from_millis(100);
    let asking = Asking::new(Settings { idle_timeout: brief, connect_timeout: brief, ..settings() });
    let upload = begin(&asking, &server).await;
    let error = asking.session.finish_upload(upload, &digest(), 1 << 40, endless()).await.unwrap_err();
    assert_eq!(error.class(), Class::Retry { after: None });
    assert!(error.to_string().contains("has not read"), "{error}");

    let asking = Asking::new(Settings { first_byte_timeout: brief, ..settings() });
    let upload = begin(&asking, &server).await;
    let error = asking.session.finish_upload(upload, &digest(), 4, body(&["abcd"])).await.unwrap_err();
    assert!(error.to_string().contains("has not answered"), "{error}");
}

#[tokio::test]
async fn an_abandoned_upload_is_deleted_if_possible() {
    let server = Server::start(uploads("/up?s=1", |_| Reply::new(404))).await;
    let asking = Asking::new(settings());
    let upload = begin(&asking, &server).await;
    asking.session.cancel_upload(upload).await;
    assert_eq!(server.lines()[1], "DELETE /up?s=1");
}

#[tokio::test]
async fn a_refused_mount_is_told_and_trouble_that_passes_is_none() {
    for (status, refused) in [(202, false), (400, true), (404, true), (403, true)] {
        let server = Server::start(move |seen| match seen.path.contains("mount=") {
            true => Reply::new(status).header("location", "/up"),
            false => Reply::new(202).header("location", "/up"),
        })
        .await;
        let asking = Asking::new(settings());
        let (to, from) = (repository(&server, "a"), repository(&server, "b"));
        let started = asking.session.start_upload(&to, &digest(), Some(&from)).await.unwrap();
        let UploadStart::Session(upload) = started else { panic!("nothing was mounted") };
        assert_eq!(upload.mount_was_refused(), refused, "{status}");
    }
    let server = Server::start(|seen| match seen.path.contains("mount=") {
        true => Reply::error(429, "TOOMANYREQUESTS").header("retry-after", "3600"),
        false => Reply::new(202).header("location", "/up"),
    })
    .await;
    let asking = Asking::new(settings());
    let own = repository(&server, "a");
    let error = asking.session.start_upload(&own, &digest(), Some(&own)).await.unwrap_err();
    assert_eq!((error.class(), asking.count()), (Class::Retry { after: Some(Duration::from_secs(3600)) }, 1));
    assert!(error.is_exhausted());
}

#[tokio::test]
async fn another_algorithm_is_named_when_an_upload_begins() {
    let server = Server::start(|_| Reply::new(202).header("location", "/up")).await;
    let asking = Asking::new(settings());
    let (to, sha512) = (repository(&server, "a"), Digest::of(crate::oci::Algorithm::Sha512, b""));
    asking.session.start_upload(&to, &sha512, Some(&to)).await.unwrap();
    asking.session.start_upload(&to, &sha512, None).await.unwrap();
    let expected = [
        format!("POST /v2/a/blobs/uploads/?mount={sha512}&from=a&digest-algorithm=sha512"),
        "POST /v2/a/blobs/uploads/?digest-algorithm=sha512".to_owned(),
    ];
    assert_eq!(server.lines(), expected);
}
