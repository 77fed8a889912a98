-- migrate:up

-- Who may use /admin, beside the first token: by name and role. Only digests are kept.
CREATE TABLE admin_tokens (
    digest bytea PRIMARY KEY,
    name text NOT NULL,
    role text NOT NULL CHECK (role IN ('viewer', 'marketer', 'operator', 'privacy')),
    made_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz
);
CREATE INDEX admin_tokens_of_name ON admin_tokens (name);

-- Every access to a person and every change, each chained to the one before by its hash. `person` is a
-- keyed hash: the log outlives the person, and says nothing of them.
CREATE TABLE audit (
    seq bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    person bytea,
    hash bytea NOT NULL
);

-- migrate:down
DROP TABLE audit, admin_tokens;
