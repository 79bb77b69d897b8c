//! The names of relations in a text, as the parser sees them.

use super::text::c_string;
use core::ffi::{CStr, c_char, c_void};
use pgrx::{pg_guard, pg_sys};

struct Names<'a> {
    schemas: &'a [u32],
    hashes: Vec<u32>,
}

/// For each relation named in the text, the hash of that name in each schema where Postgres looks for it.
pub(super) fn hashes(text: *const c_char, schemas: &[u32]) -> Vec<u32> {
    let mut names = Names { schemas, hashes: Vec::new() };
    // SAFETY: the text was parsed before without an error; the list lives in the current context.
    unsafe {
        let list = pg_sys::pg_parse_query(text);
        walk(list.cast(), core::ptr::from_mut(&mut names).cast());
    }
    names.hashes.sort_unstable();
    names.hashes.dedup();
    names.hashes
}

#[pg_guard]
unsafe extern "C-unwind" fn walk(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: Postgres's walker passes valid nodes and the context given to it; each cast follows a tag.
    unsafe {
        match (*node).type_ {
            pg_sys::NodeTag::T_RawStmt => walk((*node.cast::<pg_sys::RawStmt>()).stmt, context),
            pg_sys::NodeTag::T_RangeVar => {
                note(&*node.cast::<pg_sys::RangeVar>(), &mut *context.cast::<Names<'_>>());
                false
            }
            pg_sys::NodeTag::T_TypeName => {
                note_type(&*node.cast::<pg_sys::TypeName>(), &mut *context.cast::<Names<'_>>());
                pg_sys::raw_expression_tree_walker(node, Some(walk), context)
            }
            _ => pg_sys::raw_expression_tree_walker(node, Some(walk), context),
        }
    }
}

/// The last part of a type's name, in each schema: a qualified one is over-watched.
fn note_type(kind: &pg_sys::TypeName, names: &mut Names<'_>) {
    // SAFETY: names of a parse tree are lists of strings.
    unsafe {
        let Some(name) = super::plan::pointers::<pg_sys::Node>(kind.names).last() else { return };
        let name = super::compat::string_value(name);
        if CStr::from_ptr(name).count_bytes() < pg_sys::NAMEDATALEN as usize {
            for schema in names.schemas {
                names.hashes.push(super::inval::type_name_hash(name, pg_sys::Oid::from(*schema)));
            }
        }
    }
}

fn note(range: &pg_sys::RangeVar, names: &mut Names<'_>) {
    // SAFETY: names of a parse tree are NUL-terminated and cut to the length of names.
    unsafe {
        if range.relname.is_null() || CStr::from_ptr(range.relname).count_bytes() >= pg_sys::NAMEDATALEN as usize {
            return;
        }
        if !range.schemaname.is_null() && c_string(range.schemaname) != "pg_temp" {
            let schema = pg_sys::get_namespace_oid(range.schemaname, true);
            names.hashes.push(super::inval::relation_name_hash(range.relname, schema));
            return;
        }
        for schema in names.schemas {
            names.hashes.push(super::inval::relation_name_hash(range.relname, pg_sys::Oid::from(*schema)));
        }
    }
}
