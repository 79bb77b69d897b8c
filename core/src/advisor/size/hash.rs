//! Hash indexes: buckets of one page, allocated for the rows that the table is thought to have (hash/hashpage.c), and
//! overflow pages where a bucket has more rows than fit. An entry has the hash of the key only.
use super::groups::{Class, classes};
use super::{IndexSize, KeyColumn, LINE_POINTER_BYTES, MAX_ROWS, PAGE_BYTES, PAGE_HEADER_BYTES, between};

/// HASH_DEFAULT_FILLFACTOR (include/access/hash.h), in percent.
pub const DEFAULT_FILLFACTOR_PCT: u8 = 75;
/// HASH_MIN_FILLFACTOR (include/access/hash.h), in percent.
const MIN_FILLFACTOR_PCT: u8 = 10;
/// Bytes of HashPageOpaqueData (include/access/hash.h).
const SPECIAL_BYTES: f64 = 16.0;
/// Bytes of an entry: header and hash, each aligned, and its line pointer (_hash_init).
const ITEM_BYTES: f64 = 16.0 + LINE_POINTER_BYTES;
/// The least rows for each bucket that _hash_init aims at.
const LEAST_TARGET_ROWS: f64 = 10.0;
/// Buckets that _hash_init makes at least, and at most.
const BUCKETS: std::ops::RangeInclusive<f64> = 2.0..=1_073_741_824.0;
/// Up to here buckets are doubled at once (HASH_SPLITPOINT_GROUPS_WITH_ONE_PHASE, include/access/hash.h).
const ONE_PHASE_BUCKETS: f64 = 512.0;
/// Later a doubling is done in so many parts (HASH_SPLITPOINT_PHASES_PER_GRP, include/access/hash.h).
const PHASES: f64 = 4.0;
/// Overflow pages for each page of the bitmap that tells which are free: 8 for each of the bytes that are the largest
/// power of two on a page (_hash_init_metabuffer).
const PAGES_PER_BITMAP: f64 = 8.0 * 4096.0;
/// A key with more than this share of a page of rows is looked at by itself.
const HEAVY_SHARE: f64 = 0.5;

/// A hash index to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HashShape {
    /// Rows that have an entry: the key is not NULL, and a predicate is satisfied.
    pub rows: f64,
    /// Rows of the whole table as the planner estimates them, `reltuples`: the build makes buckets for as many, and for
    /// at least the rows.
    pub table_rows: f64,
    /// The key.
    pub key: KeyColumn,
    /// Distinct keys among the rows; when it is not a positive number, the column's.
    pub distinct_keys: f64,
    /// 10 to 100; [`DEFAULT_FILLFACTOR_PCT`] unless set.
    pub fillfactor_pct: u8,
}

/// Size of the hash index that CREATE INDEX would make.
pub fn hash_size(shape: &HashShape) -> IndexSize {
    let rows = between(shape.rows, 0.0, MAX_ROWS).round();
    let table_rows = between(shape.table_rows, rows, MAX_ROWS);
    let fillfactor_pct = f64::from(shape.fillfactor_pct.clamp(MIN_FILLFACTOR_PCT, 100));
    let target_rows = (PAGE_BYTES * fillfactor_pct / 100.0 / ITEM_BYTES).floor().max(LEAST_TARGET_ROWS);
    let buckets = buckets(table_rows, rows, target_rows);
    let overflow = overflow_pages(shape, rows, buckets).round();
    // The first page describes the index, and there is a page of the bitmap from the beginning.
    let bitmaps = 1.0 + (overflow / PAGES_PER_BITMAP).floor();
    IndexSize::new(1.0 + buckets + bitmaps + overflow, rows, 0)
}

/// Buckets made in the beginning, or as many as the rows make necessary in the end (_hash_doinsert).
fn buckets(table_rows: f64, rows: f64, target_rows: f64) -> f64 {
    let first = whole_phase(between((table_rows / target_rows).floor(), *BUCKETS.start(), *BUCKETS.end()));
    let needed = between((rows / target_rows).ceil(), *BUCKETS.start(), *BUCKETS.end());
    if needed > first { whole_phase(needed) } else { first }
}

/// The buckets that exist when this many are wanted: a full phase of allocation (_hash_get_totalbuckets of
/// _hash_spareindex, hash/hashutil.c).
fn whole_phase(wanted: f64) -> f64 {
    let doubled = wanted.log2().ceil().exp2();
    if doubled <= ONE_PHASE_BUCKETS {
        return doubled;
    }
    let phase = doubled / 2.0 / PHASES;
    (wanted / phase).ceil() * phase
}

/// Pages beyond the first, of all buckets. Between two doublings some buckets are split already, and those that are
/// not have twice the rows (_hash_hashkey2bucket, hash/hashutil.c).
fn overflow_pages(shape: &HashShape, rows: f64, buckets: f64) -> f64 {
    let key = KeyColumn { null_fraction: 0.0, ..shape.key.clone() };
    let groups = classes(std::slice::from_ref(&key), rows, shape.distinct_keys);
    let slots = buckets.log2().ceil().exp2();
    let (unsplit, split) = (slots - buckets, 2.0 * buckets - slots);
    [(unsplit, 2.0 / slots), (split, 1.0 / slots)]
        .iter()
        .map(|(count, share)| count * overflow_of_bucket(&groups, *share))
        .sum()
}

/// Expected overflow pages of a bucket that gets this share of the keys.
fn overflow_of_bucket(groups: &[Class], share: f64) -> f64 {
    let page_rows = ((PAGE_BYTES - PAGE_HEADER_BYTES - SPECIAL_BYTES) / ITEM_BYTES).floor();
    let is_heavy = |class: &&Class| class.rows_each > HEAVY_SHARE * page_rows;
    let light = || groups.iter().filter(|class| !is_heavy(class));
    let mean = share * light().map(Class::rows).sum::<f64>();
    // Keys fall into buckets one by one, each with all its rows.
    let variance = share * light().map(|class| class.rows() * (1.0 + class.rows_each)).sum::<f64>();
    let base = expected_overflow(mean, variance, page_rows);
    let heavy = groups.iter().filter(is_heavy).map(|class| {
        let with_key = expected_overflow(mean + class.rows_each, variance, page_rows);
        class.keys * share * (with_key - base)
    });
    base + heavy.sum::<f64>()
}

/// Expected pages beyond the first of a bucket whose rows have a normal distribution: the chance that there is a second
/// one, and a third, and so on.
fn expected_overflow(mean: f64, variance: f64, page_rows: f64) -> f64 {
    let deviation = variance.sqrt().max(1.0);
    let sure = ((mean - 6.0 * deviation) / page_rows).floor().max(0.0);
    let chances = (0..64).map(|more| exceeds(((sure + 1.0 + f64::from(more)) * page_rows - mean) / deviation));
    sure + chances.sum::<f64>()
}

/// Chance that a normal variable is more than so many deviations above its mean (the logistic approximation of Bowling
/// and others 2009, within 0.0002).
fn exceeds(deviations: f64) -> f64 {
    1.0 / (1.0 + (1.5976 * deviations + 0.07056 * deviations.powi(3)).exp())
}
