//! Hash table of fixed size in memory given by the caller: the bookkeeping of one partition of the statements table.
//!
//! Values live in the caller's own array, under the same index as the [`Slot`]. Collisions are chained through the
//! slots by index, so nothing holds an address. The caller holds the partition's lock: exclusive for a [`Table`],
//! shared is enough for [`find_in`].
//!
//! A full table replaces by CLOCK with a usage counter of two bits (as Postgres's buffer manager does): each use adds
//! one, up to 3; the hand takes one away as it passes, and takes the first slot at 0. A step of the hand is paid for
//! by an earlier use, so the cost is constant per use, and never more than four rounds at once. In front of it stands
//! a doorkeeper (as in TinyLFU, Einziger and others 2017): a key gets in only at its second sight, so statements that
//! never come again cannot push out those that do.
//!
//! No contents of the memory can make these functions panic or loop forever.

/// "No slot", in buckets and chains.
pub const NONE: u32 = u32::MAX;
/// Uses that a slot remembers.
const MAX_USED: u8 = 3;

/// What identifies a statement's entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key {
    /// Postgres's query id.
    pub queryid: u64,
    /// Database.
    pub dbid: u32,
    /// User.
    pub userid: u32,
    /// 1 for a statement sent by the client, 0 for one run by a function.
    pub toplevel: u32,
    /// Always 0: fills the layout to a multiple of 8 bytes.
    pub reserved: u32,
}

/// One place of the table; the caller keeps the value of the same index.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The key, when occupied.
    pub key: Key,
    /// Next slot of the same bucket, or of the free list.
    pub next: u32,
    /// Uses that the clock hand has not taken away yet, 0 to 3.
    pub used: u8,
    /// 1 when a key is held.
    pub occupied: u8,
    /// Always 0.
    pub reserved: u16,
}

impl Default for Slot {
    fn default() -> Self {
        Slot { key: Key::default(), next: NONE, used: 0, occupied: 0, reserved: 0 }
    }
}

/// Counters and list heads of the table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableMeta {
    /// First free slot.
    pub free_head: u32,
    /// Slots occupied.
    pub entries: u32,
    /// Next slot that the hand looks at.
    pub clock_hand: u32,
    /// Always 0.
    pub reserved: u32,
    /// Entries that gave way to another.
    pub evictions: u64,
    /// Times that a key was not let in.
    pub refused: u64,
}

/// What became of a key that wants in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It was there already; its usage has been counted.
    Existing(usize),
    /// It took a free slot.
    Inserted(usize),
    /// It took the slot of another key, whose value the caller has to save or drop.
    Evicted {
        /// The slot.
        index: usize,
        /// The key that had it.
        old: Key,
    },
    /// The table is full and the key was not seen before: count it elsewhere.
    Refused,
}

/// A table over the caller's memory, for as long as the exclusive lock is held.
pub struct Table<'a> {
    /// Counters and list heads.
    pub meta: &'a mut TableMeta,
    /// First slot of each chain. About as many as slots is right.
    pub buckets: &'a mut [u32],
    /// The entries.
    pub slots: &'a mut [Slot],
    /// Fingerprints of the keys refused lately; 0 is free. Four times the slots is right. Empty: no doorkeeper.
    pub door: &'a mut [u32],
}

/// 64-bit hash of a key: its 24 bytes through the finalizer of SplitMix64 (Steele, Lea and Flood 2014) in three steps.
#[inline]
pub fn hash(key: &Key) -> u64 {
    let owner = u64::from(key.dbid) << 32 | u64::from(key.userid);
    let level = u64::from(key.reserved) << 32 | u64::from(key.toplevel);
    use crate::hash::mix;
    mix(mix(mix(key.queryid) ^ owner) ^ level)
}

/// The partition of a hash, from its top 16 bits: the bucket of a table comes from other bits.
#[inline]
pub const fn partition_of(hash: u64, partitions: usize) -> usize {
    (((hash >> 48) * partitions as u64) >> 16) as usize
}

/// `range * fraction`, for 32 bits of a hash taken as a fraction of 1 (Lemire 2019): a place without a division.
#[inline]
const fn scale(bits: u32, range: usize) -> usize {
    ((bits as u64 * range as u64) >> 32) as usize
}

#[inline]
fn bucket_index(hash: u64, buckets: usize) -> usize {
    scale((hash >> 16) as u32, buckets)
}

/// The slot of a key. Reads only, so it may run under a shared lock.
#[inline]
pub fn find_in(buckets: &[u32], slots: &[Slot], key: &Key) -> Option<usize> {
    let mut at = *buckets.get(bucket_index(hash(key), buckets.len()))?;
    // A chain cannot be longer than the table; the limit ends a loop that a damaged chain might form.
    for _ in 0..slots.len() {
        let slot = slots.get(at as usize)?;
        if slot.key == *key {
            return (slot.occupied != 0).then_some(at as usize);
        }
        at = slot.next;
    }
    None
}

impl Table<'_> {
    /// Makes the table empty. Must be called once on new memory.
    pub fn init(&mut self) {
        *self.meta = TableMeta { free_head: NONE, ..TableMeta::default() };
        self.buckets.fill(NONE);
        self.door.fill(0);
        for index in (0..self.slots.len()).rev() {
            self.put_on_free_list(index);
        }
    }

    /// The slot of a key.
    pub fn find(&self, key: &Key) -> Option<usize> {
        find_in(self.buckets, self.slots, key)
    }

    /// Counts a use of a slot.
    pub fn touch(&mut self, index: usize) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.used = slot.used.saturating_add(1).min(MAX_USED);
        }
    }

    /// Finds a key or lets it in, which may push out another: see the module's head for who gives way.
    pub fn admit(&mut self, key: &Key) -> Admission {
        if let Some(index) = self.find(key) {
            self.touch(index);
            return Admission::Existing(index);
        }
        if let Some(index) = self.take_free() {
            self.occupy(index, key);
            return Admission::Inserted(index);
        }
        if !self.seen_before(key) {
            return self.refuse();
        }
        match self.next_victim() {
            Some(index) => self.replace(index, key),
            None => self.refuse(),
        }
    }

    /// Frees a slot.
    pub fn remove(&mut self, index: usize) {
        if self.vacate(index).is_some() {
            self.put_on_free_list(index);
        }
    }

    fn refuse(&mut self) -> Admission {
        self.meta.refused = self.meta.refused.wrapping_add(1);
        Admission::Refused
    }

    fn replace(&mut self, index: usize, key: &Key) -> Admission {
        let Some(old) = self.vacate(index) else { return self.refuse() };
        self.meta.evictions = self.meta.evictions.wrapping_add(1);
        self.occupy(index, key);
        Admission::Evicted { index, old }
    }

    /// Whether the doorkeeper knows the key, which it then forgets; otherwise it remembers it.
    fn seen_before(&mut self, key: &Key) -> bool {
        let hash = hash(key);
        // The other half of the hash tells apart the keys of one place; 0 means free.
        let fingerprint = (hash >> 32) as u32 | 1;
        let place = scale(hash as u32, self.door.len());
        let Some(remembered) = self.door.get_mut(place) else { return true };
        let seen = *remembered == fingerprint;
        *remembered = if seen { 0 } else { fingerprint };
        seen
    }

    /// Turns the hand to a slot without uses left. After a full round for each use there must be one.
    fn next_victim(&mut self) -> Option<usize> {
        let steps = self.slots.len().saturating_mul(usize::from(MAX_USED) + 1);
        for _ in 0..steps {
            let index = (self.meta.clock_hand as usize) % self.slots.len();
            self.meta.clock_hand = ((index + 1) % self.slots.len()) as u32;
            let slot = self.slots.get_mut(index)?;
            if slot.occupied != 0 && slot.used == 0 {
                return Some(index);
            }
            slot.used = slot.used.min(MAX_USED).saturating_sub(1);
        }
        None
    }

    fn take_free(&mut self) -> Option<usize> {
        let index = self.meta.free_head as usize;
        let slot = self.slots.get(index)?;
        if slot.occupied != 0 {
            return None;
        }
        self.meta.free_head = slot.next;
        Some(index)
    }

    fn put_on_free_list(&mut self, index: usize) {
        let next = self.meta.free_head;
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = Slot { next, ..Slot::default() };
            self.meta.free_head = index as u32;
        }
    }

    /// Writes the key and puts the slot first in its chain. It starts without a use: the hand has just passed a slot
    /// that was taken from another, so it has a whole round to prove itself, and newcomers do not wear down the rest.
    fn occupy(&mut self, index: usize, key: &Key) {
        let bucket = bucket_index(hash(key), self.buckets.len());
        let (Some(head), Some(slot)) = (self.buckets.get_mut(bucket), self.slots.get_mut(index)) else { return };
        *slot = Slot { key: *key, next: *head, used: 0, occupied: 1, reserved: 0 };
        *head = index as u32;
        self.meta.entries = self.meta.entries.saturating_add(1);
    }

    /// Takes an occupied slot out of its chain and returns its key.
    fn vacate(&mut self, index: usize) -> Option<Key> {
        let Slot { key, next, .. } = *self.slots.get(index).filter(|slot| slot.occupied != 0)?;
        self.unlink(index, next, bucket_index(hash(&key), self.buckets.len()));
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = Slot::default();
        }
        self.meta.entries = self.meta.entries.saturating_sub(1);
        Some(key)
    }

    fn unlink(&mut self, index: usize, next: u32, bucket: usize) {
        let Some(head) = self.buckets.get_mut(bucket) else { return };
        if *head as usize == index {
            *head = next;
            return;
        }
        let mut at = *head as usize;
        for _ in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(at) else { return };
            if slot.next as usize == index {
                slot.next = next;
                return;
            }
            at = slot.next as usize;
        }
    }
}
