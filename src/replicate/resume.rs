//! Uploads in chunks, which go on where they were cut: after a lost connection, and in another process after a crash.
//!
//! After each chunk the ledger has the upload's Location, how many bytes the registry has, and the state of the check at just
//! that byte. Whoever takes the turn next asks the registry how far it really is, and its answer counts: the check goes on from
//! the noted state, or from the start where that does not reach back far enough, and only what the registry lacks is sent. So
//! at most one chunk is sent twice, and every byte of the blob is still checked here.
//!
//! Not every registry can do that: some tie the Location to the number of bytes they have, and a chunk that was cut leaves them
//! with a number that nobody was told (Distribution). They say that the upload is unknown, and the blob begins anew.

use super::Error;
use super::blob::{Brought, Trouble, Way};
use super::content::{Broken, Checked, PIECES_WAITING, body};
use super::download::BlobContent;
use super::ledger::{UploadTurn, Uploaded};
use super::plan::Blob;
use super::send::{Moved, Unsent, pump};
use crate::job::{Class, How, Stage};
use crate::oci::{Repository, Verifier};
use crate::registry::{Session, Upload};
use std::time::Duration;
use tokio::sync::mpsc;

/// From this size on other processes are kept from bringing a blob at the same time, bytes: below it, that costs more than it
/// may save.
pub(super) const TURN_FROM_BYTES: u64 = 1024 * 1024;
/// How often it is looked whether another process has ended its turn.
const TURN_LOOK: Duration = Duration::from_millis(250);

/// An upload that goes on.
pub(super) struct Begun {
    upload: Upload,
    /// Bytes that the registry has.
    offset: u64,
    /// The check, at most so far.
    verifier: Verifier,
}

impl Begun {
    /// An upload that has nothing yet.
    pub fn fresh(upload: Upload, blob: &Blob) -> Self {
        Self { upload, offset: 0, verifier: Verifier::new(blob.digest.clone(), Some(blob.size)) }
    }
}

impl Way {
    /// Waits until no other process brings this blob to that repository. What an attempt that is over had begun comes along.
    pub(super) async fn turn(&self, repository: &Repository, blob: &Blob) -> Option<Uploaded> {
        if blob.size < TURN_FROM_BYTES {
            return None;
        }
        let mut told = false;
        loop {
            match self.ledger.take(repository, &blob.digest).await {
                UploadTurn::Mine(uploaded) => return uploaded,
                UploadTurn::Busy => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::debug!(digest = %blob.digest, %repository, "another process brings the blob, waiting for it");
                    }
                    tokio::time::sleep(TURN_LOOK).await;
                }
            }
        }
    }

    /// Ends the turn.
    pub(super) async fn turn_over(&self, repository: &Repository, blob: &Blob) {
        if blob.size >= TURN_FROM_BYTES {
            self.ledger.end(repository, &blob.digest).await;
        }
    }

    /// Finds the upload again that somebody had begun. None: the blob begins anew.
    pub(super) async fn found_again(
        &self,
        session: &Session,
        repository: &Repository,
        blob: &Blob,
        uploaded: &Uploaded,
    ) -> Result<Option<Begun>, Trouble> {
        let mut status = None;
        if session.profile(repository).reports_offset {
            let asked = session.upload_status(repository, &uploaded.location).await;
            status = asked.map_err(|cause| self.not_begun(blob, &cause))?;
        }
        let Some((upload, offset)) = status.filter(|(_, offset)| *offset > 0 && *offset <= blob.size) else {
            let (digest, committed) = (&blob.digest, uploaded.committed);
            tracing::warn!(%digest, %repository, committed, "the registry does not go on with the upload, the blob begins anew");
            return Ok(None);
        };
        let fresh = || Verifier::new(blob.digest.clone(), Some(blob.size));
        let saved = Verifier::restore(blob.digest.clone(), Some(blob.size), &uploaded.midstate);
        let verifier = saved.filter(|saved| saved.seen() <= offset).unwrap_or_else(fresh);
        let (digest, checked) = (&blob.digest, verifier.seen());
        tracing::info!(%digest, %repository, offset, checked, of = blob.size, "going on with an upload that was cut");
        Ok(Some(Begun { upload, offset, verifier }))
    }

    /// Sends the rest of a blob in chunks of `chunk` bytes, the last one with the PUT that commits it.
    pub(super) async fn send_chunks(
        &self,
        session: &Session,
        repository: &Repository,
        blob: &Blob,
        begun: Begun,
        chunk: u64,
    ) -> Result<Brought, Trouble> {
        let Begun { mut upload, mut offset, verifier } = begun;
        let resumed = offset;
        let given_up = |upload, trouble, forget| self.given_up(session, repository, upload, blob, trouble, forget);
        let mut content = match self.content_from(blob, verifier).await {
            Ok(content) => content,
            Err(trouble) => return Err(given_up(upload, trouble, false).await),
        };
        let mut moved = Moved::of(&self.attempt.progress, blob);
        moved.skip(offset);
        if let Err(broken) = skip(&mut content, offset).await {
            return Err(given_up(upload, self.broken(blob, broken), false).await);
        }
        let chunk = chunk.max(upload.least_chunk());
        while blob.size - offset > chunk {
            let end = offset + chunk;
            content.stop_at(end);
            match self.send_chunk(session, &upload, blob, (offset, chunk), &mut content, &mut moved).await {
                Ok((next, committed)) if committed == end => (upload, offset) = (next, end),
                Ok((_, committed)) => return Err(self.out_of_step(blob, committed, end)),
                Err(unsent) => {
                    let (trouble, forget) = unmoved(unsent, resumed, offset);
                    return Err(given_up(upload, trouble, forget).await);
                }
            }
            self.note(repository, blob, &upload, offset, content.mark()).await?;
        }
        content.stop_at(u64::MAX);
        let left = blob.size - offset;
        match self.send_last(session, upload.clone(), blob, left, content, moved).await {
            Ok(()) => Ok(if resumed > 0 { Brought { how: How::Resumed, resumed } } else { How::Copied.into() }),
            Err(unsent) => {
                let lost = unsent.lost;
                let (trouble, forget) = unmoved(unsent, resumed, offset);
                Err(given_up(upload, trouble, lost || forget).await)
            }
        }
    }

    /// The registry says that it has another number of bytes than were sent: what it has is asked anew.
    fn out_of_step(&self, blob: &Blob, committed: u64, sent: u64) -> Trouble {
        let (digest, destination) = (&blob.digest, self.destination.name());
        let message = format!(
            "copying blob {digest} to {destination}: the registry has {committed} bytes after {sent} were sent"
        );
        Error::new(Stage::Transfer, Class::RETRY, message).into()
    }

    async fn send_chunk(
        &self,
        session: &Session,
        upload: &Upload,
        blob: &Blob,
        (offset, size): (u64, u64),
        content: &mut Checked<BlobContent>,
        moved: &mut Moved<'_>,
    ) -> Result<(Upload, u64), Unsent> {
        let (sender, receiver) = mpsc::channel(PIECES_WAITING);
        let sending = session.send_chunk(upload, offset, size, body(receiver, size));
        tokio::pin!(sending);
        let read = tokio::select! {
            biased;
            read = pump(content, size, sender, moved, &self.bandwidth) => read,
            early = &mut sending => {
                return Err(match early {
                    Err(cause) => self.not_finished(blob, &cause),
                    Ok(_) => self.answered_early(blob).into(),
                });
            }
        };
        match read {
            Ok(_) => sending.await.map_err(|cause| self.not_finished(blob, &cause)),
            Err(broken) => Err(self.broken(blob, broken).into()),
        }
    }

    /// Notes how far the upload is. A blob that is too small for a turn has no place in the ledger, and begins anew when it is
    /// cut.
    async fn note(
        &self,
        repository: &Repository,
        blob: &Blob,
        upload: &Upload,
        committed: u64,
        midstate: Option<Vec<u8>>,
    ) -> Result<(), Trouble> {
        if blob.size < TURN_FROM_BYTES {
            return Ok(());
        }
        let uploaded = Uploaded { location: upload.save(), committed, midstate: midstate.unwrap_or_default() };
        if self.ledger.note(repository, &blob.digest, uploaded).await {
            return Ok(());
        }
        let message = format!("copying blob {}: another attempt has taken it over", blob.digest);
        Err(Error::new(Stage::Transfer, Class::RETRY, message).into())
    }

    /// What is left of an upload that failed stays for the next try, unless its content was wrong, or the registry will not have
    /// it (`forget`).
    async fn given_up(
        &self,
        session: &Session,
        repository: &Repository,
        upload: Upload,
        blob: &Blob,
        trouble: Trouble,
        forget: bool,
    ) -> Trouble {
        if forget || matches!(trouble, Trouble::Content(_)) {
            session.cancel_upload(upload).await;
            self.ledger.end(repository, &blob.digest).await;
        }
        trouble
    }
}

/// What a failed upload means, and whether it is forgotten: one that was found again and whose next bytes are refused just where
/// the registry said that it stands would be refused there for ever.
fn unmoved(unsent: Unsent, resumed: u64, offset: u64) -> (Trouble, bool) {
    let forget = resumed > 0 && offset == resumed && unsent.refused;
    match unsent.trouble {
        Trouble::Other { error, .. } if forget => (Trouble::Other { error, again: true }, true),
        trouble => (trouble, forget),
    }
}

/// Reads on to byte `offset`: the registry has what is before it, and only the check needs it.
async fn skip(content: &mut Checked<BlobContent>, offset: u64) -> Result<(), Broken> {
    let mut left = offset.saturating_sub(content.seen());
    content.stop_at(offset);
    while left > 0 {
        let Some(piece) = content.piece().await? else { break };
        left = left.saturating_sub(u64::try_from(piece.len()).unwrap_or(u64::MAX));
    }
    Ok(())
}
