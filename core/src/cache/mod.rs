//! The decisions of the result cache: which version of a table a snapshot sees, what is kept and what gives way, what a
//! key is made of, and what may not be cached.
//!
//! A *slot* counts the commits that wrote a relation. An *entry* is one stored result. A *dependency* is a slot and the
//! version of it that the result was computed from.

pub mod admission;
pub mod body;
pub mod class;
pub mod functions;
pub mod payload;
pub mod pool;
pub mod reads;
pub mod reason;
pub mod sensitive;
pub mod shard;
pub mod versions;
