//! Blobs that are so large that people want to watch each one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// From this size on a blob is watched by itself, bytes: below it, it is over before anybody has read its name.
pub const LARGE_BLOB_BYTES: u64 = 32 * 1024 * 1024;

/// A large blob under way.
#[derive(Debug)]
pub struct LargeBlob {
    /// Its digest.
    pub digest: String,
    /// Its size, bytes.
    pub bytes_total: u64,
    bytes_done: AtomicU64,
}

impl LargeBlob {
    /// More of it has been sent.
    pub fn moved(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of it that have been sent.
    #[must_use]
    pub fn bytes_done(&self) -> u64 {
        self.bytes_done.load(Ordering::Relaxed)
    }
}

/// The large blobs that are under way. Smaller ones never are here.
#[derive(Debug, Default)]
pub struct LargeBlobs(Mutex<Vec<Arc<LargeBlob>>>);

impl LargeBlobs {
    /// A blob of this size begins to be sent; None when it is not large.
    pub fn begin(&self, digest: &impl ToString, bytes_total: u64) -> Option<Arc<LargeBlob>> {
        if bytes_total < LARGE_BLOB_BYTES {
            return None;
        }
        let blob = Arc::new(LargeBlob { digest: digest.to_string(), bytes_total, bytes_done: AtomicU64::new(0) });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(blob.clone());
        Some(blob)
    }

    /// It is no longer under way, for good or not.
    pub fn end(&self, blob: &Arc<LargeBlob>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| !Arc::ptr_eq(blob, other));
    }

    /// Those under way now, the one that began first before the others.
    #[must_use]
    pub fn now(&self) -> Vec<Arc<LargeBlob>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_blobs_are_seen_while_they_are_under_way() {
        let blobs = LargeBlobs::default();
        assert!(blobs.begin(&"small", LARGE_BLOB_BYTES - 1).is_none() && blobs.now().is_empty());
        let one = blobs.begin(&"one", LARGE_BLOB_BYTES).unwrap();
        let two = blobs.begin(&"two", LARGE_BLOB_BYTES).unwrap();
        two.moved(5);
        let seen: Vec<_> = blobs.now().iter().map(|blob| (blob.digest.clone(), blob.bytes_done())).collect();
        assert_eq!(seen, [("one".to_owned(), 0), ("two".to_owned(), 5)]);
        blobs.end(&one);
        assert_eq!(blobs.now().len(), 1);
    }
}
