//! What the HTTP client's errors mean.
//!
//! Its own words are not used: they contain whole URLs, whose query can be a capability, and say "error sending request"
//! first. Here the innermost cause is found and put into one sentence, and certificates, which waiting does not heal, are
//! told apart from trouble that passes.

use super::Error;
use std::error::Error as _;
use std::io;
use url::Url;

/// The error for `what`, which failed at `url`.
pub(super) fn failure(what: &str, url: &Url, error: reqwest::Error) -> Error {
    let error = error.without_url();
    let host = url.authority();
    let connecting = error.is_connect();
    let built = match tls_error(&error) {
        Some(rustls::Error::InvalidCertificate(why)) => Error::refused(format!(
            "{what}: the certificate of {host} is not valid here ({why:?}); trust its CA with a CA file, or switch \
             verification off for it (--src-tls-verify=false, --dest-tls-verify=false)"
        )),
        Some(rustls::Error::InvalidMessage(_)) if connecting => Error::refused(format!(
            "{what}: {host} does not speak TLS; if it is meant to be plain HTTP, configure it as insecure or switch \
             verification off for it (--src-tls-verify=false, --dest-tls-verify=false)"
        )),
        Some(why) => Error::passing(format!("{what}: TLS with {host} failed: {why}")),
        None if error.is_timeout() && connecting => Error::passing(format!("{what}: connecting to {host}: timed out")),
        None if connecting => Error::passing(format!("{what}: connecting to {host}: {}", innermost(&error))),
        None => Error::passing(format!("{what}: {}", innermost(&error))),
    };
    built.caused_by(error)
}

/// Whether nobody took the connection.
pub(super) fn is_connect(error: &Error) -> bool {
    error.source().and_then(|cause| cause.downcast_ref::<reqwest::Error>()).is_some_and(reqwest::Error::is_connect)
}

/// The TLS error within, wherever it is wrapped.
fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(tls) = cause.downcast_ref() {
            return Some(tls);
        }
        // An I/O error's source is the source of what it wraps; what it wraps must be asked for.
        if let Some(wrapped) = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            if let Some(tls) = wrapped.downcast_ref() {
                return Some(tls);
            }
            if let Some(io) = wrapped.downcast_ref::<io::Error>() {
                next = Some(io);
                continue;
            }
        }
        next = cause.source();
    }
    None
}

fn innermost(error: &reqwest::Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        words = cause.to_string();
        next = cause.source();
    }
    words
}
