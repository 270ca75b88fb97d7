//! The raw limit: what the bare database does on this machine and file system, by its own tools, without a queue.

use crate::Measured;
use crate::database::{Database, Place};
use crate::report::{Figure, Report};
use crate::timing::Timer;
use serde_json::json;
use std::path::Path;
use std::process::Command;

/// Commits of one row each; as many in a quick run, because everything is compared with them.
const COMMITS: usize = 4_000;
/// Rows of the one big transaction.
const ROWS: usize = 1_000_000;

/// What everything else is compared with.
#[derive(Debug, Clone, Copy)]
pub struct Raw {
    one: f64,
    many: f64,
    /// Rows of one big transaction, a second.
    pub rows: f64,
}

impl Raw {
    /// Commits of one row each, a second: by one client for one caller, otherwise by eight where the database has more than
    /// one writer.
    pub const fn commits(self, callers: usize) -> f64 {
        if callers == 1 { self.one } else { self.many }
    }
}

/// Clients of the second figure, where the database has more than one writer.
const CLIENTS: usize = 8;
/// How long pgbench runs, seconds.
const PGBENCH_SECS: usize = 5;

/// Takes it.
///
/// # Errors
/// The tools are missing or failed.
pub fn measure(place: &Place, quick: bool, report: &mut Report) -> Measured<Raw> {
    let scale = if quick { 10 } else { 1 };
    let database = place.fresh()?;
    if database.is_server() {
        postgres(&database, if quick { 1 } else { PGBENCH_SECS }, ROWS / scale, report)
    } else {
        sqlite(&database, COMMITS, ROWS / scale, report)
    }
}

/// A row about as large as a bare job; the table has no other index than its key and no trigger.
const ROW: &str = "'registry.example.com/team/application:1', 'mirror.example.com/team/application:1'";

fn sqlite(database: &Database, commits: usize, rows: usize, report: &mut Report) -> Measured<Raw> {
    database.sql(
        "PRAGMA journal_mode=WAL; CREATE TABLE raw (id INTEGER PRIMARY KEY, source TEXT, destination TEXT) STRICT;",
    )?;
    let one = format!("BEGIN IMMEDIATE; INSERT INTO raw (source, destination) VALUES ({ROW}); COMMIT;\n");
    let many = one.repeat(commits);
    let timer = Timer::start();
    database.sql(&many)?;
    let commits_rate = timer.rate(commits);
    let all = format!(
        "BEGIN IMMEDIATE; WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT {rows}) \
         INSERT INTO raw (source, destination) SELECT {ROW} FROM n; COMMIT;"
    );
    let timer = Timer::start();
    database.sql(&all)?;
    let rows_rate = timer.rate(rows);
    counted(database, commits + rows)?;
    let with = json!({"tool": "sqlite3", "journal_mode": "WAL", "synchronous": "FULL", "commits": commits});
    report.add(Figure::new("raw", "raw: commits of one row", commits_rate, "commits/s", with))?;
    let with = json!({"tool": "sqlite3", "journal_mode": "WAL", "synchronous": "FULL", "rows": rows});
    report.add(Figure::new("raw", "raw: rows in one transaction", rows_rate, "rows/s", with))?;
    Ok(Raw { one: commits_rate, many: commits_rate, rows: rows_rate })
}

fn postgres(database: &Database, seconds: usize, rows: usize, report: &mut Report) -> Measured<Raw> {
    database
        .sql("CREATE TABLE raw (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, source text, destination text);")?;
    let script = database.folder().join("raw.sql");
    std::fs::write(&script, format!("INSERT INTO raw (source, destination) VALUES ({ROW});\n"))?;
    let mut rates = Vec::new();
    for clients in [1, CLIENTS] {
        let rate = pgbench(database, &script, clients, seconds)?;
        let with = json!({"tool": "pgbench", "protocol": "prepared", "clients": clients, "seconds": seconds});
        let name = format!("raw: commits of one row, {clients} clients");
        report.add(Figure::new("raw", name, rate, "commits/s", with))?;
        rates.push(rate);
    }
    database.sql("TRUNCATE raw;")?;
    let timer = Timer::start();
    database.sql(&format!("INSERT INTO raw (source, destination) SELECT {ROW} FROM generate_series(1, {rows});"))?;
    let rows_rate = timer.rate(rows);
    counted(database, rows)?;
    let with = json!({"tool": "psql", "rows": rows});
    report.add(Figure::new("raw", "raw: rows in one transaction", rows_rate, "rows/s", with))?;
    Ok(Raw { one: rates[0], many: rates[1], rows: rows_rate })
}

fn counted(database: &Database, wanted: usize) -> Measured {
    let found = database.sql("SELECT count(*) FROM raw;")?;
    if found.trim() == wanted.to_string() {
        return Ok(());
    }
    Err(format!("raw: {} rows instead of {wanted}", found.trim()).into())
}

/// Transactions a second, as pgbench says.
fn pgbench(database: &Database, script: &Path, clients: usize, seconds: usize) -> Measured<f64> {
    let mut tool = Command::new("pgbench");
    tool.args(["-n", "-M", "prepared", "-j", "2", "-c", &clients.to_string(), "-T", &seconds.to_string(), "-f"]);
    let output = tool.arg(script).arg(database.url()).output().map_err(|error| format!("running pgbench: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let rate = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    match rate {
        Some(rate) if output.status.success() => Ok(rate),
        _ => Err(format!("pgbench: {}", String::from_utf8_lossy(&output.stderr).trim()).into()),
    }
}
