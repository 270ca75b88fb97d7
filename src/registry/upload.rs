//! Uploads of blobs: begun by POST, which may mount instead; sent by PATCH in chunks, or not; ended by one PUT.
//!
//! PATCH and PUT are not tried again here, because the body is gone by then; the token is renewed before they start rather
//! than when they fail, and they have no time limit as a whole, only on silence. A Location may be a
//! capability: it is used exactly as it was sent, its query appears in no message, and a Location on another host gets no
//! Authorization.

use super::content::{Content, Progress, UploadBody, Waiting};
use super::error::Error;
use super::http::{Answer, Call, Request, Target, Want};
use super::pacing::Kind;
use super::scopes::Scopes;
use super::token::Margin;
use super::{Session, network, redirects};
use crate::job::retry::Class;
use crate::oci::{Algorithm, Digest, Repository};
use futures_util::StreamExt;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use std::fmt;
use std::pin::pin;
use std::time::Duration;
use url::Url;

/// How much longer than usual the answer to an upload may take for each MiB: registries hash, and object stores copy, the
/// whole blob before they answer.
const COMMIT_PER_MIB: Duration = Duration::from_millis(60);
/// How often within the idle time-out progress is looked at; a stall is noticed at most a tenth late.
const LOOKS: u32 = 10;

/// How an upload begins.
#[derive(Debug)]
pub enum UploadStart {
    /// The blob is there now (201): mounted from another repository, or was there already.
    Present,
    /// Send the bytes here.
    Session(Upload),
}

/// An open upload: the Location to use next, resolved against the response's URL.
#[derive(Clone)]
pub struct Upload {
    location: Url,
    repository: Repository,
    /// The Location is where the registry is, so that it may see credentials.
    own: bool,
    mount_refused: bool,
    /// The least size of a chunk but the last, bytes; 0: any.
    least_chunk: u64,
}

impl Upload {
    /// What to write down to find the upload again: with it anybody may go on with it, so it is a secret.
    #[must_use]
    pub fn save(&self) -> String {
        format!("{} {}", if self.own { "own" } else { "foreign" }, self.location)
    }

    /// The least size of its chunks but the last, bytes, as the registry wishes; 0: any.
    #[must_use]
    pub const fn least_chunk(&self) -> u64 {
        self.least_chunk
    }

    fn target(&self) -> Target {
        let (host, name) = (self.repository.host().to_owned(), self.repository.name().to_owned());
        Target { scopes: Scopes::push(&name), host, name }
    }

    /// The registry answered the wish to mount with an error, and this upload was begun without it: such a wish costs a
    /// request and is not worth repeating.
    #[must_use]
    pub fn mount_was_refused(&self) -> bool {
        self.mount_refused
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Upload").field("repository", &self.repository).finish_non_exhaustive()
    }
}

impl Session {
    /// `POST blobs/uploads/?mount=&from=`. `from` may be the repository itself: then a 201 means it was there. A `from` on
    /// another host is left out. When the registry answers the mount with a 4xx, a plain POST follows; also when it denies a
    /// mount from another repository, because it may be that one which is out of reach. Not after trouble that passes.
    ///
    /// # Errors
    /// As any request; Refused, when the answer has no usable Location.
    pub async fn start_upload(
        &self,
        repository: &Repository,
        digest: &Digest,
        mount_from: Option<&Repository>,
    ) -> Result<UploadStart, Error> {
        let mut mount_refused = false;
        if let Some(from) = mount_from.filter(|from| from.host() == repository.host()) {
            let what = format!("POST upload of {repository}@{digest}");
            let query = upload_query(digest, Some(from));
            let scopes = Scopes::mount(repository.name(), from.name());
            let refusal = match self.post_upload(&what, repository, &query, scopes).await {
                Ok(answer) if answer.status == StatusCode::CREATED && mounted(&answer, digest) => {
                    return Ok(UploadStart::Present);
                }
                Ok(answer) if answer.status == StatusCode::ACCEPTED => {
                    return self.begun(&what, repository, &answer, mount_refused);
                }
                Ok(answer) => answer.error(&what, &answer.hint),
                Err(error) => error,
            };
            if !may_upload_instead(&refusal, from != repository) {
                return Err(refusal);
            }
            tracing::debug!(%repository, %digest, %refusal, "not mounted, uploading");
            mount_refused = true;
        }
        let what = format!("POST upload to {repository}");
        let query = upload_query(digest, None);
        let answer = self.post_upload(&what, repository, &query, Scopes::push(repository.name())).await?;
        let answer = answer.expect(&what, &[StatusCode::ACCEPTED])?;
        self.begun(&what, repository, &answer, mount_refused)
    }

    async fn post_upload(
        &self,
        what: &str,
        repository: &Repository,
        query: &str,
        scopes: Scopes,
    ) -> Result<Answer, Error> {
        let target = Target { host: repository.host().to_owned(), name: repository.name().to_owned(), scopes };
        let path = format!("/v2/{}/blobs/uploads/{query}", repository.name());
        let mut request = Request::new(Method::POST, what.to_owned(), target, path);
        request.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        self.request(request).await
    }

    fn begun(
        &self,
        what: &str,
        repository: &Repository,
        answer: &Answer,
        mount_refused: bool,
    ) -> Result<UploadStart, Error> {
        let location = answer.header(LOCATION);
        let location = location.ok_or_else(|| Error::refused(format!("{what}: the answer has no Location")))?;
        let location = redirects::resolve(&answer.url, &answer.url, location)
            .map_err(|why| Error::refused(format!("{what}: the upload's Location {why}")))?;
        let own = !answer.foreign && redirects::same_origin(&location, &answer.url);
        let least_chunk =
            answer.header("oci-chunk-min-length").and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0);
        let repository = repository.clone();
        Ok(UploadStart::Session(Upload { location, repository, own, mount_refused, least_chunk }))
    }

    /// One `PUT ?digest=` with Content-Length = `size`: all of the blob, or what is left of it after its chunks. Not retried
    /// here: the body is gone; the caller starts the blob again. On a 401 the token is forgotten and the error's class is Retry.
    ///
    /// # Errors
    /// When `body` fails or has another size, the error's source is what it failed with. An upload that the registry does
    /// not know any more, or whose bytes it received otherwise than they were sent, is a Retry. A destination that neither
    /// reads nor answers for the idle time-out is a Retry.
    pub async fn finish_upload(
        &self,
        upload: Upload,
        digest: &Digest,
        size: u64,
        mut body: UploadBody,
    ) -> Result<(), Error> {
        let what = format!("PUT blob {}@{digest}", upload.repository);
        if size == 0 {
            // The HTTP client never looks into an empty body; it must still end well.
            while let Some(piece) = body.next().await {
                let piece = piece.map_err(|cause| broken(&what, cause))?;
                if !piece.is_empty() {
                    return Err(Error::refused(format!("{what}: the content is longer than announced")));
                }
            }
        }
        let url = redirects::with_digest(&upload.location, digest.as_str());
        let sent = Sent { what, method: Method::PUT, url, range: None, size };
        self.send_body(&upload, sent, body).await.map(drop)
    }

    /// One `PATCH` with the bytes from `offset` on, `size` of them. Returns where to go on, and how many bytes the registry has
    /// now: what it says, or what was sent, where its word is not to be relied on ([`super::Profile::reports_offset`]). Not
    /// retried here: [`upload_status`](Self::upload_status) tells what has become of it.
    ///
    /// # Errors
    /// As [`finish_upload`](Self::finish_upload).
    pub async fn send_chunk(
        &self,
        upload: &Upload,
        offset: u64,
        size: u64,
        body: UploadBody,
    ) -> Result<(Upload, u64), Error> {
        let what = format!("PATCH upload to {}", upload.repository);
        let end = offset.saturating_add(size);
        let range = Some(format!("{offset}-{}", end.saturating_sub(1)));
        let sent = Sent { what: what.clone(), method: Method::PATCH, url: upload.location.clone(), range, size };
        let answer = self.send_body(upload, sent, body).await?;
        let reported =
            answer.header(RANGE).and_then(received).filter(|_| self.profile(&upload.repository).reports_offset);
        Ok((self.moved_on(&what, upload, &answer)?, reported.unwrap_or(end)))
    }

    /// Asks how far an upload has come, which [`Upload::save`] had written down: where to go on, and how many bytes the registry
    /// has. None: it does not know the upload any more, does not tell, or cannot make sense of what it has (500). None too when
    /// a Location elsewhere cannot be asked: only a new upload shows whether the registry itself is in trouble.
    ///
    /// # Errors
    /// As any request.
    pub async fn upload_status(&self, repository: &Repository, saved: &str) -> Result<Option<(Upload, u64)>, Error> {
        let Some((own, location)) = saved.split_once(' ').map(|(own, location)| (own == "own", location)) else {
            return Ok(None);
        };
        let Ok(location) = location.parse::<Url>() else { return Ok(None) };
        let upload = Upload { location, repository: repository.clone(), own, mount_refused: false, least_chunk: 0 };
        let call = self.about_upload(&upload, Method::GET).await?;
        let answer = match self.exchange(&call).await {
            Ok(answer) => answer,
            Err(error) if !own => {
                tracing::debug!(%error, "an upload elsewhere cannot be asked for");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        match answer.status {
            StatusCode::NO_CONTENT | StatusCode::OK | StatusCode::ACCEPTED => {
                let Some(offset) = answer.header(RANGE).and_then(received) else { return Ok(None) };
                Ok(Some((self.moved_on(&call.what, &upload, &answer)?, offset)))
            }
            _ if !own => Ok(None),
            StatusCode::INTERNAL_SERVER_ERROR => Ok(None),
            StatusCode::UNAUTHORIZED => {
                Err(answer.error(&call.what, "").classed(Class::Retry { after: Some(Duration::ZERO) }))
            }
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Err(answer.error(&call.what, ""))
            }
            _ => Ok(None),
        }
    }

    /// The upload after an answer: with its new Location, or the old one where the answer has none.
    fn moved_on(&self, what: &str, upload: &Upload, answer: &Answer) -> Result<Upload, Error> {
        let Some(location) = answer.header(LOCATION) else { return Ok(upload.clone()) };
        let location = redirects::resolve(&answer.url, &answer.url, location)
            .map_err(|why| Error::refused(format!("{what}: the upload's Location {why}")))?;
        let own = upload.own && !answer.foreign && redirects::same_origin(&location, &answer.url);
        Ok(Upload { location, own, ..upload.clone() })
    }

    /// Sends a body to an upload, and takes the answer for a success or an error.
    async fn send_body(&self, upload: &Upload, sent: Sent, body: UploadBody) -> Result<Answer, Error> {
        let Sent { what, method, url, range, size } = sent;
        let target = upload.target();
        let grant = if upload.own { Some(self.grant(&target, Margin::Long).await?) } else { None };
        let (content, progress) = Content::new(body, size);
        let mut request = reqwest::Request::new(method.clone(), url.clone());
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
        if let Some(range) = range.and_then(|range| HeaderValue::try_from(range).ok()) {
            headers.insert(CONTENT_RANGE, range);
        }
        if let Some(authorization) = grant.as_ref().and_then(|grant| grant.header.clone()) {
            headers.insert(AUTHORIZATION, authorization);
        }
        *request.body_mut() = Some(reqwest::Body::wrap(content));
        let pass = self.pace(upload.repository.host(), Kind::UploadData, &method).await?;
        let sending = self.send_watched(&what, &url, request, &progress, size);
        let response = self.count_and_log(&method, &url, false, sending).await?;
        let call = Call {
            what,
            method,
            url: url.clone(),
            ours: false,
            headers: HeaderMap::new(),
            authorization: None,
            body: None,
            want: Want::Nothing,
        };
        let answer = self.receive(&call, response, url, !upload.own).await?;
        pass.answered(&self.shared.clock, answer.status, answer.retry_after, &answer.headers);
        match answer.status {
            StatusCode::CREATED | StatusCode::OK | StatusCode::NO_CONTENT => Ok(answer),
            StatusCode::ACCEPTED if call.method == Method::PATCH => Ok(answer),
            StatusCode::UNAUTHORIZED => {
                if let Some(grant) = &grant {
                    self.learn(&mut target.clone(), &answer, grant).await?;
                }
                Err(answer.error(&call.what, "").classed(Class::Retry { after: Some(Duration::ZERO) }))
            }
            _ => Err(upload_error(&call.what, &answer, grant.and_then(|grant| grant.identity).as_deref())),
        }
    }

    /// A request about an upload that has no body.
    async fn about_upload(&self, upload: &Upload, method: Method) -> Result<Call, Error> {
        let grant = if upload.own { Some(self.grant(&upload.target(), Margin::Short).await?) } else { None };
        Ok(Call {
            what: format!("{method} upload to {}", upload.repository),
            method,
            url: upload.location.clone(),
            ours: false,
            headers: HeaderMap::new(),
            authorization: grant.and_then(|grant| grant.header),
            body: None,
            want: Want::Nothing,
        })
    }

    async fn send_watched(
        &self,
        what: &str,
        url: &Url,
        request: reqwest::Request,
        progress: &Progress,
        size: u64,
    ) -> Result<reqwest::Response, Error> {
        let settings = &self.shared.settings;
        let mib = u32::try_from(size >> 20).unwrap_or(u32::MAX);
        let commit = settings.first_byte_timeout + COMMIT_PER_MIB.saturating_mul(mib);
        let look = (settings.idle_timeout / LOOKS).max(Duration::from_millis(1));
        let mut sending = pin!(self.client(url).execute(request));
        let (mut seen, mut quiet) = (0, Duration::ZERO);
        loop {
            if let Ok(outcome) = tokio::time::timeout(look, &mut sending).await {
                return outcome.map_err(|error| match progress.take_failure() {
                    Some(cause) => broken(what, cause),
                    None => network::failure(what, url, error),
                });
            }
            let waiting = progress.waiting();
            if progress.pulled() != seen || waiting == Waiting::Source {
                // A slow source is bounded by its own time-outs.
                (seen, quiet) = (progress.pulled(), Duration::ZERO);
                continue;
            }
            quiet += look;
            let limit = match waiting {
                Waiting::Answer => commit,
                Waiting::Destination | Waiting::Source if seen == 0 => {
                    settings.idle_timeout.max(settings.connect_timeout)
                }
                Waiting::Destination | Waiting::Source => settings.idle_timeout,
            };
            if quiet >= limit {
                let doing = if waiting == Waiting::Answer { "has not answered" } else { "has not read" };
                let (host, secs) = (url.authority(), limit.as_secs_f32());
                return Err(Error::passing(format!("{what}: {host} {doing} for {secs} s")));
            }
        }
    }

    /// DELETE the upload; failure is ignored (logged at debug).
    pub async fn cancel_upload(&self, upload: Upload) {
        let outcome = async {
            let call = self.about_upload(&upload, Method::DELETE).await?;
            self.exchange(&call)
                .await?
                .expect(&call.what, &[StatusCode::NO_CONTENT, StatusCode::OK, StatusCode::ACCEPTED])
        };
        if let Err(error) = outcome.await {
            tracing::debug!(repository = %upload.repository, %error, "an abandoned upload was left to the registry");
        }
    }
}

/// A body on its way to an upload.
struct Sent {
    what: String,
    method: Method,
    url: Url,
    /// Which bytes of the blob it has, as `first-last`.
    range: Option<String>,
    size: u64,
}

/// How many bytes a registry has, by the `Range` of its answer: `0-N` with N inclusive, with or without a unit in front. None
/// when it says nothing of use. `0-0` is what some say of none at all, and one byte is nothing worth going on from.
fn received(range: &str) -> Option<u64> {
    let range = range.trim();
    let (first, last) = range.strip_prefix("bytes=").unwrap_or(range).split_once('-')?;
    let last: u64 = (first.trim() == "0").then(|| last.trim().parse().ok()).flatten()?;
    Some(if last == 0 { 0 } else { last.checked_add(1)? })
}

/// A registry that says of a mounted blob that it is another one has not mounted it.
fn mounted(answer: &Answer, digest: &Digest) -> bool {
    answer.header("docker-content-digest").is_none_or(|said| said == digest.as_str())
}

/// The query of the POST. Registries hash with sha256 while they receive, unless they are told otherwise (distribution
/// specification, pushing a blob in chunks).
fn upload_query(digest: &Digest, from: Option<&Repository>) -> String {
    let mount = from.map(|from| format!("mount={digest}&from={}", from.name()));
    let algorithm = Some(digest.algorithm()).filter(|algorithm| *algorithm != Algorithm::Sha256);
    let algorithm = algorithm.map(|algorithm| format!("digest-algorithm={algorithm}"));
    let fields: Vec<String> = mount.into_iter().chain(algorithm).collect();
    if fields.is_empty() { String::new() } else { format!("?{}", fields.join("&")) }
}

/// Whether a plain upload makes sense after a refused mount: not after trouble that passes, nor when it is this repository
/// that is denied.
fn may_upload_instead(refusal: &Error, from_elsewhere: bool) -> bool {
    match refusal.class() {
        Class::Denied => from_elsewhere,
        Class::Retry { .. } => false,
        _ => refusal.status().is_some_and(|status| status < 500),
    }
}

fn broken(what: &str, cause: super::error::Cause) -> Error {
    Error::passing(format!("{what}: reading the content to send: {cause}")).caused_by(cause)
}

/// An upload's error, with the classes that a status has only here.
fn upload_error(what: &str, answer: &Answer, identity: Option<&str>) -> Error {
    let error = answer.error(what, &super::auth::hint(identity));
    if answer.status == StatusCode::PAYLOAD_TOO_LARGE {
        return error.hinted("the most it takes in one request can be set for this registry: single_put_limit_bytes");
    }
    let again = match (answer.status.as_u16(), error.code()) {
        // The upload's session is lost, or its bytes were mangled on the way: we have checked them before.
        (_, Some("BLOB_UPLOAD_UNKNOWN" | "BLOB_UPLOAD_INVALID" | "DIGEST_INVALID" | "SIZE_INVALID")) => true,
        (416, _) => true,
        // The body is gone and cannot follow; the next upload may be given the right place from the start.
        (307 | 308, _) => true,
        // Accepted, but not stored.
        (status, _) if status < 300 => true,
        // A signed Location that has expired.
        (401 | 403 | 404, None) => answer.foreign,
        _ => false,
    };
    if again { error.classed(Class::Retry { after: answer.retry_after }) } else { error }
}

#[cfg(test)]
mod tests {
    use super::received;
    use proptest::prelude::*;

    #[test]
    fn what_a_registry_has_is_read_from_its_range() {
        for (range, bytes) in [
            ("0-1023", Some(1024)),
            ("bytes=0-1023", Some(1024)),
            (" 0-9 ", Some(10)),
            ("0-0", Some(0)),
            ("0-18446744073709551615", None),
            ("5-9", None),
            ("0-", None),
            ("-1", None),
            ("0", None),
            ("", None),
        ] {
            assert_eq!(received(range), bytes, "{range:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_made_of_the_corpus_never_gives_more_than_it_says(range in crate::corpus::mutated_lines("range")) {
            let Some(bytes) = received(&range) else { return Ok(()) };
            let last = bytes.saturating_sub(1).to_string();
            prop_assert!(range.contains(&last), "{bytes} of {range:?}");
            let from_start = range.trim_start_matches(|c: char| !c.is_ascii_digit() && c != '-' && c != '+');
            prop_assert!(from_start.trim_start_matches('+').starts_with('0'), "{bytes} of {range:?}");
        }

        #[test]
        fn what_a_registry_has_is_read_back(last in 1_u64..u64::MAX) {
            prop_assert_eq!(received(&format!("0-{last}")), Some(last + 1));
            prop_assert_eq!(received(&format!("bytes=0-{last}")), Some(last + 1));
            prop_assert_eq!(received(&format!("1-{last}")), None);
        }
    }
}
