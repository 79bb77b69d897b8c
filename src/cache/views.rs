//! Rows of the views.

use super::stats::{self, Count, Part, Timed};
use super::{Cache, local, store};
use crate::pg::function::Call;
use crate::pg::srf::{Arguments, Value};
use crate::pg::{clock, session, text};
use steward_core::cache::payload;
use steward_core::cache::reason::{Kind, Reason};

fn exists() {
    if !Cache::exists() {
        super::raise(crate::error::not_preloaded());
    }
    local::flush();
}

/// One row: the counts of the server.
pub fn stats_rows(_: &Arguments) -> Vec<Vec<Value>> {
    exists();
    let count = |which| Value::from(stats::count(which));
    let (stored, used) = store::used_bytes();
    let (local_bytes, local_entries) = local::used();
    let entries: u64 = (0..store::SHARDS).map(store::count).sum();
    let mut row: Vec<Value> = [
        Count::LocalHits,
        Count::SharedHits,
        Count::Misses,
        Count::Stored,
        Count::StoredLocally,
        Count::Evictions,
        Count::LocalEvictions,
        Count::Invalidations,
        Count::Expirations,
        Count::Replaced,
        Count::Dropped,
        Count::Waits,
        Count::WaitsServed,
        Count::WaitsTimedOut,
    ]
    .map(count)
    .into();
    row.push(Value::Double(stats::count(Count::SavedUs) as f64 / 1000.0));
    row.extend(
        [entries, stored, used, store::capacity_bytes(), local_entries as u64, local_bytes as u64].map(Value::from),
    );
    for what in [Timed::LocalHit, Timed::SharedHit, Timed::Miss] {
        row.extend([0.5, 0.95, 0.99].map(|p| stats::percentile_ms(what, p).map_or(Value::Null, Value::Double)));
    }
    row.push(Value::Timestamp(stats::since_us()));
    vec![row]
}

/// A row for each reason why calls were not served, or results not kept.
pub fn reason_rows(_: &Arguments) -> Vec<Vec<Value>> {
    exists();
    Reason::ALL
        .iter()
        .map(|reason| {
            let kind = match reason.kind() {
                Kind::NotCacheable => "query",
                Kind::Circumstance => "call",
                Kind::Miss => "miss",
            };
            vec![
                Value::Text(reason.code().into()),
                Value::Text(kind.into()),
                Value::from(stats::reason_count(*reason)),
                Value::Text(reason.explain().into()),
            ]
        })
        .collect()
}

const PART_COLUMNS: [Part; 9] = [
    Part::LocalHits,
    Part::SharedHits,
    Part::Misses,
    Part::Stored,
    Part::Evictions,
    Part::Invalidations,
    Part::Entries,
    Part::SizeBytes,
    Part::SavedUs,
];

fn parts(part: impl Fn(Part) -> u64) -> Vec<Value> {
    PART_COLUMNS
        .iter()
        .map(|which| match which {
            Part::SavedUs => Value::Double(part(*which) as f64 / 1000.0),
            _ => Value::from(part(*which)),
        })
        .collect()
}

/// A row for each class that was used.
pub fn class_rows(_: &Arguments) -> Vec<Vec<Value>> {
    exists();
    (0..stats::CLASSES)
        .map(|number| (number, stats::class_name(number)))
        .filter(|(_, name)| !name.is_empty())
        .map(|(number, name)| {
            let mut row = vec![Value::Text(name)];
            row.extend(parts(|part| stats::class_part(number, part)));
            row
        })
        .collect()
}

fn visible_text(number: u32) -> (Value, Value) {
    let Some(query) = stats::query(number) else { return (Value::Null, Value::Null) };
    let role = Value::Oid(query.role);
    if !session::reads_all_stats() && !session::has_privileges_of(query.role) {
        return (role, Value::Text("<insufficient privilege>".into()));
    }
    let is_here = query.database == session::database_id();
    // Text of another database may be in another encoding.
    (role, if is_here { Value::Text(text::to_utf8(&query.text)) } else { Value::Null })
}

/// A row for each query and role.
pub fn query_rows(_: &Arguments) -> Vec<Vec<Value>> {
    exists();
    stats::query_numbers()
        .filter_map(|number| stats::query(number).map(|query| (number, query.database)))
        .map(|(number, database)| {
            let (role, query) = visible_text(number);
            let mut row = vec![Value::Bigint(i64::from(number)), role, Value::Oid(database), query];
            row.extend(parts(|part| stats::query_part(number, part)));
            row
        })
        .collect()
}

/// A row for each shared result of this database.
pub fn entry_rows(_: &Arguments) -> Vec<Vec<Value>> {
    exists();
    let database = session::database_id();
    let now_us = clock::monotonic_ns() / 1000;
    let listed = (0..store::SHARDS).flat_map(|shard| store::list(shard, |entry| entry.database == database));
    listed
        .map(|stored| {
            let entry = stored.entry;
            let (_, query) = visible_text(entry.query);
            let front = payload::decode_front(&stored.front).ok();
            let relations = front.map_or(Vec::new(), |front| front.relations().collect());
            vec![
                Value::Text(format!("{:016x}{:016x}", entry.key[0], entry.key[1])),
                Value::Bigint(i64::from(entry.query)),
                query,
                Value::Oid(entry.role),
                Value::Text(stats::class_name(entry.class as usize)),
                front.map_or(Value::Null, |front| Value::Bigint(i64::from(front.rows))),
                Value::Bigint(i64::from(entry.size_bytes)),
                Value::Double(now_us.saturating_sub(entry.created_us) as f64 / 1000.0),
                Value::from(stored.hits),
                Value::Double(f64::from(entry.exec_us) / 1000.0),
                Value::Double(stored.hits as f64 * f64::from(entry.exec_us) / 1000.0),
                front.map_or(Value::Null, |front| Value::Bool(is_current(&front))),
                front.map_or(Value::Null, |front| Value::Bool(front.is_compressed())),
                Value::Bool(entry.flags & store::SENSITIVE != 0),
                Value::Relations(relations),
            ]
        })
        .collect()
}

/// Has no commit made it untrue?
fn is_current(front: &payload::Front<'_>) -> bool {
    let Some(versions) = super::commits::versions() else { return false };
    front.deps().all(|(slot, version)| versions.version(slot) == version)
}

/// Answers `cache_explain`.
pub fn explain(call: Call) -> Vec<Vec<Value>> {
    vec![super::explain::explain(call)]
}
