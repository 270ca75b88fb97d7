//! The lock between writers of one layout.

use super::Error;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

/// How long to wait between two looks at a lock that somebody holds.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// How many looks before giving up: half a minute, where the lock is held for a few milliseconds.
const LOCK_TRIES: u32 = 1500;

/// A held lock; freed when dropped.
#[derive(Debug)]
pub(super) struct Lock {
    /// The file `oci-layout`.
    pub(super) marker: File,
}

/// Waits for the lock of the layout in `dir`, whose file `oci-layout` is open. Asks again and again rather than waiting in
/// the kernel, so that the wait ends when nobody wants the lock any more.
pub(super) async fn exclusive(marker: File, dir: &Path) -> Result<Lock, Error> {
    for _ in 0..LOCK_TRIES {
        match marker.try_lock() {
            Ok(()) => return Ok(Lock { marker }),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
            Err(TryLockError::Error(cause)) => {
                return Err(Error::write(&format!("layout {} (lock of its file oci-layout)", dir.display()), cause));
            }
        }
    }
    let dir = dir.display();
    Err(Error::retry(format!("another program has kept the lock of layout {dir} (file oci-layout) for too long")))
}
