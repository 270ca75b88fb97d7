//! Whole processes at work: killed, stopped, locked out, without space, and what their jobs look like afterwards.

mod clocks;
mod descriptors;
mod disk;
mod drain;
mod full_disk;
mod killed;
mod late;
mod locked;
mod log_size;
mod migrate;
mod noticed;
mod power;
mod retries;
mod schedules;
mod server;
mod shared;
mod stopped;
mod swept;

use crate::support::binary::{Binary, Output};
use crate::support::fake::{Fake, Fault, Matcher};
use crate::support::image::{Image, ImageBuilder};
use serde_json::Value;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

/// The repository at both registries.
pub const REPOSITORY: &str = "team/app";
/// How much of a held layer is sent before it stalls, bytes: more than any buffer on the way.
const HELD_AFTER: u64 = 300_000;
/// The size of a layer, bytes.
const LAYER: usize = 600_000;

/// Two registries, an image at the first one, and a program with a queue of its own.
pub struct Scene {
    pub binary: Binary,
    pub source: Fake,
    pub destination: Fake,
    pub image: Image,
}

impl Scene {
    pub fn new() -> Self {
        Self::with(Binary::new())
    }

    /// With pauses between attempts that a test can wait for.
    pub fn impatient() -> Self {
        let binary = Binary::new().env("FREIGHTLINER_RETRY_BASE_MS", "30").env("FREIGHTLINER_REGISTRY_TRIES", "1");
        Self::with(binary)
    }

    pub fn with(binary: Binary) -> Self {
        let (source, destination) = (Fake::start(), Fake::start());
        let image = ImageBuilder::oci(1).layers(2, LAYER).build();
        source.put_image(REPOSITORY, "v1", &image);
        Self { binary, source, destination, image }
    }

    /// The image at the source.
    pub fn from(&self) -> String {
        self.source.reference(REPOSITORY, "v1")
    }

    /// The tag at the destination.
    pub fn to(&self) -> String {
        self.destination.reference(REPOSITORY, "v1")
    }

    /// Has the copy of the image queued; the job's id.
    pub fn enqueue(&self) -> i64 {
        self.enqueue_with(&[])
    }

    pub fn enqueue_with(&self, options: &[&str]) -> i64 {
        self.enqueue_to(&self.to(), options)
    }

    pub fn enqueue_to(&self, destination: &str, options: &[&str]) -> i64 {
        let from = self.from();
        enqueue(&self.binary, &[&["enqueue", &from, destination], options].concat())
    }

    /// The first fetch of the first layer stalls in the middle, at the gate of this name.
    pub fn hold_layer(&self, gate: &str) {
        let layer = &self.image.layers()[0].digest;
        self.source
            .fault(Matcher::new("GET", layer), Fault::StallBodyAfter { bytes: HELD_AFTER, name: gate.to_owned() });
    }

    /// Works until nothing is left.
    pub fn drain(&self) -> Output {
        self.binary.run(&["work", "--drain"])
    }

    pub fn job(&self, id: i64) -> Value {
        job(&self.binary, id)
    }

    pub fn state(&self, id: i64) -> String {
        self.job(id)["state"].as_str().unwrap().to_owned()
    }

    /// How the attempts of a job ended, oldest first.
    pub fn outcomes(&self, id: i64) -> Vec<String> {
        outcomes(&self.binary, id)
    }

    /// The job is completed after just these attempts, the destination is whole, nothing is left behind.
    pub fn assert_completed(&self, id: i64, attempts: &[&str]) {
        let job = self.job(id);
        assert_eq!(job["state"], "completed", "{job:#}");
        assert_eq!(job["report"]["digest"], self.image.digest.as_str(), "{job:#}");
        assert_eq!(self.outcomes(id), attempts);
        self.destination.assert_holds(REPOSITORY, "v1", &self.image);
        assert_clean(&self.binary);
    }
}

/// The program with leases that end soon.
pub fn short_leases() -> Binary {
    Binary::new()
        .env("FREIGHTLINER_WORKER_LEASE_TTL_SECS", "3")
        .env("FREIGHTLINER_WORKER_LEASE_RENEWAL_SECS", "1")
        .env("FREIGHTLINER_WORKER_LEASE_MARGIN_SECS", "1")
        .env("FREIGHTLINER_WORKER_SWEEP_INTERVAL_SECS", "1")
}

/// The id that an `enqueue` prints.
pub fn enqueue(binary: &Binary, arguments: &[&str]) -> i64 {
    let output = binary.run(&[arguments, &["-o", "json"]].concat()).success();
    let answer = output.json();
    assert_eq!(answer["created"], true, "{output}");
    answer["id"].as_i64().unwrap()
}

pub fn job(binary: &Binary, id: i64) -> Value {
    binary.run(&["jobs", "show", &id.to_string(), "-o", "json"]).success().json()
}

pub fn outcomes(binary: &Binary, id: i64) -> Vec<String> {
    let query = format!("SELECT outcome FROM audit_attempts WHERE job_id = {id} ORDER BY lease_epoch");
    let rows = binary.run(&["sql", &query, "-o", "json"]).success().json();
    rows.as_array().unwrap().iter().map(|row| row["outcome"].as_str().unwrap().to_owned()).collect()
}

/// With no process running: no file is left, none is registered, nobody is known, and the database is whole.
pub fn assert_clean(binary: &Binary) {
    assert_eq!(binary.leftovers(), Vec::<PathBuf>::new());
    let query = "SELECT (SELECT count(*) FROM temp_files) AS files, (SELECT count(*) FROM workers) AS workers";
    let left = binary.run(&["sql", query, "-o", "json"]).success().json();
    assert_eq!((&left[0]["files"], &left[0]["workers"]), (&0.into(), &0.into()), "{left}");
    binary.run(&["db", "check"]).success();
    if !binary.database().is_postgres()
        && let Some(found) = binary.sql("PRAGMA integrity_check")
    {
        assert_eq!(found, ["ok"]);
    }
}

/// A transaction of a `sqlite3` shell that stays open.
struct OpenTransaction {
    shell: Child,
    input: Option<ChildStdin>,
}

impl OpenTransaction {
    /// It has run these statements on return. None (said loudly) without that shell.
    fn begin(binary: &Binary, statements: &str) -> Option<Self> {
        let program = crate::support::need("sqlite3")?;
        let said = binary.home().join(format!("begun-{}", uuid::Uuid::now_v7()));
        let mut shell = Command::new(program)
            .args(["-batch", "-bail"])
            .arg(binary.database().file())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("run sqlite3");
        let mut input = shell.stdin.take().expect("a pipe");
        // The shell buffers what it prints into a pipe, so it says by a file that it has come so far.
        writeln!(input, ".timeout 20000\n{statements}\n.shell touch '{}'", said.display()).expect("write to sqlite3");
        input.flush().expect("write to sqlite3");
        crate::support::eventually("the open transaction", || said.exists().then_some(()));
        Some(Self { shell, input: Some(input) })
    }

    /// Commits; it is over on return.
    fn end(mut self) {
        let mut input = self.input.take().expect("not ended yet");
        writeln!(input, "COMMIT;").expect("write to sqlite3");
        drop(input);
        assert!(self.shell.wait().expect("wait for sqlite3").success());
    }
}

impl Drop for OpenTransaction {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// The database's write lock in the hands of a `sqlite3` shell.
pub struct WriteLock(OpenTransaction);

impl WriteLock {
    /// Holds the lock on return. None (said loudly) without that shell.
    pub fn take(binary: &Binary) -> Option<Self> {
        OpenTransaction::begin(binary, "BEGIN IMMEDIATE;").map(Self)
    }

    /// Gives the lock back; it is free on return.
    pub fn release(self) {
        self.0.end();
    }
}

/// A `sqlite3` shell that has read and does not end its transaction.
pub struct Snapshot(OpenTransaction);

impl Snapshot {
    /// Holds the snapshot on return. None (said loudly) without that shell.
    pub fn take(binary: &Binary) -> Option<Self> {
        OpenTransaction::begin(binary, "BEGIN; SELECT count(*) FROM jobs;").map(Self)
    }

    /// Lets it go.
    pub fn end(self) {
        self.0.end();
    }
}
