//! The checker: what must be true when a round is over, whatever happened in it.
//!
//! Each room looks at one side. None of them asks the program: rows and history come by SQL, the destination is looked at
//! where it is kept, and what may follow what is decided by the table of the state machine alone.

mod destination;
mod history;
mod leftovers;
mod operators;
mod order;
mod requests;
mod uploads;
mod workers;

use super::evidence::Evidence;

/// Something that must not be.
#[derive(Debug, Clone)]
pub struct Violation {
    pub jobs: Vec<i64>,
    pub text: String,
}

/// What was found, and what was met that is allowed but rare.
#[derive(Debug, Default)]
pub struct Findings {
    pub violations: Vec<Violation>,
    /// Tags that a worker wrote after its lease had ended, and that are explained.
    pub late: usize,
}

impl Findings {
    pub fn add(&mut self, jobs: &[i64], text: impl Into<String>) {
        self.violations.push(Violation { jobs: jobs.to_vec(), text: text.into() });
    }
}

/// All checks.
pub fn all(evidence: &Evidence<'_>) -> Findings {
    let mut findings = Findings::default();
    requests::check(evidence, &mut findings);
    history::check(evidence, &mut findings);
    order::check(evidence, &mut findings);
    operators::check(evidence, &mut findings);
    workers::check(evidence, &mut findings);
    destination::check(evidence, &mut findings);
    uploads::check(evidence, &mut findings);
    leftovers::check(evidence, &mut findings);
    findings
}
