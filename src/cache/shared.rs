//! From the shared results to this session's.

use super::fill::Fill;
use super::serve::{self, Found};
use super::stats::{Count, Timed};
use super::store::{self, Key};
use super::{admission, commits, key, local, statements};
use crate::pg::backend::BackendStatic;
use crate::pg::buffer::Buffer;
use crate::pg::clock;
use crate::pg::statement::Prepared;
use core::cell::{Cell, RefCell};
use steward_core::cache::payload;
use steward_core::cache::reason::Reason;
use steward_core::cache::shard::Entry;

/// What holds for the shared results of a call.
#[derive(Clone, Copy)]
pub struct Rules {
    /// May the session keep a copy?
    pub keeps_local: bool,
    pub class_ttl_ms: u64,
    /// The same, or less if the caller asked for less.
    pub ttl_ms: u64,
}

/// Bytes on their way; kept unless they are many, so that the usual hit allocates nothing for them.
static SCRATCH: BackendStatic<RefCell<Vec<u8>>> = BackendStatic::new(RefCell::new(Vec::new()));
static HITS: BackendStatic<Cell<u32>> = BackendStatic::new(Cell::new(0));

/// Looks for the result of the key that was made last, where nothing has to be said or decided about the call. The result
/// may be served after the check of privileges.
#[inline(never)]
pub fn find(handle: statements::Handle, asks_class: bool, ttl_ms: Option<i64>, begun_ns: u64) -> Result<Found, Reason> {
    let known = statements::with(handle, |statement| (statement.prepared, statement.shared));
    let (prepared, Some(rules)) = known.ok_or(Reason::StatementChanged)? else { return Err(Reason::Absent) };
    // Who asks for a class or too long a time is told what he gets, on the long way.
    let ttl_ms = match ttl_ms.map(u64::try_from) {
        None => rules.ttl_ms,
        Some(Ok(ms)) if ms > 0 && ms <= rules.ttl_ms => ms,
        Some(_) => return Err(Reason::Absent),
    };
    if asks_class {
        return Err(Reason::Absent);
    }
    key::with(|key| bring(key, &key::shared(key), Rules { ttl_ms, ..rules }))?;
    found(prepared, begun_ns).ok_or(Reason::Absent)
}

/// The same for a call that is being answered.
pub fn from_shared(fill: &Fill) -> Result<(), Reason> {
    if !fill.class.tiers.l2 {
        return Err(Reason::Absent);
    }
    let rules = Rules { keeps_local: fill.class.tiers.l1, class_ttl_ms: fill.class.ttl_ms, ttl_ms: fill.ttl_ms };
    bring(&fill.key, &fill.shared_key, rules)
}

/// Copies a shared result that may be served to this session's.
fn bring(key: &[u8], shared_key: &Key, rules: Rules) -> Result<(), Reason> {
    let mut bytes = SCRATCH.borrow_mut();
    let (entry, place) = store::get(shared_key, &mut bytes).ok_or(Reason::Absent)?;
    let brought = copy(key, shared_key, rules, &entry, &bytes);
    if entry.flags & store::SENSITIVE != 0 {
        bytes.fill(0);
    }
    if bytes.capacity() > key::KEPT_BYTES {
        *bytes = Vec::new();
    }
    if brought.is_ok() {
        store::count_use(place);
    }
    brought
}

fn copy(key: &[u8], shared_key: &Key, rules: Rules, entry: &Entry, bytes: &[u8]) -> Result<(), Reason> {
    let view = payload::decode(bytes).map_err(|_| Reason::Absent)?;
    let snapshot = commits::snapshot().ok_or(Reason::SnapshotUnsafe)?;
    if let Err(reason) = serve::check(view.deps(), &snapshot) {
        if reason == Reason::Stale
            && let Some(hits) = store::remove(shared_key, entry.created_us, Count::Invalidations)
        {
            admission::invalidated(shared_key[0], hits);
        }
        return Err(reason);
    }
    let age_ms = (clock::monotonic_ns() / 1000).saturating_sub(entry.created_us) / 1000;
    if age_ms > rules.ttl_ms {
        // Less time than the class's may have been asked for: others may still use it.
        if age_ms > rules.class_ttl_ms {
            store::remove(shared_key, entry.created_us, Count::Expirations);
        }
        return Err(Reason::Expired);
    }
    let mut scratch = Vec::new();
    let body = view.body(&mut scratch).map_err(|_| Reason::Absent)?;
    let tuples = Buffer::copy_of(body.tuples).ok_or(Reason::NoMemory)?;
    let result = local::Result {
        dependencies: view.deps().collect(),
        relations: view.relations().collect(),
        created_us: entry.created_us,
        ttl_ms: rules.class_ttl_ms,
        exec_us: entry.exec_us,
        class: entry.class,
        query: entry.query,
        is_sensitive: entry.flags & store::SENSITIVE != 0,
        tuples: Some(tuples),
        // Where there is no memory for it, it is made of the rows again.
        json: body.json.and_then(Buffer::copy_of),
        key: *shared_key,
        pending_hits: 0,
        all_hits: 0,
    };
    local::count_shared(entry.class, entry.query, entry.exec_us);
    local::put_or_hold(key, result, rules.keeps_local);
    Ok(())
}

/// What `from_shared` brought.
pub fn served(handle: statements::Handle, begun_ns: u64) -> Option<Found> {
    found(statements::with(handle, |statement| statement.prepared)?, begun_ns)
}

/// The result of the key that was made last, which has just been brought.
fn found(prepared: Prepared, begun_ns: u64) -> Option<Found> {
    let (tuples, json) = key::with(local::held)?;
    count_time(begun_ns);
    Some(Found::new(prepared, tuples, json))
}

fn count_time(begun_ns: u64) {
    let hits = HITS.get();
    HITS.set(hits.wrapping_add(1));
    if hits % serve::TIMED_ONE_IN == 0 {
        serve::note_time(Timed::SharedHit, begun_ns);
    }
}
