//! Credentials of registries, as sealed as they came.

use super::Sqlite;
use super::writer::Lane;
use crate::store::rows;
use crate::store::statements::vault as sql;
use crate::store::{Error, Sealed};

impl Sqlite {
    pub(in crate::store) async fn credential_put(&self, sealed: Sealed, actor: &str) -> Result<(), Error> {
        let (now, actor) = (self.inner.clock.now(), actor.to_owned());
        self.write(Lane::Control, move |connection| {
            let Sealed { registry, username, key_id, sealed, .. } = &sealed;
            let row = (registry.as_str(), username.as_str(), key_id.as_str(), sealed.as_str(), now.0, actor.as_str());
            if connection.run(sql::CREDENTIAL_PUT, row)? == 0 {
                connection.run(sql::CREDENTIAL_ADD, row)?;
            }
            Ok(())
        })
        .await
    }

    pub(in crate::store) async fn credentials(&self, registry: Option<&str>) -> Result<Vec<Sealed>, Error> {
        let found = sqlx::query(sql::CREDENTIALS).bind(registry).fetch_all(&self.inner.readers).await?;
        found.iter().map(rows::sealed).collect()
    }

    pub(in crate::store) async fn credential_remove(&self, registry: &str, actor: &str) -> Result<bool, Error> {
        let (registry, now, actor) = (registry.to_owned(), self.inner.clock.now(), actor.to_owned());
        self.write(Lane::Control, move |connection| {
            Ok(connection.run(sql::CREDENTIAL_REMOVE, (registry.as_str(), now.0, actor.as_str()))? > 0)
        })
        .await
    }

    pub(in crate::store) async fn credential_reseal(
        &self,
        before: &str,
        sealed: Sealed,
        actor: &str,
    ) -> Result<bool, Error> {
        let (before, now, actor) = (before.to_owned(), self.inner.clock.now(), actor.to_owned());
        self.write(Lane::Control, move |connection| {
            let Sealed { registry, key_id, sealed, .. } = &sealed;
            let row = (registry.as_str(), before.as_str(), key_id.as_str(), sealed.as_str(), now.0, actor.as_str());
            Ok(connection.run(sql::CREDENTIAL_RESEAL, row)? > 0)
        })
        .await
    }
}
