-- What receivers are told of people; `changes.py` reads the statements from here, by name. Leases and
-- delays go by the database's clock.

-- name: put
-- In the transaction of the commit that they tell of. A queue that is there already is touched: whoever
-- ends it at this moment finds that something came.
WITH incoming AS MATERIALIZED (
    SELECT * FROM json_to_recordset($1::text::json) AS c(
        bucket smallint, profile_id uuid, receiver text, position bigint, id uuid, topic text, body json)
), kept AS (
    INSERT INTO changes (bucket, profile_id, receiver, position, id, topic, body)
    SELECT bucket, profile_id, receiver, position, id, topic, body FROM incoming
)
INSERT INTO change_queues (bucket, profile_id, receiver)
SELECT DISTINCT bucket, profile_id, receiver FROM incoming ORDER BY bucket, profile_id, receiver
ON CONFLICT (bucket, profile_id, receiver) DO UPDATE SET arrivals = change_queues.arrivals + 1;

-- name: claim
WITH due AS (
    SELECT bucket, profile_id FROM change_queues
    WHERE receiver = $1 AND due_at <= now()
    ORDER BY due_at LIMIT $2
    FOR UPDATE SKIP LOCKED
)
UPDATE change_queues q SET lease = $3::uuid, due_at = now() + $4::interval
FROM due
WHERE q.bucket = due.bucket AND q.profile_id = due.profile_id AND q.receiver = $1
RETURNING q.bucket, q.profile_id, q.arrivals, q.attempts;

-- name: waiting
-- The first of each queue, in their order.
SELECT c.profile_id, c.position, c.id, c.topic, c.body,
    extract(epoch FROM now() - c.since)::float8 AS age_seconds
FROM unnest($2::smallint[], $3::uuid[]) AS q(bucket, profile_id), LATERAL (
    SELECT profile_id, position, id, topic, body, since FROM changes
    WHERE bucket = q.bucket AND profile_id = q.profile_id AND receiver = $1 AND state = 'pending'
    ORDER BY position LIMIT $4
    OFFSET 0
) c
ORDER BY c.profile_id, c.position;

-- name: told
DELETE FROM changes c USING unnest($2::smallint[], $3::uuid[], $4::bigint[]) AS t(bucket, profile_id, position)
WHERE c.bucket = t.bucket AND c.profile_id = t.profile_id AND c.receiver = $1 AND c.position = t.position
    AND c.state = 'pending';

-- name: died
UPDATE changes c SET state = 'dead', code = t.code, settled_at = now()
FROM unnest($2::smallint[], $3::uuid[], $4::bigint[], $5::text[]) AS t(bucket, profile_id, position, code)
WHERE c.bucket = t.bucket AND c.profile_id = t.profile_id AND c.receiver = $1 AND c.position = t.position
    AND c.state = 'pending';

-- name: settle
-- Only under the lease that the queue still has. One that is through and to which nothing came is gone;
-- PostgreSQL looks at `arrivals` once more where it had to wait for whoever brought something.
WITH incoming AS MATERIALIZED (
    SELECT * FROM unnest($2::smallint[], $3::uuid[], $4::uuid[], $5::bigint[], $6::boolean[],
                         $7::interval[], $8::int[], $9::text[])
        AS i(bucket, profile_id, lease, arrivals, drained, delay, attempts, code)
    ORDER BY bucket, profile_id
), ended AS (
    DELETE FROM change_queues q USING incoming i
    WHERE q.bucket = i.bucket AND q.profile_id = i.profile_id AND q.receiver = $1 AND q.lease = i.lease
        AND i.drained AND q.arrivals = i.arrivals
    RETURNING q.bucket, q.profile_id
)
UPDATE change_queues q
SET lease = NULL, due_at = now() + i.delay, attempts = i.attempts, code = i.code
FROM incoming i
WHERE q.bucket = i.bucket AND q.profile_id = i.profile_id AND q.receiver = $1 AND q.lease = i.lease
    AND NOT EXISTS (SELECT FROM ended e WHERE e.bucket = q.bucket AND e.profile_id = q.profile_id);

-- name: dead
SELECT id, profile_id, topic, body->>'type' AS type, code, since, settled_at FROM changes
WHERE receiver = $1 AND state = 'dead' AND ($3::timestamptz IS NULL OR settled_at < $3)
ORDER BY settled_at DESC LIMIT $2;

-- name: requeue
-- One by its id, or all of a receiver's: to their places among what waits.
WITH revived AS (
    UPDATE changes SET state = 'pending', code = NULL, settled_at = NULL, since = now()
    WHERE receiver = $1 AND state = 'dead' AND ($2::uuid IS NULL OR id = $2)
    RETURNING bucket, profile_id
), queued AS (
    INSERT INTO change_queues (bucket, profile_id, receiver)
    SELECT DISTINCT bucket, profile_id, $1 FROM revived ORDER BY bucket, profile_id
    ON CONFLICT (bucket, profile_id, receiver) DO UPDATE
        SET arrivals = change_queues.arrivals + 1,
            due_at = CASE WHEN change_queues.lease IS NULL THEN now() ELSE change_queues.due_at END
)
SELECT count(*) FROM revived;

-- name: counts
-- People of whom something waits, and messages that are dead.
SELECT receiver, 'waiting' AS what, count(*) AS number FROM change_queues GROUP BY receiver
UNION ALL
SELECT receiver, 'dead', count(*) FROM changes WHERE state = 'dead' GROUP BY receiver;

-- name: forget
-- What waits for a receiver that is none any more.
WITH gone AS (DELETE FROM changes WHERE receiver = $1)
DELETE FROM change_queues WHERE receiver = $1;

-- name: expired
-- Dead ones that nobody revived, and what was kept for receivers that are disabled or gone.
WITH gone AS (
    DELETE FROM changes c
    WHERE (c.state = 'dead' AND c.settled_at < $1)
        OR (c.since < $1 AND NOT EXISTS (
            SELECT FROM receivers r WHERE r.name = c.receiver AND r.disabled_at IS NULL))
)
DELETE FROM change_queues q WHERE NOT EXISTS (
    SELECT FROM receivers r WHERE r.name = q.receiver AND r.disabled_at IS NULL) AND q.due_at < $1;
