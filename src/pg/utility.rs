//! The ProcessUtility hook. Utility statements are few and heavy, so this frame catches: it sees the error
//! of its statement, restores nesting exactly, and lets the error go on as it came.

use super::errors::CancelCause;
use super::query::statement_text;
use super::{catch, compat, errors, hot, raw};
use core::ffi::{c_char, c_int};
use pgrx::pg_sys;

/// Who sees utility statements. Same rules as for `hot::Observer`.
pub trait UtilityObserver: 'static {
    /// What is kept from `begin` to `end`; plain data.
    type Begun: Copy;
    /// Before the statement. `None`: not observed, and statements inside it are not nested.
    fn begin(statement: Utility) -> Option<Self::Begun>;
    /// After it, with the rows it retrieved or changed where that means something.
    fn end(begun: &Self::Begun, rows: u64);
    /// An error with this packed SQLSTATE passes.
    fn failed(begun: &Self::Begun, sqlstate: c_int, cause: CancelCause);
}

/// Who wants to know of each utility statement, whether observed or not. Must not raise or panic.
pub trait UtilityWatcher: 'static {
    /// It is about to run.
    fn before(statement: Utility);
    /// One has succeeded; it may be gone.
    fn after() {}
}

/// A utility statement about to run. Use only before it runs: a ROLLBACK frees what is behind it.
#[derive(Clone, Copy)]
pub struct Utility {
    statement: *mut pg_sys::PlannedStmt,
    source: *const c_char,
    /// Did the client send it, rather than a function or block run it?
    pub is_toplevel: bool,
}

impl Utility {
    /// EXECUTE, PREPARE and DEALLOCATE are charged to the statement they name.
    pub fn is_charged_elsewhere(self) -> bool {
        // SAFETY: Postgres passes a PlannedStmt with its utility statement.
        unsafe { names_prepared_statement((*self.statement).utilityStmt) }
    }

    /// The database that the statement wants to itself: to drop, rename, move or copy it.
    pub fn exclusive_database(self) -> Option<String> {
        use pg_sys::NodeTag::*;
        // SAFETY: as above; each cast follows the tag.
        unsafe {
            let node = (*self.statement).utilityStmt;
            let name = match (*node).type_ {
                T_DropdbStmt => (*node.cast::<pg_sys::DropdbStmt>()).dbname,
                T_AlterDatabaseStmt => (*node.cast::<pg_sys::AlterDatabaseStmt>()).dbname,
                T_RenameStmt => {
                    let rename = node.cast::<pg_sys::RenameStmt>();
                    match (*rename).renameType {
                        pg_sys::ObjectType::OBJECT_DATABASE => (*rename).subname,
                        _ => return None,
                    }
                }
                T_CreatedbStmt => return template((*node.cast::<pg_sys::CreatedbStmt>()).options),
                _ => return None,
            };
            Some(super::text::c_string(name))
        }
    }

    /// VACUUM or ANALYZE, which change no data.
    pub fn is_maintenance(self) -> bool {
        // SAFETY: as above.
        unsafe { (*(*self.statement).utilityStmt).type_ == pg_sys::NodeTag::T_VacuumStmt }
    }

    /// COMMIT PREPARED or ROLLBACK PREPARED.
    pub fn ends_prepared(self) -> bool {
        use pg_sys::TransactionStmtKind::{TRANS_STMT_COMMIT_PREPARED, TRANS_STMT_ROLLBACK_PREPARED};
        // SAFETY: as above; the cast follows the tag.
        unsafe {
            let node = (*self.statement).utilityStmt;
            (*node).type_ == pg_sys::NodeTag::T_TransactionStmt
                && [TRANS_STMT_COMMIT_PREPARED, TRANS_STMT_ROLLBACK_PREPARED]
                    .contains(&(*node.cast::<pg_sys::TransactionStmt>()).kind)
        }
    }

    /// NOTIFY and LOCK take a transaction id and write no table.
    pub fn takes_id_only(self) -> bool {
        // SAFETY: as above.
        let tag = unsafe { (*(*self.statement).utilityStmt).type_ };
        matches!(tag, pg_sys::NodeTag::T_NotifyStmt | pg_sys::NodeTag::T_LockStmt)
    }

    /// SET TRANSACTION SNAPSHOT: the transaction's snapshot is another's, and may be old.
    pub fn imports_snapshot(self) -> bool {
        // SAFETY: as above; the cast follows the tag.
        unsafe {
            let node = (*self.statement).utilityStmt;
            if (*node).type_ != pg_sys::NodeTag::T_VariableSetStmt {
                return false;
            }
            let set = node.cast::<pg_sys::VariableSetStmt>();
            (*set).kind == pg_sys::VariableSetKind::VAR_SET_MULTI
                && !(*set).name.is_null()
                && core::ffi::CStr::from_ptr((*set).name) == c"TRANSACTION SNAPSHOT"
        }
    }

    /// Postgres's query id; where another module has zeroed it, the one Postgres would compute.
    pub fn query_id(self) -> u64 {
        // SAFETY: as above; the source is NUL-terminated.
        unsafe {
            match compat::query_id((*self.statement).queryId) {
                0 => compat::utility_query_id(self.statement, self.source),
                id => id,
            }
        }
    }

    /// The statement's own text.
    pub fn text<'a>(self) -> &'a [u8] {
        // SAFETY: as above.
        unsafe { statement_text(self.source, (*self.statement).stmt_location, (*self.statement).stmt_len) }
    }
}

/// The database that CREATE DATABASE … TEMPLATE copies, when it names one.
///
/// # Safety
/// `options` must be the option list of the statement.
unsafe fn template(options: *mut pg_sys::List) -> Option<String> {
    // SAFETY: a list of DefElem; the value of "template" is a string or DEFAULT (NULL).
    unsafe {
        super::plan::pointers::<pg_sys::DefElem>(options)
            .find(|option| super::text::c_string((**option).defname) == "template")
            .filter(|option| !(**option).arg.is_null())
            .map(|option| super::text::c_string(pg_sys::defGetString(option)))
    }
}

/// # Safety
/// `node` must be NULL or a parse node.
pub(super) unsafe fn names_prepared_statement(node: *mut pg_sys::Node) -> bool {
    // SAFETY: by the contract.
    !node.is_null()
        && matches!(
            unsafe { (*node).type_ },
            pg_sys::NodeTag::T_ExecuteStmt | pg_sys::NodeTag::T_PrepareStmt | pg_sys::NodeTag::T_DeallocateStmt
        )
}

static mut PREVIOUS: pg_sys::ProcessUtility_hook_type = None;

/// Installs the hook. Call once, from `_PG_init`.
pub fn install<O: UtilityObserver, W: UtilityWatcher>() {
    // SAFETY: `_PG_init` runs once, before any statement.
    unsafe {
        PREVIOUS = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(process_utility::<O, W>);
    }
}

#[allow(clippy::too_many_arguments, reason = "the hook's signature is Postgres's")]
unsafe extern "C-unwind" fn process_utility<O: UtilityObserver, W: UtilityWatcher>(
    pstmt: *mut pg_sys::PlannedStmt,
    query_string: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    query_env: *mut pg_sys::QueryEnvironment,
    dest: *mut pg_sys::DestReceiver,
    qc: *mut pg_sys::QueryCompletion,
) {
    let chain = || {
        // SAFETY: Postgres's own arguments go on; plain frames only up to here.
        unsafe {
            #[allow(ffi_unwind_calls, reason = "plain frame: a longjmp may cross it")]
            match PREVIOUS {
                Some(previous) => previous(pstmt, query_string, read_only_tree, context, params, query_env, dest, qc),
                None => raw::standard_ProcessUtility(
                    pstmt,
                    query_string,
                    read_only_tree,
                    context,
                    params,
                    query_env,
                    dest,
                    qc,
                ),
            }
        }
    };
    // A part of a statement (the index of a primary key) is no statement of its own.
    let is_part = context == pg_sys::ProcessUtilityContext::PROCESS_UTILITY_SUBCOMMAND;
    let is_toplevel = context == pg_sys::ProcessUtilityContext::PROCESS_UTILITY_TOPLEVEL;
    let statement = Utility { statement: pstmt, source: query_string, is_toplevel };
    W::before(statement);
    let Some(begun) = (if is_part { None } else { O::begin(statement) }) else {
        chain();
        return W::after();
    };
    let outer = hot::enter();
    let floor = hot::raise_floor();
    // SAFETY: `chain` owns nothing that drops; on an error, nothing here does either.
    unsafe {
        let failed = catch::catches(&chain);
        hot::lower_floor(floor);
        hot::leave(outer);
        if failed {
            let sqlstate = catch::pending_sqlstate();
            O::failed(&begun, sqlstate, errors::pending_cause(sqlstate));
            catch::rethrow();
        }
        O::end(&begun, rows(qc));
    }
    W::after();
}

/// Rows of COPY, FETCH, CREATE TABLE AS, SELECT INTO and REFRESH; 0 for the rest.
///
/// # Safety
/// `qc` must be NULL or valid.
unsafe fn rows(qc: *const pg_sys::QueryCompletion) -> u64 {
    // SAFETY: by the contract.
    unsafe {
        match qc.as_ref() {
            Some(qc)
                if matches!(
                    qc.commandTag,
                    pg_sys::CommandTag::CMDTAG_COPY
                        | pg_sys::CommandTag::CMDTAG_FETCH
                        | pg_sys::CommandTag::CMDTAG_SELECT
                        | pg_sys::CommandTag::CMDTAG_REFRESH_MATERIALIZED_VIEW
                ) =>
            {
                qc.nprocessed
            }
            _ => 0,
        }
    }
}
