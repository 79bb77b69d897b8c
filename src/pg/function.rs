//! Functions that SQL calls without a guard of pgrx's, so that the errors of a query they run pass as they are.

#![allow(ffi_unwind_calls, reason = "plain frames: a longjmp may cross them")]

use super::bind::Json;
use super::rows::{self, RowSet};
use super::statement::Prepared;
use pgrx::pg_sys;

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
        // SAFETY: Postgres's own symbol; a plain value comes back as it is.
        unsafe extern "C-unwind" {
            fn pg_detoast_datum_packed(datum: *mut pg_sys::varlena) -> *mut pg_sys::varlena;
        }
        // SAFETY: a text argument; the bytes live as long as the call.
        self.argument(place).map(|datum| unsafe {
            let text = pg_detoast_datum_packed(datum.cast_mut_ptr());
            core::slice::from_raw_parts(pgrx::vardata_any(text).cast::<u8>(), pgrx::varsize_any_exhdr(text))
        })
    }

    /// A jsonb argument. May raise: the caller owns nothing that drops.
    #[inline(always)]
    pub fn json(self, place: usize) -> Option<Json> {
        // SAFETY: a jsonb argument.
        self.argument(place).map(|datum| unsafe { Json::new(datum) })
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
