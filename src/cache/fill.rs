//! Calls that this session's results cannot answer: the statement is analysed, the shared results are looked at, and
//! else the query runs, alone for its key if possible, and its rows are stored if all is proved.

use super::key::{self, Asked, CLASS, PARAMS, QUERY, TAGS, TTL};
use super::serve::{self, Form, Found};
use super::shared::{from_shared, served};
use super::stats::{self, Count, Timed};
use super::store::Key;
use super::{admission, analysis, classes, commits, leases, prepared, proof, raise, statements};
use crate::error::Error;
use crate::pg::backend::BackendStatic;
use crate::pg::bind::{self, Json, Parameters};
use crate::pg::function::{Call, guarded};
use crate::pg::json::{self, JsonText};
use crate::pg::query::Query;
use crate::pg::rows::{Received, Receiver, RowSet};
use crate::pg::statement::{self, Analysed, Draft, PlanRules, Prepared};
use crate::pg::{clock, guc, inval, latch, session, writes};
use crate::settings;
use core::cell::{Cell, RefCell};
use pgrx::pg_sys::Datum;
use steward_core::cache::class::{self, Class, SensitiveRule};
use steward_core::cache::reason::{Kind, Reason};
use steward_core::error::CacheError;

/// What is to be done for a call.
#[derive(Clone, Copy)]
pub enum Plan {
    Serve(Found),
    Run(Run),
}

/// A query that is to run.
#[derive(Clone, Copy)]
pub struct Run {
    prepared: Prepared,
    /// Its place among the calls that are being answered.
    depth: usize,
}

/// A call that is being answered by running its query.
pub(super) struct Fill {
    pub handle: statements::Handle,
    pub key: Vec<u8>,
    pub shared_key: Key,
    pub class: Class,
    pub class_number: u32,
    pub query_number: u32,
    pub ttl_ms: u64,
    pub tags: Vec<String>,
    /// Why the result will not be stored.
    pub bypass: Option<Reason>,
    pub holds_lease: bool,
    subtransaction: u32,
    /// Relations that executions below this one read, and functions that they set up.
    pub relations: Vec<u32>,
    pub functions: Vec<u32>,
    /// Boxed, since the receiver of the rows holds its address while other calls come and go.
    #[allow(clippy::box_collection, reason = "its address must not change")]
    captured: Box<Vec<u8>>,
}

impl Fill {
    pub fn fingerprint(&self) -> u64 {
        self.shared_key[0]
    }
}

/// Others wait for who has the lease, so it ends on every way that a call can end.
impl Drop for Fill {
    fn drop(&mut self) {
        if self.holds_lease {
            leases::release(self.fingerprint());
        }
    }
}

static FILLS: BackendStatic<RefCell<Vec<Fill>>> = BackendStatic::new(RefCell::new(Vec::new()));
/// Is a query running whose result might be stored?
static RECORDS: BackendStatic<Cell<bool>> = BackendStatic::new(Cell::new(false));
/// What analysing found, on its way past a plain frame.
static FINDINGS: BackendStatic<RefCell<Option<analysis::Findings>>> = BackendStatic::new(RefCell::new(None));

/// Reports an error of ours, inside a guard.
fn or_raise<T>(result: Result<T, CacheError>) -> T {
    result.unwrap_or_else(|error| raise(Error::from(error)))
}

// Analysis

/// The statement of a call, analysed now unless it is known. A plain frame.
pub fn statement_of(text: &[u8]) -> statements::Handle {
    inval::accept();
    if let Some(candidate) = statements::find(text)
        && candidate.path.is_current()
    {
        return candidate.handle;
    }
    let news = statements::news();
    let draft = statement::draft(text);
    let (analysed, planning) = guarded(move || judged(draft));
    let prepared = statement::prepare(analysed, planning);
    let text: *const [u8] = text;
    guarded(move || keep_or_free(prepared, text, news))
}

/// The analysed query, and how it is to be planned.
fn judged(draft: Draft) -> (Analysed, PlanRules) {
    let analysed = or_raise(match draft {
        Draft::Query(analysed) => Ok(analysed),
        Draft::Empty => Err(CacheError::EmptyQuery),
        Draft::Several(count) => Err(CacheError::SeveralStatements(count)),
        Draft::NotSelect(found) => Err(CacheError::NotSelect { found: crate::pg::text::literal(found) }),
        Draft::SelectInto => Err(CacheError::SelectInto),
    });
    let findings = or_raise(analysis::judge(analysed));
    let planning = findings.planning;
    *FINDINGS.borrow_mut() = Some(findings);
    (analysed, planning)
}

/// The statement lasts already: what fails now must not leave it behind, since nobody would know of it.
fn keep_or_free(prepared: Prepared, text: *const [u8], news: u64) -> statements::Handle {
    std::panic::catch_unwind(|| keep(prepared, text, news)).unwrap_or_else(|error| {
        prepared.free();
        std::panic::resume_unwind(error)
    })
}

fn keep(prepared: Prepared, text: *const [u8], news: u64) -> statements::Handle {
    let Some(findings) = FINDINGS.borrow_mut().take() else {
        raise(crate::error::limit_exceeded("analysed statement is gone".into(), ""))
    };
    statements::keep(prepared, findings, crate::pg::text::bytes(text), news)
}

// Decision

/// What to do about a call for which `missed` kept this session's results from being served. A plain frame.
pub fn plan(call: Call, missed: Reason, begun_ns: u64) -> Plan {
    let Some(text) = call.text(QUERY) else {
        return guarded(|| raise(Error::from(CacheError::NullArgument("query"))));
    };
    let params = call.json(PARAMS);
    if params.is_none() {
        guarded(|| raise(Error::from(CacheError::NullArgument("params"))));
    }
    let handle = statement_of(text);
    let ttl_ms = call.interval_ms(TTL);
    let class = call.text(CLASS);
    let decision = guarded(std::panic::AssertUnwindSafe(|| decide(call, handle, (params, ttl_ms, class), missed)));
    match decision {
        Decision::Serve(depth) => serve_brought(handle, depth, begun_ns),
        Decision::Wait(wait, depth) => wait_for(handle, wait, depth, begun_ns),
        Decision::Run(depth) => run_plan(handle, depth),
    }
}

/// Serves the result that was just brought to this session, or runs the query if it is gone again: checking rights may run
/// code of others, which may call us. A plain frame.
fn serve_brought(handle: statements::Handle, depth: usize, begun_ns: u64) -> Plan {
    check_rights(handle);
    let served = guarded(move || {
        let found = served(handle, begun_ns);
        if found.is_some() {
            drop_fill();
        }
        found
    });
    match served {
        Some(found) => Plan::Serve(found),
        None => run_plan(handle, depth),
    }
}

fn check_rights(handle: statements::Handle) {
    if let Some(rights) = statements::with(handle, |statement| statement.rights) {
        rights.check();
    }
}

/// What of a call's answer was decided. The fill is on the stack, with the number given: that of fills up to it.
#[derive(Clone, Copy)]
enum Decision {
    /// A shared result was copied to this session's.
    Serve(usize),
    /// Another session computes it.
    Wait(Wait, usize),
    /// The query runs.
    Run(usize),
}

#[derive(Clone, Copy)]
struct Wait {
    fingerprint: u64,
    until_ms: u64,
}

type Wanted<'a> = (Option<Json>, Option<i64>, Option<&'a [u8]>);

fn decide(call: Call, handle: statements::Handle, asked: Wanted<'_>, missed: Reason) -> Decision {
    let (params, ttl_ms, class) = asked;
    let Some(mut fill) = begin(call, handle, params, ttl_ms, class) else {
        raise(crate::error::limit_exceeded("analysed statement is gone".into(), ""))
    };
    nested_call();
    if fill.bypass.is_none() && missed.kind() == Kind::Circumstance && missed != Reason::SnapshotUnsafe {
        fill.bypass = Some(missed);
    }
    if let Some(reason) = fill.bypass {
        return Decision::Run(push_missed(fill, reason));
    }
    if missed == Reason::SnapshotUnsafe {
        prepared::settle(false);
    }
    let reason = match from_shared(&fill) {
        Ok(()) => return Decision::Serve(push(fill)),
        Err(Reason::Absent) => missed,
        Err(reason) => reason,
    };
    match claim(&mut fill) {
        Some(wait) => {
            stats::add(Count::Waits, 1);
            Decision::Wait(wait, push_missed(fill, reason))
        }
        None => Decision::Run(push_missed(fill, reason)),
    }
}

/// A call of ours within a query of ours hides what it reads from whoever records.
fn nested_call() {
    if let Some(outer) = FILLS.borrow_mut().last_mut() {
        outer.bypass.get_or_insert(Reason::NestedCall);
    }
}

/// The rules of a call, with its key. Says what the caller asked for in vain.
fn begin(
    call: Call,
    handle: statements::Handle,
    params: Option<Json>,
    ttl_ms: Option<i64>,
    asked_class: Option<&[u8]>,
) -> Option<Fill> {
    let asked = asked_class.map(|name| or_raise(classes::named(&crate::pg::text::to_utf8(name))));
    let (table_class, refusal, is_sensitive, query_number) =
        statements::with(handle, |s| (s.class.clone(), s.refusal, s.is_sensitive, s.query_number))?;
    let effective = or_raise(class::effective(&table_class, asked.as_ref(), ttl_ms));
    if let Some(clamped) = &effective.clamped
        && refusal.is_none()
    {
        session::notice(&clamped.to_string());
    }
    let (mut class, ttl_ms) = (effective.class.into_owned(), effective.ttl_ms);
    let mut bypass = proof::circumstance().or(refusal);
    if is_sensitive && class.sensitive == SensitiveRule::Deny {
        bypass = bypass.or(Some(Reason::SensitiveDenied));
    }
    class.tiers.l2 &= !is_sensitive || class.sensitive == SensitiveRule::Allow;
    if !class.tiers.l1 && !class.tiers.l2 {
        bypass = bypass.or(Some(Reason::ClassDenied));
    }
    let tags = if call.is_empty_array(TAGS) { Vec::new() } else { call.texts(TAGS) };
    if let Err(reason) = key::make(handle, Asked { params, class: asked_class, tags: &tags }) {
        bypass = bypass.or(Some(reason));
    }
    let key = key::copy();
    Some(Fill {
        handle,
        shared_key: key::shared(&key),
        key,
        class_number: stats::class_number(&class.name),
        class,
        query_number,
        ttl_ms,
        tags,
        bypass,
        holds_lease: false,
        subtransaction: commits::subtransaction(),
        relations: Vec::new(),
        functions: Vec::new(),
        captured: Box::default(),
    })
}

fn push_missed(fill: Fill, reason: Reason) -> usize {
    serve::count_miss(Some((fill.class_number, fill.query_number)), reason);
    push(fill)
}

/// Gives the number of fills.
fn push(fill: Fill) -> usize {
    RECORDS.set(true);
    let mut fills = FILLS.borrow_mut();
    fills.push(fill);
    fills.len()
}

// One computes, others wait

/// Takes the lease of the result, or says how long to wait for who has it.
fn claim(fill: &mut Fill) -> Option<Wait> {
    let now_ms = admission::now_ms();
    match leases::claim(fill.fingerprint(), now_ms) {
        leases::Claim::Taken => fill.holds_lease = true,
        leases::Claim::Full => {}
        leases::Claim::Held => {
            let limit_ms = guc::int(&settings::CACHE_WAIT_LIMIT_MS).max(0) as u64;
            let half_ms = admission::expected_ms(fill.fingerprint()).map_or(limit_ms, |ms| ms / 2);
            let wait_ms = limit_ms.min(half_ms);
            // Others may wait for what this transaction holds, and no deadlock would be found.
            if wait_ms > 0 && writes::transaction_id() == 0 && !latch::holds_strong_lock() {
                return Some(Wait { fingerprint: fill.fingerprint(), until_ms: now_ms + wait_ms });
            }
        }
    }
    None
}

/// Waits for another session's result. A plain frame: a cancel crosses it, and its fill goes with the transaction.
fn wait_for(handle: statements::Handle, wait: Wait, depth: usize, begun_ns: u64) -> Plan {
    while leases::is_held(wait.fingerprint, admission::now_ms()) && admission::now_ms() < wait.until_ms {
        latch::wait_ms(1);
    }
    inval::accept();
    let found = guarded(move || {
        let came = statements::is_valid(handle) && FILLS.borrow().last().is_some_and(|fill| from_shared(fill).is_ok());
        stats::add(if came { Count::WaitsServed } else { Count::WaitsTimedOut }, 1);
        came
    });
    match found {
        true => serve_brought(handle, depth, begun_ns),
        false => run_plan(handle, depth),
    }
}

fn drop_fill() {
    let fill = FILLS.borrow_mut().pop();
    drop(fill);
    RECORDS.set(!FILLS.borrow().is_empty());
}

// Running

fn run_plan(handle: statements::Handle, depth: usize) -> Plan {
    match statements::with(handle, |statement| statement.prepared) {
        Some(prepared) => Plan::Run(Run { prepared, depth }),
        None => guarded(|| raise(crate::error::limit_exceeded("analysed statement is gone".into(), ""))),
    }
}

/// The set that the caller wants filled. Under a guard.
pub fn result_set(call: Call, prepared: Prepared) -> RowSet {
    call.result_set(prepared).unwrap_or_else(|| raise(crate::error::no_set_accepted()))
}

/// Runs the query of a call and answers with its rows. A plain frame.
pub fn run(call: Call, form: Form, run: Run, begun_ns: u64) -> Datum {
    let Some(params) = call.json(PARAMS) else { return call.no_value() };
    let parameters: Parameters = match bind::bind(run.prepared.types(), params) {
        Ok(parameters) => parameters,
        Err(refusal) => guarded(move || raise(Error::from(refusal.error()))),
    };
    let mut receiver: Receiver = guarded(move || receiver(call, form, run));
    let started_ns = clock::monotonic_ns();
    statement::run(run.prepared, parameters, receiver.as_dest());
    let elapsed_ns = clock::monotonic_ns() - started_ns;
    inval::accept();
    let received = receiver.received();
    // The call stays among those that are being answered until nothing of a user's can fail any more.
    let json = match form {
        Form::Json => Some(json::render(run.prepared, crate::pg::text::bytes(captured(run)))),
        Form::Rows => None,
    };
    guarded(move || finish(received, json, elapsed_ns));
    stats::time(Timed::Miss, clock::monotonic_ns() - begun_ns);
    json.map_or_else(|| call.no_value(), JsonText::to_datum)
}

/// The rows that were captured for a call. They stay where they are until it is finished or abandoned.
fn captured(run: Run) -> *const [u8] {
    let fills = FILLS.borrow();
    let fill = run.depth.checked_sub(1).and_then(|at| fills.get(at));
    fill.map_or(&[][..], |fill| fill.captured.as_slice())
}

fn receiver(call: Call, form: Form, run: Run) -> Receiver {
    let set = match form {
        Form::Rows => result_set(call, run.prepared),
        Form::Json => RowSet::NONE,
    };
    let mut fills = FILLS.borrow_mut();
    let Some(fill) = run.depth.checked_sub(1).and_then(|at| fills.get_mut(at)) else {
        raise(crate::error::limit_exceeded("call is gone".into(), ""))
    };
    // JSON is made of all rows; a set is filled as they come, and only what may be stored is kept besides.
    let max_bytes = match (form, fill.bypass) {
        (Form::Json, _) => json::MAX_BYTES,
        (Form::Rows, Some(_)) => return Receiver::new(run.prepared, set, None, 0),
        (Form::Rows, None) => max_result_bytes(&fill.class),
    };
    Receiver::new(run.prepared, set, Some(&mut fill.captured), max_bytes)
}

fn max_result_bytes(class: &Class) -> usize {
    let setting = guc::int(&settings::CACHE_MAX_RESULT_SIZE_KB).max(1) as u64 * 1024;
    class.max_result_bytes.min(setting) as usize
}

/// Stores what may be stored. The lease goes with the call, whatever comes of it.
fn finish(received: Received, json: Option<JsonText>, elapsed_ns: u64) {
    let Some(mut fill) = FILLS.borrow_mut().pop() else { return };
    RECORDS.set(!FILLS.borrow().is_empty());
    let tuples = core::mem::take(&mut *fill.captured);
    let computed = super::keep::Computed {
        rows: u32::try_from(received.rows).unwrap_or(u32::MAX),
        is_complete: received.is_complete,
        tuples: &tuples,
        json: json.map(JsonText::bytes),
        elapsed_us: elapsed_ns / 1000,
        max_bytes: max_result_bytes(&fill.class),
    };
    let is_sensitive = statements::with(fill.handle, |statement| statement.is_sensitive).unwrap_or(true);
    if let Err(reason) = super::keep::store(&fill, &computed, is_sensitive)
        && fill.bypass.is_none()
    {
        stats::reason(reason);
    }
}

// What the hooks of `pg` tell

/// An execution starts: what it reads belongs to the call that runs.
#[inline(always)]
pub fn execution_starts(query: Query) {
    if RECORDS.get() {
        record_relations(query);
    }
}

#[inline(never)]
fn record_relations(query: Query) {
    with_last(|fill| query.add_relations(&mut fill.relations));
}

fn with_last(work: impl FnOnce(&mut Fill)) {
    if let Ok(mut fills) = FILLS.try_borrow_mut()
        && let Some(fill) = fills.last_mut()
    {
        work(fill);
    }
}

/// A function is set up.
#[inline(always)]
pub fn function_executes(function: u32) {
    if RECORDS.get() {
        with_last(|fill| {
            if !fill.functions.contains(&function) {
                fill.functions.push(function);
            }
        });
    }
}

/// Calls that began since are gone.
pub fn abandon_since(subtransaction: u32) {
    while FILLS.borrow().last().is_some_and(|fill| fill.subtransaction >= subtransaction) {
        drop_fill();
    }
}

/// The transaction is over.
#[inline(always)]
pub fn transaction_ended() {
    if RECORDS.get() {
        abandon_since(0);
    }
}
