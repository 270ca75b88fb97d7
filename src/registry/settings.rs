//! What a client needs to know before its first request.
//!
//! One plain struct with a default for everything, rather than a builder: the configuration room has checked the values
//! already, and a test changes one field. It holds no secrets; those stay in the credential files it names.

use super::profile::Overrides;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use url::Url;

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
    /// Asked before the credential files.
    pub vault: super::credentials::VaultHandle,
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
    /// CA certificates, PEM files, trusted for this registry beside all others.
    pub ca_files: Vec<PathBuf>,
    /// The client certificate that is offered to this host, and to no other.
    pub identity: Option<Identity>,
    /// How it is reached; None: as the environment says.
    pub proxy: Option<Proxy>,
}

impl RegistrySettings {
    /// Whether connections to it differ from those to others.
    pub(super) fn connects_its_own_way(&self) -> bool {
        !self.ca_files.is_empty() || self.identity.is_some() || self.proxy.is_some()
    }
}

/// A client certificate for mutual TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate with its chain, a PEM file.
    pub certificate: PathBuf,
    /// Its private key, a PEM file.
    pub key: PathBuf,
}

/// How a registry is reached.
#[derive(Clone, PartialEq, Eq)]
pub enum Proxy {
    /// Directly, whatever the environment says.
    None,
    /// Through this proxy: `http`, `https`, `socks5` (names are looked up here) or `socks5h` (there). May hold a password.
    Url(Url),
}

impl fmt::Debug for Proxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => formatter.write_str("None"),
            Self::Url(url) => write!(formatter, "{}://{}", url.scheme(), url.host_str().unwrap_or_default()),
        }
    }
}

impl FromStr for Proxy {
    type Err = String;

    /// A URL, or `none`. The error does not repeat it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const USE: &str = "write http://HOST:PORT, https://HOST:PORT, socks5://HOST:PORT, socks5h://HOST:PORT or none";
        if text == "none" {
            return Ok(Self::None);
        }
        let url = Url::parse(text).map_err(|error| format!("is no proxy ({error}): {USE}"))?;
        let fits = matches!(url.scheme(), "http" | "https" | "socks5" | "socks5h") && url.host_str().is_some();
        if fits { Ok(Self::Url(url)) } else { Err(format!("is no proxy of a kind that can be used: {USE}")) }
    }
}

/// The name by which settings of a host are kept: lower case, Docker Hub as in references.
#[must_use]
pub fn canonical(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        _ => host,
    }
}

impl Settings {
    /// The fields of profiles that are set, by canonical host.
    pub(super) fn overrides(&self) -> HashMap<String, Overrides> {
        self.registries.iter().map(|(host, registry)| (canonical(host), registry.profile.clone())).collect()
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ca_files: Vec::new(),
            insecure_hosts: Vec::new(),
            credential_files: None,
            vault: super::credentials::VaultHandle::default(),
            connect_timeout: CONNECT_TIMEOUT,
            first_byte_timeout: FIRST_BYTE_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            tries: TRIES,
            manifest_limit: MANIFEST_LIMIT,
            registries: BTreeMap::new(),
        }
    }
}
