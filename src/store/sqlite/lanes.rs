//! The way to the writer: two bounded lanes that tasks fill and one thread empties.
//!
//! Not channels: the thread waits for both at once, and takes all there is under one lock. Bounded by semaphores that callers
//! wait for without blocking their thread; a place is free again as soon as the writer has taken the operation.

use super::batch::Op;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Operations that may wait in a lane; more callers wait outside.
const PLACES: usize = 4096;

/// Which operations go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// What keeps running attempts alive and ends them: claims, renewals, settles.
    Control,
    /// What can wait: enqueues, changes by operators, retention.
    Bulk,
}

/// Both lanes.
pub(super) struct Lanes {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    control: std::sync::Arc<Semaphore>,
    bulk: std::sync::Arc<Semaphore>,
}

#[derive(Default)]
struct Waiting {
    control: VecDeque<(Op, OwnedSemaphorePermit)>,
    bulk: VecDeque<(Op, OwnedSemaphorePermit)>,
    closed: bool,
    /// The writer waits to be woken. Waking costs a call of the kernel, also when nobody sleeps.
    asleep: bool,
}

impl Lanes {
    pub(super) fn new() -> Self {
        let places = || std::sync::Arc::new(Semaphore::new(PLACES));
        Self { waiting: Mutex::default(), filled: Condvar::new(), control: places(), bulk: places() }
    }

    /// Puts an operation into a lane, as soon as there is a place. False when the writer has ended.
    pub(super) async fn put(&self, lane: Lane, op: Op) -> bool {
        let places = match lane {
            Lane::Control => &self.control,
            Lane::Bulk => &self.bulk,
        };
        let Ok(place) = places.clone().acquire_owned().await else { return false };
        let mut waiting = self.lock();
        if waiting.closed {
            return false;
        }
        match lane {
            Lane::Control => waiting.control.push_back((op, place)),
            Lane::Bulk => waiting.bulk.push_back((op, place)),
        }
        let asleep = std::mem::take(&mut waiting.asleep);
        drop(waiting);
        if asleep {
            self.filled.notify_one();
        }
        true
    }

    /// Waits until there is something, at most so long, and hands operations to `take`: of each lane its oldest, control
    /// first, until `take` wants no more of the lane. False when the lanes are closed and empty.
    pub(super) fn take(
        &self,
        at_most: Duration,
        mut take: impl FnMut(Lane, &Op) -> bool,
        mut give: impl FnMut(Op),
    ) -> bool {
        let waiting = self.lock();
        let nothing = |waiting: &mut Waiting| {
            waiting.asleep = !waiting.closed && waiting.control.is_empty() && waiting.bulk.is_empty();
            waiting.asleep
        };
        let (mut waiting, _) =
            self.filled.wait_timeout_while(waiting, at_most, nothing).unwrap_or_else(PoisonError::into_inner);
        waiting.asleep = false;
        if waiting.closed && waiting.control.is_empty() && waiting.bulk.is_empty() {
            return false;
        }
        while waiting.control.front().is_some_and(|(op, _)| take(Lane::Control, op)) {
            give_one(waiting.control.pop_front(), &mut give);
        }
        while waiting.bulk.front().is_some_and(|(op, _)| take(Lane::Bulk, op)) {
            give_one(waiting.bulk.pop_front(), &mut give);
        }
        true
    }

    /// Operations that wait now.
    pub(super) fn len(&self) -> usize {
        let waiting = self.lock();
        waiting.control.len() + waiting.bulk.len()
    }

    /// Nobody puts anything any more; what waits is still taken.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.control.close();
        self.bulk.close();
        self.filled.notify_all();
    }

    /// The writer is gone: whoever waits is told so by the end of his reply.
    pub(super) fn abandon(&self) {
        self.close();
        let mut waiting = self.lock();
        waiting.control.clear();
        waiting.bulk.clear();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in here panics half way.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn give_one(taken: Option<(Op, OwnedSemaphorePermit)>, give: &mut impl FnMut(Op)) {
    if let Some((op, _place)) = taken {
        give(op);
    }
}
