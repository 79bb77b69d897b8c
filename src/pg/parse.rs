//! The post_parse_analyze hook: the only place where Postgres says which constants of a text do not count.

use super::query::statement_text;
use super::utility::names_prepared_statement;
use super::{compat, hot};
use pgrx::pg_sys;
use steward_core::capture::normalize::Constant;

/// Who sees analysed statements. Called from a plain frame: `parsed` must not panic.
pub trait ParseObserver: 'static {
    /// Is the observer switched on? Then EXECUTE and its kin lose their query id, so that
    /// pg_stat_activity shows the id of the statement they run, as pg_stat_statements has it.
    fn charges_prepared(nesting: u32) -> bool;
    /// A statement with a query id was analysed.
    fn parsed(statement: Parsed);
}

/// A statement that was just analysed. Valid during the hook.
#[derive(Clone, Copy)]
pub struct Parsed {
    query: *mut pg_sys::Query,
    source: *const core::ffi::c_char,
    jumble: *mut pg_sys::JumbleState,
}

impl Parsed {
    pub fn query_id(self) -> u64 {
        // SAFETY: Postgres passes a valid query.
        compat::query_id(unsafe { (*self.query).queryId })
    }

    pub fn is_utility(self) -> bool {
        // SAFETY: as above.
        unsafe { !(*self.query).utilityStmt.is_null() }
    }

    /// The statement's own text.
    pub fn text<'a>(self) -> &'a [u8] {
        // SAFETY: the source outlives the analysis.
        unsafe { statement_text(self.source, (*self.query).stmt_location, (*self.query).stmt_len) }
    }

    /// Is the statement all that the client sent in one string?
    pub fn is_whole_source(self) -> bool {
        // SAFETY: as above; NUL-terminated.
        unsafe { self.text().len() == statement_text(self.source, -1, 0).trim_ascii_end().len() }
    }

    /// The constants that the query id leaves out, as offsets into `text`, and the highest parameter.
    pub fn constants(self) -> (Vec<Constant>, u32) {
        if self.jumble.is_null() {
            return (Vec::new(), 0);
        }
        // SAFETY: the jumble state holds `clocations_count` locations; they count from the start of the
        // source, `text` from its own.
        unsafe {
            let jumble = &*self.jumble;
            let count = usize::try_from(jumble.clocations_count).unwrap_or(0);
            let base = self.text().as_ptr().offset_from(self.source.cast()) as i64;
            let locations = match jumble.clocations.is_null() {
                true => &[][..],
                false => core::slice::from_raw_parts(jumble.clocations, count),
            };
            let mut constants: Vec<Constant> =
                locations.iter().filter_map(|location| compat::constant(location, base)).collect();
            // Postgres lists them in the order of the tree.
            constants.sort_unstable_by_key(|constant| constant.offset);
            (constants, jumble.highest_extern_param_id.max(0) as u32)
        }
    }
}

static mut PREVIOUS: pg_sys::post_parse_analyze_hook_type = None;

/// Installs the hook, and asks Postgres to compute query ids. Call once, from `_PG_init`.
pub fn install<O: ParseObserver>() {
    // SAFETY: `_PG_init` runs once, before any statement.
    unsafe {
        pg_sys::EnableQueryId();
        PREVIOUS = pg_sys::post_parse_analyze_hook;
        pg_sys::post_parse_analyze_hook = Some(post_parse_analyze::<O>);
    }
}

unsafe extern "C-unwind" fn post_parse_analyze<O: ParseObserver>(
    pstate: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    jumble: *mut pg_sys::JumbleState,
) {
    // SAFETY: Postgres's own arguments; the frame is plain, and our work comes after the chain.
    unsafe {
        #[allow(ffi_unwind_calls, reason = "plain frame: a longjmp may cross it")]
        if let Some(previous) = PREVIOUS {
            previous(pstate, query, jumble);
        }
        if names_prepared_statement((*query).utilityStmt) {
            if O::charges_prepared(hot::nesting()) {
                (*query).queryId = 0;
            }
        } else if (*query).queryId != 0 {
            O::parsed(Parsed { query, source: (*pstate).p_sourcetext, jumble });
        }
    }
}
