//! Manifests: looked at, fetched, put, deleted.
//!
//! HEAD sends the same Accept as GET, or a registry may convert and report the digest of something else. The bytes are
//! handed on as they came; parsing and checking them is for `oci`. A manifest over the limit is refused by its announced
//! length, or as soon as more has come, and never held in memory.

use super::http::{Request, Target, Want, content_length};
use super::scopes::Scopes;
use super::{Error, Session};
use crate::job::retry::Class;
use crate::oci::manifest::{DOCKER_LIST, DOCKER_MANIFEST, OCI_ARTIFACT, OCI_INDEX, OCI_MANIFEST};
use crate::oci::{Digest, Repository, Selector};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

/// Every kind of manifest that is understood, most wanted first. Indexes come first, so that no registry picks a platform.
const ACCEPTED: [&str; 5] = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, OCI_ARTIFACT];
/// The header with a content's digest; old registries leave it out.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// What HEAD said of a manifest; any of it may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestHead {
    /// Docker-Content-Digest, when it was there and valid.
    pub digest: Option<Digest>,
    /// Content-Type, with its parameters.
    pub media_type: Option<String>,
    /// Content-Length, bytes.
    pub size: Option<u64>,
}

/// A manifest as the registry sent it, unchecked.
#[derive(Debug, Clone)]
pub struct FetchedManifest {
    /// The exact bytes.
    pub bytes: Bytes,
    /// Content-Type, with its parameters.
    pub content_type: Option<String>,
    /// Docker-Content-Digest, when it was there and valid. It is what the registry says, not what the bytes are.
    pub digest: Option<Digest>,
}

impl Session {
    /// `HEAD manifests/<selector>`. 404 -> Ok(None). A registry that knows no HEAD (405) gives a head without anything: then
    /// only GET tells.
    ///
    /// # Errors
    /// As any request.
    pub async fn head_manifest(
        &self,
        repository: &Repository,
        selector: &Selector,
    ) -> Result<Option<ManifestHead>, Error> {
        let request = self.reading(Method::HEAD, repository, selector);
        let what = request.what.clone();
        let answer = self.request(request).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::METHOD_NOT_ALLOWED => Ok(Some(ManifestHead { digest: None, media_type: None, size: None })),
            _ => {
                let headers = answer.expect(&what, &[StatusCode::OK])?.headers;
                let size = content_length(&headers);
                Ok(Some(ManifestHead { digest: content_digest(&headers), media_type: content_type(&headers), size }))
            }
        }
    }

    /// `GET manifests/<selector>`.
    ///
    /// # Errors
    /// Absent on 404; Refused when over the manifest limit (never read into memory); otherwise as any request.
    pub async fn get_manifest(&self, repository: &Repository, selector: &Selector) -> Result<FetchedManifest, Error> {
        self.get_with_headers(repository, selector).await.map(|(fetched, _)| fetched)
    }

    /// The same with all headers of the answer.
    pub(super) async fn get_with_headers(
        &self,
        repository: &Repository,
        selector: &Selector,
    ) -> Result<(FetchedManifest, HeaderMap), Error> {
        let mut request = self.reading(Method::GET, repository, selector);
        request.want = Want::Bytes { limit: self.shared.settings.manifest_limit };
        let what = request.what.clone();
        let answer = self.request(request).await?.expect(&what, &[StatusCode::OK])?;
        let fetched = FetchedManifest {
            bytes: answer.bytes,
            content_type: content_type(&answer.headers),
            digest: content_digest(&answer.headers),
        };
        Ok((fetched, answer.headers))
    }

    /// `PUT manifests/<selector>` with these exact bytes.
    ///
    /// # Errors
    /// Refused, when the registry does not take it (400, 413, 415, ...); Corrupt, when it says that it stored something
    /// else; otherwise as any request.
    pub async fn put_manifest(
        &self,
        repository: &Repository,
        selector: &Selector,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<(), Error> {
        self.put(repository, selector, media_type, bytes, HeaderMap::new()).await.map(drop)
    }

    /// The same with more headers; gives those of the answer.
    pub(super) async fn put(
        &self,
        repository: &Repository,
        selector: &Selector,
        media_type: &str,
        bytes: Bytes,
        headers: HeaderMap,
    ) -> Result<HeaderMap, Error> {
        let mut request = writing(Method::PUT, repository, selector, Scopes::push(repository.name()));
        let what = request.what.clone();
        let content_type = HeaderValue::from_str(media_type)
            .map_err(|_| Error::refused(format!("{what}: the media type {media_type:?} cannot stand in a header")))?;
        request.headers = headers;
        request.headers.insert(CONTENT_TYPE, content_type);
        request.body = Some(bytes.clone());
        let answer = self.request(request).await?;
        let answer = answer.expect(&what, &[StatusCode::CREATED, StatusCode::OK, StatusCode::NO_CONTENT])?;
        let Some(stored) = content_digest(&answer.headers) else { return Ok(answer.headers) };
        let sent = Digest::of(stored.algorithm(), &bytes);
        if stored == sent {
            return Ok(answer.headers);
        }
        Err(Error::new(Class::Corrupt, format!("{what}: the registry stored {stored} instead of {sent}")))
    }

    /// `DELETE manifests/<selector>`.
    ///
    /// # Errors
    /// Absent on 404; Refused where deleting is switched off (400, 405); otherwise as any request.
    pub async fn delete_manifest(&self, repository: &Repository, selector: &Selector) -> Result<(), Error> {
        let request = writing(Method::DELETE, repository, selector, Scopes::delete(repository.name()));
        let what = request.what.clone();
        let answer = self.request(request).await?;
        answer.expect(&what, &[StatusCode::ACCEPTED, StatusCode::OK, StatusCode::NO_CONTENT])?;
        Ok(())
    }

    fn reading(&self, method: Method, repository: &Repository, selector: &Selector) -> Request {
        let mut request = writing(method, repository, selector, self.reading_scopes(repository.name()));
        if let Ok(accepted) = HeaderValue::from_str(&ACCEPTED.join(", ")) {
            request.headers.insert(ACCEPT, accepted);
        }
        request
    }
}

fn writing(method: Method, repository: &Repository, selector: &Selector, scopes: Scopes) -> Request {
    let separator = match selector {
        Selector::Tag(_) => ':',
        Selector::Digest(_) => '@',
    };
    let what = format!("{method} manifest {repository}{separator}{selector}");
    let target = Target { host: repository.host().to_owned(), name: repository.name().to_owned(), scopes };
    Request::new(method, what, target, format!("/v2/{}/manifests/{selector}", repository.name()))
}

fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get(CONTENT_DIGEST)?.to_str().ok()?.trim().parse().ok()
}

fn content_type(headers: &HeaderMap) -> Option<String> {
    Some(headers.get(CONTENT_TYPE)?.to_str().ok()?.to_owned())
}
