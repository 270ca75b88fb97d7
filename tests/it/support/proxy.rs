//! A TCP door to a PostgreSQL server's socket that can lose answers and go dead, as networks do.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinSet;

const WELL: u8 = 0;
/// The next answer is thrown away, and its connection is cut.
const LOSES: u8 = 1;
/// Nothing is passed on, in neither direction; nobody is told.
const DEAD: u8 = 2;

/// The proxy. Its connections end when it is dropped.
pub struct Proxy {
    pub address: SocketAddr,
    fault: Arc<AtomicU8>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// To the server whose socket is in this folder.
    pub async fn start(folder: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let fault = Arc::new(AtomicU8::new(WELL));
        let mut tasks = JoinSet::new();
        let state = fault.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                let Ok(server) = UnixStream::connect(folder.join(".s.PGSQL.5432")).await else { continue };
                connections.spawn(pass(client, server, state.clone()));
            }
        });
        Self { address, fault, _tasks: tasks }
    }

    /// The next answer of the server is lost with its connection.
    pub fn lose_next_answer(&self) {
        self.fault.store(LOSES, Ordering::SeqCst);
    }

    /// Whether that has happened.
    pub fn has_lost(&self) -> bool {
        self.fault.load(Ordering::SeqCst) == WELL
    }

    /// Connections stay open and pass nothing on.
    pub fn die(&self) {
        self.fault.store(DEAD, Ordering::SeqCst);
    }

    /// New connections work again.
    pub fn recover(&self) {
        self.fault.store(WELL, Ordering::SeqCst);
    }
}

async fn pass(mut client: TcpStream, mut server: UnixStream, fault: Arc<AtomicU8>) {
    let (mut asked, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => match read {
                Ok(count @ 1..) if fault.load(Ordering::SeqCst) != DEAD => {
                    if server.write_all(&asked[..count]).await.is_err() {
                        return;
                    }
                }
                Ok(1..) => std::future::pending::<()>().await,
                _ => return,
            },
            read = server.read(&mut answered) => match read {
                Ok(count @ 1..) => match fault.compare_exchange(LOSES, WELL, Ordering::SeqCst, Ordering::SeqCst) {
                    Ok(_) => return,
                    Err(DEAD) => std::future::pending::<()>().await,
                    Err(_) => {
                        if client.write_all(&answered[..count]).await.is_err() {
                            return;
                        }
                    }
                },
                _ => return,
            },
        }
    }
}
