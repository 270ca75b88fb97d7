//! Statements of batches on SQLite.

use super::{batch_columns, statements};

statements! {
    /// A batch, unless it is there. ?1 id, ?2 kind, ?3 name, ?4 source, ?5 destination, ?6 rules, ?7 schedule, ?8 now, ?9 actor.
    BATCH_ADD = "INSERT INTO batches (id, kind, name, source, destination, rules, schedule_id, created_at, created_by) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (id) DO NOTHING";

    /// The job that lists a batch. ?1 batch, ?2 state, ?3 queue, ?4 priority, ?5 max attempts, ?6 when it starts, ?7 now,
    /// ?8 key, ?9 target, ?10 actor.
    BATCH_EXPAND = "INSERT INTO jobs (kind, source, destination, state, queue, priority, max_attempts, run_at, created_at, \
            batch_id, schedule_id, idempotency_key, source_key, dest_key, dest_registry, options_key, change_seq, change_actor, \
            change_reason) \
        SELECT 'expand', source, destination, ?2, ?3, ?4, ?5, ?6, ?7, id, schedule_id, ?8, ?9, ?9, 'batch', '{}', 1, ?10, \
            'enqueued' FROM batches WHERE id = ?1 RETURNING id";

    /// The job that lists a batch that is there. ?1 batch.
    BATCH_JOB = "SELECT id FROM jobs WHERE batch_id = ?1 AND kind = 'expand' ORDER BY id LIMIT 1";

    /// Batches, newest first. ?1 one or NULL for all, ?2 below this id, ?3 limit.
    BATCHES = concat!("SELECT ", batch_columns!(), " FROM (SELECT * FROM batches WHERE hidden_at IS NULL AND (?1 IS NULL OR id = ?1) \
            AND (?2 IS NULL OR id < ?2) ORDER BY id DESC LIMIT ?3) AS b LEFT JOIN jobs AS j ON j.batch_id = b.id \
        GROUP BY b.id ORDER BY b.id DESC");

    /// What is to be listed. ?1 batch.
    BATCH_RULES = "SELECT rules FROM batches WHERE id = ?1";

    /// What is to be listed is said, once. ?1 job, ?2 epoch, ?3 rules.
    BATCH_SAY = "UPDATE batches SET rules = COALESCE(rules, ?3) WHERE id = (SELECT j.batch_id FROM jobs AS j \
        WHERE j.id = ?1 AND j.lease_epoch = ?2 AND j.state = 'running')";

    /// The listing may go on. ?1 job, ?2 epoch, ?3 batch.
    BATCH_HELD = "SELECT j.id FROM jobs AS j JOIN batches AS b ON b.id = j.batch_id WHERE j.id = ?1 AND j.lease_epoch = ?2 \
        AND j.state = 'running' AND b.id = ?3 AND b.cancelled_at IS NULL";

    /// Copies of a batch, as the job that lists. One row of many: ?1 job that lists, ?2 key, ?3 source, ?4 destination,
    /// ?5 options, ?6 source key, ?7 target, ?8 registry, ?9 now, ?10 actor.
    BATCH_TAKE = "WITH v (lister, key, source, destination, options, source_key, dest_key, dest_registry, now, actor) \
        AS (VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)) \
        INSERT INTO jobs (source, destination, options, state, queue, priority, max_attempts, run_at, created_at, batch_id, \
            schedule_id, idempotency_key, source_key, dest_key, dest_registry, options_key, change_seq, change_actor, change_reason) \
        SELECT v.source, v.destination, v.options, 'pending', l.queue, l.priority, l.max_attempts, v.now, v.now, l.batch_id, \
            l.schedule_id, v.key, v.source_key, v.dest_key, v.dest_registry, v.options, 1, v.actor, 'listed' \
        FROM v JOIN jobs AS l ON l.id = v.lister \
        WHERE NOT EXISTS (SELECT 1 FROM idempotency_keys AS k WHERE k.key = v.key) RETURNING id";

    /// What is copied under these keys. ?1 JSON array of keys.
    BATCH_TAKEN = "SELECT idempotency_key AS key, source_key FROM jobs \
        WHERE idempotency_key IN (SELECT value FROM json_each(?1))";

    /// What became of a repository. ?1 batch, ?2 rule, ?3 repository, ?4 now, ?5 tags, ?6 kept, ?7 class, ?8 message.
    BATCH_LISTED = "INSERT INTO batch_repositories (batch_id, rule, repository, listed_at, tags, kept, failure_class, \
            failure_message) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
        ON CONFLICT (batch_id, rule, repository) DO UPDATE SET listed_at = excluded.listed_at, tags = excluded.tags, \
            kept = excluded.kept, failure_class = excluded.failure_class, failure_message = excluded.failure_message";

    /// The repositories of a batch. ?1 batch.
    BATCH_REPOSITORIES = "SELECT rule, repository, tags, kept, failure_class, failure_message FROM batch_repositories \
        WHERE batch_id = ?1 ORDER BY rule, repository";

    /// Jobs of a batch that may be claimed. ?1 batch, ?2 limit.
    BATCH_WAITING = "SELECT j.id FROM jobs AS j WHERE j.batch_id = ?1 AND j.state = 'pending' \
        AND NOT EXISTS (SELECT 1 FROM jobs AS r WHERE r.state = 'running' AND r.dest_key = j.dest_key) \
        AND NOT EXISTS (SELECT 1 FROM queues AS q WHERE q.name = j.queue AND q.paused_at IS NOT NULL) \
        ORDER BY j.priority, j.id LIMIT ?2";

    /// Something of a batch is not finished. ?1 batch.
    BATCH_BUSY = "SELECT EXISTS (SELECT 1 FROM jobs WHERE batch_id = ?1 AND state IN ('scheduled', 'pending', 'running')) AS busy";

    /// Nothing more is made for a batch. ?1 id, ?2 now.
    BATCH_STOP = "UPDATE batches SET cancelled_at = ?2 WHERE id = ?1 AND cancelled_at IS NULL RETURNING id";

    /// It is in no list any more. ?1 id, ?2 now.
    BATCH_HIDE = "UPDATE batches SET hidden_at = ?2 WHERE id = ?1 AND hidden_at IS NULL RETURNING id";

    /// It goes on. ?1 id.
    BATCH_GO_ON = "UPDATE batches SET cancelled_at = NULL WHERE id = ?1 AND cancelled_at IS NOT NULL RETURNING id";
}
