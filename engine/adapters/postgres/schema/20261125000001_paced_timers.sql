-- migrate:up

-- Timers that concern many people at once (a schedule, sends put off to the morning) are claimed
-- apart, so that they never hold up those of people who wait.
ALTER TABLE timers ADD COLUMN paced boolean NOT NULL DEFAULT false;
DROP INDEX timers_due;
CREATE INDEX timers_due ON timers (paced, due_at);

-- migrate:down
DROP INDEX timers_due;
CREATE INDEX timers_due ON timers (due_at);
ALTER TABLE timers DROP COLUMN paced;
