//! Shapes of results and parameters, and the places where a call may stand.

use super::common::{Outcome, Session, World};
use super::world;

/// Rows of `cached` with a list of columns, as many times as make a miss, a stored result and a hit.
fn rows(session: &mut Session, query: &str, columns: &str) -> Outcome {
    let sql = format!("SELECT * FROM steward.cached($steward${query}$steward$) AS t({columns})");
    let outcomes: Vec<Outcome> = (0..3).map(|_| session.outcome(&sql)).collect();
    assert!(outcomes.iter().all(|outcome| outcome == &outcomes[0]), "{query}: {outcomes:?}");
    outcomes.into_iter().next().expect("three")
}

#[test]
fn results_of_every_shape() {
    let mut world = world("shapes");
    let mut other = world.another();
    for (query, columns) in [
        ("SELECT 1 AS a WHERE false", "a int"),
        ("SELECT id, word FROM n WHERE id < 0", "id int, word text"),
        ("SELECT NULL::int AS a, NULL::text AS b", "a int, b text"),
        ("SELECT 1 AS a, 2 AS a", "a int, b int"),
        ("SELECT id, word, amount FROM n ORDER BY id", "id int, word text, amount numeric"),
        ("SELECT ARRAY[[1, NULL], [3, 4]], '{}'::int[], '[0:1]={5,6}'::int[]", "a int[], b int[], c int[]"),
        ("SELECT '{\"b\": 1, \"a\": [1.0]}'::json::text, '{\"b\": 1}'::jsonb", "a text, b jsonb"),
        (
            "SELECT 1.10::numeric, 1e-300::float8, 'NaN'::float4, '-Infinity'::numeric",
            "a numeric, b float8, c float4, d numeric",
        ),
        (
            "SELECT date '2020-02-29', timestamptz '2020-01-01 10:00+02', interval '1 mon -2 days 3:04:05.678'",
            "a date, b timestamptz, c interval",
        ),
        (
            "SELECT '\\x00ff'::bytea, 'a'::\"char\", 'n'::name, true, '10.0.0.0/8'::cidr",
            "a bytea, b \"char\", c name, d bool, e cidr",
        ),
        ("SELECT n FROM n WHERE id = 3", "n n"),
        (
            "SELECT int4range(1, 5), '{[1,2), [5,6)}'::int4multirange, point(1, 2), bit '101'",
            "a int4range, b int4multirange, c point, d bit",
        ),
        ("SELECT 1 AS \"weird \"\"name\", 2 AS \"SELECT\"", "a int, b int"),
        ("VALUES (1, 'a'), (2, NULL)", "a int, b text"),
        ("SELECT id FROM n ORDER BY id DESC OFFSET 190", "id int"),
        ("WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < 50) SELECT i FROM r", "i int"),
        ("SELECT id, row_number() OVER (ORDER BY id DESC) FROM n ORDER BY id LIMIT 5", "id int, r bigint"),
        ("SELECT id % 2, count(*), sum(amount) FROM n GROUP BY ROLLUP (1) ORDER BY 1", "a int, b bigint, c numeric"),
    ] {
        let direct = world.boss.outcome(query);
        assert!(!direct.is_error(), "{query}: {direct:?}");
        assert_eq!(rows(&mut world.boss, query, columns), direct, "{query}");
        assert_eq!(rows(&mut other, query, columns), direct, "{query}");
        assert_eq!(other.state(query), "local", "{query}");
        world.boss.agrees("as JSON", query);
        other.agrees("as JSON", query);
    }
    // Columns of one name all come, as row_to_json has them. Columns may be missing altogether.
    for _ in 0..3 {
        assert_eq!(world.boss.cached("SELECT 1 AS a, 2 AS a").rows(), ["[{\"a\":1,\"a\":2}]"]);
        assert_eq!(world.boss.cached("SELECT FROM generate_series(1, 3)").rows(), ["[{},{},{}]"]);
        assert_eq!(world.boss.cached("SELECT").rows(), ["[{}]"]);
        assert_eq!(world.boss.cached("SELECT 1 WHERE false").rows(), ["[]"]);
    }
}

#[test]
fn as_many_columns_as_there_can_be() {
    let mut world = world("wide");
    let list = |count: usize, item: fn(usize) -> String| (0..count).map(item).collect::<Vec<_>>().join(", ");
    let query = format!("SELECT {}", list(1600, |i| format!("{i} AS c{i}")));
    let direct = world.boss.outcome(&query);
    assert_eq!(rows(&mut world.boss, &query, &list(1600, |i| format!("c{i} int"))), direct);
    let parsed = |outcome: &Outcome| outcome.rows()[0].matches("\":\"v").count();
    for count in [1600, 1664] {
        let query = format!("SELECT {}", list(count, |i| format!("'v{i}'::text AS c{i}")));
        for _ in 0..3 {
            let outcome = world.boss.cached(&query);
            assert_eq!(parsed(&outcome), count);
        }
    }
    let query = format!("SELECT {}", list(1665, |i| format!("{i} AS c{i}")));
    assert_eq!(world.boss.cached(&query).failure().code, "54011");
}

/// Postgres's own error, whether the rows come from the query or from the cache.
#[test]
fn a_list_of_columns_that_does_not_match() {
    let mut world = world("columns");
    let query = "SELECT id, word FROM n WHERE id < 3";
    let lists = [
        ("id bigint, word text", "42804", "Returned type integer at ordinal position 1, but query expects bigint."),
        ("id int", "42804", "Returned row contains 2 attributes, but query expects 1."),
        ("id int, word text, more int", "42804", "Returned row contains 2 attributes, but query expects 3."),
        ("id int, word date", "42804", "Returned type text at ordinal position 2, but query expects date."),
    ];
    for state in ["absent", "local"] {
        assert_eq!(world.boss.state(query), state);
        for (list, code, detail) in lists {
            let outcome = world.boss.outcome(&format!("SELECT * FROM steward.cached('{query}') AS t({list})"));
            let failure = outcome.failure();
            assert_eq!(failure.code, code, "{list}");
            assert_eq!(failure.message, "function return row and query-specified return row do not match");
            assert_eq!(failure.detail.as_deref(), Some(detail), "{list}");
        }
        world.boss.warm(query);
    }
    assert_eq!(world.boss.fails(&format!("SELECT * FROM steward.cached('{query}')")), "42601");
    let direct = world.boss.outcome(query);
    assert_eq!(rows(&mut world.boss, query, "a int, b text"), direct, "names are the caller's");
    for sql in ["SELECT count(steward.cached('SELECT 1'))", "SELECT 1 WHERE steward.cached('SELECT 1') IS NULL"] {
        assert_eq!(world.boss.fails(sql), "0A000", "{sql}");
    }
    let outcome = world.boss.outcome("SELECT steward.cached('SELECT 1')");
    assert_eq!(outcome.failure().message, "set-valued function called in context that cannot accept a set");
    assert!(outcome.failure().hint.as_deref().is_some_and(|hint| hint.contains("SELECT * FROM steward.cached")));
}

#[test]
fn parameters_of_every_type() {
    let mut world = world("typed");
    let mut check = |query: &str, params: &str, expected: &str| {
        let sql = format!("SELECT steward.cached_json($q${query}$q$, $p${params}$p$)");
        for _ in 0..3 {
            assert_eq!(world.boss.line(&sql), expected, "{query} with {params}");
        }
    };
    check("SELECT $1::int AS a, $2::text AS b", "[1, null]", "[{\"a\":1,\"b\":null}]");
    check("SELECT $1::text AS a, $2::text AS b", "[1.50, true]", "[{\"a\":\"1.50\",\"b\":\"true\"}]");
    check(
        "SELECT $1::numeric AS a",
        "[123456789012345678901234567890.1234500]",
        "[{\"a\":123456789012345678901234567890.1234500}]",
    );
    check("SELECT $1::numeric(4,1) AS a", "[1.26]", "[{\"a\":1.3}]");
    check("SELECT $1::float8 AS a", "[1e300]", "[{\"a\":1e+300}]");
    check("SELECT $1::int[] AS a", "[[1, null, 3]]", "[{\"a\":[1,null,3]}]");
    check("SELECT $1::int[] AS a", "[[[1, 2], [3, null]]]", "[{\"a\":[[1,2],[3,null]]}]");
    check("SELECT $1::int[] AS a", "[\"{7,8}\"]", "[{\"a\":[7,8]}]");
    check("SELECT $1::int[] AS a", "[[]]", "[{\"a\":[]}]");
    check(
        "SELECT $1::text[] AS a",
        r#"[["a\"b", "c\\d", "", "NULL", null, "e,f", "{g}", " h ", "é"]]"#,
        r#"[{"a":["a\"b","c\\d","","NULL",null,"e,f","{g}"," h ","é"]}]"#,
    );
    check(
        "SELECT $1::jsonb AS a, $2::json AS b",
        r#"[{"k": [1, {"l": null}]}, [1, "x"]]"#,
        r#"[{"a":{"k": [1, {"l": null}]},"b":[1, "x"]}]"#,
    );
    check(
        "SELECT $1::jsonb AS a",
        r#"["text"]"#.replace("\"text\"", "\"\\\"text\\\"\"").as_str(),
        "[{\"a\":\"text\"}]",
    );
    check(
        "SELECT $1::jsonb[] AS a",
        r#"[[{"a": "q\"x"}, null, [1, [2]]]]"#,
        r#"[{"a":[{"a": "q\"x"},null,[1, [2]]]}]"#,
    );
    check(
        "SELECT $1::date AS a, $2::timestamptz AS b",
        r#"["2020-02-29", "2020-01-01 10:00+02"]"#,
        r#"[{"a":"2020-02-29","b":"2020-01-01T08:00:00+00:00"}]"#,
    );
    check(
        "SELECT $1::interval AS a, $2::bytea AS b",
        r#"["1 mon 2 days", "\\x00ff"]"#,
        r#"[{"a":"1 mon 2 days","b":"\\x00ff"}]"#,
    );
    check(
        "SELECT $1::uuid AS a",
        r#"["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"]"#,
        r#"[{"a":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}]"#,
    );
    check("SELECT id FROM n WHERE id = ANY($1) ORDER BY id", "[[3, 1, 2, 1000]]", "[{\"id\":1},{\"id\":2},{\"id\":3}]");
    check("SELECT count(*) FROM n WHERE word LIKE $1 AND amount > $2", r#"["word 1%", 100.5]"#, "[{\"count\":100}]");
    check("SELECT $1 AS a", r#"["é😀\n\t"]"#, r#"[{"a":"é😀\n\t"}]"#);
    check("SELECT $2::int AS a, $1::int AS b", "[1, 2]", "[{\"a\":2,\"b\":1}]");
    check("SELECT x FROM unnest($1::text[]) AS x", r#"[["b", "a"]]"#, r#"[{"x":"b"},{"x":"a"}]"#);
}

/// Equal text with other values is another result, and equal values in another guise are never mixed up.
#[test]
fn parameters_are_part_of_the_key() {
    let mut world = world("keys");
    let mut one = |params: &str, query: &str| {
        let sql = format!("SELECT steward.cached_json('{query}', '{params}')");
        let first = world.boss.line(&sql);
        assert_eq!([world.boss.line(&sql), world.boss.line(&sql)], [first.as_str(); 2]);
        first
    };
    let texts: Vec<String> =
        ["[\"1\"]", "[1]", "[1.0]", "[1.00]", "[\"1 \"]", "[true]", "[\"true\"]", "[null]", "[\"null\"]", "[\"\"]"]
            .iter()
            .map(|params| one(params, "SELECT $1::text AS a"))
            .collect();
    let expected =
        ["\"1\"", "\"1\"", "\"1.0\"", "\"1.00\"", "\"1 \"", "\"true\"", "\"true\"", "null", "\"null\"", "\"\""];
    for (text, expected) in texts.iter().zip(expected) {
        assert_eq!(text, &format!("[{{\"a\":{expected}}}]"));
    }
    for id in [1, 2, 3, 150, 1] {
        assert_eq!(
            one(&format!("[{id}]"), "SELECT word FROM n WHERE id = $1"),
            format!("[{{\"word\":\"word {id}\"}}]")
        );
    }
    let pair = "SELECT $1 || chr(45) || $2 AS a";
    assert_eq!(one("[\"a\", \"bc\"]", pair), "[{\"a\":\"a-bc\"}]");
    assert_eq!(one("[\"ab\", \"c\"]", pair), "[{\"a\":\"ab-c\"}]");
}

/// Values that lie in a TOAST table are brought into the result: what becomes of the table does not matter.
#[test]
fn large_values_do_not_lean_on_their_table() {
    let mut world = world("toast");
    world.boss.run(
        "CREATE TABLE big (id int, plain text, packed text); ALTER TABLE big ALTER plain SET STORAGE EXTERNAL;
         INSERT INTO big SELECT i, repeat(md5(i::text), 10000), repeat('x', 1000000) FROM generate_series(1, 2) AS i",
    );
    let query = "SELECT id, plain, packed FROM big ORDER BY id";
    let call = format!(
        "SELECT id, md5(plain) || md5(packed) AS m, length(plain) FROM steward.cached('{query}') AS t(id int, plain text, packed text)"
    );
    let direct = world.boss.lines("SELECT id, md5(plain) || md5(packed), length(plain) FROM big ORDER BY id");
    for _ in 0..3 {
        assert_eq!(world.boss.lines(&call), direct);
    }
    assert_eq!(world.boss.state(query), "local", "stored, for it is small where it is compressed");
    let mut other = world.another();
    assert_eq!(other.state(query), "shared");
    assert_eq!(other.lines(&call), direct);
    // A cursor over a hit, which holds no lock, while the table and its values go.
    other.run(&format!("BEGIN; DECLARE c CURSOR FOR {call}"));
    assert_eq!(other.lines("FETCH 1 FROM c"), direct[..1]);
    world.boss.run("DELETE FROM big");
    world.boss.run("VACUUM FULL big");
    world.boss.run(
        "DROP TABLE big; CREATE TABLE big (id int, plain text, packed text); INSERT INTO big VALUES (7, 'a', 'b')",
    );
    assert_eq!(other.lines("FETCH ALL FROM c"), direct[1..]);
    other.run("COMMIT");
    for session in [&mut world.boss, &mut other] {
        assert_eq!(session.line(&call).split('|').next(), Some("7"));
    }
}

#[test]
fn sizes_have_limits_and_large_results_are_compressed() {
    let mut world = world("sizes");
    let (small, large) =
        ("SELECT repeat('ab', 100) AS a", "SELECT i, repeat('ab', 100) AS a FROM generate_series(1, 2000) AS i");
    for query in [small, large] {
        world.boss.warm(query);
    }
    let compressed = "SELECT bool_or(is_compressed), bool_and(is_compressed) FROM steward.cache_entries";
    assert_eq!(world.boss.line(compressed), "t|f");
    let mut other = world.another();
    assert_eq!(other.state(large), "shared");
    other.agrees("compressed", large);
    let too_large = "SELECT count FROM steward.cache_misses WHERE reason = 'too_large'";
    world.boss.run("SET pg_steward.cache_max_result_size = '16kB'");
    let before: u64 = world.boss.line(too_large).parse().expect("a number");
    let larger = "SELECT i, repeat('xy', 100) AS a FROM generate_series(1, 2000) AS i";
    for _ in 0..3 {
        world.boss.agrees("too large", larger);
    }
    let direct = world.boss.outcome(larger);
    assert_eq!(rows(&mut world.boss, larger, "i int, a text"), direct);
    assert_eq!(world.boss.state(larger), "absent");
    assert!(world.boss.line(too_large).parse::<u64>().expect("a number") >= before + 9);
    world.boss.run("RESET pg_steward.cache_max_result_size");
    world.boss.warm(larger);
    // More than a session may keep: the shared result serves it.
    other.run("SET pg_steward.cache_local_size = '1kB'");
    for _ in 0..3 {
        other.agrees("too large for the session", large);
        assert_ne!(other.state(large), "local");
    }
}

#[test]
fn calls_stand_wherever_a_function_can() {
    let mut world = world("places");
    let t = "steward.cached('SELECT id, word FROM n WHERE id < 5 ORDER BY id') AS t(id int, word text)";
    let boss = &mut world.boss;
    for _ in 0..3 {
        assert_eq!(boss.line(&format!("SELECT count(*) FROM n WHERE id IN (SELECT id FROM {t})")), "4");
        assert_eq!(boss.line(&format!("SELECT sum(a.id) FROM {t} JOIN n AS a USING (id)")), "10");
        assert_eq!(
            boss.line(&format!("SELECT count(*) FROM (SELECT * FROM {t} UNION ALL SELECT * FROM {t}) AS u")),
            "8"
        );
        assert_eq!(boss.line("SELECT sum(o) FROM ROWS FROM (steward.cached('SELECT 1 AS a') AS (a int), generate_series(1, 3)) WITH ORDINALITY AS r(a, g, o)"), "6");
        assert_eq!(
            boss.lines("SELECT n.id, c.w FROM n, LATERAL steward.cached('SELECT word FROM n WHERE id = $1', jsonb_build_array(n.id)) AS c(w text) WHERE n.id < 4 ORDER BY 1"),
            ["1|word 1", "2|word 2", "3|word 3"]
        );
        assert_eq!(boss.line("SELECT json_array_length(steward.cached_json('SELECT id FROM n'))"), "200");
        assert_eq!(
            boss.line("SELECT (steward.cached_json('SELECT max(id) AS m FROM n') -> 0 ->> 'm')::int + 1"),
            "201"
        );
        assert_eq!(
            boss.line("SELECT steward.cached_json('SELECT 1 AS a')::text = steward.cached_json('SELECT 1 AS a')::text"),
            "t"
        );
        assert_eq!(
            boss.line("SELECT steward.cached_json($$SELECT steward.cached_json('SELECT 1 AS a') AS b$$)"),
            "[{\"b\":[{\"a\":1}]}]"
        );
        boss.run(&format!("CREATE TEMP TABLE made AS SELECT * FROM {t}; INSERT INTO made SELECT * FROM {t}"));
        assert_eq!(boss.line("SELECT count(*) FROM made"), "8");
        boss.run("DROP TABLE made");
        boss.run(&format!("EXPLAIN (ANALYZE, VERBOSE) SELECT * FROM {t}"));
    }
    // Since Postgres 17 a materialized view is filled with a search_path of pg_catalog alone.
    let qualified = t.replace("FROM n", "FROM public.n");
    boss.run(&format!(
        "CREATE VIEW through AS SELECT * FROM {t}; CREATE MATERIALIZED VIEW kept AS SELECT * FROM {qualified}"
    ));
    assert_eq!(boss.line("SELECT (SELECT count(*) FROM through), (SELECT count(*) FROM kept)"), "4|4");
}

#[test]
fn cursors_loops_and_prepared_statements() {
    let mut world = world("cursors");
    let t = "steward.cached('SELECT id, word FROM n ORDER BY id') AS t(id int, word text)";
    for _ in 0..3 {
        let boss = &mut world.boss;
        boss.run(&format!(
            "BEGIN; DECLARE c SCROLL CURSOR FOR SELECT id FROM {t}; DECLARE h CURSOR WITH HOLD FOR SELECT id FROM {t}"
        ));
        assert_eq!(boss.lines("FETCH 2 FROM c"), ["1", "2"]);
        boss.run("DECLARE d CURSOR FOR SELECT * FROM steward.cached('SELECT 7 AS a') AS t(a int)");
        assert_eq!(boss.lines("FETCH LAST FROM c"), ["200"]);
        assert_eq!(boss.lines("FETCH BACKWARD 2 FROM c"), ["199", "198"]);
        assert_eq!(boss.lines("FETCH ALL FROM d"), ["7"]);
        assert_eq!(boss.lines("FETCH 1 FROM h"), ["1"]);
        boss.run("COMMIT; UPDATE n SET word = word WHERE id = 1");
        assert_eq!(boss.lines("FETCH 2 FROM h"), ["2", "3"]);
        boss.run("CLOSE h");
    }
    world.boss.run(
        "CREATE OR REPLACE FUNCTION total() RETURNS bigint LANGUAGE plpgsql AS $$
         DECLARE r record; sum bigint := 0; BEGIN
             FOR r IN SELECT * FROM steward.cached('SELECT id FROM n') AS t(id int) LOOP
                 sum := sum + r.id + (steward.cached_json('SELECT count(*) FROM n') -> 0 ->> 'count')::int;
                 IF r.id = 100 THEN UPDATE n SET word = 'changed' WHERE id = 1; END IF;
             END LOOP; RETURN sum; END $$",
    );
    for _ in 0..3 {
        assert_eq!(world.boss.line("SELECT total()"), "60100");
    }
    // The extended protocol, by name and by a generic plan, and in parts.
    let statement =
        world.boss.client.prepare("SELECT steward.cached_json($1, $2::text::jsonb)::text").expect("prepare");
    for round in 0..10 {
        let params = format!("[{}]", round % 3 + 1);
        let row =
            world.boss.client.query_one(&statement, &[&"SELECT id FROM n WHERE id = $1", &params]).expect("query");
        assert_eq!(row.get::<_, String>(0), format!("[{{\"id\":{}}}]", round % 3 + 1));
    }
    let mut transaction = world.boss.client.transaction().expect("transaction");
    let portal = transaction.bind(&format!("SELECT id FROM {t}"), &[]).expect("bind");
    let parts: Vec<usize> = (0..4).map(|_| transaction.query_portal(&portal, 90).expect("rows").len()).collect();
    assert_eq!(parts, [90, 90, 20, 0]);
    transaction.commit().expect("commit");
    world.boss.run("PREPARE p(int) AS SELECT * FROM steward.cached('SELECT id FROM n WHERE id = $1', jsonb_build_array($1)) AS t(id int)");
    for id in 1..9 {
        assert_eq!(world.boss.line(&format!("EXECUTE p({id})")), id.to_string());
    }
}

/// Circumstances that rule the cache out are answered by the query, and have a name.
#[test]
fn circumstances_that_bypass() {
    let mut world = world("bypass");
    let query = "SELECT count(*) FROM n";
    world.boss.warm(query);
    let count = |session: &mut Session, reason: &str| {
        session
            .line(&format!("SELECT count FROM steward.cache_misses WHERE reason = '{reason}'"))
            .parse::<u64>()
            .expect("a number")
    };
    for (begin, end, reason) in [
        ("BEGIN ISOLATION LEVEL SERIALIZABLE", "COMMIT", "serializable"),
        ("SET pg_steward.cache_enabled = off; BEGIN", "COMMIT; RESET pg_steward.cache_enabled", "disabled"),
        ("SET track_counts = off; BEGIN", "COMMIT; RESET track_counts", "tracking_off"),
    ] {
        let before = count(&mut world.boss, reason);
        world.boss.run(begin);
        for _ in 0..2 {
            assert_eq!(world.boss.cached(query).rows(), ["[{\"count\":200}]"], "{reason}");
            assert_eq!(rows(&mut world.boss, query, "c bigint").rows(), ["200"], "{reason}");
        }
        assert_eq!(world.boss.reason(query), reason);
        assert!(count(&mut world.boss, reason) >= before + 8, "{reason}");
        world.boss.run(end);
        assert_eq!(world.boss.reason(query), "");
        world.boss.agrees(reason, query);
    }
    for begin in ["BEGIN READ ONLY", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"] {
        world.boss.run(begin);
        world.boss.agrees_within(begin, query);
        world.boss.run("COMMIT");
    }
    world.boss.run("SET pg_steward.cache_local_size = 0");
    for _ in 0..3 {
        world.boss.agrees("nothing kept by the session", query);
        assert_eq!(rows(&mut world.boss, query, "c bigint").rows(), ["200"]);
        assert_eq!(world.boss.state(query), "shared");
    }
}

/// A query that Postgres would run by workers still does, and what it answers is the same.
#[test]
fn parallel_plans_are_no_obstacle() {
    let mut world: World<'_> = world("parallel");
    let name = if world.major() >= 16 { "debug_parallel_query" } else { "force_parallel_mode" };
    world.boss.run(&format!("SET {name} = on; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0"));
    world.boss.run("CREATE FUNCTION safe(i int) RETURNS int STABLE PARALLEL SAFE LANGUAGE sql AS 'SELECT count(*)::int + i FROM n'");
    for query in ["SELECT count(*), sum(amount) FROM n", "SELECT max(safe(id)) FROM n"] {
        world.boss.warm(query);
        world.boss.agrees("parallel", query);
        world.boss.run("INSERT INTO n SELECT max(id) + 1 FROM n");
        world.boss.agrees("a row more", query);
    }
    // A function that says it is safe and calls the cache runs its query there.
    world.boss.run("CREATE FUNCTION liar() RETURNS text STABLE PARALLEL SAFE LANGUAGE sql AS $$ SELECT steward.cached_json('SELECT count(*) FROM n')::text $$");
    for _ in 0..2 {
        assert_eq!(
            world
                .boss
                .line("SELECT min(liar()) = max(liar()), count(*) FROM n WHERE liar() IS NOT NULL")
                .split('|')
                .next(),
            Some("t")
        );
    }
}
