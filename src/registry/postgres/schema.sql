-- The schema of the registry in PostgreSQL, version 3. {schema} stands for its name.
-- Times are milliseconds since 1970 by the clock of the database, keys and names SHA-256 hashes.
--
-- All of it can be run over an older version, whose tables migration.rs has changed before. A function whose parameters
-- change gets another name, so that replicas of the older version go on until they are replaced.

CREATE SCHEMA IF NOT EXISTS {schema};

CREATE TABLE IF NOT EXISTS {schema}.session (
    key bytea PRIMARY KEY,
    version bigint NOT NULL,
    sid bytea,
    subject bytea NOT NULL,
    issued_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    record bytea NOT NULL,
    lease_holder text,
    lease_until timestamptz,
    lease_contested timestamptz,
    expires_for text,
    unconfirmed_for bigint
);
CREATE INDEX IF NOT EXISTS session_sid ON {schema}.session (sid) WHERE sid IS NOT NULL;
CREATE INDEX IF NOT EXISTS session_subject ON {schema}.session (subject);
CREATE INDEX IF NOT EXISTS session_expires_at ON {schema}.session (expires_at);

-- Why a session ended and whose it was, for as long as somebody may ask.
CREATE TABLE IF NOT EXISTS {schema}.ended (
    key bytea PRIMARY KEY,
    reason text NOT NULL,
    until bigint NOT NULL,
    subject bytea
);
CREATE INDEX IF NOT EXISTS ended_until ON {schema}.ended (until);

-- Whom a logout named and when it arrived; the latest iat of its tokens, and which tokens had it.
CREATE TABLE IF NOT EXISTS {schema}.tombstone (
    name bytea PRIMARY KEY,
    issued_at bigint,
    until bigint NOT NULL,
    arrived bigint NOT NULL,
    ids bytea[] NOT NULL
);
CREATE INDEX IF NOT EXISTS tombstone_until ON {schema}.tombstone (until);

-- Login attempts that are spent.
CREATE TABLE IF NOT EXISTS {schema}.spent (
    attempt bytea PRIMARY KEY,
    until bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS spent_until ON {schema}.spent (until);

-- Application data of tower-sessions; what is bound to a login goes with it.
CREATE TABLE IF NOT EXISTS {schema}.app_data (
    id text PRIMARY KEY,
    login bytea REFERENCES {schema}.session (key) ON DELETE CASCADE,
    data bytea NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS app_data_login ON {schema}.app_data (login) WHERE login IS NOT NULL;
CREATE INDEX IF NOT EXISTS app_data_expires_at ON {schema}.app_data (expires_at);

-- What every function answers: a word, and the sessions it is about.
DO $$ BEGIN
    IF to_regtype('{schema}.answer') IS NULL THEN
        CREATE TYPE {schema}.answer AS (word text, key bytea, version bigint, record bytea);
    END IF;
END $$;

-- The clock by which everything is dated, kept and removed: those of replicas may differ.
CREATE OR REPLACE FUNCTION {schema}.here() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint
$$;

CREATE OR REPLACE FUNCTION {schema}.store_time() RETURNS SETOF {schema}.answer LANGUAGE sql VOLATILE AS $$
    SELECT 'time', NULL::bytea, {schema}.here(), NULL::bytea
$$;

-- What only reads refuses to be read from a standby, which may not have heard of an end. What writes fails there by itself.
CREATE OR REPLACE FUNCTION {schema}.refuse_standby() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'this is a standby' USING ERRCODE = 'read_only_sql_transaction';
END $$;

-- In PL/pgSQL, which keeps the plan with the connection: statements without a name are planned each time.
CREATE OR REPLACE FUNCTION {schema}.load(a_key bytea) RETURNS SETOF {schema}.answer LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF pg_is_in_recovery() THEN PERFORM {schema}.refuse_standby(); END IF;
    RETURN QUERY SELECT 'live', key, version, record FROM {schema}.session WHERE key = a_key;
    IF FOUND THEN RETURN; END IF;
    RETURN QUERY SELECT reason, key, NULL::bigint, subject FROM {schema}.ended WHERE key = a_key;
END $$;

-- Two sessions of one name, or a session and a logout of that name, are written one after the other. Who had to wait
-- looks at what the other wrote: only READ COMMITTED shows that, the others show what was there before the wait. It is
-- set for each connection, but a pooler may not pass that on.
CREATE OR REPLACE FUNCTION {schema}.lock_name(a_name bytea) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'sessions need READ COMMITTED, this is %', upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'invalid_transaction_state',
                  HINT = 'Set default_transaction_isolation for the role, or do not go through a pooler.';
    END IF;
    IF pg_is_in_recovery() THEN PERFORM {schema}.refuse_standby(); END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('{schema}' || encode(a_name, 'hex'), 0));
END $$;

CREATE OR REPLACE FUNCTION {schema}.spend_attempt(an_attempt bytea, retention bigint)
RETURNS SETOF {schema}.answer LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO {schema}.spent (attempt, until) VALUES (an_attempt, {schema}.here() + retention) ON CONFLICT DO NOTHING;
    RETURN QUERY SELECT CASE WHEN FOUND THEN 'now' ELSE 'before' END, NULL::bytea, NULL::bigint, NULL::bytea;
END $$;

-- Stores the session of a new login, which is left so many milliseconds, the last of them only by a word of the provider. A logout covers it if the attempt began up to 30 s
-- after that arrived, and not because of it.
CREATE OR REPLACE FUNCTION {schema}.begin_session(
    a_key bytea, a_version bigint, a_sid bytea, a_subject bytea, an_issued_at bigint, time_left bigint,
    a_reason text, last_part bigint, a_record bytea, began bigint, seen bigint
) RETURNS SETOF {schema}.answer LANGUAGE plpgsql AS $$
DECLARE covered_at bigint;
BEGIN
    -- Always the subject's lock first, so that nobody waits for each other.
    PERFORM {schema}.lock_name(a_subject);
    IF a_sid IS NOT NULL THEN PERFORM {schema}.lock_name(a_sid); END IF;
    SELECT max(arrived) INTO covered_at FROM {schema}.tombstone
        WHERE name IN (coalesce(a_sid, {schema}.without_sid(a_subject)), a_subject) AND until > {schema}.here() AND began <= arrived + 30000
            AND (seen IS NULL OR seen < arrived);
    IF EXISTS (SELECT FROM {schema}.ended WHERE key = a_key) THEN
        RETURN QUERY SELECT 'exists', NULL::bytea, NULL::bigint, NULL::bytea;
    ELSIF covered_at IS NOT NULL THEN
        RETURN QUERY SELECT 'covered', NULL::bytea, covered_at, NULL::bytea;
    ELSE
        INSERT INTO {schema}.session (key, version, sid, subject, issued_at, expires_at, expires_for, unconfirmed_for, record)
            VALUES (a_key, a_version, a_sid, a_subject, an_issued_at, {schema}.here() + time_left, a_reason, last_part, a_record)
            ON CONFLICT DO NOTHING;
        RETURN QUERY SELECT CASE WHEN FOUND THEN 'created' ELSE 'exists' END, NULL::bytea, NULL::bigint, NULL::bytea;
    END IF;
END $$;

-- Whether there is another session of a sid, or of a subject where it is null.
CREATE OR REPLACE FUNCTION {schema}.has_sibling(a_key bytea, a_sid bytea, a_subject bytea)
RETURNS SETOF {schema}.answer LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF pg_is_in_recovery() THEN PERFORM {schema}.refuse_standby(); END IF;
    IF a_sid IS NULL THEN
        RETURN QUERY SELECT 'yes', key, NULL::bigint, NULL::bytea FROM {schema}.session
            WHERE subject = a_subject AND key <> a_key LIMIT 1;
    ELSE
        RETURN QUERY SELECT 'yes', key, NULL::bigint, NULL::bytea FROM {schema}.session
            WHERE sid = a_sid AND key <> a_key LIMIT 1;
    END IF;
END $$;

-- A lease that ran out is its holder's for a while more, counted from the first who asks: it may be about to commit what the
-- provider answered while the database was out of reach.
CREATE OR REPLACE FUNCTION {schema}.claim_refresh(
    a_key bytea, a_version bigint, a_holder text, a_duration bigint, grace bigint
) RETURNS SETOF {schema}.answer LANGUAGE plpgsql AS $$
BEGIN
    UPDATE {schema}.session
        SET lease_holder = a_holder, lease_until = clock_timestamp() + a_duration * interval '1 millisecond',
            lease_contested = NULL
        WHERE key = a_key AND version = a_version
            AND (lease_holder IS NULL OR lease_holder = a_holder
                OR (lease_until <= clock_timestamp()
                    AND lease_contested + grace * interval '1 millisecond' <= clock_timestamp()));
    IF FOUND THEN
        RETURN QUERY SELECT 'granted', NULL::bytea, NULL::bigint, NULL::bytea;
        RETURN;
    END IF;
    UPDATE {schema}.session SET lease_contested = clock_timestamp()
        WHERE key = a_key AND version = a_version AND lease_contested IS NULL AND lease_until <= clock_timestamp();
    RETURN QUERY SELECT CASE WHEN version = a_version THEN 'held' ELSE 'changed' END, key, version, record
        FROM {schema}.session WHERE key = a_key;
    IF NOT FOUND THEN RETURN QUERY SELECT * FROM {schema}.gone(a_key); END IF;
END $$;

CREATE OR REPLACE FUNCTION {schema}.gone(a_key bytea) RETURNS SETOF {schema}.answer LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT reason FROM {schema}.ended WHERE key = a_key), 'gone'), NULL::bytea, NULL::bigint, NULL::bytea
$$;

CREATE OR REPLACE FUNCTION {schema}.release(a_key bytea, a_holder text) RETURNS SETOF {schema}.answer LANGUAGE sql AS $$
    UPDATE {schema}.session SET lease_holder = NULL, lease_until = NULL, lease_contested = NULL
        WHERE key = a_key AND lease_holder = a_holder
        RETURNING 'released', NULL::bytea, NULL::bigint, NULL::bytea
$$;

CREATE OR REPLACE FUNCTION {schema}.replace_session(
    a_key bytea, a_version bigint, a_sid bytea, a_subject bytea, an_issued_at bigint, time_left bigint,
    a_reason text, last_part bigint, a_record bytea
) RETURNS SETOF {schema}.answer LANGUAGE plpgsql AS $$
BEGIN
    IF a_sid IS NOT NULL
        AND EXISTS (SELECT FROM {schema}.session
                    WHERE key = a_key AND version = a_version - 1 AND sid IS DISTINCT FROM a_sid)
    THEN
        PERFORM {schema}.lock_name(a_subject);
        PERFORM {schema}.lock_name(a_sid);
        IF EXISTS (SELECT FROM {schema}.tombstone WHERE name = a_sid AND until > {schema}.here()) THEN
            RETURN QUERY SELECT 'back_channel_logout', NULL::bytea, NULL::bigint, NULL::bytea;
            RETURN;
        END IF;
    END IF;
    UPDATE {schema}.session
        SET version = a_version, sid = a_sid, expires_at = {schema}.here() + time_left, expires_for = a_reason,
            unconfirmed_for = last_part, record = a_record, lease_holder = NULL, lease_until = NULL, lease_contested = NULL
        WHERE key = a_key AND version = a_version - 1;
    IF FOUND THEN
        RETURN QUERY SELECT 'committed', NULL::bytea, NULL::bigint, NULL::bytea;
        RETURN;
    END IF;
    RETURN QUERY SELECT 'stale', key, version, record FROM {schema}.session WHERE key = a_key;
    IF NOT FOUND THEN RETURN QUERY SELECT * FROM {schema}.gone(a_key); END IF;
END $$;

-- Ends sessions for good, for a reason or for that of their expiry, and tells all replicas.
CREATE OR REPLACE FUNCTION {schema}.end_sessions(keys bytea[], a_reason text, retention bigint)
RETURNS SETOF {schema}.answer LANGUAGE sql AS $$
    WITH gone AS (
        DELETE FROM {schema}.session WHERE key = ANY (keys)
            RETURNING key, version, record, subject, coalesce(a_reason, expires_for, 'absolute_lifetime') AS reason
    ), marks AS (
        INSERT INTO {schema}.ended (key, reason, until, subject)
            SELECT key, reason, {schema}.here() + retention, subject FROM gone
            ON CONFLICT DO NOTHING
    )
    SELECT 'ended', key, version, record FROM gone, pg_notify('{schema}', encode(key, 'hex') || ' ' || reason)
$$;

-- Remembers a logout, of a token or of the application (nulls). Whoever sends one token again renews nothing.
CREATE OR REPLACE FUNCTION {schema}.bury(a_name bytea, an_issued_at bigint, an_id bytea, retention bigint)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO {schema}.tombstone AS known (name, issued_at, ids, arrived, until)
        SELECT a_name, an_issued_at, array_remove(ARRAY[an_id], NULL), here, here + retention FROM {schema}.here()
        ON CONFLICT (name) DO UPDATE SET
            arrived = greatest(known.arrived, excluded.arrived),
            until = greatest(known.until, excluded.until),
            issued_at = greatest(known.issued_at, excluded.issued_at),
            -- So many tokens of one second are told apart.
            ids = CASE WHEN excluded.issued_at > coalesce(known.issued_at, 0) THEN excluded.ids
                ELSE (known.ids || excluded.ids)[greatest(cardinality(known.ids || excluded.ids) - 31, 1):] END
        WHERE known.until <= excluded.arrived OR excluded.issued_at IS NULL
            OR excluded.issued_at > coalesce(known.issued_at, 0)
            OR (excluded.issued_at = known.issued_at AND NOT known.ids @> excluded.ids)
$$;

-- The name of a subject's sessions that have no sid, for the tombstone of a logout that reached them by an unknown sid.
CREATE OR REPLACE FUNCTION {schema}.without_sid(a_subject bytea) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    SELECT a_subject || '\x00'::bytea
$$;

-- Ends the sessions of a sid, or of a subject without one, whose logins were issued at the latest then.
CREATE OR REPLACE FUNCTION {schema}.end_matching(
    a_sid bytea, a_subject bytea, latest_by_sid bigint, latest_by_subject bigint, a_reason text, mark_retention bigint,
    a_now bigint, an_issued_at bigint, an_id bytea, retention bigint
) RETURNS SETOF {schema}.answer LANGUAGE plpgsql AS $$
DECLARE keys bytea[];
DECLARE widens boolean := false;
DECLARE buries boolean;
BEGIN
    -- A token that is older than the retention overtakes nobody; by the replica's clock and by ours, one of which may be ahead.
    buries := an_issued_at IS NULL OR least(a_now, {schema}.here()) <= an_issued_at + retention;
    IF a_subject IS NOT NULL THEN PERFORM {schema}.lock_name(a_subject); END IF;
    IF a_sid IS NOT NULL THEN PERFORM {schema}.lock_name(a_sid); END IF;
    IF buries THEN PERFORM {schema}.bury(coalesce(a_sid, a_subject), an_issued_at, an_id, retention); END IF;
    IF a_sid IS NULL THEN
        SELECT array_agg(key) INTO keys FROM {schema}.session
            WHERE subject = a_subject AND (latest_by_subject IS NULL OR issued_at <= latest_by_subject);
    ELSIF EXISTS (SELECT FROM {schema}.session WHERE sid = a_sid) THEN
        SELECT array_agg(key) INTO keys FROM {schema}.session WHERE sid = a_sid AND issued_at <= latest_by_sid;
    ELSE
        -- No later logout token could reach the sessions that have no sid, nor the logins on their way to be such.
        widens := a_subject IS NOT NULL;
        SELECT array_agg(key) INTO keys FROM {schema}.session
            WHERE subject = a_subject AND sid IS NULL AND issued_at <= latest_by_subject;
    END IF;
    IF widens AND buries THEN
        PERFORM {schema}.bury({schema}.without_sid(a_subject), an_issued_at, an_id, retention);
    END IF;
    RETURN QUERY SELECT * FROM {schema}.end_sessions(keys, a_reason, mark_retention);
END $$;

-- Ends what has expired and forgets what nobody needs any more, so much at a time; the word 'more' says that there is more.
-- What another replica is at is left to it.
CREATE OR REPLACE FUNCTION {schema}.end_expired(a_batch bigint, mark_retention bigint)
RETURNS SETOF {schema}.answer LANGUAGE plpgsql AS $$
DECLARE now_here bigint := {schema}.here();
DECLARE keys bytea[];
DECLARE found_rows bigint;
DECLARE most bigint := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('{schema} remove_expired', 0)) THEN RETURN; END IF;
    DELETE FROM {schema}.ended WHERE key IN (SELECT key FROM {schema}.ended WHERE until <= now_here LIMIT a_batch);
    GET DIAGNOSTICS found_rows = ROW_COUNT; most := greatest(most, found_rows);
    DELETE FROM {schema}.tombstone
        WHERE name IN (SELECT name FROM {schema}.tombstone WHERE until <= now_here LIMIT a_batch);
    GET DIAGNOSTICS found_rows = ROW_COUNT; most := greatest(most, found_rows);
    DELETE FROM {schema}.spent
        WHERE attempt IN (SELECT attempt FROM {schema}.spent WHERE until <= now_here LIMIT a_batch);
    GET DIAGNOSTICS found_rows = ROW_COUNT; most := greatest(most, found_rows);
    DELETE FROM {schema}.app_data
        WHERE id IN (SELECT id FROM {schema}.app_data WHERE expires_at <= clock_timestamp() LIMIT a_batch);
    GET DIAGNOSTICS found_rows = ROW_COUNT; most := greatest(most, found_rows);
    SELECT array_agg(key) INTO keys FROM (
        SELECT key FROM {schema}.session WHERE expires_at <= now_here
            ORDER BY expires_at LIMIT a_batch FOR UPDATE SKIP LOCKED
    ) expired;
    RETURN QUERY SELECT * FROM {schema}.end_sessions(keys, NULL, mark_retention);
    IF greatest(most, cardinality(keys)) >= a_batch THEN
        RETURN QUERY SELECT 'more', NULL::bytea, NULL::bigint, NULL::bytea;
    END IF;
END $$;

-- A record that is gone stays gone, and data of a login that is over is not written.
CREATE OR REPLACE FUNCTION {schema}.save_data(
    an_id text, a_login bytea, a_data bytea, an_expires_at bigint, is_new boolean
) RETURNS SETOF {schema}.answer LANGUAGE plpgsql AS $$
DECLARE expiry timestamptz := to_timestamp(an_expires_at);
BEGIN
    -- The lock keeps the login from ending before the data are bound to it.
    IF a_login IS NOT NULL THEN
        PERFORM FROM {schema}.session WHERE key = a_login FOR KEY SHARE;
        IF NOT FOUND THEN
            RETURN QUERY SELECT 'dropped', NULL::bytea, NULL::bigint, NULL::bytea;
            RETURN;
        END IF;
    END IF;
    IF is_new THEN
        INSERT INTO {schema}.app_data (id, login, data, expires_at) VALUES (an_id, a_login, a_data, expiry)
            ON CONFLICT (id) DO NOTHING;
        RETURN QUERY SELECT CASE WHEN FOUND THEN 'written' ELSE 'exists' END, NULL::bytea, NULL::bigint, NULL::bytea;
    ELSE
        UPDATE {schema}.app_data SET login = a_login, data = a_data, expires_at = expiry WHERE id = an_id;
        RETURN QUERY SELECT CASE WHEN FOUND THEN 'written' ELSE 'dropped' END, NULL::bytea, NULL::bigint, NULL::bytea;
    END IF;
END $$;

-- Data of a login are found while that stands by itself; by its user's next login as long as it has not ended.
CREATE OR REPLACE FUNCTION {schema}.find_data(an_id text, only_confirmed boolean)
RETURNS SETOF {schema}.answer LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF pg_is_in_recovery() THEN PERFORM {schema}.refuse_standby(); END IF;
    RETURN QUERY SELECT 'found', NULL::bytea, extract(epoch FROM expires_at)::bigint, data
        FROM {schema}.app_data WHERE id = an_id AND expires_at > clock_timestamp()
            AND (login IS NULL OR EXISTS (
                SELECT FROM {schema}.session WHERE key = login AND {schema}.here()
                    < session.expires_at - CASE WHEN only_confirmed THEN coalesce(unconfirmed_for, 0) ELSE 0 END));
END $$;

CREATE OR REPLACE FUNCTION {schema}.delete_data(an_id text) RETURNS SETOF {schema}.answer LANGUAGE sql AS $$
    DELETE FROM {schema}.app_data WHERE id = an_id RETURNING 'deleted', NULL::bytea, NULL::bigint, NULL::bytea
$$;

CREATE TABLE IF NOT EXISTS {schema}.schema_version (version bigint NOT NULL);
