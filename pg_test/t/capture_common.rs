//! What the tests of statement capture share: servers that live as long as the test program, a database per test, and
//! the questions that all of them ask.
#![allow(dead_code, reason = "each test program uses a part of it")]

use postgres::types::ToSql;
use postgres::{Client, Row};
use std::sync::Mutex;
use std::time::Duration;
use steward_test::{Builder, Cluster};

pub const PATIENCE: Duration = Duration::from_secs(20);

/// A server with pg_steward whose pending counts reach shared memory at the end of each transaction.
pub fn builder(name: &str) -> Builder {
    Cluster::new(name)
        .preload("pg_steward")
        .conf("log_line_prefix", "%m [%p] %b: ")
        .conf("max_worker_processes", "40")
        .conf("max_connections", "80")
        .conf("pg_steward.flush_interval", "0")
        .conf("pg_steward.overhead_limit", "0")
        .conf("pg_steward.slow_limit_per_minute", "0")
}

/// A new database with the extension, and a connection to it.
pub fn database(cluster: &Cluster, name: &str) -> Client {
    database_with(cluster, name, "")
}

/// As `database`, with options of CREATE DATABASE.
pub fn database_with(cluster: &Cluster, name: &str, options: &str) -> Client {
    // Two at once could meet in the template database.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock();
    cluster.psql("postgres", &format!("CREATE DATABASE {name} {options}")).expect("CREATE DATABASE");
    cluster.psql(name, "CREATE EXTENSION pg_steward").expect("CREATE EXTENSION");
    cluster.client(name).expect("connect")
}

/// The one row of a query.
pub fn row(client: &mut Client, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Row {
    client.query_one(sql, params).unwrap_or_else(|error| panic!("{sql}: {error:?}"))
}

/// The one row of a query as text, columns separated by '|', NULL as nothing.
pub fn line(client: &mut Client, sql: &str) -> String {
    lines(client, sql).join("\n")
}

/// The rows of a query as text, columns separated by '|', NULL as nothing.
pub fn lines(client: &mut Client, sql: &str) -> Vec<String> {
    let messages = client.simple_query(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    messages
        .iter()
        .filter_map(|message| match message {
            postgres::SimpleQueryMessage::Row(row) => {
                let fields: Vec<&str> = (0..row.len()).map(|at| row.get(at).unwrap_or("")).collect();
                Some(fields.join("|"))
            }
            _ => None,
        })
        .collect()
}

/// What steward.statements counts of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    pub query: String,
    pub queryid: i64,
    pub toplevel: bool,
    pub calls: i64,
    pub rows: i64,
    pub errors: i64,
    pub cancelled: i64,
    pub timeouts: i64,
    pub terminated: i64,
}

impl Counted {
    /// Errors, cancelled, timeouts, terminated.
    pub fn failures(&self) -> [i64; 4] {
        [self.errors, self.cancelled, self.timeouts, self.terminated]
    }
}

/// The statements of this database whose text matches a regular expression, top level first.
pub fn counted(client: &mut Client, pattern: &str) -> Vec<Counted> {
    const SQL: &str = "SELECT query, queryid, toplevel, calls, rows, errors, cancelled, timeouts, terminated
        FROM steward.statements
        WHERE query ~ $1 AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
        ORDER BY toplevel DESC, query";
    let rows = client.query(SQL, &[&pattern]).expect("steward.statements");
    rows.iter()
        .map(|row| Counted {
            query: row.get(0),
            queryid: row.get(1),
            toplevel: row.get(2),
            calls: row.get(3),
            rows: row.get(4),
            errors: row.get(5),
            cancelled: row.get(6),
            timeouts: row.get(7),
            terminated: row.get(8),
        })
        .collect()
}

/// The only statement of this database whose text matches.
pub fn only(client: &mut Client, pattern: &str) -> Counted {
    let found = counted(client, pattern);
    assert_eq!(found.len(), 1, "statements that match {pattern}: {found:#?}");
    found.into_iter().next().expect("one statement")
}

/// Runs a statement that must fail, and gives its SQLSTATE.
pub fn fails(client: &mut Client, sql: &str) -> String {
    let error = client.batch_execute(sql).expect_err(sql);
    // The error arrives before the transaction has ended: what it left is in shared memory with the next answer. A
    // session that was ended has none.
    let _ = client.batch_execute("");
    error.code().map(|state| state.code().to_owned()).unwrap_or_else(|| format!("no SQLSTATE: {error}"))
}

/// Executes statements by the simple protocol.
pub fn run(client: &mut Client, sql: &str) {
    client.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// Fails when a background process of the server logged a line at WARNING or above: errors of sessions and their
/// parallel workers are the tests' own.
pub fn check_background(cluster: &Cluster) {
    let found: Vec<String> = cluster
        .log()
        .lines()
        .filter(|line| steward_test::at_warning_or_above(line) || line.contains("TRAP:") || line.contains("PANIC"))
        .filter(|line| !line.contains("client backend:") && !line.contains("parallel worker:"))
        .map(str::to_owned)
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}
