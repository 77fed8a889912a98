-- Accounts: who is a member, and what members are told. The index of audiences holds the members, under a
-- name that no audience has.

-- name: tell_members
-- Sets the same timer for the next members, in the order of their ids. Whoever had it already is not told
-- again: the message is the same.
WITH page AS (
    SELECT m.profile_id
    FROM generate_series($3::int, 255) b(bucket), LATERAL (
        SELECT profile_id FROM audience_members
        WHERE bucket = b.bucket AND audience = $1 AND ($2::uuid IS NULL OR profile_id > $2::uuid)
        ORDER BY profile_id LIMIT $4
    ) m
    ORDER BY m.profile_id LIMIT $4
), told AS (
    INSERT INTO timers (bucket, profile_id, id, due_at, paced, event)
    SELECT bucket_of(profile_id), profile_id, $5, $6, true, $7::text::json FROM page
    ON CONFLICT (bucket, profile_id, id) DO NOTHING
)
SELECT max(profile_id::text) AS last, count(*) AS members FROM page;

-- name: members
-- From behind one member on, in the order of their ids, which begin with the bucket.
SELECT p.version, p.document
FROM generate_series($3::int, 255) b(bucket), LATERAL (
    SELECT bucket, profile_id FROM audience_members
    WHERE bucket = b.bucket AND audience = $1 AND ($2::uuid IS NULL OR profile_id > $2::uuid)
    ORDER BY profile_id LIMIT $4
) m, LATERAL (
    SELECT version, document FROM profiles WHERE bucket = m.bucket AND id = m.profile_id
    OFFSET 0
) p
ORDER BY m.profile_id LIMIT $4;
