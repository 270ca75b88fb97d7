//! Keeping a lease: a future that is raced with the work in the same task, never spawned.
//!
//! Trust is counted on boot time from the moment *before* a renewal was sent: whatever the network, the database or the wall
//! clock did meanwhile, the lease cannot have run out earlier than ttl after that. When trust ends the work ends, without
//! asking anybody.

use super::Settings;
use crate::clock::{BootTime, Clock};
use crate::replicate::Attempt;
use crate::store::{Claim, Confirmed, Error, Fence, Held, Store, Work};
use std::sync::Mutex;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The first look at progress after the start. It doubles up to [`PROGRESS_LONGEST`]: a short job writes nothing, a job that
/// is killed early has its progress on record.
const PROGRESS_FIRST: Duration = Duration::from_millis(500);
/// The longest time between two looks at progress.
const PROGRESS_LONGEST: Duration = Duration::from_secs(2);
/// Pause after a renewal that the database could not take.
const ERROR_PAUSE: Duration = Duration::from_millis(250);

/// Why the lease is not kept any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Somebody else has the job: the database says so.
    Lost,
    /// The lease could not be renewed in time: nobody else may have the job yet, but somebody may at any moment.
    Untrusted,
    /// Somebody wants the job cancelled.
    CancelRequested,
}

/// A lease that is held: until when it may be trusted.
pub struct Lease<'a> {
    store: &'a Store,
    clock: &'a Clock,
    settings: &'a Settings,
    attempt: &'a Attempt,
    fence: Fence,
    trusted_from: Mutex<BootTime>,
}

impl<'a> Lease<'a> {
    /// A lease whose claim was sent at `claimed`.
    #[must_use]
    pub const fn new(
        store: &'a Store,
        clock: &'a Clock,
        settings: &'a Settings,
        attempt: &'a Attempt,
        fence: Fence,
        claimed: BootTime,
    ) -> Self {
        Self { store, clock, settings, attempt, fence, trusted_from: Mutex::new(claimed) }
    }

    /// How much longer the lease may be trusted.
    #[must_use]
    pub fn trust(&self) -> Duration {
        let from = *self.trusted_from.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let window = self.settings.lease_ttl.saturating_sub(self.settings.lease_margin);
        window.saturating_sub(self.clock.boot().since(from))
    }

    fn trust_from(&self, sent: BootTime) {
        *self.trusted_from.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = sent;
    }

    /// Renews until the lease ends. Safe to drop at any time: a renewal that was sent is harmless.
    pub async fn keep(&self, cancel: &CancellationToken) -> Ended {
        let mut pause = PROGRESS_FIRST;
        let mut renewed = *self.trusted_from.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut written = 0;
        let mut failing = false;
        loop {
            let until_renewal = self.settings.lease_renewal.saturating_sub(self.clock.boot().since(renewed));
            let sleep = pause.min(until_renewal).min(self.trust());
            tokio::select! {
                () = cancel.cancelled() => return Ended::CancelRequested,
                () = tokio::time::sleep(sleep) => {}
            }
            if self.trust().is_zero() {
                return Ended::Untrusted;
            }
            pause = (pause * 2).min(PROGRESS_LONGEST);
            let moved = self.attempt.progress.read().bytes_done;
            if moved == written && self.clock.boot().since(renewed) < self.settings.lease_renewal {
                continue;
            }
            let sent = self.clock.boot();
            let renewal = self.store.renew(self.fence, self.settings.lease_ttl, work(self.attempt));
            match tokio::time::timeout(self.trust(), renewal).await {
                Ok(Ok(Held::Yes)) => {
                    self.trust_from(sent);
                    renewed = sent;
                    written = moved;
                    failing = false;
                }
                Ok(Ok(Held::CancelRequested)) => return Ended::CancelRequested,
                Ok(Ok(Held::Lost)) => return Ended::Lost,
                Ok(Err(error)) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, trusted_ms = self.trust().as_millis(), "the lease could not be renewed, trying again");
                    }
                    tokio::time::sleep(ERROR_PAUSE.min(self.trust())).await;
                }
                // Trust ended while the database was asked.
                Err(_) => return Ended::Untrusted,
            }
        }
    }

    /// Renews just before the tag is written, and asks whether it may be.
    ///
    /// # Errors
    /// The store's, or that it did not answer while the lease could be trusted.
    pub async fn confirm(&self, claim: &Claim) -> Result<Confirmed, Error> {
        let sent = self.clock.boot();
        let confirmed = self.store.confirm(claim, self.settings.lease_ttl, work(self.attempt));
        match tokio::time::timeout(self.trust(), confirmed).await {
            Ok(Ok(confirmed)) => {
                if confirmed == Confirmed::Yes {
                    self.trust_from(sent);
                }
                Ok(confirmed)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(Confirmed::Lost),
        }
    }
}

/// What the attempt has done so far.
#[must_use]
pub fn work(attempt: &Attempt) -> Work {
    let progress = attempt.progress.read();
    Work { progress: (progress.blobs_total > 0).then_some(progress), bytes_moved: attempt.progress.bytes_moved() }
}
