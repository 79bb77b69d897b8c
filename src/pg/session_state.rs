//! What a session has set that an answer may depend on: settings, search path, roles.

#![allow(ffi_unwind_calls, reason = "plain frames: a longjmp may cross them")]

use super::{compat, raw};
use core::cell::{Cell, RefCell};
use core::ffi::{CStr, c_char, c_int};
use pgrx::pg_sys;

/// Settings on which values, their text form or the meaning of a statement may depend although it names none of them.
const NAMES: [&CStr; 20] = [
    c"DateStyle",
    c"IntervalStyle",
    c"TimeZone",
    c"timezone_abbreviations",
    c"extra_float_digits",
    c"bytea_output",
    c"xmlbinary",
    c"xmloption",
    c"array_nulls",
    c"transform_null_equals",
    c"default_text_search_config",
    c"lc_monetary",
    c"lc_numeric",
    c"lc_time",
    c"quote_all_identifiers",
    c"row_security",
    c"standard_conforming_strings",
    c"backslash_quote",
    c"gin_fuzzy_search_limit",
    c"restrict_nonsystem_relation_kind",
];

/// Where a setting's value lies.
#[derive(Clone, Copy)]
enum Place {
    Missing,
    Bool(*const bool),
    Int(*const c_int),
    Real(*const f64),
    Text(*const *const c_char),
}

static PLACES: super::backend::BackendStatic<Cell<Option<[Place; NAMES.len()]>>> =
    super::backend::BackendStatic::new(Cell::new(None));

/// # Safety
/// `setting` must be one of Postgres's.
unsafe fn place(setting: *mut pg_sys::config_generic) -> Place {
    use pg_sys::config_type::*;
    // SAFETY: each cast follows the type that the setting says it has.
    unsafe {
        match (*setting).vartype {
            PGC_BOOL => Place::Bool((*setting.cast::<pg_sys::config_bool>()).variable),
            PGC_INT => Place::Int((*setting.cast::<pg_sys::config_int>()).variable),
            PGC_ENUM => Place::Int((*setting.cast::<pg_sys::config_enum>()).variable),
            PGC_REAL => Place::Real((*setting.cast::<pg_sys::config_real>()).variable),
            PGC_STRING => Place::Text((*setting.cast::<pg_sys::config_string>()).variable.cast()),
            _ => Place::Missing,
        }
    }
}

/// The settings' records do not move once a backend runs, so their places are looked up once.
#[inline(never)]
fn find_places() -> [Place; NAMES.len()] {
    let mut places = [Place::Missing; NAMES.len()];
    // SAFETY: Postgres's own list of settings.
    unsafe {
        for setting in compat::settings() {
            let name = CStr::from_ptr((*setting).name);
            if let Some(at) = NAMES.iter().position(|wanted| *wanted == name) {
                places[at] = place(setting);
            }
        }
    }
    PLACES.set(Some(places));
    places
}

/// The values of these settings when they were last looked at, and how often they had changed by then.
static KEPT: super::backend::BackendStatic<RefCell<(Vec<u8>, u64)>> =
    super::backend::BackendStatic::new(RefCell::new((Vec::new(), 0)));

/// The values of these settings, in a form that is equal only for equal values, and a number that changes with them.
#[inline]
pub fn with_settings<R>(look: impl FnOnce(&[u8], u64) -> R) -> R {
    let places = PLACES.get().unwrap_or_else(find_places);
    let mut kept = KEPT.borrow_mut();
    if !are_as_kept(&places, &kept.0) {
        keep_settings(&places, &mut kept);
    }
    look(&kept.0, kept.1)
}

/// Compares in place: a text byte by byte up to the first that differs, so never beyond its end.
#[inline]
fn are_as_kept(places: &[Place; NAMES.len()], kept: &[u8]) -> bool {
    let mut rest = kept;
    for place in places {
        // SAFETY: the variables of Postgres's settings; texts are NUL-terminated or NULL.
        let same = unsafe {
            match place {
                Place::Missing => take(&mut rest, &[0xff]),
                Place::Bool(value) => take(&mut rest, &[u8::from(**value)]),
                Place::Int(value) => take(&mut rest, &(**value).to_ne_bytes()),
                Place::Real(value) => take(&mut rest, &(**value).to_ne_bytes()),
                Place::Text(value) if (**value).is_null() => take(&mut rest, &[0]),
                Place::Text(value) => {
                    let mut at = 0;
                    loop {
                        let byte = *(**value).add(at) as u8;
                        if rest.get(at) != Some(&byte) {
                            break false;
                        }
                        at += 1;
                        if byte == 0 {
                            rest = &rest[at..];
                            break true;
                        }
                    }
                }
            }
        };
        if !same {
            return false;
        }
    }
    rest.is_empty()
}

#[inline(always)]
fn take(rest: &mut &[u8], bytes: &[u8]) -> bool {
    match rest.strip_prefix(bytes) {
        Some(after) => {
            *rest = after;
            true
        }
        None => false,
    }
}

#[inline(never)]
fn keep_settings(places: &[Place; NAMES.len()], kept: &mut (Vec<u8>, u64)) {
    let out = &mut kept.0;
    out.clear();
    for place in places {
        // SAFETY: as above.
        unsafe {
            match place {
                Place::Missing => out.push(0xff),
                Place::Bool(value) => out.push(u8::from(**value)),
                Place::Int(value) => out.extend_from_slice(&(**value).to_ne_bytes()),
                Place::Real(value) => out.extend_from_slice(&(**value).to_ne_bytes()),
                Place::Text(value) if (**value).is_null() => out.push(0),
                Place::Text(value) => out.extend_from_slice(CStr::from_ptr(**value).to_bytes_with_nul()),
            }
        }
    }
    kept.1 += 1;
}

/// The names of those settings and their values at present.
pub fn settings() -> Vec<(String, String)> {
    NAMES.iter().map(|name| (name.to_string_lossy().into_owned(), setting(name).unwrap_or_default())).collect()
}

/// A setting's value as SHOW gives it; `None`: there is no such setting. Raises when the caller may not see it.
pub fn setting(name: &CStr) -> Option<String> {
    // SAFETY: a NUL-terminated name; the value is copied at once.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, true);
        (!value.is_null()).then(|| super::text::c_string(value))
    }
}

/// The same as bytes, valid until the next setting is read; unset and empty differ. Never raises: whether the caller may
/// see it is not asked here (`is_restricted`).
pub fn setting_bytes<'a>(name: &CStr) -> Option<&'a [u8]> {
    // SAFETY: as above.
    unsafe {
        let value = raw::GetConfigOption(name.as_ptr(), true, false);
        if value.is_null() {
            // One that was set and reset is there, and reads as empty.
            return is_known(name).then_some(&[]);
        }
        Some(CStr::from_ptr(value).to_bytes())
    }
}

/// Is there a setting of this name?
#[inline(never)]
fn is_known(name: &CStr) -> bool {
    // SAFETY: Postgres's own list.
    compat::settings()
        .any(|setting| unsafe { CStr::from_ptr((*setting).name).to_bytes().eq_ignore_ascii_case(name.to_bytes()) })
}

/// Is it a setting that only some roles may see?
pub fn is_restricted(name: &CStr) -> bool {
    // SAFETY: Postgres's own list.
    compat::settings().any(|setting| unsafe {
        CStr::from_ptr((*setting).name).to_bytes().eq_ignore_ascii_case(name.to_bytes())
            && (*setting).flags & pg_sys::GUC_SUPERUSER_ONLY as c_int != 0
    })
}

/// Appends every custom setting (those with a dot in their name), except those that begin with `but`.
pub fn write_custom_settings(out: &mut Vec<u8>, but: &[u8]) {
    // SAFETY: Postgres's own list; values as in `write_settings`.
    unsafe {
        for setting in compat::settings() {
            let name = CStr::from_ptr((*setting).name).to_bytes_with_nul();
            if (*setting).group != pg_sys::config_group::CUSTOM_OPTIONS || (!but.is_empty() && name.starts_with(but)) {
                continue;
            }
            // PL/pgSQL's own appear when it is first used; at their defaults they say nothing.
            if name.starts_with(b"plpgsql.") && (*setting).source == pg_sys::GucSource::PGC_S_DEFAULT {
                continue;
            }
            out.extend_from_slice(name);
            match place(setting) {
                Place::Missing => {}
                Place::Bool(value) => out.push(u8::from(*value)),
                Place::Int(value) => out.extend_from_slice(&(*value).to_ne_bytes()),
                Place::Real(value) => out.extend_from_slice(&(*value).to_ne_bytes()),
                Place::Text(value) if (*value).is_null() => out.push(1),
                Place::Text(value) => {
                    out.push(2);
                    out.extend_from_slice(CStr::from_ptr(*value).to_bytes_with_nul());
                }
            }
        }
    }
}

/// The search path as Postgres resolved it.
#[derive(Clone, Copy)]
pub struct SearchPath(*mut compat::SearchPath);

impl SearchPath {
    /// As it is now, kept in `context`.
    pub(super) fn current(context: pg_sys::MemoryContext) -> Self {
        // SAFETY: in a transaction; the copy lives as long as the context.
        Self(unsafe { compat::search_path(context) })
    }

    /// Does it still resolve to the same schemas? May raise: the caller owns nothing that drops.
    #[inline(always)]
    pub fn is_current(self) -> bool {
        // SAFETY: made by `current`, whose context the caller knows to be alive.
        unsafe { compat::search_path_matches(self.0) }
    }

    /// Which schemas are searched without being named, as bits: `pg_temp`, `pg_catalog`. New objects go to the first of the
    /// others, and that is `current_schema`.
    pub fn implicit(self) -> u8 {
        // SAFETY: as above.
        let path = unsafe { &*self.0 };
        u8::from(path.addTemp) | u8::from(path.addCatalog) << 1
    }

    /// The schemas, `pg_temp` (when it is there) and `pg_catalog` where they are searched implicitly among them.
    pub fn schemas(self) -> Vec<u32> {
        // SAFETY: as above; a list of ids.
        unsafe {
            let path = &*self.0;
            let mut found = Vec::new();
            if path.addTemp {
                found.push(temporary_schema());
            }
            if path.addCatalog {
                found.push(pg_sys::PG_CATALOG_NAMESPACE);
            }
            if let Some(list) = path.schemas.as_ref() {
                let cells = core::slice::from_raw_parts(list.elements, list.length as usize);
                found.extend(cells.iter().map(|cell| cell.oid_value.to_u32()));
            }
            found
        }
    }
}

/// This session's schema of temporary objects; 0 for none.
pub fn temporary_schema() -> u32 {
    let (mut schema, mut toast) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
    // SAFETY: reads the backend's state.
    unsafe { pg_sys::GetTempNamespaceState(&mut schema, &mut toast) };
    schema.to_u32()
}

/// The role that the session was authenticated as, or SET SESSION AUTHORIZATION chose.
pub fn session_user_id() -> u32 {
    // SAFETY: reads a static.
    unsafe { pg_sys::GetSessionUserId() }.to_u32()
}

/// Name of a role; empty when it is gone.
pub fn role_name(role: u32) -> String {
    // SAFETY: a catalog look-up; NULL for a role that is gone.
    unsafe { super::text::c_string(pg_sys::GetUserNameFromId(pg_sys::Oid::from(role), true)) }
}

/// The schemas that are searched, by name, `pg_catalog` among them where it is searched implicitly.
pub fn schemas_of_path() -> Vec<String> {
    // SAFETY: in a transaction; the path lives in the current context.
    let path = SearchPath::current(unsafe { pg_sys::CurrentMemoryContext });
    // SAFETY: catalog look-ups; NULL for a schema that is gone.
    path.schemas()
        .iter()
        .map(|schema| unsafe { super::text::c_string(pg_sys::get_namespace_name(pg_sys::Oid::from(*schema))) })
        .collect()
}
