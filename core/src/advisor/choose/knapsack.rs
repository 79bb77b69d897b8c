//! What fits into storage when indexes may be taken in part: the most value under a limit of bytes and one of indexes
//! for each table.
//!
//! With a price for each byte, the best is to take each table's indexes of the greatest value above their price. The sum
//! of that and the price of all the room bounds the value from above, and is a convex function of the price, made of
//! straight pieces. Its least value is found where the line of what is taken just below a price meets that of what is
//! taken just above it, and equals the best value of taking parts.

/// Straight pieces passed before the bound at hand is taken; a handful is usual, and any price gives a bound.
const PIECES: usize = 50;

/// Something to be taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub index: usize,
    /// More than zero.
    pub value: f64,
    pub size: f64,
    pub table: usize,
}

/// What limits the taking.
#[derive(Clone, Copy, Debug)]
pub(super) struct Space<'a> {
    pub bytes: f64,
    /// Items of each table, if that is limited.
    pub per_table: Option<&'a [u32]>,
}

/// The best taking.
#[derive(Clone, Debug)]
pub(super) struct Packing {
    /// No taking has more value.
    pub value: f64,
    /// For each item, which part of it is taken.
    pub parts: Vec<f64>,
    /// Value that one byte more would have.
    pub byte_price: f64,
    /// Value that one more item of a table would have, for each table; nothing where there is no limit.
    pub table_prices: Vec<f64>,
}

/// Whole items taken.
struct Taking {
    chosen: Vec<bool>,
    value: f64,
    bytes: f64,
    table_prices: Vec<f64>,
}

impl Taking {
    fn bound(&self, byte_price: f64, space: Space) -> f64 {
        self.value + byte_price * (space.bytes - self.bytes)
    }
}

/// Packs as much value as fits.
pub(super) fn pack(items: &[Item], space: Space) -> Packing {
    let all = take(items, space, Some(0.0));
    if all.bytes <= space.bytes {
        return packing(&all, &all, 1.0, 0.0, all.value);
    }
    let (mut over, mut under) = (all, take(items, space, None));
    for _ in 0..PIECES {
        let price = meeting_price(&over, &under);
        let expected = over.bound(price, space);
        let taking = take(items, space, Some(price));
        if taking.bound(price, space) <= expected * (1.0 + 1e-12) {
            break;
        }
        if taking.bytes > space.bytes {
            over = taking;
        } else {
            under = taking;
        }
    }
    let price = meeting_price(&over, &under);
    let last = take(items, space, Some(price));
    let share_over = (space.bytes - under.bytes) / (over.bytes - under.bytes);
    Packing {
        table_prices: last.table_prices.clone(),
        ..packing(&over, &under, share_over, price, last.bound(price, space))
    }
}

fn meeting_price(over: &Taking, under: &Taking) -> f64 {
    ((over.value - under.value) / (over.bytes - under.bytes)).max(0.0)
}

fn packing(over: &Taking, under: &Taking, share_over: f64, byte_price: f64, value: f64) -> Packing {
    let part = |(over, under): (&bool, &bool)| match (over, under) {
        (true, true) => 1.0,
        (true, false) => share_over,
        (false, true) => 1.0 - share_over,
        (false, false) => 0.0,
    };
    let parts = over.chosen.iter().zip(&under.chosen).map(part).collect();
    Packing { value, parts, byte_price, table_prices: over.table_prices.clone() }
}

/// What is best to take at a price for each byte; `None` is a price that only items of no size are worth.
fn take(items: &[Item], space: Space, byte_price: Option<f64>) -> Taking {
    let net = |item: &Item| match byte_price {
        Some(price) => item.value - price * item.size,
        None if item.size > 0.0 => 0.0,
        None => item.value,
    };
    let mut order: Vec<usize> = (0..items.len()).filter(|&item| net(&items[item]) > 0.0).collect();
    let mut taking = Taking { chosen: vec![false; items.len()], value: 0.0, bytes: 0.0, table_prices: Vec::new() };
    if let Some(per_table) = space.per_table {
        order.sort_by(|&a, &b| net(&items[b]).total_cmp(&net(&items[a])).then(a.cmp(&b)));
        let mut left = per_table.to_vec();
        taking.table_prices = vec![0.0; left.len()];
        order.retain(|&item| {
            let Item { table, .. } = items[item];
            let has_room = left[table] > 0;
            left[table] = left[table].saturating_sub(1);
            if !has_room && taking.table_prices[table] == 0.0 {
                taking.table_prices[table] = net(&items[item]);
            }
            has_room
        });
    }
    for item in order {
        taking.chosen[item] = true;
        taking.value += items[item].value;
        taking.bytes += items[item].size;
    }
    taking
}
