//! The object_access hook, of which one event matters here: the executor sets up a function to be called.

use pgrx::pg_sys;

/// Who sees functions as they are set up. Must not raise or panic.
pub trait FunctionObserver: 'static {
    fn executes(function: u32);
}

static mut PREVIOUS: pg_sys::object_access_hook_type = None;

/// Installs the hook. Call once, from `_PG_init`.
pub fn install<O: FunctionObserver>() {
    // SAFETY: `_PG_init` runs once, before any statement.
    unsafe {
        PREVIOUS = pg_sys::object_access_hook;
        pg_sys::object_access_hook = Some(object_access::<O>);
    }
}

unsafe extern "C-unwind" fn object_access<O: FunctionObserver>(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    part: i32,
    argument: *mut core::ffi::c_void,
) {
    if access == pg_sys::ObjectAccessType::OAT_FUNCTION_EXECUTE {
        O::executes(object.to_u32());
    }
    // SAFETY: Postgres's own arguments go on.
    unsafe {
        #[allow(ffi_unwind_calls, reason = "plain frame: a longjmp may cross it")]
        if let Some(previous) = PREVIOUS {
            previous(access, class, object, part, argument);
        }
    }
}
