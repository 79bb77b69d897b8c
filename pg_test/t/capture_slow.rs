//! Executions that are recorded one by one, their plans, and whom they worked for.

#[path = "capture_common.rs"]
mod common;

use common::{PATIENCE, check_background, database, fails, line, lines, only, run};
use postgres::Client;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;
use steward_test::{Cluster, wait_until};

fn server() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| {
        let cluster = common::builder("slow").conf("pg_steward.drain_interval", "20ms").start().expect("server");
        cluster.psql("postgres", "CREATE ROLE app LOGIN").expect("role");
        cluster
    })
}

/// Why and how often executions of a text were recorded.
fn recorded(reader: &mut Client, pattern: &str) -> Vec<String> {
    lines(
        reader,
        &format!(
            "SELECT reason, count(*) FROM steward.slow_queries WHERE query ~ '{pattern}' AND query !~ 'slow_queries' GROUP BY 1 ORDER BY 1"
        ),
    )
}

/// Waits until a query has this answer.
fn await_line(reader: &mut Client, sql: &str, expected: &str) {
    let mut last = String::new();
    let reached = wait_until(PATIENCE, || {
        last = line(reader, sql);
        last == expected
    });
    assert!(reached, "{sql}\nis {last}, expected {expected}");
}

#[test]
fn thresholds_by_session_role_and_grant() {
    let mut reader = database(server(), "thresholds");
    let mut client = server().client("thresholds").expect("client");
    run(&mut client, "CREATE TABLE t (a int, b int, c int, d int)");
    run(&mut client, "SET pg_steward.slow_threshold = -1; SELECT a, pg_sleep(0.03) FROM (VALUES (1)) AS v(a)");
    assert_eq!(recorded(&mut reader, "^SELECT a, pg_sleep"), Vec::<String>::new());
    run(&mut client, "SET pg_steward.slow_threshold = 0");
    run(&mut client, "SELECT a FROM t");
    assert_eq!(recorded(&mut reader, "^SELECT a FROM t$"), ["slow|1"]);
    run(&mut client, "SET pg_steward.slow_threshold = '20ms'");
    run(&mut client, "SELECT b FROM t");
    run(&mut client, "SELECT b, g, pg_sleep(0.03) FROM (VALUES (1, 2)) AS v(b, g)");
    assert_eq!(recorded(&mut reader, "^SELECT b FROM t$"), Vec::<String>::new());
    assert_eq!(recorded(&mut reader, "^SELECT b, g, pg_sleep"), ["slow|1"]);
    let row = "SELECT duration_ms >= 29, plan_ms > 0, rows, command, outcome, username, datname, toplevel, pid > 0, planid IS NOT NULL, queryid IS NOT NULL
        FROM steward.slow_queries WHERE query ~ '^SELECT b, g, pg_sleep'";
    assert_eq!(line(&mut reader, row), "t|t|1|SELECT|ok|postgres|thresholds|t|t|t|t");
    // By role, which the role itself may not change, until it is allowed to.
    run(
        &mut reader,
        "ALTER ROLE app IN DATABASE thresholds SET pg_steward.slow_threshold = 0; GRANT SELECT ON t TO app",
    );
    let mut app = server().client_as("app", "thresholds").expect("app");
    run(&mut app, "SELECT c FROM t");
    assert_eq!(recorded(&mut reader, "^SELECT c FROM t$"), ["slow|1"]);
    assert_eq!(fails(&mut app, "SET pg_steward.slow_threshold = -1"), "42501");
    run(&mut reader, "GRANT SET ON PARAMETER pg_steward.slow_threshold TO app");
    run(&mut app, "SET pg_steward.slow_threshold = -1");
    run(&mut app, "SELECT d FROM t");
    assert_eq!(recorded(&mut reader, "^SELECT d FROM t$"), Vec::<String>::new());
    run(&mut reader, "REVOKE SET ON PARAMETER pg_steward.slow_threshold FROM app");
    // Sampled: all, none.
    run(&mut client, "SET pg_steward.slow_threshold = -1; SET pg_steward.sample_rate = 1");
    run(&mut client, "SELECT a, b FROM t");
    run(&mut client, "SET pg_steward.sample_rate = 0");
    run(&mut client, "SELECT a, b FROM t");
    assert_eq!(recorded(&mut reader, "^SELECT a, b FROM t$"), ["sampled|1"]);
    check_background(server());
}

#[test]
fn the_limit_per_minute_counts_what_it_suppresses() {
    let cluster =
        common::builder("limit").conf("pg_steward.slow_limit_per_minute", "5").conf("pg_steward.slow_threshold", "0");
    let cluster = cluster.start().expect("server");
    let mut reader = database(&cluster, "limited");
    let mut client = cluster.client("limited").expect("client");
    let suppressed = |reader: &mut Client| -> i64 {
        common::row(reader, "SELECT events_suppressed FROM steward.statements_info", &[]).get(0)
    };
    let before = suppressed(&mut reader);
    for n in 0..40 {
        run(&mut client, &format!("SELECT {n} AS limited"));
    }
    // The minute may turn in between.
    let count = "SELECT count(*) FROM steward.slow_queries WHERE query ~ 'AS limited'";
    let kept: i64 = common::row(&mut reader, count, &[]).get(0);
    assert!((5..=10).contains(&kept), "{kept}");
    assert!(suppressed(&mut reader) - before >= 30);
    run(&mut client, "SELECT 'another', 1 AS not_limited");
    assert_eq!(recorded(&mut reader, "not_limited"), ["slow|1"]);
}

const PLANS: &str = "
    CREATE TABLE item AS SELECT n AS id, n % 1000 AS kind, n % 7 AS g FROM generate_series(1, 20000) AS n;
    CREATE TABLE kinds AS SELECT n AS id, n % 3 AS name FROM generate_series(0, 999) AS n;
    CREATE INDEX item_kind ON item (kind);
    CREATE TABLE parts (day int, n int) PARTITION BY RANGE (day);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (1) TO (10);
    CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
    CREATE TABLE parts_3 PARTITION OF parts FOR VALUES FROM (20) TO (30);
    ANALYZE;
    ALTER DATABASE {} SET pg_steward.slow_threshold = 0;
    ALTER DATABASE {} SET max_parallel_workers_per_gather = 0;
";

fn with_plans(cluster: &Cluster, name: &str) -> (Client, Client) {
    let mut reader = database(cluster, name);
    run(&mut reader, &PLANS.replace("{}", name));
    (reader, cluster.client(name).expect("client"))
}

/// The plans that a statement's recorded executions had, one line each.
fn planids(reader: &mut Client, pattern: &str) -> Vec<String> {
    let sql = format!(
        "SELECT DISTINCT planid FROM steward.slow_queries WHERE query ~ '{pattern}' AND query !~ 'slow_queries' AND command <> 'UTILITY' ORDER BY 1"
    );
    lines(reader, &sql)
}

#[test]
fn a_plan_id_is_the_shape_of_the_plan() {
    let cluster = common::builder("planid").start().expect("server");
    let (mut reader, mut client) = with_plans(&cluster, "planids");
    let by_kind = "^SELECT count.* FROM item WHERE kind =";
    for kind in 1..6 {
        run(&mut client, &format!("SELECT count(*) FROM item WHERE kind = {kind}"));
    }
    run(&mut client, "SET random_page_cost = 3.9; SELECT count(*) FROM item WHERE kind = 77");
    run(&mut client, "INSERT INTO item SELECT 1, n % 1000, 1 FROM generate_series(1, 3000) AS n; ANALYZE item");
    run(&mut client, "SELECT count(*) FROM item WHERE kind = 78");
    let first = planids(&mut reader, by_kind);
    assert_eq!(first.len(), 1, "constants and costs make no other plan");
    drop((reader, client));
    cluster.restart().expect("restart");
    let mut reader = cluster.client("planids").expect("client");
    let mut client = cluster.client("planids").expect("client");
    run(&mut client, "SELECT count(*) FROM item WHERE kind = 79");
    assert_eq!(planids(&mut reader, by_kind), first, "nor does a restart");
    run(&mut client, "SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off");
    run(&mut client, "SELECT count(*) FROM item WHERE kind = 80");
    assert_eq!(planids(&mut reader, by_kind).len(), 2, "another access path does");
    let join = "SELECT count(*) FROM item JOIN kinds ON kinds.id = item.kind WHERE item.g = 2";
    for setting in ["enable_hashjoin = on", "enable_hashjoin = off", "enable_mergejoin = off"] {
        run(&mut client, &format!("SET {setting}"));
        run(&mut client, join);
    }
    assert_eq!(planids(&mut reader, "^SELECT count.* FROM item JOIN").len(), 3, "and another join");
    for day in [5, 15, 25] {
        run(&mut client, &format!("SELECT n FROM parts WHERE day = {day}"));
    }
    run(&mut client, "SELECT n FROM parts WHERE day = 99");
    let pruned = planids(&mut reader, "^SELECT n FROM parts WHERE day").len();
    assert!(pruned <= 2, "which partition is left makes no other plan: {pruned}");
}

#[test]
fn plans_are_stored_without_literals_and_at_most_five() {
    let (mut reader, mut client) = with_plans(server(), "stored");
    run(&mut client, "SELECT id FROM item WHERE kind = 424242 AND g <> 313131");
    let id = only(&mut reader, "^SELECT id FROM item WHERE kind").queryid;
    let plan = format!("SELECT count(*), bool_and(plan::text !~ '424242|313131'), bool_and(plan::text ~ 'item_kind'), bool_and(NOT actual), min(calls), bool_and(mean_ms > 0 AND min_ms <= max_ms)
        FROM steward.plans WHERE queryid = {id}");
    await_line(&mut reader, &plan, "1|t|t|t|1|t");
    let joins = "SELECT count(*) FROM item AS x JOIN kinds AS y ON x.kind = y.id JOIN item AS z ON z.id = y.id WHERE x.g = 3 AND x.id < 300";
    let mut shapes = 0;
    for setting in [
        "enable_hashjoin = on",
        "enable_hashjoin = off",
        "enable_mergejoin = off",
        "enable_indexscan = off",
        "enable_bitmapscan = off",
        "enable_material = off",
        "enable_memoize = off",
        "enable_nestloop = off",
        "enable_seqscan = off",
        "enable_sort = off",
        "enable_hashjoin = on",
        "enable_mergejoin = on",
        "enable_bitmapscan = on",
        "enable_nestloop = on; SET enable_hashjoin = off; SET enable_mergejoin = off",
    ] {
        run(&mut client, &format!("SET {setting}"));
        run(&mut client, joins);
        thread::sleep(Duration::from_millis(if shapes < 6 { 1_020 } else { 0 }));
        shapes = planids(&mut reader, "^SELECT count.* FROM item AS x").len();
    }
    assert!(shapes > 5, "{shapes}");
    let id = only(&mut reader, "^SELECT count.* FROM item AS x").queryid;
    let stored = format!(
        "SELECT count(*), bool_or(p.planid = (SELECT planid FROM steward.statements WHERE queryid = {id} AND toplevel)) FROM steward.plans AS p WHERE queryid = {id}"
    );
    await_line(&mut reader, &stored, "5|t");
    // Too long a plan is left out, not cut.
    run(&mut client, "RESET ALL; SET pg_steward.max_plan_length = '1kB'");
    run(
        &mut client,
        "SELECT count(*) FROM item AS a1 JOIN item AS a2 USING (id) JOIN item AS a3 USING (id) WHERE a1.g = 1",
    );
    run(&mut client, "SELECT id, 5 FROM kinds WHERE id = 3");
    let short = only(&mut reader, "^SELECT id, .* FROM kinds").queryid;
    await_line(&mut reader, &format!("SELECT count(*) FROM steward.plans WHERE queryid = {short}"), "1");
    let long = only(&mut reader, "AS a1 JOIN item").queryid;
    assert_eq!(line(&mut reader, &format!("SELECT count(*) FROM steward.plans WHERE queryid = {long}")), "0");
    run(&mut client, "SET pg_steward.capture_plans = off; SELECT name FROM kinds WHERE id = 3");
    let off = only(&mut reader, "^SELECT name FROM kinds").queryid;
    await_line(&mut reader, &format!("SELECT count(*) FROM steward.slow_executions WHERE queryid = {off}"), "1");
    assert_eq!(line(&mut reader, &format!("SELECT count(*) FROM steward.plans WHERE queryid = {off}")), "0");
    check_background(server());
}

#[test]
fn a_dropped_index_shows_as_a_change_of_plan() {
    let (mut reader, mut client) = with_plans(server(), "changes");
    let by_kind = |client: &mut Client, times: i32| {
        for kind in 0..times {
            run(client, &format!("SELECT sum(id) FROM item WHERE kind = {kind}"));
        }
    };
    by_kind(&mut client, 100);
    let id = only(&mut reader, "^SELECT sum").queryid;
    await_line(&mut reader, &format!("SELECT count(*) FROM steward.plans WHERE queryid = {id}"), "1");
    assert_eq!(line(&mut reader, "SELECT count(*) FROM steward.plan_changes WHERE queryid IS NOT NULL"), "0");
    // Switches of a plan are recorded once a second at most, since some plans alternate.
    thread::sleep(Duration::from_millis(1_100));
    run(&mut reader, "DROP INDEX item_kind");
    by_kind(&mut client, 100);
    let change = format!("SELECT count(*), bool_and(old_planid <> new_planid), bool_and(p50_before_ms < p50_after_ms), bool_and(p95_before_ms <= p95_after_ms), bool_and(changed_at <= now())
        FROM steward.plan_changes WHERE queryid = {id}");
    await_line(&mut reader, &change, "1|t|t|t|t");
    let both = format!(
        "SELECT count(*) FROM steward.plans AS p, steward.plan_changes AS c WHERE p.queryid = {id} AND c.queryid = {id} AND p.planid IN (c.old_planid, c.new_planid)"
    );
    assert_eq!(line(&mut reader, &both), "2");
}

#[test]
fn armed_executions_collect_actual_rows() {
    let (mut reader, mut client) = with_plans(server(), "armed");
    run(&mut client, "SET pg_steward.slow_threshold = -1");
    let query = |client: &mut Client| run(client, "SELECT id FROM item WHERE kind = 5 AND g = 5");
    query(&mut client);
    let id = only(&mut reader, "^SELECT id FROM item").queryid;
    assert_eq!(recorded(&mut reader, "^SELECT id FROM item"), Vec::<String>::new());
    run(&mut reader, &format!("SELECT steward.arm_explain({id}, 3)"));
    (0..6).for_each(|_| query(&mut client));
    assert_eq!(recorded(&mut reader, "^SELECT id FROM item"), ["armed|3"]);
    assert_eq!(line(&mut reader, "SELECT armed FROM steward.statements_info"), "0");
    let actual = format!(
        "SELECT bool_and(actual), bool_and(plan::text ~ 'Actual Rows' AND plan::text ~ 'Actual Total Time') FROM steward.plans WHERE queryid = {id}"
    );
    await_line(&mut reader, &actual, "t|t");
    // Disarmed before it is used up.
    run(&mut reader, &format!("SELECT steward.arm_explain({id}, 3), steward.arm_explain({id}, 0)"));
    query(&mut client);
    assert_eq!(recorded(&mut reader, "^SELECT id FROM item"), ["armed|3"]);
    assert_ne!(fails(&mut reader, &format!("SELECT steward.arm_explain({id}, -1)")), "");
    assert_eq!(fails(&mut reader, &format!("SELECT steward.arm_explain({id}, 100000)")), "22003");
    assert!(fails(&mut reader, "SELECT steward.arm_explain(4711, 1)").starts_with("42"));
    let audit = "SELECT count(*), min(session_role) FROM steward.audit_log WHERE action = 'arm_explain'";
    assert_eq!(line(&mut reader, audit), "3|postgres");
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[test]
fn an_execution_is_recorded_with_the_request_it_works_for() {
    let mut reader = database(server(), "requests");
    run(
        &mut reader,
        "ALTER DATABASE requests SET pg_steward.slow_threshold = 0; CREATE TABLE r (a int, b int, c int, d int)",
    );
    let mut app = server().client_as("app", "requests").expect("app");
    run(&mut reader, "GRANT SELECT ON r TO app");
    let of = |reader: &mut Client, pattern: &str| {
        line(
            reader,
            &format!(
                "SELECT request_id, trace_id, span_id, tags->>'controller', application_name FROM steward.slow_queries WHERE query ~ '{pattern}' AND query !~ 'slow_queries'"
            ),
        )
    };
    run(&mut app, "SET pg_steward.request_id = 'req-1'; SET application_name = 'shop'");
    run(&mut app, "SELECT a FROM r");
    assert_eq!(of(&mut reader, "^SELECT a FROM r"), "req-1||||shop");
    run(&mut app, &format!("RESET pg_steward.request_id; SET pg_steward.traceparent = '{PARENT}'"));
    run(&mut app, "SELECT b FROM r");
    assert_eq!(of(&mut reader, "^SELECT b FROM r"), format!("|{TRACE}|b7ad6b7169203331||shop"));
    run(&mut app, "SET pg_steward.traceparent = 'not a traceparent'");
    let comment = format!("/*controller='cart%20items',request_id='r-9',traceparent='{PARENT}'*/");
    run(&mut app, &format!("SELECT c FROM r {comment}"));
    assert_eq!(of(&mut reader, "SELECT c FROM r"), format!("r-9|{TRACE}|b7ad6b7169203331|cart items|shop"));
    run(&mut app, &format!("{comment} SELECT d FROM r"));
    assert_eq!(of(&mut reader, "SELECT d FROM r"), format!("r-9|{TRACE}|b7ad6b7169203331|cart items|shop"));
    run(&mut app, &format!("SET application_name = 'shop {PARENT}'"));
    run(&mut app, "SELECT a, b FROM r");
    assert!(of(&mut reader, "^SELECT a, b FROM r").starts_with(&format!("|{TRACE}|b7ad6b7169203331||shop")));
    // A failure too, and the extended protocol.
    run(&mut app, "SET application_name = 'shop'; SET pg_steward.request_id = 'req-2'");
    assert!(app.query("SELECT a / 0 FROM (VALUES ($1::int)) AS v(a)", &[&1i32]).is_err());
    run(&mut app, "");
    assert_eq!(of(&mut reader, "^SELECT a / "), "req-2||||shop");
}

#[test]
fn repeated_queries_by_transaction_and_by_request() {
    let mut reader = database(server(), "repeats");
    run(
        &mut reader,
        "CREATE TABLE n (a int, b int, c int, d int); CREATE FUNCTION nested() RETURNS void LANGUAGE plpgsql
        AS 'BEGIN FOR i IN 1..50 LOOP PERFORM d FROM n; END LOOP; END'",
    );
    let mut client = server().client("repeats").expect("client");
    run(&mut client, "SET application_name = 'looper'");
    let repeat = |client: &mut Client, sql: &str, times: i32| (0..times).for_each(|_| run(client, sql));
    run(&mut client, "BEGIN");
    repeat(&mut client, "SELECT a FROM n", 15);
    repeat(&mut client, "SELECT b FROM n", 9);
    run(&mut client, "COMMIT");
    // In transactions of their own without a request, they do not belong together.
    repeat(&mut client, "SELECT b FROM n", 30);
    run(&mut client, "SET pg_steward.request_id = 'req-7'");
    repeat(&mut client, "SELECT c FROM n", 12);
    run(&mut client, "SET pg_steward.request_id = 'req-8'");
    repeat(&mut client, "SELECT c FROM n", 20);
    run(&mut client, "SET pg_steward.request_id = ''");
    run(&mut client, "SELECT nested()");
    run(&mut client, "BEGIN");
    repeat(&mut client, "SAVEPOINT s; RELEASE s", 20);
    run(&mut client, "ROLLBACK");
    // In a transaction that fails as well.
    run(&mut client, "BEGIN");
    repeat(&mut client, "SELECT a, b FROM n", 10);
    assert_eq!(fails(&mut client, "SELECT 1 / 0"), "22012");
    run(&mut client, "ROLLBACK");
    run(&mut client, "SET pg_steward.repeat_threshold = 0; BEGIN");
    repeat(&mut client, "SELECT a, c FROM n", 20);
    run(&mut client, "COMMIT");
    let found = "SELECT query, episodes, executions, max_executions, application_name, username, example_request_id, total_ms > 0
        FROM steward.repeated_queries ORDER BY query";
    let expected = [
        "SELECT a FROM n|1|15|15|looper|postgres||t",
        "SELECT a, b FROM n|1|10|10|looper|postgres||t",
        "SELECT c FROM n|2|32|20|looper|postgres|req-8|t",
    ];
    await_line(&mut reader, found, &expected.join("\n"));
}

/// A worker that looks for the extension meanwhile finds none, and must not have the last word.
#[test]
fn an_extension_made_in_a_long_transaction_captures_at_once() {
    server().psql("postgres", "CREATE DATABASE slowly").expect("database");
    let mut client = server().client("slowly").expect("client");
    run(&mut client, "BEGIN; CREATE EXTENSION pg_steward; SELECT pg_sleep(2.5)");
    run(&mut client, "COMMIT");
    assert_eq!(fails(&mut client, "SELECT 1 / 0 AS right_after"), "22012");
    assert_eq!(recorded(&mut client, "right_after"), ["failed|1"]);
    await_line(&mut client, "SELECT count(*) FROM steward.slow_executions WHERE query ~ 'right_after'", "1");
}
