//! Into the queue: many calls in a few statements.
//!
//! Keys that are known and equal jobs that wait are looked up for all calls at once, and what is new is inserted by one
//! statement. A call that names a job twice, or one that another call of the same transaction brings, is done after the others
//! one job at a time: what it joins must be there first.

use super::Sqlite;
use super::attempt::rows as parameter;
use super::batch::{Kind, Op};
use super::direct::{Cell, Direct, Record};
use super::writer::Lane;
use crate::clock::UnixMillis;
use crate::job::{Enqueued, JobId, NewJob, parse_row};
use crate::store::Error;
use crate::store::rows::Columns;
use crate::store::statements as sql;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// Bytes of the references of a row of ordinary length.
const ORDINARY: usize = 512;

/// One call: its jobs, all or none.
pub(super) struct Request {
    pub(super) entries: Vec<Entry>,
    actor: String,
    now: UnixMillis,
}

/// What makes two waiting jobs equal.
type Content<'a> = (&'a str, &'a str, &'a str, &'a str);

/// A job with the strings that the statements need, computed before the writer has it.
pub(super) struct Entry {
    job: NewJob,
    source_key: String,
    dest_key: String,
    registry: String,
    options: String,
}

impl Entry {
    fn new(job: NewJob) -> Self {
        Self {
            source_key: job.parsed.source_key(),
            dest_key: job.parsed.dest_key(),
            registry: job.parsed.dest_registry(),
            options: job.parsed.options.canonical(),
            job,
        }
    }

    /// 1 for a row of ordinary length, more for long references, which stand in several indexes too.
    pub(super) fn weight(&self) -> usize {
        1 + (self.source_key.len() + self.dest_key.len() + self.options.len()) / ORDINARY
    }

    fn content(&self) -> Content<'_> {
        (&self.dest_key, &self.source_key, &self.options, &self.job.queue)
    }

    fn joins(&self) -> bool {
        self.job.joins_equal && self.job.run_at.is_none()
    }

    /// The parameters of the inserting statement, in its order, but for the last.
    fn row<'b>(&'b self, request: &'b Request) -> Vec<Cell<'b>> {
        let (job, now) = (&self.job, request.now);
        let run_at = job.run_at.unwrap_or(now);
        vec![
            job.source.as_str().into(),
            job.destination.as_str().into(),
            self.options.as_str().into(),
            if self.is_pending(now) { "pending" } else { "scheduled" }.into(),
            job.queue.as_str().into(),
            job.priority.into(),
            job.max_attempts.into(),
            run_at.0.into(),
            now.0.into(),
            job.idempotency_key.as_deref().into(),
            self.source_key.as_str().into(),
            self.dest_key.as_str().into(),
            self.registry.as_str().into(),
            request.actor.as_str().into(),
        ]
    }

    fn is_pending(&self, now: UnixMillis) -> bool {
        self.job.run_at.is_none_or(|run_at| run_at <= now)
    }
}

pub(super) struct Enqueues;

impl Kind for Enqueues {
    type Input = Request;
    type Output = Vec<Enqueued>;

    fn run(connection: &Direct, inputs: &[&Request]) -> Result<Vec<Result<Vec<Enqueued>, Error>>, Error> {
        enqueue(connection, inputs)
    }
}

fn enqueue(connection: &Direct, requests: &[&Request]) -> Result<Vec<Result<Vec<Enqueued>, Error>>, Error> {
    let together = independent(requests);
    let mut answers: Vec<Option<Result<Vec<Enqueued>, Error>>> = requests.iter().map(|_| None).collect();
    let wanted = requests.iter().zip(&together).filter(|(_, together)| **together);
    let known = Known::look(connection, &wanted.flat_map(|(request, _)| &request.entries).collect::<Vec<_>>())?;
    // What is new: the call, the place in the call, the row.
    let mut new = Vec::new();
    let mut places = Vec::new();
    for (at, request) in requests.iter().enumerate().filter(|(at, _)| together[*at]) {
        let mut enqueued = Vec::with_capacity(request.entries.len());
        let mut refused = None;
        let mark = new.len();
        let mut joins = Vec::new();
        for entry in &request.entries {
            match known.of(entry) {
                Ok(Some(Found::Key(id))) => enqueued.push(Enqueued { id, created: false }),
                Ok(Some(Found::Equal(id))) => {
                    joins.push((id, &entry.job));
                    enqueued.push(Enqueued { id, created: false });
                }
                Ok(None) => {
                    places.push((at, enqueued.len()));
                    new.push((entry, *request));
                    enqueued.push(Enqueued { id: 0, created: true });
                }
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        if let Some(error) = refused {
            new.truncate(mark);
            places.truncate(mark);
            answers[at] = Some(Err(error));
            continue;
        }
        for (id, job) in joins {
            join(connection, id, job, request.now, &request.actor)?;
        }
        answers[at] = Some(Ok(enqueued));
    }
    for (id, (at, place)) in insert(connection, &new)?.into_iter().zip(places) {
        if let Some(Ok(enqueued)) = &mut answers[at] {
            enqueued[place].id = id;
        }
    }
    one_at_a_time(connection, requests, &mut answers)?;
    Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(|| Ok(Vec::new()))).collect())
}

/// The calls that were put off.
fn one_at_a_time(
    connection: &Direct,
    requests: &[&Request],
    answers: &mut [Option<Result<Vec<Enqueued>, Error>>],
) -> Result<(), Error> {
    for (at, request) in requests.iter().enumerate() {
        if answers[at].is_some() {
            continue;
        }
        let mut enqueued = Vec::with_capacity(request.entries.len());
        for entry in &request.entries {
            // A refusal undoes what the call did so far: the writer then does all calls one by one, this one in a savepoint.
            enqueued.push(enqueue_one(connection, entry, request)?);
        }
        answers[at] = Some(Ok(enqueued));
    }
    Ok(())
}

/// Which calls name no key and no content twice, nor one that a call before them names.
fn independent(requests: &[&Request]) -> Vec<bool> {
    let mut keys: HashSet<&str> = HashSet::new();
    let mut contents: HashSet<Content<'_>> = HashSet::new();
    let mut together = Vec::with_capacity(requests.len());
    for request in requests {
        let mut free = true;
        for entry in &request.entries {
            if let Some(key) = &entry.job.idempotency_key {
                free &= keys.insert(key);
            }
            // A job that joins none may still be joined.
            let first = contents.insert(entry.content());
            free &= first || !entry.joins();
        }
        together.push(free);
    }
    together
}

/// The rows' ids, in the order of the rows.
fn insert(connection: &Direct, new: &[(&Entry, &Request)]) -> Result<Vec<JobId>, Error> {
    if new.is_empty() {
        return Ok(Vec::new());
    }
    // Each insert writes one event: in this transaction their numbers are known before. The database checks them.
    let mut event = connection.one(sql::NEWEST_EVENT, [], |row| row.int("seq"))?;
    let mut rows = Vec::with_capacity(new.len());
    for (entry, request) in new {
        event += 1;
        let mut row = entry.row(request);
        row.push(entry.is_pending(request.now).then_some(event).into());
        rows.push(row);
    }
    let mut ids = connection.many(sql::INSERT, &rows, |row| row.int("id"))?;
    // Ids rise in the order of the inserts, whatever the order of RETURNING.
    ids.sort_unstable();
    if ids.len() != new.len() {
        return Err(Error::Invalid("a job was not inserted: its idempotency key is known".to_owned()));
    }
    Ok(ids)
}

/// What a job that was asked for meets.
enum Found {
    /// The job that its key names.
    Key(JobId),
    /// An equal job that waits.
    Equal(JobId),
}

/// A known key, and the job that it names; that is None when the job is not kept any more.
struct KeyRow {
    job: JobId,
    content: Option<Asked>,
}

/// What a job asks for, as its row says.
struct Asked {
    source: String,
    destination: String,
    options: String,
    queue: String,
}

/// Keys and equal jobs that the database knows, for many entries.
struct Known {
    keys: HashMap<String, KeyRow>,
    equal: HashMap<(String, String, String, String), JobId>,
}

impl Known {
    fn look(connection: &Direct, entries: &[&Entry]) -> Result<Self, Error> {
        let mut known = Self { keys: HashMap::new(), equal: HashMap::new() };
        let keys: Vec<Value> =
            entries.iter().filter_map(|entry| entry.job.idempotency_key.clone().map(Value::from)).collect();
        if !keys.is_empty() {
            known.keys = connection.all(sql::KEYS, [parameter(keys)], key_row)?.into_iter().collect();
        }
        let joining: Vec<&Entry> = entries.iter().filter(|entry| entry.joins()).copied().collect();
        let contents: Vec<Vec<Cell<'_>>> = joining
            .iter()
            .zip(0i64..)
            .map(|(entry, at)| {
                let (target, source, options, queue) = entry.content();
                vec![at.into(), target.into(), source.into(), options.into(), queue.into()]
            })
            .collect();
        for (at, id) in connection.many(sql::EQUAL, &contents, |row| Ok((row.int("at")?, row.int("id")?)))? {
            if let Some(entry) = usize::try_from(at).ok().and_then(|at| joining.get(at)) {
                let (target, source, options, queue) = entry.content();
                let content = (target.to_owned(), source.to_owned(), options.to_owned(), queue.to_owned());
                known.equal.insert(content, id);
            }
        }
        Ok(known)
    }

    /// What this job meets; None when it is new.
    ///
    /// # Errors
    /// [`Error::KeyConflict`].
    fn of(&self, entry: &Entry) -> Result<Option<Found>, Error> {
        if let Some(key) = &entry.job.idempotency_key
            && let Some(row) = self.keys.get(key)
        {
            return same_content(row, key, entry).map(|id| Some(Found::Key(id)));
        }
        if !entry.joins() || self.equal.is_empty() {
            return Ok(None);
        }
        let (target, source, options, queue) = entry.content();
        let content = (target.to_owned(), source.to_owned(), options.to_owned(), queue.to_owned());
        Ok(self.equal.get(&content).map(|id| Found::Equal(*id)))
    }
}

fn key_row(row: &Record<'_>) -> Result<(String, KeyRow), Error> {
    let content = match row.text_option("source")? {
        None => None,
        Some(source) => Some(Asked {
            source,
            destination: row.text("destination")?,
            options: row.text("options")?,
            queue: row.text("queue")?,
        }),
    };
    Ok((row.text("key")?, KeyRow { job: row.int("job_id")?, content }))
}

/// The job that a known key names. A key with other content is an error that names the fields.
fn same_content(row: &KeyRow, key: &str, entry: &Entry) -> Result<JobId, Error> {
    let id = row.job;
    let Some(Asked { source, destination, options, queue }) = &row.content else {
        // The job is not kept any more; what it asked for was done.
        return Ok(id);
    };
    let known = serde_json::from_str(options).ok().and_then(|options| parse_row(source, destination, &options).ok());
    let differences: Vec<&str> = match known {
        Some(known) => [
            ("source", known.source_key() != entry.source_key),
            ("destination", known.dest_key() != entry.dest_key),
            ("options", known.options.canonical() != entry.options),
            ("queue", *queue != entry.job.queue),
        ]
        .into_iter()
        .filter_map(|(field, differs)| differs.then_some(field))
        .collect(),
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

fn enqueue_one(connection: &Direct, entry: &Entry, request: &Request) -> Result<Enqueued, Error> {
    match Known::look(connection, &[entry])?.of(entry)? {
        Some(Found::Key(id)) => Ok(Enqueued { id, created: false }),
        Some(Found::Equal(id)) => {
            join(connection, id, &entry.job, request.now, &request.actor)?;
            Ok(Enqueued { id, created: false })
        }
        None => {
            let ids = insert(connection, &[(entry, request)])?;
            let id = ids.first().copied().ok_or_else(|| Error::Invalid("a job was not inserted".to_owned()))?;
            Ok(Enqueued { id, created: true })
        }
    }
}

/// An equal job that waits takes the better priority and the earlier time, and the new key as a second one.
fn join(connection: &Direct, id: JobId, job: &NewJob, now: UnixMillis, actor: &str) -> Result<(), Error> {
    connection.run(sql::JOIN, (id, job.priority, now.0, actor))?;
    connection.run(sql::JOINED, (id, now.0, actor))?;
    if let Some(key) = &job.idempotency_key {
        connection.run(sql::KEY_ADD, (key, id, now.0))?;
    }
    Ok(())
}

impl Sqlite {
    pub(in crate::store) async fn enqueue(&self, jobs: Vec<NewJob>, actor: &str) -> Result<Vec<Enqueued>, Error> {
        let entries = jobs.into_iter().map(Entry::new).collect();
        let request = Request { entries, actor: actor.to_owned(), now: self.inner.clock.now() };
        let enqueued = self.inner.writer.send(Lane::Bulk, |reply| Op::Enqueue(request, reply)).await;
        enqueued.inspect(|_| self.inner.watch.committed())
    }
}
