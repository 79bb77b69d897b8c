//! From the shared results to this session's.

use super::fill::Fill;
use super::serve::{self, Found};
use super::stats::{self, Count, Part, Timed};
use super::{admission, commits, key, local, statements, store};
use crate::pg::buffer::Buffer;
use crate::pg::clock;
use steward_core::cache::payload;
use steward_core::cache::reason::Reason;

/// Looks among the shared results; one that may be served is copied to this session's.
pub fn from_shared(fill: &Fill, ttl_ms: Option<i64>) -> Result<(), Reason> {
    if !fill.class.tiers.l2 {
        return Err(Reason::Absent);
    }
    let mut bytes = Vec::new();
    let Some(entry) = store::get(&fill.shared_key, &mut bytes) else { return Err(Reason::Absent) };
    let Ok(view) = payload::decode(&bytes) else { return Err(Reason::Absent) };
    let snapshot = commits::snapshot().ok_or(Reason::SnapshotUnsafe)?;
    match serve::check(view.deps(), &snapshot) {
        Ok(()) => {}
        Err(Reason::Stale) => {
            if let Some(hits) = store::remove(&fill.shared_key, entry.created_us, Count::Invalidations) {
                admission::invalidated(fill.fingerprint(), hits);
            }
            return Err(Reason::Stale);
        }
        Err(reason) => return Err(reason),
    }
    let age_ms = (clock::monotonic_ns() / 1000).saturating_sub(entry.created_us) / 1000;
    if age_ms > fill.ttl_ms {
        // Less time than the class's may have been asked for: others may still use it.
        if ttl_ms.is_none() {
            store::remove(&fill.shared_key, entry.created_us, Count::Expirations);
        }
        return Err(Reason::Expired);
    }
    let mut scratch = Vec::new();
    let body = view.body(&mut scratch).map_err(|_| Reason::Absent)?;
    let result = local::Result {
        dependencies: view.deps().collect(),
        relations: view.relations().collect(),
        created_us: entry.created_us,
        ttl_ms: fill.class.ttl_ms,
        exec_us: entry.exec_us,
        class: fill.class_number,
        query: fill.query_number,
        is_sensitive: entry.flags & store::SENSITIVE != 0,
        tuples: Some(Buffer::copy_of(body.tuples)),
        json: body.json.map(Buffer::copy_of),
        key: fill.shared_key,
        pending_hits: 0,
        all_hits: 0,
    };
    stats::add(Count::SharedHits, 1);
    stats::add(Count::SavedUs, u64::from(entry.exec_us));
    stats::add_to(fill.class_number, fill.query_number, Part::SharedHits, 1);
    stats::add_to(fill.class_number, fill.query_number, Part::SavedUs, u64::from(entry.exec_us));
    local::put_or_hold(&fill.key, result, fill.class.tiers.l1);
    Ok(())
}

/// What `from_shared` brought.
pub fn served(handle: statements::Handle, begun_ns: u64) -> Option<Found> {
    let prepared = statements::with(handle, |statement| statement.prepared)?;
    let (tuples, json) = key::with(local::held)?;
    stats::time(Timed::SharedHit, clock::monotonic_ns() - begun_ns);
    Some(Found::new(prepared, tuples, json))
}
