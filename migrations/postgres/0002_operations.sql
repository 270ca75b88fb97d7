-- What operators need: limits, paused jobs, retention with a record of it, restored databases. And the claim.

-- At most so many running jobs; NULL: no limit.
ALTER TABLE queues ADD COLUMN max_running BIGINT CHECK (max_running BETWEEN 1 AND 1000000);
-- Who changed the row last; a change that does not raise change_seq is foreign SQL.
ALTER TABLE queues ADD COLUMN change_seq BIGINT NOT NULL DEFAULT 0;
ALTER TABLE queues ADD COLUMN change_actor TEXT;

-- Set while an operator holds the job back. Such a job is `scheduled`, whatever its time.
ALTER TABLE jobs ADD COLUMN paused_at BIGINT;

-- The queue that a worker serves, NULL for all of them, and how many jobs it runs at a time.
ALTER TABLE workers ADD COLUMN queue TEXT;
ALTER TABLE workers ADD COLUMN concurrency BIGINT NOT NULL DEFAULT 0;

-- ---------------------------------------------------------------------------------------------------------------------
-- Indexes

-- A claim walks the pairs of queue and destination registry, and looks at the head of each: what stands behind a paused queue
-- or a full limit costs nothing.
CREATE INDEX jobs_ready ON jobs (queue, dest_registry, priority, id) WHERE state = 'pending' AND dest_key IS NOT NULL;
-- When busy targets fill those heads, a claim walks the targets of a pair. Equal jobs are found by target too.
CREATE INDEX jobs_pending_target ON jobs (queue, dest_registry, dest_key, priority, id)
WHERE state = 'pending' AND dest_key IS NOT NULL;
CREATE INDEX jobs_retrying_target ON jobs (dest_key) WHERE state = 'scheduled' AND asked_seq IS NOT NULL;
DROP INDEX jobs_due;
CREATE INDEX jobs_due ON jobs (run_at) WHERE state = 'scheduled' AND paused_at IS NULL;
DROP INDEX jobs_finished;
CREATE INDEX jobs_finished ON jobs (state, finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_batch ON jobs (batch_id, id) WHERE batch_id IS NOT NULL;

-- ---------------------------------------------------------------------------------------------------------------------
-- Queues

CREATE TABLE queue_changes (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue TEXT NOT NULL,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    paused_at BIGINT,
    max_running BIGINT
);

CREATE FUNCTION @schema@.queues_after_change() RETURNS TRIGGER LANGUAGE plpgsql AS $$
DECLARE
    before BIGINT := 0;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        before := OLD.change_seq;
    END IF;
    INSERT INTO @schema@.queue_changes (queue, at, actor, paused_at, max_running)
    VALUES (NEW.name, @schema@.now_ms(),
        CASE WHEN NEW.change_seq > before THEN COALESCE(NEW.change_actor, 'unknown') ELSE 'sql' END,
        NEW.paused_at, NEW.max_running);
    RETURN NULL;
END
$$;

CREATE TRIGGER queues_inserted AFTER INSERT ON queues
FOR EACH ROW EXECUTE FUNCTION @schema@.queues_after_change();
CREATE TRIGGER queues_changed AFTER UPDATE ON queues
FOR EACH ROW WHEN (NEW.paused_at IS DISTINCT FROM OLD.paused_at OR NEW.max_running IS DISTINCT FROM OLD.max_running)
EXECUTE FUNCTION @schema@.queues_after_change();

-- ---------------------------------------------------------------------------------------------------------------------
-- Retention: a job and its history go together, and only with a record of which, when and by whom.

CREATE TABLE prunes (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    reason TEXT NOT NULL
);

CREATE TABLE pruned_jobs (
    job_id BIGINT NOT NULL PRIMARY KEY,
    prune_id BIGINT NOT NULL REFERENCES prunes (id),
    state TEXT NOT NULL,
    finished_at BIGINT
);
CREATE INDEX pruned_jobs_prune ON pruned_jobs (prune_id);

CREATE FUNCTION @schema@.pruned_jobs_before_insert() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM @schema@.pruned_jobs WHERE job_id = NEW.job_id) THEN
        RAISE EXCEPTION 'this job is pruned already: records are never replaced' USING ERRCODE = '23000';
    END IF;
    IF NOT EXISTS (SELECT FROM @schema@.prunes WHERE id = NEW.prune_id) THEN
        RAISE EXCEPTION 'there is no such prune' USING ERRCODE = '23000';
    END IF;
    -- The lock keeps the job from being retried before it is gone.
    PERFORM FROM @schema@.jobs
    WHERE id = NEW.job_id AND state IN ('completed', 'failed', 'cancelled') AND state = NEW.state
    FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'only finished jobs are pruned' USING ERRCODE = '23000';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER pruned_jobs_insert_guard BEFORE INSERT ON pruned_jobs
FOR EACH ROW EXECUTE FUNCTION @schema@.pruned_jobs_before_insert();

CREATE OR REPLACE FUNCTION @schema@.is_pruned(job BIGINT) RETURNS BOOLEAN LANGUAGE sql STABLE
AS $$ SELECT EXISTS (SELECT FROM @schema@.pruned_jobs WHERE job_id = job) $$;

-- ---------------------------------------------------------------------------------------------------------------------
-- Restored databases: the epochs of all jobs rise past anything that a worker of the lost time can hold.

CREATE TABLE restores (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    -- Added to every lease_epoch.
    epochs BIGINT NOT NULL CHECK (epochs >= 1),
    -- NULL only inside the transaction that restores.
    finished_at BIGINT
);

CREATE OR REPLACE FUNCTION @schema@.epochs_to_restore() RETURNS BIGINT LANGUAGE sql STABLE
AS $$ SELECT epochs FROM @schema@.restores WHERE finished_at IS NULL $$;

CREATE FUNCTION @schema@.jobs_after_restore() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO @schema@.job_events
        (job_id, at, from_state, to_state, generation, lease_epoch, attempt, worker, actor, reason)
    VALUES (NEW.id, @schema@.now_ms(), NEW.state, NEW.state, NEW.generation, NEW.lease_epoch, NEW.attempt, NEW.worker,
        COALESCE(NEW.change_actor, 'unknown'), 'restored');
    RETURN NULL;
END
$$;

CREATE TRIGGER jobs_restored AFTER UPDATE OF lease_epoch ON jobs
FOR EACH ROW WHEN (NEW.state = OLD.state AND NEW.lease_epoch <> OLD.lease_epoch)
EXECUTE FUNCTION @schema@.jobs_after_restore();

-- ---------------------------------------------------------------------------------------------------------------------
-- Records are never changed

CREATE TRIGGER queue_changes_update_guard BEFORE UPDATE ON queue_changes
FOR EACH ROW EXECUTE FUNCTION @schema@.refuse('history is never changed');
CREATE TRIGGER prunes_update_guard BEFORE UPDATE ON prunes
FOR EACH ROW EXECUTE FUNCTION @schema@.refuse('history is never changed');
CREATE TRIGGER pruned_jobs_update_guard BEFORE UPDATE ON pruned_jobs
FOR EACH ROW EXECUTE FUNCTION @schema@.refuse('history is never changed');
CREATE TRIGGER restores_update_guard BEFORE UPDATE ON restores
FOR EACH ROW WHEN (
    OLD.finished_at IS NOT NULL OR NEW.finished_at IS NULL OR NEW.id <> OLD.id OR NEW.at <> OLD.at
    OR NEW.actor <> OLD.actor OR NEW.epochs <> OLD.epochs
)
EXECUTE FUNCTION @schema@.refuse('history is never changed');

CREATE TRIGGER queue_changes_delete_guard BEFORE DELETE OR TRUNCATE ON queue_changes
EXECUTE FUNCTION @schema@.refuse('history is never deleted by hand');
CREATE TRIGGER prunes_delete_guard BEFORE DELETE OR TRUNCATE ON prunes
EXECUTE FUNCTION @schema@.refuse('history is never deleted by hand');
CREATE TRIGGER pruned_jobs_delete_guard BEFORE DELETE OR TRUNCATE ON pruned_jobs
EXECUTE FUNCTION @schema@.refuse('history is never deleted by hand');
CREATE TRIGGER restores_delete_guard BEFORE DELETE OR TRUNCATE ON restores
EXECUTE FUNCTION @schema@.refuse('history is never deleted by hand');

-- ---------------------------------------------------------------------------------------------------------------------
-- Changes of a waiting job, pauses among them

CREATE FUNCTION @schema@.jobs_before_pause() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.paused_at IS NOT NULL AND NEW.state IN ('pending', 'running') THEN
        RAISE EXCEPTION 'a paused job does not start: set paused_at to NULL to resume it' USING ERRCODE = '23000';
    END IF;
    IF OLD.paused_at IS NULL AND OLD.state NOT IN ('scheduled', 'pending') THEN
        RAISE EXCEPTION 'only a job that waits can be paused' USING ERRCODE = '23000';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER jobs_a_paused BEFORE UPDATE OF state, paused_at ON jobs
FOR EACH ROW WHEN (NEW.paused_at IS NOT NULL) EXECUTE FUNCTION @schema@.jobs_before_pause();

CREATE TRIGGER jobs_paused_insert_guard BEFORE INSERT ON jobs
FOR EACH ROW WHEN (NEW.paused_at IS NOT NULL)
EXECUTE FUNCTION @schema@.refuse('a new job is not paused: insert it, then set paused_at');

CREATE OR REPLACE FUNCTION @schema@.jobs_write_change(old_row @schema@.jobs, new_row @schema@.jobs, number BIGINT)
RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO @schema@.job_events
        (seq, job_id, at, from_state, to_state, generation, lease_epoch, attempt, worker, actor, reason, detail)
    VALUES (
        number, new_row.id, @schema@.now_ms(), old_row.state, old_row.state, new_row.generation, new_row.lease_epoch,
        new_row.attempt, new_row.worker,
        CASE WHEN new_row.change_seq > old_row.change_seq THEN COALESCE(new_row.change_actor, 'unknown') ELSE 'sql' END,
        CASE
            WHEN new_row.cancel_requested_at IS DISTINCT FROM old_row.cancel_requested_at
                AND new_row.cancel_requested_at IS NOT NULL THEN 'cancel requested'
            WHEN new_row.paused_at IS NOT NULL AND old_row.paused_at IS NULL THEN 'paused'
            WHEN new_row.paused_at IS NULL AND old_row.paused_at IS NOT NULL THEN 'resumed'
            ELSE 'changed'
        END,
        json_build_object('priority', new_row.priority, 'queue', new_row.queue, 'run_at', new_row.run_at,
            'max_attempts', new_row.max_attempts, 'cancel_requested_at', new_row.cancel_requested_at,
            'paused_at', new_row.paused_at)::TEXT
    );
END
$$;

CREATE OR REPLACE FUNCTION @schema@.jobs_before_change() RETURNS TRIGGER LANGUAGE plpgsql AS $$
DECLARE
    moved TEXT;
BEGIN
    IF NEW.cancel_requested_at IS NOT NULL THEN
        moved := 'cancelled';
    ELSIF OLD.state = 'pending' AND NEW.paused_at IS NOT NULL AND OLD.paused_at IS NULL THEN
        moved := 'paused';
    ELSIF OLD.state = 'pending' AND NEW.run_at <> OLD.run_at AND NEW.run_at > @schema@.now_ms() THEN
        moved := 'postponed';
    END IF;
    IF moved IS NOT NULL THEN
        PERFORM @schema@.jobs_write_change(OLD, NEW, nextval('@schema@.job_events_seq_seq'));
        IF NEW.change_seq = OLD.change_seq THEN
            NEW.change_seq := OLD.change_seq + 1;
            NEW.change_actor := 'sql';
        END IF;
        NEW.change_reason := moved;
        IF moved = 'cancelled' THEN
            NEW.state := 'cancelled';
            NEW.finished_at := COALESCE(NEW.finished_at, @schema@.now_ms());
        ELSE
            NEW.state := 'scheduled';
        END IF;
    END IF;
    IF NEW.run_at <> OLD.run_at THEN
        NEW.asked_seq := CASE WHEN NEW.state = 'pending' THEN nextval('@schema@.job_events_seq_seq') END;
    END IF;
    RETURN NEW;
END
$$;

DROP TRIGGER jobs_b_change ON jobs;
CREATE TRIGGER jobs_b_change BEFORE UPDATE OF run_at, cancel_requested_at, paused_at ON jobs
FOR EACH ROW WHEN (
    NEW.state = OLD.state AND OLD.state IN ('pending', 'scheduled')
    AND (NEW.run_at <> OLD.run_at OR NEW.cancel_requested_at IS DISTINCT FROM OLD.cancel_requested_at
        OR NEW.paused_at IS DISTINCT FROM OLD.paused_at)
)
EXECUTE FUNCTION @schema@.jobs_before_change();

DROP TRIGGER jobs_changed ON jobs;
CREATE TRIGGER jobs_changed
AFTER UPDATE OF priority, queue, run_at, max_attempts, cancel_requested_at, paused_at ON jobs
FOR EACH ROW WHEN (
    NEW.state = OLD.state AND NEW.generation = OLD.generation
    AND (NEW.priority <> OLD.priority OR NEW.queue <> OLD.queue OR NEW.run_at <> OLD.run_at
        OR NEW.max_attempts <> OLD.max_attempts OR NEW.cancel_requested_at IS DISTINCT FROM OLD.cancel_requested_at
        OR NEW.paused_at IS DISTINCT FROM OLD.paused_at)
)
EXECUTE FUNCTION @schema@.jobs_after_change();

-- A job that plain SQL resumes wakes workers too.
DROP TRIGGER jobs_changed_notify ON jobs;
CREATE TRIGGER jobs_changed_notify
AFTER UPDATE OF state, priority, queue, run_at, cancel_requested_at, dest_key, paused_at ON jobs
FOR EACH STATEMENT WHEN (current_setting('freightliner.quiet', true) IS DISTINCT FROM 'on')
EXECUTE FUNCTION @schema@.notify_workers();

-- ---------------------------------------------------------------------------------------------------------------------
-- Requests of the program that are more than one statement

-- Claims take turns, so that limits hold over all hosts. The lock is taken and given back within this one statement: a
-- process that is stopped between two of its packets holds nothing. A row that somebody else has locked is passed over,
-- never waited for.
--
-- `workers` and `ttls` name the taker and the lease of each job, best job first. `limits` are running jobs by destination
-- registry. `at` replaces the clock, for tests. `known_schema` is the newest that the caller knows: one that is older than
-- the database claims nothing more, so this function keeps its name and parameters. Returns the rows that run now, and a
-- row of NULLs when one was passed over: whoever locked it may give it back without a word.
CREATE FUNCTION @schema@.claim_jobs(
    workers TEXT[], ttls BIGINT[], only_queue TEXT, only_job BIGINT, limit_names TEXT[], limit_counts BIGINT[], at BIGINT,
    known_schema BIGINT
)
RETURNS SETOF @schema@.jobs LANGUAGE plpgsql
SET freightliner.quiet = 'on'
SET plan_cache_mode = 'force_generic_plan'
SET enable_seqscan = 'off'
SET enable_hashjoin = 'off'
SET enable_mergejoin = 'off'
SET enable_bitmapscan = 'off'
SET jit = 'off'
AS $$
#variable_conflict use_column
DECLARE
    room BIGINT := cardinality(workers);
    taken BIGINT := 0;
    step BIGINT := 1;
    found_now BIGINT;
    picks BIGINT[];
    limited BOOLEAN;
    -- Rows that are looked at of each queue and registry: first few, then many, then one of each target.
    windows CONSTANT BIGINT[] := ARRAY[room + 8, 1000, 0];
    crowded BOOLEAN;
    held_back BOOLEAN;
    skipped BOOLEAN;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('freightliner claims'), hashtext('@schema@'));
    IF (SELECT MAX(m.version) FROM @schema@.schema_migrations AS m) > known_schema THEN
        RAISE EXCEPTION 'the database has schema % by now, this program knows %: nothing more is claimed; start the newer freightliner',
            (SELECT MAX(m.version) FROM @schema@.schema_migrations AS m), known_schema USING ERRCODE = 'FL001';
    END IF;
    at := COALESCE(at, @schema@.now_ms());
    limited := cardinality(limit_names) > 0
        OR EXISTS (SELECT FROM @schema@.queues AS q WHERE q.max_running IS NOT NULL);
    LOOP
        WITH RECURSIVE pairs (queue, registry) AS (
            (SELECT j.queue, j.dest_registry FROM @schema@.jobs AS j
            WHERE j.state = 'pending' AND j.dest_key IS NOT NULL AND only_job IS NULL
                AND j.queue >= COALESCE(only_queue, '')
            ORDER BY j.queue, j.dest_registry LIMIT 1)
            UNION ALL
            SELECT n.queue, n.dest_registry FROM pairs AS p, LATERAL (
                SELECT j.queue, j.dest_registry FROM @schema@.jobs AS j
                WHERE j.state = 'pending' AND j.dest_key IS NOT NULL
                    AND (j.queue, j.dest_registry) > (p.queue, p.registry)
                ORDER BY j.queue, j.dest_registry LIMIT 1
            ) AS n
            WHERE p.queue = only_queue OR only_queue IS NULL
        ),
        running AS MATERIALIZED (
            SELECT j.queue, j.dest_registry AS registry, COUNT(*) AS jobs FROM @schema@.jobs AS j
            WHERE j.state = 'running' AND limited GROUP BY j.queue, j.dest_registry
        ),
        open AS MATERIALIZED (
            SELECT p.queue, p.registry,
                q.max_running - (SELECT COALESCE(SUM(r.jobs), 0) FROM running AS r WHERE r.queue = p.queue)
                    AS queue_room,
                (SELECT l.jobs FROM unnest(limit_names, limit_counts) AS l (name, jobs) WHERE l.name = p.registry)
                    - (SELECT COALESCE(SUM(r.jobs), 0) FROM running AS r WHERE r.registry = p.registry)
                    AS registry_room
            FROM (
                SELECT queue, registry FROM pairs
                UNION ALL
                SELECT j.queue, j.dest_registry FROM @schema@.jobs AS j
                WHERE j.id = only_job AND j.state = 'pending' AND j.dest_key IS NOT NULL
            ) AS p
            LEFT JOIN @schema@.queues AS q ON q.name = p.queue
            WHERE q.paused_at IS NULL AND (p.queue = only_queue OR only_queue IS NULL)
        ),
        -- The head of each target: only when the heads of the queues were full of busy ones.
        targets AS (
            SELECT o.queue, o.registry, o.queue_room, o.registry_room, h.dest_key, h.priority, h.id
            FROM open AS o, LATERAL (
                SELECT j.dest_key, j.priority, j.id FROM @schema@.jobs AS j
                WHERE j.state = 'pending' AND j.dest_key IS NOT NULL AND j.queue = o.queue
                    AND j.dest_registry = o.registry
                ORDER BY j.dest_key, j.priority, j.id LIMIT 1
            ) AS h
            WHERE step = 3 AND only_job IS NULL
                AND COALESCE(o.queue_room, 1) > 0 AND COALESCE(o.registry_room, 1) > 0
            UNION ALL
            SELECT t.queue, t.registry, t.queue_room, t.registry_room, h.dest_key, h.priority, h.id
            FROM targets AS t, LATERAL (
                SELECT j.dest_key, j.priority, j.id FROM @schema@.jobs AS j
                WHERE j.state = 'pending' AND j.dest_key IS NOT NULL AND j.queue = t.queue
                    AND j.dest_registry = t.registry AND j.dest_key > t.dest_key
                ORDER BY j.dest_key, j.priority, j.id LIMIT 1
            ) AS h
        ),
        seen AS MATERIALIZED (
            SELECT o.queue, o.registry, o.queue_room, o.registry_room, h.id, h.priority, h.dest_key,
                COUNT(*) OVER (PARTITION BY o.queue, o.registry) AS rows_of_pair
            FROM open AS o, LATERAL (
                SELECT j.id, j.priority, j.dest_key FROM @schema@.jobs AS j
                WHERE j.state = 'pending' AND j.dest_key IS NOT NULL AND j.queue = o.queue
                    AND j.dest_registry = o.registry
                ORDER BY j.priority, j.id LIMIT windows[step]
            ) AS h
            WHERE only_job IS NULL AND step < 3
                AND COALESCE(o.queue_room, 1) > 0 AND COALESCE(o.registry_room, 1) > 0
            UNION ALL
            SELECT o.queue, o.registry, o.queue_room, o.registry_room, j.id, j.priority, j.dest_key, 0
            FROM open AS o, @schema@.jobs AS j
            WHERE j.id = only_job AND COALESCE(o.queue_room, 1) > 0 AND COALESCE(o.registry_room, 1) > 0
            UNION ALL
            SELECT t.queue, t.registry, t.queue_room, t.registry_room, t.id, t.priority, t.dest_key, 0
            FROM targets AS t
        ),
        turns AS (
            SELECT s.*, ROW_NUMBER() OVER (PARTITION BY s.dest_key ORDER BY s.priority, s.id) AS turn FROM seen AS s
            WHERE NOT EXISTS (SELECT FROM @schema@.jobs AS r WHERE r.state = 'running' AND r.dest_key = s.dest_key)
        ),
        locked AS MATERIALIZED (
            SELECT t.id, t.priority, t.queue, t.registry, t.queue_room, t.registry_room
            FROM (
                SELECT * FROM turns WHERE turn = 1 ORDER BY priority, id
            ) AS t, @schema@.jobs AS j
            WHERE j.id = t.id AND j.state = 'pending'
            ORDER BY t.priority, t.id
            LIMIT room - taken
            FOR UPDATE OF j SKIP LOCKED
        ),
        ranked AS (
            SELECT l.id, l.priority, ROW_NUMBER() OVER (PARTITION BY l.queue ORDER BY l.priority, l.id) > l.queue_room
                OR ROW_NUMBER() OVER (PARTITION BY l.registry ORDER BY l.priority, l.id) > l.registry_room AS full
            FROM locked AS l
        ),
        -- Up to the first that a limit holds back: that queue or registry is full then, and the next look leaves it out. Beyond
        -- it a row that does not run would count against the other of the two limits.
        chosen AS (
            SELECT r.id, r.priority, BOOL_OR(r.full) OVER (ORDER BY r.priority, r.id) AS beyond FROM ranked AS r
        )
        SELECT ARRAY(SELECT c.id FROM chosen AS c WHERE c.beyond IS NOT TRUE ORDER BY c.priority, c.id),
            EXISTS (SELECT FROM chosen AS c WHERE c.beyond),
            (SELECT COUNT(*) FROM locked)
                < LEAST(room - taken, (SELECT COUNT(*) FROM turns AS t WHERE t.turn = 1)),
            COALESCE((SELECT MAX(s.rows_of_pair) FROM seen AS s), 0) >= windows[step]
        INTO picks, held_back, skipped, crowded;
        RETURN QUERY UPDATE @schema@.jobs AS j SET
            state = 'running', attempt = j.attempt + 1, lease_epoch = j.lease_epoch + 1, lease_beat = 0,
            worker = workers[taken + p.place], lease_until = at + ttls[taken + p.place], started_at = at,
            cancel_requested_at = NULL, bytes_done = NULL, bytes_total = NULL, blobs_done = NULL, blobs_total = NULL,
            bytes_moved = 0, change_seq = j.change_seq + 1, change_actor = 'freightliner', change_reason = 'claimed'
        FROM unnest(picks) WITH ORDINALITY AS p (id, place) WHERE j.id = p.id
        RETURNING j.*;
        GET DIAGNOSTICS found_now = ROW_COUNT;
        taken := taken + found_now;
        EXIT WHEN taken >= room OR only_job IS NOT NULL;
        -- The first row is never held back, so each look takes one at least, and fills a queue or a registry.
        CONTINUE WHEN held_back AND found_now > 0;
        -- Only when the heads that were looked at were full of busy targets can there be more behind them.
        EXIT WHEN step = 3 OR NOT crowded;
        step := step + 1;
    END LOOP;
    IF skipped AND taken < room THEN
        RETURN QUERY SELECT (NULL::@schema@.jobs).*;
    END IF;
END
$$;

-- Inserts jobs in their order, all or none; `created` is false for one that joins an equal job which waits. Keys that are
-- known have been looked at before; one that appeared meanwhile breaks the unique index, and the caller looks again.
CREATE FUNCTION @schema@.enqueue_jobs(
    sources TEXT[], destinations TEXT[], options TEXT[], queues TEXT[], priorities BIGINT[], max_attempts BIGINT[],
    run_ats BIGINT[], keys TEXT[], source_keys TEXT[], dest_keys TEXT[], dest_registries TEXT[], joins BOOLEAN[],
    actors TEXT[], at BIGINT
)
RETURNS TABLE (place BIGINT, id BIGINT, created BOOLEAN) LANGUAGE plpgsql
SET plan_cache_mode = 'force_generic_plan'
SET enable_seqscan = 'off'
SET jit = 'off'
AS $$
#variable_conflict use_column
DECLARE
    time_now CONSTANT BIGINT := COALESCE(at, @schema@.now_ms());
    wish RECORD;
    found_id BIGINT;
BEGIN
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
                AND j.dest_key = wish.dest_key AND j.source_key = wish.source_key AND j.options_key = wish.options
                AND j.kind = 'copy'
                AND j.asked_seq IS NOT NULL
            ORDER BY j.priority, j.id LIMIT 1 FOR UPDATE SKIP LOCKED;
            IF found_id IS NULL THEN
                SELECT j.id INTO found_id FROM @schema@.jobs AS j
                WHERE j.state = 'scheduled' AND j.dest_key = wish.dest_key AND j.source_key = wish.source_key
                    AND j.options_key = wish.options AND j.queue = wish.queue AND j.kind = 'copy'
                    AND j.asked_seq IS NOT NULL AND j.paused_at IS NULL
                ORDER BY j.id LIMIT 1 FOR UPDATE SKIP LOCKED;
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

-- Removes those of the jobs that are finished, with their history, and keeps a record. Returns how many.
CREATE FUNCTION @schema@.prune_jobs(ids BIGINT[], at BIGINT, who TEXT, why TEXT) RETURNS BIGINT LANGUAGE plpgsql AS $$
DECLARE
    time_now CONSTANT BIGINT := COALESCE(at, @schema@.now_ms());
    prune BIGINT;
    removed BIGINT;
BEGIN
    -- One that somebody has locked is about to be retried.
    ids := ARRAY(SELECT j.id FROM @schema@.jobs AS j
        WHERE j.id = ANY (ids) AND j.state IN ('completed', 'failed', 'cancelled') ORDER BY j.id FOR UPDATE SKIP LOCKED);
    IF cardinality(ids) = 0 THEN
        RETURN 0;
    END IF;
    INSERT INTO @schema@.prunes (at, actor, reason) VALUES (time_now, who, why) RETURNING id INTO prune;
    INSERT INTO @schema@.pruned_jobs (job_id, prune_id, state, finished_at)
    SELECT j.id, prune, j.state, j.finished_at FROM @schema@.jobs AS j WHERE j.id = ANY (ids);
    DELETE FROM @schema@.job_events AS e WHERE e.job_id = ANY (ids);
    DELETE FROM @schema@.transfers AS t WHERE t.job_id = ANY (ids);
    DELETE FROM @schema@.jobs AS j WHERE j.id = ANY (ids);
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END
$$;

-- Raises every epoch, lets what ran wait again unless somebody wanted it cancelled, forgets workers and temporary files of
-- the lost time.
CREATE FUNCTION @schema@.invalidate_restored(
    at BIGINT, who TEXT, more BIGINT, OUT jobs BIGINT, OUT requeued BIGINT, OUT workers BIGINT, OUT temp_files BIGINT
)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    time_now CONSTANT BIGINT := COALESCE(at, @schema@.now_ms());
    restore BIGINT;
BEGIN
    -- Nobody else may write meanwhile.
    LOCK TABLE @schema@.jobs IN SHARE ROW EXCLUSIVE MODE;
    INSERT INTO @schema@.restores (at, actor, epochs) VALUES (time_now, who, more) RETURNING id INTO restore;
    UPDATE @schema@.jobs SET state = CASE WHEN cancel_requested_at IS NULL THEN 'scheduled' ELSE 'cancelled' END,
        finished_at = CASE WHEN cancel_requested_at IS NOT NULL THEN time_now END, worker = NULL, lease_until = NULL,
        lease_epoch = lease_epoch + 1, attempt = GREATEST(attempt - 1, 0), run_at = time_now, change_seq = change_seq + 1, change_actor = who,
        change_reason = 'restored from a backup'
    WHERE state = 'running';
    GET DIAGNOSTICS requeued = ROW_COUNT;
    UPDATE @schema@.jobs SET lease_epoch = lease_epoch + more, change_seq = change_seq + 1, change_actor = who,
        change_reason = 'restored';
    GET DIAGNOSTICS jobs = ROW_COUNT;
    DELETE FROM @schema@.workers;
    GET DIAGNOSTICS workers = ROW_COUNT;
    DELETE FROM @schema@.temp_files;
    GET DIAGNOSTICS temp_files = ROW_COUNT;
    UPDATE @schema@.restores SET finished_at = time_now WHERE id = restore;
END
$$;

-- ---------------------------------------------------------------------------------------------------------------------
-- Views

CREATE OR REPLACE VIEW queue_depth AS
SELECT
    q.name AS queue,
    CAST(EXISTS (SELECT FROM queues WHERE name = q.name AND paused_at IS NOT NULL) AS INTEGER) AS paused,
    COUNT(*) FILTER (WHERE j.state = 'scheduled') AS scheduled,
    COUNT(*) FILTER (WHERE j.state = 'pending') AS pending,
    COUNT(*) FILTER (WHERE j.state = 'running') AS running,
    MAX((@schema@.now_ms() - j.run_at) / 1000.0::FLOAT8) FILTER (WHERE j.state = 'pending') AS oldest_pending_seconds,
    (SELECT max_running FROM queues WHERE name = q.name) AS max_running
FROM (
    SELECT name FROM queues
    UNION
    SELECT queue FROM jobs WHERE state IN ('scheduled', 'pending', 'running')
) AS q
LEFT JOIN jobs AS j ON j.queue = q.name AND j.state IN ('scheduled', 'pending', 'running')
GROUP BY q.name;

CREATE OR REPLACE VIEW stuck_jobs AS
SELECT id, state, source, destination, 'lease ran out, nobody took it over' AS why,
    (@schema@.now_ms() - lease_until) / 1000.0::FLOAT8 AS seconds
FROM jobs
WHERE state = 'running' AND lease_until < @schema@.now_ms() - 60000
UNION ALL
SELECT id, state, source, destination, 'waits for a worker', (@schema@.now_ms() - run_at) / 1000.0::FLOAT8
FROM jobs
WHERE state = 'pending' AND run_at < @schema@.now_ms() - 600000
UNION ALL
SELECT id, state, source, destination, 'its time has come, nobody noticed', (@schema@.now_ms() - run_at) / 1000.0::FLOAT8
FROM jobs
WHERE state = 'scheduled' AND paused_at IS NULL AND run_at < @schema@.now_ms() - 60000;

-- Who removed which finished jobs, and when.
CREATE VIEW audit_prunes AS
SELECT p.id AS prune_id, @schema@.rfc3339(p.at) AS at, p.actor, p.reason,
    j.job_id, j.state, @schema@.rfc3339(j.finished_at) AS finished_at
FROM prunes AS p JOIN pruned_jobs AS j ON j.prune_id = p.id;

-- Who paused, resumed or limited which queue, and when.
CREATE VIEW audit_queues AS
SELECT id, queue, @schema@.rfc3339(at) AS at, actor, CAST(paused_at IS NOT NULL AS INTEGER) AS paused, max_running
FROM queue_changes;

-- ---------------------------------------------------------------------------------------------------------------------
-- What only a retry and only a claim may change

CREATE TRIGGER jobs_generation_guard BEFORE UPDATE OF generation ON jobs
FOR EACH ROW WHEN (
    NEW.generation <> OLD.generation
    AND NOT (OLD.state IN ('completed', 'failed', 'cancelled') AND NEW.state = 'pending')
)
EXECUTE FUNCTION @schema@.refuse('generation rises when a finished job is retried, and only then');

CREATE TRIGGER jobs_worker_guard BEFORE UPDATE OF worker ON jobs
FOR EACH ROW WHEN (NEW.state = OLD.state AND NEW.worker IS DISTINCT FROM OLD.worker)
EXECUTE FUNCTION @schema@.refuse('a lease changes hands by a claim alone');
