-- Statements that fail, or succeed to set a failure up. Each is compared with and without pg_steward.
-- A statement ends with a line that ends in a semicolon outside dollar quotes.

-- Parser and analysis
SELECT 1 +;
SELECT 'never closed;
SELECT nope;
SELECT id,
       name,
       nope
  FROM item;
SELECT 'üñîçødé', nope FROM item;
SELECT * FROM nowhere;
SELECT item.nam FROM item;
SELECT divide('a', 1.5);
SELECT id FROM item GROUP BY name;
SELECT 1 = 'one'::int;
INSERT INTO item (id, nope) VALUES (1, 2);
SELECT count(*) FROM item WHERE id = ANY (1);

-- Planner
SELECT 1 / 0;
SELECT id FROM item WHERE id = 1 / 0;
SELECT divide(1, 0);
SELECT inlined(id) FROM item;
SELECT inlined(1);
SELECT id FROM item FOR UPDATE OF nowhere;

-- ExecutorStart
SET ROLE errors_app;
SELECT * FROM secret;
INSERT INTO item VALUES (7);
SELECT divide(1, 1), name, (SELECT word FROM secret) FROM item;
RESET ROLE;
BEGIN READ ONLY;
INSERT INTO copied VALUES (1, 'x');
ROLLBACK;

-- ExecutorRun
SELECT 1 / (id - 1) FROM item;
SELECT divide_late(1, id - 1) FROM item;
SELECT name::int FROM item;
SELECT (SELECT id FROM item);
INSERT INTO item VALUES (1);
INSERT INTO item (id, name) VALUES (3, NULL);
INSERT INTO item (id, amount) VALUES (3, -1);
INSERT INTO item (id, amount) VALUES (3, 11);
INSERT INTO item (id, amount) SELECT n, n FROM generate_series(3, 20) AS n;
UPDATE item SET id = 1 WHERE id = 2;
SELECT * FROM generate_series(1, 10, 0);
WITH gone AS (DELETE FROM item RETURNING id) SELECT 1 / (id - 1) FROM gone;
SELECT json_agg(name::json) FROM item;
SELECT xmlparse(content '<a>');
SELECT regexp_match('a', '(');
MERGE INTO item USING parent ON item.id = parent.id WHEN MATCHED THEN UPDATE SET amount = 1 / (item.id - 2);

-- ExecutorFinish
INSERT INTO item (id, parent_id) VALUES (3, 99);
DELETE FROM parent WHERE id = 1;
INSERT INTO after_row VALUES (1), (0);
WITH added AS (INSERT INTO after_row VALUES (0) RETURNING n) SELECT * FROM added;

-- Triggers before, and at the end of the transaction
INSERT INTO before_row VALUES (0);
INSERT INTO after_commit VALUES (0);
BEGIN;
INSERT INTO after_commit VALUES (0);
SELECT count(*) FROM after_commit;
COMMIT;
BEGIN;
INSERT INTO item (id, late_id) VALUES (4, 99);
SET CONSTRAINTS ALL IMMEDIATE;
ROLLBACK;
BEGIN;
INSERT INTO item (id, late_id) VALUES (4, 99);
COMMIT;

-- Utility
CREATE TABLE item (id int);
DROP TABLE nowhere;
DROP TABLE parent;
DROP VIEW item;
ALTER TABLE item ADD CONSTRAINT no_ones CHECK (id > 1);
ALTER TABLE item ALTER name TYPE int USING name::int;
CREATE TABLE wrong (id int, id int);
CREATE TABLE wrong (n nothing);
CREATE UNIQUE INDEX one_x ON item ((id - id));
CREATE FUNCTION wrong() RETURNS int LANGUAGE sql AS $$ SELECT nope FROM item $$;
CREATE FUNCTION wrong() RETURNS int LANGUAGE sql AS $$ SELEC 1 $$;
CREATE FUNCTION wrong() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    RETURN 1
END
$$;
CREATE FUNCTION wrong() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    SELEC 1;
END
$$;
CREATE EXTENSION nothing_of_this_name;
SET work_mem = 'plenty';
SET nothing.of.this = 1;
SHOW nothing;
REFRESH MATERIALIZED VIEW CONCURRENTLY ratios;
INSERT INTO copied VALUES (-1, 'x');
REFRESH MATERIALIZED VIEW ratios;
CREATE TABLE made AS SELECT 1 / (id - 1) AS ratio FROM item;
SELECT 1 / (id - 1) AS ratio INTO made FROM item;
EXPLAIN SELECT 1 / 0;
EXPLAIN (ANALYZE, TIMING off, SUMMARY off) SELECT 1 / (id - 1) FROM item;
BEGIN;
VACUUM item;
SELECT 1;
ROLLBACK;
BEGIN;
SAVEPOINT here;
SELECT 1 / 0;
ROLLBACK TO here;
RELEASE nowhere;
ROLLBACK;
LOCK TABLE item;
CALL work(0);
CALL nothing(1);
DO $$ BEGIN PERFORM divide_sql(1, 0); END $$;
DO $$ BEGIN CALL work(0); END $$;
DO LANGUAGE nothing $$ $$;
COPY copied FROM PROGRAM 'printf "1\tone\nx\ttwo\n"';
COPY copied FROM PROGRAM 'printf "1\n"';
COPY item (id, amount) FROM PROGRAM 'printf "5\t5\n6\t66\n"';
COPY after_row FROM PROGRAM 'printf "0\n"';
COPY copied FROM '/nothing/of/this/name';
COPY (SELECT 1 / (id - 1) FROM item) TO PROGRAM 'cat >/dev/null';
COPY (SELECT nope FROM item) TO PROGRAM 'cat >/dev/null';

-- Prepared statements and cursors
PREPARE ratio (int) AS SELECT id / $1 FROM item;
EXECUTE ratio (0);
EXECUTE ratio ('x');
EXECUTE ratio (1, 2);
EXECUTE nothing;
PREPARE wrong AS SELECT nope FROM item;
EXPLAIN (ANALYZE, TIMING off, SUMMARY off) EXECUTE ratio (0);
DEALLOCATE ratio;
BEGIN;
DECLARE ratios CURSOR FOR SELECT 1 / (id - 2) FROM item ORDER BY id;
FETCH ratios;
FETCH ratios;
FETCH ratios;
ROLLBACK;
FETCH ratios;

-- PL/pgSQL and SQL functions
SELECT outer_most(0);
SELECT outer_most(3);
SELECT divide_sql(1, 0);
SELECT dynamic('SELECT nope FROM item');
SELECT dynamic('SELECT id FROM' || chr(10) || ' nowhere');
SELECT dynamic('SELECT 1 /');
SELECT dynamic('SELECT outer_most(2) FROM item');
SELECT dynamic('DROP TABLE parent');
SELECT dynamic('DO $x$ BEGIN PERFORM divide_sql(1, 0); END $x$');
SELECT dynamic(NULL);
SELECT dynamic('COMMIT');
SELECT raise_all('ZZ123');
SELECT raise_all('division_by_zero');
SELECT raise_all('unique_violation');
SELECT raise_all(code) FROM (VALUES ('99999')) AS codes(code);
SELECT raise_all('ZZZZZ');
SELECT raise_all('A0001');
SELECT raise_all('HV00B');
SELECT raise_all('XX000');
SELECT raise_all('XX999');
SELECT raise_all('02000');
SELECT raise_all('01234');
SELECT raise_all('57014');
SELECT raise_all('55P03');
SELECT raise_all('57P01');
SELECT raise_all('P0004');
SELECT raise_all('00000');
SELECT raise_again('ZZ123');
SELECT raise_again('40001');
SELECT raise_another();
DO $$ BEGIN RAISE 'no fields'; END $$;
DO $$ BEGIN RAISE SQLSTATE 'QQ777'; END $$;
DO $$ BEGIN ASSERT false, 'asserted'; END $$;
DO $$ DECLARE n int; BEGIN SELECT id INTO STRICT n FROM item; END $$;
DO $$ DECLARE n int; BEGIN n := 'x'; END $$;
DO $$ BEGIN FOR i IN 1..3 LOOP BEGIN PERFORM 1 / (i - 2); EXCEPTION WHEN division_by_zero THEN RAISE EXCEPTION 'round %', i USING HINT = 'none'; END; END LOOP; END $$;
SELECT diagnose('SELECT outer_most(1)');
SELECT diagnose('INSERT INTO item VALUES (1)');
SELECT diagnose('SELECT raise_all(''ZZ123'')');
SELECT diagnose('SELECT nope FROM item');
SELECT diagnose('SELECT raise_again(''ZZ123'')');

-- Timeouts
SET statement_timeout = '20ms';
SELECT pg_sleep(10);
DO $$ BEGIN PERFORM pg_sleep(10); END $$;
SELECT dynamic('SELECT pg_sleep(10)');
SELECT diagnose('SELECT pg_sleep(10)');
RESET statement_timeout;

-- In a parallel worker
SELECT set_config(name, 'on', false) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
SELECT 1 / (id - 1) FROM item;
SELECT id / divide(1, id - 1) FROM item;
SELECT set_config(name, 'off', false) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
