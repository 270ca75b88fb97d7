//! Credentials of registries, as sealed as they came.

use super::{Error, Store, on};
use crate::clock::UnixMillis;
use crate::job::rfc3339;
use serde::Serialize;

/// A credential as its row has it.
#[derive(Debug, Clone, Serialize)]
pub struct Sealed {
    /// `HOST[:PORT]`, as in references.
    pub registry: String,
    /// Who logs in.
    pub username: String,
    /// The key that opens it.
    pub key_id: String,
    /// Base64; never shown.
    #[serde(skip)]
    pub sealed: String,
    /// When there was first one for this registry.
    #[serde(serialize_with = "rfc3339")]
    pub created_at: UnixMillis,
    /// When it was stored, or sealed again.
    #[serde(serialize_with = "rfc3339")]
    pub changed_at: UnixMillis,
    /// Who did that.
    pub changed_by: String,
}

impl Store {
    /// Stores a sealed credential; what was there for its registry is gone. Durable when it returns. Its times and its actor are
    /// not taken from it.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn credential_put(&self, sealed: Sealed, actor: &str) -> Result<(), Error> {
        on!(self, store => store.credential_put(sealed, actor).await)
    }

    /// The credentials, by registry; with a registry that one, if there is one.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn credentials(&self, registry: Option<&str>) -> Result<Vec<Sealed>, Error> {
        on!(self, store => store.credentials(registry).await)
    }

    /// Removes the credential of a registry: what was sealed is in the database no more. False: there was none.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn credential_remove(&self, registry: &str, actor: &str) -> Result<bool, Error> {
        on!(self, store => store.credential_remove(registry, actor).await)
    }

    /// Stores a credential under another key, if it still is as it was seen (`before`). False: somebody changed it meanwhile.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn credential_reseal(&self, before: &str, sealed: Sealed, actor: &str) -> Result<bool, Error> {
        on!(self, store => store.credential_reseal(before, sealed, actor).await)
    }
}
