//! No literal survives in a redacted plan, whatever the key; and the plan hash has no collisions to speak of.
use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::{Value, json};
use steward_core::capture::plan::{PlanHasher, redact};

/// Keys of expressions, of data, and of no known kind.
const EXPRESSIONS: &[&str] = &[
    "Output",
    "Filter",
    "Index Cond",
    "Recheck Cond",
    "Hash Cond",
    "Join Filter",
    "Sort Key",
    "Group Key",
    "Query Text",
    "One-Time Filter",
    "Function Call",
    "Table Function Call",
    "Remote SQL",
    "Cache Key",
    "Conflict Filter",
    "TID Cond",
    "Run Condition",
    "Order By",
    "Presorted Key",
    "Repeatable Seed",
    "Sampling Parameters",
    "Key Of Tomorrow",
    "Settings",
    "Query Parameters",
];

/// Words that only secrets are made of.
fn literal() -> impl Strategy<Value = String> + Clone {
    let template =
        prop::sample::select(vec!["'S'::text", "'{S,S}'::text[]", "N", "'N'::bigint", "-N", "N.N", "E'S\\'S'"]);
    (template, "[qzxjvw]{3,8}", "[6-9]{3,8}")
        .prop_map(|(template, word, number)| template.replace('N', &number).replace('S', &word))
}

fn expression() -> impl Strategy<Value = Value> {
    let one = (literal(), literal()).prop_map(|(a, b)| Value::String(format!("((t1.a = {a}) AND (b <> {b}))")));
    prop_oneof![one.clone(), prop::collection::vec(one, 0..3).prop_map(Value::Array)]
}

fn plan() -> impl Strategy<Value = Value> {
    let node = prop::collection::vec((prop::sample::select(EXPRESSIONS), expression()), 0..4).prop_map(|fields| {
        let mut node = json!({"Node Type": "Seq Scan", "Relation Name": "t1", "Total Cost": 1.5});
        fields.into_iter().for_each(|(key, value)| node[key] = value);
        node
    });
    node.prop_recursive(4, 24, 3, |inner| {
        (
            inner.clone(),
            prop::sample::select(vec!["Plans", "Workers", "Alias", "Settings", "Other"]),
            prop::collection::vec(inner, 0..3),
        )
            .prop_map(|(mut node, key, below)| {
                node[key] = Value::Array(below);
                node
            })
    })
}

fn leaks(text: &str) -> bool {
    let run_of =
        |alphabet: &str| text.as_bytes().windows(3).any(|run| run.iter().all(|b| alphabet.as_bytes().contains(b)));
    run_of("qzxjvw") || run_of("6789")
}

fn count_of_numbers(value: &Value) -> usize {
    match value {
        Value::Number(_) => 1,
        Value::Array(items) => items.iter().map(count_of_numbers).sum(),
        Value::Object(fields) => fields.values().map(count_of_numbers).sum(),
        _ => 0,
    }
}

proptest! {
    #[test]
    fn no_literal_survives(plan in plan()) {
        let mut redacted = json!([{"Plan": plan}]);
        redact(&mut redacted);
        prop_assert!(!leaks(&redacted.to_string()), "{redacted:#}");
        prop_assert_eq!(&redacted[0]["Plan"]["Relation Name"], "t1");
        let once = redacted.clone();
        redact(&mut redacted);
        prop_assert_eq!(redacted, once);
    }

    #[test]
    fn numbers_outside_of_strings_stay(plan in plan()) {
        let hidden = |plan: &Value| plan.to_string().contains("\"Settings\"");
        let mut redacted = plan.clone();
        redact(&mut redacted);
        prop_assert!(hidden(&plan) || count_of_numbers(&redacted) == count_of_numbers(&plan));
    }
}

#[test]
fn plan_hash_tells_a_million_short_sequences_apart() {
    let mut seen = HashSet::new();
    for first in 0..100u64 {
        for second in 0..100 {
            for third in 0..100 {
                let mut hasher = PlanHasher::new();
                [first, second, third].into_iter().for_each(|word| hasher.push_u64(word));
                assert!(seen.insert(hasher.finish()));
            }
        }
    }
}
