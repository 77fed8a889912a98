-- migrate:up

-- How far profiles have been brought to the computed traits and audiences that are declared now. One
-- row; another `key` begins anew. Leased to one engine at a time. A second round, from `rests_until`
-- on, finds those whom an engine touched that still went by other rules.
CREATE TABLE backfill (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    key text NOT NULL,
    after uuid,
    visited bigint NOT NULL DEFAULT 0,
    renewed bigint NOT NULL DEFAULT 0,
    round smallint NOT NULL DEFAULT 1,
    rests_until timestamptz,
    finished_at timestamptz,
    lease uuid NOT NULL,
    leased_until timestamptz NOT NULL
);

-- migrate:down
DROP TABLE backfill;
