//! Which indexes a demand leads to.

use steward_core::advisor::candidate::{Method, candidates};
use steward_core::advisor::demand::{Demand, Key, OrderKey, Term, TermKind};

fn key(sql: &str, attribute: i16, n_distinct: f64) -> Key {
    Key {
        sql: sql.into(),
        attribute,
        width_bytes: 8.0,
        max_width_bytes: 8.0,
        n_distinct,
        correlation: 0.0,
        is_ordered: true,
    }
}

fn term(key: Key, kind: TermKind, selectivity: f64) -> Term {
    Term { key, kind, selectivity, predicate: None }
}

fn demand() -> Demand {
    Demand { relation: 1, table: "public.t".into(), rows: 100_000.0, pages: 1_000.0, ..Demand::default() }
}

fn ddls(demand: &Demand) -> Vec<String> {
    candidates(demand).iter().map(|candidate| candidate.ddl().replace("CREATE INDEX ON public.t USING ", "")).collect()
}

#[test]
fn equality_comes_before_a_range_and_many_values_before_few() {
    let terms = vec![
        term(key("few", 1, 3.0), TermKind::Equal, 0.3),
        term(key("at", 2, 5_000.0), TermKind::Range, 0.01),
        term(key("many", 3, 9_000.0), TermKind::Equal, 0.0001),
    ];
    let found = ddls(&Demand { terms, ..demand() });
    assert!(found.contains(&"btree (many, few, at)".to_owned()), "{found:?}");
    assert!(!found.iter().any(|ddl| ddl.starts_with("btree (at, ")), "nothing follows a range: {found:?}");
    assert!(!found.iter().any(|ddl| ddl.starts_with("btree (few, many")), "{found:?}");
}

#[test]
fn an_order_keeps_its_direction() {
    let order = vec![OrderKey { key: key("at", 2, 10.0), descends: true, nulls_first: false }];
    let terms = vec![term(key("many", 3, 9_000.0), TermKind::Equal, 0.0001)];
    let found = ddls(&Demand { terms, orders: vec![order], has_limit: true, ..demand() });
    assert!(found.contains(&"btree (many, at DESC NULLS LAST)".to_owned()), "{found:?}");
    assert!(found.contains(&"btree (at DESC NULLS LAST)".to_owned()), "{found:?}");
}

#[test]
fn columns_are_included_where_pages_are_all_visible() {
    let terms = vec![term(key("many", 3, 9_000.0), TermKind::Equal, 0.0001)];
    let needed = vec![key("many", 3, 0.0), key("total", 4, 0.0)];
    let seen = Demand { terms, needed, all_visible: 0.9, ..demand() };
    assert_eq!(ddls(&seen), ["btree (many)", "btree (many) INCLUDE (total)"]);
    assert_eq!(ddls(&Demand { all_visible: 0.1, ..seen.clone() }), ["btree (many)"]);
    assert_eq!(ddls(&Demand { is_changed: true, ..seen }), ["btree (many)"], "a table that the query changes");
}

#[test]
fn predicates_are_made_of_what_is_asked_again() {
    let with = |n_distinct, selectivity, kind| {
        let open = Term {
            predicate: Some("(status = 'open')".into()),
            ..term(key("status", 1, n_distinct), kind, selectivity)
        };
        let terms = vec![open, term(key("many", 3, 9_000.0), TermKind::Equal, 0.0001)];
        ddls(&Demand { terms, ..demand() }).into_iter().filter(|ddl| ddl.contains("WHERE")).collect::<Vec<_>>()
    };
    assert_eq!(with(3.0, 0.01, TermKind::Equal), ["btree (many) WHERE (status = 'open')"]);
    assert_eq!(with(3.0, 0.6, TermKind::Equal), [""; 0], "most rows are in it");
    assert_eq!(with(5_000.0, 0.01, TermKind::Equal), [""; 0], "one of many values");
    assert_eq!(with(0.0, 0.01, TermKind::Null), ["btree (many) WHERE (status = 'open')"]);
}

#[test]
fn no_index_for_a_small_table_or_a_key_too_wide() {
    let terms = vec![term(key("many", 3, 9_000.0), TermKind::Equal, 0.0001)];
    assert_eq!(ddls(&Demand { terms: terms.clone(), pages: 5.0, ..demand() }), [""; 0]);
    let wide = Key { width_bytes: 100.0, max_width_bytes: f64::INFINITY, ..key("text", 1, 10.0) };
    let found = ddls(&Demand { terms: vec![term(wide, TermKind::Equal, 0.1)], ..demand() });
    assert_eq!(found, ["hash (text)"], "its hash is not");
}

#[test]
fn what_no_btree_serves() {
    let opclasses = vec!["jsonb_path_ops".to_owned(), String::new()];
    let document = Key { is_ordered: false, ..key("doc", 5, 0.0) };
    let contains = term(document, TermKind::Contains { opclasses }, 0.01);
    assert_eq!(ddls(&Demand { terms: vec![contains], ..demand() }), ["gin (doc jsonb_path_ops)", "gin (doc)"]);
    let prefix = TermKind::Prefix { opclass: "text_pattern_ops".into() };
    let found = ddls(&Demand { terms: vec![term(key("note", 6, 100.0), prefix, 0.01)], ..demand() });
    assert_eq!(found, ["btree (note text_pattern_ops)"]);
}

#[test]
fn ranges_of_blocks_where_values_lie_in_order() {
    let range = |correlation, pages| {
        let at = Key { correlation, ..key("at", 2, 10_000.0) };
        let terms = vec![term(at, TermKind::Range, 0.01)];
        candidates(&Demand { terms, pages, ..demand() }).iter().any(|candidate| candidate.method == Method::Brin)
    };
    assert!(range(0.99, 100_000.0));
    assert!(range(-0.99, 100_000.0));
    assert!(!range(0.5, 100_000.0));
    assert!(!range(0.99, 1_000.0), "a small table");
}

#[test]
fn each_candidate_once() {
    let terms = vec![
        term(key("a", 1, 10.0), TermKind::Equal, 0.1),
        term(key("a", 1, 10.0), TermKind::Equal, 0.1),
        term(key("b", 2, 10.0), TermKind::Range, 0.1),
    ];
    let mut found = ddls(&Demand { terms, joins: vec![key("a", 1, 10.0)], ..demand() });
    let before = found.len();
    found.sort();
    found.dedup();
    assert_eq!(found.len(), before);
}
