//! Bounded ring of records over memory given by the caller, who also holds the lock: exclusive for [`init`] and
//! [`push`], shared is enough for [`read_from`].
//!
//! A new record overwrites as many of the oldest whole records as it needs. Positions are bytes ever written, so they
//! only grow (at 1 GB a second 2^64 takes 585 years), and a reader that fell behind can tell: its position is below the tail. A record is [`RECORD_HEADER`]
//! bytes and its payload without a gap; the place of position `p` is `p % capacity`, so a record may run over the end
//! of the memory and go on at its start. The byte order is the machine's own: the memory does not outlive the server.
//!
//! No contents of the memory can make these functions panic, loop forever or read outside it: a header that does not
//! fit its place ends the read, and makes the next push start afresh.

use thiserror::Error;

/// Bytes in front of each payload: seq, length, kind, database, check.
pub const RECORD_HEADER: usize = 24;
/// A payload may take at most this share of the ring, so that one record does not push out everything.
const LARGEST_SHARE: u64 = 4;
/// Mixed into the check word, so that zeroed memory is not taken for a record at position 0.
const CHECK: u32 = 0x5354_5744;

/// State of a ring; lies in shared memory in front of the bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingHeader {
    /// Bytes of memory in use.
    pub capacity: u64,
    /// Bytes ever written: the position of the next record.
    pub head: u64,
    /// Position of the oldest record still held.
    pub tail: u64,
    /// Sequence number of the next record; the first is 1.
    pub next_seq: u64,
    /// Records overwritten, read or not.
    pub overwritten_records: u64,
}

/// What is known of a record without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Sequence number, without gaps in the order written.
    pub seq: u64,
    /// The caller's kind.
    pub kind: u32,
    /// The database it belongs to.
    pub database: u32,
    /// Bytes of the payload.
    pub length: u32,
    /// Where it begins.
    pub position: u64,
}

impl Record {
    /// Where the next record begins.
    pub const fn end(&self) -> u64 {
        self.position.wrapping_add(RECORD_HEADER as u64 + self.length as u64)
    }
}

/// The payload takes more than a quarter of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("event of {length_bytes} bytes does not fit, at most {limit_bytes} are accepted")]
pub struct TooLarge {
    /// As given.
    pub length_bytes: usize,
    /// A quarter of the ring, or what fits at all.
    pub limit_bytes: u64,
}

/// An empty ring of `capacity` bytes.
pub fn init(header: &mut RingHeader, capacity: u64) {
    *header = RingHeader { capacity, next_seq: 1, ..RingHeader::default() };
}

/// Appends a record and returns its sequence number. Each record that it overwrites is reported first.
pub fn push(
    header: &mut RingHeader,
    bytes: &mut [u8],
    kind: u32,
    database: u32,
    payload: &[u8],
    on_overwrite: &mut dyn FnMut(&Record),
) -> Result<u64, TooLarge> {
    let limit = largest_payload(header, bytes);
    let too_large = TooLarge { length_bytes: payload.len(), limit_bytes: limit.unwrap_or(0) };
    let length = u32::try_from(payload.len()).map_err(|_| too_large)?;
    if limit.is_none_or(|limit_bytes| u64::from(length) > limit_bytes) {
        return Err(too_large);
    }
    let record = Record { seq: header.next_seq, kind, database, length, position: header.head };
    make_room(header, bytes, record.end().wrapping_sub(header.head), on_overwrite);
    copy_in(header, bytes, record.position, &encode(&record));
    copy_in(header, bytes, record.position.wrapping_add(RECORD_HEADER as u64), payload);
    header.head = record.end();
    header.next_seq = record.seq.wrapping_add(1);
    Ok(record.seq)
}

/// The record at `position`, its payload in `out` (cleared first), and the position after it; `None` at the head.
///
/// A position that is no longer held, or that is not one of this ring's (the server was restarted), means the oldest
/// record. The sequence numbers tell how many were missed.
pub fn read_from(header: &RingHeader, bytes: &[u8], position: u64, out: &mut Vec<u8>) -> Option<(Record, u64)> {
    out.clear();
    if position == header.head {
        return None;
    }
    let held = position > header.tail && position < header.head;
    let record = held.then(|| record_at(header, bytes, position)).flatten();
    let record = record.or_else(|| record_at(header, bytes, header.tail))?;
    copy_out(header, bytes, record.position.wrapping_add(RECORD_HEADER as u64), record.length as usize, out);
    Some((record, record.end()))
}

/// The largest payload accepted; `None` when the ring cannot hold any record.
fn largest_payload(header: &RingHeader, bytes: &[u8]) -> Option<u64> {
    let room = header.capacity.checked_sub(RECORD_HEADER as u64)?;
    is_sound(header, bytes).then(|| room.min(header.capacity / LARGEST_SHARE))
}

fn is_sound(header: &RingHeader, bytes: &[u8]) -> bool {
    header.capacity > 0 && header.capacity <= bytes.len() as u64
}

/// Moves the tail over the oldest records until `needed` bytes are free.
fn make_room(header: &mut RingHeader, bytes: &[u8], needed: u64, on_overwrite: &mut dyn FnMut(&Record)) {
    while header.head.wrapping_sub(header.tail).saturating_add(needed) > header.capacity {
        header.overwritten_records = header.overwritten_records.wrapping_add(1);
        match record_at(header, bytes, header.tail) {
            Some(oldest) => {
                on_overwrite(&oldest);
                header.tail = oldest.end();
            }
            // Not ours: whatever is left cannot be walked, so all of it goes at once.
            None => header.tail = header.head,
        }
    }
}

/// The record at a position between tail and head, when what stands there is one.
fn record_at(header: &RingHeader, bytes: &[u8], position: u64) -> Option<Record> {
    let held = header.head.checked_sub(position)?;
    if !is_sound(header, bytes) || held > header.capacity || held < RECORD_HEADER as u64 {
        return None;
    }
    let mut raw = [0u8; RECORD_HEADER];
    for (offset, byte) in (0u64..).zip(raw.iter_mut()) {
        *byte = *bytes.get(place(header, position.wrapping_add(offset)))?;
    }
    let record = decode(&raw, position)?;
    (RECORD_HEADER as u64 + u64::from(record.length) <= held).then_some(record)
}

fn encode(record: &Record) -> [u8; RECORD_HEADER] {
    let mut raw = [0u8; RECORD_HEADER];
    raw[0..8].copy_from_slice(&record.seq.to_ne_bytes());
    raw[8..12].copy_from_slice(&record.length.to_ne_bytes());
    raw[12..16].copy_from_slice(&record.kind.to_ne_bytes());
    raw[16..20].copy_from_slice(&record.database.to_ne_bytes());
    raw[20..24].copy_from_slice(&check_word(record.position).to_ne_bytes());
    raw
}

fn decode(raw: &[u8; RECORD_HEADER], position: u64) -> Option<Record> {
    let word = |at: usize| u32::from_ne_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
    let [s0, s1, s2, s3, s4, s5, s6, s7, ..] = *raw;
    let seq = u64::from_ne_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
    let record = Record { seq, kind: word(12), database: word(16), length: word(8), position };
    (word(20) == check_word(position)).then_some(record)
}

/// Ties a header to its position: a position inside a payload is not taken for a record.
const fn check_word(position: u64) -> u32 {
    (position as u32) ^ ((position >> 32) as u32).rotate_left(16) ^ CHECK
}

fn place(header: &RingHeader, position: u64) -> usize {
    // The caller has checked that the capacity is not 0 and fits the memory.
    (position % header.capacity) as usize
}

/// Copies `data` to a position, in two parts when it runs over the end.
fn copy_in(header: &RingHeader, bytes: &mut [u8], position: u64, data: &[u8]) {
    let start = place(header, position);
    let until_end = (header.capacity as usize).saturating_sub(start).min(data.len());
    let (first, second) = data.split_at(until_end);
    if let Some(target) = bytes.get_mut(start..start + first.len()) {
        target.copy_from_slice(first);
    }
    if let Some(target) = bytes.get_mut(..second.len()) {
        target.copy_from_slice(second);
    }
}

fn copy_out(header: &RingHeader, bytes: &[u8], position: u64, length: usize, out: &mut Vec<u8>) {
    let start = place(header, position);
    let until_end = (header.capacity as usize).saturating_sub(start).min(length);
    out.reserve(length);
    out.extend_from_slice(bytes.get(start..start + until_end).unwrap_or_default());
    out.extend_from_slice(bytes.get(..length - until_end).unwrap_or_default());
}
