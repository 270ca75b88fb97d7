//! What `db check` makes of jobs and their events, whichever database they come from: each history is replayed and compared
//! with its row. A row that cannot be read is a finding like any other: who owns the database can write anything.

use super::rows::{self, Columns};
use super::{Error, Finding};
use crate::job::JobId;
use crate::job::replay::{Facts, Replay};
use std::collections::BTreeMap;

/// Jobs whose histories are read in one transaction.
pub(super) const PAGE: i64 = 500;
/// Findings after which replaying ends: a database like that needs an operator, not a longer list.
pub(super) const ENOUGH: usize = 100;

pub(super) fn finding(check: &str, message: String) -> Finding {
    Finding { check: check.to_owned(), message }
}

/// The jobs of one page.
#[derive(Default)]
pub(super) struct Histories {
    /// None: something of it cannot be read, which is said already.
    jobs: BTreeMap<JobId, Option<(Facts, Replay)>>,
    findings: Vec<Finding>,
}

impl Histories {
    /// Takes a job. All of them come before the first event.
    pub(super) fn job(&mut self, row: &impl Columns) -> Result<(), Error> {
        let id = row.int("id")?;
        let job = match rows::facts(row) {
            Ok(facts) => Some((facts, Replay::new(id))),
            Err(Error::Unusable(why)) => {
                self.findings.push(finding("rows", format!("job {id}: {why}")));
                None
            }
            Err(error) => return Err(error),
        };
        self.jobs.insert(id, job);
        Ok(())
    }

    /// The last job's id; None when there is none.
    pub(super) fn last(&self) -> Option<JobId> {
        self.jobs.last_key_value().map(|(id, _)| *id)
    }

    /// Takes an event, those of a job oldest first.
    pub(super) fn event(&mut self, row: &impl Columns) -> Result<(), Error> {
        let id = row.int("job_id")?;
        // An event of no job is found by the foreign keys.
        let Some(job) = self.jobs.get_mut(&id) else { return Ok(()) };
        let Some((_, replay)) = job else { return Ok(()) };
        match rows::entry(row) {
            Ok(entry) => replay.event(&entry),
            Err(Error::Unusable(why)) => {
                self.findings.push(finding("rows", format!("event {} of job {id}: {why}", row.int("seq")?)));
                // What follows would be compared with what is not known.
                *job = None;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// What is wrong with the page.
    pub(super) fn end(self) -> Vec<Finding> {
        let mut findings = self.findings;
        let faults = self.jobs.into_values().flatten().flat_map(|(facts, replay)| replay.end(&facts));
        findings.extend(faults.map(|fault| finding(fault.check, fault.message)));
        findings
    }
}
