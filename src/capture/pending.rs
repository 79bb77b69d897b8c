//! What this backend has counted and not yet brought to the shared entries.
//!
//! A fixed table in the backend's own memory: finding an entry and adding to it is a few dozen
//! instructions without a lock or an allocation. At the end of a transaction, at most once in
//! `flush_interval`, `flush` adds everything to the shared entries; an entry stays where it is, with zero
//! counts, so that the next execution finds it again. A statement that finds its places taken pushes the
//! oldest one out: that one is flushed at once.

use super::{control, control::Counter, repeats, store, texts};
use crate::pg::backend::BackendStatic;
use crate::pg::{clock, guc, session, shield, usage};
use crate::settings;
use core::cell::Cell;
use steward_core::capture::entry::{Counts, Failures, JIT_WORDS, Times};
use steward_core::capture::histogram::{BUCKETS, bucket_of_us};
use steward_core::capture::table::Key;

/// One execution in so many is looked at more closely: its plan, and what counting it costs.
const SAMPLE: u64 = 64;
/// Statements that a backend counts at once.
const ENTRIES: usize = 128;
/// Places that a statement may take.
const PROBES: usize = 8;

/// One statement's pending counts.
pub struct Entry {
    query_id: Cell<u64>,
    user_id: Cell<u32>,
    toplevel: Cell<bool>,
    dirty: Cell<bool>,
    needs_text: Cell<bool>,
    /// Counted once more by each execution; the entry with the lowest is the first to give way.
    last_use: Cell<u32>,
    calls: Cell<u64>,
    rows: Cell<u64>,
    total_ns: Cell<u64>,
    squares_ns2: Cell<u128>,
    min_ns: Cell<u64>,
    max_ns: Cell<u64>,
    plan: Cell<Times>,
    failures: Cell<Failures>,
    jit: Cell<[u64; JIT_WORDS]>,
    usage: usage::Words,
    histogram: [Cell<u16>; BUCKETS],
    /// The plan that ran last, where it was looked at; 0 for none.
    plan_id: Cell<i64>,
    /// The plan that is known to be recorded; 0 for none.
    settled_plan: Cell<i64>,
    pub repeat: repeats::Count,
}

impl Entry {
    const fn new() -> Self {
        Self {
            query_id: Cell::new(0),
            user_id: Cell::new(0),
            toplevel: Cell::new(false),
            dirty: Cell::new(false),
            needs_text: Cell::new(false),
            last_use: Cell::new(0),
            calls: Cell::new(0),
            rows: Cell::new(0),
            total_ns: Cell::new(0),
            squares_ns2: Cell::new(0),
            min_ns: Cell::new(u64::MAX),
            max_ns: Cell::new(0),
            plan: Cell::new(NO_TIMES),
            failures: Cell::new(NO_FAILURES),
            jit: Cell::new([0; JIT_WORDS]),
            usage: usage::ZERO,
            histogram: [const { Cell::new(0) }; BUCKETS],
            plan_id: Cell::new(0),
            settled_plan: Cell::new(0),
            repeat: repeats::Count::new(),
        }
    }

    #[inline(always)]
    fn is(&self, query_id: u64, user_id: u32, toplevel: bool) -> bool {
        self.query_id.get() == query_id && self.user_id.get() == user_id && self.toplevel.get() == toplevel
    }

    pub fn key(&self) -> Key {
        Key {
            queryid: self.query_id.get(),
            dbid: session::database_id(),
            userid: self.user_id.get(),
            toplevel: u32::from(self.toplevel.get()),
            reserved: 0,
        }
    }

    /// Counts one completed execution. The first one since a flush has to be followed by `mark`.
    #[inline(always)]
    pub fn executed(&self, elapsed_ns: u64, rows: u64) {
        self.calls.set(self.calls.get() + 1);
        self.rows.set(self.rows.get().wrapping_add(rows));
        self.total_ns.set(self.total_ns.get().wrapping_add(elapsed_ns));
        let square = u128::from(elapsed_ns) * u128::from(elapsed_ns);
        self.squares_ns2.set(self.squares_ns2.get().wrapping_add(square));
        if elapsed_ns < self.min_ns.get() {
            self.min_ns.set(elapsed_ns);
        }
        if elapsed_ns > self.max_ns.get() {
            self.max_ns.set(elapsed_ns);
        }
        if let Some(bucket) = self.histogram.get(bucket_of_us(elapsed_ns / 1_000)) {
            let count = bucket.get().wrapping_add(1);
            bucket.set(count);
            if count == u16::MAX {
                // The next one would start again: what is pending goes to the shared entry at once.
                self.overflows();
            }
        }
    }

    /// Adds buffers and WAL since a reading of the counters, no times.
    #[inline(always)]
    pub fn used_since(&self, start: &usage::Words) {
        usage::add_counters_since(start, &self.usage);
    }

    /// Adds buffers and WAL of an execution.
    pub fn used(&self, words: &usage::Words) {
        usage::add(words, &self.usage);
    }

    #[cold]
    pub fn compiled(&self, jit: [u64; JIT_WORDS]) {
        let mut sum = self.jit.get();
        sum.iter_mut().zip(jit).for_each(|(sum, new)| *sum = sum.wrapping_add(new));
        self.jit.set(sum);
    }

    /// Counts one planning.
    pub fn planned(&self, elapsed_ns: u64) {
        let mut plan = self.plan.get();
        plan.push(elapsed_ns);
        self.plan.set(plan);
        self.mark();
    }

    /// Counts one execution that failed.
    pub fn failed(&self, failures: &Failures) {
        let mut sum = self.failures.get();
        sum.add(failures);
        self.failures.set(sum);
        self.mark();
    }

    /// Is this execution one of those that are looked at more closely? Then, the number of executions that it
    /// stands for: the first after each flush stands for itself, every 64th after that for 64.
    #[inline(always)]
    pub fn is_sample(&self) -> Option<u64> {
        let calls = self.calls.get();
        (calls % SAMPLE == 0).then_some(if calls == 0 { 1 } else { SAMPLE })
    }

    #[cold]
    fn overflows(&self) {
        shield::quietly(|| self.flush(true));
    }

    pub fn lacks_text(&self) -> bool {
        self.needs_text.get()
    }

    /// Notes the plan that ran; `true` when it is not known to be recorded.
    pub fn ran_plan(&self, plan_id: i64) -> bool {
        self.plan_id.set(plan_id);
        self.settled_plan.get() != plan_id
    }

    /// Notes whether the plan that ran last is recorded.
    pub fn settle_plan(&self, settled: bool) {
        self.settled_plan.set(if settled { self.plan_id.get() } else { 0 });
    }

    /// There is something to flush.
    pub fn mark(&self) {
        self.dirty.set(true);
        DIRTY.set(true);
    }

    fn counts(&self) -> Counts {
        let mut exec = Times {
            count: self.calls.get(),
            total_ns: self.total_ns.get(),
            min_ns: self.min_ns.get(),
            max_ns: self.max_ns.get(),
            squares: [0; 2],
        };
        exec.set_squares_ns2(self.squares_ns2.get());
        Counts {
            exec,
            plan: self.plan.get(),
            rows: self.rows.get(),
            failures: self.failures.get(),
            resources: usage::resources(&self.usage),
            jit: self.jit.get(),
        }
    }

    fn clear(&self) {
        self.dirty.set(false);
        self.calls.set(0);
        self.rows.set(0);
        self.total_ns.set(0);
        self.squares_ns2.set(0);
        self.min_ns.set(u64::MAX);
        self.max_ns.set(0);
        self.plan.set(NO_TIMES);
        self.failures.set(NO_FAILURES);
        self.jit.set([0; JIT_WORDS]);
        usage::clear(&self.usage);
        self.histogram.iter().for_each(|bucket| bucket.set(0));
    }

    /// Brings the counts to the shared entry. `false`: its lock was not free, and `wait` was not said.
    fn flush(&self, wait: bool) -> bool {
        let query_id = self.query_id.get();
        let text = self.needs_text.get().then(|| texts::normalised(query_id)).flatten();
        let counts = self.counts();
        let histogram = self
            .histogram
            .iter()
            .enumerate()
            .filter_map(|(bucket, count)| (count.get() != 0).then_some((bucket, u64::from(count.get()))));
        let visit = store::Visit {
            key: self.key(),
            counts: &counts,
            histogram,
            text: text.as_deref(),
            plan_id: self.plan_id.get(),
        };
        match store::merge(visit, wait) {
            store::Visited::Busy => return false,
            store::Visited::Folded => {}
            store::Visited::Counted { has_text } => {
                self.needs_text.set(!has_text);
                texts::set_known(query_id, has_text);
            }
        }
        control::add(Counter::StatementNs, counts.exec.total_ns + counts.plan.total_ns);
        self.clear();
        true
    }
}

const NO_TIMES: Times = Times { count: 0, total_ns: 0, min_ns: 0, max_ns: 0, squares: [0; 2] };
const NO_FAILURES: Failures = Failures { errors: 0, cancelled: 0, timeouts: 0, terminated: 0, total_ns: 0 };

static TABLE: BackendStatic<[Entry; ENTRIES]> = BackendStatic::new([const { Entry::new() }; ENTRIES]);
/// Is anything pending?
static DIRTY: BackendStatic<Cell<bool>> = BackendStatic::new(Cell::new(false));
static LAST_FLUSH_NS: BackendStatic<Cell<u64>> = BackendStatic::new(Cell::new(0));
static USES: BackendStatic<Cell<u32>> = BackendStatic::new(Cell::new(0));

/// First place of a statement: the top bits of a multiplicative hash (Knuth, 6.4).
#[inline(always)]
fn first_place(query_id: u64, user_id: u32) -> usize {
    let mixed = (query_id ^ u64::from(user_id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 57) as usize
}

/// The entry found last: a backend often runs the same statement again.
static LAST: BackendStatic<Cell<Option<&'static Entry>>> = BackendStatic::new(Cell::new(None));

/// The entry of a statement, if it has one.
#[inline(always)]
pub fn find(query_id: u64, user_id: u32, toplevel: bool) -> Option<&'static Entry> {
    match LAST.get() {
        Some(entry) if entry.is(query_id, user_id, toplevel) => Some(entry),
        _ => find_hashed(query_id, user_id, toplevel),
    }
}

#[inline(never)]
fn find_hashed(query_id: u64, user_id: u32, toplevel: bool) -> Option<&'static Entry> {
    let found = find_in_table(query_id, user_id, toplevel);
    if found.is_some() {
        LAST.set(found);
    }
    found
}

fn find_in_table(query_id: u64, user_id: u32, toplevel: bool) -> Option<&'static Entry> {
    let first = first_place(query_id, user_id);
    let entry = &TABLE[first % ENTRIES];
    if entry.is(query_id, user_id, toplevel) {
        return Some(entry);
    }
    find_further(first, query_id, user_id, toplevel)
}

#[inline(never)]
fn find_further(first: usize, query_id: u64, user_id: u32, toplevel: bool) -> Option<&'static Entry> {
    (1..PROBES).map(|step| &TABLE[(first + step) % ENTRIES]).find(|entry| entry.is(query_id, user_id, toplevel))
}

/// The entry of a statement, made if need be; `raw` is its text, in case the shared entry has none.
#[inline(never)]
pub fn claim(query_id: u64, user_id: u32, toplevel: bool, raw: &[u8]) -> &'static Entry {
    if let Some(entry) = find(query_id, user_id, toplevel) {
        return entry;
    }
    let first = first_place(query_id, user_id);
    let places = || (0..PROBES).map(|step| &TABLE[(first + step) % ENTRIES]);
    let place = places()
        .find(|entry| entry.query_id.get() == 0)
        .or_else(|| places().min_by_key(|entry| USES.get().wrapping_sub(entry.last_use.get()) ^ u32::MAX))
        .unwrap_or(&TABLE[first % ENTRIES]);
    repeats::leave(place);
    if place.dirty.get() {
        place.flush(true);
    }
    place.clear();
    place.repeat.clear();
    place.query_id.set(query_id);
    place.user_id.set(user_id);
    place.toplevel.set(toplevel);
    place.needs_text.set(true);
    place.plan_id.set(0);
    place.settled_plan.set(0);
    USES.set(USES.get().wrapping_add(1));
    place.last_use.set(USES.get());
    texts::remember_source(query_id, raw);
    place
}

/// Is it time to visit the shared entries, `now_ns` being a recent reading of the clock?
#[inline(always)]
pub fn is_due(now_ns: u64) -> bool {
    let interval_ns = guc::int(&settings::FLUSH_INTERVAL_MS) as u64 * 1_000_000;
    DIRTY.get() && now_ns.wrapping_sub(LAST_FLUSH_NS.get()) >= interval_ns
}

/// Brings everything pending to the shared entries; what finds its lock taken stays, unless `wait`.
#[inline(never)]
pub fn flush(wait: bool) {
    if !DIRTY.get() || !control::is_ready() {
        return;
    }
    let begun_ns = clock::monotonic_ns();
    shield::quietly(|| {
        let mut left = false;
        for entry in TABLE.iter().filter(|entry| entry.dirty.get()) {
            left |= !entry.flush(wait);
        }
        DIRTY.set(left);
    });
    LAST_FLUSH_NS.set(begun_ns);
    control::add(Counter::InternalErrors, shield::take_failures());
    control::add(Counter::OwnNs, clock::monotonic_ns() - begun_ns);
}

/// After a reset, no shared entry is known to have a text, or its plan recorded.
pub fn notice_reset() {
    static SEEN: BackendStatic<Cell<u64>> = BackendStatic::new(Cell::new(0));
    let resets = control::get(Counter::Resets);
    if SEEN.replace(resets) != resets {
        texts::forget_known();
        for entry in TABLE.iter() {
            entry.needs_text.set(true);
            entry.settled_plan.set(0);
        }
    }
}

/// Forgets what is pending: after a reset it belongs to the past.
pub fn discard() {
    TABLE.iter().filter(|entry| entry.dirty.get()).for_each(Entry::clear);
    DIRTY.set(false);
}
