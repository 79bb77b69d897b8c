-- What every capability of pg_steward stands on: the schema's first grants, and the audit log.

GRANT USAGE ON SCHEMA steward TO PUBLIC;
COMMENT ON SCHEMA steward IS 'pg_steward: statement capture and what is built on it';

CREATE TABLE steward.audit_entries (
    audit_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    acted_at      timestamptz NOT NULL DEFAULT pg_catalog.now(),
    session_role  text NOT NULL,
    acting_role   text NOT NULL,
    action        text NOT NULL,
    arguments     jsonb NOT NULL
);
COMMENT ON TABLE steward.audit_entries IS 'Administrative actions, written by the functions that carry them out';
SELECT pg_catalog.pg_extension_config_dump('steward.audit_entries', '');
SELECT pg_catalog.pg_extension_config_dump(pg_catalog.pg_get_serial_sequence('steward.audit_entries', 'audit_id'), '');

CREATE VIEW steward.audit_log AS
    SELECT audit_id, acted_at, session_role, acting_role, action, arguments
    FROM steward.audit_entries;
COMMENT ON VIEW steward.audit_log IS 'Who did what through pg_steward''s administrative functions, as whom, when, and with which arguments';
