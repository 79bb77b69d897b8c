//! Loaded late, loaded never, and loaded beside pg_stat_statements and auto_explain.

use super::*;
use postgres::Client;

const HINT: &str = "Add pg_steward to shared_preload_libraries and restart the server.";

/// Calls of every function that needs shared memory, and the views that stand on them.
const NEED_PRELOAD: [&str; 28] = [
    "SELECT * FROM steward.statements",
    "SELECT * FROM steward.statements_info",
    "SELECT * FROM steward.slow_queries",
    "SELECT steward.statements_reset()",
    "SELECT steward.statements_reset(0, 0, 1)",
    "SELECT * FROM steward.histogram(1)",
    "SELECT steward.histogram_counts(1)",
    "SELECT steward.percentile(1, 0.5)",
    "SELECT steward.arm_explain(1)",
    "SELECT * FROM steward.statements_internal(false)",
    "SELECT * FROM steward.ring_events()",
    "SELECT * FROM steward.capture_info()",
    "SELECT steward.cached_json('SELECT 1')",
    "SELECT * FROM steward.cached('SELECT 1') AS t(a int)",
    "SELECT * FROM steward.cache_explain('SELECT 1')",
    "SELECT * FROM steward.cache_stats",
    "SELECT * FROM steward.cache_misses",
    "SELECT * FROM steward.cache_class_stats",
    "SELECT * FROM steward.cache_query_stats",
    "SELECT * FROM steward.cache_entries",
    "SELECT steward.cache_invalidate_relation_id(1)",
    "SELECT steward.cache_invalidate_tag('a')",
    "SELECT steward.cache_invalidate_class('utility')",
    "SELECT steward.cache_invalidate_role_id(10)",
    "SELECT steward.cache_clear()",
    "SELECT steward.cache_stats_reset()",
    "SELECT * FROM steward.what_if('SELECT 1')",
    "SELECT * FROM steward.suggest_indexes()",
];

fn ensure_says_so(client: &mut Client) -> Result<()> {
    for sql in NEED_PRELOAD {
        let error = client.simple_query(sql).err().with_context(|| format!("{sql} raises nothing"))?;
        let error = error.as_db_error().with_context(|| format!("{sql}: {error}"))?;
        ensure!(error.code().code() == "55000", "{sql}: {error:?}");
        ensure!(error.hint() == Some(HINT), "{sql}: {error:?}");
    }
    Ok(())
}

#[test]
fn without_preload_every_function_says_what_to_do() -> Result<()> {
    let cluster = Cluster::new("late").start()?;
    install(&cluster, "postgres")?;
    let mut client = cluster.client("postgres")?;
    ensure_says_so(&mut client)?;
    // Tables are tables: what was stored earlier can still be read.
    for view in ["plans", "plan_changes", "repeated_queries", "audit_log"] {
        client.simple_query(&format!("SELECT * FROM steward.{view}"))?;
    }
    let sql = "SELECT count(*) FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang \
               WHERE p.pronamespace = 'steward'::regnamespace AND l.lanname = 'c'";
    // Those above, and what needs no memory (percentile_between) or is CREATE EXTENSION's (capture_installed).
    let functions: i64 = client.query_one(sql, &[])?.get(0);
    ensure!(functions == 26, "{functions} functions in C: is one missing from NEED_PRELOAD?");
    client.simple_query("DROP EXTENSION pg_steward; CREATE EXTENSION pg_steward")?;
    cluster.check_log(&["pg_steward is not loaded via shared_preload_libraries"])?;
    cluster.append_conf("shared_preload_libraries = 'pg_steward'\n")?;
    cluster.restart()?;
    record(&cluster, "postgres", "preloaded_now")?;
    wait_stored(&cluster, "postgres", "preloaded_now", 1)
}

#[test]
fn a_session_that_loads_the_library_is_not_harmed() -> Result<()> {
    let cluster = Cluster::new("session").conf("session_preload_libraries", "pg_steward").start()?;
    install(&cluster, "postgres")?;
    let mut client = cluster.client("postgres")?;
    client.simple_query("LOAD 'pg_steward'; SELECT 1/1; CREATE TABLE t AS SELECT 1 AS n; SELECT * FROM t")?;
    ensure!(client.simple_query("SELECT 1/0").is_err());
    ensure_says_so(&mut client)?;
    cluster.check_log(&["not loaded via shared_preload_libraries", "division by zero"])
}

const WORKLOAD: &str = "
CREATE TABLE t (n int PRIMARY KEY, word text);
CREATE FUNCTION nested(a int) RETURNS bigint LANGUAGE plpgsql AS
    $$ BEGIN UPDATE t SET word = 'changed' WHERE n = a; RETURN (SELECT count(*) FROM t); END $$;
CREATE PROCEDURE proc() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t VALUES (1000, 'p'); COMMIT; PERFORM nested(7); END $$;
INSERT INTO t SELECT n, 'word' FROM generate_series(1, 500) AS n;
SELECT * FROM t WHERE n = 1;
SELECT * FROM t WHERE n = 2;
SELECT nested(3);
SELECT nested(4);
CALL proc();
DO $$ BEGIN PERFORM nested(5); EXECUTE 'ANALYZE t'; END $$;
PREPARE by_key (int) AS SELECT word FROM t WHERE n = $1;
EXECUTE by_key (1);
EXECUTE by_key (2);
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM t;
FETCH 10 FROM c;
FETCH 20 FROM c;
CLOSE c;
COMMIT;
COPY t TO PROGRAM 'cat >/dev/null';
CREATE TABLE copy AS SELECT * FROM t;
CREATE MATERIALIZED VIEW m AS SELECT n FROM t;
REFRESH MATERIALIZED VIEW m;
CREATE INDEX ON t (word);
EXPLAIN SELECT word, n FROM t WHERE n > 3;
EXPLAIN (ANALYZE, BUFFERS) SELECT count(*) FROM t;
EXPLAIN (ANALYZE) UPDATE t SET word = 'x' WHERE n = 9;
SET work_mem = '5MB';
SHOW work_mem;
VACUUM t;
DELETE FROM t WHERE n > 900;
TRUNCATE copy;
";

/// Every statement of the workload, as each of the two counts it; a difference is a row. pg_stat_statements counts the
/// query of a plain EXPLAIN as executed, which it is not.
const DIFFERENCES: &str = "
SELECT coalesce(p.query, s.query), p.toplevel, s.toplevel, p.calls, s.calls, p.rows, s.rows
FROM pg_stat_statements AS p
     FULL JOIN (SELECT * FROM steward.statements WHERE calls > 0) AS s
         ON (s.userid, s.dbid, s.queryid, s.toplevel) = (p.userid, p.dbid, p.queryid, p.toplevel)
WHERE coalesce(p.dbid, s.dbid) = (SELECT oid FROM pg_database WHERE datname = 'work')
  AND (p.calls, p.rows) IS DISTINCT FROM (s.calls, s.rows)
  AND NOT (NOT p.toplevel AND p.query LIKE '%SELECT word, n FROM t WHERE n > %')";

fn counts_agree(name: &str, libraries: [&str; 3]) -> Result<()> {
    let mut builder = Cluster::new(name);
    for library in libraries {
        builder = builder.preload(library);
    }
    let cluster = builder
        .conf("pg_stat_statements.track", "all")
        .conf("pg_steward.track", "all")
        .conf("pg_steward.slow_threshold", "0")
        .conf("auto_explain.log_min_duration", "0")
        .conf("auto_explain.log_analyze", "on")
        .conf("auto_explain.log_nested_statements", "on")
        .start()?;
    cluster
        .psql("postgres", "CREATE EXTENSION pg_stat_statements; CREATE EXTENSION pg_steward; CREATE DATABASE work")?;
    let failed = cluster.psql_output("work", WORKLOAD, &["-v", "ON_ERROR_STOP=1"])?;
    ensure!(failed.status.success(), "{}", String::from_utf8_lossy(&failed.stderr));
    let sum =
        "SELECT count(*) FROM pg_stat_statements WHERE dbid = (SELECT oid FROM pg_database WHERE datname = 'work')";
    let seen = number(&cluster, "postgres", sum)?;
    ensure!(seen >= 30, "pg_stat_statements has only {seen} statements");
    let differences = cluster.psql("postgres", DIFFERENCES)?;
    ensure!(differences.is_empty(), "{libraries:?} count differently:\n{differences}");
    ensure!(cluster.log().contains("Query Text: SELECT * FROM t WHERE n = 1"), "auto_explain is silent");
    cluster.check_log(&[])
}

#[test]
fn counts_agree_with_pg_stat_statements_loaded_before() -> Result<()> {
    counts_agree("last", ["pg_stat_statements", "auto_explain", "pg_steward"])
}

#[test]
fn counts_agree_with_pg_stat_statements_loaded_after() -> Result<()> {
    counts_agree("first", ["pg_steward", "pg_stat_statements", "auto_explain"])
}

#[test]
fn without_query_ids_nothing_is_counted_and_nothing_breaks() -> Result<()> {
    let cluster = steward("noids").conf("compute_query_id", "off").conf("pg_steward.slow_threshold", "0").start()?;
    install(&cluster, "postgres")?;
    cluster.psql("postgres", WORKLOAD)?;
    ensure!(cluster.psql("postgres", "SELECT 1/0").is_err());
    ensure!(number(&cluster, "postgres", "SELECT count(*) FROM steward.statements")? == 0);
    cluster.check_log(&["division by zero"])?;
    cluster.append_conf("compute_query_id = on\n")?;
    cluster.reload()?;
    wait_for(&cluster, "postgres", "SELECT count(*) > 0 FROM steward.statements", "t")
}
