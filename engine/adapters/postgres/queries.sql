-- The engine's statements, by name; `store.py` reads them from here. Arrays are columns: the n-th
-- element of each belongs to the n-th row. What there are many columns of comes as JSON, which is made
-- in a third of the time.
--
-- They are planned once, perhaps while the tables are still empty. LATERAL with OFFSET 0 keeps the
-- planner from turning look-ups by key into a join with the whole table, which would be right then
-- and ruinous an hour later.

-- name: commit
-- One tick, whole. A unit is what must succeed together: the profiles of one connected component.
-- Profiles are locked first and in key order, so that two engines never wait in a circle, and the
-- version is compared under the lock. `seen` needs no lock: every event of a profile goes through
-- its version. Answers the units that were not written: those with messages seen before (with
-- what was stored for them), and those that lost to another engine.
-- Most ticks write profiles, events and decisions only: `commit_plain` is this statement without what
-- stands between `rest` and `end`, which costs the database some 100 microseconds where it has nothing to do.
WITH rows AS MATERIALIZED (
    SELECT * FROM unnest($1::int[], $2::smallint[], $3::uuid[], $4::bigint[], $5::bytea[], $6::uuid[])
        AS r(unit, bucket, id, expected, document, merged_into)
), locked AS MATERIALIZED (
    SELECT found.bucket, found.id, found.version
    FROM (SELECT bucket, id FROM rows ORDER BY bucket, id) r, LATERAL (
        SELECT p.bucket, p.id, p.version FROM profiles p
        WHERE p.bucket = r.bucket AND p.id = r.id
        FOR UPDATE
    ) found
), incoming AS MATERIALIZED (
    SELECT * FROM json_to_recordset($7::text::json) AS e(
        unit int, bucket smallint, profile_id uuid, seq bigint, received_at timestamptz,
        occurred_at timestamptz, sender text, message_id text, kind text, name text, body json, facts json,
        located boolean)
), hits AS MATERIALIZED (
    SELECT e.unit, e.profile_id, e.sender, e.message_id, s.seq
    FROM incoming e, LATERAL (
        SELECT seq FROM seen
        WHERE bucket = e.bucket AND profile_id = e.profile_id AND sender = e.sender
            AND message_id = e.message_id
        OFFSET 0
    ) s
    -- rest
    UNION ALL
    -- The identity belonged to another profile before, which may have the message.
    SELECT q.unit, q.profile_id, q.sender, q.message_id, s.seq
    FROM json_to_recordset($11::text::json) AS q(
        unit int, bucket smallint, profile_id uuid, sender text, message_id text), LATERAL (
        SELECT seq FROM seen
        WHERE bucket = q.bucket AND profile_id = q.profile_id AND sender = q.sender
            AND message_id = q.message_id
        OFFSET 0
    ) s
    -- end
), stale AS MATERIALIZED (
    SELECT r.unit FROM rows r LEFT JOIN locked l ON l.bucket = r.bucket AND l.id = r.id
    WHERE coalesce(l.version, 0) <> r.expected
    UNION
    SELECT unit FROM hits
-- rest
), links AS MATERIALIZED (
    SELECT * FROM json_to_recordset($10::text::json) AS i(
        unit int, bucket smallint, namespace text, value text, profile_id uuid, previous_id uuid)
    WHERE unit NOT IN (SELECT unit FROM stale)
), linked AS (
    INSERT INTO identities AS i (bucket, namespace, value, profile_id, previous_id)
    SELECT bucket, namespace, value, profile_id, previous_id FROM links
    ORDER BY bucket, namespace, value
    ON CONFLICT (bucket, namespace, value) DO UPDATE
        SET profile_id = excluded.profile_id, previous_id = excluded.previous_id
        WHERE i.profile_id = excluded.profile_id OR i.profile_id = excluded.previous_id
    RETURNING bucket, namespace, value
-- end
), refused AS MATERIALIZED (
    SELECT unit FROM stale
    -- rest
    UNION
    SELECT k.unit FROM links k LEFT JOIN linked i
        ON i.bucket = k.bucket AND i.namespace = k.namespace AND i.value = k.value
    WHERE i.bucket IS NULL
    -- end
), created AS (
    INSERT INTO profiles (bucket, id, version, document)
    SELECT bucket, id, 1, document FROM rows
    WHERE expected = 0 AND unit NOT IN (SELECT unit FROM refused)
    ORDER BY bucket, id
    ON CONFLICT (bucket, id) DO NOTHING
    RETURNING bucket, id
), updated AS (
    UPDATE profiles p SET version = r.expected + 1, document = r.document, merged_into = r.merged_into
    FROM rows r
    WHERE p.bucket = r.bucket AND p.id = r.id AND r.expected > 0
        AND r.unit NOT IN (SELECT unit FROM refused)
    RETURNING p.bucket, p.id
), written AS MATERIALIZED (
    SELECT r.unit, count(w.id) AS done, count(*) AS wanted
    FROM rows r LEFT JOIN (SELECT * FROM created UNION ALL SELECT * FROM updated) w
        ON w.bucket = r.bucket AND w.id = r.id
    GROUP BY r.unit
), whole AS MATERIALIZED (
    SELECT unit FROM written WHERE done = wanted
-- rest
), merged AS (
    INSERT INTO merges (bucket, profile_id, survivor_id)
    SELECT bucket, id, merged_into FROM rows
    WHERE merged_into IS NOT NULL AND unit IN (SELECT unit FROM whole)
    ON CONFLICT (bucket, profile_id) DO NOTHING
-- end
), remembered AS (
    INSERT INTO seen (bucket, profile_id, sender, message_id, seq, seen_at)
    SELECT bucket, profile_id, sender, message_id, seq, received_at FROM incoming
    WHERE unit IN (SELECT unit FROM whole)
    ORDER BY bucket, profile_id, sender, message_id
), logged AS (
    INSERT INTO events (bucket, profile_id, seq, received_at, occurred_at, sender, message_id, kind,
                        name, body, facts, located)
    SELECT bucket, profile_id, seq, received_at, occurred_at, sender, message_id, kind, name,
           body, facts, located
    FROM incoming WHERE unit IN (SELECT unit FROM whole)
), decided AS (
    INSERT INTO decisions (bucket, id, decided_at, profile_id, seq, outcome, rule, offer, reason, document)
    SELECT bucket, id, decided_at, profile_id, seq, outcome, rule, offer, reason, document
    FROM json_to_recordset($8::text::json) AS d(
        unit int, bucket smallint, id uuid, decided_at timestamptz, profile_id uuid, seq bigint,
        outcome text, rule text, offer text, reason text, document json)
    WHERE unit IN (SELECT unit FROM whole)
-- rest
), queued AS (
    INSERT INTO outbox (bucket, id, profile_id, provider, purpose, payload, expires_at, lease, leased_until)
    SELECT bucket, id, profile_id, provider, purpose, payload, expires_at, lease,
           CASE WHEN lease IS NOT NULL THEN now() + interval '30 seconds' END
    FROM json_to_recordset($9::text::json) AS o(
        unit int, bucket smallint, id uuid, profile_id uuid, provider text, purpose text, payload json,
        expires_at timestamptz, lease uuid)
    WHERE unit IN (SELECT unit FROM whole)
), rung AS (
    -- One that fired goes only if it was not moved since; one that is called off goes anyway.
    DELETE FROM timers t USING json_to_recordset($12::text::json) AS d(
        unit int, bucket smallint, profile_id uuid, id text, due_at timestamptz)
    WHERE t.bucket = d.bucket AND t.profile_id = d.profile_id AND t.id = d.id
        AND t.due_at = coalesce(d.due_at, t.due_at)
        AND d.unit IN (SELECT unit FROM whole)
), wound AS (
    INSERT INTO timers (bucket, profile_id, id, due_at, paced, event)
    SELECT bucket, profile_id, id, due_at, paced, event
    FROM json_to_recordset($13::text::json) AS s(
        unit int, bucket smallint, profile_id uuid, id text, due_at timestamptz, paced boolean, event json)
    WHERE unit IN (SELECT unit FROM whole)
    ON CONFLICT (bucket, profile_id, id) DO UPDATE
        SET due_at = excluded.due_at, paced = excluded.paced, event = excluded.event, leased_until = NULL
), members AS MATERIALIZED (
    SELECT * FROM json_to_recordset($14::text::json) AS m(
        unit int, bucket smallint, profile_id uuid, audience text, since timestamptz)
    WHERE unit IN (SELECT unit FROM whole)
), entered AS (
    INSERT INTO audience_members (bucket, audience, profile_id, since)
    SELECT bucket, audience, profile_id, since FROM members WHERE since IS NOT NULL
    ON CONFLICT (bucket, audience, profile_id) DO UPDATE SET since = excluded.since
), left_it AS (
    DELETE FROM audience_members a USING members m
    WHERE m.since IS NULL
        AND a.bucket = m.bucket AND a.audience = m.audience AND a.profile_id = m.profile_id
-- end
)
SELECT w.unit, h.profile_id, h.sender, h.message_id, h.seq,
       CASE WHEN w.done > 0
       -- rest
       OR EXISTS (
           SELECT FROM links k JOIN linked i
               ON i.bucket = k.bucket AND i.namespace = k.namespace AND i.value = k.value
           WHERE k.unit = w.unit
       )
       -- end
       THEN lost_unit() END AS lost
FROM written w LEFT JOIN hits h ON h.unit = w.unit
WHERE w.done < w.wanted;

-- name: owners
SELECT i.namespace, i.value, i.profile_id
FROM unnest($1::smallint[], $2::text[], $3::text[]) AS k(bucket, namespace, value), LATERAL (
    SELECT * FROM identities
    WHERE bucket = k.bucket AND namespace = k.namespace AND value = k.value
    OFFSET 0
) i;

-- name: documents
SELECT p.version, p.document
FROM unnest($1::smallint[], $2::uuid[]) AS k(bucket, id), LATERAL (
    SELECT version, document FROM profiles WHERE bucket = k.bucket AND id = k.id
    OFFSET 0
) p;

-- name: documents_locked
-- The caller gives the keys in their order.
SELECT p.version, p.document
FROM unnest($1::smallint[], $2::uuid[]) AS k(bucket, id), LATERAL (
    SELECT version, document FROM profiles WHERE bucket = k.bucket AND id = k.id
    FOR UPDATE
) p;

-- name: shared_messages
-- What is in both profiles of a pair; the first one is the shorter.
SELECT k.profile_id, k.other_id, s.sender, s.message_id, e.body, f.body
FROM unnest($1::uuid[], $2::uuid[]) AS k(profile_id, other_id), LATERAL (
    SELECT sender, message_id, seq FROM seen
    WHERE bucket = bucket_of(k.profile_id) AND profile_id = k.profile_id AND sender <> 'generated'
    OFFSET 0
) s, LATERAL (
    SELECT seq FROM seen
    WHERE bucket = bucket_of(k.other_id) AND profile_id = k.other_id AND sender = s.sender
        AND message_id = s.message_id
    OFFSET 0
) o
LEFT JOIN LATERAL (
    SELECT body FROM events WHERE bucket = bucket_of(k.profile_id) AND profile_id = k.profile_id AND seq = s.seq
    OFFSET 0
) e ON true
LEFT JOIN LATERAL (
    SELECT body FROM events WHERE bucket = bucket_of(k.other_id) AND profile_id = k.other_id AND seq = o.seq
    OFFSET 0
) f ON true;

-- name: erased
SELECT e.hash FROM unnest($1::bytea[]) AS k(hash), LATERAL (
    SELECT hash FROM erased_identities WHERE hash = k.hash
    OFFSET 0
) e;

-- name: decisions_of_events
SELECT d.profile_id, d.seq, d.document
FROM unnest($1::smallint[], $2::uuid[], $3::bigint[]) AS k(bucket, profile_id, seq), LATERAL (
    SELECT * FROM decisions
    WHERE bucket = k.bucket AND profile_id = k.profile_id AND seq = k.seq
    OFFSET 0
) d
ORDER BY d.id;

-- name: claim_timers
UPDATE timers t SET leased_until = now() + $3::interval
FROM (
    SELECT bucket, profile_id, id FROM timers
    WHERE paced = $4 AND due_at <= $1 AND (leased_until IS NULL OR leased_until < now())
        -- What was put off and is stopped now stays put off: $5 everything, $6 of these rules.
        AND NOT (starts_with(id, '$deferred:')
            AND ($5::boolean OR event->'properties'->>'rule' = ANY ($6::text[])))
    ORDER BY due_at LIMIT $2
    FOR UPDATE SKIP LOCKED
) d
WHERE t.bucket = d.bucket AND t.profile_id = d.profile_id AND t.id = d.id
RETURNING t.bucket, t.profile_id, t.id, t.due_at, t.event;

-- name: delete_timer
-- Unless it was moved since.
DELETE FROM timers WHERE bucket = $1 AND profile_id = $2 AND id = $3 AND due_at = $4;

-- name: next_timer
SELECT min(due_at) FROM timers WHERE due_at <= $1;

-- name: secret
INSERT INTO constants (name, value) VALUES ('identity_secret', $1) ON CONFLICT DO NOTHING;

-- name: read_secret
SELECT value FROM constants WHERE name = 'identity_secret';

-- name: keep_rejected
-- Bounded per key and day: the counter is raised first, and only what it allows is kept.
WITH counted AS (
    INSERT INTO rejected_counts AS c (key_digest, day, count)
    VALUES ($1, $2::date, cardinality($4::text[]))
    ON CONFLICT (key_digest, day) DO UPDATE SET count = c.count + cardinality($4::text[])
    RETURNING count
), kept AS (
    INSERT INTO rejected (key_digest, received_at, code, message, message_id, item)
    SELECT $1, $3, r.code, r.message, r.message_id, r.item
    FROM unnest($4::text[], $5::text[], $6::text[], $7::bytea[]) WITH ORDINALITY
        AS r(code, message, message_id, item, n), counted
    WHERE counted.count - cardinality($4::text[]) + r.n <= $8
)
SELECT count FROM counted;

-- name: recent_rejected
SELECT id, received_at, code, message, message_id, item FROM rejected
WHERE $1::bigint IS NULL OR id < $1 ORDER BY id DESC LIMIT $2;

-- name: events_of
-- Of a profile and of those that became one with it, whose numbers become greater by the offsets.
SELECT e.seq + k.more AS seq, received_at, occurred_at, message_id, kind, name, body, facts
FROM unnest($1::uuid[], $2::bigint[]) AS k(profile_id, more), LATERAL (
    SELECT * FROM events
    WHERE bucket = bucket_of(k.profile_id) AND profile_id = k.profile_id
        AND ($3::bigint IS NULL OR seq < $3 - k.more)
    ORDER BY seq DESC LIMIT $4
) e
ORDER BY 1 DESC LIMIT $4;

-- name: decisions_of
SELECT d.seq + k.more AS seq, d.document
FROM unnest($1::uuid[], $2::bigint[]) AS k(profile_id, more), LATERAL (
    SELECT * FROM decisions
    WHERE bucket = bucket_of(k.profile_id) AND profile_id = k.profile_id
        AND ($3::bigint IS NULL OR seq < $3 - k.more)
    ORDER BY seq DESC, id DESC LIMIT $4
) d
ORDER BY 1 DESC, d.id DESC LIMIT $4;

-- name: decision
-- A merge takes a decision to another bucket than its id names; its send stays in that one.
SELECT d.document, d.seq, e.facts, e.body, o.state, o.attempts, o.result
FROM decisions d
LEFT JOIN events e ON e.bucket = d.bucket AND e.profile_id = d.profile_id AND e.seq = d.seq
LEFT JOIN outbox o ON o.bucket = $1 AND o.id = d.id
WHERE d.id = $2 AND d.bucket = ANY ($3::smallint[]);

-- name: expired_rejected
DELETE FROM rejected WHERE received_at < $1;

-- name: expired_rejected_counts
DELETE FROM rejected_counts WHERE day < $1::date;

-- name: expired_seen
DELETE FROM seen WHERE seen_at < $1;

-- name: expired_suppressed
DELETE FROM decisions WHERE outcome = 'suppressed' AND decided_at < $1;

-- name: forget_positions
-- At most $2 events at a time: a long history must not hold its rows for long.
WITH old AS (
    SELECT bucket, profile_id, seq, received_at FROM events
    WHERE located AND received_at < $1 LIMIT $2
    FOR UPDATE SKIP LOCKED
)
UPDATE events e
SET located = false, body = (e.body::jsonb - 'location')::json, facts = (e.facts::jsonb - 'newest' - 'places' || '{"forgotten": true}')::json
FROM old
WHERE e.bucket = old.bucket AND e.profile_id = old.profile_id AND e.seq = old.seq
    AND e.received_at = old.received_at
RETURNING 1;

-- name: withdraw_positions
-- Of one person's events that came from some devices ('' for those of none).
UPDATE events
SET located = false, body = (body::jsonb - 'location')::json, facts = (facts::jsonb - 'newest' - 'places' || '{"forgotten": true}')::json
WHERE bucket = $1 AND profile_id = $2 AND located AND coalesce(body::jsonb #>> '{device,id}', '') = ANY ($3)
RETURNING 1;

-- name: merging
-- Whether rows of the person are still on their way from one profile to another.
SELECT 1 FROM merges
WHERE moved_at IS NULL AND (survivor_id = $1 OR (bucket = bucket_of($1) AND profile_id = $1)) LIMIT 1;

-- name: expired_outbox
DELETE FROM outbox WHERE state IN ('sent', 'dropped') AND settled_at < $1;

-- name: begin_sweep
-- The one sweep that stands is the last: rules that come back, after a rollback say, are swept for again.
WITH others AS (DELETE FROM sweeps WHERE name <> $1)
INSERT INTO sweeps (name) VALUES ($1) ON CONFLICT DO NOTHING;

-- name: sweep
-- A paced timer for everybody of the next bucket, once whichever engine asks; no row where none is left.
WITH claimed AS (
    UPDATE sweeps SET next_bucket = next_bucket + 1 WHERE name = $1 AND next_bucket < 256
    RETURNING next_bucket - 1 AS bucket
), wound AS (
    INSERT INTO timers (bucket, profile_id, id, due_at, paced, event)
    SELECT p.bucket, p.id, $2, $3, true, $4::text::json
    FROM claimed c JOIN profiles p ON p.bucket = c.bucket
    WHERE p.merged_into IS NULL
    ON CONFLICT DO NOTHING
)
SELECT bucket FROM claimed;

-- name: last_event_of
SELECT occurred_at, body FROM events
WHERE bucket = $1 AND profile_id = $2 AND kind = ANY ($3::text[]) AND name = ANY ($4::text[])
ORDER BY seq DESC LIMIT 1;

-- name: last_consideration
-- The last decision in which a rule stood as a candidate.
SELECT document FROM decisions d
WHERE bucket = $1 AND profile_id = $2 AND (rule = $3 OR EXISTS (
    SELECT FROM json_array_elements(d.document->'candidates') c WHERE c->>'rule' = $3))
ORDER BY seq DESC, id DESC LIMIT 1;

-- name: count_people
SELECT count(*) FROM profiles WHERE merged_into IS NULL;

-- name: people_after
SELECT bucket, id, document FROM profiles
WHERE merged_into IS NULL AND (bucket, id) > ($1::smallint, $2::uuid) ORDER BY bucket, id LIMIT $3;
