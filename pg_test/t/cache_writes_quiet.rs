//! What takes a transaction id and changes no row that others see leaves every answer where it is; and sessions that were
//! away find it.

use super::probe::{self, Watch, ask, cached, direct, run, state};

const SETUP: &str =
    "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT n, n FROM generate_series(1, 20) AS n;
    CREATE TABLE other (id int PRIMARY KEY REFERENCES t, v int); INSERT INTO other VALUES (1, 1);
    CREATE SEQUENCE s; CREATE TEMP TABLE mine (v int)";
const SUM: &str = "SELECT count(*), sum(v) FROM t";

/// What is done, and its statements, separated by line ends where a transaction must end between them.
const QUIET: &[(&str, &str)] = &[
    ("row lock", "BEGIN; SELECT * FROM t WHERE id = 1 FOR UPDATE; COMMIT"),
    ("weak row lock", "BEGIN; SELECT * FROM t WHERE id = 1 FOR KEY SHARE; COMMIT"),
    ("row lock below a savepoint", "BEGIN; SAVEPOINT a; SELECT * FROM t FOR SHARE; RELEASE a; COMMIT"),
    ("row lock by a function", "DO $$ BEGIN PERFORM 1 FROM t WHERE id = 1 FOR UPDATE; END $$"),
    ("nextval", "SELECT nextval('s')"),
    ("setval", "SELECT setval('s', 10), setval('s', 10, false)"),
    ("transaction id", "SELECT txid_current(), pg_current_xact_id()"),
    ("NOTIFY", "NOTIFY news, 'x'"),
    ("pg_notify", "SELECT pg_notify('news', 'x')"),
    ("LISTEN", "LISTEN news; UNLISTEN *"),
    ("logical message", "SELECT pg_logical_emit_message(true, 'a', 'b')"),
    ("write to a temporary table", "INSERT INTO mine VALUES (1); UPDATE mine SET v = 2; TRUNCATE mine"),
    ("temporary table", "CREATE TEMP TABLE passing (v int) ON COMMIT DROP"),
    ("temporary table kept", "CREATE TEMP TABLE kept AS SELECT 1 AS v; DROP TABLE kept"),
    ("write to another table", "UPDATE other SET v = v + 1"),
    ("foreign key that locks the row", "INSERT INTO other VALUES (2, 2)"),
    ("new table", "CREATE TABLE fresh (v int); INSERT INTO fresh VALUES (1); DROP TABLE fresh"),
    ("table lock", "BEGIN; LOCK TABLE t IN SHARE MODE; COMMIT"),
    ("strongest table lock", "BEGIN; LOCK TABLE t; COMMIT"),
    ("advisory lock", "SELECT pg_advisory_xact_lock(1)"),
    ("savepoint rolled back", "BEGIN; SAVEPOINT a; UPDATE t SET v = 0; ROLLBACK TO a; COMMIT"),
    (
        "savepoint rolled back beside a write",
        "BEGIN; UPDATE other SET v = 3; SAVEPOINT a; UPDATE t SET v = 0; ROLLBACK TO a; COMMIT",
    ),
    ("exception block", "DO $$ BEGIN INSERT INTO t VALUES (1, 1); EXCEPTION WHEN unique_violation THEN NULL; END $$"),
    ("rows that are not there", "UPDATE t SET v = 0 WHERE id = -1; DELETE FROM t WHERE id = -1"),
    ("write rolled back", "BEGIN; UPDATE t SET v = 0; TRUNCATE t CASCADE; ROLLBACK"),
    ("definition rolled back", "BEGIN; ALTER TABLE t ADD COLUMN w int; DROP TABLE other; ROLLBACK"),
    ("prepared and rolled back", "BEGIN; UPDATE t SET v = 0; PREPARE TRANSACTION 'quiet'\nROLLBACK PREPARED 'quiet'"),
    ("prepared row lock", "BEGIN; SELECT * FROM t FOR UPDATE; PREPARE TRANSACTION 'quiet'\nCOMMIT PREPARED 'quiet'"),
    ("VACUUM", "VACUUM t"),
    ("VACUUM that freezes", "VACUUM (FREEZE, ANALYZE) t"),
    ("ANALYZE", "ANALYZE t"),
    ("ANALYZE of everything", "ANALYZE"),
    ("VACUUM of everything", "VACUUM"),
    ("checkpoint", "CHECKPOINT"),
    ("settings", "SET work_mem = '8MB'; RESET work_mem; DISCARD PLANS"),
    ("large object", "SELECT lo_unlink(lo_create(0))"),
    ("reading", "SELECT * FROM t; COPY t TO '/dev/null'"),
    ("cursor", "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT * FROM t; FETCH 2 FROM c; COMMIT; CLOSE c"),
];

#[test]
fn what_changes_no_rows_leaves_answers_alone() {
    let cluster = probe::builder("quiet").conf("wal_level", "logical").start().expect("server");
    probe::create_database(&cluster, "quiet");
    let mut watch = Watch::begin(&cluster, "quiet", "quiet", SETUP, SUM);
    let mut failed = Vec::new();
    for (what, sql) in QUIET {
        sql.lines().for_each(|sql| run(&mut watch.writer, sql));
        let misses = probe::count(&mut watch.writer, "misses");
        assert_eq!(cached(&mut watch.near, SUM), direct(&mut watch.writer, SUM), "{what}");
        let missed = probe::count(&mut watch.writer, "misses") - misses;
        let now = (state(&mut watch.near, SUM), state(&mut watch.far, SUM));
        if missed != 0 || now != ("local".into(), "shared".into()) {
            failed.push(format!("{what}: {missed} {now:?}"));
            watch.warm();
        }
    }
    assert!(failed.is_empty(), "{} of {}: {failed:#?}", failed.len(), QUIET.len());
    // And yet this session's writes are noticed.
    run(&mut watch.writer, "UPDATE t SET v = v + 1");
    watch.assert_follows(true);
}

/// Commits that a session has not lived through must not keep it from the answers of others.
#[test]
fn sessions_that_were_away_are_served() {
    let cluster = probe::builder("away").start().expect("server");
    probe::create_database(&cluster, "away");
    let mut watch = Watch::begin(&cluster, "away", "away", SETUP, SUM);
    for _ in 0..10 {
        run(&mut watch.writer, "UPDATE t SET v = v + 1");
    }
    watch.before = cached(&mut watch.near, SUM);
    cached(&mut watch.near, SUM);
    assert_eq!(state(&mut watch.near, SUM), "local");
    assert_eq!(state(&mut watch.far, SUM), "shared", "an idle session, after ten commits");
    let mut fresh = cluster.client("away").expect("client");
    run(&mut fresh, "SET search_path = away");
    assert_eq!(state(&mut fresh, SUM), "shared", "a new session");
    let mut first = cluster.config();
    let mut first = first.dbname("away").options("-c search_path=away").connect(postgres::NoTls).expect("client");
    let shared = probe::count(&mut watch.writer, "shared_hits");
    assert_eq!(cached(&mut first, SUM), watch.before);
    assert_eq!(probe::count(&mut watch.writer, "shared_hits"), shared + 1, "a session's first statement");
}

fn count_entries(client: &mut postgres::Client) -> String {
    ask(client, "SELECT count(*) FROM steward.cache_entries")
}

/// What an application asks the cache to forget is forgotten when it commits, and not if it does not.
#[test]
fn manual_invalidation_is_transactional() {
    let cluster = probe::builder("manual").start().expect("server");
    probe::create_database(&cluster, "manual");
    let mut watch = Watch::begin(&cluster, "manual", "manual", SETUP, SUM);
    let tagged = format!("SELECT steward.cached_json('{SUM}', tags => '{{red,blue}}')");
    let tag = |tag: &str| format!("steward.cache_invalidate_tag('{tag}')");
    for (what, forget) in [
        ("relation", "steward.cache_invalidate('t')".to_owned()),
        ("class", "steward.cache_invalidate_class('utility')".into()),
        ("role", "steward.cache_invalidate_role('postgres')".into()),
        ("everything", "steward.cache_clear()".into()),
    ] {
        watch.warm();
        run(&mut watch.writer, &format!("BEGIN; SELECT {forget}"));
        watch.assert_known(&format!("{what}, before the commit"));
        run(&mut watch.writer, "ROLLBACK");
        watch.assert_known(&format!("{what}, rolled back"));
        run(&mut watch.writer, &format!("BEGIN; SAVEPOINT a; SELECT {forget}; ROLLBACK TO a; COMMIT"));
        watch.assert_known(&format!("{what}, savepoint rolled back"));
        assert_ne!(ask(&mut watch.writer, &format!("SELECT {forget}")), "0", "{what}");
        for client in [&mut watch.near, &mut watch.far] {
            let state = state(client, SUM);
            assert!(state == "absent" || state == "stale", "{what}: {state}");
        }
        watch.assert_follows(false);
    }
    // What a savepoint takes back was asked for before as well.
    watch.warm();
    run(&mut watch.writer, "BEGIN; SELECT steward.cache_clear(); SAVEPOINT a; SELECT steward.cache_clear()");
    run(&mut watch.writer, "ROLLBACK TO a; COMMIT");
    assert_eq!(count_entries(&mut watch.writer), "0", "cleared before and after the savepoint");
    watch.assert_follows(false);
    // Tags.
    let served = |watch: &mut Watch| {
        let misses = probe::count(&mut watch.writer, "misses");
        ask(&mut watch.near, &tagged);
        probe::count(&mut watch.writer, "misses") == misses
    };
    served(&mut watch);
    assert!(served(&mut watch));
    run(&mut watch.writer, &format!("BEGIN; SELECT {}; ROLLBACK", tag("red")));
    assert!(served(&mut watch), "rolled back");
    run(
        &mut watch.writer,
        &format!("BEGIN; SAVEPOINT a; SELECT {}; ROLLBACK TO a; SELECT {}; COMMIT", tag("red"), tag("green")),
    );
    assert!(served(&mut watch), "savepoint rolled back");
    run(&mut watch.writer, &format!("SELECT {}", tag("green")));
    assert!(served(&mut watch), "another tag");
    watch.warm();
    run(&mut watch.writer, &format!("BEGIN; SAVEPOINT a; SELECT {}; RELEASE a; COMMIT", tag("blue")));
    assert!(!served(&mut watch), "one of its tags");
    watch.assert_known("without tags");
}
