//! Ends of transactions and subtransactions.

#![allow(ffi_unwind_calls, reason = "plain frames: a longjmp may cross them")]

use super::backend::BackendStatic;
use super::hot;
use core::cell::Cell;
use core::ffi::c_void;
use pgrx::pg_sys;

/// Who is told when a transaction or a subtransaction ended. Called where errors are not allowed: no
/// method may raise or panic.
pub trait XactObserver: 'static {
    /// The transaction is about to commit, or (`prepare`) to be prepared: everything that it does is done. May raise.
    fn before_commit(_prepare: bool) {}
    /// It has committed, and others see it.
    fn committed();
    /// It has been prepared: it goes on without this backend.
    fn prepared() {
        Self::committed();
    }
    fn aborted();
    /// A transaction that asked for it (`watch_release`) has committed, sent its messages and released its locks.
    fn released() {}
    fn subtransaction_starts(id: u32);
    /// The subtransaction has become part of the one around it.
    fn subtransaction_committed(_id: u32) {}
    /// The subtransaction is gone, and what began in it.
    fn subtransaction_aborted(id: u32);
    /// The session is over; the last moment at which shared memory may be written.
    fn session_ends();
}

impl<A: XactObserver, B: XactObserver> XactObserver for (A, B) {
    #[inline(always)]
    fn before_commit(prepare: bool) {
        A::before_commit(prepare);
        B::before_commit(prepare);
    }

    #[inline(always)]
    fn committed() {
        A::committed();
        B::committed();
    }

    fn prepared() {
        A::prepared();
        B::prepared();
    }

    fn aborted() {
        A::aborted();
        B::aborted();
    }

    fn subtransaction_starts(id: u32) {
        A::subtransaction_starts(id);
        B::subtransaction_starts(id);
    }

    fn subtransaction_committed(id: u32) {
        A::subtransaction_committed(id);
        B::subtransaction_committed(id);
    }

    fn subtransaction_aborted(id: u32) {
        A::subtransaction_aborted(id);
        B::subtransaction_aborted(id);
    }

    fn session_ends() {
        A::session_ends();
        B::session_ends();
    }
}

/// Registers the callbacks. They belong to the backend's memory, so `_PG_init` in the postmaster is
/// enough: backends inherit them.
pub fn install<O: XactObserver>() {
    // SAFETY: the callbacks live as long as the library; no argument is needed.
    unsafe {
        pg_sys::RegisterXactCallback(Some(at_xact::<O>), core::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(at_subxact::<O>), core::ptr::null_mut());
    }
}

/// Asks for `session_ends` of this backend; to be called once per backend.
pub fn watch_session<O: XactObserver>() {
    // SAFETY: the callback lives as long as the library.
    unsafe { pg_sys::before_shmem_exit(Some(at_exit::<O>), pg_sys::Datum::from(0)) };
}

unsafe extern "C-unwind" fn at_xact<O: XactObserver>(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    use pg_sys::XactEvent::*;
    match event {
        XACT_EVENT_PRE_COMMIT => O::before_commit(false),
        XACT_EVENT_COMMIT => {
            hot::transaction_ends(false);
            O::committed();
        }
        XACT_EVENT_ABORT => aborted::<O>(),
        XACT_EVENT_PRE_PREPARE => O::before_commit(true),
        XACT_EVENT_PREPARE => prepared::<O>(),
        _ => {}
    }
}

#[inline(never)]
fn prepared<O: XactObserver>() {
    hot::transaction_ends(false);
    O::prepared();
}

#[inline(never)]
fn aborted<O: XactObserver>() {
    hot::transaction_ends(true);
    O::aborted();
}

unsafe extern "C-unwind" fn at_subxact<O: XactObserver>(
    event: pg_sys::SubXactEvent::Type,
    subxact: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _argument: *mut c_void,
) {
    match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_START_SUB => {
            hot::subtransaction_starts();
            O::subtransaction_starts(subxact);
        }
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => {
            hot::subtransaction_ends(false);
            O::subtransaction_committed(subxact);
        }
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => {
            hot::subtransaction_ends(true);
            O::subtransaction_aborted(subxact);
        }
        _ => {}
    }
}

unsafe extern "C-unwind" fn at_exit<O: XactObserver>(_code: i32, _argument: pg_sys::Datum) {
    O::session_ends();
}

// SAFETY: Postgres's own symbol with the signature of its headers, 15 to 18.
unsafe extern "C-unwind" {
    fn RegisterResourceReleaseCallback(callback: pg_sys::ResourceReleaseCallback, argument: *mut c_void);
}

static RELEASES: BackendStatic<Cell<bool>> = BackendStatic::new(Cell::new(false));

/// Has `released` called at the end of this transaction and of those that follow. May raise; the caller owns nothing that
/// drops.
pub fn watch_release<O: XactObserver>() {
    if !RELEASES.get() {
        // SAFETY: the callback lives as long as the library.
        unsafe { RegisterResourceReleaseCallback(Some(at_release::<O>), core::ptr::null_mut()) };
        RELEASES.set(true);
    }
}

unsafe extern "C-unwind" fn at_release<O: XactObserver>(
    phase: pg_sys::ResourceReleasePhase::Type,
    is_commit: bool,
    is_top_level: bool,
    _argument: *mut c_void,
) {
    if is_commit && is_top_level && phase == pg_sys::ResourceReleasePhase::RESOURCE_RELEASE_AFTER_LOCKS {
        O::released();
    }
}

type Work = fn();

/// What is to be done when the present transaction has committed.
static ONCE: BackendStatic<Cell<Option<Work>>> = BackendStatic::new(Cell::new(None));
static LISTENS: BackendStatic<Cell<bool>> = BackendStatic::new(Cell::new(false));

/// Has something done when the present transaction has committed, and forgotten if it aborts. It must not
/// raise or panic.
pub fn once_committed(work: Work) {
    ONCE.set(Some(work));
    if !LISTENS.replace(true) {
        // SAFETY: the callback lives as long as the library.
        unsafe { pg_sys::RegisterXactCallback(Some(do_once), core::ptr::null_mut()) };
    }
}

unsafe extern "C-unwind" fn do_once(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    match event {
        pg_sys::XactEvent::XACT_EVENT_COMMIT => {
            if let Some(work) = ONCE.take() {
                work();
            }
        }
        pg_sys::XactEvent::XACT_EVENT_ABORT | pg_sys::XactEvent::XACT_EVENT_PREPARE => ONCE.set(None),
        _ => {}
    }
}
