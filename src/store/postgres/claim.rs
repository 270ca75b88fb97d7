//! Claims: those of the same kind go together, best job to the first who asked.
//!
//! When the answer to a claim is lost, its jobs may run under our name without anybody here who works on them. So for the
//! time of a lease after that, each claim first looks for running jobs of its workers that this process was never told of,
//! and hands those out. What nobody finds that way comes back when its lease has run out, as after a crash.
//!
//! A row that somebody else has locked is passed over. One thing is waited for: a transaction of somebody's that has made a job
//! `running` by hand and is still open, when the best job that waits goes to the same target. The unique index of running
//! targets cannot tell whether there will be room. Such a claim fails after `LOCK_LIMIT` (three seconds), its worker looks after
//! everything else and tries again; until that transaction ends, nothing that goes behind that job is claimed with it.

use super::connect::{Again, Connections, Statement};
use super::lane::Lane;
use super::listen::Skipped;
use super::queue::bind_parsed;
use super::{NEWEST_SCHEMA, Postgres, millis, statements as sql, test_time};
use crate::clock::{BootTime, Clock};
use crate::job::{JobId, Parsed};
use crate::store::rows::{self, Columns};
use crate::store::standing::Board;
use crate::store::{Claim, ClaimRequest, Error, Fence, Intake, Standing};
use sqlx::postgres::PgRow;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;

/// Jobs that one statement takes at most: bounds how long other hosts wait for their turn.
const MOST: usize = 256;

pub(super) type Claims = Lane<Ask, Vec<Claim>>;

/// A request, and rows of plain SQL that can be claimed once they are taken in.
pub(super) struct Ask {
    request: ClaimRequest,
    parsed: Vec<(JobId, Parsed)>,
}

/// Running jobs that this process knows to be its own.
#[derive(Clone, Default)]
pub(super) struct Known(Arc<Mutex<HashSet<Fence>>>);

impl Known {
    fn set(&self) -> std::sync::MutexGuard<'_, HashSet<Fence>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The attempt is over, or somebody else's.
    pub(super) fn forget(&self, fence: Fence) {
        self.set().remove(&fence);
    }
}

/// Starts the lane.
pub(super) fn claims(claimer: Arc<Claimer>) -> Claims {
    Lane::start(Box::new(move |requests| {
        let claimer = claimer.clone();
        Box::pin(async move { claimer.run(requests).await })
    }))
}

impl Postgres {
    pub(in crate::store) async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claim>, Error> {
        self.inner.claims.ask(Ask { request, parsed: Vec::new() }).await
    }

    pub(in crate::store) fn stand(&self, request: ClaimRequest) -> Standing {
        self.inner.claimer.board.stand(request)
    }

    pub(in crate::store) async fn intake_and_claim(
        &self,
        request: ClaimRequest,
    ) -> Result<(Intake, Vec<Claim>), Error> {
        let unparsed = self.unparsed().await?;
        if unparsed.good.is_empty() || !unparsed.bad.is_empty() || request.room == 0 {
            return Ok((self.take_in(unparsed).await?, self.claim(request).await?));
        }
        let accepted = u64::try_from(unparsed.good.len()).unwrap_or(u64::MAX);
        let parsed = unparsed.good.clone();
        match self.inner.claims.ask(Ask { request: request.clone(), parsed }).await {
            Ok(claims) => Ok((Intake { accepted, ..Intake::default() }, claims)),
            // One that the database does not take: intake finds out which.
            Err(Error::Invalid(_)) => Ok((self.take_in(unparsed).await?, self.claim(request).await?)),
            Err(error) => Err(error),
        }
    }
}

/// What must be equal for claims to go together.
type Kind = (Option<String>, Option<JobId>, Arc<BTreeMap<String, u32>>);

pub(super) struct Claimer {
    control: Arc<Connections>,
    board: Arc<Board>,
    known: Known,
    clock: Clock,
    skipped: Skipped,
    /// Since when, and how long, running jobs may be ours without our knowledge.
    doubt: Mutex<Option<(BootTime, Duration)>>,
}

/// A claim that is done by the statement of an enqueue. When it is dropped nothing was claimed.
pub(super) struct Behind {
    request: ClaimRequest,
    answer: oneshot::Sender<Result<(Intake, Vec<Claim>), Error>>,
}

/// What an enqueue needs of claims.
impl Claimer {
    pub(super) fn new(control: Arc<Connections>, known: Known, clock: Clock, skipped: Skipped) -> Self {
        Self { control, board: Arc::default(), known, clock, skipped, doubt: Mutex::default() }
    }

    /// The claim of somebody who waits for an enqueue.
    pub(super) fn behind(&self) -> Option<Behind> {
        let (request, answer) = self.board.take(self.clock.boot())?;
        Some(Behind { request, answer })
    }

    /// Gives a statement its last six parameters.
    pub(super) fn bind_behind(behind: &Behind, statement: Statement) -> Statement {
        let request = &behind.request;
        let room = request.room.min(MOST);
        let limits = &request.registry_limits;
        statement
            .bind(vec![request.worker.to_string(); room])
            .bind(vec![millis(request.lease_ttl); room])
            .bind(request.queue.clone())
            .bind(limits.keys().cloned().collect::<Vec<String>>())
            .bind(limits.values().map(|limit| i64::from(*limit)).collect::<Vec<_>>())
            .bind(NEWEST_SCHEMA)
    }

    /// Hands out what was claimed.
    pub(super) fn hand_out(&self, behind: Behind, rows: Vec<PgRow>) {
        let Behind { request, answer } = behind;
        let mut hands = [Hand::new(&request)];
        let dealt = self.deal(rows, &mut hands);
        let [hand] = hands;
        // A worker that has gone does not want to know.
        drop(answer.send(dealt.map(|()| (Intake::default(), hand.claims))));
    }

    /// It is not known whether the statement was done.
    pub(super) fn doubt(&self, longest: Duration) {
        *self.doubt.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some((self.clock.boot(), longest));
    }
}

impl Behind {
    pub(super) const fn lease_ttl(&self) -> Duration {
        self.request.lease_ttl
    }
}

impl Claimer {
    async fn run(&self, asks: Vec<Ask>) -> Vec<Result<Vec<Claim>, Error>> {
        let mut kinds: BTreeMap<Kind, Vec<usize>> = BTreeMap::new();
        for (place, Ask { request, .. }) in asks.iter().enumerate() {
            let kind = (request.queue.clone(), request.only, request.registry_limits.clone());
            kinds.entry(kind).or_default().push(place);
        }
        let mut answers: Vec<Result<Vec<Claim>, Error>> = asks.iter().map(|_| Ok(Vec::new())).collect();
        for places in kinds.into_values() {
            let mut hands: Vec<Hand<'_>> = places.iter().map(|place| Hand::new(&asks[*place].request)).collect();
            // Two that looked at the same time found the same rows.
            let parsed = places.iter().flat_map(|place| &asks[*place].parsed).map(|(id, parsed)| (*id, parsed));
            let parsed = parsed.collect::<BTreeMap<_, _>>().into_iter().map(|(id, parsed)| (id, parsed.clone()));
            let claimed = self.claim(&mut hands, parsed.collect()).await;
            let full = hands.into_iter().map(|hand| hand.claims);
            for (place, claims) in places.into_iter().zip(full) {
                answers[place] = match &claimed {
                    Err(error) if claims.is_empty() => Err(error.clone()),
                    // What was found must be handed out, whatever came after.
                    _ => Ok(claims),
                };
            }
        }
        answers
    }

    /// Fills the hands, all of one kind, after it took in what was parsed.
    async fn claim(&self, hands: &mut [Hand<'_>], mut parsed: Vec<(JobId, Parsed)>) -> Result<(), Error> {
        if self.is_in_doubt() {
            let rows = self.control.rows(Again::Harmless, &self.adopt(hands)).await?;
            self.deal(rows, hands)?;
        }
        // In portions: other hosts have their turns between them.
        while let Some((room, statement)) = self.statement(hands, &std::mem::take(&mut parsed)) {
            let mut rows = match self.control.rows(Again::NeverNorLocked, &statement).await {
                Ok(rows) => rows,
                Err(failed) => {
                    if failed.unknown {
                        let longest = hands.iter().map(|hand| hand.request.lease_ttl).max().unwrap_or_default();
                        self.doubt(longest);
                    }
                    return Err(failed.error);
                }
            };
            let found = rows.len();
            rows.retain(|row| !matches!(row.int_option("id"), Ok(None)));
            self.skipped.set(rows.len() < found);
            let all = rows.len() < room;
            self.deal(rows, hands)?;
            if all {
                break;
            }
        }
        Ok(())
    }

    fn is_in_doubt(&self) -> bool {
        let mut doubt = self.doubt.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if doubt.is_some_and(|(since, long)| self.clock.boot().since(since) > long) {
            *doubt = None;
        }
        doubt.is_some()
    }

    fn adopt(&self, hands: &[Hand<'_>]) -> Statement {
        let workers: Vec<String> = hands.iter().map(|hand| hand.request.worker.to_string()).collect();
        let (ids, epochs): (Vec<i64>, Vec<i64>) = self.known.set().iter().map(|fence| (fence.job, fence.epoch)).unzip();
        let room: usize = hands.iter().map(Hand::room).sum();
        let shortest = hands.iter().map(|hand| hand.request.lease_ttl).min().unwrap_or_default();
        Statement::new(sql::ADOPT)
            .bind(workers)
            .bind(ids)
            .bind(epochs)
            .bind(i64::try_from(room.min(MOST)).unwrap_or(i64::MAX))
            .bind(millis(shortest))
            .bind(test_time(&self.clock))
    }

    /// With the number of jobs that it takes at most. None when all hands are full.
    fn statement(&self, hands: &[Hand<'_>], parsed: &[(JobId, Parsed)]) -> Option<(usize, Statement)> {
        let (mut workers, mut ttls) = (Vec::new(), Vec::new());
        for hand in hands {
            let worker = hand.request.worker.to_string();
            let room = hand.room().min(MOST - workers.len());
            workers.extend(std::iter::repeat_n(worker, room));
            ttls.extend(std::iter::repeat_n(millis(hand.request.lease_ttl), room));
        }
        let request = hands.first().filter(|_| !workers.is_empty())?.request;
        let limits = &request.registry_limits;
        let room = workers.len();
        let claim = if parsed.is_empty() {
            Statement::new(sql::CLAIM)
        } else {
            bind_parsed(Statement::new(sql::CLAIM_PARSED), parsed)
        };
        Some((
            room,
            claim
                .bind(workers)
                .bind(ttls)
                .bind(request.queue.clone())
                .bind(request.only)
                .bind(limits.keys().cloned().collect::<Vec<String>>())
                .bind(limits.values().map(|limit| i64::from(*limit)).collect::<Vec<_>>())
                .bind(test_time(&self.clock))
                .bind(NEWEST_SCHEMA),
        ))
    }

    /// Gives the rows, best first, to the first hand of their worker that has room.
    fn deal(&self, rows: Vec<PgRow>, hands: &mut [Hand<'_>]) -> Result<(), Error> {
        let mut claims = rows
            .iter()
            .map(|row| Ok(Claim { job: rows::job(row)?, dest_key: row.text("dest_key")? }))
            .collect::<Result<Vec<_>, Error>>()?;
        claims.sort_by_key(|claim| (claim.job.priority, claim.job.id));
        for claim in claims {
            let worker = claim.job.worker.clone().unwrap_or_default();
            let hand = hands.iter_mut().find(|hand| hand.room() > 0 && hand.request.worker.to_string() == worker);
            // One that was found running and fits nowhere now is found again by the next claim.
            if let Some(hand) = hand {
                self.known.set().insert(claim.fence());
                hand.claims.push(claim);
            }
        }
        Ok(())
    }
}

/// A request, and what it has got.
struct Hand<'a> {
    request: &'a ClaimRequest,
    claims: Vec<Claim>,
}

impl<'a> Hand<'a> {
    const fn new(request: &'a ClaimRequest) -> Self {
        Self { request, claims: Vec::new() }
    }

    fn room(&self) -> usize {
        self.request.room.saturating_sub(self.claims.len())
    }
}
