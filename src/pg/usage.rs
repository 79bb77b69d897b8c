//! Buffer and WAL counters of the backend, as one row of words.
//!
//! The hot path copies and subtracts words without knowing what they mean; `Resources` names them when
//! counts leave the backend, where the cost no longer matters.

use super::compat;
use core::cell::Cell;
use pgrx::pg_sys;
use steward_core::capture::entry::Resources;

const BUFFER_WORDS: usize = size_of::<pg_sys::BufferUsage>() / 8;
const WAL_WORDS: usize = size_of::<pg_sys::WalUsage>() / 8;
/// Words of one reading.
pub const WORDS: usize = BUFFER_WORDS + WAL_WORDS;

const _: () = assert!(size_of::<pg_sys::BufferUsage>() % 8 == 0);
const _: () = assert!(size_of::<pg_sys::WalUsage>() % 8 == 0);

pub type Words = [Cell<u64>; WORDS];

/// All zero, for statics.
pub const ZERO: Words = [const { Cell::new(0) }; WORDS];

/// The counters of this moment.
#[inline(always)]
fn current() -> Reading {
    // SAFETY: both are plain structs of 8-byte counters (asserted above) of this backend.
    unsafe {
        let buffers = *(&raw const pg_sys::pgBufferUsage).cast::<[u64; BUFFER_WORDS]>();
        let wal = *(&raw const pg_sys::pgWalUsage).cast::<[u64; WAL_WORDS]>();
        let mut all = [0; WORDS];
        all[..BUFFER_WORDS].copy_from_slice(&buffers);
        all[BUFFER_WORDS..].copy_from_slice(&wal);
        all
    }
}

/// Reads the counters.
#[inline(always)]
pub fn read(into: &Words) {
    for (cell, now) in into.iter().zip(current()) {
        cell.set(now);
    }
}

/// Sets what was counted since `start`.
#[inline(always)]
pub fn set_since(start: &Words, into: &Words) {
    for ((cell, start), now) in into.iter().zip(start).zip(current()) {
        cell.set(now.wrapping_sub(start.get()));
    }
}

/// Adds what was counted since `start`.
#[inline(always)]
pub fn add_since(start: &Words, into: &Words) {
    let (now, start, before) = (current(), values(start), values(into));
    for (word, cell) in into.iter().enumerate() {
        cell.set(before[word].wrapping_add(now[word].wrapping_sub(start[word])));
    }
}

/// The words as plain numbers, which the compiler may handle several at a time.
#[inline(always)]
fn values(words: &Words) -> Reading {
    core::array::from_fn(|word| words[word].get())
}

/// A reading that can be copied about, for statements where that does not matter.
pub type Reading = [u64; WORDS];

pub fn reading() -> Reading {
    current()
}

/// What was counted since a reading.
pub fn since(start: &Reading) -> Words {
    let now = current();
    core::array::from_fn(|word| Cell::new(now[word].wrapping_sub(start[word])))
}

/// Adds one row of words to another.
pub fn add(from: &Words, into: &Words) {
    for (cell, from) in into.iter().zip(from) {
        cell.set(cell.get().wrapping_add(from.get()));
    }
}

pub fn copy(from: &Words, to: &Words) {
    to.iter().zip(from).for_each(|(cell, from)| cell.set(from.get()));
}

pub fn clear(words: &Words) {
    for cell in words {
        cell.set(0);
    }
}

/// Gives the words their names.
pub fn resources(words: &Words) -> Resources {
    let plain: [u64; WORDS] = core::array::from_fn(|word| words[word].get());
    // SAFETY: the words are a copy of exactly these structs, back to back, all fields plain numbers.
    let (buffers, wal) = unsafe {
        (
            core::ptr::read_unaligned(plain.as_ptr().cast::<pg_sys::BufferUsage>()),
            core::ptr::read_unaligned(plain.as_ptr().add(BUFFER_WORDS).cast::<pg_sys::WalUsage>()),
        )
    };
    compat::resources(&buffers, &wal)
}
