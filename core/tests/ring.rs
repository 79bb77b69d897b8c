//! The ring against a queue that does the same with plain values.
use std::collections::VecDeque;

use proptest::prelude::*;
use steward_core::capture::ring::{RECORD_HEADER, Record, RingHeader, init, push, read_from};

/// The ring and what it should hold.
struct Checked {
    header: RingHeader,
    bytes: Vec<u8>,
    held: VecDeque<(Record, Vec<u8>)>,
    overwritten: u64,
    next_seq: u64,
}

fn ring(capacity: usize) -> (RingHeader, Vec<u8>) {
    let mut header = RingHeader::default();
    init(&mut header, capacity as u64);
    (header, vec![0; capacity])
}

impl Checked {
    fn new(capacity: usize) -> Self {
        let (header, bytes) = ring(capacity);
        Checked { header, bytes, held: VecDeque::new(), overwritten: 0, next_seq: 1 }
    }

    fn used(&self) -> usize {
        self.held.iter().map(|(_, payload)| payload.len() + RECORD_HEADER).sum()
    }

    fn push(&mut self, kind: u32, database: u32, payload: &[u8]) {
        let mut lost = Vec::new();
        let before = self.header;
        let on_overwrite = &mut |record: &Record| lost.push(*record);
        let result = push(&mut self.header, &mut self.bytes, kind, database, payload, on_overwrite);
        let capacity = self.bytes.len();
        if payload.len() > capacity / 4 || payload.len() + RECORD_HEADER > capacity {
            assert_eq!(result.unwrap_err().length_bytes, payload.len());
            assert_eq!(self.header, before);
            return;
        }
        let mut expected_lost = Vec::new();
        while self.used() + RECORD_HEADER + payload.len() > capacity {
            expected_lost.push(self.held.pop_front().unwrap().0);
        }
        assert_eq!(lost, expected_lost);
        self.overwritten += lost.len() as u64;
        assert_eq!(result, Ok(self.next_seq));
        let length = payload.len() as u32;
        let record = Record { seq: self.next_seq, kind, database, length, position: before.head };
        self.held.push_back((record, payload.to_vec()));
        self.next_seq += 1;
    }

    /// All that a reader sees from a position to the head.
    fn read(&self, mut position: u64) -> Vec<(Record, Vec<u8>)> {
        let mut seen = Vec::new();
        let mut payload = vec![1, 2, 3];
        while let Some((record, next)) = read_from(&self.header, &self.bytes, position, &mut payload) {
            seen.push((record, payload.clone()));
            position = next;
        }
        assert!(payload.is_empty());
        seen
    }

    fn check(&self) {
        assert_eq!(self.header.overwritten_records, self.overwritten);
        let held: Vec<_> = self.held.iter().cloned().collect();
        assert_eq!(self.read(0), held);
        for (skipped, (record, _)) in held.iter().enumerate() {
            assert_eq!(self.read(record.position), held[skipped..]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn holds_what_the_queue_holds(
        capacity in 0usize..400,
        pushes in prop::collection::vec((any::<u32>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..120)), 0..80)
    ) {
        let mut checked = Checked::new(capacity);
        for (kind, database, payload) in pushes {
            checked.push(kind, database, &payload);
            checked.check();
        }
    }

    #[test]
    fn a_reader_that_lags_loses_only_what_was_overwritten(
        rounds in prop::collection::vec((0usize..12, 0usize..6), 1..40)
    ) {
        let mut checked = Checked::new(500);
        let (mut position, mut last_seq, mut missed) = (0, 0, 0);
        let mut payload = Vec::new();
        for (pushes, reads) in rounds {
            for size in 0..pushes {
                checked.push(1, 2, &vec![size as u8; 7 * size]);
            }
            for _ in 0..reads {
                let Some((record, next)) = read_from(&checked.header, &checked.bytes, position, &mut payload) else { break };
                let oldest = checked.held[0].0.seq;
                prop_assert_eq!(record.seq, oldest.max(last_seq + 1));
                missed += record.seq - last_seq - 1;
                (position, last_seq) = (next, record.seq);
            }
        }
        prop_assert!(missed <= checked.overwritten);
    }

    #[test]
    fn damaged_memory_neither_panics_nor_loops(
        capacity in 0u64..300, head in any::<u64>(), back in 0u64..400, next_seq in any::<u64>(),
        mut bytes in prop::collection::vec(any::<u8>(), 0..300), position in any::<u64>(), payload_bytes in 0usize..80
    ) {
        let tail = head.wrapping_sub(back);
        let mut header = RingHeader { capacity, head, tail, next_seq, overwritten_records: 0 };
        let mut out = Vec::new();
        read_from(&header, &bytes, position, &mut out);
        let payload = vec![7u8; payload_bytes];
        if push(&mut header, &mut bytes, 1, 2, &payload, &mut |_| {}).is_ok() {
            let written = read_from(&header, &bytes, head, &mut out);
            prop_assert_eq!(written.map(|(record, _)| record.position), Some(head));
            prop_assert_eq!(out, payload);
        }
    }
}

#[test]
fn records_that_fit_exactly_overwrite_nothing() {
    let record = 16 + RECORD_HEADER;
    let mut checked = Checked::new(4 * record);
    for _ in 0..4 {
        checked.push(1, 1, &[5; 16]);
    }
    assert_eq!(checked.overwritten, 0);
    checked.push(1, 1, &[6; 16]);
    assert_eq!(checked.overwritten, 1);
    checked.check();
}

#[test]
fn an_empty_payload_is_a_record() {
    for capacity in [RECORD_HEADER, 100] {
        let mut checked = Checked::new(capacity);
        checked.push(9, 8, &[]);
        checked.check();
        assert_eq!(checked.held.len(), 1);
    }
}

#[test]
fn a_position_of_an_earlier_life_means_the_oldest() {
    let mut checked = Checked::new(200);
    checked.push(1, 1, b"a");
    assert_eq!(checked.read(1_000_000).len(), 1);
    // Within the record: no record begins there.
    assert_eq!(checked.read(5).len(), 1);
}

#[test]
fn memory_smaller_than_the_header_says_is_not_used() {
    let (mut header, mut bytes) = ring(100);
    header.capacity = 101;
    assert!(push(&mut header, &mut bytes, 1, 1, b"a", &mut |_| {}).is_err());
    header.head = 50;
    assert!(read_from(&header, &bytes, 0, &mut Vec::new()).is_none());
}
