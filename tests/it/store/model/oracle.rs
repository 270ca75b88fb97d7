//! The queue as it must behave, in memory: rows in a map, every operation a few lines. No SQL, no clock, no I/O.
//!
//! Every change of a state goes through `State::after`, so an edge that the state machine does not have is a panic here. What
//! the docs of the store promise and what the SQL contract promises is written down once more, as simply as it can be.

mod operators;
mod work;

use super::command::{Change, Command, QUEUES, SOURCES, TARGETS, When, Wish};
use freightliner::job::{Event, JobId, State};
use freightliner::store::{Confirmed, Fence, Held, Pruned, Restored, Settled};
use std::collections::BTreeMap;

pub const HOUR: i64 = 3_600_000;
/// `later` and edits to a time to come, from now on.
pub const LATER: i64 = 5 * HOUR;
/// The pause before another attempt.
pub const RETRY_PAUSE: i64 = 2 * HOUR;
/// The machine's clock wrote it: some time before now.
pub const MACHINE: i64 = 0;
pub const POISON_LIMIT: i64 = 2;
/// Added to every epoch by a restore.
const EPOCHS: i64 = 1_000_000;

/// A job.
#[derive(Debug, Clone)]
pub struct Row {
    pub source: usize,
    pub target: usize,
    pub state: State,
    pub generation: i64,
    pub attempt: i64,
    pub max_attempts: i64,
    pub crash_count: i64,
    pub epoch: i64,
    pub beat: i64,
    pub queue: String,
    pub priority: i64,
    pub worker: Option<String>,
    pub run_at: i64,
    pub paused: bool,
    pub cancel: bool,
    pub parsed: bool,
    pub key: Option<String>,
    pub moved: u64,
    pub failure: Option<&'static str>,
    pub report: bool,
    /// The turn in which it was asked for; None while it waits for a time that was asked for. A turn may do several jobs, in
    /// no order.
    pub asked: Option<u64>,
}

impl Row {
    pub fn registry(&self) -> &'static str {
        TARGETS[self.target].split('/').next().unwrap_or_default()
    }

    fn waits(&self) -> bool {
        matches!(self.state, State::Pending | State::Scheduled)
    }

    pub fn claimable(&self) -> bool {
        self.state == State::Pending && self.parsed
    }
}

/// What must stand in `job_events`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub job: JobId,
    pub generation: i64,
    pub from: Option<State>,
    pub to: State,
    pub epoch: i64,
    pub attempt: i64,
    pub worker: Option<String>,
    pub actor: String,
    pub reason: String,
}

#[derive(Debug, Clone, Default)]
pub struct Queue {
    pub paused: bool,
    pub limit: Option<u32>,
}

/// What a command is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Enqueued(Vec<(JobId, bool)>),
    KeyConflict,
    NotFound,
    Invalid,
    /// Jobs that were changed, or rows that SQL touched.
    Count(u64),
    Intake {
        accepted: u64,
        rejected: Vec<JobId>,
    },
    /// Id, epoch, attempt and generation of each claim.
    Claims(Vec<(JobId, i64, i64, i64)>),
    Held(Held),
    Confirmed(Confirmed),
    Settled(Settled),
    Changed(bool),
    Reclaimed(Option<State>),
    Pruned(Pruned),
    Restored(Restored),
    Nothing,
    /// The order of what one turn did to several jobs is not promised: each of these is right.
    OneOf(Vec<Answer>),
}

impl Answer {
    pub fn allows(&self, given: &Self) -> bool {
        match self {
            Self::OneOf(answers) => answers.contains(given),
            answer => answer == given,
        }
    }
}

/// An operator's or worker's change of a state: who and why.
type Why<'a> = (&'a str, &'a str);

#[derive(Debug, Clone)]
pub struct Oracle {
    pub now: i64,
    pub long_ago: i64,
    pub rows: BTreeMap<JobId, Row>,
    pub last_id: JobId,
    pub keys: BTreeMap<String, JobId>,
    pub queues: BTreeMap<String, Queue>,
    pub events: Vec<Entry>,
    /// Results that were taken back or removed: the target, the turn in which the copy was asked for, and the job. What they
    /// wrote stands.
    pub gone: Vec<(usize, u64, JobId)>,
    /// Fences that were ever handed out, with the generation that the claim saw.
    pub claims: Vec<(Fence, i64)>,
    /// The database is not local: answers can be lost, so it tells again how an attempt ended.
    pub remembers: bool,
    turn: u64,
}

impl Oracle {
    pub fn new(now: i64, remembers: bool) -> Self {
        Self {
            now,
            long_ago: now - 24 * HOUR,
            rows: BTreeMap::new(),
            last_id: 0,
            keys: BTreeMap::new(),
            queues: BTreeMap::new(),
            events: Vec::new(),
            gone: Vec::new(),
            claims: Vec::new(),
            remembers,
            turn: 0,
        }
    }

    /// The job that a number in a command stands for; one of them does not exist.
    pub fn id(&self, number: usize) -> JobId {
        let there: Vec<JobId> = self.ids(|_| true);
        there.get(number % (there.len() + 1)).copied().unwrap_or(self.last_id + 1)
    }

    /// The claim that a number in a command stands for, counted from the newest.
    pub fn claim_at(&self, number: usize) -> Option<usize> {
        let claims = self.claims.len();
        (claims > 0).then(|| claims - 1 - number % claims)
    }

    pub fn when(&self, when: When) -> i64 {
        match when {
            When::LongAgo => self.long_ago,
            When::Later => self.now + LATER,
        }
    }

    /// The time that somebody's SQL gives to a job. One that runs gets none to come: it could be pending before that time.
    pub fn time_by_sql(&self, id: JobId, when: When) -> i64 {
        let runs = self.rows.get(&id).is_some_and(|row| row.state == State::Running);
        self.when(if runs { When::LongAgo } else { when })
    }

    /// Does a command, and says what the store must answer.
    pub fn apply(&mut self, command: &Command) -> Answer {
        self.turn += 1;
        match command {
            Command::Enqueue(wishes) => self.enqueue(wishes),
            Command::Insert(wish) => self.insert_by_sql(wish),
            Command::Due => self.due(),
            Command::Intake => self.intake(),
            Command::Claim { worker, room, queue, only, per_registry, intake } => {
                if *intake {
                    self.intake();
                }
                let only = only.map(|only| self.id(only));
                self.claim(*worker, *room, queue.map(|queue| QUEUES[queue]), only, *per_registry)
            }
            Command::Renew { claim, moved } => {
                let Some(at) = self.claim_at(*claim) else { return Answer::Nothing };
                Answer::Held(self.renew(self.claims[at].0, *moved))
            }
            Command::Confirm { claim } => {
                let Some(at) = self.claim_at(*claim) else { return Answer::Nothing };
                let (fence, generation) = self.claims[at];
                self.confirm(fence, generation)
            }
            Command::Settle { claim, end, moved } => {
                let Some(at) = self.claim_at(*claim) else { return Answer::Nothing };
                let fence = self.claims[at].0;
                // The database of a server tells once more how this very attempt ended, for a worker to whom the first answer
                // was lost on its way. A file loses no answers.
                match self.ended(fence).filter(|_| self.remembers) {
                    Some(state) => Answer::Settled(Settled::Now(state)),
                    None => Answer::Settled(self.settle(fence, *end, *moved)),
                }
            }
            Command::Reclaim { claim, behind } => {
                let Some(at) = self.claim_at(*claim) else { return Answer::Nothing };
                Answer::Reclaimed(self.reclaim(self.claims[at].0, *behind))
            }
            Command::Cancel(which) => self.each(which, Self::cancel),
            Command::Retry(which) => self.each(which, Self::retry),
            Command::Pause(which) => self.each(which, Self::pause),
            Command::Resume(which) => self.each(which, Self::resume),
            Command::Edit(_, Change { priority: None, run_at: None, max_attempts: None, queue: None }) => {
                Answer::Invalid
            }
            Command::Edit(which, change) => self.each(which, |oracle, id| oracle.edit(id, change)),
            Command::Queue(queue, change) => Answer::Changed(self.queue_change(QUEUES[*queue], *change)),
            Command::Prune { failed_too, keys_too } => self.prune(*failed_too, *keys_too),
            Command::Invalidate => self.invalidate(),
            Command::Advance { hours } => {
                self.now += i64::try_from(*hours).unwrap() * HOUR;
                Answer::Nothing
            }
            Command::Sql(job, sql) => self.sql(self.id(*job), *sql),
        }
    }

    fn row(&mut self, id: JobId) -> &mut Row {
        self.rows.get_mut(&id).expect("the oracle asks for rows that are there")
    }

    /// Moves a job along an edge of the state machine, and writes the event.
    fn step(&mut self, id: JobId, event: Event, (actor, reason): Why<'_>) -> State {
        let row = self.row(id);
        let (from, attempt, holder) = (row.state, row.attempt, row.worker.clone());
        row.state = from.after(event).unwrap_or_else(|error| panic!("job {id}: {error}"));
        if from.is_finished() {
            row.generation += 1;
        }
        if row.state != State::Running {
            row.worker = None;
        }
        let to = row.state;
        let entry = Entry {
            job: id,
            generation: row.generation,
            from: Some(from),
            to,
            epoch: row.epoch,
            attempt: if from == State::Running { attempt } else { row.attempt },
            worker: row.worker.clone().or(holder),
            actor: actor.to_owned(),
            reason: reason.to_owned(),
        };
        self.events.push(entry);
        let turn = self.turn;
        let row = self.row(id);
        if to == State::Pending && (row.asked.is_none() || from.is_finished()) {
            row.asked = Some(turn);
        }
        to
    }

    /// A job may be about to leave `completed`, or to be removed.
    fn leaves(&mut self, id: JobId) {
        let row = &self.rows[&id];
        if let (State::Completed, Some(asked)) = (row.state, row.asked) {
            self.gone.push((row.target, asked, id));
        }
    }

    /// Writes the event of a change that leaves the state as it is.
    fn note(&mut self, id: JobId, (actor, reason): Why<'_>) {
        let row = self.row(id).clone();
        self.events.push(Entry {
            job: id,
            generation: row.generation,
            from: Some(row.state),
            to: row.state,
            epoch: row.epoch,
            attempt: row.attempt,
            worker: row.worker,
            actor: actor.to_owned(),
            reason: reason.to_owned(),
        });
    }

    /// A new time of a job: one to come makes a pending job wait for it, and who waits for a time has not been asked for yet.
    fn new_time(&mut self, id: JobId, run_at: i64, actor: &str) {
        let (now, turn) = (self.now, self.turn);
        self.row(id).run_at = run_at;
        if self.rows[&id].state == State::Pending && run_at > now {
            self.step(id, Event::Postpone, (actor, "postponed"));
        }
        let row = self.row(id);
        match row.state {
            State::Pending => row.asked = Some(turn),
            State::Scheduled => row.asked = None,
            _ => {}
        }
    }

    /// The source and destination of a wish, as they are typed.
    pub fn references(wish: &Wish) -> (&'static str, &'static str) {
        (SOURCES[wish.source], TARGETS[wish.target])
    }
}
