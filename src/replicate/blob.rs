//! One blob's way from source to destination.
//!
//! The POST that opens an upload is asked to mount the blob as well: from the source's repository when both are on one
//! registry, else from one that this process saw to hold it, else from the destination itself, which is how Distribution
//! answers whether it has the blob. A registry that ignores that costs a HEAD, but only for blobs whose sending would cost
//! more. What has to be sent goes piece by piece from one connection to the other; this is the only place where the two meet.
//!
//! A blob is never sent from memory of what another attempt had verified, and nothing is committed whose digest was not
//! computed here.

use super::bandwidth::Bandwidth;
use super::content::{Broken, Checked, PIECE_BYTES, PIECES_WAITING, body, body_of};
use super::destination::{Destination, Place, upload_was_lost};
use super::download::BlobContent;
use super::mounting::{Asking, Mounting};
use super::plan::Blob;
use super::source::Source;
use super::turns::Turns;
use super::{Attempt, Error, Limits};
use crate::job::large::LargeBlob;
use crate::job::{Class, How, ProgressCounter, Stage};
use crate::layout::Layout;
use crate::oci::digest::ContentError;
use crate::oci::{Reference, Repository};
use crate::registry::{Session, Upload, UploadStart};
use crate::tempfiles::TempFiles;
use bytes::Bytes;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// From this size on a blob is asked for by HEAD before it is sent, where the upload's answer does not tell whether it is
/// there. Bytes; below it, sending costs about what asking does.
const ASK_FROM_BYTES: u64 = 1024 * 1024;
/// The pause before a blob is tried again; doubles with each try.
const PAUSE: Duration = Duration::from_millis(250);
/// The longest pause, and the longest wish of a registry that is waited for here. With a longer one the job gives its
/// place to another.
const PAUSE_LIMIT: Duration = Duration::from_secs(5);
/// How long an upload whose body was broken off may take to end before it is dropped.
const BREAK_OFF_LIMIT: Duration = Duration::from_secs(5);

/// What all blobs of one attempt have in common. Cheap to clone.
#[derive(Clone)]
pub(super) struct Way {
    pub source: Source,
    pub destination: Destination,
    pub attempt: Arc<Attempt>,
    pub temp: TempFiles,
    pub limits: Arc<Limits>,
    pub mounting: Mounting,
    pub turns: Turns,
    pub bandwidth: Bandwidth,
    pub asking: Arc<Asking>,
}

/// Why one try failed.
enum Trouble {
    /// The source gave something else than the descriptor says. Nothing of it was committed.
    Content(ContentError),
    /// Another error; `again` when a new try may help, whatever its class says of the job.
    Other { error: Error, again: bool },
}

impl Trouble {
    /// `exhausted`: it was tried often enough below.
    fn of(error: Error, exhausted: bool) -> Self {
        let again = !exhausted && matches!(error.class, Class::Retry { .. });
        Self::Other { error, again }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::of(error, false)
    }
}

/// Bytes of one try, counted as progress, and taken back when the try comes to nothing.
struct Moved<'a> {
    progress: &'a ProgressCounter,
    bytes: u64,
    large: Option<Arc<LargeBlob>>,
}

impl<'a> Moved<'a> {
    /// None of `blob` yet.
    fn of(progress: &'a ProgressCounter, blob: &Blob) -> Self {
        Self { progress, bytes: 0, large: progress.large.begin(&blob.digest, blob.size) }
    }
}

impl Moved<'_> {
    fn add(&mut self, piece: &Bytes) {
        let bytes = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        self.bytes += bytes;
        self.progress.moved(bytes);
        if let Some(large) = &self.large {
            large.moved(bytes);
        }
    }

    fn keep(mut self) {
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
    /// Brings `blob` to the destination and records how. Tries again what may pass, and once what had wrong content.
    ///
    /// # Errors
    /// Corrupt when the source gave wrong content twice; else the error of the last try.
    pub async fn bring(&self, blob: &Blob) -> Result<(), Error> {
        let (mut tries, mut pause, mut misread) = (1, PAUSE, false);
        loop {
            match self.bring_once(blob).await {
                Ok(how) => {
                    self.record(blob, how);
                    return Ok(());
                }
                Err(Trouble::Content(why)) if misread => return Err(self.corrupt(blob, &why)),
                Err(Trouble::Content(why)) => {
                    misread = true;
                    tracing::debug!(digest = %blob.digest, source = %self.source.name(), %why, "wrong content, reading it again");
                }
                Err(Trouble::Other { error, again }) => {
                    let wish = if let Class::Retry { after } = error.class { after } else { None };
                    if !again || tries >= self.limits.blob_tries || wish.is_some_and(|wish| wish > PAUSE_LIMIT) {
                        return Err(error);
                    }
                    tracing::debug!(digest = %blob.digest, tries, %error, "trying the blob again");
                    tokio::time::sleep(wish.unwrap_or_default().max(pause)).await;
                    tries += 1;
                    pause = (pause * 2).min(PAUSE_LIMIT);
                }
            }
        }
    }

    /// Notes that `blob` is at the destination now.
    pub fn record(&self, blob: &Blob, how: How) {
        if how != How::Copied {
            self.attempt.progress.skipped(blob.size);
        }
        self.attempt.progress.blob_done();
        let transfer = self.destination.record(blob, how);
        tracing::debug!(digest = %blob.digest, bytes = blob.size, how = how.as_str(), registry = %transfer.registry, "blob is there");
        self.attempt.transfers.lock().unwrap_or_else(PoisonError::into_inner).push(transfer);
    }

    async fn bring_once(&self, blob: &Blob) -> Result<How, Trouble> {
        match &self.destination.place {
            Place::Registry { session, reference } => self.to_registry(session, reference, blob).await,
            Place::Layout { layout, .. } => {
                let layout = self.destination.opened(layout.as_ref())?;
                self.to_layout(layout, blob).await
            }
        }
    }

    async fn to_layout(&self, layout: &Layout, blob: &Blob) -> Result<How, Trouble> {
        let mut content = self.content(blob).await?;
        let failed = |cause| self.failed(blob, &cause);
        let broken = |broken| self.broken(blob, broken);
        let mut moved = Moved::of(&self.attempt.progress, blob);
        let mut writer = layout.write_blob(&blob.digest, &self.temp).await.map_err(failed)?;
        while let Some(piece) = content.piece().await.map_err(broken)? {
            self.bandwidth.pass(piece.len()).await;
            moved.add(&piece);
            writer.write(piece).await.map_err(failed)?;
        }
        writer.commit().await.map_err(failed)?;
        moved.keep();
        Ok(How::Copied)
    }

    async fn to_registry(&self, session: &Session, reference: &Reference, blob: &Blob) -> Result<How, Trouble> {
        let repository = &reference.repository;
        let _turn = self.turns.take(repository, &blob.digest).await;
        let how = self.mount_or_send(session, repository, blob).await?;
        self.mounting.holds(repository, &blob.digest);
        Ok(how)
    }

    async fn mount_or_send(&self, session: &Session, repository: &Repository, blob: &Blob) -> Result<How, Trouble> {
        let holder = self.mounting.holder(repository, &blob.digest);
        let from = self.mount_from(repository, holder.as_deref());
        let started = session.start_upload(repository, &blob.digest, from).await;
        let upload = match started.map_err(|cause| self.not_begun(blob, &cause))? {
            UploadStart::Present if from == Some(repository) => {
                self.mounting.made_from_itself(repository);
                return Ok(How::Present);
            }
            UploadStart::Present => return Ok(How::Mounted),
            UploadStart::Session(upload) => upload,
        };
        if let Some(from) = from {
            self.mounting.lost(from, &blob.digest);
            if upload.mount_was_refused() {
                self.mounting.refused(from, repository);
            }
        }
        let told = from == Some(repository) && self.mounting.is_made_from_itself(repository);
        if blob.size >= ASK_FROM_BYTES && !told && self.is_there(blob).await {
            session.cancel_upload(upload).await;
            return Ok(How::Present);
        }
        let content = match self.content(blob).await {
            Ok(content) => content,
            Err(trouble) => {
                session.cancel_upload(upload).await;
                return Err(trouble);
            }
        };
        if u64::try_from(PIECE_BYTES).is_ok_and(|piece| blob.size <= piece) {
            self.send_whole(session, upload, blob, content).await
        } else {
            self.send(session, upload, blob, content).await
        }
    }

    /// Where the blob is asked to be mounted from: the source, if it is on the same registry, else a repository there that
    /// is known to hold it, else the repository itself, each unless the registry has refused it before.
    fn mount_from<'a>(&'a self, repository: &'a Repository, holder: Option<&'a Repository>) -> Option<&'a Repository> {
        let neighbour = self.source.repository().filter(|source| source.host() == repository.host());
        let mut places = neighbour.into_iter().chain(holder).chain([repository]);
        places.find(|from| !self.mounting.is_refused(from, repository))
    }

    /// Whether the destination has the blob, if it is still worth asking. An answer that does not come is no reason to
    /// fail: the blob is sent then.
    async fn is_there(&self, blob: &Blob) -> bool {
        let ask = || async {
            self.destination.has_blob(blob).await.unwrap_or_else(|error| {
                tracing::debug!(digest = %blob.digest, %error, "the destination does not say whether it has the blob");
                false
            })
        };
        self.asking.ask(ask).await
    }

    /// Starts to read the blob at the source.
    async fn content(&self, blob: &Blob) -> Result<Checked<BlobContent>, Trouble> {
        let content = self
            .source
            .blob(&blob.digest, blob.size)
            .await
            .map_err(|(error, exhausted)| Trouble::of(error, exhausted))?;
        self.asking.read(content.redirected());
        match content.length() {
            Some(length) if length > blob.size => Err(Trouble::Content(ContentError::TooLong { expected: blob.size })),
            Some(length) if length < blob.size => {
                Err(Trouble::Content(ContentError::TooShort { expected: blob.size, actual: length }))
            }
            _ => Ok(Checked::new(content, &blob.digest, blob.size)),
        }
    }

    /// Sends a small blob after all of it was read, so that a fault of the source never breaks an upload off. Empty blobs
    /// must go this way: they have no last piece that could be held back.
    async fn send_whole(
        &self,
        session: &Session,
        upload: Upload,
        blob: &Blob,
        content: Checked<BlobContent>,
    ) -> Result<How, Trouble> {
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
                Ok(How::Copied)
            }
            Err(cause) => Err(self.not_sent(session, upload, blob, &cause).await),
        }
    }

    /// Sends a blob while it is read. The reading decides what failed: when the source breaks, the upload breaks with it,
    /// and its error says nothing.
    async fn send(
        &self,
        session: &Session,
        upload: Upload,
        blob: &Blob,
        mut content: Checked<BlobContent>,
    ) -> Result<How, Trouble> {
        let mut moved = Moved::of(&self.attempt.progress, blob);
        let (sender, receiver) = mpsc::channel(PIECES_WAITING);
        let finish = session.finish_upload(upload.clone(), &blob.digest, blob.size, body(receiver, blob.size));
        tokio::pin!(finish);
        let read = tokio::select! {
            biased;
            read = pump(&mut content, sender, &mut moved, &self.bandwidth) => read,
            // An answer before the last piece was even given out.
            early = &mut finish => {
                return Err(match early {
                    Err(cause) => self.not_sent(session, upload, blob, &cause).await,
                    Ok(()) => self.answered_early(blob),
                });
            }
        };
        match read {
            Ok(true) => match finish.await {
                Ok(()) => {
                    moved.keep();
                    Ok(How::Copied)
                }
                Err(cause) => Err(self.not_sent(session, upload, blob, &cause).await),
            },
            // The upload has dropped its body: it has an answer, or an error.
            Ok(false) => Err(match finish.await {
                Err(cause) => self.not_sent(session, upload, blob, &cause).await,
                Ok(()) => self.answered_early(blob),
            }),
            Err(broken) => {
                let ended = tokio::time::timeout(BREAK_OFF_LIMIT, &mut finish).await;
                tracing::debug!(digest = %blob.digest, ended = ended.is_ok(), "upload broken off");
                session.cancel_upload(upload).await;
                Err(self.broken(blob, broken))
            }
        }
    }

    /// What it means that the content broke off. That it is too short is found out only after it was announced in full, or
    /// not at all: a connection that broke without a word looks the same.
    fn broken(&self, blob: &Blob, broken: Broken) -> Trouble {
        match broken {
            Broken::Source(error) => error.into(),
            Broken::Content(why @ ContentError::TooShort { .. }) => {
                let (digest, source) = (&blob.digest, self.source.name());
                let message = format!("reading blob {digest} of {source}: it broke off: {why}");
                Error::new(Stage::Transfer, Class::RETRY, message).into()
            }
            Broken::Content(why) => Trouble::Content(why),
        }
    }

    fn answered_early(&self, blob: &Blob) -> Trouble {
        let (digest, destination) = (&blob.digest, self.destination.name());
        let message =
            format!("copying blob {digest} to {destination}: the registry took it for complete before it was");
        Error::new(Stage::Transfer, Class::RETRY, message).into()
    }

    fn corrupt(&self, blob: &Blob, why: &ContentError) -> Error {
        let (digest, source) = (&blob.digest, self.source.name());
        let message = format!(
            "copying blob {digest}: the source {source} sent wrong content twice: {why}; nothing was committed"
        );
        Error::new(Stage::Transfer, Class::Corrupt, message)
    }

    /// What a failed upload means. Whoever answered may still keep what it got and is told to forget it; whoever did not
    /// answer is not waited for a second time.
    async fn not_sent(
        &self,
        session: &Session,
        upload: Upload,
        blob: &Blob,
        cause: &crate::registry::Error,
    ) -> Trouble {
        let lost = upload_was_lost(cause);
        if cause.status().is_some() && !lost {
            session.cancel_upload(upload).await;
        }
        let error = self.failed(blob, cause);
        let again = lost || (matches!(error.class, Class::Retry { .. }) && !cause.is_exhausted());
        Trouble::Other { error, again }
    }

    fn not_begun(&self, blob: &Blob, cause: &crate::registry::Error) -> Trouble {
        Trouble::of(self.failed(blob, cause), cause.is_exhausted())
    }

    fn failed(&self, blob: &Blob, cause: &impl super::error::Cause) -> Error {
        let doing = format_args!("copying a blob of {} bytes to {}", blob.size, self.destination.name());
        Error::because(Stage::Transfer, doing, cause)
    }
}

/// Gives the pieces of `content` to `sender`. True: all of it was right and was given; false: nobody takes it any more.
async fn pump(
    content: &mut Checked<BlobContent>,
    sender: mpsc::Sender<Bytes>,
    moved: &mut Moved<'_>,
    bandwidth: &Bandwidth,
) -> Result<bool, Broken> {
    while let Some(piece) = content.piece().await? {
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

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let again = |class| match Trouble::from(Error::new(Stage::Transfer, class, "")) {
            Trouble::Other { again, .. } => again,
            Trouble::Content(_) => true,
        };
        assert!(again(Class::RETRY) && again(Class::Retry { after: Some(Duration::from_secs(1)) }));
        assert!(![Class::Denied, Class::Absent, Class::Refused, Class::Corrupt].into_iter().any(again));
        let exhausted = Trouble::of(Error::new(Stage::Transfer, Class::RETRY, ""), true);
        assert!(matches!(exhausted, Trouble::Other { again: false, .. }));
    }
}
