//! Every statement of the store, named. `sqlx-data.json` describes each; a test compares the two.

pub(in crate::store) mod api;
pub(in crate::store) mod batch;
pub(in crate::store) mod schedule;
pub(in crate::store) mod vault;

macro_rules! job_columns {
    () => {
        "id, kind, generation, source, destination, options, state, queue, priority, attempt, max_attempts, crash_count, \
         lease_epoch, run_at, created_at, started_at, finished_at, worker, lease_until, batch_id, schedule_id, \
         idempotency_key, cancel_requested_at, paused_at, bytes_done, bytes_total, blobs_done, blobs_total, failure_stage, \
         failure_class, failure_message, failure_at, report, dest_key"
    };
}

macro_rules! schedule_columns {
    () => {
        "id, name, timing, timezone, jitter_ms, missed, overlap, kind, source, destination, options, queue, priority, \
         max_attempts, created_at, base_at, next_at, last_at, paused_at, ended_at, fault"
    };
}

/// A batch and what its jobs come to; `b` and `j` are the tables.
macro_rules! batch_columns {
    () => {
        "b.id, b.kind, b.name, b.source, b.destination, b.schedule_id, b.created_by, b.created_at, b.cancelled_at, \
         MAX(CASE WHEN j.kind = 'expand' THEN j.id END) AS expand_job, \
         MAX(CASE WHEN j.kind = 'expand' THEN j.state END) AS listing, \
         COUNT(j.id) FILTER (WHERE j.kind = 'copy' AND j.state = 'scheduled') AS scheduled, \
         COUNT(j.id) FILTER (WHERE j.kind = 'copy' AND j.state = 'pending') AS pending, \
         COUNT(j.id) FILTER (WHERE j.kind = 'copy' AND j.state = 'running') AS running, \
         COUNT(j.id) FILTER (WHERE j.kind = 'copy' AND j.state = 'completed') AS completed, \
         COUNT(j.id) FILTER (WHERE j.kind = 'copy' AND j.state = 'completed' \
             AND j.report LIKE '%\"already_present\":true%') AS already_present, \
         COUNT(j.id) FILTER (WHERE j.kind = 'copy' AND j.state = 'failed') AS failed, \
         COUNT(j.id) FILTER (WHERE j.kind = 'copy' AND j.state = 'cancelled') AS cancelled, \
         MIN(j.started_at) AS started_at, MAX(j.finished_at) AS finished_at, \
         CAST(COALESCE(SUM(j.bytes_moved), 0) AS BIGINT) AS bytes_moved, \
         CAST(COALESCE(SUM(j.bytes_done), 0) AS BIGINT) AS bytes_done, \
         CAST(COALESCE(SUM(j.bytes_total), 0) AS BIGINT) AS bytes_total, \
         (SELECT COUNT(*) FROM batch_repositories AS r WHERE r.batch_id = b.id) AS repositories, \
         (SELECT COUNT(*) FROM batch_repositories AS r WHERE r.batch_id = b.id AND r.failure_class IS NOT NULL) \
             AS repositories_failed"
    };
}

/// What a schedule is that somebody may fire.
macro_rules! schedule_waits {
    () => {
        "removed_at IS NULL AND paused_at IS NULL AND ended_at IS NULL AND fault IS NULL"
    };
}

/// What all lists of jobs have in common. A page begins where the last one ended: that is a place in the index.
macro_rules! jobs_filter {
    () => {
        "(?2 IS NULL OR source GLOB ?2) AND (?3 IS NULL OR destination GLOB ?3) AND (?4 IS NULL OR created_at >= ?4) \
         AND id < COALESCE(?5, 9223372036854775807) AND (?7 IS NULL OR queue = ?7) AND (?8 IS NULL OR batch_id = ?8) \
         ORDER BY id DESC LIMIT ?6"
    };
}

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $sql:expr;)*) => {
        $($(#[$doc])* pub(crate) const $name: &str = $sql;)*
        /// All statements, by name.
        pub(crate) const ALL: &[(&str, &str)] = &[$((stringify!($name), $name)),*];
    };
}

// PostgreSQL's texts are made by the same two.
pub(super) use {batch_columns, job_columns, schedule_columns, schedule_waits, statements};

statements! {
    /// One job. ?1 id.
    JOB = concat!("SELECT ", job_columns!(), " FROM jobs WHERE id = ?1");

    /// Jobs, newest first. ?1 state, ?2 source glob, ?3 destination glob, ?4 created since, ?5 below this id, ?6 limit,
    /// ?7 queue, ?8 batch.
    JOBS = concat!("SELECT ", job_columns!(), " FROM jobs WHERE (?1 IS NULL OR state = ?1) AND ", jobs_filter!());

    /// As JOBS, with a state: found by the index of states, however rare it is.
    JOBS_IN_STATE = concat!("SELECT ", job_columns!(), " FROM jobs INDEXED BY jobs_state WHERE state = ?1 AND ", jobs_filter!());

    /// As JOBS, with a batch: found by the index of batches.
    JOBS_IN_BATCH = concat!("SELECT ", job_columns!(), " FROM jobs INDEXED BY jobs_batch WHERE batch_id IS NOT NULL \
        AND batch_id = ?8 AND (?1 IS NULL OR state = ?1) AND ", jobs_filter!());

    /// The history of a job. ?1 id.
    EVENTS = "SELECT seq, job_id, at, from_state, to_state, lease_epoch, attempt, worker, actor, reason, detail \
        FROM job_events WHERE job_id = ?1 ORDER BY seq";

    /// Counts by state.
    COUNTS = "SELECT state, COUNT(*) AS jobs FROM jobs GROUP BY state";

    /// When the oldest pending job could have started first.
    OLDEST_PENDING = "SELECT MIN(run_at) AS run_at FROM jobs WHERE state = 'pending'";

    /// What finished since ?1.
    THROUGHPUT = "SELECT COALESCE(SUM(state = 'completed'), 0) AS completed, COALESCE(SUM(state = 'failed'), 0) AS failed, \
        COALESCE(SUM(CASE WHEN state = 'completed' THEN report ->> '$.bytes_copied' END), 0) AS bytes \
        FROM jobs WHERE state IN ('completed', 'failed', 'cancelled') AND finished_at IS NOT NULL AND finished_at >= ?1";

    /// The jobs that keys name. ?1 JSON array of keys.
    KEYS = "SELECT k.key, k.job_id, j.source, j.destination, j.options, j.queue \
        FROM json_each(?1) AS v JOIN idempotency_keys AS k ON k.key = v.value LEFT JOIN jobs AS j ON j.id = k.job_id";

    /// One more key for a job. ?1 key, ?2 job, ?3 now.
    KEY_ADD = "INSERT INTO idempotency_keys (key, job_id, created_at) VALUES (?1, ?2, ?3)";

    /// Jobs that wait and are equal, by the place in the list. Never one that was asked for later, nor one that is paused, nor one
    /// of a batch or a schedule, which may be called off with it. One row
    /// of many: ?1 place, ?2 target, ?3 source, ?4 options, ?5 queue.
    EQUAL = "WITH v (at, target, source, options, queue) AS (VALUES (?1, ?2, ?3, ?4, ?5)) \
        SELECT at, id FROM (SELECT v.at, COALESCE( \
            (SELECT j.id FROM jobs AS j INDEXED BY jobs_pending_target WHERE j.state = 'pending' AND j.dest_key = v.target \
                AND j.source_key = v.source AND j.options_key = v.options AND j.queue = v.queue \
                AND j.kind = 'copy' AND j.batch_id IS NULL AND j.schedule_id IS NULL ORDER BY j.priority, j.id LIMIT 1), \
            (SELECT j.id FROM jobs AS j INDEXED BY jobs_retrying_target WHERE j.state = 'scheduled' \
                AND j.asked_seq IS NOT NULL AND j.dest_key = v.target \
                AND j.source_key = v.source AND j.options_key = v.options AND j.queue = v.queue AND j.kind = 'copy' \
                AND j.batch_id IS NULL AND j.schedule_id IS NULL AND j.paused_at IS NULL ORDER BY j.id LIMIT 1)) AS id \
        FROM v) WHERE id IS NOT NULL";

    /// The waiting job takes the better priority and the earlier time, and counts as asked for now: later than every event so
    /// far, those that retention removed too. ?1 id, ?2 priority, ?3 now, ?4 actor.
    JOIN = "UPDATE jobs SET priority = MIN(priority, ?2), state = 'pending', run_at = MIN(run_at, ?3), \
        asked_seq = (SELECT seq + 1 FROM sqlite_sequence WHERE name = 'job_events'), \
        change_seq = change_seq + 1, change_actor = ?4, change_reason = 'an equal job was asked for' WHERE id = ?1";

    /// A request that an equal job stands for is on record, also when it changed nothing else of that job: its event is the one
    /// that `asked_seq` names. ?1 id, ?2 now, ?3 actor.
    JOINED = "INSERT INTO job_events (job_id, at, from_state, to_state, generation, lease_epoch, attempt, actor, reason) \
        SELECT id, ?2, state, state, generation, lease_epoch, attempt, ?3, 'an equal job was asked for' FROM jobs \
        WHERE id = ?1 AND asked_seq > (SELECT MAX(seq) FROM job_events)";

    /// The seq of the newest event ever, pruned ones too: the next one is one more.
    NEWEST_EVENT = "SELECT COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'job_events'), 0) AS seq";

    /// A new job; asked_seq names the event that the insert writes. One row of many, in this order: ?1 source, ?2 destination,
    /// ?3 options, ?4 state, ?5 queue, ?6 priority, ?7 max attempts, ?8 run at, ?9 now, ?10 key, ?11 canonical source, ?12 target,
    /// ?13 registry, ?14 actor, ?15 asked_seq.
    INSERT = "WITH v (source, destination, options, state, queue, priority, max_attempts, run_at, now, key, source_key, \
            dest_key, dest_registry, actor, asked_seq) \
        AS (VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)) \
        INSERT INTO jobs (source, destination, options, state, queue, priority, max_attempts, run_at, created_at, \
        idempotency_key, source_key, dest_key, dest_registry, options_key, asked_seq, change_seq, change_actor, change_reason) \
        SELECT source, destination, options, state, queue, priority, max_attempts, run_at, now, key, source_key, dest_key, \
            dest_registry, options, asked_seq, 1, actor, 'enqueued' FROM v WHERE source IS NOT NULL RETURNING id";

    /// How many loads of this list were finished. ?1 hash of the content.
    LOADS = "SELECT COUNT(*) AS loads FROM finished_loads WHERE content_hash = ?1";

    /// A load is finished. ?1 hash, ?2 number, ?3 now.
    LOAD_FINISHED = "INSERT INTO finished_loads (content_hash, number, finished_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";

    /// What there is to do, and the schema as it is by now. ?1 now.
    WAITING = "SELECT EXISTS (SELECT 1 FROM jobs WHERE state = 'scheduled' AND paused_at IS NULL AND run_at <= ?1) AS due, \
        EXISTS (SELECT 1 FROM jobs WHERE dest_key IS NULL AND state = 'pending') AS intake, \
        EXISTS (SELECT 1 FROM jobs WHERE state = 'pending' AND dest_key IS NOT NULL) AS pending, \
        (SELECT MIN(run_at) FROM jobs WHERE state = 'scheduled' AND paused_at IS NULL) AS next_run_at, \
        (SELECT MAX(version) FROM schema_migrations) AS schema";

    /// Something is pending in a queue that is not paused, running, or waits for a retry: a job for later has not been asked
    /// for yet, so its asked_seq is NULL. ?1 queue.
    BUSY = "SELECT EXISTS (SELECT 1 FROM jobs AS j WHERE j.state = 'pending' AND (?1 IS NULL OR j.queue = ?1) \
            AND NOT EXISTS (SELECT 1 FROM queues AS q WHERE q.name = j.queue AND q.paused_at IS NOT NULL)) \
        OR EXISTS (SELECT 1 FROM jobs WHERE state = 'running' AND (?1 IS NULL OR queue = ?1)) \
        OR EXISTS (SELECT 1 FROM jobs WHERE state = 'scheduled' AND asked_seq IS NOT NULL AND paused_at IS NULL \
            AND (?1 IS NULL OR queue = ?1)) AS busy";

    /// Scheduled jobs whose time has come, a bounded number. ?1 now, ?2 limit.
    DUE = "UPDATE jobs SET state = 'pending', change_seq = change_seq + 1, change_actor = 'freightliner', \
        change_reason = 'due' WHERE id IN (SELECT id FROM jobs WHERE state = 'scheduled' AND paused_at IS NULL \
        AND run_at <= ?1 ORDER BY run_at LIMIT ?2) AND state = 'scheduled'";

    /// Rows whose references nobody has parsed yet. ?1 limit.
    UNPARSED = "SELECT id, kind, source, destination, options FROM jobs WHERE dest_key IS NULL AND state = 'pending' \
        ORDER BY id LIMIT ?1";

    /// What intake found. ?1 JSON array of [id, source, target, registry, options].
    PARSED = "UPDATE jobs SET source_key = v.source, dest_key = v.target, dest_registry = v.registry, options_key = v.options \
        FROM (SELECT value ->> 0 AS id, value ->> 1 AS source, value ->> 2 AS target, value ->> 3 AS registry, \
            value ->> 4 AS options FROM json_each(?1)) AS v \
        WHERE jobs.id = v.id AND jobs.dest_key IS NULL";

    /// What does not parse. ?1 id, ?2 message, ?3 now.
    REJECT = "UPDATE jobs SET state = 'failed', finished_at = ?3, failure_stage = 'intake', failure_class = 'rejected', \
        failure_message = ?2, failure_at = ?3, change_seq = change_seq + 1, change_actor = 'freightliner', \
        change_reason = 'rejected' WHERE id = ?1 AND state = 'pending'";

    /// Pairs of queue and registry with jobs that could be claimed, found by jumping through the index; `free`: how many more
    /// jobs of the queue may run, 0 when it is paused, NULL without a limit.
    READY_PAIRS = "WITH RECURSIVE \
        first (queue, dest_registry) AS (SELECT queue, dest_registry FROM jobs INDEXED BY jobs_ready \
            WHERE state = 'pending' AND dest_key IS NOT NULL ORDER BY queue, dest_registry LIMIT 1), \
        pairs (queue, dest_registry) AS (SELECT queue, dest_registry FROM first UNION ALL \
            SELECT n.queue, n.dest_registry FROM pairs AS p JOIN jobs AS n ON n.id = COALESCE( \
                (SELECT id FROM jobs INDEXED BY jobs_ready WHERE state = 'pending' AND dest_key IS NOT NULL \
                    AND queue = p.queue AND dest_registry > p.dest_registry ORDER BY dest_registry LIMIT 1), \
                (SELECT id FROM jobs INDEXED BY jobs_ready WHERE state = 'pending' AND dest_key IS NOT NULL \
                    AND queue > p.queue ORDER BY queue, dest_registry LIMIT 1))) \
        SELECT p.queue, p.dest_registry, CASE WHEN q.paused_at IS NOT NULL THEN 0 \
            WHEN q.max_running IS NOT NULL THEN MAX(q.max_running \
                - (SELECT COUNT(*) FROM jobs AS r WHERE r.state = 'running' AND r.queue = q.name), 0) END AS free \
        FROM pairs AS p LEFT JOIN queues AS q ON q.name = p.queue";

    /// Running jobs by destination registry.
    RUNNING_BY_REGISTRY = "SELECT dest_registry, COUNT(*) AS jobs FROM jobs WHERE state = 'running' GROUP BY dest_registry";

    /// The head of each pair. ?1 JSON array of [queue, registry], ?2 rows a pair (as a sum: a bare parameter would have SQLite
    /// plan the statement anew for each number).
    HEADS = "SELECT j.id, j.queue, j.dest_registry, j.dest_key, j.priority, \
            EXISTS (SELECT 1 FROM jobs AS r WHERE r.state = 'running' AND r.dest_key = j.dest_key) AS busy \
        FROM json_each(?1) AS pair JOIN jobs AS j ON j.id IN (SELECT p.id FROM jobs AS p INDEXED BY jobs_ready \
            WHERE p.state = 'pending' AND p.dest_key IS NOT NULL AND p.queue = pair.value ->> 0 \
                AND p.dest_registry = pair.value ->> 1 ORDER BY p.priority, p.id LIMIT ?2 + 0)";

    /// The best job of each target that nobody writes, in these queues, found by jumping through the index. ?1 JSON array of queues.
    TARGET_HEADS = "WITH RECURSIVE targets (dest_key) AS ( \
            SELECT MIN(dest_key) FROM jobs INDEXED BY jobs_pending_target WHERE state = 'pending' AND dest_key IS NOT NULL \
            UNION ALL \
            SELECT (SELECT MIN(dest_key) FROM jobs INDEXED BY jobs_pending_target \
                WHERE state = 'pending' AND dest_key > targets.dest_key) FROM targets WHERE targets.dest_key IS NOT NULL) \
        SELECT j.id, j.queue, j.dest_registry, j.dest_key, j.priority, 0 AS busy FROM targets JOIN jobs AS j ON j.id IN ( \
            SELECT p.id FROM jobs AS p INDEXED BY jobs_pending_target \
            WHERE p.state = 'pending' AND p.dest_key = targets.dest_key AND p.queue IN (SELECT value FROM json_each(?1)) \
            ORDER BY p.priority, p.id LIMIT 1) \
        WHERE targets.dest_key IS NOT NULL \
            AND NOT EXISTS (SELECT 1 FROM jobs AS r WHERE r.state = 'running' AND r.dest_key = targets.dest_key)";

    /// Jobs that are asked for by id. ?1 JSON array of ids.
    NAMED = "SELECT j.id, j.queue, j.dest_registry, j.dest_key, j.priority, \
            EXISTS (SELECT 1 FROM jobs AS r WHERE r.state = 'running' AND r.dest_key = j.dest_key) AS busy \
        FROM json_each(?1) AS v JOIN jobs AS j ON j.id = v.value WHERE j.state = 'pending' AND j.dest_key IS NOT NULL";

    /// Takes a job. One row of many: ?1 id, ?2 worker, ?3 lease until, ?4 now.
    CLAIM = concat!("WITH v (job, holder, until, now) AS (VALUES (?1, ?2, ?3, ?4)) \
        UPDATE jobs SET state = 'running', attempt = attempt + 1, lease_epoch = lease_epoch + 1, lease_beat = 0, \
            worker = v.holder, lease_until = v.until, started_at = v.now, cancel_requested_at = NULL, bytes_done = NULL, \
            bytes_total = NULL, blobs_done = NULL, blobs_total = NULL, bytes_moved = 0, \
            change_seq = change_seq + 1, change_actor = 'freightliner', change_reason = 'claimed' \
        FROM v WHERE jobs.id = v.job AND +jobs.state = 'pending' \
        RETURNING ", job_columns!());

    /// A lease holds for another while. One row of many: ?1 id, ?2 epoch, ?3 lease until, ?4 bytes done, ?5 bytes in all,
    /// ?6 blobs done, ?7 blobs in all, ?8 bytes moved.
    RENEW = "WITH v (job, epoch, until, new_bytes_done, new_bytes_total, new_blobs_done, new_blobs_total, moved) \
            AS (VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)) \
        UPDATE jobs SET lease_until = v.until, lease_beat = lease_beat + 1, bytes_done = v.new_bytes_done, \
            bytes_total = v.new_bytes_total, blobs_done = v.new_blobs_done, blobs_total = v.new_blobs_total, bytes_moved = v.moved \
        FROM v WHERE jobs.id = v.job AND +jobs.state = 'running' AND jobs.lease_epoch = v.epoch \
        RETURNING id, lease_epoch, cancel_requested_at";

    /// Jobs for whose target another one, asked for later, is completed, or was until it was retried or removed.
    /// ?1 JSON array of [target, id].
    SUPERSEDED = "SELECT id, newer FROM (SELECT v.value ->> 1 AS id, COALESCE((SELECT c.id FROM jobs AS c \
            WHERE c.state = 'completed' AND c.dest_key = v.value ->> 0 \
                AND (c.asked_seq, c.id) > (SELECT COALESCE(asked_seq, 0), id FROM jobs WHERE id = v.value ->> 1) \
            ORDER BY c.asked_seq DESC, c.id DESC LIMIT 1), (SELECT w.job_id FROM written_targets AS w \
            WHERE w.dest_key = v.value ->> 0 \
                AND (w.asked_seq, w.job_id) > (SELECT COALESCE(asked_seq, 0), id FROM jobs WHERE id = v.value ->> 1))) AS newer \
        FROM json_each(?1) AS v) WHERE newer IS NOT NULL";

    /// Ends an attempt: the one statement for every exit from `running` that a worker has. A cancel that was asked for wins over
    /// a retry and a release. One row of many: ?1 id, ?2 epoch, ?3 kind, ?4 now, ?5 next run, ?6 failure stage, ?7 class,
    /// ?8 message, ?9 bytes done, ?10 bytes in all, ?11 blobs done, ?12 blobs in all, ?13 bytes moved, ?14 report, ?15 reason;
    /// kind: completed, failed, cancelled, retry or release.
    SETTLE = "WITH v (job, epoch, kind, now, next, stage, class, message, new_bytes_done, new_bytes_total, new_blobs_done, \
            new_blobs_total, moved, new_report, reason) \
            AS (VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)) \
        UPDATE jobs SET \
            state = CASE WHEN v.kind NOT IN ('retry', 'release') THEN v.kind WHEN cancel_requested_at IS NOT NULL THEN 'cancelled' \
                WHEN v.kind = 'retry' THEN 'scheduled' ELSE 'pending' END, \
            worker = NULL, lease_until = NULL, report = v.new_report, bytes_moved = v.moved, \
            finished_at = CASE WHEN v.kind NOT IN ('retry', 'release') OR cancel_requested_at IS NOT NULL THEN v.now END, \
            run_at = CASE WHEN v.kind = 'retry' THEN v.next ELSE run_at END, \
            attempt = CASE WHEN v.kind = 'release' THEN MAX(attempt - 1, 0) ELSE attempt END, \
            crash_count = CASE WHEN v.kind = 'release' THEN crash_count ELSE 0 END, \
            cancel_requested_at = CASE WHEN v.kind = 'completed' THEN NULL ELSE cancel_requested_at END, \
            failure_stage = CASE WHEN v.kind IN ('cancelled', 'release') THEN failure_stage ELSE v.stage END, \
            failure_class = CASE WHEN v.kind IN ('cancelled', 'release') THEN failure_class ELSE v.class END, \
            failure_message = CASE WHEN v.kind IN ('cancelled', 'release') THEN failure_message ELSE v.message END, \
            failure_at = CASE WHEN v.kind IN ('cancelled', 'release') THEN failure_at \
                WHEN v.kind = 'completed' THEN NULL ELSE v.now END, \
            bytes_done = CASE WHEN v.kind = 'release' THEN bytes_done ELSE v.new_bytes_done END, \
            bytes_total = CASE WHEN v.kind = 'release' THEN bytes_total ELSE v.new_bytes_total END, \
            blobs_done = CASE WHEN v.kind = 'release' THEN blobs_done ELSE v.new_blobs_done END, \
            blobs_total = CASE WHEN v.kind = 'release' THEN blobs_total ELSE v.new_blobs_total END, \
            change_seq = change_seq + 1, change_actor = 'freightliner', \
            change_reason = CASE v.kind WHEN 'completed' THEN 'succeeded' WHEN 'failed' THEN 'gave up' \
                WHEN 'cancelled' THEN 'cancelled' ELSE CASE WHEN cancel_requested_at IS NOT NULL THEN 'cancelled' \
                WHEN v.kind = 'retry' THEN 'will retry' ELSE v.reason END END \
        FROM v \
        WHERE jobs.id = v.job AND +jobs.state = 'running' AND jobs.lease_epoch = v.epoch \
        RETURNING id, lease_epoch, state";

    /// A blob of an attempt. One row of many: ?1 job, ?2 generation, ?3 attempt, ?4 epoch, ?5 now, ?6 registry, ?7 repository,
    /// ?8 digest, ?9 bytes, ?10 how.
    TRANSFERS = "WITH v (job, generation, attempt, epoch, now, registry, repository, digest, bytes, how) \
            AS (VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)) \
        INSERT INTO transfers (job_id, generation, attempt, lease_epoch, at, registry, repository, digest, bytes, how) \
        SELECT job, generation, attempt, epoch, now, registry, repository, digest, bytes, how FROM v WHERE job IS NOT NULL";

    /// Of these, running jobs of a worker whose cancel was asked for. ?1 worker.
    CANCEL_ASKED = "SELECT id, lease_epoch FROM jobs WHERE state = 'running' AND worker = ?1 AND cancel_requested_at IS NOT NULL";

    /// Ids that do not exist. ?1 JSON array of ids.
    UNKNOWN_IDS = "SELECT value + 0 AS id FROM json_each(?1) WHERE value NOT IN (SELECT id FROM jobs) LIMIT 1";

    /// Waiting jobs end; running ones are asked to. ?1 JSON array of ids, ?2 now, ?3 actor.
    CANCEL = "UPDATE jobs SET \
            state = CASE WHEN state = 'running' THEN 'running' ELSE 'cancelled' END, \
            finished_at = CASE WHEN state = 'running' THEN finished_at ELSE ?2 END, paused_at = NULL, \
            cancel_requested_at = ?2, change_seq = change_seq + 1, change_actor = ?3, change_reason = 'cancelled' \
        WHERE id IN (SELECT value FROM json_each(?1)) AND state IN ('scheduled', 'pending', 'running') \
            AND (state <> 'running' OR cancel_requested_at IS NULL)";

    /// Finished jobs begin anew; those that wait for a retry, or are paused, need not wait. All count as asked for now. ?1 JSON array of ids, ?2 now, ?3 actor.
    RETRY = "UPDATE jobs SET state = 'pending', run_at = ?2, paused_at = NULL, \
            asked_seq = CASE WHEN state = 'scheduled' THEN (SELECT seq + 1 FROM sqlite_sequence WHERE name = 'job_events') \
                ELSE asked_seq END, \
            generation = generation + (state <> 'scheduled'), \
            attempt = 0, crash_count = 0, started_at = NULL, finished_at = NULL, cancel_requested_at = NULL, report = NULL, \
            bytes_done = NULL, bytes_total = NULL, blobs_done = NULL, blobs_total = NULL, bytes_moved = 0, \
            failure_stage = NULL, failure_class = NULL, failure_message = NULL, failure_at = NULL, \
            change_seq = change_seq + 1, change_actor = ?3, change_reason = 'operator retry' \
        WHERE id IN (SELECT value FROM json_each(?1)) AND state IN ('scheduled', 'completed', 'failed', 'cancelled')";

    /// Waiting jobs get another place in the queue. ?1 JSON array of ids, ?2 now, ?3 actor, ?4 priority, ?5 run at,
    /// ?6 max attempts, ?7 queue; NULL leaves a value as it is. Those that are so already are not touched.
    EDIT = "UPDATE jobs SET priority = COALESCE(?4, priority), run_at = COALESCE(?5, run_at), \
            max_attempts = COALESCE(?6, max_attempts), queue = COALESCE(?7, queue), \
            change_seq = change_seq + 1, change_actor = ?3, change_reason = 'edited' \
        WHERE id IN (SELECT value FROM json_each(?1)) AND state IN ('scheduled', 'pending') AND ?2 IS NOT NULL \
            AND (priority <> COALESCE(?4, priority) OR run_at <> COALESCE(?5, run_at) \
                OR max_attempts <> COALESCE(?6, max_attempts) OR queue <> COALESCE(?7, queue))";

    /// Waiting jobs are held back. ?1 JSON array of ids, ?2 now, ?3 actor.
    PAUSE = "UPDATE jobs SET paused_at = ?2, state = 'scheduled', \
            change_seq = change_seq + 1, change_actor = ?3, change_reason = 'paused' \
        WHERE id IN (SELECT value FROM json_each(?1)) AND state IN ('scheduled', 'pending') AND paused_at IS NULL";

    /// Paused jobs go on. ?1 JSON array of ids, ?2 now, ?3 actor.
    RESUME = "UPDATE jobs SET paused_at = NULL, state = CASE WHEN run_at <= ?2 THEN 'pending' ELSE 'scheduled' END, \
            change_seq = change_seq + 1, change_actor = ?3, change_reason = 'resumed' \
        WHERE id IN (SELECT value FROM json_each(?1)) AND state = 'scheduled' AND paused_at IS NOT NULL";

    /// A page of the jobs that a filter means, by id. ?1 state, ?2 batch, ?3 queue, ?4 above this id, ?5 up to this id, ?6 limit.
    PAGE = "SELECT id FROM jobs WHERE (?1 IS NULL OR state = ?1) AND (?2 IS NULL OR batch_id = ?2) \
        AND (?3 IS NULL OR queue = ?3) AND id > ?4 AND id <= ?5 ORDER BY id LIMIT ?6";

    /// The newest job.
    LAST_JOB = "SELECT COALESCE(MAX(id), 0) AS id FROM jobs";

    /// Queues with a row or with jobs that are not finished. ?1 now.
    QUEUES = "WITH counted AS MATERIALIZED (SELECT queue AS name, SUM(state = 'scheduled') AS scheduled, \
            SUM(state = 'pending') AS pending, SUM(state = 'running') AS running, \
            MIN(CASE WHEN state = 'pending' THEN run_at END) AS oldest \
            FROM jobs WHERE state IN ('scheduled', 'pending', 'running') GROUP BY queue) \
        SELECT n.name, q.paused_at, q.max_running, COALESCE(c.scheduled, 0) AS scheduled, \
            COALESCE(c.pending, 0) AS pending, COALESCE(c.running, 0) AS running, ?1 - c.oldest AS oldest_pending_age_ms \
        FROM (SELECT name FROM queues UNION SELECT name FROM counted) AS n \
        LEFT JOIN queues AS q ON q.name = n.name LEFT JOIN counted AS c ON c.name = n.name ORDER BY n.name";

    /// A queue is paused. ?1 name, ?2 now, ?3 actor.
    QUEUE_PAUSE = "INSERT INTO queues (name, paused_at, change_seq, change_actor) VALUES (?1, ?2, 1, ?3) \
        ON CONFLICT (name) DO UPDATE SET paused_at = excluded.paused_at, change_seq = change_seq + 1, \
        change_actor = excluded.change_actor WHERE queues.paused_at IS NULL";

    /// A queue goes on. ?1 name, ?2 actor.
    QUEUE_RESUME = "UPDATE queues SET paused_at = NULL, change_seq = change_seq + 1, change_actor = ?2 \
        WHERE name = ?1 AND paused_at IS NOT NULL";

    /// A queue gets a limit, or loses it. ?1 name, ?2 limit or NULL, ?3 actor.
    QUEUE_LIMIT = "INSERT INTO queues (name, max_running, change_seq, change_actor) SELECT ?1, ?2, 1, ?3 \
        WHERE ?2 IS NOT NULL OR EXISTS (SELECT 1 FROM queues WHERE name = ?1) \
        ON CONFLICT (name) DO UPDATE SET max_running = excluded.max_running, change_seq = change_seq + 1, \
        change_actor = excluded.change_actor WHERE queues.max_running IS NOT excluded.max_running";

    /// What decides whether a job runs. ?1 id, ?2 since when a worker must have been seen.
    WHY = "SELECT j.paused_at, j.dest_key IS NOT NULL AS parsed, q.paused_at AS queue_paused_at, q.max_running, j.dest_registry, \
            (SELECT COUNT(*) FROM jobs AS r WHERE r.state = 'running' AND r.queue = j.queue) AS queue_running, \
            (SELECT COUNT(*) FROM jobs AS r WHERE r.state = 'running' AND r.dest_registry = j.dest_registry) AS registry_running, \
            (SELECT r.id FROM jobs AS r WHERE r.state = 'running' AND r.dest_key = j.dest_key AND r.id <> j.id) AS same_destination, \
            (SELECT COUNT(*) FROM (SELECT 1 FROM jobs AS a WHERE a.state = 'pending' AND a.queue = j.queue \
                AND (a.priority, a.id) < (j.priority, j.id) LIMIT 1000)) AS ahead, \
            (SELECT COUNT(*) FROM workers AS w WHERE w.concurrency > 0 AND w.seen_at >= ?2 \
                AND (w.queue IS NULL OR w.queue = j.queue)) AS workers, \
            (SELECT COALESCE(SUM(w.concurrency), 0) FROM workers AS w WHERE w.seen_at >= ?2 \
                AND (w.queue IS NULL OR w.queue = j.queue)) AS places \
        FROM jobs AS j LEFT JOIN queues AS q ON q.name = j.queue WHERE j.id = ?1";

    /// Retention begins a batch. ?1 now, ?2 actor, ?3 reason.
    PRUNE = "INSERT INTO prunes (at, actor, reason) VALUES (?1, ?2, ?3) RETURNING id";

    /// Finished jobs that are not kept any longer, oldest first. ?1 state, ?2 finished before, ?3 limit.
    PRUNABLE = "SELECT id, finished_at FROM jobs WHERE state = ?1 AND finished_at IS NOT NULL AND finished_at < ?2 \
        ORDER BY finished_at LIMIT ?3";

    /// How many finished jobs are not kept any longer. ?1 state, ?2 finished before.
    PRUNABLE_JOBS = "SELECT COUNT(*) AS jobs FROM jobs WHERE state = ?1 AND finished_at IS NOT NULL AND finished_at < ?2";

    /// How many keys would not be kept: their jobs are gone, or would go. ?1 made before; jobs finished before: ?2 completed,
    /// ?3 cancelled, ?4 failed.
    PRUNABLE_KEYS = "SELECT COUNT(*) AS keys FROM idempotency_keys AS k WHERE k.created_at < ?1 \
        AND NOT EXISTS (SELECT 1 FROM jobs AS j WHERE j.id = k.job_id AND NOT COALESCE(j.finished_at < CASE j.state \
            WHEN 'completed' THEN ?2 WHEN 'cancelled' THEN ?3 WHEN 'failed' THEN ?4 END, FALSE))";

    /// Records jobs that are about to be removed: those that were not retried since they were found. ?1 prune, ?2 JSON array of
    /// [id, finished at].
    PRUNE_RECORD = "INSERT INTO pruned_jobs (job_id, prune_id, state, finished_at) SELECT j.id, ?1, j.state, j.finished_at \
        FROM json_each(?2) AS v JOIN jobs AS j ON j.id = v.value ->> 0 \
        WHERE j.finished_at = v.value ->> 1 AND j.state IN ('completed', 'failed', 'cancelled')";

    /// Removes the events of the jobs of a prune. ?1 prune.
    PRUNE_EVENTS = "DELETE FROM job_events WHERE job_id IN (SELECT job_id FROM pruned_jobs WHERE prune_id = ?1)";

    /// Removes the transfers of the jobs of a prune. ?1 prune.
    PRUNE_TRANSFERS = "DELETE FROM transfers WHERE job_id IN (SELECT job_id FROM pruned_jobs WHERE prune_id = ?1)";

    /// Removes the jobs of a prune. ?1 prune.
    PRUNE_JOBS = "DELETE FROM jobs WHERE id IN (SELECT job_id FROM pruned_jobs WHERE prune_id = ?1)";

    /// Removes old keys of jobs that are not kept any more. ?1 made before, ?2 limit.
    PRUNE_KEYS = "DELETE FROM idempotency_keys WHERE key IN (SELECT k.key FROM idempotency_keys AS k WHERE k.created_at < ?1 \
        AND NOT EXISTS (SELECT 1 FROM jobs AS j WHERE j.id = k.job_id) LIMIT ?2)";

    /// Removes what is known of the repositories of batches that are not kept any more. ?1 made before, ?2 limit.
    PRUNE_REPOSITORIES = "DELETE FROM batch_repositories WHERE batch_id IN (SELECT b.id FROM batches AS b WHERE b.created_at < ?1 \
        AND NOT EXISTS (SELECT 1 FROM jobs AS j WHERE j.batch_id = b.id) ORDER BY b.created_at LIMIT ?2)";

    /// Removes these batches: their jobs are gone. ?1 made before, ?2 limit.
    PRUNE_BATCHES = "DELETE FROM batches WHERE id IN (SELECT b.id FROM batches AS b WHERE b.created_at < ?1 \
        AND NOT EXISTS (SELECT 1 FROM jobs AS j WHERE j.batch_id = b.id) ORDER BY b.created_at LIMIT ?2)";

    /// Removes times of schedules whose jobs are gone. ?1 decided before, ?2 limit.
    PRUNE_OCCURRENCES = "DELETE FROM schedule_occurrences WHERE (schedule_id, at) IN (SELECT o.schedule_id, o.at \
        FROM schedule_occurrences AS o \
        WHERE o.decided_at < MIN(?1, CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER) - 86400000) \
        AND NOT EXISTS (SELECT 1 FROM jobs AS j WHERE j.id = o.job_id) LIMIT ?2)";

    /// A remark in the history of a job. ?1 job, ?2 now, ?3 worker, ?4 reason, ?5 detail.
    REMARK = "INSERT INTO job_events (job_id, at, from_state, to_state, generation, lease_epoch, attempt, worker, actor, reason, \
        detail) SELECT id, ?2, state, state, generation, lease_epoch, attempt, ?3, 'freightliner', ?4, ?5 \
        FROM jobs WHERE id = ?1";

    /// What the newest completed job for a target left there. ?1 target.
    PUBLISHED = "SELECT id, report ->> '$.digest' AS digest FROM jobs \
        WHERE state = 'completed' AND dest_key = ?1 AND report IS NOT NULL ORDER BY asked_seq DESC, id DESC LIMIT 1";

    /// A restore begins. ?1 now, ?2 actor, ?3 epochs.
    RESTORE = "INSERT INTO restores (at, actor, epochs) VALUES (?1, ?2, ?3) RETURNING id";

    /// What ran when the backup was made waits again, unless somebody wanted it cancelled. ?1 now, ?2 actor.
    RESTORE_RUNNING = "UPDATE jobs SET state = CASE WHEN cancel_requested_at IS NULL THEN 'scheduled' ELSE 'cancelled' END, \
        finished_at = CASE WHEN cancel_requested_at IS NOT NULL THEN ?1 END, worker = NULL, lease_until = NULL, lease_epoch = lease_epoch + 1, \
        attempt = MAX(attempt - 1, 0), run_at = ?1, change_seq = change_seq + 1, change_actor = ?2, \
        change_reason = 'restored from a backup' WHERE state = 'running'";

    /// Every epoch rises. ?1 epochs, ?2 actor.
    RESTORE_EPOCHS = "UPDATE jobs SET lease_epoch = lease_epoch + ?1, change_seq = change_seq + 1, change_actor = ?2, \
        change_reason = 'restored'";

    /// Workers of the lost time are forgotten.
    RESTORE_WORKERS = "DELETE FROM workers";

    /// Their temporary files too.
    RESTORE_TEMP_FILES = "DELETE FROM temp_files";

    /// The restore is done. ?1 id, ?2 now.
    RESTORE_DONE = "UPDATE restores SET finished_at = ?2 WHERE id = ?1";

    /// The schema as it is now: another program may have migrated the database since it was opened.
    SCHEMA = "SELECT MAX(version) AS version FROM schema_migrations";

    /// The queue is paused. ?1 name.
    PAUSED = "SELECT EXISTS (SELECT 1 FROM queues WHERE name = ?1 AND paused_at IS NOT NULL) AS paused";

    /// A worker starts. ?1 id, ?2 host, ?3 pid, ?4 machine, ?5 boot, ?6 state folder, ?7 device, ?8 inode, ?9 version,
    /// ?10 lease ttl ms, ?11 now, ?12 queue,
    /// ?13 concurrency.
    WORKER_START = "INSERT INTO workers (id, host, pid, machine_id, boot_id, state_dir, state_device, state_inode, version, \
        lease_ttl_ms, started_at, seen_at, queue, concurrency) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11, ?12, ?13)";

    /// A worker is alive. ?1 id, ?2 now.
    WORKER_SEEN = "UPDATE workers SET seen_at = ?2 WHERE id = ?1";

    /// A worker is gone, with no job left. ?1 id.
    WORKER_GONE = "DELETE FROM workers WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM jobs WHERE state = 'running' AND worker = ?1)";

    /// All workers.
    WORKERS = "SELECT id, host, pid, machine_id, boot_id, state_dir, state_device, state_inode, version, lease_ttl_ms, \
        queue, concurrency, started_at, seen_at FROM workers ORDER BY started_at, id";

    /// All leases.
    LEASES = "SELECT id, lease_epoch, lease_beat, worker, lease_until FROM jobs WHERE state = 'running' ORDER BY id";

    /// How often a job's workers died in its generation. ?1 id.
    CRASHES = "SELECT COUNT(*) AS crashes FROM job_events AS e JOIN jobs AS j ON j.id = e.job_id \
        WHERE e.job_id = ?1 AND e.generation = j.generation AND e.reason = 'lease expired'";

    /// Takes a job from a dead worker. ?1 id, ?2 epoch, ?3 beat, ?4 now, ?5 it is poison, ?6 message, ?7 next run.
    RECLAIM = "UPDATE jobs SET \
            state = CASE WHEN cancel_requested_at IS NOT NULL THEN 'cancelled' WHEN ?5 THEN 'failed' ELSE 'scheduled' END, \
            finished_at = CASE WHEN cancel_requested_at IS NOT NULL OR ?5 THEN ?4 END, \
            worker = NULL, lease_until = NULL, lease_epoch = lease_epoch + 1, attempt = MAX(attempt - 1, 0), \
            crash_count = CASE WHEN bytes_moved > 0 THEN 0 ELSE crash_count + 1 END, run_at = ?7, \
            failure_stage = 'work', failure_at = ?4, failure_message = ?6, \
            failure_class = CASE WHEN ?5 THEN 'poison' ELSE 'crashed' END, \
            change_seq = change_seq + 1, change_actor = 'sweeper', change_reason = 'lease expired' \
        WHERE id = ?1 AND state = 'running' AND lease_epoch = ?2 AND lease_beat = ?3 RETURNING state";

    /// What counts toward poison of one lease. ?1 id, ?2 epoch, ?3 beat.
    CRASH_FACTS = "SELECT crash_count, bytes_moved FROM jobs WHERE id = ?1 AND state = 'running' AND lease_epoch = ?2 \
        AND lease_beat = ?3";

    /// Where the history ends.
    LAST_EVENT = "SELECT COALESCE(MAX(seq), 0) AS seq FROM job_events";

    /// Jobs that failed for good since. ?1 seq, ?2 queue or NULL.
    FAILED_SINCE = "SELECT COUNT(*) AS failed FROM job_events AS e JOIN jobs AS j ON j.id = e.job_id \
        WHERE e.seq > ?1 AND e.to_state = 'failed' AND e.from_state <> 'failed' AND (?2 IS NULL OR j.queue = ?2)";

    /// A temporary file is about to be made. ?1 path, ?2 worker, ?3 job, ?4 epoch, ?5 now.
    TEMP_REGISTER = "INSERT INTO temp_files (path, worker, job_id, lease_epoch, created_at) VALUES (?1, ?2, ?3, ?4, ?5)";

    /// Temporary files are gone. ?1 JSON array of paths.
    TEMP_FORGET = "DELETE FROM temp_files WHERE path IN (SELECT value FROM json_each(?1))";

    /// Temporary files of a worker. ?1 worker.
    TEMP_OF = "SELECT path FROM temp_files WHERE worker = ?1 ORDER BY path";

    /// Workers that left temporary files but no row.
    TEMP_WORKERS = "SELECT DISTINCT worker FROM temp_files";

    /// An attempt takes its turn at a blob, if nobody else's runs. ?1 registry, ?2 repository, ?3 digest, ?4 job, ?5 epoch,
    /// ?6 now.
    UPLOAD_TAKE = "INSERT INTO uploads (registry, repository, digest, job_id, lease_epoch, updated_at) \
        SELECT ?1, ?2, ?3, id, lease_epoch, ?6 FROM jobs WHERE id = ?4 AND lease_epoch = ?5 AND state = 'running' \
        ON CONFLICT (registry, repository, digest) DO UPDATE SET job_id = excluded.job_id, \
            lease_epoch = excluded.lease_epoch, updated_at = excluded.updated_at \
        WHERE (uploads.job_id = excluded.job_id AND uploads.lease_epoch = excluded.lease_epoch) OR NOT EXISTS ( \
            SELECT 1 FROM jobs WHERE id = uploads.job_id AND lease_epoch = uploads.lease_epoch AND state = 'running') \
        RETURNING location, committed, midstate";

    /// How far it has come. ?1 registry, ?2 repository, ?3 digest, ?4 job, ?5 epoch, ?6 location, ?7 committed, ?8 midstate,
    /// ?9 now.
    UPLOAD_NOTE = "UPDATE uploads SET location = ?6, committed = ?7, midstate = ?8, updated_at = ?9 \
        WHERE registry = ?1 AND repository = ?2 AND digest = ?3 AND job_id = ?4 AND lease_epoch = ?5 \
        AND EXISTS (SELECT 1 FROM jobs WHERE id = ?4 AND lease_epoch = ?5 AND state = 'running')";

    /// It is over. ?1 registry, ?2 repository, ?3 digest, ?4 job, ?5 epoch.
    UPLOAD_END = "DELETE FROM uploads WHERE registry = ?1 AND repository = ?2 AND digest = ?3 AND job_id = ?4 \
        AND lease_epoch = ?5";

    /// Where blobs were seen. ?1 registry, ?2 repository, ?3 JSON array of digests.
    BLOBS_SEEN = "SELECT w.value || '' AS digest, (SELECT b.repository FROM blobs AS b WHERE b.registry = ?1 \
            AND b.digest = w.value AND b.repository = ?2) AS here, (SELECT b.repository FROM blobs AS b \
            WHERE b.registry = ?1 AND b.digest = w.value AND b.repository <> ?2 LIMIT 1) AS elsewhere \
        FROM json_each(?3) AS w";

    /// Blobs that are not where they were seen. ?1 registry, ?2 repository, ?3 JSON array of digests.
    BLOBS_LOST = "DELETE FROM blobs WHERE registry = ?1 AND repository = ?2 AND digest IN (SELECT value FROM json_each(?3))";

    /// The profile that a registry has shown. ?1 registry.
    REGISTRY_PROFILE = "SELECT profile FROM registries WHERE registry = ?1";

    /// A registry has shown its profile. ?1 registry, ?2 profile.
    REGISTRY_SHOWN = "INSERT INTO registries (registry, profile) VALUES (?1, ?2) \
        ON CONFLICT (registry) DO UPDATE SET profile = excluded.profile WHERE registries.profile <> excluded.profile";

    /// Uploads that nobody has gone on with. ?1 before, ?2 limit.
    UPLOADS_TRIM = "DELETE FROM uploads WHERE (registry, repository, digest) IN (SELECT registry, repository, digest \
        FROM uploads WHERE updated_at < ?1 LIMIT ?2)";

    /// Blobs that were seen long ago. ?1 before, ?2 limit.
    BLOBS_TRIM = "DELETE FROM blobs WHERE (registry, digest, repository) IN (SELECT registry, digest, repository \
        FROM blobs WHERE seen_at < ?1 LIMIT ?2)";

    /// A page of jobs, as their history must explain them. ?1 above this id, ?2 limit.
    CHECK_JOBS = "SELECT id, state, generation, attempt, lease_epoch, worker FROM jobs WHERE id > ?1 ORDER BY id LIMIT ?2";

    /// The histories of a page of jobs. ?1 above this id, ?2 up to this id.
    CHECK_EVENTS = "SELECT job_id, seq, from_state, to_state, generation, lease_epoch, attempt, worker, \
            CASE WHEN from_state = 'running' AND to_state <> 'running' THEN detail END AS end_detail \
        FROM job_events WHERE job_id > ?1 AND job_id <= ?2 ORDER BY job_id, seq";

    /// Targets that more than one job writes.
    CHECK_TARGETS = "SELECT dest_key, COUNT(*) AS jobs FROM jobs WHERE state = 'running' GROUP BY dest_key HAVING COUNT(*) > 1 \
        ORDER BY dest_key LIMIT 20";

    /// Size of the tables.
    SIZES = "SELECT (SELECT COUNT(*) FROM jobs) AS jobs, (SELECT COUNT(*) FROM job_events) AS events";
}
