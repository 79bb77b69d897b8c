//! Whatever is written, by whichever way, is seen by the very next cached call; what is rolled back, or changes no rows,
//! leaves the answer where it is.

#[path = "cache_writes_names.rs"]
mod names;
#[path = "cache_writes_prepared.rs"]
mod prepared;
#[path = "cache_writes_probe.rs"]
mod probe;
#[path = "cache_writes_quiet.rs"]
mod quiet;
#[path = "cache_writes_servers.rs"]
mod servers;
#[path = "cache_writes_snapshots.rs"]
mod snapshots;
#[path = "cache_writes_table.rs"]
mod table;
