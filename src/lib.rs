//! pg_steward: statement capture, and what is built on it, inside PostgreSQL.
//!
//! `_PG_init` is the table of contents: which hook is installed, and which capability sees it.

#![deny(ffi_unwind_calls)]

mod advisor;
mod cache;
mod capture;
mod error;
mod pg;
mod settings;

use advisor::Advisor;
use cache::Cache;
use capture::Capture;
use pgrx::prelude::*;

#[cfg(not(panic = "unwind"))]
compile_error!("a panic must become a Postgres error: compile with -Cpanic=unwind");

pg_module_magic!();

extension_sql_file!("../sql/schema/base.sql", name = "base", bootstrap);
extension_sql_file!(
    "../sql/schema/capture.sql",
    name = "capture",
    requires = [
        "base",
        capture::api::histogram,
        capture::api::percentile,
        capture::api::histogram_counts,
        capture::api::percentile_between,
        capture::api::capture_info,
        capture::api::capture_installed,
        capture::api::statements_reset,
        capture::api::arm_explain,
    ]
);
extension_sql_file!("../sql/schema/cache.sql", name = "cache", requires = ["capture"]);
extension_sql_file!("../sql/schema/advisor.sql", name = "advisor", requires = ["cache"], finalize);

/// Called by Postgres when the library is loaded.
///
/// Without shared_preload_libraries there is no shared memory to count in, so no hook is installed; the
/// functions exist and say so.
#[allow(non_snake_case, reason = "the name is Postgres's")]
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    pg::shield::hide_backtraces();
    if !pg::session::is_preloading() {
        return;
    }
    settings::define::<Capture>();
    pg::shmem::install::<(Capture, Cache)>();
    pg::parse::install::<Capture>();
    pg::hot::install::<Capture, Cache>();
    pg::utility::install::<Capture, Cache>();
    pg::errors::install::<Capture>();
    pg::xact::install::<(Capture, (Cache, Advisor))>();
    pg::access::install::<Cache>();
    pg::inval::install::<Cache>();
    pg::label::install::<Cache>();
    pg::whatif::install();
    pg::harvest::install();
    capture::worker::register();
}
