//! The SQL functions of the index advisor.

use super::suggest::{self, Asked, Suggestion};
use super::{size, workload};
use crate::error::{self, raise};
use crate::pg::bind;
use crate::pg::function::{Call, guarded, plain_function};
use crate::pg::hypothetical::{self, Definition, Hypothetical};
use crate::pg::srf::{self, Value};
use crate::pg::text;
use crate::pg::whatif::{self, Draft, Planned, Subject, Used};
use crate::pg::{relations, statistics};
use pgrx::pg_sys;
use steward_core::error::AdvisorError;

/// Arguments of `what_if`.
const QUERY: usize = 0;
const ADD: usize = 1;
const DROP: usize = 2;
const PARAMS: usize = 3;
/// Indexes that can be added at once.
const MAX_ADDED: usize = 256;

plain_function!(steward_what_if_1, pg_finfo_steward_what_if_1, what_if);
plain_function!(steward_suggested_1, pg_finfo_steward_suggested_1, suggested);

/// Arguments of `suggested`.
const QUERIES: usize = 0;
const SINCE: usize = 1;
const STORAGE: usize = 2;
const PER_TABLE: usize = 3;
const DAY_MS: i64 = 86_400_000;

/// Everything is done within a guard: what fails of a statement only leaves that one out.
fn suggested(call: Call) -> pg_sys::Datum {
    guarded(move || {
        require_preload();
        let sources = match call.is_null(QUERIES) {
            true => workload::captured(call.interval_ms(SINCE).unwrap_or(DAY_MS)),
            false => workload::given(call.texts(QUERIES)),
        };
        let outcome = suggest::suggest(sources, &asked(call));
        suggest::report(&outcome);
        srf::fill(call, outcome.suggestions.into_iter().map(suggestion_row).collect());
    });
    call.no_value()
}

fn asked(call: Call) -> Asked {
    let storage_bytes = call.bigint(STORAGE).map(|bytes| {
        u64::try_from(bytes).unwrap_or_else(|_| raise(AdvisorError::NegativeLimit("storage_budget", bytes)))
    });
    let indexes_per_table = call.int(PER_TABLE).map(|count| {
        u32::try_from(count)
            .unwrap_or_else(|_| raise(AdvisorError::NegativeLimit("max_indexes_per_table", count.into())))
    });
    Asked { storage_bytes, indexes_per_table }
}

fn suggestion_row(suggestion: Suggestion) -> Vec<Value> {
    let reason = suggestion.reason();
    let confidence = suggestion.confidence();
    let candidate = suggestion.candidate;
    vec![
        Value::Oid(candidate.relation),
        Value::Text(candidate.ddl()),
        Value::Text(candidate.method.name().into()),
        Value::Texts(candidate.columns.iter().map(|column| column.sql()).collect()),
        Value::Bigint(suggestion.size_bytes as i64),
        Value::Double(suggestion.cost_before),
        Value::Double(suggestion.cost_after),
        Value::Double(100.0 * suggestion.saved / suggestion.cost_before.max(f64::MIN_POSITIVE)),
        Value::Texts(suggestion.queries.iter().map(|query| query.query_id.to_string()).collect()),
        Value::Double(suggestion.write_cost),
        Value::Json(reason.to_string()),
        Value::Text(confidence.into()),
    ]
}

fn require_preload() {
    if !whatif::is_installed() {
        raise(error::not_preloaded());
    }
}

/// A plain frame: the texts are the caller's, and so are their errors.
fn what_if(call: Call) -> pg_sys::Datum {
    guarded(require_preload);
    let (mut added, mut count) = ([Hypothetical::NONE; MAX_ADDED], 0);
    let texts = call.text_array(ADD);
    if texts.len() > MAX_ADDED {
        guarded(|| raise(error::limit_exceeded(format!("cannot add more than {MAX_ADDED} indexes at once"), "")));
    }
    while count < texts.len() {
        added[count] = definition(texts.get(count));
        count += 1;
    }
    let added = &added[..count];
    let subject = subject(call.text(QUERY));
    let (before, after) = plan_twice(call, subject, added);
    guarded(move || srf::fill(call, vec![row(&before, &after, added)]));
    call.no_value()
}

/// The index that a text defines, with its size.
fn definition(text: Option<&[u8]>) -> Hypothetical {
    let Some(text) = text else { guarded(|| raise(AdvisorError::NullArgument("add"))) };
    let definition = hypothetical::define(text);
    guarded(move || {
        let index = indexed(definition).unwrap_or_else(|refused| raise(refused));
        size::estimate(index, statistics::family_size(index.relation()));
        index
    })
}

fn indexed(definition: Definition) -> Result<Hypothetical, AdvisorError> {
    Err(match definition {
        Definition::Index(index) => return Ok(index),
        Definition::Empty => AdvisorError::EmptyDefinition,
        Definition::Several(count) => AdvisorError::SeveralDefinitions(count),
        Definition::NotIndex(tag) => AdvisorError::NotIndex { found: text::literal(tag) },
        Definition::Method(name) => AdvisorError::Method(text::literal(name)),
        Definition::Relation(name) => AdvisorError::NotTable(text::literal(name)),
        Definition::Column(name) => AdvisorError::NoColumn(text::literal(name)),
        Definition::Unsupported(what) => AdvisorError::Unsupported(what),
        Definition::Mutable => AdvisorError::Mutable,
    })
}

/// The statement of a text, which the caller may run.
fn subject(text: Option<&[u8]>) -> Subject {
    let Some(text) = text else { guarded(|| raise(AdvisorError::NullArgument("query"))) };
    let draft = whatif::draft(text);
    let subject = guarded(move || {
        raise(match draft {
            Draft::Subject(subject) => return subject,
            Draft::Empty => AdvisorError::EmptyQuery,
            Draft::Several(count) => AdvisorError::SeveralQueries(count),
            Draft::NotPlanned(tag) => AdvisorError::NotPlanned { found: text::literal(tag) },
        })
    });
    subject.check_rights();
    subject
}

fn plan_twice(call: Call, subject: Subject, added: &[Hypothetical]) -> (Planned, Planned) {
    let parameters = call.json(PARAMS).map(|json| match bind::bind(subject.types(), json) {
        Ok(parameters) => parameters,
        Err(refusal) => guarded(move || raise(refusal.error())),
    });
    let Some(hidden) = call.oid_array(DROP) else { guarded(|| raise(AdvisorError::NullArgument("drop"))) };
    guarded(move || refuse_others(hidden));
    (subject.plan(parameters, &[], &[]), subject.plan(parameters, added, hidden))
}

/// Only indexes can be hidden.
fn refuse_others(hidden: &[u32]) {
    if let Some(other) = hidden.iter().find(|relation| !relations::is_index(**relation)) {
        raise(AdvisorError::NotAnIndex(relations::qualified_name(*other)));
    }
}

fn row(before: &Planned, after: &Planned, added: &[Hypothetical]) -> Vec<Value> {
    let names = after.used().map(|used| match used {
        Used::Real(index) => relations::qualified_name(index),
        Used::Added(place) => added.get(place).map_or(String::new(), |index| text::to_utf8(index.text())),
    });
    vec![Value::Double(before.cost), Value::Double(after.cost), Value::Texts(names.collect())]
}
