//! The machine: the state folder, its file system, free space, the clock.

use super::Check;
use crate::cli::Context;
use crate::cli::output::bytes;
use crate::cli::when::spoken;
use crate::clock::UnixMillis;
use crate::store::DatabaseUrl;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// Less free space than this, bytes: a database and some temporary files may not fit any more.
const SPACE_FAIL_BYTES: u64 = 64 * 1024 * 1024;
/// Less free space than this, bytes, is worth a look.
const SPACE_WARN_BYTES: u64 = 1024 * 1024 * 1024;
/// Years that a clock may show: outside, certificates and Retry-After make no sense.
const YEARS: std::ops::Range<i64> = 2024..2100;
/// How far a new file's time may be from the clock's: the kernel's own file times lag a tick or so.
const CLOCK_SKEW_MOST: Duration = Duration::from_secs(2);
/// Length of a year, milliseconds.
const YEAR_MS: i64 = 31_556_952_000;

/// The state folder exists, is private, and takes files.
pub fn state_dir(context: &Context) -> Check {
    const NAME: &str = "state folder";
    let path = &context.config.state_dir;
    let shown = path.display();
    if let Err(error) = context.make_state_dir() {
        return Check::fail(NAME, error.message, "name another one with --state-dir");
    }
    if let Err(error) = tempfile::tempfile_in(path) {
        return Check::fail(NAME, format!("{shown} takes no file: {error}"), "check its owner, mode and file system");
    }
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
            let mode = metadata.permissions().mode() & 0o777;
            Check::warn(NAME, format!("{shown} has mode {mode:04o}: others may look into it"), "chmod 0700 it")
        }
        Ok(_) => Check::ok(NAME, format!("{shown} is private and can be written")),
        Err(error) => Check::fail(NAME, format!("{shown}: {error}"), "check its owner and mode"),
    }
}

/// The state folder is on this machine's own disk.
pub fn file_system(path: &Path) -> Check {
    const NAME: &str = "file system";
    let kind = match rustix::fs::statfs(path) {
        Ok(stat) => stat.f_type,
        Err(error) => {
            return Check::fail(NAME, format!("{}: {error}", path.display()), "check that it exists");
        }
    };
    // The kernel's numbers are 32 bits wide, whatever the width of the field is.
    let kind = u32::try_from(kind & 0xffff_ffff).unwrap_or(0);
    match network_name(kind) {
        Some(name) => Check::fail(
            NAME,
            format!(
                "{} is on a network file system ({name}): locks and memory maps of SQLite do not work there",
                path.display()
            ),
            "use --database and --state-dir on a local disk",
        ),
        None if kind == FUSE => Check::warn(
            NAME,
            format!("{} is on FUSE, which may be a network file system", path.display()),
            "make sure that it is local",
        ),
        None => Check::ok(NAME, format!("{} is on a local file system (type {kind:#x})", path.display())),
    }
}

/// `statfs` type of file systems in user space.
const FUSE: u32 = 0x6573_5546;

/// The name of a network file system by its `statfs` type (linux/magic.h and the file systems' sources).
const fn network_name(kind: u32) -> Option<&'static str> {
    match kind {
        0x6969 => Some("nfs"),
        0x517b => Some("smb"),
        0xff53_4d42 => Some("cifs"),
        0xfe53_4d42 => Some("smb2"),
        0x0102_1997 => Some("9p"),
        0x00c3_6400 => Some("ceph"),
        0x5346_414f => Some("afs"),
        0x0bd0_0bd0 => Some("lustre"),
        0x0116_1970 => Some("gfs2"),
        0x7461_636f => Some("ocfs2"),
        0x7375_7245 => Some("coda"),
        _ => None,
    }
}

/// There is room.
pub fn free_space(path: &Path) -> Check {
    const NAME: &str = "free space";
    let free = match rustix::fs::statvfs(path) {
        Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
        Err(error) => {
            return Check::fail(NAME, format!("{}: {error}", path.display()), "check that it exists");
        }
    };
    let message = format!("{} free at {}", bytes(free), path.display());
    match free {
        0..SPACE_FAIL_BYTES => Check::fail(NAME, message, "make room: the database may not take another job"),
        SPACE_FAIL_BYTES..SPACE_WARN_BYTES => Check::warn(NAME, message, "make room before it runs out"),
        _ => Check::ok(NAME, message),
    }
}

/// The clock shows a time that makes sense, and the same as the file system.
pub fn clock(context: &Context) -> Vec<Check> {
    const NAME: &str = "clock";
    let now = context.clock.now();
    let year = 1970 + now.0.div_euclid(YEAR_MS);
    if !YEARS.contains(&year) {
        let message = format!("it shows {}", now.to_rfc3339());
        return vec![Check::fail(NAME, message, "set it: certificates and schedules depend on it")];
    }
    let new_file = tempfile::tempfile_in(&context.config.state_dir).and_then(|file| file.metadata()?.modified());
    let old_file = match &context.config.database {
        DatabaseUrl::Sqlite(database) => std::fs::metadata(database).and_then(|metadata| metadata.modified()).ok(),
        DatabaseUrl::Postgres(_) => None,
    };
    let time = |time: std::time::SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    };
    let mut checks = Vec::new();
    if let Ok(created) = new_file.map(time) {
        let skew = context.clock.now().since(created).max(created.since(now));
        if skew > CLOCK_SKEW_MOST {
            let message = format!("it is {} away from the times that the file system writes", spoken(skew));
            checks.push(Check::warn(NAME, message, "is the state folder on another machine, or is the time faked?"));
        }
    }
    if let Some(written) = old_file.map(time)
        && written.since(now) > CLOCK_SKEW_MOST
    {
        let message =
            format!("the database was written {} in the future: the clock went back", spoken(written.since(now)));
        checks.push(Check::warn(NAME, message, "set it, and check time synchronisation"));
    }
    if checks.is_empty() {
        checks.push(Check::ok(NAME, now.to_rfc3339()));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Status;

    #[test]
    fn this_machine_is_well() {
        let dir = tempfile::tempdir().unwrap();
        assert_ne!(file_system(dir.path()).status, Status::Fail);
        assert_ne!(free_space(dir.path()).status, Status::Fail);
        assert_eq!(free_space(&dir.path().join("absent")).status, Status::Fail);
    }

    #[test]
    fn network_file_systems_have_names() {
        assert_eq!(network_name(0x6969), Some("nfs"));
        assert_eq!(network_name(0xef53), None);
    }
}
