//! A real registry: Debian's `docker-registry` (Distribution 2.8) on a free port, with its storage in a temp folder.
//!
//! The port is chosen by the kernel and read from the registry's own log, so two tests can never take each other's.
//! What it was asked is read from its logs: `registry_log`.

use super::http::Client;
use super::tls::Authority;
use super::token_server::{ISSUER, SERVICE, TokenServer};
use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// How a registry is to be set up.
#[derive(Default)]
pub struct Options<'a> {
    /// Users and passwords, bcrypt in an htpasswd file.
    pub users: Vec<(String, String)>,
    /// Tokens of this server.
    pub tokens: Option<&'a TokenServer>,
    pub tls: bool,
    pub read_only: bool,
    pub relative_locations: bool,
}

/// A running registry; killed and waited for on drop.
pub struct Registry {
    program: PathBuf,
    folder: tempfile::TempDir,
    child: Option<Child>,
    authority: String,
    tls: Option<Authority>,
    client: Client,
    runs: u64,
}

impl Registry {
    /// A plain registry; None (said loudly) when `docker-registry` is not installed.
    pub fn start() -> Option<Self> {
        Self::start_with(&Options::default())
    }

    /// A registry that knows one user.
    pub fn with_user(user: &str, password: &str) -> Option<Self> {
        Self::start_with(&Options { users: vec![(user.into(), password.into())], ..Options::default() })
    }

    pub fn with_tls() -> Option<Self> {
        Self::start_with(&Options { tls: true, ..Options::default() })
    }

    /// A registry that takes the tokens of this server.
    pub fn with_tokens(tokens: &TokenServer) -> Option<Self> {
        Self::start_with(&Options { tokens: Some(tokens), ..Options::default() })
    }

    pub fn start_with(options: &Options) -> Option<Self> {
        let program = super::need("docker-registry")?;
        let folder = tempfile::tempdir().expect("a temp folder");
        if !options.users.is_empty() {
            write_htpasswd(&super::need("htpasswd")?, &folder.path().join("htpasswd"), &options.users);
        }
        let tls = options.tls.then(Authority::new);
        let config = config(folder.path(), options, tls.as_ref(), "127.0.0.1:0");
        std::fs::write(folder.path().join("config.yml"), config).expect("write config.yml");
        let mut registry =
            Self { program, folder, child: None, authority: String::new(), tls, client: Client::new(""), runs: 0 };
        registry.launch();
        Some(registry)
    }

    /// Starts the process, and waits until it says where it listens.
    fn launch(&mut self) {
        // Each run has logs of its own, so that the port of an earlier one is never taken for this one's.
        self.runs += 1;
        let (access, log) = self.logs().pop().expect("just counted");
        let open = |path: &Path| File::create(path).expect("make a log");
        let child = Command::new(&self.program)
            .arg("serve")
            .arg(self.folder.path().join("config.yml"))
            .env_clear()
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(open(&access))
            .stderr(open(&log))
            .spawn()
            .expect("start docker-registry");
        let child = self.child.insert(child);
        self.authority = super::eventually("docker-registry to listen", || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let ended = child.try_wait().expect("ask for the child");
            assert!(ended.is_none(), "docker-registry ended at once: {text}");
            let (_, rest) = text.split_once("listening on ")?;
            let end = rest.find(|character: char| !character.is_ascii_digit() && !".:".contains(character))?;
            Some(rest[..end].to_owned())
        });
        self.client = Client::new(&self.authority);
        if let Some(authority) = &self.tls {
            self.client = self.client.clone().trusting(&authority.ca());
        }
    }

    /// Kills the process, as a power cut does.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts again over the same storage, at the same address, after `stop`; or stops and starts.
    pub fn restart(&mut self) {
        self.stop();
        self.change_config("addr: 127.0.0.1:0", &format!("addr: {}", self.authority));
        self.launch();
    }

    /// Restarts it over the same storage so that it takes no writes any more.
    pub fn restart_read_only(&mut self) {
        self.change_config("readonly: {enabled: false}", "readonly: {enabled: true}");
        self.restart();
    }

    fn change_config(&self, from: &str, to: &str) {
        let path = self.folder.path().join("config.yml");
        let text = std::fs::read_to_string(&path).expect("read config.yml");
        std::fs::write(path, text.replace(from, to)).expect("write config.yml");
    }

    /// `127.0.0.1:port`, as it stands in references.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// `127.0.0.1:port/repository:tag`
    pub fn reference(&self, repository: &str, tag: &str) -> String {
        format!("{}/{repository}:{tag}", self.authority)
    }

    /// A client of the rig, without credentials.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The CA certificate to trust, when this is a TLS registry.
    pub fn ca(&self) -> Option<PathBuf> {
        self.tls.as_ref().map(Authority::ca)
    }

    /// The folder of Distribution's storage.
    pub fn storage(&self) -> PathBuf {
        self.folder.path().join("storage")
    }

    /// The log files of the runs so far, as (access log, log), oldest first.
    pub(super) fn logs(&self) -> Vec<(PathBuf, PathBuf)> {
        let path = |kind: &str, run: u64| self.folder.path().join(format!("{kind}-{run}"));
        (0..self.runs).map(|run| (path("access", run), path("log", run))).collect()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

fn write_htpasswd(program: &Path, file: &Path, users: &[(String, String)]) {
    let mut lines = String::new();
    for (user, password) in users {
        let output = Command::new(program).args(["-Bbn", user, password]).output().expect("run htpasswd");
        assert!(output.status.success(), "htpasswd: {}", String::from_utf8_lossy(&output.stderr));
        lines.push_str(String::from_utf8_lossy(&output.stdout).trim());
        lines.push('\n');
    }
    std::fs::write(file, lines).expect("write htpasswd");
}

/// Distribution's configuration.
fn config(folder: &Path, options: &Options, tls: Option<&Authority>, address: &str) -> String {
    let folder_text = folder.display();
    let mut text = format!(
        "version: 0.1\n\
         log: {{level: debug, formatter: json, accesslog: {{disabled: false}}}}\n\
         storage:\n  \
           filesystem: {{rootdirectory: '{folder_text}/storage', maxthreads: 100}}\n  \
           delete: {{enabled: true}}\n  \
           maintenance:\n    \
             uploadpurging: {{enabled: false}}\n    \
             readonly: {{enabled: {}}}\n\
         validation: {{manifests: {{urls: {{allow: ['^https?://']}}}}}}\n\
         http:\n  addr: {address}\n  secret: rig\n  relativeurls: {}\n",
        options.read_only, options.relative_locations
    );
    let mut add = |block: String| text.write_str(&block).expect("a string grows");
    if let Some(tls) = tls {
        let (certificate, key) = (tls.certificate(), tls.key());
        add(format!("  tls: {{certificate: '{}', key: '{}'}}\n", certificate.display(), key.display()));
    }
    if !options.users.is_empty() {
        add(format!("auth:\n  htpasswd: {{realm: rig, path: '{folder_text}/htpasswd'}}\n"));
    }
    if let Some(tokens) = options.tokens {
        add(format!(
            "auth:\n  token:\n    realm: '{}'\n    service: {SERVICE}\n    issuer: {ISSUER}\n    rootcertbundle: '{}'\n",
            tokens.realm(),
            tokens.root_certificate().display()
        ));
    }
    text
}
