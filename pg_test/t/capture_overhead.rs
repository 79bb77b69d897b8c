//! Capture watches its own cost: above the limit it switches parts of itself off, says so, and goes on counting.

#[path = "capture_common.rs"]
mod common;

use common::{PATIENCE, database, line, run};
use steward_test::wait_until;

/// A limit that any work exceeds.
const TINY_PCT: &str = "0.0001";

#[test]
fn too_dear_means_less_and_says_so() {
    let cluster = common::builder("overhead").conf("pg_steward.overhead_limit", TINY_PCT).start().expect("server");
    let mut client = database(&cluster, "dear");
    run(&mut client, "CREATE TABLE t (a int); INSERT INTO t SELECT generate_series(1, 200000)");
    let count = "SELECT count(*) FROM t AS dear";
    let degraded = wait_until(PATIENCE, || {
        (0..20).for_each(|_| run(&mut client, count));
        line(&mut client, "SELECT degraded FROM steward.statements_info") == "no sampling"
    });
    assert!(degraded, "{}", line(&mut client, "SELECT degraded, overhead_pct FROM steward.statements_info"));
    let overhead = "SELECT overhead_pct > 0.0001 FROM steward.statements_info";
    assert_eq!(line(&mut client, overhead), "t");
    for level in ["no plans", "no buffers", "no sampling"] {
        let said = format!("level is now \"{level}\"");
        assert!(cluster.log().contains(&said), "the log does not say: {said}");
    }
    // Counting itself is never given up, but buffers are no longer read.
    run(&mut client, "SELECT max(a) FROM t AS still_counted");
    let counted = "SELECT calls, shared_blks_hit FROM steward.statements WHERE query LIKE '%still_counted'";
    assert_eq!(line(&mut client, counted), "1|0");
}

#[test]
fn no_limit_means_everything() {
    let cluster = common::builder("no_limit").start().expect("server");
    let mut client = database(&cluster, "dear");
    run(&mut client, "SELECT count(*) FROM generate_series(1, 300000)");
    let info = "SELECT degraded, own_time > 0, statement_time > 0 FROM steward.statements_info";
    assert_eq!(line(&mut client, info), "full|t|t");
    common::check_background(&cluster);
}
