//! Which credentials belong to a repository: those of the vault, then docker's `config.json` and the `auth.json` of containers' tools.
//!
//! Files are read when credentials are needed and the answer is kept for a minute, rather than read once at start: a
//! daemon must notice a new login. Within a file the order is: a helper for just this registry, an entry of `auths` that
//! holds something (the longest path first), the general credential store; the first file that knows the registry wins.
//! Nothing of a file's content appears in an error, only its path, and where in it the trouble is. It never writes.

use super::credential_helper::{self, HelperError};
use super::flight::Flights;
use super::{Error, Settings};
use crate::clock::{BootTime, Clock};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use zeroize::{Zeroize, Zeroizing};

/// How long a lookup is kept: helpers start a process, and Basic needs credentials for every request.
pub(super) const KEPT: Duration = Duration::from_secs(60);
/// Largest credential file that is read, bytes: thousands of registries.
const FILE_LIMIT: u64 = 1024 * 1024;
/// Docker Hub's many names; the first is the canonical one.
const HUB_NAMES: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];
/// The key under which credential stores keep Docker Hub.
const HUB_STORE_KEY: &str = "https://index.docker.io/v1/";
/// The user name by which helpers mark an identity token.
const TOKEN_USER: &str = "<token>";

/// A string that is never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(super) struct Secret(String);

impl Secret {
    /// The secret itself, for a request's header or body.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[secret]")
    }
}

/// What to show a registry or its token server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Credential {
    /// User name and password.
    Basic { username: String, password: Secret },
    /// A refresh token for the token server.
    Identity { username: String, token: Secret },
    /// A token for the registry itself.
    Registry { token: Secret },
}

/// A credential and where it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub credential: Credential,
    /// Who it is and which file said so, without anything secret; also the identity in the keys of cached tokens.
    pub identity: String,
}

type Lookup = (BootTime, Option<Arc<Found>>);

/// Credentials that are kept elsewhere than in files, and win over them.
pub trait VaultLookup: Send + Sync {
    /// User name and password for a registry; None: there is none, or it cannot be opened, which was told.
    fn find<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Option<(String, Zeroizing<String>)>>;
}

/// A vault to ask, or none.
#[derive(Clone, Default)]
pub struct VaultHandle(pub Option<Arc<dyn VaultLookup>>);

impl fmt::Debug for VaultHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_some() { "VaultHandle(..)" } else { "VaultHandle(None)" })
    }
}

/// The credentials of all registries.
pub(super) struct Credentials {
    files: Vec<PathBuf>,
    vault: VaultHandle,
    clock: Clock,
    lookups: Flights<(String, String), Lookup>,
    /// Where helpers are searched instead of `$PATH`.
    pub(super) helper_path: Option<OsString>,
}

impl Credentials {
    /// Reads nothing yet.
    pub fn new(settings: &Settings, clock: Clock) -> Self {
        let files = settings.credential_files.clone().unwrap_or_else(usual_files);
        Self { files, vault: settings.vault.clone(), clock, lookups: Flights::default(), helper_path: None }
    }

    /// The credential for a repository (`name` empty: for the registry as a whole).
    ///
    /// # Errors
    /// Refused, when a file is malformed or a helper fails.
    pub async fn find(&self, host: &str, name: &str) -> Result<Option<Arc<Found>>, Error> {
        let slot = self.lookups.slot(&(host.to_owned(), name.to_owned()));
        let mut kept = slot.lock().await;
        let now = self.clock.boot();
        if let Some((at, found)) = &*kept
            && now.since(*at) < KEPT
        {
            return Ok(found.clone());
        }
        let mut found = match &self.vault.0 {
            Some(vault) => vault.find(host).await.map(|(username, password)| {
                let password = Secret(password.as_str().to_owned());
                self::found(Credential::Basic { username, password }, "the vault")
            }),
            None => None,
        };
        for path in &self.files {
            if found.is_some() {
                break;
            }
            let search = self.helper_path.as_deref();
            found = read(path).await?.lookup(path, host, name, search).await?;
        }
        Ok(kept.insert((now, found.map(Arc::new))).1.clone())
    }

    /// The next [`find`](Self::find) reads again: what was found did not work.
    pub fn forget(&self, host: &str, name: &str) {
        self.lookups.remove(&(host.to_owned(), name.to_owned()));
    }
}

fn usual_files() -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let docker = variable("DOCKER_CONFIG").or_else(|| Some(std::env::home_dir()?.join(".docker")));
    variable("REGISTRY_AUTH_FILE").into_iter().chain(docker.map(|dir| dir.join("config.json"))).collect()
}

/// What of a credential file matters here.
#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    auths: Option<HashMap<String, Option<Entry>>>,
    #[serde(default, rename = "credHelpers")]
    helpers: Option<HashMap<String, String>>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

#[derive(Debug, Default, Clone, Deserialize)]
struct Entry {
    auth: Option<Secret>,
    username: Option<String>,
    password: Option<Secret>,
    identitytoken: Option<Secret>,
    registrytoken: Option<Secret>,
}

async fn read(path: &Path) -> Result<File, Error> {
    let trouble = |why: String| Error::refused(format!("credential file {}: {why}", path.display()));
    let length = match tokio::fs::metadata(path).await {
        Ok(metadata) => metadata.len(),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(File::default());
        }
        Err(error) => return Err(trouble(format!("cannot be read ({error})"))),
    };
    if length > FILE_LIMIT {
        return Err(trouble(format!("has {length} bytes, at most {FILE_LIMIT} are read")));
    }
    let bytes = tokio::fs::read(path).await.map_err(|error| trouble(format!("cannot be read ({error})")))?;
    if bytes.trim_ascii().is_empty() {
        return Ok(File::default());
    }
    // The parser's own words may quote the content.
    serde_json::from_slice(&bytes).map_err(|error| {
        trouble(format!("not a valid credential file (line {}, column {})", error.line(), error.column()))
    })
}

impl File {
    async fn lookup(
        &self,
        path: &Path,
        host: &str,
        name: &str,
        search: Option<&OsStr>,
    ) -> Result<Option<Found>, Error> {
        let wanted = wanted_keys(host, name);
        let helpers = self.helpers.iter().flatten();
        if let Some((key, helper)) = best(&wanted, helpers.map(|(key, helper)| (key.as_str(), helper))) {
            let server = if normal(key) == HUB_NAMES[0] { HUB_STORE_KEY } else { key };
            return ask(helper, server, path, search, true).await;
        }
        let entries = self.auths.iter().flatten().filter_map(|(key, entry)| Some((key.as_str(), entry.as_ref()?)));
        if let Some((key, entry)) = best(&wanted, entries.filter(|(_, entry)| entry.holds_something())) {
            return entry.found(key, path).map(Some);
        }
        match &self.store {
            Some(store) if !store.is_empty() => {
                let server = if HUB_NAMES.contains(&host) { HUB_STORE_KEY } else { host };
                ask(store, server, path, search, false).await
            }
            _ => Ok(None),
        }
    }
}

/// Asks a helper. The general store may be missing on this machine (files are shared between machines and containers):
/// then there are no credentials; a helper named for just this registry must be there.
async fn ask(
    helper: &str,
    server: &str,
    path: &Path,
    search: Option<&OsStr>,
    required: bool,
) -> Result<Option<Found>, Error> {
    let origin = format!("docker-credential-{} (named in {})", helper, path.display());
    match credential_helper::get(helper, server, search).await {
        Ok(None) => Ok(None),
        Ok(Some((username, secret))) => {
            let credential = if username == TOKEN_USER {
                Credential::Identity { username, token: secret }
            } else {
                Credential::Basic { username, password: secret }
            };
            Ok(Some(found(credential, &origin)))
        }
        Err(HelperError::NotInstalled) if !required => {
            tracing::warn!(helper, file = %path.display(), "the credential store is not installed; going on without it");
            Ok(None)
        }
        Err(error) => Err(Error::refused(format!("credentials for {server} from {origin}: {error}"))),
    }
}

fn found(credential: Credential, origin: &str) -> Found {
    let who = match &credential {
        Credential::Basic { username, .. } => format!("user {:?}", username),
        Credential::Identity { .. } => "identity token".to_owned(),
        Credential::Registry { .. } => "registry token".to_owned(),
    };
    Found { credential, identity: format!("{who} from {origin}") }
}

impl Entry {
    fn holds_something(&self) -> bool {
        let filled = |secret: &Option<Secret>| secret.as_ref().is_some_and(|secret| !secret.expose().is_empty());
        filled(&self.auth)
            || filled(&self.identitytoken)
            || filled(&self.registrytoken)
            || (self.username.is_some() && self.password.is_some())
    }

    fn found(&self, key: &str, path: &Path) -> Result<Found, Error> {
        let filled = |secret: &Option<Secret>| secret.clone().filter(|secret| !secret.expose().is_empty());
        let pair = match filled(&self.auth) {
            Some(auth) => Some(decode(&auth).ok_or_else(|| {
                let path = path.display();
                Error::refused(format!("credential file {path}: \"auth\" of {key} is not base64 of USER:PASSWORD"))
            })?),
            None => self.username.clone().zip(self.password.clone()),
        };
        let credential = match (filled(&self.registrytoken), filled(&self.identitytoken), pair) {
            (Some(token), _, _) => Credential::Registry { token },
            (None, Some(token), pair) => {
                let username = pair.map_or_else(|| TOKEN_USER.to_owned(), |(username, _)| username);
                Credential::Identity { username, token }
            }
            (None, None, Some((username, password))) => Credential::Basic { username, password },
            (None, None, None) => {
                let path = path.display();
                return Err(Error::refused(format!("credential file {path}: the entry of {key} is empty")));
            }
        };
        Ok(found(credential, &path.display().to_string()))
    }
}

/// User and password of an `auth` field.
fn decode(auth: &Secret) -> Option<(String, Secret)> {
    let text = String::from_utf8(STANDARD.decode(auth.expose().trim()).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    Some((username.to_owned(), Secret(password.trim_end_matches('\0').to_owned())))
}

/// The keys that may hold the credential, the most precise first: `host/a/b`, `host/a`, `host`.
fn wanted_keys(host: &str, name: &str) -> Vec<String> {
    let host = if HUB_NAMES.contains(&host) { HUB_NAMES[0] } else { host };
    let mut key = if name.is_empty() { host.to_owned() } else { format!("{host}/{name}") };
    let mut keys = vec![key.clone()];
    while let Some(end) = key.rfind('/') {
        key.truncate(end);
        keys.push(key.clone());
    }
    keys
}

/// The entry with the most precise key; among different spellings of one key the plainest.
fn best<'a, V>(wanted: &[String], entries: impl Iterator<Item = (&'a str, V)>) -> Option<(&'a str, V)> {
    entries
        .filter_map(|(key, value)| {
            let normal = normal(key);
            let rank = wanted.iter().position(|want| *want == normal)?;
            Some(((rank, key != normal, key.len(), key), value))
        })
        .min_by(|(one, _), (other, _)| one.cmp(other))
        .map(|((.., key), value)| (key, value))
}

/// A key as it stands in [`wanted_keys`]: old tools wrote URLs, of which the host alone counts, and Docker Hub has three
/// names.
fn normal(key: &str) -> String {
    let schemeless = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    // `host/v1/` is an old spelling of `host`; `host/v1` is a repository.
    let path = match schemeless.or_else(|| key.ends_with('/').then_some(key)) {
        Some(rest) => rest.split('/').next().unwrap_or(rest),
        None => key,
    };
    let (host, rest) = path.find('/').map_or((path, ""), |at| path.split_at(at));
    let host = host.to_ascii_lowercase();
    let host = if HUB_NAMES.contains(&host.as_str()) { HUB_NAMES[0].to_owned() } else { host };
    host + rest
}
