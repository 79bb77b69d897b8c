//! Relations as the catalogs describe them.

use super::plan::pointers;
use super::text::c_string;
use super::tree::Tree;
use pgrx::pg_sys;

/// What pg_class says of a relation.
pub struct Relation {
    /// `r`, `p`, `v`, `m`, `f`, `S`, `t`, `c`.
    pub kind: u8,
    pub is_temporary: bool,
    /// Made by initdb, or a part of one that was.
    pub is_catalog: bool,
    /// Stored by Postgres's own table access method, or not stored at all.
    pub is_heap: bool,
    pub has_children: bool,
}

/// The relation with this id. `None`: it is gone.
pub fn describe(oid: u32) -> Option<Relation> {
    // SAFETY: a catalog look-up in the caller's transaction; the tuple is read before it is released.
    unsafe {
        let key = pg_sys::Datum::from(pg_sys::Oid::from(oid));
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as i32, key);
        if tuple.is_null() {
            return None;
        }
        let form = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let relation = Relation {
            kind: form.relkind as u8,
            is_temporary: form.relpersistence as u8 == b't',
            is_catalog: oid < pg_sys::FirstNormalObjectId,
            is_heap: form.relam == pg_sys::InvalidOid || form.relam == pg_sys::HEAP_TABLE_AM_OID,
            has_children: form.relhassubclass,
        };
        pg_sys::ReleaseSysCache(tuple);
        Some(relation)
    }
}

/// All relations that inherit from this one, partitions at any depth; itself first.
pub fn with_children(oid: u32) -> Vec<u32> {
    // SAFETY: a scan of pg_inherits; the list of ids is copied.
    unsafe {
        let list = super::compat::find_all_inheritors(pg_sys::Oid::from(oid), pg_sys::NoLock as i32);
        match list.as_ref() {
            Some(list) => core::slice::from_raw_parts(list.elements, list.length as usize)
                .iter()
                .map(|cell| cell.oid_value.to_u32())
                .collect(),
            None => Vec::new(),
        }
    }
}

/// Its name with its schema, quoted where needed; empty when it is gone.
pub fn qualified_name(oid: u32) -> String {
    // SAFETY: catalog look-ups; NULL for what is gone.
    unsafe {
        let oid = pg_sys::Oid::from(oid);
        let name = pg_sys::get_rel_name(oid);
        if name.is_null() {
            return String::new();
        }
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(oid));
        c_string(pg_sys::quote_qualified_identifier(schema, name))
    }
}

/// Name of a column as it stands in SQL; empty when it is gone.
pub fn quoted_column(oid: u32, attribute: i16) -> String {
    // SAFETY: a catalog look-up; NULL when missing is allowed.
    unsafe {
        let name = pg_sys::get_attname(pg_sys::Oid::from(oid), attribute, true);
        if name.is_null() { String::new() } else { c_string(pg_sys::quote_identifier(name)) }
    }
}

/// Name of a collation with its schema, as it stands in SQL.
pub fn qualified_collation(oid: u32) -> String {
    // SAFETY: a catalog look-up; the tuple is read before it is released.
    unsafe {
        let key = pg_sys::Datum::from(pg_sys::Oid::from(oid));
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::COLLOID as i32, key);
        if tuple.is_null() {
            return String::new();
        }
        let collation = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_collation>();
        let schema = pg_sys::get_namespace_name(collation.collnamespace);
        let name = c_string(pg_sys::quote_qualified_identifier(schema, collation.collname.data.as_ptr()));
        pg_sys::ReleaseSysCache(tuple);
        name
    }
}

/// Is it an index, of a table or of a partitioned one?
pub fn is_index(oid: u32) -> bool {
    // SAFETY: a catalog look-up.
    let kind = unsafe { pg_sys::get_rel_relkind(pg_sys::Oid::from(oid)) } as u8;
    kind == pg_sys::RELKIND_INDEX || kind == pg_sys::RELKIND_PARTITIONED_INDEX
}

/// Runs `visit` on what the relation itself evaluates when it is read: a view's query, the policies of a table with row
/// security. The caller's transaction holds a lock on it already, from having read it.
pub fn with_own_trees(oid: u32, mut visit: impl FnMut(Tree)) {
    // SAFETY: the relation is open while its trees are used; opening it again takes the lock that is held.
    unsafe {
        let relation = pg_sys::try_relation_open(pg_sys::Oid::from(oid), pg_sys::AccessShareLock as i32);
        if relation.is_null() {
            return;
        }
        if (*(*relation).rd_rel).relkind as u8 == b'v' {
            visit(Tree::new(pg_sys::get_view_query(relation).cast()));
        }
        if let Some(security) = (*relation).rd_rsdesc.as_ref() {
            for policy in pointers::<pg_sys::RowSecurityPolicy>(security.policies) {
                visit(Tree::new((*policy).qual.cast()));
            }
        }
        pg_sys::relation_close(relation, pg_sys::NoLock as i32);
    }
}

/// Name of a column; empty when it is gone.
pub fn column_name(oid: u32, attribute: i16) -> String {
    // SAFETY: a catalog look-up; NULL when missing is allowed.
    unsafe { c_string(pg_sys::get_attname(pg_sys::Oid::from(oid), attribute, true)) }
}

/// How many columns it has had, dropped ones included.
pub fn column_count(oid: u32) -> i16 {
    // SAFETY: a catalog look-up; the tuple is read before it is released.
    unsafe {
        let key = pg_sys::Datum::from(pg_sys::Oid::from(oid));
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as i32, key);
        if tuple.is_null() {
            return 0;
        }
        let count = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>()).relnatts;
        pg_sys::ReleaseSysCache(tuple);
        count
    }
}

/// The label that pg_steward's provider has for a relation (`attribute` 0) or a column.
pub fn label(oid: u32, attribute: i16) -> Option<String> {
    let object = pg_sys::ObjectAddress {
        classId: pg_sys::RelationRelationId,
        objectId: pg_sys::Oid::from(oid),
        objectSubId: i32::from(attribute),
    };
    // SAFETY: a catalog look-up; the text is copied.
    unsafe {
        let label = pg_sys::GetSecurityLabel(&object, c"pg_steward".as_ptr());
        (!label.is_null()).then(|| c_string(label))
    }
}

/// The id of a relation in the extension's own schema; 0 when it is not there.
pub fn in_extension_schema(name: &core::ffi::CStr) -> u32 {
    // SAFETY: catalog look-ups by NUL-terminated names.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"steward".as_ptr(), true);
        pg_sys::get_relname_relid(name.as_ptr(), schema).to_u32()
    }
}
