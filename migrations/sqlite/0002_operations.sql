-- What operators need: limits, paused jobs, retention with a record of it, restored databases. And the indexes with which
-- claims stay fast whatever stands before them.

-- At most so many running jobs; NULL: no limit.
ALTER TABLE queues ADD COLUMN max_running INTEGER CHECK (max_running IS NULL OR max_running BETWEEN 1 AND 1000000);
-- Who changed the row last; a change that does not raise change_seq is foreign SQL.
ALTER TABLE queues ADD COLUMN change_seq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE queues ADD COLUMN change_actor TEXT;

-- Set while an operator holds the job back. Such a job is `scheduled`, whatever its time.
ALTER TABLE jobs ADD COLUMN paused_at INTEGER;

-- The queue that a worker serves, NULL for all of them, and how many jobs it runs at a time.
ALTER TABLE workers ADD COLUMN queue TEXT;
ALTER TABLE workers ADD COLUMN concurrency INTEGER NOT NULL DEFAULT 0;

-- ---------------------------------------------------------------------------------------------------------------------
-- Indexes

-- A claim walks the pairs of queue and destination registry, and looks at the head of each: what stands behind a paused queue
-- or a full limit costs nothing.
DROP INDEX jobs_claim;
CREATE INDEX jobs_ready ON jobs (queue, dest_registry, priority, id) WHERE state = 'pending' AND dest_key IS NOT NULL;
-- When busy targets fill those heads, a claim walks the targets. Equal jobs are found by target too.
DROP INDEX jobs_waiting_target;
CREATE INDEX jobs_pending_target ON jobs (dest_key, priority, id) WHERE state = 'pending';
CREATE INDEX jobs_retrying_target ON jobs (dest_key) WHERE state = 'scheduled' AND asked_seq IS NOT NULL;
DROP INDEX jobs_due;
CREATE INDEX jobs_due ON jobs (run_at) WHERE state = 'scheduled' AND paused_at IS NULL;
DROP INDEX jobs_finished;
CREATE INDEX jobs_finished ON jobs (state, finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_batch ON jobs (batch_id, id) WHERE batch_id IS NOT NULL;

-- ---------------------------------------------------------------------------------------------------------------------
-- Queues

CREATE TABLE queue_changes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    paused_at INTEGER,
    max_running INTEGER
) STRICT;

CREATE TRIGGER queues_inserted AFTER INSERT ON queues
BEGIN
    INSERT INTO queue_changes (queue, at, actor, paused_at, max_running)
    VALUES (NEW.name, CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER),
        CASE WHEN NEW.change_seq > 0 THEN COALESCE(NEW.change_actor, 'unknown') ELSE 'sql' END,
        NEW.paused_at, NEW.max_running);
END;

CREATE TRIGGER queues_changed AFTER UPDATE ON queues
WHEN NEW.paused_at IS NOT OLD.paused_at OR NEW.max_running IS NOT OLD.max_running
BEGIN
    INSERT INTO queue_changes (queue, at, actor, paused_at, max_running)
    VALUES (NEW.name, CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER),
        CASE WHEN NEW.change_seq > OLD.change_seq THEN COALESCE(NEW.change_actor, 'unknown') ELSE 'sql' END,
        NEW.paused_at, NEW.max_running);
END;

CREATE TRIGGER queue_changes_update_guard BEFORE UPDATE ON queue_changes
BEGIN
    SELECT RAISE(ABORT, 'history is never changed');
END;

CREATE TRIGGER queue_changes_delete_guard BEFORE DELETE ON queue_changes
BEGIN
    SELECT RAISE(ABORT, 'history is never deleted by hand');
END;

-- ---------------------------------------------------------------------------------------------------------------------
-- Retention: a job and its history go together, and only with a record of which, when and by whom.

CREATE TABLE prunes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    reason TEXT NOT NULL
) STRICT;

CREATE TABLE pruned_jobs (
    job_id INTEGER NOT NULL PRIMARY KEY,
    prune_id INTEGER NOT NULL REFERENCES prunes (id),
    state TEXT NOT NULL,
    finished_at INTEGER
) STRICT;
CREATE INDEX pruned_jobs_prune ON pruned_jobs (prune_id);

CREATE TRIGGER pruned_jobs_insert_guard BEFORE INSERT ON pruned_jobs
BEGIN
    SELECT RAISE(ABORT, 'this job is pruned already: records are never replaced')
    WHERE EXISTS (SELECT 1 FROM pruned_jobs WHERE job_id = NEW.job_id);
    SELECT RAISE(ABORT, 'there is no such prune') WHERE NOT EXISTS (SELECT 1 FROM prunes WHERE id = NEW.prune_id);
    SELECT RAISE(ABORT, 'only finished jobs are pruned')
    WHERE NOT EXISTS (
        SELECT 1 FROM jobs
        WHERE id = NEW.job_id AND state IN ('completed', 'failed', 'cancelled') AND state = NEW.state
    );
END;

CREATE TRIGGER pruned_jobs_update_guard BEFORE UPDATE ON pruned_jobs
BEGIN
    SELECT RAISE(ABORT, 'history is never changed');
END;

CREATE TRIGGER pruned_jobs_delete_guard BEFORE DELETE ON pruned_jobs
BEGIN
    SELECT RAISE(ABORT, 'history is never deleted by hand');
END;

CREATE TRIGGER prunes_update_guard BEFORE UPDATE ON prunes
BEGIN
    SELECT RAISE(ABORT, 'history is never changed');
END;

CREATE TRIGGER prunes_delete_guard BEFORE DELETE ON prunes
BEGIN
    SELECT RAISE(ABORT, 'history is never deleted by hand');
END;

DROP TRIGGER jobs_delete_guard;
CREATE TRIGGER jobs_delete_guard BEFORE DELETE ON jobs
WHEN NOT EXISTS (SELECT 1 FROM pruned_jobs WHERE job_id = OLD.id)
BEGIN
    SELECT RAISE(ABORT, 'jobs are not deleted by hand: cancel them, retention removes finished ones');
END;

DROP TRIGGER job_events_delete_guard;
CREATE TRIGGER job_events_delete_guard BEFORE DELETE ON job_events
WHEN NOT EXISTS (SELECT 1 FROM pruned_jobs WHERE job_id = OLD.job_id)
BEGIN
    SELECT RAISE(ABORT, 'history is never deleted by hand');
END;

DROP TRIGGER transfers_delete_guard;
CREATE TRIGGER transfers_delete_guard BEFORE DELETE ON transfers
WHEN NOT EXISTS (SELECT 1 FROM pruned_jobs WHERE job_id = OLD.job_id)
BEGIN
    SELECT RAISE(ABORT, 'history is never deleted by hand');
END;

-- A job that is marked as pruned must not come to life again before it is gone.
CREATE TRIGGER jobs_pruned_guard BEFORE UPDATE OF state ON jobs
WHEN OLD.state IN ('completed', 'failed', 'cancelled') AND NEW.state <> OLD.state
BEGIN
    SELECT RAISE(ABORT, 'this job is being pruned') WHERE EXISTS (SELECT 1 FROM pruned_jobs WHERE job_id = OLD.id);
END;

-- ---------------------------------------------------------------------------------------------------------------------
-- Restored databases: the epochs of all jobs rise past anything that a worker of the lost time can hold.

CREATE TABLE restores (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    -- Added to every lease_epoch.
    epochs INTEGER NOT NULL CHECK (epochs >= 1),
    -- NULL only inside the transaction that restores.
    finished_at INTEGER
) STRICT;

CREATE TRIGGER restores_update_guard BEFORE UPDATE ON restores
WHEN OLD.finished_at IS NOT NULL OR NEW.finished_at IS NULL OR NEW.id <> OLD.id OR NEW.at <> OLD.at
    OR NEW.actor <> OLD.actor OR NEW.epochs <> OLD.epochs
BEGIN
    SELECT RAISE(ABORT, 'history is never changed');
END;

CREATE TRIGGER restores_delete_guard BEFORE DELETE ON restores
BEGIN
    SELECT RAISE(ABORT, 'history is never deleted by hand');
END;

DROP TRIGGER jobs_identity_guard;
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
    WHERE (NEW.lease_epoch NOT IN (OLD.lease_epoch, OLD.lease_epoch + 1)
            AND NOT EXISTS (SELECT 1 FROM restores
                WHERE finished_at IS NULL AND NEW.lease_epoch = OLD.lease_epoch + epochs AND NEW.state = OLD.state))
        OR NEW.generation NOT IN (OLD.generation, OLD.generation + 1)
        OR NEW.change_seq NOT IN (OLD.change_seq, OLD.change_seq + 1);
    -- Where plain SQL left it out, jobs_reopened raises it, before or after the event of the retry is there.
    SELECT RAISE(ABORT, 'generation rises when a finished job is retried, and only then')
    WHERE NEW.generation <> OLD.generation
        AND NOT (OLD.state IN ('completed', 'failed', 'cancelled') AND NEW.state = 'pending')
        AND NOT (OLD.state = 'pending' AND NEW.state = 'pending' AND EXISTS (
            SELECT 1 FROM job_events AS e WHERE e.seq = (SELECT MAX(seq) FROM job_events WHERE job_id = OLD.id)
                AND (e.generation = NEW.generation OR e.to_state IN ('completed', 'failed', 'cancelled'))));
    SELECT RAISE(ABORT, 'lease_epoch, attempt and crash_count change with the state alone')
    WHERE NEW.state = OLD.state AND NEW.generation = OLD.generation
        AND ((NEW.lease_epoch <> OLD.lease_epoch AND NOT EXISTS (SELECT 1 FROM restores WHERE finished_at IS NULL))
            OR NEW.attempt <> OLD.attempt OR NEW.crash_count <> OLD.crash_count);
END;

CREATE TRIGGER jobs_worker_guard BEFORE UPDATE OF worker ON jobs
WHEN NEW.state = OLD.state AND NEW.worker IS NOT OLD.worker
BEGIN
    SELECT RAISE(ABORT, 'a lease changes hands by a claim alone');
END;

CREATE TRIGGER jobs_restored AFTER UPDATE OF lease_epoch ON jobs
WHEN NEW.state = OLD.state AND NEW.lease_epoch <> OLD.lease_epoch
BEGIN
    INSERT INTO job_events (job_id, at, from_state, to_state, generation, lease_epoch, attempt, worker, actor, reason)
    VALUES (NEW.id, CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER), NEW.state, NEW.state,
        NEW.generation, NEW.lease_epoch, NEW.attempt, NEW.worker, COALESCE(NEW.change_actor, 'unknown'), 'restored');
END;

-- ---------------------------------------------------------------------------------------------------------------------
-- Changes of a waiting job, pauses among them

CREATE TRIGGER jobs_paused_guard BEFORE UPDATE OF state, paused_at ON jobs
BEGIN
    SELECT RAISE(ABORT, 'a paused job does not start: set paused_at to NULL to resume it')
    WHERE NEW.paused_at IS NOT NULL AND OLD.paused_at IS NOT NULL AND NEW.state IN ('pending', 'running');
    SELECT RAISE(ABORT, 'only a job that waits can be paused')
    WHERE NEW.paused_at IS NOT NULL AND OLD.paused_at IS NULL AND OLD.state NOT IN ('scheduled', 'pending');
END;

CREATE TRIGGER jobs_paused_insert_guard BEFORE INSERT ON jobs WHEN NEW.paused_at IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'a new job is not paused: insert it, then set paused_at');
END;

-- A pause leaves a pending job as it is until the trigger below has moved it; nothing can claim it between.
DROP TRIGGER jobs_changed;
CREATE TRIGGER jobs_changed
AFTER UPDATE OF priority, queue, run_at, max_attempts, cancel_requested_at, paused_at ON jobs
WHEN NEW.state = OLD.state AND NEW.generation = OLD.generation
    AND (NEW.priority <> OLD.priority OR NEW.queue <> OLD.queue OR NEW.run_at <> OLD.run_at
        OR NEW.max_attempts <> OLD.max_attempts OR NEW.cancel_requested_at IS NOT OLD.cancel_requested_at
        OR NEW.paused_at IS NOT OLD.paused_at)
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
            WHEN NEW.paused_at IS NOT NULL AND OLD.paused_at IS NULL THEN 'paused'
            WHEN NEW.paused_at IS NULL AND OLD.paused_at IS NOT NULL THEN 'resumed'
            ELSE 'changed'
        END,
        json_object('priority', NEW.priority, 'queue', NEW.queue, 'run_at', NEW.run_at,
            'max_attempts', NEW.max_attempts, 'cancel_requested_at', NEW.cancel_requested_at,
            'paused_at', NEW.paused_at)
    );
    UPDATE jobs SET state = 'scheduled', change_seq = change_seq + 1,
        change_reason = CASE WHEN NEW.paused_at IS NOT NULL THEN 'paused' ELSE 'postponed' END,
        change_actor = CASE WHEN NEW.change_seq > OLD.change_seq THEN COALESCE(NEW.change_actor, 'unknown') ELSE 'sql' END
    WHERE id = NEW.id AND state = 'pending'
        AND ((NEW.paused_at IS NOT NULL AND OLD.paused_at IS NULL)
            OR (NEW.run_at <> OLD.run_at
                AND run_at > CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)));
    UPDATE jobs SET asked_seq = CASE WHEN state = 'pending' THEN (SELECT MAX(seq) FROM job_events) END
    WHERE id = NEW.id AND state IN ('pending', 'scheduled') AND NEW.run_at <> OLD.run_at;
    UPDATE jobs SET state = 'cancelled', change_seq = change_seq + 1, change_reason = 'cancelled',
        change_actor = CASE WHEN NEW.change_seq > OLD.change_seq THEN COALESCE(NEW.change_actor, 'unknown') ELSE 'sql' END
    WHERE id = NEW.id AND state IN ('pending', 'scheduled') AND NEW.cancel_requested_at IS NOT NULL;
END;

-- ---------------------------------------------------------------------------------------------------------------------
-- Views

DROP VIEW queue_depth;
CREATE VIEW queue_depth AS
SELECT
    q.name AS queue,
    EXISTS (SELECT 1 FROM queues WHERE name = q.name AND paused_at IS NOT NULL) AS paused,
    COALESCE(SUM(j.state = 'scheduled'), 0) AS scheduled,
    COALESCE(SUM(j.state = 'pending'), 0) AS pending,
    COALESCE(SUM(j.state = 'running'), 0) AS running,
    MAX(CASE WHEN j.state = 'pending'
        THEN (CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER) - j.run_at) / 1000.0 END) AS oldest_pending_seconds,
    (SELECT max_running FROM queues WHERE name = q.name) AS max_running
FROM (
    SELECT name FROM queues
    UNION
    SELECT queue FROM jobs WHERE state IN ('scheduled', 'pending', 'running')
) AS q
LEFT JOIN jobs AS j ON j.queue = q.name AND j.state IN ('scheduled', 'pending', 'running')
GROUP BY q.name;

DROP VIEW stuck_jobs;
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
WHERE state = 'scheduled' AND paused_at IS NULL
    AND run_at < CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER) - 60000;

-- Who removed which finished jobs, and when.
CREATE VIEW audit_prunes AS
SELECT p.id AS prune_id, strftime('%Y-%m-%dT%H:%M:%fZ', p.at / 1000.0, 'unixepoch') AS at, p.actor, p.reason,
    j.job_id, j.state, strftime('%Y-%m-%dT%H:%M:%fZ', j.finished_at / 1000.0, 'unixepoch') AS finished_at
FROM prunes AS p JOIN pruned_jobs AS j ON j.prune_id = p.id;

-- Who paused, resumed or limited which queue, and when.
CREATE VIEW audit_queues AS
SELECT id, queue, strftime('%Y-%m-%dT%H:%M:%fZ', at / 1000.0, 'unixepoch') AS at, actor,
    paused_at IS NOT NULL AS paused, max_running
FROM queue_changes;
