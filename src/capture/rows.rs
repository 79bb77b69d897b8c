//! Rows of the views, in the order of the columns that `sql/schema/capture.sql` declares.

use super::store::{self, Statement};
use super::{control, events, pending};
use crate::pg::session;
use crate::pg::srf::{Arguments, Value, set_returning};
use steward_core::capture::entry::{Counts, Entry, Times};
use steward_core::capture::histogram::percentile_us;

/// What Postgres shows instead of another user's text.
const HIDDEN: &str = "<insufficient privilege>";
/// The percentiles that the view shows.
const PERCENTILES: [f64; 5] = [0.50, 0.90, 0.95, 0.99, 0.999];

set_returning!(steward_statements_1, pg_finfo_steward_statements_1, statements);
set_returning!(steward_ring_events_1, pg_finfo_steward_ring_events_1, ring_events);

/// Rows of `statements_internal(showtext)`.
fn statements(arguments: &Arguments) -> Vec<Vec<Value>> {
    require_preload();
    pending::flush(true);
    let reads_all = session::reads_all_stats();
    store::read(arguments.bool(0), |_| true)
        .iter()
        .map(|statement| {
            let visible = reads_all || session::has_privileges_of(statement.key.userid);
            row(statement, arguments.bool(0), visible)
        })
        .collect()
}

fn require_preload() {
    if !control::is_ready() {
        pgrx::pg_sys::panic::ErrorReport::from(crate::error::not_preloaded()).report(pgrx::PgLogLevel::ERROR);
    }
}

fn row(statement: &Statement, with_text: bool, visible: bool) -> Vec<Value> {
    let Statement { key, entry, text } = statement;
    let mut row = vec![
        Value::Oid(key.userid),
        Value::Oid(key.dbid),
        Value::Bool(key.toplevel != 0),
        if visible { Value::Bigint(key.queryid as i64) } else { Value::Null },
        query(text, with_text, visible),
    ];
    let counts = &entry.counts;
    times(&mut row, &counts.plan);
    times(&mut row, &counts.exec);
    row.push(counts.rows.into());
    resources(&mut row, counts);
    jit(&mut row, counts);
    percentiles(&mut row, entry);
    let failures = &counts.failures;
    row.extend([failures.errors, failures.cancelled, failures.timeouts, failures.terminated].map(Value::from));
    row.push(ms(failures.total_ns));
    row.push(if visible && entry.plan_id != 0 { Value::Bigint(entry.plan_id) } else { Value::Null });
    row.extend([entry.stats_since_us, entry.first_seen_us, entry.last_seen_us].map(Value::Timestamp));
    row
}

fn query(text: &[u8], with_text: bool, visible: bool) -> Value {
    match (with_text, visible) {
        (false, _) => Value::Null,
        (true, false) => Value::Text(HIDDEN.into()),
        (true, true) if text.is_empty() => Value::Null,
        (true, true) => Value::Text(String::from_utf8_lossy(text).into_owned()),
    }
}

fn ms(ns: u64) -> Value {
    Value::Double(ns as f64 / 1e6)
}

fn times(row: &mut Vec<Value>, times: &Times) {
    row.extend([
        times.count.into(),
        ms(times.total_ns),
        ms(times.min_ns),
        ms(times.max_ns),
        times.mean_ms().into(),
        times.stddev_ms().into(),
    ]);
}

/// Block counters, then times in milliseconds, then WAL.
fn resources(row: &mut Vec<Value>, counts: &Counts) {
    let words = counts.resources.words();
    row.extend(words[..10].iter().map(|blocks| Value::from(*blocks)));
    row.extend(words[10..16].iter().map(|ns| ms(*ns)));
    row.extend(words[16..].iter().map(|wal| Value::from(*wal)));
}

/// Functions and generation time, then count and time of each further stage.
fn jit(row: &mut Vec<Value>, counts: &Counts) {
    for pair in counts.jit.chunks_exact(2) {
        row.push(pair[0].into());
        row.push(ms(pair[1]));
    }
}

fn percentiles(row: &mut Vec<Value>, entry: &Entry) {
    let counts = entry.histogram.counts();
    let exec = &entry.counts.exec;
    let (min_us, max_us) = (exec.min_ns as f64 / 1e3, exec.max_ns as f64 / 1e3);
    for p in PERCENTILES {
        row.push(match percentile_us(&counts, p, min_us, max_us) {
            Some(us) => Value::Double(us / 1e3),
            None => Value::Null,
        });
    }
}

/// Rows of `ring_events()`: those of this database that the caller may see and that are still in the ring.
fn ring_events(_arguments: &Arguments) -> Vec<Vec<Value>> {
    require_preload();
    let reads_all = session::reads_all_stats();
    events::all()
        .into_iter()
        .filter(|event| reads_all || owner(&event.payload).is_some_and(session::has_privileges_of))
        .map(|event| {
            vec![
                Value::Bigint(event.id),
                Value::Text(event.kind.into()),
                Value::Text(String::from_utf8_lossy(&event.payload).into_owned()),
            ]
        })
        .collect()
}

/// The user that an event is about; a plan belongs to nobody.
fn owner(payload: &[u8]) -> Option<u32> {
    let event: serde_json::Value = serde_json::from_slice(payload).ok()?;
    u32::try_from(event.get("userid")?.as_u64()?).ok()
}
