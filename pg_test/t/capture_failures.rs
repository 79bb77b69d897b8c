//! Each kind of failure is told from the others, in the statement's counts and in the record of the execution.

#[path = "capture_common.rs"]
mod common;

use common::{check_background, counted, database, fails, lines, only, run};
use postgres::{Client, NoTls};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;
use steward_test::{Cluster, wait_until};

fn server() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| {
        let cluster = common::builder("failures").conf("deadlock_timeout", "50ms").start().expect("server");
        cluster.psql("postgres", "CREATE ROLE app LOGIN").expect("role");
        cluster
    })
}

const SETUP: &str = "
    CREATE TABLE zero AS SELECT 0 AS n;
    CREATE TABLE uniq (id int PRIMARY KEY);
    INSERT INTO uniq SELECT 1;
    CREATE TABLE secret (id int);
    CREATE TABLE locked (id int PRIMARY KEY, n int);
    INSERT INTO locked VALUES (1, 0), (2, 0);
    CREATE TABLE numbers AS SELECT generate_series(1, 20) AS n;
    CREATE FUNCTION slow(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE
        AS 'BEGIN PERFORM pg_sleep(0.5); RETURN n; END';
";

/// What steward.slow_queries has of one execution.
#[derive(Debug)]
struct Failure {
    outcome: String,
    sqlstate: String,
    message: Option<String>,
    queryid: Option<i64>,
    command: String,
    duration_ms: f64,
    plan: bool,
}

fn recorded(client: &mut Client, pattern: &str) -> Vec<Failure> {
    let sql = "SELECT outcome::text, sqlstate, message, queryid, command, duration_ms, planid IS NOT NULL
        FROM steward.slow_queries WHERE query ~ $1 AND reason = 'failed' ORDER BY event_id";
    let rows = client.query(sql, &[&pattern]).expect("steward.slow_queries");
    rows.iter()
        .map(|row| Failure {
            outcome: row.get(0),
            sqlstate: row.get(1),
            message: row.get(2),
            queryid: row.get(3),
            command: row.get(4),
            duration_ms: row.get(5),
            plan: row.get(6),
        })
        .collect()
}

/// Errors, cancelled, timeouts, terminated.
const ERROR: [i64; 4] = [1, 0, 0, 0];
const CANCELLED: [i64; 4] = [0, 1, 0, 0];
const TIMEOUT: [i64; 4] = [0, 0, 1, 0];
const TERMINATED: [i64; 4] = [0, 0, 0, 1];

fn class(outcome: &str) -> [i64; 4] {
    match outcome {
        "error" => ERROR,
        "cancelled" => CANCELLED,
        "statement_timeout" | "lock_timeout" => TIMEOUT,
        "terminated" => TERMINATED,
        other => panic!("{other}"),
    }
}

/// The statement that matches failed once in this way, and never came to its end.
fn expect(reader: &mut Client, pattern: &str, outcome: &str, sqlstate: &str, command: &str) -> Failure {
    let statement = only(reader, pattern);
    assert_eq!((statement.calls, statement.failures()), (0, class(outcome)), "{statement:?}");
    assert!(statement.toplevel);
    let mut found = recorded(reader, pattern);
    assert_eq!(found.len(), 1, "records that match {pattern}: {found:#?}");
    let failure = found.remove(0);
    assert_eq!((failure.outcome.as_str(), failure.sqlstate.as_str()), (outcome, sqlstate), "{failure:?}");
    assert_eq!(failure.command, command, "{failure:?}");
    assert_eq!(failure.queryid, Some(statement.queryid), "{failure:?}");
    failure
}

fn message(failure: &Failure) -> &str {
    failure.message.as_deref().expect("message")
}

#[test]
fn errors_of_execution_planning_and_analysis() {
    let mut reader = database(server(), "plain");
    let mut client = server().client("plain").expect("client");
    run(&mut client, SETUP);
    assert_eq!(fails(&mut client, "SELECT 1 / n FROM zero"), "22012");
    let failure = expect(&mut reader, r"SELECT \$1 / n FROM zero", "error", "22012", "SELECT");
    assert!(message(&failure).contains("division by zero") && failure.plan);
    assert_eq!(fails(&mut client, "SELECT n, 1 / 0 FROM zero"), "22012");
    let failure = expect(&mut reader, r"SELECT n, \$1 / \$2 FROM zero", "error", "22012", "PLAN");
    assert!(message(&failure).contains("division by zero"));
    assert_eq!(fails(&mut client, "INSERT INTO uniq VALUES (1)"), "23505");
    let failure = expect(&mut reader, "INSERT INTO uniq VALUES", "error", "23505", "INSERT");
    assert!(message(&failure).contains("uniq_pkey"), "{failure:?}");
    // The extended protocol fails in the same hooks, at other times.
    assert!(client.query("SELECT $1 / n + 1 FROM zero", &[&7i32]).is_err());
    run(&mut client, "");
    expect(&mut reader, r"SELECT \$1 / n \+ \$2 FROM zero", "error", "22012", "SELECT");
}

#[test]
fn a_statement_without_query_id_is_recorded_by_itself() {
    let mut reader = database(server(), "parse");
    let mut client = server().client("parse").expect("client");
    run(&mut client, SETUP);
    assert_eq!(fails(&mut client, "SELEC syntax_case"), "42601");
    assert_eq!(fails(&mut client, "SELECT 4711 FROM no_such_table"), "42P01");
    for (pattern, sqlstate) in [("syntax_case", "42601"), ("no_such_table", "42P01")] {
        assert_eq!(counted(&mut reader, pattern), []);
        let found = recorded(&mut reader, pattern);
        assert_eq!(found.len(), 1, "{pattern}: {found:?}");
        let failure = &found[0];
        assert_eq!((failure.outcome.as_str(), failure.sqlstate.as_str()), ("error", sqlstate));
        assert_eq!((failure.command.as_str(), failure.queryid), ("PARSE", None));
    }
    let hidden = lines(&mut reader, "SELECT query FROM steward.slow_queries WHERE query ~ 'no_such_table'");
    assert!(!hidden[0].contains("4711"), "{hidden:?}");
    let count = "SELECT unidentified_errors > 0 FROM steward.statements_info";
    assert_eq!(lines(&mut reader, count), ["t"]);
}

#[test]
fn permission_denied_when_the_executor_starts() {
    let mut reader = database(server(), "denied");
    run(&mut reader, SETUP);
    let mut app = server().client_as("app", "denied").expect("app");
    assert_eq!(fails(&mut app, "SELECT id FROM secret"), "42501");
    let failure = expect(&mut reader, "SELECT id FROM secret", "error", "42501", "SELECT");
    assert!(message(&failure).contains("permission denied"));
    run(&mut app, "SELECT 1 AS after_denied");
    assert!(only(&mut reader, "after_denied").toplevel);
}

/// A session that holds a row lock and a table lock until it is dropped.
fn locker(database: &str, lock: &str) -> Client {
    let mut holder = server().client(database).expect("holder");
    run(&mut holder, &format!("BEGIN; {lock}"));
    holder
}

#[test]
fn timeouts_and_nowait_are_told_apart() {
    let mut reader = database(server(), "timeouts");
    let mut client = server().client("timeouts").expect("client");
    run(&mut client, SETUP);
    run(&mut client, "SET statement_timeout = '60ms'");
    assert_eq!(fails(&mut client, "SELECT pg_sleep(5) FROM zero"), "57014");
    run(&mut client, "SET statement_timeout = 0; SET lock_timeout = '60ms'");
    let failure = expect(&mut reader, "SELECT pg_sleep", "statement_timeout", "57014", "SELECT");
    assert!((50.0..2_000.0).contains(&failure.duration_ms), "{failure:?}");

    let _holder = locker("timeouts", "UPDATE locked SET n = 1; LOCK TABLE numbers");
    assert_eq!(fails(&mut client, "UPDATE locked SET n = 2 WHERE id = 1"), "55P03");
    let failure = expect(&mut reader, "UPDATE locked", "lock_timeout", "55P03", "UPDATE");
    assert!((50.0..2_000.0).contains(&failure.duration_ms), "{failure:?}");
    assert_eq!(fails(&mut client, "SELECT id FROM locked FOR UPDATE NOWAIT"), "55P03");
    expect(&mut reader, "FOR UPDATE NOWAIT", "error", "55P03", "SELECT");
    assert_eq!(fails(&mut client, "BEGIN; LOCK TABLE numbers IN SHARE MODE"), "55P03");
    run(&mut client, "ROLLBACK");
    let failure = expect(&mut reader, "LOCK TABLE numbers IN SHARE MODE$", "lock_timeout", "55P03", "UTILITY");
    assert!((50.0..2_000.0).contains(&failure.duration_ms), "{failure:?}");
    assert_eq!(fails(&mut client, "BEGIN; LOCK TABLE numbers IN ROW SHARE MODE NOWAIT"), "55P03");
    run(&mut client, "ROLLBACK");
    expect(&mut reader, "ROW SHARE MODE NOWAIT", "error", "55P03", "UTILITY");

    // Waiting to be analysed: no query id yet, and still the time and the cause are known.
    assert_eq!(fails(&mut client, "SELECT count(*) FROM numbers"), "55P03");
    let found = recorded(&mut reader, r"count\(\*\) FROM numbers");
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].outcome.as_str(), found[0].queryid), ("lock_timeout", None));
    assert!((50.0..2_000.0).contains(&found[0].duration_ms), "{:?}", found[0]);
}

/// Runs a statement in a session of its own, and calls `interrupt` with its process id once it is at work.
fn interrupted(database: &str, sql: &'static str, interrupt: impl FnOnce(&mut Client, i32)) -> String {
    let mut other = server().client(database).expect("other");
    let mut client = server().client(database).expect("client");
    let pid: i32 = common::row(&mut client, "SELECT pg_backend_pid()", &[]).get(0);
    let running = thread::spawn(move || fails(&mut client, sql));
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'";
    assert!(wait_until(common::PATIENCE, || common::row(&mut other, busy, &[&pid]).get::<_, i64>(0) == 1));
    interrupt(&mut other, pid);
    running.join().expect("session")
}

fn cancel(other: &mut Client, pid: i32) {
    common::row(other, "SELECT pg_cancel_backend($1)", &[&pid]);
}

fn terminate(other: &mut Client, pid: i32) {
    common::row(other, "SELECT pg_terminate_backend($1)", &[&pid]);
}

#[test]
fn cancel_and_termination_are_told_apart() {
    let mut reader = database(server(), "cancel");
    run(&mut reader, SETUP);
    assert_eq!(interrupted("cancel", "SELECT pg_sleep(20), 1 FROM zero", cancel), "57014");
    expect(&mut reader, r"pg_sleep\(\$1\), \$2 FROM zero", "cancelled", "57014", "SELECT");
    interrupted("cancel", "SELECT pg_sleep(20), 1, 2 FROM zero", terminate);
    let seen = || !counted(&mut reader, r"pg_sleep\(\$1\), \$2, \$3 FROM zero").is_empty();
    assert!(wait_until(common::PATIENCE, seen));
    expect(&mut reader, r"pg_sleep\(\$1\), \$2, \$3 FROM zero", "terminated", "57P01", "SELECT");
    // Utility statements, at work in a function of theirs.
    assert_eq!(interrupted("cancel", "CREATE INDEX cancelled_index ON numbers (slow(n))", cancel), "57014");
    let failure = expect(&mut reader, "CREATE INDEX cancelled_index", "cancelled", "57014", "UTILITY");
    assert!(message(&failure).contains("user request"));
    interrupted("cancel", "CREATE INDEX ended_index ON numbers (slow(n))", terminate);
    assert!(wait_until(common::PATIENCE, || !counted(&mut reader, "ended_index").is_empty()));
    expect(&mut reader, "CREATE INDEX ended_index", "terminated", "57P01", "UTILITY");
    check_background(server());
}

#[test]
fn a_cancel_request_of_the_driver_is_a_cancel() {
    let mut reader = database(server(), "driver");
    let mut client = server().client("driver").expect("client");
    let token = client.cancel_token();
    let running = thread::spawn(move || client.query("SELECT pg_sleep($1), 'driver'", &[&20f64]).map(drop));
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'driver' AND wait_event = 'PgSleep'";
    assert!(wait_until(common::PATIENCE, || lines(&mut reader, busy) == ["1"]));
    token.cancel_query(NoTls).expect("cancel");
    assert!(running.join().expect("session").is_err());
    let pattern = r"SELECT pg_sleep\(\$1\), \$2";
    assert!(wait_until(common::PATIENCE, || !counted(&mut reader, pattern).is_empty()));
    expect(&mut reader, pattern, "cancelled", "57014", "SELECT");
}

#[test]
fn a_deadlock_is_an_error_of_its_victim() {
    let mut reader = database(server(), "deadlock");
    run(&mut reader, SETUP);
    let mut sessions = [1, 2].map(|id| {
        let mut client = server().client("deadlock").expect("client");
        run(&mut client, &format!("BEGIN; UPDATE locked SET n = n WHERE id = {id}"));
        client
    });
    let [one, two] = &mut sessions;
    let failed = thread::scope(|scope| {
        let first = scope.spawn(|| one.batch_execute("DELETE FROM locked WHERE id = 2").is_err());
        thread::sleep(Duration::from_millis(10));
        let second = two.batch_execute("DELETE FROM locked WHERE id = 1").is_err();
        u32::from(first.join().expect("first")) + u32::from(second)
    });
    assert_eq!(failed, 1);
    sessions.iter_mut().for_each(|session| run(session, "ROLLBACK"));
    let statement = only(&mut reader, "DELETE FROM locked");
    assert_eq!((statement.calls, statement.failures()), (1, ERROR));
    let found = recorded(&mut reader, "DELETE FROM locked");
    assert_eq!((found.len(), found[0].outcome.as_str(), found[0].sqlstate.as_str()), (1, "error", "40P01"));
}

#[test]
fn failing_utility_statements() {
    let mut reader = database(server(), "utility");
    let mut client = server().client("utility").expect("client");
    run(&mut client, SETUP);
    let cases = [
        ("CREATE INDEX timed_out ON numbers (slow(n))", "timed_out", "statement_timeout", "57014"),
        ("COPY (SELECT 1 / n FROM zero) TO '/dev/null'", "COPY .SELECT", "error", "22012"),
        ("DROP TABLE missing_table", "DROP TABLE missing_table", "error", "42P01"),
        ("DO 'BEGIN RAISE EXCEPTION ''own''; END'", "^DO", "error", "P0001"),
        ("ALTER TABLE numbers ADD CHECK (n < 0)", "ALTER TABLE numbers", "error", "23514"),
    ];
    run(&mut client, "SET statement_timeout = '100ms'");
    for (sql, pattern, outcome, sqlstate) in cases {
        assert_eq!(fails(&mut client, sql), sqlstate);
        let failure = expect(&mut reader, pattern, outcome, sqlstate, "UTILITY");
        assert!(!message(&failure).is_empty());
    }
    let copy = client.copy_in("COPY numbers FROM STDIN").map(|mut writer| {
        use std::io::Write;
        writer.write_all(b"1\nnot a number\n").and_then(|()| writer.flush()).expect("copy data");
        writer.finish()
    });
    assert!(copy.is_ok_and(|finished| finished.is_err()));
    // As in `fails`: the error arrives before the transaction has ended.
    run(&mut client, "");
    expect(&mut reader, "COPY numbers FROM STDIN", "error", "22P02", "UTILITY");
}

/// Where the log level keeps errors from Postgres's log, they are seen all the same.
fn hidden_errors(level: &str) {
    let name = format!("hidden_{level}");
    let mut reader = database(server(), &name);
    run(&mut reader, SETUP);
    run(&mut reader, &format!("ALTER DATABASE {name} SET log_min_messages = '{level}'"));
    let mut client = server().client(&name).expect("client");
    let _holder = locker(&name, "UPDATE locked SET n = 1; LOCK TABLE numbers");
    let cases = [
        ("SELECT 1 / n FROM zero", r"\$1 / n FROM zero", "error", "22012", "SELECT"),
        ("INSERT INTO uniq VALUES (1)", "INSERT INTO uniq VALUES", "error", "23505", "INSERT"),
        ("SELECT pg_sleep(5) FROM zero", "pg_sleep", "statement_timeout", "57014", "SELECT"),
        ("UPDATE locked SET n = 3", "^UPDATE locked", "lock_timeout", "55P03", "UPDATE"),
        ("SELECT id FROM locked FOR UPDATE NOWAIT", "NOWAIT", "error", "55P03", "SELECT"),
        ("BEGIN; LOCK TABLE numbers IN SHARE MODE", "^LOCK TABLE numbers", "lock_timeout", "55P03", "UTILITY"),
        ("ROLLBACK; DROP TABLE missing_table", "DROP TABLE missing_table", "error", "42P01", "UTILITY"),
    ];
    run(&mut client, "SET statement_timeout = '300ms'; SET lock_timeout = '60ms'");
    for (sql, pattern, outcome, sqlstate, command) in cases {
        assert_eq!(fails(&mut client, sql), sqlstate);
        expect(&mut reader, pattern, outcome, sqlstate, command);
    }
    run(&mut client, "SELECT 1 AS afterwards");
    assert!(only(&mut reader, "afterwards").toplevel);
    assert_eq!(interrupted(&name, "SELECT pg_sleep(20), 1 FROM zero", cancel), "57014");
    expect(&mut reader, r"pg_sleep\(\$1\), \$2 FROM zero", "cancelled", "57014", "SELECT");
    let mut app = server().client_as("app", &name).expect("app");
    assert_eq!(fails(&mut app, "SELECT id FROM secret"), "42501");
    expect(&mut reader, "SELECT id FROM secret", "error", "42501", "SELECT");
}

#[test]
fn errors_hidden_from_the_log_by_level_fatal() {
    hidden_errors("fatal");
}

#[test]
fn errors_hidden_from_the_log_by_level_panic() {
    hidden_errors("panic");
}
