//! What ANALYZE has found out about columns. Under a guard.

use pgrx::pg_sys;

/// A column's statistics, or what its type lets expect where there are none.
#[derive(Clone, Debug, Default)]
pub struct ColumnFacts {
    pub avg_width_bytes: f64,
    /// Standard deviation of the widths.
    pub width_spread_bytes: f64,
    /// Widest value seen; 0 when none was.
    pub max_width_bytes: f64,
    pub is_variable: bool,
    pub align_bytes: u8,
    pub null_fraction: f64,
    /// An absolute number; 0 when it is not known.
    pub n_distinct: f64,
    pub common_frequencies: Vec<f64>,
    /// Of the order of values with the order of rows, from -1 to 1.
    pub correlation: f64,
    pub has_statistics: bool,
}

/// The same of a table with all that inherit from it. One with partitions has pages of its own nowhere.
pub fn family_size(relation: u32) -> (f64, f64) {
    let sizes = super::relations::with_children(relation).into_iter().map(table_size);
    sizes.filter(|size| size.1 > 0.0).fold((0.0, 0.0), |sum, size| (sum.0 + size.0, sum.1 + size.1))
}

impl ColumnFacts {
    /// Bytes of the widest value, as far as is known. Values wider than a kilobyte are in no statistics but the mean, so a
    /// mean above the widest one tells of some.
    pub fn widest_bytes(&self) -> f64 {
        match self.is_variable {
            false => self.avg_width_bytes,
            true if self.max_width_bytes >= self.avg_width_bytes && self.max_width_bytes > 0.0 => self.max_width_bytes,
            true => f64::INFINITY,
        }
    }
}

/// Rows and pages of a table as of its last VACUUM or ANALYZE.
pub fn table_size(relation: u32) -> (f64, f64) {
    // SAFETY: a catalog look-up; the tuple is read before it is released.
    unsafe {
        let key = pg_sys::Datum::from(pg_sys::Oid::from(relation));
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as i32, key);
        if tuple.is_null() {
            return (0.0, 0.0);
        }
        let class = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let size = (f64::from(class.reltuples).max(0.0), f64::from(class.relpages.max(0)));
        pg_sys::ReleaseSysCache(tuple);
        size
    }
}

/// What is known of a type's values.
pub fn type_facts(kind: u32, modifier: i32) -> ColumnFacts {
    let (mut length, mut by_value, mut align) = (0, false, 0);
    // SAFETY: catalog look-ups.
    let width = unsafe {
        let kind = pg_sys::Oid::from(kind);
        pg_sys::get_typlenbyvalalign(kind, &mut length, &mut by_value, &mut align);
        pg_sys::get_typavgwidth(kind, modifier)
    };
    let align_bytes = match align as u8 {
        b'd' => 8,
        b's' => 2,
        b'c' => 1,
        _ => 4,
    };
    ColumnFacts { avg_width_bytes: f64::from(width), is_variable: length == -1, align_bytes, ..ColumnFacts::default() }
}

/// What is known of a column of a table with so many rows.
pub fn column_facts(relation: u32, attribute: i16, rows: f64) -> ColumnFacts {
    let (mut kind, mut modifier, mut collation) = (pg_sys::InvalidOid, 0, pg_sys::InvalidOid);
    // SAFETY: catalog look-ups; the tuple is read before it is released.
    unsafe {
        let relation = pg_sys::Oid::from(relation);
        pg_sys::get_atttypetypmodcoll(relation, attribute, &mut kind, &mut modifier, &mut collation);
        let mut facts = type_facts(kind.to_u32(), modifier);
        let tuple = statistics(relation, attribute);
        if !tuple.is_null() {
            read(tuple, rows, &mut facts);
            pg_sys::ReleaseSysCache(tuple);
        }
        facts
    }
}

/// A partitioned table has statistics over all of its partitions only.
unsafe fn statistics(relation: pg_sys::Oid, attribute: i16) -> pg_sys::HeapTuple {
    let look_up = |inherited: bool| {
        // SAFETY: a catalog look-up.
        unsafe {
            pg_sys::SearchSysCache3(
                pg_sys::SysCacheIdentifier::STATRELATTINH as i32,
                pg_sys::Datum::from(relation),
                pg_sys::Datum::from(attribute),
                pg_sys::Datum::from(inherited),
            )
        }
    };
    let own = look_up(false);
    if own.is_null() { look_up(true) } else { own }
}

unsafe fn read(tuple: pg_sys::HeapTuple, rows: f64, facts: &mut ColumnFacts) {
    // SAFETY: a tuple of pg_statistic; each slot is freed after it was read.
    unsafe {
        let row = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_statistic>();
        facts.has_statistics = true;
        facts.null_fraction = f64::from(row.stanullfrac);
        if row.stawidth > 0 {
            facts.avg_width_bytes = f64::from(row.stawidth);
        }
        let distinct = f64::from(row.stadistinct);
        facts.n_distinct = if distinct < 0.0 { -distinct * rows } else { distinct };
        let mut widths = Vec::new();
        let values = pg_sys::ATTSTATSSLOT_VALUES as i32;
        let numbers = pg_sys::ATTSTATSSLOT_NUMBERS as i32;
        with_slot(tuple, pg_sys::STATISTIC_KIND_MCV as i32, values | numbers, |slot| {
            let frequencies = core::slice::from_raw_parts(slot.numbers, slot.nnumbers as usize);
            facts.common_frequencies = frequencies.iter().map(|frequency| f64::from(*frequency)).collect();
            add_widths(slot, facts.is_variable, &mut widths);
        });
        with_slot(tuple, pg_sys::STATISTIC_KIND_HISTOGRAM as i32, values, |slot| {
            add_widths(slot, facts.is_variable, &mut widths);
        });
        with_slot(tuple, pg_sys::STATISTIC_KIND_CORRELATION as i32, numbers, |slot| {
            facts.correlation = if slot.nnumbers > 0 { f64::from(*slot.numbers) } else { 0.0 };
        });
        if !widths.is_empty() {
            let mean = widths.iter().sum::<f64>() / widths.len() as f64;
            let variance = widths.iter().map(|width| (width - mean).powi(2)).sum::<f64>() / widths.len() as f64;
            facts.width_spread_bytes = variance.sqrt();
            facts.max_width_bytes = widths.iter().copied().fold(0.0, f64::max);
        }
    }
}

unsafe fn with_slot(tuple: pg_sys::HeapTuple, kind: i32, flags: i32, read: impl FnOnce(&pg_sys::AttStatsSlot)) {
    // SAFETY: all-zero is a valid slot, filled by Postgres and freed by it.
    unsafe {
        let mut slot: pg_sys::AttStatsSlot = core::mem::zeroed();
        if pg_sys::get_attstatsslot(&mut slot, tuple, kind, pg_sys::InvalidOid, flags) {
            read(&slot);
            pg_sys::free_attstatsslot(&mut slot);
        }
    }
}

unsafe fn add_widths(slot: &pg_sys::AttStatsSlot, is_variable: bool, widths: &mut Vec<f64>) {
    if !is_variable {
        return;
    }
    // SAFETY: values of variable length.
    unsafe {
        for at in 0..slot.nvalues as usize {
            let value = (*slot.values.add(at)).cast_mut_ptr::<pg_sys::varlena>();
            let payload = pgrx::varsize_any_exhdr(value) as f64;
            widths.push(payload + if payload < 127.0 { 1.0 } else { 4.0 });
        }
    }
}

/// Share of the updates of a table that were no HOT updates, so that each wrote to every index; 1 when none is known.
pub fn not_hot_share(relation: u32) -> f64 {
    let rows = super::spi::rows(
        c"SELECT (1 - n_tup_hot_upd::pg_catalog.float8 / n_tup_upd)::pg_catalog.text FROM pg_catalog.pg_stat_all_tables WHERE relid = $1::pg_catalog.text::pg_catalog.oid AND n_tup_upd > 0",
        &[&relation.to_string()],
    );
    rows.first().and_then(|row| row.first()?.as_ref()?.parse().ok()).unwrap_or(1.0)
}
