//! Temporary relations of this session: their names mean nothing to others, so what functions find by name is not touched
//! by them.
//!
//! Noted as they are made, since nothing may be looked up while a transaction commits. What is not noted counts as
//! permanent, which only invalidates too much: beyond the limit, for instance.

use crate::pg::backend::BackendStatic;
use core::cell::{Cell, RefCell};
use std::collections::HashSet;

/// Relations and types that are noted: a temporary table has one to three relations, and two types.
const MAX_NOTES: usize = 16_384;

/// A relation's id, or the hash under which changes of a type are told.
type Thing = u64;
const TYPE: u64 = 1 << 32;

#[derive(Default)]
struct Notes {
    temporary: HashSet<Thing>,
    /// What of it this transaction has made and dropped, each with its subtransaction; their ids grow.
    made: Vec<(u32, Thing)>,
    gone: Vec<(u32, Thing)>,
}

static NOTES: BackendStatic<RefCell<Option<Notes>>> = BackendStatic::new(RefCell::new(None));
/// The types that were created last. Types are made in pairs: that of a row, then the array of it.
static LAST_TYPES: BackendStatic<Cell<[u32; 2]>> = BackendStatic::new(Cell::new([0; 2]));

pub fn type_created(hash: u32) {
    let [_, last] = LAST_TYPES.get();
    LAST_TYPES.set([last, hash]);
}

/// A temporary relation was created in the subtransaction.
pub fn created(relation: u32, row_type: Option<u32>, subtransaction: u32) {
    let mut notes = NOTES.borrow_mut();
    let notes = notes.get_or_insert_default();
    notes.make(subtransaction, u64::from(relation));
    let [row, array] = LAST_TYPES.get();
    if row_type == Some(row) {
        notes.make(subtransaction, TYPE | u64::from(row));
        notes.make(subtransaction, TYPE | u64::from(array));
    }
}

/// A relation was dropped, which may be one of them.
pub fn relation_dropped(relation: u32, subtransaction: u32) {
    lose(u64::from(relation), subtransaction);
}

pub fn type_dropped(hash: u32, subtransaction: u32) {
    lose(TYPE | u64::from(hash), subtransaction);
}

/// It is still one of them until the transaction has committed.
fn lose(thing: Thing, subtransaction: u32) {
    if let Some(notes) = NOTES.borrow_mut().as_mut().filter(|notes| notes.temporary.contains(&thing)) {
        notes.gone.push((subtransaction, thing));
    }
}

impl Notes {
    fn make(&mut self, subtransaction: u32, thing: Thing) {
        if self.temporary.len() < MAX_NOTES && self.temporary.insert(thing) {
            self.made.push((subtransaction, thing));
        }
    }

    fn unmake_since(&mut self, subtransaction: u32) {
        let first = self.made.partition_point(|(made_in, _)| *made_in < subtransaction);
        for (_, thing) in self.made.drain(first..) {
            self.temporary.remove(&thing);
        }
        self.gone.truncate(self.gone.partition_point(|(gone_in, _)| *gone_in < subtransaction));
    }
}

/// Is it a temporary relation?
pub fn is_relation(relation: u32) -> bool {
    is_noted(u64::from(relation))
}

/// Is it the type of a temporary relation?
pub fn is_type(hash: u32) -> bool {
    is_noted(TYPE | u64::from(hash))
}

fn is_noted(thing: Thing) -> bool {
    NOTES.borrow().as_ref().is_some_and(|notes| notes.temporary.contains(&thing))
}

pub fn subtransaction_aborted(id: u32) {
    if let Some(notes) = NOTES.borrow_mut().as_mut() {
        notes.unmake_since(id);
    }
}

/// The transaction is over. Ids of what it has dropped may come again.
pub fn transaction_ended(committed: bool) {
    let mut notes = NOTES.borrow_mut();
    let Some(notes) = notes.as_mut() else { return };
    if !committed {
        notes.unmake_since(0);
    }
    for (_, thing) in notes.gone.drain(..) {
        notes.temporary.remove(&thing);
    }
    notes.made.clear();
}
