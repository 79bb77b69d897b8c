//! Functions that SQL calls without a guard of pgrx's, so that the errors of a query they run pass as they are.

#![allow(ffi_unwind_calls, reason = "plain frames: a longjmp may cross them")]

use super::bind::Json;
use super::rows::{self, RowSet};
use super::statement::Prepared;
use pgrx::pg_sys;

/// The bytes of a text.
///
/// # Safety
/// `datum` must be a text.
#[inline(always)]
unsafe fn text_bytes<'a>(datum: pg_sys::Datum) -> &'a [u8] {
    // SAFETY: Postgres's own symbol; a plain value comes back as it is.
    unsafe extern "C-unwind" {
        fn pg_detoast_datum_packed(datum: *mut pg_sys::varlena) -> *mut pg_sys::varlena;
    }
    // SAFETY: by the contract.
    unsafe {
        let text = pg_detoast_datum_packed(datum.cast_mut_ptr());
        core::slice::from_raw_parts(pgrx::vardata_any(text).cast::<u8>(), pgrx::varsize_any_exhdr(text))
    }
}

/// A call, with its arguments. Plain data.
#[derive(Clone, Copy)]
pub struct Call(pg_sys::FunctionCallInfo);

impl Call {
    /// # Safety
    /// `fcinfo` must be that of the function being called, whose SQL declaration has the arguments that are asked for.
    pub unsafe fn new(fcinfo: pg_sys::FunctionCallInfo) -> Self {
        Self(fcinfo)
    }

    pub(super) fn info(self) -> pg_sys::FunctionCallInfo {
        self.0
    }

    #[inline(always)]
    fn argument(self, place: usize) -> Option<pg_sys::Datum> {
        // SAFETY: by the contract of `new`.
        unsafe {
            let argument = &*(*self.0).args.as_ptr().add(place);
            (!argument.isnull).then_some(argument.value)
        }
    }

    /// The bytes of a text, in the database's encoding. May raise: the caller owns nothing that drops.
    #[inline(always)]
    pub fn text<'a>(self, place: usize) -> Option<&'a [u8]> {
        // SAFETY: a text argument; the bytes live as long as the call.
        self.argument(place).map(|datum| unsafe { text_bytes(datum) })
    }

    /// A jsonb argument. May raise: the caller owns nothing that drops.
    #[inline(always)]
    pub fn json(self, place: usize) -> Option<Json> {
        // SAFETY: a jsonb argument.
        self.argument(place).map(|datum| unsafe { Json::new(datum) })
    }

    #[inline(always)]
    pub fn is_null(self, place: usize) -> bool {
        self.argument(place).is_none()
    }

    /// A bigint argument.
    pub fn bigint(self, place: usize) -> Option<i64> {
        self.argument(place).map(|datum| datum.value() as i64)
    }

    /// An integer argument.
    pub fn int(self, place: usize) -> Option<i32> {
        self.argument(place).map(|datum| datum.value() as i32)
    }

    /// An interval as milliseconds, a month as 30 days.
    #[inline(always)]
    pub fn interval_ms(self, place: usize) -> Option<i64> {
        // SAFETY: an interval argument, passed by reference.
        self.argument(place).map(|datum| unsafe {
            let interval = &*datum.cast_mut_ptr::<pg_sys::Interval>();
            let days = i64::from(interval.month) * 30 + i64::from(interval.day);
            days.saturating_mul(86_400_000).saturating_add(interval.time / 1000)
        })
    }

    /// The elements of an array of text that are not null, as UTF-8. Under a guard.
    pub fn texts(self, place: usize) -> Vec<String> {
        use pgrx::FromDatum;
        let Some(datum) = self.argument(place) else { return Vec::new() };
        // SAFETY: an array of text, whose bytes are in the encoding of the database.
        let array = unsafe { pgrx::Array::<&[u8]>::from_datum(datum, false) };
        array.map_or(Vec::new(), |array| array.iter().flatten().map(super::text::to_utf8).collect())
    }

    /// The elements of an array of text, as they were passed. May raise: the caller owns nothing that drops.
    pub fn text_array(self, place: usize) -> TextArray {
        // SAFETY: Postgres's own symbols with the signatures of its headers.
        unsafe extern "C-unwind" {
            fn pg_detoast_datum(datum: *mut pg_sys::varlena) -> *mut pg_sys::varlena;
            fn deconstruct_array(
                array: *mut pg_sys::ArrayType,
                kind: pg_sys::Oid,
                length: i32,
                by_value: bool,
                align: core::ffi::c_char,
                elements: *mut *mut pg_sys::Datum,
                nulls: *mut *mut bool,
                count: *mut i32,
            );
        }
        let mut array = TextArray { elements: core::ptr::null_mut(), nulls: core::ptr::null_mut(), count: 0 };
        if let Some(datum) = self.argument(place) {
            let align = pg_sys::TYPALIGN_INT as core::ffi::c_char;
            let (elements, nulls, count) = (&mut array.elements, &mut array.nulls, &mut array.count);
            // SAFETY: an array of text; what is made lives in the current memory context.
            unsafe {
                let plain = pg_detoast_datum(datum.cast_mut_ptr()).cast();
                deconstruct_array(plain, pg_sys::TEXTOID, -1, false, align, elements, nulls, count);
            }
        }
        array
    }

    /// The elements of an array of object ids, or of a type that is one; `None` when there are NULLs among them. May raise: the caller owns nothing that drops.
    pub fn oid_array<'a>(self, place: usize) -> Option<&'a [u32]> {
        // SAFETY: Postgres's own symbol with the signature of its header.
        unsafe extern "C-unwind" {
            fn pg_detoast_datum(datum: *mut pg_sys::varlena) -> *mut pg_sys::varlena;
        }
        let Some(datum) = self.argument(place) else { return Some(&[]) };
        // SAFETY: an array of values of four bytes, which lie one after the other; NULLs have no place among them.
        unsafe {
            let array = pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
            let lengths = array.add(1).cast::<i32>();
            let rows = (0..(*array).ndim as usize).map(|at| *lengths.add(at) as usize).product::<usize>();
            if (*array).ndim == 0 {
                return Some(&[]);
            }
            if (*array).dataoffset != 0 {
                return None;
            }
            let header = size_of::<pg_sys::ArrayType>() + 8 * (*array).ndim as usize;
            Some(core::slice::from_raw_parts(array.cast::<u8>().add(header.next_multiple_of(8)).cast(), rows))
        }
    }

    /// Is an array argument absent or empty? Cheap.
    #[inline(always)]
    pub fn is_empty_array(self, place: usize) -> bool {
        // SAFETY: an array argument; an empty one has no dimensions. A short header means that it must be detoasted.
        self.argument(place).is_none_or(|datum| unsafe {
            let array = datum.cast_mut_ptr::<pg_sys::varlena>();
            !pgrx::varatt_is_1b(array) && pgrx::varatt_is_4b_u(array) && (*array.cast::<pg_sys::ArrayType>()).ndim == 0
        })
    }

    /// The set that the function is to fill. `None`: it was called where no set can be returned at once. Under a guard.
    pub fn result_set(self, prepared: Prepared) -> Option<RowSet> {
        // SAFETY: by the contract of `new`.
        unsafe { rows::result_set(self.0, prepared) }
    }

    /// What a function that filled a set returns.
    pub fn no_value(self) -> pg_sys::Datum {
        // SAFETY: by the contract of `new`.
        unsafe { (*self.0).isnull = true };
        pg_sys::Datum::from(0)
    }
}

/// The elements of an array of text. Plain data, alive as long as the call.
#[derive(Clone, Copy)]
pub struct TextArray {
    elements: *mut pg_sys::Datum,
    nulls: *mut bool,
    count: i32,
}

impl TextArray {
    pub fn len(self) -> usize {
        self.count.max(0) as usize
    }

    /// The bytes of an element, in the database's encoding; `None` for a null. May raise: the caller owns nothing that
    /// drops.
    pub fn get<'a>(self, place: usize) -> Option<&'a [u8]> {
        // SAFETY: as many elements as said, each a text.
        unsafe {
            if place >= self.len() || *self.nulls.add(place) {
                return None;
            }
            Some(text_bytes(*self.elements.add(place)))
        }
    }
}

/// Runs work of our own that may fail: a panic, or an error of Postgres's within it, is raised as an error.
#[inline(always)]
pub fn guarded<R: Copy>(work: impl FnOnce() -> R + std::panic::UnwindSafe) -> R {
    // SAFETY: called from a plain frame of a function that Postgres called.
    unsafe { pg_sys::panic::pgrx_extern_c_guard(work) }
}

/// Exports a function without a guard. As for `srf::set_returning`.
macro_rules! plain_function {
    ($symbol:ident, $info:ident, $body:path) => {
        #[doc(hidden)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $info() -> &'static pgrx::pg_sys::Pg_finfo_record {
            const V1: pgrx::pg_sys::Pg_finfo_record = pgrx::pg_sys::Pg_finfo_record { api_version: 1 };
            &V1
        }

        #[doc(hidden)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C-unwind" fn $symbol(fcinfo: pgrx::pg_sys::FunctionCallInfo) -> pgrx::pg_sys::Datum {
            // SAFETY: Postgres calls this as a function of SQL.
            $body(unsafe { $crate::pg::function::Call::new(fcinfo) })
        }
    };
}
pub(crate) use plain_function;
