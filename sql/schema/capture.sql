-- Statement capture: views and tables.

-- The shared entries, one row each. The C symbol carries the version of the columns.
CREATE FUNCTION steward.statements_internal(
    showtext boolean,
    OUT userid oid, OUT dbid oid, OUT toplevel boolean, OUT queryid bigint, OUT query text,
    OUT plans bigint, OUT total_plan_time double precision, OUT min_plan_time double precision,
    OUT max_plan_time double precision, OUT mean_plan_time double precision, OUT stddev_plan_time double precision,
    OUT calls bigint, OUT total_exec_time double precision, OUT min_exec_time double precision,
    OUT max_exec_time double precision, OUT mean_exec_time double precision, OUT stddev_exec_time double precision,
    OUT rows bigint,
    OUT shared_blks_hit bigint, OUT shared_blks_read bigint, OUT shared_blks_dirtied bigint, OUT shared_blks_written bigint,
    OUT local_blks_hit bigint, OUT local_blks_read bigint, OUT local_blks_dirtied bigint, OUT local_blks_written bigint,
    OUT temp_blks_read bigint, OUT temp_blks_written bigint,
    OUT shared_blk_read_time double precision, OUT shared_blk_write_time double precision,
    OUT local_blk_read_time double precision, OUT local_blk_write_time double precision,
    OUT temp_blk_read_time double precision, OUT temp_blk_write_time double precision,
    OUT wal_records bigint, OUT wal_fpi bigint, OUT wal_bytes bigint, OUT wal_buffers_full bigint,
    OUT jit_functions bigint, OUT jit_generation_time double precision,
    OUT jit_inlining_count bigint, OUT jit_inlining_time double precision,
    OUT jit_optimization_count bigint, OUT jit_optimization_time double precision,
    OUT jit_emission_count bigint, OUT jit_emission_time double precision,
    OUT jit_deform_count bigint, OUT jit_deform_time double precision,
    OUT p50_ms double precision, OUT p90_ms double precision, OUT p95_ms double precision,
    OUT p99_ms double precision, OUT p999_ms double precision,
    OUT errors bigint, OUT cancelled bigint, OUT timeouts bigint, OUT terminated bigint,
    OUT failed_exec_time double precision, OUT planid bigint,
    OUT stats_since timestamptz, OUT first_seen timestamptz, OUT last_seen timestamptz
) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'steward_statements_1'
    LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION steward.statements_internal(boolean) IS 'Rows of steward.statements, with texts or without';

CREATE VIEW steward.statements AS SELECT * FROM steward.statements_internal(true);
COMMENT ON VIEW steward.statements IS 'Statistics per user, database, statement and level: pg_stat_statements'' columns, percentiles in ms (within 6.25 %, or half a microsecond), and failures';

CREATE VIEW steward.statements_info AS SELECT * FROM steward.capture_info();
COMMENT ON VIEW steward.statements_info IS 'How statement capture itself is doing: room, evictions, losses, own cost, level of degradation';

CREATE FUNCTION steward.ring_events(OUT event_id bigint, OUT kind text, OUT payload text)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'steward_ring_events_1'
    LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION steward.ring_events() IS 'Events of this database that are in shared memory, stored already or not; on a standby the only place where they are';

CREATE TYPE steward.outcome AS ENUM (
    'ok', 'error', 'cancelled', 'statement_timeout', 'lock_timeout', 'transaction_timeout', 'terminated');
COMMENT ON TYPE steward.outcome IS 'How an execution ended';

CREATE TABLE steward.slow_executions (
    event_id              bigint NOT NULL,
    captured_at           timestamptz NOT NULL,
    reason                text NOT NULL,
    outcome               steward.outcome NOT NULL,
    sqlstate              text,
    message               text,
    duration_ms           double precision NOT NULL,
    plan_ms               double precision,
    userid                oid NOT NULL,
    application_name      text,
    client_addr           text,
    pid                   integer NOT NULL,
    queryid               bigint,
    planid                bigint,
    toplevel              boolean NOT NULL,
    command               text NOT NULL,
    query                 text,
    parameters            text,
    rows                  bigint,
    shared_blks_hit       bigint,
    shared_blks_read      bigint,
    shared_blks_dirtied   bigint,
    shared_blks_written   bigint,
    local_blks_hit        bigint,
    local_blks_read       bigint,
    temp_blks_read        bigint,
    temp_blks_written     bigint,
    shared_blk_read_time  double precision,
    shared_blk_write_time double precision,
    temp_blk_read_time    double precision,
    temp_blk_write_time   double precision,
    wal_records           bigint,
    wal_fpi               bigint,
    wal_bytes             bigint,
    request_id            text,
    trace_id              text,
    span_id               text,
    tags                  jsonb,
    waits                 jsonb,
    PRIMARY KEY (captured_at, event_id)
) PARTITION BY RANGE (captured_at);
CREATE INDEX slow_executions_queryid ON steward.slow_executions (queryid, captured_at);
COMMENT ON TABLE steward.slow_executions IS 'Recorded executions, a partition a day (UTC); read them through steward.slow_queries';

CREATE TABLE steward.plan_texts (
    queryid     bigint NOT NULL,
    planid      bigint NOT NULL,
    plan        jsonb NOT NULL,
    actual      boolean NOT NULL,
    first_seen  timestamptz NOT NULL,
    last_seen   timestamptz NOT NULL,
    PRIMARY KEY (queryid, planid)
);
COMMENT ON TABLE steward.plan_texts IS 'Up to five plans of each statement, the ones seen last; read them through steward.plans';

CREATE TABLE steward.plan_switches (
    queryid     bigint NOT NULL,
    old_planid  bigint,
    new_planid  bigint NOT NULL,
    changed_at  timestamptz NOT NULL,
    histogram   bigint[],
    PRIMARY KEY (queryid, changed_at)
);
COMMENT ON TABLE steward.plan_switches IS 'When a statement was seen with another plan, and its histogram at that moment; read them through steward.plan_changes';

CREATE TABLE steward.repeated_statements (
    queryid             bigint NOT NULL,
    userid              oid NOT NULL,
    application_name    text NOT NULL,
    query               text,
    episodes            bigint NOT NULL,
    executions          bigint NOT NULL,
    max_executions      bigint NOT NULL,
    total_ms            double precision NOT NULL,
    first_seen          timestamptz NOT NULL,
    last_seen           timestamptz NOT NULL,
    example_request_id  text,
    example_executions  bigint,
    PRIMARY KEY (queryid, userid, application_name)
);
COMMENT ON TABLE steward.repeated_statements IS 'Statements that one backend ran again and again within one transaction or request; read them through steward.repeated_queries';

-- Microseconds since 2000-01-01 UTC, as Postgres counts them, as a time.
CREATE FUNCTION steward.event_time(us bigint) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    AS $$ SELECT '2000-01-01 00:00:00+00'::timestamptz + us * interval '1 microsecond' $$;
COMMENT ON FUNCTION steward.event_time(bigint) IS 'The time of an event, from its count of microseconds since 2000-01-01 UTC';

-- The executions among some events, as rows.
CREATE FUNCTION steward.executions_of(events jsonb) RETURNS SETOF steward.slow_executions
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT r.*
        FROM jsonb_array_elements(events) AS e(event),
             jsonb_populate_record(NULL::steward.slow_executions,
                 e.event || jsonb_build_object('captured_at',
                     '2000-01-01 00:00:00+00'::timestamptz + (e.event ->> 'captured_us')::bigint * interval '1 microsecond')) AS r
        WHERE e.event ->> 'kind' = 'execution'
    $$;
COMMENT ON FUNCTION steward.executions_of(jsonb) IS 'The executions among events of the ring, as rows of the table';

-- The partition of a day; made an element of the extension, so that pg_dump leaves it out.
CREATE FUNCTION steward.add_capture_partition(day date) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET client_min_messages = warning
    AS $$
    DECLARE
        partition text := 'slow_executions_' || to_char(day, 'YYYYMMDD');
    BEGIN
        IF to_regclass('steward.' || partition) IS NOT NULL THEN
            RETURN;
        END IF;
        EXECUTE format('CREATE TABLE steward.%I PARTITION OF steward.slow_executions FOR VALUES FROM (%L) TO (%L)',
            partition, day::text || ' 00:00:00+00', (day + 1)::text || ' 00:00:00+00');
        EXECUTE format('ALTER EXTENSION pg_steward ADD TABLE steward.%I', partition);
    END
    $$;
COMMENT ON FUNCTION steward.add_capture_partition(date) IS 'Makes the partition of recorded executions for a day (UTC), if it is not there';

CREATE FUNCTION steward.ingest_executions(events jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        PERFORM steward.add_capture_partition(day)
        FROM (SELECT DISTINCT (captured_at AT TIME ZONE 'UTC')::date AS day FROM steward.executions_of(events)) AS days;
        INSERT INTO steward.slow_executions
        SELECT * FROM steward.executions_of(events)
        ON CONFLICT DO NOTHING;
    END
    $$;
COMMENT ON FUNCTION steward.ingest_executions(jsonb) IS 'Stores the executions among events of the ring';

-- One plan: its text, the switch from another plan, and no more than five per statement.
CREATE FUNCTION steward.ingest_plan(event jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        id      bigint := (event ->> 'queryid')::bigint;
        now_id  bigint := (event ->> 'planid')::bigint;
        at      timestamptz := steward.event_time((event ->> 'captured_us')::bigint);
        before  bigint;
    BEGIN
        SELECT s.new_planid INTO before FROM steward.plan_switches AS s
        WHERE s.queryid = id ORDER BY s.changed_at DESC LIMIT 1;
        IF before IS DISTINCT FROM now_id THEN
            INSERT INTO steward.plan_switches
            VALUES (id, before, now_id, at,
                    ARRAY(SELECT bucket::bigint FROM jsonb_array_elements_text(event -> 'histogram') AS bucket))
            ON CONFLICT DO NOTHING;
        END IF;
        IF jsonb_typeof(event -> 'plan') = 'null' THEN
            UPDATE steward.plan_texts AS p SET last_seen = greatest(p.last_seen, at)
            WHERE p.queryid = id AND p.planid = now_id;
            RETURN;
        END IF;
        INSERT INTO steward.plan_texts AS p
        VALUES (id, now_id, event -> 'plan', (event ->> 'actual')::boolean, at, at)
        ON CONFLICT (queryid, planid) DO UPDATE SET
            last_seen = greatest(p.last_seen, excluded.last_seen),
            plan = CASE WHEN excluded.actual OR NOT p.actual THEN excluded.plan ELSE p.plan END,
            actual = excluded.actual OR p.actual;
        DELETE FROM steward.plan_texts AS p
        WHERE p.queryid = id AND p.planid IN (
            SELECT o.planid FROM steward.plan_texts AS o WHERE o.queryid = id
            ORDER BY o.last_seen DESC, o.planid OFFSET 5);
    END
    $$;
COMMENT ON FUNCTION steward.ingest_plan(jsonb) IS 'Stores one plan of a statement, and the switch if it is another than the last';

CREATE FUNCTION steward.ingest_repeat(event jsonb) RETURNS void
    LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    AS $$
        INSERT INTO steward.repeated_statements AS r
        SELECT e.queryid, e.userid, coalesce(e.application_name, ''), e.query, 1, e.executions, e.executions,
               e.total_ms, steward.event_time(e.captured_us), steward.event_time(e.captured_us), e.request_id, e.executions
        FROM jsonb_to_record(event) AS e(queryid bigint, userid oid, application_name text, query text,
             executions bigint, total_ms double precision, captured_us bigint, request_id text)
        ON CONFLICT (queryid, userid, application_name) DO UPDATE SET
            query = coalesce(r.query, excluded.query),
            episodes = r.episodes + 1,
            executions = r.executions + excluded.executions,
            max_executions = greatest(r.max_executions, excluded.max_executions),
            total_ms = r.total_ms + excluded.total_ms,
            last_seen = greatest(r.last_seen, excluded.last_seen),
            example_request_id = CASE WHEN excluded.executions >= r.example_executions
                                      THEN excluded.example_request_id ELSE r.example_request_id END,
            example_executions = greatest(r.example_executions, excluded.example_executions)
    $$;
COMMENT ON FUNCTION steward.ingest_repeat(jsonb) IS 'Adds one episode of a repeated statement';

CREATE FUNCTION steward.ingest(events jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        PERFORM steward.ingest_executions(events);
        PERFORM steward.ingest_plan(event) FROM jsonb_array_elements(events) AS event WHERE event ->> 'kind' = 'plan';
        PERFORM steward.ingest_repeat(event) FROM jsonb_array_elements(events) AS event WHERE event ->> 'kind' = 'repeat';
    END
    $$;
COMMENT ON FUNCTION steward.ingest(jsonb) IS 'Stores events of the ring; called by the background worker';

CREATE FUNCTION steward.maintain_capture(retention_minutes integer, retention_mb integer) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET client_min_messages = warning
    AS $$
    DECLARE
        today date := (now() AT TIME ZONE 'UTC')::date;
        oldest timestamptz := now() - retention_minutes * interval '1 minute';
        doomed record;
    BEGIN
        PERFORM steward.add_capture_partition(today), steward.add_capture_partition(today + 1);
        FOR doomed IN
            SELECT c.oid::regclass AS partition
            FROM (SELECT oid, relname, to_date(right(relname, 8), 'YYYYMMDD') AS day,
                         sum(pg_total_relation_size(oid)) OVER (ORDER BY relname DESC) AS newer_bytes
                  FROM pg_class
                  WHERE oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'steward.slow_executions'::regclass)) AS c
            WHERE c.day < today
              AND ((c.day + 1)::timestamp AT TIME ZONE 'UTC' <= oldest OR c.newer_bytes > retention_mb * 1048576::numeric)
        LOOP
            EXECUTE format('ALTER EXTENSION pg_steward DROP TABLE %s', doomed.partition);
            EXECUTE format('DROP TABLE %s', doomed.partition);
        END LOOP;
        DELETE FROM steward.plan_texts WHERE last_seen < oldest;
        DELETE FROM steward.plan_switches AS s
        WHERE s.changed_at < oldest
          AND EXISTS (SELECT 1 FROM steward.plan_switches AS n WHERE n.queryid = s.queryid AND n.changed_at > s.changed_at);
        DELETE FROM steward.repeated_statements WHERE last_seen < oldest;
    END
    $$;
COMMENT ON FUNCTION steward.maintain_capture(integer, integer) IS 'Makes the partitions of today and tomorrow and drops what is too old or too much; called by the background worker';

-- Who may see a user's texts is asked by plain expressions, the rule of pg_stat_activity: a function would run, and
-- with track = all be captured, once per row.
CREATE VIEW steward.slow_queries WITH (security_barrier) AS
    SELECT e.event_id, e.captured_at, e.reason, e.outcome, e.sqlstate,
           CASE WHEN m.visible THEN e.message END AS message,
           e.duration_ms, e.plan_ms, e.userid, r.rolname AS username, d.oid AS dbid, d.datname,
           CASE WHEN m.visible THEN e.application_name END AS application_name,
           CASE WHEN m.visible THEN e.client_addr END AS client_addr,
           e.pid,
           CASE WHEN m.visible THEN e.queryid END AS queryid,
           CASE WHEN m.visible THEN e.planid END AS planid,
           e.toplevel, e.command,
           CASE WHEN m.visible THEN e.query ELSE '<insufficient privilege>' END AS query,
           CASE WHEN m.visible THEN e.parameters END AS parameters,
           e.rows,
           e.shared_blks_hit, e.shared_blks_read, e.shared_blks_dirtied, e.shared_blks_written,
           e.local_blks_hit, e.local_blks_read, e.temp_blks_read, e.temp_blks_written,
           e.shared_blk_read_time, e.shared_blk_write_time, e.temp_blk_read_time, e.temp_blk_write_time,
           e.wal_records, e.wal_fpi, e.wal_bytes,
           CASE WHEN m.visible THEN e.request_id END AS request_id,
           CASE WHEN m.visible THEN e.trace_id END AS trace_id,
           CASE WHEN m.visible THEN e.span_id END AS span_id,
           CASE WHEN m.visible THEN e.tags END AS tags,
           CASE WHEN m.visible THEN e.waits END AS waits
    FROM (SELECT * FROM steward.slow_executions
          UNION ALL
          SELECT ring.*
          FROM (SELECT pg_catalog.jsonb_agg(payload::jsonb || pg_catalog.jsonb_build_object('event_id', event_id, 'kind', kind)) AS events
                FROM steward.ring_events() WHERE kind = 'execution') AS pending,
               steward.executions_of(pending.events) AS ring
          WHERE NOT EXISTS (SELECT 1 FROM steward.slow_executions AS stored
                            WHERE stored.captured_at = ring.captured_at AND stored.event_id = ring.event_id)) AS e
         CROSS JOIN LATERAL (SELECT pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')
                                    OR pg_catalog.pg_has_role(e.userid, 'USAGE') AS visible) AS m
         LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = e.userid
         LEFT JOIN pg_catalog.pg_database AS d ON d.datname = pg_catalog.current_database();
COMMENT ON VIEW steward.slow_queries IS 'Executions of this database that were slow, sampled, armed or failed, one row each, stored ones and those on their way';

CREATE VIEW steward.plans WITH (security_barrier) AS
    SELECT p.queryid, p.planid, p.plan, p.actual, p.first_seen, p.last_seen,
           e.calls, e.mean_ms, e.min_ms, e.max_ms
    FROM steward.plan_texts AS p
         LEFT JOIN LATERAL (
            SELECT pg_catalog.count(*) AS calls, pg_catalog.avg(x.duration_ms) AS mean_ms,
                   pg_catalog.min(x.duration_ms) AS min_ms, pg_catalog.max(x.duration_ms) AS max_ms
            FROM steward.slow_executions AS x
            WHERE x.queryid = p.queryid AND x.planid = p.planid AND x.outcome = 'ok') AS e ON true
    WHERE pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE');
COMMENT ON VIEW steward.plans IS 'Plans of this database''s statements, literals replaced, with the recorded executions that used them; for pg_read_all_stats';

CREATE VIEW steward.plan_changes WITH (security_barrier) AS
    SELECT s.queryid, s.old_planid, s.new_planid, s.changed_at,
           steward.percentile_between(s.histogram_before, s.histogram, 0.5) AS p50_before_ms,
           steward.percentile_between(s.histogram, s.histogram_after, 0.5) AS p50_after_ms,
           steward.percentile_between(s.histogram_before, s.histogram, 0.95) AS p95_before_ms,
           steward.percentile_between(s.histogram, s.histogram_after, 0.95) AS p95_after_ms
    FROM (SELECT queryid, old_planid, new_planid, changed_at, histogram,
                 pg_catalog.lag(histogram) OVER w AS histogram_before,
                 coalesce(pg_catalog.lead(histogram) OVER w, steward.histogram_counts(queryid)) AS histogram_after
          FROM steward.plan_switches
          WINDOW w AS (PARTITION BY queryid ORDER BY changed_at)) AS s
    WHERE s.old_planid IS NOT NULL AND pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE');
COMMENT ON VIEW steward.plan_changes IS 'When a statement changed its plan, and its p50 and p95 from the last change to this one and from this one to the next; for pg_read_all_stats';

CREATE VIEW steward.repeated_queries WITH (security_barrier) AS
    SELECT r.queryid, r.userid, u.rolname AS username, r.application_name, r.query, r.episodes, r.executions,
           r.max_executions, r.total_ms, r.first_seen, r.last_seen, r.example_request_id
    FROM steward.repeated_statements AS r
         LEFT JOIN pg_catalog.pg_roles AS u ON u.oid = r.userid
    WHERE pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') OR pg_catalog.pg_has_role(r.userid, 'USAGE');
COMMENT ON VIEW steward.repeated_queries IS 'N+1 patterns: statements that one backend ran at least repeat_threshold times within one transaction or request';

COMMENT ON FUNCTION steward.capture_info() IS 'The row of steward.statements_info';
COMMENT ON FUNCTION steward.capture_installed() IS 'Tells the background workers that this database has the extension';
COMMENT ON FUNCTION steward.histogram(bigint) IS 'Durations of a statement of this database: executions per bucket, bounds in ms, lower inclusive, upper exclusive';
COMMENT ON FUNCTION steward.histogram_counts(bigint) IS 'Executions per bucket of a statement''s histogram, all buckets';
COMMENT ON FUNCTION steward.percentile(bigint, double precision) IS 'A percentile (0 to 1) in ms of a statement of this database, within 6.25 % or half a microsecond';
COMMENT ON FUNCTION steward.percentile_between(bigint[], bigint[], double precision) IS 'A percentile (0 to 1) in ms of what was counted between two readings of histogram_counts';
COMMENT ON FUNCTION steward.statements_reset(oid, oid, bigint) IS 'Forgets the statistics of a user, a database, a statement (0: any); with no argument all, and the counters';
COMMENT ON FUNCTION steward.arm_explain(bigint, integer) IS 'Collects actual rows and times of the next executions of a statement of this database; 0 disarms';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA steward FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA steward FROM PUBLIC;
GRANT SELECT ON steward.statements, steward.statements_info, steward.slow_queries, steward.plans,
    steward.plan_changes, steward.repeated_queries TO PUBLIC;
-- A view's functions run as its reader; these show nothing that the reader may not see.
GRANT EXECUTE ON FUNCTION steward.statements_internal(boolean), steward.capture_info(), steward.ring_events(),
    steward.executions_of(jsonb), steward.histogram(bigint),
    steward.histogram_counts(bigint), steward.percentile(bigint, double precision),
    steward.percentile_between(bigint[], bigint[], double precision) TO PUBLIC;
GRANT SELECT ON steward.audit_log TO pg_read_all_stats;

DO $$ BEGIN IF pg_catalog.current_setting('pg_steward.ring_memory', true) IS NOT NULL THEN PERFORM steward.capture_installed(); END IF; END $$;
