//! A scripted HTTP server: a function from the head of a request to a reply, and a log of all requests.

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A request as the server saw it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub method: String,
    /// With query.
    pub path: String,
    pub authorization: Option<String>,
    pub headers: http::HeaderMap,
    /// Filled when the body has been read to its end.
    pub body: Option<Bytes>,
}

impl Seen {
    pub fn is(&self, method: &str, path: &str) -> bool {
        self.method == method && self.path == path
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// What to answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// Answer without reading the request's body.
    pub early: bool,
    /// Announce more than is sent, then break the connection.
    pub cut: bool,
    /// Send the body and then nothing, for ever.
    pub stall: bool,
    /// Send the body without a length.
    pub chunked: bool,
    /// Never answer, nor read the body.
    pub silent: bool,
    /// Behind the body a byte every few milliseconds, for ever.
    pub drip: bool,
}

impl Reply {
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub fn error(status: u16, code: &str) -> Self {
        Self::new(status).body(format!(r#"{{"errors":[{{"code":"{code}","message":"says the test"}}]}}"#))
    }
}

type Handler = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

struct Shared {
    handler: Handler,
    log: Mutex<Vec<Seen>>,
}

/// A server that ends when it is dropped.
pub(super) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    connections: Arc<AtomicU64>,
    /// Aborted on drop.
    _accepting: JoinSet<()>,
}

impl Server {
    /// Plain HTTP on a free port of 127.0.0.1.
    pub async fn start(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::serve(handler, None).await
    }

    /// HTTPS with this certificate.
    pub async fn start_tls(
        tls: tokio_rustls::TlsAcceptor,
        handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::serve(handler, Some(tls)).await
    }

    async fn serve(
        handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
        tls: Option<tokio_rustls::TlsAcceptor>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { handler: Arc::new(handler), log: Mutex::default() });
        let connections = Arc::new(AtomicU64::new(0));
        let mut accepting = JoinSet::new();
        let (state, count) = (shared.clone(), connections.clone());
        accepting.spawn(async move {
            let mut serving = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (state, count, tls) = (state.clone(), count.clone(), tls.clone());
                serving.spawn(async move {
                    match tls {
                        None => connection(stream, state, count).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                connection(stream, state, count).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, shared, connections, _accepting: accepting }
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn log(&self) -> Vec<Seen> {
        self.shared.log.lock().unwrap().clone()
    }

    /// `METHOD path` of every request.
    pub fn lines(&self) -> Vec<String> {
        self.log().iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect()
    }

    /// Connections on which a request was made.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, state: Arc<Shared>, count: Arc<AtomicU64>) {
    let first = AtomicU64::new(0);
    let service = service_fn(|request| {
        if first.fetch_add(1, Ordering::SeqCst) == 0 {
            count.fetch_add(1, Ordering::SeqCst);
        }
        answer(request, state.clone())
    });
    // Ends with an error whenever a client hangs up or a test has the answer cut short; clients see that themselves.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<Shared>,
) -> Result<Response<BoxBody<Bytes, io::Error>>, Infallible> {
    let (head, body) = request.into_parts();
    let seen = Seen {
        method: head.method.to_string(),
        path: head.uri.path_and_query().unwrap().to_string(),
        authorization: head.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned()),
        headers: head.headers,
        body: None,
    };
    let index = {
        let mut log = state.log.lock().unwrap();
        log.push(seen.clone());
        log.len() - 1
    };
    let reply = (state.handler)(&seen);
    if reply.silent {
        let _body = body;
        std::future::pending::<()>().await;
        unreachable!();
    }
    if !reply.early
        && let Ok(read) = body.collect().await
    {
        state.log.lock().unwrap()[index].body = Some(read.to_bytes());
    }
    let mut response = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(name, value);
    }
    let pieces = |end: Option<io::Error>, stall: bool| {
        let first = futures_util::stream::iter([Ok(Frame::data(reply.body.clone()))]);
        let last = futures_util::stream::iter(end.map(Err));
        let wait = futures_util::stream::once(async move {
            // What came before is written out when a body pauses.
            tokio::task::yield_now().await;
            if stall {
                std::future::pending::<()>().await;
            }
            Ok(Frame::data(Bytes::new()))
        });
        let all = futures_util::StreamExt::chain(futures_util::StreamExt::chain(first, wait), last);
        BodyExt::boxed(StreamBody::new(all))
    };
    let longer = (reply.body.len() + 1000).to_string();
    let drip = || {
        let drops = futures_util::stream::repeat(Bytes::from_static(b" "));
        BodyExt::boxed(StreamBody::new(futures_util::StreamExt::then(drops, |drop| async {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            Ok(Frame::data(drop))
        })))
    };
    let body = if reply.drip {
        drip()
    } else if reply.cut {
        response = response.header("content-length", longer);
        pieces(Some(io::Error::other("cut")), false)
    } else if reply.stall {
        response = response.header("content-length", longer);
        pieces(None, true)
    } else if reply.chunked {
        pieces(None, false)
    } else {
        Full::new(reply.body.clone()).map_err(|never| match never {}).boxed()
    };
    Ok(response.body(body).unwrap())
}
