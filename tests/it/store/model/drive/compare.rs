//! Asks the store everything that can be asked, and compares with the oracle.

use super::super::oracle::{MACHINE, Row};
use super::super::{command, worker, worker_id};
use super::{Drive, QUEUES};
use freightliner::job::{Job, JobId, State};
use freightliner::store::{Fence, JobFilter, Lease, QueueRow};
use std::collections::BTreeMap;

fn same<T: PartialEq + std::fmt::Debug>(what: &str, model: &T, store: &T) -> Result<(), String> {
    if model == store {
        return Ok(());
    }
    Err(format!("{what}: the model says {model:?}, the store {store:?}"))
}

impl Drive {
    pub(super) async fn compare_rows(&self) -> Result<(), String> {
        let jobs = self.bench.store.jobs(&JobFilter::default(), None, 1000).await.unwrap();
        let ids: Vec<JobId> = jobs.iter().rev().map(|job| self.number(job.id)).collect();
        same("the jobs that there are", &self.oracle.ids(|_| true), &ids)?;
        for job in jobs {
            let row = &self.oracle.rows[&self.number(job.id)];
            same(&format!("job {}", self.number(job.id)), &of_model(row), &of_store(&job, row))?;
        }
        Ok(())
    }

    /// Everything that can be asked, once all commands are done.
    pub async fn end(self) -> Result<(), String> {
        self.compare_histories().await?;
        self.compare_leases().await?;
        self.compare_waiting().await?;
        self.compare_queues().await?;
        self.compare_reasons().await?;
        let findings = self.bench.store.check().await.unwrap();
        if !findings.is_empty() {
            return Err(format!("histories, replayed, do not give the rows: {findings:?}"));
        }
        self.bench.store.close().await;
        Ok(())
    }

    async fn compare_histories(&self) -> Result<(), String> {
        let events = |id: JobId| self.oracle.events.iter().filter(move |event| event.job == id);
        for id in self.oracle.ids(|_| true) {
            let model: Vec<_> = events(id)
                .map(|event| {
                    let from = event.from.map(|state| state.to_string());
                    let (worker, actor) = (event.worker.clone(), event.actor.clone());
                    let words = (from, event.to.to_string(), worker, actor, Some(event.reason.clone()));
                    (words, event.epoch, event.attempt)
                })
                .collect();
            let store = self.bench.store.events(self.id(id)).await.unwrap().into_iter().map(|event| {
                let words = (event.from_state, event.to_state, event.worker, event.actor, event.reason);
                (words, event.lease_epoch, event.attempt)
            });
            same(&format!("the history of job {id}"), &model, &store.collect())?;
        }
        Ok(())
    }

    async fn compare_leases(&self) -> Result<(), String> {
        let running = self.oracle.rows.iter().filter(|(_, row)| row.state == State::Running);
        let model: Vec<Lease> = running
            .clone()
            .map(|(id, row)| Lease {
                job: self.id(*id),
                epoch: row.epoch,
                beat: row.beat,
                worker: row.worker.clone().unwrap_or_default(),
            })
            .collect();
        same("leases", &model, &self.bench.store.leases().await.unwrap())?;
        for number in 0..2 {
            let asked = running.clone().filter(|(_, row)| row.cancel && row.worker == Some(worker(number)));
            let model: Vec<Fence> = asked.map(|(id, row)| Fence { job: self.id(*id), epoch: row.epoch }).collect();
            let mut store = self.bench.store.cancel_asked(worker_id(number)).await.unwrap();
            store.sort_by_key(|fence| fence.job);
            same("cancels that were asked for", &model, &store)?;
        }
        Ok(())
    }

    async fn compare_waiting(&self) -> Result<(), String> {
        let rows = || self.oracle.rows.values();
        let scheduled = || rows().filter(|row| row.state == State::Scheduled && !row.paused);
        let waiting = self.bench.store.waiting().await.unwrap();
        same("due", &scheduled().any(|row| row.run_at <= self.oracle.now), &waiting.due)?;
        same("intake", &rows().any(|row| row.state == State::Pending && !row.parsed), &waiting.intake)?;
        same("pending", &rows().any(Row::claimable), &waiting.pending)?;
        // A time of the machine's clock is not known to the model; a scheduled job has one only by plain SQL.
        if scheduled().all(|row| row.run_at != MACHINE) {
            let next = scheduled().map(|row| row.run_at).min();
            same("the next time", &next, &waiting.next_run_at.map(|time| time.0))?;
        }
        for queue in [None, Some(QUEUES[0]), Some(QUEUES[1])] {
            let busy = rows().filter(|row| queue.is_none_or(|queue| queue == row.queue)).any(|row| match row.state {
                State::Pending => !self.paused(&row.queue),
                State::Running => true,
                State::Scheduled => row.asked.is_some() && !row.paused,
                _ => false,
            });
            same(&format!("busy {queue:?}"), &busy, &self.bench.store.busy(queue).await.unwrap())?;
        }
        let stats = self.bench.store.stats().await.unwrap();
        let counts = [stats.scheduled, stats.pending, stats.running, stats.completed, stats.failed, stats.cancelled];
        same("counts by state", &State::ALL.map(|state| self.count(|row| row.state == state)), &counts)
    }

    fn count(&self, of: impl Fn(&Row) -> bool) -> u64 {
        self.oracle.ids(of).len() as u64
    }

    fn paused(&self, queue: &str) -> bool {
        self.oracle.queues.get(queue).is_some_and(|queue| queue.paused)
    }

    async fn compare_queues(&self) -> Result<(), String> {
        let mut names: Vec<&str> = self.oracle.queues.keys().map(String::as_str).collect();
        names.extend(self.oracle.rows.values().filter(|row| !row.state.is_finished()).map(|row| row.queue.as_str()));
        let facts = |name: &str| {
            let count = |state| self.count(|row| row.queue == name && row.state == state);
            let queue = self.oracle.queues.get(name).cloned().unwrap_or_default();
            (queue.paused, queue.limit, count(State::Scheduled), count(State::Pending), count(State::Running))
        };
        let model: BTreeMap<String, _> = names.into_iter().map(|name| (name.to_owned(), facts(name))).collect();
        let facts = |queue: &QueueRow| {
            (queue.paused_at.is_some(), queue.max_running, queue.scheduled, queue.pending, queue.running)
        };
        let store = self.bench.store.queues().await.unwrap();
        same("queues", &model, &store.iter().map(|queue| (queue.name.clone(), facts(queue))).collect())
    }

    /// `jobs why`, of every job.
    async fn compare_reasons(&self) -> Result<(), String> {
        for (id, row) in &self.oracle.rows {
            let why = self.bench.store.why(self.id(*id)).await.unwrap().expect("the job is there");
            let queue = self.oracle.queues.get(&row.queue).cloned().unwrap_or_default();
            let ahead = |other: &JobId| {
                let rival = &self.oracle.rows[other];
                rival.queue == row.queue && (rival.priority, other) < (row.priority, id)
            };
            let same_target = self
                .oracle
                .ids(|other| row.parsed && other.state == State::Running && other.target == row.target)
                .into_iter()
                .find(|other| other != id);
            let running = |of: &dyn Fn(&Row) -> bool| self.oracle.running(of) as u64;
            let model = (
                (row.paused, row.parsed, queue.paused, queue.limit),
                running(&|other| other.queue == row.queue),
                if row.parsed { running(&|other| other.registry() == row.registry()) } else { 0 },
                same_target,
                self.oracle.ids(|other| other.state == State::Pending).iter().filter(|other| ahead(other)).count()
                    as u64,
            );
            let store = (
                (why.paused_at.is_some(), why.parsed, why.queue_paused_at.is_some(), why.queue_max_running),
                why.queue_running,
                why.registry_running,
                why.same_destination.map(|id| self.number(id)),
                why.ahead,
            );
            same(&format!("why job {id} does not run"), &model, &store)?;
        }
        Ok(())
    }
}

/// What is compared of a row: numbers and flags; texts; the time, unless the machine's clock wrote it.
type Shape = ([i64; 8], [Option<String>; 5], [bool; 3], Option<i64>);

fn of_model(row: &Row) -> Shape {
    (
        [
            row.generation,
            row.attempt,
            row.max_attempts,
            row.crash_count,
            row.epoch,
            row.priority,
            row.source as i64,
            row.target as i64,
        ],
        [
            Some(row.state.to_string()),
            Some(row.queue.clone()),
            row.worker.clone(),
            row.key.clone(),
            row.failure.map(str::to_owned),
        ],
        [row.cancel, row.report, row.state.is_finished()],
        Some(row.run_at).filter(|time| *time != MACHINE),
    )
}

fn of_store(job: &Job, row: &Row) -> Shape {
    let place = |list: &[&str], text: &str| list.iter().position(|one| *one == text).map_or(-1, |at| at as i64);
    (
        [
            job.generation,
            job.attempt,
            job.max_attempts,
            job.crash_count,
            job.lease_epoch,
            job.priority,
            place(&command::SOURCES, &job.source),
            place(&command::TARGETS, &job.destination),
        ],
        [
            Some(job.state.to_string()),
            Some(job.queue.clone()),
            job.worker.clone(),
            job.idempotency_key.clone(),
            job.failure.as_ref().map(|failure| failure.class.clone()),
        ],
        [job.cancel_requested_at.is_some(), job.report.is_some(), job.finished_at.is_some()],
        Some(job.run_at.0).filter(|_| row.run_at != MACHINE),
    )
}
