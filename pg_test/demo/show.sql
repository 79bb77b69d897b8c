-- What pg_steward captured of the demo's workload. Run it again at any time in the demo's database.
\timing off
\pset pager off
\pset footer off
\pset null ''
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
  AND userid <> 'postgres'::regrole
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
       temp_blks_written AS temp,
       coalesce(request_id, 'trace …' || right(trace_id, 8)) AS request,
       left(parameters, 20) AS parameters,
       :short AS statement
FROM steward.slow_queries
WHERE reason IN ('slow', 'armed') AND outcome = 'ok' AND username <> 'postgres'
ORDER BY duration_ms DESC
LIMIT 8;

\echo
\echo '   The plan of the slowest statement (steward.plans; actual rows since it was armed with steward.arm_explain)'
\echo
WITH RECURSIVE chosen AS (
    SELECT p.plan
    FROM steward.slow_queries s JOIN steward.plans p USING (queryid, planid)
    WHERE s.outcome = 'ok' AND s.username <> 'postgres'
    ORDER BY p.actual DESC, s.duration_ms DESC
    LIMIT 1
), node (place, depth, n) AS (
    SELECT ARRAY[]::bigint[], 0, plan -> 'Plan' FROM chosen
    UNION ALL
    SELECT place || child.at, depth + 1, child.n
    FROM node, jsonb_array_elements(node.n -> 'Plans') WITH ORDINALITY AS child (n, at)
)
SELECT repeat('  ', depth)
       || CASE WHEN n ->> 'Partial Mode' <> 'Simple' THEN (n ->> 'Partial Mode') || ' ' ELSE '' END
       || CASE WHEN (n ->> 'Parallel Aware')::boolean THEN 'Parallel ' ELSE '' END
       || (n ->> 'Node Type')
       || coalesce(' using ' || (n ->> 'Index Name'), '')
       || coalesce(' on ' || (n ->> 'Relation Name'), '') AS plan,
       n ->> 'Plan Rows' AS estimated,
       n ->> 'Actual Rows' AS actual,
       n ->> 'Actual Loops' AS loops,
       n ->> 'Actual Total Time' AS ms,
       left(coalesce(n ->> 'Index Cond', n ->> 'Hash Cond', n ->> 'Merge Cond', n ->> 'Filter', n #>> '{Group Key,0}',
                     n #>> '{Sort Key,0}'), 60) AS condition
FROM node
ORDER BY place;

\echo
\echo '3. What failed, and how? (steward.slow_queries: each kind of failure told apart)'
\echo
SELECT outcome, sqlstate, count(*) AS times, round(max(duration_ms)::numeric, 1) AS max_ms,
       application_name AS application, min(left(message, 48)) AS message, min(:short) AS statement
FROM steward.slow_queries
WHERE outcome <> 'ok'
GROUP BY outcome, sqlstate, application_name, queryid
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
-- Of each plan, how it reads its tables, in the order of the plan.
WITH scans AS (
    SELECT p.queryid, p.planid,
           string_agg(concat_ws(' ', node ->> 'Node Type', coalesce(node ->> 'Index Name', node ->> 'Relation Name')),
                      ', ' ORDER BY at) AS scans
    FROM steward.plans p
    CROSS JOIN LATERAL jsonb_path_query(p.plan, 'strict $.**') WITH ORDINALITY AS found (node, at)
    WHERE jsonb_typeof(node) = 'object' AND (node ? 'Relation Name' OR node ? 'Index Name')
    GROUP BY p.queryid, p.planid
)
SELECT to_char(c.changed_at, 'HH24:MI:SS') AS at,
       (SELECT scans FROM scans s WHERE (s.queryid, s.planid) = (c.queryid, c.old_planid)) AS before,
       (SELECT scans FROM scans s WHERE (s.queryid, s.planid) = (c.queryid, c.new_planid)) AS after,
       round(c.p50_before_ms::numeric, 2) AS p50_before,
       round(c.p50_after_ms::numeric, 2) AS p50_after,
       round(c.p95_before_ms::numeric, 2) AS p95_before,
       round(c.p95_after_ms::numeric, 2) AS p95_after,
       (SELECT left(regexp_replace(query, '\s+', ' ', 'g'), 40)
        FROM steward.statements s WHERE s.queryid = c.queryid LIMIT 1) AS statement
FROM steward.plan_changes c
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
