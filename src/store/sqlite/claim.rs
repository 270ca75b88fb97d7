//! Claims, for all who ask at the same time: what may run is read, [`choose`] decides, one statement takes it.
//!
//! The writer's transaction makes looking and taking one step. A look walks the pairs of queue and registry that have pending
//! jobs, leaves out those that are paused or full, and reads a small window at the head of each. Only when busy targets fill
//! the windows it reads larger ones, and at last the best job of every target. So rows behind a paused queue, a full limit or
//! a busy target cost nothing, however many.

use super::attempt::rows as parameter;
use super::batch::{Kind, Op};
use super::direct::{Direct, Record};
use super::queue::{Verdict, take_in};
use super::writer::Lane;
use super::{NEWEST_SCHEMA, Sqlite};
use crate::clock::{Clock, UnixMillis};
use crate::store::choose::{Asker, Candidate, Limits, choose, left};
use crate::store::rows::Columns;
use crate::store::standing::Board;
use crate::store::statements as sql;
use crate::store::{Claim, ClaimRequest, Error, Intake, Standing, rows};
use serde_json::{Value, json};
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

/// The claim of a worker that waits for an enqueue.
pub(super) fn standing(board: &Board, clock: &Clock) -> Option<Op> {
    let (request, reply) = board.take(clock.boot())?;
    Some(Op::Claim(Ask { request, now: clock.now(), parsed: Vec::new() }, reply))
}

pub(super) struct Claims;

impl Kind for Claims {
    type Input = Ask;
    type Output = (Intake, Vec<Claim>);

    fn run(connection: &Direct, inputs: &[&Ask]) -> Result<Vec<Result<Self::Output, Error>>, Error> {
        if let Some(outdated) = outdated(connection)? {
            return Ok(inputs.iter().map(|_| Err(outdated.clone())).collect());
        }
        let mut intakes = Vec::with_capacity(inputs.len());
        for ask in inputs {
            intakes.push(take_in(connection, &ask.parsed, ask.now)?);
        }
        let chosen = Look::new(connection, inputs)?.choose(connection)?;
        let mut answers: Vec<Vec<Claim>> = inputs.iter().map(|_| Vec::new()).collect();
        let owners: HashMap<i64, usize> = chosen.iter().copied().collect();
        for claim in take(connection, inputs, &chosen)? {
            if let Some(at) = owners.get(&claim.job.id) {
                answers[*at].push(claim);
            }
        }
        for claims in &mut answers {
            // RETURNING promises no order.
            claims.sort_by_key(|claim| (claim.job.priority, claim.job.id));
        }
        Ok(intakes.into_iter().zip(answers).map(Ok).collect())
    }
}

/// Some when a newer version has migrated the database since it was opened.
fn outdated(connection: &Direct) -> Result<Option<Error>, Error> {
    let version = connection.one(sql::SCHEMA, [], |row| row.int("version"))?;
    Ok((version > NEWEST_SCHEMA).then(|| {
        Error::Outdated(format!(
            "the database has schema {version} by now, this program knows {NEWEST_SCHEMA}: nothing more is claimed; start the newer freightliner"
        ))
    }))
}

fn take(connection: &Direct, asks: &[&Ask], chosen: &[(i64, usize)]) -> Result<Vec<Claim>, Error> {
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    let workers: Vec<String> = asks.iter().map(|ask| ask.request.worker.to_string()).collect();
    let slots: Vec<_> = chosen
        .iter()
        .map(|(id, at)| {
            let Ask { request, now, .. } = asks[*at];
            vec![(*id).into(), workers[*at].as_str().into(), now.plus(request.lease_ttl).0.into(), now.0.into()]
        })
        .collect();
    connection.many(sql::CLAIM, &slots, |row| {
        let job = rows::job(row)?;
        Ok(Claim { job, dest_key: row.text("dest_key")? })
    })
}

/// What may run now, for these askers.
struct Look {
    askers: Vec<Asker>,
    /// Pairs of queue and registry with pending jobs, none of them paused or full.
    pairs: Vec<(String, String)>,
    limits: Limits,
}

impl Look {
    fn new(connection: &Direct, asks: &[&Ask]) -> Result<Self, Error> {
        let askers: Vec<Asker> = asks
            .iter()
            .map(|Ask { request, .. }| Asker { room: request.room, queue: request.queue.clone(), only: request.only })
            .collect();
        let mut limits = Limits::default();
        let mut pairs = connection.all(sql::READY_PAIRS, [], |row| {
            let (queue, registry) = (row.text("queue")?, row.text("dest_registry")?);
            if let Some(free) = row.int_option("free")? {
                limits.queues.insert(queue.clone(), u32::try_from(free).unwrap_or(0));
            }
            Ok((queue, registry))
        })?;
        let wanted = registry_limits(asks);
        if !wanted.is_empty() {
            let count = |row: &Record<'_>| Ok((row.text("dest_registry")?, row.count("jobs")?));
            let running = connection.all(sql::RUNNING_BY_REGISTRY, [], count)?.into_iter().collect();
            limits.registries = left(&wanted, &running);
        }
        let asked = |queue: &str| askers.iter().any(|asker| asker.queue.as_deref().is_none_or(|only| only == queue));
        pairs.retain(|(queue, registry)| asked(queue) && limits.allow(queue, registry));
        Ok(Self { askers, pairs, limits })
    }

    /// The jobs to take, each with the index of its asker.
    fn choose(&self, connection: &Direct) -> Result<Vec<(i64, usize)>, Error> {
        let named = self.named(connection)?;
        let room: usize = self.askers.iter().filter(|asker| asker.only.is_none()).map(|asker| asker.room).sum();
        let mut chosen = choose(named.clone(), &self.askers, self.limits.clone());
        if room == 0 || self.pairs.is_empty() {
            return Ok(chosen.jobs);
        }
        for window in [room + SPARE, LARGE_WINDOW.max(room + SPARE)] {
            let mut candidates = self.heads(connection, window)?;
            let exhausted = !is_full(&candidates, window);
            add(&mut candidates, &named);
            chosen = choose(candidates, &self.askers, self.limits.clone());
            if !chosen.short || exhausted {
                return Ok(chosen.jobs);
            }
        }
        // So many rows of so few targets: the best of each target.
        let queues: BTreeSet<&str> = self.pairs.iter().map(|(queue, _)| queue.as_str()).collect();
        let queues = parameter(queues.into_iter().map(Value::from).collect());
        let mut candidates = connection.all(sql::TARGET_HEADS, [queues], candidate)?;
        add(&mut candidates, &named);
        Ok(choose(candidates, &self.askers, self.limits.clone()).jobs)
    }

    fn heads(&self, connection: &Direct, window: usize) -> Result<Vec<Candidate>, Error> {
        let pairs = parameter(self.pairs.iter().map(|(queue, registry)| json!([queue, registry])).collect());
        connection.all(sql::HEADS, (pairs, i64::try_from(window).unwrap_or(i64::MAX)), candidate)
    }

    /// The jobs that are asked for by their ids.
    fn named(&self, connection: &Direct) -> Result<Vec<Candidate>, Error> {
        let ids: Vec<Value> = self.askers.iter().filter_map(|asker| asker.only.map(Value::from)).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        connection.all(sql::NAMED, [parameter(ids)], candidate)
    }
}

/// Some pair filled its window: there may be more behind it.
fn is_full(candidates: &[Candidate], window: usize) -> bool {
    let mut rows: HashMap<(&str, &str), usize> = HashMap::new();
    for candidate in candidates {
        *rows.entry((&candidate.queue, &candidate.registry)).or_default() += 1;
    }
    rows.values().any(|rows| *rows >= window)
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

fn candidate(row: &Record<'_>) -> Result<Candidate, Error> {
    Ok(Candidate {
        id: row.int("id")?,
        queue: row.text("queue")?,
        registry: row.text("dest_registry")?,
        target: row.text("dest_key")?,
        priority: row.int("priority")?,
        busy: row.flag("busy")?,
    })
}

impl Sqlite {
    pub(in crate::store) async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claim>, Error> {
        let ask = Ask { request, now: self.inner.clock.now(), parsed: Vec::new() };
        Ok(self.inner.writer.send(Lane::Control, |reply| Op::Claim(ask, reply)).await?.1)
    }

    pub(in crate::store) fn stand(&self, request: ClaimRequest) -> Standing {
        self.inner.board.stand(request)
    }

    pub(in crate::store) async fn intake_and_claim(
        &self,
        request: ClaimRequest,
    ) -> Result<(Intake, Vec<Claim>), Error> {
        let ask = Ask { request, now: self.inner.clock.now(), parsed: self.parse_waiting().await? };
        self.inner.writer.send(Lane::Control, |reply| Op::Claim(ask, reply)).await
    }
}
