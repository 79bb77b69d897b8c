//! Sessions that watch a cached query: what the tests of writes share.
#![allow(dead_code, reason = "each test program uses a part of it")]

use postgres::{Client, SimpleQueryMessage};
use std::sync::Mutex;
use std::time::Duration;
use steward_test::{Builder, Cluster};

/// Longer than anything takes on a busy machine; nothing waits for it unless it fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A server whose cache stores everything at first sight.
pub fn builder(name: &str) -> Builder {
    Cluster::new(name)
        .preload("pg_steward")
        .conf("autovacuum", "off")
        .conf("max_prepared_transactions", "20")
        .conf("pg_steward.capture_enabled", "off")
        .conf("pg_steward.cache_min_execution_time", "0")
        .conf("pg_steward.cache_admission_window", "0")
        // Relations that share a slot invalidate each other: rarely, here.
        .conf("pg_steward.cache_version_slots", "262144")
}

/// A new database with the extension.
pub fn create_database(cluster: &Cluster, name: &str) {
    // Two at once could meet in the template database.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock();
    cluster.create_database(name).expect("database");
}

/// A connection that has made a call: its first may know too little of the past to be served.
pub fn session(cluster: &Cluster, database: &str) -> Client {
    session_as(cluster, "postgres", database)
}

/// The same of another role.
pub fn session_as(cluster: &Cluster, role: &str, database: &str) -> Client {
    let mut client = cluster.client_as(role, database).expect("client");
    cached(&mut client, "SELECT 1 AS first");
    client
}

/// Executes statements by the simple protocol.
pub fn run(client: &mut Client, sql: &str) {
    client.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// The rows of a query as text, columns separated by '|', NULL as nothing, rows by line ends.
pub fn ask(client: &mut Client, sql: &str) -> String {
    let messages = client.simple_query(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|at| row.get(at).unwrap_or("")).collect::<Vec<_>>().join("|"))
        }
        _ => None,
    });
    rows.collect::<Vec<_>>().join("\n")
}

/// What the cache answers.
pub fn cached(client: &mut Client, query: &str) -> String {
    ask(client, &format!("SELECT steward.cached_json($query${query}$query$)"))
}

/// The same without the cache.
pub fn direct(client: &mut Client, query: &str) -> String {
    ask(
        client,
        &format!("SELECT '[' || coalesce(string_agg(row_to_json(x)::text, ','), '') || ']' FROM ({query}) AS x"),
    )
}

/// What a call would meet now: `local`, `shared`, or the reason for neither.
pub fn state(client: &mut Client, query: &str) -> String {
    ask(client, &format!("SELECT state FROM steward.cache_explain($query${query}$query$)"))
}

/// A server-wide count of `steward.cache_stats`.
pub fn count(client: &mut Client, column: &str) -> i64 {
    ask(client, &format!("SELECT {column} FROM steward.cache_stats")).parse().expect(column)
}

/// How often calls were not served for a reason.
pub fn misses(client: &mut Client, reason: &str) -> i64 {
    ask(client, &format!("SELECT count FROM steward.cache_misses WHERE reason = '{reason}'")).parse().expect(reason)
}

/// Sessions that read a query through the cache, and one that writes.
pub struct Watch {
    /// Has the result in its own memory.
    pub near: Client,
    /// Finds it in shared memory: it has not asked yet.
    pub far: Client,
    pub writer: Client,
    pub query: String,
    pub what: String,
    /// The answer when the watch began.
    pub before: String,
}

impl Watch {
    /// Opens sessions for a database that `create_database` made, runs `setup` in a schema of its own, and makes the
    /// query's result known.
    pub fn begin(cluster: &Cluster, database: &str, what: &str, setup: &str, query: &str) -> Self {
        let [near, far, mut writer] = [(), (), ()].map(|()| session(cluster, database));
        run(&mut writer, &format!("CREATE SCHEMA {what}; SET search_path = {what}; {setup}"));
        let mut watch = Watch { near, far, writer, query: query.into(), what: what.into(), before: String::new() };
        for client in [&mut watch.near, &mut watch.far] {
            run(client, &format!("SET search_path = {what}"));
        }
        watch.warm();
        watch
    }

    /// Makes the present result known: near in the session, far in shared memory, unless far has asked before.
    pub fn warm(&mut self) {
        let what = &self.what;
        self.before = cached(&mut self.near, &self.query);
        assert_eq!(self.before, direct(&mut self.writer, &self.query), "{what}: the first answer");
        assert_eq!(cached(&mut self.near, &self.query), self.before, "{what}: the second answer");
        self.assert_known("warmed");
    }

    /// The result is still served.
    pub fn assert_known(&mut self, when: &str) {
        let what = &self.what;
        let misses = count(&mut self.writer, "misses");
        assert_eq!(cached(&mut self.near, &self.query), self.before, "{what}: {when}");
        assert_eq!(count(&mut self.writer, "misses"), misses, "{what}: {when}, it was not run");
        assert_eq!(state(&mut self.near, &self.query), "local", "{what}: {when}, in the session");
        let far = state(&mut self.far, &self.query);
        assert!(far == "shared" || far == "local", "{what}: {when}, elsewhere: {far}");
    }

    /// Every session's very next call answers like the query itself, which has changed, or not.
    pub fn assert_follows(&mut self, changes: bool) {
        // The cached calls come first: running the query would make the session heed messages that a call must heed
        // by itself.
        let [near, far] = [&mut self.near, &mut self.far].map(|client| cached(client, &self.query));
        let again = cached(&mut self.near, &self.query);
        let [near_now, far_now] = [&mut self.near, &mut self.far].map(|client| direct(client, &self.query));
        let what = &self.what;
        assert_eq!(near, near_now, "{what}: where it was in the session");
        assert_eq!(far, far_now, "{what}: where it was in shared memory");
        assert_eq!(again, near_now, "{what}: stored anew");
        assert_eq!(near_now != self.before, changes, "{what}: does the write change the answer? {near_now}");
    }
}
