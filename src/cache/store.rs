//! Results in shared memory: a directory in shards, bytes in blocks.
//!
//! **Protocol.** Each shard has a lock: shared to look up and copy out, exclusive to insert, evict and remove. The pool of
//! blocks has a lock of its own. A chain of blocks belongs either to the process that took it or to the entry that it was
//! inserted with, whose shard's lock then guards its bytes. No code holds two locks; between taking blocks and inserting
//! or giving them back nothing may raise.

use super::stats::{self, Count};
use crate::pg::blocks::{BLOCK_BYTES, SharedBlocks};
use crate::pg::shmem::{Area, SharedWords};
use crate::pg::{guc, worker};
use crate::settings;
use core::ffi::CStr;
use core::sync::atomic::Ordering::Relaxed;
use steward_core::cache::payload;
use steward_core::cache::pool::{Pool, PoolMeta, walk};
use steward_core::cache::shard::{self, Entry, Freed, NewEntry, Shard, ShardMeta};

/// 256 bits, so that two keys are never taken for one another.
pub type Key = [u64; 4];

pub const SHARDS: usize = 64;
/// Bytes of shared memory for each block: the block, its link, an entry with its places in the directory, its heat and hits.
const BYTES_PER_BLOCK: usize = BLOCK_BYTES + 4 + size_of::<Entry>() + 4 + 8 + 16;

/// Which lock of the tranche is whose.
pub struct Locks {
    pub pool: usize,
    pub prepared: usize,
    pub door: usize,
    pub leases: usize,
    pub queries: usize,
}

pub const LOCKS: Locks =
    Locks { pool: SHARDS, prepared: SHARDS + 1, door: SHARDS + 2, leases: SHARDS + 3, queries: SHARDS + 4 };
pub const LOCK_COUNT: usize = SHARDS + 5;

/// The entry is sensitive: its bytes are overwritten when it goes.
pub const SENSITIVE: u32 = 1;

type ShardArea = Area<ShardMeta, u32, Entry, u64>;
static DIRECTORY: [ShardArea; SHARDS] = [const { Area::new() }; SHARDS];
static POOL: Area<PoolMeta> = Area::new();
static LINKS: SharedWords = SharedWords::new();
static HEAT: SharedWords = SharedWords::new();
static HITS: SharedWords = SharedWords::new();
static BLOCKS: SharedBlocks = SharedBlocks::new();

const NAMES: [&CStr; SHARDS] = crate::pg::shmem::numbered_names!();

fn blocks() -> usize {
    guc::int(&settings::CACHE_SIZE_MB).max(0) as usize * 1024 * 1024 / BYTES_PER_BLOCK
}

fn entries_per_shard() -> usize {
    (blocks() / SHARDS).max(1)
}

fn shard_counts() -> [usize; 5] {
    let entries = entries_per_shard();
    [1, entries, entries, entries, 0]
}

pub fn bytes() -> usize {
    let words = entries_per_shard() * SHARDS;
    ShardArea::estimate_size(shard_counts()) * SHARDS
        + Area::<PoolMeta>::estimate_size([1, 0, 0, 0, 0])
        + SharedWords::estimate_size(blocks().div_ceil(2))
        + SharedWords::estimate_size(words) * 2
        + SharedBlocks::estimate_size(blocks())
}

pub fn create(tranche: &'static CStr) {
    for (index, (area, name)) in DIRECTORY.iter().zip(NAMES).enumerate() {
        // Zeroed memory is an empty shard.
        area.create(name, tranche, index, shard_counts());
    }
    POOL.create(c"pg_steward cache pool 1", tranche, LOCKS.pool, [1, 0, 0, 0, 0]);
    LINKS.create(c"pg_steward cache links 1", blocks().div_ceil(2));
    HEAT.create(c"pg_steward cache heat 1", entries_per_shard() * SHARDS);
    HITS.create(c"pg_steward cache hits 1", entries_per_shard() * SHARDS);
    BLOCKS.create(c"pg_steward cache blocks 1", blocks());
}

fn shard_of(key: &Key) -> usize {
    (key[3] >> 32) as usize % SHARDS
}

fn heat(shard: usize) -> &'static [core::sync::atomic::AtomicU64] {
    let entries = entries_per_shard();
    HEAT.get().get(shard * entries..(shard + 1) * entries).unwrap_or(&[])
}

/// The words that count the hits of an entry since it was stored.
fn hits(shard: usize, index: usize) -> Option<&'static core::sync::atomic::AtomicU64> {
    HITS.get().get(shard * entries_per_shard() + index)
}

/// Bytes that are stored, and bytes of the blocks that they take.
pub fn used_bytes() -> (u64, u64) {
    let stored = DIRECTORY.iter().filter_map(|area| area.shared(|v| v.a.first().map(|m| m.small.bytes + m.main.bytes)));
    let stored = stored.flatten().sum();
    let blocks = POOL.shared(|v| v.a.first().map_or(0, |meta| u64::from(meta.used))).unwrap_or(0);
    (stored, blocks * BLOCK_BYTES as u64)
}

/// Bytes that there are for results.
pub fn capacity_bytes() -> u64 {
    (blocks() * BLOCK_BYTES) as u64
}

/// Where an entry was found.
#[derive(Clone, Copy)]
pub struct Place {
    shard: usize,
    index: usize,
}

/// Counts a use of an entry. It may have given way meanwhile; then another is thought a little better of than it deserves.
pub fn count_use(place: Place) {
    shard::touch(heat(place.shard), place.index);
    if let Some(count) = hits(place.shard, place.index) {
        count.fetch_add(1, Relaxed);
    }
}

/// Finds an entry and copies its bytes to `out`. Counts no use.
pub fn get(key: &Key, out: &mut Vec<u8>) -> Option<(Entry, Place)> {
    let (index, links) = (shard_of(key), LINKS.halves());
    let area = DIRECTORY.get(index)?;
    // The room is made outside of the lock, so it may have to be made again for an entry that has grown.
    for _ in 0..4 {
        let found = area.shared(|view| {
            let place = shard::find(view.b, view.c, key)?;
            let entry = *view.c.get(place)?;
            if out.len() < entry.size_bytes as usize {
                return Some((entry, None));
            }
            out.truncate(entry.size_bytes as usize);
            BLOCKS.read(walk(links, entry.head), out);
            Some((entry, Some(Place { shard: index, index: place })))
        })??;
        match found {
            (entry, Some(place)) => return Some((entry, place)),
            (entry, None) => {
                let size_bytes = entry.size_bytes as usize;
                // Without the memory it is a miss.
                out.try_reserve(size_bytes.saturating_sub(out.len())).ok()?;
                out.resize(size_bytes, 0);
            }
        }
    }
    None
}

/// Adds hits that sessions had on their own copies, so that a result used there does not look cold here.
pub fn add_hits(key: &Key, count: u64) {
    let index = shard_of(key);
    let Some(area) = DIRECTORY.get(index) else { return };
    area.shared(|view| {
        if let Some(place) = shard::find(view.b, view.c, key) {
            shard::touch(heat(index), place);
            if let Some(hits) = hits(index, place) {
                hits.fetch_add(count, Relaxed);
            }
        }
    });
}

/// Stores bytes under a key. `false`: there is no room, although what gives way did.
pub fn put(key: &Key, bytes: &[u8], new: &NewEntry) -> bool {
    let count = bytes.len().div_ceil(BLOCK_BYTES).max(1) as u32;
    let index = shard_of(key);
    let Some(head) = take_blocks(count, index) else { return false };
    BLOCKS.write(walk(LINKS.halves(), head), bytes);
    let new = NewEntry { key: *key, head, blocks: count, size_bytes: bytes.len() as u32, ..*new };
    for _ in 0..2 {
        let done = with_shard(index, |mut shard| {
            let insertion = shard.insert(heat(index), new);
            if let Some(place) = insertion.index
                && let Some(count) = hits(index, place)
            {
                count.store(0, Relaxed);
            }
            insertion
        });
        let Some(done) = done else { break };
        if let Some(freed) = &done.freed {
            release(freed, Count::Replaced);
        }
        if done.index.is_some() {
            return true;
        }
        // No place in the directory of this shard.
        evict_from(index);
    }
    give_blocks(head, count);
    false
}

fn with_shard<R>(index: usize, work: impl FnOnce(Shard<'_>) -> R) -> Option<R> {
    DIRECTORY
        .get(index)?
        .exclusive(|a| a.a.first_mut().map(|meta| work(Shard { meta, buckets: a.b, entries: a.c, ghosts: a.d })))?
}

fn with_pool<R>(work: impl FnOnce(Pool<'_>) -> R) -> Option<R> {
    POOL.exclusive(|a| a.a.first_mut().map(|meta| work(Pool { meta, links: &LINKS.halves()[..blocks()] })))?
}

/// Takes blocks from the pool, after pushing out what is worth least, first in the shard at hand.
fn take_blocks(count: u32, shard: usize) -> Option<u32> {
    if count as usize > blocks() {
        return None;
    }
    // Each turn frees a block at least, and another process may take some meanwhile.
    for turn in 0..(count as usize * 2 + SHARDS * 2) {
        if let Some(head) = with_pool(|mut pool| pool.take(count))? {
            return Some(head);
        }
        (0..SHARDS).any(|step| evict_from((shard + turn + step) % SHARDS));
    }
    None
}

fn give_blocks(head: u32, count: u32) {
    with_pool(|mut pool| pool.give(head, count));
}

/// Pushes out one entry of a shard. `false`: it has none.
fn evict_from(index: usize) -> bool {
    match with_shard(index, |mut shard| shard.evict(heat(index))).flatten() {
        Some(freed) => {
            release(&freed, Count::Evictions);
            true
        }
        None => false,
    }
}

/// Gives back what an entry had.
fn release(freed: &Freed, why: Count) {
    if freed.flags & SENSITIVE != 0 {
        BLOCKS.wipe(walk(LINKS.halves(), freed.head).take(freed.blocks as usize));
    }
    give_blocks(freed.head, freed.blocks);
    stats::left(freed, why);
}

/// Removes the entry of a key, if it is the one created then. Gives the hits it had.
pub fn remove(key: &Key, created_us: u64, why: Count) -> Option<u64> {
    let index = shard_of(key);
    let (freed, count) = with_shard(index, |mut shard| {
        let place = shard::find(shard.buckets, shard.entries, key)?;
        if shard.entries.get(place)?.created_us != created_us {
            return None;
        }
        let count = hits(index, place).map_or(0, |hits| hits.load(Relaxed));
        Some((shard.remove(place)?, count))
    })??;
    release(&freed, why);
    Some(count)
}

/// Removes every entry that `which` names. Gives how many.
pub fn remove_all(which: impl Fn(&Entry) -> bool) -> u64 {
    let mut removed = 0;
    for index in 0..SHARDS {
        let mut from = 0;
        loop {
            let found = with_shard(index, |mut shard| {
                let place = shard::live_from(shard.entries, from).find(|(_, entry)| which(entry))?.0;
                Some((place, shard.remove(place)?))
            });
            let Some((place, freed)) = found.flatten() else { break };
            release(&freed, Count::Dropped);
            (from, removed) = (place + 1, removed + 1);
        }
    }
    removed
}

/// An entry and the hits it has had.
pub struct Stored {
    pub entry: Entry,
    pub hits: u64,
    /// What is stored, without the rows: what it depends on.
    pub front: Vec<u8>,
}

/// Every entry of one shard that `which` names. Under a guard: a cancel gets through.
pub fn list(shard_index: usize, which: impl Fn(&Entry) -> bool) -> Vec<Stored> {
    worker::heed_interrupts();
    let Some(area) = DIRECTORY.get(shard_index) else { return Vec::new() };
    let keys: Vec<Key> = area
        .shared(|view| shard::live(view.c).filter(|(_, e)| which(e)).map(|(_, e)| e.key).collect())
        .unwrap_or_default();
    keys.iter().filter_map(|key| stored(area, key)).collect()
}

/// Its front is in its first block, nearly always.
fn stored(area: &ShardArea, key: &Key) -> Option<Stored> {
    let links = LINKS.halves();
    let mut front = vec![0; BLOCK_BYTES];
    for _ in 0..4 {
        let (entry, place) = area.shared(|view| {
            let place = shard::find(view.b, view.c, key)?;
            let entry = *view.c.get(place)?;
            front.truncate(entry.size_bytes as usize);
            BLOCKS.read(walk(links, entry.head), &mut front);
            Some((entry, place))
        })??;
        let wanted = payload::front_bytes(&front).ok()?.min(entry.size_bytes as usize);
        if wanted <= front.len() {
            front.truncate(wanted);
            let hits = hits(shard_of(key), place).map_or(0, |hits| hits.load(Relaxed));
            return Some(Stored { entry, hits, front });
        }
        front.resize(wanted, 0);
    }
    None
}

/// How many entries of a shard `which` names. Under a guard: a cancel gets through.
pub fn count_of(shard_index: usize, which: impl Fn(&Entry) -> bool) -> usize {
    worker::heed_interrupts();
    let area = DIRECTORY.get(shard_index);
    area.and_then(|area| area.shared(|view| shard::live(view.c).filter(|(_, entry)| which(entry)).count())).unwrap_or(0)
}

/// How many entries a shard has.
pub fn count(shard_index: usize) -> u64 {
    let area = DIRECTORY.get(shard_index);
    let entries = area.and_then(|area| area.shared(|view| view.a.first().map(|meta| u64::from(meta.entries))));
    entries.flatten().unwrap_or(0)
}
