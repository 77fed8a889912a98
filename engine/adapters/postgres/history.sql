-- The event log as replays read it, by name; `history.py` reads them from here.

-- name: mentions
-- Everything that says whom an event is about.
SELECT profile_id::text, body::text FROM events WHERE bucket BETWEEN $1 AND $2;

-- name: log
-- Person by person, each in the order of their numbers.
SELECT profile_id::text, seq, body::text, facts::text FROM events
WHERE bucket BETWEEN $1 AND $2 ORDER BY events.bucket, events.profile_id, events.seq;

-- name: log_of
SELECT profile_id::text, seq, body::text, facts::text
FROM unnest($1::smallint[], $2::uuid[]) AS p(bucket, profile_id) JOIN events USING (bucket, profile_id)
ORDER BY p.bucket, p.profile_id, events.seq;

-- name: decided
-- The decisions since, person by person, too.
SELECT profile_id::text, document::text FROM decisions
WHERE bucket BETWEEN $1 AND $2 AND decided_at >= $3
ORDER BY decisions.bucket, decisions.profile_id, decisions.seq, decisions.id;

-- name: decided_of
SELECT profile_id::text, document::text
FROM unnest($1::smallint[], $2::uuid[]) AS p(bucket, profile_id) JOIN decisions USING (bucket, profile_id)
WHERE decided_at >= $3 ORDER BY p.bucket, p.profile_id, decisions.seq, decisions.id;

-- name: family
-- Everybody who became one with somebody, or with whom they became one.
WITH RECURSIVE family AS (
    SELECT $1::uuid AS id
    UNION
    SELECT CASE WHEN m.profile_id = f.id THEN m.survivor_id ELSE m.profile_id END
    FROM family f JOIN merges m ON m.survivor_id = f.id OR (m.bucket = bucket_of(f.id) AND m.profile_id = f.id)
)
SELECT f.id::text AS id, p.document
FROM family f LEFT JOIN profiles p ON p.bucket = bucket_of(f.id) AND p.id = f.id AND p.merged_into IS NOT NULL;

-- name: ended
-- Profiles that became one with another, whose rows may stand under its id by now.
SELECT document FROM profiles WHERE merged_into IS NOT NULL AND bucket BETWEEN $1 AND $2;

-- name: people
SELECT id::text FROM profiles WHERE merged_into IS NULL ORDER BY bucket, id LIMIT $1;

-- name: count
SELECT count(*) FROM events;
