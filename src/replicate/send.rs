//! Sending a blob: whole after it was read, or while it is read.

use super::Error;
use super::bandwidth::Bandwidth;
use super::blob::{Trouble, Way};
use super::content::{Broken, Checked, PIECES_WAITING, body, body_of};
use super::destination::upload_was_lost;
use super::download::BlobContent;
use super::plan::Blob;
use crate::job::large::LargeBlob;
use crate::job::{Class, ProgressCounter, Stage};
use crate::registry::{Session, Upload};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long an upload whose body was broken off may take to end before it is dropped.
const BREAK_OFF_LIMIT: Duration = Duration::from_secs(5);

/// An upload that failed.
pub(super) struct Unsent {
    pub trouble: Trouble,
    /// The registry has forgotten it, or will not have what it got.
    pub lost: bool,
    /// The registry will not have what was sent there, and waiting changes nothing.
    pub refused: bool,
    /// The registry is there and may be told to forget it.
    told: bool,
}

impl From<Trouble> for Unsent {
    fn from(trouble: Trouble) -> Self {
        Self { trouble, lost: false, refused: false, told: false }
    }
}

/// Bytes of one try, counted as progress, and taken back when the try comes to nothing.
pub(super) struct Moved<'a> {
    progress: &'a ProgressCounter,
    bytes: u64,
    large: Option<Arc<LargeBlob>>,
}

impl<'a> Moved<'a> {
    /// None of `blob` yet.
    pub fn of(progress: &'a ProgressCounter, blob: &Blob) -> Self {
        Self { progress, bytes: 0, large: progress.large.begin(&blob.digest, blob.size) }
    }

    /// The first bytes are there already.
    pub fn skip(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.progress.skipped(bytes);
        if let Some(large) = &self.large {
            large.moved(bytes);
        }
    }

    pub fn add(&mut self, piece: &Bytes) {
        let bytes = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        self.bytes += bytes;
        self.progress.moved(bytes);
        if let Some(large) = &self.large {
            large.moved(bytes);
        }
    }

    pub fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Moved<'_> {
    fn drop(&mut self) {
        self.progress.take_back(self.bytes);
        if let Some(large) = &self.large {
            self.progress.large.end(large);
        }
    }
}

impl Way {
    /// Sends a small blob after all of it was read, so that a fault of the source never breaks an upload off. Empty blobs
    /// must go this way: they have no last piece that could be held back.
    pub(super) async fn send_whole(
        &self,
        session: &Session,
        upload: Upload,
        blob: &Blob,
        content: Checked<BlobContent>,
    ) -> Result<(), Trouble> {
        let bytes = match content.gather().await {
            Ok(bytes) => bytes,
            Err(broken) => {
                session.cancel_upload(upload).await;
                return Err(self.broken(blob, broken));
            }
        };
        self.bandwidth.pass(bytes.len()).await;
        let mut moved = Moved::of(&self.attempt.progress, blob);
        moved.add(&bytes);
        match session.finish_upload(upload.clone(), &blob.digest, blob.size, body_of(bytes)).await {
            Ok(()) => {
                moved.keep();
                Ok(())
            }
            Err(cause) => Err(self.forgotten(session, upload, self.not_finished(blob, &cause)).await),
        }
    }

    /// Sends a blob while it is read, in one PUT.
    pub(super) async fn send(
        &self,
        session: &Session,
        upload: Upload,
        blob: &Blob,
        content: Checked<BlobContent>,
    ) -> Result<(), Trouble> {
        let moved = Moved::of(&self.attempt.progress, blob);
        match self.send_last(session, upload.clone(), blob, blob.size, content, moved).await {
            Ok(()) => Ok(()),
            Err(unsent) => Err(self.forgotten(session, upload, unsent).await),
        }
    }

    /// Sends the last `left` bytes of a blob with the PUT that commits it, while they are read. The reading decides what failed:
    /// when the source breaks, the upload breaks with it, and its error says nothing.
    pub(super) async fn send_last(
        &self,
        session: &Session,
        upload: Upload,
        blob: &Blob,
        left: u64,
        mut content: Checked<BlobContent>,
        mut moved: Moved<'_>,
    ) -> Result<(), Unsent> {
        let (sender, receiver) = mpsc::channel(PIECES_WAITING);
        let finish = session.finish_upload(upload, &blob.digest, left, body(receiver, left));
        tokio::pin!(finish);
        let read = tokio::select! {
            biased;
            read = pump(&mut content, u64::MAX, sender, &mut moved, &self.bandwidth) => read,
            // An answer before the last piece was even given out.
            early = &mut finish => {
                return Err(match early {
                    Err(cause) => self.not_finished(blob, &cause),
                    Ok(()) => self.answered_early(blob).into(),
                });
            }
        };
        match read {
            Ok(true) => match finish.await {
                Ok(()) => {
                    moved.keep();
                    Ok(())
                }
                Err(cause) => Err(self.not_finished(blob, &cause)),
            },
            // The upload has dropped its body: it has an answer, or an error.
            Ok(false) => Err(match finish.await {
                Err(cause) => self.not_finished(blob, &cause),
                Ok(()) => self.answered_early(blob).into(),
            }),
            Err(broken) => {
                let ended = tokio::time::timeout(BREAK_OFF_LIMIT, &mut finish).await;
                tracing::debug!(digest = %blob.digest, ended = ended.is_ok(), "upload broken off");
                Err(Unsent { told: true, ..self.broken(blob, broken).into() })
            }
        }
    }

    pub(super) fn answered_early(&self, blob: &Blob) -> Trouble {
        let (digest, destination) = (&blob.digest, self.destination.name());
        let message =
            format!("copying blob {digest} to {destination}: the registry took it for complete before it was");
        Error::new(Stage::Transfer, Class::RETRY, message).into()
    }

    /// What a failed upload means.
    pub(super) fn not_finished(&self, blob: &Blob, cause: &crate::registry::Error) -> Unsent {
        let lost = upload_was_lost(cause);
        let error = self.failed(blob, cause);
        let again = lost || (matches!(error.class, Class::Retry { .. }) && !cause.is_exhausted());
        // Not one that is about who asks or how often.
        let refused =
            cause.status().is_some_and(|status| matches!(status, 400..500) && ![401, 403, 408, 429].contains(&status));
        Unsent { trouble: Trouble::Other { error, again }, lost, refused, told: cause.status().is_some() && !lost }
    }

    /// Whoever answered may still keep what it got and is told to forget it; whoever did not answer is not waited for a second
    /// time.
    async fn forgotten(&self, session: &Session, upload: Upload, unsent: Unsent) -> Trouble {
        if unsent.told {
            session.cancel_upload(upload).await;
        }
        unsent.trouble
    }
}

/// Gives pieces of `content` to `sender`, up to `left` bytes, which must end where a piece does, or to the end. True: all of it
/// was right and was given; false: nobody takes it any more.
pub(super) async fn pump(
    content: &mut Checked<BlobContent>,
    mut left: u64,
    sender: mpsc::Sender<Bytes>,
    moved: &mut Moved<'_>,
    bandwidth: &Bandwidth,
) -> Result<bool, Broken> {
    while left > 0
        && let Some(piece) = content.piece().await?
    {
        left = left.saturating_sub(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        bandwidth.pass(piece.len()).await;
        moved.add(&piece);
        if sender.send(piece).await.is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_of_a_try_that_came_to_nothing_is_taken_back() {
        let progress = ProgressCounter::default();
        let piece = Bytes::from_static(b"abc");
        let mut lost = Moved { progress: &progress, bytes: 0, large: None };
        lost.add(&piece);
        lost.add(&piece);
        assert_eq!(progress.read().bytes_done, 6);
        drop(lost);
        assert_eq!((progress.read().bytes_done, progress.bytes_moved()), (0, 6));
        let mut kept = Moved { progress: &progress, bytes: 0, large: None };
        kept.add(&piece);
        kept.keep();
        assert_eq!((progress.read().bytes_done, progress.bytes_moved()), (3, 9));
    }
}
