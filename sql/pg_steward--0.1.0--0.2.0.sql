-- From 0.1.0 to 0.2.0: the result cache, and what is wrong with indexes.

CREATE FUNCTION steward.cache_clear() RETURNS bigint /* Result < i64, ErrorReport > */
STRICT VOLATILE PARALLEL UNSAFE
LANGUAGE c /* Rust */
AS 'MODULE_PATHNAME', 'cache_clear_wrapper';

CREATE FUNCTION steward.cache_invalidate_class(
	"class" TEXT /* & str */
) RETURNS bigint /* Result < i64, ErrorReport > */
STRICT VOLATILE PARALLEL UNSAFE
LANGUAGE c /* Rust */
AS 'MODULE_PATHNAME', 'cache_invalidate_class_wrapper';

CREATE FUNCTION steward.cache_invalidate_relation_id(
	"relation" oid /* pg_sys :: Oid */
) RETURNS bigint /* Result < i64, ErrorReport > */
STRICT VOLATILE PARALLEL UNSAFE
LANGUAGE c /* Rust */
AS 'MODULE_PATHNAME', 'cache_invalidate_relation_id_wrapper';

CREATE FUNCTION steward.cache_invalidate_role_id(
	"role" oid /* pg_sys :: Oid */
) RETURNS bigint /* Result < i64, ErrorReport > */
STRICT VOLATILE PARALLEL UNSAFE
LANGUAGE c /* Rust */
AS 'MODULE_PATHNAME', 'cache_invalidate_role_id_wrapper';

CREATE FUNCTION steward.cache_invalidate_tag(
	"tag" TEXT /* & str */
) RETURNS bigint /* Result < i64, ErrorReport > */
STRICT VOLATILE PARALLEL UNSAFE
LANGUAGE c /* Rust */
AS 'MODULE_PATHNAME', 'cache_invalidate_tag_wrapper';

CREATE FUNCTION steward.cache_stats_reset() RETURNS VOID /* Result < (), ErrorReport > */
STRICT VOLATILE PARALLEL UNSAFE
LANGUAGE c /* Rust */
AS 'MODULE_PATHNAME', 'cache_stats_reset_wrapper';

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

-- The index advisor: what is wrong with the indexes that are there.

-- A partitioned index is judged as one, by the sums over its leaves. No lock is taken but ACCESS SHARE, for a moment, on
-- what is listed, to learn its size: expressions and predicates are compared as the trees that pg_index keeps, since
-- printing them would open every table. In trees, places in the source text are noise.
CREATE VIEW steward.index_health (finding, index, relation, size_bytes, scans, last_scan, writes, related, detail, advice, caution) AS
WITH RECURSIVE since AS (
    SELECT d.stats_reset,
           CASE WHEN d.stats_reset IS NULL THEN 'since the database was made or the server last crashed'
                ELSE 'since ' || pg_catalog.to_char(d.stats_reset, 'YYYY-MM-DD HH24:MI TZ') END AS words,
           CASE WHEN d.stats_reset IS NULL THEN 'Postgres does not record when these statistics began'
                ELSE pg_catalog.format('statistics began %s days ago',
                    pg_catalog.floor(extract(epoch FROM pg_catalog.now() - d.stats_reset) / 86400)) END
           || CASE WHEN pg_catalog.pg_is_in_recovery() THEN '; these are of a standby: look at the primary, too'
                   ELSE '; standbys count scans of their own: look there, too' END AS caution
    FROM pg_catalog.pg_stat_database AS d WHERE d.datname = pg_catalog.current_database()
), tree AS (
    SELECT c.oid AS root, h.inhrelid AS member
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_inherits AS h ON h.inhparent = c.oid
    WHERE c.relkind IN ('p', 'I')
    UNION ALL
    SELECT t.root, h.inhrelid FROM tree AS t JOIN pg_catalog.pg_inherits AS h ON h.inhparent = t.member
), leaves AS (
    -- What has storage and statistics, under itself and under each partitioned relation above it.
    SELECT t.root, t.member AS leaf
    FROM tree AS t JOIN pg_catalog.pg_class AS c ON c.oid = t.member WHERE c.relkind NOT IN ('p', 'I')
    UNION ALL
    SELECT c.oid, c.oid FROM pg_catalog.pg_class AS c WHERE c.relkind IN ('r', 'm', 'i')
), extension_members AS (
    SELECT d.objid FROM pg_catalog.pg_depend AS d
    WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.deptype = 'e'
), tables AS (
    SELECT c.oid, c.relkind, n.nspname, c.relname, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name,
           pg_catalog.sum(pg_catalog.pg_stat_get_tuples_inserted(l.leaf))::bigint AS inserted,
           pg_catalog.sum(pg_catalog.pg_stat_get_tuples_updated(l.leaf))::bigint AS updated,
           pg_catalog.sum(pg_catalog.pg_stat_get_tuples_hot_updated(l.leaf))::bigint AS hot_updated,
           pg_catalog.sum(pg_catalog.pg_stat_get_tuples_deleted(l.leaf))::bigint AS deleted,
           pg_catalog.sum(greatest(s.reltuples, pg_catalog.pg_stat_get_live_tuples(l.leaf)))::bigint AS rows
    FROM pg_catalog.pg_class AS c
         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         LEFT JOIN (leaves AS l JOIN pg_catalog.pg_class AS s ON s.oid = l.leaf) ON l.root = c.oid
    WHERE c.relkind IN ('r', 'm', 'p')
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'steward')
      AND NOT pg_catalog.pg_is_other_temp_schema(n.oid)
      AND c.oid NOT IN (SELECT objid FROM extension_members)
    GROUP BY c.oid, c.relkind, n.nspname, c.relname
), index_scans AS (
    SELECT l.root, pg_catalog.sum(pg_catalog.pg_stat_get_numscans(l.leaf))::bigint AS scans
    FROM leaves AS l JOIN pg_catalog.pg_class AS c ON c.oid = l.root WHERE c.relkind IN ('i', 'I') GROUP BY l.root
), backing AS (
    -- A foreign key names the unique index that it relies on.
    SELECT k.conindid, pg_catalog.max(k.conname::text) FILTER (WHERE k.contype = 'u') AS unique_constraint,
           pg_catalog.bool_or(k.contype = 'f') AS referenced
    FROM pg_catalog.pg_constraint AS k WHERE k.conindid <> 0 GROUP BY k.conindid
), indexes AS (
    SELECT i.indexrelid AS oid, i.indrelid, c.relkind, c.relname, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name,
           c.relpages, c.reltuples, c.reloptions, m.amname, s.scans, c.relispartition AS attached,
           i.indisunique, i.indnullsnotdistinct, i.indimmediate, i.indisexclusion, i.indislive,
           i.indisprimary, i.indisreplident, i.indisclustered, b.conindid IS NOT NULL AS backs, b.unique_constraint, b.referenced,
           i.indisvalid AND i.indisready AND i.indislive AS usable,
           NOT (i.indisunique OR i.indisreplident OR i.indisclustered OR c.relispartition OR b.conindid IS NOT NULL) AS free,
           i.indnkeyatts AS key_count, i.indnatts AS column_count,
           (i.indkey::smallint[])[0:i.indnkeyatts - 1] AS keys,
           ARRAY(SELECT u FROM pg_catalog.unnest((i.indkey::smallint[])[i.indnkeyatts:]) AS u ORDER BY u) AS included,
           (i.indclass::oid[])[0:] AS classes, (i.indcollation::oid[])[0:] AS collations, (i.indoption::smallint[])[0:] AS options,
           ARRAY(SELECT o # 3 FROM pg_catalog.unnest(i.indoption::smallint[]) WITH ORDINALITY AS u(o, n) ORDER BY n)::smallint[] AS backward,
           pg_catalog.regexp_replace(i.indexprs::text, ':location -?\d+', '', 'g') AS expressions,
           pg_catalog.regexp_replace(i.indpred::text, ':location -?\d+', '', 'g') AS predicate,
           -- Options of operator classes, and of access methods whose options decide what an index can find.
           pg_catalog.concat_ws(' ', (SELECT pg_catalog.string_agg(a.attnum || a.attoptions::text, ' ' ORDER BY a.attnum)
                FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = i.indexrelid AND a.attoptions IS NOT NULL),
                CASE WHEN m.amname NOT IN ('btree', 'hash', 'gist', 'spgist', 'gin') THEN c.reloptions::text END) AS parameters
    FROM pg_catalog.pg_index AS i
         JOIN tables AS t ON t.oid = i.indrelid
         JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         JOIN pg_catalog.pg_am AS m ON m.oid = c.relam
         LEFT JOIN index_scans AS s ON s.root = i.indexrelid
         LEFT JOIN backing AS b ON b.conindid = i.indexrelid
    WHERE i.indexrelid NOT IN (SELECT objid FROM extension_members)
), foreign_keys AS (
    -- Not of a partition, whose foreign key is its table's, nor temporal or not enforced, which Postgres 18 knows.
    SELECT k.oid, k.conname, k.conrelid, k.confrelid, k.conkey,
           (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY u.n)
            FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY AS u(attnum, n)
                 JOIN pg_catalog.pg_attribute AS a ON (a.attrelid, a.attnum) = (k.conrelid, u.attnum)) AS columns
    FROM pg_catalog.pg_constraint AS k, pg_catalog.to_jsonb(k) AS later
    WHERE k.contype = 'f' AND k.conparentid = 0
      AND coalesce(later ->> 'conenforced', 'true') = 'true' AND coalesce(later ->> 'conperiod', 'false') = 'false'
), supports AS (
    -- A null references nothing, so that a partial index on what is not null serves as well.
    SELECT f.oid AS foreign_key, f.conname, x.oid AS index,
           pg_catalog.count(*) FILTER (WHERE x.scans > 0 OR NOT x.free) OVER (PARTITION BY f.oid) AS lasting
    FROM foreign_keys AS f JOIN indexes AS x ON x.indrelid = f.conrelid
    WHERE x.usable AND x.amname NOT IN ('brin', 'gin', 'bloom')
      AND x.keys[1:pg_catalog.cardinality(f.conkey)] @> f.conkey AND f.conkey @> x.keys[1:pg_catalog.cardinality(f.conkey)]
      AND (x.predicate IS NULL
           OR (pg_catalog.regexp_match(x.predicate, '^\{NULLTEST :arg \{VAR :varno 1 :varattno (\d+) [^{}]*\} :nulltesttype 1 '))[1]::smallint
              = ANY (f.conkey))
), duplicates AS (
    SELECT x.*, pg_catalog.first_value(x.oid) OVER w AS kept
    FROM indexes AS x
    WHERE x.usable AND NOT x.indisexclusion
    WINDOW w AS (PARTITION BY x.indrelid, x.amname, x.keys, x.included, x.classes, x.collations, x.options, x.expressions,
                     x.predicate, x.parameters, x.indisunique, x.indnullsnotdistinct, x.indimmediate
                 ORDER BY x.indisprimary DESC, x.indisreplident DESC, x.backs DESC, x.indisclustered DESC, x.attached DESC, x.oid)
), duplicate AS (
    SELECT d.*, k.name AS kept_name
    FROM duplicates AS d JOIN indexes AS k ON k.oid = d.kept
    WHERE d.oid <> d.kept AND NOT (d.indisreplident OR d.indisclustered OR d.attached)
), covered AS (
    -- A longer index that gives what the shorter gives, forwards or backwards. Of two that give each other's, one goes.
    SELECT x.*, l.oid AS kept, l.name AS kept_name, l.scans AS kept_scans,
           pg_catalog.row_number() OVER (PARTITION BY x.oid ORDER BY l.key_count DESC, l.column_count DESC, l.free, l.oid) AS choice
    FROM indexes AS x JOIN indexes AS l ON l.indrelid = x.indrelid AND l.amname = x.amname AND l.oid <> x.oid
    WHERE x.usable AND l.usable AND x.free
      AND (x.amname = 'btree' OR l.key_count = x.key_count)
      AND l.keys[1:x.key_count] = x.keys AND l.classes[1:x.key_count] = x.classes AND l.collations[1:x.key_count] = x.collations
      AND (l.options[1:x.key_count] = x.options OR (x.amname = 'btree' AND l.options[1:x.key_count] = x.backward))
      AND pg_catalog.starts_with(coalesce(l.expressions, ''), coalesce(pg_catalog.left(x.expressions, -1), ''))
      AND l.predicate IS NOT DISTINCT FROM x.predicate AND l.parameters = x.parameters
      AND x.included <@ (l.keys || l.included)
      AND (l.key_count, l.column_count, x.free::int, x.oid) > (x.key_count, x.column_count, l.free::int, l.oid)
      AND x.oid NOT IN (SELECT oid FROM duplicate) AND l.oid NOT IN (SELECT oid FROM duplicate)
), superfluous AS (
    SELECT d.oid, d.kept, d.scans FROM duplicate AS d
    UNION ALL
    SELECT v.oid, v.kept, v.scans FROM covered AS v WHERE v.choice = 1
    UNION ALL
    SELECT d.oid, v.kept, d.scans FROM duplicate AS d JOIN covered AS v ON v.oid = d.kept WHERE v.choice = 1
), estimates AS (
    -- What a btree built anew has at most: each column padded to the widest alignment, nothing deduplicated. An entry has
    -- a header of 8 bytes, 8 more if there are nulls, and a line pointer of 4; a page its header of 24 and 16 at its end.
    SELECT x.*, b.size AS block_size,
           pg_catalog.ceil(x.reltuples::numeric * (pg_catalog.ceil((8 + w.null_bytes + w.data_bytes) / 8.0) * 8 + 4)
               / ((b.size - 40) * coalesce(f.fillfactor, 90) / 100.0)) + 1 AS expected_pages
    FROM indexes AS x JOIN tables AS t ON t.oid = x.indrelid
         CROSS JOIN (SELECT pg_catalog.current_setting('block_size')::int AS size) AS b
         LEFT JOIN LATERAL (SELECT pg_catalog.max(o.option_value::int) AS fillfactor FROM pg_catalog.pg_options_to_table(x.reloptions) AS o
                            WHERE o.option_name = 'fillfactor') AS f ON true
         CROSS JOIN LATERAL (
            SELECT pg_catalog.count(p.width) AS known,
                   CASE WHEN pg_catalog.bool_or(p.null_frac > 0) THEN 8 ELSE 0 END AS null_bytes,
                   pg_catalog.sum(pg_catalog.ceil(p.width * (1 - p.null_frac) / p.widest) * p.widest) AS data_bytes
            FROM (SELECT s.avg_width AS width, s.null_frac::numeric,
                         pg_catalog.max(CASE a.attalign WHEN 'c' THEN 1 WHEN 's' THEN 2 WHEN 'i' THEN 4 ELSE 8 END) OVER () AS widest
                  FROM pg_catalog.pg_attribute AS a
                       LEFT JOIN pg_catalog.pg_attribute AS o ON o.attrelid = x.indrelid AND o.attnum = (x.keys || x.included)[a.attnum]
                       LEFT JOIN pg_catalog.pg_stats AS s ON NOT s.inherited
                             AND s.schemaname = t.nspname AND s.tablename = CASE WHEN o.attnum IS NULL THEN x.relname ELSE t.relname END
                             AND s.attname = coalesce(o.attname, a.attname)
                  WHERE a.attrelid = x.oid AND a.attnum > 0) AS p) AS w
    WHERE x.amname = 'btree' AND x.usable AND x.relkind = 'i' AND NOT x.indisexclusion AND x.reltuples >= 0
      AND x.relpages::bigint * b.size > 10 * 1048576 AND w.known = x.column_count
), findings AS (
    SELECT 'unused' AS finding, x.oid AS index, x.indrelid AS relation, NULL::oid AS related,
           pg_catalog.format('no scan %s', s.words) AS detail, 'drop' AS remedy,
           pg_catalog.concat_ws('; ', s.caution, (SELECT pg_catalog.format('foreign key %s has no other index in use', pg_catalog.string_agg(
                pg_catalog.quote_ident(u.conname), ', ' ORDER BY u.conname)) FROM supports AS u WHERE u.index = x.oid AND u.lasting = 0
                HAVING pg_catalog.count(*) > 0)) AS caution
    FROM indexes AS x CROSS JOIN since AS s
    WHERE x.scans = 0 AND x.free AND x.usable
      -- It will be scanned in place of the index that it makes superfluous.
      AND x.oid NOT IN (SELECT kept FROM superfluous WHERE scans > 0)
    UNION ALL
    SELECT 'duplicate', d.oid, d.indrelid, d.kept,
           pg_catalog.format('the same as %s in every respect', d.kept_name),
           CASE WHEN NOT d.backs THEN 'drop' WHEN NOT d.referenced THEN 'drop constraint' END,
           CASE WHEN d.referenced THEN 'a foreign key relies on this index'
                WHEN d.backs THEN 'takes an ACCESS EXCLUSIVE lock on the table' END
    FROM duplicate AS d
    UNION ALL
    SELECT 'redundant', v.oid, v.indrelid, v.kept,
           pg_catalog.format('whatever it finds or sorts, %s does', v.kept_name), 'drop',
           CASE WHEN v.kept_scans = 0 AND v.scans > 0
                THEN pg_catalog.format('no scan used %s yet: if nothing needs it, drop that one instead', v.kept_name)
                ELSE 'scans will read an index that may be larger' END
    FROM covered AS v WHERE v.choice = 1
    UNION ALL
    SELECT 'invalid', x.oid, x.indrelid, NULL,
           CASE WHEN x.relkind = 'I' THEN 'some partition has no valid index attached to it'
                WHEN x.relname ~ '_cc(new|old)\d*$' THEN 'left over from REINDEX CONCURRENTLY; queries do not use it, writes may'
                WHEN NOT x.indislive THEN 'left over from DROP INDEX CONCURRENTLY'
                ELSE 'left over from CREATE INDEX CONCURRENTLY; queries do not use it, writes may' END,
           CASE WHEN x.relkind = 'I' THEN NULL WHEN x.relname ~ '_cc(new|old)\d*$' OR NOT x.indislive THEN 'drop' ELSE 'reindex' END,
           CASE WHEN x.indisunique THEN 'rows that are equal may be why it failed' END
    FROM indexes AS x
    WHERE NOT x.usable
      AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_stat_progress_create_index AS p
                      WHERE p.relid = x.indrelid AND p.datname = pg_catalog.current_database())
      -- DROP INDEX CONCURRENTLY reports no progress, but holds its lock on the index.
      AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_locks AS k JOIN pg_catalog.pg_database AS d ON d.oid = k.database
                      WHERE k.locktype = 'relation' AND k.relation = x.oid AND k.mode = 'ShareUpdateExclusiveLock'
                        AND d.datname = pg_catalog.current_database())
    UNION ALL
    SELECT 'bloated', e.oid, e.indrelid, NULL,
           pg_catalog.format('%s entries would fill about %s of its %s', e.reltuples::bigint,
               pg_catalog.pg_size_pretty(e.expected_pages * e.block_size),
               pg_catalog.pg_size_pretty(e.relpages::numeric * e.block_size)), 'reindex',
           'an estimate from the widths of columns at the last ANALYZE; building it anew needs room for both'
    FROM estimates AS e WHERE e.relpages > 2 * e.expected_pages
    UNION ALL
    SELECT 'missing_foreign_key', NULL, f.conrelid, NULL,
           pg_catalog.format('foreign key %I (%s) has no index; about %s rows refer to %s, which had %s deletes and %s updates %s',
               f.conname, f.columns, t.rows, f.confrelid::regclass, coalesce(p.deleted, 0), coalesce(p.updated, 0), s.words),
           pg_catalog.format('CREATE INDEX %sON %s (%s)', CASE WHEN t.relkind <> 'p' THEN 'CONCURRENTLY ' END, t.name, f.columns),
           CASE WHEN t.relkind = 'p' THEN 'locks the table and its partitions against writes' END
    FROM foreign_keys AS f JOIN tables AS t ON t.oid = f.conrelid LEFT JOIN tables AS p ON p.oid = f.confrelid CROSS JOIN since AS s
    WHERE f.oid NOT IN (SELECT foreign_key FROM supports) AND (t.rows > 10000 OR coalesce(p.deleted, 0) > 0)
    UNION ALL
    SELECT 'hot_update', x.oid, x.indrelid, NULL,
           pg_catalog.format('%s of %s updates of the table were HOT, and %s scans used this index', t.hot_updated, t.updated, x.scans), NULL,
           'a guess: updates are HOT if they change no indexed column and find room on the page; see also the table''s fillfactor'
    FROM indexes AS x JOIN tables AS t ON t.oid = x.indrelid
    WHERE x.free AND x.usable AND t.updated > 1000 AND t.hot_updated < 0.5 * t.updated AND x.scans < 0.01 * t.updated
      -- Since Postgres 16 an index that only summarizes does not stand in the way.
      AND (x.amname <> 'brin' OR pg_catalog.current_setting('server_version_num')::int < 160000)
), measures AS (
    SELECT l.root, pg_catalog.sum(pg_catalog.pg_relation_size(l.leaf))::bigint AS size_bytes,
           pg_catalog.max((pg_catalog.to_jsonb(s) ->> 'last_idx_scan')::timestamptz) AS last_scan
    FROM leaves AS l LEFT JOIN pg_catalog.pg_stat_all_indexes AS s ON s.indexrelid = l.leaf
    WHERE l.root IN (SELECT coalesce(index, relation) FROM findings)
    GROUP BY l.root
)
SELECT f.finding, f.index::regclass, f.relation::regclass, m.size_bytes, x.scans, m.last_scan,
       t.inserted + t.updated - t.hot_updated, f.related::regclass, f.detail,
       CASE f.remedy
            WHEN 'drop' THEN pg_catalog.format('DROP INDEX %s%s', CASE WHEN x.relkind <> 'I' THEN 'CONCURRENTLY ' END, x.name)
            WHEN 'reindex' THEN pg_catalog.format('REINDEX INDEX CONCURRENTLY %s', x.name)
            WHEN 'drop constraint' THEN pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I', t.name, x.unique_constraint)
            ELSE f.remedy END,
       nullif(pg_catalog.concat_ws('; ', f.caution,
            CASE WHEN f.remedy = 'drop' AND x.relkind = 'I' THEN 'locks the table and its partitions against everything' END,
            CASE WHEN f.remedy = 'drop' AND x.expressions IS NOT NULL AND x.usable THEN 'statistics of its expressions go with it' END), '')
FROM findings AS f
     JOIN tables AS t ON t.oid = f.relation
     LEFT JOIN indexes AS x ON x.oid = f.index
     LEFT JOIN measures AS m ON m.root = coalesce(f.index, f.relation);

COMMENT ON VIEW steward.index_health IS 'What is wrong with the indexes of this database, a row for each finding; Postgres''s own, extensions'' and others'' temporary tables are left out';
COMMENT ON COLUMN steward.index_health.finding IS 'unused, duplicate, redundant (another begins with the same columns), invalid, bloated, missing_foreign_key, or hot_update (few scans, and updates that are not HOT)';
COMMENT ON COLUMN steward.index_health.index IS 'The index; null for a missing one';
COMMENT ON COLUMN steward.index_health.relation IS 'The table';
COMMENT ON COLUMN steward.index_health.size_bytes IS 'Size of the index, with all partitions; of the table where an index is missing';
COMMENT ON COLUMN steward.index_health.scans IS 'Scans of the index since statistics began';
COMMENT ON COLUMN steward.index_health.last_scan IS 'When the index was last scanned; null before Postgres 16';
COMMENT ON COLUMN steward.index_health.writes IS 'Rows inserted and updates that were not HOT since statistics began: how often the table''s indexes were written to';
COMMENT ON COLUMN steward.index_health.related IS 'The index that makes this one superfluous';
COMMENT ON COLUMN steward.index_health.detail IS 'The evidence, in words and numbers';
COMMENT ON COLUMN steward.index_health.advice IS 'A command that mends it, to be read before it is run; null where none is certain';
COMMENT ON COLUMN steward.index_health.caution IS 'What to look at before following the advice';

GRANT SELECT ON steward.index_health TO pg_read_all_stats;

CREATE FUNCTION steward.what_if(query text, add text[] DEFAULT '{}', drop regclass[] DEFAULT '{}', params jsonb DEFAULT NULL,
                                OUT cost_before double precision, OUT cost_after double precision, OUT indexes_used text[])
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'steward_what_if_1' LANGUAGE C STABLE PARALLEL UNSAFE ROWS 1;
COMMENT ON FUNCTION steward.what_if(text, text[], regclass[], jsonb) IS 'The planner''s cost of a query now, and with the indexes of CREATE INDEX commands added and others hidden; nothing is built and nothing is run; without params the plan is a generic one';

CREATE TYPE steward.suggestion_status AS ENUM (
    'proposed', 'accepted', 'building', 'verifying', 'kept', 'rolled_back', 'rejected', 'failed');
COMMENT ON TYPE steward.suggestion_status IS 'What has become of a suggested index';

CREATE TABLE steward.index_suggestions (
    suggestion_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    status           steward.suggestion_status NOT NULL DEFAULT 'proposed',
    relation         oid NOT NULL,
    ddl              text NOT NULL UNIQUE,
    kind             text NOT NULL,
    columns          text[] NOT NULL,
    size_bytes       bigint NOT NULL,
    cost_before      double precision NOT NULL,
    cost_after       double precision NOT NULL,
    improvement_pct  double precision NOT NULL,
    queries          bigint[] NOT NULL,
    write_cost       double precision NOT NULL,
    reason           jsonb NOT NULL,
    confidence       text NOT NULL,
    proposed_at      timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    rejection        text
);
COMMENT ON TABLE steward.index_suggestions IS 'Indexes that were suggested, each once; suggesting again updates a row, and one that was rejected stays so';
COMMENT ON COLUMN steward.index_suggestions.status IS 'What has become of it';
COMMENT ON COLUMN steward.index_suggestions.relation IS 'Id of the table';
COMMENT ON COLUMN steward.index_suggestions.ddl IS 'The command that makes it; CONCURRENTLY may be put in';
COMMENT ON COLUMN steward.index_suggestions.kind IS 'Access method';
COMMENT ON COLUMN steward.index_suggestions.columns IS 'Columns and expressions of the key';
COMMENT ON COLUMN steward.index_suggestions.size_bytes IS 'Estimated size';
COMMENT ON COLUMN steward.index_suggestions.cost_before IS 'Cost of the whole workload without any of the suggestions made with it: milliseconds that were captured, or the planner''s units for a given list of queries';
COMMENT ON COLUMN steward.index_suggestions.cost_after IS 'The same with all of them';
COMMENT ON COLUMN steward.index_suggestions.improvement_pct IS 'Share of that cost which would be lost again without this one, all others there';
COMMENT ON COLUMN steward.index_suggestions.queries IS 'Query ids of statements whose plans use it';
COMMENT ON COLUMN steward.index_suggestions.write_cost IS 'What keeping it up to date would have cost in this workload, in the unit of cost_before';
COMMENT ON COLUMN steward.index_suggestions.reason IS 'The evidence: cost of each statement before and after, rows written, what the choice may have missed';
COMMENT ON COLUMN steward.index_suggestions.confidence IS 'high, medium or low';
COMMENT ON COLUMN steward.index_suggestions.rejection IS 'Why it was rejected';

CREATE FUNCTION steward.suggested(queries text[], since interval, storage_budget bigint, max_indexes_per_table integer,
    OUT relation oid, OUT ddl text, OUT kind text, OUT columns text[], OUT size_bytes bigint,
    OUT cost_before double precision, OUT cost_after double precision, OUT improvement_pct double precision,
    OUT queries_helped text[], OUT write_cost double precision, OUT reason jsonb, OUT confidence text) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'steward_suggested_1' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION steward.suggested(text[], interval, bigint, integer) IS 'What suggest_indexes found, before it is kept';

CREATE FUNCTION steward.suggest_indexes(storage_budget bigint DEFAULT NULL, since interval DEFAULT interval '1 day',
                                        queries text[] DEFAULT NULL, max_indexes_per_table integer DEFAULT NULL)
    RETURNS SETOF steward.index_suggestions
    -- The names in a body of this form are bound now: the caller's search path is for his queries.
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    BEGIN ATOMIC
        WITH kept AS (
            INSERT INTO steward.index_suggestions AS s (relation, ddl, kind, columns, size_bytes, cost_before, cost_after,
                improvement_pct, queries, write_cost, reason, confidence)
            SELECT f.relation, f.ddl, f.kind, f.columns, f.size_bytes, f.cost_before, f.cost_after, f.improvement_pct,
                   f.queries_helped::pg_catalog.int8[], f.write_cost, f.reason, f.confidence
            FROM steward.suggested(suggest_indexes.queries, since, storage_budget, max_indexes_per_table) AS f
            ON CONFLICT (ddl) DO UPDATE SET
                relation = excluded.relation, size_bytes = excluded.size_bytes, cost_before = excluded.cost_before,
                cost_after = excluded.cost_after, improvement_pct = excluded.improvement_pct, queries = excluded.queries,
                write_cost = excluded.write_cost, reason = excluded.reason, confidence = excluded.confidence,
                updated_at = pg_catalog.now(),
                status = CASE WHEN s.status IN ('rolled_back', 'failed') THEN 'proposed' ELSE s.status END
            RETURNING s.*
        )
        SELECT * FROM kept WHERE kept.status <> 'rejected' ORDER BY kept.improvement_pct DESC, kept.suggestion_id;
    END;
COMMENT ON FUNCTION steward.suggest_indexes(bigint, interval, text[], integer) IS 'Indexes for what was captured within some time, or for a list of queries: chosen under a budget of bytes and of indexes per table, proved by the planner, and kept in steward.index_suggestions';

CREATE FUNCTION steward.reject_suggestion(id bigint, reason text DEFAULT NULL) RETURNS boolean
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    AS $$
        WITH rejected AS (
            UPDATE steward.index_suggestions SET status = 'rejected', rejection = reject_suggestion.reason, updated_at = now()
            WHERE suggestion_id = id RETURNING 1
        )
        SELECT count(*) > 0 FROM rejected;
    $$;
COMMENT ON FUNCTION steward.reject_suggestion(bigint, text) IS 'Rejects a suggested index for good, with a reason; false when there is no such suggestion';

CREATE FUNCTION steward.explain_suggestion(id bigint) RETURNS jsonb
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT to_jsonb(s) || jsonb_build_object('relation', s.relation::regclass::text)
        FROM steward.index_suggestions AS s WHERE s.suggestion_id = id;
    $$;
COMMENT ON FUNCTION steward.explain_suggestion(bigint) IS 'All that is known of a suggested index, as one document';

REVOKE ALL ON FUNCTION steward.what_if(text, text[], regclass[], jsonb), steward.suggested(text[], interval, bigint, integer),
    steward.suggest_indexes(bigint, interval, text[], integer), steward.reject_suggestion(bigint, text),
    steward.explain_suggestion(bigint) FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('steward.index_suggestions', '');
