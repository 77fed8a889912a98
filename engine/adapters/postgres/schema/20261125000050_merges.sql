-- migrate:up

-- The bucket of a profile's rows: the first byte of its id.
CREATE FUNCTION bucket_of(uuid) RETURNS smallint LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS 'SELECT get_byte(uuid_send($1), 0)::smallint';

-- Profiles that became one with another. Until `moved_at` their rows stand under their own id and are
-- looked up there, too.
CREATE TABLE merges (
    bucket smallint NOT NULL,
    profile_id uuid NOT NULL,
    survivor_id uuid NOT NULL,
    merged_at timestamptz NOT NULL DEFAULT now(),
    moved_at timestamptz,
    PRIMARY KEY (bucket, profile_id)
);
CREATE INDEX merges_waiting ON merges (merged_at) WHERE moved_at IS NULL;
CREATE INDEX merges_of_survivor ON merges (survivor_id);
CREATE INDEX outbox_of_profile ON outbox (profile_id);

-- migrate:down
DROP INDEX outbox_of_profile;
DROP TABLE merges;
DROP FUNCTION bucket_of;
