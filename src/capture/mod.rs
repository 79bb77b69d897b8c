//! Statement capture: what ran, how long it took, what it cost, how it failed.
//!
//! **Words.** A *statement* is what a query id stands for; an *execution* is one run of it from
//! ExecutorStart to ExecutorEnd, or one utility command. *Pending* counts are those that a backend has not
//! yet added to the *shared* entries. An *event* is one execution (or plan, or repetition) that is recorded
//! by itself: it goes through the *ring* to the database's worker and into tables.
//!
//! **Invariants.**
//! - The way of an ordinary execution (`open`, `pending`) takes no lock, allocates nothing, reads no
//!   catalog, and reads the clock twice.
//! - Whatever fails in here, the user's statement goes on: work that could fail runs in `pg::shield`.
//! - Every statement is counted exactly once: in its entry, or in the entry that stands for all others.
//! - Nothing leaves a backend as text before it went through the normaliser.
//!
//! **Reading order:** `open` and `pending` (one backend), `store` (shared entries), `events` (the ring),
//! `slow` and `failures`
//! (what an event says), `hook` (what calls them), `worker` (ring to tables), `api` (SQL).

pub mod api;
mod armed;
mod control;
mod events;
mod failures;
mod hook;
mod mode;
mod open;
mod pending;
mod repeats;
mod rows;
mod slow;
mod store;
mod texts;
mod waits;
pub mod worker;

use crate::pg::shmem::ShmemUser;
use core::ffi::CStr;

/// The capability, as the hooks of `pg` see it.
pub struct Capture;

impl ShmemUser for Capture {
    const TRANCHE: &'static CStr = c"pg_steward";

    fn bytes() -> usize {
        control::bytes() + store::bytes() + events::bytes() + armed::bytes() + waits::bytes()
    }

    fn locks() -> usize {
        store::PARTITIONS + 3
    }

    fn create() {
        control::create();
        store::create(Self::TRANCHE);
        events::create(Self::TRANCHE, store::PARTITIONS);
        armed::create(Self::TRANCHE, store::PARTITIONS + 1);
        waits::create(Self::TRANCHE, store::PARTITIONS + 2);
    }
}
