//! Bytes that outlive a transaction and may be copied out without a Rust value being borrowed meanwhile, and bytes for
//! the time of a call.
//!
//! An allocation of Rust's that fails ends the server, so what may be large is asked for in ways that can fail: a buffer
//! that there is no memory for is a result that is not kept.

#![allow(ffi_unwind_calls, reason = "plain frames: a longjmp may cross them")]

use core::alloc::Layout;
use pgrx::pg_sys;
use std::alloc::{alloc, dealloc};

// SAFETY: Postgres's own symbol with the signature of its header. It may raise: who calls it owns nothing that drops.
unsafe extern "C-unwind" {
    fn palloc(size: usize) -> *mut core::ffi::c_void;
}

/// Bytes on the heap of this backend. A plain handle: its owner frees it once, by `free`.
#[derive(Clone, Copy)]
pub struct Buffer {
    start: *mut u64,
    size_bytes: usize,
}

/// Whole words, and one at least, aligned as Postgres aligns values.
fn layout(size_bytes: usize) -> Option<Layout> {
    Layout::array::<u64>(words(size_bytes)).ok()
}

fn words(size_bytes: usize) -> usize {
    size_bytes.div_ceil(8).max(1)
}

impl Buffer {
    /// A copy of the bytes, aligned as Postgres aligns values. `None`: there is no memory for it.
    pub fn copy_of(bytes: &[u8]) -> Option<Self> {
        let layout = layout(bytes.len())?;
        // SAFETY: the layout is not empty; it has at least as many bytes as are copied.
        unsafe {
            let start = alloc(layout);
            if start.is_null() {
                return None;
            }
            core::ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len());
            Some(Self { start: start.cast(), size_bytes: bytes.len() })
        }
    }

    pub fn size_bytes(self) -> usize {
        self.size_bytes
    }

    pub fn bytes<'a>(self) -> &'a [u8] {
        // SAFETY: allocated in `copy_of`; the owner does not free it while the slice is used.
        unsafe { core::slice::from_raw_parts(self.start.cast(), self.size_bytes) }
    }

    /// Gives the memory back; with `wipe`, overwritten first.
    pub fn free(self, wipe: bool) {
        let Some(layout) = layout(self.size_bytes) else { return };
        // SAFETY: allocated in `copy_of` with this layout, and freed once by its owner. Volatile, so that the compiler
        // does not drop writes to memory that goes.
        unsafe {
            if wipe {
                (0..words(self.size_bytes)).for_each(|at| core::ptr::write_volatile(self.start.add(at), 0));
            }
            dealloc(self.start.cast(), layout);
        }
    }

    /// A copy in the current memory context, as a value of a type of variable length (the bytes include its header).
    #[inline(always)]
    pub fn to_datum(self) -> pg_sys::Datum {
        // SAFETY: as many bytes as allocated.
        unsafe {
            let copy = palloc(self.size_bytes);
            core::ptr::copy_nonoverlapping(self.start.cast::<u8>(), copy.cast::<u8>(), self.size_bytes);
            pg_sys::Datum::from(copy)
        }
    }
}

/// Bytes in the memory of the call: a longjmp leaves them to Postgres, so a plain frame may hold them.
#[derive(Clone, Copy)]
pub struct Scratch {
    start: *mut u8,
    size_bytes: usize,
}

impl Scratch {
    /// A copy in the current memory context, aligned as Postgres aligns values. Under a guard.
    pub fn copy_of(bytes: &[u8]) -> Self {
        // SAFETY: as many bytes as are copied; the call raises where there is no memory.
        unsafe {
            let start = pg_sys::MemoryContextAllocHuge(pg_sys::CurrentMemoryContext, bytes.len()).cast::<u8>();
            core::ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len());
            Self { start, size_bytes: bytes.len() }
        }
    }

    pub fn bytes<'a>(self) -> &'a [u8] {
        // SAFETY: allocated in `copy_of`; it lives until `free` or the end of the call.
        unsafe { core::slice::from_raw_parts(self.start, self.size_bytes) }
    }

    /// Gives the memory back before the call ends. Under a guard.
    pub fn free(self) {
        // SAFETY: allocated in `copy_of`, and freed once by its owner.
        unsafe { pg_sys::pfree(self.start.cast()) };
    }
}
