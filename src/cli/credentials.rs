//! `login`, `logout`, `credentials`: the vault.

use super::Context;
use super::error::{Error, Result};
use crate::config::{Secret, process_environment};
use crate::crypt::VaultError;
use crate::oci::Repository;
use crate::registry::{VaultHandle, VaultLookup};
use futures_util::future::BoxFuture;
use std::io::{IsTerminal, Read};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// Longest password, bytes: tokens are a few KiB.
const PASSWORD_LIMIT: u64 = 64 * 1024;
/// Time for the registry's answer.
const LOOK_DEADLINE: Duration = Duration::from_secs(30);

/// Store the credential of a registry in the vault.
#[derive(Debug, clap::Args)]
pub struct LoginArgs {
    /// HOST or HOST:PORT.
    #[arg(value_name = "REGISTRY")]
    registry: String,
    /// Who logs in [env: REGISTRY_USERNAME].
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Read the password from standard input.
    #[arg(long)]
    password_stdin: bool,
    /// The password; --password-stdin is better [env: REGISTRY_PASSWORD].
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    password: Option<Secret>,
    /// Store it without asking the registry.
    #[arg(long)]
    no_verify: bool,
    /// Allow plain HTTP and unverified TLS.
    #[arg(long)]
    insecure: bool,
}

/// Remove the credential of a registry from the vault.
#[derive(Debug, clap::Args)]
pub struct LogoutArgs {
    /// HOST or HOST:PORT.
    #[arg(value_name = "REGISTRY", required_unless_present = "all")]
    registry: Option<String>,
    /// Of all registries.
    #[arg(long, conflicts_with = "registry")]
    all: bool,
}

/// The vault: credentials of registries, sealed in the database.
#[derive(Debug, clap::Subcommand)]
pub enum CredentialsCommand {
    /// List whose credentials are stored; never what they are.
    List,
    /// Make a new key and seal everything with it; may be cut short and repeated.
    RotateKey,
}

impl From<VaultError> for Error {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Store(error) => error.into(),
            other => Self::failed("vault", other.to_string()),
        }
    }
}

/// The credential that is tried.
struct Tried {
    host: String,
    username: String,
    password: Zeroizing<String>,
}

impl VaultLookup for Tried {
    fn find<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Option<(String, Zeroizing<String>)>> {
        let found = (host == self.host).then(|| (self.username.clone(), self.password.clone()));
        Box::pin(std::future::ready(found))
    }
}

/// The registry that is meant, as references name it.
fn host(typed: &str) -> Result<String> {
    let text = typed.trim().trim_start_matches("docker://").trim_start_matches("https://").trim_end_matches('/');
    let wrong = |reason: String| Error::usage(format!("registry `{typed}`: {reason}")).hint("write HOST or HOST:PORT");
    if text.contains('/') || !(text == "localhost" || text.contains(['.', ':'])) {
        return Err(wrong("it is no registry".to_owned()));
    }
    let repository = Repository::parse(&format!("{text}/x")).map_err(|error| wrong(error.to_string()))?;
    Ok(repository.host().to_owned())
}

/// The password that standard input holds, or that somebody types.
async fn password(from_stdin: bool, host: &str, username: &str) -> Result<Zeroizing<String>> {
    if !from_stdin && !std::io::stdin().is_terminal() {
        return Err(Error::usage("there is no terminal to ask at").hint("add --password-stdin"));
    }
    let prompt = format!("Password of {username} at {host}: ");
    let read = move || {
        if !from_stdin {
            return rpassword::prompt_password(prompt).map(Zeroizing::new);
        }
        let mut text = Zeroizing::new(String::new());
        std::io::stdin().lock().take(PASSWORD_LIMIT + 1).read_to_string(&mut text)?;
        Ok(text)
    };
    let failed = |error: &dyn std::fmt::Display| Error::usage(format!("the password cannot be read: {error}"));
    let text = tokio::task::spawn_blocking(read).await.map_err(|error| failed(&error))?;
    let text = text.map_err(|error| failed(&error))?;
    usable(&text)
}

fn usable(text: &str) -> Result<Zeroizing<String>> {
    let text = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
    if text.is_empty() || u64::try_from(text.len()).unwrap_or(u64::MAX) > PASSWORD_LIMIT {
        return Err(Error::usage(format!("a password has 1 to {PASSWORD_LIMIT} bytes")));
    }
    Ok(text)
}

/// Asks the registry, then stores the credential.
///
/// # Errors
/// Something that was typed is wrong, the registry refuses the credential or does not answer, or the vault or the database
/// cannot be used; then nothing is stored.
pub async fn login(context: &mut Context, arguments: LoginArgs) -> Result {
    let host = host(&arguments.registry)?;
    let username = match (arguments.username, process_environment("REGISTRY_USERNAME")) {
        (Some(typed), _) => typed,
        (None, Some(name)) => name.into_string().map_err(|_| Error::usage("REGISTRY_USERNAME is no text"))?,
        (None, None) => return Err(Error::usage("login needs --username NAME")),
    };
    if username.is_empty() || username.len() > 1024 || username.chars().any(char::is_control) {
        return Err(Error::usage("a user name has 1 to 1024 bytes and no control characters"));
    }
    let from_stdin = arguments.password_stdin;
    let variable = || Secret::of_variable(&process_environment, "REGISTRY_PASSWORD").filter(|_| !from_stdin);
    let password = match arguments.password.or_else(variable) {
        Some(typed) => usable(typed.expose())?,
        None => password(from_stdin, &host, &username).await?,
    };
    if !arguments.no_verify {
        let tried = Tried { host: host.clone(), username: username.clone(), password: password.clone() };
        verify(context, tried, !arguments.insecure).await?;
    }
    let store = context.store().await?;
    let vault = context.vault();
    vault.put(&store, &host, &username, &password, &context.actor()).await?;
    if context.format().is_json() {
        return context.output.compact(&serde_json::json!({"registry": host, "username": username}));
    }
    context.output.line(&format!("stored: {username} at {host}"))
}

/// The registry takes the credential.
async fn verify(context: &Context, tried: Tried, verify_tls: bool) -> Result {
    let host = tried.host.clone();
    let mut settings = context.config.registry();
    settings.vault = VaultHandle(Some(Arc::new(tried)));
    let session = context.client_of(settings)?.session(verify_tls, Arc::default());
    let answer = tokio::time::timeout(LOOK_DEADLINE, session.list_repositories(&host, None)).await;
    let failed = |message: String| Error::failed("login", format!("login at {host}: {message}; nothing was stored"));
    match answer {
        Err(_) => Err(failed(format!("no answer within {} s", LOOK_DEADLINE.as_secs()))),
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => match error.status() {
            Some(401) => Err(failed("the registry refuses this user name or password".to_owned())),
            // Who may not list repositories may be somebody all the same.
            Some(status) if status < 500 => Ok(()),
            _ => Err(failed(error.to_string()).hint("to store it all the same: --no-verify")),
        },
    }
}

/// Removes one credential, or all.
///
/// # Errors
/// There is none, or the database cannot be used.
pub async fn logout(context: &mut Context, arguments: LogoutArgs) -> Result {
    let store = context.store().await?;
    let actor = context.actor();
    let hosts = match arguments.registry {
        Some(registry) => vec![host(&registry)?],
        None => store.credentials(None).await?.into_iter().map(|found| found.registry).collect(),
    };
    let mut removed = 0;
    for host in &hosts {
        removed += u64::from(store.credential_remove(host, &actor).await?);
    }
    if removed == 0 && !arguments.all {
        let message = format!("the vault has no credential of {}", hosts.join(", "));
        return Err(Error::failed("not_found", message).hint("freightliner credentials list"));
    }
    if context.format().is_json() {
        return context.output.compact(&serde_json::json!({"removed": removed}));
    }
    context.output.line(&format!("{removed} removed"))
}

/// Does it.
///
/// # Errors
/// The vault or the database cannot be used.
pub async fn run(context: &mut Context, command: CredentialsCommand) -> Result {
    let store = context.store().await?;
    match command {
        CredentialsCommand::List => {
            let found = store.credentials(None).await?;
            if context.format().is_json() {
                return context.output.rows(&found);
            }
            if found.is_empty() {
                context.notes.note("the vault is empty: see `freightliner login --help`");
                return Ok(());
            }
            let rows = found.iter().map(|found| {
                let changed = found.changed_at.to_rfc3339();
                vec![
                    found.registry.clone(),
                    found.username.clone(),
                    found.key_id.clone(),
                    changed,
                    found.changed_by.clone(),
                ]
            });
            context.output.table(&["REGISTRY", "USERNAME", "KEY", "CHANGED", "BY"], rows)
        }
        CredentialsCommand::RotateKey => {
            let (resealed, key) = context.vault().rotate(&store, &context.actor()).await?;
            if context.format().is_json() {
                return context.output.compact(&serde_json::json!({"resealed": resealed, "key_id": key}));
            }
            context.output.line(&format!("{resealed} sealed again with key {key}"))
        }
    }
}
