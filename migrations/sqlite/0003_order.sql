-- The order of copies to one target, also when the newest result is taken back or removed.
--
-- A job is too old for its target when one that was asked for later (asked_seq, then id) has written it. Rows in `completed`
-- say so; but an operator's retry takes a row out of that state, and retention removes it, while what the job wrote stays
-- where it is. So the newest result of such rows is kept here, as long as somebody waits who could be older. Ordinary jobs
-- never touch this table.

CREATE TABLE written_targets (
    dest_key TEXT NOT NULL PRIMARY KEY,
    dest_registry TEXT,
    -- Of the newest job that wrote this target and is not `completed` any more, as they were when it wrote.
    asked_seq INTEGER NOT NULL,
    job_id INTEGER NOT NULL
) STRICT;

-- Anybody may say what is true of a row that is just about to leave `completed`; what nobody needs is passed over.
CREATE TRIGGER written_targets_insert_guard BEFORE INSERT ON written_targets
BEGIN
    SELECT RAISE(ABORT, 'what was written to a target is recorded by the database alone')
    WHERE NOT EXISTS (
        SELECT 1 FROM jobs WHERE id = NEW.job_id AND state = 'completed' AND dest_key = NEW.dest_key
            AND dest_registry IS NEW.dest_registry AND COALESCE(asked_seq, 0) = NEW.asked_seq
    );
    SELECT RAISE(IGNORE)
    WHERE EXISTS (SELECT 1 FROM written_targets
            WHERE dest_key = NEW.dest_key AND (asked_seq, job_id) >= (NEW.asked_seq, NEW.job_id))
        OR EXISTS (SELECT 1 FROM jobs WHERE state = 'completed' AND dest_key = NEW.dest_key
            AND (asked_seq, id) > (NEW.asked_seq, NEW.job_id))
        -- Nobody waits: neither for this target, nor for one that is not known yet. A job whose time was asked for and has not
        -- come will be newer. Rows that intake has not seen are asked for after the first of them was inserted.
        OR NOT (EXISTS (SELECT 1 FROM jobs WHERE state = 'pending' AND dest_key = NEW.dest_key AND generation = 1)
            OR EXISTS (SELECT 1 FROM jobs WHERE state = 'running' AND dest_key = NEW.dest_key AND generation = 1)
            OR EXISTS (SELECT 1 FROM jobs WHERE state = 'scheduled' AND asked_seq IS NOT NULL
                AND dest_key = NEW.dest_key AND generation = 1)
            OR EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_retrying_target
                WHERE state = 'scheduled' AND asked_seq IS NOT NULL AND dest_key IS NULL)
            OR EXISTS (SELECT 1 FROM job_events WHERE seq < NEW.asked_seq
                AND job_id = (SELECT id FROM jobs INDEXED BY jobs_intake
                    WHERE dest_key IS NULL AND state = 'pending' ORDER BY id LIMIT 1)));
END;

CREATE TRIGGER written_targets_update_guard BEFORE UPDATE ON written_targets
BEGIN
    SELECT RAISE(ABORT, 'what was written to a target is recorded by the database alone')
    WHERE NEW.dest_key <> OLD.dest_key OR (NEW.asked_seq, NEW.job_id) <= (OLD.asked_seq, OLD.job_id)
        OR NOT EXISTS (
            SELECT 1 FROM jobs WHERE id = NEW.job_id AND state = 'completed' AND dest_key = NEW.dest_key
                AND dest_registry IS NEW.dest_registry AND COALESCE(asked_seq, 0) = NEW.asked_seq
        );
END;

-- Who deletes gets rid of what nobody needs any more; the rest stays.
CREATE TRIGGER written_targets_delete_guard BEFORE DELETE ON written_targets
BEGIN
    SELECT RAISE(IGNORE)
    WHERE EXISTS (SELECT 1 FROM jobs WHERE state = 'pending' AND dest_key = OLD.dest_key AND generation = 1)
        OR EXISTS (SELECT 1 FROM jobs WHERE state = 'running' AND dest_key = OLD.dest_key AND generation = 1)
        OR EXISTS (SELECT 1 FROM jobs WHERE state = 'scheduled' AND asked_seq IS NOT NULL
            AND dest_key = OLD.dest_key AND generation = 1)
        OR EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_retrying_target
                WHERE state = 'scheduled' AND asked_seq IS NOT NULL AND dest_key IS NULL)
        OR EXISTS (SELECT 1 FROM job_events WHERE seq < OLD.asked_seq
            AND job_id = (SELECT id FROM jobs INDEXED BY jobs_intake
                WHERE dest_key IS NULL AND state = 'pending' ORDER BY id LIMIT 1));
END;

-- As before, and one that was completed leaves its mark. In this trigger, because each trigger more would be run by every
-- change of a state.
DROP TRIGGER jobs_pruned_guard;
CREATE TRIGGER jobs_pruned_guard BEFORE UPDATE OF state ON jobs
WHEN OLD.state IN ('completed', 'failed', 'cancelled') AND NEW.state <> OLD.state
BEGIN
    SELECT RAISE(ABORT, 'this job is being pruned') WHERE EXISTS (SELECT 1 FROM pruned_jobs WHERE job_id = OLD.id);
    INSERT INTO written_targets (dest_key, dest_registry, asked_seq, job_id)
    SELECT OLD.dest_key, OLD.dest_registry, COALESCE(OLD.asked_seq, 0), OLD.id
    WHERE OLD.state = 'completed' AND OLD.dest_key IS NOT NULL
    ON CONFLICT (dest_key) DO UPDATE SET dest_registry = excluded.dest_registry, asked_seq = excluded.asked_seq,
        job_id = excluded.job_id;
END;

CREATE TRIGGER jobs_pruned BEFORE DELETE ON jobs WHEN OLD.state = 'completed' AND OLD.dest_key IS NOT NULL
BEGIN
    INSERT INTO written_targets (dest_key, dest_registry, asked_seq, job_id)
    VALUES (OLD.dest_key, OLD.dest_registry, COALESCE(OLD.asked_seq, 0), OLD.id)
    ON CONFLICT (dest_key) DO UPDATE SET dest_registry = excluded.dest_registry, asked_seq = excluded.asked_seq,
        job_id = excluded.job_id;
END;

-- Retention tidies up here too, a bounded number at a time.
CREATE TRIGGER prunes_inserted AFTER INSERT ON prunes
BEGIN
    DELETE FROM written_targets WHERE dest_key IN (SELECT dest_key FROM written_targets LIMIT 1000);
END;
