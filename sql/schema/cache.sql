-- The result cache: functions, classes, views.

CREATE TYPE steward.sensitive_rule AS ENUM ('deny', 'local', 'allow');
COMMENT ON TYPE steward.sensitive_rule IS 'What becomes of results with sensitive columns: not cached, kept by the session only, or cached';

CREATE TABLE steward.cache_classes (
    name             text PRIMARY KEY CHECK (name <> '' AND octet_length(name) < 64),
    ttl              interval NOT NULL CHECK (ttl > interval '0'),
    local            boolean NOT NULL DEFAULT true,
    shared           boolean NOT NULL DEFAULT true,
    max_result_size  bigint NOT NULL DEFAULT 1048576 CHECK (max_result_size > 0),
    role_quota       bigint CHECK (role_quota >= 0),
    sensitive        steward.sensitive_rule NOT NULL DEFAULT 'deny',
    built_in         boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE steward.cache_classes IS 'Classes of data: how long results may be served, where they are kept, how large they may be (bytes), how much a role may store (bytes), what becomes of sensitive columns';
INSERT INTO steward.cache_classes (name, ttl, built_in) VALUES
    ('financial', interval '3 minutes', true), ('admin', interval '5 minutes', true),
    ('member_data', interval '15 minutes', true), ('reporting', interval '30 minutes', true),
    ('utility', interval '1 hour', true), ('public', interval '2 hours', true);
SELECT pg_catalog.pg_extension_config_dump('steward.cache_classes', 'WHERE NOT built_in');

CREATE FUNCTION steward.cached(query text, params jsonb DEFAULT '[]', ttl interval DEFAULT NULL, class text DEFAULT NULL,
                               tags text[] DEFAULT '{}') RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'steward_cached_1' LANGUAGE C STABLE PARALLEL UNSAFE;
COMMENT ON FUNCTION steward.cached(text, jsonb, interval, text, text[]) IS 'Rows of a query that only reads, from the cache or by running it, as its caller would get them now; params bind to $1, $2 and so on';

CREATE FUNCTION steward.cached_json(query text, params jsonb DEFAULT '[]', ttl interval DEFAULT NULL, class text DEFAULT NULL,
                                    tags text[] DEFAULT '{}') RETURNS json
    AS 'MODULE_PATHNAME', 'steward_cached_json_1' LANGUAGE C STABLE PARALLEL UNSAFE;
COMMENT ON FUNCTION steward.cached_json(text, jsonb, interval, text, text[]) IS 'The rows of steward.cached as a JSON array of objects';

CREATE FUNCTION steward.cache_explain(query text, params jsonb DEFAULT '[]',
    OUT cacheable boolean, OUT reason text, OUT detail text, OUT class text, OUT ttl interval,
    OUT dependencies regclass[], OUT key_inputs jsonb, OUT state text) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'steward_cache_explain_1' LANGUAGE C STRICT STABLE PARALLEL UNSAFE ROWS 1;
COMMENT ON FUNCTION steward.cache_explain(text, jsonb) IS 'Whether a query of this caller is cached or why not, what it depends on, everything its key is made of and where that comes from, and what a call would meet now';

CREATE FUNCTION steward.cache_stats_internal(
    OUT local_hits bigint, OUT shared_hits bigint, OUT misses bigint, OUT stored bigint, OUT stored_locally bigint,
    OUT evictions bigint, OUT local_evictions bigint, OUT invalidations bigint, OUT expirations bigint,
    OUT replaced bigint, OUT dropped bigint, OUT waits bigint, OUT waits_served bigint, OUT waits_timed_out bigint,
    OUT saved_ms double precision, OUT entries bigint, OUT size_bytes bigint, OUT used_bytes bigint,
    OUT capacity_bytes bigint, OUT local_entries bigint, OUT local_bytes bigint,
    OUT local_hit_p50_ms double precision, OUT local_hit_p95_ms double precision, OUT local_hit_p99_ms double precision,
    OUT shared_hit_p50_ms double precision, OUT shared_hit_p95_ms double precision, OUT shared_hit_p99_ms double precision,
    OUT miss_p50_ms double precision, OUT miss_p95_ms double precision, OUT miss_p99_ms double precision,
    OUT stats_since timestamptz) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'steward_cache_stats_1' LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED ROWS 1;
COMMENT ON FUNCTION steward.cache_stats_internal() IS 'The row of steward.cache_stats';

CREATE VIEW steward.cache_stats AS
    SELECT s.*, (s.local_hits + s.shared_hits)::double precision / nullif(s.local_hits + s.shared_hits + s.misses, 0) AS hit_ratio
    FROM steward.cache_stats_internal() AS s;
COMMENT ON VIEW steward.cache_stats IS 'What the cache did since stats_since: hits of sessions'' own results and of shared ones, misses, what was stored and what went, times in ms; local_entries and local_bytes are of the session that asks';

CREATE FUNCTION steward.cache_reasons_internal(OUT reason text, OUT kind text, OUT count bigint, OUT detail text)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'steward_cache_reasons_1' LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED ROWS 42;
COMMENT ON FUNCTION steward.cache_reasons_internal() IS 'The rows of steward.cache_misses';

CREATE VIEW steward.cache_misses AS SELECT reason, kind, count, detail FROM steward.cache_reasons_internal();
COMMENT ON VIEW steward.cache_misses IS 'How often calls were not served, or results not kept, and why: because of the query, of the call, or of what was there';

CREATE FUNCTION steward.cache_class_stats_internal(OUT class text, OUT local_hits bigint, OUT shared_hits bigint,
    OUT misses bigint, OUT stored bigint, OUT evictions bigint, OUT invalidations bigint, OUT entries bigint,
    OUT size_bytes bigint, OUT saved_ms double precision) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'steward_cache_class_stats_1' LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED ROWS 6;
COMMENT ON FUNCTION steward.cache_class_stats_internal() IS 'The rows of steward.cache_class_stats';

CREATE VIEW steward.cache_class_stats AS SELECT * FROM steward.cache_class_stats_internal();
COMMENT ON VIEW steward.cache_class_stats IS 'The counts of steward.cache_stats for each class that was used';

CREATE FUNCTION steward.cache_query_stats_internal(OUT query_number bigint, OUT userid oid, OUT dbid oid, OUT query text,
    OUT local_hits bigint, OUT shared_hits bigint,
    OUT misses bigint, OUT stored bigint, OUT evictions bigint, OUT invalidations bigint, OUT entries bigint,
    OUT size_bytes bigint, OUT saved_ms double precision) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'steward_cache_query_stats_1' LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED ROWS 1000;
COMMENT ON FUNCTION steward.cache_query_stats_internal() IS 'The rows of steward.cache_query_stats';

CREATE VIEW steward.cache_query_stats AS SELECT * FROM steward.cache_query_stats_internal();
COMMENT ON VIEW steward.cache_query_stats IS 'The counts of steward.cache_stats for each query and role, the 1,000 used last; texts of others are hidden as in pg_stat_activity';

CREATE FUNCTION steward.cache_entries_internal(OUT entry text, OUT query_number bigint, OUT query text, OUT userid oid,
    OUT class text, OUT rows bigint, OUT size_bytes bigint, OUT age_ms double precision, OUT hits bigint,
    OUT exec_ms double precision, OUT saved_ms double precision, OUT is_current boolean, OUT is_compressed boolean,
    OUT is_sensitive boolean, OUT dependencies regclass[]) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'steward_cache_entries_1' LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED ROWS 10000;
COMMENT ON FUNCTION steward.cache_entries_internal() IS 'The rows of steward.cache_entries';

CREATE VIEW steward.cache_entries AS SELECT * FROM steward.cache_entries_internal();
COMMENT ON VIEW steward.cache_entries IS 'Shared results of this database; not their contents, nor their parameters. is_current: no commit has made it untrue';

CREATE VIEW steward.cache_dependencies AS
    SELECT e.entry, e.query_number, d.relation
    FROM steward.cache_entries_internal() AS e, LATERAL pg_catalog.unnest(e.dependencies) AS d(relation);
COMMENT ON VIEW steward.cache_dependencies IS 'Which shared result of this database depends on which relation';

CREATE FUNCTION steward.cache_hottest(n integer DEFAULT 10) RETURNS SETOF steward.cache_entries
    LANGUAGE sql VOLATILE STRICT PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
    AS $$ SELECT * FROM steward.cache_entries ORDER BY hits DESC, saved_ms DESC, entry LIMIT greatest(n, 0) $$;
COMMENT ON FUNCTION steward.cache_hottest(integer) IS 'The shared results of this database that are used most';

CREATE FUNCTION steward.cache_coldest(n integer DEFAULT 10) RETURNS SETOF steward.cache_entries
    LANGUAGE sql VOLATILE STRICT PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
    AS $$ SELECT * FROM steward.cache_entries ORDER BY hits, saved_ms, entry LIMIT greatest(n, 0) $$;
COMMENT ON FUNCTION steward.cache_coldest(integer) IS 'The shared results of this database that are used least';

CREATE FUNCTION steward.cache_invalidate_role(role regrole) RETURNS bigint
    LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT steward.cache_invalidate_role_id(role::oid) $$;

CREATE FUNCTION steward.cache_invalidate(relation regclass) RETURNS bigint
    LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT steward.cache_invalidate_relation_id(relation::oid) $$;

COMMENT ON FUNCTION steward.cache_invalidate_relation_id(oid) IS 'What steward.cache_invalidate does, by the relation''s id';
COMMENT ON FUNCTION steward.cache_invalidate(regclass) IS 'Drops the results that depend on a relation when the transaction commits; gives how many shared ones do';
COMMENT ON FUNCTION steward.cache_invalidate_tag(text) IS 'Drops the results that were given a tag when the transaction commits; gives how many shared ones were';
COMMENT ON FUNCTION steward.cache_invalidate_class(text) IS 'Drops the results of a class when the transaction commits; gives how many shared ones there are';
COMMENT ON FUNCTION steward.cache_invalidate_role(regrole) IS 'Drops the results that a role computed when the transaction commits; gives how many shared ones there are';
COMMENT ON FUNCTION steward.cache_invalidate_role_id(oid) IS 'What steward.cache_invalidate_role does, by the role''s id';
COMMENT ON FUNCTION steward.cache_clear() IS 'Drops all results of this database when the transaction commits; gives how many shared ones there are';
COMMENT ON FUNCTION steward.cache_stats_reset() IS 'Sets the statistics of the cache back, of the whole server';

REVOKE ALL ON FUNCTION steward.cache_invalidate(regclass), steward.cache_invalidate_relation_id(oid), steward.cache_invalidate_tag(text), steward.cache_invalidate_class(text),
    steward.cache_invalidate_role(regrole), steward.cache_invalidate_role_id(oid), steward.cache_clear(),
    steward.cache_stats_reset() FROM PUBLIC;
GRANT SELECT ON steward.cache_classes, steward.cache_stats, steward.cache_misses, steward.cache_class_stats,
    steward.cache_query_stats, steward.cache_entries, steward.cache_dependencies TO PUBLIC;
