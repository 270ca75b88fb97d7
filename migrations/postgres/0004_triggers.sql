-- The same rules at less of a price: jobs that meet no equal one are inserted by one statement, and so is the history of what
-- one statement inserts.

CREATE OR REPLACE FUNCTION @schema@.jobs_before_insert() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    -- Ids come from the sequence, so none is beyond the last one that it gave.
    IF NEW.id < 1 OR NEW.id > (SELECT last_value FROM @schema@.jobs_id_seq) THEN
        RAISE EXCEPTION 'ids are given by the database: leave the id out' USING ERRCODE = '23000';
    END IF;
    IF NEW.state NOT IN ('pending', 'scheduled') THEN
        RAISE EXCEPTION 'a job is inserted as pending or scheduled' USING ERRCODE = '23000';
    END IF;
    IF NEW.generation <> 1 OR NEW.attempt <> 0 OR NEW.crash_count <> 0 OR NEW.lease_epoch <> 0 OR NEW.lease_beat <> 0
        OR NEW.worker IS NOT NULL OR NEW.lease_until IS NOT NULL OR NEW.started_at IS NOT NULL
        OR NEW.finished_at IS NOT NULL OR NEW.report IS NOT NULL OR NEW.failure_class IS NOT NULL
        OR NEW.cancel_requested_at IS NOT NULL OR NEW.bytes_moved <> 0 OR NEW.asked_seq IS NOT NULL
        OR NEW.change_seq NOT IN (0, 1)
    THEN
        RAISE EXCEPTION 'a new job has no attempt, lease, result or generation of its own: leave those columns out'
            USING ERRCODE = '23000';
    END IF;
    IF NEW.change_seq = 0 THEN
        IF NEW.source_key IS NOT NULL OR NEW.dest_key IS NOT NULL OR NEW.dest_registry IS NOT NULL
            OR NEW.options_key IS NOT NULL
        THEN
            RAISE EXCEPTION 'the canonical references of a job are the program''s: leave those columns out'
                USING ERRCODE = '23000';
        END IF;
        IF abs(NEW.created_at - @schema@.now_ms()) > 60000 THEN
            RAISE EXCEPTION 'created_at is the time of the insert: leave it out' USING ERRCODE = '23000';
        END IF;
        IF NEW.state = 'pending' AND NEW.run_at > @schema@.now_ms() THEN
            NEW.state := 'scheduled';
        END IF;
    END IF;
    -- Known already, or on its way into the database by somebody who is waited for: then the unique index of the jobs has the
    -- last word, or, when no job bears the key, what it asked for was done or waits. As ON CONFLICT DO NOTHING.
    IF NEW.idempotency_key IS NOT NULL THEN
        INSERT INTO @schema@.idempotency_keys (key, job_id, created_at)
        VALUES (NEW.idempotency_key, NEW.id, NEW.created_at) ON CONFLICT DO NOTHING;
        IF NOT FOUND AND NOT EXISTS (SELECT FROM @schema@.jobs WHERE idempotency_key = NEW.idempotency_key) THEN
            RETURN NULL;
        END IF;
    END IF;
    -- The creation event takes the same number.
    IF NEW.state = 'pending' THEN
        NEW.asked_seq := nextval('@schema@.job_events_seq_seq');
    END IF;
    RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION @schema@.jobs_after_insert() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO @schema@.job_events (seq, job_id, at, to_state, generation, lease_epoch, attempt, actor, reason)
    SELECT COALESCE(n.asked_seq, nextval('@schema@.job_events_seq_seq')), n.id, @schema@.now_ms(), n.state, n.generation,
        n.lease_epoch, n.attempt,
        CASE WHEN n.change_seq > 0 THEN COALESCE(n.change_actor, 'unknown') ELSE 'sql' END, 'enqueued'
    FROM new_rows AS n;
    RETURN NULL;
END
$$;

DROP TRIGGER jobs_inserted ON jobs;
CREATE TRIGGER jobs_inserted AFTER INSERT ON jobs REFERENCING NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION @schema@.jobs_after_insert();

CREATE OR REPLACE FUNCTION @schema@.enqueue_jobs(
    sources TEXT[], destinations TEXT[], options TEXT[], queues TEXT[], priorities BIGINT[], max_attempts BIGINT[],
    run_ats BIGINT[], keys TEXT[], source_keys TEXT[], dest_keys TEXT[], dest_registries TEXT[], joins BOOLEAN[],
    actors TEXT[], at BIGINT
)
RETURNS TABLE (place BIGINT, id BIGINT, created BOOLEAN) LANGUAGE plpgsql
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
    -- Jobs of as many targets, none of which meets an equal one: the usual case goes in one statement.
    IF (SELECT COUNT(DISTINCT w.dest_key) FROM unnest(dest_keys) AS w (dest_key)) = cardinality(dest_keys)
        -- Each is looked up by itself, in the order of targets: only the right index gives that order, also to a planner who
        -- has not seen the table grow.
        AND NOT EXISTS (
            SELECT FROM unnest(options, queues, run_ats, source_keys, dest_keys, dest_registries, joins)
                AS w (options, queue, run_at, source_key, dest_key, dest_registry, joins)
            CROSS JOIN LATERAL (
                SELECT FROM @schema@.jobs AS j
                WHERE w.joins AND w.run_at IS NULL AND j.state = 'pending' AND j.queue = w.queue
                    AND j.dest_registry = w.dest_registry AND j.dest_key >= w.dest_key AND j.dest_key <= w.dest_key
                    AND j.source_key = w.source_key AND j.options_key = w.options AND j.kind = 'copy'
                    AND j.asked_seq IS NOT NULL
                ORDER BY j.queue, j.dest_registry, j.dest_key LIMIT 1
            ) AS equal
        )
        AND NOT EXISTS (
            SELECT FROM unnest(options, queues, run_ats, source_keys, dest_keys, joins)
                AS w (options, queue, run_at, source_key, dest_key, joins)
            CROSS JOIN LATERAL (
                SELECT FROM @schema@.jobs AS j
                WHERE w.joins AND w.run_at IS NULL AND j.state = 'scheduled' AND j.dest_key >= w.dest_key
                    AND j.dest_key <= w.dest_key AND j.source_key = w.source_key AND j.options_key = w.options
                    AND j.queue = w.queue AND j.kind = 'copy' AND j.asked_seq IS NOT NULL AND j.paused_at IS NULL
                ORDER BY j.dest_key LIMIT 1
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
            WHERE j.state = 'pending' AND j.queue = wish.queue AND j.dest_registry = wish.dest_registry
                AND j.dest_key >= wish.dest_key AND j.dest_key <= wish.dest_key AND j.source_key = wish.source_key
                AND j.options_key = wish.options AND j.kind = 'copy' AND j.asked_seq IS NOT NULL
            ORDER BY j.dest_key, j.priority, j.id LIMIT 1 FOR UPDATE SKIP LOCKED;
            IF found_id IS NULL THEN
                SELECT j.id INTO found_id FROM @schema@.jobs AS j
                WHERE j.state = 'scheduled' AND j.dest_key >= wish.dest_key AND j.dest_key <= wish.dest_key
                    AND j.source_key = wish.source_key AND j.options_key = wish.options AND j.queue = wish.queue
                    AND j.kind = 'copy' AND j.asked_seq IS NOT NULL AND j.paused_at IS NULL
                ORDER BY j.dest_key, j.id LIMIT 1 FOR UPDATE SKIP LOCKED;
            END IF;
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
