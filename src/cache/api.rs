//! The SQL functions of the result cache. Views and grants are in `sql/schema/cache.sql`.

use super::key::QUERY;
use super::serve::{Form, answer};
use super::{Cache, classes, commits, fill, local, statements, stats, store, views};
use crate::error::{self, Error};
use crate::pg::function::{Call, guarded, plain_function};
use crate::pg::srf::{self, set_returning};
use crate::pg::{session, spi, text, xact};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use serde_json::json;
use steward_core::cache::payload;

fn rows(call: Call) -> pg_sys::Datum {
    answer(call, Form::Rows)
}

fn as_json(call: Call) -> pg_sys::Datum {
    answer(call, Form::Json)
}

/// A plain frame: the text is the caller's, and so are its errors.
fn explain(call: Call) -> pg_sys::Datum {
    if !Cache::exists() {
        guarded(|| super::raise(error::not_preloaded()));
    }
    statements::call_begins();
    if let Some(text) = call.text(QUERY) {
        fill::statement_of(text);
    }
    guarded(move || srf::fill(call, views::explain(call)));
    statements::call_ends();
    call.no_value()
}

plain_function!(steward_cached_1, pg_finfo_steward_cached_1, rows);
plain_function!(steward_cached_json_1, pg_finfo_steward_cached_json_1, as_json);
plain_function!(steward_cache_explain_1, pg_finfo_steward_cache_explain_1, explain);
set_returning!(steward_cache_stats_1, pg_finfo_steward_cache_stats_1, views::stats_rows);
set_returning!(steward_cache_reasons_1, pg_finfo_steward_cache_reasons_1, views::reason_rows);
set_returning!(steward_cache_class_stats_1, pg_finfo_steward_cache_class_stats_1, views::class_rows);
set_returning!(steward_cache_query_stats_1, pg_finfo_steward_cache_query_stats_1, views::query_rows);
set_returning!(steward_cache_entries_1, pg_finfo_steward_cache_entries_1, views::entry_rows);

fn require_preload() -> Result<(), Error> {
    if Cache::exists() { Ok(()) } else { Err(error::not_preloaded()) }
}

/// Invalidates a slot when the transaction commits, and says how many results that are true now depend on it.
fn invalidate(slot: u32, action: &str, argument: serde_json::Value) -> Result<i64, ErrorReport> {
    require_preload()?;
    commits::invalidate_at_commit(slot);
    spi::audit(action, &argument);
    let database = session::database_id();
    let depends = |stored: &store::Stored| {
        payload::decode_front(&stored.front).is_ok_and(|front| front.deps().any(|(known, _)| known == slot))
    };
    let entries = (0..store::SHARDS).flat_map(|shard| store::list(shard, |entry| entry.database == database));
    Ok(entries.filter(depends).count() as i64)
}

#[pg_extern(volatile, parallel_unsafe, strict)]
fn cache_invalidate_relation_id(relation: pg_sys::Oid) -> Result<i64, ErrorReport> {
    let name = crate::pg::relations::qualified_name(relation.to_u32());
    invalidate(commits::relation_slot(relation.to_u32()), "cache_invalidate", json!({ "relation": name }))
}

/// pgrx takes text as UTF-8 only, so functions that are given names take its bytes.
#[pg_extern(
    sql = "CREATE FUNCTION cache_invalidate_tag(tag text) RETURNS bigint STRICT VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';"
)]
fn cache_invalidate_tag(tag: &[u8]) -> Result<i64, ErrorReport> {
    let tag = text::to_utf8(tag);
    invalidate(commits::name_slot("tag", &tag), "cache_invalidate_tag", json!({ "tag": tag }))
}

#[pg_extern(
    sql = "CREATE FUNCTION cache_invalidate_class(class text) RETURNS bigint STRICT VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';"
)]
fn cache_invalidate_class(class: &[u8]) -> Result<i64, ErrorReport> {
    require_preload()?;
    let class = text::to_utf8(class);
    classes::named(&class).map_err(Error::from)?;
    invalidate(commits::name_slot("class", &class), "cache_invalidate_class", json!({ "class": class }))
}

#[pg_extern(volatile, parallel_unsafe, strict)]
fn cache_invalidate_role_id(role: pg_sys::Oid) -> Result<i64, ErrorReport> {
    let name = crate::pg::session_state::role_name(role.to_u32());
    let slot = commits::name_slot("role", &role.to_u32().to_string());
    invalidate(slot, "cache_invalidate_role", json!({ "role": name }))
}

/// Drops every result of this database when the transaction commits, and gives their number now.
#[pg_extern(volatile, parallel_unsafe)]
fn cache_clear() -> Result<i64, ErrorReport> {
    require_preload()?;
    spi::audit("cache_clear", &json!({}));
    // Sessions keep copies of their own, which depend on this slot as every result does.
    commits::clear_at_commit();
    xact::once_committed(|| {
        if !commits::clears() {
            return;
        }
        let database = session::database_id();
        store::remove_all(|entry| entry.database == database);
        local::clear();
    });
    let database = session::database_id();
    Ok((0..store::SHARDS).map(|shard| store::count_of(shard, |entry| entry.database == database) as i64).sum())
}

#[pg_extern(volatile, parallel_unsafe)]
fn cache_stats_reset() -> Result<(), ErrorReport> {
    require_preload()?;
    spi::audit("cache_stats_reset", &json!({}));
    local::flush();
    stats::reset();
    Ok(())
}
