//! News of catalog changes, as other backends and this one send them.

#![allow(ffi_unwind_calls, reason = "plain frames: a longjmp may cross them")]

use pgrx::pg_sys;

/// Who is told. Called while messages are taken in, which may be anywhere: no method may raise, panic, or read a catalog.
pub trait CatalogObserver: 'static {
    /// Something about a relation has changed. 0: about any.
    fn relation_changed(relation: u32);
    /// A name in pg_class has appeared, changed or gone; the hash is that of `relation_name_hash`. 0: any.
    fn relation_name_changed(hash: u32);
    /// A type has changed; the hash is that of Postgres's plan dependencies. 0: any.
    fn type_changed(hash: u32);
    /// A function, role, membership, schema, operator, cast or the like has changed.
    fn catalog_changed();
}

// SAFETY: Postgres's own symbol with the signature of its header.
unsafe extern "C-unwind" {
    fn AcceptInvalidationMessages();
}

/// Takes in what others have committed, which the observer is then told. As taking a lock on a relation does. May raise:
/// the caller owns nothing that drops.
#[inline(always)]
pub fn accept() {
    // SAFETY: in a transaction.
    unsafe { AcceptInvalidationMessages() };
}

/// The same under a guard of pgrx's, which turns an error into a panic.
pub fn accept_under_guard() {
    // SAFETY: as above.
    unsafe { pg_sys::AcceptInvalidationMessages() };
}

/// Caches whose changes may alter what any statement means or who may run it.
const WATCHED: [pg_sys::SysCacheIdentifier::Type; 14] = {
    use pg_sys::SysCacheIdentifier::*;
    [
        PROCOID,
        AUTHOID,
        AUTHMEMROLEMEM,
        // Its owner is a member of pg_database_owner.
        DATABASEOID,
        NAMESPACEOID,
        OPEROID,
        CASTSOURCETARGET,
        COLLOID,
        TSCONFIGOID,
        TSDICTOID,
        LANGOID,
        CLAOID,
        ENUMOID,
        FOREIGNSERVEROID,
    ]
};

/// Registers the callbacks. They belong to the backend's memory, so `_PG_init` in the postmaster is enough.
pub fn install<O: CatalogObserver>() {
    let none = pg_sys::Datum::from(0);
    // SAFETY: the callbacks live as long as the library.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(relation::<O>), none);
        let name = pg_sys::SysCacheIdentifier::RELNAMENSP as i32;
        pg_sys::CacheRegisterSyscacheCallback(name, Some(relation_name::<O>), none);
        let type_name = pg_sys::SysCacheIdentifier::TYPENAMENSP as i32;
        pg_sys::CacheRegisterSyscacheCallback(type_name, Some(relation_name::<O>), none);
        let kind = pg_sys::SysCacheIdentifier::TYPEOID as i32;
        pg_sys::CacheRegisterSyscacheCallback(kind, Some(type_of::<O>), none);
        for cache in WATCHED {
            pg_sys::CacheRegisterSyscacheCallback(cache as i32, Some(catalog::<O>), none);
        }
    }
}

unsafe extern "C-unwind" fn relation<O: CatalogObserver>(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    O::relation_changed(relation.to_u32());
}

unsafe extern "C-unwind" fn relation_name<O: CatalogObserver>(_argument: pg_sys::Datum, _cache: i32, hash: u32) {
    O::relation_name_changed(hash);
}

unsafe extern "C-unwind" fn type_of<O: CatalogObserver>(_argument: pg_sys::Datum, _cache: i32, hash: u32) {
    O::type_changed(hash);
}

unsafe extern "C-unwind" fn catalog<O: CatalogObserver>(_argument: pg_sys::Datum, _cache: i32, _hash: u32) {
    O::catalog_changed();
}

/// The hash under which a change of a type is told.
///
/// # Safety
/// In a transaction.
pub(super) unsafe fn type_hash(kind: pg_sys::Oid) -> u32 {
    let none = pg_sys::Datum::from(0);
    let cache = pg_sys::SysCacheIdentifier::TYPEOID as i32;
    // SAFETY: hashing reads no catalog.
    unsafe { pg_sys::GetSysCacheHashValue(cache, pg_sys::Datum::from(kind), none, none, none) }
}

/// The hash under which a change of a type's name in a schema is told, to the same observer.
///
/// # Safety
/// As for `relation_name_hash`.
pub(super) unsafe fn type_name_hash(name: *const core::ffi::c_char, schema: pg_sys::Oid) -> u32 {
    let none = pg_sys::Datum::from(0);
    // SAFETY: by the contract; hashing reads no catalog.
    unsafe {
        pg_sys::GetSysCacheHashValue(
            pg_sys::SysCacheIdentifier::TYPENAMENSP as i32,
            pg_sys::Datum::from(name),
            pg_sys::Datum::from(schema),
            none,
            none,
        )
    }
}

/// The hash under which a change of a relation's name in a schema is told.
///
/// # Safety
/// `name` must be NUL-terminated and shorter than NAMEDATALEN.
pub(super) unsafe fn relation_name_hash(name: *const core::ffi::c_char, schema: pg_sys::Oid) -> u32 {
    let none = pg_sys::Datum::from(0);
    // SAFETY: by the contract; hashing reads no catalog.
    unsafe {
        pg_sys::GetSysCacheHashValue(
            pg_sys::SysCacheIdentifier::RELNAMENSP as i32,
            pg_sys::Datum::from(name),
            pg_sys::Datum::from(schema),
            none,
            none,
        )
    }
}

/// Caches of catalogs whose contents an answer may depend on without any table or statement having changed: bodies of
/// functions, operators, casts, enumerations, text search, and schemas, for their names and the rights on them.
pub fn changes_answers(cache: i32) -> bool {
    use pg_sys::SysCacheIdentifier::*;
    const CACHES: [Type; 18] = [
        AMOPOPID,
        AMPROCNUM,
        CONVOID,
        CONDEFAULT,
        NAMESPACEOID,
        PROCOID,
        OPEROID,
        ENUMOID,
        COLLOID,
        CASTSOURCETARGET,
        AGGFNOID,
        TSCONFIGOID,
        TSCONFIGMAP,
        TSDICTOID,
        TSPARSEROID,
        LANGOID,
        CLAOID,
        RANGETYPE,
    ];
    CACHES.iter().any(|watched| *watched as i32 == cache)
}

/// Roles and their memberships, of which that of a database's owner is one.
pub fn changes_roles(cache: i32) -> bool {
    use pg_sys::SysCacheIdentifier::{AUTHMEMROLEMEM, AUTHOID, DATABASEOID};
    [AUTHOID, AUTHMEMROLEMEM, DATABASEOID].iter().any(|watched| *watched as i32 == cache)
}

/// Types, whose changes are told by the hash that plans depend on.
pub fn is_of_types(cache: i32) -> bool {
    cache == pg_sys::SysCacheIdentifier::TYPEOID as i32
}
