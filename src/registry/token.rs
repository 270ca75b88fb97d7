//! Tokens for registries: fetched from the server that a challenge names, kept, renewed before they expire.
//!
//! Kept by (registry and how it is trusted, token server, identity, scopes), and fetched by one while the others wait: a
//! copy opens many requests at once. Life is counted from before the request on the boot clock; the server's own
//! `issued_at` is not looked at, because its wall clock need not be ours. An identity token goes by POST as OAuth 2's
//! refresh grant first, and by GET where a server has no POST; user names and passwords go by GET, which every server has.
//! Tokens and what they were fetched with appear in no log and no error.

use super::auth::Realm;
use super::credentials::{Credential, Found, Secret};
use super::flight::Flights;
use super::http::{Call, Want};
use super::pacing::Kind;
use super::retries::Retries;
use super::scopes::Scopes;
use super::{Error, Session};
use crate::clock::BootTime;
use crate::job::retry::Class;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use std::sync::Arc;
use std::time::Duration;

/// Life of a token whose server does not say (distribution specification of tokens).
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// Largest answer of a token server, bytes: tokens of some clouds have tens of kilobytes.
const ANSWER_LIMIT: u64 = 1024 * 1024;
/// What must be left of a token for a request that ends soon.
const SHORT_MARGIN: Duration = Duration::from_secs(10);
/// What must be left of a token when an upload starts: registries look at it at the start, some once more at the end.
const LONG_MARGIN: Duration = Duration::from_secs(30);
/// The name by which token servers know us.
const CLIENT_ID: &str = "freightliner";

/// How long a token must still be good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Margin {
    /// For a request that is sent at once.
    Short,
    /// For an upload.
    Long,
}

/// A token and its life. Debug shows no secret.
#[derive(Debug, Clone)]
pub(super) struct Token {
    value: Secret,
    until: BootTime,
    life: Duration,
}

impl Token {
    fn is_good(&self, now: BootTime, margin: Margin) -> bool {
        let margin = match margin {
            Margin::Short => SHORT_MARGIN.min(self.life / 4),
            // Of a short-lived token a half must do, or it would be fetched for every upload.
            Margin::Long => LONG_MARGIN.max(self.life / 4).min(self.life / 2),
        };
        self.until.since(now) > margin
    }

    /// The value of the Authorization header.
    pub fn value(&self) -> &Secret {
        &self.value
    }
}

/// What a token is kept by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TokenKey {
    /// The registry, and whether it was verified: what an unverified registry caused is of no use to a verified one.
    pub registry: String,
    /// The token server.
    pub realm: Realm,
    /// Whose token it is; None: anybody's.
    pub identity: Option<String>,
    /// What it was asked for.
    pub scopes: Scopes,
}

/// All tokens.
pub(super) type Tokens = Flights<TokenKey, Token>;

impl Session {
    /// A token for `key` that is still good for `margin`, from the cache or the token server.
    ///
    /// # Errors
    /// Denied, when the token server denies; otherwise as any request. Exhausted: it was tried often enough.
    pub(super) async fn token(
        &self,
        key: &TokenKey,
        found: Option<&Arc<Found>>,
        margin: Margin,
    ) -> Result<Token, Error> {
        let tokens = &self.shared.tokens;
        let slot = tokens.slot(key);
        let mut kept = slot.lock().await;
        let now = self.shared.clock.boot();
        if let Some(token) = kept.as_ref().filter(|token| token.is_good(now, margin)) {
            return Ok(token.clone());
        }
        let same_place = |other: &TokenKey| {
            other.registry == key.registry && other.realm == key.realm && other.identity == key.identity
        };
        for wider in
            tokens.matching(|other| same_place(other) && other.scopes != key.scopes && other.scopes.serves(&key.scopes))
        {
            // A wider token that is just being fetched is not waited for: its lock may be held by someone who waits for us.
            if let Ok(wider) = wider.try_lock()
                && let Some(token) = wider.as_ref().filter(|token| token.is_good(now, margin))
            {
                return Ok(token.clone());
            }
        }
        let token = self.fetch_token(key, found).await.map_err(Error::exhausted)?;
        Ok(kept.insert(token).clone())
    }

    /// Forgets the tokens that would be used for `key`, but only those with the value that did not work: another request
    /// may have fetched a new one meanwhile.
    pub(super) async fn forget_token(&self, key: &TokenKey, value: &Secret) {
        let same_place = |other: &TokenKey| {
            other.registry == key.registry && other.realm == key.realm && other.identity == key.identity
        };
        for slot in self.shared.tokens.matching(|other| same_place(other) && other.scopes.serves(&key.scopes)) {
            let mut kept = slot.lock().await;
            if kept.as_ref().is_some_and(|token| token.value == *value) {
                *kept = None;
            }
        }
    }

    async fn fetch_token(&self, key: &TokenKey, found: Option<&Arc<Found>>) -> Result<Token, Error> {
        let credential = found.map(|found| &found.credential);
        if let Some(Credential::Identity { token, .. }) = credential {
            let call = post(key, token);
            match self.ask_token_server(&call, found).await {
                Err(error) if matches!(error.status(), Some(404 | 405)) => {}
                outcome => return outcome,
            }
        }
        self.ask_token_server(&get(key, credential), found).await
    }

    async fn ask_token_server(&self, call: &Call, found: Option<&Arc<Found>>) -> Result<Token, Error> {
        let mut retries = Retries::new(self.shared.settings.tries, self.shared.first_pause);
        loop {
            let asked_at = self.shared.clock.boot();
            let error = match self.paced(call.url.authority(), Kind::Token, call).await {
                Ok(answer) if answer.status == StatusCode::OK => return read(&call.what, &answer.bytes, asked_at),
                Ok(answer) => {
                    let hint = super::auth::hint(found.map(|found| found.identity.as_str()));
                    let error = answer.error(&call.what, &hint);
                    // What a token server cannot find is no image.
                    if error.class() == Class::Absent { error.classed(Class::Refused) } else { error }
                }
                Err(error) => error,
            };
            retries.pause(error).await?;
        }
    }
}

fn what(key: &TokenKey, method: &str) -> String {
    let server = key.realm.url.host_str().unwrap_or_default();
    format!("{method} token for {} at {server}{}", key.scopes, key.realm.url.path())
}

fn get(key: &TokenKey, credential: Option<&Credential>) -> Call {
    let mut url = key.realm.url.clone();
    let account = match credential {
        Some(Credential::Basic { username, password }) => Some((username, password)),
        Some(Credential::Identity { username, token }) => Some((username, token)),
        Some(Credential::Registry { .. }) | None => None,
    };
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = &key.realm.service {
            query.append_pair("service", service);
        }
        for scope in key.scopes.iter() {
            query.append_pair("scope", &scope);
        }
        if let Some((username, _)) = account {
            query.append_pair("account", username);
        }
        query.append_pair("client_id", CLIENT_ID);
    }
    Call {
        what: what(key, "GET"),
        method: Method::GET,
        url,
        ours: true,
        headers: HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]),
        authorization: account.and_then(|(username, password)| super::auth::basic(username, password)),
        body: None,
        want: Want::Bytes { limit: ANSWER_LIMIT },
    }
}

fn post(key: &TokenKey, token: &Secret) -> Call {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token").append_pair("client_id", CLIENT_ID);
    if let Some(service) = &key.realm.service {
        form.append_pair("service", service);
    }
    form.append_pair("scope", &key.scopes.to_string()).append_pair("refresh_token", token.expose());
    Call {
        what: what(key, "POST"),
        method: Method::POST,
        url: key.realm.url.clone(),
        ours: true,
        headers: HeaderMap::from_iter([
            (ACCEPT, HeaderValue::from_static("application/json")),
            (CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
        ]),
        authorization: None,
        body: Some(Bytes::from(form.finish())),
        want: Want::Bytes { limit: ANSWER_LIMIT },
    }
}

#[derive(serde::Deserialize)]
struct Granted {
    token: Option<Secret>,
    access_token: Option<Secret>,
    /// Some servers write a string, or a fraction.
    expires_in: Option<serde_json::Value>,
}

fn read(what: &str, body: &[u8], asked_at: BootTime) -> Result<Token, Error> {
    // The parser's own words may quote the token.
    let granted: Granted = serde_json::from_slice(body)
        .map_err(|_| Error::refused(format!("{what}: the answer is not the JSON of a token server")))?;
    let value = [granted.token, granted.access_token]
        .into_iter()
        .flatten()
        .find(|token| !token.expose().is_empty())
        .ok_or_else(|| Error::refused(format!("{what}: there is no token in the answer")))?;
    let seconds = granted.expires_in.and_then(|life| life.as_f64().or_else(|| life.as_str()?.trim().parse().ok()));
    let life = seconds
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .unwrap_or(DEFAULT_LIFE);
    Ok(Token { value, until: BootTime(asked_at.0.saturating_add(life)), life })
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: BootTime = BootTime(Duration::from_secs(1_000));

    fn good_for(body: &str, margin: Margin) -> u64 {
        let token = read("GET token", body.as_bytes(), START).unwrap();
        (0..100_000)
            .find(|secs| !token.is_good(BootTime(START.0 + Duration::from_secs(*secs)), margin))
            .unwrap_or(u64::MAX)
    }

    #[test]
    fn both_names_of_the_token_are_read() {
        let value = |body: &str| read("x", body.as_bytes(), START).map(|token| token.value.expose().to_owned());
        assert_eq!(value(r#"{"token":"a"}"#).unwrap(), "a");
        assert_eq!(value(r#"{"access_token":"b","scope":"x"}"#).unwrap(), "b");
        assert_eq!(value(r#"{"token":"","access_token":"c"}"#).unwrap(), "c");
        assert!(value("{}").is_err());
        let error = value(r#"{"token":["secret"]}"#).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn tokens_are_renewed_before_they_expire() {
        // 60 s by default: 10 s before the end; half of it must be left for an upload.
        assert_eq!(good_for(r#"{"token":"a"}"#, Margin::Short), 50);
        assert_eq!(good_for(r#"{"token":"a"}"#, Margin::Long), 30);
        assert_eq!(good_for(r#"{"token":"a","expires_in":0}"#, Margin::Short), 50);
        assert_eq!(good_for(r#"{"token":"a","expires_in":"300"}"#, Margin::Short), 290);
        assert_eq!(good_for(r#"{"token":"a","expires_in":300.0}"#, Margin::Long), 225);
        assert_eq!(good_for(r#"{"token":"a","expires_in":8}"#, Margin::Short), 6);
        assert_eq!(good_for(r#"{"token":"a","expires_in":8}"#, Margin::Long), 4);
    }

    #[test]
    fn debug_shows_no_token() {
        let token = read("x", br#"{"token":"hush-hush"}"#, START).unwrap();
        assert!(!format!("{token:?}").contains("hush"));
    }
}
