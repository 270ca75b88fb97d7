//! What the ledger says of a destination, and how far it is believed.
//!
//! A blob that was seen in the repository need not be asked for where the registry itself looks at all that a manifest names:
//! the manifest goes up at once, and a refusal says that the memory is wrong. The blobs that it names are forgotten then, and
//! brought like any others; all of them when it names none, or when that did not help. A blob that was seen elsewhere on the
//! registry is asked to be mounted from there, which costs nothing.

use super::Error;
use super::blob::Way;
use super::destination::Place;
use super::plan::Blob;
use super::transfer::bring_all;
use crate::job::How;
use crate::oci::{Digest, Repository};
use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// Blobs that are believed to be there until a manifest that names them is refused.
#[derive(Clone)]
pub(super) struct Believed {
    way: Way,
    repository: Repository,
    blobs: Vec<Blob>,
}

impl Believed {
    /// Brings those of them that a refusal names; it may also name others.
    ///
    /// # Errors
    /// As [`bring_all`].
    pub async fn bring_named(&mut self, missing: &[Digest]) -> Result<(), Error> {
        let missing: BTreeSet<&Digest> = missing.iter().collect();
        let is_named = |blob: &Blob| missing.contains(&blob.digest);
        let (named, rest): (Vec<Blob>, Vec<Blob>) = self.blobs.drain(..).partition(is_named);
        self.blobs = rest;
        if named.is_empty() {
            return Ok(());
        }
        self.forget(&named).await;
        bring_all(&self.way, named).await
    }

    /// Brings all of them after all.
    ///
    /// # Errors
    /// As [`bring_all`].
    pub async fn bring_all(self) -> Result<(), Error> {
        self.forget(&self.blobs).await;
        bring_all(&self.way, self.blobs).await
    }

    /// None of them is believed to be there any more, nor anything else in this attempt.
    pub async fn refuted(&self) {
        self.forget(&self.blobs).await;
        self.way.attempt.distrust.store(true, Ordering::Relaxed);
    }

    /// The registry does not have these.
    async fn forget(&self, blobs: &[Blob]) {
        let digests: Vec<Digest> = blobs.iter().map(|blob| blob.digest.clone()).collect();
        tracing::info!(repository = %self.repository, blobs = digests.len(), "the registry has lost blobs that were seen there");
        let Way { attempt, mounting, ledger, .. } = &self.way;
        for blob in blobs {
            mounting.not_in(&self.repository, &blob.digest);
            attempt.progress.missed(blob.size);
        }
        let gone: BTreeSet<&str> = digests.iter().map(Digest::as_str).collect();
        {
            let mut transfers = attempt.transfers.lock().unwrap_or_else(PoisonError::into_inner);
            transfers.retain(|transfer| !gone.contains(transfer.digest.as_str()));
        }
        ledger.lost(&self.repository, &digests).await;
    }
}

impl Way {
    /// Which of these blobs are believed to be there; the others are returned as well. No request is sent.
    pub(super) async fn believed(&self, blobs: Vec<Blob>, believing: bool) -> (Option<Believed>, Vec<Blob>) {
        let Place::Registry { session, reference } = &self.destination.place else { return (None, blobs) };
        let repository = &reference.repository;
        if session.profile(repository).name == "generic"
            && let Some(name) = self.ledger.profile(repository.host()).await
        {
            session.remember_profile(repository, &name);
        }
        let digests: Vec<Digest> = blobs.iter().map(|blob| blob.digest.clone()).collect();
        let mut here = BTreeSet::new();
        for seen in self.ledger.seen(repository, &digests).await {
            let Ok(digest) = seen.digest.parse::<Digest>() else { continue };
            if let Some(name) = seen.elsewhere
                && let Ok(holder) = Repository::parse(&format!("{}/{name}", repository.host()))
            {
                self.mounting.holds(&holder, &digest);
            }
            if seen.here {
                here.insert(digest);
            }
        }
        here.extend(digests.into_iter().filter(|digest| self.mounting.is_in(repository, digest)));
        let trusts = believing && self.trusting && !self.attempt.distrust.load(Ordering::Relaxed);
        if !trusts || here.is_empty() || !session.profile(repository).verifies_manifests {
            return (None, blobs);
        }
        let (there, missing): (Vec<Blob>, Vec<Blob>) = blobs.into_iter().partition(|blob| here.contains(&blob.digest));
        for blob in &there {
            self.record(blob, How::Present);
        }
        (Some(Believed { way: self.clone(), repository: repository.clone(), blobs: there }), missing)
    }

    /// Writes down what the destination has shown of itself meanwhile.
    pub(super) async fn note_profile(&self, before: &str) {
        let Place::Registry { session, reference } = &self.destination.place else { return };
        let profile = session.profile(&reference.repository);
        if profile.name != before {
            self.ledger.shown(reference.repository.host(), profile.name).await;
        }
    }

    /// The name of the destination's profile; empty for a layout.
    pub(super) fn profile_name(&self) -> &'static str {
        match &self.destination.place {
            Place::Registry { session, reference } => session.profile(&reference.repository).name,
            Place::Layout { .. } => "",
        }
    }
}
