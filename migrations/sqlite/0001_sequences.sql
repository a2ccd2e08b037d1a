-- Where each sequence stands. Times are seconds since 1970; one far in the future stands for never.
CREATE TABLE fibonacci_sequences (
    sequence TEXT PRIMARY KEY,
    last_index INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
CREATE INDEX fibonacci_sequences_by_expiry ON fibonacci_sequences (expires_at);

-- Which index a call was given, so that its repetition is given the same.
CREATE TABLE fibonacci_retries (
    retry TEXT PRIMARY KEY,
    given_index INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
CREATE INDEX fibonacci_retries_by_expiry ON fibonacci_retries (expires_at);
