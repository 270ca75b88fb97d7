//! The request loop: everything that is sent to a registry, a token server or a storage behind them goes through
//! [`Session::exchange`], and all but the streamed upload through its redirects.
//!
//! Three layers, each with one task. [`Session::request`] tries again what may pass; [`Session::attempt`] finds scheme and
//! authorization, and learns from one 401; [`Session::exchange`] sends, counts, follows redirects by hand and reads what
//! was wanted. Not the HTTP client's own redirects and retries: they would send what they must not, and nobody would count
//! it. Bodies that nobody wants are drained up to a bound, so that connections are used again. Nothing here logs a header,
//! a query or a body.

use super::auth::{self, Grant};
use super::error::{Complaint, ERROR_BODY_LIMIT};
use super::pacing::Kind;
use super::redirects::{self, MAX_REDIRECTS};
use super::retries::{Retries, retry_after};
use super::scopes::Scopes;
use super::token::Margin;
use super::{Error, Session, network};
use crate::job::retry::Class;
use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqwest::Response;
use std::sync::atomic::Ordering;
use std::time::Duration;
use url::Url;

/// Most bytes of an unwanted body that are read away to keep its connection; more cost as much as a new connection.
const DRAIN_LIMIT: u64 = 64 * 1024;
/// Longest time for that.
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// A body that is read into memory must come at this rate, bytes a second: no line over which images are copied is slower.
const SLOWEST_BYTES_PER_SEC: u64 = 64 * 1024;

/// A registry, a repository there, and what is to be done with it.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// Canonical host as in references; credentials and what was learned are kept by it.
    pub host: String,
    /// The repository's name; empty for the registry as a whole.
    pub name: String,
    /// What a token must allow.
    pub scopes: Scopes,
}

/// A request to a registry's API.
pub(super) struct Request {
    /// For messages: method, kind of thing, and its reference.
    pub what: String,
    pub method: Method,
    pub target: Target,
    /// From `/v2/` on, with query.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Option<Bytes>,
    pub want: Want,
}

impl Request {
    /// A request without headers and body, whose answer's body is not wanted.
    pub fn new(method: Method, what: String, target: Target, path: String) -> Self {
        Self { what, method, target, path, headers: HeaderMap::new(), body: None, want: Want::Nothing }
    }
}

/// One exchange with whoever is at a URL.
pub(super) struct Call {
    pub what: String,
    pub method: Method,
    pub url: Url,
    /// The URL was built here. Others may be capabilities in all their parts: only their host is logged.
    pub ours: bool,
    pub headers: HeaderMap,
    /// Only ever sent to the origin of `url`.
    pub authorization: Option<HeaderValue>,
    pub body: Option<Bytes>,
    pub want: Want,
}

/// What is to be done with the body of a success.
#[derive(Debug, Clone, Copy)]
pub(super) enum Want {
    /// Drained.
    Nothing,
    /// Read into memory, at most so many bytes; Refused when there are more.
    Bytes { limit: u64 },
    /// Handed out unread.
    Stream,
}

/// An answer, of any status but redirects.
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The URL that answered in the end.
    pub url: Url,
    /// True when a redirect led away from the origin that was asked.
    pub foreign: bool,
    /// True when a redirect led anywhere.
    pub redirected: bool,
    /// The body that was wanted; of errors, its beginning.
    pub bytes: Bytes,
    /// The unread body, when a stream was wanted.
    pub stream: Option<Response>,
    /// Whose credentials were used.
    pub hint: String,
    /// The registry's wish.
    pub retry_after: Option<Duration>,
}

impl Answer {
    /// This answer as an error.
    pub fn error(&self, what: &str, hint: &str) -> Error {
        let hint = if self.foreign { "asked where the registry redirected to" } else { hint };
        Error::of_answer(what, self.status, Complaint::parse(&self.bytes), self.retry_after, hint)
    }

    /// A header as text.
    pub fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// This answer, if its status is one of `expected`.
    ///
    /// # Errors
    /// By status and the registry's code otherwise.
    pub fn expect(self, what: &str, expected: &[StatusCode]) -> Result<Self, Error> {
        if expected.contains(&self.status) { Ok(self) } else { Err(self.error(what, &self.hint)) }
    }
}

impl Session {
    /// Sends `request` until it is answered by something that waiting does not change.
    ///
    /// # Errors
    /// What kept it from being answered; a status below 400, or of a class other than Retry, is no error here.
    pub(super) async fn request(&self, mut request: Request) -> Result<Answer, Error> {
        let mut retries = Retries::new(self.shared.settings.tries, self.shared.first_pause);
        loop {
            let error = match self.attempt(&mut request).await {
                Ok(answer) if answer.status.as_u16() < 400 => return Ok(answer),
                Ok(answer) => {
                    let error = answer.error(&request.what, &answer.hint);
                    if !matches!(error.class(), Class::Retry { .. }) {
                        return Ok(answer);
                    }
                    error
                }
                Err(error) => error,
            };
            retries.pause(error).await?;
        }
    }

    /// One try: again at once after the first 401, and after the first denial of a storage that the registry redirected to
    /// (its signed URL may have expired on the way).
    async fn attempt(&self, request: &mut Request) -> Result<Answer, Error> {
        let mut may_learn = true;
        let mut may_ask_again = true;
        loop {
            let url = self.url(&request.target.host, &request.path).await?;
            let grant = self.grant(&request.target, Margin::Short).await?;
            let kind = Kind::of(&request.method, &request.path);
            let mut answer = self.paced(&request.target.host, kind, &call(request, url, &grant)).await?;
            answer.hint = auth::hint(grant.identity.as_deref());
            if !answer.foreign {
                self.shared.profiles.hear(&request.target.host, &answer.headers);
            }
            let denied = matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            if answer.foreign && denied && may_ask_again {
                may_ask_again = false;
                continue;
            }
            if !answer.foreign && answer.status == StatusCode::UNAUTHORIZED && may_learn {
                may_learn = false;
                if self.learn(&mut request.target, &answer, &grant).await? {
                    continue;
                }
            }
            return Ok(answer);
        }
    }

    /// One exchange with the registry or token server `host`, when it may be asked.
    ///
    /// # Errors
    /// As for [`exchange`](Self::exchange), and Retry when it wants to be left alone for longer than a request may wait.
    pub(super) async fn paced(&self, host: &str, kind: Kind, call: &Call) -> Result<Answer, Error> {
        let pass = self.pace(host, kind, &call.method).await?;
        match self.exchange(call).await {
            Ok(answer) => {
                // Where a redirect led, somebody else answered.
                if !answer.foreign {
                    pass.answered(&self.shared.clock, answer.status, answer.retry_after, &answer.headers);
                }
                Ok(answer)
            }
            Err(error) => {
                if network::is_connect(&error) {
                    pass.unanswered();
                }
                Err(error)
            }
        }
    }

    /// The URL of `path` at the registry `host`.
    ///
    /// # Errors
    /// Refused, when they do not make a URL; Retry, when the scheme cannot be found out.
    pub(super) async fn url(&self, host: &str, path: &str) -> Result<Url, Error> {
        let authority = match host {
            "docker.io" | "index.docker.io" => "registry-1.docker.io",
            other => other,
        };
        let scheme = self.scheme(authority).await?;
        Url::parse(&format!("{}://{authority}{path}", scheme.as_str()))
            .map_err(|error| Error::refused(format!("{authority} is not a registry's address ({error})")))
    }

    /// One exchange, redirects followed.
    ///
    /// # Errors
    /// Network trouble, a body that is too large or breaks off, a redirect that may not be followed. No status is an error.
    pub(super) async fn exchange(&self, call: &Call) -> Result<Answer, Error> {
        let mut url = call.url.clone();
        let mut foreign = false;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(call, &url, foreign).await?;
            if !is_redirect(response.status()) {
                return self.receive(call, response, url, foreign).await;
            }
            url = next_hop(call, &url, &response)?;
            drain(response).await;
            // Once away, always away: who redirects back must not aim our credentials.
            foreign |= !redirects::same_origin(&url, &call.url);
            if foreign && call.body.is_some() {
                // A body may hold a refresh token, and is meant for nobody but who was asked.
                let (what, host) = (&call.what, url.authority());
                return Err(Error::refused(format!("{what}: it is to be sent again to {host}, which is refused")));
            }
        }
        Err(Error::refused(format!("{}: more than {MAX_REDIRECTS} redirects", call.what)))
    }

    async fn send(&self, call: &Call, url: &Url, foreign: bool) -> Result<Response, Error> {
        let mut request = reqwest::Request::new(call.method.clone(), url.clone());
        *request.headers_mut() = call.headers.clone();
        if let Some(authorization) = call.authorization.as_ref().filter(|_| !foreign) {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        *request.body_mut() = call.body.clone().map(Into::into);
        let settings = &self.shared.settings;
        let limit = settings.connect_timeout + settings.first_byte_timeout;
        let ours = call.ours && *url == call.url;
        let sent = self.count_and_log(&call.method, url, ours, async {
            match tokio::time::timeout(limit, self.client(url).execute(request)).await {
                Ok(outcome) => outcome.map_err(|error| network::failure(&call.what, url, error)),
                Err(_) => Err(Error::passing(format!(
                    "{}: no answer within {} s",
                    call.what,
                    settings.first_byte_timeout.as_secs_f32()
                ))),
            }
        });
        sent.await.inspect_err(|_| self.forget_scheme(url))
    }

    /// Counts a request that is about to be sent, and logs how it went; with its path, when the URL is ours.
    pub(super) async fn count_and_log(
        &self,
        method: &Method,
        url: &Url,
        ours: bool,
        sending: impl Future<Output = Result<Response, Error>>,
    ) -> Result<Response, Error> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let begun = self.shared.clock.boot();
        let outcome = sending.await;
        let (host, path) = (url.authority(), ours.then(|| url.path()));
        let duration_ms = u64::try_from(self.shared.clock.boot().since(begun).as_millis()).unwrap_or(u64::MAX);
        match &outcome {
            Ok(response) => {
                tracing::debug!(%method, host, path, status = response.status().as_u16(), duration_ms, "request");
            }
            Err(error) => tracing::debug!(%method, host, path, %error, duration_ms, "request failed"),
        }
        outcome
    }

    /// The HTTP client for a URL.
    pub(super) fn client(&self, url: &Url) -> &reqwest::Client {
        self.shared.clients.pick(url, self.verifies_url(url))
    }

    /// Reads what was wanted of a response that is no redirect.
    pub(super) async fn receive(
        &self,
        call: &Call,
        mut response: Response,
        url: Url,
        foreign: bool,
    ) -> Result<Answer, Error> {
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        let retry_after = retry_after(&headers, self.shared.clock.now());
        if !foreign {
            self.shared.warnings.log(url.authority(), &headers);
        }
        let (mut bytes, mut stream) = (Bytes::new(), None);
        let idle = self.shared.settings.idle_timeout;
        if status.as_u16() >= 400 {
            // What there is of an error's body is welcome; that it breaks off is no news.
            bytes = read_start(response, ERROR_BODY_LIMIT, idle, self.whole_time(ERROR_BODY_LIMIT)).await;
        } else {
            match call.want {
                Want::Nothing => drain(response).await,
                Want::Stream => stream = Some(response),
                Want::Bytes { limit } => {
                    let length = content_length(&headers);
                    let whole = self.whole_time(limit);
                    let reading = read_all(&call.what, &url, response, length, limit, idle);
                    bytes = tokio::time::timeout(whole, reading).await.map_err(|_| {
                        let secs = whole.as_secs_f32();
                        Error::passing(format!("{}: the answer was not complete after {secs} s", call.what))
                    })??;
                }
            }
        }
        let redirected = url != call.url;
        Ok(Answer { status, headers, url, foreign, redirected, bytes, stream, hint: String::new(), retry_after })
    }

    /// How long a body of at most `limit` bytes that is read into memory may take as a whole: others may wait for it, and
    /// the time-out on silence alone would let it drip for ever.
    fn whole_time(&self, limit: u64) -> Duration {
        self.shared.settings.first_byte_timeout
            + Duration::from_millis(limit.saturating_mul(1_000) / SLOWEST_BYTES_PER_SEC)
    }
}

fn call(request: &Request, url: Url, grant: &Grant) -> Call {
    Call {
        what: request.what.clone(),
        method: request.method.clone(),
        url,
        ours: true,
        headers: request.headers.clone(),
        authorization: grant.header.clone(),
        body: request.body.clone(),
        want: request.want,
    }
}

/// 304 and its like never come, because nothing conditional is asked.
pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn next_hop(call: &Call, url: &Url, response: &Response) -> Result<Url, Error> {
    let what = &call.what;
    let reads = matches!(call.method, Method::GET | Method::HEAD);
    if !reads && !matches!(response.status().as_u16(), 307 | 308) {
        let status = response.status();
        return Err(Error::refused(format!("{what}: the registry answered {status}, which would change the request")));
    }
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or_else(|| Error::refused(format!("{what}: a redirect without a location")))?;
    redirects::resolve(&call.url, url, location).map_err(|why| Error::refused(format!("{what}: the redirect {why}")))
}

/// What Content-Length says; of a HEAD's answer too, where the body itself says nothing.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// Reads the rest of a body away, up to a bound, so that its connection can be used again.
pub(super) async fn drain(mut response: Response) {
    if content_length(response.headers()).is_some_and(|length| length > DRAIN_LIMIT) {
        return;
    }
    let reading = async {
        let mut left = DRAIN_LIMIT;
        while let Ok(Some(bytes)) = response.chunk().await {
            left = left.saturating_sub(bytes.len() as u64);
            if left == 0 {
                break;
            }
        }
    };
    // Late or broken, the connection is dropped with the response.
    let _ = tokio::time::timeout(DRAIN_TIME, reading).await;
}

async fn read_start(mut response: Response, limit: u64, idle: Duration, whole: Duration) -> Bytes {
    let mut read = BytesMut::new();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let reading = async {
        while read.len() < limit {
            let Ok(Ok(Some(bytes))) = tokio::time::timeout(idle, response.chunk()).await else { break };
            read.extend_from_slice(&bytes[..bytes.len().min(limit - read.len())]);
        }
    };
    // Late, what has come by then must do.
    let _ = tokio::time::timeout(whole, reading).await;
    read.freeze()
}

async fn read_all(
    what: &str,
    url: &Url,
    mut response: Response,
    length: Option<u64>,
    limit: u64,
    idle: Duration,
) -> Result<Bytes, Error> {
    if let Some(length) = length.filter(|length| *length > limit) {
        return Err(Error::refused(format!("{what}: the answer has {length} bytes, the limit is {limit}")));
    }
    let mut read = BytesMut::new();
    loop {
        let next = tokio::time::timeout(idle, response.chunk()).await;
        let next = next.map_err(|_| silence(what, idle))?;
        let Some(bytes) = next.map_err(|error| network::failure(what, url, error))? else { return Ok(read.freeze()) };
        if read.len() as u64 + bytes.len() as u64 > limit {
            return Err(Error::refused(format!("{what}: the answer has more than {limit} bytes, which is the limit")));
        }
        read.extend_from_slice(&bytes);
    }
}

/// The error for a body that stopped coming.
pub(super) fn silence(what: &str, idle: Duration) -> Error {
    Error::passing(format!("{what}: nothing came for {} s", idle.as_secs_f32()))
}
