//! What the cache adds to transactions: server CPU, and the servers' instructions, with and without the library.
//!
//! The method is that of `bench-capture cpu`: all servers run at once, one client alternates between their backends every
//! few milliseconds, servers are restarted every block, and each block draws anew which server is which arm.

use crate::arms::{Arm, STEWARD_LIBRARY, STOCK, STOCK_B, arm};
use crate::cache_options::Options;
use crate::client::Connection;
use crate::process::{PinnedToOneCore, cpu_time_ns, pin};
use crate::server::{Server, progress};
use crate::stats::{Estimate, Random, median};
use anyhow::{Result, anyhow};
use std::thread;
use std::time::{Duration, Instant};

/// Capture is off in the third: what is left is the cache's. In the last it does not look at plans, which it does once a
/// statement, a second later.
pub const ARMS: [Arm; 4] = [
    arm(STOCK, &[], &[]),
    arm(STOCK_B, &[], &[]),
    arm("cache only", &[STEWARD_LIBRARY], &[("pg_steward.capture_enabled", "off")]),
    arm("pg_steward", &[STEWARD_LIBRARY], &[("pg_steward.overhead_limit", "0"), ("pg_steward.capture_plans", "off")]),
];

/// Transactions, one statement each: name, what it is, SQL.
pub const WORKLOADS: [(&str, &str, &str); 3] = [
    ("update", "one-row UPDATE by primary key", "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = $1"),
    ("point", "primary-key look-up", "SELECT abalance FROM pgbench_accounts WHERE aid = $1"),
    ("begin", "a transaction that does nothing: SELECT 1", "SELECT 1 WHERE $1::int > 0"),
];

/// What is looked for is small.
const BLOCKS_A_ROUND: usize = 2;
const SLICE_UNITS: usize = 60;
const WARM_UP_UNITS: usize = 200;
const SESSION: Duration = Duration::from_millis(700);

/// Per arm: CPU time over that of stock, and the nanoseconds beyond it.
type Block = Vec<(f64, f64)>;

/// Runs the comparison and prints its tables.
pub fn run(options: &Options, servers: &mut [Server]) -> Result<()> {
    let mut random = Random::new(options.seed);
    let mut blocks: Vec<Vec<Block>> = WORKLOADS.iter().map(|_| Vec::new()).collect();
    print!("Writes, blocks:");
    for number in 1..=BLOCKS_A_ROUND * options.rounds {
        progress(&number.to_string())?;
        random.shuffle(servers);
        start(servers)?;
        for ((_, _, sql), blocks) in WORKLOADS.iter().zip(&mut blocks) {
            blocks.push(block(options, servers, sql, &mut random)?);
        }
        servers.iter().try_for_each(Server::stop)?;
    }
    println!(
        "\n\nServer CPU of a transaction over that of a server without the library, mean ± 95 % interval of the blocks"
    );
    println!("  {:<46} {:<14} {:>18} {:>16}", "transaction", "arm", "CPU ratio", "ns more");
    for ((_, what, _), blocks) in WORKLOADS.iter().zip(&blocks) {
        for (place, arm) in ARMS.iter().enumerate().skip(1) {
            let of = |value: fn(&(f64, f64)) -> f64| {
                Estimate::of(&blocks.iter().map(|block| value(&block[place])).collect::<Vec<_>>())
            };
            let (ratio, more) = (of(|arm| arm.0), of(|arm| arm.1));
            let ratio = format!("{:.4} ± {:.4}", ratio.mean, ratio.half_width);
            println!("  {what:<46} {:<14} {ratio:>18} {:>+7.0} ± {:.0}", label(arm), more.mean, more.half_width);
        }
    }
    Ok(())
}

fn label(arm: &Arm) -> &'static str {
    if arm.name == STOCK_B { "stock (A/A)" } else { arm.name }
}

fn start(servers: &[Server]) -> Result<()> {
    let start = |(server, arm): (&Server, &Arm)| {
        server.become_arm(arm)?;
        server.start()?;
        server.check_settings(arm)?;
        server.prewarm()?;
        fill_cache(server, arm, "pgbench_accounts")
    };
    thread::scope(|scope| {
        let threads: Vec<_> = servers.iter().zip(&ARMS).map(|pair| scope.spawn(move || start(pair))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a start broke off"))?)
    })
}

/// Stores a result that depends on the table which is written.
pub fn fill_cache(server: &Server, arm: &Arm, table: &str) -> Result<()> {
    if arm.preload.is_empty() {
        return Ok(());
    }
    let mut connection = server.connect()?;
    connection.query("SET pg_steward.cache_min_execution_time = 0")?;
    connection.query("SET pg_steward.cache_admission_window = 0")?;
    let query = format!("SELECT count(*) FROM {table} WHERE aid < 1000");
    connection.query(&format!("SELECT steward.cached_json('{query}')")).map(drop)
}

fn block(options: &Options, servers: &[Server], sql: &str, random: &mut Random) -> Result<Block> {
    let mut rotations: Vec<Vec<f64>> = Vec::new();
    let deadline = Instant::now() + Duration::from_secs_f64(3.0 * options.secs);
    while Instant::now() < deadline || rotations.is_empty() {
        session(servers, sql, random, options.scale, &mut rotations)?;
    }
    let stock = position(STOCK);
    let twin = position(STOCK_B);
    // With both stock servers, one after the other: see `bench-capture cpu`.
    let compare = |place: usize| {
        let bases: Vec<usize> = [stock, twin].into_iter().filter(|base| *base != place).collect();
        let over = |base: usize| median(&rotations.iter().map(|cpu| cpu[place] / cpu[base]).collect::<Vec<_>>());
        let less = |base: usize| median(&rotations.iter().map(|cpu| cpu[place] - cpu[base]).collect::<Vec<_>>());
        let count = bases.len() as f64;
        let product: f64 = bases.iter().map(|base| over(*base)).product();
        (product.powf(1.0 / count), bases.iter().map(|base| less(*base)).sum::<f64>() / count)
    };
    Ok((0..ARMS.len()).map(compare).collect())
}

fn position(name: &str) -> usize {
    ARMS.iter().position(|arm| arm.name == name).unwrap_or(0)
}

/// One connection an arm, and rotations over them for a while: CPU time per transaction in ns, per arm.
fn session(
    servers: &[Server],
    sql: &str,
    random: &mut Random,
    scale: u64,
    rotations: &mut Vec<Vec<f64>>,
) -> Result<()> {
    let pinned = PinnedToOneCore::new()?;
    let keys = Random::new(random.next());
    let open = |server: &Server| {
        let mut connection = server.connect()?;
        pin(connection.pid(), pinned.core())?;
        connection.prepare("unit", sql)?;
        run_units(&mut connection, &mut keys.clone(), scale, WARM_UP_UNITS)?;
        Ok(connection)
    };
    let mut connections: Vec<Connection> = servers.iter().map(open).collect::<Result<_>>()?;
    let mut order: Vec<usize> = (0..connections.len()).collect();
    let deadline = Instant::now() + SESSION;
    while Instant::now() < deadline {
        random.shuffle(&mut order);
        let keys = Random::new(random.next());
        let mut cpu = vec![0.0; connections.len()];
        for &place in &order {
            let connection = &mut connections[place];
            let before = cpu_time_ns(connection.pid())?;
            run_units(connection, &mut keys.clone(), scale, SLICE_UNITS)?;
            cpu[place] = (cpu_time_ns(connection.pid())? - before) as f64 / SLICE_UNITS as f64;
        }
        rotations.push(cpu);
    }
    Ok(())
}

fn run_units(connection: &mut Connection, keys: &mut Random, scale: u64, units: usize) -> Result<()> {
    for _ in 0..units {
        connection.queue_execute("unit", &[&(1 + keys.below(scale * 100_000)).to_string()]);
        connection.flush()?;
        connection.wait_ready(1)?;
    }
    Ok(())
}
