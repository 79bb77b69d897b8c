//! What every part of the workload shares: connections under the application's names, keys, trace headers.

use crate::sql;
use anyhow::{Context, Result};
use postgres::{Client, Config, NoTls};

/// The application and the size of its data.
pub struct App {
    config: Config,
    pub customers: i64,
    pub parts: i64,
}

impl App {
    /// Connects as the superuser of `dsn` and sets up roles and functions.
    pub fn open(dsn: &str) -> Result<Self> {
        let config: Config = dsn.parse().context("bad connection string")?;
        let mut app = Self { config, customers: 0, parts: 0 };
        let mut admin = app.admin("deployment")?;
        admin.batch_execute(sql::SETUP).context("cannot set the workload up")?;
        app.customers = admin.query_one("SELECT max(c_custkey) FROM customer", &[])?.get(0);
        app.parts = admin.query_one("SELECT max(p_partkey) FROM part", &[])?.get(0);
        Ok(app)
    }

    /// A connection of the superuser.
    pub fn admin(&self, application: &str) -> Result<Client> {
        let mut config = self.config.clone();
        config.application_name(application);
        config.connect(NoTls).with_context(|| format!("cannot connect for {application}"))
    }

    /// A connection of one of the application's roles.
    pub fn connect(&self, user: &str, application: &str) -> Result<Client> {
        let mut config = self.config.clone();
        config.user(user).application_name(application);
        config.connect(NoTls).with_context(|| format!("cannot connect as {user}"))
    }
}

/// Keys in an order that looks random and is always the same: Knuth's linear congruential generator MMIX
/// (The Art of Computer Programming, vol. 2, 3.3.4), of which only the better, upper bits are used.
pub struct Keys(u64);

impl Keys {
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// A key from 1 to `max`.
    pub fn next(&mut self, max: i64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let upper = i64::from((self.0 >> 33) as u32);
        upper % max.max(1) + 1
    }

    /// A day as an offset in days, within the years that the data covers (1992 to 1998, from 1995 on).
    pub fn day(&mut self) -> i32 {
        self.next(1000) as i32
    }
}

/// A header as W3C Trace Context has it: version, trace, span, "sampled".
pub fn traceparent(request: u32) -> String {
    format!("00-{:032x}-{:016x}-01", 0x5eed_0000_0000_u64 + u64::from(request), 0xcafe_0000_u64 + u64::from(request))
}

/// A statement with the trace header in a comment, in the manner of sqlcommenter.
pub fn commented(statement: &str, request: u32, route: &str) -> String {
    let route = route.replace('/', "%2F");
    format!("{statement} /*route='{route}',traceparent='{}'*/", traceparent(request))
}
