//! Whether a registry is spoken to by HTTPS or by plain HTTP.
//!
//! HTTPS, always, except where plain HTTP is allowed: on this machine's loopback addresses, and on hosts that were named
//! insecure. There a probe decides: it opens a connection, sends the greeting of a TLS handshake, and looks at the first
//! bytes that come back. Not a request by HTTPS whose failure is read afterwards: failures of certificates, alerts and
//! time-outs look alike in many ways there, and none of them may ever lead to HTTP. The probe carries no credentials, no
//! path and no repository, and is no request in anybody's count. It goes to the host directly, never through a proxy.
//!
//! HTTP is chosen only when the peer answers in the clear, or when nothing listens on the HTTPS port and the reference
//! names no port. An answer is remembered for the host and port until a connection there fails.

use super::flight::Flights;
use super::{Error, Session};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::Url;

/// Time for connection and first answer on loopback: a live server needs a millisecond.
const LOOPBACK_PROBE: Duration = Duration::from_secs(1);
/// The ports of the two schemes.
const HTTPS_PORT: u16 = 443;

/// How to speak to a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Https,
    Http,
}

impl Scheme {
    /// As it stands before `://`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }
}

/// What is known of each host and port, one probe at a time for each.
pub(super) type Schemes = Flights<String, Scheme>;

impl Session {
    /// The scheme for `authority` (`host[:port]`), probing it if need be.
    ///
    /// # Errors
    /// Retry, when a registry on this machine is not there or does not answer the probe in time.
    pub(super) async fn scheme(&self, authority: &str) -> Result<Scheme, Error> {
        let loopback = is_loopback(authority);
        if !loopback && self.verifies(authority) {
            return Ok(Scheme::Https);
        }
        let slot = self.shared.schemes.slot(authority);
        let mut known = slot.lock().await;
        if let Some(scheme) = *known {
            return Ok(scheme);
        }
        let limit = if loopback { LOOPBACK_PROBE } else { self.shared.settings.connect_timeout };
        let found = probe(authority, self.shared.clients.probe.clone(), limit).await;
        tracing::debug!(host = authority, ?found, "probed for TLS");
        match found {
            Probe::Tls => Ok(*known.insert(Scheme::Https)),
            Probe::Clear => Ok(*known.insert(Scheme::Http)),
            // Nothing listens on port 443. Not remembered: a restarting server looks the same.
            Probe::Refused if split(authority).1.is_none() => Ok(Scheme::Http),
            Probe::Refused => Err(Error::passing(format!("connecting to {authority}: connection refused"))),
            Probe::Failed(why) if loopback => Err(Error::passing(format!("probing {authority} for TLS: {why}"))),
            // Perhaps only a proxy leads there; HTTPS is always allowed, and its own error will tell.
            Probe::Failed(_) => Ok(Scheme::Https),
        }
    }

    /// After a failed connection: whatever answered the probe may be another server by now. A URL does not show whether
    /// its scheme's own port was named, so both ways to write it are forgotten.
    pub(super) fn forget_scheme(&self, url: &Url) {
        self.shared.schemes.remove(url.authority());
        if let (None, Some(host), Some(port)) = (url.port(), url.host_str(), url.port_or_known_default()) {
            self.shared.schemes.remove(&format!("{host}:{port}"));
        }
    }
}

/// True for `localhost`, `127.0.0.0/8` and `[::1]`, with or without a port.
pub(super) fn is_loopback(authority: &str) -> bool {
    let (host, _) = split(authority);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Host (brackets kept) and port of `host[:port]`.
fn split(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().ok()),
        _ => (authority, None),
    }
}

#[derive(Debug)]
enum Probe {
    Tls,
    Clear,
    Refused,
    Failed(String),
}

async fn probe(authority: &str, config: Arc<ClientConfig>, limit: Duration) -> Probe {
    match tokio::time::timeout(limit, first_byte(authority, config)).await {
        Err(_) => Probe::Failed(format!("no answer within {} s", limit.as_secs_f32())),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Probe::Refused,
        Ok(Err(error)) => Probe::Failed(error.to_string()),
        Ok(Ok(None)) => Probe::Failed("the connection was closed without an answer".to_owned()),
        Ok(Ok(Some(byte))) if is_tls_record(byte) => Probe::Tls,
        Ok(Ok(Some(_))) => Probe::Clear,
    }
}

/// The first byte of every TLS record: its type, 20 to 24 (RFC 8446, section 5.1). No text protocol begins with those.
fn is_tls_record(byte: u8) -> bool {
    (20..=24).contains(&byte)
}

async fn first_byte(authority: &str, config: Arc<ClientConfig>) -> io::Result<Option<u8>> {
    let (host, port) = split(authority);
    let name = host.trim_start_matches('[').trim_end_matches(']');
    // A name that TLS does not know how to write is replaced; the answer's kind does not depend on it.
    let server = ServerName::try_from(name.to_owned())
        .unwrap_or_else(|_| ServerName::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST).into()));
    let mut greeting = Vec::new();
    ClientConnection::new(config, server).map_err(io::Error::other)?.write_tls(&mut greeting)?;

    let mut stream = TcpStream::connect((name, port.unwrap_or(HTTPS_PORT))).await?;
    stream.write_all(&greeting).await?;
    let mut byte = [0];
    let read = stream.read(&mut byte).await?;
    Ok((read > 0).then_some(byte[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_what_the_contract_says() {
        for host in ["localhost", "LOCALHOST:5000", "127.0.0.1", "127.8.9.10:5000", "[::1]", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example.com", "x.localhost:5000", "128.0.0.1", "[::2]:5000", "docker.io", "10.0.0.1:80"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn ports_are_split_off() {
        assert_eq!(split("localhost:5000"), ("localhost", Some(5000)));
        assert_eq!(split("[::1]:5000"), ("[::1]", Some(5000)));
        assert_eq!(split("[::1]"), ("[::1]", None));
        assert_eq!(split("docker.io"), ("docker.io", None));
    }
}
