//! What is found in bodies of functions, and that nothing that speaks against caching can be hidden.
use proptest::prelude::*;
use steward_core::cache::body::{BodyFacts, Hazard, read_body};

fn hazards(source: &str) -> Vec<Hazard> {
    read_body(source).hazards
}

fn names(source: &str) -> Vec<String> {
    read_body(source).names
}

#[test]
fn plain_bodies_are_clean() {
    for source in [
        "",
        "SELECT 1",
        "select sum(amount) from orders where customer = $1 and state like 'a%'",
        "BEGIN RETURN (SELECT count(*) FROM t WHERE a = p_a AND b->>'x' = 'It''s known'); END;",
        "DECLARE n int := 0; BEGIN FOR i IN 1..10 LOOP n := n + f(i); END LOOP; RETURN n; END",
        "DECLARE n int; BEGIN SELECT a INTO n FROM t; IF NOT FOUND THEN RAISE EXCEPTION 'no row %', $1; END IF;
         GET DIAGNOSTICS n = ROW_COUNT; RETURN n; END -- the end",
        "select c at time zone 'UTC', t.update, t.current_date, t.user, a[1:2] from t /* a /* b */ c */",
        "select E'it\\'s\\n', x'ff', $q$ known $q$, \"Quoted \"\"name\"\"\", 1.5e-3, 0x1F, interval '1 day'",
        "select pg_catalog.lower(a) from s.t where b ~ '^\\d+$' and c ~ 'a\\.b'",
    ] {
        assert_eq!(hazards(source), [], "{source}");
    }
}

#[test]
fn names_are_those_before_a_parenthesis() {
    let source = r#"SELECT A.Lower (x), "Ma""x"/* c */ -- d
        (y), Z, s.in(1), count(*) FILTER (WHERE b IN (1) AND (c) OR EXISTS (SELECT 1)), COALESCE(a, "values"(b)), 'f(x)'"#;
    assert_eq!(names(source), ["Ma\"x", "count", "filter", "in", "lower", "values"]);
    assert_eq!(names("select user, current_schema, f.user, \"user\""), ["current_schema", "current_user"]);
    assert_eq!(names("select cube(1), \u{e9}t\u{e9}(2), if(3)"), ["cube", "if", "\u{e9}t\u{e9}"]);
}

#[test]
fn fields_may_be_functions() {
    let facts = read_body("select t.a, (r).b, s.f(1), \"t\".\"C\", t.*, 1.5, d.row from s.t");
    assert_eq!(facts.fields, ["C", "a", "b", "row", "t"]);
    assert_eq!(facts.names, ["f"]);
}

#[test]
fn operators_are_split_as_postgres_does() {
    let operators = |source: &str| read_body(source).operators.join(" ");
    assert_eq!(operators("a=-1"), "- =");
    assert_eq!(operators("a@-1, b @> c"), "@- @>");
    assert_eq!(operators("a->>'b' != c"), "->> <>");
    assert_eq!(operators("a + -- b\n c"), "+");
    assert_eq!(operators("a+/* * */b"), "+");
    assert_eq!(operators("a OPERATOR(s.<<|) b"), "<<|");
    assert_eq!(operators("a := b::int; c => d"), "= =>");
    assert_eq!(operators("a < b < c"), "<");
    assert_eq!(operators("a NOT LIKE b"), "!~~ ~~");
    assert_eq!(operators("'a + b' \"c - d\" $$ e * f $$"), "");
    assert_eq!(hazards(&"+".repeat(64)), [Hazard::NotUnderstood]);
}

#[test]
fn each_hazard_is_found() {
    use Hazard::*;
    for (source, hazard) in [
        ("select current_date", Time),
        ("select LOCALTIMESTAMP(3)", Time),
        ("select 'now'", TimeLiteral),
        ("select '[Today,)'", TimeLiteral),
        ("select ' yesterday 04:05'", TimeLiteral),
        ("select 'today04:05'", TimeLiteral),
        (r"select E'\x6eow'", TimeLiteral),
        (r"select E'\156ow'", TimeLiteral),
        (r"select E'n\ow'", TimeLiteral),
        (r"select E'\tnow'", TimeLiteral),
        (r"select E'\u006eow'", TimeLiteral),
        (r"select '\156ow'", TimeLiteral),
        (r"select U&'\006eow'", TimeLiteral),
        ("select u&'!006eow' uescape '!'", TimeLiteral),
        ("select 'no'\n'w'", TimeLiteral),
        ("select 'no''' -- it's\n'w'", TimeLiteral),
        ("select $$now$$", TimeLiteral),
        ("select $a$ x Tomorrow $a$", TimeLiteral),
        ("EXECUTE 'select 1'", Dynamic),
        ("open c for execute q", Dynamic),
        ("get diagnostics s = pg_context", Dynamic),
        ("select 1 from t where current of c", Dynamic),
        ("create temp table x()", Temp),
        ("select * from pg_temp.x", Temp),
        ("select * from \"pg_temp_3\".x", Temp),
        ("select * from t TableSample system(1)", TableSample),
        ("select nextval('s')", NextValue),
        ("select \"nextval\"('s')", NextValue),
        ("select x::date", DateCast),
        ("select x::\"timestamptz\"", DateCast),
        ("select cast(x as timestamp with time zone)", DateCast),
        ("select date '2020-01-01'", DateCast),
        ("select x::_date", DateCast),
        ("select x::pg_catalog.tstzrange", DateCast),
        ("declare d t.created%type", DateCast),
        ("declare d t%ROWTYPE", DateCast),
        ("insert into t values (1)", Modifies),
        ("select 1 for update", Modifies),
        ("set local a = 1", Modifies),
        ("select x::regclass", Reg),
        ("select x::\"regtype\"[]", Reg),
        ("select relname from pg_class", Catalog),
        ("select relname from pg_catalog.\"pg_class\"", Catalog),
        ("select 1 from information_schema.tables", Catalog),
        ("select xmin from t", SystemColumn),
        ("select t.\"ctid\" from t", SystemColumn),
        ("select 'a", Unterminated),
        ("select \"a", Unterminated),
        ("select $$a", Unterminated),
        ("select 1 /* a /* b */", Unterminated),
        (r"select 'a\', now() --'", Unterminated),
        ("select U&\"\\006eow\"()", NotUnderstood),
        ("select {1}", NotUnderstood),
        ("select 1then", NotUnderstood),
        ("select \u{c9}t\u{e9}(1)", NotUnderstood),
        ("select $", NotUnderstood),
    ] {
        assert!(hazards(source).contains(&hazard), "{source}: {:?}", hazards(source));
    }
    assert_eq!(hazards(&format!("select {}()", "a".repeat(64))), [NotUnderstood]);
    assert_eq!(hazards(&format!("select {}()", "a".repeat(63))), []);
}

#[test]
fn words_in_comments_are_no_hazards() {
    assert_eq!(hazards("select 1 -- current_date, now(), 'now'\n /* execute 'x' */"), []);
    assert_eq!(names("-- f(x)\n/* g(x) */ select h(x)"), ["h"]);
}

#[test]
fn long_bodies_take_linear_time() {
    for piece in ["+-", "a.", "f(", "'x'\n", "E'\\\\'", "/*", "$a$;", "\"", "\\", "1e", "time ", "--\n", "''"] {
        read_body(&piece.repeat(100_000));
    }
}

/// Pieces whose meaning depends on what stands around them.
fn fragments() -> impl Strategy<Value = String> {
    let fragment = prop::sample::select(vec![
        "'", "\"", "$$", "$a$", "/*", "*/", "--", "\n", "\\", "E'", "U&'", "U&\"", "now", "(", ".", "%", "type", "1e",
        "+", "-", " ", "date", "\u{e9}", "\u{c9}", "\0", "$1", "::", "f", ";",
    ]);
    prop::collection::vec(fragment, 0..40).prop_map(|fragments| fragments.concat())
}

fn is_in_order<T: Ord>(list: &[T]) -> bool {
    list.is_sorted_by(|before, after| before < after)
}

fn assert_consistent(facts: &BodyFacts) {
    assert!(is_in_order(&facts.names) && is_in_order(&facts.fields));
    assert!(is_in_order(&facts.operators) && is_in_order(&facts.hazards));
    assert!(facts.operators.iter().all(|operator| !operator.is_empty()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_text_is_tolerated(source in any::<String>(), mixed in fragments()) {
        assert_consistent(&read_body(&source));
        assert_consistent(&read_body(&mixed));
    }

    /// A call in front of any text is seen whatever follows, since reading goes from left to right.
    #[test]
    fn a_call_is_found_before_anything(rest in fragments()) {
        let found = names(&format!("select evil (x) {rest}"));
        prop_assert!(found.contains(&"evil".to_owned()));
    }

    /// A call behind any text is found, or the text does not end, or the call stands in a literal or comment of it.
    #[test]
    fn a_call_is_found_behind_anything_closed(before in fragments()) {
        let facts = read_body(&format!("{before}\nselect evil(x)"));
        let found = facts.names.contains(&"evil".to_owned());
        prop_assert!(found || facts.hazards.contains(&Hazard::Unterminated), "{:?}", facts);
    }

    #[test]
    fn a_clock_word_in_a_string_is_found(
        before in "[ a-z]{0,5}[ 0-9:,(]", after in "[ 0-9:,)][ a-z]{0,5}",
        word in prop::sample::select(vec!["now", "TODAY", "Tomorrow", "yesterday"]),
        quotes in prop::sample::select(vec![("'", "'"), ("E'", "'"), ("$$", "$$"), ("$x$", "$x$"), ("U&'", "'")])
    ) {
        let source = format!("select f({}{before}{word}{after}{})", quotes.0, quotes.1);
        prop_assert!(hazards(&source).contains(&Hazard::TimeLiteral));
    }
}

#[test]
fn names_of_settings_are_read_or_the_body_is_refused() {
    use steward_core::cache::reads::settings_read;
    let read = |source| settings_read(source).map(|names| names.join(" "));
    assert_eq!(read("select current_setting('app.tenant', true)"), Some("app.tenant".into()));
    assert_eq!(
        read("select pg_catalog.CURRENT_SETTING ( 'a.b' ) || \"current_setting\"('c.d')"),
        Some("a.b c.d".into())
    );
    assert_eq!(read("select my_current_setting(x)"), Some(String::new()));
    for refused in [
        "current_setting('app.' || x)",
        "current_setting(x)",
        "current_setting(E'app.x')",
        "current_setting('app.x' 'y')",
        "current_setting('app.x'::text)",
        "current_setting",
        "SHOW work_mem",
    ] {
        assert_eq!(read(refused), None, "{refused}");
    }
}
