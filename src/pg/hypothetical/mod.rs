//! Indexes that only the planner of this backend sees, for the time of one planning.
//!
//! `define` makes a template out of a CREATE INDEX statement, in memory of the calling statement's; nothing is written to
//! a catalog and no lock but AccessShareLock is taken. `whatif.rs` has the planner believe in nodes made of templates.
//!
//! The functions here are plain frames: they own nothing that drops, and errors of Postgres's pass as they are.

#![allow(ffi_unwind_calls, reason = "plain frames: a longjmp may cross them")]

mod define;
mod node;

pub use define::{Definition, define, define_guarded};

use super::plan::pointers;
use super::statistics::{self, ColumnFacts};
use core::ffi::{c_char, c_void};
use core::ptr;
use pgrx::pg_sys;

// SAFETY: Postgres's own symbols with the signatures of its headers, 15 to 18.
unsafe extern "C-unwind" {
    fn palloc0(size: usize) -> *mut c_void;
}

/// First of the ids that templates go by. Postgres gives out ids from the other end of the numbers.
const FIRST_ID: u32 = 0xffff_0000;

/// How large an index is, as a function of the table that it lies on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Growth {
    /// Pages that are there in any case.
    pub fixed_pages: f64,
    pub pages_per_row: f64,
    pub pages_per_heap_page: f64,
    /// Levels above the leaves of a B-tree, as long as it has about so many pages.
    pub height: i32,
    pub usual_pages: f64,
}

struct Template {
    /// Of the planner's node all that does not depend on the planning.
    info: pg_sys::IndexOptInfo,
    relation: pg_sys::Oid,
    relkind: u8,
    text: *const c_char,
    /// Share of the table's rows that its predicate lets in; below 0 as long as nobody has asked.
    fraction: f64,
    growth: Growth,
    options: Options,
}

/// What WITH says; 0 where it says nothing.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub fillfactor_pct: i32,
    pub pages_per_range: i32,
    pub deduplicates: bool,
}

/// Access methods that can be simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Btree,
    Hash,
    Brin,
    Gin,
}

/// An index that does not exist. A plain handle, alive as long as the memory context it was defined in.
#[derive(Clone, Copy)]
pub struct Hypothetical(*mut Template);

/// Zeroed memory for so many values, of the current context.
unsafe fn array<T>(length: usize) -> *mut T {
    // SAFETY: zeroed memory of the current context.
    unsafe { palloc0(size_of::<T>() * length.max(1)).cast() }
}

/// The place, among those that were added, of the index that a plan names by this id.
pub(in crate::pg) fn place_of(id: u32) -> Option<usize> {
    id.checked_sub(FIRST_ID).map(|place| place as usize)
}

impl Hypothetical {
    /// None at all; nothing may be asked of it.
    pub const NONE: Hypothetical = Hypothetical(ptr::null_mut());

    /// The table that it is defined on.
    pub fn relation(self) -> u32 {
        // SAFETY: a template that is alive.
        unsafe { (*self.0).relation.to_u32() }
    }

    /// The id that a plan names it by.
    pub(in crate::pg) unsafe fn set_id(self, number: usize) {
        // SAFETY: as above.
        unsafe { (*self.0).info.indexoid = pg_sys::Oid::from(FIRST_ID + number as u32) };
    }

    /// Sets how large it is.
    pub fn set_growth(self, growth: Growth) {
        // SAFETY: as above.
        unsafe { (*self.0).growth = growth };
    }

    pub fn growth(self) -> Growth {
        // SAFETY: as above.
        unsafe { (*self.0).growth }
    }

    /// Share of the table's rows that is in it, as the planner last saw it; 1 before.
    pub fn fraction(self) -> f64 {
        // SAFETY: as above.
        unsafe { if (*self.0).fraction < 0.0 { 1.0 } else { (*self.0).fraction } }
    }

    /// The statement that defines it.
    pub fn text<'a>(self) -> &'a [u8] {
        // SAFETY: as above; NUL-terminated text.
        unsafe { core::ffi::CStr::from_ptr((*self.0).text).to_bytes() }
    }

    pub fn options(self) -> Options {
        // SAFETY: as above.
        unsafe { (*self.0).options }
    }

    pub fn method(self) -> Method {
        // SAFETY: as above; no other passes `define`.
        match unsafe { (*self.0).info.relam } {
            pg_sys::HASH_AM_OID => Method::Hash,
            pg_sys::BRIN_AM_OID => Method::Brin,
            pg_sys::GIN_AM_OID => Method::Gin,
            _ => Method::Btree,
        }
    }

    pub fn is_unique(self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.0).info.unique }
    }

    /// Its columns with what is known of them in a table of so many rows, and how many of them are keys. Under a guard.
    pub fn columns(self, rows: f64) -> (Vec<ColumnFacts>, usize) {
        // SAFETY: as above; the arrays are as long as said.
        unsafe {
            let info = &(*self.0).info;
            let mut expressions = pointers::<pg_sys::Node>(info.indexprs);
            let columns = (0..info.ncolumns as usize).map(|at| match *info.indexkeys.add(at) {
                0 => expressions.next().map_or(ColumnFacts::default(), |e| self.expression_facts(e, rows)),
                number => statistics::column_facts(self.relation(), number as i16, rows),
            });
            (columns.collect(), info.nkeycolumns as usize)
        }
    }

    /// An expression over one column is taken to have as many values as the column.
    unsafe fn expression_facts(self, expression: *mut pg_sys::Node, rows: f64) -> ColumnFacts {
        // SAFETY: an expression of the index's.
        unsafe {
            let own = statistics::type_facts(pg_sys::exprType(expression).to_u32(), pg_sys::exprTypmod(expression));
            let mut attributes = ptr::null_mut();
            pg_sys::pull_varattnos(expression, 1, &mut attributes);
            let mut member = -1;
            if !pg_sys::bms_get_singleton_member(attributes, &mut member) {
                return own;
            }
            let number = (member + pg_sys::FirstLowInvalidHeapAttributeNumber) as i16;
            // The whole row, or a system column.
            if number <= 0 {
                return own;
            }
            let column = statistics::column_facts(self.relation(), number, rows);
            match own.is_variable == column.is_variable && own.is_variable {
                true => column,
                false => ColumnFacts { n_distinct: column.n_distinct, null_fraction: column.null_fraction, ..own },
            }
        }
    }

    /// Do all operator classes say that equal values are the same bytes (_bt_allequalimage)? Under a guard.
    pub fn may_deduplicate(self) -> bool {
        const EQUAL_IMAGE: i16 = 4;
        // SAFETY: as above; a support function with the arguments that it takes.
        unsafe {
            let info = &(*self.0).info;
            info.ncolumns == info.nkeycolumns
                && (0..info.nkeycolumns as usize).all(|at| {
                    let kind = *info.opcintype.add(at);
                    let function = pg_sys::get_opfamily_proc(*info.opfamily.add(at), kind, kind, EQUAL_IMAGE);
                    let collation = *info.indexcollations.add(at);
                    function != pg_sys::InvalidOid
                        && pg_sys::OidFunctionCall1Coll(function, collation, kind.into()).value() != 0
                })
        }
    }
}
