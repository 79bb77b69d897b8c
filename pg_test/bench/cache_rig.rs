//! The server whose results are cached, with what the calls need, and the other caches beside it.

use crate::arms::{Arm, STEWARD_LIBRARY, arm};
use crate::cache_others::{Pgpool, Redis};
use crate::client::Connection;
use crate::server::{Server, Template};
use anyhow::{Context, Result};
use std::path::PathBuf;

/// Everything is stored at first sight, so that a cell is warm after one call. Capture stays on, as it is for users; it
/// may not switch itself off half-way (see `arms`).
pub const CACHE: Arm = arm("cache", &[STEWARD_LIBRARY], &CACHE_CONF);
pub const CACHE_CONF: [(&str, &str); 3] = [
    ("pg_steward.cache_min_execution_time", "0"),
    ("pg_steward.cache_admission_window", "0"),
    ("pg_steward.overhead_limit", "0"),
];

/// Rows of the hand-kept cache table, and keys in Redis.
pub const KEYS: u64 = 1_000;
/// The aggregate whose result is the small one: two rows, 77 bytes of JSON.
pub const AGGREGATE: &str = "SELECT bid, count(*), sum(abalance) FROM pgbench_accounts WHERE aid < 200000 GROUP BY bid";
/// A fast one of the same shape, with a parameter, since each of its keys has to be computed once.
pub const AGGREGATE_BY: &str = "SELECT bid, count(*), sum(abalance) FROM pgbench_accounts
    WHERE aid BETWEEN 99900 AND 100000 + $1 GROUP BY bid";
/// The large result.
pub const HUNDRED: &str = "SELECT aid, bid, abalance FROM pgbench_accounts WHERE aid <= 100 ORDER BY aid";
/// The same by another text: calls that want JSON have an entry of their own.
pub const HUNDRED_JSON: &str = "SELECT aid, bid, abalance FROM pgbench_accounts WHERE aid < 101 ORDER BY aid";

/// A server with its neighbours, where they are installed.
pub struct Rig {
    pub redis: Option<Redis>,
    pub pgpool: Option<Pgpool>,
    /// After the others, which lie in its directory and are to end before it.
    pub server: Server,
}

impl Rig {
    pub fn start(template: &Template) -> Result<Self> {
        let server = Server::create_all(template, 1)?.pop().context("no server")?;
        server.become_arm(&CACHE)?;
        server.start()?;
        server.check_settings(&CACHE)?;
        fill(&mut server.connect()?)?;
        server.prewarm()?;
        let place = Place::of(&mut server.connect()?)?;
        let redis = Redis::start(&place, &documents(&mut server.connect()?)?)?;
        let pgpool = Pgpool::start(&place)?;
        Ok(Self { redis, pgpool, server })
    }
}

/// Where the server can be reached and where there is room for the others.
pub struct Place {
    pub folder: PathBuf,
    pub data: PathBuf,
    pub port: u16,
}

impl Place {
    fn of(connection: &mut Connection) -> Result<Self> {
        Ok(Self {
            folder: connection.value("SHOW unix_socket_directories")?.into(),
            data: connection.value("SHOW data_directory")?.into(),
            port: connection.value("SHOW port")?.parse()?,
        })
    }
}

/// Tables that an application without a result cache might keep by hand.
pub fn fill(connection: &mut Connection) -> Result<()> {
    connection.query(&format!(
        "CREATE UNLOGGED TABLE bench_hand (key int PRIMARY KEY, payload json);
         INSERT INTO bench_hand SELECT key, (SELECT json_agg(row_to_json(r)) FROM ({AGGREGATE}) AS r)
             FROM generate_series(1, {KEYS}) AS key;
         CREATE UNLOGGED TABLE bench_hand_hundred (key int PRIMARY KEY, payload json);
         INSERT INTO bench_hand_hundred SELECT key, (SELECT json_agg(row_to_json(r)) FROM ({HUNDRED}) AS r)
             FROM generate_series(1, {KEYS}) AS key;
         CREATE UNLOGGED TABLE bench_rows AS {HUNDRED};"
    ))?;
    connection.query("VACUUM (FREEZE, ANALYZE)").map(drop)
}

/// The small and the large result as texts.
fn documents(connection: &mut Connection) -> Result<[String; 2]> {
    Ok([
        connection.value("SELECT payload FROM bench_hand WHERE key = 1")?,
        connection.value("SELECT payload FROM bench_hand_hundred WHERE key = 1")?,
    ])
}
