-- What is known of destinations, so that no attempt begins from nothing: uploads that were begun and not ended, and blobs that
-- were seen to be there. All of it is a hint: the registry's answer counts.

-- Who brings a blob to a repository, and how far that has come. The owner is an attempt: its job and lease epoch. One that is
-- over may be taken over by the next. The location is sealed with a key of the state folder.
CREATE TABLE uploads (
    registry TEXT COLLATE "C" NOT NULL,
    repository TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    job_id BIGINT NOT NULL,
    lease_epoch BIGINT NOT NULL,
    location BYTEA,
    committed BIGINT NOT NULL DEFAULT 0 CHECK (committed >= 0),
    midstate BYTEA,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (registry, repository, digest)
);

-- Repositories that were seen to hold a blob.
CREATE TABLE blobs (
    registry TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    repository TEXT COLLATE "C" NOT NULL,
    seen_at BIGINT NOT NULL,
    PRIMARY KEY (registry, digest, repository)
);

CREATE INDEX blobs_age ON blobs (seen_at);

-- Which profile a registry has shown itself to be of.
CREATE TABLE registries (
    registry TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    profile TEXT NOT NULL
);

-- Once a statement, in the order of the key: two attempts that bring the same blobs wait for each other, and never both ways.
CREATE FUNCTION @schema@.transfers_after_insert() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO @schema@.blobs (registry, digest, repository, seen_at)
    SELECT n.registry, n.digest, n.repository, MAX(n.at)
    FROM new_rows AS n
    WHERE n.registry <> 'oci' AND NOT EXISTS (
        SELECT FROM @schema@.blobs AS b
        WHERE b.registry = n.registry AND b.digest = n.digest AND b.repository = n.repository
    )
    GROUP BY n.registry COLLATE "C", n.digest COLLATE "C", n.repository COLLATE "C", n.registry, n.digest, n.repository
    ORDER BY n.registry COLLATE "C", n.digest COLLATE "C", n.repository COLLATE "C"
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;
CREATE TRIGGER transfers_seen AFTER INSERT ON transfers
REFERENCING NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION @schema@.transfers_after_insert();

-- A restored database knows uploads of a lost time.
CREATE FUNCTION @schema@.restores_after_insert() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM @schema@.uploads;
    RETURN NULL;
END
$$;
CREATE TRIGGER restores_forget_uploads AFTER INSERT ON restores
FOR EACH STATEMENT EXECUTE FUNCTION @schema@.restores_after_insert();
