//! What is remembered of destinations.

use super::Sqlite;
use super::writer::Lane;
use crate::clock::UnixMillis;
use crate::store::rows::Columns;
use crate::store::statements as sql;
use crate::store::{BlobPlace, BlobSeen, Error, Fence, UploadState, UploadTurn};

impl Sqlite {
    pub(in crate::store) async fn upload_take(&self, blob: BlobPlace, fence: Fence) -> Result<UploadTurn, Error> {
        let now = self.inner.clock.now().0;
        self.write(Lane::Control, move |connection| {
            let BlobPlace { registry, repository, digest } = blob;
            let take = (registry, repository, digest, fence.job, fence.epoch, now);
            let state = connection.first(sql::UPLOAD_TAKE, take, |row| crate::store::rows::upload(row))?;
            Ok(state.map_or(UploadTurn::Busy, UploadTurn::Mine))
        })
        .await
    }

    pub(in crate::store) async fn upload_note(
        &self,
        blob: BlobPlace,
        fence: Fence,
        state: UploadState,
    ) -> Result<bool, Error> {
        let now = self.inner.clock.now().0;
        self.write(Lane::Control, move |connection| {
            let BlobPlace { registry, repository, digest } = blob;
            let committed = i64::try_from(state.committed).unwrap_or(i64::MAX);
            let (location, midstate) = (state.location, state.midstate);
            let note = (registry, repository, digest, fence.job, fence.epoch, location, committed, midstate, now);
            Ok(connection.run(sql::UPLOAD_NOTE, note)? > 0)
        })
        .await
    }

    pub(in crate::store) async fn upload_end(&self, blob: BlobPlace, fence: Fence) -> Result<(), Error> {
        self.write(Lane::Control, move |connection| {
            let BlobPlace { registry, repository, digest } = blob;
            connection.run(sql::UPLOAD_END, (registry, repository, digest, fence.job, fence.epoch)).map(|_| ())
        })
        .await
    }

    pub(in crate::store) async fn blobs_seen(
        &self,
        registry: &str,
        repository: &str,
        digests: &[String],
    ) -> Result<Vec<BlobSeen>, Error> {
        let digests = serde_json::json!(digests).to_string();
        let look = sqlx::query(sql::BLOBS_SEEN).bind(registry).bind(repository).bind(digests);
        look.fetch_all(&self.inner.readers).await?.iter().map(crate::store::rows::blob_seen).collect()
    }

    pub(in crate::store) async fn blobs_lost(
        &self,
        registry: &str,
        repository: &str,
        digests: &[String],
    ) -> Result<(), Error> {
        let lost = (registry.to_owned(), repository.to_owned(), serde_json::json!(digests).to_string());
        self.write(Lane::Control, move |connection| connection.run(sql::BLOBS_LOST, lost).map(|_| ())).await
    }

    pub(in crate::store) async fn registry_profile(&self, registry: &str) -> Result<Option<String>, Error> {
        let row = sqlx::query(sql::REGISTRY_PROFILE).bind(registry).fetch_optional(&self.inner.readers).await?;
        row.map(|row| row.text("profile")).transpose()
    }

    pub(in crate::store) async fn registry_shown(&self, registry: &str, profile: &str) -> Result<(), Error> {
        let shown = (registry.to_owned(), profile.to_owned());
        self.write(Lane::Control, move |connection| connection.run(sql::REGISTRY_SHOWN, shown).map(|_| ())).await
    }

    pub(in crate::store) async fn ledger_trim(
        &self,
        uploads_before: UnixMillis,
        blobs_before: UnixMillis,
        limit: u32,
    ) -> Result<u64, Error> {
        self.write(Lane::Bulk, move |connection| {
            let uploads = connection.run(sql::UPLOADS_TRIM, (uploads_before.0, i64::from(limit)))?;
            Ok(uploads + connection.run(sql::BLOBS_TRIM, (blobs_before.0, i64::from(limit)))?)
        })
        .await
    }
}
