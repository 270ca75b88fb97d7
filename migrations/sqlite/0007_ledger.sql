-- What is known of destinations, so that no attempt begins from nothing: uploads that were begun and not ended, and blobs that
-- were seen to be there. All of it is a hint: the registry's answer counts.

-- Who brings a blob to a repository, and how far that has come. The owner is an attempt: its job and lease epoch. One that is
-- over may be taken over by the next. The location is sealed with a key of the state folder.
CREATE TABLE uploads (
    registry TEXT NOT NULL,
    repository TEXT NOT NULL,
    digest TEXT NOT NULL,
    job_id INTEGER NOT NULL,
    lease_epoch INTEGER NOT NULL,
    location BLOB,
    committed INTEGER NOT NULL DEFAULT 0 CHECK (committed >= 0),
    midstate BLOB,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (registry, repository, digest)
) STRICT, WITHOUT ROWID;

-- Repositories that were seen to hold a blob.
CREATE TABLE blobs (
    registry TEXT NOT NULL,
    digest TEXT NOT NULL,
    repository TEXT NOT NULL,
    seen_at INTEGER NOT NULL,
    PRIMARY KEY (registry, digest, repository)
) STRICT, WITHOUT ROWID;

CREATE INDEX blobs_age ON blobs (seen_at);

-- Which profile a registry has shown itself to be of.
CREATE TABLE registries (
    registry TEXT NOT NULL PRIMARY KEY,
    profile TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER transfers_seen AFTER INSERT ON transfers WHEN NEW.registry <> 'oci'
BEGIN
    INSERT INTO blobs (registry, digest, repository, seen_at)
    SELECT NEW.registry, NEW.digest, NEW.repository, NEW.at
    WHERE NOT EXISTS (
        SELECT 1 FROM blobs
        WHERE registry = NEW.registry AND digest = NEW.digest AND repository = NEW.repository
    );
END;

-- A restored database knows uploads of a lost time.
CREATE TRIGGER restores_forget_uploads AFTER INSERT ON restores
BEGIN
    DELETE FROM uploads;
END;
