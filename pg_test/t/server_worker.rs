//! The background workers as processes: settings, signals, visibility, and what they hold.

use super::*;
use std::time::Instant;

#[test]
fn the_worker_takes_over_a_changed_setting() -> Result<()> {
    let cluster = steward("hup").conf("pg_steward.drain_interval", "60s").start()?;
    install(&cluster, "postgres")?;
    coordinator(&cluster, "postgres")?;
    std::thread::sleep(Duration::from_millis(1500));
    record(&cluster, "postgres", "slow_drain")?;
    std::thread::sleep(Duration::from_millis(1500));
    ensure!(stored(&cluster, "postgres", "slow_drain")? == 0, "the worker does not wait for its interval");
    cluster.psql("postgres", "ALTER SYSTEM SET pg_steward.drain_interval = '50ms'")?;
    cluster.psql("postgres", "SELECT pg_reload_conf()")?;
    let changed = Instant::now();
    wait_stored(&cluster, "postgres", "slow_drain", 1)?;
    ensure!(changed.elapsed() < Duration::from_secs(20));
    cluster.check_log(&[])
}

#[test]
fn a_terminated_worker_leaves_and_another_comes() -> Result<()> {
    let cluster = steward("term").start()?;
    install(&cluster, "postgres")?;
    for find in [coordinator as fn(&Cluster, &str) -> Result<i32>, |c, _| launcher(c)] {
        let before = find(&cluster, "postgres")?;
        cluster.psql("postgres", &format!("SELECT pg_terminate_backend({before})"))?;
        wait_for(&cluster, "postgres", &format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {before}"), "0")?;
        ensure!(find(&cluster, "postgres")? != before);
    }
    record(&cluster, "postgres", "after_all")?;
    wait_stored(&cluster, "postgres", "after_all", 1)?;
    let workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_steward coordinator'";
    std::thread::sleep(Duration::from_secs(2));
    ensure!(number(&cluster, "postgres", workers)? == 1, "one coordinator per database");
    cluster.check_log(&[])
}

/// Neither snapshot nor transaction while it waits: it must not hold VACUUM back.
#[test]
fn a_waiting_worker_holds_nothing() -> Result<()> {
    let cluster = steward("holds").conf("pg_steward.drain_interval", "1s").start()?;
    install(&cluster, "postgres")?;
    record(&cluster, "postgres", "something")?;
    wait_stored(&cluster, "postgres", "something", 1)?;
    let idle = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pg_steward %' AND state = 'idle' \
                AND backend_xmin IS NULL AND backend_xid IS NULL AND xact_start IS NULL AND wait_event_type IS NOT NULL";
    wait_for(&cluster, "postgres", idle, "2")?;
    let pid = coordinator(&cluster, "postgres")?;
    let locks = format!("SELECT count(*) FROM pg_locks WHERE pid = {pid}");
    wait_for(&cluster, "postgres", &locks, "0")?;
    let names = "SELECT string_agg(backend_type || ':' || coalesce(datname, '-'), ',' ORDER BY backend_type) \
                 FROM pg_stat_activity WHERE backend_type LIKE 'pg_steward %'";
    ensure!(cluster.psql("postgres", names)? == "pg_steward coordinator:postgres,pg_steward launcher:-");
    cluster.check_log(&[])
}

#[test]
fn a_stop_does_not_wait_for_the_workers() -> Result<()> {
    let cluster = steward("stop").conf("pg_steward.drain_interval", "60s").start()?;
    cluster.psql("postgres", "CREATE DATABASE other")?;
    for database in ["postgres", "other"] {
        install(&cluster, database)?;
        coordinator(&cluster, database)?;
    }
    let asked = Instant::now();
    cluster.stop(steward_test::StopMode::Fast)?;
    ensure!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    cluster.check_log(&[])
}

/// Its own statements are not among the captured ones, whatever the settings: it would feed itself.
#[test]
fn the_worker_does_not_record_itself() -> Result<()> {
    let cluster = steward("self")
        .conf("pg_steward.track", "all")
        .conf("pg_steward.slow_threshold", "0")
        .conf("pg_steward.sample_rate", "1")
        .conf("pg_steward.slow_limit_per_minute", "0")
        .conf("pg_steward.overhead_limit", "0")
        .start()?;
    install(&cluster, "postgres")?;
    record(&cluster, "postgres", "mark")?;
    wait_stored(&cluster, "postgres", "mark", 1)?;
    let pid = coordinator(&cluster, "postgres")?;
    let own = format!("SELECT count(*) FROM steward.slow_executions WHERE pid = {pid}");
    std::thread::sleep(Duration::from_secs(1));
    ensure!(number(&cluster, "postgres", &own)? == 0, "{}", cluster.psql("postgres", &own)?);
    let ingest = "SELECT count(*) FROM steward.statements WHERE query LIKE '%steward.ingest($1%' AND query NOT LIKE '%statements%'";
    ensure!(number(&cluster, "postgres", ingest)? == 0);
    cluster.psql("postgres", "SELECT count(*) FROM steward.slow_executions")?;
    cluster.check_log(&[])
}
