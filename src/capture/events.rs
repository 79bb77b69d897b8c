//! The ring: events on their way from backends to the table of their database.
//!
//! **Lock.** One LWLock protects the ring, and the row of databases behind it: exclusive to write, shared to
//! read. Events are rare (slow executions, failures, changes of plan), so one lock is enough; what goes in
//! is serialised before the lock is taken. A full ring overwrites its oldest events; those that their
//! database's worker has not read yet are counted as lost.
//!
//! Events of a database without the extension are not written at all, once that is known: its state is
//! `Absent`. A database that nobody looked at yet is `Unknown`, and its events wait.

use super::{control, control::Counter};
use crate::pg::shmem::{Area, Counts as Lengths};
use crate::pg::{clock, session, worker};
use crate::settings;
use core::ffi::CStr;
use serde::Serialize;
use steward_core::capture::ring::{self, RingHeader};

/// What an event is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    Execution = 1,
    Plan = 2,
    Repeat = 3,
}

impl Kind {
    pub const fn name(number: u32) -> &'static str {
        match number {
            1 => "execution",
            2 => "plan",
            3 => "repeat",
            _ => "unknown",
        }
    }
}

/// Whether a database has the extension.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Presence {
    Unknown = 0,
    Present = 1,
    Absent = 2,
}

/// Databases whose state is known at once; further ones stay unknown, which costs only room in the ring.
const DATABASES: usize = 256;

/// State of one database: id, presence, position up to which its worker has read, process id of that worker,
/// the time (microseconds since 2000-01-01) until which none is to be started, and how often the extension was
/// created there.
type Database = [u64; 6];
const ID: usize = 0;
const PRESENCE: usize = 1;
const READ_TO: usize = 2;
const WORKER: usize = 3;
const QUIET_UNTIL: usize = 4;
const CREATIONS: usize = 5;

/// How long a database is left alone after somebody wanted it to himself.
const QUIET_US: i64 = 10_000_000;

static RING: Area<RingHeader, Database, u8> = Area::new();

fn lengths() -> Lengths {
    [1, DATABASES, settings::RING_MEMORY_KB.get() as usize * 1024, 0, 0]
}

pub fn bytes() -> usize {
    Area::<RingHeader, Database, u8>::estimate_size(lengths())
}

pub fn create(tranche: &'static CStr, lock: usize) {
    RING.create(c"pg_steward ring 1", tranche, lock, lengths());
    RING.initialise(|arrays| {
        let capacity = arrays.c.len() as u64;
        arrays.a.iter_mut().for_each(|header| ring::init(header, capacity));
    });
}

/// Writes an event of this database. What does not fit is counted.
pub fn push(kind: Kind, event: &impl Serialize) {
    let Ok(payload) = serde_json::to_vec(event) else {
        return control::add(Counter::InternalErrors, 1);
    };
    let database = session::database_id();
    let mut lost = 0;
    let written = RING.exclusive(|arrays| {
        let header = arrays.a.first_mut()?;
        if presence_in(arrays.b, database) == Presence::Absent {
            return None;
        }
        let databases = &*arrays.b;
        let mut count_lost = |record: &ring::Record| {
            lost += u64::from(is_unread(databases, record));
        };
        Some(ring::push(header, arrays.c, kind as u32, database, &payload, &mut count_lost))
    });
    match written.flatten() {
        Some(Ok(_)) => control::add(Counter::EventsWritten, 1),
        Some(Err(_)) => control::add(Counter::EventsTooLarge, 1),
        None => {}
    }
    control::add(Counter::EventsLost, lost);
}

fn row_of(databases: &[Database], database: u32) -> Option<&Database> {
    databases.iter().find(|row| row[ID] == u64::from(database))
}

fn presence_in(databases: &[Database], database: u32) -> Presence {
    match row_of(databases, database).map(|row| row[PRESENCE]) {
        Some(1) => Presence::Present,
        Some(2) => Presence::Absent,
        _ => Presence::Unknown,
    }
}

fn is_unread(databases: &[Database], record: &ring::Record) -> bool {
    match row_of(databases, record.database) {
        Some(row) if row[PRESENCE] == Presence::Absent as u64 => false,
        Some(row) => row[READ_TO] <= record.position,
        None => true,
    }
}

pub fn presence(database: u32) -> Presence {
    RING.shared(|view| presence_in(view.b, database)).unwrap_or(Presence::Unknown)
}

/// The database has the extension.
pub fn set_present(database: u32) {
    change(database, |row| row[PRESENCE] = Presence::Present as u64);
}

/// The extension was created in the database, and that is committed.
pub fn created(database: u32) {
    change(database, |row| {
        row[PRESENCE] = Presence::Present as u64;
        row[CREATIONS] += 1;
    });
}

/// How often the extension was created in the database.
pub fn creations(database: u32) -> u64 {
    RING.shared(|view| row_of(view.b, database).map_or(0, |row| row[CREATIONS])).unwrap_or(0)
}

/// The database was found without the extension, when it had been created there so many times. If it has been
/// created since, it is there.
pub fn set_absent(database: u32, creations: u64) {
    change(database, |row| {
        if row[CREATIONS] == creations {
            row[PRESENCE] = Presence::Absent as u64;
        }
    });
}

/// Notes how far the worker of a database has read.
fn set_read_to(database: u32, position: u64) {
    change(database, |row| row[READ_TO] = position);
}

/// Has the database a worker that lives?
pub fn has_worker(database: u32) -> bool {
    let pid = RING.shared(|view| row_of(view.b, database).map_or(0, |row| row[WORKER]));
    worker::is_alive(pid.unwrap_or(0) as i32)
}

/// Makes this process the worker of a database. `false`: there is one already.
pub fn claim_worker(database: u32) -> bool {
    let own = session::pid() as u64;
    let mut claimed = false;
    change(database, |row| {
        claimed = row[WORKER] == own || !worker::is_alive(row[WORKER] as i32);
        if claimed {
            row[WORKER] = own;
        }
    });
    claimed
}

/// This process is no longer the worker of a database.
pub fn release_worker(database: u32) {
    let own = session::pid() as u64;
    change(database, |row| {
        if row[WORKER] == own {
            row[WORKER] = 0;
        }
    });
}

/// Is the database to be left alone for now?
pub fn is_quiet(database: u32) -> bool {
    let now_us = clock::now_us() as u64;
    RING.shared(|view| row_of(view.b, database).is_some_and(|row| row[QUIET_UNTIL] > now_us)).unwrap_or(false)
}

/// Leaves a database alone for a while, and gives the process id of its worker, if it has one.
pub fn quiet(database: u32) -> Option<i32> {
    let mut pid = 0;
    change(database, |row| {
        row[QUIET_UNTIL] = (clock::now_us() + QUIET_US) as u64;
        pid = row[WORKER] as i32;
    });
    (pid > 0).then_some(pid)
}

fn change(database: u32, change: impl FnOnce(&mut Database)) {
    if database == 0 {
        return;
    }
    RING.exclusive(|arrays| {
        let at = arrays.b.iter().position(|row| row[ID] == u64::from(database));
        let free = || arrays.b.iter().position(|row| row[ID] == 0);
        if let Some(row) = at.or_else(free).and_then(|place| arrays.b.get_mut(place)) {
            row[ID] = u64::from(database);
            change(row);
        }
    });
}

/// An event as it was read.
pub struct Event {
    /// Unique over restarts, ascending.
    pub id: i64,
    pub kind: &'static str,
    pub payload: Vec<u8>,
}

/// Reads events of this database from a position on, at most `limit` bytes of them; gives the position to
/// go on at.
fn read(from: u64, limit: usize) -> (Vec<Event>, u64) {
    let database = session::database_id();
    let base = control::get(Counter::EventBase);
    let mut events = Vec::new();
    let mut payload = Vec::with_capacity(settings::RING_MEMORY_KB.get() as usize * 256);
    let mut position = from;
    let mut bytes = 0;
    RING.shared(|view| {
        let Some(header) = view.a.first() else { return };
        while bytes < limit
            && let Some((record, next)) = ring::read_from(header, view.c, position, &mut payload)
        {
            position = next;
            if record.database == database {
                bytes += payload.len();
                events.push(Event {
                    id: (base + record.seq) as i64,
                    kind: Kind::name(record.kind),
                    payload: payload.clone(),
                });
            }
        }
    });
    (events, position)
}

/// Every event of this database that is still in the ring.
pub fn all() -> Vec<Event> {
    read(0, usize::MAX).0
}

/// The events that this database's worker has not read yet, up to about a megabyte, and what to give to
/// `acknowledge` when they are safe.
pub fn unread() -> (Vec<Event>, u64) {
    let database = session::database_id();
    let from = RING.shared(|view| row_of(view.b, database).map_or(0, |row| row[READ_TO]));
    read(from.unwrap_or(0), 1 << 20)
}

/// Everything before this position has reached the tables.
pub fn acknowledge(position: u64) {
    set_read_to(session::database_id(), position);
}
