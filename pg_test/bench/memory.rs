//! A backend's memory over many statements, and what pg_steward takes of shared memory.
//!
//! One backend of each arm runs statements of every kind: the same ones, ones that never come again, and ones that fail.
//! What it holds is read now and then. Whatever grows with the number of statements would show as growth after the
//! first tenth of them.

use crate::arms::{Arm, STEWARD, STEWARD_LIBRARY, STOCK, arm};
use crate::client::Connection;
use crate::options::Options;
use crate::process::anonymous_bytes;
use crate::server::{Server, Template};
use crate::stats::Random;
use crate::workload::unique_statement;
use anyhow::{Context, Result, ensure};
use std::time::Instant;

const ARMS: &[Arm] = &[
    arm(STOCK, &[], &[]),
    arm(STEWARD, &[STEWARD_LIBRARY], &[]),
    arm(
        "steward, much on",
        &[STEWARD_LIBRARY],
        &[
            ("pg_steward.track", "all"),
            ("pg_steward.sample_rate", "0.01"),
            ("pg_steward.capture_parameters", "on"),
            ("pg_steward.slow_limit_per_minute", "0"),
            ("pg_steward.overhead_limit", "0"),
            ("pg_steward.flush_interval", "0"),
        ],
    ),
];

/// More growth than this beyond stock's, from the first tenth of the statements to the last, is a leak.
const GROWTH_LIMIT_BYTES: i64 = 1024 * 1024;
/// What 5,000 statements may take of shared memory, without the ring, whose size is a setting of its own.
const SHARED_LIMIT_BYTES: u64 = 16 * 1024 * 1024;
/// Statements sent at once; few enough that neither side's socket buffer fills up.
const BATCH: u64 = 100;

const SETUP: &str = "
CREATE FUNCTION bench_caught() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 / 0;
    RETURN 0;
EXCEPTION WHEN division_by_zero THEN
    RETURN 1;
END $$";

/// What one backend held after so many statements.
struct Sample {
    statements: u64,
    anonymous_bytes: u64,
    context_bytes: u64,
}

/// Runs the arms one after the other and prints a table; fails when memory grows or is too much.
pub fn run(options: &Options) -> Result<()> {
    let template = Template::make(1, ARMS)?;
    let servers = Server::create_all(&template, ARMS.len())?;
    println!("{} statements in one backend: point selects, never-repeated ones, failing ones", options.statements);
    println!(
        "  {:<18} {:>10} {:>16} {:>18} {:>14}",
        "arm", "statements", "anonymous, kB", "its contexts, kB", "workers, kB"
    );
    let mut growth = Vec::new();
    for (server, arm) in servers.iter().zip(ARMS) {
        server.become_arm(arm)?;
        server.start()?;
        server.check_settings(arm)?;
        growth.push(arm_growth(server, arm, options.statements)?);
        if arm.name == STEWARD {
            check_shared(&mut server.connect()?)?;
        }
        server.stop()?;
    }
    for (arm, bytes) in ARMS.iter().zip(&growth) {
        let beyond = bytes - growth[0];
        ensure!(beyond <= GROWTH_LIMIT_BYTES, "a backend of {} grew by {beyond} bytes more than stock's", arm.name);
    }
    println!("No backend grew by more than {} kB beyond stock's after the first tenth.", GROWTH_LIMIT_BYTES / 1024);
    Ok(())
}

/// Runs the statements on a new backend and returns by how many bytes it grew after the first tenth of them.
fn arm_growth(server: &Server, arm: &Arm, statements: u64) -> Result<i64> {
    let mut connection = server.connect()?;
    connection.query(SETUP)?;
    connection.prepare("sel", "SELECT abalance FROM pgbench_accounts WHERE aid = $1")?;
    let (mut random, mut done, started) = (Random::new(1), 0, Instant::now());
    let mut samples = Vec::new();
    for checkpoint in [statements / 100, statements / 10, statements / 2, statements] {
        while done < checkpoint {
            run_batch(&mut connection, &mut random, done)?;
            done += BATCH;
        }
        let sample = take_sample(&mut connection, done)?;
        print_sample(server, arm, &sample)?;
        samples.push(sample);
    }
    println!("  {:<18} {:>10.1} us a statement", "", started.elapsed().as_secs_f64() * 1e6 / done as f64);
    let last = samples.last().context("no sample")?;
    Ok(last.anonymous_bytes.cast_signed() - samples[1].anonymous_bytes.cast_signed())
}

/// Sends statements of all kinds and waits for their ends; a tenth of them fail.
fn run_batch(connection: &mut Connection, random: &mut Random, serial: u64) -> Result<()> {
    let mut failing = 0;
    for number in serial..serial + BATCH {
        failing += usize::from(queue(connection, random, number));
    }
    connection.flush()?;
    let errors = connection.count_errors(BATCH as usize)?;
    ensure!(errors == failing, "{errors} statements failed of {failing} that should have");
    Ok(())
}

/// Queues statement `number`; whether it is one that fails.
fn queue(connection: &mut Connection, random: &mut Random, number: u64) -> bool {
    match number % 20 {
        0..4 => connection.queue_query(&unique_statement(number)),
        4 => connection.queue_query(&format!("SELECT {number} / 0")),
        5 => connection.queue_query(&format!("SELECT no_column_{number}")),
        6 => connection.queue_query("SELECT bench_caught()"),
        7 => connection.queue_query(&format!("SET application_name = 'bench {number}'")),
        8 => connection.queue_query(&format!("/* request {number} */ SELECT count(*) FROM pgbench_tellers")),
        9 => connection.queue_query("BEGIN; SAVEPOINT one; SELECT 1; ROLLBACK TO one; COMMIT"),
        _ => {
            let account = (1 + random.below(100_000)).to_string();
            connection.queue_execute("sel", &[&account]);
        }
    }
    matches!(number % 20, 4 | 5)
}

fn take_sample(connection: &mut Connection, statements: u64) -> Result<Sample> {
    let contexts = connection.value("SELECT sum(total_bytes) FROM pg_backend_memory_contexts")?;
    Ok(Sample { statements, anonymous_bytes: anonymous_bytes(connection.pid())?, context_bytes: contexts.parse()? })
}

fn print_sample(server: &Server, arm: &Arm, sample: &Sample) -> Result<()> {
    println!(
        "  {:<18} {:>10} {:>16} {:>18} {:>14}",
        arm.name,
        sample.statements,
        sample.anonymous_bytes / 1024,
        sample.context_bytes / 1024,
        worker_bytes(server)? / 1024
    );
    Ok(())
}

/// Memory of pg_steward's background workers together.
fn worker_bytes(server: &Server) -> Result<u64> {
    let workers = server.connect()?.query("SELECT pid FROM pg_stat_activity WHERE backend_type LIKE '%steward%'")?;
    let mut bytes = 0;
    for pid in workers.into_iter().flatten().flatten() {
        // A worker may have ended meanwhile.
        bytes += anonymous_bytes(pid.parse()?).unwrap_or(0);
    }
    Ok(bytes)
}

/// Prints pg_steward's areas of shared memory and fails when those of the statements are too large.
fn check_shared(connection: &mut Connection) -> Result<()> {
    let sql = "SELECT name, allocated_size FROM pg_shmem_allocations WHERE name LIKE 'pg_steward%' ORDER BY 2 DESC";
    let mut statements_bytes = 0;
    println!("  Shared memory for {} statements:", connection.value("SHOW pg_steward.max_statements")?);
    for row in connection.query(sql)? {
        let mut fields = row.into_iter().flatten();
        let name = fields.next().context("a nameless area")?;
        let bytes: u64 = fields.next().context("an area without size")?.parse()?;
        println!("    {:<32} {:>8} kB", name, bytes / 1024);
        statements_bytes += if name.contains("ring") { 0 } else { bytes };
    }
    ensure!(statements_bytes > 0, "no shared memory of pg_steward found");
    ensure!(
        statements_bytes <= SHARED_LIMIT_BYTES,
        "{statements_bytes} bytes of shared memory, {SHARED_LIMIT_BYTES} at most"
    );
    println!("    without the ring {:>23} kB (at most {} kB)", statements_bytes / 1024, SHARED_LIMIT_BYTES / 1024);
    Ok(())
}
