//! Nesting is as it was after every kind of error, and nested statements are told from the client's own.

#[path = "capture_common.rs"]
mod common;

use common::{check_background, counted, database, fails, only, run};
use postgres::Client;
use std::sync::OnceLock;
use steward_test::Cluster;

fn server() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| common::builder("nesting").start().expect("server"))
}

const SETUP: &str = "
    CREATE TABLE zero AS SELECT 0 AS n;
    CREATE TABLE log (n int);
    CREATE TABLE parent (n int);
    CREATE TABLE child (n int);
    CREATE TABLE deferred (n int);
    CREATE FUNCTION inner_fails() RETURNS int LANGUAGE plpgsql AS $$
        DECLARE r int; BEGIN SELECT 1 / n INTO r FROM zero; RETURN r; END $$;
    CREATE FUNCTION outer_fails() RETURNS int LANGUAGE plpgsql AS $$
        DECLARE r int; BEGIN SELECT inner_fails() INTO r; RETURN r; END $$;
    CREATE FUNCTION catches() RETURNS int LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM outer_fails();
            RETURN 0;
        EXCEPTION WHEN division_by_zero THEN
            INSERT INTO log VALUES (1);
            RETURN 1;
        END $$;
    CREATE FUNCTION catches_often(times int) RETURNS int LANGUAGE plpgsql AS $$
        DECLARE caught int := 0;
        BEGIN
            FOR i IN 1..times LOOP
                BEGIN PERFORM 1 / n + 2 FROM zero; EXCEPTION WHEN division_by_zero THEN caught := caught + 1; END;
            END LOOP;
            RETURN caught;
        END $$;
    CREATE FUNCTION deep(level int) RETURNS int LANGUAGE plpgsql AS $$
        BEGIN
            IF level = 0 THEN RETURN (SELECT 1 / n - 3 FROM zero); END IF;
            RETURN (SELECT deep(level - 1));
        END $$;
    CREATE FUNCTION sql_fails() RETURNS int LANGUAGE sql AS 'SELECT 5 / n FROM zero';
    CREATE FUNCTION row_fails() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO child VALUES (new.n); PERFORM 1 / n - 9 FROM zero; RETURN new; END $$;
    CREATE TRIGGER before_row BEFORE INSERT ON parent FOR EACH ROW WHEN (new.n = 0) EXECUTE FUNCTION row_fails();
    CREATE TRIGGER after_row AFTER UPDATE ON parent FOR EACH ROW WHEN (new.n = 0) EXECUTE FUNCTION row_fails();
    CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON deferred DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION row_fails();
    INSERT INTO parent VALUES (5);
    CREATE PROCEDURE commits(fail boolean) LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO log VALUES (10);
            COMMIT;
            UPDATE log SET n = n + 1 WHERE n > 100;
            ROLLBACK;
            DELETE FROM log WHERE n > 1000;
            IF fail THEN PERFORM 1 / n + 7 FROM zero; END IF;
        END $$;
    CREATE PROCEDURE catches_and_commits() LANGUAGE plpgsql AS $$
        BEGIN
            BEGIN PERFORM inner_fails(); EXCEPTION WHEN division_by_zero THEN NULL; END;
            COMMIT;
            UPDATE log SET n = n + 2 WHERE n > 200;
        END $$;
";

/// A statement that the client sends next must count as its own, with track = top.
fn plain_statement_counts(client: &mut Client, reader: &mut Client, calls: &mut i64) {
    run(client, "SELECT n FROM zero AS the_plain_one");
    *calls += 1;
    let plain = only(reader, "the_plain_one");
    assert_eq!((plain.toplevel, plain.calls), (true, *calls), "{plain:?}");
}

/// What to do, and the SQLSTATE it must end with, if it fails.
const TROUBLE: &[(&str, Option<&str>)] = &[
    ("SELECT outer_fails()", Some("22012")),
    ("SELECT sql_fails()", Some("22012")),
    ("SELECT catches()", None),
    ("SELECT catches_often(20)", None),
    ("SELECT deep(100)", Some("22012")),
    ("INSERT INTO parent VALUES (0)", Some("22012")),
    ("UPDATE parent SET n = 0", Some("22012")),
    ("DO $$ BEGIN PERFORM outer_fails(); END $$", Some("22012")),
    ("DO $$ BEGIN PERFORM catches(); END $$", None),
    ("CALL commits(false)", None),
    ("CALL commits(true)", Some("22012")),
    ("CALL catches_and_commits()", None),
    ("DO $$ BEGIN CALL commits(true); END $$", Some("22012")),
    ("DO $$ BEGIN EXECUTE 'SELECT nothing_there'; END $$", Some("42703")),
    ("BEGIN; SAVEPOINT s; SELECT catches(); ROLLBACK TO s; RELEASE s; COMMIT", None),
    ("PREPARE p AS SELECT outer_fails(); EXECUTE p", Some("22012")),
    ("EXPLAIN ANALYZE SELECT outer_fails()", Some("22012")),
    ("CREATE TABLE made AS SELECT outer_fails()", Some("22012")),
    ("DECLARE c CURSOR WITH HOLD FOR SELECT outer_fails()", Some("22012")),
];

#[test]
fn a_plain_statement_after_any_error_is_the_clients_own() {
    let mut reader = database(server(), "after_errors");
    run(&mut reader, SETUP);
    run(&mut reader, "SELECT steward.statements_reset()");
    let mut client = server().client("after_errors").expect("client");
    let mut calls = 0;
    for (sql, failure) in TROUBLE {
        match failure {
            Some(sqlstate) => assert_eq!(fails(&mut client, sql), *sqlstate, "{sql}"),
            None => run(&mut client, sql),
        }
        plain_statement_counts(&mut client, &mut reader, &mut calls);
        let nested: Vec<_> = counted(&mut reader, "").into_iter().filter(|found| !found.toplevel).collect();
        assert_eq!(nested, [], "after {sql}");
    }
    // What the functions ran must not have been counted as the client's either.
    for inner in ["INSERT INTO log", "UPDATE log", "DELETE FROM log", "inner_fails\\(\\)", r"[$]\d+ / n"] {
        assert_eq!(counted(&mut reader, &format!("^(SELECT )?{inner}")), [], "{inner}");
    }
    check_background(server());
}

#[test]
fn savepoints_at_top_level() {
    let mut reader = database(server(), "savepoints");
    run(&mut reader, SETUP);
    let mut client = server().client("savepoints").expect("client");
    let mut calls = 0;
    run(&mut client, "BEGIN");
    for failing in
        ["SELECT outer_fails()", "SELECT 1 / n FROM zero", "INSERT INTO parent VALUES (0)", "SELECT deep(10)"]
    {
        run(&mut client, "SAVEPOINT s");
        assert_eq!(fails(&mut client, failing), "22012");
        run(&mut client, "ROLLBACK TO SAVEPOINT s");
        run(&mut client, "SELECT n FROM zero AS the_plain_one");
        calls += 1;
    }
    run(&mut client, "COMMIT");
    let plain = only(&mut reader, "the_plain_one");
    assert_eq!((plain.toplevel, plain.calls), (true, calls));
    let failed = only(&mut reader, r"^SELECT outer_fails\(\)");
    assert_eq!((failed.toplevel, failed.calls, failed.errors), (true, 0, 1));
    assert_eq!(only(&mut reader, "^INSERT INTO parent VALUES .*").errors, 1);
    assert_eq!(counted(&mut reader, "^INSERT INTO child"), []);
}

/// A session of a database that captures nested statements too.
fn tracking_all(name: &str) -> (Client, Client) {
    let mut reader = database(server(), name);
    run(&mut reader, SETUP);
    run(&mut reader, &format!("ALTER DATABASE {name} SET pg_steward.track = 'all'"));
    let mut client = server().client(name).expect("client");
    run(
        &mut client,
        "SELECT steward.statements_reset(0, (SELECT oid FROM pg_database WHERE datname = current_database()))",
    );
    (reader, client)
}

/// Calls and errors of the nested statement that matches.
fn nested(reader: &mut Client, pattern: &str) -> (i64, i64) {
    let found = only(reader, pattern);
    assert!(!found.toplevel, "{found:?}");
    (found.calls, found.errors)
}

#[test]
fn nested_statements_and_their_errors_with_track_all() {
    let (mut reader, mut client) = tracking_all("track_all");
    assert_eq!(fails(&mut client, "SELECT outer_fails()"), "22012");
    let top = only(&mut reader, r"^SELECT outer_fails\(\)$");
    assert_eq!((top.toplevel, top.calls, top.errors), (true, 0, 1));
    assert_eq!(nested(&mut reader, r"^SELECT inner_fails\(\)"), (0, 1));
    assert_eq!(nested(&mut reader, r"^SELECT (1|\$1) / n +FROM zero"), (0, 1));
    // Caught: the client's statement comes to its end, and still each failure below it is counted.
    run(&mut client, "SELECT catches()");
    let top = only(&mut reader, r"^SELECT catches\(\)$");
    assert_eq!((top.toplevel, top.calls, top.errors), (true, 1, 0));
    assert_eq!(nested(&mut reader, r"^SELECT inner_fails\(\)"), (0, 2));
    assert_eq!(nested(&mut reader, r"^SELECT (1|\$1) / n +FROM zero"), (0, 2));
    assert_eq!(nested(&mut reader, "^INSERT INTO log"), (1, 0));
    run(&mut client, "SELECT catches_often(50)");
    assert_eq!(nested(&mut reader, r"/ n \+ (2|\$2) FROM zero"), (0, 50));
    assert_eq!(fails(&mut client, "SELECT deep(20)"), "22012");
    assert_eq!(nested(&mut reader, r"/ n - (3|\$2) FROM zero"), (0, 1));
    let mut calls = 0;
    plain_statement_counts(&mut client, &mut reader, &mut calls);
}

#[test]
fn triggers_and_procedures_with_track_all() {
    let (mut reader, mut client) = tracking_all("track_all_more");
    for (sql, children) in [("INSERT INTO parent VALUES (0)", 1), ("UPDATE parent SET n = 0", 2)] {
        assert_eq!(fails(&mut client, sql), "22012");
        assert_eq!(nested(&mut reader, "^INSERT INTO child"), (children, 0), "{sql}");
        assert_eq!(nested(&mut reader, r"/ n - (9|\$2) FROM zero"), (0, children), "{sql}");
    }
    assert_eq!(only(&mut reader, "^INSERT INTO parent").errors, 1);
    assert_eq!(only(&mut reader, "^UPDATE parent").errors, 1);
    run(&mut client, "CALL commits(false)");
    assert_eq!(fails(&mut client, "CALL commits(true)"), "22012");
    // Postgres 17 gives both the same query id, 15 does not.
    let calls = counted(&mut reader, "^CALL commits");
    assert!(calls.iter().all(|call| call.toplevel));
    assert_eq!(calls.iter().map(|call| (call.calls, call.errors)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)), (1, 1));
    assert_eq!(nested(&mut reader, "^INSERT INTO log"), (2, 0));
    assert_eq!(nested(&mut reader, "^UPDATE log"), (2, 0));
    assert_eq!(nested(&mut reader, "^DELETE FROM log"), (2, 0));
    run(&mut client, "CALL catches_and_commits()");
    assert_eq!(nested(&mut reader, "^UPDATE log SET n = n . .* WHERE n > (200|\\$2)"), (3, 0));
    let mut calls = 0;
    plain_statement_counts(&mut client, &mut reader, &mut calls);
}

/// A deferred trigger runs at commit, when the statement that queued it is done and nothing is above it. As with
/// pg_stat_statements, what it runs counts at the top level; its error must not touch the INSERT, or what follows.
#[test]
fn a_deferred_trigger_fails_at_commit() {
    let mut reader = database(server(), "deferring");
    run(&mut reader, SETUP);
    let mut client = server().client("deferring").expect("client");
    let mut calls = 0;
    for sql in ["INSERT INTO deferred VALUES (0)", "BEGIN; INSERT INTO deferred VALUES (0); COMMIT"] {
        assert_eq!(fails(&mut client, sql), "22012");
        plain_statement_counts(&mut client, &mut reader, &mut calls);
        let deferred = only(&mut reader, "^INSERT INTO deferred");
        assert_eq!((deferred.calls, deferred.errors), (calls, 0));
        assert_eq!(only(&mut reader, "^INSERT INTO child").calls, calls);
        assert_eq!(only(&mut reader, r"^SELECT .* / n - (9|\$2) FROM zero").errors, calls);
    }
    // Checked at once, it is nested in SET CONSTRAINTS.
    run(&mut client, "BEGIN; INSERT INTO deferred VALUES (0)");
    assert_eq!(fails(&mut client, "SET CONSTRAINTS ALL IMMEDIATE"), "22012");
    run(&mut client, "ROLLBACK");
    assert_eq!(only(&mut reader, "^INSERT INTO child").calls, calls);
    assert_eq!(only(&mut reader, "^SET CONSTRAINTS").errors, 1);
    plain_statement_counts(&mut client, &mut reader, &mut calls);
}

/// The planner evaluates constants, and so finds errors before any execution begins.
#[test]
fn nested_planning_that_fails_is_counted() {
    let (mut reader, mut client) = tracking_all("nested_planning");
    run(
        &mut client,
        "CREATE FUNCTION planned() RETURNS int LANGUAGE plpgsql AS $$
        BEGIN PERFORM n, 1 / 0 FROM zero; RETURN 0; EXCEPTION WHEN division_by_zero THEN RETURN 1; END $$",
    );
    run(&mut client, "SELECT planned()");
    assert_eq!(nested(&mut reader, r"^SELECT n, \S+ / \S+ FROM zero"), (0, 1));
    let mut calls = 0;
    plain_statement_counts(&mut client, &mut reader, &mut calls);
}

#[test]
fn track_none_and_capture_off_count_nothing() {
    let mut reader = database(server(), "track_none");
    run(&mut reader, SETUP);
    let mut client = server().client("track_none").expect("client");
    run(&mut client, "SET pg_steward.track = 'none'; SELECT n FROM zero AS with_none");
    assert_eq!(fails(&mut client, "SELECT 1 / n FROM zero AS with_none"), "22012");
    run(&mut client, "SET pg_steward.track = 'top'; SET pg_steward.capture_enabled = off");
    run(&mut client, "SELECT n FROM zero AS when_off");
    run(&mut client, "SET pg_steward.capture_enabled = on; SELECT n, 1 FROM zero AS when_on");
    assert_eq!(counted(&mut reader, "with_none|when_off"), []);
    assert_eq!(only(&mut reader, "when_on").calls, 1);
}
