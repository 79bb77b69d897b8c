//! What a cached result costs: see `cache_options::USAGE`.
#![forbid(unsafe_code)]

// Shared with bench-capture, which uses more of them.
#[allow(dead_code, reason = "shared with bench-capture")]
mod arms;
mod cache_cells;
mod cache_clients;
mod cache_instructions;
mod cache_measure;
mod cache_misses;
mod cache_options;
mod cache_others;
mod cache_report;
mod cache_rig;
mod cache_writes;
#[allow(dead_code, reason = "shared with bench-capture")]
mod client;
#[allow(dead_code, reason = "shared with bench-capture")]
mod process;
#[allow(dead_code, reason = "shared with bench-capture")]
mod server;
#[allow(dead_code, reason = "shared with bench-capture")]
mod stats;
#[allow(dead_code, reason = "shared with bench-capture")]
mod workload;

use anyhow::Result;
use cache_options::{Options, Part, USAGE};
use cache_rig::Rig;
use server::{Server, Template};

fn main() -> Result<()> {
    if std::env::args().any(|word| word == "--help" || word == "-h") {
        print!("{USAGE}");
        return Ok(());
    }
    let options = Options::parse(std::env::args().skip(1))?;
    let template = Template::make(options.scale, &[cache_rig::CACHE])?;
    if [Part::Hits, Part::Clients, Part::Misses].iter().any(|part| options.runs(*part)) {
        let rig = Rig::start(&template)?;
        part(&options, Part::Hits, || cache_measure::run(&options, &rig))?;
        part(&options, Part::Clients, || cache_clients::run(&options, &rig))?;
        part(&options, Part::Misses, || cache_misses::run(&options, &rig))?;
    }
    if options.runs(Part::Writes) || options.runs(Part::Instructions) {
        let mut servers = Server::create_all(&template, cache_writes::ARMS.len())?;
        part(&options, Part::Instructions, || cache_instructions::run(&options, &servers))?;
        if options.runs(Part::Writes) {
            cache_writes::run(&options, &mut servers)?;
        }
    }
    Ok(())
}

fn part(options: &Options, part: Part, run: impl FnOnce() -> Result<()>) -> Result<()> {
    if options.runs(part) { run() } else { Ok(()) }
}
