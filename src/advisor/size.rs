//! How large a hypothetical index would be. Under a guard.

use crate::pg::hypothetical::{Growth, Hypothetical, Method};
use crate::pg::statistics::ColumnFacts;
use steward_core::advisor::size::brin::{self, BrinShape};
use steward_core::advisor::size::btree::{self, BtreeShape};
use steward_core::advisor::size::gin::{self, GinElements, GinShape};
use steward_core::advisor::size::hash::{self, HashShape};
use steward_core::advisor::size::{IndexSize, KeyColumn};

/// Rows of a table of which nothing is known.
const USUAL_ROWS: f64 = 1000.0;
/// Mean bytes of an element of an array or document, where nothing is known of them.
const USUAL_ELEMENT_BYTES: f64 = 8.0;
/// Rows that have an element in common, where nothing is known of them.
const USUAL_ROWS_PER_ELEMENT: f64 = 10.0;
/// The defaults of pages_per_range (BRIN_DEFAULT_PAGES_PER_RANGE) and maintenance_work_mem.
const USUAL_PAGES_PER_RANGE: f64 = 128.0;
const MAINTENANCE_BYTES: f64 = 67_108_864.0;
/// Bytes of a page.
pub const PAGE_BYTES: f64 = 8192.0;

/// Estimates its size, and tells the planner.
pub fn estimate(index: Hypothetical, (rows, heap_pages): (f64, f64)) {
    let rows = if rows > 0.0 { rows } else { USUAL_ROWS };
    let (columns, keys) = index.columns(rows);
    index.set_growth(match index.method() {
        Method::Btree => of_rows(&of_btree(index, rows, &columns, keys), rows),
        Method::Hash => of_rows(&of_hash(index, rows, &columns), rows),
        Method::Gin => of_rows(&of_gin(rows, heap_pages, &columns), rows),
        Method::Brin => of_brin(index, heap_pages.max(1.0), &columns),
    });
}

/// Bytes that it would have on a table of so many rows and pages.
pub fn size_bytes(index: Hypothetical, (rows, heap_pages): (f64, f64)) -> f64 {
    let growth = index.growth();
    let pages =
        growth.fixed_pages + growth.pages_per_row * rows * index.fraction() + growth.pages_per_heap_page * heap_pages;
    pages.ceil() * PAGE_BYTES
}

fn fillfactor(index: Hypothetical, default: u8) -> u8 {
    match u8::try_from(index.options().fillfactor_pct) {
        Ok(0) | Err(_) => default,
        Ok(given) => given,
    }
}

fn column(facts: &ColumnFacts) -> KeyColumn {
    KeyColumn {
        avg_width_bytes: facts.avg_width_bytes,
        width_spread_bytes: facts.width_spread_bytes,
        is_variable: facts.is_variable,
        align_bytes: facts.align_bytes,
        null_fraction: facts.null_fraction,
        n_distinct: facts.n_distinct,
        common_frequencies: facts.common_frequencies.clone(),
    }
}

fn of_btree(index: Hypothetical, rows: f64, columns: &[ColumnFacts], keys: usize) -> IndexSize {
    btree::btree_size(&BtreeShape {
        rows,
        keys: columns.iter().take(keys).map(column).collect(),
        included: columns.iter().skip(keys).map(column).collect(),
        distinct_keys: 0.0,
        fillfactor_pct: fillfactor(index, 90),
        is_unique: index.is_unique(),
        can_deduplicate: index.options().deduplicates && index.may_deduplicate(),
    })
}

fn of_hash(index: Hypothetical, rows: f64, columns: &[ColumnFacts]) -> IndexSize {
    let key = columns.first().map_or(KeyColumn::default(), column);
    hash::hash_size(&HashShape {
        rows: rows * (1.0 - key.null_fraction),
        table_rows: rows,
        key,
        distinct_keys: 0.0,
        fillfactor_pct: fillfactor(index, 75),
    })
}

/// Postgres keeps no statistics of the elements of a jsonb or of trigrams, so their number follows from the bytes.
fn of_gin(rows: f64, heap_pages: f64, columns: &[ColumnFacts]) -> IndexSize {
    let elements: f64 =
        columns.iter().map(|facts| (facts.avg_width_bytes / USUAL_ELEMENT_BYTES).clamp(1.0, 10_000.0)).sum();
    let null_fraction = columns.first().map_or(0.0, |facts| facts.null_fraction);
    let element = KeyColumn {
        avg_width_bytes: USUAL_ELEMENT_BYTES,
        is_variable: true,
        align_bytes: 4,
        n_distinct: (rows * elements / USUAL_ROWS_PER_ELEMENT).max(1.0),
        ..KeyColumn::default()
    };
    gin::gin_size(&GinShape {
        rows: rows * (1.0 - null_fraction),
        heap_pages,
        elements: vec![GinElements { per_row: elements, element }],
        empty_rows: rows * null_fraction,
        maintenance_memory_bytes: MAINTENANCE_BYTES,
    })
}

/// A size that grows with the rows.
fn of_rows(size: &IndexSize, rows: f64) -> Growth {
    Growth {
        fixed_pages: 1.0,
        pages_per_row: (size.pages as f64 - 1.0) / rows,
        height: size.tree_height as i32,
        usual_pages: size.pages as f64,
        ..Growth::default()
    }
}

fn of_brin(index: Hypothetical, heap_pages: f64, columns: &[ColumnFacts]) -> Growth {
    let columns: Vec<KeyColumn> = columns.iter().map(column).collect();
    let pages_per_range = match index.options().pages_per_range {
        range if range > 0 => f64::from(range),
        _ => USUAL_PAGES_PER_RANGE,
    };
    let size = brin::brin_size(&BrinShape { heap_pages, pages_per_range, values: brin::minmax_values(&columns) });
    let pages_per_heap_page = (size.pages as f64 - 2.0).max(0.0) / heap_pages;
    Growth { fixed_pages: 2.0, pages_per_heap_page, ..Growth::default() }
}
