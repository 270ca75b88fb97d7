//! Few file descriptors: slower, or refused with a clear message, never wrong.

use super::{Scene, assert_clean, outcomes};
use crate::support::binary::Binary;
use crate::support::database::Database;
use crate::support::{PATIENCE, eventually};
use freightliner::worker::descriptors::BASE;

const JOBS: usize = 24;

#[test]
fn many_workers_and_few_descriptors_are_slower_and_nothing_else() {
    let Some(prlimit) = crate::support::need("prlimit") else { return };
    let scene = Scene::new();
    let lines: String = (0..JOBS)
        .map(|n| format!("{} {}\n", scene.from(), scene.destination.reference("many/app", &format!("t{n}"))))
        .collect();
    scene.binary.run_with_input(&["enqueue", "--from-file", "-"], lines.as_bytes()).success();
    let limited = Binary::of(prlimit)
        .env("FREIGHTLINER_DATABASE_URL", scene.binary.database().url())
        .env("FREIGHTLINER_STATE_DIR", scene.binary.state().display().to_string());
    let freightliner = env!("CARGO_BIN_EXE_freightliner");
    let output = limited.run(&["--nofile=64", freightliner, "work", "--drain", "--concurrency", "32"]).success();
    assert!(output.text().starts_with(&format!("{JOBS} completed, 0 failed")), "{output}");
    assert!(output.errors().contains("limit of open files"), "it says why it is slow: {output}");
    assert!(!output.errors().contains("panicked"), "{output}");
    for n in 0..JOBS {
        scene.destination.assert_holds("many/app", &format!("t{n}"), &scene.image);
        assert_eq!(
            outcomes(&scene.binary, i64::try_from(n).unwrap() + 1),
            ["completed"],
            "no attempt was wasted: {output}"
        );
    }
    assert_clean(&scene.binary);
}

#[test]
fn too_few_descriptors_are_refused_before_anything_is_claimed() {
    let Some(prlimit) = crate::support::need("prlimit") else { return };
    let scene = Scene::new();
    let id = scene.enqueue();
    let limited = Binary::of(prlimit)
        .env("FREIGHTLINER_DATABASE_URL", scene.binary.database().url())
        .env("FREIGHTLINER_STATE_DIR", scene.binary.state().display().to_string());
    let freightliner = env!("CARGO_BIN_EXE_freightliner");
    let to = scene.destination.reference("other/app", "v1");
    let replicate: [&str; 3] = ["replicate", &scene.from(), &to];
    for limit in [8, 10, 12, 14, 16, 18, 20, 22, 24, 28, 32, 40] {
        for command in [&["work", "--drain"][..], &replicate] {
            let limit = format!("--nofile={limit}");
            let output = limited.run(&[&[&limit, freightliner][..], command].concat()).expect_code(1);
            let said = output.errors();
            assert_eq!(said.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{limit}: {output}");
            assert!(said.contains("open files") && !said.contains("panicked"), "{limit}: {output}");
            assert_eq!(output.text(), "", "{limit}: {output}");
        }
    }
    assert_eq!((scene.state(id).as_str(), scene.outcomes(id)), ("pending", Vec::new()));
    scene.drain().success();
    scene.assert_completed(id, &["completed"]);
}

/// What a sweep, a lookup of a name or a new connection of the writer holds for a moment, when nobody counts.
const FOR_A_MOMENT: u64 = 4;
/// What may be kept in reserve without a reason.
const RESERVE: u64 = 12;

#[test]
fn what_a_worker_needs_besides_its_copies_is_known() {
    let counted = Database::all().into_iter().map(|database| {
        let binary = Binary::new().on(database);
        let mut worker = binary.spawn(&["work"]);
        eventually("the worker", || worker.stderr().contains("working").then_some(()));
        let open = || std::fs::read_dir(format!("/proc/{}/fd", worker.id())).map_or(0, |open| open.count() as u64);
        let mut most = open();
        // Nobody answers there: it looks, claims, writes to the history and holds nothing for a copy.
        for id in 1..=8 {
            binary.run(&["enqueue", "127.0.0.1:1/a", &format!("127.0.0.1:1/b:{id}")]).success();
            eventually("the end of an attempt", || {
                most = most.max(open());
                (!outcomes(&binary, id).is_empty()).then_some(())
            });
        }
        worker.sigterm();
        worker.wait(PATIENCE).success();
        assert!(most + FOR_A_MOMENT <= BASE, "{most} of {BASE}");
        most
    });
    let most = counted.max().unwrap();
    assert!(most + RESERVE >= BASE, "{BASE} for {most}: copies wait for nothing");
}
