//! `serve`: workers, scheduler and sweeper, and an API for programs.

use super::error::{Error, Result};
use super::{Context, when};
use crate::access::{KeyHash, SHORTEST_KEY};
use crate::config::{Secret, process_environment};
use crate::daemon::{self, Served};
use crate::server::{self, App, Listener, Origins, Settings};
use crate::shutdown::Shutdown;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Largest file with a key, bytes.
const KEY_FILE_LIMIT: u64 = 4096;

/// Serve the API, and work.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// Where to listen: a name or an address; 0.0.0.0 or :: for all.
    #[arg(long, value_name = "HOST", default_value = "localhost")]
    host: String,
    /// The port of the API; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    port: u16,
    /// A second port with metrics and health alone.
    #[arg(long, value_name = "PORT", default_value_t = 2112)]
    metrics_port: u16,
    /// No second port; the metrics are on the API's.
    #[arg(long, conflicts_with = "metrics_port")]
    no_metrics_port: bool,
    /// The URL by which callers know the API.
    #[arg(long, value_name = "URL")]
    external_url: Option<String>,
    /// Ask for a key: one of `freightliner keys`, or that of --api-key-file.
    #[arg(long)]
    api_key_auth: bool,
    /// Read a key with all rights from this file; asks for keys too.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// A key with all rights; a file is better [env: FREIGHTLINER_API_KEY].
    #[arg(long, value_name = "KEY", conflicts_with = "api_key_file")]
    api_key: Option<Secret>,
    /// Let everybody who reaches the port do everything, from other machines too.
    #[arg(long, conflicts_with_all = ["api_key_auth", "api_key", "api_key_file"])]
    allow_anybody: bool,
    /// Serve HTTPS.
    #[arg(long, requires_all = ["tls_cert", "tls_key"])]
    tls: bool,
    /// The certificate and its chain, PEM; a renewed one is picked up.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of the certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Let web pages of --allowed-origins call.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    enable_cors: bool,
    /// Web pages that may call: https://HOST, *.DOMAIN or * [default: none].
    #[arg(long, value_name = "ORIGINS", value_delimiter = ',')]
    allowed_origins: Vec<String>,
    /// Proxies whose X-Forwarded-For is believed.
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    trusted_proxies: Vec<IpAddr>,
    /// Longest time for the head of a request.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = when::duration)]
    read_timeout: Duration,
    /// Longest time for a call, its body included.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = when::duration)]
    write_timeout: Duration,
    /// How long calls may go on after the first signal.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = when::duration)]
    shutdown_timeout: Duration,
    /// Jobs at a time [default: 16].
    #[arg(long, visible_alias = "serve-workers", value_name = "N")]
    pub concurrency: Option<u64>,
    /// Only jobs of this queue are worked on.
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// Say nothing at the start.
    #[arg(long)]
    no_banner: bool,
}

impl ServeArgs {
    /// The key that is in no database: typed, in a file, or in the environment.
    fn key(&self, base: &Path) -> Result<Option<KeyHash>> {
        if let Some(path) = &self.api_key_file {
            return read_key(&base.join(path)).map(Some);
        }
        if let Some(key) = &self.api_key {
            return checked(key.expose(), "--api-key").map(Some);
        }
        if self.allow_anybody {
            return Ok(None);
        }
        let variable = Secret::of_variable(&process_environment, "FREIGHTLINER_API_KEY");
        variable.map(|key| checked(key.expose(), "FREIGHTLINER_API_KEY")).transpose()
    }

    fn settings(&self, base: &Path) -> Result<Settings> {
        let key = self.key(base)?;
        let origins = if self.enable_cors { self.allowed_origins.as_slice() } else { &[] };
        let external_host = match &self.external_url {
            None => None,
            Some(text) => {
                let url =
                    url::Url::parse(text).map_err(|error| Error::usage(format!("--external-url `{text}`: {error}")))?;
                Some(url.host_str().unwrap_or_default().to_owned())
            }
        };
        let tls =
            self.tls_cert.as_deref().zip(self.tls_key.as_deref()).map(|(cert, key)| (base.join(cert), base.join(key)));
        Ok(Settings {
            host: self.host.clone(),
            port: self.port,
            metrics_port: (!self.no_metrics_port).then_some(self.metrics_port),
            needs_key: self.api_key_auth || key.is_some(),
            key,
            anybody: self.allow_anybody,
            tls,
            origins: Origins::parse(origins).map_err(Error::usage)?,
            proxies: self.trusted_proxies.iter().map(IpAddr::to_canonical).collect(),
            external_host,
            read_timeout: self.read_timeout,
            call_timeout: self.write_timeout,
            shutdown_timeout: self.shutdown_timeout,
            ..Settings::default()
        })
    }
}

/// The key in a file that nobody else can read.
fn read_key(path: &Path) -> Result<KeyHash> {
    use std::os::unix::fs::MetadataExt;
    let shown = path.display();
    let failed = |error: std::io::Error| Error::usage(format!("cannot read the key file {shown}: {error}"));
    let file = std::fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Error::usage(format!("the key file {shown} can be read by others (mode {mode:04o})"))
            .hint(format!("chmod 600 {shown}")));
    }
    let mut text = String::new();
    file.take(KEY_FILE_LIMIT).read_to_string(&mut text).map_err(failed)?;
    checked(&text, &format!("the file {shown}"))
}

/// A key that is long enough.
fn checked(key: &str, place: &str) -> Result<KeyHash> {
    let key = key.trim();
    if key.len() < SHORTEST_KEY {
        let message = format!("the key of {place} is too short: it needs {SHORTEST_KEY} characters at least");
        return Err(Error::usage(message).hint("openssl rand -hex 32"));
    }
    Ok(KeyHash::of(key))
}

/// Does it.
///
/// # Errors
/// Something that was typed is wrong, a port cannot be had, the database or the state folder cannot be used, or a second
/// signal cut it short.
pub async fn run(context: &mut Context, arguments: ServeArgs) -> Result {
    let base = context.config.base.clone();
    let settings = arguments.settings(&base)?;
    let needs_key = settings.needs_key;
    let scheme = if settings.tls.is_some() { "https" } else { "http" };
    let store = context.store().await?;
    if needs_key && settings.key.is_none() {
        let now = context.clock.now();
        if !store.keys(None).await?.iter().any(|key| key.is_valid(now)) {
            return Err(Error::usage("a key is asked for, and there is none: nobody could call")
                .hint("freightliner keys add NAME --role admin, or --api-key-file FILE"));
        }
    }
    let parts = context.parts(store, arguments.queue)?;
    let shutdown = Shutdown::default();
    let app = App::new(parts.clone(), settings, context.config.max_attempts(), shutdown.drain.clone());
    let failed = |error: server::Error| match error {
        server::Error::Refused(_) => Error::usage(error.to_string()),
        server::Error::Bind { .. } => Error::failed("bind", error.to_string()).hint("choose another --host or --port"),
    };
    let api = Listener::bind(&app).await.map_err(failed)?;
    let gauges = Listener::bind_gauges(&app).await.map_err(failed)?;
    let address = api.address().map_err(|error| Error::failed("io", error.to_string()))?;
    tracing::info!(%address, needs_key, "serving");
    if !arguments.no_banner {
        let keys = if needs_key { "with keys" } else { "without keys" };
        context.notes.note(&format!("Freightliner {} serves {scheme}://{address} {keys}", env!("CARGO_PKG_VERSION")));
    }
    let listeners = [Some(api), gauges].into_iter().flatten().collect();
    let ended = daemon::serve(parts, Served { app, listeners, shutdown }).await?;
    match ended.signal {
        Some(signal) if ended.aborted => {
            context.abandon();
            Err(Error::interrupted(signal, "stopped at once by a second signal; its jobs go on with the next worker"))
        }
        _ => Ok(()),
    }
}
