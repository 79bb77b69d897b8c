//! From a template to what the planner believes in.

#![allow(ffi_unwind_calls, reason = "plain frames: a longjmp may cross them")]

use super::{Growth, Hypothetical, array};
use crate::pg::plan::pointers;
use core::ffi::{c_char, c_int, c_void};
use core::ptr;
use pgrx::pg_sys;

// SAFETY: Postgres's own symbols with the signatures of its headers, 15 to 18.
unsafe extern "C-unwind" {
    fn get_atttypetypmodcoll(
        relation: pg_sys::Oid,
        number: i16,
        kind: *mut pg_sys::Oid,
        modifier: *mut i32,
        collation: *mut pg_sys::Oid,
    );
    fn ChangeVarNodes(node: *mut pg_sys::Node, from: c_int, to: c_int, levels_up: c_int);
    fn adjust_appendrel_attrs(
        root: *mut pg_sys::PlannerInfo,
        node: *mut pg_sys::Node,
        count: c_int,
        relations: *mut *mut pg_sys::AppendRelInfo,
    ) -> *mut pg_sys::Node;
    fn copyObjectImpl(from: *const c_void) -> *mut c_void;
    fn makeVar(
        table: c_int,
        number: i16,
        kind: pg_sys::Oid,
        modifier: i32,
        collation: pg_sys::Oid,
        levels_up: pg_sys::Index,
    ) -> *mut pg_sys::Var;
    fn makeTargetEntry(
        expression: *mut pg_sys::Expr,
        number: i16,
        name: *mut c_char,
        is_junk: bool,
    ) -> *mut pg_sys::TargetEntry;
    fn lappend(list: *mut pg_sys::List, item: *mut c_void) -> *mut pg_sys::List;
    fn clauselist_selectivity(
        root: *mut pg_sys::PlannerInfo,
        clauses: *mut pg_sys::List,
        table: c_int,
        join: pg_sys::JoinType::Type,
        special: *mut pg_sys::SpecialJoinInfo,
    ) -> f64;
}

/// Levels of partitions below the table that an index is defined on.
const MAX_LEVELS: usize = 16;
/// Entries of a page that leads to others.
const USUAL_FANOUT: f64 = 300.0;

impl Hypothetical {
    /// Does it lie on this table, or on one that the table is a partition of? Fills the way down from there.
    unsafe fn chain(
        self,
        root: *mut pg_sys::PlannerInfo,
        table: &pg_sys::RelOptInfo,
        relation: pg_sys::Oid,
        chain: &mut [*mut pg_sys::AppendRelInfo; MAX_LEVELS],
    ) -> Option<usize> {
        // SAFETY: the array has a place for each range-table entry, NULL for what is no child.
        unsafe {
            if (*self.0).relation == relation {
                return Some(0);
            }
            if (*self.0).relkind != b'p' || (*root).append_rel_array.is_null() {
                return None;
            }
            let mut child = table.relid;
            for level in 0..MAX_LEVELS {
                let parent = (*(*root).append_rel_array.add(child as usize)).as_mut()?;
                chain[level] = parent;
                if parent.parent_reloid == (*self.0).relation {
                    chain[..=level].reverse();
                    return Some(level + 1);
                }
                child = parent.parent_relid;
            }
            None
        }
    }

    /// The node for a table of a planning; `None` when it does not lie on that.
    pub(in crate::pg) unsafe fn node(
        self,
        root: *mut pg_sys::PlannerInfo,
        table: *mut pg_sys::RelOptInfo,
        relation: pg_sys::Oid,
    ) -> Option<*mut pg_sys::IndexOptInfo> {
        // SAFETY: Postgres plans the table now; the node is made in the planner's memory.
        unsafe {
            let mut chain = [ptr::null_mut(); MAX_LEVELS];
            let levels = self.chain(root, &*table, relation, &mut chain)?;
            let node = array::<pg_sys::IndexOptInfo>(1);
            ptr::copy_nonoverlapping(&raw const (*self.0).info, node, 1);
            (*node).rel = table;
            (*node).reltablespace = (*table).reltablespace;
            (*node).indexprs = translated(root, (*node).indexprs, (*table).relid, &mut chain[..levels]);
            (*node).indpred = translated(root, (*node).indpred, (*table).relid, &mut chain[..levels]);
            if levels > 0 {
                translate_columns(&mut *node, &chain[..levels]);
            }
            (*node).indextlist = target_list(&*node, relation)?;
            if (*self.0).fraction < 0.0 {
                (*self.0).fraction = share(root, table, (*node).indpred);
            }
            self.set_dimensions(&mut *node, &*table);
            Some(node)
        }
    }

    unsafe fn set_dimensions(self, node: &mut pg_sys::IndexOptInfo, table: &pg_sys::RelOptInfo) {
        // SAFETY: a template that is alive.
        let (growth, fraction) = unsafe { ((*self.0).growth, (*self.0).fraction.clamp(0.0, 1.0)) };
        let rows = table.tuples * fraction;
        let pages = growth.pages_per_row * rows + growth.pages_per_heap_page * f64::from(table.pages);
        node.tuples = rows;
        node.pages = (growth.fixed_pages + pages).ceil().clamp(1.0, f64::from(u32::MAX - 1)) as u32;
        if node.relam == pg_sys::BTREE_AM_OID {
            node.tree_height = height(f64::from(node.pages), growth);
        }
    }
}

/// The share of a table's rows that a predicate lets in, as the planner estimates it.
unsafe fn share(root: *mut pg_sys::PlannerInfo, table: *mut pg_sys::RelOptInfo, predicate: *mut pg_sys::List) -> f64 {
    if predicate.is_null() {
        return 1.0;
    }
    // SAFETY: Postgres puts the table into the array right after the hook; all that estimating reads of it is there.
    unsafe {
        let place = (*root).simple_rel_array.add((*table).relid as usize);
        let before = *place;
        *place = table;
        let inner = pg_sys::JoinType::JOIN_INNER;
        let share = clauselist_selectivity(root, predicate, (*table).relid as c_int, inner, ptr::null_mut());
        *place = before;
        share
    }
}

/// Levels above the leaves of a tree that has so many pages in all.
fn height(pages: f64, growth: Growth) -> c_int {
    if (0.5..=2.0).contains(&(pages / growth.usual_pages)) {
        return growth.height;
    }
    let (mut level_pages, mut height) = (pages - 1.0, 0);
    while level_pages > 1.0 && height < 32 {
        level_pages = (level_pages / USUAL_FANOUT).ceil();
        height += 1;
    }
    height
}

/// Expressions of the index's own table, as they read in this planning.
unsafe fn translated(
    root: *mut pg_sys::PlannerInfo,
    list: *mut pg_sys::List,
    table: pg_sys::Index,
    chain: &mut [*mut pg_sys::AppendRelInfo],
) -> *mut pg_sys::List {
    if list.is_null() {
        return list;
    }
    // SAFETY: a copy is changed; each step of the chain leads from the table that the expressions speak of.
    unsafe {
        let mut copy = copyObjectImpl(list.cast_const().cast()).cast::<pg_sys::Node>();
        let first = chain.first().map_or(table, |step| (**step).parent_relid);
        if first != 1 {
            ChangeVarNodes(copy, 1, first as c_int, 0);
        }
        for step in chain {
            copy = adjust_appendrel_attrs(root, copy, 1, step);
        }
        copy.cast()
    }
}

/// The numbers of the columns in a partition, which may have them in another order.
unsafe fn translate_columns(node: &mut pg_sys::IndexOptInfo, chain: &[*mut pg_sys::AppendRelInfo]) {
    // SAFETY: each step has a list of the parent's columns as the child has them.
    unsafe {
        let keys = array::<c_int>(node.ncolumns as usize);
        for at in 0..node.ncolumns as usize {
            let mut number = *node.indexkeys.add(at);
            for step in chain.iter().filter(|_| *node.indexkeys.add(at) > 0) {
                let variable = pointers::<pg_sys::Var>((**step).translated_vars).nth(number.max(1) as usize - 1);
                number = variable.filter(|variable| !variable.is_null()).map_or(0, |v| c_int::from((*v).varattno));
            }
            *keys.add(at) = number;
        }
        node.indexkeys = keys;
    }
}

/// What the index holds, column by column. `None` when a column is missing.
unsafe fn target_list(node: &pg_sys::IndexOptInfo, relation: pg_sys::Oid) -> Option<*mut pg_sys::List> {
    // SAFETY: the columns are those of the table; expressions come in the order of their columns.
    unsafe {
        let mut expressions = pointers::<pg_sys::Expr>(node.indexprs);
        let mut list = ptr::null_mut();
        for at in 0..node.ncolumns as usize {
            let number = *node.indexkeys.add(at) as i16;
            let expression = match number {
                0 => expressions.next()?,
                _ => {
                    let (mut kind, mut modifier, mut collation) = (pg_sys::InvalidOid, 0, pg_sys::InvalidOid);
                    get_atttypetypmodcoll(relation, number, &mut kind, &mut modifier, &mut collation);
                    makeVar((*node.rel).relid as c_int, number, kind, modifier, collation, 0).cast()
                }
            };
            let entry = makeTargetEntry(expression, at as i16 + 1, ptr::null_mut(), false);
            list = lappend(list, entry.cast());
        }
        Some(list)
    }
}
