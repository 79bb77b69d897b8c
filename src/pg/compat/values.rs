//! Descriptors, rows and constants.

use pgrx::pg_sys;

/// A column of a descriptor.
///
/// # Safety
/// `descriptor` must be valid and have more than `at` columns.
pub unsafe fn attribute(descriptor: pg_sys::TupleDesc, at: usize) -> *const pg_sys::FormData_pg_attribute {
    // SAFETY: by the contract. From 18 on the full columns lie behind the compact ones.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        return (*descriptor).attrs.as_ptr().add(at);
        #[cfg(feature = "pg18")]
        {
            let count = (*descriptor).natts as usize;
            (*descriptor).compact_attrs.as_ptr().add(count).cast::<pg_sys::FormData_pg_attribute>().add(at)
        }
    }
}

/// A row of these values; 18 asks besides how much room to leave in front of it.
///
/// # Safety
/// The arrays must be as long as the descriptor.
pub unsafe fn minimal_tuple(
    descriptor: pg_sys::TupleDesc,
    values: *mut pg_sys::Datum,
    nulls: *mut bool,
) -> pg_sys::MinimalTuple {
    // SAFETY: by the contract.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        return pg_sys::heap_form_minimal_tuple(descriptor, values, nulls);
        #[cfg(feature = "pg18")]
        return pg_sys::heap_form_minimal_tuple(descriptor, values, nulls, 0);
    }
}

/// The text of a string node.
///
/// # Safety
/// `node` must be a String node.
pub unsafe fn string_value(node: *const pg_sys::Node) -> *const core::ffi::c_char {
    // SAFETY: by the contract; the node has this shape since 15.
    unsafe { (*node.cast::<pg_sys::String>()).sval }
}

/// The text of a string literal; `None` for another constant.
///
/// # Safety
/// `node` must be an A_Const node, which has this shape since 15.
pub unsafe fn literal<'a>(node: *const pg_sys::Node) -> Option<&'a [u8]> {
    // SAFETY: by the contract; the member of the union follows the tag, which all of them begin with.
    unsafe {
        let constant = &*node.cast::<pg_sys::A_Const>();
        if constant.isnull || constant.val.node.type_ != pg_sys::NodeTag::T_String {
            return None;
        }
        Some(core::ffi::CStr::from_ptr(constant.val.sval.sval).to_bytes())
    }
}
