//! What operators do to queues and to the database as a whole.

use super::Postgres;
use crate::job::JobId;
use crate::store::{
    Edit, Error, Pruned, Published, QueueChange, QueueRow, Remark, Restored, Retention, Selection, Why,
};
use std::path::Path;

fn absent<T>() -> Result<T, Error> {
    Err(Error::Invalid("not implemented".to_owned()))
}

impl Postgres {
    pub(in crate::store) async fn queues(&self) -> Result<Vec<QueueRow>, Error> {
        absent()
    }
    pub(in crate::store) async fn queue_change(&self, _: &str, _: QueueChange, _: &str) -> Result<bool, Error> {
        absent()
    }
    pub(in crate::store) async fn edit(&self, _: &Selection, _: &Edit, _: &str) -> Result<u64, Error> {
        absent()
    }
    pub(in crate::store) async fn pause(&self, _: &Selection, _: &str) -> Result<u64, Error> {
        absent()
    }
    pub(in crate::store) async fn resume(&self, _: &Selection, _: &str) -> Result<u64, Error> {
        absent()
    }
    pub(in crate::store) async fn why(&self, _: JobId) -> Result<Option<Why>, Error> {
        absent()
    }
    pub(in crate::store) async fn prune(&self, _: Retention, _: u32, _: &str) -> Result<Pruned, Error> {
        absent()
    }
    pub(in crate::store) async fn remark(&self, _: JobId, _: Remark) -> Result<(), Error> {
        absent()
    }
    pub(in crate::store) async fn published(&self, _: &str) -> Result<Option<Published>, Error> {
        absent()
    }
    pub(in crate::store) async fn backup(&self, _: &Path) -> Result<(), Error> {
        absent()
    }
    pub(in crate::store) async fn invalidate(&self, _: &str) -> Result<Restored, Error> {
        absent()
    }
}
