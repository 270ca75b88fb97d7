//! The write-ahead log: short while our own readers are always at work, long while somebody else keeps a snapshot, and short
//! again soon after.

use super::Snapshot;
use crate::support::binary::Binary;
use crate::support::{eventually, within};
use freightliner::clock::Clock;
use freightliner::store::{DatabaseUrl, JobFilter, Store};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const MIB: u64 = 1024 * 1024;
/// What the log never passes, as long as only our own programs read.
const BOUND: u64 = 64 * MIB;
/// A log of this length is not cut.
const SHORT: u64 = 8 * MIB;
/// How long all of our programs together wait for a snapshot, with the write lock held, before they take it for a foreign one.
const PATIENCE: Duration = Duration::from_secs(6);
/// Ample time for five commands on a busy machine.
const QUICK: Duration = Duration::from_secs(4);
/// How soon after the end of a foreign snapshot the log is short.
const SOON: Duration = Duration::from_secs(5);

fn log_size(binary: &Binary) -> u64 {
    std::fs::metadata(binary.database().file().with_extension("db-wal")).map_or(0, |facts| facts.len())
}

/// So many jobs with keys so long that each takes about ten KiB of log.
fn lines(jobs: Range<usize>) -> String {
    let key = "k".repeat(1800);
    let line = |n: usize| {
        serde_json::json!({
            "source": format!("a.example/x:{n}"), "destination": format!("b.example/x:{n}"),
            "idempotency_key": format!("{n} {key}"),
        })
    };
    jobs.map(|n| format!("{}\n", line(n))).collect()
}

#[test]
fn the_log_is_bounded_while_our_own_readers_are_always_at_work() {
    const JOBS: usize = 9_000;
    const READERS: usize = 3;
    let binary = Binary::new();
    binary.run(&["db", "migrate"]).success();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (done, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let url: DatabaseUrl = binary.database().url().parse().unwrap();
    let store = runtime.block_on(Store::open(&url, Clock::System)).unwrap();
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..READERS {
        let (store, done, reads) = (store.clone(), done.clone(), reads.clone());
        let read = async move {
            while !done.load(Ordering::SeqCst) {
                store.jobs(&JobFilter::default(), None, 500).await.unwrap();
                store.stats().await.unwrap();
                reads.fetch_add(1, Ordering::SeqCst);
            }
        };
        readers.spawn_on(read, runtime.handle());
    }
    // Other processes of ours read too.
    let mut list = binary.spawn(&["jobs", "list", "--limit", "1000"]);
    let mut load = binary.spawn_with_input(&["enqueue", "--from-file", "-"], lines(0..JOBS).as_bytes());
    let mut longest = 0;
    while load.is_running() {
        longest = longest.max(log_size(&binary));
        if !list.is_running() {
            list = binary.spawn(&["jobs", "list", "--limit", "1000"]);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    load.finish().success();
    done.store(true, Ordering::SeqCst);
    runtime.block_on(async { while readers.join_next().await.is_some() {} });
    list.finish().success();
    let written = std::fs::metadata(binary.database().file()).unwrap().len();
    assert!(written > BOUND, "not enough was written to say anything: {written} bytes");
    assert!(longest > SHORT, "the log was never long enough to be cut: {longest} bytes");
    assert!(reads.load(Ordering::SeqCst) > 10, "hardly anything was read");
    assert!(longest < BOUND, "the log was {longest} bytes long");
    runtime.block_on(store.close());
}

#[test]
fn the_log_is_bounded_while_backups_are_made_one_after_the_other() {
    const JOBS: usize = 9_000;
    let binary = Binary::new();
    binary.run(&["db", "migrate"]).success();
    // One that claims, and settles what cannot be copied.
    let worker = binary.spawn(&["work"]);
    let mut load = binary.spawn_with_input(&["enqueue", "--from-file", "-"], lines(0..JOBS).as_bytes());
    let (mut backups, mut longest, mut before) = (0, 0, 0);
    while load.is_running() {
        let file = binary.home().join(format!("copy-{backups}.db"));
        let mut backup = binary.spawn(&["db", "backup", file.to_str().unwrap()]);
        while backup.is_running() {
            longest = longest.max(log_size(&binary));
            std::thread::sleep(Duration::from_millis(1));
        }
        backup.finish().success();
        backups += 1;
        let on = |arguments: &[&str]| {
            let url = format!("sqlite:{}", file.display());
            binary.run(&[&["--database", &url], arguments].concat()).success()
        };
        on(&["db", "check"]);
        let rows = on(&["sql", "SELECT max(seq) AS seq FROM job_events", "-o", "json"]).json();
        let last = rows[0]["seq"].as_i64().unwrap_or(0);
        assert!(last >= before, "a later backup is of a later moment");
        before = last;
        std::fs::remove_file(&file).unwrap();
    }
    load.finish().success();
    worker.kill9();
    assert!(backups > 1 && before > 0, "nothing was copied under load: {backups}");
    assert!(longest > MIB, "the log was never long: {longest} bytes");
    assert!(longest < BOUND, "the log was {longest} bytes long");
}

/// Between the beginnings of queries that overlap.
const BETWEEN: Duration = Duration::from_millis(1300);
/// A query without an end, of a snapshot.
const ENDLESS: &str =
    "WITH RECURSIVE n (i) AS (SELECT COUNT(*) FROM jobs UNION ALL SELECT i + 1 FROM n) SELECT MAX(i) FROM n";

/// Has jobs enqueued by one process after the other, as fast as that goes, while queries always overlap. Returns how long the log
/// was at most, and the words of the queries.
fn load_under_queries(binary: &Binary, loads: &[usize], readers: u32, timeout: &str) -> (u64, Vec<String>) {
    let query = || binary.spawn(&["sql", ENDLESS, "--timeout", timeout]);
    binary.run(&["db", "migrate"]).success();
    let (mut running, mut said) = (vec![query()], Vec::new());
    let (start, mut longest, mut first) = (tokio::time::Instant::now(), 0, 0);
    for jobs in loads {
        let list = lines(first..first + jobs);
        first += jobs;
        let mut load = binary.spawn_with_input(&["enqueue", "--from-file", "-"], list.as_bytes());
        while load.is_running() {
            longest = longest.max(log_size(binary));
            for place in &mut running {
                if !place.is_running() {
                    said.push(std::mem::replace(place, query()).finish().expect_code(1).errors());
                }
            }
            // One after the other, so that there is never a moment without one.
            let begun = u32::try_from(running.len()).unwrap();
            if begun < readers && start.elapsed() > BETWEEN * begun {
                running.push(query());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        load.finish().success();
    }
    said.extend(running.into_iter().map(|query| query.finish().expect_code(1).errors()));
    let written = std::fs::metadata(binary.database().file()).unwrap().len();
    assert!(written > BOUND, "not enough was written to say anything: {written} bytes");
    (longest, said)
}

#[test]
fn the_log_is_bounded_while_queries_overlap() {
    const TIMEOUT: &str = "4s";
    // A process that has written all the time knows what is in its way; one that has just come does not.
    for loads in [&[12_000][..], &[1_000; 12]] {
        let binary = Binary::new();
        let (longest, said) = load_under_queries(&binary, loads, 3, TIMEOUT);
        assert!(longest > SHORT, "the queries were in nobody's way: {longest} bytes");
        assert!(longest < BOUND, "the log was {longest} bytes long");
        assert!(said.len() > 3, "they overlapped all the time: {said:?}");
        assert!(said.iter().all(|said| said.contains(TIMEOUT)), "each had its time: {said:?}");
    }
}

#[test]
fn a_query_that_takes_too_long_ends_when_writers_wait_for_it() {
    let binary = Binary::new();
    let (longest, said) = load_under_queries(&binary, &[9_000], 1, "30s");
    assert!(longest > SHORT && longest < BOUND, "the log was {longest} bytes long");
    assert!(said[0].contains("jobs waited for it") && said[0].contains("db backup"), "{said:?}");
}

#[test]
fn a_foreign_snapshot_makes_the_log_grow_until_it_ends() {
    let binary = Binary::new();
    let workers: Vec<_> = (0..4).map(|_| binary.spawn(&["work"])).collect();
    let worker = &workers[0];
    eventually("the workers", || workers.iter().all(|worker| worker.stderr().contains("working")).then_some(()));
    let Some(snapshot) = Snapshot::take(&binary) else { return };
    let grow = "PRAGMA wal_autocheckpoint = 0; CREATE TABLE ballast (b BLOB);
        WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 70)
        INSERT INTO ballast SELECT zeroblob(1048576) FROM n";
    binary.sql(grow).unwrap();
    assert!(log_size(&binary) > BOUND);
    // Programs that start now do not wait for it, and do not have others wait.
    let start = tokio::time::Instant::now();
    for n in 0..5 {
        binary.run(&["enqueue", "a.example/x", &format!("b.example/x:{n}"), "--in", "1h"]).success();
    }
    let took = start.elapsed();
    assert!(took < PATIENCE + QUICK, "five rows took {took:?}");
    eventually("a warning", || worker.stderr().contains("the write-ahead log grows").then_some(()));
    snapshot.end();
    // Nobody writes anything any more.
    let cut = within(SOON, || (log_size(&binary) < SHORT).then_some(()));
    assert!(cut.is_some(), "{} bytes of log are left after {SOON:?}\n{}", log_size(&binary), worker.stderr());
    eventually("the good news", || worker.stderr().contains("short again").then_some(()));
    let warnings = worker.stderr().matches("the write-ahead log grows").count();
    assert_eq!(warnings, 1, "{}", worker.stderr());
}
