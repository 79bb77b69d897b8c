//! A statement that is being executed, as the hooks see it.

use super::compat;
use core::ffi::c_int;
use core::ptr::NonNull;
use pgrx::pg_sys;
use std::ffi::CStr;
use steward_core::capture::entry::JIT_WORDS;

/// An execution between ExecutorStart and ExecutorEnd. Only this folder can make one, and it hands it out
/// for the time of a hook, while the QueryDesc below it is alive; do not keep it.
#[derive(Clone, Copy)]
pub struct Query(NonNull<pg_sys::QueryDesc>);

impl Query {
    /// # Safety
    /// `query_desc` must be valid for as long as the value is used.
    #[inline(always)]
    pub(super) unsafe fn new(query_desc: *mut pg_sys::QueryDesc) -> Self {
        // SAFETY: valid, so not NULL.
        Self(unsafe { NonNull::new_unchecked(query_desc) })
    }

    #[inline(always)]
    pub(super) fn as_ptr(self) -> *mut pg_sys::QueryDesc {
        self.0.as_ptr()
    }

    /// What tells this execution from the others that are open in the backend.
    #[inline(always)]
    pub fn address(self) -> usize {
        self.as_ptr() as usize
    }

    #[inline(always)]
    pub fn query_id(self) -> u64 {
        // SAFETY: valid by construction; the plan outlives the execution.
        unsafe { compat::query_id((*(*self.as_ptr()).plannedstmt).queryId) }
    }

    /// May its executor be left and entered again between rows? True for a SELECT that changes nothing.
    #[inline(always)]
    pub fn is_suspendable(self) -> bool {
        // SAFETY: as above.
        unsafe {
            (*self.as_ptr()).operation == pg_sys::CmdType::CMD_SELECT
                && !(*(*self.as_ptr()).plannedstmt).hasModifyingCTE
        }
    }

    /// Does it lock rows (FOR UPDATE and its kin, foreign keys)?
    #[inline(always)]
    pub fn locks_rows(self) -> bool {
        // SAFETY: as above.
        unsafe { !(*(*self.as_ptr()).plannedstmt).rowMarks.is_null() }
    }

    /// Adds the relations of its plan that are not there yet, views among them, those that were pruned too.
    pub fn add_relations(self, all: &mut Vec<u32>) {
        // SAFETY: as above; a list of range table entries.
        unsafe { super::tree::add_relations((*(*self.as_ptr()).plannedstmt).rtable, all) }
    }

    /// Does `rows` start again with each run?
    pub const ROWS_ARE_PER_RUN: bool = compat::ROWS_ARE_PER_RUN;

    /// Rows returned or changed so far; see `ROWS_ARE_PER_RUN`.
    #[inline(always)]
    pub fn rows(self) -> u64 {
        // SAFETY: the executor state exists from ExecutorStart to ExecutorEnd; NULL is tested.
        unsafe {
            match (*self.as_ptr()).estate.is_null() {
                true => 0,
                false => compat::rows_processed((*self.as_ptr()).estate),
            }
        }
    }

    /// What JIT compilation did, if it did anything; the leader's share, as in pg_stat_statements.
    #[inline(always)]
    pub fn jit(self) -> Option<[u64; JIT_WORDS]> {
        // SAFETY: as above; es_jit is NULL unless something was compiled.
        unsafe {
            let estate = (*self.as_ptr()).estate;
            if estate.is_null() || (*estate).es_jit.is_null() {
                return None;
            }
            Some(compat::jit_words(&(*(*estate).es_jit).instr))
        }
    }

    /// Makes the executor count rows and time per node for this execution. To be called before it starts.
    pub fn instrument(self) {
        let wanted = pg_sys::InstrumentOption::INSTRUMENT_TIMER
            | pg_sys::InstrumentOption::INSTRUMENT_ROWS
            | pg_sys::InstrumentOption::INSTRUMENT_BUFFERS;
        // SAFETY: as above; Postgres reads the options when the executor starts.
        unsafe { (*self.as_ptr()).instrument_options |= wanted as c_int };
    }

    /// Were actual rows and times collected?
    pub fn is_instrumented(self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.as_ptr()).instrument_options != 0 }
    }

    /// The statement's own text, cut out of the string that the client sent.
    pub fn text<'a>(self) -> &'a [u8] {
        // SAFETY: the source text lives as long as the execution, for which the caller has the value.
        unsafe {
            let planned = (*self.as_ptr()).plannedstmt;
            statement_text((*self.as_ptr()).sourceText, (*planned).stmt_location, (*planned).stmt_len)
        }
    }

    /// The same with the comments in front of it, which from 18 on are no part of a statement.
    pub fn text_with_comments<'a>(self) -> &'a [u8] {
        let text = self.text();
        // SAFETY: as above; NUL-terminated.
        let (source, location) = unsafe {
            let source = (*self.as_ptr()).sourceText;
            if source.is_null() {
                return text;
            }
            (CStr::from_ptr(source).to_bytes(), (*(*self.as_ptr()).plannedstmt).stmt_location)
        };
        let before = &source[..usize::try_from(location).unwrap_or(0).min(source.len())];
        // Another statement may stand before it in the same string.
        let from = before.iter().rposition(|byte| *byte == b';').map_or(0, |at| at + 1);
        let to = (text.as_ptr() as usize + text.len()).wrapping_sub(source.as_ptr() as usize);
        source.get(from..to).unwrap_or(text).trim_ascii()
    }

    /// `SELECT`, `INSERT`, `UPDATE`, `DELETE` or `MERGE`.
    pub fn command(self) -> &'static str {
        // SAFETY: as above.
        command_name(unsafe { (*self.as_ptr()).operation })
    }
}

/// The name of a command as pg_stat_statements' users know it.
pub fn command_name(command: pg_sys::CmdType::Type) -> &'static str {
    match command {
        pg_sys::CmdType::CMD_SELECT => "SELECT",
        pg_sys::CmdType::CMD_INSERT => "INSERT",
        pg_sys::CmdType::CMD_UPDATE => "UPDATE",
        pg_sys::CmdType::CMD_DELETE => "DELETE",
        pg_sys::CmdType::CMD_MERGE => "MERGE",
        pg_sys::CmdType::CMD_UTILITY => "UTILITY",
        _ => "OTHER",
    }
}

/// One statement of a string that may hold several; location -1 and length 0 mean "unknown" and "the rest".
///
/// # Safety
/// `source` must be NULL or a NUL-terminated string that outlives the result.
pub(super) unsafe fn statement_text<'a>(source: *const core::ffi::c_char, location: c_int, length: c_int) -> &'a [u8] {
    if source.is_null() {
        return &[];
    }
    // SAFETY: NUL-terminated, by the contract.
    let all = unsafe { CStr::from_ptr(source) }.to_bytes();
    let from = usize::try_from(location).unwrap_or(0).min(all.len());
    let to = match usize::try_from(length) {
        Ok(length) if length > 0 && location >= 0 => (from + length).min(all.len()),
        _ => all.len(),
    };
    all[from..to].trim_ascii()
}
