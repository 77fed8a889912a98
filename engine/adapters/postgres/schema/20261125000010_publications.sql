-- migrate:up

-- Contents of workspace files, each once, whatever revisions it is part of.
CREATE TABLE contents (
    digest bytea PRIMARY KEY,
    content bytea NOT NULL
);

-- `files` names them now: {"rules": {PATH: DIGEST in hex}, "models": {…}}.
TRUNCATE revisions;

-- Which revision was made active when; the last one is active.
CREATE TABLE publications (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    revision text NOT NULL REFERENCES revisions (id),
    published_at timestamptz NOT NULL DEFAULT now(),
    how text NOT NULL CHECK (how IN ('serve', 'publish', 'rollback'))
);

-- What is stopped for now, by an operator: one rule, offer or channel, or everything ("all", with an
-- empty name). Kept after its end, so that the past can be told.
CREATE TABLE pauses (
    id uuid PRIMARY KEY,
    what text NOT NULL CHECK (what IN ('rule', 'offer', 'channel', 'all')),
    name text NOT NULL,
    reason text NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    until timestamptz
);
CREATE INDEX pauses_active ON pauses (since) WHERE until IS NULL;

-- migrate:down
DROP TABLE pauses, publications, contents;
