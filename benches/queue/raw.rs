//! The raw limit: what the bare database does on this machine and file system, by its own tools, without a queue.

use crate::Measured;
use crate::database::{Place, sqlite3};
use crate::report::{Figure, Report};
use crate::timing::Timer;
use serde_json::json;

/// Commits of one row each.
const COMMITS: usize = 4_000;
/// Rows of the one big transaction.
const ROWS: usize = 1_000_000;

/// What everything else is compared with.
#[derive(Debug, Clone, Copy)]
pub struct Raw {
    /// Commits of one row each by one client, a second.
    pub commits: f64,
    /// Rows of one big transaction, a second.
    pub rows: f64,
}

/// Takes it.
///
/// # Errors
/// The tools are missing or failed.
pub fn measure(place: &Place, quick: bool, report: &mut Report) -> Measured<Raw> {
    let scale = if quick { 10 } else { 1 };
    sqlite(place, COMMITS / scale, ROWS / scale, report)
}

/// A table and a row about as large as a bare job: no index, no trigger.
const TABLE: &str =
    "PRAGMA journal_mode=WAL; CREATE TABLE raw (id INTEGER PRIMARY KEY, source TEXT, destination TEXT) STRICT;";
const ROW: &str = "'registry.example.com/team/application:1', 'mirror.example.com/team/application:1'";

fn sqlite(place: &Place, commits: usize, rows: usize, report: &mut Report) -> Measured<Raw> {
    let database = place.fresh()?;
    let file = database.file();
    sqlite3(&file, TABLE)?;
    let one = format!("BEGIN IMMEDIATE; INSERT INTO raw (source, destination) VALUES ({ROW}); COMMIT;\n");
    let many = one.repeat(commits);
    let timer = Timer::start();
    sqlite3(&file, &many)?;
    let commits_rate = timer.rate(commits);
    let all = format!(
        "BEGIN IMMEDIATE; WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT {rows}) \
         INSERT INTO raw (source, destination) SELECT {ROW} FROM n; COMMIT;"
    );
    let timer = Timer::start();
    sqlite3(&file, &all)?;
    let rows_rate = timer.rate(rows);
    let counted = sqlite3(&file, "SELECT count(*) FROM raw;")?;
    if counted.trim() != (commits + rows).to_string() {
        return Err(format!("raw: {} rows instead of {}", counted.trim(), commits + rows).into());
    }
    let with = json!({"tool": "sqlite3", "journal_mode": "WAL", "synchronous": "FULL", "commits": commits});
    report.add(Figure::new("raw", "raw: commits of one row", commits_rate, "commits/s", with))?;
    let with = json!({"tool": "sqlite3", "journal_mode": "WAL", "synchronous": "FULL", "rows": rows});
    report.add(Figure::new("raw", "raw: rows in one transaction", rows_rate, "rows/s", with))?;
    Ok(Raw { commits: commits_rate, rows: rows_rate })
}
