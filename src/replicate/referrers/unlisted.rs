//! Manifests that refer to others, were put, and that the destination did not put on a list itself: whoever pushes them has to
//! (distribution spec, "Pushing Manifests with Subject"). Noted as they are put, written when the tags are.

use super::end::subject;
use super::list::entry;
use crate::job::{Class, Stage};
use crate::oci::{Digest, Manifest};
use crate::replicate::Error;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most bytes of manifests that are noted: their annotations are kept until the lists are written.
const NOTED_BYTES_LIMIT: usize = 32 * 1024 * 1024;

/// Shared by all clones.
#[derive(Debug, Clone, Default)]
pub(in crate::replicate) struct Unlisted(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    noted: Mutex<Noted>,
    kept: AtomicBool,
}

#[derive(Debug, Default)]
struct Noted {
    /// By subject: what its list must say.
    entries: BTreeMap<Digest, Vec<Value>>,
    bytes: usize,
}

impl Unlisted {
    /// The list of what refers to the manifest's subject must name it. Nothing when it has no subject.
    ///
    /// # Errors
    /// Refused: it is too much to keep in memory.
    pub fn note(&self, manifest: &Manifest) -> Result<(), Error> {
        let Some(subject) = subject(manifest) else { return Ok(()) };
        let mut noted = self.noted();
        noted.bytes = noted.bytes.saturating_add(manifest.bytes.len());
        if noted.bytes > NOTED_BYTES_LIMIT {
            let message = format!("the manifests of the referrers have more than {NOTED_BYTES_LIMIT} bytes together");
            return Err(Error::new(Stage::Transfer, Class::Refused, message));
        }
        noted.entries.entry(subject.digest.clone()).or_default().push(entry(manifest));
        Ok(())
    }

    /// The destination said that it keeps a list itself.
    pub fn saw_kept(&self) {
        self.0.kept.store(true, Ordering::Relaxed);
    }

    /// Whether it ever did.
    pub fn is_kept(&self) -> bool {
        self.0.kept.load(Ordering::Relaxed)
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.noted().entries.is_empty()
    }

    /// All that is noted, by subject; nothing is noted any more.
    pub fn take(&self) -> BTreeMap<Digest, Vec<Value>> {
        std::mem::take(&mut self.noted().entries)
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use serde_json::json;

    fn referrer(padding: usize) -> Manifest {
        let subject = Digest::of(crate::oci::Algorithm::Sha256, b"image");
        let document = json!({
            "schemaVersion": 2, "layers": [], "annotations": { "x": "y".repeat(padding) },
            "subject": { "mediaType": "a/b", "digest": subject.as_str(), "size": 5 },
        });
        Manifest::parse(Bytes::from(document.to_string()), None, None).unwrap()
    }

    #[test]
    fn what_has_a_subject_is_noted_once_and_not_without_end() {
        let unlisted = Unlisted::default();
        let plain = Bytes::from_static(br#"{"schemaVersion":2,"layers":[]}"#);
        unlisted.note(&Manifest::parse(plain, None, None).unwrap()).unwrap();
        assert!(unlisted.is_empty());
        unlisted.note(&referrer(1)).unwrap();
        let taken = unlisted.take();
        assert_eq!(taken.values().map(Vec::len).collect::<Vec<_>>(), [1]);
        assert!(unlisted.is_empty() && unlisted.take().is_empty());
        let large = referrer(NOTED_BYTES_LIMIT / 4);
        assert!((0..3).all(|_| unlisted.note(&large).is_ok()));
        assert_eq!(unlisted.note(&large).unwrap_err().class, Class::Refused);
    }
}
