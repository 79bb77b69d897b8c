//! Deterministic traces of cache accesses, and two caches bounded by bytes to replay them on: the shard, and plain LRU.
use std::sync::atomic::AtomicU64;

use lru::LruCache;
use steward_core::cache::shard::{Entry, NewEntry, Shard, ShardMeta, find, touch};

/// SplitMix64: the same numbers on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    pub fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn mix(value: u64) -> u64 {
    let z = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Draws ranks by Zipf's law: the cumulated weights, searched.
pub struct Zipf(Vec<f64>);

impl Zipf {
    pub fn new(items: usize, skew: f64) -> Self {
        let mut sum = 0.0;
        let weights = (1..=items).map(|rank| (rank as f64).powf(-skew));
        let mut cumulated: Vec<f64> = weights
            .map(|weight| {
                sum += weight;
                sum
            })
            .collect();
        cumulated.iter_mut().for_each(|weight| *weight /= sum);
        Zipf(cumulated)
    }

    pub fn draw(&self, random: &mut Random) -> u64 {
        let fraction = random.fraction();
        self.0.partition_point(|&weight| weight < fraction) as u64
    }
}

/// One access: which result, and what it takes.
#[derive(Clone, Copy)]
pub struct Access {
    pub id: u64,
    pub size_bytes: u32,
    pub exec_us: u32,
}

/// The same result always has the same size and cost: 256 B to 32 kB, 1 ms to 1 s, independent of each other, small
/// and cheap ones being the most frequent.
pub fn access(id: u64) -> Access {
    let spread = |salt: u64| {
        let fraction = (mix(id ^ salt) >> 11) as f64 / (1u64 << 53) as f64;
        fraction * fraction
    };
    let size_bytes = 256.0 * 2f64.powf(7.0 * spread(0x51ce));
    let exec_us = 1_000.0 * 10f64.powf(3.0 * spread(0xc057));
    Access { id, size_bytes: size_bytes as u32, exec_us: exec_us as u32 }
}

pub fn zipf(accesses: usize, items: usize, skew: f64, seed: u64) -> Vec<Access> {
    let (zipf, mut random) = (Zipf::new(items, skew), Random(seed));
    (0..accesses).map(|_| access(zipf.draw(&mut random))).collect()
}

/// Zipf, with runs of results asked for once.
pub fn zipf_with_scans(accesses: usize, items: usize, skew: f64, seed: u64) -> Vec<Access> {
    let mut fresh = 1u64 << 40;
    let mut trace = Vec::with_capacity(2 * accesses);
    for part in zipf(accesses, items, skew, seed).chunks(5_000) {
        trace.extend_from_slice(part);
        trace.extend((0..5_000).map(|step| access(fresh + step)));
        fresh += 5_000;
    }
    trace
}

/// What was served from the cache.
#[derive(Clone, Copy, Default, Debug)]
pub struct Score {
    pub accesses: u64,
    pub hits: u64,
    pub cost_us: u64,
    pub saved_us: u64,
}

impl Score {
    fn count(&mut self, access: &Access, hit: bool) {
        self.accesses += 1;
        self.cost_us += u64::from(access.exec_us);
        self.hits += u64::from(hit);
        self.saved_us += if hit { u64::from(access.exec_us) } else { 0 };
    }

    pub fn hit_ratio(&self) -> f64 {
        self.hits as f64 / self.accesses as f64
    }

    pub fn saved_ratio(&self) -> f64 {
        self.saved_us as f64 / self.cost_us as f64
    }
}

fn key(id: u64) -> [u64; 4] {
    std::array::from_fn(|word| mix(mix(id) ^ (word as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

pub fn on_lru(trace: &[Access], capacity_bytes: u64) -> Score {
    let (mut cache, mut held, mut score) = (LruCache::unbounded(), 0, Score::default());
    for access in trace {
        let hit = cache.get(&access.id).is_some();
        score.count(access, hit);
        if !hit {
            held += u64::from(access.size_bytes);
            cache.put(access.id, access.size_bytes);
        }
        while held > capacity_bytes {
            held -= cache.pop_lru().map_or(held, |(_, size)| u64::from(size));
        }
    }
    score
}

/// `weighted`: with the true costs, or with costs that make every result worth the same.
pub fn on_shard(trace: &[Access], capacity_bytes: u64, weighted: bool) -> Score {
    let slots = (capacity_bytes / 1_024) as usize;
    let (mut meta, mut buckets, mut ghosts) = (ShardMeta::default(), vec![0; slots], vec![0; slots]);
    let mut entries = vec![Entry::default(); slots];
    let heat: Vec<AtomicU64> = (0..slots).map(|_| AtomicU64::new(0)).collect();
    let mut score = Score::default();
    for access in trace {
        let found = find(&buckets, &entries, &key(access.id));
        score.count(access, found.is_some());
        if let Some(index) = found {
            touch(&heat, index);
            continue;
        }
        let mut shard = Shard { meta: &mut meta, buckets: &mut buckets, entries: &mut entries, ghosts: &mut ghosts };
        let exec_us = if weighted { access.exec_us } else { access.size_bytes };
        let new = NewEntry { key: key(access.id), size_bytes: access.size_bytes, exec_us, ..NewEntry::default() };
        while shard.bytes() + u64::from(access.size_bytes) > capacity_bytes {
            if shard.evict(&heat).is_none() {
                break;
            }
        }
        while shard.insert(&heat, new).index.is_none() && shard.evict(&heat).is_some() {}
    }
    score
}
