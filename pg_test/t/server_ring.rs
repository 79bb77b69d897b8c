//! The ring and the tables behind it: what happens at each limit, and what a dump holds.

use super::*;

const INFO: &str = "steward.statements_info";

/// A ring of 64 kB whose worker is kept waiting for a lock.
#[test]
fn a_full_ring_overwrites_the_oldest_and_counts_them() -> Result<()> {
    let cluster =
        steward("full").conf("pg_steward.ring_memory", "64kB").conf("pg_steward.slow_limit_per_minute", "0").start()?;
    install(&cluster, "postgres")?;
    record(&cluster, "postgres", "warm_up")?;
    wait_stored(&cluster, "postgres", "warm_up", 1)?;
    let mut holder = cluster.client("postgres")?;
    holder.simple_query("BEGIN; LOCK TABLE steward.slow_executions IN SHARE ROW EXCLUSIVE MODE")?;
    let mut client = cluster.client("postgres")?;
    client.simple_query("SET application_name = 'flood'; SET pg_steward.slow_threshold = 0")?;
    for _ in 0..600 {
        client.simple_query("SELECT 1")?;
    }
    client.simple_query("SET pg_steward.slow_threshold = -1")?;
    record(&cluster, "postgres", "the_last")?;
    let lost = number(&cluster, "postgres", &format!("SELECT events_lost FROM {INFO}"))?;
    ensure!(lost > 100, "only {lost} events were overwritten");
    let ring = number(&cluster, "postgres", "SELECT count(*) FROM steward.ring_events()")?;
    ensure!(ring > 10, "{ring} events in the ring");
    holder.simple_query("ROLLBACK")?;
    wait_stored(&cluster, "postgres", "the_last", 1)?;
    // Those that the worker held when it began to wait are stored although the ring has lost them since.
    let kept = stored(&cluster, "postgres", "flood")?;
    ensure!(kept + lost >= 600, "{kept} kept and {lost} lost of 600");
    let gone = format!("SELECT events_lost - {lost} FROM {INFO}");
    ensure!(number(&cluster, "postgres", &gone)? == 0, "draining loses nothing");
    cluster.check_log(&[])
}

/// A record must not take more than its share of the ring.
#[test]
fn an_event_too_large_for_the_ring_is_counted() -> Result<()> {
    let cluster = steward("large")
        .conf("pg_steward.ring_memory", "64kB")
        .conf("pg_steward.max_query_length", "65536")
        .conf("pg_steward.text_memory", "1MB")
        .conf("pg_steward.capture_parameters", "on")
        .conf("pg_steward.max_parameter_length", "65536")
        .start()?;
    install(&cluster, "postgres")?;
    let mut client = cluster.client("postgres")?;
    client.simple_query("SET pg_steward.slow_threshold = 0")?;
    let long = "x".repeat(60_000);
    client.query("SELECT length($1::text) AS large", &[&long])?;
    record(&cluster, "postgres", "small")?;
    let counted = number(&cluster, "postgres", &format!("SELECT events_too_large FROM {INFO}"))?;
    ensure!(counted >= 1, "not counted");
    wait_stored(&cluster, "postgres", "small", 1)?;
    cluster.check_log(&[])
}

const PARTITIONS: &str = "SELECT string_agg(right(relname, 8), ',' ORDER BY relname) FROM pg_class \
    WHERE oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'steward.slow_executions'::regclass)";

fn day(cluster: &Cluster, back: i32) -> Result<String> {
    cluster.psql("postgres", &format!("SELECT to_char((now() AT TIME ZONE 'UTC')::date - {back}, 'YYYYMMDD')"))
}

/// An old partition with this many rows of a thousand bytes.
fn add_day(cluster: &Cluster, back: i32, rows: i32) -> Result<()> {
    cluster
        .psql(
            "postgres",
            &format!(
                "SELECT steward.add_capture_partition((now() AT TIME ZONE 'UTC')::date - {back});
             INSERT INTO steward.slow_executions
                 (event_id, captured_at, reason, outcome, duration_ms, userid, pid, toplevel, command, query)
             SELECT -n, (date_trunc('day', now() AT TIME ZONE 'UTC') - {back} * interval '1 day') AT TIME ZONE 'UTC'
                        + n * interval '1 ms', 'slow', 'ok', 1, 10, 1, true, 'SELECT', repeat('x', 1000)
             FROM generate_series(1, {rows}) AS n"
            ),
        )
        .map(drop)
}

#[test]
fn retention_drops_whole_days_by_age_and_by_size() -> Result<()> {
    let cluster = steward("days").start()?;
    install(&cluster, "postgres")?;
    coordinator(&cluster, "postgres")?;
    let (today, tomorrow) = (day(&cluster, 0)?, day(&cluster, -1)?);
    wait_for(&cluster, "postgres", PARTITIONS, &format!("{today},{tomorrow}"))?;

    for back in [1, 6, 7, 8, 9, 40] {
        add_day(&cluster, back, 10)?;
    }
    let maintain =
        |minutes: i64, mb: i64| cluster.psql("postgres", &format!("SELECT steward.maintain_capture({minutes}, {mb})"));
    maintain(7 * 24 * 60, 1024)?;
    let kept = [day(&cluster, 7)?, day(&cluster, 6)?, day(&cluster, 1)?, today.clone(), tomorrow.clone()].join(",");
    ensure!(cluster.psql("postgres", PARTITIONS)? == kept, "{}", cluster.psql("postgres", PARTITIONS)?);
    let left = number(&cluster, "postgres", "SELECT count(*) FROM steward.slow_executions WHERE event_id < 0")?;
    ensure!(left == 30, "whole days go, or none of their rows: {left}");

    // About 2 MB each: 3 MB leave room for one of them.
    for back in [2, 3, 4] {
        add_day(&cluster, back, 1_500)?;
    }
    maintain(7 * 24 * 60, 3)?;
    let kept = [day(&cluster, 2)?, day(&cluster, 1)?, today.clone(), tomorrow.clone()].join(",");
    ensure!(cluster.psql("postgres", PARTITIONS)? == kept, "{}", cluster.psql("postgres", PARTITIONS)?);

    // However small the limit, the present day stays.
    record(&cluster, "postgres", "of_today")?;
    wait_stored(&cluster, "postgres", "of_today", 1)?;
    add_day(&cluster, 0, 3_000)?;
    maintain(24 * 60, 1)?;
    ensure!(
        cluster.psql("postgres", PARTITIONS)? == format!("{today},{tomorrow}"),
        "{}",
        cluster.psql("postgres", PARTITIONS)?
    );
    ensure!(stored(&cluster, "postgres", "of_today")? == 1);
    cluster.check_log(&[])
}

/// The worker itself does so when it starts.
#[test]
fn the_worker_applies_retention_by_itself() -> Result<()> {
    let cluster = steward("itself").conf("pg_steward.retention", "2d").start()?;
    install(&cluster, "postgres")?;
    add_day(&cluster, 30, 10)?;
    let pid = coordinator(&cluster, "postgres")?;
    cluster.psql("postgres", &format!("SELECT pg_terminate_backend({pid})"))?;
    wait_for(&cluster, "postgres", PARTITIONS, &format!("{},{}", day(&cluster, 0)?, day(&cluster, -1)?))?;
    cluster.check_log(&[])
}

/// A check that one row fails stands for whatever keeps a row from being stored.
#[test]
fn a_row_that_cannot_be_stored_blocks_no_other() -> Result<()> {
    let cluster = steward("refused").start()?;
    install(&cluster, "postgres")?;
    wait_for(
        &cluster,
        "postgres",
        "SELECT count(*) FROM pg_inherits WHERE inhparent = 'steward.slow_executions'::regclass",
        "2",
    )?;
    let sql = "ALTER TABLE steward.slow_executions ADD CONSTRAINT no_such CHECK (application_name <> 'unwelcome')";
    cluster.psql("postgres", sql)?;
    let mut batch = String::from("SET pg_steward.slow_threshold = 0;\n");
    for _ in 0..10 {
        batch += "SET application_name = 'welcome'; SELECT 1; SET application_name = 'unwelcome'; SELECT 1;\n";
    }
    cluster.psql("postgres", &batch)?;
    wait_stored(&cluster, "postgres", "welcome", 10)?;
    ensure!(stored(&cluster, "postgres", "unwelcome")? == 0);
    let logged = || cluster.log().contains("captured events could not be stored");
    ensure!(wait_until(PATIENCE, logged), "the log does not tell");
    record(&cluster, "postgres", "later")?;
    wait_stored(&cluster, "postgres", "later", 1)?;
    cluster.check_log(&["no_such"])
}

/// The history stays behind, as that of pg_stat_statements does; who did what does not.
#[test]
fn a_dump_restores_with_the_audit_log_and_without_history() -> Result<()> {
    let cluster = steward("dump").start()?;
    install(&cluster, "postgres")?;
    cluster.psql("postgres", "CREATE TABLE mine AS SELECT 1 AS n; SELECT steward.statements_reset(0, 0, 77)")?;
    record(&cluster, "postgres", "history")?;
    wait_stored(&cluster, "postgres", "history", 1)?;
    let file = cluster.host().join("dump");
    let program = |name: &str, args: &[&str]| {
        let mut command = cluster.installation().as_server_user(cluster.installation().bindir().join(name));
        command.args(["-U", "postgres", "-p", &cluster.port().to_string(), "-h"]).arg(cluster.host()).args(args);
        let done = command.current_dir("/").arg("-f").arg(&file).output()?;
        ensure!(done.status.success() && done.stderr.is_empty(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    };
    program("pg_dump", &["postgres"])?;
    cluster.psql("postgres", "CREATE DATABASE restored")?;
    program("psql", &["-Xqo", "/dev/null", "-v", "ON_ERROR_STOP=1", "-d", "restored"])?;
    let actions = "SELECT count(*) FROM steward.audit_log WHERE arguments ->> 'queryid' = '77'";
    ensure!(number(&cluster, "restored", actions)? == 1, "the audit log is dumped");
    ensure!(stored(&cluster, "restored", "history")? == 0, "the history is not");
    // The numbering goes on where it was.
    cluster.psql("restored", "SELECT steward.statements_reset(0, 0, 78)")?;
    ensure!(number(&cluster, "restored", "SELECT count(DISTINCT audit_id) FROM steward.audit_log")? == 2);
    record(&cluster, "restored", "new_history")?;
    wait_stored(&cluster, "restored", "new_history", 1)?;
    cluster.check_log(&[])
}

/// Partitions made by the worker are the extension's, and so is everything else.
#[test]
fn drop_extension_leaves_nothing_behind() -> Result<()> {
    let objects = "SELECT string_agg(DISTINCT classid::regclass || ' ' || objid, ',') FROM pg_depend WHERE refobjid IN \
                   (SELECT oid FROM pg_namespace WHERE nspname = 'steward' UNION SELECT oid FROM pg_extension WHERE extname = 'pg_steward')";
    let count = "SELECT (SELECT count(*) FROM pg_class) || ' ' || (SELECT count(*) FROM pg_proc) || ' ' || \
                 (SELECT count(*) FROM pg_type) || ' ' || (SELECT count(*) FROM pg_namespace) || ' ' || \
                 (SELECT count(*) FROM pg_description) || ' ' || (SELECT count(*) FROM pg_init_privs)";
    let cluster = steward("nothing").start()?;
    let before = cluster.psql("postgres", count)?;
    install(&cluster, "postgres")?;
    record(&cluster, "postgres", "history")?;
    wait_stored(&cluster, "postgres", "history", 1)?;
    cluster.psql("postgres", "DROP EXTENSION pg_steward")?;
    // Postgres made the schema for the extension, and leaves it; nothing may be in it.
    cluster.psql("postgres", "DROP SCHEMA steward RESTRICT")?;
    ensure!(cluster.psql("postgres", objects)?.is_empty());
    ensure!(cluster.psql("postgres", count)? == before, "{before} became {}", cluster.psql("postgres", count)?);
    cluster.check_log(&[])
}
