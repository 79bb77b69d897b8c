//! Versions of relations: which commits a result was computed from, told without a lock.
//!
//! A fixed array of *slots* stands in shared memory. A relation has the slot of its hash, so relations may share one;
//! that only invalidates too much. A slot holds the *version* (the clock's value at the latest commit that wrote the
//! relation), the transactions that are about to commit (*registered*: four places, and a count of those without
//! one), and the four latest writers. The clock is one counter for all slots, so one value says "everything before".
//!
//! # The protocol
//!
//! A writer W 1. registers, 2. becomes visible (Postgres takes it off the list of running transactions), 3. *bumps*:
//! under the slot's lock it takes the next value of the clock as its version v(W), enters (v(W), W) in the ring and
//! stores v(W) as the slot's version, and 4. clears its registration. An aborted writer does 1 and 4.
//!
//! A reader 1. reads the clock, giving c, 2. takes its snapshot S, and later, in [`Versions::seen_by`], 3. reads the
//! registrations: none may be visible for S, 4. reads the version v, and 5. accepts it when v <= c, or else when the
//! ring reaches back to c and all its writers with versions in (c, v] are visible for S.
//!
//! # Why an accepted version is exact
//!
//! Claim: if v is accepted for S, then S sees exactly the writers W with v(W) <= v. So two snapshots for which the same
//! version is accepted see the same rows of the slot's relations, and a result computed under one is the result under
//! the other. Versions of a slot only grow, as they are taken from the clock under the slot's lock.
//!
//! * *v(W) <= v, so S must see W.* If v(W) <= c, W bumped before the clock was read, hence became visible before the
//!   snapshot was taken: S sees it. If v(W) > c then v > c, so the ring decided: it reached back to c and so held W,
//!   which was visible for S. W may have become visible after the snapshot was taken: then its bump came later still,
//!   v(W) > c, and the ring refuses.
//! * *v(W) > v, or W has not bumped: S must not see W.* When v was read, W had not bumped, so had not cleared its
//!   registration; the registrations were read before. Either W's was read and it was not visible for S, or W had not
//!   registered yet, so it became visible only after the reader looked, and the snapshot was taken before that.
//!
//! The second half is why the registrations are read *before* the version. In the other order W, visible for S, can
//! bump and clear between the two reads: the old version is then accepted for a snapshot that sees more. In the same
//! way a writer that bumps before it is visible gives its version to snapshots that do not see it yet (the ring would
//! not notice once the clock was read after the bump), and one that clears before it bumps leaves a gap in which
//! snapshots that see it are given the old version.
//!
//! An aborted writer is never visible and never bumps, so it changes neither side; whether [`Snapshot::sees`] calls it
//! visible only matters while it is registered, and then refuses. A writer beyond the four places, or of unknown id,
//! is only counted: nobody is accepted until it clears. A bump without a registration ([`Versions::bump`]) is exact
//! for all snapshots from the bump on, but not between the writer's becoming visible and the bump.
//!
//! A process that is suspended while it holds the lock does not stop readers: they are accepted by the clock, or give
//! up after a few tries, which is a miss. Other writers of that slot wait for it.
//!
//! # Memory order
//!
//! Loads acquire, stores release, and read-modify-writes do both; nothing needs one order of all of them. A reader that
//! finds a place cleared, or taken anew, or the count lowered, has acquired what the writer released there: its bump.
//! (A place is taken by a swap, so each later value of it carries the earlier releases on; the count and the clock
//! change only by read-modify-writes, which do the same.) A reader that finds c >= v(W) has acquired W's step of the
//! clock, after its becoming visible. "Visible before the snapshot" is ordered by Postgres's lock on the list of
//! running transactions. The ring is read between two equal even values of the lock word: a value stored by a later
//! writer would have brought along that writer's odd lock word.

use crate::hash::mix;
use std::sync::atomic::{AtomicU64, Ordering};

/// Words of a slot, and of the header in front of the slots.
pub const WORDS_PER_SLOT: usize = 16;
/// The slot that stands for everything; no relation's hash leads to it.
pub const GLOBAL_SLOT: u32 = 0;

/// The clock, in the header.
const CLOCK: usize = 0;
/// Version of the slot; 0 before the first bump.
const VERSION: usize = 0;
/// Registered writers without a place. The rest of a reader's fast path is in the same cache line.
const OVERFLOW: usize = 1;
/// Full transaction ids of registered writers; 0 is free.
const PLACES: usize = 2;
const PLACE_COUNT: usize = 4;
/// Odd while a writer holds it; each writer adds 2 in all.
const LOCK: usize = 6;
/// Bumps ever; the next pair of the ring is this modulo its length.
const BUMPS: usize = 7;
/// Pairs of a version and its writer's full transaction id (0: unknown).
const RING: usize = 8;
const RING_COUNT: usize = 4;
/// Tries to read the ring between two writers.
const RING_TRIES: u32 = 4;
/// Turns of the processor's pause before a waiting writer gives up its time slice.
const SPINS: u32 = 64;

const _: () = assert!(PLACES + PLACE_COUNT == LOCK && RING + 2 * RING_COUNT == WORDS_PER_SLOT);

/// The words that versions are kept in. All-zero words are a clock and slots that were never used.
pub trait Memory {
    /// Loads a word; acquires.
    fn load(&self, at: usize) -> u64;
    /// Stores a word; releases.
    fn store(&self, at: usize, value: u64);
    /// Stores `new` when the word is `old`, and tells whether it was; acquires and releases.
    fn swap_if(&self, at: usize, old: u64, new: u64) -> bool;
    /// Adds, wrapping, and returns the previous value; acquires and releases.
    fn add(&self, at: usize, delta: u64) -> u64;
    /// Called while waiting for another process, with the number of tries so far.
    fn pause(&self, tries: u32) {
        if tries < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
    }
}

/// A word outside the memory reads as all ones and takes any store: it counts as an unknown writer that never leaves,
/// so nothing is accepted there, and nobody waits.
impl Memory for [AtomicU64] {
    #[inline]
    fn load(&self, at: usize) -> u64 {
        self.get(at).map_or(u64::MAX, |word| word.load(Ordering::Acquire))
    }

    #[inline]
    fn store(&self, at: usize, value: u64) {
        if let Some(word) = self.get(at) {
            word.store(value, Ordering::Release);
        }
    }

    #[inline]
    fn swap_if(&self, at: usize, old: u64, new: u64) -> bool {
        self.get(at).is_none_or(|word| word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).is_ok())
    }

    #[inline]
    fn add(&self, at: usize, delta: u64) -> u64 {
        self.get(at).map_or(u64::MAX, |word| word.fetch_add(delta, Ordering::AcqRel))
    }
}

/// What a snapshot knows.
pub trait Snapshot {
    /// A value of the clock that was read before the snapshot was taken; 0 when none was.
    fn clock_before(&self) -> u64;
    /// Whether the transaction, given by its full id, has ended and is visible for the snapshot. An aborted one may be
    /// called either.
    fn sees(&self, xid: u64) -> bool;
}

/// Where a writer is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration(u8);

impl Registration {
    /// Counted, without a place.
    pub const OVERFLOW: Registration = Registration(u8::MAX);

    /// As a number, to be kept where another process finds it.
    pub const fn to_raw(self) -> u8 {
        self.0
    }

    /// The registration of [`Registration::to_raw`].
    pub const fn from_raw(raw: u8) -> Self {
        Registration(raw)
    }
}

/// Words that `slots` slots need.
pub const fn words(slots: usize) -> usize {
    slots.saturating_add(1).saturating_mul(WORDS_PER_SLOT)
}

/// The slots of versions over the caller's memory. Needs no lock.
#[derive(Debug)]
pub struct Versions<'a, M: Memory + ?Sized> {
    memory: &'a M,
    slots: usize,
}

impl<M: Memory + ?Sized> Clone for Versions<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Memory + ?Sized> Copy for Versions<'_, M> {}

impl<'a, M: Memory + ?Sized> Versions<'a, M> {
    /// `memory` has [`words`]`(slots)` words.
    pub const fn new(memory: &'a M, slots: usize) -> Self {
        Versions { memory, slots }
    }

    /// The slot of a relation; never [`GLOBAL_SLOT`], unless there is no other.
    #[inline]
    pub fn slot_of(&self, database: u32, relation: u32) -> u32 {
        let others = self.slots.saturating_sub(1).min(u32::MAX as usize - 1) as u64;
        let hash = mix(u64::from(database) << 32 | u64::from(relation));
        // The top half of the hash as a fraction of 1 (Lemire 2019): a place without a division.
        if others == 0 { GLOBAL_SLOT } else { 1 + (((hash >> 32) * others) >> 32) as u32 }
    }

    /// The clock: the latest version of any slot.
    #[inline]
    pub fn clock(&self) -> u64 {
        self.memory.load(CLOCK)
    }

    /// Announces a writer. Must be done before it becomes visible.
    pub fn register(&self, slot: u32, xid: u64) -> Registration {
        let places = self.start_of(slot) + PLACES;
        // 0 marks a free place, so a writer without an id cannot have one.
        if xid != 0 {
            for place in 0..PLACE_COUNT {
                let at = places + place;
                if self.memory.load(at) == 0 && self.memory.swap_if(at, 0, xid) {
                    return Registration(place as u8);
                }
            }
        }
        self.register_unknown(slot)
    }

    /// Announces a writer whose id is not known: until it clears, no snapshot is accepted.
    pub fn register_unknown(&self, slot: u32) -> Registration {
        self.memory.add(self.start_of(slot) + OVERFLOW, 1);
        Registration::OVERFLOW
    }

    /// Makes a writer's version known. Must be done after it became visible.
    pub fn committed(&self, slot: u32, registration: Registration, xid: u64) {
        self.bump(slot, xid);
        self.gone(slot, registration);
    }

    /// Clears the registration of a writer that aborted.
    pub fn gone(&self, slot: u32, registration: Registration) {
        let start = self.start_of(slot);
        if usize::from(registration.0) < PLACE_COUNT {
            self.memory.store(start + PLACES + usize::from(registration.0), 0);
        } else {
            self.memory.add(start + OVERFLOW, u64::MAX);
        }
    }

    /// A new version without a registration, for a write that was noticed only after it became visible. `xid` is 0
    /// when it is not known.
    pub fn bump(&self, slot: u32, xid: u64) {
        let start = self.start_of(slot);
        let held = self.lock(start);
        let version = self.memory.add(CLOCK, 1).wrapping_add(1);
        let bumps = self.memory.load(start + BUMPS);
        let pair = start + RING + 2 * (bumps % RING_COUNT as u64) as usize;
        self.memory.store(pair, version);
        self.memory.store(pair + 1, xid);
        self.memory.store(start + BUMPS, bumps.wrapping_add(1));
        self.memory.store(start + VERSION, version);
        self.memory.store(start + LOCK, held.wrapping_add(1));
    }

    /// The version of a slot now.
    #[inline]
    pub fn version(&self, slot: u32) -> u64 {
        self.memory.load(self.start_of(slot) + VERSION)
    }

    /// The version of the slot that the snapshot sees exactly. `None`: it cannot be told, or it sees a mixture.
    #[inline]
    pub fn seen_by(&self, slot: u32, snapshot: &impl Snapshot) -> Option<u64> {
        let start = self.start_of(slot);
        // The registrations before the version: the other order is wrong, see the module's head.
        if self.memory.load(start + OVERFLOW) != 0 {
            return None;
        }
        for place in 0..PLACE_COUNT {
            let xid = self.memory.load(start + PLACES + place);
            if xid != 0 && snapshot.sees(xid) {
                return None;
            }
        }
        let version = self.memory.load(start + VERSION);
        let exact = version <= snapshot.clock_before() || self.sees_latest(start, version, snapshot);
        exact.then_some(version)
    }

    /// Whether the snapshot sees all writers up to `version`, one at a time for those that the clock does not vouch for.
    #[cold]
    #[inline(never)]
    fn sees_latest(&self, start: usize, version: u64, snapshot: &impl Snapshot) -> bool {
        let since = snapshot.clock_before();
        let Some((bumps, ring)) = self.ring(start) else { return false };
        let reaches_back = bumps <= RING_COUNT as u64 || ring.iter().any(|&(bumped, _)| bumped <= since);
        reaches_back
            && ring
                .iter()
                .filter(|&&(bumped, _)| bumped > since && bumped <= version)
                .all(|&(_, xid)| xid != 0 && snapshot.sees(xid))
    }

    /// The number of bumps and the latest writers, as they were together at one moment.
    fn ring(&self, start: usize) -> Option<(u64, [(u64, u64); RING_COUNT])> {
        for tries in 0..RING_TRIES {
            let before = self.memory.load(start + LOCK);
            if before & 1 == 0 {
                let bumps = self.memory.load(start + BUMPS);
                let pair = |index: usize| start + RING + 2 * index;
                let ring =
                    std::array::from_fn(|index| (self.memory.load(pair(index)), self.memory.load(pair(index) + 1)));
                if self.memory.load(start + LOCK) == before {
                    return Some((bumps, ring));
                }
            }
            self.memory.pause(tries);
        }
        None
    }

    /// Takes the slot's lock; returns the odd word that says so.
    fn lock(&self, start: usize) -> u64 {
        let mut tries = 0;
        loop {
            let free = self.memory.load(start + LOCK) & !1;
            let held = free.wrapping_add(1);
            // Fails on an odd word, too: somebody holds it.
            if self.memory.swap_if(start + LOCK, free, held) {
                return held;
            }
            self.memory.pause(tries);
            tries = tries.saturating_add(1);
        }
    }

    /// First word of a slot. A number that is no slot means everything, for writers and readers alike.
    #[inline]
    fn start_of(&self, slot: u32) -> usize {
        let slot = if (slot as usize) < self.slots { slot } else { GLOBAL_SLOT };
        WORDS_PER_SLOT * (slot as usize + 1)
    }
}

impl Versions<'_, [AtomicU64]> {
    /// As [`Versions::seen_by`] where no writer is registered and the clock vouches for the version, which is nearly
    /// always. `None` says nothing: ask `seen_by`. The loads are the same, in the same order.
    #[inline(always)]
    pub fn seen_quickly(&self, slot: u32, clock_before: u64) -> Option<u64> {
        let start = self.start_of(slot);
        let line = self.memory.get(start..start + WORDS_PER_SLOT)?.first_chunk::<WORDS_PER_SLOT>()?;
        let mut registered = line[OVERFLOW].load(Ordering::Acquire);
        for place in 0..PLACE_COUNT {
            registered |= line[PLACES + place].load(Ordering::Acquire);
        }
        let version = line[VERSION].load(Ordering::Acquire);
        (registered == 0 && version <= clock_before).then_some(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(u64, u64);

    impl Snapshot for Fixed {
        fn clock_before(&self) -> u64 {
            self.0
        }

        fn sees(&self, xid: u64) -> bool {
            xid < self.1
        }
    }

    #[test]
    fn the_quick_answer_is_that_of_the_whole_protocol_or_none() {
        let memory: Vec<AtomicU64> = (0..words(3)).map(|_| AtomicU64::new(0)).collect();
        let versions = Versions::new(&memory[..], 3);
        let mut quick = 0;
        for step in 0..200u64 {
            let slot = (step % 3) as u32;
            let xid = 1000 + step;
            let registration =
                if step % 7 == 0 { versions.register_unknown(slot) } else { versions.register(slot, xid) };
            for clock in [0, versions.clock() / 2, versions.clock()] {
                for asked in 0..3 {
                    if let Some(version) = versions.seen_quickly(asked, clock) {
                        quick += 1;
                        assert_eq!(versions.seen_by(asked, &Fixed(clock, 0)), Some(version));
                    }
                }
            }
            assert_eq!(versions.seen_quickly(slot, u64::MAX), None, "a writer is registered");
            versions.committed(slot, registration, xid);
        }
        assert!(quick > 100, "{quick}");
    }
}
