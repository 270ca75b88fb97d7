//! An HTTP/1.1 server on a free port of 127.0.0.1, in a thread and runtime of its own.
//!
//! Of its own, so that a test may block on it, and so that a handler that waits for a test's signal can never
//! keep that test from giving it. Dropping the value ends every connection, waiting handlers included.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A streamed body; an error in it cuts the connection.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;
/// What a handler gives: an answer, or an error that closes the connection without one.
pub type Answered = Result<Response<Body>, io::Error>;
/// One call a request.
pub type Handler = Arc<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Answered> + Send + Sync>;

/// A running server. Stopped, with its thread joined, on drop.
pub struct HttpServer {
    pub address: SocketAddr,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl HttpServer {
    /// Starts to serve; with `tls` nothing but TLS. The port accepts connections on return.
    pub fn start(tls: Option<Arc<rustls::ServerConfig>>, handler: Handler) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a non-blocking listener");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                stopped.run_until_cancelled(accept(listener, tls, handler)).await;
            });
        });
        Self { address, stop, thread: Some(thread) }
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the thread of a test server panicked");
        }
    }
}

/// Accepts for ever; being dropped, it takes all connections with it.
async fn accept(listener: tokio::net::TcpListener, tls: Option<Arc<rustls::ServerConfig>>, handler: Handler) {
    let acceptor = tls.map(tokio_rustls::TlsAcceptor::from);
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let (acceptor, handler) = (acceptor.clone(), handler.clone());
        connections.spawn(async move {
            match acceptor {
                None => converse(stream, handler).await,
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        converse(stream, handler).await;
                    }
                }
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, handler: Handler) {
    let service = service_fn(move |request| handler(request));
    // A connection that breaks is the client's affair, or a fault that the test asked for.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
