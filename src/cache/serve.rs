//! The way of a call: from this session's results, else from the shared ones, else by running the query.
//!
//! `answer` is a plain frame (see `pg::hot`): an error of the caller's query, or of Postgres's permission check, crosses
//! it. What is borrowed or owned is so within functions that call nothing that raises, or below a guard.

use super::fill::{self, Plan};
use super::key::{self, Asked, CLASS, PARAMS, QUERY, TAGS, TTL};
use super::local;
use super::stats::{self, Count, Timed};
use super::{Cache, commits, proof, shared, statements};
use crate::pg::buffer::{Buffer, Scratch};
use crate::pg::function::{Call, guarded};
use crate::pg::rows::{self, RowSet};
use crate::pg::statement::Prepared;
use crate::pg::{clock, inval, json};
use pgrx::pg_sys::Datum;
use steward_core::cache::reason::Reason;

/// In which form a caller wants the result.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Rows,
    Json,
}

/// One in so many hits is timed.
pub const TIMED_ONE_IN: u32 = 16;

/// A result that may be served: where it is and what the caller must be allowed to.
#[derive(Clone, Copy)]
pub struct Found {
    pub prepared: Prepared,
    pub tuples: Option<Buffer>,
    pub json: Option<Buffer>,
    is_timed: bool,
}

impl Found {
    /// A result that was found elsewhere than among this session's.
    pub fn new(prepared: Prepared, tuples: Option<Buffer>, json: Option<Buffer>) -> Self {
        Self { prepared, tuples, json, is_timed: false }
    }
}

/// Whether a session's own result may be served.
#[derive(Clone, Copy)]
enum Check {
    Serve(Found),
    /// A commit has made it untrue, or it is too old for anybody.
    Gone(Reason),
    /// It may be true for others.
    No(Reason),
}

/// Answers a call of `cached` or `cached_json`.
pub fn answer(call: Call, form: Form) -> Datum {
    statements::call_begins();
    let datum = answer_call(call, form);
    statements::call_ends();
    datum
}

#[inline(always)]
fn answer_call(call: Call, form: Form) -> Datum {
    let begun_ns = clock::monotonic_ns();
    if !Cache::exists() {
        guarded(|| super::raise(crate::error::not_preloaded()));
    }
    let missed = match quick(call, begun_ns) {
        Ok(found) => return deliver(call, form, found, begun_ns),
        Err(reason) => reason,
    };
    let plan = fill::plan(call, missed, begun_ns);
    match plan {
        Plan::Serve(found) => deliver(call, form, found, begun_ns),
        Plan::Run(run) => fill::run(call, form, run, begun_ns),
    }
}

/// Looks among the results of this session. Runs Postgres's permission check before it says yes.
#[inline(always)]
fn quick(call: Call, begun_ns: u64) -> Result<Found, Reason> {
    if let Some(reason) = proof::circumstance() {
        return Err(reason);
    }
    let Some(text) = call.text(QUERY) else { return Err(Reason::Absent) };
    let asked = Asked { params: call.json(PARAMS), class: call.text(CLASS), tags: &[] };
    if !call.is_empty_array(TAGS) {
        return Err(Reason::Absent);
    }
    inval::accept();
    let Some(candidate) = statements::find(text) else { return Err(Reason::Absent) };
    if !candidate.path.is_current() {
        return Err(Reason::Absent);
    }
    match key::reads_all_settings(candidate.handle) {
        false => key::make(candidate.handle, asked)?,
        true => guarded(move || key::make(candidate.handle, asked))?,
    }
    let ttl_ms = call.interval_ms(TTL);
    let found = match look(candidate.handle, ttl_ms, begun_ns) {
        Err(Reason::Absent | Reason::Stale) => shared::find(candidate.handle, asked.class.is_some(), ttl_ms, begun_ns)?,
        found => found?,
    };
    // This is the check that the executor would make, for the caller, now.
    candidate.rights.check();
    Ok(found)
}

/// Looks up the key that was made last.
#[inline(always)]
fn look(handle: statements::Handle, ttl_ms: Option<i64>, now_ns: u64) -> Result<Found, Reason> {
    let Some(snapshot) = commits::snapshot() else { return Err(Reason::SnapshotUnsafe) };
    let Some(prepared) = statements::with(handle, |statement| statement.prepared) else {
        return Err(Reason::StatementChanged);
    };
    let check = key::with(|key| {
        local::with(key, |result| match may_serve(result, &snapshot, ttl_ms, now_ns) {
            Ok(()) => {
                result.pending_hits += 1;
                result.all_hits = result.all_hits.wrapping_add(1);
                Check::Serve(Found {
                    prepared,
                    tuples: result.tuples,
                    json: result.json,
                    is_timed: result.all_hits % TIMED_ONE_IN == 1,
                })
            }
            Err(reason @ Reason::Stale) => Check::Gone(reason),
            Err(reason) => Check::No(reason),
        })
    });
    match check {
        None => Err(Reason::Absent),
        Some(Check::Serve(found)) => Ok(found),
        Some(Check::No(reason)) => Err(reason),
        Some(Check::Gone(reason)) => {
            key::with(local::remove);
            Err(reason)
        }
    }
}

#[inline(always)]
pub fn may_serve(
    result: &local::Result,
    snapshot: &crate::pg::snapshot::Active,
    ttl_ms: Option<i64>,
    now_ns: u64,
) -> Result<(), Reason> {
    let limit_ms = ttl_ms.filter(|ms| *ms > 0).map_or(result.ttl_ms, |ms| result.ttl_ms.min(ms as u64));
    check(result.dependencies.iter().copied(), snapshot)?;
    // A ttl that is not positive is refused further on.
    let age_us = (now_ns / 1000).saturating_sub(result.created_us);
    if age_us > limit_ms.saturating_mul(1000) || ttl_ms.is_some_and(|ms| ms <= 0) {
        return Err(Reason::Expired);
    }
    Ok(())
}

/// Does the snapshot see exactly the versions that these dependencies name, and has this transaction written to none of
/// them?
#[inline(always)]
pub fn check(
    dependencies: impl Iterator<Item = (u32, u64)> + Clone,
    snapshot: &crate::pg::snapshot::Active,
) -> Result<(), Reason> {
    match check_versions(dependencies.clone(), snapshot) {
        // The session's clock is old when it was idle while others wrote.
        Err(Reason::SnapshotUnsafe) => {
            let renewed = commits::renewed_snapshot().ok_or(Reason::SnapshotUnsafe)?;
            check_versions(dependencies.clone(), &renewed)?;
        }
        checked => checked?,
    }
    commits::own_writes(&mut |slot| dependencies.clone().any(|(known, _)| known == slot))
}

#[inline(always)]
fn check_versions(
    dependencies: impl Iterator<Item = (u32, u64)>,
    snapshot: &crate::pg::snapshot::Active,
) -> Result<(), Reason> {
    let Some(versions) = commits::versions() else { return Err(Reason::NotPreloaded) };
    for (slot, version) in dependencies {
        if commits::seen(&versions, slot, snapshot) != Some(version) {
            return Err(match versions.version(slot) == version {
                true => Reason::SnapshotUnsafe,
                false => Reason::Stale,
            });
        }
    }
    Ok(())
}

/// Gives a result that may be served to the caller.
#[inline(always)]
fn deliver(call: Call, form: Form, found: Found, begun_ns: u64) -> Datum {
    let datum = match (form, found.json) {
        (Form::Json, Some(json)) => json.to_datum(),
        (Form::Json, None) => render(found),
        (Form::Rows, _) => restore(call, found),
    };
    if found.is_timed {
        note_time(Timed::LocalHit, begun_ns);
    }
    datum
}

/// Records the time of a hit.
#[inline(never)]
pub fn note_time(timed: Timed, begun_ns: u64) {
    let now_ns = clock::monotonic_ns();
    stats::time(timed, now_ns - begun_ns);
    local::flush_sometimes(now_ns);
}

/// Makes JSON of kept rows, and keeps it beside them. A plain frame.
#[inline(never)]
fn render(found: Found) -> Datum {
    // Copies: what prints a value may be a user's, and might call us.
    let (key, rows) = guarded(move || {
        let rows = found.tuples.map_or(&[][..], Buffer::bytes);
        (key::with(Scratch::copy_of), Scratch::copy_of(rows))
    });
    let json = json::render(found.prepared, rows.bytes());
    guarded(move || {
        rows.free();
        keep_json(key.bytes(), json.bytes());
    });
    json.to_datum()
}

fn keep_json(key: &[u8], json: &[u8]) {
    if let Some(copy) = Buffer::copy_of(json)
        && !local::attach_json(key, copy)
    {
        copy.free(true);
    }
}

#[inline(never)]
fn restore(call: Call, found: Found) -> Datum {
    let set: RowSet = guarded(move || fill::result_set(call, found.prepared));
    rows::restore(found.prepared, found.tuples.map_or(&[], Buffer::bytes), set);
    call.no_value()
}

/// Counts what a call came to that was not served from this session's results.
pub fn count_miss(statement: Option<(u32, u32)>, reason: Reason) {
    stats::add(Count::Misses, 1);
    stats::reason(reason);
    if let Some((class, query)) = statement {
        stats::add_to(class, query, stats::Part::Misses, 1);
    }
}
