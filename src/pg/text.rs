//! Text between the encodings of databases and UTF-8, in which shared memory holds it. Nothing here raises.

use pgrx::pg_sys;

/// Text of this database as UTF-8. What cannot be converted becomes a replacement mark.
pub fn to_utf8(bytes: &[u8]) -> String {
    to_utf8_with(bytes, true)
}

/// The same while an error is being reported: catalogs must not be read then (locks of the failed work may
/// still be held), so text of an encoding other than UTF-8 keeps only its ASCII part.
pub fn to_utf8_in_error(bytes: &[u8]) -> String {
    to_utf8_with(bytes, false)
}

/// Does converting this text take a look at the catalogs, and so a transaction?
pub fn needs_catalogs(bytes: &[u8]) -> bool {
    use pg_sys::pg_enc::{PG_LATIN1, PG_SQL_ASCII, PG_UTF8};
    // SAFETY: as above.
    let encoding = unsafe { pg_sys::GetDatabaseEncoding() } as u32;
    !bytes.is_ascii() && ![PG_UTF8, PG_SQL_ASCII, PG_LATIN1].contains(&encoding)
}

fn to_utf8_with(bytes: &[u8], catalogs: bool) -> String {
    // SAFETY: reads the encoding of the database.
    let encoding = unsafe { pg_sys::GetDatabaseEncoding() } as u32;
    let utf8 = pg_sys::pg_enc::PG_UTF8;
    if bytes.is_ascii() || encoding == utf8 || encoding == pg_sys::pg_enc::PG_SQL_ASCII {
        return String::from_utf8_lossy(bytes).replace('\0', "");
    }
    if encoding == pg_sys::pg_enc::PG_LATIN1 {
        // A byte is its code point.
        return bytes.iter().filter(|byte| **byte != 0).map(|byte| char::from(*byte)).collect();
    }
    match catalogs.then(|| convert(bytes, encoding, utf8)).flatten() {
        Some(converted) => String::from_utf8_lossy(&converted).into_owned(),
        None => String::from_utf8_lossy(bytes).replace('\0', ""),
    }
}

/// UTF-8 as text of this database. What its encoding does not have becomes a question mark.
pub fn from_utf8(text: &str) -> Vec<u8> {
    // SAFETY: as above.
    let encoding = unsafe { pg_sys::GetDatabaseEncoding() } as u32;
    let utf8 = pg_sys::pg_enc::PG_UTF8;
    if text.is_ascii() || encoding == utf8 || encoding == pg_sys::pg_enc::PG_SQL_ASCII {
        return text.as_bytes().to_vec();
    }
    let mut out = Vec::with_capacity(text.len());
    for character in text.chars() {
        let mut buffer = [0; 4];
        let bytes = character.encode_utf8(&mut buffer).as_bytes();
        match character.is_ascii() {
            true => out.extend_from_slice(bytes),
            false => match convert(bytes, utf8, encoding) {
                Some(converted) => out.extend_from_slice(&converted),
                None => out.push(b'?'),
            },
        }
    }
    out
}

/// A message of ours, which pgrx hands to Postgres as it is, whatever the encoding of the database: what is not ASCII becomes
/// a question mark where it would be other characters, or none.
pub fn message(text: String) -> String {
    // SAFETY: as above.
    let encoding = unsafe { pg_sys::GetDatabaseEncoding() } as u32;
    match text.is_ascii() || [pg_sys::pg_enc::PG_UTF8, pg_sys::pg_enc::PG_SQL_ASCII].contains(&encoding) {
        true => text,
        false => text.chars().map(|character| if character.is_ascii() { character } else { '?' }).collect(),
    }
}

/// Converts with the default conversion, all or nothing.
fn convert(bytes: &[u8], from: u32, to: u32) -> Option<Vec<u8>> {
    super::shield::quietly(|| {
        let room = bytes.len() * pg_sys::MAX_CONVERSION_GROWTH as usize + 1;
        let mut out = vec![0u8; room];
        // SAFETY: the buffers are as long as said, and `no_error` makes the call report instead of raise.
        // Looking up the conversion reads a catalog, which needs a transaction.
        unsafe {
            if !pg_sys::IsTransactionState() || pg_sys::IsAbortedTransactionBlockState() {
                return None;
            }
            let conversion = pg_sys::FindDefaultConversionProc(from as i32, to as i32);
            if conversion == pg_sys::InvalidOid {
                return None;
            }
            let done = pg_sys::pg_do_encoding_conversion_buf(
                conversion,
                from as i32,
                to as i32,
                bytes.as_ptr().cast_mut(),
                bytes.len() as i32,
                out.as_mut_ptr().cast(),
                room as i32,
                true,
            );
            if done as usize != bytes.len() {
                return None;
            }
        }
        let end = out.iter().position(|byte| *byte == 0).unwrap_or(out.len());
        out.truncate(end);
        Some(out)
    })
    .flatten()
}

/// A C string of Postgres's as UTF-8; empty for NULL.
///
/// # Safety
/// `text` must be NULL or NUL-terminated.
pub(super) unsafe fn c_string(text: *const core::ffi::c_char) -> String {
    match text.is_null() {
        true => String::new(),
        // SAFETY: by the contract.
        false => to_utf8(unsafe { core::ffi::CStr::from_ptr(text) }.to_bytes()),
    }
}

/// A literal of Postgres's own.
pub fn literal(text: *const core::ffi::c_char) -> String {
    // SAFETY: callers pass what Postgres gave them: NULL, or a NUL-terminated string that lives for ever.
    unsafe { c_string(text) }
}

/// Bytes that outlive the call, which a plain frame passed by their address.
pub fn bytes<'a>(bytes: *const [u8]) -> &'a [u8] {
    // SAFETY: an argument of the function being called, which lives as long as the call.
    unsafe { &*bytes }
}
