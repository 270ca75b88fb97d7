//! Which web pages may call the API.
//!
//! An origin is allowed when it is configured: exactly, as `*.domain` (any name below it, and the domain itself), or as `*`.
//! Requests without `Origin` come from no web page and pass. Credentials are never allowed beside `*`. The layer answers
//! preflights itself, before anybody asks for a key, because browsers send none with them.

use super::error::ApiError;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use std::sync::Arc;
use std::time::Duration;
use tower_http::cors::{AllowOrigin, CorsLayer};

/// How long a browser may remember the answer to a preflight.
const MAX_AGE: Duration = Duration::from_secs(86_400);

/// The origins that may call.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    any: bool,
    exact: Vec<String>,
    /// `scheme` (with `://`, empty for all) and `.domain[:port]`.
    below: Vec<(String, String)>,
}

impl Origins {
    /// From the configuration.
    ///
    /// # Errors
    /// An entry that is no origin.
    pub fn parse(list: &[String]) -> Result<Self, String> {
        let mut origins = Self::default();
        for entry in list {
            let entry = entry.trim().to_ascii_lowercase();
            let (scheme, host) = entry.split_once("://").map_or(("", entry.as_str()), |(scheme, host)| (scheme, host));
            let is_host = |text: &str| {
                !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte))
            };
            if entry == "*" {
                origins.any = true;
            } else if let Some(domain) = host.strip_prefix("*.").filter(|domain| is_host(domain)) {
                let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
                origins.below.push((scheme, format!(".{domain}")));
            } else if matches!(scheme, "http" | "https") && is_host(host) {
                origins.exact.push(entry);
            } else {
                return Err(format!(
                    "allowed origin `{entry}`: write https://HOST[:PORT], *.DOMAIN or https://*.DOMAIN, or * for all"
                ));
            }
        }
        Ok(origins)
    }

    /// May a page of this origin call?
    #[must_use]
    pub fn allows(&self, origin: &str) -> bool {
        if self.any {
            return true;
        }
        let origin = origin.to_ascii_lowercase();
        let Some((scheme, host)) = origin.split_once("://") else { return false };
        if !matches!(scheme, "http" | "https") || host.contains(['/', '@', '?', '#', '\\']) {
            return false;
        }
        self.exact.contains(&origin)
            || self.below.iter().any(|(wanted, domain)| {
                (wanted.is_empty() || origin.starts_with(wanted.as_str()))
                    && (host == &domain[1..] || host.ends_with(domain.as_str()) && host.len() > domain.len())
            })
    }

    /// Nobody is allowed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        !self.any && self.exact.is_empty() && self.below.is_empty()
    }

    /// Refuses pages of other origins. A page of this very server has its host as origin, and passes.
    ///
    /// # Errors
    /// 403.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let origin = origin.to_str().unwrap_or_default();
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let own = origin.split_once("://").is_some_and(|(_, origin)| !host.is_empty() && origin == host);
        if own || self.allows(origin) { Ok(()) } else { Err(ApiError::forbidden("Origin not allowed")) }
    }

    /// The layer that answers browsers.
    pub fn layer(self: &Arc<Self>) -> CorsLayer {
        let layer = CorsLayer::new()
            .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS])
            .allow_headers([
                header::CONTENT_TYPE,
                header::AUTHORIZATION,
                HeaderName::from_static("x-api-key"),
                HeaderName::from_static("idempotency-key"),
                HeaderName::from_static("last-event-id"),
            ])
            .expose_headers([HeaderName::from_static("x-request-id"), header::RETRY_AFTER])
            .max_age(MAX_AGE);
        if self.any {
            return layer.allow_origin(tower_http::cors::Any);
        }
        let origins = self.clone();
        layer
            .allow_origin(AllowOrigin::predicate(move |origin: &HeaderValue, _| {
                origin.to_str().is_ok_and(|origin| origins.allows(origin))
            }))
            .allow_credentials(true)
            .vary([header::ORIGIN])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(list: &[&str]) -> Origins {
        Origins::parse(&list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn origins_that_nearly_match_do_not() {
        let origins = origins(&["https://app.example.com", "*.corp.example", "https://*.safe.example:8443"]);
        for allowed in [
            "https://app.example.com",
            "https://APP.example.com",
            "http://a.corp.example",
            "https://a.b.corp.example",
            "https://corp.example",
            "https://x.safe.example:8443",
        ] {
            assert!(origins.allows(allowed), "{allowed}");
        }
        for refused in [
            "",
            "null",
            "http://app.example.com",
            "https://app.example.com.evil.example",
            "https://app.example.com:8443",
            "https://evilcorp.example",
            "https://corp.example.evil",
            "https://a.corp.example@evil.example",
            "https://evil.example/.corp.example",
            "https://.corp.example",
            "http://x.safe.example:8443",
            "https://x.safe.example",
            "ftp://a.corp.example",
            "a.corp.example",
        ] {
            assert!(!origins.allows(refused), "{refused}");
        }
    }

    #[test]
    fn nonsense_is_no_origin() {
        for entry in ["", "example.com", "https://", "*.", "https://a/b", "**", "ftp://x"] {
            assert!(Origins::parse(&[entry.to_owned()]).is_err(), "{entry}");
        }
        assert!(origins(&["*"]).allows("https://anything.example"));
        assert!(origins(&[]).is_empty() && !origins(&[]).allows("https://a.example"));
    }

    #[test]
    fn a_page_of_this_server_passes() {
        let mut headers = HeaderMap::new();
        assert!(origins(&[]).check(&headers).is_ok());
        headers.insert(header::ORIGIN, HeaderValue::from_static("http://localhost:8080"));
        assert!(origins(&[]).check(&headers).is_err());
        headers.insert(header::HOST, HeaderValue::from_static("localhost:8080"));
        assert!(origins(&[]).check(&headers).is_ok());
        headers.insert(header::HOST, HeaderValue::from_static("localhost:80800"));
        assert!(origins(&[]).check(&headers).is_err());
    }
}
