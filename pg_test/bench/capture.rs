//! What statement capture costs: see `options::USAGE`.
#![forbid(unsafe_code)]

mod arms;
mod callgrind;
mod client;
mod cpu;
mod memory;
mod options;
mod process;
mod profile;
mod report;
mod server;
mod stats;
mod workload;

use anyhow::Result;
use options::{Mode, Options, USAGE};

fn main() -> Result<()> {
    let args = std::env::args().skip(1);
    if std::env::args().any(|word| word == "--help" || word == "-h") {
        print!("{USAGE}");
        return Ok(());
    }
    let options = Options::parse(args)?;
    match options.mode {
        Mode::Cpu => cpu::run(&options),
        Mode::Callgrind => callgrind::run(&options),
        Mode::Memory => memory::run(&options),
    }
}
