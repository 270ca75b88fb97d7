//! The store: jobs, their history and their leases as rows. The only room that names sqlx.
//!
//! `enum Store` and not a trait: the set of databases is closed, and a reader can follow every call. One method is one
//! operation; its doc says what is true when it returns. Every write of a worker is fenced by `lease_epoch`: a statement that
//! names an old epoch touches nothing, and the caller is told that its lease is lost.
//!
//! It never waits for the network, never decides what a failure means, and never keeps a transaction open between calls.

mod api;
mod batch;
mod check;
mod choose;
mod copy;
mod crash;
mod error;
mod lease;
mod ledger;
mod look;
mod postgres;
mod rows;
mod sqlite;
mod standing;
mod statements;
mod url;
mod vault;

pub use batch::BatchTaken;
pub use error::Error;
pub use lease::{Claim, ClaimRequest, Confirmed, Fence, Held, Lease, Outcome, Settled, Unsettled, Work, WorkerRow};
pub use ledger::{BlobPlace, BlobSeen, UploadState, UploadTurn};
pub use look::{
    Copied, DatabaseInfo, DestinationMoved, Edit, Finding, Intake, JobEvent, JobFilter, LatePublication, Prunable,
    Pruned, Published, QueueChange, QueueRow, Remark, Restored, Retention, ScheduleChange, SchedulesDue, Selection,
    Stats, Table, Waiting, Why,
};
pub use standing::{Standing, Stood};
pub use url::{DatabaseUrl, PostgresUrl};
pub use vault::Sealed;

use crate::clock::{Clock, UnixMillis};
use crate::job::schedule::{Firing, Occurrence};
use crate::job::{Enqueued, Job, JobId, NewJob, NewSchedule, Schedule, ScheduleId, State, Transfer};
use std::time::Duration;
use uuid::Uuid;

/// Every statement of the store on a kind of database (`sqlite`, `postgres`): its name and its text. `sqlx-data.json`
/// describes each.
#[must_use]
pub fn statements() -> [(&'static str, Vec<(&'static str, &'static str)>); 2] {
    let sqlite = [
        statements::ALL,
        statements::api::ALL,
        statements::batch::ALL,
        statements::schedule::ALL,
        statements::vault::ALL,
    ];
    let postgres = [
        postgres::statements::ALL,
        postgres::statements::api::ALL,
        postgres::statements::batch::ALL,
        postgres::statements::vault::ALL,
    ];
    [("sqlite", sqlite.concat()), ("postgres", postgres.concat())]
}

/// An open database. Cheap to clone.
#[derive(Clone)]
pub enum Store {
    /// One file on this machine.
    Sqlite(sqlite::Sqlite),
    /// A server that several machines share.
    Postgres(postgres::Postgres),
}

/// One method an operation, the same on every database.
macro_rules! on {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            Self::Sqlite($store) => $call,
            Self::Postgres($store) => $call,
        }
    };
}
use on;

impl Store {
    /// Opens the database, creates it on first use, and brings its schema up to date.
    ///
    /// # Errors
    /// [`Error::Unusable`] when it belongs to a newer version or another program, is on a network file system, or cannot be
    /// opened.
    pub async fn open(url: &DatabaseUrl, clock: Clock) -> Result<Self, Error> {
        match url {
            DatabaseUrl::Sqlite(path) => Ok(Self::Sqlite(sqlite::Sqlite::open(path, clock).await?)),
            DatabaseUrl::Postgres(url) => Ok(Self::Postgres(postgres::Postgres::open(url, clock).await?)),
        }
    }

    /// Commits what was sent and closes the database, when this is the last clone.
    pub async fn close(self) {
        on!(self, store => store.close().await);
    }

    /// Nothing can be written any more: the program has to start again.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        on!(self, store => store.is_closed())
    }

    /// Inserts jobs, all or none. For each: the new row's id, or the id of the job that does it already (an equal one that
    /// waits, or the one that its idempotency key names) with `created: false`. An equal one takes the better priority and the
    /// earlier time, and counts as asked for now. Durable when it returns. A call that is refused fails alone.
    ///
    /// # Errors
    /// [`Error::KeyConflict`] when a key is known with other content; it names the fields. [`Error::Invalid`] when a key is
    /// longer than the database takes.
    pub async fn enqueue(&self, jobs: Vec<NewJob>, actor: &str) -> Result<Vec<Enqueued>, Error> {
        on!(self, store => store.enqueue(jobs, actor).await)
    }

    /// The number of the load of a list of jobs with this content hash: one more than the loads that were finished, so that
    /// an interrupted load goes on under its number and a finished one repeated is a new request.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn load_number(&self, content_hash: &str) -> Result<u64, Error> {
        on!(self, store => store.load_number(content_hash).await)
    }

    /// Marks a load as finished. Doing it twice is harmless.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn load_finished(&self, content_hash: &str, number: u64) -> Result<(), Error> {
        on!(self, store => store.load_finished(content_hash, number).await)
    }

    /// What there is to do now. Reads only.
    ///
    /// # Errors
    /// [`Error::Outdated`] when a newer version has migrated the database; [`Error::Backend`].
    pub async fn waiting(&self) -> Result<Waiting, Error> {
        on!(self, store => store.waiting().await)
    }

    /// Something is pending in a queue that is not paused, is running anywhere, or waits for a retry. Jobs that were asked
    /// for at a later time do not count.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn busy(&self, queue: Option<&str>) -> Result<bool, Error> {
        on!(self, store => store.busy(queue).await)
    }

    /// True once when jobs were enqueued since the last call, through this store or its clones, or elsewhere when this store
    /// was told of it: they can be claimed without a look at what there is to do. Always false on SQLite, where that look
    /// costs next to nothing.
    #[must_use]
    pub fn was_asked(&self) -> bool {
        match self {
            Self::Sqlite(_) => false,
            Self::Postgres(store) => store.was_asked(),
        }
    }

    /// The newest event's seq; 0 when there is none.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn last_event(&self) -> Result<i64, Error> {
        on!(self, store => store.last_event().await)
    }

    /// How many times a job failed for good after the event `seq`, whoever worked on it.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn failed_since(&self, seq: i64, queue: Option<&str>) -> Result<u64, Error> {
        on!(self, store => store.failed_since(seq, queue).await)
    }

    /// Makes scheduled jobs pending whose time has come, a bounded number. Returns how many.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn due(&self) -> Result<u64, Error> {
        on!(self, store => store.due().await)
    }

    /// Parses rows that were inserted by plain SQL, a bounded number: they can be claimed then, or have failed as rejected.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn intake(&self) -> Result<Intake, Error> {
        on!(self, store => store.intake().await)
    }

    /// Takes pending jobs, best first (the lowest priority, then the lowest id): each is running now, its attempt and epoch are
    /// one higher, its lease is this worker's. At most one a target, none whose target is being written, none from a paused
    /// queue, and never more than the limits of its queue and its registry leave, however many ask at once. Best first is
    /// promised within a bounded window of each queue and registry: many rows for busy targets may let others pass, never stop
    /// them.
    ///
    /// # Errors
    /// [`Error::Backend`]; then nothing was claimed. Do not drop this future: what it claimed would be lost until its lease
    /// runs out.
    pub async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claim>, Error> {
        on!(self, store => store.claim(request).await)
    }

    /// Leaves a claim behind for who has nothing to do. The next enqueue of a few jobs through this store or its clones does it
    /// in its own transaction: they start one commit sooner. It is done once at most, and never fails the enqueue. Jobs that
    /// come in any other way are not noticed: look for them as well.
    #[must_use]
    pub fn stand(&self, request: ClaimRequest) -> Standing {
        on!(self, store => store.stand(request))
    }

    /// As [`Store::intake`] and then [`Store::claim`], in one transaction where that is possible: a row that came by plain SQL
    /// starts one commit sooner.
    ///
    /// # Errors
    /// As [`Store::claim`].
    pub async fn intake_and_claim(&self, request: ClaimRequest) -> Result<(Intake, Vec<Claim>), Error> {
        on!(self, store => store.intake_and_claim(request).await)
    }

    /// The lease holds for `ttl` from now, the beat is one higher, and progress is written; or it is lost and nothing is.
    ///
    /// # Errors
    /// [`Error::Backend`]; then the lease may have been renewed or not.
    pub async fn renew(&self, fence: Fence, ttl: Duration, work: Work) -> Result<Held, Error> {
        on!(self, store => store.renew(fence, ttl, work).await)
    }

    /// As [`Store::renew`], and says whether the tag may be written: not when a newer job for the target is completed, or was
    /// until it was retried or removed, unless an operator asked for this one again.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn confirm(&self, claim: &Claim, ttl: Duration, work: Work) -> Result<Confirmed, Error> {
        on!(self, store => store.confirm(claim, ttl, work).await)
    }

    /// Writes take effect in the order in which they were polled first.
    #[must_use]
    pub const fn is_in_order(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }

    /// Ends the attempt: the one exit from `running` that a worker has. The job's state, its event and its transfers are
    /// written in one transaction, or the lease was lost and nothing is. A cancel that was asked for wins over a retry and a
    /// release.
    ///
    /// # Errors
    /// [`Unsettled`] gives the claim back, so that it can be tried again.
    pub async fn settle(
        &self,
        claim: Claim,
        outcome: &Outcome,
        work: Work,
        transfers: &[Transfer],
    ) -> Result<Settled, Unsettled> {
        let settled = on!(self, store => store.settle(&claim, outcome.clone(), work, transfers.to_vec()).await);
        settled.map_err(|error| Unsettled { claim, error })
    }

    /// Running jobs of this worker that somebody wants cancelled.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn cancel_asked(&self, worker: Uuid) -> Result<Vec<Fence>, Error> {
        on!(self, store => store.cancel_asked(worker).await)
    }

    /// Registers the path of a temporary file that is about to be created. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the path is registered already.
    pub async fn temp_register(&self, path: String, worker: Uuid, fence: Fence) -> Result<(), Error> {
        on!(self, store => store.temp_register(path, worker, fence).await)
    }

    /// Forgets temporary files that are gone.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn temp_forget(&self, paths: Vec<String>) -> Result<(), Error> {
        on!(self, store => store.temp_forget(paths).await)
    }

    /// Takes the turn at bringing a blob to a repository: the caller's when no other attempt that runs has it. What an attempt
    /// that is over had noted of it comes along.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn upload_take(&self, blob: BlobPlace, fence: Fence) -> Result<UploadTurn, Error> {
        on!(self, store => store.upload_take(blob, fence).await)
    }

    /// Notes how far an upload has come. False when the turn is not the caller's any more, and nothing
    /// was noted.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn upload_note(&self, blob: BlobPlace, fence: Fence, state: UploadState) -> Result<bool, Error> {
        on!(self, store => store.upload_note(blob, fence, state).await)
    }

    /// Ends the caller's turn and forgets what was noted. Another's turn is left alone.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn upload_end(&self, blob: BlobPlace, fence: Fence) -> Result<(), Error> {
        on!(self, store => store.upload_end(blob, fence).await)
    }

    /// Where blobs were seen when attempts ended: in this repository, and in one other of the registry.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn blobs_seen(
        &self,
        registry: &str,
        repository: &str,
        digests: &[String],
    ) -> Result<Vec<BlobSeen>, Error> {
        on!(self, store => store.blobs_seen(registry, repository, digests).await)
    }

    /// Forgets that blobs were seen in a repository.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn blobs_lost(&self, registry: &str, repository: &str, digests: &[String]) -> Result<(), Error> {
        on!(self, store => store.blobs_lost(registry, repository, digests).await)
    }

    /// The profile that a registry has shown itself to be of.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn registry_profile(&self, registry: &str) -> Result<Option<String>, Error> {
        on!(self, store => store.registry_profile(registry).await)
    }

    /// Remembers the profile that a registry has shown itself to be of.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn registry_shown(&self, registry: &str, profile: &str) -> Result<(), Error> {
        on!(self, store => store.registry_shown(registry, profile).await)
    }

    /// Forgets uploads that nobody went on with, and blobs that were first seen, before these times; at most `limit` of each.
    /// Returns how many.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn ledger_trim(
        &self,
        uploads_before: UnixMillis,
        blobs_before: UnixMillis,
        limit: u32,
    ) -> Result<u64, Error> {
        on!(self, store => store.ledger_trim(uploads_before, blobs_before, limit).await)
    }

    /// Writes a schedule down. None: there is one of this name.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn schedule_add(&self, schedule: NewSchedule, actor: &str) -> Result<Option<ScheduleId>, Error> {
        on!(self, store => store.schedule_add(schedule, actor).await)
    }

    /// The schedules, by name; with a name that one, if it is there.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn schedules(&self, name: Option<&str>) -> Result<Vec<Schedule>, Error> {
        on!(self, store => store.schedules(name).await)
    }

    /// Pauses, resumes or removes a schedule. False: it was so already. None: there is no schedule of this name.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn schedule_change(
        &self,
        name: &str,
        change: ScheduleChange,
        actor: &str,
    ) -> Result<Option<bool>, Error> {
        on!(self, store => store.schedule_change(name, change, actor).await)
    }

    /// Schedules whose time has come or that nobody has looked at yet, at most `limit`, earliest first.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn schedules_due(&self, limit: u32) -> Result<SchedulesDue, Error> {
        on!(self, store => store.schedules_due(limit).await)
    }

    /// Moves schedules on to their next times and makes the jobs of those that are due, in one transaction. A schedule that is not
    /// as it was seen is left alone, and a time that was dealt with stays so: however many fire, each time fires once. Returns
    /// the times that this call dealt with.
    ///
    /// # Errors
    /// [`Error::Backend`]; then nothing of it is done, unless the message says that this is not known.
    pub async fn schedules_fire(&self, firings: Vec<Firing>, actor: &str) -> Result<Vec<Occurrence>, Error> {
        on!(self, store => store.schedules_fire(firings, actor).await)
    }

    /// What became of the times of a schedule, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn schedule_occurrences(&self, schedule: ScheduleId, limit: u32) -> Result<Vec<Occurrence>, Error> {
        on!(self, store => store.schedule_occurrences(schedule, limit).await)
    }

    /// Jobs of a schedule that are not finished and older than `job`.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn schedule_older(&self, schedule: ScheduleId, job: JobId) -> Result<Vec<JobId>, Error> {
        on!(self, store => store.schedule_older(schedule, job).await)
    }

    /// Registered temporary files of a worker.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn temp_files_of(&self, worker: &str) -> Result<Vec<String>, Error> {
        on!(self, store => store.temp_files_of(worker).await)
    }

    /// Workers that have registered temporary files.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn temp_workers(&self) -> Result<Vec<String>, Error> {
        on!(self, store => store.temp_workers().await)
    }

    /// A job.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn job(&self, id: JobId) -> Result<Option<Job>, Error> {
        on!(self, store => store.job(id).await)
    }

    /// Jobs that match, newest first, with ids below `after`, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn jobs(&self, filter: &JobFilter, after: Option<JobId>, limit: u32) -> Result<Vec<Job>, Error> {
        on!(self, store => store.jobs(filter, after, limit).await)
    }

    /// The history of a job, oldest first; empty when there is no such job.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn events(&self, id: JobId) -> Result<Vec<JobEvent>, Error> {
        on!(self, store => store.events(id).await)
    }

    /// Nothing is claimed from this queue.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn queue_paused(&self, queue: &str) -> Result<bool, Error> {
        on!(self, store => store.queue_paused(queue).await)
    }

    /// Numbers of the whole queue.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn stats(&self) -> Result<Stats, Error> {
        on!(self, store => store.stats().await)
    }

    /// Waiting jobs are cancelled, running ones are asked to stop. Returns how many; finished ones do not count.
    ///
    /// # Errors
    /// [`Error::NotFound`] names an id that does not exist; nothing is changed then.
    pub async fn cancel(&self, which: &Selection, actor: &str) -> Result<u64, Error> {
        on!(self, store => store.cancel(which, actor).await)
    }

    /// Finished jobs are pending again, in a new generation; scheduled and paused ones need not wait. All count as asked for
    /// now. Returns how many; pending and running ones do not count.
    ///
    /// # Errors
    /// [`Error::NotFound`] names an id that does not exist; nothing is changed then.
    pub async fn retry(&self, which: &Selection, actor: &str) -> Result<u64, Error> {
        on!(self, store => store.retry(which, actor).await)
    }

    /// Queues that have a row or jobs that are not finished, by name.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn queues(&self) -> Result<Vec<QueueRow>, Error> {
        on!(self, store => store.queues().await)
    }

    /// Pauses, resumes or limits a queue, which need not have jobs yet. False when it was so already. The change is recorded
    /// with its actor.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the name or the limit cannot be; [`Error::Backend`].
    pub async fn queue_change(&self, queue: &str, change: QueueChange, actor: &str) -> Result<bool, Error> {
        on!(self, store => store.queue_change(queue, change, actor).await)
    }

    /// Changes waiting jobs, each change an event. Returns how many were changed: those that are so already do not count, nor
    /// do finished and running ones.
    ///
    /// # Errors
    /// [`Error::NotFound`] names an id that does not exist, [`Error::Invalid`] the value that cannot be; nothing is changed
    /// then.
    pub async fn edit(&self, which: &Selection, edit: &Edit, actor: &str) -> Result<u64, Error> {
        on!(self, store => store.edit(which, edit, actor).await)
    }

    /// Holds waiting jobs back until they are resumed, retried or cancelled. Returns how many; others do not count.
    ///
    /// # Errors
    /// [`Error::NotFound`] names an id that does not exist; nothing is changed then.
    pub async fn pause(&self, which: &Selection, actor: &str) -> Result<u64, Error> {
        on!(self, store => store.pause(which, actor).await)
    }

    /// Lets paused jobs go on: pending when their time has come, else scheduled for it. Returns how many.
    ///
    /// # Errors
    /// [`Error::NotFound`] names an id that does not exist; nothing is changed then.
    pub async fn resume(&self, which: &Selection, actor: &str) -> Result<u64, Error> {
        on!(self, store => store.resume(which, actor).await)
    }

    /// What decides whether a job runs; None when there is no such job.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn why(&self, id: JobId) -> Result<Option<Why>, Error> {
        on!(self, store => store.why(id).await)
    }

    /// Removes at most `limit` finished jobs with their history, old keys, and batches and times of schedules that have no job any
    /// more; what was removed of jobs, when and by whom stays on
    /// record. One short transaction. A job that somebody retries meanwhile stays, also when it is finished again.
    ///
    /// # Errors
    /// [`Error::Backend`]; then nothing was removed.
    pub async fn prune(&self, retention: Retention, limit: u32, actor: &str) -> Result<Pruned, Error> {
        on!(self, store => store.prune(retention, limit, actor).await)
    }

    /// Has the database forget what was changed or removed, when that was so much that it slows claims: PostgreSQL is told to
    /// vacuum its jobs, at most every 30 s over all hosts, and not behind a pooler, where its autovacuum has to do alone. Then
    /// true. SQLite keeps itself.
    ///
    /// # Errors
    /// [`Error::Backend`]; nothing is lost by that.
    pub async fn tend(&self) -> Result<bool, Error> {
        match self {
            Self::Sqlite(_) => Ok(false),
            Self::Postgres(store) => store.tend().await,
        }
    }

    /// What [`Store::prune`] would remove in all. Reads only.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn prunable(&self, retention: Retention) -> Result<Prunable, Error> {
        on!(self, store => store.prunable(retention).await)
    }

    /// Writes a remark into the history of a job. It changes nothing else, so it needs no fence.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn remark(&self, job: JobId, remark: Remark) -> Result<(), Error> {
        on!(self, store => store.remark(job, remark).await)
    }

    /// What the newest completed job for a target left there; None when there is none.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn published(&self, dest_key: &str) -> Result<Option<Published>, Error> {
        on!(self, store => store.published(dest_key).await)
    }

    /// The database is a file of this machine: all its workers are, or were, here.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        match self {
            Self::Sqlite(_) => true,
            Self::Postgres(_) => false,
        }
    }

    /// Writes a consistent copy of the database to a new file, while others work on it. All that was committed before is in it.
    /// On return it is whole and on the disk; before, and when it fails, nothing has that name.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the file exists, or when this kind of database has a tool of its own for that.
    /// [`Error::Backend`] when it cannot be written.
    pub async fn backup(&self, file: &std::path::Path) -> Result<(), Error> {
        on!(self, store => store.backup(file).await)
    }

    /// Makes a database safe that was restored from a backup: no worker of the lost time can write to it any more, because
    /// every epoch is raised far beyond what it may hold; what ran is scheduled again, or cancelled when that was asked; its
    /// workers and temporary files are forgotten.
    ///
    /// # Errors
    /// [`Error::Backend`]; then nothing was changed.
    pub async fn invalidate(&self, actor: &str) -> Result<Restored, Error> {
        on!(self, store => store.invalidate(actor).await)
    }

    /// Makes a worker known. Its lock must be held already.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn worker_start(&self, worker: WorkerRow) -> Result<(), Error> {
        on!(self, store => store.worker_start(worker).await)
    }

    /// A worker says that it lives. False when its row is gone: a sweeper took it for dead.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn worker_seen(&self, worker: Uuid) -> Result<bool, Error> {
        on!(self, store => store.worker_seen(worker).await)
    }

    /// Removes a worker's row, unless it still has running jobs. True when there was one.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn worker_gone(&self, worker: &str) -> Result<bool, Error> {
        on!(self, store => store.worker_gone(worker).await)
    }

    /// All workers, oldest first.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn workers(&self) -> Result<Vec<WorkerRow>, Error> {
        on!(self, store => store.workers().await)
    }

    /// The leases of all running jobs.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn leases(&self) -> Result<Vec<Lease>, Error> {
        on!(self, store => store.leases().await)
    }

    /// Takes a job from a worker that is dead or has lost its time: a compare-and-set on epoch and beat. The job is
    /// scheduled again, failed as poison when it crashed too often without progress, or cancelled when that was asked; its
    /// epoch is one higher. None when somebody was faster, the holder too.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn reclaim(&self, lease: Lease, poison_limit: i64, message: String) -> Result<Option<State>, Error> {
        on!(self, store => store.reclaim(lease, poison_limit, message).await)
    }

    /// Facts about the database.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn info(&self) -> Result<DatabaseInfo, Error> {
        on!(self, store => store.info().await)
    }

    /// Checks the database itself, and that rows and history agree: every job's events are [replayed](crate::job::replay) and
    /// compared with its row. Each job is seen at one moment, but not all of them at the same: what is written meanwhile may be
    /// seen or not, and no transaction is open for long. Empty when all is well. Read-only.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn check(&self) -> Result<Vec<Finding>, Error> {
        on!(self, store => store.check().await)
    }

    /// Runs one read-only statement of somebody's, at most `limit` rows and `deadline` long.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it may write, is wrong, or takes too long.
    pub async fn query(&self, sql: &str, limit: usize, deadline: Duration) -> Result<Table, Error> {
        on!(self, store => store.query(sql, limit, deadline).await)
    }

    /// Returns when any process committed something since this last returned, or after `at_most`; the first call returns at
    /// once. Each clone of a store keeps its own count: who has a clone misses nothing, however many others wait. Noticed
    /// within 50 ms, mostly within a few. Safe to drop while it waits.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn changed(&self, at_most: Duration) -> Result<(), Error> {
        on!(self, store => store.changed(at_most).await)
    }
}
