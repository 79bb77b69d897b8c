//! What functions, types and clocks put into an answer: either it is known and followed, or the query is not cached and
//! `cache_explain` says why. Refused or not, each query is answered as it would be by itself.

use super::common::{Session, World};
use super::server;

fn world(name: &str) -> (World<'static>, Session) {
    let mut world = World::new(server(), name);
    let reader = world.another();
    world.boss.run(
        "CREATE TABLE n (id int, word text, day date, made timestamptz DEFAULT '2020-01-01');
         INSERT INTO n VALUES (1, 'one', '2020-01-01'), (2, 'two', '2020-01-02')",
    );
    (world, reader)
}

/// Each change, by another session or in the reader's own, is seen by a warm reader at once.
fn follows(reader: &mut Session, changer: &mut Session, queries: &[&str], changes: &[&str]) {
    for sql in changes {
        let before: Vec<_> = queries.iter().map(|query| reader.warm(query).essence()).collect();
        match sql.strip_prefix("own: ") {
            Some(own) => reader.run(own),
            None => changer.run(sql),
        }
        let after: Vec<_> = queries.iter().map(|query| reader.agrees(sql, query)).collect();
        assert_ne!(before, after, "nothing changed by {sql}");
    }
}

#[test]
fn what_a_function_reads_is_followed() {
    let (mut world, mut reader) = world("reads");
    world.boss.run(
        "CREATE FUNCTION s() RETURNS text STABLE LANGUAGE sql AS $$ SELECT max(word) FROM public.n $$;
         CREATE FUNCTION p() RETURNS text STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT max(word) FROM public.n); END $$;
         CREATE FUNCTION parsed() RETURNS text STABLE LANGUAGE sql BEGIN ATOMIC SELECT max(word) FROM public.n; END;
         CREATE FUNCTION through() RETURNS text STABLE LANGUAGE sql AS $$ SELECT public.s() || public.p() $$;
         CREATE VIEW v AS SELECT public.through() AS t;
         CREATE FUNCTION of_view() RETURNS text STABLE LANGUAGE sql AS $$ SELECT t FROM public.v $$;
         CREATE FUNCTION setting() RETURNS text STABLE LANGUAGE sql AS $$ SELECT current_setting('app.x', true) $$;
         CREATE FUNCTION setting_p() RETURNS text STABLE LANGUAGE plpgsql AS
             $$ BEGIN RETURN current_setting('app.x', true); END $$;
         CREATE FUNCTION wordy(n) RETURNS text STABLE LANGUAGE sql AS $$ SELECT $1.word || coalesce(public.setting(), '-') $$;
         CREATE OPERATOR ### (FUNCTION = textcat, LEFTARG = text, RIGHTARG = text)",
    );
    let tables =
        ["SELECT s()", "SELECT p()", "SELECT parsed()", "SELECT through()", "SELECT t FROM v", "SELECT of_view()"];
    follows(
        &mut reader,
        &mut world.boss,
        &tables,
        &["INSERT INTO n (word) VALUES ('zero')", "UPDATE n SET word = 'zzz' WHERE word = 'zero'", "TRUNCATE n"],
    );
    world.boss.run("INSERT INTO n (word) VALUES ('w')");
    let settings = ["SELECT setting()", "SELECT setting_p()", "SELECT wordy(n) FROM n", "SELECT n.wordy FROM n"];
    let changes = [
        "own: SET app.x = '1'",
        "own: SET app.x = '2'",
        "own: BEGIN; SET LOCAL app.x = '3'; ROLLBACK; SET app.x = ''",
        "own: SELECT set_config('app.x', '4', false)",
        "own: RESET ALL; SET app.x = 'five'",
    ];
    follows(&mut reader, &mut world.boss, &settings, &changes);
}

/// A function may read any setting, not only those of applications.
#[test]
fn settings_of_the_server_within_functions_are_followed() {
    let (mut world, mut reader) = world("server_settings");
    world.boss.run(
        "CREATE FUNCTION name() RETURNS text STABLE LANGUAGE sql AS $$ SELECT current_setting('application_name') $$;
         CREATE FUNCTION memory() RETURNS text STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN current_setting('work_mem'); END $$;
         CREATE FUNCTION path() RETURNS text STABLE LANGUAGE sql BEGIN ATOMIC SELECT current_setting('search_path'); END;
         CREATE FUNCTION named(name text) RETURNS text STABLE LANGUAGE plpgsql AS
             $$ BEGIN RETURN current_setting(name, true); END $$",
    );
    let queries = [
        "SELECT name()",
        "SELECT memory()",
        "SELECT path()",
        "SELECT named('application_name')",
        "SELECT named('app.y')",
        "SELECT current_setting('application_name') AS direct",
        "SELECT current_setting('search_path') AS direct",
    ];
    queries.iter().for_each(|query| drop(reader.agrees("before", query)));
    for sql in [
        "SET application_name = 'b'",
        "SET work_mem = '7MB'",
        "SET search_path = public, nowhere",
        "SET app.y = 'y'",
        "RESET ALL",
    ] {
        reader.run(sql);
        queries.iter().for_each(|query| drop(reader.agrees(sql, query)));
    }
}

#[test]
fn a_new_body_is_seen_at_once() {
    let (mut world, mut reader) = world("bodies");
    world.boss.run(
        "CREATE FUNCTION inner_one() RETURNS text STABLE LANGUAGE sql AS $$ SELECT 'a' FROM public.n LIMIT 1 $$;
         CREATE FUNCTION outer_one() RETURNS text STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN public.inner_one(); END $$;
         CREATE FUNCTION constant_one() RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'a'::text $$;
         CREATE FUNCTION step(text, text) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT $1 || $2 $$;
         CREATE AGGREGATE together(text) (SFUNC = step, STYPE = text, INITCOND = '');
         CREATE FUNCTION same(text, text) RETURNS bool IMMUTABLE LANGUAGE sql AS $$ SELECT $1 = $2 $$;
         CREATE OPERATOR ==== (FUNCTION = same, LEFTARG = text, RIGHTARG = text)",
    );
    let queries = [
        "SELECT inner_one()",
        "SELECT outer_one()",
        "SELECT constant_one()",
        "SELECT together(word) FROM (SELECT word FROM n ORDER BY id) AS o",
        "SELECT id FROM n WHERE word ==== 'one'",
    ];
    follows(
        &mut reader,
        &mut world.boss,
        &queries,
        &[
            "CREATE OR REPLACE FUNCTION inner_one() RETURNS text STABLE LANGUAGE sql AS $$ SELECT 'b' FROM public.n LIMIT 1 $$",
            "CREATE OR REPLACE FUNCTION constant_one() RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'b'::text $$",
            "CREATE OR REPLACE FUNCTION step(text, text) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT $2 || $1 $$",
            "CREATE OR REPLACE FUNCTION same(text, text) RETURNS bool IMMUTABLE LANGUAGE sql AS $$ SELECT true $$",
            "ALTER FUNCTION outer_one() RENAME TO other_one; CREATE FUNCTION outer_one() RETURNS int STABLE LANGUAGE sql AS 'SELECT 7'",
            "DROP FUNCTION inner_one()",
        ],
    );
}

#[test]
fn a_type_that_changes_is_seen_at_once() {
    let (mut world, mut reader) = world("types");
    world.boss.run(
        "CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TYPE pair AS (a int, b text);
         CREATE DOMAIN small AS int; CREATE TYPE nested AS (p pair, m mood);
         CREATE TABLE typed (m mood, ms mood[], p pair, ps pair[], x nested);
         INSERT INTO typed VALUES ('sad', '{sad,glad}', (1, 'x'), ARRAY[(2, 'y')::pair], ROW((3, 'z')::pair, 'glad'))",
    );
    let queries = [
        "SELECT m, ms FROM typed",
        "SELECT m::text AS m FROM typed",
        "SELECT max(m) AS m FROM typed",
        "SELECT p FROM typed",
        "SELECT ps FROM typed",
        "SELECT x FROM typed",
        "SELECT (p).a FROM typed",
        "SELECT to_json(p) AS j FROM typed",
        "SELECT typed FROM typed",
        "SELECT id::small AS s FROM n",
    ];
    follows(
        &mut reader,
        &mut world.boss,
        &queries,
        &[
            "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'",
            "ALTER TYPE mood RENAME VALUE 'glad' TO 'happy'",
            "ALTER TYPE pair RENAME ATTRIBUTE b TO c",
            "ALTER TYPE pair ADD ATTRIBUTE d int",
            "ALTER TYPE pair DROP ATTRIBUTE d",
            "ALTER TYPE nested RENAME ATTRIBUTE m TO mood",
            "ALTER TABLE typed RENAME COLUMN ms TO moods; ALTER TABLE typed RENAME COLUMN moods TO ms; ALTER TABLE typed ADD more int",
            "ALTER DOMAIN small ADD CONSTRAINT large CHECK (VALUE > 1) NOT VALID",
            "ALTER DOMAIN small DROP CONSTRAINT large",
        ],
    );
}

/// Functions that say IMMUTABLE and are not: believed by default, as Postgres itself does; read like others when not.
#[test]
fn liars_are_read_when_they_are_not_trusted() {
    let (mut world, mut reader) = world("liars");
    world.boss.run(
        "CREATE FUNCTION table_liar() RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT max(word) FROM public.n $$;
         CREATE FUNCTION plpgsql_liar() RETURNS text IMMUTABLE LANGUAGE plpgsql AS
             $$ BEGIN RETURN (SELECT max(word) FROM public.n); END $$;
         CREATE FUNCTION setting_liar() RETURNS text IMMUTABLE LANGUAGE plpgsql AS
             $$ BEGIN RETURN current_setting('app.x', true); END $$;
         CREATE FUNCTION role_liar() RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN current_user; END $$;
         CREATE FUNCTION time_liar() RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN clock_timestamp(); END $$;
         CREATE FUNCTION c_liar(text) RETURNS text IMMUTABLE STRICT LANGUAGE internal AS 'current_schema'",
    );
    let queries = ["SELECT table_liar()", "SELECT plpgsql_liar()", "SELECT setting_liar()", "SELECT role_liar()"];
    let mut trusting = world.another();
    queries.iter().for_each(|query| drop(trusting.cached(query)));
    for session in [&mut reader, &mut trusting] {
        session.run("SET pg_steward.cache_trust_immutable = off");
    }
    follows(
        &mut reader,
        &mut world.boss,
        &queries,
        &[
            "INSERT INTO n (word) VALUES ('zero')",
            "own: SET app.x = 'x'",
            "own: SET app.x = 'y'",
            "own: CREATE ROLE @liar; SET ROLE @liar",
        ],
    );
    assert_eq!(reader.reason("SELECT time_liar()"), "time_function");
    assert_eq!(reader.reason("SELECT c_liar('a')"), "unprovable_function");
    // What was analysed while they were believed holds no longer.
    for query in queries {
        trusting.agrees("no longer trusted", query);
    }
    world.boss.run("INSERT INTO n (word) VALUES ('zzzz')");
    for query in queries {
        trusting.agrees("no longer trusted, and a new row", query);
    }
}

/// Queries that are not cached: answered all the same, and the reason has a name.
const REFUSED: &[(&str, &str)] = &[
    ("SELECT random() < 2 AS r", "volatile_function"),
    ("SELECT volatile_one()", "volatile_function"),
    ("SELECT calls_volatile()", "volatile_function"),
    ("SELECT pg_sleep(0) IS NULL AS s", "volatile_function"),
    ("SELECT dynamic_one()", "unprovable_function"),
    ("SELECT pg_backend_pid()", "unprovable_function"),
    ("SELECT now() - now() AS d", "time_function"),
    ("SELECT current_date - current_date AS d", "time_function"),
    ("SELECT clock_timestamp() > '2020-01-01' AS later", "time_function"),
    ("SELECT count(*) FROM n WHERE made < localtimestamp", "time_function"),
    ("SELECT age(timestamp '2020-01-01') > interval '1 day' AS old", "time_function"),
    ("SELECT says_today() > '2020-01-01' AS later", "time_function"),
    ("SELECT 'today'::date - 'yesterday'::date AS one", "time_literal"),
    ("SELECT timestamptz 'now' > '2020-01-01' AS later", "time_literal"),
    ("SELECT timetz '10:00'", "time_literal"),
    ("SELECT word::date FROM n WHERE false", "text_to_datetime"),
    ("SELECT CAST('2020-01-0' || id AS timestamp) AS t FROM n", "text_to_datetime"),
    ("SELECT current_setting(word, true) FROM n", "dynamic_setting"),
    ("SELECT 'n'::regclass", "catalog_dependent"),
    ("SELECT has_table_privilege('n', 'SELECT')", "catalog_dependent"),
    ("SELECT pg_relation_size('n') >= 0 AS s", "catalog_dependent"),
    ("SELECT count(*) > 0 AS c FROM pg_class", "system_catalog"),
    ("SELECT count(*) > 0 AS c FROM pg_stat_activity", "system_catalog"),
    ("SELECT count(*) > 0 AS c FROM of_catalog", "system_catalog"),
    ("SELECT count(*) FROM only_here", "temporary_table"),
    ("SELECT count(*) FROM n, only_here", "temporary_table"),
    ("SELECT * FROM far_away", "foreign_table"),
    ("SELECT last_value FROM counter", "sequence"),
    ("SELECT count(*) >= 0 AS c FROM n TABLESAMPLE SYSTEM (50)", "table_sample"),
    ("SELECT ctid FROM n", "system_column"),
    ("SELECT xmin IS NULL AS x FROM n", "system_column"),
    ("SELECT ROW(1, 'a')", "record_column"),
    ("SELECT ARRAY[ROW(1, 2)]", "record_column"),
];

const REFUSED_SETUP: &str = "CREATE FUNCTION volatile_one() RETURNS int VOLATILE LANGUAGE sql AS 'SELECT 1';
    CREATE FUNCTION calls_volatile() RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN public.volatile_one(); END';
    CREATE FUNCTION dynamic_one() RETURNS int STABLE LANGUAGE plpgsql AS
        $$ DECLARE r int; BEGIN EXECUTE 'SELECT 1' INTO r; RETURN r; END $$;
    CREATE FUNCTION says_today() RETURNS date STABLE LANGUAGE sql AS $$ SELECT current_date $$;
    CREATE VIEW of_catalog AS SELECT relname FROM pg_class; CREATE SEQUENCE counter;
    CREATE EXTENSION file_fdw; CREATE SERVER far FOREIGN DATA WRAPPER file_fdw;
    CREATE FOREIGN TABLE far_away (a text) SERVER far OPTIONS (filename '/etc/hostname')";

#[test]
fn what_is_not_cached_has_a_reason_and_an_answer() {
    let (mut world, mut reader) = world("refused");
    world.boss.run(REFUSED_SETUP);
    reader.run("CREATE TEMPORARY TABLE only_here (id int); INSERT INTO only_here VALUES (1)");
    for (query, reason) in REFUSED {
        reader.agrees("refused", query);
        assert_eq!(reader.reason(query), *reason, "{query}");
        assert_ne!(reader.state(query), "local", "{query}");
        let explained = format!("SELECT cacheable, detail <> '' FROM steward.cache_explain($q${query}$q$)");
        assert_eq!(reader.line(&explained), "f|t", "{query}");
    }
    let counted =
        "SELECT string_agg(reason, ',' ORDER BY reason) FROM steward.cache_misses WHERE kind = 'query' AND count > 0";
    let counted = reader.line(counted);
    for (_, reason) in REFUSED {
        assert!(counted.split(',').any(|known| known == *reason), "{reason} in {counted}");
    }
    reader.run("INSERT INTO only_here VALUES (2)");
    reader.agrees("a temporary table changed", "SELECT count(*) FROM only_here");
    let next = |reader: &mut Session| reader.cached("SELECT nextval('counter') AS n").rows().join("");
    assert_ne!(next(&mut reader), next(&mut reader), "a sequence goes on");
    assert_eq!(reader.line("SELECT last_value FROM counter"), "2");
}

/// What the clock says is never the answer of an earlier moment, in whatever way it got into the query.
#[test]
fn the_present_is_never_an_earlier_one() {
    let (_world, mut reader) = world("present");
    let xml = "SELECT t FROM XMLTABLE('/a' PASSING '<a>now</a>' COLUMNS t timestamptz PATH '.') AS x";
    let xml = reader.has_xml().then_some(xml);
    for query in [
        "SELECT now()::text AS t",
        "SELECT timestamptz 'now' AS t",
        "SELECT 'now'::timestamptz AS t",
        "SELECT CAST('now' AS timestamp) AS t",
        "SELECT 'now'::text::timestamptz AS t",
        "SELECT ('{now}'::timestamptz[])[1] AS t",
        "SELECT lower('[now,)'::tstzrange) AS t",
        "SELECT lower('{[now,)}'::tstzmultirange) AS t",
        "SELECT U&'\\006eow'::timestamptz AS t",
        "SELECT E'n\\157w'::timestamptz AS t",
        "SELECT 'n'\n'ow'::timestamptz AS t",
        "SELECT clock_timestamp() AS t",
        "SELECT json_populate_record(NULL::n, '{\"made\": \"now\"}') AS t",
        "SELECT t FROM json_to_record('{\"t\": \"now\"}') AS j(t timestamptz)",
    ]
    .into_iter()
    .chain(xml)
    {
        let first = reader.cached(query).rows().join("");
        let second = reader.cached(query).rows().join("");
        let third = reader.cached(query).rows().join("");
        assert!(first != second && second != third, "{query} is frozen at {first}");
    }
    for (params, query) in [
        ("[\"now\"]", "SELECT $1::timestamptz AS t"),
        ("[\"NoW \"]", "SELECT $1::timestamptz AS t"),
        ("[[\"now\"]]", "SELECT $1::timestamptz[] AS t"),
        ("[\"[now,)\"]", "SELECT $1::tstzrange AS t"),
        ("[\"now\"]", "SELECT $1::text::timestamptz AS t"),
    ] {
        let sql = format!("SELECT steward.cached_json('{query}', '{params}')");
        let (first, second) = (reader.line(&sql), reader.line(&sql));
        assert_ne!(first, second, "{query} with {params} is frozen");
    }
}

/// A name that stands for an object means what it means now.
#[test]
fn names_of_objects_are_looked_up_anew() {
    let (mut world, mut reader) = world("objects");
    let names = [
        "SELECT 'moving'::regclass::oid AS o",
        "SELECT '{moving}'::regclass[] AS o",
        "SELECT ('{moving}'::regclass[])[1]::oid AS o",
        "SELECT ('{moving}'::regclass[])::text AS o",
        "SELECT 'moving'::regclass::text AS o",
    ];
    world.boss.run("CREATE TABLE moving (id int)");
    for change in ["ALTER TABLE moving RENAME TO moved; CREATE TABLE moving (id int)", "DROP TABLE moving"] {
        names.iter().for_each(|query| drop(reader.agrees("before", query)));
        let sql =
            "SELECT steward.cached_json('SELECT ($1::regclass[])::oid[] AS o', '[[\"moving\"]]') -> 0 -> 'o' ->> 0";
        reader.lines(sql);
        reader.lines(sql);
        world.boss.run(change);
        names.iter().for_each(|query| drop(reader.agrees(change, query)));
        match change.starts_with("DROP") {
            true => assert_eq!(reader.fails(sql), "42P01"),
            false => assert_eq!(reader.line(sql), reader.line("SELECT 'moving'::regclass::oid")),
        }
    }
}
