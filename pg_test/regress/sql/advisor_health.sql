-- What steward.index_health finds, and what it must not find: the same on every version of Postgres.
-- Each index is named after its case; an empty verdict means that there is no finding.
SET client_min_messages = warning;
CREATE SCHEMA advisor;
SET search_path = advisor, public;
CREATE FUNCTION verdicts(prefix text) RETURNS TABLE (index text, verdict text)
    LANGUAGE sql AS $$
        WITH h AS MATERIALIZED (SELECT * FROM steward.index_health)
        SELECT c.relname::text, coalesce((SELECT string_agg(concat_ws(' by ', h.finding, h.related), ', ' ORDER BY h.finding)
                                    FROM h WHERE h.index = c.oid AND h.finding <> 'unused'), '')
        FROM pg_class AS c JOIN pg_index AS i ON i.indexrelid = c.oid JOIN pg_class AS t ON t.oid = i.indrelid
        WHERE c.relnamespace = 'advisor'::regnamespace AND t.relname LIKE prefix || '%' ORDER BY c.relname COLLATE "C" $$;

-- Duplicates: the same in every respect; the older one stays, or the one that a constraint needs.
CREATE TABLE dup (id int, a int, b int, t text, u text COLLATE "C", v int[], r int4range);
CREATE INDEX dup_01_first ON dup (a);
CREATE INDEX dup_02_same ON dup (a);
CREATE INDEX dup_03_same_thrice ON dup (a);
CREATE INDEX dup_04_hash ON dup USING hash (a);
CREATE INDEX dup_05_brin ON dup USING brin (a) WITH (pages_per_range = 16);
CREATE INDEX dup_06_brin_other_range ON dup USING brin (a) WITH (pages_per_range = 32);
CREATE INDEX dup_07_brin_same ON dup USING brin (a) WITH (pages_per_range = 32);
CREATE INDEX dup_08_text ON dup (t);
CREATE INDEX dup_09_other_opclass ON dup (t text_pattern_ops);
CREATE INDEX dup_10_other_collation ON dup (t COLLATE "POSIX");
CREATE INDEX dup_11_nulls_first ON dup (t NULLS FIRST);
CREATE INDEX dup_12_partial ON dup (b) WHERE a > 0;
CREATE INDEX dup_13_partial_same ON dup (b) WHERE (a > 0);
CREATE INDEX dup_14_partial_other ON dup (b) WHERE a > 1;
CREATE INDEX dup_15_expression ON dup (lower(t), b);
CREATE INDEX dup_16_expression_same ON dup (lower( t ), b);
CREATE INDEX dup_17_expression_other ON dup (upper(t), b);
CREATE INDEX dup_18_include ON dup (b, a) INCLUDE (id, t);
CREATE INDEX dup_19_include_same ON dup (b, a) INCLUDE (t, id);
CREATE UNIQUE INDEX dup_20_unique ON dup (id);
ALTER TABLE dup ADD CONSTRAINT dup_21_primary PRIMARY KEY (id);
CREATE UNIQUE INDEX dup_22_nulls ON dup (u);
CREATE UNIQUE INDEX dup_23_nulls_not_distinct ON dup (u) NULLS NOT DISTINCT;
ALTER TABLE dup ADD CONSTRAINT dup_24_constraint UNIQUE (u, id);
ALTER TABLE dup ADD CONSTRAINT dup_25_constraint_too UNIQUE (u, id);
ALTER TABLE dup ADD CONSTRAINT dup_26_deferrable UNIQUE (u, id) DEFERRABLE;
CREATE INDEX dup_27_gin ON dup USING gin (v);
CREATE INDEX dup_28_gin_same ON dup USING gin (v);
CREATE INDEX dup_29_opclass_option ON dup USING gist (to_tsvector('english', t) tsvector_ops (siglen = 100));
CREATE INDEX dup_30_opclass_option_other ON dup USING gist (to_tsvector('english', t) tsvector_ops (siglen = 200));
ALTER TABLE dup ADD CONSTRAINT dup_31_exclusion EXCLUDE USING gist (r WITH &&);
ALTER TABLE dup ADD CONSTRAINT dup_32_exclusion_other EXCLUDE USING gist (r WITH -|-);
CREATE INDEX dup_33_beside_exclusion ON dup USING gist (r);
CREATE UNIQUE INDEX dup_34_unique ON dup (b, id);
ALTER TABLE dup ADD CONSTRAINT dup_35_newer_but_constraint UNIQUE (b, id);
CREATE INDEX dup_36_beside_unique_and_primary ON dup (id);
SELECT * FROM verdicts('dup');
SELECT index, advice, caution FROM steward.index_health WHERE relation = 'dup'::regclass AND finding = 'duplicate' ORDER BY index::text COLLATE "C";

-- A replica identity, or the index that CLUSTER uses, is not superfluous; nor is one that a foreign key relies on.
CREATE TABLE dup_roles (a int NOT NULL, b int, c int NOT NULL);
CREATE UNIQUE INDEX dup_roles_1_identity ON dup_roles (a);
ALTER TABLE dup_roles REPLICA IDENTITY USING INDEX dup_roles_1_identity;
ALTER TABLE dup_roles ADD CONSTRAINT dup_roles_2_primary PRIMARY KEY (a);
CREATE INDEX dup_roles_3 ON dup_roles (b);
CREATE INDEX dup_roles_4_clustered ON dup_roles (b);
ALTER TABLE dup_roles CLUSTER ON dup_roles_4_clustered;
CREATE UNIQUE INDEX dup_roles_5_referenced ON dup_roles (c);
CREATE TABLE dup_refers (c int REFERENCES dup_roles (c));
ALTER TABLE dup_roles ADD CONSTRAINT dup_roles_6_unique UNIQUE (c);
CREATE INDEX dup_refers_1 ON dup_refers (c);
CREATE TABLE dup_replica (a int NOT NULL);
CREATE UNIQUE INDEX dup_replica_1 ON dup_replica (a);
CREATE UNIQUE INDEX dup_replica_2_identity ON dup_replica (a);
ALTER TABLE dup_replica REPLICA IDENTITY USING INDEX dup_replica_2_identity;
SELECT * FROM verdicts('dup_r');
SELECT index, advice, caution FROM steward.index_health WHERE relation = 'dup_roles'::regclass AND finding = 'duplicate' ORDER BY index::text COLLATE "C";

-- Redundant: another btree begins with the same columns, in the same order or its reverse.
CREATE TABLE red (a int, b int, c int, d int, t text, e int);
CREATE INDEX red_01_short ON red (a);
CREATE INDEX red_02_middle ON red (a, b);
CREATE INDEX red_03_long ON red (a, b, c);
CREATE INDEX red_04_not_leading ON red (b);
CREATE INDEX red_05_leads_to_nothing ON red (a, c);
CREATE INDEX red_06_descending ON red (a DESC);
CREATE INDEX red_07_nulls_first ON red (a NULLS FIRST);
CREATE INDEX red_08_mixed ON red (a, b DESC);
CREATE INDEX red_09_wholly_reversed ON red (a DESC, b DESC);
CREATE UNIQUE INDEX red_10_unique ON red (c);
CREATE INDEX red_11_beside_unique ON red (c);
CREATE INDEX red_12_longer_than_unique ON red (c, d);
CREATE INDEX red_13_partial ON red (d) WHERE a > 0;
CREATE INDEX red_14_partial_long ON red (d, a) WHERE a > 0;
CREATE INDEX red_15_partial_other ON red (d) WHERE a > 1;
CREATE INDEX red_16_whole ON red (d);
CREATE INDEX red_17_include ON red (b, d) INCLUDE (c);
CREATE INDEX red_18_include_longer ON red (b, d, c);
CREATE INDEX red_19_include_not_in_longer ON red (b, d) INCLUDE (t);
CREATE INDEX red_20_expression ON red (lower(t));
CREATE INDEX red_21_expression_long ON red (lower(t), upper(t));
CREATE INDEX red_22_expression_other ON red (upper(t));
CREATE INDEX red_23_opclass ON red (t text_pattern_ops);
CREATE INDEX red_24_opclass_other ON red (t, a);
CREATE INDEX red_25_collation ON red (t COLLATE "POSIX");
CREATE INDEX red_26_hash ON red USING hash (a);
CREATE INDEX red_27_brin ON red USING brin (a);
CREATE INDEX red_28_brin_longer ON red USING brin (a, b);
CREATE INDEX red_29_forwards ON red (e);
CREATE INDEX red_30_backwards ON red (e DESC);
SELECT * FROM verdicts('red');
SELECT index, relation, related, size_bytes > 0 AS has_size, scans, last_scan, writes, detail, advice, caution
FROM steward.index_health WHERE index IN ('red_02_middle'::regclass, 'red_20_expression'::regclass) AND finding = 'redundant' ORDER BY index::text COLLATE "C";

-- Redundant but in a role of its own; or the longer one is not usable.
CREATE TABLE red_roles (a int, b int, c int NOT NULL, d int, UNIQUE (a));
CREATE INDEX red_roles_a_long ON red_roles (a, b);
CREATE INDEX red_roles_b_clustered ON red_roles (b);
CREATE INDEX red_roles_b_long ON red_roles (b, a);
ALTER TABLE red_roles CLUSTER ON red_roles_b_clustered;
CREATE UNIQUE INDEX red_roles_c_identity ON red_roles (c);
CREATE INDEX red_roles_c_long ON red_roles (c, a);
ALTER TABLE red_roles REPLICA IDENTITY USING INDEX red_roles_c_identity;
CREATE INDEX red_roles_d_short ON red_roles (d);
CREATE INDEX red_roles_d_long_invalid ON red_roles (d, a);
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'red_roles_d_long_invalid'::regclass;
SELECT * FROM verdicts('red_roles');

-- Of partitioned tables: told once, of the index above; a partition's own index may be superfluous beside it.
CREATE TABLE red_parts (a int, b int) PARTITION BY RANGE (a);
CREATE TABLE red_parts_1 PARTITION OF red_parts FOR VALUES FROM (0) TO (50);
CREATE INDEX red_parts_a ON red_parts (a);
CREATE INDEX red_parts_b ON red_parts (b);
CREATE INDEX red_parts_b_long ON red_parts (b, a);
CREATE INDEX red_parts_a_same ON red_parts (a);
CREATE INDEX red_parts_1_own_a ON red_parts_1 (a);
CREATE INDEX red_parts_1_own_b ON red_parts_1 (b DESC);
-- The one that was attached stays, though it is younger.
CREATE INDEX red_parts_1_elder ON red_parts_1 (b, b);
CREATE INDEX red_parts_1_attached ON red_parts_1 (b, b);
CREATE INDEX red_parts_twice ON ONLY red_parts (b, b);
ALTER INDEX red_parts_twice ATTACH PARTITION red_parts_1_attached;
SELECT * FROM verdicts('red_parts');
SELECT index, finding, advice, caution FROM steward.index_health WHERE relation::text LIKE 'red_parts%' AND finding <> 'unused' ORDER BY index::text COLLATE "C";

-- Unused: no scan, and nothing else that it is for.
CREATE TABLE use (id int PRIMARY KEY, a int, b int, c int, d int, e int NOT NULL, f int, r int4range, t text,
                  CONSTRAINT use_exclusion EXCLUDE USING gist (r WITH &&));
INSERT INTO use SELECT i, i, i, i, i, i, i, int4range(i, i + 1), i::text FROM generate_series(1, 100) AS i;
CREATE INDEX use_scanned ON use (a);
CREATE INDEX use_not_scanned ON use (b);
CREATE INDEX use_expression ON use (lower(t));
CREATE UNIQUE INDEX use_unique ON use (c);
CREATE INDEX use_clustered ON use (d);
CREATE UNIQUE INDEX use_identity ON use (e);
CREATE INDEX use_invalid ON use (f) WHERE a > 0;
ALTER TABLE use CLUSTER ON use_clustered;
ALTER TABLE use REPLICA IDENTITY USING INDEX use_identity;
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'use_invalid'::regclass;
CREATE TEMP TABLE use_temporary (a int);
CREATE INDEX use_of_own_temporary_table ON use_temporary (a);
-- Its longer companion was not scanned, and will be when the shorter one is gone.
CREATE TABLE use_longer (a int, b int);
INSERT INTO use_longer SELECT i, i FROM generate_series(1, 100) AS i;
CREATE INDEX use_longer_short ON use_longer (a);
-- So will be what makes the kept one of two duplicates superfluous, when the other was scanned.
CREATE TABLE use_chain (a int, b int);
INSERT INTO use_chain SELECT i, i FROM generate_series(1, 100) AS i;
CREATE INDEX use_chain_3_long ON use_chain (a, b);
CREATE INDEX use_chain_1_kept ON use_chain (a);
CREATE INDEX use_chain_2_duplicate ON use_chain (a);
UPDATE pg_index SET indisvalid = false WHERE indexrelid IN ('use_chain_1_kept'::regclass, 'use_chain_3_long'::regclass);
-- A partitioned index is judged as one; its children are not judged.
CREATE TABLE use_parts (a int, b int) PARTITION BY RANGE (a);
CREATE TABLE use_parts_1 PARTITION OF use_parts FOR VALUES FROM (0) TO (50);
CREATE TABLE use_parts_2 PARTITION OF use_parts FOR VALUES FROM (50) TO (200) PARTITION BY RANGE (a);
CREATE TABLE use_parts_2_1 PARTITION OF use_parts_2 FOR VALUES FROM (50) TO (200);
INSERT INTO use_parts SELECT i, i FROM generate_series(1, 100) AS i;
CREATE INDEX use_parts_scanned_in_one ON use_parts (a);
CREATE INDEX use_parts_not_scanned ON use_parts (b);
CREATE INDEX use_parts_1_own ON use_parts_1 (b, a);
CREATE TABLE use_no_parts (a int) PARTITION BY RANGE (a);
CREATE INDEX use_no_parts_a ON use_no_parts (a);
ANALYZE use, use_longer, use_chain, use_parts;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SELECT count(*) FROM use WHERE a = 3;
SELECT count(*) FROM use_longer WHERE a = 3;
SELECT count(*) FROM use_chain WHERE a = 3;
UPDATE pg_index SET indisvalid = true WHERE indexrelid IN ('use_chain_1_kept'::regclass, 'use_chain_3_long'::regclass);
SELECT count(*) FROM use_parts WHERE a = 60;
RESET enable_seqscan;
RESET enable_bitmapscan;
CREATE INDEX use_longer_long ON use_longer (a, b);
SELECT pg_stat_force_next_flush();
SELECT index, relation, size_bytes > 0 AS has_size, scans, writes, regexp_replace(advice, 'pg_temp_\d+', 'pg_temp_N') AS advice,
       detail ~ '^no scan since ' AS dated, caution ~ 'standbys' AS standbys, caution ~ 'expressions' AS expressions
FROM steward.index_health WHERE finding = 'unused' AND relation::text LIKE 'use%' ORDER BY index::text COLLATE "C";
SELECT index, scans, (last_scan IS NOT NULL) = (current_setting('server_version_num')::int >= 160000) AS last_scan_known, caution
FROM steward.index_health WHERE finding = 'redundant' AND index = 'use_longer_short'::regclass;

SELECT index, finding, scans, related FROM steward.index_health WHERE relation = 'use_chain'::regclass ORDER BY index::text COLLATE "C", finding;

-- What it says of how old the statistics are.
SELECT pg_stat_reset_single_table_counters('use'::regclass);
SELECT detail ~ '^no scan since \d{4}-\d\d-\d\d \d\d:\d\d ' AS dated, caution ~ '^statistics began 0 days ago; ' AS age
FROM steward.index_health WHERE index = 'use_not_scanned'::regclass AND finding = 'unused';

-- Invalid, and left over.
CREATE TABLE inv (a int, b int, c int, d int, e int);
CREATE INDEX inv_valid ON inv (a);
CREATE INDEX inv_not_valid ON inv (b);
CREATE UNIQUE INDEX inv_not_ready ON inv (c);
CREATE INDEX inv_leftover_ccnew ON inv (d);
CREATE INDEX inv_leftover_ccold3 ON inv (d, a);
CREATE INDEX inv_dead ON inv (d, b);
CREATE INDEX inv_only_named_ccnew ON inv (e);
UPDATE pg_index SET indisvalid = false WHERE indexrelid IN ('inv_not_valid'::regclass, 'inv_leftover_ccnew'::regclass,
    'inv_leftover_ccold3'::regclass);
UPDATE pg_index SET indisready = false WHERE indexrelid = 'inv_not_ready'::regclass;
UPDATE pg_index SET indisvalid = false, indisready = false, indislive = false WHERE indexrelid = 'inv_dead'::regclass;
CREATE INDEX inv_parts ON ONLY use_parts (b, a);
SELECT index, detail, advice, caution FROM steward.index_health WHERE finding = 'invalid' ORDER BY index::text COLLATE "C";
SELECT * FROM verdicts('inv');
-- While DROP INDEX CONCURRENTLY holds its lock on an index, the index is not left over.
BEGIN;
ALTER INDEX inv_not_valid SET (fillfactor = 80);
SELECT * FROM verdicts('inv');
ROLLBACK;

-- Foreign keys: the rows that refer must be found when those referred to go.
CREATE TABLE parent (id int PRIMARY KEY, x int, y int, UNIQUE (x, y));
CREATE TABLE quiet_parent (id int PRIMARY KEY);
INSERT INTO parent SELECT i, i, i FROM generate_series(1, 10) AS i;
INSERT INTO quiet_parent SELECT i FROM generate_series(1, 10) AS i;
CREATE TABLE fk_01_missing (p int REFERENCES parent);
CREATE TABLE fk_02_indexed (p int REFERENCES parent);
CREATE INDEX ON fk_02_indexed (p);
CREATE TABLE fk_03_leading (p int REFERENCES parent, a int);
CREATE INDEX ON fk_03_leading (p, a);
CREATE TABLE fk_04_not_leading (p int REFERENCES parent, a int);
CREATE INDEX ON fk_04_not_leading (a, p);
CREATE TABLE fk_05_two (x int, y int, FOREIGN KEY (x, y) REFERENCES parent (x, y));
CREATE TABLE fk_06_two_in_other_order (x int, y int, z int, FOREIGN KEY (x, y) REFERENCES parent (x, y));
CREATE INDEX ON fk_06_two_in_other_order (y, x, z);
CREATE TABLE fk_07_one_of_two (x int, y int, FOREIGN KEY (x, y) REFERENCES parent (x, y));
CREATE INDEX ON fk_07_one_of_two (y);
CREATE TABLE fk_08_partial (p int REFERENCES parent, a int);
CREATE INDEX ON fk_08_partial (p) WHERE a > 0;
CREATE TABLE fk_09_partial_not_null (p int REFERENCES parent, a int);
CREATE INDEX ON fk_09_partial_not_null (p) WHERE p IS NOT NULL;
CREATE TABLE fk_10_partial_other_not_null (p int REFERENCES parent, a int);
CREATE INDEX ON fk_10_partial_other_not_null (p) WHERE a IS NOT NULL;
CREATE TABLE fk_11_included (p int REFERENCES parent, a int);
CREATE INDEX ON fk_11_included (a) INCLUDE (p);
CREATE TABLE fk_12_hash (p int REFERENCES parent);
CREATE INDEX ON fk_12_hash USING hash (p);
CREATE TABLE fk_13_brin (p int REFERENCES parent);
CREATE INDEX ON fk_13_brin USING brin (p);
CREATE TABLE fk_14_invalid (p int REFERENCES parent);
CREATE INDEX fk_14_invalid_p ON fk_14_invalid (p);
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'fk_14_invalid_p'::regclass;
CREATE TABLE fk_15_small_and_quiet (p int REFERENCES quiet_parent);
CREATE TABLE fk_16_large_and_quiet (p int REFERENCES quiet_parent);
INSERT INTO fk_16_large_and_quiet SELECT 1 FROM generate_series(1, 10001);
CREATE TABLE fk_16_not_so_large (p int REFERENCES quiet_parent);
INSERT INTO fk_16_not_so_large SELECT 1 FROM generate_series(1, 10000);
CREATE TABLE fk_17_parts (p int REFERENCES parent, a int) PARTITION BY LIST (a);
CREATE TABLE fk_17_parts_1 PARTITION OF fk_17_parts FOR VALUES IN (1);
CREATE TABLE fk_18_parts_indexed (p int REFERENCES parent, a int) PARTITION BY LIST (a);
CREATE TABLE fk_18_parts_indexed_1 PARTITION OF fk_18_parts_indexed FOR VALUES IN (1);
CREATE INDEX ON fk_18_parts_indexed (p);
CREATE TABLE "fk_19 Quoted" ("P" int REFERENCES parent);
CREATE TABLE fk_20_indexed_and_quiet (p int REFERENCES quiet_parent);
CREATE INDEX ON fk_20_indexed_and_quiet (p);
CREATE TABLE fk_21_itself (id int PRIMARY KEY, p int REFERENCES fk_21_itself);
INSERT INTO fk_21_itself VALUES (1, 1), (2, 1);
DELETE FROM fk_21_itself WHERE id = 2;
SELECT pg_stat_force_next_flush();
ANALYZE fk_16_large_and_quiet, fk_16_not_so_large;
DELETE FROM parent WHERE id <= 3;
UPDATE parent SET x = x + 100 WHERE id = 4;
SELECT pg_stat_force_next_flush();
SELECT relation, index, related, scans, size_bytes >= 0 AS has_size, advice, caution
FROM steward.index_health WHERE finding = 'missing_foreign_key' ORDER BY relation::text COLLATE "C", advice;
SELECT regexp_replace(detail, ' since .*', '') AS detail FROM steward.index_health
WHERE relation = 'fk_05_two'::regclass AND finding = 'missing_foreign_key';
-- An unused index of a foreign key that has no other, or none but unused ones, or one that is used.
SELECT index, caution ~ '; foreign key fk_20_indexed_and_quiet_p_fkey has no other index in use$' AS cautious FROM steward.index_health
WHERE finding = 'unused' AND relation = 'fk_20_indexed_and_quiet'::regclass;
CREATE INDEX ON fk_20_indexed_and_quiet USING hash (p);
SELECT index, caution ~ 'foreign key' AS cautious FROM steward.index_health
WHERE finding = 'unused' AND relation = 'fk_20_indexed_and_quiet'::regclass ORDER BY index::text COLLATE "C";
CREATE INDEX fk_02_too ON fk_02_indexed USING hash (p);
SELECT index, caution ~ 'foreign key' AS cautious FROM steward.index_health
WHERE finding = 'unused' AND relation = 'fk_02_indexed'::regclass;

-- Bloat: the index has more than twice the pages that its rows need. Page counts are written here, not grown.
CREATE TABLE bloat (a bigint, b text, c int, d int);
INSERT INTO bloat SELECT i, repeat('x', 50), i, nullif(i % 2, 0) FROM generate_series(1, 1000) AS i;
CREATE INDEX bloat_1_double ON bloat (a);
CREATE INDEX bloat_2_not_double ON bloat (a DESC, c);
CREATE INDEX bloat_3_wide ON bloat (b);
CREATE INDEX bloat_4_small ON bloat (c);
CREATE INDEX bloat_5_expression ON bloat (upper(b));
CREATE INDEX bloat_6_hash ON bloat USING hash (a);
CREATE INDEX bloat_7_sparse ON bloat (c, a) WITH (fillfactor = 40);
CREATE INDEX bloat_8_nulls ON bloat (d);
CREATE INDEX bloat_9_never_counted ON bloat (c, b);
CREATE INDEX bloat_10_almost_double ON bloat (a NULLS FIRST);
ANALYZE bloat;
-- 8 + 8 + 4 bytes an entry, at 90 % of 8152 bytes: 367 entries a page, 2726 pages for a million.
UPDATE pg_class SET reltuples = 1000000, relpages = CASE relname
        WHEN 'bloat_1_double' THEN 5460 WHEN 'bloat_2_not_double' THEN 5460 WHEN 'bloat_7_sparse' THEN 12000
        WHEN 'bloat_10_almost_double' THEN 5450 ELSE 5480 END
WHERE relname IN ('bloat_1_double', 'bloat_2_not_double', 'bloat_3_wide', 'bloat_6_hash', 'bloat_7_sparse', 'bloat_8_nulls',
    'bloat_10_almost_double');
UPDATE pg_class SET reltuples = 1000, relpages = CASE relname WHEN 'bloat_4_small' THEN 1280 ELSE 1290 END
WHERE relname IN ('bloat_4_small', 'bloat_5_expression');
UPDATE pg_class SET reltuples = -1, relpages = 1290 WHERE relname = 'bloat_9_never_counted';
SELECT * FROM verdicts('bloat');
SELECT index, detail, advice, caution FROM steward.index_health WHERE finding = 'bloated' ORDER BY index::text COLLATE "C";

-- Updates that are not HOT, for the sake of an index that few scans use.
CREATE TABLE hot (id int PRIMARY KEY, a int, b int, c int);
CREATE INDEX hot_few_scans ON hot (a);
CREATE INDEX hot_many_scans ON hot (b, c);
CREATE UNIQUE INDEX hot_unique ON hot (c);
CREATE TABLE hot_fine (id int PRIMARY KEY, a int, b int) WITH (fillfactor = 40);
CREATE INDEX hot_fine_few_scans ON hot_fine (b);
CREATE TABLE hot_seldom (id int PRIMARY KEY, a int);
CREATE INDEX hot_seldom_few_scans ON hot_seldom (a);
CREATE TABLE brin_hot (a int);
CREATE INDEX brin_hot_summarizes ON brin_hot USING brin (a);
INSERT INTO hot SELECT i, i, i, i FROM generate_series(1, 1001) AS i;
INSERT INTO hot_fine SELECT i, i, i FROM generate_series(1, 1001) AS i;
INSERT INTO hot_seldom SELECT i, i FROM generate_series(1, 1000) AS i;
INSERT INTO brin_hot SELECT i FROM generate_series(1, 1001) AS i;
UPDATE brin_hot SET a = a + 1;
UPDATE hot SET a = a + 1;
UPDATE hot_fine SET a = a + 1;
UPDATE hot_seldom SET a = a + 1;
SET enable_seqscan = off;
SELECT sum((SELECT count(*) FROM hot WHERE hot.b = i + 0 * length(repeat('x', i)))) FROM generate_series(1, 20) AS i;
RESET enable_seqscan;
SELECT pg_stat_force_next_flush();
SELECT * FROM verdicts('hot');
SELECT index, scans, writes, detail, advice, caution FROM steward.index_health WHERE finding = 'hot_update' AND relation = 'hot'::regclass;
SELECT count(*) = (current_setting('server_version_num')::int < 160000)::int AS until_15 FROM steward.index_health
WHERE finding = 'hot_update' AND relation = 'brin_hot'::regclass;
-- What was HOT wrote to no index.
SELECT index, writes FROM steward.index_health WHERE index = 'hot_fine_few_scans'::regclass;

-- Whose objects are left out, and who may look.
SELECT count(*) AS of_others FROM steward.index_health AS h JOIN pg_class AS c ON c.oid = h.relation
WHERE c.relnamespace IN ('pg_catalog'::regnamespace, 'pg_toast'::regnamespace, 'information_schema'::regnamespace, 'steward'::regnamespace);
CREATE TABLE owned_by_extension (a int);
CREATE INDEX owned_1 ON owned_by_extension (a);
CREATE INDEX owned_2 ON owned_by_extension (a);
SELECT * FROM verdicts('owned');
ALTER EXTENSION plpgsql ADD TABLE owned_by_extension;
SELECT * FROM verdicts('owned');
ALTER EXTENSION plpgsql DROP TABLE owned_by_extension;
CREATE ROLE advisor_nobody;
CREATE ROLE advisor_monitor IN ROLE pg_monitor;
SET ROLE advisor_nobody;
SELECT count(*) FROM steward.index_health;
SET ROLE advisor_monitor;
-- The widths of columns are not for a role that may not read them.
SELECT finding, count(*) > 0 AS any FROM steward.index_health WHERE relation::text LIKE 'advisor.%' GROUP BY 1 ORDER BY 1;
RESET ROLE;
GRANT SELECT (a) ON bloat TO advisor_monitor;
SET ROLE advisor_monitor;
SELECT index FROM steward.index_health WHERE finding = 'bloated' ORDER BY index::text COLLATE "C";
RESET ROLE;

DROP SCHEMA advisor CASCADE;
DROP TABLE use_temporary;
DROP ROLE advisor_nobody, advisor_monitor;
