//! Whether a result may be kept, and keeping it.

use super::fill::Fill;
use super::stats::{self, Count};
use super::store;
use super::{admission, classes, commits, leases, local, prepared, proof, statements};
use crate::pg::buffer::Buffer;
use crate::pg::snapshot::Active;
use crate::pg::{clock, inval, session};
use steward_core::cache::admission::Verdict;
use steward_core::cache::class::SensitiveRule;
use steward_core::cache::payload::{self, Parts};
use steward_core::cache::reason::Reason;
use steward_core::cache::shard::NewEntry;

/// Results above this size are compressed.
const COMPRESS_ABOVE_BYTES: usize = 100 * 1024;

const CURRENT_SETTING: [u32; 2] = [2077, 3294];

/// A result as it came.
pub struct Computed<'a> {
    pub rows: u32,
    pub is_complete: bool,
    pub tuples: &'a [u8],
    pub json: Option<&'a [u8]>,
    pub elapsed_us: u64,
    pub max_bytes: usize,
}

/// Stores a result where its class allows, if it is proved to be what others would get and worth its room.
pub fn store(fill: &Fill, computed: &Computed<'_>, is_sensitive: bool) -> Result<(), Reason> {
    if let Some(reason) = fill.bypass {
        return Err(reason);
    }
    let json_bytes = computed.json.map_or(0, <[u8]>::len);
    if !computed.is_complete || computed.tuples.len() + json_bytes > computed.max_bytes {
        return Err(Reason::TooLarge);
    }
    // Before the proof, which reads catalogs: most misses end here.
    let waited_for = fill.holds_lease && leases::waiters(fill.fingerprint()) > 0;
    let exec_us = u32::try_from(computed.elapsed_us).unwrap_or(u32::MAX);
    match admission::missed(fill.fingerprint(), exec_us, waited_for) {
        Verdict::Store => {}
        Verdict::FirstSight => return Err(Reason::FirstSight),
        Verdict::TooFast => return Err(Reason::TooFast),
        Verdict::Demoted => return Err(Reason::Demoted),
    }
    let (relations, slots) = proved(fill)?;
    // Before the versions are asked for.
    if !prepared::know_recovered() {
        return Err(Reason::SnapshotUnsafe);
    }
    let dependencies = versions_seen(&slots)?;
    // Versions count what others have told before: a change that was told since the query ran is heard now.
    inval::accept_under_guard();
    if !statements::is_valid(fill.handle) {
        return Err(Reason::StatementChanged);
    }
    put(fill, computed, (&relations, &dependencies), (exec_us, is_sensitive))
}

/// Everything that the result depends on: relations and slots. What functions read while the query ran is judged here.
fn proved(fill: &Fill) -> Result<(Vec<u32>, Vec<u32>), Reason> {
    let known = statements::with(fill.handle, |s| (s.relations.clone(), s.slots.clone(), s.inputs.clone()));
    let (mut relations, mut slots, inputs) = known.ok_or(Reason::StatementChanged)?;
    let extra: Vec<u32> = fill.relations.iter().copied().filter(|relation| !relations.contains(relation)).collect();
    let mut proof = proof::Proof::default();
    proof.ran(&extra, &fill.functions);
    if let Some(reason) = proof.refusal {
        return Err(reason);
    }
    let reads_session = proof.reads_session || proof.reads_session_user || !proof.opaque.is_empty();
    let reads_settings = fill.functions.iter().any(|function| CURRENT_SETTING.contains(function));
    // What is below a function that counts as IMMUTABLE is in no key: neither settings, nor whose rights were checked.
    if (reads_session || !extra.is_empty()) && !inputs.custom_settings
        || proof.names_own_settings && !inputs.own_settings
        || reads_settings && !inputs.custom_settings && inputs.settings.is_empty()
    {
        return Err(Reason::UnprovableFunction);
    }
    if proof::dependencies(&extra, &mut relations)? {
        slots.push(commits::inheritance_slot());
    }
    allow_class(fill, &extra)?;
    slots.extend(relations.iter().map(|relation| commits::relation_slot(*relation)));
    slots.extend(fill.tags.iter().map(|tag| commits::name_slot("tag", tag)));
    if proof.reads_roles || !extra.is_empty() {
        slots.push(commits::roles_slot());
    }
    slots.sort_unstable();
    slots.dedup();
    Ok((relations, slots))
}

/// The rules of what a function reads hold too. The statement's readers know only the rules of what it names itself, so a
/// stricter one means that nothing is kept.
fn allow_class(fill: &Fill, extra: &[u32]) -> Result<(), Reason> {
    if extra.is_empty() {
        return Ok(());
    }
    if classes::of_relations(extra, extra)?.is_stricter_than(&fill.class) {
        return Err(Reason::ClassDenied);
    }
    match fill.class.sensitive {
        SensitiveRule::Allow => Ok(()),
        _ if classes::have_sensitive_columns(extra) => Err(Reason::SensitiveDenied),
        _ => Ok(()),
    }
}

/// The version of each slot that the snapshot of the execution sees.
fn versions_seen(slots: &[u32]) -> Result<Vec<(u32, u64)>, Reason> {
    let snapshot = commits::snapshot().ok_or(Reason::SnapshotUnsafe)?;
    let versions = commits::versions().ok_or(Reason::NotPreloaded)?;
    let seen_by = |snapshot: &Active| -> Option<Vec<(u32, u64)>> {
        slots.iter().map(|slot| commits::seen(&versions, *slot, snapshot).map(|version| (*slot, version))).collect()
    };
    let seen = seen_by(&snapshot).or_else(|| seen_by(&commits::renewed_snapshot()?));
    let Some(seen) = seen else {
        prepared::settle(false);
        return Err(Reason::ConcurrentWrite);
    };
    commits::own_writes(&mut |slot| slots.contains(&slot))?;
    Ok(seen)
}

fn put(
    fill: &Fill,
    computed: &Computed<'_>,
    (relations, dependencies): (&[u32], &[(u32, u64)]),
    (exec_us, is_sensitive): (u32, bool),
) -> Result<(), Reason> {
    let created_us = clock::monotonic_ns() / 1000;
    let (tuples, json) = (computed.tuples, computed.json);
    if fill.class.tiers.l2 {
        let parts = Parts { deps: dependencies, rows: computed.rows, tuples, json, relations };
        put_shared(fill, &parts, created_us, (exec_us, is_sensitive));
    }
    if !fill.class.tiers.l1 {
        return Ok(());
    }
    let tuples = Buffer::copy_of(tuples).ok_or(Reason::NoMemory)?;
    stats::add(Count::StoredLocally, 1);
    local::put(
        &fill.key,
        local::Result {
            dependencies: dependencies.into(),
            relations: relations.into(),
            created_us,
            ttl_ms: fill.class.ttl_ms,
            exec_us,
            class: fill.class_number,
            query: fill.query_number,
            is_sensitive,
            tuples: Some(tuples),
            // Where there is no memory for it, it is made of the rows again.
            json: json.and_then(Buffer::copy_of),
            key: fill.shared_key,
            pending_hits: 0,
            all_hits: 0,
        },
    );
    Ok(())
}

fn put_shared(fill: &Fill, parts: &Parts<'_>, created_us: u64, (exec_us, is_sensitive): (u32, bool)) {
    let (database, role) = (session::database_id(), session::user_id());
    let mut bytes = Vec::new();
    if payload::encode(parts, COMPRESS_ABOVE_BYTES, &mut bytes).is_err() {
        return stats::reason(Reason::NoMemory);
    }
    let has = stats::role_bytes(database, role, fill.class_number);
    if fill.class.role_quota_bytes.is_some_and(|quota| has + bytes.len() as u64 > quota) {
        return stats::reason(Reason::Quota);
    }
    let new = NewEntry {
        created_us,
        exec_us,
        class: fill.class_number,
        role,
        database,
        query: fill.query_number,
        flags: if is_sensitive { store::SENSITIVE } else { 0 },
        ..NewEntry::default()
    };
    match store::put(&fill.shared_key, &bytes, &new) {
        true => stats::entered(database, role, fill.class_number, fill.query_number, bytes.len() as u64),
        false => stats::reason(Reason::NoMemory),
    }
}
