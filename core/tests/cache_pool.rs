//! The block pool against a list of chains.
use std::collections::HashSet;
use std::sync::atomic::AtomicU32;

use proptest::prelude::*;
use steward_core::cache::pool::{Pool, PoolMeta, walk};

fn links(blocks: usize) -> Vec<AtomicU32> {
    (0..blocks).map(|_| AtomicU32::new(0)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn behaves_like_a_list_of_chains(
        blocks in 0usize..40,
        steps in prop::collection::vec((any::<bool>(), 0u32..12, any::<prop::sample::Index>()), 0..120)
    ) {
        let links = links(blocks);
        let mut meta = PoolMeta::default();
        let mut shadow: Vec<(u32, Vec<u32>)> = Vec::new();
        for (take, count, which) in steps {
            let mut pool = Pool { meta: &mut meta, links: &links };
            let used: usize = shadow.iter().map(|(_, chain)| chain.len()).sum();
            if take || shadow.is_empty() {
                let head = pool.take(count);
                prop_assert_eq!(head.is_some(), used + count as usize <= blocks);
                if let Some(head) = head {
                    let chain: Vec<u32> = walk(&links, head).collect();
                    prop_assert_eq!(chain.len(), count as usize);
                    shadow.push((head, chain));
                }
            } else {
                let (head, chain) = shadow.swap_remove(which.index(shadow.len()));
                pool.give(head, chain.len() as u32);
            }
            let mut seen = HashSet::new();
            for (head, chain) in &shadow {
                prop_assert_eq!(&walk(&links, *head).collect::<Vec<_>>(), chain);
                prop_assert!(chain.iter().all(|&block| (block as usize) < blocks && seen.insert(block)));
            }
            let pool = Pool { meta: &mut meta, links: &links };
            prop_assert_eq!((pool.total() as usize, pool.free() as usize), (blocks, blocks - seen.len()));
        }
    }

    #[test]
    fn damaged_links_neither_panic_nor_loop(
        damaged in prop::collection::vec(0u32..12, 0..10),
        steps in prop::collection::vec((any::<bool>(), 0u32..12, any::<u32>()), 0..40)
    ) {
        let links: Vec<AtomicU32> = damaged.into_iter().map(AtomicU32::new).collect();
        let mut meta = PoolMeta::default();
        for (take, small, count) in steps {
            let mut pool = Pool { meta: &mut meta, links: &links };
            if take {
                pool.take(small);
            } else {
                pool.give(small, count);
            }
            prop_assert!(pool.free() <= pool.total());
            prop_assert!(walk(&links, small).count() <= links.len());
        }
    }
}

#[test]
fn fresh_blocks_come_in_order_and_used_ones_come_first() {
    let links = links(6);
    let mut meta = PoolMeta::default();
    let mut pool = Pool { meta: &mut meta, links: &links };
    let first = pool.take(3).unwrap();
    assert_eq!(walk(&links, first).collect::<Vec<_>>(), [0, 1, 2]);
    pool.give(first, 3);
    let second = pool.take(4).unwrap();
    assert_eq!(walk(&links, second).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(pool.take(3), None);
    assert_eq!(pool.free(), 2);
}

#[test]
fn no_blocks_are_a_chain_too() {
    let links = links(1);
    let mut meta = PoolMeta::default();
    let mut pool = Pool { meta: &mut meta, links: &links };
    assert_eq!(pool.take(0), Some(0));
    pool.give(0, 0);
    assert_eq!(pool.free(), 1);
    assert_eq!(walk(&links, 0).count(), 0);
}
