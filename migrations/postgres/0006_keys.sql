-- A key whose job is being removed at this moment stays known. An insert that found the job still there went on and relied on the
-- unique index of the jobs, which forgets the key together with the job: what the key stands for was done twice. Now the job that
-- bears the key is held: it cannot be removed before the index has spoken; and when it has been removed meanwhile, the key has
-- the last word.

-- True for a key that a job bears, which is not removed then before the end of the transaction. With the rights of the owner:
-- holding a row takes the right to change it, which not everybody has who may insert.
CREATE FUNCTION @schema@.is_key_of_a_job(known TEXT) RETURNS BOOLEAN LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM @schema@.jobs WHERE idempotency_key = known FOR KEY SHARE;
    RETURN FOUND;
END
$$;

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
        IF NOT FOUND AND NOT @schema@.is_key_of_a_job(NEW.idempotency_key) THEN
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
