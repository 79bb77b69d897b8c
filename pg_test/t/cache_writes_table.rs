//! Every way to write by one transaction of one session: after its commit no old answer is served, after its rollback
//! the answer is still there.

use super::probe::{self, Watch, run};
use steward_test::Cluster;

/// A write path: what there is, the query that is cached, and the write.
struct Case {
    what: &'static str,
    setup: &'static str,
    query: &'static str,
    write: &'static str,
    /// Can it be tried in a transaction that is rolled back?
    rolls_back: bool,
    changes: bool,
}

const fn case(what: &'static str, setup: &'static str, query: &'static str, write: &'static str) -> Case {
    Case { what, setup, query, write, rolls_back: true, changes: true }
}

impl Case {
    /// Has transactions of its own.
    const fn alone(self) -> Self {
        Case { rolls_back: false, ..self }
    }

    /// Leaves the answer as it was.
    const fn same(self) -> Self {
        Case { changes: false, ..self }
    }
}

/// On a server of their own: what invalidates everything would disturb others.
fn try_all(name: &str, cases: &[Case]) {
    let cluster = probe::builder(name).start().expect("server");
    probe::create_database(&cluster, name);
    let failed: Vec<&str> = cases.iter().filter(|case| !passes(&cluster, name, case)).map(|case| case.what).collect();
    assert!(failed.is_empty(), "{} of {}: {failed:?}", failed.len(), cases.len());
}

/// The others are tried too when one fails.
fn passes(cluster: &Cluster, database: &str, case: &Case) -> bool {
    let tried = std::panic::AssertUnwindSafe(|| {
        let mut watch = Watch::begin(cluster, database, case.what, case.setup, case.query);
        if case.rolls_back {
            run(&mut watch.writer, &format!("BEGIN; {}; ROLLBACK", case.write));
            watch.assert_known("rolled back");
        }
        run(&mut watch.writer, case.write);
        watch.assert_follows(case.changes);
    });
    std::panic::catch_unwind(tried).is_ok()
}

const T: &str =
    "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT n, n FROM generate_series(1, 20) AS n";
const SUM: &str = "SELECT count(*), sum(v) FROM t";

const ROWS: &[Case] = &[
    case("insert", T, SUM, "INSERT INTO t VALUES (100, 1)"),
    case("update", T, SUM, "UPDATE t SET v = v + 1 WHERE id = 3"),
    case("delete", T, SUM, "DELETE FROM t WHERE id = 3"),
    case("insert_select", T, SUM, "INSERT INTO t SELECT id + 100, v FROM t"),
    case("conflict_update", T, SUM, "INSERT INTO t VALUES (1, 9) ON CONFLICT (id) DO UPDATE SET v = excluded.v"),
    case("conflict_nothing", T, SUM, "INSERT INTO t VALUES (1, 9) ON CONFLICT DO NOTHING").same(),
    case(
        "merge",
        T,
        SUM,
        "MERGE INTO t USING (VALUES (1), (100)) AS s(id) ON t.id = s.id
            WHEN MATCHED THEN UPDATE SET v = 50 WHEN NOT MATCHED THEN INSERT VALUES (s.id, 60)",
    ),
    case("merge_delete", T, SUM, "MERGE INTO t USING (VALUES (1)) AS s(id) ON t.id = s.id WHEN MATCHED THEN DELETE"),
    case("writable_cte", T, SUM, "WITH gone AS (DELETE FROM t WHERE id = 1 RETURNING *) SELECT * FROM gone"),
    case("copy", T, SUM, "COPY t FROM PROGRAM 'echo 100,7' (FORMAT csv)"),
    case("copy_freeze", T, SUM, "BEGIN; TRUNCATE t; COPY t FROM PROGRAM 'echo 100,7' (FORMAT csv, FREEZE); COMMIT")
        .alone(),
    case("truncate", T, SUM, "TRUNCATE t"),
    case(
        "truncate_cascade",
        "CREATE TABLE top (id int PRIMARY KEY);
            CREATE TABLE t (v int REFERENCES top); INSERT INTO top VALUES (1); INSERT INTO t VALUES (1)",
        SUM,
        "TRUNCATE top CASCADE",
    ),
    case(
        "truncate_new",
        "CREATE TABLE t (v int); INSERT INTO t VALUES (1)",
        SUM,
        "TRUNCATE t; INSERT INTO t VALUES (5); TRUNCATE t; INSERT INTO t VALUES (7)",
    ),
    case(
        "current_of",
        T,
        SUM,
        "BEGIN; DECLARE c CURSOR FOR SELECT * FROM t FOR UPDATE; FETCH c;
            UPDATE t SET v = 77 WHERE CURRENT OF c; COMMIT",
    )
    .alone(),
    case("prepared_statement", T, SUM, "PREPARE p AS UPDATE t SET v = v + 1; EXECUTE p; DEALLOCATE p"),
    case("savepoint_released", T, SUM, "BEGIN; SAVEPOINT a; UPDATE t SET v = 0; RELEASE a; COMMIT").alone(),
    case(
        "savepoint_part",
        T,
        SUM,
        "BEGIN; UPDATE t SET v = 0 WHERE id = 1; SAVEPOINT a; DELETE FROM t; ROLLBACK TO a; COMMIT",
    )
    .alone(),
    case(
        "savepoints_nested",
        T,
        SUM,
        "BEGIN; SAVEPOINT a; SAVEPOINT b; DELETE FROM t WHERE id = 2; RELEASE b;
            SAVEPOINT c; DELETE FROM t; ROLLBACK TO c; RELEASE a; COMMIT",
    )
    .alone(),
    case(
        "replica_role",
        T,
        SUM,
        "SET session_replication_role = replica; DELETE FROM t WHERE id = 1; RESET session_replication_role",
    ),
    case("unlogged", "CREATE UNLOGGED TABLE t (v int); INSERT INTO t VALUES (1)", SUM, "INSERT INTO t VALUES (5)"),
    case(
        "toasted",
        "CREATE TABLE t (v text); INSERT INTO t SELECT string_agg(md5(n::text), '') FROM generate_series(1, 500) AS n",
        "SELECT md5(v) FROM t",
        "UPDATE t SET v = v || 'x'",
    ),
    case("explain_analyze", T, SUM, "EXPLAIN ANALYZE DELETE FROM t WHERE id = 4"),
    case(
        "no_columns",
        "CREATE TABLE t (); INSERT INTO t DEFAULT VALUES",
        "SELECT count(*) FROM t",
        "INSERT INTO t DEFAULT VALUES",
    ),
];

#[test]
fn statements_that_change_rows() {
    try_all("rows", ROWS);
}

const OTHER: &str = "CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE other (id int PRIMARY KEY, v int);
    INSERT INTO t SELECT n, n FROM generate_series(1, 20) AS n; INSERT INTO other VALUES (1, 1)";
const KEYED: &str = "CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other VALUES (1), (2), (3);
    CREATE TABLE t (v int REFERENCES other ON DELETE CASCADE ON UPDATE CASCADE); INSERT INTO t VALUES (1), (1), (2)";

/// Writes `t` when `other` is written, as `timing` says.
macro_rules! triggered {
    ($timing:literal) => {
        concat!("CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE other (id int PRIMARY KEY, v int);
            INSERT INTO t SELECT n, n FROM generate_series(1, 20) AS n; INSERT INTO other VALUES (1, 1);
            CREATE FUNCTION copy_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE t SET v = v + 1; RETURN new; END $$;
            CREATE ", $timing, " EXECUTE FUNCTION copy_it()")
    };
}

const CAUSED: &[Case] = &[
        case("delete_cascade", KEYED, SUM, "DELETE FROM other WHERE id = 1"),
        case("update_cascade", KEYED, SUM, "UPDATE other SET id = 10 WHERE id = 1"),
        case("set_null", "CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other VALUES (1), (2);
            CREATE TABLE t (v int REFERENCES other ON DELETE SET NULL); INSERT INTO t VALUES (1), (2)", SUM, "DELETE FROM other WHERE id = 1"),
        case("set_default", "CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other VALUES (1), (2);
            CREATE TABLE t (v int DEFAULT 2 REFERENCES other ON UPDATE SET DEFAULT); INSERT INTO t VALUES (1), (2)", SUM, "UPDATE other SET id = 5 WHERE id = 1"),
        case("trigger_row", triggered!("TRIGGER g AFTER INSERT ON other FOR EACH ROW"), SUM, "INSERT INTO other VALUES (2, 2)"),
        case("trigger_before", triggered!("TRIGGER g BEFORE UPDATE ON other FOR EACH ROW"), SUM, "UPDATE other SET v = 2"),
        case("trigger_statement", triggered!("TRIGGER g AFTER TRUNCATE ON other FOR EACH STATEMENT"), SUM, "TRUNCATE other"),
        case("trigger_deferred", triggered!("CONSTRAINT TRIGGER g AFTER INSERT ON other DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"), SUM,
            "INSERT INTO other VALUES (2, 2)"),
        case("trigger_instead", "CREATE TABLE t (id int, v int); CREATE VIEW other AS SELECT 1 AS id;
            CREATE FUNCTION copy_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t VALUES (1, 1); RETURN new; END $$;
            CREATE TRIGGER g INSTEAD OF INSERT ON other FOR EACH ROW EXECUTE FUNCTION copy_it()", SUM, "INSERT INTO other VALUES (2)"),
        case("rule_also", "CREATE TABLE t (v int); CREATE TABLE other (v int);
            CREATE RULE r AS ON INSERT TO other DO ALSO INSERT INTO t VALUES (new.v)", SUM, "INSERT INTO other VALUES (3)"),
        case("rule_instead", "CREATE TABLE t (v int); CREATE TABLE other (v int);
            CREATE RULE r AS ON INSERT TO other DO INSTEAD INSERT INTO t VALUES (new.v)", SUM, "INSERT INTO other VALUES (3)"),
        case("updatable_view", "CREATE TABLE t (v int); CREATE VIEW other AS SELECT v FROM t", SUM, "INSERT INTO other VALUES (3)"),
        case("function_in_select", "CREATE TABLE t (v int); CREATE FUNCTION put() RETURNS int LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO t VALUES (1); RETURN 1; END $$", SUM, "SELECT put()"),
        case("function_of_sql", "CREATE TABLE t (v int); CREATE FUNCTION put() RETURNS int LANGUAGE sql AS
            $$ INSERT INTO t VALUES (1) RETURNING v $$", SUM, "SELECT put()"),
        case("do_block", T, SUM, "DO $$ BEGIN DELETE FROM t WHERE id = 1; END $$"),
        case("dynamic", T, SUM, "DO $$ BEGIN EXECUTE 'DELETE FROM t WHERE id = 1'; END $$"),
        case("exception_block", T, SUM, "DO $$ BEGIN UPDATE t SET v = 9; BEGIN DELETE FROM t; PERFORM 1 / 0;
            EXCEPTION WHEN division_by_zero THEN NULL; END; END $$"),
        case("exception_kept", T, SUM, "DO $$ BEGIN BEGIN UPDATE t SET v = 9; EXCEPTION WHEN division_by_zero THEN NULL; END; END $$"),
        case("procedure", "CREATE TABLE t (v int); CREATE PROCEDURE put() LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO t VALUES (1); COMMIT; INSERT INTO t VALUES (2); ROLLBACK; END $$", SUM, "CALL put()").alone(),
        case("through_view", "CREATE TABLE t (v int); CREATE VIEW w AS SELECT sum(v) FROM t", "SELECT * FROM w", "INSERT INTO t VALUES (1)"),
        case("through_function", "CREATE TABLE t (v int); CREATE FUNCTION total() RETURNS bigint LANGUAGE plpgsql STABLE AS
            $$ BEGIN RETURN (SELECT sum(v) FROM t); END $$", "SELECT total()", "INSERT INTO t VALUES (1)"),
        case("in_subquery", OTHER, "SELECT (SELECT sum(v) FROM t) + v AS n FROM other", "DELETE FROM t WHERE id = 2"),
];

#[test]
fn writes_that_another_table_causes() {
    try_all("caused", CAUSED);
}

const PARTS: &str =
    "CREATE TABLE t (k int, v int) PARTITION BY LIST (k); CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1);
    CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2) PARTITION BY LIST (v); CREATE TABLE t2a PARTITION OF t2 DEFAULT;
    CREATE TABLE t9 (k int, v int); INSERT INTO t VALUES (1, 10), (2, 20); INSERT INTO t9 VALUES (9, 90)";
const HEIRS: &str =
    "CREATE TABLE t (v int); CREATE TABLE t1 () INHERITS (t); CREATE TABLE t2 (v int); INSERT INTO t VALUES (1);
    INSERT INTO t1 VALUES (10); INSERT INTO t2 VALUES (20)";

const FAMILIES: &[Case] = &[
    case("to_parent", PARTS, "SELECT sum(v) FROM t1", "INSERT INTO t VALUES (1, 5)"),
    case("to_child", PARTS, SUM, "INSERT INTO t1 VALUES (1, 5)"),
    case("to_grandchild", PARTS, SUM, "INSERT INTO t2a VALUES (2, 5)"),
    case("to_middle", PARTS, "SELECT sum(v) FROM t2", "INSERT INTO t VALUES (2, 5)"),
    case("moved_away", PARTS, "SELECT sum(v) FROM t1", "UPDATE t SET k = 2 WHERE k = 1"),
    case("moved_here", PARTS, "SELECT sum(v) FROM t2a", "UPDATE t SET k = 2 WHERE k = 1"),
    case("truncate_parent", PARTS, "SELECT sum(v) FROM t2a", "TRUNCATE t"),
    case("attach", PARTS, SUM, "ALTER TABLE t ATTACH PARTITION t9 FOR VALUES IN (9)"),
    case("attach_below", PARTS, SUM, "ALTER TABLE t2 DETACH PARTITION t2a"),
    case("detach", PARTS, SUM, "ALTER TABLE t DETACH PARTITION t1"),
    case("detach_concurrently", PARTS, SUM, "ALTER TABLE t DETACH PARTITION t1 CONCURRENTLY").alone(),
    case("drop_partition", PARTS, SUM, "DROP TABLE t1"),
    case(
        "new_partition",
        PARTS,
        SUM,
        "BEGIN; CREATE TABLE t3 PARTITION OF t FOR VALUES IN (3); INSERT INTO t VALUES (3, 3); COMMIT",
    )
    .alone(),
    case("new_partition_empty", PARTS, SUM, "CREATE TABLE t3 PARTITION OF t FOR VALUES IN (3)").same(),
    case("detach_and_analyze", PARTS, SUM, "DO $$ BEGIN ALTER TABLE t DETACH PARTITION t1; ANALYZE t; END $$"),
    case("heir_written", HEIRS, SUM, "INSERT INTO t1 VALUES (5)"),
    case("heir_added", HEIRS, SUM, "ALTER TABLE t2 INHERIT t"),
    case("heir_created", HEIRS, SUM, "CREATE TABLE t3 () INHERITS (t); INSERT INTO t3 VALUES (3)"),
    case("heir_gone", HEIRS, SUM, "ALTER TABLE t1 NO INHERIT t"),
    case("heir_dropped", HEIRS, SUM, "DROP TABLE t1"),
    case("only_parent", HEIRS, "SELECT sum(v) FROM ONLY t", "INSERT INTO t1 VALUES (5)").same(),
    case(
        "heir_without_columns",
        "CREATE TABLE t (); CREATE TABLE t1 () INHERITS (t); INSERT INTO t1 DEFAULT VALUES",
        "SELECT count(*) FROM t",
        "ALTER TABLE t1 NO INHERIT t",
    ),
];

#[test]
fn partitions_and_heirs() {
    try_all("heirs", FAMILIES);
}

const FEW: &str = "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)";
const ALL: &str = "SELECT * FROM t ORDER BY id";
const SUMMED: &str = "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3);
    CREATE MATERIALIZED VIEW m AS SELECT id, v FROM t; CREATE UNIQUE INDEX ON m (id); UPDATE t SET v = v * 10";

const DEFINITIONS: &[Case] = &[
    case(
        "swap",
        FEW,
        ALL,
        "CREATE TABLE n AS SELECT id, v * 2 AS v FROM t; ALTER TABLE t RENAME TO o; ALTER TABLE n RENAME TO t",
    ),
    case(
        "swap_back",
        "CREATE TABLE t (id int); CREATE TABLE n (id int); INSERT INTO n VALUES (1)",
        ALL,
        "ALTER TABLE t RENAME TO o; ALTER TABLE n RENAME TO t",
    ),
    case("select_into_swap", FEW, ALL, "SELECT id, v + 1 AS v INTO n FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t"),
    case(
        "dropped_and_made_again",
        FEW,
        ALL,
        "DROP TABLE t; CREATE TABLE t (id int, v int); INSERT INTO t VALUES (7, 7)",
    ),
    case("refresh", SUMMED, "SELECT sum(v) FROM m", "REFRESH MATERIALIZED VIEW m"),
    case("refresh_concurrently", SUMMED, "SELECT sum(v) FROM m", "REFRESH MATERIALIZED VIEW CONCURRENTLY m"),
    case("below_matview", SUMMED, "SELECT sum(v) FROM m", "DELETE FROM t").same(),
    case("view_replaced", "CREATE VIEW t AS SELECT 1 AS id", ALL, "CREATE OR REPLACE VIEW t AS SELECT 2 AS id"),
    case("add_column", FEW, ALL, "ALTER TABLE t ADD COLUMN w int DEFAULT 5"),
    case("add_generated", FEW, ALL, "ALTER TABLE t ADD COLUMN w int GENERATED ALWAYS AS (v * 2) STORED"),
    case("drop_column", FEW, ALL, "ALTER TABLE t DROP COLUMN v"),
    case("rename_column", FEW, ALL, "ALTER TABLE t RENAME COLUMN v TO w"),
    case("alter_type", FEW, ALL, "ALTER TABLE t ALTER COLUMN v TYPE text USING 'x' || v"),
    case("alter_type_using", FEW, ALL, "ALTER TABLE t ALTER COLUMN v TYPE int USING v * 3"),
    case(
        "function_replaced",
        "CREATE TABLE t (id int); INSERT INTO t VALUES (1);
            CREATE FUNCTION f() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'",
        "SELECT f() FROM t",
        "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql STABLE AS 'SELECT 2'",
    ),
    case(
        "function_and_analyze",
        "CREATE TABLE t (id int); INSERT INTO t VALUES (1);
            CREATE FUNCTION f() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'",
        "SELECT f() FROM t",
        "DO $do$ BEGIN CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql STABLE AS 'SELECT 2'; ANALYZE t; END $do$",
    ),
    case(
        "label_renamed",
        "CREATE TYPE e AS ENUM ('a', 'b'); CREATE TABLE t (id e); INSERT INTO t VALUES ('a')",
        ALL,
        "ALTER TYPE e RENAME VALUE 'a' TO 'c'",
    ),
    case(
        "attribute_added",
        "CREATE TYPE c AS (x int); CREATE TABLE t (id c); INSERT INTO t VALUES (ROW(1))",
        "SELECT id FROM t",
        "ALTER TYPE c ADD ATTRIBUTE y int",
    ),
    case("cluster", FEW, ALL, "CLUSTER t USING t_pkey").same(),
    case("vacuum_full", FEW, ALL, "VACUUM FULL t").same().alone(),
    case("logged", "CREATE UNLOGGED TABLE t (id int); INSERT INTO t VALUES (1)", ALL, "ALTER TABLE t SET LOGGED")
        .same(),
    case(
        "schema_renamed",
        "CREATE SCHEMA inner_one; CREATE TABLE inner_one.t (id int); CREATE SCHEMA inner_two;
            CREATE TABLE inner_two.t (id int); INSERT INTO inner_two.t VALUES (1)",
        "SELECT count(*) FROM inner_one.t",
        "ALTER SCHEMA inner_one RENAME TO inner_old; ALTER SCHEMA inner_two RENAME TO inner_one",
    ),
];

#[test]
fn definitions() {
    try_all("definitions", DEFINITIONS);
}

#[test]
fn writes_that_are_not_counted() {
    const OFF: &str =
        "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT n, n FROM generate_series(1, 20) AS n;
        CREATE TABLE other (v int)";
    const BLIND: &str = "CREATE TABLE t (id int, v int); INSERT INTO t VALUES (1, 1); CREATE TABLE other (v int);
        CREATE FUNCTION look(n int) RETURNS int LANGUAGE plpgsql SET track_counts = off AS
        $$ BEGIN PERFORM count(*) FROM t; RETURN n; END $$;
        CREATE FUNCTION hold(n int) RETURNS int LANGUAGE plpgsql SET track_counts = off AS
        $$ BEGIN LOCK TABLE t IN ACCESS SHARE MODE; RETURN n; END $$";
    try_all("uncounted", &[
        case("session", OFF, SUM, "SET track_counts = off; UPDATE t SET v = 0; RESET track_counts"),
        case("one_of_two", OFF, SUM, "INSERT INTO other VALUES (1); SET track_counts = off; UPDATE t SET v = 0; RESET track_counts"),
        case("off_at_commit", OFF, SUM, "UPDATE t SET v = 0; SET track_counts = off"),
        case("locally", OFF, SUM, "SET LOCAL track_counts = off; UPDATE t SET v = 0"),
        case("copied", OFF, SUM, "INSERT INTO other VALUES (1); SET track_counts = off; COPY t FROM PROGRAM 'echo 100,7' (FORMAT csv); RESET track_counts"),
        case("truncated", OFF, SUM, "INSERT INTO other VALUES (1); SET track_counts = off; TRUNCATE t; RESET track_counts"),
        case("in_function", OFF, SUM, "CREATE FUNCTION put() RETURNS void LANGUAGE sql SET track_counts = off AS 'DELETE FROM t WHERE id = 1';
            SELECT put()"),
        case("opened_by_query", BLIND, SUM, "INSERT INTO other VALUES (1); INSERT INTO t SELECT look(n), n FROM generate_series(1, 3) AS n"),
        case("opened_by_lock", BLIND, SUM, "INSERT INTO other VALUES (1); INSERT INTO t SELECT hold(n), n FROM generate_series(1, 3) AS n"),
    ]);
}
