//! SQL run by ourselves.

use core::ffi::CStr;
use pgrx::pg_sys;

/// Runs work with a search path in which nobody can put anything: an operator or function that a statement of ours names
/// must not be found in a schema of its caller's.
pub fn with_own_search_path<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: the setting goes back with the level; when an error passes, with the (sub)transaction.
    unsafe {
        let level = pg_sys::NewGUCNestLevel();
        pg_sys::set_config_option(
            c"search_path".as_ptr(),
            c"pg_catalog, pg_temp".as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
        let result = work();
        pg_sys::AtEOXact_GUC(true, level);
        result
    }
}

/// Runs one statement of our own with text parameters, given in UTF-8; raises what it raises. In a
/// transaction.
pub fn run(sql: &CStr, arguments: &[&str]) {
    with_own_search_path(|| run_statement(sql, arguments));
}

fn run_statement(sql: &CStr, arguments: &[&str]) {
    let texts: Vec<Vec<u8>> = arguments.iter().map(|text| super::text::from_utf8(text)).collect();
    let mut types = vec![pg_sys::TEXTOID; texts.len()];
    // SAFETY: the texts are copied into the SPI context; the arrays are as long as said. What an error
    // leaves of the SPI stack is cleaned up when its (sub)transaction ends.
    unsafe {
        pg_sys::SPI_connect();
        let mut values: Vec<pg_sys::Datum> = texts
            .iter()
            .map(|text| {
                let copy = pg_sys::cstring_to_text_with_len(text.as_ptr().cast(), text.len() as i32);
                pg_sys::Datum::from(copy)
            })
            .collect();
        pg_sys::SPI_execute_with_args(
            sql.as_ptr(),
            texts.len() as i32,
            types.as_mut_ptr(),
            values.as_mut_ptr(),
            core::ptr::null(),
            false,
            0,
        );
        pg_sys::SPI_finish();
    }
}

/// Writes an administrative action into `steward.audit_log`: who, as whom, what, with which arguments.
///
/// Every function that changes something for others calls it, in the transaction of the change, so that
/// neither stands without the other. The row is written as the owner of the log, whoever was granted the
/// function; on a standby, where nothing can be written, a log line takes its place.
pub fn audit(action: &str, arguments: &serde_json::Value) {
    let arguments = arguments.to_string();
    if super::session::in_recovery() {
        pgrx::log!("pg_steward: audit: {action} {arguments}");
        return;
    }
    // SAFETY: the user is switched only around our own statement, which names every object with its
    // schema; an error ends the (sub)transaction, and that restores the user too.
    unsafe {
        let mut user = pg_sys::InvalidOid;
        let mut context = 0;
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        let caller = super::text::c_string(pg_sys::GetUserNameFromId(user, true));
        let session = pg_sys::GetUserNameFromId(pg_sys::GetSessionUserId(), true);
        let session = super::text::c_string(session);
        let local = pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32;
        let restricted = pg_sys::SECURITY_RESTRICTED_OPERATION as i32;
        pg_sys::SetUserIdAndSecContext(log_owner(), context | local | restricted);
        run(
            c"INSERT INTO steward.audit_entries (session_role, acting_role, action, arguments) VALUES ($1, $2, $3, $4::pg_catalog.jsonb)",
            &[&session, &caller, action, &arguments],
        );
        pg_sys::SetUserIdAndSecContext(user, context);
    }
}

/// Owner of the audit log, that is, of the extension.
unsafe fn log_owner() -> pg_sys::Oid {
    // SAFETY: catalog look-ups in the caller's transaction; raises when the extension is not there, as it
    // should then.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"steward".as_ptr(), false);
        let table = pg_sys::get_relname_relid(c"audit_entries".as_ptr(), schema);
        let relation = pg_sys::table_open(table, pg_sys::AccessShareLock as i32);
        let owner = (*(*relation).rd_rel).relowner;
        pg_sys::table_close(relation, pg_sys::NoLock as i32);
        owner
    }
}

/// Runs a query of our own that only reads, and gives its rows as text, in UTF-8. In a transaction with a snapshot.
pub fn rows(sql: &CStr, arguments: &[&str]) -> Vec<Vec<Option<String>>> {
    with_own_search_path(|| rows_of(sql, arguments))
}

fn rows_of(sql: &CStr, arguments: &[&str]) -> Vec<Vec<Option<String>>> {
    let texts: Vec<Vec<u8>> = arguments.iter().map(|text| super::text::from_utf8(text)).collect();
    let mut types = vec![pg_sys::TEXTOID; texts.len()];
    let mut found = Vec::new();
    // SAFETY: as for `run`; values are copied before SPI_finish frees them.
    unsafe {
        pg_sys::SPI_connect();
        let mut values: Vec<pg_sys::Datum> = texts
            .iter()
            .map(|text| pg_sys::Datum::from(pg_sys::cstring_to_text_with_len(text.as_ptr().cast(), text.len() as i32)))
            .collect();
        pg_sys::SPI_execute_with_args(
            sql.as_ptr(),
            texts.len() as i32,
            types.as_mut_ptr(),
            values.as_mut_ptr(),
            core::ptr::null(),
            true,
            0,
        );
        if let Some(table) = pg_sys::SPI_tuptable.as_ref() {
            for at in 0..pg_sys::SPI_processed as usize {
                let tuple = *table.vals.add(at);
                let row = (1..=(*table.tupdesc).natts).map(|column| {
                    let value = pg_sys::SPI_getvalue(tuple, table.tupdesc, column);
                    (!value.is_null()).then(|| super::text::c_string(value))
                });
                found.push(row.collect());
            }
        }
        pg_sys::SPI_finish();
    }
    found
}

/// The transactions that are prepared at this moment.
pub fn prepared_transactions() -> Vec<u32> {
    rows(c"SELECT transaction::pg_catalog.text FROM pg_catalog.pg_prepared_xacts", &[])
        .into_iter()
        .filter_map(|row| row.first()?.as_ref()?.parse().ok())
        .collect()
}
