//! From what queries want to indexes that might serve them.
//!
//! A B-tree serves conditions of equality on its first columns, then one range or an order; so keys are made of the
//! columns compared for equality, of the columns that join, and of one range or order behind them (the order of columns
//! within the equalities is free: those with many values come first, so that the index is of use to other queries, too).
//! Where the pages of the table are all-visible mostly, a version that INCLUDEs the other columns that are read answers
//! without the table. Conditions with constants that few rows fulfil become predicates.

use super::demand::{Demand, Key, OrderKey, Term, TermKind};
use std::collections::HashSet;

/// Smaller tables are read as a whole about as fast as through an index.
const MIN_PAGES: f64 = 10.0;
/// Columns of a key, at most.
const MAX_KEYS: usize = 4;
/// Columns that are included, at most, and their bytes together.
const MAX_INCLUDED: usize = 6;
const MAX_INCLUDED_BYTES: f64 = 120.0;
/// A predicate is worth it between these shares of the rows.
const PREDICATE_SHARES: std::ops::RangeInclusive<f64> = 1e-6..=0.25;
/// Of a column with more values, a constant is the one that this query happened to ask for.
const MAX_PREDICATE_VALUES: f64 = 20.0;
/// Commands are kept under a unique index, whose entries are limited as those of any other.
const MAX_DDL_BYTES: usize = 2000;
/// Bytes of a page.
const PAGE_BYTES: f64 = 8192.0;
/// From this share of all-visible pages on an index-only scan pays.
const MIN_ALL_VISIBLE: f64 = 0.5;
/// A B-tree's key must fit into a third of a page: BTMaxItemSize of nbtree.h.
const MAX_KEY_BYTES: f64 = 2704.0;
/// Block ranges are told apart only where values lie in the order of rows.
const MIN_CORRELATION: f64 = 0.9;
/// Below, a B-tree is small enough (100 MB of table).
const MIN_BRIN_PAGES: f64 = 12_800.0;
/// From this mean width on a hash of the value is much smaller than the value.
const MIN_HASH_BYTES: f64 = 64.0;

/// How an index finds its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Ordered.
    Btree,
    /// Equality only.
    Hash,
    /// Summaries of block ranges.
    Brin,
    /// Elements of composite values.
    Gin,
}

impl Method {
    /// Its name in SQL.
    pub const fn name(self) -> &'static str {
        match self {
            Method::Btree => "btree",
            Method::Hash => "hash",
            Method::Brin => "brin",
            Method::Gin => "gin",
        }
    }
}

/// A column of a candidate's key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Column {
    /// Column or expression.
    pub sql: String,
    /// Name of the operator class; empty for the default one.
    pub opclass: String,
    /// Whether it descends.
    pub descends: bool,
    /// Whether NULL comes first.
    pub nulls_first: bool,
}

/// An index that might help.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// The table's id.
    pub relation: u32,
    /// The table's name, with schema, quoted.
    pub table: String,
    /// How it finds its entries.
    pub method: Method,
    /// The key.
    pub columns: Vec<Column>,
    /// Columns that are only carried along.
    pub included: Vec<String>,
    /// What rows must fulfil to be in it.
    pub predicate: Option<String>,
}

impl Candidate {
    /// The command that makes it. The same for the same index.
    pub fn ddl(&self) -> String {
        let columns: Vec<String> = self.columns.iter().map(Column::sql).collect();
        let mut ddl = format!("CREATE INDEX ON {} USING {} ({})", self.table, self.method.name(), columns.join(", "));
        if !self.included.is_empty() {
            ddl += &format!(" INCLUDE ({})", self.included.join(", "));
        }
        if let Some(predicate) = &self.predicate {
            ddl += &format!(" WHERE {predicate}");
        }
        ddl
    }
}

impl Column {
    fn plain(key: &Key) -> Self {
        Column { sql: key.sql.clone(), opclass: String::new(), descends: false, nulls_first: false }
    }

    fn with_class(key: &Key, opclass: &str) -> Self {
        Column { opclass: opclass.to_owned(), ..Column::plain(key) }
    }

    fn ordered(order: &OrderKey) -> Self {
        Column { descends: order.descends, nulls_first: order.nulls_first, ..Column::plain(&order.key) }
    }

    /// As it stands in CREATE INDEX.
    pub fn sql(&self) -> String {
        let mut sql = self.sql.clone();
        if !self.opclass.is_empty() {
            sql = format!("{sql} {}", self.opclass);
        }
        if self.descends {
            sql += " DESC";
        }
        // What DESC says of NULL by itself need not be said.
        if self.nulls_first != self.descends {
            sql += if self.nulls_first { " NULLS FIRST" } else { " NULLS LAST" };
        }
        sql
    }
}

/// The indexes that might serve a demand, each once.
pub fn candidates(demand: &Demand) -> Vec<Candidate> {
    if demand.pages < MIN_PAGES || demand.rows < 1.0 {
        return Vec::new();
    }
    let mut maker = Maker { demand, seen: HashSet::new(), made: Vec::new() };
    maker.keys();
    maker.partial();
    maker.special();
    maker.made
}

struct Maker<'a> {
    demand: &'a Demand,
    seen: HashSet<Candidate>,
    made: Vec<Candidate>,
}

/// A key in the making: columns with their keys.
type Part = Vec<(Key, Column)>;

impl Maker<'_> {
    /// Keys compared for equality, those with many values first.
    fn equal(&self) -> Part {
        let mut keys: Vec<&Term> = self.terms(|kind| matches!(kind, TermKind::Equal | TermKind::Null)).collect();
        keys.sort_by(|a, b| b.key.n_distinct.total_cmp(&a.key.n_distinct).then_with(|| a.key.sql.cmp(&b.key.sql)));
        distinct(keys.into_iter().map(|term| (term.key.clone(), Column::plain(&term.key))).collect())
    }

    fn ranges(&self) -> Part {
        let mut keys: Vec<&Term> =
            self.terms(|kind| matches!(kind, TermKind::Range | TermKind::Prefix { .. })).collect();
        keys.sort_by(|a, b| a.selectivity.total_cmp(&b.selectivity).then_with(|| a.key.sql.cmp(&b.key.sql)));
        let column = |term: &Term| match &term.kind {
            TermKind::Prefix { opclass } => Column::with_class(&term.key, opclass),
            _ => Column::plain(&term.key),
        };
        distinct(keys.into_iter().map(|term| (term.key.clone(), column(term))).collect())
    }

    fn joins(&self) -> Part {
        distinct(self.demand.joins.iter().map(|key| (key.clone(), Column::plain(key))).collect())
    }

    fn orders(&self) -> Vec<Part> {
        let part = |order: &Vec<OrderKey>| order.iter().map(|key| (key.key.clone(), Column::ordered(key))).collect();
        self.demand.orders.iter().map(part).collect()
    }

    fn terms(&self, wanted: impl Fn(&TermKind) -> bool) -> impl Iterator<Item = &Term> {
        self.demand.terms.iter().filter(move |term| wanted(&term.kind) && term.key.is_ordered)
    }

    /// B-trees of equalities, joins, ranges and orders.
    fn keys(&mut self) {
        let (equal, ranges, joins, orders) = (self.equal(), self.ranges(), self.joins(), self.orders());
        let mut tails: Vec<Part> = ranges.iter().map(|range| vec![range.clone()]).collect();
        tails.extend(orders.iter().cloned());
        for single in equal.iter().chain(&ranges).chain(&joins) {
            self.add(&[std::slice::from_ref(single)]);
        }
        for alternative in self.demand.alternatives.clone() {
            if alternative.key.is_ordered {
                self.add(&[&[(alternative.key.clone(), Column::plain(&alternative.key))]]);
            }
        }
        self.add(&[&equal]);
        for tail in &tails {
            self.add(&[&equal, tail]);
            for one in &equal {
                self.add(&[std::slice::from_ref(one), tail]);
            }
            self.add(&[tail]);
        }
        for join in &joins {
            let join = std::slice::from_ref(join);
            self.add(&[&equal, join]);
            self.add(&[join, &equal]);
            for tail in &tails {
                self.add(&[join, tail]);
                self.add(&[&equal, join, tail]);
            }
        }
        self.add(&[&joins]);
    }

    /// Adds the B-tree of some columns, alone and with the other columns that are read.
    fn add(&mut self, parts: &[&[(Key, Column)]]) {
        let part = distinct(parts.iter().flat_map(|part| part.iter().cloned()).collect());
        let width: f64 = part.iter().map(|(key, _)| key.max_width_bytes).sum();
        if part.is_empty() || part.len() > MAX_KEYS || width > MAX_KEY_BYTES {
            return;
        }
        let columns: Vec<Column> = part.iter().map(|(_, column)| column.clone()).collect();
        let included = self.included(&part);
        let plain = self.candidate(Method::Btree, columns);
        self.keep(plain.clone());
        if !included.is_empty() {
            self.keep(Candidate { included, ..plain });
        }
    }

    /// The columns that an index of these keys would have to carry to answer alone; none when it does not pay.
    fn included(&self, part: &Part) -> Vec<String> {
        let demand = self.demand;
        if demand.all_visible < MIN_ALL_VISIBLE || demand.is_changed || part.iter().any(|(key, _)| key.attribute == 0) {
            return Vec::new();
        }
        let others: Vec<&Key> = demand
            .needed
            .iter()
            .filter(|needed| part.iter().all(|(key, _)| key.attribute != needed.attribute))
            .collect();
        let width: f64 = others.iter().map(|key| key.width_bytes).sum();
        let widest: f64 =
            part.iter().map(|(key, _)| key).chain(others.iter().copied()).map(|key| key.max_width_bytes).sum();
        // More than half of a row is a second table.
        let half_row = demand.pages * PAGE_BYTES / demand.rows / 2.0;
        match others.len() <= MAX_INCLUDED && widest <= MAX_KEY_BYTES && width <= MAX_INCLUDED_BYTES.min(half_row) {
            true => others.iter().map(|key| key.sql.clone()).collect(),
            false => Vec::new(),
        }
    }

    /// Indexes of only the rows that fulfil a condition with constants.
    fn partial(&mut self) {
        for (place, term) in self.demand.terms.clone().iter().enumerate() {
            let Some(predicate) = &term.predicate else { continue };
            if !is_lasting(term) {
                continue;
            }
            let rest = Demand {
                terms: self
                    .demand
                    .terms
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| *at != place)
                    .map(|(_, t)| t.clone())
                    .collect(),
                alternatives: Vec::new(),
                ..self.demand.clone()
            };
            let mut keys = plain_keys(&rest);
            // Where nothing else is asked for, any key will do: the predicate finds the rows.
            if keys.is_empty() && term.key.is_ordered {
                keys.push(self.candidate(Method::Btree, vec![Column::plain(&term.key)]));
            }
            for mut candidate in keys {
                candidate.predicate = Some(predicate.clone());
                self.keep(candidate);
            }
        }
    }

    /// What no B-tree serves, or serves at more room.
    fn special(&mut self) {
        for term in self.demand.terms.iter().chain(&self.demand.alternatives) {
            let column = Column::plain(&term.key);
            match &term.kind {
                TermKind::Contains { opclasses } => {
                    for opclass in opclasses {
                        self.keep(self.candidate(Method::Gin, vec![Column::with_class(&term.key, opclass)]));
                    }
                }
                TermKind::Range
                    if term.key.correlation.abs() >= MIN_CORRELATION && self.demand.pages >= MIN_BRIN_PAGES =>
                {
                    self.keep(self.candidate(Method::Brin, vec![column]));
                }
                TermKind::Equal if term.key.width_bytes >= MIN_HASH_BYTES => {
                    self.keep(self.candidate(Method::Hash, vec![column]));
                }
                _ => {}
            }
        }
    }

    fn candidate(&self, method: Method, columns: Vec<Column>) -> Candidate {
        let (relation, table) = (self.demand.relation, self.demand.table.clone());
        Candidate { relation, table, method, columns, included: Vec::new(), predicate: None }
    }

    fn keep(&mut self, candidate: Candidate) {
        if candidate.ddl().len() <= MAX_DDL_BYTES && self.seen.insert(candidate.clone()) {
            self.made.push(candidate);
        }
    }
}

/// Is a condition one that a predicate can be built on: does it let few rows in, and will it be asked again as it is?
fn is_lasting(term: &Term) -> bool {
    let is_of_few_values = term.key.n_distinct > 0.0 && term.key.n_distinct <= MAX_PREDICATE_VALUES;
    PREDICATE_SHARES.contains(&term.selectivity)
        && match term.kind {
            TermKind::Null | TermKind::Flag => true,
            TermKind::Equal => is_of_few_values,
            _ => false,
        }
}

/// The B-trees without included columns for a demand.
fn plain_keys(demand: &Demand) -> Vec<Candidate> {
    let mut maker = Maker { demand, seen: HashSet::new(), made: Vec::new() };
    maker.keys();
    maker.made.retain(|candidate| candidate.included.is_empty() && candidate.columns.len() <= 2);
    maker.made
}

/// Each key once, where it comes first.
fn distinct(part: Part) -> Part {
    let mut seen = HashSet::new();
    part.into_iter().filter(|(key, _)| seen.insert(key.sql.clone())).collect()
}
