//! A small blocking HTTP/1.1 client: one connection a request, no pool, no redirects, no retries.
//!
//! Written by hand, because a test must see exactly what came over the wire: the HTTP client of the crate under test
//! would follow, decode and retry. It never follows anything and never hides a cut body: `complete` says so.

use super::content::Content;
use super::tls;
use base64::Engine as _;
use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// One peer, with how to talk to it. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    /// `host:port`
    pub authority: String,
    tls: Option<Arc<rustls::ClientConfig>>,
    authorization: Option<String>,
    read_timeout: Duration,
}

/// An answer with its whole body.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// False when the connection ended before the body did.
    pub complete: bool,
}

impl Response {
    /// The first header of that name, in whatever case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    /// Panics unless the status is `status`; gives itself back.
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?} {}", self.headers, self.text());
        self
    }
}

impl Client {
    /// Plain HTTP to `host:port`.
    pub fn new(authority: impl Into<String>) -> Self {
        Self { authority: authority.into(), tls: None, authorization: None, read_timeout: super::PATIENCE }
    }

    /// HTTPS, trusting the authority in this file.
    pub fn trusting(mut self, ca: &Path) -> Self {
        self.tls = Some(tls::client_config(ca));
        self
    }

    pub fn basic(mut self, user: &str, password: &str) -> Self {
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        self.authorization = Some(format!("Basic {pair}"));
        self
    }

    pub fn bearer(mut self, token: &str) -> Self {
        self.authorization = Some(format!("Bearer {token}"));
        self
    }

    /// Gives up when nothing arrives for so long.
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.read_timeout = timeout;
        self
    }

    pub fn get(&self, target: &str) -> Response {
        self.send("GET", target, &[], None)
    }

    pub fn head(&self, target: &str) -> Response {
        self.send("HEAD", target, &[], None)
    }

    /// As `try_send`; panics when there is no answer.
    pub fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: Option<&Content>) -> Response {
        self.try_send(method, target, headers, body)
            .unwrap_or_else(|error| panic!("{method} {target} at {}: {error}", self.authority))
    }

    /// Sends one request and reads the answer. `target` is a path with query, or a URL at this same peer.
    pub fn try_send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&Content>,
    ) -> io::Result<Response> {
        let stream = TcpStream::connect(&self.authority)?;
        stream.set_read_timeout(Some(self.read_timeout))?;
        match &self.tls {
            None => self.converse(stream, method, target, headers, body),
            Some(config) => {
                let host = self.authority.rsplit_once(':').map_or(self.authority.as_str(), |(host, _)| host);
                let name = rustls::pki_types::ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
                let session = rustls::ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
                self.converse(rustls::StreamOwned::new(session, stream), method, target, headers, body)
            }
        }
    }

    fn converse(
        &self,
        mut stream: impl Read + Write,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&Content>,
    ) -> io::Result<Response> {
        let mut head = format!("{method} {} HTTP/1.1\r\nHost: {}\r\n", self.path_of(target), self.authority);
        head.push_str("Connection: close\r\nUser-Agent: test-rig\r\n");
        if let Some(authorization) = &self.authorization {
            head.push_str(&format!("Authorization: {authorization}\r\n"));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if body.is_some() || matches!(method, "POST" | "PUT" | "PATCH") {
            head.push_str(&format!("Content-Length: {}\r\n", body.map_or(0, Content::len)));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        for chunk in body.iter().flat_map(|content| content.chunks()) {
            // A server may answer and close before it has read all: the answer counts.
            if stream.write_all(&chunk).is_err() {
                break;
            }
        }
        read_response(stream, method)
    }

    /// The path of a URL at this peer; a path stays as it is.
    fn path_of<'a>(&self, target: &'a str) -> &'a str {
        let Some((_, rest)) = target.split_once("://").filter(|_| !target.starts_with('/')) else {
            return target;
        };
        rest.strip_prefix(self.authority.as_str())
            .unwrap_or_else(|| panic!("{target} is not at {}: this client follows nothing", self.authority))
    }
}

fn read_response(stream: impl Read, method: &str) -> io::Result<Response> {
    let mut reader = BufReader::new(stream);
    let (status, headers) = loop {
        let head = read_head(&mut reader)?;
        if head.0 >= 200 {
            break head;
        }
    };
    let mut response = Response { status, headers, body: Vec::new(), complete: true };
    if method == "HEAD" || status == 204 || status == 304 {
        return Ok(response);
    }
    let read = if response.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        read_chunked(&mut reader, &mut response.body)
    } else if let Some(length) = response.header("content-length").and_then(|text| text.parse::<u64>().ok()) {
        match reader.take(length).read_to_end(&mut response.body) {
            Ok(_) if response.body.len() as u64 == length => Ok(()),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => Err(error),
        }
    } else {
        reader.read_to_end(&mut response.body).map(|_| ())
    };
    response.complete = read.is_ok();
    Ok(response)
}

fn read_head(reader: &mut impl io::BufRead) -> io::Result<(u16, Vec<(String, String)>)> {
    let line = read_line(reader)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no status line: {line:?}")))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader)?;
        let Some((name, value)) = line.split_once(':') else {
            return Ok((status, headers));
        };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

fn read_line(reader: &mut impl io::BufRead) -> io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn read_chunked(reader: &mut impl io::BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let line = read_line(reader)?;
        let size = u64::from_str_radix(line.split(';').next().unwrap_or_default(), 16).map_err(io::Error::other)?;
        let start = body.len();
        reader.take(size).read_to_end(body)?;
        if (body.len() - start) as u64 != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        read_line(reader)?;
        if size == 0 {
            return Ok(());
        }
    }
}
