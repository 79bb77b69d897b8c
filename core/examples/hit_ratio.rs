//! How many accesses, and how much execution time, the shard's eviction saves compared with plain LRU.
//!
//! `cargo run --release -p steward-core --example hit_ratio`
#[path = "../tests/traces/mod.rs"]
mod traces;

use traces::{Access, access, on_lru, on_shard, zipf, zipf_with_scans};

const ACCESSES: usize = 400_000;
const ITEMS: usize = 50_000;
/// Bytes of all items are about 65 MB.
const CAPACITIES: [(&str, u64); 3] = [("1 MB", 1 << 20), ("4 MB", 4 << 20), ("16 MB", 16 << 20)];

fn main() {
    let traces: [(&str, Vec<Access>); 7] = [
        ("zipf 0.6", zipf(ACCESSES, ITEMS, 0.6, 1)),
        ("zipf 0.8", zipf(ACCESSES, ITEMS, 0.8, 2)),
        ("zipf 1.0", zipf(ACCESSES, ITEMS, 1.0, 3)),
        ("zipf 1.2", zipf(ACCESSES, ITEMS, 1.2, 4)),
        ("zipf 1.0 + scans", zipf_with_scans(ACCESSES / 2, ITEMS, 1.0, 5)),
        ("zipf 1.0 + loop", zipf_and_loop(ACCESSES, ITEMS, 1.0, 20_000, 6)),
        ("zipf 1.0 shifting", zipf_shifting(ACCESSES, ITEMS, 1.0, 7)),
    ];
    println!("{:<18} {:>6} | {:^23} | {:^23}", "", "", "hits %", "execution time saved %");
    println!(
        "{:<18} {:>6} | {:>6} {:>8} {:>7} | {:>6} {:>8} {:>7}",
        "trace", "cache", "LRU", "S3-FIFO", "+worth", "LRU", "S3-FIFO", "+worth"
    );
    for (name, trace) in &traces {
        for (size, capacity_bytes) in CAPACITIES {
            let scores = [
                on_lru(trace, capacity_bytes),
                on_shard(trace, capacity_bytes, false),
                on_shard(trace, capacity_bytes, true),
            ];
            let [lru, plain, weighted] = scores.map(|score| 100.0 * score.hit_ratio());
            print!("{name:<18} {size:>6} | {lru:>6.1} {plain:>8.1} {weighted:>7.1} |");
            let [lru, plain, weighted] = scores.map(|score| 100.0 * score.saved_ratio());
            println!(" {lru:>6.1} {plain:>8.1} {weighted:>7.1}");
        }
    }
}

/// A loop over more than the cache holds, mixed half and half with Zipf.
fn zipf_and_loop(accesses: usize, items: usize, skew: f64, length: u64, seed: u64) -> Vec<Access> {
    let around = (0..).map(|step| access((1 << 41) + step % length));
    zipf(accesses / 2, items, skew, seed).into_iter().zip(around).flat_map(|(a, b)| [a, b]).collect()
}

/// Zipf whose ranking changes completely a few times.
fn zipf_shifting(accesses: usize, items: usize, skew: f64, seed: u64) -> Vec<Access> {
    let parts = zipf(accesses, items, skew, seed);
    let shift = |step: usize| ((step * 4 / accesses.max(1)) as u64) << 32;
    parts.iter().enumerate().map(|(step, part)| access(part.id + shift(step))).collect()
}
