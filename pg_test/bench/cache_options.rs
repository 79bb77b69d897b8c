//! The command line.

use anyhow::{Context, Result, bail, ensure};
use std::str::FromStr;

pub const USAGE: &str = "\
bench-cache: what a cached result costs, as a ratio to a prepared SELECT 1 of the same run

  bench-cache [PART...] [options]

PART   hits           latency and server CPU of a call: hits of both tiers, key look-ups, hand-kept tables, Redis, pgpool-II
       clients        hits by 1 to 32 clients at once, alone and while rows are updated
       misses         a call that has to run its query, against the query itself
       instructions   the same calls and writes, counted by valgrind's callgrind
       writes         what the cache adds to an UPDATE and to transactions it has nothing to do with
       (without any: all of them, about 10 minutes)
--cells A,B    hits, instructions: only the cells whose names begin with one of these (instructions: prepared ones only)
--rounds N     rounds of every measurement (7); what is printed is the median of the rounds, and their extremes
--secs S       seconds a cell is measured in each round (0.5)
--clients A,B  clients: how many (1,2,4,8,16,32)
--scale N      pgbench scale (10)
--no-pin       hits, misses: leave processes where the kernel puts them. Otherwise client and servers share one core,
               so that no call waits for a core to wake up, which costs more than many a call and comes and goes; hits
               that have an aim are then measured both ways
--quick        3 rounds of 0.2 s, 1, 4 and 16 clients, no instructions unless they are named: about 2 minutes
--seed N       of the order of measurements

The server is that of PG_CONFIG. Redis and pgpool-II are left out where they are not installed.
";

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Hits,
    Clients,
    Misses,
    Instructions,
    Writes,
}

#[derive(Debug)]
pub struct Options {
    parts: Vec<Part>,
    cells: Vec<String>,
    pub rounds: usize,
    pub secs: f64,
    pub clients: Vec<usize>,
    pub scale: u64,
    pub pinned: bool,
    is_quick: bool,
    pub seed: u64,
}

impl Options {
    /// Reads the arguments after the program's name.
    pub fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            parts: Vec::new(),
            cells: Vec::new(),
            rounds: 7,
            secs: 0.5,
            clients: vec![1, 2, 4, 8, 16, 32],
            scale: 10,
            pinned: true,
            is_quick: false,
            seed: 1,
        };
        while let Some(word) = args.next() {
            options.take(&word, &mut args)?;
        }
        ensure!(options.rounds > 0, "--rounds must be at least 1");
        ensure!(options.scale >= 3, "--scale must be at least 3: the aggregate reads 200,000 accounts");
        ensure!(options.clients.iter().all(|count| (1..=32).contains(count)), "--clients: from 1 to 32");
        Ok(options)
    }

    fn take(&mut self, word: &str, rest: &mut impl Iterator<Item = String>) -> Result<()> {
        match word {
            "--cells" => self.cells.extend(value::<String>(word, rest)?.split(',').map(str::to_owned)),
            "--rounds" => self.rounds = value(word, rest)?,
            "--secs" => self.secs = value(word, rest)?,
            "--clients" => {
                let list: String = value(word, rest)?;
                let numbers: Result<Vec<usize>, _> = list.split(',').map(str::parse).collect();
                self.clients = numbers.ok().with_context(|| format!("{word}: bad value \"{list}\""))?;
            }
            "--scale" => self.scale = value(word, rest)?,
            "--no-pin" => self.pinned = false,
            "--seed" => self.seed = value(word, rest)?,
            "--quick" => {
                (self.rounds, self.secs, self.clients) = (3, 0.2, vec![1, 4, 16]);
                self.is_quick = true;
            }
            "hits" => self.parts.push(Part::Hits),
            "clients" => self.parts.push(Part::Clients),
            "misses" => self.parts.push(Part::Misses),
            "instructions" => self.parts.push(Part::Instructions),
            "writes" => self.parts.push(Part::Writes),
            other => bail!("unknown part or option \"{other}\""),
        }
        Ok(())
    }

    pub fn runs(&self, part: Part) -> bool {
        match self.parts.is_empty() {
            true => part != Part::Instructions || !self.is_quick,
            false => self.parts.contains(&part),
        }
    }

    /// Is a cell asked for?
    pub fn wants(&self, cell: &str) -> bool {
        self.cells.is_empty() || self.cells.iter().any(|wanted| cell.starts_with(wanted.as_str()))
    }
}

fn value<T: FromStr>(option: &str, rest: &mut impl Iterator<Item = String>) -> Result<T> {
    let text = rest.next().with_context(|| format!("{option} needs a value"))?;
    text.parse().ok().with_context(|| format!("{option}: bad value \"{text}\""))
}
