//! The emit_log hook: errors that nobody caught, seen where Postgres reports them.
//!
//! For the statement that the client sent this costs nothing until something fails: the error reaches
//! `EmitErrorReport` before the transaction aborts, so the plan tree is still there to be read. FATAL
//! errors (termination) pass here too, and only here. Where the server's log level hides errors, the
//! executor is run under a sigsetjmp instead (`errors_are_hidden`).

use super::backend::BackendStatic;
use core::cell::Cell;
use core::ffi::{CStr, c_char, c_int};
use pgrx::pg_sys;

/// An uncaught error that ends the client's statement, or the session.
pub struct Failure<'a> {
    /// SQLSTATE, packed as Postgres packs it.
    pub sqlstate: c_int,
    /// Does it end the session?
    pub fatal: bool,
    pub message: &'a [u8],
    pub cause: CancelCause,
}

/// What made Postgres give up a statement, where the SQLSTATE alone does not tell: 57014 is a cancel or
/// `statement_timeout`, 55P03 is `lock_timeout` or NOWAIT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CancelCause {
    None,
    StatementTimeout,
    LockTimeout,
    User,
}

/// Who is told of uncaught errors. `failed` must not raise.
pub trait ErrorObserver: 'static {
    fn failed(failure: &Failure<'_>);
}

/// Levels of elog.h.
const ERROR: c_int = pgrx::PgLogLevel::ERROR as c_int;
const PANIC: c_int = pgrx::PgLogLevel::PANIC as c_int;

static IN_HOOK: BackendStatic<Cell<bool>> = BackendStatic::new(Cell::new(false));
static mut PREVIOUS: pg_sys::emit_log_hook_type = None;

/// Installs the hook. Call once, from `_PG_init`.
pub fn install<O: ErrorObserver>() {
    // SAFETY: `_PG_init` runs once, before any statement.
    unsafe {
        PREVIOUS = pg_sys::emit_log_hook;
        pg_sys::emit_log_hook = Some(emit_log::<O>);
    }
}

/// Does the server's log level keep errors from reaching the hook?
#[inline(always)]
pub fn errors_are_hidden() -> bool {
    // SAFETY: a plain int of the backend.
    unsafe { pg_sys::log_min_messages > ERROR }
}

/// Packs a SQLSTATE as MAKE_SQLSTATE of elog.h does: six bits a character.
pub const fn pack(code: [u8; 5]) -> c_int {
    let mut packed = 0;
    let mut place = 0;
    while place < 5 {
        packed |= (((code[place] - b'0') & 0x3F) as c_int) << (6 * place);
        place += 1;
    }
    packed
}

/// The five characters of a packed SQLSTATE.
pub fn unpack(packed: c_int) -> String {
    (0..5).map(|place| (((packed >> (6 * place)) & 0x3F) as u8 + b'0') as char).collect()
}

unsafe extern "C-unwind" fn emit_log<O: ErrorObserver>(error: *mut pg_sys::ErrorData) {
    // SAFETY: Postgres passes the error it is about to report; the frame is plain. Without a PGPROC
    // (postmaster, very early, very late) there is no statement and no lock to be had.
    unsafe {
        let ours = (*error).elevel >= ERROR
            && (*error).elevel != PANIC
            && !IN_HOOK.get()
            && !pg_sys::MyProc.is_null()
            && pg_sys::ParallelWorkerNumber < 0;
        if ours {
            IN_HOOK.set(true);
            O::failed(&Failure {
                sqlstate: (*error).sqlerrcode,
                fatal: (*error).elevel > ERROR,
                message: bytes((*error).message),
                cause: cancel_cause((*error).sqlerrcode, (*error).message_id),
            });
            IN_HOOK.set(false);
        }
        #[allow(ffi_unwind_calls, reason = "plain frame: a longjmp may cross it")]
        if let Some(previous) = PREVIOUS {
            previous(error);
        }
    }
}

/// The cause and the message of the error that is pending, from a copy.
///
/// # Safety
/// An error must be pending, as after `catch::catches` said so.
pub(super) unsafe fn pending_cause(sqlstate: c_int) -> CancelCause {
    if sqlstate != pack(*b"57014") && sqlstate != pack(*b"55P03") {
        return CancelCause::None;
    }
    // SAFETY: CopyErrorData wants another context than ErrorContext, which is current after an error; the
    // copy goes with the transaction.
    unsafe {
        let before = pg_sys::MemoryContextSwitchTo(pg_sys::TopTransactionContext);
        let copy = pg_sys::CopyErrorData();
        let cause = cancel_cause(sqlstate, (*copy).message_id);
        pg_sys::FreeErrorData(copy);
        pg_sys::MemoryContextSwitchTo(before);
        cause
    }
}

/// Postgres tells these apart only by the message; its id is the text before translation.
unsafe fn cancel_cause(sqlstate: c_int, message_id: *const c_char) -> CancelCause {
    const CANCELED: c_int = pack(*b"57014");
    const LOCK_NOT_AVAILABLE: c_int = pack(*b"55P03");
    // SAFETY: a literal of Postgres's, or NULL.
    match (sqlstate, unsafe { bytes(message_id) }) {
        (CANCELED, b"canceling statement due to statement timeout") => CancelCause::StatementTimeout,
        (CANCELED, _) => CancelCause::User,
        (LOCK_NOT_AVAILABLE, b"canceling statement due to lock timeout") => CancelCause::LockTimeout,
        _ => CancelCause::None,
    }
}

unsafe fn bytes<'a>(text: *const c_char) -> &'a [u8] {
    match text.is_null() {
        true => &[],
        // SAFETY: the strings of ErrorData are NUL-terminated and live while the error is reported.
        false => unsafe { CStr::from_ptr(text) }.to_bytes(),
    }
}

/// The whole string that the client sent, when there is one.
pub fn client_query<'a>() -> &'a [u8] {
    // SAFETY: points to the message that is being processed, or is NULL.
    unsafe { bytes(pg_sys::debug_query_string) }
}

/// Does this backend serve a client?
pub fn serves_client() -> bool {
    // SAFETY: a plain static.
    unsafe { pg_sys::MyBackendType == pg_sys::BackendType::B_BACKEND }
}
