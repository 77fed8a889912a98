-- migrate:up

-- What every engine on this database must agree on, e.g. the key that profile ids derive from.
CREATE TABLE constants (
    name text PRIMARY KEY,
    value bytea NOT NULL
);

-- One row a person. The document (MessagePack, see engine/domain/people/profiles.py) is the
-- authority, also on which identities the person has. An erased or merged one keeps its row.
CREATE TABLE profiles (
    bucket smallint NOT NULL,
    id uuid NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    merged_into uuid,
    document bytea NOT NULL,
    PRIMARY KEY (bucket, id)
) WITH (fillfactor = 60, toast_tuple_target = 8160);
-- Documents are small and rewritten with every event: no compression, no side table below 8 KB.
ALTER TABLE profiles ALTER COLUMN document SET STORAGE EXTERNAL;

-- An index from identity to profile; a row whose profile does not list it is stale and may be
-- taken over. `bucket` is the identity's own hash.
CREATE TABLE identities (
    bucket smallint NOT NULL,
    namespace text NOT NULL,
    value text NOT NULL,
    profile_id uuid NOT NULL,
    previous_id uuid,
    PRIMARY KEY (bucket, namespace, value)
);

-- Which messages are in a profile already. Not partitioned: outlives events' retention.
CREATE TABLE seen (
    bucket smallint NOT NULL,
    profile_id uuid NOT NULL,
    sender text NOT NULL,
    message_id text NOT NULL,
    seq bigint NOT NULL,
    seen_at timestamptz NOT NULL,
    PRIMARY KEY (bucket, profile_id, sender, message_id)
);
CREATE INDEX seen_at ON seen USING brin (seen_at);

-- The event log. `seq` counts a profile's events without gaps. `facts` is what the decision
-- depended on beside the event: version before, now, revision, propensities, weather. `located`
-- rows hold a position, which is kept for a shorter time than the rest.
CREATE TABLE events (
    bucket smallint NOT NULL,
    profile_id uuid NOT NULL,
    seq bigint NOT NULL,
    received_at timestamptz NOT NULL,
    occurred_at timestamptz NOT NULL,
    sender text NOT NULL,
    message_id text NOT NULL,
    kind text NOT NULL,
    name text NOT NULL,
    body json NOT NULL,
    facts json NOT NULL,
    located boolean NOT NULL DEFAULT false,
    PRIMARY KEY (bucket, profile_id, seq, received_at)
) PARTITION BY RANGE (received_at);
CREATE INDEX events_located ON events (received_at) WHERE located;
CREATE TABLE events_default PARTITION OF events DEFAULT;

-- The id carries its time and bucket (engine/domain/offers/decisions.py), so that one id finds
-- its row without a second index.
CREATE TABLE decisions (
    bucket smallint NOT NULL,
    id uuid NOT NULL,
    decided_at timestamptz NOT NULL,
    profile_id uuid NOT NULL,
    seq bigint NOT NULL,
    outcome text NOT NULL,
    rule text,
    offer text,
    reason text,
    document json NOT NULL,
    PRIMARY KEY (bucket, id, decided_at)
) PARTITION BY RANGE (decided_at);
CREATE TABLE decisions_default PARTITION OF decisions DEFAULT;
CREATE INDEX decisions_of_profile ON decisions (bucket, profile_id, seq);
CREATE INDEX decisions_suppressed ON decisions (decided_at) WHERE outcome = 'suppressed';

-- Sends under way. A row is leased to one engine at a time; `lease` changes with every claim, so
-- a settlement under an old one is refused. `dead` rows wait for an operator.
CREATE TABLE outbox (
    bucket smallint NOT NULL,
    id uuid NOT NULL,
    profile_id uuid NOT NULL,
    provider text NOT NULL,
    purpose text NOT NULL,
    payload json NOT NULL,
    expires_at timestamptz NOT NULL,
    state text NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'sent', 'dropped', 'dead')),
    attempts integer NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL DEFAULT now(),
    lease uuid,
    leased_until timestamptz,
    result json,
    settled_at timestamptz,
    PRIMARY KEY (bucket, id)
);
CREATE INDEX outbox_pending ON outbox (due_at) WHERE state = 'pending';
CREATE INDEX outbox_settled ON outbox (settled_at) WHERE state <> 'pending';

-- Events of the engine's own that are due at a time: claimed with SKIP LOCKED, deleted by the
-- commit that folds them into the profile.
CREATE TABLE timers (
    bucket smallint NOT NULL,
    profile_id uuid NOT NULL,
    id text NOT NULL,
    due_at timestamptz NOT NULL,
    event json NOT NULL,
    leased_until timestamptz,
    PRIMARY KEY (bucket, profile_id, id)
);
CREATE INDEX timers_due ON timers (due_at);

-- What ingest refused, bounded per key and day. Keys are stored as a digest.
CREATE TABLE rejected (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key_digest text NOT NULL,
    received_at timestamptz NOT NULL,
    code text NOT NULL,
    message text NOT NULL,
    message_id text,
    item bytea NOT NULL
);
CREATE INDEX rejected_received_at ON rejected (received_at);
CREATE TABLE rejected_counts (
    key_digest text NOT NULL,
    day date NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (key_digest, day)
);

-- The revisions that decisions name: their files, so that a decision can be replayed.
CREATE TABLE revisions (
    id text PRIMARY KEY,
    loaded_at timestamptz NOT NULL DEFAULT now(),
    files json NOT NULL
);

-- Aborts the commit as a serialization failure, which the tick answers by deciding again. Only
-- for a unit of two profiles of which one was lost after the other was written.
CREATE FUNCTION lost_unit() RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a unit of two profiles was lost' USING ERRCODE = 'serialization_failure';
END $$;

-- migrate:down
DROP FUNCTION lost_unit();
DROP TABLE revisions, rejected_counts, rejected, timers, outbox, decisions, events, seen, identities,
    profiles, constants;
