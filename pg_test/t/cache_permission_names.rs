//! What a name means: schemas in the search path, tables that move, change names, or hide one another.

use super::common::{Outcome, Session, World};
use super::server;

const QUERIES: &[&str] =
    &["SELECT * FROM n ORDER BY 1", "SELECT count(*) FROM n", "SELECT n.id FROM n ORDER BY 1", "SELECT of_n()"];

fn world(name: &str) -> (World<'static>, Session) {
    let mut world = World::new(server(), name);
    let ann = world.role("ann");
    world.boss.run(
        "CREATE SCHEMA early; CREATE SCHEMA late; GRANT USAGE, CREATE ON SCHEMA early, late TO PUBLIC;
         CREATE TABLE late.n (id int, who text); INSERT INTO late.n VALUES (1, 'late');
         GRANT SELECT ON late.n TO PUBLIC;
         CREATE FUNCTION of_n() RETURNS bigint STABLE LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT sum(id) FROM n); END'",
    );
    (world, ann)
}

fn warm(sessions: &mut [&mut Session]) -> Vec<Outcome> {
    let mut all = Vec::new();
    for session in sessions {
        all.extend(QUERIES.iter().map(|query| session.warm(query).essence()));
    }
    all
}

fn ask(sessions: &mut [&mut Session], what: &str) -> Vec<Outcome> {
    let mut all = Vec::new();
    for session in sessions {
        all.extend(QUERIES.iter().map(|query| session.agrees(what, query)));
    }
    all
}

/// Each statement changes what the name means.
fn obey(sessions: &mut [&mut Session], changer: &mut Session, changes: &[&str]) {
    for sql in changes {
        let before = warm(sessions);
        changer.run(sql);
        assert_ne!(before, ask(sessions, sql), "nothing changed by {sql}");
    }
}

#[test]
fn a_table_that_moves_or_changes_its_name_is_another() {
    let (mut world, mut ann) = world("moves");
    let mut other = world.another();
    for session in [&mut ann, &mut other] {
        session.run("SET search_path = early, late, public");
    }
    obey(
        &mut [&mut ann, &mut other],
        &mut world.boss,
        &[
            "CREATE TABLE early.n (id int, who text); INSERT INTO early.n VALUES (2, 'early'); \
             GRANT SELECT ON early.n TO PUBLIC",
            "BEGIN; ALTER TABLE early.n RENAME TO other; ALTER TABLE late.n RENAME TO temporarily; \
             ALTER TABLE early.other SET SCHEMA late; ALTER TABLE late.other RENAME TO n; \
             ALTER TABLE late.temporarily SET SCHEMA early; ALTER TABLE early.temporarily RENAME TO n; COMMIT",
            "ALTER TABLE early.n SET SCHEMA public",
            "ALTER TABLE late.n RENAME TO elsewhere",
            "ALTER TABLE public.n RENAME COLUMN who TO whom",
            "ALTER TABLE public.n DROP COLUMN whom",
            "ALTER SCHEMA early RENAME TO earlier; CREATE SCHEMA early; GRANT USAGE ON SCHEMA early TO PUBLIC; \
             CREATE TABLE early.n AS SELECT 7 AS id; GRANT SELECT ON early.n TO PUBLIC",
            "CREATE VIEW late.n AS SELECT 8 AS id, 'view' AS who; DROP TABLE early.n",
            "GRANT SELECT ON late.n TO PUBLIC",
            "CREATE OR REPLACE VIEW late.n AS SELECT 9 AS id, 'other view' AS who",
            "REVOKE USAGE ON SCHEMA late FROM PUBLIC",
        ],
    );
}

#[test]
fn the_search_path_decides() {
    let (mut world, mut ann) = world("paths");
    world.boss.run(
        "CREATE TABLE early.n (id int, who text); INSERT INTO early.n VALUES (2, 'early');
         GRANT SELECT ON early.n TO PUBLIC; CREATE SCHEMA @ann AUTHORIZATION @ann;
         CREATE TABLE @ann.n (id int, who text); INSERT INTO @ann.n VALUES (3, 'own'); ALTER TABLE @ann.n OWNER TO @ann",
    );
    let mut seen = Vec::new();
    for path in [
        "late, public",
        "early, late, public",
        "late, early, public",
        "\"$user\", late, public",
        "nowhere, late, public",
        "public",
    ] {
        // Another session, and the superuser, for whom "$user" is another schema, have warmed the same text before.
        world.boss.run(&format!("SET search_path = {path}"));
        ann.run(&format!("SET search_path = {path}"));
        if path != "public" {
            warm(&mut [&mut world.boss]);
        }
        seen.push(ask(&mut [&mut ann], path).remove(1));
        ask(&mut [&mut world.boss], path);
    }
    assert!(seen[5].is_error());
    let mut within = Vec::new();
    ann.run("SET search_path = late, public; BEGIN");
    for sql in
        ["SET LOCAL search_path = early, public", "SAVEPOINT s; SET LOCAL search_path = late, public", "ROLLBACK TO s"]
    {
        ann.run(sql);
        within.push(ann.agrees_within(sql, QUERIES[0]));
    }
    ann.run("COMMIT");
    assert_eq!(within[0], within[2]);
    assert_ne!(within[0], within[1]);
    assert_eq!(ann.agrees("after COMMIT", QUERIES[0]), within[1]);
}

#[test]
fn a_temporary_table_hides_a_permanent_one_for_its_session_only() {
    let (mut world, mut ann) = world("temporary");
    let mut bob = world.role("bob");
    for session in [&mut world.boss, &mut ann, &mut bob] {
        session.run("SET search_path = late, public");
    }
    // Twice: the second session finds the schema for temporary tables already there.
    for round in 0..2 {
        warm(&mut [&mut world.boss, &mut ann, &mut bob]);
        ann.run("CREATE TEMPORARY TABLE n AS SELECT 9 AS id, 'temporary' AS who");
        let hidden = ask(&mut [&mut ann], "a temporary table");
        assert_ne!(hidden[..3], ask(&mut [&mut bob], "elsewhere")[..3], "round {round}");
        assert_eq!(ann.reason(QUERIES[0]), "temporary_table");
        assert_eq!(bob.reason(QUERIES[0]), "");
        ann.run("INSERT INTO n VALUES (10, 'more')");
        ask(&mut [&mut ann, &mut bob], "rows in it");
        ann.run("DROP TABLE pg_temp.n");
        ask(&mut [&mut ann, &mut bob], "it is gone");
        ann.run("BEGIN; CREATE TEMPORARY TABLE n (id int) ON COMMIT DROP");
        ann.agrees_within("until the commit", QUERIES[0]);
        ann.run("COMMIT");
        ask(&mut [&mut ann, &mut bob], "dropped by the commit");
        ann = world.login("ann");
        ann.run("SET search_path = late, public");
    }
    world.boss.run("CREATE TEMPORARY VIEW n AS SELECT 11 AS id, 'view' AS who");
    ask(&mut [&mut world.boss, &mut ann, &mut bob], "a temporary view");
    world.boss.run("DISCARD TEMP");
    ask(&mut [&mut world.boss, &mut ann, &mut bob], "discarded");
}

/// A function, an operator or a type of an earlier schema hides another as well.
#[test]
fn a_function_of_an_earlier_schema_hides_another() {
    let (mut world, mut ann) = world("hidden_function");
    world.boss.run(
        "CREATE FUNCTION late.f(int) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'late' $$;
         CREATE FUNCTION late.of_f() RETURNS text STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN f(1); END $$",
    );
    ann.run("SET search_path = early, late, public");
    for query in ["SELECT f(1) AS f", "SELECT of_f()"] {
        ann.warm(query);
    }
    world.boss.run("CREATE FUNCTION early.f(int) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'early' $$");
    assert!(ann.agrees("an earlier function", "SELECT f(1) AS f").rows().join("").contains("early"));
    // Whether a plan of PL/pgSQL's that is in use notices is Postgres's own affair.
    ann.agrees("an earlier function", "SELECT of_f()");
    world.boss.run("DROP FUNCTION early.f(int)");
    for query in ["SELECT f(1) AS f", "SELECT of_f()"] {
        assert!(ann.agrees("it is gone", query).rows().join("").contains("late"));
    }
}
