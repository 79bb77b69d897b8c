//! Bytes that outlive a transaction and may be copied out without a Rust value being borrowed meanwhile.

#![allow(ffi_unwind_calls, reason = "plain frames: a longjmp may cross them")]

use pgrx::pg_sys;

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

impl Buffer {
    /// A copy of the bytes, aligned as Postgres aligns values.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let words = bytes.len().div_ceil(8).max(1);
        let mut copy = vec![0u64; words].into_boxed_slice();
        // SAFETY: at least as many bytes as are copied.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), copy.as_mut_ptr().cast(), bytes.len()) };
        Self { start: Box::leak(copy).as_mut_ptr(), size_bytes: bytes.len() }
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
        let words = self.size_bytes.div_ceil(8).max(1);
        // SAFETY: allocated in `copy_of` with this length, and freed once by its owner. Volatile, so that the compiler
        // does not drop writes to memory that goes.
        unsafe {
            if wipe {
                (0..words).for_each(|at| core::ptr::write_volatile(self.start.add(at), 0));
            }
            drop(Box::from_raw(core::ptr::slice_from_raw_parts_mut(self.start, words)));
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
