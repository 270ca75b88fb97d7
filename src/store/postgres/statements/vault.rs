//! Statements of the vault, on PostgreSQL.

use super::{now, statements};

statements! {
    /// $1 registry, $2 user name, $3 key, $4 sealed, $5 now, $6 actor.
    CREDENTIAL_PUT = concat!("INSERT INTO credentials (registry, username, key_id, sealed, created_at, changed_at, changed_by) \
        SELECT $1, $2, $3, $4, c.now, c.now, $6 FROM (SELECT ", now!("$5"), " AS now) AS c \
        ON CONFLICT (registry) DO UPDATE SET username = excluded.username, key_id = excluded.key_id, sealed = excluded.sealed, \
        changed_at = excluded.changed_at, changed_by = excluded.changed_by, removed_at = NULL RETURNING registry");

    /// One, or all, by registry. $1 registry or NULL.
    CREDENTIALS = "SELECT registry, username, key_id, sealed, created_at, changed_at, changed_by FROM credentials \
        WHERE removed_at IS NULL AND ($1::TEXT IS NULL OR registry = $1) ORDER BY registry";

    /// $1 registry, $2 now, $3 actor.
    CREDENTIAL_REMOVE = concat!("UPDATE credentials SET sealed = '', removed_at = c.now, changed_at = c.now, changed_by = $3 \
        FROM (SELECT ", now!("$2"), " AS now) AS c WHERE registry = $1 AND removed_at IS NULL RETURNING registry");

    /// Under another key, if it is as it was seen. $1 registry, $2 sealed before, $3 key, $4 sealed, $5 now, $6 actor.
    CREDENTIAL_RESEAL = concat!("UPDATE credentials SET key_id = $3, sealed = $4, changed_at = ", now!("$5"), ", changed_by = $6 \
        WHERE registry = $1 AND sealed = $2 AND removed_at IS NULL RETURNING registry");
}
