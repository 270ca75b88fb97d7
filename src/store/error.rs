//! What can go wrong at the store's door.

/// An error of the store. One line for people each; callers branch on the variant.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The caller's fault: the request breaks a rule of the database.
    #[error("{0}")]
    Invalid(String),
    /// The same idempotency key with other content.
    #[error("{0}")]
    KeyConflict(String),
    /// There is no such row.
    #[error("{0}")]
    NotFound(String),
    /// This database cannot be used by this program: newer schema, another program's file, network file system, no
    /// permission.
    #[error("{0}")]
    Unusable(String),
    /// A newer version has migrated the database while it was open: finish what runs, claim nothing new.
    #[error("{0}")]
    Outdated(String),
    /// Busy, full disk, I/O error: may pass. Nothing of what was asked is stored.
    #[error("database: {message}")]
    Backend {
        /// What the database said.
        message: String,
        /// Another try at once may succeed (the database was busy).
        busy: bool,
    },
}

impl Error {
    /// The same request may succeed later without anybody changing it.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Backend { .. })
    }
}

/// SQLITE_BUSY, with its extended codes for recovery and snapshots.
const BUSY: [u32; 3] = [5, 261, 517];
/// SQLITE_LOCKED and its shared-cache code.
const LOCKED: [u32; 2] = [6, 262];

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if let sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) = error {
            return Self::Unusable(format!("a row cannot be read: {error}"));
        }
        let Some(database) = error.as_database_error() else {
            return Self::Backend { message: error.to_string(), busy: false };
        };
        let code: u32 = database.code().and_then(|code| code.parse().ok()).unwrap_or(0);
        let message = database.message().to_owned();
        let hint = match code & 0xff {
            // SQLITE_CONSTRAINT: a rule of ours, by CHECK, index or trigger; the message says which.
            19 => return Self::Invalid(message),
            1 => return Self::Invalid(format!("SQL: {message}")),
            8 => return Self::Unusable(format!("the database cannot be written: {message}")),
            11 => {
                return Self::Unusable(format!("the database file is damaged: {message}; run `freightliner db check`"));
            }
            14 => " (the file cannot be opened: check its path, its permissions and the limit of open files)",
            26 => return Self::Unusable("this file is not an SQLite database".to_owned()),
            13 => " (no space left: free some, nothing acknowledged is lost)",
            10 => " (the disk failed or is full)",
            _ => "",
        };
        Self::Backend { message: format!("{message}{hint}"), busy: BUSY.contains(&code) || LOCKED.contains(&code) }
    }
}
