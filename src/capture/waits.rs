//! What a long statement waited for: a sample every tenth of a second, taken by the launcher.
//!
//! Nothing of this is on the way of a statement. The launcher reads which statements have been running for a
//! while and what their processes wait for, and adds that up here; a backend that records an execution looks
//! whether there is something about its own statement. A statement of a second has about eight samples.
//!
//! **Lock.** One LWLock protects the rows: the launcher writes, a recording backend reads.

use crate::pg::shmem::{Area, Counts as Lengths};
use crate::pg::{activity, clock, session};
use core::ffi::CStr;
use serde_json::{Map, Value};

/// Statements that are observed at once.
const ROWS: usize = 256;
/// Different waits that are kept of one statement; further ones are not counted.
const EVENTS: usize = 8;
/// Age from which a statement is observed.
const MIN_AGE_US: i64 = 200_000;

/// Process id, start of the statement, then per wait: event in the upper half, samples in the lower.
type Row = [u64; 2 + EVENTS];
static TABLE: Area<Row> = Area::new();
const LENGTHS: Lengths = [ROWS, 0, 0, 0, 0];

pub fn bytes() -> usize {
    Area::<Row>::estimate_size(LENGTHS)
}

pub fn create(tranche: &'static CStr, lock: usize) {
    TABLE.create(c"pg_steward waits 1", tranche, lock, LENGTHS);
}

/// Takes one sample of every statement that has been running for a while. `true`: there was one.
pub fn sample() -> bool {
    let running = activity::running_since(clock::now_us() - MIN_AGE_US);
    if running.is_empty() {
        return false;
    }
    TABLE.exclusive(|arrays| {
        for statement in &running {
            if let Some(row) = row_for(arrays.a, statement) {
                add(row, statement.wait_event);
            }
        }
    });
    true
}

/// The row of a statement; a new one takes the row of the statement that began first.
fn row_for<'a>(rows: &'a mut [Row], statement: &activity::Running) -> Option<&'a mut Row> {
    let (pid, start) = (statement.pid as u64, statement.statement_start_us as u64);
    let own = rows.iter().position(|row| row[0] == pid);
    let oldest = || (0..rows.len()).min_by_key(|&place| rows[place][1]);
    let row = rows.get_mut(own.or_else(oldest)?)?;
    if row[0] != pid || row[1] != start {
        *row = [0; 2 + EVENTS];
        (row[0], row[1]) = (pid, start);
    }
    Some(row)
}

/// Counts a sample. A pair with no samples is free.
fn add(row: &mut Row, wait_event: u32) {
    let event = u64::from(wait_event) << 32;
    let place = row[2..].iter().position(|pair| *pair as u32 == 0 || *pair & !u64::from(u32::MAX) == event);
    if let Some(pair) = place.and_then(|place| row.get_mut(2 + place)) {
        *pair = event | u64::from((*pair as u32).saturating_add(1));
    }
}

/// What this backend's present statement waited for, so far: samples by `Type:Event`.
pub fn of_this_statement() -> Option<Value> {
    let (pid, start) = (session::pid() as u64, clock::statement_start_us() as u64);
    let row = TABLE.shared(|view| view.a.iter().find(|row| row[0] == pid && row[1] == start).copied())??;
    let samples: Map<String, Value> = row[2..]
        .iter()
        .filter(|pair| **pair as u32 > 0)
        .map(|pair| (activity::wait_event_name((*pair >> 32) as u32), Value::from(*pair as u32)))
        .collect();
    (!samples.is_empty()).then_some(Value::Object(samples))
}
