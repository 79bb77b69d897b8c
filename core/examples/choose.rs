//! How good the chosen indexes are at each storage budget of the published matrix of TPC-H, in percent of the cost with
//! no index: our choice, the proved optimum, two greedy ways alone, our lower bound; and the time.
//!
//! `cargo run --release -p steward-core --example choose`
#[path = "../tests/tpch/mod.rs"]
mod tpch;

use std::time::Instant;

use steward_core::advisor::choose::{Greedy, Problem, choose, grow_greedily};

fn main() {
    println!(
        "{:>9} {:>7} {:>7} {:>9} {:>9} {:>8} {:>8} {:>7} {:>7} {:>7}",
        "budget MB", "ours", "optimum", "per byte", "benefit", "bound", "proved", "indexes", "steps", "ms"
    );
    for (budget_mb, optimum) in tpch::OPTIMA {
        let problem = tpch::problem(budget_mb);
        let started = Instant::now();
        let mut steps = 0u64;
        let choice = choose(&problem, &mut || {
            steps += 1;
            started.elapsed().as_millis() >= 1000
        })
        .expect("the matrix is valid");
        let elapsed_ms = started.elapsed().as_secs_f64() * 1e3;
        let percent = |cost: f64| 100.0 * cost / choice.cost_without_any;
        println!(
            "{budget_mb:>9} {:>7.3} {optimum:>7.1} {:>9.3} {:>9.3} {:>8.3} {:>8} {:>7} {steps:>7} {elapsed_ms:>7.1}",
            percent(choice.cost),
            percent(greedy_cost(&problem, Greedy::BenefitPerByte)),
            percent(greedy_cost(&problem, Greedy::Benefit)),
            percent(choice.lower_bound),
            choice.is_optimal,
            choice.indexes.len(),
        );
    }
}

fn greedy_cost(problem: &Problem, measure: Greedy) -> f64 {
    problem.cost_of(&grow_greedily(problem, measure).expect("the matrix is valid"))
}
