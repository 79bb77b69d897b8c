//! The snapshot that the present statement reads with, asked for the visibility of single transactions.

#![allow(ffi_unwind_calls, reason = "plain frames: a longjmp may cross them")]

use pgrx::pg_sys;
use steward_core::cache::versions;

// SAFETY: Postgres's own symbols with the signatures of its headers; neither raises while a snapshot is active.
unsafe extern "C-unwind" {
    fn GetActiveSnapshot() -> pg_sys::Snapshot;
    fn ActiveSnapshotSet() -> bool;
    fn ReadNextFullTransactionId() -> pg_sys::FullTransactionId;
    fn IsInParallelMode() -> bool;
    fn RecoveryInProgress() -> bool;
    fn GetLatestSnapshot() -> pg_sys::Snapshot;
}

/// The active snapshot, and a value of the versions' clock from before it was taken (0: none is known).
#[derive(Clone, Copy)]
pub struct Active {
    snapshot: pg_sys::Snapshot,
    clock_before: u64,
}

impl Active {
    /// `None`: there is none, or it is not one of ordinary visibility (it was taken during recovery, say).
    #[inline(always)]
    pub fn get(clock_before: u64) -> Option<Self> {
        // SAFETY: a snapshot that is active stays so for the statement that the caller works for.
        unsafe {
            if !ActiveSnapshotSet() {
                return None;
            }
            let snapshot = GetActiveSnapshot();
            let ordinary =
                (*snapshot).snapshot_type == pg_sys::SnapshotType::SNAPSHOT_MVCC && !(*snapshot).takenDuringRecovery;
            ordinary.then_some(Self { snapshot, clock_before })
        }
    }
}

/// Does the active snapshot see just what one taken now sees? A plain frame.
pub fn is_latest() -> bool {
    // SAFETY: both snapshots are valid until the next is taken; `xip` holds `xcnt` ids.
    unsafe {
        // No snapshot may be taken in parallel mode.
        if !ActiveSnapshotSet() || is_parallel() {
            return false;
        }
        let (active, latest) = (&*GetActiveSnapshot(), &*GetLatestSnapshot());
        let running = |snapshot: &pg_sys::SnapshotData| match snapshot.xip.is_null() || snapshot.xcnt == 0 {
            true => &[][..],
            false => core::slice::from_raw_parts(snapshot.xip, snapshot.xcnt as usize),
        };
        active.xmin == latest.xmin && active.xmax == latest.xmax && running(active) == running(latest)
    }
}

/// A 32-bit transaction id of a snapshot with its epoch: snapshots reach back less than 2^31.
fn with_epoch(id: u32, next: u64) -> u64 {
    let full = (next & !0xffff_ffff) | u64::from(id);
    if full > next { full.wrapping_sub(1 << 32) } else { full }
}

impl versions::Snapshot for Active {
    #[inline(always)]
    fn clock_before(&self) -> u64 {
        self.clock_before
    }

    /// Only for top-level transactions, whose ids a snapshot holds whether or not those of subtransactions fit.
    #[inline(never)]
    fn sees(&self, xid: u64) -> bool {
        if xid == u64::MAX {
            return false;
        }
        // SAFETY: the snapshot is active; `xip` holds `xcnt` ids.
        unsafe {
            let snapshot = &*self.snapshot;
            let next = ReadNextFullTransactionId().value;
            if xid < with_epoch(snapshot.xmin.into_inner(), next) {
                return true;
            }
            let running = match snapshot.xip.is_null() {
                true => &[][..],
                false => core::slice::from_raw_parts(snapshot.xip, snapshot.xcnt as usize),
            };
            xid < with_epoch(snapshot.xmax.into_inner(), next)
                && !running.iter().any(|id| id.into_inner() == xid as u32)
        }
    }
}

/// The full id of a transaction that is known by its 32 bits and is not older than half the number space.
pub fn full_id(id: u32) -> u64 {
    // SAFETY: reads shared memory.
    with_epoch(id, unsafe { ReadNextFullTransactionId() }.value)
}

/// SERIALIZABLE reads leave marks for its conflict detection, which reading from elsewhere would not.
#[inline(always)]
pub fn is_serializable() -> bool {
    // SAFETY: a plain static.
    unsafe { pg_sys::XactIsoLevel == pg_sys::XACT_SERIALIZABLE as i32 }
}

/// A walsender may have been given an old snapshot by CREATE_REPLICATION_SLOT.
pub fn is_walsender() -> bool {
    // SAFETY: a plain static.
    unsafe { pg_sys::am_walsender }
}

/// Is the backend in parallel mode, as leader or worker?
#[inline(always)]
pub fn is_parallel() -> bool {
    // SAFETY: reads the backend's transaction state.
    unsafe { pg_sys::ParallelWorkerNumber >= 0 || IsInParallelMode() }
}

/// Is the server in recovery? Postgres itself remembers once it is not.
#[inline(always)]
pub fn in_recovery() -> bool {
    // SAFETY: reads a flag of the backend's, or of shared memory.
    unsafe { RecoveryInProgress() }
}
