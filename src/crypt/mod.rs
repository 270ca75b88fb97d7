//! The vault: credentials of registries, sealed with AES-256-GCM under keys that are not in the database.
//!
//! What is sealed is bound to its registry, its user name and its key by associated data, so that nobody who can write to the
//! database can have the password of one registry shown to another. Every sealing has a nonce of its own from the system.
//! The keys are a ring: the first seals, all open. An id is derived from its key, so that no two keys can have one id.
//!
//! Without the right key the vault stays shut and says so; other sources of credentials go on working. Nothing secret is in an
//! error or in Debug, and what was opened is wiped from memory when it is dropped.

mod keys;
mod ring;

pub use keys::{Error, Source};
pub use ring::{Opened, Ring};

use crate::clock::{Clock, UnixMillis};
use crate::registry::VaultLookup;
use crate::store::{DatabaseUrl, Error as StoreError, Sealed, Store};
use futures_util::future::BoxFuture;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

/// The credentials in the database, and the keys that open them.
pub struct Vault {
    source: Source,
    url: DatabaseUrl,
    clock: Clock,
    store: OnceCell<Option<Store>>,
}

/// Why the vault cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The keys cannot be had.
    #[error("the vault stays shut: {0}")]
    Keys(#[from] Error),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No key of the ring opens it, or it was changed.
    #[error("the vault stays shut: no key opens the credential of {registry} (it was sealed with key {key_id})")]
    Shut {
        /// Whose credential.
        registry: String,
        /// The key that is wanted.
        key_id: String,
    },
}

impl Vault {
    /// Nothing is read or opened yet. `store`: the database, where it is open already.
    #[must_use]
    pub fn new(source: Source, url: DatabaseUrl, clock: Clock, store: Option<Store>) -> Arc<Self> {
        let store = store.map_or_else(OnceCell::new, |store| OnceCell::new_with(Some(Some(store))));
        Arc::new(Self { source, url, clock, store })
    }

    /// The database; None where there is none yet, so that looking makes none.
    async fn store(&self) -> Result<Option<&Store>, StoreError> {
        let open = async || {
            if let DatabaseUrl::Sqlite(path) = &self.url
                && !Path::new(path).exists()
            {
                return Ok(None);
            }
            Store::open(&self.url, self.clock.clone()).await.map(Some)
        };
        Ok(self.store.get_or_try_init(open).await?.as_ref())
    }

    /// Stores a credential. The keys are made where there are none.
    ///
    /// # Errors
    /// The keys cannot be had or the database cannot be used; then nothing is stored.
    pub async fn put(
        &self,
        store: &Store,
        registry: &str,
        username: &str,
        password: &str,
        actor: &str,
    ) -> Result<(), VaultError> {
        let _lock = self.source.lock().await?;
        let ring = self.source.ring_or_new().await?;
        let (key_id, sealed) = ring.seal(registry, username, password).map_err(VaultError::Keys)?;
        Ok(store.credential_put(row(registry, username, key_id, sealed), actor).await?)
    }

    /// Seals every credential again under a new key. It may be cut short and repeated: what was sealed again stays so, and the old
    /// keys go only when nothing needs them. Returns how many were sealed again, and the id of the key.
    ///
    /// # Errors
    /// [`VaultError::Shut`] when one of them cannot be opened; those before it are under the new key then, and no key is gone.
    pub async fn rotate(&self, store: &Store, actor: &str) -> Result<(u64, String), VaultError> {
        let _lock = self.source.lock().await?;
        let ring = self.source.add_key().await?;
        let mut resealed = 0;
        loop {
            let mut left = 0;
            for found in store.credentials(None).await?.into_iter().filter(|found| found.key_id != ring.first()) {
                left += 1;
                let opened = open(&ring, &found)?;
                let (key_id, sealed) =
                    ring.seal(&found.registry, &found.username, &opened).map_err(VaultError::Keys)?;
                let again = row(&found.registry, &found.username, key_id, sealed);
                resealed += u64::from(store.credential_reseal(&found.sealed, again, actor).await?);
            }
            // Somebody may have stored one under the old key meanwhile.
            if left == 0 {
                break;
            }
        }
        let first = ring.first().to_owned();
        self.source.keep_only(&first).await?;
        Ok((resealed, first))
    }

    async fn look(&self, host: &str) -> Result<Option<(String, Zeroizing<String>)>, VaultError> {
        let Some(store) = self.store().await? else { return Ok(None) };
        let Some(found) = store.credentials(Some(host)).await?.pop() else { return Ok(None) };
        // Read each time: it may have been rotated by another process.
        let ring = self.source.ring().await?;
        let password = open(&ring, &found)?;
        Ok(Some((found.username, password)))
    }
}

fn open(ring: &Ring, found: &Sealed) -> Result<Zeroizing<String>, VaultError> {
    ring.open(&found.key_id, &found.registry, &found.username, &found.sealed)
        .ok_or_else(|| VaultError::Shut { registry: found.registry.clone(), key_id: found.key_id.clone() })
}

fn row(registry: &str, username: &str, key_id: String, sealed: String) -> Sealed {
    Sealed {
        registry: registry.to_owned(),
        username: username.to_owned(),
        key_id,
        sealed,
        created_at: UnixMillis(0),
        changed_at: UnixMillis(0),
        changed_by: String::new(),
    }
}

impl VaultLookup for Vault {
    fn find<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Option<(String, Zeroizing<String>)>> {
        Box::pin(async move {
            match self.look(host).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::error!(registry = host, %error, "the vault was asked in vain; credential files are looked at");
                    None
                }
            }
        })
    }
}
