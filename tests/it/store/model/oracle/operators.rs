//! What operators do, and anybody by plain SQL.

use super::super::command::{Change, QUEUES, Sql, When, Which};
use super::{Answer, EPOCHS, MACHINE, Oracle, Row};
use freightliner::job::{Event, JobId, State};
use freightliner::store::{Pruned, QueueChange, Restored};
use std::collections::BTreeSet;

impl Oracle {
    /// An operator's change of several jobs; how many it changed.
    pub(super) fn each(&mut self, which: &Which, change: impl Fn(&mut Self, JobId) -> bool) -> Answer {
        let ids = match which {
            Which::Ids(numbers) => {
                let ids: BTreeSet<JobId> = numbers.iter().map(|number| self.id(*number)).collect();
                if ids.iter().any(|id| !self.rows.contains_key(id)) {
                    return Answer::NotFound;
                }
                ids.into_iter().collect()
            }
            Which::In(state) => self.ids(|row| row.state == *state),
            Which::Queue(queue) => self.ids(|row| row.queue == QUEUES[*queue]),
        };
        Answer::Count(ids.into_iter().map(|id| u64::from(change(self, id))).sum())
    }

    pub(super) fn cancel(&mut self, id: JobId) -> bool {
        let row = self.row(id);
        let asked_already = row.cancel;
        match row.state {
            State::Running if !asked_already => {
                row.cancel = true;
                self.note(id, ("test", "cancel requested"));
                true
            }
            State::Pending | State::Scheduled => {
                (row.cancel, row.paused) = (true, false);
                self.step(id, Event::Cancel, ("test", "cancelled"));
                true
            }
            _ => false,
        }
    }

    pub(super) fn retry(&mut self, id: JobId) -> bool {
        let (now, turn) = (self.now, self.turn);
        let row = self.row(id);
        if matches!(row.state, State::Pending | State::Running) {
            return false;
        }
        row.run_at = now;
        self.leaves(id);
        let row = self.row(id);
        // Somebody wants it now, whatever was asked for since.
        row.asked = Some(turn);
        (row.attempt, row.crash_count, row.moved, row.paused) = (0, 0, 0, false);
        (row.failure, row.report, row.cancel) = (None, false, false);
        self.step(id, Event::OperatorRetry, ("test", "operator retry"));
        true
    }

    pub(super) fn pause(&mut self, id: JobId) -> bool {
        let row = self.row(id);
        if !row.waits() || row.paused {
            return false;
        }
        row.paused = true;
        if row.state == State::Pending {
            self.step(id, Event::Postpone, ("test", "paused"));
        } else {
            self.note(id, ("test", "paused"));
        }
        true
    }

    pub(super) fn resume(&mut self, id: JobId) -> bool {
        let now = self.now;
        let row = self.row(id);
        if row.state != State::Scheduled || !row.paused {
            return false;
        }
        row.paused = false;
        if row.run_at <= now {
            self.step(id, Event::Due, ("test", "resumed"));
        } else {
            self.note(id, ("test", "resumed"));
        }
        true
    }

    /// Those that wait count, unless nothing is new for them.
    pub(super) fn edit(&mut self, id: JobId, change: &Change) -> bool {
        let run_at = change.run_at.map(|when| self.when(when));
        let row = self.row(id);
        if !row.waits() {
            return false;
        }
        let old = (row.priority, row.max_attempts, row.queue.clone(), row.run_at);
        row.priority = change.priority.unwrap_or(row.priority);
        row.max_attempts = change.max_attempts.unwrap_or(row.max_attempts);
        row.queue = change.queue.map_or_else(|| row.queue.clone(), |queue| QUEUES[queue].to_owned());
        let run_at = run_at.unwrap_or(row.run_at);
        let changed = (row.priority, row.max_attempts, row.queue.clone(), run_at) != old;
        if changed {
            self.note(id, ("test", "changed"));
        }
        if run_at != old.3 {
            self.new_time(id, run_at, "test");
        }
        changed
    }

    pub(super) fn queue_change(&mut self, name: &str, change: QueueChange) -> bool {
        let known = self.queues.contains_key(name);
        let queue = self.queues.entry(name.to_owned()).or_default();
        let changes = match change {
            QueueChange::Pause => !std::mem::replace(&mut queue.paused, true),
            QueueChange::Resume => std::mem::replace(&mut queue.paused, false),
            QueueChange::Limit(limit) => std::mem::replace(&mut queue.limit, limit) != limit,
        };
        if !changes && !known {
            self.queues.remove(name);
        }
        changes
    }

    pub(super) fn prune(&mut self, failed_too: bool, keys_too: bool) -> Answer {
        let old = |row: &Row| row.state.is_finished() && (failed_too || row.state != State::Failed);
        let gone = self.ids(old);
        gone.iter().for_each(|id| self.leaves(*id));
        self.rows.retain(|id, _| !gone.contains(id));
        self.events.retain(|event| !gone.contains(&event.job));
        let keys = self.keys.len();
        if keys_too {
            let rows = &self.rows;
            self.keys.retain(|_, id| rows.contains_key(id));
        }
        let keys = (keys - self.keys.len()) as u64;
        Answer::Pruned(Pruned { jobs: gone.len() as u64, keys, more: false })
    }

    pub(super) fn invalidate(&mut self) -> Answer {
        let now = self.now;
        let running = self.ids(|row| row.state == State::Running);
        for id in &running {
            let row = self.row(*id);
            (row.epoch, row.run_at) = (row.epoch + 1, now);
            let event = if row.cancel { Event::Cancel } else { Event::LeaseExpired };
            self.step(*id, event, ("test", "restored from a backup"));
            self.row(*id).attempt -= 1;
        }
        for id in self.ids(|_| true) {
            self.row(id).epoch += EPOCHS;
            self.note(id, ("test", "restored"));
        }
        let jobs = self.rows.len() as u64;
        Answer::Restored(Restored { jobs, requeued: running.len() as u64, ..Restored::default() })
    }

    /// Somebody's UPDATE of one row; `Invalid` when the database must refuse it.
    pub(super) fn sql(&mut self, id: JobId, sql: Sql) -> Answer {
        let time = if let Sql::RunAt(when) = sql { self.time_by_sql(id, when) } else { MACHINE };
        let Some(row) = self.rows.get_mut(&id) else { return Answer::Count(0) };
        match sql {
            Sql::Cancel => {
                row.cancel = true;
                self.note(id, ("sql", "cancel requested"));
                if self.rows[&id].waits() {
                    self.step(id, Event::Cancel, ("sql", "cancelled"));
                }
            }
            Sql::RunAt(_) => {
                let (old, new) = (row.run_at, time);
                if old != new {
                    self.note(id, ("sql", "changed"));
                    self.new_time(id, new, "sql");
                }
            }
            Sql::Priority(priority) => {
                if std::mem::replace(&mut row.priority, priority) != priority {
                    self.note(id, ("sql", "changed"));
                }
            }
            Sql::Queue(queue) => {
                let queue = QUEUES[queue].to_owned();
                if row.queue != queue {
                    row.queue = queue;
                    self.note(id, ("sql", "changed"));
                }
            }
            Sql::Pause => {
                if !row.waits() && !row.paused {
                    return Answer::Invalid;
                }
                let again = std::mem::replace(&mut row.paused, true);
                self.note(id, ("sql", if again { "changed" } else { "paused" }));
                if self.rows[&id].state == State::Pending {
                    self.step(id, Event::Postpone, ("sql", "paused"));
                }
            }
            Sql::Resume => {
                if std::mem::replace(&mut row.paused, false) {
                    self.note(id, ("sql", "resumed"));
                }
            }
            Sql::State(to) => return self.state_by_sql(id, to),
            Sql::Generation | Sql::Worker | Sql::Epoch => return Answer::Invalid,
        }
        Answer::Count(1)
    }

    /// `UPDATE jobs SET state = ..., worker = NULL, lease_until = NULL`; with a time long ago for `pending`, which means now.
    pub(super) fn state_by_sql(&mut self, id: JobId, to: State) -> Answer {
        let long_ago = self.long_ago;
        let row = self.row(id);
        let from = row.state;
        if to == State::Running || (from != to && !from.may_become(to)) || (to == State::Pending && row.paused) {
            return Answer::Invalid;
        }
        if from == to {
            return if to == State::Pending { self.sql(id, Sql::RunAt(When::LongAgo)) } else { Answer::Count(1) };
        }
        self.leaves(id);
        let row = self.row(id);
        if to == State::Pending {
            row.run_at = long_ago;
        }
        if !to.is_finished() {
            row.cancel = false;
        }
        let event = *Event::ALL.iter().find(|event| from.after(**event) == Ok(to)).expect("there is such an edge");
        self.step(id, event, ("sql", "plain SQL"));
        if from.is_finished() {
            let row = self.row(id);
            (row.attempt, row.crash_count, row.moved, row.run_at) = (0, 0, 0, MACHINE);
            (row.failure, row.report, row.cancel) = (None, false, false);
        }
        Answer::Count(1)
    }
}
