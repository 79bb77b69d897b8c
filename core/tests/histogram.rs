//! The stated error bound of percentiles, and that histograms add up.
use proptest::prelude::*;
use steward_core::capture::histogram::{
    BUCKETS, add, bounds_us, bucket_of_us, from_sparse, percentile_us, subtract, to_sparse,
};

/// The first value that no longer has a bucket of its own width.
const RANGE_END_US: f64 = 4_294_967_296.0;

/// Elapsed times of every magnitude, with a fraction, since clocks measure finer than the unit.
fn elapsed_us() -> impl Strategy<Value = f64> {
    let log_uniform = (0.0f64..32.0).prop_map(f64::exp2);
    prop_oneof![
        3 => 0.0f64..16.0,
        6 => log_uniform,
        1 => 4_294_967_000.0f64..RANGE_END_US,
        1 => Just(8.0), 1 => Just(7.999_999), 1 => Just(0.0),
    ]
}

/// A few values many times, one rare outlier: the shape of latencies.
fn samples() -> impl Strategy<Value = Vec<f64>> {
    let spread = prop::collection::vec(elapsed_us(), 1..300);
    let skewed = (elapsed_us(), 1usize..400, elapsed_us(), 1usize..3)
        .prop_map(|(common, many, rare, few)| [vec![common; many], vec![rare; few]].concat());
    prop_oneof![spread, skewed]
}

fn count(samples: &[f64]) -> Vec<u64> {
    let mut counts = vec![0u64; BUCKETS];
    for &sample in samples {
        counts[bucket_of_us(sample as u64)] += 1;
    }
    counts
}

/// Nearest rank in whole numbers: no rounding of its own.
fn exact_percentile(samples: &[f64], permille: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (permille * sorted.len()).div_ceil(1_000).max(1);
    sorted[rank - 1]
}

fn bound_us(value: f64) -> f64 {
    (value * 0.0625).max(0.5)
}

fn extremes(samples: &[f64]) -> (f64, f64) {
    let min = samples.iter().copied().fold(f64::INFINITY, f64::min);
    (min, samples.iter().copied().fold(0.0, f64::max))
}

#[test]
fn no_bucket_is_wider_than_the_bound_allows() {
    for bucket in 0..BUCKETS {
        let (lower, upper) = bounds_us(bucket);
        let half_width = (upper - lower) as f64 / 2.0;
        assert!(half_width <= bound_us(lower as f64), "bucket {bucket}");
    }
}

#[test]
fn counts_beyond_any_that_can_be_reached_are_summed_without_loss() {
    let mut counts = vec![0u64; BUCKETS];
    counts[bucket_of_us(1_000)] = 1_000_000_000_000_000_000;
    counts[bucket_of_us(5_000_000)] = u64::MAX;
    for (p, exact) in [(1.0, 5_000_000.0), (0.5, 5_000_000.0), (0.01, 1_000.0)] {
        let estimate = percentile_us(&counts, p, f64::NAN, f64::NAN).unwrap();
        assert!((estimate - exact).abs() <= bound_us(exact), "{estimate} for {exact}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn percentiles_are_within_the_bound(samples in samples(), permille in 0usize..=1_000, known in any::<bool>()) {
        let (min, max) = if known { extremes(&samples) } else { (f64::NAN, f64::NAN) };
        let estimate = percentile_us(&count(&samples), permille as f64 / 1_000.0, min, max).unwrap();
        let exact = exact_percentile(&samples, permille);
        prop_assert!((estimate - exact).abs() <= bound_us(exact) + 1e-9, "{estimate} for {exact}");
        // A maximum of 0 counts as unknown.
        prop_assert!(!known || max == 0.0 || (min..=max).contains(&estimate));
    }

    #[test]
    fn percentiles_do_not_fall(samples in samples(), low in 0.0f64..=1.0, high in 0.0f64..=1.0) {
        let counts = count(&samples);
        let (low, high) = (low.min(high), low.max(high));
        let at = |p| percentile_us(&counts, p, f64::NAN, f64::NAN).unwrap();
        prop_assert!(at(low) <= at(high));
    }

    #[test]
    fn values_past_the_range_stay_between_the_known_extremes(
        huge in prop::collection::vec((1u64 << 32)..u64::MAX, 1..50), p in 0.0f64..=1.0
    ) {
        let samples: Vec<f64> = huge.iter().map(|&value| value as f64).collect();
        let (min, max) = extremes(&samples);
        let estimate = percentile_us(&count(&samples), p, min, max).unwrap();
        prop_assert!((min..=max).contains(&estimate));
    }

    #[test]
    fn the_sum_is_the_histogram_of_the_union(first in samples(), second in samples()) {
        let mut sum = count(&first);
        add(&mut sum, &count(&second));
        let union = [first.clone(), second].concat();
        prop_assert_eq!(&sum, &count(&union));
        let rest = subtract(&sum, &count(&first));
        add(&mut sum, &rest);
        prop_assert_eq!(subtract(&subtract(&sum, &rest), &rest), count(&first));
    }

    #[test]
    fn sparse_form_keeps_everything(samples in samples()) {
        let counts = count(&samples);
        let sparse = to_sparse(&counts);
        prop_assert!(sparse.iter().all(|&(_, count)| count > 0));
        prop_assert_eq!(from_sparse(&sparse), counts);
    }

    #[test]
    fn odd_sparse_input_is_tolerated(sparse in prop::collection::vec((any::<u16>(), any::<u64>()), 0..20)) {
        prop_assert_eq!(from_sparse(&sparse).len(), BUCKETS);
    }

    #[test]
    fn no_counts_and_no_bounds_make_it_fail(
        counts in prop::collection::vec(any::<u64>(), 0..300), p in any::<f64>(), min in any::<f64>(), max in any::<f64>()
    ) {
        let estimate = percentile_us(&counts, p, min, max);
        let countable = counts.iter().any(|&count| count > 0) && (0.0..=1.0).contains(&p);
        prop_assert_eq!(estimate.is_some(), countable);
    }
}
