-- What the extension adds to a database: the same on every version of Postgres.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;

-- Columns of the views.
SELECT c.relname AS view, a.attnum AS n, a.attname AS "column", format_type(a.atttypid, a.atttypmod) AS type
FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
WHERE c.relnamespace = 'steward'::regnamespace AND c.relkind = 'v' AND a.attnum > 0
ORDER BY c.relname, a.attnum;

-- Every column of pg_stat_statements 1.10 to 1.12 that was not renamed since is there under its name.
SELECT name AS missing
FROM unnest('{userid,dbid,toplevel,queryid,query,plans,total_plan_time,min_plan_time,max_plan_time,mean_plan_time,
    stddev_plan_time,calls,total_exec_time,min_exec_time,max_exec_time,mean_exec_time,stddev_exec_time,rows,
    shared_blks_hit,shared_blks_read,shared_blks_dirtied,shared_blks_written,local_blks_hit,local_blks_read,
    local_blks_dirtied,local_blks_written,temp_blks_read,temp_blks_written,shared_blk_read_time,shared_blk_write_time,
    local_blk_read_time,local_blk_write_time,temp_blk_read_time,temp_blk_write_time,wal_records,wal_fpi,wal_bytes,
    wal_buffers_full,jit_functions,jit_generation_time,jit_inlining_count,jit_inlining_time,jit_optimization_count,
    jit_optimization_time,jit_emission_count,jit_emission_time,jit_deform_count,jit_deform_time,stats_since}'::text[]) AS name
WHERE name NOT IN (SELECT attname FROM pg_attribute WHERE attrelid = 'steward.statements'::regclass);

-- Functions: what they promise the planner, and who may call them.
SELECT p.oid::regprocedure AS function, p.provolatile AS v, p.proparallel AS p, p.proisstrict AS strict,
       p.prosecdef AS definer, l.lanname AS language, has_function_privilege('public', p.oid, 'EXECUTE') AS public
FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang
WHERE p.pronamespace = 'steward'::regnamespace
ORDER BY p.oid::regprocedure::text COLLATE "C";

-- A function in SQL or PL/pgSQL pins its search_path, unless its names were bound when it was made.
SELECT p.oid::regprocedure AS without_search_path
FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang
WHERE p.pronamespace = 'steward'::regnamespace AND l.lanname <> 'c' AND p.prosqlbody IS NULL
  AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false);

-- Who may do what with relations, besides their owner.
SELECT c.relname AS relation, c.relkind AS kind, r.grantee, r.privileges
FROM pg_class AS c
     LEFT JOIN LATERAL (
        SELECT CASE x.grantee WHEN 0 THEN 'public' ELSE x.grantee::regrole::text END AS grantee,
               string_agg(x.privilege_type, ', ' ORDER BY x.privilege_type) AS privileges
        FROM aclexplode(c.relacl) AS x WHERE x.grantee <> c.relowner GROUP BY x.grantee) AS r ON true
WHERE c.relnamespace = 'steward'::regnamespace AND c.relkind IN ('r', 'v', 'p', 'S') AND c.relname !~ '_\d{8}$'
ORDER BY c.relname, r.grantee;
SELECT has_schema_privilege('public', 'steward', 'USAGE') AS usage, has_schema_privilege('public', 'steward', 'CREATE') AS creates;

-- Every object of the extension that can have a comment of its own has one.
SELECT pg_describe_object(d.classid, d.objid, 0) AS without_comment
FROM pg_depend AS d
WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
  AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_steward')
  AND d.classid IN ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_type'::regclass, 'pg_namespace'::regclass)
  -- Partitions and the sequence of an identity column are parts of their tables, row types too.
  AND NOT EXISTS (SELECT 1 FROM pg_class AS c WHERE c.oid = d.objid AND d.classid = 'pg_class'::regclass
                  AND (c.relispartition OR c.relkind IN ('S', 'i', 'I')))
  AND NOT EXISTS (SELECT 1 FROM pg_type AS t WHERE t.oid = d.objid AND d.classid = 'pg_type'::regclass
                  AND (t.typrelid <> 0 OR t.typelem <> 0))
  AND obj_description(d.objid, d.classid::regclass::name) IS NULL
ORDER BY 1;

-- Tables that pg_dump takes along.
SELECT conf.oid::regclass AS dumped
FROM pg_extension AS e CROSS JOIN unnest(e.extconfig) AS conf(oid)
WHERE e.extname = 'pg_steward' ORDER BY conf.oid::regclass::text COLLATE "C";

SELECT unnest(enum_range(NULL::steward.outcome)) AS outcome;

-- Settings.
SELECT name, vartype, context, unit, min_val, max_val, boot_val, enumvals
FROM pg_settings WHERE name LIKE 'pg\_steward.%' ORDER BY name COLLATE "C";
\set ON_ERROR_STOP 0
SET pg_steward.no_such_setting = 1;
SET pg_steward.track = 'some';
SET pg_steward.sample_rate = 2;
SET pg_steward.max_statements = 200;
