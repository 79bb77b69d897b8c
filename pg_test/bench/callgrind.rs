//! User-space instructions per unit, counted by valgrind's callgrind.
//!
//! The postmaster runs under valgrind and so do its backends. Two backends run the same workload, one longer; the
//! difference of their instructions divided by the difference of their units is free of start-up and warm-up. Statements
//! are sent a slice at a time, each a transaction with its own Sync: how often a backend finds its socket empty depends
//! on the machine's mood and costs instructions, up to 200 a statement. What is left is blind to system calls and caches,
//! but repeats to some ten instructions on a busy machine.

use crate::arms::{Arm, PGSS, STEWARD, STOCK, STOCK_B};
use crate::client::Connection;
use crate::options::Options;
use crate::profile::Profile;
use crate::server::{Callgrind, Server, Template, progress};
use crate::stats::Random;
use crate::workload::{Driver, Protocol, Workload};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use steward_test::wait_until;

/// How long a backend may take to write its profile after the client left.
const PROFILE_LIMIT: Duration = Duration::from_secs(60);
const KEYS_SEED: u64 = 1;
const WARM_UP_UNITS: usize = 10;
/// Far from the serial numbers of the units that are counted.
const WARM_UP_SERIAL: u64 = (1 << 24) - 1_000;
/// The part of pg_stat_statements' added instructions which pg_steward aims to stay within.
const TARGET_PART: f64 = 0.25;

/// Instructions per unit of one arm.
struct Count {
    arm: &'static str,
    per_unit: Profile,
}

/// Runs the workloads under callgrind and prints a table for each.
pub fn run(options: &Options) -> Result<()> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        bail!("valgrind is not installed (Debian: apt-get install valgrind)");
    }
    let arms = options.arms()?;
    let template = Template::make(options.scale, &arms)?;
    let servers = Server::create_all(&template, arms.len())?;
    let mut counts: Vec<Vec<Count>> = options.workloads.iter().map(|_| Vec::new()).collect();
    print!("Counting:");
    for (server, arm) in servers.iter().zip(&arms) {
        progress(arm.name)?;
        for (counts, per_unit) in counts.iter_mut().zip(count_arm(options, server, arm)?) {
            counts.push(Count { arm: arm.name, per_unit });
        }
    }
    println!();
    for (workload, counts) in options.workloads.iter().zip(&counts) {
        print(*workload, counts, options.functions)?;
    }
    Ok(())
}

/// Instructions per unit of each workload on one server.
fn count_arm(options: &Options, server: &Server, arm: &Arm) -> Result<Vec<Profile>> {
    server.become_arm(arm)?;
    let running = server.start_callgrind()?;
    server.check_settings(arm)?;
    server.prewarm()?;
    let count = |workload: &Workload| {
        let driver = Driver { workload: *workload, protocol: Protocol::Pipe, scale: options.scale };
        let (short_units, long_units) = workload.callgrind_units();
        let short = backend(&running, driver, short_units, 0)?;
        let long = backend(&running, driver, long_units, short_units as u64)?;
        if let Some(keep) = &options.keep {
            keep_profiles(keep, arm.name, workload.name(), &short, &long)?;
        }
        let units = (long_units - short_units) as f64;
        Ok(Profile::read(&long)?.minus(&Profile::read(&short)?).per(units))
    };
    let profiles = options.workloads.iter().map(count).collect();
    drop(running);
    profiles
}

/// Runs one backend for `units` units and returns the path of its profile.
fn backend(running: &Callgrind, driver: Driver, units: usize, serial: u64) -> Result<PathBuf> {
    let mut connection = running.server.connect()?;
    let path = running.profile_of(connection.pid());
    driver.workload.prepare(&mut connection)?;
    let (mut keys, slice) = (Random::new(KEYS_SEED), driver.workload.units_per_slice());
    warm_up(&mut connection, driver)?;
    for start in (0..units).step_by(slice) {
        driver.run(&mut connection, &mut keys, slice.min(units - start), serial + start as u64)?;
    }
    drop(connection);
    ensure!(wait_until(PROFILE_LIMIT, || Profile::is_complete(&path)), "no profile at {}", path.display());
    Ok(path)
}

/// What a backend does once per statement (making its entry, looking at its plan when it has proved worth it, a second
/// later) belongs to neither run: it happens in both, and cancels.
fn warm_up(connection: &mut Connection, driver: Driver) -> Result<()> {
    let mut keys = Random::new(!KEYS_SEED);
    for _ in 0..3 {
        driver.run(connection, &mut keys, WARM_UP_UNITS, WARM_UP_SERIAL)?;
        std::thread::sleep(Duration::from_millis(1_100));
    }
    Ok(())
}

fn keep_profiles(keep: &Path, arm: &str, workload: &str, short: &Path, long: &Path) -> Result<()> {
    fs::create_dir_all(keep).with_context(|| format!("cannot create {}", keep.display()))?;
    fs::copy(short, keep.join(format!("{arm}.{workload}.short")))?;
    fs::copy(long, keep.join(format!("{arm}.{workload}.long")))?;
    Ok(())
}

fn print(workload: Workload, counts: &[Count], functions: usize) -> Result<()> {
    let find = |name| counts.iter().find(|count| count.arm == name).map(|count| &count.per_unit);
    let stock = find(STOCK).context("no stock arm")?;
    let added = |profile: &Profile| profile.total() - stock.total();
    let pgss = find(PGSS).map(added);
    println!("\n{}: {}", workload.name(), workload.describe());
    println!("  stock takes {:.0} user-space instructions a unit", stock.total());
    println!("  {:<16} {:>12} {:>10} {:>14}", "arm", "added", "/ stock's", "/ pgss's added");
    for count in counts.iter().filter(|count| count.arm != STOCK) {
        let label = if count.arm == STOCK_B { "stockB (A/A)" } else { count.arm };
        let more = added(&count.per_unit);
        let part = pgss.map_or_else(String::new, |pgss| format!("{:.2}", more / pgss));
        println!("  {label:<16} {more:>+12.0} {:>10.4} {part:>14}", count.per_unit.total() / stock.total());
    }
    if let (Some(pgss), Some(steward), Workload::Select) = (pgss, find(STEWARD).map(added), workload) {
        println!(
            "  pg_steward adds {:.2} of what pg_stat_statements adds (aim: at most {TARGET_PART}).",
            steward / pgss
        );
    }
    if functions > 0 {
        counts.iter().filter(|count| count.arm != STOCK).for_each(|count| print_functions(count, stock, functions));
    }
    Ok(())
}

fn print_functions(count: &Count, stock: &Profile, functions: usize) {
    println!("\n  {} beyond stock, instructions a unit, by function:", count.arm);
    for (name, instructions) in count.per_unit.minus(stock).largest(functions) {
        println!("    {instructions:>+9.1}  {name}");
    }
}
