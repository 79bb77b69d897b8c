//! The key of a call: everything that its answer depends on, besides the versions of what it reads.
//!
//! The canonical key is a string of bytes that is equal only for equal inputs: the statement's base (a BLAKE3 hash of its
//! tree, the settings, database, search path, and role where it matters), what else it reads of the session, tags and
//! class where the caller gives them, and last the parameters. A session's own results are found by the whole string, the
//! shared ones by its hash under a secret that is drawn at each start of the server.

use super::analysis::{self, ParameterCheck};
use super::statements;
use super::store::Key;
use crate::pg::backend::BackendStatic;
use crate::pg::bind::{self, Json};
use crate::pg::shmem::SharedWords;
use core::cell::RefCell;
use core::sync::atomic::Ordering::Relaxed;
use steward_core::cache::reason::Reason;

/// Arguments of `cached` and `cached_json`.
pub const QUERY: usize = 0;
pub const PARAMS: usize = 1;
pub const TTL: usize = 2;
pub const CLASS: usize = 3;
pub const TAGS: usize = 4;

/// Larger parameters would cost more to compare and to keep than most results save.
const MAX_PARAMETER_BYTES: usize = 1024 * 1024;

static BUFFER: BackendStatic<RefCell<Vec<u8>>> = BackendStatic::new(RefCell::new(Vec::new()));
/// Room for a key, and for what else is copied at each call, that a session keeps from one call to the next.
pub const KEPT_BYTES: usize = 64 * 1024;
static SECRET: SharedWords = SharedWords::new();
const SECRET_WORDS: usize = 4;

pub fn bytes() -> usize {
    SharedWords::estimate_size(SECRET_WORDS)
}

pub fn create() {
    SECRET.create(c"pg_steward cache secret 1", SECRET_WORDS);
    let drawn = crate::pg::session::random_bytes::<32>();
    for (word, bytes) in SECRET.get().iter().zip(drawn.chunks_exact(8)) {
        let bytes = bytes.first_chunk().copied().unwrap_or_default();
        // The postmaster makes shared memory, once; nobody reads it yet.
        word.store(u64::from_ne_bytes(bytes), Relaxed);
    }
}

/// What a caller asks for besides the query: parameters, class, tags.
#[derive(Clone, Copy, Default)]
pub struct Asked<'a> {
    pub params: Option<Json>,
    pub class: Option<&'a [u8]>,
    pub tags: &'a [String],
}

/// Makes the key of a call. `Err`: no answer to these parameters may be cached. Nothing in here may raise while the buffer
/// is borrowed, but for a statement that reads every custom setting (`reads_all_settings`): that needs a guard.
#[inline]
pub fn make(handle: statements::Handle, asked: Asked<'_>) -> Result<(), Reason> {
    let mut buffer = BUFFER.borrow_mut();
    buffer.clear();
    let checked = statements::with(handle, |statement| {
        buffer.extend_from_slice(&statement.base);
        analysis::write_inputs(&statement.inputs, &mut buffer);
        statement.parameters
    });
    let check = checked.ok_or(Reason::StatementChanged)?;
    if !asked.tags.is_empty() {
        write_tags(asked.tags, &mut buffer);
    }
    if let Some(class) = asked.class {
        buffer.push(b'C');
        write_sized(class, &mut buffer);
    }
    if let Some(params) = asked.params {
        if params.bytes().len() > MAX_PARAMETER_BYTES {
            return Err(Reason::LargeParameters);
        }
        if check == ParameterCheck::SpeaksOfNow && bind::speaks_of_now(params) {
            return Err(Reason::TimeLiteral);
        }
        buffer.push(b'P');
        buffer.extend_from_slice(params.bytes());
    }
    Ok(())
}

/// Does making its key take a guard?
#[inline]
pub fn reads_all_settings(handle: statements::Handle) -> bool {
    statements::with(handle, |statement| statement.inputs.custom_settings).unwrap_or(true)
}

#[inline(never)]
fn write_tags(tags: &[String], out: &mut Vec<u8>) {
    let mut tags: Vec<&String> = tags.iter().collect();
    tags.sort_unstable();
    tags.dedup();
    out.push(b'T');
    tags.iter().for_each(|tag| write_sized(tag.as_bytes(), out));
}

fn write_sized(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(bytes.len() as u32).to_ne_bytes());
    out.extend_from_slice(bytes);
}

/// Runs `look` with the key that was made last. It must not make another.
#[inline]
pub fn with<R>(look: impl FnOnce(&[u8]) -> R) -> R {
    look(&BUFFER.borrow())
}

/// A call is over: memory that only its parameters needed is given back.
#[inline(always)]
pub fn give_back() {
    if BUFFER.borrow().capacity() > KEPT_BYTES {
        BUFFER.take();
    }
}

/// A copy of it.
pub fn copy() -> Vec<u8> {
    BUFFER.borrow().clone()
}

/// The key under which a result is found in shared memory.
pub fn shared(canonical: &[u8]) -> Key {
    let mut secret = [0; 32];
    for (bytes, word) in secret.chunks_exact_mut(8).zip(SECRET.get()) {
        bytes.copy_from_slice(&word.load(Relaxed).to_ne_bytes());
    }
    let hash = blake3::keyed_hash(&secret, canonical);
    let mut key = [0; 4];
    for (word, bytes) in key.iter_mut().zip(hash.as_bytes().chunks_exact(8)) {
        *word = u64::from_ne_bytes(bytes.first_chunk().copied().unwrap_or_default());
    }
    key
}
