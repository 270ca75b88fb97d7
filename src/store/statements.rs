//! Every statement of the store, named. `sqlx-data.json` describes each; a test compares the two.

macro_rules! job_columns {
    () => {
        "id, kind, generation, source, destination, options, state, queue, priority, attempt, max_attempts, crash_count, \
         lease_epoch, run_at, created_at, started_at, finished_at, worker, lease_until, batch_id, schedule_id, \
         idempotency_key, cancel_requested_at, bytes_done, bytes_total, blobs_done, blobs_total, failure_stage, \
         failure_class, failure_message, failure_at, report, dest_key"
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
pub(super) use {job_columns, statements};

statements! {
    /// One job. ?1 id.
    JOB = concat!("SELECT ", job_columns!(), " FROM jobs WHERE id = ?1");

    /// Jobs, newest first. ?1 state, ?2 source glob, ?3 destination glob, ?4 created since, ?5 below this id, ?6 limit,
    /// ?7 queue, ?8 batch.
    JOBS = concat!("SELECT ", job_columns!(), " FROM jobs WHERE (?1 IS NULL OR state = ?1) \
        AND (?2 IS NULL OR source GLOB ?2) AND (?3 IS NULL OR destination GLOB ?3) \
        AND (?4 IS NULL OR created_at >= ?4) AND (?5 IS NULL OR id < ?5) \
        AND (?7 IS NULL OR queue = ?7) AND (?8 IS NULL OR batch_id = ?8) ORDER BY id DESC LIMIT ?6");

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
        FROM jobs WHERE finished_at >= ?1";

    /// The job that a key names. ?1 key.
    KEY = "SELECT k.job_id, j.source, j.destination, j.options, j.queue FROM idempotency_keys AS k \
        LEFT JOIN jobs AS j ON j.id = k.job_id WHERE k.key = ?1";

    /// One more key for a job. ?1 key, ?2 job, ?3 now.
    KEY_ADD = "INSERT INTO idempotency_keys (key, job_id, created_at) VALUES (?1, ?2, ?3)";

    /// A job that waits and is equal: ?1 target, ?2 source, ?3 options, ?4 queue. Never one that was asked for later.
    EQUAL = "SELECT id, state, priority FROM jobs WHERE state IN ('pending', 'scheduled') AND dest_key = ?1 \
        AND source_key = ?2 AND options_key = ?3 AND queue = ?4 AND kind = 'copy' \
        AND asked_seq IS NOT NULL ORDER BY id LIMIT 1";

    /// The waiting job takes the better priority and the earlier time, and counts as asked for now: later than every event so
    /// far. ?1 id, ?2 priority, ?3 now, ?4 actor.
    JOIN = "UPDATE jobs SET priority = MIN(priority, ?2), state = 'pending', run_at = MIN(run_at, ?3), \
        asked_seq = (SELECT MAX(seq) + 1 FROM job_events), \
        change_seq = change_seq + 1, change_actor = ?4, change_reason = 'an equal job was asked for' WHERE id = ?1";

    /// A new job. ?1 source, ?2 destination, ?3 options, ?4 state, ?5 queue, ?6 priority, ?7 max attempts, ?8 run at, ?9 now,
    /// ?10 key, ?11 canonical source, ?12 target, ?13 registry, ?14 canonical options, ?15 actor.
    INSERT = "INSERT INTO jobs (source, destination, options, state, queue, priority, max_attempts, run_at, created_at, \
        idempotency_key, source_key, dest_key, dest_registry, options_key, change_seq, change_actor, change_reason) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, 1, ?15, 'enqueued') RETURNING id";

    /// How many loads of this list were finished. ?1 hash of the content.
    LOADS = "SELECT COUNT(*) AS loads FROM finished_loads WHERE content_hash = ?1";

    /// A load is finished. ?1 hash, ?2 number, ?3 now.
    LOAD_FINISHED = "INSERT INTO finished_loads (content_hash, number, finished_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";

    /// What there is to do. ?1 now.
    WAITING = "SELECT EXISTS (SELECT 1 FROM jobs WHERE state = 'scheduled' AND run_at <= ?1) AS due, \
        EXISTS (SELECT 1 FROM jobs WHERE dest_key IS NULL AND state = 'pending') AS intake, \
        EXISTS (SELECT 1 FROM jobs WHERE state = 'pending') AS pending, \
        (SELECT MIN(run_at) FROM jobs WHERE state = 'scheduled') AS next_run_at";

    /// Something is pending in a queue that is not paused, running, or waits for a retry: a job for later has not been asked
    /// for yet, so its asked_seq is NULL. ?1 queue.
    BUSY = "SELECT EXISTS (SELECT 1 FROM jobs AS j WHERE j.state = 'pending' AND (?1 IS NULL OR j.queue = ?1) \
            AND NOT EXISTS (SELECT 1 FROM queues AS q WHERE q.name = j.queue AND q.paused_at IS NOT NULL)) \
        OR EXISTS (SELECT 1 FROM jobs WHERE state = 'running' AND (?1 IS NULL OR queue = ?1)) \
        OR EXISTS (SELECT 1 FROM jobs WHERE state = 'scheduled' AND asked_seq IS NOT NULL \
            AND (?1 IS NULL OR queue = ?1)) AS busy";

    /// Scheduled jobs whose time has come, a bounded number. ?1 now, ?2 limit.
    DUE = "UPDATE jobs SET state = 'pending', change_seq = change_seq + 1, change_actor = 'freightliner', \
        change_reason = 'due' WHERE id IN (SELECT id FROM jobs WHERE state = 'scheduled' AND run_at <= ?1 \
        ORDER BY run_at LIMIT ?2) AND state = 'scheduled'";

    /// Rows whose references nobody has parsed yet. ?1 limit.
    UNPARSED = "SELECT id, kind, source, destination, options FROM jobs WHERE dest_key IS NULL AND state = 'pending' \
        ORDER BY id LIMIT ?1";

    /// What intake found. ?1 id, ?2 source, ?3 target, ?4 registry, ?5 options.
    PARSED = "UPDATE jobs SET source_key = ?2, dest_key = ?3, dest_registry = ?4, options_key = ?5 \
        WHERE id = ?1 AND dest_key IS NULL";

    /// What does not parse. ?1 id, ?2 message, ?3 now.
    REJECT = "UPDATE jobs SET state = 'failed', finished_at = ?3, failure_stage = 'intake', failure_class = 'rejected', \
        failure_message = ?2, failure_at = ?3, change_seq = change_seq + 1, change_actor = 'freightliner', \
        change_reason = 'rejected' WHERE id = ?1 AND state = 'pending'";

    /// Takes the best jobs, at most one a target and none whose target is being written. The walk over the queues and the
    /// window of each read the index of pending jobs from its start, so that rows behind them cost nothing. ?1 worker,
    /// ?2 lease until, ?3 now, ?4 queue or NULL for all, ?5 room, ?6 rows looked at a queue.
    CLAIM = concat!("WITH RECURSIVE waiting (queue) AS ( \
            SELECT MIN(queue) FROM jobs WHERE state = 'pending' AND queue >= COALESCE(?4, '') \
            UNION ALL \
            SELECT (SELECT MIN(queue) FROM jobs WHERE state = 'pending' AND queue > waiting.queue) \
            FROM waiting WHERE waiting.queue IS NOT NULL AND ?4 IS NULL), \
        candidates AS ( \
            SELECT j.id, j.priority, j.dest_key FROM waiting JOIN jobs AS j ON j.id IN ( \
                SELECT p.id FROM jobs AS p \
                WHERE p.state = 'pending' AND p.queue = waiting.queue ORDER BY p.priority, p.id LIMIT ?6) \
            WHERE waiting.queue IS NOT NULL AND (?4 IS NULL OR waiting.queue = ?4) AND j.dest_key IS NOT NULL \
                AND NOT EXISTS (SELECT 1 FROM queues AS q WHERE q.name = waiting.queue AND q.paused_at IS NOT NULL) \
                AND NOT EXISTS (SELECT 1 FROM jobs AS r WHERE r.state = 'running' AND r.dest_key = j.dest_key)), \
        turns AS ( \
            SELECT id, priority, ROW_NUMBER() OVER (PARTITION BY dest_key ORDER BY priority, id) AS turn FROM candidates) \
        UPDATE jobs SET state = 'running', attempt = attempt + 1, lease_epoch = lease_epoch + 1, lease_beat = 0, \
            worker = ?1, lease_until = ?2, started_at = ?3, cancel_requested_at = NULL, bytes_done = NULL, \
            bytes_total = NULL, blobs_done = NULL, blobs_total = NULL, bytes_moved = 0, \
            change_seq = change_seq + 1, change_actor = 'freightliner', change_reason = 'claimed' \
        WHERE id IN (SELECT id FROM turns WHERE turn = 1 ORDER BY priority, id LIMIT ?5) AND state = 'pending' \
        RETURNING ", job_columns!());

    /// Takes one job, under the same rules. ?1 worker, ?2 lease until, ?3 now, ?4 id.
    CLAIM_ONE = concat!("UPDATE jobs SET state = 'running', attempt = attempt + 1, lease_epoch = lease_epoch + 1, lease_beat = 0, \
            worker = ?1, lease_until = ?2, started_at = ?3, cancel_requested_at = NULL, bytes_done = NULL, \
            bytes_total = NULL, blobs_done = NULL, blobs_total = NULL, bytes_moved = 0, \
            change_seq = change_seq + 1, change_actor = 'freightliner', change_reason = 'claimed' \
        WHERE id = ?4 AND state = 'pending' AND dest_key IS NOT NULL \
            AND NOT EXISTS (SELECT 1 FROM queues AS q WHERE q.name = jobs.queue AND q.paused_at IS NOT NULL) \
            AND NOT EXISTS (SELECT 1 FROM jobs AS r WHERE r.state = 'running' AND r.dest_key = jobs.dest_key) \
        RETURNING ", job_columns!());

    /// The lease holds for another while. ?1 id, ?2 epoch, ?3 lease until, ?4..?7 progress or NULL, ?8 bytes moved.
    RENEW = "UPDATE jobs SET lease_until = ?3, lease_beat = lease_beat + 1, bytes_done = ?4, bytes_total = ?5, \
        blobs_done = ?6, blobs_total = ?7, bytes_moved = ?8 \
        WHERE id = ?1 AND state = 'running' AND lease_epoch = ?2 RETURNING cancel_requested_at";

    /// A job for the same target that was asked for later is done. ?1 target, ?2 id.
    SUPERSEDED = "SELECT id FROM jobs WHERE state = 'completed' AND dest_key = ?1 \
        AND (asked_seq, id) > (SELECT COALESCE(asked_seq, 0), id FROM jobs WHERE id = ?2) \
        ORDER BY asked_seq DESC, id DESC LIMIT 1";

    /// The attempt did it. ?1 id, ?2 epoch, ?3 now, ?4 report, ?5..?8 progress, ?9 bytes moved.
    COMPLETE = "UPDATE jobs SET state = 'completed', worker = NULL, lease_until = NULL, finished_at = ?3, report = ?4, \
        bytes_done = ?5, bytes_total = ?6, blobs_done = ?7, blobs_total = ?8, bytes_moved = ?9, crash_count = 0, \
        cancel_requested_at = NULL, failure_stage = NULL, failure_class = NULL, failure_message = NULL, failure_at = NULL, \
        change_seq = change_seq + 1, change_actor = 'freightliner', change_reason = 'succeeded' \
        WHERE id = ?1 AND state = 'running' AND lease_epoch = ?2 RETURNING state";

    /// The attempt failed. ?1 id, ?2 epoch, ?3 now, ?4 stage, ?5 class, ?6 message, ?7 next run or NULL: no other attempt,
    /// ?8..?11 progress, ?12 bytes moved.
    FAIL = "UPDATE jobs SET state = CASE WHEN ?7 IS NULL THEN 'failed' WHEN cancel_requested_at IS NOT NULL THEN 'cancelled' \
            ELSE 'scheduled' END, \
        worker = NULL, lease_until = NULL, crash_count = 0, run_at = COALESCE(?7, run_at), \
        finished_at = CASE WHEN ?7 IS NULL OR cancel_requested_at IS NOT NULL THEN ?3 END, \
        failure_stage = ?4, failure_class = ?5, failure_message = ?6, failure_at = ?3, \
        bytes_done = ?8, bytes_total = ?9, blobs_done = ?10, blobs_total = ?11, bytes_moved = ?12, \
        change_seq = change_seq + 1, change_actor = 'freightliner', \
        change_reason = CASE WHEN ?7 IS NULL THEN 'gave up' WHEN cancel_requested_at IS NOT NULL THEN 'cancelled' \
            ELSE 'will retry' END \
        WHERE id = ?1 AND state = 'running' AND lease_epoch = ?2 RETURNING state";

    /// The attempt was called off. ?1 id, ?2 epoch, ?3 now, ?4..?7 progress, ?8 bytes moved.
    CANCELLED = "UPDATE jobs SET state = 'cancelled', worker = NULL, lease_until = NULL, finished_at = ?3, crash_count = 0, \
        bytes_done = ?4, bytes_total = ?5, blobs_done = ?6, blobs_total = ?7, bytes_moved = ?8, \
        change_seq = change_seq + 1, change_actor = 'freightliner', change_reason = 'cancelled' \
        WHERE id = ?1 AND state = 'running' AND lease_epoch = ?2 RETURNING state";

    /// The attempt is given back, refunded. ?1 id, ?2 epoch, ?3 now, ?4 reason, ?5 bytes moved.
    RELEASE = "UPDATE jobs SET state = CASE WHEN cancel_requested_at IS NOT NULL THEN 'cancelled' ELSE 'pending' END, \
        finished_at = CASE WHEN cancel_requested_at IS NOT NULL THEN ?3 END, \
        worker = NULL, lease_until = NULL, attempt = MAX(attempt - 1, 0), bytes_moved = ?5, \
        change_seq = change_seq + 1, change_actor = 'freightliner', \
        change_reason = CASE WHEN cancel_requested_at IS NOT NULL THEN 'cancelled' ELSE ?4 END \
        WHERE id = ?1 AND state = 'running' AND lease_epoch = ?2 RETURNING state";

    /// Blobs of an attempt. ?1 job, ?2 generation, ?3 attempt, ?4 epoch, ?5 now, ?6 JSON array of transfers.
    TRANSFERS = "INSERT INTO transfers (job_id, generation, attempt, lease_epoch, at, registry, repository, digest, bytes, how) \
        SELECT ?1, ?2, ?3, ?4, ?5, value ->> '$.registry', value ->> '$.repository', value ->> '$.digest', \
            value ->> '$.bytes', value ->> '$.how' FROM json_each(?6)";

    /// Of these, running jobs of a worker whose cancel was asked for. ?1 worker.
    CANCEL_ASKED = "SELECT id, lease_epoch FROM jobs WHERE state = 'running' AND worker = ?1 AND cancel_requested_at IS NOT NULL";

    /// Ids that do not exist. ?1 JSON array of ids.
    UNKNOWN_IDS = "SELECT value + 0 AS id FROM json_each(?1) WHERE value NOT IN (SELECT id FROM jobs) LIMIT 1";

    /// Waiting jobs end; running ones are asked to. ?1 JSON array of ids or NULL, ?2 state, ?3 batch, ?4 now, ?5 actor,
    /// ?6 queue.
    CANCEL = "UPDATE jobs SET \
            state = CASE WHEN state = 'running' THEN 'running' ELSE 'cancelled' END, \
            finished_at = CASE WHEN state = 'running' THEN finished_at ELSE ?4 END, \
            cancel_requested_at = ?4, change_seq = change_seq + 1, change_actor = ?5, change_reason = 'cancelled' \
        WHERE state IN ('scheduled', 'pending', 'running') AND (state <> 'running' OR cancel_requested_at IS NULL) \
            AND (?1 IS NULL OR id IN (SELECT value FROM json_each(?1))) AND (?2 IS NULL OR state = ?2) \
            AND (?3 IS NULL OR batch_id = ?3) AND (?6 IS NULL OR queue = ?6)";

    /// Finished jobs begin anew; those that wait for a retry need not wait. ?1 JSON array of ids or NULL, ?2 state, ?3 batch,
    /// ?4 now, ?5 actor, ?6 queue.
    RETRY = "UPDATE jobs SET state = 'pending', run_at = ?4, \
            generation = generation + (state <> 'scheduled'), \
            attempt = 0, crash_count = 0, started_at = NULL, finished_at = NULL, cancel_requested_at = NULL, report = NULL, \
            bytes_done = NULL, bytes_total = NULL, blobs_done = NULL, blobs_total = NULL, bytes_moved = 0, \
            failure_stage = NULL, failure_class = NULL, failure_message = NULL, failure_at = NULL, \
            change_seq = change_seq + 1, change_actor = ?5, change_reason = 'operator retry' \
        WHERE state IN ('scheduled', 'completed', 'failed', 'cancelled') \
            AND (?1 IS NULL OR id IN (SELECT value FROM json_each(?1))) AND (?2 IS NULL OR state = ?2) \
            AND (?3 IS NULL OR batch_id = ?3) AND (?6 IS NULL OR queue = ?6)";

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

    /// Rows and history disagree: the last event of a job says another state.
    CHECK_LAST_EVENT = "SELECT j.id AS id, j.state AS state, e.to_state AS said FROM jobs AS j \
        LEFT JOIN job_events AS e ON e.seq = (SELECT MAX(seq) FROM job_events WHERE job_id = j.id) \
        WHERE e.seq IS NULL OR e.to_state <> j.state LIMIT 20";

    /// More than one completion in a generation.
    CHECK_COMPLETIONS = "SELECT job_id AS id, generation, COUNT(*) AS times FROM job_events \
        WHERE to_state = 'completed' AND from_state = 'running' GROUP BY job_id, generation HAVING COUNT(*) > 1 LIMIT 20";

    /// Events whose chain is broken: each starts where the one before ended.
    CHECK_CHAIN = "SELECT seq, job_id AS id FROM (SELECT seq, job_id, from_state, \
            LAG(to_state) OVER (PARTITION BY job_id ORDER BY seq) AS before, lease_epoch, \
            LAG(lease_epoch) OVER (PARTITION BY job_id ORDER BY seq) AS epoch_before FROM job_events) \
        WHERE from_state IS NOT before OR lease_epoch < epoch_before LIMIT 20";

    /// Size of the tables.
    SIZES = "SELECT (SELECT COUNT(*) FROM jobs) AS jobs, (SELECT COUNT(*) FROM job_events) AS events";
}
