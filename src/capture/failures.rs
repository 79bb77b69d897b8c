//! Statements that did not come to their end. Postgres calls no ExecutorEnd for them: they are taken where
//! their error is reported, or where it passes a frame that watches.

use super::hook::Begun;
use super::slow::{Basics, Execution, Reason};
use super::{control, control::Counter, open, pending};
use crate::pg::backend::BackendStatic;
use crate::pg::errors::{self, CancelCause, Failure};
use crate::pg::hot::{self, Planning};
use crate::pg::{clock, session, shield, text};
use core::cell::Cell;
use steward_core::capture::entry::Failures;
use steward_core::capture::message::redact_message;
use steward_core::capture::table::Key;

/// How a statement ended; the labels of the SQL type `steward.outcome`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Error,
    Cancelled,
    StatementTimeout,
    LockTimeout,
    TransactionTimeout,
    Terminated,
}

impl Outcome {
    pub fn of(sqlstate: i32, cause: CancelCause, fatal: bool) -> Self {
        match cause {
            CancelCause::StatementTimeout => Outcome::StatementTimeout,
            CancelCause::LockTimeout => Outcome::LockTimeout,
            CancelCause::User => Outcome::Cancelled,
            CancelCause::None if sqlstate == errors::pack(*b"25P04") => Outcome::TransactionTimeout,
            CancelCause::None if fatal => Outcome::Terminated,
            CancelCause::None => Outcome::Error,
        }
    }

    pub const fn label(self) -> &'static str {
        match self {
            Outcome::Error => "error",
            Outcome::Cancelled => "cancelled",
            Outcome::StatementTimeout => "statement_timeout",
            Outcome::LockTimeout => "lock_timeout",
            Outcome::TransactionTimeout => "transaction_timeout",
            Outcome::Terminated => "terminated",
        }
    }

    fn counted(self, elapsed_ns: u64) -> Failures {
        let one = |is: bool| u64::from(is);
        Failures {
            errors: one(self == Outcome::Error),
            cancelled: one(self == Outcome::Cancelled),
            timeouts: one(matches!(
                self,
                Outcome::StatementTimeout | Outcome::LockTimeout | Outcome::TransactionTimeout
            )),
            terminated: one(self == Outcome::Terminated),
            total_ns: elapsed_ns,
        }
    }
}

/// A planning that is going on: its statement and when it began; 0 for none.
static PLANNING: BackendStatic<Cell<(u64, u64)>> = BackendStatic::new(Cell::new((0, 0)));
/// The client's utility statement that is running.
static UTILITY: BackendStatic<Cell<Option<Begun>>> = BackendStatic::new(Cell::new(None));
/// The client's utility statement that an error has just passed; its report comes next.
static FAILED_UTILITY: BackendStatic<Cell<Option<(Begun, u64)>>> = BackendStatic::new(Cell::new(None));

#[inline(always)]
pub fn set_planning(query_id: u64, begun_ns: u64) {
    PLANNING.set((query_id, begun_ns));
}

pub fn set_utility(begun: Option<Begun>) {
    UTILITY.set(begun);
    FAILED_UTILITY.set(None);
}

/// The transaction is over, and whatever was going on in it.
#[inline(always)]
pub fn clear() {
    PLANNING.set((0, 0));
    FAILED_UTILITY.set(None);
}

/// An error passes a utility statement. The client's own is recorded when the error is reported, where its
/// message is known; one inside a function is recorded now, since its error may never be reported.
pub fn utility_failed(begun: Begun, sqlstate: i32, cause: CancelCause) {
    let elapsed_ns = clock::monotonic_ns() - begun.begun_ns;
    if begun.toplevel && !errors::errors_are_hidden() {
        UTILITY.set(None);
        FAILED_UTILITY.set(Some((begun, elapsed_ns)));
        return;
    }
    let outcome = Outcome::of(sqlstate, cause, false);
    utility(&begun, elapsed_ns, outcome, &Error { sqlstate, message: None });
}

/// An error passes an execution that is being watched.
pub fn execution_failed(slot: &'static open::Slot, sqlstate: i32, cause: CancelCause) {
    let outcome = Outcome::of(sqlstate, cause, false);
    execution(slot, outcome, &Error { sqlstate, message: None });
    open::remove(slot);
}

/// What is known of an error.
struct Error<'a> {
    sqlstate: i32,
    message: Option<&'a [u8]>,
}

/// An error that nobody caught is being reported: whatever the client had running failed.
#[inline(never)]
pub fn reported(failure: &Failure<'_>) {
    let begun_ns = clock::monotonic_ns();
    shield::quietly(|| {
        let outcome = Outcome::of(failure.sqlstate, failure.cause, failure.fatal);
        let error = Error { sqlstate: failure.sqlstate, message: Some(failure.message) };
        let mut found = false;
        for slot in open::all().filter(|slot| slot.is_running()) {
            execution(slot, outcome, &error);
            found = true;
        }
        if let Some((begun, elapsed_ns)) = FAILED_UTILITY.take() {
            utility(&begun, elapsed_ns, outcome, &error);
            found = true;
        } else if let Some(begun) = UTILITY.get().filter(|_| failure.fatal) {
            let elapsed_ns = clock::monotonic_ns() - begun.begun_ns;
            utility(&begun, elapsed_ns, outcome, &error);
            found = true;
        }
        if !found {
            before_execution(outcome, &error);
        }
    });
    super::slow::account(begun_ns);
}

fn execution(slot: &open::Slot, outcome: Outcome, error: &Error<'_>) {
    slot.stop();
    let Some(query) = slot.query() else { return };
    let raw = query.text();
    let entry = pending::claim(slot.query_id.get(), slot.user_id.get(), slot.toplevel.get(), raw);
    entry.failed(&outcome.counted(slot.elapsed_ns.get()));
    if let Some(words) = slot.usage() {
        entry.used(words);
    }
    let mut basics = basics(entry.key(), outcome, query.command(), slot.elapsed_ns.get(), raw);
    basics.commented = query.text_with_comments();
    if let Some(mut event) = Execution::new(&basics) {
        event = event.with_plan(query.plan_id(), slot.plan_ns.get());
        if let Some(words) = slot.usage() {
            event = event.with_usage(words);
        }
        send(event, error);
    }
}

fn utility(begun: &Begun, elapsed_ns: u64, outcome: Outcome, error: &Error<'_>) {
    let raw = begun.text;
    let entry = pending::claim(begun.query_id, begun.user_id, begun.toplevel, raw);
    entry.failed(&outcome.counted(elapsed_ns));
    let basics = basics(entry.key(), outcome, "UTILITY", elapsed_ns, raw);
    if let Some(event) = Execution::new(&basics) {
        send(event, error);
    }
}

/// The statement failed while it was planned (it has a query id then), or before: parsed, analysed, or
/// waiting for a lock to be analysed.
fn before_execution(outcome: Outcome, error: &Error<'_>) {
    let (query_id, planning_ns) = PLANNING.get();
    let raw = errors::client_query().trim_ascii();
    let raw = raw.strip_suffix(b";").unwrap_or(raw);
    if raw.is_empty() || !errors::serves_client() || !super::mode::is_tracking(0) {
        return;
    }
    if query_id != 0 {
        return planning(query_id, planning_ns, true, raw, outcome, error);
    }
    control::add(Counter::Unidentified, 1);
    let waited_us = (clock::now_us() - clock::statement_start_us()).max(0) as u64;
    let key = Key { queryid: 0, dbid: session::database_id(), userid: session::user_id(), toplevel: 1, reserved: 0 };
    let basics = basics(key, outcome, "PARSE", waited_us * 1_000, raw);
    if unidentified_allowed()
        && let Some(event) = Execution::new(&basics)
    {
        send(event, error);
    }
}

/// An error passes a planning that is being watched: it is inside a function, or errors are hidden.
pub fn planning_failed(statement: Planning, begun_ns: u64, sqlstate: i32, cause: CancelCause) {
    let outcome = Outcome::of(sqlstate, cause, false);
    // The planner's own frame is still counted.
    let toplevel = hot::nesting() <= 1;
    let error = Error { sqlstate, message: None };
    planning(statement.query_id, begun_ns, toplevel, statement.text(), outcome, &error);
    if toplevel {
        clear();
    }
}

fn planning(query_id: u64, begun_ns: u64, toplevel: bool, raw: &[u8], outcome: Outcome, error: &Error<'_>) {
    let elapsed_ns = clock::monotonic_ns() - begun_ns;
    let entry = pending::claim(query_id, session::user_id(), toplevel, raw);
    entry.failed(&outcome.counted(elapsed_ns));
    let basics = basics(entry.key(), outcome, "PLAN", elapsed_ns, raw);
    if let Some(event) = Execution::new(&basics) {
        send(event, error);
    }
}

fn basics<'a>(key: Key, outcome: Outcome, command: &'static str, elapsed_ns: u64, raw: &'a [u8]) -> Basics<'a> {
    Basics {
        key,
        reason: Reason::Failed,
        outcome: outcome.label(),
        command,
        elapsed_ns,
        raw,
        commented: raw,
        in_error: true,
    }
}

fn send(event: Execution, error: &Error<'_>) {
    let sqlstate = errors::unpack(error.sqlstate);
    let message = error.message.map(|message| text::to_utf8_in_error(&redact_message(&sqlstate, message)));
    event.with_error(sqlstate, message).send();
}

/// Statements without a query id share one limit per backend, since they have no entry to keep one in.
fn unidentified_allowed() -> bool {
    use steward_core::capture::limiter::{Bucket, allow};
    static LIMIT: BackendStatic<Cell<Bucket>> =
        BackendStatic::new(Cell::new(Bucket { window_start_s: 0, count: 0, suppressed: 0 }));
    let mut bucket = LIMIT.get();
    let per_minute = crate::settings::SLOW_LIMIT_PER_MINUTE.get().max(0) as u32;
    let allowed = allow(&mut bucket, clock::seconds(clock::now_us()), per_minute);
    LIMIT.set(bucket);
    if !allowed {
        control::add(Counter::EventsSuppressed, 1);
    }
    allowed
}
