-- The statements about pauses, by name; `pauses.py` reads them from here.

-- name: pause
WITH made AS (
    INSERT INTO pauses (id, what, name, reason) VALUES ($1, $2, $3, $4)
    RETURNING id, what, name, reason, since
)
SELECT made.*, pg_notify('viewfinder', 'pauses') FROM made;

-- name: resume
WITH ended AS (
    UPDATE pauses SET until = now() WHERE id = $1 AND until IS NULL RETURNING id
)
SELECT id, pg_notify('viewfinder', 'pauses') FROM ended;

-- name: active
SELECT id, what, name, reason, since FROM pauses WHERE until IS NULL ORDER BY since, id;
