//! A blob on its way from the source. What breaks off is asked for again from where it broke, so that a long download survives
//! a connection that does not. Checks nothing: `content.rs` does.

use super::Error;
use super::content::Chunks;
use crate::job::{Class, Stage};
use crate::layout::BlobFile;
use crate::oci::{Digest, Repository};
use crate::registry::{self, BlobBody, Session};
use bytes::Bytes;
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
}

impl BlobContent {
    /// A blob of which nothing has been read. `what`: for messages; `more`: how to go on when it breaks off, if that is possible.
    pub fn new(what: String, body: Body, more: Option<More>) -> Self {
        Self { what, body, more, offset: 0, breaks: 0, broke_at: 0 }
    }

    /// The rest of a blob from byte `offset` on.
    pub fn going_on(what: String, body: Body, more: More, offset: u64) -> Self {
        Self { what, body, more: Some(more), offset, breaks: 0, broke_at: offset }
    }

    /// How many bytes the source says it has.
    pub fn length(&self) -> Option<u64> {
        match &self.body {
            Body::Registry(body) => body.length(),
            Body::Layout(file) => Some(file.length()),
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
                self.body = Body::Registry(body);
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
}

impl Chunks for BlobContent {
    async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let cause = match &mut self.body {
                Body::Registry(body) => match body.chunk().await {
                    Ok(chunk) => {
                        self.offset += chunk.as_ref().map_or(0, |chunk| u64::try_from(chunk.len()).unwrap_or(u64::MAX));
                        return Ok(chunk);
                    }
                    Err(cause) => cause,
                },
                Body::Layout(file) => {
                    let chunk = file.chunk().await;
                    return chunk.map_err(|cause| Error::because(Stage::Transfer, &self.what, &cause));
                }
            };
            if !self.go_on(&cause).await {
                return Err(Error::because(Stage::Transfer, &self.what, &cause));
            }
        }
    }
}
