-- Receivers, by name; `receivers.py` reads the statements from here. What changes tells all engines.

-- name: all
SELECT * FROM receivers ORDER BY name;

-- name: find
SELECT * FROM receivers WHERE name = $1;

-- name: add
WITH added AS (
    INSERT INTO receivers (name, url, topics, purpose, without, secret, made_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT DO NOTHING
    RETURNING name
)
SELECT name, pg_notify('viewfinder', 'receivers') FROM added;

-- name: rotate
WITH rotated AS (
    UPDATE receivers SET earlier = secret, earlier_until = $3, secret = $2 WHERE name = $1 RETURNING name
)
SELECT name, pg_notify('viewfinder', 'receivers') FROM rotated;

-- name: disable
WITH disabled AS (
    UPDATE receivers SET disabled_at = $3, disabled_because = $2 WHERE name = $1 AND disabled_at IS NULL
    RETURNING name
)
SELECT name, pg_notify('viewfinder', 'receivers') FROM disabled;

-- name: enable
WITH enabled AS (
    UPDATE receivers SET disabled_at = NULL, disabled_because = NULL
    WHERE name = $1 AND disabled_at IS NOT NULL
    RETURNING name
)
SELECT name, pg_notify('viewfinder', 'receivers') FROM enabled;

-- name: remove
WITH removed AS (
    DELETE FROM receivers WHERE name = $1 RETURNING name
)
SELECT name, pg_notify('viewfinder', 'receivers') FROM removed;
