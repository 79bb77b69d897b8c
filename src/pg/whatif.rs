//! Plans of a query as if indexes existed that do not, or did not that do. The plans are looked at, never run.
//!
//! **Whose planning.** A planning is known by the address of the parameter list that it was given, which no other has as
//! long as the list lives. A function that is evaluated while we plan plans its own statements with a list of its own, so
//! what is executed never sees an index that does not exist. An error that ends the planning ends a (sub)transaction, and
//! its callback forgets the planning (`forget`).
//!
//! Plain frames, as `hypothetical` says; so is the hook.

#![allow(ffi_unwind_calls, reason = "plain frames: a longjmp may cross them")]

use super::backend::BackendStatic;
use super::compat::Rights;
use super::hypothetical::Hypothetical;
use super::plan::pointers;
use super::raw;
use super::tree::{Facts, Tree};
use core::cell::Cell;
use core::ffi::{c_char, c_int, c_void};
use core::ptr;
use pgrx::pg_sys;

// SAFETY: Postgres's own symbols with the signatures of its headers, 15 to 18.
unsafe extern "C-unwind" {
    fn pg_analyze_and_rewrite_varparams(
        tree: *mut pg_sys::RawStmt,
        text: *const c_char,
        types: *mut *mut pg_sys::Oid,
        count: *mut c_int,
        environment: *mut pg_sys::QueryEnvironment,
    ) -> *mut pg_sys::List;
    fn copyObjectImpl(from: *const c_void) -> *mut c_void;
    fn makeParamList(count: c_int) -> pg_sys::ParamListInfo;
    fn lcons(item: *mut c_void, list: *mut pg_sys::List) -> *mut pg_sys::List;
    fn list_delete_ptr(list: *mut pg_sys::List, item: *mut c_void) -> *mut pg_sys::List;
    fn AllocSetContextCreateInternal(
        parent: pg_sys::MemoryContext,
        name: *const c_char,
        min: usize,
        initial: usize,
        max: usize,
    ) -> pg_sys::MemoryContext;
    fn GetCurrentSubTransactionId() -> u32;
    fn MemoryContextReset(context: pg_sys::MemoryContext);
}

/// What the planner is to believe.
#[derive(Clone, Copy)]
struct Belief {
    /// The parameter list by which the planning is known.
    planning: pg_sys::ParamListInfo,
    added: *const Hypothetical,
    added_count: usize,
    hidden: *const u32,
    hidden_count: usize,
    /// The subtransaction in which we plan.
    within: u32,
}

const NOTHING: Belief = Belief {
    planning: ptr::null_mut(),
    added: ptr::null(),
    added_count: 0,
    hidden: ptr::null(),
    hidden_count: 0,
    within: 0,
};

static BELIEF: BackendStatic<Cell<Belief>> = BackendStatic::new(Cell::new(NOTHING));
static mut PREVIOUS: pg_sys::get_relation_info_hook_type = None;
static INSTALLED: BackendStatic<Cell<bool>> = BackendStatic::new(Cell::new(false));

/// Installs the hook. Once, from `_PG_init`.
pub fn install() {
    // SAFETY: before any statement.
    unsafe {
        PREVIOUS = pg_sys::get_relation_info_hook;
        pg_sys::get_relation_info_hook = Some(inject);
    }
    INSTALLED.set(true);
}

/// Is the hook there? Without it a plan would be the same with and without an index.
pub fn is_installed() -> bool {
    INSTALLED.get()
}

/// Is this planning one of ours?
pub(super) unsafe fn is_ours(root: *mut pg_sys::PlannerInfo) -> bool {
    let planning = BELIEF.get().planning;
    // SAFETY: the planner's own state.
    !planning.is_null() && unsafe { (*(*root).glob).boundParams == planning }
}

/// A (sub)transaction was ended by an error, and with it any planning that had begun in it; not one around it. Ids grow; 0
/// is the whole transaction.
pub fn forget(ended: u32) {
    if BELIEF.get().within >= ended {
        BELIEF.set(NOTHING);
    }
}

unsafe extern "C-unwind" fn inject(
    root: *mut pg_sys::PlannerInfo,
    relation: pg_sys::Oid,
    is_parent: bool,
    table: *mut pg_sys::RelOptInfo,
) {
    // SAFETY: Postgres's own arguments.
    unsafe {
        if let Some(previous) = PREVIOUS {
            previous(root, relation, is_parent, table);
        }
        if !is_parent && is_ours(root) {
            believe(BELIEF.get(), root, relation, table);
        }
    }
}

/// Changes the list of a table's indexes to what is to be believed.
unsafe fn believe(
    belief: Belief,
    root: *mut pg_sys::PlannerInfo,
    relation: pg_sys::Oid,
    table: *mut pg_sys::RelOptInfo,
) {
    // SAFETY: the lists live until the planning ends; nodes are deleted from the planner's own list.
    unsafe {
        for place in 0..belief.hidden_count {
            let hidden = *belief.hidden.add(place);
            let found = pointers::<pg_sys::IndexOptInfo>((*table).indexlist)
                .find(|index| (**index).indexoid.to_u32() == hidden);
            if let Some(found) = found {
                (*table).indexlist = list_delete_ptr((*table).indexlist, found.cast());
            }
        }
        for place in 0..belief.added_count {
            if let Some(node) = (*belief.added.add(place)).node(root, table, relation) {
                (*table).indexlist = lcons(node.cast(), (*table).indexlist);
            }
        }
    }
}

/// An analysed statement, to be planned again and again. Alive as long as the memory context it was made in.
#[derive(Clone, Copy)]
pub struct Subject {
    queries: *mut pg_sys::List,
    text: *const c_char,
    types: *mut pg_sys::Oid,
    parameters: c_int,
    work: pg_sys::MemoryContext,
}

/// What a text turned out to be.
#[derive(Clone, Copy)]
pub enum Draft {
    Subject(Subject),
    Empty,
    Several(usize),
    /// The name of a command that has no plan.
    NotPlanned(*const c_char),
}

/// [`draft`] within a guard: an error unwinds, so it may be called from ordinary Rust.
pub fn draft_guarded(text: &[u8]) -> Draft {
    // SAFETY: the closure owns nothing.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| draft(text)) }
}

/// Parses, analyses and rewrites in the current memory context. Raises what Postgres raises.
pub fn draft(text: &[u8]) -> Draft {
    // SAFETY: in a transaction with a snapshot; each cast follows a tag.
    unsafe {
        let text = super::statement::copy_text(pg_sys::CurrentMemoryContext, text);
        super::statement::about(text, || draft_in(text))
    }
}

unsafe fn draft_in(text: *const c_char) -> Draft {
    // SAFETY: as for `draft`.
    unsafe {
        let list = super::statement::parse(text);
        let Some(statements) = list.as_ref() else { return Draft::Empty };
        if statements.length > 1 {
            return Draft::Several(statements.length as usize);
        }
        let raw = (*statements.elements).ptr_value.cast::<pg_sys::RawStmt>();
        let (mut types, mut parameters) = (ptr::null_mut(), 0);
        let tag = (*(*raw).stmt).type_;
        use pg_sys::NodeTag::*;
        if ![T_SelectStmt, T_InsertStmt, T_UpdateStmt, T_DeleteStmt, T_MergeStmt].contains(&tag) {
            return Draft::NotPlanned(pg_sys::GetCommandTagName(pg_sys::CreateCommandTag((*raw).stmt)));
        }
        let queries = pg_analyze_and_rewrite_varparams(raw, text, &mut types, &mut parameters, ptr::null_mut());
        let is_planned = |query: *mut pg_sys::Query| (*query).commandType != pg_sys::CmdType::CMD_UTILITY;
        if !pointers::<pg_sys::Query>(queries).any(is_planned) {
            return Draft::NotPlanned(c"SELECT INTO".as_ptr());
        }
        let work = AllocSetContextCreateInternal(
            pg_sys::CurrentMemoryContext,
            c"pg_steward what-if".as_ptr(),
            0,
            8 * 1024,
            8 * 1024 * 1024,
        );
        Draft::Subject(Subject { queries, text, types, parameters, work })
    }
}

/// Indexes of a plan that are told apart; of more, the rest is only counted.
const MAX_USED: usize = 64;
/// Deeper trees than any that Postgres can plan within its stack limit are cut off here.
const MAX_DEPTH: u32 = 2_000;

/// An index that a plan uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Used {
    Real(u32),
    /// Its place among those that were added.
    Added(usize),
}

/// What a planning came to.
#[derive(Clone, Copy)]
pub struct Planned {
    /// Total cost, in the planner's units.
    pub cost: f64,
    used: [u32; MAX_USED],
    used_count: usize,
}

impl Planned {
    /// The indexes of the plan, each once.
    pub fn used(&self) -> impl Iterator<Item = Used> + '_ {
        self.used[..self.used_count.min(MAX_USED)].iter().map(|id| match super::hypothetical::place_of(*id) {
            Some(place) => Used::Added(place),
            None => Used::Real(*id),
        })
    }

    fn note(&mut self, index: pg_sys::Oid) {
        let index = index.to_u32();
        if self.used[..self.used_count.min(MAX_USED)].contains(&index) {
            return;
        }
        if let Some(place) = self.used.get_mut(self.used_count) {
            *place = index;
        }
        self.used_count += 1;
    }
}

impl Subject {
    /// Types of the parameters.
    pub fn types(self) -> super::bind::Types {
        super::bind::Types::new(self.types, self.parameters)
    }

    /// The table that it writes new rows or new versions of rows to, and whether they are versions. `None`: it writes none.
    pub fn written(self) -> Option<(u32, bool)> {
        use pg_sys::CmdType::{CMD_INSERT, CMD_UPDATE};
        // SAFETY: the queries are alive; a target is an entry of the query's own table.
        unsafe {
            pointers::<pg_sys::Query>(self.queries).find_map(|query| {
                let place = (*query).resultRelation.checked_sub(1).filter(|place| *place >= 0)?;
                let entry = pointers::<pg_sys::RangeTblEntry>((*query).rtable).nth(place as usize)?;
                let command = (*query).commandType;
                [CMD_INSERT, CMD_UPDATE].contains(&command).then(|| ((*entry).relid.to_u32(), command == CMD_UPDATE))
            })
        }
    }

    /// Postgres's own check whether the current user may run it. Raises what Postgres raises.
    pub fn check_rights(self) {
        let mut facts = Facts { rights: Some(Rights::none()), ..Facts::default() };
        // SAFETY: the queries are alive; a guard keeps an error from crossing what is owned here.
        let rights = super::function::guarded(std::panic::AssertUnwindSafe(move || unsafe {
            for query in pointers::<pg_sys::Node>(self.queries) {
                Tree::new(query).collect(&mut facts);
            }
            facts.rights.take().unwrap_or(Rights::none())
        }));
        rights.check();
    }

    /// `plan` within a guard: an error unwinds.
    pub fn plan_guarded(self, added: &[Hypothetical], hidden: &[u32]) -> Planned {
        // SAFETY: the closure owns nothing.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| self.plan(None, added, hidden)) }
    }

    /// `check_rights` within a guard.
    pub fn check_rights_guarded(self) {
        // SAFETY: the closure owns nothing.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| self.check_rights()) }
    }

    /// Plans it with `added` indexes and without the `hidden` ones. Without parameters the plan is a generic one. Raises
    /// what Postgres raises.
    pub fn plan(self, parameters: Option<super::bind::Parameters>, added: &[Hypothetical], hidden: &[u32]) -> Planned {
        let mut planned = Planned { cost: 0.0, used: [0; MAX_USED], used_count: 0 };
        // SAFETY: the context is ours, and nothing of it is used after the reset.
        unsafe {
            let before = pg_sys::CurrentMemoryContext;
            MemoryContextReset(self.work);
            pg_sys::CurrentMemoryContext = self.work;
            for (number, index) in added.iter().enumerate() {
                index.set_id(number);
            }
            let planning = own_list(parameters);
            // A function that is evaluated while we plan may ask, too.
            let outer = BELIEF.replace(Belief {
                planning,
                added: added.as_ptr(),
                added_count: added.len(),
                hidden: hidden.as_ptr(),
                hidden_count: hidden.len(),
                within: GetCurrentSubTransactionId(),
            });
            for query in pointers::<pg_sys::Query>(self.queries) {
                let copy = copyObjectImpl(query.cast_const().cast()).cast::<pg_sys::Query>();
                if (*copy).commandType == pg_sys::CmdType::CMD_UTILITY {
                    continue;
                }
                let options = pg_sys::CURSOR_OPT_PARALLEL_OK as c_int;
                let statement = raw::standard_planner(copy, self.text, options, planning);
                planned.cost += (*(*statement).planTree).total_cost;
                walk_all(&*statement, &mut planned);
            }
            BELIEF.set(outer);
            pg_sys::CurrentMemoryContext = before;
        }
        planned
    }
}

/// A list of parameters that no other planning has.
unsafe fn own_list(parameters: Option<super::bind::Parameters>) -> pg_sys::ParamListInfo {
    // SAFETY: the given list is alive; its values are only read.
    unsafe {
        let given = parameters.map_or(ptr::null_mut(), |parameters| parameters.list());
        let count = given.as_ref().map_or(0, |list| list.numParams);
        let list = makeParamList(count);
        if count > 0 {
            ptr::copy_nonoverlapping((*given).params.as_ptr(), (*list).params.as_mut_ptr(), count as usize);
        }
        list
    }
}

unsafe fn walk_all(statement: &pg_sys::PlannedStmt, planned: &mut Planned) {
    // SAFETY: a finished plan.
    unsafe {
        walk(statement.planTree, 0, planned);
        for subplan in pointers::<pg_sys::Plan>(statement.subplans) {
            walk(subplan, 0, planned);
        }
    }
}

/// Notes the indexes of a plan tree.
unsafe fn walk(plan: *mut pg_sys::Plan, depth: u32, planned: &mut Planned) {
    use pg_sys::NodeTag::*;
    if plan.is_null() || depth > MAX_DEPTH {
        return;
    }
    // SAFETY: a node of a finished plan tree; each cast follows its tag.
    unsafe {
        let list = match (*plan).type_ {
            T_IndexScan => return planned.note((*plan.cast::<pg_sys::IndexScan>()).indexid),
            T_IndexOnlyScan => return planned.note((*plan.cast::<pg_sys::IndexOnlyScan>()).indexid),
            T_BitmapIndexScan => return planned.note((*plan.cast::<pg_sys::BitmapIndexScan>()).indexid),
            T_SubqueryScan => return walk((*plan.cast::<pg_sys::SubqueryScan>()).subplan, depth + 1, planned),
            T_Append => (*plan.cast::<pg_sys::Append>()).appendplans,
            T_MergeAppend => (*plan.cast::<pg_sys::MergeAppend>()).mergeplans,
            T_BitmapAnd => (*plan.cast::<pg_sys::BitmapAnd>()).bitmapplans,
            T_BitmapOr => (*plan.cast::<pg_sys::BitmapOr>()).bitmapplans,
            T_CustomScan => (*plan.cast::<pg_sys::CustomScan>()).custom_plans,
            _ => ptr::null_mut(),
        };
        for child in pointers::<pg_sys::Plan>(list) {
            walk(child, depth + 1, planned);
        }
        walk((*plan).lefttree, depth + 1, planned);
        walk((*plan).righttree, depth + 1, planned);
    }
}
