//! The names of relations in a text, as the parser sees them.

use super::text::c_string;
use core::ffi::{CStr, c_char, c_void};
use pgrx::{pg_guard, pg_sys};

/// What the names and literals of a text say.
#[derive(Default)]
pub struct Names {
    pub hashes: Vec<u32>,
    /// Does a literal hold a word that a date or time type, or a type made of them, reads as the present?
    pub speaks_of_now: bool,
}

/// Types whose values are names in catalogs: reading and printing one looks them up.
pub(super) const NAMING_TYPES: [pg_sys::Oid; 11] = [
    pg_sys::REGPROCOID,
    pg_sys::REGPROCEDUREOID,
    pg_sys::REGOPEROID,
    pg_sys::REGOPERATOROID,
    pg_sys::REGCLASSOID,
    pg_sys::REGCOLLATIONOID,
    pg_sys::REGTYPEOID,
    pg_sys::REGCONFIGOID,
    pg_sys::REGDICTIONARYOID,
    pg_sys::REGROLEOID,
    pg_sys::REGNAMESPACEOID,
];

struct Search<'a> {
    schemas: &'a [u32],
    names: Names,
}

/// For each relation named in the text, the hash of that name in each schema where Postgres looks for it.
pub(super) fn of(text: *const c_char, schemas: &[u32]) -> Names {
    let mut search = Search { schemas, names: Names { hashes: Vec::new(), speaks_of_now: false } };
    // SAFETY: the text was parsed before without an error; the list lives in the current context.
    unsafe {
        let list = pg_sys::pg_parse_query(text);
        walk(list.cast(), core::ptr::from_mut(&mut search).cast());
    }
    let mut names = search.names;
    names.hashes.sort_unstable();
    names.hashes.dedup();
    names
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
                note(&*node.cast::<pg_sys::RangeVar>(), &mut *context.cast::<Search<'_>>());
                false
            }
            pg_sys::NodeTag::T_TypeName => {
                note_type(&*node.cast::<pg_sys::TypeName>(), &mut *context.cast::<Search<'_>>());
                pg_sys::raw_expression_tree_walker(node, Some(walk), context)
            }
            pg_sys::NodeTag::T_A_Const => {
                let literal = super::compat::literal(node);
                (*context.cast::<Search<'_>>()).names.speaks_of_now |= literal.is_some_and(speaks_of_now);
                false
            }
            _ => pg_sys::raw_expression_tree_walker(node, Some(walk), context),
        }
    }
}

/// The last part of a type's name, in each schema: a qualified one is over-watched.
fn note_type(kind: &pg_sys::TypeName, search: &mut Search<'_>) {
    // SAFETY: names of a parse tree are lists of strings.
    unsafe {
        let Some(name) = super::plan::pointers::<pg_sys::Node>(kind.names).last() else { return };
        let name = super::compat::string_value(name);
        if CStr::from_ptr(name).count_bytes() < pg_sys::NAMEDATALEN as usize {
            for schema in search.schemas {
                search.names.hashes.push(super::inval::type_name_hash(name, pg_sys::Oid::from(*schema)));
            }
        }
    }
}

fn note(range: &pg_sys::RangeVar, search: &mut Search<'_>) {
    // SAFETY: names of a parse tree are NUL-terminated and cut to the length of names.
    unsafe {
        if range.relname.is_null() || CStr::from_ptr(range.relname).count_bytes() >= pg_sys::NAMEDATALEN as usize {
            return;
        }
        if !range.schemaname.is_null() && c_string(range.schemaname) != "pg_temp" {
            let schema = pg_sys::get_namespace_oid(range.schemaname, true);
            search.names.hashes.push(super::inval::relation_name_hash(range.relname, schema));
            return;
        }
        for schema in search.schemas {
            search.names.hashes.push(super::inval::relation_name_hash(range.relname, pg_sys::Oid::from(*schema)));
        }
    }
}

/// Does a text hold a word for the present? Arrays, ranges and composites drop quotes and backslashes as they read theirs.
pub(super) fn speaks_of_now(text: &[u8]) -> bool {
    let plain: Vec<u8> = text.iter().filter(|byte| !matches!(byte, b'\\' | b'"')).map(u8::to_ascii_lowercase).collect();
    [&b"now"[..], b"today", b"tomorrow", b"yesterday"]
        .iter()
        .any(|word| plain.windows(word.len()).any(|window| window == *word))
}
