//! Latency histogram: base-2 log-linear, unit 1 us, eight linear sub-buckets to an octave.
//!
//! The layout is that of HdrHistogram (Tene) with three significant bits: values 0 to 7 have a bucket each, then every
//! octave `[2^k, 2^(k+1))` is cut into eight equal parts, up to `2^32` us (71.6 minutes).
//!
//! **Error bound.** A bucket of octave `k` is `2^k / 8` wide and its values are at least `2^k`, so its midpoint is
//! nowhere further than `2^k / 16` from any of them: an answer of [`percentile_us`] is within 6.25 % of the value that
//! has this rank, or within half a microsecond for values below 8 us. Values of `2^32` us and more share the last
//! bucket and only keep the bounds given by the known minimum and maximum.
//!
//! Counts add up: the sum of two histograms is the histogram of the union of their samples.

/// Octaves start here: below, a bucket holds one whole microsecond.
const LINEAR: u64 = 8;
/// log2 of the sub-buckets of an octave.
const SUB_BITS: u32 = 3;
/// log2 of the first value that no longer has a place of its own.
const LIMIT_BITS: u32 = 32;
/// The largest value with a bucket of its own width; larger ones are counted as this one.
const LARGEST_US: u64 = (1 << LIMIT_BITS) - 1;

/// Number of buckets: 8 exact ones, then 8 for each of the 29 octaves from `2^3` to `2^32`.
pub const BUCKETS: usize = 8 + 29 * 8;

/// The bucket that counts an elapsed time. Without a branch but the clamp, for the statement's fast path.
#[inline]
pub const fn bucket_of_us(us: u64) -> usize {
    let value = if us > LARGEST_US { LARGEST_US } else { us };
    // With the bit 8 set, values below 8 fall in the first octave's shift of 0 and stay themselves.
    let shift = (u64::BITS - 1 - SUB_BITS) - (value | LINEAR).leading_zeros();
    ((shift as u64) * LINEAR + (value >> shift)) as usize
}

/// Lower bound (inclusive) and upper bound (exclusive) of a bucket in us. Buckets past the last are the last.
pub const fn bounds_us(bucket: usize) -> (u64, u64) {
    let bucket = if bucket >= BUCKETS { BUCKETS - 1 } else { bucket } as u64;
    if bucket < LINEAR {
        return (bucket, bucket + 1);
    }
    let shift = bucket / LINEAR - 1;
    let step = bucket % LINEAR + LINEAR;
    (step << shift, (step + 1) << shift)
}

/// The value at percentile `p` (0 to 1) by nearest rank: the midpoint of the bucket that holds the sample of rank
/// `ceil(p * n)`, moved into `[min_us, max_us]`.
///
/// A bound that is not finite, or a maximum of 0, counts as unknown. `None` when nothing was counted or `p` is not
/// within 0 and 1.
pub fn percentile_us(counts: &[u64], p: f64, min_us: f64, max_us: f64) -> Option<f64> {
    if !(0.0..=1.0).contains(&p) {
        return None;
    }
    let total: u128 = counts.iter().map(|&count| u128::from(count)).sum();
    let rank = nearest_rank(total, p)?;
    let bucket = bucket_of_rank(counts, rank)?;
    let (lower, upper) = bounds_us(bucket);
    let midpoint = (lower as f64 + upper as f64) / 2.0;
    Some(clamp_known(midpoint, min_us, max_us))
}

/// `ceil(p * total)`, at least 1 and at most `total`; `None` of nothing.
fn nearest_rank(total: u128, p: f64) -> Option<u128> {
    if total == 0 {
        return None;
    }
    // 0.07 * 100 is a little more than 7 in binary; without the correction its rank would be 8.
    let rank = (p * total as f64 * (1.0 - 4.0 * f64::EPSILON)).ceil() as u128;
    Some(rank.clamp(1, total))
}

fn bucket_of_rank(counts: &[u64], rank: u128) -> Option<usize> {
    let mut seen = 0u128;
    counts.iter().position(|&count| {
        seen += u128::from(count);
        seen >= rank
    })
}

fn clamp_known(value: f64, min_us: f64, max_us: f64) -> f64 {
    let value = if max_us.is_finite() && max_us > 0.0 { value.min(max_us) } else { value };
    if min_us.is_finite() { value.max(min_us) } else { value }
}

/// What was counted since `before`: bucket by bucket, never below 0 (a reset in between leaves nothing to subtract).
pub fn subtract(now: &[u64], before: &[u64]) -> Vec<u64> {
    let earlier = before.iter().copied().chain(std::iter::repeat(0));
    now.iter().zip(earlier).map(|(&count, earlier)| count.saturating_sub(earlier)).collect()
}

/// Adds the counts of `other` to `counts`, bucket by bucket.
pub fn add(counts: &mut [u64], other: &[u64]) {
    for (count, &more) in counts.iter_mut().zip(other) {
        *count = count.saturating_add(more);
    }
}

/// A histogram as its non-empty buckets, in order: most statements fill a dozen of the 240.
pub type Sparse = Vec<(u16, u64)>;

/// The non-empty buckets.
pub fn to_sparse(counts: &[u64]) -> Sparse {
    let numbered = (0..=u16::MAX).zip(counts.iter().copied());
    numbered.filter(|&(_, count)| count != 0).collect()
}

/// All buckets again. Buckets that do not exist are ignored, counts of one bucket given twice are added.
pub fn from_sparse(sparse: &[(u16, u64)]) -> Vec<u64> {
    let mut counts = vec![0u64; BUCKETS];
    for &(bucket, count) in sparse {
        if let Some(place) = counts.get_mut(usize::from(bucket)) {
            *place = place.saturating_add(count);
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_meet_without_gap_or_overlap() {
        let mut expected_lower = 0;
        for bucket in 0..BUCKETS {
            let (lower, upper) = bounds_us(bucket);
            assert_eq!(lower, expected_lower);
            assert_eq!(bucket_of_us(lower), bucket);
            assert_eq!(bucket_of_us(upper - 1), bucket);
            expected_lower = upper;
        }
        assert_eq!(expected_lower, 1 << 32);
    }

    #[test]
    fn values_past_the_range_share_the_last_bucket() {
        assert_eq!(bucket_of_us(1 << 32), BUCKETS - 1);
        assert_eq!(bucket_of_us(u64::MAX), BUCKETS - 1);
        assert_eq!(bounds_us(usize::MAX), bounds_us(BUCKETS - 1));
    }

    #[test]
    fn one_huge_value_is_reported_exactly_when_its_bounds_are_known() {
        let mut counts = [0u64; BUCKETS];
        counts[bucket_of_us(1 << 40)] += 1;
        let huge = (1u64 << 40) as f64;
        assert_eq!(percentile_us(&counts, 0.5, huge, huge), Some(huge));
    }

    #[test]
    fn nothing_counted_has_no_percentile() {
        assert_eq!(percentile_us(&[0; BUCKETS], 0.5, 0.0, 0.0), None);
        assert_eq!(percentile_us(&[], 0.5, 0.0, 0.0), None);
    }

    #[test]
    fn percentile_outside_its_range_is_refused() {
        for p in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(percentile_us(&[1, 2], p, f64::NAN, f64::NAN), None);
        }
    }

    #[test]
    fn rank_does_not_suffer_from_binary_fractions() {
        // One sample in each of the buckets 0..100: the 7th percentile is the 7th sample.
        let counts = [1u64; 100];
        assert_eq!(percentile_us(&counts, 0.07, f64::NAN, f64::NAN), Some(6.5));
    }

    #[test]
    fn subtract_survives_a_reset_and_a_shorter_past() {
        assert_eq!(subtract(&[5, 1, 7], &[2, 4]), vec![3, 0, 7]);
    }
}
