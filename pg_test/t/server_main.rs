//! Whole servers: what pg_steward does at start, crash, stop and promotion, in several databases, and beside other
//! modules.

#[path = "server_crash.rs"]
mod crash;
#[path = "server_databases.rs"]
mod databases;
#[path = "server_preload.rs"]
mod preload;
#[path = "server_ring.rs"]
mod ring;
#[path = "server_slots.rs"]
mod slots;
#[path = "server_standby.rs"]
mod standby;
#[path = "server_worker.rs"]
mod worker;

use anyhow::{Context, Result, ensure};
use std::time::Duration;
use steward_test::{Builder, Cluster, wait_until};

/// Longer than anything takes on a busy machine; nothing waits for it unless it fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server with pg_steward that looks at the ring often.
fn steward(name: &str) -> Builder {
    Cluster::new(name).preload("pg_steward").conf("pg_steward.drain_interval", "100ms")
}

fn install(cluster: &Cluster, database: &str) -> Result<()> {
    cluster.psql(database, "CREATE EXTENSION pg_steward").map(drop)
}

/// Runs a statement that is recorded, whatever its duration, and known by `mark`: column names are not part of a query id.
fn record(cluster: &Cluster, database: &str, mark: &str) -> Result<()> {
    let sql = format!(
        "SET application_name = '{mark}'; SET pg_steward.slow_threshold = 0; SELECT 1; RESET pg_steward.slow_threshold"
    );
    cluster.psql(database, &sql).map(drop)
}

/// How many executions recorded as `mark` have reached the table.
fn stored(cluster: &Cluster, database: &str, mark: &str) -> Result<i64> {
    number(cluster, database, &format!("SELECT count(*) FROM steward.slow_executions WHERE {}", marked(mark)))
}

/// The condition on executions recorded as `mark`, in slow_queries as well.
fn marked(mark: &str) -> String {
    format!("application_name = '{mark}' AND command = 'SELECT'")
}

fn number(cluster: &Cluster, database: &str, sql: &str) -> Result<i64> {
    let answer = cluster.psql(database, sql)?;
    answer.parse().with_context(|| format!("\"{answer}\" is no number: {sql}"))
}

/// Waits until a query answers as expected.
fn wait_for(cluster: &Cluster, database: &str, sql: &str, expected: &str) -> Result<()> {
    let mut last = String::new();
    let reached = wait_until(PATIENCE, || match cluster.psql(database, sql) {
        Ok(answer) => {
            last = answer;
            last == expected
        }
        Err(error) => {
            last = format!("{error:#}");
            false
        }
    });
    ensure!(reached, "{sql}\nstays at {last:?}, not {expected:?}");
    Ok(())
}

fn wait_stored(cluster: &Cluster, database: &str, mark: &str, count: i64) -> Result<()> {
    let reached = wait_until(PATIENCE, || stored(cluster, database, mark).is_ok_and(|found| found == count));
    ensure!(reached, "{mark} in {database}: {:?} executions stored, not {count}", stored(cluster, database, mark));
    Ok(())
}

/// The process id of the coordinator of a database, once there is one.
fn coordinator(cluster: &Cluster, database: &str) -> Result<i32> {
    let sql = format!(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_steward coordinator' AND datname = '{database}'"
    );
    let mut pid = None;
    wait_until(PATIENCE, || {
        pid = cluster.psql("postgres", &sql).ok().and_then(|answer| answer.parse().ok());
        pid.is_some()
    });
    pid.with_context(|| format!("no coordinator for {database}"))
}

fn launcher(cluster: &Cluster) -> Result<i32> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_steward launcher'";
    let mut pid = None;
    wait_until(PATIENCE, || {
        pid = cluster.psql("postgres", sql).ok().and_then(|answer| answer.parse().ok());
        pid.is_some()
    });
    pid.context("no launcher")
}
