-- What happened, and what waits to happen: history, audit, positions. Expiry is in seconds since 1970; one far in the
-- future stands for never.
CREATE TABLE records (
    name TEXT PRIMARY KEY,
    log TEXT NOT NULL,
    place INTEGER NOT NULL,
    namespace TEXT,
    caller TEXT,
    body TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
CREATE INDEX records_in_order ON records (log, place, name);
CREATE INDEX records_by_namespace ON records (log, namespace, place, name) WHERE namespace IS NOT NULL;
CREATE INDEX records_by_caller ON records (log, caller, place, name) WHERE caller IS NOT NULL;
CREATE INDEX records_by_expiry ON records (expires_at);
