//! `doctor`: looks at everything a job will need, and says what to do about what is wrong.
//!
//! Checks do not stop at the first failure, and none of them changes anything but a file that is removed at once (and the
//! database, which is made where there is none). Nothing that a credential file holds is ever printed.

mod credentials;
mod host;
mod registries;

use super::Context;
use super::error::{Error, Result};
use crate::store::DatabaseUrl;
use serde::Serialize;

/// Check the set-up.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// Registries to reach: HOST[:PORT], or a repository or image of theirs.
    #[arg(value_name = "REGISTRY")]
    registries: Vec<String>,
    /// Verify TLS; false also allows plain HTTP [default: true].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true,
        value_parser = clap::builder::BoolishValueParser::new())]
    tls_verify: Option<bool>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Works, but look at it.
    Warn,
    /// Jobs will fail.
    Fail,
}

/// One line of the diagnosis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    name: String,
    status: Status,
    message: String,
    /// What to do.
    hint: Option<String>,
}

impl Check {
    /// As it should be.
    #[must_use]
    pub fn ok(name: &str, message: impl Into<String>) -> Self {
        Self { name: name.to_owned(), status: Status::Ok, message: message.into(), hint: None }
    }

    /// Works, but look at it.
    #[must_use]
    pub fn warn(name: &str, message: impl Into<String>, hint: &str) -> Self {
        Self { status: Status::Warn, hint: Some(hint.to_owned()), ..Self::ok(name, message) }
    }

    /// Jobs will fail.
    #[must_use]
    pub fn fail(name: &str, message: impl Into<String>, hint: &str) -> Self {
        Self { status: Status::Fail, ..Self::warn(name, message, hint) }
    }
}

/// Does it.
///
/// # Errors
/// A check failed.
pub async fn run(context: &mut Context, arguments: &DoctorArgs) -> Result {
    let mut checks = vec![host::state_dir(context)];
    checks.push(host::file_system(&context.config.state_dir));
    checks.push(host::free_space(&context.config.state_dir));
    checks.extend(host::clock(context));
    checks.extend(database(context).await);
    checks.extend(credentials::check(&crate::config::process_environment));
    if !arguments.registries.is_empty() {
        checks.extend(registries::check(context, &arguments.registries, arguments.tls_verify).await);
    }
    let failed = checks.iter().filter(|check| check.status == Status::Fail).count();
    if context.format().is_json() {
        context.output.json(&serde_json::json!({"ok": failed == 0, "checks": checks}))?;
    } else {
        for Check { name, status, message, hint } in &checks {
            let status = match status {
                Status::Ok => "ok  ",
                Status::Warn => "warn",
                Status::Fail => "fail",
            };
            let hint = hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
            context.output.line(&format!("{status}  {name}: {message}{hint}"))?;
        }
    }
    match failed {
        0 => Ok(()),
        1 => Err(Error::failed("failed", "1 check failed")),
        count => Err(Error::failed("failed", format!("{count} checks failed"))),
    }
}

/// Opens, answers, is whole.
async fn database(context: &mut Context) -> Vec<Check> {
    const NAME: &str = "database";
    let store = match context.store().await {
        Ok(store) => store,
        Err(error) => {
            return vec![Check::fail(NAME, error.message, error.hint.as_deref().unwrap_or("see --database"))];
        }
    };
    let mut checks = Vec::new();
    match store.info().await {
        Ok(info) => {
            checks.push(Check::ok(NAME, format!("{}, schema {}, {} jobs", info.url, info.schema_version, info.jobs)));
            checks.push(Check::ok("engine", format!("{} {}", info.engine, info.engine_version)));
        }
        Err(error) => checks.push(Check::fail(NAME, error.to_string(), "see the message")),
    }
    match store.check().await {
        Ok(findings) if findings.is_empty() => checks.push(Check::ok("integrity", "the database is whole")),
        Ok(findings) => {
            let first = findings.first().map(|finding| finding.message.clone()).unwrap_or_default();
            let message = format!("{} problems, the first: {first}", findings.len());
            checks.push(Check::fail("integrity", message, "run `freightliner db check`, and restore a backup"));
        }
        Err(error) => checks.push(Check::fail("integrity", error.to_string(), "run `freightliner db check`")),
    }
    if let DatabaseUrl::Sqlite(_) = context.config.database {
        checks.push(Check::ok(
            "foreign writers",
            "programs other than this one that write the database with SQLite before 3.51.3 should say PRAGMA wal_autocheckpoint=0 first",
        ));
    }
    checks
}
