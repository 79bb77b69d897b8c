//! What a session keeps has a limit, whatever it is asked, and however its calls end.

use super::probe::{self, ask, cached, direct, run, session};
use super::start;
use postgres::Client;

const SETUP: &str = "CREATE TABLE t (v int); INSERT INTO t VALUES (1)";

/// Analysed statements that the session keeps.
fn kept(client: &mut Client) -> i64 {
    let sql = "SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'pg_steward cached statement'";
    ask(client, sql).parse().expect("a number")
}

#[test]
fn statements_have_a_limit_below_a_call() {
    let cluster = start(probe::builder("below").conf("pg_steward.cache_statements", "50"), "below");
    let mut client = session(&cluster, "below");
    run(&mut client, SETUP);
    run(
        &mut client,
        "CREATE FUNCTION many(n int, again int) RETURNS bigint STABLE LANGUAGE plpgsql AS $$
         DECLARE total bigint := 0;
         BEGIN
             FOR i IN 1..n LOOP
                 total := total + (steward.cached_json('SELECT ' || i % again || ' AS n FROM t')->0->>'n')::int;
             END LOOP;
             RETURN total;
         END $$;
         CREATE FUNCTION deep(n int) RETURNS bigint STABLE LANGUAGE plpgsql AS $$
         BEGIN
             IF n = 0 THEN RETURN many(100, 100); END IF;
             RETURN n + (steward.cached_json('SELECT deep(' || n - 1 || ') AS n')->0->>'n')::bigint;
         END $$;
         CREATE FUNCTION of_now(n int) RETURNS text STABLE LANGUAGE plpgsql AS $$
         BEGIN
             FOR i IN 1..n LOOP PERFORM steward.cached_json('SELECT ''now''::timestamptz = now() AS n'); END LOOP;
             RETURN 'done';
         END $$",
    );
    for query in ["SELECT many(500, 500) AS n", "SELECT many(500, 20) AS n", "SELECT of_now(500) AS n"] {
        assert_eq!(cached(&mut client, query), direct(&mut client, query), "{query}");
        assert!(kept(&mut client) <= 51, "{query}: {}", kept(&mut client));
    }
    // Those that the calls above are using stay: more than the limit, if need be.
    let deep = "SELECT deep(70) AS n";
    assert_eq!(cached(&mut client, deep), direct(&mut client, deep));
    cached(&mut client, "SELECT 'another' AS n");
    assert!(kept(&mut client) <= 51, "{}", kept(&mut client));
    // Directly, too.
    run(&mut client, "SELECT many(500, 500), of_now(500)");
    assert!(kept(&mut client) <= 51, "{}", kept(&mut client));
}

/// Calls that fail below a call end there; the others go on, and the limit holds.
#[test]
fn calls_that_fail_below_a_call_are_over() {
    let cluster = start(probe::builder("failed").conf("pg_steward.cache_statements", "50"), "failed");
    let mut client = session(&cluster, "failed");
    run(&mut client, SETUP);
    run(
        &mut client,
        "CREATE FUNCTION careless(n int) RETURNS bigint STABLE LANGUAGE plpgsql AS $$
         DECLARE failed bigint := 0;
         BEGIN
             FOR i IN 1..n LOOP
                 BEGIN
                     PERFORM steward.cached_json('SELECT 1 / (v - 1) + ' || i || ' AS n FROM t');
                 EXCEPTION WHEN division_by_zero THEN failed := failed + 1; END;
                 BEGIN
                     PERFORM steward.cached_json('SELECT v + ' || i || ' AS n FROM t');
                 EXCEPTION WHEN division_by_zero THEN failed := 0; END;
             END LOOP;
             RETURN failed;
         END $$;
         CREATE FUNCTION around(n int) RETURNS bigint STABLE LANGUAGE plpgsql AS $$
         BEGIN
             BEGIN
                 RETURN (steward.cached_json('SELECT careless(' || n || ') AS n')->0->>'n')::bigint;
             EXCEPTION WHEN division_by_zero THEN RETURN 0; END;
         END $$",
    );
    for query in ["SELECT careless(400) AS n", "SELECT around(400) AS n", "SELECT around(300), careless(300)"] {
        assert_eq!(cached(&mut client, query), direct(&mut client, query), "{query}");
        assert!(kept(&mut client) <= 51, "{query}: {}", kept(&mut client));
    }
}

#[test]
fn an_error_while_a_statement_is_kept_keeps_nothing() {
    let cluster = start(probe::builder("orphans"), "orphans");
    let [mut client, mut holder] = [(), ()].map(|()| session(&cluster, "orphans"));
    run(&mut client, "CREATE TYPE mood AS ENUM ('glad'); SET lock_timeout = '20ms'");
    run(&mut holder, "BEGIN; LOCK TABLE pg_cast IN ACCESS EXCLUSIVE MODE");
    let before = kept(&mut client);
    for number in 0..10 {
        let failed = client.batch_execute(&format!("SELECT steward.cached_json('SELECT ''glad''::mood AS n{number}')"));
        assert_eq!(failed.expect_err("lock timeout").code().map(|state| state.code()), Some("55P03"));
    }
    assert_eq!(kept(&mut client), before);
    run(&mut holder, "ROLLBACK");
    let query = "SELECT 'glad'::mood AS n";
    assert_eq!(cached(&mut client, query), direct(&mut client, query));
}

#[test]
fn statistics_of_queries_that_gave_way_stay_right() {
    let cluster = start(probe::builder("gave").conf("pg_steward.cache_statements", "10"), "gave");
    let mut client = session(&cluster, "gave");
    run(&mut client, SETUP);
    for number in 0..5 {
        cached(&mut client, &format!("SELECT v, {number} AS first FROM t"));
    }
    for number in 0..1200 {
        cached(&mut client, &format!("SELECT {number} AS n"));
    }
    let counted =
        "SELECT min(entries) >= 0, min(size_bytes) >= 0, sum(entries) <= (SELECT entries FROM steward.cache_stats)
                   FROM steward.cache_query_stats";
    assert_eq!(ask(&mut client, counted), "t|t|t");
    // An entry whose query gave way has no text; it has not got another's.
    let texts = "SELECT count(*), bool_and(e.query = q.query) FROM steward.cache_entries AS e JOIN steward.cache_query_stats AS q
                 USING (query_number)";
    let [joined, same]: [String; 2] =
        ask(&mut client, texts).split('|').map(str::to_owned).collect::<Vec<_>>().try_into().expect("two columns");
    assert!(joined.parse::<u32>().expect("a number") > 500 && same == "t", "{joined} {same}");
    run(&mut client, "SELECT steward.cache_clear()");
    assert_eq!(
        ask(
            &mut client,
            "SELECT min(entries), max(entries), min(size_bytes), max(size_bytes) FROM steward.cache_query_stats"
        ),
        "0|0|0|0"
    );
}

/// Memory of the session's own, kB.
fn anonymous_kb(client: &mut Client) -> u64 {
    let pid = ask(client, "SELECT pg_backend_pid()");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find(|line| line.starts_with("RssAnon")).expect("RssAnon");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("kB")
}

#[test]
fn a_large_parameter_is_not_kept() {
    let cluster = start(probe::builder("large"), "large");
    let mut client = session(&cluster, "large");
    let call = |megabytes: u32| {
        format!(
            "SELECT steward.cached_json('SELECT length($1) AS n', jsonb_build_array(repeat('x', {megabytes} * 1024 * 1024)))"
        )
    };
    let small = ask(&mut client, &call(1));
    let before = anonymous_kb(&mut client);
    assert_ne!(ask(&mut client, &call(100)), small);
    let after = anonymous_kb(&mut client);
    assert!(after < before + 50 * 1024, "{before} kB, then {after} kB");
    assert!(probe::misses(&mut client, "large_parameters") > 0);
    // Nor when the query fails.
    let failing = call(100).replace("length($1)", "1 / (length($1) - 100 * 1024 * 1024)");
    assert!(client.batch_execute(&failing).is_err());
    let after = anonymous_kb(&mut client);
    assert!(after < before + 50 * 1024, "{before} kB, then {after} kB");
}
