//! Statements of schedules on SQLite.

use super::{schedule_columns, schedule_waits, statements};

statements! {
    /// A new schedule, if its name is free. ?1 name, ?2 timing, ?3 time zone, ?4 jitter, ?5 missed, ?6 overlap, ?7 source,
    /// ?8 destination, ?9 options, ?10 queue, ?11 priority, ?12 max attempts, ?13 paused, ?14 now, ?15 actor, ?16 kind.
    SCHEDULE_ADD = "INSERT INTO schedules (name, timing, timezone, jitter_ms, missed, overlap, source, destination, options, \
            queue, priority, max_attempts, paused_at, created_at, base_at, change_seq, change_actor, kind) \
        SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?14, 1, ?15, ?16 \
        WHERE NOT EXISTS (SELECT 1 FROM schedules WHERE name = ?1 AND removed_at IS NULL) RETURNING id";

    /// The schedules, by name. ?1 one name or NULL for all.
    SCHEDULES = concat!("SELECT ", schedule_columns!(), " FROM schedules WHERE removed_at IS NULL AND (?1 IS NULL OR name = ?1) \
        ORDER BY name");

    /// Schedules whose time has come, or that nobody has looked at yet. ?1 now, ?2 limit.
    SCHEDULES_DUE = concat!("SELECT ", schedule_columns!(), " FROM schedules WHERE ", schedule_waits!(), " \
        AND (next_at IS NULL OR next_at <= ?1) ORDER BY next_at LIMIT ?2");

    /// The earliest time of all schedules.
    SCHEDULES_NEXT = concat!("SELECT MIN(next_at) AS next_at FROM schedules WHERE ", schedule_waits!());

    /// ?1 name, ?2 now, ?3 actor.
    SCHEDULE_PAUSE = "UPDATE schedules SET paused_at = ?2, change_seq = change_seq + 1, change_actor = ?3 \
        WHERE name = ?1 AND removed_at IS NULL AND paused_at IS NULL";

    /// It counts from now on. ?1 name, ?2 now, ?3 actor.
    SCHEDULE_RESUME = "UPDATE schedules SET paused_at = NULL, fault = NULL, base_at = ?2, next_at = NULL, \
        change_seq = change_seq + 1, change_actor = ?3 \
        WHERE name = ?1 AND removed_at IS NULL AND (paused_at IS NOT NULL OR fault IS NOT NULL)";

    /// ?1 name, ?2 now, ?3 actor.
    SCHEDULE_REMOVE = "UPDATE schedules SET removed_at = ?2, change_seq = change_seq + 1, change_actor = ?3 \
        WHERE name = ?1 AND removed_at IS NULL";

    /// A schedule goes on to its next time, if it is as it was seen. ?1 id, ?2 next time seen, ?3 base seen, ?4 next time,
    /// ?5 last time, ?6 now when there is no next one, ?7 fault.
    SCHEDULE_MOVE = concat!("UPDATE schedules SET next_at = ?4, last_at = COALESCE(?5, last_at), ended_at = ?6, fault = ?7 \
        WHERE id = ?1 AND next_at IS ?2 AND base_at = ?3 AND ", schedule_waits!());

    /// What stands against a job of a schedule at a time. ?1 id, ?2 time.
    SCHEDULE_STATE = "SELECT overlap, EXISTS (SELECT 1 FROM schedule_occurrences WHERE schedule_id = ?1 AND at = ?2) AS known, \
        EXISTS (SELECT 1 FROM jobs WHERE schedule_id = ?1 AND state IN ('scheduled', 'pending', 'running')) AS busy, \
        EXISTS (SELECT 1 FROM jobs WHERE schedule_id = ?1 AND state IN ('scheduled', 'pending') \
            AND (batch_id IS NULL OR kind = 'expand')) AS waits \
        FROM schedules WHERE id = ?1 AND removed_at IS NULL";

    /// A job of a schedule. ?1 id, ?2 state, ?3 when it starts, ?4 now, ?5 key, ?6 actor.
    SCHEDULE_JOB = "INSERT INTO jobs (source, destination, options, state, queue, priority, max_attempts, run_at, created_at, \
            schedule_id, idempotency_key, change_seq, change_actor, change_reason) \
        SELECT source, destination, options, ?2, queue, priority, max_attempts, ?3, ?4, id, ?5, 1, ?6, 'scheduled' \
        FROM schedules WHERE id = ?1 RETURNING id";

    /// A batch of a schedule. ?1 schedule, ?2 id, ?3 kind, ?4 name, ?5 rules, ?6 now, ?7 actor.
    SCHEDULE_BATCH = "INSERT INTO batches (id, kind, name, source, destination, rules, schedule_id, created_at, created_by) \
        SELECT ?2, ?3, ?4, source, destination, ?5, id, ?6, ?7 FROM schedules WHERE id = ?1";

    /// The job that lists a batch of a schedule. ?1 schedule, ?2 batch, ?3 state, ?4 when it starts, ?5 now, ?6 key, ?7 actor,
    /// ?8 target.
    SCHEDULE_EXPAND = "INSERT INTO jobs (kind, source, destination, state, queue, priority, max_attempts, run_at, created_at, \
            batch_id, schedule_id, idempotency_key, source_key, dest_key, dest_registry, options_key, change_seq, change_actor, \
            change_reason) \
        SELECT 'expand', source, destination, ?3, queue, priority, max_attempts, ?4, ?5, ?2, id, ?6, ?8, ?8, 'batch', '{}', 1, \
            ?7, 'scheduled' FROM schedules WHERE id = ?1 RETURNING id";

    /// What became of a time. ?1 id, ?2 time, ?3 outcome, ?4 job, ?5 now, ?6 actor, ?7 detail.
    SCHEDULE_OCCURRENCE = "INSERT INTO schedule_occurrences (schedule_id, at, outcome, job_id, decided_at, actor, detail) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

    /// What became of the times of a schedule, newest first. ?1 id, ?2 limit.
    SCHEDULE_OCCURRENCES = "SELECT schedule_id, at, outcome, job_id, decided_at, detail FROM schedule_occurrences \
        WHERE schedule_id = ?1 ORDER BY at DESC LIMIT ?2";

    /// Jobs of a schedule that are not finished, older than one of them. ?1 id, ?2 that job.
    SCHEDULE_OLDER = "SELECT id FROM jobs WHERE schedule_id = ?1 AND id < ?2 AND state IN ('scheduled', 'pending', 'running')";
}
