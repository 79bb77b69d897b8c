//! A full table of statements: totals stay true, steady statements stay, and what went is counted. And resets.

#[path = "capture_common.rs"]
mod common;

use common::{check_background, counted, database, line, only, run};
use postgres::Client;
use std::fmt::Write;
use steward_test::Cluster;

const STEADY: usize = 20;
const UNIQUE: usize = 20_000;
const BATCH: usize = 500;

fn calls_and_others(reader: &mut Client) -> (i64, i64) {
    let sql = "SELECT (SELECT sum(calls)::bigint FROM steward.statements), other_calls FROM steward.statements_info";
    let row = common::row(reader, sql, &[]);
    (row.get(0), row.get(1))
}

/// Statements whose number of columns and operators differs, so that each has its own id.
fn unique_statements(from: usize) -> String {
    let mut sql = String::new();
    for n in from..from + BATCH {
        let bits: String = (0..15).map(|bit| if n >> bit & 1 == 1 { "+a" } else { "-a" }).collect();
        writeln!(sql, "SELECT a{bits} FROM steady;").expect("write");
    }
    sql
}

fn steady_round(client: &mut Client) {
    for place in 0..STEADY {
        run(client, &format!("SELECT {} FROM steady AS steady_one", vec!["a"; place + 1].join(", ")));
    }
}

#[test]
fn churn_neither_loses_counts_nor_drives_out_the_steady() {
    let cluster =
        common::builder("eviction").conf("pg_steward.max_statements", "100").conf("pg_steward.track_planning", "off");
    let cluster = cluster.conf("pg_steward.text_memory", "64kB").start().expect("server");
    let mut reader = database(&cluster, "churn");
    let mut client = cluster.client("churn").expect("client");
    run(&mut client, "CREATE TABLE steady (a int)");
    run(&mut reader, "SELECT steward.statements_reset()");
    (0..5).for_each(|_| steady_round(&mut client));
    let mut executed = 5 * STEADY;
    for from in (0..UNIQUE).step_by(BATCH) {
        run(&mut client, &unique_statements(from));
        steady_round(&mut client);
        executed += BATCH + STEADY;
    }
    let steady = counted(&mut reader, "steady_one");
    assert!(steady.len() >= STEADY - 1, "{} of {STEADY} are left: {steady:#?}", steady.len());
    let full = steady.iter().filter(|found| found.calls == (5 + UNIQUE / BATCH) as i64).count();
    assert!(full >= STEADY - 2, "{full} of {STEADY} have all their calls");
    // Seen again, statements are admitted, and push others out.
    for from in (UNIQUE..UNIQUE + 4 * BATCH).step_by(BATCH) {
        (0..3).for_each(|_| run(&mut client, &unique_statements(from)));
        executed += 3 * BATCH;
    }
    run(&mut client, "SELECT a FROM steady AS last_one");
    executed += 1;
    // The reader's own statements come on top: few, and never fewer than the statement of the reset.
    let (calls, others) = calls_and_others(&mut reader);
    let surplus = calls + others - i64::try_from(executed).expect("fits");
    assert!((0..=4).contains(&surplus), "{calls} + {others} - {executed} = {surplus}");
    let entries = line(
        &mut reader,
        "SELECT entries, max_statements, dealloc, refused, (SELECT count(*) FROM steward.statements) FROM steward.statements_info",
    );
    let info = "SELECT entries <= max_statements, max_statements, dealloc + refused > 1000, dealloc > 100, refused > 1000, internal_errors, untracked FROM steward.statements_info";
    // 100 are asked for; partitions and their slack round it up, and that is what is said.
    assert_eq!(line(&mut reader, info), "t|112|t|t|t|0|0", "{entries}");
    assert_eq!(line(&mut reader, "SELECT count(*) <= 112, count(*) >= 60 FROM steward.statements"), "t|t");
    check_background(&cluster);
}

/// Which of the users' and statements' rows are left: user, query.
fn left(reader: &mut Client) -> String {
    line(
        reader,
        "SELECT userid::regrole || ' ' || datname || ' ' || regexp_replace(query, '.* AS ', '')
        FROM steward.statements JOIN pg_database ON pg_database.oid = dbid
        WHERE query ~ 'AS (one|two)$' ORDER BY 1",
    )
    .replace('\n', ", ")
}

/// Each of two users runs two statements in each of two databases.
fn fill(cluster: &Cluster) {
    for (user, database) in [("ann", "reset_a"), ("ben", "reset_a"), ("ann", "reset_b"), ("ben", "reset_b")] {
        let mut client = cluster.client_as(user, database).expect("client");
        run(&mut client, "SELECT 1 AS one");
        run(&mut client, "SELECT 1, 2 AS two");
    }
}

const ALL: &str = "ann reset_a one, ann reset_a two, ann reset_b one, ann reset_b two, ben reset_a one, ben reset_a two, ben reset_b one, ben reset_b two";

#[test]
fn resets_by_user_database_and_statement_are_audited() {
    let cluster = common::builder("reset").start().expect("server");
    cluster.psql("postgres", "CREATE ROLE ann LOGIN; CREATE ROLE ben LOGIN").expect("roles");
    let mut reader = database(&cluster, "reset_a");
    drop(database(&cluster, "reset_b"));
    let id = |reader: &mut Client| only(reader, "AS one$").queryid;
    fill(&cluster);
    assert_eq!(left(&mut reader), ALL);
    let one = counted(&mut reader, "AS one$")[0].queryid;
    run(&mut reader, "SELECT steward.statements_reset('ann'::regrole)");
    assert_eq!(left(&mut reader), "ben reset_a one, ben reset_a two, ben reset_b one, ben reset_b two");
    assert_eq!(id(&mut reader), one);
    run(
        &mut reader,
        "SELECT steward.statements_reset(dbid => (SELECT oid FROM pg_database WHERE datname = 'reset_b'))",
    );
    assert_eq!(left(&mut reader), "ben reset_a one, ben reset_a two");
    run(&mut reader, &format!("SELECT steward.statements_reset(queryid => {one})"));
    assert_eq!(left(&mut reader), "ben reset_a two");
    fill(&cluster);
    assert_eq!(left(&mut reader), ALL);
    assert_eq!(counted(&mut reader, "AS two$").iter().map(|found| found.calls).max(), Some(2));
    let before = "SELECT stats_reset < now() FROM steward.statements_info";
    assert_eq!(line(&mut reader, before), "t");
    let stamp = line(&mut reader, "SELECT stats_reset FROM steward.statements_info");
    run(
        &mut reader,
        &format!(
            "SELECT steward.statements_reset('ben'::regrole, (SELECT oid FROM pg_database WHERE datname = current_database()), {one})"
        ),
    );
    assert_eq!(left(&mut reader), ALL.replace("ben reset_a one, ", ""));
    assert_eq!(line(&mut reader, "SELECT stats_reset FROM steward.statements_info"), stamp, "a part is not all");
    run(&mut reader, "SELECT steward.statements_reset()");
    assert_eq!(left(&mut reader), "");
    assert_ne!(line(&mut reader, "SELECT stats_reset FROM steward.statements_info"), stamp);
    assert_eq!(line(&mut reader, "SELECT other_calls, dealloc, refused FROM steward.statements_info"), "0|0|0");
    let audit = "SELECT count(*), count(*) FILTER (WHERE arguments = '{\"userid\": 0, \"dbid\": 0, \"queryid\": 0}'), min(session_role), min(acting_role), bool_and(acted_at <= now())
        FROM steward.audit_log WHERE action = 'statements_reset'";
    assert_eq!(line(&mut reader, audit), "5|1|postgres|postgres|t");
    // What is refused leaves no trace, and an action that is rolled back did take place.
    let mut ann = cluster.client_as("ann", "reset_a").expect("ann");
    assert_eq!(common::fails(&mut ann, "SELECT steward.statements_reset()"), "42501");
    assert_eq!(line(&mut reader, "SELECT count(*) FROM steward.audit_log"), "5");
}
