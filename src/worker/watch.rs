//! What the attempts of this process do, for those who watch: bars, events, the summary of a run.
//!
//! Attempts say when they begin and end, and count for themselves; watchers read at their own pace, so that no copy waits
//! for a terminal. Ends are kept only where somebody asked for them: a worker that runs for years remembers sums alone.

use super::attempt::Finish;
use crate::job::{How, Job, JobId, State};
use crate::replicate::Attempt;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Ends that wait for a watcher at most; the oldest go first. Watchers look ten times a second.
const ENDS: usize = 10_000;

/// An attempt that runs here, or did.
#[derive(Debug, Clone)]
pub struct Watched {
    /// The job.
    pub job: JobId,
    /// Which try.
    pub attempt: i64,
    /// The job's source.
    pub source: String,
    /// The job's destination.
    pub destination: String,
    /// Its counters.
    pub counters: Arc<Attempt>,
}

/// An attempt that has ended.
#[derive(Debug, Clone)]
pub struct End {
    /// The attempt.
    pub watched: Watched,
    /// The state of the job since then; None when the attempt could not settle it.
    pub state: Option<State>,
}

/// What the attempts that ended did together, failed ones too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// Images that were copied.
    pub images_copied: u64,
    /// Images that were there already, so that nothing was written.
    pub images_present: u64,
    /// Blobs whose bytes were sent.
    pub blobs_copied: u64,
    /// Blobs taken from another repository of the destination's registry.
    pub blobs_mounted: u64,
    /// Blobs that the destination had.
    pub blobs_present: u64,
    /// Blobs that went on from where an earlier attempt ended.
    pub blobs_resumed: u64,
    /// Blob bytes sent, those of failed tries too.
    pub bytes_sent: u64,
    /// Bytes of blobs that were mounted or there already: not sent. Blobs of images that were there already are not counted,
    /// nobody looked at them.
    pub bytes_saved: u64,
    /// HTTP requests, to both sides and for tokens.
    pub requests: u64,
}

impl Totals {
    fn add(&mut self, end: &End) {
        let counters = &end.watched.counters;
        if end.state == Some(State::Completed) {
            let copied = counters.publishing.get().is_some();
            *(if copied { &mut self.images_copied } else { &mut self.images_present }) += 1;
        }
        for transfer in counters.transfers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            match transfer.how {
                How::Copied => self.blobs_copied += 1,
                How::Resumed => self.blobs_resumed += 1,
                How::Mounted => {
                    self.blobs_mounted += 1;
                    self.bytes_saved = self.bytes_saved.saturating_add(transfer.bytes);
                }
                How::Present => {
                    self.blobs_present += 1;
                    self.bytes_saved = self.bytes_saved.saturating_add(transfer.bytes);
                }
            }
        }
        self.bytes_sent += counters.progress.bytes_moved();
        self.requests += counters.requests.load(Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Known {
    running: BTreeMap<(JobId, i64), Watched>,
    ends: VecDeque<End>,
    keeps_ends: bool,
    totals: Totals,
}

/// What is known of the attempts. Cheap to clone; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Watch(Arc<Mutex<Known>>);

impl Watch {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An attempt begins.
    pub fn begin(&self, job: &Job, counters: &Arc<Attempt>) -> Watched {
        let watched = Watched {
            job: job.id,
            attempt: job.attempt,
            source: job.source.clone(),
            destination: job.destination.clone(),
            counters: counters.clone(),
        };
        self.known().running.insert((watched.job, watched.attempt), watched.clone());
        watched
    }

    /// It has ended.
    pub fn end(&self, watched: Watched, finish: &Finish) {
        let state = if let Finish::Settled(state) = finish { Some(*state) } else { None };
        let mut known = self.known();
        known.running.remove(&(watched.job, watched.attempt));
        let end = End { watched, state };
        known.totals.add(&end);
        if known.keeps_ends {
            if known.ends.len() == ENDS {
                known.ends.pop_front();
            }
            known.ends.push_back(end);
        }
    }

    /// From here on ends are kept until they are taken.
    pub fn keep_ends(&self) {
        self.known().keeps_ends = true;
    }

    /// The attempts that ended since this was asked last, in order.
    #[must_use]
    pub fn take_ends(&self) -> Vec<End> {
        self.known().ends.drain(..).collect()
    }

    /// The attempts that run, oldest job first.
    #[must_use]
    pub fn running(&self) -> Vec<Watched> {
        self.known().running.values().cloned().collect()
    }

    /// What those that ended did together.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.known().totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Transfer;

    fn watched(job: JobId) -> Watched {
        let counters = Arc::new(Attempt::default());
        Watched { job, attempt: 1, source: "a".to_owned(), destination: "b".to_owned(), counters }
    }

    #[test]
    fn totals_are_of_all_that_ended() {
        let watch = Watch::default();
        let (copied, present, failed) = (watched(1), watched(2), watched(3));
        let transfer = |how, bytes| Transfer {
            registry: String::new(),
            repository: String::new(),
            digest: String::new(),
            bytes,
            resumed: 0,
            how,
        };
        copied.counters.publishing.set("digest".to_owned()).unwrap();
        copied.counters.progress.moved(10);
        let transfers = [transfer(How::Copied, 10), transfer(How::Mounted, 20), transfer(How::Present, 30)];
        copied.counters.transfers.lock().unwrap().extend(transfers);
        failed.counters.progress.moved(5);
        failed.counters.requests.store(7, Ordering::Relaxed);
        watch.end(copied, &Finish::Settled(State::Completed));
        assert!(watch.take_ends().is_empty(), "nobody asked for them");
        watch.keep_ends();
        watch.end(present, &Finish::Settled(State::Completed));
        watch.end(failed, &Finish::LeaseLost);
        let ends: Vec<_> = watch.take_ends().into_iter().map(|end| (end.watched.job, end.state)).collect();
        assert_eq!(ends, [(2, Some(State::Completed)), (3, None)]);
        let expected = Totals {
            images_copied: 1,
            images_present: 1,
            blobs_copied: 1,
            blobs_mounted: 1,
            blobs_present: 1,
            blobs_resumed: 0,
            bytes_sent: 15,
            bytes_saved: 50,
            requests: 7,
        };
        assert_eq!(watch.totals(), expected);
    }
}
