//! What answers of functions depend on unseen, names that may come to mean something else, and the commit of who changes
//! them: it reads no catalog, waits for nobody, and leaves nothing behind when it fails.

use super::probe::{self, Watch, ask, cached, direct, run, state};

const SETUP: &str =
    "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT n, n FROM generate_series(1, 20) AS n;
    CREATE TABLE doomed (v int); CREATE TABLE renamed (v int); CREATE TYPE label AS ENUM ('a');
    CREATE FUNCTION total() RETURNS bigint STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT sum(v) FROM t); END';
    CREATE SCHEMA IF NOT EXISTS early;
    CREATE TEMP TABLE mine (v int); CREATE TEMP TABLE dropped_later (id serial PRIMARY KEY, v text)";
const SUM: &str = "SELECT count(*), sum(v) FROM t";
/// What a function reads it finds by name.
const BY_NAME: &str = "SELECT total() AS n";

/// A commit that fails, or meets a lock on the catalogs, leaves the table as it was for the cache.
#[test]
fn a_commit_needs_no_catalog() {
    let cluster = probe::builder("locked").start().expect("server");
    probe::create_database(&cluster, "locked");
    let mut watch = Watch::begin(&cluster, "locked", "locked", SETUP, SUM);
    let mut holder = cluster.client("locked").expect("client");
    run(&mut watch.writer, "BEGIN; INSERT INTO t VALUES (50, 50); DROP TABLE doomed; SET LOCAL lock_timeout = '1s'");
    run(&mut holder, "BEGIN; LOCK TABLE pg_class IN ACCESS EXCLUSIVE MODE");
    run(&mut watch.writer, "COMMIT");
    run(&mut holder, "ROLLBACK");
    watch.assert_follows(true);
    watch.warm();
}

#[test]
fn a_commit_that_fails_leaves_nothing() {
    let cluster = probe::builder("failing").start().expect("server");
    probe::create_database(&cluster, "failing");
    let mut watch = Watch::begin(&cluster, "failing", "failing", SETUP, SUM);
    let mut other = cluster.client("failing").expect("client");
    run(&mut other, "SET search_path = failing");
    for _ in 0..6 {
        // Each reads what the other writes; the second to commit is told so after it has registered.
        for client in [&mut watch.writer, &mut other] {
            run(client, "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT sum(v) FROM t");
        }
        run(&mut watch.writer, "UPDATE t SET v = v + 1 WHERE id = 1; CREATE TABLE a (v int)");
        run(&mut other, "UPDATE t SET v = v + 1 WHERE id = 2; CREATE TABLE b (v int)");
        run(&mut watch.writer, "COMMIT");
        let failed = other.batch_execute("COMMIT").expect_err("serialization failure");
        assert_eq!(failed.code().map(|state| state.code()), Some("40001"));
        watch.assert_follows(true);
        run(&mut watch.writer, "DROP TABLE a");
        watch.warm();
        // What used a temporary table cannot be prepared, which is found out after the registration, too.
        run(&mut watch.writer, "BEGIN; UPDATE t SET v = 0; DROP TABLE doomed; INSERT INTO mine VALUES (1)");
        let failed = watch.writer.batch_execute("PREPARE TRANSACTION 'p'").expect_err("temporary table");
        assert_eq!(failed.code().map(|state| state.code()), Some("0A000"));
        watch.assert_known("not prepared");
    }
}

/// Temporary relations mean something to their own session only.
const QUIET: &[&str] = &[
    "CREATE TEMP TABLE passing (v int) ON COMMIT DROP",
    "CREATE TEMP TABLE passing (id serial PRIMARY KEY, v text) ON COMMIT DROP",
    "CREATE TEMP TABLE kept AS SELECT 1 AS v; DROP TABLE kept",
    "SELECT 1 AS v INTO TEMP kept\nALTER TABLE kept ADD COLUMN t text\nCREATE INDEX i ON kept (t)\nDROP TABLE kept",
    "BEGIN; CREATE TEMP TABLE a (id int); ALTER TABLE a RENAME TO b; ALTER TABLE b ALTER id TYPE bigint; DROP TABLE b; COMMIT",
    "BEGIN; SAVEPOINT s; CREATE TEMP TABLE a (v text); ROLLBACK TO s; CREATE TEMP TABLE a (v int); DROP TABLE a; COMMIT",
    "BEGIN; SAVEPOINT s; DROP TABLE mine; ROLLBACK TO s; TRUNCATE mine; COMMIT\nTRUNCATE mine",
    "BEGIN; CREATE TEMP TABLE a (v text); ROLLBACK",
    "CREATE TEMP VIEW w AS SELECT 1 AS v\nDROP VIEW w",
    "CREATE TEMP SEQUENCE q\nALTER SEQUENCE q OWNED BY mine.v\nDROP SEQUENCE q",
    "INSERT INTO mine VALUES (1); ANALYZE mine",
    "DO $$ BEGIN FOR i IN 1..20 LOOP EXECUTE format('CREATE TEMP TABLE x%s (v text)', i); END LOOP; END $$",
    "DO $$ BEGIN FOR i IN 1..20 LOOP EXECUTE format('DROP TABLE x%s', i); END LOOP; END $$",
    "DROP TABLE dropped_later",
    "CREATE TEMP TABLE twice (v text)\nDISCARD TEMP",
    "CREATE TEMP TABLE passing (v text) ON COMMIT DELETE ROWS\nINSERT INTO passing VALUES ('x')\nDROP TABLE passing",
];

/// What may make a name mean something else, also beside what does not.
const LOUD: &[&str] = &[
    "CREATE TABLE early.fresh (v int)",
    "CREATE VIEW early.seen AS SELECT 1 AS v",
    "ALTER TABLE renamed RENAME TO other_name",
    "ALTER TABLE other_name SET SCHEMA early",
    "CREATE TYPE early.pair AS (a int, b int)",
    "CREATE DOMAIN early.number AS int",
    "CREATE TYPE early.mood AS ENUM ('x')",
    "CREATE TYPE early.shell",
    "ALTER DOMAIN early.number RENAME TO quantity",
    "ALTER DOMAIN early.quantity SET SCHEMA public",
    "ALTER TYPE label RENAME TO tag",
    "DROP DOMAIN public.quantity",
    "DROP TABLE doomed",
    "BEGIN; CREATE TEMP TABLE passing (v text) ON COMMIT DROP; CREATE DOMAIN early.beside AS text; COMMIT",
    "BEGIN; CREATE TEMP TABLE passing (v text) ON COMMIT DROP; CREATE TABLE early.beside_it (v int); COMMIT",
    "BEGIN; CREATE TEMP TABLE same (v text); CREATE DOMAIN early.same AS text; DROP TABLE same; COMMIT",
    "BEGIN; CREATE TEMP SEQUENCE shared_name; CREATE TYPE early.shared_name; DROP SEQUENCE shared_name; COMMIT",
    "BEGIN; SAVEPOINT s; CREATE TEMP TABLE a (v int); ROLLBACK TO s; CREATE TABLE early.a (v int); COMMIT",
];

/// A server whose sessions have the language, and its settings, from the start: they belong to the keys of functions.
fn named(name: &str) -> steward_test::Builder {
    probe::builder(name).conf("session_preload_libraries", "plpgsql")
}

#[test]
fn names_that_others_see_end_what_functions_read() {
    let cluster = named("names").start().expect("server");
    probe::create_database(&cluster, "names");
    let mut watch = Watch::begin(&cluster, "names", "names", SETUP, BY_NAME);
    let mut failed = Vec::new();
    for (changes, is_loud) in QUIET.iter().map(|sql| (sql, false)).chain(LOUD.iter().map(|sql| (sql, true))) {
        watch.warm();
        for sql in changes.lines() {
            run(&mut watch.writer, sql);
        }
        let now = state(&mut watch.near, BY_NAME);
        if (now != "local") != is_loud {
            failed.push(format!("{changes}: {now}"));
        }
        assert_eq!(cached(&mut watch.near, BY_NAME), direct(&mut watch.writer, BY_NAME), "{changes}");
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// A type in a schema that comes first is what the name in a function means from then on.
#[test]
fn a_type_that_hides_another_is_heeded() {
    let cluster = named("hiding").start().expect("server");
    probe::create_database(&cluster, "hiding");
    let setup = "CREATE SCHEMA early;
        CREATE FUNCTION cut() RETURNS varchar STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN 12345::text; END $$";
    let query = "SELECT cut() AS r";
    let mut writer = cluster.client("hiding").expect("client");
    run(&mut writer, &format!("CREATE SCHEMA hiding; SET search_path = hiding; {setup}"));
    // A session that has not run the function's body yet: one that has keeps the plans of its expressions.
    let reader = || {
        let mut client = probe::session(&cluster, "hiding");
        run(&mut client, "SET search_path = early, pg_catalog, hiding");
        client
    };
    let [mut before, mut after] = [reader(), reader()];
    let reason = ask(&mut before, &format!("SELECT reason FROM steward.cache_explain('{query}')"));
    assert_eq!(reason, "");
    cached(&mut before, query);
    assert_eq!(cached(&mut before, query), r#"[{"r":"12345"}]"#);
    assert_eq!(state(&mut after, query), "shared");
    run(&mut writer, "CREATE DOMAIN early.text AS pg_catalog.varchar(2)");
    assert_eq!(cached(&mut after, query), r#"[{"r":"12"}]"#);
    assert_eq!(ask(&mut after, query), "12");
}
