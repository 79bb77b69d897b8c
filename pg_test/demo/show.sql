-- What pg_steward captured of the demo's workload. Run it again at any time in the demo's database.
\set QUIET 1
\timing off
\pset pager off
\pset footer off
\pset null ''
\pset border 1
\pset linestyle unicode
-- One line of a statement's text.
\set short 'left(regexp_replace(query, ''\\s+'', '' '', ''g''), 58)'

\echo
\echo '1. Which statements cost most? (steward.statements; times in ms)'
\echo
SELECT :short AS statement,
       calls,
       round(total_exec_time) AS total,
       round(100 * total_exec_time / sum(total_exec_time) OVER ())::text || ' %' AS share,
       round(p50_ms::numeric, 2) AS p50,
       round(p95_ms::numeric, 2) AS p95,
       round(p99_ms::numeric, 2) AS p99,
       rows,
       errors + cancelled + timeouts + terminated AS failed
FROM steward.statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND userid::regrole::text <> 'postgres'
ORDER BY total_exec_time DESC
LIMIT 12;

\echo
\echo '2. Which executions were slow? (steward.slow_queries)'
\echo
SELECT to_char(captured_at, 'HH24:MI:SS') AS at,
       round(duration_ms) AS ms,
       application_name AS application,
       rows,
       shared_blks_hit + shared_blks_read AS blocks,
       coalesce(request_id, 'trace …' || right(trace_id, 8)) AS request,
       parameters,
       :short AS statement
FROM steward.slow_queries
WHERE outcome = 'ok'
ORDER BY duration_ms DESC
LIMIT 8;

\echo
\echo '   The plan of the slowest of them (steward.plans)'
\echo
WITH RECURSIVE chosen AS (
    SELECT p.plan, s.duration_ms
    FROM steward.slow_queries s JOIN steward.plans p USING (queryid, planid)
    WHERE s.outcome = 'ok'
    ORDER BY s.duration_ms DESC
    LIMIT 1
), node (place, depth, n) AS (
    SELECT ARRAY[]::bigint[], 0, coalesce(plan #> '{0,Plan}', plan -> 'Plan', plan) FROM chosen
    UNION ALL
    SELECT place || child.at, depth + 1, child.n
    FROM node, jsonb_array_elements(node.n -> 'Plans') WITH ORDINALITY AS child (n, at)
)
SELECT repeat('   ', depth) || (n ->> 'Node Type')
       || coalesce(' using ' || (n ->> 'Index Name'), '')
       || coalesce(' on ' || (n ->> 'Relation Name'), '') AS plan,
       n ->> 'Plan Rows' AS rows,
       n ->> 'Total Cost' AS cost,
       left(coalesce(n ->> 'Index Cond', n ->> 'Hash Cond', n ->> 'Merge Cond', n ->> 'Filter', n ->> 'Group Key',
                     n ->> 'Sort Key', ''), 60) AS condition
FROM node
ORDER BY place;

\echo
\echo '3. What failed, and how? (steward.slow_queries, each kind of failure told apart)'
\echo
SELECT outcome, sqlstate, count(*) AS times, round(max(duration_ms)::numeric, 1) AS max_ms,
       application_name AS application, min(left(message, 50)) AS message, :short AS statement
FROM steward.slow_queries
WHERE outcome <> 'ok'
GROUP BY outcome, sqlstate, application_name, query
ORDER BY outcome, times DESC;

\echo
\echo '4. Which queries run once per row of another? (steward.repeated_queries: N+1)'
\echo
SELECT :short AS statement, application_name AS application, episodes, executions, max_executions AS max,
       round(total_ms::numeric, 1) AS total_ms, example_request_id AS example
FROM steward.repeated_queries
ORDER BY executions DESC
LIMIT 8;

\echo
\echo '5. Which queries changed their plan, and what did it do? (steward.plan_changes; times in ms)'
\echo
SELECT to_char(c.changed_at, 'HH24:MI:SS') AS at,
       before.nodes AS before,
       after.nodes AS after,
       round(c.p50_before_ms::numeric, 2) AS p50_before,
       round(c.p50_after_ms::numeric, 2) AS p50_after,
       round(c.p95_before_ms::numeric, 2) AS p95_before,
       round(c.p95_after_ms::numeric, 2) AS p95_after,
       (SELECT :short FROM steward.statements s WHERE s.queryid = c.queryid LIMIT 1) AS statement
FROM steward.plan_changes c
CROSS JOIN LATERAL (
    SELECT string_agg(node #>> '{}', ' < ') FROM steward.plans p, jsonb_path_query(p.plan, 'strict $.**."Node Type"') AS node
    WHERE p.queryid = c.queryid AND p.planid = c.old_planid
) AS before (nodes)
CROSS JOIN LATERAL (
    SELECT string_agg(node #>> '{}', ' < ') FROM steward.plans p, jsonb_path_query(p.plan, 'strict $.**."Node Type"') AS node
    WHERE p.queryid = c.queryid AND p.planid = c.new_planid
) AS after (nodes)
ORDER BY c.changed_at
LIMIT 8;

\echo
\echo '6. What did the watching itself cost, and was anything lost? (steward.statements_info)'
\echo
\pset expanded on
SELECT entries, max_statements, dealloc AS evicted, other_calls, events_written, events_lost, events_suppressed,
       untracked, internal_errors, round(overhead_pct::numeric, 2) AS overhead_pct, degraded
FROM steward.statements_info;
\pset expanded off
