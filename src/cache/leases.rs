//! One session computes a result, others that want the same wait for it a moment.
//!
//! A lease is a note of who computes what. It blocks nobody: who finds it held waits for a limited time and then computes
//! for himself, and a holder that is gone, or takes longer than any wait, is passed over.

use super::store::LOCKS;
use crate::pg::shmem::Area;
use crate::pg::{session, worker};
use core::ffi::CStr;

/// Fingerprint, pid of the holder, when it began (ms), how many wait.
type Lease = [u64; 4];
const LEASES: usize = 1024;
const SET: usize = 4;
/// A lease that is older is passed over: nobody waits that long.
const STALE_MS: u64 = 60_000;

static TABLE: Area<Lease> = Area::new();

pub fn bytes() -> usize {
    Area::<Lease>::estimate_size([LEASES, 0, 0, 0, 0])
}

pub fn create(tranche: &'static CStr) {
    TABLE.create(c"pg_steward cache leases 1", tranche, LOCKS.leases, [LEASES, 0, 0, 0, 0]);
}

/// What became of an attempt to take a lease.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It is ours.
    Taken,
    /// Somebody else computes it.
    Held,
    /// There is no place for a note; everybody computes for himself.
    Full,
}

fn set_of(leases: &mut [Lease], fingerprint: u64) -> &mut [Lease] {
    let from = (fingerprint as usize % (LEASES / SET)) * SET;
    &mut leases[from..from + SET]
}

fn is_over(lease: &Lease, now_ms: u64) -> bool {
    lease[0] == 0 || now_ms.saturating_sub(lease[2]) > STALE_MS || !worker::is_alive(lease[1] as i32)
}

/// Takes the lease of a result, or notes that one more waits for it.
pub fn claim(fingerprint: u64, now_ms: u64) -> Claim {
    let ours: Lease = [fingerprint, session::pid() as u64, now_ms, 0];
    let claimed = TABLE.exclusive(|arrays| {
        let set = set_of(arrays.a, fingerprint);
        if let Some(held) = set.iter_mut().find(|lease| lease[0] == fingerprint) {
            if is_over(held, now_ms) || held[1] == ours[1] {
                *held = ours;
                return Claim::Taken;
            }
            held[3] += 1;
            return Claim::Held;
        }
        match set.iter_mut().find(|lease| is_over(lease, now_ms)) {
            Some(free) => {
                *free = ours;
                Claim::Taken
            }
            None => Claim::Full,
        }
    });
    claimed.unwrap_or(Claim::Full)
}

/// Is it still being computed?
pub fn is_held(fingerprint: u64, now_ms: u64) -> bool {
    let from = (fingerprint as usize % (LEASES / SET)) * SET;
    let held = TABLE
        .shared(|view| view.a[from..from + SET].iter().any(|lease| lease[0] == fingerprint && !is_over(lease, now_ms)));
    held.unwrap_or(false)
}

/// How many wait for a result that this session computes.
pub fn waiters(fingerprint: u64) -> u64 {
    let pid = session::pid() as u64;
    let from = (fingerprint as usize % (LEASES / SET)) * SET;
    TABLE
        .shared(|view| {
            let ours = view.a[from..from + SET].iter().find(|lease| lease[0] == fingerprint && lease[1] == pid);
            ours.map_or(0, |lease| lease[3])
        })
        .unwrap_or(0)
}

/// Gives a lease back, if it is this session's.
pub fn release(fingerprint: u64) {
    let pid = session::pid() as u64;
    TABLE.exclusive(|arrays| {
        let set = set_of(arrays.a, fingerprint);
        if let Some(ours) = set.iter_mut().find(|lease| lease[0] == fingerprint && lease[1] == pid) {
            *ours = [0; 4];
        }
    });
}
