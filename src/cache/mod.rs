//! The result cache: exact answers, kept for whoever is entitled to exactly the same.
//!
//! **Words.** A *call* is one call of `steward.cached` or `cached_json`. Its *statement* is its text, analysed for one role,
//! search path and set of settings. Its *key* is everything that the answer depends on besides what tables hold. A
//! *result* is stored with its *dependencies*: slots and the versions that the snapshot of its computation saw. A call is
//! *bypassed* when its answer may not come from the cache.
//!
//! **Invariants.**
//! - A result is served only to a snapshot that sees, for every dependency, exactly the version it was computed from.
//! - Before a result is served, Postgres's own permission check runs for the caller on all that the statement reads.
//! - A statement is what analysing its text afresh would give; a message about anything it depends on drops it.
//! - What is not proved is not cached. What cannot be served is run, with Postgres's own errors untouched.
//! - Nothing of a result is kept before its query has ended without an error.
//!
//! **Reading order:** `commits` (versions, from the writers' side), `serve` (the way of a call), `statements` and `proof`
//! (what a text means, and whether it may be cached), `key`, `local` and `store` (where results lie), `fill` and `keep`
//! (what happens when there is none), `api` (SQL).

mod admission;
mod analysis;
pub mod api;
mod classes;
mod commits;
mod explain;
mod fill;
mod hook;
mod keep;
mod key;
mod leases;
mod local;
mod prepared;
mod proof;
mod serve;
mod shared;
mod statements;
mod stats;
mod store;
mod temporary;
mod views;
mod written;

use crate::error::raise;
use crate::pg::shmem::ShmemUser;
use core::ffi::CStr;

/// The capability, as the hooks of `pg` see it.
pub struct Cache;

impl Cache {
    /// Was the library loaded at server start?
    #[inline(always)]
    pub fn exists() -> bool {
        commits::versions().is_some()
    }
}

impl ShmemUser for Cache {
    const TRANCHE: &'static CStr = c"pg_steward_cache";

    fn bytes() -> usize {
        commits::bytes()
            + prepared::bytes()
            + store::bytes()
            + stats::bytes()
            + leases::bytes()
            + admission::bytes()
            + key::bytes()
    }

    fn locks() -> usize {
        store::LOCK_COUNT
    }

    fn create() {
        commits::create();
        prepared::create(Self::TRANCHE);
        store::create(Self::TRANCHE);
        stats::create(Self::TRANCHE);
        leases::create(Self::TRANCHE);
        admission::create(Self::TRANCHE);
        key::create();
    }
}
