//! The executor and planner hooks: plain frames with a user's statement running below them.
//!
//! **Why each may be crossed by a longjmp.** A function of this file owns nothing that drops, holds no
//! lock, and calls only Postgres, the previous hook, and an `Observer` whose methods do not panic. What a
//! jump skips is the restoring of `NESTING` and `RUNNING`; the callbacks at the end of (sub)transactions
//! do that instead (`after_transaction_abort`, `after_subtransaction_abort`).
//!
//! **Nesting.** `NESTING` counts the executor, planner and utility frames above the present statement. A
//! frame saves it and puts the saved value back on return, so whatever a caught error left behind is gone
//! as soon as the frame that caught it returns. For an error that ends a whole (sub)transaction, each
//! subtransaction notes at its start how deep it began, and that is where its abort goes back to. Utility
//! frames (`utility.rs`) catch and re-throw, so they restore exactly and form the floor for the abort of a
//! transaction: a ROLLBACK inside a procedure must not make the procedure's next statement look like the
//! client's.

use super::backend::BackendStatic;
use super::errors::CancelCause;
use super::query::{Query, statement_text};
use super::{compat, raw};
use core::cell::Cell;
use core::ffi::{c_char, c_int};
use pgrx::pg_sys;

/// What a capability wants to see of statements, in the order of their life. Methods are called from
/// plain frames: they must not panic and must own nothing across a call into Postgres.
pub trait Observer: 'static {
    /// What the observer finds its execution by; plain data.
    type Seen: Copy;
    /// Before the executor starts. `None`: this execution is none of the observer's business.
    fn start(query: Query, eflags: c_int) -> Option<Self::Seen>;
    /// The executor has started without an error.
    fn started(seen: Self::Seen);
    /// Before each run (a cursor has many).
    fn run(query: Query) -> Option<Self::Seen>;
    /// After a run that returned. `whole`: it was asked for all rows.
    fn ran(query: Query, seen: Self::Seen, whole: bool);
    /// Before the executor finishes a statement that changes something: its triggers run now.
    fn finish(query: Query) -> Option<Self::Seen>;
    /// After it finished.
    fn finished(query: Query, seen: Self::Seen);
    /// Before the executor shuts down: plan state and results are still there.
    fn end(query: Query);
    /// Does the executor have to be run under a sigsetjmp, so that `failed` sees the error pass?
    fn wants_errors(nesting: u32) -> bool;
    /// An error with this SQLSTATE (packed as Postgres packs it) passes through the statement.
    fn failed(query: Query, sqlstate: c_int, cause: CancelCause);
    /// Before planning. The value is handed to `planned`; 0 means not interested.
    fn plan(planning: Planning) -> u64;
    /// After planning.
    fn planned(planning: Planning, begun: u64);
    /// An error passes through the planning, where `wants_errors` said so.
    fn planning_failed(planning: Planning, begun: u64, sqlstate: c_int, cause: CancelCause);
}

/// What a capability wants to see of every execution, whoever runs it, before it starts. Called from a plain frame: it
/// must not panic.
pub trait StartObserver: 'static {
    fn starts(query: Query);
}

/// A statement that is being planned. Valid during the hook.
#[derive(Clone, Copy)]
pub struct Planning {
    pub query_id: u64,
    location: (c_int, c_int),
    source: *const c_char,
}

impl Planning {
    /// The statement's own text.
    pub fn text<'a>(self) -> &'a [u8] {
        // SAFETY: the source outlives the planning.
        unsafe { statement_text(self.source, self.location.0, self.location.1) }
    }
}

/// Frames above the present statement.
static NESTING: BackendStatic<Cell<u32>> = BackendStatic::new(Cell::new(0));
/// `NESTING` inside the innermost utility frame that is alive.
static FLOOR: BackendStatic<Cell<u32>> = BackendStatic::new(Cell::new(0));
/// Subtransactions that are open, and `NESTING` when each began. Deeper ones are only counted: their abort
/// leaves `NESTING` to the frame that catches the error, and that is never the client's.
static SUBXACTS: BackendStatic<[Cell<u32>; MAX_SUBXACTS]> = BackendStatic::new([const { Cell::new(0) }; MAX_SUBXACTS]);
static SUBXACT_DEPTH: BackendStatic<Cell<usize>> = BackendStatic::new(Cell::new(0));
const MAX_SUBXACTS: usize = 64;

static mut PREV_START: pg_sys::ExecutorStart_hook_type = None;
static mut PREV_RUN: pg_sys::ExecutorRun_hook_type = None;
static mut PREV_FINISH: pg_sys::ExecutorFinish_hook_type = None;
static mut PREV_END: pg_sys::ExecutorEnd_hook_type = None;
static mut PREV_PLANNER: pg_sys::planner_hook_type = None;

/// How many frames are above the present statement; 0 for one that the client sent.
#[inline(always)]
pub fn nesting() -> u32 {
    NESTING.get()
}

/// Is this process a parallel worker? Its work is counted by the leader.
#[inline(always)]
pub fn is_parallel_worker() -> bool {
    // SAFETY: a plain int of the backend.
    unsafe { pg_sys::ParallelWorkerNumber >= 0 }
}

/// Installs the hooks. Call once, from `_PG_init`.
pub fn install<O: Observer, S: StartObserver>() {
    // SAFETY: `_PG_init` runs once, before any statement; the statics are written here only.
    unsafe {
        PREV_START = pg_sys::ExecutorStart_hook;
        pg_sys::ExecutorStart_hook = Some(executor_start::<O, S>);
        PREV_RUN = pg_sys::ExecutorRun_hook;
        pg_sys::ExecutorRun_hook = Some(executor_run::<O>);
        PREV_FINISH = pg_sys::ExecutorFinish_hook;
        pg_sys::ExecutorFinish_hook = Some(executor_finish::<O>);
        PREV_END = pg_sys::ExecutorEnd_hook;
        pg_sys::ExecutorEnd_hook = Some(executor_end::<O>);
        PREV_PLANNER = pg_sys::planner_hook;
        pg_sys::planner_hook = Some(planner::<O>);
    }
}

/// Enters one level for the time of a frame; the value goes back to `leave`.
#[inline(always)]
pub(super) fn enter() -> u32 {
    let outer = NESTING.get();
    NESTING.set(outer + 1);
    outer
}

#[inline(always)]
pub(super) fn leave(outer: u32) {
    NESTING.set(outer);
}

/// Raises the floor for a utility frame; gives what `lower_floor` puts back.
pub(super) fn raise_floor() -> u32 {
    FLOOR.replace(NESTING.get())
}

pub(super) fn lower_floor(before: u32) {
    FLOOR.set(before);
}

/// A transaction is over; an abort took every frame above the floor with it.
#[inline(always)]
pub(super) fn transaction_ends(aborted: bool) {
    SUBXACT_DEPTH.set(0);
    if aborted {
        NESTING.set(FLOOR.get());
    }
}

pub(super) fn subtransaction_starts() {
    let depth = SUBXACT_DEPTH.get();
    if let Some(place) = SUBXACTS.get(depth) {
        place.set(NESTING.get());
    }
    SUBXACT_DEPTH.set(depth + 1);
}

pub(super) fn subtransaction_ends(aborted: bool) {
    let depth = SUBXACT_DEPTH.get().saturating_sub(1);
    SUBXACT_DEPTH.set(depth);
    if aborted && let Some(place) = SUBXACTS.get(depth) {
        NESTING.set(place.get());
    }
}

unsafe extern "C-unwind" fn executor_start<O: Observer, S: StartObserver>(
    query_desc: *mut pg_sys::QueryDesc,
    eflags: c_int,
) {
    // SAFETY: Postgres passes a QueryDesc that lives until ExecutorEnd; the frame is plain (see above).
    unsafe {
        let query = Query::new(query_desc);
        S::starts(query);
        let seen = O::start(query, eflags);
        if O::wants_errors(nesting()) {
            watched_start::<O>(query_desc, eflags);
        } else {
            chain_start(query_desc, eflags);
        }
        if let Some(seen) = seen {
            O::started(seen);
        }
    }
}

#[inline(always)]
unsafe fn chain_start(query_desc: *mut pg_sys::QueryDesc, eflags: c_int) {
    // SAFETY: the caller passes Postgres's own arguments; the frame is plain.
    unsafe {
        #[allow(ffi_unwind_calls, reason = "plain frame: a longjmp may cross it")]
        match PREV_START {
            Some(previous) => previous(query_desc, eflags),
            None => raw::standard_ExecutorStart(query_desc, eflags),
        }
    }
}

/// A start whose error the observer wants to see.
#[inline(never)]
unsafe fn watched_start<O: Observer>(query_desc: *mut pg_sys::QueryDesc, eflags: c_int) {
    // SAFETY: as for executor_start.
    unsafe {
        super::catch::watched::<O>(Query::new(query_desc), &|| chain_start(query_desc, eflags));
    }
}

compat::executor_run_hook! {
    /// One run of the executor, one level deeper.
    executor_run(query_desc, arguments) {
        // SAFETY: as for executor_start.
        unsafe {
            let query = Query::new(query_desc);
            let seen = O::run(query);
            let outer = enter();
            if O::wants_errors(outer) {
                watched_run::<O>(query_desc, arguments);
            } else {
                compat::chain_run!(PREV_RUN, query_desc, arguments);
            }
            leave(outer);
            if let Some(seen) = seen {
                O::ran(query, seen, arguments.1 == 0);
            }
        }
    }
}

/// A run whose error the observer wants to see.
#[inline(never)]
unsafe fn watched_run<O: Observer>(query_desc: *mut pg_sys::QueryDesc, arguments: compat::RunArguments) {
    // SAFETY: as for executor_start.
    unsafe {
        super::catch::watched::<O>(Query::new(query_desc), &|| {
            compat::chain_run!(PREV_RUN, query_desc, arguments);
        });
    }
}

unsafe extern "C-unwind" fn executor_finish<O: Observer>(query_desc: *mut pg_sys::QueryDesc) {
    // SAFETY: as for executor_start.
    unsafe {
        if Query::new(query_desc).is_suspendable() {
            // A SELECT has nothing left to do that could run a statement.
            chain_finish(query_desc);
        } else {
            finish_changes::<O>(query_desc);
        }
    }
}

#[inline(never)]
unsafe fn finish_changes<O: Observer>(query_desc: *mut pg_sys::QueryDesc) {
    // SAFETY: as for executor_start.
    unsafe {
        let query = Query::new(query_desc);
        let seen = O::finish(query);
        let outer = enter();
        if O::wants_errors(outer) {
            super::catch::watched::<O>(query, &|| chain_finish(query_desc));
        } else {
            chain_finish(query_desc);
        }
        leave(outer);
        if let Some(seen) = seen {
            O::finished(query, seen);
        }
    }
}

#[inline(always)]
unsafe fn chain_finish(query_desc: *mut pg_sys::QueryDesc) {
    // SAFETY: the caller passes Postgres's own argument; the frame is plain.
    unsafe {
        #[allow(ffi_unwind_calls, reason = "plain frame: a longjmp may cross it")]
        match PREV_FINISH {
            Some(previous) => previous(query_desc),
            None => raw::standard_ExecutorFinish(query_desc),
        }
    }
}

unsafe extern "C-unwind" fn executor_end<O: Observer>(query_desc: *mut pg_sys::QueryDesc) {
    // SAFETY: as for executor_start; the observer is done with the plan state before it is shut down.
    unsafe {
        O::end(Query::new(query_desc));
        #[allow(ffi_unwind_calls, reason = "plain frame: a longjmp may cross it")]
        match PREV_END {
            Some(previous) => previous(query_desc),
            None => raw::standard_ExecutorEnd(query_desc),
        }
    }
}

unsafe extern "C-unwind" fn planner<O: Observer>(
    parse: *mut pg_sys::Query,
    query_string: *const c_char,
    cursor_options: c_int,
    bound_params: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: Postgres passes an analysed query; its id is read before planning scribbles on the tree.
    unsafe {
        let planning = Planning {
            query_id: compat::query_id((*parse).queryId),
            location: ((*parse).stmt_location, (*parse).stmt_len),
            source: query_string,
        };
        let begun = O::plan(planning);
        let outer = enter();
        let arguments = (parse, query_string, cursor_options, bound_params);
        let planned = match O::wants_errors(outer) {
            true => watched_plan::<O>(arguments, planning, begun),
            false => chain_plan(arguments),
        };
        leave(outer);
        if begun != 0 {
            O::planned(planning, begun);
        }
        planned
    }
}

type PlanArguments = (*mut pg_sys::Query, *const c_char, c_int, pg_sys::ParamListInfo);

#[inline(always)]
unsafe fn chain_plan((parse, source, options, params): PlanArguments) -> *mut pg_sys::PlannedStmt {
    // SAFETY: the caller passes Postgres's own arguments; the frame is plain.
    unsafe {
        #[allow(ffi_unwind_calls, reason = "plain frame: a longjmp may cross it")]
        match PREV_PLANNER {
            Some(previous) => previous(parse, source, options, params),
            None => raw::standard_planner(parse, source, options, params),
        }
    }
}

/// A planning whose error the observer wants to see.
#[inline(never)]
unsafe fn watched_plan<O: Observer>(
    arguments: PlanArguments,
    planning: Planning,
    begun: u64,
) -> *mut pg_sys::PlannedStmt {
    let planned = Cell::new(core::ptr::null_mut());
    // SAFETY: as for planner; nothing here drops.
    unsafe {
        if super::catch::catches(&|| planned.set(chain_plan(arguments))) {
            if begun != 0 {
                let sqlstate = super::catch::pending_sqlstate();
                let cause = super::errors::pending_cause(sqlstate);
                O::planning_failed(planning, begun, sqlstate, cause);
            }
            super::catch::rethrow();
        }
    }
    planned.get()
}
