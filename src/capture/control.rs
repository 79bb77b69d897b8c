//! Counters of the whole server that need no lock: losses, own cost, and the level of degradation.

use crate::pg::clock;
use crate::pg::shmem::SharedCounters;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use steward_core::capture::degrade::Level;

/// Places in the row of counters.
#[derive(Clone, Copy)]
#[repr(usize)]
pub enum Counter {
    EventsWritten,
    EventsLost,
    EventsSuppressed,
    EventsTooLarge,
    /// Executions that were not counted because too many were open at once in one backend.
    Untracked,
    /// Errors of statements that never got a query id: syntax errors, unknown names.
    Unidentified,
    InternalErrors,
    /// Estimated time that capture itself took.
    OwnNs,
    /// Time of the statements that were captured.
    StatementNs,
    /// `Level` as a number.
    Level,
    /// Queries armed for explain.
    Armed,
    /// Added to the number of an event, so that ids are not used twice after a restart.
    EventBase,
    /// When statistics were last reset, microseconds since 2000-01-01.
    ResetAt,
    /// How often statistics were reset, whole or in part.
    Resets,
    /// Overhead measured in the last interval, in thousandths of a percent.
    OverheadMilliPct,
    Last,
}

const COUNTERS: usize = Counter::Last as usize;

static ROW: SharedCounters<COUNTERS> = SharedCounters::new();

pub fn bytes() -> usize {
    SharedCounters::<COUNTERS>::estimate_size()
}

pub fn create() {
    ROW.create(c"pg_steward capture counters 1");
    let now_us = clock::now_us();
    set(Counter::ResetAt, now_us as u64);
    // Room for 1,024 events a microsecond until shared memory is made again.
    set(Counter::EventBase, (now_us as u64) << 10);
}

#[inline(always)]
fn cell(counter: Counter) -> &'static AtomicU64 {
    &ROW.get()[counter as usize]
}

/// Was shared memory set up?
pub fn is_ready() -> bool {
    ROW.exists()
}

#[inline(always)]
pub fn get(counter: Counter) -> u64 {
    cell(counter).load(Relaxed)
}

pub fn set(counter: Counter, value: u64) {
    cell(counter).store(value, Relaxed);
}

pub fn add(counter: Counter, value: u64) {
    cell(counter).fetch_add(value, Relaxed);
}

/// Starts the counters again that users see; the level and what is armed stay.
pub fn reset() {
    use Counter::*;
    let counters = [
        EventsWritten,
        EventsLost,
        EventsSuppressed,
        EventsTooLarge,
        Untracked,
        Unidentified,
        InternalErrors,
        OwnNs,
        StatementNs,
    ];
    counters.into_iter().for_each(|counter| set(counter, 0));
    set(ResetAt, clock::now_us() as u64);
}

#[inline(always)]
pub fn level() -> u8 {
    get(Counter::Level) as u8
}

/// May plans be taken at the present level?
pub fn takes_plans() -> bool {
    level() < Level::NoPlans as u8
}

/// May buffer counters be read?
#[inline(always)]
pub fn takes_buffers() -> bool {
    level() < Level::NoBuffers as u8
}

/// May fast executions be sampled?
#[inline(always)]
pub fn takes_samples() -> bool {
    level() < Level::NoSampling as u8
}
