//! Where to measure: fresh databases on SQLite or PostgreSQL, filled and copied, gone at the end.

use crate::{Failure, Measured};
use freightliner::clock::Clock;
use freightliner::store::{DatabaseUrl, Store};
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

/// The magic number of tmpfs in statfs(2): an fsync costs nothing there.
const TMPFS: u64 = 0x0102_1994;

/// A place for any number of databases of one kind.
pub struct Place {
    scratch: TempDir,
    server: Option<url::Url>,
    made: AtomicUsize,
}

impl Place {
    /// `sqlite:` makes its files in the system's temporary folder, `sqlite:FILE` beside that file; a PostgreSQL URL names a
    /// server whose user may create databases.
    ///
    /// # Errors
    /// The program cannot use such a database, or the folder cannot be made.
    pub fn new(url: &str) -> Measured<Self> {
        let made = AtomicUsize::new(0);
        let temp = || tempfile::Builder::new().prefix("freightliner-bench.").tempdir();
        if let Some(path) = url.strip_prefix("sqlite:") {
            let folder = Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty());
            let scratch = match folder {
                Some(folder) => tempfile::Builder::new().prefix("freightliner-bench.").tempdir_in(folder)?,
                None => temp()?,
            };
            return Ok(Self { scratch, server: None, made });
        }
        url.parse::<DatabaseUrl>()?;
        Ok(Self { scratch: temp()?, server: Some(url.parse()?), made })
    }

    /// `sqlite` or `postgres`.
    pub const fn kind(&self) -> &'static str {
        if self.server.is_some() { "postgres" } else { "sqlite" }
    }

    /// What a reader of the figures should know about this place. Without secrets.
    pub fn facts(&self) -> Value {
        let folder = self.scratch.path();
        if self.server.is_some() {
            return json!({"kind": self.kind()});
        }
        let magic = rustix::fs::statfs(folder).ok().and_then(|facts| u64::try_from(facts.f_type).ok());
        let warning = (magic == Some(TMPFS)).then_some("tmpfs: commits cost nothing here, the figures mean little");
        json!({"kind": self.kind(), "folder": folder, "file_system": magic.map(|m| format!("{m:#x}")), "warning": warning})
    }

    /// A database that does not exist yet, or is empty.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn fresh(&self) -> Measured<Database> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let folder = self.scratch.path().join(number.to_string());
        std::fs::create_dir(&folder)?;
        let Some(server) = &self.server else {
            let url = format!("sqlite:{}", folder.join("freightliner.db").display());
            return Ok(Database { folder, url, server: None });
        };
        let name = format!("freightliner_bench_{}_{number}", std::process::id());
        psql(server.as_str(), &format!("CREATE DATABASE {name}"))?;
        let mut url = server.clone();
        url.set_path(&name);
        Ok(Database { folder, url: url.into(), server: Some((server.clone(), name)) })
    }
}

/// One database; it is removed when dropped.
pub struct Database {
    folder: PathBuf,
    url: String,
    server: Option<(url::Url, String)>,
}

impl Database {
    /// What `--database` takes.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A folder of its own, for the state of workers too.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of an SQLite database.
    pub fn file(&self) -> PathBuf {
        self.folder.join("freightliner.db")
    }

    /// It is on a server.
    pub const fn is_server(&self) -> bool {
        self.server.is_some()
    }

    /// Opens it as the program does.
    ///
    /// # Errors
    /// The store's.
    pub async fn open(&self) -> Measured<Store> {
        Ok(Store::open(&self.url.parse()?, Clock::System).await?)
    }

    /// Runs statements with the database's own shell; what it printed.
    ///
    /// # Errors
    /// What the shell said.
    pub fn sql(&self, statements: &str) -> Measured<String> {
        match &self.server {
            None => sqlite3(&self.file(), statements),
            Some(_) => psql(&self.url, statements),
        }
    }
}

impl Database {
    /// Another program's shell with a connection of its own, and the pipe that it reads statements from. It answers nothing.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn shell(&self) -> Measured<(Child, ChildStdin)> {
        let mut shell = if self.is_server() { psql_command(&self.url) } else { sqlite3_command(&self.file()) };
        let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let mut input = child.stdin.take().ok_or("a shell without a pipe")?;
        if !self.is_server() {
            // What the manual tells foreign writers.
            input.write_all(SETTINGS.as_bytes())?;
            input.write_all(b"PRAGMA wal_autocheckpoint=0;\n")?;
        }
        Ok((child, input))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The place goes as a whole at the end; here it is for room on the disk only.
        drop(std::fs::remove_dir_all(&self.folder));
        if let Some((server, name)) = &self.server {
            drop(psql(server.as_str(), &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")));
        }
    }
}

/// The settings of the program.
const SETTINGS: &str = ".timeout 30000\nPRAGMA foreign_keys=ON;\nPRAGMA synchronous=FULL;\n";

fn sqlite3_command(file: &Path) -> Command {
    let mut shell = Command::new("sqlite3");
    shell.args(["-batch", "-bail"]).arg(file);
    shell
}

fn psql_command(url: &str) -> Command {
    let mut shell = Command::new("psql");
    shell.args(["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", url, "-f", "-"]);
    shell
}

/// Runs statements with the sqlite3 shell, with the settings of the program; what it printed.
///
/// # Errors
/// What the shell said.
pub fn sqlite3(file: &Path, statements: &str) -> Measured<String> {
    feed(sqlite3_command(file), &format!("{SETTINGS}{statements}"))
}

/// Runs statements with psql; what it printed.
///
/// # Errors
/// What it said.
pub fn psql(url: &str, statements: &str) -> Measured<String> {
    feed(psql_command(url), statements)
}

fn feed(mut shell: Command, input: &str) -> Measured<String> {
    let name = shell.get_program().to_string_lossy().into_owned();
    let failed = |error: &dyn std::fmt::Display| Failure::from(format!("running {name}: {error}"));
    let mut child = shell
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error))?;
    let written = child.stdin.take().map(|mut pipe| pipe.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(|error| failed(&error))?;
    if !output.status.success() {
        return Err(failed(&String::from_utf8_lossy(&output.stderr).trim()));
    }
    written.transpose().map_err(|error| failed(&error))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
