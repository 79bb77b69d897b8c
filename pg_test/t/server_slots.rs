//! Too few background worker slots.

use super::*;

const COMPLAINT: &str = "no background worker is free";

fn complaints(cluster: &Cluster) -> usize {
    cluster.log().lines().filter(|line| line.contains(COMPLAINT)).count()
}

/// Two slots: the logical replication launcher has one, pg_steward's launcher the other.
#[test]
fn without_a_free_slot_one_line_says_so_and_counting_goes_on() -> Result<()> {
    let cluster = steward("slots").conf("max_worker_processes", "2").conf("pg_steward.flush_interval", "0").start()?;
    install(&cluster, "postgres")?;
    ensure!(wait_until(PATIENCE, || complaints(&cluster) > 0), "the log says nothing");
    record(&cluster, "postgres", "waiting")?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(complaints(&cluster) == 1, "{} lines", complaints(&cluster));
    ensure!(stored(&cluster, "postgres", "waiting")? == 0);
    let seen = format!("SELECT count(*) FROM steward.slow_queries WHERE {}", marked("waiting"));
    ensure!(number(&cluster, "postgres", &seen)? == 1, "the ring can be read without a worker");
    let counted = "SELECT sum(calls) FROM steward.statements WHERE query = 'SELECT $1'";
    ensure!(number(&cluster, "postgres", counted)? == 1);
    cluster.append_conf("max_worker_processes = 8\n")?;
    cluster.restart()?;
    record(&cluster, "postgres", "room_again")?;
    wait_stored(&cluster, "postgres", "room_again", 1)?;
    cluster.check_log(&[COMPLAINT])
}

/// Three slots: one coordinator for two databases, until one of them is gone.
#[test]
fn a_slot_that_becomes_free_is_used() -> Result<()> {
    let cluster = steward("onefree").conf("max_worker_processes", "3").start()?;
    cluster.psql("postgres", "CREATE DATABASE one; CREATE DATABASE two")?;
    install(&cluster, "one")?;
    coordinator(&cluster, "one")?;
    install(&cluster, "two")?;
    record(&cluster, "two", "waiting")?;
    ensure!(wait_until(PATIENCE, || complaints(&cluster) > 0), "the log says nothing");
    cluster.psql("one", "DROP EXTENSION pg_steward")?;
    wait_stored(&cluster, "two", "waiting", 1)?;
    cluster.check_log(&[COMPLAINT])
}
