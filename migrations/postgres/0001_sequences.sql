-- Where each sequence stands. Times are seconds since 1970; one far in the future stands for never.
-- Half of each page stays free, so that a step finds room beside the row that it replaces.
CREATE TABLE fibonacci_sequences (
    sequence text PRIMARY KEY,
    last_index bigint NOT NULL,
    expires_at bigint NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX fibonacci_sequences_by_expiry ON fibonacci_sequences (expires_at);

-- Which index a call was given, so that its repetition is given the same.
CREATE TABLE fibonacci_retries (
    retry text PRIMARY KEY,
    given_index bigint NOT NULL,
    expires_at bigint NOT NULL
);
CREATE INDEX fibonacci_retries_by_expiry ON fibonacci_retries (expires_at);

-- The next index of a sequence; NULL, and no change, when that would exceed the last one allowed.
CREATE FUNCTION fibonacci_next(the_sequence text, max_index bigint, right_now bigint, keep_until bigint)
RETURNS bigint LANGUAGE sql AS $$
    INSERT INTO fibonacci_sequences AS known (sequence, last_index, expires_at)
    VALUES (the_sequence, 0, keep_until)
    ON CONFLICT (sequence) DO UPDATE SET
        last_index = CASE WHEN known.expires_at <= right_now THEN 0 ELSE known.last_index + 1 END,
        expires_at = excluded.expires_at
    WHERE known.expires_at <= right_now OR known.last_index < max_index
    RETURNING last_index
$$;

-- The same for a call that may be repeated: one round trip, and both rows change or neither.
CREATE FUNCTION fibonacci_next_once(
    the_sequence text, max_index bigint, right_now bigint, keep_until bigint, the_retry text, retry_until bigint
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    given bigint;
BEGIN
    -- A repetition waits here for the call that it repeats, and then sees what that one has left.
    PERFORM pg_advisory_xact_lock(hashtextextended(the_retry, 0));
    SELECT given_index INTO given FROM fibonacci_retries WHERE retry = the_retry AND expires_at > right_now;
    IF FOUND THEN
        RETURN given;
    END IF;
    given := fibonacci_next(the_sequence, max_index, right_now, keep_until);
    IF given IS NOT NULL THEN
        INSERT INTO fibonacci_retries (retry, given_index, expires_at) VALUES (the_retry, given, retry_until)
        ON CONFLICT (retry) DO UPDATE SET given_index = excluded.given_index, expires_at = excluded.expires_at;
    END IF;
    RETURN given;
END
$$;
