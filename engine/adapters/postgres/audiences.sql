-- Who is in which audience, and how many they were. An audience's members lie in 256 buckets, each
-- found by key.

-- name: sizes
SELECT a.audience, coalesce(sum(m.size), 0)::bigint AS size
FROM unnest($1::text[]) a(audience), generate_series(0, 255) b(bucket), LATERAL (
    SELECT count(*) AS size FROM audience_members WHERE bucket = b.bucket AND audience = a.audience
) m
GROUP BY a.audience ORDER BY a.audience;

-- name: known
-- Every audience that has, or had, members.
SELECT audience FROM audience_sizes
UNION SELECT audience FROM audience_members WHERE NOT starts_with(audience, '$')
ORDER BY 1;

-- name: members
-- From behind one member on, in the order of their ids, which begin with the bucket.
SELECT m.profile_id, m.since
FROM generate_series($3::int, 255) b(bucket), LATERAL (
    SELECT profile_id, since FROM audience_members
    WHERE bucket = b.bucket AND audience = $1 AND ($2::text IS NULL OR profile_id > $2::uuid)
    ORDER BY profile_id LIMIT $4
) m
ORDER BY m.profile_id LIMIT $4;

-- name: keep_sizes
-- Once an hour, whichever engine comes first.
INSERT INTO audience_sizes (audience, at, size)
SELECT a.audience, date_trunc('hour', $2::timestamptz), coalesce(sum(m.size), 0)
FROM unnest($1::text[]) a(audience), generate_series(0, 255) b(bucket), LATERAL (
    SELECT count(*) AS size FROM audience_members WHERE bucket = b.bucket AND audience = a.audience
) m
GROUP BY a.audience
ON CONFLICT DO NOTHING;

-- name: sizes_over_time
SELECT at, size FROM audience_sizes WHERE audience = $1 AND at >= $2 ORDER BY at;

-- name: expired_sizes
DELETE FROM audience_sizes WHERE at < $1;
