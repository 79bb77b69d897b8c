//! The slots of all that a transaction has written, collected when it is about to commit.
//!
//! No catalog is looked at here: a commit must neither wait for a lock on one nor fail because of us. What is called may
//! still raise when memory is short, so nothing of this is borrowed or owned meanwhile.

use super::commits::{self, FIRST_NORMAL};
use super::temporary;
use crate::pg::backend::BackendStatic;
use crate::pg::inval;
use crate::pg::writes::{self, CatalogChange};
use core::cell::RefCell;
use steward_core::cache::versions::GLOBAL_SLOT;

/// Catalog of security labels, which has no cache that would tell of its changes.
const SECURITY_LABELS: u32 = 3_596;
/// Catalog of parents and children, the same: a child without columns can leave its parent without any other trace.
const INHERITANCE: u32 = 2_611;

static SLOTS: BackendStatic<RefCell<Vec<u32>>> = BackendStatic::new(RefCell::new(Vec::new()));

pub fn clear() {
    SLOTS.borrow_mut().clear();
}

pub fn add(slot: u32) {
    SLOTS.borrow_mut().push(slot);
}

/// Runs `work` with each slot once, in order; beyond the limit, with the one that stands for everything.
pub fn with_all(limit: usize, work: impl FnOnce(&[u32])) {
    let mut slots = SLOTS.borrow_mut();
    slots.sort_unstable();
    slots.dedup();
    work(if slots.len() <= limit { &slots } else { &[GLOBAL_SLOT] });
}

/// Adds the tables that were written. `false`: there are none.
pub fn add_tables() -> bool {
    let mut any = false;
    writes::tables(&mut |relation| {
        any = true;
        add_table(relation);
    });
    any
}

/// Adds what the changes of catalogs concern. `false`: there are none.
pub fn add_changes() -> bool {
    let mut any = false;
    writes::catalog_changes(&mut |change| {
        any = true;
        add_change(change);
    });
    any
}

fn add_table(relation: u32) {
    if relation >= FIRST_NORMAL {
        add(commits::relation_slot(relation));
    } else if relation == SECURITY_LABELS {
        add(commits::catalog_slot());
    } else if relation == INHERITANCE {
        add(commits::inheritance_slot());
    }
}

/// A new name, or one that moved or is gone, may make another mean something else: of a relation or of a type. A temporary
/// one does so for its own session only.
fn add_change(change: CatalogChange) {
    match change {
        CatalogChange::Relation(0) => add(GLOBAL_SLOT),
        CatalogChange::Relation(relation) if relation >= FIRST_NORMAL => {
            add(commits::relation_slot(relation));
            if !temporary::is_relation(relation) {
                add(commits::names_slot());
            }
        }
        CatalogChange::Relation(_) => {}
        CatalogChange::Cache(cache, hash) => {
            if inval::changes_answers(cache) {
                add(commits::catalog_slot());
            } else if inval::changes_roles(cache) {
                add(commits::roles_slot());
            } else if inval::is_of_types(cache) {
                add(commits::type_slot(hash));
                if !temporary::is_type(hash) {
                    add(commits::names_slot());
                }
            }
        }
    }
}
