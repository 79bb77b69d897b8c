//! The statements that indexes are suggested for. Under a guard.

use crate::pg::spi;

/// Statements that are looked at, those that took most time first.
const MAX_STATEMENTS: &str = "200";

/// A thousand years.
const MAX_SINCE_MS: i64 = 1000 * 366 * 86_400_000;

/// A statement with what it has cost so far.
#[derive(Clone)]
pub struct Source {
    /// 0 for one that the caller gave.
    pub query_id: i64,
    /// Who ran it; `None`: it is the caller's.
    pub user: Option<u32>,
    pub text: String,
    pub calls: f64,
    /// 0 when it is not known.
    pub total_ms: f64,
    /// Rows returned or changed by all calls; 0 when it is not known.
    pub rows: f64,
}

impl Source {
    /// What one unit of the planner's cost weighs: the time that was measured is shared out over the cost, so that a
    /// statement counts by what it takes and not by what the planner thinks it does.
    pub fn weight(&self, cost: f64) -> f64 {
        match self.total_ms > 0.0 && cost > 0.0 {
            true => self.total_ms / cost,
            false => self.calls,
        }
    }
}

/// Milliseconds, or whatever weights are in, of a unit of cost in one execution: the median over the statements.
pub fn unit<'a>(statements: impl Iterator<Item = (&'a Source, f64)>) -> f64 {
    let mut units: Vec<f64> = statements
        .filter(|(source, cost)| source.calls > 0.0 && *cost > 0.0)
        .map(|(source, cost)| source.weight(cost) / source.calls)
        .collect();
    units.sort_by(f64::total_cmp);
    units.get(units.len() / 2).copied().unwrap_or(0.0)
}

/// What was captured of this database and ran within this time.
pub fn captured(since_ms: i64) -> Vec<Source> {
    let rows = spi::rows(
        c"SELECT s.queryid::pg_catalog.text, s.query, pg_catalog.sum(s.calls)::pg_catalog.text, pg_catalog.sum(s.total_exec_time)::pg_catalog.text, pg_catalog.sum(s.rows)::pg_catalog.text, s.userid::pg_catalog.text
          FROM steward.statements AS s JOIN pg_catalog.pg_roles AS a ON a.oid = s.userid
          WHERE s.dbid = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database())
            AND s.calls > 0 AND s.query IS NOT NULL
            AND s.last_seen >= pg_catalog.now() - $1::pg_catalog.text::pg_catalog.interval
          GROUP BY s.queryid, s.query, s.userid
          ORDER BY pg_catalog.sum(s.total_exec_time) DESC LIMIT $2::pg_catalog.int8",
        &[&format!("{} milliseconds", since_ms.clamp(0, MAX_SINCE_MS)), MAX_STATEMENTS],
    );
    rows.into_iter().filter_map(source).collect()
}

fn source(row: Vec<Option<String>>) -> Option<Source> {
    let mut columns = row.into_iter();
    let mut next = || columns.next().flatten();
    Some(Source {
        query_id: next()?.parse().ok()?,
        text: next()?,
        calls: next()?.parse().ok()?,
        total_ms: next()?.parse().ok()?,
        rows: next()?.parse().ok()?,
        user: Some(next()?.parse().ok()?),
    })
}

/// What the caller gave, each to be run as often as the others.
pub fn given(texts: Vec<String>) -> Vec<Source> {
    texts
        .into_iter()
        .map(|text| Source { query_id: 0, user: None, text, calls: 1.0, total_ms: 0.0, rows: 0.0 })
        .collect()
}
