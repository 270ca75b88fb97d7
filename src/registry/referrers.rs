//! Referrers: the manifests whose `subject` is another one (distribution spec, "Listing Referrers").
//!
//! A registry that has no such API says so in many ways: the specification wants a 404, older ones answer any route that they
//! do not know with another 4xx, or with a page for people. All of that is [`Listed::NoApi`] here, and what to do then is for the caller.
//! What says that it is a list and is none is an error: taken for an empty list, it would lose signatures without a word.
//! Whatever the registry filters is filtered by the caller again.

use super::http::{Answer, Request, Target, Want};
use super::{Error, Session, link};
use crate::oci::manifest::OCI_INDEX;
use crate::oci::{Content, Descriptor, Digest, Manifest, Repository, Selector};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, IF_MATCH, LINK};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

/// Most pages of one list: some thousand referrers at the shortest pages known. More is a registry that goes in circles.
const PAGES_LIMIT: usize = 100;
/// Most bytes of all pages of one list together, of which little is kept.
const LIST_BYTES_LIMIT: usize = 32 * 1024 * 1024;
/// The header by which a registry says that it keeps the list of the subject's referrers itself.
const OCI_SUBJECT: &str = "oci-subject";
/// What a registry says of a repository that it does not know: nothing about its API.
const NO_REPOSITORY: &str = "NAME_UNKNOWN";
/// The same of an image.
const NO_IMAGE: &str = "MANIFEST_UNKNOWN";

/// A manifest under a tag, and what it takes to replace just this one.
#[derive(Debug, Clone)]
pub struct Versioned {
    /// The exact bytes.
    pub bytes: Bytes,
    /// Content-Type, with its parameters.
    pub content_type: Option<String>,
    etag: Option<HeaderValue>,
}

/// What a registry says of the referrers of a manifest.
#[derive(Debug, Clone)]
pub enum Listed {
    /// All that it lists.
    Referrers(Vec<Descriptor>),
    /// It has no API for that.
    NoApi,
    /// It does not know the repository, which says nothing of its API. Of a repository that is known to be there, it does.
    NoRepository,
    /// It does not know the image, which says nothing of its API either.
    NoImage,
}

impl Session {
    /// All pages of `GET referrers/<digest>`, those of `artifact_type` only when the registry can filter; at most `limit`
    /// entries.
    ///
    /// # Errors
    /// Refused, when the answer is a broken list, or a longer one; otherwise as any request.
    pub async fn list_referrers(
        &self,
        repository: &Repository,
        digest: &Digest,
        artifact_type: Option<&str>,
        limit: usize,
    ) -> Result<Listed, Error> {
        let what = format!("GET referrers of {repository}@{digest}");
        let mut path = format!("/v2/{}/referrers/{digest}", repository.name());
        if let Some(wanted) = artifact_type {
            let query: String = url::form_urlencoded::byte_serialize(wanted.as_bytes()).collect();
            path.push_str(&format!("?artifactType={query}"));
        }
        let (mut found, mut bytes) = (Vec::new(), 0_usize);
        for page in 0..PAGES_LIMIT {
            let answer = self.page_of_referrers(repository, &what, path).await?;
            let broken = |why: String| Error::refused(format!("{what}: the answer is a broken list: {why}"));
            if answer.status != StatusCode::OK {
                let error = answer.error(&what, &answer.hint);
                return match answer.status.as_u16() {
                    404 if page == 0 && error.code() == Some(NO_REPOSITORY) => Ok(Listed::NoRepository),
                    404 if page == 0 && error.code() == Some(NO_IMAGE) => Ok(Listed::NoImage),
                    400 | 404 | 405 | 406 | 410 | 415 | 501 if page == 0 => {
                        tracing::debug!(%repository, %error, "the registry lists no referrers");
                        Ok(Listed::NoApi)
                    }
                    _ => Err(error),
                };
            }
            bytes = bytes.saturating_add(answer.bytes.len());
            if bytes > LIST_BYTES_LIMIT {
                return Err(broken(format!("it has more than {LIST_BYTES_LIMIT} bytes")));
            }
            match entries(&answer) {
                Ok(Some(entries)) => found.extend(entries),
                Ok(None) if page == 0 => {
                    let content_type = answer.header(CONTENT_TYPE).unwrap_or("none");
                    tracing::warn!(%repository, content_type, "the registry answers something else than a list of referrers, taken for not having one");
                    return Ok(Listed::NoApi);
                }
                Ok(None) => return Err(broken("a page of it is none".to_owned())),
                Err(why) => return Err(broken(why)),
            }
            if found.len() > limit {
                return Err(Error::refused(format!("{what}: there are more than {limit}")));
            }
            let links = answer.headers.get_all(LINK).iter().filter_map(|link| link.to_str().ok());
            match link::next_page(&answer.url, links).map_err(broken)? {
                Some(next) => path = next,
                None => return Ok(Listed::Referrers(found)),
            }
        }
        Err(Error::refused(format!("{what}: the list has more than {PAGES_LIMIT} pages")))
    }

    async fn page_of_referrers(&self, repository: &Repository, what: &str, path: String) -> Result<Answer, Error> {
        let scopes = self.reading_scopes(repository.name());
        let target = Target { host: repository.host().to_owned(), name: repository.name().to_owned(), scopes };
        let mut request = Request::new(Method::GET, what.to_owned(), target, path);
        request.headers.insert(ACCEPT, HeaderValue::from_static(OCI_INDEX));
        request.want = Want::Bytes { limit: self.shared.settings.manifest_limit };
        self.request(request).await
    }

    /// The manifest that a tag names now, to be replaced. None: the tag is not there.
    ///
    /// # Errors
    /// As for [`get_manifest`](Self::get_manifest).
    pub async fn get_versioned(&self, repository: &Repository, tag: &Selector) -> Result<Option<Versioned>, Error> {
        match self.get_with_headers(repository, tag).await {
            Ok((fetched, headers)) => {
                let etag = headers.get(ETAG).cloned();
                Ok(Some(Versioned { bytes: fetched.bytes, content_type: fetched.content_type, etag }))
            }
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts an index where `before` was read, if the registry told a version of it: only if it is still there then. False:
    /// it was replaced meanwhile.
    ///
    /// # Errors
    /// As for [`put_manifest`](Self::put_manifest).
    pub async fn replace_index(
        &self,
        repository: &Repository,
        tag: &Selector,
        before: Option<&Versioned>,
        bytes: Bytes,
    ) -> Result<bool, Error> {
        let mut headers = HeaderMap::new();
        if let Some(etag) = before.and_then(|before| before.etag.clone()) {
            headers.insert(IF_MATCH, etag);
        }
        match self.put(repository, tag, OCI_INDEX, bytes, headers).await {
            Ok(_) => Ok(true),
            Err(error) if error.status() == Some(StatusCode::PRECONDITION_FAILED.as_u16()) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Puts a manifest that has a subject, by its digest or under a tag. True: the registry keeps the list of the subject's referrers itself.
    ///
    /// # Errors
    /// As for [`put_manifest`](Self::put_manifest).
    pub async fn put_referrer(
        &self,
        repository: &Repository,
        selector: &Selector,
        manifest: &Manifest,
    ) -> Result<bool, Error> {
        let bytes = manifest.bytes.clone();
        let headers = self.put(repository, selector, &manifest.media_type, bytes, HeaderMap::new()).await?;
        Ok(headers.contains_key(OCI_SUBJECT))
    }
}

/// The entries of a page. None: this is no list, and does not say that it is one.
fn entries(answer: &Answer) -> Result<Option<Vec<Descriptor>>, String> {
    read_entries(answer.header(CONTENT_TYPE).unwrap_or_default(), answer.bytes.clone())
}

fn read_entries(content_type: &str, bytes: Bytes) -> Result<Option<Vec<Descriptor>>, String> {
    #[derive(serde::Deserialize)]
    struct List {
        #[serde(rename = "manifests")]
        _manifests: serde::de::IgnoredAny,
    }
    let is_index = content_type.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case(OCI_INDEX));
    let says_so = is_index || serde_json::from_slice::<List>(&bytes).is_ok();
    match Manifest::parse(bytes, is_index.then_some(OCI_INDEX), None) {
        Ok(Manifest { content: Content::Index { manifests, .. }, .. }) => Ok(Some(manifests)),
        Ok(_) if says_so => Err("it is a manifest, not an index".to_owned()),
        Err(cause) if says_so => Err(cause.to_string()),
        Ok(_) | Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_list_is_told_from_no_list() {
        let entry =
            format!(r#"{{"mediaType":"a/b","digest":"sha256:{}","size":2,"artifactType":"c/d"}}"#, "a".repeat(64));
        let read = |content_type: &str, text: &str| {
            let bytes = Bytes::copy_from_slice(text.as_bytes());
            read_entries(content_type, bytes).map(|found| found.map(|entries| entries.len()))
        };
        let list = format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#);
        for content_type in [OCI_INDEX, "application/json; charset=utf-8", "text/plain", ""] {
            assert_eq!(read(content_type, &list), Ok(Some(1)), "{content_type}");
            assert!(
                read(content_type, r#"{"manifests":[{"digest":"sha256:00","size":1}]}"#).is_err(),
                "{content_type}"
            );
        }
        assert_eq!(read(OCI_INDEX, r#"{"schemaVersion":2,"manifests":null}"#), Ok(Some(0)));
        for text in ["<html>no such page</html>", r#"{"errors":[]}"#, "", "[]"] {
            assert_eq!(read("text/html", text), Ok(None), "{text}");
            assert!(read(OCI_INDEX, text).is_err(), "{text}");
        }
        assert!(read(OCI_INDEX, r#"{"schemaVersion":2,"layers":[]}"#).is_err());
    }
}
