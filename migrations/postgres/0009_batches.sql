-- Batches: many copies that were asked for as one. A batch has a job that lists what belongs to it and makes the others; its
-- state is what theirs come to. All times are integers, unix milliseconds UTC.

CREATE TABLE batches (
    id TEXT NOT NULL PRIMARY KEY CHECK (id ~ '^[0-9a-f-]{36}$'),
    -- Of one repository, of a tree of them, of a file of rules, of a mirror.
    kind TEXT NOT NULL CHECK (kind IN ('tags', 'tree', 'sync', 'mirror')),
    -- Of the mirror, of the file.
    name TEXT,
    source TEXT NOT NULL,
    destination TEXT NOT NULL,
    -- What is to be listed, JSON. NULL: the mirror of that name, as the configuration of who lists first has it.
    rules TEXT CHECK (rules IS NULL OR rules::JSON IS NOT NULL),
    schedule_id BIGINT,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    -- Since when nothing more is to be made for it.
    cancelled_at BIGINT,
    -- Since when it is in no list.
    hidden_at BIGINT
);
CREATE INDEX batches_created ON batches (created_at);

-- What became of each repository of a batch.
CREATE TABLE batch_repositories (
    batch_id TEXT NOT NULL REFERENCES batches (id),
    -- The place of its rule, from 0.
    rule BIGINT NOT NULL,
    repository TEXT NOT NULL,
    listed_at BIGINT NOT NULL,
    -- Tags it has, and of those how many the rule keeps.
    tags BIGINT NOT NULL,
    kept BIGINT NOT NULL,
    failure_class TEXT,
    failure_message TEXT,
    PRIMARY KEY (batch_id, rule, repository)
);

CREATE INDEX jobs_batch_state ON jobs (batch_id, state, priority, id) WHERE batch_id IS NOT NULL;

CREATE FUNCTION @schema@.batches_before_update() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.kind, NEW.name, NEW.source, NEW.destination, NEW.created_at, NEW.created_by, NEW.schedule_id)
        IS DISTINCT FROM
        (OLD.id, OLD.kind, OLD.name, OLD.source, OLD.destination, OLD.created_at, OLD.created_by, OLD.schedule_id) THEN
        RAISE EXCEPTION 'what a batch was asked for never changes: make another one' USING ERRCODE = '23000';
    END IF;
    IF OLD.rules IS NOT NULL AND NEW.rules IS DISTINCT FROM OLD.rules THEN
        RAISE EXCEPTION 'the rules of a batch are written once' USING ERRCODE = '23000';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER batches_identity_guard BEFORE UPDATE ON batches
FOR EACH ROW EXECUTE FUNCTION @schema@.batches_before_update();

-- Batches and what became of them. Names and columns are stable; times are RFC 3339 UTC.
CREATE VIEW audit_batches AS
SELECT
    b.id, b.kind, b.name, b.source, b.destination, b.created_by, b.schedule_id, s.name AS schedule,
    @schema@.rfc3339(b.created_at) AS created_at,
    @schema@.rfc3339(MAX(j.finished_at)) AS last_finished_at,
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
    COALESCE(SUM(j.bytes_moved), 0)::BIGINT AS bytes_moved,
    (SELECT COUNT(*) FROM batch_repositories AS r WHERE r.batch_id = b.id) AS repositories,
    (SELECT COUNT(*) FROM batch_repositories AS r WHERE r.batch_id = b.id AND r.failure_class IS NOT NULL)
        AS repositories_failed
FROM batches AS b
LEFT JOIN jobs AS j ON j.batch_id = b.id
LEFT JOIN schedules AS s ON s.id = b.schedule_id
GROUP BY b.id, s.name;

-- A job of a batch or of a schedule stands for no other request: it may be called off with them.
CREATE OR REPLACE FUNCTION @schema@.enqueue_jobs(
    sources TEXT[], destinations TEXT[], options TEXT[], queues TEXT[], priorities BIGINT[], max_attempts BIGINT[],
    run_ats BIGINT[], keys TEXT[], source_keys TEXT[], dest_keys TEXT[], dest_registries TEXT[], joins BOOLEAN[],
    actors TEXT[], at BIGINT
)
RETURNS TABLE (place BIGINT, id BIGINT, created BOOLEAN) LANGUAGE plpgsql
SET freightliner.quiet = 'on'
SET plan_cache_mode = 'force_generic_plan'
SET enable_seqscan = 'off'
SET enable_nestloop = 'off'
SET jit = 'off'
AS $$
#variable_conflict use_column
DECLARE
    time_now CONSTANT BIGINT := COALESCE(at, @schema@.now_ms());
    wish RECORD;
    found_id BIGINT;
    inserted BIGINT;
BEGIN
    -- Who hears this word may claim at once, without a look at what there is to do.
    PERFORM pg_notify('freightliner', 'asked');
    -- Jobs of as many targets, none of which meets an equal one: the usual case goes in one statement.
    IF (SELECT COUNT(DISTINCT w.dest_key) FROM unnest(dest_keys) AS w (dest_key)) = cardinality(dest_keys)
        AND NOT EXISTS (
            SELECT FROM unnest(options, queues, run_ats, source_keys, dest_keys, joins)
                AS w (options, queue, run_at, source_key, dest_key, joins)
            CROSS JOIN LATERAL (
                SELECT FROM @schema@.jobs AS j
                WHERE w.joins AND w.run_at IS NULL AND (j.state || '') IN ('pending', 'scheduled')
                    AND j.asked_seq IS NOT NULL AND j.dest_key = w.dest_key AND j.source_key = w.source_key
                    AND j.options_key = w.options AND j.queue = w.queue AND j.kind = 'copy' AND j.paused_at IS NULL
                    AND j.batch_id IS NULL AND j.schedule_id IS NULL
                LIMIT 1
            ) AS equal
        )
    THEN
        RETURN QUERY
        WITH wishes AS MATERIALIZED (
            SELECT * FROM unnest(sources, destinations, options, queues, priorities, max_attempts, run_ats, keys,
                source_keys, dest_keys, dest_registries, actors) WITH ORDINALITY
                AS w (source, destination, options, queue, priority, max_attempts, run_at, key, source_key, dest_key,
                    dest_registry, actor, place)
        ),
        added AS (
            INSERT INTO @schema@.jobs (source, destination, options, state, queue, priority, max_attempts, run_at,
                created_at, idempotency_key, source_key, dest_key, dest_registry, options_key, change_seq, change_actor,
                change_reason)
            SELECT w.source, w.destination, w.options,
                CASE WHEN w.run_at > time_now THEN 'scheduled' ELSE 'pending' END, w.queue, w.priority, w.max_attempts,
                COALESCE(w.run_at, time_now), time_now, w.key, w.source_key, w.dest_key, w.dest_registry, w.options, 1,
                w.actor, 'enqueued'
            FROM wishes AS w ORDER BY w.place
            RETURNING jobs.id, jobs.dest_key
        )
        SELECT w.place, a.id, true FROM wishes AS w JOIN added AS a ON a.dest_key = w.dest_key ORDER BY w.place;
        GET DIAGNOSTICS inserted = ROW_COUNT;
        IF inserted < cardinality(dest_keys) THEN
            RAISE EXCEPTION 'the idempotency key became known meanwhile' USING ERRCODE = '23505';
        END IF;
        RETURN;
    END IF;
    FOR wish IN
        SELECT * FROM unnest(sources, destinations, options, queues, priorities, max_attempts, run_ats, keys,
            source_keys, dest_keys, dest_registries, joins, actors) WITH ORDINALITY
            AS w (source, destination, options, queue, priority, max_attempts, run_at, key, source_key, dest_key,
                dest_registry, joins, actor, place)
    LOOP
        place := wish.place;
        found_id := NULL;
        IF wish.joins AND wish.run_at IS NULL THEN
            -- One that somebody else has locked is about to change: it does not count as waiting.
            SELECT j.id INTO found_id FROM @schema@.jobs AS j
            WHERE (j.state || '') IN ('pending', 'scheduled') AND j.asked_seq IS NOT NULL AND j.dest_key = wish.dest_key
                AND j.source_key = wish.source_key AND j.options_key = wish.options AND j.queue = wish.queue
                AND j.kind = 'copy' AND j.paused_at IS NULL
                    AND j.batch_id IS NULL AND j.schedule_id IS NULL
            ORDER BY j.state, j.priority, j.id LIMIT 1 FOR UPDATE SKIP LOCKED;
        END IF;
        IF found_id IS NOT NULL THEN
            -- Counts as asked for now: later than every event so far.
            UPDATE @schema@.jobs AS j SET
                priority = LEAST(j.priority, wish.priority), state = 'pending', run_at = LEAST(j.run_at, time_now),
                asked_seq = nextval('@schema@.job_events_seq_seq'), change_seq = j.change_seq + 1,
                change_actor = wish.actor, change_reason = 'an equal job was asked for'
            WHERE j.id = found_id;
            -- A request that changed nothing else of the job is on record too: its event is the one that asked_seq names.
            INSERT INTO @schema@.job_events
                (seq, job_id, at, from_state, to_state, generation, lease_epoch, attempt, actor, reason)
            SELECT j.asked_seq, j.id, time_now, j.state, j.state, j.generation, j.lease_epoch, j.attempt, wish.actor,
                'an equal job was asked for'
            FROM @schema@.jobs AS j
            WHERE j.id = found_id AND NOT EXISTS (SELECT FROM @schema@.job_events AS e WHERE e.seq = j.asked_seq);
            IF wish.key IS NOT NULL THEN
                INSERT INTO @schema@.idempotency_keys (key, job_id, created_at) VALUES (wish.key, found_id, time_now);
            END IF;
            id := found_id;
            created := false;
        ELSE
            INSERT INTO @schema@.jobs (source, destination, options, state, queue, priority, max_attempts, run_at,
                created_at, idempotency_key, source_key, dest_key, dest_registry, options_key, change_seq, change_actor,
                change_reason)
            VALUES (wish.source, wish.destination, wish.options,
                CASE WHEN wish.run_at > time_now THEN 'scheduled' ELSE 'pending' END, wish.queue, wish.priority,
                wish.max_attempts, COALESCE(wish.run_at, time_now), time_now, wish.key, wish.source_key, wish.dest_key,
                wish.dest_registry, wish.options, 1, wish.actor, 'enqueued')
            RETURNING jobs.id INTO id;
            created := true;
            IF id IS NULL THEN
                RAISE EXCEPTION 'the idempotency key became known meanwhile' USING ERRCODE = '23505';
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;
