//! Sizes of indexes that do not exist yet, as `CREATE INDEX` would build them.
//!
//! The builds are followed as Postgres's source does them (the files are named at each constant and formula; the paths
//! are under `src/backend/access` unless they begin with `include`), for pages of 8192 bytes and an alignment of 8. The
//! inputs are what `pg_class` and `pg_stats` offer. Every number may be anything, also not a number: it is taken for
//! the nearest possible one.
//!
//! What no statistics tell is assumed: columns are independent, except as far as the caller's number of distinct
//! combinations says otherwise; values that are not among the most common have equal chances to be drawn, so their
//! rows follow a Poisson distribution; and widths do not depend on how common a value is. Later growth is not foreseen:
//! pages that random inserts split are about 69 % full, so such a tree is a third larger than a new one.

pub mod brin;
pub mod btree;
pub mod gin;
mod groups;
pub mod hash;
mod tuple;

pub use groups::{distinct_after_filter, independent_keys};

/// Bytes of a page: BLCKSZ, as all packaged servers have it.
const PAGE_BYTES: f64 = 8192.0;
/// Bytes of SizeOfPageHeaderData (include/storage/bufpage.h).
const PAGE_HEADER_BYTES: f64 = 24.0;
/// Bytes of ItemIdData, one for each item on a page (include/storage/itemid.h).
const LINE_POINTER_BYTES: f64 = 4.0;
/// Bytes of ItemPointerData, the place of a row: a TID (include/storage/itemptr.h).
const TID_BYTES: f64 = 6.0;
/// MAXALIGN's alignment, in bytes.
const MAX_ALIGN: f64 = 8.0;
/// Pages that a relation can have: MaxBlockNumber (include/storage/block.h).
const MAX_PAGES: f64 = 4_294_967_294.0;
/// Rows that a table can have: MaxHeapTuplesPerPage (include/access/htup_details.h) on each page.
const MAX_ROWS: f64 = 291.0 * MAX_PAGES;

/// A column of an index, as `pg_stats` and `pg_type` describe it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyColumn {
    /// Mean bytes of a value that is not NULL, with the header of a short varlena (1 byte) or a long one (4):
    /// `avg_width`. That is cut to whole bytes, which matters where a little more does not fit the alignment: the mean
    /// of the values in `histogram_bounds` and `most_common_vals` tells the rest. A value that is stored out of line
    /// counts 18 there and is whole in an index.
    pub avg_width_bytes: f64,
    /// Standard deviation of the bytes, of the same values; 0 when all are equally wide. It decides how much is lost to
    /// alignment.
    pub width_spread_bytes: f64,
    /// Whether it is a varlena: `typlen = -1`.
    pub is_variable: bool,
    /// 1, 2, 4 or 8, from `typalign`. Does not apply to varlenas up to 127 bytes.
    pub align_bytes: u8,
    /// Share of NULLs: `null_frac`.
    pub null_fraction: f64,
    /// Distinct values, NULL not counted; an absolute number, unlike `n_distinct` may be.
    pub n_distinct: f64,
    /// Shares of the rows, NULLs among them, that have each of the most common values, from the most common on:
    /// `most_common_freqs`. May be empty.
    pub common_frequencies: Vec<f64>,
}

/// What an index would be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct IndexSize {
    /// Pages of its main fork, as `relpages`.
    pub pages: u64,
    /// Its entries, as `reltuples`: rows for all but BRIN, where it is ranges.
    pub tuples: f64,
    /// Levels above the leaves, as `tree_height` of IndexOptInfo; 0 for methods without a tree.
    pub tree_height: u32,
    /// Bytes of its main fork.
    pub size_bytes: u64,
}

impl IndexSize {
    fn new(pages: f64, tuples: f64, tree_height: u32) -> Self {
        let pages = between(pages.ceil(), 1.0, MAX_PAGES);
        // Both are within an i64, so nothing is cut off.
        IndexSize { pages: pages as u64, tuples, tree_height, size_bytes: (pages * PAGE_BYTES) as u64 }
    }
}

/// The number, moved into the range; what is no number becomes the lower end.
fn between(value: f64, low: f64, high: f64) -> f64 {
    if value.is_nan() { low } else { value.clamp(low, high) }
}

/// The next multiple of an alignment.
fn align(bytes: f64, to: f64) -> f64 {
    (bytes / to).ceil() * to
}

fn max_align(bytes: f64) -> f64 {
    align(bytes, MAX_ALIGN)
}

/// The `index`-th number of a sequence that fills 0 to 1 evenly, with no relation to the sequences of other dimensions
/// (Kronecker's, for square roots of primes): a fixed sample, so that the same shape always has the same size.
fn spread(index: usize, dimension: usize) -> f64 {
    const PRIMES: [f64; 16] = [2., 3., 5., 7., 11., 13., 17., 19., 23., 29., 31., 37., 41., 43., 47., 53.];
    let step = PRIMES.get(dimension % PRIMES.len()).copied().unwrap_or(2.0).sqrt();
    ((index as f64 + 0.5) * step).fract()
}
