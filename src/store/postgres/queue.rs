//! Into the queue: enqueue, due, intake; and what there is to do.

use super::claim::Claimer;
use super::connect::{Again, Connections, Failed, Statement, plain};
use super::lane::Lane;
use super::{KEY_BYTES, NEWEST_SCHEMA, Postgres, int, statements as sql, test_time};
use crate::clock::{Clock, UnixMillis};
use crate::job::{Enqueued, Invalid, JobId, NewJob, Parsed, parse_row};
use crate::store::error::check_schema;
use crate::store::rows::Columns;
use crate::store::{Error, Intake, Waiting};
use sqlx::postgres::PgRow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Rows that intake parses in one go.
const INTAKE_BATCH: i64 = 500;
/// Scheduled rows that become pending in one statement.
const DUE_BATCH: i64 = 1000;
/// Jobs that one statement inserts at most, unless a single request has more.
const ENQUEUE_BATCH: usize = 2000;
/// An enqueue of at most so many is followed by a claim in the same transaction, when somebody waits for jobs.
const CLAIMED_AT_ONCE: usize = 64;
/// How often an enqueue looks again when somebody else used one of its keys between look and insert.
const KEY_RACES: u32 = 5;

/// Jobs that one caller wants enqueued, all or none.
pub(super) struct Wish {
    jobs: Vec<NewJob>,
    actor: String,
}

pub(super) type Enqueues = Lane<Wish, Vec<Enqueued>>;

/// Starts the lane.
pub(super) fn enqueues(bulk: Arc<Connections>, claimer: Arc<Claimer>, clock: Clock) -> Enqueues {
    let inserter = Arc::new(Inserter { bulk, claimer, clock });
    Lane::start(Box::new(move |wishes| {
        let inserter = inserter.clone();
        Box::pin(async move { inserter.run(wishes).await })
    }))
}

impl Postgres {
    pub(in crate::store) async fn enqueue(&self, jobs: Vec<NewJob>, actor: &str) -> Result<Vec<Enqueued>, Error> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(bytes) = jobs.iter().filter_map(|job| Some(job.idempotency_key.as_ref()?.len())).max()
            && bytes > KEY_BYTES
        {
            return Err(Error::Invalid(format!(
                "idempotency key: it has {bytes} bytes, PostgreSQL takes {KEY_BYTES} at most: use a shorter one, for example a \
                 hash of it"
            )));
        }
        let enqueued = self.inner.enqueues.ask(Wish { jobs, actor: plain(actor) }).await?;
        self.inner.listener.asked();
        Ok(enqueued)
    }

    pub(in crate::store) async fn load_number(&self, content_hash: &str) -> Result<u64, Error> {
        let statement = Statement::new(sql::LOADS).bind_text(content_hash);
        Ok(self.inner.readers.row(&statement).await?.count("loads")? + 1)
    }

    pub(in crate::store) async fn load_finished(&self, content_hash: &str, number: u64) -> Result<(), Error> {
        let statement =
            Statement::new(sql::LOAD_FINISHED).bind_text(content_hash).bind(int(number)).bind(self.inner.now());
        self.inner.bulk.rows(Again::Harmless, &statement).await?;
        Ok(())
    }

    pub(in crate::store) fn was_asked(&self) -> bool {
        self.inner.listener.was_asked()
    }

    pub(in crate::store) async fn waiting(&self) -> Result<Waiting, Error> {
        let row = self.inner.control.row(&Statement::new(sql::WAITING).bind(self.inner.now())).await?;
        check_schema(row.int("schema")?, NEWEST_SCHEMA)?;
        // Told as a time of our own clock, which may differ from the database's.
        let (theirs, ours) = (UnixMillis(row.int("now")?), self.inner.clock.now());
        Ok(Waiting {
            due: row.flag("due")?,
            intake: row.flag("intake")?,
            pending: row.flag("pending")?,
            next_run_at: row
                .time("next_run_at")?
                .map(|at| UnixMillis(at.0.saturating_sub(theirs.0).saturating_add(ours.0))),
        })
    }

    pub(in crate::store) async fn busy(&self, queue: Option<&str>) -> Result<bool, Error> {
        self.inner.control.row(&Statement::new(sql::BUSY).bind(queue.map(plain))).await?.flag("busy")
    }

    pub(in crate::store) async fn last_event(&self) -> Result<i64, Error> {
        self.inner.control.row(&Statement::new(sql::LAST_EVENT)).await?.int("seq")
    }

    pub(in crate::store) async fn failed_since(&self, seq: i64, queue: Option<&str>) -> Result<u64, Error> {
        let statement = Statement::new(sql::FAILED_SINCE).bind(seq).bind(queue.map(plain));
        self.inner.readers.row(&statement).await?.count("failed")
    }

    pub(in crate::store) async fn due(&self) -> Result<u64, Error> {
        let statement = Statement::new(sql::DUE).bind(self.inner.now()).bind(DUE_BATCH);
        self.inner.control.row(&statement).await?.count("jobs")
    }

    pub(in crate::store) async fn intake(&self) -> Result<Intake, Error> {
        self.take_in(self.unparsed().await?).await
    }

    /// Rows of plain SQL that wait, parsed. Nothing is written.
    pub(super) async fn unparsed(&self) -> Result<Unparsed, Error> {
        let rows = self.inner.bulk.rows(Again::Harmless, &Statement::new(sql::UNPARSED).bind(INTAKE_BATCH)).await?;
        let mut unparsed = Unparsed::default();
        for row in &rows {
            let id = row.int("id")?;
            match parse(row)? {
                Ok(parsed) => unparsed.good.push((id, parsed)),
                Err(Invalid(message)) => unparsed.bad.push((id, message)),
            }
        }
        Ok(unparsed)
    }

    pub(super) async fn take_in(&self, unparsed: Unparsed) -> Result<Intake, Error> {
        let Unparsed { good, mut bad } = unparsed;
        let mut intake = Intake::default();
        match self.accept(&good).await {
            Ok(accepted) => intake.accepted = accepted,
            // One that the database does not take, for example too long for an index: which one?
            Err(Error::Invalid(_)) => {
                for one in &good {
                    match self.accept(std::slice::from_ref(one)).await {
                        Ok(accepted) => intake.accepted += accepted,
                        Err(Error::Invalid(message)) => bad.push((one.0, message)),
                        Err(error) => return Err(error),
                    }
                }
            }
            Err(error) => return Err(error),
        }
        if !bad.is_empty() {
            let (ids, messages): (Vec<JobId>, Vec<String>) =
                bad.into_iter().map(|(id, message)| (id, plain(&message))).unzip();
            let statement = Statement::new(sql::REJECT).bind(ids).bind(messages).bind(self.inner.now());
            for row in self.inner.bulk.rows(Again::Harmless, &statement).await? {
                intake.rejected.push((row.int("id")?, row.text("failure_message")?));
            }
        }
        Ok(intake)
    }

    async fn accept(&self, good: &[(JobId, Parsed)]) -> Result<u64, Error> {
        if good.is_empty() {
            return Ok(0);
        }
        self.inner.bulk.row(&bind_parsed(Statement::new(sql::PARSED), good)).await?.count("jobs")
    }
}

/// Rows of plain SQL: what they ask for, or what is wrong with them.
#[derive(Debug, Default)]
pub(super) struct Unparsed {
    pub(super) good: Vec<(JobId, Parsed)>,
    pub(super) bad: Vec<(JobId, String)>,
}

/// Gives a statement its first five parameters: ids, sources, targets, registries, options.
pub(super) fn bind_parsed(statement: Statement, parsed: &[(JobId, Parsed)]) -> Statement {
    let column = |text: fn(&Parsed) -> String| parsed.iter().map(|(_, parsed)| text(parsed)).collect::<Vec<_>>();
    statement
        .bind(parsed.iter().map(|(id, _)| *id).collect::<Vec<_>>())
        .bind(column(Parsed::source_key))
        .bind(column(Parsed::dest_key))
        .bind(column(Parsed::dest_registry))
        .bind(column(|parsed| parsed.options.canonical()))
}

/// What a row of plain SQL asks for.
fn parse(row: &PgRow) -> Result<Result<Parsed, Invalid>, Error> {
    if row.text("kind")? != "copy" {
        let message = "a job of kind expand belongs to a batch: use freightliner replicate-tree, sync or mirror run, or insert one row of kind copy for each image";
        return Ok(Err(Invalid(message.to_owned())));
    }
    let (source, destination) = (row.text("source")?, row.text("destination")?);
    Ok(serde_json::from_str(&row.text("options")?)
        .map_err(|error| Invalid(format!("options: {error}")))
        .and_then(|options| parse_row(&source, &destination, &options)))
}

struct Inserter {
    bulk: Arc<Connections>,
    claimer: Arc<Claimer>,
    clock: Clock,
}

impl Inserter {
    async fn run(&self, wishes: Vec<Wish>) -> Vec<Result<Vec<Enqueued>, Error>> {
        let mut answers = Vec::with_capacity(wishes.len());
        let mut rest = &wishes[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(portion(rest));
            match self.together(now).await {
                Ok(enqueued) => answers.extend(enqueued.into_iter().map(Ok)),
                Err(error) if now.len() == 1 => answers.push(Err(error)),
                // Somebody's fault, or a key of two of them: each for itself then.
                Err(Error::Invalid(_) | Error::KeyConflict(_)) => {
                    for wish in now {
                        let alone = self.together(std::slice::from_ref(wish)).await;
                        answers.push(alone.map(|mut enqueued| enqueued.pop().unwrap_or_default()));
                    }
                }
                Err(error) => answers.extend(now.iter().map(|_| Err(error.clone()))),
            }
            rest = later;
        }
        answers
    }

    /// All of them in one statement.
    async fn together(&self, wishes: &[Wish]) -> Result<Vec<Vec<Enqueued>>, Error> {
        for _ in 0..KEY_RACES {
            let known = self.known_keys(wishes).await?;
            let mut plan = Plan::default();
            let places: Vec<Vec<Place>> = wishes
                .iter()
                .map(|wish| wish.jobs.iter().map(|job| plan.add(job, &wish.actor, &known)).collect())
                .collect::<Result<_, Error>>()?;
            let inserted = if plan.jobs.is_empty() {
                Vec::new()
            } else {
                match self.insert(&plan).await {
                    Ok(inserted) => inserted?,
                    Err(failed) if failed.is_duplicate() => continue,
                    Err(failed) => return Err(failed.into()),
                }
            };
            let of = |place: &Place| match *place {
                Place::Known(id) => Enqueued { id, created: false },
                Place::New(at) => inserted[at],
                Place::SameAs(at) => Enqueued { created: false, ..inserted[at] },
            };
            return Ok(places.iter().map(|places| places.iter().map(of).collect()).collect());
        }
        Err(Error::Backend { message: "others use the same idempotency keys at the same time".to_owned(), busy: true })
    }

    /// In the order of the plan. A worker that waits for jobs claims them in the same transaction.
    async fn insert(&self, plan: &Plan<'_>) -> Result<Result<Vec<Enqueued>, Error>, Failed> {
        if plan.jobs.len() <= CLAIMED_AT_ONCE
            && let Some(behind) = self.claimer.behind()
        {
            let statement = Claimer::bind_behind(&behind, plan.statement(sql::ENQUEUE_AND_CLAIM, &self.clock));
            match self.bulk.rows(Again::NeverNorLocked, &statement).await {
                Ok(rows) => {
                    let (claimed, mut inserted): (Vec<_>, Vec<_>) =
                        rows.into_iter().partition(|row| matches!(row.int_option("place"), Ok(None)));
                    self.claimer.hand_out(behind, claimed);
                    inserted.sort_by_key(|row| row.int("place").unwrap_or_default());
                    return Ok(inserted.iter().map(|row| enqueued(row, "enqueued")).collect());
                }
                Err(failed) if failed.unknown => {
                    self.claimer.doubt(behind.lease_ttl());
                    return Err(failed);
                }
                // The claim's fault, or that of the jobs: they are tried without it.
                Err(failed) => tracing::debug!(error = %failed.error, "an enqueue with a claim behind it failed"),
            }
        }
        let rows = self.bulk.rows(Again::Never, &plan.statement(sql::ENQUEUE, &self.clock)).await?;
        Ok(rows.iter().map(|row| enqueued(row, "id")).collect())
    }

    async fn known_keys(&self, wishes: &[Wish]) -> Result<HashMap<String, PgRow>, Error> {
        let keys: HashSet<&String> =
            wishes.iter().flat_map(|wish| &wish.jobs).filter_map(|job| job.idempotency_key.as_ref()).collect();
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let keys: Vec<String> = keys.into_iter().map(|key| plain(key)).collect();
        let rows = self.bulk.rows(Again::Harmless, &Statement::new(sql::KEYS).bind(keys)).await?;
        rows.into_iter().map(|row| Ok((row.text("key")?, row))).collect()
    }
}

fn enqueued(row: &PgRow, id: &str) -> Result<Enqueued, Error> {
    Ok(Enqueued { id: row.int(id)?, created: row.flag("created")? })
}

/// How many of the wishes go into one statement.
fn portion(wishes: &[Wish]) -> usize {
    let mut jobs = 0;
    let fit = wishes.iter().take_while(|wish| {
        jobs += wish.jobs.len();
        jobs <= ENQUEUE_BATCH
    });
    fit.count().max(1)
}

/// Where the answer for a job comes from.
enum Place {
    /// It was there before.
    Known(JobId),
    /// The statement's row of this number.
    New(usize),
    /// The same, for a second job with the same key.
    SameAs(usize),
}

/// What one statement inserts.
#[derive(Default)]
struct Plan<'a> {
    jobs: Vec<(&'a NewJob, &'a str)>,
    keys: HashMap<&'a str, usize>,
}

impl<'a> Plan<'a> {
    fn add(&mut self, job: &'a NewJob, actor: &'a str, known: &HashMap<String, PgRow>) -> Result<Place, Error> {
        if let Some(key) = &job.idempotency_key {
            if let Some(row) = known.get(key) {
                return same_content(key, row, job).map(Place::Known);
            }
            if let Some(&at) = self.keys.get(key.as_str()) {
                let differences = differences(&self.jobs[at].0.parsed, &self.jobs[at].0.queue, job);
                if differences.is_empty() {
                    return Ok(Place::SameAs(at));
                }
                return Err(Error::KeyConflict(format!(
                    "idempotency key `{key}` is asked for twice, with different {}: use another key",
                    differences.join(", ")
                )));
            }
            self.keys.insert(key, self.jobs.len());
        }
        self.jobs.push((job, actor));
        Ok(Place::New(self.jobs.len() - 1))
    }

    fn statement(&self, text: &'static str, clock: &Clock) -> Statement {
        let column =
            |value: fn(&NewJob) -> String| self.jobs.iter().map(|(job, _)| plain(&value(job))).collect::<Vec<_>>();
        let number = |value: fn(&NewJob) -> i64| self.jobs.iter().map(|(job, _)| value(job)).collect::<Vec<_>>();
        Statement::new(text)
            .bind(column(|job| job.source.clone()))
            .bind(column(|job| job.destination.clone()))
            .bind(column(|job| job.parsed.options.canonical()))
            .bind(column(|job| job.queue.clone()))
            .bind(number(|job| job.priority))
            .bind(number(|job| job.max_attempts))
            .bind(self.jobs.iter().map(|(job, _)| job.run_at.map(|at| at.0)).collect::<Vec<_>>())
            .bind(self.jobs.iter().map(|(job, _)| job.idempotency_key.as_deref().map(plain)).collect::<Vec<_>>())
            .bind(column(|job| job.parsed.source_key()))
            .bind(column(|job| job.parsed.dest_key()))
            .bind(column(|job| job.parsed.dest_registry()))
            .bind(self.jobs.iter().map(|(job, _)| job.joins_equal).collect::<Vec<_>>())
            .bind(self.jobs.iter().map(|(_, actor)| plain(actor)).collect::<Vec<_>>())
            .bind(test_time(clock))
    }
}

fn differences(known: &Parsed, queue: &str, job: &NewJob) -> Vec<&'static str> {
    [
        ("source", known.source_key() != job.parsed.source_key()),
        ("destination", known.dest_key() != job.parsed.dest_key()),
        ("options", known.options.canonical() != job.parsed.options.canonical()),
        ("queue", queue != job.queue),
    ]
    .into_iter()
    .filter_map(|(field, differs)| differs.then_some(field))
    .collect()
}

/// The job that a known key names. A key with other content is an error that names the fields.
fn same_content(key: &str, row: &PgRow, job: &NewJob) -> Result<JobId, Error> {
    let id = row.int("job_id")?;
    if !row.flag("kept")? {
        // The job is not kept any more; what it asked for was done.
        return Ok(id);
    }
    let (source, destination) = (row.text("source")?, row.text("destination")?);
    let known = serde_json::from_str(&row.text("options")?)
        .ok()
        .and_then(|options| parse_row(&source, &destination, &options).ok());
    let differences = match known {
        Some(known) => differences(&known, &row.text("queue")?, job),
        // It came by SQL and does not parse: what was asked now does.
        None => vec!["source or destination"],
    };
    if differences.is_empty() {
        return Ok(id);
    }
    Err(Error::KeyConflict(format!(
        "idempotency key `{key}` belongs to job {id}, which differs in {}: use another key",
        differences.join(", ")
    )))
}
