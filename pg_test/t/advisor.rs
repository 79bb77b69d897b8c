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

/// Captured statements are planned as who ran them: planning runs functions, and a trap must not catch the owner's rights.
#[test]
fn functions_in_captured_statements_run_as_who_ran_them() {
    let mut client = database("trap");
    client.batch_execute("CREATE ROLE trapper LOGIN; GRANT CREATE ON SCHEMA public TO trapper").expect("role");
    let mut trapper = server().client_as("trapper", "trap").expect("trapper");
    trapper
        .batch_execute(
            "CREATE FUNCTION grab() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
                 BEGIN EXECUTE 'ALTER ROLE trapper SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END; RETURN 7; END $$;
             CREATE FUNCTION trap() RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN public.grab(); END $$;
             CREATE TABLE bait (a int); INSERT INTO bait SELECT i FROM generate_series(1, 20000) AS i; ANALYZE bait",
        )
        .expect("trap");
    // Often enough to count beside what the test itself asks.
    for _ in 0..300 {
        trapper.query("SELECT * FROM bait WHERE a = trap()", &[]).expect("query");
    }
    let found = "SELECT coalesce(string_agg(ddl, ';'), '') FROM steward.suggest_indexes()";
    assert!(steward_test::wait_until(std::time::Duration::from_secs(30), || {
        // What a session has counted is brought out by its next transaction.
        trapper.batch_execute("SELECT 1").expect("flush");
        text(&mut client, found).contains("bait")
    }));
    assert_eq!(text(&mut client, "SELECT rolsuper::text FROM pg_roles WHERE rolname = 'trapper'"), "false");
    assert_eq!(text(&mut client, "SELECT current_user::text"), "postgres");
}

/// A statement that fails, whenever it does, leaves out itself; a cancel ends the call.
#[test]
fn one_statement_does_not_spoil_the_others() {
    let mut client = database("spoilt");
    client
        .batch_execute(
            "CREATE FUNCTION twice() RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
                 IF coalesce(nullif(current_setting('x.n', true), ''), '0')::int > 0 THEN RAISE 'boom'; END IF;
                 PERFORM set_config('x.n', '1', false); RETURN 5; END $$;
             CREATE FUNCTION sleepy() RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(30); RETURN 5; END $$",
        )
        .expect("functions");
    let suggested = |second: &str| {
        format!(
            "SELECT coalesce(string_agg(ddl, ';'), '') FROM steward.suggest_indexes(queries => array[
                 'SELECT id FROM orders WHERE total = {second}()', 'SELECT * FROM orders WHERE customer = 7'])"
        )
    };
    assert!(text(&mut client, &suggested("twice")).contains("(customer)"));
    client.batch_execute("SET statement_timeout = '500ms'").expect("timeout");
    let error = client.query_one(&suggested("sleepy"), &[]).expect_err("a timeout");
    assert_eq!(error.code().expect("code").code(), "57014");
}

/// An error that a function catches while we plan is none of the planning's.
#[test]
fn an_error_that_is_caught_within_changes_nothing() {
    let mut client = database("caught");
    client
        .batch_execute(
            "CREATE FUNCTION catcher() RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
                 BEGIN PERFORM 1 / 0; EXCEPTION WHEN OTHERS THEN RETURN 7; END; RETURN 7; END $$",
        )
        .expect("catcher");
    let tried = "SELECT cost_after < cost_before FROM steward.what_if(
        'SELECT * FROM orders WHERE customer = catcher()', '{CREATE INDEX ON orders (customer)}')";
    assert!(client.query_one(tried, &[]).expect("what_if").get::<_, bool>(0));
    let found = "SELECT coalesce(string_agg(ddl, ';'), '') FROM steward.suggest_indexes(
        queries => array['SELECT * FROM orders WHERE customer = catcher()'])";
    assert!(text(&mut client, found).contains("(customer)"));
}

/// What is suggested can be built, and is about as large as was said.
#[test]
fn suggestions_can_be_built() {
    let mut client = database("built");
    client
        .batch_execute(
            "CREATE TABLE wide (id int, v text); ALTER TABLE wide ALTER v SET STORAGE PLAIN;
             INSERT INTO wide SELECT i, CASE WHEN i % 100 = 0 THEN (SELECT string_agg(md5((i * n)::text), '')
                 FROM generate_series(1, 100) AS n) ELSE md5(i::text) END FROM generate_series(1, 20000) AS i; ANALYZE wide;
             CREATE SCHEMA aside; CREATE FUNCTION aside.norm(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
                 'BEGIN RETURN -$1; END';
             SET search_path = public, aside;
             CREATE TABLE parts (k int, w text) PARTITION BY LIST (k); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
             INSERT INTO parts SELECT 1, md5(i::text) FROM generate_series(1, 60000) AS i",
        )
        .expect("tables");
    client.batch_execute("VACUUM ANALYZE parts").expect("vacuum");
    let rows = client
        .query(
            "SELECT ddl, size_bytes FROM steward.suggest_indexes(queries => array[
                 'SELECT id FROM wide WHERE v = ''x''', 'SELECT total FROM orders WHERE norm(total) = 5',
                 'SELECT w FROM parts WHERE w = ''x'''])",
            &[],
        )
        .expect("suggestions");
    assert!(rows.len() >= 2, "{}", rows.len());
    client.batch_execute("SET search_path = pg_catalog").expect("path");
    for row in rows {
        let (ddl, estimated): (String, i64) = (row.get(0), row.get(1));
        let ddl = ddl.replace("CREATE INDEX ON", "CREATE INDEX built ON");
        client.batch_execute(&ddl).unwrap_or_else(|error| panic!("{ddl}: {error:?}"));
        let size = "SELECT coalesce(sum(pg_relation_size(relid))::bigint, pg_relation_size('public.built'))
            FROM pg_partition_tree('public.built'::regclass)";
        let size: i64 = client.query_one(size, &[]).expect("size").get(0);
        assert!((estimated - size).abs() * 4 < size, "{ddl}: {estimated}, in fact {size}");
        client.batch_execute("DROP INDEX public.built").expect("drop");
    }
}
