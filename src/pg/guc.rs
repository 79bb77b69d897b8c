//! Settings read where each instruction counts.

use pgrx::guc::{GucEnum, GucSetting};

/// A setting whose value is one machine word.
pub trait Word: Copy {}
impl Word for bool {}
impl Word for i32 {}
impl Word for f64 {}

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

/// Refuses settings of this prefix that nobody defined.
pub fn reserve_prefix(prefix: &'static core::ffi::CStr) {
    // SAFETY: a NUL-terminated string that lives for ever; called after the settings were defined.
    unsafe { pgrx::pg_sys::MarkGUCPrefixReserved(prefix.as_ptr()) };
}
