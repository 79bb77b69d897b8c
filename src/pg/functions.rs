//! Functions as the catalogs describe them.

use super::text::c_string;
use super::types;
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
    /// The types that it takes and gives, OUT parameters and columns of a returned table among them.
    signature: Vec<u32>,
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
            signature: signature(tuple, form),
        };
        pg_sys::ReleaseSysCache(tuple);
        Some(function)
    }
}

/// The types that a function takes and gives, OUT parameters and columns of a returned table among them.
unsafe fn signature(tuple: pg_sys::HeapTuple, form: &pg_sys::FormData_pg_proc) -> Vec<u32> {
    let mut is_null = false;
    // SAFETY: a tuple of pg_proc; the column is an array of ids, read before the tuple is released.
    unsafe {
        let taken = core::slice::from_raw_parts(form.proargtypes.values.as_ptr(), form.pronargs.max(0) as usize);
        let mut kinds: Vec<u32> = taken.iter().chain([&form.prorettype]).map(|kind| kind.to_u32()).collect();
        let cache = pg_sys::SysCacheIdentifier::PROCOID as i32;
        let attribute = pg_sys::Anum_pg_proc_proallargtypes as i16;
        let all = pg_sys::SysCacheGetAttr(cache, tuple, attribute, &mut is_null);
        if !is_null {
            let all = <pgrx::Array<pg_sys::Oid> as pgrx::FromDatum>::from_datum(all, false);
            kinds.extend(all.iter().flat_map(|all| all.iter().flatten()).map(|kind| kind.to_u32()));
        }
        kinds
    }
}

impl Function {
    /// Does it take or give a date or time, a domain or a composite, to which a body may assign text?
    pub fn has_convertible_types(&self) -> bool {
        self.signature.iter().any(|kind| {
            if types::is_polymorphic(*kind) {
                return true;
            }
            let parts = types::parts(pg_sys::Oid::from(*kind));
            parts.have_datetime() || parts.relations().next().is_some() || parts.domains().next().is_some()
        })
    }

    /// Does it take or give a domain, or what is made of one?
    pub fn has_domains(&self) -> bool {
        self.signature.iter().any(|kind| {
            types::is_polymorphic(*kind) || types::parts(pg_sys::Oid::from(*kind)).domains().next().is_some()
        })
    }
}

/// The expressions that stand for arguments which a call may leave out. They live in the current context.
pub fn default_arguments(oid: u32) -> Option<super::tree::Tree> {
    if oid < FIRST_NORMAL {
        // Those of Postgres's own are constants.
        return None;
    }
    node_column(oid, pg_sys::Anum_pg_proc_proargdefaults)
}

/// The tree of a body that was written as BEGIN ATOMIC or RETURN; it lives in the current context.
pub fn parsed_body(oid: u32) -> Option<super::tree::Tree> {
    node_column(oid, pg_sys::Anum_pg_proc_prosqlbody)
}

/// A column of pg_proc that holds a node tree.
fn node_column(oid: u32, attribute: u32) -> Option<super::tree::Tree> {
    // SAFETY: as above; Postgres itself wrote the tree.
    unsafe {
        let key = pg_sys::Datum::from(pg_sys::Oid::from(oid));
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::PROCOID as i32, key);
        if tuple.is_null() {
            return None;
        }
        let source = syscache_text(tuple, attribute);
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

/// The types of this name that users made, in any schema.
pub fn types_named(name: &str) -> Vec<u32> {
    let mut types = listed(name, pg_sys::SysCacheIdentifier::TYPENAMENSP, |tuple| {
        // SAFETY: tuples of pg_type.
        unsafe { (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_type>()).oid.to_u32() }
    });
    types.retain(|kind| *kind >= FIRST_NORMAL);
    types
}
