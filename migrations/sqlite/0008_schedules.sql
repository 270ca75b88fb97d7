-- Schedules: rows that make jobs, and what became of each of their times. Any program may insert a schedule and read the view.
-- All times are integers, unix milliseconds UTC.

CREATE TABLE schedules (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL CHECK (length(CAST(name AS BLOB)) BETWEEN 1 AND 128),
    -- A cron expression of five or six fields, @hourly and the like, @every 15m, @once 2026-11-23T06:00:00Z.
    timing TEXT NOT NULL CHECK (length(CAST(timing AS BLOB)) BETWEEN 1 AND 512),
    -- An IANA name.
    timezone TEXT NOT NULL DEFAULT 'UTC' CHECK (length(CAST(timezone AS BLOB)) BETWEEN 1 AND 128),
    -- Each job starts up to so much later.
    jitter_ms INTEGER NOT NULL DEFAULT 0 CHECK (jitter_ms BETWEEN 0 AND 86400000),
    -- Times at which nobody looked: skip, once, catch-up=N.
    missed TEXT NOT NULL DEFAULT 'once' CHECK (length(CAST(missed AS BLOB)) <= 32),
    -- Times at which the last run is not over: skip, queue, allow, cancel.
    overlap TEXT NOT NULL DEFAULT 'skip' CHECK (length(CAST(overlap AS BLOB)) <= 32),
    -- What it makes: a copy, or a batch by the mirror of that name (in source), or by a tree, or by rules (in options).
    kind TEXT NOT NULL DEFAULT 'copy' CHECK (kind IN ('copy', 'mirror', 'tree', 'sync')),
    -- What its jobs are.
    source TEXT NOT NULL CHECK (length(CAST(source AS BLOB)) <= 4096),
    destination TEXT NOT NULL CHECK (length(CAST(destination AS BLOB)) <= 4096),
    options TEXT NOT NULL DEFAULT '{}'
        CHECK (json_valid(options) AND json_type(options) = 'object' AND length(CAST(options AS BLOB)) <= 65536),
    queue TEXT NOT NULL DEFAULT 'default' CHECK (length(queue) BETWEEN 1 AND 128),
    priority INTEGER NOT NULL DEFAULT 100 CHECK (priority BETWEEN -2147483648 AND 2147483647),
    max_attempts INTEGER NOT NULL DEFAULT 8 CHECK (max_attempts BETWEEN 1 AND 1000),
    created_at INTEGER NOT NULL DEFAULT (CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)),
    -- From when on it counts; intervals are counted from here.
    base_at INTEGER NOT NULL DEFAULT (CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)),
    -- NULL: nobody has looked at it yet.
    next_at INTEGER,
    last_at INTEGER,
    -- Set while it is held back.
    paused_at INTEGER,
    -- Since when there is no next time.
    ended_at INTEGER,
    -- Why it cannot be; it waits until somebody changes it.
    fault TEXT,
    removed_at INTEGER,
    -- Who changed the row last; a change that does not raise change_seq is foreign SQL.
    change_seq INTEGER NOT NULL DEFAULT 0,
    change_actor TEXT
) STRICT;

CREATE UNIQUE INDEX schedules_name ON schedules (name) WHERE removed_at IS NULL;
CREATE INDEX schedules_due ON schedules (next_at)
WHERE removed_at IS NULL AND paused_at IS NULL AND ended_at IS NULL AND fault IS NULL;
CREATE INDEX jobs_schedule ON jobs (schedule_id, id) WHERE schedule_id IS NOT NULL;

-- What became of each time: once for all.
CREATE TABLE schedule_occurrences (
    schedule_id INTEGER NOT NULL REFERENCES schedules (id),
    at INTEGER NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('fired', 'missed', 'overlapped')),
    -- The job that it made.
    job_id INTEGER,
    decided_at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    detail TEXT,
    PRIMARY KEY (schedule_id, at)
) STRICT;

-- Another time: it counts from now on.
CREATE TRIGGER schedules_retimed AFTER UPDATE OF timing, timezone ON schedules
WHEN NEW.timing <> OLD.timing OR NEW.timezone <> OLD.timezone
BEGIN
    UPDATE schedules SET base_at = CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER),
        next_at = NULL, ended_at = NULL, fault = NULL
    WHERE id = NEW.id;
END;

-- What was wrong may be right now.
CREATE TRIGGER schedules_mended AFTER UPDATE OF kind, source, destination, options, missed, overlap ON schedules
WHEN OLD.fault IS NOT NULL
BEGIN
    UPDATE schedules SET fault = NULL WHERE id = NEW.id;
END;

CREATE TRIGGER schedules_delete_guard BEFORE DELETE ON schedules
BEGIN
    SELECT RAISE(ABORT, 'schedules are not deleted, their history names them: set removed_at');
END;

CREATE TRIGGER schedule_occurrences_insert_guard BEFORE INSERT ON schedule_occurrences
BEGIN
    SELECT RAISE(ABORT, 'what became of this time is known: history is never replaced')
    WHERE EXISTS (SELECT 1 FROM schedule_occurrences WHERE schedule_id = NEW.schedule_id AND at = NEW.at);
    SELECT RAISE(ABORT, 'there is no such schedule')
    WHERE NOT EXISTS (SELECT 1 FROM schedules WHERE id = NEW.schedule_id);
END;

CREATE TRIGGER schedule_occurrences_update_guard BEFORE UPDATE ON schedule_occurrences
BEGIN
    SELECT RAISE(ABORT, 'history is never changed');
END;

-- Retention removes times whose jobs it has removed before.
CREATE TRIGGER schedule_occurrences_delete_guard BEFORE DELETE ON schedule_occurrences
BEGIN
    SELECT RAISE(ABORT, 'history is never deleted by hand')
    WHERE OLD.decided_at > CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER) - 86400000
        OR EXISTS (SELECT 1 FROM jobs WHERE id = OLD.job_id);
END;

-- Which time made which job, with which result. Names and columns are stable; times are RFC 3339 UTC.
CREATE VIEW audit_schedules AS
SELECT
    o.schedule_id, s.name, strftime('%Y-%m-%dT%H:%M:%fZ', o.at / 1000.0, 'unixepoch') AS at,
    o.outcome, o.job_id, j.state AS job_state, j.failure_message,
    strftime('%Y-%m-%dT%H:%M:%fZ', o.decided_at / 1000.0, 'unixepoch') AS decided_at,
    o.actor, o.detail, s.source, s.destination, j.batch_id
FROM schedule_occurrences AS o
JOIN schedules AS s ON s.id = o.schedule_id
LEFT JOIN jobs AS j ON j.id = o.job_id;
