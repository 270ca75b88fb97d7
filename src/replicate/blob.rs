//! One blob's way from source to destination.
//!
//! The POST that opens an upload is asked to mount the blob as well: from the source's repository when both are on one
//! registry, else from one that this process saw to hold it, else from the destination itself, which is how Distribution
//! answers whether it has the blob. A registry that ignores that costs a HEAD, but only for blobs whose sending would cost
//! more. What has to be sent goes piece by piece from one connection to the other (`send`), large blobs in chunks (`resume`).
//!
//! Nothing is committed whose digest was not computed here, in one go or from the state that an earlier attempt left.

use super::bandwidth::Bandwidth;
use super::content::{Broken, Checked, PIECE_BYTES};
use super::destination::{Destination, Place};
use super::download::BlobContent;
use super::ledger::Ledger;
use super::mounting::{Asking, Moment, Mounting};
use super::parts::Places;
use super::plan::Blob;
use super::resume::Begun;
use super::send::Moved;
use super::source::Source;
use super::turns::Turns;
use super::{Attempt, Error, Limits};
use crate::job::{Class, How, Stage, Transfer};
use crate::layout::Layout;
use crate::oci::digest::ContentError;
use crate::oci::{Reference, Repository, Verifier};
use crate::registry::profile::{Mount, Profile};
use crate::registry::{Session, UploadStart};
use crate::tempfiles::TempFiles;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedMutexGuard, Semaphore};

/// From this size on a blob is asked for by HEAD before it is sent, where the upload's answer does not tell whether it is
/// there. Bytes; below it, sending costs about what asking does.
pub(super) const ASK_FROM_BYTES: u64 = 1024 * 1024;
/// The pause before a blob is tried again; doubles with each try.
const PAUSE: Duration = Duration::from_millis(250);
/// The longest pause, and the longest wish of a registry that is waited for here. With a longer one the job gives its
/// place to another.
const PAUSE_LIMIT: Duration = Duration::from_secs(5);

/// What all blobs of one attempt have in common. Cheap to clone.
#[derive(Clone)]
pub(super) struct Way {
    pub source: Source,
    pub destination: Destination,
    pub attempt: Arc<Attempt>,
    pub temp: TempFiles,
    pub limits: Arc<Limits>,
    pub mounting: Mounting,
    /// When the attempt, or its last new beginning, looked at the destination first.
    pub began: Moment,
    /// Shared by all attempts: how many small blobs may move.
    pub small: Arc<Semaphore>,
    pub turns: Turns,
    pub bandwidth: Bandwidth,
    pub places: Places,
    pub asking: Arc<Asking>,
    pub ledger: Arc<dyn Ledger>,
    /// What was seen is believed where the registry says when it is wrong.
    pub trusting: bool,
}

/// Why one try failed.
pub(super) enum Trouble {
    /// The source gave something else than the descriptor says. Nothing of it was committed.
    Content(ContentError),
    /// Another error; `again` when a new try may help, whatever its class says of the job.
    Other { error: Error, again: bool },
}

impl Trouble {
    /// `exhausted`: it was tried often enough below.
    pub fn of(error: Error, exhausted: bool) -> Self {
        let again = !exhausted && matches!(error.class, Class::Retry { .. });
        Self::Other { error, again }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::of(error, false)
    }
}

/// How a blob came to the destination.
#[derive(Clone, Copy)]
pub(super) struct Brought {
    pub how: How,
    /// Bytes that were there from an earlier try.
    pub resumed: u64,
}

impl From<How> for Brought {
    fn from(how: How) -> Self {
        Self { how, resumed: 0 }
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
                Ok(brought) => {
                    self.record(blob, brought);
                    return Ok(());
                }
                Err(Trouble::Content(why)) if misread => return Err(self.corrupt(blob, &why)),
                Err(Trouble::Content(why)) => {
                    misread = true;
                    if let Some(repository) =
                        self.source.repository().filter(|_| blob.size >= self.limits.ranges_from_bytes)
                    {
                        // It may have been put together wrongly: once more, in one stream.
                        self.places.distrust(repository.host());
                    }
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
    pub fn record(&self, blob: &Blob, brought: impl Into<Brought>) {
        let Brought { how, resumed } = brought.into();
        if matches!(how, How::Mounted | How::Present) {
            self.attempt.progress.skipped(blob.size);
        }
        self.attempt.progress.blob_done();
        let transfer = Transfer { resumed, ..self.destination.record(blob, how) };
        tracing::debug!(digest = %blob.digest, bytes = blob.size, how = how.as_str(), registry = %transfer.registry, "blob is there");
        let mut transfers = self.attempt.transfers.lock().unwrap_or_else(PoisonError::into_inner);
        // A second look at the destination finds there what the first one brought.
        if !transfers.iter().any(|known| known.digest == transfer.digest && known.repository == transfer.repository) {
            transfers.push(transfer);
        }
    }

    async fn bring_once(&self, blob: &Blob) -> Result<Brought, Trouble> {
        match &self.destination.place {
            Place::Registry { session, reference } => self.to_registry(session, reference, blob).await,
            Place::Layout { layout, .. } => {
                let layout = self.destination.opened(layout.as_ref())?;
                self.to_layout(layout, blob).await.map(Into::into)
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

    async fn to_registry(&self, session: &Session, reference: &Reference, blob: &Blob) -> Result<Brought, Trouble> {
        let repository = &reference.repository;
        let _turn = self.turns.take(repository, &blob.digest).await;
        // As good as an upload of this attempt's own: the registry has acknowledged it since the attempt began.
        if self.mounting.was_brought_after(self.began, repository, &blob.digest) {
            return Ok(How::Present.into());
        }
        let begun = match self.turn(repository, blob).await {
            Some(uploaded) => self.found_again(session, repository, blob, &uploaded).await?,
            None => None,
        };
        let chunk = session.profile(repository).chunk_size(blob.size);
        let how = match (begun, chunk) {
            (Some(begun), Some(chunk)) => self.send_chunks(session, repository, blob, begun, chunk).await?,
            _ => self.mount_or_send(session, repository, blob).await?,
        };
        self.turn_over(repository, blob).await;
        self.mounting.brought(repository, &blob.digest);
        Ok(how)
    }

    async fn mount_or_send(&self, session: &Session, repository: &Repository, blob: &Blob) -> Result<Brought, Trouble> {
        let holder = self.mounting.holder(repository, &blob.digest);
        let mount = session.profile(repository).mount;
        let (from, turn) = self.wish(repository, holder.as_deref(), mount).await;
        let started = session.start_upload(repository, &blob.digest, from).await;
        let started = started.map_err(|cause| self.not_begun(blob, &cause))?;
        let refused = matches!(&started, UploadStart::Session(upload) if upload.mount_was_refused());
        if let Some(from) = from {
            if refused {
                self.mounting.refused(from, repository);
            } else if turn.is_some() {
                self.mounting.heard(from, repository);
            }
        }
        drop(turn);
        let upload = match started {
            UploadStart::Present if from == Some(repository) => {
                self.mounting.made_from_itself(repository);
                return Ok(How::Present.into());
            }
            UploadStart::Present => return Ok(How::Mounted.into()),
            UploadStart::Session(upload) => upload,
        };
        if let Some(from) = from {
            self.mounting.lost(from, &blob.digest);
        }
        let told = from == Some(repository) && self.mounting.is_made_from_itself(repository);
        if blob.size >= ASK_FROM_BYTES && !told && self.is_there(blob).await {
            session.cancel_upload(upload).await;
            return Ok(How::Present.into());
        }
        let profile = session.profile(repository);
        if !profile.takes(blob.size) {
            session.cancel_upload(upload).await;
            return Err(self.too_large(repository, blob, &profile).into());
        }
        let chunk = profile.chunk_size(blob.size);
        if let Some(chunk) = chunk.filter(|chunk| blob.size > (*chunk).max(upload.least_chunk())) {
            return self.send_chunks(session, repository, blob, Begun::fresh(upload, blob), chunk).await;
        }
        let content = match self.content(blob).await {
            Ok(content) => content,
            Err(trouble) => {
                session.cancel_upload(upload).await;
                return Err(trouble);
            }
        };
        if u64::try_from(PIECE_BYTES).is_ok_and(|piece| blob.size <= piece) {
            self.send_whole(session, upload, blob, content).await?;
        } else {
            self.send(session, upload, blob, content).await?;
        }
        Ok(How::Copied.into())
    }

    /// Where the blob is asked to be mounted from, and the turn to be the first who asks there.
    async fn wish<'a>(
        &'a self,
        repository: &'a Repository,
        holder: Option<&'a Repository>,
        mount: Mount,
    ) -> (Option<&'a Repository>, Option<OwnedMutexGuard<()>>) {
        loop {
            let Some(from) = self.mount_from(repository, holder, mount) else { return (None, None) };
            let turn = self.mounting.first_wish(from, repository).await;
            // Somebody else may have been refused meanwhile: then there is another place to ask, or none.
            if turn.is_some() || !self.mounting.is_refused(from, repository) {
                return (Some(from), turn);
            }
        }
    }

    /// Where the blob is asked to be mounted from: the source, if it is on the same registry, else a repository there that
    /// is known to hold it, else the repository itself, each unless such registries do not mount from there, or this one has refused
    /// it before.
    fn mount_from<'a>(
        &'a self,
        repository: &'a Repository,
        holder: Option<&'a Repository>,
        mount: Mount,
    ) -> Option<&'a Repository> {
        let neighbour = self.source.repository().filter(|source| source.host() == repository.host());
        let mut places = neighbour.into_iter().chain(holder).chain([repository]);
        places.find(|from| mount.allows(from.name(), repository.name()) && !self.mounting.is_refused(from, repository))
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
        self.content_from(blob, Verifier::new(blob.digest.clone(), Some(blob.size))).await
    }

    /// Reads on where a check has come to; from the start, where the source gives no part of a blob.
    pub(super) async fn content_from(&self, blob: &Blob, verifier: Verifier) -> Result<Checked<BlobContent>, Trouble> {
        let trouble = |(error, exhausted)| Trouble::of(error, exhausted);
        let (mut verifier, mut content) = (verifier, None);
        if verifier.seen() > 0 {
            content = self.source.blob_from(&blob.digest, blob.size, verifier.seen()).await.map_err(trouble)?;
        }
        let mut content = match content {
            Some(content) => content,
            None => {
                verifier = Verifier::new(blob.digest.clone(), Some(blob.size));
                self.source.blob(&blob.digest, blob.size).await.map_err(trouble)?
            }
        };
        content.may_come_in_parts(&self.places);
        self.asking.read(content.redirected());
        let expected = blob.size - verifier.seen();
        match content.length() {
            Some(length) if length > expected => Err(Trouble::Content(ContentError::TooLong { expected: blob.size })),
            Some(length) if length < expected => {
                let actual = verifier.seen() + length;
                Err(Trouble::Content(ContentError::TooShort { expected: blob.size, actual }))
            }
            _ => Ok(Checked::going_on(content, verifier, blob.size)),
        }
    }

    /// What it means that the content broke off. That it is too short is found out only after it was announced in full, or
    /// not at all: a connection that broke without a word looks the same.
    pub(super) fn broken(&self, blob: &Blob, broken: Broken) -> Trouble {
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

    fn corrupt(&self, blob: &Blob, why: &ContentError) -> Error {
        let (digest, source) = (&blob.digest, self.source.name());
        let message = format!(
            "copying blob {digest}: the source {source} sent wrong content twice: {why}; nothing was committed"
        );
        Error::new(Stage::Transfer, Class::Corrupt, message)
    }

    /// The registry would refuse the blob after all of it was sent.
    fn too_large(&self, repository: &Repository, blob: &Blob, profile: &Profile) -> Error {
        let (limit, host, parts) = (profile.single_put_limit.unwrap_or_default(), repository.host(), profile.max_parts);
        let why = if profile.chunked {
            format!("more than {parts} chunks")
        } else {
            "a registry that takes chunks".to_owned()
        };
        let message = format!(
            "copying blob {} of {} bytes to {}: the registry takes at most {limit} bytes in one request, and the blob would need \
             {why}; nothing of it was sent. If the registry takes more, say so in the configuration, [registries.\"{host}\"]: \
             single_put_limit_bytes, chunked, chunk_bytes, max_parts",
            blob.digest,
            blob.size,
            self.destination.name(),
        );
        Error::new(Stage::Transfer, Class::Refused, message)
    }

    pub(super) fn not_begun(&self, blob: &Blob, cause: &crate::registry::Error) -> Trouble {
        Trouble::of(self.failed(blob, cause), cause.is_exhausted())
    }

    pub(super) fn failed(&self, blob: &Blob, cause: &impl super::error::Cause) -> Error {
        let doing = format_args!("copying a blob of {} bytes to {}", blob.size, self.destination.name());
        Error::because(Stage::Transfer, doing, cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
