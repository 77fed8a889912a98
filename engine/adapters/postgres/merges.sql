-- What follows a merge: the rows of the profile that ended are brought over to the one that stays.
-- `merges.py` reads the statements from here, by name. Each is safe to run again.

-- name: waiting
-- Oldest first; one whose own merges are not through yet comes after them.
SELECT profile_id, survivor_id FROM merges m
WHERE moved_at IS NULL
    AND NOT EXISTS (SELECT FROM merges e WHERE e.survivor_id = m.profile_id AND e.moved_at IS NULL)
ORDER BY merged_at LIMIT $1;

-- name: still
-- Locked: nobody erases the person meanwhile.
SELECT 1 FROM merges WHERE bucket = bucket_of($1) AND profile_id = $1 FOR UPDATE;

-- name: copy_seen
-- The rows stay under the old id as well: an identity that moved away before may still repeat a message.
INSERT INTO seen (bucket, profile_id, sender, message_id, seq, seen_at)
SELECT bucket_of($2), $2, sender, message_id, seq + $3, seen_at FROM seen
WHERE bucket = bucket_of($1) AND profile_id = $1
ON CONFLICT DO NOTHING;

-- name: drop_copies
-- Messages that the survivor had already were counted there. What engines told themselves of both stays: it
-- counts nowhere, and without it nobody could say how the decisions after it came about.
DELETE FROM events e USING seen s
WHERE e.bucket = bucket_of($1) AND e.profile_id = $1 AND e.sender <> 'generated'
    AND s.bucket = bucket_of($2) AND s.profile_id = $2 AND s.sender = e.sender
    AND s.message_id = e.message_id AND s.seq <> e.seq + $3
    AND NOT (e.sender = 'engine' AND starts_with(e.name, '$'));

-- name: move_events
WITH part AS (
    SELECT seq, received_at FROM events WHERE bucket = bucket_of($1) AND profile_id = $1
    ORDER BY seq LIMIT $4
)
UPDATE events e SET bucket = bucket_of($2), profile_id = $2, seq = e.seq + $3
FROM part
WHERE e.bucket = bucket_of($1) AND e.profile_id = $1 AND e.seq = part.seq
    AND e.received_at = part.received_at
RETURNING 1;

-- name: move_decisions
WITH part AS (
    SELECT id, decided_at FROM decisions WHERE bucket = bucket_of($1) AND profile_id = $1 LIMIT $4
)
UPDATE decisions d SET bucket = bucket_of($2), profile_id = $2, seq = d.seq + $3
FROM part
WHERE d.bucket = bucket_of($1) AND d.id = part.id AND d.decided_at = part.decided_at
RETURNING 1;

-- name: move_outbox
-- The bucket stays: whoever is sending a row settles it by its bucket and id.
UPDATE outbox SET profile_id = $2 WHERE profile_id = $1;

-- name: move_timers
-- Where both have one: a wait goes on from the newer of their last events, and a stay is told late
-- rather than never. Of the others the survivor's stands: each finds out for itself what is left to do.
WITH gone AS (
    DELETE FROM timers WHERE bucket = bucket_of($1) AND profile_id = $1
    RETURNING id, due_at, paced, event
)
INSERT INTO timers (bucket, profile_id, id, due_at, paced, event)
SELECT bucket_of($2), $2, id, due_at, paced, event FROM gone
ON CONFLICT (bucket, profile_id, id) DO UPDATE
    SET due_at = excluded.due_at, paced = excluded.paced, event = excluded.event, leased_until = NULL
    WHERE excluded.due_at > timers.due_at
        AND (starts_with(timers.id, '$waited:') OR starts_with(timers.id, 'dwell '));

-- name: moved
UPDATE merges SET moved_at = now() WHERE bucket = bucket_of($1) AND profile_id = $1;

-- name: document
SELECT version, document FROM profiles WHERE bucket = bucket_of($1) AND id = $1 FOR UPDATE;

-- name: write
UPDATE profiles SET version = version + 1, document = $2 WHERE bucket = bucket_of($1) AND id = $1;

-- name: family
-- Every profile that became one with this one, directly or by another.
WITH RECURSIVE family AS (
    SELECT profile_id, survivor_id, merged_at, moved_at FROM merges WHERE survivor_id = $1
    UNION
    SELECT m.profile_id, m.survivor_id, m.merged_at, m.moved_at
    FROM merges m JOIN family f ON m.survivor_id = f.profile_id
)
SELECT profile_id, survivor_id, merged_at, moved_at FROM family ORDER BY merged_at, profile_id;
