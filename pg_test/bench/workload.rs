//! What the backends are made to do.
//!
//! A unit is what the figures are per: one statement, one transaction, or one call of a function.

use crate::client::Connection;
use crate::stats::Random;
use anyhow::{Context, Result};

/// One workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    Select,
    SimpleUpdate,
    TpcB,
    Unique,
    Nested,
    Aggregate,
}

/// Whether each statement waits for the answer to the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// One round trip a statement, as most applications work.
    Ping,
    /// A slice's statements sent in one go, each with its own Sync: no wake-up between them.
    Pipe,
}

/// Rows of pgbench's tables for one unit of scale.
const ACCOUNTS: u64 = 100_000;
const TELLERS: u64 = 10;

/// Columns of `bench_wide`; the select lists of the workload `unique` are drawn from them.
const WIDE_COLUMNS: u64 = 64;
/// Columns in one of these select lists: 64^4 = 16.8 million different statements.
const WIDE_LIST: u32 = 4;

const ACCOUNT_UPDATE: (&str, &str) = ("upd", "UPDATE pgbench_accounts SET abalance = abalance + $1 WHERE aid = $2");
const ACCOUNT_SELECT: (&str, &str) = ("sel", "SELECT abalance FROM pgbench_accounts WHERE aid = $1");
const TELLER_UPDATE: (&str, &str) = ("tel", "UPDATE pgbench_tellers SET tbalance = tbalance + $1 WHERE tid = $2");
const BRANCH_UPDATE: (&str, &str) = ("bra", "UPDATE pgbench_branches SET bbalance = bbalance + $1 WHERE bid = $2");
const HISTORY_INSERT: (&str, &str) =
    ("ins", "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES ($1, $2, $3, $4, CURRENT_TIMESTAMP)");
const BEGIN: (&str, &str) = ("beg", "BEGIN");
const END: (&str, &str) = ("end", "END");
const NESTED_CALL: (&str, &str) = ("nst", "SELECT bench_nested($1)");
const AGGREGATE: (&str, &str) =
    ("agg", "SELECT count(*), sum(abalance) FROM pgbench_accounts WHERE aid BETWEEN $1 AND $1 + 19999");

impl Workload {
    pub const ALL: [Self; 6] =
        [Self::Select, Self::SimpleUpdate, Self::TpcB, Self::Unique, Self::Nested, Self::Aggregate];

    /// The name on the command line and in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Select => "select",
            Self::SimpleUpdate => "update",
            Self::TpcB => "tpcb",
            Self::Unique => "unique",
            Self::Nested => "nested",
            Self::Aggregate => "agg",
        }
    }

    pub fn describe(self) -> &'static str {
        match self {
            Self::Select => "prepared point select (pgbench -S); unit: 1 statement",
            Self::SimpleUpdate => "prepared simple-update (pgbench -N); unit: a transaction of 5 statements",
            Self::TpcB => "prepared TPC-B (pgbench); unit: a transaction of 7 statements",
            Self::Unique => "every statement new to the server; unit: 1 unprepared statement",
            Self::Nested => "1,000 point selects in a PL/pgSQL function; unit: 1 call",
            Self::Aggregate => "count and sum of 20,000 rows; unit: 1 prepared statement",
        }
    }

    pub fn parse(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|workload| workload.name() == name);
        let names = Self::ALL.map(Self::name).join(", ");
        found.with_context(|| format!("unknown workload \"{name}\" (one of {names})"))
    }

    /// Units an arm runs before the next arm's turn: some 1.5 ms of work, short against any drift of the machine.
    pub fn units_per_slice(self) -> usize {
        match self {
            Self::Select => 100,
            Self::SimpleUpdate => 25,
            Self::TpcB => 16,
            Self::Unique => 25,
            Self::Nested | Self::Aggregate => 1,
        }
    }

    /// Units before anything counts: caches and plans warm; `unique` also fills a table of 5,000 statements.
    pub fn warm_up_units(self) -> usize {
        match self {
            Self::Unique => 6_000,
            Self::Nested | Self::Aggregate => 7,
            _ => 50,
        }
    }

    /// Lengths of callgrind's two runs; the difference of their instructions is that of (long - short) units.
    pub fn callgrind_units(self) -> (usize, usize) {
        match self {
            Self::Select => (500, 4_500),
            Self::SimpleUpdate | Self::TpcB => (100, 900),
            // Past the filling of a table of 5,000 statements, so that evictions are in the difference.
            Self::Unique => (6_000, 9_000),
            Self::Nested | Self::Aggregate => (8, 20),
        }
    }

    fn statements(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Select => &[ACCOUNT_SELECT],
            Self::SimpleUpdate => &[BEGIN, ACCOUNT_UPDATE, ACCOUNT_SELECT, HISTORY_INSERT, END],
            Self::TpcB => &[BEGIN, ACCOUNT_UPDATE, ACCOUNT_SELECT, TELLER_UPDATE, BRANCH_UPDATE, HISTORY_INSERT, END],
            Self::Unique => &[],
            Self::Nested => &[NESTED_CALL],
            Self::Aggregate => &[AGGREGATE],
        }
    }

    /// Prepares on a new connection what the workload runs.
    pub fn prepare(self, connection: &mut Connection) -> Result<()> {
        self.statements().iter().try_for_each(|(name, sql)| connection.prepare(name, sql))
    }
}

/// SQL for what the workloads need besides pgbench's tables.
pub fn setup_sql() -> String {
    let columns: Vec<String> = (0..WIDE_COLUMNS).map(|number| format!("c{number} int DEFAULT {number}")).collect();
    format!(
        "CREATE TABLE bench_wide (id int PRIMARY KEY, {});
         INSERT INTO bench_wide (id) VALUES (1);
         CREATE FUNCTION bench_nested(first int) RETURNS bigint LANGUAGE plpgsql AS $$
         DECLARE
             total bigint := 0;
             balance int;
         BEGIN
             FOR step IN 0..999 LOOP
                 SELECT abalance INTO balance FROM pgbench_accounts WHERE aid = first + step;
                 total := total + balance;
             END LOOP;
             RETURN total;
         END $$;",
        columns.join(", ")
    )
}

/// Runs units of a workload on connections, with keys that the caller's seed determines.
#[derive(Clone, Copy)]
pub struct Driver {
    pub workload: Workload,
    pub protocol: Protocol,
    pub scale: u64,
}

impl Driver {
    /// Runs `units` units. `serial` numbers them, so that `unique` never repeats a statement.
    pub fn run(self, connection: &mut Connection, random: &mut Random, units: usize, serial: u64) -> Result<()> {
        let mut queued = 0;
        for unit in 0..units {
            queued += self.unit(connection, random, serial + unit as u64)?;
        }
        connection.flush()?;
        connection.wait_ready(queued)
    }

    /// Runs or queues one unit and returns how many statements are queued.
    fn unit(self, connection: &mut Connection, random: &mut Random, serial: u64) -> Result<usize> {
        if self.workload == Workload::Unique {
            connection.queue_query(&unique_statement(serial));
            return self.after_one(connection);
        }
        let values = Values::draw(random, self.scale);
        let mut queued = 0;
        for (name, _) in self.workload.statements() {
            connection.queue_execute(name, &values.parameters(name));
            queued += self.after_one(connection)?;
        }
        Ok(queued)
    }

    fn after_one(self, connection: &mut Connection) -> Result<usize> {
        if self.protocol == Protocol::Pipe {
            return Ok(1);
        }
        connection.flush()?;
        connection.wait_ready(1)?;
        Ok(0)
    }
}

/// Parameters of one unit, as pgbench draws them.
struct Values {
    account: String,
    branch: String,
    teller: String,
    delta: String,
    first: String,
}

impl Values {
    fn draw(random: &mut Random, scale: u64) -> Self {
        let delta = random.below(10_001) as i64 - 5_000;
        Self {
            account: (1 + random.below(ACCOUNTS * scale)).to_string(),
            branch: (1 + random.below(scale)).to_string(),
            teller: (1 + random.below(TELLERS * scale)).to_string(),
            delta: delta.to_string(),
            first: (1 + random.below(ACCOUNTS * scale - 20_000)).to_string(),
        }
    }

    fn parameters(&self, statement: &str) -> Vec<&str> {
        match statement {
            "sel" => vec![&self.account],
            "upd" => vec![&self.delta, &self.account],
            "tel" => vec![&self.delta, &self.teller],
            "bra" => vec![&self.delta, &self.branch],
            "ins" => vec![&self.teller, &self.branch, &self.account, &self.delta],
            "nst" | "agg" => vec![&self.first],
            _ => vec![],
        }
    }
}

/// A statement whose select list, and so whose query id, no other serial number shares (up to 16.8 million).
///
/// Constants and column aliases do not count for a query id, the columns read do.
pub fn unique_statement(serial: u64) -> String {
    let column = |place| format!("c{}", serial / WIDE_COLUMNS.pow(place) % WIDE_COLUMNS);
    let list: Vec<String> = (0..WIDE_LIST).map(column).collect();
    format!("SELECT {} FROM bench_wide WHERE id = 1", list.join(", "))
}
