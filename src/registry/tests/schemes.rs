//! HTTPS, plain HTTP, and certificates.

use super::server::{Reply, Server};
use super::*;
use crate::job::retry::Class;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A certificate for 127.0.0.1 that nobody knows, as an acceptor and as PEM.
pub(super) fn tls() -> (tokio_rustls::TlsAcceptor, String) {
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    (tokio_rustls::TlsAcceptor::from(Arc::new(config)), certified.cert.pem())
}

/// What connections to a raw listener begin with, each answered with `answer` (None: never).
async fn raw(answer: Option<&'static [u8]>) -> (String, Arc<Mutex<Vec<u8>>>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let beginnings = Arc::new(Mutex::new(Vec::new()));
    let (log, mut tasks) = (beginnings.clone(), JoinSet::new());
    tasks.spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut byte = [0];
            // A client that hangs up at once is one of the cases; its byte is then 0.
            let _ = stream.read_exact(&mut byte).await;
            log.lock().unwrap().push(byte[0]);
            if let Some(answer) = answer {
                // The client may have gone; what it then reports is what the test looks at.
                let _ = stream.write_all(answer).await;
            } else {
                open.push(stream);
            }
        }
    });
    (host, beginnings, tasks)
}

async fn head(asking: &Asking, host: &str) -> Result<(), Error> {
    let repository = Repository::parse(&format!("{host}/a")).unwrap();
    asking.session.head_manifest(&repository, &tag()).await.map(drop)
}

#[tokio::test]
async fn a_certificate_of_a_known_ca_is_fine() {
    let (acceptor, pem) = tls();
    let server = Server::start_tls(acceptor, |_| Reply::new(200)).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    std::fs::write(&path, pem).unwrap();
    let asking = Asking::new(Settings { ca_files: vec![path], ..settings() });
    head(&asking, &server.host()).await.unwrap();
    head(&asking, &server.host().replace("127.0.0.1", "localhost")).await.unwrap();
    assert_eq!((asking.count(), server.log().len()), (2, 2));
}

#[tokio::test]
async fn an_unknown_certificate_is_refused_and_never_answered_with_http() {
    let (acceptor, _) = tls();
    let server = Server::start_tls(acceptor, |_| Reply::new(200)).await;
    let asking = Asking::new(settings());
    let error = head(&asking, &server.host()).await.unwrap_err();
    assert_eq!(error.class(), Class::Refused);
    let text = error.to_string();
    assert!(text.contains("certificate") && text.contains("--src-tls-verify"), "{text}");
    assert_eq!((asking.count(), server.log().len()), (1, 0));

    let unverified = Asking::of(&client(settings(), Clock::System), false);
    head(&unverified, &server.host()).await.unwrap();
    let insecure = Asking::new(Settings { insecure_hosts: vec![server.host()], ..settings() });
    head(&insecure, &server.host()).await.unwrap();
    assert_eq!(server.log().len(), 2);
}

#[tokio::test]
async fn plain_http_on_loopback_is_probed_once_and_the_probe_counts_nothing() {
    let server = Server::start(|_| Reply::new(200)).await;
    let asking = Asking::new(settings());
    let mut all = JoinSet::new();
    for _ in 0..8 {
        let (session, repository) = (asking.session.clone(), repository(&server, "a"));
        all.spawn(async move { session.head_manifest(&repository, &tag()).await });
    }
    while let Some(outcome) = all.join_next().await {
        outcome.unwrap().unwrap();
    }
    assert_eq!((asking.count(), server.log().len()), (8, 8));
}

#[tokio::test]
async fn any_answer_in_the_clear_is_one() {
    let (host, beginnings, _tasks) = raw(Some(b"<!DOCTYPE html>")).await;
    let asking = Asking::new(Settings { tries: 1, ..settings() });
    // The second connection speaks HTTP and gets nonsense for an answer.
    head(&asking, &host).await.unwrap_err();
    assert_eq!(*beginnings.lock().unwrap(), [22, b'H']);
}

#[tokio::test]
async fn silence_and_alerts_never_lead_to_http() {
    let (host, beginnings, _tasks) = raw(None).await;
    let asking = Asking::new(Settings { tries: 1, ..settings() });
    let error = head(&asking, &host).await.unwrap_err();
    assert_eq!(error.class(), Class::Retry { after: None });
    assert_eq!((beginnings.lock().unwrap().clone(), asking.count()), (vec![22], 0));

    // A fatal alert: handshake failure.
    let (host, beginnings, _tasks) = raw(Some(&[21, 3, 3, 0, 2, 2, 40])).await;
    let asking = Asking::new(Settings { tries: 1, ..settings() });
    let error = head(&asking, &host).await.unwrap_err();
    assert_eq!(error.class(), Class::Retry { after: None });
    assert!(beginnings.lock().unwrap().iter().all(|byte| *byte == 22));

    // Closed without a word.
    let (host, beginnings, _tasks) = raw(Some(b"")).await;
    let asking = Asking::new(Settings { tries: 1, ..settings() });
    head(&asking, &host).await.unwrap_err();
    assert_eq!(*beginnings.lock().unwrap(), [22]);
}

#[tokio::test]
async fn a_server_that_changes_is_probed_again() {
    let (acceptor, pem) = tls();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    std::fs::write(&path, pem).unwrap();
    let asking = Asking::new(Settings { ca_files: vec![path], ..settings() });
    let server = Server::start_tls(acceptor, |_| Reply::new(200)).await;
    asking.session.shared.schemes.slot(&server.host()).lock().await.replace(super::super::scheme::Scheme::Http);
    head(&asking, &server.host()).await.unwrap();
    assert_eq!(server.log().len(), 1);
}

#[tokio::test]
async fn a_port_that_a_url_does_not_show_is_forgotten_too() {
    let asking = Asking::new(settings());
    for (host, url) in [
        ("localhost:443", "https://localhost:443/"),
        ("[::1]", "https://[::1]/"),
        ("localhost:80", "http://localhost:80/"),
    ] {
        let schemes = &asking.session.shared.schemes;
        *schemes.slot(host).lock().await = Some(super::super::scheme::Scheme::Https);
        asking.session.forget_scheme(&url::Url::parse(url).unwrap());
        assert_eq!(*schemes.slot(host).lock().await, None, "{host}");
    }
}
