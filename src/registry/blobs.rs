//! Reading blobs.
//!
//! A blob is handed out as it comes, piece by piece, never collected; what it should be is checked by the caller, who
//! knows its digest. The connection is used again when the body was read to its end. There is no time limit on a blob as a
//! whole, only on silence.

use super::http::{Answer, Request, Target, Want, content_length, silence};
use super::scopes::Scopes;
use super::{Error, Session, network};
use crate::oci::{Digest, Repository};
use bytes::Bytes;
use http::header::{CONTENT_RANGE, RANGE};
use http::{HeaderValue, Method, StatusCode};
use std::time::Duration;
use url::Url;

/// A blob being downloaded. Dropping it closes the connection when bytes are left.
pub struct BlobBody {
    what: String,
    url: Url,
    length: Option<u64>,
    redirected: bool,
    response: reqwest::Response,
    idle_timeout: Duration,
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

    /// The next piece (any size), None at the end. Cancel-safe.
    ///
    /// # Errors
    /// Retry, when the body breaks off, or when nothing comes for the idle time-out.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        match tokio::time::timeout(self.idle_timeout, self.response.chunk()).await {
            Ok(outcome) => outcome.map_err(|error| network::failure(&self.what, &self.url, error)),
            Err(_) => Err(silence(&self.what, self.idle_timeout)),
        }
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
        let range = HeaderValue::try_from(format!("bytes={offset}-"));
        request.headers.insert(RANGE, range.map_err(|error| Error::refused(format!("{}: {error}", request.what)))?);
        let what = request.what.clone();
        let answer = self.stream(request).await?;
        match answer.status {
            StatusCode::OK | StatusCode::RANGE_NOT_SATISFIABLE => return Ok(None),
            StatusCode::PARTIAL_CONTENT => {}
            _ => return Err(answer.error(&what, &answer.hint)),
        }
        if answer.header(CONTENT_RANGE).is_some_and(|range| is_rest(range, offset, size)) {
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
        let redirected = answer.redirected;
        let Some(response) = answer.stream else {
            return Err(Error::passing(format!("{what}: the answer has no body")));
        };
        let idle_timeout = self.shared.settings.idle_timeout;
        Ok(BlobBody { what, url: answer.url, length, redirected, response, idle_timeout })
    }
}

/// Whether a Content-Range is about all bytes from `offset` to the end of `size` (RFC 9110, 14.4); the size may be unknown to
/// who sends it.
fn is_rest(range: &str, offset: u64, size: u64) -> bool {
    let parts = range.strip_prefix("bytes ").and_then(|range| range.split_once('/'));
    let Some(((first, last), whole)) = parts.and_then(|(part, whole)| Some((part.split_once('-')?, whole))) else {
        return false;
    };
    let is = |text: &str, number: u64| text.trim().parse() == Ok(number);
    is(first, offset)
        && size.checked_sub(1).is_some_and(|end| is(last, end))
        && (whole.trim() == "*" || is(whole, size))
}

fn blob_request(method: Method, repository: &Repository, digest: &Digest, scopes: Scopes) -> Request {
    let what = format!("{method} blob {repository}@{digest}");
    let target = Target { host: repository.host().to_owned(), name: repository.name().to_owned(), scopes };
    Request::new(method, what, target, format!("/v2/{}/blobs/{digest}", repository.name()))
}

#[cfg(test)]
mod tests {
    use super::is_rest;

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
            assert_eq!(is_rest(range, 10, 100), rest, "{range}");
        }
        assert!(!is_rest("bytes 0-0/0", 0, 0));
    }
}
