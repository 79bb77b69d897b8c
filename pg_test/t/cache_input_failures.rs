//! What fails beside the query itself: reading a parameter, turning rows into JSON, running out of memory.

use super::common::{Outcome, Session, builder, cached_sql};
use super::{refused, server, world};

/// Errors of types' input that say nothing about the value, and so are not to be taken for bad input.
const PASSING: &[&str] = &["40001", "40P01", "53200", "55P03", "57014", "P0001", "ZZ123", "23505"];

#[test]
fn errors_of_a_parameters_type_pass_unless_they_are_about_its_value() {
    let mut world = world("checked");
    world.boss.run(
        "CREATE FUNCTION picky(v text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
             IF v = 'sleep' THEN PERFORM pg_sleep(60); END IF;
             IF length(v) = 5 THEN RAISE EXCEPTION 'refused with %', v USING ERRCODE = v, DETAIL = 'A detail.',
                 HINT = 'A hint.', CONSTRAINT = 'c'; END IF;
             RETURN v <> 'bad'; END $$;
         CREATE DOMAIN picked AS text CHECK (picky(VALUE))",
    );
    for code in PASSING {
        let direct = world.boss.outcome(&format!("SELECT '{code}'::text::picked"));
        assert_eq!(direct.failure().code, *code);
        let function = |outcome: &Outcome| {
            let context = outcome.failure().context.clone().unwrap_or_default();
            context.lines().next().unwrap_or_default().to_owned()
        };
        for call in [
            format!("SELECT steward.cached_json('SELECT $1::picked AS a', '[\"{code}\"]')"),
            format!("SELECT * FROM steward.cached('SELECT $1::picked AS a', '[\"{code}\"]') AS t(a picked)"),
        ] {
            let cached = world.boss.outcome(&call);
            assert_eq!(cached.essence(), direct.essence(), "{call}");
            assert!(function(&direct).starts_with("PL/pgSQL function picky(text) line"));
            assert_eq!(function(&cached), function(&direct), "{call}");
            assert_eq!(cached.failure().place, direct.failure().place, "{call}");
        }
    }
    for (value, reason) in [
        ("22012", "refused with 22012"),
        ("22P05", "refused with 22P05"),
        ("bad", "value for domain picked violates check constraint \"picked_check\""),
    ] {
        let message = format!("value \"{value}\" of parameter $1 is not valid for type picked: {reason}");
        refused(
            &mut world.boss,
            &format!("'SELECT 1 AS a WHERE $1::picked IS NULL', '[\"{value}\"]'"),
            "22P02",
            &message,
            None,
        );
    }
    // A cancel stays one, so nobody catches it by accident.
    world.boss.run(
        "CREATE FUNCTION swallows() RETURNS text LANGUAGE plpgsql AS $$ BEGIN
             RETURN steward.cached_json('SELECT $1::picked AS a', '[\"sleep\"]');
             EXCEPTION WHEN OTHERS THEN RETURN 'swallowed'; END $$",
    );
    world.boss.run("SET statement_timeout = '100ms'");
    for call in ["SELECT steward.cached_json('SELECT $1::picked AS a', '[\"sleep\"]')", "SELECT swallows()"] {
        assert_eq!(world.boss.fails(call), "57014", "{call}");
    }
    world.boss.run("RESET statement_timeout");
    assert_eq!(
        world.boss.line("SELECT steward.cached_json('SELECT $1::picked AS a', '[\"good\"]')"),
        "[{\"a\":\"good\"}]"
    );
    // What is quoted of a long value has an end.
    let long = "SELECT steward.cached_json('SELECT $1::int AS a', jsonb_build_array(repeat('é', 100000)))";
    let message = world.boss.outcome(long).failure().message.clone();
    assert!(
        message.starts_with(&format!("value \"{}\" of parameter $1 is not valid for type integer: ", "é".repeat(200)))
    );
    assert!(message.chars().count() < 2000, "{}", message.chars().count());
    server().check_log(&["ERROR:"]).expect("no line but errors of clients");
}

#[test]
fn errors_of_a_cast_to_json_pass_unchanged() {
    let mut world = world("casts");
    world.boss.run(
        "CREATE TYPE mood AS ENUM ('fine', 'bad', 'slow');
         CREATE FUNCTION told(m mood) RETURNS json LANGUAGE plpgsql AS $$ BEGIN
             IF m = 'bad' THEN RAISE EXCEPTION 'not told' USING ERRCODE = 'ZZ123', DETAIL = 'A detail.', HINT = 'A hint.',
                 CONSTRAINT = 'c', TABLE = 't', SCHEMA = 's', COLUMN = 'l', DATATYPE = 'd'; END IF;
             IF m = 'slow' THEN PERFORM pg_sleep(60); END IF;
             RETURN steward.cached_json('SELECT 1 AS one'); END $$;
         CREATE CAST (mood AS json) WITH FUNCTION told(mood)",
    );
    let query = "SELECT m::mood AS m FROM (VALUES ('fine'), ('bad')) AS v(m)";
    let direct = world.boss.direct(query);
    assert_eq!(direct.failure().code, "ZZ123");
    for _ in 0..3 {
        let cached = world.boss.cached(query);
        assert_eq!(cached.essence(), direct.essence());
        assert_eq!(cached.failure().context, direct.failure().context);
        assert_eq!(cached.failure().place, direct.failure().place);
    }
    world.boss.run("SET statement_timeout = '100ms'");
    assert_eq!(world.boss.fails(&cached_sql("SELECT 'slow'::mood AS m")), "57014");
    world.boss.run("RESET statement_timeout");
    // A call of ours below the cast, and one after what failed.
    world.boss.agrees("a cast that calls", "SELECT 'fine'::mood AS m");
    world.boss.run(
        "CREATE FUNCTION caught(q text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
             RETURN steward.cached_json(q); EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END $$",
    );
    let caught = format!("SELECT caught($q${query}$q$), caught('SELECT count(*) FROM n'), caught($q${query}$q$)");
    for _ in 0..3 {
        assert_eq!(world.boss.line(&caught), "ZZ123|[{\"count\":200}]|ZZ123");
    }
}

/// JSON of rows that a session has kept is interrupted as a query is, and comes whole afterwards.
#[test]
fn rendering_kept_rows_can_be_interrupted() {
    let mut world = world("rendered");
    let query = "SELECT i, repeat('ab', 20) AS a FROM generate_series(1, 60000) AS i";
    let rows =
        format!("SELECT count(*), sum(i) FROM steward.cached('{}') AS t(i int, a text)", query.replace('\'', "''"));
    let direct = world.boss.direct(query);
    world.boss.run(
        "UPDATE steward.cache_classes SET max_result_size = 100000000;
         SET pg_steward.cache_max_result_size = '100MB'; SET pg_steward.cache_local_size = '200MB'",
    );
    for _ in 0..20 {
        assert_eq!(world.boss.line(&rows), "60000|1800030000");
        if world.boss.state(query) == "local" {
            break;
        }
    }
    assert_eq!(world.boss.state(query), "local");
    for _ in 0..3 {
        world.boss.run("SET statement_timeout = '2ms'");
        assert_eq!(world.boss.fails(&cached_sql(query)), "57014");
        world.boss.run("RESET statement_timeout");
        assert_eq!(world.boss.state(query), "local");
    }
    for _ in 0..2 {
        assert_eq!(world.boss.cached(query), direct);
    }
}

/// More memory than a process may have is Postgres's own error, or a result that is not kept; never the server's end. What
/// fails leaves no claim for which others would wait.
#[test]
fn out_of_memory_is_an_error() {
    let cluster = builder("cacheMemory")
        .address_space_kb(700_000)
        .conf("pg_steward.cache_max_result_size", "1GB")
        .conf("pg_steward.cache_local_size", "1GB")
        .conf("pg_steward.cache_wait_limit", "10ms")
        .start()
        .expect("server");
    cluster.create_database("narrow").expect("database");
    let mut one = Session::new(cluster.client("narrow").expect("connect"), "narrow", "one");
    let mut two = Session::new(cluster.client("narrow").expect("connect"), "narrow", "two");
    one.run("UPDATE steward.cache_classes SET max_result_size = 1073741824");
    let columns: Vec<String> = (10..20).map(|at| format!("1 AS \"{}{at}\"", "x".repeat(59))).collect();
    let waits = "SELECT waits FROM steward.cache_stats";
    let mut failed = 0;
    for rows in [275_000, 420_000, 750_000, 750_000] {
        let query = format!("SELECT {} FROM generate_series(1, {rows})", columns.join(", "));
        let length = format!("SELECT length(steward.cached_json($q${query}$q$)::text)");
        for session in [&mut one, &mut two] {
            match session.outcome(&length) {
                Outcome::Rows(rows) => assert_eq!(rows.len(), 1),
                Outcome::Error(failure) => {
                    assert_eq!((failure.code.as_str(), failure.message.as_str()), ("53200", "out of memory"), "{rows}");
                    assert_eq!(session.line("SELECT steward.cached_json('SELECT 1 AS a')"), "[{\"a\":1}]");
                    failed += 1;
                }
            }
        }
        assert_eq!(two.line(waits), "0", "nobody waits for who failed");
    }
    assert!(failed > 0, "nothing was too large");
    // Rows that fit are served where their JSON does not.
    let query = format!("SELECT {} FROM generate_series(1, 750001)", columns.join(", "));
    let list: Vec<String> = (0..10).map(|at| format!("c{at} int")).collect();
    let rows = format!("SELECT count(*), sum(c3) FROM steward.cached($q${query}$q$) AS t({})", list.join(", "));
    for _ in 0..2 {
        assert_eq!(one.line(&rows), "750001|750001");
        assert_eq!(one.fails(&format!("SELECT length(steward.cached_json($q${query}$q$)::text)")), "53200");
    }
    cluster.check_log(&["ERROR:", "out of memory"]).expect("no crash");
}

/// What a developer asked of Rust's own errors is not told to users of the database.
#[test]
fn errors_carry_no_backtrace() {
    let cluster = builder("cacheBacktrace").env("RUST_BACKTRACE", "1").start().expect("server");
    cluster.create_database("traced").expect("database");
    let mut session = Session::new(cluster.client("traced").expect("connect"), "traced", "one");
    session.run("CREATE TABLE n (id int)");
    for arguments in [
        "'SELECT 1', '{}'",
        "'SELECT $1::int', '[\"x\"]'",
        "'SELECT $1::int', '[]'",
        "'SELECT 1; SELECT 2'",
        "'DELETE FROM n'",
        "'SELECT 1', class => 'nonsense'",
        "'SELECT 1', ttl => '0'",
        "NULL",
        "'SELECT id FROM n FOR UPDATE'",
        "'SELECT nowhere FROM n'",
        "'SELECT 1 / 0'",
    ] {
        for sql in [
            format!("SELECT steward.cached_json({arguments})"),
            format!("SELECT * FROM steward.cached({arguments}) AS t(a int)"),
        ] {
            assert_eq!(session.outcome(&sql).failure().detail, None, "{sql}");
        }
    }
    for sql in [
        "SELECT steward.cached('SELECT 1')",
        "SELECT steward.cache_invalidate_class('nonsense')",
        "SELECT steward.cache_invalidate('nowhere')",
        "BEGIN READ ONLY; SELECT steward.cache_invalidate_tag('a'); COMMIT",
        "ROLLBACK",
        "SELECT steward.cache_invalidate_role_id(0)",
        "SELECT * FROM steward.cache_explain('SELECT 1; SELECT 2')",
    ] {
        if let Outcome::Error(failure) = session.outcome(sql) {
            assert_eq!(failure.detail, None, "{sql}");
        }
    }
}
