//! What a real registry was asked, read from its logs.
//!
//! The access log has a line for every request, but it is written when the request is over, perhaps after the client has
//! its answer. The debug log has a line when a request begins, always before the answer. So the access log is
//! complete as soon as it has a line for everything that was begun.

use super::registry::Registry;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// How long requests that are still being answered are waited for; then they are left out.
const SETTLE: Duration = Duration::from_secs(5);

/// A line of the access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// Path with query.
    pub path: String,
    pub status: u16,
}

impl Registry {
    /// All finished requests so far, earlier runs included, in the order they were finished.
    pub fn requests(&self) -> Vec<Request> {
        let logs = self.logs();
        if let Some((access, log)) = logs.last() {
            super::within(SETTLE, || is_settled(&read_access(access), &read(log)).then_some(()));
        }
        logs.iter().flat_map(|(access, _)| read_access(access)).collect()
    }

    /// Number of requests with this method (`*`: any) whose path contains `path_part`.
    pub fn count(&self, method: &str, path_part: &str) -> usize {
        let fits = |seen: &Request| (method == "*" || seen.method == method) && seen.path.contains(path_part);
        self.requests().iter().filter(|seen| fits(seen)).count()
    }

    /// What the process wrote to its log in its last run, JSON lines.
    pub fn log(&self) -> String {
        self.logs().last().map(|(_, log)| read(log)).unwrap_or_default()
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn read_access(path: &Path) -> Vec<Request> {
    read(path).lines().filter_map(parse_line).collect()
}

/// Whether everything that was begun is in the access log.
fn is_settled(finished: &[Request], log: &str) -> bool {
    let begun: Vec<(String, String)> = log.lines().filter_map(parse_begin).collect();
    begun.iter().all(|(method, path)| {
        let begun = begun.iter().filter(|(m, p)| m == method && p == path).count();
        let same = |request: &&Request| request.method == *method && request.path == *path;
        finished.iter().filter(same).count() >= begun
    })
}

/// Method and path, when the line says that a request begins.
fn parse_begin(line: &str) -> Option<(String, String)> {
    let value: Value = serde_json::from_str(line).ok()?;
    let text = |field: &str| value[field].as_str().map(str::to_owned);
    let begins = value["msg"] == "authorizing request";
    begins.then_some((text("http.request.method")?, text("http.request.uri")?))
}

/// One line of Apache's combined log.
fn parse_line(line: &str) -> Option<Request> {
    let mut parts = line.split('"');
    let mut request = parts.nth(1)?.split(' ');
    let status = parts.next()?.split_whitespace().next()?.parse().ok()?;
    let (method, path) = (request.next()?.to_owned(), request.next()?.to_owned());
    Some(Request { method, path, status })
}
