//! Who and what this backend is.

use super::{raw, text};
use pgrx::pg_sys;

/// The role whose permissions hold now.
#[inline(always)]
pub fn user_id() -> u32 {
    // SAFETY: reads a static; a backend that runs statements has a user.
    unsafe { raw::GetUserId() }.to_u32()
}

#[inline(always)]
pub fn database_id() -> u32 {
    // SAFETY: a plain static.
    unsafe { pg_sys::MyDatabaseId }.to_u32()
}

pub fn pid() -> i32 {
    // SAFETY: as above.
    unsafe { pg_sys::MyProcPid }
}

pub fn application_name() -> String {
    // SAFETY: a setting's value, NUL-terminated.
    unsafe { text::c_string(pg_sys::application_name) }
}

/// Address of the client; empty for a Unix socket and for background workers.
pub fn client_addr() -> String {
    // SAFETY: the port of a client's backend lives as long as the backend; NULL elsewhere.
    unsafe {
        match pg_sys::libpq::be::MyProcPort.as_ref() {
            Some(port) if !port.remote_host.is_null() => {
                let host = text::c_string(port.remote_host);
                if host == "[local]" { String::new() } else { host }
            }
            _ => String::new(),
        }
    }
}

pub fn in_recovery() -> bool {
    // SAFETY: reads shared memory of Postgres's.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// May the current user see what other users do? Postgres's own rule for pg_stat_activity.
pub fn reads_all_stats() -> bool {
    // SAFETY: a catalog look-up within the caller's transaction.
    unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), pg_sys::Oid::from(pg_sys::ROLE_PG_READ_ALL_STATS)) }
}

/// Has the current user the privileges of `role`?
pub fn has_privileges_of(role: u32) -> bool {
    // SAFETY: as above; a role that is gone has no members.
    unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), pg_sys::Oid::from(role)) }
}

/// Is the library being loaded through shared_preload_libraries?
pub fn is_preloading() -> bool {
    // SAFETY: a plain static.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// Is a backslash in an ordinary string just a backslash?
pub fn standard_conforming_strings() -> bool {
    // SAFETY: a plain static.
    unsafe { pg_sys::standard_conforming_strings }
}

/// The database of this name; 0 for none. In a transaction.
pub fn database_oid(name: &str) -> u32 {
    let Ok(name) = std::ffi::CString::new(name) else { return 0 };
    // SAFETY: a catalog look-up by a NUL-terminated name.
    unsafe { pg_sys::get_database_oid(name.as_ptr(), true) }.to_u32()
}

/// Bytes that nobody can guess.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // SAFETY: fills as many bytes as said. Without a source of randomness the server could not have started.
    unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), N) };
    bytes
}

/// Shows the client a notice.
pub fn notice(message: &str) {
    pgrx::notice!("{message}");
}

/// Runs work as a role, which can take on no other meanwhile: code of the role's, run because of a statement of its own, must
/// not have the rights of whoever looks at the statement. Under a guard.
pub fn as_user<R>(role: u32, work: impl FnOnce() -> R) -> R {
    struct Restore(pg_sys::Oid, i32);
    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: what it was before.
            unsafe { pg_sys::SetUserIdAndSecContext(self.0, self.1) };
        }
    }
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: statics of the backend, put back whichever way the work ends.
    let _restore = unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        let local = pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32;
        let restricted = pg_sys::SECURITY_RESTRICTED_OPERATION as i32;
        pg_sys::SetUserIdAndSecContext(pg_sys::Oid::from(role), context | local | restricted);
        Restore(user, context)
    };
    work()
}
