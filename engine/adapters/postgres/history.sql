-- The event log as replays read it, by name; `history.py` reads them from here.

-- name: begun
-- People of whose log the beginning is gone: nobody can say what was known of them.
SELECT profile_id FROM (
    SELECT DISTINCT ON (bucket, profile_id) profile_id, seq FROM events ORDER BY bucket, profile_id, seq
) first WHERE seq > 1;

-- name: people
SELECT id FROM profiles ORDER BY bucket, id LIMIT $1;

-- name: count
SELECT count(*), count(*) FILTER (WHERE (facts->>'now')::timestamptz >= $1) AS since FROM events
WHERE ($2::uuid[] IS NULL OR profile_id = ANY ($2)) AND NOT profile_id = ANY ($3::uuid[]);

-- name: log
-- In the order in which it was decided: by tick, and within one by the place in it.
SELECT profile_id, seq, body, facts FROM events
WHERE ($1::uuid[] IS NULL OR profile_id = ANY ($1)) AND NOT profile_id = ANY ($2::uuid[])
ORDER BY (facts->>'now')::timestamptz, coalesce((facts->>'place')::int, 0), profile_id, seq;

-- name: told
-- What the engine itself told people: timers that fired, and what became of pushes.
SELECT profile_id, message_id FROM events
WHERE sender = 'engine' AND (facts->>'now')::timestamptz >= $1;

-- name: decided
SELECT id, document FROM decisions
WHERE decided_at >= $1 AND document->>'revision' = $2
    AND ($3::uuid[] IS NULL OR profile_id = ANY ($3)) AND NOT profile_id = ANY ($4::uuid[]);
