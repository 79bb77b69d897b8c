-- Which indexes would help. Run it again at any time in the demo's database, as its superuser.
\pset pager off
\pset footer off
\pset linestyle unicode
\timing off
SET client_min_messages = warning;
DROP INDEX IF EXISTS orders_clerk;

\echo
\echo '8. Indexes for what was captured, in at most 100 MB (steward.suggest_indexes; shares of the time that all of it took)'
\echo
SELECT replace(replace(ddl, 'CREATE INDEX ON public.', ''), 'USING btree ', '') AS index, pg_size_pretty(size_bytes) AS size,
       round(improvement_pct::numeric, 1) AS saves_pct, cardinality(queries) AS queries, confidence
FROM steward.suggest_indexes(storage_budget => 100 * 1024 * 1024) LIMIT 8;

\set clerk 'SELECT count(*) AS orders, sum(o_totalprice) AS total FROM orders WHERE o_clerk = ''Clerk#000000042'''

\echo
\echo '   What one would do to a query, before it is built (steward.what_if)'
\echo
SELECT round(cost_before::numeric, 1) AS cost_before, round(cost_after::numeric, 1) AS cost_after, indexes_used
FROM steward.what_if(:'clerk', '{CREATE INDEX orders_clerk ON orders (o_clerk)}');

\echo
\echo '   The query as it is, the index built by hand, and the query again'
\echo
\timing on
:clerk;
CREATE INDEX orders_clerk ON orders (o_clerk);
:clerk;
\timing off

\echo
\echo '   What is wrong with the indexes that are there (steward.index_health)'
\echo
SELECT finding, coalesce(index, relation) AS object, left(detail, 90) AS detail FROM steward.index_health ORDER BY 1, 2::text LIMIT 8;
