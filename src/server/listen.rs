//! Connections: taken one by one, bounded in number, in time and in what their heads may hold.

use super::tls::Certificate;
use super::{App, gauges, routes};
use crate::shutdown::Shutdown;
use axum::Router;
use axum::extract::ConnectInfo;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower::ServiceExt;

/// Largest head of a request, bytes.
const HEAD_LIMIT: usize = 64 * 1024;
/// Most headers of a request.
const HEADERS_LIMIT: usize = 100;
/// Calls at a time on one connection of HTTP/2.
const STREAMS: u32 = 128;
/// Time for the handshake of TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pause when no connection can be taken: too many open files, mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, or not of this machine.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// What was asked for.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// What was asked for must not be.
    #[error("{0}")]
    Refused(String),
}

/// A port that is listened on.
pub struct Listener {
    tcp: TcpListener,
    certificate: Option<Certificate>,
    router: Router,
    app: Arc<App>,
    connections: Arc<Semaphore>,
}

impl Listener {
    /// Listens for calls. From now on the port is taken; calls wait until [`Listener::run`].
    ///
    /// # Errors
    /// The address cannot be had, the certificate is wrong, or anybody could call from elsewhere.
    pub async fn bind(app: &Arc<App>) -> Result<Self, Error> {
        let settings = &app.settings;
        let host = if settings.host.is_empty() { "::" } else { &settings.host };
        let tcp = bind(host, settings.port, settings.needs_key || settings.anybody).await?;
        let certificate = match &settings.tls {
            Some((chain, key)) => Some(
                Certificate::load(chain, key, app.clock.clone())
                    .map_err(|error| Error::Refused(format!("TLS: {error}")))?,
            ),
            None => None,
        };
        Ok(Self::new(tcp, certificate, routes(app), app))
    }

    /// The same for the second port, if there is one: metrics and health alone, which need no key.
    ///
    /// # Errors
    /// The address cannot be had.
    pub async fn bind_gauges(app: &Arc<App>) -> Result<Option<Self>, Error> {
        let settings = &app.settings;
        let Some(port) = settings.metrics_port else { return Ok(None) };
        let host = if settings.host.is_empty() { "::" } else { &settings.host };
        let tcp = bind(host, port, true).await?;
        Ok(Some(Self::new(tcp, None, gauges(app), app)))
    }

    fn new(tcp: TcpListener, certificate: Option<Certificate>, router: Router, app: &Arc<App>) -> Self {
        let connections = Arc::new(Semaphore::new(app.settings.connections));
        Self { tcp, certificate, router, app: app.clone(), connections }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The operating system's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until the shutdown, then lets calls end, at most for the time that the settings give them.
    pub async fn run(self, shutdown: Shutdown) {
        let mut open: JoinSet<()> = JoinSet::new();
        loop {
            tokio::select! {
                () = shutdown.drain.cancelled() => break,
                Some(_) = open.join_next() => {}
                taken = self.take() => match taken {
                    Ok((stream, peer, permit)) => {
                        let connection = self.connection(stream, peer, shutdown.clone());
                        open.spawn(async move {
                            connection.await;
                            drop(permit);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be taken");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(self.tcp);
        let all = async { while open.join_next().await.is_some() {} };
        if tokio::time::timeout(self.app.settings.shutdown_timeout, all).await.is_err() {
            tracing::warn!("calls that did not end in time are cut off");
        }
        open.shutdown().await;
    }

    async fn take(&self) -> io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
        let permit = self.connections.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (stream, peer) = self.tcp.accept().await?;
        stream.set_nodelay(true)?;
        Ok((stream, peer, permit))
    }

    /// One connection to its end.
    fn connection(&self, stream: TcpStream, peer: SocketAddr, shutdown: Shutdown) -> impl Future<Output = ()> + use<> {
        let acceptor = self.certificate.as_ref().map(Certificate::acceptor);
        let (router, read_timeout) = (self.router.clone(), self.app.settings.read_timeout);
        async move {
            match acceptor {
                // In boxes: a plain connection must not keep the room that TLS takes, nor one that is served that of the handshake.
                None => Box::pin(serve(stream, peer, router, read_timeout, shutdown)).await,
                Some(acceptor) => match Box::pin(tokio::time::timeout(HANDSHAKE, acceptor.accept(stream))).await {
                    Ok(Ok(stream)) => Box::pin(serve(stream, peer, router, read_timeout, shutdown)).await,
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS"),
                    Err(_) => tracing::debug!(%peer, "no TLS in time"),
                },
            }
        }
    }
}

async fn bind(host: &str, port: u16, anywhere: bool) -> Result<TcpListener, Error> {
    let shown = || format!("{host}:{port}");
    let failed = |source| Error::Bind { address: shown(), source };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await.map_err(failed)?.collect();
    // Where a name has several addresses, IPv4 first: that is what most callers of `localhost` try.
    addresses.sort_by_key(SocketAddr::is_ipv6);
    if !anywhere && let Some(address) = addresses.iter().find(|address| !address.ip().is_loopback()) {
        return Err(Error::Refused(format!(
            "{address} can be reached from other machines, and no key is asked for: add --api-key-auth, or say \
             --allow-anybody if everybody who reaches it may do everything"
        )));
    }
    TcpListener::bind(addresses.as_slice()).await.map_err(failed)
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    peer: SocketAddr,
    router: Router,
    read_timeout: Duration,
    shutdown: Shutdown,
) {
    let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request)
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(read_timeout)
        .max_buf_size(HEAD_LIMIT)
        .max_headers(HEADERS_LIMIT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(HEAD_LIMIT).unwrap_or(u32::MAX))
        .keep_alive_interval(read_timeout)
        .keep_alive_timeout(HANDSHAKE);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut stopping = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "a connection ended badly");
                }
                return;
            }
            () = shutdown.drain.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
