//! Reading blobs.
//!
//! A blob is handed out as it comes, piece by piece, never collected; what it should be is checked by the caller, who
//! knows its digest. The connection is used again when the body was read to its end. There is no time limit on a blob as a
//! whole, only on silence.

use super::http::{Request, Target, Want, content_length, silence};
use super::scopes::Scopes;
use super::{Error, Session, network};
use crate::oci::{Digest, Repository};
use bytes::Bytes;
use http::{Method, StatusCode};
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
        let mut request = blob_request(Method::GET, repository, digest, self.reading_scopes(repository.name()));
        request.want = Want::Stream;
        let what = request.what.clone();
        let answer = self.request(request).await?.expect(&what, &[StatusCode::OK])?;
        let length = content_length(&answer.headers);
        let redirected = answer.redirected;
        let Some(response) = answer.stream else {
            return Err(Error::passing(format!("{what}: the answer has no body")));
        };
        let idle_timeout = self.shared.settings.idle_timeout;
        Ok(BlobBody { what, url: answer.url, length, redirected, response, idle_timeout })
    }
}

fn blob_request(method: Method, repository: &Repository, digest: &Digest, scopes: Scopes) -> Request {
    let what = format!("{method} blob {repository}@{digest}");
    let target = Target { host: repository.host().to_owned(), name: repository.name().to_owned(), scopes };
    Request::new(method, what, target, format!("/v2/{}/blobs/{digest}", repository.name()))
}
