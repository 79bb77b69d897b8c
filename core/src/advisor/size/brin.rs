//! BRIN indexes: a summary for each range of pages, and a map of where the summaries are (brin/brin_revmap.c).
use super::tuple::{Layout, width_bytes};
use super::{
    IndexSize, KeyColumn, LINE_POINTER_BYTES, MAX_PAGES, PAGE_BYTES, PAGE_HEADER_BYTES, TID_BYTES, between, max_align,
};

/// BRIN_DEFAULT_PAGES_PER_RANGE (include/access/brin.h).
pub const DEFAULT_PAGES_PER_RANGE: f64 = 128.0;
/// Values stored for a column by the minmax operator classes: least and greatest (brin/brin_minmax.c).
pub const MINMAX_VALUES: u32 = 2;
/// Bytes of BrinSpecialSpace (include/access/brin_page.h).
const SPECIAL_BYTES: f64 = 8.0;
/// SizeOfBrinTuple (include/access/brin_tuple.h), in bytes.
const HEADER_BYTES: f64 = 5.0;

/// A BRIN index to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BrinShape {
    /// Pages of the table: `relpages`.
    pub heap_pages: f64,
    /// Pages summarized together; [`DEFAULT_PAGES_PER_RANGE`] unless set.
    pub pages_per_range: f64,
    /// The values stored for each range, in order of the columns, each of the type that its operator class stores; a
    /// column of minmax has [`MINMAX_VALUES`] times itself, see [`minmax_values`].
    pub values: Vec<KeyColumn>,
}

/// What the minmax operator classes store for these columns.
pub fn minmax_values(columns: &[KeyColumn]) -> Vec<KeyColumn> {
    columns.iter().flat_map(|column| std::iter::repeat_n(column.clone(), MINMAX_VALUES as usize)).collect()
}

/// Size of the BRIN index that CREATE INDEX would make.
pub fn brin_size(shape: &BrinShape) -> IndexSize {
    let heap_pages = between(shape.heap_pages, 0.0, MAX_PAGES);
    let ranges = (heap_pages / between(shape.pages_per_range, 1.0, MAX_PAGES)).ceil().max(1.0);
    let usable_bytes = PAGE_BYTES - PAGE_HEADER_BYTES - SPECIAL_BYTES;
    // REVMAP_PAGE_MAXITEMS (include/access/brin_page.h).
    let map_pages = (ranges / (usable_bytes / TID_BYTES).floor()).ceil();
    let per_page = (usable_bytes / (summary_bytes(shape) + LINE_POINTER_BYTES)).floor().max(1.0);
    IndexSize::new(1.0 + map_pages + (ranges / per_page).ceil(), ranges, 0)
}

/// Bytes of a summary (brin_form_tuple in brin/brin_tuple.c): two bits for each column when there are NULLs, then the
/// values. A range that has nothing but NULLs is smaller, which is rare enough to leave out of account.
fn summary_bytes(shape: &BrinShape) -> f64 {
    let mut layout = Layout::default();
    shape.values.iter().for_each(|value| layout.add(value, width_bytes(value, 0.5)));
    let has_nulls = shape.values.iter().any(|value| value.null_fraction > 0.0);
    let columns = (shape.values.len() as f64 / f64::from(MINMAX_VALUES)).ceil();
    let bitmap_bytes = if has_nulls { (columns * 2.0 / 8.0).ceil() } else { 0.0 };
    max_align(max_align(HEADER_BYTES + bitmap_bytes) + layout.data_bytes()).min(PAGE_BYTES)
}
