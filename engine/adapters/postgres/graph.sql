-- Who is who, and why; and two people who were taken for one. `graph.py` reads the statements from here.

-- name: whys
-- The events behind some messages of a person. What was seen says where in the log they are.
SELECT DISTINCT ON (m.message_id) m.message_id, e.kind, e.name, e.occurred_at, e.received_at, e.sender,
    e.body->'context'->'library'->>'name' AS library, coalesce((e.body->>'trusted')::boolean, false) AS trusted
FROM unnest($1::uuid[]) AS p(id), unnest($2::text[]) AS m(message_id),
    unnest('{client,engine,generated,import}'::text[]) AS k(sender), LATERAL (
    SELECT seq FROM seen
    WHERE bucket = bucket_of(p.id) AND profile_id = p.id AND sender = k.sender AND message_id = m.message_id
    OFFSET 0
) s, LATERAL (
    SELECT * FROM events WHERE bucket = bucket_of(p.id) AND profile_id = p.id AND seq = s.seq
    OFFSET 0
) e
ORDER BY m.message_id, e.received_at;

-- name: later
-- What was told since a merge, in order.
SELECT seq, sender, message_id, body, facts FROM events
WHERE bucket = bucket_of($1) AND profile_id = $1 AND seq > $2 ORDER BY seq;

-- name: decided
SELECT id, seq FROM decisions WHERE bucket = bucket_of($1) AND profile_id = $1 AND seq > $2;

-- name: return_events
UPDATE events SET bucket = bucket_of($2), profile_id = $2, seq = seq - $3
WHERE bucket = bucket_of($1) AND profile_id = $1 AND seq > $3 AND seq <= $4;

-- name: return_outbox
UPDATE outbox o SET profile_id = $2
FROM decisions d
WHERE d.bucket = bucket_of($1) AND d.profile_id = $1 AND d.seq > $3 AND d.seq <= $4 AND o.id = d.id
    AND o.profile_id = $1;

-- name: return_decisions
UPDATE decisions SET bucket = bucket_of($2), profile_id = $2, seq = seq - $3
WHERE bucket = bucket_of($1) AND profile_id = $1 AND seq > $3 AND seq <= $4;

-- name: forget_seen
DELETE FROM seen WHERE bucket = bucket_of($1) AND profile_id = $1 AND seq > $2 AND seq <= $3;

-- name: give_seen
UPDATE seen SET bucket = bucket_of($2), profile_id = $2, seq = $4
WHERE bucket = bucket_of($1) AND profile_id = $1 AND seq = $3;

-- name: copy_timers
-- A timer is an alarm: what it is about stands in one of the two documents, and the other finds nothing.
INSERT INTO timers (bucket, profile_id, id, due_at, paced, event)
SELECT bucket_of($2), $2, id, due_at, paced, event FROM timers
WHERE bucket = bucket_of($1) AND profile_id = $1 AND event->'properties'->>'decision' IS NULL
ON CONFLICT DO NOTHING;

-- name: return_timers
-- What follows a decision, an offer that was put off for one, is theirs to whom it was made.
WITH gone AS (
    DELETE FROM timers t USING decisions d
    WHERE t.bucket = bucket_of($1) AND t.profile_id = $1
        AND d.bucket = bucket_of($2) AND d.profile_id = $2
        AND d.id::text = t.event->'properties'->>'decision'
    RETURNING t.id, t.due_at, t.paced, t.event
)
INSERT INTO timers (bucket, profile_id, id, due_at, paced, event)
SELECT bucket_of($2), $2, id, due_at, paced, event FROM gone
ON CONFLICT DO NOTHING;

-- name: leave_audiences
DELETE FROM audience_members WHERE bucket = bucket_of($1) AND profile_id = $1;

-- name: enter_audiences
INSERT INTO audience_members (bucket, audience, profile_id, since)
SELECT bucket_of($1), a.name, $1, a.since FROM unnest($2::text[], $3::timestamptz[]) AS a(name, since);

-- name: set_timer
INSERT INTO timers (bucket, profile_id, id, due_at, paced, event)
VALUES (bucket_of($1), $1, $2, $3, $4, $5::text::json)
ON CONFLICT (bucket, profile_id, id) DO UPDATE
    SET due_at = excluded.due_at, paced = excluded.paced, event = excluded.event, leased_until = NULL;

-- name: point
INSERT INTO identities (bucket, namespace, value, profile_id, previous_id) VALUES ($1, $2, $3, $4, NULL)
ON CONFLICT (bucket, namespace, value) DO UPDATE SET profile_id = excluded.profile_id, previous_id = NULL;

-- name: write
UPDATE profiles SET version = version + 1, document = $2, merged_into = NULL
WHERE bucket = bucket_of($1) AND id = $1;

-- name: unmerge
DELETE FROM merges WHERE bucket = bucket_of($1) AND profile_id = $1;

-- name: forget_snapshots
-- Merges that cannot be taken back any more need no copies of what was before.
-- Each is looked at once.
WITH past AS MATERIALIZED (
    SELECT bucket, profile_id FROM merges
    WHERE forgotten_at IS NULL AND merged_at < $1 AND moved_at IS NOT NULL
    ORDER BY merged_at LIMIT 500
    FOR UPDATE SKIP LOCKED
)
UPDATE merges m SET forgotten_at = now() FROM past
WHERE m.bucket = past.bucket AND m.profile_id = past.profile_id
RETURNING m.profile_id;

-- name: shorten
UPDATE profiles SET version = version + 1, document = $2 WHERE bucket = bucket_of($1) AND id = $1;
