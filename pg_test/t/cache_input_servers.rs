//! Servers of other kinds: without the library preloaded, without shared memory for results, and standbys.

use super::common::{Session, builder};
use anyhow::Result;
use std::time::Duration;
use steward_test::Cluster;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn without_the_library_at_server_start() -> Result<()> {
    let cluster = Cluster::new("cacheNotPreloaded").start()?;
    cluster.psql("postgres", "CREATE EXTENSION pg_steward; CREATE TABLE n (id int)")?;
    for call in [
        "steward.cached_json('SELECT 1')",
        "steward.cached_json('SELECT nonsense')",
        "steward.cached_json(NULL)",
        "* FROM steward.cached('SELECT 1') AS t(a int)",
        "* FROM steward.cache_explain('SELECT 1')",
        "* FROM steward.cache_stats",
        "* FROM steward.cache_misses",
        "* FROM steward.cache_class_stats",
        "* FROM steward.cache_query_stats",
        "* FROM steward.cache_entries",
        "* FROM steward.cache_dependencies",
        "* FROM steward.cache_hottest()",
        "* FROM steward.cache_coldest()",
        "steward.cache_invalidate('n')",
        "steward.cache_invalidate_tag('a')",
        "steward.cache_invalidate_class('utility')",
        "steward.cache_invalidate_role('postgres')",
        "steward.cache_clear()",
        "steward.cache_stats_reset()",
    ] {
        // A session of its own for each: the first call loads the library.
        let mut client = cluster.client("postgres")?;
        let error = client.simple_query(&format!("SELECT {call}")).expect_err(call);
        let error = error.as_db_error().expect("an error of the server's");
        assert_eq!(error.code().code(), "55000", "{call}");
        assert_eq!(error.message(), "pg_steward is not loaded via shared_preload_libraries", "{call}");
        assert_eq!(error.hint(), Some("Add pg_steward to shared_preload_libraries and restart the server."), "{call}");
        client.batch_execute("INSERT INTO n VALUES (1); SELECT * FROM steward.cache_classes")?;
    }
    cluster.check_log(&["ERROR:"])
}

#[test]
fn without_shared_memory_for_results() -> Result<()> {
    let cluster = builder("cacheNoSize").conf("pg_steward.cache_size", "0").start()?;
    cluster.create_database("none").expect("database");
    let mut session = Session::new(cluster.client("none")?, "none", "one");
    let mut other = Session::new(cluster.client("none")?, "none", "other");
    session.run("CREATE TABLE n (id int); INSERT INTO n VALUES (1)");
    let query = "SELECT id FROM n ORDER BY id";
    session.warm(query);
    assert_ne!(other.state(query), "shared");
    other.warm(query);
    session.run("INSERT INTO n VALUES (2)");
    other.agrees("after a write", query);
    other.run("SET pg_steward.cache_local_size = 0");
    for _ in 0..3 {
        other.agrees("kept nowhere", query);
    }
    assert_eq!(other.line("SELECT entries, capacity_bytes, shared_hits FROM steward.cache_stats"), "0|0|0");
    assert_eq!(other.line("SELECT count(*) FROM steward.cache_entries"), "0");
    session.run("SELECT steward.cache_clear(), steward.cache_invalidate('n'), steward.cache_stats_reset()");
    session.agrees("cleared", query);
    cluster.check_log(&[])
}

/// Commits on the primary cannot be followed, so a standby runs every query. Promoted, it caches.
#[test]
fn a_standby_runs_queries_and_caches_when_it_is_promoted() -> Result<()> {
    let primary = builder("cachePrimary").start()?;
    primary.create_database("copied").expect("database");
    primary.psql("copied", "CREATE TABLE n (id int); INSERT INTO n VALUES (1)")?;
    let standby = primary.standby()?;
    standby.wait_caught_up(&primary, PATIENCE)?;
    let query = "SELECT id FROM n ORDER BY id";
    // Connected before the promotion and after it.
    let mut early = Session::new(standby.client("copied")?, "copied", "early");
    for id in 2..5 {
        early.agrees("in recovery", query);
        assert_eq!(early.reason(query), "in_recovery");
        assert!(!["local", "shared"].contains(&early.state(query).as_str()));
        primary.psql("copied", &format!("INSERT INTO n VALUES ({id})"))?;
        standby.wait_caught_up(&primary, PATIENCE)?;
    }
    assert_eq!(early.agrees("in recovery", query).rows().join("").matches("id").count(), 4);
    assert_eq!(early.line("SELECT entries, stored, local_entries FROM steward.cache_stats"), "0|0|0");
    assert_eq!(early.line("SELECT count > 0 FROM steward.cache_misses WHERE reason = 'in_recovery'"), "t");
    // A snapshot that was taken in recovery tells nothing of commits after it.
    early.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM n");
    standby.promote()?;
    let mut late = Session::new(standby.client("copied")?, "copied", "late");
    late.warm(query);
    late.run("INSERT INTO n VALUES (100)");
    late.warm(query);
    assert_eq!(early.agrees_within("a snapshot of before", query).rows().join("").matches("id").count(), 4);
    early.run("COMMIT");
    assert_eq!(early.agrees("promoted", query).rows().join("").matches("id").count(), 5);
    early.warm(query);
    late.run("DELETE FROM n");
    for session in [&mut early, &mut late] {
        assert_eq!(session.agrees("after a DELETE", query).rows(), ["[]"]);
        session.warm(query);
    }
    standby.check_log(&["could not receive data from WAL stream", "terminating walreceiver"])
}
