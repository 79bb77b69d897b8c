//! From a workload to a short list of indexes. Under a guard.
//!
//! Each statement is analysed once and planned many times: without any candidate, with each one that its own demands led to,
//! and with all of them, of which those that the plan used are then taken away one after the other. What the planner said
//! goes into a table of costs, on which the choice is made; what is chosen is planned once more, as a whole.

use super::size;
use super::workload::{self, Source};
use crate::pg::hypothetical::{self, Definition, Hypothetical};
use crate::pg::whatif::{self, Draft, Subject, Used};
use crate::pg::{clock, harvest, session, shield, spi, statistics};
use serde_json::json;
use std::collections::HashMap;
use steward_core::advisor::candidate::{self, Candidate};
use steward_core::advisor::choose::{self, Choice, CostOption, IndexFacts, Limits, Problem, QueryCosts, Standing};

/// Candidates of all statements together.
const MAX_CANDIDATES: usize = 400;
/// Plannings of one statement in which used candidates are taken away.
const MAX_PEELS: usize = 24;
/// What all plannings may take, and then the choice.
const PLANNING_NS: u64 = 8_000_000_000;
const CHOICE_NS: u64 = 1_000_000_000;
/// An index that saves less than this share of all cost is not worth a line.
const MIN_SHARE: f64 = 0.005;

/// What the caller asks for.
pub struct Asked {
    pub storage_bytes: Option<u64>,
    pub indexes_per_table: Option<u32>,
}

/// A statement of the workload that can be planned.
struct Statement {
    source: Source,
    subject: Subject,
    cost: f64,
    /// Candidates that its demands led to, by number.
    candidates: Vec<u32>,
}

/// An index that is worth having.
pub struct Suggestion {
    pub candidate: Candidate,
    pub size_bytes: u64,
    pub write_cost: f64,
    pub cost_before: f64,
    pub cost_after: f64,
    /// What would be lost without it, all others there.
    pub saved: f64,
    pub queries: Vec<Use>,
    /// Share of the workload's cost that is missed at most.
    pub gap: f64,
    /// Rows that the workload wrote to the table.
    pub rows_written: f64,
    pub has_statistics: bool,
}

/// A statement whose plan uses an index, with the planner's cost of one execution.
#[derive(Clone)]
pub struct Use {
    pub query_id: i64,
    text: String,
    calls: f64,
    cost_before: f64,
    cost_after: f64,
    is_generic: bool,
}

impl Suggestion {
    /// The evidence.
    pub fn reason(&self) -> serde_json::Value {
        let queries: Vec<serde_json::Value> = self
            .queries
            .iter()
            .map(|query| {
                json!({
                    "queryid": query.query_id, "query": query.text, "calls": query.calls,
                    "cost_before": query.cost_before, "cost_after": query.cost_after,
                    "plan": if query.is_generic { "generic" } else { "of these values" },
                })
            })
            .collect();
        json!({
            "queries": queries, "rows_written": self.rows_written, "largest_gap_pct": 100.0 * self.gap,
            "table_has_statistics": self.has_statistics,
        })
    }

    /// A plan without values rests on averages, and one without statistics on guesses.
    pub fn confidence(&self) -> &'static str {
        match (self.has_statistics, self.queries.iter().all(|query| query.is_generic)) {
            (false, _) => "low",
            (true, true) => "medium",
            (true, false) => "high",
        }
    }
}

/// What became of a workload.
pub struct Outcome {
    pub suggestions: Vec<Suggestion>,
    pub planned: usize,
    pub skipped: usize,
    pub candidates: usize,
}

/// Suggests indexes for these statements.
pub fn suggest(sources: Vec<Source>, asked: &Asked) -> Outcome {
    let given = sources.len();
    let mut pool = Pool::default();
    let mut statements = Vec::new();
    for source in sources {
        pgrx::check_for_interrupts!();
        statements.extend(statement(source, &mut pool));
    }
    let planned = statements.len();
    let problem = problem(&statements, &pool, asked);
    let until_ns = clock::monotonic_ns() + CHOICE_NS;
    let choice = choose::choose(&problem, &mut || clock::monotonic_ns() > until_ns);
    let suggestions = choice.map_or(Vec::new(), |choice| explained(&statements, &pool, &problem, &choice));
    Outcome { suggestions, planned, skipped: given - planned, candidates: pool.indexes.len() }
}

/// The candidates, each once, with its index.
#[derive(Default)]
struct Pool {
    numbers: HashMap<String, u32>,
    candidates: Vec<Candidate>,
    indexes: Vec<Hypothetical>,
    /// Rows and pages of the table of each.
    tables: Vec<(f64, f64)>,
}

impl Pool {
    /// The number of a candidate; `None` for one that cannot be built, or when there are too many.
    fn number(&mut self, candidate: Candidate, table: (f64, f64)) -> Option<u32> {
        let ddl = candidate.ddl();
        if let Some(number) = self.numbers.get(&ddl) {
            return Some(*number);
        }
        if self.indexes.len() >= MAX_CANDIDATES {
            return None;
        }
        let Definition::Index(index) = hypothetical::define_guarded(ddl.as_bytes()) else { return None };
        size::estimate(index, table);
        let number = self.indexes.len() as u32;
        self.numbers.insert(ddl, number);
        self.candidates.push(candidate);
        self.indexes.push(index);
        self.tables.push(table);
        Some(number)
    }

    fn of(&self, numbers: &[u32]) -> Vec<Hypothetical> {
        numbers.iter().map(|number| self.indexes[*number as usize]).collect()
    }
}

/// Work about a statement, as the role that ran it: planning runs functions. What fails is left out.
fn careful<R>(source: &Source, work: impl FnOnce() -> R) -> Option<R> {
    shield::attempt(|| match source.user {
        Some(user) => session::as_user(user, work),
        None => work(),
    })
}

/// A statement with its candidates. `None`: it cannot be planned here, or not by this caller.
fn statement(source: Source, pool: &mut Pool) -> Option<Statement> {
    let (subject, cost, demands) = careful(&source, || {
        let Draft::Subject(subject) = whatif::draft_guarded(source.text.as_bytes()) else { return None };
        subject.check_rights_guarded();
        let mut cost = 0.0;
        // What is found is written down for whoever builds it, under whatever search path.
        let demands = spi::with_own_search_path(|| harvest::collect(|| cost = subject.plan_guarded(&[], &[]).cost));
        Some((subject, cost, demands))
    })??;
    let mut candidates = Vec::new();
    for demand in &demands {
        for candidate in candidate::candidates(demand) {
            let table = (demand.rows, demand.pages);
            let number = careful(&source, || spi::with_own_search_path(|| pool.number(candidate, table)));
            candidates.extend(number.flatten());
        }
    }
    candidates.sort_unstable();
    candidates.dedup();
    Some(Statement { source, subject, cost, candidates })
}

/// The planner's costs of a statement, with which candidates, as far as there was time.
fn options(statement: &Statement, pool: &Pool, until_ns: u64) -> Vec<CostOption> {
    let mut found = Vec::new();
    let mut plan = |numbers: &[u32]| {
        pgrx::check_for_interrupts!();
        if numbers.is_empty() || clock::monotonic_ns() > until_ns {
            return Vec::new();
        }
        let Some(planned) = careful(&statement.source, || statement.subject.plan_guarded(&pool.of(numbers), &[]))
        else {
            return Vec::new();
        };
        let used: Vec<u32> = planned
            .used()
            .filter_map(|used| match used {
                Used::Added(place) => numbers.get(place).copied(),
                Used::Real(_) => None,
            })
            .collect();
        if !used.is_empty() && planned.cost < statement.cost {
            found.push(CostOption { indexes: used.clone(), cost: planned.cost });
        }
        used
    };
    let mut waiting = vec![statement.candidates.clone()];
    let mut peels = 0;
    while let Some(numbers) = waiting.pop().filter(|_| peels < MAX_PEELS) {
        peels += 1;
        for used in plan(&numbers) {
            waiting.insert(0, numbers.iter().copied().filter(|number| *number != used).collect());
        }
    }
    for number in &statement.candidates {
        plan(&[*number]);
    }
    found
}

fn problem(statements: &[Statement], pool: &Pool, asked: &Asked) -> Problem {
    let until_ns = clock::monotonic_ns() + PLANNING_NS;
    let queries = statements
        .iter()
        .map(|statement| QueryCosts {
            weight: statement.source.weight(statement.cost),
            cost_without: statement.cost,
            options: options(statement, pool, until_ns),
        })
        .collect();
    let written = written(statements);
    let unit = workload::unit(statements.iter().map(|statement| (&statement.source, statement.cost)));
    let facts = |number: usize| IndexFacts {
        size_bytes: size::size_bytes(pool.indexes[number], pool.tables[number]) as u64,
        write_cost: write_cost(pool.indexes[number], &written) * unit,
        table: pool.candidates[number].relation,
        standing: Standing::Free,
    };
    Problem {
        queries,
        indexes: (0..pool.indexes.len()).map(facts).collect(),
        limits: Limits {
            storage_bytes: asked.storage_bytes,
            indexes_per_table: asked.indexes_per_table,
            write_cost: None,
        },
    }
}

/// Rows that the workload inserted into each table, or updated other than by HOT updates.
fn written(statements: &[Statement]) -> HashMap<u32, f64> {
    let mut written = HashMap::new();
    for statement in statements {
        if let Some((relation, is_update)) = statement.subject.written() {
            let share = if is_update { statistics::not_hot_share(relation) } else { 1.0 };
            *written.entry(relation).or_default() += statement.source.rows * share;
        }
    }
    written
}

/// What writing to the index would have cost, in the planner's units: for each entry the way down (as btcostestimate counts
/// it: 50 operators a level), the entry, and a tenth of a page from elsewhere.
fn write_cost(index: Hypothetical, written: &HashMap<u32, f64>) -> f64 {
    let entries = written.get(&index.relation()).copied().unwrap_or_default() * index.fraction();
    let descent = f64::from(index.growth().height + 1) * 50.0 * 0.0025;
    entries * (descent + 0.005 + 0.4)
}

/// Plans the whole choice once more, and says what each index is good for.
fn explained(statements: &[Statement], pool: &Pool, problem: &Problem, choice: &Choice) -> Vec<Suggestion> {
    let chosen = pool.of(&choice.indexes);
    let all = choice.cost_without_any.max(f64::MIN_POSITIVE);
    let mut uses: Vec<Vec<Use>> = vec![Vec::new(); chosen.len()];
    let (mut before, mut after) = (0.0, 0.0);
    let written = written(statements);
    for (statement, costs) in statements.iter().zip(&problem.queries) {
        pgrx::check_for_interrupts!();
        let Some(planned) = careful(&statement.source, || statement.subject.plan_guarded(&chosen, &[])) else {
            continue;
        };
        before += costs.weight * statement.cost;
        after += costs.weight * planned.cost;
        for used in planned.used() {
            if let Used::Added(place) = used
                && let Some(uses) = uses.get_mut(place)
            {
                uses.push(Use {
                    query_id: statement.source.query_id,
                    text: statement.source.text.clone(),
                    calls: statement.source.calls,
                    cost_before: statement.cost,
                    cost_after: planned.cost,
                    is_generic: statement.subject.types().count() > 0,
                });
            }
        }
    }
    let mut suggestions: Vec<Suggestion> = choice
        .indexes
        .iter()
        .zip(uses)
        .enumerate()
        .filter(|(place, (_, uses))| !uses.is_empty() && choice.contributions[*place] / all >= MIN_SHARE)
        .map(|(place, (number, queries))| Suggestion {
            candidate: pool.candidates[*number as usize].clone(),
            size_bytes: problem.indexes[*number as usize].size_bytes,
            write_cost: problem.indexes[*number as usize].write_cost,
            cost_before: before,
            cost_after: after,
            saved: choice.contributions[place],
            queries,
            gap: choice.gap(),
            rows_written: written.get(&pool.candidates[*number as usize].relation).copied().unwrap_or_default(),
            has_statistics: statistics::family_size(pool.candidates[*number as usize].relation).0 > 0.0,
        })
        .collect();
    suggestions.sort_by(|a, b| b.saved.total_cmp(&a.saved));
    suggestions
}

/// Says what was looked at.
pub fn report(outcome: &Outcome) {
    if outcome.planned + outcome.skipped == 0 {
        return session::notice(
            "there is no statement to suggest indexes for: pg_steward.capture_enabled must be on while they run, or give them as queries",
        );
    }
    session::notice(&format!(
        "{} statements were planned with {} candidate indexes, {} were left out",
        outcome.planned, outcome.candidates, outcome.skipped
    ));
}
