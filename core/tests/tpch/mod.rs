//! The published cost matrix of TPC-H; `core/tests/data/README.md` says where it is from and how it is written.
use std::collections::BTreeMap;

use steward_core::advisor::choose::{CostOption, IndexFacts, Limits, Problem, QueryCosts, Standing};

const MATRIX: &str = include_str!("../data/tpch_cost_matrix.txt");

/// Budgets in MB (1e6 bytes), each with the cost of the best set in percent of the cost with no index, as a solver of
/// mixed-integer programs proved it.
pub const OPTIMA: [(u64, f64); 14] = [
    (500, 97.3),
    (1000, 95.5),
    (2000, 81.3),
    (2500, 80.1),
    (3000, 78.6),
    (3500, 76.0),
    (4250, 73.7),
    (5000, 72.1),
    (5750, 71.5),
    (6500, 70.3),
    (8000, 69.1),
    (10000, 67.6),
    (12500, 67.4),
    (15000, 67.2),
];

/// The matrix with a limit of storage in MB. Indexes count from 0, in the file from 1.
pub fn problem(budget_mb: u64) -> Problem {
    let limits = Limits { storage_bytes: Some(budget_mb * 1_000_000), ..Limits::default() };
    let mut problem = Problem { limits, ..Problem::default() };
    let (mut queries, mut combinations) = (Vec::new(), BTreeMap::new());
    let mut costs: BTreeMap<u32, QueryCosts> = BTreeMap::new();
    let mut section = "";
    for line in MATRIX.lines() {
        let (head, values) = line.split_once(":=").unwrap_or((line, ""));
        if head.starts_with("set QUERIES") {
            queries = numbers(values);
        } else if let Some(rest) = head.strip_prefix("set indexes_per_combination[") {
            let number: u32 = rest.trim_end_matches([']', ' ']).parse().unwrap();
            combinations.insert(number, numbers(values).iter().map(|index| index - 1).collect::<Vec<u32>>());
        } else if head.starts_with("param") {
            section = head.trim();
        } else if head.trim() == ";" {
            section = "";
        } else if section == "param size" {
            problem.indexes.push(index(line));
        } else if section == "param costs" && !line.trim().is_empty() {
            take_cost(line, &combinations, &mut costs);
        }
    }
    problem.queries = queries.iter().map(|query| costs[query].clone()).collect();
    problem
}

fn numbers(values: &str) -> Vec<u32> {
    values.trim_matches([' ', ';']).split_whitespace().map(|value| value.parse().unwrap()).collect()
}

/// `INDEX BYTES # ['l_orderkey', …]`; the letters before the underscore stand for the table.
fn index(line: &str) -> IndexFacts {
    let size_bytes = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    let column = line.split('\'').nth(1).unwrap();
    let table = column.split('_').next().unwrap().bytes().fold(0, |number, byte| number * 256 + u32::from(byte));
    IndexFacts { size_bytes, write_cost: 0.0, table, standing: Standing::Free }
}

fn take_cost(line: &str, combinations: &BTreeMap<u32, Vec<u32>>, costs: &mut BTreeMap<u32, QueryCosts>) {
    let mut fields = line.split_whitespace();
    let mut number = || fields.next().unwrap();
    let (query, combination) = (number().parse().unwrap(), number().parse().unwrap());
    let cost = number().parse().unwrap();
    let query = costs.entry(query).or_insert_with(|| QueryCosts { weight: 1.0, ..QueryCosts::default() });
    if combination == 0 {
        query.cost_without = cost;
    } else if let Some(indexes) = combinations.get(&combination) {
        query.options.push(CostOption { indexes: indexes.clone(), cost });
    }
}
