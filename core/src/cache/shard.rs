//! Directory of one shard of the cache: which results are stored, and which gives way when room is needed.
//!
//! Eviction is S3-FIFO (Yang and others 2023). A result enters the *small* queue, which has a tenth of the bytes.
//! At its end, a result that was used goes to the *main* queue and the others leave, remembered as *ghosts* by
//! fingerprint; a result that comes back while its ghost is there goes to main at once. At the end of main, a result
//! that was used goes round again at the cost of one use. So a flood of results that are never asked for again passes
//! through the tenth and leaves the rest alone, and a hit moves nothing: it counts a use, up to 3, in a word of its
//! own that readers may write under a shared lock ([`touch`]).
//!
//! Results differ in what they save: their *worth* is the execution time that a hit saves for each byte. It is compared
//! on a scale of doublings with the shard's running mean, so that a few extremes do not move the mean much. A result
//! worth at least 4 times the mean has one round of its queue more before it leaves, and from 16 times two; these are
//! renewed only by a use. For a result worth at most a quarter, uses count half.
//!
//! Links count entries from 1, with 0 for "none" (indexes given and returned count from 0), and entries never used are
//! handed out by a mark: zeroed memory is an empty shard. Keys are hashes already: their second word chooses the bucket
//! and the third is the fingerprint, so the caller should choose the shard by the first.
//!
//! The caller holds the shard's lock: exclusive for a [`Shard`], shared is enough for [`find`], [`touch`] and [`live`].
//! No contents of the memory can make these functions panic or loop forever.

use std::sync::atomic::{AtomicU64, Ordering};

/// Queue of an entry that holds nothing.
pub const FREE: u32 = 0;
/// Queue of entries that have not proved themselves.
pub const SMALL: u32 = 1;
/// Queue of entries that were used, or came back.
pub const MAIN: u32 = 2;

/// The bits of an entry's heat that count uses; the others are the caller's, and start at 0 with each entry.
pub const USES: u64 = 3;
/// The small queue has the bytes of the shard divided by this.
const SMALL_SHARE: u64 = 10;
/// Entries looked at by one eviction, for each entry held: one for each use, and one to leave.
const STEPS_PER_ENTRY: usize = 4;
/// Ghosts of the same place.
const GHOST_WAYS: usize = 4;
/// A doubling of worth.
const DOUBLING: i64 = 16;
/// Fixed point of the mean worth.
const MEAN_UNIT: i64 = 256;
/// The mean follows the latest entries: as many as this weigh about two thirds.
const MEAN_WINDOW: i64 = 64;

/// A stored result. All-zero is a free entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Hash of everything that the result depends on.
    pub key: [u64; 4],
    /// When it was stored.
    pub created_us: u64,
    /// Its chain of blocks.
    pub head: u32,
    /// Blocks in the chain.
    pub blocks: u32,
    /// Bytes stored.
    pub size_bytes: u32,
    /// Execution time that a hit saves.
    pub exec_us: u32,
    /// Next entry of the bucket, or of the free list.
    pub next: u32,
    /// The entry that entered the queue after this one.
    pub newer: u32,
    /// The entry that entered the queue before this one.
    pub older: u32,
    /// [`FREE`], [`SMALL`] or [`MAIN`].
    pub queue: u32,
    /// Class of data.
    pub class: u32,
    /// Role that stored it.
    pub role: u32,
    /// Database.
    pub database: u32,
    /// Index of the query's statistics.
    pub query: u32,
    /// The caller's.
    pub flags: u32,
    /// Rounds left that the entry's worth gives it.
    pub rounds: u32,
}

/// A queue, and the bytes of its entries. All-zero is an empty one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// Bytes stored by its entries.
    pub bytes: u64,
    /// The entry that entered last.
    pub newest: u32,
    /// The entry that leaves next.
    pub oldest: u32,
}

/// Counters and list heads of a shard. All-zero is an empty one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardMeta {
    /// Results that have not proved themselves.
    pub small: Queue,
    /// Results that were used, or came back.
    pub main: Queue,
    /// Entries that gave way.
    pub evictions: u64,
    /// Entries that came back while they were remembered.
    pub returns: u64,
    /// Entries held.
    pub entries: u32,
    /// Entries that have been handed out at least once.
    pub touched: u32,
    /// First free entry among those.
    pub free_head: u32,
    /// Mean worth of the latest entries, in 1/256 of 1/16 of a doubling; 0 before the first.
    pub mean_worth: u32,
}

const _: () = assert!(size_of::<Entry>() == 96 && size_of::<Queue>() == 16 && size_of::<ShardMeta>() == 64);

/// A shard over the caller's memory, for as long as the exclusive lock is held.
pub struct Shard<'a> {
    /// Counters and list heads.
    pub meta: &'a mut ShardMeta,
    /// First entry of each chain. About as many as entries is right.
    pub buckets: &'a mut [u32],
    /// The entries.
    pub entries: &'a mut [Entry],
    /// Fingerprints of entries that left unused; 0 is free. As many as entries is right.
    pub ghosts: &'a mut [u64],
}

/// What is stored of a new result; the fields as in [`Entry`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct NewEntry {
    pub key: [u64; 4],
    pub created_us: u64,
    pub head: u32,
    pub blocks: u32,
    pub size_bytes: u32,
    pub exec_us: u32,
    pub class: u32,
    pub role: u32,
    pub database: u32,
    pub query: u32,
    pub flags: u32,
}

/// What an entry held: the blocks are to be given back, and its counters taken down. The fields as in [`Entry`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Freed {
    pub key: [u64; 4],
    pub head: u32,
    pub blocks: u32,
    pub size_bytes: u32,
    pub class: u32,
    pub role: u32,
    pub database: u32,
    pub query: u32,
    pub flags: u32,
}

/// What became of a new result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Insertion {
    /// Its entry; `None` when all are taken, so one has to be evicted first.
    pub index: Option<usize>,
    /// The result that was stored under the same key.
    pub freed: Option<Freed>,
}

/// The entry of a key. Reads only, so it may run under a shared lock.
#[inline]
pub fn find(buckets: &[u32], entries: &[Entry], key: &[u64; 4]) -> Option<usize> {
    let mut at = *buckets.get(bucket_of(key, buckets.len()))?;
    // A chain cannot be longer than the shard; the limit ends a loop that a damaged chain might form.
    for _ in 0..entries.len() {
        let index = (at as usize).checked_sub(1)?;
        let entry = entries.get(index)?;
        if entry.key == *key {
            return (entry.queue != FREE).then_some(index);
        }
        at = entry.next;
    }
    None
}

/// Counts a use of an entry. An entry in much use is only read, so its cache line stays shared. Of two uses at the same
/// moment one may be lost.
#[inline]
pub fn touch(heat: &[AtomicU64], index: usize) {
    let Some(word) = heat.get(index) else { return };
    let seen = word.load(Ordering::Relaxed);
    if seen & USES < USES {
        let _ = word.compare_exchange(seen, seen + 1, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// The entries that hold a result, with their indexes.
pub fn live(entries: &[Entry]) -> impl Iterator<Item = (usize, &Entry)> {
    live_from(entries, 0)
}

/// The same, from a place on.
pub fn live_from(entries: &[Entry], from: usize) -> impl Iterator<Item = (usize, &Entry)> {
    entries.iter().enumerate().skip(from).filter(|(_, entry)| entry.queue != FREE)
}

impl Shard<'_> {
    /// Makes the shard empty, whatever the memory held. Zeroed memory is empty without it.
    pub fn init(&mut self) {
        *self.meta = ShardMeta::default();
        self.buckets.fill(0);
        self.entries.fill(Entry::default());
        self.ghosts.fill(0);
    }

    /// Bytes stored.
    pub fn bytes(&self) -> u64 {
        self.meta.small.bytes.saturating_add(self.meta.main.bytes)
    }

    /// Stores a result, in place of one with the same key.
    pub fn insert(&mut self, heat: &[AtomicU64], new: NewEntry) -> Insertion {
        let replaced = find(self.buckets, self.entries, &new.key);
        let proved = replaced.and_then(|index| self.entries.get(index)).is_some_and(|entry| entry.queue == MAIN);
        let freed = replaced.and_then(|index| self.remove(index));
        let Some(index) = self.take_free() else { return Insertion { index: None, freed } };
        let returned = self.forget_ghost(&new.key);
        self.meta.returns = self.meta.returns.wrapping_add(u64::from(returned));
        self.occupy(index, &new);
        if let Some(word) = heat.get(index) {
            word.store(0, Ordering::Relaxed);
        }
        self.enqueue(index, if proved || returned { MAIN } else { SMALL });
        Insertion { index: Some(index), freed }
    }

    /// Frees the entry that is missed least. There is one unless the shard is empty.
    pub fn evict(&mut self, heat: &[AtomicU64]) -> Option<Freed> {
        let held = (self.meta.entries as usize).min(self.entries.len());
        for _ in 0..held.saturating_mul(STEPS_PER_ENTRY) {
            let queue = self.queue_to_shrink();
            let index = self.oldest(queue)?;
            if !self.has_another_round(heat, queue, index) {
                return self.let_go(queue, index);
            }
        }
        // Everything is in much use, so age decides.
        let queue = self.queue_to_shrink();
        let index = self.oldest(queue)?;
        self.let_go(queue, index)
    }

    /// Frees an entry.
    pub fn remove(&mut self, index: usize) -> Option<Freed> {
        let entry = *self.entries.get(index).filter(|entry| entry.queue != FREE)?;
        self.dequeue(index);
        self.unchain(index, &entry);
        if let Some(place) = self.entries.get_mut(index) {
            *place = Entry { next: self.meta.free_head, ..Entry::default() };
            self.meta.free_head = number(index);
        }
        self.meta.entries = self.meta.entries.saturating_sub(1);
        let Entry { key, head, blocks, size_bytes, class, role, database, query, flags, .. } = entry;
        Some(Freed { key, head, blocks, size_bytes, class, role, database, query, flags })
    }

    fn queue_to_shrink(&self) -> u32 {
        let above_share = self.meta.small.bytes.saturating_mul(SMALL_SHARE) > self.bytes();
        if above_share || self.meta.main.oldest == 0 { SMALL } else { MAIN }
    }

    /// Lets the oldest entry of a queue stay once more, if it has earned that.
    fn has_another_round(&mut self, heat: &[AtomicU64], queue: u32, index: usize) -> bool {
        let mean_worth = self.meta.mean_worth;
        let Some(entry) = self.entries.get_mut(index) else { return false };
        let above = doublings_above(entry.size_bytes, entry.exec_us, mean_worth);
        let counted = heat.get(index).map_or(0, |word| word.load(Ordering::Relaxed) & USES);
        let uses = if above <= -2 { counted / 2 } else { counted };
        if uses > 0 {
            entry.rounds = rounds_for(above);
            let left = if queue == SMALL { 0 } else { uses - 1 };
            set_uses(heat, index, left);
            self.requeue(index, MAIN);
        } else if entry.rounds > 0 {
            entry.rounds = entry.rounds.min(rounds_for(i64::MAX)) - 1;
            self.requeue(index, queue);
        } else {
            return false;
        }
        true
    }

    fn let_go(&mut self, queue: u32, index: usize) -> Option<Freed> {
        let freed = self.remove(index)?;
        self.meta.evictions = self.meta.evictions.wrapping_add(1);
        if queue == SMALL {
            self.remember_ghost(&freed.key);
        }
        Some(freed)
    }

    fn take_free(&mut self) -> Option<usize> {
        if let Some(index) = (self.meta.free_head as usize).checked_sub(1) {
            let entry = self.entries.get(index).filter(|entry| entry.queue == FREE)?;
            self.meta.free_head = entry.next;
            return Some(index);
        }
        let index = self.meta.touched as usize;
        self.entries.get(index).filter(|entry| entry.queue == FREE)?;
        self.meta.touched = number(index);
        Some(index)
    }

    /// Writes the entry and puts it first in its bucket; its queue is the caller's to choose.
    fn occupy(&mut self, index: usize, new: &NewEntry) {
        let above = doublings_above(new.size_bytes, new.exec_us, self.meta.mean_worth);
        self.follow_worth(new);
        let bucket = bucket_of(&new.key, self.buckets.len());
        let (Some(head), Some(entry)) = (self.buckets.get_mut(bucket), self.entries.get_mut(index)) else { return };
        let NewEntry { key, created_us, head: blocks_head, blocks, size_bytes, exec_us, .. } = *new;
        let NewEntry { class, role, database, query, flags, .. } = *new;
        let unlinked = Entry { key, created_us, head: blocks_head, blocks, size_bytes, exec_us, ..Entry::default() };
        *entry = Entry { class, role, database, query, flags, rounds: rounds_for(above), next: *head, ..unlinked };
        *head = number(index);
        self.meta.entries = self.meta.entries.saturating_add(1);
    }

    fn follow_worth(&mut self, new: &NewEntry) {
        let latest = worth(new.size_bytes, new.exec_us) * MEAN_UNIT;
        let mean = i64::from(self.meta.mean_worth);
        let next = if mean == 0 { latest } else { mean + (latest - mean) / MEAN_WINDOW };
        self.meta.mean_worth = u32::try_from(next).unwrap_or(0);
    }

    fn unchain(&mut self, index: usize, entry: &Entry) {
        let bucket = bucket_of(&entry.key, self.buckets.len());
        let Some(head) = self.buckets.get_mut(bucket) else { return };
        if *head == number(index) {
            *head = entry.next;
            return;
        }
        let mut at = *head;
        for _ in 0..self.entries.len() {
            let Some(other) = entry_at(self.entries, at) else { return };
            if other.next == number(index) {
                other.next = entry.next;
                return;
            }
            at = other.next;
        }
    }

    fn queue_mut(&mut self, queue: u32) -> &mut Queue {
        if queue == MAIN { &mut self.meta.main } else { &mut self.meta.small }
    }

    fn oldest(&mut self, queue: u32) -> Option<usize> {
        (self.queue_mut(queue).oldest as usize).checked_sub(1)
    }

    fn requeue(&mut self, index: usize, queue: u32) {
        self.dequeue(index);
        self.enqueue(index, queue);
    }

    fn enqueue(&mut self, index: usize, queue: u32) {
        let newest = self.queue_mut(queue).newest;
        let Some(entry) = self.entries.get_mut(index) else { return };
        (entry.queue, entry.older, entry.newer) = (queue, newest, 0);
        let size_bytes = u64::from(entry.size_bytes);
        if let Some(previous) = entry_at(self.entries, newest) {
            previous.newer = number(index);
        }
        let ends = self.queue_mut(queue);
        ends.newest = number(index);
        if newest == 0 {
            ends.oldest = number(index);
        }
        ends.bytes = ends.bytes.saturating_add(size_bytes);
    }

    fn dequeue(&mut self, index: usize) {
        let Some(&Entry { queue, newer, older, size_bytes, .. }) = self.entries.get(index) else { return };
        match entry_at(self.entries, newer) {
            Some(other) => other.older = older,
            None => self.queue_mut(queue).newest = older,
        }
        match entry_at(self.entries, older) {
            Some(other) => other.newer = newer,
            None => self.queue_mut(queue).oldest = newer,
        }
        let ends = self.queue_mut(queue);
        ends.bytes = ends.bytes.saturating_sub(u64::from(size_bytes));
    }

    /// The few places that a key's ghost may take, the latest first.
    fn ghosts_of(&mut self, key: &[u64; 4]) -> &mut [u64] {
        let sets = (self.ghosts.len() / GHOST_WAYS).max(1);
        let start = scale(key[2] as u32, sets) * GHOST_WAYS;
        let end = (start + GHOST_WAYS).min(self.ghosts.len());
        self.ghosts.get_mut(start..end).unwrap_or_default()
    }

    fn remember_ghost(&mut self, key: &[u64; 4]) {
        let places = self.ghosts_of(key);
        if !places.is_empty() {
            places.rotate_right(1);
            places[0] = fingerprint(key);
        }
    }

    fn forget_ghost(&mut self, key: &[u64; 4]) -> bool {
        let ghost = self.ghosts_of(key).iter_mut().find(|ghost| **ghost == fingerprint(key));
        ghost.map(|ghost| *ghost = 0).is_some()
    }
}

/// Execution time saved for each byte, on a scale of doublings: 16 more is twice as much.
fn worth(size_bytes: u32, exec_us: u32) -> i64 {
    let ratio = (((u64::from(exec_us) + 1) << 24) / u64::from(size_bytes.max(1))).max(1);
    let doublings = ratio.ilog2();
    // The four bits below the highest stand for the sixteenths, well enough.
    let sixteenths = (ratio << (63 - doublings) >> 59) & 15;
    i64::from(doublings) * DOUBLING + sixteenths as i64
}

/// How often the mean has to be doubled to reach this worth; negative for halvings.
fn doublings_above(size_bytes: u32, exec_us: u32, mean_worth: u32) -> i64 {
    let mean = i64::from(mean_worth) / MEAN_UNIT;
    if mean == 0 { 0 } else { (worth(size_bytes, exec_us) - mean) / DOUBLING }
}

/// Rounds that an entry may stay without a use, for its worth above the mean.
const fn rounds_for(doublings_above: i64) -> u32 {
    match doublings_above {
        ..2 => 0,
        2..4 => 1,
        _ => 2,
    }
}

fn set_uses(heat: &[AtomicU64], index: usize, uses: u64) {
    if let Some(word) = heat.get(index) {
        // Readers are kept out by the exclusive lock, so nothing comes in between.
        word.store(word.load(Ordering::Relaxed) & !USES | uses, Ordering::Relaxed);
    }
}

fn entry_at(entries: &mut [Entry], number: u32) -> Option<&mut Entry> {
    entries.get_mut((number as usize).checked_sub(1)?)
}

const fn number(index: usize) -> u32 {
    (index as u32).wrapping_add(1)
}

/// `range * fraction`, for 32 bits of a hash taken as a fraction of 1 (Lemire 2019): a place without a division.
#[inline]
const fn scale(bits: u32, range: usize) -> usize {
    ((bits as u64 * range as u64) >> 32) as usize
}

#[inline]
const fn bucket_of(key: &[u64; 4], buckets: usize) -> usize {
    scale(key[1] as u32, buckets)
}

/// 0 marks a free place.
const fn fingerprint(key: &[u64; 4]) -> u64 {
    key[2] | 1
}
