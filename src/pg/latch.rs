//! Waiting for a moment, as a backend may.

#![allow(ffi_unwind_calls, reason = "plain frames: a longjmp may cross them")]

use pgrx::pg_sys;

// SAFETY: Postgres's own symbols; an error (a cancel) passes, so the caller owns nothing that drops.
unsafe extern "C-unwind" {
    fn WaitLatch(
        latch: *mut pg_sys::Latch,
        events: core::ffi::c_int,
        timeout_ms: core::ffi::c_long,
        info: u32,
    ) -> core::ffi::c_int;
    fn ResetLatch(latch: *mut pg_sys::Latch);
    fn ProcessInterrupts();
}

/// Waits so many milliseconds at most; cancels and timeouts get through.
pub fn wait_ms(timeout_ms: i64) {
    let events = (pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH) as i32;
    // SAFETY: the latch of this process.
    unsafe {
        WaitLatch(pg_sys::MyLatch, events, timeout_ms, pg_sys::PG_WAIT_EXTENSION);
        ResetLatch(pg_sys::MyLatch);
        if pg_sys::InterruptPending != 0 {
            ProcessInterrupts();
        }
    }
}

/// Lets a cancel or a timeout through. A plain frame.
#[inline(always)]
pub fn heed_interrupts() {
    // SAFETY: as above; a flag of the backend's says whether there is anything.
    unsafe {
        if core::ptr::read_volatile(&raw const pg_sys::InterruptPending) != 0 {
            ProcessInterrupts();
        }
    }
}

/// Does the present transaction hold a lock that others may wait for, besides those that reading takes? Asks only whether
/// any lock is in the shared table, where weak locks on relations are not unless somebody contends for them.
pub fn holds_strong_lock() -> bool {
    // SAFETY: the lists of this process, which others change only while they take over its weak locks.
    unsafe { super::compat::has_shared_locks(pg_sys::MyProc) }
}
