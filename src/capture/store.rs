//! The shared entries: partitions of a hash table, each with its lock, its texts, and an entry for all
//! statements that it cannot hold.
//!
//! **Lock.** One LWLock per partition protects everything in it: exclusive to merge, evict and reset, shared
//! to read. A backend comes at most once in `flush_interval` per statement, so a lock is held for about a
//! microsecond a second and backend; `merge` of a full transaction end does not wait for it at all.

use crate::pg::shmem::{Area, Arrays, Counts as Lengths};
use crate::pg::{clock, guc};
use crate::settings;
use core::ffi::CStr;
use steward_core::capture::arena::{self, Arena, ArenaMeta, BLOCK_BYTES, Block};
use steward_core::capture::entry::{Counts, Entry, PlanVerdict};
use steward_core::capture::histogram::{self, BUCKETS};
use steward_core::capture::limiter;
use steward_core::capture::table::{self, Admission, Key, Slot, Table, TableMeta};

/// Partitions of the table. Sixteen keep lock waits away with far more backends than a server runs, and are
/// few enough that hashing fills them evenly.
pub const PARTITIONS: usize = 16;
/// Room beyond the even share, for partitions that hashing fills more than others.
const SLACK: usize = 16;

type Partition = Area<(TableMeta, ArenaMeta), u32, Slot, Entry, Block>;
static TABLE: [Partition; PARTITIONS] = [const { Area::new() }; PARTITIONS];

const NAMES: [&CStr; PARTITIONS] = [
    c"pg_steward statements 1.00",
    c"pg_steward statements 1.01",
    c"pg_steward statements 1.02",
    c"pg_steward statements 1.03",
    c"pg_steward statements 1.04",
    c"pg_steward statements 1.05",
    c"pg_steward statements 1.06",
    c"pg_steward statements 1.07",
    c"pg_steward statements 1.08",
    c"pg_steward statements 1.09",
    c"pg_steward statements 1.10",
    c"pg_steward statements 1.11",
    c"pg_steward statements 1.12",
    c"pg_steward statements 1.13",
    c"pg_steward statements 1.14",
    c"pg_steward statements 1.15",
];

/// Entries that fit in all: the setting, rounded up by partitions and their slack.
pub fn capacity() -> usize {
    slots() * PARTITIONS
}

/// Slots of one partition.
fn slots() -> usize {
    let even = (settings::MAX_STATEMENTS.get() as usize).div_ceil(PARTITIONS);
    even + even / SLACK
}

/// Lengths of the arrays: header; buckets and doorkeeper; slots; entries and the one for all others; texts.
fn lengths() -> Lengths {
    let slots = slots();
    let text = settings::TEXT_MEMORY_KB.get() as usize * 1024 / PARTITIONS;
    [1, slots * 5, slots, slots + 1, text / (BLOCK_BYTES + 4)]
}

pub fn bytes() -> usize {
    PARTITIONS * Partition::estimate_size(lengths())
}

pub fn create(tranche: &'static CStr) {
    for (index, partition) in TABLE.iter().enumerate() {
        partition.create(NAMES[index], tranche, index, lengths());
        partition.initialise(|arrays| {
            if let Some(mut part) = Part::of(arrays) {
                part.clear();
            }
        });
    }
}

/// One partition under the exclusive lock.
struct Part<'a> {
    table: Table<'a>,
    arena: Arena<'a>,
    entries: &'a mut [Entry],
    others: &'a mut Entry,
}

impl<'a> Part<'a> {
    fn of(arrays: Arrays<'a, (TableMeta, ArenaMeta), u32, Slot, Entry, Block>) -> Option<Part<'a>> {
        let (table_meta, arena_meta) = arrays.a.first_mut()?;
        let (buckets, door) = arrays.b.split_at_mut(arrays.c.len());
        let (others, entries) = arrays.d.split_last_mut()?;
        Some(Part {
            table: Table { meta: table_meta, buckets, slots: arrays.c, door },
            arena: Arena { meta: arena_meta, blocks: arrays.e },
            entries,
            others,
        })
    }

    fn clear(&mut self) {
        self.table.init();
        *self.arena.meta = ArenaMeta::default();
        self.entries.fill(Entry::default());
        *self.others = Entry::default();
    }

    /// The entry of a key, made when it may be; an entry that has to go is folded into the others.
    fn entry(&mut self, key: &Key) -> Option<&mut Entry> {
        let index = match self.table.admit(key) {
            Admission::Existing(index) => return self.entries.get_mut(index),
            Admission::Inserted(index) => index,
            Admission::Evicted { index, .. } => {
                if let Some(old) = self.entries.get(index) {
                    self.others.fold(old);
                    self.arena.free(old.text);
                }
                index
            }
            Admission::Refused => return None,
        };
        let entry = self.entries.get_mut(index)?;
        *entry = Entry::default();
        Some(entry)
    }

    fn remove(&mut self, index: usize) {
        if let Some(entry) = self.entries.get_mut(index) {
            self.arena.free(entry.text);
            *entry = Entry::default();
        }
        self.table.remove(index);
    }
}

fn partition(key: &Key) -> &'static Partition {
    &TABLE[table::partition_of(table::hash(key), PARTITIONS)]
}

/// What one backend brings to one entry.
pub struct Visit<'a, H> {
    pub key: Key,
    pub counts: &'a Counts,
    pub histogram: H,
    /// Normalised text, when the backend does not know that the entry has one.
    pub text: Option<&'a [u8]>,
    /// The plan last seen; 0 for none.
    pub plan_id: i64,
}

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Visited {
    /// In its entry, which has a text or not.
    Counted { has_text: bool },
    /// Among the others.
    Folded,
    /// The lock was not free.
    Busy,
}

/// Adds what a backend counted. `wait`: take the lock even if that means waiting.
pub fn merge<H: Iterator<Item = (usize, u64)>>(visit: Visit<'_, H>, wait: bool) -> Visited {
    let now_us = clock::now_us();
    let place = partition(&visit.key);
    let work = |arrays: Arrays<'_, _, _, _, _, _>| match Part::of(arrays) {
        Some(mut part) => add_to(&mut part, visit, now_us),
        None => Visited::Folded,
    };
    let visited = if wait { place.exclusive(work) } else { place.try_exclusive(work) };
    visited.unwrap_or(Visited::Busy)
}

fn add_to<H: Iterator<Item = (usize, u64)>>(part: &mut Part<'_>, visit: Visit<'_, H>, now_us: i64) -> Visited {
    let Some(entry) = part.entry(&visit.key) else {
        part.others.merge(visit.counts, visit.histogram, now_us);
        return Visited::Folded;
    };
    entry.merge(visit.counts, visit.histogram, now_us);
    if visit.plan_id != 0 {
        entry.plan_id = visit.plan_id;
    }
    let needs_text = entry.text.length == 0;
    let stored = needs_text.then_some(visit.text).flatten().map(|text| part.arena.store(text));
    let has_text = !needs_text || stored.is_some();
    if let (Some(text), Some(index)) = (stored, part.table.find(&visit.key)) {
        part.entries[index].text = text;
    }
    Visited::Counted { has_text }
}

/// May one more event of this statement be recorded now? And its text, when the entry has one.
pub fn admit_event(key: &Key, limit_per_minute: u32) -> (bool, Option<Vec<u8>>) {
    let now_s = clock::seconds(clock::now_us());
    let mut text = Vec::with_capacity(guc::int(&settings::MAX_QUERY_LENGTH) as usize);
    let allowed = partition(key).exclusive(|arrays| {
        let part = Part::of(arrays)?;
        let index = part.table.find(key)?;
        let entry = part.entries.get_mut(index)?;
        arena::read(part.arena.blocks, entry.text, &mut text);
        Some(limiter::allow(&mut entry.limit, now_s, limit_per_minute))
    });
    // A statement without an entry has no history that could flood anything yet.
    (allowed.flatten().unwrap_or(true), (!text.is_empty()).then_some(text))
}

/// An entry as a reader gets it.
pub struct Statement {
    pub key: Key,
    pub entry: Entry,
    pub text: Vec<u8>,
}

/// Copies every entry that `wanted` accepts, one partition at a time.
pub fn read(with_text: bool, wanted: impl Fn(&Key) -> bool) -> Vec<Statement> {
    let mut statements = Vec::new();
    for partition in &TABLE {
        statements.reserve(slots());
        partition.shared(|view| {
            for (slot, entry) in view.c.iter().zip(view.d) {
                if slot.occupied != 0 && wanted(&slot.key) {
                    let mut text = Vec::new();
                    if with_text {
                        arena::read(view.e, entry.text, &mut text);
                    }
                    statements.push(Statement { key: slot.key, entry: *entry, text });
                }
            }
        });
    }
    statements
}

/// What the table as a whole says of itself.
#[derive(Default)]
pub struct Totals {
    pub entries: u64,
    pub evictions: u64,
    pub refused: u64,
    pub texts_truncated: u64,
    /// Everything counted of statements that have no entry.
    pub others: Entry,
}

pub fn totals() -> Totals {
    let mut totals = Totals::default();
    for partition in &TABLE {
        partition.shared(|view| {
            if let (Some((table, arena)), Some(others)) = (view.a.first(), view.d.last()) {
                totals.entries += u64::from(table.entries);
                totals.evictions += table.evictions;
                totals.refused += table.refused;
                totals.texts_truncated += u64::from(arena.truncated);
                totals.others.fold(others);
            }
        });
    }
    totals
}

/// Forgets the entries that `wanted` accepts; with `everything`, also the others and the counters.
pub fn reset(everything: bool, wanted: impl Fn(&Key) -> bool) {
    for partition in &TABLE {
        partition.exclusive(|arrays| {
            let Some(mut part) = Part::of(arrays) else { return };
            if everything {
                return part.clear();
            }
            for index in 0..part.entries.len() {
                let slot = part.table.slots[index];
                if slot.occupied != 0 && wanted(&slot.key) {
                    part.remove(index);
                }
            }
        });
    }
}

/// The statement was seen with this plan: is that to be recorded?
pub fn see_plan(key: &Key, plan_id: i64, slow: bool) -> PlanVerdict {
    let now_us = clock::now_us();
    let verdict = partition(key).exclusive(|arrays| {
        let part = Part::of(arrays)?;
        let index = part.table.find(key)?;
        Some(part.entries.get_mut(index)?.see_plan(plan_id, now_us, slow))
    });
    // Without an entry nothing is remembered: a slow execution gets its plan, a fast one asks again.
    let unknown = if slow { PlanVerdict::Record { with_text: true } } else { PlanVerdict::Later };
    verdict.flatten().unwrap_or(unknown)
}

/// The histogram of a statement in this database, all users together.
pub fn histogram(query_id: u64, database: u32) -> [u64; BUCKETS] {
    let mut sum = [0; BUCKETS];
    for partition in &TABLE {
        partition.shared(|view| {
            for (slot, entry) in view.c.iter().zip(view.d) {
                if slot.occupied != 0 && slot.key.queryid == query_id && slot.key.dbid == database {
                    histogram::add(&mut sum, &entry.histogram.counts());
                }
            }
        });
    }
    sum
}
