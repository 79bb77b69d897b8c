//! What a query's text does not show: results that a plan keeps, default arguments, what types are made of.

use super::common::{Session, World};
use super::server;

/// Calls after which Postgres would settle for one plan (choose_custom_plan in plancache.c has five).
const SETTLED: usize = 8;

/// The query's very next answer is its own, in this session and in another.
fn follows(world: &mut World<'_>, other: &mut Session, what: &str, query: &str) {
    world.boss.agrees(what, query);
    other.agrees(what, query);
}

/// Warms the query in two sessions, changes something, and compares. The answer must change, or nothing was tried.
fn changes(world: &mut World<'_>, query: &str, change: &str) {
    let mut other = world.another();
    for session in [&mut world.boss, &mut other] {
        for _ in 0..3 {
            session.agrees("before", query);
        }
    }
    let before = world.boss.direct(query);
    world.boss.run(change);
    assert_ne!(world.boss.direct(query).essence(), before.essence(), "{query} after {change}");
    let mut fresh = world.another();
    fresh.agrees(change, query);
    follows(world, &mut other, change, query);
}

#[test]
fn a_plan_keeps_no_result_of_a_function_that_calls_itself_immutable() {
    let mut world = World::new(server(), "plans");
    world.boss.run(
        "CREATE TABLE ten (tenant text, v text); INSERT INTO ten SELECT 't' || n, 'of ' || n FROM generate_series(1, 20) AS n;
         CREATE FUNCTION tenant() RETURNS text LANGUAGE plpgsql IMMUTABLE AS
             $$ BEGIN RETURN current_setting('app.tenant', true); END $$;
         CREATE FUNCTION most() RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS
             $$ BEGIN RETURN (SELECT count(*) FROM ten); END $$;
         CREATE FUNCTION most_sql() RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT count(*) FROM ten';
         GRANT SELECT ON ten TO PUBLIC; ALTER TABLE ten ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON ten USING (tenant = tenant())",
    );
    let mut app = world.role("app");
    for setting in [
        "pg_steward.cache_trust_immutable = on",
        "pg_steward.cache_trust_immutable = off",
        "pg_steward.cache_enabled = off",
    ] {
        world.boss.run(&format!("SET {setting}"));
        let mut other = world.login("app");
        for tenant in 1..=SETTLED {
            for session in [&mut app, &mut other] {
                session.run(&format!("SET app.tenant = 't{tenant}'"));
                let seen = session.agrees(setting, "SELECT v FROM ten");
                assert_eq!(seen.rows().join(""), format!("[{{\"v\":\"of {tenant}\"}}]"), "{setting}");
            }
            world.boss.run(&format!("INSERT INTO ten VALUES ('more', '{tenant}')"));
            for query in ["SELECT most()", "SELECT most_sql()", "SELECT v FROM ten WHERE tenant = 't' || most()::text"]
            {
                world.boss.agrees(setting, query);
            }
        }
    }
}

#[test]
fn default_arguments_are_part_of_a_query() {
    let mut world = World::new(server(), "defaults");
    world.boss.run(
        "CREATE FUNCTION vis(owner name, u name DEFAULT current_user) RETURNS boolean LANGUAGE sql IMMUTABLE AS
             'SELECT $1 = $2';
         CREATE FUNCTION day(x int, t timestamp DEFAULT localtimestamp) RETURNS timestamp LANGUAGE sql IMMUTABLE AS
             'SELECT $2';
         CREATE FUNCTION inner_day(x int, t timestamptz DEFAULT now()) RETURNS text LANGUAGE sql STABLE AS 'SELECT $2::text';
         CREATE FUNCTION outer_day(x int) RETURNS text LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN inner_day(x); END $$;
         CREATE FUNCTION tenant(t text DEFAULT current_setting('app.tenant', true)) RETURNS text LANGUAGE sql IMMUTABLE AS
             'SELECT $1';
         CREATE FUNCTION plain(a int, b int DEFAULT 2) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + $2';
         CREATE TABLE sec (owner name, v int); GRANT SELECT ON sec TO PUBLIC; ALTER TABLE sec ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON sec USING (vis(owner))",
    );
    let (mut ann, mut bob) = (world.role("ann"), world.role("bob"));
    world.boss.run("INSERT INTO sec VALUES ('@ann', 1), ('@bob', 2)");
    for _ in 0..3 {
        assert_eq!(ann.agrees("ann", "SELECT v FROM sec").rows().join(""), "[{\"v\":1}]");
        assert_eq!(bob.agrees("bob", "SELECT v FROM sec").rows().join(""), "[{\"v\":2}]");
    }
    for query in ["SELECT day(1)", "SELECT inner_day(1)", "SELECT outer_day(1)"] {
        world.boss.cached(query);
        assert_ne!(world.boss.reason(query), "", "{query}");
    }
    for tenant in ["a", "b"] {
        world.boss.run(&format!("SET app.tenant = '{tenant}'"));
        let seen = world.boss.agrees("a setting", "SELECT tenant() AS t").rows().join("");
        assert_eq!(seen, format!("[{{\"t\":\"{tenant}\"}}]"));
    }
    world.boss.warm("SELECT plain(1)");
}

#[test]
fn where_new_objects_go_is_part_of_a_search_path() {
    let mut world = World::new(server(), "places");
    world.boss.run("CREATE TABLE cs (tenant text, v int); INSERT INTO cs VALUES ('public', 1), ('pg_catalog', 2)");
    let query = "SELECT v FROM public.cs WHERE tenant = current_schema";
    for path in ["public", "pg_catalog, public", "public, pg_catalog", "public"] {
        world.boss.run(&format!("SET search_path = {path}"));
        world.boss.agrees(path, query);
    }
}

#[test]
fn names_of_objects_within_values_follow_a_new_name() {
    let mut world = World::new(server(), "named");
    world.boss.run(
        "CREATE TABLE target (i int); CREATE TABLE rc (c regclass); INSERT INTO rc VALUES ('target');
         CREATE DOMAIN dreg AS regclass; CREATE TABLE rcd (c dreg); INSERT INTO rcd VALUES ('target');
         CREATE TYPE cty AS (c regclass); CREATE TABLE rct (c cty); INSERT INTO rct VALUES (row('target'));
         CREATE ROLE @ren; CREATE TABLE acl (a aclitem); INSERT INTO acl VALUES ('@ren=r/postgres')",
    );
    let queries = ["c FROM rcd", "c FROM rct", "rc FROM rc", "rc::text FROM rc", "json_agg(rc) FROM rc"];
    let mut name = "target".to_owned();
    for (place, query) in queries.iter().enumerate() {
        let next = format!("target{place}");
        changes(&mut world, &format!("SELECT {query}"), &format!("ALTER TABLE {name} RENAME TO {next}"));
        name = next;
    }
    changes(&mut world, "SELECT a FROM acl", "ALTER ROLE @ren RENAME TO @ren2");
}

#[test]
fn domains_and_rows_follow_their_definitions_at_any_depth() {
    let mut world = World::new(server(), "nested");
    world.boss.run(
        "CREATE DOMAIN d1 AS int; CREATE DOMAIN d2 AS d1; CREATE TABLE tn (x int); INSERT INTO tn VALUES (1);
         CREATE DOMAIN dz AS int; CREATE FUNCTION fdz(x int) RETURNS dz LANGUAGE sql STABLE AS 'SELECT x';
         CREATE DOMAIN db AS int; CREATE FUNCTION fdb(x int) RETURNS int STABLE BEGIN ATOMIC SELECT x::db; END;
         CREATE TYPE ct AS (a int); CREATE DOMAIN dct AS ct[]; CREATE TABLE tdct (c dct);
         INSERT INTO tdct VALUES (array[row(1)::ct])",
    );
    changes(&mut world, "SELECT (x::d2) + 0 AS v FROM tn", "ALTER DOMAIN d1 ADD CHECK (value > 10)");
    changes(&mut world, "SELECT fdz(x) + 0 AS v FROM tn", "ALTER DOMAIN dz ADD CHECK (value > 10)");
    changes(&mut world, "SELECT fdb(x) AS v FROM tn", "ALTER DOMAIN db ADD CHECK (value > 10)");
    changes(&mut world, "SELECT c FROM tdct", "ALTER TYPE ct RENAME ATTRIBUTE a TO b");
}

/// A type that is made of thousands is looked through without a deep stack.
#[test]
fn types_within_types() {
    let mut world = World::new(server(), "deep");
    world.boss.run(
        "DO $$ BEGIN FOR i IN 0..2000 LOOP EXECUTE format('CREATE TYPE tc%s AS (a int)', i); END LOOP;
         FOR i IN REVERSE 2000..1 LOOP EXECUTE format('ALTER TYPE tc%s ADD ATTRIBUTE x tc%s', i, i - 1); END LOOP; END $$",
    );
    world.boss.agrees("deep", "SELECT NULL::tc2000 AS x");
}

/// Text becomes a date in many places, and the text may be 'now'.
#[test]
fn text_that_becomes_a_date_within_a_function() {
    let mut world = World::new(server(), "dates");
    world.boss.run(
        "CREATE TABLE trec (d timestamptz, n int); CREATE TYPE crec AS (d timestamptz, n int);
         CREATE TYPE own_range AS RANGE (subtype = timestamptz);
         CREATE FUNCTION f_table(x text) RETURNS TABLE (d timestamptz, n int) LANGUAGE plpgsql STABLE AS
             $$ BEGIN d := x; n := 1; RETURN NEXT; END $$;
         CREATE FUNCTION f_out(x text, OUT d timestamptz, OUT n int) LANGUAGE plpgsql STABLE AS
             $$ BEGIN d := x; n := 1; END $$;
         CREATE FUNCTION f_row(x text) RETURNS text LANGUAGE plpgsql STABLE AS
             $$ DECLARE r trec; BEGIN r.d := x; RETURN r.d::text; END $$;
         CREATE FUNCTION f_composite(x text) RETURNS text LANGUAGE plpgsql STABLE AS
             $$ DECLARE r public.crec; BEGIN r.d := x; RETURN r.d::text; END $$;
         CREATE FUNCTION f_cast(x text) RETURNS text LANGUAGE sql STABLE AS $$ SELECT ((('(' || x || ',1)')::trec).d)::text $$;
         CREATE FUNCTION f_call(x text) RETURNS text LANGUAGE sql STABLE AS
             $$ SELECT (CAST(('(' || x || ',1)') AS public.\"trec\")).d::text $$;
         CREATE FUNCTION f_array(x text) RETURNS timestamptz[] LANGUAGE plpgsql STABLE AS
             $$ BEGIN RETURN '{' || x || '}'; END $$;
         CREATE FUNCTION f_range(x text) RETURNS tstzrange LANGUAGE plpgsql STABLE AS
             $$ BEGIN RETURN '[' || x || ',]'; END $$;
         CREATE FUNCTION f_own(x text) RETURNS text LANGUAGE sql STABLE AS $$ SELECT ('[' || $1 || ',]')::own_range::text $$;
         CREATE FUNCTION f_reads(x text) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM trec AS t WHERE n = 1'",
    );
    for function in ["f_table", "f_out", "f_row", "f_composite", "f_cast", "f_call", "f_array", "f_range", "f_own"] {
        let query = format!("SELECT t::text FROM {function}('now') AS t");
        world.boss.cached(&query);
        world.boss.cached(&query);
        assert_ne!(world.boss.reason(&query), "", "{function}");
    }
    if world.boss.has_xml() {
        let query = "SELECT x.d FROM (SELECT '<r><v>{now}</v></r>'::text AS doc) AS s,
            XMLTABLE('/r' PASSING (doc::xml) COLUMNS d timestamptz[] PATH 'v') AS x";
        world.boss.cached(query);
        assert_ne!(world.boss.reason(query), "", "XMLTABLE");
    }
    // A table of dates may be read.
    world.boss.warm("SELECT f_reads('now')");
}

/// ANALYZE within a pipeline runs in the transaction of what came before it.
#[test]
fn a_pipeline_that_ends_with_analyze() {
    let mut world = World::new(server(), "pipeline");
    world.boss.run(
        "CREATE TABLE sc (v text); INSERT INTO sc VALUES ('secret'); CREATE TABLE pq (a int); INSERT INTO pq VALUES (1);
         CREATE TABLE pa (a int); INSERT INTO pa VALUES (1);
         CREATE FUNCTION fsc() RETURNS text LANGUAGE sql STABLE AS 'SELECT max(v) FROM sc';
         CREATE FUNCTION fpl() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1 + (SELECT a FROM pa)'",
    );
    let mut reader = world.role("reader");
    world.boss.run("GRANT SELECT ON sc, pq, pa TO @reader");
    let queries = ["SELECT fsc()", "SELECT a FROM pq", "SELECT fpl()"];
    for query in queries {
        reader.warm(query);
    }
    let pipeline = format!(
        "\\startpipeline\nREVOKE SELECT ON sc FROM {}_reader;\nALTER TABLE pq ALTER COLUMN a TYPE int USING a * 10;\n\
         CREATE OR REPLACE FUNCTION fpl() RETURNS int LANGUAGE sql STABLE AS 'SELECT 100 + (SELECT a FROM pa)';\n\
         ANALYZE pa;\n\\endpipeline\n",
        world.name
    );
    let before: Vec<_> = queries.iter().map(|query| reader.direct(query).essence()).collect();
    world.cluster.pgbench(&world.name, &pipeline).expect("pgbench");
    for (query, before) in queries.iter().zip(before) {
        assert_ne!(reader.agrees("after the pipeline", query), before, "{query}");
    }
}

/// Functions of Postgres's own that ask about the role or the session are no reason to believe a declaration.
#[test]
fn a_function_that_asks_about_the_role_in_other_words() {
    let mut world = World::new(server(), "words");
    world.boss.run(
        "CREATE ROLE @admin; CREATE TABLE sec (v int); INSERT INTO sec VALUES (1); GRANT SELECT ON sec TO PUBLIC;
         CREATE FUNCTION is_admin() RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT pg_has_role('@admin', 'member') $$;
         CREATE FUNCTION me() RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN getpgusername(); END $$;
         ALTER TABLE sec ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON sec USING (is_admin())",
    );
    let (mut ann, mut bob) = (world.role("ann"), world.role("bob"));
    world.boss.run("GRANT @admin TO @ann");
    for _ in 0..3 {
        assert_eq!(ann.agrees("ann", "SELECT v FROM sec").rows().join(""), "[{\"v\":1}]");
        assert_eq!(bob.agrees("bob", "SELECT v FROM sec").rows().join(""), "[]");
        ann.agrees("ann", "SELECT me()");
        bob.agrees("bob", "SELECT me()");
    }
    world.boss.run("REVOKE @admin FROM @ann");
    assert_eq!(ann.agrees("revoked", "SELECT v FROM sec").rows().join(""), "[]");
}

/// The type of what is assigned to is not always written down.
#[test]
fn text_that_becomes_a_date_without_a_word_of_it() {
    let mut world = World::new(server(), "unsaid");
    world.boss.run(
        "CREATE TABLE trec (d timestamptz, n int); INSERT INTO trec VALUES ('2020-01-01', 1);
         CREATE FUNCTION f_rec(x text) RETURNS text LANGUAGE plpgsql STABLE AS
             $$ DECLARE r record; BEGIN SELECT * INTO r FROM trec LIMIT 1; r.d := x; RETURN r.d::text; END $$;
         CREATE FUNCTION f_poly(x text, e anyelement) RETURNS anyelement LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN x; END $$;
         CREATE FUNCTION f_polyv(x text, e anyelement) RETURNS text LANGUAGE plpgsql STABLE AS
             $$ BEGIN e := x; RETURN e; END $$",
    );
    for call in ["f_rec('now')", "f_poly('now', d)::text", "f_polyv('now', d)"] {
        let query = format!("SELECT {call} AS r FROM trec");
        world.boss.cached(&query);
        world.boss.cached(&query);
        assert_ne!(world.boss.reason(&query), "", "{call}");
    }
}
