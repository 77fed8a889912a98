-- The event log as replays read it, by name; `history.py` reads them from here.

-- name: mentions
-- Everything that says whom an event is about.
SELECT profile_id::text, body::text FROM events WHERE bucket BETWEEN $1 AND $2;

-- name: log
-- Person by person, each in the order of their numbers.
SELECT profile_id::text, seq, body::text, facts::text FROM events
WHERE bucket BETWEEN $1 AND $2 AND ($3::uuid[] IS NULL OR profile_id = ANY ($3))
ORDER BY bucket, profile_id, seq;

-- name: decided
-- The decisions since, person by person, too.
SELECT profile_id::text, document::text FROM decisions
WHERE bucket BETWEEN $1 AND $2 AND ($3::uuid[] IS NULL OR profile_id = ANY ($3)) AND decided_at >= $4
ORDER BY bucket, profile_id, seq, id;

-- name: ended
-- Profiles that became one with another, whose rows may stand under its id by now.
SELECT document FROM profiles WHERE merged_into IS NOT NULL AND bucket BETWEEN $1 AND $2;

-- name: people
SELECT id::text FROM profiles WHERE merged_into IS NULL ORDER BY bucket, id LIMIT $1;

-- name: count
SELECT count(*) FROM events;
