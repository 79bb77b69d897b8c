//! Runs an application's day in under a minute, on TPC-H data: a web shop, reports, a night batch, and what goes wrong.
//!
//! `tpch-workload CONNECTION-STRING`, of a superuser. The order of the statements is always the same.
#![forbid(unsafe_code)]

mod app;
mod batch;
mod reports;
mod shop;
mod sql;
mod trouble;

use anyhow::{Context, Result};
use app::App;
use std::time::Instant;

/// One part of the workload; it returns what to say about it.
type Phase = fn(&App) -> Result<String>;

const PHASES: &[(&str, Phase)] = &[
    ("shop", shop::look_ups),
    ("dashboard", shop::dashboard),
    ("order pages", shop::order_pages),
    ("orders placed", shop::place_orders),
    ("night batch", batch::night),
    ("reports", reports::all),
    ("portal", shop::portal_loses_its_index),
    ("trouble", trouble::all),
];

fn main() -> Result<()> {
    let dsn = std::env::args().nth(1).context("usage: tpch-workload CONNECTION-STRING")?;
    let app = App::open(&dsn)?;
    let begun = Instant::now();
    for (name, phase) in PHASES {
        let started = Instant::now();
        let said = phase(&app).with_context(|| format!("in the part \"{name}\""))?;
        println!("  {name:<14} {:>5.1} s  {said}", started.elapsed().as_secs_f64());
    }
    println!("  workload ended after {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}
