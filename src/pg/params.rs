//! Values of bind parameters as text.

use super::query::Query;
use super::shield;
use pgrx::pg_sys;

/// `$1 = 'a', $2 = NULL`, as Postgres logs them, each value cut to `max_bytes`; in the encoding of the
/// database. `None` when there are none or printing failed. Output functions run, so this is for
/// executions that are recorded, and only where the setting allows.
pub fn text(query: Query, max_bytes: i32) -> Option<Vec<u8>> {
    // SAFETY: the parameters live as long as the execution.
    let params = unsafe { (*query.as_ptr()).params };
    if params.is_null() {
        return None;
    }
    shield::in_subtransaction(|| {
        // SAFETY: as above; the result is palloc'd in the current context, copied, and goes with it.
        unsafe {
            let printed = pg_sys::BuildParamLogString(params, core::ptr::null_mut(), max_bytes);
            (!printed.is_null()).then(|| core::ffi::CStr::from_ptr(printed).to_bytes().to_vec())
        }
    })
    .flatten()
}
