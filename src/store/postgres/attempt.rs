//! The fenced writes of an attempt: renew, confirm, settle. Each names the epoch; a row that has another one is not touched.
//!
//! A row that somebody else's open transaction has locked is passed over and asked for again on its own, so that it delays
//! nobody else's renewal.

use super::connect::{Again, Connections, Statement, plain};
use super::lane::Lane;
use super::{Postgres, int, millis, statements as sql, test_time};
use crate::clock::Clock;
use crate::job::{Progress, Transfer};
use crate::store::rows::Columns;
use crate::store::{Claim, Confirmed, Error, Fence, Held, Outcome, Settled, Work};
use sqlx::postgres::PgRow;
use std::sync::Arc;
use std::time::Duration;

/// Pauses between tries on a row that is locked; then the caller is told that the database is busy.
const LOCKED_PAUSES: [Duration; 7] = [
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(1),
];

/// A lease that is to hold for another while.
#[derive(Clone)]
pub(super) struct Renewal {
    fence: Fence,
    ttl_ms: i64,
    work: Work,
    /// The target, when it is asked whether the tag may be written.
    confirm: Option<String>,
}

/// An attempt that ends.
#[derive(Clone)]
pub(super) struct End {
    fence: Fence,
    outcome: Outcome,
    work: Work,
    transfers: Vec<Transfer>,
}

/// None: the row is locked by somebody.
pub(super) type Renewals = Lane<Renewal, Option<Confirmed>>;
/// None: the row is locked by somebody.
pub(super) type Ends = Lane<End, Option<Settled>>;

/// Starts the lane.
pub(super) fn renewals(control: Arc<Connections>, clock: Clock) -> Renewals {
    Lane::start(Box::new(move |renewals| {
        let (control, clock) = (control.clone(), clock.clone());
        Box::pin(async move { renew(&control, &clock, renewals).await })
    }))
}

/// Starts the lane.
pub(super) fn ends(control: Arc<Connections>, clock: Clock) -> Ends {
    Lane::start(Box::new(move |ends| {
        let (control, clock) = (control.clone(), clock.clone());
        Box::pin(async move { end(&control, &clock, ends).await })
    }))
}

impl Postgres {
    pub(in crate::store) async fn renew(&self, fence: Fence, ttl: Duration, work: Work) -> Result<Held, Error> {
        let renewal = Renewal { fence, ttl_ms: millis(ttl), work, confirm: None };
        Ok(match self.renewed(renewal).await? {
            Confirmed::Yes | Confirmed::Superseded { .. } => Held::Yes,
            Confirmed::CancelRequested => Held::CancelRequested,
            Confirmed::Lost => Held::Lost,
        })
    }

    pub(in crate::store) async fn confirm(&self, claim: &Claim, ttl: Duration, work: Work) -> Result<Confirmed, Error> {
        // An operator who asks again means it.
        let confirm = (claim.job.generation == 1).then(|| claim.dest_key.clone());
        self.renewed(Renewal { fence: claim.fence(), ttl_ms: millis(ttl), work, confirm }).await
    }

    async fn renewed(&self, renewal: Renewal) -> Result<Confirmed, Error> {
        let renewed = unlocked(|| self.inner.renewals.ask(renewal.clone())).await?;
        if renewed == Confirmed::Lost {
            self.inner.known.forget(renewal.fence);
        }
        Ok(renewed)
    }

    pub(in crate::store) async fn settle(
        &self,
        claim: &Claim,
        outcome: Outcome,
        work: Work,
        transfers: Vec<Transfer>,
    ) -> Result<Settled, Error> {
        let end = End { fence: claim.fence(), outcome, work, transfers };
        let settled = unlocked(|| self.inner.ends.ask(end.clone())).await?;
        self.inner.known.forget(end.fence);
        self.inner.listener.committed();
        Ok(settled)
    }

    pub(in crate::store) async fn cancel_asked(&self, worker: uuid::Uuid) -> Result<Vec<Fence>, Error> {
        let statement = Statement::new(sql::CANCEL_ASKED).bind(worker.to_string());
        let rows = self.inner.control.rows(Again::Harmless, &statement).await?;
        rows.iter().map(|row| Ok(Fence { job: row.int("id")?, epoch: row.int("lease_epoch")? })).collect()
    }

    pub(in crate::store) async fn temp_register(
        &self,
        path: String,
        worker: uuid::Uuid,
        fence: Fence,
    ) -> Result<(), Error> {
        let statement = Statement::new(sql::TEMP_REGISTER)
            .bind_text(&path)
            .bind(worker.to_string())
            .bind(fence.job)
            .bind(fence.epoch)
            .bind(self.inner.now());
        self.inner.control.rows(Again::Never, &statement).await?;
        Ok(())
    }

    pub(in crate::store) async fn temp_forget(&self, paths: Vec<String>) -> Result<(), Error> {
        let paths: Vec<String> = paths.iter().map(|path| plain(path)).collect();
        self.inner.control.rows(Again::Harmless, &Statement::new(sql::TEMP_FORGET).bind(paths)).await?;
        Ok(())
    }
}

/// Asks until the row is free.
async fn unlocked<T, F: Future<Output = Result<Option<T>, Error>>>(ask: impl Fn() -> F) -> Result<T, Error> {
    let mut pauses = LOCKED_PAUSES.into_iter();
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        let Some(pause) = pauses.next() else {
            let message = "somebody else's open transaction has locked the job's row".to_owned();
            return Err(Error::Backend { message, busy: true });
        };
        tokio::time::sleep(pause).await;
    }
}

/// The same error for each.
fn all<T>(count: usize, error: &Error) -> Vec<Result<T, Error>> {
    (0..count).map(|_| Err(error.clone())).collect()
}

/// Progress as four columns, NULL before anything is known.
fn progress_columns(works: &[Work]) -> [Vec<Option<i64>>; 4] {
    let column = |value: fn(&Progress) -> u64| {
        works.iter().map(|work| work.progress.as_ref().map(|progress| int(value(progress)))).collect()
    };
    [
        column(|progress| progress.bytes_done),
        column(|progress| progress.bytes_total),
        column(|progress| progress.blobs_done),
        column(|progress| progress.blobs_total),
    ]
}

async fn renew(control: &Connections, clock: &Clock, renewals: Vec<Renewal>) -> Vec<Result<Option<Confirmed>, Error>> {
    let works: Vec<Work> = renewals.iter().map(|renewal| renewal.work).collect();
    let [bytes_done, bytes_total, blobs_done, blobs_total] = progress_columns(&works);
    let statement = Statement::new(sql::RENEW)
        .bind(renewals.iter().map(|renewal| renewal.fence.job).collect::<Vec<_>>())
        .bind(renewals.iter().map(|renewal| renewal.fence.epoch).collect::<Vec<_>>())
        .bind(renewals.iter().map(|renewal| renewal.ttl_ms).collect::<Vec<_>>())
        .bind(bytes_done)
        .bind(bytes_total)
        .bind(blobs_done)
        .bind(blobs_total)
        .bind(works.iter().map(|work| int(work.bytes_moved)).collect::<Vec<_>>())
        .bind(renewals.iter().map(|renewal| renewal.confirm.clone()).collect::<Vec<_>>())
        .bind(test_time(clock));
    match control.rows(Again::Harmless, &statement).await {
        Ok(rows) => rows.iter().map(confirmed).collect(),
        Err(failed) => all(renewals.len(), &failed.into()),
    }
}

fn confirmed(row: &PgRow) -> Result<Option<Confirmed>, Error> {
    Ok(if row.flag("locked")? {
        None
    } else if !row.flag("held")? {
        Some(Confirmed::Lost)
    } else if row.flag("cancel")? {
        Some(Confirmed::CancelRequested)
    } else {
        Some(row.int_option("newer")?.map_or(Confirmed::Yes, |by| Confirmed::Superseded { by }))
    })
}

async fn end(control: &Connections, clock: &Clock, ends: Vec<End>) -> Vec<Result<Option<Settled>, Error>> {
    let ends = &ends[..];
    let error = match end_together(control, clock, ends).await {
        Ok(settled) => return settled.into_iter().map(Ok).collect(),
        Err(error) => error,
    };
    if ends.len() == 1 || error.is_transient() {
        return all(ends.len(), &error);
    }
    // One of them breaks a rule of the database: the others must not suffer.
    let mut answers = Vec::with_capacity(ends.len());
    for end in ends {
        let alone = end_together(control, clock, std::slice::from_ref(end)).await;
        answers.push(alone.map(|mut settled| settled.pop().flatten()));
    }
    answers
}

async fn end_together(control: &Connections, clock: &Clock, ends: &[End]) -> Result<Vec<Option<Settled>>, Error> {
    let works: Vec<Work> = ends.iter().map(|end| end.work).collect();
    let [bytes_done, bytes_total, blobs_done, blobs_total] = progress_columns(&works);
    let says = ends.iter().map(|end| Said::of(&end.outcome)).collect::<Result<Vec<_>, Error>>()?;
    let text = |value: fn(&Said) -> Option<&str>| says.iter().map(|said| value(said).map(plain)).collect::<Vec<_>>();
    let transfers: Vec<(i64, &Transfer)> =
        (1..).zip(ends).flat_map(|(place, end)| end.transfers.iter().map(move |transfer| (place, transfer))).collect();
    let of_transfers =
        |value: fn(&Transfer) -> &str| transfers.iter().map(|(_, transfer)| plain(value(transfer))).collect::<Vec<_>>();
    let statement = Statement::new(sql::SETTLE)
        .bind(ends.iter().map(|end| end.fence.job).collect::<Vec<_>>())
        .bind(ends.iter().map(|end| end.fence.epoch).collect::<Vec<_>>())
        .bind(text(|said| Some(said.how)))
        .bind(text(|said| said.report.as_deref()))
        .bind(text(|said| said.stage.as_deref()))
        .bind(text(|said| said.class.as_deref()))
        .bind(text(|said| said.message.as_deref()))
        .bind(says.iter().map(|said| said.retry_ms).collect::<Vec<_>>())
        .bind(text(|said| said.reason))
        .bind(bytes_done)
        .bind(bytes_total)
        .bind(blobs_done)
        .bind(blobs_total)
        .bind(works.iter().map(|work| int(work.bytes_moved)).collect::<Vec<_>>())
        .bind(transfers.iter().map(|(place, _)| *place).collect::<Vec<_>>())
        .bind(of_transfers(|transfer| &transfer.registry))
        .bind(of_transfers(|transfer| &transfer.repository))
        .bind(of_transfers(|transfer| &transfer.digest))
        .bind(transfers.iter().map(|(_, transfer)| int(transfer.bytes)).collect::<Vec<_>>())
        .bind(of_transfers(|transfer| transfer.how.as_str()))
        .bind(test_time(clock));
    control.rows(Again::Harmless, &statement).await?.iter().map(settled).collect()
}

fn settled(row: &PgRow) -> Result<Option<Settled>, Error> {
    if row.flag("locked")? {
        return Ok(None);
    }
    // Ended now, or by the same request before, whose answer was lost.
    let Some(state) = row.text_option("state")?.or(row.text_option("before")?) else {
        return Ok(Some(Settled::LeaseLost));
    };
    Ok(Some(Settled::Now(state.parse().map_err(|error| Error::Unusable(format!("{error}")))?)))
}

/// An outcome as columns.
#[derive(Default)]
struct Said {
    how: &'static str,
    report: Option<String>,
    stage: Option<String>,
    class: Option<String>,
    message: Option<String>,
    retry_ms: Option<i64>,
    reason: Option<&'static str>,
}

impl Said {
    fn of(outcome: &Outcome) -> Result<Self, Error> {
        Ok(match outcome {
            Outcome::Completed(report) => {
                let report =
                    serde_json::to_string(report).map_err(|error| Error::Invalid(format!("report: {error}")))?;
                // What the database's JSON cannot hold.
                Self { how: "completed", report: Some(report.replace("\\u0000", "\\ufffd")), ..Self::default() }
            }
            Outcome::Failed { failure, retry_in } => Self {
                how: "failed",
                stage: Some(failure.stage.clone()),
                class: Some(failure.class.clone()),
                message: Some(failure.message.clone()),
                retry_ms: retry_in.map(millis),
                ..Self::default()
            },
            Outcome::Cancelled => Self { how: "cancelled", ..Self::default() },
            Outcome::Released { reason } => Self { how: "released", reason: Some(reason), ..Self::default() },
        })
    }
}
