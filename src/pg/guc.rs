//! Settings read where each instruction counts.

use core::ffi::{CStr, c_char, c_void};
use pgrx::guc::{GucEnum, GucSetting, GucValue};
use pgrx::pg_sys;
use std::ffi::CString;

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
pub fn is_empty(setting: &'static GucSetting<Option<CString>>) -> bool {
    // SAFETY: as for `text`.
    unsafe {
        let value: *const c_char = *setting.as_ptr().cast();
        value.is_null() || *value == 0
    }
}

/// The bytes of a text setting; empty for none.
pub fn text(setting: &'static GucSetting<Option<CString>>) -> &'static [u8] {
    // SAFETY: Postgres keeps a NUL-terminated string or NULL there. The slice must not outlive the
    // statement: callers copy.
    unsafe {
        let value: *const c_char = *setting.as_ptr().cast();
        match value.is_null() {
            true => &[],
            false => CStr::from_ptr(value).to_bytes(),
        }
    }
}

/// Who is told of changes, where a value is derived from settings or something ends with the old one. The
/// methods run in assign hooks: they must not raise or panic, and must work in any state of the backend.
pub trait Watcher: 'static {
    /// `pg_steward.request_id` is about to change.
    fn request_changes();
    /// `pg_steward.slow_threshold` is about to become so many milliseconds.
    fn slow_threshold_changes(threshold_ms: i32);
    /// `pg_steward.sample_rate` is about to change.
    fn sample_rate_changes(rate: f64);
    /// One of the settings that say what is tracked is about to change.
    fn tracking_changes();
}

/// How a watched setting is presented.
pub struct Watched<T: GucValue + 'static> {
    pub name: &'static CStr,
    pub what: &'static CStr,
    pub more: &'static CStr,
    pub setting: &'static GucSetting<T>,
}

/// Defines the setting of the request id.
pub fn define_request_id<W: Watcher>(watched: &Watched<Option<CString>>) {
    // SAFETY: the hook is a plain function of the right type that lives for ever; all strings do.
    unsafe {
        pg_sys::DefineCustomStringVariable(
            watched.name.as_ptr(),
            watched.what.as_ptr(),
            watched.more.as_ptr(),
            watched.setting.as_ptr().cast(),
            c"".as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            0,
            None,
            Some(assign_request::<W>),
            None,
        );
    }
}

/// Defines the setting of the threshold.
pub fn define_slow_threshold<W: Watcher>(watched: &Watched<i32>, default_ms: i32) {
    // SAFETY: as above.
    unsafe {
        pg_sys::DefineCustomIntVariable(
            watched.name.as_ptr(),
            watched.what.as_ptr(),
            watched.more.as_ptr(),
            watched.setting.as_ptr(),
            default_ms,
            -1,
            i32::MAX,
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GUC_UNIT_MS as i32,
            None,
            Some(assign_threshold::<W>),
            None,
        );
    }
}

/// Defines the setting of the sampling rate.
pub fn define_sample_rate<W: Watcher>(watched: &Watched<f64>, default: f64) {
    // SAFETY: as above.
    unsafe {
        pg_sys::DefineCustomRealVariable(
            watched.name.as_ptr(),
            watched.what.as_ptr(),
            watched.more.as_ptr(),
            watched.setting.as_ptr(),
            default,
            0.0,
            1.0,
            pg_sys::GucContext::PGC_SUSET,
            0,
            None,
            Some(assign_rate::<W>),
            None,
        );
    }
}

/// Defines a switch that says what is tracked.
pub fn define_tracking_switch<W: Watcher>(watched: &Watched<bool>) {
    // SAFETY: as above; the static holds the default until it is defined.
    unsafe {
        pg_sys::DefineCustomBoolVariable(
            watched.name.as_ptr(),
            watched.what.as_ptr(),
            watched.more.as_ptr(),
            watched.setting.as_ptr(),
            *watched.setting.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            0,
            None,
            Some(assign_switch::<W>),
            None,
        );
    }
}

/// Defines the enumeration that says what is tracked.
pub fn define_tracking_choice<W: Watcher, T: GucEnum + GucValue<Raw = i32>>(watched: &Watched<T>, default: T) {
    // SAFETY: as above; pgrx's derive made the list of entries, which lives for ever.
    unsafe {
        // Postgres wants to find the default in the variable; pgrx keeps 0 there.
        *watched.setting.as_ptr() = default.to_ordinal();
        pg_sys::DefineCustomEnumVariable(
            watched.name.as_ptr(),
            watched.what.as_ptr(),
            watched.more.as_ptr(),
            watched.setting.as_ptr(),
            default.to_ordinal(),
            T::CONFIG_ENUM_ENTRY,
            pg_sys::GucContext::PGC_SUSET,
            0,
            None,
            Some(assign_choice::<W>),
            None,
        );
    }
}

unsafe extern "C-unwind" fn assign_switch<W: Watcher>(_new: bool, _extra: *mut c_void) {
    W::tracking_changes();
}

unsafe extern "C-unwind" fn assign_choice<W: Watcher>(_new: i32, _extra: *mut c_void) {
    W::tracking_changes();
}

unsafe extern "C-unwind" fn assign_request<W: Watcher>(_new: *const c_char, _extra: *mut c_void) {
    W::request_changes();
}

unsafe extern "C-unwind" fn assign_threshold<W: Watcher>(new: i32, _extra: *mut c_void) {
    W::slow_threshold_changes(new);
}

unsafe extern "C-unwind" fn assign_rate<W: Watcher>(new: f64, _extra: *mut c_void) {
    W::sample_rate_changes(new);
}

/// Gives a setting a value for the life of this process that no configuration file takes back.
pub fn override_setting(name: &'static CStr, value: &'static CStr) {
    // SAFETY: NUL-terminated strings; called from a background worker of ours, outside a transaction.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}

/// Refuses settings of this prefix that nobody defined.
pub fn reserve_prefix(prefix: &'static CStr) {
    // SAFETY: a NUL-terminated string that lives for ever; called after the settings were defined.
    unsafe { pg_sys::MarkGUCPrefixReserved(prefix.as_ptr()) };
}
