//! What is known of one statement, summed up. Everything here adds up: entries merge by addition, in any order.

use super::histogram::BUCKETS;
use super::limiter::Bucket;

/// Count, sum, sum of squares and extremes of durations; exact, since all of it is whole nanoseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// How many durations.
    pub count: u64,
    /// Their sum.
    pub total_ns: u64,
    /// The shortest; 0 when there is none.
    pub min_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// Sum of the squares, in ns², low and high word.
    pub squares: [u64; 2],
}

impl Times {
    /// Sum of the squares as one number.
    pub const fn squares_ns2(&self) -> u128 {
        (self.squares[1] as u128) << 64 | self.squares[0] as u128
    }

    /// Sets the sum of the squares.
    pub const fn set_squares_ns2(&mut self, squares: u128) {
        self.squares = [squares as u64, (squares >> 64) as u64];
    }

    /// Adds one duration.
    pub fn push(&mut self, ns: u64) {
        self.add(&Times { count: 1, total_ns: ns, min_ns: ns, max_ns: ns, squares: [0; 2] });
        self.set_squares_ns2(self.squares_ns2().wrapping_add(u128::from(ns) * u128::from(ns)));
    }

    /// Adds the durations of another.
    pub fn add(&mut self, other: &Times) {
        if other.count == 0 {
            return;
        }
        self.min_ns = if self.count == 0 { other.min_ns } else { self.min_ns.min(other.min_ns) };
        self.max_ns = self.max_ns.max(other.max_ns);
        self.count += other.count;
        self.total_ns = self.total_ns.wrapping_add(other.total_ns);
        self.set_squares_ns2(self.squares_ns2().wrapping_add(other.squares_ns2()));
    }

    /// Mean in milliseconds; 0 when there is none, as in pg_stat_statements.
    pub fn mean_ms(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.total_ns as f64 / self.count as f64 / 1e6 }
    }

    /// Population standard deviation in milliseconds: sqrt(n·Σx² − (Σx)²) / n, the numerator in whole numbers as
    /// long as it fits, so that nothing cancels.
    pub fn stddev_ms(&self) -> f64 {
        if self.count < 2 {
            return 0.0;
        }
        let (n, sum) = (u128::from(self.count), u128::from(self.total_ns));
        let exact = n.checked_mul(self.squares_ns2()).zip(sum.checked_mul(sum));
        let spread = match exact {
            Some((left, right)) => left.saturating_sub(right) as f64,
            None => (n as f64 * self.squares_ns2() as f64 - sum as f64 * sum as f64).max(0.0),
        };
        spread.sqrt() / n as f64 / 1e6
    }
}

/// Buffers, I/O times and WAL of executions.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of pg_stat_statements, times in nanoseconds")]
pub struct Resources {
    pub shared_blks_hit: u64,
    pub shared_blks_read: u64,
    pub shared_blks_dirtied: u64,
    pub shared_blks_written: u64,
    pub local_blks_hit: u64,
    pub local_blks_read: u64,
    pub local_blks_dirtied: u64,
    pub local_blks_written: u64,
    pub temp_blks_read: u64,
    pub temp_blks_written: u64,
    /// Up to Postgres 16, reads of local blocks are counted here too.
    pub shared_blk_read_ns: u64,
    /// Up to Postgres 16, writes of local blocks are counted here too.
    pub shared_blk_write_ns: u64,
    pub local_blk_read_ns: u64,
    pub local_blk_write_ns: u64,
    pub temp_blk_read_ns: u64,
    pub temp_blk_write_ns: u64,
    pub wal_records: u64,
    pub wal_fpi: u64,
    pub wal_bytes: u64,
    /// Counted from Postgres 18 on.
    pub wal_buffers_full: u64,
}

/// Number of counters in `Resources`.
pub const RESOURCES: usize = 20;
const _: () = assert!(size_of::<Resources>() == RESOURCES * 8);

impl Resources {
    /// The counters in the order of the fields.
    pub const fn words(&self) -> [u64; RESOURCES] {
        [
            self.shared_blks_hit,
            self.shared_blks_read,
            self.shared_blks_dirtied,
            self.shared_blks_written,
            self.local_blks_hit,
            self.local_blks_read,
            self.local_blks_dirtied,
            self.local_blks_written,
            self.temp_blks_read,
            self.temp_blks_written,
            self.shared_blk_read_ns,
            self.shared_blk_write_ns,
            self.local_blk_read_ns,
            self.local_blk_write_ns,
            self.temp_blk_read_ns,
            self.temp_blk_write_ns,
            self.wal_records,
            self.wal_fpi,
            self.wal_bytes,
            self.wal_buffers_full,
        ]
    }

    /// Adds another.
    pub fn add(&mut self, other: &Resources) {
        let sum = self.words();
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t] =
            core::array::from_fn(|word| sum[word].wrapping_add(other.words()[word]));
        *self = Resources {
            shared_blks_hit: a,
            shared_blks_read: b,
            shared_blks_dirtied: c,
            shared_blks_written: d,
            local_blks_hit: e,
            local_blks_read: f,
            local_blks_dirtied: g,
            local_blks_written: h,
            temp_blks_read: i,
            temp_blks_written: j,
            shared_blk_read_ns: k,
            shared_blk_write_ns: l,
            local_blk_read_ns: m,
            local_blk_write_ns: n,
            temp_blk_read_ns: o,
            temp_blk_write_ns: p,
            wal_records: q,
            wal_fpi: r,
            wal_bytes: s,
            wal_buffers_full: t,
        };
    }
}

/// Executions that did not come to their end, by why.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// An error of any kind other than those below.
    pub errors: u64,
    /// Cancelled by somebody.
    pub cancelled: u64,
    /// `statement_timeout`, `lock_timeout` and, from 17 on, `transaction_timeout`.
    pub timeouts: u64,
    /// Ended with the session.
    pub terminated: u64,
    /// Time spent in all of them.
    pub total_ns: u64,
}

impl Failures {
    /// Adds another.
    pub fn add(&mut self, other: &Failures) {
        self.errors += other.errors;
        self.cancelled += other.cancelled;
        self.timeouts += other.timeouts;
        self.terminated += other.terminated;
        self.total_ns = self.total_ns.wrapping_add(other.total_ns);
    }

    /// How many.
    pub const fn count(&self) -> u64 {
        self.errors + self.cancelled + self.timeouts + self.terminated
    }
}

/// Number of JIT counters: functions, generation ns, then count and ns of inlining, optimization, emission, deform.
pub const JIT_WORDS: usize = 10;

/// Everything that is counted of a statement, except the histogram.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Completed executions.
    pub exec: Times,
    /// Plannings.
    pub plan: Times,
    /// Rows returned or changed.
    pub rows: u64,
    /// Executions that failed.
    pub failures: Failures,
    /// Buffers, I/O and WAL.
    pub resources: Resources,
    /// See `JIT_WORDS`.
    pub jit: [u64; JIT_WORDS],
}

impl Counts {
    /// Adds another.
    pub fn add(&mut self, other: &Counts) {
        self.exec.add(&other.exec);
        self.plan.add(&other.plan);
        self.rows = self.rows.wrapping_add(other.rows);
        self.failures.add(&other.failures);
        self.resources.add(&other.resources);
        for (sum, other) in self.jit.iter_mut().zip(other.jit) {
            *sum = sum.wrapping_add(other);
        }
    }
}

/// Counts of a histogram in 48 bits each: 2.8e14 executions a bucket, in three quarters of the space of 64.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    low: [u32; BUCKETS],
    high: [u16; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { low: [0; BUCKETS], high: [0; BUCKETS] }
    }
}

impl Histogram {
    /// Adds `count` to a bucket; stays at the maximum rather than start again.
    pub fn add(&mut self, bucket: usize, count: u64) {
        let (Some(low), Some(high)) = (self.low.get_mut(bucket), self.high.get_mut(bucket)) else {
            return;
        };
        let before = u64::from(*high) << 32 | u64::from(*low);
        let sum = before.saturating_add(count).min((1 << 48) - 1);
        *low = sum as u32;
        *high = (sum >> 32) as u16;
    }

    /// The counts as plain numbers.
    pub fn counts(&self) -> [u64; BUCKETS] {
        core::array::from_fn(|bucket| u64::from(self.high[bucket]) << 32 | u64::from(self.low[bucket]))
    }
}

/// Where a statement's text is kept in the text blocks of its partition.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextRef {
    /// First block, counted from 1; 0 for none.
    pub head: u32,
    /// Bytes kept.
    pub length: u32,
}

/// Plans remembered per statement.
const PLANS: usize = 4;
const SECOND_US: i64 = 1_000_000;

/// The plans that a statement was seen with. All-zero: none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plans {
    /// The plan seen last, as far as it was recorded.
    current: i64,
    /// When it became that; microseconds since 2000-01-01.
    switched_us: i64,
    /// Plans whose text was recorded, and when.
    recorded: [(i64, i64); PLANS],
}

/// What to do about a plan that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanVerdict {
    /// Nothing: it is the current one, and its text is there.
    Known,
    /// Nothing yet: ask again.
    Later,
    /// Record that it is in use now, with its text when that is due.
    Record {
        /// The text has not been recorded for an hour.
        with_text: bool,
    },
}

impl Plans {
    /// A plan's text is due when it was not recorded yet, and once an hour all the same, in case the record was lost on
    /// the way. A switch to another plan is recorded at most every 10 s, every second when it was `slow`: plans that
    /// depend on parameters alternate.
    fn see(&mut self, plan_id: i64, now_us: i64, slow: bool) -> PlanVerdict {
        let age_us = |then_us: i64| now_us.saturating_sub(then_us);
        let with_text =
            !self.recorded.iter().any(|(id, then_us)| *id == plan_id && age_us(*then_us) < 3_600 * SECOND_US);
        let switches = self.current != plan_id;
        if !switches && !with_text {
            return PlanVerdict::Known;
        }
        let wait_us = if slow { SECOND_US } else { 10 * SECOND_US };
        if switches && self.current != 0 && age_us(self.switched_us) < wait_us {
            return PlanVerdict::Later;
        }
        if switches {
            (self.current, self.switched_us) = (plan_id, now_us);
        }
        if with_text {
            self.remember(plan_id, now_us);
        }
        PlanVerdict::Record { with_text }
    }

    /// Takes the plan's own place, or that of the one recorded longest ago.
    fn remember(&mut self, plan_id: i64, now_us: i64) {
        let own = self.recorded.iter().position(|(id, _)| *id == plan_id);
        let oldest = (0..PLANS).min_by_key(|&place| self.recorded[place].1);
        if let Some(place) = own.or(oldest) {
            self.recorded[place] = (plan_id, now_us);
        }
    }
}

/// The entry of one statement in the shared table. All-zero is an empty one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Entry {
    /// Everything counted.
    pub counts: Counts,
    /// When statistics of this entry began, microseconds since 2000-01-01.
    pub stats_since_us: i64,
    /// When an execution was first and last counted.
    pub first_seen_us: i64,
    /// See `first_seen_us`.
    pub last_seen_us: i64,
    /// The plan last seen; 0 for none.
    pub plan_id: i64,
    /// Plans that were recorded.
    pub plans: Plans,
    /// Limit on slow executions recorded.
    pub limit: Bucket,
    /// The normalised text.
    pub text: TextRef,
    /// Durations of completed executions.
    pub histogram: Histogram,
}

impl Entry {
    /// Adds what one backend counted since its last visit. `histogram` holds (bucket, count).
    pub fn merge(&mut self, counts: &Counts, histogram: impl Iterator<Item = (usize, u64)>, seen_us: i64) {
        self.counts.add(counts);
        histogram.for_each(|(bucket, count)| self.histogram.add(bucket, count));
        if self.first_seen_us == 0 {
            self.first_seen_us = seen_us;
            self.stats_since_us = seen_us;
        }
        self.last_seen_us = self.last_seen_us.max(seen_us);
    }

    /// The statement was seen with this plan: is that to be recorded? A statement that completed less than five times
    /// has to prove itself first, unless this execution was `slow`: one that never comes again is not worth a plan.
    pub fn see_plan(&mut self, plan_id: i64, now_us: i64, slow: bool) -> PlanVerdict {
        match slow || self.counts.exec.count >= 5 {
            true => self.plans.see(plan_id, now_us, slow),
            false => PlanVerdict::Later,
        }
    }

    /// Adds the counts of an entry that had to go, so that totals stay true.
    pub fn fold(&mut self, other: &Entry) {
        let pairs = other.histogram.counts();
        self.merge(&other.counts, pairs.into_iter().enumerate(), other.last_seen_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn times(values: &[u64]) -> Times {
        let mut times = Times::default();
        values.iter().for_each(|ns| times.push(*ns));
        times
    }

    proptest! {
        #[test]
        fn times_add_up(a in prop::collection::vec(0u64..10_000_000_000, 0..40), b in prop::collection::vec(0u64..10_000_000_000, 0..40)) {
            let mut sum = times(&a);
            sum.add(&times(&b));
            prop_assert_eq!(sum, times(&[a, b].concat()));
        }

        #[test]
        fn stddev_is_that_of_the_values(values in prop::collection::vec(1_000_000_000u64..1_000_100_000, 2..50)) {
            let n = values.len() as f64;
            // Shifted, so that the reference does not cancel either.
            let shifted: Vec<f64> = values.iter().map(|ns| (ns - 1_000_000_000) as f64).collect();
            let mean = shifted.iter().sum::<f64>() / n;
            let exact = (shifted.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt() / 1e6;
            prop_assert!((times(&values).stddev_ms() - exact).abs() <= 1e-9 + exact * 1e-9);
        }
    }

    #[test]
    fn histogram_counts_beyond_32_bits_and_stops_at_48() {
        let mut histogram = Histogram::default();
        histogram.add(3, u64::from(u32::MAX));
        histogram.add(3, 2);
        assert_eq!(histogram.counts()[3], u64::from(u32::MAX) + 2);
        histogram.add(3, u64::MAX);
        assert_eq!(histogram.counts()[3], (1 << 48) - 1);
        histogram.add(BUCKETS, 1);
    }

    #[test]
    fn entry_stays_small_enough_for_the_promised_memory() {
        assert!(size_of::<Entry>() <= 2_048, "{}", size_of::<Entry>());
    }

    #[test]
    fn a_plan_is_recorded_when_it_is_new_and_its_text_once_an_hour() {
        use PlanVerdict::{Known, Later, Record};
        const S: i64 = 1_000_000;
        let (text, switch) = (Record { with_text: true }, Record { with_text: false });
        let mut entry = Entry::default();
        assert_eq!(entry.see_plan(7, S, false), Later, "one execution proves nothing");
        assert_eq!(entry.see_plan(7, S, true), text);
        assert_eq!(entry.see_plan(7, 100 * S, true), Known);
        assert_eq!(entry.see_plan(8, 100 * S, true), text);
        assert_eq!(entry.see_plan(7, 100 * S + S / 2, true), Later, "alternating plans are limited");
        assert_eq!(entry.see_plan(7, 102 * S, true), switch, "back again, its text is known");
        entry.counts.exec.count = 5;
        assert_eq!(entry.see_plan(8, 110 * S, false), Later);
        assert_eq!(entry.see_plan(8, 113 * S, false), switch);
        assert_eq!(entry.see_plan(8, 4_000 * S, false), text, "in case the record was lost");
        assert_eq!(entry.see_plan(8, 4_001 * S, false), Known);
    }

    #[test]
    fn folding_keeps_every_count() {
        let mut a = Entry::default();
        let counts = Counts { exec: times(&[5, 7]), rows: 9, ..Counts::default() };
        a.merge(&counts, [(0, 2)].into_iter(), 1_000);
        let mut other = Entry::default();
        other.fold(&a);
        other.fold(&a);
        assert_eq!(other.counts.exec.count, 4);
        assert_eq!(other.counts.rows, 18);
        assert_eq!(other.histogram.counts()[0], 4);
        assert_eq!((other.first_seen_us, other.last_seen_us), (1_000, 1_000));
    }
}
