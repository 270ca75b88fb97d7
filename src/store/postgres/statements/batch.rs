//! Statements of batches on PostgreSQL; see the module above.

use super::{batch_columns, now, statements};

statements! {
    /// A batch and the job that lists it, unless it is there. $1 id, $2 kind, $3 name, $4 source, $5 destination, $6 rules,
    /// $7 now, $8 actor, $9 queue, $10 priority, $11 max attempts, $12 when it starts or NULL, $13 key, $14 target.
    BATCH_ADD = concat!("WITH clock AS MATERIALIZED (SELECT ", now!("$7"), " AS now), \
        made AS (INSERT INTO batches (id, kind, name, source, destination, rules, created_at, created_by) \
            SELECT $1, $2, $3, $4, $5, $6, clock.now, $8 FROM clock ON CONFLICT (id) DO NOTHING \
            RETURNING id, source, destination), \
        job AS (INSERT INTO jobs (kind, source, destination, state, queue, priority, max_attempts, run_at, created_at, batch_id, \
                idempotency_key, source_key, dest_key, dest_registry, options_key, change_seq, change_actor, change_reason) \
            SELECT 'expand', source, destination, CASE WHEN $12::BIGINT > clock.now THEN 'scheduled' ELSE 'pending' END, \
                $9, $10, $11, COALESCE($12, clock.now), clock.now, id, $13, $14, $14, 'batch', '{}', 1, $8, 'enqueued' \
            FROM made, clock RETURNING id) SELECT id FROM job");

    /// The job that lists a batch that is there. $1 batch.
    BATCH_JOB = "SELECT id FROM jobs WHERE batch_id = $1 AND kind = 'expand' ORDER BY id LIMIT 1";

    /// Batches, newest first. $1 one or NULL for all, $2 below this id, $3 limit.
    BATCHES = concat!("SELECT ", batch_columns!(), " FROM (SELECT * FROM batches WHERE hidden_at IS NULL AND ($1::TEXT IS NULL OR id = $1) \
            AND ($2::TEXT IS NULL OR id < $2) ORDER BY id DESC LIMIT $3::BIGINT) AS b LEFT JOIN jobs AS j ON j.batch_id = b.id \
        GROUP BY b.id, b.kind, b.name, b.source, b.destination, b.schedule_id, b.created_by, b.created_at, b.cancelled_at \
        ORDER BY b.id DESC");

    /// What is to be listed. $1 batch.
    BATCH_RULES = "SELECT rules FROM batches WHERE id = $1";

    /// What is to be listed is said, once. $1 job, $2 epoch, $3 rules.
    BATCH_SAY = "UPDATE batches SET rules = COALESCE(rules, $3) WHERE id = (SELECT j.batch_id FROM jobs AS j \
        WHERE j.id = $1 AND j.lease_epoch = $2 AND j.state = 'running') RETURNING id";

    /// Copies of a batch, as the job that lists; and whether it may go on. $1 job that lists, $2 epoch, $3 batch, $4 now,
    /// $5 actor. Of copies: $6 keys, $7 sources, $8 destinations, $9 options, $10 source keys, $11 targets, $12 registries.
    BATCH_TAKE = concat!("WITH clock AS MATERIALIZED (SELECT ", now!("$4"), " AS now), \
        held AS MATERIALIZED (SELECT j.queue, j.priority, j.max_attempts, j.batch_id, j.schedule_id FROM jobs AS j \
            JOIN batches AS b ON b.id = j.batch_id WHERE j.id = $1 AND j.lease_epoch = $2 AND j.state = 'running' \
            AND b.id = $3 AND b.cancelled_at IS NULL FOR SHARE OF j, b), \
        made AS (INSERT INTO jobs (source, destination, options, state, queue, priority, max_attempts, run_at, created_at, \
                batch_id, schedule_id, idempotency_key, source_key, dest_key, dest_registry, options_key, change_seq, \
                change_actor, change_reason) \
            SELECT w.source, w.destination, w.options, 'pending', h.queue, h.priority, h.max_attempts, clock.now, clock.now, \
                h.batch_id, h.schedule_id, w.key, w.source_key, w.dest_key, w.dest_registry, w.options, 1, $5, 'listed' \
            FROM held AS h, clock, unnest($6::TEXT[], $7::TEXT[], $8::TEXT[], $9::TEXT[], $10::TEXT[], $11::TEXT[], \
                $12::TEXT[]) WITH ORDINALITY AS w (key, source, destination, options, source_key, dest_key, dest_registry, place) \
            WHERE NOT EXISTS (SELECT FROM idempotency_keys AS k WHERE k.key = w.key) ORDER BY w.place RETURNING id) \
        SELECT (SELECT COUNT(*) FROM held) AS held, (SELECT COUNT(*) FROM made) AS made");

    /// What is copied under these keys. $1 keys.
    BATCH_TAKEN = "SELECT idempotency_key AS key, source_key FROM jobs WHERE idempotency_key = ANY($1::TEXT[])";

    /// What became of a repository, unless the listing may not go on. $1 job that lists, $2 epoch, $3 batch, $4 rule,
    /// $5 repository, $6 now, $7 tags, $8 kept, $9 class, $10 message.
    BATCH_LISTED = concat!("INSERT INTO batch_repositories (batch_id, rule, repository, listed_at, tags, kept, failure_class, \
            failure_message) SELECT b.id, $4, $5, ", now!("$6"), ", $7, $8, $9, $10 FROM jobs AS j \
            JOIN batches AS b ON b.id = j.batch_id WHERE j.id = $1 AND j.lease_epoch = $2 AND j.state = 'running' \
            AND b.id = $3 AND b.cancelled_at IS NULL FOR SHARE OF j, b \
        ON CONFLICT (batch_id, rule, repository) DO UPDATE SET listed_at = excluded.listed_at, tags = excluded.tags, \
            kept = excluded.kept, failure_class = excluded.failure_class, failure_message = excluded.failure_message \
        RETURNING rule");

    /// The repositories of a batch. $1 batch.
    BATCH_REPOSITORIES = "SELECT rule, repository, tags, kept, failure_class, failure_message FROM batch_repositories \
        WHERE batch_id = $1 ORDER BY rule, repository";

    /// Jobs of a batch that may be claimed. $1 batch, $2 limit.
    BATCH_WAITING = "SELECT j.id FROM jobs AS j WHERE j.batch_id = $1 AND j.state = 'pending' \
        AND NOT EXISTS (SELECT FROM jobs AS r WHERE r.state = 'running' AND r.dest_key = j.dest_key) \
        AND NOT EXISTS (SELECT FROM queues AS q WHERE q.name = j.queue AND q.paused_at IS NOT NULL) \
        ORDER BY j.priority, j.id LIMIT $2::BIGINT";

    /// Something of a batch is not finished. $1 batch.
    BATCH_BUSY = "SELECT EXISTS (SELECT FROM jobs WHERE batch_id = $1 AND state IN ('scheduled', 'pending', 'running')) AS busy";

    /// Nothing more is made for a batch. $1 id, $2 now.
    BATCH_STOP = concat!("UPDATE batches SET cancelled_at = ", now!("$2"), " WHERE id = $1 AND cancelled_at IS NULL RETURNING id");

    /// It is in no list any more. $1 id, $2 now.
    BATCH_HIDE = concat!("UPDATE batches SET hidden_at = ", now!("$2"), " WHERE id = $1 AND hidden_at IS NULL RETURNING id");

    /// It goes on. $1 id.
    BATCH_GO_ON = "UPDATE batches SET cancelled_at = NULL WHERE id = $1 AND cancelled_at IS NOT NULL RETURNING id";
}
