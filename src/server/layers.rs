//! What every call passes through, from the outside in.

use super::App;
use super::auth::Origin;
use super::error::{self, ApiError};
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tracing::Instrument;
use uuid::Uuid;

/// Longest id that a caller may give a request, bytes.
const REQUEST_ID_LIMIT: usize = 128;
/// The id of a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives the request an id, writes the bodies of errors, sets the headers that browsers mind, and counts.
pub async fn outermost(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let began = app.clock.boot();
    let request_id = request_id(request.headers());
    let address = address(&app.settings.proxies, &request);
    request.extensions_mut().insert(Origin { address, request_id: request_id.clone() });
    let method = request.method().clone();
    let path = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let span = tracing::info_span!("call", %request_id, %method, path = request.uri().path(), %address);
    app.metrics.in_flight.inc();
    let answer = tokio::time::timeout(app.settings.call_timeout, next.run(request).instrument(span.clone())).await;
    app.metrics.in_flight.dec();
    let mut response = answer.unwrap_or_else(|_| {
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "the call took too long: send its body faster, or wait for less")
            .into_response()
    });
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        write_error(&mut response, &error, &request_id);
    } else if response.status().is_client_error() && !is_json(&response) {
        // The framework's own refusals.
        let status = response.status();
        let error = ApiError::new(status, status.canonical_reason().unwrap_or("refused").to_lowercase());
        write_error(&mut response, &error, &request_id);
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let policy = "default-src 'none'; frame-ancestors 'none'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if app.settings.tls.is_some() {
        let value = HeaderValue::from_static("max-age=31536000");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, value);
    }
    let took = app.clock.boot().since(began);
    app.metrics.answered(method.as_str(), &path, response.status().as_u16(), took);
    span.in_scope(|| tracing::debug!(status = response.status().as_u16(), took_ms = took.as_millis(), "answered"));
    response
}

fn is_json(response: &Response) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"))
}

fn write_error(response: &mut Response, error: &ApiError, request_id: &str) {
    *response.body_mut() = error::body(error, request_id).into();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.remove(header::CONTENT_LENGTH);
    if error.status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
}

/// The caller's own id when it is harmless, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let own = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(|id| {
        (1..=REQUEST_ID_LIMIT).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
    });
    own.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// Where the call came from. What a proxy says counts only when it is one of ours: the last address in its list that is none
/// of ours.
fn address(proxies: &[IpAddr], request: &Request) -> IpAddr {
    let connected = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let peer = connected.map_or(IpAddr::from([0, 0, 0, 0]), |ConnectInfo(peer)| peer.ip().to_canonical());
    if !proxies.contains(&peer) {
        return peer;
    }
    let lists = request.headers().get_all("x-forwarded-for").iter().filter_map(|list| list.to_str().ok());
    let mut all: Vec<&str> = lists.flat_map(|list| list.split(',')).map(str::trim).collect();
    let mut nearest = peer;
    while let Some(text) = all.pop() {
        let Ok(address) = text.parse::<IpAddr>() else { break };
        nearest = address.to_canonical();
        if !proxies.contains(&nearest) {
            break;
        }
    }
    nearest
}

/// A bug in one call ends that call.
pub async fn catch_panics(request: Request, next: Next) -> Response {
    let caught = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    caught.unwrap_or_else(|_| {
        tracing::error!("a call panicked");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error: this is a fault of the program")
            .into_response()
    })
}

/// Refuses web pages that are not allowed, and, where no key protects us, names by which nobody knows this machine: a page
/// could have its own name resolve to it.
pub async fn check_origin(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let checked = app.settings.origins.check(request.headers()).and_then(|()| check_host(&app, &request));
    match checked {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check_host(app: &App, request: &Request) -> Result<(), ApiError> {
    if app.settings.needs_key || app.settings.anybody {
        return Ok(());
    }
    // A name that is no text is nobody's.
    let named = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    let named = named.or_else(|| request.uri().authority().map(axum::http::uri::Authority::as_str));
    let Some(named) = named else { return Ok(()) };
    let host = named
        .rsplit_once(':')
        .map_or(named, |(host, port)| if port.bytes().all(|byte| byte.is_ascii_digit()) { host } else { named });
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_ours = host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        || app.settings.external_host.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(host));
    if is_ours { Ok(()) } else { Err(ApiError::forbidden("this host name is not mine: see --external-url")) }
}

/// Turns calls away before too many are being answered.
pub async fn shed(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match app.load.clone().try_acquire_owned() {
        Ok(_permit) => next.run(request).await,
        Err(_) => {
            app.metrics.shed.inc();
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many calls at once: try again").after(1).into_response()
        }
    }
}

/// The path is there, the method is not.
pub async fn wrong_method(method: Method) -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not what this path takes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn from(peer: &str, forwarded: &[&str]) -> IpAddr {
        let mut request = Request::new(Body::empty());
        let peer: IpAddr = peer.parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(SocketAddr::new(peer, 1)));
        for list in forwarded {
            request.headers_mut().append("x-forwarded-for", list.parse().unwrap());
        }
        address(&["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()], &request)
    }

    #[test]
    fn only_our_proxies_say_where_a_call_came_from() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(from("192.0.2.7", &["198.51.100.1"]), address("192.0.2.7"));
        assert_eq!(from("10.0.0.1", &[]), address("10.0.0.1"));
        assert_eq!(from("10.0.0.1", &["203.0.113.9, 198.51.100.1"]), address("198.51.100.1"));
        assert_eq!(from("10.0.0.1", &["198.51.100.1", "10.0.0.2"]), address("198.51.100.1"));
        assert_eq!(from("10.0.0.1", &["198.51.100.1, nonsense"]), address("10.0.0.1"));
        assert_eq!(from("::ffff:10.0.0.1", &["2001:db8::1"]), address("2001:db8::1"));
    }

    #[test]
    fn ids_that_could_break_a_log_line_are_replaced() {
        let id = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(text.as_bytes()).unwrap());
            request_id(&headers)
        };
        assert_eq!(id("abc-1.2:3_4"), "abc-1.2:3_4");
        for text in ["", "a b", "a\tb", "a\"b", &"x".repeat(129), "é"] {
            assert!(id(text).parse::<Uuid>().is_ok(), "{text}");
        }
    }
}
