//! What the hooks of `pg` call: the way of every statement.
//!
//! The methods of `Observer` run in plain frames that a longjmp may cross: they own nothing, allocate
//! nothing and cannot panic; whatever does more is a function of its own, not inlined, and shielded.

use super::open;
use super::slow::{self, Basics, Reason};
use super::{Capture, armed, control, control::Counter, failures, mode, pending, repeats, texts};
use crate::pg::backend::BackendStatic;
use crate::pg::errors::{CancelCause, ErrorObserver, Failure};
use crate::pg::hot::{self, Observer, Planning};
use crate::pg::parse::{ParseObserver, Parsed};
use crate::pg::query::Query;
use crate::pg::utility::{Utility, UtilityObserver};
use crate::pg::xact::{self, XactObserver};
use crate::pg::{clock, guc, session, shield, usage};
use crate::settings;
use core::cell::Cell;
use core::ffi::c_int;

/// EXEC_FLAG_EXPLAIN_ONLY of executor.h.
const EXPLAIN_ONLY: c_int = 1;

/// Duration of the last planning in this backend and its statement, for the execution that follows it.
static PLANNED: BackendStatic<Cell<(u64, u64)>> = BackendStatic::new(Cell::new((0, 0)));
/// Executions that take at least this long may have to be recorded: `slow_threshold`, or everything while
/// `sample_rate` is not 0. Kept by the settings' assign hooks.
static RECORD_FROM_NS: BackendStatic<Cell<u64>> = BackendStatic::new(Cell::new(u64::MAX));
static RANDOM: BackendStatic<Cell<u64>> = BackendStatic::new(Cell::new(0));
static SESSION_WATCHED_BY: BackendStatic<Cell<i32>> = BackendStatic::new(Cell::new(0));

impl Observer for Capture {
    type Seen = &'static open::Slot;

    #[inline(always)]
    fn start(query: Query, eflags: c_int) -> Option<Self::Seen> {
        let nesting = hot::nesting();
        let query_id = query.query_id();
        if query_id == 0 || eflags & EXPLAIN_ONLY != 0 || !mode::is_tracking(nesting) {
            return None;
        }
        let slot = open::push(query)?;
        slot.query_id.set(query_id);
        slot.user_id.set(session::user_id());
        slot.toplevel.set(nesting == 0);
        let (planned_id, planned_ns) = PLANNED.get();
        if planned_id == query_id {
            slot.plan_ns.set(planned_ns);
            PLANNED.set((0, 0));
        }
        if armed::any() && armed::take(query_id) {
            slot.arm();
            query.instrument();
        }
        Some(slot)
    }

    #[inline(always)]
    fn started(slot: Self::Seen) {
        slot.started();
    }

    #[inline(always)]
    fn run(query: Query) -> Option<Self::Seen> {
        let slot = open::find(query)?;
        begin(query, slot);
        Some(slot)
    }

    #[inline(always)]
    fn ran(query: Query, slot: Self::Seen, whole: bool) {
        if query.is_suspendable() {
            stop(query, slot, whole);
        }
    }

    #[inline(always)]
    fn finish(query: Query) -> Option<Self::Seen> {
        let slot = open::find(query)?;
        begin(query, slot);
        Some(slot)
    }

    #[inline(always)]
    fn finished(query: Query, slot: Self::Seen) {
        stop(query, slot, true);
    }

    #[inline(always)]
    fn end(query: Query) {
        if !open::pop_counted(query) {
            count_at_end(query);
        }
    }

    #[inline(always)]
    fn wants_errors(nesting: u32) -> bool {
        mode::watches_errors(nesting)
    }

    fn failed(query: Query, sqlstate: c_int, cause: CancelCause) {
        if let Some(slot) = open::find(query) {
            shield::quietly(|| failures::execution_failed(slot, sqlstate, cause));
        }
    }

    #[inline(always)]
    fn plan(planning: Planning) -> u64 {
        if planning.query_id == 0 || !mode::is_tracking(hot::nesting()) {
            return 0;
        }
        let begun_ns = clock::monotonic_ns();
        if hot::nesting() == 0 {
            failures::set_planning(planning.query_id, begun_ns);
        }
        begun_ns
    }

    #[inline(always)]
    fn planned(planning: Planning, begun_ns: u64) {
        let query_id = planning.query_id;
        let now_ns = clock::monotonic_ns();
        if hot::nesting() == 0 {
            failures::set_planning(0, 0);
        }
        open::set_recent_ns(now_ns);
        let elapsed_ns = now_ns.wrapping_sub(begun_ns);
        PLANNED.set((query_id, elapsed_ns));
        if guc::bool(&settings::TRACK_PLANNING)
            && let Some(entry) = pending::find(query_id, session::user_id(), hot::nesting() == 0)
        {
            entry.planned(elapsed_ns);
        } else if guc::bool(&settings::TRACK_PLANNING) {
            first_planned(planning, elapsed_ns);
        }
    }

    fn planning_failed(planning: Planning, begun_ns: u64, sqlstate: c_int, cause: CancelCause) {
        shield::quietly(|| failures::planning_failed(planning, begun_ns, sqlstate, cause));
    }
}

/// Counts the first planning of a statement in this backend.
#[inline(never)]
fn first_planned(planning: Planning, elapsed_ns: u64) {
    shield::quietly(|| {
        watch_session();
        let toplevel = hot::nesting() == 0;
        pending::claim(planning.query_id, session::user_id(), toplevel, planning.text()).planned(elapsed_ns);
    });
}

/// Starts the clock of an execution.
#[inline(always)]
fn begin(query: Query, slot: &open::Slot) {
    let counters = mode::reads_buffers();
    if mode::reads_times() || !slot.begin_first_run(counters) {
        slot.begin(query, counters);
    }
}

/// Stops the clock of an execution. What it ran may have closed others, and so moved its slot.
///
/// The usual execution, run once and for all its rows, is counted here and now. Whatever is out of the
/// ordinary keeps its figures in its slot and is counted at its end: more runs may come, its entry is not
/// there yet, its turn to be looked at closely has come, or it is to be recorded.
#[inline(always)]
fn stop(query: Query, slot: &'static open::Slot, whole: bool) {
    if !slot.is_of(query) {
        return stop_moved(query);
    }
    let entry = pending::find(slot.query_id.get(), slot.user_id.get(), slot.toplevel.get());
    if let Some(entry) = entry
        && whole
        && entry.is_sample().is_none()
        && let Some(elapsed_ns) = slot.elapsed_in_first_run()
        && elapsed_ns < RECORD_FROM_NS.get()
    {
        if let Some(start) = slot.usage_begin() {
            entry.used_since(start);
        }
        count(query, slot, entry, elapsed_ns, query.rows());
        slot.set_counted();
    } else {
        slot.stop();
    }
}

#[inline(never)]
fn stop_moved(query: Query) {
    if let Some(slot) = open::find(query) {
        slot.stop();
    }
}

/// Counts an execution that ended.
#[inline(always)]
fn count(query: Query, slot: &'static open::Slot, entry: &'static pending::Entry, elapsed_ns: u64, rows: u64) {
    entry.executed(elapsed_ns, rows);
    if let Some(jit) = query.jit() {
        entry.compiled(jit);
    }
    if slot.toplevel.get() && repeats::executed(entry, elapsed_ns) {
        repeats::begin(&entry.repeat, slot.query_id.get(), slot.user_id.get());
    }
}

/// Counts an execution that could not be counted when it stopped.
#[inline(never)]
fn count_at_end(query: Query) {
    let Some(slot) = open::find(query) else { return };
    if !slot.is_counted() {
        slot.stop();
        let (query_id, user_id) = (slot.query_id.get(), slot.user_id.get());
        let toplevel = slot.toplevel.get();
        let entry = pending::find(query_id, user_id, toplevel).or_else(|| {
            shield::quietly(|| {
                watch_session();
                pending::claim(query_id, user_id, toplevel, query.text())
            })
        });
        if let Some(entry) = entry {
            count_kept(slot, query, entry);
        }
    }
    open::remove(slot);
}

/// Counts what a slot has kept, records the execution when that is due, and looks closely at it when it is
/// its turn: at its plan, and at what the counting costs. That is about half of what capture does on the way
/// of an execution, so it stands for twice itself, for as many executions as the sample stands for.
fn count_kept(slot: &'static open::Slot, query: Query, entry: &'static pending::Entry) {
    let sample = entry.is_sample();
    if sample.is_some() {
        supply_text(entry, slot.query_id.get(), || query.text());
    }
    let begun_ns = clock::monotonic_ns();
    if let Some(words) = slot.usage() {
        entry.used(words);
    }
    entry.mark();
    let rows = slot.earlier_rows.get() + query.rows();
    count(query, slot, entry, slot.elapsed_ns.get(), rows);
    if let Some(weight) = sample {
        let own_ns = clock::monotonic_ns().wrapping_sub(begun_ns);
        control::add(Counter::OwnNs, own_ns * 2 * weight);
    }
    if slot.elapsed_ns.get() >= RECORD_FROM_NS.get() || slot.is_armed() {
        record(slot, query, entry);
    }
    if sample.is_some() {
        look_at_plan(query, entry);
    }
}

fn look_at_plan(query: Query, entry: &'static pending::Entry) {
    let plan_id = query.plan_id();
    if entry.ran_plan(plan_id) {
        entry.settle_plan(slow::check_plan(query, entry.key(), plan_id));
    }
}

fn record(slot: &'static open::Slot, query: Query, entry: &'static pending::Entry) {
    if let Some(reason) = reason(slot.is_armed(), slot.elapsed_ns.get()) {
        slow::record(slot, query, entry.key(), reason);
    }
}

/// The shared entry may have lost its text, by a reset or by being pushed out.
fn supply_text<'a>(entry: &pending::Entry, query_id: u64, text: impl FnOnce() -> &'a [u8]) {
    pending::notice_reset();
    if entry.lacks_text() {
        shield::quietly(|| texts::remember_source(query_id, text()));
    }
}

/// Is this execution to be recorded, and why?
fn reason(armed: bool, elapsed_ns: u64) -> Option<Reason> {
    if armed {
        return Some(Reason::Armed);
    }
    let threshold_ms = guc::int(&settings::SLOW_THRESHOLD_MS);
    if threshold_ms >= 0 && elapsed_ns >= threshold_ms as u64 * 1_000_000 {
        return Some(Reason::Slow);
    }
    let rate = guc::float(&settings::SAMPLE_RATE);
    (rate > 0.0 && is_drawn(rate)).then_some(Reason::Sampled)
}

/// Draws with this probability (xorshift64, Marsaglia 2003).
fn is_drawn(rate: f64) -> bool {
    let mut x = RANDOM.get();
    if x == 0 {
        x = clock::monotonic_ns() ^ (session::pid() as u64) << 32 | 1;
    }
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    RANDOM.set(x);
    control::takes_samples() && ((x >> 11) as f64) < rate * (1u64 << 53) as f64
}

/// Sees to it that what is pending is not lost when the session ends. Once per backend.
fn watch_session() {
    let pid = session::pid();
    if SESSION_WATCHED_BY.replace(pid) != pid {
        xact::watch_session::<Capture>();
    }
}

/// A utility statement that runs.
#[derive(Clone, Copy)]
pub struct Begun {
    pub query_id: u64,
    pub user_id: u32,
    pub toplevel: bool,
    pub begun_ns: u64,
    /// The statement's text; lives as long as the client's message or the function it stands in.
    pub text: &'static [u8],
    usage: Option<usage::Reading>,
}

impl UtilityObserver for Capture {
    type Begun = Begun;

    fn begin(statement: Utility) -> Option<Begun> {
        let nesting = hot::nesting();
        leave_database(statement);
        if !guc::bool(&settings::TRACK_UTILITY) || !mode::is_tracking(nesting) || statement.is_charged_elsewhere() {
            return None;
        }
        let begun = Begun {
            query_id: shield::quietly(|| statement.query_id()).unwrap_or(0),
            user_id: session::user_id(),
            toplevel: nesting == 0,
            text: statement.text(),
            usage: mode::reads_buffers().then(usage::reading),
            begun_ns: clock::monotonic_ns(),
        };
        if begun.query_id == 0 {
            return None;
        }
        if begun.toplevel {
            failures::set_utility(Some(begun));
        }
        Some(begun)
    }

    fn end(begun: &Begun, rows: u64) {
        mode::forget();
        let now_ns = clock::monotonic_ns();
        open::set_recent_ns(now_ns);
        if begun.toplevel {
            failures::set_utility(None);
        }
        shield::quietly(|| count_utility(begun, now_ns.wrapping_sub(begun.begun_ns), rows));
    }

    fn failed(begun: &Begun, sqlstate: c_int, cause: CancelCause) {
        mode::forget();
        shield::quietly(|| failures::utility_failed(*begun, sqlstate, cause));
    }
}

/// The worker of a database that somebody wants to himself goes away.
fn leave_database(statement: Utility) {
    if let Some(name) = statement.exclusive_database() {
        shield::quietly(|| super::worker::leave_database(&name));
    }
}

fn count_utility(begun: &Begun, elapsed_ns: u64, rows: u64) {
    watch_session();
    let entry = pending::claim(begun.query_id, begun.user_id, begun.toplevel, begun.text);
    supply_text(entry, begun.query_id, || begun.text);
    entry.executed(elapsed_ns, rows);
    entry.mark();
    let words = begun.usage.map(|start| usage::since(&start));
    if let Some(words) = &words {
        entry.used(words);
    }
    if let Some(reason) = reason(false, elapsed_ns) {
        let basics = Basics {
            key: entry.key(),
            reason,
            outcome: "ok",
            command: "UTILITY",
            elapsed_ns,
            raw: begun.text,
            commented: begun.text,
            in_error: false,
        };
        slow::record_utility(&basics, rows, words.as_ref());
    }
}

impl ParseObserver for Capture {
    fn charges_prepared(nesting: u32) -> bool {
        guc::bool(&settings::TRACK_UTILITY) && mode::is_tracking(nesting)
    }

    fn parsed(statement: Parsed) {
        if mode::is_tracking(hot::nesting()) {
            pending::notice_reset();
            shield::quietly(|| texts::remember_parsed(statement));
        }
    }
}

impl guc::Watcher for Capture {
    fn request_changes() {
        repeats::request_changes();
    }

    fn slow_threshold_changes(threshold_ms: i32) {
        set_record_from(threshold_ms, guc::float(&settings::SAMPLE_RATE));
    }

    fn sample_rate_changes(rate: f64) {
        set_record_from(guc::int(&settings::SLOW_THRESHOLD_MS), rate);
    }

    fn tracking_changes() {
        mode::forget();
    }
}

fn set_record_from(threshold_ms: i32, sample_rate: f64) {
    RECORD_FROM_NS.set(match u64::try_from(threshold_ms) {
        _ if sample_rate > 0.0 => 0,
        Ok(threshold_ms) => threshold_ms * 1_000_000,
        Err(_) => u64::MAX,
    });
}

impl ErrorObserver for Capture {
    fn failed(failure: &Failure<'_>) {
        if guc::bool(&settings::CAPTURE_ENABLED) && control::is_ready() {
            failures::reported(failure);
        }
    }
}

/// Brings out what is due: repetitions, and pending counts.
#[inline(never)]
fn bring_out() {
    repeats::report();
    if pending::is_due(open::recent_ns()) {
        pending::flush(false);
        mode::forget();
    }
}

impl XactObserver for Capture {
    #[inline(always)]
    fn committed() {
        open::transaction_ended();
        if repeats::transaction_ended() || pending::is_due(open::recent_ns()) {
            bring_out();
        }
    }

    #[inline(never)]
    fn aborted() {
        open::abandon_since(0);
        failures::clear();
        Self::committed();
    }

    fn subtransaction_starts(id: u32) {
        open::subtransaction_starts(id);
    }

    fn subtransaction_aborted(id: u32) {
        open::abandon_since(id);
        if hot::nesting() == 0 {
            failures::clear();
        }
    }

    fn session_ends() {
        repeats::session_ends();
        pending::flush(true);
    }
}
