//! What is chosen from: queries with their costs, candidate indexes, limits; and what makes a problem invalid.

use thiserror::Error;

/// Whether an index may be chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It may be chosen or left.
    #[default]
    Free,
    /// It is always chosen, such as one that a constraint needs.
    Forced,
    /// It is never chosen.
    Forbidden,
}

/// A candidate index. One that exists already is a candidate of no size, since its storage is paid: what leaving it out
/// saves is its write cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct IndexFacts {
    /// Storage that it takes up.
    pub size_bytes: u64,
    /// Cost of keeping it up to date, in the unit of the weighted cost of queries.
    pub write_cost: f64,
    /// Table that it is on; any number that stands for it.
    pub table: u32,
    /// Whether it may be chosen.
    pub standing: Standing,
}

/// What a query costs when some indexes exist.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CostOption {
    /// Numbers of the indexes that must exist together. Their order does not matter.
    pub indexes: Vec<u32>,
    /// Planner's cost of one execution.
    pub cost: f64,
}

/// What a query costs, with and without indexes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueryCosts {
    /// How much the query counts, such as its executions in the period of the workload.
    pub weight: f64,
    /// Planner's cost of one execution with no index of the problem.
    pub cost_without: f64,
    /// The combinations that change its cost. One that raises it is ignored: the planner need not use an index.
    pub options: Vec<CostOption>,
}

/// What the chosen indexes must keep to, those forced included. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Sum of the sizes.
    pub storage_bytes: Option<u64>,
    /// Indexes of one table.
    pub indexes_per_table: Option<u32>,
    /// Sum of the write costs. A millionth of a millionth more counts as rounding.
    pub write_cost: Option<f64>,
}

/// A choice to be made: least sum of the queries' weighted costs and the chosen indexes' write costs, within the limits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Problem {
    /// The workload.
    pub queries: Vec<QueryCosts>,
    /// The candidates; an index's number is its place here.
    pub indexes: Vec<IndexFacts>,
    /// What the choice must keep to.
    pub limits: Limits,
}

/// Which limit is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// [`Limits::storage_bytes`].
    Storage,
    /// [`Limits::indexes_per_table`].
    IndexesPerTable,
    /// [`Limits::write_cost`].
    WriteCost,
}

/// What makes a problem invalid.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum ProblemError {
    /// A weight or cost of a query that is negative, infinite or no number.
    #[error("{field} of query {query} is {value}, expected a finite number, not negative")]
    QueryValue {
        /// Its place in the workload.
        query: usize,
        /// Name of the field.
        field: &'static str,
        /// As given.
        value: f64,
    },
    /// A write cost that is negative, infinite or no number.
    #[error("write cost of index {index} is {value}, expected a finite number, not negative")]
    WriteCost {
        /// Its number.
        index: usize,
        /// As given.
        value: f64,
    },
    /// A limit of write cost that is negative or no number.
    #[error("limit of write cost is {0}, expected a number, not negative")]
    WriteLimit(f64),
    /// An option with an index that is none of the candidates.
    #[error("query {query} has an option with index {index}, which is not among the {indexes} candidates")]
    UnknownIndex {
        /// The query's place in the workload.
        query: usize,
        /// As given.
        index: u32,
        /// Number of candidates.
        indexes: usize,
    },
    /// Costs whose sum is not finite.
    #[error("sum of weighted costs is out of range")]
    TotalOutOfRange,
    /// The forced indexes alone break a limit, so nothing can be chosen.
    #[error("forced indexes alone break the limit {0:?}")]
    ForcedBreaksLimit(Limit),
}

impl Limits {
    /// Greatest sum of write costs that keeps to the limit. Sums of the same numbers differ in their last digits.
    pub(super) fn write_ceiling(&self) -> f64 {
        self.write_cost.map_or(f64::INFINITY, |limit| limit * (1.0 + 1e-12))
    }
}

impl Problem {
    /// Sum of the queries' weighted costs and the write costs of the indexes of a set. Numbers of no index are ignored.
    pub fn cost_of(&self, set: &[u32]) -> f64 {
        let mut present = vec![false; self.indexes.len()];
        for &index in set {
            if let Some(place) = present.get_mut(index as usize) {
                *place = true;
            }
        }
        self.cost_of_present(&present)
    }

    /// Sum of the queries' weighted costs with no index at all, not even those forced.
    pub fn cost_without_any(&self) -> f64 {
        self.queries.iter().map(|query| query.weight * query.cost_without).sum()
    }

    /// As [`Problem::cost_of`], for a set given as a flag for each index.
    pub(super) fn cost_of_present(&self, present: &[bool]) -> f64 {
        let is_present = |index: u32| present.get(index as usize).copied().unwrap_or(false);
        let queries: f64 = self.queries.iter().map(|query| query.weight * query.least_cost(&is_present)).sum();
        queries + self.write_cost_of(present)
    }

    /// Sum of the write costs of a set.
    pub(super) fn write_cost_of(&self, present: &[bool]) -> f64 {
        self.indexes.iter().zip(present).filter(|(_, present)| **present).map(|(index, _)| index.write_cost).sum()
    }

    /// Sum of the sizes of a set, in bytes. A sum of 64-bit sizes needs more bits.
    pub(super) fn bytes_of(&self, present: &[bool]) -> u128 {
        let chosen = self.indexes.iter().zip(present).filter(|(_, present)| **present);
        chosen.map(|(index, _)| u128::from(index.size_bytes)).sum()
    }

    /// Says what makes the problem invalid, if anything does.
    pub fn check(&self) -> Result<(), ProblemError> {
        for (number, query) in self.queries.iter().enumerate() {
            query.check(number, self.indexes.len())?;
        }
        for (index, facts) in self.indexes.iter().enumerate() {
            if !is_cost(facts.write_cost) {
                return Err(ProblemError::WriteCost { index, value: facts.write_cost });
            }
        }
        if let Some(limit) = self.limits.write_cost.filter(|limit| limit.is_nan() || *limit < 0.0) {
            return Err(ProblemError::WriteLimit(limit));
        }
        let everything = self.cost_without_any() + self.indexes.iter().map(|index| index.write_cost).sum::<f64>();
        if !everything.is_finite() {
            return Err(ProblemError::TotalOutOfRange);
        }
        self.check_forced()
    }

    fn check_forced(&self) -> Result<(), ProblemError> {
        let forced: Vec<bool> = self.indexes.iter().map(|index| index.standing == Standing::Forced).collect();
        if self.limits.storage_bytes.is_some_and(|limit| self.bytes_of(&forced) > u128::from(limit)) {
            return Err(ProblemError::ForcedBreaksLimit(Limit::Storage));
        }
        if self.write_cost_of(&forced) > self.limits.write_ceiling() {
            return Err(ProblemError::ForcedBreaksLimit(Limit::WriteCost));
        }
        let Some(per_table) = self.limits.indexes_per_table else { return Ok(()) };
        let mut tables: Vec<u32> =
            self.indexes.iter().filter(|index| index.standing == Standing::Forced).map(|index| index.table).collect();
        tables.sort_unstable();
        if tables.chunk_by(|a, b| a == b).any(|same| same.len() > per_table as usize) {
            return Err(ProblemError::ForcedBreaksLimit(Limit::IndexesPerTable));
        }
        Ok(())
    }
}

impl QueryCosts {
    /// Least cost of one execution, given which indexes exist.
    pub(super) fn least_cost(&self, is_present: &impl Fn(u32) -> bool) -> f64 {
        let usable = self.options.iter().filter(|option| option.indexes.iter().all(|&index| is_present(index)));
        usable.map(|option| option.cost).fold(self.cost_without, f64::min)
    }

    fn check(&self, query: usize, indexes: usize) -> Result<(), ProblemError> {
        let costs = self.options.iter().map(|option| ("cost of an option", option.cost));
        for (field, value) in [("weight", self.weight), ("cost", self.cost_without)].into_iter().chain(costs) {
            if !is_cost(value) {
                return Err(ProblemError::QueryValue { query, field, value });
            }
        }
        let mut numbers = self.options.iter().flat_map(|option| &option.indexes);
        match numbers.find(|index| **index as usize >= indexes) {
            Some(&index) => Err(ProblemError::UnknownIndex { query, index, indexes }),
            None => Ok(()),
        }
    }
}

fn is_cost(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}
