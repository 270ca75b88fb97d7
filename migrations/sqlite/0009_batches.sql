-- Batches: many copies that were asked for as one. A batch has a job that lists what belongs to it and makes the others; its
-- state is what theirs come to. All times are integers, unix milliseconds UTC.

CREATE TABLE batches (
    id TEXT NOT NULL PRIMARY KEY CHECK (length(id) = 36 AND id NOT GLOB '*[^0-9a-f-]*'),
    -- Of one repository, of a tree of them, of a file of rules, of a mirror.
    kind TEXT NOT NULL CHECK (kind IN ('tags', 'tree', 'sync', 'mirror')),
    -- Of the mirror, of the file.
    name TEXT,
    source TEXT NOT NULL,
    destination TEXT NOT NULL,
    -- What is to be listed, JSON. NULL: the mirror of that name, as the configuration of who lists first has it.
    rules TEXT CHECK (rules IS NULL OR json_valid(rules)),
    schedule_id INTEGER,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    -- Since when nothing more is to be made for it.
    cancelled_at INTEGER,
    -- Since when it is in no list.
    hidden_at INTEGER
) STRICT;
CREATE INDEX batches_created ON batches (created_at);

-- What became of each repository of a batch.
CREATE TABLE batch_repositories (
    batch_id TEXT NOT NULL REFERENCES batches (id),
    -- The place of its rule, from 0.
    rule INTEGER NOT NULL,
    repository TEXT NOT NULL,
    listed_at INTEGER NOT NULL,
    -- Tags it has, and of those how many the rule keeps.
    tags INTEGER NOT NULL,
    kept INTEGER NOT NULL,
    failure_class TEXT,
    failure_message TEXT,
    PRIMARY KEY (batch_id, rule, repository)
) STRICT;

CREATE INDEX jobs_batch_state ON jobs (batch_id, state, priority, id) WHERE batch_id IS NOT NULL;

CREATE TRIGGER batches_identity_guard
BEFORE UPDATE OF id, kind, name, source, destination, created_at, created_by, schedule_id ON batches
BEGIN
    SELECT RAISE(ABORT, 'what a batch was asked for never changes: make another one')
    WHERE NEW.id <> OLD.id OR NEW.kind <> OLD.kind OR NEW.name IS NOT OLD.name OR NEW.source <> OLD.source
        OR NEW.destination <> OLD.destination OR NEW.created_at <> OLD.created_at OR NEW.created_by <> OLD.created_by
        OR NEW.schedule_id IS NOT OLD.schedule_id;
END;

CREATE TRIGGER batches_rules_guard BEFORE UPDATE OF rules ON batches WHEN OLD.rules IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'the rules of a batch are written once') WHERE NEW.rules IS NOT OLD.rules;
END;

-- Batches and what became of them. Names and columns are stable; times are RFC 3339 UTC.
CREATE VIEW audit_batches AS
SELECT
    b.id, b.kind, b.name, b.source, b.destination, b.created_by, b.schedule_id, s.name AS schedule,
    strftime('%Y-%m-%dT%H:%M:%fZ', b.created_at / 1000.0, 'unixepoch') AS created_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', MAX(j.finished_at) / 1000.0, 'unixepoch') AS last_finished_at,
    CASE
        WHEN COUNT(j.id) FILTER (WHERE j.state = 'running') > 0 THEN 'running'
        WHEN COUNT(j.id) FILTER (WHERE j.state IN ('pending', 'scheduled')) > 0
            THEN CASE WHEN COUNT(j.id) FILTER (WHERE j.kind = 'copy' AND j.finished_at IS NOT NULL) > 0
                THEN 'running' ELSE 'pending' END
        WHEN COUNT(j.id) FILTER (WHERE j.state = 'failed') > 0 THEN 'failed'
        WHEN b.cancelled_at IS NOT NULL OR COUNT(j.id) FILTER (WHERE j.state = 'cancelled') > 0 THEN 'cancelled'
        ELSE 'completed'
    END AS state,
    MAX(CASE WHEN j.kind = 'expand' THEN j.state END) AS listing,
    COUNT(j.id) FILTER (WHERE j.kind = 'copy') AS jobs,
    COUNT(j.id) FILTER (WHERE j.kind = 'copy' AND j.state = 'completed') AS completed,
    COUNT(j.id) FILTER (WHERE j.kind = 'copy' AND j.state = 'failed') AS failed,
    COUNT(j.id) FILTER (WHERE j.kind = 'copy' AND j.state = 'cancelled') AS cancelled,
    COALESCE(SUM(j.bytes_moved), 0) AS bytes_moved,
    (SELECT COUNT(*) FROM batch_repositories AS r WHERE r.batch_id = b.id) AS repositories,
    (SELECT COUNT(*) FROM batch_repositories AS r WHERE r.batch_id = b.id AND r.failure_class IS NOT NULL)
        AS repositories_failed
FROM batches AS b
LEFT JOIN jobs AS j ON j.batch_id = b.id
LEFT JOIN schedules AS s ON s.id = b.schedule_id
GROUP BY b.id;
