-- How far profiles have been brought to what is declared now.

-- name: claim
-- Goes on where the last engine stopped, or begins anew for another key. No row: another engine is at it.
INSERT INTO backfill AS b (key, lease, leased_until) VALUES ($1, $2, now() + interval '30 seconds')
ON CONFLICT (one) DO UPDATE
SET key = excluded.key,
    after = CASE WHEN b.key = excluded.key THEN b.after END,
    visited = CASE WHEN b.key = excluded.key THEN b.visited ELSE 0 END,
    renewed = CASE WHEN b.key = excluded.key THEN b.renewed ELSE 0 END,
    round = CASE WHEN b.key = excluded.key THEN b.round ELSE 1 END,
    rests_until = CASE WHEN b.key = excluded.key THEN b.rests_until END,
    finished_at = CASE WHEN b.key = excluded.key THEN b.finished_at END,
    lease = excluded.lease, leased_until = excluded.leased_until
WHERE b.key <> excluded.key OR b.lease = excluded.lease OR b.leased_until < now()
RETURNING after, visited, renewed, round, finished_at IS NOT NULL AS finished,
    coalesce(rests_until > now(), false) AS rests;

-- name: advance
UPDATE backfill
SET after = $3, visited = $4, renewed = $5, round = $6, leased_until = now() + interval '30 seconds',
    rests_until = CASE WHEN $7 THEN now() + interval '1 minute' END,
    finished_at = CASE WHEN $8 THEN now() END
WHERE key = $1 AND lease = $2
RETURNING 1;

-- name: profiles_after
SELECT version, document FROM profiles
WHERE (bucket, id) > ($1::smallint, $2::uuid) ORDER BY bucket, id LIMIT $3;

-- name: log
SELECT seq, body, facts FROM events
WHERE bucket = $1 AND profile_id = $2 AND seq > $3 AND seq <= $4 ORDER BY seq LIMIT $5;
