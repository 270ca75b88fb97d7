//! What operators do, by the program's commands and by SQL.

use super::Driver;
use crate::book::Deed;
use crate::operators::{Edit, OVERTAKEN, Operation, Queue};
use crate::plan::By;
use std::collections::BTreeMap;

impl Driver<'_> {
    pub(super) fn operate(&mut self, operation: &Operation) {
        match operation {
            Operation::Pause { number, nth, by } => {
                let Some(id) = self.acknowledged(*nth) else { return };
                self.held.insert(*number, id);
                match by {
                    By::Cli => self.cli(&["jobs", "pause", &id.to_string()], Deed::SteerJob { id }),
                    By::Sql => self.sql(&format!("{} WHERE id = {id} AND {WAITS}", self.pause())),
                }
            }
            Operation::Resume { number, by } => {
                let Some(id) = self.held.get(number).copied() else { return };
                match by {
                    By::Cli => self.cli(&["jobs", "resume", &id.to_string()], Deed::SteerJob { id }),
                    By::Sql => self.sql(&format!("UPDATE jobs SET paused_at = NULL WHERE id = {id}")),
                }
            }
            Operation::Edit { nth, edit, by } => self.edit(*nth, *edit, *by),
            Operation::Queue { queue, change, by } => self.queue(queue, *change, *by),
            Operation::Prune { older_ms, failed_only } => {
                let older = format!("{older_ms}ms");
                let state: &[&str] = if *failed_only { &["--state", "failed"] } else { &[] };
                self.cli(&[&["jobs", "prune", "--older-than", &older], state].concat(), Deed::Steer);
            }
            Operation::TakeBack => self.take_back(),
            Operation::GoOn => {
                let target = self.scene.destination.reference(OVERTAKEN.0, OVERTAKEN.1);
                self.sql(&format!(
                    "{GO_ON} WHERE destination = '{target}' AND state = 'scheduled' AND paused_at IS NOT NULL"
                ));
            }
        }
    }

    /// An UPDATE that pauses.
    pub(super) fn pause(&self) -> String {
        format!("UPDATE jobs SET paused_at = {}", self.scene.shell.now_ms())
    }

    fn edit(&mut self, nth: usize, edit: Edit, by: By) {
        let Some(id) = self.acknowledged(nth) else { return };
        let (option, value) = match edit {
            Edit::Priority(priority) => ("--priority", priority.to_string()),
            Edit::After(ms) => ("--in", format!("{ms}ms")),
        };
        let set = match edit {
            Edit::Priority(priority) => format!("priority = {priority}"),
            Edit::After(ms) => format!("run_at = {} + {ms}", self.scene.shell.now_ms()),
        };
        match by {
            By::Cli => self.cli(&["jobs", "edit", &id.to_string(), option, &value], Deed::SteerJob { id }),
            By::Sql => self.sql(&format!("UPDATE jobs SET {set} WHERE id = {id} AND {WAITS}")),
        }
    }

    fn queue(&mut self, queue: &str, change: Queue, by: By) {
        let number = |limit: Option<u64>, none: &str| limit.map_or(none.to_owned(), |limit| limit.to_string());
        if by == By::Cli {
            return match change {
                Queue::Pause => self.cli(&["queue", "pause", queue], Deed::Steer),
                Queue::Resume => self.cli(&["queue", "resume", queue], Deed::Steer),
                Queue::Limit(limit) => self.cli(&["queue", "limit", queue, &number(limit, "none")], Deed::Steer),
            };
        }
        let (column, value) = match change {
            Queue::Pause => ("paused_at", self.scene.shell.now_ms().to_owned()),
            Queue::Resume => ("paused_at", "NULL".to_owned()),
            Queue::Limit(limit) => ("max_running", number(limit, "NULL")),
        };
        self.sql(&format!(
            "INSERT INTO queues (name, {column}) VALUES ('{queue}', {value}) \
             ON CONFLICT (name) DO UPDATE SET {column} = {value}"
        ));
    }

    /// The job that was done waits again, behind the one that was held: in one transaction, so that the newer one cannot be
    /// done once more before the older one runs.
    fn take_back(&mut self) {
        let target = self.scene.destination.reference(OVERTAKEN.0, OVERTAKEN.1);
        let done = format!("SELECT id FROM jobs WHERE destination = '{target}' AND state = 'completed'");
        let done: Vec<BTreeMap<String, i64>> = self.scene.shell.rows(&done);
        let ids: Vec<String> = done.iter().map(|row| row["id"].to_string()).collect();
        self.book.retries.extend(done.iter().map(|row| row["id"]));
        let ids = if ids.is_empty() { "0".to_owned() } else { ids.join(", ") };
        self.sql(&format!(
            "BEGIN; UPDATE jobs SET state = 'pending', priority = 300 WHERE id IN ({ids}) AND state = 'completed'; \
             {GO_ON} WHERE destination = '{target}' AND state = 'scheduled' AND paused_at IS NOT NULL; COMMIT"
        ));
    }
}

/// Jobs that wait and are not paused.
const WAITS: &str = "state IN ('scheduled', 'pending') AND paused_at IS NULL";
/// An UPDATE that has paused jobs wait for a worker.
const GO_ON: &str = "UPDATE jobs SET paused_at = NULL, state = 'pending'";
