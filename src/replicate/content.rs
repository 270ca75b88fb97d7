//! Content on its way: checked as it passes, the last piece held back until all of it is known to be right.
//!
//! The check stands in front of the destination rather than behind it: a registry that gets the last byte may commit,
//! and a registry is not asked to judge what we should have judged. Verifying first and sending afterwards would need a
//! temporary file or a second download of each blob; holding back one piece needs neither.
//!
//! Nothing here keeps more than a few pieces, whatever the size of the content.

use super::Error;
use crate::oci::digest::ContentError;
use crate::oci::{Digest, Verifier};
use crate::registry::UploadBody;
use bytes::Bytes;
use futures_util::stream;
use std::task::Poll;
use tokio::sync::mpsc;

/// Largest piece that is hashed and handed on in one go, bytes: about a tenth of a millisecond of hashing, so that other
/// tasks are never kept waiting.
pub(super) const PIECE_BYTES: usize = 128 * 1024;
/// Pieces that wait between source and destination: enough that neither stands still while the other takes a breath.
pub(super) const PIECES_WAITING: usize = 2;

/// Where content comes from, chunk by chunk.
pub(super) trait Chunks {
    /// The next chunk, of any size; None at the end.
    fn chunk(&mut self) -> impl Future<Output = Result<Option<Bytes>, Error>> + Send;
}

/// Why there is no next piece.
#[derive(Debug)]
pub(super) enum Broken {
    /// The source could not be read.
    Source(Error),
    /// The source could be read, and it is not what it should be.
    Content(ContentError),
}

/// Content that is checked while it is read.
pub(super) struct Checked<C> {
    chunks: C,
    /// None when the end was seen, or something was wrong: there are no more pieces then.
    verifier: Option<Verifier>,
    chunk: Bytes,
    held: Option<Bytes>,
    size: u64,
    /// No piece goes beyond this byte.
    border: u64,
    /// The check as it was there.
    mark: Option<Vec<u8>>,
}

impl<C: Chunks> Checked<C> {
    pub fn new(chunks: C, digest: &Digest, size: u64) -> Self {
        Self::going_on(chunks, Verifier::new(digest.clone(), Some(size)), size)
    }

    /// Content of `size` bytes in all whose first ones `verifier` has taken already; `chunks` gives the rest.
    pub fn going_on(chunks: C, verifier: Verifier, size: u64) -> Self {
        Self { chunks, verifier: Some(verifier), chunk: Bytes::new(), held: None, size, border: u64::MAX, mark: None }
    }

    /// Bytes that were read and checked.
    pub fn seen(&self) -> u64 {
        self.verifier.as_ref().map_or(self.size, Verifier::seen)
    }

    /// From here on no piece goes beyond byte `border`, and the check can be saved there.
    pub fn stop_at(&mut self, border: u64) {
        self.border = border;
        self.mark = None;
    }

    /// The check as it was at the border. None before that was reached.
    pub fn mark(&mut self) -> Option<Vec<u8>> {
        self.mark.take()
    }

    /// The next piece, never empty and at most [`PIECE_BYTES`]. The last one is given only after digest and size of the
    /// whole have been found right; None follows it. After an error there is nothing more.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Broken> {
        let piece = self.next().await;
        if piece.is_err() {
            self.verifier = None;
            self.held = None;
        }
        piece
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        while let Some(verifier) = &mut self.verifier {
            // The last piece before the border: what follows it in the content is held back, this need not be.
            if verifier.seen() == self.border && self.border < self.size && self.held.is_some() {
                break;
            }
            if self.chunk.is_empty() {
                match self.chunks.chunk().await.map_err(Broken::Source)? {
                    Some(chunk) => self.chunk = chunk,
                    None => {
                        if let Some(verifier) = self.verifier.take() {
                            verifier.finish().map_err(Broken::Content)?;
                        }
                    }
                }
                continue;
            }
            let left = self.border.checked_sub(verifier.seen()).filter(|left| *left > 0);
            let left = left.and_then(|left| usize::try_from(left).ok()).unwrap_or(usize::MAX);
            let piece = self.chunk.split_to(self.chunk.len().min(PIECE_BYTES).min(left));
            verifier.update(&piece).map_err(Broken::Content)?;
            if verifier.seen() == self.border {
                self.mark = Some(verifier.save());
            }
            if let Some(before) = self.held.replace(piece) {
                return Ok(Some(before));
            }
        }
        Ok(self.held.take())
    }

    /// All of it. Only for content known to be small.
    pub async fn gather(mut self) -> Result<Bytes, Broken> {
        let mut all = Vec::new();
        while let Some(piece) = self.piece().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all.into())
    }
}

/// The body of an upload of exactly `size` bytes that come through `pieces`. Ends with an error when the sender is gone
/// before all were sent, so that no HTTP version mistakes a broken body for a complete one.
pub(super) fn body(mut pieces: mpsc::Receiver<Bytes>, size: u64) -> UploadBody {
    let mut missing = size;
    let mut broken = false;
    Box::pin(stream::poll_fn(move |context| {
        if broken {
            return Poll::Ready(None);
        }
        pieces.poll_recv(context).map(|piece| match piece {
            Some(piece) => {
                missing = missing.saturating_sub(u64::try_from(piece.len()).unwrap_or(u64::MAX));
                Some(Ok(piece))
            }
            None if missing == 0 => None,
            None => {
                broken = true;
                Some(Err(format!("the upload was given up with {missing} bytes to go").into()))
            }
        })
    }))
}

/// The body of an upload of content that is at hand.
pub(super) fn body_of(bytes: Bytes) -> UploadBody {
    let piece = (!bytes.is_empty()).then_some(Ok(bytes));
    Box::pin(stream::iter(piece))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Class, Stage};
    use crate::oci::Algorithm;
    use futures_util::StreamExt;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    /// A source that gives these chunks, then its end or an error.
    struct Script {
        chunks: VecDeque<Bytes>,
        error: Option<Error>,
    }

    impl Script {
        fn of(chunks: &[&[u8]]) -> Self {
            Self { chunks: chunks.iter().map(|chunk| Bytes::copy_from_slice(chunk)).collect(), error: None }
        }
    }

    impl Chunks for Script {
        async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
            match (self.chunks.pop_front(), self.error.take()) {
                (Some(chunk), error) => {
                    self.error = error;
                    Ok(Some(chunk))
                }
                (None, Some(error)) => Err(error),
                (None, None) => Ok(None),
            }
        }
    }

    fn checked(script: Script, content: &[u8]) -> Checked<Script> {
        let size = u64::try_from(content.len()).unwrap();
        Checked::new(script, &Digest::of(Algorithm::Sha256, content), size)
    }

    /// All pieces that come out, and how it ended.
    async fn drain(mut content: Checked<Script>) -> (Vec<u8>, Result<(), Broken>) {
        let mut out = Vec::new();
        loop {
            match content.piece().await {
                Ok(Some(piece)) => out.extend_from_slice(&piece),
                Ok(None) => return (out, Ok(())),
                Err(broken) => {
                    assert!(matches!(content.piece().await, Ok(None)), "nothing comes after an error");
                    return (out, Err(broken));
                }
            }
        }
    }

    #[tokio::test]
    async fn right_content_passes_whole() {
        let (out, end) = drain(checked(Script::of(&[b"one", b"", b"two", b"three"]), b"onetwothree")).await;
        assert_eq!(out, b"onetwothree");
        assert!(end.is_ok());
        let (out, end) = drain(checked(Script::of(&[]), b"")).await;
        assert!(out.is_empty() && end.is_ok(), "empty content is content");
    }

    #[tokio::test]
    async fn at_a_border_all_before_it_comes_and_the_check_can_be_saved() {
        let text = b"onetwothree".as_slice();
        let digest = Digest::of(Algorithm::Sha256, text);
        for border in 1..text.len() {
            let mut content = checked(Script::of(&[b"one", b"two", b"three"]), text);
            content.stop_at(u64::try_from(border).unwrap());
            let mut out = Vec::new();
            while out.len() < border {
                out.extend_from_slice(&content.piece().await.unwrap().unwrap());
            }
            assert_eq!(out, text[..border]);
            let saved = content.mark().unwrap();
            // The rest in another process.
            let rest = Verifier::restore(digest.clone(), Some(11), &saved).unwrap();
            let again = Checked::going_on(Script::of(&[&text[border..]]), rest, 11);
            let (more, end) = drain(again).await;
            assert!(end.is_ok());
            assert_eq!([out.clone(), more].concat(), text);
            // And here, as if nothing had been.
            content.stop_at(u64::MAX);
            let (more, end) = drain(content).await;
            assert!(end.is_ok());
            assert_eq!([out, more].concat(), text);
        }
    }

    #[tokio::test]
    async fn the_last_piece_of_wrong_content_never_comes() {
        for (sent, expected) in [
            (&[&b"one"[..], b"twX"][..], &b"onetwo"[..]),
            (&[b"one", b"two", b"!"], b"onetwo"),
            (&[b"one"], b"onetwo"),
            (&[b"wrongs"], b"onetwo"),
            (&[b"x"], b""),
            (&[], b"onetwo"),
        ] {
            let (out, end) = drain(checked(Script::of(sent), expected)).await;
            assert!(matches!(end, Err(Broken::Content(_))), "{sent:?}");
            assert!(out.is_empty() || out.len() < expected.len(), "{out:?} of {expected:?}");
        }
    }

    #[tokio::test]
    async fn a_failing_source_is_told_apart_from_wrong_content() {
        let mut script = Script::of(&[b"one", b"two"]);
        script.error = Some(Error::new(Stage::Transfer, Class::RETRY, "the source hung up"));
        let (out, end) = drain(checked(script, b"onetwothree")).await;
        assert_eq!(out, b"one", "the piece that was held is not given");
        let Err(Broken::Source(error)) = end else { panic!("{end:?}") };
        assert_eq!(error.message, "the source hung up");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_chunks_give_pieces_of_bounded_size(lengths in prop::collection::vec(0_usize..400_000, 0..6)) {
            let content: Vec<u8> = (0..lengths.iter().sum::<usize>()).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let mut rest = &content[..];
            let mut chunks = VecDeque::new();
            for length in lengths {
                let (chunk, behind) = rest.split_at(length);
                chunks.push_back(Bytes::copy_from_slice(chunk));
                rest = behind;
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut content_again = Vec::new();
            let mut pieces = checked(Script { chunks, error: None }, &content);
            runtime.block_on(async {
                while let Some(piece) = pieces.piece().await.unwrap() {
                    assert!(!piece.is_empty() && piece.len() <= PIECE_BYTES);
                    content_again.extend_from_slice(&piece);
                }
            });
            prop_assert_eq!(content_again, content);
        }
    }

    #[tokio::test]
    async fn a_body_whose_sender_is_gone_too_early_ends_with_an_error() {
        let (sender, receiver) = mpsc::channel(PIECES_WAITING);
        let mut broken = body(receiver, 5);
        sender.send(Bytes::from_static(b"abc")).await.unwrap();
        drop(sender);
        assert_eq!(broken.next().await.unwrap().unwrap(), Bytes::from_static(b"abc"));
        assert!(broken.next().await.unwrap().unwrap_err().to_string().contains("2 bytes"));
        assert!(broken.next().await.is_none());
    }

    #[tokio::test]
    async fn a_body_that_was_sent_whole_just_ends() {
        let (sender, receiver) = mpsc::channel(PIECES_WAITING);
        let mut whole = body(receiver, 3);
        sender.send(Bytes::from_static(b"abc")).await.unwrap();
        drop(sender);
        assert_eq!(whole.next().await.unwrap().unwrap(), Bytes::from_static(b"abc"));
        assert!(whole.next().await.is_none());
        assert!(body_of(Bytes::new()).next().await.is_none());
        assert_eq!(body_of(Bytes::from_static(b"x")).next().await.unwrap().unwrap(), Bytes::from_static(b"x"));
    }
}
