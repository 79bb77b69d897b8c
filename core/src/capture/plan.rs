//! Plans: hiding the data in an EXPLAIN (FORMAT JSON) document, and the hash that identifies a plan's shape.

use serde_json::Value;

use super::normalize::{Placeholder, normalize};

/// Keys whose values are names of objects or words of EXPLAIN's own, kept as they are. Everything else is read as SQL
/// and its literals are replaced.
const KEPT: &[&str] = &[
    "Alias",
    "Async Capable",
    "Cache Mode",
    "Command",
    "Conflict Arbiter Indexes",
    "Conflict Resolution",
    "Constraint Name",
    "CTE Name",
    "Custom Plan Provider",
    "Format",
    "Function Name",
    "Index Name",
    "Join Type",
    "Node Type",
    "Operation",
    "Parent Relationship",
    "Partial Mode",
    "Relation",
    "Relation Name",
    "Scan Direction",
    "Schema",
    "Sort Method",
    "Sort Space Type",
    "Storage",
    "Strategy",
    "Subplan Name",
    "Trigger Name",
    "Tuplestore Name",
];

/// Keys whose values are data and no SQL: replaced as a whole, with all that is below them.
const HIDDEN: &[&str] = &["Settings", "Foreign File", "Foreign Program", "Query Parameters"];

/// Hides the literals in every string of a plan, in place. Numbers outside of strings (costs, rows, times) stay.
pub fn redact(plan: &mut Value) {
    match plan {
        Value::String(text) => redact_text(text),
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Object(fields) => fields.iter_mut().for_each(|(key, value)| redact_field(key, value)),
        _ => {}
    }
}

fn redact_field(key: &str, value: &mut Value) {
    if HIDDEN.contains(&key) {
        hide(value);
    } else if !(KEPT.contains(&key) && holds_only_names(value)) {
        redact(value);
    }
}

/// A name, or a list of names. Anything deeper is not what the key stands for.
fn holds_only_names(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().all(Value::is_string),
        other => !other.is_object(),
    }
}

fn redact_text(text: &mut String) {
    let normalized = normalize(text.as_bytes(), Placeholder::Question);
    *text = String::from_utf8_lossy(&normalized).into_owned();
}

fn hide(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.iter_mut().for_each(|(_, value)| hide(value)),
        other => *other = Value::String("?".to_owned()),
    }
}

/// Hash of what makes two plans the same, fed word by word in the order of a walk over the plan tree.
///
/// Plan ids are stored in tables and compared across restarts and releases, so the results for given words must never
/// change: the test vectors below are part of the format. Each word goes through the finalizer of SplitMix64 (Steele,
/// Lea and Flood 2014), which is a bijection, so two sequences that differ in one word cannot meet by it.
#[derive(Clone, Copy, Debug)]
pub struct PlanHasher {
    state: u64,
}

impl PlanHasher {
    /// The hash of no words.
    pub const fn new() -> Self {
        PlanHasher { state: 0x7067_7374_6577_6172 }
    }

    /// Adds a word of 32 bits; the same as adding it as one of 64.
    #[inline]
    pub const fn push_u32(&mut self, word: u32) {
        self.push_u64(word as u64);
    }

    /// Adds a word.
    #[inline]
    pub const fn push_u64(&mut self, word: u64) {
        let z = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ word;
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.state = z ^ (z >> 31);
    }

    /// The plan id. Never 0, which stands for "not known" as with Postgres's query ids.
    pub const fn finish(&self) -> i64 {
        if self.state == 0 { 1 } else { self.state as i64 }
    }
}

impl Default for PlanHasher {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hash_of(words: &[u64]) -> i64 {
        let mut hasher = PlanHasher::new();
        words.iter().for_each(|&word| hasher.push_u64(word));
        hasher.finish()
    }

    #[test]
    fn names_stay_and_data_goes() {
        let mut plan = json!([{
            "Query Text": "SELECT * FROM t1 WHERE a = 'secret'",
            "Plan": {
                "Node Type": "Index Scan", "Relation Name": "t1", "Schema": "s 2024", "Alias": "t1", "Index Name": "i 7",
                "Parent Relationship": "Outer", "Total Cost": 12.5, "Plan Rows": 7, "Async Capable": false,
                "Output": ["a", "'secret'::text", "42"],
                "Index Cond": "(t1.a = 'secret'::text)",
                "Sort Key": ["(a + 77)"],
                "Plans": [{"Node Type": "Result", "One-Time Filter": "(4711 = $1)"}]
            },
            "Settings": {"search_path": "secret"},
            "Triggers": [{"Trigger Name": "t 1", "Relation": "r 1", "Calls": 3}]
        }]);
        redact(&mut plan);
        assert_eq!(
            plan,
            json!([{
                "Query Text": "SELECT * FROM t1 WHERE a = ?",
                "Plan": {
                    "Node Type": "Index Scan", "Relation Name": "t1", "Schema": "s 2024", "Alias": "t1", "Index Name": "i 7",
                    "Parent Relationship": "Outer", "Total Cost": 12.5, "Plan Rows": 7, "Async Capable": false,
                    "Output": ["a", "?::text", "?"],
                    "Index Cond": "(t1.a = ?::text)",
                    "Sort Key": ["(a + ?)"],
                    "Plans": [{"Node Type": "Result", "One-Time Filter": "(? = $1)"}]
                },
                "Settings": {"search_path": "?"},
                "Triggers": [{"Trigger Name": "t 1", "Relation": "r 1", "Calls": 3}]
            }])
        );
    }

    #[test]
    fn unknown_keys_are_redacted_and_kept_keys_vouch_for_names_only() {
        let mut plan =
            json!({"New In 99": "x = 'secret'", "Alias": {"Filter": "x = 'secret'"}, "Foreign File": "/a/b"});
        redact(&mut plan);
        assert_eq!(plan, json!({"New In 99": "x = ?", "Alias": {"Filter": "x = ?"}, "Foreign File": "?"}));
    }

    #[test]
    fn plan_hash_vectors_never_change() {
        assert_eq!(hash_of(&[]), 0x7067_7374_6577_6172);
        assert_eq!(hash_of(&[0]), -1896944233538985051);
        assert_eq!(hash_of(&[1, 2, 3]), -4585294103642007618);
        assert_eq!(hash_of(&[u64::MAX]), 2654868864259966456);
    }

    #[test]
    fn plan_hash_depends_on_order_and_number_of_words() {
        let hashes = [hash_of(&[1, 2]), hash_of(&[2, 1]), hash_of(&[1]), hash_of(&[1, 2, 0]), hash_of(&[])];
        for (i, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..i].contains(hash));
        }
        let mut narrow = PlanHasher::new();
        narrow.push_u32(9);
        assert_eq!(narrow.finish(), hash_of(&[9]));
    }

    #[test]
    fn plan_hash_is_never_zero() {
        assert_eq!(PlanHasher { state: 0 }.finish(), 1);
    }
}
