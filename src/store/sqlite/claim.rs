//! Claims, for all who ask at the same time: what may run is read, [`choose`] decides, one statement takes it.
//!
//! The writer's transaction makes looking and taking one step. A look walks the pairs of queue and registry that have pending
//! jobs, leaves out those that are paused or full, and reads a small window at the head of each. Only when busy targets fill
//! the windows it reads larger ones, and at last the best job of every target. So rows behind a paused queue, a full limit or
//! a busy target cost nothing, however many.

use super::attempt::rows as parameter;
use super::batch::{Kind, Op};
use super::queue::{Verdict, take_in};
use super::writer::Lane;
use super::{NEWEST_SCHEMA, Sqlite};
use crate::clock::UnixMillis;
use crate::store::choose::{Asker, Candidate, Limits, choose, left};
use crate::store::statements as sql;
use crate::store::{Claim, ClaimRequest, Error, Intake, rows};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Rows looked at beyond those that are wanted, at the head of each pair.
const SPARE: usize = 8;
/// The second, larger window.
const LARGE_WINDOW: usize = 1000;

/// A request and its time, with the rows that are to be taken in before.
pub(super) struct Ask {
    request: ClaimRequest,
    now: UnixMillis,
    parsed: Vec<Verdict>,
}

pub(super) struct Claims;

impl Kind for Claims {
    type Input = Ask;
    type Output = (Intake, Vec<Claim>);

    fn run<'a>(
        connection: &'a mut SqliteConnection,
        inputs: Vec<&'a Ask>,
    ) -> BoxFuture<'a, Result<Vec<Result<(Intake, Vec<Claim>), Error>>, Error>> {
        Box::pin(async move {
            if let Some(outdated) = outdated(connection).await? {
                return Ok(inputs.iter().map(|_| Err(outdated.clone())).collect());
            }
            let mut intakes = Vec::with_capacity(inputs.len());
            for ask in &inputs {
                intakes.push(take_in(connection, &ask.parsed, ask.now).await?);
            }
            let look = Look::new(connection, &inputs).await?;
            let chosen = look.choose(connection).await?;
            let mut answers: Vec<Vec<Claim>> = inputs.iter().map(|_| Vec::new()).collect();
            let owners: HashMap<i64, usize> = chosen.iter().copied().collect();
            for row in take(connection, &inputs, &chosen).await? {
                let claim = Claim { job: rows::job(&row)?, dest_key: row.try_get("dest_key")? };
                if let Some(at) = owners.get(&claim.job.id) {
                    answers[*at].push(claim);
                }
            }
            for claims in &mut answers {
                // RETURNING promises no order.
                claims.sort_by_key(|claim| (claim.job.priority, claim.job.id));
            }
            Ok(intakes.into_iter().zip(answers).map(Ok).collect())
        })
    }
}

/// Some when a newer version has migrated the database since it was opened.
async fn outdated(connection: &mut SqliteConnection) -> Result<Option<Error>, Error> {
    let version: i64 = sqlx::query(sql::SCHEMA).fetch_one(connection).await?.try_get("version")?;
    Ok((version > NEWEST_SCHEMA).then(|| {
        Error::Outdated(format!(
            "the database has schema {version} by now, this program knows {NEWEST_SCHEMA}: nothing more is claimed; start the newer freightliner"
        ))
    }))
}

async fn take(
    connection: &mut SqliteConnection,
    asks: &[&Ask],
    chosen: &[(i64, usize)],
) -> Result<Vec<SqliteRow>, Error> {
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    let slots = chosen.iter().map(|(id, at)| {
        let Ask { request, now, .. } = asks[*at];
        json!([id, request.worker.to_string(), now.plus(request.lease_ttl).0, now.0])
    });
    Ok(sqlx::query(sql::CLAIM).bind(parameter(slots.collect())).fetch_all(connection).await?)
}

/// What may run now, for these askers.
struct Look {
    askers: Vec<Asker>,
    /// Pairs of queue and registry with pending jobs, none of them paused or full.
    pairs: Vec<(String, String)>,
    limits: Limits,
}

impl Look {
    async fn new(connection: &mut SqliteConnection, asks: &[&Ask]) -> Result<Self, Error> {
        let askers: Vec<Asker> = asks
            .iter()
            .map(|Ask { request, .. }| Asker { room: request.room, queue: request.queue.clone(), only: request.only })
            .collect();
        let mut limits = Limits::default();
        let mut pairs = Vec::new();
        for row in sqlx::query(sql::READY_PAIRS).fetch_all(&mut *connection).await? {
            let (queue, registry) = (rows::text(&row, "queue")?, rows::text(&row, "dest_registry")?);
            if let Some(free) = row.try_get::<Option<i64>, _>("free")? {
                limits.queues.insert(queue.clone(), u32::try_from(free).unwrap_or(0));
            }
            pairs.push((queue, registry));
        }
        let wanted = registry_limits(asks);
        if !wanted.is_empty() {
            let mut running = HashMap::new();
            for row in sqlx::query(sql::RUNNING_BY_REGISTRY).fetch_all(connection).await? {
                let jobs = u64::try_from(row.try_get::<i64, _>("jobs")?).unwrap_or(0);
                running.insert(rows::text(&row, "dest_registry")?, jobs);
            }
            limits.registries = left(&wanted, &running);
        }
        let asked = |queue: &str| askers.iter().any(|asker| asker.queue.as_deref().is_none_or(|only| only == queue));
        pairs.retain(|(queue, registry)| asked(queue) && limits.allow(queue, registry));
        Ok(Self { askers, pairs, limits })
    }

    /// The jobs to take, each with the index of its asker.
    async fn choose(&self, connection: &mut SqliteConnection) -> Result<Vec<(i64, usize)>, Error> {
        let named = self.named(connection).await?;
        let room: usize = self.askers.iter().filter(|asker| asker.only.is_none()).map(|asker| asker.room).sum();
        let mut chosen = choose(named.clone(), &self.askers, self.limits.clone());
        if room == 0 || self.pairs.is_empty() {
            return Ok(chosen.jobs);
        }
        for window in [room + SPARE, LARGE_WINDOW] {
            let mut candidates = self.heads(connection, window).await?;
            let exhausted = !self.is_full(&candidates, window);
            add(&mut candidates, &named);
            chosen = choose(candidates, &self.askers, self.limits.clone());
            if !chosen.short || exhausted {
                return Ok(chosen.jobs);
            }
        }
        // So many rows of so few targets: the best of each target.
        let queues: BTreeSet<&str> = self.pairs.iter().map(|(queue, _)| queue.as_str()).collect();
        let queues = parameter(queues.into_iter().map(Value::from).collect());
        let mut candidates = candidates(sqlx::query(sql::TARGET_HEADS).bind(queues).fetch_all(connection).await?)?;
        add(&mut candidates, &named);
        Ok(choose(candidates, &self.askers, self.limits.clone()).jobs)
    }

    /// Some pair filled its window: there may be more behind it.
    fn is_full(&self, candidates: &[Candidate], window: usize) -> bool {
        let mut rows: HashMap<(&str, &str), usize> = HashMap::new();
        for candidate in candidates {
            *rows.entry((&candidate.queue, &candidate.registry)).or_default() += 1;
        }
        rows.values().any(|rows| *rows >= window)
    }

    async fn heads(&self, connection: &mut SqliteConnection, window: usize) -> Result<Vec<Candidate>, Error> {
        let pairs = parameter(self.pairs.iter().map(|(queue, registry)| json!([queue, registry])).collect());
        let window = i64::try_from(window).unwrap_or(i64::MAX);
        candidates(sqlx::query(sql::HEADS).bind(pairs).bind(window).fetch_all(connection).await?)
    }

    /// The jobs that are asked for by their ids.
    async fn named(&self, connection: &mut SqliteConnection) -> Result<Vec<Candidate>, Error> {
        let ids: Vec<Value> = self.askers.iter().filter_map(|asker| asker.only.map(Value::from)).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        candidates(sqlx::query(sql::NAMED).bind(parameter(ids)).fetch_all(connection).await?)
    }
}

fn add(candidates: &mut Vec<Candidate>, named: &[Candidate]) {
    let more: Vec<_> =
        named.iter().filter(|named| candidates.iter().all(|other| other.id != named.id)).cloned().collect();
    candidates.extend(more);
}

/// The strictest limit that anybody asks for: normally all say the same.
fn registry_limits(asks: &[&Ask]) -> BTreeMap<String, u32> {
    let mut limits: BTreeMap<String, u32> = BTreeMap::new();
    for (registry, limit) in asks.iter().flat_map(|ask| ask.request.registry_limits.iter()) {
        let known = limits.entry(registry.clone()).or_insert(*limit);
        *known = (*known).min(*limit);
    }
    limits
}

fn candidates(found: Vec<SqliteRow>) -> Result<Vec<Candidate>, Error> {
    found
        .iter()
        .map(|row| {
            Ok(Candidate {
                id: row.try_get("id")?,
                queue: rows::text(row, "queue")?,
                registry: rows::text(row, "dest_registry")?,
                target: rows::text(row, "dest_key")?,
                priority: row.try_get("priority")?,
                busy: row.try_get("busy")?,
            })
        })
        .collect()
}

impl Sqlite {
    pub(in crate::store) async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claim>, Error> {
        let ask = Ask { request, now: self.inner.clock.now(), parsed: Vec::new() };
        Ok(self.inner.writer.send(Lane::Control, |reply| Op::Claim(ask, reply)).await?.1)
    }

    pub(in crate::store) async fn intake_and_claim(
        &self,
        request: ClaimRequest,
    ) -> Result<(Intake, Vec<Claim>), Error> {
        let ask = Ask { request, now: self.inner.clock.now(), parsed: self.parse_waiting().await? };
        self.inner.writer.send(Lane::Control, |reply| Op::Claim(ask, reply)).await
    }
}
