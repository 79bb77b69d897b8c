//! Transactions that read an older state, or their own writes, get what their snapshot shows.

use super::probe::{self, Watch, ask, cached, direct, run, state};
use steward_test::Cluster;

const SETUP: &str =
    "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT n, n FROM generate_series(1, 20) AS n;
    CREATE TABLE other (id int PRIMARY KEY, v int); INSERT INTO other VALUES (1, 1)";
const SUM: &str = "SELECT count(*), sum(v) FROM t";
const OTHER: &str = "SELECT sum(v) FROM other";

fn watch(name: &str) -> (Cluster, Watch) {
    let cluster = probe::builder(name).start().expect("server");
    probe::create_database(&cluster, name);
    let watch = Watch::begin(&cluster, name, name, SETUP, SUM);
    (cluster, watch)
}

#[test]
fn a_repeatable_read_transaction_keeps_its_state() {
    let (_cluster, mut watch) = watch("repeatable");
    cached(&mut watch.near, OTHER);
    run(&mut watch.near, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM t");
    assert_eq!(state(&mut watch.near, SUM), "local", "what is true for the snapshot is served");
    assert_eq!(cached(&mut watch.near, SUM), watch.before);
    for round in 0..6 {
        run(&mut watch.writer, "UPDATE t SET v = v + 1");
        assert_eq!(cached(&mut watch.near, SUM), watch.before, "round {round}");
        assert_eq!(direct(&mut watch.near, SUM), watch.before);
        assert_eq!(cached(&mut watch.far, SUM), direct(&mut watch.writer, SUM), "round {round}");
        // Both kinds of readers go on beside each other, and none stores for the other what is wrong for it.
        assert_eq!(cached(&mut watch.far, SUM), direct(&mut watch.writer, SUM), "round {round}");
        assert_eq!(cached(&mut watch.near, SUM), watch.before, "round {round}");
        assert_eq!(state(&mut watch.near, OTHER), "local", "nobody wrote to the other table");
    }
    run(&mut watch.near, "COMMIT");
    watch.assert_follows(true);
}

#[test]
fn a_snapshot_taken_before_a_commit_and_used_after_it() {
    let (_cluster, mut watch) = watch("before");
    // The snapshot comes before the commit, the first cached call after it, so the result that others stored is newer.
    run(&mut watch.near, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM other");
    run(&mut watch.writer, "UPDATE t SET v = 0");
    assert_eq!(cached(&mut watch.far, SUM), direct(&mut watch.writer, SUM));
    assert_eq!(cached(&mut watch.near, SUM), watch.before);
    assert_eq!(cached(&mut watch.far, SUM), direct(&mut watch.writer, SUM));
    run(&mut watch.near, "COMMIT");
    watch.assert_follows(true);
}

#[test]
fn an_imported_snapshot_shows_the_old_state() {
    let (cluster, mut watch) = watch("imported");
    run(&mut watch.near, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    let name = ask(&mut watch.near, "SELECT pg_export_snapshot()");
    run(&mut watch.writer, "UPDATE t SET v = 0; INSERT INTO t VALUES (100, 100)");
    let now = direct(&mut watch.writer, SUM);
    assert_eq!(cached(&mut watch.far, SUM), now);
    let mut fresh = cluster.client("imported").expect("client");
    run(&mut fresh, "SET search_path = imported");
    for importer in [&mut watch.far, &mut fresh] {
        run(importer, &format!("BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT '{name}'"));
        assert_eq!(cached(importer, SUM), watch.before);
        assert_eq!(cached(importer, SUM), watch.before);
        assert_eq!(direct(importer, SUM), watch.before);
        run(importer, "COMMIT");
        assert_eq!(cached(importer, SUM), now);
    }
    run(&mut watch.near, "COMMIT");
    watch.assert_follows(true);
}

#[test]
fn an_exported_snapshot_of_an_open_writer() {
    let (_cluster, mut watch) = watch("exported");
    // Who exports has an id, and its own writes are not part of the snapshot that others import.
    run(&mut watch.near, "BEGIN ISOLATION LEVEL REPEATABLE READ; UPDATE t SET v = 0");
    let name = ask(&mut watch.near, "SELECT pg_export_snapshot()");
    run(&mut watch.far, &format!("BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT '{name}'"));
    assert_eq!(cached(&mut watch.far, SUM), watch.before);
    run(&mut watch.near, "COMMIT");
    assert_eq!(cached(&mut watch.far, SUM), watch.before);
    run(&mut watch.far, "COMMIT");
    watch.assert_follows(true);
}

#[test]
fn a_transaction_reads_past_the_cache_what_it_has_written() {
    let (_cluster, mut watch) = watch("own");
    for client in [&mut watch.near, &mut watch.far] {
        cached(client, OTHER);
    }
    let near = &mut watch.near;
    for (what, write, reason) in [
        ("row", "UPDATE t SET v = v * 2", "wrote_table"),
        ("truncated", "TRUNCATE t", "wrote_catalog"),
        ("savepoint", "SAVEPOINT a; DELETE FROM t WHERE id < 5", "wrote_table"),
        ("released", "SAVEPOINT a; DELETE FROM t WHERE id < 5; RELEASE a", "wrote_table"),
        ("nested", "SAVEPOINT a; DELETE FROM t WHERE id = 5; SAVEPOINT b; SELECT 1", "wrote_table"),
        ("blind", "SET LOCAL track_counts = off; UPDATE t SET v = 7; SET LOCAL track_counts = on", "tracking_off"),
        ("column", "ALTER TABLE t ADD COLUMN w int", "absent"),
        ("function", "DO $$ BEGIN DELETE FROM t; END $$", "wrote_table"),
        ("copied", "COPY t FROM PROGRAM 'echo 500,1' (FORMAT csv)", "wrote_table"),
    ] {
        run(near, &format!("BEGIN; {write}"));
        assert_eq!(state(near, SUM), reason, "{what}");
        assert_eq!(cached(near, SUM), direct(near, SUM), "{what}");
        assert_ne!(cached(near, SUM), "", "{what}");
        if reason == "wrote_table" {
            assert_eq!(state(near, OTHER), "local", "{what}: the other table");
        }
        assert_eq!(cached(&mut watch.far, SUM), watch.before, "{what}: nobody else sees it");
        run(near, "ROLLBACK");
        assert_eq!(state(near, SUM), "local", "{what}: rolled back");
        assert_eq!(cached(near, SUM), watch.before, "{what}: rolled back");
    }
    run(near, "BEGIN; SAVEPOINT a; DELETE FROM t; ROLLBACK TO a");
    assert_eq!(cached(near, SUM), watch.before, "its own write is undone");
    run(near, "COMMIT; BEGIN; DELETE FROM t WHERE id = 1");
    let now = cached(near, SUM);
    assert_eq!(now, direct(near, SUM));
    run(near, "COMMIT");
    assert_eq!(cached(near, SUM), now);
    watch.assert_follows(true);
}

#[test]
fn a_serializable_transaction_reads_past_the_cache() {
    let (_cluster, mut watch) = watch("serializable");
    for client in [&mut watch.near, &mut watch.far] {
        run(client, "BEGIN ISOLATION LEVEL SERIALIZABLE");
        let bypassed = probe::misses(&mut watch.writer, "serializable");
        assert_eq!(cached(client, SUM), watch.before);
        assert_eq!(probe::misses(&mut watch.writer, "serializable"), bypassed + 1);
    }
    // Each has read what the other writes: one must fail, although both read by the cache's function.
    run(&mut watch.near, "UPDATE t SET v = 5 WHERE id = 1; COMMIT");
    let second = watch.far.batch_execute("UPDATE t SET v = 5 WHERE id = 2; COMMIT");
    let code = second.expect_err("a conflict").code().map(|state| state.code().to_owned());
    assert_eq!(code.as_deref(), Some("40001"));
    run(&mut watch.far, "ROLLBACK");
    watch.assert_follows(true);
}

#[test]
fn a_statement_with_cached_calls_is_of_one_snapshot() {
    let (_cluster, mut watch) = watch("one");
    // A cursor's snapshot is that of its opening.
    let call = format!("SELECT n, steward.cached_json('{SUM}') FROM generate_series(1, 5) AS n");
    run(&mut watch.near, &format!("BEGIN; DECLARE c NO SCROLL CURSOR FOR {call}"));
    let first = ask(&mut watch.near, "FETCH 1 FROM c");
    run(&mut watch.writer, "UPDATE t SET v = 0");
    let rest = ask(&mut watch.near, "FETCH ALL FROM c");
    assert!(first.ends_with(&watch.before) && rest.lines().count() == 4, "{first} {rest}");
    assert!(rest.lines().all(|line| line.ends_with(&watch.before)), "{rest}");
    // And the next statement's is newer.
    assert_eq!(cached(&mut watch.near, SUM), direct(&mut watch.writer, SUM));
    run(&mut watch.near, "COMMIT");
    watch.assert_follows(true);
}
