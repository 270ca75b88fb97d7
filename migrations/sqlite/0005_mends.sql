-- A paused job that plain SQL cancelled can be retried by plain SQL. (PostgreSQL finds equal jobs by another index from here
-- on, which SQLite does not need.)

DROP TRIGGER jobs_paused_guard;
CREATE TRIGGER jobs_paused_guard BEFORE UPDATE OF state, paused_at ON jobs
BEGIN
    SELECT RAISE(ABORT, 'a paused job does not start: set paused_at to NULL to resume it')
    WHERE NEW.paused_at IS NOT NULL AND OLD.paused_at IS NOT NULL
        AND (NEW.state = 'running' OR NEW.state = 'pending' AND OLD.finished_at IS NULL);
    SELECT RAISE(ABORT, 'only a job that waits can be paused')
    WHERE NEW.paused_at IS NOT NULL AND OLD.paused_at IS NULL AND OLD.state NOT IN ('scheduled', 'pending');
END;

DROP TRIGGER jobs_reopened;
CREATE TRIGGER jobs_reopened AFTER UPDATE OF state ON jobs
WHEN (OLD.state = 'completed' OR OLD.state = 'failed' OR OLD.state = 'cancelled')
    AND NEW.state = 'pending' AND NEW.generation = OLD.generation
BEGIN
    UPDATE jobs SET generation = generation + 1, attempt = 0, crash_count = 0, started_at = NULL, finished_at = NULL,
        cancel_requested_at = NULL, report = NULL, bytes_done = NULL, bytes_total = NULL, blobs_done = NULL,
        blobs_total = NULL, bytes_moved = 0, failure_stage = NULL, failure_class = NULL, failure_message = NULL,
        failure_at = NULL, paused_at = NULL,
        run_at = CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)
    WHERE id = NEW.id;
END;
