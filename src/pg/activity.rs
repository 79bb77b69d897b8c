//! What the server's backends are doing right now.

use super::compat;
use core::ptr;
use pgrx::pg_sys;

/// A backend that runs a client's statement.
pub struct Running {
    pub pid: i32,
    /// When the statement arrived, microseconds since 2000-01-01.
    pub statement_start_us: i64,
    /// What it waits for; 0 for nothing.
    pub wait_event: u32,
}

/// The statements that have been running since before `started_before_us`, read from pg_stat_activity's
/// source and each process's own wait event. Outside a transaction; holds no lock on return.
pub fn running_since(started_before_us: i64) -> Vec<Running> {
    // SAFETY: reads a local copy of the backends' status, made anew each time; entries are used at once.
    unsafe {
        pg_sys::pgstat_clear_backend_activity_snapshot();
        (1..=pg_sys::pgstat_fetch_stat_numbackends())
            .filter_map(|index| compat::backend_status(index).as_ref())
            .filter(|status| {
                status.st_state == pg_sys::BackendState::STATE_RUNNING
                    && status.st_backendType == pg_sys::BackendType::B_BACKEND
                    && status.st_activity_start_timestamp <= started_before_us
            })
            .map(|status| Running {
                pid: status.st_procpid,
                statement_start_us: status.st_activity_start_timestamp,
                wait_event: wait_event(status.st_procpid),
            })
            .collect()
    }
}

/// What a process waits for; 0 for nothing, or when it is gone.
fn wait_event(pid: i32) -> u32 {
    // SAFETY: the PGPROC array lives as long as the server; the word may change at any time, and any value
    // of it will do.
    unsafe {
        match pg_sys::BackendPidGetProc(pid).as_ref() {
            Some(process) => ptr::read_volatile(&process.wait_event_info),
            None => 0,
        }
    }
}

/// `Type:Event` as pg_stat_activity names it; `CPU` for no wait.
pub fn wait_event_name(wait_event: u32) -> String {
    if wait_event == 0 {
        return "CPU".into();
    }
    // SAFETY: names are literals of Postgres's, or lie in shared memory for good.
    unsafe {
        let kind = super::text::c_string(pg_sys::pgstat_get_wait_event_type(wait_event));
        let event = super::text::c_string(pg_sys::pgstat_get_wait_event(wait_event));
        format!("{kind}:{event}")
    }
}
