//! What fails beside the query itself: reading a parameter.

use super::common::{Outcome, Session, builder};
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
