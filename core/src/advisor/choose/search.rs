//! Local search: a set is changed for the better until no small change is.

use super::Clock;
use super::greedy::{Greedy, Offer, grow, offers};
use super::model::Model;
use super::state::State;

/// Candidates tried as the start of a set.
const SEEDS: usize = 12;
/// Pairs of additions measured in place of what was removed; they are tried from the most promising on.
const PAIRS: usize = 200;

/// The best set found so far.
#[derive(Clone, Debug)]
pub(super) struct Best {
    pub members: Vec<usize>,
    pub cost: f64,
}

impl Best {
    /// The empty set.
    pub fn new(model: &Model) -> Best {
        Best { members: Vec::new(), cost: State::new(model).cost() }
    }

    /// Takes a set if it is better.
    pub fn offer(&mut self, state: &State) {
        let cost = state.cost();
        if cost < self.cost {
            *self = Best { members: state.members().to_vec(), cost };
        }
    }
}

/// Every greedy growth from nothing, then local search from the best.
pub(super) fn start(model: &Model, best: &mut Best, clock: &mut Clock) {
    for measure in Greedy::ALL {
        let mut state = State::new(model);
        grow(&mut state, measure, clock);
        best.offer(&state);
    }
    polish(model, best, clock);
}

/// Local search from the best set.
pub(super) fn polish(model: &Model, best: &mut Best, clock: &mut Clock) {
    let mut state = State::of(model, &best.members);
    improve(&mut state, clock);
    best.offer(&state);
}

/// Takes each of the most useful candidates as the first index of a set, as the Database Tuning Advisor does, since
/// growth never takes back its first step.
pub(super) fn seeds(model: &Model, best: &mut Best, clock: &mut Clock) {
    let mut firsts = offers(&mut State::new(model), Greedy::Benefit);
    firsts.sort_by(|a, b| b.gain.total_cmp(&a.gain).then_with(|| a.indexes.cmp(&b.indexes)));
    for first in firsts.iter().take(SEEDS) {
        for measure in [Greedy::BenefitPerByte, Greedy::Benefit] {
            if clock.is_over() {
                return;
            }
            let mut state = State::of(model, &first.indexes);
            grow(&mut state, measure, clock);
            improve(&mut state, clock);
            best.offer(&state);
        }
    }
}

/// Drops, adds and swaps until none of them lowers the cost.
pub(super) fn improve(state: &mut State, clock: &mut Clock) {
    loop {
        drop_useless(state);
        grow(state, Greedy::Benefit, clock);
        drop_useless(state);
        if !swap_some(state, clock) {
            return;
        }
    }
}

/// Removes indexes that cost no less than they save, the worst first.
pub(super) fn drop_useless(state: &mut State) {
    loop {
        let losses = state.members().iter().map(|&index| (state.loss(index), index));
        // Of equals the highest number leaves.
        let worst = losses.min_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
        match worst {
            Some((loss, index)) if loss <= 0.0 => state.remove(index),
            _ => return,
        }
    }
}

/// Makes the first swap that helps: one index for one or two others, or two for one or more.
fn swap_some(state: &mut State, clock: &mut Clock) -> bool {
    let members = state.members().to_vec();
    let singles = members.iter().map(|&index| vec![index]);
    let pairs = members
        .iter()
        .enumerate()
        .flat_map(|(place, &first)| members[place + 1..].iter().map(move |&second| vec![first, second]));
    for leaving in singles.chain(pairs) {
        if clock.is_over() {
            return false;
        }
        if swap(state, &leaving, clock) {
            return true;
        }
    }
    false
}

/// Puts others in the place of some indexes, if that lowers the cost.
fn swap(state: &mut State, leaving: &[usize], clock: &mut Clock) -> bool {
    let before = state.cost();
    state.remove_all(leaving);
    let needed = state.cost() - before + state.model.tolerance;
    let joining = best_pair(state, leaving, needed);
    state.add_all(&joining);
    if !joining.is_empty() {
        return true;
    }
    // More than two in their place.
    let mut grown = state.clone();
    grow(&mut grown, Greedy::BenefitPerByte, clock);
    if grown.cost() < before - state.model.tolerance {
        *state = grown;
        return true;
    }
    state.add_all(leaving);
    false
}

/// The one or two additions that gain most, if more than what is needed.
fn best_pair(state: &mut State, leaving: &[usize], needed: f64) -> Vec<usize> {
    let mut found = offers(state, Greedy::Benefit);
    found.retain(|offer| !leaving.iter().any(|index| offer.indexes == [*index]));
    found.sort_by(|a, b| b.gain.total_cmp(&a.gain).then_with(|| a.indexes.cmp(&b.indexes)));
    let mut joining = Joining { gain: needed, indexes: Vec::new(), pairs_left: PAIRS };
    if let Some(first) = found.first().filter(|first| first.gain > needed) {
        joining.take(first.gain, first.indexes.clone());
    }
    for (place, first) in found.iter().enumerate() {
        joining.pair(state, first, &found[place + 1..]);
    }
    joining.indexes
}

/// The best replacement so far.
struct Joining {
    gain: f64,
    indexes: Vec<usize>,
    pairs_left: usize,
}

impl Joining {
    fn take(&mut self, gain: f64, indexes: Vec<usize>) {
        (self.gain, self.indexes) = (gain, indexes);
    }

    /// Looks for a second addition besides a first. Two rarely gain more together than the sum of their gains, so pairs
    /// whose sum is not enough are passed over.
    fn pair(&mut self, state: &mut State, first: &Offer, others: &[Offer]) {
        let Some(second) = others.first() else { return };
        if self.pairs_left == 0 || first.gain + second.gain <= self.gain {
            return;
        }
        state.add_all(&first.indexes);
        for second in others {
            if self.pairs_left == 0 || first.gain + second.gain <= self.gain {
                break;
            }
            let more: Vec<usize> = second.indexes.iter().copied().filter(|&index| !state.has(index)).collect();
            if more.is_empty() || !state.fits(&more) {
                continue;
            }
            self.pairs_left -= 1;
            let gain = first.gain + state.gain_of(&more);
            if gain > self.gain {
                self.take(gain, [first.indexes.as_slice(), &more].concat());
            }
        }
        state.remove_all(&first.indexes);
    }
}
