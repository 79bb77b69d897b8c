//! Settings read where each instruction counts.

use pgrx::guc::{GucEnum, GucSetting};

/// The value without pgrx's check of the thread.
macro_rules! hot_getter {
    ($name:ident, $type:ty) => {
        #[inline(always)]
        pub fn $name(setting: &'static GucSetting<$type>) -> $type {
            // SAFETY: Postgres stores the value there, on this thread only.
            unsafe { *setting.as_ptr() }
        }
    };
}

hot_getter!(bool, bool);
hot_getter!(int, i32);
hot_getter!(float, f64);

/// The number behind an enumeration.
#[inline(always)]
pub fn ordinal<T: GucEnum>(setting: &'static GucSetting<T>) -> i32 {
    // SAFETY: as above; pgrx keeps enumerations as their ordinal.
    unsafe { *setting.as_ptr().cast::<i32>() }
}

/// Has a text setting no value?
#[inline(always)]
pub fn is_empty(setting: &'static GucSetting<Option<std::ffi::CString>>) -> bool {
    // SAFETY: as for `text`.
    unsafe {
        let value: *const core::ffi::c_char = *setting.as_ptr().cast();
        value.is_null() || *value == 0
    }
}

/// The bytes of a text setting; empty for none.
pub fn text(setting: &'static GucSetting<Option<std::ffi::CString>>) -> &'static [u8] {
    // SAFETY: Postgres keeps a NUL-terminated string or NULL there. The slice must not outlive the
    // statement: callers copy.
    unsafe {
        let value: *const core::ffi::c_char = *setting.as_ptr().cast();
        match value.is_null() {
            true => &[],
            false => core::ffi::CStr::from_ptr(value).to_bytes(),
        }
    }
}

/// Who is told before a setting changes. Must not raise or panic.
pub trait Watcher: 'static {
    fn changes();
}

/// Defines a text setting whose changes `W` is told of.
pub fn define_watched_text<W: Watcher>(
    name: &'static core::ffi::CStr,
    what: &'static core::ffi::CStr,
    setting: &'static GucSetting<Option<std::ffi::CString>>,
) {
    // SAFETY: the hook is a plain function of the right type that lives for ever.
    unsafe {
        pgrx::pg_sys::DefineCustomStringVariable(
            name.as_ptr(),
            what.as_ptr(),
            c"".as_ptr(),
            setting.as_ptr().cast(),
            c"".as_ptr(),
            pgrx::pg_sys::GucContext::PGC_USERSET,
            0,
            None,
            Some(assign::<W>),
            None,
        );
    }
}

unsafe extern "C-unwind" fn assign<W: Watcher>(
    _new: *const core::ffi::c_char,
    _extra: *mut core::ffi::c_void,
) {
    W::changes();
}

/// Refuses settings of this prefix that nobody defined.
pub fn reserve_prefix(prefix: &'static core::ffi::CStr) {
    // SAFETY: a NUL-terminated string that lives for ever; called after the settings were defined.
    unsafe { pgrx::pg_sys::MarkGUCPrefixReserved(prefix.as_ptr()) };
}
