//! One request on its way through the fake: what it asks, and its body as it comes in.

use super::fault::Fault;
use super::{LoggedRequest, Shared};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::Incoming;
use std::io;
use std::sync::Arc;

/// A parsed query or form.
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(text).into_owned().collect())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    }
}

/// The requests seen so far; each keeps its number, also when the test clears the log meanwhile.
#[derive(Default)]
pub struct Log {
    next: u64,
    entries: Vec<(u64, LoggedRequest)>,
}

impl Log {
    pub fn requests(&self) -> Vec<LoggedRequest> {
        self.entries.iter().map(|(_, entry)| entry.clone()).collect()
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }

    fn add(&mut self, entry: LoggedRequest) -> u64 {
        self.next += 1;
        self.entries.push((self.next, entry));
        self.next
    }
}

/// One request on its way through the fake.
pub struct Exchange {
    pub shared: Arc<Shared>,
    pub method: String,
    /// The path alone.
    pub path: String,
    /// Path with query, as it came.
    pub target: String,
    /// The query, as it came and parsed.
    pub raw_query: String,
    pub query: Query,
    pub fault: Option<Fault>,
    headers: Vec<(String, String)>,
    body: Incoming,
    /// Read already, but beyond the place where a fault strikes.
    leftover: Option<Bytes>,
    number: u64,
}

impl Exchange {
    /// Takes a request in, and logs it.
    pub fn begin(shared: Arc<Shared>, request: Request<Incoming>) -> Self {
        let (parts, body) = request.into_parts();
        let method = parts.method.to_string();
        let target = parts.uri.path_and_query();
        let target = target.map_or_else(|| parts.uri.to_string(), ToString::to_string);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = parts.headers.iter();
        let headers: Vec<_> = headers.map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect();
        let entry = LoggedRequest {
            method: method.clone(),
            path: target.clone(),
            headers: headers.clone(),
            body_bytes: 0,
            status: None,
        };
        let number = shared.log.lock().expect("no handler panicked").add(entry);
        let raw_query = parts.uri.query().unwrap_or_default().to_owned();
        Self {
            shared,
            method,
            path: parts.uri.path().to_owned(),
            target,
            query: Query::parse(raw_query.as_bytes()),
            raw_query,
            fault: None,
            headers,
            body,
            leftover: None,
            number,
        }
    }

    /// A header of the request, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Logs the answer's status.
    pub fn answered(&self, status: u16) {
        self.note(|entry| entry.status = Some(status));
    }

    fn note(&self, change: impl FnOnce(&mut LoggedRequest)) {
        let mut log = self.shared.log.lock().expect("no handler panicked");
        let entries = log.entries.iter_mut().rev();
        let mut own = entries.filter(|(number, _)| *number == self.number);
        if let Some((_, entry)) = own.next() {
            change(entry);
        }
    }

    /// The next piece of the request's body, with the faults that strike uploads; None at the end.
    pub async fn next_bytes(&mut self, received: u64) -> io::Result<Option<Bytes>> {
        let place = match &self.fault {
            Some(Fault::CutUploadAfter(limit)) if received >= *limit => {
                return Err(io::Error::other("cut by a scripted fault"));
            }
            Some(Fault::HoldUploadAfter { bytes, name }) if received >= *bytes => {
                let gate = self.shared.gate(name);
                self.fault = None;
                gate.pass().await;
                None
            }
            Some(Fault::CutUploadAfter(bytes) | Fault::HoldUploadAfter { bytes, .. }) => Some(bytes - received),
            _ => None,
        };
        let Some(mut data) = self.take_frame().await? else {
            return Ok(None);
        };
        if let Some(place) = place.and_then(|place| usize::try_from(place).ok()).filter(|place| *place < data.len()) {
            self.leftover = Some(data.split_off(place));
        }
        self.note(|entry| entry.body_bytes += data.len() as u64);
        Ok(Some(data))
    }

    async fn take_frame(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(data) = self.leftover.take() {
            return Ok(Some(data));
        }
        while let Some(frame) = self.body.frame().await {
            if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// The whole body of the request.
    pub async fn body(&mut self) -> io::Result<Bytes> {
        let mut all = Vec::new();
        while let Some(bytes) = self.next_bytes(all.len() as u64).await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all.into())
    }
}
