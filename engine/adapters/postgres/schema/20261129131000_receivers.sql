-- migrate:up

-- The business's other systems that are told what happens. Secrets stand as they are: they have to sign.
CREATE TABLE receivers (
    name text PRIMARY KEY,
    url text NOT NULL,
    topics text[] NOT NULL,
    purpose text,
    without text[] NOT NULL,
    secret text NOT NULL,
    earlier text,
    earlier_until timestamptz,
    made_at timestamptz NOT NULL,
    disabled_at timestamptz,
    disabled_because text,
    CHECK (purpose IS NOT NULL OR topics = '{}')
);

-- Each receiver is a provider of its own: one that is slow or away holds up nobody else.
UPDATE outbox SET provider = 'receiver:' || (payload->>'webhook') WHERE provider = 'webhook';

-- migrate:down
UPDATE outbox SET provider = 'webhook' WHERE starts_with(provider, 'receiver:');
DROP TABLE receivers;
