//! Where the columns of a result come from.

use super::plan::pointers;
use super::text::c_string;
use core::ffi::c_void;
use pgrx::{pg_guard, pg_sys};
use std::collections::HashSet;

/// Depth of subqueries that are followed; what lies deeper counts as not traced.
const MAX_DEPTH: u32 = 64;
/// Columns of subqueries that are followed; beyond, the rest counts as not traced.
const MAX_COLUMNS: usize = 10_000;

/// A column of a result.
pub struct Column {
    pub name: String,
    /// Columns of relations that its value is made from, as far as they could be traced. Attribute 0: all of them.
    pub sources: Vec<(u32, i16)>,
    /// Was every source traced?
    pub is_traced: bool,
}

struct Trace {
    query: *mut pg_sys::Query,
    depth: u32,
    sources: Vec<(u32, i16)>,
    /// Queries and their columns that were followed: once is enough, and expressions may name them again and again.
    seen: HashSet<(usize, i16)>,
    is_traced: bool,
}

/// The visible columns of a query.
///
/// # Safety
/// `query` must be analysed and alive.
pub(super) unsafe fn of(query: *mut pg_sys::Query) -> Vec<Column> {
    // SAFETY: by the contract; a target list holds target entries.
    unsafe {
        pointers::<pg_sys::TargetEntry>((*query).targetList)
            .filter(|entry| !(**entry).resjunk)
            .map(|entry| {
                let (sources, seen) = (Vec::new(), HashSet::new());
                let mut trace = Trace { query, depth: 0, sources, seen, is_traced: true };
                output(query, (*entry).resno, &mut trace);
                let name = c_string((*entry).resname);
                Column { name, sources: trace.sources, is_traced: trace.is_traced }
            })
            .collect()
    }
}

/// Follows one output column of a query, into each arm where it is a set operation.
unsafe fn output(query: *mut pg_sys::Query, number: i16, trace: &mut Trace) {
    if trace.depth > MAX_DEPTH || trace.seen.len() > MAX_COLUMNS {
        trace.is_traced = false;
        return;
    }
    if !trace.seen.insert((query as usize, number)) {
        return;
    }
    pgrx::check_for_interrupts!();
    let outer = trace.query;
    trace.query = query;
    trace.depth += 1;
    // SAFETY: the caller passes a live query.
    unsafe {
        if !(*query).setOperations.is_null() {
            for entry in pointers::<pg_sys::RangeTblEntry>((*query).rtable) {
                if !(*entry).subquery.is_null() {
                    output((*entry).subquery, number, trace);
                }
            }
        } else {
            for entry in pointers::<pg_sys::TargetEntry>((*query).targetList) {
                if (*entry).resno == number || number == 0 {
                    walk((*entry).expr.cast(), core::ptr::from_mut(trace).cast());
                }
            }
        }
    }
    trace.depth -= 1;
    trace.query = outer;
}

#[pg_guard]
unsafe extern "C-unwind" fn walk(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: Postgres's walker passes valid nodes and the context given to it; each cast follows a tag.
    unsafe {
        let trace = &mut *context.cast::<Trace>();
        match (*node).type_ {
            pg_sys::NodeTag::T_Var => variable(&*node.cast::<pg_sys::Var>(), trace),
            // A subquery within an expression has a scope of its own.
            pg_sys::NodeTag::T_Query => {
                output(node.cast(), 0, trace);
                return false;
            }
            _ => {}
        }
        pg_sys::expression_tree_walker(node, Some(walk), context)
    }
}

unsafe fn variable(variable: &pg_sys::Var, trace: &mut Trace) {
    // SAFETY: a variable's place is one of its query's range table; others (outer references) are not traced.
    unsafe {
        let place = variable.varno as usize;
        let entry = pointers::<pg_sys::RangeTblEntry>((*trace.query).rtable).nth(place.wrapping_sub(1));
        let Some(entry) = entry.filter(|_| variable.varlevelsup == 0) else {
            trace.is_traced = false;
            return;
        };
        match (*entry).rtekind {
            pg_sys::RTEKind::RTE_RELATION => {
                let source = ((*entry).relid.to_u32(), variable.varattno);
                if !trace.sources.contains(&source) {
                    trace.sources.push(source);
                }
            }
            pg_sys::RTEKind::RTE_SUBQUERY => output((*entry).subquery, variable.varattno, trace),
            pg_sys::RTEKind::RTE_JOIN => {
                let number = (variable.varattno as usize).wrapping_sub(1);
                match pointers::<pg_sys::Node>((*entry).joinaliasvars).nth(number) {
                    Some(alias) => drop(walk(alias, core::ptr::from_mut(trace).cast())),
                    None => trace.is_traced = false,
                }
            }
            pg_sys::RTEKind::RTE_RESULT => {}
            _ => match super::compat::grouped_expression(entry, (variable.varattno as usize).wrapping_sub(1)) {
                Some(grouped) => drop(walk(grouped, core::ptr::from_mut(trace).cast())),
                None => trace.is_traced = false,
            },
        }
    }
}
