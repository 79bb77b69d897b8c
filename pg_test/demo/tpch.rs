//! Loads TPC-H data into an empty database: rows are generated here and streamed by COPY, no file in between.
//!
//! `tpch-load CONNECTION-STRING [SCALE]`; scale 1 is about 6 million order lines and 1 GB.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, ensure};
use postgres::{Config, NoTls, Transaction};
use std::fmt::Display;
use std::io::Write;
use std::time::Instant;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    RegionGenerator, SupplierGenerator,
};

const DEFAULT_SCALE: f64 = 0.1;
/// Below, the workload's long statements would end before they can be stopped.
const MIN_SCALE: f64 = 0.01;
const MAX_SCALE: f64 = 100.0;
/// How much is collected before it is handed to the connection.
const CHUNK_BYTES: usize = 64 * 1024;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let dsn = args.next().context("usage: tpch-load CONNECTION-STRING [SCALE]")?;
    let scale = args.next().map_or(Ok(DEFAULT_SCALE), |text| parse_scale(&text))?;
    let mut config: Config = dsn.parse().context("bad connection string")?;
    let mut client = config.application_name("tpch-load").connect(NoTls).context("cannot connect")?;
    let begun = Instant::now();
    // One transaction, so that COPY may write rows as frozen: nobody else can see these tables yet.
    let mut transaction = client.transaction()?;
    transaction.batch_execute(include_str!("tpch_schema.sql"))?;
    load(&mut transaction, scale)?;
    transaction.commit()?;
    step("indexes", || Ok(client.batch_execute(include_str!("tpch_indexes.sql"))?))?;
    step("analyze", || Ok(client.batch_execute("VACUUM ANALYZE")?))?;
    println!("  TPC-H at scale {scale} loaded in {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

fn parse_scale(text: &str) -> Result<f64> {
    let scale: f64 = text.parse().with_context(|| format!("scale \"{text}\" is not a number"))?;
    ensure!((MIN_SCALE..=MAX_SCALE).contains(&scale), "scale {scale} is not from {MIN_SCALE} to {MAX_SCALE}");
    Ok(scale)
}

fn load(transaction: &mut Transaction, scale: f64) -> Result<()> {
    // Part 1 of 1: the generators can also split a table among several loaders.
    copy(transaction, "region", RegionGenerator::new(scale, 1, 1).iter())?;
    copy(transaction, "nation", NationGenerator::new(scale, 1, 1).iter())?;
    copy(transaction, "supplier", SupplierGenerator::new(scale, 1, 1).iter())?;
    copy(transaction, "customer", CustomerGenerator::new(scale, 1, 1).iter())?;
    copy(transaction, "part", PartGenerator::new(scale, 1, 1).iter())?;
    copy(transaction, "partsupp", PartSuppGenerator::new(scale, 1, 1).iter())?;
    copy(transaction, "orders", OrderGenerator::new(scale, 1, 1).iter())?;
    copy(transaction, "lineitem", LineItemGenerator::new(scale, 1, 1).iter())
}

/// Streams rows, whose text form is TPC-H's own: every value is followed by a `|`, the last one too.
fn copy<Row: Display>(transaction: &mut Transaction, table: &str, rows: impl Iterator<Item = Row>) -> Result<()> {
    let begun = Instant::now();
    let mut writer = transaction.copy_in(&format!("COPY {table} FROM STDIN (DELIMITER '|', FREEZE)"))?;
    let mut chunk = Vec::with_capacity(2 * CHUNK_BYTES);
    for row in rows {
        write!(chunk, "{row}")?;
        chunk.pop();
        chunk.push(b'\n');
        if chunk.len() >= CHUNK_BYTES {
            writer.write_all(&chunk)?;
            chunk.clear();
        }
    }
    writer.write_all(&chunk)?;
    let count = writer.finish()?;
    println!("  {table:<10} {count:>9} rows {:>6.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let begun = Instant::now();
    work()?;
    println!("  {name:<10} {:>21.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}
