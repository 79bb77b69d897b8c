//! Plans of a running statement: their identity, and their text.

use super::query::Query;
use super::{compat, shield};
use pgrx::pg_sys;
use steward_core::capture::plan::PlanHasher;

/// Deeper trees than any that Postgres can plan within its stack limit are cut off here.
const MAX_DEPTH: u32 = 2_000;

impl Query {
    /// The plan's structural id: Postgres's own (18, set by another module) where there is one, else a
    /// hash of node types, relations, indexes and their order; no constants, no costs. Reads the plan tree
    /// only, so it may be called while an error is being reported.
    pub fn plan_id(self) -> i64 {
        // SAFETY: the plan lives as long as the execution.
        unsafe {
            let planned = (*self.as_ptr()).plannedstmt;
            let given = compat::given_plan_id(planned);
            if given != 0 {
                return given;
            }
            let mut walk = Walk { planned, hasher: PlanHasher::new(), depth: 0, shapes_only: false };
            walk.node((*planned).planTree);
            for subplan in pointers::<pg_sys::Plan>((*planned).subplans) {
                walk.node(subplan);
            }
            walk.hasher.finish()
        }
    }

    /// The plan as EXPLAIN (FORMAT JSON, SETTINGS) prints it, with actual rows and times where they were
    /// collected, in the encoding of the database. `None` when it cannot be had; never raises.
    pub fn explain_json(self) -> Option<Vec<u8>> {
        shield::in_subtransaction(|| {
            // SAFETY: called before the executor shuts down; everything is allocated in a context of its
            // own, which goes even when an error does, as a child of the subtransaction's.
            unsafe {
                let context = pg_sys::AllocSetContextCreateInternal(
                    pg_sys::CurTransactionContext,
                    c"pg_steward plan".as_ptr(),
                    pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
                );
                let before = pg_sys::MemoryContextSwitchTo(context);
                let json = explain(self);
                pg_sys::MemoryContextSwitchTo(before);
                pg_sys::MemoryContextDelete(context);
                json
            }
        })
    }
}

unsafe fn explain(query: Query) -> Vec<u8> {
    // SAFETY: as said by the caller.
    unsafe {
        let es = pg_sys::NewExplainState();
        let analyze = query.is_instrumented();
        (*es).analyze = analyze;
        (*es).buffers = analyze;
        (*es).timing = analyze;
        (*es).summary = false;
        (*es).settings = true;
        (*es).format = pg_sys::ExplainFormat::EXPLAIN_FORMAT_JSON;
        pg_sys::ExplainBeginOutput(es);
        pg_sys::ExplainPrintPlan(es, query.as_ptr());
        if analyze {
            pg_sys::ExplainPrintTriggers(es, query.as_ptr());
        }
        pg_sys::ExplainPrintJITSummary(es, query.as_ptr());
        pg_sys::ExplainEndOutput(es);
        let text = &*(*es).str_;
        let printed = core::slice::from_raw_parts(text.data.cast::<u8>(), text.len as usize);
        as_object(printed)
    }
}

/// EXPLAIN's output is an array of one object when it opens and closes a group; printed piecemeal, as here
/// and in auto_explain, it is the object's members between brackets. Makes it an object.
fn as_object(printed: &[u8]) -> Vec<u8> {
    let trimmed = printed.trim_ascii();
    match trimmed {
        [b'[', members @ .., b']'] => [b"{", members, b"}"].concat(),
        other => other.to_vec(),
    }
}

struct Walk {
    planned: *mut pg_sys::PlannedStmt,
    hasher: PlanHasher,
    depth: u32,
    /// Below an Append over partitions only shapes count: pruning must not make a new plan.
    shapes_only: bool,
}

impl Walk {
    unsafe fn node(&mut self, plan: *mut pg_sys::Plan) {
        if plan.is_null() || self.depth > MAX_DEPTH {
            self.hasher.push_u32(0);
            return;
        }
        self.depth += 1;
        // SAFETY: a node of a finished plan tree; each cast follows its tag.
        unsafe {
            self.hasher.push_u32((*plan).type_ as u32);
            self.own_fields(plan);
            self.node((*plan).lefttree);
            self.node((*plan).righttree);
        }
        self.depth -= 1;
    }

    unsafe fn own_fields(&mut self, plan: *mut pg_sys::Plan) {
        use pg_sys::NodeTag::*;
        // SAFETY: as above.
        unsafe {
            match (*plan).type_ {
                T_NestLoop | T_MergeJoin | T_HashJoin => {
                    self.hasher.push_u32((*plan.cast::<pg_sys::Join>()).jointype);
                }
                T_IndexScan => self.index(plan, (*plan.cast::<pg_sys::IndexScan>()).indexid),
                T_IndexOnlyScan => self.index(plan, (*plan.cast::<pg_sys::IndexOnlyScan>()).indexid),
                T_BitmapIndexScan => {
                    self.index(plan, (*plan.cast::<pg_sys::BitmapIndexScan>()).indexid);
                }
                T_SeqScan
                | T_SampleScan
                | T_BitmapHeapScan
                | T_TidScan
                | T_TidRangeScan
                | T_FunctionScan
                | T_ValuesScan
                | T_TableFuncScan
                | T_CteScan
                | T_NamedTuplestoreScan
                | T_WorkTableScan => self.scan(plan),
                T_ForeignScan => self.foreign(plan.cast()),
                T_CustomScan => self.list((*plan.cast::<pg_sys::CustomScan>()).custom_plans),
                T_SubqueryScan => self.node((*plan.cast::<pg_sys::SubqueryScan>()).subplan),
                T_Agg => self.hasher.push_u32((*plan.cast::<pg_sys::Agg>()).aggstrategy),
                T_SetOp => self.hasher.push_u32((*plan.cast::<pg_sys::SetOp>()).strategy),
                T_ModifyTable => self.modify(plan.cast()),
                T_Append => {
                    let append = plan.cast::<pg_sys::Append>();
                    self.append((*append).apprelids, (*append).appendplans);
                }
                T_MergeAppend => {
                    let append = plan.cast::<pg_sys::MergeAppend>();
                    self.append((*append).apprelids, (*append).mergeplans);
                }
                T_BitmapAnd => self.list((*plan.cast::<pg_sys::BitmapAnd>()).bitmapplans),
                T_BitmapOr => self.list((*plan.cast::<pg_sys::BitmapOr>()).bitmapplans),
                _ => {}
            }
        }
    }

    unsafe fn scan(&mut self, plan: *mut pg_sys::Plan) {
        // SAFETY: every node given here begins with a Scan.
        unsafe { self.relation((*plan.cast::<pg_sys::Scan>()).scanrelid) };
    }

    /// The range-table index of the table that this one is a partition of, at the top; itself if of none.
    unsafe fn root(&self, index: u32) -> u32 {
        let mut root = index;
        // SAFETY: as above; a plan's append relations go from child to parent, so this ends.
        unsafe {
            for _ in 0..MAX_DEPTH {
                let parent = pointers::<pg_sys::AppendRelInfo>((*self.planned).appendRelations)
                    .find(|relation| (**relation).child_relid == root);
                match parent {
                    Some(relation) => root = (*relation).parent_relid,
                    None => break,
                }
            }
        }
        root
    }

    unsafe fn index(&mut self, plan: *mut pg_sys::Plan, index: pg_sys::Oid) {
        // SAFETY: as above.
        unsafe {
            self.scan(plan);
            let relation = (*plan.cast::<pg_sys::Scan>()).scanrelid;
            // A partition's index is its own; what counts is that there is one.
            if !self.shapes_only && self.root(relation) == relation {
                self.hasher.push_u32(index.to_u32());
            }
        }
    }

    unsafe fn foreign(&mut self, scan: *mut pg_sys::ForeignScan) {
        // SAFETY: as above; a pushed-down join has no relation of its own.
        unsafe {
            self.hasher.push_u32((*scan).operation);
            self.relation((*scan).scan.scanrelid);
        }
    }

    unsafe fn modify(&mut self, modify: *mut pg_sys::ModifyTable) {
        // SAFETY: as above.
        unsafe {
            self.hasher.push_u32((*modify).operation);
            self.relation((*modify).nominalRelation);
        }
    }

    /// Partitions of one table count once per shape, under their parent.
    unsafe fn append(&mut self, parents: *mut pg_sys::Bitmapset, children: *mut pg_sys::List) {
        // SAFETY: as above; bms_next_member only reads.
        unsafe {
            let parent = match parents.is_null() {
                true => -1,
                false => pg_sys::bms_next_member(parents, -1),
            };
            if parent <= 0 {
                return self.list(children);
            }
            self.relation(parent as u32);
            let mut shapes: Vec<i64> = Vec::new();
            for child in pointers::<pg_sys::Plan>(children) {
                let mut walk =
                    Walk { planned: self.planned, hasher: PlanHasher::new(), depth: self.depth, shapes_only: true };
                walk.node(child);
                let shape = walk.hasher.finish();
                if !shapes.contains(&shape) {
                    shapes.push(shape);
                }
            }
            shapes.sort_unstable();
            shapes.iter().for_each(|shape| self.hasher.push_u64(*shape as u64));
        }
    }

    unsafe fn list(&mut self, plans: *mut pg_sys::List) {
        // SAFETY: as above.
        unsafe {
            for plan in pointers::<pg_sys::Plan>(plans) {
                self.node(plan);
            }
        }
    }

    unsafe fn relation(&mut self, index: u32) {
        if self.shapes_only {
            return;
        }
        // SAFETY: range-table indexes of a plan count from 1 within its table.
        unsafe {
            let entry = self
                .root(index)
                .checked_sub(1)
                .and_then(|place| pointers::<pg_sys::RangeTblEntry>((*self.planned).rtable).nth(place as usize));
            let relation = entry.map_or(0, |entry| (*entry).relid.to_u32());
            self.hasher.push_u32(relation);
        }
    }
}

/// The pointers of a List.
///
/// # Safety
/// `list` must be NULL or a list of pointers to `T`.
pub(super) unsafe fn pointers<T>(list: *mut pg_sys::List) -> impl Iterator<Item = *mut T> {
    // SAFETY: by the contract; elements are stored as an array.
    unsafe {
        let cells = match list.as_ref() {
            Some(list) => core::slice::from_raw_parts(list.elements, list.length as usize),
            None => &[],
        };
        cells.iter().map(|cell| cell.ptr_value.cast())
    }
}
