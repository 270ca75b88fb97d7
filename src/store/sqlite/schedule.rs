//! Schedules: written down, looked at, and fired.

use super::Sqlite;
use super::direct::Direct;
use super::writer::Lane;
use crate::clock::UnixMillis;
use crate::job::batch::{BatchId, expand_key};
use crate::job::schedule::{Fate, Firing, Occurrence, Planned, occurrence_key};
use crate::job::{JobId, NewSchedule, Overlap, Schedule, ScheduleId};
use crate::store::rows::{self, Columns};
use crate::store::statements::schedule as sql;
use crate::store::{Error, ScheduleChange, SchedulesDue};

impl Sqlite {
    pub(in crate::store) async fn schedule_add(
        &self,
        schedule: NewSchedule,
        actor: &str,
    ) -> Result<Option<ScheduleId>, Error> {
        let (now, actor) = (self.inner.clock.now(), actor.to_owned());
        let added = self.write(Lane::Control, move |connection| {
            let NewSchedule { name, timing, timezone, jitter_ms, missed, overlap, job, paused } = schedule;
            let parameters = rusqlite::params![
                name,
                timing,
                timezone,
                jitter_ms,
                missed.to_string(),
                overlap.to_string(),
                job.source,
                job.destination,
                job.options,
                job.queue,
                job.priority,
                job.max_attempts,
                paused.then_some(now.0),
                now.0,
                actor,
                job.kind.as_str(),
            ];
            connection.first(sql::SCHEDULE_ADD, parameters, |row| row.int("id"))
        });
        added.await.inspect(|_| self.inner.watch.committed())
    }

    pub(in crate::store) async fn schedules(&self, name: Option<&str>) -> Result<Vec<Schedule>, Error> {
        let rows = sqlx::query(sql::SCHEDULES).bind(name).fetch_all(&self.inner.readers).await?;
        rows.iter().map(rows::schedule).collect()
    }

    pub(in crate::store) async fn schedule_change(
        &self,
        name: &str,
        change: ScheduleChange,
        actor: &str,
    ) -> Result<Option<bool>, Error> {
        let statement = match change {
            ScheduleChange::Pause => sql::SCHEDULE_PAUSE,
            ScheduleChange::Resume => sql::SCHEDULE_RESUME,
            ScheduleChange::Remove => sql::SCHEDULE_REMOVE,
        };
        let (name, actor, now) = (name.to_owned(), actor.to_owned(), self.inner.clock.now());
        let changed = self.write(Lane::Control, move |connection| {
            let is_there = connection.first(sql::SCHEDULES, [name.clone()], |row| row.int("id"))?.is_some();
            let changed = connection.run(statement, (name, now.0, actor))? > 0;
            Ok(is_there.then_some(changed))
        });
        changed.await.inspect(|_| self.inner.watch.committed())
    }

    pub(in crate::store) async fn schedules_due(&self, limit: u32) -> Result<SchedulesDue, Error> {
        let now = self.inner.clock.now();
        let due = sqlx::query(sql::SCHEDULES_DUE).bind(now.0).bind(limit).fetch_all(&self.inner.readers).await?;
        let next = sqlx::query(sql::SCHEDULES_NEXT).fetch_one(&self.inner.readers).await?;
        let schedules = due.iter().map(rows::schedule).collect::<Result<_, _>>()?;
        Ok(SchedulesDue { now, schedules, next_at: next.time("next_at")? })
    }

    pub(in crate::store) async fn schedules_fire(
        &self,
        firings: Vec<Firing>,
        actor: &str,
    ) -> Result<Vec<Occurrence>, Error> {
        let (now, actor) = (self.inner.clock.now(), actor.to_owned());
        let fired = self.write(Lane::Bulk, move |connection| {
            let mut occurrences = Vec::new();
            for firing in &firings {
                fire(connection, firing, now, &actor, &mut occurrences)?;
            }
            Ok(occurrences)
        });
        fired.await.inspect(|_| self.inner.watch.committed())
    }

    pub(in crate::store) async fn schedule_occurrences(
        &self,
        schedule: ScheduleId,
        limit: u32,
    ) -> Result<Vec<Occurrence>, Error> {
        let look = sqlx::query(sql::SCHEDULE_OCCURRENCES).bind(schedule).bind(limit);
        look.fetch_all(&self.inner.readers).await?.iter().map(rows::occurrence).collect()
    }

    pub(in crate::store) async fn schedule_older(&self, schedule: ScheduleId, job: JobId) -> Result<Vec<JobId>, Error> {
        let look = sqlx::query(sql::SCHEDULE_OLDER).bind(schedule).bind(job);
        look.fetch_all(&self.inner.readers).await?.iter().map(|row| row.int("id")).collect()
    }
}

/// Moves one schedule on and makes its jobs, unless it is not as it was seen.
fn fire(
    connection: &Direct,
    firing: &Firing,
    now: UnixMillis,
    actor: &str,
    occurrences: &mut Vec<Occurrence>,
) -> Result<(), Error> {
    if let Some((next_seen, base_seen)) = firing.seen {
        let ended = (firing.next_at.is_none() && firing.fault.is_none()).then_some(now.0);
        let last = firing.occurrences.last().map(|planned| planned.at.0);
        let next = firing.next_at.map(|at| at.0);
        let fault = firing.fault.as_deref();
        let moved = (firing.schedule, next_seen.map(|at| at.0), base_seen.0, next, last, ended, fault);
        if connection.run(sql::SCHEDULE_MOVE, moved)? == 0 {
            return Ok(());
        }
    }
    let mut fates = Vec::with_capacity(firing.occurrences.len());
    // Decided before the first job of this call is there: those that are made up for do not stand in each other's way.
    for planned in &firing.occurrences {
        fates.push(fate(connection, firing, planned)?);
    }
    for (planned, fate) in firing.occurrences.iter().zip(fates) {
        let Some(fate) = fate else { continue };
        let job = if fate == Fate::Fired { Some(make(connection, firing, planned, now, actor)?) } else { None };
        let line = (firing.schedule, planned.at.0, fate.as_str(), job, now.0, actor, planned.detail.as_deref());
        connection.run(sql::SCHEDULE_OCCURRENCE, line)?;
        let (schedule, at, detail) = (firing.schedule, planned.at, planned.detail.clone());
        occurrences.push(Occurrence { schedule, at, fate, job, decided_at: now, detail });
    }
    Ok(())
}

/// What becomes of a time; None: that is known already, or the schedule is there no more.
fn fate(connection: &Direct, firing: &Firing, planned: &Planned) -> Result<Option<Fate>, Error> {
    let state = connection.first(sql::SCHEDULE_STATE, (firing.schedule, planned.at.0), |row| {
        let overlap = row.text("overlap")?.parse().unwrap_or_default();
        Ok((row.flag("known")?, overlap, row.flag("busy")?, row.flag("waits")?))
    })?;
    let Some((false, overlap, busy, waits)) = state else { return Ok(None) };
    let against = match overlap {
        Overlap::Skip => busy,
        Overlap::Queue => waits,
        Overlap::Allow | Overlap::Cancel => false,
    };
    let overlapped = against && planned.fate == Fate::Fired && firing.seen.is_some();
    Ok(Some(if overlapped { Fate::Overlapped } else { planned.fate }))
}

fn make(connection: &Direct, firing: &Firing, planned: &Planned, now: UnixMillis, actor: &str) -> Result<JobId, Error> {
    let state = if planned.run_at > now { "scheduled" } else { "pending" };
    let key = occurrence_key(firing.schedule, planned.at);
    if let Some(batch) = &firing.batch {
        let id = BatchId::now_v7();
        let (name, rules) = (batch.name.as_deref(), batch.rules.as_deref());
        let row = (firing.schedule, id.to_string(), batch.kind.as_str(), name, rules, now.0, actor);
        connection.run(sql::SCHEDULE_BATCH, row)?;
        let job = (firing.schedule, id.to_string(), state, planned.run_at.0, now.0, key, actor, expand_key(id));
        return connection.one(sql::SCHEDULE_EXPAND, job, |row| row.int("id"));
    }
    let job = (firing.schedule, state, planned.run_at.0, now.0, key, actor);
    connection.one(sql::SCHEDULE_JOB, job, |row| row.int("id"))
}
