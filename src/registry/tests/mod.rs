//! The client against small servers in this process: what is sent, in what order, with which credentials.

mod authentication;
mod connections;
mod credentials;
mod requests;
mod schemes;
mod server;
mod uploads;

use super::{Client, Error, Session, Settings};
use crate::clock::Clock;
use crate::oci::{Digest, Repository, Selector};
use server::Server;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The sha256 of nothing.
const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn digest() -> Digest {
    EMPTY.parse().unwrap()
}

fn tag() -> Selector {
    Selector::Tag("1.2".parse().unwrap())
}

fn settings() -> Settings {
    Settings {
        credential_files: Some(Vec::new()),
        connect_timeout: Duration::from_secs(5),
        first_byte_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(5),
        ..Settings::default()
    }
}

/// A client with pauses of a millisecond.
fn client(settings: Settings, clock: Clock) -> Client {
    Client::build(settings, clock, Duration::from_millis(1)).unwrap()
}

/// A session with its count of requests.
struct Asking {
    session: Session,
    requests: Arc<AtomicU64>,
}

impl Asking {
    fn new(settings: Settings) -> Self {
        Self::of(&client(settings, Clock::System), true)
    }

    fn of(client: &Client, verify_tls: bool) -> Self {
        let requests = Arc::new(AtomicU64::new(0));
        Self { session: client.session(verify_tls, requests.clone()), requests }
    }

    fn count(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

fn repository(server: &Server, name: &str) -> Repository {
    Repository::parse(&format!("{}/{name}", server.host())).unwrap()
}

/// A credential file for `server` in a folder of its own.
fn credential_file(server: &Server, entry: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    std::fs::write(&path, format!(r#"{{"auths": {{"{}": {entry}}}}}"#, server.host())).unwrap();
    (dir, path)
}

/// The whole chain of an error, as somebody might log it.
fn everything(error: &Error) -> String {
    format!("{error} {error:?}")
}

#[test]
fn what_others_hold_across_awaits_is_send() {
    fn send<T: Send>(_: T) {}
    fn check(session: &Session, repository: &Repository) {
        send(session.head_manifest(repository, &tag()));
        send(session.get_blob(repository, &digest()));
        send(session.start_upload(repository, &digest(), None));
        send(session.list_tags(repository, None));
    }
    fn finish(session: &Session, upload: super::Upload, body: super::UploadBody) {
        send(session.finish_upload(upload, &digest(), 1, body));
    }
    let _ = (check, finish);
}
