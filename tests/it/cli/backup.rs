//! `db backup` and `db restore`: copies are whole, restored databases are safe, and nothing is lost on the way.

use super::{assert_names, error, number};
use crate::support::binary::Binary;
use crate::support::disk::Disk;
use crate::support::eventually;
use crate::work::{Scene, Snapshot, WriteLock};
use serde_json::json;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn url(file: &Path) -> String {
    format!("sqlite:{}", file.display())
}

/// Runs on another database than the binary's own.
fn on(binary: &Binary, file: &Path, arguments: &[&str]) -> crate::support::binary::Output {
    binary.run(&[&["--database", &url(file)], arguments].concat())
}

fn backup(binary: &Binary, name: &str) -> PathBuf {
    let file = binary.home().join(name);
    binary.run(&["db", "backup", file.to_str().unwrap()]).success();
    file
}

/// The names in a folder.
fn names(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn database_folder(binary: &Binary) -> PathBuf {
    binary.database().file().parent().unwrap().to_owned()
}

/// A job that no worker of the test takes.
fn enqueue(binary: &Binary, tag: &str) -> i64 {
    crate::work::enqueue(binary, &["enqueue", "a.example/x:1", &format!("b.example/x:{tag}"), "--in", "1h"])
}

#[test]
fn a_backup_is_a_database_of_its_own() {
    let binary = Binary::new();
    enqueue(&binary, "1");
    let file = binary.home().join("copy.db");
    let path = file.to_str().unwrap();
    let answer = binary.run(&["db", "backup", path, "-o", "json"]).success().json();
    assert_names(&answer, &["file", "bytes", "duration_ms"]);
    assert_eq!((&answer["file"], &answer["bytes"]), (&json!(path), &json!(file.metadata().unwrap().len())));
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(on(&binary, &file, &["db", "check"]).success().text(), "ok\n");
    assert_eq!(
        on(&binary, &file, &["jobs", "list", "-o", "json"]).json(),
        binary.run(&["jobs", "list", "-o", "json"]).json()
    );

    let before = std::fs::read(&file).unwrap();
    let output = binary.run(&["db", "backup", path, "-o", "json"]).expect_code(1);
    assert_eq!(error(&output)["code"], "exists");
    assert_eq!(std::fs::read(&file).unwrap(), before, "a backup replaces nothing");
    let output = binary.run(&["db", "backup", "/nowhere/at/all/copy.db"]).expect_code(1);
    assert!(output.errors().contains("/nowhere/at/all"), "{output}");
    let output = binary.run(&["db", "backup", "copy-here.db"]).success();
    assert!(output.text().starts_with("wrote ") && output.text().contains(" in "), "{output}");
    assert!(names(&binary.home()).iter().all(|name| !name.contains("making")), "{:?}", names(&binary.home()));
}

#[test]
fn a_backup_that_is_interrupted_leaves_no_half_file() {
    let binary = Binary::new();
    let lines: String = (0..5_000).map(|n| format!("a.example/x:{n} b.example/x:{n}\n")).collect();
    binary.run_with_input(&["enqueue", "--from-file", "-"], lines.as_bytes()).success();
    let file = binary.home().join("copy.db");
    let making = || names(&binary.home()).iter().any(|name| name.contains("making"));
    for kill in [false, true] {
        let mut running = binary.spawn(&["db", "backup", file.to_str().unwrap()]);
        eventually("the copying", || (making() || !running.is_running()).then_some(()));
        let output = if kill {
            running.kill9()
        } else {
            running.sigterm();
            running.finish()
        };
        assert!(kill || file.exists() == (output.code() == Some(0)), "{output}");
        if file.exists() {
            on(&binary, &file, &["db", "check"]).success();
            std::fs::remove_file(&file).unwrap();
        }
    }
    binary.run(&["db", "backup", file.to_str().unwrap()]).success();
    assert!(!making(), "what the killed one left is gone: {:?}", names(&binary.home()));
}

#[test]
fn a_backup_under_load_holds_all_that_was_acknowledged_before() {
    let binary = Binary::new();
    let lines: String = (0..3_000).map(|n| format!("a.example/x:{n} b.example/x:{n}\n")).collect();
    binary.run_with_input(&["enqueue", "--from-file", "-"], lines.as_bytes()).success();
    let (stop, ready) = (std::sync::atomic::AtomicBool::new(false), std::sync::atomic::AtomicI64::new(0));
    let stopped = || stop.load(std::sync::atomic::Ordering::SeqCst);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if stopped() {
                    break;
                }
                ready.store(enqueue(&binary, &format!("late-{n}")), std::sync::atomic::Ordering::SeqCst);
            }
        });
        // Whatever fails here, the writer must end.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..3 {
                let before = ready.load(std::sync::atomic::Ordering::SeqCst);
                eventually("the writer", || (ready.load(std::sync::atomic::Ordering::SeqCst) > before).then_some(()));
                let acknowledged = ready.load(std::sync::atomic::Ordering::SeqCst);
                let file = backup(&binary, &format!("copy-{round}.db"));
                on(&binary, &file, &["db", "check"]).success();
                let query = format!("SELECT count(*) AS n FROM jobs WHERE id <= {acknowledged}");
                let rows = on(&binary, &file, &["sql", &query, "-o", "json"]).success().json();
                assert_eq!(rows[0]["n"], acknowledged, "all that were acknowledged before the backup began");
            }
        }));
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        outcome.unwrap();
    });
    binary.run(&["db", "check"]).success();
}

#[test]
fn a_backup_beside_a_foreign_snapshot_is_whole_and_soon_done() {
    let binary = Binary::new();
    enqueue(&binary, "1");
    let Some(snapshot) = Snapshot::take(&binary) else { return };
    enqueue(&binary, "2");
    let mut running = binary.spawn(&["db", "backup", binary.home().join("copy.db").to_str().unwrap()]);
    running.wait(Duration::from_secs(20)).success();
    let file = binary.home().join("copy.db");
    on(&binary, &file, &["db", "check"]).success();
    let rows = on(&binary, &file, &["sql", "SELECT count(*) AS n FROM jobs", "-o", "json"]).success().json();
    assert_eq!(rows[0]["n"], 2, "what is in the log alone is in it");
    snapshot.end();
}

#[test]
fn a_backup_that_cannot_be_written_says_why_and_leaves_nothing() {
    let Some(disk) = Disk::of("256k") else { return };
    let binary = Binary::new();
    let lines: String = (0..1_000).map(|n| format!("a.example/x:{n} b.example/x:{n}\n")).collect();
    binary.run_with_input(&["enqueue", "--from-file", "-"], lines.as_bytes()).success();
    let file = disk.path().join("copy.db");
    let backup = || binary.run(&["db", "backup", file.to_str().unwrap()]);
    let output = backup().expect_code(1);
    assert!(output.errors().contains("No space left"), "{output}");
    assert!(output.errors().contains(file.to_str().unwrap()), "{output}");
    assert_eq!(names(disk.path()), BTreeSet::new());
    disk.change("ro");
    let output = backup().expect_code(1);
    assert!(output.errors().contains("Read-only"), "{output}");
    disk.change("rw,size=64m");
    backup().success();
    on(&binary, &file, &["db", "check"]).success();
    binary.run(&["db", "check"]).success();
}

#[test]
fn a_restored_database_is_safe_from_workers_of_the_lost_time() {
    let scene = Scene::new();
    scene.hold_layer("held");
    let running = scene.enqueue();
    let worker = scene.binary.spawn(&["work"]);
    scene.source.wait_reached("held");
    let waiting = enqueue(&scene.binary, "waits");
    let file = backup(&scene.binary, "copy.db");
    let lost = enqueue(&scene.binary, "lost");
    let path = file.to_str().unwrap();
    // The worker is alive: its database is not touched.
    let output = scene.binary.run(&["db", "restore", path, "--force", "-o", "json"]).expect_code(1);
    assert_eq!(error(&output)["code"], "in_use");
    assert_eq!(scene.state(lost), "scheduled");
    worker.kill9();

    let output = scene.binary.run(&["db", "restore", path, "-o", "json"]).expect_code(1);
    assert_eq!(error(&output)["code"], "exists");
    let epoch = scene.job(running)["lease_epoch"].as_i64().unwrap();
    let answer = scene.binary.run(&["db", "restore", path, "--force", "-o", "json"]).success().json();
    assert_names(&answer, &["database", "from", "kept", "jobs", "requeued", "workers", "temp_files"]);
    assert_eq!((&answer["jobs"], &answer["requeued"], &answer["workers"]), (&json!(2), &json!(1), &json!(1)));
    assert_eq!(answer["from"], path);

    scene.binary.run(&["jobs", "show", &lost.to_string()]).expect_code(1);
    let job = scene.job(running);
    assert!(job["lease_epoch"].as_i64().unwrap() > epoch + 1_000, "{job:#}");
    assert!(job["state"] == "scheduled" || job["state"] == "pending", "{job:#}");
    assert_eq!(scene.state(waiting), "scheduled");
    scene.binary.run(&["db", "check"]).success();
    // The database of the lost time is whole too.
    let kept = PathBuf::from(answer["kept"].as_str().unwrap());
    assert!(kept.to_str().unwrap().contains("freightliner.db.before-restore-"), "{answer}");
    on(&scene.binary, &kept, &["db", "check"]).success();
    on(&scene.binary, &kept, &["jobs", "show", &lost.to_string()]).success();
    // And work goes on, with the next id where the backup ended.
    scene.destination.heal();
    scene.source.heal();
    scene.drain().success();
    assert_eq!(scene.state(running), "completed");
}

#[test]
fn a_backup_restores_where_no_database_is() {
    let binary = Binary::new();
    enqueue(&binary, "1");
    let file = backup(&binary, "copy.db");
    let target = binary.home().join("new/folder/freightliner.db");
    let output = on(&binary, &target, &["db", "restore", file.to_str().unwrap()]).success();
    assert!(output.text().contains("1 job") && !output.text().contains("kept"), "{output}");
    assert_eq!(on(&binary, &target, &["jobs", "list", "-o", "json"]).json()[0]["id"], 1);
    assert_eq!(target.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(target.parent().unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let left = names(target.parent().unwrap());
    assert!(left.iter().all(|name| name.starts_with("freightliner.db")), "{left:?}");
    assert!(file.exists(), "the backup stays");
}

#[test]
fn what_is_no_sound_backup_is_refused_and_nothing_changes() {
    let binary = Binary::new();
    enqueue(&binary, "1");
    let file = backup(&binary, "copy.db");
    let at = |name: &str, content: &[u8]| {
        let path = binary.home().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let whole = std::fs::read(&file).unwrap();
    let mut foreign = whole.clone();
    foreign[68..72].copy_from_slice(b"OTHR");
    let mut damaged = whole.clone();
    let page = damaged.len() / 2 / 4096 * 4096;
    damaged[page..page + 4096].fill(0xa5);
    let target = binary.database().file();
    let before = names(&database_folder(&binary));
    for (path, code, word) in [
        (at("empty", b""), "invalid", "no backup"),
        (at("text", b"not a database, but a text that is longer than a hundred bytes, so that there is a header to look at, of sorts"), "invalid", "no backup"),
        (at("foreign", &foreign), "invalid", "no backup"),
        (at("damaged", &damaged), "", "damaged"),
        (at("short", &whole[..whole.len() / 2]), "", "copy"),
        (binary.home().join("absent"), "not_found", "absent"),
        (binary.home(), "", "home"),
        (target.clone(), "usage", "itself"),
    ] {
        let output = binary.run(&["db", "restore", path.to_str().unwrap(), "--force", "-o", "json"]);
        assert!(matches!(output.code(), Some(1 | 2)), "{}: {output}", path.display());
        let error = error(&output);
        assert!(code.is_empty() || error["code"] == code, "{}: {error}", path.display());
        assert!(word == "copy" || error["message"].as_str().unwrap().contains(word), "{}: {error}", path.display());
        assert_eq!(number(&binary, "(SELECT count(*) FROM jobs)"), 1, "{}", path.display());
    }
    assert_eq!(names(&database_folder(&binary)), before, "nothing is left behind");
    binary.run(&["db", "restore"]).expect_code(2);
}

#[test]
fn a_newer_schema_is_refused() {
    let binary = Binary::new();
    enqueue(&binary, "1");
    let file = backup(&binary, "copy.db");
    let Some(sqlite3) = crate::support::need("sqlite3") else { return };
    let newer = "INSERT INTO schema_migrations VALUES (999, 'newer', 'x', 0)";
    assert!(std::process::Command::new(sqlite3).arg(&file).arg(newer).status().unwrap().success());
    let output = binary.run(&["db", "restore", file.to_str().unwrap(), "--force"]).expect_code(1);
    assert!(output.errors().contains("newer freightliner"), "{output}");
    assert_eq!(number(&binary, "(SELECT count(*) FROM jobs)"), 1);
}

#[test]
fn a_database_that_somebody_has_open_is_not_replaced() {
    let binary = Binary::new();
    enqueue(&binary, "1");
    let file = backup(&binary, "copy.db");
    let Some(lock) = WriteLock::take(&binary) else { return };
    let output = binary.run(&["db", "restore", file.to_str().unwrap(), "--force", "-o", "json"]).expect_code(1);
    assert_eq!(error(&output)["code"], "in_use", "{output}");
    lock.release();
    binary.run(&["db", "restore", file.to_str().unwrap(), "--force"]).success();
}

#[test]
fn a_log_of_the_old_database_is_never_read_into_the_new_one() {
    let binary = Binary::new();
    enqueue(&binary, "1");
    let file = backup(&binary, "copy.db");
    // A process that was killed leaves its log: here with a job that the backup does not know.
    let mut worker = binary.spawn(&["work"]);
    eventually("the worker", || (number(&binary, "(SELECT count(*) FROM workers)") == 1).then_some(()));
    enqueue(&binary, "2");
    assert!(worker.is_running());
    worker.kill9();
    let log = database_folder(&binary).join("freightliner.db-wal");
    assert!(log.metadata().unwrap().len() > 0, "the log was left");
    let answer = binary.run(&["db", "restore", file.to_str().unwrap(), "--force", "-o", "json"]).success().json();
    assert_eq!(number(&binary, "(SELECT count(*) FROM jobs)"), 1);
    binary.run(&["db", "check"]).success();
    let kept = PathBuf::from(answer["kept"].as_str().unwrap());
    assert_eq!(on(&binary, &kept, &["jobs", "list", "-o", "json"]).json().as_array().unwrap().len(), 2);
}

#[test]
fn a_restore_that_is_killed_leaves_the_old_database_or_the_new_one() {
    let binary = Binary::new();
    let lines: String = (0..2_000).map(|n| format!("a.example/x:{n} b.example/x:{n}\n")).collect();
    binary.run_with_input(&["enqueue", "--from-file", "-"], lines.as_bytes()).success();
    let file = backup(&binary, "copy.db");
    let folder = database_folder(&binary);
    let seen = |part: &str| names(&folder).iter().any(|name| name.contains(part));
    for part in ["making", "making", "before-restore"] {
        enqueue(&binary, &format!("late-{}", names(&folder).len()));
        let jobs = number(&binary, "(SELECT count(*) FROM jobs)");
        for name in names(&folder).iter().filter(|name| name.contains("before-restore")) {
            std::fs::remove_file(folder.join(name)).unwrap();
        }
        let mut restore = binary.spawn(&["db", "restore", file.to_str().unwrap(), "--force"]);
        eventually("the step", || (seen(part) || !restore.is_running()).then_some(()));
        restore.kill9();
        binary.run(&["db", "check"]).success();
        let now = number(&binary, "(SELECT count(*) FROM jobs)");
        assert!(now == jobs || now == 2_000, "neither the {jobs} of the old nor the 2000 of the new: {now}");
        if now == 2_000 {
            // The epochs were raised before it took the place.
            assert_eq!(number(&binary, "(SELECT count(*) FROM jobs WHERE lease_epoch > 1000)"), 2_000);
        }
    }
    binary.run(&["db", "restore", file.to_str().unwrap(), "--force"]).success();
    assert!(!seen("making"), "what the killed ones left is gone: {:?}", names(&folder));
    assert_eq!(number(&binary, "(SELECT count(*) FROM jobs)"), 2_000);
}

#[test]
fn an_unusable_database_can_be_replaced() {
    let binary = Binary::new();
    enqueue(&binary, "1");
    let file = backup(&binary, "copy.db");
    std::fs::write(binary.database().file(), "not a database, but a text that is long enough to look at").unwrap();
    let answer = binary.run(&["db", "restore", file.to_str().unwrap(), "--force", "-o", "json"]).success().json();
    assert_eq!(number(&binary, "(SELECT count(*) FROM jobs)"), 1);
    let kept = answer["kept"].as_str().unwrap();
    assert!(std::fs::read_to_string(kept).unwrap().starts_with("not a database"));
    binary.run(&["db", "check"]).success();
}

#[test]
fn a_database_restored_by_other_means_is_made_safe_in_place() {
    let binary = Binary::new();
    let id = enqueue(&binary, "1");
    let answer = binary.run(&["db", "restore", "--in-place", "-o", "json"]).success().json();
    assert_eq!((&answer["from"], &answer["kept"], &answer["jobs"]), (&json!(null), &json!(null), &json!(1)));
    assert_eq!(answer["database"], binary.database().url());
    assert!(crate::work::job(&binary, id)["lease_epoch"].as_i64().unwrap() > 1_000);
    let events = binary.run(&["jobs", "events", "1", "-o", "json"]).success().json();
    assert!(events.as_array().unwrap().iter().any(|event| event["reason"] == "restored"), "{events:#}");
    binary.run(&["db", "check"]).success();
    let worker = binary.spawn(&["work"]);
    eventually("the worker", || (number(&binary, "(SELECT count(*) FROM workers)") == 1).then_some(()));
    let output = binary.run(&["db", "restore", "--in-place"]).expect_code(1);
    assert!(output.errors().contains("at work"), "{output}");
    drop(worker);
}
