-- migrate:up

-- Files that were brought in, and how far: `rows` of them are durable. `id` is a digest of kind, file and
-- mapping, so that the same file goes on where it was, and is not brought in twice.
CREATE TABLE imports (
    id text PRIMARY KEY,
    kind text NOT NULL,
    name text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    rows bigint NOT NULL DEFAULT 0,
    accepted bigint NOT NULL DEFAULT 0,
    duplicates bigint NOT NULL DEFAULT 0,
    rejected bigint NOT NULL DEFAULT 0,
    finished_at timestamptz
);

-- migrate:down
DROP TABLE imports;
