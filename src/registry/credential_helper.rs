//! Credential helpers: programs named `docker-credential-NAME` that are asked on standard input and answer with JSON.
//!
//! The name is checked first, because it comes from a file and becomes the name of a program: no path, no option. The
//! program gets a bounded time and its answer a bounded size, and it is killed when nobody waits for it any more. Its
//! answer never appears in an error when it could hold a secret.

use super::credentials::Secret;
use super::error::cleaned;
use serde::Deserialize;
use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// Time for one answer: cloud helpers ask a server, desktop ones may ask a person, who can try again.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer, bytes: tokens of clouds have some thousand.
const ANSWER_LIMIT: u64 = 256 * 1024;
/// What helpers answer, by agreement, when they know nothing of a registry.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// Why a helper gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HelperError {
    /// The name is no plain program name.
    #[error("{0:?} is not the name of a credential helper")]
    BadName(String),
    /// There is no such program.
    #[error("the program is not installed")]
    NotInstalled,
    /// It could not be run, or its answer could not be read.
    #[error("it could not be run ({0})")]
    Io(#[from] std::io::Error),
    /// It ended with an error of its own.
    #[error("it failed ({0})")]
    Failed(String),
    /// It did not answer in time.
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    TimedOut,
    /// Its answer is not the JSON that was agreed on.
    #[error("its answer is not valid")]
    BadAnswer,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username", default)]
    username: String,
    #[serde(rename = "Secret")]
    secret: Secret,
}

/// User name and secret for `server` from the helper `name`; None when it has none.
/// `search` replaces `$PATH` as the place to search it.
pub(super) async fn get(
    name: &str,
    server: &str,
    search: Option<&OsStr>,
) -> Result<Option<(String, Secret)>, HelperError> {
    let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !plain {
        return Err(HelperError::BadName(name.to_owned()));
    }
    tokio::time::timeout(TIMEOUT, run(&format!("docker-credential-{name}"), server, search))
        .await
        .map_err(|_| HelperError::TimedOut)?
}

async fn run(program: &str, server: &str, search: Option<&OsStr>) -> Result<Option<(String, Secret)>, HelperError> {
    let mut command = Command::new(program);
    if let Some(search) = search {
        command.env("PATH", search);
    }
    let mut child = command
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => HelperError::NotInstalled,
            _ => HelperError::Io(error),
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that answers without reading is fine; what it answers decides.
        let _ = stdin.write_all(format!("{server}\n").as_bytes()).await;
    }
    let mut answer = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(ANSWER_LIMIT).read_to_end(&mut answer).await?;
    }
    let status = child.wait().await?;
    let parsed = serde_json::from_slice::<Answer>(&answer);
    if status.success() {
        let answer = parsed.map_err(|_| HelperError::BadAnswer)?;
        return Ok(Some((answer.username, answer.secret)));
    }
    let words = String::from_utf8_lossy(&answer);
    if words.contains(NOT_FOUND) {
        return Ok(None);
    }
    // Docker's helpers say on standard output what is wrong. Anything that looks like an answer is kept back.
    let said = if words.contains("Secret") { None } else { cleaned(&words) };
    Err(HelperError::Failed(said.map_or_else(|| status.to_string(), |said| format!("{status}: {said}"))))
}
