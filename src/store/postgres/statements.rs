//! Every statement of the store on PostgreSQL, named as its counterpart on SQLite.
//!
//! Each is a transaction of its own. A parameter "now" is NULL but in tests: the database's clock decides. Statements on many
//! rows take arrays, so that one text serves any number. Those that touch rows of running jobs pass over rows that somebody
//! else has locked, and say so, so that one such row does not stop the others.

pub(in crate::store) mod api;
pub(in crate::store) mod batch;
pub(in crate::store) mod vault;

use crate::store::statements::{batch_columns, job_columns, schedule_columns, schedule_waits, statements};

/// The database's clock, or the test's. A subquery, because an index is not asked with a function that may change its mind.
macro_rules! now {
    ($parameter:literal) => {
        concat!("COALESCE(", $parameter, "::BIGINT, (SELECT now_ms()))")
    };
}

use now;

statements! {
    /// One job. $1 id.
    JOB = concat!("SELECT ", job_columns!(), " FROM jobs WHERE id = $1");

    /// Jobs, newest first. $1 state, $2 source pattern, $3 destination pattern, $4 created since, $5 below this id, $6 limit,
    /// $7 queue, $8 batch.
    JOBS = concat!("SELECT ", job_columns!(), " FROM jobs WHERE ($1::TEXT IS NULL OR state = $1) \
        AND ($2::TEXT IS NULL OR source LIKE $2) AND ($3::TEXT IS NULL OR destination LIKE $3) \
        AND ($4::BIGINT IS NULL OR created_at >= $4) AND ($5::BIGINT IS NULL OR id < $5) \
        AND ($7::TEXT IS NULL OR queue = $7) AND ($8::TEXT IS NULL OR batch_id = $8) ORDER BY id DESC LIMIT $6::BIGINT");

    /// The history of a job. $1 id.
    EVENTS = "SELECT seq, job_id, at, from_state, to_state, lease_epoch, attempt, worker, actor, reason, detail \
        FROM job_events WHERE job_id = $1 ORDER BY seq";

    /// Counts by state.
    COUNTS = "SELECT state, COUNT(*) AS jobs FROM jobs GROUP BY state";

    /// How long the oldest pending job could have run already. $1 now.
    OLDEST_PENDING = concat!("SELECT ", now!("$1"), " - MIN(run_at) AS age FROM jobs WHERE state = 'pending'");

    /// What finished within the last $2 ms. $1 now.
    THROUGHPUT = concat!("SELECT COUNT(*) FILTER (WHERE state = 'completed') AS completed, \
        COUNT(*) FILTER (WHERE state = 'failed') AS failed, \
        CAST(COALESCE(SUM(json_number(report, 'bytes_copied')) FILTER (WHERE state = 'completed'), 0) AS BIGINT) AS bytes \
        FROM jobs WHERE state IN ('completed', 'failed') AND finished_at >= ", now!("$1"), " - $2::BIGINT");

    /// The jobs that keys name. $1 keys.
    KEYS = "SELECT k.key, k.job_id, j.id IS NOT NULL AS kept, j.source, j.destination, j.options, j.queue \
        FROM unnest($1::TEXT[]) AS asked (key) JOIN idempotency_keys AS k ON k.key = asked.key \
        LEFT JOIN jobs AS j ON j.id = k.job_id";

    /// New jobs, all or none: see the function in the second migration. $1 sources, $2 destinations, $3 options, $4 queues,
    /// $5 priorities, $6 max attempts, $7 times or NULL, $8 keys or NULL, $9 canonical sources, $10 targets, $11 registries,
    /// $12 may join an equal job, $13 actors, $14 now.
    ENQUEUE = "SELECT place, id, created FROM enqueue_jobs($1::TEXT[], $2::TEXT[], $3::TEXT[], $4::TEXT[], $5::BIGINT[], \
        $6::BIGINT[], $7::BIGINT[], $8::TEXT[], $9::TEXT[], $10::TEXT[], $11::TEXT[], $12::BOOLEAN[], $13::TEXT[], $14::BIGINT)";

    /// As [`ENQUEUE`] and then [`CLAIM`], which is left out when somebody else is claiming just now, and which waits for nobody's
    /// lock: $1..$14 those of the first; $15 the worker of each, $16 ms that its lease holds, $17 queue or NULL for all,
    /// $18 registries that have a limit, $19 their limits, $20 the newest schema that is known. Rows of both kinds: those of the
    /// enqueue have a place, those of the claim have the columns of a job.
    ENQUEUE_AND_CLAIM = concat!("WITH e AS MATERIALIZED (SELECT * FROM enqueue_jobs($1::TEXT[], $2::TEXT[], $3::TEXT[], \
            $4::TEXT[], $5::BIGINT[], $6::BIGINT[], $7::BIGINT[], $8::TEXT[], $9::TEXT[], $10::TEXT[], $11::TEXT[], \
            $12::BOOLEAN[], $13::TEXT[], $14::BIGINT) AS e (place, enqueued, created)), \
        c AS MATERIALIZED (SELECT c.* FROM (SELECT CASE \
                WHEN (SELECT COUNT(*) FROM e) > 0 AND set_config('lock_timeout', '20ms', true) <> '' \
                THEN pg_try_advisory_xact_lock(hashtext('freightliner claims'), hashtext(current_schema())) END AS turn \
                OFFSET 0) AS t \
            CROSS JOIN LATERAL claim_jobs(CASE WHEN t.turn THEN $15::TEXT[] END, $16::BIGINT[], $17::TEXT, NULL, \
                $18::TEXT[], $19::BIGINT[], $14::BIGINT, $20::BIGINT) AS c \
            WHERE t.turn AND c.id IS NOT NULL) \
        SELECT e.place, e.enqueued, e.created, ", job_columns!(), " FROM e FULL JOIN c ON c.id = - e.place");

    /// How many loads of this list were finished. $1 hash of the content.
    LOADS = "SELECT COUNT(*) AS loads FROM finished_loads WHERE content_hash = $1";

    /// A load is finished. $1 hash, $2 number, $3 now.
    LOAD_FINISHED = concat!("INSERT INTO finished_loads (content_hash, number, finished_at) VALUES ($1, $2, ", now!("$3"), ") \
        ON CONFLICT DO NOTHING");

    /// What there is to do, how long nothing will be due, and the schema as it is by now. $1 now.
    WAITING = concat!("SELECT EXISTS (SELECT FROM jobs WHERE state = 'scheduled' AND paused_at IS NULL AND run_at <= ", now!("$1"), ") AS due, \
        EXISTS (SELECT FROM jobs WHERE dest_key IS NULL AND state = 'pending') AS intake, \
        EXISTS (SELECT FROM jobs WHERE state = 'pending' AND dest_key IS NOT NULL) AS pending, \
        (SELECT MIN(run_at) FROM jobs WHERE state = 'scheduled' AND paused_at IS NULL) AS next_run_at, ", now!("$1"), " AS now, \
        (SELECT MAX(version) FROM schema_migrations) AS schema");

    /// Something is pending in a queue that is not paused, running, or waits for a retry: a job for later has not been asked
    /// for yet, so its asked_seq is NULL; a paused one waits for its operator. $1 queue.
    BUSY = "SELECT EXISTS (SELECT FROM jobs AS j WHERE j.state = 'pending' AND ($1::TEXT IS NULL OR j.queue = $1) \
            AND NOT EXISTS (SELECT FROM queues AS q WHERE q.name = j.queue AND q.paused_at IS NOT NULL)) \
        OR EXISTS (SELECT FROM jobs WHERE state = 'running' AND ($1::TEXT IS NULL OR queue = $1)) \
        OR EXISTS (SELECT FROM jobs WHERE state = 'scheduled' AND asked_seq IS NOT NULL AND paused_at IS NULL \
            AND ($1::TEXT IS NULL OR queue = $1)) AS busy";

    /// Scheduled jobs whose time has come, a bounded number. $1 now, $2 limit.
    DUE = concat!("WITH due AS MATERIALIZED (SELECT id FROM jobs \
            WHERE state = 'scheduled' AND paused_at IS NULL AND run_at <= ", now!("$1"), " \
            ORDER BY run_at LIMIT $2::BIGINT FOR UPDATE SKIP LOCKED), \
        moved AS (UPDATE jobs SET state = 'pending', change_seq = change_seq + 1, change_actor = 'freightliner', \
            change_reason = 'due' FROM due WHERE jobs.id = due.id RETURNING 1) \
        SELECT COUNT(*) AS jobs FROM moved");

    /// Rows whose references nobody has parsed yet. $1 limit.
    UNPARSED = "SELECT id, kind, source, destination, options FROM jobs WHERE dest_key IS NULL AND state = 'pending' \
        ORDER BY id LIMIT $1::BIGINT";

    /// What intake found. $1 ids, $2 sources, $3 targets, $4 registries, $5 options.
    PARSED = "WITH free AS MATERIALIZED (SELECT j.id, a.source_key, a.dest_key, a.dest_registry, a.options_key \
            FROM unnest($1::BIGINT[], $2::TEXT[], $3::TEXT[], $4::TEXT[], $5::TEXT[]) \
                AS a (id, source_key, dest_key, dest_registry, options_key) JOIN jobs AS j ON j.id = a.id \
            WHERE j.dest_key IS NULL AND j.state = 'pending' FOR UPDATE OF j SKIP LOCKED), \
        parsed AS (UPDATE jobs SET source_key = free.source_key, dest_key = free.dest_key, \
            dest_registry = free.dest_registry, options_key = free.options_key FROM free WHERE jobs.id = free.id RETURNING 1) \
        SELECT COUNT(*) AS jobs FROM parsed";

    /// What does not parse. $1 ids, $2 messages, $3 now.
    REJECT = concat!("WITH free AS MATERIALIZED (SELECT j.id, a.message FROM unnest($1::BIGINT[], $2::TEXT[]) AS a (id, message) \
            JOIN jobs AS j ON j.id = a.id WHERE j.dest_key IS NULL AND j.state = 'pending' FOR UPDATE OF j SKIP LOCKED) \
        UPDATE jobs SET state = 'failed', finished_at = ", now!("$3"), ", failure_stage = 'intake', \
            failure_class = 'rejected', failure_message = free.message, failure_at = ", now!("$3"), ", \
            change_seq = change_seq + 1, change_actor = 'freightliner', change_reason = 'rejected' \
        FROM free WHERE jobs.id = free.id RETURNING jobs.id, jobs.failure_message");

    /// Takes the best jobs: see the function in the second migration. $1 the worker of each, $2 ms that its lease holds,
    /// $3 queue or NULL for all, $4 one job or NULL, $5 registries that have a limit, $6 their limits, $7 now, $8 the newest
    /// schema that is known.
    CLAIM = concat!("SELECT ", job_columns!(), " FROM claim_jobs($1::TEXT[], $2::BIGINT[], $3::TEXT, $4::BIGINT, $5::TEXT[], \
        $6::BIGINT[], $7::BIGINT, $8::BIGINT)");

    /// As [`PARSED`] and then [`CLAIM`]: $1 ids, $2 sources, $3 targets, $4 registries, $5 options, $6..$13 those of the claim.
    CLAIM_PARSED = concat!("SELECT ", job_columns!(), " FROM parse_and_claim($1::BIGINT[], $2::TEXT[], $3::TEXT[], $4::TEXT[], \
        $5::TEXT[], $6::TEXT[], $7::BIGINT[], $8::TEXT, $9::BIGINT, $10::TEXT[], $11::BIGINT[], $12::BIGINT, $13::BIGINT)");

    /// Running jobs of these workers that their process does not know of, because the answer to a claim was lost; their leases
    /// hold from now on. $1 workers, $2 ids and $3 epochs that are known, $4 at most so many, $5 ms that a lease holds, $6 now.
    ADOPT = concat!("WITH free AS MATERIALIZED (SELECT id FROM jobs WHERE state = 'running' AND worker = ANY ($1::TEXT[]) \
            AND NOT EXISTS (SELECT FROM unnest($2::BIGINT[], $3::BIGINT[]) AS known (id, epoch) \
                WHERE known.id = jobs.id AND known.epoch = jobs.lease_epoch) \
            ORDER BY priority, id LIMIT $4::BIGINT FOR UPDATE SKIP LOCKED) \
        UPDATE jobs SET lease_until = ", now!("$6"), " + $5::BIGINT, lease_beat = lease_beat + 1 \
        WHERE id IN (SELECT free.id FROM free) RETURNING ", job_columns!());

    /// Leases hold for another while. For each: $1 id, $2 epoch, $3 ms that the lease holds, $4..$7 progress or NULL, $8 bytes
    /// moved, $9 target when it is to be asked whether the tag may be written. $10 now. Says of each in its place whether it
    /// was renewed, is not lost but locked by somebody, a cancel was asked for, and which job is newer and completed, or was
    /// until it was retried or removed.
    RENEW = concat!("WITH asked AS MATERIALIZED (SELECT * FROM unnest($1::BIGINT[], $2::BIGINT[], $3::BIGINT[], $4::BIGINT[], \
            $5::BIGINT[], $6::BIGINT[], $7::BIGINT[], $8::BIGINT[], $9::TEXT[]) WITH ORDINALITY AS a (id, epoch, ttl, \
                bytes_done, bytes_total, blobs_done, blobs_total, bytes_moved, dest_key, place)), \
        free AS MATERIALIZED (SELECT j.id FROM asked JOIN jobs AS j ON j.id = asked.id \
            WHERE j.state = 'running' AND j.lease_epoch = asked.epoch FOR UPDATE OF j SKIP LOCKED), \
        renewed AS (UPDATE jobs AS j SET lease_until = ", now!("$10"), " + asked.ttl, lease_beat = lease_beat + 1, \
            bytes_done = asked.bytes_done, bytes_total = asked.bytes_total, blobs_done = asked.blobs_done, \
            blobs_total = asked.blobs_total, bytes_moved = asked.bytes_moved \
            FROM asked JOIN free ON free.id = asked.id WHERE j.id = asked.id \
            RETURNING j.id, j.lease_epoch, j.cancel_requested_at, j.asked_seq) \
        SELECT asked.place, renewed.id IS NOT NULL AS held, \
            renewed.id IS NULL AND EXISTS (SELECT FROM jobs AS j WHERE j.id = asked.id AND j.state = 'running' \
                AND j.lease_epoch = asked.epoch) AS locked, \
            renewed.cancel_requested_at IS NOT NULL AS cancel, \
            COALESCE((SELECT c.id FROM jobs AS c WHERE c.state = 'completed' AND c.dest_key = asked.dest_key AND renewed.id IS NOT NULL \
                AND (c.asked_seq, c.id) > (COALESCE(renewed.asked_seq, 0), renewed.id) \
                ORDER BY c.asked_seq DESC, c.id DESC LIMIT 1), \
                (SELECT w.job_id FROM written_targets AS w WHERE w.dest_key = asked.dest_key AND renewed.id IS NOT NULL \
                AND (w.asked_seq, w.job_id) > (COALESCE(renewed.asked_seq, 0), renewed.id))) AS newer \
        FROM asked LEFT JOIN renewed ON renewed.id = asked.id AND renewed.lease_epoch = asked.epoch ORDER BY asked.place");

    /// Attempts end. For each: $1 id, $2 epoch, $3 how (`completed`, `failed`, `cancelled`, `released`), $4 report,
    /// $5 failure's stage, $6 class, $7 message, $8 ms to the next attempt or NULL: none, $9 reason of a release,
    /// $10..$13 progress, $14 bytes moved; of their blobs: $15 place of the attempt, $16 registry, $17 repository, $18 digest,
    /// $19 bytes, $20 how. $21 now. Says of each in its place the state that the job has now; whether it is not lost but
    /// locked by somebody; or how this very attempt was ended before, when the answer to that was lost.
    SETTLE = concat!("WITH asked AS MATERIALIZED (SELECT * FROM unnest($1::BIGINT[], $2::BIGINT[], $3::TEXT[], $4::TEXT[], \
            $5::TEXT[], $6::TEXT[], $7::TEXT[], $8::BIGINT[], $9::TEXT[], $10::BIGINT[], $11::BIGINT[], $12::BIGINT[], \
            $13::BIGINT[], $14::BIGINT[]) WITH ORDINALITY AS a (id, epoch, how, report, failure_stage, failure_class, \
                failure_message, retry_in, reason, bytes_done, bytes_total, blobs_done, blobs_total, bytes_moved, place)), \
        free AS MATERIALIZED (SELECT j.id, asked.place, j.cancel_requested_at IS NOT NULL AS cancel, ", now!("$21"), " AS now \
            FROM asked JOIN jobs AS j ON j.id = asked.id \
            WHERE j.state = 'running' AND j.lease_epoch = asked.epoch FOR UPDATE OF j SKIP LOCKED), \
        ends AS MATERIALIZED (SELECT asked.*, free.now, CASE \
                WHEN how IN ('completed', 'cancelled') THEN how \
                WHEN how = 'failed' AND retry_in IS NULL THEN 'failed' \
                WHEN free.cancel THEN 'cancelled' \
                WHEN how = 'failed' THEN 'scheduled' ELSE 'pending' END AS state \
            FROM asked JOIN free ON free.place = asked.place), \
        ended AS (UPDATE jobs AS j SET state = e.state, worker = NULL, lease_until = NULL, \
            finished_at = CASE WHEN e.state IN ('completed', 'failed', 'cancelled') THEN e.now END, \
            attempt = CASE WHEN e.how = 'released' THEN GREATEST(j.attempt - 1, 0) ELSE j.attempt END, \
            crash_count = CASE WHEN e.how = 'released' THEN j.crash_count ELSE 0 END, \
            run_at = CASE WHEN e.how = 'failed' THEN COALESCE(e.now + e.retry_in, j.run_at) ELSE j.run_at END, \
            cancel_requested_at = CASE WHEN e.how = 'completed' THEN NULL ELSE j.cancel_requested_at END, \
            report = CASE WHEN e.how = 'completed' THEN e.report ELSE j.report END, \
            failure_stage = CASE e.how WHEN 'completed' THEN NULL WHEN 'failed' THEN e.failure_stage ELSE j.failure_stage END, \
            failure_class = CASE e.how WHEN 'completed' THEN NULL WHEN 'failed' THEN e.failure_class ELSE j.failure_class END, \
            failure_message = CASE e.how WHEN 'completed' THEN NULL WHEN 'failed' THEN e.failure_message ELSE j.failure_message END, \
            failure_at = CASE e.how WHEN 'completed' THEN NULL WHEN 'failed' THEN e.now ELSE j.failure_at END, \
            bytes_done = CASE WHEN e.how = 'released' THEN j.bytes_done ELSE e.bytes_done END, \
            bytes_total = CASE WHEN e.how = 'released' THEN j.bytes_total ELSE e.bytes_total END, \
            blobs_done = CASE WHEN e.how = 'released' THEN j.blobs_done ELSE e.blobs_done END, \
            blobs_total = CASE WHEN e.how = 'released' THEN j.blobs_total ELSE e.blobs_total END, \
            bytes_moved = e.bytes_moved, change_seq = j.change_seq + 1, change_actor = 'freightliner', \
            change_reason = CASE WHEN e.state = 'completed' THEN 'succeeded' WHEN e.state = 'cancelled' THEN 'cancelled' \
                WHEN e.state = 'failed' THEN 'gave up' WHEN e.state = 'scheduled' THEN 'will retry' ELSE e.reason END \
            FROM ends AS e WHERE j.id = e.id RETURNING e.place, e.state, j.id, j.generation, e.epoch, e.now), \
        moved AS (INSERT INTO transfers (job_id, generation, attempt, lease_epoch, at, registry, repository, digest, bytes, how) \
            SELECT ended.id, ended.generation, j.attempt, ended.epoch, ended.now, t.registry, t.repository, t.digest, t.bytes, t.how \
            FROM unnest($15::BIGINT[], $16::TEXT[], $17::TEXT[], $18::TEXT[], $19::BIGINT[], $20::TEXT[]) \
                AS t (place, registry, repository, digest, bytes, how) \
            JOIN ended ON ended.place = t.place JOIN jobs AS j ON j.id = ended.id) \
        SELECT asked.place, ended.state, \
            ended.place IS NULL AND EXISTS (SELECT FROM jobs AS j WHERE j.id = asked.id AND j.state = 'running' \
                AND j.lease_epoch = asked.epoch) AS locked, \
            CASE WHEN ended.place IS NULL THEN (SELECT e.to_state FROM job_events AS e WHERE e.job_id = asked.id \
                AND e.lease_epoch = asked.epoch AND e.from_state = 'running' AND e.to_state <> 'running' \
                AND e.actor = 'freightliner' ORDER BY e.seq DESC LIMIT 1) END AS before \
        FROM asked LEFT JOIN ended ON ended.place = asked.place ORDER BY asked.place");

    /// Of these, running jobs of a worker whose cancel was asked for. $1 worker.
    CANCEL_ASKED = "SELECT id, lease_epoch FROM jobs WHERE state = 'running' AND worker = $1 AND cancel_requested_at IS NOT NULL";

    /// Ids that do not exist. $1 ids.
    UNKNOWN_IDS = "SELECT asked.id FROM unnest($1::BIGINT[]) AS asked (id) \
        WHERE NOT EXISTS (SELECT FROM jobs WHERE jobs.id = asked.id) LIMIT 1";

    /// The newest job.
    LAST_JOB = "SELECT COALESCE(MAX(id), 0) AS id FROM jobs";

    /// A page of the jobs that a filter means, by id. $1 state, $2 batch, $3 queue, $4 above this id, $5 up to this id, $6 limit.
    PAGE = "SELECT id FROM jobs WHERE ($1::TEXT IS NULL OR state = $1) AND ($2::TEXT IS NULL OR batch_id = $2) \
        AND ($3::TEXT IS NULL OR queue = $3) AND id > $4 AND id <= $5 ORDER BY id LIMIT $6::BIGINT";

    /// Waiting jobs end; running ones are asked to. $1 ids, $2 now, $3 actor.
    CANCEL = concat!("WITH changed AS (UPDATE jobs SET \
            state = CASE WHEN state = 'running' THEN 'running' ELSE 'cancelled' END, \
            finished_at = CASE WHEN state = 'running' THEN finished_at ELSE ", now!("$2"), " END, paused_at = NULL, \
            cancel_requested_at = ", now!("$2"), ", change_seq = change_seq + 1, change_actor = $3, change_reason = 'cancelled' \
        WHERE id = ANY ($1::BIGINT[]) AND state IN ('scheduled', 'pending', 'running') \
            AND (state <> 'running' OR cancel_requested_at IS NULL) RETURNING 1) \
        SELECT COUNT(*) AS jobs FROM changed");

    /// Finished jobs begin anew; those that wait for a retry, or are paused, need not wait. All count as asked for now.
    /// $1 ids, $2 now, $3 actor.
    RETRY = concat!("WITH changed AS (UPDATE jobs SET state = 'pending', run_at = ", now!("$2"), ", paused_at = NULL, \
            asked_seq = CASE WHEN state = 'scheduled' THEN nextval('job_events_seq_seq') ELSE asked_seq END, \
            generation = generation + CASE WHEN state = 'scheduled' THEN 0 ELSE 1 END, \
            attempt = 0, crash_count = 0, started_at = NULL, finished_at = NULL, cancel_requested_at = NULL, report = NULL, \
            bytes_done = NULL, bytes_total = NULL, blobs_done = NULL, blobs_total = NULL, bytes_moved = 0, \
            failure_stage = NULL, failure_class = NULL, failure_message = NULL, failure_at = NULL, \
            change_seq = change_seq + 1, change_actor = $3, change_reason = 'operator retry' \
        WHERE id = ANY ($1::BIGINT[]) AND state IN ('scheduled', 'completed', 'failed', 'cancelled') RETURNING 1) \
        SELECT COUNT(*) AS jobs FROM changed");

    /// Waiting jobs are held back. $1 ids, $2 now, $3 actor.
    PAUSE = concat!("WITH changed AS (UPDATE jobs SET paused_at = ", now!("$2"), ", state = 'scheduled', \
            change_seq = change_seq + 1, change_actor = $3, change_reason = 'paused' \
        WHERE id = ANY ($1::BIGINT[]) AND state IN ('scheduled', 'pending') AND paused_at IS NULL RETURNING 1) \
        SELECT COUNT(*) AS jobs FROM changed");

    /// Paused jobs go on. $1 ids, $2 now, $3 actor.
    RESUME = concat!("WITH changed AS (UPDATE jobs SET paused_at = NULL, \
            state = CASE WHEN run_at <= ", now!("$2"), " THEN 'pending' ELSE 'scheduled' END, \
            change_seq = change_seq + 1, change_actor = $3, change_reason = 'resumed' \
        WHERE id = ANY ($1::BIGINT[]) AND state = 'scheduled' AND paused_at IS NOT NULL RETURNING 1) \
        SELECT COUNT(*) AS jobs FROM changed");

    /// Waiting jobs get another place in the queue. $1 ids, $2 now, $3 actor, $4 priority, $5 run at, $6 max attempts, $7 queue;
    /// NULL leaves a value as it is. Those that are so already are not touched.
    EDIT = concat!("WITH changed AS (UPDATE jobs SET priority = COALESCE($4::BIGINT, priority), run_at = COALESCE($5::BIGINT, run_at), \
            max_attempts = COALESCE($6::BIGINT, max_attempts), queue = COALESCE($7::TEXT, queue), \
            change_seq = change_seq + 1, change_actor = $3, change_reason = 'edited' \
        WHERE id = ANY ($1::BIGINT[]) AND state IN ('scheduled', 'pending') AND ", now!("$2"), " IS NOT NULL \
            AND (priority <> COALESCE($4::BIGINT, priority) OR run_at <> COALESCE($5::BIGINT, run_at) \
                OR max_attempts <> COALESCE($6::BIGINT, max_attempts) OR queue <> COALESCE($7::TEXT, queue)) RETURNING 1) \
        SELECT COUNT(*) AS jobs FROM changed");

    /// Queues with a row or with jobs that are not finished. $1 now.
    QUEUES = concat!("SELECT n.name, q.paused_at, q.max_running, COUNT(*) FILTER (WHERE j.state = 'scheduled') AS scheduled, \
            COUNT(*) FILTER (WHERE j.state = 'pending') AS pending, COUNT(*) FILTER (WHERE j.state = 'running') AS running, \
            ", now!("$1"), " - MIN(j.run_at) FILTER (WHERE j.state = 'pending') AS oldest_pending_age_ms \
        FROM (SELECT name FROM queues UNION \
            SELECT queue FROM jobs WHERE state IN ('scheduled', 'pending', 'running')) AS n \
        LEFT JOIN queues AS q ON q.name = n.name \
        LEFT JOIN jobs AS j ON j.queue = n.name AND j.state IN ('scheduled', 'pending', 'running') \
        GROUP BY n.name, q.paused_at, q.max_running ORDER BY n.name");

    /// A queue is paused. $1 name, $2 now, $3 actor.
    QUEUE_PAUSE = concat!("INSERT INTO queues (name, paused_at, change_seq, change_actor) VALUES ($1, ", now!("$2"), ", 1, $3) \
        ON CONFLICT (name) DO UPDATE SET paused_at = excluded.paused_at, change_seq = queues.change_seq + 1, \
        change_actor = excluded.change_actor WHERE queues.paused_at IS NULL RETURNING name");

    /// A queue goes on. $1 name, $2 actor.
    QUEUE_RESUME = "UPDATE queues SET paused_at = NULL, change_seq = change_seq + 1, change_actor = $2 \
        WHERE name = $1 AND paused_at IS NOT NULL RETURNING name";

    /// A queue gets a limit, or loses it. $1 name, $2 limit or NULL, $3 actor.
    QUEUE_LIMIT = "INSERT INTO queues (name, max_running, change_seq, change_actor) \
        SELECT $1::TEXT, $2::BIGINT, 1, $3::TEXT WHERE $2 IS NOT NULL OR EXISTS (SELECT FROM queues WHERE name = $1) \
        ON CONFLICT (name) DO UPDATE SET max_running = excluded.max_running, change_seq = queues.change_seq + 1, \
        change_actor = excluded.change_actor WHERE queues.max_running IS DISTINCT FROM excluded.max_running RETURNING name";

    /// A job, and what decides whether it runs. $1 id, $2 now, $3 ms within which a worker must have been seen.
    WHY = concat!("SELECT j.*, q.paused_at AS queue_paused_at, q.max_running, j.dest_key IS NOT NULL AS parsed, \
            ", now!("$2"), " AS now, \
            (SELECT COUNT(*) FROM jobs AS r WHERE r.state = 'running' AND r.queue = j.queue) AS queue_running, \
            (SELECT COUNT(*) FROM jobs AS r WHERE r.state = 'running' AND r.dest_registry = j.dest_registry) AS registry_running, \
            (SELECT r.id FROM jobs AS r WHERE r.state = 'running' AND r.dest_key = j.dest_key AND r.id <> j.id) AS same_destination, \
            (SELECT COUNT(*) FROM (SELECT FROM jobs AS a WHERE a.state = 'pending' AND a.queue = j.queue \
                AND (a.priority, a.id) < (j.priority, j.id) LIMIT 1000) AS first) AS ahead, \
            (SELECT COUNT(*) FROM workers AS w WHERE w.concurrency > 0 AND w.seen_at >= ", now!("$2"), " - $3::BIGINT \
                AND (w.queue IS NULL OR w.queue = j.queue)) AS workers, \
            (SELECT CAST(COALESCE(SUM(w.concurrency), 0) AS BIGINT) FROM workers AS w \
                WHERE w.seen_at >= ", now!("$2"), " - $3::BIGINT AND (w.queue IS NULL OR w.queue = j.queue)) AS places \
        FROM jobs AS j LEFT JOIN queues AS q ON q.name = j.queue WHERE j.id = $1");

    /// Removes batches that are not kept any more, and times of schedules: their jobs are gone. $1 made before, $2 limit.
    PRUNE_BATCHES = "WITH old AS MATERIALIZED (SELECT b.id FROM batches AS b WHERE b.created_at < $1 \
            AND NOT EXISTS (SELECT FROM jobs AS j WHERE j.batch_id = b.id) ORDER BY b.created_at LIMIT $2::BIGINT), \
        repositories AS (DELETE FROM batch_repositories WHERE batch_id IN (SELECT id FROM old)), \
        times AS (DELETE FROM schedule_occurrences WHERE (schedule_id, at) IN (SELECT o.schedule_id, o.at \
            FROM schedule_occurrences AS o WHERE o.decided_at < LEAST($1, (SELECT now_ms()) - 86400000) \
            AND NOT EXISTS (SELECT FROM jobs AS j WHERE j.id = o.job_id) LIMIT $2::BIGINT)), \
        gone AS (DELETE FROM batches WHERE id IN (SELECT id FROM old) RETURNING id) SELECT COUNT(*) AS batches FROM gone";

    /// A remark in the history of a job. $1 job, $2 now, $3 worker, $4 reason, $5 detail.
    REMARK = concat!("INSERT INTO job_events (job_id, at, from_state, to_state, generation, lease_epoch, attempt, worker, actor, \
        reason, detail) SELECT id, ", now!("$2"), ", state, state, generation, lease_epoch, attempt, $3, 'freightliner', $4, $5 \
        FROM jobs WHERE id = $1");

    /// What the newest completed job for a target left there. $1 target.
    PUBLISHED = "SELECT id, report::json ->> 'digest' AS digest FROM jobs \
        WHERE state = 'completed' AND dest_key = $1 AND report IS NOT NULL ORDER BY asked_seq DESC NULLS LAST, id DESC LIMIT 1";

    /// Finished jobs that are not kept any longer, oldest first. $1 state, $2 finished before, $3 limit.
    PRUNABLE = "SELECT id, finished_at FROM jobs WHERE state = $1 AND finished_at IS NOT NULL AND finished_at < $2 \
        ORDER BY finished_at LIMIT $3::BIGINT";

    /// How many finished jobs are not kept any longer. $1 state, $2 finished before.
    PRUNABLE_JOBS = "SELECT COUNT(*) AS jobs FROM jobs WHERE state = $1 AND finished_at IS NOT NULL AND finished_at < $2";

    /// How many keys would not be kept: their jobs are gone, or would go. $1 made before; jobs finished before: $2 completed,
    /// $3 cancelled, $4 failed.
    PRUNABLE_KEYS = "SELECT COUNT(*) AS keys FROM idempotency_keys AS k WHERE k.created_at < $1 \
        AND NOT EXISTS (SELECT FROM jobs AS j WHERE j.id = k.job_id AND NOT COALESCE(j.finished_at < CASE j.state \
            WHEN 'completed' THEN $2::BIGINT WHEN 'cancelled' THEN $3::BIGINT WHEN 'failed' THEN $4::BIGINT END, FALSE))";

    /// Removes finished jobs with their history, those that were not retried since they were found: see the function in the
    /// second migration. One that somebody has locked is about to be retried. $1 ids, $2 when each was finished, $3 now, $4 actor,
    /// $5 reason.
    PRUNE = "WITH same AS MATERIALIZED (SELECT j.id FROM unnest($1::BIGINT[], $2::BIGINT[]) AS found (id, finished_at) \
            JOIN jobs AS j ON j.id = found.id WHERE j.finished_at = found.finished_at FOR UPDATE OF j SKIP LOCKED) \
        SELECT prune_jobs(ARRAY(SELECT same.id FROM same), $3::BIGINT, $4::TEXT, $5::TEXT) AS jobs";

    /// Index entries of rows that are gone slow whoever looks for the next job. $1 so many are worth a vacuum, when they are
    /// also a fiftieth of all, as for the table's autovacuum; $2 seconds since the last one.
    UNTENDED = "SELECT COUNT(*) > 0 AS untended FROM pg_stat_user_tables AS t WHERE t.relid = 'jobs'::REGCLASS \
        AND t.n_dead_tup >= GREATEST($1::BIGINT, t.n_live_tup / 50) \
        AND COALESCE(GREATEST(t.last_vacuum, t.last_autovacuum) < now() - make_interval(secs => $2::BIGINT), TRUE) \
        AND NOT EXISTS (SELECT FROM pg_stat_progress_vacuum AS v WHERE v.relid = t.relid)";

    /// Cutting the file short would need everybody to wait.
    TEND = "VACUUM (SKIP_LOCKED, TRUNCATE FALSE, INDEX_CLEANUP TRUE) jobs";

    /// Removes old keys of jobs that are not kept any more. $1 made before, $2 limit.
    PRUNE_KEYS = "WITH old AS MATERIALIZED (SELECT k.key FROM idempotency_keys AS k WHERE k.created_at < $1 \
            AND NOT EXISTS (SELECT FROM jobs AS j WHERE j.id = k.job_id) LIMIT $2::BIGINT), \
        gone AS (DELETE FROM idempotency_keys AS k USING old WHERE k.key = old.key RETURNING 1) \
        SELECT COUNT(*) AS keys FROM gone";

    /// Makes a restored database safe: see the function in the second migration. $1 now, $2 actor, $3 epochs.
    RESTORE = "SELECT jobs, requeued, workers, temp_files FROM invalidate_restored($1::BIGINT, $2::TEXT, $3::BIGINT)";

    /// The queue is paused. $1 name.
    PAUSED = "SELECT EXISTS (SELECT FROM queues WHERE name = $1 AND paused_at IS NOT NULL) AS paused";

    /// A worker starts; done twice it is the same. $1 id, $2 host, $3 pid, $4 machine, $5 boot, $6 state folder, $7 device,
    /// $8 inode, $9 version, $10 lease ttl ms, $11 now, $12 queue, $13 concurrency.
    WORKER_START = concat!("INSERT INTO workers (id, host, pid, machine_id, boot_id, state_dir, state_device, state_inode, \
        version, lease_ttl_ms, started_at, seen_at, queue, concurrency) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, ", now!("$11"), ", ", now!("$11"), ", $12, $13) ON CONFLICT DO NOTHING");

    /// A worker is alive. $1 id, $2 now.
    WORKER_SEEN = concat!("UPDATE workers SET seen_at = ", now!("$2"), " WHERE id = $1 RETURNING id");

    /// A worker is gone, with no job left. $1 id.
    WORKER_GONE = "DELETE FROM workers WHERE id = $1 AND NOT EXISTS (SELECT FROM jobs WHERE state = 'running' AND worker = $1) \
        RETURNING id";

    /// All workers.
    WORKERS = "SELECT id, host, pid, machine_id, boot_id, state_dir, state_device, state_inode, version, lease_ttl_ms, \
        queue, concurrency, started_at, seen_at FROM workers ORDER BY started_at, id";

    /// All leases.
    LEASES = "SELECT id, lease_epoch, lease_beat, worker, lease_until FROM jobs WHERE state = 'running' ORDER BY id";

    /// How often a job's workers died in its generation, and what counts toward poison of one lease. $1 id, $2 epoch, $3 beat.
    CRASH_FACTS = "SELECT j.crash_count, j.bytes_moved, (SELECT COUNT(*) FROM job_events AS e WHERE e.job_id = j.id \
            AND e.generation = j.generation AND e.reason = 'lease expired') AS crashes \
        FROM jobs AS j WHERE j.id = $1 AND j.state = 'running' AND j.lease_epoch = $2 AND j.lease_beat = $3";

    /// Takes a job from a dead worker. $1 id, $2 epoch, $3 beat, $4 now, $5 it is poison, $6 message, $7 ms to the next run.
    RECLAIM = concat!("WITH free AS MATERIALIZED (SELECT id FROM jobs WHERE id = $1 AND state = 'running' AND lease_epoch = $2 \
            AND lease_beat = $3 FOR UPDATE SKIP LOCKED) \
        UPDATE jobs SET \
            state = CASE WHEN cancel_requested_at IS NOT NULL THEN 'cancelled' WHEN $5 THEN 'failed' ELSE 'scheduled' END, \
            finished_at = CASE WHEN cancel_requested_at IS NOT NULL OR $5 THEN ", now!("$4"), " END, \
            worker = NULL, lease_until = NULL, lease_epoch = lease_epoch + 1, attempt = GREATEST(attempt - 1, 0), \
            crash_count = CASE WHEN bytes_moved > 0 THEN 0 ELSE crash_count + 1 END, run_at = ", now!("$4"), " + $7::BIGINT, \
            failure_stage = 'work', failure_at = ", now!("$4"), ", failure_message = $6, \
            failure_class = CASE WHEN $5 THEN 'poison' ELSE 'crashed' END, \
            change_seq = change_seq + 1, change_actor = 'sweeper', change_reason = 'lease expired' \
        FROM free WHERE jobs.id = free.id RETURNING jobs.state");

    /// Where the history ends. Numbers are handed out before the commit, so an event with a lower one may appear later: it
    /// belongs to a change that was under way already.
    LAST_EVENT = "SELECT COALESCE(MAX(seq), 0) AS seq FROM job_events";

    /// Jobs that failed for good since. $1 seq, $2 queue or NULL.
    FAILED_SINCE = "SELECT COUNT(*) AS failed FROM job_events AS e JOIN jobs AS j ON j.id = e.job_id \
        WHERE e.seq > $1 AND e.to_state = 'failed' AND e.from_state <> 'failed' AND ($2::TEXT IS NULL OR j.queue = $2)";

    /// A temporary file is about to be made. $1 path, $2 worker, $3 job, $4 epoch, $5 now.
    TEMP_REGISTER = concat!("INSERT INTO temp_files (path, worker, job_id, lease_epoch, created_at) \
        VALUES ($1, $2, $3, $4, ", now!("$5"), ")");

    /// Temporary files are gone. $1 paths.
    TEMP_FORGET = "DELETE FROM temp_files WHERE path = ANY ($1::TEXT[])";

    /// Temporary files of a worker. $1 worker.
    TEMP_OF = "SELECT path FROM temp_files WHERE worker = $1 ORDER BY path";

    /// Workers that left temporary files but no row.
    TEMP_WORKERS = "SELECT DISTINCT worker FROM temp_files";

    /// An attempt takes its turn at a blob, if nobody else's runs. $1 registry, $2 repository, $3 digest, $4 job, $5 epoch,
    /// $6 now.
    UPLOAD_TAKE = concat!("INSERT INTO uploads (registry, repository, digest, job_id, lease_epoch, updated_at) \
        SELECT $1, $2, $3, id, lease_epoch, ", now!("$6"), " FROM jobs WHERE id = $4 AND lease_epoch = $5 AND state = 'running' \
        ON CONFLICT (registry, repository, digest) DO UPDATE SET job_id = excluded.job_id, \
            lease_epoch = excluded.lease_epoch, updated_at = excluded.updated_at \
        WHERE (uploads.job_id = excluded.job_id AND uploads.lease_epoch = excluded.lease_epoch) OR NOT EXISTS ( \
            SELECT FROM jobs AS j WHERE j.id = uploads.job_id AND j.lease_epoch = uploads.lease_epoch AND state = 'running') \
        RETURNING location, committed, midstate");

    /// How far it has come. $1 registry, $2 repository, $3 digest, $4 job, $5 epoch, $6 location, $7 committed, $8 midstate,
    /// $9 now.
    UPLOAD_NOTE = concat!("UPDATE uploads SET location = $6, committed = $7, midstate = $8, updated_at = ", now!("$9"), " \
        WHERE registry = $1 AND repository = $2 AND digest = $3 AND job_id = $4 AND lease_epoch = $5 \
        AND EXISTS (SELECT FROM jobs WHERE id = $4 AND lease_epoch = $5 AND state = 'running') RETURNING job_id");

    /// It is over. $1 registry, $2 repository, $3 digest, $4 job, $5 epoch.
    UPLOAD_END = "DELETE FROM uploads WHERE registry = $1 AND repository = $2 AND digest = $3 AND job_id = $4 \
        AND lease_epoch = $5";

    /// Where blobs were seen. $1 registry, $2 repository, $3 digests.
    BLOBS_SEEN = "SELECT w.digest AS digest, (SELECT b.repository FROM blobs AS b WHERE b.registry = $1 \
            AND b.digest = w.digest AND b.repository = $2) AS here, (SELECT b.repository FROM blobs AS b \
            WHERE b.registry = $1 AND b.digest = w.digest AND b.repository <> $2 LIMIT 1) AS elsewhere \
        FROM unnest($3::TEXT[]) AS w (digest)";

    /// Blobs that are not where they were seen. $1 registry, $2 repository, $3 digests.
    BLOBS_LOST = "DELETE FROM blobs WHERE registry = $1 AND repository = $2 AND digest = ANY ($3::TEXT[])";

    /// The profile that a registry has shown. $1 registry.
    REGISTRY_PROFILE = "SELECT profile FROM registries WHERE registry = $1";

    /// A registry has shown its profile. $1 registry, $2 profile.
    REGISTRY_SHOWN = "INSERT INTO registries (registry, profile) VALUES ($1, $2) \
        ON CONFLICT (registry) DO UPDATE SET profile = excluded.profile WHERE registries.profile <> excluded.profile";

    /// Uploads that nobody has gone on with. $1 before, $2 limit.
    UPLOADS_TRIM = "WITH gone AS (DELETE FROM uploads WHERE (registry, repository, digest) IN (SELECT registry, repository, digest \
        FROM uploads WHERE updated_at < $1 LIMIT $2) RETURNING 1) SELECT COUNT(*) AS trimmed FROM gone";

    /// Blobs that were seen long ago. $1 before, $2 limit.
    BLOBS_TRIM = "WITH gone AS (DELETE FROM blobs WHERE (registry, digest, repository) IN (SELECT registry, digest, repository \
        FROM blobs WHERE seen_at < $1 LIMIT $2) RETURNING 1) SELECT COUNT(*) AS trimmed FROM gone";

    /// A page of jobs, as their history must explain them. $1 above this id, $2 limit.
    CHECK_JOBS = "SELECT id, state, generation, attempt, lease_epoch, worker FROM jobs WHERE id > $1 ORDER BY id LIMIT $2";

    /// The histories of a page of jobs. $1 above this id, $2 up to this id.
    CHECK_EVENTS = "SELECT job_id, seq, from_state, to_state, generation, lease_epoch, attempt, worker, \
            CASE WHEN from_state = 'running' AND to_state <> 'running' THEN detail END AS end_detail \
        FROM job_events WHERE job_id > $1 AND job_id <= $2 ORDER BY job_id, seq";

    /// Targets that more than one job writes.
    CHECK_TARGETS = "SELECT dest_key, COUNT(*) AS jobs FROM jobs WHERE state = 'running' GROUP BY dest_key HAVING COUNT(*) > 1 \
        ORDER BY dest_key LIMIT 20";

    /// Size of the tables and the version of the server.
    SIZES = "SELECT (SELECT COUNT(*) FROM jobs) AS jobs, (SELECT COUNT(*) FROM job_events) AS events, \
        (SELECT MAX(version) FROM schema_migrations) AS schema, current_setting('server_version') AS version, \
        (SELECT CAST(SUM(pg_total_relation_size(c.oid)) AS BIGINT) FROM pg_class AS c \
            WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r') AS bytes";

    /// A text that differs when any transaction that wrote was committed between two looks: before its commit it is under way
    /// in the snapshot or not begun, afterwards it is neither.
    SNAPSHOT = "SELECT CAST(pg_current_snapshot() AS TEXT) AS snapshot";

    /// A new schedule, if its name is free. $1 name, $2 timing, $3 time zone, $4 jitter, $5 missed, $6 overlap, $7 source,
    /// $8 destination, $9 options, $10 queue, $11 priority, $12 max attempts, $13 whether paused, $14 now, $15 actor.
    SCHEDULE_ADD = concat!("INSERT INTO schedules (name, timing, timezone, jitter_ms, missed, overlap, source, destination, \
            options, queue, priority, max_attempts, paused_at, created_at, base_at, change_seq, change_actor, kind) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, CASE WHEN $13::BOOLEAN THEN ", now!("$14"), " END, ",
        now!("$14"), ", ", now!("$14"), ", 1, $15, $16) ON CONFLICT (name) WHERE removed_at IS NULL DO NOTHING RETURNING id");

    /// The schedules, by name. $1 one name or NULL for all.
    SCHEDULES = concat!("SELECT ", schedule_columns!(), " FROM schedules \
        WHERE removed_at IS NULL AND ($1::TEXT IS NULL OR name = $1) ORDER BY name");

    /// Schedules whose time has come, or that nobody has looked at yet. $1 now, $2 limit.
    SCHEDULES_DUE = concat!("SELECT ", schedule_columns!(), " FROM schedules WHERE ", schedule_waits!(), " \
        AND (next_at IS NULL OR next_at <= ", now!("$1"), ") ORDER BY next_at LIMIT $2::BIGINT");

    /// The earliest time of all schedules, and the time. $1 now.
    SCHEDULES_NEXT = concat!("SELECT MIN(next_at) AS next_at, ", now!("$1"), " AS now FROM schedules WHERE ", schedule_waits!());

    /// $1 name, $2 now, $3 actor.
    SCHEDULE_PAUSE = concat!("UPDATE schedules SET paused_at = ", now!("$2"), ", change_seq = change_seq + 1, change_actor = $3 \
        WHERE name = $1 AND removed_at IS NULL AND paused_at IS NULL RETURNING id");

    /// It counts from now on. $1 name, $2 now, $3 actor.
    SCHEDULE_RESUME = concat!("UPDATE schedules SET paused_at = NULL, fault = NULL, base_at = ", now!("$2"), ", next_at = NULL, \
        change_seq = change_seq + 1, change_actor = $3 \
        WHERE name = $1 AND removed_at IS NULL AND (paused_at IS NOT NULL OR fault IS NOT NULL) RETURNING id");

    /// $1 name, $2 now, $3 actor.
    SCHEDULE_REMOVE = concat!("UPDATE schedules SET removed_at = ", now!("$2"), ", change_seq = change_seq + 1, change_actor = $3 \
        WHERE name = $1 AND removed_at IS NULL RETURNING id");

    /// Schedules go on to their next times, those that are as they were seen, and what became of their times is written down,
    /// with the jobs. Of schedules: $1 ids, $2 next times seen, $3 bases seen (NULL: by hand), $4 next times, $5 faults. Of
    /// times: $6 schedules, $7 times, $8 outcomes, $9 when jobs start, $10 details; $13 their batches or NULL, $14 kinds, $15 names and
    /// $16 rules of these. $11 actor, $12 now.
    SCHEDULES_FIRE = concat!("WITH clock AS MATERIALIZED (SELECT ", now!("$12"), " AS now), \
        moved AS (UPDATE schedules AS s SET \
            next_at = CASE WHEN w.base IS NULL THEN s.next_at ELSE w.next_at END, \
            last_at = CASE WHEN w.base IS NULL THEN s.last_at ELSE COALESCE( \
                (SELECT MAX(t.at) FROM unnest($6::BIGINT[], $7::BIGINT[]) AS t (id, at) WHERE t.id = w.id), s.last_at) END, \
            ended_at = CASE WHEN w.base IS NOT NULL AND w.next_at IS NULL AND w.fault IS NULL THEN clock.now ELSE s.ended_at END, \
            fault = COALESCE(w.fault, s.fault) \
            FROM unnest($1::BIGINT[], $2::BIGINT[], $3::BIGINT[], $4::BIGINT[], $5::TEXT[]) AS w (id, seen, base, next_at, fault), \
                clock \
            WHERE s.id = w.id AND s.removed_at IS NULL AND (w.base IS NULL OR s.next_at IS NOT DISTINCT FROM w.seen \
                AND s.base_at = w.base AND s.paused_at IS NULL AND s.ended_at IS NULL AND s.fault IS NULL) \
            RETURNING s.id, s.overlap, s.source, s.destination, s.options, s.queue, s.priority, s.max_attempts, \
                w.base IS NULL AS by_hand), \
        planned AS MATERIALIZED (SELECT m.*, o.at, o.run_at, o.detail, o.batch, o.batch_kind, o.batch_name, o.rules, 'schedule:' || m.id || ':' || o.at AS key, CASE \
                WHEN o.outcome = 'fired' AND NOT m.by_hand AND (m.overlap = 'skip' AND EXISTS (SELECT FROM jobs AS j \
                        WHERE j.schedule_id = m.id AND j.state IN ('scheduled', 'pending', 'running')) \
                    OR m.overlap = 'queue' AND EXISTS (SELECT FROM jobs AS j \
                        WHERE j.schedule_id = m.id AND j.state IN ('scheduled', 'pending') \
                        AND (j.batch_id IS NULL OR j.kind = 'expand'))) \
                THEN 'overlapped' ELSE o.outcome END AS outcome \
            FROM unnest($6::BIGINT[], $7::BIGINT[], $8::TEXT[], $9::BIGINT[], $10::TEXT[], $13::TEXT[], $14::TEXT[], $15::TEXT[], \
                $16::TEXT[]) AS o (id, at, outcome, run_at, detail, batch, batch_kind, batch_name, rules) \
            JOIN moved AS m ON m.id = o.id \
            WHERE NOT EXISTS (SELECT FROM schedule_occurrences AS x WHERE x.schedule_id = o.id AND x.at = o.at)), \
        batched AS (INSERT INTO batches (id, kind, name, source, destination, rules, schedule_id, created_at, created_by) \
            SELECT batch, batch_kind, batch_name, source, destination, rules, id, clock.now, $11 \
            FROM planned, clock WHERE outcome = 'fired' AND batch IS NOT NULL), \
        made AS (INSERT INTO jobs (kind, source, destination, options, batch_id, source_key, dest_key, dest_registry, options_key, \
                state, queue, priority, max_attempts, run_at, created_at, \
                schedule_id, idempotency_key, change_seq, change_actor, change_reason) \
            SELECT CASE WHEN batch IS NULL THEN 'copy' ELSE 'expand' END, source, destination, \
                CASE WHEN batch IS NULL THEN options ELSE '{}' END, batch, 'batch:' || batch, 'batch:' || batch, \
                CASE WHEN batch IS NOT NULL THEN 'batch' END, CASE WHEN batch IS NOT NULL THEN '{}' END, CASE WHEN run_at > clock.now THEN 'scheduled' ELSE 'pending' END, queue, \
                priority, max_attempts, run_at, clock.now, id, key, 1, $11, 'scheduled' \
            FROM planned, clock WHERE outcome = 'fired' ORDER BY id, at RETURNING id, idempotency_key), \
        noted AS (INSERT INTO schedule_occurrences (schedule_id, at, outcome, job_id, decided_at, actor, detail) \
            SELECT p.id, p.at, p.outcome, made.id, clock.now, $11, p.detail \
            FROM clock, planned AS p LEFT JOIN made ON made.idempotency_key = p.key \
            RETURNING schedule_id, at, outcome, job_id, decided_at, detail) \
        SELECT schedule_id, at, outcome, job_id, decided_at, detail FROM noted ORDER BY schedule_id, at");

    /// What became of the times of a schedule, newest first. $1 id, $2 limit.
    SCHEDULE_OCCURRENCES = "SELECT schedule_id, at, outcome, job_id, decided_at, detail FROM schedule_occurrences \
        WHERE schedule_id = $1 ORDER BY at DESC LIMIT $2::BIGINT";

    /// Jobs of a schedule that are not finished, older than one of them. $1 id, $2 that job.
    SCHEDULE_OLDER = "SELECT id FROM jobs WHERE schedule_id = $1 AND id < $2 AND state IN ('scheduled', 'pending', 'running')";
}
