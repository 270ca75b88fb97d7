//! The API's keys, and the record of its calls.

use super::Sqlite;
use super::writer::Lane;
use crate::access::{ApiKey, Call, NewKey};
use crate::clock::UnixMillis;
use crate::store::rows::{self, Columns};
use crate::store::statements::api as sql;
use crate::store::{Error, JobEvent};

impl Sqlite {
    pub(in crate::store) async fn key_add(&self, key: NewKey, actor: &str) -> Result<(), Error> {
        let (now, actor) = (self.inner.clock.now(), actor.to_owned());
        let row = rows::key_row(&key);
        self.write(Lane::Control, move |connection| {
            let (id, name, role) = (key.id.as_str(), key.name.as_str(), key.role.as_str());
            let end = key.expires_at.map(|end| end.0);
            let row = (id, name, role, row.hash.as_str(), row.destinations.as_deref(), now.0, actor.as_str(), end);
            connection.run(sql::API_KEY_ADD, row).map(drop)
        })
        .await
    }

    pub(in crate::store) async fn keys(&self, id: Option<&str>) -> Result<Vec<ApiKey>, Error> {
        let found = sqlx::query(sql::API_KEYS).bind(id).fetch_all(&self.inner.readers).await?;
        found.iter().map(rows::key).collect()
    }

    pub(in crate::store) async fn key_revoke(&self, id_or_name: &str, actor: &str) -> Result<u64, Error> {
        let (which, now, actor) = (id_or_name.to_owned(), self.inner.clock.now(), actor.to_owned());
        self.write(Lane::Control, move |connection| {
            connection.run(sql::API_KEY_REVOKE, (which.as_str(), now.0, actor.as_str()))
        })
        .await
    }

    pub(in crate::store) async fn call_add(&self, call: Call) -> Result<(), Error> {
        let now = self.inner.clock.now();
        self.write(Lane::Control, move |connection| {
            let outcome = if call.allowed { "allowed" } else { "refused" };
            let (request, key) = (call.request_id.as_str(), call.key_id.as_deref());
            let (name, role, address) = (call.key_name.as_str(), call.role.as_str(), call.address.as_str());
            let (method, path) = (call.method.as_str(), call.path.as_str());
            connection
                .run(sql::API_CALL_ADD, (now.0, request, key, name, role, address, method, path, outcome))
                .map(drop)
        })
        .await
    }

    pub(in crate::store) async fn calls_prune(
        &self,
        before: UnixMillis,
        limit: u32,
        actor: &str,
    ) -> Result<u64, Error> {
        let (now, actor) = (self.inner.clock.now(), actor.to_owned());
        self.write(Lane::Bulk, move |connection| {
            let last = connection.one(sql::API_CALLS_LAST, (before.0, limit), |row| row.int_option("seq"))?;
            let Some(last) = last else { return Ok(0) };
            connection.run(sql::API_CALLS_PRUNE_NOTE, (now.0, actor.as_str(), before.0, last))?;
            connection.run(sql::API_CALLS_PRUNE, [last])
        })
        .await
    }

    pub(in crate::store) async fn events_after(&self, seq: i64, limit: u32) -> Result<Vec<JobEvent>, Error> {
        let look = sqlx::query(sql::EVENTS_AFTER).bind(seq).bind(limit);
        look.fetch_all(&self.inner.readers).await?.iter().map(rows::event).collect()
    }
}
