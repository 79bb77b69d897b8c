//! Growing a set by what gains most at each step.

use super::Clock;
use super::model::Model;
use super::state::State;

/// What "most" means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greedy {
    /// The cost saved.
    Benefit,
    /// The cost saved for each byte of storage, as Extend does (Schlosser, Kossmann, Boissier 2019).
    BenefitPerByte,
    /// The cost saved for each unit of write cost.
    BenefitPerWrite,
}

impl Greedy {
    /// All of them.
    pub const ALL: [Greedy; 3] = [Greedy::BenefitPerByte, Greedy::Benefit, Greedy::BenefitPerWrite];

    fn price(self, model: &Model, indexes: &[usize]) -> f64 {
        match self {
            Greedy::Benefit => 1.0,
            Greedy::BenefitPerByte => indexes.iter().map(|&index| model.size[index] as f64).sum(),
            Greedy::BenefitPerWrite => indexes.iter().map(|&index| model.write[index]).sum(),
        }
    }
}

/// Indexes that could join a set together, and what that gains.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    pub indexes: Vec<usize>,
    pub gain: f64,
    price: f64,
}

impl Offer {
    /// Whether it gains more for its price; something for nothing beats all, and of those the larger gain.
    fn beats(&self, other: &Offer) -> bool {
        let (own, others) = (self.gain * other.price, other.gain * self.price);
        own > others || (own == others && self.gain > other.gain)
    }
}

/// What could join the set within the limits and gain something: single indexes, in the order of their numbers, then the
/// missing indexes of options that need several.
pub(super) fn offers(state: &mut State, measure: Greedy) -> Vec<Offer> {
    let model = state.model;
    let mut found = Vec::new();
    for index in 0..model.len() {
        if !state.has(index) {
            consider(state, vec![index], measure, &mut found);
        }
    }
    for (package, options) in &model.packages {
        if !options.iter().any(|&option| state.would_use(option)) {
            continue;
        }
        let missing: Vec<usize> = package.iter().copied().filter(|&index| !state.has(index)).collect();
        if missing.len() > 1 {
            consider(state, missing, measure, &mut found);
        }
    }
    found
}

fn consider(state: &mut State, indexes: Vec<usize>, measure: Greedy, found: &mut Vec<Offer>) {
    if !state.fits(&indexes) {
        return;
    }
    let gain = state.gain_of(&indexes);
    if gain > state.model.tolerance {
        let price = measure.price(state.model, &indexes);
        found.push(Offer { indexes, gain, price });
    }
}

/// Adds what gains most until nothing does.
pub(super) fn grow(state: &mut State, measure: Greedy, clock: &mut Clock) {
    while !clock.is_over() {
        let mut best: Option<Offer> = None;
        for offer in offers(state, measure) {
            if best.as_ref().is_none_or(|best| offer.beats(best)) {
                best = Some(offer);
            }
        }
        let Some(best) = best else { return };
        state.add_all(&best.indexes);
    }
}
