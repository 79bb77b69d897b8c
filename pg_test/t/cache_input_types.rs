//! Types of results and parameters: modifiers that planning changes, encodings of names, spans of time without end.

use super::common::{Outcome, Session};
use super::{server, world};

/// Queries for whose columns the planner knows another type modifier than the parser did; `$1` is a parameter with this
/// value.
const MODIFIED: &[(&str, &str, &str, &str)] = &[
    ("SELECT coalesce($1::varchar(3), b) AS x FROM vt", "[null]", "NULL", "x varchar"),
    ("SELECT coalesce($1::varchar(3), b) AS x FROM vt", "[\"q\"]", "'q'", "x varchar"),
    ("SELECT CASE WHEN $1::bool THEN a ELSE b END AS x FROM vt", "[true]", "true", "x varchar"),
    ("SELECT CASE WHEN $1::bool THEN a ELSE b END AS x FROM vt", "[false]", "false", "x varchar"),
    ("SELECT CASE WHEN $1::bool THEN n ELSE 1::numeric END AS x FROM vt", "[true]", "true", "x numeric"),
    ("SELECT CASE WHEN $1::bool THEN c ELSE 'zz'::char(4) END AS x FROM vt", "[true]", "true", "x bpchar"),
    ("SELECT CASE WHEN $1::bool THEN i ELSE '1 day'::interval END AS x FROM vt", "[true]", "true", "x interval"),
    ("SELECT coalesce($1::timestamp(0), t) AS x FROM vt", "[null]", "NULL", "x timestamp"),
    ("SELECT CASE WHEN true THEN 'a'::varchar(3) ELSE 'bb'::varchar(5) END AS x", "[]", "", "x varchar"),
    ("SELECT x FROM folded", "[]", "", "x varchar"),
    ("SELECT sv(a) AS x FROM vt", "[]", "", "x varchar"),
    ("SELECT sv(a) AS x, sv(b) AS y, n FROM vt WHERE n > 0", "[]", "", "x varchar, y varchar, n numeric"),
];

fn thrice(session: &mut Session, sql: &str) -> Outcome {
    let outcomes: Vec<Outcome> = (0..3).map(|_| session.outcome(sql)).collect();
    assert!(outcomes.iter().all(|outcome| outcome == &outcomes[0]), "{sql}: {outcomes:?}");
    outcomes.into_iter().next().expect("three")
}

#[test]
fn type_modifiers_may_differ_from_what_was_parsed() {
    let mut world = world("modifiers");
    world.boss.run(
        "CREATE TABLE vt (a varchar(3), b varchar(5), n numeric(6,2), c char(3), i interval(3), t timestamp(0));
         INSERT INTO vt VALUES ('a', 'bb', 1.5, 'c', '1.23456 s', '2020-01-01 10:00:00.6'), (NULL, NULL, -1, '', NULL, NULL);
         CREATE VIEW folded AS SELECT CASE WHEN true THEN 'a'::varchar(3) ELSE 'bb'::varchar(5) END AS x;
         CREATE FUNCTION sv(varchar) RETURNS varchar LANGUAGE sql IMMUTABLE AS 'SELECT $1'",
    );
    let mut other = world.another();
    for (query, params, literal, columns) in MODIFIED {
        let direct = query.replace("$1", literal);
        let rows = world.boss.outcome(&direct);
        let json = world.boss.direct(&direct);
        assert!(!rows.is_error() && !json.is_error(), "{direct}: {rows:?} {json:?}");
        let arguments = format!("$q${query}$q$, '{params}'");
        for session in [&mut world.boss, &mut other] {
            let cached = thrice(session, &format!("SELECT * FROM steward.cached({arguments}) AS t({columns})"));
            assert_eq!(cached, rows, "{query} with {params}");
            assert_eq!(thrice(session, &format!("SELECT steward.cached_json({arguments})")), json, "{query}, {params}");
        }
    }
    // A column's modifier that changes while the statement is known changes nothing but the values.
    world.boss.warm("SELECT b FROM vt");
    world.boss.run("ALTER TABLE vt ALTER b TYPE varchar(9); UPDATE vt SET b = 'longer'");
    world.boss.agrees("a longer column", "SELECT b FROM vt");
}

/// Tags and classes are the same for who sets them and who drops their results, in any encoding of the database.
#[test]
fn names_that_are_not_ascii() {
    for (database, encoding) in [("latin1_names", "LATIN1"), ("utf8_names", "UTF8"), ("latin9_names", "LATIN9")] {
        let create =
            format!("CREATE DATABASE {database} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
        server().psql("postgres", &create).expect("database");
        server().psql(database, "CREATE EXTENSION pg_steward").expect("extension");
        let mut boss = Session::new(server().client(database).expect("connect"), database, encoding);
        boss.run("CREATE TABLE n (id int); INSERT INTO n VALUES (1)");
        let call = "SELECT steward.cached_json('SELECT id FROM n', tags => ARRAY[chr(233), NULL, 'plain'])";
        let missed = "SELECT misses FROM steward.cache_stats";
        for tag in ["chr(233)", "'plain'"] {
            // Results are kept once a snapshot is young enough.
            for _ in 0..100 {
                let before = boss.line(missed);
                boss.run(call);
                if boss.line(missed) == before {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            let before = boss.line(missed);
            assert_eq!(boss.line(call), "[{\"id\":1}]");
            assert_eq!(boss.line(missed), before, "{encoding}: a hit");
            assert_eq!(boss.line(&format!("SELECT steward.cache_invalidate_tag({tag})")), "1", "{encoding}");
            assert_eq!(boss.line(call), "[{\"id\":1}]");
            assert_ne!(boss.line(missed), before, "{encoding}: no hit");
        }
        let refused = boss.outcome("SELECT steward.cache_invalidate_class(chr(233))");
        assert_eq!(refused.failure().code, "42704", "{encoding}");
        let named = if encoding == "UTF8" { "é" } else { "?" };
        assert!(refused.failure().message.starts_with(&format!("class \"{named}\" is not known")), "{encoding}");
        let logged = "SELECT DISTINCT arguments ->> 'tag' FROM steward.audit_log WHERE action = 'cache_invalidate_tag' ORDER BY 1";
        assert_eq!(boss.lines(logged), ["plain", "é"]);
    }
}

/// A time to live of more microseconds than can be counted never ends.
#[test]
fn a_time_to_live_beyond_all_counting() {
    let mut world = world("ages");
    // In microseconds, a little more than 64 bits hold.
    world.boss.run("UPDATE steward.cache_classes SET ttl = '213503982 days 08:01:49.552' WHERE name = 'utility'");
    let query = "SELECT count(*) FROM n";
    world.boss.warm(query);
    world.boss.run("SELECT pg_sleep(0.05)");
    assert_eq!(world.boss.state(query), "local");
    let hits = "SELECT local_hits FROM steward.cache_stats";
    let before: u64 = world.boss.line(hits).parse().expect("a number");
    world.boss.agrees("old", query);
    assert_eq!(world.boss.line(hits).parse::<u64>().expect("a number"), before + 2);
    let mut other = world.another();
    assert_eq!(other.state(query), "shared");
    other.agrees("old", query);
    let call = format!("SELECT steward.cached_json('{query}', ttl => '2000000000 days')");
    assert_eq!(other.line(&call), "[{\"count\":200}]");
}
