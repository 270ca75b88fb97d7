//! File descriptors: for how many copies at a time they suffice.
//!
//! A copy that meets the limit of open files fails like one whose network failed: it is repeated, and may run out of attempts
//! although nothing is wrong with it. So a worker begins no more copies than it has descriptors for. The limit is not raised
//! beyond what is needed: programs that we start inherit it.

use crate::replicate::Limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the process needs besides its copies: streams, runtime, the database's connections with their logs, locks, sweeps,
/// lookups of names. A test counts those of a worker.
pub const BASE: u64 = 32;

/// How many copies at a time the limit of open files allows, `wanted` at most. The soft limit is raised for that as far as the
/// hard one allows. What is left decides how many small blobs move beside the large ones, `limits.small_blobs_of_all` at most.
///
/// # Errors
/// It does not suffice for one copy; the message says what to do.
pub fn copies_at_a_time(wanted: usize, limits: &mut Limits) -> Result<usize, String> {
    let rlimit = getrlimit(Resource::Nofile);
    let (blobs_at_once, small) = (limits.blobs_at_once, limits.small_blobs_of_all);
    let needed = needed(wanted, blobs_at_once, small);
    let mut limit = rlimit.current.unwrap_or(u64::MAX);
    let hard = rlimit.maximum.unwrap_or(u64::MAX);
    if limit < needed && limit < hard {
        let raised = needed.min(hard);
        if setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: rlimit.maximum }).is_ok() {
            limit = raised;
        }
    }
    let (copies, small) = fits(limit, wanted, blobs_at_once, small);
    if copies == 0 && wanted > 0 {
        return Err(format!(
            "the limit of open files is {limit}, one copy at a time needs {}: raise it (ulimit -n, LimitNOFILE=)",
            self::needed(1, blobs_at_once, 1)
        ));
    }
    if copies < wanted {
        tracing::warn!(limit, copies, wanted, "the limit of open files allows fewer copies at a time");
    }
    limits.small_blobs_of_all = small;
    Ok(copies)
}

/// A blob has a connection to its source and one to its destination.
const OF_A_BLOB: u64 = 2;

/// A manifest and a file of a layout come on top of the blobs.
fn of_a_copy(blobs_at_once: usize) -> u64 {
    number(blobs_at_once).saturating_mul(OF_A_BLOB).saturating_add(2)
}

fn needed(copies: usize, blobs_at_once: usize, small: usize) -> u64 {
    let blobs = number(small).saturating_mul(OF_A_BLOB);
    number(copies).saturating_mul(of_a_copy(blobs_at_once)).saturating_add(blobs).saturating_add(BASE)
}

/// How many copies, and how many small blobs of them all, at least one.
fn fits(limit: u64, wanted: usize, blobs_at_once: usize, small: usize) -> (usize, usize) {
    let room = limit.saturating_sub(BASE);
    let copies = room.saturating_sub(OF_A_BLOB) / of_a_copy(blobs_at_once);
    let copies = usize::try_from(copies).unwrap_or(usize::MAX).min(wanted);
    let left = room.saturating_sub(number(copies).saturating_mul(of_a_copy(blobs_at_once))) / OF_A_BLOB;
    (copies, usize::try_from(left).unwrap_or(usize::MAX).min(small).max(1))
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_what_is_needed() {
        for (limit, wanted, fitting) in [
            (64, 32, (3, 1)),
            (43, 8, (0, 5)),
            (44, 8, (1, 1)),
            (110, 4, (4, 19)),
            (1023, 99, (98, 5)),
            (1024, 99, (99, 1)),
            (1024, 16, (16, 64)),
            (u64::MAX, 256, (256, 64)),
            (0, 1, (0, 1)),
        ] {
            assert_eq!(fits(limit, wanted, 4, 64), fitting, "{limit}");
            let (copies, small) = fitting;
            assert!(copies == 0 || needed(copies, 4, small) <= limit);
        }
    }
}
