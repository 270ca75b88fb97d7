//! A lane: requests of one kind that come at the same time share one statement, one round trip and one commit.
//!
//! A task drains a bounded channel and hands what it found over together; while that is under way the next ones gather. So a
//! lone caller waits for nobody, and many callers wait for one commit instead of one each. Each kind has a lane and a
//! connection of its own: a large enqueue never delays a heartbeat. Callers hold no connection: one that is dropped while it
//! waits leaves nothing behind.

use crate::store::Error;
use futures_util::future::BoxFuture;
use std::sync::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Requests that may wait for a lane; more callers wait outside.
const CHANNEL: usize = 1024;
/// Requests in one statement: bounds how long the first waits for the last.
const BATCH: usize = 256;

type Asked<I, O> = (I, oneshot::Sender<Result<O, Error>>);

/// What a lane does with the requests that it found waiting: one answer for each, in their order.
pub(super) type Work<I, O> = Box<dyn Fn(Vec<I>) -> BoxFuture<'static, Vec<Result<O, Error>>> + Send + Sync>;

/// The handle of a lane's task. When it is dropped the task finishes what was sent and ends.
pub(super) struct Lane<I, O> {
    sender: mpsc::Sender<Asked<I, O>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl<I: Send + 'static, O: Send + 'static> Lane<I, O> {
    #[expect(clippy::disallowed_methods, reason = "a lane is one task; its handle is kept and awaited by close")]
    pub(super) fn start(work: Work<I, O>) -> Self {
        let (sender, receiver) = mpsc::channel(CHANNEL);
        Self { sender, task: Mutex::new(Some(tokio::spawn(run(receiver, work)))) }
    }

    /// The answer to a request; when it is Ok it is committed and durable.
    pub(super) async fn ask(&self, request: I) -> Result<O, Error> {
        let gone = || Error::Unusable("the database's lane has ended; start again".to_owned());
        let (reply, answer) = oneshot::channel();
        self.sender.send((request, reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Waits until everything that was sent is answered. Later requests fail.
    pub(super) async fn close(self) {
        let task = self.task.lock().ok().and_then(|mut task| task.take());
        drop(self.sender);
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "a lane of the database ended badly");
        }
    }
}

async fn run<I, O>(mut receiver: mpsc::Receiver<Asked<I, O>>, work: Work<I, O>) {
    let mut batch = Vec::with_capacity(BATCH);
    while receiver.recv_many(&mut batch, BATCH).await > 0 {
        let (requests, replies): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        for (reply, answer) in replies.into_iter().zip(work(requests).await) {
            // A caller that has gone does not want to know.
            drop(reply.send(answer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    #[tokio::test]
    async fn requests_that_wait_go_together_and_each_has_its_answer() {
        let (gate, sizes) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (held, seen) = (gate.clone(), sizes.clone());
        let lane = Arc::new(Lane::start(Box::new(move |numbers: Vec<u32>| {
            let (held, seen) = (held.clone(), seen.clone());
            Box::pin(async move {
                seen.lock().unwrap().push(numbers.len());
                held.acquire().await.unwrap().forget();
                numbers.into_iter().map(|number| Ok(number * 2)).collect()
            })
        })));
        let mut callers = tokio::task::JoinSet::new();
        for number in 0..10 {
            let lane = lane.clone();
            callers.spawn(async move { (number, lane.ask(number).await.unwrap()) });
        }
        gate.add_permits(2);
        for (number, answer) in callers.join_all().await {
            assert_eq!(answer, number * 2);
        }
        let sizes = sizes.lock().unwrap().clone();
        assert_eq!(sizes.iter().sum::<usize>(), 10);
        assert!(sizes.len() <= 2, "{sizes:?}");
        Arc::into_inner(lane).unwrap().close().await;
    }
}
