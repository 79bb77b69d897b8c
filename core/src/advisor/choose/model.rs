//! A problem made small: what is forced is taken as given, and what cannot be part of a best choice is left out.
//!
//! The indexes of a model count from 0 and are the ones whose choice matters. An option is left out when it costs no
//! less than another that needs no index besides, or when its indexes do not fit the limits. An index is left out when
//! another takes its place in each of its options at no greater cost, size and write cost, on the same table if that
//! matters; this shrinks hundreds of candidates to dozens, since most are longer versions of one another.

use std::collections::BTreeMap;
use std::ops::Range;

use super::problem::{Problem, Standing};

/// An option of a query.
#[derive(Clone, Debug)]
pub(super) struct Opt {
    pub query: usize,
    /// Indexes that it needs, ascending.
    pub members: Vec<usize>,
    /// Weighted cost.
    pub cost: f64,
}

/// What the free indexes of the model may use of the limits.
#[derive(Clone, Debug)]
pub(super) struct Room {
    pub bytes: u128,
    pub writes: f64,
    /// Indexes, for each table of the model.
    pub per_table: Vec<u32>,
}

/// The problem, reduced.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// Numbers in the problem, ascending.
    pub numbers: Vec<u32>,
    pub size: Vec<u64>,
    pub write: Vec<f64>,
    /// Tables of the model count from 0.
    pub table: Vec<usize>,
    pub room: Room,
    /// Whether there is a limit for each table.
    pub has_table_limit: bool,
    /// Weighted cost of each query with no index of the model.
    pub base: Vec<f64>,
    /// By query, then by cost.
    pub options: Vec<Opt>,
    /// Options of each query.
    pub of_query: Vec<Range<usize>>,
    /// Options of each index, ascending.
    pub of_index: Vec<Vec<usize>>,
    /// The different sets of two or more indexes that options need, each with those options.
    pub packages: Vec<(Vec<usize>, Vec<usize>)>,
    /// Write costs of what is forced.
    pub constant: f64,
    /// Differences of cost up to this are rounding.
    pub tolerance: f64,
}

impl Model {
    /// Reduces a valid problem.
    pub fn new(problem: &Problem) -> Model {
        let forced: Vec<bool> = problem.indexes.iter().map(|index| index.standing == Standing::Forced).collect();
        let mut draft = Draft::new(problem, &forced);
        draft.drop_dominated_options();
        draft.drop_dominated_indexes();
        let numbers = draft.used_indexes();
        let tables = Tables::new(problem, &numbers);
        let mut model = Model {
            size: numbers.iter().map(|&number| problem.indexes[number].size_bytes).collect(),
            write: numbers.iter().map(|&number| problem.indexes[number].write_cost).collect(),
            table: tables.of(problem, &numbers),
            room: Room { per_table: tables.room(problem, &forced), ..draft.room.clone() },
            has_table_limit: problem.limits.indexes_per_table.is_some(),
            constant: problem.write_cost_of(&forced),
            tolerance: 1e-10 * (problem.cost_without_any() + problem.write_cost_of(&forced)),
            base: draft.base,
            options: Vec::new(),
            of_query: Vec::new(),
            of_index: vec![Vec::new(); numbers.len()],
            packages: Vec::new(),
            numbers: numbers.iter().map(|&number| number as u32).collect(),
        };
        model.take_options(draft.options, &numbers);
        model
    }

    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    fn take_options(&mut self, options: Vec<Vec<Opt>>, numbers: &[usize]) {
        for of_query in options {
            let start = self.options.len();
            for mut option in of_query {
                for member in &mut option.members {
                    *member = numbers.partition_point(|number| number < member);
                    self.of_index[*member].push(self.options.len());
                }
                self.options.push(option);
            }
            self.of_query.push(start..self.options.len());
        }
        let mut packages: BTreeMap<&[usize], Vec<usize>> = BTreeMap::new();
        for (number, option) in self.options.iter().enumerate().filter(|(_, option)| option.members.len() > 1) {
            packages.entry(&option.members).or_default().push(number);
        }
        self.packages = packages.into_iter().map(|(members, options)| (members.to_vec(), options)).collect();
    }
}

/// The tables of the model's indexes.
struct Tables {
    known: Vec<u32>,
}

impl Tables {
    fn new(problem: &Problem, numbers: &[usize]) -> Tables {
        let mut known: Vec<u32> = numbers.iter().map(|&number| problem.indexes[number].table).collect();
        known.sort_unstable();
        known.dedup();
        Tables { known }
    }

    fn of(&self, problem: &Problem, numbers: &[usize]) -> Vec<usize> {
        let place = |&number: &usize| self.known.partition_point(|known| *known < problem.indexes[number].table);
        numbers.iter().map(place).collect()
    }

    fn room(&self, problem: &Problem, forced: &[bool]) -> Vec<u32> {
        self.known.iter().map(|&table| table_room(problem, forced, table)).collect()
    }
}

/// Indexes that a table may have besides those forced.
fn table_room(problem: &Problem, forced: &[bool], table: u32) -> u32 {
    let Some(limit) = problem.limits.indexes_per_table else { return u32::MAX };
    let of_table = problem.indexes.iter().zip(forced).filter(|(index, forced)| **forced && index.table == table);
    limit.saturating_sub(of_table.count() as u32)
}

/// A model in the making; indexes have the numbers of the problem.
struct Draft<'a> {
    problem: &'a Problem,
    room: Room,
    base: Vec<f64>,
    /// For each query.
    options: Vec<Vec<Opt>>,
}

impl<'a> Draft<'a> {
    fn new(problem: &'a Problem, forced: &[bool]) -> Draft<'a> {
        let bytes = match problem.limits.storage_bytes {
            Some(limit) => u128::from(limit).saturating_sub(problem.bytes_of(forced)),
            None => u128::MAX,
        };
        let writes = (problem.limits.write_ceiling() - problem.write_cost_of(forced)).max(0.0);
        let mut draft = Draft {
            problem,
            room: Room { bytes, writes, per_table: Vec::new() },
            base: Vec::with_capacity(problem.queries.len()),
            options: Vec::with_capacity(problem.queries.len()),
        };
        for query in 0..problem.queries.len() {
            draft.take_query(query, forced);
        }
        draft
    }

    fn take_query(&mut self, number: usize, forced: &[bool]) {
        let query = &self.problem.queries[number];
        let base = query.weight * query.least_cost(&|index| forced[index as usize]);
        let mut options = Vec::new();
        for option in &query.options {
            let cost = query.weight * option.cost;
            let mut members: Vec<usize> = option.indexes.iter().map(|&index| index as usize).collect();
            members.retain(|&index| !forced[index]);
            members.sort_unstable();
            members.dedup();
            if cost < base && self.is_possible(&members, forced) {
                options.push(Opt { query: number, members, cost });
            }
        }
        options.sort_by(|a, b| a.cost.total_cmp(&b.cost).then_with(|| a.members.cmp(&b.members)));
        self.base.push(base);
        self.options.push(options);
    }

    /// Whether the indexes could be chosen together, with what is forced and nothing else.
    fn is_possible(&self, members: &[usize], forced: &[bool]) -> bool {
        let facts = || members.iter().map(|&index| &self.problem.indexes[index]);
        facts().all(|index| index.standing == Standing::Free)
            && facts().map(|index| u128::from(index.size_bytes)).sum::<u128>() <= self.room.bytes
            && facts().map(|index| index.write_cost).sum::<f64>() <= self.room.writes
            && (self.problem.limits.indexes_per_table.is_none()
                || facts().all(|index| {
                    let same = facts().filter(|other| other.table == index.table).count() as u32;
                    same <= table_room(self.problem, forced, index.table)
                }))
    }

    fn drop_dominated_options(&mut self) {
        for options in &mut self.options {
            let mut kept: Vec<Opt> = Vec::with_capacity(options.len());
            for option in options.drain(..) {
                if !kept.iter().any(|cheaper| is_subset(&cheaper.members, &option.members)) {
                    // What costs the same and needs more may stand before what needs less.
                    kept.retain(|same| same.cost < option.cost || !is_subset(&option.members, &same.members));
                    kept.push(option);
                }
            }
            *options = kept;
        }
    }

    /// Leaves out indexes from the highest number down, so that of two alike the lower number stays.
    fn drop_dominated_indexes(&mut self) {
        let mut places: Vec<Vec<(usize, usize)>> = vec![Vec::new(); self.problem.indexes.len()];
        for (query, options) in self.options.iter().enumerate() {
            for (place, option) in options.iter().enumerate() {
                option.members.iter().for_each(|&index| places[index].push((query, place)));
            }
        }
        let mut is_out = vec![false; places.len()];
        for index in (0..places.len()).rev() {
            is_out[index] = self.has_better(index, &places, &is_out);
        }
        for options in &mut self.options {
            options.retain(|option| option.members.iter().all(|&index| !is_out[index]));
        }
    }

    /// Whether another index can take the place of this one.
    fn has_better(&self, index: usize, places: &[Vec<(usize, usize)>], is_out: &[bool]) -> bool {
        let is_live = |option: &Opt| option.members.iter().all(|&member| !is_out[member]);
        let own: Vec<&Opt> = places[index]
            .iter()
            .map(|&(query, place)| &self.options[query][place])
            .filter(|own| is_live(own))
            .collect();
        let Some(first) = own.first() else { return true };
        let mut others: Vec<usize> = Vec::new();
        for option in self.options[first.query].iter().take_while(|option| option.cost <= first.cost) {
            others.extend(option.members.iter().filter(|member| first.members.binary_search(member).is_err()));
        }
        others.sort_unstable();
        others.dedup();
        others.iter().any(|&other| {
            !is_out[other]
                && self.is_no_dearer(other, index)
                && own.iter().all(|own| self.is_replaced(own, index, other, &places[other]))
        })
    }

    fn is_no_dearer(&self, other: usize, index: usize) -> bool {
        let (other, index) = (&self.problem.indexes[other], &self.problem.indexes[index]);
        let same_table = other.table == index.table || self.problem.limits.indexes_per_table.is_none();
        other.size_bytes <= index.size_bytes && other.write_cost <= index.write_cost && same_table
    }

    /// Whether the other index in place of this one makes an option that costs no more.
    fn is_replaced(&self, own: &Opt, index: usize, other: usize, places: &[(usize, usize)]) -> bool {
        places.iter().filter(|(query, _)| *query == own.query).any(|&(query, place)| {
            let option = &self.options[query][place];
            let fits =
                |member: &usize| *member != index && (*member == other || own.members.binary_search(member).is_ok());
            option.cost <= own.cost && option.members.iter().all(fits)
        })
    }

    fn used_indexes(&self) -> Vec<usize> {
        let mut used: Vec<usize> =
            self.options.iter().flatten().flat_map(|option| option.members.iter().copied()).collect();
        used.sort_unstable();
        used.dedup();
        used
    }
}

/// Whether an ascending list has all of another.
fn is_subset(part: &[usize], whole: &[usize]) -> bool {
    part.iter().all(|item| whole.binary_search(item).is_ok())
}
