//! What is left when a round is over: rows, history, and what the workers said.

use super::book::Book;
use super::plan::{Plan, Request, Source};
use super::scene::{MOVING, Scene, pool};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

#[derive(Debug, Clone, Deserialize)]
#[expect(dead_code, reason = "some columns are there to be shown with a finding")]
pub struct Job {
    pub id: i64,
    pub generation: i64,
    pub source: String,
    pub destination: String,
    pub state: String,
    pub queue: String,
    pub attempt: i64,
    pub max_attempts: i64,
    pub crash_count: i64,
    pub lease_epoch: i64,
    pub worker: Option<String>,
    pub run_at: i64,
    pub asked_seq: Option<i64>,
    pub idempotency_key: Option<String>,
    pub dest_key: Option<String>,
    pub failure_class: Option<String>,
    pub failure_message: Option<String>,
    pub report: Option<String>,
    pub dest_registry: Option<String>,
    pub pruned: i64,
}

impl Job {
    /// It was removed, and is known from the archive of this program.
    pub const fn is_pruned(&self) -> bool {
        self.pruned != 0
    }
}

#[derive(Debug, Clone, Deserialize)]
#[expect(dead_code, reason = "some columns are there to be shown with a finding")]
pub struct Event {
    pub seq: i64,
    pub job_id: i64,
    pub at: i64,
    pub from_state: Option<String>,
    pub to_state: String,
    pub generation: i64,
    pub lease_epoch: i64,
    pub attempt: i64,
    pub worker: Option<String>,
    pub actor: String,
    pub reason: Option<String>,
    pub detail: Option<String>,
}

impl Event {
    pub fn is_claim(&self) -> bool {
        self.to_state == "running" && self.from_state.as_deref() != Some("running")
    }

    /// The end of an attempt.
    pub fn is_end(&self) -> bool {
        self.from_state.as_deref() == Some("running") && self.to_state != "running"
    }

    pub fn is_expiry(&self) -> bool {
        self.is_end() && self.reason.as_deref() == Some("lease expired")
    }

    pub fn is_completion(&self) -> bool {
        self.is_end() && self.to_state == "completed"
    }

    /// A field of its detail.
    pub fn detail(&self, path: &str) -> Value {
        let detail: Value = self.detail.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        detail.pointer(path).cloned().unwrap_or_default()
    }

    /// The digest that a completion reported.
    pub fn digest(&self) -> Option<String> {
        self.detail("/report/digest").as_str().map(str::to_owned)
    }

    /// A completion that wrote the tag, and did not just find it in place.
    pub fn wrote(&self) -> bool {
        self.is_completion() && self.detail("/report/already_present") == Value::Bool(false)
    }
}

#[derive(Debug, Clone, Deserialize)]
pub struct Transfer {
    pub job_id: i64,
    pub attempt: i64,
    pub lease_epoch: i64,
    pub registry: String,
    pub repository: String,
    pub digest: String,
    pub bytes: i64,
    pub how: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Key {
    pub key: String,
    pub job_id: i64,
}

/// A queue as somebody left it.
#[derive(Debug, Clone, Deserialize)]
pub struct Change {
    pub queue: String,
    pub at: i64,
    pub paused_at: Option<i64>,
    pub max_running: Option<i64>,
}

/// A row of `audit_prunes`.
#[derive(Debug, Clone, Deserialize)]
pub struct Prune {
    pub job_id: i64,
    pub state: String,
    pub actor: String,
    pub reason: String,
    pub at: i64,
    pub finished_at: Option<i64>,
}

/// One attempt, from its claim to its end.
#[derive(Debug, Clone)]
pub struct Attempt<'a> {
    pub claim: &'a Event,
    pub end: Option<&'a Event>,
}

/// What a worker's log says of the end of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Said {
    pub worker: String,
    pub job: i64,
    pub attempt: i64,
    /// The state that it wrote; None: the lease was lost.
    pub state: Option<String>,
}

pub struct Evidence<'a> {
    pub plan: &'a Plan,
    pub scene: &'a Scene,
    pub book: &'a Book,
    pub jobs: BTreeMap<i64, Job>,
    /// In order of seq.
    pub events: Vec<Event>,
    pub transfers: Vec<Transfer>,
    pub keys: Vec<Key>,
    /// Of queues, in their order.
    pub changes: Vec<Change>,
    pub prunes: Vec<Prune>,
    /// What is still there of jobs that were removed.
    pub remains: Vec<(i64, String)>,
    /// Lists that were loaded to their end, once for each time.
    pub finished_loads: Vec<String>,
    pub said: Vec<Said>,
    /// When the process of a worker was killed.
    pub killed_ms: HashMap<String, i64>,
}

impl<'a> Evidence<'a> {
    pub fn gather(plan: &'a Plan, scene: &'a Scene, book: &'a Book) -> Self {
        let shell = &scene.shell;
        let jobs: Vec<Job> = shell.rows(
            "SELECT id, generation, source, destination, state, queue, attempt, max_attempts, crash_count, lease_epoch, \
             worker, run_at, asked_seq, idempotency_key, dest_key, failure_class, failure_message, \
             CAST(report AS TEXT) AS report, dest_registry, pruned FROM (SELECT j.*, 0 AS pruned FROM jobs AS j \
             UNION ALL SELECT a.*, 1 AS pruned FROM archived_jobs AS a) AS every ORDER BY id",
        );
        let events = shell.rows(
            "SELECT seq, job_id, at, from_state, to_state, generation, lease_epoch, attempt, worker, actor, reason, \
             CAST(detail AS TEXT) AS detail FROM (SELECT * FROM job_events UNION ALL SELECT * FROM archived_events) AS every \
             ORDER BY seq",
        );
        let transfers = shell.rows(
            "SELECT job_id, attempt, lease_epoch, registry, repository, digest, bytes, how FROM \
             (SELECT * FROM transfers UNION ALL SELECT * FROM archived_transfers) AS every ORDER BY id",
        );
        let loads: Vec<BTreeMap<String, String>> = shell.rows("SELECT content_hash FROM finished_loads");
        let changes = "SELECT queue, at, paused_at, max_running FROM queue_changes ORDER BY id";
        let prunes = "SELECT a.job_id, a.state, a.actor, a.reason, p.at, j.finished_at FROM audit_prunes AS a \
            JOIN prunes AS p ON p.id = a.prune_id JOIN pruned_jobs AS j ON j.job_id = a.job_id ORDER BY a.job_id";
        let remains = |table: &str| {
            let column = if table == "jobs" { "id" } else { "job_id" };
            let query = format!(
                "SELECT DISTINCT {column} AS job_id FROM {table} WHERE {column} IN (SELECT id FROM archived_jobs)"
            );
            let rows: Vec<BTreeMap<String, i64>> = shell.rows(&query);
            rows.into_iter().map(|row| (row["job_id"], table.to_owned())).collect::<Vec<_>>()
        };
        let mut evidence = Self {
            plan,
            scene,
            book,
            jobs: jobs.into_iter().map(|job| (job.id, job)).collect(),
            events,
            transfers,
            keys: shell.rows("SELECT key, job_id FROM idempotency_keys ORDER BY key"),
            // Not in every version of the schema.
            changes: shell.try_rows(changes).unwrap_or_default(),
            prunes: shell.try_rows(prunes).unwrap_or_default(),
            remains: ["jobs", "job_events", "transfers", "temp_files"].into_iter().flat_map(remains).collect(),
            finished_loads: loads.into_iter().flat_map(BTreeMap::into_values).collect(),
            said: Vec::new(),
            killed_ms: HashMap::new(),
        };
        evidence.read_logs();
        evidence
    }

    fn read_logs(&mut self) {
        for exit in &self.book.exits {
            let log = exit.output.errors();
            let mut worker = None;
            for line in log.lines() {
                // A process that was killed may leave half a line.
                let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
                if let Some(said) = said(&line) {
                    worker = Some(said.worker.clone());
                    self.said.push(said);
                }
                if line["message"] == "working" {
                    worker = line["worker"].as_str().map(str::to_owned);
                }
            }
            if let (Some(worker), Some(killed)) = (worker, exit.killed_ms()) {
                self.killed_ms.insert(worker, killed);
            }
        }
    }

    pub fn events_of(&self, job: i64) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(move |event| event.job_id == job)
    }

    /// All attempts of a job.
    pub fn attempts_of(&self, job: i64) -> Vec<Attempt<'_>> {
        let mut attempts: Vec<Attempt<'_>> = Vec::new();
        for event in self.events_of(job) {
            if event.is_claim() {
                attempts.push(Attempt { claim: event, end: None });
            } else if event.is_end()
                && let Some(last) = attempts.last_mut()
            {
                last.end = Some(event);
            }
        }
        attempts
    }

    /// The requests that a row may stand for.
    pub fn requests_of<'b>(&'b self, job: &'b Job) -> impl Iterator<Item = (usize, &'b Request)> {
        self.plan.requests.iter().enumerate().filter(|(_, request)| {
            self.scene.source_of(request) == job.source && self.scene.target_of(request) == job.destination
        })
    }

    /// The digests that the source of a job named at some time between these.
    pub fn digests(&self, job: &Job, from_ms: i64, to_ms: i64) -> BTreeSet<String> {
        if job.source == self.scene.source.reference(MOVING.0, MOVING.1) {
            let moves = &self.book.moves;
            let until = |index: usize| moves.get(index + 1).map_or(i64::MAX, |next| next.1);
            return moves
                .iter()
                .enumerate()
                .filter(|(index, (since, ..))| *since <= to_ms && until(*index) >= from_ms)
                .map(|(_, (.., image))| pool()[*image].digest.clone())
                .collect();
        }
        self.requests_of(job)
            .filter_map(|(_, request)| match request.source {
                Source::Pool(image) => Some(pool()[image].digest.clone()),
                _ => None,
            })
            .collect()
    }

    /// A line about how the jobs ended.
    pub fn outcomes(&self) -> String {
        let count = |state: &str| self.jobs.values().filter(|job| job.state == state).count();
        let expired = self.events.iter().filter(|event| event.is_expiry()).count();
        let superseded = |job: &&Job| job.failure_class.as_deref() == Some("superseded");
        format!(
            "{} jobs: {} completed, {} failed ({} superseded), {} cancelled, {} for later, {} of them removed; {} attempts, \
             {expired} expired",
            self.jobs.len(),
            count("completed"),
            count("failed"),
            self.jobs.values().filter(superseded).count(),
            count("cancelled"),
            count("scheduled"),
            self.jobs.values().filter(|job| job.is_pruned()).count(),
            self.events.iter().filter(|event| event.is_claim()).count(),
        )
    }
}

/// What a line of a worker's log says of the end of an attempt.
fn said(line: &Value) -> Option<Said> {
    let state = match line["message"].as_str()? {
        "completed" => Some("completed".to_owned()),
        "the attempt failed" | "the attempt was ended early" => Some(line["state"].as_str()?.to_owned()),
        "the lease is lost: what this attempt did is dropped" => None,
        _ => return None,
    };
    let span = &line["span"];
    let worker = span["worker"].as_str()?.to_owned();
    Some(Said { worker, job: span["job"].as_i64()?, attempt: span["attempt"].as_i64()?, state })
}
