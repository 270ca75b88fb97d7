//! What a client needs to know before its first request.
//!
//! One plain struct with a default for everything, rather than a builder: the configuration room has checked the values
//! already, and a test changes one field. It holds no secrets; those stay in the credential files it names.

use super::profile::Overrides;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

/// Time to connect, TLS handshake included: a packet may be lost and sent again three times within it.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time from the request to the head of the answer: registries on object stores are slow at a manifest's commit.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest silence within a body, in either direction: load balancers give up at about this time as well.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Tries per request: enough for a restarting registry behind a load balancer; longer outages are for the job's backoff.
pub const TRIES: u32 = 4;
/// Largest manifest in bytes: twice what registries must accept at least (distribution specification: 4 MiB).
pub const MANIFEST_LIMIT: u64 = 8 * 1024 * 1024;

/// What a client needs to know; every limit has a default.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Extra CA certificates, PEM files, trusted beside the system's.
    pub ca_files: Vec<PathBuf>,
    /// Hosts (`host[:port]`, exactly as in references) for which plain HTTP and unverified TLS are allowed.
    pub insecure_hosts: Vec<String>,
    /// Credential files in order of precedence; None: `$REGISTRY_AUTH_FILE`, then `$DOCKER_CONFIG/config.json`, and when
    /// that variable is not set `~/.docker/config.json`.
    pub credential_files: Option<Vec<PathBuf>>,
    /// Longest time to connect, TLS handshake included.
    pub connect_timeout: Duration,
    /// Longest time from a request to the head of its answer.
    pub first_byte_timeout: Duration,
    /// Longest silence between two pieces of a body, received or sent. A body has no time limit as a whole.
    pub idle_timeout: Duration,
    /// Tries per request without a streamed body, the first included; 0 counts as 1.
    pub tries: u32,
    /// Largest manifest that is read into memory, bytes.
    pub manifest_limit: u64,
    /// What is set for single registries, by host (`host[:port]`, as in references).
    pub registries: BTreeMap<String, RegistrySettings>,
}

/// What is set for one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistrySettings {
    /// Where its profile differs from the table's.
    pub profile: Overrides,
}

impl Settings {
    /// The fields of profiles that are set, by host in lower case.
    pub(super) fn overrides(&self) -> HashMap<String, Overrides> {
        let set = self.registries.iter();
        set.map(|(host, registry)| (host.to_ascii_lowercase(), registry.profile.clone())).collect()
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ca_files: Vec::new(),
            insecure_hosts: Vec::new(),
            credential_files: None,
            connect_timeout: CONNECT_TIMEOUT,
            first_byte_timeout: FIRST_BYTE_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            tries: TRIES,
            manifest_limit: MANIFEST_LIMIT,
            registries: BTreeMap::new(),
        }
    }
}
