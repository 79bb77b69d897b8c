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
        let trigrams = pg_sys::OpclassnameGetOpcid(pg_sys::GIN_AM_OID, c"gin_trgm_ops".as_ptr());
        let serves = trigrams != pg_sys::InvalidOid;
        serves.then(|| TermKind::Contains { opclasses: vec!["gin_trgm_ops".to_owned()] })
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
