//! Doorkeeper of the cache: which results are worth storing.
//!
//! A result is stored at the second sight of its fingerprint within a window, when its execution took long enough, and
//! when earlier results of the fingerprint were used before a write ended them. A *mark* remembers what is needed for
//! that. Marks are kept in sets of four by fingerprint; a new one takes the place of the mark not seen for longest. A
//! mark that is lost costs one more sight.
//!
//! All-zero marks are free. The caller holds the lock. No contents of the memory can make these functions panic.

/// Marks of the same place.
const WAYS: usize = 4;
/// Invalidations from which on uses are asked for.
const MIN_INVALIDATIONS: u32 = 4;
/// Invalidations at which the past starts to fade.
const FADING_INVALIDATIONS: u32 = 64;
/// How long a demotion lasts.
const DEMOTED_S: u32 = 60;

/// What is remembered of a fingerprint. All-zero is a free mark.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The fingerprint; 0 is free.
    pub fingerprint: u64,
    /// When it was last missed.
    pub seen_at_ms: u64,
    /// Execution time, half of it from the latest.
    pub exec_us: u32,
    /// Hits of the results that a write ended.
    pub hits: u32,
    /// Results that a write ended.
    pub invalidations: u32,
    /// Not stored before this time; 0 for never demoted.
    pub demoted_until_s: u32,
}

const _: () = assert!(size_of::<Mark>() == 32);

/// What to do with a result that was not in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Store it.
    Store,
    /// It was not asked for lately.
    FirstSight,
    /// Executing it takes less than what pays.
    TooFast,
    /// Writes end such results before they are used.
    Demoted,
}

/// A sight of a result that was not in the cache, with the rules that apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// The time.
    pub now_ms: u64,
    /// A second sight counts for this long.
    pub window_ms: u64,
    /// What the execution took.
    pub exec_us: u32,
    /// What it has to take.
    pub min_exec_us: u32,
    /// Somebody else waits for this very result: a second sight.
    pub waited_for: bool,
}

/// The marks, for as long as the exclusive lock is held.
pub struct Door<'a> {
    /// A multiple of four is right.
    pub marks: &'a mut [Mark],
}

impl Door<'_> {
    /// Notes that a result was executed because it was not in the cache, and says whether to store it.
    pub fn missed(&mut self, fingerprint: u64, sight: &Sight) -> Verdict {
        let Sight { now_ms, window_ms, exec_us, min_exec_us, waited_for } = *sight;
        let known = self.find(fingerprint).copied();
        let mean_us = known.map_or(exec_us, |mark| mark.exec_us.midpoint(exec_us));
        let mark =
            Mark { fingerprint: named(fingerprint), seen_at_ms: now_ms, exec_us: mean_us, ..known.unwrap_or_default() };
        if let Some(place) = self.place_for(fingerprint) {
            *place = mark;
        }
        let seen = known.is_some_and(|mark| now_ms.saturating_sub(mark.seen_at_ms) <= window_ms);
        if demoted(&mark, now_ms) {
            Verdict::Demoted
        } else if exec_us < min_exec_us {
            Verdict::TooFast
        } else if seen || waited_for {
            Verdict::Store
        } else {
            Verdict::FirstSight
        }
    }

    /// What an execution is expected to take, when the fingerprint is known.
    pub fn expected_us(&self, fingerprint: u64) -> Option<u32> {
        self.find(fingerprint).map(|mark| mark.exec_us)
    }

    /// Whether results of the fingerprint are not stored for now.
    pub fn is_demoted(&self, fingerprint: u64, now_ms: u64) -> bool {
        self.find(fingerprint).is_some_and(|mark| demoted(mark, now_ms))
    }

    /// Notes that a write ended a result after so many hits. After four such results that had fewer hits than there
    /// were of them, the fingerprint is demoted for a minute; half of the count stays, so a second chance is shorter.
    pub fn invalidated(&mut self, fingerprint: u64, hits: u32, now_ms: u64) {
        let Some(mark) = self.place_for(fingerprint).filter(|mark| mark.fingerprint == named(fingerprint)) else {
            return;
        };
        mark.invalidations = mark.invalidations.saturating_add(1);
        mark.hits = mark.hits.saturating_add(hits);
        let useless = mark.invalidations >= MIN_INVALIDATIONS && mark.hits < mark.invalidations;
        if useless {
            mark.demoted_until_s = seconds(now_ms).saturating_add(DEMOTED_S);
        }
        if useless || mark.invalidations >= FADING_INVALIDATIONS {
            mark.invalidations /= 2;
            mark.hits /= 2;
        }
    }

    fn find(&self, fingerprint: u64) -> Option<&Mark> {
        let set = self.marks.get(places_of(fingerprint, self.marks.len()))?;
        set.iter().find(|mark| mark.fingerprint == named(fingerprint))
    }

    /// The fingerprint's mark, or else the one that it would take: a free one, or the one not seen for longest.
    fn place_for(&mut self, fingerprint: u64) -> Option<&mut Mark> {
        let set = self.marks.get_mut(places_of(fingerprint, self.marks.len()))?;
        let order = |mark: &&mut Mark| (mark.fingerprint != named(fingerprint), mark.fingerprint != 0, mark.seen_at_ms);
        set.iter_mut().min_by_key(order)
    }
}

fn demoted(mark: &Mark, now_ms: u64) -> bool {
    seconds(now_ms) < mark.demoted_until_s
}

fn seconds(ms: u64) -> u32 {
    u32::try_from(ms / 1_000).unwrap_or(u32::MAX)
}

/// 0 names a free mark.
fn named(fingerprint: u64) -> u64 {
    fingerprint.max(1)
}

/// The set of a fingerprint. Its upper half as a fraction of 1 (Lemire 2019) is a place without a division.
fn places_of(fingerprint: u64, marks: usize) -> std::ops::Range<usize> {
    let sets = (marks / WAYS).max(1) as u64;
    let start = (((named(fingerprint) >> 32) * sets) >> 32) as usize * WAYS;
    start..(start + WAYS).min(marks)
}
