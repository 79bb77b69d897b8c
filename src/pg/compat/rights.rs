//! What a statement must be allowed to read: kept with each relation up to 15, in lists of their own since 16.

use crate::pg::plan::pointers;
use pgrx::pg_sys;

/// Relations and rights that a statement needs, in the shape in which the version checks them.
#[derive(Clone, Copy)]
pub struct Rights {
    table: *mut pg_sys::List,
    #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
    infos: *mut pg_sys::List,
}

impl Rights {
    pub const fn none() -> Self {
        Self {
            table: core::ptr::null_mut(),
            #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
            infos: core::ptr::null_mut(),
        }
    }

    /// Adds copies, in the current memory context, of what one query of a tree needs.
    ///
    /// # Safety
    /// `query` must be valid.
    pub unsafe fn add(&mut self, query: *const pg_sys::Query) {
        // SAFETY: by the contract; since 16 an entry names its rights by their place in the query's list.
        unsafe {
            for entry in pointers::<pg_sys::RangeTblEntry>((*query).rtable) {
                #[cfg(not(any(feature = "pg16", feature = "pg17", feature = "pg18")))]
                if (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION {
                    self.table = pg_sys::lappend(self.table, pg_sys::copyObjectImpl(entry.cast()));
                }
                #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
                if (*entry).perminfoindex != 0 {
                    let place = (*entry).perminfoindex as usize - 1;
                    let info = pointers::<pg_sys::RTEPermissionInfo>((*query).rteperminfos).nth(place);
                    let Some(info) = info else { continue };
                    let copy = pg_sys::copyObjectImpl(entry.cast()).cast::<pg_sys::RangeTblEntry>();
                    self.infos = pg_sys::lappend(self.infos, pg_sys::copyObjectImpl(info.cast()));
                    (*copy).perminfoindex = (*self.infos).length as u32;
                    self.table = pg_sys::lappend(self.table, copy.cast());
                }
            }
        }
    }

    /// Postgres's own check for the current user, with the hook of modules that audit or refuse; raises what it raises.
    ///
    /// The lists live as long as the statement, which is not freed while it is used. The caller owns nothing that drops.
    #[inline(always)]
    pub fn check(self) {
        // SAFETY: Postgres's own symbol with the signature of the version's header.
        unsafe extern "C-unwind" {
            #[cfg(not(any(feature = "pg16", feature = "pg17", feature = "pg18")))]
            fn ExecCheckRTPerms(table: *mut pg_sys::List, raise: bool) -> bool;
            #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
            fn ExecCheckPermissions(table: *mut pg_sys::List, infos: *mut pg_sys::List, raise: bool) -> bool;
        }
        // SAFETY: the lists were made by `add` and are alive; an error passes a plain frame.
        #[allow(ffi_unwind_calls, reason = "plain frame: a longjmp may cross it")]
        unsafe {
            #[cfg(not(any(feature = "pg16", feature = "pg17", feature = "pg18")))]
            ExecCheckRTPerms(self.table, true);
            #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
            ExecCheckPermissions(self.table, self.infos, true);
        }
    }
}

impl Rights {
    /// The columns that are read, of every relation: ids and attribute numbers; 0 for a whole row.
    pub fn columns(self) -> Vec<(u32, i16)> {
        let mut found = Vec::new();
        // SAFETY: the lists were made by `add` and are alive; a set of columns counts from the lowest system column.
        unsafe {
            #[cfg(not(any(feature = "pg16", feature = "pg17", feature = "pg18")))]
            for entry in pointers::<pg_sys::RangeTblEntry>(self.table) {
                members((*entry).selectedCols, |column| found.push(((*entry).relid.to_u32(), column)));
            }
            #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
            for info in pointers::<pg_sys::RTEPermissionInfo>(self.infos) {
                members((*info).selectedCols, |column| found.push(((*info).relid.to_u32(), column)));
            }
        }
        found
    }
}

/// # Safety
/// `set` must be NULL or valid.
pub(in crate::pg) unsafe fn members(set: *mut pg_sys::Bitmapset, mut visit: impl FnMut(i16)) {
    let mut member = -1;
    loop {
        // SAFETY: by the contract; NULL is an empty set.
        member = unsafe { pg_sys::bms_next_member(set, member) };
        if member < 0 {
            return;
        }
        visit((member + pg_sys::FirstLowInvalidHeapAttributeNumber) as i16);
    }
}
