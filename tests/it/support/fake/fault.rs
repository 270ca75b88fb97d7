//! What can be made to go wrong, and for which requests.

use super::LocationStyle;
use std::time::Duration;

/// Which requests a fault is for.
#[derive(Debug, Clone)]
pub struct Matcher {
    method: String,
    path_contains: String,
    skip: usize,
    times: usize,
}

impl Matcher {
    /// Requests with this method (`*`: any) whose path with query contains this text; the first one only.
    pub fn new(method: &str, path_contains: &str) -> Self {
        Self { method: method.to_owned(), path_contains: path_contains.to_owned(), skip: 0, times: 1 }
    }

    /// So many of them.
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// All of them.
    pub fn always(self) -> Self {
        self.times(usize::MAX)
    }

    /// Lets the first few pass unharmed.
    pub fn after(mut self, skip: usize) -> Self {
        self.skip = skip;
        self
    }

    /// Whether the fault strikes this request; counts it when it fits.
    pub(super) fn strikes(&mut self, method: &str, path: &str) -> bool {
        if self.times == 0 || (self.method != "*" && self.method != method) || !path.contains(&self.path_contains) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.times -= 1;
        true
    }
}

/// What happens instead of a good answer.
///
/// Faults strike after authentication, so that the 401 of a first contact does not use up a turn; requests to the
/// fake's token endpoint can be struck too.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This answer, whatever was asked; the request's body is read and has no effect.
    Status { code: u16, headers: Vec<(String, String)>, body: String },
    /// 429 with this Retry-After (seconds or an HTTP date), or without.
    TooManyRequests { retry_after: Option<String> },
    /// 307 to the same path and query at another base URL (`http://host:port`).
    RedirectTo(String),
    /// The connection is closed without an answer, and the request has no effect.
    DropConnection,
    /// The request takes effect, then the connection is closed without an answer.
    LoseAnswer,
    /// Waits at the named gate before the request takes effect; then goes on well.
    HoldUntil(String),
    /// Waits at the named gate after so many bytes of the request's body; then goes on well.
    HoldUploadAfter { bytes: u64, name: String },
    /// Closes the connection after so many bytes of the request's body; they count as received.
    CutUploadAfter(u64),
    /// Closes the connection after so many bytes of the answer's body (fewer for a client that reads slowly).
    CutBodyAfter(u64),
    /// Sends so many bytes of the answer's body, waits at the named gate, then sends the rest.
    StallBodyAfter { bytes: u64, name: String },
    /// Sends the answer's body in pieces, with a pause before each.
    SlowBody { chunk: usize, delay: Duration },
    /// Flips one bit in the middle of the answer's body.
    WrongBytes,
    /// Sends more bytes than there are, with an honest Content-Length.
    ExtraBytes(u64),
    /// Sends a Docker-Content-Digest of something else.
    WrongDigestHeader,
    /// Sends no Docker-Content-Digest.
    NoDigestHeader,
    /// Takes a request for a part of a blob for one for all of it.
    NoPart,
    /// Sends the ETag of something else.
    OtherEtag,
    /// Sends another Content-Type.
    WrongContentType(String),
    /// Location as a path.
    RelativeLocation,
    /// Location as a whole URL.
    AbsoluteLocation,
    /// Location relative to the URL of the response.
    DocumentRelativeLocation,
    /// Location at another base URL (`http://host:port`).
    ForeignLocation(String),
    /// Instead of the body: so many MiB of white space, without a Content-Length.
    EndlessBody { mebibytes: u64 },
}

impl Fault {
    /// A bare status with an empty body.
    pub fn status(code: u16) -> Self {
        Self::Status { code, headers: Vec::new(), body: String::new() }
    }

    /// A status with a body as the distribution specification describes it.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] }).to_string();
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        Self::Status { code: status, headers, body }
    }

    /// How this fault writes Locations.
    pub(super) fn location_style(&self) -> Option<LocationStyle> {
        match self {
            Self::RelativeLocation => Some(LocationStyle::AbsolutePath),
            Self::AbsoluteLocation => Some(LocationStyle::Absolute),
            Self::DocumentRelativeLocation => Some(LocationStyle::Relative),
            _ => None,
        }
    }
}

/// A fault with the requests it is for.
pub(super) struct Scripted {
    pub matcher: Matcher,
    pub fault: Fault,
}

/// Takes the first fault that strikes this request.
pub(super) fn take(faults: &mut [Scripted], method: &str, path: &str) -> Option<Fault> {
    faults.iter_mut().find_map(|scripted| scripted.matcher.strikes(method, path).then(|| scripted.fault.clone()))
}
