//! Where the database is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A database URL: `sqlite:PATH`. `postgres://...` is refused as not implemented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A file of this machine.
    Sqlite(PathBuf),
}

impl DatabaseUrl {
    /// The file of an SQLite database.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Sqlite(path) => path,
        }
    }
}

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("postgres:") || text.starts_with("postgresql:") {
            return Err("not implemented: PostgreSQL; use sqlite:PATH".to_owned());
        }
        let Some(path) = text.strip_prefix("sqlite:") else {
            return Err(
                "the database URL must be sqlite:PATH, for example sqlite:/var/lib/freightliner/freightliner.db"
                    .to_owned(),
            );
        };
        // sqlite:///abs/path and sqlite://rel are what other tools write.
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path == ":memory:" || path.contains('?') {
            return Err("the database URL must name a file: sqlite:PATH (no :memory:, no parameters)".to_owned());
        }
        Ok(Self::Sqlite(PathBuf::from(path)))
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_file() {
        let parse = |text: &str| text.parse::<DatabaseUrl>();
        assert_eq!(parse("sqlite:/a/b.db"), Ok(DatabaseUrl::Sqlite("/a/b.db".into())));
        assert_eq!(parse("sqlite:///a/b.db"), Ok(DatabaseUrl::Sqlite("/a/b.db".into())));
        assert_eq!(parse("sqlite:b.db"), Ok(DatabaseUrl::Sqlite("b.db".into())));
        assert!(parse("postgres://host/db").unwrap_err().starts_with("not implemented"));
        for bad in ["", "b.db", "sqlite:", "sqlite::memory:", "mysql://x"] {
            assert!(parse(bad).unwrap_err().contains("sqlite:PATH"), "{bad}");
        }
    }
}
