-- What has been spent and granted, how the APIs were used, and who has been told. Times are whole seconds of Unix time.

-- The numbers by which the journal names APIs.
CREATE TABLE api (
    id INTEGER PRIMARY KEY CHECK (id BETWEEN 1 AND 65535),
    name TEXT NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 64)
) STRICT;

-- How far the journal has been folded into this database, in the transaction that folded it.
CREATE TABLE journal (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    -- A random number that the journal's files carry too: another database's journal is never taken for this one's.
    lineage BLOB NOT NULL CHECK (length(lineage) = 16),
    segment INTEGER NOT NULL CHECK (segment >= 0),
    offset_bytes INTEGER NOT NULL CHECK (offset_bytes >= 0)
) STRICT;

-- What was charged, by account and billing month.
CREATE TABLE credit (
    account_id INTEGER NOT NULL REFERENCES account (id),
    period_start_unix_s INTEGER NOT NULL,
    -- The most that a plan has given for this month; a smaller plan later in the month lowers what is left, not this.
    ceiling INTEGER NOT NULL CHECK (ceiling >= 0),
    -- Charged to the month's credits. Whatever the program believes, it never goes over the ceiling.
    used INTEGER NOT NULL CHECK (used BETWEEN 0 AND ceiling),
    -- Charged to the bonus during this month.
    bonus_used INTEGER NOT NULL CHECK (bonus_used >= 0),
    PRIMARY KEY (account_id, period_start_unix_s)
) STRICT, WITHOUT ROWID;

-- Credits beside the month's: the one given at sign-up and everything granted or taken back later. Append-only.
CREATE TABLE credit_grant (
    id INTEGER PRIMARY KEY,
    account_id INTEGER NOT NULL REFERENCES account (id),
    credits INTEGER NOT NULL CHECK (credits <> 0),
    -- What makes repeating a grant harmless.
    reference TEXT NOT NULL UNIQUE CHECK (length(reference) BETWEEN 1 AND 100),
    note TEXT NOT NULL CHECK (length(note) <= 200),
    at_unix_s INTEGER NOT NULL
) STRICT;

CREATE INDEX credit_grant_of_account ON credit_grant (account_id);

CREATE TRIGGER credit_grant_is_never_changed BEFORE UPDATE ON credit_grant
BEGIN SELECT raise(ABORT, 'grants are append-only'); END;

CREATE TRIGGER credit_grant_is_never_deleted BEFORE DELETE ON credit_grant
BEGIN SELECT raise(ABORT, 'grants are append-only'); END;

-- The sum of an account's grants, and what of it has been spent.
CREATE TABLE bonus (
    account_id INTEGER PRIMARY KEY REFERENCES account (id),
    granted INTEGER NOT NULL CHECK (granted >= 0),
    -- The sum of what was given, without what was taken back.
    ceiling INTEGER NOT NULL CHECK (ceiling >= granted),
    used INTEGER NOT NULL DEFAULT 0 CHECK (used BETWEEN 0 AND ceiling)
) STRICT;

CREATE TRIGGER credit_grant_adds_up AFTER INSERT ON credit_grant
BEGIN
    INSERT INTO bonus (account_id, granted, ceiling) VALUES (new.account_id, 0, 0) ON CONFLICT DO NOTHING;
    UPDATE bonus SET granted = granted + new.credits, ceiling = ceiling + max(new.credits, 0)
        WHERE account_id = new.account_id;
END;

-- The bonus at sign-up is a grant like any other.
INSERT INTO credit_grant (account_id, credits, reference, note, at_unix_s)
    SELECT id, bonus_credits, 'sign-up:' || id, 'bonus at sign-up', signed_up_unix_s
    FROM account WHERE bonus_credits > 0 ORDER BY id;

ALTER TABLE account DROP COLUMN bonus_credits;

-- How the APIs were used, by hour.
CREATE TABLE usage_hour (
    account_id INTEGER NOT NULL REFERENCES account (id),
    -- A multiple of 3,600.
    hour_unix_s INTEGER NOT NULL,
    -- Not a reference: keys that are long gone are forgotten, what they did is not.
    key_id INTEGER NOT NULL,
    api_id INTEGER NOT NULL REFERENCES api (id),
    -- Answered with success.
    ok INTEGER NOT NULL DEFAULT 0,
    -- Refused, by cause: the caller's mistake (4xx), the limit of requests a minute, no credits left, ours (5xx).
    client_error INTEGER NOT NULL DEFAULT 0,
    rate_limited INTEGER NOT NULL DEFAULT 0,
    exhausted INTEGER NOT NULL DEFAULT 0,
    server_error INTEGER NOT NULL DEFAULT 0,
    -- Credits charged.
    credits INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (account_id, hour_unix_s, key_id, api_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_hour_by_hour ON usage_hour (hour_unix_s);

ALTER TABLE api_key ADD COLUMN last_used_unix_s INTEGER;

-- By these, keys that are long gone are found.
CREATE INDEX api_key_revoked ON api_key (revoked_unix_s) WHERE revoked_unix_s IS NOT NULL;
CREATE INDEX api_key_expiring ON api_key (expires_unix_s) WHERE expires_unix_s IS NOT NULL;
CREATE INDEX api_key_replaced ON api_key (replaced_by) WHERE replaced_by IS NOT NULL;

-- What an account is told of its credits: each threshold once a month.
CREATE TABLE notice (
    id INTEGER PRIMARY KEY,
    account_id INTEGER NOT NULL REFERENCES account (id),
    period_start_unix_s INTEGER NOT NULL,
    percent INTEGER NOT NULL CHECK (percent IN (80, 95, 100)),
    -- As they were when the threshold was seen to be reached.
    plan TEXT NOT NULL,
    used INTEGER NOT NULL,
    max INTEGER NOT NULL,
    at_unix_s INTEGER NOT NULL,
    UNIQUE (account_id, period_start_unix_s, percent)
) STRICT;

CREATE INDEX notice_by_time ON notice (at_unix_s);

-- The outbox: what of a notice is to be sent, and by which way.
CREATE TABLE delivery (
    id INTEGER PRIMARY KEY,
    notice_id INTEGER NOT NULL REFERENCES notice (id),
    channel TEXT NOT NULL CHECK (channel IN ('webhook', 'email')),
    state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'abandoned')),
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt_unix_s INTEGER NOT NULL,
    UNIQUE (notice_id, channel)
) STRICT;

CREATE INDEX delivery_due ON delivery (next_attempt_unix_s) WHERE state = 'pending';

-- The delivery log: every attempt and what came of it.
CREATE TABLE delivery_attempt (
    id INTEGER PRIMARY KEY,
    delivery_id INTEGER NOT NULL REFERENCES delivery (id),
    at_unix_s INTEGER NOT NULL,
    outcome TEXT NOT NULL CHECK (length(outcome) BETWEEN 1 AND 200)
) STRICT;

CREATE INDEX delivery_attempt_of_delivery ON delivery_attempt (delivery_id);
