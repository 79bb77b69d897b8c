//! Which indexes to have: the set of candidates with the least cost of queries and writes, within limits of storage,
//! write cost and indexes for each table.
//!
//! The costs are given, so nothing is asked of a planner here. First a set is grown greedily in several ways and improved
//! by swaps ([`greedy`](self::Greedy)), then the distance to the best set is bounded from below by a relaxation, and
//! branch and bound closes what is left. The search can be stopped at any moment: the best set so far is kept, with the
//! bound, so its distance from the best possible is known. The same problem and the same moment give the same choice.
//!
//! Numbers of a [`Problem`] are checked once; after that indexes and options have places of this module's making.

mod bound;
mod branch;
mod greedy;
mod knapsack;
mod model;
mod problem;
mod search;
mod state;

pub use greedy::Greedy;
pub use problem::{CostOption, IndexFacts, Limit, Limits, Problem, ProblemError, QueryCosts, Standing};

use branch::Tree;
use model::Model;
use search::Best;
use state::State;

/// What was chosen, and how good that is.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Numbers of the chosen indexes, ascending, those forced included.
    pub indexes: Vec<u32>,
    /// Sum of the weighted costs of the queries and the write costs of the chosen indexes.
    pub cost: f64,
    /// No set within the limits costs less, but for rounding: 1e-10 of the cost with no index.
    pub lower_bound: f64,
    /// Whether no set is better, but for rounding.
    pub is_optimal: bool,
    /// Sum of the weighted costs with no index at all.
    pub cost_without_any: f64,
    /// Storage of the chosen indexes; at most what a `u64` holds.
    pub size_bytes: u64,
    /// Write costs of the chosen indexes.
    pub write_cost: f64,
    /// For each chosen index, in the same order: by how much the cost would rise if it alone were missing. Less than
    /// zero only for a forced one.
    pub contributions: Vec<f64>,
}

impl Choice {
    /// By how much the cost could at most be lower, as a fraction of the cost with no index.
    pub fn gap(&self) -> f64 {
        if self.cost_without_any > 0.0 { (self.cost - self.lower_bound) / self.cost_without_any } else { 0.0 }
    }
}

/// Asks the caller whether to stop, and remembers that it said so.
struct Clock<'a> {
    stop: &'a mut dyn FnMut() -> bool,
    is_over: bool,
}

impl Clock<'_> {
    fn is_over(&mut self) -> bool {
        self.is_over = self.is_over || (self.stop)();
        self.is_over
    }
}

/// Chooses indexes. `stop` is asked at each step, and the search ends when it says yes or when the choice is proved the
/// best; on a hard problem the proof can take longer than anybody would wait. A step is one index added, one swap tried or
/// one round of the bound, which each look at every option once at the most, or a few hundred times for a swap.
///
/// Stopped at once, the choice is what is forced. An index that saves nothing is not chosen unless forced, even if it
/// costs nothing either: whether an index that exists without harm should stay is for the caller to say.
pub fn choose(problem: &Problem, stop: &mut dyn FnMut() -> bool) -> Result<Choice, ProblemError> {
    problem.check()?;
    let model = Model::new(problem);
    let mut clock = Clock { stop, is_over: false };
    let mut best = Best::new(&model);
    let mut tree = Tree::new(&model);
    search::start(&model, &mut best, &mut clock);
    tree.plant(&mut best, &mut clock);
    if tree.lower_bound(&best) < best.cost {
        search::seeds(&model, &mut best, &mut clock);
        tree.search(&mut best, &mut clock);
    }
    Ok(finish(problem, &model, &best, tree.lower_bound(&best)))
}

/// The set that one way of greedy growth alone chooses, for comparison; numbers ascending, those forced included.
pub fn grow_greedily(problem: &Problem, measure: Greedy) -> Result<Vec<u32>, ProblemError> {
    problem.check()?;
    let model = Model::new(problem);
    let mut state = State::new(&model);
    greedy::grow(&mut state, measure, &mut Clock { stop: &mut || false, is_over: false });
    Ok(numbers(problem, &model, state.members()))
}

fn finish(problem: &Problem, model: &Model, best: &Best, lower_bound: f64) -> Choice {
    let mut state = State::of(model, &best.members);
    search::drop_useless(&mut state);
    let indexes = numbers(problem, model, state.members());
    let mut present = vec![false; problem.indexes.len()];
    indexes.iter().for_each(|&index| present[index as usize] = true);
    let cost = problem.cost_of_present(&present);
    Choice {
        cost,
        lower_bound: lower_bound.clamp(0.0, cost),
        is_optimal: lower_bound >= cost - model.tolerance,
        cost_without_any: problem.cost_without_any(),
        size_bytes: u64::try_from(problem.bytes_of(&present)).unwrap_or(u64::MAX),
        write_cost: problem.write_cost_of(&present),
        contributions: contributions(problem, &indexes, &mut present, cost),
        indexes,
    }
}

fn contributions(problem: &Problem, indexes: &[u32], present: &mut [bool], cost: f64) -> Vec<f64> {
    let mut without = |&index: &u32| {
        present[index as usize] = false;
        let rise = problem.cost_of_present(present) - cost;
        present[index as usize] = true;
        rise
    };
    indexes.iter().map(&mut without).collect()
}

fn numbers(problem: &Problem, model: &Model, members: &[usize]) -> Vec<u32> {
    let forced = problem.indexes.iter().zip(0u32..).filter(|(index, _)| index.standing == Standing::Forced);
    let mut numbers: Vec<u32> = forced.map(|(_, number)| number).collect();
    numbers.extend(members.iter().map(|&member| model.numbers[member]));
    numbers.sort_unstable();
    numbers
}
