//! The index advisor: which indexes would help what this server runs, proved by the planner before any is built.
//!
//! **Words.** A *subject* is a statement analysed once and planned many times. A *hypothetical* index exists only while
//! we plan, for us alone.
//!
//! **Invariants.**
//! - A plan with a hypothetical index is looked at and thrown away; nothing ever runs it.
//! - Nothing is written to a catalog, and no lock is taken beyond those of analysing the statement.
//! - Whoever asks must be allowed to run the statement: costs tell of contents.

pub mod api;
mod hook;
mod size;
mod suggest;
mod workload;

/// The capability, as the hooks of `pg` see it.
pub struct Advisor;
