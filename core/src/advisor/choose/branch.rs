//! Branch and bound: an index is put in or left out, and parts of the search whose bound is no better than the best set
//! are closed, until none is open.
//!
//! The part with the least bound is taken next, which raises the bound of the whole as fast as it can be; when the open
//! parts take up much memory, the newest is.

use std::rc::Rc;

use super::Clock;
use super::bound::{Ascent, Effort, Fix, Prices, Relaxation};
use super::greedy::{Greedy, grow};
use super::model::Model;
use super::search::{Best, drop_useless, improve};
use super::state::State;

/// For the whole.
const ROOT_EFFORT: Effort = Effort { rounds: 2000, length: 1.0, patience: 40 };
/// For a part, which starts at the prices of the part that it is of.
const PART_EFFORT: Effort = Effort { rounds: 60, length: 0.2, patience: 6 };
/// Numbers that the open parts may keep, before the newest is taken first.
const MEMORY_NUMBERS: usize = 4_000_000;

/// A part of the search.
struct Node {
    bound: f64,
    fixed: Vec<Fix>,
    prices: Rc<Prices>,
}

/// The search.
pub(super) struct Tree<'a> {
    model: &'a Model,
    relaxation: Relaxation<'a>,
    open: Vec<Node>,
}

impl<'a> Tree<'a> {
    /// The whole, with a bound that needs no work.
    pub fn new(model: &'a Model) -> Tree<'a> {
        let relaxation = Relaxation::new(model);
        let fixed = vec![Fix::Open; model.len()];
        let bound = relaxation.trivial_bound(&fixed);
        let prices = Rc::new(relaxation.no_prices());
        Tree { model, relaxation, open: vec![Node { bound, fixed, prices }] }
    }

    /// Bounds the whole as well as the relaxation can, and divides it once unless that proves the best set.
    pub fn plant(&mut self, best: &mut Best, clock: &mut Clock) {
        if let Some(root) = self.open.pop() {
            self.expand(root, ROOT_EFFORT, best, clock);
        }
    }

    /// Searches until the best set is proved or the time is up.
    pub fn search(&mut self, best: &mut Best, clock: &mut Clock) {
        while !clock.is_over() {
            let Some(node) = self.next() else { return };
            self.expand(node, PART_EFFORT, best, clock);
        }
    }

    /// No set costs less.
    pub fn lower_bound(&self, best: &Best) -> f64 {
        self.open.iter().map(|node| node.bound).fold(best.cost, f64::min)
    }

    fn next(&mut self) -> Option<Node> {
        if self.open.len().saturating_mul(self.relaxation.pairs() + self.model.len()) > MEMORY_NUMBERS {
            return self.open.pop();
        }
        let least = (0..self.open.len()).min_by(|&a, &b| self.open[a].bound.total_cmp(&self.open[b].bound))?;
        Some(self.open.swap_remove(least))
    }

    fn expand(&mut self, mut node: Node, effort: Effort, best: &mut Best, clock: &mut Clock) {
        let target = best.cost - self.model.tolerance;
        if node.bound >= target {
            return;
        }
        self.shut_out_misfits(&mut node.fixed);
        let ascent = self.relaxation.ascend(&node.fixed, &node.prices, target, effort, clock);
        node.bound = node.bound.max(ascent.bound);
        node.prices = Rc::clone(&ascent.prices);
        if node.bound >= target {
            return;
        }
        self.round(&node.fixed, &ascent, best, clock);
        fix_by_bound(&mut node.fixed, &ascent, best.cost - self.model.tolerance);
        if !self.is_feasible(&node.fixed) {
            return;
        }
        if clock.is_over() {
            self.open.push(node);
            return;
        }
        match branching_index(&node.fixed, &ascent) {
            Some(index) => self.divide(node, index),
            None => best.offer(&State::of(self.model, &taken(&node.fixed))),
        }
    }

    fn divide(&mut self, node: Node, index: usize) {
        for fix in [Fix::Out, Fix::In] {
            let mut fixed = node.fixed.clone();
            fixed[index] = fix;
            if self.is_feasible(&fixed) {
                self.open.push(Node { bound: node.bound, fixed, prices: Rc::clone(&node.prices) });
            }
        }
    }

    /// Leaves out what no longer fits.
    fn shut_out_misfits(&self, fixed: &mut [Fix]) {
        let state = State::of(self.model, &taken(fixed));
        for (index, fix) in fixed.iter_mut().enumerate() {
            if *fix == Fix::Open && !state.fits(&[index]) {
                *fix = Fix::Out;
            }
        }
    }

    fn is_feasible(&self, fixed: &[Fix]) -> bool {
        State::new(self.model).fits(&taken(fixed))
    }

    /// Makes a set of what the packings took most of.
    fn round(&self, fixed: &[Fix], ascent: &Ascent, best: &mut Best, clock: &mut Clock) {
        let mut state = State::of(self.model, &taken(fixed));
        let mut order: Vec<usize> = open(fixed).filter(|&index| ascent.part[index] > 0.3).collect();
        order.sort_by(|&a, &b| ascent.part[b].total_cmp(&ascent.part[a]).then(a.cmp(&b)));
        for index in order {
            if state.fits(&[index]) {
                state.add(index);
            }
        }
        drop_useless(&mut state);
        grow(&mut state, Greedy::Benefit, clock);
        if state.cost() < best.cost {
            improve(&mut state, clock);
        }
        best.offer(&state);
    }
}

fn taken(fixed: &[Fix]) -> Vec<usize> {
    (0..fixed.len()).filter(|&index| fixed[index] == Fix::In).collect()
}

fn open(fixed: &[Fix]) -> impl Iterator<Item = usize> {
    (0..fixed.len()).filter(|&index| fixed[index] == Fix::Open)
}

/// Decides what only sets that are no better than the best would decide otherwise.
fn fix_by_bound(fixed: &mut [Fix], ascent: &Ascent, target: f64) {
    for (fix, &net) in fixed.iter_mut().zip(&ascent.net) {
        if *fix == Fix::Open && ascent.bound + net.abs() >= target {
            *fix = if net > 0.0 { Fix::In } else { Fix::Out };
        }
    }
}

/// The index that the packings are least decided about; of those alike, one with much at stake.
fn branching_index(fixed: &[Fix], ascent: &Ascent) -> Option<usize> {
    let doubt = |index: usize| ascent.part[index].min(1.0 - ascent.part[index]);
    let order = |&a: &usize, &b: &usize| {
        doubt(a).total_cmp(&doubt(b)).then(ascent.net[a].abs().total_cmp(&ascent.net[b].abs())).then(b.cmp(&a))
    };
    open(fixed).max_by(order)
}

#[cfg(test)]
mod tests {
    use super::super::problem::{CostOption, IndexFacts, Limits, Problem, QueryCosts};
    use super::*;

    const INDEXES: u64 = 10;

    /// Numbers without a pattern, below a limit.
    fn below(seed: &mut u64, limit: u64) -> u64 {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) % limit
    }

    fn problem(mut seed: u64) -> Problem {
        let mut random = |limit| below(&mut seed, limit);
        let index = |random: &mut dyn FnMut(u64) -> u64| IndexFacts {
            size_bytes: 5 + random(30),
            write_cost: random(8) as f64,
            table: random(3) as u32,
            ..IndexFacts::default()
        };
        let indexes = (0..INDEXES).map(|_| index(&mut random)).collect();
        let mut query = || {
            let option = |width| CostOption {
                indexes: (0..width).map(|_| random(INDEXES) as u32).collect(),
                cost: (10 + random(80)) as f64,
            };
            QueryCosts { weight: 1.0, cost_without: 100.0, options: [1, 1, 1, 2, 2].map(option).to_vec() }
        };
        let queries = (0..5).map(|_| query()).collect();
        let per_table = seed.is_multiple_of(2).then_some(2);
        let limits = Limits { storage_bytes: Some(70), indexes_per_table: per_table, write_cost: Some(15.0) };
        Problem { queries, indexes, limits }
    }

    /// The best of all sets.
    fn least(model: &Model) -> State<'_> {
        let empty = State::new(model);
        let sets = (0..1usize << model.len())
            .map(|set| (0..model.len()).filter(|index| set >> index & 1 == 1).collect::<Vec<usize>>());
        let possible = sets.filter(|members| empty.fits(members)).map(|members| State::of(model, &members));
        possible.min_by(|a, b| a.cost().total_cmp(&b.cost())).unwrap()
    }

    #[test]
    fn what_the_bound_decides_agrees_with_the_best_set() {
        let mut decided = 0;
        for seed in 0..60 {
            let model = Model::new(&problem(seed));
            let best = least(&model);
            // The sharpest target there can be, so that as much as possible is decided.
            let target = best.cost() + 1e-6;
            let tree = Tree::new(&model);
            let mut fixed = vec![Fix::Open; model.len()];
            let mut clock = Clock { stop: &mut || false, is_over: false };
            let ascent = tree.relaxation.ascend(&fixed, &tree.relaxation.no_prices(), target, ROOT_EFFORT, &mut clock);
            assert!(ascent.bound <= target, "seed {seed}");
            fix_by_bound(&mut fixed, &ascent, target);
            for (index, &fix) in fixed.iter().enumerate().filter(|(_, fix)| **fix != Fix::Open) {
                decided += 1;
                assert_eq!(fix == Fix::In, best.has(index), "index {index} of seed {seed}");
            }
        }
        assert!(decided > 60, "decided {decided}");
    }

    /// Without greedy growth before it, and so with little to close parts by.
    #[test]
    fn the_search_alone_finds_the_best_set() {
        for seed in 0..60 {
            let model = Model::new(&problem(seed));
            let mut best = Best::new(&model);
            let mut tree = Tree::new(&model);
            tree.search(&mut best, &mut Clock { stop: &mut || false, is_over: false });
            assert!((best.cost - least(&model).cost()).abs() < 1e-6, "seed {seed}");
            assert_eq!(tree.lower_bound(&best), best.cost);
        }
    }
}
