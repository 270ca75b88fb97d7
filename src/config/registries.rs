//! Sections of the file about one registry each: `[registries."host:port"]`.

use crate::registry::profile::{self, Mount, Overrides};
use crate::registry::{Kind, RegistrySettings};

/// Every key of such a section.
const KEYS: [&str; 10] = [
    "chunk_bytes",
    "chunked",
    "max_parts",
    "mount",
    "profile",
    "referrers_api",
    "reports_offset",
    "requests_per_sec",
    "single_put_limit_bytes",
    "verifies_manifests",
];

/// What the section `[registries."host"]` sets; each problem is added to `problems`.
pub fn read(host: &str, section: &toml::Table, problems: &mut Vec<String>) -> RegistrySettings {
    let mut settings = RegistrySettings::default();
    for (key, value) in section {
        if let Err(problem) = take(&mut settings, key, value) {
            problems.push(format!("registries.\"{host}\".{key}: {problem}"));
        }
    }
    settings
}

fn take(settings: &mut RegistrySettings, key: &str, value: &toml::Value) -> Result<(), String> {
    let profile: &mut Overrides = &mut settings.profile;
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
    use std::collections::BTreeMap;

    fn parse(text: &str) -> (RegistrySettings, Vec<String>) {
        let mut problems = Vec::new();
        let settings = read("r:5000", &text.parse().unwrap(), &mut problems);
        (settings, problems)
    }

    #[test]
    fn every_key_is_read() {
        let (settings, problems) = parse(
            "profile = 'gcr'\nchunked = true\nchunk_bytes = 8388608\nmax_parts = 100\nreports_offset = false\n\
             single_put_limit_bytes = 0\nmount = 'needs-from'\nverifies_manifests = true\nreferrers_api = false\n\
             requests_per_sec = { manifest_write = 10, all = 30 }",
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
        assert_eq!(settings.profile, expected);
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
        ] {
            let (_, problems) = parse(text);
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
            for word in words.into_iter().chain(["registries.\"r:5000\"."]) {
                assert!(problems[0].contains(word), "{text}: {problems:?}");
            }
        }
    }
}
