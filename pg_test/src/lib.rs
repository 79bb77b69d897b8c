//! Throw-away Postgres clusters for the tests, the benchmarks and the demo.
//!
//! ```no_run
//! let cluster = steward_test::Cluster::new("example").preload("pg_steward").start()?;
//! cluster.psql("postgres", "CREATE EXTENSION pg_steward")?;
//! # anyhow::Ok(())
//! ```
//!
//! The Postgres under test is the one of the environment variable `PG_CONFIG` (default: `pg_config` on the PATH).
//! As root, the server and its tools run as the operating-system user `postgres`.
#![forbid(unsafe_code)]

mod cluster;
mod install;
mod log;
#[cfg(test)]
mod selftest;
mod workdir;

pub use cluster::{Builder, Cluster, StopMode};
pub use install::Install;
pub use log::at_warning_or_above;

use std::time::{Duration, Instant};

/// Polls `condition` every 20 ms until it holds; false when it does not within `timeout`.
pub fn wait_until(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + timeout;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
