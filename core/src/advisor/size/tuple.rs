//! Bytes of index tuples.
use super::{KeyColumn, MAX_ALIGN, align, between, max_align, spread};

/// Bytes of IndexTupleData (include/access/itup.h).
pub(super) const HEADER_BYTES: f64 = 8.0;
/// Header and IndexAttributeBitMapData, aligned: what a tuple with a NULL begins with (include/access/itup.h,
/// IndexInfoFindDataOffset).
const HEADER_WITH_NULLS_BYTES: f64 = 16.0;
/// The longest varlena with a header of 1 byte, which is not aligned: VARATT_SHORT_MAX (include/varatt.h).
const SHORT_VARLENA_BYTES: f64 = 127.0;
/// No value is wider than the largest index tuple, INDEX_SIZE_MASK (include/access/itup.h).
const WIDEST_BYTES: f64 = 8191.0;
/// Tuples that stand for all.
const SAMPLES: usize = 256;

/// Where a tuple's data ends as values are added to it.
#[derive(Clone, Copy, Default)]
pub(super) struct Layout {
    data_bytes: f64,
    has_nulls: bool,
}

impl Layout {
    /// Adds a value (heap_compute_data_size in common/heaptuple.c, which index tuples use too).
    pub(super) fn add(&mut self, column: &KeyColumn, width_bytes: f64) {
        let is_short = column.is_variable && width_bytes <= SHORT_VARLENA_BYTES;
        let start = if is_short { self.data_bytes } else { align(self.data_bytes, alignment(column)) };
        self.data_bytes = start + width_bytes;
    }

    fn add_null(&mut self) {
        self.has_nulls = true;
    }

    /// Bytes of the values and the space between them.
    pub(super) fn data_bytes(&self) -> f64 {
        self.data_bytes
    }

    /// Bytes of the index tuple (index_form_tuple in common/indextuple.c).
    fn tuple_bytes(&self) -> f64 {
        let header_bytes = if self.has_nulls { HEADER_WITH_NULLS_BYTES } else { HEADER_BYTES };
        max_align(header_bytes + self.data_bytes)
    }
}

/// Bytes of sampled tuples, each as likely as any other.
pub(super) fn sample_bytes(columns: &[KeyColumn]) -> Vec<f64> {
    let samples = if columns.iter().all(is_uniform) { 1 } else { SAMPLES };
    (0..samples).map(|sample| sample_layout(columns, sample).tuple_bytes()).collect()
}

/// Mean bytes of a tuple.
pub(super) fn mean_bytes(columns: &[KeyColumn]) -> f64 {
    let bytes = sample_bytes(columns);
    bytes.iter().sum::<f64>() / bytes.len() as f64
}

/// Bytes of the widest tuple, for values of the given widths; the columns that have no width are as wide as can be.
pub(super) fn widest_bytes(columns: &[KeyColumn], max_widths_bytes: &[f64]) -> f64 {
    let mut layout = Layout::default();
    for (at, column) in columns.iter().enumerate() {
        let known = max_widths_bytes.get(at).copied().filter(|width| !width.is_nan());
        layout.add(column, between(known.unwrap_or(WIDEST_BYTES), 0.0, WIDEST_BYTES));
        layout.has_nulls |= between(column.null_fraction, 0.0, 1.0) > 0.0;
    }
    layout.tuple_bytes()
}

/// A width of the column: one that `share` of the values do not exceed, for an even distribution.
pub(super) fn width_bytes(column: &KeyColumn, share: f64) -> f64 {
    let least = if column.is_variable { 1.0 } else { 0.0 };
    let deviation = between(column.width_spread_bytes, 0.0, WIDEST_BYTES) * 3f64.sqrt();
    let mean = between(column.avg_width_bytes, least, WIDEST_BYTES);
    (mean + deviation * (2.0 * share - 1.0)).round().clamp(least, WIDEST_BYTES)
}

fn sample_layout(columns: &[KeyColumn], sample: usize) -> Layout {
    let mut layout = Layout::default();
    for (at, column) in columns.iter().enumerate() {
        if spread(sample, 2 * at) < between(column.null_fraction, 0.0, 1.0) {
            layout.add_null();
        } else {
            layout.add(column, width_bytes(column, spread(sample, 2 * at + 1)));
        }
    }
    layout
}

fn is_uniform(column: &KeyColumn) -> bool {
    let null_fraction = between(column.null_fraction, 0.0, 1.0);
    between(column.width_spread_bytes, 0.0, 1.0) == 0.0 && (null_fraction == 0.0 || null_fraction == 1.0)
}

/// Bytes; what is no alignment counts as the next one, or the greatest.
fn alignment(column: &KeyColumn) -> f64 {
    f64::from(column.align_bytes.clamp(1, 8).next_power_of_two()).min(MAX_ALIGN)
}
