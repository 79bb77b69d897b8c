//! Executions that are recorded one by one: what an event says, and how it is put together.
//!
//! All of this runs after the statement's own work, in `pg::shield`; nothing here is on the way of an
//! ordinary execution.

use super::{control, control::Counter, events, open, store, texts, waits};
use crate::pg::query::Query;
use crate::pg::{clock, guc, params, session, shield, text, usage};
use crate::settings;
use serde::Serialize;
use serde_json::Value;
use steward_core::capture::comment::{Tags, parse_sqlcommenter, parse_traceparent};
use steward_core::capture::entry::{PlanVerdict, Resources};
use steward_core::capture::table::Key;

/// Bytes that are kept of a request id.
const MAX_REQUEST_BYTES: usize = 256;

/// Why an execution was recorded.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    Slow,
    Sampled,
    Armed,
    Failed,
}

/// An execution as it goes through the ring; the names are those of the table's columns.
#[derive(Serialize)]
pub struct Execution {
    captured_us: i64,
    reason: Reason,
    outcome: &'static str,
    sqlstate: Option<String>,
    message: Option<String>,
    duration_ms: f64,
    plan_ms: Option<f64>,
    userid: u32,
    application_name: String,
    client_addr: Option<String>,
    pid: i32,
    queryid: Option<i64>,
    planid: Option<i64>,
    toplevel: bool,
    command: &'static str,
    query: Option<String>,
    parameters: Option<String>,
    rows: Option<u64>,
    #[serde(flatten)]
    usage: Option<Usage>,
    request_id: Option<String>,
    trace_id: Option<String>,
    span_id: Option<String>,
    tags: Option<Value>,
    /// Samples by what the statement waited for.
    waits: Option<Value>,
}

/// Buffers, I/O times and WAL, under pg_stat_statements' names.
#[derive(Serialize)]
struct Usage {
    shared_blks_hit: u64,
    shared_blks_read: u64,
    shared_blks_dirtied: u64,
    shared_blks_written: u64,
    local_blks_hit: u64,
    local_blks_read: u64,
    temp_blks_read: u64,
    temp_blks_written: u64,
    shared_blk_read_time: f64,
    shared_blk_write_time: f64,
    temp_blk_read_time: f64,
    temp_blk_write_time: f64,
    wal_records: u64,
    wal_fpi: u64,
    wal_bytes: u64,
}

impl From<Resources> for Usage {
    fn from(r: Resources) -> Self {
        let ms = |ns: u64| ns as f64 / 1e6;
        Usage {
            shared_blks_hit: r.shared_blks_hit,
            shared_blks_read: r.shared_blks_read,
            shared_blks_dirtied: r.shared_blks_dirtied,
            shared_blks_written: r.shared_blks_written,
            local_blks_hit: r.local_blks_hit,
            local_blks_read: r.local_blks_read,
            temp_blks_read: r.temp_blks_read,
            temp_blks_written: r.temp_blks_written,
            shared_blk_read_time: ms(r.shared_blk_read_ns),
            shared_blk_write_time: ms(r.shared_blk_write_ns),
            temp_blk_read_time: ms(r.temp_blk_read_ns),
            temp_blk_write_time: ms(r.temp_blk_write_ns),
            wal_records: r.wal_records,
            wal_fpi: r.wal_fpi,
            wal_bytes: r.wal_bytes,
        }
    }
}

/// What every kind of execution has.
pub struct Basics<'a> {
    pub key: Key,
    pub reason: Reason,
    pub outcome: &'static str,
    pub command: &'static str,
    pub elapsed_ns: u64,
    pub raw: &'a [u8],
    /// The text that may hold an sqlcommenter comment.
    pub commented: &'a [u8],
    /// An error is being reported: no catalogs.
    pub in_error: bool,
}

impl Execution {
    /// `None` when the limit of the statement is used up, which is counted.
    pub fn new(basics: &Basics<'_>) -> Option<Self> {
        let limit = settings::SLOW_LIMIT_PER_MINUTE.get().max(0) as u32;
        let limit = if basics.reason == Reason::Armed { 0 } else { limit };
        let (allowed, text) = store::admit_event(&basics.key, limit);
        if !allowed {
            control::add(Counter::EventsSuppressed, 1);
            return None;
        }
        let trace = Trace::present(basics);
        let address = session::client_addr();
        Some(Execution {
            captured_us: clock::now_us(),
            reason: basics.reason,
            outcome: basics.outcome,
            sqlstate: None,
            message: None,
            duration_ms: basics.elapsed_ns as f64 / 1e6,
            plan_ms: None,
            userid: basics.key.userid,
            application_name: application_name(),
            client_addr: (!address.is_empty()).then_some(address),
            pid: session::pid(),
            queryid: (basics.key.queryid != 0).then_some(basics.key.queryid as i64),
            planid: None,
            toplevel: basics.key.toplevel != 0,
            command: basics.command,
            query: Some(text_of(basics, text)),
            parameters: None,
            rows: None,
            usage: None,
            request_id: trace.request_id,
            trace_id: trace.trace_id,
            span_id: trace.span_id,
            tags: trace.tags,
            waits: waits::of_this_statement(),
        })
    }

    pub fn with_usage(mut self, words: &usage::Words) -> Self {
        self.usage = Some(usage::resources(words).into());
        self
    }

    pub fn with_rows(mut self, rows: u64) -> Self {
        self.rows = Some(rows);
        self
    }

    pub fn with_plan(mut self, plan_id: i64, plan_ns: u64) -> Self {
        self.planid = Some(plan_id);
        self.plan_ms = (plan_ns > 0).then_some(plan_ns as f64 / 1e6);
        self
    }

    pub fn with_error(mut self, sqlstate: String, message: Option<String>) -> Self {
        self.sqlstate = Some(sqlstate);
        self.message = message;
        self
    }

    pub fn send(&self) {
        events::push(events::Kind::Execution, self);
    }
}

/// The shared entry's text; else what this backend parsed; else the source with every literal hidden.
fn text_of(basics: &Basics<'_>, shared: Option<Vec<u8>>) -> String {
    let id = basics.key.queryid;
    let bytes = shared.or_else(|| match basics.in_error {
        true => texts::normalised_in_error(id),
        false => texts::normalised(id),
    });
    let bytes = bytes.unwrap_or_else(|| match basics.in_error {
        true => texts::hidden_in_error(basics.raw),
        false => texts::hidden(basics.raw),
    });
    String::from_utf8_lossy(&bytes).into_owned()
}

pub fn application_name() -> String {
    session::application_name()
}

/// Whom a statement works for.
struct Trace {
    request_id: Option<String>,
    trace_id: Option<String>,
    span_id: Option<String>,
    tags: Option<Value>,
}

impl Trace {
    /// From the settings, else from a comment of the statement, else from application_name.
    fn present(basics: &Basics<'_>) -> Self {
        let tags = parse_sqlcommenter(basics.commented).unwrap_or_default();
        let setting = String::from_utf8_lossy(guc::text(&settings::TRACEPARENT)).into_owned();
        let name = session::application_name();
        let parent = parse_traceparent(setting.trim())
            .or_else(|| tags.traceparent.clone())
            .or_else(|| name.split([' ', '/', ';', ',']).find_map(parse_traceparent));
        let request = guc::text(&settings::REQUEST_ID);
        let request = &request[..request.len().min(MAX_REQUEST_BYTES)];
        let request = match basics.in_error {
            true => text::to_utf8_in_error(request),
            false => text::to_utf8(request),
        };
        let request = Some(request).filter(|id| !id.is_empty()).or_else(|| tagged_request(&tags));
        Trace {
            request_id: request,
            trace_id: parent.as_ref().map(|parent| parent.trace_id.clone()),
            span_id: parent.map(|parent| parent.span_id),
            tags: tags_json(tags),
        }
    }
}

fn tagged_request(tags: &Tags) -> Option<String> {
    tags.pairs.iter().find(|(key, _)| key == "request_id").map(|(_, value)| value.clone())
}

fn tags_json(tags: Tags) -> Option<Value> {
    let pairs: serde_json::Map<String, Value> =
        tags.pairs.into_iter().map(|(key, value)| (key, Value::String(value))).collect();
    (!pairs.is_empty()).then_some(Value::Object(pairs))
}

/// Records a completed execution, with its plan when that is due.
#[inline(never)]
pub fn record(slot: &open::Slot, query: Query, key: Key, reason: Reason) {
    let begun_ns = clock::monotonic_ns();
    shield::quietly(|| {
        let basics = Basics {
            key,
            reason,
            outcome: "ok",
            command: query.command(),
            elapsed_ns: slot.elapsed_ns.get(),
            raw: query.text(),
            commented: query.text_with_comments(),
            in_error: false,
        };
        let plan_id = query.plan_id();
        record_plan(query, &key, plan_id, reason);
        let Some(mut event) = Execution::new(&basics) else { return };
        event = event.with_rows(slot.earlier_rows.get() + query.rows()).with_plan(plan_id, slot.plan_ns.get());
        if let Some(words) = slot.usage() {
            event = event.with_usage(words);
        }
        if settings::CAPTURE_PARAMETERS.get() {
            event.parameters = parameters(query);
        }
        event.send();
    });
    account(begun_ns);
}

/// Records a completed utility statement.
#[inline(never)]
pub fn record_utility(basics: &Basics<'_>, rows: u64, words: Option<&usage::Words>) {
    let begun_ns = clock::monotonic_ns();
    shield::quietly(|| {
        let Some(mut event) = Execution::new(basics) else { return };
        event = event.with_rows(rows);
        if let Some(words) = words {
            event = event.with_usage(words);
        }
        event.send();
    });
    account(begun_ns);
}

/// Looks at the plan of a fast execution, and records it when it is new. `true`: it is recorded.
#[inline(never)]
pub fn check_plan(query: Query, key: Key, plan_id: i64) -> bool {
    let begun_ns = clock::monotonic_ns();
    let settled = shield::quietly(|| {
        if !records_plans() {
            return false;
        }
        match store::see_plan(&key, plan_id, false) {
            PlanVerdict::Known => true,
            PlanVerdict::Later => false,
            PlanVerdict::Record { with_text } => {
                send_plan(query, &key, plan_id, with_text);
                true
            }
        }
    });
    account(begun_ns);
    settled.unwrap_or(false)
}

fn records_plans() -> bool {
    control::takes_plans() && settings::CAPTURE_PLANS.get()
}

fn record_plan(query: Query, key: &Key, plan_id: i64, reason: Reason) {
    if reason == Reason::Armed {
        return send_plan(query, key, plan_id, true);
    }
    if records_plans()
        && let PlanVerdict::Record { with_text } = store::see_plan(key, plan_id, true)
    {
        send_plan(query, key, plan_id, with_text);
    }
}

/// A plan as it goes through the ring.
#[derive(Serialize)]
struct PlanEvent {
    captured_us: i64,
    queryid: i64,
    planid: i64,
    /// Does it hold actual rows and times?
    actual: bool,
    /// Left out when it is stored already, or too long.
    plan: Option<Value>,
    /// The statement's histogram when it was seen with this plan.
    histogram: Vec<u64>,
}

fn send_plan(query: Query, key: &Key, plan_id: i64, with_text: bool) {
    let event = PlanEvent {
        captured_us: clock::now_us(),
        queryid: key.queryid as i64,
        planid: plan_id,
        actual: query.is_instrumented(),
        plan: if with_text { plan_text(query) } else { None },
        histogram: store::histogram(key.queryid, key.dbid).to_vec(),
    };
    events::push(events::Kind::Plan, &event);
}

/// The plan with its literals replaced.
fn plan_text(query: Query) -> Option<Value> {
    let printed = query.explain_json()?;
    if printed.len() > settings::MAX_PLAN_LENGTH.get() as usize * 1024 {
        control::add(Counter::EventsTooLarge, 1);
        return None;
    }
    let mut plan = serde_json::from_str::<Value>(&text::to_utf8(&printed)).ok()?;
    steward_core::capture::plan::redact(&mut plan);
    Some(plan)
}

fn parameters(query: Query) -> Option<String> {
    let length = settings::MAX_PARAMETER_LENGTH.get();
    params::text(query, length).map(|printed| text::to_utf8(&printed)).filter(|p| !p.is_empty())
}

/// Adds the time since `begun_ns` to capture's own cost.
pub fn account(begun_ns: u64) {
    control::add(Counter::InternalErrors, shield::take_failures());
    control::add(Counter::OwnNs, clock::monotonic_ns() - begun_ns);
}
