//! Which results are worth storing: the marks of results that were asked for lately.

use super::store::LOCKS;
use crate::pg::shmem::Area;
use crate::pg::{clock, guc};
use crate::settings;
use core::ffi::CStr;
use steward_core::cache::admission::{Door, Mark, Sight, Verdict};

const MARKS: usize = 16_384;
static DOOR: Area<Mark> = Area::new();

pub fn bytes() -> usize {
    Area::<Mark>::estimate_size([MARKS, 0, 0, 0, 0])
}

pub fn create(tranche: &'static CStr) {
    DOOR.create(c"pg_steward cache door 1", tranche, LOCKS.door, [MARKS, 0, 0, 0, 0]);
}

pub fn now_ms() -> u64 {
    clock::monotonic_ns() / 1_000_000
}

/// Notes that a result was computed, and says whether to store it.
pub fn missed(fingerprint: u64, exec_us: u32, waited_for: bool) -> Verdict {
    let window_s = guc::int(&settings::CACHE_ADMISSION_WINDOW_S).max(0) as u64;
    let sight = Sight {
        now_ms: now_ms(),
        window_ms: window_s * 1000,
        exec_us,
        min_exec_us: (guc::float(&settings::CACHE_MIN_EXECUTION_TIME_MS) * 1000.0) as u32,
        waited_for: waited_for || window_s == 0,
    };
    let verdict = DOOR.exclusive(|arrays| Door { marks: arrays.a }.missed(fingerprint, &sight));
    match verdict {
        // Without a window everything is stored that takes long enough.
        Some(Verdict::Demoted) if window_s == 0 && exec_us >= sight.min_exec_us => Verdict::Store,
        Some(verdict) => verdict,
        None => Verdict::FirstSight,
    }
}

/// What computing it is expected to take, ms.
pub fn expected_ms(fingerprint: u64) -> Option<u64> {
    DOOR.exclusive(|arrays| Door { marks: arrays.a }.expected_us(fingerprint)).flatten().map(|us| u64::from(us) / 1000)
}

/// Notes that a commit ended a result after so many hits.
pub fn invalidated(fingerprint: u64, hits: u64) {
    let (hits, now_ms) = (u32::try_from(hits).unwrap_or(u32::MAX), now_ms());
    DOOR.exclusive(|arrays| Door { marks: arrays.a }.invalidated(fingerprint, hits, now_ms));
}
