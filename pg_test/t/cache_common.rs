//! What the tests of the result cache share: a server that keeps every result at first sight, sessions of several roles,
//! and the question that all of them ask: does a cached call answer what the query itself would?
#![allow(dead_code, reason = "each test program uses a part of it")]

use postgres::error::{DbError, ErrorPosition};
use postgres::{Client, SimpleQueryMessage};
use std::sync::{Mutex, MutexGuard, PoisonError};
use steward_test::{Builder, Cluster};

/// Calls after which a result that is kept at first sight must be there: the first after a change may meet a snapshot of
/// which it cannot be told what it sees.
const WARM_CALLS: usize = 200;
/// From here on, calls are made with pauses: a commit that invalidates takes a while on a busy machine.
const HASTY_CALLS: usize = 4;

/// A server that keeps results of any query at first sight.
pub fn builder(name: &str) -> Builder {
    Cluster::new(name)
        .preload("pg_steward")
        .conf("log_line_prefix", "%m [%p] %b: ")
        .conf("max_connections", "100")
        // What autovacuum commits, and what shares a slot by chance, would cost hits.
        .conf("autovacuum", "off")
        .conf("pg_steward.cache_version_slots", "262144")
        .conf("max_worker_processes", "100")
        .conf("max_prepared_transactions", "5")
        // Its worker makes tables now and then, and all of a test's changes are to be the test's own.
        .conf("pg_steward.capture_enabled", "off")
        .conf("pg_steward.cache_min_execution_time", "0")
        .conf("pg_steward.cache_admission_window", "0")
}

/// What a statement came to.
#[derive(Clone, PartialEq, Eq)]
pub enum Outcome {
    Rows(Vec<String>),
    Error(Box<Failure>),
}

/// The fields of an error that say what went wrong; where, is told by `position` and `context`.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    pub object: [Option<String>; 5],
    pub position: Position,
    pub context: Option<String>,
    pub place: [Option<String>; 2],
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Position {
    None,
    Statement(u32),
    Internal(u32, String),
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rows(rows) if rows.iter().map(String::len).sum::<usize>() > 2000 => write!(f, "{} rows", rows.len()),
            Self::Rows(rows) => write!(f, "{rows:?}"),
            Self::Error(e) => write!(f, "{} {:?} {:?} {:?}", e.code, e.message, e.detail, e.hint),
        }
    }
}

impl Outcome {
    pub fn rows(&self) -> &[String] {
        match self {
            Self::Rows(rows) => rows,
            Self::Error(_) => panic!("failed: {self:?}"),
        }
    }

    pub fn failure(&self) -> &Failure {
        match self {
            Self::Error(failure) => failure,
            Self::Rows(_) => panic!("did not fail: {self:?}"),
        }
    }

    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// Without what depends on how deep the query was called.
    pub fn essence(&self) -> Self {
        match self {
            Self::Rows(_) => self.clone(),
            Self::Error(failure) => {
                Self::Error(Box::new(Failure { position: Position::None, context: None, ..(**failure).clone() }))
            }
        }
    }
}

fn failure(error: &DbError) -> Failure {
    let owned = |field: Option<&str>| field.map(str::to_owned);
    Failure {
        code: error.code().code().to_owned(),
        message: error.message().to_owned(),
        detail: owned(error.detail()),
        hint: owned(error.hint()),
        object: [error.schema(), error.table(), error.column(), error.datatype(), error.constraint()].map(owned),
        position: match error.position() {
            None => Position::None,
            Some(ErrorPosition::Original(at)) => Position::Statement(*at),
            Some(ErrorPosition::Internal { position, query }) => Position::Internal(*position, query.clone()),
        },
        context: owned(error.where_()),
        place: [error.file(), error.routine()].map(owned),
    }
}

/// A connection. In what it is given, `@` stands for the prefix of the test's roles, which all databases share.
pub struct Session {
    pub client: Client,
    prefix: String,
    name: String,
}

impl Session {
    pub fn new(client: Client, database: &str, name: &str) -> Self {
        let mut session = Self { client, prefix: format!("{database}_"), name: name.to_owned() };
        // From its first call on a session knows what its later snapshots see.
        session.run("SELECT steward.cached_json('SELECT 0 AS first_call')");
        // The language brings settings, which belong to keys of queries that call functions.
        session.run("DO 'BEGIN END'");
        session
    }

    fn text(&self, sql: &str) -> String {
        sql.replace('@', &self.prefix)
    }

    /// Runs statements by the simple protocol.
    pub fn run(&mut self, sql: &str) {
        let sql = self.text(sql);
        self.client.batch_execute(&sql).unwrap_or_else(|error| panic!("{}: {sql}: {error:?}", self.name));
    }

    /// Runs a statement, whatever comes of it. Columns are separated by '|', NULL is nothing.
    pub fn outcome(&mut self, sql: &str) -> Outcome {
        let sql = self.text(sql);
        match self.client.simple_query(&sql) {
            Ok(messages) => Outcome::Rows(messages.iter().filter_map(row).collect()),
            Err(error) => match error.as_db_error() {
                Some(error) => Outcome::Error(Box::new(failure(error))),
                None => panic!("{}: {sql}: {error:?}", self.name),
            },
        }
    }

    /// Whether the server was built with libxml, which is an option of the build.
    pub fn has_xml(&mut self) -> bool {
        !self.outcome("SELECT '<a/>'::xml").is_error()
    }

    pub fn lines(&mut self, sql: &str) -> Vec<String> {
        match self.outcome(sql) {
            Outcome::Rows(rows) => rows,
            failed => panic!("{}: {sql}: {failed:?}", self.name),
        }
    }

    pub fn line(&mut self, sql: &str) -> String {
        self.lines(sql).join("\n")
    }

    /// Runs a statement that must fail, and gives its SQLSTATE.
    pub fn fails(&mut self, sql: &str) -> String {
        match self.outcome(sql) {
            Outcome::Error(failure) => failure.code,
            answered => panic!("{}: {sql} did not fail: {answered:?}", self.name),
        }
    }

    /// The query's answer by way of the cache.
    pub fn cached(&mut self, query: &str) -> Outcome {
        self.outcome(&cached_sql(query))
    }

    /// The query's answer by itself, in the same form.
    pub fn direct(&mut self, query: &str) -> Outcome {
        self.outcome(&direct_sql(query))
    }

    /// Asserts that a cached call, the very next thing that this session does, and the one after it, answer what the
    /// query itself does.
    pub fn agrees(&mut self, what: &str, query: &str) -> Outcome {
        let first = self.cached(query).essence();
        let expected = self.direct(query).essence();
        assert_eq!(first, expected, "{}, {what}: cached, then direct, of {query}", self.name);
        let second = self.cached(query).essence();
        assert_eq!(second, expected, "{}, {what}: cached again, then direct, of {query}", self.name);
        expected
    }

    /// The same within a transaction that goes on.
    pub fn agrees_within(&mut self, what: &str, query: &str) -> Outcome {
        let first = self.within(&cached_sql(query));
        let expected = self.within(&direct_sql(query));
        assert_eq!(first, expected, "{}, {what}, in a transaction: cached, then direct, of {query}", self.name);
        let second = self.within(&cached_sql(query));
        assert_eq!(second, expected, "{}, {what}, in a transaction: cached again, then direct, of {query}", self.name);
        expected
    }

    fn within(&mut self, sql: &str) -> Outcome {
        self.run("SAVEPOINT probe");
        let outcome = self.outcome(sql).essence();
        self.run(if outcome.is_error() { "ROLLBACK TO probe; RELEASE probe" } else { "RELEASE probe" });
        outcome
    }

    /// What a call would meet now: `local`, `shared`, or why neither.
    pub fn state(&mut self, query: &str) -> String {
        self.line(&format!("SELECT state FROM steward.cache_explain($steward${query}$steward$)"))
    }

    /// Why the query is not cached; nothing if it is.
    pub fn reason(&mut self, query: &str) -> String {
        self.line(&format!("SELECT reason FROM steward.cache_explain($steward${query}$steward$)"))
    }

    /// Calls until this session has the result, which must come to pass unless the query fails.
    pub fn warm(&mut self, query: &str) -> Outcome {
        let mut outcome = self.cached(query);
        for call in 0..WARM_CALLS {
            if call > HASTY_CALLS {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            if outcome.is_error() || self.state(query) == "local" {
                return outcome;
            }
            outcome = self.cached(query);
        }
        let (state, reason) = (self.state(query), self.reason(query));
        let why =
            self.line("SELECT string_agg(reason || ' ' || count, ', ') FROM steward.cache_misses WHERE count > 0");
        panic!("{}: not cached after {WARM_CALLS} calls: {query}: {state} {reason}; {why}", self.name);
    }
}

pub fn cached_sql(query: &str) -> String {
    format!("SELECT steward.cached_json($steward${query}$steward$)")
}

fn direct_sql(query: &str) -> String {
    format!(
        "SELECT '[' || coalesce(string_agg(row_to_json(whole_row)::text, ','), '') || ']' FROM ({query}) AS whole_row"
    )
}

fn row(message: &SimpleQueryMessage) -> Option<String> {
    match message {
        SimpleQueryMessage::Row(row) => {
            let fields: Vec<&str> = (0..row.len()).map(|at| row.get(at).unwrap_or("")).collect();
            Some(fields.join("|"))
        }
        _ => None,
    }
}

/// A database of its own for a test, its superuser, and roles whose names begin with the database's. There is one at a
/// time: roles belong to all databases, so a test that changes some would take away what another has warmed.
pub struct World<'a> {
    _turn: MutexGuard<'static, ()>,
    pub cluster: &'a Cluster,
    pub name: String,
    pub boss: Session,
}

impl<'a> World<'a> {
    pub fn new(cluster: &'a Cluster, name: &str) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        cluster.create_database(name).expect("database");
        let boss = Session::new(cluster.client(name).expect("connect"), name, "postgres");
        let mut world = Self { _turn: turn, cluster, name: name.to_owned(), boss };
        // Nothing here may wait for ever for a lock.
        world.boss.run("SET lock_timeout = '30s'");
        world
    }

    /// Makes a role that can log in, and connects as it.
    pub fn role(&mut self, role: &str) -> Session {
        self.boss.run(&format!("CREATE ROLE @{role} LOGIN"));
        self.login(role)
    }

    pub fn login(&self, role: &str) -> Session {
        let client = self.cluster.client_as(&format!("{}_{role}", self.name), &self.name).expect("connect");
        Session::new(client, &self.name, role)
    }

    /// Another session of the superuser.
    pub fn another(&self) -> Session {
        Session::new(self.cluster.client(&self.name).expect("connect"), &self.name, "another superuser")
    }

    pub fn major(&mut self) -> u32 {
        let version: u32 = self.boss.line("SHOW server_version_num").parse().expect("a number");
        version / 10_000
    }
}
