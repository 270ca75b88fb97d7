//! A TCP proxy that counts bytes, and delays them as distance would.
//!
//! Each piece is passed on a fixed time after it arrived, whatever comes behind it: the delay costs no bandwidth. Opening
//! a connection costs a round trip too, which the client's first bytes wait for. What comes from the server may be limited as
//! well, each connection by itself, as some storages and long lines do.

use crate::Measured;
use freightliner::clock::{BootTime, Clock};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Bytes of one piece.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces under way in one direction of a connection: 16 MiB, or 3 GiB/s at 5 ms.
const PIECES: usize = 256;

/// Bytes that went through.
#[derive(Default)]
pub struct Counts {
    /// Towards the server.
    pub up: AtomicU64,
    /// Towards the client.
    pub down: AtomicU64,
}

/// What each connection is like.
#[derive(Clone, Copy)]
pub struct Line {
    /// One way.
    pub delay: Duration,
    /// Bytes a second from the server; None: no limit.
    pub bytes_per_sec: Option<u32>,
}

/// The proxy. Its connections end when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    counts: Arc<Counts>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// To this server, over such a line.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start(server: SocketAddr, line: Line) -> Measured<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let counts = Arc::new(Counts::default());
        let mut tasks = JoinSet::new();
        let shared = counts.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => if let Ok((client, _)) = accepted {
                        connections.spawn(connection(client, server, line, shared.clone()));
                    },
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(Self { address, counts, _tasks: tasks })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes so far, towards the server and towards the client.
    pub fn bytes(&self) -> (u64, u64) {
        (self.counts.up.load(Ordering::Relaxed), self.counts.down.load(Ordering::Relaxed))
    }
}

async fn connection(client: TcpStream, server: SocketAddr, line: Line, counts: Arc<Counts>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    // Small requests must not wait for more of them.
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(
        pass(from_client, to_server, Line { bytes_per_sec: None, ..line }, line.delay * 2, &counts.up),
        pass(from_server, to_client, line, Duration::ZERO, &counts.down),
    );
}

/// One direction, until its end. The first piece waits for `opening` as well.
async fn pass(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    line: Line,
    opening: Duration,
    count: &AtomicU64,
) {
    let (sender, mut receiver) = mpsc::channel::<(BootTime, Vec<u8>)>(PIECES);
    let read = async move {
        let opened = Clock::System.boot();
        loop {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            match from.read_buf(&mut piece).await {
                Ok(1..) => {
                    let now = Clock::System.boot();
                    let earliest = BootTime(opened.0 + opening);
                    if sender.send((now.max(earliest), piece)).await.is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    };
    let write = async move {
        let mut free = BootTime::default();
        while let Some((arrived, piece)) = receiver.recv().await {
            let due = BootTime(arrived.0 + line.delay).max(free);
            if let Some(rate) = line.bytes_per_sec {
                let bytes = u32::try_from(piece.len()).unwrap_or(u32::MAX);
                free = BootTime(due.0 + Duration::from_secs(1) * bytes / rate);
            }
            let wait = due.since(Clock::System.boot());
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            if to.write_all(&piece).await.is_err() {
                return;
            }
            count.fetch_add(u64::try_from(piece.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        // The other side is told of the end; it may be gone already.
        to.shutdown().await.unwrap_or_default();
    };
    tokio::join!(read, write);
}
