//! Several pieces of work at a time, owned by the function that waits for them.
//!
//! Each piece is a task of its own rather than one of many futures in a single task, because content is hashed as it
//! passes and one task would hash on one core only. Nothing is detached: dropping the future of [`side_by_side`] aborts
//! what runs.

use super::Error;
use crate::job::{Class, Stage};
use tokio::task::JoinSet;
use tracing::Instrument;

/// Does all of `work`, at most `at_once` pieces at a time, started in their order. Returns what they gave, in the order
/// they ended.
///
/// # Errors
/// The first error. What still runs has been aborted and is gone when this returns; the rest was never started.
pub(super) async fn side_by_side<T, F, W>(work: W, at_once: usize) -> Result<Vec<T>, Error>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
    W: IntoIterator<Item = F>,
    W::IntoIter: Send,
{
    in_lanes([(work.into_iter(), at_once)]).await
}

/// The same for several lanes of work beside each other, each with a bound of its own.
///
/// # Errors
/// As [`side_by_side`].
pub(super) async fn in_lanes<T, F, W, const N: usize>(lanes: [(W, usize); N]) -> Result<Vec<T>, Error>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
    W: IntoIterator<Item = F>,
    W::IntoIter: Send,
{
    let mut running = JoinSet::new();
    let start = |running: &mut JoinSet<(usize, Result<T, Error>)>, lane: usize, piece: F| {
        running.spawn(async move { (lane, piece.await) }.in_current_span());
    };
    let mut waiting = lanes.map(|(work, at_once)| (work.into_iter(), at_once.max(1)));
    for (lane, (work, at_once)) in waiting.iter_mut().enumerate() {
        for piece in work.by_ref().take(*at_once) {
            start(&mut running, lane, piece);
        }
    }
    let mut done = Vec::new();
    while let Some(joined) = running.join_next().await {
        let lane = match joined {
            Ok((lane, Ok(given))) => {
                done.push(given);
                lane
            }
            Ok((_, Err(error))) => {
                running.shutdown().await;
                return Err(error);
            }
            Err(stopped) => match stopped.try_into_panic() {
                // A panic belongs to the attempt: the worker that runs it catches and reports it.
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => {
                    return Err(Error::new(Stage::Work, Class::RETRY, "the program is ending: the copy was stopped"));
                }
            },
        };
        if let Some(piece) = waiting.get_mut(lane).and_then(|(work, _)| work.next()) {
            start(&mut running, lane, piece);
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Barrier;

    #[tokio::test]
    async fn so_many_run_at_a_time_and_no_more() {
        // Three must be there together, or none gets through; a fourth would be counted.
        let (barrier, running) = (Arc::new(Barrier::new(3)), Arc::new(AtomicUsize::new(0)));
        let work = (0..9).map(|number| {
            let (barrier, running) = (barrier.clone(), running.clone());
            async move {
                assert!(running.fetch_add(1, Ordering::SeqCst) < 3);
                barrier.wait().await;
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(number)
            }
        });
        let mut done = side_by_side(work.collect::<Vec<_>>(), 3).await.unwrap();
        done.sort_unstable();
        assert_eq!(done, (0..9).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn lanes_do_not_wait_for_each_other() {
        // The first lane stands still until all of the second is done.
        let (barrier, done) = (Arc::new(Barrier::new(2)), Arc::new(AtomicUsize::new(0)));
        let piece = |lane: usize, number: usize| {
            let (barrier, done) = (barrier.clone(), done.clone());
            async move {
                if lane == 0 || number == 4 {
                    barrier.wait().await;
                }
                Ok((lane, done.fetch_add(1, Ordering::SeqCst)))
            }
        };
        let (slow, fast) = (vec![piece(0, 0)], (0..5).map(|number| piece(1, number)).collect::<Vec<_>>());
        let ended = in_lanes([(slow, 1), (fast, 1)]).await.unwrap();
        assert_eq!(ended.len(), 6);
        assert_eq!(ended.iter().filter(|(lane, place)| *lane == 1 && *place < 4).count(), 4);
    }

    #[tokio::test]
    async fn the_first_error_ends_the_others() {
        struct Gone(Arc<AtomicUsize>);
        impl Drop for Gone {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let (gone, started) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = (0..4).map(|number| {
            let (guard, started) = (Gone(gone.clone()), started.clone());
            async move {
                let _guard = guard;
                started.fetch_add(1, Ordering::SeqCst);
                if number == 1 {
                    return Err(Error::new(Stage::Transfer, Class::Denied, "no"));
                }
                std::future::pending::<Result<(), Error>>().await
            }
        });
        let error = side_by_side(work.collect::<Vec<_>>(), 2).await.unwrap_err();
        assert_eq!((error.class, error.message.as_str()), (Class::Denied, "no"));
        assert_eq!(gone.load(Ordering::SeqCst), 4, "every future was dropped before the error came back");
        assert_eq!(started.load(Ordering::SeqCst), 2, "nothing was started after the error");
    }
}
