//! Errors for users: one map from what core refuses to SQLSTATE, message and hint.

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;
use steward_core::error::{AdvisorError, CacheError, CaptureError};

/// An error of pg_steward's SQL functions.
pub struct Error(ErrorReport);

impl From<Error> for ErrorReport {
    fn from(error: Error) -> Self {
        error.0
    }
}

impl From<CaptureError> for Error {
    fn from(error: CaptureError) -> Self {
        use CaptureError::*;
        let (code, hint) = match &error {
            PercentileOutOfRange(_) => {
                (PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, "Give the 95th percentile as 0.95.")
            }
            ExecutionsOutOfRange { .. } => {
                (PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, "0 disarms the statement.")
            }
            UnknownQuery(_) => {
                (PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, "See the column queryid of steward.statements.")
            }
            UnknownName { .. } => (PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, ""),
            NullArgument(_) => (PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, ""),
            InvalidTraceParent(_) => {
                (PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "The form is that of W3C Trace Context.")
            }
        };
        Error(report(code, error.to_string(), hint))
    }
}

impl From<CacheError> for Error {
    fn from(error: CacheError) -> Self {
        use CacheError::*;
        let (code, hint) = match &error {
            NotSelect { .. } | SeveralStatements(_) | EmptyQuery | Locking | ModifyingCte | SelectInto => (
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                "Give one SELECT, VALUES or TABLE command that only reads.",
            ),
            ParamsNotArray { .. } | ParamCount { .. } => (
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                "Give the values for $1, $2 and so on as a JSON array, such as '[42, \"north\"]'.",
            ),
            ParamValue { .. } => (PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION, ""),
            UnknownClass { .. } => (PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, "See the table steward.cache_classes."),
            TtlNotPositive(_) => (PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, ""),
            NullArgument(_) => (PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, ""),
        };
        Error(report(code, error.to_string(), hint))
    }
}

impl From<AdvisorError> for Error {
    fn from(error: AdvisorError) -> Self {
        use AdvisorError::*;
        let (code, hint) = match &error {
            NotIndex { .. } | SeveralDefinitions(_) | EmptyDefinition => (
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                "Give each index as one element, such as 'CREATE INDEX ON orders (customer_id)'.",
            ),
            Method(_) => (PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, "Those that can: btree, hash, gin, brin."),
            NotTable(_) | NotAnIndex(_) => (PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE, ""),
            NoColumn(_) => (PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN, ""),
            NegativeLimit(..) => (PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, "NULL is no limit."),
            Unsupported(_) => (PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, ""),
            Mutable => (PgSqlErrorCode::ERRCODE_INVALID_OBJECT_DEFINITION, ""),
            NotPlanned { .. } | SeveralQueries(_) | EmptyQuery => (PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, ""),
            NullArgument(_) => (PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, ""),
        };
        Error(report(code, error.to_string(), hint))
    }
}

/// A function that returns a set was called where none is taken.
pub fn no_set_accepted() -> Error {
    Error(report(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        "set-valued function called in context that cannot accept a set".into(),
        "Call it in FROM, with a list of columns: SELECT * FROM steward.cached('SELECT ...') AS t(a int).",
    ))
}

/// The library was not loaded at server start, so there is nothing to read.
pub fn not_preloaded() -> Error {
    Error(report(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "pg_steward is not loaded via shared_preload_libraries".into(),
        "Add pg_steward to shared_preload_libraries and restart the server.",
    ))
}

/// A limit of pg_steward's own is reached.
pub fn limit_exceeded(message: String, hint: &str) -> Error {
    Error(report(PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, message, hint))
}

/// Raises an error of ours. Under a guard.
pub fn raise(error: impl Into<Error>) -> ! {
    ErrorReport::from(error.into()).report(pgrx::PgLogLevel::ERROR);
    unreachable!("an error was reported")
}

fn report(code: PgSqlErrorCode, message: String, hint: &str) -> ErrorReport {
    let report = ErrorReport::new(code, crate::pg::text::message(message), "pg_steward");
    match hint.is_empty() {
        true => report,
        false => report.set_hint(hint),
    }
}
