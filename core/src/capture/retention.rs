//! Which day partitions of the event tables go: those older than the retention, then the oldest beyond the size.

/// One partition as found in the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Name as the caller will drop it.
    pub name: String,
    /// The day it holds, in days since 2000-01-01 (Postgres's `DateADT`).
    pub day: i32,
    /// Heap, indexes and TOAST together.
    pub size_bytes: u64,
}

/// Names of the partitions to drop, oldest first; today's (and any later one) always stays.
///
/// A partition is too old when even its last row is older than `keep_days`, that is when `today - day > keep_days`.
/// Of the rest the oldest are dropped until all that remain fit in `max_bytes`. Either limit is off at 0.
pub fn to_drop(partitions: &[Partition], today: i32, keep_days: u32, max_bytes: u64) -> Vec<&str> {
    let mut oldest_first: Vec<&Partition> = partitions.iter().collect();
    oldest_first.sort_by(|a, b| (a.day, &a.name).cmp(&(b.day, &b.name)));
    let mut kept_bytes: u128 = partitions.iter().map(|partition| u128::from(partition.size_bytes)).sum();
    let mut dropped = Vec::new();
    for partition in oldest_first.into_iter().take_while(|partition| partition.day < today) {
        let age_days = i64::from(today) - i64::from(partition.day);
        let too_old = keep_days > 0 && age_days > i64::from(keep_days);
        let too_much = max_bytes > 0 && kept_bytes > u128::from(max_bytes);
        if !too_old && !too_much {
            break;
        }
        kept_bytes -= u128::from(partition.size_bytes);
        dropped.push(partition.name.as_str());
    }
    dropped
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn partition(day: i32, size_bytes: u64) -> Partition {
        Partition { name: format!("events_{day}"), day, size_bytes }
    }

    #[test]
    fn a_partition_stays_until_its_last_row_is_old_enough() {
        let partitions = [partition(93, 1), partition(92, 1), partition(100, 1)];
        assert_eq!(to_drop(&partitions, 100, 7, 0), ["events_92"]);
    }

    #[test]
    fn size_drops_the_oldest_first_but_never_today() {
        let partitions = [partition(99, 50), partition(98, 50), partition(100, 500)];
        assert_eq!(to_drop(&partitions, 100, 7, 540), ["events_98", "events_99"]);
        assert_eq!(to_drop(&partitions, 100, 7, 10), ["events_98", "events_99"]);
        assert_eq!(to_drop(&partitions, 100, 7, 550), ["events_98"]);
        assert_eq!(to_drop(&partitions, 100, 7, 600), Vec::<&str>::new());
    }

    #[test]
    fn zero_switches_a_limit_off() {
        let partitions = [partition(-5_000, u64::MAX), partition(1, u64::MAX)];
        assert!(to_drop(&partitions, 100, 0, 0).is_empty());
    }

    proptest! {
        #[test]
        fn what_is_dropped_is_the_shortest_prefix_that_suffices(
            days in prop::collection::vec((0i32..30, 0u64..100), 0..20),
            keep_days in 0u32..20, max_bytes in 0u64..1_500
        ) {
            let today = 25;
            let partitions: Vec<Partition> = days.iter().enumerate()
                .map(|(i, &(day, size_bytes))| Partition { name: format!("p{i:02}"), day, size_bytes }).collect();
            let dropped = to_drop(&partitions, today, keep_days, max_bytes);
            let of = |name: &str| partitions.iter().find(|p| p.name == name).unwrap().clone();
            let kept: Vec<_> = partitions.iter().filter(|p| !dropped.contains(&p.name.as_str())).collect();
            let kept_bytes: u64 = kept.iter().map(|p| p.size_bytes).sum();
            let droppable = |p: &&&Partition| p.day < today;
            for name in &dropped {
                prop_assert!(of(name).day < today);
            }
            if keep_days > 0 {
                prop_assert!(kept.iter().all(|p| today - p.day <= keep_days as i32));
            }
            if max_bytes > 0 && kept.iter().filter(droppable).count() > 0 {
                prop_assert!(kept_bytes <= max_bytes);
            }
            if let Some(last) = dropped.last().map(|name| of(name)) {
                let needed_for_age = keep_days > 0 && today - last.day > keep_days as i32;
                let needed_for_size = max_bytes > 0 && kept_bytes + last.size_bytes > max_bytes;
                prop_assert!(needed_for_age || needed_for_size);
                prop_assert!(kept.iter().filter(droppable).all(|p| p.day >= last.day));
            }
        }
    }
}
