//! Transactions that are prepared: their registrations (see `commits`), kept until they end.

use super::commits::versions;
use super::store::LOCKS;
use crate::pg::shmem::{Area, SharedWords};
use crate::pg::writes;
use crate::pg::{clock, snapshot};
use core::ffi::CStr;
use steward_core::cache::versions::{GLOBAL_SLOT, Registration};

/// A transaction that was prepared.
type Prepared = [u64; 64];
/// Its id; 0 for a free place.
const XID: usize = 0;
/// How many slots it registered.
const COUNT: usize = 1;
/// Will it send messages about catalogs?
const CATALOGS: usize = 2;
/// When it was first seen to be over, ms of the monotonic clock.
const OVER_SINCE: usize = 3;
/// From here on, slot and place of each registration.
const PLACES: usize = 4;
/// Slots of one prepared transaction; of more, it counts as having written everything.
pub const MAX_SLOTS: usize = 64 - PLACES;
/// Sending the messages takes microseconds.
const SEND_MS: u64 = 1_000;

static PREPARED: Area<Prepared> = Area::new();
/// Set once the transactions that were prepared before the server started have been registered.
static RECOVERED: SharedWords = SharedWords::new();

fn counts() -> [usize; 5] {
    [writes::max_prepared() + 16, 0, 0, 0, 0]
}

pub fn bytes() -> usize {
    SharedWords::estimate_size(8) + Area::<Prepared>::estimate_size(counts())
}

pub fn create(tranche: &'static CStr) {
    RECOVERED.create(c"pg_steward cache recovery 1", 8);
    PREPARED.create(c"pg_steward cache prepared 1", tranche, LOCKS.prepared, counts());
}

/// The registrations of a transaction that was prepared go on without its backend. `changes_catalogs`: messages about
/// catalogs will be sent when it commits.
pub fn take_over(xid: u64, registered: &[(u32, Registration)], changes_catalogs: bool) {
    if xid != 0 && !registered.is_empty() {
        let mut entry: Prepared = [0; 64];
        entry[XID] = xid;
        entry[COUNT] = registered.len() as u64;
        entry[CATALOGS] = u64::from(changes_catalogs);
        for (place, (slot, registration)) in entry[PLACES..].iter_mut().zip(registered) {
            *place = u64::from(*slot) << 8 | u64::from(registration.to_raw());
        }
        // It may have been found among those of before the start, in the moment since it was prepared.
        finish(xid, false);
        // Without a free place the registrations stay, and their relations are not cached until a restart.
        keep(entry);
    }
}

/// Adds a prepared transaction, unless it is known. `false`: there is no place.
fn keep(entry: Prepared) -> bool {
    PREPARED
        .exclusive(|arrays| {
            if arrays.a.iter().any(|known| known[XID] == entry[XID]) {
                return false;
            }
            match arrays.a.iter_mut().find(|known| known[XID] == 0) {
                Some(free) => {
                    *free = entry;
                    true
                }
                None => false,
            }
        })
        .unwrap_or(false)
}

/// Finishes prepared transactions that have ended: somebody else committed them or rolled them back. Called when
/// registrations stand in the way of an answer, and (`by_finisher`) by the backend that ran COMMIT PREPARED.
///
/// One that changed catalogs is visible a moment before its messages are sent, and must not be bumped until then: who
/// reads in between knows the new version and the old catalogs. So it is left to the backend that finishes it, which has
/// sent them; others do it only when it has been over for a while, since that backend issued no statement.
pub fn settle(by_finisher: bool) {
    let now_ms = clock::monotonic_ns() / 1_000_000;
    let known = PREPARED.shared(|view| view.a.iter().map(|entry| entry[XID]).filter(|xid| *xid != 0).collect());
    let known: Vec<u64> = known.unwrap_or_default();
    let over: Vec<u64> = known.into_iter().filter(|xid| !writes::is_in_progress(*xid)).collect();
    // Of several that changed catalogs, the finisher cannot tell which is its own.
    let is_own = by_finisher && over.len() == 1;
    for xid in over {
        if is_own || is_due(xid, now_ms) {
            finish(xid, writes::has_committed(xid));
        }
    }
}

/// May anybody finish it? Notes when it was first seen to be over.
fn is_due(xid: u64, now_ms: u64) -> bool {
    let due = PREPARED.exclusive(|arrays| {
        let Some(entry) = arrays.a.iter_mut().find(|entry| entry[XID] == xid) else { return false };
        if entry[CATALOGS] == 0 {
            return true;
        }
        if entry[OVER_SINCE] == 0 {
            entry[OVER_SINCE] = now_ms;
        }
        now_ms.saturating_sub(entry[OVER_SINCE]) > SEND_MS
    });
    due.unwrap_or(false)
}

fn finish(xid: u64, committed: bool) {
    let Some(versions) = versions() else { return };
    PREPARED.exclusive(|arrays| {
        let Some(entry) = arrays.a.iter_mut().find(|entry| entry[XID] == xid) else { return };
        for place in entry.iter().skip(PLACES).take(entry[COUNT] as usize) {
            let (slot, registration) = ((place >> 8) as u32, Registration::from_raw(*place as u8));
            match committed {
                true => versions.committed(slot, registration, xid),
                false => versions.gone(slot, registration),
            }
        }
        *entry = [0; 64];
    });
}

/// Have the transactions that were prepared before the server started been registered? If not, does it now: nobody knows
/// what they wrote, so each counts as having written everything. To be called before a result is stored.
pub fn know_recovered() -> bool {
    use core::sync::atomic::Ordering::{Acquire, Release};
    let Some(flag) = RECOVERED.get().first() else { return false };
    if flag.load(Acquire) != 0 {
        return true;
    }
    let Some(versions) = versions() else { return false };
    let listed = crate::pg::spi::prepared_transactions();
    let known: Vec<u64> = PREPARED.shared(|view| view.a.iter().map(|entry| entry[XID]).collect()).unwrap_or_default();
    let all = listed.into_iter().map(snapshot::full_id).filter(|xid| !known.contains(xid)).all(|xid| {
        let registration = versions.register(GLOBAL_SLOT, xid);
        let mut entry: Prepared = [0; 64];
        (entry[XID], entry[COUNT]) = (xid, 1);
        entry[PLACES] = u64::from(GLOBAL_SLOT) << 8 | u64::from(registration.to_raw());
        let kept = keep(entry);
        if !kept {
            versions.gone(GLOBAL_SLOT, registration);
        }
        kept
    });
    if all {
        // One of them may have ended before it was registered, after a snapshot that is still in use was taken: for no such
        // snapshot the versions will be told from now on, this call's included unless it sees what one taken now does.
        versions.bump(GLOBAL_SLOT, u64::MAX);
        flag.store(1, Release);
    }
    all
}
