//! The doorkeeper against a map, and its rules one by one.
use std::collections::HashMap;

use proptest::prelude::*;
use steward_core::cache::admission::{Door, Mark, Sight, Verdict};

const SIGHT: Sight =
    Sight { now_ms: 1_000_000, window_ms: 60_000, exec_us: 5_000, min_exec_us: 1_000, waited_for: false };

fn at(now_ms: u64) -> Sight {
    Sight { now_ms, ..SIGHT }
}

/// Calls in the words of the rules, on a map that forgets nothing.
#[derive(Default)]
struct Shadow(HashMap<u64, Mark>);

impl Shadow {
    fn missed(&mut self, fingerprint: u64, sight: &Sight) -> Verdict {
        let known = self.0.get(&fingerprint).copied();
        let mark = self.0.entry(fingerprint).or_default();
        mark.exec_us = known.map_or(sight.exec_us, |known| known.exec_us.midpoint(sight.exec_us));
        mark.seen_at_ms = sight.now_ms;
        if sight.now_ms / 1_000 < u64::from(mark.demoted_until_s) {
            return Verdict::Demoted;
        }
        let again = known.is_some_and(|known| known.seen_at_ms + sight.window_ms >= sight.now_ms);
        match (sight.exec_us >= sight.min_exec_us, again || sight.waited_for) {
            (false, _) => Verdict::TooFast,
            (true, true) => Verdict::Store,
            (true, false) => Verdict::FirstSight,
        }
    }

    fn invalidated(&mut self, fingerprint: u64, hits: u32, now_ms: u64) {
        let Some(mark) = self.0.get_mut(&fingerprint) else { return };
        (mark.hits, mark.invalidations) = (mark.hits + hits, mark.invalidations + 1);
        let useless = mark.invalidations >= 4 && mark.hits < mark.invalidations;
        if useless {
            mark.demoted_until_s = now_ms as u32 / 1_000 + 60;
        }
        if useless || mark.invalidations == 64 {
            (mark.hits, mark.invalidations) = (mark.hits / 2, mark.invalidations / 2);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Missed { window_ms: u64, exec_us: u32, waited_for: bool },
    Invalidated(u32),
}

fn steps() -> impl Strategy<Value = Vec<(u64, u64, Step)>> {
    let missed = (0u64..40_000, 0u32..4_000, any::<bool>()).prop_map(|(window_ms, exec_us, waited_for)| Step::Missed {
        window_ms,
        exec_us,
        waited_for,
    });
    let step = prop_oneof![missed, (0u32..4).prop_map(Step::Invalidated)];
    prop::collection::vec((0u64..4, 0u64..20_000, step), 0..200)
}

proptest! {
    #[test]
    fn decides_as_the_rules_say(steps in steps()) {
        // Four fingerprints fit any set, so nothing is forgotten.
        let mut marks = [Mark::default(); 8];
        let (mut door, mut shadow, mut now_ms) = (Door { marks: &mut marks }, Shadow::default(), 0);
        for (which, later_ms, step) in steps {
            now_ms += later_ms;
            let fingerprint = which << 62 | which;
            match step {
                Step::Missed { window_ms, exec_us, waited_for } => {
                    let sight = Sight { now_ms, window_ms, exec_us, min_exec_us: 1_000, waited_for };
                    prop_assert_eq!(door.missed(fingerprint, &sight), shadow.missed(fingerprint, &sight));
                }
                Step::Invalidated(hits) => {
                    door.invalidated(fingerprint, hits, now_ms);
                    shadow.invalidated(fingerprint, hits, now_ms);
                }
            }
            let mark = shadow.0.get(&fingerprint);
            prop_assert_eq!(door.expected_us(fingerprint), mark.map(|mark| mark.exec_us));
            let demoted = mark.is_some_and(|mark| now_ms / 1_000 < u64::from(mark.demoted_until_s));
            prop_assert_eq!(door.is_demoted(fingerprint, now_ms), demoted);
        }
    }

    #[test]
    fn any_memory_is_a_door(
        words in prop::collection::vec((0u64..3, any::<u64>(), any::<u32>(), any::<u32>()), 0..11),
        fingerprints in prop::collection::vec((prop_oneof![0u64..3, any::<u64>()], any::<u64>(), any::<u32>()), 0..20)
    ) {
        let mut marks: Vec<Mark> = words.into_iter().map(|(fingerprint, seen_at_ms, one, two)| Mark {
            fingerprint, seen_at_ms, exec_us: one, hits: two, invalidations: one, demoted_until_s: two,
        }).collect();
        let known = marks.len() >= 4;
        let mut door = Door { marks: &mut marks };
        for (fingerprint, now_ms, hits) in fingerprints {
            door.missed(fingerprint, &Sight { now_ms, exec_us: hits, ..SIGHT });
            door.invalidated(fingerprint, hits, now_ms);
            prop_assert!(!known || door.expected_us(fingerprint).is_some());
        }
    }
}

#[test]
fn the_second_sight_within_the_window_is_stored() {
    let mut marks = [Mark::default(); 16];
    let mut door = Door { marks: &mut marks };
    assert_eq!(door.missed(7, &at(1_000)), Verdict::FirstSight);
    assert_eq!(door.missed(7, &at(61_001)), Verdict::FirstSight);
    assert_eq!(door.missed(7, &at(121_001)), Verdict::Store);
    assert_eq!(door.missed(8, &Sight { waited_for: true, ..SIGHT }), Verdict::Store);
    assert_eq!(door.missed(7, &Sight { exec_us: 999, ..at(121_002) }), Verdict::TooFast);
}

#[test]
fn results_that_die_unused_are_not_stored_for_a_minute() {
    let mut marks = [Mark::default(); 16];
    let mut door = Door { marks: &mut marks };
    door.missed(7, &at(0));
    (0..3).for_each(|_| door.invalidated(7, 1, 0));
    door.invalidated(7, 0, 0);
    assert!(door.is_demoted(7, 59_999) && !door.is_demoted(7, 60_000) && !door.is_demoted(8, 0));
    assert_eq!(door.missed(7, &at(59_000)), Verdict::Demoted);
    assert_eq!(door.missed(7, &at(60_000)), Verdict::Store);
    // Half of the past is left: two more of that kind are enough.
    door.invalidated(7, 0, 60_000);
    assert!(!door.is_demoted(7, 60_000));
    door.invalidated(7, 0, 60_000);
    assert!(door.is_demoted(7, 60_000));
}

#[test]
fn results_that_are_used_are_never_demoted() {
    let mut marks = [Mark::default(); 16];
    let mut door = Door { marks: &mut marks };
    door.missed(7, &at(0));
    for _ in 0..1_000 {
        door.invalidated(7, 1, 0);
        assert!(!door.is_demoted(7, 0));
    }
}

#[test]
fn the_mark_not_seen_for_longest_gives_way() {
    let mut marks = [Mark::default(); 4];
    let mut door = Door { marks: &mut marks };
    for (fingerprint, now_ms) in [(1, 10), (2, 20), (3, 30), (4, 40), (1, 50), (5, 60)] {
        door.missed(fingerprint, &at(now_ms));
    }
    assert_eq!(
        [1, 2, 3, 4, 5].map(|fingerprint| door.expected_us(fingerprint).is_some()),
        [true, false, true, true, true]
    );
}

#[test]
fn without_marks_only_waiting_counts() {
    let mut door = Door { marks: &mut [] };
    assert_eq!(door.missed(1, &SIGHT), Verdict::FirstSight);
    assert_eq!(door.missed(1, &Sight { waited_for: true, ..SIGHT }), Verdict::Store);
    door.invalidated(1, 0, 0);
    assert_eq!(door.expected_us(1), None);
}
