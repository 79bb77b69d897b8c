-- What indexes would do: what_if and suggest_indexes.
SET client_min_messages = warning;
CREATE TABLE orders (id int PRIMARY KEY, customer int, status text, total numeric, doc jsonb, note text, gone timestamptz);
INSERT INTO orders SELECT i, i % 5000, CASE WHEN i % 100 = 0 THEN 'open' ELSE 'done' END, i, jsonb_build_object('k', i % 1000),
    md5(i::text), CASE WHEN i % 200 = 0 THEN now() END FROM generate_series(1, 50000) AS i;
CREATE TABLE small (id int, v int); INSERT INTO small SELECT i, i FROM generate_series(1, 100) AS i;
CREATE TABLE parts (k int, v int) PARTITION BY LIST (k);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE parts_2 (v int, k int); ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES IN (2);
INSERT INTO parts SELECT 1 + i % 2, i FROM generate_series(1, 40000) AS i;
VACUUM ANALYZE orders; VACUUM ANALYZE small; VACUUM ANALYZE parts;

-- One index at a time: how much cheaper, and what is used.
CREATE FUNCTION tried(query text, add text[], params jsonb DEFAULT NULL) RETURNS TABLE (cheaper boolean, used text[]) LANGUAGE sql AS $$
    SELECT w.cost_after < w.cost_before / 10, w.indexes_used FROM steward.what_if(query, add, params => params) AS w $$;
SELECT * FROM tried('SELECT * FROM orders WHERE customer = 42', '{CREATE INDEX ON orders (customer)}');
SELECT * FROM tried('SELECT * FROM orders WHERE customer = 42', '{CREATE INDEX ON orders (total)}');
SELECT * FROM tried('SELECT * FROM orders WHERE customer = $1', '{CREATE INDEX ON orders USING hash (customer)}', '[42]');
SELECT * FROM tried('SELECT id FROM orders WHERE doc @> ''{"k": 5}''', '{CREATE INDEX ON orders USING gin (doc jsonb_path_ops)}');
SELECT * FROM tried('SELECT id FROM orders WHERE lower(note) = ''x''', '{CREATE INDEX ON orders (lower(note))}');
SELECT * FROM tried('SELECT id FROM orders WHERE status = ''open'' AND customer = 1', '{CREATE INDEX ON orders (customer) WHERE status = ''open''}');
SELECT * FROM tried('SELECT id FROM orders WHERE status = ''done'' AND customer = 1', '{CREATE INDEX ON orders (customer) WHERE status = ''open''}');
SELECT * FROM tried('SELECT total FROM orders ORDER BY total DESC LIMIT 3', '{CREATE INDEX ON orders (total)}');
SELECT * FROM tried('SELECT * FROM parts WHERE v = 7', '{CREATE INDEX ON parts (v)}');
SELECT * FROM tried('UPDATE orders SET total = 0 WHERE note = ''x''', '{CREATE INDEX ON orders (note)}');
SELECT w.cost_after > w.cost_before * 10 AS dearer, w.indexes_used
FROM steward.what_if('SELECT * FROM orders WHERE id = 7', drop => '{orders_pkey}') AS w;
-- A size that is about the real one's.
CREATE INDEX real ON orders (customer, total);
SELECT abs(h.cost_after - r.cost_after) < 0.01 * r.cost_after AS the_same
FROM steward.what_if('SELECT customer, total FROM orders WHERE customer < 100', array['CREATE INDEX ON orders (customer, total)'], '{real}') AS h,
     steward.what_if('SELECT customer, total FROM orders WHERE customer < 100') AS r;
DROP INDEX real;

-- Nothing of it stays.
EXPLAIN (COSTS OFF) SELECT * FROM orders WHERE customer = 42;
SELECT count(*) FROM pg_class WHERE relkind = 'i' AND relname LIKE 'orders_customer%';

-- What is refused.
SELECT * FROM steward.what_if(NULL);
SELECT * FROM steward.what_if('');
SELECT * FROM steward.what_if('SELECT 1; SELECT 2');
SELECT * FROM steward.what_if('VACUUM');
SELECT * FROM steward.what_if('SELECT nonsense FROM orders');
SELECT * FROM steward.what_if('SELECT $1::int', params => '["x"]');
SELECT * FROM steward.what_if('SELECT 1', '{DROP TABLE orders}');
SELECT * FROM steward.what_if('SELECT 1', '{""}');
SELECT * FROM steward.what_if('SELECT 1', array['CREATE INDEX ON orders (id); CREATE INDEX ON orders (id)']);
SELECT * FROM steward.what_if('SELECT 1', '{CREATE INDEX ON nowhere (id)}');
SELECT * FROM steward.what_if('SELECT 1', '{CREATE INDEX ON orders (nothing)}');
SELECT * FROM steward.what_if('SELECT 1', '{CREATE INDEX ON orders USING gist (id)}');
SELECT * FROM steward.what_if('SELECT 1', '{CREATE INDEX ON orders (doc json_ops)}');
SELECT * FROM steward.what_if('SELECT 1', '{CREATE INDEX ON orders ((random()))}');
SELECT * FROM steward.what_if('SELECT 1', '{CREATE INDEX ON orders USING hash (id) INCLUDE (note)}');
SELECT * FROM steward.what_if('SELECT 1', '{CREATE INDEX ON pg_stat_activity (pid)}');
SELECT * FROM steward.what_if('SELECT 1', '{CREATE INDEX ON orders (id) INCLUDE ((lower(note)))}');
SELECT * FROM steward.what_if('SELECT 1', '{CREATE INDEX ON orders (ctid)}');
SELECT * FROM steward.what_if('SELECT 1', '{CREATE INDEX ON orders ((orders IS NULL))}');
SELECT * FROM steward.what_if('SELECT 1 AS a INTO made');
SELECT * FROM steward.what_if('SELECT 1', drop => '{orders}');
SELECT * FROM steward.what_if('SELECT 1', drop => '{orders_pkey,NULL}');

-- Suggestions for a list of queries.
SET client_min_messages = notice;
SELECT ddl, kind, columns, size_bytes > 0 AS has_size, improvement_pct > 1 AS helps, confidence, status
FROM steward.suggest_indexes(queries => array[
    'SELECT * FROM orders WHERE customer = 42',
    'SELECT id FROM orders WHERE doc @> ''{"k": 5}''',
    'SELECT count(*) FROM orders WHERE lower(note) = ''abc''',
    'SELECT * FROM orders WHERE status = ''open'' ORDER BY total DESC LIMIT 10',
    'SELECT * FROM small WHERE v = 7', 'SELECT nonsense']) ORDER BY ddl COLLATE "C";
SELECT ddl FROM steward.suggest_indexes(queries => array['SELECT * FROM orders WHERE customer = 42'], storage_budget => 100000);
SELECT steward.reject_suggestion(suggestion_id, 'not now') FROM steward.index_suggestions WHERE columns = '{customer}';
SELECT count(*) FROM steward.suggest_indexes(queries => array['SELECT * FROM orders WHERE customer = 42']);
SELECT status, rejection FROM steward.index_suggestions WHERE columns = '{customer}';
SELECT steward.explain_suggestion(suggestion_id) -> 'reason' -> 'queries' -> 0 ->> 'query' AS query
FROM steward.index_suggestions WHERE columns = '{customer}';
SELECT steward.reject_suggestion(0), steward.explain_suggestion(0);
\set VERBOSITY terse
SELECT * FROM steward.suggest_indexes(storage_budget => -1);
SELECT * FROM steward.suggest_indexes(max_indexes_per_table => -1);
SELECT * FROM steward.suggest_indexes(queries => '{}');

-- Who may not.
CREATE ROLE nobody_much; GRANT EXECUTE ON FUNCTION steward.what_if TO nobody_much;
SET ROLE nobody_much;
SELECT * FROM steward.what_if('SELECT * FROM orders');
SELECT * FROM steward.what_if('SELECT 1', '{CREATE INDEX ON orders (id)}');
SELECT * FROM steward.suggest_indexes();
SELECT * FROM steward.index_suggestions;
RESET ROLE;
REVOKE ALL ON FUNCTION steward.what_if FROM nobody_much;
DROP ROLE nobody_much;
DROP TABLE orders, small, parts; DROP FUNCTION tried; DELETE FROM steward.index_suggestions;
