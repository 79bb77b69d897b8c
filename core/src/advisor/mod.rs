//! What the index advisor works out without Postgres: what an index that does not exist yet would cost and save.

pub mod size;
