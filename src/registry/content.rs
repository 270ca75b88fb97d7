//! The body of an upload: a stream of exactly so many bytes, watched.
//!
//! Not the stream itself given to the HTTP client: it would be sent without a length, and nobody could tell a destination
//! that has stopped reading from a source that is slow. The last piece is held back until the stream has ended without an
//! error, so that a registry never gets all bytes of a content that failed its check at the very end.

use super::error::Cause;
use bytes::Bytes;
use futures_util::Stream;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

/// The body of an upload: exactly as many bytes as announced, or an error, which aborts the request before it is complete.
pub type UploadBody = Pin<Box<dyn Stream<Item = Result<Bytes, Cause>> + Send + Sync>>;

/// Who is being waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    /// The destination: to take the next piece.
    Destination,
    /// The stream: to give the next piece.
    Source,
    /// The destination: to answer, everything is sent.
    Answer,
}

/// What is known of a body from outside while the HTTP client owns it.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pulled: AtomicU64,
    waiting: AtomicU8,
    failure: Mutex<Option<Cause>>,
}

impl Progress {
    /// Rises with every piece that is taken.
    pub fn pulled(&self) -> u64 {
        self.pulled.load(Ordering::Relaxed)
    }

    pub fn waiting(&self) -> Waiting {
        match self.waiting.load(Ordering::Relaxed) {
            0 => Waiting::Destination,
            1 => Waiting::Source,
            _ => Waiting::Answer,
        }
    }

    /// The error of the stream, if that is what ended the body.
    pub fn take_failure(&self) -> Option<Cause> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, waiting: Waiting) {
        self.waiting.store(waiting as u8, Ordering::Relaxed);
    }
}

/// Why a body broke off; what the stream said lies in [`Progress`].
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the content's stream failed")]
    Stream,
    #[error("the content ended {0} bytes too early")]
    Short(u64),
    #[error("the content is longer than announced")]
    Long,
}

/// A stream as a body with an exact length.
pub(super) struct Content {
    stream: UploadBody,
    /// Bytes that the stream must still give.
    left: u64,
    /// The last piece, until the stream has ended.
    held: Option<Bytes>,
    done: bool,
    progress: Arc<Progress>,
}

impl Content {
    pub fn new(stream: UploadBody, size: u64) -> (Self, Arc<Progress>) {
        let progress = Arc::new(Progress::default());
        (Self { stream, left: size, held: None, done: size == 0, progress: progress.clone() }, progress)
    }

    fn fail(&mut self, cause: Cause) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        self.done = true;
        *self.progress.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause);
        Poll::Ready(Some(Err(Box::new(Broken::Stream))))
    }

    fn give(&self, bytes: Bytes) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        self.progress.pulled.fetch_add(1, Ordering::Relaxed);
        self.progress.set(if self.done { Waiting::Answer } else { Waiting::Destination });
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        loop {
            if self.done {
                return Poll::Ready(None);
            }
            match self.stream.as_mut().poll_next(context) {
                Poll::Pending => {
                    self.progress.set(Waiting::Source);
                    return Poll::Pending;
                }
                Poll::Ready(Some(Err(cause))) => return self.fail(cause),
                Poll::Ready(Some(Ok(bytes))) if bytes.is_empty() => {}
                Poll::Ready(Some(Ok(bytes))) => {
                    let length = bytes.len() as u64;
                    if length > self.left {
                        return self.fail(Box::new(Broken::Long));
                    }
                    self.left -= length;
                    if self.left > 0 {
                        return self.give(bytes);
                    }
                    self.held = Some(bytes);
                }
                Poll::Ready(None) => {
                    let Some(bytes) = self.held.take() else {
                        let left = self.left;
                        return self.fail(Box::new(Broken::Short(left)));
                    };
                    self.done = true;
                    return self.give(bytes);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left + self.held.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use http_body_util::BodyExt;

    async fn run(size: u64, pieces: Vec<Result<&'static str, &'static str>>) -> (String, Result<(), String>) {
        let pieces = pieces.into_iter().map(|piece| piece.map(Bytes::from).map_err(Cause::from));
        let (mut content, progress) = Content::new(Box::pin(stream::iter(pieces)), size);
        assert_eq!(content.size_hint().exact(), Some(size));
        let mut sent = String::new();
        while let Some(frame) = content.frame().await {
            match frame {
                Ok(frame) => sent.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap()),
                Err(_) => return (sent, Err(progress.take_failure().unwrap().to_string())),
            }
        }
        assert_eq!(progress.waiting(), if size == 0 { Waiting::Destination } else { Waiting::Answer });
        (sent, Ok(()))
    }

    #[tokio::test]
    async fn exactly_the_announced_bytes_pass() {
        assert_eq!(run(6, vec![Ok("ab"), Ok(""), Ok("cdef")]).await, ("abcdef".into(), Ok(())));
        assert_eq!(run(6, vec![Ok("abcdef"), Ok("")]).await, ("abcdef".into(), Ok(())));
        assert_eq!(run(0, vec![]).await, (String::new(), Ok(())));
    }

    #[tokio::test]
    async fn nothing_wrong_is_ever_sent_whole() {
        assert_eq!(run(6, vec![Ok("ab"), Ok("cde")]).await.1, Err("the content ended 1 bytes too early".into()));
        let (sent, outcome) = run(6, vec![Ok("ab"), Ok("cdef"), Ok("g")]).await;
        assert_eq!((sent.as_str(), outcome), ("ab", Err("the content is longer than announced".into())));
        // An error after the last byte, as a digest check gives it.
        let (sent, outcome) = run(6, vec![Ok("ab"), Ok("cdef"), Err("wrong digest")]).await;
        assert_eq!((sent.as_str(), outcome), ("ab", Err("wrong digest".into())));
    }
}
