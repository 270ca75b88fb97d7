//! The history of a job, replayed: from its events alone to what its row must say.
//!
//! Every change of a row's state writes an event in the same transaction, so state, generation, attempt, epoch and worker follow
//! from the events. Where a row says something else, or where events contradict each other or the state machine, somebody has
//! worked around the rules of the database, or the program has a fault. `db check` asks here, and so do the tests.
//!
//! It never looks at times: clocks jump, the order of events does not. It reads no database: who has the events feeds them in.

use super::{JobId, State};

/// An event as its row says. Words stay words: anybody may have written them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the history of the whole database.
    pub seq: i64,
    /// None for the first one of a job.
    pub from: Option<String>,
    /// The state after it; that before it when something else than the state changed.
    pub to: String,
    /// After the event.
    pub generation: i64,
    /// After the event.
    pub lease_epoch: i64,
    /// The attempt that the event belongs to: the one that ended when the job left `running`.
    pub attempt: i64,
    /// The row's attempt after the end of one, where it says so: attempts can be refunded.
    pub attempt_after: Option<i64>,
    /// The worker that had or took the job.
    pub worker: Option<String>,
}

/// What a row says, or what the events say that it must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Where the job stands.
    pub state: State,
    /// Its generation.
    pub generation: i64,
    /// Its attempt.
    pub attempt: i64,
    /// Its fence.
    pub lease_epoch: i64,
    /// Who holds it.
    pub worker: Option<String>,
}

/// A contradiction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which rule is broken: `history`, `chain`, `transitions`, `epochs`, `generations`, `attempts`, `workers` or `completions`.
    pub check: &'static str,
    /// What contradicts what, in one line.
    pub message: String,
}

/// Replays one job: [`Replay::event`] for each of its events, oldest first, then [`Replay::end`] with its row.
#[derive(Debug)]
pub struct Replay {
    job: JobId,
    seq: i64,
    facts: Option<Facts>,
    /// The generation that was completed last.
    completed: Option<i64>,
    /// Only the first: what follows a broken link says little.
    fault: Option<Fault>,
}

impl Replay {
    /// Nothing is known of the job yet.
    #[must_use]
    pub const fn new(job: JobId) -> Self {
        Self { job, seq: 0, facts: None, completed: None, fault: None }
    }

    /// Takes the next event.
    pub fn event(&mut self, entry: &Entry) {
        if self.fault.is_some() {
            return;
        }
        match self.next(entry) {
            Ok(facts) => {
                self.seq = entry.seq;
                self.facts = Some(facts);
            }
            Err((check, why)) => {
                let message = format!("event {} of job {}: {why}", entry.seq, self.job);
                self.fault = Some(Fault { check, message });
            }
        }
    }

    /// Compares with the row: what is wrong with the history, else with the row. Empty when all is well.
    #[must_use]
    pub fn end(self, row: &Facts) -> Vec<Fault> {
        let job = self.job;
        if let Some(fault) = self.fault {
            return vec![fault];
        }
        let Some(facts) = self.facts else {
            let message = format!("job {job} is {}, its last event says nothing", row.state);
            return vec![Fault { check: "history", message }];
        };
        if facts.state != row.state {
            let message = format!("job {job} is {}, its last event says {}", row.state, facts.state);
            return vec![Fault { check: "history", message }];
        }
        let worker = |facts: &Facts| facts.worker.clone().unwrap_or_else(|| "nobody".to_owned());
        [
            ("generations", "generation", row.generation.to_string(), facts.generation.to_string()),
            ("attempts", "attempt", row.attempt.to_string(), facts.attempt.to_string()),
            ("epochs", "lease_epoch", row.lease_epoch.to_string(), facts.lease_epoch.to_string()),
            ("workers", "worker", worker(row), worker(&facts)),
        ]
        .into_iter()
        .filter(|(_, _, row, events)| row != events)
        .map(|(check, column, row, events)| Fault {
            check,
            message: format!("job {job}: {column} is {row}, its events say {events}"),
        })
        .collect()
    }

    /// What the row says after the event; or the rule that it breaks, and how.
    fn next(&mut self, entry: &Entry) -> Result<Facts, (&'static str, String)> {
        let state = |word: &str| word.parse::<State>().map_err(|error| ("chain", error.to_string()));
        let to = state(&entry.to)?;
        let Some(before) = &self.facts else { return first(entry, to) };
        let from = match &entry.from {
            Some(from) => state(from)?,
            None => return Err(("chain", "a second event says that the job is new".to_owned())),
        };
        if entry.seq <= self.seq {
            return Err(("chain", format!("it comes after event {}", self.seq)));
        }
        if from != before.state {
            return Err(("chain", format!("it starts from {from}, the event before ended with {}", before.state)));
        }
        if from != to && !from.may_become(to) {
            return Err(("transitions", format!("a {from} job cannot become {to}")));
        }
        let again = from.is_finished() && to == State::Pending;
        check_numbers(before, entry, from, to, again)?;
        if to == State::Completed && from != to && self.completed.replace(entry.generation) == Some(entry.generation) {
            return Err(("completions", format!("generation {} was completed before", entry.generation)));
        }
        let attempt = match (from, to) {
            (State::Running, State::Running) => before.attempt,
            (State::Running, _) => entry.attempt_after.unwrap_or(entry.attempt),
            _ if again => 0,
            _ => entry.attempt,
        };
        let worker = match (from, to) {
            (State::Running, State::Running) => before.worker.clone(),
            (_, State::Running) => entry.worker.clone(),
            _ => None,
        };
        Ok(Facts { state: to, generation: entry.generation, attempt, lease_epoch: entry.lease_epoch, worker })
    }
}

/// The event that made the job.
fn first(entry: &Entry, to: State) -> Result<Facts, (&'static str, String)> {
    if let Some(from) = &entry.from {
        return Err(("chain", format!("the first one starts from {from}")));
    }
    if !matches!(to, State::Pending | State::Scheduled) {
        return Err(("transitions", format!("a new job cannot be {to}")));
    }
    if (entry.generation, entry.attempt, entry.lease_epoch) != (1, 0, 0) {
        return Err(("generations", "a new job has generation 1, attempt 0 and epoch 0".to_owned()));
    }
    Ok(Facts { state: to, generation: 1, attempt: 0, lease_epoch: 0, worker: None })
}

fn check_numbers(
    before: &Facts,
    entry: &Entry,
    from: State,
    to: State,
    again: bool,
) -> Result<(), (&'static str, String)> {
    if entry.lease_epoch < before.lease_epoch {
        return Err(("epochs", format!("the epoch falls from {} to {}", before.lease_epoch, entry.lease_epoch)));
    }
    if entry.generation != before.generation + i64::from(again) {
        let now = entry.generation;
        return Err((
            "generations",
            format!("from {} to {now}: a retry of a finished job raises it", before.generation),
        ));
    }
    if from != State::Running && to == State::Running {
        if entry.lease_epoch != before.lease_epoch + 1 || entry.attempt != before.attempt + 1 {
            return Err(("epochs", "a claim raises epoch and attempt by one".to_owned()));
        }
        if entry.worker.is_none() {
            return Err(("workers", "nobody claimed it".to_owned()));
        }
    }
    if from == State::Running && to != State::Running {
        if entry.attempt != before.attempt {
            return Err(("attempts", format!("it ends attempt {}, number {} ran", entry.attempt, before.attempt)));
        }
        if entry.worker != before.worker {
            return Err(("workers", "it ends the attempt of a worker that did not have the job".to_owned()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: i64, from: &str, to: &str, generation: i64, epoch: i64, attempt: i64) -> Entry {
        let running = from == "running" || to == "running";
        Entry {
            seq,
            from: (!from.is_empty()).then(|| from.to_owned()),
            to: to.to_owned(),
            generation,
            lease_epoch: epoch,
            attempt,
            attempt_after: None,
            worker: running.then(|| "w".to_owned()),
        }
    }

    /// Failed once, taken from a dead worker, completed, retried by an operator, and running again.
    fn history() -> Vec<Entry> {
        vec![
            entry(1, "", "pending", 1, 0, 0),
            entry(3, "pending", "running", 1, 1, 1),
            entry(4, "running", "scheduled", 1, 1, 1),
            entry(5, "scheduled", "pending", 1, 1, 1),
            entry(6, "pending", "running", 1, 2, 2),
            Entry { attempt_after: Some(1), ..entry(7, "running", "scheduled", 1, 3, 2) },
            entry(8, "scheduled", "pending", 1, 3, 1),
            entry(9, "pending", "pending", 1, 3, 1),
            entry(10, "pending", "running", 1, 4, 2),
            entry(11, "running", "completed", 1, 4, 2),
            entry(20, "completed", "pending", 2, 4, 2),
            entry(21, "pending", "pending", 2, 1_000_004, 0),
            entry(22, "pending", "running", 2, 1_000_005, 1),
            // Somebody else's late tag is no change of hands.
            Entry { worker: Some("late".to_owned()), ..entry(23, "running", "running", 2, 1_000_005, 1) },
        ]
    }

    fn row() -> Facts {
        Facts { state: State::Running, generation: 2, attempt: 1, lease_epoch: 1_000_005, worker: Some("w".to_owned()) }
    }

    fn replay(events: &[Entry], row: &Facts) -> Vec<Fault> {
        let mut replay = Replay::new(7);
        for event in events {
            replay.event(event);
        }
        replay.end(row)
    }

    #[test]
    fn events_alone_give_the_row() {
        assert_eq!(replay(&history(), &row()), []);
        assert_eq!(
            replay(
                &history()[..1],
                &Facts { state: State::Pending, generation: 1, attempt: 0, lease_epoch: 0, worker: None }
            ),
            []
        );
    }

    #[test]
    fn a_row_that_says_something_else_is_found() {
        let found = |row: Facts| replay(&history(), &row).into_iter().map(|fault| fault.check).collect::<Vec<_>>();
        assert_eq!(found(Facts { state: State::Failed, ..row() }), ["history"]);
        assert_eq!(found(Facts { generation: 1, ..row() }), ["generations"]);
        assert_eq!(found(Facts { attempt: 2, lease_epoch: 4, ..row() }), ["attempts", "epochs"]);
        assert_eq!(found(Facts { worker: Some("x".to_owned()), ..row() }), ["workers"]);
        assert_eq!(replay(&[], &row())[0].message, "job 7 is running, its last event says nothing");
    }

    #[test]
    fn events_that_contradict_each_other_are_found() {
        // Each changes one event of a sound history, by place.
        /// Which entry, what is wrong with it, what is found.
        type Case = (usize, fn(&mut Entry), &'static str);
        let cases: [Case; 16] = [
            (0, |event| event.from = Some("pending".to_owned()), "chain"),
            (0, |event| event.to = "running".to_owned(), "transitions"),
            (0, |event| event.lease_epoch = 1, "generations"),
            (1, |event| event.from = None, "chain"),
            (1, |event| event.seq = 1, "chain"),
            (1, |event| event.to = "sleeping".to_owned(), "chain"),
            (1, |event| event.to = "completed".to_owned(), "transitions"),
            (1, |event| event.worker = None, "workers"),
            (1, |event| event.lease_epoch = 2, "epochs"),
            (2, |event| event.from = Some("pending".to_owned()), "chain"),
            (2, |event| event.lease_epoch = 0, "epochs"),
            (2, |event| event.generation = 2, "generations"),
            (2, |event| event.attempt = 2, "attempts"),
            (2, |event| event.worker = Some("x".to_owned()), "workers"),
            (4, |event| event.attempt = 1, "epochs"),
            (10, |event| event.generation = 1, "generations"),
        ];
        for (at, change, check) in cases {
            let mut events = history();
            change(&mut events[at]);
            let faults = replay(&events, &row());
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert_eq!(faults[0].check, check, "{faults:?}");
            assert!(faults[0].message.contains(&format!("event {} of job 7", events[at].seq)), "{faults:?}");
        }
        let twice = [&history()[..10], &[entry(12, "completed", "completed", 1, 4, 2)]].concat();
        let done = Facts { state: State::Completed, generation: 1, attempt: 2, lease_epoch: 4, worker: None };
        assert_eq!(replay(&twice, &done), [], "a change of something else is no second completion");
    }

    #[test]
    fn a_second_completion_of_a_generation_is_found_even_when_the_retry_between_raised_nothing() {
        let mut replay = Replay::new(7);
        for event in &history()[..10] {
            replay.event(event);
        }
        // As if the retry's event had been lost.
        replay.facts.as_mut().unwrap().state = State::Running;
        replay.facts.as_mut().unwrap().worker = Some("w".to_owned());
        replay.event(&entry(30, "running", "completed", 1, 4, 2));
        let done = Facts { state: State::Completed, generation: 1, attempt: 2, lease_epoch: 4, worker: None };
        assert_eq!(replay.end(&done)[0].check, "completions");
    }
}
