-- From version 2 to version 3: what there is besides the functions of schema.sql, which is run next.

ALTER TABLE {schema}.session ADD COLUMN lease_contested timestamptz, ADD COLUMN expires_for text,
    ADD COLUMN unconfirmed_for bigint;
ALTER TABLE {schema}.ended ADD COLUMN subject bytea;
ALTER TABLE {schema}.tombstone ADD COLUMN arrived bigint, ADD COLUMN ids bytea[] NOT NULL DEFAULT '{}';
-- Version 2 remembered a logout for ten minutes from its arrival on.
UPDATE {schema}.tombstone SET arrived = until - 600000;
ALTER TABLE {schema}.tombstone ALTER COLUMN arrived SET NOT NULL, ALTER COLUMN ids DROP DEFAULT;

-- Replicas of version 2 go on until they are replaced: what they write has to say what those of version 3 look at.
CREATE OR REPLACE FUNCTION {schema}.end_by_sid(
    a_sid bytea, a_subject bytea, an_issued_at bigint, tolerance bigint, a_reason text, an_until bigint
) RETURNS SETOF {schema}.answer LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT * FROM {schema}.end_matching(
        a_sid, a_subject, an_issued_at + 30000, an_issued_at + tolerance, a_reason, 600000,
        an_issued_at, an_issued_at, NULL, 720000);
END $$;

CREATE OR REPLACE FUNCTION {schema}.end_by_subject(
    a_subject bytea, an_issued_at bigint, tolerance bigint, a_reason text, an_until bigint
) RETURNS SETOF {schema}.answer LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT * FROM {schema}.end_matching(
        NULL, a_subject, NULL, an_issued_at + tolerance, a_reason, 600000,
        an_issued_at, an_issued_at, NULL, 720000);
END $$;

-- They do not know how long a session stands by itself.
CREATE OR REPLACE FUNCTION {schema}.commit_session(
    a_key bytea, old_version bigint, a_sid bytea, a_subject bytea, an_issued_at bigint, an_expires_at bigint,
    a_record bytea, a_now bigint, tolerance bigint
) RETURNS SETOF {schema}.answer LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT * FROM {schema}.replace_session(
        a_key, old_version + 1, a_sid, a_subject, an_issued_at, an_expires_at - a_now, NULL, NULL, a_record);
END $$;

-- The application's logouts have no time of issue.
CREATE OR REPLACE FUNCTION {schema}.is_covered(
    a_sid bytea, a_subject bytea, an_issued_at bigint, a_now bigint, tolerance bigint
) RETURNS boolean LANGUAGE sql VOLATILE AS $$
    SELECT EXISTS (SELECT FROM {schema}.tombstone WHERE name = a_sid AND until > a_now)
        OR EXISTS (SELECT FROM {schema}.tombstone WHERE name = a_subject AND until > a_now
                   AND an_issued_at <= coalesce(issued_at, arrived) + tolerance)
$$;

CREATE OR REPLACE FUNCTION {schema}.claim(a_key bytea, a_version bigint, a_holder text, a_duration bigint)
RETURNS SETOF {schema}.answer LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT * FROM {schema}.claim_refresh(a_key, a_version, a_holder, a_duration, 2000);
END $$;

CREATE OR REPLACE FUNCTION {schema}.load_data(an_id text) RETURNS SETOF {schema}.answer LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT * FROM {schema}.find_data(an_id, true);
END $$;
