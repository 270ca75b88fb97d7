//! Statements of the API's keys and calls, on SQLite.

use super::statements;

statements! {
    /// ?1 id, ?2 name, ?3 role, ?4 hash, ?5 destinations or NULL, ?6 now, ?7 actor, ?8 end or NULL.
    API_KEY_ADD = "INSERT INTO api_keys (id, name, role, hash, destinations, created_at, created_by, expires_at) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";

    /// One key, or all, oldest first. ?1 id or NULL.
    API_KEYS = "SELECT id, name, role, hash, destinations, created_at, created_by, expires_at, revoked_at, revoked_by FROM api_keys \
        WHERE ?1 IS NULL OR id = ?1 ORDER BY created_at, id";

    /// ?1 id or name, ?2 now, ?3 actor.
    API_KEY_REVOKE = "UPDATE api_keys SET revoked_at = ?2, revoked_by = ?3 WHERE (id = ?1 OR name = ?1) AND revoked_at IS NULL";

    /// ?1 now, ?2 request, ?3 key or NULL, ?4 name, ?5 role, ?6 address, ?7 method, ?8 path, ?9 outcome.
    API_CALL_ADD = "INSERT INTO api_calls (at, request_id, key_id, key_name, role, address, method, path, outcome) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

    /// Where calls before a time end, within a piece. ?1 before, ?2 limit.
    API_CALLS_LAST = "SELECT MAX(seq) AS seq FROM (SELECT seq FROM (SELECT seq, at FROM api_calls ORDER BY seq LIMIT ?2) WHERE at < ?1)";

    /// That they are removed is written down first. ?1 now, ?2 actor, ?3 before, ?4 last seq.
    API_CALLS_PRUNE_NOTE = "INSERT INTO api_call_prunes (at, actor, before, last_seq) VALUES (?1, ?2, ?3, ?4)";

    /// ?1 last seq.
    API_CALLS_PRUNE = "DELETE FROM api_calls WHERE seq <= ?1";

    /// The history of all jobs. ?1 after this seq, ?2 limit.
    EVENTS_AFTER = "SELECT seq, job_id, at, from_state, to_state, lease_epoch, attempt, worker, actor, reason, detail \
        FROM job_events WHERE seq > ?1 ORDER BY seq LIMIT ?2";
}
