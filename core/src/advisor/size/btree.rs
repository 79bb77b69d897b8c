//! B-trees, as nbtree/nbtsort.c builds them: leaves from left to right, rows with the same key put together in posting
//! lists, and above them levels of pivots cut off after the first column that tells two leaves apart.
use super::groups::{Class, classes, independent_keys};
use super::tuple::{mean_bytes, sample_bytes, widest_bytes};
use super::{
    IndexSize, KeyColumn, LINE_POINTER_BYTES, MAX_ALIGN, MAX_ROWS, PAGE_BYTES, PAGE_HEADER_BYTES, TID_BYTES, between,
    max_align, spread,
};

/// Bytes of the largest index tuple: BTMaxItemSize (include/access/nbtree.h).
pub const MAX_TUPLE_BYTES: f64 = 2704.0;
/// BTREE_DEFAULT_FILLFACTOR (include/access/nbtree.h), in percent.
pub const DEFAULT_FILLFACTOR_PCT: u8 = 90;
/// BTREE_MIN_FILLFACTOR (include/access/nbtree.h), in percent.
const MIN_FILLFACTOR_PCT: u8 = 10;
/// BTREE_NONLEAF_FILLFACTOR (include/access/nbtree.h), in percent.
const INTERNAL_FILLFACTOR_PCT: u8 = 70;
/// Bytes of BTPageOpaqueData (include/access/nbtree.h).
const SPECIAL_BYTES: f64 = 16.0;
/// What PageGetFreeSpace (storage/page/bufpage.c) says of a page of _bt_blnewpage, in bytes: it takes off the line
/// pointer of the high key, which is always there, and that of the next item.
const EMPTY_FREE_BYTES: f64 = PAGE_BYTES - PAGE_HEADER_BYTES - SPECIAL_BYTES - 2.0 * LINE_POINTER_BYTES;
/// The largest posting list, in bytes: maxpostingsize of _bt_load, which sizes of tuples do not exceed.
const MAX_POSTING_BYTES: f64 = 812.0;
/// A TID appended to a pivot, aligned, in bytes (_bt_truncate in nbtree/nbtutils.c). A leaf keeps room for it.
const PIVOT_TID_BYTES: f64 = 8.0;
/// Bytes of the first pivot of a page, which has no key (_bt_sortaddtup).
const FIRST_PIVOT_BYTES: f64 = 8.0;
/// Nullable columns whose NULLs are looked at apart.
const NULLABLE_SPLIT: usize = 3;
/// The sequence of samples that draws how many rows a key has; columns use the ones before.
const GROUP_DIMENSION: usize = 15;
/// Leaves filled to learn how many rows one holds, and the items that this takes at least and at most.
const LEAVES_TRIED: f64 = 3.0;
const ITEMS_TRIED: std::ops::Range<f64> = 128.0..8192.0;

/// A B-tree to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BtreeShape {
    /// Rows that have an entry; for a partial index those that satisfy its predicate.
    pub rows: f64,
    /// The key, in its order.
    pub keys: Vec<KeyColumn>,
    /// The columns of INCLUDE.
    pub included: Vec<KeyColumn>,
    /// Distinct combinations of all keys among these rows, if the caller knows better than the columns: from extended
    /// statistics, or [`super::distinct_after_filter`] for a partial index. Of a single key, NULL is not counted. When
    /// it is not a positive number, the columns are taken to be independent.
    pub distinct_keys: f64,
    /// 10 to 100; [`DEFAULT_FILLFACTOR_PCT`] unless set.
    pub fillfactor_pct: u8,
    /// Whether it is unique. Equal keys (NULLs) are not put together then.
    pub is_unique: bool,
    /// Whether equal keys are put together: `deduplicate_items` is on and all key columns have an operator class with
    /// an equalimage function that agrees. So not for numeric, float4, float8, jsonb, arrays, records, ranges and
    /// nondeterministic collations (_bt_allequalimage in nbtree/nbtutils.c).
    pub can_deduplicate: bool,
}

/// Size of the B-tree that CREATE INDEX would make.
pub fn btree_size(shape: &BtreeShape) -> IndexSize {
    let rows = between(shape.rows, 0.0, MAX_ROWS).round();
    if rows == 0.0 || shape.keys.is_empty() {
        return IndexSize::new(1.0, rows, 0);
    }
    let leaves = leaves(shape, rows);
    let fanout = fanout(mean_pivot_bytes(shape, &leaves));
    // A page ends when one more arrives after it is full, so the last one of a level may have one more than the others.
    let (mut level, mut tree_height) = ((leaves.pages * (1.0 - 1.0 / leaves.items.max(1.0))).ceil().max(1.0), 0);
    // The metapage.
    let mut pages = 1.0 + level;
    while level > 1.0 {
        level = ((level - 1.0) / fanout).ceil();
        pages += level;
        tree_height += 1;
    }
    IndexSize::new(pages, rows, tree_height)
}

/// Whether a row may be too large for a B-tree, so that inserting it would fail (_bt_check_third_page in
/// nbtree/nbtutils.c). `max_widths_bytes` has the widest value of each of the columns, of INCLUDE too; where it has
/// none or no number, any width is possible. That values above 508 bytes may be compressed is left out of account.
pub fn may_exceed_btree_limit(columns: &[KeyColumn], max_widths_bytes: &[f64]) -> bool {
    widest_bytes(columns, max_widths_bytes) > MAX_TUPLE_BYTES
}

/// The leaf level.
#[derive(Clone, Copy, Debug, Default)]
struct Leaves {
    pages: f64,
    items: f64,
}

/// An item of a leaf.
#[derive(Clone, Copy, Debug, Default)]
struct Item {
    bytes: f64,
    /// The part of it that is a posting list.
    posting_bytes: f64,
    rows: f64,
}

/// Items go in until the page is as full as wanted; then the last one becomes its high key, and begins the next page
/// (_bt_buildadd).
#[derive(Default)]
struct Filler {
    target_free_bytes: f64,
    used_bytes: f64,
    items_on_page: f64,
    last: Item,
    items: f64,
    rows: f64,
    /// The pages that are done.
    pages: f64,
    /// Items and rows on them.
    items_done: f64,
    rows_done: f64,
}

impl Filler {
    fn add(&mut self, item: Item) {
        let free_bytes = EMPTY_FREE_BYTES - self.used_bytes;
        // The posting list of a high key is cut off, so what it takes is as good as free.
        let is_full = free_bytes + self.last.posting_bytes < self.target_free_bytes && self.items_on_page > 1.0;
        if is_full || free_bytes < item.bytes + PIVOT_TID_BYTES {
            self.pages += 1.0;
            (self.items_done, self.rows_done) = (self.items - 1.0, self.rows - self.last.rows);
            (self.used_bytes, self.items_on_page) = (self.last.bytes + LINE_POINTER_BYTES, 1.0);
        }
        self.used_bytes += item.bytes + LINE_POINTER_BYTES;
        self.items_on_page += 1.0;
        self.items += 1.0;
        self.rows += item.rows;
        self.last = item;
    }

    /// Whether so much has been filled that more would teach nothing.
    fn has_enough(&self) -> bool {
        self.pages >= LEAVES_TRIED && self.items >= ITEMS_TRIED.start || self.items >= ITEMS_TRIED.end
    }
}

/// All leaves, with a part of the last one.
fn leaves(shape: &BtreeShape, rows: f64) -> Leaves {
    let fillfactor_pct = shape.fillfactor_pct.clamp(MIN_FILLFACTOR_PCT, 100);
    if !shape.can_deduplicate || shape.is_unique || !shape.included.is_empty() {
        let columns: Vec<KeyColumn> = shape.keys.iter().chain(&shape.included).cloned().collect();
        return fill(&sample_bytes(&columns), &Class { keys: 1.0, rows_each: rows }, false, fillfactor_pct);
    }
    let patterns = null_patterns(&shape.keys);
    let independent: f64 = patterns.iter().map(|(share, keys)| independent_keys(keys, rows * share)).sum();
    let mut sum = Leaves::default();
    for (share, keys) in patterns {
        let distinct = match keys.as_slice() {
            [key] if key.null_fraction > 0.0 => 1.0,
            [_] => shape.distinct_keys,
            _ => shape.distinct_keys * independent_keys(&keys, rows * share) / independent.max(1.0),
        };
        let bytes = sample_bytes(&keys);
        for class in classes(&keys, rows * share, distinct).iter().filter(|class| class.rows() >= 0.5) {
            let part = fill(&bytes, class, true, fillfactor_pct);
            sum = Leaves { pages: sum.pages + part.pages, items: sum.items + part.items };
        }
    }
    sum
}

/// The ways in which keys can be NULL or not, each with its share of the rows: NULLs make large groups, whose tuples
/// have another size. Columns beyond the first few nullable ones stay mixed.
fn null_patterns(keys: &[KeyColumn]) -> Vec<(f64, Vec<KeyColumn>)> {
    let mut patterns = vec![(1.0, keys.to_vec())];
    let nullable = keys.iter().enumerate().filter(|(_, key)| key.null_fraction > 0.0).take(NULLABLE_SPLIT);
    for (at, key) in nullable {
        let null_fraction = between(key.null_fraction, 0.0, 1.0);
        let scale = 1.0 / (1.0 - null_fraction).max(f64::MIN_POSITIVE);
        let common_frequencies = key.common_frequencies.iter().map(|frequency| frequency * scale).collect();
        let with_value = KeyColumn { null_fraction: 0.0, common_frequencies, ..key.clone() };
        let without = KeyColumn { null_fraction: 1.0, ..key.clone() };
        let replaced = |(share, keys): &(f64, Vec<KeyColumn>), factor: f64, column: &KeyColumn| {
            let mut keys = keys.clone();
            keys.splice(at..=at, [column.clone()]);
            (share * factor, keys)
        };
        let both =
            |pattern| [replaced(pattern, 1.0 - null_fraction, &with_value), replaced(pattern, null_fraction, &without)];
        patterns = patterns.iter().flat_map(both).filter(|(share, _)| *share > 0.0).collect();
    }
    patterns
}

/// The leaves of a class of keys, learned from filling a few. `bytes` are those of sampled tuples.
fn fill(bytes: &[f64], class: &Class, deduplicates: bool, fillfactor_pct: u8) -> Leaves {
    let mut filler = Filler { target_free_bytes: target_free_bytes(fillfactor_pct), ..Filler::default() };
    for (group, bytes) in bytes.iter().cycle().enumerate() {
        let rows = if deduplicates { class.rows_at(spread(group, GROUP_DIMENSION)) } else { 1.0 };
        // A build fails when a tuple is larger.
        add_group(&mut filler, bytes.min(MAX_TUPLE_BYTES), rows);
        if filler.has_enough() {
            break;
        }
    }
    Leaves {
        pages: class.rows() * filler.pages / filler.rows_done.max(1.0),
        items: class.rows() * filler.items_done / filler.rows_done.max(1.0),
    }
}

/// Adds the rows of one key, in posting lists that hold as many as may be (_bt_dedup_save_htid in nbtree/nbtdedup.c).
fn add_group(filler: &mut Filler, bytes: f64, group_rows: f64) {
    let room_bytes = MAX_POSTING_BYTES - MAX_POSTING_BYTES % MAX_ALIGN - bytes;
    let most = (room_bytes / TID_BYTES).floor().max(1.0);
    let mut left = group_rows;
    while left > 0.0 && !filler.has_enough() {
        let rows = left.min(most);
        let posting_bytes = if rows > 1.0 { max_align(rows * TID_BYTES) } else { 0.0 };
        filler.add(Item { bytes: bytes + posting_bytes, posting_bytes, rows });
        left -= rows;
    }
}

/// Bytes of a page that stay free: the share that the fill factor leaves (_bt_pagestate).
fn target_free_bytes(fillfactor_pct: u8) -> f64 {
    (PAGE_BYTES * f64::from(100 - fillfactor_pct) / 100.0).floor()
}

/// Mean bytes of the pivots, each with the columns up to the first one in which the tuples on both sides differ, and
/// with a TID where all are equal (_bt_truncate in nbtree/nbtutils.c). A leaf may end at any item.
fn mean_pivot_bytes(shape: &BtreeShape, leaves: &Leaves) -> f64 {
    let items = leaves.items.max(1.0);
    let (mut prefixes, mut ends_before, mut mean) = (1.0f64, 0.0f64, 0.0);
    for (at, key) in shape.keys.iter().enumerate() {
        let with_null = if key.null_fraction > 0.0 { 1.0 } else { 0.0 };
        prefixes = (prefixes * (between(key.n_distinct, 1.0, MAX_ROWS) + with_null)).min(items);
        if at + 1 == shape.keys.len() && shape.distinct_keys > 0.0 {
            prefixes = (shape.distinct_keys + with_null).min(items);
        }
        let ends_here = (prefixes / items).max(ends_before);
        let kept = shape.keys.get(..=at).unwrap_or_default();
        mean += (ends_here - ends_before) * mean_bytes(kept);
        ends_before = ends_here;
    }
    mean + (1.0 - ends_before) * (mean_bytes(&shape.keys) + PIVOT_TID_BYTES)
}

/// Children of an internal page, for pivots of this size: until it is as full as wanted, or the next one does not fit.
fn fanout(pivot_bytes: f64) -> f64 {
    let pivot_bytes = between(pivot_bytes, FIRST_PIVOT_BYTES, MAX_TUPLE_BYTES + PIVOT_TID_BYTES);
    let each = pivot_bytes + LINE_POINTER_BYTES;
    let first = FIRST_PIVOT_BYTES + LINE_POINTER_BYTES;
    let wanted_bytes = EMPTY_FREE_BYTES - target_free_bytes(INTERNAL_FILLFACTOR_PCT) - first;
    let most_bytes = EMPTY_FREE_BYTES - pivot_bytes - first;
    // The pivot that fills the page is its high key, and the first child of the next.
    ((wanted_bytes / each).floor().min((most_bytes / each).floor()) + 1.0).max(2.0)
}
