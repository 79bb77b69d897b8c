//! What is counted of a statement agrees with pg_stat_statements in the same server, and percentiles with the rest.

#[path = "capture_common.rs"]
mod common;

use common::{check_background, counted, database, line, lines, only, run};
use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;
use std::io::{Read, Write};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;
use steward_test::Cluster;

fn server() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| {
        let builder = common::builder("statements").preload("pg_stat_statements");
        builder.conf("compute_query_id", "on").conf("pg_steward.slow_threshold", "-1").start().expect("server")
    })
}

const TABLES: &str = "
    CREATE TABLE many AS SELECT n, n % 100 AS g, repeat('x', 50) AS pad FROM generate_series(1, 20000) AS n;
    CREATE TABLE few (n int PRIMARY KEY, t text);
    ANALYZE many;
";

/// Runs statements of many kinds.
fn work(client: &mut Client) {
    run(client, "SELECT count(*), sum(n) FROM many");
    run(client, "SELECT g, count(*) FROM many GROUP BY g");
    run(client, "SET work_mem = '64kB'; SELECT n FROM many ORDER BY pad, n DESC OFFSET 19990");
    run(client, "RESET work_mem");
    for n in 0..20i32 {
        client.execute("INSERT INTO few VALUES ($1, 'text')", &[&n]).expect("insert");
    }
    run(client, "INSERT INTO few SELECT n, 'more' FROM generate_series(100, 5000) AS n");
    run(client, "UPDATE few SET t = t || 'x' WHERE n % 2 = 0");
    run(client, "DELETE FROM few WHERE n > 4000 RETURNING n");
    run(client, "CREATE TEMP TABLE mine AS SELECT n, pad FROM many");
    run(client, "SELECT count(*) FROM mine");
    run(client, "SELECT n, pad INTO TEMP mine_too FROM mine WHERE n < 500");
    run(client, "BEGIN; DECLARE c CURSOR FOR SELECT n FROM many; FETCH 10 FROM c; FETCH 20 FROM c; CLOSE c; COMMIT");
    run(client, "PREPARE p(int) AS SELECT * FROM few WHERE n = $1; EXECUTE p(1); EXECUTE p(2); DEALLOCATE p");
    run(client, "CREATE MATERIALIZED VIEW totals AS SELECT g, sum(n) FROM many GROUP BY g");
    run(client, "REFRESH MATERIALIZED VIEW totals");
    run(client, "EXPLAIN (ANALYZE, COSTS off) SELECT max(n) FROM many WHERE g = 7");
    run(client, "DO $$ BEGIN PERFORM count(*) FROM many; END $$");
    run(client, "COPY (SELECT n FROM many WHERE g < 10) TO '/dev/null'");
    run(client, "WITH gone AS (DELETE FROM few WHERE n = 3 RETURNING n) SELECT * FROM gone");
    run(client, "SELECT 1 AS one; SELECT 'two', 2 AS two");
    for n in [5i32, 6, 7] {
        client.query("SELECT t FROM few WHERE n = $1 AND t <> 'constant'", &[&n]).expect("select");
    }
    run(client, "ANALYZE few");
    run(client, "VACUUM few");
}

/// Columns that are counts, and so must be equal to the digit; times are compared apart.
const EXACT: &[&str] = &[
    "toplevel",
    "calls",
    "rows",
    "shared_blks_dirtied",
    "local_blks_dirtied",
    "local_blks_hit + e.local_blks_read",
    "temp_blks_read",
    "temp_blks_written",
    "shared_blks_hit + e.shared_blks_read",
    "wal_records",
    "wal_fpi",
    "wal_bytes",
];

#[test]
fn counts_equal_those_of_pg_stat_statements() {
    let mut reader = database(server(), "same");
    run(&mut reader, "CREATE EXTENSION pg_stat_statements");
    run(&mut reader, TABLES);
    let mut client = server().client("same").expect("client");
    // The session's first reads of the catalogs are not to differ; nothing of the set-up is to be compared.
    run(&mut client, "SELECT count(*) FROM many, few WHERE false");
    run(&mut reader, "SELECT steward.statements_reset(), pg_stat_statements_reset()");
    work(&mut client);
    let columns: Vec<String> = EXACT.iter().map(|column| format!("e.{column}")).collect();
    let of = |view: &str| {
        format!("SELECT e.queryid, {} FROM {view} AS e
            WHERE userid = (SELECT oid FROM pg_roles WHERE rolname = current_user) AND query !~ 'reset|steward|pg_stat_statements'
              AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
            ORDER BY e.queryid, e.toplevel", columns.join(", "))
    };
    let ours = lines(&mut reader, &of("steward.statements"));
    let theirs = lines(&mut reader, &of("pg_stat_statements"));
    assert!(theirs.len() > 25, "{theirs:#?}");
    let but = |some: &[String], others: &[String]| -> Vec<String> {
        some.iter().filter(|line| !others.contains(line)).cloned().collect()
    };
    assert_eq!(but(&ours, &theirs), but(&theirs, &ours));
    times_agree(&mut reader);
    check_background(server());
}

#[test]
fn plans_and_texts_equal_those_of_pg_stat_statements() {
    let mut reader = database(server(), "same_plans");
    run(&mut reader, "CREATE EXTENSION pg_stat_statements");
    run(&mut reader, TABLES);
    let mut client = server().client("same_plans").expect("client");
    // It would add the planner's buffers to the execution's, so the counts are compared without it.
    run(&mut client, "SET pg_stat_statements.track_planning = on");
    work(&mut client);
    // Both hide constants of what the planner sees; of utility statements only we do on every version.
    let of = |view: &str| {
        format!(
            "SELECT queryid, plans, calls, query FROM {view}
            WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND calls > 0
              AND query ~ '^(SELECT|INSERT|UPDATE|DELETE|WITH|PREPARE)' AND query !~ 'steward|reset|INTO TEMP'
            ORDER BY queryid"
        )
    };
    let ours = lines(&mut reader, &of("steward.statements"));
    assert_eq!(ours, lines(&mut reader, &of("pg_stat_statements")));
    assert!(ours.len() >= 12, "{ours:#?}");
    times_agree(&mut reader);
}

/// Counts start anew, but a session that knew the text to be there has to bring it again.
#[test]
fn texts_come_back_after_a_reset() {
    let mut reader = database(server(), "texts_again");
    run(&mut reader, TABLES);
    let mut client = server().client("texts_again").expect("client");
    let statement = client.prepare("SELECT n AS prepared FROM few WHERE n = $1").expect("prepare");
    for _ in 0..3 {
        client.query(&statement, &[&1i32]).expect("query");
        run(&mut client, "SELECT t AS parsed_again FROM few");
        assert_eq!(only(&mut reader, "AS prepared").calls, 1);
        assert_eq!(only(&mut reader, "AS parsed_again").calls, 1);
        run(
            &mut reader,
            "SELECT steward.statements_reset(0, (SELECT oid FROM pg_database WHERE datname = current_database()))",
        );
    }
}

/// Both clocks surround the same work: close, and ours neither zero nor out of bounds.
fn times_agree(reader: &mut Client) {
    let sql = "SELECT e.query, e.total_exec_time, t.total_exec_time, e.total_plan_time, t.total_plan_time
        FROM steward.statements AS e JOIN pg_stat_statements AS t USING (userid, dbid, queryid, toplevel)
        WHERE abs(e.total_exec_time - t.total_exec_time) > 0.5 + t.total_exec_time * 0.2
           OR (t.plans > 0 AND abs(e.total_plan_time - t.total_plan_time) > 0.5 + t.total_plan_time * 0.2)";
    // One may be interrupted by the machine between the two clocks, not many.
    let apart = lines(reader, sql);
    assert!(apart.len() <= 2, "{apart:#?}");
    let wrong = "SELECT query FROM steward.statements WHERE calls > 0 AND NOT (
        min_exec_time <= mean_exec_time * 1.000001 AND mean_exec_time <= max_exec_time * 1.000001
        AND abs(mean_exec_time * calls - total_exec_time) <= total_exec_time * 1e-6 + 1e-6
        AND stddev_exec_time >= 0 AND stddev_exec_time <= max_exec_time
        AND p50_ms <= p90_ms AND p90_ms <= p95_ms AND p95_ms <= p99_ms AND p99_ms <= p999_ms
        AND p50_ms >= min_exec_time * 0.9374 - 0.0005 AND p999_ms <= max_exec_time * 1.0626 + 0.0005
        AND first_seen <= last_seen AND stats_since <= last_seen)";
    assert_eq!(lines(reader, wrong), Vec::<String>::new());
}

#[test]
fn percentiles_and_histogram_agree() {
    let mut reader = database(server(), "percentiles");
    run(&mut reader, TABLES);
    let mut client = server().client("percentiles").expect("client");
    // 1 in 10 takes far longer than the rest.
    let statement = client.prepare("SELECT count(*) FROM (SELECT n FROM many LIMIT $1) AS cut_off").expect("prepare");
    let durations: Vec<f64> = (0..500)
        .map(|turn| {
            let rows: i64 = if turn % 10 == 9 { 20_000 } else { 10 };
            let begun = std::time::Instant::now();
            client.query(&statement, &[&rows]).expect("query");
            begun.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    let found = only(&mut reader, "LIMIT .* AS cut_off");
    assert_eq!(found.calls, 500);
    let id = found.queryid;
    let sums = format!("SELECT sum(calls), bool_and(lower_ms < upper_ms), min(lower_ms) <= (SELECT min_exec_time FROM steward.statements WHERE queryid = {id}),
        max(upper_ms) > (SELECT max_exec_time FROM steward.statements WHERE queryid = {id}) FROM steward.histogram({id})");
    assert_eq!(line(&mut reader, &sums), "500|t|t|t");
    let same = format!("SELECT p50_ms = steward.percentile({id}, 0.5), p90_ms = steward.percentile({id}, 0.9), p95_ms = steward.percentile({id}, 0.95),
        p99_ms = steward.percentile({id}, 0.99), p999_ms = steward.percentile({id}, 0.999), steward.percentile({id}, 0) >= min_exec_time * 0.9375 - 0.0005,
        steward.percentile({id}, 1) <= max_exec_time * 1.0625 + 0.0005, p50_ms * 3 < p95_ms FROM steward.statements WHERE queryid = {id}");
    assert_eq!(line(&mut reader, &same), "t|t|t|t|t|t|t|t");
    // The client's own clock surrounds the server's: each percentile is below the client's, within the bound.
    let mut sorted = durations;
    sorted.sort_by(f64::total_cmp);
    for (p, rank) in [(0.5, 249), (0.9, 449), (0.95, 474), (0.99, 494)] {
        let ours: f64 = common::row(&mut reader, &format!("SELECT steward.percentile({id}, {p})"), &[]).get(0);
        assert!(ours <= sorted[rank] * 1.0625 + 0.0005, "p{p}: {ours} > {}", sorted[rank]);
    }
    for refused in ["percentile(1, 1.5)", "percentile(1, -0.1)", "percentile(1, 'NaN')"] {
        assert_eq!(common::fails(&mut reader, &format!("SELECT steward.{refused}")), "22003");
    }
    assert_eq!(
        line(&mut reader, "SELECT steward.percentile(12345, 0.5), (SELECT count(*) FROM steward.histogram(12345))"),
        "|0"
    );
}

#[test]
fn a_parallel_query_is_counted_once() {
    let mut reader = database(server(), "parallel");
    run(&mut reader, TABLES);
    let mut client = server().client("parallel").expect("client");
    run(
        &mut client,
        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
        SET max_parallel_workers_per_gather = 2; SET parallel_leader_participation = off",
    );
    let plan = lines(
        &mut client,
        "EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) SELECT n FROM many WHERE pad <> 'never'",
    )
    .join(" ");
    assert!(plan.contains("Workers Launched: 2"), "{plan}");
    run(&mut client, "SELECT n FROM many WHERE pad <> 'never'");
    let found = counted(&mut reader, "^SELECT n FROM many WHERE pad");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].calls, found[0].rows, found[0].toplevel), (1, 20_000, true));
    let blocks = "SELECT sum(shared_blks_hit + shared_blks_read) >= pg_relation_size('many') / 8192 FROM steward.statements WHERE query ~ '^SELECT n FROM many WHERE pad'";
    assert_eq!(line(&mut reader, blocks), "t");
    // An error in a worker is the leader's, and counted once.
    run(&mut client, "SET statement_timeout = '150ms'");
    assert_eq!(common::fails(&mut client, "SELECT n FROM many WHERE pg_sleep(0.05) IS NOT NULL"), "57014");
    assert_eq!(common::fails(&mut client, "SELECT 1 / (n - 777) FROM many WHERE pad <> ''"), "22012");
    assert_eq!(only(&mut reader, "FROM many WHERE pg_sleep").failures(), [0, 0, 1, 0]);
    assert_eq!(only(&mut reader, "/ .n - ").failures(), [1, 0, 0, 0]);
}

/// Milliseconds that the statement was at work, in all.
fn total_ms(reader: &mut Client, pattern: &str) -> f64 {
    common::row(
        reader,
        "SELECT sum(total_exec_time) FROM steward.statements WHERE query ~ $1 AND query !~ 'total_exec'",
        &[&pattern],
    )
    .get(0)
}

#[test]
fn cursors_and_portals_count_their_work_and_not_their_pauses() {
    let mut reader = database(server(), "cursors");
    run(&mut reader, TABLES);
    let mut client = server().client("cursors").expect("client");
    let pause = || thread::sleep(Duration::from_millis(150));
    let mut transaction = client.transaction().expect("begin");
    let one = transaction.bind("SELECT n AS portal_one FROM many WHERE n > $1", &[&0i32]).expect("bind");
    let two = transaction.bind("SELECT n, g FROM many AS portal_two", &[]).expect("bind");
    let left = transaction.bind("SELECT g FROM many AS portal_abandoned", &[]).expect("bind");
    for _ in 0..3 {
        assert_eq!(transaction.query_portal(&one, 100).expect("fetch").len(), 100);
        pause();
        assert_eq!(transaction.query_portal(&two, 10).expect("fetch").len(), 10);
    }
    assert_eq!(transaction.query_portal(&left, 5).expect("fetch").len(), 5);
    drop(one);
    drop(two);
    transaction.commit().expect("commit");
    for (pattern, rows) in [("portal_one", 300), ("portal_two", 30), ("portal_abandoned", 5)] {
        let found = only(&mut reader, pattern);
        assert_eq!((found.calls, found.rows), (1, rows), "{found:?}");
        let ms = total_ms(&mut reader, pattern);
        assert!(ms > 0.0 && ms < 140.0, "{pattern}: {ms}");
    }
    // To its end in parts, and the empty last part.
    let mut transaction = client.transaction().expect("begin");
    let portal = transaction.bind("SELECT g, n FROM many AS portal_whole WHERE n <= 200", &[]).expect("bind");
    while !transaction.query_portal(&portal, 90).expect("fetch").is_empty() {}
    transaction.commit().expect("commit");
    assert_eq!((only(&mut reader, "portal_whole").calls, only(&mut reader, "portal_whole").rows), (1, 200));
    // Rows as they stream.
    let mut stream = client.query_raw("SELECT n FROM many AS streamed", Vec::<i32>::new()).expect("query_raw");
    assert!(stream.next().expect("row").is_some());
    drop(stream);
    run(&mut client, "SELECT 1");
    assert_eq!(only(&mut reader, "AS streamed").calls, 1);
}

#[test]
fn sql_cursors() {
    let mut reader = database(server(), "sql_cursors");
    run(&mut reader, TABLES);
    let mut client = server().client("sql_cursors").expect("client");
    run(&mut client, "BEGIN; DECLARE c CURSOR FOR SELECT n FROM many WHERE n > 5; FETCH 10 FROM c");
    thread::sleep(Duration::from_millis(120));
    run(&mut client, "FETCH 15 FROM c; MOVE 5 IN c; CLOSE c; COMMIT");
    let sum = |reader: &mut Client, pattern| counted(reader, pattern).iter().map(|found| found.rows).sum::<i64>();
    assert_eq!(sum(&mut reader, "^FETCH"), 25);
    assert_eq!(only(&mut reader, "^DECLARE c").calls, 1);
    assert!(total_ms(&mut reader, "^(FETCH|DECLARE|MOVE|CLOSE)") < 110.0);
    run(
        &mut client,
        "BEGIN; DECLARE h CURSOR WITH HOLD FOR SELECT g FROM many WHERE n > 7; COMMIT; FETCH 3 FROM h; CLOSE h",
    );
    assert_eq!(sum(&mut reader, "^FETCH"), 28);
    assert_eq!(only(&mut reader, "^DECLARE h").calls, 1);
    run(
        &mut client,
        "BEGIN; DECLARE gone CURSOR FOR SELECT g FROM many; FETCH 2 FROM gone; ROLLBACK; SELECT 1 AS after_rollback",
    );
    assert!(only(&mut reader, "after_rollback").toplevel);
    assert_eq!(line(&mut reader, "SELECT untracked FROM steward.statements_info"), "0");
}

#[test]
fn prepared_statements_of_both_protocols() {
    let mut reader = database(server(), "prepared");
    run(&mut reader, TABLES);
    let mut client = server().client("prepared").expect("client");
    let statement = client.prepare("SELECT g FROM many WHERE n = $1 AND pad <> 'text' LIMIT 1").expect("prepare");
    for n in 1..=30i32 {
        client.query(&statement, &[&n]).expect("query");
    }
    let found = only(&mut reader, "^SELECT g FROM many WHERE n =");
    assert_eq!(
        (found.query.as_str(), found.calls, found.rows),
        ("SELECT g FROM many WHERE n = $1 AND pad <> $2 LIMIT $3", 30, 30)
    );
    run(&mut client, "PREPARE mine(int) AS SELECT n FROM many WHERE n = $1 AND g < 1000");
    for n in 1..=8 {
        run(&mut client, &format!("EXECUTE mine({n})"));
    }
    run(&mut client, "DEALLOCATE mine");
    let found = counted(&mut reader, "mine");
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((found[0].calls, found[0].rows), (8, 8));
    assert!(found[0].query.contains("n = $1 AND g < $2"), "{}", found[0].query);
    // Several statements in one string: each has its own text and count.
    run(
        &mut client,
        "SELECT n, 1 FROM few WHERE n = 4; INSERT INTO few VALUES (1, 'a;b'), (2, 'c'); SELECT t, 2 FROM few",
    );
    assert_eq!(only(&mut reader, "^SELECT n, .1 FROM few WHERE n = .2$").rows, 0);
    assert_eq!(only(&mut reader, "^INSERT INTO few").rows, 2);
    assert_eq!(only(&mut reader, "^SELECT t, .1 FROM few$").rows, 2);
    assert_eq!(only(&mut reader, "^INSERT INTO few").query, "INSERT INTO few VALUES ($1, $2), ($3, $4)");
}

#[test]
fn copy_and_commands_that_run_a_query_count_rows() {
    let mut reader = database(server(), "copies");
    run(&mut reader, TABLES);
    let mut client = server().client("copies").expect("client");
    let mut writer = client.copy_in("COPY few FROM STDIN").expect("copy");
    for n in 0..500 {
        writeln!(writer, "{n}\ttext").expect("write");
    }
    assert_eq!(writer.finish().expect("copy"), 500);
    let mut text = String::new();
    client.copy_out("COPY few TO STDOUT").expect("copy").read_to_string(&mut text).expect("read");
    assert_eq!(text.lines().count(), 500);
    client
        .copy_out("COPY (SELECT n FROM few WHERE n < 50) TO STDOUT")
        .expect("copy")
        .read_to_string(&mut text)
        .expect("read");
    run(&mut client, "CREATE TABLE copied AS SELECT n FROM few WHERE n < 40");
    run(&mut client, "SELECT n INTO copied_too FROM few WHERE n < 30");
    run(&mut client, "CREATE MATERIALIZED VIEW seen AS SELECT n FROM few WHERE n < 20; REFRESH MATERIALIZED VIEW seen");
    let rows = [
        ("^COPY few FROM", 500),
        ("^COPY few TO", 500),
        ("^COPY .SELECT", 50),
        ("^CREATE TABLE copied", 40),
        ("^SELECT n INTO", 30),
        ("^CREATE MATERIALIZED", 20),
        ("^REFRESH", 20),
    ];
    for (pattern, expected) in rows {
        let found = only(&mut reader, pattern);
        assert_eq!((found.calls, found.rows, found.toplevel), (1, expected, true), "{found:?}");
    }
}

#[test]
fn a_statement_belongs_to_the_user_it_began_as() {
    let mut reader = database(server(), "users");
    run(&mut reader, TABLES);
    run(
        &mut reader,
        "CREATE ROLE owning; CREATE ROLE other; GRANT SELECT ON many TO PUBLIC;
        CREATE FUNCTION as_owner() RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
            AS 'BEGIN RETURN (SELECT count(*) FROM many WHERE g = 3); END';
        ALTER FUNCTION as_owner() OWNER TO owning;
        CREATE FUNCTION becomes() RETURNS text LANGUAGE plpgsql
            AS 'BEGIN PERFORM set_config(''role'', ''other'', false); RETURN current_user; END';
        ALTER DATABASE users SET pg_steward.track = 'all'",
    );
    let mut client = server().client("users").expect("client");
    run(&mut client, "SELECT as_owner()");
    run(&mut client, "SET ROLE other; SELECT count(*) FROM many WHERE g = 5; RESET ROLE");
    run(&mut client, "SELECT becomes()");
    run(&mut client, "RESET ROLE");
    let owner = |reader: &mut Client, pattern: &str| {
        line(
            reader,
            &format!(
                "SELECT userid::regrole FROM steward.statements WHERE query ~ '{pattern}' AND query !~ 'regrole|CREATE' ORDER BY 1"
            ),
        )
    };
    assert_eq!(owner(&mut reader, r"^SELECT as_owner\(\)"), "postgres");
    assert_eq!(owner(&mut reader, r"SELECT count\(\*\) FROM many WHERE g = [$3]"), "owning\nother");
    assert_eq!(owner(&mut reader, r"^SELECT becomes\(\)"), "postgres");
}
