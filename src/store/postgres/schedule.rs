//! Schedules: written down, looked at, and fired.

use super::connect::{Again, Statement, plain};
use super::{Postgres, statements as sql};
use crate::clock::UnixMillis;
use crate::job::batch::BatchId;
use crate::job::schedule::{Firing, MadeBatch, Occurrence};
use crate::job::{JobId, NewSchedule, Schedule, ScheduleId};
use crate::store::rows::{self, Columns};
use crate::store::{Error, ScheduleChange, SchedulesDue};

impl Postgres {
    pub(in crate::store) async fn schedule_add(
        &self,
        schedule: NewSchedule,
        actor: &str,
    ) -> Result<Option<ScheduleId>, Error> {
        let NewSchedule { name, timing, timezone, jitter_ms, missed, overlap, job, paused } = schedule;
        let statement = Statement::new(sql::SCHEDULE_ADD)
            .bind_text(&name)
            .bind_text(&timing)
            .bind_text(&timezone)
            .bind(jitter_ms)
            .bind(missed.to_string())
            .bind(overlap.to_string())
            .bind_text(&job.source)
            .bind_text(&job.destination)
            .bind_text(&job.options)
            .bind_text(&job.queue)
            .bind(job.priority)
            .bind(job.max_attempts)
            .bind(paused)
            .bind(self.inner.now())
            .bind_text(actor)
            .bind(job.kind.as_str());
        let rows = self.inner.bulk.rows(Again::Never, &statement).await?;
        self.inner.listener.committed();
        rows.first().map(|row| row.int("id")).transpose()
    }

    pub(in crate::store) async fn schedules(&self, name: Option<&str>) -> Result<Vec<Schedule>, Error> {
        let statement = Statement::new(sql::SCHEDULES).bind(name.map(plain));
        self.inner.readers.rows(Again::Harmless, &statement).await?.iter().map(rows::schedule).collect()
    }

    pub(in crate::store) async fn schedule_change(
        &self,
        name: &str,
        change: ScheduleChange,
        actor: &str,
    ) -> Result<Option<bool>, Error> {
        let is_there = !self.schedules(Some(name)).await?.is_empty();
        let text = match change {
            ScheduleChange::Pause => sql::SCHEDULE_PAUSE,
            ScheduleChange::Resume => sql::SCHEDULE_RESUME,
            ScheduleChange::Remove => sql::SCHEDULE_REMOVE,
        };
        let statement = Statement::new(text).bind_text(name).bind(self.inner.now()).bind_text(actor);
        let changed = !self.inner.bulk.rows(Again::Never, &statement).await?.is_empty();
        self.inner.listener.committed();
        Ok((is_there || changed).then_some(changed))
    }

    pub(in crate::store) async fn schedules_due(&self, limit: u32) -> Result<SchedulesDue, Error> {
        let now = self.inner.now();
        let next = self.inner.control.row(&Statement::new(sql::SCHEDULES_NEXT).bind(now)).await?;
        let statement = Statement::new(sql::SCHEDULES_DUE).bind(now).bind(i64::from(limit));
        let due = self.inner.control.rows(Again::Harmless, &statement).await?;
        let schedules = due.iter().map(rows::schedule).collect::<Result<_, _>>()?;
        Ok(SchedulesDue { now: UnixMillis(next.int("now")?), schedules, next_at: next.time("next_at")? })
    }

    pub(in crate::store) async fn schedules_fire(
        &self,
        firings: Vec<Firing>,
        actor: &str,
    ) -> Result<Vec<Occurrence>, Error> {
        let schedules = || firings.iter();
        let planned =
            || firings.iter().flat_map(|firing| firing.occurrences.iter().map(move |planned| (firing, planned)));
        let batches = |read: fn(&MadeBatch) -> Option<&str>| {
            let text = |firing: &Firing| firing.batch.as_ref().and_then(read).map(plain);
            planned().map(|(firing, _)| text(firing)).collect::<Vec<_>>()
        };
        let ms = |at: Option<UnixMillis>| at.map(|at| at.0);
        let statement = Statement::new(sql::SCHEDULES_FIRE)
            .bind(schedules().map(|firing| firing.schedule).collect::<Vec<_>>())
            .bind(schedules().map(|firing| firing.seen.and_then(|(next, _)| ms(next))).collect::<Vec<_>>())
            .bind(schedules().map(|firing| ms(firing.seen.map(|(_, base)| base))).collect::<Vec<_>>())
            .bind(schedules().map(|firing| ms(firing.next_at)).collect::<Vec<_>>())
            .bind(schedules().map(|firing| firing.fault.as_deref().map(plain)).collect::<Vec<_>>())
            .bind(planned().map(|(firing, _)| firing.schedule).collect::<Vec<_>>())
            .bind(planned().map(|(_, planned)| planned.at.0).collect::<Vec<_>>())
            .bind(planned().map(|(_, planned)| planned.fate.as_str().to_owned()).collect::<Vec<_>>())
            .bind(planned().map(|(_, planned)| planned.run_at.0).collect::<Vec<_>>())
            .bind(planned().map(|(_, planned)| planned.detail.as_deref().map(plain)).collect::<Vec<_>>())
            .bind_text(actor)
            .bind(self.inner.now())
            .bind(
                planned()
                    .map(|(firing, _)| firing.batch.as_ref().map(|_| BatchId::now_v7().to_string()))
                    .collect::<Vec<_>>(),
            )
            .bind(
                planned().map(|(firing, _)| firing.batch.as_ref().map(|batch| batch.kind.as_str())).collect::<Vec<_>>(),
            )
            .bind(batches(|batch| batch.name.as_deref()))
            .bind(batches(|batch| batch.rules.as_deref()));
        let fired = self.inner.bulk.rows(Again::Never, &statement).await?;
        self.inner.listener.committed();
        fired.iter().map(rows::occurrence).collect()
    }

    pub(in crate::store) async fn schedule_occurrences(
        &self,
        schedule: ScheduleId,
        limit: u32,
    ) -> Result<Vec<Occurrence>, Error> {
        let statement = Statement::new(sql::SCHEDULE_OCCURRENCES).bind(schedule).bind(i64::from(limit));
        self.inner.readers.rows(Again::Harmless, &statement).await?.iter().map(rows::occurrence).collect()
    }

    pub(in crate::store) async fn schedule_older(&self, schedule: ScheduleId, job: JobId) -> Result<Vec<JobId>, Error> {
        let statement = Statement::new(sql::SCHEDULE_OLDER).bind(schedule).bind(job);
        self.inner.readers.rows(Again::Harmless, &statement).await?.iter().map(|row| row.int("id")).collect()
    }
}
