//! The directory of a shard against a map, and what its eviction keeps.
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use steward_core::cache::shard::{
    Entry, FREE, Freed, Insertion, MAIN, NewEntry, Queue, SMALL, Shard, ShardMeta, USES, find, live, touch,
};

mod traces;

/// Owns the memory that a shard would lend.
struct Memory {
    meta: ShardMeta,
    buckets: Vec<u32>,
    entries: Vec<Entry>,
    ghosts: Vec<u64>,
    heat: Vec<AtomicU64>,
}

impl Memory {
    fn new(entries: usize, buckets: usize, ghosts: usize) -> Self {
        Memory {
            meta: ShardMeta::default(),
            buckets: vec![0; buckets],
            entries: vec![Entry::default(); entries],
            ghosts: vec![0; ghosts],
            // As left by somebody else: a new entry must not inherit uses.
            heat: (0..entries).map(|_| AtomicU64::new(u64::MAX)).collect(),
        }
    }

    fn shard(&mut self) -> (Shard<'_>, &[AtomicU64]) {
        let Memory { meta, buckets, entries, ghosts, heat } = self;
        (Shard { meta, buckets, entries, ghosts }, heat)
    }

    fn insert(&mut self, new: NewEntry) -> Insertion {
        let (mut shard, heat) = self.shard();
        shard.insert(heat, new)
    }

    fn evict(&mut self) -> Option<Freed> {
        let (mut shard, heat) = self.shard();
        shard.evict(heat)
    }

    fn remove(&mut self, index: usize) -> Option<Freed> {
        self.shard().0.remove(index)
    }

    fn find(&self, id: u64) -> Option<usize> {
        find(&self.buckets, &self.entries, &key(id))
    }

    fn use_it(&self, id: u64, times: usize) {
        let index = self.find(id).unwrap();
        (0..times).for_each(|_| touch(&self.heat, index));
    }

    fn queue_of(&self, id: u64) -> u32 {
        self.find(id).map_or(FREE, |index| self.entries[index].queue)
    }

    /// Indexes from the newest to the oldest; both directions must agree.
    fn check_queue(&self, tag: u32, queue: &Queue) -> Vec<usize> {
        let (mut at, mut newer, mut order) = (queue.newest, 0, Vec::new());
        while at != 0 {
            let entry = &self.entries[at as usize - 1];
            assert_eq!((entry.queue, entry.newer), (tag, newer));
            order.push(at as usize - 1);
            assert!(order.len() <= self.entries.len(), "the queue is a ring");
            (newer, at) = (at, entry.older);
        }
        assert_eq!(queue.oldest, newer);
        assert_eq!(queue.bytes, order.iter().map(|&index| u64::from(self.entries[index].size_bytes)).sum::<u64>());
        order
    }

    /// Every entry is in exactly one queue and the right chain, or free.
    fn check(&self) {
        let mut queued: HashSet<usize> = self.check_queue(SMALL, &self.meta.small).into_iter().collect();
        assert!(self.check_queue(MAIN, &self.meta.main).into_iter().all(|index| queued.insert(index)));
        assert_eq!(queued, live(&self.entries).map(|(index, _)| index).collect());
        assert_eq!(queued.len(), self.meta.entries as usize);
        let mut chained = HashSet::new();
        for &head in &self.buckets {
            let mut at = head;
            while at != 0 {
                assert!(chained.insert(at as usize - 1), "entry {at} is chained twice");
                at = self.entries[at as usize - 1].next;
            }
        }
        assert_eq!(chained, queued);
        let mut free = self.meta.free_head;
        while free != 0 {
            assert!(queued.insert(free as usize - 1), "free entry {free} is linked twice");
            free = self.entries[free as usize - 1].next;
        }
        assert_eq!(queued.len(), self.meta.touched as usize);
    }
}

/// Few different words, so that buckets, ghost sets and fingerprints collide.
fn key(id: u64) -> [u64; 4] {
    [id, (id % 7) << 29, (id % 5) << 30, id]
}

fn entry(id: u64, size_bytes: u32, exec_us: u32) -> NewEntry {
    let (head, blocks) = (id as u32 * 3 + 1, size_bytes.div_ceil(256));
    let stored =
        NewEntry { key: key(id), created_us: 77 + id, head, blocks, size_bytes, exec_us, ..NewEntry::default() };
    NewEntry { class: 1, role: 2, database: 3, query: 4, flags: id as u32, ..stored }
}

fn freed(new: &NewEntry) -> Freed {
    let NewEntry { key, head, blocks, size_bytes, class, role, database, query, flags, .. } = *new;
    Freed { key, head, blocks, size_bytes, class, role, database, query, flags }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u64, u32, u32),
    Touch(u64),
    Evict,
    Remove(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = 0u64..30;
    let step = prop_oneof![
        5 => (id.clone(), 0u32..5_000, prop_oneof![0u32..3_000, Just(u32::MAX)]).prop_map(|(id, size, exec)| Step::Insert(id, size, exec)),
        3 => id.clone().prop_map(Step::Touch),
        2 => Just(Step::Evict),
        1 => id.prop_map(Step::Remove),
    ];
    prop::collection::vec(step, 0..200)
}

/// Applies one step to both, and compares what is handed back.
fn apply(memory: &mut Memory, map: &mut HashMap<u64, NewEntry>, step: Step) {
    match step {
        Step::Insert(id, size_bytes, exec_us) => {
            let new = entry(id, size_bytes, exec_us);
            let full = map.len() == memory.entries.len();
            let insertion = memory.insert(new);
            assert_eq!(insertion.freed, map.remove(&id).as_ref().map(freed));
            assert_eq!(insertion.index.is_none(), full && insertion.freed.is_none());
            if let Some(index) = insertion.index {
                map.insert(id, new);
                assert_eq!(memory.heat[index].load(Ordering::Relaxed), 0);
            }
        }
        Step::Touch(id) => {
            if let Some(index) = memory.find(id) {
                touch(&memory.heat, index)
            }
        }
        Step::Evict => match memory.evict() {
            Some(gone) => assert_eq!(map.remove(&gone.key[0]).as_ref().map(freed), Some(gone)),
            None => assert!(map.is_empty()),
        },
        Step::Remove(id) => {
            let gone = memory.find(id).and_then(|index| memory.remove(index));
            assert_eq!(gone, map.remove(&id).as_ref().map(freed));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn holds_what_the_map_holds(size in 0usize..16, buckets in 1usize..16, ghosts in 0usize..20, steps in steps()) {
        let mut memory = Memory::new(size, buckets, ghosts);
        let mut map = HashMap::new();
        for step in steps {
            apply(&mut memory, &mut map, step);
            memory.check();
            for id in 0..30 {
                let held = memory.find(id).map(|index| memory.entries[index]);
                prop_assert_eq!(held.map(|held| (held.key, held.size_bytes, held.created_us, held.exec_us)),
                    map.get(&id).map(|new| (new.key, new.size_bytes, new.created_us, new.exec_us)));
            }
            let bytes: u64 = map.values().map(|new| u64::from(new.size_bytes)).sum();
            prop_assert_eq!(memory.shard().0.bytes(), bytes);
        }
        // Whatever their uses, all give way in the end.
        for left in (0..map.len()).rev() {
            prop_assert!(memory.evict().is_some());
            prop_assert_eq!(memory.meta.entries as usize, left);
        }
        prop_assert_eq!(memory.evict(), None);
    }

    #[test]
    fn damaged_memory_neither_panics_nor_loops(
        numbers in prop::collection::vec((0u32..9, 0u32..9, 0u32..9, 0u32..4, any::<u32>()), 0..8),
        buckets in prop::collection::vec(0u32..9, 0..6), ends in prop::array::uniform7(0u32..9), mean_worth in any::<u32>(),
        steps in steps()
    ) {
        let mut memory = Memory::new(0, 0, 3);
        memory.entries = numbers.iter().map(|&(next, newer, older, queue, any)| {
            Entry { key: key(u64::from(next)), next, newer, older, queue, size_bytes: any, rounds: any, ..Entry::default() }
        }).collect();
        memory.heat = numbers.iter().map(|&(.., any)| AtomicU64::new(u64::from(any))).collect();
        memory.buckets = buckets;
        let [newest, oldest, main_newest, main_oldest, free_head, touched, held] = ends;
        let small = Queue { bytes: u64::MAX, newest, oldest };
        let main = Queue { bytes: 1, newest: main_newest, oldest: main_oldest };
        memory.meta = ShardMeta { small, main, free_head, touched, entries: held, mean_worth, ..ShardMeta::default() };
        for step in steps {
            match step {
                Step::Insert(id, size_bytes, exec_us) => drop(memory.insert(entry(id, size_bytes, exec_us))),
                Step::Touch(id) => touch(&memory.heat, id as usize),
                Step::Evict => drop(memory.evict()),
                Step::Remove(id) => drop(memory.remove(id as usize)),
            }
        }
        memory.shard().0.init();
        memory.check();
    }
}

#[test]
fn uses_are_counted_up_to_three_beside_the_callers_bits() {
    let heat = [AtomicU64::new(40)];
    for uses in [1, 2, 3, 3, 3] {
        touch(&heat, 0);
        assert_eq!(heat[0].load(Ordering::Relaxed), 40 + uses);
    }
    assert_eq!(USES, 3);
    touch(&heat, 1);
}

#[test]
fn used_results_move_to_main_and_the_rest_leave_a_ghost() {
    let mut memory = Memory::new(10, 16, 16);
    for id in 0..4 {
        memory.insert(entry(id, 100, 1_000));
    }
    memory.use_it(0, 1);
    assert_eq!(memory.evict().map(|gone| gone.key), Some(key(1)));
    assert_eq!((memory.queue_of(0), memory.queue_of(2)), (MAIN, SMALL));
    memory.insert(entry(1, 100, 1_000));
    assert_eq!((memory.queue_of(1), memory.meta.returns), (MAIN, 1));
    memory.check();
}

#[test]
fn a_replaced_result_stays_in_its_queue() {
    let mut memory = Memory::new(10, 16, 16);
    memory.insert(entry(0, 100, 1_000));
    memory.insert(entry(1, 100, 1_000));
    memory.use_it(0, 1);
    memory.evict();
    memory.insert(entry(0, 120, 1_000));
    assert_eq!(memory.queue_of(0), MAIN);
    assert_eq!(memory.shard().0.bytes(), 120);
}

/// Fills the shard with used results of one worth, and one used once of another, then counts the evictions that the
/// other outlives.
fn evictions_survived(exec_us: u32) -> usize {
    let mut memory = Memory::new(64, 64, 0);
    for id in 0..40 {
        memory.insert(entry(id, 100, if id == 5 { exec_us } else { 1_000 }));
    }
    (0..40).for_each(|id| memory.use_it(id, if id == 5 { 1 } else { 2 }));
    let survives = |_: &usize| memory.evict().is_some_and(|gone| gone.key != key(5));
    (0..40).take_while(survives).count()
}

#[test]
fn worth_gives_rounds_and_takes_them() {
    let [cheap, middling, dear] = [100, 1_000, 30_000].map(evictions_survived);
    assert!(cheap < middling && middling < dear, "{cheap} {middling} {dear}");
    assert!(dear < 40, "worth without uses must not last forever");
}

#[test]
fn ghosts_of_one_place_forget_the_oldest() {
    let mut memory = Memory::new(8, 8, 4);
    for id in 0..6 {
        memory.insert(NewEntry { key: [id, id, id << 40, id], size_bytes: 10, ..NewEntry::default() });
        memory.evict();
    }
    let remembered = memory.ghosts.iter().map(|ghost| ghost >> 40).collect::<Vec<_>>();
    assert_eq!(remembered, [5, 4, 3, 2]);
}

#[test]
fn a_scan_does_not_push_out_what_is_used() {
    let trace = traces::zipf_with_scans(60_000, 10_000, 1.0, 11);
    let [lru, plain, weighted] = [
        traces::on_lru(&trace, 2 << 20),
        traces::on_shard(&trace, 2 << 20, false),
        traces::on_shard(&trace, 2 << 20, true),
    ];
    assert!(plain.hit_ratio() > 1.15 * lru.hit_ratio(), "{plain:?} {lru:?}");
    assert!(weighted.hit_ratio() > 1.15 * lru.hit_ratio(), "{weighted:?} {lru:?}");
    assert!(weighted.saved_ratio() > plain.saved_ratio(), "{weighted:?} {plain:?}");
}
