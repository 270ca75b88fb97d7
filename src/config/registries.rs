//! Sections of the file about one registry each: `[registries."host:port"]`.

use super::rate;
use crate::registry::profile::{self, Mount, Overrides};
use crate::registry::{Identity, Kind, RegistrySettings};
use crate::replicate::Window;
use std::path::{Path, PathBuf};

/// Every key of such a section.
const KEYS: [&str; 18] = [
    "bandwidth",
    "bandwidth_windows",
    "ca_files",
    "chunk_bytes",
    "chunked",
    "client_cert",
    "client_key",
    "insecure",
    "max_parts",
    "max_running",
    "mount",
    "profile",
    "proxy",
    "referrers_api",
    "reports_offset",
    "requests_per_sec",
    "single_put_limit_bytes",
    "verifies_manifests",
];

/// What one section says.
#[derive(Debug, Default)]
pub struct Section {
    /// What the registry client needs to know.
    pub settings: RegistrySettings,
    /// Plain HTTP and unverified TLS are allowed.
    pub insecure: bool,
    /// Running jobs with this registry as their destination.
    pub max_running: Option<u32>,
    /// Bytes a second to and from it; 0 is no limit.
    pub bandwidth: u64,
    /// Times at which that is another.
    pub bandwidth_windows: Vec<Window>,
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
}

impl Section {
    /// The files that it names; they must be there.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.settings.ca_files.iter().chain(&self.client_cert).chain(&self.client_key)
    }
}

/// What the section `[registries."host"]` says; paths are from `folder`. Each problem is added to `problems`.
pub fn read(host: &str, keys: &toml::Table, folder: &Path, problems: &mut Vec<String>) -> Section {
    let mut section = Section::default();
    for (key, value) in keys {
        let outcome = take(&mut section, key, value, folder)
            .and_then(|known| if known { Ok(()) } else { take_profile(&mut section.settings.profile, key, value) });
        if let Err(problem) = outcome {
            problems.push(format!("registries.\"{host}\".{key}: {problem}"));
        }
    }
    match (&section.client_cert, &section.client_key) {
        (Some(certificate), Some(key)) => {
            section.settings.identity = Some(Identity { certificate: certificate.clone(), key: key.clone() });
        }
        (None, None) => {}
        _ => problems.push(format!("registries.\"{host}\": client_cert and client_key belong together: set both")),
    }
    for file in section.files().filter(|file| !file.is_file()) {
        problems.push(format!("registries.\"{host}\": {} is not there or is no file", file.display()));
    }
    section
}

/// Takes in a key that is not of the profile; false for others.
fn take(section: &mut Section, key: &str, value: &toml::Value, folder: &Path) -> Result<bool, String> {
    match key {
        "insecure" => section.insecure = switch(value)?,
        "ca_files" => {
            let list = value.as_array().ok_or_else(|| "must be a list of strings".to_owned())?;
            let files = list.iter().map(|file| text(file).map(|file| folder.join(file)));
            section.settings.ca_files = files.collect::<Result<_, _>>()?;
        }
        "client_cert" => section.client_cert = Some(folder.join(text(value)?)),
        "client_key" => section.client_key = Some(folder.join(text(value)?)),
        "proxy" => section.settings.proxy = Some(text(value)?.parse()?),
        "max_running" => section.max_running = Some(small(value, 1, u32::MAX, "jobs")?),
        "bandwidth" => section.bandwidth = rate::bandwidth(value)?,
        "bandwidth_windows" => section.bandwidth_windows = rate::windows(value)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn take_profile(profile: &mut Overrides, key: &str, value: &toml::Value) -> Result<(), String> {
    match key {
        "profile" => {
            let name = text(value)?;
            if profile::named(name).is_none() {
                return Err(format!("there is no profile `{name}`: use {}", profile::NAMES.join(", ")));
            }
            profile.profile = Some(name.to_owned());
        }
        "chunked" => profile.chunked = Some(switch(value)?),
        "chunk_bytes" => profile.chunk_bytes = Some(number(value, 64 * 1024, 1 << 30, "bytes")?),
        "max_parts" => profile.max_parts = Some(small(value, 1, 1_000_000, "chunks")?),
        "reports_offset" => profile.reports_offset = Some(switch(value)?),
        "single_put_limit_bytes" => profile.single_put_limit_bytes = Some(number(value, 0, 1 << 50, "bytes")?),
        "mount" => profile.mount = Some(mount(value)?),
        "verifies_manifests" => profile.verifies_manifests = Some(switch(value)?),
        "referrers_api" => profile.referrers_api = Some(switch(value)?),
        "requests_per_sec" => {
            for (name, value) in value.as_table().ok_or_else(|| format!("a table of {}", kinds()))? {
                let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == name);
                if kind.is_none() && name != "all" {
                    return Err(format!("there is no kind of request `{name}`: use {}", kinds()));
                }
                profile.requests_per_sec.insert(kind, small(value, 0, 1_000_000, "requests")?);
            }
        }
        _ => return Err(format!("unknown key: this section has {}", KEYS.join(", "))),
    }
    Ok(())
}

fn text(value: &toml::Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| "must be a string".to_owned())
}

fn switch(value: &toml::Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| "must be true or false".to_owned())
}

fn number(value: &toml::Value, least: u64, most: u64, unit: &str) -> Result<u64, String> {
    let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
    let within = number.filter(|number| (least..=most).contains(number));
    within.ok_or_else(|| format!("must be a whole number: {least} to {most} {unit}"))
}

fn small(value: &toml::Value, least: u32, most: u32, unit: &str) -> Result<u32, String> {
    number(value, least.into(), most.into(), unit).map(|number| u32::try_from(number).unwrap_or(most))
}

fn mount(value: &toml::Value) -> Result<Mount, String> {
    match text(value)? {
        "yes" => Ok(Mount::Yes),
        "needs-from" => Ok(Mount::NeedsFrom),
        "same-namespace" => Ok(Mount::SameNamespace),
        "no" => Ok(Mount::No),
        other => Err(format!("`{other}` is none of yes, needs-from, same-namespace, no")),
    }
}

fn kinds() -> String {
    let mut names: Vec<&str> = Kind::ALL.into_iter().map(Kind::as_str).collect();
    names.push("all");
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Proxy;
    use std::collections::BTreeMap;

    fn parse(text: &str) -> (Section, Vec<String>) {
        let mut problems = Vec::new();
        let section = read("r:5000", &text.parse().unwrap(), Path::new("/nonexistent"), &mut problems);
        (section, problems)
    }

    #[test]
    fn every_key_is_read() {
        let (section, problems) = parse(
            "profile = 'gcr'\nchunked = true\nchunk_bytes = 8388608\nmax_parts = 100\nreports_offset = false\n\
             single_put_limit_bytes = 0\nmount = 'needs-from'\nverifies_manifests = true\nreferrers_api = false\n\
             requests_per_sec = { manifest_write = 10, all = 30 }\ninsecure = true\nmax_running = 3\nproxy = 'none'\nbandwidth = '5MiB/s'\n\
             bandwidth_windows = [{ from = '08:00', to = '18:00', rate = '1MiB/s' }]",
        );
        assert_eq!(problems, Vec::<String>::new());
        let expected = Overrides {
            profile: Some("gcr".to_owned()),
            chunked: Some(true),
            chunk_bytes: Some(8 << 20),
            max_parts: Some(100),
            reports_offset: Some(false),
            single_put_limit_bytes: Some(0),
            mount: Some(Mount::NeedsFrom),
            verifies_manifests: Some(true),
            referrers_api: Some(false),
            requests_per_sec: BTreeMap::from([(Some(Kind::ManifestWrite), 10), (None, 30)]),
        };
        assert_eq!(section.settings.profile, expected);
        assert_eq!((section.insecure, section.max_running), (true, Some(3)));
        assert_eq!(section.settings.proxy, Some(Proxy::None));
        assert_eq!((section.bandwidth, section.bandwidth_windows.len()), (5 << 20, 1));
    }

    #[test]
    fn problems_name_the_key_and_what_it_takes() {
        for (text, words) in [
            ("profile = 'dockerhub'", ["profile", "docker-hub"]),
            ("chunk_bytes = 1", ["chunk_bytes", "65536"]),
            ("chunked = 'no'", ["chunked", "true or false"]),
            ("mount = true", ["mount", "string"]),
            ("mount = 'maybe'", ["mount", "needs-from"]),
            ("requests_per_sec = 4", ["requests_per_sec", "manifest_write"]),
            ("requests_per_sec = { manifests = 4 }", ["`manifests`", "manifest_write"]),
            ("requests_per_sec = { list = -4 }", ["requests_per_sec", "whole number"]),
            ("chunks = 4", ["chunks", "chunk_bytes"]),
            ("proxy = 'ftp://p:1'", ["proxy", "socks5"]),
            ("proxy = 'p:8080'", ["proxy", "http://HOST:PORT"]),
            ("ca_files = ['a.pem']", ["/nonexistent/a.pem", "not there"]),
            ("ca_files = 'a.pem'", ["ca_files", "list"]),
            ("bandwidth = 'fast'", ["bandwidth", "fast"]),
            ("max_running = 0", ["max_running", "jobs"]),
        ] {
            let (_, problems) = parse(text);
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
            for word in words.into_iter().chain(["registries.\"r:5000\""]) {
                assert!(problems[0].contains(word), "{text}: {problems:?}");
            }
        }
    }

    #[test]
    fn a_client_certificate_needs_its_key() {
        let (_, problems) = parse("client_cert = 'c.pem'");
        assert!(problems[0].contains("client_key") && problems[1].contains("/nonexistent/c.pem"), "{problems:?}");
        let dir = tempfile::tempdir().unwrap();
        for file in ["c.pem", "k.pem"] {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        let mut problems = Vec::new();
        let keys = "client_cert = 'c.pem'\nclient_key = 'k.pem'".parse().unwrap();
        let section = read("r", &keys, dir.path(), &mut problems);
        assert_eq!(problems, Vec::<String>::new());
        let identity = Identity { certificate: dir.path().join("c.pem"), key: dir.path().join("k.pem") };
        assert_eq!(section.settings.identity, Some(identity));
    }

    #[test]
    fn the_password_of_a_proxy_is_not_shown() {
        let (section, _) = parse("proxy = 'http://user:hush@proxy.example.com:3128'");
        let shown = format!("{section:?}");
        assert!(shown.contains("proxy.example.com") && !shown.contains("hush"), "{shown}");
        let (_, problems) = parse("proxy = 'http://user:hush@proxy:99999'");
        assert!(problems.len() == 1 && !problems[0].contains("hush"), "{problems:?}");
    }
}
