//! The servers compared: what each preloads and how it is set.

use anyhow::{Context, Result, ensure};
use steward_test::Install;

/// One server of the comparison.
#[derive(Clone, Copy, Debug)]
pub struct Arm {
    pub name: &'static str,
    pub preload: &'static [&'static str],
    /// Settings beyond the common ones.
    pub conf: &'static [(&'static str, &'static str)],
}

pub const STOCK: &str = "stock";
/// A second stock server: what it seems to cost is the error of the method (A/A).
pub const STOCK_B: &str = "stockB";
pub const PGSS: &str = "pgss";
pub const STEWARD: &str = "steward";

pub const STEWARD_LIBRARY: &str = "pg_steward";
const PGSS_LIBRARY: &str = "pg_stat_statements";

pub const fn arm(
    name: &'static str,
    preload: &'static [&'static str],
    conf: &'static [(&'static str, &'static str)],
) -> Arm {
    Arm { name, preload, conf }
}

/// A benchmark is to show what everything costs, so capture may not switch parts of itself off: under valgrind its own
/// cost seems higher than it is, and it would.
const FULL: (&str, &str) = ("pg_steward.overhead_limit", "0");

/// All arms, in the order of the tables.
pub const ALL: &[Arm] = &[
    arm(STOCK, &[], &[]),
    arm(STOCK_B, &[], &[]),
    arm(PGSS, &[PGSS_LIBRARY], &[]),
    arm("pgss-all", &[PGSS_LIBRARY], &[("pg_stat_statements.track", "all")]),
    arm("pgss+ae", &[PGSS_LIBRARY, "auto_explain"], &[("auto_explain.log_min_duration", "1s")]),
    arm(STEWARD, &[STEWARD_LIBRARY], &[FULL]),
    arm("steward-all", &[STEWARD_LIBRARY], &[("pg_steward.track", "all"), FULL]),
    arm("steward-nobuf", &[STEWARD_LIBRARY], &[("pg_steward.track_buffers", "off"), FULL]),
    arm("steward-noplan", &[STEWARD_LIBRARY], &[("pg_steward.capture_plans", "off"), FULL]),
    arm("steward-noslow", &[STEWARD_LIBRARY], &[("pg_steward.slow_threshold", "-1"), FULL]),
    arm(
        "steward-1pct",
        &[STEWARD_LIBRARY],
        // Without the limits, which would end the capture of a fast statement after some milliseconds.
        &[("pg_steward.sample_rate", "0.01"), ("pg_steward.slow_limit_per_minute", "0"), FULL],
    ),
    arm("steward-off", &[STEWARD_LIBRARY], &[("pg_steward.capture_enabled", "off")]),
];

impl Arm {
    fn is_steward(&self) -> bool {
        self.preload.contains(&STEWARD_LIBRARY)
    }
}

/// The extensions that some of the arms need created.
pub fn extensions(arms: &[Arm]) -> Vec<&'static str> {
    let is_preloaded = |library: &&str| arms.iter().any(|arm| arm.preload.contains(library));
    [PGSS_LIBRARY, STEWARD_LIBRARY].into_iter().filter(is_preloaded).collect()
}

/// The arms of a comma-separated list, in its order; all of them without a list.
///
/// The arms of pg_steward are left out, with a word about it, where it is not installed and not asked for.
pub fn choose(list: Option<&str>, install: &Install) -> Result<Vec<Arm>> {
    let Some(list) = list else { return available(install) };
    let arms: Vec<Arm> = list.split(',').map(find).collect::<Result<_>>()?;
    ensure!(
        arms.iter().any(|arm| arm.name == STOCK),
        "the arm \"{STOCK}\" must be among --arms: all else is compared with it"
    );
    Ok(arms)
}

fn find(name: &str) -> Result<Arm> {
    let names: Vec<&str> = ALL.iter().map(|arm| arm.name).collect();
    let found = ALL.iter().find(|arm| arm.name == name).copied();
    found.with_context(|| format!("unknown arm \"{name}\" (one of {})", names.join(", ")))
}

fn available(install: &Install) -> Result<Vec<Arm>> {
    let library = format!("{}/{STEWARD_LIBRARY}.so", install.ask("--pkglibdir")?);
    let installed = std::path::Path::new(&library).exists();
    if !installed {
        println!("pg_steward is not installed ({library} is missing): its arms are left out.");
    }
    Ok(ALL.iter().filter(|arm| installed || !arm.is_steward()).copied().collect())
}
