//! What the index advisor works out without Postgres: which indexes might help, how large they would be, which of them to
//! choose.

pub mod candidate;
pub mod choose;
pub mod demand;
pub mod size;
