//! The configuration file: TOML, read strictly.
//!
//! A key that nobody reads is a setting that was not made; so unknown sections and keys are refused by name instead of
//! being passed over. The file is walked as a TOML table rather than deserialised into structs, because serde stops at the
//! first problem and we name them all.

use super::document::{self, Section};
use super::{Error, absolute, mirrors, rate, registries, schedules, settings};
use crate::job::NewSchedule;
use crate::mirror::Rules;
use crate::registry::{RegistrySettings, canonical_host};
use crate::replicate::{Rates, Window};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest configuration file, bytes: a thousand times what anybody writes by hand.
const FILE_LIMIT_BYTES: u64 = 1024 * 1024;

/// What the file said.
#[derive(Debug, Default)]
pub struct File {
    /// The numbers it sets.
    pub numbers: settings::Said,
    /// `registry.ca_files`, from the folder of the file.
    pub ca_files: Vec<PathBuf>,
    /// `registry.insecure`.
    pub insecure_hosts: Vec<String>,
    /// `registry.max_running`: running jobs by destination registry.
    pub registry_limits: BTreeMap<String, u32>,
    /// `[registries."host[:port]"]`, by host.
    pub registries: BTreeMap<String, RegistrySettings>,
    /// The bandwidth of single registries, by host.
    pub registry_rates: BTreeMap<String, Rates>,
    /// `copy.bandwidth_windows`.
    pub bandwidth_windows: Vec<Window>,
    /// `[mirrors.NAME]`, by name.
    pub mirrors: BTreeMap<String, Rules>,
    /// `vault.key_command`.
    pub vault_key_command: Option<String>,
    /// `[schedules.NAME]`.
    pub schedules: Vec<NewSchedule>,
    /// What is wrong with the rest of it, one line each.
    pub problems: Vec<String>,
}

/// Reads the file at `path`, taken from `base`.
///
/// Unknown names and wrong kinds of value are in [`File::problems`], beside what could be read.
///
/// # Errors
/// It is unreadable, no TOML, or in another language.
pub fn read(path: &Path, base: &Path) -> Result<File, Error> {
    let shown = path.display();
    let name = path.to_string_lossy().to_lowercase();
    if name.starts_with("http://") || name.starts_with("https://") {
        return Err(Error::one("not implemented: configuration from a URL (use a local TOML file)"));
    }
    if [".yaml", ".yml", ".json"].iter().any(|extension| name.ends_with(extension)) {
        return Err(Error::one("not implemented: YAML configuration (use TOML)"));
    }
    let path = absolute(path, base);
    let mut text = String::new();
    let mut reader = std::fs::File::open(&path)
        .map_err(|error| Error::one(format!("configuration {shown}: cannot open it: {error}")))?
        .take(FILE_LIMIT_BYTES + 1);
    reader
        .read_to_string(&mut text)
        .map_err(|error| Error::one(format!("configuration {shown}: cannot read it: {error}")))?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > FILE_LIMIT_BYTES {
        return Err(Error::one(format!("configuration {shown}: larger than {FILE_LIMIT_BYTES} bytes")));
    }
    let folder = path.parent().unwrap_or(base);
    let mut file = parse(&text, folder).map_err(|problem| Error::one(format!("configuration {shown}: {problem}")))?;
    for problem in &mut file.problems {
        *problem = format!("configuration {shown}: {problem}");
    }
    Ok(file)
}

/// What the text says; Err when it is no TOML.
fn parse(text: &str, folder: &Path) -> Result<File, String> {
    let table = text.parse::<toml::Table>().map_err(|error| syntax(text, &error))?;
    let mut file = File::default();
    for (section, content) in &table {
        let known = settings::SETTINGS.iter().any(|setting| setting.section == section);
        match content {
            toml::Value::Table(hosts) if section == "registries" => file.registries(hosts, folder),
            toml::Value::Table(keys) if section == "vault" => file.vault(keys),
            // Rules are long enough for their places to matter.
            _ if section == "mirrors" || section == "schedules" => {}
            _ if !known => file.problems.push(format!("unknown section [{section}]: use {}", sections())),
            toml::Value::Table(keys) => {
                for (key, value) in keys {
                    if let Err(problem) = file.take(section, key, value, folder) {
                        file.problems.push(problem);
                    }
                }
            }
            _ => file.problems.push(format!("{section} must be a section: write [{section}]")),
        }
    }
    if table.contains_key("mirrors") || table.contains_key("schedules") {
        file.read_rules(text, folder);
    }
    Ok(file)
}

impl File {
    fn vault(&mut self, keys: &toml::Table) {
        for (key, value) in keys {
            match (key.as_str(), value) {
                ("key_command", toml::Value::String(command)) if !command.trim().is_empty() => {
                    self.vault_key_command = Some(command.clone());
                }
                ("key_command", _) => self.problems.push("vault.key_command must be a command, a text".to_owned()),
                _ => self.problems.push(format!("unknown key vault.{key}: use key_command")),
            }
        }
    }

    fn read_rules(&mut self, text: &str, folder: &Path) {
        let mut problems = Vec::new();
        match document::toml(text) {
            Ok(node) => {
                let mut file = Section::of(&node, "", &mut problems);
                if let Some(node) = file.get("mirrors") {
                    self.mirrors = mirrors::read(node, &mut problems);
                }
                if let Some(node) = file.get("schedules") {
                    self.schedules = schedules::read(node, folder, &mut problems);
                }
            }
            Err(problem) => problems.push(problem),
        }
        problems.sort_by_key(|problem| problem.place);
        self.problems.extend(problems.iter().map(ToString::to_string));
    }

    fn registries(&mut self, hosts: &toml::Table, folder: &Path) {
        for (host, content) in hosts {
            let toml::Value::Table(keys) = content else {
                self.problems.push(format!("registries.\"{host}\" must be a section: write [registries.\"{host}\"]"));
                continue;
            };
            if let Some(problem) = no_host(host) {
                self.problems.push(format!("[registries.\"{host}\"]: {problem}"));
            }
            let section = registries::read(host, keys, folder, &mut self.problems);
            if section.insecure {
                self.insecure_hosts.push(host.clone());
            }
            if let Some(jobs) = section.max_running {
                self.registry_limits.insert(canonical_host(host), jobs);
            }
            let rates = Rates { bytes_per_sec: section.bandwidth, windows: section.bandwidth_windows };
            if rates != Rates::default() {
                self.registry_rates.insert(canonical_host(host), rates);
            }
            self.registries.insert(canonical_host(host), section.settings);
        }
    }

    fn take(&mut self, section: &str, key: &str, value: &toml::Value, folder: &Path) -> Result<(), String> {
        match (section, key) {
            ("registry", "ca_files") => {
                self.ca_files = strings(section, key, value)?.into_iter().map(|path| folder.join(path)).collect();
                return Ok(());
            }
            ("copy", "bandwidth_windows") => {
                let windows = rate::windows(value).map_err(|problem| format!("{section}.{key}: {problem}"))?;
                self.bandwidth_windows = windows;
                return Ok(());
            }
            ("registry", "insecure") => {
                self.insecure_hosts.extend(strings(section, key, value)?);
                return self.insecure_hosts.iter().try_for_each(|host| check_host("insecure", host));
            }
            ("registry", "max_running") => {
                self.registry_limits.extend(limits(value)?);
                return self.registry_limits.keys().try_for_each(|host| check_host("max_running", host));
            }
            _ => {}
        }
        let Some(setting) = settings::find(section, key) else {
            return Err(format!("unknown key {section}.{key}: this section has {}", keys(section)));
        };
        let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
        let number = number.ok_or_else(|| format!("{section}.{key} must be a whole number of {}", setting.unit))?;
        self.numbers.insert((setting.section, setting.key), number);
        Ok(())
    }
}

fn strings(section: &str, key: &str, value: &toml::Value) -> Result<Vec<String>, String> {
    let list = value.as_array().and_then(|list| list.iter().map(|item| item.as_str().map(str::to_owned)).collect());
    list.ok_or_else(|| format!("{section}.{key} must be a list of strings"))
}

/// `{ "host" = 4 }`: each a number of running jobs.
fn limits(value: &toml::Value) -> Result<BTreeMap<String, u32>, String> {
    let problem =
        || "registry.max_running must be a table of hosts and numbers of jobs: { \"ghcr.io\" = 4 }".to_owned();
    let table = value.as_table().ok_or_else(problem)?;
    let limit = |value: &toml::Value| value.as_integer().and_then(|limit| u32::try_from(limit).ok());
    table
        .iter()
        .map(|(host, value)| match limit(value) {
            Some(jobs @ 1..) => Ok((host.clone(), jobs)),
            _ => Err(problem()),
        })
        .collect()
}

fn check_host(key: &str, host: &str) -> Result<(), String> {
    no_host(host).map_or(Ok(()), |problem| Err(format!("registry.{key}: {problem}")))
}

fn no_host(host: &str) -> Option<String> {
    let wrong = host.is_empty() || host.contains(['/', '@', ' ', '?', '#']);
    wrong.then(|| format!("`{host}` is no host: write host or host:port, without a scheme"))
}

/// The place and the reason, without the parser's picture of the line: that would be more than one line.
fn syntax(text: &str, error: &toml::de::Error) -> String {
    let reason = error.message().replace('\n', " ");
    let start = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = text.as_bytes().iter().take(start).filter(|byte| **byte == b'\n').count() + 1;
    format!("line {line}: {reason}")
}

fn sections() -> String {
    let mut names: Vec<_> = settings::SETTINGS.iter().map(|setting| format!("[{}]", setting.section)).collect();
    names.dedup();
    names.push("[registries.\"host:port\"]".to_owned());
    names.push("[mirrors.NAME]".to_owned());
    names.push("[schedules.NAME]".to_owned());
    names.join(", ")
}

fn keys(section: &str) -> String {
    let mut names: Vec<_> =
        settings::SETTINGS.iter().filter(|setting| setting.section == section).map(|setting| setting.key).collect();
    if section == "registry" {
        names.extend(["ca_files", "insecure", "max_running"]);
    }
    if section == "copy" {
        names.push("bandwidth_windows");
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_file_is_read() {
        let text = "[registry]\ntries = 2\nca_files = ['a.pem', '/b.pem']\ninsecure = ['registry.local:5000']\nmax_running = { 'ghcr.io' = 4 }\n[copy]\nblobs_at_once = 1\n";
        let file = parse(text, Path::new("/etc/freightliner")).unwrap();
        assert!(file.problems.is_empty(), "{:?}", file.problems);
        assert_eq!(file.ca_files, [PathBuf::from("/etc/freightliner/a.pem"), PathBuf::from("/b.pem")]);
        assert_eq!(file.insecure_hosts, ["registry.local:5000"]);
        assert_eq!(file.registry_limits, BTreeMap::from([("ghcr.io".to_owned(), 4)]));
        assert_eq!(file.numbers.get(&("registry", "tries")), Some(&2));
        assert_eq!(file.numbers.get(&("copy", "blobs_at_once")), Some(&1));
    }

    #[test]
    fn the_files_of_the_readme_are_valid() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["example-ca.pem", "client.pem", "client.key"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let readme = include_str!("../../README.md");
        let blocks: Vec<_> = readme.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert!(blocks.len() >= 2, "{}", blocks.len());
        for block in blocks {
            let file = parse(block, folder.path()).unwrap();
            assert_eq!(file.problems, Vec::<String>::new(), "{block}");
        }
    }

    #[test]
    fn problems_name_the_place() {
        for (text, words) in [
            ("[worker]\nthreads = 1", vec!["worker.threads", "concurrency"]),
            ("[workers]\na = 1", vec!["[workers]", "[worker]"]),
            ("worker = 3", vec!["[worker]"]),
            ("[worker]\nconcurrency = '4'", vec!["worker.concurrency", "jobs"]),
            ("[worker]\nconcurrency = -4", vec!["worker.concurrency"]),
            ("[registry]\nca_files = 'a'", vec!["registry.ca_files", "list"]),
            ("[registry]\ninsecure = ['http://a']", vec!["registry.insecure", "http://a"]),
            ("[registry]\nmax_running = 4", vec!["registry.max_running", "ghcr.io"]),
            ("[registry.max_running]\n'ghcr.io' = 0", vec!["registry.max_running", "ghcr.io"]),
            ("[registry.max_running]\n'https://ghcr.io' = 1", vec!["registry.max_running", "https://ghcr.io"]),
            ("registries = 1", vec!["registries"]),
            ("[registries]\n'r:5000' = 1", vec!["[registries.\"r:5000\"]"]),
            ("[registries.'https://r']\nchunked = 1", vec!["https://r", "without a scheme", "true or false"]),
            ("[worker]\n\nconcurrency == 1", vec!["line 3"]),
            ("[worker]\nconcurrency = 1\nconcurrency = 2", vec!["line 3"]),
        ] {
            let problems = match parse(text, Path::new("/")) {
                Ok(file) => file.problems.join("; "),
                Err(problem) => problem,
            };
            assert!(!problems.contains('\n'), "{problems}");
            for word in words {
                assert!(problems.contains(word), "{text}: {problems}");
            }
        }
    }
}
