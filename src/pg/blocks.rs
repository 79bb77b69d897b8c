//! Blocks of bytes in shared memory. Who owns a block, and in which order blocks belong together, is for the caller to
//! know: `steward_core::cache::pool` hands them out.

use core::cell::Cell;
use core::ffi::CStr;
use core::ptr;
use pgrx::pg_sys;

/// Bytes of a block. Small enough that a scalar result wastes little, large enough that a chain is short.
pub const BLOCK_BYTES: usize = 1024;

/// A row of blocks, made once.
pub struct SharedBlocks {
    base: Cell<*mut u8>,
    count: Cell<usize>,
}

// SAFETY: the cells are written in the postmaster before any backend is forked, and only read afterwards.
unsafe impl Sync for SharedBlocks {}

impl SharedBlocks {
    pub const fn new() -> Self {
        Self { base: Cell::new(ptr::null_mut()), count: Cell::new(0) }
    }

    pub const fn estimate_size(count: usize) -> usize {
        count * BLOCK_BYTES + 64
    }

    /// Finds or makes the blocks under their name. The bytes are not touched: the kernel gives pages as they are used.
    pub fn create(&self, name: &CStr, count: usize) {
        let mut found = false;
        // SAFETY: runs in shmem_startup_hook of the postmaster; the space was requested.
        unsafe {
            let start = pg_sys::ShmemInitStruct(name.as_ptr(), Self::estimate_size(count), &mut found).cast::<u8>();
            self.base.set(start.add(start.align_offset(64)));
        }
        self.count.set(count);
    }

    fn block(&self, index: u32) -> Option<*mut u8> {
        // SAFETY: below the count, so within the area.
        ((index as usize) < self.count.get()).then(|| unsafe { self.base.get().add(index as usize * BLOCK_BYTES) })
    }

    /// Copies bytes into the blocks of a chain that the caller alone owns.
    pub fn write(&self, chain: impl Iterator<Item = u32>, bytes: &[u8]) {
        for (index, part) in chain.zip(bytes.chunks(BLOCK_BYTES)) {
            if let Some(block) = self.block(index) {
                // SAFETY: a chunk is no longer than a block; nobody else reads or writes the block.
                unsafe { ptr::copy_nonoverlapping(part.as_ptr(), block, part.len()) };
            }
        }
    }

    /// Copies `out.len()` bytes out of a chain that nobody changes meanwhile.
    pub fn read(&self, chain: impl Iterator<Item = u32>, out: &mut [u8]) {
        for (index, part) in chain.zip(out.chunks_mut(BLOCK_BYTES)) {
            if let Some(block) = self.block(index) {
                // SAFETY: as above; the owner's lock keeps the block as it is.
                unsafe { ptr::copy_nonoverlapping(block, part.as_mut_ptr(), part.len()) };
            }
        }
    }

    /// Overwrites the blocks of a chain that the caller alone owns with zeroes.
    pub fn wipe(&self, chain: impl Iterator<Item = u32>) {
        for index in chain {
            if let Some(block) = self.block(index) {
                // SAFETY: as above. Another process reads this memory, so the writes are not dead.
                unsafe { ptr::write_bytes(block, 0, BLOCK_BYTES) };
            }
        }
    }
}
