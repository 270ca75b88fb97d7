//! A PostgreSQL server of our own: its files in a temp folder, its only door a socket in the same place.
//!
//! It is started through a shell that holds a pipe from this process: when the process ends, however it ends, the pipe
//! closes, and the shell stops the server and removes the folder. PostgreSQL does not run as root; then it runs as the user
//! `postgres`, whom Debian's package makes.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// Where distributions put the programs that are not in PATH.
const HOMES: [&str; 2] = ["/usr/lib/postgresql", "/usr/pgsql"];
/// How the server is set up: many small databases, none of which outlives the test.
const SETTINGS: &[&str] = &[
    "listen_addresses=",
    "max_connections=400",
    "shared_buffers=64MB",
    "full_page_writes=off",
    "log_min_messages=fatal",
    "max_wal_size=512MB",
];

/// The server. Stopped when its last user is gone.
#[derive(Debug)]
pub struct Cluster {
    programs: PathBuf,
    folder: PathBuf,
    durable: bool,
    shell: Mutex<Option<Child>>,
    databases: AtomicU64,
}

impl Cluster {
    /// The one that all tests of this process share: it forgets everything in a crash. None, said loudly, where PostgreSQL is
    /// not installed.
    pub fn shared() -> Option<Arc<Self>> {
        // It lives as long as the process; the shell ends it then.
        static SHARED: OnceLock<Option<Arc<Cluster>>> = OnceLock::new();
        match SHARED.get_or_init(|| Self::start(false)) {
            Some(cluster) => Some(cluster.clone()),
            None => {
                super::need("initdb");
                None
            }
        }
    }

    /// One for a test that stops or breaks it; what it acknowledges survives that.
    pub fn own() -> Option<Arc<Self>> {
        Self::start(true)
    }

    fn start(durable: bool) -> Option<Arc<Self>> {
        let programs = programs()?;
        let folder = folder();
        let initdb = as_server_user(&programs.join("initdb"))
            .arg("-D")
            .arg(folder.join("data"))
            .args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"])
            .current_dir("/")
            .output()
            .expect("run initdb");
        assert!(initdb.status.success(), "initdb: {}", String::from_utf8_lossy(&initdb.stderr));
        let cluster = Self { programs, folder, durable, shell: Mutex::default(), databases: AtomicU64::new(0) };
        cluster.launch();
        Some(Arc::new(cluster))
    }

    /// Starts the server and waits until it answers.
    fn launch(&self) {
        let mut server = as_server_user(&self.programs.join("postgres"));
        server.arg("-D").arg(self.folder.join("data")).arg("-k").arg(&self.folder);
        for setting in SETTINGS {
            server.arg("-c").arg(setting);
        }
        let fsync = if self.durable { "on" } else { "off" };
        server.arg("-c").arg(format!("fsync={fsync}"));
        // Ends when the pipe from this process does. With the server gone already the folder stays, for another launch.
        let script = "folder=$1; shift; \"$@\" >\"$folder/log\" 2>&1 & server=$!
            cat >/dev/null; server=$(head -n 1 \"$folder/data/postmaster.pid\" 2>/dev/null || echo $server)
            kill -INT $server 2>/dev/null; while kill -0 $server 2>/dev/null; do sleep 0.05; done
            wait; rm -rf \"$folder\"";
        let child = Command::new("sh")
            .args(["-c", script, "cluster"])
            .arg(&self.folder)
            .arg(server.get_program())
            .args(server.get_args())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start postgres");
        *self.shell.lock().expect("no panic holds this") = Some(child);
        self.wait_until_ready();
    }

    /// Waits until the server answers.
    pub fn wait_until_ready(&self) {
        super::eventually("postgres to answer", || {
            let answer = self.psql("postgres", "SELECT 1").output().expect("run psql");
            answer.status.success().then_some(())
        });
    }

    /// `pg_ctl restart -m immediate`: the server ends as in a crash, and starts again. Returns when it answers.
    pub fn crash_and_restart(&self) {
        let output = as_server_user(&self.programs.join("pg_ctl"))
            .args(["restart", "-m", "immediate", "-w", "-s", "-D"])
            .arg(self.folder.join("data"))
            .arg("-l")
            .arg(self.folder.join("log-of-restarts"))
            .current_dir("/")
            .output()
            .expect("run pg_ctl");
        assert!(output.status.success(), "pg_ctl: {}", String::from_utf8_lossy(&output.stderr));
        self.wait_until_ready();
    }

    /// Sends the postmaster and all its children a signal, for example STOP.
    pub fn signal(&self, name: &str) {
        let pid = std::fs::read_to_string(self.folder.join("data/postmaster.pid")).expect("a running server");
        let pid = pid.lines().next().expect("a pid").to_owned();
        let children = Command::new("ps").args(["-o", "pid=", "--ppid", &pid]).output().expect("run ps");
        let children = String::from_utf8_lossy(&children.stdout).into_owned();
        for pid in children.split_whitespace().chain([pid.as_str()]) {
            let _ = Command::new("kill").args([&format!("-{name}"), pid]).status();
        }
    }

    /// The folder of the server's socket.
    pub fn socket(&self) -> &Path {
        &self.folder
    }

    /// `psql` with a statement.
    pub fn psql(&self, database: &str, statement: &str) -> Command {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-h"])
            .arg(&self.folder)
            .args(["-d", database, "-c", statement]);
        psql
    }

    fn run(&self, database: &str, statement: &str) {
        let output = self.psql(database, statement).output().expect("run psql");
        assert!(output.status.success(), "psql: {statement}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut shell) = self.shell.lock().ok().and_then(|mut shell| shell.take()) {
            drop(shell.stdin.take());
            let _ = shell.wait();
        }
    }
}

/// The newest installed programs of the server.
fn programs() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = HOMES
        .iter()
        .filter_map(|home| std::fs::read_dir(home).ok())
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin"))).filter(|(_, programs)| programs.join("initdb").is_file())
        })
        .collect();
    found.sort_unstable();
    let on_path = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).find(|folder| folder.join("initdb").is_file())
    };
    found.pop().map(|(_, programs)| programs).or_else(on_path)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn as_server_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program);
    command
}

/// A folder that the server's user owns; the shell removes it.
fn folder() -> PathBuf {
    let within = |parent: &Path| {
        let folder = tempfile::Builder::new().prefix("pg").tempdir_in(parent).expect("a temp folder").keep();
        if !is_root() {
            return Some(folder);
        }
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let user = Command::new("id").args(["-u", "postgres"]).output().expect("run id");
        let user = String::from_utf8_lossy(&user.stdout).trim().parse().expect("the user postgres");
        chown(&folder, Some(user), None).expect("chown");
        let entered = as_server_user(Path::new("test")).arg("-w").arg(&folder).current_dir("/").status();
        if entered.expect("run runuser").success() {
            return Some(folder);
        }
        std::fs::remove_dir(&folder).expect("remove the folder");
        None
    };
    // A private TMPDIR of root's cannot be entered by another user.
    within(&std::env::temp_dir()).or_else(|| within(Path::new("/tmp"))).expect("a folder for the user postgres")
}

/// A database of a cluster, dropped when this is.
#[derive(Debug)]
pub struct OwnDatabase {
    pub cluster: Arc<Cluster>,
    pub name: String,
}

impl OwnDatabase {
    fn create_named(cluster: Arc<Cluster>, name: String) -> Self {
        cluster.run("postgres", &format!("CREATE DATABASE {name}"));
        Self { cluster, name }
    }

    pub fn create(cluster: Arc<Cluster>) -> Self {
        let name = format!("test_{}", cluster.databases.fetch_add(1, Ordering::SeqCst));
        Self::create_named(cluster, name)
    }

    pub fn url(&self) -> String {
        let socket = self.cluster.socket().to_str().expect("a path in UTF-8").replace('/', "%2F");
        format!("postgres:///{}?host={socket}&user=postgres", self.name)
    }
}

impl Drop for OwnDatabase {
    fn drop(&mut self) {
        // A server that the test has stopped is removed as a whole.
        let drop = format!("SET statement_timeout = 10000; DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let mut psql = self.cluster.psql("postgres", "");
        for statement in drop.split("; ") {
            psql.args(["-c", statement]);
        }
        let _ = psql.env("PGCONNECT_TIMEOUT", "5").output();
    }
}

/// How long a server that was stopped is given to be noticed.
pub const NOTICE: Duration = Duration::from_secs(20);
