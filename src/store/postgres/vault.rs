//! Credentials of registries, as sealed as they came.

use super::Postgres;
use super::connect::{Again, Statement};
use super::statements::vault as sql;
use crate::store::rows;
use crate::store::{Error, Sealed};

impl Postgres {
    pub(in crate::store) async fn credential_put(&self, sealed: Sealed, actor: &str) -> Result<(), Error> {
        let statement = Statement::new(sql::CREDENTIAL_PUT)
            .bind_text(&sealed.registry)
            .bind_text(&sealed.username)
            .bind(sealed.key_id)
            .bind(sealed.sealed)
            .bind(self.inner.now())
            .bind_text(actor);
        self.inner.bulk.rows(Again::Never, &statement).await?;
        Ok(())
    }

    pub(in crate::store) async fn credentials(&self, registry: Option<&str>) -> Result<Vec<Sealed>, Error> {
        let statement = Statement::new(sql::CREDENTIALS).bind(registry.map(str::to_owned));
        self.inner.readers.rows(Again::Harmless, &statement).await?.iter().map(rows::sealed).collect()
    }

    pub(in crate::store) async fn credential_remove(&self, registry: &str, actor: &str) -> Result<bool, Error> {
        let statement =
            Statement::new(sql::CREDENTIAL_REMOVE).bind_text(registry).bind(self.inner.now()).bind_text(actor);
        Ok(!self.inner.bulk.rows(Again::Never, &statement).await?.is_empty())
    }

    pub(in crate::store) async fn credential_reseal(
        &self,
        before: &str,
        sealed: Sealed,
        actor: &str,
    ) -> Result<bool, Error> {
        let statement = Statement::new(sql::CREDENTIAL_RESEAL)
            .bind_text(&sealed.registry)
            .bind(before.to_owned())
            .bind(sealed.key_id)
            .bind(sealed.sealed)
            .bind(self.inner.now())
            .bind_text(actor);
        Ok(!self.inner.bulk.rows(Again::Never, &statement).await?.is_empty())
    }
}
