//! Postgres's own symbols, declared without pgrx's guards.
//!
//! pgrx wraps each function of `pg_sys` in a sigsetjmp of its own and turns an error that passes into a
//! Rust panic. On the way of a user's statement that costs hundreds of instructions and strips the error
//! of CONTEXT, LINE and QUERY, so frames that a longjmp may cross call these instead.

use core::ffi::{c_char, c_int};
use pgrx::pg_sys;

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Timespec {
    pub tv_sec: i64,
    pub tv_nsec: i64,
}

pub const CLOCK_MONOTONIC: c_int = 1;

unsafe extern "C" {
    pub fn clock_gettime(clock: c_int, out: *mut Timespec) -> c_int;
    // These read statics and cannot raise where they are called.
    pub fn geterrcode() -> c_int;
    pub fn GetUserId() -> pg_sys::Oid;
}

// SAFETY of every declaration: the signatures are those of Postgres's headers, versions 15 to 18.
unsafe extern "C-unwind" {
    pub fn standard_ExecutorStart(query_desc: *mut pg_sys::QueryDesc, eflags: c_int);
    pub fn standard_ExecutorFinish(query_desc: *mut pg_sys::QueryDesc);
    pub fn standard_ExecutorEnd(query_desc: *mut pg_sys::QueryDesc);
    pub fn standard_planner(
        parse: *mut pg_sys::Query,
        query_string: *const c_char,
        cursor_options: c_int,
        bound_params: pg_sys::ParamListInfo,
    ) -> *mut pg_sys::PlannedStmt;
    pub fn standard_ProcessUtility(
        pstmt: *mut pg_sys::PlannedStmt,
        query_string: *const c_char,
        read_only_tree: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        params: pg_sys::ParamListInfo,
        query_env: *mut pg_sys::QueryEnvironment,
        dest: *mut pg_sys::DestReceiver,
        qc: *mut pg_sys::QueryCompletion,
    );
    pub fn pg_re_throw() -> !;
    pub fn GetConfigOption(name: *const c_char, missing_ok: bool, restrict_privileged: bool) -> *const c_char;
}
