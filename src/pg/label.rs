//! The provider of security labels.

use pgrx::{pg_guard, pg_sys};

/// Who says which labels are good.
pub trait LabelObserver: 'static {
    /// A relation (`is_column` false) or a column is to be labelled. `Err` holds what is accepted.
    fn check(is_column: bool, label: &str) -> Result<(), String>;
}

/// Registers the provider. Call once, from `_PG_init`.
pub fn install<O: LabelObserver>() {
    // SAFETY: the name and the function live as long as the library.
    unsafe { pg_sys::register_label_provider(c"pg_steward".as_ptr(), Some(relabel::<O>)) };
}

#[pg_guard]
unsafe extern "C-unwind" fn relabel<O: LabelObserver>(
    object: *const pg_sys::ObjectAddress,
    label: *const core::ffi::c_char,
) {
    // SAFETY: Postgres passes the object, and a NUL-terminated label or NULL to remove one.
    let (object, label) = unsafe { (&*object, (!label.is_null()).then(|| super::text::c_string(label))) };
    let Some(label) = label else { return };
    if object.classId != pg_sys::RelationRelationId {
        pgrx::ereport!(
            ERROR,
            pgrx::PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "pg_steward labels tables, views and their columns only"
        );
    }
    if let Err(accepted) = O::check(object.objectSubId != 0, &label) {
        pgrx::ereport!(
            ERROR,
            pgrx::PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("security label \"{label}\" is not known, expected {accepted}")
        );
    }
}
