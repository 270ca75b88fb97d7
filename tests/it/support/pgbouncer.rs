//! Debian's pgbouncer in transaction mode, in front of a cluster.

use super::cluster::OwnDatabase;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

/// A running pgbouncer; killed on drop.
pub struct PgBouncer {
    child: Child,
    port: u16,
    database: String,
    _folder: tempfile::TempDir,
}

impl PgBouncer {
    /// Two connections to the server for all clients. None, said loudly, where pgbouncer is not installed.
    pub fn start(database: &OwnDatabase) -> Option<Self> {
        let program = super::need("pgbouncer")?;
        let folder = tempfile::tempdir_in(database.cluster.socket()).expect("a temp folder");
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
        // It cannot say which port it took: one that is free now is tried, and another one when somebody was faster.
        super::eventually("pgbouncer to listen", || {
            let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
            let config = folder.path().join("pgbouncer.ini");
            let text = format!(
                "[databases]\n* = host={} port=5432\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
                 auth_type = any\npool_mode = transaction\nmax_client_conn = 200\ndefault_pool_size = 2\nuser = postgres\n",
                database.cluster.socket().display()
            )
            .replace("* = host", &format!("{} = user=postgres host", database.name));
            std::fs::write(&config, text).expect("write pgbouncer.ini");
            std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o644)).expect("chmod");
            let mut command = Command::new("runuser");
            if rustix::process::geteuid().is_root() {
                command.args(["-u", "postgres", "--"]).arg(&program);
            } else {
                command = Command::new(&program);
            }
            let child = command
                .args(["-q"])
                .arg(&config)
                .current_dir("/")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("start pgbouncer");
            let mut bouncer = Self { child, port, database: database.name.clone(), _folder: tempfile::tempdir().ok()? };
            super::within(std::time::Duration::from_secs(5), || {
                let answers = std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
                let ended = bouncer.child.try_wait().expect("ask for the child").is_some();
                (answers || ended).then_some(answers)
            })
            .filter(|answers| *answers)
            .map(|_| bouncer)
        })
        .keep_folder(folder)
        .into()
    }

    fn keep_folder(mut self, folder: tempfile::TempDir) -> Self {
        self._folder = folder;
        self
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{}?pooler=transaction", self.port, self.database)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // runuser passes signals on; TERM first, so that it can.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let ended = super::within(std::time::Duration::from_secs(5), || self.child.try_wait().ok().flatten());
        if ended.is_none() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
