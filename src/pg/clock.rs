//! Clocks: one monotonic for durations, Postgres's own for points in time.

use super::raw;
use pgrx::pg_sys;

/// Nanoseconds of the monotonic clock; the only clock that durations are taken from.
#[inline(always)]
pub fn monotonic_ns() -> u64 {
    let mut now = raw::Timespec::default();
    // SAFETY: `now` is a valid timespec; CLOCK_MONOTONIC exists on every system Postgres runs on.
    unsafe { raw::clock_gettime(raw::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The present as a TimestampTz: microseconds since 2000-01-01 UTC.
pub fn now_us() -> i64 {
    // SAFETY: reads the clock, nothing else.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// When the client's current statement arrived, as a TimestampTz.
pub fn statement_start_us() -> i64 {
    // SAFETY: reads a static of the backend.
    unsafe { pg_sys::GetCurrentStatementStartTimestamp() }
}

/// Seconds from a TimestampTz, for windows and limits that need no more.
pub fn seconds(timestamp_us: i64) -> u64 {
    (timestamp_us / 1_000_000).max(0) as u64
}
