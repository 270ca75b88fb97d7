//! File descriptors: for how many copies at a time they suffice.
//!
//! A copy that meets the limit of open files fails like one whose network failed: it is repeated, and may run out of attempts
//! although nothing is wrong with it. So a worker begins no more copies than it has descriptors for. The limit is not raised
//! beyond what is needed: programs that we start inherit it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the process needs besides its copies: streams, runtime, the database's connections with their logs, locks, sweeps,
/// lookups of names. A test counts those of a worker.
pub const BASE: u64 = 32;

/// How many copies at a time the limit of open files allows, `wanted` at most. The soft limit is raised for that as far as the
/// hard one allows.
///
/// # Errors
/// It does not suffice for one copy; the message says what to do.
pub fn copies_at_a_time(wanted: usize, blobs_at_once: usize) -> Result<usize, String> {
    let limits = getrlimit(Resource::Nofile);
    let needed = needed(wanted, blobs_at_once);
    let mut limit = limits.current.unwrap_or(u64::MAX);
    let hard = limits.maximum.unwrap_or(u64::MAX);
    if limit < needed && limit < hard {
        let raised = needed.min(hard);
        if setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limits.maximum }).is_ok() {
            limit = raised;
        }
    }
    let copies = fits(limit, wanted, blobs_at_once);
    if copies == 0 && wanted > 0 {
        return Err(format!(
            "the limit of open files is {limit}, one copy at a time needs {}: raise it (ulimit -n, LimitNOFILE=)",
            self::needed(1, blobs_at_once)
        ));
    }
    if copies < wanted {
        tracing::warn!(limit, copies, wanted, "the limit of open files allows fewer copies at a time");
    }
    Ok(copies)
}

/// Each blob has a connection to its source and one to its destination; a manifest and a file of a layout come on top.
fn of_a_copy(blobs_at_once: usize) -> u64 {
    u64::try_from(blobs_at_once).unwrap_or(u64::MAX).saturating_mul(2).saturating_add(2)
}

fn needed(copies: usize, blobs_at_once: usize) -> u64 {
    u64::try_from(copies).unwrap_or(u64::MAX).saturating_mul(of_a_copy(blobs_at_once)).saturating_add(BASE)
}

fn fits(limit: u64, wanted: usize, blobs_at_once: usize) -> usize {
    let copies = limit.saturating_sub(BASE) / of_a_copy(blobs_at_once);
    usize::try_from(copies).unwrap_or(usize::MAX).min(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_what_is_needed() {
        for (limit, wanted, fitting) in
            [(64, 32, 3), (41, 8, 0), (42, 8, 1), (1024, 99, 99), (1024, 100, 99), (u64::MAX, 256, 256), (0, 1, 0)]
        {
            assert_eq!(fits(limit, wanted, 4), fitting, "{limit}");
            assert!(needed(fitting, 4) <= limit.max(BASE));
        }
    }
}
