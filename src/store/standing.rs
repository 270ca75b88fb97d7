//! Claims that wait for an enqueue of the same process and are done in its transaction: such a job starts one commit sooner.
//!
//! The board is where a worker leaves its claim while it has nothing to do. Whoever commits an enqueue takes one down, claims
//! behind it, and answers. Taking a claim back and taking it down exclude each other: who finds it gone waits for the answer.

use super::{Claim, ClaimRequest, Error, Intake};
use crate::clock::BootTime;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::oneshot;

type Answer = Result<(Intake, Vec<Claim>), Error>;

/// Claims that wait, the oldest first.
#[derive(Default)]
pub(super) struct Board {
    waiting: Mutex<VecDeque<Posted>>,
}

struct Posted {
    request: ClaimRequest,
    sent: Arc<OnceLock<BootTime>>,
    answer: oneshot::Sender<Answer>,
}

impl Board {
    /// Puts a claim up.
    pub(super) fn stand(self: &Arc<Self>, request: ClaimRequest) -> Standing {
        let (answer, answered) = oneshot::channel();
        let sent = Arc::new(OnceLock::new());
        self.lock().push_back(Posted { request, sent: sent.clone(), answer });
        Standing { board: self.clone(), sent, answered, filled: None }
    }

    /// Takes the oldest down, at the moment at which it is sent. When the sender is dropped nothing was claimed.
    pub(super) fn take(&self, now: BootTime) -> Option<(ClaimRequest, oneshot::Sender<Answer>)> {
        let Posted { request, sent, answer } = self.lock().pop_front()?;
        sent.get_or_init(|| now);
        Some((request, answer))
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Posted>> {
        // Nothing in here panics half way.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a claim that waited for an enqueue has got.
#[derive(Debug)]
pub struct Stood {
    /// When it was sent: its leases are to be trusted from then on.
    pub sent: BootTime,
    /// As [`super::Store::claim`] returns them.
    pub claims: Vec<Claim>,
}

/// A claim that waits for an enqueue: see [`super::Store::stand`]. Dropping it takes it back; but what it has claimed already is
/// lost then until the lease runs out, so rather [`Standing::withdraw`] it.
pub struct Standing {
    board: Arc<Board>,
    /// Also tells this claim from others.
    sent: Arc<OnceLock<BootTime>>,
    answered: oneshot::Receiver<Answer>,
    filled: Option<Answer>,
}

impl Standing {
    /// Returns when the claim was done, whatever it came to. Safe to drop while it waits.
    pub async fn filled(&mut self) {
        if self.filled.is_none() {
            let answer = (&mut self.answered).await;
            self.filled = Some(answer.unwrap_or_else(|_| Ok(<_>::default())));
        }
    }

    /// Takes the claim back. None when nobody has done it; when somebody is about to, that is waited for.
    ///
    /// # Errors
    /// As [`super::Store::claim`].
    pub async fn withdraw(mut self) -> Result<Option<Stood>, Error> {
        if self.take_down() {
            return Ok(None);
        }
        self.filled().await;
        let (sent, answer) = (self.sent.get().copied(), self.filled.take().transpose()?);
        Ok(sent.zip(answer).map(|(sent, (_, claims))| Stood { sent, claims }))
    }

    /// False when somebody else has taken it down.
    fn take_down(&self) -> bool {
        let mut waiting = self.board.lock();
        let place = waiting.iter().position(|other| Arc::ptr_eq(&other.sent, &self.sent));
        place.and_then(|place| waiting.remove(place)).is_some()
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.take_down();
    }
}
