//! A driver for the real binary: its own state folder, a clean environment, signals, and its database by `sqlite3`.

use super::database::Database;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long one call of the binary may take before the test fails.
const RUN_LIMIT: Duration = Duration::from_secs(120);

/// What a finished program left.
#[derive(Debug, Clone)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// Most memory it was seen to hold, KiB; 0 when it was too fast to be looked at.
    pub peak_memory_kib: u64,
}

impl From<std::process::Output> for Output {
    fn from(output: std::process::Output) -> Self {
        Self { status: output.status, stdout: output.stdout, stderr: output.stderr, peak_memory_kib: 0 }
    }
}

impl Output {
    /// The exit code; None when a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Standard output as one JSON value; panics, showing both streams, when it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {self}"))
    }

    /// Panics unless the exit code is this; gives itself back.
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code(), Some(code), "{self}");
        self
    }

    pub fn success(self) -> Self {
        self.expect_code(0)
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}\n--- stdout\n{}\n--- stderr\n{}", self.status, self.text(), self.errors())
    }
}

/// The binary with a home, a state folder and a database of its own; all gone when dropped.
pub struct Binary {
    program: PathBuf,
    folder: tempfile::TempDir,
    database: Database,
    environment: Vec<(String, String)>,
    calls: AtomicU64,
}

impl Binary {
    /// The program under test.
    pub fn new() -> Self {
        Self::of(env!("CARGO_BIN_EXE_freightliner"))
    }

    /// Any other program in the same surroundings.
    pub fn of(program: impl Into<PathBuf>) -> Self {
        let folder = tempfile::tempdir().expect("a temp folder");
        for name in ["home", "state", "calls"] {
            std::fs::create_dir(folder.path().join(name)).expect("make a folder");
        }
        let (database, calls) = (Database::sqlite(), AtomicU64::new(0));
        Self { program: program.into(), folder, database, environment: Vec::new(), calls }
    }

    /// Works on this database instead of one of its own.
    pub fn on(mut self, database: Database) -> Self {
        self.database = database;
        self
    }

    /// One more variable, for all calls.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Writes `~/.docker/config.json` of this binary's home.
    pub fn docker_config(&self, config: &Value) {
        let folder = self.home().join(".docker");
        std::fs::create_dir_all(&folder).expect("make a folder");
        std::fs::write(folder.join("config.json"), config.to_string()).expect("write config.json");
    }

    /// Credentials for one registry, in `~/.docker/config.json`.
    pub fn docker_login(&self, registry: &str, user: &str, password: &str) {
        use base64::Engine as _;
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let mut auths = serde_json::Map::new();
        auths.insert(registry.to_owned(), serde_json::json!({ "auth": pair }));
        self.docker_config(&serde_json::json!({ "auths": auths }));
    }

    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Files below `STATE_DIR/tmp` and `STATE_DIR/workers`, for "nothing is left" checks.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        ["tmp", "workers"].into_iter().flat_map(|name| files_below(&self.state().join(name))).collect()
    }

    /// Runs it to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.spawn(arguments).finish()
    }

    /// Runs it to its end with this standard input.
    pub fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Output {
        self.spawn_with_input(arguments, input).finish()
    }

    /// Starts it with this standard input.
    pub fn spawn_with_input(&self, arguments: &[&str], input: &[u8]) -> Running {
        let path = self.folder.path().join(format!("calls/{}.in", self.calls.load(Ordering::SeqCst)));
        std::fs::File::create(&path).and_then(|mut file| file.write_all(input)).expect("write the input");
        self.start(arguments, File::open(path).expect("open the input").into())
    }

    /// Starts it. The handle kills it when dropped before its end.
    pub fn spawn(&self, arguments: &[&str]) -> Running {
        self.start(arguments, Stdio::null())
    }

    fn start(&self, arguments: &[&str], input: Stdio) -> Running {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let path = |name: &str| self.folder.path().join(format!("calls/{call}.{name}"));
        let (stdout, stderr) = (path("out"), path("err"));
        let child = Command::new(&self.program)
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home())
            .env("TZ", "UTC")
            .env("FREIGHTLINER_DATABASE_URL", self.database.url())
            .env("FREIGHTLINER_STATE_DIR", self.state())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.folder.path())
            .stdin(input)
            .stdout(File::create(&stdout).expect("make a file"))
            .stderr(File::create(&stderr).expect("make a file"))
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        Running { child, stdout, stderr, peak_memory_kib: 0 }
    }

    /// Rows of a query by the database's real shell, `sqlite3` or `psql`, columns separated by `|`; None (said loudly) without
    /// that shell.
    pub fn sql(&self, query: &str) -> Option<Vec<String>> {
        self.database.shell(query)?;
        let rows = self.try_sql(query);
        Some(rows.unwrap_or_else(|output| panic!("{query}: {output}")))
    }

    /// As `sql`, where it may fail. Panics without that shell.
    pub fn try_sql(&self, query: &str) -> Result<Vec<String>, Output> {
        let mut shell = self.database.shell(query).expect("the database's shell");
        let output = Output::from(shell.env("HOME", self.home()).output().expect("run the database's shell"));
        if !output.status.success() {
            return Err(output);
        }
        Ok(output.text().lines().map(str::to_owned).collect())
    }

    /// As `sql`, for statements that must be refused: what the shell said. None without that shell.
    pub fn sql_refused(&self, statement: &str) -> Option<String> {
        self.database.shell(statement)?;
        match self.try_sql(statement) {
            Ok(rows) => panic!("{statement} was accepted: {rows:?}"),
            Err(output) => Some(output.errors()),
        }
    }
}

/// A started program. Killed when dropped before its end.
pub struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    peak_memory_kib: u64,
}

impl Running {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where standard error goes; standard output is beside it, with `.out`.
    pub fn stderr_file(&self) -> &Path {
        &self.stderr
    }

    /// Standard output so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stdout).expect("read stdout")).into_owned()
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stderr).expect("read stderr")).into_owned()
    }

    /// `kill -9`, and waits for the end.
    pub fn kill9(mut self) -> Output {
        self.signal(Signal::KILL);
        self.wait(super::PATIENCE)
    }

    pub fn sigterm(&mut self) {
        self.signal(Signal::TERM);
    }

    pub fn sigint(&mut self) {
        self.signal(Signal::INT);
    }

    /// Stops the process; it stands still on return.
    pub fn sigstop(&mut self) {
        self.signal(Signal::STOP);
        super::eventually("the process to stand still", || (self.kernel_state()? == 'T').then_some(()));
    }

    pub fn sigcont(&mut self) {
        self.signal(Signal::CONT);
    }

    fn signal(&mut self, signal: Signal) {
        // Until it was waited for, its id cannot be anybody else's.
        if self.is_running() {
            kill_process(Pid::from_child(&self.child), signal).expect("send a signal");
        }
    }

    /// The state letter in `/proc/PID/stat`.
    fn kernel_state(&self) -> Option<char> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).ok()?;
        text.rsplit_once(") ")?.1.chars().next()
    }

    /// The processor time it has used so far.
    pub fn cpu_time(&self) -> Duration {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).expect("read the process's numbers");
        let fields: Vec<&str> = text.rsplit_once(") ").expect("a name in brackets").1.split(' ').collect();
        // Time in user mode and in the kernel: fields 14 and 15 of proc_pid_stat(5), the first one here being field 3.
        let ticks: u64 = [fields[11], fields[12]].iter().map(|field| field.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("ask for the child").is_none()
    }

    /// Most memory the process has held so far, KiB (`VmHWM`).
    pub fn peak_memory_kib(&mut self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        self.peak_memory_kib = self.peak_memory_kib.max(peak.unwrap_or(0));
        self.peak_memory_kib
    }

    /// Waits for the end, at most `limit`; then kills it and panics, showing what it wrote.
    pub fn wait(&mut self, limit: Duration) -> Output {
        let ended = super::within(limit, || {
            self.peak_memory_kib();
            self.child.try_wait().expect("ask for the child")
        });
        let status = ended.unwrap_or_else(|| {
            let _ = self.child.kill();
            let _ = self.child.wait();
            panic!("not finished after {limit:?}\n--- stdout\n{}\n--- stderr\n{}", self.stdout(), self.stderr());
        });
        let read = |path: &Path| std::fs::read(path).expect("read what it wrote");
        let (stdout, stderr) = (read(&self.stdout), read(&self.stderr));
        Output { status, stdout, stderr, peak_memory_kib: self.peak_memory_kib }
    }

    /// Waits for the end, for as long as any call may take.
    pub fn finish(mut self) -> Output {
        self.wait(RUN_LIMIT)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .flatten()
        .flat_map(|entry| if entry.path().is_dir() { files_below(&entry.path()) } else { vec![entry.path()] })
        .collect()
}
