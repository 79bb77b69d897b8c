//! What the index advisor works out without Postgres: how large indexes would be, which of them to choose.

pub mod choose;
pub mod size;
