//! Why a query is cached, or why not, and everything that its key is made of.

use super::key::{self, Asked, PARAMS, QUERY};
use super::{fill, proof, serve, statements, store};
use crate::pg::session_state;
use crate::pg::srf::Value;
use crate::pg::{clock, function::Call, session};
use serde_json::{Value as Json, json};
use steward_core::cache::class::{Class, SensitiveRule};
use steward_core::cache::reason::Reason;

/// The one row of `cache_explain`: cacheable, reason, detail, class, ttl, dependencies, key inputs, state.
pub fn explain(call: Call) -> Vec<Value> {
    let handle = fill::statement_of(call.text(QUERY).unwrap_or(&[]));
    let circumstance = proof::circumstance();
    let state = state(call, handle);
    let found = statements::with(handle, |s| {
        let refusal = s.refusal.or(class_refusal(&s.class, s.is_sensitive)).or(circumstance);
        (refusal, s.class.clone(), s.relations.clone(), inputs(s))
    });
    let Some((refusal, class, relations, inputs)) = found else { return Vec::new() };
    vec![
        Value::Bool(refusal.is_none()),
        refusal.map_or(Value::Null, |reason| Value::Text(reason.code().into())),
        refusal.map_or(Value::Null, |reason| Value::Text(reason.explain().into())),
        Value::Text(class.name),
        Value::Interval(class.ttl_ms as i64),
        Value::Relations(relations),
        Value::Json(Json::Array(inputs).to_string()),
        Value::Text(state),
    ]
}

fn class_refusal(class: &Class, is_sensitive: bool) -> Option<Reason> {
    if is_sensitive && class.sensitive == SensitiveRule::Deny {
        Some(Reason::SensitiveDenied)
    } else if !class.tiers.l1 && !class.tiers.l2 {
        Some(Reason::ClassDenied)
    } else {
        None
    }
}

fn input(name: &str, value: impl Into<Json>, source: &str) -> Json {
    json!({ "input": name, "value": value.into(), "source": source })
}

/// Each part of the key, its value now, and where it comes from.
fn inputs(statement: &statements::Statement) -> Vec<Json> {
    let inputs = &statement.inputs;
    let mut all = vec![
        input("database", session::database_id(), "always"),
        input("query tree", hex(&statement.tree), "query, views and policies"),
        input("search_path", session_state::schemas_of_path(), "always"),
    ];
    let opaque = format!("function {}", inputs.opaque.join(", "));
    let why = if inputs.opaque.is_empty() { "query, view or policy" } else { &opaque };
    if inputs.role {
        all.push(input("current_user", session_state::role_name(session::user_id()), why));
    }
    if inputs.session_user {
        all.push(input("session_user", session_state::role_name(session_state::session_user_id()), why));
    }
    for name in &inputs.settings {
        let value = (!session_state::is_restricted(name))
            .then(|| session_state::setting_bytes(name).map(crate::pg::text::to_utf8))
            .flatten();
        all.push(input(&name.to_string_lossy(), value, "query, view or policy"));
    }
    if inputs.custom_settings {
        all.push(input("all custom settings", Json::Null, &opaque));
    }
    for (name, value) in session_state::settings() {
        all.push(input(&name, value, "setting that changes results"));
    }
    all
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a call would meet now: `local`, `shared`, or why neither.
fn state(call: Call, handle: statements::Handle) -> String {
    if let Err(reason) = key::make(handle, Asked { params: call.json(PARAMS), ..Asked::default() }) {
        return reason.code().into();
    }
    super::prepared::settle(false);
    let Some(snapshot) = super::commits::snapshot() else { return Reason::SnapshotUnsafe.code().into() };
    let canonical = key::copy();
    let now_ns = clock::monotonic_ns();
    let local = super::local::with(&canonical, |result| serve::may_serve(result, &snapshot, None, now_ns));
    if let Some(Ok(())) = local {
        return "local".into();
    }
    let mut bytes = Vec::new();
    let shared = store::get(&key::shared(&canonical), &mut bytes);
    let ttl_ms = statements::with(handle, |statement| statement.class.ttl_ms).unwrap_or(0);
    let checked = shared.and_then(|(entry, _)| {
        let view = steward_core::cache::payload::decode(&bytes).ok()?;
        let is_old = (now_ns / 1000).saturating_sub(entry.created_us) > ttl_ms.saturating_mul(1000);
        Some(serve::check(view.deps(), &snapshot).and(if is_old { Err(Reason::Expired) } else { Ok(()) }))
    });
    match checked.or(local) {
        Some(Ok(())) => "shared".into(),
        Some(Err(reason)) => reason.code().into(),
        None => Reason::Absent.code().into(),
    }
}
