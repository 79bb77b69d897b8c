//! The decisions of pg_steward, without Postgres: plain values and the time in, a decision out.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod advisor;
pub mod cache;
pub mod capture;
pub mod error;
mod hash;
