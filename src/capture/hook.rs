//! What the hooks of `pg` call: the way of every statement.
//!
//! The methods of `Observer` run in plain frames that a longjmp may cross: they own nothing, allocate
//! nothing and cannot panic; whatever does more is a function of its own, not inlined, and shielded.

use super::open;
use super::slow::{self, Basics, Reason};
use super::{Capture, armed, control, control::Counter, failures, pending, repeats, texts};
use crate::pg::backend::BackendStatic;
use crate::pg::errors::{CancelCause, ErrorObserver, Failure};
use crate::pg::hot::{self, Observer};
use crate::pg::parse::{ParseObserver, Parsed};
use crate::pg::query::Query;
use crate::pg::utility::{Utility, UtilityObserver};
use crate::pg::xact::{self, XactObserver};
use crate::pg::{clock, guc, raw, session, shield, usage};
use crate::settings::{self, Track};
use core::cell::Cell;
use core::ffi::c_int;

/// EXEC_FLAG_EXPLAIN_ONLY of executor.h.
const EXPLAIN_ONLY: c_int = 1;
/// One execution in so many is measured for capture's own cost.
const OWN_COST_SAMPLE: u32 = 1_024;

/// Is a statement at this nesting to be captured?
#[inline(always)]
pub fn is_tracking(nesting: u32) -> bool {
    guc::bool(&settings::CAPTURE_ENABLED)
        && !hot::is_parallel_worker()
        && match guc::ordinal(&settings::TRACK) {
            track if track == Track::All as i32 => true,
            track => track == Track::Top as i32 && nesting == 0,
        }
}

#[inline(always)]
fn reads_buffers() -> bool {
    guc::bool(&settings::TRACK_BUFFERS) && control::takes_buffers()
}

/// Duration of the last planning in this backend and its statement, for the execution that follows it.
static PLANNED: BackendStatic<Cell<(u64, u64)>> = BackendStatic::new(Cell::new((0, 0)));
/// Counts executions, to measure one in `OWN_COST_SAMPLE`; the present one when it stands at 0.
static COST_COUNT: BackendStatic<Cell<u32>> = BackendStatic::new(Cell::new(1));
static RANDOM: BackendStatic<Cell<u64>> = BackendStatic::new(Cell::new(0));
static SESSION_WATCHED_BY: BackendStatic<Cell<i32>> = BackendStatic::new(Cell::new(0));

/// Counts an execution and measures what that costs: about half of what capture does on the way of one, so
/// it stands for twice itself, for all the executions that are not measured.
#[inline(never)]
fn count_costed(slot: &'static open::Slot, query: Query) -> Option<&'static pending::Entry> {
    let begun_ns = clock::monotonic_ns();
    let counted = count(slot, query);
    let own_ns = clock::monotonic_ns().wrapping_sub(begun_ns);
    control::add(Counter::OwnNs, own_ns * 2 * u64::from(OWN_COST_SAMPLE));
    counted
}

impl Observer for Capture {
    type Seen = &'static open::Slot;

    #[inline(always)]
    fn start(query: Query, eflags: c_int) -> Option<Self::Seen> {
        let nesting = hot::nesting();
        let query_id = query.query_id();
        if query_id == 0 || eflags & EXPLAIN_ONLY != 0 || !is_tracking(nesting) {
            return None;
        }
        let slot = open::push(query, raw::current_subxact())?;
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
        slot.begin(reads_buffers());
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
        slot.begin(reads_buffers());
        Some(slot)
    }

    #[inline(always)]
    fn finished(query: Query, slot: Self::Seen) {
        stop(query, slot, true);
    }

    #[inline(always)]
    fn end(query: Query) {
        let Some(slot) = open::find(query) else { return };
        let executions = COST_COUNT.get().wrapping_add(1) % OWN_COST_SAMPLE;
        COST_COUNT.set(executions);
        let counted = if executions == 0 { count_costed(slot, query) } else { count(slot, query) };
        if let Some(entry) = counted {
            if entry.wants_plan_check() {
                look_at_plan(query, entry);
            }
            if let Some(reason) = reason(slot.is_armed(), slot.elapsed_ns.get()) {
                slow::record(slot, query, entry.key(), reason);
            }
        }
        open::remove(slot);
    }

    #[inline(always)]
    fn wants_errors(nesting: u32) -> bool {
        nesting > 0 && guc::ordinal(&settings::TRACK) == Track::All as i32
            || crate::pg::errors::errors_are_hidden()
    }

    fn failed(query: Query, sqlstate: c_int, cause: CancelCause) {
        if let Some(slot) = open::find(query) {
            shield::quietly(|| failures::execution_failed(slot, sqlstate, cause));
        }
    }

    #[inline(always)]
    fn plan(query_id: u64) -> u64 {
        if query_id == 0 || !is_tracking(hot::nesting()) {
            return 0;
        }
        let begun_ns = clock::monotonic_ns();
        failures::set_planning(query_id, begun_ns);
        begun_ns
    }

    #[inline(always)]
    fn planned(query_id: u64, begun_ns: u64) {
        let now_ns = clock::monotonic_ns();
        failures::set_planning(0, 0);
        open::set_recent_ns(now_ns);
        let elapsed_ns = now_ns.wrapping_sub(begun_ns);
        PLANNED.set((query_id, elapsed_ns));
        if guc::bool(&settings::TRACK_PLANNING)
            && let Some(entry) =
                pending::find(query_id, session::user_id(), hot::nesting() == 0)
        {
            entry.planned(elapsed_ns);
        } else if guc::bool(&settings::TRACK_PLANNING) {
            first_planned(query_id, elapsed_ns);
        }
    }
}

/// The first planning of a statement in this backend: its text is among those that were parsed lately.
#[inline(never)]
fn first_planned(query_id: u64, elapsed_ns: u64) {
    shield::quietly(|| {
        watch_session();
        let text = crate::pg::errors::client_query();
        pending::claim(query_id, session::user_id(), hot::nesting() == 0, text, false)
            .planned(elapsed_ns);
    });
}

/// Stops the clock of an execution, and counts what it used. What it ran may have closed others, and so moved
/// its slot. `whole`: the executor was not asked for a part of the rows.
#[inline(always)]
fn stop(query: Query, slot: &'static open::Slot, whole: bool) {
    let slot = match slot.is_of(query) {
        true => slot,
        false => match open::find(query) {
            Some(slot) => slot,
            None => return,
        },
    };
    if !slot.stop() || !slot.is_measured() {
        return;
    }
    let elapsed_ns = slot.elapsed_ns.get();
    match pending::find(slot.query_id.get(), slot.user_id.get(), slot.toplevel.get()) {
        // The usual case: straight to the counts, with no second copy.
        Some(entry) if whole && slot.usage().is_none() && !may_record(slot, elapsed_ns) => {
            entry.used_since(slot.usage_begin());
        }
        _ => slot.keep_usage(),
    }
}

/// Might the execution be recorded by itself? Then it needs its own figures.
#[inline(always)]
fn may_record(slot: &open::Slot, elapsed_ns: u64) -> bool {
    slot.is_armed() || is_slow(elapsed_ns) || guc::float(&settings::SAMPLE_RATE) > 0.0
}

#[inline(always)]
fn is_slow(elapsed_ns: u64) -> bool {
    let threshold_ms = guc::int(&settings::SLOW_THRESHOLD_MS);
    threshold_ms >= 0 && elapsed_ns >= threshold_ms as u64 * 1_000_000
}

/// Counts an execution that has come to its end.
#[inline(always)]
fn count(slot: &'static open::Slot, query: Query) -> Option<&'static pending::Entry> {
    let (query_id, user_id, toplevel) =
        (slot.query_id.get(), slot.user_id.get(), slot.toplevel.get());
    let entry = match pending::find(query_id, user_id, toplevel) {
        Some(entry) => entry,
        None => first_execution(query, query_id, user_id, toplevel)?,
    };
    let elapsed_ns = slot.elapsed_ns.get();
    entry.executed(elapsed_ns, query.rows());
    if let Some(words) = slot.usage() {
        entry.used(words);
    }
    if let Some(jit) = query.jit() {
        entry.compiled(jit);
    }
    if toplevel && repeats::executed(entry, elapsed_ns) {
        repeats::begin(&entry.repeat, query_id, user_id);
    }
    Some(entry)
}

#[inline(never)]
fn first_execution(
    query: Query,
    query_id: u64,
    user_id: u32,
    toplevel: bool,
) -> Option<&'static pending::Entry> {
    shield::quietly(|| {
        watch_session();
        pending::claim(query_id, user_id, toplevel, query.text(), false)
    })
}

#[inline(never)]
fn look_at_plan(query: Query, entry: &'static pending::Entry) {
    let plan_id = query.plan_id();
    if entry.plan_changed(plan_id) {
        slow::check_plan(query, entry.key(), plan_id);
    }
}

/// Is this execution to be recorded, and why?
#[inline(always)]
fn reason(armed: bool, elapsed_ns: u64) -> Option<Reason> {
    if is_slow(elapsed_ns) {
        return Some(Reason::Slow);
    }
    if armed {
        return Some(Reason::Armed);
    }
    let rate = guc::float(&settings::SAMPLE_RATE);
    (rate > 0.0 && is_drawn(rate)).then_some(Reason::Sampled)
}

/// Draws with this probability (xorshift64, Marsaglia 2003).
#[inline(never)]
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
        if !guc::bool(&settings::TRACK_UTILITY)
            || !is_tracking(nesting)
            || statement.is_charged_elsewhere()
        {
            return None;
        }
        let begun = Begun {
            query_id: shield::quietly(|| statement.query_id()).unwrap_or(0),
            user_id: session::user_id(),
            toplevel: nesting == 0,
            text: statement.text(),
            usage: reads_buffers().then(usage::reading),
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
        let now_ns = clock::monotonic_ns();
        open::set_recent_ns(now_ns);
        if begun.toplevel {
            failures::set_utility(None);
        }
        shield::quietly(|| count_utility(begun, now_ns.wrapping_sub(begun.begun_ns), rows));
    }

    fn failed(begun: &Begun, sqlstate: c_int, cause: CancelCause) {
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
    let entry =
        pending::claim(begun.query_id, begun.user_id, begun.toplevel, begun.text, true);
    entry.executed(elapsed_ns, rows);
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
            utility: true,
            in_error: false,
        };
        slow::record_utility(&basics, rows, words.as_ref());
    }
}

impl ParseObserver for Capture {
    fn charges_prepared(nesting: u32) -> bool {
        guc::bool(&settings::TRACK_UTILITY) && is_tracking(nesting)
    }

    fn parsed(statement: Parsed) {
        if is_tracking(hot::nesting()) {
            shield::quietly(|| texts::remember_parsed(statement));
        }
    }
}

/// `pg_steward.request_id` changes.
impl guc::Watcher for Capture {
    fn changes() {
        repeats::request_changes();
    }
}

impl ErrorObserver for Capture {
    fn failed(failure: &Failure<'_>) {
        if guc::bool(&settings::CAPTURE_ENABLED) && control::is_ready() {
            failures::reported(failure);
        }
    }
}

impl XactObserver for Capture {
    #[inline(always)]
    fn committed() {
        if repeats::transaction_ended() {
            repeats::report();
        }
        if pending::is_due(open::recent_ns()) {
            pending::flush(false);
        }
    }

    #[inline(never)]
    fn aborted() {
        open::abandon_since(0);
        failures::clear();
        Self::committed();
    }

    fn subtransaction_aborted(aborted: u32) {
        open::abandon_since(aborted);
    }

    fn session_ends() {
        repeats::session_ends();
        pending::flush(true);
    }
}
