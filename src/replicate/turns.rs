//! One upload of a blob to a registry at a time, among all jobs of a process.
//!
//! Tags of one repository share most of their blobs, and repositories share bases. Two jobs that bring the same one at the
//! same time would read and send it twice, and a registry that writes its link to a blob anew with each upload may for a
//! moment not find it when a manifest names it. So the second waits, and then finds the blob there, or mounts it. Across
//! processes nothing holds them apart: what a registry answers in such a moment is tried again.

use crate::oci::{Digest, Repository};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

/// Entries after which those that nobody holds are dropped.
const CLEAN_FROM: usize = 1024;

/// By host and blob.
type Held = HashMap<(String, Digest), Weak<Turn<()>>>;

/// Who brings which blob where. Shared by all clones.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns(Arc<Mutex<Held>>);

impl Turns {
    /// Waits until nobody else brings this blob to that registry; nobody will while the guard lives. Safe to drop while it
    /// waits.
    pub async fn take(&self, repository: &Repository, digest: &Digest) -> OwnedMutexGuard<()> {
        self.of(repository, digest).lock_owned().await
    }

    fn of(&self, repository: &Repository, digest: &Digest) -> Arc<Turn<()>> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= CLEAN_FROM {
            held.retain(|_, turn| turn.strong_count() > 0);
        }
        let key = (repository.host().to_owned(), digest.clone());
        if let Some(turn) = held.get(&key).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(Turn::new(()));
        held.insert(key, Arc::downgrade(&turn));
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;
    use futures_util::FutureExt;

    #[test]
    fn the_same_blob_waits_and_others_do_not() {
        let turns = Turns::default();
        let repository = |text| Repository::parse(text).unwrap();
        let (app, lib) = (repository("a.example/app"), repository("a.example/lib"));
        let blob = |text: &str| Digest::of(Algorithm::Sha256, text.as_bytes());
        let first = turns.take(&app, &blob("x")).now_or_never().expect("nobody has it");
        assert!(turns.take(&repository("b.example/app"), &blob("x")).now_or_never().is_some());
        assert!(turns.take(&lib, &blob("x")).now_or_never().is_none(), "it can be mounted soon");
        assert!(turns.take(&app, &blob("y")).now_or_never().is_some());
        assert!(turns.take(&app, &blob("x")).now_or_never().is_none(), "the first has it");
        drop(first);
        assert!(turns.take(&app, &blob("x")).now_or_never().is_some());
    }

    #[test]
    fn what_nobody_holds_is_dropped() {
        let turns = Turns::default();
        let app = Repository::parse("a.example/app").unwrap();
        for number in 0..3 * CLEAN_FROM {
            let digest = Digest::of(Algorithm::Sha256, number.to_string().as_bytes());
            assert!(turns.take(&app, &digest).now_or_never().is_some());
        }
        assert!(turns.0.lock().unwrap().len() <= CLEAN_FROM);
    }
}
