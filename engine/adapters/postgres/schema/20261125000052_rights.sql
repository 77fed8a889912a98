-- migrate:up

-- People who were erased: what was deleted, and that nothing was found afterwards. Nothing in here says
-- who it was: `person` is a keyed hash.
CREATE TABLE erasures (
    id uuid PRIMARY KEY,
    person bytea NOT NULL,
    asked_at timestamptz NOT NULL,
    erased_at timestamptz NOT NULL,
    profiles int NOT NULL,
    identities int NOT NULL,
    deleted json NOT NULL,
    left_over json
);

-- Keyed hashes of their identities: what a restored backup must not bring back, and where the workspace
-- says so, whose later events are dropped.
CREATE TABLE erased_identities (
    hash bytea PRIMARY KEY,
    erased_at timestamptz NOT NULL
);

-- Stale rows hold values, too, and have to be found.
CREATE INDEX identities_of_profile ON identities (profile_id);

-- migrate:down
DROP INDEX identities_of_profile;
DROP TABLE erased_identities, erasures;
