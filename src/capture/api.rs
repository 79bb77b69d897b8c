//! The SQL functions of statement capture. Views and grants are in `sql/schema/capture.sql`.

use super::store::{self, Statement};
use super::{armed, control, control::Counter, pending};
use crate::error::{self, Error};
use crate::pg::{session, spi, xact};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use serde_json::json;
use steward_core::capture::degrade::Level;
use steward_core::capture::histogram::{BUCKETS, bounds_us, percentile_us};
use steward_core::error::CaptureError;

/// Most executions that a statement can be armed for.
const MAX_ARMED_EXECUTIONS: i64 = 10_000;

fn require_preload() -> Result<(), Error> {
    if control::is_ready() { Ok(()) } else { Err(error::not_preloaded()) }
}

/// The entries of one statement in the present database that the caller may see.
fn visible(queryid: i64) -> Result<Vec<Statement>, Error> {
    require_preload()?;
    pending::flush(true);
    let (database, reads_all) = (session::database_id(), session::reads_all_stats());
    let mut found = store::read(false, |key| key.queryid == queryid as u64 && key.dbid == database);
    found.retain(|statement| reads_all || session::has_privileges_of(statement.key.userid));
    Ok(found)
}

/// Sum of the histograms, and the extremes in microseconds.
fn summed(statements: &[Statement]) -> ([u64; BUCKETS], f64, f64) {
    let mut counts = [0; BUCKETS];
    let (mut min_us, mut max_us) = (f64::INFINITY, 0.0f64);
    for statement in statements {
        steward_core::capture::histogram::add(&mut counts, &statement.entry.histogram.counts());
        let exec = &statement.entry.counts.exec;
        if exec.count > 0 {
            min_us = min_us.min(exec.min_ns as f64 / 1e3);
            max_us = max_us.max(exec.max_ns as f64 / 1e3);
        }
    }
    (counts, min_us, max_us)
}

#[pg_extern(volatile, parallel_restricted, strict)]
fn histogram(
    queryid: i64,
) -> Result<TableIterator<'static, (name!(lower_ms, f64), name!(upper_ms, f64), name!(calls, i64))>, ErrorReport> {
    let (counts, ..) = summed(&visible(queryid)?);
    let rows: Vec<_> = counts
        .into_iter()
        .enumerate()
        .filter(|(_, calls)| *calls > 0)
        .map(|(bucket, calls)| {
            let (lower, upper) = bounds_us(bucket);
            (lower as f64 / 1e3, upper as f64 / 1e3, calls as i64)
        })
        .collect();
    Ok(TableIterator::new(rows))
}

#[pg_extern(volatile, parallel_restricted, strict)]
fn percentile(queryid: i64, p: f64) -> Result<Option<f64>, ErrorReport> {
    let p = fraction(p)?;
    let (counts, min_us, max_us) = summed(&visible(queryid)?);
    Ok(percentile_us(&counts, p, min_us, max_us).map(|us| us / 1e3))
}

fn fraction(p: f64) -> Result<f64, Error> {
    if (0.0..=1.0).contains(&p) { Ok(p) } else { Err(CaptureError::PercentileOutOfRange(p).into()) }
}

/// Counts per bucket of a statement's histogram, all users of this database together.
#[pg_extern(volatile, parallel_restricted, strict)]
fn histogram_counts(queryid: i64) -> Result<Vec<i64>, ErrorReport> {
    let (counts, ..) = summed(&visible(queryid)?);
    Ok(counts.map(|count| count as i64).to_vec())
}

/// A percentile in milliseconds of what was counted between two readings of `histogram_counts`.
#[pg_extern(immutable, parallel_safe)]
fn percentile_between(before: Option<Vec<i64>>, after: Option<Vec<i64>>, p: f64) -> Result<Option<f64>, ErrorReport> {
    let p = fraction(p)?;
    let counts = |list: Option<Vec<i64>>| -> Vec<u64> {
        let mut counts: Vec<u64> = list.unwrap_or_default().into_iter().map(|count| count.max(0) as u64).collect();
        counts.resize(BUCKETS, 0);
        counts
    };
    let (before, after) = (counts(before), counts(after));
    let between = steward_core::capture::histogram::subtract(&after, &before);
    Ok(percentile_us(&between, p, 0.0, f64::INFINITY).map(|us| us / 1e3))
}

#[pg_extern(volatile, parallel_unsafe, strict)]
fn statements_reset(
    userid: default!(pg_sys::Oid, 0),
    dbid: default!(pg_sys::Oid, 0),
    queryid: default!(i64, 0),
) -> Result<(), ErrorReport> {
    require_preload()?;
    let (user, database) = (userid.to_u32(), dbid.to_u32());
    let everything = user == 0 && database == 0 && queryid == 0;
    pending::flush(true);
    store::reset(everything, |key| {
        (user == 0 || key.userid == user)
            && (database == 0 || key.dbid == database)
            && (queryid == 0 || key.queryid == queryid as u64)
    });
    control::add(Counter::Resets, 1);
    if everything {
        pending::discard();
        control::reset();
    }
    let arguments = json!({"userid": user, "dbid": database, "queryid": queryid});
    spi::audit("statements_reset", &arguments);
    Ok(())
}

#[pg_extern(volatile, parallel_unsafe, strict)]
fn arm_explain(queryid: i64, executions: default!(i32, 1)) -> Result<(), ErrorReport> {
    require_preload()?;
    let value = i64::from(executions);
    if !(0..=MAX_ARMED_EXECUTIONS).contains(&value) {
        let error = CaptureError::ExecutionsOutOfRange { value, min: 0, max: MAX_ARMED_EXECUTIONS };
        return Err(Error::from(error).into());
    }
    if visible(queryid)?.is_empty() {
        return Err(Error::from(CaptureError::UnknownQuery(queryid)).into());
    }
    if !armed::arm(queryid as u64, value as u64) {
        let message = format!("{} statements are armed already", armed::LIMIT);
        let hint = "Disarm one with steward.arm_explain(queryid, 0), or wait until it was executed.";
        return Err(error::limit_exceeded(message, hint).into());
    }
    spi::audit("arm_explain", &json!({"queryid": queryid, "executions": executions}));
    Ok(())
}

#[pg_extern(volatile, parallel_restricted)]
#[allow(clippy::type_complexity, reason = "the columns of one row")]
fn capture_info() -> Result<
    TableIterator<
        'static,
        (
            name!(entries, i64),
            name!(max_statements, i64),
            name!(dealloc, i64),
            name!(refused, i64),
            name!(other_calls, i64),
            name!(other_exec_time, f64),
            name!(other_failures, i64),
            name!(texts_truncated, i64),
            name!(untracked, i64),
            name!(unidentified_errors, i64),
            name!(events_written, i64),
            name!(events_lost, i64),
            name!(events_suppressed, i64),
            name!(events_too_large, i64),
            name!(internal_errors, i64),
            name!(own_time, f64),
            name!(statement_time, f64),
            name!(overhead_pct, f64),
            name!(degraded, String),
            name!(armed, i64),
            name!(stats_reset, Option<TimestampWithTimeZone>),
        ),
    >,
    ErrorReport,
> {
    require_preload()?;
    pending::flush(true);
    let totals = store::totals();
    let count = |counter| control::get(counter) as i64;
    let ms = |counter| control::get(counter) as f64 / 1e6;
    Ok(TableIterator::once((
        totals.entries as i64,
        store::capacity() as i64,
        totals.evictions as i64,
        totals.refused as i64,
        totals.others.counts.exec.count as i64,
        totals.others.counts.exec.total_ns as f64 / 1e6,
        totals.others.counts.failures.count() as i64,
        totals.texts_truncated as i64,
        count(Counter::Untracked),
        count(Counter::Unidentified),
        count(Counter::EventsWritten),
        count(Counter::EventsLost),
        count(Counter::EventsSuppressed),
        count(Counter::EventsTooLarge),
        count(Counter::InternalErrors),
        ms(Counter::OwnNs),
        ms(Counter::StatementNs),
        count(Counter::OverheadMilliPct) as f64 / 1e3,
        Level::from_number(control::level()).name().to_owned(),
        count(Counter::Armed),
        TimestampWithTimeZone::try_from(count(Counter::ResetAt)).ok(),
    )))
}

/// Called by CREATE EXTENSION: from now on this database's events are for its own table.
#[pg_extern(volatile, parallel_unsafe)]
fn capture_installed() {
    xact::once_committed(|| super::events::created(session::database_id()));
}
