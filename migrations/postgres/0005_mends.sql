-- Equal jobs that wait are found by an index of their own, whatever the planner knows of the table: between a vacuum and the
-- first analysis, and on a table that was analysed before it grew, it took indexes that pass every row that waits. The written
-- form of the state is the point: no other index can answer it.

CREATE INDEX jobs_equal ON jobs (dest_key)
WHERE (state || '') IN ('pending', 'scheduled') AND asked_seq IS NOT NULL AND dest_key IS NOT NULL;

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

-- Takes in rows of plain SQL, in the same transaction as the claim that follows: they start one commit sooner. The first five
-- are what intake found (see the statement PARSED), the others are those of claim_jobs.
CREATE FUNCTION @schema@.parse_and_claim(
    ids BIGINT[], source_keys TEXT[], dest_keys TEXT[], dest_registries TEXT[], options_keys TEXT[],
    workers TEXT[], ttls BIGINT[], only_queue TEXT, only_job BIGINT, limit_names TEXT[], limit_counts BIGINT[], at BIGINT,
    known_schema BIGINT
)
RETURNS SETOF @schema@.jobs LANGUAGE plpgsql
SET plan_cache_mode = 'force_generic_plan'
SET enable_seqscan = 'off'
SET enable_hashjoin = 'off'
SET enable_mergejoin = 'off'
SET jit = 'off'
AS $$
BEGIN
    WITH free AS MATERIALIZED (
        SELECT j.id, a.source_key, a.dest_key, a.dest_registry, a.options_key
        FROM unnest(ids, source_keys, dest_keys, dest_registries, options_keys)
            AS a (id, source_key, dest_key, dest_registry, options_key)
        JOIN @schema@.jobs AS j ON j.id = a.id
        WHERE j.dest_key IS NULL AND j.state = 'pending' FOR UPDATE OF j SKIP LOCKED
    )
    UPDATE @schema@.jobs AS j SET source_key = free.source_key, dest_key = free.dest_key,
        dest_registry = free.dest_registry, options_key = free.options_key
    FROM free WHERE j.id = free.id;
    RETURN QUERY SELECT * FROM @schema@.claim_jobs(workers, ttls, only_queue, only_job, limit_names, limit_counts, at,
        known_schema);
END
$$;

-- A paused job that plain SQL cancelled can be retried by plain SQL.
CREATE OR REPLACE FUNCTION @schema@.jobs_before_pause() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.paused_at IS NOT NULL AND OLD.finished_at IS NOT NULL AND NEW.state = 'pending' THEN
        NEW.paused_at := NULL;
        RETURN NEW;
    END IF;
    IF OLD.paused_at IS NOT NULL AND NEW.state IN ('pending', 'running') THEN
        RAISE EXCEPTION 'a paused job does not start: set paused_at to NULL to resume it' USING ERRCODE = '23000';
    END IF;
    IF OLD.paused_at IS NULL AND OLD.state NOT IN ('scheduled', 'pending') THEN
        RAISE EXCEPTION 'only a job that waits can be paused' USING ERRCODE = '23000';
    END IF;
    RETURN NEW;
END
$$;
