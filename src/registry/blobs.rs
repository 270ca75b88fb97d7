//! Reading blobs.
//!
//! A blob is handed out as it comes, piece by piece, never collected; what it should be is checked by the caller, who
//! knows its digest. The connection is used again when the body was read to its end. There is no time limit on a blob as a
//! whole, only on silence, and on what is next to silence.
//!
//! Parts of one blob may be asked for side by side. Where the registry redirects to a storage, the signed URL it gave is used
//! for them until the storage says that it has expired: it is kept in memory only, and gets no credentials.

use super::http::{Answer, Call, Request, Target, Want, content_length, silence};
use super::scopes::Scopes;
use super::{Error, Session, network};
use crate::clock::{BootTime, Clock};
use crate::oci::{Digest, Repository};
use bytes::Bytes;
use http::header::{ACCEPT_RANGES, CONTENT_RANGE, ETAG, RANGE};
use http::{HeaderValue, Method, StatusCode};
use std::fmt;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use url::Url;

/// What comes more slowly than this is as good as nothing: it would hold a place for days. Bytes a second.
const LEAST_BYTES_PER_SEC: u64 = 256;

/// A blob being downloaded. Dropping it closes the connection when bytes are left.
pub struct BlobBody {
    what: String,
    url: Url,
    length: Option<u64>,
    redirected: bool,
    /// The origin of `url` is not the registry's.
    foreign: bool,
    /// The answer shows that parts can be asked for.
    gives_parts: bool,
    etag: Option<HeaderValue>,
    response: reqwest::Response,
    pace: Box<Pace>,
}

/// How fast a body comes while somebody waits for it.
struct Pace {
    idle_timeout: Duration,
    clock: Clock,
    /// How long was waited for bytes, and how many came, since that was looked at last.
    waited: Duration,
    came: u64,
}

impl Pace {
    /// Counts bytes that were waited for since `asked`.
    ///
    /// # Errors
    /// Retry, when less than next to nothing came in the idle time-out.
    fn passed(&mut self, asked: BootTime, bytes: usize, what: &str) -> Result<(), Error> {
        // Only the time in which somebody waits counts: who reads slowly is no fault of the registry.
        self.waited += self.clock.boot().since(asked);
        self.came += u64::try_from(bytes).unwrap_or(u64::MAX);
        if self.waited < self.idle_timeout {
            return Ok(());
        }
        if self.came < LEAST_BYTES_PER_SEC.saturating_mul(self.idle_timeout.as_secs().max(1)) {
            let (came, waited) = (self.came, self.waited.as_secs());
            return Err(Error::passing(format!("{what}: only {came} bytes came in {waited} s")));
        }
        (self.waited, self.came) = (Duration::ZERO, 0);
        Ok(())
    }
}

/// Where parts of a blob are to be had, and of which version of it. The URL of a storage within may be a capability.
pub struct PartSource {
    storage: Mutex<Option<Url>>,
    etag: Option<HeaderValue>,
}

impl fmt::Debug for PartSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PartSource").field("etag", &self.etag).finish_non_exhaustive()
    }
}

impl PartSource {
    fn storage(&self) -> Option<Url> {
        self.storage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A later answer has led to `url` instead; None: its origin is the registry's.
    fn moved(&self, url: Option<Url>) {
        *self.storage.lock().unwrap_or_else(PoisonError::into_inner) = url;
    }
}

impl BlobBody {
    /// Content-Length, when the registry said one.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Whether the registry sent us on to get it, which costs a request more.
    #[must_use]
    pub fn redirected(&self) -> bool {
        self.redirected
    }

    /// Where parts of the same blob can be asked for beside this body. None when its answer does not show that they can.
    #[must_use]
    pub fn part_source(&self) -> Option<PartSource> {
        let storage = self.foreign.then(|| self.url.clone());
        self.gives_parts.then(|| PartSource { storage: Mutex::new(storage), etag: self.etag.clone() })
    }

    /// The next piece (any size), None at the end. Cancel-safe.
    ///
    /// # Errors
    /// Retry, when the body breaks off, or when nothing, or next to nothing, comes for the idle time-out.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let (asked, idle_timeout) = (self.pace.clock.boot(), self.pace.idle_timeout);
        let piece = match tokio::time::timeout(idle_timeout, self.response.chunk()).await {
            Ok(outcome) => outcome.map_err(|error| network::failure(&self.what, &self.url, error))?,
            Err(_) => return Err(silence(&self.what, idle_timeout)),
        };
        if let Some(piece) = &piece {
            self.pace.passed(asked, piece.len(), &self.what)?;
        }
        Ok(piece)
    }
}

impl Session {
    /// `HEAD blobs/<digest>`: its size if said; Ok(None) on 404.
    ///
    /// # Errors
    /// As any request.
    pub async fn head_blob(&self, repository: &Repository, digest: &Digest) -> Result<Option<Option<u64>>, Error> {
        let request = blob_request(Method::HEAD, repository, digest, self.reading_scopes(repository.name()));
        let what = request.what.clone();
        let answer = self.request(request).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = answer.expect(&what, &[StatusCode::OK])?;
        Ok(Some(content_length(&answer.headers)))
    }

    /// `GET blobs/<digest>`. Redirects to a storage are followed, without credentials.
    ///
    /// # Errors
    /// Absent on 404; otherwise as any request.
    pub async fn get_blob(&self, repository: &Repository, digest: &Digest) -> Result<BlobBody, Error> {
        let request = blob_request(Method::GET, repository, digest, self.reading_scopes(repository.name()));
        let what = request.what.clone();
        let answer = self.stream(request).await?.expect(&what, &[StatusCode::OK])?;
        self.body(what, answer)
    }

    /// The same from byte `offset` on, of `size` in all, after an answer that broke off. None when it is not to be had so:
    /// ranges are ignored (200), another one was sent than was asked for, or there is nothing there (416).
    ///
    /// # Errors
    /// As for [`get_blob`](Self::get_blob).
    pub async fn get_blob_from(
        &self,
        repository: &Repository,
        digest: &Digest,
        offset: u64,
        size: u64,
    ) -> Result<Option<BlobBody>, Error> {
        let mut request = blob_request(Method::GET, repository, digest, self.reading_scopes(repository.name()));
        want_range(&mut request, &format!("bytes={offset}-"))?;
        let what = request.what.clone();
        let answer = self.stream(request).await?;
        self.part(what, answer, &(offset..size), size)
    }

    /// The bytes of `part` alone, of `size` in all, as the body that `source` comes from has them. None when they are not to be
    /// had so, as in [`get_blob_from`](Self::get_blob_from), or when they are of another version (ETag).
    ///
    /// # Errors
    /// As for [`get_blob`](Self::get_blob).
    pub async fn get_blob_part(
        &self,
        repository: &Repository,
        digest: &Digest,
        part: &Range<u64>,
        size: u64,
        source: &PartSource,
    ) -> Result<Option<BlobBody>, Error> {
        let mut request = blob_request(Method::GET, repository, digest, self.reading_scopes(repository.name()));
        want_range(&mut request, &format!("bytes={}-{}", part.start, part.end.saturating_sub(1)))?;
        let what = request.what.clone();
        let answer = match self.ask_storage(&request, source).await? {
            Some(answer) => answer,
            None => {
                let answer = self.stream(request).await?;
                source.moved(answer.foreign.then(|| answer.url.clone()));
                answer
            }
        };
        let same = match (&source.etag, answer.headers.get(ETAG)) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        let body = self.part(what, answer, part, size)?;
        Ok(body.filter(|_| same))
    }

    /// Asks the storage that the registry had redirected to. None: there is none, or its URL holds no longer.
    async fn ask_storage(&self, request: &Request, source: &PartSource) -> Result<Option<Answer>, Error> {
        let Some(url) = source.storage() else { return Ok(None) };
        let call = Call {
            what: request.what.clone(),
            method: Method::GET,
            url,
            ours: false,
            headers: request.headers.clone(),
            authorization: None,
            body: None,
            want: Want::Stream,
        };
        let answer = Answer { foreign: true, redirected: true, ..self.exchange(&call).await? };
        // Storages say in many ways that a signature has expired; the registry gives a new one, or says what is wrong.
        let expired = matches!(answer.status.as_u16(), 400 | 401 | 403 | 404 | 410);
        Ok((!expired).then_some(answer))
    }

    /// The body of a part that was asked for. None: it is not that part.
    fn part(&self, what: String, answer: Answer, part: &Range<u64>, size: u64) -> Result<Option<BlobBody>, Error> {
        match answer.status {
            StatusCode::OK | StatusCode::RANGE_NOT_SATISFIABLE => return Ok(None),
            StatusCode::PARTIAL_CONTENT => {}
            _ => return Err(answer.error(&what, &answer.hint)),
        }
        if answer.header(CONTENT_RANGE).is_some_and(|range| is_part(range, part, size)) {
            return self.body(what, answer).map(Some);
        }
        Ok(None)
    }

    async fn stream(&self, mut request: Request) -> Result<Answer, Error> {
        request.want = Want::Stream;
        self.request(request).await
    }

    fn body(&self, what: String, answer: Answer) -> Result<BlobBody, Error> {
        let length = content_length(&answer.headers);
        let (redirected, foreign) = (answer.redirected, answer.foreign);
        let accepted = answer.header(ACCEPT_RANGES).is_some_and(|units| units.trim().eq_ignore_ascii_case("bytes"));
        let gives_parts = accepted || answer.status == StatusCode::PARTIAL_CONTENT;
        let etag = answer.headers.get(ETAG).cloned();
        let Some(response) = answer.stream else {
            return Err(Error::passing(format!("{what}: the answer has no body")));
        };
        let (idle_timeout, clock) = (self.shared.settings.idle_timeout, self.shared.clock.clone());
        let pace = Box::new(Pace { idle_timeout, clock, waited: Duration::ZERO, came: 0 });
        let url = answer.url;
        Ok(BlobBody { what, url, length, redirected, foreign, gives_parts, etag, response, pace })
    }
}

fn want_range(request: &mut Request, range: &str) -> Result<(), Error> {
    let value = HeaderValue::try_from(range);
    let value = value.map_err(|error| Error::refused(format!("{}: {error}", request.what)))?;
    request.headers.insert(RANGE, value);
    Ok(())
}

/// Whether a Content-Range is about just the bytes of `part`, of `size` in all (RFC 9110, 14.4); the size may be unknown to
/// who sends it.
fn is_part(range: &str, part: &Range<u64>, size: u64) -> bool {
    let parts = range.strip_prefix("bytes ").and_then(|range| range.split_once('/'));
    let Some(((first, last), whole)) = parts.and_then(|(part, whole)| Some((part.split_once('-')?, whole))) else {
        return false;
    };
    let is = |text: &str, number: u64| text.trim().parse() == Ok(number);
    is(first, part.start)
        && part.end.checked_sub(1).is_some_and(|end| is(last, end))
        && (whole.trim() == "*" || is(whole, size))
}

fn blob_request(method: Method, repository: &Repository, digest: &Digest, scopes: Scopes) -> Request {
    let what = format!("{method} blob {repository}@{digest}");
    let target = Target { host: repository.host().to_owned(), name: repository.name().to_owned(), scopes };
    Request::new(method, what, target, format!("/v2/{}/blobs/{digest}", repository.name()))
}

#[cfg(test)]
mod tests {
    use super::is_part;
    use proptest::prelude::*;

    #[test]
    fn only_the_rest_that_was_asked_for_is_taken() {
        for (range, rest) in [
            ("bytes 10-99/100", true),
            ("bytes 10-99/*", true),
            ("bytes 10-98/100", false),
            ("bytes 9-99/100", false),
            ("bytes 0-99/100", false),
            ("bytes 10-99/101", false),
            ("bytes 10-100/100", false),
            ("bytes */100", false),
            ("bytes 10-99", false),
            ("10-99/100", false),
            ("bytes -/100", false),
            ("", false),
        ] {
            assert_eq!(is_part(range, &(10..100), 100), rest, "{range}");
        }
        assert!(!is_part("bytes 0-0/0", &(0..0), 0));
        for (range, part) in [
            ("bytes 10-19/100", true),
            ("bytes 10-19/*", true),
            ("bytes 10-99/100", false),
            ("bytes 10-18/100", false),
            ("bytes 10-19/20", false),
        ] {
            assert_eq!(is_part(range, &(10..20), 100), part, "{range}");
        }
    }

    proptest! {
        #[test]
        fn what_is_made_of_the_corpus_is_taken_only_when_it_says_that_part(
            range in crate::corpus::mutated_lines("range"),
            (part, size) in prop_oneof![Just((10..100, 100)), Just((10..20, 100)), Just((0..0, 0)), Just((0..u64::MAX, u64::MAX))],
        ) {
            let numbers: Vec<&str> = range.split(|c: char| !c.is_ascii_digit()).filter(|text| !text.is_empty()).collect();
            let numbers: Vec<Option<u64>> = numbers.into_iter().map(|text| text.parse().ok()).collect();
            let last = part.end.checked_sub(1);
            let said = numbers == [Some(part.start), last, Some(size)] || numbers == [Some(part.start), last];
            prop_assert!(said || !is_part(&range, &part, size), "{range:?} is taken for {part:?} of {size}");
        }

        #[test]
        fn the_part_itself_is_taken(start: u64, length in 1_u64.., more: u64) {
            let end = start.saturating_add(length);
            let size = end.saturating_add(more);
            prop_assume!(start < end);
            let last = end - 1;
            for range in [format!("bytes {start}-{last}/{size}"), format!("bytes {start}-{last}/*")] {
                prop_assert!(is_part(&range, &(start..end), size), "{range}");
            }
        }
    }
}
