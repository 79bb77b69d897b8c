//! What serves a pattern: a B-tree where its beginning is fixed, trigrams otherwise. Under a guard.

use pgrx::pg_sys;
use steward_core::advisor::demand::TermKind;

/// `text ~~ text` and `bpchar ~~ text`: LIKE (pg_operator.dat).
const LIKE: [u32; 2] = [1209, 1211];
/// LIKE without regard to case, and regular expressions with and without (pg_operator.dat).
const OTHERS: [u32; 3] = [1627, 641, 1228];

/// What kind of index a pattern operator calls for; `None` for another operator, or when nothing serves it.
///
/// # Safety
/// `pattern` must be an expression.
pub unsafe fn kind(
    operator: pg_sys::Oid,
    kind: pg_sys::Oid,
    pattern: *mut pg_sys::Node,
    collation: pg_sys::Oid,
) -> Option<TermKind> {
    let operator = operator.to_u32();
    let is_like = LIKE.contains(&operator);
    if !is_like && !OTHERS.contains(&operator) {
        return None;
    }
    // SAFETY: by the contract; a catalog look-up by name.
    unsafe {
        if is_like && has_prefix(pattern) {
            let opclass = match () {
                () if collation.to_u32() == pg_sys::C_COLLATION_OID.to_u32() => "",
                () if kind == pg_sys::BPCHAROID => "bpchar_pattern_ops",
                () => "text_pattern_ops",
            };
            return Some(TermKind::Prefix { opclass: opclass.to_owned() });
        }
        Some(TermKind::Contains { opclasses: vec![trigrams()?] })
    }
}

/// The operator class of pg_trgm for GIN, with its schema; `None` when the extension is not there.
unsafe fn trigrams() -> Option<String> {
    // SAFETY: a catalog look-up by name; the list is read before it is released.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::CLAAMNAMENSP as i32;
        let method = pg_sys::Datum::from(pg_sys::GIN_AM_OID);
        let name = pg_sys::Datum::from(c"gin_trgm_ops".as_ptr());
        let list = pg_sys::SearchSysCacheList(cache, 2, method, name, pg_sys::Datum::from(0));
        let mut found = None;
        if (*list).n_members > 0 {
            let tuple = &raw mut (**(*list).members.as_ptr()).tuple;
            let class = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_opclass>();
            let schema = pg_sys::get_namespace_name(class.opcnamespace);
            found =
                Some(super::text::c_string(pg_sys::quote_qualified_identifier(schema, class.opcname.data.as_ptr())));
        }
        pg_sys::ReleaseCatCacheList(list);
        found
    }
}

/// Is it a constant that begins with a letter of its own?
unsafe fn has_prefix(pattern: *mut pg_sys::Node) -> bool {
    // SAFETY: by the contract of `kind`; a constant of type text.
    unsafe {
        if (*pattern).type_ != pg_sys::NodeTag::T_Const {
            return false;
        }
        let constant = &*pattern.cast::<pg_sys::Const>();
        if constant.constisnull || constant.consttype != pg_sys::TEXTOID {
            return false;
        }
        let text = pg_sys::pg_detoast_datum_packed(constant.constvalue.cast_mut_ptr());
        let bytes = core::slice::from_raw_parts(pgrx::vardata_any(text).cast::<u8>(), pgrx::varsize_any_exhdr(text));
        !matches!(bytes.first(), None | Some(b'%' | b'_'))
    }
}
