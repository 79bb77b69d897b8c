//! Transactions that are prepared by one session and ended by another, also over a restart.

use super::probe::{self, Watch, cached, direct, run, state};
use steward_test::{Cluster, StopMode};

const SETUP: &str =
    "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT n, n FROM generate_series(1, 20) AS n;
    CREATE TABLE p (k int) PARTITION BY LIST (k)";
const SUM: &str = "SELECT count(*), sum(v) FROM t";

fn start(name: &str) -> Cluster {
    let cluster = probe::builder(name).start().expect("server");
    probe::create_database(&cluster, name);
    cluster
}

#[test]
fn another_session_ends_it() {
    let cluster = start("prepared");
    let mut watch = Watch::begin(&cluster, "prepared", "prepared", SETUP, SUM);
    run(
        &mut watch.writer,
        "BEGIN; UPDATE t SET v = v + 1; SAVEPOINT a; INSERT INTO t VALUES (50, 50); RELEASE a; PREPARE TRANSACTION 'p'",
    );
    watch.assert_known("prepared");
    let mut other = cluster.client("prepared").expect("client");
    run(&mut other, "COMMIT PREPARED 'p'");
    watch.assert_follows(true);
    watch.warm();
    run(&mut watch.writer, "BEGIN; UPDATE t SET v = v + 1; PREPARE TRANSACTION 'p'");
    run(&mut other, "ROLLBACK PREPARED 'p'");
    watch.assert_known("rolled back");
    // Its session is gone when it ends.
    let mut passing = cluster.client("prepared").expect("client");
    run(&mut passing, "BEGIN; DELETE FROM prepared.t WHERE id = 3; PREPARE TRANSACTION 'p'");
    drop(passing);
    watch.assert_known("prepared, and its session gone");
    run(&mut other, "COMMIT PREPARED 'p'");
    watch.assert_follows(true);
}

#[test]
fn one_that_wrote_many_tables() {
    let cluster = start("many");
    let mut watch = Watch::begin(&cluster, "many", "many", SETUP, "SELECT count(*), sum(k) FROM p");
    let many: String = (0..80).map(|n| format!("CREATE TABLE p{n} PARTITION OF p FOR VALUES IN ({n});")).collect();
    run(&mut watch.writer, &many);
    watch.warm();
    run(&mut watch.writer, "BEGIN; INSERT INTO p SELECT n FROM generate_series(0, 79) AS n; PREPARE TRANSACTION 'p'");
    watch.assert_known("prepared");
    run(&mut watch.writer, "COMMIT PREPARED 'p'");
    watch.assert_follows(true);
}

#[test]
fn definitions_in_it() {
    let cluster = start("defined");
    let mut watch = Watch::begin(&cluster, "defined", "defined", SETUP, "SELECT count(*) FROM p");
    run(&mut watch.writer, "CREATE TABLE q (k int); INSERT INTO q VALUES (1), (1)");
    run(&mut watch.writer, "BEGIN; ALTER TABLE p ATTACH PARTITION q FOR VALUES IN (1); PREPARE TRANSACTION 'p'");
    watch.assert_known("prepared");
    run(&mut watch.writer, "COMMIT PREPARED 'p'");
    watch.assert_follows(true);
}

#[test]
fn manual_invalidation_in_it() {
    let cluster = start("asked");
    let mut watch = Watch::begin(&cluster, "asked", "asked", SETUP, SUM);
    run(&mut watch.writer, "BEGIN; SELECT steward.cache_invalidate('t'); PREPARE TRANSACTION 'p'");
    watch.assert_known("prepared");
    run(&mut watch.writer, "COMMIT PREPARED 'p'");
    assert_ne!(state(&mut watch.near, SUM), "local");
    watch.assert_follows(false);
}

#[test]
fn a_reader_keeps_its_state_while_it_is_committed() {
    let cluster = start("kept");
    let mut watch = Watch::begin(&cluster, "kept", "kept", SETUP, SUM);
    run(&mut watch.writer, "BEGIN; UPDATE t SET v = v + 1; PREPARE TRANSACTION 'p'");
    run(&mut watch.near, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM t");
    assert_eq!(cached(&mut watch.near, SUM), watch.before);
    run(&mut watch.writer, "COMMIT PREPARED 'p'");
    assert_eq!(cached(&mut watch.near, SUM), watch.before);
    assert_eq!(cached(&mut watch.far, SUM), direct(&mut watch.writer, SUM));
    assert_eq!(cached(&mut watch.near, SUM), watch.before);
    run(&mut watch.near, "COMMIT");
    watch.assert_follows(true);
}

/// Prepares two transactions and crashes.
fn prepared_and_crashed(name: &str) -> Cluster {
    let cluster = start(name);
    let mut watch = Watch::begin(&cluster, name, name, SETUP, SUM);
    run(&mut watch.writer, "BEGIN; UPDATE t SET v = v + 1 WHERE id = 1; PREPARE TRANSACTION 'p'");
    run(&mut watch.writer, "BEGIN; UPDATE t SET v = v + 1 WHERE id = 2; PREPARE TRANSACTION 'q'");
    drop(watch);
    cluster.stop(StopMode::Immediate).expect("stop");
    cluster.start().expect("start");
    cluster
}

/// Sessions after the crash.
fn watch_again(cluster: &Cluster, name: &str) -> Watch {
    let [near, far, writer] = [(), (), ()].map(|()| {
        let mut client = probe::session(cluster, name);
        run(&mut client, &format!("SET search_path = {name}"));
        client
    });
    Watch { near, far, writer, query: SUM.into(), what: name.into(), before: String::new() }
}

#[test]
fn committed_after_a_crash() {
    let cluster = prepared_and_crashed("crashed");
    let mut watch = watch_again(&cluster, "crashed");
    watch.warm();
    run(&mut watch.writer, "COMMIT PREPARED 'p'");
    watch.assert_follows(true);
    watch.warm();
    run(&mut watch.writer, "COMMIT PREPARED 'q'");
    watch.assert_follows(true);
    watch.warm();
}

#[test]
fn rolled_back_after_a_crash() {
    let cluster = prepared_and_crashed("undone");
    let mut watch = watch_again(&cluster, "undone");
    watch.warm();
    run(&mut watch.writer, "ROLLBACK PREPARED 'p'");
    watch.assert_follows(false);
    watch.assert_known("rolled back");
    run(&mut watch.writer, "COMMIT PREPARED 'q'");
    watch.assert_follows(true);
}

/// A snapshot from before the commit computes the first result that is stored after the crash.
#[test]
fn committed_after_a_crash_under_the_first_result() {
    let cluster = prepared_and_crashed("under");
    let mut watch = watch_again(&cluster, "under");
    run(&mut watch.near, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM t");
    run(&mut watch.writer, "COMMIT PREPARED 'p'");
    let old = cached(&mut watch.near, SUM);
    assert_eq!(old, direct(&mut watch.near, SUM));
    assert_eq!(cached(&mut watch.far, SUM), direct(&mut watch.writer, SUM), "another session");
    run(&mut watch.near, "COMMIT");
    assert_eq!(cached(&mut watch.near, SUM), direct(&mut watch.writer, SUM), "the same session");
}
