//! What types are made of. Catalog look-ups, under a guard.

use pgrx::pg_sys;
use std::collections::HashSet;

/// Types that are looked at for one answer; a type made of more counts as made of anything.
const MAX_PARTS: usize = 10_000;

/// A type and all that it is made of: what a domain is over, the elements of an array, the columns of a composite, the
/// values of a range. Each once.
pub struct Parts {
    pub kinds: Vec<u32>,
    /// There are more.
    pub is_cut: bool,
}

/// The parts of a type, itself first.
pub fn parts(kind: pg_sys::Oid) -> Parts {
    let mut parts = Parts { kinds: vec![kind.to_u32()], is_cut: false };
    let mut seen = HashSet::from([0, kind.to_u32()]);
    // A list, not a recursion: a user can nest types deeper than the stack is.
    let mut at = 0;
    while let Some(kind) = parts.kinds.get(at).copied() {
        at += 1;
        pgrx::check_for_interrupts!();
        parts.kinds.extend(direct_parts(kind).into_iter().filter(|inner| seen.insert(*inner)));
        if parts.kinds.len() > MAX_PARTS {
            parts.is_cut = true;
            break;
        }
    }
    parts
}

/// What pg_type says of a type that matters here.
#[derive(Clone, Copy, Default)]
struct Form {
    /// b, c, d, e, m, p or r.
    sort: u8,
    element: u32,
    base: u32,
    relation: u32,
}

fn form(kind: u32) -> Form {
    // SAFETY: a catalog look-up; the tuple is read before it is released.
    unsafe {
        let key = pg_sys::Datum::from(pg_sys::Oid::from(kind));
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::TYPEOID as i32, key);
        if tuple.is_null() {
            return Form::default();
        }
        let row = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_type>();
        let form = Form {
            sort: row.typtype as u8,
            element: row.typelem.to_u32(),
            base: row.typbasetype.to_u32(),
            relation: row.typrelid.to_u32(),
        };
        pg_sys::ReleaseSysCache(tuple);
        form
    }
}

fn direct_parts(kind: u32) -> Vec<u32> {
    let form = form(kind);
    let oid = pg_sys::Oid::from(kind);
    match form.sort {
        b'd' => vec![form.base],
        // SAFETY: catalog look-ups.
        b'r' | b'm' => unsafe {
            vec![pg_sys::get_range_subtype(oid).to_u32(), pg_sys::get_multirange_range(oid).to_u32()]
        },
        b'c' => columns(form.relation),
        _ => vec![form.element],
    }
}

/// The types of a relation's columns; one that was dropped has none.
fn columns(relation: u32) -> Vec<u32> {
    let relation_id = pg_sys::Oid::from(relation);
    // SAFETY: catalog look-ups.
    (1..=super::relations::column_count(relation))
        .map(|number| unsafe { pg_sys::get_atttype(relation_id, number) }.to_u32())
        .collect()
}

impl Parts {
    /// Is any of them a date or time, which understand 'now' and 'today'?
    pub fn have_datetime(&self) -> bool {
        self.is_cut || self.kinds.iter().any(|kind| super::tree::is_datetime(pg_sys::Oid::from(*kind)))
    }

    /// The domains among them.
    pub fn domains(&self) -> impl Iterator<Item = u32> + '_ {
        self.kinds.iter().copied().filter(|kind| form(*kind).sort == b'd')
    }

    /// The relations whose row types are among them, catalogs too.
    pub fn relations(&self) -> impl Iterator<Item = u32> + '_ {
        self.kinds.iter().map(|kind| form(*kind).relation).filter(|relation| *relation != 0)
    }
}

/// Are values of the type itself names in catalogs, which reading and printing one looks up?
pub fn names_objects(kind: u32) -> bool {
    let kind = pg_sys::Oid::from(kind);
    super::names::NAMING_TYPES.contains(&kind) || kind == pg_sys::ACLITEMOID
}

/// Is it the type that a table or view has for its rows, by the table's name?
pub fn is_row_of_table(kind: u32) -> bool {
    let relation = form(kind).relation;
    // SAFETY: a catalog look-up.
    relation != 0 && unsafe { pg_sys::get_rel_relkind(relation.into()) } as u8 != pg_sys::RELKIND_COMPOSITE_TYPE
}

/// Does the type stand for any of several, so that nothing is known of its values (anyelement and its kin)?
pub fn is_polymorphic(kind: u32) -> bool {
    const NOT: [pg_sys::Oid; 4] = [pg_sys::VOIDOID, pg_sys::RECORDOID, pg_sys::TRIGGEROID, pg_sys::CSTRINGOID];
    form(kind).sort == b'p' && !NOT.contains(&pg_sys::Oid::from(kind))
}
