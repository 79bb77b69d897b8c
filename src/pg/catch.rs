//! Seeing an error as it passes, and letting it pass unchanged.

use super::hot::Observer;
use super::query::Query;
use super::raw;
use cee_scape::{SigJmpBufFields, call_with_sigsetjmp};
use core::ffi::c_int;
use core::ptr;
use pgrx::pg_sys;

/// Runs `call` below a sigsetjmp of our own, as PG_TRY does. `true`: an error arrived here; it is still
/// pending, Postgres's handler stacks are as they were before the call, and `rethrow` must follow.
///
/// # Safety
/// `call` must own nothing that drops: a longjmp ends it without unwinding.
pub(super) unsafe fn catches(call: &dyn Fn()) -> bool {
    // SAFETY: single-threaded backend; the saved values are Postgres's own and are put back on both ways.
    unsafe {
        let handlers = pg_sys::PG_exception_stack;
        let contexts = pg_sys::error_context_stack;
        let jumped = call_with_sigsetjmp(false, |buffer| {
            pg_sys::PG_exception_stack = ptr::from_ref::<SigJmpBufFields>(buffer).cast_mut().cast();
            call();
            0
        });
        pg_sys::PG_exception_stack = handlers;
        pg_sys::error_context_stack = contexts;
        jumped != 0
    }
}

/// SQLSTATE of the error that is pending, packed.
///
/// # Safety
/// An error must be pending.
pub(super) unsafe fn pending_sqlstate() -> c_int {
    // SAFETY: by the contract the error stack is not empty.
    unsafe { raw::geterrcode() }
}

/// Lets the pending error go on as it came.
///
/// # Safety
/// An error must be pending, and nothing of the caller's may need dropping.
pub(super) unsafe fn rethrow() -> ! {
    // SAFETY: by the contract.
    #[allow(ffi_unwind_calls, reason = "letting the error out is the purpose")]
    unsafe {
        raw::pg_re_throw()
    }
}

/// Runs one call of the executor and tells the observer of an error that passes.
///
/// # Safety
/// As for `catches`.
#[inline(never)]
pub(super) unsafe fn watched<O: Observer>(query: Query, call: &dyn Fn()) {
    // SAFETY: `catches` says whether an error is pending; nothing here drops.
    unsafe {
        if catches(call) {
            let sqlstate = pending_sqlstate();
            O::failed(query, sqlstate, super::errors::pending_cause(sqlstate));
            rethrow();
        }
    }
}
