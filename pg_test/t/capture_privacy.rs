//! No secret gets into any column of any view, and nobody sees what Postgres itself would not show him.

#[path = "capture_common.rs"]
mod common;

use common::{check_background, database, fails, line, lines, only, run};
use postgres::Client;
use std::sync::OnceLock;
use steward_test::{Cluster, wait_until};

fn server() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| {
        let cluster =
            common::builder("privacy").conf("pg_steward.slow_threshold", "0").conf("pg_steward.drain_interval", "50ms");
        let cluster = cluster.start().expect("server");
        cluster
            .psql(
                "postgres",
                "CREATE ROLE ordinary LOGIN; CREATE ROLE victim LOGIN; CREATE ROLE friend LOGIN IN ROLE victim;
            CREATE ROLE auditor LOGIN IN ROLE pg_read_all_stats",
            )
            .expect("roles");
        cluster
    })
}

/// Everything that the views and tables of pg_steward hold, as text.
fn everything(reader: &mut Client) -> String {
    let relations = lines(
        reader,
        "SELECT oid::regclass FROM pg_class WHERE relnamespace = 'steward'::regnamespace AND relkind IN ('v', 'r', 'p')",
    );
    assert!(relations.len() > 10, "{relations:?}");
    let mut all = String::new();
    for relation in relations {
        all += &lines(reader, &format!("SELECT row_to_json(r)::text FROM {relation} AS r")).join("\n");
    }
    all + &lines(reader, "SELECT payload FROM steward.ring_events()").join("\n")
}

const SECRET: &str = "hush4711";

/// Statements that hold the secret in each place a statement can.
const STATEMENTS: &[&str] = &[
    "CREATE ROLE one PASSWORD 'hush4711'",
    "CREATE USER two WITH ENCRYPTED PASSWORD E'hush4711\\n' VALID UNTIL 'infinity'",
    "ALTER ROLE one PASSWORD $pw$hush4711$pw$",
    "ALTER USER CURRENT_USER SET pg_steward.request_id = 'hush4711'; ALTER USER CURRENT_USER RESET ALL",
    "CREATE FOREIGN DATA WRAPPER wrap; CREATE SERVER far FOREIGN DATA WRAPPER wrap OPTIONS (host 'hush4711');
 CREATE USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (user 'u', password 'hush4711');
 ALTER USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (SET password 'hush4711x')",
    "CREATE SUBSCRIPTION sub CONNECTION 'host=nowhere password=hush4711' PUBLICATION p WITH (connect = false)",
    "ALTER SUBSCRIPTION sub CONNECTION 'host=nowhere password=''hush4711'''",
    "SET application_name = 'hush'; SET custom.token = 'hush4711'; SET LOCAL custom.token TO hush4711",
    "DO $$ BEGIN PERFORM 'hush4711'; EXECUTE 'SELECT 1 WHERE ''hush4711'' = ''hush4711x'''; END $$",
    "DO LANGUAGE plpgsql 'BEGIN PERFORM ''hush4711'', length($q$hush4711$q$); END'",
    "PREPARE p(text) AS SELECT $1; EXECUTE p('hush4711'); DEALLOCATE p",
    "CREATE TABLE t (a text, b int)",
    "INSERT INTO t SELECT 'hush4711', n FROM generate_series(1, 100) AS n",
    "COPY (SELECT 'hush4711') TO '/dev/null'",
    "COPY (SELECT a FROM t WHERE a = 'hush4711') TO '/dev/null' WITH (FORMAT csv, NULL 'hush4711')",
    "SELECT * FROM t WHERE a = 'hush4711' AND b < 10",
    "SELECT * FROM t WHERE a IN ('hush4711', 'x', 'hush4711y') OR a LIKE 'hush4711%'",
    "SELECT 'hush4711'::text, U&'hush4711', $$hush4711$$, E'hush4711', 'a' 'b' FROM t LIMIT 1",
    "SELECT * FROM (VALUES ('hush4711', 1), ('x', 2)) AS v(a, b) WHERE b > 0",
    "UPDATE t SET a = a || 'hush4711' WHERE b = 2",
    "SELECT count(*) FILTER (WHERE a = 'hush4711') FROM t GROUP BY a || 'hush4711' HAVING min(a) < 'hush4711'",
    "SELECT * FROM jsonb_each('{\"k\": \"hush4711\"}') WHERE key <> 'hush4711'",
    "SELECT * FROM regexp_matches('ab', '(hush4711)|b')",
    "CREATE INDEX ON t (a) WHERE a <> 'hush4711'",
    "SET enable_seqscan = off; SELECT count(*) FROM t WHERE a <> 'hush4711' AND a > 'hush4711'; RESET enable_seqscan",
    "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$ SELECT 'hush4711'::text $$; SELECT f()",
    "CREATE VIEW v AS SELECT 'hush4711'::text AS x; SELECT * FROM v WHERE x = 'hush4711'",
    "CREATE TABLE made AS SELECT 'hush4711' AS a",
    "COMMENT ON TABLE t IS 'hush4711'",
    "ALTER TABLE t ALTER a SET DEFAULT 'hush4711', ADD CHECK (a <> 'hush4711z')",
    "EXPLAIN (ANALYZE, VERBOSE) SELECT * FROM t WHERE a = 'hush4711'",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 'hush4711' FROM t; FETCH 1 FROM c; CLOSE c",
    "NOTIFY channel, 'hush4711'",
    "SECURITY LABEL ON TABLE t IS NULL; SELECT 'hush4711'",
    "DROP SUBSCRIPTION sub",
];

#[test]
fn no_secret_is_kept_anywhere() {
    let mut reader = database(server(), "secrets");
    run(&mut reader, "SET pg_steward.capture_enabled = off; ALTER DATABASE secrets SET pg_steward.track = 'all'");
    let mut client = server().client("secrets").expect("client");
    for sql in STATEMENTS {
        // Some must fail, such as SECURITY LABEL without a provider: what fails may not leak either.
        let _ = client.batch_execute(sql);
        let _ = client.batch_execute("");
    }
    for sql in [
        "SELECT 'hush4711'::int",
        "SELECT * FROM t WHERE b = 'hush4711'",
        "INSERT INTO t VALUES ('x', 'hush4711')",
        "SELECT 1 FROM t WHERE a::int = 3",
        "SELECT to_date('hush4711', 'YYYY')",
        "CREATE TABLE t2 (a text CHECK (a = 'x')); INSERT INTO t2 VALUES ('hush4711')",
        "CREATE UNIQUE INDEX ON t (a)",
        "SELECT 'hush4711",
        "ALTER ROLE nobody PASSWORD 'hush4711'",
        "SELECT '{\"hush4711'::json",
        "SELECT 'hush4711' COLLATE \"nowhere\"",
        "SET work_mem = 'hush4711'",
    ] {
        assert!(client.batch_execute(sql).is_err(), "{sql}");
        let _ = client.batch_execute("");
    }
    for failing in ["SELECT $1::text::int", "SELECT a FROM t WHERE a = $1"] {
        let _ = client.query(failing, &[&SECRET]);
    }
    run(&mut client, "");
    let all = everything(&mut reader);
    let leaks: Vec<&str> = all.lines().filter(|line| line.contains(SECRET)).collect();
    assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
    // And yet everything was there to leak.
    assert!(
        all.contains("CREATE SUBSCRIPTION") && all.contains("CREATE USER MAPPING") && all.contains("ALTER ROLE one")
    );
    assert!(lines(&mut reader, "SELECT count(*) > 20 FROM steward.plans") == ["t"] || all.contains("\"plan\""));
}

#[test]
fn bind_parameters_only_when_asked_for() {
    let mut reader = database(server(), "parameters");
    let mut client = server().client("parameters").expect("client");
    run(&mut client, "CREATE TABLE p (a text, n int)");
    client.query("SELECT a FROM p WHERE a = $1 AND n = $2", &[&"first value", &42i32]).expect("query");
    run(&mut client, "SET pg_steward.capture_parameters = on; SET pg_steward.max_parameter_length = 8");
    client.query("SELECT n FROM p WHERE a = $1 AND n = $2", &[&"it's second value", &43i32]).expect("query");
    client.query("SELECT n, 1 FROM p WHERE a = $1", &[&None::<&str>]).expect("query");
    let of = |reader: &mut Client, pattern: &str| {
        line(
            reader,
            &format!(
                "SELECT parameters FROM steward.slow_queries WHERE query ~ '{pattern}' AND query !~ 'slow_queries'"
            ),
        )
    };
    assert_eq!(of(&mut reader, "^SELECT a FROM p"), "");
    let second = of(&mut reader, "^SELECT n FROM p");
    assert!(second.contains("it''s") && second.contains("43") && !second.contains("value"), "{second}");
    assert!(of(&mut reader, "^SELECT n, .. FROM p").contains("NULL"));
    let all = everything(&mut reader);
    assert!(!all.contains("first value"));
    let mut ordinary = server().client_as("ordinary", "parameters").expect("ordinary");
    assert_eq!(fails(&mut ordinary, "SET pg_steward.capture_parameters = on"), "42501");
}

/// A database with statements of the role `victim`, in every view.
fn with_victim(name: &str) -> Client {
    let mut reader = database(server(), name);
    run(&mut reader, "CREATE TABLE v (n int); INSERT INTO v VALUES (1); GRANT SELECT ON v TO victim");
    let mut victim = server().client_as("victim", name).expect("victim");
    run(&mut victim, "SET pg_steward.request_id = 'victims request'; SET application_name = 'victims app'");
    for _ in 0..12 {
        run(&mut victim, "SELECT n AS victims_column FROM v");
    }
    assert_eq!(fails(&mut victim, "SELECT n / 0 AS victims_error FROM v"), "22012");
    drop(victim);
    let stored = "SELECT count(*) FROM steward.repeated_statements";
    assert!(wait_until(common::PATIENCE, || lines(&mut reader, stored) == ["1"]));
    reader
}

const VIEWS: &[&str] = &["statements", "slow_queries", "plans", "plan_changes", "repeated_queries", "ring_events()"];

fn view_text(client: &mut Client, view: &str) -> String {
    lines(client, &format!("SELECT row_to_json(r)::text FROM steward.{view} AS r")).join("\n")
}

#[test]
fn an_ordinary_role_sees_numbers_and_no_texts_of_others() {
    let mut reader = with_victim("masking");
    let id = only(&mut reader, "^SELECT n AS victims_column").queryid;
    let mut ordinary = server().client_as("ordinary", "masking").expect("ordinary");
    run(&mut ordinary, "SELECT 'own' AS own_column");
    for view in VIEWS {
        let text = view_text(&mut ordinary, view);
        for hidden in ["victims", &id.to_string()] {
            assert!(!text.contains(hidden), "{view}: {text}");
        }
    }
    assert!(view_text(&mut ordinary, "statements").contains("own_column"));
    assert!(view_text(&mut ordinary, "slow_queries").contains("own_column"));
    let masked = "SELECT count(*) > 0, bool_and(queryid IS NULL), min(query) = max(query) AND min(query) = '<insufficient privilege>', sum(calls) >= 12
        FROM steward.statements WHERE userid = 'victim'::regrole";
    assert_eq!(line(&mut ordinary, masked), "t|t|t|t");
    let masked = "SELECT count(*) > 0, bool_and(query = '<insufficient privilege>'), bool_and(queryid IS NULL AND planid IS NULL AND message IS NULL
        AND application_name IS NULL AND request_id IS NULL AND parameters IS NULL AND tags IS NULL AND client_addr IS NULL)
        FROM steward.slow_queries WHERE userid = 'victim'::regrole";
    assert_eq!(line(&mut ordinary, masked), "t|t|t");
    let nothing = format!("SELECT (SELECT count(*) FROM steward.histogram({id})), steward.percentile({id}, 0.5), (SELECT sum(c) FROM unnest(steward.histogram_counts({id})) AS c),
        (SELECT count(*) FROM steward.plans), (SELECT count(*) FROM steward.plan_changes), (SELECT count(*) FROM steward.repeated_queries)");
    assert_eq!(line(&mut ordinary, &nothing), "0||0|0|0|0");
    check_background(server());
}

#[test]
fn members_of_the_role_and_readers_of_all_statistics_see_them() {
    let mut reader = with_victim("unmasked");
    let id = only(&mut reader, "^SELECT n AS victims_column").queryid;
    for role in ["friend", "auditor", "victim"] {
        let mut client = server().client_as(role, "unmasked").expect(role);
        for view in ["statements", "slow_queries", "repeated_queries"] {
            assert!(view_text(&mut client, view).contains("victims_column"), "{role} {view}");
        }
        assert!(view_text(&mut client, "slow_queries").contains("victims request"));
        let sql = format!("SELECT steward.percentile({id}, 0.5) > 0, (SELECT sum(calls) FROM steward.histogram({id}))");
        assert_eq!(line(&mut client, &sql), "t|12", "{role}");
    }
    let mut auditor = server().client_as("auditor", "unmasked").expect("auditor");
    assert_eq!(line(&mut auditor, &format!("SELECT count(*) FROM steward.plans WHERE queryid = {id}")), "1");
    assert_eq!(line(&mut auditor, "SELECT count(*) FROM steward.audit_log"), "0");
    let mut friend = server().client_as("friend", "unmasked").expect("friend");
    assert_eq!(line(&mut friend, "SELECT count(*) FROM steward.plans"), "0");
}

#[test]
fn what_an_ordinary_role_may_not_do() {
    let mut reader = database(server(), "forbidden");
    let mut ordinary = server().client_as("ordinary", "forbidden").expect("ordinary");
    let mut refused = vec![
        "SELECT steward.statements_reset()".to_owned(),
        "SELECT steward.arm_explain(1, 1)".into(),
        "SELECT steward.ingest('[]')".into(),
        "SELECT steward.ingest_executions('[]')".into(),
        "SELECT steward.ingest_plan('{}')".into(),
        "SELECT steward.ingest_repeat('{}')".into(),
        "SELECT steward.maintain_capture(1, 1)".into(),
        "SELECT steward.add_capture_partition('2020-01-01')".into(),
        "SELECT steward.capture_installed()".into(),
        "SELECT * FROM steward.audit_log".into(),
        "CREATE TABLE steward.mine ()".into(),
    ];
    let tables = lines(
        &mut reader,
        "SELECT oid::regclass FROM pg_class WHERE relnamespace = 'steward'::regnamespace AND relkind IN ('r', 'p')",
    );
    assert!(tables.len() >= 5);
    for table in tables {
        // The freshness classes are for every role to read, as cached() takes their names.
        if table != "steward.cache_classes" {
            refused.push(format!("SELECT * FROM {table}"));
        }
        refused.push(format!("DELETE FROM {table}"));
    }
    for sql in &refused {
        assert_eq!(fails(&mut ordinary, sql), "42501", "{sql}");
    }
    for setting in [
        "capture_enabled = off",
        "track = 'all'",
        "slow_threshold = 0",
        "capture_plans = off",
        "sample_rate = 1",
        "flush_interval = 0",
    ] {
        assert_eq!(fails(&mut ordinary, &format!("SET pg_steward.{setting}")), "42501", "{setting}");
    }
    run(&mut ordinary, "SET pg_steward.request_id = 'a'; SET pg_steward.traceparent = 'b'");
    let mut auditor = server().client_as("auditor", "forbidden").expect("auditor");
    for sql in refused.iter().filter(|sql| !sql.contains("audit_log")) {
        assert_eq!(fails(&mut auditor, sql), "42501", "{sql}");
    }
    // Granted on purpose, they work.
    run(&mut reader, "GRANT EXECUTE ON FUNCTION steward.statements_reset TO ordinary");
    run(&mut ordinary, "SELECT steward.statements_reset(0, 0, 1)");
    assert_eq!(
        line(&mut reader, "SELECT session_role, acting_role, action, arguments->>'queryid' FROM steward.audit_log"),
        "ordinary|ordinary|statements_reset|1"
    );
}
