//! Functions that return rows wider than pgrx's macros go.

use super::text;
use pgrx::pg_sys;

/// One column's value.
pub enum Value {
    Null,
    Bool(bool),
    Oid(u32),
    Bigint(i64),
    Double(f64),
    /// In UTF-8.
    Text(String),
    /// Microseconds since 2000-01-01.
    Timestamp(i64),
    /// A document, to be a jsonb.
    Json(String),
    /// Ids of relations, to be an array of regclass.
    Relations(Vec<u32>),
    /// Milliseconds, to be an interval.
    Interval(i64),
    /// In UTF-8, to be an array of text.
    Texts(Vec<String>),
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Value::Bigint(number as i64)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Value::Double(number)
    }
}

/// The arguments of a function; none of them is NULL, since such functions are STRICT.
pub struct Arguments(pg_sys::FunctionCallInfo);

impl Arguments {
    pub fn bool(&self, place: usize) -> bool {
        // SAFETY: Postgres passes as many arguments as the SQL declaration names.
        unsafe { (*(*self.0).args.as_ptr().add(place)).value.value() != 0 }
    }
}

/// Puts rows into the result of a function that returns a set.
///
/// # Safety
/// To be called from a function of SQL's calling convention, with its own argument, once.
pub unsafe fn materialize(
    fcinfo: pg_sys::FunctionCallInfo,
    rows: impl FnOnce(&Arguments) -> Vec<Vec<Value>>,
) -> pg_sys::Datum {
    // SAFETY: by the contract.
    unsafe {
        put_rows(fcinfo, || rows(&Arguments(fcinfo)));
        (*fcinfo).isnull = true;
        pg_sys::Datum::from(0)
    }
}

/// Puts rows into the result of a function that is not guarded. Under a guard.
pub fn fill(call: super::function::Call, rows: Vec<Vec<Value>>) {
    // SAFETY: the call is that of a function being called.
    unsafe { put_rows(call.info(), || rows) }
}

unsafe fn put_rows(fcinfo: pg_sys::FunctionCallInfo, rows: impl FnOnce() -> Vec<Vec<Value>>) {
    // SAFETY: by the contract; the tuplestore and its descriptor live in the caller's result info.
    unsafe {
        pg_sys::InitMaterializedSRF(fcinfo, 0);
        let result = (*fcinfo).resultinfo.cast::<pg_sys::ReturnSetInfo>();
        let columns = (*(*result).setDesc).natts as usize;
        for row in rows() {
            assert_eq!(row.len(), columns, "columns of the SQL declaration");
            let mut nulls: Vec<bool> = row.iter().map(|v| matches!(v, Value::Null)).collect();
            let mut values: Vec<pg_sys::Datum> = row.into_iter().map(datum).collect();
            pg_sys::tuplestore_putvalues(
                (*result).setResult,
                (*result).setDesc,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
        }
    }
}

/// The value as Postgres passes it; text is copied into the current context, in the database's encoding.
fn datum(value: Value) -> pg_sys::Datum {
    use pgrx::IntoDatum;
    let datum = match value {
        Value::Null => None,
        Value::Bool(value) => value.into_datum(),
        Value::Oid(value) => pg_sys::Oid::from(value).into_datum(),
        Value::Bigint(value) | Value::Timestamp(value) => value.into_datum(),
        Value::Double(value) => value.into_datum(),
        Value::Text(value) => Some(text_datum(&value)),
        Value::Json(value) => json_datum(&value),
        Value::Relations(ids) => Some(relations_datum(&ids)),
        Value::Interval(ms) => Some(interval_datum(ms)),
        Value::Texts(texts) => Some(texts_datum(&texts)),
    };
    datum.unwrap_or(pg_sys::Datum::from(0))
}

fn json_datum(value: &str) -> Option<pg_sys::Datum> {
    let text = std::ffi::CString::new(text::from_utf8(value)).ok()?;
    // SAFETY: NUL-terminated text of our own making; raises what is no document.
    unsafe {
        let text = pg_sys::Datum::from(text.as_ptr());
        pgrx::direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(text)])
    }
}

fn relations_datum(ids: &[u32]) -> pg_sys::Datum {
    let mut values: Vec<pg_sys::Datum> = ids.iter().map(|id| pg_sys::Datum::from(pg_sys::Oid::from(*id))).collect();
    // SAFETY: as many values as said, of a type of four bytes passed by value.
    unsafe {
        let align = pg_sys::TYPALIGN_INT as core::ffi::c_char;
        let count = values.len() as i32;
        pg_sys::Datum::from(pg_sys::construct_array(values.as_mut_ptr(), count, pg_sys::REGCLASSOID, 4, true, align))
    }
}

fn interval_datum(ms: i64) -> pg_sys::Datum {
    let interval = pg_sys::Interval { time: ms.saturating_mul(1000), day: 0, month: 0 };
    // SAFETY: a copy in the current context.
    unsafe {
        let copy = pg_sys::palloc(size_of::<pg_sys::Interval>()).cast::<pg_sys::Interval>();
        copy.write(interval);
        pg_sys::Datum::from(copy)
    }
}

fn texts_datum(texts: &[String]) -> pg_sys::Datum {
    let mut values: Vec<pg_sys::Datum> = texts.iter().map(|text| text_datum(text)).collect();
    // SAFETY: as many values as said, of variable length.
    unsafe {
        let align = pg_sys::TYPALIGN_INT as core::ffi::c_char;
        let count = values.len() as i32;
        pg_sys::Datum::from(pg_sys::construct_array(values.as_mut_ptr(), count, pg_sys::TEXTOID, -1, false, align))
    }
}

fn text_datum(value: &str) -> pg_sys::Datum {
    let bytes = text::from_utf8(value);
    // SAFETY: copies as many bytes as said.
    unsafe {
        let copy = pg_sys::cstring_to_text_with_len(bytes.as_ptr().cast(), bytes.len() as i32);
        pg_sys::Datum::from(copy)
    }
}

/// Exports a function `symbol(arguments) -> rows` under the names that CREATE FUNCTION … LANGUAGE C looks
/// for. The symbol carries the version of its columns: a later one gets a new symbol, and this one stays,
/// since old catalogs still name it.
macro_rules! set_returning {
    ($symbol:ident, $info:ident, $rows:path) => {
        #[doc(hidden)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $info() -> &'static pgrx::pg_sys::Pg_finfo_record {
            const V1: pgrx::pg_sys::Pg_finfo_record = pgrx::pg_sys::Pg_finfo_record { api_version: 1 };
            &V1
        }

        #[doc(hidden)]
        #[unsafe(no_mangle)]
        #[pgrx::pg_guard]
        pub unsafe extern "C-unwind" fn $symbol(fcinfo: pgrx::pg_sys::FunctionCallInfo) -> pgrx::pg_sys::Datum {
            // SAFETY: Postgres calls this as a function of SQL.
            unsafe { $crate::pg::srf::materialize(fcinfo, $rows) }
        }
    };
}
pub(crate) use set_returning;
