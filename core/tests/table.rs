//! The statements table against a map, and who gives way when it is full.
use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use steward_core::capture::table::{Admission, Key, NONE, Slot, Table, TableMeta, find_in, hash, partition_of};

/// Owns the memory that a partition would lend.
struct Memory {
    meta: TableMeta,
    buckets: Vec<u32>,
    slots: Vec<Slot>,
    door: Vec<u32>,
}

impl Memory {
    fn new(slots: usize, buckets: usize, door: usize) -> Self {
        let damaged = Slot { next: 7, used: 9, occupied: 1, ..Slot::default() };
        let meta = TableMeta { entries: 5, clock_hand: 99, ..TableMeta::default() };
        let mut memory = Memory { meta, buckets: vec![3; buckets], slots: vec![damaged; slots], door: vec![4; door] };
        memory.table().init();
        memory
    }

    fn table(&mut self) -> Table<'_> {
        let Memory { meta, buckets, slots, door } = self;
        Table { meta, buckets, slots, door }
    }

    /// Every slot is either in exactly one chain, the right one, or in the free list.
    fn check(&self) {
        let mut seen = HashSet::new();
        for (bucket, &head) in self.buckets.iter().enumerate() {
            let mut at = head;
            while at != NONE {
                let slot = &self.slots[at as usize];
                assert!(seen.insert(at), "slot {at} is linked twice");
                assert_eq!(slot.occupied, 1);
                assert!(slot.used <= 3);
                assert_eq!(find_in(&self.buckets, &self.slots, &slot.key), Some(at as usize), "bucket {bucket}");
                at = slot.next;
            }
        }
        assert_eq!(seen.len(), self.meta.entries as usize);
        let mut free = self.meta.free_head;
        while free != NONE {
            assert!(seen.insert(free), "free slot {free} is linked twice");
            assert_eq!(self.slots[free as usize].occupied, 0);
            free = self.slots[free as usize].next;
        }
        assert_eq!(seen.len(), self.slots.len());
    }
}

fn key(queryid: u64) -> Key {
    Key { queryid, dbid: 5, userid: 10, toplevel: 1, reserved: 0 }
}

#[derive(Clone, Debug)]
enum Step {
    Admit(u64),
    Touch(u64),
    Remove(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = 0u64..40;
    let step = prop_oneof![
        5 => id.clone().prop_map(Step::Admit),
        2 => id.clone().prop_map(Step::Touch),
        1 => id.prop_map(Step::Remove),
    ];
    prop::collection::vec(step, 0..300)
}

/// Applies an admission to the map, and checks that it was possible.
fn follow(map: &mut HashMap<u64, usize>, size: usize, id: u64, admission: Admission) {
    match admission {
        Admission::Existing(index) => assert_eq!(map.get(&id), Some(&index)),
        Admission::Inserted(index) => {
            assert!(map.len() < size && !map.values().any(|&used| used == index));
            assert_eq!(map.insert(id, index), None);
        }
        Admission::Evicted { index, old } => {
            assert_eq!(map.len(), size);
            assert_eq!(map.remove(&old.queryid), Some(index));
            assert_eq!(map.insert(id, index), None);
        }
        Admission::Refused => assert!(map.len() == size && !map.contains_key(&id)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn finds_what_the_map_finds(size in 0usize..24, buckets in 1usize..24, door in 0usize..64, steps in steps()) {
        let mut memory = Memory::new(size, buckets, door);
        let mut map: HashMap<u64, usize> = HashMap::new();
        let (mut evictions, mut refused) = (0, 0);
        for step in steps {
            match step {
                Step::Admit(id) => {
                    let admission = memory.table().admit(&key(id));
                    evictions += u64::from(matches!(admission, Admission::Evicted { .. }));
                    refused += u64::from(admission == Admission::Refused);
                    follow(&mut map, size, id, admission);
                }
                Step::Touch(id) => {
                    if let Some(&index) = map.get(&id) { memory.table().touch(index) }
                }
                Step::Remove(id) => {
                    if let Some(index) = map.remove(&id) { memory.table().remove(index) }
                }
            }
            memory.check();
            for id in 0..40 {
                prop_assert_eq!(memory.table().find(&key(id)), map.get(&id).copied());
            }
        }
        prop_assert_eq!((memory.meta.evictions, memory.meta.refused), (evictions, refused));
    }

    #[test]
    fn damaged_memory_neither_panics_nor_loops(
        slots in prop::collection::vec((0u64..8, any::<u32>(), 0u32..12, any::<u8>(), 0u8..2), 0..12),
        buckets in prop::collection::vec(0u32..12, 0..6), free_head in 0u32..12, clock_hand in any::<u32>()
    ) {
        let slots = slots.iter().map(|&(id, far, near, used, occupied)| {
            let next = if far % 2 == 0 { far } else { near };
            Slot { key: key(id), next, used, occupied, reserved: 0 }
        }).collect();
        let meta = TableMeta { free_head, clock_hand, ..TableMeta::default() };
        let mut memory = Memory { meta, buckets, slots, door: Vec::new() };
        for id in 0..16 {
            memory.table().admit(&key(id));
            memory.table().remove(id as usize);
        }
    }

    #[test]
    fn keys_that_differ_in_one_field_differ_in_hash(queryid in any::<u64>(), a in any::<u32>(), b in any::<u32>()) {
        let base = Key { queryid, dbid: a, userid: b, toplevel: 0, reserved: 0 };
        let others = [
            Key { queryid: queryid ^ 1, ..base }, Key { dbid: a ^ 1, ..base },
            Key { userid: b ^ 1, ..base }, Key { toplevel: 1, ..base },
        ];
        prop_assert!(others.iter().all(|other| hash(other) != hash(&base)));
    }
}

#[test]
fn keys_spread_over_partitions_and_buckets() {
    let mut partitions = [0u32; 16];
    let mut memory = Memory::new(1_000, 1_000, 0);
    for id in 0..16_000 {
        let hash = hash(&key(id));
        partitions[partition_of(hash, 16)] += 1;
        if partition_of(hash, 16) == 3 {
            memory.table().admit(&key(id));
        }
    }
    assert!(partitions.iter().all(|&keys| (800..1_200).contains(&keys)), "{partitions:?}");
    // Of 1,000 buckets 368 (1/e) are expected to stay empty, though all keys are of one partition.
    let empty = memory.buckets.iter().filter(|&&head| head == NONE).count();
    assert!((300..440).contains(&empty), "{empty}");
}

/// A full table in which the steady keys come around once for every `churn` keys that never come again.
fn churn(memory: &mut Memory, steady: u64, unique: u64, every: u64) {
    for id in 0..unique {
        memory.table().admit(&key(1_000_000 + id));
        if id % every == 0 {
            memory.table().admit(&key((id / every) % steady));
        }
    }
}

#[test]
fn unique_statements_do_not_push_out_the_steady_ones() {
    let mut memory = Memory::new(312, 312, 1_248);
    for id in 0..100 {
        memory.table().admit(&key(id));
    }
    churn(&mut memory, 100, 100_000, 10);
    assert!((0..100).all(|id| memory.table().find(&key(id)).is_some()));
    assert_eq!(u64::from(memory.meta.entries), 312);
    // All that came once are counted as refused, but for those that met their own fingerprint by chance.
    assert!(memory.meta.evictions <= 2, "{}", memory.meta.evictions);
    memory.check();
}

#[test]
fn statements_that_come_twice_push_out_only_what_is_not_used() {
    let mut memory = Memory::new(312, 312, 1_248);
    for id in 0..100 {
        memory.table().admit(&key(id));
    }
    for id in 0..100_000u64 {
        memory.table().admit(&key(1_000_000 + id));
        memory.table().admit(&key(1_000_000 + id));
        // Each steady one comes around once for 100 that come and stay away.
        memory.table().admit(&key(id % 100));
    }
    let kept = (0..100).filter(|&id| memory.table().find(&key(id)).is_some()).count();
    assert!(memory.meta.evictions > 50_000);
    assert!(kept >= 95, "{kept}");
}

#[test]
fn a_new_steady_statement_gets_in_at_second_sight() {
    let mut memory = Memory::new(312, 312, 1_248);
    // Full of entries in the most use.
    for id in 0..312 {
        for _ in 0..5 {
            memory.table().admit(&key(id));
        }
    }
    assert_eq!(memory.table().admit(&key(5_000)), Admission::Refused);
    assert!(matches!(memory.table().admit(&key(5_000)), Admission::Evicted { .. }));
    assert!(matches!(memory.table().admit(&key(5_000)), Admission::Existing(_)));
    memory.check();
}

#[test]
fn a_free_slot_is_taken_at_first_sight() {
    let mut memory = Memory::new(2, 1, 8);
    assert!(matches!(memory.table().admit(&key(1)), Admission::Inserted(_)));
    assert!(matches!(memory.table().admit(&key(2)), Admission::Inserted(_)));
    assert_eq!(memory.table().admit(&key(3)), Admission::Refused);
    let first = memory.table().find(&key(1)).unwrap();
    memory.table().remove(first);
    memory.table().remove(first);
    assert!(matches!(memory.table().admit(&key(3)), Admission::Inserted(_)));
    memory.check();
}

#[test]
fn a_damaged_free_list_does_not_give_away_what_is_taken() {
    let mut memory = Memory::new(1, 1, 8);
    memory.table().admit(&key(1));
    memory.meta.free_head = 0;
    assert_eq!(memory.table().admit(&key(2)), Admission::Refused);
    assert!(memory.table().find(&key(1)).is_some());
}

#[test]
fn the_hand_takes_at_most_one_round_for_each_use() {
    let mut memory = Memory::new(312, 312, 0);
    for id in 0..312 {
        for _ in 0..4 {
            memory.table().admit(&key(id));
        }
    }
    memory.table().admit(&key(999));
    let hand = memory.meta.clock_hand;
    // Everything was used up by the rounds: the next victims are found at once.
    for id in 1_000..1_010 {
        memory.table().admit(&key(id));
    }
    assert_eq!(memory.meta.clock_hand, hand + 10);
}
