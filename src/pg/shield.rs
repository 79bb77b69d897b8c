//! Running our own work beside a user's statement so that its failure stays ours.

use core::any::Any;
use core::sync::atomic::{AtomicU64, Ordering};
use pgrx::pg_sys;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Failures of our own work that were swallowed in this backend since the last `take_failures`.
static FAILURES: AtomicU64 = AtomicU64::new(0);

pub fn take_failures() -> u64 {
    FAILURES.swap(0, Ordering::Relaxed)
}

/// Keeps Rust's records of the stack out of the errors that users see: where the environment of the server has
/// RUST_BACKTRACE, pgrx would send one as the DETAIL of each error that passes a guard. RUST_LIB_BACKTRACE still asks for
/// it. Call from `_PG_init`.
pub fn hide_backtraces() {
    const NAME: &str = "RUST_LIB_BACKTRACE";
    if std::env::var_os(NAME).is_some() {
        return;
    }
    // SAFETY: the process has one thread. The library reads the variable at the first capture and never again, so it need
    // not stay for programs that the server runs.
    unsafe {
        std::env::set_var(NAME, "0");
        drop(std::backtrace::Backtrace::capture());
        std::env::remove_var(NAME);
    }
}

/// Runs work that calls nothing of Postgres's which can raise. A panic is swallowed and counted.
#[inline(never)]
pub fn quietly<R>(work: impl FnOnce() -> R) -> Option<R> {
    let result = catch_unwind(AssertUnwindSafe(work)).ok();
    if result.is_none() {
        FAILURES.fetch_add(1, Ordering::Relaxed);
    }
    result
}

/// Runs work that may raise a Postgres error, inside a subtransaction, so that locks, pins and catalog
/// references of a failed attempt are released and the statement beside it goes on.
///
/// A cancel or a timeout that arrives meanwhile is held back and reaches the statement afterwards.
/// `None`: it failed, or no transaction is there to do it in.
#[inline(never)]
pub fn in_subtransaction<R>(work: impl FnOnce() -> R) -> Option<R> {
    let result = try_in_subtransaction(true, work)?;
    if result.is_err() {
        FAILURES.fetch_add(1, Ordering::Relaxed);
    }
    result.ok()
}

/// The same for work that may take long: a cancel, a timeout or a shutdown ends it, and goes on to the statement.
#[inline(never)]
pub fn attempt<R>(work: impl FnOnce() -> R) -> Option<R> {
    match try_in_subtransaction(false, work)? {
        Ok(result) => Some(result),
        Err(error) if ends_statement(&*error) => std::panic::resume_unwind(error),
        Err(_) => None,
    }
}

fn ends_statement(error: &(dyn Any + Send)) -> bool {
    use pg_sys::panic::CaughtError;
    use pgrx::PgSqlErrorCode as Code;
    const CODES: [Code; 5] = [
        Code::ERRCODE_QUERY_CANCELED,
        Code::ERRCODE_ADMIN_SHUTDOWN,
        Code::ERRCODE_CRASH_SHUTDOWN,
        Code::ERRCODE_DATABASE_DROPPED,
        Code::ERRCODE_OUT_OF_MEMORY,
    ];
    match error.downcast_ref::<CaughtError>() {
        Some(CaughtError::PostgresError(report) | CaughtError::ErrorReport(report)) => {
            CODES.contains(&report.sql_error_code())
        }
        _ => false,
    }
}

fn try_in_subtransaction<R>(
    holds_interrupts: bool,
    work: impl FnOnce() -> R,
) -> Option<Result<R, Box<dyn Any + Send>>> {
    // SAFETY: these read the backend's transaction state. No subtransaction may begin in parallel mode.
    if unsafe {
        !pg_sys::IsTransactionState() || pg_sys::IsAbortedTransactionBlockState() || pg_sys::IsInParallelMode()
    } {
        return None;
    }
    // SAFETY: statics of the backend; put back below whichever way the work ends.
    let (context, owner, holdoff, contexts) = unsafe {
        (
            pg_sys::CurrentMemoryContext,
            pg_sys::CurrentResourceOwner,
            pg_sys::InterruptHoldoffCount,
            pg_sys::error_context_stack,
        )
    };
    let begun = core::cell::Cell::new(false);
    let result = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: in a transaction that is not aborted (tested above). The statement's own error contexts
        // are unhooked, since they belong to nothing that happens here.
        unsafe {
            pg_sys::InterruptHoldoffCount += u32::from(holds_interrupts);
            pg_sys::error_context_stack = core::ptr::null_mut();
            pg_sys::BeginInternalSubTransaction(core::ptr::null());
            begun.set(true);
            pg_sys::MemoryContextSwitchTo(context);
            let result = work();
            pg_sys::ReleaseCurrentSubTransaction();
            begun.set(false);
            result
        }
    }));
    // SAFETY: an unwound error left at most the subtransaction begun above; statics as saved.
    unsafe {
        if begun.get() {
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::CurrentMemoryContext = context;
        pg_sys::CurrentResourceOwner = owner;
        pg_sys::InterruptHoldoffCount = holdoff;
        pg_sys::error_context_stack = contexts;
    }
    Some(result)
}
