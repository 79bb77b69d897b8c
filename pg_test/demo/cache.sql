-- What the result cache makes of a dashboard. Run it again at any time in the demo's database, as its superuser.
\pset pager off
\pset footer off
\pset linestyle unicode
\timing off
SET client_min_messages = warning;

-- Two desks, each of which may see the customers of its own market segment.
DO $$
BEGIN
    ALTER TABLE customer DISABLE ROW LEVEL SECURITY;
    DROP POLICY IF EXISTS own_segment ON customer;
    IF to_regrole('desk_building') IS NULL THEN
        CREATE ROLE desk_building;
        CREATE ROLE desk_machinery;
    END IF;
    GRANT SELECT ON customer, orders TO desk_building, desk_machinery;
    PERFORM steward.cache_clear();
END $$;
CREATE POLICY own_segment ON customer USING (lower(c_mktsegment) = replace(current_user, 'desk_', ''));
ALTER TABLE customer ENABLE ROW LEVEL SECURITY;

\set dashboard 'SELECT o_orderpriority AS priority, count(*) AS orders, sum(o_totalprice) AS revenue FROM orders JOIN customer ON c_custkey = o_custkey WHERE o_orderstatus = $1 GROUP BY 1 ORDER BY 1'
\set call 'SELECT * FROM steward.cached(:''dashboard'', ''["O"]'') AS t(priority text, orders bigint, revenue numeric) LIMIT 2'

\echo
\echo '7. The result cache: the building desk asks for its dashboard three times (steward.cached)'
\echo
SET ROLE desk_building;
\timing on
:call;
:call;
:call;
\timing off

\echo
\echo '   A thousand calls more, as an application makes them (steward.cached_json); microseconds each, within the server'
\echo
CREATE OR REPLACE FUNCTION pg_temp.mean_us(query text, calls integer) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
    began timestamptz := clock_timestamp();
BEGIN
    FOR i IN 1..calls LOOP
        PERFORM steward.cached_json(query, '["O"]');
    END LOOP;
    RETURN round(extract(epoch FROM clock_timestamp() - began) * 1000000 / calls, 1);
END $$;
SELECT pg_temp.mean_us(:'dashboard', 1000) AS mean_us;

\echo
\echo '   The machinery desk asks the same, and gets its own rows'
\echo
SET ROLE desk_machinery;
:call;

\echo
\echo '   An order of the building desk''s becomes dearer; the very next call shows it'
\echo
RESET ROLE;
UPDATE orders SET o_totalprice = o_totalprice + 1000000
WHERE o_orderkey = (SELECT min(o_orderkey) FROM orders JOIN customer ON c_custkey = o_custkey
                    WHERE c_mktsegment = 'BUILDING' AND o_orderstatus = 'O' AND o_orderpriority = '1-URGENT');
SET ROLE desk_building;
:call;

\echo
\echo '   A REVOKE takes effect on the next call too'
\echo
RESET ROLE;
REVOKE SELECT ON orders FROM desk_building;
SET ROLE desk_building;
\set ON_ERROR_STOP off
:call;
\set ON_ERROR_STOP on
RESET ROLE;
GRANT SELECT ON orders TO desk_building;

\echo
\echo '   Why it is cached, and what its key is made of (steward.cache_explain)'
\echo
SET ROLE desk_building;
SELECT cacheable, class, ttl, dependencies, state FROM steward.cache_explain(:'dashboard', '["O"]');
SELECT e ->> 'input' AS input, left(e ->> 'value', 20) AS value, e ->> 'source' AS source
FROM steward.cache_explain(:'dashboard', '["O"]') AS x, jsonb_array_elements(x.key_inputs) AS e
WHERE e ->> 'source' <> 'setting that changes results';
RESET ROLE;

\echo
\echo '   And what it came to (steward.cache_stats; times in ms)'
\echo
SELECT local_hits, shared_hits, misses, stored, invalidations, entries, round(saved_ms) AS saved_ms,
       round(local_hit_p50_ms::numeric, 4) AS hit_p50, round(miss_p50_ms::numeric, 1) AS miss_p50
FROM steward.cache_stats;
