//! CPU time of one backend per arm, compared by fine alternation.
//!
//! All servers run at once. One client alternates between their backends every few milliseconds, in random order and
//! with the same keys, client and backends on one core. A rotation visits every arm once; whatever changes slower than a
//! rotation hits all arms alike and drops out of the ratios. Where memory comes to lie shifts a server's speed by about
//! 2 % until its restart, and one data directory may be a little faster than its copy for good. So connections are renewed
//! every session, servers are restarted every block, and each block draws anew which server is which arm: the blocks are
//! the sample.

use crate::arms::{Arm, STOCK, STOCK_B};
use crate::client::Connection;
use crate::options::Options;
use crate::process::{PinnedToOneCore, cpu_time_ns, pin};
use crate::report::{ArmResult, CpuResult};
use crate::server::{Server, Template, progress};
use crate::stats::{Estimate, Random, median};
use crate::workload::{Driver, Workload};
use anyhow::{Context, Result, anyhow};
use std::thread;
use std::time::{Duration, Instant};

const SESSION: Duration = Duration::from_millis(1_500);
/// Units to warm a new connection when the server is warm already.
const SESSION_WARM_UP_UNITS: usize = 50;

/// CPU time per unit in ns of every arm, one entry a rotation.
type Rotations = Vec<Vec<f64>>;

/// What one block found for one workload.
struct Block {
    /// Per arm: CPU time over that of stock.
    ratio: Vec<f64>,
    /// Per arm: CPU time per unit less that of stock, in ns.
    extra_ns: Vec<f64>,
    stock_ns: f64,
    rotations: usize,
}

/// Runs the comparison and prints its tables.
pub fn run(options: &Options) -> Result<()> {
    let arms = options.arms()?;
    let template = Template::make(options.scale, &arms)?;
    let servers = Server::create_all(&template, arms.len())?;
    let mut bench = Bench { options, arms: &arms, servers, random: Random::new(options.seed), serial: 0 };
    let mut blocks: Vec<Vec<Block>> = options.workloads.iter().map(|_| Vec::new()).collect();
    print!("Measuring {} blocks:", options.blocks);
    for number in 1..=options.blocks {
        progress(&number.to_string())?;
        bench.block(&mut blocks)?;
    }
    println!();
    for (workload, blocks) in options.workloads.iter().zip(&blocks) {
        summarise(*workload, &arms, blocks).print();
    }
    Ok(())
}

struct Bench<'a> {
    options: &'a Options,
    arms: &'a [Arm],
    /// Server and arm of the same place belong together for a block.
    servers: Vec<Server>,
    random: Random,
    /// Units run so far in the longest-running arm: no statement of `unique` comes twice.
    serial: u64,
}

impl Bench<'_> {
    /// Starts all servers, runs each workload once, and stops them.
    fn block(&mut self, blocks: &mut [Vec<Block>]) -> Result<()> {
        self.random.shuffle(&mut self.servers);
        self.start_all()?;
        for (workload, blocks) in self.options.workloads.iter().zip(blocks) {
            blocks.push(self.workload(*workload)?);
        }
        self.servers.iter().try_for_each(Server::stop)
    }

    /// Starts the servers side by side, each as its arm.
    fn start_all(&self) -> Result<()> {
        let start = |(server, arm): (&Server, &Arm)| {
            server.become_arm(arm)?;
            server.start()?;
            server.check_settings(arm)?;
            server.prewarm()
        };
        thread::scope(|scope| {
            let pairs = self.servers.iter().zip(self.arms);
            let threads: Vec<_> = pairs.map(|pair| scope.spawn(move || start(pair))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a start broke off"))?)
        })
    }

    fn workload(&mut self, workload: Workload) -> Result<Block> {
        let driver = Driver { workload, protocol: self.options.protocol, scale: self.options.scale };
        let deadline = Instant::now() + Duration::from_secs_f64(self.options.secs);
        let mut rotations = Rotations::new();
        let mut warm_up = workload.warm_up_units();
        while Instant::now() < deadline || rotations.is_empty() {
            rotations.extend(self.session(driver, warm_up)?);
            warm_up = SESSION_WARM_UP_UNITS.min(workload.warm_up_units());
        }
        self.compare(&rotations)
    }

    /// One connection an arm, and rotations over them for a while.
    fn session(&mut self, driver: Driver, warm_up_units: usize) -> Result<Rotations> {
        let pinned = PinnedToOneCore::new()?;
        let mut connections = self.connect(driver, pinned.core(), warm_up_units)?;
        let deadline = Instant::now() + SESSION;
        let mut order: Vec<usize> = (0..connections.len()).collect();
        let mut rotations = Rotations::new();
        while Instant::now() < deadline || rotations.is_empty() {
            self.random.shuffle(&mut order);
            rotations.push(self.rotation(driver, &mut connections, &order)?);
        }
        Ok(rotations)
    }

    fn connect(&mut self, driver: Driver, core: &str, warm_up_units: usize) -> Result<Vec<Connection>> {
        let keys = Random::new(self.random.next());
        let open = |server: &Server| {
            let mut connection = server.connect()?;
            pin(connection.pid(), core)?;
            driver.workload.prepare(&mut connection)?;
            driver.run(&mut connection, &mut keys.clone(), warm_up_units, self.serial)?;
            Ok(connection)
        };
        let connections = self.servers.iter().map(open).collect::<Result<_>>()?;
        self.serial += warm_up_units as u64;
        Ok(connections)
    }

    /// One slice of every arm, in `order`; returns the CPU time per unit in ns.
    fn rotation(&mut self, driver: Driver, connections: &mut [Connection], order: &[usize]) -> Result<Vec<f64>> {
        let keys = Random::new(self.random.next());
        let units = driver.workload.units_per_slice();
        let mut cpu_ns = vec![0.0; connections.len()];
        for &arm in order {
            let connection = &mut connections[arm];
            let before = cpu_time_ns(connection.pid())?;
            driver.run(connection, &mut keys.clone(), units, self.serial)?;
            cpu_ns[arm] = (cpu_time_ns(connection.pid())? - before) as f64 / units as f64;
        }
        self.serial += units as u64;
        Ok(cpu_ns)
    }

    /// Compares every arm with the stock servers, rotation by rotation.
    ///
    /// With two of them, each is compared with on its own and the two results are averaged: the mean of two right-skewed
    /// times has a larger median than either, and would make every arm look cheaper than it is.
    fn compare(&self, rotations: &Rotations) -> Result<Block> {
        let position = |name| self.arms.iter().position(|arm| arm.name == name);
        let stock = position(STOCK).context("no stock arm")?;
        let stocks = [Some(stock), position(STOCK_B)];
        let over = |arm: usize, base: usize| column(rotations, |rotation| rotation[arm] / rotation[base]);
        let less = |arm: usize, base: usize| column(rotations, |rotation| rotation[arm] - rotation[base]);
        let mut block = Block {
            ratio: Vec::new(),
            extra_ns: Vec::new(),
            stock_ns: column(rotations, |rotation| rotation[stock]),
            rotations: rotations.len(),
        };
        for arm in 0..self.arms.len() {
            let bases: Vec<usize> = stocks.into_iter().flatten().filter(|base| *base != arm).collect();
            let count = bases.len().max(1) as f64;
            let product: f64 = bases.iter().map(|base| over(arm, *base)).product();
            block.ratio.push(product.powf(1.0 / count));
            block.extra_ns.push(bases.iter().map(|base| less(arm, *base)).sum::<f64>() / count);
        }
        Ok(block)
    }
}

/// Median over the rotations of what `value` makes of each.
fn column(rotations: &Rotations, value: impl Fn(&Vec<f64>) -> f64) -> f64 {
    median(&rotations.iter().map(value).collect::<Vec<f64>>())
}

fn summarise(workload: Workload, arms: &[Arm], blocks: &[Block]) -> CpuResult {
    let over_blocks = |value: &dyn Fn(&Block) -> f64| Estimate::of(&blocks.iter().map(value).collect::<Vec<f64>>());
    let result = |(place, arm): (usize, &Arm)| ArmResult {
        name: arm.name,
        ratio: over_blocks(&|block| block.ratio[place]),
        extra_ns: over_blocks(&|block| block.extra_ns[place]),
    };
    CpuResult {
        workload,
        stock_ns: over_blocks(&|block| block.stock_ns).mean,
        blocks: blocks.len(),
        rotations: blocks.iter().map(|block| block.rotations).sum(),
        arms: arms.iter().enumerate().map(result).collect(),
    }
}
