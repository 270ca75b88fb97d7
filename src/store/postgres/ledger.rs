//! What is remembered of destinations.

use super::connect::{Again, Statement};
use super::{Postgres, statements as sql};
use crate::clock::UnixMillis;
use crate::store::rows::{self, Columns};
use crate::store::{BlobPlace, BlobSeen, Error, Fence, UploadState, UploadTurn};

impl Postgres {
    pub(in crate::store) async fn upload_take(&self, blob: BlobPlace, fence: Fence) -> Result<UploadTurn, Error> {
        let statement = owned(sql::UPLOAD_TAKE, &blob, fence).bind(self.inner.now());
        let rows = self.inner.control.rows(Again::Harmless, &statement).await?;
        rows.first().map_or(Ok(UploadTurn::Busy), |row| Ok(UploadTurn::Mine(rows::upload(row)?)))
    }

    pub(in crate::store) async fn upload_note(
        &self,
        blob: BlobPlace,
        fence: Fence,
        state: UploadState,
    ) -> Result<bool, Error> {
        let statement = owned(sql::UPLOAD_NOTE, &blob, fence)
            .bind(state.location)
            .bind(i64::try_from(state.committed).unwrap_or(i64::MAX))
            .bind(state.midstate)
            .bind(self.inner.now());
        Ok(!self.inner.control.rows(Again::Harmless, &statement).await?.is_empty())
    }

    pub(in crate::store) async fn upload_end(&self, blob: BlobPlace, fence: Fence) -> Result<(), Error> {
        self.inner.control.rows(Again::Harmless, &owned(sql::UPLOAD_END, &blob, fence)).await?;
        Ok(())
    }

    pub(in crate::store) async fn blobs_seen(
        &self,
        registry: &str,
        repository: &str,
        digests: &[String],
    ) -> Result<Vec<BlobSeen>, Error> {
        let statement =
            Statement::new(sql::BLOBS_SEEN).bind_text(registry).bind_text(repository).bind(digests.to_vec());
        let rows = self.inner.readers.rows(Again::Harmless, &statement).await?;
        rows.iter().map(rows::blob_seen).collect()
    }

    pub(in crate::store) async fn blobs_lost(
        &self,
        registry: &str,
        repository: &str,
        digests: &[String],
    ) -> Result<(), Error> {
        let statement =
            Statement::new(sql::BLOBS_LOST).bind_text(registry).bind_text(repository).bind(digests.to_vec());
        self.inner.control.rows(Again::Harmless, &statement).await?;
        Ok(())
    }

    pub(in crate::store) async fn registry_profile(&self, registry: &str) -> Result<Option<String>, Error> {
        let statement = Statement::new(sql::REGISTRY_PROFILE).bind_text(registry);
        let rows = self.inner.readers.rows(Again::Harmless, &statement).await?;
        rows.first().map(|row| row.text("profile")).transpose()
    }

    pub(in crate::store) async fn registry_shown(&self, registry: &str, profile: &str) -> Result<(), Error> {
        let statement = Statement::new(sql::REGISTRY_SHOWN).bind_text(registry).bind_text(profile);
        self.inner.control.rows(Again::Harmless, &statement).await?;
        Ok(())
    }

    pub(in crate::store) async fn ledger_trim(
        &self,
        uploads_before: UnixMillis,
        blobs_before: UnixMillis,
        limit: u32,
    ) -> Result<u64, Error> {
        let mut trimmed = 0;
        for (statement, before) in [(sql::UPLOADS_TRIM, uploads_before), (sql::BLOBS_TRIM, blobs_before)] {
            let statement = Statement::new(statement).bind(before.0).bind(i64::from(limit));
            trimmed += self.inner.bulk.row(&statement).await?.count("trimmed")?;
        }
        Ok(trimmed)
    }
}

/// A statement about the upload of an attempt.
fn owned(text: &'static str, blob: &BlobPlace, fence: Fence) -> Statement {
    Statement::new(text)
        .bind_text(&blob.registry)
        .bind_text(&blob.repository)
        .bind_text(&blob.digest)
        .bind(fence.job)
        .bind(fence.epoch)
}
