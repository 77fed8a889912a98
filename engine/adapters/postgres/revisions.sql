-- The statements about revisions, by name; `revisions.py` reads them from here.

-- name: missing
SELECT d FROM unnest($1::bytea[]) AS d WHERE NOT EXISTS (SELECT FROM contents c WHERE c.digest = d);

-- name: keep_content
INSERT INTO contents (digest, content) VALUES ($1, $2) ON CONFLICT DO NOTHING;

-- name: keep
INSERT INTO revisions (id, files) VALUES ($1, $2::text::json) ON CONFLICT DO NOTHING;

-- name: lock
-- One publication at a time, so that the last one is the last.
SELECT pg_advisory_xact_lock(hashtext('viewfinder publications'));

-- name: active
SELECT p.id, p.revision, p.published_at, p.how FROM publications p ORDER BY p.id DESC LIMIT 1;

-- name: publish
INSERT INTO publications (revision, how) VALUES ($1, $2);

-- name: tell
SELECT pg_notify('viewfinder', $1);

-- name: history
SELECT p.id, p.revision, p.published_at, p.how FROM publications p ORDER BY p.id DESC LIMIT $1;

-- name: used
-- What the event log was decided by.
SELECT DISTINCT facts->>'revision' AS id FROM events;

-- name: files
SELECT files FROM revisions WHERE id = $1;

-- name: named
SELECT id FROM revisions WHERE starts_with(id, $1) LIMIT 2;

-- name: contents
SELECT encode(digest, 'hex') AS digest, content FROM contents WHERE digest = ANY ($1::bytea[]);
