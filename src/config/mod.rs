//! What was typed (flags, environment, file) becomes a validated [`Config`].
//!
//! Flags win over the environment, the environment over the file, the file over the defaults. The whole table of numbers
//! stands in [`settings`], each with unit, range, default and reason, so that the file, the environment and the
//! documentation cannot drift apart. Everything is checked before anything starts, and all problems are named at once,
//! because fixing them one start at a time is slow.
//!
//! This module never writes the environment, and never opens a database or a connection.

pub mod document;
mod duration;
mod file;
mod hidden;
pub mod logging;
pub mod mirrors;
mod paths;
mod rate;
mod registries;
pub mod rules;
mod schedules;
pub mod settings;
pub mod sync;

pub use duration::duration;
pub use hidden::{Secret, hide};
pub use paths::ensure_private_dir;
pub use rate::rate;

use crate::job::NewSchedule;
use crate::job::retry::Policy;
use crate::mirror::Rules;
use crate::replicate::{Rates, Window};
use crate::store::DatabaseUrl;
use crate::{registry, replicate, worker};
use settings::Values;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Deepest nesting of indexes that is followed: real images have two levels; more is a loop or an attack.
const INDEX_DEPTH: usize = 8;
/// Most manifests in one image tree: the largest public multi-platform images have a few dozen.
const MANIFESTS_PER_IMAGE: usize = 2000;
/// Tries of one blob within an attempt; after that the attempt fails and the job's own backoff decides.
const BLOB_TRIES: u32 = 3;

/// Reads a variable of the environment. Tests hand in their own.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The environment of this process. Empty variables count as not set, as shells and service managers mean them.
#[must_use]
pub fn process_environment(name: &str) -> Option<OsString> {
    hidden::variable(name).or_else(|| std::env::var_os(name)).filter(|value| !value.is_empty())
}

/// What the flags said. Absent: not typed.
#[derive(Debug, Clone, Default)]
pub struct Typed {
    /// `--database`.
    pub database: Option<String>,
    /// `--state-dir`.
    pub state_dir: Option<PathBuf>,
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--ca-file`, each.
    pub ca_files: Vec<PathBuf>,
    /// Settings by section and key, for example `("worker", "concurrency", 4)`.
    pub numbers: Vec<(&'static str, &'static str, u64)>,
}

/// The configuration in force: valid, with paths made absolute.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the database is.
    pub database: DatabaseUrl,
    /// Temporary files, worker locks, keys.
    pub state_dir: PathBuf,
    /// The numbers, each within its range.
    pub values: Values,
    /// Extra CA certificates, PEM files.
    pub ca_files: Vec<PathBuf>,
    /// Hosts (`host[:port]`) that may be reached by plain HTTP or with unverified TLS.
    pub insecure_hosts: Vec<String>,
    /// What is set for single registries, by host (`host[:port]`).
    pub registries: BTreeMap<String, registry::RegistrySettings>,
    /// Bandwidth of single registries, by host.
    pub registry_rates: BTreeMap<String, Rates>,
    /// Times at which the bandwidth of all copies is another.
    pub bandwidth_windows: Vec<Window>,
    /// For these destination registries: at most so many running jobs, on all workers together.
    pub registry_limits: BTreeMap<String, u32>,
    /// The mirrors of the configuration file, by name.
    pub mirrors: Arc<BTreeMap<String, Rules>>,
    /// The schedules of the configuration file.
    pub schedules: Arc<Vec<NewSchedule>>,
    /// Prints the keys of the vault; None: they are in a file of the state folder.
    pub vault_key_command: Option<String>,
    /// The folder that relative layout paths are taken from.
    pub base: PathBuf,
}

/// What is wrong with the configuration: every problem, on one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.join("; "))]
pub struct Error {
    /// One line each, never empty.
    pub problems: Vec<String>,
}

impl Error {
    /// One problem.
    #[must_use]
    pub fn one(problem: impl Into<String>) -> Self {
        Self { problems: vec![problem.into()] }
    }

    /// The only thing wrong is that a part is not there yet.
    #[must_use]
    pub fn is_not_implemented(&self) -> bool {
        self.problems.iter().all(|problem| problem.starts_with("not implemented"))
    }
}

impl Config {
    /// Reads the file if one is named, and puts flags, environment, file and defaults together.
    ///
    /// # Errors
    /// [`Error`] with every problem: an unknown or repeated key, a value outside its range, settings that contradict each
    /// other, a file that cannot be read, a database URL that does not parse.
    pub fn load(typed: &Typed, environment: Environment<'_>) -> Result<Self, Error> {
        let mut problems = Vec::new();
        let base = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let path = typed.config.clone().or_else(|| environment("FREIGHTLINER_CONFIG").map(PathBuf::from));
        let mut file = path.and_then(|path| collect(file::read(&path, &base), &mut problems)).unwrap_or_default();
        problems.append(&mut file.problems);
        let values = Values::gather(&typed.numbers, environment, &file.numbers, &mut problems);
        let mut ca_files = file.ca_files;
        ca_files.extend(typed.ca_files.iter().map(|path| base.join(path)));
        for path in &ca_files {
            if !path.is_file() {
                problems.push(format!("CA file {} is not there or is no file", path.display()));
            }
        }
        let database = collect(paths::database(typed.database.as_deref(), environment, &base), &mut problems);
        let state_dir = database.as_ref().and_then(|database| {
            let typed = typed.state_dir.clone().or_else(|| environment("FREIGHTLINER_STATE_DIR").map(PathBuf::from));
            collect(paths::state_dir(typed, database, environment, &base), &mut problems)
        });
        let vault_key_command = environment("FREIGHTLINER_VAULT_KEY_COMMAND")
            .map(|command| command.to_string_lossy().into_owned())
            .or(file.vault_key_command);
        match (database, state_dir) {
            (Some(database), Some(state_dir)) if problems.is_empty() => Ok(Self {
                database,
                state_dir,
                values,
                ca_files,
                insecure_hosts: file.insecure_hosts,
                registries: file.registries,
                registry_rates: file.registry_rates,
                bandwidth_windows: file.bandwidth_windows,
                registry_limits: file.registry_limits,
                mirrors: Arc::new(file.mirrors),
                schedules: Arc::new(file.schedules),
                vault_key_command,
                base,
            }),
            _ => Err(Error { problems }),
        }
    }

    /// Copies at a time, as a file of rules says.
    ///
    /// # Errors
    /// The number is outside its range.
    pub fn set_concurrency(&mut self, copies: u64) -> Result<(), Error> {
        self.values.set("worker", "concurrency", copies, "parallel").map_err(Error::one)
    }

    /// What workers need to know. `queue`: only this one.
    #[must_use]
    pub fn worker(&self, queue: Option<String>) -> worker::Settings {
        let values = &self.values;
        worker::Settings {
            concurrency: values.size("worker", "concurrency"),
            queue,
            lease_ttl: values.secs("worker", "lease_ttl_secs"),
            lease_renewal: values.secs("worker", "lease_renewal_secs"),
            lease_margin: values.secs("worker", "lease_margin_secs"),
            sweep_interval: values.secs("worker", "sweep_interval_secs"),
            retry: Policy {
                base: Duration::from_millis(values.get("retry", "base_ms")),
                cap: values.secs("retry", "cap_secs"),
            },
            poison_limit: self.poison_limit(),
            shutdown_grace: values.secs("worker", "shutdown_grace_secs"),
            registry_limits: Arc::new(self.registry_limits.clone()),
            retention: self.retention(),
            batch: None,
            mirrors: self.mirrors.clone(),
            schedules: self.schedules.clone(),
        }
    }

    /// How long finished jobs are kept.
    #[must_use]
    pub fn retention(&self) -> worker::Retention {
        const DAY: u64 = 24 * 60 * 60;
        let days = |key| Duration::from_secs(self.values.get("retention", key) * DAY);
        worker::Retention { finished: days("finished_days"), failed: days("failed_days"), keys: days("keys_days") }
    }

    /// What a registry client needs to know.
    #[must_use]
    pub fn registry(&self) -> registry::Settings {
        let values = &self.values;
        registry::Settings {
            ca_files: self.ca_files.clone(),
            insecure_hosts: self.insecure_hosts.clone(),
            credential_files: None,
            vault: registry::VaultHandle::default(),
            connect_timeout: values.secs("registry", "connect_timeout_secs"),
            first_byte_timeout: values.secs("registry", "first_byte_timeout_secs"),
            idle_timeout: values.secs("registry", "idle_timeout_secs"),
            tries: u32::try_from(values.get("registry", "tries")).unwrap_or(u32::MAX),
            manifest_limit: self.manifest_limit(),
            registries: self.registries.clone(),
        }
    }

    /// The limits of the engine.
    #[must_use]
    pub fn limits(&self) -> replicate::Limits {
        replicate::Limits {
            blobs_at_once: self.values.size("copy", "blobs_at_once"),
            small_blobs_of_all: replicate::Limits::default().small_blobs_of_all,
            index_depth: INDEX_DEPTH,
            manifests: MANIFESTS_PER_IMAGE,
            manifest_bytes: self.manifest_limit(),
            blob_tries: BLOB_TRIES,
            ranges_from_bytes: self.values.get("copy", "ranges_from_bytes"),
            ranges_at_once: u32::try_from(self.values.get("copy", "ranges_at_once")).unwrap_or(u32::MAX),
            bandwidth: Rates {
                bytes_per_sec: self.values.get("copy", "bandwidth_bytes_per_sec"),
                windows: self.bandwidth_windows.clone(),
            },
            registries: self.registry_rates.clone(),
        }
    }

    /// Largest manifest that is read into memory, bytes.
    #[must_use]
    pub fn manifest_limit(&self) -> u64 {
        self.values.get("registry", "manifest_limit_bytes")
    }

    /// Attempts of a job that does not say how many it may have.
    #[must_use]
    pub fn max_attempts(&self) -> i64 {
        i64::try_from(self.values.get("retry", "max_attempts")).unwrap_or(i64::MAX)
    }

    /// Crashes in a row without progress after which a job fails as poison.
    #[must_use]
    pub fn poison_limit(&self) -> i64 {
        i64::try_from(self.values.get("retry", "poison_limit")).unwrap_or(i64::MAX)
    }
}

/// A schedule from the JSON object of a section `[schedules.NAME]`. Layout paths must be absolute.
///
/// # Errors
/// All that is wrong, one line each.
pub fn schedule(name: &str, section: serde_json::Value) -> Result<NewSchedule, Vec<String>> {
    // JSON is YAML: the reader of files says what is wrong with it.
    let text = serde_json::json!({ name: section }).to_string();
    let node = document::yaml(&text).map_err(|problem| vec![problem.message])?;
    let mut problems = Vec::new();
    let found = schedules::read(&node, Path::new("/"), &mut problems).pop();
    if !problems.is_empty() {
        return Err(problems.into_iter().map(|problem| problem.message).collect());
    }
    found.ok_or_else(|| vec!["it is no schedule".to_owned()])
}

/// Keeps the value, or its problems.
fn collect<T>(result: Result<T, Error>, problems: &mut Vec<String>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            problems.extend(error.problems);
            None
        }
    }
}

/// `path` from `base`, without touching the disk.
fn absolute(path: &Path, base: &Path) -> PathBuf {
    let joined = base.join(path);
    std::path::absolute(&joined).unwrap_or(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<OsString> {
        match name {
            "HOME" => Some("/home/somebody".into()),
            "FREIGHTLINER_WORKER_CONCURRENCY" => Some("5".into()),
            "FREIGHTLINER_RETRY_MAX_ATTEMPTS" => Some("4".into()),
            _ => None,
        }
    }

    fn write(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("freightliner.toml");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn defaults_are_valid_and_land_in_the_state_directory() {
        let config = Config::load(&Typed::default(), &|name| environment(name).filter(|_| name == "HOME")).unwrap();
        let folder = Path::new("/home/somebody/.local/state/freightliner");
        assert_eq!(config.database, DatabaseUrl::Sqlite(folder.join("freightliner.db")));
        assert_eq!(config.state_dir, folder);
        let worker = config.worker(None);
        assert_eq!((worker.concurrency, worker.lease_ttl.as_secs(), worker.poison_limit), (16, 30, 10));
        assert_eq!((worker.retry, config.max_attempts()), (Policy::default(), 8));
    }

    #[test]
    fn the_doors_have_the_same_defaults() {
        let config = Config::load(&Typed::default(), &|name| environment(name).filter(|_| name == "HOME")).unwrap();
        let (ours, theirs) = (config.registry(), registry::Settings::default());
        assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
        assert_eq!(format!("{:?}", config.limits()), format!("{:?}", replicate::Limits::default()));
        assert_eq!(format!("{:?}", config.worker(None)), format!("{:?}", worker::Settings::default()));
        assert_eq!(config.max_attempts(), crate::job::DEFAULT_MAX_ATTEMPTS);
    }

    #[test]
    fn flags_win_over_environment_over_file_over_defaults() {
        let (_dir, path) = write("[worker]\nconcurrency = 3\n[retry]\nmax_attempts = 3\ncap_secs = 60\n");
        let typed = Typed { config: Some(path), numbers: vec![("worker", "concurrency", 9)], ..Typed::default() };
        let config = Config::load(&typed, &environment).unwrap();
        assert_eq!(config.worker(None).concurrency, 9);
        assert_eq!(config.max_attempts(), 4);
        assert_eq!(config.worker(None).retry.cap, Duration::from_secs(60));
        assert_eq!(config.worker(None).retry.base, Duration::from_secs(1));
    }

    #[test]
    fn all_problems_are_named_at_once() {
        let (_dir, path) = write(
            "[worker]\nconcurency = 3\nlease_ttl_secs = 999999\n[registry]\nca_files = ['absent.pem']\n[server]\nport = 1\n",
        );
        let typed = Typed { config: Some(path), database: Some("mysql://u:secret@h/d".into()), ..Typed::default() };
        let error = Config::load(&typed, &environment).unwrap_err();
        let text = error.to_string();
        for word in ["worker.concurency", "concurrency", "lease_ttl_secs", "absent.pem", "server", "mysql"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert!(!text.contains("secret") && !error.is_not_implemented(), "{text}");
    }

    #[test]
    fn what_is_not_there_yet_says_so() {
        for name in ["freightliner.yaml", "x.yml", "https://example.com/c.toml"] {
            let typed = Typed { config: Some(name.into()), ..Typed::default() };
            let error = Config::load(&typed, &environment).unwrap_err();
            assert!(error.is_not_implemented(), "{error}");
        }
    }
}
