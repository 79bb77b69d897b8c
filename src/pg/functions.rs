//! Functions as the catalogs describe them.

use super::text::c_string;
use pgrx::pg_sys;

/// Language of a function, as far as its body matters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Compiled into the server.
    Internal,
    C,
    Sql,
    PlPgSql,
    Other,
}

/// What pg_proc says of a function.
pub struct Function {
    pub oid: u32,
    pub name: String,
    /// `i`, `s` or `v`.
    pub volatility: u8,
    pub is_aggregate: bool,
    pub language: Language,
    /// Text of the body, of languages that have one.
    pub body: String,
    /// Made by initdb in pg_catalog.
    pub is_builtin: bool,
    /// Does it take or return a date or time, a domain or a composite, to which a body may assign text?
    pub has_convertible_types: bool,
}

const PG_CATALOG: u32 = 11;
const FIRST_NORMAL: u32 = pg_sys::FirstNormalObjectId;

fn syscache_text(tuple: pg_sys::HeapTuple, attribute: u32) -> Option<String> {
    let mut is_null = false;
    // SAFETY: a tuple of pg_proc from the cache, and an attribute of type text.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::PROCOID as i32;
        let datum = pg_sys::SysCacheGetAttr(cache, tuple, attribute as i16, &mut is_null);
        (!is_null).then(|| c_string(pg_sys::text_to_cstring(datum.cast_mut_ptr())))
    }
}

/// The function with this id. `None`: it is gone.
pub fn describe(oid: u32) -> Option<Function> {
    // SAFETY: a catalog look-up in the caller's transaction; the tuple is read before it is released.
    unsafe {
        let key = pg_sys::Datum::from(pg_sys::Oid::from(oid));
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::PROCOID as i32, key);
        if tuple.is_null() {
            return None;
        }
        let form = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>();
        let function = Function {
            oid,
            name: c_string(form.proname.data.as_ptr()),
            volatility: form.provolatile as u8,
            is_aggregate: form.prokind as u8 == b'a',
            language: language(form.prolang),
            body: syscache_text(tuple, pg_sys::Anum_pg_proc_prosqlbody)
                .map(|_| String::new())
                .or_else(|| syscache_text(tuple, pg_sys::Anum_pg_proc_prosrc))
                .unwrap_or_default(),
            is_builtin: form.pronamespace.to_u32() == PG_CATALOG && oid < FIRST_NORMAL,
            has_convertible_types: is_convertible(form.prorettype)
                || core::slice::from_raw_parts(form.proargtypes.values.as_ptr(), form.pronargs.max(0) as usize)
                    .iter()
                    .any(|kind| is_convertible(*kind)),
        };
        pg_sys::ReleaseSysCache(tuple);
        Some(function)
    }
}

fn is_convertible(kind: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up.
    super::tree::is_datetime(kind) || matches!(unsafe { pg_sys::get_typtype(kind) } as u8, b'c' | b'd')
}

/// The tree of a body that was written as BEGIN ATOMIC or RETURN; it lives in the current context.
pub fn parsed_body(oid: u32) -> Option<super::tree::Tree> {
    // SAFETY: as above; the column holds a node tree that Postgres itself wrote.
    unsafe {
        let key = pg_sys::Datum::from(pg_sys::Oid::from(oid));
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::PROCOID as i32, key);
        if tuple.is_null() {
            return None;
        }
        let source = syscache_text(tuple, pg_sys::Anum_pg_proc_prosqlbody);
        pg_sys::ReleaseSysCache(tuple);
        let source = std::ffi::CString::new(source?).ok()?;
        Some(super::tree::Tree::new(pg_sys::stringToNode(source.as_ptr()).cast()))
    }
}

fn language(oid: pg_sys::Oid) -> Language {
    // INTERNALlanguageId, ClanguageId and SQLlanguageId of pg_language.h.
    match oid.to_u32() {
        12 => Language::Internal,
        13 => Language::C,
        14 => Language::Sql,
        // SAFETY: a catalog look-up; NULL for a language that is gone.
        _ => match unsafe { c_string(pg_sys::get_language_name(oid, true)) }.as_str() {
            "plpgsql" => Language::PlPgSql,
            _ => Language::Other,
        },
    }
}

/// The start of a row of pg_aggregate, which pgrx has no declaration for: unchanged since 11.
#[repr(C)]
struct AggregateForm {
    _function: pg_sys::Oid,
    _kind: core::ffi::c_char,
    _direct_arguments: i16,
    /// Transition, final, combine, serialisation, deserialisation, moving transition, its inverse, moving final.
    functions: [pg_sys::Oid; 8],
}

/// The functions that an aggregate runs: transition, final, combine, serialisation, moving ones.
pub fn of_aggregate(oid: u32) -> Vec<u32> {
    // SAFETY: as above.
    unsafe {
        let key = pg_sys::Datum::from(pg_sys::Oid::from(oid));
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::AGGFNOID as i32, key);
        if tuple.is_null() {
            return Vec::new();
        }
        let form = &*pg_sys::GETSTRUCT(tuple).cast::<AggregateForm>();
        let all = form.functions;
        pg_sys::ReleaseSysCache(tuple);
        all.iter().map(|oid| oid.to_u32()).filter(|oid| *oid != 0).collect()
    }
}

/// Every function of this name, whatever its schema and arguments.
pub fn named(name: &str) -> Vec<u32> {
    listed(name, pg_sys::SysCacheIdentifier::PROCNAMEARGSNSP, |tuple| {
        // SAFETY: tuples of pg_proc.
        unsafe { (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>()).oid.to_u32() }
    })
}

/// The functions behind every operator of this name.
pub fn of_operator(name: &str) -> Vec<u32> {
    listed(name, pg_sys::SysCacheIdentifier::OPERNAMENSP, |tuple| {
        // SAFETY: tuples of pg_operator.
        unsafe { (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_operator>()).oprcode.to_u32() }
    })
}

fn listed(name: &str, cache: pg_sys::SysCacheIdentifier::Type, value: fn(pg_sys::HeapTuple) -> u32) -> Vec<u32> {
    // A longer name is no name: Postgres cuts them.
    if name.len() >= pg_sys::NAMEDATALEN as usize {
        return Vec::new();
    }
    let Ok(name) = std::ffi::CString::new(super::text::from_utf8(name)) else { return Vec::new() };
    // SAFETY: a catalog look-up by a NUL-terminated name; the list is read before it is released.
    unsafe {
        let key = pg_sys::Datum::from(name.as_ptr());
        let none = pg_sys::Datum::from(0);
        let list = pg_sys::SearchSysCacheList(cache as i32, 1, key, none, none);
        let members = (*list).members.as_ptr();
        let found = (0..(*list).n_members as usize).map(|at| value(&raw mut (**members.add(at)).tuple)).collect();
        pg_sys::ReleaseCatCacheList(list);
        found
    }
}

/// May the current user run it? As the executor asks when it sets up the call.
pub fn may_execute(oid: u32) -> bool {
    super::compat::may_execute(oid)
}

/// The function that an operator calls; 0 for one that is gone.
pub fn behind_operator(operator: u32) -> u32 {
    // SAFETY: a catalog look-up.
    unsafe { pg_sys::get_opcode(pg_sys::Oid::from(operator)) }.to_u32()
}

/// The functions behind all casts that users made.
pub fn of_casts() -> Vec<u32> {
    super::spi::rows(
        c"SELECT castfunc::pg_catalog.oid::pg_catalog.text FROM pg_catalog.pg_cast WHERE castfunc >= 16384",
        &[],
    )
    .into_iter()
    .filter_map(|row| row.first()?.as_ref()?.parse().ok())
    .collect()
}

/// Is there a domain of this name, in any schema, that a user made?
pub fn is_domain(name: &str) -> bool {
    let domains = listed(name, pg_sys::SysCacheIdentifier::TYPENAMENSP, |tuple| {
        // SAFETY: tuples of pg_type.
        let form = unsafe { &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_type>() };
        if form.typtype as u8 == b'd' { form.oid.to_u32() } else { 0 }
    });
    domains.iter().any(|oid| *oid >= FIRST_NORMAL)
}
