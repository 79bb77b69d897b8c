//! Everything that differs between the versions of Postgres.

mod rights;
mod values;

pub use rights::Rights;
pub(super) use rights::members;
pub use values::{attribute, literal, minimal_tuple, string_value};

use pgrx::pg_sys;
use steward_core::capture::entry::{JIT_WORDS, Resources};

/// The query id as an unsigned number: uint64 up to 17, int64 from 18 on.
#[cfg(not(feature = "pg18"))]
#[inline(always)]
pub fn query_id(raw: u64) -> u64 {
    raw
}

/// The query id as an unsigned number: uint64 up to 17, int64 from 18 on.
#[cfg(feature = "pg18")]
#[inline(always)]
pub fn query_id(raw: i64) -> u64 {
    raw as u64
}

// SAFETY: Postgres's own symbol with the signature of the version's header; see raw.rs.
unsafe extern "C-unwind" {
    #[cfg(not(feature = "pg18"))]
    pub fn standard_ExecutorRun(
        query_desc: *mut pg_sys::QueryDesc,
        direction: pg_sys::ScanDirection::Type,
        count: u64,
        execute_once: bool,
    );
    #[cfg(feature = "pg18")]
    pub fn standard_ExecutorRun(query_desc: *mut pg_sys::QueryDesc, direction: pg_sys::ScanDirection::Type, count: u64);
}

/// The plan id that another module has given a plan; 0 for none. From 18 on there is a place for it.
///
/// # Safety
/// `planned` must be valid.
pub unsafe fn given_plan_id(planned: *const pg_sys::PlannedStmt) -> i64 {
    #[cfg(feature = "pg18")]
    // SAFETY: by the contract.
    unsafe {
        (*planned).planId
    }
    #[cfg(not(feature = "pg18"))]
    {
        let _ = planned;
        0
    }
}

/// What ExecutorRun is called with besides the QueryDesc: direction, rows wanted (0: all), run once.
#[cfg(not(feature = "pg18"))]
pub type RunArguments = (pg_sys::ScanDirection::Type, u64, bool);
/// What ExecutorRun is called with besides the QueryDesc: direction, rows wanted (0: all).
#[cfg(feature = "pg18")]
pub type RunArguments = (pg_sys::ScanDirection::Type, u64);

/// Writes the ExecutorRun hook in the shape of the version: 18 dropped `execute_once`.
macro_rules! executor_run_hook {
    ($(#[$doc:meta])* $name:ident($query_desc:ident, $arguments:ident) $body:block) => {
        $(#[$doc])*
        #[cfg(not(feature = "pg18"))]
        unsafe extern "C-unwind" fn $name<O: Observer>(
            $query_desc: *mut pg_sys::QueryDesc,
            direction: pg_sys::ScanDirection::Type,
            count: u64,
            execute_once: bool,
        ) {
            let $arguments = (direction, count, execute_once);
            $body
        }
        $(#[$doc])*
        #[cfg(feature = "pg18")]
        unsafe extern "C-unwind" fn $name<O: Observer>(
            $query_desc: *mut pg_sys::QueryDesc,
            direction: pg_sys::ScanDirection::Type,
            count: u64,
        ) {
            let $arguments = (direction, count);
            $body
        }
    };
}
pub(super) use executor_run_hook;

/// Calls the previous ExecutorRun hook, or Postgres's own function.
macro_rules! chain_run {
    ($previous:ident, $query_desc:expr, $arguments:expr) => {{
        #[cfg(not(feature = "pg18"))]
        #[allow(ffi_unwind_calls, reason = "plain frame: a longjmp may cross it")]
        match $previous {
            Some(previous) => previous($query_desc, $arguments.0, $arguments.1, $arguments.2),
            None => compat::standard_ExecutorRun($query_desc, $arguments.0, $arguments.1, $arguments.2),
        }
        #[cfg(feature = "pg18")]
        #[allow(ffi_unwind_calls, reason = "plain frame: a longjmp may cross it")]
        match $previous {
            Some(previous) => previous($query_desc, $arguments.0, $arguments.1),
            None => compat::standard_ExecutorRun($query_desc, $arguments.0, $arguments.1),
        }
    }};
}
pub(super) use chain_run;

/// Does `rows_processed` start again with each run of the executor? Up to 15.
pub const ROWS_ARE_PER_RUN: bool = cfg!(feature = "pg15");

/// Rows that a statement has returned or changed: over all of its runs, or (15) in the last one.
///
/// # Safety
/// `estate` must be the live state of an execution.
#[inline(always)]
pub unsafe fn rows_processed(estate: *mut pg_sys::EState) -> u64 {
    // SAFETY: the caller vouches for the state.
    unsafe {
        #[cfg(feature = "pg15")]
        {
            (*estate).es_processed
        }
        #[cfg(not(feature = "pg15"))]
        {
            (*estate).es_total_processed
        }
    }
}

/// A duration that Postgres measured, in nanoseconds: a timespec up to 15, a number of ns from 16 on.
#[cfg(feature = "pg15")]
#[inline(always)]
pub fn instr_ns(time: pg_sys::instr_time) -> u64 {
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

/// A duration that Postgres measured, in nanoseconds: a timespec up to 15, a number of ns from 16 on.
#[cfg(not(feature = "pg15"))]
#[inline(always)]
pub fn instr_ns(time: pg_sys::instr_time) -> u64 {
    time.ticks as u64
}

/// The counters of JIT compilation in the order of `JIT_WORDS`.
pub fn jit_words(jit: &pg_sys::JitInstrumentation) -> [u64; JIT_WORDS] {
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    let deform_ns = instr_ns(jit.deform_counter);
    #[cfg(not(any(feature = "pg17", feature = "pg18")))]
    let deform_ns = 0;
    let generation_ns = instr_ns(jit.generation_counter);
    let inlining_ns = instr_ns(jit.inlining_counter);
    let optimization_ns = instr_ns(jit.optimization_counter);
    let emission_ns = instr_ns(jit.emission_counter);
    let times = |ns: u64| u64::from(ns > 0);
    [
        jit.created_functions as u64,
        generation_ns,
        times(inlining_ns),
        inlining_ns,
        times(optimization_ns),
        optimization_ns,
        times(emission_ns),
        emission_ns,
        times(deform_ns),
        deform_ns,
    ]
}

/// Offset of the first I/O time in BufferUsage, in bytes.
#[cfg(any(feature = "pg17", feature = "pg18"))]
pub const FIRST_IO_TIME: usize = core::mem::offset_of!(pg_sys::BufferUsage, shared_blk_read_time);
/// Offset of the first I/O time in BufferUsage, in bytes.
#[cfg(not(any(feature = "pg17", feature = "pg18")))]
pub const FIRST_IO_TIME: usize = core::mem::offset_of!(pg_sys::BufferUsage, blk_read_time);

/// Names for the counters; what a version does not count stays 0.
pub fn resources(buffers: &pg_sys::BufferUsage, wal: &pg_sys::WalUsage) -> Resources {
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    let (shared_read, shared_write, local_read, local_write) = (
        instr_ns(buffers.shared_blk_read_time),
        instr_ns(buffers.shared_blk_write_time),
        instr_ns(buffers.local_blk_read_time),
        instr_ns(buffers.local_blk_write_time),
    );
    #[cfg(not(any(feature = "pg17", feature = "pg18")))]
    let (shared_read, shared_write, local_read, local_write) =
        (instr_ns(buffers.blk_read_time), instr_ns(buffers.blk_write_time), 0, 0);
    #[cfg(feature = "pg18")]
    let wal_buffers_full = wal.wal_buffers_full as u64;
    #[cfg(not(feature = "pg18"))]
    let wal_buffers_full = 0;
    Resources {
        shared_blks_hit: buffers.shared_blks_hit as u64,
        shared_blks_read: buffers.shared_blks_read as u64,
        shared_blks_dirtied: buffers.shared_blks_dirtied as u64,
        shared_blks_written: buffers.shared_blks_written as u64,
        local_blks_hit: buffers.local_blks_hit as u64,
        local_blks_read: buffers.local_blks_read as u64,
        local_blks_dirtied: buffers.local_blks_dirtied as u64,
        local_blks_written: buffers.local_blks_written as u64,
        temp_blks_read: buffers.temp_blks_read as u64,
        temp_blks_written: buffers.temp_blks_written as u64,
        shared_blk_read_ns: shared_read,
        shared_blk_write_ns: shared_write,
        local_blk_read_ns: local_read,
        local_blk_write_ns: local_write,
        temp_blk_read_ns: instr_ns(buffers.temp_blk_read_time),
        temp_blk_write_ns: instr_ns(buffers.temp_blk_write_time),
        wal_records: wal.wal_records as u64,
        wal_fpi: wal.wal_fpi as u64,
        wal_bytes: wal.wal_bytes,
        wal_buffers_full,
    }
}

/// The id Postgres gives a utility statement, for when it is not on the statement any more; 0 when query
/// ids are not computed. 15 hashes the text, 16 and later the parse tree.
///
/// # Safety
/// `statement` must be a utility statement, `source` its NUL-terminated text.
pub unsafe fn utility_query_id(statement: *mut pg_sys::PlannedStmt, source: *const core::ffi::c_char) -> u64 {
    // SAFETY: by the contract; JumbleQuery reads the node and allocates in the current context. Errors it
    // could raise (out of memory) are those of the statement's own analysis.
    unsafe {
        let off = pg_sys::ComputeQueryIdType::COMPUTE_QUERY_ID_OFF as core::ffi::c_int;
        if pg_sys::compute_query_id == off || !pg_sys::query_id_enabled {
            return 0;
        }
        let query = pg_sys::palloc0(size_of::<pg_sys::Query>()).cast::<pg_sys::Query>();
        (*query).type_ = pg_sys::NodeTag::T_Query;
        (*query).commandType = pg_sys::CmdType::CMD_UTILITY;
        (*query).utilityStmt = (*statement).utilityStmt;
        (*query).stmt_location = (*statement).stmt_location;
        (*query).stmt_len = (*statement).stmt_len;
        #[cfg(feature = "pg15")]
        pg_sys::JumbleQuery(query, source);
        #[cfg(not(feature = "pg15"))]
        {
            let _ = source;
            pg_sys::JumbleQuery(query);
        }
        let id = query_id((*query).queryId);
        pg_sys::pfree(query.cast());
        id
    }
}

/// A constant's place relative to the statement's text; `None` for what is no constant (18 lists
/// parameters too) or lies outside.
pub fn constant(location: &pg_sys::LocationLen, base: i64) -> Option<steward_core::capture::normalize::Constant> {
    let offset = usize::try_from(i64::from(location.location) - base).ok()?;
    #[cfg(feature = "pg18")]
    {
        if location.extern_param {
            return None;
        }
        let length = usize::try_from(location.length).ok().filter(|_| location.squashed);
        Some(steward_core::capture::normalize::Constant { offset, length, squashed: location.squashed })
    }
    #[cfg(not(feature = "pg18"))]
    Some(steward_core::capture::normalize::Constant { offset, length: None, squashed: false })
}

/// The status of a backend in the local copy; indexes count from 1.
///
/// # Safety
/// `index` must not be above `pgstat_fetch_stat_numbackends()`.
pub unsafe fn backend_status(index: core::ffi::c_int) -> *mut pg_sys::PgBackendStatus {
    // SAFETY: by the contract.
    unsafe {
        #[cfg(feature = "pg15")]
        let local = pg_sys::pgstat_fetch_stat_local_beentry(index);
        #[cfg(not(feature = "pg15"))]
        let local = pg_sys::pgstat_get_local_beentry_by_index(index);
        match local.is_null() {
            true => core::ptr::null_mut(),
            false => &raw mut (*local).backendStatus,
        }
    }
}

/// Does a node of this kind convert values that it takes out of JSON? Such nodes came with 17.
#[cfg(any(feature = "pg17", feature = "pg18"))]
pub fn converts_json(tag: pg_sys::NodeTag) -> bool {
    tag == pg_sys::NodeTag::T_JsonExpr
}

/// Does a node of this kind convert values that it takes out of JSON? Such nodes came with 17.
#[cfg(not(any(feature = "pg17", feature = "pg18")))]
pub fn converts_json(_tag: pg_sys::NodeTag) -> bool {
    false
}

/// May the current user run the function?
pub fn may_execute(function: u32) -> bool {
    let function = pg_sys::Oid::from(function);
    let execute = pg_sys::ACL_EXECUTE as pg_sys::AclMode;
    // SAFETY: a catalog look-up.
    unsafe {
        #[cfg(not(any(feature = "pg16", feature = "pg17", feature = "pg18")))]
        let result = pg_sys::pg_proc_aclcheck(function, pg_sys::GetUserId(), execute);
        #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
        let result = pg_sys::object_aclcheck(pg_sys::ProcedureRelationId, function, pg_sys::GetUserId(), execute);
        result == pg_sys::AclResult::ACLCHECK_OK
    }
}

/// Relations that inherit from one, itself first.
///
/// # Safety
/// In a transaction. Under a guard.
pub unsafe fn find_all_inheritors(parent: pg_sys::Oid, lock: pg_sys::LOCKMODE) -> *mut pg_sys::List {
    // SAFETY: Postgres's own symbol with the signature of its header, unchanged from 15 to 18.
    unsafe extern "C-unwind" {
        #[link_name = "find_all_inheritors"]
        fn unguarded(parent: pg_sys::Oid, lock: pg_sys::LOCKMODE, parents: *mut *mut pg_sys::List)
        -> *mut pg_sys::List;
    }
    // SAFETY: by the contract; the closure owns nothing.
    unsafe {
        #[allow(ffi_unwind_calls, reason = "below a guard of pgrx's")]
        pg_sys::ffi::pg_guard_ffi_boundary(|| unguarded(parent, lock, core::ptr::null_mut()))
    }
}

/// The relation whose writes are counted here.
///
/// # Safety
/// `status` must be valid.
pub unsafe fn counted_relation(status: *const pg_sys::PgStat_TableStatus) -> u32 {
    // SAFETY: by the contract.
    unsafe {
        #[cfg(not(any(feature = "pg16", feature = "pg17", feature = "pg18")))]
        let oid = (*status).t_id;
        #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
        let oid = (*status).id;
        oid.to_u32()
    }
}

/// Postgres's record of a resolved search path.
#[cfg(not(any(feature = "pg17", feature = "pg18")))]
pub type SearchPath = pg_sys::OverrideSearchPath;
/// Postgres's record of a resolved search path.
#[cfg(any(feature = "pg17", feature = "pg18"))]
pub type SearchPath = pg_sys::SearchPathMatcher;

/// The search path of now, in `context`.
///
/// # Safety
/// In a transaction.
pub unsafe fn search_path(context: pg_sys::MemoryContext) -> *mut SearchPath {
    // SAFETY: by the contract.
    unsafe {
        #[cfg(not(any(feature = "pg17", feature = "pg18")))]
        return pg_sys::GetOverrideSearchPath(context);
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        return pg_sys::GetSearchPathMatcher(context);
    }
}

/// Is the search path still the same? Not guarded: an error passes.
///
/// # Safety
/// `path` must come from `search_path` and be alive.
#[inline(always)]
pub unsafe fn search_path_matches(path: *mut SearchPath) -> bool {
    // SAFETY: Postgres's own symbol with the signature of the version's header.
    unsafe extern "C-unwind" {
        #[cfg(not(any(feature = "pg17", feature = "pg18")))]
        fn OverrideSearchPathMatchesCurrent(path: *mut SearchPath) -> bool;
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        fn SearchPathMatchesCurrentEnvironment(path: *mut SearchPath) -> bool;
    }
    // SAFETY: by the contract.
    #[allow(ffi_unwind_calls, reason = "plain frame: a longjmp may cross it")]
    unsafe {
        #[cfg(not(any(feature = "pg17", feature = "pg18")))]
        return OverrideSearchPathMatchesCurrent(path);
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        return SearchPathMatchesCurrentEnvironment(path);
    }
}

/// Every setting that the backend knows.
#[cfg(not(any(feature = "pg16", feature = "pg17", feature = "pg18")))]
pub fn settings() -> impl Iterator<Item = *mut pg_sys::config_generic> {
    // SAFETY: Postgres's own array, which changes only when a setting is defined.
    unsafe {
        let count = pg_sys::GetNumConfigOptions() as usize;
        core::slice::from_raw_parts(pg_sys::get_guc_variables(), count).iter().copied()
    }
}

/// Every setting that the backend knows, sorted by name; from an array that Postgres makes for each call.
#[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
pub fn settings() -> impl Iterator<Item = *mut pg_sys::config_generic> {
    let mut count = 0;
    // SAFETY: an array made for the caller.
    unsafe {
        let list = pg_sys::get_guc_variables(&mut count);
        let copy = core::slice::from_raw_parts(list, count as usize).to_vec();
        pg_sys::pfree(list.cast());
        copy.into_iter()
    }
}

/// The expression that a column of GROUP BY stands for; such entries came with 18.
///
/// # Safety
/// `entry` must be valid.
pub unsafe fn grouped_expression(entry: *const pg_sys::RangeTblEntry, number: usize) -> Option<*mut pg_sys::Node> {
    #[cfg(feature = "pg18")]
    // SAFETY: by the contract.
    unsafe {
        if (*entry).rtekind == pg_sys::RTEKind::RTE_GROUP {
            return crate::pg::plan::pointers::<pg_sys::Node>((*entry).groupexprs).nth(number);
        }
    }
    let _ = (entry, number);
    None
}

/// Does a process have locks in the shared lock table?
///
/// # Safety
/// `process` must be the caller's own.
pub unsafe fn has_shared_locks(process: *mut pg_sys::PGPROC) -> bool {
    // SAFETY: by the contract; an empty list points to itself, or to nothing before its first use.
    unsafe {
        let lists = &raw mut (*process).myProcLocks;
        let count = pg_sys::NUM_LOCK_PARTITIONS as usize;
        (0..count).any(|at| {
            #[cfg(not(any(feature = "pg16", feature = "pg17", feature = "pg18")))]
            let (head, next) = {
                let list = lists.cast::<pg_sys::SHM_QUEUE>().add(at);
                (list.cast::<core::ffi::c_void>(), (*list).next.cast::<core::ffi::c_void>())
            };
            #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
            let (head, next) = {
                let list = lists.cast::<pg_sys::dlist_head>().add(at);
                (list.cast::<core::ffi::c_void>(), (*list).head.next.cast::<core::ffi::c_void>())
            };
            !next.is_null() && next != head
        })
    }
}

/// Takes over the access method's estimate of costs; up to 15 the planner's node has it without its arguments.
pub fn set_cost_estimate(info: &mut pg_sys::IndexOptInfo, routine: &pg_sys::IndexAmRoutine) {
    #[cfg(feature = "pg15")]
    {
        let estimate =
            routine.amcostestimate.map_or(core::ptr::null(), |estimate| estimate as *const core::ffi::c_void);
        // SAFETY: one function pointer for another, and NULL for None; the planner calls it with the arguments that it
        // has (access/amapi.h).
        info.amcostestimate = unsafe {
            core::mem::transmute::<*const core::ffi::c_void, Option<unsafe extern "C-unwind" fn()>>(estimate)
        };
    }
    #[cfg(not(feature = "pg15"))]
    {
        info.amcostestimate = routine.amcostestimate;
    }
}

/// Does the key of an order descend? 18 says it by a comparison, versions before by a strategy of B-trees.
pub fn descends(key: &pg_sys::PathKey) -> bool {
    #[cfg(not(feature = "pg18"))]
    return key.pk_strategy == pg_sys::BTGreaterStrategyNumber as i32;
    #[cfg(feature = "pg18")]
    return key.pk_cmptype == pg_sys::CompareType::COMPARE_GT;
}
