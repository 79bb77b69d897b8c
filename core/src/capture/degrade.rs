//! The controller that keeps pg_steward's own cost below its limit.
//!
//! What costs most and matters least goes first: taking plans, then reading buffer counters, then sampling fast
//! statements. Counting statements is what remains, and is never given up. One tick is one evaluation of the measured
//! overhead (by the worker, once a second). A tick above the limit moves one step down at once, since the cost is
//! paid by users; the way back takes [`CALM_TICKS`] ticks in a row below *half* the limit, for one step up: what was
//! switched off would come back with its cost, and the distance keeps the level from swinging.

/// Ticks in a row below half the limit before one step up.
pub const CALM_TICKS: u32 = 60;

/// What is still captured.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Everything that the settings ask for.
    #[default]
    Full = 0,
    /// No plans of slow executions.
    NoPlans = 1,
    /// No plans and no buffer counters.
    NoBuffers = 2,
    /// No plans, no buffer counters, no sampled executions.
    NoSampling = 3,
}

impl Level {
    /// The level with this number; one that does not exist is the lowest cost.
    pub const fn from_number(number: u8) -> Level {
        match number {
            0 => Level::Full,
            1 => Level::NoPlans,
            2 => Level::NoBuffers,
            _ => Level::NoSampling,
        }
    }

    /// The name shown to users.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Full => "full",
            Level::NoPlans => "no plans",
            Level::NoBuffers => "no buffers",
            Level::NoSampling => "no sampling",
        }
    }

    const fn cheaper(self) -> Level {
        Level::from_number((self as u8).saturating_add(1))
    }

    const fn fuller(self) -> Level {
        Level::from_number((self as u8).saturating_sub(1))
    }
}

/// The level of the next tick and the calm ticks counted so far, from the overhead measured in this one.
///
/// A limit of 0 means never to degrade. An overhead that is not a number (nothing ran) changes nothing.
pub fn next_level(level: Level, overhead_pct: f64, limit_pct: f64, calm_ticks: u32) -> (Level, u32) {
    if limit_pct.is_nan() || limit_pct <= 0.0 {
        return (Level::Full, 0);
    }
    if overhead_pct.is_nan() {
        return (level, calm_ticks);
    }
    if overhead_pct > limit_pct {
        return (level.cheaper(), 0);
    }
    if level == Level::Full || overhead_pct >= limit_pct / 2.0 {
        return (level, 0);
    }
    if calm_ticks.saturating_add(1) >= CALM_TICKS {
        return (level.fuller(), 0);
    }
    (level, calm_ticks + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(mut state: (Level, u32), overhead_pct: f64, ticks: u32) -> (Level, u32) {
        for _ in 0..ticks {
            state = next_level(state.0, overhead_pct, 3.0, state.1);
        }
        state
    }

    #[test]
    fn one_step_down_for_each_tick_above_the_limit() {
        assert_eq!(run((Level::Full, 0), 3.1, 1).0, Level::NoPlans);
        assert_eq!(run((Level::Full, 0), 3.1, 2).0, Level::NoBuffers);
        assert_eq!(run((Level::Full, 0), 3.1, 9).0, Level::NoSampling);
        assert_eq!(run((Level::Full, 0), 3.0, 9).0, Level::Full);
    }

    #[test]
    fn one_step_up_for_sixty_calm_ticks_in_a_row() {
        let lowest = (Level::NoSampling, 0);
        assert_eq!(run(lowest, 1.0, 59), (Level::NoSampling, 59));
        assert_eq!(run(lowest, 1.0, 60), (Level::NoBuffers, 0));
        assert_eq!(run(lowest, 1.0, 180).0, Level::Full);
        let interrupted = run(run(lowest, 1.0, 59), 2.0, 1);
        assert_eq!(run(interrupted, 1.0, 59).0, Level::NoSampling);
    }

    #[test]
    fn without_a_limit_everything_is_captured() {
        assert_eq!(next_level(Level::NoSampling, 99.0, 0.0, 5), (Level::Full, 0));
    }

    #[test]
    fn an_unknown_overhead_changes_nothing() {
        assert_eq!(next_level(Level::NoPlans, f64::NAN, 3.0, 5), (Level::NoPlans, 5));
    }

    proptest! {
        #[test]
        fn more_overhead_never_captures_more(
            number in 0u8..4, low in 0.0f64..10.0, more in 0.0f64..10.0, limit in 0.1f64..8.0, calm in 0u32..60
        ) {
            let level = Level::from_number(number);
            let (at_low, _) = next_level(level, low, limit, calm);
            let (at_high, _) = next_level(level, low + more, limit, calm);
            prop_assert!(at_high >= at_low);
            prop_assert!((at_low as i8 - number as i8).abs() <= 1);
        }
    }
}
