//! HTTP to registries: the request loop, authentication, blobs, manifests, tags, referrers.
//!
//! A [`Client`] is shared by all jobs of a process: it owns the connection pools, the tokens, the credentials, and what is
//! known of each registry. A [`Session`] is the view of one job and side on it: it counts requests, and may switch off TLS
//! verification. Every operation is one method of the session that says what is true when it returns; all of them go
//! through one request loop (`http`), which finds out how the registry wants to be spoken to (`scheme`, `auth`), counts,
//! retries what may pass, and follows redirects by hand.
//!
//! Not one of the existing registry crates: the budget of requests, where credentials may go, and which errors are worth
//! another attempt are the point of this program, and they are decided in just that loop.
//!
//! What it never does: ping a registry; send credentials to a host they do not belong to, or by plain HTTP off this
//! machine unless told so; hold a blob in memory; put a credential, a header or the query of a URL into a log line or an
//! error. It checks no digests of what it reads: callers know what they expect, and check every byte.

mod auth;
mod blobs;
mod challenge;
mod content;
mod credential_helper;
mod credentials;
mod error;
mod flight;
mod http;
mod link;
mod manifests;
mod network;
mod pacing;
pub mod profile;
mod redirects;
mod referrers;
mod retries;
mod scheme;
mod scopes;
mod settings;
mod tags;
#[cfg(test)]
mod tests;
mod tls;
mod token;
mod upload;
mod warnings;

pub use blobs::{BlobBody, PartSource};
pub use content::UploadBody;
pub use credentials::{VaultHandle, VaultLookup};
pub use error::Error;
pub use manifests::{FetchedManifest, ManifestHead};
pub use pacing::Kind;
pub use profile::Profile;
pub use referrers::{Listed, Versioned};
pub use settings::canonical as canonical_host;
pub use settings::{
    CONNECT_TIMEOUT, FIRST_BYTE_TIMEOUT, IDLE_TIMEOUT, Identity, MANIFEST_LIMIT, Proxy, RegistrySettings, Settings,
    TRIES,
};
pub use tags::TagCursor;
pub use upload::{Upload, UploadStart};

use crate::clock::Clock;
use crate::oci::Repository;
use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Shared by all jobs of a process: connection pools, tokens, credentials, what is known of each registry. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    clock: Clock,
    clients: tls::Clients,
    credentials: credentials::Credentials,
    schemes: scheme::Schemes,
    tokens: token::Tokens,
    /// What each registry wants, by host and how it is trusted.
    challenges: Mutex<HashMap<String, auth::Known>>,
    profiles: profile::Profiles,
    pacing: pacing::Pacing,
    warnings: warnings::Warnings,
    first_pause: Duration,
}

impl Client {
    /// A client that has not spoken to anybody yet. CA files are read now, credential files when they are needed.
    ///
    /// # Errors
    /// Refused, when an extra CA file cannot be used.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        Self::with_clock(settings, Clock::System)
    }

    /// The same with another clock for the life of tokens and of looked-up credentials.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn with_clock(settings: Settings, clock: Clock) -> Result<Self, Error> {
        Self::build(settings, clock, retries::FIRST_PAUSE)
    }

    fn build(settings: Settings, clock: Clock, first_pause: Duration) -> Result<Self, Error> {
        let shared = Shared {
            clients: tls::Clients::new(&settings)?,
            credentials: credentials::Credentials::new(&settings, clock.clone()),
            schemes: scheme::Schemes::default(),
            tokens: token::Tokens::default(),
            challenges: Mutex::default(),
            profiles: profile::Profiles::new(settings.overrides()),
            pacing: pacing::Pacing::default(),
            warnings: warnings::Warnings::default(),
            settings,
            clock,
            first_pause,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// A view for one job and side: counts its requests (every HTTP request sent, token requests too; not the scheme
    /// probe), and may switch off TLS verification (--src-tls-verify=false: unverified TLS, or plain HTTP).
    #[must_use]
    pub fn session(&self, verify_tls: bool, requests: Arc<AtomicU64>) -> Session {
        Session { shared: self.shared.clone(), verify_tls, will_push: false, requests }
    }
}

/// The view of one job and side on the shared client. Cheap to clone; clones count into the same number.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
    verify_tls: bool,
    will_push: bool,
    requests: Arc<AtomicU64>,
}

impl Session {
    /// This session, for looking at a repository that is going to be pushed to: what is read is asked for with a token that
    /// may push as well. So one token does for all of a copy, and registries that give nobody `pull` on a repository which
    /// does not exist yet let it be looked at.
    #[must_use]
    pub fn for_push(self) -> Self {
        Self { will_push: true, ..self }
    }

    /// What is known of the registry of `repository`; by the time of a later call it may have said more of itself. Costs no
    /// request.
    #[must_use]
    pub fn profile(&self, repository: &Repository) -> Arc<Profile> {
        self.shared.profiles.of(repository.host())
    }

    /// The registry of `repository` was seen to be of the profile of this name, maybe by another process. What it says itself
    /// and what is configured goes before; an unknown name is passed over.
    pub fn remember_profile(&self, repository: &Repository, name: &str) {
        self.shared.profiles.remember(repository.host(), name);
    }

    /// What a token for reading from a repository must allow.
    fn reading_scopes(&self, repository: &str) -> scopes::Scopes {
        if self.will_push { scopes::Scopes::push(repository) } else { scopes::Scopes::pull(repository) }
    }

    /// Whether the certificates of `authority` (`host[:port]`) are verified. Where they are not, plain HTTP is allowed too.
    fn verifies(&self, authority: &str) -> bool {
        self.verify_tls && !self.shared.settings.insecure_hosts.iter().any(|host| host.eq_ignore_ascii_case(authority))
    }

    /// The same for a URL, which does not show a port that its scheme implies.
    fn verifies_url(&self, url: &url::Url) -> bool {
        let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
        self.verifies(url.authority()) && self.verifies(&format!("{host}:{port}"))
    }
}
