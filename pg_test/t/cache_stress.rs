//! Random writes by every way, and readers that compare the cache with the query itself in the same snapshot, with what
//! never changes, and with what was committed before they asked.
//!
//! `STEWARD_STRESS_READS` says how many reads (many more in `make stress-cache`), `STEWARD_STRESS_SEED` repeats the choices
//! of a run, though not the order in which sessions meet.

#[path = "cache_writes_probe.rs"]
mod probe;
#[path = "cache_stress_readers.rs"]
mod readers;
#[path = "cache_stress_writers.rs"]
mod writers;

use readers::Reader;
use std::sync::Mutex;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use steward_test::Cluster;
use writers::{Definer, Writer};

const READS: u64 = 20_000;
const WRITERS: usize = 3;
const READERS: usize = 5;
/// So many violations are described.
const DESCRIBED: usize = 5;

/// SplitMix64 (Steele, Lea and Flood 2014).
pub struct Random(u64);

impl Random {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.draw() % limit
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// What the threads share.
pub struct Shared {
    target: u64,
    pub reads: AtomicU64,
    commits: AtomicU64,
    rollbacks: AtomicU64,
    pub definitions: AtomicU64,
    pub violations: AtomicU64,
    described: Mutex<Vec<String>>,
    unexpected: Mutex<Vec<String>>,
    broken: AtomicBool,
    /// How often each writer has raised its count, as committed.
    pub published: [AtomicU32; WRITERS],
    /// The numbers that the queries of `DEFINED` answer at least.
    pub defined: [AtomicU32; writers::DEFINED.len()],
}

/// What transactions in each other's way make Postgres say: deadlocks, rows that moved, half moves, tables that went
/// while a query waited for them.
const EXPECTED: [&str; 9] = ["40001", "40P01", "P0001", "23505", "23503", "42P01", "42704", "XX000", "42P07"];

impl Shared {
    fn new(target: u64) -> Self {
        Shared {
            target,
            reads: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            rollbacks: AtomicU64::new(0),
            definitions: AtomicU64::new(0),
            violations: AtomicU64::new(0),
            described: Mutex::default(),
            unexpected: Mutex::default(),
            broken: AtomicBool::new(false),
            published: Default::default(),
            defined: Default::default(),
        }
    }

    pub fn is_over(&self) -> bool {
        self.reads.load(Relaxed) >= self.target || self.broken.load(Relaxed)
    }

    /// Pauses for so many reads, so that there are as many between writes on slow machines as on fast ones.
    pub fn let_read(&self, reads: u64) {
        let until = self.reads.load(Relaxed) + reads;
        while self.reads.load(Relaxed) < until && !self.is_over() {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    pub fn count_write(&self, committed: bool) {
        if committed { &self.commits } else { &self.rollbacks }.fetch_add(1, Relaxed);
    }

    /// An error that cannot come of transactions that meet ends the run.
    pub fn expect(&self, error: &postgres::Error) {
        let code = error.code().map_or("none", |state| state.code());
        if !EXPECTED.contains(&code) {
            self.broken.store(true, SeqCst);
            self.unexpected.lock().expect("lock").push(format!("{error:?}"));
        }
    }

    pub fn violation(&self, what: String) {
        self.violations.fetch_add(1, Relaxed);
        let mut described = self.described.lock().expect("lock");
        if described.len() < DESCRIBED {
            described.push(what);
        }
    }
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

fn start() -> Cluster {
    // Writers and readers open their sessions at once; the tables are too small to be worth a parallel plan.
    let cluster = probe::builder("stress").conf("deadlock_timeout", "50ms").conf("max_connections", "60");
    let cluster = cluster.start().expect("server");
    probe::create_database(&cluster, "stress");
    cluster.psql("stress", writers::SETUP).expect("setup");
    let more =
        "CREATE TABLE gen_zero AS SELECT 0 AS n; INSERT INTO gen SELECT n, 0 FROM generate_series(0, $W - 1) AS n";
    cluster.psql("stress", &more.replace("$W", &WRITERS.to_string())).expect("setup");
    cluster
}

fn run_threads(cluster: &Cluster, shared: &Shared, seed: u64) {
    let client = || cluster.client("stress").expect("client");
    let random = |number: usize| Random(seed.wrapping_add(1000 * number as u64));
    std::thread::scope(|scope| {
        for number in 0..WRITERS {
            let (client, other) = (client(), client());
            let writer = Writer { shared, number, random: random(number), client, other, prepared: 0 };
            scope.spawn(|| writer.work());
        }
        let definer = Definer { shared, random: random(50), client: client() };
        scope.spawn(|| definer.work());
        for number in 0..READERS {
            let reader = Reader::new(shared, random(100 + number), client());
            scope.spawn(|| reader.work());
        }
    });
}

#[test]
fn no_answer_is_ever_untrue() {
    let seed = from_env("STEWARD_STRESS_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        now.as_nanos() as u64
    });
    println!("seed {seed}");
    let shared = Shared::new(from_env("STEWARD_STRESS_READS").unwrap_or(READS));
    let cluster = start();
    run_threads(&cluster, &shared, seed);
    let mut client = cluster.client("stress").expect("client");
    let [local, from_shared, misses] =
        ["local_hits", "shared_hits", "misses"].map(|column| probe::count(&mut client, column));
    let of = |counter: &AtomicU64| counter.load(SeqCst);
    println!(
        "{} reads, of them {local} from the session and {from_shared} from shared memory, {misses} misses; {} commits, \
         {} rollbacks, {} definitions; {} violations",
        of(&shared.reads),
        of(&shared.commits),
        of(&shared.rollbacks),
        of(&shared.definitions),
        of(&shared.violations),
    );
    let reasons =
        probe::ask(&mut client, "SELECT reason, count FROM steward.cache_misses WHERE count > 0 ORDER BY count DESC");
    println!("{}", reasons.replace('\n', ", "));
    let unexpected = shared.unexpected.lock().expect("lock");
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    let described = shared.described.lock().expect("lock");
    assert_eq!(of(&shared.violations), 0, "{described:#?}");
    // Without hits and writes between them, nothing was tried.
    assert!(local + from_shared > misses / 2, "too few hits");
    assert!(of(&shared.commits) * 500 > of(&shared.reads), "too few writes");
    assert!(from_shared > 0 && of(&shared.rollbacks) > 0);
}
