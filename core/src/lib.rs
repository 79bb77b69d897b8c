//! The decisions of pg_steward, without Postgres: plain values and the time in, a decision out.
pub mod capture;
