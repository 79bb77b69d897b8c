//! What the kernel knows about a process: its CPU time, its memory, the cores it may use.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::process::Command;

/// CPU time a process has used, in ns: the first field of /proc/PID/schedstat (kernel manual, sched-stats).
///
/// It is brought up to date when the process leaves its core. With client and backend on one core, the backend is off
/// it whenever the client reads this, so the figure is exact.
pub fn cpu_time_ns(pid: i32) -> Result<u64> {
    let path = format!("/proc/{pid}/schedstat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let first = text.split_whitespace().next().context("empty schedstat")?;
    Ok(first.parse()?)
}

/// Memory that is this process's own, in bytes: Anonymous of /proc/PID/smaps_rollup (proc(5)).
///
/// Private_Dirty would count pages of shared memory too, when no other process happens to map them now.
pub fn anonymous_bytes(pid: i32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).context("no Anonymous")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim_end().parse()?;
    Ok(kib * 1024)
}

/// Binds a process to cores, given as taskset takes them (`1`, `0-3,7`).
pub fn pin(pid: i32, cores: &str) -> Result<()> {
    taskset(&["-acp", cores, &pid.to_string()]).map(drop)
}

/// Puts this process on one core for as long as the value lives.
pub struct PinnedToOneCore {
    core: String,
    before: String,
}

impl PinnedToOneCore {
    /// Takes the last core this process may use: interrupts tend to go to the first.
    pub fn new() -> Result<Self> {
        let answer = taskset(&["-cp", &own_pid().to_string()])?;
        let before = answer.rsplit(": ").next().context("taskset said nothing")?.trim().to_owned();
        let core = before.rsplit([',', '-']).next().context("no core")?.to_owned();
        pin(own_pid(), &core)?;
        Ok(Self { core, before })
    }

    pub fn core(&self) -> &str {
        &self.core
    }
}

impl Drop for PinnedToOneCore {
    fn drop(&mut self) {
        if let Err(error) = pin(own_pid(), &self.before) {
            eprintln!("cannot leave the core again: {error}");
        }
    }
}

fn own_pid() -> i32 {
    std::process::id().cast_signed()
}

fn taskset(args: &[&str]) -> Result<String> {
    let output = Command::new("taskset").args(args).output().context("cannot run taskset (package util-linux)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "taskset {args:?}: {}", said.trim_end());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
