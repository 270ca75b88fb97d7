//! The fenced writes of an attempt: renew, confirm, settle, each for many attempts in one statement. Each row names the epoch;
//! a row that touches nothing means that the lease is lost.

use super::Sqlite;
use super::batch::{Kind, Op, Task};
use super::writer::Lane;
use crate::clock::UnixMillis;
use crate::job::{JobId, Progress, State, Transfer};
use crate::store::statements as sql;
use crate::store::{Claim, Confirmed, Error, Fence, Held, Outcome, Settled, Work};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;
use std::collections::HashMap;
use std::time::Duration;

/// SQLite's integers are signed; sizes beyond that do not exist.
fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Bytes and blobs, done and in all; null before anything is known.
fn progress(progress: Option<Progress>) -> [Value; 4] {
    let number = |of: fn(&Progress) -> u64| progress.as_ref().map_or(Value::Null, |progress| int(of(progress)).into());
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
    fn row(&self) -> Value {
        let [bytes_done, bytes_total, blobs_done, blobs_total] = progress(self.work.progress);
        let Fence { job, epoch } = self.fence;
        let moved = int(self.work.bytes_moved);
        json!([job, epoch, self.until.0, bytes_done, bytes_total, blobs_done, blobs_total, moved])
    }
}

pub(super) struct Renewals;

impl Kind for Renewals {
    type Input = Renewal;
    type Output = Held;

    fn run<'a>(
        connection: &'a mut SqliteConnection,
        inputs: Vec<&'a Renewal>,
    ) -> BoxFuture<'a, Result<Vec<Result<Held, Error>>, Error>> {
        Box::pin(async move {
            let held = renew(connection, &inputs).await?;
            Ok(held.into_iter().map(Ok).collect())
        })
    }
}

async fn renew(connection: &mut SqliteConnection, inputs: &[&Renewal]) -> Result<Vec<Held>, Error> {
    let renewed = sqlx::query(sql::RENEW)
        .bind(rows(inputs.iter().map(|renewal| renewal.row()).collect()))
        .fetch_all(connection)
        .await?;
    let mut held = HashMap::with_capacity(renewed.len());
    for row in &renewed {
        let cancel = row.try_get::<Option<i64>, _>("cancel_requested_at")?.is_some();
        held.insert(fence(row)?, if cancel { Held::CancelRequested } else { Held::Yes });
    }
    Ok(inputs.iter().map(|renewal| held.get(&renewal.fence).copied().unwrap_or(Held::Lost)).collect())
}

fn fence(row: &sqlx::sqlite::SqliteRow) -> Result<Fence, Error> {
    Ok(Fence { job: row.try_get("id")?, epoch: row.try_get("lease_epoch")? })
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

    fn run<'a>(
        connection: &'a mut SqliteConnection,
        inputs: Vec<&'a Confirmation>,
    ) -> BoxFuture<'a, Result<Vec<Result<Confirmed, Error>>, Error>> {
        Box::pin(async move {
            let renewals: Vec<&Renewal> = inputs.iter().map(|confirmation| &confirmation.renewal).collect();
            let held = renew(connection, &renewals).await?;
            let asked = inputs.iter().filter(|confirmation| confirmation.may_be_superseded);
            let asked = rows(asked.map(|input| json!([input.dest_key, input.renewal.fence.job])).collect());
            let mut newer: HashMap<JobId, JobId> = HashMap::new();
            for row in sqlx::query(sql::SUPERSEDED).bind(asked).fetch_all(connection).await? {
                newer.insert(row.try_get("id")?, row.try_get("newer")?);
            }
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
        })
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
    /// The columns of the settling statement, in its order.
    fn row(&self) -> Result<Value, Error> {
        let Fence { job, epoch } = self.fence;
        let [bytes_done, bytes_total, blobs_done, blobs_total] = progress(self.work.progress);
        let (mut next, mut failure, mut report, mut reason) = (Value::Null, [const { Value::Null }; 3], None, "");
        let kind = match &self.outcome {
            Outcome::Completed(done) => {
                report = Some(serde_json::to_string(done).map_err(|error| Error::Invalid(format!("report: {error}")))?);
                "completed"
            }
            Outcome::Failed { failure: why, retry_in } => {
                failure = [why.stage.clone(), why.class.clone(), why.message.clone()].map(Value::from);
                next = retry_in.map(|pause| self.now.plus(pause).0).into();
                if retry_in.is_some() { "retry" } else { "failed" }
            }
            Outcome::Cancelled => "cancelled",
            Outcome::Released { reason: why } => {
                reason = why;
                "release"
            }
        };
        let [stage, class, message] = failure;
        let moved = int(self.work.bytes_moved);
        Ok(json!([
            job,
            epoch,
            kind,
            self.now.0,
            next,
            stage,
            class,
            message,
            bytes_done,
            bytes_total,
            blobs_done,
            blobs_total,
            moved,
            report,
            reason
        ]))
    }

    fn transfers(&self) -> impl Iterator<Item = Value> + '_ {
        let Fence { job, epoch } = self.fence;
        self.transfers.iter().map(move |transfer| {
            json!([
                job,
                self.generation,
                self.attempt,
                epoch,
                self.now.0,
                transfer.registry,
                transfer.repository,
                transfer.digest,
                transfer.bytes,
                transfer.how
            ])
        })
    }
}

pub(super) struct Settles;

impl Kind for Settles {
    type Input = Ending;
    type Output = Settled;

    fn run<'a>(
        connection: &'a mut SqliteConnection,
        inputs: Vec<&'a Ending>,
    ) -> BoxFuture<'a, Result<Vec<Result<Settled, Error>>, Error>> {
        Box::pin(async move {
            let ends = rows(inputs.iter().map(|ending| ending.row()).collect::<Result<_, _>>()?);
            let mut settled = HashMap::with_capacity(inputs.len());
            for row in sqlx::query(sql::SETTLE).bind(ends).fetch_all(&mut *connection).await? {
                let state: State =
                    row.try_get::<&str, _>("state")?.parse().map_err(|error| Error::Unusable(format!("{error}")))?;
                settled.insert(fence(&row)?, state);
            }
            let transfers: Vec<Value> = inputs
                .iter()
                .filter(|ending| settled.contains_key(&ending.fence))
                .flat_map(|ending| ending.transfers())
                .collect();
            if !transfers.is_empty() {
                sqlx::query(sql::TRANSFERS).bind(rows(transfers)).execute(connection).await?;
            }
            let answers = inputs
                .iter()
                .map(|ending| Ok(settled.get(&ending.fence).map_or(Settled::LeaseLost, |state| Settled::Now(*state))));
            Ok(answers.collect())
        })
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
            Box::pin(async move {
                sqlx::query(sql::TEMP_REGISTER)
                    .bind(path)
                    .bind(worker.to_string())
                    .bind(fence.job)
                    .bind(fence.epoch)
                    .bind(now.0)
                    .execute(connection)
                    .await?;
                Ok(())
            })
        })
        .await
    }

    pub(in crate::store) async fn temp_forget(&self, paths: Vec<String>) -> Result<(), Error> {
        let paths = rows(paths.into_iter().map(Value::from).collect());
        self.write(Lane::Control, move |connection| {
            Box::pin(async move {
                sqlx::query(sql::TEMP_FORGET).bind(paths).execute(connection).await?;
                Ok(())
            })
        })
        .await
    }

    /// Runs a rare operation in a transaction of the writer.
    pub(super) async fn write<T, F>(&self, lane: Lane, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, Error>> + Send + 'static,
    {
        self.inner.writer.send(lane, |reply| Task::op(work, reply)).await
    }
}
