//! What can go wrong at the store's door.

use sqlx::postgres::PgDatabaseError;

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
    /// Busy, full disk, I/O error, no connection: may pass. Nothing of what was asked is stored, unless the message says that
    /// this is not known: a connection that broke may have taken the answer with it.
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

/// Nothing, unless a newer version has migrated the database since it was opened.
///
/// # Errors
/// [`Error::Outdated`].
pub(super) fn check_schema(found: i64, known: i64) -> Result<(), Error> {
    if found <= known {
        return Ok(());
    }
    Err(Error::Outdated(format!(
        "the database has schema {found} by now, this program knows {known}: nothing more is claimed; start the newer freightliner"
    )))
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
        if let Some(postgres) = database.try_downcast_ref::<PgDatabaseError>() {
            return of_postgres(postgres.code(), postgres.message());
        }
        of_sqlite(database.code().and_then(|code| code.parse().ok()).unwrap_or(0), database.message())
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error as E;
        match &error {
            E::SqliteFailure(code, message) => {
                let message = message.clone().unwrap_or_else(|| code.to_string());
                of_sqlite(code.extended_code.cast_unsigned(), &message)
            }
            E::FromSqlConversionFailure(..) | E::InvalidColumnName(_) | E::InvalidColumnType(..) | E::Utf8Error(..) => {
                Self::Unusable(format!("a row cannot be read: {error}"))
            }
            other => Self::Backend { message: other.to_string(), busy: false },
        }
    }
}

/// By SQLite's extended result code; its low byte is the class.
fn of_sqlite(code: u32, message: &str) -> Error {
    let hint = match code & 0xff {
        // SQLITE_CONSTRAINT: a rule of ours, by CHECK, index or trigger; the message says which.
        19 => return Error::Invalid(message.to_owned()),
        1 => return Error::Invalid(format!("SQL: {message}")),
        8 => return Error::Unusable(format!("the database cannot be written: {message}")),
        11 => {
            return Error::Unusable(format!("the database file is damaged: {message}; run `freightliner db check`"));
        }
        14 => " (the file cannot be opened: check its path, its permissions and the limit of open files)",
        26 => return Error::Unusable("this file is not an SQLite database".to_owned()),
        9 => " (it took too long, or writers waited for it: narrow it)",
        13 => " (no space left: free some, nothing acknowledged is lost)",
        10 => " (the disk failed or is full)",
        _ => "",
    };
    Error::Backend { message: format!("{message}{hint}"), busy: BUSY.contains(&code) || LOCKED.contains(&code) }
}

/// By SQLSTATE (PostgreSQL's documentation, appendix A); the first two characters are its class.
fn of_postgres(code: &str, message: &str) -> Error {
    let backend = |hint: &str, busy: bool| Error::Backend { message: format!("{message}{hint}"), busy };
    match code {
        // Raised by our function that claims.
        "FL001" => Error::Outdated(message.to_owned()),
        "42501" => Error::Unusable(format!("{message}: the database's user needs more rights")),
        "25006" => backend(" (the server takes no writes: is it a standby?)", false),
        // Another schema came under a running program.
        "0A000" if message.starts_with("cached plan") => backend("", true),
        "26000" | "42P05" => {
            backend(" (behind a transaction pooler the database URL needs ?pooler=transaction)", false)
        }
        "08P01" if message.contains("startup parameter") => Error::Unusable(format!(
            "{message}: behind a transaction pooler the database URL needs ?pooler=transaction"
        )),
        "3D000" => Error::Unusable(format!("{message}: create it first")),
        "28P01" | "28000" => Error::Unusable(format!("{message}: check the user, and the password in ~/.pgpass")),
        "53100" => backend(" (no space left: free some, nothing acknowledged is lost)", false),
        "53300" => backend(" (raise max_connections, or use a pooler)", true),
        "55P03" => backend(" (somebody else has it locked)", true),
        "57014" => backend(" (it took too long)", false),
        // Rows that do not fit into an index.
        "54000" => Error::Invalid(message.to_owned()),
        _ => match code.get(..2) {
            // A rule of ours, by CHECK, index or trigger, or a value that is none; the message says which.
            Some("22" | "23") => Error::Invalid(message.to_owned()),
            Some("42") => Error::Invalid(format!("SQL: {message}")),
            Some("40") => backend("", true),
            _ => backend("", false),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_sqlstate_decide() {
        assert!(matches!(of_postgres("23505", "x"), Error::Invalid(_)));
        assert!(matches!(of_postgres("22P02", "x"), Error::Invalid(_)));
        assert!(matches!(of_postgres("42P01", "x"), Error::Invalid(_)));
        assert!(matches!(of_postgres("42501", "x"), Error::Unusable(_)));
        assert!(matches!(of_postgres("40P01", "x"), Error::Backend { busy: true, .. }));
        assert!(matches!(of_postgres("57P01", "x"), Error::Backend { busy: false, .. }));
        assert!(matches!(of_postgres("", "x"), Error::Backend { busy: false, .. }));
    }
}
