//! A registry in this process that logs every request and can be told to misbehave.
//!
//! It is strict where a real registry is strict (what a manifest names must be there, an upload's `_state` must be the
//! newest, a digest must fit) and shows what a real one hides: every request with its headers, and every byte stored.
//! Scripted faults are in `fault`; what is a habit of the whole registry rather than one bad answer is in `Options`.

mod auth;
mod exchange;
mod fault;
mod flow;
mod manifests;
mod pages;
mod quirks;
mod routes;
mod store;
mod uploads;

pub use auth::{Auth, TokenRequest, basic_credentials};
pub use fault::{Fault, Matcher};
pub use quirks::{IMMUTABLE_AT_ECR, IMMUTABLE_AT_HARBOR, Quirks};
pub use store::TagSet;

use super::content::{Algorithm, Content};
use super::http::Client;
use super::image::Image;
use super::server::HttpServer;
use super::tls::Authority;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use store::State;
use tokio::sync::watch;

/// How a registry writes the Location of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocationStyle {
    /// `http://127.0.0.1:5000/v2/...`
    Absolute,
    /// `/v2/...`
    AbsolutePath,
    /// Relative to the URL of the response: `<upload id>?_state=...`
    Relative,
}

/// Habits of a registry. The default is much like Distribution 2.8.
#[derive(Debug, Clone)]
pub struct Options {
    pub auth: Auth,
    /// Answers the referrers API, and `OCI-Subject` on manifests with a subject.
    pub referrers: bool,
    /// Most entries of a page of referrers.
    pub referrers_page: usize,
    /// Filters referrers by artifact type where that is asked for, and says so.
    pub referrers_filter: bool,
    /// Sends an ETag with manifests, and puts one only where If-Match has the right one.
    pub etags: bool,
    /// Sends Docker-Content-Digest.
    pub digest_header: bool,
    pub location: LocationStyle,
    /// Mounts blobs; without, every mount request starts an upload.
    pub mounts: bool,
    /// Allows DELETE of manifests and blobs; without: 405.
    pub deletes: bool,
    /// Refuses a manifest that names what is not there.
    pub verify_manifests: bool,
    /// Hashes uploads and throws the bytes away: for blobs larger than memory.
    pub discard_uploads: bool,
    /// Most entries of a page of tags or repositories, whatever `n` asks for.
    pub page_limit: usize,
    /// Refuses larger manifests with 413, bytes.
    pub manifest_limit: u64,
    /// Sends `OCI-Chunk-Min-Length` with a new upload, and refuses smaller chunks but the last.
    pub chunk_min_length: Option<u64>,
    /// What a request for a part of a blob gets.
    pub ranges: Ranges,
    /// What the registries of the profile table do differently.
    pub quirks: Quirks,
}

/// What a request for a part of a blob gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ranges {
    /// 206 with that part.
    Given,
    /// 200 with all of it.
    Ignored,
    /// 206 with another part, and says so.
    Wrong,
    /// 206 with another part, and says that it is the right one.
    Lied,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            auth: Auth::None,
            referrers: false,
            referrers_page: 100,
            referrers_filter: true,
            etags: false,
            digest_header: true,
            location: LocationStyle::Absolute,
            mounts: true,
            deletes: true,
            verify_manifests: true,
            discard_uploads: false,
            page_limit: 100,
            manifest_limit: 8 * 1024 * 1024,
            chunk_min_length: None,
            ranges: Ranges::Given,
            quirks: Quirks::default(),
        }
    }
}

/// A request as the fake saw it.
#[derive(Debug, Clone)]
pub struct LoggedRequest {
    pub method: String,
    /// Path with query.
    pub path: String,
    /// All headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Bytes of the request's body that were read.
    pub body_bytes: u64,
    /// None while it is being answered, and when the connection was dropped instead.
    pub status: Option<u16>,
}

impl LoggedRequest {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether credentials of any kind came with it.
    pub fn authorized(&self) -> bool {
        self.header("authorization").is_some()
    }
}

/// A place where the fake waits for the test: it tells that it got there, and goes on when it may.
struct Gate {
    reached: watch::Sender<usize>,
    released: watch::Sender<bool>,
}

impl Gate {
    /// Tells the test, then waits until it is released (at once when it was before).
    async fn pass(&self) {
        self.reached.send_modify(|count| *count += 1);
        // The gate outlives every waiter, so this ends only by a release.
        let _ = self.released.subscribe().wait_for(|open| *open).await;
    }
}

/// What the server thread and the test share.
struct Shared {
    pub options: Options,
    pub base_url: std::sync::OnceLock<String>,
    pub state: Mutex<State>,
    pub log: Mutex<exchange::Log>,
    pub faults: Mutex<Vec<fault::Scripted>>,
    pub gates: Mutex<HashMap<String, Arc<Gate>>>,
    pub tokens: Mutex<auth::Tokens>,
}

impl Shared {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no handler panicked")
    }

    pub fn base_url(&self) -> &str {
        self.base_url.get().expect("set before the first request")
    }

    pub fn gate(&self, name: &str) -> Arc<Gate> {
        let mut gates = self.gates.lock().expect("no handler panicked");
        let make = || Arc::new(Gate { reached: watch::Sender::new(0), released: watch::Sender::new(false) });
        gates.entry(name.to_owned()).or_insert_with(make).clone()
    }
}

/// A running fake registry; stopped on drop.
pub struct Fake {
    shared: Arc<Shared>,
    server: HttpServer,
    tls: Option<Authority>,
}

impl Fake {
    /// A registry with the default habits, plain HTTP.
    pub fn start() -> Self {
        Self::start_with(Options::default())
    }

    pub fn start_with(options: Options) -> Self {
        Self::launch(options, None)
    }

    /// As `start_with`, with TLS by an authority of its own (`ca`).
    pub fn start_tls(options: Options) -> Self {
        Self::launch(options, Some(Authority::new()))
    }

    fn launch(options: Options, tls: Option<Authority>) -> Self {
        let shared = Arc::new(Shared {
            options,
            base_url: std::sync::OnceLock::new(),
            state: Mutex::default(),
            log: Mutex::default(),
            faults: Mutex::default(),
            gates: Mutex::default(),
            tokens: Mutex::default(),
        });
        let serving = shared.clone();
        let handler = Arc::new(move |request| {
            let future: futures_util::future::BoxFuture<'static, _> =
                Box::pin(routes::answer(serving.clone(), request));
            future
        });
        let server = HttpServer::start(tls.as_ref().map(Authority::server_config), handler);
        let scheme = if tls.is_some() { "https" } else { "http" };
        shared.base_url.set(format!("{scheme}://{}", server.address)).expect("set once");
        Self { shared, server, tls }
    }

    /// `127.0.0.1:port`, as it stands in references.
    pub fn authority(&self) -> String {
        self.server.address.to_string()
    }

    /// `http://127.0.0.1:port`
    pub fn base_url(&self) -> String {
        self.shared.base_url().to_owned()
    }

    /// `127.0.0.1:port/repository:tag`
    pub fn reference(&self, repository: &str, tag: &str) -> String {
        format!("{}/{repository}:{tag}", self.authority())
    }

    /// The authority to trust, when this is a TLS registry.
    pub fn ca(&self) -> Option<std::path::PathBuf> {
        self.tls.as_ref().map(Authority::ca)
    }

    /// A client of the rig for this registry.
    pub fn client(&self) -> Client {
        let client = Client::new(self.authority());
        match self.ca() {
            Some(ca) => client.trusting(&ca),
            None => client,
        }
    }

    // Seeding, past HTTP and past the log.

    /// Holds the image, with all below it, as this tag.
    pub fn put_image(&self, repository: &str, tag: &str, image: &Image) {
        for blob in image.all_blobs() {
            self.shared.state().put_blob(repository, &blob.digest, blob.content.clone());
        }
        for child in image.manifests() {
            self.put_manifest(repository, &child.digest, &child.media_type, child.manifest.clone());
        }
        self.shared.state().put_tag(repository, tag, &image.digest);
    }

    /// Holds a blob; gives its sha256 digest.
    pub fn put_blob(&self, repository: &str, content: impl Into<Content>) -> String {
        let content = content.into();
        let digest = content.digest(Algorithm::Sha256);
        self.shared.state().put_blob(repository, &digest, content);
        digest
    }

    /// Holds a blob that is generated while it is sent, of any size; gives its sha256 digest.
    pub fn put_virtual_blob(&self, repository: &str, seed: u64, size: u64) -> String {
        self.put_blob(repository, Content::seeded(seed, size))
    }

    /// Holds these bytes as a manifest, unchecked. `reference` is a tag, or the digest to hold it under.
    pub fn put_manifest(&self, repository: &str, reference: &str, media_type: &str, bytes: impl Into<Bytes>) {
        self.shared.state().put_manifest(repository, reference, media_type, bytes.into());
    }

    /// Takes a blob away again, as a garbage collection gone wrong does.
    pub fn lose_blob(&self, repository: &str, digest: &str) {
        self.shared.state().repository(repository).blobs.remove(digest);
    }

    // Looking.

    /// All requests so far, in the order they arrived.
    pub fn requests(&self) -> Vec<LoggedRequest> {
        self.shared.log.lock().expect("no handler panicked").requests()
    }

    /// Number of requests with this method (`*`: any) whose path contains `path_part`.
    pub fn count(&self, method: &str, path_part: &str) -> usize {
        let fits = |seen: &LoggedRequest| (method == "*" || seen.method == method) && seen.path.contains(path_part);
        self.requests().iter().filter(|seen| fits(seen)).count()
    }

    /// Forgets the log, so that the next part of a test counts from zero.
    pub fn clear_requests(&self) {
        self.shared.log.lock().expect("no handler panicked").clear();
    }

    /// Media type and bytes of a manifest, by tag or digest.
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<(String, Bytes)> {
        self.shared.state().manifest(repository, reference).map(|(_, manifest)| manifest)
    }

    /// The digest a tag names.
    pub fn digest_of(&self, repository: &str, tag: &str) -> Option<String> {
        self.shared.state().repository(repository).tags.get(tag).cloned()
    }

    pub fn has_blob(&self, repository: &str, digest: &str) -> bool {
        self.shared.state().repository(repository).blobs.contains_key(digest)
    }

    /// The blob, when it is held (uploads are not, with `discard_uploads`).
    pub fn blob(&self, repository: &str, digest: &str) -> Option<Content> {
        self.shared.state().repository(repository).blobs.get(digest).cloned()
    }

    pub fn tags(&self, repository: &str) -> Vec<String> {
        self.shared.state().repository(repository).tags.keys().cloned().collect()
    }

    /// Names of all repositories.
    pub fn repositories(&self) -> Vec<String> {
        self.shared.state().repositories.keys().cloned().collect()
    }

    /// Digests of all blobs of a repository.
    pub fn blobs(&self, repository: &str) -> Vec<String> {
        self.shared.state().repository(repository).blobs.keys().cloned().collect()
    }

    /// Every tag that was set, oldest first.
    pub fn tag_history(&self) -> Vec<TagSet> {
        self.shared.state().tag_history.clone()
    }

    /// Uploads that were started and neither finished nor cancelled.
    pub fn open_uploads(&self) -> usize {
        self.shared.state().uploads.len()
    }

    /// Panics unless the fake holds exactly this image.
    pub fn assert_holds(&self, repository: &str, reference: &str, image: &Image) {
        for child in image.manifests() {
            let name = if child.digest == image.digest { reference } else { &child.digest };
            let held = self.manifest(repository, name);
            assert_eq!(held, Some((child.media_type.clone(), child.manifest.clone())), "{repository} {name}");
        }
        for blob in image.all_blobs() {
            assert!(self.has_blob(repository, &blob.digest), "{repository} lacks {}", blob.digest);
        }
    }

    // Misbehaving.

    /// Adds a fault. A request takes the first fault, in the order they were added, that fits and has turns left.
    pub fn fault(&self, matcher: Matcher, fault: Fault) {
        self.shared.faults.lock().expect("no handler panicked").push(fault::Scripted { matcher, fault });
    }

    /// Takes all faults away and opens all gates.
    pub fn heal(&self) {
        self.shared.faults.lock().expect("no handler panicked").clear();
        let gates: Vec<_> = self.shared.gates.lock().expect("no handler panicked").values().cloned().collect();
        for gate in gates {
            gate.released.send_replace(true);
        }
    }

    /// Waits until a request stands at the gate of this name; panics after `PATIENCE`.
    pub async fn reached(&self, name: &str) {
        self.reached_times(name, 1).await;
    }

    /// Waits until so many requests have come to the gate.
    pub async fn reached_times(&self, name: &str, times: usize) {
        let mut arrivals = self.shared.gate(name).reached.subscribe();
        let arrived = tokio::time::timeout(super::PATIENCE, arrivals.wait_for(|count| *count >= times)).await;
        assert!(arrived.is_ok(), "nothing came to the gate {name:?}; requests: {:#?}", self.requests());
    }

    /// As `reached`, for tests without a runtime.
    pub fn wait_reached(&self, name: &str) {
        let gate = self.shared.gate(name);
        super::eventually(&format!("the gate {name:?}"), || (*gate.reached.borrow() > 0).then_some(()));
    }

    /// Whether a request has come to the gate of this name.
    pub fn has_reached(&self, name: &str) -> bool {
        *self.shared.gate(name).reached.borrow() > 0
    }

    /// Lets all who wait at this gate go on, and all who come later.
    pub fn release(&self, name: &str) {
        self.shared.gate(name).released.send_replace(true);
    }

    // Tokens.

    /// What was asked of the fake's own token endpoint.
    pub fn token_requests(&self) -> Vec<TokenRequest> {
        self.shared.tokens.lock().expect("no handler panicked").requests.clone()
    }

    /// Makes all tokens given out so far worthless, as if they had expired early.
    pub fn revoke_tokens(&self) {
        self.shared.tokens.lock().expect("no handler panicked").valid.clear();
    }

    /// Sets how long tokens given out from now on live.
    pub fn set_token_lifetime(&self, lifetime: Duration) {
        self.shared.tokens.lock().expect("no handler panicked").lifetime = Some(lifetime);
    }
}
