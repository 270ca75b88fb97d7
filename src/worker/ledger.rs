//! The engine's memory, kept in the database for one attempt.

use super::seal::Seal;
use crate::oci::{Digest, Repository};
use crate::replicate::{Ledger, Seen, UploadTurn, Uploaded};
use crate::store::{self, BlobPlace, Fence, Store, UploadState};
use crate::tempfiles::BoxFuture;
use std::sync::Arc;

/// The ledger as one attempt sees it.
pub(super) struct AttemptLedger {
    pub store: Store,
    pub fence: Fence,
    pub seal: Arc<Seal>,
}

impl AttemptLedger {
    async fn taken(&self, blob: BlobPlace) -> Result<UploadTurn, store::Error> {
        let context = context(&blob);
        Ok(match self.store.upload_take(blob, self.fence).await? {
            store::UploadTurn::Busy => UploadTurn::Busy,
            store::UploadTurn::Mine(state) => UploadTurn::Mine(state.and_then(|state| {
                let UploadState { location, committed, midstate } = state;
                let location = self.seal.open(&location, &context)?;
                Some(Uploaded { location, committed, midstate })
            })),
        })
    }
}

impl Ledger for AttemptLedger {
    fn take<'a>(&'a self, repository: &'a Repository, digest: &'a Digest) -> BoxFuture<'a, UploadTurn> {
        Box::pin(async move {
            self.taken(place(repository, digest)).await.unwrap_or_else(|error| {
                tracing::warn!(%digest, %error, "it is not known how far the blob had come, it begins anew");
                UploadTurn::Mine(None)
            })
        })
    }

    fn note<'a>(&'a self, repository: &'a Repository, digest: &'a Digest, uploaded: Uploaded) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            let blob = place(repository, digest);
            let Some(location) = self.seal.seal(&uploaded.location, &context(&blob)) else { return true };
            let Uploaded { committed, midstate, .. } = uploaded;
            let state = UploadState { location, committed, midstate };
            self.store.upload_note(blob, self.fence, state).await.unwrap_or_else(|error| {
                tracing::warn!(%digest, %error, "how far the blob has come could not be noted");
                true
            })
        })
    }

    fn end<'a>(&'a self, repository: &'a Repository, digest: &'a Digest) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if let Err(error) = self.store.upload_end(place(repository, digest), self.fence).await {
                tracing::warn!(%digest, %error, "that the blob has been brought could not be noted");
            }
        })
    }

    fn seen<'a>(&'a self, repository: &'a Repository, digests: &'a [Digest]) -> BoxFuture<'a, Vec<Seen>> {
        Box::pin(async move {
            let digests = texts(digests);
            match self.store.blobs_seen(repository.host(), repository.name(), &digests).await {
                Ok(seen) => {
                    let seen = seen.into_iter();
                    seen.map(|seen| Seen { digest: seen.digest, here: seen.here, elsewhere: seen.elsewhere }).collect()
                }
                Err(error) => {
                    tracing::warn!(%repository, %error, "it is not known where blobs were seen");
                    Vec::new()
                }
            }
        })
    }

    fn profile<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Option<String>> {
        Box::pin(async move {
            self.store.registry_profile(host).await.unwrap_or_else(|error| {
                tracing::warn!(host, %error, "it is not known what the registry has shown of itself");
                None
            })
        })
    }

    fn shown<'a>(&'a self, host: &'a str, profile: &'static str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if let Err(error) = self.store.registry_shown(host, profile).await {
                tracing::warn!(host, %error, "what the registry has shown of itself could not be noted");
            }
        })
    }

    fn lost<'a>(&'a self, repository: &'a Repository, digests: &'a [Digest]) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let digests = texts(digests);
            if let Err(error) = self.store.blobs_lost(repository.host(), repository.name(), &digests).await {
                tracing::warn!(%repository, %error, "that blobs are not there any more could not be noted");
            }
        })
    }
}

fn texts(digests: &[Digest]) -> Vec<String> {
    digests.iter().map(ToString::to_string).collect()
}

fn place(repository: &Repository, digest: &Digest) -> BlobPlace {
    let (registry, repository) = (repository.host().to_owned(), repository.name().to_owned());
    BlobPlace { registry, repository, digest: digest.to_string() }
}

/// What a Location is sealed for: a row that was copied to another blob does not open.
fn context(blob: &BlobPlace) -> String {
    let BlobPlace { registry, repository, digest } = blob;
    format!("upload {registry}/{repository}@{digest}")
}
