//! Which Authorization header a request carries, and what a 401 teaches.
//!
//! There is no ping: the first request to a registry goes out without credentials, and its 401 says what the registry
//! wants. That is remembered for the host, so that later requests carry a token, or Basic credentials, from the start.
//! What an unverified session learned is never used by a verified one. Credentials are shown to the token server that
//! the registry itself names, because that registry could as well have asked for them directly; but never by plain HTTP,
//! unless the registry is itself spoken to so, and then only on this machine, on the same host, or where HTTP is allowed.

use super::challenge::{self, Challenge};
use super::credentials::{Credential, Secret};
use super::http::{Answer, Target};
use super::redirects;
use super::scheme::is_loopback;
use super::scopes::Scopes;
use super::token::{Margin, TokenKey};
use super::{Error, Session};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::WWW_AUTHENTICATE;
use std::sync::PoisonError;
use url::Url;

/// A token server and the name under which it knows the registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Realm {
    /// Where tokens are fetched.
    pub url: Url,
    /// The registry's name there.
    pub service: Option<String>,
}

/// What a registry wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    Basic,
    Bearer(Realm),
}

/// What one request carries. No Debug: it holds secrets.
#[derive(Default)]
pub(super) struct Grant {
    /// The header, if there is one to send.
    pub header: Option<HeaderValue>,
    /// Whose credentials are behind it, without anything secret.
    pub identity: Option<String>,
    token: Option<(TokenKey, Secret)>,
}

impl Session {
    /// What to send with a request to `target`, by what is known of its registry.
    pub(super) async fn grant(&self, target: &Target, margin: Margin) -> Result<Grant, Error> {
        let key = self.trust_key(&target.host);
        let known = self.shared.challenges.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let Some(known) = known else { return Ok(Grant::default()) };
        let found = self.shared.credentials.find(&target.host, &target.name).await?;
        let identity = found.as_ref().map(|found| found.identity.clone());
        let credential = found.as_ref().map(|found| &found.credential);
        let header = match (known, credential) {
            (Known::Basic, Some(Credential::Basic { username, password })) => basic(username, password),
            (Known::Basic, Some(Credential::Identity { username, token })) => basic(username, token),
            (_, Some(Credential::Registry { token })) => bearer(token),
            (Known::Basic, None) => None,
            (Known::Bearer(realm), _) => {
                let key = TokenKey { registry: key, realm, identity: identity.clone(), scopes: target.scopes.clone() };
                let fetched = self.token(&key, found.as_ref(), margin).await;
                let token = fetched.inspect_err(|_| self.shared.credentials.forget(&target.host, &target.name))?;
                let value = token.value().clone();
                return Ok(Grant { header: bearer(&value), identity, token: Some((key, value)) });
            }
        };
        Ok(Grant { header, identity, token: None })
    }

    /// Takes in the 401 that `grant` earned: remembers what the registry wants, forgets what did not work, adds the scopes
    /// it names to `target`. True when another try can end differently.
    ///
    /// # Errors
    /// Refused, when the registry names a token server that credentials must not go to.
    pub(super) async fn learn(&self, target: &mut Target, answer: &Answer, grant: &Grant) -> Result<bool, Error> {
        let headers = answer.headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenges: Vec<Challenge> = headers.flat_map(challenge::parse).collect();
        if let Some((key, value)) = &grant.token {
            self.forget_token(key, value).await;
        }
        let Some(known) = self.choose(&answer.url, target, &challenges)? else { return Ok(false) };
        if matches!(known, Known::Bearer(_)) {
            let named = challenges.iter().filter(|challenge| challenge.scheme == "bearer");
            for scope in named.filter_map(|challenge| challenge.parameter("scope")) {
                target.scopes = std::mem::take(&mut target.scopes).merged(&Scopes::parse(scope));
            }
        }
        let key = self.trust_key(&target.host);
        self.shared.challenges.lock().unwrap_or_else(PoisonError::into_inner).insert(key, known.clone());
        if grant.token.is_some() {
            return Ok(true);
        }
        // The same credentials a second time would be answered as the first time, unless somebody has changed them.
        if grant.header.is_some() {
            self.shared.credentials.forget(&target.host, &target.name);
        }
        match (known, &grant.header) {
            (Known::Bearer(_), None) => Ok(true),
            (Known::Basic, None) => Ok(self.shared.credentials.find(&target.host, &target.name).await?.is_some()),
            (_, Some(sent)) => Ok(self.grant(target, Margin::Short).await?.header.as_ref() != Some(sent)),
        }
    }

    /// The challenge to answer: Bearer before Basic, because a token says less than a password.
    fn choose(&self, at: &Url, target: &Target, challenges: &[Challenge]) -> Result<Option<Known>, Error> {
        let bearer = challenges.iter().filter(|challenge| challenge.scheme == "bearer");
        if let Some((realm, challenge)) = bearer.filter_map(|c| Some((c.parameter("realm")?, c))).next() {
            let host = &target.host;
            let url = redirects::resolve(at, at, realm)
                .and_then(|url| self.check_realm(at, url))
                .map_err(|why| Error::refused(format!("the token server that {host} names {why}")))?;
            let service = challenge.parameter("service").map(str::to_owned);
            return Ok(Some(Known::Bearer(Realm { url, service })));
        }
        Ok(challenges.iter().any(|challenge| challenge.scheme == "basic").then_some(Known::Basic))
    }

    fn check_realm(&self, registry: &Url, realm: Url) -> Result<Url, String> {
        let authority = realm.authority();
        let same_host = realm.host() == registry.host();
        if realm.scheme() == "https" || same_host || is_loopback(authority) || !self.verifies_url(&realm) {
            return Ok(realm);
        }
        Err(format!("is spoken to by plain HTTP on {authority}, which is refused"))
    }

    /// The name under which things learned from a registry are kept.
    fn trust_key(&self, host: &str) -> String {
        if self.verifies(host) { host.to_owned() } else { format!("unverified {host}") }
    }
}

/// A sentence for a denial: whose credentials were used.
pub(super) fn hint(identity: Option<&str>) -> String {
    match identity {
        Some(identity) => format!("used: {identity}"),
        None => "no credentials were found for it; log in first (docker login)".to_owned(),
    }
}

/// The header of Basic authentication, marked sensitive.
pub(super) fn basic(username: &str, password: &Secret) -> Option<HeaderValue> {
    sensitive(&format!("Basic {}", STANDARD.encode(format!("{username}:{}", password.expose()))))
}

fn bearer(token: &Secret) -> Option<HeaderValue> {
    sensitive(&format!("Bearer {}", token.expose()))
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
