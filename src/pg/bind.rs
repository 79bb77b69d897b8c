//! Values for the parameters of a statement, out of a JSON array.
//!
//! Reading a value may run a user's code (the check of a domain) and be cancelled, so this is a plain frame (see `hot.rs`):
//! it calls Postgres's own symbols, owns nothing that drops, and keeps texts in the memory of the call.

#![allow(ffi_unwind_calls, reason = "plain frames: a longjmp may cross them")]

use super::catch;
use super::text::{c_string, to_utf8};
use super::types;
use core::cell::Cell;
use core::ffi::{CStr, c_char, c_int, c_void};
use pgrx::pg_sys;
use steward_core::error::CacheError;

// SAFETY: Postgres's own symbols with the signatures of its headers, 15 to 18.
unsafe extern "C-unwind" {
    fn makeParamList(count: c_int) -> pg_sys::ParamListInfo;
    fn getIthJsonbValueFromContainer(container: *mut pg_sys::JsonbContainer, at: u32) -> *mut pg_sys::JsonbValue;
    fn JsonbToCString(out: pg_sys::StringInfo, container: *mut pg_sys::JsonbContainer, length: c_int) -> *mut c_char;
    fn makeStringInfo() -> pg_sys::StringInfo;
    fn resetStringInfo(text: pg_sys::StringInfo);
    fn appendBinaryStringInfo(text: pg_sys::StringInfo, data: *const c_void, length: c_int);
    fn pfree(pointer: *mut c_void);
    fn get_element_type(kind: pg_sys::Oid) -> pg_sys::Oid;
    fn getTypeInputInfo(kind: pg_sys::Oid, function: *mut pg_sys::Oid, parameter: *mut pg_sys::Oid);
    fn OidInputFunctionCall(
        function: pg_sys::Oid,
        text: *mut c_char,
        parameter: pg_sys::Oid,
        modifier: i32,
    ) -> pg_sys::Datum;
    fn OidOutputFunctionCall(function: pg_sys::Oid, value: pg_sys::Datum) -> *mut c_char;
    fn CopyErrorData() -> *mut pg_sys::ErrorData;
    fn FlushErrorState();
}

/// Arrays within arrays that are followed.
const MAX_DIMENSIONS: u32 = 6;
/// What is quoted of a value, and of what its type says about it.
const MAX_VALUE_CHARACTERS: usize = 200;
const MAX_REASON_CHARACTERS: usize = 1000;

/// A JSON document as a caller passed it, detoasted; lives as long as the call.
#[derive(Clone, Copy)]
pub struct Json(*mut pg_sys::Jsonb);

impl Json {
    /// # Safety
    /// `datum` must be a jsonb of the caller's.
    #[inline(always)]
    pub(super) unsafe fn new(datum: pg_sys::Datum) -> Self {
        // SAFETY: Postgres's own symbol; a plain value comes back as it is. An error passes.
        unsafe extern "C-unwind" {
            fn pg_detoast_datum(datum: *mut pg_sys::varlena) -> *mut pg_sys::varlena;
        }
        // SAFETY: by the contract.
        Self(unsafe { pg_detoast_datum(datum.cast_mut_ptr()) }.cast())
    }

    /// Its bytes: equal for equal documents, since jsonb is normalised.
    #[inline(always)]
    pub fn bytes<'a>(self) -> &'a [u8] {
        // SAFETY: detoasted, so its length is in its first four bytes.
        unsafe {
            let size = pgrx::varsize_4b(self.0.cast());
            core::slice::from_raw_parts(self.0.cast::<u8>().add(4), size.saturating_sub(4))
        }
    }

    /// What kind of document it is; `None` for an array.
    fn other_than_array(self) -> Option<&'static str> {
        // SAFETY: the header word of the root container.
        let header = unsafe { (*self.0).root.header };
        if header & pg_sys::JB_FSCALAR != 0 {
            Some("a scalar")
        } else if header & pg_sys::JB_FARRAY != 0 {
            None
        } else {
            Some("an object")
        }
    }

    fn length(self) -> usize {
        // SAFETY: as above.
        unsafe { ((*self.0).root.header & pg_sys::JB_CMASK) as usize }
    }
}

/// Parameters ready for the executor; lives as long as the memory context they were made in.
#[derive(Clone, Copy)]
pub struct Parameters(pg_sys::ParamListInfo);

impl Parameters {
    pub(super) fn list(self) -> pg_sys::ParamListInfo {
        self.0
    }
}

/// The types of a statement's parameters, in memory of its own.
#[derive(Clone, Copy)]
pub struct Types {
    start: *mut pg_sys::Oid,
    count: i32,
}

impl Types {
    pub(super) fn new(start: *mut pg_sys::Oid, count: i32) -> Self {
        Self { start, count }
    }

    pub fn count(self) -> usize {
        self.count.max(0) as usize
    }
}

/// Why a document gives no values. Plain data: the texts lie in the memory of the call.
#[derive(Clone, Copy)]
pub enum Refusal {
    NotArray(&'static str),
    Count { given: usize, expected: usize },
    Value { place: usize, kind: pg_sys::Oid, text: *const c_char, reason: *const c_char },
}

impl Refusal {
    /// The error that says so. Under a guard.
    pub fn error(self) -> CacheError {
        match self {
            Self::NotArray(found) => CacheError::ParamsNotArray { found },
            Self::Count { given, expected } => CacheError::ParamCount { given, expected },
            // SAFETY: NUL-terminated texts in the memory of the call.
            Self::Value { place, kind, text, reason } => unsafe {
                CacheError::ParamValue {
                    position: place + 1,
                    type_name: c_string(pg_sys::format_type_be(kind)),
                    value: beginning(text, MAX_VALUE_CHARACTERS),
                    reason: beginning(reason, MAX_REASON_CHARACTERS),
                }
            },
        }
    }
}

/// So many characters of a text at most. A whole one may be too large for a copy.
unsafe fn beginning(text: *const c_char, characters: usize) -> String {
    // SAFETY: the caller passes a NUL-terminated text in the database's encoding, no character of which is longer than
    // said.
    unsafe {
        let bytes = CStr::from_ptr(text).to_bytes();
        let limit = bytes.len().min(characters * pg_sys::MAX_MULTIBYTE_CHAR_LEN as usize);
        let end = pg_sys::pg_mbcliplen(text, limit as c_int, limit as c_int).clamp(0, limit as c_int) as usize;
        to_utf8(bytes.get(..end).unwrap_or_default()).chars().take(characters).collect()
    }
}

/// Converts the array's elements to the types of the statement's parameters, in the current memory context. A plain frame.
pub fn bind(types: Types, json: Json) -> Result<Parameters, Refusal> {
    if let Some(found) = json.other_than_array() {
        return Err(Refusal::NotArray(found));
    }
    let expected = types.count();
    if json.length() != expected {
        return Err(Refusal::Count { given: json.length(), expected });
    }
    // SAFETY: a list for as many parameters as the statement has; each is set below.
    unsafe {
        let list = makeParamList(types.count);
        let parameters = (*list).params.as_mut_ptr();
        for place in 0..expected {
            let kind = *types.start.add(place);
            let element = getIthJsonbValueFromContainer(&raw mut (*json.0).root, place as u32);
            let value = value(&*element, kind, place)?;
            *parameters.add(place) = pg_sys::ParamExternData {
                value: value.unwrap_or(pg_sys::Datum::from(0)),
                isnull: value.is_none(),
                pflags: pg_sys::PARAM_FLAG_CONST as u16,
                ptype: kind,
            };
        }
        Ok(Parameters(list))
    }
}

/// An element as a value of a type; `None` for null.
unsafe fn value(
    element: &pg_sys::JsonbValue,
    kind: pg_sys::Oid,
    place: usize,
) -> Result<Option<pg_sys::Datum>, Refusal> {
    // SAFETY: an element of the caller's document. An input function makes a value of its own.
    unsafe {
        let text = makeStringInfo();
        if !write_element(element, kind, 0, text) {
            return Ok(None);
        }
        let datum = input((*text).data, kind, place)?;
        pfree((*text).data.cast());
        Ok(Some(datum))
    }
}

unsafe fn append(out: pg_sys::StringInfo, bytes: &[u8]) {
    // SAFETY: the buffer is Postgres's own, and copies. No part of a document is longer than an int counts.
    unsafe { appendBinaryStringInfo(out, bytes.as_ptr().cast(), bytes.len() as c_int) };
}

/// Appends a value as the text that its type's input function takes; `false` for null.
unsafe fn write_element(value: &pg_sys::JsonbValue, kind: pg_sys::Oid, depth: u32, out: pg_sys::StringInfo) -> bool {
    use pg_sys::jbvType;
    // SAFETY: the member of the union follows the type.
    unsafe {
        match value.type_ {
            jbvType::jbvBool => append(out, if value.val.boolean { b"true" } else { b"false" }),
            jbvType::jbvNumeric => {
                let number = pg_sys::Datum::from(value.val.numeric);
                let text = OidOutputFunctionCall(pg_sys::Oid::from(pg_sys::F_NUMERIC_OUT), number);
                append(out, CStr::from_ptr(text).to_bytes());
            }
            jbvType::jbvString => {
                let string = value.val.string;
                append(out, core::slice::from_raw_parts(string.val.cast::<u8>(), string.len.max(0) as usize));
            }
            jbvType::jbvBinary => write_container(value.val.binary.data, value.val.binary.len, (kind, depth), out),
            _ => return false,
        }
        true
    }
}

/// Appends an object as its text; an array as an array's literal where the type is one, else as its text.
unsafe fn write_container(
    data: *mut pg_sys::JsonbContainer,
    length: i32,
    (kind, depth): (pg_sys::Oid, u32),
    out: pg_sys::StringInfo,
) {
    // SAFETY: a container within the caller's document.
    unsafe {
        let element = get_element_type(kind);
        if element == pg_sys::InvalidOid || (*data).header & pg_sys::JB_FARRAY == 0 || depth >= MAX_DIMENSIONS {
            JsonbToCString(out, data, length);
            return;
        }
        let text = makeStringInfo();
        append(out, b"{");
        for place in 0..(*data).header & pg_sys::JB_CMASK {
            if place > 0 {
                append(out, b",");
            }
            let value = getIthJsonbValueFromContainer(data, place);
            let nested = (*value).type_ == pg_sys::jbvType::jbvBinary
                && (*(*value).val.binary.data).header & pg_sys::JB_FARRAY != 0
                && get_element_type(element) == pg_sys::InvalidOid
                && ![pg_sys::JSONOID, pg_sys::JSONBOID].contains(&element);
            resetStringInfo(text);
            // A dimension more has the same type in Postgres.
            match write_element(&*value, if nested { kind } else { element }, depth + 1, text) {
                false => append(out, b"NULL"),
                true if nested => append(out, written(text)),
                true => quote(written(text), out),
            }
        }
        append(out, b"}");
    }
}

unsafe fn written<'a>(text: pg_sys::StringInfo) -> &'a [u8] {
    // SAFETY: as many bytes as it says; it is not appended to while they are read.
    unsafe { core::slice::from_raw_parts((*text).data.cast(), (*text).len.max(0) as usize) }
}

unsafe fn quote(text: &[u8], out: pg_sys::StringInfo) {
    // SAFETY: as for `append`.
    unsafe {
        append(out, b"\"");
        let is_special = |byte: &u8| matches!(byte, b'"' | b'\\');
        for part in text.split_inclusive(is_special) {
            match part.split_last() {
                Some((last, before)) if is_special(last) => {
                    append(out, before);
                    append(out, &[b'\\', *last]);
                }
                _ => append(out, part),
            }
        }
        append(out, b"\"");
    }
}

/// Calls the input function of a type. Its refusal of the text becomes ours, which names the parameter; whatever else it
/// raises passes unchanged.
unsafe fn input(text: *mut c_char, kind: pg_sys::Oid, place: usize) -> Result<pg_sys::Datum, Refusal> {
    // SAFETY: NUL-terminated text, and the input function of the type. An error that is pending is either re-thrown, or
    // copied into the memory of the call and forgotten; ours follows.
    unsafe {
        let (mut function, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
        getTypeInputInfo(kind, &mut function, &mut parameter);
        let context = pg_sys::CurrentMemoryContext;
        let value = Cell::new(pg_sys::Datum::from(0));
        if !catch::catches(&|| value.set(OidInputFunctionCall(function, text, parameter, -1))) {
            return Ok(value.get());
        }
        if !is_about_values(catch::pending_sqlstate()) {
            catch::rethrow();
        }
        pg_sys::CurrentMemoryContext = context;
        let refused = CopyErrorData();
        FlushErrorState();
        Err(Refusal::Value { place, kind, text, reason: (*refused).message })
    }
}

/// Does an SQLSTATE, as Postgres packs it, say that a value is none of its type? Class 22, and the check of a domain.
fn is_about_values(sqlstate: c_int) -> bool {
    /// Six bits for each character, the first lowest; the class is the first two.
    const CLASS_MASK: c_int = (1 << 12) - 1;
    const DATA_EXCEPTION: c_int = pgrx::PgSqlErrorCode::ERRCODE_DATA_EXCEPTION as c_int;
    sqlstate & CLASS_MASK == DATA_EXCEPTION & CLASS_MASK
        || sqlstate == pgrx::PgSqlErrorCode::ERRCODE_CHECK_VIOLATION as c_int
}

/// Types whose input depends on nothing but the text and the settings, whatever the text: no clock, no catalog.
pub fn has_plain_input(kind: u32) -> bool {
    use pg_sys::*;
    const PLAIN: [Oid; 19] = [
        UNKNOWNOID,
        BOOLOID,
        INT2OID,
        INT4OID,
        INT8OID,
        FLOAT4OID,
        FLOAT8OID,
        NUMERICOID,
        TEXTOID,
        VARCHAROID,
        BPCHAROID,
        UUIDOID,
        JSONOID,
        JSONBOID,
        BYTEAOID,
        INT4ARRAYOID,
        INT8ARRAYOID,
        TEXTARRAYOID,
        NAMEOID,
    ];
    PLAIN.contains(&Oid::from(kind))
}

/// Does a document contain a word that a date or time type, or a type made of them, takes for the present? Its strings lie
/// decoded in its bytes.
pub fn speaks_of_now(json: Json) -> bool {
    super::names::speaks_of_now(json.bytes())
}

/// Types that take a catalog or the present day to be read at all, or that users' constraints are put on.
pub fn has_unstable_input(kind: u32) -> bool {
    let parts = types::parts(pg_sys::Oid::from(kind));
    parts.is_cut
        || parts.relations().next().is_some()
        || parts.domains().next().is_some()
        || parts.kinds.iter().any(|kind| types::names_objects(*kind) || *kind == pg_sys::TIMETZOID.to_u32())
}
