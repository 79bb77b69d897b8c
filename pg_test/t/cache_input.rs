//! What callers give: bad input is refused with a message that names it, Postgres's own errors pass unchanged, and every
//! shape of result comes out as the query itself gives it.

#[path = "cache_common.rs"]
mod common;
#[path = "cache_input_failures.rs"]
mod failures;
#[path = "cache_input_servers.rs"]
mod servers;
#[path = "cache_input_shapes.rs"]
mod shapes;
#[path = "cache_input_types.rs"]
mod types;

use common::{Outcome, Position, Session, World, builder, cached_sql};
use std::sync::OnceLock;
use steward_test::Cluster;

fn server() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| builder("cacheInput").start().expect("server"))
}

fn world(name: &str) -> World<'static> {
    let mut world = World::new(server(), name);
    world.boss.run(
        "CREATE TABLE n (id int PRIMARY KEY, word text, amount numeric(12,2));
         INSERT INTO n SELECT i, 'word ' || i, i * 1.5 FROM generate_series(1, 200) AS i; CREATE SEQUENCE counter;
         CREATE FUNCTION boom(i int) RETURNS int STABLE LANGUAGE plpgsql AS $$ BEGIN
             IF i > 100 THEN
                 RAISE EXCEPTION 'too large: %', i USING ERRCODE = 'P9999', DETAIL = 'It was.', HINT = 'Give less.',
                     TABLE = 'n', COLUMN = 'id', CONSTRAINT = 'c', DATATYPE = 'd', SCHEMA = 's';
             END IF;
             RETURN i; END $$",
    );
    world
}

/// Fails in both forms of the call with this state and message, and hint where there is one.
fn refused(session: &mut Session, arguments: &str, code: &str, message: &str, hint: Option<&str>) {
    let calls = [
        format!("SELECT steward.cached_json({arguments})"),
        format!("SELECT * FROM steward.cached({arguments}) AS t(a int)"),
    ];
    for sql in calls {
        let outcome = session.outcome(&sql);
        let failure = outcome.failure();
        assert_eq!((failure.code.as_str(), failure.message.as_str()), (code, message), "{sql}");
        assert_eq!(failure.hint.as_deref(), hint, "{sql}");
        assert_eq!(failure.detail, None, "{sql}");
    }
}

const ONE_SELECT: Option<&str> = Some("Give one SELECT, VALUES or TABLE command that only reads.");
const AN_ARRAY: Option<&str> = Some("Give the values for $1, $2 and so on as a JSON array, such as '[42, \"north\"]'.");

const OTHER_COMMANDS: &[(&str, &str)] = &[
    ("INSERT INTO n VALUES (1000)", "INSERT"),
    ("UPDATE n SET word = ''", "UPDATE"),
    ("DELETE FROM n", "DELETE"),
    ("MERGE INTO n USING n AS m ON n.id = m.id WHEN MATCHED THEN DELETE", "MERGE"),
    ("TRUNCATE n", "TRUNCATE TABLE"),
    ("EXPLAIN SELECT 1", "EXPLAIN"),
    ("EXPLAIN ANALYZE DELETE FROM n", "EXPLAIN"),
    ("SHOW work_mem", "SHOW"),
    ("SET work_mem = '1MB'", "SET"),
    ("COPY n TO STDOUT", "COPY"),
    ("COPY (SELECT 1) TO STDOUT", "COPY"),
    ("CREATE TABLE made AS SELECT 1", "CREATE TABLE AS"),
    ("CREATE TABLE made (id int)", "CREATE TABLE"),
    ("DROP TABLE n", "DROP TABLE"),
    ("PREPARE p AS SELECT 1", "PREPARE"),
    ("EXECUTE p", "EXECUTE"),
    ("DECLARE c CURSOR FOR SELECT 1", "DECLARE CURSOR"),
    ("FETCH 1 FROM c", "FETCH"),
    ("BEGIN", "BEGIN"),
    ("COMMIT", "COMMIT"),
    ("VACUUM n", "VACUUM"),
    ("DO 'BEGIN END'", "DO"),
    ("CALL f()", "CALL"),
    ("LOCK n", "LOCK TABLE"),
    ("NOTIFY c", "NOTIFY"),
];

#[test]
fn only_a_single_select_is_taken() {
    let mut world = world("statements");
    let mut commands: Vec<(String, &str)> = OTHER_COMMANDS.iter().map(|(sql, tag)| ((*sql).to_owned(), *tag)).collect();
    // White space and comments are no statements.
    commands.push(("/* a */ DELETE FROM n -- b\n;".into(), "DELETE"));
    for (sql, tag) in &commands {
        let message = format!("query must be a single SELECT, found {tag}");
        refused(&mut world.boss, &format!("$q${sql}$q$"), "0A000", &message, ONE_SELECT);
    }
    for (sql, message) in [
        ("", "query must be a single SELECT, found no statement"),
        (" ; -- nothing", "query must be a single SELECT, found no statement"),
        ("SELECT 1; SELECT 2", "query must be a single SELECT, found 2 statements"),
        ("SELECT 1; DROP TABLE n; SELECT 2", "query must be a single SELECT, found 3 statements"),
        ("SELECT 1 INTO made", "query must only read, found SELECT INTO"),
        ("SELECT 1 INTO TEMP made UNION SELECT 2", "query must only read, found SELECT INTO"),
        (
            "WITH d AS (DELETE FROM n RETURNING id) SELECT id FROM d",
            "query must only read, found a WITH clause that modifies data",
        ),
        (
            "SELECT 1 AS a FROM (WITH d AS (SELECT 1) SELECT 2) AS s FOR UPDATE",
            "query must not lock rows, found a locking clause such as FOR UPDATE",
        ),
        ("SELECT id FROM n FOR UPDATE", "query must not lock rows, found a locking clause such as FOR UPDATE"),
        (
            "SELECT id FROM n FOR KEY SHARE SKIP LOCKED",
            "query must not lock rows, found a locking clause such as FOR UPDATE",
        ),
        (
            "SELECT id FROM (SELECT id FROM n FOR SHARE) AS s",
            "query must not lock rows, found a locking clause such as FOR UPDATE",
        ),
        (
            "WITH l AS (SELECT id FROM n FOR UPDATE) SELECT id FROM l",
            "query must not lock rows, found a locking clause such as FOR UPDATE",
        ),
    ] {
        refused(&mut world.boss, &format!("$q${sql}$q$"), "0A000", message, ONE_SELECT);
    }
    assert_eq!(world.boss.line("SELECT count(*), to_regclass('made') IS NULL FROM n"), "200|t");
    for sql in
        ["SELECT 1 AS a;", "VALUES (1)", "TABLE n", "(SELECT 1 AS a)", "WITH w AS (SELECT 1 AS a) SELECT a FROM w"]
    {
        assert!(!world.boss.cached(sql).is_error(), "{sql}");
    }
}

#[test]
fn parameters_are_an_array_of_as_many_values() {
    let mut world = world("parameters");
    let two = "$q$SELECT $1::int + $2::int AS a$q$";
    for (params, found) in [
        ("{}", "an object"),
        ("{\"1\": 2}", "an object"),
        ("1", "a scalar"),
        ("null", "a scalar"),
        ("\"x\"", "a scalar"),
    ] {
        let message = format!("params must be an array, found {found}");
        refused(&mut world.boss, &format!("{two}, '{params}'"), "22023", &message, AN_ARRAY);
    }
    for (params, given) in [("[]", 0), ("[1]", 1), ("[1, 2, 3]", 3), ("[[1, 2]]", 1)] {
        let message = format!("params has the wrong number of values: {given} given, the query takes 2");
        refused(&mut world.boss, &format!("{two}, '{params}'"), "22023", &message, AN_ARRAY);
    }
    let message = "params has the wrong number of values: 1 given, the query takes 0";
    refused(&mut world.boss, "'SELECT 1 AS a', '[1]'", "22023", message, AN_ARRAY);
    for (kind, params, position, value, reason) in [
        ("int", "[\"x\"]", 1, "x", "invalid input syntax for type integer: \"x\""),
        ("int", "[1.5]", 1, "1.5", "invalid input syntax for type integer: \"1.5\""),
        ("int", "[true]", 1, "true", "invalid input syntax for type integer: \"true\""),
        ("int", "[[1]]", 1, "[1]", "invalid input syntax for type integer: \"[1]\""),
        ("int", "[99999999999]", 1, "99999999999", "value \"99999999999\" is out of range for type integer"),
        ("date", "[\"2020-13-01\"]", 1, "2020-13-01", "date/time field value out of range: \"2020-13-01\""),
        ("bool", "[2]", 1, "2", "invalid input syntax for type boolean: \"2\""),
        ("uuid", "[\"\"]", 1, "", "invalid input syntax for type uuid: \"\""),
        ("int[]", "[[1, \"x\"]]", 1, "{\"1\",\"x\"}", "invalid input syntax for type integer: \"x\""),
    ] {
        let types = [("int", "integer"), ("bool", "boolean"), ("int[]", "integer[]")];
        let named = types.iter().find(|(short, _)| *short == kind).map_or(kind, |(_, long)| long);
        let message = format!("value \"{value}\" of parameter ${position} is not valid for type {named}: {reason}");
        let arguments = format!("$q$SELECT 1 AS a WHERE $1::{kind} IS NULL$q$, $p${params}$p$");
        refused(&mut world.boss, &arguments, "22P02", &message, None);
    }
    let message =
        "value \"b\" of parameter $2 is not valid for type integer: invalid input syntax for type integer: \"b\"";
    refused(&mut world.boss, &format!("{two}, '[1, \"b\"]'"), "22P02", message, None);
    refused(&mut world.boss, "NULL", "22004", "query must not be null", None);
    refused(&mut world.boss, "'SELECT 1 AS a', NULL", "22004", "params must not be null", None);
    // A warm query refuses as before.
    world.boss.warm("SELECT 1 AS a");
    let message = "params must be an array, found an object";
    refused(&mut world.boss, "'SELECT 1 AS a', '{}'", "22023", message, AN_ARRAY);
    refused(&mut world.boss, "'SELECT 1 AS a', NULL", "22004", "params must not be null", None);
}

#[test]
fn time_to_live_and_class_are_checked() {
    let mut world = world("ttl");
    for (ttl, message) in [
        ("0", "ttl of 0 ms is out of range, expected more than zero"),
        ("-1 second", "ttl of -1000 ms is out of range, expected more than zero"),
        ("-1 month", "ttl of -2592000000 ms is out of range, expected more than zero"),
    ] {
        for _ in 0..2 {
            refused(&mut world.boss, &format!("'SELECT 1 AS a', ttl => '{ttl}'"), "22003", message, None);
        }
        world.boss.warm("SELECT 1 AS a");
    }
    let known = "admin, financial, member_data, public, reporting, utility";
    for class in ["nonsense", "", "Utility"] {
        let message = format!("class \"{class}\" is not known, expected one of {known}");
        let hint = Some("See the table steward.cache_classes.");
        refused(&mut world.boss, &format!("'SELECT 1 AS a', class => '{class}'"), "42704", &message, hint);
    }
    let notices = |arguments: &str| {
        let sql = format!("SELECT steward.cached_json({arguments});");
        let done = server().psql_output("ttl", &sql, &[]).expect("psql");
        String::from_utf8_lossy(&done.stderr).trim_end().to_owned()
    };
    let longer = "NOTICE:  ttl of 36000000 ms is longer than class \"utility\" allows, using 3600000 ms";
    assert!(notices("'SELECT 2 AS a', ttl => '10 hours'").ends_with(longer));
    let laxer = "NOTICE:  class \"public\" is laxer than the tables allow, using class \"utility\"";
    assert!(notices("'SELECT 2 AS a', class => 'public'").ends_with(laxer));
    for quiet in [
        "class => 'financial'",
        "ttl => '1 minute'",
        "class => NULL, ttl => NULL",
        "tags => NULL",
        "tags => '{a,NULL}'",
    ] {
        assert_eq!(notices(&format!("'SELECT 2 AS a', {quiet}")), "", "{quiet}");
    }
}

/// Failing queries, each with something in another field of the error.
const FAILING: &[&str] = &[
    "SELECT 1/0",
    "SELECT id, 1 / (id - 150) AS q FROM n ORDER BY id",
    "SELECT boom(id) FROM n ORDER BY id",
    "SELECT id FROM n WHERE boom(id) > 0",
    "SELEC 1",
    "SELECT 1 +",
    "SELECT 'unterminated",
    "SELECT (1",
    "SELECT nowhere FROM n",
    "SELECT i FROM n",
    "SELECT * FROM nowhere",
    "SELECT nowhere.f()",
    "SELECT boom('a', 'b')",
    "SELECT id FROM n GROUP BY word",
    "SELECT sum(count(*)) FROM n",
    "SELECT 1 = 'a'",
    "SELECT 'a'::int",
    "SELECT '2020-13-01'::date",
    "SELECT word::int FROM n",
    "SELECT id FROM n UNION SELECT word FROM n",
    "SELECT (SELECT id FROM n)",
    "SELECT '{'::json",
    "SELECT ARRAY[1, 2] || '{a}'",
    "SELECT id FROM n LIMIT -1",
    "SELECT repeat('a', 1500000000)",
    "SELECT 'a' ~ '('",
    "SELECT $2::int",
    "SELECT $1 IS NULL",
    "SELECT 1 UNION SELECT 2 FOR SHARE",
    "SELECT generate_series(1, 2, 0)",
    "SELECT\n  id,\n  nowhere\nFROM n",
    "SELECT 'é', nowhere FROM n",
];

/// All but where it happened is the same; the position is one in the text of the query, and the context ends with it.
fn same_error(query: &str, direct: &Outcome, cached: &Outcome) {
    assert_eq!(direct.essence(), cached.essence(), "{query}");
    let (direct, cached) = (direct.failure(), cached.failure());
    match &direct.position {
        Position::Statement(at) => assert_eq!(cached.position, Position::Internal(*at, query.to_owned()), "{query}"),
        other => assert_eq!(&cached.position, other, "{query}"),
    }
    let statement = format!("SQL statement \"{query}\"");
    match (&direct.context, &cached.context) {
        // What is refused before it runs has no statement around it.
        (None, None) => {}
        (None, Some(context)) => assert_eq!(context, &statement, "{query}"),
        (Some(inner), Some(context)) if context == inner => {}
        (Some(inner), context) => assert_eq!(context, &Some(format!("{inner}\n{statement}")), "{query}"),
    }
}

#[test]
fn errors_of_the_query_pass_unchanged() {
    let mut world = world("errors");
    let mut ann = world.role("ann");
    for query in FAILING.iter().filter(|query| !query.contains('$')) {
        let direct = world.boss.outcome(query);
        for _ in 0..2 {
            let cached = world.boss.cached(query);
            same_error(query, &direct, &cached);
            let rows =
                world.boss.outcome(&format!("SELECT * FROM steward.cached($steward${query}$steward$) AS t(a int)"));
            // A list of columns is compared before the query runs.
            if rows.failure().code != "42804" {
                same_error(query, &direct, &rows);
            }
        }
        assert_ne!(world.boss.outcome("SELECT 1"), direct);
    }
    for (query, code) in [("SELECT $2::int", "42P18"), ("SELECT $1 IS NULL", "42P18")] {
        assert_eq!(world.boss.cached(query).failure().code, code, "{query}");
    }
    for query in ["SELECT id FROM n", "SELECT count(*) FROM n", "SELECT boom(1) FROM n"] {
        world.boss.warm(query);
        let direct = ann.outcome(query);
        assert_eq!(direct.failure().code, "42501");
        same_error(query, &direct, &ann.cached(query));
    }
    world.boss.run("REVOKE EXECUTE ON FUNCTION boom FROM PUBLIC; GRANT SELECT ON n TO PUBLIC");
    for query in ["SELECT boom(1)", "SELECT id FROM n WHERE boom(id) < 3"] {
        let _ = world.boss.cached(query);
        let direct = ann.outcome(query);
        assert_eq!(direct.failure().code, "42501");
        same_error(query, &direct, &ann.cached(query));
    }
    // Caught within a function, an error leaves the session as it was.
    world.boss.run(
        "CREATE FUNCTION caught(q text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
             RETURN steward.cached_json(q); EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END $$",
    );
    for query in FAILING {
        let code = world.boss.cached(query).failure().code.clone();
        let sql = format!("SELECT caught($q${query}$q$), caught('SELECT count(*) FROM n'), caught($q${query}$q$)");
        assert_eq!(world.boss.line(&sql), format!("{code}|[{{\"count\":200}}]|{code}"), "{query}");
    }
    server().check_log(&["ERROR:"]).expect("no line but errors of clients");
}

/// A query that did not end leaves nothing: no result, no claim on it, no open statement.
#[test]
fn what_was_cut_short_leaves_nothing() {
    let mut world = world("cut_short");
    let endless = "SELECT count(*) FROM n AS a, n AS b, n AS c, n AS d";
    let halfway = "SELECT boom(id) FROM n ORDER BY id";
    let entries = "SELECT count(*) FROM steward.cache_entries";
    world.boss.warm("SELECT count(*) FROM n");
    let before = world.boss.line(entries);
    for round in 0..3 {
        world.boss.run("SET statement_timeout = '50ms'");
        for sql in [cached_sql(endless), format!("SELECT * FROM steward.cached($q${endless}$q$) AS t(a bigint)")] {
            assert_eq!(world.boss.fails(&sql), "57014", "round {round}");
        }
        world.boss.run("RESET statement_timeout");
        assert_eq!(world.boss.cached(halfway).failure().code, "P9999");
        world.boss.run("BEGIN; SAVEPOINT s");
        assert_eq!(world.boss.cached(halfway).failure().code, "P9999");
        world.boss.run("ROLLBACK TO s");
        assert_eq!(world.boss.cached("SELECT count(*) FROM n").rows(), ["[{\"count\":200}]"]);
        world.boss.run("COMMIT");
    }
    for query in [endless, halfway] {
        assert_eq!(world.boss.state(query), "absent");
    }
    assert_eq!(world.boss.line(entries), before);
    assert_eq!(world.boss.line("SELECT count(*) FROM pg_prepared_statements"), "0");
    // Another session that asks the same does not wait for who gave up, and can store it.
    world.boss.run("CREATE OR REPLACE FUNCTION boom(i int) RETURNS int STABLE LANGUAGE sql AS 'SELECT i'");
    let mut other = world.another();
    other.warm(halfway);
    world.boss.agrees("after others", halfway);
    // A consumer that stops early has had a whole result computed.
    let first = "SELECT i FROM steward.cached('SELECT id, word FROM n ORDER BY id') AS t(i int, w text) LIMIT 1";
    assert_eq!([world.boss.line(first), world.boss.line(first)], ["1", "1"]);
    world.boss.agrees("after a LIMIT", "SELECT id, word FROM n ORDER BY id");
}

#[test]
fn a_result_lives_no_longer_than_asked() {
    let mut world = world("expiry");
    let expired = "SELECT count FROM steward.cache_misses WHERE reason = 'expired'";
    let count = |session: &mut Session| session.line(expired).parse::<u64>().expect("a number");
    let call = |session: &mut Session, ttl: &str| {
        session.line(&format!("SELECT steward.cached_json('SELECT count(*) FROM n', ttl => '{ttl}')"))
    };
    let query = "SELECT count(*) FROM n";
    let mut other = world.another();
    world.boss.warm(query);
    world.boss.run("SELECT pg_sleep(0.05)");
    let before = count(&mut world.boss);
    assert_eq!(call(&mut world.boss, "1 hour"), "[{\"count\":200}]");
    assert_eq!(count(&mut world.boss), before, "young enough");
    assert_eq!(call(&mut world.boss, "10 ms"), "[{\"count\":200}]");
    assert_eq!(count(&mut world.boss), before + 1, "too old for this caller");
    // One that asked for less time has not taken it from the others.
    other.run("SELECT pg_sleep(0.05)");
    assert_eq!(call(&mut other, "10 ms"), "[{\"count\":200}]");
    assert_eq!(other.state(query), "local");
    assert_eq!(world.boss.state(query), "local");
    // The class's own time ends it for all, also what sessions keep.
    world.boss.run("UPDATE steward.cache_classes SET ttl = '40 milliseconds' WHERE name = 'utility'");
    for session in [&mut world.boss, &mut other] {
        session.run(&cached_sql(query));
        session.run(&cached_sql(query));
        session.run("SELECT pg_sleep(0.1)");
        assert_eq!(session.state(query), "expired");
        let before = count(session);
        session.agrees("after its time", query);
        assert!(count(session) > before);
    }
}
