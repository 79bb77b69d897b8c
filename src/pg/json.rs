//! Kept rows as a json value.
//!
//! Printing a value may run a cast of a user's, whose errors are to pass as they are. So everything here is a plain
//! frame (see `hot.rs`): it calls Postgres's own symbols, owns nothing that drops, and what it makes lies in the memory of
//! the call.

#![allow(ffi_unwind_calls, reason = "plain frames: a longjmp may cross them")]

use super::function::guarded;
use super::rows;
use super::statement::Prepared;
use core::ffi::{c_char, c_void};
use core::ptr;
use pgrx::pg_sys;

// SAFETY: Postgres's own symbols with the signatures of its headers, 15 to 18.
unsafe extern "C-unwind" {
    fn palloc(size: usize) -> *mut c_void;
    fn repalloc(pointer: *mut c_void, size: usize) -> *mut c_void;
    fn AllocSetContextCreateInternal(
        parent: pg_sys::MemoryContext,
        name: *const c_char,
        min: usize,
        initial: usize,
        max: usize,
    ) -> pg_sys::MemoryContext;
    fn MemoryContextReset(context: pg_sys::MemoryContext);
    fn MemoryContextDelete(context: pg_sys::MemoryContext);
    fn BlessTupleDesc(descriptor: pg_sys::TupleDesc) -> pg_sys::TupleDesc;
    fn heap_tuple_from_minimal_tuple(tuple: pg_sys::MinimalTuple) -> pg_sys::HeapTuple;
    fn heap_copy_tuple_as_datum(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc) -> pg_sys::Datum;
    fn row_to_json(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum;
    fn DirectFunctionCall1Coll(
        function: pg_sys::PGFunction,
        collation: pg_sys::Oid,
        argument: pg_sys::Datum,
    ) -> pg_sys::Datum;
}

/// Length of the header in front of a value of variable length (VARHDRSZ).
const HEADER: usize = 4;
/// No value can be larger (MaxAllocSize of memutils.h), header included.
const MAX_VALUE_BYTES: usize = 0x3fff_ffff;
/// Bytes of the largest json value without its header.
pub const MAX_BYTES: usize = MAX_VALUE_BYTES - HEADER;
const FIRST_CAPACITY: usize = 1024;

/// A json value in the memory of the call.
#[derive(Clone, Copy)]
pub struct JsonText {
    start: *mut u8,
    size_bytes: usize,
    capacity: usize,
}

/// Raises. Under a guard.
pub(super) fn refuse_size() {
    pgrx::ereport!(
        ERROR,
        pgrx::PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        format!("result is larger than the {MAX_BYTES} bytes that a json may have"),
        "Use steward.cached, which returns rows."
    );
}

impl JsonText {
    fn new() -> Self {
        // SAFETY: room for the header, which is written at the end.
        let start = unsafe { palloc(FIRST_CAPACITY) }.cast::<u8>();
        Self { start, size_bytes: HEADER, capacity: FIRST_CAPACITY }
    }

    pub fn to_datum(self) -> pg_sys::Datum {
        pg_sys::Datum::from(self.start)
    }

    /// The value with its header.
    pub fn bytes<'a>(self) -> &'a [u8] {
        // SAFETY: as many bytes as were written, in the memory of the call.
        unsafe { core::slice::from_raw_parts(self.start, self.size_bytes) }
    }

    fn push(&mut self, bytes: &[u8]) {
        let size_bytes = self.size_bytes + bytes.len();
        if size_bytes > self.capacity {
            self.grow(size_bytes);
        }
        // SAFETY: there is room now.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.add(self.size_bytes), bytes.len()) };
        self.size_bytes = size_bytes;
    }

    fn grow(&mut self, size_bytes: usize) {
        if size_bytes > MAX_VALUE_BYTES {
            guarded(refuse_size);
        }
        let capacity = size_bytes.max((self.capacity * 2).min(MAX_VALUE_BYTES));
        // SAFETY: allocated by `new` in a context that outlives this.
        self.start = unsafe { repalloc(self.start.cast(), capacity) }.cast();
        self.capacity = capacity;
    }

    /// Appends a row as an object.
    ///
    /// # Safety
    /// The tuple must be valid and of the descriptor's shape; the current context is the caller's to reset.
    unsafe fn push_row(&mut self, tuple: pg_sys::MinimalTuple, descriptor: pg_sys::TupleDesc) {
        // SAFETY: by the contract. A minimal tuple is a tuple without the first fields of its header, which are those of
        // a composite value.
        unsafe {
            let row = heap_copy_tuple_as_datum(heap_tuple_from_minimal_tuple(tuple), descriptor);
            let object = DirectFunctionCall1Coll(Some(row_to_json), pg_sys::InvalidOid, row);
            let object = object.cast_mut_ptr::<pg_sys::varlena>();
            let size_bytes = pgrx::varsize_any_exhdr(object);
            self.push(core::slice::from_raw_parts(pgrx::vardata_any(object).cast::<u8>(), size_bytes));
        }
    }
}

/// Kept rows as a json array of objects, in the current memory context. The bytes must outlive the call, whatever a user's
/// cast does.
pub fn render(prepared: Prepared, bytes: &[u8]) -> JsonText {
    let mut json = JsonText::new();
    json.push(b"[");
    // SAFETY: the bytes were made by `rows.rs` from rows of this shape; the descriptor is registered, as a value of its type
    // needs. Who catches an error puts the memory context back.
    unsafe {
        let descriptor = BlessTupleDesc(prepared.result);
        let before = pg_sys::CurrentMemoryContext;
        let context = AllocSetContextCreateInternal(before, c"pg_steward rows".as_ptr(), 0, 8 * 1024, 8 * 1024 * 1024);
        pg_sys::CurrentMemoryContext = context;
        for tuple in rows::tuples(bytes) {
            if json.size_bytes > HEADER + 1 {
                json.push(b",");
            }
            json.push_row(tuple, descriptor);
            super::latch::heed_interrupts();
            MemoryContextReset(context);
        }
        pg_sys::CurrentMemoryContext = before;
        MemoryContextDelete(context);
        json.push(b"]");
        pgrx::set_varsize_4b(json.start.cast(), json.size_bytes as i32);
    }
    json
}
