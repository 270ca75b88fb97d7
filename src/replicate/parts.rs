//! Parts of one large blob, fetched side by side and handed out in their order.
//!
//! A blob is read in one stream, which costs the fewest requests. That is too slow only where a source gives each connection
//! little; so the stream is watched, and when it has kept the copy waiting for most of the time although it gave little, what
//! lies ahead of it is fetched by ranges beside it. It goes on until it meets the first part, and ends when that has come: a
//! source that does not keep its word on ranges costs nothing but those requests.
//!
//! Parts wait in memory rather than in temporary files: with so few and so small ones that is less than the connections take,
//! and nothing is left behind. Their number is bounded for the process, not for each blob. A blob takes its places when it
//! begins with parts and keeps them to its end, so that blobs never wait for each other; one that finds no places stays a stream.
//!
//! Nothing here is checked but that a part is the one that was asked for: digest and size of the whole are (`content.rs`).

use super::Limits;
use crate::clock::BootTime;
use crate::job::Class;
use crate::oci::{Digest, Repository};
use crate::registry::{self, PartSource, Session};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::collections::{BTreeSet, VecDeque};
use std::future::poll_fn;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One part, bytes: four of them are 8 MiB of memory, and at 10 MiB a second the round trip before each is a small share.
const PART_BYTES: u64 = 2 * 1024 * 1024;
/// How much of a stream is looked at before it is judged, bytes: far beyond the slow start of a connection.
const LOOK_BYTES: u64 = 8 * 1024 * 1024;
/// A stream that gives more is not slow, bytes a second: half of what a line of one Gbit/s carries.
const SLOW_BYTES_PER_SEC: u64 = 64 * 1024 * 1024;
/// With less than this left it is not worth it any more, bytes.
const LEFT_BYTES: u64 = 16 * 1024 * 1024;
/// How often a part that broke off is continued, and the pause before; it doubles each time.
const BREAKS: u32 = 4;
const BREAK_PAUSE: Duration = Duration::from_millis(250);

/// The places that the parts of all blobs of a process have. Shared by all clones.
#[derive(Clone)]
pub(super) struct Places {
    from_bytes: u64,
    at_once: u32,
    free: Arc<Semaphore>,
    /// Hosts whose parts were not what they should be.
    distrusted: Arc<Mutex<BTreeSet<String>>>,
}

impl Places {
    pub fn new(limits: &Limits) -> Self {
        let at_once = limits.ranges_at_once;
        let places = usize::try_from(at_once).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let (free, distrusted) = (Arc::new(Semaphore::new(places)), Arc::default());
        Self { from_bytes: limits.ranges_from_bytes, at_once, free, distrusted }
    }

    /// From now on blobs of this host are read in one stream.
    pub fn distrust(&self, host: &str) {
        self.distrusted.lock().unwrap_or_else(PoisonError::into_inner).insert(host.to_owned());
    }

    /// Whether a blob of `size` bytes of this host may come in parts.
    pub fn may(&self, host: &str, size: u64) -> bool {
        let trusted = || !self.distrusted.lock().unwrap_or_else(PoisonError::into_inner).contains(host);
        self.at_once > 1 && size >= self.from_bytes && trusted()
    }

    /// All places that are free now, if they are at least two.
    fn take(&self) -> Option<OwnedSemaphorePermit> {
        let free = u32::try_from(self.free.available_permits()).unwrap_or(u32::MAX).min(self.at_once);
        if free < 2 {
            return None;
        }
        self.free.clone().try_acquire_many_owned(free).ok()
    }
}

/// How fast a stream gives what is asked of it.
#[derive(Default)]
pub(super) struct Pace {
    since: Option<BootTime>,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// `bytes` came at `now`, asked for at `asked`. True when the stream turned out to be slow, and to be what is waited for.
    pub fn is_slow_after(&mut self, asked: BootTime, now: BootTime, bytes: u64) -> bool {
        let since = *self.since.get_or_insert(asked);
        self.waited += now.since(asked);
        self.bytes += bytes;
        if self.bytes < LOOK_BYTES {
            return false;
        }
        let Self { waited, bytes, .. } = std::mem::take(self);
        let most = waited * 4 >= now.since(since) * 3;
        most && u128::from(bytes) * 1000 < u128::from(SLOW_BYTES_PER_SEC) * waited.as_millis()
    }
}

/// What the parts of a blob have in common.
pub(super) struct Whole {
    pub session: Session,
    pub repository: Repository,
    pub digest: Digest,
    pub size: u64,
    pub source: PartSource,
}

/// Why a part does not come.
#[derive(Debug)]
pub(super) enum Failed {
    /// It could not be read, often enough.
    Unread(registry::Error),
    /// The source sends something else than was asked for.
    Other,
}

type Fetched = Result<VecDeque<Bytes>, Failed>;

enum Part {
    Fetching(BoxFuture<'static, Fetched>),
    Fetched(Fetched),
}

/// The parts of a blob from some byte on.
pub(super) struct Parts {
    whole: Arc<Whole>,
    /// In their order; what the first one has is given out next.
    parts: VecDeque<Part>,
    /// The next byte that is given out.
    position: u64,
    /// The first byte that is not asked for yet.
    next: u64,
    places: OwnedSemaphorePermit,
}

impl Parts {
    /// The parts of a blob whose stream stands at byte `offset` and goes on for about one part. None when that is not worth it,
    /// or there is no place.
    pub fn beside(whole: impl FnOnce() -> Option<Whole>, offset: u64, size: u64, places: &Places) -> Option<Self> {
        if size.saturating_sub(offset) < LEFT_BYTES {
            return None;
        }
        let places = places.take()?;
        let border = offset + PART_BYTES;
        Some(Self { whole: Arc::new(whole()?), parts: VecDeque::new(), position: border, next: border, places })
    }

    /// The byte from which on they come.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// How many of them are fetched at a time.
    pub fn at_once(&self) -> usize {
        self.places.num_permits()
    }

    /// Reads on, in all of them, `beside` so many other connections for the same blob.
    pub fn poll(&mut self, context: &mut Context<'_>, beside: usize) {
        while self.parts.len() + beside < self.at_once() && self.next < self.whole.size {
            let end = (self.next + PART_BYTES).min(self.whole.size);
            self.parts.push_back(Part::Fetching(fetch(self.whole.clone(), self.next..end).boxed()));
            self.next = end;
        }
        for part in &mut self.parts {
            if let Part::Fetching(fetching) = part
                && let Poll::Ready(fetched) = fetching.poll_unpin(context)
            {
                *part = Part::Fetched(fetched);
            }
        }
    }

    /// The next bytes, None at the end of the blob. After an error there is nothing more. Cancel-safe.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Failed> {
        poll_fn(|context| {
            loop {
                self.poll(context, 0);
                match self.parts.pop_front() {
                    None => return Poll::Ready(Ok(None)),
                    Some(part @ Part::Fetching(_)) => {
                        self.parts.push_front(part);
                        return Poll::Pending;
                    }
                    Some(Part::Fetched(Err(failed))) => return Poll::Ready(Err(failed)),
                    Some(Part::Fetched(Ok(mut pieces))) => {
                        // Its place is free only when all of it is given out.
                        if let Some(piece) = pieces.pop_front() {
                            self.position += u64::try_from(piece.len()).unwrap_or(u64::MAX);
                            self.parts.push_front(Part::Fetched(Ok(pieces)));
                            return Poll::Ready(Ok(Some(piece)));
                        }
                    }
                }
            }
        })
        .await
    }
}

/// Fetches one part. What breaks off is continued, it alone.
async fn fetch(whole: Arc<Whole>, part: Range<u64>) -> Fetched {
    let (mut pieces, mut position, mut breaks) = (VecDeque::new(), part.start, 0);
    loop {
        let cause = match read(&whole, &mut position, part.end, &mut pieces).await {
            Ok(()) if position == part.end => return Ok(pieces),
            // It ended early, without a word.
            Ok(()) if breaks == BREAKS => return Err(Failed::Other),
            Ok(()) => None,
            Err(Failed::Unread(cause)) => Some(cause),
            Err(other) => return Err(other),
        };
        if let Some(cause) = cause {
            let passes = matches!(cause.class(), Class::Retry { .. }) && !cause.is_exhausted();
            if !passes || breaks == BREAKS {
                return Err(Failed::Unread(cause));
            }
        }
        tracing::debug!(digest = %whole.digest, position, to = part.end, "a part broke off, going on from there");
        tokio::time::sleep(BREAK_PAUSE * 2u32.pow(breaks)).await;
        breaks += 1;
    }
}

/// Reads up to byte `end`, or as far as it comes.
async fn read(whole: &Whole, position: &mut u64, end: u64, pieces: &mut VecDeque<Bytes>) -> Result<(), Failed> {
    let Whole { session, repository, digest, size, source } = whole;
    let asked = session.get_blob_part(repository, digest, &(*position..end), *size, source).await;
    let mut body = asked.map_err(Failed::Unread)?.ok_or(Failed::Other)?;
    while let Some(piece) = body.chunk().await.map_err(Failed::Unread)? {
        *position += u64::try_from(piece.len()).unwrap_or(u64::MAX);
        if *position > end {
            return Err(Failed::Other);
        }
        pieces.push_back(piece);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn limits(at_once: u32, from_bytes: u64) -> Limits {
        Limits { ranges_at_once: at_once, ranges_from_bytes: from_bytes, ..Limits::default() }
    }

    fn at(millis: u64) -> BootTime {
        BootTime(Duration::from_millis(millis))
    }

    #[test]
    fn places_are_shared_and_one_is_none() {
        let places = Places::new(&limits(5, 0));
        let first = places.take().unwrap();
        assert_eq!(first.num_permits(), 5);
        assert!(places.take().is_none());
        drop(first);
        let most = places.free.clone().try_acquire_many_owned(4).unwrap();
        assert!(places.take().is_none(), "one place is a stream, only with more requests");
        drop(most);
        assert_eq!(places.clone().take().unwrap().num_permits(), 5);
    }

    #[test]
    fn only_large_blobs_of_honest_sources_come_in_parts() {
        let places = Places::new(&limits(4, 100));
        assert!(places.may("r", 100) && !places.may("r", 99));
        places.distrust("r");
        assert!(!places.may("r", 100) && places.may("other", 100));
        for off in [0, 1] {
            assert!(!Places::new(&limits(off, 0)).may("r", 1 << 40));
        }
    }

    /// Pieces of 1 MiB, each asked for so many milliseconds after the one before had come, and waited for so long.
    fn judged(pause: u64, wait: u64) -> bool {
        let (mut pace, mut now, mut slow) = (Pace::default(), 0, false);
        for _ in 0..LOOK_BYTES / MIB {
            assert!(!slow, "judged before enough was seen");
            now += pause;
            slow = pace.is_slow_after(at(now), at(now + wait), MIB);
            now += wait;
        }
        slow
    }

    #[test]
    fn a_stream_is_slow_when_it_is_what_is_waited_for() {
        assert!(judged(0, 100) && judged(10, 100));
        assert!(!judged(100, 100), "the destination takes as long");
        assert!(!judged(0, 10), "100 MiB/s is not slow");
        assert!(!judged(0, 0));
    }
}
