//! Least cost that any set can have, from below.
//!
//! Each query is charged a *share* of the price of each index that it uses, and then chooses its option on its own; an
//! index is worth the sum of its shares to whoever provides it, and the best packing of that worth into the limits is
//! given back. For any shares that are not negative, the queries' least charged costs less the worth of the packing are
//! a lower bound: a set whose indexes are used pays no more in shares than the packing gives back. This is the
//! Lagrangian relaxation of "an option needs its indexes" in the linear program of index selection (Dash, Polyzotis,
//! Ailamaki 2011), so the best shares reach that program's bound. The limit of write cost is priced in the same way.
//!
//! The shares are raised and lowered by subgradient ascent: step length after Polyak (1969) towards a cost to be reached,
//! direction with a memory of the directions before (Camerini, Fratta, Maffioli 1975).

use std::rc::Rc;

use super::Clock;
use super::knapsack::{Item, Packing, Space, pack};
use super::model::Model;

/// Part of the direction before that is kept.
const MEMORY: f64 = 0.6;
/// What steps are shortened by.
const SHORTER: f64 = 0.8;
/// Shortest step, as a part of the length after Polyak, before the ascent ends.
const SHORTEST: f64 = 0.001;
/// Weight of a new round in the average of the packings.
const NEWEST: f64 = 0.1;

/// How hard an ascent tries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    pub rounds: u32,
    /// First step, as a part of the length after Polyak; close to the best prices a full step loses what is won.
    pub length: f64,
    /// Rounds without a better bound before steps are shortened.
    pub patience: u32,
}

/// What is decided of an index in a part of the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fix {
    Open,
    In,
    Out,
}

/// What queries are charged.
#[derive(Clone, Debug)]
pub(super) struct Prices {
    /// For each pair of a query and an index.
    shares: Vec<f64>,
    /// Price of all the room for write cost.
    write_room: f64,
}

/// The model, as the relaxation sees it.
#[derive(Clone, Debug)]
pub(super) struct Relaxation<'a> {
    model: &'a Model,
    /// The pairs of each option.
    of_option: Vec<Vec<usize>>,
    index_of: Vec<usize>,
}

/// What an ascent found.
#[derive(Clone, Debug)]
pub(super) struct Ascent {
    /// No set that agrees with what is fixed costs less.
    pub bound: f64,
    /// The prices that give it.
    pub prices: Rc<Prices>,
    /// By how much each open index is worth more than its price, in the bound. Taking one worth less raises the bound by
    /// the difference, and so does leaving one worth more.
    pub net: Vec<f64>,
    /// For each open index, which part of it the packings took on average.
    pub part: Vec<f64>,
}

/// The bound at some prices.
struct Evaluation {
    bound: f64,
    net: Vec<f64>,
    part: Vec<f64>,
    /// Change of prices in which the bound rises.
    slope: Prices,
}

impl<'a> Relaxation<'a> {
    pub fn new(model: &'a Model) -> Relaxation<'a> {
        let mut relaxation = Relaxation { model, of_option: Vec::new(), index_of: Vec::new() };
        for range in &model.of_query {
            let first = relaxation.index_of.len();
            let mut indexes: Vec<usize> =
                model.options[range.clone()].iter().flat_map(|option| option.members.iter().copied()).collect();
            indexes.sort_unstable();
            indexes.dedup();
            for option in &model.options[range.clone()] {
                let pair = |&index: &usize| first + indexes.partition_point(|other| *other < index);
                relaxation.of_option.push(option.members.iter().map(pair).collect());
            }
            relaxation.index_of.extend(indexes);
        }
        relaxation
    }

    /// Prices of nothing: the bound is what the queries cost when each has what it likes.
    pub fn no_prices(&self) -> Prices {
        Prices { shares: vec![0.0; self.index_of.len()], write_room: 0.0 }
    }

    /// Memory that prices take up, in numbers.
    pub fn pairs(&self) -> usize {
        self.index_of.len()
    }

    /// The bound at prices of nothing, without any ascent.
    pub fn trivial_bound(&self, fixed: &[Fix]) -> f64 {
        self.evaluate(fixed, &self.no_prices()).bound
    }

    /// Looks for prices with a bound that reaches the target, which is worth nothing to exceed.
    pub fn ascend(&self, fixed: &[Fix], start: &Prices, target: f64, effort: Effort, clock: &mut Clock) -> Ascent {
        let mut prices = self.fitting(start, fixed);
        let mut direction = self.no_prices();
        let first = self.evaluate(fixed, &prices);
        let mut best = Ascent {
            bound: first.bound,
            prices: Rc::new(prices.clone()),
            net: first.net.clone(),
            part: first.part.clone(),
        };
        let (mut now, mut length, mut waiting) = (first, effort.length, 0);
        for _ in 0..effort.rounds {
            if best.bound >= target || length < SHORTEST || clock.is_over() {
                break;
            }
            direction.turn(&now.slope);
            if !prices.step(&direction, length * (target - now.bound)) {
                break;
            }
            now = self.evaluate(fixed, &prices);
            average(&mut best.part, &now.part);
            waiting += 1;
            if now.bound > best.bound {
                waiting = 0;
                best.bound = now.bound;
                best.net.clone_from(&now.net);
                best.prices = Rc::new(prices.clone());
            }
            if waiting > effort.patience {
                (length, waiting) = (length * SHORTER, 0);
            }
        }
        best
    }

    /// Prices for what is still open: an index that is in costs no share, one that is out more than any query pays.
    fn fitting(&self, start: &Prices, fixed: &[Fix]) -> Prices {
        let share = |(&index, &share): (&usize, &f64)| match fixed[index] {
            Fix::Open => share,
            Fix::In => 0.0,
            Fix::Out => f64::INFINITY,
        };
        Prices { shares: self.index_of.iter().zip(&start.shares).map(share).collect(), write_room: start.write_room }
    }

    fn evaluate(&self, fixed: &[Fix], prices: &Prices) -> Evaluation {
        let mut slope = self.no_prices();
        let queries: f64 = (0..self.model.base.len()).map(|query| self.charge(query, prices, &mut slope)).sum();
        let taken = || (0..self.model.len()).filter(|&index| fixed[index] == Fix::In);
        let write_unit = self.write_unit();
        let paid: f64 = taken().map(|index| self.model.write[index]).sum();
        let write_left = 1.0 - paid * write_unit;
        let worth = self.worth(fixed, prices);
        let (items, packing) = self.pack(fixed, &worth);
        let room_price = if write_unit > 0.0 { prices.write_room * write_left } else { 0.0 };
        let mut evaluation = Evaluation {
            bound: self.model.constant + paid + queries - packing.value - room_price,
            net: self.net(&worth, &packing),
            part: vec![0.0; self.model.len()],
            slope,
        };
        items.iter().zip(&packing.parts).for_each(|(item, &part)| evaluation.part[item.index] = part);
        self.finish_slope(&mut evaluation, fixed, write_left);
        evaluation
    }

    /// Least charged cost of a query; marks the pairs that it pays for.
    fn charge(&self, query: usize, prices: &Prices, slope: &mut Prices) -> f64 {
        let (mut least, mut chosen) = (self.model.base[query], None);
        for number in self.model.of_query[query].clone() {
            let cost = self.model.options[number].cost;
            if cost >= least {
                break;
            }
            let charged = cost + self.of_option[number].iter().map(|&pair| prices.shares[pair]).sum::<f64>();
            if charged < least {
                (least, chosen) = (charged, Some(number));
            }
        }
        if let Some(number) = chosen {
            self.of_option[number].iter().for_each(|&pair| slope.shares[pair] = 1.0);
        }
        least
    }

    /// One part of the room for write cost; nothing if that is not limited.
    fn write_unit(&self) -> f64 {
        if self.model.room.writes > 0.0 { 1.0 / self.model.room.writes } else { 0.0 }
    }

    /// What each open index brings in, less its write cost and what that takes up of the room.
    fn worth(&self, fixed: &[Fix], prices: &Prices) -> Vec<f64> {
        let write_price = 1.0 + prices.write_room * self.write_unit();
        let mut worth: Vec<f64> = self.model.write.iter().map(|write| -write * write_price).collect();
        for (&index, &share) in self.index_of.iter().zip(&prices.shares) {
            if fixed[index] == Fix::Open {
                worth[index] += share;
            }
        }
        (0..worth.len()).filter(|&index| fixed[index] != Fix::Open).for_each(|index| worth[index] = 0.0);
        worth
    }

    fn pack(&self, fixed: &[Fix], worth: &[f64]) -> (Vec<Item>, Packing) {
        let mut bytes = self.model.room.bytes;
        let mut per_table = self.model.room.per_table.clone();
        for index in (0..self.model.len()).filter(|&index| fixed[index] == Fix::In) {
            bytes = bytes.saturating_sub(u128::from(self.model.size[index]));
            let table = &mut per_table[self.model.table[index]];
            *table = table.saturating_sub(1);
        }
        let item = |index| Item {
            index,
            value: worth[index],
            size: self.model.size[index] as f64,
            table: self.model.table[index],
        };
        let items: Vec<Item> = (0..self.model.len()).filter(|&index| worth[index] > 0.0).map(item).collect();
        let per_table = self.model.has_table_limit.then_some(per_table.as_slice());
        let packing = pack(&items, Space { bytes: bytes as f64, per_table });
        (items, packing)
    }

    fn net(&self, worth: &[f64], packing: &Packing) -> Vec<f64> {
        let net = |(index, worth): (usize, &f64)| {
            let table_price = packing.table_prices.get(self.model.table[index]).copied().unwrap_or(0.0);
            worth - packing.byte_price * self.model.size[index] as f64 - table_price
        };
        worth.iter().enumerate().map(net).collect()
    }

    /// A share rises where a query pays it and falls by the part of the index that is packed.
    fn finish_slope(&self, evaluation: &mut Evaluation, fixed: &[Fix], write_left: f64) {
        for (slope, &index) in evaluation.slope.shares.iter_mut().zip(&self.index_of) {
            *slope = if fixed[index] == Fix::Open { *slope - evaluation.part[index] } else { 0.0 };
        }
        let unit = self.write_unit();
        if unit > 0.0 {
            let used = self.model.write.iter().zip(&evaluation.part).map(|(write, part)| write * unit * part);
            evaluation.slope.write_room = used.sum::<f64>() - write_left;
        }
    }
}

impl Prices {
    /// Turns a direction towards a slope.
    fn turn(&mut self, slope: &Prices) {
        let pairs = self.shares.iter_mut().zip(&slope.shares);
        pairs.for_each(|(own, slope)| *own = slope + MEMORY * *own);
        self.write_room = slope.write_room + MEMORY * self.write_room;
    }

    /// Moves so far that the bound would rise by so much if the slope stayed as it is. Says whether there is a way to go.
    fn step(&mut self, direction: &Prices, rise: f64) -> bool {
        let square: f64 = direction.shares.iter().chain([&direction.write_room]).map(|part| part * part).sum();
        if square <= 1e-18 {
            return false;
        }
        let length = rise / square;
        let shares = self.shares.iter_mut().zip(&direction.shares);
        shares.for_each(|(share, direction)| *share = (*share + length * direction).max(0.0));
        self.write_room = (self.write_room + length * direction.write_room).max(0.0);
        true
    }
}

fn average(parts: &mut [f64], newest: &[f64]) {
    parts.iter_mut().zip(newest).for_each(|(part, newest)| *part += NEWEST * (newest - *part));
}
