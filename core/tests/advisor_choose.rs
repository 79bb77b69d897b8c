//! The chosen indexes against the proved optimum of a published matrix, and against all sets of small problems.
use proptest::prelude::*;
use steward_core::advisor::choose::{
    Choice, CostOption, Greedy, IndexFacts, Limit, Limits, Problem, ProblemError, QueryCosts, Standing, choose,
    grow_greedily,
};

mod tpch;

fn steps(mut steps: u32) -> impl FnMut() -> bool {
    move || {
        steps = steps.saturating_sub(1);
        steps == 0
    }
}

fn choose_all(problem: &Problem) -> Choice {
    choose(problem, &mut || false).unwrap()
}

fn index(size_bytes: u64, write_cost: f64, table: u32) -> IndexFacts {
    IndexFacts { size_bytes, write_cost, table, standing: Standing::Free }
}

fn query(cost_without: f64, options: &[(&[u32], f64)]) -> QueryCosts {
    let options = options.iter().map(|(indexes, cost)| CostOption { indexes: indexes.to_vec(), cost: *cost }).collect();
    QueryCosts { weight: 1.0, cost_without, options }
}

// The reference: every set, with a cost computed in the plainest way.

fn has(set: u32, index: u32) -> bool {
    set >> index & 1 == 1
}

fn members(set: u32, problem: &Problem) -> impl Iterator<Item = &IndexFacts> {
    problem.indexes.iter().enumerate().filter(move |(number, _)| has(set, *number as u32)).map(|(_, index)| index)
}

fn plain_cost(problem: &Problem, set: u32) -> f64 {
    let mut total: f64 = members(set, problem).map(|index| index.write_cost).sum();
    for query in &problem.queries {
        let mut least = query.cost_without;
        for option in &query.options {
            if option.indexes.iter().all(|&index| has(set, index)) {
                least = least.min(option.cost);
            }
        }
        total += query.weight * least;
    }
    total
}

fn keeps_to_limits(problem: &Problem, set: u32) -> bool {
    let Limits { storage_bytes, indexes_per_table, write_cost } = problem.limits;
    let bytes: u64 = members(set, problem).map(|index| index.size_bytes).sum();
    let writes: f64 = members(set, problem).map(|index| index.write_cost).sum();
    let most = (0..4).map(|table| members(set, problem).filter(|index| index.table == table).count()).max();
    storage_bytes.is_none_or(|limit| bytes <= limit)
        && write_cost.is_none_or(|limit| writes <= limit + 1e-9)
        && indexes_per_table.is_none_or(|limit| most <= Some(limit as usize))
}

fn has_standing(problem: &Problem, set: u32) -> bool {
    problem.indexes.iter().enumerate().all(|(number, index)| match index.standing {
        Standing::Free => true,
        Standing::Forced => has(set, number as u32),
        Standing::Forbidden => !has(set, number as u32),
    })
}

/// `None` if not even the forced indexes keep to the limits.
fn least_cost(problem: &Problem) -> Option<f64> {
    let sets = 0..1u32 << problem.indexes.len();
    let possible = sets.filter(|&set| has_standing(problem, set) && keeps_to_limits(problem, set));
    possible.map(|set| plain_cost(problem, set)).min_by(f64::total_cmp)
}

fn as_set(indexes: &[u32]) -> u32 {
    indexes.iter().fold(0, |set, index| set | 1 << index)
}

/// Everything a choice says of itself.
fn check_choice(problem: &Problem, choice: &Choice) {
    let set = as_set(&choice.indexes);
    assert!(choice.indexes.is_sorted_by(|a, b| a < b));
    assert!(has_standing(problem, set) && keeps_to_limits(problem, set), "{choice:?}");
    assert!(near(choice.cost, plain_cost(problem, set)));
    assert!(near(choice.write_cost, members(set, problem).map(|index| index.write_cost).sum()));
    assert_eq!(choice.size_bytes, members(set, problem).map(|index| index.size_bytes).sum::<u64>());
    assert_eq!(choice.contributions.len(), choice.indexes.len());
    for (&index, &contribution) in choice.indexes.iter().zip(&choice.contributions) {
        assert!(near(contribution, plain_cost(problem, set & !(1 << index)) - choice.cost));
        assert!(contribution > 0.0 || problem.indexes[index as usize].standing == Standing::Forced);
    }
    assert!(choice.lower_bound <= choice.cost && choice.gap() >= 0.0);
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6
}

// Small problems: few sizes, so that limits are met exactly; a few that cannot be met.

fn standing() -> impl Strategy<Value = Standing> {
    prop_oneof![8 => Just(Standing::Free), 1 => Just(Standing::Forced), 1 => Just(Standing::Forbidden)]
}

fn indexes(count: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Vec<IndexFacts>> {
    let write_cost = prop_oneof![2 => Just(0.0), 3 => (0..60u32).prop_map(|tenths| f64::from(tenths) / 10.0)];
    let size_bytes = prop_oneof![1 => Just(0u64), 6 => 1..40u64];
    let index = (size_bytes, write_cost, 0..3u32, standing())
        .prop_map(|(size_bytes, write_cost, table, standing)| IndexFacts { size_bytes, write_cost, table, standing });
    prop::collection::vec(index, count)
}

fn query_costs(indexes: u32, widest: usize) -> impl Strategy<Value = QueryCosts> {
    let cost = prop_oneof![1 => Just(10.0), 5 => 0.0..130.0];
    let option =
        (prop::collection::vec(0..indexes, 1..=widest), cost).prop_map(|(indexes, cost)| CostOption { indexes, cost });
    let weight = prop_oneof![1 => Just(0.0), 6 => Just(1.0), 3 => 0.1..3.0];
    (weight, 20.0..100.0, prop::collection::vec(option, 0..10)).prop_map(|(weight, cost_without, options)| QueryCosts {
        weight,
        cost_without,
        options,
    })
}

fn limits(most_bytes: u64) -> impl Strategy<Value = Limits> {
    let storage_bytes = prop::option::weighted(0.8, 0..most_bytes);
    let per_table = prop::option::weighted(0.4, 0..4u32);
    let write_cost = prop::option::weighted(0.4, (0..150u32).prop_map(|tenths| f64::from(tenths) / 10.0));
    (storage_bytes, per_table, write_cost).prop_map(|(storage_bytes, indexes_per_table, write_cost)| Limits {
        storage_bytes,
        indexes_per_table,
        write_cost,
    })
}

fn small_problem() -> impl Strategy<Value = Problem> {
    (indexes(1..=10), limits(150)).prop_flat_map(|(indexes, limits)| {
        let queries = prop::collection::vec(query_costs(indexes.len() as u32, 3), 0..7);
        queries.prop_map(move |queries| Problem { queries, indexes: indexes.clone(), limits })
    })
}

fn larger_problem() -> impl Strategy<Value = Problem> {
    (indexes(20..=30), limits(300)).prop_flat_map(|(indexes, limits)| {
        let queries = prop::collection::vec(query_costs(indexes.len() as u32, 2), 5..15);
        queries.prop_map(move |queries| Problem { queries, indexes: indexes.clone(), limits })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_search_to_the_end_finds_the_best_of_all_sets(problem in small_problem()) {
        match least_cost(&problem) {
            None => prop_assert!(matches!(choose(&problem, &mut || false), Err(ProblemError::ForcedBreaksLimit(_)))),
            Some(least) => {
                let choice = choose_all(&problem);
                check_choice(&problem, &choice);
                prop_assert!(near(choice.cost, least), "chosen {choice:?}, best {least}");
                prop_assert!(choice.is_optimal && near(choice.lower_bound, least));
                prop_assert_eq!(&choice, &choose_all(&problem));
            }
        }
    }

    #[test]
    fn a_stopped_search_keeps_to_the_limits_and_never_claims_too_much(problem in small_problem(), after in 1..120u32) {
        let Some(least) = least_cost(&problem) else { return Ok(()) };
        let choice = choose(&problem, &mut steps(after)).unwrap();
        check_choice(&problem, &choice);
        prop_assert!(choice.cost >= least - 1e-6);
        prop_assert!(choice.lower_bound <= least + 1e-6, "bound {} above {least}", choice.lower_bound);
        prop_assert!(!choice.is_optimal || near(choice.cost, least));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn no_greedy_growth_is_better(problem in larger_problem()) {
        prop_assume!(problem.check().is_ok());
        let choice = choose(&problem, &mut steps(2000)).unwrap();
        check_choice(&problem, &choice);
        for measure in Greedy::ALL {
            let grown = grow_greedily(&problem, measure).unwrap();
            prop_assert!(keeps_to_limits(&problem, as_set(&grown)));
            prop_assert!(choice.cost <= problem.cost_of(&grown) + 1e-9, "worse than {measure:?}");
        }
    }
}

#[test]
fn tpch_is_solved_to_the_proved_optimum_at_every_budget() {
    for (budget_mb, optimum) in tpch::OPTIMA {
        let problem = tpch::problem(budget_mb);
        let choice = choose(&problem, &mut steps(20_000)).unwrap();
        let percent = |cost: f64| 100.0 * cost / choice.cost_without_any;
        assert!(choice.size_bytes <= budget_mb * 1_000_000);
        assert!(percent(choice.cost) <= optimum + 0.05 + 1e-6, "{budget_mb} MB: {}", percent(choice.cost));
        // A lower cost than the optimum would be one wrongly computed.
        assert!(percent(choice.cost) >= optimum - 0.05 - 1e-6, "{budget_mb} MB: {}", percent(choice.cost));
        assert!(choice.is_optimal && choice.gap() <= 1e-9, "{budget_mb} MB: gap {}", choice.gap());
        for measure in Greedy::ALL {
            assert!(choice.cost <= problem.cost_of(&grow_greedily(&problem, measure).unwrap()) + 1e-6);
        }
    }
}

#[test]
fn tpch_is_within_half_a_point_long_before_the_proof() {
    for (budget_mb, optimum) in tpch::OPTIMA {
        let choice = choose(&tpch::problem(budget_mb), &mut steps(2_000)).unwrap();
        let percent = |cost: f64| 100.0 * cost / choice.cost_without_any;
        assert!(percent(choice.cost) <= optimum + 0.5, "{budget_mb} MB: {}", percent(choice.cost));
        assert!(percent(choice.lower_bound) <= optimum + 0.05 + 1e-6);
        assert!(percent(choice.lower_bound) >= optimum - 2.0, "{budget_mb} MB: {}", percent(choice.lower_bound));
    }
}

#[test]
fn the_matrix_is_read_whole() {
    let problem = tpch::problem(500);
    assert_eq!((problem.queries.len(), problem.indexes.len()), (19, 1215));
    assert_eq!(problem.queries.iter().map(|query| query.options.len()).sum::<usize>(), 1548);
    assert!((problem.cost_without_any() - 34_746_687.52).abs() < 0.01);
}

#[test]
fn stopped_at_once_the_choice_is_what_is_forced() {
    let mut problem = tpch::problem(5000);
    let choice = choose(&problem, &mut || true).unwrap();
    assert!(choice.indexes.is_empty() && !choice.is_optimal);
    assert_eq!(choice.cost, choice.cost_without_any);
    assert!(choice.lower_bound > 0.0 && choice.lower_bound < choice.cost && choice.gap() < 1.0);
    problem.indexes[7].standing = Standing::Forced;
    assert_eq!(choose(&problem, &mut || true).unwrap().indexes, [7]);
}

#[test]
fn a_step_asks_once_and_a_stop_is_final() {
    let mut asked_after_stop = 0;
    let mut left = 50;
    choose(&tpch::problem(5000), &mut || {
        asked_after_stop += u32::from(left == 0);
        left = u32::max(left, 1) - 1;
        left == 0
    })
    .unwrap();
    assert_eq!(asked_after_stop, 0);
}

#[test]
fn indexes_that_help_only_together_are_found() {
    let problem = Problem {
        queries: vec![query(100.0, &[(&[0, 1, 2], 10.0), (&[3], 80.0)])],
        indexes: vec![index(10, 1.0, 0), index(10, 1.0, 0), index(10, 1.0, 1), index(10, 1.0, 1)],
        limits: Limits { storage_bytes: Some(30), ..Limits::default() },
    };
    let choice = choose_all(&problem);
    assert_eq!(choice.indexes, [0, 1, 2]);
    assert_eq!(choice.contributions, [89.0, 89.0, 89.0]);
    for measure in Greedy::ALL {
        assert_eq!(grow_greedily(&problem, measure).unwrap(), [0, 1, 2]);
    }
}

/// Each greedy growth falls into a trap of its own.
#[test]
fn traps_of_greedy_growth_are_left() {
    let limits = Limits { storage_bytes: Some(100), ..Limits::default() };
    let a_crumb_for_a_byte = Problem {
        queries: vec![query(100.0, &[(&[0], 95.0)]), query(100.0, &[(&[1], 10.0)])],
        indexes: vec![index(1, 0.0, 0), index(100, 0.0, 0)],
        limits,
    };
    assert_eq!(grow_greedily(&a_crumb_for_a_byte, Greedy::BenefitPerByte).unwrap(), [0]);
    assert_eq!(choose_all(&a_crumb_for_a_byte).indexes, [1]);
    let all_room_for_one = Problem {
        queries: vec![query(100.0, &[(&[0], 45.0)]), query(100.0, &[(&[1], 50.0)]), query(100.0, &[(&[2], 50.0)])],
        indexes: vec![index(100, 0.0, 0), index(50, 0.0, 0), index(50, 0.0, 0)],
        limits,
    };
    assert_eq!(grow_greedily(&all_room_for_one, Greedy::Benefit).unwrap(), [0]);
    assert_eq!(choose_all(&all_room_for_one).indexes, [1, 2]);
}

#[test]
fn an_index_must_be_worth_its_writes() {
    let mut problem = Problem {
        queries: vec![query(100.0, &[(&[0], 60.0)])],
        indexes: vec![index(0, 39.0, 0)],
        limits: Limits::default(),
    };
    assert_eq!(choose_all(&problem).indexes, [0]);
    problem.indexes[0].write_cost = 41.0;
    assert!(choose_all(&problem).indexes.is_empty());
    problem.indexes[0].standing = Standing::Forced;
    let choice = choose_all(&problem);
    assert_eq!((choice.indexes, choice.contributions, choice.cost), (vec![0], vec![-1.0], 101.0));
}

#[test]
fn a_table_has_no_more_indexes_than_allowed() {
    let options: [&[(&[u32], f64)]; 3] = [&[(&[0], 10.0)], &[(&[1], 20.0)], &[(&[2], 90.0)]];
    let mut problem = Problem {
        queries: options.iter().map(|options| query(100.0, options)).collect(),
        indexes: vec![index(1, 0.0, 0), index(1, 0.0, 0), index(1, 0.0, 1)],
        limits: Limits { indexes_per_table: Some(1), ..Limits::default() },
    };
    assert_eq!(choose_all(&problem).indexes, [0, 2]);
    // What is forced takes a place.
    problem.indexes[1].standing = Standing::Forced;
    assert_eq!(choose_all(&problem).indexes, [1, 2]);
    problem.limits.indexes_per_table = Some(0);
    assert_eq!(choose(&problem, &mut || false), Err(ProblemError::ForcedBreaksLimit(Limit::IndexesPerTable)));
}

/// Two indexes that are alike but for their table cannot stand for one another when a table is full.
#[test]
fn an_index_of_another_table_is_kept_for_a_full_one() {
    let problem = Problem {
        queries: vec![query(100.0, &[(&[0], 10.0)]), query(100.0, &[(&[1], 20.0), (&[2], 20.0)])],
        indexes: vec![index(1, 0.0, 0), index(1, 0.0, 0), index(1, 0.0, 1)],
        limits: Limits { indexes_per_table: Some(1), ..Limits::default() },
    };
    assert_eq!(choose_all(&problem).indexes, [0, 2]);
}

#[test]
fn of_two_alike_the_lower_number_is_chosen() {
    let options: &[(&[u32], f64)] = &[(&[2], 10.0), (&[1], 10.0), (&[0], 10.0)];
    let problem = Problem {
        queries: vec![query(100.0, options)],
        indexes: vec![index(5, 1.0, 0); 3],
        limits: Limits { storage_bytes: Some(10), ..Limits::default() },
    };
    assert_eq!(choose_all(&problem).indexes, [0]);
}

#[test]
fn nothing_to_choose_from_is_proved_at_once() {
    let choice = choose(&Problem::default(), &mut || true).unwrap();
    assert!(choice.is_optimal && choice.indexes.is_empty() && choice.gap() == 0.0);
}

#[test]
fn sizes_may_be_as_large_as_their_type() {
    let options: &[(&[u32], f64)] = &[(&[0, 1], 10.0)];
    let mut problem = Problem {
        queries: vec![query(100.0, options)],
        indexes: vec![index(u64::MAX, 1.0, 0), index(u64::MAX, 1.0, 0)],
        limits: Limits::default(),
    };
    assert_eq!(choose_all(&problem).size_bytes, u64::MAX);
    problem.limits.storage_bytes = Some(u64::MAX);
    assert!(choose_all(&problem).indexes.is_empty());
}

#[test]
fn invalid_numbers_are_named() {
    let valid = Problem {
        queries: vec![query(100.0, &[(&[0], 10.0)])],
        indexes: vec![index(5, 1.0, 0)],
        limits: Limits::default(),
    };
    let error = |value: f64, set: fn(&mut Problem, f64)| {
        let mut problem = valid.clone();
        set(&mut problem, value);
        choose(&problem, &mut || false).unwrap_err().to_string()
    };
    for value in [f64::NAN, f64::INFINITY, -1.0] {
        let message = |field| format!("{field} is {value}, expected a finite number, not negative");
        let weight = error(value, |problem, value| problem.queries[0].weight = value);
        assert_eq!(weight, message("weight of query 0"));
        let cost = error(value, |problem, value| problem.queries[0].cost_without = value);
        assert_eq!(cost, message("cost of query 0"));
        let option = error(value, |problem, value| problem.queries[0].options[0].cost = value);
        assert_eq!(option, message("cost of an option of query 0"));
        let writes = error(value, |problem, value| problem.indexes[0].write_cost = value);
        assert_eq!(writes, message("write cost of index 0"));
    }
}

#[test]
fn invalid_structure_is_named() {
    let valid = Problem {
        queries: vec![query(100.0, &[(&[0], 10.0)])],
        indexes: vec![index(5, 1.0, 0)],
        limits: Limits::default(),
    };
    let error = |set: fn(&mut Problem)| {
        let mut problem = valid.clone();
        set(&mut problem);
        choose(&problem, &mut || false).err()
    };
    let unknown = error(|problem| problem.queries[0].options[0].indexes.push(1));
    assert_eq!(unknown, Some(ProblemError::UnknownIndex { query: 0, index: 1, indexes: 1 }));
    let negative = error(|problem| problem.limits.write_cost = Some(-1.0));
    assert_eq!(negative, Some(ProblemError::WriteLimit(-1.0)));
    assert!(matches!(error(|problem| problem.limits.write_cost = Some(f64::NAN)), Some(ProblemError::WriteLimit(_))));
    assert_eq!(error(|problem| problem.limits.write_cost = Some(f64::INFINITY)), None);
    let too_large = error(|problem| (problem.queries[0].weight, problem.queries[0].cost_without) = (1e300, 1e300));
    assert_eq!(too_large, Some(ProblemError::TotalOutOfRange));
    let storage = error(|problem| {
        problem.indexes[0].standing = Standing::Forced;
        problem.limits.storage_bytes = Some(4);
    });
    assert_eq!(storage, Some(ProblemError::ForcedBreaksLimit(Limit::Storage)));
    let writes = error(|problem| {
        problem.indexes[0].standing = Standing::Forced;
        problem.limits.write_cost = Some(0.5);
    });
    assert_eq!(writes, Some(ProblemError::ForcedBreaksLimit(Limit::WriteCost)));
}
