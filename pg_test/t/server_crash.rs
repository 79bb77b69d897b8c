//! Crashes and stops: the server comes back by itself, and what was recorded is there once.

use super::*;
use steward_test::StopMode;

const UNIQUE: &str = "SELECT count(*) = count(DISTINCT event_id) FROM steward.slow_executions";
const LARGEST_ID: &str = "SELECT max(event_id) FROM steward.slow_executions";

/// What a crash of one process makes the others and the clients say.
const CRASH_NOISE: [&str; 3] = [
    "terminating connection because of crash of another server process",
    "the database system is in recovery mode",
    "the database system is not yet accepting connections",
];

/// Kills a process and waits until the server has started again.
fn crash(cluster: &Cluster, pid: i32) -> Result<()> {
    let mark = cluster.log_mark();
    cluster.kill9(pid)?;
    let recovered = |line: &String| line.contains("database system is ready to accept connections");
    ensure!(wait_until(PATIENCE, || cluster.log_lines_since(mark).iter().any(recovered)), "no recovery");
    cluster.wait_ready(PATIENCE)
}

#[test]
fn a_killed_backend_costs_nothing_that_was_stored() -> Result<()> {
    let cluster = steward("killed").start()?;
    install(&cluster, "postgres")?;
    record(&cluster, "postgres", "before_crash")?;
    wait_stored(&cluster, "postgres", "before_crash", 1)?;
    let largest = number(&cluster, "postgres", LARGEST_ID)?;
    let reset = cluster.psql("postgres", "SELECT stats_reset FROM steward.statements_info")?;

    let mut victim = cluster.client("postgres")?;
    let pid: i32 = victim.query_one("SELECT pg_backend_pid()", &[])?.get(0);
    victim.simple_query("SET pg_steward.slow_threshold = 0; BEGIN; CREATE TABLE half_done AS SELECT 1 AS n")?;
    let busy = std::thread::spawn(move || victim.simple_query("SELECT count(*) FROM generate_series(1, 1000000000)"));
    wait_for(&cluster, "postgres", &format!("SELECT state FROM pg_stat_activity WHERE pid = {pid}"), "active")?;
    crash(&cluster, pid)?;
    ensure!(busy.join().is_ok_and(|ended| ended.is_err()));

    launcher(&cluster)?;
    coordinator(&cluster, "postgres")?;
    ensure!(stored(&cluster, "postgres", "before_crash")? == 1);
    let counted =
        "SELECT count(*) FROM steward.statements WHERE stats_since < (SELECT stats_reset FROM steward.statements_info)";
    ensure!(number(&cluster, "postgres", counted)? == 0, "statistics survived the crash");
    let later = format!("SELECT stats_reset > '{reset}' FROM steward.statements_info");
    ensure!(cluster.psql("postgres", &later)? == "t");
    record(&cluster, "postgres", "after_crash")?;
    wait_stored(&cluster, "postgres", "after_crash", 1)?;
    let after =
        format!("SELECT min(event_id) > {largest} FROM steward.slow_executions WHERE {}", marked("after_crash"));
    ensure!(cluster.psql("postgres", &after)? == "t", "event ids do not ascend over a crash");
    ensure!(cluster.psql("postgres", UNIQUE)? == "t");
    cluster.check_log(&CRASH_NOISE)
}

#[test]
fn killed_workers_come_back() -> Result<()> {
    let cluster = steward("workers").start()?;
    install(&cluster, "postgres")?;
    for (round, find) in [coordinator as fn(&Cluster, &str) -> Result<i32>, |c, _| launcher(c)].iter().enumerate() {
        let mark = format!("round_{round}");
        let before = find(&cluster, "postgres")?;
        crash(&cluster, before)?;
        ensure!(find(&cluster, "postgres")? != before);
        record(&cluster, "postgres", &mark)?;
        wait_stored(&cluster, "postgres", &mark, 1)?;
    }
    ensure!(cluster.psql("postgres", UNIQUE)? == "t");
    cluster.check_log(&CRASH_NOISE)
}

#[test]
fn a_restart_neither_loses_nor_doubles() -> Result<()> {
    let cluster = steward("restart").start()?;
    install(&cluster, "postgres")?;
    record(&cluster, "postgres", "known")?;
    wait_stored(&cluster, "postgres", "known", 1)?;
    // From here on the worker would take its time; a stop must not wait for it, nor lose what is in the ring.
    cluster.append_conf("pg_steward.drain_interval = '60s'\n")?;
    cluster.reload()?;
    wait_for(&cluster, "postgres", "SHOW pg_steward.drain_interval", "1min")?;
    std::thread::sleep(Duration::from_millis(500));
    record(&cluster, "postgres", "just_before_stop")?;
    cluster.restart()?;
    ensure!(stored(&cluster, "postgres", "just_before_stop")? == 1, "a fast stop lost what was in the ring");
    ensure!(stored(&cluster, "postgres", "known")? == 1);

    cluster.append_conf("pg_steward.drain_interval = '100ms'\n")?;
    cluster.stop(StopMode::Immediate)?;
    cluster.start()?;
    record(&cluster, "postgres", "known")?;
    wait_stored(&cluster, "postgres", "known", 2)?;
    ensure!(stored(&cluster, "postgres", "just_before_stop")? == 1);
    ensure!(cluster.psql("postgres", UNIQUE)? == "t");
    let twice = "SELECT count(*) FROM (SELECT 1 FROM steward.slow_queries GROUP BY captured_at, event_id HAVING count(*) > 1) AS d";
    ensure!(number(&cluster, "postgres", twice)? == 0);
    cluster.check_log(&CRASH_NOISE)
}
