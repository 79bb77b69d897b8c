//! A statement that a caller gave as text: analysed, planned and run.
//!
//! What runs the caller's query is a plain frame and calls Postgres unguarded, so that the query's errors pass as they
//! are (see `hot.rs`). `draft`, `prepare` and `run` own nothing that drops.

#![allow(ffi_unwind_calls, reason = "plain frames: a longjmp may cross them")]

use super::bind::Types;
use super::compat::Rights;
use super::session_state::SearchPath;
use super::tree::{Facts, Tree};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr;
use pgrx::pg_sys;

// SAFETY: Postgres's own symbols with the signatures of its headers, 15 to 18.
unsafe extern "C-unwind" {
    fn pg_parse_query(text: *const c_char) -> *mut pg_sys::List;
    fn pg_analyze_and_rewrite_varparams(
        tree: *mut pg_sys::RawStmt,
        text: *const c_char,
        types: *mut *mut pg_sys::Oid,
        count: *mut c_int,
        environment: *mut pg_sys::QueryEnvironment,
    ) -> *mut pg_sys::List;
    fn SPI_connect() -> c_int;
    fn SPI_finish() -> c_int;
    fn SPI_prepare_cursor(
        text: *const c_char,
        count: c_int,
        types: *mut pg_sys::Oid,
        options: c_int,
    ) -> pg_sys::SPIPlanPtr;
    fn SPI_keepplan(plan: pg_sys::SPIPlanPtr) -> c_int;
    fn SPI_execute_plan_extended(plan: pg_sys::SPIPlanPtr, options: *const pg_sys::SPIExecuteOptions) -> c_int;
    fn geterrposition() -> c_int;
    fn errposition(position: c_int) -> c_int;
    fn internalerrposition(position: c_int) -> c_int;
    fn internalerrquery(query: *const c_char) -> c_int;
    fn AllocSetContextCreateInternal(
        parent: pg_sys::MemoryContext,
        name: *const c_char,
        min: usize,
        initial: usize,
        max: usize,
    ) -> pg_sys::MemoryContext;
    fn MemoryContextAlloc(context: pg_sys::MemoryContext, size: usize) -> *mut c_void;
}

/// What a text turned out to be.
#[derive(Clone, Copy)]
pub enum Draft {
    Query(Analysed),
    Empty,
    Several(usize),
    /// The command's name.
    NotSelect(*const c_char),
    SelectInto,
}

/// An analysed and rewritten query in a memory context of its own, which goes with the statement that made it unless
/// `prepare` keeps it.
#[derive(Clone, Copy)]
pub struct Analysed {
    context: pg_sys::MemoryContext,
    text: *const c_char,
    query: *mut pg_sys::Query,
    types: *mut pg_sys::Oid,
    parameters: c_int,
}

/// A position in the text is one in the text that the caller gave, not in the statement that called us.
unsafe extern "C-unwind" fn internal_position(text: *mut c_void) {
    // SAFETY: called while an error is being reported; the text outlives the frame that installed this.
    unsafe {
        let position = geterrposition();
        if position > 0 {
            errposition(0);
            internalerrposition(position);
            internalerrquery(text.cast());
        }
    }
}

/// Does work on a text, in whose errors a position is one in that text. A plain frame: the work owns nothing that drops.
pub(super) unsafe fn about<R: Copy>(text: *const c_char, work: impl FnOnce() -> R) -> R {
    // SAFETY: the context is unhooked on return, and by Postgres when an error passes; the text outlives it.
    unsafe {
        let mut callback = pg_sys::ErrorContextCallback {
            previous: pg_sys::error_context_stack,
            callback: Some(internal_position),
            arg: text.cast_mut().cast(),
        };
        pg_sys::error_context_stack = &mut callback;
        let result = work();
        pg_sys::error_context_stack = callback.previous;
        result
    }
}

/// A copy of a text with a NUL behind it.
pub(super) unsafe fn copy_text(context: pg_sys::MemoryContext, text: &[u8]) -> *const c_char {
    // SAFETY: one byte more than the text is allocated.
    unsafe {
        let copy = MemoryContextAlloc(context, text.len() + 1).cast::<u8>();
        ptr::copy_nonoverlapping(text.as_ptr(), copy, text.len());
        *copy.add(text.len()) = 0;
        copy.cast_const().cast()
    }
}

/// The statements of a text as raw trees. A position in an error is one in the text.
pub(super) unsafe fn parse(text: *const c_char) -> *mut pg_sys::List {
    // SAFETY: NUL-terminated text.
    unsafe { pg_parse_query(text) }
}

/// Parses, analyses and rewrites. Raises what Postgres raises.
pub fn draft(text: &[u8]) -> Draft {
    // SAFETY: in a transaction with a snapshot; nothing here drops. The error context is unhooked on return, and by
    // Postgres when an error passes.
    unsafe {
        let context = AllocSetContextCreateInternal(
            pg_sys::CurrentMemoryContext,
            c"pg_steward cached statement".as_ptr(),
            0,
            8 * 1024,
            8 * 1024 * 1024,
        );
        let copy = copy_text(context, text);
        let before = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = context;
        let draft = about(copy, || draft_in(context, copy));
        pg_sys::CurrentMemoryContext = before;
        draft
    }
}

unsafe fn draft_in(context: pg_sys::MemoryContext, text: *const c_char) -> Draft {
    // SAFETY: as for `draft`; each cast follows a tag.
    unsafe {
        let list = pg_parse_query(text);
        let Some(statements) = list.as_ref() else { return Draft::Empty };
        if statements.length > 1 {
            return Draft::Several(statements.length as usize);
        }
        let raw = (*statements.elements).ptr_value.cast::<pg_sys::RawStmt>();
        if (*(*raw).stmt).type_ != pg_sys::NodeTag::T_SelectStmt {
            return Draft::NotSelect(pg_sys::GetCommandTagName(pg_sys::CreateCommandTag((*raw).stmt)));
        }
        if !leftmost((*raw).stmt.cast()).intoClause.is_null() {
            return Draft::SelectInto;
        }
        let (mut types, mut parameters) = (ptr::null_mut(), 0);
        let queries = pg_analyze_and_rewrite_varparams(raw, text, &mut types, &mut parameters, ptr::null_mut());
        let query = (*(*queries).elements).ptr_value.cast();
        Draft::Query(Analysed { context, text, query, types, parameters })
    }
}

/// INTO stands in the first SELECT of a set operation.
unsafe fn leftmost<'a>(select: *mut pg_sys::SelectStmt) -> &'a pg_sys::SelectStmt {
    // SAFETY: a raw parse tree, whose left arms end.
    unsafe {
        let mut select = &*select;
        while let Some(left) = select.larg.as_ref() {
            select = left;
        }
        select
    }
}

impl Analysed {
    /// What it reads and calls, and the rights that it needs. Under a guard.
    pub fn facts(self) -> (Facts, Rights) {
        let mut facts = Facts { rights: Some(Rights::none()), ..Facts::default() };
        // SAFETY: the query lives in the context; what is collected is copied into it.
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo(self.context);
            Tree::new(self.query.cast()).collect(&mut facts);
            pg_sys::MemoryContextSwitchTo(before);
        }
        let rights = facts.rights.take().unwrap_or(Rights::none());
        (facts, rights)
    }

    /// Relations, types and functions on which Postgres would make a plan depend: ids of relations, hashes of types.
    pub fn plan_dependencies(self) -> (Vec<u32>, Vec<u32>) {
        let (mut relations, mut items) = (ptr::null_mut(), ptr::null_mut());
        let mut row_security = false;
        // SAFETY: the query is analysed; the function reads it only.
        unsafe {
            let list = pg_sys::lappend(ptr::null_mut(), self.query.cast());
            pg_sys::extract_query_dependencies(list.cast(), &mut relations, &mut items, &mut row_security);
            let relations = relations.as_ref().map_or(Vec::new(), |list| {
                let cells = core::slice::from_raw_parts(list.elements, list.length as usize);
                cells.iter().map(|cell| cell.oid_value.to_u32()).collect()
            });
            let types = super::plan::pointers::<pg_sys::PlanInvalItem>(items)
                .filter(|item| (**item).cacheId == pg_sys::SysCacheIdentifier::TYPEOID as i32)
                .map(|item| (*item).hashValue)
                .collect();
            (relations, types)
        }
    }

    /// The tree as text: equal for equal meaning of an equal text. Relations, functions, policies and constants are in it.
    pub fn tree_text<'a>(self) -> &'a [u8] {
        // SAFETY: as above; the text lives in the current context.
        unsafe { CStr::from_ptr(pg_sys::nodeToString(self.query.cast())).to_bytes() }
    }

    /// The hashes under which a new, renamed or dropped relation is told that could make a name of this text mean
    /// something else: each name in each schema where it is looked for. And whether a literal speaks of the present.
    pub fn names(self, schemas: &[u32]) -> super::names::Names {
        super::names::of(self.text, schemas)
    }

    /// The columns of the result that are not hidden, with the expression behind each.
    pub fn columns(self) -> Vec<super::columns::Column> {
        // SAFETY: the query is analysed and alive.
        unsafe { super::columns::of(self.query) }
    }

    /// The search path under which the names were resolved, to be kept with the statement.
    pub fn search_path(self) -> SearchPath {
        SearchPath::current(self.context)
    }
}

/// A statement that is kept over transactions.
#[derive(Clone, Copy)]
pub struct Prepared {
    context: pg_sys::MemoryContext,
    plan: pg_sys::SPIPlanPtr,
    pub(super) result: pg_sys::TupleDesc,
    types: *mut pg_sys::Oid,
    parameters: c_int,
}

/// How a statement is planned.
#[derive(Clone, Copy)]
pub struct PlanRules {
    pub may_be_parallel: bool,
    /// May one plan be used again and again? It holds the results of IMMUTABLE functions with constant arguments, which
    /// those of users' need not stick to.
    pub may_keep_plan: bool,
}

/// Prepares the statement, and keeps its context. Raises what Postgres raises.
pub fn prepare(analysed: Analysed, planning: PlanRules) -> Prepared {
    // SAFETY: as for `draft`. Types that nobody used count as text, which any value can be.
    unsafe {
        for place in 0..analysed.parameters as usize {
            let kind = analysed.types.add(place);
            if *kind == pg_sys::InvalidOid {
                *kind = pg_sys::TEXTOID;
            }
        }
        SPI_connect();
        let mut options = 0;
        if planning.may_be_parallel {
            options |= pg_sys::CURSOR_OPT_PARALLEL_OK as c_int;
        }
        if !planning.may_keep_plan {
            options |= pg_sys::CURSOR_OPT_CUSTOM_PLAN as c_int;
        }
        let plan = SPI_prepare_cursor(analysed.text, analysed.parameters, analysed.types, options);
        let source =
            (*(*pg_sys::SPI_plan_get_plan_sources(plan)).elements).ptr_value.cast::<pg_sys::CachedPlanSource>();
        let before = pg_sys::MemoryContextSwitchTo(analysed.context);
        let result = pg_sys::CreateTupleDescCopy((*source).resultDesc);
        pg_sys::MemoryContextSwitchTo(before);
        SPI_keepplan(plan);
        SPI_finish();
        pg_sys::MemoryContextSetParent(analysed.context, pg_sys::CacheMemoryContext);
        Prepared { context: analysed.context, plan, result, types: analysed.types, parameters: analysed.parameters }
    }
}

/// Runs the statement with the active snapshot, as a STABLE function would, and gives its rows to `receiver`. Raises what
/// the query raises.
pub fn run(prepared: Prepared, parameters: super::bind::Parameters, receiver: *mut pg_sys::DestReceiver) {
    // SAFETY: as for `draft`; the receiver is one of `rows.rs` and outlives the call.
    unsafe {
        SPI_connect();
        let options = pg_sys::SPIExecuteOptions {
            params: parameters.list(),
            read_only: true,
            allow_nonatomic: false,
            must_return_tuples: false,
            tcount: 0,
            dest: receiver,
            owner: ptr::null_mut(),
        };
        SPI_execute_plan_extended(prepared.plan, &options);
        SPI_finish();
    }
}

impl Prepared {
    /// Gives up plan and context. The statement must not be running.
    pub fn free(self) {
        // SAFETY: made by `prepare` and not freed before: its owner frees it once.
        unsafe {
            pg_sys::SPI_freeplan(self.plan);
            pg_sys::MemoryContextDelete(self.context);
        }
    }

    /// Types of the parameters, as `bind` takes them.
    pub fn types(self) -> Types {
        Types::new(self.types, self.parameters)
    }

    /// Types of the parameters.
    pub fn parameter_types(self) -> Vec<u32> {
        // SAFETY: as many types as parameters, in the context.
        unsafe {
            match self.types.is_null() {
                true => Vec::new(),
                false => core::slice::from_raw_parts(self.types, self.parameters as usize)
                    .iter()
                    .map(|oid| oid.to_u32())
                    .collect(),
            }
        }
    }

    /// Names and types of the result's columns.
    pub fn result_columns(self) -> Vec<(String, u32)> {
        // SAFETY: the descriptor lives in the context.
        unsafe {
            (0..(*self.result).natts as usize)
                .map(|at| {
                    let column = super::compat::attribute(self.result, at);
                    (super::text::c_string((*column).attname.data.as_ptr()), (*column).atttypid.to_u32())
                })
                .collect()
        }
    }
}

/// Is it a type of Postgres's own, or an array of one?
pub fn is_builtin_type(kind: u32) -> bool {
    kind < pg_sys::FirstNormalObjectId
}

/// Is this a type whose values mean something in this session only, or that has no values of its own?
pub fn type_hazard(kind: u32) -> Option<steward_core::cache::reason::Reason> {
    use steward_core::cache::reason::Reason;
    let oid = pg_sys::Oid::from(kind);
    if oid == pg_sys::RECORDOID || oid == pg_sys::RECORDARRAYOID {
        return Some(Reason::RecordColumn);
    }
    // SAFETY: a catalog look-up.
    match unsafe { pg_sys::get_typtype(oid) } as u8 {
        b'p' => Some(Reason::UnsupportedType),
        _ => None,
    }
}
