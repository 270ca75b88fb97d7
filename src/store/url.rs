//! Where the database is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use url::Url;

/// A database URL: `sqlite:PATH`, or `postgres://[USER[:PASSWORD]@]HOST[:PORT]/DATABASE[?PARAMETERS]`.
///
/// Parameters of PostgreSQL: those of libpq that say where the server is and whom to trust (`sslmode`, `sslrootcert`,
/// `sslcert`, `sslkey`, `host`, `port`, `user`, `dbname`, `options`, `application_name`), and two of ours:
/// `pooler=transaction`, for a server behind pgbouncer in transaction mode or its like, and `listen=URL`, percent-encoded: the
/// same database past the pooler, to be told there of new work at once. A password is better kept in `~/.pgpass` or the file
/// that `PGPASSFILE` names. Neither `Display` nor `Debug` shows one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A file of this machine.
    Sqlite(PathBuf),
    /// A server.
    Postgres(PostgresUrl),
}

/// The URL of a PostgreSQL database. Shown without its password.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl {
    /// What the driver is given: without our own parameters.
    url: Url,
    /// What people are shown.
    shown: String,
    /// Another connection may serve each transaction: nothing may be kept in a session.
    pooled: bool,
    /// Where to listen, when that is another way to the database.
    listen: Option<Box<Self>>,
    password: bool,
}

impl PostgresUrl {
    /// What the driver is given.
    pub(super) const fn driver_url(&self) -> &Url {
        &self.url
    }

    /// A transaction pooler stands before the server.
    #[must_use]
    pub const fn is_pooled(&self) -> bool {
        self.pooled
    }

    /// Where to listen for notifications, when the URL names a place of its own for that.
    pub(super) fn listen(&self) -> Option<&Self> {
        self.listen.as_deref()
    }

    /// The URL itself holds a password, which others may see in the process list, in shell histories and unit files.
    #[must_use]
    pub const fn has_password(&self) -> bool {
        self.password
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({})", self.shown)
    }
}

/// Parameters that the driver understands.
const DRIVER: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];
/// Parameters of libpq that providers put into the URLs they hand out, and that change nothing here.
const IGNORED: &[&str] = &[
    "channel_binding",
    "connect_timeout",
    "gssencmode",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "target_session_attrs",
    "tcp_user_timeout",
];

impl FromStr for PostgresUrl {
    type Err = String;

    /// Never repeats the text, which may hold a password.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "postgres://USER@HOST:PORT/DATABASE";
        let whole = Url::parse(text).map_err(|error| format!("the database URL must be {FORM}: {error}"))?;
        if !whole.has_authority() {
            return Err(format!("the database URL must be {FORM}: after the colon come two slashes"));
        }
        let (mut pooled, mut password) = (false, whole.password().is_some());
        let mut listen: Option<Box<Self>> = None;
        let mut kept = Vec::new();
        for (name, value) in whole.query_pairs() {
            match (name.as_ref(), value.as_ref()) {
                ("pooler", "transaction") => pooled = true,
                ("pooler", "none") => pooled = false,
                ("pooler", _) => return Err("the database URL: pooler must be `transaction` or `none`".to_owned()),
                ("listen", url) => {
                    let url: Self = url.parse().map_err(|error| format!("the parameter `listen`: {error}"))?;
                    if url.pooled || url.listen.is_some() {
                        return Err(
                            "the parameter `listen` of the database URL: a direct way to the server is needed there, \
                                    without pooler or listen"
                                .to_owned(),
                        );
                    }
                    password |= url.password;
                    listen = Some(Box::new(url));
                }
                (name, _) if IGNORED.contains(&name) => {}
                (name, value) if DRIVER.contains(&name) || name.starts_with("options[") => {
                    password |= name == "password";
                    kept.push((name.to_owned(), value.to_owned()));
                }
                (name, _) => {
                    return Err(format!(
                        "the database URL: there is no parameter `{name}`: use pooler, listen, {}",
                        DRIVER.join(", ")
                    ));
                }
            }
        }
        let with = |hidden: bool| {
            let mut url = whole.clone();
            url.set_query(None);
            for (name, value) in &kept {
                let value = if hidden && name == "password" { "***" } else { value };
                url.query_pairs_mut().append_pair(name, value);
            }
            url
        };
        let url = with(false);
        let mut shown = with(true);
        if shown.password().is_some() && shown.set_password(Some("***")).is_err() {
            return Err(format!("the database URL must be {FORM}: a password needs a host"));
        }
        if pooled {
            shown.query_pairs_mut().append_pair("pooler", "transaction");
        }
        if let Some(listen) = &listen {
            shown.query_pairs_mut().append_pair("listen", &listen.shown);
        }
        Ok(Self { url, shown: shown.into(), pooled, listen, password })
    }
}

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("postgres:") || text.starts_with("postgresql:") {
            return text.parse().map(Self::Postgres);
        }
        let Some(path) = text.strip_prefix("sqlite:") else {
            return Err("the database URL must be sqlite:PATH or postgres://USER@HOST/DATABASE, for example \
                        sqlite:/var/lib/freightliner/freightliner.db"
                .to_owned());
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
            Self::Postgres(url) => f.write_str(&url.shown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DatabaseUrl, String> {
        text.parse()
    }

    #[test]
    fn urls_name_a_file() {
        assert_eq!(parse("sqlite:/a/b.db"), Ok(DatabaseUrl::Sqlite("/a/b.db".into())));
        assert_eq!(parse("sqlite:///a/b.db"), Ok(DatabaseUrl::Sqlite("/a/b.db".into())));
        assert_eq!(parse("sqlite:b.db"), Ok(DatabaseUrl::Sqlite("b.db".into())));
        for bad in ["", "b.db", "sqlite:", "sqlite::memory:", "mysql://x"] {
            assert!(parse(bad).unwrap_err().contains("sqlite:PATH"), "{bad}");
        }
    }

    #[test]
    fn urls_name_a_server_and_never_show_a_password() {
        for (text, shown) in [
            ("postgres://me@db.example:5433/jobs", "postgres://me@db.example:5433/jobs"),
            ("postgresql://me:secret@db/jobs?sslmode=require", "postgresql://me:***@db/jobs?sslmode=require"),
            ("postgres://db/jobs?user=me&password=secret", "postgres://db/jobs?user=me&password=***"),
            ("postgres:///jobs?host=/run/postgresql", "postgres:///jobs?host=%2Frun%2Fpostgresql"),
            ("postgres://me@db/jobs?pooler=transaction&connect_timeout=5", "postgres://me@db/jobs?pooler=transaction"),
        ] {
            let url = parse(text).unwrap();
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?}").contains("secret"));
            let DatabaseUrl::Postgres(url) = url else { panic!("{text}") };
            assert_eq!(url.has_password(), text.contains("secret"));
            assert_eq!(url.driver_url().as_str().contains("secret"), text.contains("secret"));
            assert_eq!(
                (url.is_pooled(), url.driver_url().as_str().contains("pooler")),
                (text.contains("pooler"), false)
            );
        }
    }

    #[test]
    fn a_second_way_to_the_server_is_shown_without_its_password_too() {
        let text =
            "postgres://me@pooler/jobs?pooler=transaction&listen=postgres%3A%2F%2Fme%3Asecret%40db%3A5433%2Fjobs";
        let DatabaseUrl::Postgres(url) = parse(text).unwrap() else { panic!("{text}") };
        let listen = url.listen().unwrap();
        assert_eq!(listen.driver_url().as_str(), "postgres://me:secret@db:5433/jobs");
        assert!(url.is_pooled() && url.has_password() && !url.driver_url().as_str().contains("listen"));
        let shown = DatabaseUrl::Postgres(url).to_string();
        assert!(shown.contains("listen=postgres") && shown.contains("***") && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn what_is_wrong_with_a_server_is_said_without_repeating_it() {
        for (bad, word) in [
            ("postgres:secret", "slashes"),
            ("postgres://u:secret@h:port/d", "port"),
            ("postgres://u:secret@h/d?pool=9", "`pool`"),
            ("postgres://u:secret@h/d?pooler=session", "pooler"),
            ("postgres://u:secret@h/d?listen=secret", "`listen`"),
            ("postgres://u@h/d?listen=postgres%3A%2F%2Fu%3Asecret%40h%2Fd%3Fpooler%3Dtransaction", "direct"),
        ] {
            let error = parse(bad).unwrap_err();
            assert!(error.contains(word) && !error.contains("secret"), "{error}");
        }
    }
}
