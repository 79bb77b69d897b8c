//! Limit on the slow executions recorded per query, so that an incident does not flood the ring.

/// Length of the window in which events are counted.
const WINDOW_S: u64 = 60;

/// What is remembered for one query. Zeroed memory is a valid start.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// When the window began, in seconds of the caller's clock.
    pub window_start_s: u64,
    /// Events let through in this window.
    pub count: u32,
    /// Events refused since the bucket was zeroed; stays at its maximum rather than start again.
    pub suppressed: u32,
}

/// Whether one more event may pass: at most `limit_per_minute` in a fixed window of 60 s (0 = no limit).
///
/// The window starts with the first event after the last window's end, so two windows may touch: up to twice the limit
/// can pass within one sliding minute, which is good enough to keep the ring usable and needs no history. A clock that
/// was set back starts a new window.
pub fn allow(bucket: &mut Bucket, now_s: u64, limit_per_minute: u32) -> bool {
    if limit_per_minute == 0 {
        return true;
    }
    let in_window = now_s.checked_sub(bucket.window_start_s).is_some_and(|age_s| age_s < WINDOW_S);
    if !in_window {
        bucket.window_start_s = now_s;
        bucket.count = 0;
    }
    if bucket.count >= limit_per_minute {
        bucket.suppressed = bucket.suppressed.saturating_add(1);
        return false;
    }
    bucket.count += 1;
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn limit_holds_within_a_window_and_is_new_in_the_next() {
        let mut bucket = Bucket::default();
        let passed = (0..100).filter(|_| allow(&mut bucket, 1_000, 5)).count();
        assert_eq!(passed, 5);
        assert_eq!(bucket.suppressed, 95);
        assert!(!allow(&mut bucket, 1_059, 5));
        assert!(allow(&mut bucket, 1_060, 5));
    }

    #[test]
    fn zero_is_no_limit() {
        let mut bucket = Bucket::default();
        assert!((0..1_000).all(|_| allow(&mut bucket, 7, 0)));
        assert_eq!(bucket.suppressed, 0);
    }

    #[test]
    fn clock_set_back_does_not_silence_a_query() {
        let mut bucket = Bucket::default();
        assert!(allow(&mut bucket, 1_000_000, 1));
        assert!(!allow(&mut bucket, 1_000_001, 1));
        assert!(allow(&mut bucket, 10, 1));
    }

    proptest! {
        #[test]
        fn never_more_than_twice_the_limit_in_any_minute(
            steps in prop::collection::vec(0u64..30, 1..200), limit in 1u32..6
        ) {
            let mut bucket = Bucket::default();
            let mut now_s = 100;
            let mut passed = Vec::new();
            let mut refused = 0;
            for step in steps {
                now_s += step;
                if allow(&mut bucket, now_s, limit) { passed.push(now_s) } else { refused += 1 }
            }
            for &start in &passed {
                let within = passed.iter().filter(|&&at| at >= start && at < start + WINDOW_S).count();
                prop_assert!(within <= 2 * limit as usize);
            }
            prop_assert_eq!(bucket.suppressed, refused);
        }
    }
}
