//! What a query wants of a table, as the planner sees it when it looks for ways to read it.

/// What one query wants of one table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Demand {
    /// The table's id.
    pub relation: u32,
    /// Its name, with schema, quoted.
    pub table: String,
    /// Rows of the table.
    pub rows: f64,
    /// Pages of the table.
    pub pages: f64,
    /// Share of the pages that are all-visible, so that an index alone can answer.
    pub all_visible: f64,
    /// Conditions on the table's own rows; they all hold.
    pub terms: Vec<Term>,
    /// Conditions of which one or another holds.
    pub alternatives: Vec<Term>,
    /// What is compared for equality with other tables.
    pub joins: Vec<Key>,
    /// Orders in which the rows are wanted.
    pub orders: Vec<Vec<OrderKey>>,
    /// Whether only the first rows are wanted.
    pub has_limit: bool,
    /// Columns that are read.
    pub needed: Vec<Key>,
    /// Whether the query changes the table.
    pub is_changed: bool,
}

/// What can be the key of an index: a column, or an expression.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Key {
    /// As it stands in CREATE INDEX: a quoted column, an expression in parentheses; with COLLATE where it is needed.
    pub sql: String,
    /// The column's number; 0 for an expression.
    pub attribute: i16,
    /// Mean bytes of a value.
    pub width_bytes: f64,
    /// Bytes of the widest value, as far as is known; infinite for one that may be of any width.
    pub max_width_bytes: f64,
    /// Distinct values; 0 when it is not known.
    pub n_distinct: f64,
    /// Of the order of values with the order of rows, from -1 to 1.
    pub correlation: f64,
    /// Whether its type has an order that a B-tree can keep.
    pub is_ordered: bool,
}

/// A condition on one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// What it is about.
    pub key: Key,
    /// What it asks.
    pub kind: TermKind,
    /// Share of the rows for which it holds.
    pub selectivity: f64,
    /// The condition as it can stand in the WHERE of an index; `None` when it has parameters or is not immutable.
    pub predicate: Option<String>,
}

/// What a condition asks of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TermKind {
    /// Equal to a value, or to one of several.
    Equal,
    /// Less or greater than a value.
    Range,
    /// IS NULL.
    Null,
    /// IS NOT NULL, or a boolean: worth a predicate, not a key.
    Flag,
    /// A pattern with a fixed beginning, served by a B-tree of this operator class.
    Prefix {
        /// Its name.
        opclass: String,
    },
    /// An operator that GIN serves.
    Contains {
        /// Operator classes that serve it, the smallest index first; an empty name is the default one.
        opclasses: Vec<String>,
    },
}

/// A key of an order.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderKey {
    /// What is sorted by.
    pub key: Key,
    /// Whether it descends.
    pub descends: bool,
    /// Whether NULL comes first.
    pub nulls_first: bool,
}
