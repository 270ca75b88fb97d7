//! What one transaction does: operations by kind, each kind in one go.
//!
//! Within a transaction the kinds go in a fixed order: settles, renewals, confirms, enqueues, claims, then the rest. All of them
//! were under way at the same time, so any order is a right one; this one frees targets before they are claimed, and claims what
//! has just come.

use super::direct::Direct;
use super::{attempt, claim, enqueue};
use crate::job::Enqueued;
use crate::store::{Claim, Confirmed, Error, Held, Intake, Settled};
use tokio::sync::oneshot;

/// Somebody who waits for an answer.
pub(super) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// An operation on its way to the writer.
pub(super) enum Op {
    Settle(attempt::Ending, Reply<Settled>),
    Renew(attempt::Renewal, Reply<Held>),
    Confirm(attempt::Confirmation, Reply<Confirmed>),
    Claim(claim::Ask, Reply<(Intake, Vec<Claim>)>),
    Enqueue(enqueue::Request, Reply<Vec<Enqueued>>),
    /// Anything that is rare.
    Other(Box<dyn Operation>),
}

impl Op {
    /// Rows that it writes, about; one with long references counts for more.
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Enqueue(request, _) => request.entries.iter().map(enqueue::Entry::weight).sum(),
            _ => 1,
        }
    }
}

/// Merge what can be merged, or let each stand alone because one of them breaks a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Together,
    OneByOne,
}

/// A kind of operation that is done for many at once.
pub(super) trait Kind {
    type Input: Send + Sync;
    type Output: Send;

    /// One answer for each input, in their order.
    ///
    /// # Errors
    /// One of them broke a rule, or the database failed.
    fn run(connection: &Direct, inputs: &[&Self::Input]) -> Result<Vec<Result<Self::Output, Error>>, Error>;
}

/// An operation of no merged kind.
pub(super) trait Operation: Send {
    fn run(&mut self, connection: &Direct) -> Result<(), Error>;
    /// Tells the caller: its own result when the transaction was committed, else what became of that.
    fn answer(self: Box<Self>, fate: &Result<(), Error>);
}

/// Operations of one kind and their answers.
struct Group<K: Kind> {
    inputs: Vec<K::Input>,
    replies: Vec<Reply<K::Output>>,
    outputs: Vec<Result<K::Output, Error>>,
}

impl<K: Kind> Default for Group<K> {
    fn default() -> Self {
        Self { inputs: Vec::new(), replies: Vec::new(), outputs: Vec::new() }
    }
}

impl<K: Kind> Group<K> {
    fn push(&mut self, input: K::Input, reply: Reply<K::Output>) {
        self.inputs.push(input);
        self.replies.push(reply);
    }

    fn run(&mut self, connection: &Direct, mode: Mode) -> Result<(), Error> {
        self.outputs.clear();
        match mode {
            Mode::Together if self.inputs.is_empty() => {}
            Mode::Together => {
                self.outputs = K::run(connection, &self.inputs.iter().collect::<Vec<_>>())?;
                debug_assert_eq!(self.outputs.len(), self.inputs.len());
            }
            Mode::OneByOne => {
                for input in &self.inputs {
                    connection.script("SAVEPOINT operation")?;
                    let output = match K::run(connection, &[input]) {
                        Ok(mut outputs) => outputs.pop().unwrap_or_else(did_not_run),
                        Err(error) => Err(error),
                    };
                    end_savepoint(connection, output.as_ref().err())?;
                    self.outputs.push(output);
                }
            }
        }
        Ok(())
    }

    fn answer(self, fate: &Result<(), Error>) {
        let mut outputs = self.outputs.into_iter();
        for reply in self.replies {
            let answer = settle(outputs.next(), fate);
            // A caller that has gone does not want to know.
            drop(reply.send(answer));
        }
    }
}

/// What a caller is told. Its own error is more telling than the batch's.
fn settle<T>(own: Option<Result<T, Error>>, fate: &Result<(), Error>) -> Result<T, Error> {
    match (own, fate) {
        (Some(Err(own)), _) => Err(own),
        (_, Err(fate)) => Err(fate.clone()),
        (Some(own), Ok(())) => own,
        (None, Ok(())) => did_not_run(),
    }
}

fn did_not_run<T>() -> Result<T, Error> {
    Err(Error::Backend { message: "the operation did not run".to_owned(), busy: false })
}

/// Keeps or drops what was done since the savepoint.
fn end_savepoint(connection: &Direct, error: Option<&Error>) -> Result<(), Error> {
    match error {
        None => connection.script("RELEASE operation"),
        // The database itself failed: nothing in this transaction can be trusted.
        Some(error) if error.is_transient() => Err(error.clone()),
        Some(_) => connection.script("ROLLBACK TO operation; RELEASE operation"),
    }
}

/// What one transaction does.
#[derive(Default)]
pub(super) struct Batch {
    settles: Group<attempt::Settles>,
    renewals: Group<attempt::Renewals>,
    confirms: Group<attempt::Confirms>,
    claims: Group<claim::Claims>,
    enqueues: Group<enqueue::Enqueues>,
    others: Vec<Box<dyn Operation>>,
    len: usize,
}

impl Batch {
    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn has_enqueues(&self) -> bool {
        !self.enqueues.inputs.is_empty()
    }

    pub(super) const fn has_settles(&self) -> bool {
        !self.settles.inputs.is_empty()
    }

    pub(super) const fn has_claims(&self) -> bool {
        !self.claims.inputs.is_empty()
    }

    /// Whether a claim was given jobs; None without a claim.
    pub(super) fn gave_jobs(&self) -> Option<bool> {
        let gave = self.claims.outputs.iter().flatten().any(|(_, claims)| !claims.is_empty());
        self.has_claims().then_some(gave)
    }

    /// Operations that those who are answered may send at once, about: one each; who was given jobs ends them when there is
    /// nothing to do, and asks for more.
    pub(super) fn leads_to(&self) -> usize {
        let given = self.claims.outputs.iter().flatten().map(|(_, claims)| claims.len());
        self.len.max(given.filter(|jobs| *jobs > 1).map(|jobs| jobs + 1).sum())
    }

    pub(super) fn push(&mut self, op: Op) {
        self.len += 1;
        match op {
            Op::Settle(input, reply) => self.settles.push(input, reply),
            Op::Renew(input, reply) => self.renewals.push(input, reply),
            Op::Confirm(input, reply) => self.confirms.push(input, reply),
            Op::Claim(input, reply) => self.claims.push(input, reply),
            Op::Enqueue(input, reply) => self.enqueues.push(input, reply),
            Op::Other(operation) => self.others.push(operation),
        }
    }

    /// Does everything. After an error of the database, and after one of a rule in [`Mode::Together`], nothing of it may be
    /// kept; the operations that are no merged kind have not run then, and may run again.
    pub(super) fn run(&mut self, connection: &Direct, mode: Mode) -> Result<(), Error> {
        self.settles.run(connection, mode)?;
        self.renewals.run(connection, mode)?;
        self.confirms.run(connection, mode)?;
        self.enqueues.run(connection, mode)?;
        self.claims.run(connection, mode)?;
        for operation in &mut self.others {
            connection.script("SAVEPOINT operation")?;
            let done = operation.run(connection);
            end_savepoint(connection, done.err().as_ref())?;
        }
        Ok(())
    }

    pub(super) fn answer(self, fate: &Result<(), Error>) {
        self.settles.answer(fate);
        self.renewals.answer(fate);
        self.confirms.answer(fate);
        self.claims.answer(fate);
        self.enqueues.answer(fate);
        for operation in self.others {
            operation.answer(fate);
        }
    }
}

/// What a rare operation does with the connection: statements only, no waiting for anything else.
type Work<T> = Box<dyn FnOnce(&Direct) -> Result<T, Error> + Send>;

/// A rare operation: a closure over the connection.
pub(super) struct Task<T> {
    work: Option<Work<T>>,
    result: Option<Result<T, Error>>,
    reply: Reply<T>,
}

impl<T: Send + 'static> Task<T> {
    pub(super) fn op<F>(work: F, reply: Reply<T>) -> Op
    where
        F: FnOnce(&Direct) -> Result<T, Error> + Send + 'static,
    {
        Op::Other(Box::new(Self { work: Some(Box::new(work)), result: None, reply }))
    }
}

impl<T: Send> Operation for Task<T> {
    fn run(&mut self, connection: &Direct) -> Result<(), Error> {
        let Some(work) = self.work.take() else { return did_not_run() };
        let result = work(connection);
        let verdict = result.as_ref().map(|_| ()).map_err(Clone::clone);
        self.result = Some(result);
        verdict
    }

    fn answer(self: Box<Self>, fate: &Result<(), Error>) {
        drop(self.reply.send(settle(self.result, fate)));
    }
}
