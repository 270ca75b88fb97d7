-- The vault: credentials of registries, sealed under a key that is not in the database.

CREATE TABLE credentials (
    -- HOST[:PORT], as in references.
    registry TEXT PRIMARY KEY CHECK (length(registry) BETWEEN 1 AND 255),
    username TEXT NOT NULL CHECK (length(username) BETWEEN 1 AND 1024),
    -- The key that opens it.
    key_id TEXT NOT NULL,
    -- Base64; bound to registry, user name and key. Empty once it was removed.
    sealed TEXT NOT NULL CHECK (length(sealed) <= 100000),
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    changed_by TEXT NOT NULL,
    removed_at INTEGER,
    CHECK ((removed_at IS NULL) = (sealed <> ''))
) STRICT;

-- What became of them.
CREATE TABLE credential_changes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    registry TEXT NOT NULL,
    username TEXT NOT NULL,
    key_id TEXT NOT NULL,
    change TEXT NOT NULL CHECK (change IN ('stored', 'resealed', 'removed')),
    actor TEXT NOT NULL
) STRICT;

CREATE TRIGGER credentials_insert_guard BEFORE INSERT ON credentials
BEGIN
    SELECT RAISE(ABORT, 'there is a credential for this registry: update it')
    WHERE EXISTS (SELECT 1 FROM credentials WHERE registry = NEW.registry);
END;
CREATE TRIGGER credentials_inserted AFTER INSERT ON credentials
BEGIN
    INSERT INTO credential_changes (at, registry, username, key_id, change, actor)
    VALUES (NEW.changed_at, NEW.registry, NEW.username, NEW.key_id, 'stored', NEW.changed_by);
END;
CREATE TRIGGER credentials_identity_guard BEFORE UPDATE ON credentials
WHEN NEW.registry IS NOT OLD.registry OR NEW.created_at IS NOT OLD.created_at
BEGIN
    SELECT RAISE(ABORT, 'a credential belongs to its registry');
END;
CREATE TRIGGER credentials_updated AFTER UPDATE ON credentials
BEGIN
    INSERT INTO credential_changes (at, registry, username, key_id, change, actor)
    VALUES (
        NEW.changed_at, NEW.registry, NEW.username, NEW.key_id,
        CASE
            WHEN NEW.removed_at IS NOT NULL THEN 'removed'
            WHEN NEW.key_id <> OLD.key_id AND NEW.username = OLD.username AND OLD.removed_at IS NULL THEN 'resealed'
            ELSE 'stored'
        END,
        NEW.changed_by
    );
END;
CREATE TRIGGER credentials_delete_guard BEFORE DELETE ON credentials
BEGIN
    SELECT RAISE(ABORT, 'credentials are not deleted, their history names them: use freightliner logout');
END;
CREATE TRIGGER credential_changes_insert_guard BEFORE INSERT ON credential_changes
BEGIN
    SELECT RAISE(ABORT, 'history is never replaced') WHERE EXISTS (SELECT 1 FROM credential_changes WHERE seq = NEW.seq);
END;
CREATE TRIGGER credential_changes_update_guard BEFORE UPDATE ON credential_changes
BEGIN
    SELECT RAISE(ABORT, 'history is never changed');
END;
CREATE TRIGGER credential_changes_delete_guard BEFORE DELETE ON credential_changes
BEGIN
    SELECT RAISE(ABORT, 'history is never deleted by hand');
END;

-- What became of the credentials of registries. Names and columns are stable; times are RFC 3339 UTC.
CREATE VIEW audit_credentials AS
SELECT
    seq, strftime('%Y-%m-%dT%H:%M:%fZ', at / 1000.0, 'unixepoch') AS at, registry, username, key_id, change, actor
FROM credential_changes;
