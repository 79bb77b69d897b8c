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

/// What a function of the result cache refuses.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CacheError {
    /// Another kind of statement.
    #[error("query must be a single SELECT, found {found}")]
    NotSelect {
        /// Its command tag.
        found: String,
    },
    /// More than one statement.
    #[error("query must be a single SELECT, found {0} statements")]
    SeveralStatements(usize),
    /// No statement at all.
    #[error("query must be a single SELECT, found no statement")]
    EmptyQuery,
    /// A query that locks the rows it reads.
    #[error("query must not lock rows, found a locking clause such as FOR UPDATE")]
    Locking,
    /// A query that writes in a WITH clause.
    #[error("query must only read, found a WITH clause that modifies data")]
    ModifyingCte,
    /// A query that makes a table.
    #[error("query must only read, found SELECT INTO")]
    SelectInto,
    /// Parameters that are no list.
    #[error("params must be an array, found {found}")]
    ParamsNotArray {
        /// What was given: object, string, number and so on.
        found: &'static str,
    },
    /// Too few parameters, or too many.
    #[error("params has the wrong number of values: {given} given, the query takes {expected}")]
    ParamCount {
        /// Values given.
        given: usize,
        /// Parameters of the query.
        expected: usize,
    },
    /// A parameter that is no value of its type.
    #[error("value \"{value}\" of parameter ${position} is not valid for type {type_name}: {reason}")]
    ParamValue {
        /// Counted from 1.
        position: usize,
        /// Type that the query expects.
        type_name: String,
        /// As given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No class has this name.
    #[error("class \"{value}\" is not known, expected one of {classes}")]
    UnknownClass {
        /// As given.
        value: String,
        /// The names that are accepted.
        classes: String,
    },
    /// A time to live that is zero or negative.
    #[error("ttl of {0} is out of range, expected more than zero")]
    TtlNotPositive(String),
    /// An argument that must be given is null.
    #[error("{0} must not be null")]
    NullArgument(&'static str),
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
    #[test]
    fn messages_of_the_cache_name_the_value_and_follow_the_style() {
        let param_value = CacheError::ParamValue {
            position: 2,
            type_name: "integer".into(),
            value: "x".into(),
            reason: "invalid input syntax".into(),
        };
        let errors = [
            (CacheError::NotSelect { found: "INSERT".into() }, "INSERT"),
            (CacheError::SeveralStatements(2), "2 statements"),
            (CacheError::EmptyQuery, "no statement"),
            (CacheError::Locking, "FOR UPDATE"),
            (CacheError::ModifyingCte, "WITH"),
            (CacheError::SelectInto, "SELECT INTO"),
            (CacheError::ParamsNotArray { found: "object" }, "object"),
            (CacheError::ParamCount { given: 1, expected: 3 }, "1 given, the query takes 3"),
            (param_value, "\"x\" of parameter $2 is not valid for type integer"),
            (CacheError::UnknownClass { value: "hot".into(), classes: "warm, cold".into() }, "\"hot\""),
            (CacheError::TtlNotPositive("-5 ms".into()), "-5 ms"),
            (CacheError::NullArgument("query"), "query"),
        ];
        for (error, value) in errors {
            let message = error.to_string();
            assert!(message.contains(value), "{message}");
            assert!(!message.ends_with('.') && message.starts_with(|c: char| c.is_lowercase()), "{message}");
        }
    }
}

/// What a function of the index advisor refuses.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum AdvisorError {
    /// A definition is another statement.
    #[error("definition must be a CREATE INDEX command, found {found}")]
    NotIndex {
        /// Its command tag.
        found: String,
    },
    /// A definition is more than one statement.
    #[error("definition must be a single CREATE INDEX command, found {0} commands")]
    SeveralDefinitions(usize),
    /// A definition is empty.
    #[error("definition must be a CREATE INDEX command, found no command")]
    EmptyDefinition,
    /// An access method whose size and cost are not known.
    #[error("index access method \"{0}\" cannot be simulated")]
    Method(String),
    /// Only tables and materialized views have indexes.
    #[error("\"{0}\" is not a table or materialized view")]
    NotTable(String),
    /// A column that the table does not have.
    #[error("column \"{0}\" does not exist")]
    NoColumn(String),
    /// The access method cannot do it.
    #[error("access method does not support {0}")]
    Unsupported(&'static str),
    /// Postgres would not build it.
    #[error("functions in index expression or predicate must be marked IMMUTABLE")]
    Mutable,
    /// A statement that has no plan.
    #[error("query must be SELECT, INSERT, UPDATE, DELETE or MERGE, found {found}")]
    NotPlanned {
        /// Its command tag.
        found: String,
    },
    /// More than one statement.
    #[error("query must be a single command, found {0} commands")]
    SeveralQueries(usize),
    /// No statement at all.
    #[error("query must be a single command, found no command")]
    EmptyQuery,
    /// A limit below zero.
    #[error("{0} must not be negative, found {1}")]
    NegativeLimit(&'static str, i64),
    /// What is to be hidden is no index.
    #[error("\"{0}\" is not an index")]
    NotAnIndex(String),
    /// An argument that must be given is null.
    #[error("{0} must not be null")]
    NullArgument(&'static str),
}
