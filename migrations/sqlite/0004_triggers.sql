-- The same rules at half the price. SQLite builds a temporary table for a list of three values each time that a trigger with
-- it is asked, and an UPDATE in a trigger opens every index of its table also when no row is meant. So what is asked for each
-- change of a job compares one by one, and the program's own inserts bring what they know: the place in the order of requests.

-- What runs is little: it is found by its state.
DROP INDEX jobs_running_worker;

DROP TRIGGER jobs_insert_guard;
CREATE TRIGGER jobs_insert_guard BEFORE INSERT ON jobs
BEGIN
    -- INSERT OR REPLACE would delete the old row without asking any delete trigger.
    SELECT RAISE(ABORT, 'a job with this id exists: jobs are never replaced')
    WHERE EXISTS (SELECT 1 FROM jobs WHERE id = NEW.id);
    SELECT RAISE(ABORT, 'a job is inserted as pending or scheduled') WHERE NEW.state NOT IN ('pending', 'scheduled');
    SELECT RAISE(ABORT, 'a new job has no attempt, lease, result or generation of its own: leave those columns out')
    WHERE NEW.generation <> 1 OR NEW.attempt <> 0 OR NEW.crash_count <> 0 OR NEW.lease_epoch <> 0 OR NEW.lease_beat <> 0
        OR NEW.worker IS NOT NULL OR NEW.lease_until IS NOT NULL OR NEW.started_at IS NOT NULL
        OR NEW.finished_at IS NOT NULL OR NEW.report IS NOT NULL OR NEW.failure_class IS NOT NULL
        OR NEW.cancel_requested_at IS NOT NULL OR NEW.bytes_moved <> 0
        OR (NEW.asked_seq IS NOT NULL AND NEW.change_seq = 0) OR NEW.change_seq NOT IN (0, 1);
    SELECT RAISE(ABORT, 'the canonical references of a job are the program''s: leave those columns out')
    WHERE NEW.change_seq = 0 AND (NEW.source_key IS NOT NULL OR NEW.dest_key IS NOT NULL
        OR NEW.dest_registry IS NOT NULL OR NEW.options_key IS NOT NULL);
    SELECT RAISE(ABORT, 'created_at is the time of the insert: leave it out')
    WHERE NEW.change_seq = 0 AND ABS(NEW.created_at - CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)) > 60000;
    -- The key of a job that is not kept any more: what it asked for was done. As ON CONFLICT DO NOTHING.
    SELECT RAISE(IGNORE)
    WHERE NEW.idempotency_key IS NOT NULL
        AND EXISTS (SELECT 1 FROM idempotency_keys WHERE key = NEW.idempotency_key)
        AND NOT EXISTS (SELECT 1 FROM jobs WHERE idempotency_key = NEW.idempotency_key);
END;

-- Rows by plain SQL, and by a program that does not know their place in the order of requests.
DROP TRIGGER jobs_inserted;
CREATE TRIGGER jobs_inserted AFTER INSERT ON jobs
WHEN NEW.change_seq = 0 OR (NEW.asked_seq IS NULL AND NEW.state = 'pending')
BEGIN
    -- Ids rise from the last one ever given; one near the end of the integers would leave none for the next jobs.
    SELECT RAISE(ABORT, 'ids are given by the database: leave the id out')
    WHERE NEW.id < 1
        OR NEW.id > COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'jobs'), 0) + 1000000000000;
    SELECT RAISE(ABORT, 'this idempotency key belongs to another job: jobs are never replaced')
    WHERE EXISTS (SELECT 1 FROM idempotency_keys WHERE key = NEW.idempotency_key AND job_id <> NEW.id);
    INSERT INTO idempotency_keys (key, job_id, created_at)
    SELECT NEW.idempotency_key, NEW.id, NEW.created_at WHERE NEW.idempotency_key IS NOT NULL;
    UPDATE jobs SET state = 'scheduled'
    WHERE id = NEW.id AND state = 'pending' AND change_seq = 0
        AND run_at > CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER);
    INSERT INTO job_events (job_id, at, from_state, to_state, generation, lease_epoch, attempt, actor, reason)
    SELECT id, CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER), NULL, state, generation,
        lease_epoch, attempt,
        CASE WHEN change_seq > 0 THEN COALESCE(change_actor, 'unknown') ELSE 'sql' END, 'enqueued'
    FROM jobs WHERE id = NEW.id;
    UPDATE jobs SET asked_seq = (SELECT MAX(seq) FROM job_events) WHERE id = NEW.id AND state = 'pending';
END;

CREATE TRIGGER jobs_enqueued AFTER INSERT ON jobs
WHEN NEW.change_seq > 0 AND (NEW.asked_seq IS NOT NULL OR NEW.state <> 'pending')
BEGIN
    SELECT RAISE(ABORT, 'ids are given by the database: leave the id out')
    WHERE NEW.id < 1
        OR NEW.id > COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'jobs'), 0) + 1000000000000;
    INSERT INTO job_events (job_id, at, from_state, to_state, generation, lease_epoch, attempt, actor, reason)
    VALUES (NEW.id, CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER), NULL, NEW.state,
        NEW.generation, NEW.lease_epoch, NEW.attempt, COALESCE(NEW.change_actor, 'unknown'), 'enqueued');
    SELECT RAISE(ABORT, 'asked_seq is the seq of the event that makes the job wait: leave it out')
    WHERE NEW.asked_seq IS NOT NULL AND (NEW.state <> 'pending' OR NEW.asked_seq <> (SELECT MAX(seq) FROM job_events));
END;

CREATE TRIGGER jobs_enqueued_key AFTER INSERT ON jobs
WHEN NEW.idempotency_key IS NOT NULL AND NEW.change_seq > 0 AND (NEW.asked_seq IS NOT NULL OR NEW.state <> 'pending')
BEGIN
    SELECT RAISE(ABORT, 'this idempotency key belongs to another job: jobs are never replaced')
    WHERE EXISTS (SELECT 1 FROM idempotency_keys WHERE key = NEW.idempotency_key AND job_id <> NEW.id);
    INSERT INTO idempotency_keys (key, job_id, created_at) VALUES (NEW.idempotency_key, NEW.id, NEW.created_at);
END;

DROP TRIGGER jobs_transition;
CREATE TRIGGER jobs_transition AFTER UPDATE OF state ON jobs
WHEN NEW.state <> OLD.state AND EXISTS (SELECT 1 FROM job_events WHERE job_id = NEW.id)
BEGIN
    INSERT INTO job_events
        (job_id, at, from_state, to_state, generation, lease_epoch, attempt, worker, actor, reason, detail)
    VALUES (
        NEW.id,
        CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER),
        OLD.state,
        NEW.state,
        CASE WHEN OLD.state = 'completed' OR OLD.state = 'failed' OR OLD.state = 'cancelled'
            THEN OLD.generation + 1 ELSE NEW.generation END,
        NEW.lease_epoch,
        CASE WHEN OLD.state = 'running' THEN OLD.attempt ELSE NEW.attempt END,
        COALESCE(NEW.worker, OLD.worker),
        CASE WHEN NEW.change_seq > OLD.change_seq THEN COALESCE(NEW.change_actor, 'unknown') ELSE 'sql' END,
        CASE WHEN NEW.change_seq > OLD.change_seq THEN NEW.change_reason ELSE 'plain SQL' END,
        CASE
            WHEN OLD.state = 'running' AND NEW.state = 'completed'
                THEN json_object('bytes_moved', NEW.bytes_moved, 'report', json(NEW.report))
            WHEN OLD.state = 'running' AND NEW.state = 'scheduled'
                THEN json_object('bytes_moved', NEW.bytes_moved, 'attempt_after', NEW.attempt, 'run_at', NEW.run_at,
                    'failure_stage', NEW.failure_stage, 'failure_class', NEW.failure_class,
                    'failure_message', NEW.failure_message)
            WHEN OLD.state = 'running'
                THEN json_object('bytes_moved', NEW.bytes_moved, 'attempt_after', NEW.attempt,
                    'failure_stage', NEW.failure_stage, 'failure_class', NEW.failure_class,
                    'failure_message', NEW.failure_message)
            WHEN NEW.state = 'failed'
                THEN json_object('failure_stage', NEW.failure_stage, 'failure_class', NEW.failure_class,
                    'failure_message', NEW.failure_message)
            WHEN NEW.state = 'scheduled' THEN json_object('run_at', NEW.run_at)
        END
    );
    UPDATE jobs SET asked_seq = (SELECT MAX(seq) FROM job_events)
    WHERE id = NEW.id AND NEW.state = 'pending'
        AND (asked_seq IS NULL OR OLD.state = 'completed' OR OLD.state = 'failed' OR OLD.state = 'cancelled');
END;

DROP TRIGGER jobs_result_guard;
CREATE TRIGGER jobs_result_guard
BEFORE UPDATE OF started_at, finished_at, report, failure_stage, failure_class, failure_message, failure_at, bytes_done,
    bytes_total, blobs_done, blobs_total, bytes_moved, asked_seq ON jobs
WHEN (OLD.state = 'completed' OR OLD.state = 'failed' OR OLD.state = 'cancelled')
    AND NEW.state = OLD.state AND OLD.finished_at IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'the result of a finished job never changes: retry the job')
    WHERE NEW.started_at IS NOT OLD.started_at OR NEW.finished_at IS NOT OLD.finished_at OR NEW.report IS NOT OLD.report
        OR NEW.failure_stage IS NOT OLD.failure_stage OR NEW.failure_class IS NOT OLD.failure_class
        OR NEW.failure_message IS NOT OLD.failure_message OR NEW.failure_at IS NOT OLD.failure_at
        OR NEW.bytes_done IS NOT OLD.bytes_done OR NEW.bytes_total IS NOT OLD.bytes_total
        OR NEW.blobs_done IS NOT OLD.blobs_done OR NEW.blobs_total IS NOT OLD.blobs_total
        OR NEW.bytes_moved IS NOT OLD.bytes_moved OR NEW.asked_seq IS NOT OLD.asked_seq;
END;

DROP TRIGGER jobs_finished_time;
CREATE TRIGGER jobs_finished_time AFTER UPDATE OF state ON jobs
WHEN (NEW.state = 'completed' OR NEW.state = 'failed' OR NEW.state = 'cancelled')
    AND NEW.state <> OLD.state AND NEW.finished_at IS NULL
BEGIN
    UPDATE jobs SET finished_at = CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)
    WHERE id = NEW.id;
END;

DROP TRIGGER jobs_reopened;
CREATE TRIGGER jobs_reopened AFTER UPDATE OF state ON jobs
WHEN (OLD.state = 'completed' OR OLD.state = 'failed' OR OLD.state = 'cancelled')
    AND NEW.state = 'pending' AND NEW.generation = OLD.generation
BEGIN
    UPDATE jobs SET generation = generation + 1, attempt = 0, crash_count = 0, started_at = NULL, finished_at = NULL,
        cancel_requested_at = NULL, report = NULL, bytes_done = NULL, bytes_total = NULL, blobs_done = NULL,
        blobs_total = NULL, bytes_moved = 0, failure_stage = NULL, failure_class = NULL, failure_message = NULL,
        failure_at = NULL, run_at = CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)
    WHERE id = NEW.id;
END;

DROP TRIGGER jobs_pruned_guard;
CREATE TRIGGER jobs_pruned_guard BEFORE UPDATE OF state ON jobs
WHEN (OLD.state = 'completed' OR OLD.state = 'failed' OR OLD.state = 'cancelled') AND NEW.state <> OLD.state
BEGIN
    SELECT RAISE(ABORT, 'this job is being pruned') WHERE EXISTS (SELECT 1 FROM pruned_jobs WHERE job_id = OLD.id);
    INSERT INTO written_targets (dest_key, dest_registry, asked_seq, job_id)
    SELECT OLD.dest_key, OLD.dest_registry, COALESCE(OLD.asked_seq, 0), OLD.id
    WHERE OLD.state = 'completed' AND OLD.dest_key IS NOT NULL
    ON CONFLICT (dest_key) DO UPDATE SET dest_registry = excluded.dest_registry, asked_seq = excluded.asked_seq,
        job_id = excluded.job_id;
END;
