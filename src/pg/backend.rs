//! State that belongs to one backend process.

use std::ops::Deref;

/// A static of one backend: plain cells, no lock, no allocation.
///
/// A Postgres backend runs its code on one thread only, so cells need no synchronisation; the library
/// starts no thread, and whatever a dependency did on another thread must not come here.
pub struct BackendStatic<T>(T);

// SAFETY: a backend is single threaded (see above), so no two threads ever share the value.
unsafe impl<T> Sync for BackendStatic<T> {}

impl<T> BackendStatic<T> {
    pub const fn new(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for BackendStatic<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}
