//! Background workers: starting them, and the loop that each of them runs.

use core::ffi::CStr;
use core::time::Duration;
use pgrx::bgworkers::{
    BackgroundWorker, BackgroundWorkerBuilder, BgWorkerStartTime, DynamicBackgroundWorker, SignalWakeFlags,
};
use pgrx::{IntoDatum, pg_sys};

/// Seconds after which a worker that died is started again.
const RESTART: Duration = Duration::from_secs(5);

/// Registers the static worker that Postgres starts as soon as reads are possible. From `_PG_init`.
pub fn register_launcher(name: &str, function: &str) {
    BackgroundWorkerBuilder::new(name)
        .set_type(name)
        .set_library("pg_steward")
        .set_function(function)
        .enable_spi_access()
        // After enable_spi_access, which would have it wait for the end of recovery.
        .set_start_time(BgWorkerStartTime::ConsistentState)
        .set_restart_time(Some(RESTART))
        .load();
}

/// Starts a worker for one database. `None`: no worker slot is free.
pub fn start_for_database(name: &str, function: &str, database: u32) -> Option<Running> {
    BackgroundWorkerBuilder::new(name)
        .set_type("pg_steward coordinator")
        .set_library("pg_steward")
        .set_function(function)
        .set_argument(pg_sys::Oid::from(database).into_datum())
        .set_restart_time(None)
        .set_notify_pid(super::session::pid())
        .enable_spi_access()
        .load_dynamic()
        .ok()
        .map(Running)
}

/// A worker that was started.
pub struct Running(DynamicBackgroundWorker);

impl Running {
    /// Is it there, or on its way?
    pub fn is_alive(&self) -> bool {
        use pgrx::bgworkers::BackgroundWorkerStatus::{NotYetStarted, Started};
        match self.0.pid() {
            Ok(_) => true,
            Err(status) => matches!(status, NotYetStarted | Started),
        }
    }
}

/// Takes the signals and connects: to one database, or (0) to the shared catalogs only.
pub fn begin(database: u32) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    let database = (database != 0).then(|| pg_sys::Oid::from(database));
    BackgroundWorker::connect_worker_to_spi_by_oid(database, None);
}

/// Waits, then takes over changed settings. `false`: the worker is to end.
pub fn wait(time: Duration) -> bool {
    report(c"idle", false);
    let goes_on = BackgroundWorker::wait_latch(Some(time));
    if BackgroundWorker::sighup_received() {
        // SAFETY: in the main loop, outside a transaction, as Postgres's own workers do it.
        unsafe {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
    goes_on
}

/// Lets a cancel through, and answers other backends that wait for this process: DROP DATABASE waits until each has let go of its files.
pub fn heed_interrupts() {
    pgrx::check_for_interrupts!();
}

/// Ends the process so that Postgres starts it again after its restart time, unless the server is stopping: it
/// takes an exit with 0 for the end of the work.
pub fn exit_for_restart() {
    // SAFETY: in the main loop, outside a transaction, holding nothing.
    unsafe { pg_sys::proc_exit(1) };
}

/// Runs work in a transaction with a snapshot, and commits.
pub fn in_transaction<R>(work: impl FnOnce() -> R + std::panic::UnwindSafe + std::panic::RefUnwindSafe) -> R {
    report(c"running", true);
    let result = BackgroundWorker::transaction(work);
    // SAFETY: outside a transaction; tells the statistics system what the transaction did.
    unsafe { pg_sys::pgstat_report_stat(false) };
    report(c"idle", false);
    result
}

/// Says in pg_stat_activity what the worker does.
fn report(what: &CStr, running: bool) {
    let state = match running {
        true => pg_sys::BackendState::STATE_RUNNING,
        false => pg_sys::BackendState::STATE_IDLE,
    };
    // SAFETY: the backend entry exists once the worker is connected; the string is copied.
    unsafe { pg_sys::pgstat_report_activity(state, what.as_ptr()) };
}

unsafe extern "C" {
    fn kill(pid: i32, signal: i32) -> i32;
}

/// Asks a process of this server to end, as pg_terminate_backend does; the caller has made sure that the
/// id is that of one of our workers.
pub fn terminate(pid: i32) {
    const SIGTERM: i32 = 15;
    if pid > 1 {
        // SAFETY: kill(2) with a process id above 1 touches no memory; a process that is gone is an error
        // that may be ignored.
        unsafe { kill(pid, SIGTERM) };
    }
}

/// Is there a process with this id? One system call, so it may be asked under a lock.
pub fn is_alive(pid: i32) -> bool {
    // SAFETY: signal 0 only asks.
    pid > 1 && unsafe { kill(pid, 0) } == 0
}

/// A database as a worker sees it.
pub struct Database {
    pub oid: u32,
    pub name: String,
}

/// The databases that can be connected to and are no templates. In a transaction.
pub fn databases() -> Vec<Database> {
    let mut databases = Vec::new();
    // SAFETY: reads pg_database, a shared catalog, with a catalog snapshot, as the autovacuum launcher does;
    // every tuple is used before the next one is fetched.
    unsafe {
        let lock = pg_sys::AccessShareLock as i32;
        let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, lock);
        let scan = pg_sys::table_beginscan_catalog(relation, 0, core::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            let Some(tuple) = tuple.as_ref() else { break };
            let offset = (*tuple.t_data).t_hoff as usize;
            let row = &*tuple.t_data.cast::<u8>().add(offset).cast::<pg_sys::FormData_pg_database>();
            if row.datallowconn && !row.datistemplate {
                let name = super::text::c_string(row.datname.data.as_ptr());
                databases.push(Database { oid: row.oid.to_u32(), name });
            }
        }
        pg_sys::heap_endscan(scan);
        pg_sys::table_close(relation, lock);
    }
    databases
}

/// Is this extension installed in the database of this worker? If so, it stays until the transaction ends:
/// DROP EXTENSION takes the same lock before any other, so it waits instead of meeting us half way.
pub fn holds_extension() -> bool {
    let look = || {
        // SAFETY: a catalog look-up by a NUL-terminated name.
        unsafe { pg_sys::get_extension_oid(c"pg_steward".as_ptr(), true) }
    };
    let extension = look();
    if extension == pg_sys::InvalidOid {
        return false;
    }
    // SAFETY: an ordinary lock on a catalog object, released at the end of the transaction. Taking it brings
    // in what others have committed, so the second look sees a drop that was faster.
    unsafe {
        let lock = pg_sys::AccessShareLock as i32;
        pg_sys::LockDatabaseObject(pg_sys::ExtensionRelationId, extension, 0, lock);
    }
    look() == extension
}

/// Writes a line to the server's log.
pub fn log(message: &str) {
    pgrx::log!("{message}");
}

/// Exports the entry point of a worker: `symbol` calls `main` with the database that it was started for (0
/// for none).
macro_rules! main {
    ($symbol:ident, $main:path) => {
        #[doc(hidden)]
        #[unsafe(no_mangle)]
        #[pgrx::pg_guard]
        pub extern "C-unwind" fn $symbol(argument: pgrx::pg_sys::Datum) {
            $main(argument.value() as u32);
        }
    };
}
pub(crate) use main;
