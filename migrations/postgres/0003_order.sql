-- The order of copies to one target, also when the newest result is taken back or removed: see migrations/sqlite.

CREATE TABLE written_targets (
    dest_key TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    dest_registry TEXT COLLATE "C",
    -- Of the newest job that wrote this target and is not `completed` any more, as they were when it wrote.
    asked_seq BIGINT NOT NULL,
    job_id BIGINT NOT NULL
);

-- Somebody may wait for this target whose request is older than that one. A job whose time was asked for and has not come
-- will be newer, a retried one may write in any case. Rows that intake has not seen are asked for after the first of them was
-- inserted. Pending jobs are found by queue first: with very many queues the answer is yes without a look.
CREATE FUNCTION @schema@.is_awaited(target TEXT, registry TEXT, asked BIGINT) RETURNS BOOLEAN LANGUAGE plpgsql
SET plan_cache_mode = 'force_generic_plan'
SET enable_seqscan = 'off'
SET enable_bitmapscan = 'off'
SET jit = 'off'
AS $$
DECLARE
    looked INT := 0;
    place TEXT;
BEGIN
    IF registry IS NULL
        OR EXISTS (SELECT FROM @schema@.jobs AS j
            WHERE j.state = 'running' AND j.dest_key = target AND j.generation = 1)
        OR EXISTS (SELECT FROM @schema@.jobs AS j
            WHERE j.state = 'scheduled' AND j.asked_seq IS NOT NULL AND j.dest_key = target AND j.generation = 1)
        OR EXISTS (SELECT FROM @schema@.jobs AS j
            WHERE j.state = 'scheduled' AND j.asked_seq IS NOT NULL AND j.dest_key IS NULL)
        OR EXISTS (SELECT FROM @schema@.job_events AS e WHERE e.seq < asked AND e.job_id = (
            SELECT j.id FROM @schema@.jobs AS j WHERE j.dest_key IS NULL AND j.state = 'pending' ORDER BY j.id LIMIT 1))
    THEN
        RETURN true;
    END IF;
    SELECT j.queue INTO place FROM @schema@.jobs AS j
    WHERE j.state = 'pending' AND j.dest_key IS NOT NULL ORDER BY j.queue LIMIT 1;
    WHILE place IS NOT NULL LOOP
        looked := looked + 1;
        IF looked > 100 OR EXISTS (SELECT FROM @schema@.jobs AS j
            WHERE j.state = 'pending' AND j.dest_key IS NOT NULL AND j.queue = place AND j.dest_registry = registry
                AND j.dest_key = target AND j.generation = 1)
        THEN
            RETURN true;
        END IF;
        SELECT j.queue INTO place FROM @schema@.jobs AS j
        WHERE j.state = 'pending' AND j.dest_key IS NOT NULL AND j.queue > place ORDER BY j.queue LIMIT 1;
    END LOOP;
    RETURN false;
END
$$;

-- A row leaves `completed`. What a newer one there says is enough, and what nobody needs is not kept.
CREATE FUNCTION @schema@.jobs_after_completed() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM @schema@.jobs AS c WHERE c.state = 'completed' AND c.dest_key = OLD.dest_key
            AND (c.asked_seq, c.id) > (OLD.asked_seq, OLD.id))
        AND @schema@.is_awaited(OLD.dest_key, OLD.dest_registry, OLD.asked_seq)
    THEN
        INSERT INTO @schema@.written_targets AS w (dest_key, dest_registry, asked_seq, job_id)
        VALUES (OLD.dest_key, OLD.dest_registry, COALESCE(OLD.asked_seq, 0), OLD.id)
        ON CONFLICT (dest_key) DO UPDATE SET dest_registry = excluded.dest_registry, asked_seq = excluded.asked_seq,
            job_id = excluded.job_id
        WHERE (excluded.asked_seq, excluded.job_id) > (w.asked_seq, w.job_id);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER jobs_taken_back AFTER UPDATE OF state ON jobs
FOR EACH ROW WHEN (OLD.state = 'completed' AND NEW.state <> 'completed' AND OLD.dest_key IS NOT NULL)
EXECUTE FUNCTION @schema@.jobs_after_completed();
CREATE TRIGGER jobs_pruned AFTER DELETE ON jobs
FOR EACH ROW WHEN (OLD.state = 'completed' AND OLD.dest_key IS NOT NULL)
EXECUTE FUNCTION @schema@.jobs_after_completed();

-- Only for statements from outside: the triggers above know what they do.
CREATE TRIGGER written_targets_guard BEFORE INSERT OR UPDATE ON written_targets
FOR EACH ROW WHEN (pg_trigger_depth() = 0)
EXECUTE FUNCTION @schema@.refuse('what was written to a target is recorded by the database alone');
CREATE TRIGGER written_targets_truncate_guard BEFORE TRUNCATE ON written_targets
EXECUTE FUNCTION @schema@.refuse('what was written to a target is recorded by the database alone');

-- Who deletes gets rid of what nobody needs any more; the rest stays.
CREATE FUNCTION @schema@.written_targets_before_delete() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    IF @schema@.is_awaited(OLD.dest_key, OLD.dest_registry, OLD.asked_seq) THEN
        RETURN NULL;
    END IF;
    RETURN OLD;
END
$$;

CREATE TRIGGER written_targets_delete_guard BEFORE DELETE ON written_targets
FOR EACH ROW EXECUTE FUNCTION @schema@.written_targets_before_delete();

-- Retention tidies up here too, a bounded number at a time.
CREATE FUNCTION @schema@.prunes_after_insert() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM @schema@.written_targets WHERE dest_key IN (
        SELECT w.dest_key FROM @schema@.written_targets AS w LIMIT 1000 FOR UPDATE SKIP LOCKED
    );
    RETURN NULL;
END
$$;

CREATE TRIGGER prunes_inserted AFTER INSERT ON prunes
FOR EACH ROW EXECUTE FUNCTION @schema@.prunes_after_insert();
