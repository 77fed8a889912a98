-- migrate:up

-- Who is in which audience: an index of what the profiles' documents say, written by the same commit.
CREATE TABLE audience_members (
    bucket smallint NOT NULL,
    audience text NOT NULL,
    profile_id uuid NOT NULL,
    since timestamptz NOT NULL,
    PRIMARY KEY (bucket, audience, profile_id)
);

-- How many they were, by the hour.
CREATE TABLE audience_sizes (
    audience text NOT NULL,
    at timestamptz NOT NULL,
    size bigint NOT NULL,
    PRIMARY KEY (audience, at)
);

-- migrate:down
DROP TABLE audience_sizes, audience_members;
