//! The database as strangers use it: by the stock shells `sqlite3` and `psql`, never by the program's own code.

use super::support::binary::{Binary, Output, Running};
use super::support::database::Database;
use super::support::need;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::process::Command;
use url::Url;

/// Which database a round is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    /// A server of our own.
    Postgres,
    /// Somebody's server, by the URL of a database of it.
    Server(Url),
}

impl Kind {
    /// What `--database` takes: a name, or the URL of a server on which a user may create databases.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "sqlite" => Ok(Self::Sqlite),
            "postgres" => Ok(Self::Postgres),
            url if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
                Ok(Self::Server(url.parse().map_err(|error| format!("--database {url}: {error}"))?))
            }
            other => Err(format!("--database {other}: use sqlite, postgres, or postgres://USER@HOST:PORT/DATABASE")),
        }
    }

    /// Whether databases can be made there: said before the first round, not in each.
    pub fn look(&self) -> Result<(), String> {
        let Self::Server(server) = self else { return Ok(()) };
        let may = "DO 'BEGIN IF NOT (SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user) THEN \
            RAISE ''this user may not create databases''; END IF; END'";
        admin(server, may).map_err(|error| format!("{}: {error}", self.name()))
    }

    /// A fresh, empty database; a panic says what is missing for one.
    pub fn fresh(&self, seed: u64) -> Place {
        match self {
            Self::Sqlite => Place::Own(Database::sqlite()),
            Self::Postgres => Place::Own(Database::postgres().expect("PostgreSQL is installed")),
            Self::Server(server) => Place::created(server.clone(), seed),
        }
    }

    /// For people; a URL may hold a password.
    pub fn name(&self) -> String {
        match self {
            Self::Sqlite => "SQLite".to_owned(),
            Self::Postgres => "PostgreSQL".to_owned(),
            Self::Server(server) => format!("PostgreSQL at {}", server.host_str().unwrap_or("a socket")),
        }
    }

    const fn is_sqlite(&self) -> bool {
        matches!(self, Self::Sqlite)
    }
}

/// The database of a round; gone when dropped.
pub enum Place {
    Own(Database),
    /// A database of its own on somebody's server.
    Created {
        server: Url,
        name: String,
    },
}

impl Place {
    fn created(server: Url, seed: u64) -> Self {
        let name = format!("freightliner_crash_{}_{seed}", std::process::id());
        admin(&server, &format!("CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0"))
            .unwrap_or_else(|error| panic!("making the database {name} on the server: {error}"));
        Self::Created { server, name }
    }

    /// What the program's `--database` takes.
    pub fn url(&self) -> String {
        match self {
            Self::Own(database) => database.url(),
            Self::Created { server, name } => {
                let mut url = server.clone();
                url.set_path(name);
                url.into()
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Self::Created { server, name } = self
            && let Err(error) = admin(server, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        {
            eprintln!("the database {name} is left on the server: {error}");
        }
    }
}

/// Runs a statement in the database that the URL names. Libpq finds passwords where it always does.
fn admin(server: &Url, statement: &str) -> Result<(), String> {
    let psql = ["-X", "-w", "-q", "-v", "ON_ERROR_STOP=1", "-c", statement, server.as_str()];
    let output = Command::new("psql").args(psql).output().map_err(|error| format!("psql: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}

/// Where libpq's passwords are: programs of a round have another home, and no variables of ours.
pub fn password_file() -> Option<(&'static str, String)> {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".pgpass"));
    let named = std::env::var_os("PGPASSFILE").map(PathBuf::from).or(home)?;
    named.is_file().then(|| ("PGPASSFILE", named.display().to_string()))
}

/// What retention removes is kept here for the checker, by triggers of ours.
const ARCHIVE: [(&str, &str); 3] =
    [("jobs", "archived_jobs"), ("job_events", "archived_events"), ("transfers", "archived_transfers")];
/// What a server may need to make a change visible, milliseconds, on a machine with too much to do.
const SERVER_LAG_MS: i64 = 500;

/// A database shell and what it connects to.
pub struct Shell {
    kind: Kind,
    /// A file, or a URL.
    database: String,
    /// The shell as a program with its own folder for output.
    program: Binary,
}

impl Shell {
    /// The shell of this database; a panic says which one is missing.
    pub fn new(kind: &Kind, place: &Place) -> Self {
        let name = if kind.is_sqlite() { "sqlite3" } else { "psql" };
        let database = match place {
            Place::Own(database) if kind.is_sqlite() => database.file().display().to_string(),
            _ => place.url(),
        };
        let program = need(name).unwrap_or_else(|| panic!("{name} is not installed: the checker needs it"));
        let mut program = Binary::of(program);
        if let Some((name, file)) = password_file() {
            program = program.env(name, file);
        }
        Self { kind: kind.clone(), database, program }
    }

    /// From now on what is deleted of jobs and their history is kept in tables of our own.
    pub fn archive(&self) {
        for (table, archive) in ARCHIVE {
            let statements = if self.kind.is_sqlite() {
                format!(
                    "CREATE TABLE {archive} AS SELECT * FROM {table} WHERE 0; \
                     CREATE TRIGGER {archive}_keep BEFORE DELETE ON {table} \
                     BEGIN INSERT INTO {archive} SELECT * FROM {table} WHERE rowid = OLD.rowid; END;"
                )
            } else {
                format!(
                    "CREATE TABLE {archive} (LIKE {table}); \
                     CREATE FUNCTION {archive}_keep() RETURNS TRIGGER LANGUAGE plpgsql AS \
                     'BEGIN INSERT INTO {archive} SELECT OLD.*; RETURN OLD; END'; \
                     CREATE TRIGGER {archive}_keep BEFORE DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION {archive}_keep();"
                )
            };
            drop(self.start(&statements).finish().success());
        }
    }

    /// How long after the time that a change says it was made somebody else may not have seen it. SQLite has one writer, who
    /// sees all that was written before.
    pub const fn lag_ms(&self) -> i64 {
        if self.kind.is_sqlite() { 0 } else { SERVER_LAG_MS }
    }

    /// Where the shells' output is kept.
    pub fn folder(&self) -> PathBuf {
        self.program.home().parent().expect("a folder").to_owned()
    }

    /// Now, in unix milliseconds, as an expression.
    pub fn now_ms(&self) -> &'static str {
        match self.kind {
            Kind::Sqlite => "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)",
            Kind::Postgres | Kind::Server(_) => "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
        }
    }

    /// Starts to run these statements; each row is a line, columns separated by `|`. An error ends it with a bad exit code.
    pub fn start(&self, statements: &str) -> Running {
        match self.kind {
            // Checkpoints are the program's: an old library that checkpoints beside it can damage the log.
            Kind::Sqlite => self.program.spawn(&[
                "-batch",
                "-bail",
                "-noheader",
                "-list",
                "-cmd",
                ".timeout 20000",
                "-cmd",
                "PRAGMA wal_autocheckpoint=0",
                &self.database,
                statements,
            ]),
            Kind::Postgres | Kind::Server(_) => self.program.spawn(&self.psql(statements)),
        }
    }

    fn psql<'a>(&'a self, statements: &'a str) -> [&'a str; 9] {
        ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statements, &self.database]
    }

    fn sqlite(&self, options: &[&str], statements: &str) -> Output {
        self.program.run(&[&["-batch", "-bail"], options, &[&self.database, statements]].concat())
    }

    /// The rows of a query; a panic when it is refused.
    pub fn rows<T: DeserializeOwned>(&self, query: &str) -> Vec<T> {
        self.try_rows(query).unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// The rows of a query, or what the shell said.
    pub fn try_rows<T: DeserializeOwned>(&self, query: &str) -> Result<Vec<T>, String> {
        let output = match self.kind {
            Kind::Sqlite => self.sqlite(&["-json", "-cmd", ".timeout 20000"], query),
            Kind::Postgres | Kind::Server(_) => {
                let query = format!("SELECT COALESCE(JSON_AGG(found), '[]') FROM ({query}) AS found");
                self.program.run(&self.psql(&query))
            }
        };
        if output.code() != Some(0) {
            return Err(output.errors());
        }
        // No row is no output at all at sqlite3.
        let text = output.text();
        let text = if text.trim().is_empty() { "[]" } else { text.trim() };
        serde_json::from_str(text).map_err(|error| format!("{error} in {text}"))
    }

    /// Whether somebody could write just now: not while another process stands still in the middle of a transaction.
    pub fn is_writable(&self) -> bool {
        match self.kind {
            Kind::Sqlite => self.sqlite(&["-cmd", ".timeout 60"], "BEGIN IMMEDIATE; ROLLBACK").code() == Some(0),
            // It locks rows, not all of itself.
            Kind::Postgres | Kind::Server(_) => true,
        }
    }

    /// What the database says about the soundness of its own files; `ok` when all is well. A server has no such word.
    pub fn integrity(&self) -> String {
        match self.kind {
            Kind::Sqlite => {
                let output = self.sqlite(&[], "PRAGMA integrity_check");
                format!("{}{}", output.text(), output.errors()).trim().to_owned()
            }
            Kind::Postgres | Kind::Server(_) => "ok".to_owned(),
        }
    }

    /// Copies the database to a place that stays.
    pub fn store(&self, folder: &Path) -> bool {
        let mut copy = match self.kind {
            Kind::Sqlite => {
                let mut copy = Command::new("cp");
                copy.arg("-a").arg(Path::new(&self.database).parent().expect("a folder")).arg(folder.join("database"));
                copy
            }
            Kind::Postgres | Kind::Server(_) => {
                let mut copy = Command::new("pg_dump");
                copy.arg("--file").arg(folder.join("database.sql")).arg(&self.database);
                copy
            }
        };
        copy.status().is_ok_and(|status| status.success())
    }
}
