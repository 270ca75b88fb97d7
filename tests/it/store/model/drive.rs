//! Does a command to the store and to the oracle, and compares.

mod compare;

use super::command::{Change, Command, End, KEYS, QUEUES, Sql, Which, Wish};
use super::oracle::{Answer, HOUR, LATER, Oracle, POISON_LIMIT, RETRY_PAUSE};
use super::{Bench, TTL, copy};
use crate::support::database::Database;
use freightliner::clock::UnixMillis;
use freightliner::job::{Class, Failure, Job, JobId, NewJob, Report, Stage, State};
use freightliner::store::{
    Claim, ClaimRequest, Confirmed, Edit, Error, JobFilter, Lease, Outcome, Retention, Selection, Work,
};
use std::sync::Arc;
use std::time::Duration;

/// An empty database; a copy of this one where that is quicker than migrating.
async fn like(template: &Bench) -> Bench {
    if !template.database.url().starts_with("sqlite:") {
        return Bench::new().await;
    }
    // In memory where that can be had: the commits of thousands of commands need not be on a disk.
    let database = match tempfile::tempdir_in("/dev/shm") {
        Ok(folder) => Database::Sqlite { folder },
        Err(_) => Database::sqlite(),
    };
    std::fs::copy(template.database.file(), database.file()).unwrap();
    Bench::on(database).await
}

pub struct Drive {
    bench: Bench,
    oracle: Oracle,
    /// Everything that was ever claimed; a settled one stays, as a worker that does not know it yet would hold it.
    claims: Vec<(Job, String)>,
    /// The ids of the database, in the order of the jobs; the model counts from 1, without gaps.
    ids: Vec<JobId>,
    /// Makes values that foreign SQL writes differ from all before.
    fresh: i64,
}

fn milliseconds(time: i64) -> Duration {
    Duration::from_millis(u64::try_from(time).unwrap())
}

fn job_of(wish: &Wish, run_at: Option<i64>) -> NewJob {
    let (source, destination) = Oracle::references(&Wish { target: wish.target % 3, ..wish.clone() });
    NewJob {
        queue: QUEUES[wish.queue].to_owned(),
        priority: wish.priority,
        run_at: run_at.map(UnixMillis),
        idempotency_key: wish.key.map(|key| KEYS[key].to_owned()),
        joins_equal: wish.joins,
        ..copy(source, destination)
    }
}

/// What the store answered, as the oracle says it.
fn answer<T>(result: Result<T, Error>, of: impl FnOnce(T) -> Answer) -> Answer {
    match result {
        Ok(value) => of(value),
        Err(Error::KeyConflict(_)) => Answer::KeyConflict,
        Err(Error::NotFound(_)) => Answer::NotFound,
        Err(Error::Invalid(_)) => Answer::Invalid,
        Err(error) => panic!("the store failed: {error}"),
    }
}

impl Drive {
    pub async fn new(template: &Bench) -> Self {
        let bench = like(template).await;
        bench.hand.advance(milliseconds(HOUR));
        let oracle = Oracle::new(bench.clock.now().0, bench.database.is_postgres());
        Self { bench, oracle, claims: Vec::new(), ids: Vec::new(), fresh: 1 }
    }

    /// The database's id of a job of the model; one that does not exist when there is none.
    fn id(&self, number: JobId) -> JobId {
        usize::try_from(number - 1).ok().and_then(|at| self.ids.get(at)).copied().unwrap_or(1_000_000)
    }

    /// The model's number of a job.
    fn number(&self, id: JobId) -> JobId {
        self.ids.iter().zip(1..).find(|(known, _)| **known == id).map_or(0, |(_, number)| number)
    }

    /// A new job: ids rise, and are never used again.
    fn came(&mut self, id: JobId) {
        assert!(self.ids.last().is_none_or(|last| *last < id), "job {id} comes after {:?}", self.ids);
        self.ids.push(id);
    }

    /// One command; the answers and all rows are compared.
    pub async fn step(&mut self, command: &Command) -> Result<Answer, String> {
        self.fresh += 1;
        // Numbers of jobs and claims mean what they mean before the command.
        let before = self.oracle.clone();
        let right = self.oracle.apply(command);
        let given = self.perform(command, &before).await;
        if !right.allows(&given) {
            return Err(format!("{command:?}: the model answers {right:?}, the store {given:?}"));
        }
        self.compare_rows().await.map_err(|why| format!("after {command:?}: {why}"))?;
        Ok(given)
    }

    async fn perform(&mut self, command: &Command, before: &Oracle) -> Answer {
        let store = &self.bench.store.clone();
        let stale = |number: usize| before.claim_at(number).map(|at| &self.claims[at]);
        let forged = |(job, dest_key): &(Job, String)| Claim { job: job.clone(), dest_key: dest_key.clone() };
        match command {
            Command::Enqueue(wishes) => {
                let later = Some(before.now + LATER);
                let jobs = wishes.iter().map(|wish| job_of(wish, later.filter(|_| wish.later))).collect();
                let enqueued = store.enqueue(jobs, "test").await;
                for enqueued in enqueued.iter().flatten().filter(|enqueued| enqueued.created) {
                    self.came(enqueued.id);
                }
                answer(enqueued, |jobs| {
                    Answer::Enqueued(jobs.iter().map(|job| (self.number(job.id), job.created)).collect())
                })
            }
            Command::Insert(wish) => self.insert(wish, before).await,
            Command::Due => answer(store.due().await, Answer::Count),
            Command::Intake => answer(store.intake().await, |intake| Answer::Intake {
                accepted: intake.accepted,
                rejected: intake.rejected.iter().map(|(id, _)| self.number(*id)).collect(),
            }),
            Command::Claim { intake, .. } => {
                let request = self.claim_request(command, before);
                let claims = if *intake {
                    store.intake_and_claim(request).await.map(|(_, claims)| claims)
                } else {
                    store.claim(request).await
                };
                let claims = claims.unwrap();
                self.claims.extend(claims.iter().map(|claim| (claim.job.clone(), claim.dest_key.clone())));
                let facts = |job: &Job| (self.number(job.id), job.lease_epoch, job.attempt, job.generation);
                Answer::Claims(claims.iter().map(|claim| facts(&claim.job)).collect())
            }
            Command::Renew { claim, moved } => match stale(*claim) {
                Some(claim) => {
                    let work = Work { progress: None, bytes_moved: *moved };
                    answer(store.renew(forged(claim).fence(), TTL, work).await, Answer::Held)
                }
                None => Answer::Nothing,
            },
            Command::Confirm { claim } => match stale(*claim) {
                Some(claim) => answer(store.confirm(&forged(claim), TTL, Work::default()).await, |confirmed| {
                    Answer::Confirmed(match confirmed {
                        Confirmed::Superseded { by } => Confirmed::Superseded { by: self.number(by) },
                        other => other,
                    })
                }),
                None => Answer::Nothing,
            },
            Command::Settle { claim, end, moved } => match stale(*claim) {
                Some(claim) => {
                    let work = Work { progress: None, bytes_moved: *moved };
                    let settled = store.settle(forged(claim), &self.outcome(*end), work, &[]).await;
                    answer(settled.map_err(|unsettled| unsettled.error), Answer::Settled)
                }
                None => Answer::Nothing,
            },
            Command::Reclaim { claim, behind } => match before.claim_at(*claim).map(|at| before.claims[at].0) {
                Some(fence) => {
                    let row = before.rows.get(&fence.job);
                    let beat = row.map_or(0, |row| row.beat) - i64::from(*behind);
                    let holder = row.and_then(|row| row.worker.clone()).unwrap_or_default();
                    let lease = Lease { job: self.id(fence.job), epoch: fence.epoch, beat, worker: holder };
                    answer(store.reclaim(lease, POISON_LIMIT, "it died".to_owned()).await, Answer::Reclaimed)
                }
                None => Answer::Nothing,
            },
            Command::Advance { hours } => {
                self.bench.hand.advance(Duration::from_secs(hours * 3600));
                Answer::Nothing
            }
            Command::Sql(job, sql) => self.sql(before.id(*job), *sql, before).await,
            operator => self.operate(operator, before).await,
        }
    }

    /// A row as anybody inserts it.
    async fn insert(&mut self, wish: &Wish, before: &Oracle) -> Answer {
        let (source, destination) = Oracle::references(wish);
        let (mut columns, mut values) = (String::new(), String::new());
        if wish.later {
            columns.push_str(", run_at");
            values.push_str(&format!(", {}", before.now + LATER));
        }
        if let Some(key) = wish.key {
            columns.push_str(", idempotency_key");
            values.push_str(&format!(", '{}'", KEYS[key]));
        }
        let (queue, priority) = (QUEUES[wish.queue], wish.priority);
        let insert = format!(
            "INSERT INTO jobs (source, destination, queue, priority{columns}) \
             VALUES ('{source}', '{destination}', '{queue}', {priority}{values}) ON CONFLICT DO NOTHING"
        );
        let inserted = self.bench.sql(&insert).await;
        if inserted == Ok(1) {
            self.came(self.bench.number("SELECT MAX(id) FROM jobs").await);
        }
        inserted.map_or(Answer::Invalid, Answer::Count)
    }

    async fn sql(&self, id: JobId, sql: Sql, before: &Oracle) -> Answer {
        let fresh = self.fresh;
        let set = match sql {
            Sql::Cancel => format!("cancel_requested_at = {fresh}"),
            Sql::RunAt(when) => format!("run_at = {}", before.time_by_sql(id, when)),
            Sql::Priority(priority) => format!("priority = {priority}"),
            Sql::Queue(queue) => format!("queue = '{}'", QUEUES[queue]),
            Sql::Pause => format!("paused_at = {fresh}"),
            Sql::Resume => "paused_at = NULL".to_owned(),
            // Who lets a job wait again takes back a cancel that was asked for.
            Sql::State(State::Pending) => format!(
                "state = 'pending', run_at = {}, worker = NULL, lease_until = NULL, cancel_requested_at = NULL",
                before.long_ago
            ),
            Sql::State(State::Scheduled) => {
                "state = 'scheduled', worker = NULL, lease_until = NULL, cancel_requested_at = NULL".to_owned()
            }
            Sql::State(state) => format!("state = '{state}', worker = NULL, lease_until = NULL"),
            Sql::Generation => "generation = generation + 1, attempt = 0".to_owned(),
            Sql::Worker => "worker = 'me'".to_owned(),
            Sql::Epoch => "lease_epoch = lease_epoch + 1".to_owned(),
        };
        let update = format!("UPDATE jobs SET {set} WHERE id = {}", self.id(id));
        self.bench.sql(&update).await.map_or(Answer::Invalid, Answer::Count)
    }

    fn outcome(&self, end: End) -> Outcome {
        let now = self.bench.clock.now();
        let failure = || Failure::new(Stage::Transfer, Class::RETRY, "the network is down".to_owned(), now);
        match end {
            End::Completed => Outcome::Completed(Report::default()),
            End::WillRetry => Outcome::Failed { failure: failure(), retry_in: Some(milliseconds(RETRY_PAUSE)) },
            End::GaveUp => Outcome::Failed { failure: failure(), retry_in: None },
            End::Cancelled => Outcome::Cancelled,
            End::Released => Outcome::Released { reason: "shutdown" },
        }
    }

    fn claim_request(&self, command: &Command, before: &Oracle) -> ClaimRequest {
        let Command::Claim { worker, room, queue, only, per_registry, .. } = command else {
            unreachable!("a claim is asked for")
        };
        let limits =
            per_registry.iter().flat_map(|limit| ["b.example", "c.example"].map(|name| (name.to_owned(), *limit)));
        ClaimRequest {
            worker: super::worker_id(*worker),
            room: *room,
            queue: queue.map(|queue| QUEUES[queue].to_owned()),
            only: only.map(|only| self.id(before.id(only))),
            lease_ttl: TTL,
            registry_limits: Arc::new(limits.collect()),
        }
    }

    fn selection(&self, which: &Which, before: &Oracle) -> Selection {
        match which {
            Which::Ids(numbers) => Selection::Ids(numbers.iter().map(|number| self.id(before.id(*number))).collect()),
            Which::In(state) => Selection::Filter(JobFilter { state: Some(*state), ..JobFilter::default() }),
            Which::Queue(queue) => {
                Selection::Filter(JobFilter { queue: Some(QUEUES[*queue].to_owned()), ..JobFilter::default() })
            }
        }
    }

    /// What operators do.
    async fn operate(&self, command: &Command, before: &Oracle) -> Answer {
        let store = &self.bench.store;
        let soon = UnixMillis(before.now + 2 * LATER);
        match command {
            Command::Cancel(which) => answer(store.cancel(&self.selection(which, before), "test").await, Answer::Count),
            Command::Retry(which) => answer(store.retry(&self.selection(which, before), "test").await, Answer::Count),
            Command::Pause(which) => answer(store.pause(&self.selection(which, before), "test").await, Answer::Count),
            Command::Resume(which) => answer(store.resume(&self.selection(which, before), "test").await, Answer::Count),
            Command::Edit(which, Change { priority, run_at, max_attempts, queue }) => {
                let edit = Edit {
                    priority: *priority,
                    run_at: run_at.map(|when| UnixMillis(before.when(when))),
                    max_attempts: *max_attempts,
                    queue: queue.map(|queue| QUEUES[queue].to_owned()),
                };
                answer(store.edit(&self.selection(which, before), &edit, "test").await, Answer::Count)
            }
            Command::Queue(queue, change) => {
                answer(store.queue_change(QUEUES[*queue], *change, "test").await, Answer::Changed)
            }
            Command::Prune { failed_too, keys_too } => {
                let retention = Retention {
                    completed_before: Some(soon),
                    cancelled_before: Some(soon),
                    failed_before: Some(soon).filter(|_| *failed_too),
                    keys_before: Some(soon).filter(|_| *keys_too),
                };
                answer(store.prune(retention, 1000, "test").await, Answer::Pruned)
            }
            Command::Invalidate => answer(store.invalidate("test").await, Answer::Restored),
            other => unreachable!("{other:?} is no operator's command"),
        }
    }
}
