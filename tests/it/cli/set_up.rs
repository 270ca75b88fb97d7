//! The database and the machine: `db`, `doctor`, `health-check`, `version`, `completions`, `man`.

use super::{assert_names, error};
use crate::support::binary::Binary;
use crate::support::fake::Fake;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

#[test]
fn the_database_is_made_shown_and_checked() {
    let binary = Binary::new();
    let output = binary.run(&["db", "migrate"]).success();
    assert!(output.text().contains("schema version 11"), "{output}");
    binary.run(&["db", "migrate"]).success();
    let info = binary.run(&["db", "info", "-o", "json"]).success().json();
    assert_eq!((&info["engine"], &info["schema_version"], &info["jobs"]), (&"sqlite".into(), &11.into(), &0.into()));
    assert_eq!(info["url"], binary.database().url());
    let text = binary.run(&["db", "info"]).success().text();
    assert!(text.contains("engine:") && text.contains("schema:"), "{text}");
    assert_eq!(binary.run(&["db", "check"]).success().text(), "ok\n");
    let found = binary.run(&["db", "check", "-o", "json"]).success().json();
    assert_eq!(found, serde_json::json!({ "ok": true, "findings": [] }));
}

#[test]
fn a_database_that_does_not_fit_its_own_history_is_found() {
    let binary = Binary::new();
    binary.run(&["enqueue", "a.example/x:1", "b.example/x:1"]).success();
    if binary.sql("DROP TRIGGER jobs_transition; UPDATE jobs SET state = 'cancelled'").is_none() {
        return;
    }
    let output = binary.run(&["db", "check"]).expect_code(1);
    assert!(output.text().contains("job 1"), "{output}");
    let output = binary.run(&["db", "check", "-o", "json"]).expect_code(1);
    assert_eq!((&output.json()["ok"], &error(&output)["code"]), (&false.into(), &"corrupt".into()));
    binary.run(&["doctor"]).expect_code(1);
}

#[test]
fn a_newer_database_is_refused_and_left_alone() {
    let binary = Binary::new();
    binary.run(&["db", "migrate"]).success();
    let newer = "INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (999, 'future', '', 0)";
    if binary.sql(newer).is_none() {
        return;
    }
    for arguments in [
        vec!["enqueue", "a.example/x", "b.example/x"],
        vec!["work", "--drain"],
        vec!["jobs", "list"],
        vec!["db", "migrate"],
    ] {
        let output = binary.run(&arguments).expect_code(1);
        let said = output.errors();
        assert!(said.contains("newer") && said.contains("999"), "{arguments:?}: {output}");
    }
    assert_eq!(binary.sql("SELECT count(*) FROM jobs").unwrap(), ["0"]);
}

#[test]
fn files_of_other_programs_are_refused() {
    let binary = Binary::new();
    std::fs::write(binary.database().file(), "some text that is no database at all, and long enough to be one")
        .unwrap();
    let output = binary.run(&["enqueue", "a.example/x", "b.example/x"]).expect_code(1);
    assert!(output.errors().contains("not an SQLite database"), "{output}");
    let kept = std::fs::read_to_string(binary.database().file()).unwrap();
    assert!(kept.starts_with("some text"), "{kept}");
}

#[test]
fn without_any_setting_everything_is_private_and_in_the_state_directory() {
    let binary = Binary::new();
    let program = Binary::of("/usr/bin/env");
    let freightliner = env!("CARGO_BIN_EXE_freightliner");
    let unset = ["-u", "FREIGHTLINER_DATABASE_URL", "-u", "FREIGHTLINER_STATE_DIR"];
    let run = |arguments: &[&str]| program.run(&[&unset[..], &[freightliner], arguments].concat());
    run(&["enqueue", "a.example/x:1", "b.example/x:1"]).success();
    let folder = program.home().join(".local/state/freightliner");
    assert!(folder.join("freightliner.db").is_file());
    assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    run(&["sweep"]).success();
    assert!(run(&["db", "info"]).success().text().contains("freightliner/freightliner.db"));
    drop(binary);
}

#[test]
fn health_is_one_word() {
    let binary = Binary::new();
    let output = binary.run(&["health-check"]).success();
    assert_eq!((output.text().as_str(), output.errors().as_str()), ("OK\n", ""));
    assert_eq!(binary.run(&["health-check", "-o", "json"]).success().json(), serde_json::json!({ "status": "ok" }));
    assert!(binary.leftovers().is_empty());
    std::fs::write(binary.database().file(), "not a database, but a text that is long enough to look at").unwrap();
    let output = binary.run(&["health-check"]).expect_code(1);
    assert_eq!(output.text(), "");
}

#[test]
fn the_doctor_looks_at_everything() {
    let binary = Binary::new();
    let fake = Fake::start();
    let authority = fake.authority();
    let output = binary.run(&["doctor", &authority, "-o", "json"]).success();
    let diagnosis = output.json();
    assert_names(&diagnosis, &["ok", "checks"]);
    let checks = diagnosis["checks"].as_array().unwrap();
    checks.iter().for_each(|check| assert_names(check, &["name", "status", "message", "hint"]));
    let names: Vec<_> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert!(["database", "integrity"].iter().all(|name| names.contains(name)), "{names:?}");
    assert!(
        checks.iter().any(|check| check["message"].as_str().unwrap().contains(&authority)
            || check["name"].as_str().unwrap().contains(&authority)),
        "{diagnosis:#}"
    );
    let text = binary.run(&["doctor"]).success().text();
    assert!(text.lines().all(|line| ["ok  ", "warn", "fail"].iter().any(|status| line.starts_with(status))), "{text}");
    // Port 9 of this machine: nobody listens.
    let output = binary.run(&["doctor", "127.0.0.1:9"]).expect_code(1);
    assert!(output.text().contains("fail") && output.text().contains("127.0.0.1:9"), "{output}");
    assert!(output.errors().contains("check"), "{output}");
}

#[test]
fn the_version_is_told_in_every_way() {
    let binary = Binary::new();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(binary.run(&["--version"]).success().text(), format!("freightliner {version}\n"));
    let text = binary.run(&["version"]).success().text();
    assert!(text.starts_with(&format!("freightliner {version}\n")) && text.lines().count() == 5, "{text}");
    assert_eq!(binary.run(&["version", "-o", "json"]).success().json()["version"], version);
    assert!(!binary.database().file().exists(), "that needs no database");
}

#[test]
fn completions_are_scripts_that_their_shell_reads() {
    let binary = Binary::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = binary.run(&["completions", shell]).success().text();
        assert!(script.contains("replicate") && !script.contains("test-manifest"), "{shell}");
    }
    let script = binary.run(&["completions", "bash"]).success().stdout;
    let Some(bash) = crate::support::need("bash") else { return };
    let mut child = Command::new(bash).arg("-n").stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&script).unwrap();
    assert!(child.wait().unwrap().success());
    binary.run(&["completions", "csh"]).expect_code(2);
}

#[test]
fn manual_pages() {
    let binary = Binary::new();
    let page = binary.run(&["man"]).success().text();
    assert!(page.contains(".TH freightliner 1") && page.contains("replicate"), "{page}");
    let folder = tempfile::tempdir().unwrap();
    binary.run(&["man", "--dir", folder.path().to_str().unwrap()]).success();
    let names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for name in ["freightliner.1", "freightliner-replicate.1", "freightliner-jobs-show.1"] {
        assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
    }
    binary.run(&["man", "--dir", "/nowhere/at/all"]).expect_code(1);
}
