-- migrate:up

-- The audit log's last entry, so that a log that was cut off at its end is noticed. One row.
CREATE TABLE audit_head (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    seq bigint NOT NULL,
    hash bytea NOT NULL
);
INSERT INTO audit_head (seq, hash)
    SELECT coalesce(max(seq), 0), coalesce((SELECT hash FROM audit ORDER BY seq DESC LIMIT 1), ''::bytea) FROM audit;

-- When the copies of what was before a merge were let go: it cannot be taken back any more.
ALTER TABLE merges ADD COLUMN forgotten_at timestamptz;
CREATE INDEX merges_reversible ON merges (merged_at) WHERE forgotten_at IS NULL;

-- migrate:down
DROP INDEX merges_reversible;
ALTER TABLE merges DROP COLUMN forgotten_at;
DROP TABLE audit_head;
