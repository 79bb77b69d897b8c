//! What the present transaction has written: the tables, by the counts that Postgres itself keeps of every tuple
//! inserted, updated, deleted or truncated, and the catalogs, by the invalidation messages that it will send.
//!
//! Neither depends on how the write came about: the executor, COPY, the worker of a subscription, a foreign key or
//! another extension all pass through the table access method, which counts.
//!
//! The functions are called near the end of a transaction, where a frame must be plain: they own nothing that drops.

#![allow(ffi_unwind_calls, reason = "plain frames: a longjmp may cross them")]

use super::compat;
use core::ptr;
use pgrx::pg_sys;

// SAFETY: Postgres's own symbols; the signatures are those of its headers, 15 to 18.
unsafe extern "C-unwind" {
    /// Makes the entry of a level unless it is there, so it never returns NULL.
    fn pgstat_get_xact_stack_level(nest_level: i32) -> *mut SubXactStatus;
    fn xactGetCommittedInvalidationMessages(
        messages: *mut *mut pg_sys::SharedInvalidationMessage,
        init_file: *mut bool,
    ) -> i32;
    fn GetTopFullTransactionIdIfAny() -> pg_sys::FullTransactionId;
    fn GetCurrentTransactionNestLevel() -> i32;
}

/// PgStat_SubXactStatus of pgstat_internal.h, which is no public header. 15 has a list head and an int where later
/// versions have a counted list head: the same bytes.
#[repr(C)]
struct SubXactStatus {
    nest_level: i32,
    prev: *mut SubXactStatus,
    pending_drops: [usize; 2],
    pending_drops_count: u32,
    first: *mut pg_sys::PgStat_TableXactStatus,
}

const RELCACHE_MESSAGE: i8 = pg_sys::SHAREDINVALRELCACHE_ID as i8;

/// The transaction's id with its epoch, if it has been given one. 0: it has written nothing.
#[inline(always)]
pub fn transaction_id() -> u64 {
    // SAFETY: reads the backend's transaction state.
    unsafe { GetTopFullTransactionIdIfAny().value }
}

/// Does Postgres count what is written, at this moment?
#[inline(always)]
pub fn are_counted() -> bool {
    // SAFETY: a plain static.
    unsafe { pg_sys::pgstat_track_counts }
}

/// Visits each table that the transaction has written to, in subtransactions that are still alive too; some twice.
/// Catalogs and temporary tables are among them. Call only while the transaction has an id.
pub fn tables(visit: &mut dyn FnMut(u32)) {
    // SAFETY: in a transaction; the statuses live as long as it, and nothing here changes them.
    unsafe {
        let mut level = pgstat_get_xact_stack_level(GetCurrentTransactionNestLevel());
        while let Some(status) = level.as_ref() {
            let mut table = status.first;
            while let Some(counts) = table.as_ref() {
                let any = counts.tuples_inserted | counts.tuples_updated | counts.tuples_deleted;
                if (any != 0 || counts.truncdropped) && !counts.parent.is_null() {
                    visit(compat::counted_relation(counts.parent));
                }
                table = counts.next;
            }
            level = status.prev;
        }
    }
}

/// A change of a catalog that others will be told of.
pub enum CatalogChange {
    /// Something about a relation. 0: about all of them.
    Relation(u32),
    /// A tuple of the catalog behind this cache, with the hash of its key.
    Cache(i32, u32),
}

/// Visits each change of a catalog. At the end of a transaction only, when no subtransaction is left.
pub fn catalog_changes(visit: &mut dyn FnMut(CatalogChange)) {
    let mut messages = ptr::null_mut();
    let mut init_file = false;
    // SAFETY: called at the top level at pre-commit, as RecordTransactionCommit does; the array lives in the
    // transaction's memory.
    unsafe {
        let count = xactGetCommittedInvalidationMessages(&mut messages, &mut init_file);
        for at in 0..count.max(0) as usize {
            let message = &*messages.add(at);
            match message.id {
                RELCACHE_MESSAGE => visit(CatalogChange::Relation(message.rc.relId.to_u32())),
                id if id >= 0 => visit(CatalogChange::Cache(i32::from(id), message.cc.hashValue)),
                _ => {}
            }
        }
    }
}

/// Is the process one of autovacuum's, which change no data?
pub fn is_autovacuum() -> bool {
    // SAFETY: a plain static.
    unsafe { pg_sys::MyBackendType == pg_sys::BackendType::B_AUTOVAC_WORKER }
}

/// Is the client in a transaction block?
pub fn in_transaction_block() -> bool {
    // SAFETY: reads the backend's transaction state.
    unsafe { pg_sys::IsTransactionBlock() }
}

/// Is the transaction, given with its epoch, still running or prepared?
pub fn is_in_progress(full: u64) -> bool {
    // SAFETY: a look-up in shared memory; may raise only on a damaged pg_subtrans.
    unsafe { pg_sys::TransactionIdIsInProgress(pg_sys::TransactionId::from_inner(full as u32)) }
}

/// Has the transaction, which is not in progress, committed?
pub fn has_committed(full: u64) -> bool {
    // SAFETY: a look-up in pg_xact; the id is of a transaction that was prepared since the server started.
    unsafe { pg_sys::TransactionIdDidCommit(pg_sys::TransactionId::from_inner(full as u32)) }
}

/// How many transactions may be prepared at once. Known from the start of the server on.
pub fn max_prepared() -> usize {
    // SAFETY: a plain static of Postgres's.
    unsafe extern "C" {
        static max_prepared_xacts: core::ffi::c_int;
    }
    // SAFETY: as above.
    unsafe { max_prepared_xacts }.max(0) as usize
}
