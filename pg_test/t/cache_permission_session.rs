//! What a session has set: settings that policies read, roles that it takes on, and settings that change texts.

use super::common::{Outcome, Session, World};
use super::{Readers, server};

const QUERIES: &[&str] = &[
    "SELECT id FROM app.n ORDER BY id",
    "SELECT id FROM app.of_invoker ORDER BY id",
    "SELECT id FROM app.of_owner ORDER BY id",
    "SELECT app.in_sql()",
    "SELECT app.in_plpgsql()",
    "SELECT app.as_definer()",
    "SELECT current_setting('app.tenant', true) AS tenant",
];

/// Runs each statement in the session, then asks. Returns the answers to the first query.
fn follow(session: &mut Session, queries: &[&str], statements: &[&str]) -> Vec<Outcome> {
    let mut first = Vec::new();
    for sql in statements {
        // A warm session, whose next call must not be answered with what it has.
        for query in queries {
            drop(session.cached(query));
        }
        // Some are meant to fail.
        let _ = session.outcome(sql);
        for (at, query) in queries.iter().enumerate() {
            let outcome = session.agrees(sql, query);
            if at == 0 {
                first.push(outcome);
            }
        }
    }
    first
}

fn answers(outcomes: &[Outcome]) -> Vec<String> {
    outcomes.iter().map(|o| if o.is_error() { o.failure().code.clone() } else { o.rows().join("") }).collect()
}

fn ids(ids: &[u32]) -> String {
    let objects: Vec<String> = ids.iter().map(|id| format!("{{\"id\":{id}}}")).collect();
    format!("[{}]", objects.join(","))
}

#[test]
fn a_policy_that_reads_a_setting_follows_it() {
    let mut readers = Readers::new("tenants");
    readers.world.boss.run(
        "GRANT SELECT ON app.n TO @ann, @bob; ALTER TABLE app.n ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON app.n USING (tenant = current_setting('app.tenant', true))",
    );
    readers.warm(QUERIES);
    let seen = follow(
        &mut readers.ann,
        QUERIES,
        &[
            "SET app.tenant = 'a'",
            "SET app.tenant = 'b'",
            "SET app.tenant = ''",
            "RESET app.tenant",
            "SET app.tenant = 'c'",
        ],
    );
    assert_eq!(answers(&seen), [ids(&[1, 3]), ids(&[2]), ids(&[]), ids(&[]), ids(&[4])]);
    // What is set for a transaction or a part of it ends with that.
    let within = |session: &mut Session, sql: &str| {
        session.run(sql);
        session.agrees_within(sql, QUERIES[0]).rows().join("")
    };
    let ann = &mut readers.ann;
    assert_eq!(within(ann, "BEGIN; SET LOCAL app.tenant = 'a'"), ids(&[1, 3]));
    assert_eq!(within(ann, "SAVEPOINT s; SET LOCAL app.tenant = 'b'"), ids(&[2]));
    assert_eq!(within(ann, "SAVEPOINT t; SET app.tenant = 'x'"), ids(&[]));
    assert_eq!(within(ann, "RELEASE t"), ids(&[]));
    assert_eq!(within(ann, "ROLLBACK TO s"), ids(&[1, 3]));
    ann.run("COMMIT");
    assert_eq!(ann.agrees("after COMMIT", QUERIES[0]).rows().join(""), ids(&[4]));
    ann.run("BEGIN; SET app.tenant = 'b'");
    ann.agrees_within("before ROLLBACK", QUERIES[0]);
    ann.run("ROLLBACK");
    assert_eq!(ann.agrees("after ROLLBACK", QUERIES[0]).rows().join(""), ids(&[4]));
}

/// A setting that is not there and one that is empty are two things.
#[test]
fn unset_and_empty_differ() {
    let mut world = World::new(server(), "unset");
    let query = "SELECT current_setting('app.unset', true) IS NULL AS is_unset";
    assert_eq!(world.boss.warm(query).rows().join(""), "[{\"is_unset\":true}]");
    world.boss.run("SET app.unset = ''");
    assert_eq!(world.boss.agrees("empty", query).rows().join(""), "[{\"is_unset\":false}]");
    let mut other = world.another();
    assert_eq!(other.agrees("elsewhere", query).rows().join(""), "[{\"is_unset\":true}]");
    let missing = "SELECT current_setting('app.missing')";
    assert!(world.boss.agrees("missing", missing).is_error());
    world.boss.run("SET app.missing = 'here'");
    assert!(!world.boss.agrees("no longer missing", missing).is_error());
}

#[test]
fn claims_of_a_token_decide() {
    let mut readers = Readers::new("claims");
    readers.world.boss.run(
        "UPDATE app.n SET owner = CASE WHEN id < 3 THEN 'u1' ELSE 'u2' END;
         GRANT SELECT ON app.n TO @ann, @bob; ALTER TABLE app.n ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON app.n USING (owner = (current_setting('request.jwt.claims', true)::json ->> 'sub'))",
    );
    let seen = follow(
        &mut readers.ann,
        &QUERIES[..6],
        &[
            r#"SET request.jwt.claims = '{"sub": "u1"}'"#,
            r#"SET request.jwt.claims = '{"sub": "u2"}'"#,
            r#"SET request.jwt.claims = '{}'"#,
            r#"SET request.jwt.claims = 'none'"#,
            r#"SET request.jwt.claims = '{"sub": "u1", "other": 1}'"#,
        ],
    );
    assert_eq!(answers(&seen), [ids(&[1, 2]), ids(&[3, 4]), ids(&[]), "22P02".into(), ids(&[1, 2])]);
    // A role's own claims, and those of a pool's session that serves one after the other.
    readers.bob.run(r#"SET request.jwt.claims = '{"sub": "u2"}'"#);
    let (mut shared, query) = (readers.world.login("bob"), QUERIES[0]);
    readers.bob.warm(query);
    shared.run(r#"SET request.jwt.claims = '{"sub": "u2"}'"#);
    assert_eq!(shared.state(query), "shared", "the same claims share a result");
    assert_eq!(shared.agrees("the same claims", query).rows().join(""), ids(&[3, 4]));
}

#[test]
fn a_table_of_members_decides_at_once() {
    let mut readers = Readers::new("members");
    readers.world.boss.run(
        "CREATE TABLE app.m (who name, tenant text); GRANT SELECT ON app.m TO @ann, @bob;
         GRANT SELECT ON app.n TO @ann, @bob; ALTER TABLE app.n ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON app.n USING (tenant IN (SELECT tenant FROM app.m WHERE who = current_user))",
    );
    readers.obey(
        &[
            "INSERT INTO app.m VALUES ('@ann', 'a'), ('@bob', 'b')",
            "UPDATE app.m SET tenant = 'b'",
            "DELETE FROM app.m WHERE who = '@ann'",
            "REVOKE SELECT ON app.m FROM @bob",
            "GRANT SELECT ON app.m TO @bob",
            "TRUNCATE app.m",
        ],
        super::QUERIES,
        super::Reader::InTransaction,
    );
}

#[test]
fn row_security_off_is_an_error_where_it_would_hide_rows() {
    let mut readers = Readers::new("rls_off");
    readers.world.boss.run(
        "GRANT SELECT ON app.n TO @ann, @bob; ALTER TABLE app.n ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON app.n USING (id = 1); ALTER ROLE @bob BYPASSRLS",
    );
    readers.warm(&QUERIES[..3]);
    let statements = ["SET row_security = off", "SET row_security = on"];
    let seen = follow(&mut readers.ann, &QUERIES[..6], &statements);
    assert_eq!(answers(&seen), ["42501".into(), ids(&[1])]);
    let seen = follow(&mut readers.bob, &QUERIES[..6], &statements);
    assert_eq!(answers(&seen), [ids(&[1, 2, 3, 4]), ids(&[1, 2, 3, 4])]);
}

/// A session that changes its role sees what the role may see, with row security or without, and a change that failed or
/// was rolled back is none. These are the ways in which others have served rows of another role.
fn roles_change(readers: &mut Readers<'_>) -> Vec<Outcome> {
    let mut session = readers.world.another();
    session.warm(QUERIES[0]);
    readers.world.boss.run("GRANT @ann TO @bob");
    follow(
        &mut session,
        super::QUERIES,
        &[
            "SET ROLE @ann",
            "SET ROLE @bob",
            "SET ROLE @nobody",
            "RESET ROLE",
            "SET SESSION AUTHORIZATION @ann",
            "SET ROLE @bob",
            "SET SESSION AUTHORIZATION @bob",
            "SET ROLE @ann",
            "SET ROLE NONE",
            "RESET SESSION AUTHORIZATION",
            "BEGIN; SET ROLE @ann; ROLLBACK",
            "BEGIN; SET LOCAL ROLE @ann; COMMIT",
            "BEGIN; SAVEPOINT s; SET ROLE @ann; ROLLBACK TO s; COMMIT",
            "BEGIN; SAVEPOINT s; SET ROLE @bob; RELEASE s; COMMIT",
            "SELECT set_config('role', '@ann', false)",
            "DISCARD ALL",
        ],
    )
}

#[test]
fn a_role_that_is_taken_on_sees_its_own_rows() {
    let mut readers = Readers::new("set_role");
    readers.world.boss.run(
        "GRANT SELECT ON app.n TO @ann, @bob; ALTER TABLE app.n ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON app.n USING (owner = current_user)",
    );
    readers.warm(super::QUERIES);
    let seen = answers(&roles_change(&mut readers));
    let (all, ann, bob) = (seen[3].clone(), seen[0].clone(), seen[1].clone());
    assert!(all != ann && ann != bob && bob != all);
    let expected = [&ann, &bob, &bob, &all, &ann, &ann, &bob, &ann, &bob, &all, &all, &all, &all, &bob, &ann, &all];
    assert_eq!(seen.iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_role_that_is_taken_on_has_its_own_rights() {
    let mut readers = Readers::new("set_role_plain");
    readers.world.boss.run("GRANT SELECT ON app.n TO @bob");
    readers.warm(super::QUERIES);
    let seen = answers(&roles_change(&mut readers));
    let refused: Vec<bool> = seen.iter().map(|answer| answer == "42501").collect();
    let at = |refused: &[bool]| refused.iter().enumerate().filter(|(_, no)| **no).map(|(at, _)| at).collect::<Vec<_>>();
    assert_eq!(at(&refused), [0, 4, 5, 7, 14]);
}

/// Within a transaction, with savepoints that are rolled back.
#[test]
fn a_role_ends_with_its_subtransaction() {
    let mut readers = Readers::new("sub_role");
    readers.world.boss.run(
        "GRANT SELECT ON app.n TO @ann, @bob; ALTER TABLE app.n ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON app.n USING (owner = current_user)",
    );
    readers.warm(super::QUERIES);
    let mut session = readers.world.another();
    let mut seen = Vec::new();
    for sql in [
        "BEGIN",
        "SET LOCAL ROLE @ann",
        "SAVEPOINT s; SET LOCAL ROLE @bob",
        "ROLLBACK TO s",
        "RESET ROLE",
        "SAVEPOINT t; SET LOCAL SESSION AUTHORIZATION @bob",
        "RELEASE t",
    ] {
        session.run(sql);
        for query in super::QUERIES {
            session.agrees_within(sql, query);
        }
        seen.push(session.agrees_within(sql, QUERIES[0]).rows().join(""));
    }
    let (all, ann, bob) = (ids(&[1, 2, 3, 4]), ids(&[1]), ids(&[2, 3]));
    assert_eq!(seen, [&all, &ann, &bob, &ann, &all, &bob, &bob].map(String::as_str));
    session.run("COMMIT");
    assert_eq!(session.agrees("after COMMIT", QUERIES[0]).rows().join(""), all);
}

#[test]
fn settings_that_change_texts_change_results() {
    let mut world = World::new(server(), "texts");
    world.boss.run(
        "CREATE TABLE v (d date, t timestamptz, i interval, f float8, b bytea, a text[], m money);
         INSERT INTO v VALUES ('2020-01-02', '2020-01-02 10:00+02', '1 mon 2 days 3:04', 1 / 3::float8, '\\xdeadbeef',
             '{a,NULL}', 12.5);
         CREATE FUNCTION as_text() RETURNS SETOF text STABLE LANGUAGE sql AS 'SELECT v::text FROM public.v'",
    );
    if world.boss.has_xml() {
        world.boss.run("ALTER TABLE v ADD COLUMN x xml DEFAULT '<a/>'");
    }
    let queries = [
        "SELECT d::text, t::text AS t, i::text AS i, f::text AS f, b::text AS b, a::text AS a FROM v",
        "SELECT * FROM v",
        "SELECT to_json(v) AS j FROM v",
        "SELECT as_text()",
        "SELECT to_char(t, 'TMMonth HH24 TZ') AS c, date_trunc('day', t) AS d FROM v",
        "SELECT extract(hour FROM t) AS h FROM v",
    ];
    queries.iter().for_each(|query| drop(world.boss.warm(query)));
    for setting in [
        "DateStyle = 'German'",
        "DateStyle = 'SQL, DMY'",
        "TimeZone = 'Asia/Tokyo'",
        "TimeZone = 'America/New_York'",
        "IntervalStyle = 'iso_8601'",
        "extra_float_digits = -5",
        "bytea_output = 'escape'",
    ] {
        let before: Vec<Outcome> = queries.iter().map(|query| world.boss.warm(query)).collect();
        world.boss.run(&format!("SET {setting}"));
        let after: Vec<Outcome> = queries.iter().map(|query| world.boss.agrees(setting, query)).collect();
        assert_ne!(before, after, "{setting} changes something");
        world.boss.run(&format!("BEGIN; SET LOCAL {}; ROLLBACK", "TimeZone = 'Asia/Kabul'"));
        queries.iter().for_each(|query| drop(world.boss.agrees("rolled back", query)));
    }
    world.boss.run("RESET ALL");
    queries.iter().for_each(|query| drop(world.boss.agrees("RESET ALL", query)));
}

#[test]
fn a_restricted_kind_of_relation_is_an_error() {
    let mut world = World::new(server(), "restricted");
    world.boss.run("CREATE TABLE n (id int); INSERT INTO n VALUES (1); CREATE VIEW v AS SELECT id FROM n");
    world.boss.warm("SELECT id FROM v");
    // Not in the first minor releases of a major.
    if world.boss.outcome("SET restrict_nonsystem_relation_kind = 'view'").is_error() {
        return;
    }
    assert!(world.boss.agrees("views are restricted", "SELECT id FROM v").is_error());
}
