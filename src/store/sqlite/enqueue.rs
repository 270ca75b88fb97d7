//! Into the queue: many calls in a few statements.
//!
//! Keys that are known and equal jobs that wait are looked up for all calls at once, and what is new is inserted by one
//! statement. A call that names a job twice, or one that another call of the same transaction brings, is done after the others
//! one job at a time: what it joins must be there first.

use super::Sqlite;
use super::attempt::rows as parameter;
use super::batch::{Kind, Op};
use super::direct::Direct;
use super::writer::Lane;
use crate::clock::UnixMillis;
use crate::job::{Enqueued, JobId, NewJob, parse_row};
use crate::store::Error;
use crate::store::rows::Columns;
use crate::store::statements as sql;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

/// One call: its jobs, all or none.
pub(super) struct Request {
    pub(super) jobs: Vec<NewJob>,
    actor: String,
    now: UnixMillis,
}

/// What makes two waiting jobs equal.
type Content<'a> = (&'a str, &'a str, &'a str, &'a str);

/// The strings of a job that the statements need, computed once.
struct Entry<'a> {
    job: &'a NewJob,
    source_key: String,
    dest_key: String,
    options: String,
}

impl<'a> Entry<'a> {
    fn new(job: &'a NewJob) -> Self {
        Self {
            job,
            source_key: job.parsed.source_key(),
            dest_key: job.parsed.dest_key(),
            options: job.parsed.options.canonical(),
        }
    }

    fn content(&self) -> Content<'_> {
        (&self.dest_key, &self.source_key, &self.options, &self.job.queue)
    }

    fn joins(&self) -> bool {
        self.job.joins_equal && self.job.run_at.is_none()
    }

    fn row(&self, now: UnixMillis, actor: &str) -> Value {
        let job = self.job;
        let run_at = job.run_at.unwrap_or(now);
        json!([
            job.source,
            job.destination,
            self.options,
            if run_at > now { "scheduled" } else { "pending" },
            job.queue,
            job.priority,
            job.max_attempts,
            run_at.0,
            now.0,
            job.idempotency_key,
            self.source_key,
            self.dest_key,
            job.parsed.dest_registry(),
            actor
        ])
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
    let entries: Vec<Vec<Entry<'_>>> =
        requests.iter().map(|request| request.jobs.iter().map(Entry::new).collect()).collect();
    let together = independent(&entries);
    let mut answers: Vec<Option<Result<Vec<Enqueued>, Error>>> = requests.iter().map(|_| None).collect();
    let known = Known::look(connection, &entries, &together)?;
    // What is new: the call, the place in the call, the row.
    let mut new = Vec::new();
    let mut places = Vec::new();
    for (at, request) in requests.iter().enumerate().filter(|(at, _)| together[*at]) {
        let mut enqueued = Vec::with_capacity(request.jobs.len());
        let mut refused = None;
        let mark = new.len();
        let mut joins = Vec::new();
        for entry in &entries[at] {
            match known.of(entry) {
                Ok(Some(Found::Key(id))) => enqueued.push(Enqueued { id, created: false }),
                Ok(Some(Found::Equal(id))) => {
                    joins.push((id, entry.job));
                    enqueued.push(Enqueued { id, created: false });
                }
                Ok(None) => {
                    places.push((at, enqueued.len()));
                    new.push(entry.row(request.now, &request.actor));
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
    for (id, (at, place)) in insert(connection, new)?.into_iter().zip(places) {
        if let Some(Ok(enqueued)) = &mut answers[at] {
            enqueued[place].id = id;
        }
    }
    one_at_a_time(connection, requests, &entries, &mut answers)?;
    Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(|| Ok(Vec::new()))).collect())
}

/// The calls that were put off.
fn one_at_a_time(
    connection: &Direct,
    requests: &[&Request],
    entries: &[Vec<Entry<'_>>],
    answers: &mut [Option<Result<Vec<Enqueued>, Error>>],
) -> Result<(), Error> {
    for (at, request) in requests.iter().enumerate() {
        if answers[at].is_some() {
            continue;
        }
        let mut enqueued = Vec::with_capacity(request.jobs.len());
        for entry in &entries[at] {
            // A refusal undoes what the call did so far: the writer then does all calls one by one, this one in a savepoint.
            enqueued.push(enqueue_one(connection, entry, request)?);
        }
        answers[at] = Some(Ok(enqueued));
    }
    Ok(())
}

/// Which calls name no key and no content twice, nor one that a call before them names.
fn independent(entries: &[Vec<Entry<'_>>]) -> Vec<bool> {
    let mut keys: HashSet<&str> = HashSet::new();
    let mut contents: HashSet<Content<'_>> = HashSet::new();
    let mut together = Vec::with_capacity(entries.len());
    for call in entries {
        let mut free = true;
        for entry in call {
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
fn insert(connection: &Direct, new: Vec<Value>) -> Result<Vec<JobId>, Error> {
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let count = new.len();
    let mut ids = connection.all(sql::INSERT, [parameter(new)], |row| row.int("id"))?;
    // Ids rise in the order of the inserts, whatever the order of RETURNING.
    ids.sort_unstable();
    if ids.len() != count {
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
    fn look(connection: &Direct, entries: &[Vec<Entry<'_>>], together: &[bool]) -> Result<Self, Error> {
        let mut known = Self { keys: HashMap::new(), equal: HashMap::new() };
        let wanted = || entries.iter().zip(together).filter(|(_, together)| **together).flat_map(|(call, _)| call);
        let keys: Vec<Value> =
            wanted().filter_map(|entry| entry.job.idempotency_key.clone().map(Value::from)).collect();
        if !keys.is_empty() {
            known.keys = connection.all(sql::KEYS, [parameter(keys)], key_row)?.into_iter().collect();
        }
        let joining: Vec<&Entry<'_>> = wanted().filter(|entry| entry.joins()).collect();
        if !joining.is_empty() {
            let contents = joining.iter().map(|entry| {
                let (target, source, options, queue) = entry.content();
                json!([target, source, options, queue])
            });
            let equal = connection
                .all(sql::EQUAL, [parameter(contents.collect())], |row| Ok((row.int("at")?, row.int("id")?)))?;
            for (at, id) in equal {
                if let Some(entry) = usize::try_from(at).ok().and_then(|at| joining.get(at)) {
                    let (target, source, options, queue) = entry.content();
                    let content = (target.to_owned(), source.to_owned(), options.to_owned(), queue.to_owned());
                    known.equal.insert(content, id);
                }
            }
        }
        Ok(known)
    }

    /// What this job meets; None when it is new.
    ///
    /// # Errors
    /// [`Error::KeyConflict`].
    fn of(&self, entry: &Entry<'_>) -> Result<Option<Found>, Error> {
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

fn key_row(row: &rusqlite::Row<'_>) -> Result<(String, KeyRow), Error> {
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
fn same_content(row: &KeyRow, key: &str, entry: &Entry<'_>) -> Result<JobId, Error> {
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

fn enqueue_one(connection: &Direct, entry: &Entry<'_>, request: &Request) -> Result<Enqueued, Error> {
    let one = [vec![Entry::new(entry.job)]];
    match Known::look(connection, &one, &[true])?.of(entry)? {
        Some(Found::Key(id)) => Ok(Enqueued { id, created: false }),
        Some(Found::Equal(id)) => {
            join(connection, id, entry.job, request.now, &request.actor)?;
            Ok(Enqueued { id, created: false })
        }
        None => {
            let ids = insert(connection, vec![entry.row(request.now, &request.actor)])?;
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
        let request = Request { jobs, actor: actor.to_owned(), now: self.inner.clock.now() };
        let enqueued = self.inner.writer.send(Lane::Bulk, |reply| Op::Enqueue(request, reply)).await;
        enqueued.inspect(|_| self.inner.watch.committed())
    }
}
