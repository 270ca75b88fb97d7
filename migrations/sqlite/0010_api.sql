-- The API: who may call it, and who called it.

-- Keys. The key itself is nowhere: only its SHA-256 in hex digits, which is enough because a key has 256 random bits.
CREATE TABLE api_keys (
    id TEXT PRIMARY KEY CHECK (length(id) BETWEEN 8 AND 64),
    name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 128),
    role TEXT NOT NULL CHECK (role IN ('read', 'enqueue', 'operate', 'admin')),
    hash TEXT NOT NULL CHECK (length(hash) = 64),
    -- A JSON array of destinations HOST[/PATH] that it may write to; NULL: all.
    destinations TEXT CHECK (destinations IS NULL OR (json_valid(destinations) AND json_type(destinations) = 'array')),
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER,
    revoked_by TEXT
) STRICT;
CREATE INDEX api_keys_by_name ON api_keys (name);

CREATE TRIGGER api_keys_identity_guard BEFORE UPDATE ON api_keys
WHEN NEW.id IS NOT OLD.id OR NEW.name IS NOT OLD.name OR NEW.role IS NOT OLD.role OR NEW.hash IS NOT OLD.hash
    OR NEW.destinations IS NOT OLD.destinations OR NEW.created_at IS NOT OLD.created_at
    OR NEW.created_by IS NOT OLD.created_by OR NEW.expires_at IS NOT OLD.expires_at OR OLD.revoked_at IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'an API key is never changed: add another one and revoke this one');
END;
CREATE TRIGGER api_keys_insert_guard BEFORE INSERT ON api_keys
BEGIN
    SELECT RAISE(ABORT, 'an API key with this id exists') WHERE EXISTS (SELECT 1 FROM api_keys WHERE id = NEW.id);
END;
CREATE TRIGGER api_keys_delete_guard BEFORE DELETE ON api_keys
BEGIN
    SELECT RAISE(ABORT, 'API keys are not deleted, the history names them: revoke them');
END;

-- Calls that change something: written before they have any effect.
CREATE TABLE api_calls (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    -- NULL: the key of the configuration, or none where none is asked for.
    key_id TEXT,
    key_name TEXT NOT NULL,
    role TEXT NOT NULL,
    address TEXT NOT NULL,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('allowed', 'refused'))
) STRICT;
CREATE INDEX api_calls_by_request ON api_calls (request_id);

-- What retention has removed of them.
CREATE TABLE api_call_prunes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    before INTEGER NOT NULL,
    last_seq INTEGER NOT NULL
) STRICT;
CREATE INDEX api_call_prunes_by_seq ON api_call_prunes (last_seq);

CREATE TRIGGER api_calls_insert_guard BEFORE INSERT ON api_calls
BEGIN
    SELECT RAISE(ABORT, 'history is never replaced') WHERE EXISTS (SELECT 1 FROM api_calls WHERE seq = NEW.seq);
END;
CREATE TRIGGER api_calls_update_guard BEFORE UPDATE ON api_calls
BEGIN
    SELECT RAISE(ABORT, 'history is never changed');
END;
CREATE TRIGGER api_calls_delete_guard BEFORE DELETE ON api_calls
WHEN NOT EXISTS (SELECT 1 FROM api_call_prunes WHERE last_seq >= OLD.seq)
BEGIN
    SELECT RAISE(ABORT, 'history is never deleted by hand');
END;
CREATE TRIGGER api_call_prunes_insert_guard BEFORE INSERT ON api_call_prunes
BEGIN
    SELECT RAISE(ABORT, 'history is never replaced') WHERE EXISTS (SELECT 1 FROM api_call_prunes WHERE id = NEW.id);
END;
CREATE TRIGGER api_call_prunes_update_guard BEFORE UPDATE ON api_call_prunes
BEGIN
    SELECT RAISE(ABORT, 'history is never changed');
END;
CREATE TRIGGER api_call_prunes_delete_guard BEFORE DELETE ON api_call_prunes
BEGIN
    SELECT RAISE(ABORT, 'history is never deleted by hand');
END;

-- Who called the API to change something. Names and columns are stable; times are RFC 3339 UTC.
CREATE VIEW audit_api AS
SELECT
    seq, strftime('%Y-%m-%dT%H:%M:%fZ', at / 1000.0, 'unixepoch') AS at, request_id, key_id, key_name, role, address, method, path,
    outcome
FROM api_calls;
