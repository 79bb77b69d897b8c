//! Latency and server CPU of each cell, measured between slices of the floor.
//!
//! A cell and the floor take turns, some milliseconds each, so that what changes more slowly hits both alike and drops
//! out of the ratio. Connections are new in every round, and the cells' order is drawn anew: where memory comes to lie
//! makes a backend some percent faster or slower for its whole life. The rounds are the sample.

use crate::cache_cells::{self, Caller, Cell, FLOOR, Target};
use crate::cache_options::Options;
use crate::cache_report::{CellResult, print_cells};
use crate::cache_rig::Rig;
use crate::process::{PinnedToOneCore, pin};
use crate::server::progress;
use crate::stats::{Random, median};
use anyhow::{Context, Result};
use std::fs;
use std::time::{Duration, Instant};

/// How long the floor and a fast cell have before it is the other's turn.
const SLICE: Duration = Duration::from_millis(8);

/// What some calls of one cell took.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    pub p50_us: f64,
    pub cpu_us: f64,
}

/// What one round found for a cell.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    pub cell: Slice,
    pub p50_ratio: f64,
    pub cpu_ratio: f64,
}

/// Cells that are measured without pinning as well, by the beginnings of their names: those with an aim, and their peers.
/// The aims were set by figures of such a run, in which SELECT 1 itself costs about twice as much.
const FREE_CELLS: [&str; 8] = ["json.", "json_key.", "json_all.", "rows100.", "hand", "scan100", "redis", "point"];

/// Runs the comparison and prints its tables.
pub fn run(options: &Options, rig: &Rig) -> Result<()> {
    let is_there = |cell: &Cell| match cell.target {
        Target::Server => true,
        Target::Redis => rig.redis.is_some(),
        Target::Pgpool => rig.pgpool.is_some(),
    };
    let mut cells = cache_cells::all(options.scale);
    let floor = cells.iter().find(|cell| cell.name == FLOOR).context("no floor")?.clone();
    cells.retain(|cell| options.wants(&cell.name) && is_there(cell));
    if options.pinned {
        table(options, rig, (&floor, &cells), true)?;
        let is_simple = |cell: &Cell| cell.name.ends_with(".simple");
        cells.retain(|cell| !is_simple(cell) && FREE_CELLS.iter().any(|start| cell.name.starts_with(start)));
    }
    if !cells.is_empty() {
        table(options, rig, (&floor, &cells), false)?;
    }
    Ok(())
}

fn table(options: &Options, rig: &Rig, (floor, cells): (&Cell, &[Cell]), pinned: bool) -> Result<()> {
    let mut results: Vec<Vec<Round>> = cells.iter().map(|_| Vec::new()).collect();
    let mut order: Vec<usize> = (0..cells.len()).collect();
    let mut random = Random::new(options.seed);
    print!("Hits, {} cells, rounds:", cells.len());
    for number in 1..=options.rounds {
        progress(&number.to_string())?;
        random.shuffle(&mut order);
        for &place in &order {
            results[place].push(round(options, rig, (floor, &cells[place]), pinned)?);
        }
    }
    println!();
    let result = |(cell, rounds): (&Cell, Vec<Round>)| CellResult { name: cell.name.clone(), rounds };
    print_cells(&cells.iter().zip(results).map(result).collect::<Vec<_>>(), pinned);
    Ok(())
}

/// One cell between slices of the floor, with new connections.
fn round(options: &Options, rig: &Rig, (floor, cell): (&Cell, &Cell), pinned: bool) -> Result<Round> {
    let mut floor = floor.open(rig)?;
    let mut caller = cell.open(rig)?;
    let pinned = pinned.then(PinnedToOneCore::new).transpose()?;
    if let Some(pinned) = &pinned {
        floor.pids.iter().chain(&caller.pids).try_for_each(|pid| pin(*pid, pinned.core()))?;
    }
    let (mut pairs, mut slices) = (Vec::new(), Vec::new());
    let deadline = Instant::now() + Duration::from_secs_f64(options.secs);
    let mut before = slice(&mut floor, SLICE)?;
    while Instant::now() < deadline || pairs.is_empty() {
        let inner = slice(&mut caller, if cell.is_slow() { Duration::ZERO } else { SLICE })?;
        let after = slice(&mut floor, SLICE)?;
        let p50_ratio = inner.p50_us / f64::midpoint(before.p50_us, after.p50_us);
        pairs.push((p50_ratio, inner.cpu_us / f64::midpoint(before.cpu_us, after.cpu_us)));
        slices.push(inner);
        before = after;
    }
    let of_pairs = |value: fn(&(f64, f64)) -> f64| median(&pairs.iter().map(value).collect::<Vec<_>>());
    let of_slices = |value: fn(&Slice) -> f64| median(&slices.iter().map(value).collect::<Vec<_>>());
    Ok(Round {
        cell: Slice { p50_us: of_slices(|slice| slice.p50_us), cpu_us: of_slices(|slice| slice.cpu_us) },
        p50_ratio: of_pairs(|pair| pair.0),
        cpu_ratio: of_pairs(|pair| pair.1),
    })
}

/// Calls until the time is over, once at least.
fn slice(caller: &mut Caller, time: Duration) -> Result<Slice> {
    let mut latencies_us = Vec::new();
    let cpu_before = cpu_ns(&caller.pids)?;
    let begun = Instant::now();
    while latencies_us.is_empty() || begun.elapsed() < time {
        caller.queue();
        let sent = Instant::now();
        caller.round_trip()?;
        latencies_us.push(sent.elapsed().as_nanos() as f64 / 1e3);
    }
    let cpu_us = (cpu_ns(&caller.pids)? - cpu_before) as f64 / 1e3 / latencies_us.len() as f64;
    Ok(Slice { p50_us: median(&latencies_us), cpu_us })
}

/// CPU time of some processes, all their threads: first fields of /proc/PID/task/TID/schedstat.
pub fn cpu_ns(pids: &[i32]) -> Result<u64> {
    let mut sum = 0;
    for pid in pids {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))?;
        for task in tasks {
            // A thread may have ended meanwhile.
            let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            sum += text.split_whitespace().next().map_or(Ok(0), str::parse::<u64>)?;
        }
    }
    Ok(sum)
}
