//! How many rows share a key.
use super::{KeyColumn, MAX_ROWS, between};

/// Keys that are about equally common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Class {
    /// Keys that could be drawn.
    pub keys: f64,
    /// Mean rows of each, so not all are present when it is small.
    pub rows_each: f64,
}

/// Classes are merged when their shares are within half a doubling.
const CLASSES_PER_DOUBLING: f64 = 2.0;
/// Below this mean, practically no two rows have the same key.
const LONE_ROWS: f64 = 0.001;
/// Above this mean, the Poisson distribution is taken for a normal one.
const NORMAL_ROWS: f64 = 64.0;
/// How much more common than the average of the others the last of the most common values has to be.
const SKEWED: f64 = 2.0;
/// Most common values needed to tell how their shares fall.
const RANKS_FOR_SLOPE: usize = 40;
/// Classes of a skewed rest.
const TAIL_CLASSES: usize = 12;
/// Steps of the search for a factor between 2^-60 and 2^60.
const BISECTIONS: u32 = 48;

impl Class {
    /// Rows of all keys.
    pub(super) fn rows(&self) -> f64 {
        self.keys * self.rows_each
    }

    /// Keys that have a row.
    pub(super) fn present(&self) -> f64 {
        self.keys * -(-self.rows_each).exp_m1()
    }

    /// A number of rows that `share` of the present keys do not exceed: at least 1.
    pub(super) fn rows_at(&self, share: f64) -> f64 {
        let mean = self.rows_each;
        if self.keys <= 1.0 || mean > NORMAL_ROWS {
            // The logistic curve is near the normal one.
            let deviations = if self.keys <= 1.0 { 0.0 } else { (share / (1.0 - share)).ln() / 1.702 };
            return (mean + mean.sqrt() * between(deviations, -4.0, 4.0)).round().max(1.0);
        }
        let mut rows = 1.0;
        let mut chance = if mean < LONE_ROWS { 1.0 } else { mean / mean.exp_m1() };
        let mut sum = chance;
        while sum < share && rows < 4.0 * NORMAL_ROWS {
            rows += 1.0;
            chance *= mean / rows;
            sum += chance;
        }
        rows
    }
}

/// The keys of an index by how common they are; `distinct` of them are present, or as many as independent columns have
/// when that is not a positive number.
pub(super) fn classes(columns: &[KeyColumn], rows: f64, distinct: f64) -> Vec<Class> {
    let mut shares = vec![Class { keys: 1.0, rows_each: 1.0 }];
    for column in columns {
        shares = product(&shares, &column_shares(column, rows), rows);
    }
    let all: f64 = shares.iter().map(Class::rows).sum();
    let scale = if all > 0.0 { rows / all } else { 0.0 };
    let independent = shares.into_iter().map(|class| Class { rows_each: class.rows_each * scale, ..class }).collect();
    if distinct > 0.0 { fit(independent, distinct.min(rows)) } else { independent }
}

/// The column's values by their share of the rows, which stands in place of the rows.
fn column_shares(column: &KeyColumn, rows: f64) -> Vec<Class> {
    let null_fraction = between(column.null_fraction, 0.0, 1.0);
    let mut shares = Vec::with_capacity(column.common_frequencies.len() + TAIL_CLASSES + 1);
    let mut left = 1.0 - null_fraction;
    for frequency in &column.common_frequencies {
        let share = between(*frequency, 0.0, left);
        left -= share;
        shares.push(Class { keys: 1.0, rows_each: share });
    }
    let least_common = shares.last().map_or(0.0, |class| class.rows_each);
    let others = (between(column.n_distinct, 1.0, MAX_ROWS) - shares.len() as f64).max(1.0);
    if least_common * others > SKEWED * left {
        let others = others.max(unseen(&column.common_frequencies, left).min(left * rows));
        shares.extend(tail(shares.len() as f64, least_common, others, left));
    } else {
        let keys = drawable(others, left * rows);
        shares.push(Class { keys, rows_each: left / keys });
    }
    shares.push(Class { keys: 1.0, rows_each: null_fraction });
    shares
}

/// How many values are left when the shares of the most common ones go on falling as in the last two doublings of the
/// rank. A sample of the rows, as ANALYZE takes it, tells too little of rare values: `n_distinct` may be a tenth of the
/// truth when shares fall slowly.
fn unseen(common_frequencies: &[f64], left: f64) -> f64 {
    let ranked = common_frequencies.len();
    let mass = |ranks: std::ops::Range<usize>| common_frequencies.get(ranks).unwrap_or_default().iter().sum::<f64>();
    let (before, last) = (mass(ranked / 4..ranked / 2), mass(ranked / 2..ranked));
    if ranked < RANKS_FOR_SLOPE || before.min(last) <= 0.0 {
        return 0.0;
    }
    // From one doubling to the next the mass changes by a constant factor, for a power law.
    let (factor, wanted) = (last / before, left / last);
    let doublings = if (factor - 1.0).abs() < 0.01 {
        wanted
    } else {
        (1.0 - wanted * (1.0 - factor) / factor).max(0.0).ln() / factor.ln()
    };
    between(ranked as f64 * (doublings.exp2() - 1.0), 0.0, MAX_ROWS)
}

/// The values that are not among the most common, when the last of these is much more common than they are on average:
/// their shares go on falling, as a power of the rank, from there.
fn tail(ranked: f64, least_common: f64, others: f64, left: f64) -> Vec<Class> {
    let step = ((ranked + others) / ranked).powf(1.0 / TAIL_CLASSES as f64);
    let ranks = || (0..TAIL_CLASSES as i32).map(|at| (ranked * step.powi(at), ranked * step.powi(at + 1)));
    let with = |power: f64| {
        ranks().map(move |(from, to)| {
            let rank = (from * to).sqrt() / ranked;
            Class { keys: to - from, rows_each: least_common * rank.powf(-power) }
        })
    };
    let (mut low, mut high) = (0.0f64, 16.0f64);
    for _ in 0..BISECTIONS {
        let middle = (low + high) / 2.0;
        if with(middle).map(|class| class.rows()).sum::<f64>() > left { low = middle } else { high = middle }
    }
    with(high).collect()
}

/// How many values there have to be, all equally likely, for `rows` rows to have `distinct` of them.
fn drawable(distinct: f64, rows: f64) -> f64 {
    let (mut low, mut high) = (0.0f64, 60.0f64);
    for _ in 0..BISECTIONS {
        let middle = (low + high) / 2.0;
        let keys = distinct * middle.exp2();
        let drawn = Class { keys, rows_each: rows / keys };
        if drawn.present() < distinct.min(rows) { low = middle } else { high = middle }
    }
    distinct * high.exp2()
}

/// The combinations of the values of two columns.
fn product(left: &[Class], right: &[Class], rows: f64) -> Vec<Class> {
    let combine = |a: &Class, b: &Class| Class { keys: a.keys * b.keys, rows_each: a.rows_each * b.rows_each };
    let pairs = left.iter().flat_map(|a| right.iter().map(move |b| combine(a, b)));
    merge(pairs, LONE_ROWS / rows.max(1.0))
}

/// Keys of similar shares become one class, so that there are few; shares below the least all count as one.
fn merge(classes: impl Iterator<Item = Class>, least: f64) -> Vec<Class> {
    let mut merged: Vec<Class> = Vec::new();
    for class in classes.filter(|class| class.rows() > 0.0) {
        let doublings = (1.0 / class.rows_each.max(least)).log2();
        let at = between(doublings * CLASSES_PER_DOUBLING, 0.0, 255.0) as usize;
        if merged.len() <= at {
            merged.resize(at + 1, Class { keys: 0.0, rows_each: 0.0 });
        }
        if let Some(place) = merged.get_mut(at) {
            let rows = place.rows() + class.rows();
            place.keys += class.keys;
            place.rows_each = rows / place.keys;
        }
    }
    merged.retain(|class| class.keys > 0.0);
    merged
}

/// Divides the keys, or puts them together, by the one factor that leaves `distinct` of them present.
fn fit(classes: Vec<Class>, distinct: f64) -> Vec<Class> {
    let divided = |class: &Class, factor: f64| Class { keys: class.keys * factor, rows_each: class.rows_each / factor };
    let (mut low, mut high) = (-60.0f64, 60.0f64);
    for _ in 0..BISECTIONS {
        let middle = (low + high) / 2.0;
        let present: f64 = classes.iter().map(|class| divided(class, middle.exp2()).present()).sum();
        if present < distinct { low = middle } else { high = middle }
    }
    classes.iter().map(|class| divided(class, low.exp2())).collect()
}

/// Distinct combinations that `rows` rows have of these columns when they are independent, NULL being a value like
/// others.
pub fn independent_keys(columns: &[KeyColumn], rows: f64) -> f64 {
    let rows = between(rows, 0.0, MAX_ROWS);
    classes(columns, rows, 0.0).iter().map(Class::present).sum::<f64>().min(rows)
}

/// Distinct values left when a filter that has nothing to do with them leaves `rows_after` of `rows_before` rows.
pub fn distinct_after_filter(distinct: f64, rows_before: f64, rows_after: f64) -> f64 {
    let before = between(rows_before, 1.0, MAX_ROWS);
    let distinct = between(distinct, 1.0, before);
    let kept = between(rows_after / before, 0.0, 1.0);
    // A value goes when all of its rows go.
    distinct * (1.0 - (1.0 - kept).powf(before / distinct))
}
