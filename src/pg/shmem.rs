//! Shared memory sized by settings: areas of a few arrays each, guarded by a named LWLock.
//!
//! **Protocol.** An area is a struct of up to five arrays of plain values, and one lock. `exclusive` gives
//! all arrays to write, `shared` to read, each for the time of a closure. Under a lock: no SPI, no
//! palloc, no ereport, nothing that can panic; a closure that panicked would leave the lock to the
//! release-all of the error path, and half-written values behind it. No closure takes a second lock.
//!
//! **Life.** `request` is called from shmem_request_hook, `create` from shmem_startup_hook, both in the
//! postmaster. Shared memory arrives zeroed from the kernel, and after a crash the postmaster makes a new
//! segment, so all-zero must be a valid value of every array (`Plain`); anything else is set by the
//! initialiser of the area, which runs before any backend exists.

#![allow(ffi_unwind_calls, reason = "locks are taken where nothing that drops is owned")]

use core::cell::Cell;
use core::ffi::CStr;
use core::sync::atomic::{AtomicU32, AtomicU64};
use pgrx::pg_sys;
use steward_core::cache::{admission, pool, shard};
use steward_core::capture::{arena, entry, ring, table};

// SAFETY: Postgres's own symbols with the signatures of its headers. They raise only when a process holds hundreds of
// locks, which the protocol above rules out.
unsafe extern "C-unwind" {
    fn LWLockAcquire(lock: *mut pg_sys::LWLock, mode: pg_sys::LWLockMode::Type) -> bool;
    fn LWLockConditionalAcquire(lock: *mut pg_sys::LWLock, mode: pg_sys::LWLockMode::Type) -> bool;
    fn LWLockRelease(lock: *mut pg_sys::LWLock);
}

/// Values that may lie in shared memory: no pointers, no `Drop`, any bytes that the code itself wrote are
/// valid, and so is all-zero.
///
/// # Safety
/// The implementor promises exactly that.
pub unsafe trait Plain: Copy + 'static {}

// SAFETY: numbers.
unsafe impl Plain for u8 {}
// SAFETY: numbers.
unsafe impl Plain for u32 {}
// SAFETY: numbers.
unsafe impl Plain for u64 {}
// SAFETY: nothing at all.
unsafe impl Plain for () {}
// SAFETY: a struct of the core: repr(C), numbers only, written field by field.
unsafe impl Plain for table::TableMeta {}
// SAFETY: as above.
unsafe impl Plain for table::Slot {}
// SAFETY: as above.
unsafe impl Plain for entry::Entry {}
// SAFETY: as above.
unsafe impl Plain for arena::ArenaMeta {}
// SAFETY: as above.
unsafe impl Plain for arena::Block {}
// SAFETY: as above.
unsafe impl Plain for ring::RingHeader {}
// SAFETY: as above.
unsafe impl Plain for shard::ShardMeta {}
// SAFETY: as above.
unsafe impl Plain for shard::Entry {}
// SAFETY: as above.
unsafe impl Plain for pool::PoolMeta {}
// SAFETY: as above.
unsafe impl Plain for admission::Mark {}
// SAFETY: arrays of plain values.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}
// SAFETY: pairs are only ever read as a whole, in the process that wrote them or a fork of it.
unsafe impl<T: Plain, U: Plain> Plain for (T, U) {}

/// How many values of each array.
pub type Counts = [usize; 5];

/// One lock and up to five arrays. `A` is usually a header with one element; unused ones are `()`.
pub struct Area<A, B = (), C = (), D = (), E = ()> {
    base: Cell<*mut u8>,
    lock: Cell<*mut pg_sys::LWLock>,
    counts: Cell<Counts>,
    types: core::marker::PhantomData<(A, B, C, D, E)>,
}

// SAFETY: the cells are written in the postmaster before any backend is forked, and only read afterwards.
unsafe impl<A, B, C, D, E> Sync for Area<A, B, C, D, E> {}

/// The arrays of an area, writable.
pub struct Arrays<'a, A, B, C, D, E> {
    pub a: &'a mut [A],
    pub b: &'a mut [B],
    pub c: &'a mut [C],
    pub d: &'a mut [D],
    pub e: &'a mut [E],
}

/// The arrays of an area, to read.
pub struct View<'a, A, B, C, D, E> {
    pub a: &'a [A],
    pub b: &'a [B],
    pub c: &'a [C],
    pub d: &'a [D],
    pub e: &'a [E],
}

const ALIGN: usize = 64;
const LINE_PAIR: usize = 128;

const fn aligned(size: usize) -> usize {
    size.div_ceil(ALIGN) * ALIGN
}

impl<A: Plain, B: Plain, C: Plain, D: Plain, E: Plain> Default for Area<A, B, C, D, E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<A: Plain, B: Plain, C: Plain, D: Plain, E: Plain> Area<A, B, C, D, E> {
    pub const fn new() -> Self {
        Self {
            base: Cell::new(core::ptr::null_mut()),
            lock: Cell::new(core::ptr::null_mut()),
            counts: Cell::new([0; 5]),
            types: core::marker::PhantomData,
        }
    }

    const fn sizes(counts: Counts) -> Counts {
        [
            aligned(size_of::<A>() * counts[0]),
            aligned(size_of::<B>() * counts[1]),
            aligned(size_of::<C>() * counts[2]),
            aligned(size_of::<D>() * counts[3]),
            aligned(size_of::<E>() * counts[4]),
        ]
    }

    /// Bytes that arrays of these lengths take.
    pub fn estimate_size(counts: Counts) -> usize {
        Self::sizes(counts).iter().sum::<usize>() + ALIGN
    }

    /// Finds or makes the area under its name, with the `index`-th lock of `tranche`.
    pub fn create(&self, name: &CStr, tranche: &CStr, index: usize, counts: Counts) {
        let mut found = false;
        // SAFETY: runs in shmem_startup_hook of the postmaster; the space was requested, the tranche has
        // more than `index` locks. ShmemInitStruct aligns to a cache line at least to 8; we align to 64.
        unsafe {
            let size = Self::estimate_size(counts);
            let start = pg_sys::ShmemInitStruct(name.as_ptr(), size, &mut found).cast::<u8>();
            if !found {
                core::ptr::write_bytes(start, 0, size);
            }
            self.base.set(start.add(start.align_offset(ALIGN)));
            let locks = pg_sys::GetNamedLWLockTranche(tranche.as_ptr());
            self.lock.set(&raw mut (*locks.add(index)).lock);
        }
        self.counts.set(counts);
    }

    /// Was shared memory set up? Not when the library was loaded without shared_preload_libraries.
    #[inline(always)]
    pub fn exists(&self) -> bool {
        !self.base.get().is_null()
    }

    /// Runs `work` with the arrays under the exclusive lock. `None` when there is no shared memory.
    pub fn exclusive<R>(&self, work: impl FnOnce(Arrays<'_, A, B, C, D, E>) -> R) -> Option<R> {
        self.exists().then(|| {
            // SAFETY: the lock was made in `create`; it is released below.
            unsafe { LWLockAcquire(self.lock.get(), pg_sys::LWLockMode::LW_EXCLUSIVE) };
            self.write_and_release(work)
        })
    }

    /// As `exclusive`, but `None` also when the lock is not free at once.
    pub fn try_exclusive<R>(&self, work: impl FnOnce(Arrays<'_, A, B, C, D, E>) -> R) -> Option<R> {
        // SAFETY: as above.
        let taken =
            self.exists() && unsafe { LWLockConditionalAcquire(self.lock.get(), pg_sys::LWLockMode::LW_EXCLUSIVE) };
        taken.then(|| self.write_and_release(work))
    }

    fn write_and_release<R>(&self, work: impl FnOnce(Arrays<'_, A, B, C, D, E>) -> R) -> R {
        let result = work(self.arrays());
        // SAFETY: taken by the caller.
        unsafe { LWLockRelease(self.lock.get()) };
        result
    }

    /// Runs `work` with the arrays under the shared lock. `None` when there is no shared memory.
    pub fn shared<R>(&self, work: impl FnOnce(View<'_, A, B, C, D, E>) -> R) -> Option<R> {
        self.exists().then(|| {
            // SAFETY: as above.
            unsafe { LWLockAcquire(self.lock.get(), pg_sys::LWLockMode::LW_SHARED) };
            let all = self.arrays();
            let result = work(View { a: all.a, b: all.b, c: all.c, d: all.d, e: all.e });
            // SAFETY: as above.
            unsafe { LWLockRelease(self.lock.get()) };
            result
        })
    }

    /// The arrays before any backend exists, when no lock is needed yet.
    pub fn initialise(&self, work: impl FnOnce(Arrays<'_, A, B, C, D, E>)) {
        work(self.arrays());
    }

    fn arrays<'a>(&self) -> Arrays<'a, A, B, C, D, E> {
        let counts = self.counts.get();
        let sizes = Self::sizes(counts);
        let base = self.base.get();
        let at = |index: usize| sizes[..index].iter().sum::<usize>();
        // SAFETY: `create` laid the arrays out back to back, each aligned to 64, all of them initialised
        // (`Plain`: zero is valid). The caller holds the lock, or is alone.
        unsafe {
            Arrays {
                a: core::slice::from_raw_parts_mut(base.add(at(0)).cast(), counts[0]),
                b: core::slice::from_raw_parts_mut(base.add(at(1)).cast(), counts[1]),
                c: core::slice::from_raw_parts_mut(base.add(at(2)).cast(), counts[2]),
                d: core::slice::from_raw_parts_mut(base.add(at(3)).cast(), counts[3]),
                e: core::slice::from_raw_parts_mut(base.add(at(4)).cast(), counts[4]),
            }
        }
    }
}

/// A row of counters in shared memory, changed without a lock. Before shared memory is there, it is a row of
/// the process's own, so that reading needs no test.
pub struct SharedCounters<const N: usize> {
    base: Cell<Option<&'static [AtomicU64; N]>>,
    own: [AtomicU64; N],
}

// SAFETY: as for `Area`.
unsafe impl<const N: usize> Sync for SharedCounters<N> {}

impl<const N: usize> Default for SharedCounters<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> SharedCounters<N> {
    pub const fn new() -> Self {
        Self { base: Cell::new(None), own: [const { AtomicU64::new(0) }; N] }
    }

    pub const fn estimate_size() -> usize {
        N * 8 + ALIGN
    }

    /// Finds or makes the row under its name, all zero.
    pub fn create(&self, name: &CStr) {
        let mut found = false;
        // SAFETY: as for `Area::create`; zero is a valid AtomicU64.
        unsafe {
            let size = Self::estimate_size();
            let start = pg_sys::ShmemInitStruct(name.as_ptr(), size, &mut found).cast::<u8>();
            if !found {
                core::ptr::write_bytes(start, 0, size);
            }
            self.base.set(start.add(start.align_offset(ALIGN)).cast::<[AtomicU64; N]>().as_ref());
        }
    }

    /// Was shared memory set up?
    pub fn exists(&self) -> bool {
        self.base.get().is_some()
    }

    #[inline(always)]
    pub fn get(&self) -> &[AtomicU64; N] {
        self.base.get().unwrap_or(&self.own)
    }
}

/// Who needs shared memory.
pub trait ShmemUser: 'static {
    /// Bytes in all.
    fn bytes() -> usize;
    /// Name of the lock tranche, and how many locks.
    const TRANCHE: &'static CStr;
    fn locks() -> usize;
    /// Makes the areas; `TRANCHE` has its locks by then.
    fn create();

    /// Asks for the space and the locks.
    fn request() {
        // SAFETY: called in shmem_request_hook.
        unsafe {
            pg_sys::RequestAddinShmemSpace(Self::bytes());
            pg_sys::RequestNamedLWLockTranche(Self::TRANCHE.as_ptr(), Self::locks() as i32);
        }
    }
}

/// Two users, each with its own tranche.
impl<A: ShmemUser, B: ShmemUser> ShmemUser for (A, B) {
    const TRANCHE: &'static CStr = A::TRANCHE;

    fn bytes() -> usize {
        A::bytes() + B::bytes()
    }

    fn locks() -> usize {
        A::locks() + B::locks()
    }

    fn create() {
        A::create();
        B::create();
    }

    fn request() {
        A::request();
        B::request();
    }
}

/// Words in shared memory that are read and changed without a lock; how many is set when they are made. Empty before.
pub struct SharedWords {
    base: Cell<&'static [AtomicU64]>,
}

// SAFETY: as for `Area`.
unsafe impl Sync for SharedWords {}

impl Default for SharedWords {
    fn default() -> Self {
        Self::new()
    }
}

impl SharedWords {
    pub const fn new() -> Self {
        Self { base: Cell::new(&[]) }
    }

    pub const fn estimate_size(count: usize) -> usize {
        count * 8 + LINE_PAIR
    }

    /// Finds or makes the words under their name, all zero, aligned to two cache lines (which processors fetch
    /// together).
    pub fn create(&self, name: &CStr, count: usize) {
        let mut found = false;
        // SAFETY: as for `Area::create`; zero is a valid AtomicU64.
        unsafe {
            let size = Self::estimate_size(count);
            let start = pg_sys::ShmemInitStruct(name.as_ptr(), size, &mut found).cast::<u8>();
            if !found {
                core::ptr::write_bytes(start, 0, size);
            }
            let aligned = start.add(start.align_offset(LINE_PAIR)).cast::<AtomicU64>();
            self.base.set(core::slice::from_raw_parts(aligned, count));
        }
    }

    #[inline(always)]
    pub fn get(&self) -> &'static [AtomicU64] {
        self.base.get()
    }

    /// The same memory as twice as many words of half the size. One area is read in one way only.
    pub fn halves(&self) -> &'static [AtomicU32] {
        let words = self.base.get();
        // SAFETY: atomics have the layout of their numbers, and any bytes are a number.
        unsafe { core::slice::from_raw_parts(words.as_ptr().cast(), words.len() * 2) }
    }
}

static mut PREVIOUS_REQUEST: pg_sys::shmem_request_hook_type = None;
static mut PREVIOUS_STARTUP: pg_sys::shmem_startup_hook_type = None;

/// Installs the shared-memory hooks. Call once, from `_PG_init` while preloading.
pub fn install<U: ShmemUser>() {
    // SAFETY: `_PG_init` runs once in the postmaster.
    unsafe {
        PREVIOUS_REQUEST = pg_sys::shmem_request_hook;
        pg_sys::shmem_request_hook = Some(request::<U>);
        PREVIOUS_STARTUP = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(startup::<U>);
    }
}

unsafe extern "C-unwind" fn request<U: ShmemUser>() {
    // SAFETY: called by the postmaster at the one moment when requests are allowed. A frame that owns
    // nothing, so an error may cross it.
    unsafe {
        #[allow(ffi_unwind_calls, reason = "plain frame: a longjmp may cross it")]
        if let Some(previous) = PREVIOUS_REQUEST {
            previous();
        }
    }
    U::request();
}

unsafe extern "C-unwind" fn startup<U: ShmemUser>() {
    // SAFETY: as above. AddinShmemInitLock is left alone: it matters only where each process attaches
    // anew (Windows), and there this library is not built.
    unsafe {
        #[allow(ffi_unwind_calls, reason = "plain frame: a longjmp may cross it")]
        if let Some(previous) = PREVIOUS_STARTUP {
            previous();
        }
    }
    U::create();
}

/// Names of 64 areas of one kind: Postgres finds shared memory by a name each.
macro_rules! numbered_names {
    () => {
        [
            c"pg_steward cache shard 00",
            c"pg_steward cache shard 01",
            c"pg_steward cache shard 02",
            c"pg_steward cache shard 03",
            c"pg_steward cache shard 04",
            c"pg_steward cache shard 05",
            c"pg_steward cache shard 06",
            c"pg_steward cache shard 07",
            c"pg_steward cache shard 08",
            c"pg_steward cache shard 09",
            c"pg_steward cache shard 10",
            c"pg_steward cache shard 11",
            c"pg_steward cache shard 12",
            c"pg_steward cache shard 13",
            c"pg_steward cache shard 14",
            c"pg_steward cache shard 15",
            c"pg_steward cache shard 16",
            c"pg_steward cache shard 17",
            c"pg_steward cache shard 18",
            c"pg_steward cache shard 19",
            c"pg_steward cache shard 20",
            c"pg_steward cache shard 21",
            c"pg_steward cache shard 22",
            c"pg_steward cache shard 23",
            c"pg_steward cache shard 24",
            c"pg_steward cache shard 25",
            c"pg_steward cache shard 26",
            c"pg_steward cache shard 27",
            c"pg_steward cache shard 28",
            c"pg_steward cache shard 29",
            c"pg_steward cache shard 30",
            c"pg_steward cache shard 31",
            c"pg_steward cache shard 32",
            c"pg_steward cache shard 33",
            c"pg_steward cache shard 34",
            c"pg_steward cache shard 35",
            c"pg_steward cache shard 36",
            c"pg_steward cache shard 37",
            c"pg_steward cache shard 38",
            c"pg_steward cache shard 39",
            c"pg_steward cache shard 40",
            c"pg_steward cache shard 41",
            c"pg_steward cache shard 42",
            c"pg_steward cache shard 43",
            c"pg_steward cache shard 44",
            c"pg_steward cache shard 45",
            c"pg_steward cache shard 46",
            c"pg_steward cache shard 47",
            c"pg_steward cache shard 48",
            c"pg_steward cache shard 49",
            c"pg_steward cache shard 50",
            c"pg_steward cache shard 51",
            c"pg_steward cache shard 52",
            c"pg_steward cache shard 53",
            c"pg_steward cache shard 54",
            c"pg_steward cache shard 55",
            c"pg_steward cache shard 56",
            c"pg_steward cache shard 57",
            c"pg_steward cache shard 58",
            c"pg_steward cache shard 59",
            c"pg_steward cache shard 60",
            c"pg_steward cache shard 61",
            c"pg_steward cache shard 62",
            c"pg_steward cache shard 63",
        ]
    };
}
pub(crate) use numbered_names;
