//! What the cache did: counts of the server, of each class and of each query, and how long calls took.
//!
//! Hits on a session's own copies are counted in the session and added here once a second, so that they cost no shared
//! memory on the way.

use super::store::LOCKS;
use crate::pg::shmem::{Area, SharedWords};
use crate::pg::{clock, session};
use core::ffi::CStr;
use core::sync::atomic::Ordering::Relaxed;
use steward_core::cache::reason::Reason;
use steward_core::cache::shard::Freed;
use steward_core::capture::histogram;

/// Counts of the server.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Count {
    LocalHits,
    SharedHits,
    Misses,
    Stored,
    StoredLocally,
    Evictions,
    LocalEvictions,
    Invalidations,
    Expirations,
    Replaced,
    Dropped,
    Waits,
    WaitsServed,
    WaitsTimedOut,
    SavedUs,
}

const COUNTS: usize = Count::SavedUs as usize + 1;

/// Counts of one class or query.
#[derive(Clone, Copy)]
#[repr(usize)]
pub enum Part {
    LocalHits,
    SharedHits,
    Misses,
    Stored,
    Evictions,
    Invalidations,
    SavedUs,
    SizeBytes,
    Entries,
    LastUsedUs,
    /// How often a query's place has been given to another.
    Turn,
}

const PARTS: usize = Part::Turn as usize + 1;

pub const CLASSES: usize = 64;
const QUERIES: usize = 1000;
/// The number of a query is its place in so many bits, and above them the place's turn: a number of an earlier turn
/// stands for nothing any more.
const PLACE_BITS: u32 = 10;
const _: () = assert!(QUERIES < 1 << PLACE_BITS);
/// Bytes that are kept of a query's text.
const TEXT_BYTES: usize = 984;

/// What took how long.
#[derive(Clone, Copy)]
#[repr(usize)]
pub enum Timed {
    LocalHit,
    SharedHit,
    Miss,
}

const TIMED: usize = 3;
/// Durations are counted in units of this many nanoseconds: a hit takes about one microsecond, the histogram's unit.
const UNIT_NS: u64 = 10;

static WORDS: SharedWords = SharedWords::new();
const REASONS_AT: usize = COUNTS;
const TIMED_AT: usize = REASONS_AT + Reason::COUNT;
const CLASSES_AT: usize = TIMED_AT + TIMED * histogram::BUCKETS;
const QUERIES_AT: usize = CLASSES_AT + CLASSES * PARTS;
const SINCE_AT: usize = QUERIES_AT + QUERIES * PARTS;
const TOTAL: usize = SINCE_AT + 1;

/// Names of classes by their number; all zero for none.
type ClassName = [u8; 64];
/// Query: fingerprint, database, role, length and text.
type QueryText = ([u64; 3], [u8; TEXT_BYTES]);
static NAMES: Area<ClassName, QueryText> = Area::new();

/// Bytes that each role has stored, by a hash of database, role and class: roles that share a place share the quota.
static QUOTAS: SharedWords = SharedWords::new();
const QUOTA_PLACES: usize = 4096;

pub fn bytes() -> usize {
    SharedWords::estimate_size(TOTAL)
        + SharedWords::estimate_size(QUOTA_PLACES)
        + Area::<ClassName, QueryText>::estimate_size([CLASSES, QUERIES, 0, 0, 0])
}

pub fn create(tranche: &'static CStr) {
    WORDS.create(c"pg_steward cache statistics 1", TOTAL);
    QUOTAS.create(c"pg_steward cache quotas 1", QUOTA_PLACES);
    NAMES.create(c"pg_steward cache names 1", tranche, LOCKS.queries, [CLASSES, QUERIES, 0, 0, 0]);
    set(SINCE_AT, clock::now_us() as u64);
}

fn add_at(place: usize, count: u64) {
    if let Some(word) = WORDS.get().get(place) {
        word.fetch_add(count, Relaxed);
    }
}

fn set(place: usize, value: u64) {
    if let Some(word) = WORDS.get().get(place) {
        word.store(value, Relaxed);
    }
}

fn get(place: usize) -> u64 {
    WORDS.get().get(place).map_or(0, |word| word.load(Relaxed))
}

pub fn add(count: Count, number: u64) {
    add_at(count as usize, number);
}

pub fn count(which: Count) -> u64 {
    get(which as usize)
}

pub fn reason(reason: Reason) {
    add_at(REASONS_AT + reason as usize, 1);
}

pub fn reason_count(reason: Reason) -> u64 {
    get(REASONS_AT + reason as usize)
}

/// When the statistics were made or reset, microseconds since 2000-01-01.
pub fn since_us() -> i64 {
    get(SINCE_AT) as i64
}

pub fn add_to_class(class: u32, part: Part, number: u64) {
    if (class as usize) < CLASSES {
        add_at(CLASSES_AT + class as usize * PARTS + part as usize, number);
    }
}

const fn place_of(query: u32) -> usize {
    (query & ((1 << PLACE_BITS) - 1)) as usize
}

/// The number of whichever query has the place now.
fn number_of(place: usize) -> u32 {
    (get(QUERIES_AT + place * PARTS + Part::Turn as usize) as u32) << PLACE_BITS | place as u32
}

/// The place of a query, while it has it.
fn own_place(query: u32) -> Option<usize> {
    let place = place_of(query);
    (place < QUERIES && number_of(place) == query).then_some(place)
}

fn add_to_query(query: u32, part: Part, number: u64) {
    if let Some(place) = own_place(query) {
        add_at(QUERIES_AT + place * PARTS + part as usize, number);
    }
}

/// Adds to the counts of both.
pub fn add_to(class: u32, query: u32, part: Part, number: u64) {
    add_to_class(class, part, number);
    add_to_query(query, part, number);
}

pub fn query_used(query: u32) {
    if let Some(place) = own_place(query) {
        set(QUERIES_AT + place * PARTS + Part::LastUsedUs as usize, clock::now_us() as u64);
    }
}

/// An entry may be counted a moment after it has left.
fn not_negative(count: u64) -> u64 {
    if (count as i64) < 0 { 0 } else { count }
}

pub fn class_part(class: usize, part: Part) -> u64 {
    not_negative(get(CLASSES_AT + class * PARTS + part as usize))
}

pub fn query_part(query: u32, part: Part) -> u64 {
    not_negative(get(QUERIES_AT + place_of(query) * PARTS + part as usize))
}

pub fn time(what: Timed, elapsed_ns: u64) {
    let bucket = histogram::bucket_of_us(elapsed_ns / UNIT_NS);
    add_at(TIMED_AT + what as usize * histogram::BUCKETS + bucket, 1);
}

/// A percentile of how long something took, ms.
pub fn percentile_ms(what: Timed, p: f64) -> Option<f64> {
    let from = TIMED_AT + what as usize * histogram::BUCKETS;
    let counts: Vec<u64> = (from..from + histogram::BUCKETS).map(get).collect();
    histogram::percentile_us(&counts, p, f64::NAN, f64::NAN).map(|units| units * UNIT_NS as f64 / 1e6)
}

/// Sets every count back, but for what there is: entries and bytes.
pub fn reset() {
    for place in 0..TOTAL {
        let within = place.checked_sub(CLASSES_AT).map(|place| place % PARTS);
        let kept = [Part::SizeBytes, Part::Entries, Part::Turn].map(|part| part as usize);
        if place < SINCE_AT && !within.is_some_and(|part| kept.contains(&part)) {
            set(place, 0);
        }
    }
    set(SINCE_AT, clock::now_us() as u64);
}

// What leaves and enters shared memory

fn quota(database: u32, role: u32, class: u32) -> Option<&'static core::sync::atomic::AtomicU64> {
    let hash = (u64::from(database) << 32 | u64::from(role)).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(class);
    QUOTAS.get().get(hash.wrapping_mul(0xbf58_476d_1ce4_e5b9) as usize >> 52)
}

/// Bytes that the role has stored in the class.
pub fn role_bytes(database: u32, role: u32, class: u32) -> u64 {
    quota(database, role, class).map_or(0, |word| word.load(Relaxed))
}

pub fn entered(database: u32, role: u32, class: u32, query: u32, size_bytes: u64) {
    if let Some(word) = quota(database, role, class) {
        word.fetch_add(size_bytes, Relaxed);
    }
    add(Count::Stored, 1);
    add_to(class, query, Part::Stored, 1);
    add_entries(class, query, 1, size_bytes);
}

/// Both numbers wrap. The query's place is kept meanwhile: what left its query and what entered must come to the same.
fn add_entries(class: u32, query: u32, entries: u64, size_bytes: u64) {
    NAMES.shared(|_| {
        add_to(class, query, Part::SizeBytes, size_bytes);
        add_to(class, query, Part::Entries, entries);
    });
}

pub fn left(freed: &Freed, why: Count) {
    if let Some(word) = quota(freed.database, freed.role, freed.class) {
        word.fetch_sub(u64::from(freed.size_bytes), Relaxed);
    }
    add(why, 1);
    match why {
        Count::Evictions => add_to(freed.class, freed.query, Part::Evictions, 1),
        Count::Invalidations => add_to(freed.class, freed.query, Part::Invalidations, 1),
        _ => {}
    }
    add_entries(freed.class, freed.query, u64::MAX, (-i64::from(freed.size_bytes)) as u64);
}

// Names

/// The number of a class, which its statistics are kept under. Beyond the last, classes share it.
pub fn class_number(name: &str) -> u32 {
    let mut wanted: ClassName = [0; 64];
    for (to, from) in wanted.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    let found = NAMES.exclusive(|arrays| {
        let place = arrays.a.iter().position(|known| *known == wanted || known[0] == 0).unwrap_or(CLASSES - 1);
        if arrays.a[place][0] == 0 {
            arrays.a[place] = wanted;
        }
        place as u32
    });
    found.unwrap_or(0)
}

pub fn class_name(number: usize) -> String {
    let name = NAMES.shared(|view| view.a.get(number).copied()).flatten().unwrap_or([0; 64]);
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..end]).into_owned()
}

fn fingerprint(text: &[u8], role: u32) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ (u64::from(session::database_id()) << 32 | u64::from(role));
    for byte in text {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash | 1
}

/// The number of a query of a role, which its statistics are kept under. When all places are taken, the query that was used
/// least recently gives way.
pub fn query_number(text: &[u8], role: u32) -> u32 {
    let wanted = fingerprint(text, role);
    let length = text.len().min(TEXT_BYTES);
    let mut kept = [0; TEXT_BYTES];
    kept[..length].copy_from_slice(&text[..length]);
    let head = [wanted, u64::from(session::database_id()) << 32 | u64::from(role), length as u64];
    let number = NAMES.exclusive(|arrays| {
        let known = arrays.b.iter().position(|known| known.0[0] == wanted);
        let place = known.or_else(|| {
            let place = least_used(arrays.b)?;
            next_turn(place);
            arrays.b[place] = (head, kept);
            Some(place)
        });
        place.map(number_of)
    });
    let number = number.flatten().unwrap_or(QUERIES as u32);
    query_used(number);
    number
}

fn least_used(queries: &[QueryText]) -> Option<usize> {
    (0..queries.len()).min_by_key(|place| match queries[*place].0[0] {
        0 => 0,
        _ => query_part(*place as u32, Part::LastUsedUs).max(1),
    })
}

/// The place's counts begin anew.
fn next_turn(place: usize) {
    let turn = get(QUERIES_AT + place * PARTS + Part::Turn as usize).wrapping_add(1);
    (0..PARTS).for_each(|part| set(QUERIES_AT + place * PARTS + part, 0));
    // A turn has the bits of a number that the place leaves.
    set(QUERIES_AT + place * PARTS + Part::Turn as usize, turn & u64::from(u32::MAX >> PLACE_BITS));
}

/// A query as it is known here.
pub struct Query {
    pub database: u32,
    pub role: u32,
    pub text: Vec<u8>,
}

pub fn query(number: u32) -> Option<Query> {
    let known = NAMES.shared(|view| own_place(number).and_then(|place| view.b.get(place).copied()));
    let (head, text) = known.flatten()?;
    (head[0] != 0).then(|| Query {
        database: (head[1] >> 32) as u32,
        role: head[1] as u32,
        text: text[..(head[2] as usize).min(TEXT_BYTES)].to_vec(),
    })
}

/// The numbers of all queries that have a place.
pub fn query_numbers() -> impl Iterator<Item = u32> {
    (0..QUERIES).map(number_of)
}
