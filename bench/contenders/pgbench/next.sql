INSERT INTO fibonacci_sequences AS known (sequence, last_index, expires_at) VALUES (:client_id, 0, :keep_until)
    ON CONFLICT (sequence) DO UPDATE SET
        last_index = CASE WHEN known.expires_at <= :now THEN 0 ELSE known.last_index + 1 END,
        expires_at = excluded.expires_at
    WHERE known.expires_at <= :now OR known.last_index < :max_index
    RETURNING last_index;
