//! The API's keys, and the record of its calls.

use super::{Error, JobEvent, Store, on};
use crate::access::{ApiKey, Call, NewKey};
use crate::clock::UnixMillis;

impl Store {
    /// Writes a key of the API down. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn key_add(&self, key: NewKey, actor: &str) -> Result<(), Error> {
        on!(self, store => store.key_add(key, actor).await)
    }

    /// The keys of the API, oldest first, revoked and expired ones too; with an id that one, if it is there.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn keys(&self, id: Option<&str>) -> Result<Vec<ApiKey>, Error> {
        on!(self, store => store.keys(id).await)
    }

    /// Revokes the key of this id, or all of this name. Returns how many; those that were revoked before do not count.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn key_revoke(&self, id_or_name: &str, actor: &str) -> Result<u64, Error> {
        on!(self, store => store.key_revoke(id_or_name, actor).await)
    }

    /// Writes down that the API was called to change something. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn call_add(&self, call: Call) -> Result<(), Error> {
        on!(self, store => store.call_add(call).await)
    }

    /// Removes calls from before a time, among the oldest `limit`; that they were removed stays on record. Returns how many.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn calls_prune(&self, before: UnixMillis, limit: u32, actor: &str) -> Result<u64, Error> {
        on!(self, store => store.calls_prune(before, limit, actor).await)
    }

    /// The history of all jobs after the event `seq`, oldest first, at most `limit`. On PostgreSQL an event may be seen before
    /// one with a lower seq is: its transaction is still open.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn events_after(&self, seq: i64, limit: u32) -> Result<Vec<JobEvent>, Error> {
        on!(self, store => store.events_after(seq, limit).await)
    }
}
