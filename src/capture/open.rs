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
const SLOTS: usize = 64;

/// One open execution.
pub struct Slot {
    /// Address of the QueryDesc; 0 when free.
    address: Cell<usize>,
    query: Cell<Option<Query>>,
    pub query_id: Cell<u64>,
    pub user_id: Cell<u32>,
    pub toplevel: Cell<bool>,
    /// Armed or sampled: an event is wanted however fast it is.
    pub wanted: Cell<Wanted>,
    pub plan_ns: Cell<u64>,
    subxact: Cell<u32>,
    running: Cell<bool>,
    begun_ns: Cell<u64>,
    pub elapsed_ns: Cell<u64>,
    measured: Cell<bool>,
    usage_begin: usage::Words,
    pub usage: usage::Words,
}

/// Why an execution is to be recorded whatever it takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    No,
    Sampled,
    Armed,
}

impl Slot {
    const fn new() -> Self {
        Self {
            address: Cell::new(0),
            query: Cell::new(None),
            query_id: Cell::new(0),
            user_id: Cell::new(0),
            toplevel: Cell::new(false),
            wanted: Cell::new(Wanted::No),
            plan_ns: Cell::new(0),
            subxact: Cell::new(0),
            running: Cell::new(false),
            begun_ns: Cell::new(0),
            elapsed_ns: Cell::new(0),
            measured: Cell::new(false),
            usage_begin: usage::ZERO,
            usage: usage::ZERO,
        }
    }

    /// Starts the clock, unless it runs.
    #[inline(always)]
    pub fn begin(&self, with_usage: bool) {
        if self.running.replace(true) {
            return;
        }
        self.measured.set(with_usage);
        if with_usage {
            usage::read(&self.usage_begin);
        }
        self.begun_ns.set(clock::monotonic_ns());
    }

    /// Stops the clock, if it runs, and gives the reading.
    #[inline(always)]
    pub fn stop(&self) {
        if !self.running.replace(false) {
            return;
        }
        let now_ns = clock::monotonic_ns();
        NOW_NS.set(now_ns);
        self.elapsed_ns.set(self.elapsed_ns.get() + now_ns.wrapping_sub(self.begun_ns.get()));
        if self.measured.get() {
            usage::add_since(&self.usage_begin, &self.usage);
        }
    }

    /// The executor starts. An error from here on is this execution's, though no time counts yet.
    #[inline(always)]
    pub fn starting(&self) {
        self.begun_ns.set(0);
        self.running.set(true);
    }

    /// It has started.
    #[inline(always)]
    pub fn started(&self) {
        self.running.set(false);
    }

    /// Stops the clock of an execution that failed, perhaps before it ran.
    pub fn fail(&self) {
        match self.begun_ns.get() {
            0 => self.running.set(false),
            _ => self.stop(),
        }
    }

    #[inline(always)]
    pub fn has_usage(&self) -> bool {
        self.measured.get()
    }

    pub fn is_running(&self) -> bool {
        self.running.get()
    }

    /// The execution itself; only while it is open.
    pub fn query(&self) -> Option<Query> {
        self.query.get()
    }
}

static ROW: BackendStatic<[Slot; SLOTS]> = BackendStatic::new([const { Slot::new() }; SLOTS]);
/// Slots in use: the first ones.
static OPEN: BackendStatic<Cell<usize>> = BackendStatic::new(Cell::new(0));
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

/// Opens a slot for an execution.
#[inline(always)]
pub fn push(query: Query, subxact: u32) -> Option<&'static Slot> {
    let place = OPEN.get();
    let Some(slot) = ROW.get(place) else {
        control::add(Counter::Untracked, 1);
        return None;
    };
    OPEN.set(place + 1);
    slot.address.set(query.address());
    slot.query.set(Some(query));
    slot.subxact.set(subxact);
    slot.running.set(false);
    slot.elapsed_ns.set(0);
    slot.wanted.set(Wanted::No);
    slot.plan_ns.set(0);
    slot.measured.set(false);
    Some(slot)
}

/// The slot of an execution, usually the last one.
#[inline(always)]
pub fn find(query: Query) -> Option<&'static Slot> {
    let mut place = OPEN.get();
    while place > 0 {
        place -= 1;
        match ROW.get(place) {
            Some(slot) if slot.address.get() == query.address() => return Some(slot),
            Some(_) => {}
            None => return None,
        }
    }
    None
}

/// Closes a slot. What is in it is gone: read it before.
#[inline(always)]
pub fn remove(slot: &'static Slot) {
    let last = OPEN.get().wrapping_sub(1);
    match ROW.get(last) {
        Some(top) if core::ptr::eq(top, slot) => {
            OPEN.set(last);
            slot.address.set(0);
            slot.query.set(None);
        }
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
        ROW[open - 1].address.set(0);
        ROW[open - 1].query.set(None);
        OPEN.set(open - 1);
    }
}

fn copy(from: &Slot, to: &Slot) {
    to.address.set(from.address.get());
    to.query.set(from.query.get());
    to.query_id.set(from.query_id.get());
    to.user_id.set(from.user_id.get());
    to.toplevel.set(from.toplevel.get());
    to.wanted.set(from.wanted.get());
    to.plan_ns.set(from.plan_ns.get());
    to.subxact.set(from.subxact.get());
    to.running.set(from.running.get());
    to.begun_ns.set(from.begun_ns.get());
    to.elapsed_ns.set(from.elapsed_ns.get());
    to.measured.set(from.measured.get());
    usage::clear(&to.usage_begin);
    usage::add(&from.usage_begin, &to.usage_begin);
    usage::clear(&to.usage);
    usage::add(&from.usage, &to.usage);
}

/// The open executions, the outermost first.
pub fn all() -> impl Iterator<Item = &'static Slot> {
    ROW.iter().take(OPEN.get())
}

/// Closes the executions that a (sub)transaction took with it; 0 closes all.
pub fn abandon_since(aborted: u32) {
    while let Some(top) = OPEN.get().checked_sub(1).and_then(|last| ROW.get(last)) {
        if top.subxact.get() < aborted {
            break;
        }
        top.address.set(0);
        top.query.set(None);
        OPEN.set(OPEN.get() - 1);
    }
}
