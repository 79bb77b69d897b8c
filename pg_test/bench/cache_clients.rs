//! Hits by many clients at once: alone, while another table is updated, while the table itself is.

use crate::cache_measure::cpu_ns;
use crate::cache_options::Options;
use crate::cache_report::spread;
use crate::cache_rig::Rig;
use crate::client::Connection;
use crate::server::{Server, progress};
use crate::stats::{Random, median};
use anyhow::{Result, anyhow};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A query of some 100 microseconds, so that clients spend their time on hits even when a commit has made all results
/// untrue.
const CALL: &str = "SELECT steward.cached_json(
    'SELECT count(*), sum(abalance) FROM pgbench_accounts WHERE aid BETWEEN $1 AND $1 + 499', $1)";
const KEYS: u64 = 32;
/// Enough for what these figures are worth: clients and servers compete for the cores.
const MAX_ROUNDS: usize = 5;
/// Between two updates.
const PAUSE: Duration = Duration::from_millis(100);

/// What goes on meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scene {
    /// No cache at all: SELECT 1, for scale.
    Floor,
    Alone,
    OtherTable,
    SameTable,
}

impl Scene {
    const ALL: [Self; 4] = [Self::Floor, Self::Alone, Self::OtherTable, Self::SameTable];

    fn describe(self) -> &'static str {
        match self {
            Self::Floor => "SELECT 1",
            Self::Alone => "hits alone",
            Self::OtherTable => "+ other table, 10/s",
            Self::SameTable => "+ same table, 10/s",
        }
    }

    fn call(self) -> &'static str {
        if self == Self::Floor { "SELECT 1" } else { CALL }
    }

    fn update(self) -> Option<&'static str> {
        match self {
            Self::OtherTable => Some("UPDATE pgbench_tellers SET tbalance = tbalance + 1 WHERE tid = 1"),
            Self::SameTable => Some("UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = 90000"),
            Self::Floor | Self::Alone => None,
        }
    }
}

/// What some clients did.
struct Outcome {
    calls_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    cpu_us: f64,
    /// Part of the calls that were answered from the cache.
    hit_ratio: f64,
}

/// The scenes of one number of clients, measured one after the other.
type Round = Vec<(Scene, Outcome)>;

/// Runs all numbers of clients in all scenes and prints the table.
pub fn run(options: &Options, rig: &Rig) -> Result<()> {
    let mut random = Random::new(options.seed);
    let (mut counts, mut scenes) = (options.clients.clone(), Scene::ALL);
    let mut rounds: Vec<(usize, Round)> = Vec::new();
    print!("Clients, rounds:");
    for number in 1..=options.rounds.min(MAX_ROUNDS) {
        progress(&number.to_string())?;
        random.shuffle(&mut counts);
        for &count in &counts {
            random.shuffle(&mut scenes);
            let scene = |scene: &Scene| Ok((*scene, measure(&rig.server, count, *scene, options.secs)?));
            rounds.push((count, scenes.iter().map(scene).collect::<Result<_>>()?));
        }
    }
    println!("\n\nClients and servers on all cores; ratios to SELECT 1 of the same round; median (lowest-highest)");
    println!(
        "  {:>7} {:<20} {:>8} {:<22} {:>8} {:>8} {:>8} {:<20} {:>8}",
        "clients", "scene", "calls/s", "ratio", "p50 us", "p99 us", "CPU us", "ratio", "hits"
    );
    for &count in &options.clients {
        let ours: Vec<&Round> =
            rounds.iter().filter(|(clients, _)| *clients == count).map(|(_, round)| round).collect();
        for scene in Scene::ALL {
            print_line(count, scene, &ours);
        }
    }
    Ok(())
}

fn print_line(count: usize, scene: Scene, rounds: &[&Round]) {
    let of = |played: Scene, value: fn(&Outcome) -> f64| -> Vec<f64> {
        rounds
            .iter()
            .flat_map(|round| round.iter())
            .filter(|(scene, _)| *scene == played)
            .map(|(_, o)| value(o))
            .collect()
    };
    let middle = |value: fn(&Outcome) -> f64| median(&of(scene, value));
    let ratio = |value: fn(&Outcome) -> f64| {
        let pairs = of(scene, value).into_iter().zip(of(Scene::Floor, value));
        spread(&pairs.map(|(one, floor)| one / floor).collect::<Vec<_>>(), 2)
    };
    let hits = if scene == Scene::Floor { String::new() } else { format!("{:.2} %", 100.0 * middle(|o| o.hit_ratio)) };
    println!(
        "  {count:>7} {:<20} {:>8.0} {:<22} {:>8.1} {:>8.1} {:>8.1} {:<20} {hits:>8}",
        scene.describe(),
        middle(|outcome| outcome.calls_per_s),
        ratio(|outcome| outcome.calls_per_s),
        middle(|outcome| outcome.p50_us),
        middle(|outcome| outcome.p99_us),
        middle(|outcome| outcome.cpu_us),
        ratio(|outcome| outcome.cpu_us),
    );
}

fn measure(server: &Server, clients: usize, scene: Scene, secs: f64) -> Result<Outcome> {
    let mut control = server.connect()?;
    let connections: Vec<Connection> = (0..clients).map(|_| open(server, scene)).collect::<Result<_>>()?;
    let pids: Vec<i32> = connections.iter().map(Connection::pid).collect();
    control.query("SELECT steward.cache_stats_reset()")?;
    let (barrier, ended) = (Barrier::new(clients + 1), AtomicBool::new(false));
    let cpu_before = cpu_ns(&pids)?;
    let (latencies_us, elapsed_s, cpu) = thread::scope(|scope| {
        let work = |connection| scope.spawn(|| client(connection, scene, &barrier, &ended));
        let threads: Vec<_> = connections.into_iter().map(work).collect();
        barrier.wait();
        let begun = Instant::now();
        let disturbed = disturb(&mut control, scene, Duration::from_secs_f64(secs));
        ended.store(true, Ordering::Relaxed);
        let elapsed_s = begun.elapsed().as_secs_f64();
        let cpu = cpu_ns(&pids);
        // Backends, and with them their CPU times, stay until every client has seen the end.
        barrier.wait();
        let mut all = Vec::new();
        for thread in threads {
            all.append(&mut thread.join().map_err(|_| anyhow!("a client broke off"))??);
        }
        disturbed?;
        anyhow::Ok((all, elapsed_s, cpu?))
    })?;
    let misses: f64 = control.value("SELECT misses FROM steward.cache_stats")?.parse()?;
    let hit_ratio = 1.0 - misses / latencies_us.len() as f64;
    Ok(outcome(latencies_us, elapsed_s, (cpu - cpu_before) as f64 / 1e3, hit_ratio))
}

fn outcome(mut latencies_us: Vec<f32>, elapsed_s: f64, cpu_us: f64, hit_ratio: f64) -> Outcome {
    latencies_us.sort_unstable_by(f32::total_cmp);
    let calls = latencies_us.len() as f64;
    let part = |part: f64| latencies_us.get((calls * part) as usize).map_or(f64::NAN, |us| f64::from(*us));
    Outcome { calls_per_s: calls / elapsed_s, p50_us: part(0.5), p99_us: part(0.99), cpu_us: cpu_us / calls, hit_ratio }
}

/// A connection that has seen every key.
fn open(server: &Server, scene: Scene) -> Result<Connection> {
    let mut connection = server.connect()?;
    connection.prepare("call", scene.call())?;
    for serial in 0..2 * KEYS {
        call(&mut connection, scene, serial)?;
    }
    Ok(connection)
}

fn call(connection: &mut Connection, scene: Scene, serial: u64) -> Result<()> {
    if scene == Scene::Floor {
        connection.queue_execute("call", &[]);
    } else {
        connection.queue_execute("call", &[&format!("[{}]", 1 + serial % KEYS)]);
    }
    connection.flush()?;
    connection.wait_ready(1)
}

/// Calls until the end and returns the latencies.
fn client(mut connection: Connection, scene: Scene, barrier: &Barrier, ended: &AtomicBool) -> Result<Vec<f32>> {
    let mut latencies_us = Vec::new();
    barrier.wait();
    let mut outcome = Ok(());
    for serial in 0.. {
        if ended.load(Ordering::Relaxed) || outcome.is_err() {
            break;
        }
        let sent = Instant::now();
        outcome = call(&mut connection, scene, serial);
        latencies_us.push(sent.elapsed().as_nanos() as f32 / 1e3);
    }
    barrier.wait();
    outcome.map(|()| latencies_us)
}

/// Waits for the time to pass, updating meanwhile.
fn disturb(control: &mut Connection, scene: Scene, time: Duration) -> Result<()> {
    let deadline = Instant::now() + time;
    while Instant::now() < deadline {
        if let Some(sql) = scene.update() {
            control.query(sql)?;
        }
        thread::sleep(PAUSE.min(deadline.saturating_duration_since(Instant::now())));
    }
    Ok(())
}
