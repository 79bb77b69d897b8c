//! A set of indexes of a model with what it costs, kept up to date as indexes come and go.

use super::model::Model;

/// Marks a query that no option helps.
const NONE: usize = usize::MAX;

/// The set; every index of the model is in it or out of it.
#[derive(Clone, Debug)]
pub(super) struct State<'a> {
    pub model: &'a Model,
    present: Vec<bool>,
    /// Indexes in the set, ascending.
    members: Vec<usize>,
    /// For each option, how many of its indexes are not in the set.
    missing: Vec<usize>,
    /// For each query, the cheapest option whose indexes are in the set.
    best: Vec<usize>,
    bytes: u128,
    per_table: Vec<u32>,
}

impl<'a> State<'a> {
    /// The empty set.
    pub fn new(model: &'a Model) -> State<'a> {
        State {
            model,
            present: vec![false; model.len()],
            members: Vec::new(),
            missing: model.options.iter().map(|option| option.members.len()).collect(),
            best: vec![NONE; model.base.len()],
            bytes: 0,
            per_table: vec![0; model.room.per_table.len()],
        }
    }

    /// A set that is known to keep to the limits.
    pub fn of(model: &'a Model, members: &[usize]) -> State<'a> {
        let mut state = State::new(model);
        state.add_all(members);
        state
    }

    pub fn has(&self, index: usize) -> bool {
        self.present[index]
    }

    pub fn members(&self) -> &[usize] {
        &self.members
    }

    /// Cost of the queries and of the writes, what is forced included.
    pub fn cost(&self) -> f64 {
        let queries: f64 = (0..self.best.len()).map(|query| self.query_cost(query)).sum();
        self.model.constant + queries + self.writes()
    }

    pub fn query_cost(&self, query: usize) -> f64 {
        self.cost_by(query, self.best[query])
    }

    /// Whether a query would use an option if its indexes were in the set.
    pub fn would_use(&self, option: usize) -> bool {
        // Options of a query are numbered by cost.
        option < self.best[self.model.options[option].query]
    }

    pub fn add(&mut self, index: usize) {
        if std::mem::replace(&mut self.present[index], true) {
            return;
        }
        let place = self.members.partition_point(|&member| member < index);
        self.members.insert(place, index);
        self.bytes += u128::from(self.model.size[index]);
        self.per_table[self.model.table[index]] += 1;
        for &number in &self.model.of_index[index] {
            self.missing[number] -= 1;
            if self.missing[number] == 0 && self.would_use(number) {
                self.best[self.model.options[number].query] = number;
            }
        }
    }

    pub fn remove(&mut self, index: usize) {
        if !std::mem::replace(&mut self.present[index], false) {
            return;
        }
        self.members.retain(|&member| member != index);
        self.bytes -= u128::from(self.model.size[index]);
        self.per_table[self.model.table[index]] -= 1;
        let model = self.model;
        for &number in &model.of_index[index] {
            self.missing[number] += 1;
        }
        for &number in &model.of_index[index] {
            let query = model.options[number].query;
            if self.best[query] == number {
                let mut later = number + 1..model.of_query[query].end;
                self.best[query] = later.find(|&option| self.missing[option] == 0).unwrap_or(NONE);
            }
        }
    }

    pub fn add_all(&mut self, indexes: &[usize]) {
        indexes.iter().for_each(|&index| self.add(index));
    }

    pub fn remove_all(&mut self, indexes: &[usize]) {
        indexes.iter().for_each(|&index| self.remove(index));
    }

    /// Whether indexes that are not in the set could join it, together, within the limits.
    pub fn fits(&self, indexes: &[usize]) -> bool {
        let room = &self.model.room;
        let bytes: u128 = indexes.iter().map(|&index| u128::from(self.model.size[index])).sum();
        let writes: f64 = indexes.iter().map(|&index| self.model.write[index]).sum();
        self.bytes + bytes <= room.bytes
            && self.writes() + writes <= room.writes
            && (!self.model.has_table_limit || indexes.iter().all(|&index| self.fits_table(index, indexes)))
    }

    fn fits_table(&self, index: usize, joining: &[usize]) -> bool {
        let table = self.model.table[index];
        let more = joining.iter().filter(|&&other| self.model.table[other] == table).count() as u32;
        self.per_table[table].saturating_add(more) <= self.model.room.per_table[table]
    }

    /// By how much the cost falls when an index joins, which may be less than nothing.
    pub fn gain(&self, index: usize) -> f64 {
        let mut gain = -self.model.write[index];
        let mut last_query = NONE;
        for &number in &self.model.of_index[index] {
            let query = self.model.options[number].query;
            if self.missing[number] == 1 && query != last_query {
                // The first of the query is the cheapest that only this index is missing from.
                last_query = query;
                if self.would_use(number) {
                    gain += self.query_cost(query) - self.cost_by(query, number);
                }
            }
        }
        gain
    }

    /// The same for several indexes that are not in the set.
    pub fn gain_of(&mut self, indexes: &[usize]) -> f64 {
        if let [index] = indexes {
            return self.gain(*index);
        }
        let gain = indexes.iter().map(|&index| self.add_measured(index)).sum();
        self.remove_all(indexes);
        gain
    }

    fn add_measured(&mut self, index: usize) -> f64 {
        let gain = self.gain(index);
        self.add(index);
        gain
    }

    /// By how much the cost rises when an index leaves, which may be less than nothing.
    pub fn loss(&self, index: usize) -> f64 {
        let mut loss = -self.model.write[index];
        for &number in &self.model.of_index[index] {
            let query = self.model.options[number].query;
            if self.best[query] == number {
                let without = |option: &usize| {
                    self.missing[*option] == 0 && !self.model.options[*option].members.contains(&index)
                };
                let next = (number + 1..self.model.of_query[query].end).find(without).unwrap_or(NONE);
                loss += self.cost_by(query, next) - self.query_cost(query);
            }
        }
        loss
    }

    fn cost_by(&self, query: usize, option: usize) -> f64 {
        self.model.options.get(option).map_or(self.model.base[query], |option| option.cost)
    }

    /// Always the same sum for the same set.
    fn writes(&self) -> f64 {
        self.members.iter().map(|&index| self.model.write[index]).sum()
    }
}
