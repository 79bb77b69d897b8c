//! User-space instructions per call, by valgrind's callgrind: blind to the kernel and to caches, but they repeat on a busy
//! machine. The method is that of `bench-capture callgrind`: the difference of a longer and a shorter run.

use crate::arms::{Arm, STEWARD_LIBRARY, STOCK_B, arm};
use crate::cache_cells::{self, Cell as Call, FLOOR, Target};
use crate::cache_options::Options;
use crate::cache_rig::{self, CACHE_CONF};
use crate::cache_writes::{self, ARMS, WORKLOADS};
use crate::client::Connection;
use crate::server::{Callgrind, Server, progress};
use crate::stats::median;
use anyhow::{Context, Result};
use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use steward_test::wait_until;

/// How long a backend may take to write its profile after the client left.
const PROFILE_LIMIT: Duration = Duration::from_secs(60);
const HIT_UNITS: [usize; 2] = [100, 500];
const WRITE_UNITS: [usize; 2] = [100, 900];
const WARM_UP_UNITS: usize = 200;
/// Each row is written once, and its page has room: the length of chains of versions depends on when others let them be
/// pruned, which the library's worker does under valgrind, too.
const ROOMY: &str = "CREATE TABLE roomy (aid int PRIMARY KEY, abalance int, filler char(84)) WITH (fillfactor = 45);
    INSERT INTO roomy SELECT aid, 0, '' FROM generate_series(1, 20000) AS aid";
/// Calls that are sent at once: how often a backend finds its socket empty would count otherwise.
const SLICE: usize = 20;

/// Capture looks once at the plan of a statement that has proved worth it: in one of two runs, or in both.
const COUNTED: Arm = arm(
    "cache",
    &[STEWARD_LIBRARY],
    &[CACHE_CONF[0], CACHE_CONF[1], CACHE_CONF[2], ("pg_steward.capture_plans", "off")],
);

/// Counts hits on one server and writes on the arms, and prints both.
pub fn run(options: &Options, servers: &[Server]) -> Result<()> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("Instructions are left out: there is no valgrind (Debian: apt-get install valgrind)");
        return Ok(());
    }
    // The first ones are for the writes, and a server has room for the profiles of one start.
    hits(options, servers.last().context("no server")?)?;
    writes(servers)
}

fn hits(options: &Options, server: &Server) -> Result<()> {
    server.become_arm(&COUNTED)?;
    // Without valgrind, which would take long over the tables.
    server.start()?;
    cache_rig::fill(&mut server.connect()?)?;
    server.stop()?;
    let running = server.start_callgrind()?;
    let all = cache_cells::all(options.scale);
    let wanted = |cell: &&Call| {
        let is_twin = cell.name.ends_with(".simple") && !cell.name.starts_with("select1");
        cell.target == Target::Server
            && !cell.is_slow()
            && !is_twin
            && (cell.name == FLOOR || options.wants(&cell.name))
    };
    let cells: Vec<&Call> = all.iter().filter(wanted).collect();
    print!("Counting the instructions of hits:");
    let mut counts = Vec::new();
    for cell in cells {
        progress(&cell.name)?;
        // Whoever comes first computes the result.
        drop(cell.open_on(server)?);
        counts.push((&cell.name, count(&running, HIT_UNITS, |units| hit_backend(&running, cell, units))?));
    }
    let floor = counts.first().map_or(f64::NAN, |(_, count)| *count);
    println!("\n\nUser-space instructions of a call");
    println!("  {:<18} {:>12} {:>12}", "cell", "instructions", "/ SELECT 1");
    for (name, count) in counts {
        println!("  {name:<18} {count:>12.0} {:>12.2}", count / floor);
    }
    Ok(())
}

/// Instructions of one unit, of a backend that `work` runs for a number of units and whose pid it gives.
fn count(running: &Callgrind, [short, long]: [usize; 2], work: impl Fn(usize) -> Result<i32>) -> Result<f64> {
    let total = |units: usize| {
        let path = running.profile_of(work(units)?);
        let mut found = None;
        wait_until(PROFILE_LIMIT, || {
            found = total_of(&path);
            found.is_some()
        });
        found.with_context(|| format!("no profile at {}", path.display()))
    };
    Ok((total(long)? - total(short)?) / (long - short) as f64)
}

/// The sum that ends a profile; `None` while it is not written.
fn total_of(profile: &Path) -> Option<f64> {
    let mut file = File::open(profile).ok()?;
    let start = file.metadata().ok()?.len().saturating_sub(256);
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut end = Vec::new();
    file.read_to_end(&mut end).ok()?;
    let end = String::from_utf8_lossy(&end);
    end.lines().find_map(|line| line.strip_prefix("totals:")).and_then(|total| total.trim().parse().ok())
}

fn hit_backend(running: &Callgrind, cell: &Call, units: usize) -> Result<i32> {
    let mut caller = cell.open_on(running.server)?;
    for start in (0..units).step_by(SLICE) {
        let calls = SLICE.min(units - start);
        (0..calls).for_each(|_| caller.queue());
        caller.answers(calls)?;
    }
    Ok(caller.pids[0])
}

fn writes(servers: &[Server]) -> Result<()> {
    print!("Counting the instructions of transactions:");
    let mut counts: Vec<Vec<f64>> = WORKLOADS.iter().map(|_| Vec::new()).collect();
    let arms: Vec<&Arm> = ARMS.iter().filter(|arm| arm.name != STOCK_B).collect();
    for (server, arm) in servers.iter().zip(&arms) {
        progress(arm.name)?;
        server.become_arm(arm)?;
        let running = server.start_callgrind()?;
        server.connect()?.query(ROOMY)?;
        server.connect()?.query("VACUUM (FREEZE, ANALYZE) roomy")?;
        cache_writes::fill_cache(server, arm, "roomy")?;
        let next = Cell::new(1);
        for ((_, _, sql), counts) in WORKLOADS.iter().zip(&mut counts) {
            let once = || count(&running, WRITE_UNITS, |units| write_backend(&running, sql, units, &next));
            counts.push(median(&[once()?, once()?, once()?]));
        }
    }
    println!("\n\nUser-space instructions of a transaction");
    println!("  {:<46} {:<14} {:>12} {:>8} {:>9}", "transaction", "arm", "instructions", "more", "ratio");
    for ((_, what, _), counts) in WORKLOADS.iter().zip(&counts) {
        for (arm, count) in arms.iter().zip(counts) {
            let (more, ratio) = (count - counts[0], count / counts[0]);
            println!("  {what:<46} {:<14} {count:>12.0} {more:>+8.0} {ratio:>9.4}", arm.name);
        }
    }
    Ok(())
}

fn write_backend(running: &Callgrind, sql: &str, units: usize, next: &Cell<usize>) -> Result<i32> {
    let mut connection = running.server.connect()?;
    connection.prepare("unit", &sql.replace("pgbench_accounts", "roomy"))?;
    send(&mut connection, WARM_UP_UNITS, next)?;
    send(&mut connection, units, next)?;
    Ok(connection.pid())
}

fn send(connection: &mut Connection, units: usize, next: &Cell<usize>) -> Result<()> {
    for start in (0..units).step_by(SLICE) {
        let calls = SLICE.min(units - start);
        for _ in 0..calls {
            connection.queue_execute("unit", &[&next.get().to_string()]);
            next.set(next.get() + 1);
        }
        connection.flush()?;
        connection.wait_ready(calls)?;
    }
    Ok(())
}
