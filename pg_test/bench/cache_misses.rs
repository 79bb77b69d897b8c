//! What a call costs that has to run its query, against the query itself: one of each by turns, with the same parameter.

use crate::cache_measure::cpu_ns;
use crate::cache_options::Options;
use crate::cache_report::spread;
use crate::cache_rig::Rig;
use crate::client::Connection;
use crate::process::{PinnedToOneCore, pin};
use crate::server::{Server, progress};
use crate::stats::{Random, median};
use anyhow::Result;
use std::time::{Duration, Instant};

/// Some 5 to 10 ms; the parameter is not to change that.
const QUERY: &str =
    "SELECT count(*), sum(abalance), max(abalance) FROM pgbench_accounts WHERE aid BETWEEN $1 AND $1 + 59999";
const PARAMETERS: u64 = 200_000;
/// Different parameters of the cell in which one result is stored again and again.
const FEW: u64 = 4;
/// A cell has this many times the seconds of a hit's: its calls are slow.
const PATIENCE: f64 = 2.0;

/// Why a call finds nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Miss {
    /// The query again: what the method makes of no difference.
    Nothing,
    Refused,
    FirstSight,
    Stored,
    Invalidated,
}

impl Miss {
    const ALL: [Self; 5] = [Self::Nothing, Self::Refused, Self::FirstSight, Self::Stored, Self::Invalidated];

    fn describe(self) -> &'static str {
        match self {
            Self::Nothing => "the query again (A/A)",
            Self::Refused => "never admitted: too fast",
            Self::FirstSight => "each parameter new, not stored at first sight",
            Self::Stored => "each parameter new, stored",
            Self::Invalidated => "invalidated before each call, stored again",
        }
    }

    fn session(self) -> &'static str {
        match self {
            Self::Nothing => "SELECT 1",
            Self::Refused => "SET pg_steward.cache_min_execution_time = '1h'",
            Self::FirstSight => "SET pg_steward.cache_admission_window = '1min'",
            Self::Stored | Self::Invalidated => "SET pg_steward.cache_admission_window = 0",
        }
    }

    fn keys(self) -> u64 {
        if self == Self::Invalidated { FEW } else { PARAMETERS }
    }
}

/// Medians over the pairs of a round.
struct Round {
    plain_us: f64,
    cpu_ratio: f64,
    extra_us: f64,
    time_ratio: f64,
}

/// Measures every kind and prints the table.
pub fn run(options: &Options, rig: &Rig) -> Result<()> {
    let mut random = Random::new(options.seed);
    let mut order = Miss::ALL;
    let mut rounds: Vec<(Miss, Round)> = Vec::new();
    print!("Misses, rounds:");
    for number in 1..=options.rounds {
        progress(&number.to_string())?;
        random.shuffle(&mut order);
        for miss in order {
            rounds.push((miss, round(options, &rig.server, miss, &mut random)?));
        }
    }
    println!("\n\nA miss over the plain prepared query, by pairs; median of the rounds (lowest-highest); aim: 1.05");
    println!("  {:<46} {:>9}  {:<24} {:>10}  time ratio", "cell", "plain us", "CPU ratio", "CPU us more");
    for miss in Miss::ALL {
        let of = |value: fn(&Round) -> f64| -> Vec<f64> {
            rounds.iter().filter(|(kind, _)| *kind == miss).map(|(_, round)| value(round)).collect()
        };
        println!(
            "  {:<46} {:>9.0}  {:<24} {:>+10.0}  {}",
            miss.describe(),
            median(&of(|round| round.plain_us)),
            spread(&of(|round| round.cpu_ratio), 3),
            median(&of(|round| round.extra_us)),
            spread(&of(|round| round.time_ratio), 3)
        );
    }
    Ok(())
}

fn round(options: &Options, server: &Server, miss: Miss, random: &mut Random) -> Result<Round> {
    let mut plain = server.connect()?;
    plain.prepare("call", QUERY)?;
    let mut cached = server.connect()?;
    cached.query(miss.session())?;
    let call = format!("SELECT steward.cached_json('{QUERY}', $1)");
    cached.prepare("call", if miss == Miss::Nothing { QUERY } else { &call })?;
    let mut control = server.connect()?;
    control.query("SELECT steward.cache_clear()")?;
    let pinned = options.pinned.then(PinnedToOneCore::new).transpose()?;
    if let Some(pinned) = &pinned {
        pin(plain.pid(), pinned.core())?;
        pin(cached.pid(), pinned.core())?;
    }
    let (mut ratios, mut extra, mut times, mut plains) = (vec![], vec![], vec![], vec![]);
    let deadline = Instant::now() + Duration::from_secs_f64(options.secs * PATIENCE);
    let mut warm_up = 7;
    while Instant::now() < deadline || ratios.is_empty() {
        if miss == Miss::Invalidated {
            control.query("SELECT steward.cache_invalidate('pgbench_accounts')")?;
        }
        let key = (1 + random.below(miss.keys())).to_string();
        let document = if miss == Miss::Nothing { key.clone() } else { format!("[{key}]") };
        let cached_first = random.below(2) == 0;
        let first = if cached_first { Some(time(&mut cached, &document)?) } else { None };
        let (plain_us, plain_cpu) = time(&mut plain, &key)?;
        let (cached_us, cached_cpu) = first.map_or_else(|| time(&mut cached, &document), Ok)?;
        if warm_up > 0 {
            warm_up -= 1;
            continue;
        }
        plains.push(plain_cpu);
        ratios.push(cached_cpu / plain_cpu);
        extra.push(cached_cpu - plain_cpu);
        times.push(cached_us / plain_us);
    }
    Ok(Round {
        plain_us: median(&plains),
        cpu_ratio: median(&ratios),
        extra_us: median(&extra),
        time_ratio: median(&times),
    })
}

/// Time and server CPU of one call, in microseconds.
fn time(connection: &mut Connection, parameter: &str) -> Result<(f64, f64)> {
    let pid = [connection.pid()];
    let cpu_before = cpu_ns(&pid)?;
    let sent = Instant::now();
    connection.queue_execute("call", &[parameter]);
    connection.flush()?;
    connection.wait_ready(1)?;
    let elapsed_us = sent.elapsed().as_nanos() as f64 / 1e3;
    Ok((elapsed_us, (cpu_ns(&pid)? - cpu_before) as f64 / 1e3))
}
