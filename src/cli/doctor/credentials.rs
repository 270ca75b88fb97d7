//! Credential files: there, readable, private, and JSON. What they hold stays in them.

use super::Check;
use crate::config::Environment;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Largest credential file that is read, bytes.
const FILE_LIMIT_BYTES: u64 = 1024 * 1024;
const NAME: &str = "credentials";

/// Looks at the files that the registry client would read.
pub fn check(environment: Environment<'_>) -> Vec<Check> {
    let named = environment("REGISTRY_AUTH_FILE").map(|path| (PathBuf::from(path), true));
    let docker = environment("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| environment("HOME").map(|home| PathBuf::from(home).join(".docker")))
        .map(|folder| (folder.join("config.json"), false));
    let checks: Vec<_> = named.into_iter().chain(docker).filter_map(|(path, wanted)| file(&path, wanted)).collect();
    if checks.is_empty() {
        vec![Check::ok(NAME, "no credential file: registries are asked anonymously")]
    } else {
        checks
    }
}

/// None: it is not there, and nobody said that it is.
fn file(path: &Path, wanted: bool) -> Option<Check> {
    let shown = path.display();
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !wanted => return None,
        Err(error) => {
            return Some(Check::fail(NAME, format!("{shown}: {error}"), "log in again, or unset REGISTRY_AUTH_FILE"));
        }
    };
    let mut content = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_LIMIT_BYTES).read_to_end(&mut content));
    if let Err(error) = read {
        return Some(Check::fail(NAME, format!("{shown} cannot be read: {error}"), "check its owner and mode"));
    }
    let json: serde_json::Value = match serde_json::from_slice(&content) {
        Ok(json) => json,
        Err(error) => {
            let place = format!("line {}, column {}", error.line(), error.column());
            return Some(Check::fail(NAME, format!("{shown} is no JSON ({place})"), "repair it, or log in again"));
        }
    };
    let count = |name: &str| json.get(name).and_then(|part| part.as_object()).map_or(0, serde_json::Map::len);
    let store = json.get("credsStore").is_some_and(serde_json::Value::is_string);
    let message = format!(
        "{shown}: {} registries, {} helpers{}",
        count("auths"),
        count("credHelpers"),
        if store { ", a store" } else { "" },
    );
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Some(Check::warn(NAME, format!("{message}; mode {mode:04o}: others may read it"), "chmod 0600 it"));
    }
    Some(Check::ok(NAME, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Status;

    fn look(content: &str, mode: u32) -> Check {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let folder = dir.path().as_os_str().to_owned();
        let checks = check(&|name| (name == "DOCKER_CONFIG").then(|| folder.clone()));
        assert_eq!(checks.len(), 1);
        checks[0].clone()
    }

    #[test]
    fn files_are_judged_without_telling_what_they_hold() {
        let content = r#"{"auths":{"registry.example":{"auth":"c2VjcmV0"}},"credHelpers":{"a":"b"}}"#;
        let good = look(content, 0o600);
        assert_eq!(good.status, Status::Ok);
        assert!(good.message.contains("1 registries, 1 helpers"), "{good:?}");
        assert_eq!(look(content, 0o644).status, Status::Warn);
        let broken = look(r#"{"auths":{"registry.example":{"auth":"c2VjcmV0""#, 0o600);
        assert_eq!(broken.status, Status::Fail);
        for check in [good, broken] {
            assert!(!format!("{check:?}").contains("c2VjcmV0"), "{check:?}");
        }
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        let checks = check(&|name| (name == "REGISTRY_AUTH_FILE").then(|| "/nonexistent/auth.json".into()));
        assert_eq!(checks.iter().map(|check| check.status).collect::<Vec<_>>(), [Status::Fail]);
        assert_eq!(check(&|_| None).iter().map(|check| check.status).collect::<Vec<_>>(), [Status::Ok]);
    }
}
