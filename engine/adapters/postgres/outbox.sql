-- The outbox's statements, by name; `outbox.py` reads them from here. Leases and delays go by the
-- database's clock.

-- name: claim
-- Rows that are due and that nobody holds: of these providers, or of any where they have expired,
-- because somebody has to say so; what is paused ($6 to $8) stays where it is. One whose lease ran out without a settlement may have been sent:
-- it is marked, and stays so.
WITH due AS (
    SELECT bucket, id, lease IS NOT NULL AS unsettled
    FROM outbox
    WHERE state = 'pending' AND due_at <= now() AND (leased_until IS NULL OR leased_until < now())
        AND ($2::text[] IS NULL OR provider = ANY ($2) OR expires_at <= $5)
        AND (expires_at <= $5 OR NOT (
            (CASE WHEN payload->'webhook' IS NULL THEN 'push' ELSE 'webhook' END) = ANY ($6::text[])
            OR coalesce(payload->'data'->>'rule', payload->>'rule', '') = ANY ($7::text[])
            OR coalesce(payload->'data'->>'offer', payload->>'action', '') = ANY ($8::text[])))
    ORDER BY due_at LIMIT $1
    FOR UPDATE SKIP LOCKED
)
UPDATE outbox o
SET lease = $3::uuid, leased_until = now() + $4::interval,
    result = CASE WHEN due.unsettled
        THEN (coalesce(o.result::jsonb, '{}') || '{"possible_duplicate": true}')::json ELSE o.result END
FROM due
WHERE o.bucket = due.bucket AND o.id = due.id
RETURNING o.bucket, o.id, o.profile_id, o.provider, o.purpose, o.payload, o.expires_at, o.attempts,
    coalesce((o.result->>'requeues')::int, 0) AS requeues,
    coalesce((o.result->>'possible_duplicate')::boolean, false) AS possible_duplicate;

-- name: settle
-- Many at once. Only under the lease that the row still has; what is final tells the profile in
-- the same breath, as an event that is due at once ($9). Answers those that were refused.
WITH incoming AS MATERIALIZED (
    SELECT * FROM unnest($1::smallint[], $2::uuid[], $3::uuid[], $4::text[], $5::interval[], $6::int[],
                         $7::text[], $8::text[], $10::text[])
        AS i(bucket, id, lease, state, delay, tries, result, event, event_id)
), settled AS (
    UPDATE outbox o
    SET state = i.state,
        attempts = o.attempts + i.tries,
        due_at = CASE WHEN i.state = 'pending' THEN now() + i.delay ELSE o.due_at END,
        lease = NULL,
        leased_until = NULL,
        result = (coalesce(o.result::jsonb, '{}') || i.result::jsonb)::json,
        settled_at = CASE WHEN i.state <> 'pending' THEN now() END
    FROM incoming i
    WHERE o.bucket = i.bucket AND o.id = i.id AND o.lease = i.lease AND o.state = 'pending'
    RETURNING o.bucket, o.id, o.profile_id, i.lease AS held, i.event, i.event_id
), told AS (
    INSERT INTO timers (bucket, profile_id, id, due_at, event)
    SELECT bucket_of(profile_id), profile_id, event_id, $9::timestamptz, event::json
    FROM settled WHERE event IS NOT NULL
    ON CONFLICT DO NOTHING
)
SELECT i.id, i.lease FROM incoming i
WHERE NOT EXISTS (
    SELECT FROM settled s WHERE s.bucket = i.bucket AND s.id = i.id AND s.held = i.lease);

-- name: bury
-- A row that cannot be read at all, under the lease it was claimed with.
UPDATE outbox
SET state = 'dead', lease = NULL, leased_until = NULL, settled_at = now(),
    result = (coalesce(result::jsonb, '{}') || '{"code": "unreadable"}')::json
WHERE bucket = $1 AND id = $2 AND lease = $3 AND state = 'pending';

-- name: dead
SELECT bucket, id, profile_id, provider, purpose, attempts, result->>'code' AS code, settled_at
FROM outbox WHERE state = 'dead' AND ($2::timestamptz IS NULL OR settled_at < $2)
    AND ($3::text IS NULL OR provider = $3)
ORDER BY settled_at DESC LIMIT $1;

-- name: requeue
UPDATE outbox
SET state = 'pending', attempts = 0, due_at = now(), lease = NULL, leased_until = NULL,
    settled_at = NULL, expires_at = coalesce($3, expires_at),
    result = (coalesce(result::jsonb, '{}')
        || jsonb_build_object('requeues', coalesce((result->>'requeues')::int, 0) + 1))::json
WHERE bucket = $1 AND id = $2 AND state = 'dead' AND ($4::text IS NULL OR provider = $4)
RETURNING id;

-- name: dead_ids
SELECT id FROM outbox WHERE state = 'dead' AND provider = $1;

-- name: counts
SELECT state, provider, count(*) AS rows FROM outbox
WHERE state IN ('pending', 'dead') GROUP BY state, provider;

-- name: put
INSERT INTO outbox (bucket, id, profile_id, provider, purpose, payload, expires_at)
VALUES ($1, $2, $3, $4, $5, $6::text::json, $7);

-- name: state
SELECT state, result->>'code' AS code FROM outbox WHERE bucket = $1 AND id = $2;
