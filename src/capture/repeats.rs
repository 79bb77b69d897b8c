//! The same statement again and again within one transaction, or one request: the N+1 pattern.
//!
//! Each pending entry counts its executions of the present *episode*. An episode ends with the transaction,
//! or, while `pg_steward.request_id` is set, when that changes: an application in autocommit mode works for
//! one request in many transactions. An entry that reaches the threshold gets a row here, and when the
//! episode ends the row becomes an event.

use super::{events, pending, slow, texts};
use crate::pg::backend::BackendStatic;
use crate::pg::{guc, shield};
use crate::settings;
use core::cell::Cell;
use serde::Serialize;

/// Repeated statements that one episode can report.
const ROWS: usize = 16;
const NO_ROW: u8 = u8::MAX;
/// Bytes kept of a request id.
const REQUEST_BYTES: usize = 64;

/// Executions of one statement within the present episode.
pub struct Count {
    episode: Cell<u32>,
    executions: Cell<u32>,
    elapsed_ns: Cell<u64>,
    row: Cell<u8>,
}

impl Count {
    pub const fn new() -> Self {
        Self { episode: Cell::new(0), executions: Cell::new(0), elapsed_ns: Cell::new(0), row: Cell::new(NO_ROW) }
    }

    pub fn clear(&self) {
        self.episode.set(0);
        self.executions.set(0);
        self.elapsed_ns.set(0);
        self.row.set(NO_ROW);
    }

    /// Counts one execution; `true` when the statement has just become a repeated one.
    fn executed(&self, elapsed_ns: u64) -> bool {
        if self.episode.get() != EPISODE.get() {
            self.clear();
            self.episode.set(EPISODE.get());
        }
        self.executions.set(self.executions.get() + 1);
        self.elapsed_ns.set(self.elapsed_ns.get() + elapsed_ns);
        self.executions.get() == guc::int(&settings::REPEAT_THRESHOLD) as u32
    }
}

/// Counts one execution; `true` when its statement has just become a repeated one.
///
/// Most episodes are one execution long, so the first one is only noted, and counted when a second follows.
#[inline(always)]
pub fn executed(entry: &'static pending::Entry, elapsed_ns: u64) -> bool {
    let first = FIRST.get();
    if first.is_none() {
        FIRST.set(Some((entry, elapsed_ns)));
        return false;
    }
    executed_again(entry, elapsed_ns)
}

#[inline(never)]
fn executed_again(entry: &'static pending::Entry, elapsed_ns: u64) -> bool {
    if let Some((first, first_ns)) = FIRST.get().filter(|_| !COUNTED.replace(true)) {
        first.repeat.executed(first_ns);
    }
    entry.repeat.executed(elapsed_ns)
}

/// A statement that repeats in the present episode, or did in one that ended.
struct Row {
    used: Cell<bool>,
    closed: Cell<bool>,
    query_id: Cell<u64>,
    user_id: Cell<u32>,
    executions: Cell<u32>,
    elapsed_ns: Cell<u64>,
    request: [Cell<u8>; REQUEST_BYTES],
    request_bytes: Cell<usize>,
}

impl Row {
    const fn new() -> Self {
        Self {
            used: Cell::new(false),
            closed: Cell::new(false),
            query_id: Cell::new(0),
            user_id: Cell::new(0),
            executions: Cell::new(0),
            elapsed_ns: Cell::new(0),
            request: [const { Cell::new(0) }; REQUEST_BYTES],
            request_bytes: Cell::new(0),
        }
    }

    fn close(&self, count: &Count) {
        self.executions.set(count.executions.get());
        self.elapsed_ns.set(count.elapsed_ns.get());
        self.closed.set(true);
    }

    fn request_id(&self) -> Vec<u8> {
        self.request.iter().take(self.request_bytes.get()).map(Cell::get).collect()
    }
}

static EPISODE: BackendStatic<Cell<u32>> = BackendStatic::new(Cell::new(1));
static TABLE: BackendStatic<[Row; ROWS]> = BackendStatic::new([const { Row::new() }; ROWS]);
static ANY: BackendStatic<Cell<bool>> = BackendStatic::new(Cell::new(false));

/// The first execution of the present episode.
static FIRST: BackendStatic<Cell<Option<(&'static pending::Entry, u64)>>> = BackendStatic::new(Cell::new(None));
/// Has it been counted?
static COUNTED: BackendStatic<Cell<bool>> = BackendStatic::new(Cell::new(false));

/// Gives a statement that has just become a repeated one its row. One too many goes unreported.
#[cold]
pub fn begin(count: &Count, query_id: u64, user_id: u32) {
    let Some(place) = TABLE.iter().position(|row| !row.used.get()) else { return };
    let row = &TABLE[place];
    row.used.set(true);
    row.closed.set(false);
    row.query_id.set(query_id);
    row.user_id.set(user_id);
    let request = guc::text(&settings::REQUEST_ID);
    row.request_bytes.set(request.len().min(REQUEST_BYTES));
    row.request.iter().zip(request).for_each(|(cell, byte)| cell.set(*byte));
    count.row.set(place as u8);
    ANY.set(true);
}

/// The entry of a statement is given to another: its row keeps what was counted.
pub fn leave(entry: &'static pending::Entry) {
    if FIRST.get().is_some_and(|(first, _)| core::ptr::eq(first, entry)) {
        COUNTED.set(true);
    }
    let count = &entry.repeat;
    if count.episode.get() == EPISODE.get()
        && let Some(row) = TABLE.get(count.row.get() as usize)
    {
        row.close(count);
    }
}

/// The request id changes: what was counted so far belongs to the old one. With SET LOCAL this happens at the
/// end of the transaction, after its callbacks. Rows exist only where statements ran, so there is nothing to
/// report in any other state of the process.
pub fn request_changes() {
    if ANY.get() {
        close_all();
        report();
    }
    next_episode();
}

#[inline(always)]
fn next_episode() {
    EPISODE.set(EPISODE.get().wrapping_add(1));
    FIRST.set(None);
    COUNTED.set(false);
}

/// The transaction ended: with it the episode, unless a request spans several transactions. `true`: there
/// is something to report.
#[inline(always)]
pub fn transaction_ended() -> bool {
    if ANY.get() {
        return episode_may_end();
    }
    if guc::is_empty(&settings::REQUEST_ID) {
        next_episode();
    }
    false
}

#[inline(never)]
fn episode_may_end() -> bool {
    if guc::is_empty(&settings::REQUEST_ID) {
        close_all();
        next_episode();
    }
    true
}

/// The session ends, and everything with it.
pub fn session_ends() {
    close_all();
    report();
}

#[inline(never)]
fn close_all() {
    for row in TABLE.iter().filter(|row| row.used.get() && !row.closed.get()) {
        match pending::find(row.query_id.get(), row.user_id.get(), true) {
            Some(entry) => row.close(&entry.repeat),
            None => row.closed.set(true),
        }
    }
}

/// A repetition as it goes through the ring.
#[derive(Serialize)]
struct Repeat {
    captured_us: i64,
    queryid: i64,
    userid: u32,
    application_name: String,
    query: Option<String>,
    executions: u32,
    total_ms: f64,
    request_id: Option<String>,
}

#[inline(never)]
pub fn report() {
    for row in TABLE.iter().filter(|row| row.used.get() && row.closed.get()) {
        row.used.set(false);
        shield::quietly(|| send(row));
    }
    ANY.set(TABLE.iter().any(|row| row.used.get()));
}

fn send(row: &Row) {
    let query_id = row.query_id.get();
    let request_id = String::from_utf8_lossy(&row.request_id()).into_owned();
    let repeat = Repeat {
        captured_us: crate::pg::clock::now_us(),
        queryid: query_id as i64,
        userid: row.user_id.get(),
        application_name: slow::application_name(),
        query: texts::normalised(query_id).map(|text| String::from_utf8_lossy(&text).into_owned()),
        executions: row.executions.get(),
        total_ms: row.elapsed_ns.get() as f64 / 1e6,
        request_id: (!request_id.is_empty()).then_some(request_id),
    };
    events::push(events::Kind::Repeat, &repeat);
}
