-- migrate:up

-- What receivers are told of people, a row each: written by the commit that it tells of, gone when it is
-- told. Those that could not be told in time are `dead`, and wait for an operator.
CREATE TABLE changes (
    bucket smallint NOT NULL,
    profile_id uuid NOT NULL,
    receiver text NOT NULL,
    position bigint NOT NULL,
    id uuid NOT NULL,
    topic text NOT NULL,
    body json NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'dead')),
    code text,
    settled_at timestamptz,
    PRIMARY KEY (bucket, profile_id, receiver, position)
);
CREATE INDEX changes_dead ON changes (receiver, settled_at) WHERE state = 'dead';

-- Whom there is something to tell of, a row for each receiver and profile: one engine at a time tells it,
-- in order. `arrivals` counts what came, so that whoever is through knows that nothing came meanwhile.
-- A leased one is due again when its lease is over.
CREATE TABLE change_queues (
    bucket smallint NOT NULL,
    profile_id uuid NOT NULL,
    receiver text NOT NULL,
    arrivals bigint NOT NULL DEFAULT 1,
    due_at timestamptz NOT NULL DEFAULT now(),
    attempts integer NOT NULL DEFAULT 0,
    code text,
    lease uuid,
    PRIMARY KEY (bucket, profile_id, receiver)
);
CREATE INDEX change_queues_due ON change_queues (receiver, due_at);

-- migrate:down
DROP TABLE change_queues, changes;
