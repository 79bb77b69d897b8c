//! What planning with indexes that do not exist leaves behind: nothing.

use postgres::Client;
use std::sync::OnceLock;
use steward_test::Cluster;

fn server() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| {
        Cluster::new("advisor").preload("pg_steward").conf("max_worker_processes", "20").start().expect("server")
    })
}

fn database(name: &str) -> Client {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock();
    server().create_database(name).expect("database");
    let mut client = server().client(name).expect("client");
    client
        .batch_execute(
            "CREATE TABLE orders (id int PRIMARY KEY, customer int, total int);
             INSERT INTO orders SELECT i, i % 1000, i FROM generate_series(1, 20000) AS i; ANALYZE orders;
             CREATE FUNCTION counted(c int) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS
                 $$ BEGIN RETURN (SELECT count(*) FROM orders WHERE customer = c); END $$",
        )
        .expect("setup");
    client
}

const TRY: &str = "SELECT cost_after < cost_before FROM steward.what_if(
    'SELECT * FROM orders WHERE customer = 7', '{CREATE INDEX ON orders (customer)}')";

fn text(client: &mut Client, sql: &str) -> String {
    client.query_one(sql, &[]).expect(sql).get(0)
}

fn plan(client: &mut Client, sql: &str) -> String {
    let rows = client.query(&format!("EXPLAIN (COSTS OFF) {sql}"), &[]).expect(sql);
    rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n")
}

#[test]
fn statements_of_the_session_are_planned_as_ever() {
    let mut client = database("as_ever");
    client.batch_execute("PREPARE p(int) AS SELECT count(*) FROM orders WHERE customer = $1").expect("prepare");
    for _ in 0..10 {
        assert!(client.query_one(TRY, &[]).expect("what_if").get::<_, bool>(0));
        assert_eq!(client.query_one("EXECUTE p(7)", &[]).expect("execute").get::<_, i64>(0), 20);
    }
    assert!(plan(&mut client, "EXECUTE p(7)").contains("Seq Scan on orders"));
    assert!(plan(&mut client, "SELECT * FROM orders WHERE customer = 7").contains("Seq Scan on orders"));
}

/// A question within a question: each is answered as if alone.
#[test]
fn questions_within_questions() {
    let mut client = database("nested");
    client
        .batch_execute(
            "CREATE FUNCTION asks() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
                 ASSERT (SELECT cost_after < cost_before FROM steward.what_if(
                     'SELECT * FROM orders WHERE total = 7', '{CREATE INDEX ON orders (total)}'));
                 RETURN 7; END $$",
        )
        .expect("asks");
    let tried =
        "SELECT cost_after < cost_before AND indexes_used = '{CREATE INDEX ON orders (customer)}' FROM steward.what_if(
        'SELECT * FROM orders WHERE customer = asks()', '{CREATE INDEX ON orders (customer)}')";
    assert!(client.query_one(tried, &[]).expect("what_if").get::<_, bool>(0));
}

/// A function that the planner evaluates plans its own statements, which run.
#[test]
fn what_runs_while_a_query_is_planned_sees_no_index_that_does_not_exist() {
    let mut client = database("within");
    for _ in 0..3 {
        let tried = "SELECT cost_after < cost_before FROM steward.what_if(
            'SELECT * FROM orders WHERE customer = counted(7)', '{CREATE INDEX ON orders (customer)}')";
        assert!(client.query_one(tried, &[]).expect("what_if").get::<_, bool>(0));
    }
}

#[test]
fn an_error_or_a_cancel_leaves_nothing() {
    let mut client = database("failed");
    client
        .batch_execute(
            "CREATE FUNCTION slow() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM pg_sleep(30); RETURN 7; END $$",
        )
        .expect("slow");
    let failing =
        |query: &str| format!("SELECT * FROM steward.what_if('{query}', '{{CREATE INDEX ON orders (customer)}}')");
    let division = failing("SELECT 1 / 0 FROM orders WHERE customer = 7");
    let sleeping = failing("SELECT * FROM orders WHERE customer = slow()");
    for (sql, state) in [(&division, "22012"), (&sleeping, "57014")] {
        client.batch_execute("SET statement_timeout = '300ms'").expect("timeout");
        let error = client.batch_execute(sql).expect_err(sql);
        assert_eq!(error.code().expect("code").code(), state);
        client.batch_execute("SET statement_timeout = 0").expect("timeout");
        assert!(plan(&mut client, "SELECT * FROM orders WHERE customer = 7").contains("Seq Scan on orders"));
        client
            .batch_execute(&format!(
                "DO $$ BEGIN PERFORM 1; BEGIN {}; EXCEPTION WHEN division_by_zero THEN NULL; END;
                 ASSERT (SELECT count(*) FROM orders WHERE customer = 7) = 20; END $$",
                division.replace("SELECT * FROM", "PERFORM * FROM")
            ))
            .expect("caught");
    }
    assert!(client.query_one(TRY, &[]).expect("what_if").get::<_, bool>(0));
}

#[test]
fn many_calls_take_no_memory() {
    let mut client = database("memory");
    let used = "SELECT (sum(total_bytes) / 1024)::int::text FROM pg_backend_memory_contexts";
    let many = |client: &mut Client, calls: u32| {
        let sql = format!(
            "DO $$ BEGIN FOR i IN 1..{calls} LOOP PERFORM * FROM steward.what_if(
                 'SELECT * FROM orders WHERE customer = ' || i, '{{CREATE INDEX ON orders (customer)}}'); END LOOP; END $$"
        );
        client.batch_execute(&sql).expect("calls");
    };
    many(&mut client, 500);
    let before: i64 = text(&mut client, used).parse().expect("a number");
    many(&mut client, 10_000);
    let after: i64 = text(&mut client, used).parse().expect("a number");
    assert!(after < before + 1_024, "{before} kB, then {after} kB");
}

/// What was captured is looked at, as far as the caller may run it.
#[test]
fn captured_statements_are_the_workload() {
    let mut client = database("workload");
    for customer in 0..30 {
        client.query("SELECT total FROM orders WHERE customer = $1", &[&customer]).expect("query");
    }
    client.batch_execute("SELECT 1").expect("flush");
    let found = "SELECT coalesce(string_agg(ddl, ';'), '') FROM steward.suggest_indexes()";
    assert!(steward_test::wait_until(std::time::Duration::from_secs(30), || {
        text(&mut client, found).contains("btree (customer)")
    }));
    let reason = "SELECT (queries <> '{0}' AND confidence = 'medium' AND cost_after < cost_before)::text
        FROM steward.index_suggestions WHERE columns = '{customer}'";
    assert_eq!(text(&mut client, reason), "true");
}

/// An index that is written to more than it is read is none to have.
#[test]
fn what_is_written_all_the_time_gets_no_index() {
    let mut client = database("written");
    client.batch_execute("CREATE TABLE log (id int, kind int); INSERT INTO log SELECT i, i % 1000 FROM generate_series(1, 20000) AS i;
        ANALYZE log").expect("log");
    client.batch_execute("SELECT steward.statements_reset()").expect("reset");
    client.query("SELECT id FROM log WHERE kind = $1", &[&7]).expect("query");
    client.query("SELECT total FROM orders WHERE customer = $1", &[&7]).expect("query");
    for _ in 0..10 {
        client.batch_execute("INSERT INTO log SELECT id, customer FROM orders").expect("insert");
    }
    client.batch_execute("SELECT 1").expect("flush");
    let found = "SELECT coalesce(string_agg(ddl, ';'), '') FROM steward.suggest_indexes()";
    assert!(steward_test::wait_until(std::time::Duration::from_secs(30), || {
        text(&mut client, found).contains("btree (customer)")
    }));
    assert!(!text(&mut client, found).contains("kind"));
}
