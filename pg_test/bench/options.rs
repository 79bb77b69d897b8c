//! The command line.

use crate::arms::{self, Arm};
use crate::workload::{Protocol, Workload};
use anyhow::{Context, Result, bail, ensure};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};
use steward_test::Install;

pub const USAGE: &str = "\
bench-capture: what statement capture costs one backend, against stock Postgres in the same run

  bench-capture [cpu] [WORKLOAD...] [options]      backend CPU time, arms alternated every few milliseconds
  bench-capture callgrind [WORKLOAD...] [options]  user-space instructions per unit, by valgrind's callgrind
  bench-capture memory [options]                   a backend's memory over a million statements; shared memory

WORKLOAD   select update tpcb unique nested agg (cpu: all of them; callgrind: select)
--arms A,B         arms to run; stock must be among them, stockB gives the A/A line
--workloads A,B    the same as naming workloads
--blocks N         cpu: blocks, each with restarted servers (16); the intervals are over blocks
--secs S           cpu: seconds per workload and block (2.5)
--pipe             cpu: send a slice's statements at once instead of one round trip each
--scale N          pgbench scale (10)
--statements N     memory: statements (1000000)
--quick            a smoke run: 2 blocks of 1 s, scale 1, 100000 statements
--keep DIR         callgrind: keep the profiles, as DIR/ARM.WORKLOAD.short and .long
--functions N      callgrind: also print the N functions that cost an arm most more than stock

The server is that of PG_CONFIG. For all functions of a backend:
  bench-capture callgrind select --arms stock,pgss,steward --keep /tmp/cg
  callgrind_annotate /tmp/cg/steward.select.long | less
";

/// What is to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Cpu,
    Callgrind,
    Memory,
}

#[derive(Debug)]
pub struct Options {
    pub mode: Mode,
    pub workloads: Vec<Workload>,
    arm_list: Option<String>,
    pub blocks: usize,
    pub secs: f64,
    pub protocol: Protocol,
    pub scale: u64,
    pub statements: u64,
    pub keep: Option<PathBuf>,
    pub functions: usize,
    pub seed: u64,
}

impl Options {
    fn with_defaults(mode: Mode) -> Self {
        Self {
            mode,
            workloads: Vec::new(),
            arm_list: None,
            blocks: 16,
            secs: 2.5,
            protocol: Protocol::Ping,
            scale: 10,
            statements: 1_000_000,
            keep: None,
            functions: 0,
            seed: SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs()),
        }
    }

    /// Reads the arguments after the program's name.
    pub fn parse(args: impl Iterator<Item = String>) -> Result<Self> {
        let mut args = args.peekable();
        let mode = args.peek().map_or(Mode::Cpu, |word| Mode::named(word));
        if args.peek().is_some_and(|word| Mode::ALL.iter().any(|(name, _)| name == word)) {
            args.next();
        }
        let mut options = Self::with_defaults(mode);
        while let Some(word) = args.next() {
            options.take(&word, &mut args)?;
        }
        if options.workloads.is_empty() {
            options.workloads = options.mode.workloads();
        }
        ensure!(options.blocks > 0 && options.scale > 0, "--blocks and --scale must be at least 1");
        Ok(options)
    }

    fn take(&mut self, word: &str, rest: &mut impl Iterator<Item = String>) -> Result<()> {
        match word {
            "--arms" => self.arm_list = Some(value(word, rest)?),
            "--workloads" => {
                for name in value::<String>(word, rest)?.split(',') {
                    self.workloads.push(Workload::parse(name)?);
                }
            }
            "--blocks" => self.blocks = value(word, rest)?,
            "--secs" => self.secs = value(word, rest)?,
            "--pipe" => self.protocol = Protocol::Pipe,
            "--scale" => self.scale = value(word, rest)?,
            "--statements" => self.statements = value(word, rest)?,
            "--keep" => self.keep = Some(value(word, rest)?),
            "--functions" => self.functions = value(word, rest)?,
            "--quick" => (self.blocks, self.secs, self.scale, self.statements) = (2, 1.0, 1, 100_000),
            option if option.starts_with('-') => bail!("unknown option \"{option}\""),
            name => self.workloads.push(Workload::parse(name)?),
        }
        Ok(())
    }

    /// The arms asked for, as far as they are installed.
    pub fn arms(&self) -> Result<Vec<Arm>> {
        arms::choose(self.arm_list.as_deref(), &Install::from_env()?)
    }
}

impl Mode {
    const ALL: [(&str, Self); 3] = [("cpu", Self::Cpu), ("callgrind", Self::Callgrind), ("memory", Self::Memory)];

    fn named(word: &str) -> Self {
        Self::ALL.iter().find(|(name, _)| *name == word).map_or(Self::Cpu, |(_, mode)| *mode)
    }

    fn workloads(self) -> Vec<Workload> {
        if self == Self::Callgrind { vec![Workload::Select] } else { Workload::ALL.to_vec() }
    }
}

fn value<T: FromStr>(option: &str, rest: &mut impl Iterator<Item = String>) -> Result<T> {
    let text = rest.next().with_context(|| format!("{option} needs a value"))?;
    text.parse().ok().with_context(|| format!("{option}: bad value \"{text}\""))
}
