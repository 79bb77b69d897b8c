//! The calls that are compared, each in a form that can be repeated with different keys.

use crate::cache_others::RedisConnection;
use crate::cache_rig::{AGGREGATE, AGGREGATE_BY, HUNDRED, HUNDRED_JSON, KEYS, Rig};
use crate::client::Connection;
use crate::server::Server;
use anyhow::{Context, Result, ensure};

/// The cell that all others are measured against.
pub const FLOOR: &str = "select1";

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Server,
    Pgpool,
    Redis,
}

/// One kind of call.
#[derive(Clone, Debug)]
pub struct Cell {
    pub name: String,
    pub target: Target,
    is_prepared: bool,
    /// With `@1`, `@2` for parameters. For Redis the prefix of the keys.
    sql: String,
    /// Texts of the parameters; `@key` stands for the key.
    parameters: Vec<String>,
    keys: u64,
    /// Run once on each connection.
    session: &'static str,
    /// The tier that has to answer once the cell is warm.
    tier: Option<Tier>,
}

/// What `cache_explain` says of a call, given the query and its parameters.
#[derive(Clone, Debug)]
struct Tier {
    state: &'static str,
    query: &'static str,
    parameters: &'static str,
}

/// Different parameters of the cached aggregate.
const FEW: u64 = 16;
const NO_LOCAL: &str = "SET pg_steward.cache_local_size = 0";

/// All cells, those of the simple protocol beside their prepared twins.
pub fn all(scale: u64) -> Vec<Cell> {
    let mut cells = vec![
        plain(FLOOR, "SELECT 1", &[], 1),
        plain("point", "SELECT abalance FROM pgbench_accounts WHERE aid = @1", &["@key"], scale * 100_000),
    ];
    cells.extend(calls());
    cells.extend([
        plain("hand", "SELECT payload FROM bench_hand WHERE key = @1", &["@key"], KEYS),
        plain("hand100", "SELECT payload FROM bench_hand_hundred WHERE key = @1", &["@key"], KEYS),
        plain("scan100", "SELECT * FROM bench_rows", &[], 1),
        plain("query100", HUNDRED, &[], 1),
        plain("query", AGGREGATE, &[], 1),
        Cell { target: Target::Redis, ..plain("redis", "small:", &[], KEYS) },
        Cell { target: Target::Redis, ..plain("redis100", "large:", &[], KEYS) },
        Cell { target: Target::Pgpool, ..plain("pgpool", AGGREGATE, &[], 1) },
        Cell { target: Target::Pgpool, ..plain("pgpool100", HUNDRED, &[], 1) },
    ]);
    let is_sql = |cell: &&Cell| cell.target != Target::Redis;
    let simple: Vec<Cell> = cells.iter().filter(is_sql).map(Cell::simple).collect();
    cells.extend(simple);
    cells
}

/// The calls of the cache, each on both tiers.
fn calls() -> Vec<Cell> {
    let rows = format!("SELECT * FROM steward.cached('{HUNDRED}') AS t(aid int, bid int, abalance int)");
    let by = format!("SELECT steward.cached_json('{AGGREGATE_BY}', @1)");
    let parameters = "[1]";
    let cells = [
        (plain("json", &format!("SELECT steward.cached_json('{AGGREGATE}')"), &[], 1), AGGREGATE, "[]"),
        (plain("json_key", &by, &["[@key]"], FEW), AGGREGATE_BY, parameters),
        (
            plain("json_all", "SELECT steward.cached_json(@1, @2)", &[AGGREGATE_BY, "[@key]"], FEW),
            AGGREGATE_BY,
            parameters,
        ),
        (plain("json100", &format!("SELECT steward.cached_json('{HUNDRED_JSON}')"), &[], 1), HUNDRED_JSON, "[]"),
        (plain("rows100", &rows, &[], 1), HUNDRED, "[]"),
    ];
    let both = |(cell, query, parameters): (Cell, &'static str, &'static str)| {
        let tier = |state| Some(Tier { state, query, parameters });
        let name = cell.name.clone();
        let local = Cell { name: format!("{name}.L1"), tier: tier("local"), ..cell.clone() };
        [local, Cell { name: format!("{name}.L2"), tier: tier("shared"), session: NO_LOCAL, ..cell }]
    };
    cells.into_iter().flat_map(both).collect()
}

fn plain(name: &str, sql: &str, parameters: &[&str], keys: u64) -> Cell {
    Cell {
        name: name.to_owned(),
        target: Target::Server,
        is_prepared: true,
        sql: sql.to_owned(),
        parameters: parameters.iter().map(|text| (*text).to_owned()).collect(),
        keys,
        session: "",
        tier: None,
    }
}

impl Cell {
    fn simple(&self) -> Self {
        Self { name: format!("{}.simple", self.name), is_prepared: false, ..self.clone() }
    }

    /// A connection that makes the cell's calls, warm.
    pub fn open(&self, rig: &Rig) -> Result<Caller> {
        let (way, pids) = match self.target {
            Target::Server => return self.open_on(&rig.server),
            Target::Pgpool => {
                let pgpool = rig.pgpool.as_ref().context("no pgpool-II")?;
                let mut connection = pgpool.connect()?;
                let mut pids = pgpool.pids()?;
                pids.push(connection.value("SELECT pg_backend_pid()")?.parse()?);
                self.prepare(&mut connection)?;
                (Way::Sql(connection), pids)
            }
            Target::Redis => {
                let redis = rig.redis.as_ref().context("no Redis")?;
                (Way::Redis(redis.connect()?), vec![redis.pid()])
            }
        };
        self.warm(Caller { way, cell: self.clone(), pids, serial: 0 })
    }

    /// The same for a cell of the server's.
    pub fn open_on(&self, server: &Server) -> Result<Caller> {
        let mut connection = server.connect()?;
        if !self.session.is_empty() {
            connection.query(self.session)?;
        }
        self.prepare(&mut connection)?;
        let pids = vec![connection.pid()];
        self.warm(Caller { way: Way::Sql(connection), cell: self.clone(), pids, serial: 0 })
    }

    fn prepare(&self, connection: &mut Connection) -> Result<()> {
        if self.is_prepared { connection.prepare("cell", &self.sql.replace('@', "$")) } else { Ok(()) }
    }

    /// Some calls, so that plans are settled and what can be cached is.
    fn warm(&self, mut caller: Caller) -> Result<Caller> {
        for _ in 0..2 * self.keys.clamp(5, FEW) {
            caller.queue();
            caller.round_trip()?;
        }
        if let (Some(tier), Way::Sql(connection)) = (&self.tier, &mut caller.way) {
            let sql = format!("SELECT state FROM steward.cache_explain('{}', '{}')", tier.query, tier.parameters);
            let state = connection.value(&sql)?;
            ensure!(state == tier.state, "{}: cache_explain says \"{state}\", not \"{}\"", self.name, tier.state);
        }
        Ok(caller)
    }

    /// May a call take milliseconds?
    pub fn is_slow(&self) -> bool {
        self.name.starts_with("query")
    }
}

/// A connection that makes the calls of a cell.
pub struct Caller {
    way: Way,
    cell: Cell,
    /// Processes whose CPU time is the calls'.
    pub pids: Vec<i32>,
    serial: u64,
}

enum Way {
    Sql(Connection),
    Redis(RedisConnection),
}

/// The largest prime number below 2^32: steps of it visit all keys of any table, in no order that is worth a name.
const STRIDE: u64 = 4_294_967_291;

impl Caller {
    /// Queues the next call.
    pub fn queue(&mut self) {
        self.serial += 1;
        let key = (1 + self.serial.wrapping_mul(STRIDE) % self.cell.keys).to_string();
        let parameters = self.cell.parameters.iter().map(|text| text.replace("@key", &key));
        match &mut self.way {
            Way::Redis(connection) => connection.queue(&["GET", &format!("{}{key}", self.cell.sql)]),
            Way::Sql(connection) if self.cell.is_prepared => {
                let parameters: Vec<String> = parameters.collect();
                let parameters: Vec<&str> = parameters.iter().map(String::as_str).collect();
                connection.queue_execute("cell", &parameters);
            }
            Way::Sql(connection) => {
                let mut sql = self.cell.sql.clone();
                for (number, text) in parameters.enumerate() {
                    sql = sql.replace(&format!("@{}", number + 1), &format!("'{text}'"));
                }
                connection.queue_query(&sql);
            }
        }
    }

    /// Sends what is queued and waits for the answer.
    pub fn round_trip(&mut self) -> Result<()> {
        self.answers(1)
    }

    /// The same for several queued calls.
    pub fn answers(&mut self, count: usize) -> Result<()> {
        match &mut self.way {
            Way::Redis(connection) => connection.round_trip(),
            Way::Sql(connection) => {
                connection.flush()?;
                connection.wait_ready(count)
            }
        }
    }
}
