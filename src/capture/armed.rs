//! Statements armed for explain: their next executions collect actual rows and times.
//!
//! **Lock.** One LWLock protects the short list; `Counter::Armed` says without it that the list is empty,
//! which is all that an ordinary execution ever looks at.

use super::{control, control::Counter};
use crate::pg::session;
use crate::pg::shmem::{Area, Counts as Lengths};
use core::ffi::CStr;

/// Statements that can be armed at once.
pub const LIMIT: usize = 64;

/// Query id, database, executions left.
type Arm = [u64; 3];
static LIST: Area<Arm> = Area::new();

const LENGTHS: Lengths = [LIMIT, 0, 0, 0, 0];

pub fn bytes() -> usize {
    Area::<Arm>::estimate_size(LENGTHS)
}

pub fn create(tranche: &'static CStr, lock: usize) {
    LIST.create(c"pg_steward armed 1", tranche, lock, LENGTHS);
}

/// Is anything armed?
#[inline(always)]
pub fn any() -> bool {
    control::get(Counter::Armed) != 0
}

fn is(arm: &Arm, query_id: u64) -> bool {
    arm[0] == query_id && arm[1] == u64::from(session::database_id())
}

/// Arms a statement of this database for its next executions; 0 disarms it. `false`: the list is full.
pub fn arm(query_id: u64, executions: u64) -> bool {
    change(|list| {
        let place = list.iter().position(|arm| is(arm, query_id) && arm[2] > 0);
        let free = || list.iter().position(|arm| arm[2] == 0);
        match place.or_else(free).and_then(|place| list.get_mut(place)) {
            Some(arm) => {
                *arm = [query_id, u64::from(session::database_id()), executions];
                true
            }
            None => false,
        }
    })
}

/// Takes one of the executions that a statement is armed for.
#[inline(never)]
pub fn take(query_id: u64) -> bool {
    change(|list| match list.iter_mut().find(|arm| is(arm, query_id) && arm[2] > 0) {
        Some(arm) => {
            arm[2] -= 1;
            true
        }
        None => false,
    })
}

fn change(change: impl FnOnce(&mut [Arm]) -> bool) -> bool {
    let changed = LIST.exclusive(|arrays| {
        let changed = change(arrays.a);
        let armed = arrays.a.iter().filter(|arm| arm[2] > 0).count();
        control::set(Counter::Armed, armed as u64);
        changed
    });
    changed.unwrap_or(false)
}
