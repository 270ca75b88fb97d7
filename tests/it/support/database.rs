//! The databases every test of the store runs on.
//!
//! SQLite only for now. PostgreSQL joins as a second variant that starts a cluster of its own; a test written as
//! `for database in Database::all() { ... }` with `database.url()` then runs on both without a change.

use std::path::PathBuf;

/// A fresh, empty place for a database; gone when dropped.
#[derive(Debug)]
pub enum Database {
    /// A folder for a database file.
    Sqlite { folder: tempfile::TempDir },
}

impl Database {
    /// One fresh database of every kind that can be had here.
    pub fn all() -> Vec<Self> {
        vec![Self::sqlite()]
    }

    pub fn sqlite() -> Self {
        Self::Sqlite { folder: tempfile::tempdir().expect("a temp folder") }
    }

    /// What `--database` takes.
    pub fn url(&self) -> String {
        match self {
            Self::Sqlite { .. } => format!("sqlite:{}", self.file().display()),
        }
    }

    /// The database file.
    pub fn file(&self) -> PathBuf {
        match self {
            Self::Sqlite { folder } => folder.path().join("freightliner.db"),
        }
    }
}
