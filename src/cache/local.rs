//! Results of this session: copies that are served without touching what is stored in shared memory, but for the
//! versions that say whether they still hold.

use super::stats::{self, Count, Part};
use super::store::{self, Key};
use crate::pg::backend::BackendStatic;
use crate::pg::buffer::Buffer;
use crate::pg::{clock, guc};
use crate::settings;
use core::cell::{Cell, RefCell};
use lru::LruCache;

/// Hits are added to the shared counts after this time.
const FLUSH_NS: u64 = 1_000_000_000;
/// Bytes of bookkeeping for each result.
const OVERHEAD_BYTES: usize = 200;

/// A result with all that decides whether it may be served.
pub struct Result {
    pub dependencies: Box<[(u32, u64)]>,
    pub relations: Box<[u32]>,
    /// When it was computed, on the monotonic clock.
    pub created_us: u64,
    pub ttl_ms: u64,
    pub exec_us: u32,
    pub class: u32,
    pub query: u32,
    pub is_sensitive: bool,
    pub tuples: Option<Buffer>,
    /// A json value.
    pub json: Option<Buffer>,
    /// The key of the shared copy, where there is one.
    pub key: Key,
    pub pending_hits: u32,
    pub all_hits: u32,
}

impl Result {
    fn size_bytes(&self, key: &[u8]) -> usize {
        let buffers = [self.tuples, self.json].iter().flatten().map(|buffer| buffer.size_bytes()).sum::<usize>();
        buffers + key.len() + self.dependencies.len() * 16 + self.relations.len() * 4 + OVERHEAD_BYTES
    }

    fn free(self) {
        count_hits(&self);
        for buffer in [self.tuples, self.json].into_iter().flatten() {
            buffer.free(self.is_sensitive);
        }
    }
}

type Results = LruCache<Box<[u8]>, Result>;
type Held = Option<(Box<[u8]>, Result)>;

static RESULTS: BackendStatic<RefCell<Option<Results>>> = BackendStatic::new(RefCell::new(None));
static SIZE_BYTES: BackendStatic<Cell<usize>> = BackendStatic::new(Cell::new(0));
static FLUSHED_NS: BackendStatic<Cell<u64>> = BackendStatic::new(Cell::new(0));

fn limit_bytes() -> usize {
    guc::int(&settings::CACHE_LOCAL_SIZE_KB).max(0) as usize * 1024
}

/// Runs `look` with the result of a key, which then counts as just used.
#[inline(always)]
pub fn with<R>(key: &[u8], look: impl FnOnce(&mut Result) -> R) -> Option<R> {
    if SIZE_BYTES.get() > limit_bytes() {
        // The limit was lowered.
        shrink(limit_bytes());
    }
    RESULTS.borrow_mut().as_mut()?.get_mut(key).map(look)
}

/// A key may be as long as the parameters that a caller gives. `None`: there is no memory for it.
fn copy_of_key(key: &[u8]) -> Option<Box<[u8]>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(key.len()).ok()?;
    copy.extend_from_slice(key);
    Some(copy.into_boxed_slice())
}

/// Keeps a result, and lets the least recently used go until it fits. `false`: it is larger than all the room, or there is no
/// memory for it.
pub fn put(key: &[u8], result: Result) -> bool {
    let size = result.size_bytes(key);
    remove(key);
    let fits = size <= limit_bytes();
    let Some(copy) = fits.then(|| copy_of_key(key)).flatten() else {
        result.free();
        return false;
    };
    shrink(limit_bytes() - size);
    let mut results = RESULTS.borrow_mut();
    results.get_or_insert_with(LruCache::unbounded).put(copy, result);
    SIZE_BYTES.set(SIZE_BYTES.get() + size);
    true
}

/// The result that was held last for a caller whose class lets this session keep none.
static HELD: BackendStatic<RefCell<Held>> = BackendStatic::new(RefCell::new(None));

/// Keeps a result, or only holds it until the next one is.
pub fn put_or_hold(key: &[u8], result: Result, may_keep: bool) {
    let before = HELD.borrow_mut().take();
    if let Some((_, before)) = before {
        before.free();
    }
    if may_keep && result.size_bytes(key) <= limit_bytes() {
        put(key, result);
    } else if let Some(copy) = copy_of_key(key) {
        *HELD.borrow_mut() = Some((copy, result));
    } else {
        result.free();
    }
}

/// Rows and JSON of the result that `put_or_hold` was given for this key.
pub fn held(key: &[u8]) -> Option<(Option<Buffer>, Option<Buffer>)> {
    if let Some((_, result)) = HELD.borrow().as_ref().filter(|(held, _)| **held == *key) {
        return Some((result.tuples, result.json));
    }
    with(key, |result| (result.tuples, result.json))
}

/// Keeps the JSON form of a result beside its rows. `false`: the result is gone, or has it already.
pub fn attach_json(key: &[u8], json: Buffer) -> bool {
    let attached = with(key, |result| {
        let is_new = result.json.is_none();
        if is_new {
            result.json = Some(json);
        }
        is_new
    });
    if attached == Some(true) {
        SIZE_BYTES.set(SIZE_BYTES.get() + json.size_bytes());
    }
    attached == Some(true)
}

fn shrink(to_bytes: usize) {
    while SIZE_BYTES.get() > to_bytes {
        let Some((key, result)) = RESULTS.borrow_mut().as_mut().and_then(LruCache::pop_lru) else {
            return SIZE_BYTES.set(0);
        };
        SIZE_BYTES.set(SIZE_BYTES.get().saturating_sub(result.size_bytes(&key)));
        stats::add(Count::LocalEvictions, 1);
        result.free();
    }
}

/// Drops a result.
pub fn remove(key: &[u8]) {
    if let Some(result) = RESULTS.borrow_mut().as_mut().and_then(|results| results.pop(key)) {
        SIZE_BYTES.set(SIZE_BYTES.get().saturating_sub(result.size_bytes(key)));
        result.free();
    }
}

/// Drops all results.
pub fn clear() {
    shrink(0);
}

/// Bytes and number of results.
pub fn used() -> (usize, usize) {
    (SIZE_BYTES.get(), RESULTS.borrow().as_ref().map_or(0, LruCache::len))
}

fn count_hits(result: &Result) {
    let hits = u64::from(result.pending_hits);
    if hits > 0 {
        stats::add(Count::LocalHits, hits);
        stats::add_to(result.class, result.query, Part::LocalHits, hits);
        stats::add(Count::SavedUs, hits * u64::from(result.exec_us));
        stats::add_to(result.class, result.query, Part::SavedUs, hits * u64::from(result.exec_us));
        store::add_hits(&result.key, hits);
    }
}

/// Hits on shared results that are not yet in the shared counts: class, query, how many, time saved.
static SHARED_HITS: BackendStatic<RefCell<Vec<[u64; 4]>>> = BackendStatic::new(RefCell::new(Vec::new()));

/// Counts a hit on a shared result.
pub fn count_shared(class: u32, query: u32, exec_us: u32) {
    let mut pending = SHARED_HITS.borrow_mut();
    let (class, query) = (u64::from(class), u64::from(query));
    match pending.iter_mut().find(|known| known[0] == class && known[1] == query) {
        Some(known) => {
            known[2] += 1;
            known[3] += u64::from(exec_us);
        }
        None => pending.push([class, query, 1, u64::from(exec_us)]),
    }
}

/// Adds the hits of this session to the shared counts.
pub fn flush() {
    for [class, query, hits, saved_us] in SHARED_HITS.borrow_mut().drain(..) {
        stats::add(Count::SharedHits, hits);
        stats::add(Count::SavedUs, saved_us);
        stats::add_to(class as u32, query as u32, Part::SharedHits, hits);
        stats::add_to(class as u32, query as u32, Part::SavedUs, saved_us);
    }
    if let Some(results) = RESULTS.borrow_mut().as_mut() {
        for (_, result) in results.iter_mut() {
            count_hits(result);
            result.pending_hits = 0;
        }
    }
}

/// The same when it is time to.
#[inline(always)]
pub fn flush_sometimes(now_ns: u64) {
    if now_ns.wrapping_sub(FLUSHED_NS.get()) > FLUSH_NS {
        flush_now(now_ns);
    }
}

#[inline(never)]
fn flush_now(now_ns: u64) {
    FLUSHED_NS.set(now_ns);
    flush();
    super::statements::note_use();
}

/// The session ends.
pub fn session_ends() {
    flush();
    if RESULTS.borrow().is_some() {
        FLUSHED_NS.set(clock::monotonic_ns());
    }
}
