//! Statements of the vault, on SQLite.

use super::statements;

statements! {
    /// ?1 registry, ?2 user name, ?3 key, ?4 sealed, ?5 now, ?6 actor.
    CREDENTIAL_PUT = "UPDATE credentials SET username = ?2, key_id = ?3, sealed = ?4, changed_at = ?5, changed_by = ?6, \
        removed_at = NULL WHERE registry = ?1";

    /// ?1 registry, ?2 user name, ?3 key, ?4 sealed, ?5 now, ?6 actor.
    CREDENTIAL_ADD = "INSERT INTO credentials (registry, username, key_id, sealed, created_at, changed_at, changed_by) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6)";

    /// One, or all, by registry. ?1 registry or NULL.
    CREDENTIALS = "SELECT registry, username, key_id, sealed, created_at, changed_at, changed_by FROM credentials \
        WHERE removed_at IS NULL AND (?1 IS NULL OR registry = ?1) ORDER BY registry";

    /// ?1 registry, ?2 now, ?3 actor.
    CREDENTIAL_REMOVE = "UPDATE credentials SET sealed = '', removed_at = ?2, changed_at = ?2, changed_by = ?3 \
        WHERE registry = ?1 AND removed_at IS NULL";

    /// Under another key, if it is as it was seen. ?1 registry, ?2 sealed before, ?3 key, ?4 sealed, ?5 now, ?6 actor.
    CREDENTIAL_RESEAL = "UPDATE credentials SET key_id = ?3, sealed = ?4, changed_at = ?5, changed_by = ?6 \
        WHERE registry = ?1 AND sealed = ?2 AND removed_at IS NULL";
}
