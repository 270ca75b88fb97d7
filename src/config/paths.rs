//! Where the database and the state folder are.

use super::{Environment, Error, absolute};
use crate::store::DatabaseUrl;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The folder of the program within the platform's state directory.
const FOLDER: &str = "freightliner";
/// The database in it.
const DATABASE: &str = "freightliner.db";

/// The database that was asked for, else the default one.
///
/// # Errors
/// The URL does not parse, or there is no home directory to put a default into. Never repeats the URL, which may hold a
/// password.
pub fn database(typed: Option<&str>, environment: Environment<'_>, base: &Path) -> Result<DatabaseUrl, Error> {
    let variable = environment("FREIGHTLINER_DATABASE_URL");
    let asked = match (typed, &variable) {
        (Some(text), _) => Some(text),
        (None, Some(text)) => {
            Some(text.to_str().ok_or_else(|| Error::one("FREIGHTLINER_DATABASE_URL is not valid UTF-8"))?)
        }
        (None, None) => None,
    };
    let Some(text) = asked else {
        return default_folder(environment).map(|folder| DatabaseUrl::Sqlite(folder.join(DATABASE)));
    };
    let text = text.trim();
    let scheme = text.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        Some("sqlite" | "postgres" | "postgresql") => {}
        Some(scheme) if scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) => {
            return Err(Error::one(format!(
                "database URL: unknown scheme `{scheme}`: use sqlite:PATH or postgres://USER@HOST/DATABASE"
            )));
        }
        _ => {
            return Err(Error::one("database URL: it has no scheme: use sqlite:PATH or postgres://USER@HOST/DATABASE"));
        }
    }
    Ok(match text.parse().map_err(|problem: String| Error::one(problem))? {
        DatabaseUrl::Sqlite(path) => DatabaseUrl::Sqlite(absolute(&path, base)),
        server @ DatabaseUrl::Postgres(_) => server,
    })
}

/// The state folder that was asked for, else the folder of the database; for a server, the one in the platform's state
/// directory.
///
/// # Errors
/// There is no home directory to put it into.
pub fn state_dir(
    typed: Option<PathBuf>,
    database: &DatabaseUrl,
    environment: Environment<'_>,
    base: &Path,
) -> Result<PathBuf, Error> {
    match (typed, database) {
        (Some(typed), _) => Ok(absolute(&typed, base)),
        (None, DatabaseUrl::Sqlite(path)) => Ok(path.parent().unwrap_or(base).to_owned()),
        (None, DatabaseUrl::Postgres(_)) => default_folder(environment).map_err(|_| {
            Error::one("no place for the state folder: HOME and XDG_STATE_HOME are not set: use --state-dir")
        }),
    }
}

/// `$XDG_STATE_HOME/freightliner`, else `~/.local/state/freightliner`, else (root without a home) `/var/lib/freightliner`.
fn default_folder(environment: Environment<'_>) -> Result<PathBuf, Error> {
    let folder = |name: &str| environment(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(state) = folder("XDG_STATE_HOME") {
        return Ok(state.join(FOLDER));
    }
    if let Some(home) = folder("HOME") {
        return Ok(home.join(".local/state").join(FOLDER));
    }
    if rustix::process::geteuid().is_root() {
        return Ok(Path::new("/var/lib").join(FOLDER));
    }
    Err(Error::one("no place for the database: HOME and XDG_STATE_HOME are not set: use --database sqlite:PATH"))
}

/// Makes the folder and its parents with mode 0700 where they are missing; existing ones stay as they are.
///
/// # Errors
/// The folder cannot be made.
pub fn ensure_private_dir(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;
    use std::os::unix::fs::PermissionsExt;

    fn only(name: &'static str, value: &'static str) -> impl Fn(&str) -> Option<OsString> {
        move |asked| (asked == name).then(|| value.into())
    }

    #[test]
    fn the_default_follows_the_platform() {
        let at = |environment: Environment<'_>| database(None, environment, Path::new("/here"));
        let path = |text: &str| Ok(DatabaseUrl::Sqlite(PathBuf::from(text)));
        assert_eq!(at(&only("XDG_STATE_HOME", "/s")), path("/s/freightliner/freightliner.db"));
        assert_eq!(at(&only("HOME", "/h")), path("/h/.local/state/freightliner/freightliner.db"));
        if rustix::process::geteuid().is_root() {
            assert_eq!(at(&|_| None), path("/var/lib/freightliner/freightliner.db"));
            // Relative values are invalid by the XDG specification, and so not used.
            assert_eq!(at(&only("XDG_STATE_HOME", "s")), path("/var/lib/freightliner/freightliner.db"));
        }
    }

    #[test]
    fn the_state_folder_is_beside_the_file_or_in_the_platforms_place() {
        let home = only("HOME", "/h");
        let of = |typed: Option<&str>, url: &str| {
            state_dir(typed.map(PathBuf::from), &url.parse().unwrap(), &home, Path::new("/here")).unwrap()
        };
        assert_eq!(of(None, "sqlite:/a/b.db"), Path::new("/a"));
        assert_eq!(of(Some("s"), "sqlite:/a/b.db"), Path::new("/here/s"));
        assert_eq!(of(None, "postgres://h/d"), Path::new("/h/.local/state/freightliner"));
        assert_eq!(of(Some("s"), "postgres://h/d"), Path::new("/here/s"));
    }

    #[test]
    fn other_schemes_are_refused_without_repeating_them() {
        for (text, word) in [
            ("mysql://u:secret@h/d", "mysql"),
            ("/var/secret.db", "no scheme"),
            ("postgresql://u:secret@h/d?pool=1", "`pool`"),
        ] {
            let error = database(Some(text), &|_| None, Path::new("/")).unwrap_err().to_string();
            assert!(error.contains(word) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn folders_are_private() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        ensure_private_dir(&path).unwrap();
        ensure_private_dir(&path).unwrap();
        for folder in [path.as_path(), path.parent().unwrap()] {
            assert_eq!(std::fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }
}
