-- What happened, and what waits to happen: history, audit, positions. Expiry is in seconds since 1970; one far in the
-- future stands for never. Names sort by their bytes, whatever the database's own order is.
CREATE TABLE records (
    name text COLLATE "C" PRIMARY KEY,
    log text COLLATE "C" NOT NULL,
    place bigint NOT NULL,
    namespace text COLLATE "C",
    caller text COLLATE "C",
    body text NOT NULL,
    expires_at bigint NOT NULL
);
CREATE INDEX records_in_order ON records (log, place, name);
CREATE INDEX records_by_namespace ON records (log, namespace, place, name) WHERE namespace IS NOT NULL;
CREATE INDEX records_by_caller ON records (log, caller, place, name) WHERE caller IS NOT NULL;
CREATE INDEX records_by_expiry ON records (expires_at);
