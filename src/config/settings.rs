//! The table of numbers that can be set, and their values in force.
//!
//! One table instead of one struct field, default, parser and check each: the file, the environment
//! (`FREIGHTLINER_<SECTION>_<KEY>`) and the documentation all read it, so a setting is written down once.

use super::Environment;
use std::collections::BTreeMap;
use std::time::Duration;

/// A number that can be set.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The section of the file.
    pub section: &'static str,
    /// The key in that section; its unit comes last.
    pub key: &'static str,
    /// The value when nobody says otherwise.
    pub default: u64,
    /// The least value that makes sense.
    pub least: u64,
    /// The greatest value that makes sense.
    pub most: u64,
    /// What is counted.
    pub unit: &'static str,
    /// What it does, and why the default is what it is.
    pub reason: &'static str,
}

const fn setting(
    (section, key): (&'static str, &'static str),
    default: u64,
    (least, most): (u64, u64),
    unit: &'static str,
    reason: &'static str,
) -> Setting {
    Setting { section, key, default, least, most, unit, reason }
}

/// Every number that can be set.
pub const SETTINGS: [Setting; 22] = [
    setting(
        ("worker", "concurrency"),
        16,
        (1, 256),
        "jobs",
        "copies at a time; copying waits for networks, not for cores",
    ),
    setting(
        ("worker", "lease_ttl_secs"),
        30,
        (3, 3600),
        "seconds",
        "how long a silent worker keeps its jobs; long enough for a stalled disk",
    ),
    setting(
        ("worker", "lease_renewal_secs"),
        10,
        (1, 1200),
        "seconds",
        "pause between heartbeats: two may fail before the lease is lost",
    ),
    setting(
        ("worker", "lease_margin_secs"),
        5,
        (1, 600),
        "seconds",
        "a worker stops trusting its lease this long before it ends, a sweeper waits this much longer",
    ),
    setting(
        ("worker", "sweep_interval_secs"),
        5,
        (1, 3600),
        "seconds",
        "pause between sweeps; a sweep of nothing costs one read",
    ),
    setting(
        ("worker", "shutdown_grace_secs"),
        25,
        (0, 3600),
        "seconds",
        "running copies may go on this long after the first signal; Kubernetes kills after 30",
    ),
    setting(
        ("retry", "base_ms"),
        1000,
        (10, 3_600_000),
        "milliseconds",
        "pause after the first failed attempt; doubles each time",
    ),
    setting(
        ("retry", "cap_secs"),
        600,
        (1, 86_400),
        "seconds",
        "longest pause of our own choosing; Retry-After may ask for more",
    ),
    setting(
        ("retry", "max_attempts"),
        8,
        (1, 1000),
        "attempts",
        "attempts of a job that does not say; about two minutes of trying",
    ),
    setting(
        ("retry", "poison_limit"),
        10,
        (1, 1000),
        "crashes",
        "worker deaths in a row without progress before a job fails as poison; deploys kill innocents",
    ),
    setting(("registry", "connect_timeout_secs"), 10, (1, 300), "seconds", "name lookup, TCP and TLS together"),
    setting(
        ("registry", "first_byte_timeout_secs"),
        60,
        (1, 3600),
        "seconds",
        "from the whole request to the first byte of the answer; registries verify large blobs in this time",
    ),
    setting(
        ("registry", "idle_timeout_secs"),
        60,
        (1, 3600),
        "seconds",
        "longest silence, or trickle, within a body; a blob has no total time limit",
    ),
    setting(("registry", "tries"), 4, (1, 20), "tries", "tries of one request within an attempt, the first included"),
    setting(
        ("registry", "manifest_limit_bytes"),
        8 * 1024 * 1024,
        (64 * 1024, 64 * 1024 * 1024),
        "bytes",
        "largest manifest read into memory; the specification asks for 4 MiB at least",
    ),
    setting(
        ("copy", "blobs_at_once"),
        4,
        (1, 64),
        "blobs",
        "blobs of one image moved at a time; bounds memory together with concurrency",
    ),
    setting(
        ("copy", "bandwidth_bytes_per_sec"),
        0,
        (0, 1 << 40),
        "bytes",
        "bytes a second of blobs, all copies of a process together; 0 is no limit, as networks mostly have their own",
    ),
    setting(
        ("copy", "ranges_from_bytes"),
        1024 * 1024 * 1024,
        (1024 * 1024, 1 << 50),
        "bytes",
        "smallest blob of which parts are fetched side by side where its source is slow; smaller ones are soon over",
    ),
    setting(
        ("copy", "ranges_at_once"),
        4,
        (0, 32),
        "parts",
        "parts fetched side by side, all copies of a process together, 2 MiB of memory each; 0 or 1 is none",
    ),
    setting(
        ("retention", "finished_days"),
        30,
        (0, 36_500),
        "days",
        "completed and cancelled jobs are kept this long with their history; 0 keeps them for ever",
    ),
    setting(
        ("retention", "failed_days"),
        90,
        (0, 36_500),
        "days",
        "failed jobs are kept this long: somebody may still ask why; 0 keeps them for ever",
    ),
    setting(
        ("retention", "keys_days"),
        30,
        (1, 36_500),
        "days",
        "idempotency keys outlive their pruned jobs this long, so that a late repetition is still known",
    ),
];

impl Setting {
    /// The variable that sets it.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("FREIGHTLINER_{}_{}", self.section, self.key).to_uppercase()
    }

    /// `section.key`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }

    /// The value, or what is wrong with it. `origin`: who said it.
    fn check(&self, value: u64, origin: &str) -> Result<u64, String> {
        if (self.least..=self.most).contains(&value) {
            return Ok(value);
        }
        let Self { least, most, unit, .. } = self;
        Err(format!("{origin}: {} is {value}: use {least} to {most} {unit}", self.name()))
    }
}

/// The setting of that name.
#[must_use]
pub fn find(section: &str, key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.section == section && setting.key == key)
}

/// What a file said: value and origin by `(section, key)`.
pub type Said = BTreeMap<(&'static str, &'static str), u64>;

/// The numbers in force, each within its range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Values(Said);

impl Values {
    /// Another value for a number.
    ///
    /// # Errors
    /// It is outside the range.
    pub fn set(&mut self, section: &'static str, key: &'static str, value: u64, whence: &str) -> Result<(), String> {
        if let Some(setting) = find(section, key) {
            self.0.insert((setting.section, setting.key), setting.check(value, whence)?);
        }
        Ok(())
    }

    /// Takes each number from the first that says it: flags, environment, file, default. Problems are added to `problems`.
    #[must_use]
    pub fn gather(
        flags: &[(&'static str, &'static str, u64)],
        environment: Environment<'_>,
        file: &Said,
        problems: &mut Vec<String>,
    ) -> Self {
        let mut values = Said::new();
        for setting in &SETTINGS {
            let flag = flags.iter().find(|(section, key, _)| (*section, *key) == (setting.section, setting.key));
            let said = if let Some((.., value)) = flag {
                setting.check(*value, "command line")
            } else if let Some(text) = environment(&setting.variable()) {
                let text = text.to_string_lossy();
                match text.trim().parse() {
                    Ok(value) => setting.check(value, "environment"),
                    Err(_) => Err(format!("environment: {} is no whole number", setting.variable())),
                }
            } else if let Some(value) = file.get(&(setting.section, setting.key)) {
                setting.check(*value, "configuration file")
            } else {
                Ok(setting.default)
            };
            let value = said.unwrap_or_else(|problem| {
                problems.push(problem);
                setting.default
            });
            values.insert((setting.section, setting.key), value);
        }
        let values = Self(values);
        if problems.is_empty() {
            problems.extend(values.contradictions());
        }
        values
    }

    /// The number; 0 for a name that is not in the table, which a test rules out.
    #[must_use]
    pub fn get(&self, section: &'static str, key: &'static str) -> u64 {
        debug_assert!(find(section, key).is_some(), "no setting {section}.{key}");
        self.0.get(&(section, key)).copied().unwrap_or_default()
    }

    /// The number as a duration in seconds.
    #[must_use]
    pub fn secs(&self, section: &'static str, key: &'static str) -> Duration {
        Duration::from_secs(self.get(section, key))
    }

    /// The number as a count.
    #[must_use]
    pub fn size(&self, section: &'static str, key: &'static str) -> usize {
        usize::try_from(self.get(section, key)).unwrap_or(usize::MAX)
    }

    fn contradictions(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let [ttl, renewal, margin] =
            ["lease_ttl_secs", "lease_renewal_secs", "lease_margin_secs"].map(|key| self.get("worker", key));
        if renewal + margin >= ttl {
            problems.push(format!(
                "worker.lease_renewal_secs ({renewal}) plus worker.lease_margin_secs ({margin}) must be less than worker.lease_ttl_secs ({ttl}), or every lease is lost before its first heartbeat"
            ));
        }
        let (base, cap) = (self.get("retry", "base_ms"), self.get("retry", "cap_secs"));
        if base > cap.saturating_mul(1000) {
            problems.push(format!("retry.base_ms ({base} ms) is more than retry.cap_secs ({cap} s)"));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_consistent() {
        for setting in &SETTINGS {
            assert!((setting.least..=setting.most).contains(&setting.default), "{}", setting.name());
            assert!(!setting.reason.is_empty() && !setting.unit.is_empty());
            assert_eq!(find(setting.section, setting.key).map(Setting::name), Some(setting.name()));
        }
        let mut problems = Vec::new();
        let values = Values::gather(&[], &|_| None, &Said::new(), &mut problems);
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(values.get("worker", "concurrency"), 16);
        assert_eq!(find("worker", "concurrency").unwrap().variable(), "FREIGHTLINER_WORKER_CONCURRENCY");
    }

    #[test]
    fn a_lease_must_outlive_its_renewal() {
        let mut problems = Vec::new();
        let flags = [("worker", "lease_ttl_secs", 10), ("retry", "base_ms", 5000), ("retry", "cap_secs", 1)];
        let _ = Values::gather(&flags, &|_| None, &Said::new(), &mut problems);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].contains("lease_renewal_secs (10)"), "{problems:?}");
    }

    #[test]
    fn a_bad_variable_is_named_without_its_value() {
        let mut problems = Vec::new();
        let environment = |name: &str| (name == "FREIGHTLINER_REGISTRY_TRIES").then(|| "many".into());
        let _ = Values::gather(&[], &environment, &Said::new(), &mut problems);
        assert_eq!(problems, ["environment: FREIGHTLINER_REGISTRY_TRIES is no whole number"]);
    }
}
