//! The object_access hook: the executor sets up a function to be called, relations and types come and go.

#![allow(ffi_unwind_calls, reason = "plain frames: a longjmp may cross them")]

use pgrx::pg_sys;

/// Who sees functions as they are set up. Must not raise or panic.
pub trait FunctionObserver: 'static {
    fn executes(function: u32);
}

/// Who sees relations and types come and go. Types are known by the hash under which changes of them are told, which no
/// two of them share: it is their id, scrambled. Must not raise or panic.
pub trait RelationObserver: 'static {
    fn type_created(hash: u32);
    /// A temporary relation was created. Its row type, if it has one, came before it, and the array of that type next.
    fn temporary_created(relation: u32, row_type: Option<u32>);
    fn type_dropped(hash: u32);
    fn relation_dropped(relation: u32);
}

// SAFETY: Postgres's own symbols with the signatures of its headers, 15 to 18.
unsafe extern "C-unwind" {
    fn RelationIdGetRelation(relation: pg_sys::Oid) -> pg_sys::Relation;
    fn RelationClose(relation: pg_sys::Relation);
    fn GetSysCacheHashValue(
        cache: core::ffi::c_int,
        key1: pg_sys::Datum,
        key2: pg_sys::Datum,
        key3: pg_sys::Datum,
        key4: pg_sys::Datum,
    ) -> u32;
}

static mut PREVIOUS: pg_sys::object_access_hook_type = None;

/// Installs the hook. Call once, from `_PG_init`.
pub fn install<O: FunctionObserver + RelationObserver>() {
    // SAFETY: `_PG_init` runs once, before any statement.
    unsafe {
        PREVIOUS = pg_sys::object_access_hook;
        pg_sys::object_access_hook = Some(object_access::<O>);
    }
}

unsafe extern "C-unwind" fn object_access<O: FunctionObserver + RelationObserver>(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    part: i32,
    argument: *mut core::ffi::c_void,
) {
    match access {
        pg_sys::ObjectAccessType::OAT_FUNCTION_EXECUTE => O::executes(object.to_u32()),
        pg_sys::ObjectAccessType::OAT_POST_CREATE if part == 0 => created::<O>(class, object),
        pg_sys::ObjectAccessType::OAT_DROP if part == 0 => dropped::<O>(class, object),
        _ => {}
    }
    // SAFETY: Postgres's own arguments go on.
    unsafe {
        if let Some(previous) = PREVIOUS {
            previous(access, class, object, part, argument);
        }
    }
}

#[inline(never)]
fn created<O: RelationObserver>(class: pg_sys::Oid, object: pg_sys::Oid) {
    if class == pg_sys::TypeRelationId {
        O::type_created(type_hash(object));
    }
    // SAFETY: a plain static. Whoever makes a temporary relation has asked for its schema, or has its table open.
    let may_be_temporary = unsafe { pg_sys::MyXactFlags } & pg_sys::XACT_FLAGS_ACCESSEDTEMPNAMESPACE as i32 != 0;
    if class == pg_sys::RelationRelationId && may_be_temporary {
        // SAFETY: in a transaction. Who creates a relation has it open when the hook is called, so it is found without
        // looking at a catalog.
        unsafe {
            let relation = RelationIdGetRelation(object);
            if let Some(entry) = relation.as_ref() {
                let row = &*entry.rd_rel;
                if row.relpersistence as u8 == pg_sys::RELPERSISTENCE_TEMP {
                    let row_type = (row.reltype != pg_sys::InvalidOid).then(|| type_hash(row.reltype));
                    O::temporary_created(object.to_u32(), row_type);
                }
                RelationClose(relation);
            }
        }
    }
}

#[inline(never)]
fn dropped<O: RelationObserver>(class: pg_sys::Oid, object: pg_sys::Oid) {
    if class == pg_sys::RelationRelationId {
        O::relation_dropped(object.to_u32());
    } else if class == pg_sys::TypeRelationId {
        O::type_dropped(type_hash(object));
    }
}

/// The hash of `inval::type_hash`, without a guard.
fn type_hash(kind: pg_sys::Oid) -> u32 {
    let none = pg_sys::Datum::from(0);
    let cache = pg_sys::SysCacheIdentifier::TYPEOID as i32;
    // SAFETY: in a transaction; hashing reads no catalog.
    unsafe { GetSysCacheHashValue(cache, pg_sys::Datum::from(kind), none, none, none) }
}
