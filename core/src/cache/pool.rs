//! Blocks of one size for what is stored, in chains of any length, so that no free space is ever too scattered to use.
//!
//! This keeps only the chains; the bytes of block `i` are the caller's. A chain is known by its *head*: blocks are
//! counted from 1 in heads and links, and 0 is "none", so zeroed memory is a pool whose blocks were never used. Blocks
//! never used are handed out by a mark, so starting a large pool touches none of its links.
//!
//! The caller holds the pool's lock for a [`Pool`]. [`walk`] needs none: the links of a chain belong to the chain's
//! owner until it gives it back, and the lock under which the head was found orders them.
//!
//! No contents of the memory can make these functions panic, loop forever or read outside it.

use std::sync::atomic::{AtomicU32, Ordering};

/// State of a pool; all-zero is one with all blocks free.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolMeta {
    /// First block of the free list, 0 for none.
    free_head: u32,
    /// Blocks that have been handed out at least once.
    touched: u32,
    /// Blocks in use.
    pub used: u32,
    /// Always 0.
    reserved: u32,
}

const _: () = assert!(size_of::<PoolMeta>() == 16);

/// A pool over the caller's memory, for as long as the exclusive lock is held.
pub struct Pool<'a> {
    /// State.
    pub meta: &'a mut PoolMeta,
    /// Next block of the same chain or of the free list, for each block.
    pub links: &'a [AtomicU32],
}

impl Pool<'_> {
    /// Blocks in all.
    pub fn total(&self) -> u32 {
        u32::try_from(self.links.len()).unwrap_or(u32::MAX)
    }

    /// Blocks not in use.
    pub fn free(&self) -> u32 {
        self.total().saturating_sub(self.meta.used)
    }

    /// A chain of `count` blocks, or nothing when there are fewer. The head of a chain without blocks is 0.
    pub fn take(&mut self, count: u32) -> Option<u32> {
        if count > self.free() {
            return None;
        }
        let mut head = 0;
        let mut last = 0;
        for taken in 0..count {
            let Some(block) = self.take_one() else {
                self.give(head, taken);
                return None;
            };
            match link(self.links, last) {
                Some(previous) => previous.store(block, Ordering::Relaxed),
                None => head = block,
            }
            last = block;
        }
        Some(head)
    }

    /// Gives a chain of `count` blocks back.
    pub fn give(&mut self, head: u32, count: u32) {
        let blocks = (count as usize).min(self.links.len());
        let mut given = 0;
        let mut last = None;
        for index in walk(self.links, head).take(blocks) {
            last = self.links.get(index as usize);
            given += 1;
        }
        let Some(last) = last else { return };
        last.store(self.meta.free_head, Ordering::Relaxed);
        self.meta.free_head = head;
        self.meta.used = self.meta.used.saturating_sub(given);
    }

    /// A block that ends its chain. Those used before come first: their memory is there already.
    fn take_one(&mut self) -> Option<u32> {
        let block = match link(self.links, self.meta.free_head) {
            Some(next) => std::mem::replace(&mut self.meta.free_head, next.swap(0, Ordering::Relaxed)),
            None => {
                let fresh = self.meta.touched.checked_add(1)?;
                link(self.links, fresh)?.store(0, Ordering::Relaxed);
                self.meta.touched = fresh;
                fresh
            }
        };
        self.meta.used = self.meta.used.saturating_add(1);
        Some(block)
    }
}

/// The blocks of a chain in their order, as indexes from 0. Ends after as many blocks as there are, whatever the links
/// say.
pub fn walk(links: &[AtomicU32], head: u32) -> impl Iterator<Item = u32> {
    let index = |block: u32| block.checked_sub(1).filter(|&index| (index as usize) < links.len());
    let next = move |at: &u32| links.get(*at as usize).and_then(|link| index(link.load(Ordering::Relaxed)));
    std::iter::successors(index(head), next).take(links.len())
}

fn link(links: &[AtomicU32], block: u32) -> Option<&AtomicU32> {
    links.get((block as usize).checked_sub(1)?)
}
