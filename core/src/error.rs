//! Errors of bad input. The extension maps each to an SQLSTATE and adds the hint.

use thiserror::Error;

/// What a function of statement capture refuses.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum CaptureError {
    /// A percentile is a fraction.
    #[error("percentile {0} is out of range, expected a fraction between 0 and 1")]
    PercentileOutOfRange(f64),
    /// A number of executions to be captured that makes no sense or costs too much.
    #[error("number of executions {value} is out of range, expected {min} to {max}")]
    ExecutionsOutOfRange {
        /// As given.
        value: i64,
        /// Smallest accepted.
        min: i64,
        /// Largest accepted.
        max: i64,
    },
    /// No entry has this query id.
    #[error("query id {0} is not known")]
    UnknownQuery(i64),
    /// A name that is not one of a fixed list.
    #[error("{argument} \"{value}\" is not known, expected one of {expected}")]
    UnknownName {
        /// Name of the SQL function's argument.
        argument: &'static str,
        /// As given.
        value: String,
        /// The names that are accepted.
        expected: &'static str,
    },
    /// An argument that must be given is null.
    #[error("{0} must not be null")]
    NullArgument(&'static str),
    /// Not of the form of a W3C trace context.
    #[error("traceparent \"{0}\" is not valid, expected the form 00-<32 hex digits>-<16 hex digits>-<2 hex digits>")]
    InvalidTraceParent(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_value_and_follow_the_style() {
        let errors = [
            CaptureError::PercentileOutOfRange(1.5),
            CaptureError::ExecutionsOutOfRange { value: 0, min: 1, max: 1000 },
            CaptureError::UnknownQuery(-7),
            CaptureError::UnknownName { argument: "track", value: "some".into(), expected: "top, all, none" },
            CaptureError::NullArgument("queryid"),
            CaptureError::InvalidTraceParent("01".into()),
        ];
        let values = ["1.5", "0", "-7", "\"some\"", "queryid", "\"01\""];
        for (error, value) in errors.iter().zip(values) {
            let message = error.to_string();
            assert!(message.contains(value), "{message}");
            assert!(!message.ends_with('.') && message.starts_with(|c: char| c.is_lowercase()), "{message}");
        }
    }
}
