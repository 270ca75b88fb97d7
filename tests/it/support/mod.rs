//! The rig all integration tests stand on: registries, images, faults, and a driver for the real binary.
//!
//! Nothing here uses the crate under test: digests, JSON and HTTP are computed by other means, so that a fault in the
//! program cannot hide behind the same fault in its check. Everything is owned by a value and ends when that value is
//! dropped; no test depends on a port, a file or a process of another.
//!
//! Servers of the rig run in threads of their own, so the calls here may block, also inside an async test.

#![allow(dead_code, reason = "the rig offers more than the tests of the day use")]

pub mod binary;
pub mod chaos;
pub mod cluster;
pub mod content;
pub mod database;
pub mod disk;
pub mod fake;
pub mod http;
pub mod image;
pub mod layer;
pub mod pgbouncer;
pub mod power;
pub mod proxy;
pub mod registry;
pub mod registry_log;
pub mod registry_storage;
pub mod server;
pub mod skopeo;
pub mod tls;
pub mod token_server;
pub mod trace;
pub mod wall_clock;

use std::path::PathBuf;
use std::time::Duration;

/// How long the rig waits for something that must happen before it calls the test failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often a condition is looked at that nobody can notify us of (another process), while `PATIENCE` lasts.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The path of a tool the test needs, or None after saying loudly that the test is skipped.
///
/// With `FREIGHTLINER_TEST_REQUIRE=1` (`scripts/test` sets it) a missing tool is a failure instead.
pub fn need(tool: &str) -> Option<PathBuf> {
    let found = look_up(tool);
    if found.is_none() {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("a test");
        let message = format!("SKIPPED {test}: {tool} is not installed (scripts/test installs it)");
        assert!(std::env::var_os("FREIGHTLINER_TEST_REQUIRE").is_none_or(|value| value != "1"), "{message}");
        eprintln!("{message}");
    }
    found
}

/// Looks a program up in PATH, and where daemons live when PATH does not name that.
fn look_up(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(tool))
        .find(|candidate| candidate.is_file())
}

/// Waits until `look` finds something, at most `PATIENCE`; then panics with `what`.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, look).unwrap_or_else(|| panic!("waited {PATIENCE:?} in vain for {what}"))
}

/// Waits until `look` finds something, at most `limit`.
pub fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = tokio::time::Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if start.elapsed() >= limit {
            return None;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Seconds since 1970, for tokens.
pub fn unix_seconds() -> i64 {
    unix_millis() / 1000
}

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the rig must not borrow the clock of the crate under test")]
pub fn unix_millis() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(since.as_millis()).expect("a clock before the end of time")
}
