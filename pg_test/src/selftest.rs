//! The harness against a plain Postgres: everything it promises to the tests built on it.

use crate::{Cluster, StopMode, wait_until};
use anyhow::Result;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_cluster_starts_answers_restarts_and_goes_away() -> Result<()> {
    let cluster = Cluster::new("life").conf("application_name", "it's quoted").start()?;
    assert_eq!(cluster.psql("postgres", "SHOW application_name; SELECT 1, 'a'")?, "psql\n1|a");
    assert!(cluster.psql("postgres", "SELECT 1/0").is_err());
    cluster.psql("postgres", "CREATE ROLE app LOGIN")?;
    let row = cluster.client_as("app", "postgres")?.query_one("SELECT current_user::text, $1 + 1", &[&41])?;
    assert_eq!((row.get::<_, &str>(0), row.get::<_, i32>(1)), ("app", 42));
    cluster.restart()?;
    assert!(cluster.is_running());
    cluster.check_log(&["division by zero"])?;
    assert!(cluster.check_log(&[]).is_err());
    let host = cluster.host().to_owned();
    drop(cluster);
    assert!(!host.exists());
    Ok(())
}

#[test]
fn a_killed_backend_restarts_the_server() -> Result<()> {
    let cluster = Cluster::new("crash").start()?;
    let mut victim = cluster.client("postgres")?;
    let pid: i32 = victim.query_one("SELECT pg_backend_pid()", &[])?.get(0);
    let mark = cluster.log_mark();
    cluster.kill9(pid)?;
    let reinitialised = |line: &String| line.contains("all server processes terminated; reinitializing");
    assert!(wait_until(PATIENCE, || cluster.log_lines_since(mark).iter().any(reinitialised)));
    cluster.wait_ready(PATIENCE)?;
    assert!(victim.simple_query("SELECT 1").is_err());
    cluster.stop(StopMode::Immediate)?;
    assert!(!cluster.is_running());
    Ok(())
}

#[test]
fn a_standby_follows_and_can_be_promoted() -> Result<()> {
    let primary = Cluster::new("primary").start()?;
    let standby = primary.standby()?;
    primary.psql("postgres", "CREATE TABLE t AS SELECT 7 AS n")?;
    standby.wait_caught_up(&primary, PATIENCE)?;
    assert_eq!(standby.psql("postgres", "SELECT n, pg_is_in_recovery() FROM t")?, "7|t");
    standby.promote()?;
    standby.psql("postgres", "INSERT INTO t VALUES (8)")?;
    Ok(())
}
