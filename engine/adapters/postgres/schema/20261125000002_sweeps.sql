-- migrate:up

-- What every profile is to be looked at once for, e.g. audiences that were declared after it: bucket by
-- bucket, each by one engine.
CREATE TABLE sweeps (
    name text PRIMARY KEY,
    next_bucket integer NOT NULL DEFAULT 0,
    begun_at timestamptz NOT NULL DEFAULT now()
);

-- migrate:down
DROP TABLE sweeps;
