//! Places: how many jobs a worker has at a time.
//!
//! A job takes a place with its claim and gives it back with the write that ends the attempt. Where the database does writes in
//! the order in which they were sent, that is when the write is on its way: the next claim is sent behind it, so it never sees
//! more jobs of this worker running than there are places, and one commit serves both.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Yields without a change after which nobody else is about to end.
const STILL: usize = 3;

/// The places of one worker.
#[derive(Debug, Default)]
pub(super) struct Places {
    taken: AtomicUsize,
    freed: Notify,
}

impl Places {
    /// A place for one job.
    pub(super) fn take(self: &Arc<Self>) -> Place {
        let mut place = Place { places: self.clone(), taken: false };
        place.take();
        place
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }

    /// Waits until a place is freed; at once when one was since the last call.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Lets those that are about to end do so: one claim then fills all their places.
    pub(super) async fn gather(&self) {
        let (mut taken, mut still) = (self.taken(), 0);
        while taken > 0 && still < STILL {
            tokio::task::yield_now().await;
            let now = self.taken();
            still = if now == taken { still + 1 } else { 0 };
            taken = now;
        }
    }
}

/// The place of one job; free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    taken: bool,
}

impl Place {
    /// The place of a job that runs for itself.
    #[must_use]
    pub fn only() -> Self {
        Arc::<Places>::default().take()
    }

    /// Has the write that ends the attempt done. With `in_order` the place is free as soon as that is sent, which it must be
    /// when it was polled once; [`Place::take`] takes it again when the write failed.
    pub async fn free_with<T>(&mut self, in_order: bool, write: impl Future<Output = T>) -> T {
        let mut write = pin!(write);
        std::future::poll_fn(|context| {
            let polled = write.as_mut().poll(context);
            if in_order {
                self.free();
            }
            polled
        })
        .await
    }

    /// The attempt has not ended after all. There may be one job more than places then, until it has.
    pub fn take(&mut self) {
        if !std::mem::replace(&mut self.taken, true) {
            self.places.taken.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn free(&mut self) {
        if std::mem::take(&mut self.taken) {
            self.places.taken.fetch_sub(1, Ordering::AcqRel);
            self.places.freed.notify_one();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.free();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn a_place_is_free_when_its_last_write_was_sent_or_it_is_dropped() {
        let places = Arc::new(Places::default());
        let (mut first, mut second, third) = (places.take(), places.take(), places.take());
        assert_eq!(places.taken(), 3);
        let (done, answer) = tokio::sync::oneshot::channel::<()>();
        {
            let mut write = pin!(first.free_with(true, answer));
            assert_eq!(places.taken(), 3, "nothing was sent yet");
            assert!(write.as_mut().now_or_never().is_none());
            assert_eq!(places.taken(), 2, "it is on its way");
            done.send(()).unwrap();
            write.await.unwrap();
        }
        first.take();
        assert_eq!(places.taken(), 3, "it failed");
        drop(first);
        let never = std::future::pending::<()>();
        assert!(second.free_with(false, never).now_or_never().is_none());
        assert_eq!(places.taken(), 2, "the answer counts");
        drop((second, third));
        assert_eq!(places.taken(), 0);
        places.freed().await;
        assert!(places.freed().now_or_never().is_none(), "one notice for all");
    }
}
