//! The fenced writes of an attempt: renew, confirm, settle, each for many attempts in one statement. Each row names the epoch;
//! a row that touches nothing means that the lease is lost.

use super::Sqlite;
use super::batch::{Kind, Op, Task};
use super::direct::{Cell, Direct};
use super::writer::Lane;
use crate::clock::UnixMillis;
use crate::job::{JobId, Progress, State, Transfer};
use crate::store::rows::Columns;
use crate::store::statements as sql;
use crate::store::{Claim, Confirmed, Error, Fence, Held, Outcome, Settled, Work};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;

/// SQLite's integers are signed; sizes beyond that do not exist.
fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Bytes and blobs, done and in all; NULL before anything is known.
fn progress<'a>(progress: Option<Progress>) -> [Cell<'a>; 4] {
    let number = |of: fn(&Progress) -> u64| progress.as_ref().map(|progress| int(of(progress))).into();
    [
        number(|progress| progress.bytes_done),
        number(|progress| progress.bytes_total),
        number(|progress| progress.blobs_done),
        number(|progress| progress.blobs_total),
    ]
}

/// Rows as one parameter.
pub(super) fn rows(rows: Vec<Value>) -> String {
    Value::Array(rows).to_string()
}

/// One renewal.
pub(super) struct Renewal {
    fence: Fence,
    until: UnixMillis,
    work: Work,
}

impl Renewal {
    fn row(&self) -> Vec<Cell<'_>> {
        let Fence { job, epoch } = self.fence;
        let mut row = vec![job.into(), epoch.into(), self.until.0.into()];
        row.extend(progress(self.work.progress));
        row.push(int(self.work.bytes_moved).into());
        row
    }
}

pub(super) struct Renewals;

impl Kind for Renewals {
    type Input = Renewal;
    type Output = Held;

    fn run(connection: &Direct, inputs: &[&Renewal]) -> Result<Vec<Result<Held, Error>>, Error> {
        Ok(renew(connection, inputs)?.into_iter().map(Ok).collect())
    }
}

fn renew(connection: &Direct, inputs: &[&Renewal]) -> Result<Vec<Held>, Error> {
    let renewals: Vec<_> = inputs.iter().map(|renewal| renewal.row()).collect();
    let held: HashMap<Fence, Held> = connection
        .many(sql::RENEW, &renewals, |row| {
            let cancel = row.int_option("cancel_requested_at")?.is_some();
            Ok((fence(row)?, if cancel { Held::CancelRequested } else { Held::Yes }))
        })?
        .into_iter()
        .collect();
    Ok(inputs.iter().map(|renewal| held.get(&renewal.fence).copied().unwrap_or(Held::Lost)).collect())
}

fn fence(row: &impl Columns) -> Result<Fence, Error> {
    Ok(Fence { job: row.int("id")?, epoch: row.int("lease_epoch")? })
}

/// One confirm: a renewal, and the question whether a newer job has written the target.
pub(super) struct Confirmation {
    renewal: Renewal,
    dest_key: String,
    may_be_superseded: bool,
}

pub(super) struct Confirms;

impl Kind for Confirms {
    type Input = Confirmation;
    type Output = Confirmed;

    fn run(connection: &Direct, inputs: &[&Confirmation]) -> Result<Vec<Result<Confirmed, Error>>, Error> {
        let renewals: Vec<&Renewal> = inputs.iter().map(|confirmation| &confirmation.renewal).collect();
        let held = renew(connection, &renewals)?;
        let asked = inputs.iter().filter(|confirmation| confirmation.may_be_superseded);
        let asked = rows(asked.map(|input| json!([input.dest_key, input.renewal.fence.job])).collect());
        let newer: HashMap<JobId, JobId> = connection
            .all(sql::SUPERSEDED, [asked], |row| Ok((row.int("id")?, row.int("newer")?)))?
            .into_iter()
            .collect();
        let confirmed = inputs.iter().zip(held).map(|(input, held)| {
            Ok(match held {
                Held::Lost => Confirmed::Lost,
                Held::CancelRequested => Confirmed::CancelRequested,
                Held::Yes => newer
                    .get(&input.renewal.fence.job)
                    .filter(|_| input.may_be_superseded)
                    .map_or(Confirmed::Yes, |by| Confirmed::Superseded { by: *by }),
            })
        });
        Ok(confirmed.collect())
    }
}

/// One end of an attempt.
pub(super) struct Ending {
    fence: Fence,
    generation: i64,
    attempt: i64,
    now: UnixMillis,
    outcome: Outcome,
    work: Work,
    transfers: Vec<Transfer>,
}

impl Ending {
    /// The parameters of the settling statement, in its order.
    fn row(&self) -> Result<Vec<Cell<'_>>, Error> {
        let Fence { job, epoch } = self.fence;
        let (mut next, mut failure, mut report, mut reason) = (None, [None; 3], None, "");
        let kind = match &self.outcome {
            Outcome::Completed(done) => {
                report = Some(serde_json::to_string(done).map_err(|error| Error::Invalid(format!("report: {error}")))?);
                "completed"
            }
            Outcome::Failed { failure: why, retry_in } => {
                failure = [&why.stage, &why.class, &why.message].map(|text| Some(text.as_str()));
                next = retry_in.map(|pause| self.now.plus(pause).0);
                if retry_in.is_some() { "retry" } else { "failed" }
            }
            Outcome::Cancelled => "cancelled",
            Outcome::Released { reason: why } => {
                reason = why;
                "release"
            }
        };
        let mut row: Vec<Cell<'_>> = vec![job.into(), epoch.into(), kind.into(), self.now.0.into(), next.into()];
        row.extend(failure.map(Cell::from));
        row.extend(progress(self.work.progress));
        row.extend([int(self.work.bytes_moved).into(), report.into(), reason.into()]);
        Ok(row)
    }

    fn transfers(&self) -> impl Iterator<Item = Vec<Cell<'_>>> {
        let Fence { job, epoch } = self.fence;
        self.transfers.iter().map(move |transfer| {
            vec![
                job.into(),
                self.generation.into(),
                self.attempt.into(),
                epoch.into(),
                self.now.0.into(),
                transfer.registry.as_str().into(),
                transfer.repository.as_str().into(),
                transfer.digest.as_str().into(),
                int(transfer.bytes).into(),
                transfer.how.as_str().into(),
            ]
        })
    }
}

pub(super) struct Settles;

impl Kind for Settles {
    type Input = Ending;
    type Output = Settled;

    fn run(connection: &Direct, inputs: &[&Ending]) -> Result<Vec<Result<Settled, Error>>, Error> {
        let ends = inputs.iter().map(|ending| ending.row()).collect::<Result<Vec<_>, _>>()?;
        let settled: HashMap<Fence, State> = connection
            .many(sql::SETTLE, &ends, |row| {
                let state = row.text("state")?.parse().map_err(|error| Error::Unusable(format!("{error}")))?;
                Ok((fence(row)?, state))
            })?
            .into_iter()
            .collect();
        let ended = inputs.iter().filter(|ending| settled.contains_key(&ending.fence));
        let transfers: Vec<_> = ended.flat_map(|ending| ending.transfers()).collect();
        connection.many(sql::TRANSFERS, &transfers, |_| Ok(()))?;
        let answer =
            |ending: &&Ending| settled.get(&ending.fence).map_or(Settled::LeaseLost, |state| Settled::Now(*state));
        Ok(inputs.iter().map(|ending| Ok(answer(ending))).collect())
    }
}

impl Sqlite {
    pub(in crate::store) async fn renew(&self, fence: Fence, ttl: Duration, work: Work) -> Result<Held, Error> {
        let renewal = Renewal { fence, until: self.inner.clock.now().plus(ttl), work };
        self.inner.writer.send(Lane::Control, |reply| Op::Renew(renewal, reply)).await
    }

    pub(in crate::store) async fn confirm(&self, claim: &Claim, ttl: Duration, work: Work) -> Result<Confirmed, Error> {
        let confirmation = Confirmation {
            renewal: Renewal { fence: claim.fence(), until: self.inner.clock.now().plus(ttl), work },
            dest_key: claim.dest_key.clone(),
            may_be_superseded: claim.job.generation == 1,
        };
        self.inner.writer.send(Lane::Control, |reply| Op::Confirm(confirmation, reply)).await
    }

    pub(in crate::store) async fn settle(
        &self,
        claim: &Claim,
        outcome: Outcome,
        work: Work,
        transfers: Vec<Transfer>,
    ) -> Result<Settled, Error> {
        let ending = Ending {
            fence: claim.fence(),
            generation: claim.job.generation,
            attempt: claim.job.attempt,
            now: self.inner.clock.now(),
            outcome,
            work,
            transfers,
        };
        self.inner.writer.send(Lane::Control, |reply| Op::Settle(ending, reply)).await
    }

    pub(in crate::store) async fn cancel_asked(&self, worker: uuid::Uuid) -> Result<Vec<Fence>, Error> {
        sqlx::query(sql::CANCEL_ASKED)
            .bind(worker.to_string())
            .fetch_all(&self.inner.readers)
            .await?
            .iter()
            .map(fence)
            .collect()
    }

    pub(in crate::store) async fn temp_register(
        &self,
        path: String,
        worker: uuid::Uuid,
        fence: Fence,
    ) -> Result<(), Error> {
        let now = self.inner.clock.now();
        self.write(Lane::Control, move |connection| {
            let file = (path, worker.to_string(), fence.job, fence.epoch, now.0);
            connection.run(sql::TEMP_REGISTER, file).map(|_| ())
        })
        .await
    }

    pub(in crate::store) async fn temp_forget(&self, paths: Vec<String>) -> Result<(), Error> {
        let paths = rows(paths.into_iter().map(Value::from).collect());
        self.write(Lane::Control, move |connection| connection.run(sql::TEMP_FORGET, [paths]).map(|_| ())).await
    }

    /// Runs a rare operation in a transaction of the writer.
    pub(super) async fn write<T, F>(&self, lane: Lane, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Direct) -> Result<T, Error> + Send + 'static,
    {
        self.inner.writer.send(lane, |reply| Task::op(work, reply)).await
    }
}
