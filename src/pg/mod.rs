//! Postgres: the only place with `unsafe`, and the only one that knows its versions.
//!
//! Each hook is installed once, here; who is called is said in `lib.rs`. Nothing in this folder names a
//! capability.

pub mod activity;
pub mod backend;
mod catch;
pub mod clock;
mod compat;
pub mod errors;
pub mod guc;
pub mod hot;
pub mod params;
pub mod parse;
mod plan;
pub mod query;
pub mod raw;
pub mod session;
pub mod shield;
pub mod shmem;
pub mod spi;
pub mod srf;
pub mod text;
pub mod usage;
pub mod utility;
pub mod worker;
pub mod xact;
