//! Rows on their way: out of a query into a tuplestore and into bytes that can be kept, and back.
//!
//! A row's bytes are a minimal tuple, preceded by its length as four bytes and padded to eight, so that each tuple lies
//! aligned when the first does. No value points outside of it.

use super::statement::Prepared;
use core::ptr;
use pgrx::{pg_guard, pg_sys};

/// Receives the rows of a query. Plain data.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Receiver {
    base: pg_sys::DestReceiver,
    store: *mut pg_sys::Tuplestorestate,
    /// Where the bytes go; NULL once there are too many.
    bytes: *mut Vec<u8>,
    max_bytes: usize,
    rows: u64,
    expected: pg_sys::TupleDesc,
}

/// What became of the rows.
#[derive(Clone, Copy)]
pub struct Received {
    pub rows: u64,
    pub is_complete: bool,
}

/// A set that a function returns, to be filled.
#[derive(Clone, Copy)]
pub struct RowSet(*mut pg_sys::Tuplestorestate);

impl RowSet {
    pub const NONE: RowSet = RowSet(ptr::null_mut());
}

fn lack_memory() {
    pgrx::ereport!(ERROR, pgrx::PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, "out of memory");
}

/// Room for more bytes: an allocation of Rust's that fails ends the server.
fn has_room(bytes: &mut Vec<u8>, more: usize) -> bool {
    bytes.try_reserve(more).is_ok()
}

/// Length of the frame in front of a row.
const FRAME: usize = 8;

impl Receiver {
    /// Copies rows to `bytes` up to a limit, and all of them to `set`. The vector must outlive the receiver.
    pub fn new(prepared: Prepared, set: RowSet, bytes: Option<&mut Vec<u8>>, max_bytes: usize) -> Self {
        let bytes = bytes.map_or(ptr::null_mut(), ptr::from_mut);
        let base = pg_sys::DestReceiver {
            receiveSlot: Some(receive),
            rStartup: Some(start),
            rShutdown: Some(nothing),
            rDestroy: Some(nothing),
            mydest: pg_sys::CommandDest::DestNone,
        };
        Self { base, store: set.0, bytes, max_bytes, rows: 0, expected: prepared.result }
    }

    pub fn as_dest(&mut self) -> *mut pg_sys::DestReceiver {
        ptr::from_mut(self).cast()
    }

    pub fn received(&self) -> Received {
        Received { rows: self.rows, is_complete: !self.bytes.is_null() }
    }
}

/// A relation may have changed after the statement was analysed, while the run waited for its lock. Type modifiers may
/// differ from what was analysed anyway, since planning folds constants and arms of expressions; neither the bytes of a value
/// nor how it is printed depends on them.
#[pg_guard]
unsafe extern "C-unwind" fn start(this: *mut pg_sys::DestReceiver, _operation: i32, kind: pg_sys::TupleDesc) {
    // SAFETY: the receiver is ours; both descriptors are alive.
    unsafe {
        if !has_same_columns((*this.cast::<Receiver>()).expected, kind) {
            pgrx::ereport!(
                ERROR,
                pgrx::PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                "cached plan must not change result type",
                "A relation of the query was changed while the query waited for it; run it again."
            );
        }
    }
}

unsafe fn has_same_columns(one: pg_sys::TupleDesc, other: pg_sys::TupleDesc) -> bool {
    // SAFETY: the caller passes live descriptors; columns are read below their number.
    unsafe {
        (*one).natts == (*other).natts
            && (0..(*one).natts as usize).all(|at| {
                let (a, b) = (super::compat::attribute(one, at), super::compat::attribute(other, at));
                (*a).atttypid == (*b).atttypid && (*a).attname.data == (*b).attname.data
            })
    }
}

unsafe extern "C-unwind" fn nothing(_this: *mut pg_sys::DestReceiver) {}

#[pg_guard]
unsafe extern "C-unwind" fn receive(slot: *mut pg_sys::TupleTableSlot, this: *mut pg_sys::DestReceiver) -> bool {
    // SAFETY: the receiver is ours; the slot is the executor's and valid during the call.
    unsafe {
        let this = &mut *this.cast::<Receiver>();
        this.rows += 1;
        if !this.store.is_null() {
            pg_sys::tuplestore_puttupleslot(this.store, slot);
        }
        if let Some(bytes) = this.bytes.as_mut() {
            let fits = bytes.len() <= this.max_bytes;
            if !(fits && append(slot, bytes)) {
                match (this.store.is_null(), fits) {
                    (true, true) => lack_memory(),
                    (true, false) => super::json::refuse_size(),
                    // The caller has the rows; they are not kept besides.
                    (false, _) => {
                        *bytes = Vec::new();
                        this.bytes = ptr::null_mut();
                    }
                }
            }
        }
        true
    }
}

/// Appends a row. Values that lie elsewhere (in a TOAST table, in a form of the executor's own) are brought in. `false`: there
/// is no memory for it.
unsafe fn append(slot: *mut pg_sys::TupleTableSlot, bytes: &mut Vec<u8>) -> bool {
    // SAFETY: the slot is valid; what is allocated goes with the executor's context for the row, or is freed here.
    unsafe {
        let mut is_copy = false;
        let tuple = pg_sys::ExecFetchSlotMinimalTuple(slot, &mut is_copy);
        let is_appended = if (*tuple).t_infomask & pg_sys::HEAP_HASEXTERNAL as u16 != 0 {
            let whole = with_values_inside(slot);
            let is_appended = push(whole, bytes);
            pg_sys::heap_free_minimal_tuple(whole);
            is_appended
        } else {
            push(tuple, bytes)
        };
        if is_copy {
            pg_sys::heap_free_minimal_tuple(tuple);
        }
        is_appended
    }
}

unsafe fn push(tuple: pg_sys::MinimalTuple, bytes: &mut Vec<u8>) -> bool {
    // SAFETY: a minimal tuple says its own length.
    unsafe {
        let length = (*tuple).t_len as usize;
        if !has_room(bytes, length + 2 * FRAME) {
            return false;
        }
        bytes.extend_from_slice(&(length as u64).to_ne_bytes());
        bytes.extend_from_slice(core::slice::from_raw_parts(tuple.cast::<u8>(), length));
        bytes.resize(bytes.len().next_multiple_of(FRAME), 0);
        true
    }
}

unsafe fn with_values_inside(slot: *mut pg_sys::TupleTableSlot) -> pg_sys::MinimalTuple {
    // SAFETY: a slot with all its values read; a value of variable length with an external header is replaced.
    unsafe {
        pg_sys::slot_getallattrs(slot);
        let descriptor = (*slot).tts_tupleDescriptor;
        let count = (*descriptor).natts as usize;
        let nulls = core::slice::from_raw_parts((*slot).tts_isnull, count);
        let mut values = core::slice::from_raw_parts((*slot).tts_values, count).to_vec();
        for (at, value) in values.iter_mut().enumerate() {
            if !nulls[at] && (*super::compat::attribute(descriptor, at)).attlen == -1 {
                let pointer = value.cast_mut_ptr::<pg_sys::varlena>();
                if pgrx::varatt_is_1b_e(pointer) {
                    *value = pg_sys::Datum::from(pg_sys::detoast_external_attr(pointer));
                }
            }
        }
        super::compat::minimal_tuple(descriptor, values.as_mut_ptr(), nulls.as_ptr().cast_mut())
    }
}

/// The rows in some bytes, as minimal tuples that lie there.
pub(super) fn tuples(bytes: &[u8]) -> impl Iterator<Item = pg_sys::MinimalTuple> {
    let mut at = 0;
    core::iter::from_fn(move || {
        let length = bytes.get(at..at + FRAME)?.first_chunk::<FRAME>().map(|b| u64::from_ne_bytes(*b))? as usize;
        let tuple = bytes.get(at + FRAME..at + FRAME + length)?;
        at = (at + FRAME + length).next_multiple_of(FRAME);
        Some(tuple.as_ptr().cast_mut().cast())
    })
}

/// Puts kept rows into a set. A plain frame: an error (out of memory) crosses it.
pub fn restore(prepared: Prepared, bytes: &[u8], set: RowSet) {
    // SAFETY: Postgres's own symbols with the signatures of its headers, 15 to 18.
    unsafe extern "C-unwind" {
        fn ExecStoreMinimalTuple(
            tuple: pg_sys::MinimalTuple,
            slot: *mut pg_sys::TupleTableSlot,
            free: bool,
        ) -> *mut pg_sys::TupleTableSlot;
        fn tuplestore_puttupleslot(store: *mut pg_sys::Tuplestorestate, slot: *mut pg_sys::TupleTableSlot);
        fn MakeSingleTupleTableSlot(
            descriptor: pg_sys::TupleDesc,
            operations: *const pg_sys::TupleTableSlotOps,
        ) -> *mut pg_sys::TupleTableSlot;
        fn ExecDropSingleTupleTableSlot(slot: *mut pg_sys::TupleTableSlot);
    }
    // SAFETY: the bytes were made by `append` from rows of this shape; the tuplestore copies them.
    #[allow(ffi_unwind_calls, reason = "plain frame: a longjmp may cross it")]
    unsafe {
        let slot = MakeSingleTupleTableSlot(prepared.result, &raw const pg_sys::TTSOpsMinimalTuple);
        for tuple in tuples(bytes) {
            ExecStoreMinimalTuple(tuple, slot, false);
            tuplestore_puttupleslot(set.0, slot);
            super::latch::heed_interrupts();
        }
        ExecDropSingleTupleTableSlot(slot);
    }
}

/// The set that a function in FROM is to fill: `Ok` for one that takes a set all at once. Under a guard.
///
/// # Safety
/// `fcinfo` must be the function's own.
pub(super) unsafe fn result_set(fcinfo: pg_sys::FunctionCallInfo, prepared: Prepared) -> Option<RowSet> {
    // SAFETY: by the contract; the store and the descriptor live in the memory of the calling query.
    unsafe {
        let info = (*fcinfo).resultinfo.cast::<pg_sys::ReturnSetInfo>();
        let wanted = pg_sys::SetFunctionReturnMode::SFRM_Materialize as i32;
        if info.is_null() || (*info).type_ != pg_sys::NodeTag::T_ReturnSetInfo || (*info).allowedModes & wanted == 0 {
            return None;
        }
        if (*info).expectedDesc.is_null() {
            return None;
        }
        let before = pg_sys::MemoryContextSwitchTo((*(*info).econtext).ecxt_per_query_memory);
        let random = (*info).allowedModes & pg_sys::SetFunctionReturnMode::SFRM_Materialize_Random as i32 != 0;
        (*info).setResult = pg_sys::tuplestore_begin_heap(random, false, pg_sys::work_mem);
        (*info).setDesc = pg_sys::CreateTupleDescCopy(prepared.result);
        (*info).returnMode = pg_sys::SetFunctionReturnMode::SFRM_Materialize;
        pg_sys::MemoryContextSwitchTo(before);
        Some(RowSet((*info).setResult))
    }
}
