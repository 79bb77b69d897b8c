//! Versions of relations, kept at the commits of this backend: see `steward_core::cache::versions` for the protocol.
//!
//! A transaction registers the slots of all it has written when everything but the commit is done, and bumps them when
//! others see it. What is prepared instead of committed goes on without its backend: its registrations move to shared
//! memory, and whoever meets one of them after its end finishes it (`settle`).

use super::{prepared, temporary, written};
use crate::pg::backend::BackendStatic;
use crate::pg::shmem::SharedWords;
use crate::pg::snapshot::Active;
use crate::pg::writes;
use crate::pg::{guc, session, shield, utility, xact};
use crate::settings;
use core::cell::{Cell, RefCell};
use core::sync::atomic::AtomicU64;
use steward_core::cache::reason::Reason;
use steward_core::cache::versions::{self, GLOBAL_SLOT, Registration, Versions};

/// Relations from which a transaction counts as having written everything.
const MAX_SLOTS: usize = 4096;
/// First id that is not of initdb's.
pub const FIRST_NORMAL: u32 = 16_384;

/// Things that have versions besides relations. Ids of relations are below 2^31 in all but the oldest of clusters, and
/// a collision only invalidates too much.
const CATALOG: u32 = 0x8000_0000;
const ROLES: u32 = 0x8000_0001;
const RELATION_NAMES: u32 = 0x8000_0002;
const HEIRS: u32 = 0x8000_0003;
const TYPES: u32 = 0xa000_0000;
const NAMES: u32 = 0xc000_0000;

static WORDS: SharedWords = SharedWords::new();

/// Slots that the present transaction has registered: these, and no others, are to be cleared when it ends.
static REGISTERED: BackendStatic<RefCell<Vec<(u32, Registration)>>> = BackendStatic::new(RefCell::new(Vec::new()));
/// Slots that are to be invalidated when it commits, with the subtransaction that asked.
static MARKED: BackendStatic<RefCell<Vec<(u32, u32)>>> = BackendStatic::new(RefCell::new(Vec::new()));
static XID: BackendStatic<Cell<u64>> = BackendStatic::new(Cell::new(0));
/// The clock at the end of the previous transaction: every snapshot of this one is younger.
static CLOCK_BEFORE: BackendStatic<Cell<u64>> = BackendStatic::new(Cell::new(0));
/// Is the end of the session watched? Only in backends that use the cache.
static WATCHES: BackendStatic<Cell<bool>> = BackendStatic::new(Cell::new(false));
/// What the transaction was seen doing, as bits.
static SEEN: BackendStatic<Cell<u8>> = BackendStatic::new(Cell::new(0));
/// It took its id without writing: row locks, NOTIFY, nextval.
const EXCUSED: u8 = 1;
/// It wrote while Postgres did not count.
const BLIND: u8 = 2;
/// It is VACUUM or ANALYZE.
const MAINTENANCE: u8 = 4;
/// Its snapshot was taken by another.
const FOREIGN_SNAPSHOT: u8 = 8;
/// It changed catalogs, so that messages go out after it has become visible.
const CATALOGS: u8 = 16;
/// It ends a prepared transaction.
const ENDS_PREPARED: u8 = 32;
/// It may have made or dropped a temporary relation.
const RELATIONS: u8 = 64;
static SUBTRANSACTION: BackendStatic<Cell<u32>> = BackendStatic::new(Cell::new(1));
/// The first subtransaction that asked for all results to be removed and is not rolled back; 0 for none.
static CLEARS_IN: BackendStatic<Cell<u32>> = BackendStatic::new(Cell::new(0));

fn slots() -> usize {
    guc::int(&settings::CACHE_VERSION_SLOTS).max(1) as usize
}

pub fn bytes() -> usize {
    SharedWords::estimate_size(versions::words(slots()))
}

pub fn create() {
    WORDS.create(c"pg_steward cache versions 1", versions::words(slots()));
}

#[inline(always)]
pub fn versions() -> Option<Versions<'static, [AtomicU64]>> {
    let words = WORDS.get();
    (!words.is_empty()).then(|| Versions::new(words, words.len() / versions::WORDS_PER_SLOT - 1))
}

fn slot_of(database: u32, object: u32) -> u32 {
    versions().map_or(GLOBAL_SLOT, |versions| versions.slot_of(database, object))
}

/// Slot of a relation of this database.
pub fn relation_slot(relation: u32) -> u32 {
    slot_of(session::database_id(), relation)
}

/// Slot of everything in the catalogs of this database that answers may depend on unseen: functions, operators, casts.
pub fn catalog_slot() -> u32 {
    slot_of(session::database_id(), CATALOG)
}

/// Slot of all roles and memberships.
pub fn roles_slot() -> u32 {
    slot_of(0, ROLES)
}

/// Slot of the names of this database's relations and types, for what finds them by name when it runs.
pub fn names_slot() -> u32 {
    slot_of(session::database_id(), RELATION_NAMES)
}

/// Slot of who inherits from whom in this database.
pub fn inheritance_slot() -> u32 {
    slot_of(session::database_id(), HEIRS)
}

/// Slot of a type, by the hash under which its changes are told.
pub fn type_slot(hash: u32) -> u32 {
    slot_of(session::database_id(), TYPES | (hash & 0x1fff_ffff))
}

/// Slot of a tag, a class or a role, by a name that says which.
pub fn name_slot(kind: &str, name: &str) -> u32 {
    let mut hash: u32 = 0x811c_9dc5;
    // FNV-1a (Fowler, Noll, Vo 1991).
    for byte in kind.bytes().chain([0]).chain(name.bytes()) {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    slot_of(session::database_id(), NAMES | (hash & 0x1fff_ffff))
}

/// The snapshot of the present statement. `None`: which commits it sees cannot be told.
#[inline(always)]
pub fn snapshot() -> Option<Active> {
    if !WATCHES.replace(true) {
        xact_first_use();
    }
    let known = SEEN.get() & FOREIGN_SNAPSHOT == 0;
    Active::get(if known { CLOCK_BEFORE.get() } else { 0 })
}

/// The same snapshot with a clock that is not as old as the session's last transaction. `None`: it cannot be had. If the
/// snapshot is just what one taken now would be, a clock read before that one serves for it.
#[inline(never)]
pub fn renewed_snapshot() -> Option<Active> {
    let clock = versions().map_or(0, |versions| versions.clock());
    crate::pg::snapshot::is_latest().then(|| Active::get(clock)).flatten()
}

#[inline(never)]
fn xact_first_use() {
    xact::watch_session::<super::Cache>();
}

/// The version of a slot that the snapshot sees exactly.
#[inline(always)]
pub fn seen(versions: &Versions<'static, [AtomicU64]>, slot: u32, snapshot: &Active) -> Option<u64> {
    use versions::Snapshot;
    versions.seen_quickly(slot, snapshot.clock_before()).or_else(|| versions.seen_by(slot, snapshot))
}

/// `Err`: the present transaction has written to one of these slots, or changed a definition.
#[inline(always)]
pub fn own_writes(slots: &mut dyn FnMut(u32) -> bool) -> Result<(), Reason> {
    if writes::transaction_id() == 0 {
        return Ok(());
    }
    look_at_own_writes(slots)
}

#[inline(never)]
fn look_at_own_writes(slots: &mut dyn FnMut(u32) -> bool) -> Result<(), Reason> {
    if !writes::are_counted() || SEEN.get() & BLIND != 0 {
        return Err(Reason::TrackingOff);
    }
    let mut found = Ok(());
    writes::tables(&mut |relation| {
        if relation < FIRST_NORMAL {
            found = Err(Reason::WroteCatalog);
        } else if found.is_ok() && slots(relation_slot(relation)) {
            found = Err(Reason::WroteTable);
        }
    });
    found
}

// What the transaction is seen doing

fn note(bit: u8) {
    SEEN.set(SEEN.get() | bit);
}

/// An execution starts.
#[inline(always)]
pub fn execution_starts(query: crate::pg::query::Query) {
    SEEN.set(SEEN.get() & !MAINTENANCE);
    if !writes::are_counted() {
        // Even a read, which may make Postgres forget the counts of a table that is being written.
        note(BLIND);
    }
    if query.locks_rows() {
        note(EXCUSED);
    }
}

/// A utility statement starts.
pub fn utility_starts(statement: utility::Utility) {
    SEEN.set(SEEN.get() & !MAINTENANCE);
    // In a pipeline ANALYZE joins a transaction that is no block and may have changed anything.
    let is_alone = !writes::in_transaction_block() && writes::transaction_id() == 0;
    if statement.is_maintenance() && statement.is_toplevel && is_alone {
        note(MAINTENANCE);
    }
    if statement.ends_prepared() {
        note(ENDS_PREPARED);
    }
    if statement.takes_id_only() {
        note(EXCUSED);
    }
    if statement.imports_snapshot() {
        note(FOREIGN_SNAPSHOT);
    }
    if !writes::are_counted() {
        note(BLIND);
    }
}

/// A utility statement has succeeded. COMMIT PREPARED has sent all its messages by then, and its transaction still runs, so
/// that an error does no harm: whoever meets what it left finishes it.
#[inline(always)]
pub fn utility_succeeded() {
    if SEEN.get() & ENDS_PREPARED != 0 {
        SEEN.set(SEEN.get() & !ENDS_PREPARED);
        shield::in_subtransaction(|| prepared::settle(true));
    }
}

/// A temporary relation is made, or one is dropped that may be temporary. Gives the subtransaction.
pub fn changes_relations() -> u32 {
    note(RELATIONS);
    SUBTRANSACTION.get()
}

/// Functions that take a transaction id and write no table: nextval, setval (twice), txid_current,
/// pg_current_xact_id, pg_notify, pg_logical_emit_message (twice).
const EXCUSES: [u32; 8] = [1574, 1576, 1765, 2943, 5059, 3036, 3577, 3578];

#[inline(always)]
pub fn function_executes(function: u32) {
    if EXCUSES.contains(&function) {
        note(EXCUSED);
    }
}

/// A slot is to be invalidated when the transaction commits; not if it, or this subtransaction of it, rolls back.
pub fn invalidate_at_commit(slot: u32) {
    MARKED.borrow_mut().push((slot, SUBTRANSACTION.get()));
}

/// All results of the database are to be removed when the transaction commits.
pub fn clear_at_commit() {
    invalidate_at_commit(catalog_slot());
    // Ids grow: what takes the first back takes all others back.
    if CLEARS_IN.get() == 0 {
        CLEARS_IN.set(SUBTRANSACTION.get());
    }
}

/// Was that asked for by what has committed?
pub fn clears() -> bool {
    CLEARS_IN.replace(0) != 0
}

pub fn subtransaction_starts(id: u32) {
    SUBTRANSACTION.set(id);
}

/// The subtransaction that began last; 1 is the transaction itself.
pub fn subtransaction() -> u32 {
    SUBTRANSACTION.get()
}

/// Ids grow, so whatever was marked since the subtransaction began has an id that is not below its own.
pub fn subtransaction_aborted(id: u32) {
    // What it wrote is undone, and its counts are gone.
    note(EXCUSED);
    MARKED.borrow_mut().retain(|(_, marked_in)| *marked_in < id);
    if CLEARS_IN.get() >= id {
        CLEARS_IN.set(0);
    }
    if SEEN.get() & RELATIONS != 0 {
        temporary::subtransaction_aborted(id);
    }
}

// The end of the transaction

/// Registers what the transaction has written.
#[inline(always)]
pub fn before_commit(prepare: bool) {
    let xid = writes::transaction_id();
    if (xid == 0 && MARKED.borrow().is_empty()) || WORDS.get().is_empty() {
        return;
    }
    register(xid, prepare);
}

/// Whatever may raise comes before the first registration; what then ends the transaction instead, `aborted` clears.
#[inline(never)]
fn register(xid: u64, prepare: bool) {
    let Some(versions) = versions() else { return };
    collect(xid);
    written::with_all(if prepare { prepared::MAX_SLOTS } else { MAX_SLOTS }, |slots| {
        let mut registered = REGISTERED.borrow_mut();
        registered.reserve(slots.len());
        XID.set(if xid == 0 { u64::MAX } else { xid });
        for slot in slots {
            let registration = match xid {
                0 => versions.register_unknown(*slot),
                xid => versions.register(*slot, xid),
            };
            registered.push((*slot, registration));
        }
    });
}

/// Collects the slots of all that was written. A plain frame.
fn collect(xid: u64) {
    written::clear();
    for (slot, _) in MARKED.borrow_mut().drain(..) {
        written::add(slot);
    }
    if xid == 0 {
        return;
    }
    let mut any = written::add_tables();
    // VACUUM and ANALYZE send messages about every table they visit, and change the contents of none.
    if SEEN.get() & MAINTENANCE != 0 || writes::is_autovacuum() {
        return;
    }
    if written::add_changes() {
        any = true;
        xact::watch_release::<super::Cache>();
        note(CATALOGS);
    }
    let unexplained = !any && SEEN.get() & EXCUSED == 0;
    if unexplained || SEEN.get() & BLIND != 0 || !writes::are_counted() {
        written::add(GLOBAL_SLOT);
    }
}

/// The transaction has become visible: bumps what it registered, unless messages about catalogs are still to go out. Who
/// reads between the bump and the messages would take old catalogs for the new version.
#[inline(always)]
pub fn committed() {
    if XID.get() != 0 {
        if SEEN.get() & CATALOGS == 0 {
            bump();
        }
    } else if writes::transaction_id() != 0 {
        wrote_unseen();
    }
    transaction_ended(true);
}

/// Another module's callback wrote after ours had found nothing written.
#[inline(never)]
fn wrote_unseen() {
    // NOTIFY takes its id as late, and writes no table.
    let mut any = SEEN.get() & BLIND != 0;
    writes::tables(&mut |relation| any |= relation >= FIRST_NORMAL);
    if let Some(versions) = versions().filter(|_| any) {
        versions.bump(GLOBAL_SLOT, u64::MAX);
    }
}

/// The messages are out, and the locks released.
pub fn released() {
    if XID.get() != 0 {
        bump();
    }
}

pub fn prepared() {
    let xid = XID.replace(0);
    prepared::take_over(xid, &REGISTERED.take(), SEEN.get() & CATALOGS != 0);
    CLEARS_IN.set(0);
    transaction_ended(true);
}

#[inline(never)]
fn bump() {
    let xid = XID.replace(0);
    if let Some(versions) = versions() {
        // Another module's callback may have written after ours was called.
        if xid != u64::MAX && wrote_late() {
            versions.bump(GLOBAL_SLOT, xid);
        }
        for (slot, registration) in REGISTERED.borrow_mut().drain(..) {
            versions.committed(slot, registration, xid);
        }
    }
}

/// Has the transaction written to a table that it had not written to when it registered?
fn wrote_late() -> bool {
    let registered = REGISTERED.borrow();
    if registered.first().is_some_and(|(slot, _)| *slot == GLOBAL_SLOT) {
        return false;
    }
    let mut late = false;
    writes::tables(&mut |relation| {
        let slot = relation_slot(relation);
        late |= relation >= FIRST_NORMAL && !registered.iter().any(|(known, _)| *known == slot);
    });
    late
}

pub fn aborted() {
    XID.set(0);
    if let Some(versions) = versions() {
        for (slot, registration) in REGISTERED.borrow_mut().drain(..) {
            versions.gone(slot, registration);
        }
    }
    MARKED.borrow_mut().clear();
    CLEARS_IN.set(0);
    transaction_ended(false);
}

#[inline(always)]
fn transaction_ended(committed: bool) {
    if SEEN.get() & RELATIONS != 0 {
        temporary::transaction_ended(committed);
    }
    // While VACUUM commits its own transactions it is still VACUUM.
    SEEN.set(SEEN.get() & MAINTENANCE);
    SUBTRANSACTION.set(1);
    // Who has not used the cache yet renews his snapshot at the first call.
    if WATCHES.get()
        && let Some(versions) = versions()
    {
        CLOCK_BEFORE.set(versions.clock());
    }
}
