//! Buffer and WAL counters of the backend, as one row of words.
//!
//! The hot path copies and subtracts words without knowing what they mean; `Resources` names them when
//! counts leave the backend, where the cost no longer matters. The I/O times stand still unless
//! `track_io_timing` is on, so they are left alone until it is.

use super::compat;
use core::cell::Cell;
use core::mem::offset_of;
use pgrx::pg_sys;
use steward_core::capture::entry::Resources;

const BUFFER_WORDS: usize = size_of::<pg_sys::BufferUsage>() / 8;
const WAL_WORDS: usize = size_of::<pg_sys::WalUsage>() / 8;
/// The block counters come first, the times after them.
const COUNTER_WORDS: usize = compat::FIRST_IO_TIME / 8;
const TIME_WORDS: usize = BUFFER_WORDS - COUNTER_WORDS;

const _: () = assert!(size_of::<pg_sys::BufferUsage>() % 8 == 0);
const _: () = assert!(size_of::<pg_sys::WalUsage>() % 8 == 0);
const _: () = assert!(COUNTER_WORDS == 10 && offset_of!(pg_sys::BufferUsage, temp_blks_written) == 72);

/// A row of words: block counters, WAL, and times if they are taken.
pub struct Words {
    counters: [Cell<u64>; COUNTER_WORDS],
    wal: [Cell<u64>; WAL_WORDS],
    times: [Cell<u64>; TIME_WORDS],
    /// Do the times mean anything?
    timed: Cell<bool>,
}

impl Words {
    /// The times mean nothing: `read_counters` left them alone.
    pub fn forget_times(&self) {
        self.timed.set(false);
    }
}

/// All zero, for statics.
#[allow(clippy::declare_interior_mutable_const, reason = "each use is meant to be a row of its own")]
pub const ZERO: Words = Words {
    counters: [const { Cell::new(0) }; COUNTER_WORDS],
    wal: [const { Cell::new(0) }; WAL_WORDS],
    times: [const { Cell::new(0) }; TIME_WORDS],
    timed: Cell::new(true),
};

#[inline(always)]
fn counters_now() -> [u64; COUNTER_WORDS] {
    // SAFETY: a plain struct of 8-byte counters of this backend that begins with these words.
    unsafe { *(&raw const pg_sys::pgBufferUsage).cast() }
}

#[inline(always)]
fn wal_now() -> [u64; WAL_WORDS] {
    // SAFETY: a plain struct of 8-byte counters of this backend.
    unsafe { *(&raw const pg_sys::pgWalUsage).cast() }
}

#[inline(always)]
fn times_now() -> [u64; TIME_WORDS] {
    // SAFETY: the words of the struct that follow the counters.
    unsafe { *(&raw const pg_sys::pgBufferUsage).cast::<u64>().add(COUNTER_WORDS).cast() }
}

#[inline(always)]
fn takes_times() -> bool {
    // SAFETY: a plain static. Tracking of WAL writes alone moves none of these words.
    unsafe { pg_sys::track_io_timing }
}

/// The words as plain numbers, which the compiler may handle several at a time.
#[inline(always)]
fn values<const N: usize>(cells: &[Cell<u64>; N]) -> [u64; N] {
    core::array::from_fn(|word| cells[word].get())
}

#[inline(always)]
fn store<const N: usize>(cells: &[Cell<u64>; N], values: [u64; N]) {
    for (cell, value) in cells.iter().zip(values) {
        cell.set(value);
    }
}

#[inline(always)]
fn difference<const N: usize>(now: [u64; N], start: [u64; N]) -> [u64; N] {
    core::array::from_fn(|word| now[word].wrapping_sub(start[word]))
}

#[inline(always)]
fn sum<const N: usize>(left: [u64; N], right: [u64; N]) -> [u64; N] {
    core::array::from_fn(|word| left[word].wrapping_add(right[word]))
}

/// Are I/O times taken? Then `read_counters` and `add_counters_since` are not enough.
pub fn is_timed() -> bool {
    takes_times()
}

/// Reads the counters, but no times.
#[inline(always)]
pub fn read_counters(into: &Words) {
    store(&into.counters, counters_now());
    store(&into.wal, wal_now());
}

/// Adds what was counted since `read_counters`.
#[inline(always)]
pub fn add_counters_since(start: &Words, into: &Words) {
    let counters = difference(counters_now(), values(&start.counters));
    store(&into.counters, sum(values(&into.counters), counters));
    store(&into.wal, sum(values(&into.wal), difference(wal_now(), values(&start.wal))));
}

/// Reads the counters, and the times if they are taken.
pub fn read(into: &Words) {
    read_counters(into);
    let timed = takes_times();
    into.timed.set(timed);
    if timed {
        store(&into.times, times_now());
    }
}

/// Sets what was counted since `start`.
pub fn set_since(start: &Words, into: &Words) {
    store(&into.counters, difference(counters_now(), values(&start.counters)));
    store(&into.wal, difference(wal_now(), values(&start.wal)));
    into.timed.set(start.timed.get());
    if start.timed.get() {
        store(&into.times, difference(times_now(), values(&start.times)));
    }
}

/// Adds what was counted since `start`.
pub fn add_since(start: &Words, into: &Words) {
    add_counters_since(start, into);
    if start.timed.get() {
        let before = if into.timed.replace(true) { values(&into.times) } else { [0; TIME_WORDS] };
        store(&into.times, sum(before, difference(times_now(), values(&start.times))));
    }
}

/// Adds one row of words to another.
pub fn add(from: &Words, into: &Words) {
    store(&into.counters, sum(values(&into.counters), values(&from.counters)));
    store(&into.wal, sum(values(&into.wal), values(&from.wal)));
    if from.timed.get() {
        let before = if into.timed.replace(true) { values(&into.times) } else { [0; TIME_WORDS] };
        store(&into.times, sum(before, values(&from.times)));
    }
}

pub fn copy(from: &Words, to: &Words) {
    store(&to.counters, values(&from.counters));
    store(&to.wal, values(&from.wal));
    store(&to.times, values(&from.times));
    to.timed.set(from.timed.get());
}

pub fn clear(words: &Words) {
    copy(&ZERO_WORDS, words);
}

static ZERO_WORDS: super::backend::BackendStatic<Words> = super::backend::BackendStatic::new(ZERO);

/// A reading that can be copied about, for statements where the cost of that does not matter.
#[derive(Clone, Copy)]
pub struct Reading([u64; COUNTER_WORDS], [u64; WAL_WORDS], [u64; TIME_WORDS]);

pub fn reading() -> Reading {
    Reading(counters_now(), wal_now(), times_now())
}

/// What was counted since a reading.
pub fn since(start: &Reading) -> Words {
    let words = Words { ..ZERO };
    store(&words.counters, difference(counters_now(), start.0));
    store(&words.wal, difference(wal_now(), start.1));
    store(&words.times, difference(times_now(), start.2));
    words
}

/// Gives the words their names.
pub fn resources(words: &Words) -> Resources {
    let mut buffers = [0; BUFFER_WORDS];
    buffers[..COUNTER_WORDS].copy_from_slice(&values(&words.counters));
    if words.timed.get() {
        buffers[COUNTER_WORDS..].copy_from_slice(&values(&words.times));
    }
    let wal = values(&words.wal);
    // SAFETY: copies of exactly these structs, all fields plain numbers.
    let (buffers, wal) = unsafe {
        (
            core::ptr::read_unaligned(buffers.as_ptr().cast::<pg_sys::BufferUsage>()),
            core::ptr::read_unaligned(wal.as_ptr().cast::<pg_sys::WalUsage>()),
        )
    };
    compat::resources(&buffers, &wal)
}
