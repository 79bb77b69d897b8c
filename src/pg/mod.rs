//! Postgres: the only place with `unsafe`, and the only one that knows its versions.
//!
//! Each hook is installed once, here; who is called is said in `lib.rs`. Nothing in this folder names a
//! capability.

pub mod access;
pub mod activity;
pub mod backend;
pub mod bind;
pub mod blocks;
pub mod buffer;
mod catch;
pub mod clock;
pub mod columns;
mod compat;
pub mod errors;
pub mod function;
pub mod functions;
pub mod guc;
pub mod harvest;
pub mod hot;
pub mod hypothetical;
pub mod inval;
pub mod json;
pub mod label;
pub mod latch;
pub mod names;
pub mod params;
pub mod parse;
mod patterns;
mod plan;
pub mod query;
pub mod raw;
pub mod relations;
pub mod rows;
pub mod session;
pub mod session_state;
pub mod shield;
pub mod shmem;
pub mod snapshot;
pub mod spi;
pub mod srf;
pub mod statement;
pub mod statistics;
pub mod text;
pub mod tree;
pub mod types;
pub mod usage;
pub mod utility;
pub mod whatif;
pub mod worker;
pub mod writes;
pub mod xact;

pub use compat::Rights;
