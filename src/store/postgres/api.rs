//! The API's keys, and the record of its calls.

use super::Postgres;
use super::connect::{Again, Statement};
use super::statements::api as sql;
use crate::access::{ApiKey, Call, NewKey};
use crate::clock::UnixMillis;
use crate::store::rows::{self, Columns};
use crate::store::{Error, JobEvent};

impl Postgres {
    pub(in crate::store) async fn key_add(&self, key: NewKey, actor: &str) -> Result<(), Error> {
        let row = rows::key_row(&key);
        let statement = Statement::new(sql::API_KEY_ADD)
            .bind(key.id)
            .bind_text(&key.name)
            .bind(key.role.as_str())
            .bind(row.hash)
            .bind(row.destinations)
            .bind(self.inner.now())
            .bind_text(actor)
            .bind(key.expires_at.map(|end| end.0));
        self.inner.bulk.rows(Again::Never, &statement).await?;
        Ok(())
    }

    pub(in crate::store) async fn keys(&self, id: Option<&str>) -> Result<Vec<ApiKey>, Error> {
        let statement = Statement::new(sql::API_KEYS).bind(id.map(str::to_owned));
        self.inner.readers.rows(Again::Harmless, &statement).await?.iter().map(rows::key).collect()
    }

    pub(in crate::store) async fn key_revoke(&self, id_or_name: &str, actor: &str) -> Result<u64, Error> {
        let statement =
            Statement::new(sql::API_KEY_REVOKE).bind_text(id_or_name).bind(self.inner.now()).bind_text(actor);
        let revoked = self.inner.bulk.rows(Again::Never, &statement).await?.len();
        Ok(u64::try_from(revoked).unwrap_or(u64::MAX))
    }

    pub(in crate::store) async fn call_add(&self, call: Call) -> Result<(), Error> {
        let statement = Statement::new(sql::API_CALL_ADD)
            .bind(self.inner.now())
            .bind_text(&call.request_id)
            .bind(call.key_id)
            .bind_text(&call.key_name)
            .bind(call.role.as_str())
            .bind_text(&call.address)
            .bind_text(&call.method)
            .bind_text(&call.path)
            .bind(if call.allowed { "allowed" } else { "refused" });
        self.inner.bulk.rows(Again::Never, &statement).await?;
        Ok(())
    }

    pub(in crate::store) async fn calls_prune(
        &self,
        before: UnixMillis,
        limit: u32,
        actor: &str,
    ) -> Result<u64, Error> {
        let note = Statement::new(sql::API_CALLS_PRUNE_NOTE)
            .bind(self.inner.now())
            .bind_text(actor)
            .bind(before.0)
            .bind(i64::from(limit));
        // Noted and not removed comes to no harm: the next call removes it.
        let noted = self.inner.bulk.rows(Again::Never, &note).await?;
        let Some(row) = noted.first() else { return Ok(0) };
        let last = row.int("last_seq")?;
        let removed = self.inner.bulk.rows(Again::Harmless, &Statement::new(sql::API_CALLS_PRUNE).bind(last)).await?;
        Ok(u64::try_from(removed.len()).unwrap_or(u64::MAX))
    }

    pub(in crate::store) async fn events_after(&self, seq: i64, limit: u32) -> Result<Vec<JobEvent>, Error> {
        let statement = Statement::new(sql::EVENTS_AFTER).bind(seq).bind(i64::from(limit));
        self.inner.readers.rows(Again::Harmless, &statement).await?.iter().map(rows::event).collect()
    }
}
