-- What the result cache looks like from SQL: the same on every version of Postgres.
SET pg_steward.cache_min_execution_time = 0;
SET pg_steward.cache_admission_window = 0;
CREATE TABLE region (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE orders (id int PRIMARY KEY, region int REFERENCES region, amount numeric(10, 2));
INSERT INTO region VALUES (1, 'north'), (2, 'south');
INSERT INTO orders SELECT i, 1 + i % 2, i * 1.25 FROM generate_series(1, 100) AS i;
-- From its first call on a session knows what its later snapshots see.
SELECT steward.cached_json('SELECT 0 AS first_call');

-- Rows and JSON, first computed, then from the cache.
SELECT * FROM steward.cached('SELECT r.name, sum(o.amount) FROM orders AS o JOIN region AS r ON r.id = o.region GROUP BY r.name ORDER BY 1')
    AS t(region text, total numeric);
SELECT * FROM steward.cached('SELECT r.name, sum(o.amount) FROM orders AS o JOIN region AS r ON r.id = o.region GROUP BY r.name ORDER BY 1')
    AS t(region text, total numeric);
SELECT steward.cached_json('SELECT id, name FROM region ORDER BY id');
SELECT steward.cached_json('SELECT id, name FROM region ORDER BY id');
SELECT steward.cached_json('SELECT name FROM region WHERE id = $1', '[2]');
SELECT steward.cached_json('SELECT count(*) FROM orders WHERE region = $1 AND amount > $2', '[1, 50.5]', interval '1 minute', 'financial', '{dashboard}');
SELECT state, reason, class, ttl, dependencies FROM steward.cache_explain('SELECT id, name FROM region ORDER BY id');
UPDATE region SET name = 'North' WHERE id = 1;
SELECT state FROM steward.cache_explain('SELECT id, name FROM region ORDER BY id');
SELECT steward.cached_json('SELECT id, name FROM region ORDER BY id');

-- Everything that a key is made of, and where it comes from.
SELECT i ->> 'input' AS input, i ->> 'source' AS source
FROM steward.cache_explain($$SELECT current_user, current_setting('app.tenant', true) FROM region$$), jsonb_array_elements(key_inputs) AS i;

-- Why a query is not cached.
SELECT q AS query, e.cacheable, e.reason, e.detail, e.state
FROM unnest(ARRAY['SELECT now()', 'SELECT random()', 'SELECT * FROM pg_class', 'SELECT ctid FROM region', $$SELECT 'today'::date$$]) AS q,
     steward.cache_explain(q) AS e;

-- Entries and what they depend on.
SELECT query, class, rows, is_current, is_compressed, is_sensitive, dependencies FROM steward.cache_entries
WHERE is_current AND query NOT LIKE '%first_call' ORDER BY query COLLATE "C";
SELECT DISTINCT d.relation FROM steward.cache_dependencies AS d ORDER BY 1;
SELECT count(*) > 0 AS any FROM steward.cache_hottest(1);
SELECT count(*) AS none FROM steward.cache_coldest(-1);
SELECT query, shared_hits, misses > 0 AS missed, stored > 0 AS was_stored FROM steward.cache_query_stats
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND query LIKE '%FROM region%id = $1' ORDER BY 1;
SELECT local_hits > 0 AS local_hits, misses > 0 AS misses, stored > 0 AS stored, entries > 0 AS entries,
       used_bytes <= capacity_bytes AS fits, hit_ratio BETWEEN 0 AND 1 AS ratio FROM steward.cache_stats;

-- Manual invalidation takes effect at commit, and is undone by a rollback.
SELECT steward.cached_json('SELECT count(*) FROM region', tags => '{a,b}');
SELECT steward.cached_json('SELECT count(*) FROM region', tags => '{a,b}');
BEGIN;
SELECT steward.cache_invalidate_tag('a'), steward.cache_invalidate_tag('no such tag');
ROLLBACK;
SELECT count(*) FROM steward.cache_entries WHERE is_current AND query = 'SELECT count(*) FROM region';
SELECT steward.cache_invalidate_tag('a');
SELECT count(*) FROM steward.cache_entries WHERE is_current AND query = 'SELECT count(*) FROM region';
SELECT steward.cached_json('SELECT id FROM region ORDER BY id');
SELECT steward.cache_invalidate('region') > 0 AS invalidated;
SELECT count(*) FROM steward.cache_dependencies AS d JOIN steward.cache_entries AS e USING (entry) WHERE e.is_current AND d.relation = 'region'::regclass;
SELECT steward.cache_invalidate_class('financial') >= 0 AS invalidated;
SELECT steward.cache_invalidate_role(current_user::regrole) > 0 AS invalidated;
SELECT count(*) FROM steward.cache_entries WHERE is_current;
SELECT steward.cache_clear() > 0 AS cleared;
SELECT count(*) FROM steward.cache_entries;
SELECT action, arguments FROM steward.audit_log WHERE action LIKE 'cache\_%' AND arguments::text !~ current_user ORDER BY action, arguments::text COLLATE "C";

-- Classes.
SELECT name, ttl, local, shared, max_result_size, role_quota, sensitive, built_in FROM steward.cache_classes ORDER BY name;
INSERT INTO steward.cache_classes (name, ttl) VALUES ('own', '0');
INSERT INTO steward.cache_classes (name, ttl) VALUES ('', '1 hour');
INSERT INTO steward.cache_classes (name, ttl, sensitive) VALUES ('own', '10 minutes', 'never');
INSERT INTO steward.cache_classes (name, ttl, sensitive) VALUES ('own', '10 minutes', 'local');
SECURITY LABEL FOR pg_steward ON TABLE region IS 'own';
SECURITY LABEL FOR pg_steward ON COLUMN region.name IS 'sensitive';
SELECT class, ttl, cacheable, reason FROM steward.cache_explain('SELECT * FROM region JOIN orders ON orders.region = region.id');
SELECT provider, label FROM pg_seclabels WHERE provider = 'pg_steward' ORDER BY 2;
SECURITY LABEL FOR pg_steward ON TABLE region IS 'none';
SECURITY LABEL FOR pg_steward ON COLUMN region.name IS 'secret';
SECURITY LABEL FOR pg_steward ON SCHEMA public IS 'own';

-- What is refused, clamped, or wrong.
SELECT steward.cached_json('DELETE FROM region');
SELECT steward.cached_json('SELECT 1; SELECT 2');
SELECT steward.cached_json('');
SELECT steward.cached_json('SELECT id FROM region FOR UPDATE');
SELECT steward.cached_json('WITH d AS (DELETE FROM orders RETURNING id) SELECT id FROM d');
SELECT steward.cached_json('SELECT 1 INTO t');
SELECT steward.cached_json(NULL);
SELECT steward.cached_json('SELECT $1::int', '{}');
SELECT steward.cached_json('SELECT $1::int', '[]');
SELECT steward.cached_json('SELECT $1::int', '["many"]');
SELECT steward.cached_json('SELECT 1 AS a', ttl => '0');
SELECT steward.cached_json('SELECT 1 AS a', ttl => '3 hours');
SELECT steward.cached_json('SELECT 2 AS a', class => 'public');
SELECT steward.cached_json('SELECT 1 AS a', class => 'fast');
SELECT * FROM steward.cached('SELECT 1 AS a');
SELECT * FROM steward.cached('SELECT 1 AS a') AS t(a text);
SELECT steward.cached_json('SELECT nam FROM region');
SELECT steward.cached_json('SELECT 1 / (id - 1) FROM region');
SELECT * FROM steward.cache_explain('VACUUM');
SELECT steward.cache_invalidate('nowhere');
SELECT steward.cache_invalidate_class('nowhere');

DROP TABLE orders, region;
DELETE FROM steward.cache_classes WHERE name = 'own';
