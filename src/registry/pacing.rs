//! How fast a registry is asked, for each kind of request by itself.
//!
//! Services count kinds of requests apart, and a complaint about manifests says nothing of blobs; small requests never wait
//! behind large ones, because those are another kind. Each kind at each registry has a lane, in which requests wait in the
//! order they came: for a place in a window that only congestion makes (`lane`), for the ceilings of the registry's profile,
//! and for the end of a pause that the registry asked for (Retry-After) or that its own count of what is left makes wise
//! (`allowance`). A pause that is longer than a request's patience fails at once with the time to come back: the job gives
//! its place up, and nothing is sent meanwhile. Nothing is spawned, and a registry that never complains costs two locks.

mod allowance;
mod lane;

pub(super) use lane::Heard;

use super::profile::{Counted, Profile};
use super::retries::LONGEST_WISH;
use super::{Error, Session};
use crate::clock::{BootTime, Clock};
use crate::job::retry::Class;
use http::{HeaderMap, Method, StatusCode};
use lane::{Bucket, Entry, Lane};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex as Turnstile, Notify};

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// GET and HEAD of a manifest, and its referrers.
    ManifestRead,
    /// PUT and DELETE of a manifest.
    ManifestWrite,
    /// GET and HEAD of a blob.
    BlobRead,
    /// The steps of an upload that carry no content: its beginning, its status, its end, a mount.
    Upload,
    /// The content of an upload.
    UploadData,
    /// Lists of tags and repositories.
    List,
    /// Tokens of a registry's token server.
    Token,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::ManifestRead,
        Self::ManifestWrite,
        Self::BlobRead,
        Self::Upload,
        Self::UploadData,
        Self::List,
        Self::Token,
    ];

    /// The name in the configuration and in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ManifestRead => "manifest_read",
            Self::ManifestWrite => "manifest_write",
            Self::BlobRead => "blob_read",
            Self::Upload => "upload",
            Self::UploadData => "upload_data",
            Self::List => "list",
            Self::Token => "token",
        }
    }
}

impl Kind {
    /// The kind of a request to a registry's API: `path` from `/v2/` on, with query.
    pub(super) fn of(method: &Method, path: &str) -> Self {
        let path = path.split('?').next().unwrap_or_default();
        let mut segments = path.rsplit('/');
        let (_, noun) = (segments.next(), segments.next().unwrap_or_default());
        let reads = matches!(*method, Method::GET | Method::HEAD);
        match noun {
            "manifests" if !reads => Self::ManifestWrite,
            "manifests" | "referrers" => Self::ManifestRead,
            "blobs" => Self::BlobRead,
            "uploads" => Self::Upload,
            _ => Self::List,
        }
    }
}

/// The lanes of all registries.
#[derive(Default)]
pub(super) struct Pacing {
    hosts: Mutex<HashMap<String, Arc<Host>>>,
}

/// One registry.
#[derive(Default)]
struct Host {
    lanes: [Way; Kind::ALL.len()],
    ceilings: Mutex<Ceilings>,
}

/// One lane, and the order in which it is entered.
#[derive(Default)]
struct Way {
    lane: Mutex<Lane>,
    /// Whoever holds it is the next to leave. Fair: they get it in the order they came.
    turn: Turnstile<()>,
    /// Somebody has come back.
    back: Notify,
}

#[derive(Default)]
struct Ceilings {
    /// The profile that they are from.
    profile: Option<Arc<Profile>>,
    buckets: Vec<(Option<Kind>, Bucket)>,
}

impl Ceilings {
    /// How long a request of that kind must wait at `now`.
    fn take(&mut self, profile: &Arc<Profile>, kind: Kind, now: BootTime) -> Duration {
        if !self.profile.as_ref().is_some_and(|known| Arc::ptr_eq(known, profile)) {
            let bucket = |ceiling: &super::profile::Ceiling| (ceiling.kind, Bucket::new(ceiling.requests, ceiling.per));
            self.buckets = profile.ceilings.iter().map(bucket).collect();
            self.profile = Some(profile.clone());
        }
        let about = self.buckets.iter_mut().filter(|(of, _)| of.is_none_or(|of| of == kind));
        about.map(|(_, bucket)| bucket.take(now)).max().unwrap_or_default()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pacing {
    fn host(&self, name: &str) -> Arc<Host> {
        let mut hosts = lock(&self.hosts);
        match hosts.get(name) {
            Some(host) => host.clone(),
            None => hosts.entry(name.to_owned()).or_default().clone(),
        }
    }
}

/// Leave to send one request. Dropped without a word, it says nothing about the registry.
#[must_use]
pub(super) struct Pass {
    host: Arc<Host>,
    name: String,
    kind: Kind,
    number: u64,
    profile: Arc<Profile>,
    heard: Heard,
}

impl Session {
    /// Returns when a request of `kind` may be sent to the registry `host`; `counted`: it fetches something, so that it uses
    /// up what the registry allows. Cancel-safe.
    ///
    /// # Errors
    /// Retry with the time to come back, exhausted, when that is longer than a request may wait.
    pub(super) async fn pace(&self, host: &str, kind: Kind, method: &Method) -> Result<Pass, Error> {
        let profile = self.shared.profiles.of(host);
        let counted = !(profile.counted == Counted::Manifests && *method == Method::HEAD);
        self.shared.pacing.enter(&self.shared.clock, host, kind, counted, profile).await
    }
}

impl Pacing {
    async fn enter(
        &self,
        clock: &Clock,
        name: &str,
        kind: Kind,
        counted: bool,
        profile: Arc<Profile>,
    ) -> Result<Pass, Error> {
        let host = self.host(name);
        let way = &host.lanes[kind as usize];
        let turn = way.turn.lock().await;
        loop {
            let entry = lock(&way.lane).look(clock.boot(), counted);
            match entry {
                Entry::Open => break,
                Entry::Full => way.back.notified().await,
                Entry::Closed(wait) if wait > LONGEST_WISH => return Err(come_back(name, kind, wait)),
                Entry::Closed(wait) => tokio::time::sleep(wait).await,
            }
        }
        let wait = lock(&host.ceilings).take(&profile, kind, clock.boot());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let number = lock(&way.lane).enter();
        drop(turn);
        Ok(Pass { host, name: name.to_owned(), kind, number, profile, heard: Heard::Nothing })
    }
}

fn come_back(host: &str, kind: Kind, wait: Duration) -> Error {
    let (kind, secs) = (kind.as_str(), wait.as_secs());
    let text = format!("{host} asked for a pause with requests of kind {kind}: {secs} s are left of it");
    Error::new(Class::Retry { after: Some(wait) }, text).exhausted()
}

impl Pass {
    /// Takes in what the registry itself answered, and gives the place free.
    pub fn answered(mut self, clock: &Clock, status: StatusCode, retry_after: Option<Duration>, headers: &HeaderMap) {
        let congested = status == StatusCode::TOO_MANY_REQUESTS
            || (status == StatusCode::SERVICE_UNAVAILABLE && retry_after.is_some());
        self.heard = if congested { Heard::Congested } else { Heard::Good };
        if let Some(wait) = retry_after.filter(|wait| congested && !wait.is_zero()) {
            tracing::debug!(host = self.name, kind = self.kind.as_str(), wait_ms = wait.as_millis(), "told to wait");
            lock(&self.host.lanes[self.kind as usize].lane).close(BootTime(clock.boot().0 + wait));
        }
        let Some(pause) = allowance::pause(headers, clock.now()) else { return };
        if !pause.is_zero() {
            tracing::debug!(
                host = self.name,
                pause_ms = pause.as_millis(),
                "little is left of what the registry allows"
            );
        }
        let until = BootTime(clock.boot().0 + pause);
        let of = |kind| lock(&self.host.lanes[kind as usize].lane).spare(until);
        match self.profile.counted {
            Counted::OfKind => of(self.kind),
            Counted::Manifests => of(Kind::ManifestRead),
            Counted::Everything => Kind::ALL.into_iter().for_each(of),
        }
    }

    /// Nobody took the connection, and gives the place free.
    pub fn unanswered(mut self) {
        self.heard = Heard::Congested;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let way = &self.host.lanes[self.kind as usize];
        let (before, after) = {
            let mut lane = lock(&way.lane);
            let before = lane.window();
            lane.leave(self.number, self.heard);
            (before, lane.window())
        };
        way.back.notify_one();
        if self.heard == Heard::Congested && before != after {
            tracing::debug!(host = self.name, kind = self.kind.as_str(), window = after, "congested: fewer at a time");
        }
    }
}

#[cfg(test)]
mod tests;
