//! The tables.

use crate::cache_measure::Round;
use crate::stats::median;

/// A cell's rounds.
pub struct CellResult {
    pub name: String,
    pub rounds: Vec<Round>,
}

/// Prints the cells, with the aims behind those that have one.
pub fn print_cells(results: &[CellResult], pinned: bool) {
    let place = if pinned { "client and servers on one core" } else { "client and servers where the kernel puts them" };
    println!(
        "\nRatios to a prepared SELECT 1 measured right before and after, {place}; median of rounds (lowest-highest)"
    );
    println!("  {:<18} {:>9} {:>9}  {:<22} {:<22}", "cell", "p50 us", "CPU us", "p50 ratio", "CPU ratio");
    for CellResult { name, rounds } in results {
        let of = |value: fn(&Round) -> f64| rounds.iter().map(value).collect::<Vec<f64>>();
        let p50_us = median(&of(|round| round.cell.p50_us));
        let cpu_us = median(&of(|round| round.cell.cpu_us));
        let (p50, cpu) = (spread(&of(|round| round.p50_ratio), 2), spread(&of(|round| round.cpu_ratio), 2));
        let line = format!("  {name:<18} {p50_us:>9.1} {cpu_us:>9.1}  {p50:<22} {cpu:<22} {}", aim(name));
        println!("{}", line.trim_end());
    }
}

/// What the CPU ratio of a cell is to be at most. No figure passes or fails anything.
fn aim(cell: &str) -> &'static str {
    match cell {
        "json.L1" | "json_key.L1" | "json_all.L1" => "aim: CPU 1.15",
        "json.L2" | "json_key.L2" | "json_all.L2" => "aim: CPU 1.25",
        "rows100.L1" => "aim: CPU 2",
        _ => "",
    }
}

/// Median, lowest and highest.
pub fn spread(values: &[f64], digits: usize) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.digits$} ({low:.digits$}-{high:.digits$})", median(values))
}
