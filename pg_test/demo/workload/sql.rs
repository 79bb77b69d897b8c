//! Named statements out of the workload's SQL files.

use anyhow::{Context, Result};

const SHOP: &str = include_str!("shop.sql");
const REPORTS: &str = include_str!("reports.sql");
const BATCH: &str = include_str!("batch.sql");
const TROUBLE: &str = include_str!("trouble.sql");
const MARK: &str = "-- name: ";

/// What has to be there before the workload can run.
pub const SETUP: &str = include_str!("setup.sql");

/// A statement by its name, which is unique over all files.
pub fn named(name: &str) -> Result<&'static str> {
    [SHOP, REPORTS, BATCH, TROUBLE]
        .iter()
        .find_map(|file| within(file, name))
        .with_context(|| format!("the workload has no statement \"{name}\""))
}

fn within<'a>(file: &'a str, name: &str) -> Option<&'a str> {
    let mut sections = file.split(MARK).skip(1);
    sections.find_map(|section| section.strip_prefix(name)?.strip_prefix('\n')).map(str::trim_end)
}
