//! GIN indexes, as gin/gininsert.c builds them: a tree of elements, each with the compressed list of its rows, or with
//! a tree of such lists when they are many. So with one process: the parallel builds of Postgres 18 sort first.
use super::groups::{Class, classes};
use super::tuple::{HEADER_BYTES, mean_bytes};
use super::{
    IndexSize, KeyColumn, LINE_POINTER_BYTES, MAX_PAGES, MAX_ROWS, PAGE_BYTES, PAGE_HEADER_BYTES, between, max_align,
    spread,
};

/// Bytes of GinPageOpaqueData (include/access/ginblock.h).
const SPECIAL_BYTES: f64 = 8.0;
/// Bytes of a page for entries and line pointers.
const ENTRY_PAGE_BYTES: f64 = PAGE_BYTES - PAGE_HEADER_BYTES - SPECIAL_BYTES;
/// The largest entry, in bytes: GinMaxItemSize (include/access/ginblock.h). One that would be larger has a tree.
const MAX_ENTRY_BYTES: f64 = 2712.0;
/// Bytes of GinPostingList before its encoded part (include/access/ginblock.h): the first TID and a length.
const LIST_HEADER_BYTES: f64 = 8.0;
/// Bytes of a list on a page of a tree: GinPostingListSegmentMaxSize on the first page, GinPostingListSegmentTargetSize
/// on others (gin/gindatapage.c).
const FIRST_SEGMENT_BYTES: f64 = 384.0;
const SEGMENT_BYTES: f64 = 256.0;
/// GinDataPageMaxDataSize (include/access/ginblock.h), in bytes.
const TREE_PAGE_BYTES: f64 = 8152.0;
/// Bytes of PostingItem (include/access/ginblock.h), which points to a page below.
const TREE_CHILD_BYTES: f64 = 10.0;
/// Bits of a row's number for the offset on its page: MaxHeapTuplesPerPageBits (gin/ginpostinglist.c).
const PAGE_STEP: f64 = 2048.0;
/// A byte of an encoded distance has this many of its bits (encode_varbyte, gin/ginpostinglist.c).
const VARBYTE_BITS: i32 = 7;
/// Longest encoded distance in bytes.
const VARBYTE_BYTES: i32 = 6;
/// Share of an entry page in use. Elements go in from the least to the greatest, and a full page is split in halves
/// (entrySplitPage, gin/ginentrypage.c), of which the left one gets nothing more.
const FILL_OF_ONE_PASS: f64 = 0.5;
/// The same when memory did not suffice for all at once, so that pages were added to later. Measured.
const FILL_OF_PASSES: f64 = 0.57;
/// Bytes of memory that an element takes while it is collected, besides its value, and a row of it, with space for
/// growth (GinEntryAccumulator in include/access/gin_private.h and its list, gin/ginbulk.c).
const ELEMENT_MEMORY_BYTES: f64 = 130.0;
const ROW_MEMORY_BYTES: f64 = 9.0;
/// Elements of a class that stand for all of them.
const SAMPLES: usize = 32;

/// Elements that are alike in how common they are: those of a column, or of the values under one key of documents.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GinElements {
    /// Mean number of them in a row, each counted once: the last of `elem_count_histogram` for arrays and tsvector.
    pub per_row: f64,
    /// One as the index stores it (after a column of 2 bytes if the index has several columns, which alignment mostly
    /// hides): `n_distinct` of them, and in `common_frequencies` the shares of the rows that have each of the most
    /// common ones (`most_common_elem_freqs` without the numbers after them, in falling order). `null_fraction` is not
    /// looked at.
    pub element: KeyColumn,
}

/// A GIN index to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GinShape {
    /// Rows that have at least one element.
    pub rows: f64,
    /// Pages of the table: `relpages`. The rows are taken to be everywhere.
    pub heap_pages: f64,
    /// What the rows have. No statistics tell this of jsonb: there a sample has to, and it is worth while to keep apart
    /// what is under different keys, for one may be unique and another have few values.
    pub elements: Vec<GinElements>,
    /// Rows that are NULL or have no element; they share an entry or two.
    pub empty_rows: f64,
    /// Bytes of `maintenance_work_mem`.
    pub maintenance_memory_bytes: f64,
}

/// Size of the GIN index that CREATE INDEX would make.
pub fn gin_size(shape: &GinShape) -> IndexSize {
    let rows = between(shape.rows, 0.0, MAX_ROWS);
    let heap = Heap { rows, rows_per_page: rows / between(shape.heap_pages, 1.0, MAX_PAGES) };
    let mut total = Parts::default();
    let mut key_bytes = HEADER_BYTES;
    for elements in &shape.elements {
        key_bytes = mean_bytes(&[KeyColumn { null_fraction: 0.0, ..elements.element.clone() }]).max(key_bytes);
        for class in element_classes(elements, rows) {
            total.add(&heap, &class, key_bytes);
        }
    }
    let empty_rows = between(shape.empty_rows, 0.0, MAX_ROWS);
    if empty_rows >= 1.0 {
        let everywhere = Heap { rows: empty_rows, ..heap };
        total.add(&everywhere, &Class { keys: 1.0, rows_each: empty_rows }, 2.0 * HEADER_BYTES);
    }
    let passes = total.memory_bytes / between(shape.maintenance_memory_bytes, 1024.0 * 1024.0, f64::MAX);
    let share = if passes > 1.0 { FILL_OF_PASSES } else { FILL_OF_ONE_PASS };
    // The entry across the middle stays on the left: large ones are more likely to be there.
    let across_bytes = total.entry_square_bytes / total.entry_bytes.max(1.0);
    let fill = share + across_bytes / 2.0 / ENTRY_PAGE_BYTES;
    let entry_pages = entry_pages(total.entry_bytes, key_bytes, fill);
    // The first page describes the index.
    IndexSize::new(1.0 + entry_pages + total.tree_pages, rows + empty_rows, 0)
}

/// The elements by the rows that have them.
fn element_classes(elements: &GinElements, rows: f64) -> Vec<Class> {
    let each = between(elements.per_row, 0.0, MAX_ROWS);
    let occurrences = (rows * each).min(MAX_ROWS);
    // Shares of rows become shares of the occurrences.
    let frequencies = &elements.element.common_frequencies;
    let common_frequencies = frequencies.iter().map(|frequency| frequency / each.max(1.0)).collect();
    let element = KeyColumn { null_fraction: 0.0, common_frequencies, ..elements.element.clone() };
    let of_element = |class: Class| Class { rows_each: class.rows_each.min(rows), ..class };
    classes(&[element], occurrences, 0.0).into_iter().map(of_element).collect()
}

/// The rows that an index is about.
#[derive(Clone, Copy)]
struct Heap {
    rows: f64,
    rows_per_page: f64,
}

impl Heap {
    /// Mean bytes of the encoded distance between neighbours among `members` rows that are spread evenly.
    fn distance_bytes(&self, members: f64) -> f64 {
        let chance = (members / self.rows).min(1.0);
        // Within a page the distance fits one byte; of the rows on a page, only the last has its next one elsewhere.
        let on_page = (chance * self.rows_per_page).max(f64::MIN_POSITIVE);
        let same_page = 1.0 + (-on_page).exp_m1() / on_page;
        let longer = (2..VARBYTE_BYTES).map(|bytes| {
            let pages = (VARBYTE_BITS * bytes) as f64;
            let reach_rows = pages.exp2() / PAGE_STEP * self.rows_per_page;
            (1.0 - reach_rows / self.rows).max(0.0).powf(members)
        });
        1.0 + (1.0 - same_page) + longer.sum::<f64>()
    }
}

/// What all elements need.
#[derive(Default)]
struct Parts {
    entry_bytes: f64,
    /// Sum of the squares.
    entry_square_bytes: f64,
    tree_pages: f64,
    memory_bytes: f64,
}

impl Parts {
    fn add(&mut self, heap: &Heap, class: &Class, key_bytes: f64) {
        let elements = class.present() / SAMPLES as f64;
        for sample in 0..SAMPLES {
            let members = class.rows_at(spread(sample, 0)).min(heap.rows.max(1.0));
            let distance_bytes = heap.distance_bytes(members);
            let list_bytes = LIST_HEADER_BYTES + (members - 1.0) * distance_bytes;
            let entry_bytes = max_align(key_bytes + list_bytes);
            let has_tree = entry_bytes > MAX_ENTRY_BYTES;
            let stored_bytes = if has_tree { key_bytes } else { entry_bytes };
            let item_bytes = stored_bytes + LINE_POINTER_BYTES;
            self.entry_bytes += elements * item_bytes;
            self.entry_square_bytes += elements * item_bytes * item_bytes;
            self.tree_pages += if has_tree { elements * tree_pages(members, distance_bytes) } else { 0.0 };
            self.memory_bytes += elements * (ELEMENT_MEMORY_BYTES + key_bytes + members * ROW_MEMORY_BYTES);
        }
    }
}

/// Pages of the tree of an element (createPostingTree, gin/gindatapage.c). A build fills them from left to right.
fn tree_pages(members: f64, distance_bytes: f64) -> f64 {
    let on_page = |segment_bytes: f64| {
        let in_segment = 1.0 + ((segment_bytes - LIST_HEADER_BYTES) / distance_bytes).floor();
        (TREE_PAGE_BYTES / segment_bytes).floor() * in_segment
    };
    if members <= on_page(FIRST_SEGMENT_BYTES) {
        return 1.0;
    }
    let leaves = (members / on_page(SEGMENT_BYTES)).ceil().max(2.0);
    leaves + (leaves / (TREE_PAGE_BYTES / TREE_CHILD_BYTES)).ceil()
}

/// Pages of the tree of elements: at least the root.
fn entry_pages(entry_bytes: f64, key_bytes: f64, fill: f64) -> f64 {
    if entry_bytes <= ENTRY_PAGE_BYTES {
        return 1.0;
    }
    let leaves = (entry_bytes / (ENTRY_PAGE_BYTES * fill)).ceil();
    let fanout = (ENTRY_PAGE_BYTES * FILL_OF_ONE_PASS / (key_bytes + LINE_POINTER_BYTES)).max(2.0);
    leaves + (leaves / (fanout - 1.0)).ceil()
}
