//! A registry in this process that goes on with uploads as the distribution specification describes it, which
//! `docker-registry` does not do after a cut.
//!
//! It keeps no content, only how much of it came, and the hash of that: what is committed was hashed here as well. It counts
//! every byte of content that reached it, also of chunks that were cut.

use crate::Measured;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// What becomes of a chunk that was cut.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// What arrived of it stays.
    Kept,
    /// Nothing of it stays.
    Dropped,
}

#[derive(Clone, Default)]
struct Upload {
    offset: u64,
    hash: Sha256,
}

#[derive(Default)]
struct State {
    uploads: BTreeMap<String, Arc<tokio::sync::Mutex<()>>>,
    parts: BTreeMap<String, Upload>,
    /// Size of what was committed, by its digest.
    blobs: BTreeMap<String, u64>,
    /// Digest of each manifest, by the path it was put to.
    manifests: BTreeMap<String, String>,
    bytes: u64,
    requests: u64,
}

type Shared = Arc<(Cut, Mutex<State>)>;
type Answer = Response<Full<Bytes>>;

/// The registry. Its connections end when it is dropped.
pub struct Chunks {
    address: SocketAddr,
    shared: Shared,
    _tasks: JoinSet<()>,
}

impl Chunks {
    /// Listens on a free port.
    ///
    /// # Errors
    /// There is none.
    pub async fn start(cut: Cut) -> Measured<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared: Shared = Arc::new((cut, Mutex::default()));
        let (mut tasks, serving) = (JoinSet::new(), shared.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                        let shared = serving.clone();
                        connections.spawn(async move {
                            let answer = service_fn(move |request| answer(shared.clone(), request));
                            let serving = hyper::server::conn::http1::Builder::new();
                            // Whoever copies is killed in the middle: that its connections break is what is measured.
                            drop(serving.serve_connection(TokioIo::new(stream), answer).await);
                        });
                    },
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(Self { address, shared, _tasks: tasks })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How far the upload is that has come farthest, bytes.
    pub fn position(&self) -> u64 {
        lock(&self.shared).parts.values().map(|upload| upload.offset).max().unwrap_or(0)
    }

    /// Bytes of content that reached it.
    pub fn bytes(&self) -> u64 {
        lock(&self.shared).bytes
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        lock(&self.shared).requests
    }

    /// A blob was committed whose digest this is, by the hash of what came; its size.
    pub fn holds(&self, digest: &str) -> Option<u64> {
        lock(&self.shared).blobs.get(digest).copied()
    }

    /// A manifest of this digest was put under this tag.
    pub fn names(&self, repository: &str, tag: &str, digest: &str) -> bool {
        let path = format!("/v2/{repository}/manifests/{tag}");
        lock(&self.shared).manifests.get(&path).is_some_and(|held| held == digest)
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.1.lock().unwrap_or_else(PoisonError::into_inner)
}

fn plain(status: StatusCode, headers: &[(&str, &str)]) -> Answer {
    let built =
        headers.iter().fold(Response::builder().status(status), |built, (name, value)| built.header(*name, *value));
    built.body(Full::default()).unwrap_or_default()
}

fn digest(hash: Sha256) -> String {
    let bytes = hash.finalize();
    bytes.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

async fn answer(shared: Shared, request: Request<Incoming>) -> Result<Answer, Infallible> {
    lock(&shared).requests += 1;
    let (method, path) = (request.method().as_str().to_owned(), request.uri().path().to_owned());
    let query = request.uri().query().unwrap_or_default().to_owned();
    let upload = path.split_once("/blobs/uploads/").map(|(_, id)| id.to_owned());
    Ok(match (method.as_str(), upload) {
        ("POST", Some(_)) => {
            let mut state = lock(&shared);
            let id = format!("u{}", state.requests);
            state.uploads.insert(id.clone(), Arc::default());
            state.parts.insert(id.clone(), Upload::default());
            plain(StatusCode::ACCEPTED, &[("location", &format!("{path}{id}"))])
        }
        (method, Some(id)) => about_upload(&shared, method, &path, &id, &query, request).await,
        ("PUT", None) => put_manifest(&shared, &path, request).await,
        (_, None) => {
            let state = lock(&shared);
            let size = path.rsplit_once("/blobs/").and_then(|(_, digest)| state.blobs.get(digest));
            size.map_or_else(
                || plain(StatusCode::NOT_FOUND, &[]),
                |size| plain(StatusCode::OK, &[("content-length", &size.to_string())]),
            )
        }
    })
}

async fn put_manifest(shared: &Shared, path: &str, request: Request<Incoming>) -> Answer {
    let Ok(body) = request.into_body().collect().await else { return plain(StatusCode::BAD_REQUEST, &[]) };
    let digest = digest(Sha256::new_with_prefix(body.to_bytes()));
    lock(shared).manifests.insert(path.to_owned(), digest.clone());
    plain(StatusCode::CREATED, &[("docker-content-digest", &digest)])
}

/// Everything about one upload comes one after the other: who asks how far it is must not be told before the end of a chunk that
/// was cut has been noticed.
async fn about_upload(
    shared: &Shared,
    method: &str,
    path: &str,
    id: &str,
    query: &str,
    request: Request<Incoming>,
) -> Answer {
    let Some(turn) = lock(shared).uploads.get(id).cloned() else { return plain(StatusCode::NOT_FOUND, &[]) };
    let _turn = turn.lock().await;
    let Some(before) = lock(shared).parts.get(id).cloned() else { return plain(StatusCode::NOT_FOUND, &[]) };
    if method == "DELETE" {
        lock(shared).parts.remove(id);
        return plain(StatusCode::NO_CONTENT, &[]);
    }
    if method == "GET" {
        return progress(StatusCode::NO_CONTENT, path, before.offset);
    }
    let range = request.headers().get("content-range").and_then(|range| range.to_str().ok());
    let start = range.and_then(|range| range.split_once('-')?.0.parse::<u64>().ok());
    if start.is_some_and(|start| start != before.offset) {
        return progress(StatusCode::RANGE_NOT_SATISFIABLE, path, before.offset);
    }
    let mut body = request.into_body();
    loop {
        let frame = match body.frame().await {
            None => break,
            Some(Ok(frame)) => frame,
            Some(Err(_)) => {
                if shared.0 == Cut::Dropped {
                    lock(shared).parts.insert(id.to_owned(), before);
                }
                return plain(StatusCode::BAD_REQUEST, &[]);
            }
        };
        let Ok(bytes) = frame.into_data() else { continue };
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let mut state = lock(shared);
        state.bytes += length;
        if let Some(upload) = state.parts.get_mut(id) {
            upload.offset += length;
            upload.hash.update(&bytes);
        }
    }
    let mut state = lock(shared);
    let Some(upload) = state.parts.get(id).cloned() else { return plain(StatusCode::NOT_FOUND, &[]) };
    if method == "PATCH" {
        return progress(StatusCode::ACCEPTED, path, upload.offset);
    }
    state.parts.remove(id);
    let found = digest(upload.hash);
    if !query.split('&').any(|field| field.strip_prefix("digest=") == Some(&found)) {
        return plain(StatusCode::BAD_REQUEST, &[]);
    }
    state.blobs.insert(found, upload.offset);
    plain(StatusCode::CREATED, &[])
}

fn progress(status: StatusCode, path: &str, offset: u64) -> Answer {
    let range = format!("0-{}", offset.saturating_sub(1));
    plain(status, &[("location", path), ("range", &range)])
}
