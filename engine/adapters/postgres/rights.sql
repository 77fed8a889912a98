-- What a person may ask for: everything about them, and that it be gone. `rights.py` reads the statements
-- from here, by name.

-- name: tables
-- Every table that holds rows of a profile, whoever added it.
SELECT c.relname AS name,
       EXISTS (SELECT FROM pg_attribute b WHERE b.attrelid = c.oid AND b.attname = 'bucket') AS bucketed
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE a.attname = 'profile_id' AND NOT a.attisdropped AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND c.relnamespace = current_schema()::regnamespace
ORDER BY 1;

-- name: owner
SELECT profile_id FROM identities WHERE bucket = $1 AND namespace = $2 AND value = $3;

-- name: indexed
SELECT namespace, value FROM identities WHERE profile_id = ANY ($1::uuid[]) ORDER BY 1, 2;

-- name: lock
SELECT id, version, document FROM profiles WHERE bucket = bucket_of($1) AND id = $1 FOR UPDATE;

-- name: lock_merges
WITH RECURSIVE family AS (
    SELECT profile_id FROM merges WHERE survivor_id = $1
    UNION
    SELECT m.profile_id FROM merges m JOIN family f ON m.survivor_id = f.profile_id
)
SELECT m.profile_id FROM merges m JOIN family USING (profile_id) ORDER BY 1 FOR UPDATE OF m;

-- name: blank
UPDATE profiles SET version = version + 1, document = $2, merged_into = NULL
WHERE bucket = bucket_of($1) AND id = $1;

-- name: unlink
WITH gone AS (
    DELETE FROM identities WHERE profile_id = ANY ($1::uuid[]) RETURNING 1
), forgotten AS (
    UPDATE identities SET previous_id = NULL WHERE previous_id = ANY ($1::uuid[])
)
SELECT count(*) FROM gone;

-- name: unreject
WITH gone AS (
    DELETE FROM rejected WHERE id = ANY ($1::bigint[]) RETURNING 1
)
SELECT count(*) FROM gone;

-- name: rejected_of
-- Refused events are kept by nobody's name: those that hold one of these texts, and those that may hold
-- a number that ends so, however it is written.
SELECT id, received_at, code, message, item, holds
FROM rejected r, LATERAL (
    SELECT EXISTS (SELECT FROM unnest($1::bytea[]) AS t(text) WHERE position(t.text IN r.item) > 0) AS holds
) h
WHERE holds OR (cardinality($2::text[]) > 0 AND EXISTS (
    SELECT FROM unnest($2::text[]) AS e(tail)
    WHERE position(e.tail IN lower(regexp_replace(
        encode(r.item, 'escape'), '\\[0-7]{3}|[^0-9A-Za-z]+', '', 'g'))) > 0))
ORDER BY id;

-- name: note_files
UPDATE erasures SET deleted = (deleted::jsonb || jsonb_build_object('import_files', $2::int))::json
WHERE id = $1;

-- name: note_identities
INSERT INTO erased_identities (hash, erased_at) SELECT unnest($1::bytea[]), $2
ON CONFLICT (hash) DO UPDATE SET erased_at = greatest(erased_identities.erased_at, excluded.erased_at);

-- name: note
INSERT INTO erasures (id, person, asked_at, erased_at, profiles, identities, deleted)
VALUES ($1, $2, $3, clock_timestamp(), $4, $5, $6::text::json);

-- name: verified
UPDATE erasures SET left_over = $2::text::json WHERE id = $1;

-- name: receipt
SELECT id, asked_at, erased_at, profiles, identities, deleted, left_over FROM erasures WHERE id = $1;

-- name: ledger
SELECT hash, erased_at FROM erased_identities ORDER BY erased_at, hash;

-- name: identities_from
-- All identities, a page at a time, by their place.
SELECT bucket, namespace, value, profile_id FROM identities
WHERE (bucket, namespace, value) > ($1::smallint, $2::text, $3::text)
ORDER BY bucket, namespace, value LIMIT $4;

-- name: document
SELECT document FROM profiles WHERE bucket = bucket_of($1) AND id = $1;
