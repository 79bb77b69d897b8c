//! Readers that compare.

use super::writers::DEFINED;
use super::{Random, Shared, WRITERS};
use postgres::{Client, Error, Statement};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// The sum of all amounts at the start.
const TOTAL: &str = "10000";

/// Small queries that are compared with themselves in the same snapshot.
pub const QUERIES: &[&str] = &[
    "SELECT total FROM total",
    "SELECT sum(amount), count(*) FROM a",
    "SELECT sum(amount) FROM m",
    "SELECT k, sum(amount) FROM m GROUP BY k ORDER BY k",
    "SELECT id, amount FROM a WHERE id % 10 = 3 ORDER BY id",
    "SELECT sum(amount), count(*) FROM m2",
    "SELECT total_of_a() AS n",
    "SELECT writer, n FROM gen ORDER BY writer",
    "SELECT sum(amount), count(*) FROM owned",
    "SELECT (SELECT sum(amount) FROM a) + (SELECT sum(amount) FROM m) + (SELECT coalesce(sum(amount), 0) FROM b)
        + (SELECT coalesce(sum(amount), 0) FROM owned) AS total",
];
const TOTALS: [usize; 2] = [0, 9];
const COUNTS: usize = 7;

/// A session that reads.
pub struct Reader<'a> {
    shared: &'a Shared,
    random: Random,
    client: Client,
    /// Cached and direct in one statement, for each of `QUERIES`.
    both: Vec<Statement>,
    /// Cached alone, for each of `QUERIES` and then `DEFINED`.
    alone: Vec<Statement>,
}

impl<'a> Reader<'a> {
    pub fn new(shared: &'a Shared, random: Random, mut client: Client) -> Self {
        let cached = |query: &str| format!("SELECT steward.cached_json($q${query}$q$)::text");
        let both = QUERIES.iter().map(|query| client.prepare(&both(query)).expect(query)).collect();
        let alone = QUERIES.iter().chain(DEFINED);
        let alone = alone.map(|query| client.prepare(&cached(query)).expect(query)).collect();
        Reader { shared, random, client, both, alone }
    }

    pub fn work(mut self) {
        while !self.shared.is_over() {
            let done = match self.random.below(10) {
                0 | 1 => self.repeatable(),
                2 | 3 => self.defined(),
                4 => self.counts(),
                5 => self.in_block(),
                _ => self.compare().map(drop),
            };
            if let Err(error) = done {
                self.shared.expect(&error);
                let _ = self.client.batch_execute("ROLLBACK");
            }
        }
    }

    fn pick(&mut self) -> usize {
        self.random.below(QUERIES.len() as u64) as usize
    }

    /// The cache and the query itself, in one snapshot.
    fn compare(&mut self) -> Result<(usize, String), Error> {
        let number = self.pick();
        self.compare_query(number).map(|answer| (number, answer))
    }

    fn compare_query(&mut self, number: usize) -> Result<String, Error> {
        let row = self.client.query_one(&self.both[number], &[])?;
        Ok(judge(self.shared, number, row.get(0), row.get(1)))
    }

    /// Many reads in one snapshot, none of which may change.
    fn repeatable(&mut self) -> Result<(), Error> {
        self.client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ")?;
        let mut answers = vec![None; QUERIES.len()];
        for _ in 0..2 + self.random.below(12) {
            let (number, answer) = self.compare()?;
            let before = answers[number].get_or_insert_with(|| answer.clone());
            if *before != answer {
                let what = format!("{}: {before}, then {answer} in the same snapshot", QUERIES[number]);
                self.shared.violation(what);
            }
        }
        self.client.batch_execute("COMMIT")
    }

    /// A transaction of many snapshots.
    fn in_block(&mut self) -> Result<(), Error> {
        self.client.batch_execute("BEGIN")?;
        for _ in 0..2 + self.random.below(6) {
            self.compare()?;
        }
        self.client.batch_execute("COMMIT")
    }

    /// What a writer has been told to be committed is there.
    fn counts(&mut self) -> Result<(), Error> {
        let least: Vec<u32> = self.shared.published.iter().map(|count| count.load(SeqCst)).collect();
        let row = self.client.query_one(&self.alone[COUNTS], &[])?;
        self.shared.reads.fetch_add(1, Relaxed);
        let answer: String = row.get(0);
        let found = numbers(&answer);
        let is_old = (0..WRITERS).any(|writer| found.get(2 * writer + 1).is_none_or(|count| *count < least[writer]));
        if is_old {
            self.shared.violation(format!("{}: {answer}, at least {least:?}", QUERIES[COUNTS]));
        }
        Ok(())
    }

    fn defined(&mut self) -> Result<(), Error> {
        let place = self.random.below(DEFINED.len() as u64) as usize;
        let least = self.shared.defined[place].load(SeqCst);
        let mut answer = String::new();
        // A snapshot from before a TRUNCATE, or before the rows of a new table, shows nothing, with or without the cache:
        // neither keeps old rows. The next snapshot has them.
        for _ in 0..4 {
            let row = self.client.query_one(&self.alone[QUERIES.len() + place], &[])?;
            self.shared.reads.fetch_add(1, Relaxed);
            answer = row.get(0);
            match numbers(&answer).first() {
                Some(found) if *found >= least => return Ok(()),
                Some(_) => break,
                None => {}
            }
        }
        self.shared.violation(format!("{}: {answer}, at least {least}", DEFINED[place]));
        Ok(())
    }
}

/// Counts a read of one of `QUERIES`, and what is wrong with it.
fn judge(shared: &Shared, number: usize, cached: String, direct: String) -> String {
    shared.reads.fetch_add(1, Relaxed);
    if cached != direct {
        shared.violation(format!("{}: cached {cached}, in fact {direct}", QUERIES[number]));
    }
    if TOTALS.contains(&number) && !cached.contains(TOTAL) {
        shared.violation(format!("{}: {cached}", QUERIES[number]));
    }
    cached
}

/// The cache and the query itself, for one of `QUERIES`, in one statement.
fn both(query: &str) -> String {
    let direct =
        format!("(SELECT '[' || coalesce(string_agg(row_to_json(x)::text, ','), '') || ']' FROM ({query}) AS x)");
    format!("SELECT steward.cached_json($q${query}$q$)::text, {direct}")
}

/// Compares in a session that has prepared nothing.
pub fn compare_text(shared: &Shared, client: &mut Client, number: usize) -> Result<(), Error> {
    let row = client.query_one(&both(QUERIES[number]), &[])?;
    judge(shared, number, row.get(0), row.get(1));
    Ok(())
}

/// The numbers of an answer, in their order.
fn numbers(answer: &str) -> Vec<u32> {
    answer.split(|letter: char| !letter.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}
