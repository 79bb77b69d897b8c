//! Values for the parameters of a statement, out of a JSON array.

#![allow(ffi_unwind_calls, reason = "plain frames: a longjmp may cross them")]

use super::statement::Prepared;
use super::text::c_string;
use super::types;
use core::ffi::CStr;
use pgrx::{PgTryBuilder, pg_sys};
use steward_core::error::CacheError;

/// Arrays within arrays that are followed.
const MAX_DIMENSIONS: u32 = 6;

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

/// Converts the array's elements to the types of the statement's parameters, in the current memory context. Under a guard.
pub fn bind(prepared: Prepared, json: Json) -> Result<Parameters, CacheError> {
    if let Some(found) = json.other_than_array() {
        return Err(CacheError::ParamsNotArray { found });
    }
    let expected = prepared.parameters as usize;
    if json.length() != expected {
        return Err(CacheError::ParamCount { given: json.length(), expected });
    }
    // SAFETY: a list for as many parameters as the statement has; each is set below.
    unsafe {
        let list = pg_sys::makeParamList(prepared.parameters);
        let parameters = (*list).params.as_mut_ptr();
        for place in 0..expected {
            let kind = *prepared.types.add(place);
            let value = pg_sys::getIthJsonbValueFromContainer(&raw mut (*json.0).root, place as u32);
            let text = element_text(&*value, kind, 0);
            let datum = match &text {
                None => pg_sys::Datum::from(0),
                Some(text) => input(text, kind, place)?,
            };
            *parameters.add(place) = pg_sys::ParamExternData {
                value: datum,
                isnull: text.is_none(),
                pflags: pg_sys::PARAM_FLAG_CONST as u16,
                ptype: kind,
            };
        }
        Ok(Parameters(list))
    }
}

/// A value as the text that its type's input function takes; `None` for null.
unsafe fn element_text(value: &pg_sys::JsonbValue, kind: pg_sys::Oid, depth: u32) -> Option<Vec<u8>> {
    use pg_sys::jbvType;
    // SAFETY: the member of the union follows the type.
    unsafe {
        match value.type_ {
            jbvType::jbvNull => None,
            jbvType::jbvBool => Some(if value.val.boolean { b"true".to_vec() } else { b"false".to_vec() }),
            jbvType::jbvNumeric => {
                let number = pg_sys::Datum::from(value.val.numeric);
                let text = pg_sys::OidOutputFunctionCall(pg_sys::Oid::from(pg_sys::F_NUMERIC_OUT), number);
                Some(CStr::from_ptr(text).to_bytes().to_vec())
            }
            jbvType::jbvString => {
                let string = value.val.string;
                Some(core::slice::from_raw_parts(string.val.cast::<u8>(), string.len.max(0) as usize).to_vec())
            }
            jbvType::jbvBinary => Some(container_text(value.val.binary.data, value.val.binary.len, kind, depth)),
            _ => None,
        }
    }
}

/// An object as its text; an array as an array's literal where the type is one, else as its text.
unsafe fn container_text(data: *mut pg_sys::JsonbContainer, length: i32, kind: pg_sys::Oid, depth: u32) -> Vec<u8> {
    // SAFETY: a container within the caller's document.
    unsafe {
        let element = pg_sys::get_element_type(kind);
        if element == pg_sys::InvalidOid || (*data).header & pg_sys::JB_FARRAY == 0 || depth >= MAX_DIMENSIONS {
            let text = pg_sys::JsonbToCString(core::ptr::null_mut(), data, length);
            return CStr::from_ptr(text).to_bytes().to_vec();
        }
        let mut out = vec![b'{'];
        for place in 0..(*data).header & pg_sys::JB_CMASK {
            if place > 0 {
                out.push(b',');
            }
            let value = pg_sys::getIthJsonbValueFromContainer(data, place);
            let nested = (*value).type_ == pg_sys::jbvType::jbvBinary
                && (*(*value).val.binary.data).header & pg_sys::JB_FARRAY != 0
                && pg_sys::get_element_type(element) == pg_sys::InvalidOid
                && ![pg_sys::JSONOID, pg_sys::JSONBOID].contains(&element);
            // A dimension more has the same type in Postgres.
            match element_text(&*value, if nested { kind } else { element }, depth + 1) {
                None => out.extend_from_slice(b"NULL"),
                Some(text) if nested => out.extend_from_slice(&text),
                Some(text) => quote(&text, &mut out),
            }
        }
        out.push(b'}');
        out
    }
}

fn quote(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

/// Calls the input function of a type; its refusal becomes one that names the parameter.
unsafe fn input(text: &[u8], kind: pg_sys::Oid, place: usize) -> Result<pg_sys::Datum, CacheError> {
    let mut terminated = text.to_vec();
    terminated.push(0);
    let result = PgTryBuilder::new(|| {
        // SAFETY: NUL-terminated text, and the input function of the type.
        Ok(unsafe {
            let (mut function, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
            pg_sys::getTypeInputInfo(kind, &mut function, &mut parameter);
            pg_sys::OidInputFunctionCall(function, terminated.as_ptr().cast_mut().cast(), parameter, -1)
        })
    })
    .catch_others(|caught| {
        use pgrx::pg_sys::panic::CaughtError;
        match caught {
            CaughtError::PostgresError(report) => Err(report.message().to_owned()),
            other => other.rethrow(),
        }
    })
    .execute();
    result.map_err(|reason| {
        // SAFETY: a catalog look-up.
        let type_name = unsafe { c_string(pg_sys::format_type_be(kind)) };
        CacheError::ParamValue {
            position: place + 1,
            type_name,
            value: super::text::to_utf8(text).chars().take(200).collect(),
            reason,
        }
    })
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
