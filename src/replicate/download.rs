//! A blob on its way from the source. What breaks off is asked for again from where it broke, so that a long download survives
//! a connection that does not. A stream that is slow gets help (`parts`). Checks nothing: `content.rs` does.

use super::Error;
use super::content::Chunks;
use super::parts::{Failed, Pace, Parts, Places, Whole};
use crate::clock::Clock;
use crate::job::{Class, Stage};
use crate::layout::BlobFile;
use crate::oci::{Digest, Repository};
use crate::registry::{self, BlobBody, Session};
use bytes::Bytes;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Context;
use std::time::Duration;

/// How often in a row a blob that broke off is continued.
const BREAKS: u32 = 4;
/// It counts as a row while less than this came between two breaks, bytes.
const FAR_BYTES: u64 = 1024 * 1024;
/// The pause before the first continuation; doubles with each of a row.
const BREAK_PAUSE: Duration = Duration::from_millis(250);

/// A blob being read. What breaks off is continued where it broke, within bounds.
pub(super) struct BlobContent {
    what: String,
    body: Body,
    /// How to go on. None: it cannot break off, or cannot be continued.
    more: Option<More>,
    /// Bytes that were given out.
    offset: u64,
    /// How often it broke off without having come far between.
    breaks: u32,
    broke_at: u64,
    /// Where parts may be fetched beside a slow stream. None: they may not.
    places: Option<Places>,
    pace: Pace,
    /// What comes after the stream, which ends where they begin.
    parts: Option<Parts>,
    /// What the stream gave beyond that.
    rest: Option<Bytes>,
    /// Bytes of the stream that were given out before it began.
    skip: u64,
}

/// What it takes to ask for the rest of a blob.
pub(super) struct More {
    pub session: Session,
    pub repository: Repository,
    pub digest: Digest,
    pub size: u64,
}

/// Where its bytes come from.
pub(super) enum Body {
    Registry(BlobBody),
    Layout(BlobFile),
    /// Nothing more comes this way: the parts do.
    Spent,
}

/// Why the next bytes do not come.
enum Lacking {
    /// The stream broke off.
    Stream(registry::Error),
    /// The layout cannot be read.
    Layout(Error),
    /// The parts do not come.
    Parts(Failed),
}

impl BlobContent {
    /// A blob of which nothing has been read. `what`: for messages; `more`: how to go on when it breaks off, if that is possible.
    pub fn new(what: String, body: Body, more: Option<More>) -> Self {
        Self {
            what,
            body,
            more,
            offset: 0,
            breaks: 0,
            broke_at: 0,
            places: None,
            pace: Pace::default(),
            parts: None,
            rest: None,
            skip: 0,
        }
    }

    /// The rest of a blob from byte `offset` on.
    pub fn going_on(what: String, body: Body, more: More, offset: u64) -> Self {
        Self { offset, broke_at: offset, ..Self::new(what, body, Some(more)) }
    }

    /// Parts of it may be fetched in these places when its stream is slow.
    pub fn may_come_in_parts(&mut self, places: &Places) {
        let may = self.more.as_ref().is_some_and(|more| places.may(more.repository.host(), more.size));
        self.places = may.then(|| places.clone());
    }

    /// How many bytes the source says it has.
    pub fn length(&self) -> Option<u64> {
        match &self.body {
            Body::Registry(body) => body.length(),
            Body::Layout(file) => Some(file.length()),
            Body::Spent => None,
        }
    }

    /// Whether it took a redirect to get it.
    pub fn redirected(&self) -> bool {
        matches!(&self.body, Body::Registry(body) if body.redirected())
    }

    /// Asks for the rest after the body broke off. False when that does not help.
    async fn go_on(&mut self, cause: &registry::Error) -> bool {
        let Some(more) =
            self.more.as_ref().filter(|more| matches!(cause.class(), Class::Retry { .. }) && self.offset < more.size)
        else {
            return false;
        };
        self.breaks = if self.offset - self.broke_at >= FAR_BYTES { 1 } else { self.breaks + 1 };
        self.broke_at = self.offset;
        if self.breaks > BREAKS {
            return false;
        }
        tokio::time::sleep(BREAK_PAUSE * 2u32.pow(self.breaks - 1)).await;
        let (digest, offset) = (&more.digest, self.offset);
        match more.session.get_blob_from(&more.repository, digest, offset, more.size).await {
            Ok(Some(body)) => {
                tracing::debug!(%digest, offset, of = more.size, error = %cause, "the download broke off, going on from there");
                self.go_on_with(body, 0);
                true
            }
            Ok(None) => {
                tracing::debug!(%digest, offset, "the source gives no part of a blob");
                false
            }
            Err(error) => {
                tracing::debug!(%digest, offset, %error, "the rest could not be asked for");
                false
            }
        }
    }

    /// From now on one stream again, whose first `skip` bytes were given out before.
    fn go_on_with(&mut self, body: BlobBody, skip: u64) {
        (self.body, self.parts, self.rest, self.skip) = (Body::Registry(body), None, None, skip);
        self.pace = Pace::default();
    }

    /// Goes on in one stream, to the end: with that which is there still, or with another one from here on.
    ///
    /// # Errors
    /// There is none.
    async fn without_parts(&mut self, failed: Failed) -> Result<(), registry::Error> {
        (self.parts, self.pace) = (None, Pace::default());
        let (Some(more), places) = (&self.more, self.places.take()) else { return Ok(()) };
        let (digest, offset) = (&more.digest, self.offset);
        tracing::debug!(%digest, offset, ?failed, "the parts do not come as they should, going on in one stream");
        if matches!(failed, Failed::Other)
            && let Some(places) = places
        {
            places.distrust(more.repository.host());
        }
        if matches!(self.body, Body::Registry(_)) {
            return Ok(());
        }
        match more.session.get_blob_from(&more.repository, digest, offset, more.size).await? {
            Some(body) => self.go_on_with(body, 0),
            None => {
                let body = more.session.get_blob(&more.repository, digest).await?;
                self.go_on_with(body, offset);
            }
        }
        Ok(())
    }

    /// The next bytes of the stream or of the parts, whose turn it is.
    async fn next(&mut self) -> Result<Option<Bytes>, Lacking> {
        loop {
            if let Some(parts) = self.parts.as_mut().filter(|parts| self.offset >= parts.position()) {
                let piece = parts.chunk().await.map_err(Lacking::Parts)?;
                // They come, so the stream is not needed any more.
                (self.body, self.rest) = (Body::Spent, None);
                return Ok(piece);
            }
            let piece = match (self.rest.take(), &mut self.body) {
                (Some(rest), _) => Some(rest),
                (None, Body::Registry(body)) => {
                    let (asked, mut parts) = (Clock::System.boot(), self.parts.as_mut());
                    let piece = {
                        let mut chunk = pin!(body.chunk());
                        let beside = |context: &mut Context<'_>| {
                            if let Some(parts) = &mut parts {
                                parts.poll(context, 1);
                            }
                            chunk.as_mut().poll(context)
                        };
                        poll_fn(beside).await.map_err(Lacking::Stream)?
                    };
                    let bytes = piece.as_ref().map_or(0, length);
                    if self.pace.is_slow_after(asked, Clock::System.boot(), bytes) {
                        self.ask_for_parts(bytes);
                    }
                    piece
                }
                (None, Body::Layout(file)) => {
                    let read = file.chunk().await;
                    return read.map_err(|cause| Lacking::Layout(Error::because(Stage::Transfer, &self.what, &cause)));
                }
                (None, Body::Spent) => None,
            };
            let Some(mut piece) = piece else { return Ok(None) };
            let before = usize::try_from(self.skip).unwrap_or(usize::MAX).min(piece.len());
            drop(piece.split_to(before));
            self.skip -= u64::try_from(before).unwrap_or(u64::MAX);
            if let Some(parts) = &self.parts {
                let left = usize::try_from(parts.position() - self.offset).unwrap_or(usize::MAX);
                self.rest = (piece.len() > left).then(|| piece.split_off(left));
            }
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
    }

    /// The stream is slow: what comes later is asked for beside it, where it may be. `read`: bytes of it not given out yet.
    fn ask_for_parts(&mut self, read: u64) {
        let Body::Registry(body) = &self.body else { return };
        let (Some(more), Some(places), None, 0) = (&self.more, &self.places, &self.parts, self.skip) else { return };
        let whole = || {
            let source = body.part_source()?;
            let (session, repository, digest) = (more.session.clone(), more.repository.clone(), more.digest.clone());
            Some(Whole { session, repository, digest, size: more.size, source })
        };
        self.parts = Parts::beside(whole, self.offset + read, more.size, places);
        if let Some(parts) = &self.parts {
            let (digest, from, at_once) = (&more.digest, parts.position(), parts.at_once());
            tracing::debug!(%digest, from, at_once, of = more.size, "the stream is slow, fetching parts beside it");
        }
    }
}

impl Chunks for BlobContent {
    async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let cause = match self.next().await {
                Ok(piece) => {
                    self.offset += piece.as_ref().map_or(0, length);
                    return Ok(piece);
                }
                Err(Lacking::Layout(error)) => return Err(error),
                Err(Lacking::Parts(failed)) => match self.without_parts(failed).await {
                    Ok(()) => continue,
                    Err(cause) => cause,
                },
                Err(Lacking::Stream(cause)) => cause,
            };
            if !self.go_on(&cause).await {
                return Err(Error::because(Stage::Transfer, &self.what, &cause));
            }
        }
    }
}

fn length(piece: &Bytes) -> u64 {
    u64::try_from(piece.len()).unwrap_or(u64::MAX)
}
