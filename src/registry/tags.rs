//! Lists of tags and of repositories, a page at a time.
//!
//! The next page is where the registry's `Link` says, and there is a next one exactly when it says so: fewer entries than
//! asked for mean nothing, and the last name of a page is no safe cursor. The caller bounds how many pages it takes; a link
//! that leads to its own page or to another host is refused here.

use super::http::{Request, Target, Want};
use super::link;
use super::scopes::Scopes;
use super::{Error, Session};
use crate::oci::Repository;
use http::header::LINK;
use http::{Method, StatusCode};

/// Entries asked for at once: what registries allow at most by default.
const PAGE: u32 = 1_000;
/// Largest page, bytes: a registry without paging may answer with all of a hundred thousand tags.
const PAGE_LIMIT: u64 = 16 * 1024 * 1024;
/// What Distribution answers when a page of that size is more than it is configured for.
const PAGE_TOO_LARGE: &str = "PAGINATION_NUMBER_INVALID";

/// Where the next page is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagCursor {
    /// Path and query at the registry.
    page: String,
}

#[derive(serde::Deserialize)]
struct Page {
    /// null occurs where there are none.
    #[serde(default, alias = "repositories")]
    tags: Option<Vec<String>>,
}

impl Session {
    /// One page of tags and the cursor of the next (from Link).
    ///
    /// # Errors
    /// Absent, when the repository is not known; Refused, when the answer is no list or links to where it must not;
    /// otherwise as any request.
    pub async fn list_tags(
        &self,
        repository: &Repository,
        page: Option<TagCursor>,
    ) -> Result<(Vec<String>, Option<TagCursor>), Error> {
        let name = repository.name();
        let target = Target { host: repository.host().to_owned(), name: name.to_owned(), scopes: Scopes::pull(name) };
        self.list(&format!("GET tags of {repository}"), target, &format!("/v2/{name}/tags/list"), page).await
    }

    /// One page of the catalog: the names of the registry's repositories, and the cursor of the next.
    ///
    /// # Errors
    /// As for [`list_tags`](Self::list_tags); many public registries deny it.
    pub async fn list_repositories(
        &self,
        host: &str,
        page: Option<TagCursor>,
    ) -> Result<(Vec<String>, Option<TagCursor>), Error> {
        let target = Target { host: host.to_owned(), name: String::new(), scopes: Scopes::catalog() };
        self.list(&format!("GET repositories of {host}"), target, "/v2/_catalog", page).await
    }

    async fn list(
        &self,
        what: &str,
        target: Target,
        path: &str,
        page: Option<TagCursor>,
    ) -> Result<(Vec<String>, Option<TagCursor>), Error> {
        let ask = |page: String| {
            let mut request = Request::new(Method::GET, what.to_owned(), target.clone(), page);
            request.want = Want::Bytes { limit: PAGE_LIMIT };
            self.request(request)
        };
        let first = page.is_none();
        let mut answer = ask(page.map_or_else(|| format!("{path}?n={PAGE}"), |cursor| cursor.page)).await?;
        if first && answer.status == StatusCode::BAD_REQUEST && answer.error(what, "").code() == Some(PAGE_TOO_LARGE) {
            answer = ask(path.to_owned()).await?;
        }
        let answer = answer.expect(what, &[StatusCode::OK])?;
        let page: Page = serde_json::from_slice(&answer.bytes)
            .map_err(|error| Error::refused(format!("{what}: the answer is no list")).caused_by(error))?;
        let links = answer.headers.get_all(LINK).iter().filter_map(|link| link.to_str().ok());
        let next = link::next_page(&answer.url, links).map_err(|why| Error::refused(format!("{what}: {why}")))?;
        Ok((page.tags.unwrap_or_default(), next.map(|page| TagCursor { page })))
    }
}
