-- The schema of the registry in PostgreSQL, version 2. {schema} stands for its name.
-- Times are milliseconds since 1970, keys and names SHA-256 hashes.
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
    lease_until timestamptz
);
CREATE INDEX IF NOT EXISTS session_sid ON {schema}.session (sid) WHERE sid IS NOT NULL;
CREATE INDEX IF NOT EXISTS session_subject ON {schema}.session (subject);
CREATE INDEX IF NOT EXISTS session_expires_at ON {schema}.session (expires_at);

-- Why a session ended, for as long as somebody may ask.
CREATE TABLE IF NOT EXISTS {schema}.ended (
    key bytea PRIMARY KEY,
    reason text NOT NULL,
    until bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS ended_until ON {schema}.ended (until);

-- Whom a logout token logged out: by sid (issued_at is null) or by subject.
CREATE TABLE IF NOT EXISTS {schema}.tombstone (
    name bytea PRIMARY KEY,
    issued_at bigint,
    until bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS tombstone_until ON {schema}.tombstone (until);

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
    RETURN QUERY SELECT reason, key, NULL::bigint, NULL::bytea FROM {schema}.ended WHERE key = a_key;
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

-- Whether a logout token has overtaken a session. The caller holds the locks of both names.
CREATE OR REPLACE FUNCTION {schema}.is_covered(a_sid bytea, a_subject bytea, an_issued_at bigint, a_now bigint, tolerance bigint)
RETURNS boolean LANGUAGE sql VOLATILE AS $$
    SELECT EXISTS (SELECT FROM {schema}.tombstone WHERE name = a_sid AND until > a_now)
        OR EXISTS (SELECT FROM {schema}.tombstone
                   WHERE name = a_subject AND until > a_now AND an_issued_at <= issued_at + tolerance)
$$;

CREATE OR REPLACE FUNCTION {schema}.create_session(
    a_key bytea, a_version bigint, a_sid bytea, a_subject bytea, an_issued_at bigint, an_expires_at bigint,
    a_record bytea, a_now bigint, tolerance bigint
) RETURNS SETOF {schema}.answer LANGUAGE plpgsql AS $$
BEGIN
    -- Always the subject's lock first, so that nobody waits for each other.
    PERFORM {schema}.lock_name(a_subject);
    IF a_sid IS NOT NULL THEN PERFORM {schema}.lock_name(a_sid); END IF;
    IF EXISTS (SELECT FROM {schema}.ended WHERE key = a_key) THEN
        RETURN QUERY SELECT 'exists', NULL::bytea, NULL::bigint, NULL::bytea;
    ELSIF {schema}.is_covered(a_sid, a_subject, an_issued_at, a_now, tolerance) THEN
        RETURN QUERY SELECT 'covered', NULL::bytea, NULL::bigint, NULL::bytea;
    ELSE
        INSERT INTO {schema}.session (key, version, sid, subject, issued_at, expires_at, record)
            VALUES (a_key, a_version, a_sid, a_subject, an_issued_at, an_expires_at, a_record)
            ON CONFLICT DO NOTHING;
        RETURN QUERY SELECT CASE WHEN FOUND THEN 'created' ELSE 'exists' END, NULL::bytea, NULL::bigint, NULL::bytea;
    END IF;
END $$;

-- Leases go by the clock of the store: those of replicas may differ.
CREATE OR REPLACE FUNCTION {schema}.claim(a_key bytea, a_version bigint, a_holder text, a_duration bigint)
RETURNS SETOF {schema}.answer LANGUAGE plpgsql AS $$
BEGIN
    UPDATE {schema}.session
        SET lease_holder = a_holder, lease_until = clock_timestamp() + a_duration * interval '1 millisecond'
        WHERE key = a_key AND version = a_version
            AND (lease_holder IS NULL OR lease_holder = a_holder OR lease_until <= clock_timestamp());
    IF FOUND THEN
        RETURN QUERY SELECT 'granted', NULL::bytea, NULL::bigint, NULL::bytea;
        RETURN;
    END IF;
    RETURN QUERY SELECT CASE WHEN version = a_version THEN 'held' ELSE 'changed' END, key, version, record
        FROM {schema}.session WHERE key = a_key;
    IF NOT FOUND THEN RETURN QUERY SELECT * FROM {schema}.gone(a_key); END IF;
END $$;

CREATE OR REPLACE FUNCTION {schema}.gone(a_key bytea) RETURNS SETOF {schema}.answer LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT reason FROM {schema}.ended WHERE key = a_key), 'gone'), NULL::bytea, NULL::bigint, NULL::bytea
$$;

CREATE OR REPLACE FUNCTION {schema}.release(a_key bytea, a_holder text) RETURNS SETOF {schema}.answer LANGUAGE sql AS $$
    UPDATE {schema}.session SET lease_holder = NULL, lease_until = NULL
        WHERE key = a_key AND lease_holder = a_holder
        RETURNING 'released', NULL::bytea, NULL::bigint, NULL::bytea
$$;

CREATE OR REPLACE FUNCTION {schema}.commit_session(
    a_key bytea, old_version bigint, a_sid bytea, a_subject bytea, an_issued_at bigint, an_expires_at bigint,
    a_record bytea, a_now bigint, tolerance bigint
) RETURNS SETOF {schema}.answer LANGUAGE plpgsql AS $$
BEGIN
    IF a_sid IS NOT NULL
        AND EXISTS (SELECT FROM {schema}.session WHERE key = a_key AND sid IS DISTINCT FROM a_sid)
    THEN
        PERFORM {schema}.lock_name(a_subject);
        PERFORM {schema}.lock_name(a_sid);
        IF {schema}.is_covered(a_sid, a_subject, an_issued_at, a_now, tolerance) THEN
            RETURN QUERY SELECT 'back_channel_logout', NULL::bytea, NULL::bigint, NULL::bytea;
            RETURN;
        END IF;
    END IF;
    UPDATE {schema}.session
        SET version = old_version + 1, sid = a_sid, expires_at = an_expires_at, record = a_record,
            lease_holder = NULL, lease_until = NULL
        WHERE key = a_key AND version = old_version;
    IF FOUND THEN
        RETURN QUERY SELECT 'committed', NULL::bytea, NULL::bigint, NULL::bytea;
        RETURN;
    END IF;
    RETURN QUERY SELECT 'stale', key, version, record FROM {schema}.session WHERE key = a_key;
    IF NOT FOUND THEN RETURN QUERY SELECT * FROM {schema}.gone(a_key); END IF;
END $$;

-- Ends sessions that were just deleted, and tells all replicas.
CREATE OR REPLACE FUNCTION {schema}.bury(a_key bytea, a_reason text, an_until bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO {schema}.ended (key, reason, until) VALUES (a_key, a_reason, an_until) ON CONFLICT DO NOTHING;
    PERFORM pg_notify('{schema}', encode(a_key, 'hex') || ' ' || a_reason);
END $$;

CREATE OR REPLACE FUNCTION {schema}.end_session(a_key bytea, a_reason text, an_until bigint)
RETURNS SETOF {schema}.answer LANGUAGE plpgsql AS $$
DECLARE found_one {schema}.answer;
BEGIN
    FOR found_one IN
        DELETE FROM {schema}.session WHERE key = a_key RETURNING 'ended', key, version, record
    LOOP
        PERFORM {schema}.bury(found_one.key, a_reason, an_until);
        RETURN NEXT found_one;
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION {schema}.end_by_sid(
    a_sid bytea, a_subject bytea, an_issued_at bigint, tolerance bigint, a_reason text, an_until bigint
) RETURNS SETOF {schema}.answer LANGUAGE plpgsql AS $$
DECLARE found_one {schema}.answer;
DECLARE is_empty boolean := true;
BEGIN
    IF a_subject IS NOT NULL THEN PERFORM {schema}.lock_name(a_subject); END IF;
    PERFORM {schema}.lock_name(a_sid);
    INSERT INTO {schema}.tombstone (name, until) VALUES (a_sid, an_until)
        ON CONFLICT (name) DO UPDATE SET until = greatest(tombstone.until, an_until);
    FOR found_one IN
        DELETE FROM {schema}.session WHERE sid = a_sid RETURNING 'ended', key, version, record
    LOOP
        is_empty := false;
        PERFORM {schema}.bury(found_one.key, a_reason, an_until);
        RETURN NEXT found_one;
    END LOOP;
    IF NOT is_empty OR a_subject IS NULL THEN RETURN; END IF;
    -- No later logout token could reach the sessions that have no sid.
    FOR found_one IN
        DELETE FROM {schema}.session
            WHERE subject = a_subject AND sid IS NULL AND issued_at <= an_issued_at + tolerance
            RETURNING 'ended', key, version, record
    LOOP
        PERFORM {schema}.bury(found_one.key, a_reason, an_until);
        RETURN NEXT found_one;
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION {schema}.end_by_subject(
    a_subject bytea, an_issued_at bigint, tolerance bigint, a_reason text, an_until bigint
) RETURNS SETOF {schema}.answer LANGUAGE plpgsql AS $$
DECLARE found_one {schema}.answer;
BEGIN
    PERFORM {schema}.lock_name(a_subject);
    INSERT INTO {schema}.tombstone (name, issued_at, until) VALUES (a_subject, an_issued_at, an_until)
        ON CONFLICT (name) DO UPDATE
            SET issued_at = greatest(tombstone.issued_at, an_issued_at), until = greatest(tombstone.until, an_until);
    FOR found_one IN
        DELETE FROM {schema}.session WHERE subject = a_subject AND issued_at <= an_issued_at + tolerance
            RETURNING 'ended', key, version, record
    LOOP
        PERFORM {schema}.bury(found_one.key, a_reason, an_until);
        RETURN NEXT found_one;
    END LOOP;
END $$;

-- Removes what nobody needs any more; what another replica is removing is left to it.
CREATE OR REPLACE FUNCTION {schema}.remove_expired(a_now bigint, a_batch bigint)
RETURNS SETOF {schema}.answer LANGUAGE plpgsql AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('{schema} remove_expired', 0)) THEN RETURN; END IF;
    DELETE FROM {schema}.ended WHERE key IN (SELECT key FROM {schema}.ended WHERE until <= a_now LIMIT a_batch);
    DELETE FROM {schema}.tombstone
        WHERE name IN (SELECT name FROM {schema}.tombstone WHERE until <= a_now LIMIT a_batch);
    DELETE FROM {schema}.app_data
        WHERE id IN (SELECT id FROM {schema}.app_data WHERE expires_at <= clock_timestamp() LIMIT a_batch);
    RETURN QUERY DELETE FROM {schema}.session
        WHERE key IN (SELECT key FROM {schema}.session WHERE expires_at <= a_now
                      ORDER BY expires_at LIMIT a_batch FOR UPDATE SKIP LOCKED)
        RETURNING 'expired', session.key, session.version, session.record;
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

CREATE OR REPLACE FUNCTION {schema}.load_data(an_id text) RETURNS SETOF {schema}.answer LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF pg_is_in_recovery() THEN PERFORM {schema}.refuse_standby(); END IF;
    RETURN QUERY SELECT 'found', NULL::bytea, extract(epoch FROM expires_at)::bigint, data
        FROM {schema}.app_data WHERE id = an_id AND expires_at > clock_timestamp();
END $$;

CREATE OR REPLACE FUNCTION {schema}.delete_data(an_id text) RETURNS SETOF {schema}.answer LANGUAGE sql AS $$
    DELETE FROM {schema}.app_data WHERE id = an_id RETURNING 'deleted', NULL::bytea, NULL::bigint, NULL::bytea
$$;

CREATE TABLE IF NOT EXISTS {schema}.schema_version (version bigint NOT NULL);
