-- Who pays, what proves it, and what has changed. Times are whole seconds of Unix time.

CREATE TABLE account (
    id INTEGER PRIMARY KEY,
    -- In lower case, so that UNIQUE means what people mean.
    email TEXT NOT NULL UNIQUE CHECK (length(email) BETWEEN 3 AND 254),
    -- The name of a plan; plans themselves are configuration.
    plan TEXT NOT NULL CHECK (length(plan) BETWEEN 1 AND 32),
    -- What the plan gave at sign-up; a later plan gives no second one.
    bonus_credits INTEGER NOT NULL CHECK (bonus_credits >= 0),
    -- Billing months run from the day of this moment.
    signed_up_unix_s INTEGER NOT NULL,
    suspended INTEGER NOT NULL DEFAULT 0 CHECK (suspended IN (0, 1))
) STRICT;

CREATE TABLE api_key (
    id INTEGER PRIMARY KEY,
    account_id INTEGER NOT NULL REFERENCES account (id),
    -- SHA-256 of the key, which itself is stored nowhere.
    hash BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    -- By these, people tell keys apart.
    prefix TEXT NOT NULL,
    last_four TEXT NOT NULL CHECK (length(last_four) = 4),
    name TEXT NOT NULL CHECK (length(name) <= 100),
    -- JSON arrays of text, or null for "no restriction".
    scopes TEXT,
    networks TEXT,
    origins TEXT,
    created_unix_s INTEGER NOT NULL,
    expires_unix_s INTEGER,
    revoked_unix_s INTEGER,
    -- The key that took over when this one was rotated: always a later one, so that following them ends.
    replaced_by INTEGER REFERENCES api_key (id) CHECK (replaced_by > id)
) STRICT;

CREATE INDEX api_key_of_account ON api_key (account_id);

-- What running servers have to read again, appended to by every change. Only the newest rows are kept; who is
-- further behind reads everything again.
CREATE TABLE change_log (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id INTEGER NOT NULL REFERENCES account (id),
    change TEXT NOT NULL,
    at_unix_s INTEGER NOT NULL
) STRICT;
