//! Executions that are open in this backend: from ExecutorStart to ExecutorEnd, or to the end of the
//! (sub)transaction that they did not survive.
//!
//! Usually one; several when cursors are read in turns, or when functions' statements are tracked. The row
//! of slots is fixed; an execution that finds it full is not tracked, and counted as such.

use super::{control, control::Counter};
use crate::pg::backend::BackendStatic;
use crate::pg::query::Query;
use crate::pg::{clock, usage};
use core::cell::Cell;

/// Executions that may be open at once.
const SLOTS: usize = 256;

/// One open execution.
pub struct Slot {
    /// The execution, while the slot is in use.
    query: Cell<Option<Query>>,
    pub query_id: Cell<u64>,
    pub user_id: Cell<u32>,
    pub toplevel: Cell<bool>,
    state: Cell<u8>,
    /// The latest subtransaction when the execution began: it goes with that one and with earlier ones.
    subxact: Cell<u32>,
    pub plan_ns: Cell<u64>,
    /// Rows of the runs before the last one, where the executor does not add them up.
    pub earlier_rows: Cell<u64>,
    begun_ns: Cell<u64>,
    pub elapsed_ns: Cell<u64>,
    usage_begin: usage::Words,
    usage: usage::Words,
}

/// The executor is starting: an error is this execution's, though no time counts yet.
const STARTING: u8 = 1;
/// The clock runs.
const RUNNING: u8 = 2;
/// Buffers and WAL are counted in this run.
const MEASURED: u8 = 4;
/// The clock has run before.
const RAN: u8 = 8;
/// `usage` holds what was used so far.
const KEPT: u8 = 16;
/// To be recorded however fast it is, with actual rows and times.
const ARMED: u8 = 32;
/// Counted already, at the end of its only run.
const COUNTED: u8 = 64;
/// The clock runs, in the usual first run.
const FIRST_RUN: u8 = 128;

impl Slot {
    const fn new() -> Self {
        Self {
            query: Cell::new(None),
            query_id: Cell::new(0),
            user_id: Cell::new(0),
            toplevel: Cell::new(false),
            state: Cell::new(0),
            subxact: Cell::new(0),
            plan_ns: Cell::new(0),
            earlier_rows: Cell::new(0),
            begun_ns: Cell::new(0),
            elapsed_ns: Cell::new(0),
            usage_begin: usage::ZERO,
            usage: usage::ZERO,
        }
    }

    #[inline(always)]
    fn has(&self, bits: u8) -> bool {
        self.state.get() & bits != 0
    }

    #[inline(always)]
    pub fn is_of(&self, query: Query) -> bool {
        self.query.get().is_some_and(|own| own.address() == query.address())
    }

    /// The executor has started.
    #[inline(always)]
    pub fn started(&self) {
        self.state.set(self.state.get() & !STARTING);
    }

    #[cold]
    pub fn arm(&self) {
        self.state.set(self.state.get() | ARMED);
    }

    #[inline(always)]
    pub fn is_armed(&self) -> bool {
        self.has(ARMED)
    }

    /// Starts the clock of a usual first run, in which buffers are counted without times, or not at all.
    /// `false`: it is none, nothing is done, and `begin` is the right thing.
    #[inline(always)]
    pub fn begin_first_run(&self, with_counters: bool) -> bool {
        if self.state.get() != 0 {
            return false;
        }
        if with_counters {
            self.state.set(FIRST_RUN | MEASURED);
            usage::read_counters(&self.usage_begin);
        } else {
            self.state.set(FIRST_RUN);
        }
        self.begun_ns.set(clock::monotonic_ns());
        true
    }

    /// Starts the clock, unless it runs.
    #[inline(never)]
    pub fn begin(&self, query: Query, with_usage: bool) {
        if self.has(RUNNING | COUNTED | FIRST_RUN) {
            return;
        }
        if Query::ROWS_ARE_PER_RUN && self.has(RAN) {
            self.earlier_rows.set(self.earlier_rows.get() + query.rows());
        }
        let measured = if with_usage { MEASURED } else { 0 };
        self.state.set(self.state.get() & !MEASURED | RUNNING | measured);
        if with_usage {
            usage::read(&self.usage_begin);
        }
        self.begun_ns.set(clock::monotonic_ns());
    }

    /// Reads the clock at the end of the usual first run: the elapsed time in nanoseconds. `None` for any other;
    /// `stop` is for those.
    #[inline(always)]
    pub fn elapsed_in_first_run(&self) -> Option<u64> {
        if !self.has(FIRST_RUN) {
            return None;
        }
        let now_ns = clock::monotonic_ns();
        NOW_NS.set(now_ns);
        Some(now_ns.wrapping_sub(self.begun_ns.get()))
    }

    /// The counters when the clock started, if they are counted in this run.
    #[inline(always)]
    pub fn usage_begin(&self) -> Option<&usage::Words> {
        self.has(MEASURED).then_some(&self.usage_begin)
    }

    /// The execution has been counted; nothing is left to do at its end.
    #[inline(always)]
    pub fn set_counted(&self) {
        self.state.set(COUNTED);
    }

    #[inline(always)]
    pub fn is_counted(&self) -> bool {
        self.has(COUNTED)
    }

    /// Stops the clock, if it runs.
    #[inline(never)]
    pub fn stop(&self) {
        let mut state = self.state.get();
        if state & FIRST_RUN != 0 {
            state = state & MEASURED | RUNNING;
            self.usage_begin.forget_times();
        }
        if state & RUNNING == 0 {
            return;
        }
        let now_ns = clock::monotonic_ns();
        NOW_NS.set(now_ns);
        self.elapsed_ns.set(self.elapsed_ns.get() + now_ns.wrapping_sub(self.begun_ns.get()));
        let kept = match state & (MEASURED | KEPT) {
            MEASURED => {
                usage::set_since(&self.usage_begin, &self.usage);
                KEPT
            }
            both if both == MEASURED | KEPT => {
                usage::add_since(&self.usage_begin, &self.usage);
                KEPT
            }
            kept => kept,
        };
        self.state.set(state & !(RUNNING | MEASURED) | RAN | kept);
    }

    /// Buffers and WAL, if they were counted.
    #[inline(always)]
    pub fn usage(&self) -> Option<&usage::Words> {
        self.has(KEPT).then_some(&self.usage)
    }

    pub fn is_running(&self) -> bool {
        self.has(STARTING | RUNNING | FIRST_RUN)
    }

    /// The execution itself; only while it is open.
    pub fn query(&self) -> Option<Query> {
        self.query.get()
    }
}

static ROW: BackendStatic<[Slot; SLOTS]> = BackendStatic::new([const { Slot::new() }; SLOTS]);
/// Slots in use: the first ones.
static OPEN: BackendStatic<Cell<usize>> = BackendStatic::new(Cell::new(0));
/// The latest subtransaction that began in the present transaction.
static LATEST_SUBXACT: BackendStatic<Cell<u32>> = BackendStatic::new(Cell::new(0));
/// The last reading of the clock that an execution needed anyway.
static NOW_NS: BackendStatic<Cell<u64>> = BackendStatic::new(Cell::new(0));

/// The last reading of the clock in this backend; older than now by what happened since.
#[inline(always)]
pub fn recent_ns() -> u64 {
    NOW_NS.get()
}

#[inline(always)]
pub fn set_recent_ns(now_ns: u64) {
    NOW_NS.set(now_ns);
}

/// Opens a slot for an execution whose executor is about to start.
#[inline(always)]
pub fn push(query: Query) -> Option<&'static Slot> {
    let place = OPEN.get();
    let Some(slot) = ROW.get(place) else {
        control::add(Counter::Untracked, 1);
        return None;
    };
    OPEN.set(place + 1);
    slot.query.set(Some(query));
    slot.subxact.set(LATEST_SUBXACT.get());
    slot.state.set(STARTING);
    slot.elapsed_ns.set(0);
    slot.plan_ns.set(0);
    slot.earlier_rows.set(0);
    Some(slot)
}

/// The slot of an execution, usually the last one.
#[inline(always)]
pub fn find(query: Query) -> Option<&'static Slot> {
    let slot = ROW.get(OPEN.get().wrapping_sub(1))?;
    if slot.is_of(query) { Some(slot) } else { find_below(query) }
}

#[inline(never)]
fn find_below(query: Query) -> Option<&'static Slot> {
    ROW.iter().take(OPEN.get()).rev().find(|slot| slot.is_of(query))
}

/// Closes the slot of an execution that was counted, if it is the last one.
#[inline(always)]
pub fn pop_counted(query: Query) -> bool {
    let last = OPEN.get().wrapping_sub(1);
    match ROW.get(last) {
        Some(slot) if slot.is_of(query) && slot.is_counted() => {
            OPEN.set(last);
            true
        }
        _ => false,
    }
}

/// Closes a slot. What is in it is gone: read it before.
#[inline(always)]
pub fn remove(slot: &'static Slot) {
    let last = OPEN.get().wrapping_sub(1);
    match ROW.get(last) {
        Some(top) if core::ptr::eq(top, slot) => OPEN.set(last),
        _ => remove_below(slot),
    }
}

/// Closes a slot that others were opened after: those move down by one.
#[inline(never)]
fn remove_below(slot: &'static Slot) {
    let open = OPEN.get().min(SLOTS);
    if let Some(place) = ROW[..open].iter().position(|other| core::ptr::eq(other, slot)) {
        for later in place..open - 1 {
            copy(&ROW[later + 1], &ROW[later]);
        }
        OPEN.set(open - 1);
    }
}

fn copy(from: &Slot, to: &Slot) {
    to.query.set(from.query.get());
    to.query_id.set(from.query_id.get());
    to.user_id.set(from.user_id.get());
    to.toplevel.set(from.toplevel.get());
    to.state.set(from.state.get());
    to.subxact.set(from.subxact.get());
    to.plan_ns.set(from.plan_ns.get());
    to.earlier_rows.set(from.earlier_rows.get());
    to.begun_ns.set(from.begun_ns.get());
    to.elapsed_ns.set(from.elapsed_ns.get());
    usage::copy(&from.usage_begin, &to.usage_begin);
    usage::copy(&from.usage, &to.usage);
}

/// The open executions, the outermost first.
pub fn all() -> impl Iterator<Item = &'static Slot> {
    ROW.iter().take(OPEN.get())
}

/// A subtransaction begins; ids only grow within a transaction.
pub fn subtransaction_starts(id: u32) {
    LATEST_SUBXACT.set(id);
}

/// The transaction is over, and the counting of subtransactions starts again.
#[inline(always)]
pub fn transaction_ended() {
    LATEST_SUBXACT.set(0);
}

/// Closes the executions that a (sub)transaction took with it; 0 closes all.
pub fn abandon_since(aborted: u32) {
    while let Some(top) = OPEN.get().checked_sub(1).and_then(|last| ROW.get(last)) {
        if top.subxact.get() < aborted {
            break;
        }
        OPEN.set(OPEN.get() - 1);
    }
}
