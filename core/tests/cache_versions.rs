//! The version protocol under all orders of its steps (within a bound of preemptions), the same with mistakes that the
//! model must find, and the protocol on real words.
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};

use loom::sync::{Arc, Mutex};
use loom::thread;
use proptest::prelude::*;
use steward_core::cache::versions::{GLOBAL_SLOT, Memory, Registration, Snapshot, Versions, words};

/// Words as in the module: where a mistaken writer or reader of the model finds what it needs.
const PLACES: std::ops::Range<usize> = 18..22;
const OVERFLOW: usize = 17;
const RING: usize = 24;

/// A set of transactions, one bit for each id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    clock_before: u64,
    set: u64,
}

impl Snapshot for Seen {
    fn clock_before(&self) -> u64 {
        self.clock_before
    }

    fn sees(&self, xid: u64) -> bool {
        self.set >> xid & 1 != 0
    }
}

/// One slot, and the transactions that are visible, under the lock that snapshots are taken with.
struct World {
    words: Vec<loom::sync::atomic::AtomicU64>,
    visible: Mutex<u64>,
    /// All that was ever stored in the ring: a version, its writer, and so on. No part of the model.
    bumps: std::sync::Mutex<Vec<u64>>,
}

impl Memory for World {
    fn load(&self, at: usize) -> u64 {
        self.words[at].load(Ordering::Acquire)
    }

    fn store(&self, at: usize, value: u64) {
        if at >= RING {
            self.bumps.lock().unwrap().push(value);
        }
        self.words[at].store(value, Ordering::Release);
    }

    fn swap_if(&self, at: usize, old: u64, new: u64) -> bool {
        self.words[at].compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn add(&self, at: usize, delta: u64) -> u64 {
        self.words[at].fetch_add(delta, Ordering::AcqRel)
    }

    fn pause(&self, _tries: u32) {
        thread::yield_now();
    }
}

impl World {
    fn new() -> Self {
        let words = (0..words(1)).map(|_| loom::sync::atomic::AtomicU64::new(0)).collect();
        World { words, visible: Mutex::new(0), bumps: Default::default() }
    }

    fn versions(&self) -> Versions<'_, World> {
        Versions::new(self, 1)
    }

    fn become_visible(&self, xid: u64) {
        *self.visible.lock().unwrap() |= 1 << xid;
    }

    fn snapshot(&self) -> Seen {
        let clock_before = self.versions().clock();
        Seen { clock_before, set: *self.visible.lock().unwrap() }
    }

    /// Version and id of all writers that have bumped.
    fn bumps(&self) -> Vec<(u64, u64)> {
        self.bumps.lock().unwrap().chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
    }
}

type Writer = fn(&World, u64);
type Reader = fn(&World, &Seen) -> Option<u64>;

fn commits(world: &World, xid: u64) {
    let registration = world.versions().register(GLOBAL_SLOT, xid);
    world.become_visible(xid);
    world.versions().committed(GLOBAL_SLOT, registration, xid);
}

fn commits_unknown(world: &World, xid: u64) {
    let registration = world.versions().register_unknown(GLOBAL_SLOT);
    world.become_visible(xid);
    world.versions().committed(GLOBAL_SLOT, registration, xid);
}

fn aborts(world: &World, xid: u64) {
    let registration = world.versions().register(GLOBAL_SLOT, xid);
    world.versions().gone(GLOBAL_SLOT, registration);
}

/// Ends what the scenario left standing, which was visible already.
fn bumps_the_standing(world: &World, _xid: u64) {
    for place in 0..4 {
        let registration = Registration::from_raw(place);
        world.versions().committed(GLOBAL_SLOT, registration, STANDING + u64::from(place));
    }
}

/// More bumps than the ring holds, by writers that a snapshot sees though it does not see the first.
fn commits_before_the_standing(world: &World, xid: u64) {
    commits(world, xid);
    bumps_the_standing(world, xid);
}

fn bumps_before_visible(world: &World, xid: u64) {
    let registration = world.versions().register(GLOBAL_SLOT, xid);
    world.versions().bump(GLOBAL_SLOT, xid);
    world.become_visible(xid);
    world.versions().gone(GLOBAL_SLOT, registration);
}

fn clears_before_bump(world: &World, xid: u64) {
    let registration = world.versions().register(GLOBAL_SLOT, xid);
    world.become_visible(xid);
    world.versions().gone(GLOBAL_SLOT, registration);
    world.versions().bump(GLOBAL_SLOT, xid);
}

fn registers_after_visible(world: &World, xid: u64) {
    world.become_visible(xid);
    let registration = world.versions().register(GLOBAL_SLOT, xid);
    world.versions().committed(GLOBAL_SLOT, registration, xid);
}

fn reads(world: &World, seen: &Seen) -> Option<u64> {
    world.versions().seen_by(GLOBAL_SLOT, seen)
}

fn sees_registered(world: &World, seen: &Seen) -> bool {
    world.load(OVERFLOW) != 0 || PLACES.clone().map(|at| world.load(at)).any(|xid| xid != 0 && seen.sees(xid))
}

/// Accepts by the clock only, which is all that this mistake needs.
fn reads_version_first(world: &World, seen: &Seen) -> Option<u64> {
    let version = world.versions().version(GLOBAL_SLOT);
    (!sees_registered(world, seen) && version <= seen.clock_before).then_some(version)
}

/// Does not ask what happened between the clock and the version.
fn reads_without_ring(world: &World, seen: &Seen) -> Option<u64> {
    reads(world, &Seen { clock_before: u64::MAX, ..*seen })
}

/// Does not ask whether the ring reaches back to the clock.
fn reads_a_short_ring(world: &World, seen: &Seen) -> Option<u64> {
    let unseen = sees_registered(world, seen);
    let version = world.versions().version(GLOBAL_SLOT);
    let between = seen.clock_before + 1..=version;
    let mut pairs = (RING..RING + 8).step_by(2).map(|at| (world.load(at), world.load(at + 1)));
    (!unseen && pairs.all(|(bumped, xid)| !between.contains(&bumped) || seen.sees(xid))).then_some(version)
}

/// What runs at the same time, and what was there before.
#[derive(Clone, Copy)]
struct Scenario {
    /// The writers; the ids count from 1.
    writers: &'static [Writer],
    /// Snapshots taken, and looked up, at the same time.
    readers: usize,
    reader: Reader,
    /// Writers that are visible and registered, but have not bumped.
    standing: u64,
    /// Writers that have done everything.
    earlier: u64,
    preemptions: Option<usize>,
}

const PLAIN: Scenario =
    Scenario { writers: &[commits], readers: 1, reader: reads, standing: 0, earlier: 0, preemptions: Some(3) };

/// First id of the writers of `standing`, and of `earlier`.
const STANDING: u64 = 10;
const EARLIER: u64 = 20;

/// How often a version was accepted by the clock, and by the ring.
#[derive(Default)]
struct Accepted {
    by_clock: AtomicU64,
    by_ring: AtomicU64,
}

/// Runs the scenario in all orders; panics when an accepted version is not exact.
fn explore(scenario: Scenario) -> (u64, u64) {
    let accepted = std::sync::Arc::new(Accepted::default());
    let counter = accepted.clone();
    let mut model = loom::model::Builder::new();
    model.preemption_bound = scenario.preemptions;
    model.check(move || {
        for (seen, version) in run(&scenario) {
            let count = if version <= seen.clock_before { &counter.by_clock } else { &counter.by_ring };
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    (accepted.by_clock.load(Ordering::Relaxed), accepted.by_ring.load(Ordering::Relaxed))
}

/// Runs the scenario in one order, and returns the snapshots with the versions that were accepted for them.
fn run(scenario: &Scenario) -> Vec<(Seen, u64)> {
    let world = Arc::new(World::new());
    (0..scenario.earlier).for_each(|earlier| commits(&world, EARLIER + earlier));
    for standing in STANDING..STANDING + scenario.standing {
        world.versions().register(GLOBAL_SLOT, standing);
        world.become_visible(standing);
    }
    let writing = (1..).zip(scenario.writers);
    let writers: Vec<_> = writing.map(|(xid, &writer)| spawn(&world, move |world| writer(world, xid))).collect();
    let reader = scenario.reader;
    let look = move |world: &World| {
        let seen = world.snapshot();
        reader(world, &seen).map(|version| (seen, version))
    };
    let others: Vec<_> = (1..scenario.readers).map(|_| spawn(&world, look)).collect();
    let mut results = vec![look(&world)];
    results.extend(others.into_iter().map(|other| other.join().unwrap()));
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    // And once more when all is over: nothing may be left behind.
    results.push(look(&world));
    let results: Vec<_> = results.into_iter().flatten().collect();
    check(&world.bumps(), &results);
    results
}

fn spawn<T: 'static>(world: &Arc<World>, act: impl FnOnce(&World) -> T + 'static) -> thread::JoinHandle<T> {
    let world = world.clone();
    thread::spawn(move || act(&world))
}

/// Each snapshot sees exactly the writers up to its version, so two with the same version see the same.
fn check(bumps: &[(u64, u64)], results: &[(Seen, u64)]) {
    for (seen, version) in results {
        let exact = bumps.iter().filter(|(bumped, _)| bumped <= version).fold(0, |set, (_, xid)| set | 1 << xid);
        assert_eq!(seen.set, exact, "{NOT_EXACT}: version {version} for {seen:?} after {bumps:?}");
        for (other, _) in results.iter().filter(|(_, same)| same == version) {
            assert_eq!(other.set, seen.set, "{NOT_EXACT}: version {version} twice");
        }
    }
}

const NOT_EXACT: &str = "not exact";

fn finds_a_violation(scenario: Scenario) -> bool {
    let found = catch_unwind(|| explore(scenario)).err();
    found.is_some_and(|found| found.downcast_ref::<String>().is_some_and(|message| message.contains(NOT_EXACT)))
}

#[track_caller]
fn holds(scenario: Scenario) {
    let (by_clock, by_ring) = explore(scenario);
    assert!(by_clock > 0 && by_ring > 0, "{by_clock} {by_ring}");
}

#[test]
fn a_writer_and_a_reader_without_bound() {
    holds(Scenario { preemptions: None, ..PLAIN });
}

#[test]
fn a_writer_and_two_readers() {
    holds(Scenario { readers: 2, ..PLAIN });
}

#[test]
fn two_writers_and_a_reader() {
    holds(Scenario { writers: &[commits, commits], preemptions: Some(2), ..PLAIN });
}

#[test]
fn two_writers_and_two_readers() {
    holds(Scenario { writers: &[commits, commits], readers: 2, preemptions: Some(1), ..PLAIN });
}

#[test]
fn an_aborted_writer_beside_one_that_commits() {
    holds(Scenario { writers: &[commits, aborts], preemptions: Some(2), ..PLAIN });
}

#[test]
fn writers_without_a_place() {
    holds(Scenario { writers: &[commits, bumps_the_standing], standing: 4, preemptions: Some(1), ..PLAIN });
    holds(Scenario { writers: &[commits_unknown, commits], preemptions: Some(2), ..PLAIN });
}

#[test]
fn the_ring_goes_round() {
    holds(Scenario { writers: &[commits, commits], earlier: 3, preemptions: Some(2), ..PLAIN });
    holds(Scenario { writers: &[commits], earlier: 9, ..PLAIN });
}

#[test]
fn the_model_finds_mistakes() {
    assert!(finds_a_violation(Scenario { writers: &[bumps_before_visible], ..PLAIN }));
    assert!(finds_a_violation(Scenario { writers: &[clears_before_bump], ..PLAIN }));
    assert!(finds_a_violation(Scenario { writers: &[registers_after_visible], ..PLAIN }));
    assert!(finds_a_violation(Scenario { reader: reads_version_first, ..PLAIN }));
    assert!(finds_a_violation(Scenario { reader: reads_without_ring, ..PLAIN }));
    let short = Scenario { writers: &[commits_before_the_standing], standing: 4, ..PLAIN };
    assert!(finds_a_violation(Scenario { reader: reads_a_short_ring, ..short }));
    holds(short);
}

/// Eight slots of real words.
fn real_words() -> Vec<AtomicU64> {
    (0..words(8)).map(|_| AtomicU64::new(0)).collect()
}

fn seen(clock_before: u64, xids: &[u64]) -> Seen {
    Seen { clock_before, set: xids.iter().fold(0, |set, xid| set | 1 << xid) }
}

#[test]
fn a_slot_never_written_is_seen_by_all() {
    let memory = real_words();
    let versions = Versions::new(memory.as_slice(), 8);
    assert_eq!((versions.clock(), versions.seen_by(3, &seen(0, &[]))), (0, Some(0)));
    versions.bump(4, 1);
    assert_eq!((versions.clock(), versions.seen_by(3, &seen(0, &[]))), (1, Some(0)));
}

#[test]
fn a_registered_writer_refuses_those_who_see_it() {
    let memory = real_words();
    let versions = Versions::new(memory.as_slice(), 8);
    let registration = versions.register(3, 7);
    assert_eq!(versions.seen_by(3, &seen(0, &[])), Some(0));
    assert_eq!(versions.seen_by(3, &seen(0, &[7])), None);
    versions.committed(3, registration, 7);
    assert_eq!(versions.seen_by(3, &seen(0, &[])), None);
    assert_eq!(versions.seen_by(3, &seen(0, &[7])), Some(1));
    assert_eq!(versions.seen_by(3, &seen(1, &[7])), Some(1));
    assert_eq!((versions.version(3), versions.version(4)), (1, 0));
}

#[test]
fn an_aborted_writer_leaves_nothing() {
    let memory = real_words();
    let versions = Versions::new(memory.as_slice(), 8);
    let registrations: Vec<_> = (1..=6).map(|xid| versions.register(3, xid)).collect();
    assert_eq!(registrations.iter().filter(|at| **at == Registration::OVERFLOW).count(), 2);
    assert_eq!(versions.seen_by(3, &seen(0, &[])), None);
    for registration in registrations {
        versions.gone(3, Registration::from_raw(registration.to_raw()));
    }
    assert!(versions.register(3, 0) == Registration::OVERFLOW, "an unknown writer has no place");
    versions.gone(3, Registration::OVERFLOW);
    assert!(memory.iter().all(|word| word.load(Ordering::Relaxed) == 0));
}

#[test]
fn a_ring_that_does_not_reach_back_refuses() {
    let memory = real_words();
    let versions = Versions::new(memory.as_slice(), 8);
    (1..=4).for_each(|xid| versions.bump(3, xid));
    assert_eq!(versions.seen_by(3, &seen(0, &[1, 2, 3, 4])), Some(4));
    versions.bump(3, 5);
    assert_eq!(versions.seen_by(3, &seen(0, &[1, 2, 3, 4, 5])), None);
    assert_eq!(versions.seen_by(3, &seen(2, &[1, 2, 3, 4, 5])), Some(5));
    versions.bump(3, 0);
    assert_eq!(versions.seen_by(3, &seen(5, &[1, 2, 3, 4, 5])), None, "nobody sees an unknown writer");
    assert_eq!(versions.seen_by(3, &seen(6, &[1, 2, 3, 4, 5])), Some(6));
}

#[test]
fn a_lock_that_is_held_only_refuses() {
    let memory = real_words();
    let versions = Versions::new(memory.as_slice(), 8);
    versions.bump(3, 1);
    memory[16 * 4 + 6].fetch_add(1, Ordering::Relaxed);
    assert_eq!(versions.seen_by(3, &seen(0, &[1])), None);
    assert_eq!(versions.seen_by(3, &seen(1, &[1])), Some(1));
}

#[test]
fn no_slot_and_no_memory_accept_nothing_wrong() {
    let memory = real_words();
    let versions = Versions::new(memory.as_slice(), 8);
    versions.bump(99, 1);
    assert_eq!((versions.version(GLOBAL_SLOT), versions.version(98)), (1, 1));
    let outside = Versions::new(&memory[..20], 8);
    let registration = outside.register(5, 9);
    outside.committed(5, registration, 9);
    assert_eq!(outside.seen_by(5, &seen(u64::MAX, &[])), None);
    assert_eq!(Versions::new(memory.as_slice(), 0).slot_of(1, 2), GLOBAL_SLOT);
    assert_eq!(Versions::new(memory.as_slice(), 1).slot_of(1, 2), GLOBAL_SLOT);
}

#[test]
fn relations_spread_over_the_slots() {
    let memory = real_words();
    let versions = Versions::new(memory.as_slice(), 101);
    let mut relations = [0u32; 101];
    for relation in 16_384..26_384 {
        relations[versions.slot_of(5, relation) as usize] += 1;
    }
    assert_eq!(relations[GLOBAL_SLOT as usize], 0);
    assert!(relations[1..].iter().all(|relations| (60..150).contains(relations)), "{relations:?}");
    assert!((0..1_000).any(|relation| versions.slot_of(5, relation) != versions.slot_of(6, relation)));
}

/// Three writers and two readers as threads of the machine.
#[test]
fn threads_see_exact_versions() {
    for round in 0..300 {
        let memory = real_words();
        let (versions, visible) = (Versions::new(memory.as_slice(), 8), std::sync::Mutex::new(0u64));
        let look = || {
            let clock_before = versions.clock();
            let seen = Seen { clock_before, set: *visible.lock().unwrap() };
            versions.seen_by(3, &seen).map(|version| (seen, version))
        };
        let results: Vec<_> = std::thread::scope(|scope| {
            let write = |first: u64| {
                for xid in first..first + 15 {
                    let registration = versions.register(3, xid);
                    *visible.lock().unwrap() |= 1 << xid;
                    versions.committed(3, registration, xid);
                    if round % 3 == 0 {
                        std::thread::yield_now()
                    }
                }
            };
            [1, 17, 33].into_iter().for_each(|first| drop(scope.spawn(move || write(first))));
            let readers = [0; 2].map(|_| scope.spawn(|| (0..60).filter_map(|_| look()).collect::<Vec<_>>()));
            readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect()
        });
        assert_eq!(look().map(|(_, version)| version), Some(45));
        for (seen, version) in &results {
            assert_eq!(u64::from(seen.set.count_ones()), *version, "as many as there were bumps");
            assert!(results.iter().all(|(other, same)| same != version || other.set == seen.set));
        }
    }
}

proptest! {
    #[test]
    fn a_snapshot_in_the_past_is_never_given_a_later_version(
        steps in prop::collection::vec((any::<bool>(), 1u32..5), 1..60), at in 0usize..60
    ) {
        let memory = real_words();
        let versions = Versions::new(memory.as_slice(), 8);
        let (mut set, mut past) = (0, None);
        let mut expected = [0; 8];
        for (step, (commits, slot)) in steps.into_iter().enumerate() {
            if step == at {
                let versions_now: [u64; 8] = std::array::from_fn(|slot| versions.version(slot as u32));
                past = Some((Seen { clock_before: versions.clock(), set }, versions_now));
            }
            let registration = versions.register(slot, step as u64);
            if commits {
                set |= 1 << step;
                versions.committed(slot, registration, step as u64);
                expected[slot as usize] = versions.clock();
            } else {
                versions.gone(slot, registration);
            }
            let now = Seen { clock_before: versions.clock(), set };
            for slot in 0..8 {
                prop_assert_eq!(versions.seen_by(slot, &now), Some(expected[slot as usize]));
                if let Some((seen, then)) = past {
                    let same = then[slot as usize] == expected[slot as usize];
                    prop_assert_eq!(versions.seen_by(slot, &seen), same.then_some(expected[slot as usize]));
                }
            }
        }
    }
}
