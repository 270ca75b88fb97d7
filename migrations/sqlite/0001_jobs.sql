-- Jobs, their history, the workers that hold them, and what auditors read.
--
-- The database is a public interface: any program may insert a row into `jobs` and read the views. So the rules stand here
-- and not only in the program, in SQL that SQLite 3.40 knows: a client's own, older SQLite runs these triggers.
-- All times are integers, unix milliseconds UTC.

CREATE TABLE queues (
    name TEXT NOT NULL PRIMARY KEY,
    -- Set while nothing is claimed from this queue.
    paused_at INTEGER
) STRICT;

CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL DEFAULT 'copy' CHECK (kind IN ('copy', 'expand')),
    -- +1 by an operator's retry; at most one `completed` a generation.
    generation INTEGER NOT NULL DEFAULT 1,
    source TEXT NOT NULL CHECK (length(CAST(source AS BLOB)) <= 4096),
    destination TEXT NOT NULL CHECK (length(CAST(destination AS BLOB)) <= 4096),
    options TEXT NOT NULL DEFAULT '{}'
        CHECK (json_valid(options) AND json_type(options) = 'object' AND length(CAST(options AS BLOB)) <= 65536),
    state TEXT NOT NULL DEFAULT 'pending'
        CHECK (state IN ('scheduled', 'pending', 'running', 'completed', 'failed', 'cancelled')),
    queue TEXT NOT NULL DEFAULT 'default' CHECK (length(queue) BETWEEN 1 AND 128),
    -- Lower runs first.
    priority INTEGER NOT NULL DEFAULT 100 CHECK (priority BETWEEN -2147483648 AND 2147483647),
    attempt INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    max_attempts INTEGER NOT NULL DEFAULT 8 CHECK (max_attempts BETWEEN 1 AND 1000),
    -- Deaths of workers in a row without progress.
    crash_count INTEGER NOT NULL DEFAULT 0 CHECK (crash_count >= 0),
    -- The fence: rises with every claim and reclaim, never falls.
    lease_epoch INTEGER NOT NULL DEFAULT 0,
    -- Raised by each renewal: the sweeper watches it instead of the wall clock.
    lease_beat INTEGER NOT NULL DEFAULT 0,
    worker TEXT CHECK ((worker IS NOT NULL) = (state = 'running')),
    lease_until INTEGER CHECK ((lease_until IS NOT NULL) = (state = 'running')),
    run_at INTEGER NOT NULL DEFAULT (CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER))
        CHECK (run_at BETWEEN 0 AND 253402300799999),
    created_at INTEGER NOT NULL DEFAULT (CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)),
    started_at INTEGER,
    finished_at INTEGER,
    -- The order in which copies to one target were asked for: the seq of the event that made the job wait for a worker, or
    -- of an operator's retry, or of an equal request. No clock is in it. Retries do not move it. NULL while the job waits
    -- for a time that was asked for.
    asked_seq INTEGER,
    batch_id TEXT,
    schedule_id INTEGER,
    idempotency_key TEXT CHECK (idempotency_key IS NULL OR length(idempotency_key) BETWEEN 1 AND 4096),
    cancel_requested_at INTEGER,
    -- Written by intake: canonical references. NULL until then.
    source_key TEXT,
    dest_key TEXT,
    dest_registry TEXT,
    options_key TEXT,
    -- Progress of the running or last attempt.
    bytes_done INTEGER,
    bytes_total INTEGER,
    blobs_done INTEGER,
    blobs_total INTEGER,
    bytes_moved INTEGER NOT NULL DEFAULT 0,
    -- Why the last attempt failed.
    failure_stage TEXT,
    failure_class TEXT,
    failure_message TEXT,
    failure_at INTEGER,
    -- What was done, JSON.
    report TEXT CHECK (report IS NULL OR json_valid(report)),
    -- Who changed the row last and why: triggers have no caller. A change that does not raise change_seq is foreign SQL.
    change_seq INTEGER NOT NULL DEFAULT 0,
    change_actor TEXT,
    change_reason TEXT
) STRICT;

-- Claims read a queue from its best row on.
CREATE INDEX jobs_claim ON jobs (queue, priority, id) WHERE state = 'pending';
CREATE INDEX jobs_due ON jobs (run_at) WHERE state = 'scheduled';
CREATE INDEX jobs_intake ON jobs (id) WHERE dest_key IS NULL AND state = 'pending';
-- One running job a target.
CREATE UNIQUE INDEX jobs_running_target ON jobs (dest_key) WHERE state = 'running';
CREATE INDEX jobs_running_worker ON jobs (worker) WHERE state = 'running';
CREATE INDEX jobs_waiting_target ON jobs (dest_key) WHERE state IN ('pending', 'scheduled');
CREATE INDEX jobs_completed_target ON jobs (dest_key, asked_seq, id) WHERE state = 'completed';
CREATE INDEX jobs_state ON jobs (state, id);
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE finished_at IS NOT NULL;
CREATE UNIQUE INDEX jobs_idempotency_key ON jobs (idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE TABLE job_events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id INTEGER NOT NULL REFERENCES jobs (id),
    at INTEGER NOT NULL,
    from_state TEXT,
    to_state TEXT NOT NULL,
    generation INTEGER NOT NULL,
    lease_epoch INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    worker TEXT,
    actor TEXT NOT NULL,
    reason TEXT,
    detail TEXT
) STRICT;
CREATE INDEX job_events_job ON job_events (job_id, seq);

-- Keys outlive their jobs. Several keys may name one job: an equal job that was waiting already.
CREATE TABLE idempotency_keys (
    key TEXT NOT NULL PRIMARY KEY,
    job_id INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- Lists of jobs that were enqueued to their end: the same list again is a new request, an interrupted one goes on.
CREATE TABLE finished_loads (
    content_hash TEXT NOT NULL,
    number INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    PRIMARY KEY (content_hash, number)
) STRICT;

-- One row a worker process incarnation.
CREATE TABLE workers (
    id TEXT NOT NULL PRIMARY KEY CHECK (length(id) = 36 AND id NOT GLOB '*[^0-9a-f-]*'),
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    machine_id TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    state_dir TEXT NOT NULL,
    state_device INTEGER NOT NULL,
    state_inode INTEGER NOT NULL,
    version TEXT NOT NULL,
    lease_ttl_ms INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL
) STRICT;

-- Registered before the file is created, forgotten after it is gone.
CREATE TABLE temp_files (
    path TEXT NOT NULL PRIMARY KEY,
    worker TEXT NOT NULL,
    job_id INTEGER NOT NULL,
    lease_epoch INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX temp_files_worker ON temp_files (worker);

-- Blobs that attempts brought to their destination.
CREATE TABLE transfers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id INTEGER NOT NULL REFERENCES jobs (id),
    generation INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    lease_epoch INTEGER NOT NULL,
    at INTEGER NOT NULL,
    registry TEXT NOT NULL,
    repository TEXT NOT NULL,
    digest TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    how TEXT NOT NULL CHECK (how IN ('copied', 'mounted', 'present', 'resumed'))
) STRICT;
CREATE INDEX transfers_job ON transfers (job_id, id);

-- ---------------------------------------------------------------------------------------------------------------------
-- Insert

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
        OR NEW.cancel_requested_at IS NOT NULL OR NEW.bytes_moved <> 0 OR NEW.asked_seq IS NOT NULL
        OR NEW.change_seq NOT IN (0, 1);
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

CREATE TRIGGER jobs_inserted AFTER INSERT ON jobs
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

-- ---------------------------------------------------------------------------------------------------------------------
-- Change

CREATE TRIGGER jobs_identity_guard
BEFORE UPDATE OF id, kind, source, destination, options, idempotency_key, created_at, batch_id, schedule_id,
    source_key, dest_key, dest_registry, options_key, lease_epoch, generation, attempt, crash_count, change_seq ON jobs
BEGIN
    SELECT RAISE(ABORT, 'what a job was asked for never changes: enqueue another job')
    WHERE NEW.id <> OLD.id OR NEW.kind <> OLD.kind OR NEW.source <> OLD.source OR NEW.destination <> OLD.destination
        OR NEW.options <> OLD.options OR NEW.idempotency_key IS NOT OLD.idempotency_key
        OR NEW.created_at <> OLD.created_at OR NEW.batch_id IS NOT OLD.batch_id
        OR NEW.schedule_id IS NOT OLD.schedule_id;
    SELECT RAISE(ABORT, 'the canonical references of a job are written once')
    WHERE OLD.dest_key IS NOT NULL
        AND (NEW.dest_key IS NOT OLD.dest_key OR NEW.source_key IS NOT OLD.source_key
            OR NEW.dest_registry IS NOT OLD.dest_registry OR NEW.options_key IS NOT OLD.options_key);
    SELECT RAISE(ABORT, 'lease_epoch, generation and change_seq rise by one and never fall')
    WHERE NEW.lease_epoch NOT IN (OLD.lease_epoch, OLD.lease_epoch + 1)
        OR NEW.generation NOT IN (OLD.generation, OLD.generation + 1)
        OR NEW.change_seq NOT IN (OLD.change_seq, OLD.change_seq + 1);
    SELECT RAISE(ABORT, 'lease_epoch, attempt and crash_count change with the state alone')
    WHERE NEW.state = OLD.state AND NEW.generation = OLD.generation
        AND (NEW.lease_epoch <> OLD.lease_epoch OR NEW.attempt <> OLD.attempt OR NEW.crash_count <> OLD.crash_count);
END;

CREATE TRIGGER jobs_transition_guard BEFORE UPDATE OF state ON jobs WHEN NEW.state <> OLD.state
BEGIN
    SELECT CASE OLD.state || ' ' || NEW.state
        WHEN 'scheduled running' THEN RAISE(ABORT, 'illegal transition: a scheduled job cannot become running')
        WHEN 'scheduled completed' THEN RAISE(ABORT, 'illegal transition: a scheduled job cannot become completed')
        WHEN 'scheduled failed' THEN RAISE(ABORT, 'illegal transition: a scheduled job cannot become failed')
        WHEN 'pending completed' THEN RAISE(ABORT, 'illegal transition: a pending job cannot become completed')
        WHEN 'completed scheduled' THEN RAISE(ABORT, 'illegal transition: a completed job cannot become scheduled')
        WHEN 'completed running' THEN RAISE(ABORT, 'illegal transition: a completed job cannot become running')
        WHEN 'completed failed' THEN RAISE(ABORT, 'illegal transition: a completed job cannot become failed')
        WHEN 'completed cancelled' THEN RAISE(ABORT, 'illegal transition: a completed job cannot become cancelled')
        WHEN 'failed scheduled' THEN RAISE(ABORT, 'illegal transition: a failed job cannot become scheduled')
        WHEN 'failed running' THEN RAISE(ABORT, 'illegal transition: a failed job cannot become running')
        WHEN 'failed completed' THEN RAISE(ABORT, 'illegal transition: a failed job cannot become completed')
        WHEN 'failed cancelled' THEN RAISE(ABORT, 'illegal transition: a failed job cannot become cancelled')
        WHEN 'cancelled scheduled' THEN RAISE(ABORT, 'illegal transition: a cancelled job cannot become scheduled')
        WHEN 'cancelled running' THEN RAISE(ABORT, 'illegal transition: a cancelled job cannot become running')
        WHEN 'cancelled completed' THEN RAISE(ABORT, 'illegal transition: a cancelled job cannot become completed')
        WHEN 'cancelled failed' THEN RAISE(ABORT, 'illegal transition: a cancelled job cannot become failed')
    END;
    SELECT RAISE(ABORT, 'a running job is ended by its worker: set cancel_requested_at to have it cancelled')
    WHERE OLD.state = 'running' AND NEW.worker IS NOT NULL;
    SELECT RAISE(ABORT, 'a claim raises attempt and lease_epoch by one, and takes a job whose references are known')
    WHERE NEW.state = 'running'
        AND (NEW.lease_epoch <> OLD.lease_epoch + 1 OR NEW.attempt <> OLD.attempt + 1 OR NEW.dest_key IS NULL);
    -- UPDATE OR REPLACE would delete the row that runs.
    SELECT RAISE(ABORT, 'another job for this destination is running')
    WHERE NEW.state = 'running'
        AND EXISTS (SELECT 1 FROM jobs WHERE state = 'running' AND dest_key = NEW.dest_key AND id <> NEW.id);
END;

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
        CASE WHEN OLD.state IN ('completed', 'failed', 'cancelled') THEN OLD.generation + 1 ELSE NEW.generation END,
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
        AND (asked_seq IS NULL OR OLD.state IN ('completed', 'failed', 'cancelled'));
END;

-- What is finished stays as it was found to be.
CREATE TRIGGER jobs_result_guard
BEFORE UPDATE OF started_at, finished_at, report, failure_stage, failure_class, failure_message, failure_at, bytes_done,
    bytes_total, blobs_done, blobs_total, bytes_moved, asked_seq ON jobs
WHEN OLD.state IN ('completed', 'failed', 'cancelled') AND NEW.state = OLD.state AND OLD.finished_at IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'the result of a finished job never changes: retry the job')
    WHERE NEW.started_at IS NOT OLD.started_at OR NEW.finished_at IS NOT OLD.finished_at OR NEW.report IS NOT OLD.report
        OR NEW.failure_stage IS NOT OLD.failure_stage OR NEW.failure_class IS NOT OLD.failure_class
        OR NEW.failure_message IS NOT OLD.failure_message OR NEW.failure_at IS NOT OLD.failure_at
        OR NEW.bytes_done IS NOT OLD.bytes_done OR NEW.bytes_total IS NOT OLD.bytes_total
        OR NEW.blobs_done IS NOT OLD.blobs_done OR NEW.blobs_total IS NOT OLD.blobs_total
        OR NEW.bytes_moved IS NOT OLD.bytes_moved OR NEW.asked_seq IS NOT OLD.asked_seq;
END;

-- What plain SQL leaves out.
CREATE TRIGGER jobs_finished_time AFTER UPDATE OF state ON jobs
WHEN NEW.state IN ('completed', 'failed', 'cancelled') AND NEW.state <> OLD.state AND NEW.finished_at IS NULL
BEGIN
    UPDATE jobs SET finished_at = CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)
    WHERE id = NEW.id;
END;

CREATE TRIGGER jobs_reopened AFTER UPDATE OF state ON jobs
WHEN OLD.state IN ('completed', 'failed', 'cancelled') AND NEW.state = 'pending' AND NEW.generation = OLD.generation
BEGIN
    UPDATE jobs SET generation = generation + 1, attempt = 0, crash_count = 0, started_at = NULL, finished_at = NULL,
        cancel_requested_at = NULL, report = NULL, bytes_done = NULL, bytes_total = NULL, blobs_done = NULL,
        blobs_total = NULL, bytes_moved = 0, failure_stage = NULL, failure_class = NULL, failure_message = NULL,
        failure_at = NULL, run_at = CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)
    WHERE id = NEW.id;
END;

CREATE TRIGGER jobs_changed AFTER UPDATE OF priority, queue, run_at, max_attempts, cancel_requested_at ON jobs
WHEN NEW.state = OLD.state AND NEW.generation = OLD.generation
    AND (NEW.priority <> OLD.priority OR NEW.queue <> OLD.queue OR NEW.run_at <> OLD.run_at
        OR NEW.max_attempts <> OLD.max_attempts OR NEW.cancel_requested_at IS NOT OLD.cancel_requested_at)
BEGIN
    INSERT INTO job_events
        (job_id, at, from_state, to_state, generation, lease_epoch, attempt, worker, actor, reason, detail)
    VALUES (
        NEW.id, CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER), NEW.state, NEW.state, NEW.generation,
        NEW.lease_epoch, NEW.attempt, NEW.worker,
        CASE WHEN NEW.change_seq > OLD.change_seq THEN COALESCE(NEW.change_actor, 'unknown') ELSE 'sql' END,
        CASE
            WHEN NEW.cancel_requested_at IS NOT OLD.cancel_requested_at AND NEW.cancel_requested_at IS NOT NULL
                THEN 'cancel requested'
            ELSE 'changed'
        END,
        json_object('priority', NEW.priority, 'queue', NEW.queue, 'run_at', NEW.run_at,
            'max_attempts', NEW.max_attempts, 'cancel_requested_at', NEW.cancel_requested_at)
    );
    UPDATE jobs SET state = 'scheduled', change_seq = change_seq + 1, change_reason = 'postponed',
        change_actor = CASE WHEN NEW.change_seq > OLD.change_seq THEN COALESCE(NEW.change_actor, 'unknown') ELSE 'sql' END
    WHERE id = NEW.id AND state = 'pending' AND NEW.run_at <> OLD.run_at
        AND run_at > CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER);
    UPDATE jobs SET asked_seq = CASE WHEN state = 'pending' THEN (SELECT MAX(seq) FROM job_events) END
    WHERE id = NEW.id AND state IN ('pending', 'scheduled') AND NEW.run_at <> OLD.run_at;
    UPDATE jobs SET state = 'cancelled', change_seq = change_seq + 1, change_reason = 'cancelled',
        change_actor = CASE WHEN NEW.change_seq > OLD.change_seq THEN COALESCE(NEW.change_actor, 'unknown') ELSE 'sql' END
    WHERE id = NEW.id AND state IN ('pending', 'scheduled') AND NEW.cancel_requested_at IS NOT NULL;
END;

CREATE TRIGGER jobs_delete_guard BEFORE DELETE ON jobs
BEGIN
    SELECT RAISE(ABORT, 'jobs are not deleted by hand: cancel them, retention removes finished ones');
END;

-- ---------------------------------------------------------------------------------------------------------------------
-- History

CREATE TRIGGER job_events_insert_guard BEFORE INSERT ON job_events
BEGIN
    SELECT RAISE(ABORT, 'an event with this seq exists: history is never replaced')
    WHERE EXISTS (SELECT 1 FROM job_events WHERE seq = NEW.seq);
    SELECT RAISE(ABORT, 'there is no such job')
    WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE id = NEW.job_id);
END;

CREATE TRIGGER job_events_update_guard BEFORE UPDATE ON job_events
BEGIN
    SELECT RAISE(ABORT, 'history is never changed');
END;

CREATE TRIGGER job_events_delete_guard BEFORE DELETE ON job_events
BEGIN
    SELECT RAISE(ABORT, 'history is never deleted by hand');
END;

CREATE TRIGGER transfers_insert_guard BEFORE INSERT ON transfers
BEGIN
    SELECT RAISE(ABORT, 'a transfer with this id exists: history is never replaced')
    WHERE EXISTS (SELECT 1 FROM transfers WHERE id = NEW.id);
    SELECT RAISE(ABORT, 'there is no such job')
    WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE id = NEW.job_id);
END;

CREATE TRIGGER transfers_update_guard BEFORE UPDATE ON transfers
BEGIN
    SELECT RAISE(ABORT, 'history is never changed');
END;

CREATE TRIGGER transfers_delete_guard BEFORE DELETE ON transfers
BEGIN
    SELECT RAISE(ABORT, 'history is never deleted by hand');
END;

-- ---------------------------------------------------------------------------------------------------------------------
-- Views for auditors. Names and columns are stable; times are RFC 3339 UTC, durations seconds.

CREATE VIEW audit_jobs AS
SELECT
    id, kind, generation, source, destination, queue, priority, state, attempt, max_attempts,
    strftime('%Y-%m-%dT%H:%M:%fZ', created_at / 1000.0, 'unixepoch') AS created_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', run_at / 1000.0, 'unixepoch') AS run_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', started_at / 1000.0, 'unixepoch') AS started_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', finished_at / 1000.0, 'unixepoch') AS finished_at,
    (started_at - created_at) / 1000.0 AS waited_seconds,
    (finished_at - started_at) / 1000.0 AS ran_seconds,
    (finished_at - created_at) / 1000.0 AS total_seconds,
    report ->> '$.digest' AS digest,
    report ->> '$.already_present' AS already_present,
    report ->> '$.bytes_copied' AS bytes_copied,
    report ->> '$.blobs_copied' AS blobs_copied,
    report ->> '$.blobs_mounted' AS blobs_mounted,
    report ->> '$.blobs_present' AS blobs_present,
    report ->> '$.requests' AS requests,
    failure_stage, failure_class, failure_message, batch_id, schedule_id, idempotency_key, worker
FROM jobs;

CREATE VIEW audit_events AS
SELECT
    e.seq, e.job_id, strftime('%Y-%m-%dT%H:%M:%fZ', e.at / 1000.0, 'unixepoch') AS at,
    e.from_state, e.to_state, e.lease_epoch, e.attempt, e.worker, e.actor, e.reason, e.detail,
    j.source, j.destination
FROM job_events AS e JOIN jobs AS j ON j.id = e.job_id;

CREATE VIEW audit_attempts AS
SELECT
    s.job_id, s.generation, s.attempt, s.lease_epoch, s.worker,
    strftime('%Y-%m-%dT%H:%M:%fZ', s.at / 1000.0, 'unixepoch') AS started_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', e.at / 1000.0, 'unixepoch') AS ended_at,
    (e.at - s.at) / 1000.0 AS seconds,
    CASE
        WHEN e.seq IS NULL THEN 'running'
        WHEN e.reason = 'lease expired' THEN 'expired'
        WHEN e.to_state = 'scheduled' THEN 'retry'
        WHEN e.to_state = 'pending' THEN 'released'
        ELSE e.to_state
    END AS outcome,
    e.detail ->> '$.bytes_moved' AS bytes,
    e.detail ->> '$.failure_class' AS failure_class,
    e.detail ->> '$.failure_message' AS failure_message
FROM job_events AS s
LEFT JOIN job_events AS e ON e.seq = (
    SELECT MIN(n.seq) FROM job_events AS n
    WHERE n.job_id = s.job_id AND n.seq > s.seq AND n.from_state = 'running' AND n.to_state <> 'running'
)
WHERE s.to_state = 'running' AND s.from_state <> 'running';

CREATE VIEW audit_transfers AS
SELECT
    t.id, t.job_id, t.attempt, t.lease_epoch, strftime('%Y-%m-%dT%H:%M:%fZ', t.at / 1000.0, 'unixepoch') AS at,
    t.registry, t.repository, t.digest, t.bytes, t.how, j.source, j.destination
FROM transfers AS t JOIN jobs AS j ON j.id = t.job_id;

CREATE VIEW queue_depth AS
SELECT
    q.name AS queue,
    EXISTS (SELECT 1 FROM queues WHERE name = q.name AND paused_at IS NOT NULL) AS paused,
    COALESCE(SUM(j.state = 'scheduled'), 0) AS scheduled,
    COALESCE(SUM(j.state = 'pending'), 0) AS pending,
    COALESCE(SUM(j.state = 'running'), 0) AS running,
    MAX(CASE WHEN j.state = 'pending'
        THEN (CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER) - j.run_at) / 1000.0 END) AS oldest_pending_seconds
FROM (
    SELECT name FROM queues
    UNION
    SELECT queue FROM jobs WHERE state IN ('scheduled', 'pending', 'running')
) AS q
LEFT JOIN jobs AS j ON j.queue = q.name AND j.state IN ('scheduled', 'pending', 'running')
GROUP BY q.name;

CREATE VIEW stuck_jobs AS
SELECT id, state, source, destination, 'lease ran out, nobody took it over' AS why,
    (CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER) - lease_until) / 1000.0 AS seconds
FROM jobs
WHERE state = 'running'
    AND lease_until < CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER) - 60000
UNION ALL
SELECT id, state, source, destination, 'waits for a worker',
    (CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER) - run_at) / 1000.0
FROM jobs
WHERE state = 'pending'
    AND run_at < CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER) - 600000
UNION ALL
SELECT id, state, source, destination, 'its time has come, nobody noticed',
    (CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER) - run_at) / 1000.0
FROM jobs
WHERE state = 'scheduled'
    AND run_at < CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER) - 60000;
