//! Texts of any length in blocks of one size, in memory given by the caller, who also holds the lock.
//!
//! Blocks are chained by number, counted from 1, so that zeroed memory is an arena whose blocks were never used.
//! No contents of the memory can make these functions panic, loop forever or read outside it.

use super::entry::TextRef;

/// Bytes of text in a block.
pub const BLOCK_BYTES: usize = 124;

/// One block; all-zero is a valid one.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Block {
    next: u32,
    bytes: [u8; BLOCK_BYTES],
}

/// List heads of an arena; all-zero is an empty arena.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArenaMeta {
    /// First block of the free list, 0 for none.
    free: u32,
    /// Blocks that have been handed out at least once.
    touched: u32,
    /// Blocks in use.
    pub used: u32,
    /// Texts that did not fit whole.
    pub truncated: u32,
}

/// An arena over the caller's memory.
pub struct Arena<'a> {
    /// List heads.
    pub meta: &'a mut ArenaMeta,
    /// The blocks.
    pub blocks: &'a mut [Block],
}

impl Arena<'_> {
    /// Keeps a text, or as much of its beginning as there are blocks for.
    pub fn store(&mut self, text: &[u8]) -> TextRef {
        let mut kept = TextRef::default();
        let mut last = 0;
        for part in text.chunks(BLOCK_BYTES) {
            let Some(block) = self.take() else {
                self.meta.truncated = self.meta.truncated.saturating_add(1);
                break;
            };
            if let Some(room) = self.block(block) {
                room.next = 0;
                room.bytes[..part.len()].copy_from_slice(part);
            }
            match self.block(last) {
                Some(previous) => previous.next = block,
                None => kept.head = block,
            }
            last = block;
            kept.length += part.len() as u32;
        }
        kept
    }

    /// Gives the blocks of a text back.
    pub fn free(&mut self, text: TextRef) {
        let mut next = text.head;
        for _ in 0..(text.length as usize).div_ceil(BLOCK_BYTES) {
            let free = self.meta.free;
            let Some(block) = self.block(next) else { break };
            let following = block.next;
            block.next = free;
            self.meta.free = next;
            self.meta.used = self.meta.used.saturating_sub(1);
            next = following;
        }
    }

    fn take(&mut self) -> Option<u32> {
        let number = match self.meta.free {
            0 => {
                let fresh = self.meta.touched.checked_add(1)?;
                self.block(fresh)?;
                self.meta.touched = fresh;
                fresh
            }
            free => {
                let next = self.block(free)?.next;
                self.meta.free = next;
                free
            }
        };
        self.meta.used += 1;
        Some(number)
    }

    fn block(&mut self, number: u32) -> Option<&mut Block> {
        self.blocks.get_mut((number as usize).checked_sub(1)?)
    }
}

/// Appends a text to `out`.
pub fn read(blocks: &[Block], text: TextRef, out: &mut Vec<u8>) {
    let mut next = text.head as usize;
    let mut left = text.length as usize;
    while left > 0 {
        let Some(block) = next.checked_sub(1).and_then(|index| blocks.get(index)) else { break };
        let part = left.min(BLOCK_BYTES);
        out.extend_from_slice(&block.bytes[..part]);
        left -= part;
        next = block.next as usize;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EMPTY: Block = Block { next: 0, bytes: [0; BLOCK_BYTES] };

    fn text_of(blocks: &[Block], text: TextRef) -> Vec<u8> {
        let mut out = Vec::new();
        read(blocks, text, &mut out);
        out
    }

    proptest! {
        #[test]
        fn behaves_like_a_list_of_texts(steps in prop::collection::vec((prop::bool::ANY, prop::collection::vec(any::<u8>(), 0..600)), 1..80)) {
            let mut meta = ArenaMeta::default();
            let mut blocks = vec![EMPTY; 40];
            let mut shadow: Vec<(TextRef, Vec<u8>)> = Vec::new();
            for (keep, text) in steps {
                let mut arena = Arena { meta: &mut meta, blocks: &mut blocks };
                if keep || shadow.is_empty() {
                    let kept = arena.store(&text);
                    prop_assert!(kept.length as usize <= text.len());
                    let length = kept.length as usize;
                    shadow.push((kept, text[..length].to_vec()));
                } else {
                    arena.free(shadow.remove(0).0);
                }
                for (kept, text) in &shadow {
                    prop_assert_eq!(&text_of(&blocks, *kept), text);
                }
                let used: usize = shadow.iter().map(|(_, text)| text.len().div_ceil(BLOCK_BYTES)).sum();
                prop_assert_eq!(meta.used as usize, used);
            }
        }
    }

    #[test]
    fn a_full_arena_keeps_the_beginning_and_counts_it() {
        let mut meta = ArenaMeta::default();
        let mut blocks = vec![EMPTY; 2];
        let mut arena = Arena { meta: &mut meta, blocks: &mut blocks };
        let kept = arena.store(&[7; 1_000]);
        assert_eq!(kept.length as usize, 2 * BLOCK_BYTES);
        assert_eq!(arena.meta.truncated, 1);
        assert_eq!(arena.store(b"x").length, 0);
        arena.free(kept);
        assert_eq!(arena.store(&[8; 248]).length, 248);
    }
}
