//! Several databases: each keeps its own, and none is held fast by a worker.

use super::*;

#[test]
fn each_database_keeps_its_own_events() -> Result<()> {
    let cluster = steward("dbs").start()?;
    cluster.psql("postgres", "CREATE DATABASE one; CREATE DATABASE two; CREATE DATABASE without")?;
    install(&cluster, "one")?;
    install(&cluster, "two")?;
    for database in ["one", "two", "without"] {
        record(&cluster, database, &format!("in_{database}"))?;
    }
    wait_stored(&cluster, "one", "in_one", 1)?;
    wait_stored(&cluster, "two", "in_two", 1)?;
    for (database, mark) in [("one", "in_two"), ("two", "in_one"), ("one", "in_without"), ("two", "in_without")] {
        let sql = format!("SELECT count(*) FROM steward.slow_queries WHERE {}", marked(mark));
        ensure!(number(&cluster, database, &sql)? == 0, "{mark} is in {database}");
    }
    let dbid = "SELECT d.datname FROM steward.statements AS s JOIN pg_database AS d ON d.oid = s.dbid \
                WHERE s.query = 'SELECT $1' ORDER BY 1";
    ensure!(cluster.psql("one", dbid)? == "one\ntwo\nwithout", "aggregates cover the whole server");
    ensure!(cluster.psql("one", "SELECT DISTINCT datname FROM steward.slow_queries")? == "one");
    cluster.check_log(&[])
}

#[test]
fn the_extension_can_go_and_come_while_its_worker_runs() -> Result<()> {
    let cluster = steward("drop").start()?;
    for round in 0..3 {
        let mark = format!("round_{round}");
        install(&cluster, "postgres")?;
        record(&cluster, "postgres", &mark)?;
        wait_stored(&cluster, "postgres", &mark, 1)?;
        cluster.psql("postgres", "DROP EXTENSION pg_steward")?;
        let workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_steward coordinator'";
        // Once at once, once when the worker has left.
        if round > 0 {
            wait_for(&cluster, "postgres", workers, "0")?;
        }
        record(&cluster, "postgres", "meanwhile")?;
    }
    let left = "SELECT count(*) FROM pg_class WHERE relnamespace = 'steward'::regnamespace";
    ensure!(number(&cluster, "postgres", left)? == 0);
    cluster.check_log(&[])
}

/// Each of these wants the database to itself, and Postgres refuses while anybody is connected.
#[test]
fn a_worker_is_in_nobodys_way() -> Result<()> {
    let cluster = steward("alone").start()?;
    cluster.psql("postgres", "CREATE DATABASE app")?;
    install(&cluster, "app")?;
    coordinator(&cluster, "app")?;
    record(&cluster, "app", "kept")?;
    wait_stored(&cluster, "app", "kept", 1)?;

    cluster.psql("postgres", "CREATE DATABASE copy TEMPLATE app")?;
    ensure!(stored(&cluster, "copy", "kept")? == 1);
    cluster.psql("postgres", "ALTER DATABASE app RENAME TO renamed")?;
    coordinator(&cluster, "renamed")?;
    record(&cluster, "renamed", "kept")?;
    wait_stored(&cluster, "renamed", "kept", 2)?;
    coordinator(&cluster, "copy").context("a copied database gets its worker soon")?;
    record(&cluster, "copy", "in_copy")?;
    wait_stored(&cluster, "copy", "in_copy", 1)?;
    ensure!(stored(&cluster, "renamed", "in_copy")? == 0);
    cluster.psql("postgres", "DROP DATABASE renamed")?;
    cluster.psql("postgres", "DROP DATABASE copy")?;
    let gone = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_steward coordinator'";
    wait_for(&cluster, "postgres", gone, "0")?;
    cluster.check_log(&[])
}

/// ALTER DATABASE … SET TABLESPACE, and Postgres's own programs, which send the same statements.
#[test]
fn programs_can_copy_and_drop_a_database_with_a_worker() -> Result<()> {
    let cluster = steward("programs").start()?;
    cluster.psql("postgres", "CREATE DATABASE \"My App\"")?;
    install(&cluster, "My App")?;
    coordinator(&cluster, "My App")?;
    for (name, args) in
        [("createdb", vec!["-T", "My App", "copy"]), ("dropdb", vec!["My App"]), ("dropdb", vec!["copy"])]
    {
        let mut program = cluster.installation().program(name);
        program.args(["-U", "postgres", "-p", &cluster.port().to_string(), "-h"]).arg(cluster.host()).args(args);
        let done = program.output()?;
        ensure!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
    }
    cluster.check_log(&[])
}

/// CREATE DATABASE without TEMPLATE copies template1.
#[test]
fn a_template_with_the_extension_gives_it_to_new_databases() -> Result<()> {
    let cluster = steward("template").start()?;
    install(&cluster, "template1")?;
    cluster.psql("postgres", "CREATE DATABASE fresh")?;
    coordinator(&cluster, "fresh")?;
    record(&cluster, "fresh", "in_fresh")?;
    wait_stored(&cluster, "fresh", "in_fresh", 1)?;
    cluster.psql("postgres", "CREATE DATABASE fresher; DROP DATABASE fresh")?;
    cluster.check_log(&[])
}

/// The worker must leave even while it is in the middle of its work.
#[test]
fn a_busy_worker_leaves_too() -> Result<()> {
    let cluster = steward("busy").conf("pg_steward.drain_interval", "10ms").start()?;
    cluster.psql("postgres", "CREATE DATABASE app")?;
    install(&cluster, "app")?;
    let mut client = cluster.client("app")?;
    client.simple_query("SET pg_steward.slow_threshold = 0; SET pg_steward.track = 'all'")?;
    let churn = "DO $$ BEGIN FOR i IN 1..3000 LOOP PERFORM i; END LOOP; END $$";
    client.simple_query(churn)?;
    drop(client);
    wait_for(
        &cluster,
        "postgres",
        "SELECT count(*) FROM pg_stat_activity WHERE datname = 'app' AND backend_type = 'client backend'",
        "0",
    )?;
    cluster.psql("postgres", "DROP DATABASE app")?;
    cluster.check_log(&[])
}

/// Whoever drops the extension and its worker take their locks in one order: here the worker is caught on its way to
/// a new partition, which needs the types that DROP EXTENSION has locked by then.
#[test]
fn dropping_the_extension_never_deadlocks() -> Result<()> {
    let cluster = steward("crossing").start()?;
    install(&cluster, "postgres")?;
    let pid = coordinator(&cluster, "postgres")?;
    let today = "'steward.slow_executions_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')";
    wait_for(&cluster, "postgres", &format!("SELECT to_regclass({today}) IS NOT NULL"), "t")?;
    let mut holder = cluster.client("postgres")?;
    for action in ["ALTER EXTENSION pg_steward DROP TABLE", "DROP TABLE"] {
        holder.simple_query(&format!("DO $$ BEGIN EXECUTE '{action} ' || {today}; END $$"))?;
    }
    holder.simple_query("BEGIN; LOCK TABLE steward.slow_executions IN SHARE UPDATE EXCLUSIVE MODE")?;
    record(&cluster, "postgres", "caught")?;
    let waits = |of: &str| format!("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND {of}");
    wait_for(&cluster, "postgres", &waits(&format!("pid = {pid}")), "t")?;
    let mut dropper = cluster.client("postgres")?;
    let dropped = std::thread::spawn(move || dropper.simple_query("DROP EXTENSION pg_steward").map(drop));
    wait_for(&cluster, "postgres", &waits(&format!("pid <> {pid}")), "t")?;
    holder.simple_query("ROLLBACK")?;
    ensure!(dropped.join().is_ok_and(|done| done.is_ok()), "the one who drops lost");
    cluster.check_log(&[])
}
