//! Ends of transactions and subtransactions.

use super::backend::BackendStatic;
use super::hot;
use core::cell::Cell;
use core::ffi::c_void;
use pgrx::pg_sys;

/// Who is told when a transaction or a subtransaction ended. Called where errors are not allowed: no
/// method may raise or panic.
pub trait XactObserver: 'static {
    fn committed();
    fn aborted();
    fn subtransaction_starts(id: u32);
    /// The subtransaction is gone, and what began in it.
    fn subtransaction_aborted(id: u32);
    /// The session is over; the last moment at which shared memory may be written.
    fn session_ends();
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
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PREPARE};
    if event == XACT_EVENT_COMMIT || event == XACT_EVENT_PREPARE {
        hot::transaction_ends(false);
        O::committed();
    } else if event == XACT_EVENT_ABORT {
        aborted::<O>();
    }
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
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => hot::subtransaction_ends(false),
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
