//! An answer before it is sent, and its body on the way out with the faults that can befall it there.

use super::fault::Fault;
use super::{Gate, Shared};
use crate::support::content::Content;
use crate::support::server::Body;
use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::Response;
use hyper::body::Frame;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Usual size of a piece of body, bytes.
const PIECE: u64 = 64 * 1024;

/// Time for hyper to write what it holds before a connection is cut; a client that reads slowly gets less.
const FLUSH: Duration = Duration::from_millis(20);

/// An answer as a value.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub content: Content,
}

impl Answer {
    pub fn empty(status: u16) -> Self {
        Self::with(status, Bytes::new())
    }

    pub fn with(status: u16, content: impl Into<Content>) -> Self {
        Self { status, headers: Vec::new(), content: content.into() }
    }

    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        Self::with(status, value.to_string()).header("content-type", "application/json")
    }

    /// An error as the distribution specification describes it.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let error = serde_json::json!({ "code": code, "message": message, "detail": message });
        Self::json(status, &serde_json::json!({ "errors": [error] }))
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn set_header(&mut self, name: &str, value: Option<String>) {
        self.headers.retain(|(key, _)| key != name);
        self.headers.extend(value.map(|value| (name.to_owned(), value)));
    }
}

/// The state of a body that is being sent.
struct Flow {
    content: Content,
    position: u64,
    /// One after the last byte to send; beyond the content: filler.
    end: u64,
    piece: u64,
    delay: Option<Duration>,
    cut_at: Option<u64>,
    stall: Option<(u64, Arc<Gate>)>,
    flip_at: Option<u64>,
}

impl Flow {
    /// The next piece: never across the content's end or a place where something happens.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        if self.cut_at == Some(self.position) {
            // hyper throws away what it has not written yet when a body fails.
            tokio::time::sleep(FLUSH).await;
            return Some(Err(io::Error::other("cut by a scripted fault")));
        }
        if let Some((_, gate)) = self.stall.take_if(|(at, _)| *at == self.position) {
            gate.pass().await;
        }
        if self.position >= self.end {
            return None;
        }
        if let Some(delay) = self.delay {
            tokio::time::sleep(delay).await;
        }
        let size = self.content.len();
        let stops = [Some(self.end), Some(size), self.cut_at, self.stall.as_ref().map(|(at, _)| *at)];
        let limit = self.position + self.piece;
        let next = stops.into_iter().flatten().filter(|stop| *stop > self.position).fold(limit, u64::min);
        let bytes = if self.position < size {
            self.content.slice(self.position..next)
        } else {
            Bytes::from(vec![b' '; usize::try_from(next - self.position).expect("a piece")])
        };
        let bytes = match self.flip_at.filter(|at| (self.position..next).contains(at)) {
            None => bytes,
            Some(at) => {
                let mut flipped = bytes.to_vec();
                flipped[usize::try_from(at - self.position).expect("a piece")] ^= 1;
                flipped.into()
            }
        };
        self.position = next;
        Some(Ok(bytes))
    }
}

/// Makes the answer hyper sends, with the fault that concerns answers, if there is one.
pub fn send(shared: &Shared, mut answer: Answer, fault: Option<&Fault>) -> Response<Body> {
    let size = answer.content.len();
    let mut flow = Flow {
        content: answer.content.clone(),
        position: 0,
        end: size,
        piece: PIECE,
        delay: None,
        cut_at: None,
        stall: None,
        flip_at: None,
    };
    let mut length_known = true;
    match fault {
        Some(Fault::CutBodyAfter(bytes)) => flow.cut_at = Some((*bytes).min(size.saturating_sub(1))),
        Some(Fault::StallBodyAfter { bytes, name }) => flow.stall = Some(((*bytes).min(size), shared.gate(name))),
        Some(Fault::SlowBody { chunk, delay }) => {
            flow.piece = (*chunk).max(1) as u64;
            flow.delay = Some(*delay);
        }
        Some(Fault::WrongBytes) => flow.flip_at = Some(size / 2),
        Some(Fault::ExtraBytes(extra)) => flow.end = size + extra,
        Some(Fault::WrongDigestHeader) => {
            let wrong = crate::support::content::sha256(b"something else");
            answer.set_header("docker-content-digest", Some(wrong));
        }
        Some(Fault::NoDigestHeader) => answer.set_header("docker-content-digest", None),
        Some(Fault::OtherEtag) => answer.set_header("etag", Some("\"other\"".to_owned())),
        Some(Fault::WrongContentType(other)) => answer.set_header("content-type", Some(other.clone())),
        Some(Fault::EndlessBody { mebibytes }) => {
            flow.content = Bytes::new().into();
            flow.end = mebibytes * 1024 * 1024;
            length_known = false;
        }
        _ => {}
    }
    let end = flow.end;
    let stream = futures_util::stream::unfold(flow, |mut flow| async move {
        let piece = flow.next().await?;
        Some((piece.map(Frame::data), flow))
    });
    let mut response = Response::new(StreamBody::new(stream).boxed_unsync());
    *response.status_mut() = hyper::StatusCode::from_u16(answer.status).expect("a status");
    if length_known && answer.status != 204 {
        answer.set_header("content-length", Some(end.to_string()));
    }
    for (name, value) in answer.headers {
        let name = hyper::header::HeaderName::try_from(name).expect("a header name");
        response.headers_mut().append(name, value.try_into().expect("a header value"));
    }
    response
}
