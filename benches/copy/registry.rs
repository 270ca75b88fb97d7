//! Real registries: Debian's `docker-registry` (Distribution 2.8), each with its storage in a folder of its own.

use crate::process::Process;
use crate::proxy::{Line, Proxy};
use crate::{Failure, Measured};
use freightliner::clock::Clock;
use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a registry may take to listen.
const START_LIMIT: Duration = Duration::from_secs(20);
/// The access log is complete when it has not grown for so long: its lines are written after the answers.
const QUIET: Duration = Duration::from_millis(150);

/// What a registry was asked.
#[derive(Clone, Copy, Default)]
pub struct Asked {
    /// Lines of its access log.
    pub requests: u64,
    /// Bytes of its answers' bodies.
    pub bytes_answered: u64,
}

/// A running registry; killed when dropped.
pub struct Registry {
    folder: PathBuf,
    address: SocketAddr,
    proxy: Option<Proxy>,
    _process: Process,
}

impl Registry {
    /// Over the storage in `folder`, which may hold something already; with a `line`, clients reach it through a proxy.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(folder: &Path, line: Option<Line>) -> Measured<Self> {
        std::fs::create_dir_all(folder)?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: false}}}}\nstorage:\n  filesystem: \
             {{rootdirectory: '{}/storage', maxthreads: 100}}\n  delete: {{enabled: true}}\n  maintenance:\n    \
             uploadpurging: {{enabled: false}}\nhttp:\n  addr: {address}\n  secret: bench\n",
            folder.display()
        );
        let file = folder.join("config.yml");
        std::fs::write(&file, config)?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file).env("OTEL_TRACES_EXPORTER", "none");
        command.stdin(Stdio::null()).stdout(File::create(folder.join("access"))?);
        command.stderr(File::create(folder.join("log"))?);
        let process = Process::spawn(&mut command)?;
        let start = Clock::System.boot();
        while TcpStream::connect(address).is_err() {
            if process.has_ended()? || Clock::System.boot().since(start) > START_LIMIT {
                let said = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
                return Err(format!("docker-registry does not listen on {address}: {said}").into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let proxy = match line {
            Some(line) => Some(Proxy::start(address, line).await?),
            None => None,
        };
        Ok(Self { folder: folder.to_owned(), address, proxy, _process: process })
    }

    /// Where clients reach it.
    pub fn address(&self) -> SocketAddr {
        self.proxy.as_ref().map_or(self.address, Proxy::address)
    }

    /// The folder of Distribution's storage, below `docker/registry/v2`.
    pub fn storage(&self) -> PathBuf {
        self.folder.join("storage/docker/registry/v2")
    }

    /// Bytes that went to it and came from it, where a proxy counts them.
    pub fn bytes(&self) -> Option<(u64, u64)> {
        self.proxy.as_ref().map(Proxy::bytes)
    }

    /// What it was asked since it was started.
    ///
    /// # Errors
    /// The access log cannot be read.
    pub async fn asked(&self) -> Measured<Asked> {
        let path = self.folder.join("access");
        let mut size = u64::MAX;
        loop {
            let now = std::fs::metadata(&path)?.len();
            if now == size {
                break;
            }
            size = now;
            tokio::time::sleep(QUIET).await;
        }
        let text = std::fs::read_to_string(&path)?;
        let answered = text.lines().filter_map(bytes_of).collect::<Vec<_>>();
        Ok(Asked {
            requests: u64::try_from(answered.len()).map_err(Failure::from)?,
            bytes_answered: answered.iter().sum(),
        })
    }
}

/// The bytes of an answer, from a line of Apache's combined log.
fn bytes_of(line: &str) -> Option<u64> {
    line.split('"').nth(2)?.split_whitespace().nth(1)?.parse().ok()
}
